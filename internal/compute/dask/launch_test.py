"""Runs launch.py as pods would: a real head and real workers, as processes.

python3 launch_test.py, with each Python that has a distributed to be supported.
"""
import asyncio
import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

import dask
import distributed
import psutil

HERE = os.path.dirname(os.path.abspath(__file__))
LAUNCH = os.path.join(HERE, "launch.py")
PREFIX = "/c0abc"


def wait_for(condition, what, seconds=60):
    """Waits until a condition holds, and returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


def free_port():
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connections(process):
    return (process.net_connections if hasattr(process, "net_connections") else process.connections)("inet")


def certificates(directory):
    """Makes a CA, and a key with a certificate for servers and clients."""
    os.makedirs(directory, exist_ok=True)
    at = lambda name: os.path.join(directory, name)
    with open(at("ext"), "w") as f:
        f.write("extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:dask,IP:127.0.0.1\n")
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (
        # From Python 3.13 on a CA has to say what its key is for.
        new + ["-x509", "-days", "2", "-subj", "/CN=ca", "-addext", "keyUsage=critical,keyCertSign", "-keyout", at("ca.key"),
               "-out", at("ca.crt")],
        new + ["-subj", "/CN=dask", "-keyout", at("tls.key"), "-out", at("tls.csr")],
        ["openssl", "x509", "-req", "-days", "2", "-in", at("tls.csr"), "-CA", at("ca.crt"), "-CAkey", at("ca.key"),
         "-CAcreateserial", "-extfile", at("ext"), "-out", at("tls.crt")],
    ):
        subprocess.run(command, check=True, capture_output=True)
    return directory


def security(directory):
    at = lambda name: os.path.join(directory, name)
    return distributed.Security(
        require_encryption=True, tls_ca_file=at("ca.crt"), tls_client_cert=at("tls.crt"), tls_client_key=at("tls.key"))


def mark_begin_and_end(directory, i, seconds, until=None):
    """A task that leaves a trace: a line when it begins, one when it has ended."""
    import os
    import time

    def note(what):
        fd = os.open(os.path.join(directory, "trace"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, f"{what} {i}\n".encode())
        os.close(fd)

    note("begin")
    deadline = time.monotonic() + 60
    while until is not None and not os.path.exists(until) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(seconds)
    note("end")
    return i


class Process:
    def __init__(self, case, role, program=(LAUNCH,), **environment):
        base = {k: v for k, v in os.environ.items() if not k.startswith(("BERTH_", "DASK_"))}
        self.output = os.path.join(case.dir, f"{role}-{time.monotonic_ns()}.log")
        self.log = open(self.output, "wb")
        self.process = subprocess.Popen(
            [sys.executable, *program, role], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, cwd=case.dir,
            env={**base, "BERTH_CLUSTER_TLS": case.tls, "HOME": case.dir, "TMPDIR": case.dir, **environment})
        self.pid = self.process.pid

    def text(self):
        with open(self.output, encoding="utf-8", errors="replace") as f:
            return f.read()

    def ends(self, seconds=30):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {seconds} s:\n{self.text()}")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.certificates = tempfile.mkdtemp(prefix="berth-dask-tls-")
        cls.addClassCleanup(shutil.rmtree, cls.certificates, True)
        cls.tls = certificates(os.path.join(cls.certificates, "right"))

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="berth-dask-test-")
        self.addCleanup(shutil.rmtree, self.dir, True)
        self.port, self.http = free_port(), free_port()
        self.address = f"tls://127.0.0.1:{self.port}"
        self.processes, self.clients, self.outputs = [], [], []

    def run(self, result=None):
        bad = lambda: len(result.failures) + len(result.errors)
        before = bad()
        super().run(result)
        if bad() > before:  # what the processes said is of use then
            for output in self.outputs:
                sys.stderr.write(output)
        return result

    def tearDown(self):
        for c in self.clients:
            with contextlib.suppress(Exception):
                c.close(5)
        for p in self.processes:
            p.kill()
            self.outputs.append(f"---- {self.id()}: {os.path.basename(p.output)}\n{p.text()}")

    def run_process(self, role, **environment):
        p = Process(self, role, **environment)
        self.processes.append(p)
        return p

    def head(self, wait=True, **environment):
        p = self.run_process("head", BERTH_HEAD_HOST="127.0.0.1", BERTH_HEAD_PORT=str(self.port),
                             BERTH_HTTP_PORT=str(self.http), BERTH_CLUSTER_PREFIX=PREFIX, **environment)
        if wait:
            wait_for(lambda: self.try_get("/berth/state"), "the head answers")
        return p

    def worker(self, name, threads=1, **environment):
        return self.run_process("worker", BERTH_CLUSTER_HEAD=self.address, BERTH_WORKER_NAME=name,
                                BERTH_WORKER_THREADS=str(threads), BERTH_WORKER_MEMORY=str(1 << 30), **environment)

    def get(self, path, prefix=PREFIX):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{prefix}{path}", timeout=10) as r:
            return r.read().decode()

    def try_get(self, path, prefix=PREFIX):
        try:
            return self.get(path, prefix)
        except OSError:
            return None

    def state(self):
        return json.loads(self.get("/berth/state"))

    def running(self, *names):
        """Waits until just these workers run."""
        def check():
            workers = self.state()["workers"]
            return {n for n, w in workers.items() if w["status"] == "running"} == set(names)
        wait_for(check, f"workers {names} run")

    def post(self, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{PREFIX}/berth/drain", method="POST", data=body)
        try:
            with urllib.request.urlopen(request, timeout=10) as r:
                return r.status, json.loads(r.read())
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read())

    def drain(self, *names):
        status, answer = self.post(json.dumps({"workers": names}).encode())
        self.assertEqual(status, 202)
        return answer

    def drained(self, name):
        wait_for(lambda: self.state()["workers"].get(name, {}).get("drained"), f"{name} is drained")

    def client(self, tls=None):
        c = distributed.Client(self.address, security=security(tls or self.tls), timeout=20)
        self.clients.append(c)
        return c

    def trace(self):
        try:
            with open(os.path.join(self.dir, "trace")) as f:
                return [tuple(line.split()) for line in f]
        except FileNotFoundError:
            return []

    def began(self, n):
        wait_for(lambda: len([1 for what, _ in self.trace() if what == "begin"]) >= n, f"{n} tasks began")

    def assert_once(self, n):
        """Each of n tasks ran once and to its end."""
        for what in "begin", "end":
            self.assertEqual(sorted(int(i) for w, i in self.trace() if w == what), list(range(n)))


class Computing(Case):
    def test_computes_and_tells_its_state(self):
        self.head()
        self.worker("w-0", threads=2, BERTH_WORKER_GPU="1")
        self.worker("w-1")
        self.running("w-0", "w-1")
        s = self.state()
        self.assertEqual((s["clients"], s["unfinished"]), (0, 0))
        w = s["workers"]["w-0"]
        self.assertEqual((w["threads"], w["memoryLimit"], w["draining"], w["drained"], w["executing"]), (2, 1 << 30, False, False, 0))
        self.assertTrue(w["address"].startswith("tls://"))
        self.assertGreater(w["memory"], 1 << 20)
        comms = {self.port} | {int(w["address"].rsplit(":", 1)[1]) for w in s["workers"].values()}
        for p in self.processes:  # HTTP is to be had on the loopback alone
            at = {c.laddr for c in connections(psutil.Process(p.pid)) if c.status == psutil.CONN_LISTEN}
            self.assertEqual({a.ip for a in at if a.port not in comms}, {"127.0.0.1"}, at)
        for versions in (s["versions"], w["versions"]):
            self.assertEqual(versions["python"], ".".join(map(str, sys.version_info[:3])))
            self.assertEqual(versions["dask"], dask.__version__)
            self.assertEqual(versions["distributed"], distributed.__version__)
            self.assertIn("msgpack", versions)
            self.assertIn("cloudpickle", versions)

        client = self.client()
        self.assertEqual(self.state()["clients"], 1)
        self.assertEqual(client.submit(sum, client.map(lambda x: x * x, range(100))).result(60), 328350)
        self.assertNotEqual(self.state()["mark"], s["mark"])
        self.assertEqual(client.submit(os.getpid, resources={"GPU": 1}).result(60), w and self.processes[1].pid)

        def tasks_of_a_task(n):
            from distributed import Client, get_client, secede, worker_client

            with worker_client() as c:
                one = sum(c.gather(c.map(lambda x: x + 1, range(n))))
            two = get_client().submit(lambda: 5)
            secede()
            own = Client(timeout=10)  # finds head and certificate by itself
            three = own.submit(lambda: 7).result()
            own.close()
            return one, two.result(), three

        self.assertEqual(client.submit(tasks_of_a_task, 10).result(60), (55, 5, 7))
        # Those were no clients of people.
        wait_for(lambda: self.state()["clients"] == 1, "one client is left")
        wait_for(lambda: self.state()["alone"] < 2, "the head has seen it")

        # A task that can't run yet is not done.
        waits = client.submit(sum, [1], resources={"FPGA": 1})
        wait_for(lambda: self.state()["unfinished"] == 1, "a task waits")
        waits.cancel()
        wait_for(lambda: self.state()["unfinished"] == 0, "it was cancelled")

    def test_everything_is_below_the_prefix(self):
        self.head()
        self.worker("w-0")
        self.running("w-0")
        self.assertEqual(self.get("/health"), "ok")
        self.assertEqual(self.get("/api/v1"), "API V1")
        self.assertEqual(json.loads(self.get("/api/v1/get_workers"))["num_workers"], 1)
        self.assertEqual(json.loads(self.get("/json/counts.json"))["workers"], 1)
        self.assertIn("w-0", self.get("/info/main/workers.html"))
        self.get("/metrics")
        self.get("/statics/css/base.css")
        try:
            import distributed.dashboard.scheduler  # noqa: F401
            bokeh = True
        except ImportError:
            bokeh = False
        page = self.get("/status")
        if bokeh:
            self.assertIn(PREFIX, page)
            self.get("/static/js/bokeh.min.js")
        else:
            self.assertIn("bokeh", page)
        for path in "/health", "/status", "/berth/state", "/api/v1":
            with self.assertRaises(urllib.error.HTTPError, msg=path):
                self.get(path, prefix="")

    def test_modules_of_the_working_directory(self):
        self.head()
        with open(os.path.join(self.dir, "of_the_image.py"), "w") as f:
            f.write("answer = 42\n")
        with open(LAUNCH, encoding="utf-8") as f:
            text = f.read()
        self.worker("w-0")
        self.worker("w-1", program=("-c", text))
        self.running("w-0", "w-1")
        client = self.client()
        self.assertEqual(set(client.run(lambda: __import__("of_the_image").answer).values()), {42})
        self.assertEqual(set(client.run(lambda: "launch" in __import__("sys").modules).values()), {False})

    def test_without_prefix(self):
        self.run_process("head", BERTH_HEAD_HOST="127.0.0.1", BERTH_HEAD_PORT=str(self.port), BERTH_HTTP_PORT=str(self.http))
        wait_for(lambda: self.try_get("/berth/state", prefix=""), "the head answers")
        self.assertEqual(self.get("/health", prefix=""), "ok")

    def test_a_killed_workers_tasks_are_computed_elsewhere(self):
        self.head()
        a = self.worker("w-0")
        self.worker("w-1")
        self.running("w-0", "w-1")
        client = self.client()
        gate = os.path.join(self.dir, "gate")
        futures = client.map(mark_begin_and_end, [self.dir] * 20, range(20), seconds=0.02, until=gate, pure=False)
        self.began(2)
        a.process.send_signal(signal.SIGKILL)
        a.ends()
        open(gate, "w").close()
        self.assertEqual(client.gather(futures), list(range(20)))
        self.running("w-1")
        self.assertNotIn("w-0", self.state()["workers"])

    def test_a_worker_may_begin_before_the_head(self):
        worker = self.worker("w-0")
        wait_for(lambda: "w-0" and os.listdir(self.dir) and worker.process.poll() is None and self.connects(), "the worker tries", 30)
        self.head()
        began = time.monotonic()
        self.running("w-0")
        self.assertLess(time.monotonic() - began, 5)

    def connects(self):
        """Whether somebody connects to the head's port, where none listens yet."""
        with contextlib.closing(socket.socket()) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", self.port))
            s.listen(1)
            s.settimeout(20)
            s.accept()[0].close()
        return True

    def test_a_worker_joins_a_head_that_took_it_for_gone(self):
        self.head()
        worker = self.worker("w-0")
        self.running("w-0")
        client = self.client()
        old = self.state()["workers"]["w-0"]["address"]

        def forget(dask_scheduler, address):
            dask_scheduler.stream_comms[address].abort()

        client.run_on_scheduler(forget, address=old)
        wait_for(lambda: self.state()["workers"].get("w-0", {}).get("address", old) != old, "the worker is there anew")
        self.assertIsNone(worker.process.poll())
        self.assertEqual(client.submit(sum, [1, 2]).result(60), 3)

    def test_a_restart_by_a_client_keeps_the_workers(self):
        self.head()
        self.worker("w-0")
        self.worker("w-1")
        self.running("w-0", "w-1")
        client = self.client()
        old = {w["address"] for w in self.state()["workers"].values()}
        with contextlib.suppress(Exception):  # it does not expect workers without a nanny to come back
            client.restart(timeout=20)
        wait_for(lambda: len({w["address"] for w in self.state()["workers"].values()} - old) == 2, "both are there anew")
        self.assertEqual(client.submit(sum, [1, 2]).result(60), 3)


class Draining(Case):
    def test_nothing_is_lost_or_computed_twice(self):
        self.head()
        names = ["w-0", "w-1", "w-2"]
        processes = {n: self.worker(n, threads=2) for n in names}
        self.running(*names)
        client = self.client()
        gate = os.path.join(self.dir, "gate")
        data = client.map(lambda i: bytes([i]) * 100_000, range(30), pure=False)
        distributed.wait(data, 60)
        futures = client.map(mark_begin_and_end, [self.dir] * 60, range(60), seconds=0.03, until=gate, pure=False)
        self.began(6)

        self.assertEqual(self.drain("w-0", "w-9"), {"draining": ["w-0"], "unknown": ["w-9"]})
        self.assertEqual(self.drain("w-0"), {"draining": ["w-0"], "unknown": []})
        w = self.state()["workers"]["w-0"]
        self.assertTrue(w["draining"] and not w["drained"])
        # What it has not begun goes elsewhere at once; what it has begun is waited for.
        wait_for(lambda: self.state()["workers"]["w-0"]["processing"] == 2, "what it has not begun is elsewhere")
        self.assertEqual(self.state()["workers"]["w-0"]["status"], "closing_gracefully")
        open(gate, "w").close()
        self.drained("w-0")
        self.assertEqual(processes["w-0"].ends(), 0)
        self.assertEqual(self.drain("w-1", "w-0"), {"draining": ["w-1", "w-0"], "unknown": []})
        self.drained("w-1")
        self.assertEqual(processes["w-1"].ends(), 0)
        self.assertEqual(client.gather(futures), list(range(60)))
        self.assert_once(60)
        self.assertEqual(client.gather(data), [bytes([i]) * 100_000 for i in range(30)])
        self.running("w-2")
        self.assertTrue(self.state()["workers"]["w-0"]["drained"])

    def test_workers_come_and_go_under_load(self):
        self.head()
        names = ["w-0", "w-1", "w-2"]
        for name in names:
            self.worker(name, threads=2)
        self.running(*names)
        client = self.client()
        futures, rounds, n = [], 5, 200

        def after(before, directory, task):
            return task(directory, before + 1, 0.02)

        for r in range(rounds):
            self.worker(f"w-{r + 3}", threads=2)
            names.append(f"w-{r + 3}")
            self.running(*names)
            # Each second one depends on the one before it, so that data moves about.
            first = client.map(mark_begin_and_end, [self.dir] * (n // 2), range(r * n, (r + 1) * n, 2),
                               [0.5 if i % 10 == 0 else 0.02 for i in range(n // 2)], pure=False)
            futures += [client.submit(after, f, self.dir, mark_begin_and_end, pure=False) for f in first]
            del first
            self.began(r * n + 10)
            leaves = names.pop(0)
            self.drain(leaves)
            self.drained(leaves)
        self.assertEqual(sorted(client.gather(futures)), list(range(1, rounds * n, 2)))
        self.assert_once(rounds * n)

    def test_a_task_that_waits_for_tasks_of_its_own(self):
        self.head()
        self.worker("w-0")
        self.worker("w-1")
        self.running("w-0", "w-1")
        client = self.client()
        gate = os.path.join(self.dir, "gate")

        def outer(directory, gate, inner):
            from distributed import worker_client

            fd = os.open(os.path.join(directory, "trace"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(fd, b"begin 0\n")
            with worker_client() as c:
                out = c.submit(inner, directory, 1, 0, gate, pure=False).result()
            os.write(fd, b"end 0\n")
            os.close(fd)
            return out

        future = client.submit(outer, self.dir, gate, mark_begin_and_end, workers=["w-0"], allow_other_workers=True)
        self.began(2)
        self.drain("w-0")
        wait_for(lambda: self.state()["workers"]["w-0"]["status"] == "closing_gracefully", "w-0 drains")
        open(gate, "w").close()
        self.drained("w-0")
        self.assertEqual(future.result(60), 1)
        self.assert_once(2)

    def test_the_last_worker_goes_on(self):
        self.head()
        worker = self.worker("w-0")
        self.running("w-0")
        client = self.client()
        data = client.scatter(list(range(10)))
        self.drain("w-0")
        wait_for(lambda: "no other worker" in self.state()["workers"]["w-0"].get("error", ""), "the drain says why it can't")
        self.assertEqual(client.submit(sum, data).result(60), 45)
        # Another one comes.
        self.worker("w-1")
        self.drained("w-0")
        self.assertEqual(worker.ends(), 0)
        self.assertEqual(client.gather(data), list(range(10)))

    def test_both_at_once_leaves_one(self):
        self.head()
        self.worker("w-0")
        self.worker("w-1")
        self.running("w-0", "w-1")
        client = self.client()
        futures = client.map(mark_begin_and_end, [self.dir] * 20, range(20), seconds=0.05, pure=False)
        self.began(2)
        self.drain("w-0", "w-1")
        self.assertEqual(client.gather(futures), list(range(20)))
        self.assert_once(20)
        wait_for(lambda: sorted(w["drained"] for w in self.state()["workers"].values()) == [False, True], "one is left")
        futures = client.map(lambda x: x, range(3), pure=False)
        self.assertEqual(client.gather(futures), [0, 1, 2])

    def test_the_last_one_without_data_may_go(self):
        self.head()
        worker = self.worker("w-0")
        self.running("w-0")
        self.drain("w-0")
        self.drained("w-0")
        self.assertEqual(worker.ends(), 0)

    def test_a_worker_that_dies_while_it_drains(self):
        self.head()
        worker = self.worker("w-0")
        self.worker("w-1")
        self.running("w-0", "w-1")
        client = self.client()
        gate = os.path.join(self.dir, "gate")
        future = client.submit(mark_begin_and_end, self.dir, 0, 0, gate, workers=["w-0"], allow_other_workers=True)
        self.began(1)
        self.drain("w-0")
        wait_for(lambda: self.state()["workers"]["w-0"]["status"] == "closing_gracefully", "w-0 drains")
        worker.process.kill()
        wait_for(lambda: "gone" in self.state()["workers"].get("w-0", {}).get("error", ""), "it is said to be gone")
        self.assertFalse(self.state()["workers"]["w-0"]["drained"])
        open(gate, "w").close()
        self.assertEqual(future.result(60), 0)

    def test_an_actor_stays(self):
        self.head()
        self.worker("w-0")
        self.worker("w-1")
        self.running("w-0", "w-1")
        client = self.client()

        class Counter:
            n = 0

            def add(self):
                self.n += 1
                return self.n

        actor = client.submit(Counter, actor=True, workers=["w-0"], pure=False).result(60)
        self.assertEqual(actor.add().result(), 1)
        self.drain("w-0")
        wait_for(lambda: "actors" in self.state()["workers"]["w-0"].get("error", ""), "the drain says why it can't")
        self.assertEqual(actor.add().result(), 2)

    def test_a_shuffle_is_not_begun_anew(self):
        try:
            import numpy
            from distributed.shuffle import rechunk_p2p  # noqa: F401
        except ImportError:
            self.skipTest("no numpy, or a distributed that does not shuffle between workers")
        import dask.array

        self.head()
        for name in "w-0", "w-1", "w-2":
            self.worker(name, threads=4)
        self.running("w-0", "w-1", "w-2")
        client = self.client()
        gate = os.path.join(self.dir, "gate")

        def block(block_id, directory, gate, trace):
            trace(directory, block_id[0], 0, until=gate if block_id[0] % 10 == 5 else None)
            return numpy.full((1, 30), block_id[0])

        x = dask.array.map_blocks(block, directory=self.dir, gate=gate, trace=mark_begin_and_end, chunks=((1,) * 30, (30,)), dtype=int)
        with dask.config.set({"array.chunk-size": "240B"}):  # or it joins chunks first, and shuffles nothing
            y = client.persist(x.rechunk((30, 1), method="p2p"))
        shuffles = lambda dask_scheduler: len(dask_scheduler.plugins["shuffle"].active_shuffles)
        wait_for(lambda: client.run_on_scheduler(shuffles), "the shuffle is under way")
        self.drain("w-0")
        wait_for(lambda: "shuffle" in self.state()["workers"]["w-0"].get("error", ""), "the drain says what it waits for")
        open(gate, "w").close()
        distributed.wait(y, 60)
        self.drained("w-0")
        self.assertEqual(y.sum().compute(), 30 * sum(range(30)))
        self.assert_once(30)

    def test_what_is_no_request(self):
        self.head()
        for body in b"", b"[]", b"{}", b'{"workers": 3}':
            self.assertEqual(self.post(body)[0], 400, body)


class Ending(Case):
    def test_without_a_client(self):
        head = self.head(BERTH_NO_CLIENT_TIMEOUT="2", BERTH_IDLE_TIMEOUT="0")
        worker = self.worker("w-0")
        self.running("w-0")
        client = self.client()
        wait_for(lambda: self.state()["clients"] == 1, "the client is there")
        client.close()
        self.assertEqual(head.ends(), 0)
        self.assertIn("no client was connected for 2 s", head.text())
        self.assertEqual(worker.ends(), 0)

    def test_idle(self):
        head = self.head(BERTH_IDLE_TIMEOUT="2")
        self.worker("w-0")
        client = self.client()
        self.assertEqual(client.submit(time.sleep, 4).result(60), None)  # computing is not idling
        self.assertIsNone(head.process.poll())
        self.assertEqual(head.ends(), 0)
        self.assertIn("nothing was computed for 2 s", head.text())

    def test_sigterm(self):
        head = self.head()
        idle, busy = self.worker("w-0"), self.worker("w-1")
        self.running("w-0", "w-1")
        client = self.client()
        gate = os.path.join(self.dir, "gate")
        future = client.submit(mark_begin_and_end, self.dir, 0, 0, gate, workers=["w-1"], allow_other_workers=True)
        self.began(1)
        for p in busy, head:
            began = time.monotonic()
            p.process.send_signal(signal.SIGTERM)
            self.assertEqual(p.ends(), 143)
            self.assertLess(time.monotonic() - began, 2)
            if p is busy:  # what it computed is computed elsewhere
                self.began(2)
                open(gate, "w").close()
                self.assertEqual(future.result(60), 0)
        self.assertEqual(idle.ends(), 0)  # a head that ends tells its workers

    def test_sigterm_while_it_begins(self):
        for role in "head", "worker":
            p = self.run_process(role, BERTH_CLUSTER_HEAD=self.address, BERTH_HEAD_PORT=str(self.port), BERTH_HTTP_PORT=str(self.http))

            def handled():
                with open(f"/proc/{p.pid}/status") as f:
                    caught = next(l.split()[1] for l in f if l.startswith("SigCgt"))
                return int(caught, 16) >> signal.SIGTERM - 1 & 1

            wait_for(handled, "it handles SIGTERM")
            began = time.monotonic()
            p.process.send_signal(signal.SIGTERM)
            self.assertEqual(p.ends(), 143)
            self.assertLess(time.monotonic() - began, 2)

    def test_a_worker_without_a_head(self):
        head = self.head()
        lost = self.worker("w-0", BERTH_HEAD_GONE="2")
        self.running("w-0")
        head.kill()
        self.assertEqual(lost.ends(), 1)
        self.assertIn(f"the head at {self.address} did not answer for 2 s", lost.text())
        never = self.worker("w-1", BERTH_HEAD_COMES="1")
        self.assertEqual(never.ends(), 1)
        self.assertEqual(len([l for l in never.text().splitlines() if l.startswith("berth:")]), 1)
        self.assertNotIn("Traceback", never.text())

    def test_shut_down_by_a_client(self):
        head = self.head()
        worker = self.worker("w-0")
        self.running("w-0")
        self.client().shutdown()
        self.assertEqual(head.ends(), 0)
        self.assertIn("a client shut the cluster down", head.text())
        self.assertEqual(worker.ends(), 0)

    def test_a_port_in_use(self):
        with contextlib.closing(socket.socket()) as s:
            s.bind(("127.0.0.1", self.http))
            s.listen(1)
            head = self.head(wait=False)
            self.assertEqual(head.ends(), 1)
        self.assertIn(f"port {self.http} is in use", head.text())


class Berth:
    """A server that heads open connections to, as far as they see it."""

    def __init__(self, case, port=0, tls=True, status="101 Switching Protocols", how=None):
        self.status, self.how = status, how or ("plain" if tls else "as-is")
        self.tls = None
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(os.path.join(case.certificates, "right", "tls.crt"), os.path.join(case.certificates, "right", "tls.key"))
        self.listener = socket.create_server(("127.0.0.1", port))
        case.addCleanup(self.close)
        self.port = self.listener.getsockname()[1]
        self.asked, self.waiting, self.open = [], queue.Queue(), []
        self.each(self.listener, self.serve)

    def close(self):
        for s in [self.listener, *self.open]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def each(self, listener, do):
        def accept():
            with contextlib.suppress(OSError):
                while True:
                    sock = listener.accept()[0]
                    self.open.append(sock)
                    threading.Thread(target=do, args=(sock,), daemon=True).start()
        threading.Thread(target=accept, daemon=True).start()

    def serve(self, sock):
        with contextlib.suppress(OSError):
            sock.settimeout(30)
            conn = self.tls.wrap_socket(sock, server_side=True) if self.tls else sock
            self.open.append(conn)
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += conn.recv(1)
            self.asked.append(request.decode())
            conn.sendall(f"HTTP/1.1 {self.status}\r\nConnection: Upgrade\r\nUpgrade: berth-tunnel\r\nBerth-Continues: {self.how}\r\n\r\n".encode())
            if not self.status.startswith("101"):
                return conn.close()
            if self.tls:
                conn = conn.unwrap()
                self.open.append(conn)
            self.waiting.put(conn)

    def take(self):
        conn = self.waiting.get(timeout=30)
        conn.sendall(b"\0\0\1")
        assert conn.recv(1) == b"\1"
        return conn

    def tunnel(self):
        """Returns a port whose connections go through those that the head has opened."""
        def through(local):
            def copy(a, b):
                with contextlib.suppress(OSError):
                    while True:
                        data = a.recv(1 << 16)
                        if not data:
                            break
                        b.sendall(data)
                    b.shutdown(socket.SHUT_WR)
            head = self.take()
            threading.Thread(target=copy, args=(local, head), daemon=True).start()
            copy(head, local)
        listener = socket.create_server(("127.0.0.1", 0))
        self.open.append(listener)
        self.each(listener, through)
        return listener.getsockname()[1]


class Offering(Case):
    """The head opens connections to Berth, through which clients come."""

    def setUp(self):
        super().setUp()
        self.tls = shutil.copytree(self.tls, os.path.join(self.dir, "tls"))

    def offers_to(self, port, scheme="https", ca=True, **environment):
        with open(os.path.join(self.tls, "ca.crt")) as f:
            at = {"url": f"{scheme}://127.0.0.1:{port}/berth/v1/callback/clusters/c0abc", "token": "the token", "ca": f.read() if ca else ""}
        with open(os.path.join(self.tls, "callback.json"), "w") as f:
            json.dump(at, f)
        return self.head(**environment)

    def computes(self):
        client = self.client()
        self.assertEqual(client.submit(sum, client.map(lambda x: x * x, range(100))).result(60), 328350)
        client.close()

    def computes_through(self, berth):
        direct = self.address
        self.address = f"tls://127.0.0.1:{berth.tunnel()}"
        self.computes()
        self.address = direct

    def test_clients_come_through_them(self):
        for tls in True, False:
            with self.subTest(tls=tls):
                berth = Berth(self, tls=tls)
                head = self.offers_to(berth.port, scheme="https" if tls else "http")
                worker = self.worker("w-0")
                self.running("w-0")
                wait_for(lambda: berth.waiting.qsize() == 2, "two connections wait")
                self.assertTrue(berth.asked[0].startswith("GET /berth/v1/callback/clusters/c0abc HTTP/1.1\r\n"), berth.asked)
                self.assertIn("\r\nAuthorization: Bearer the token\r\n", berth.asked[0])
                self.computes_through(berth)
                wait_for(lambda: berth.waiting.qsize() == 2, "those that were taken are replaced")
                self.assertNotIn("the token", head.text())
                for p in head, worker:
                    p.kill()

    def test_one_without_the_clusters_certificate_is_not_let_in(self):
        berth = Berth(self)
        self.offers_to(berth.port)
        wrong = certificates(os.path.join(self.certificates, "of-another-cluster"))
        port = berth.tunnel()
        context = ssl.create_default_context(cafile=os.path.join(self.tls, "ca.crt"))
        context.load_cert_chain(os.path.join(wrong, "tls.crt"), os.path.join(wrong, "tls.key"))
        with self.assertRaises(OSError), socket.create_connection(("127.0.0.1", port), 20) as sock:
            with context.wrap_socket(sock, server_hostname="dask") as conn:
                if conn.recv(1) == b"":  # TLS 1.3 tells it with what is read first
                    raise OSError

    def test_berth_may_come_later_and_go(self):
        port = free_port()
        head = self.offers_to(port)
        wait_for(lambda: "no connection to Berth" in head.text(), "it says that there is none")
        self.worker("w-0")
        self.running("w-0")
        self.computes()
        for _ in range(2):
            berth = Berth(self, port)
            self.computes_through(berth)
            berth.close()
        self.assertEqual(head.text().count("no connection to Berth"), 1)

    def test_what_is_no_berth_is_left_alone(self):
        for name, server, ca, said in (
                ("refuses", {"status": "401 Unauthorized"}, True, "it answers http/1.1 401 unauthorized"),
                ("something else ends TLS", {"how": "as-is"}, True, "something on the way ends its TLS"),
                ("nobody it trusts", {}, False, "certificate verify failed"),
                ("speaks no TLS", {"tls": False}, True, "")):
            with self.subTest(name):
                berth = Berth(self, **server)
                head = self.offers_to(berth.port, ca=ca)
                wait_for(lambda: "no connection to Berth" in head.text() and said in head.text(), "it says why")
                self.assertEqual(berth.waiting.qsize(), 0)
                worker = self.worker("w-0")
                self.running("w-0")
                self.computes()
                for p in head, worker:
                    p.kill()

    def test_one_on_which_nothing_is_heard_is_replaced(self):
        berth = Berth(self)
        self.offers_to(berth.port, BERTH_OFFER_SILENT="0.5")
        wait_for(lambda: len(berth.asked) > 4, "others are opened")


class Certificates(Case):
    def test_other_certificates_are_refused(self):
        self.head()
        other = certificates(os.path.join(self.certificates, "other"))
        worker = self.worker("w-0", BERTH_CLUSTER_TLS=other)
        self.assertEqual(worker.ends(), 1)
        self.assertIn("don't accept each other's certificates", worker.text())
        self.assertNotIn("Traceback", worker.text())
        # One that trusts the head, but is not of its CA.
        mixed = os.path.join(self.certificates, "mixed")
        shutil.copytree(other, mixed)
        shutil.copy(os.path.join(self.tls, "ca.crt"), mixed)
        worker = self.worker("w-1", BERTH_CLUSTER_TLS=mixed, BERTH_HEAD_COMES="5")
        self.assertEqual(worker.ends(), 1)
        for s in security(mixed), security(other):
            async def connect(s=s):
                c = await distributed.Client(self.address, security=s, timeout=3, asynchronous=True)
                await c.close()
            with self.assertRaises((OSError, asyncio.TimeoutError)):
                asyncio.run(connect())
        # None at all. That the right one is taken shows that it is the missing one that is refused.
        for own in True, False:
            context = ssl.create_default_context(cafile=os.path.join(self.tls, "ca.crt"))
            if own:
                context.load_cert_chain(os.path.join(self.tls, "tls.crt"), os.path.join(self.tls, "tls.key"))
            with socket.create_connection(("127.0.0.1", self.port)) as raw, contextlib.ExitStack() as stack:
                raw.settimeout(10)
                if not own:
                    stack.enter_context(self.assertRaises(ssl.SSLError))
                with context.wrap_socket(raw, server_hostname="dask") as s:
                    self.assertTrue(s.recv(1))  # the head speaks first
        with self.assertRaises((OSError, asyncio.TimeoutError, ValueError)):
            async def plain():
                await distributed.Client(self.address.replace("tls", "tcp"), timeout=3, asynchronous=True)
            asyncio.run(plain())
        self.assertEqual(self.state()["workers"], {})
        self.assertEqual(self.state()["clients"], 0)

    def test_no_certificate(self):
        for role in "head", "worker":
            p = self.run_process(role, BERTH_CLUSTER_TLS=self.dir, BERTH_CLUSTER_HEAD=self.address)
            self.assertEqual(p.ends(), 1)
            self.assertIn("ca.crt can't be read", p.text())
            self.assertNotIn("Traceback", p.text())


class Images(Case):
    def fails(self, role, *modules):
        path = os.path.join(self.dir, "path")
        os.makedirs(path, exist_ok=True)
        for name, text in modules:
            with open(os.path.join(path, name), "w") as f:
                f.write(text)
        p = self.run_process(role, PYTHONPATH=path)
        self.assertEqual(p.ends(), 3)
        self.assertEqual(len(p.text().splitlines()), 1, p.text())
        self.assertIn("docs/dask.md", p.text())
        self.assertIn(sys.executable, p.text())
        return p.text()

    def test_without_distributed(self):
        for role in "head", "worker":
            text = self.fails(role, ("distributed.py", "raise ImportError(\"No module named 'distributed'\")"))
            self.assertIn("has no distributed", text)
            self.assertIn("No module named 'distributed'", text)

    def test_an_old_distributed(self):
        os.makedirs(os.path.join(self.dir, "path", "distributed"))
        text = self.fails("head", ("distributed/__init__.py", "__version__ = '2021.11.2'"), ("distributed/core.py", "Status = connect = None"),
                          ("distributed/versions.py", "get_versions = None"))
        self.assertIn("2021.11.2", text)


if __name__ == "__main__":
    unittest.main()
