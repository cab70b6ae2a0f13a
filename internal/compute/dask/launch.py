"""Head and workers of a Dask cluster in pods: python3 launch.py head|worker, or python3 -c TEXT.

Runs on what the image has: any Python from 3.9, any distributed from 2022.12.
"""
import os, signal, sys

# As process 1 nothing ends us but a handler, and importing Dask takes seconds.
signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import asyncio, inspect, json, shutil, socket, ssl, tempfile, threading, time, traceback, urllib.parse

# Modules are looked for where the image begins, not where this file is.
if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(sys.argv[0])):
    sys.path[0] = ""

env = os.environ.get
OLDEST = (2022, 12)
HEAD_COMES = float(env("BERTH_HEAD_COMES") or 300)  # its pod has an address before its image is there
HEAD_GONE = float(env("BERTH_HEAD_GONE") or 60)
REMEMBER = 600, 2000  # drained workers stay in the state that many seconds, and at most that many


def end(code, line=""):
    # Not sys.exit: threads that still compute would be waited for.
    if line:
        print("berth: " + line, file=sys.stderr if code else sys.stdout)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


try:
    scratch = tempfile.mkdtemp(prefix="berth-dask-")
except OSError as e:
    end(1, "no directory for temporary files can be written: %s" % e)
# A user without an entry in /etc/passwd has / as home. Libraries keep caches there.
if env("HOME", "/") == "/" and not os.access("/", os.W_OK):
    os.environ["HOME"] = scratch

python = "Python %s at %s" % (".".join(map(str, sys.version_info[:3])), sys.executable)
try:
    import dask, distributed
    from distributed.core import Status, connect
    from distributed.versions import get_versions
except Exception as e:  # also what breaks while it is imported
    end(3, "this image has no distributed (Dask's scheduler and workers) for %s: %s; "
        "use an image that has it, see docs/dask.md" % (python, e))
try:
    version = tuple(int(n) for n in distributed.__version__.split(".")[:2])
except ValueError:
    version = OLDEST  # built from a checkout
if version < OLDEST:
    end(3, "this image has distributed %s for %s, which is older than %d.%d; "
        "use an image with a newer one, see docs/dask.md" % ((distributed.__version__, python) + OLDEST))


def secure():
    """Makes this process, its clients too, speak mutual TLS and nothing else."""
    files = {n: os.path.join(env("BERTH_CLUSTER_TLS") or "/var/run/berth/cluster", n) for n in ("ca.crt", "tls.crt", "tls.key")}
    for f in files.values():
        if not os.access(f, os.R_OK):
            end(1, "%s can't be read: it belongs to the cluster's certificate" % f)
    tls = {"ca-file": files["ca.crt"]}
    for role in "scheduler", "worker", "client":
        tls[role] = {"cert": files["tls.crt"], "key": files["tls.key"]}
    dask.config.set({"distributed.comm.require-encryption": True, "distributed.comm.default-scheme": "tls",
                     "distributed.comm.tls": {**dask.config.get("distributed.comm.tls", {}), **tls}})
    return distributed.Security()  # from what was set


def on_term():
    """An event that SIGTERM sets; half a second short of two the process ends whatever it does."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def handler(*_):
        timer = threading.Timer(1.5, os._exit, [143])
        timer.daemon = True
        timer.start()
        loop.call_soon_threadsafe(asked.set)

    signal.signal(signal.SIGTERM, handler)
    return asked


async def quietly(awaitable, seconds):
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except Exception:
        pass


def packages(versions):
    out = {k: v for k, v in ((versions or {}).get("packages") or {}).items() if v}
    if "python" in out:  # 3.11.2.final.0
        out["python"] = ".".join(out["python"].split(".")[:3])
    return out


# ---- head


class Drains:
    """Retires workers without losing or repeating work.

    Scheduler.retire_workers moves what a worker has computed, but throws away what
    it computes just then. So a worker is first told to begin nothing more; it
    answers with what it has begun, the rest goes to others, and once it says that
    it has ended all, it is retired. Its answers come through the stream that its
    results come through, hence after them; heartbeats would be old.
    """

    def __init__(self, scheduler):
        self.scheduler, self.now, self.ended = scheduler, {}, {}
        scheduler.stream_handlers.update({"berth-begun": self.begun, "berth-quiet": self.quiet})

    def worker(self, name):
        return self.scheduler.workers.get(self.scheduler.aliases.get(name))

    def start(self, names):
        draining, unknown = [], []
        for name in names:
            known = self.worker(name) is not None
            (draining if known or name in self.ended else unknown).append(name)
            if known and name not in self.now:
                self.now[name] = d = {"error": "", "address": "", "quiet": asyncio.Event()}
                d["task"] = asyncio.ensure_future(self.drain(name, d))
        return {"draining": draining, "unknown": unknown}

    def begun(self, worker, keys, **_):
        ws, begun = self.scheduler.workers.get(worker), set(keys)
        # What it got but has not begun should not wait for what it has.
        if ws is not None and ws.status == Status.closing_gracefully:
            for key in [ts.key for ts in ws.processing if ts.key not in begun]:
                self.scheduler._reschedule(key, worker=worker, stimulus_id="berth-drain-%s" % time.time())

    def quiet(self, worker, **_):
        for d in self.now.values():
            if d["address"] == worker:
                d["quiet"].set()

    def status(self, ws, status):
        at = "berth-drain-%s" % time.time()
        if status == Status.closing_gracefully:  # at once, that nothing more is sent there
            self.scheduler.handle_worker_status_change(status, ws, at)
        self.scheduler.stream_comms[ws.address].send({"op": "worker-status-change", "status": status.name, "stimulus_id": at})

    def obstacle(self, ws):
        s = self.scheduler
        if ws.actors:
            return "it holds actors, which can't be moved"
        if (ws.has_what or ws.processing) and not s.running - {ws}:
            return "no other worker runs that could take over its data and tasks"
        for plugin in list(s.plugins.values()):
            may = getattr(plugin, "valid_workers_downscaling", None)  # what shuffles hold can't be moved
            if may and ws not in may(s, [ws]):
                return "it takes part in a shuffle, which would begin anew"
        return ""

    async def drain(self, name, d):
        s = self.scheduler
        drained = False
        while not drained:
            ws = self.worker(name)
            if ws is None:
                d["error"] = "it was gone before it was drained"
                break
            try:
                d["error"] = self.obstacle(ws)
                if d["error"]:
                    await asyncio.sleep(0.5)
                    continue
                d["address"] = ws.address
                d["quiet"].clear()
                self.status(ws, Status.closing_gracefully)
                s.stream_comms[ws.address].send({"op": "berth-drain"})
                while not d["quiet"].is_set() and self.worker(name) is ws and not d["error"]:
                    await quietly(d["quiet"].wait(), 0.5)
                    d["error"] = self.obstacle(ws)
                if not d["error"] and self.worker(name) is ws:
                    drained = ws.address in await s.retire_workers(workers=[ws.address], close_workers=True, remove=True)
                    if not drained and self.worker(name) is ws:
                        d["error"] = "no other worker took over its data"
            except Exception as e:
                d["error"] = "%s: %s" % (type(e).__name__, e)
            if d["error"] and self.worker(name) is ws:  # until it can be retired it goes on
                self.status(ws, Status.running)
                await asyncio.sleep(0.5)
        self.ended[name] = time.monotonic(), {
            "address": d["address"], "status": "closed", "executing": 0, "processing": 0, "threads": 0, "memory": 0,
            "memoryLimit": 0, "versions": {}, "draining": False, "drained": drained, "error": "" if drained else d["error"]}
        del self.now[name]

    def remembered(self):
        old = time.monotonic() - REMEMBER[0]
        for name in [n for n, (at, _) in self.ended.items() if at < old] + list(self.ended)[:-REMEMBER[1]]:
            self.ended.pop(name, None)
        return {name: info for name, (_, info) in self.ended.items()}


def clients(scheduler):
    # Tasks that compute further tasks are clients too.
    return sum(not c.startswith("Client-worker-") for c in scheduler.client_comms)


def unfinished(scheduler):
    # By groups of tasks: there may be a million tasks. A graph that just comes in counts as one.
    states = "waiting", "processing", "queued", "no-worker"
    return getattr(scheduler, "_active_graph_updates", 0) + sum(
        g.states.get(state, 0) for g in scheduler.task_groups.values() for state in states)


def mark(scheduler):
    return "%s:%d" % (scheduler.id, scheduler.transition_counter)


def state(scheduler, drains, versions, seen):
    workers = drains.remembered()
    for ws in scheduler.workers.values():
        workers[str(ws.name)] = out = {
            "address": ws.address, "status": ws.status.name, "executing": len(ws.executing), "processing": len(ws.processing),
            "threads": ws.nthreads, "memory": ws.metrics.get("memory", 0), "memoryLimit": ws.memory_limit or 0,
            "versions": packages(ws.versions), "draining": ws.name in drains.now, "drained": False}
        if ws.name in drains.now and drains.now[ws.name]["error"]:
            out["error"] = drains.now[ws.name]["error"]
    try:
        target = int(scheduler.adaptive_target())
    except Exception:  # it is an estimate: none is as good as what there is
        target = len(scheduler.workers)
    return {"versions": versions, "mark": mark(scheduler), "clients": clients(scheduler), "alone": time.monotonic() - seen["client"],
            "unfinished": unfinished(scheduler), "target": target, "workers": workers}


async def wasted(scheduler, seen):
    """Returns why the cluster is of no use any more, for when nobody looks after it; notes when a client was seen last."""
    idle, alone = (float(env(n) or 0) for n in ("BERTH_IDLE_TIMEOUT", "BERTH_NO_CLIENT_TIMEOUT"))
    busy = time.monotonic()
    before = None
    while True:
        now, at = time.monotonic(), mark(scheduler)
        if unfinished(scheduler) or at != before:
            busy, before = now, at
        if clients(scheduler):
            seen["client"] = now
        if idle and now - busy >= idle:
            return "nothing was computed for %g s" % idle
        if alone and now - seen["client"] >= alone:
            return "no client was connected for %g s" % alone
        await asyncio.sleep(min([1] + [t / 4 for t in (idle, alone) if t]))


class Offers:
    """Connections that the head opens to Berth, for clients to come through: OFFERS wait at any time.

    TLS to Berth ends once the token is told, as clients speak TLS with the scheduler
    through them: what there was below goes to the scheduler's own server, as if the
    client had connected to it. Nothing is copied on the way.
    """

    OFFERS, SILENT = 2, float(env("BERTH_OFFER_SILENT") or 45)

    def __init__(self, scheduler, at):
        self.url, self.token, self.told = urllib.parse.urlsplit(at["url"]), at["token"], False
        self.accept, self.loop = scheduler.listeners[0].tcp_server._handle_connection, asyncio.get_running_loop()
        self.tls = ssl.create_default_context(cadata=at.get("ca") or None) if self.url.scheme == "https" else None
        for _ in range(self.OFFERS):
            threading.Thread(target=self.offer, daemon=True).start()

    def offer(self):
        pause = 0
        while True:
            try:
                sock = self.opened()
                pause = 0.5
                if self.awaited(sock):
                    self.loop.call_soon_threadsafe(self.accept, sock, sock.getpeername())
                    continue
            except (OSError, ValueError) as e:
                if not self.told:
                    self.told = True
                    print("berth: no connection to Berth at %s: %s; clients come through the API server" % (self.url.netloc, e), file=sys.stderr, flush=True)
            time.sleep(pause or 0.5)
            pause = min(30, pause * 2 or 1)

    def opened(self):
        sock = socket.create_connection((self.url.hostname, self.url.port or (443 if self.tls else 80)), timeout=10)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_hostname=self.url.hostname)
            sock.sendall(("GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: berth-tunnel\r\n\r\n"
                          % (self.url.path, self.url.netloc, self.token)).encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                byte = sock.recv(1)
                if not byte or len(answer) > 16384:
                    raise OSError("it does not answer as Berth does")
                answer += byte
            status, *headers = answer.decode("latin-1").lower().split("\r\n")
            if " 101 " not in status + " ":
                raise OSError("it answers " + status)
            how = dict(h.split(":", 1) for h in headers if ":" in h).get("berth-continues", "").strip()
            if how != ("plain" if self.tls else "as-is"):
                raise OSError("something on the way ends its TLS")
            if self.tls:
                sock = socket.socket(fileno=sock.unwrap().detach())
            sock.settimeout(self.SILENT)
            return sock
        except BaseException:
            sock.close()
            raise

    def awaited(self, sock):
        """Waits for a client. Berth sends 0 now and then, and 1 once there is one."""
        try:
            while True:
                byte = sock.recv(1)
                if byte == b"\1":
                    sock.sendall(byte)
                    sock.setblocking(False)
                    return True
                if byte != b"\0":
                    break
        except OSError:
            pass
        sock.close()
        return False


def offers(scheduler):
    try:
        with open(os.path.join(env("BERTH_CLUSTER_TLS") or "/var/run/berth/cluster", "callback.json")) as f:
            at = json.load(f)
    except FileNotFoundError:
        return
    try:
        Offers(scheduler, at)
    except Exception as e:  # another way of Dask's to listen, or a CA that can't be read
        print("berth: this head opens no connections to Berth: %s: %s" % (type(e).__name__, e), file=sys.stderr, flush=True)


async def head():
    from tornado.web import RequestHandler

    term, security = on_term(), secure()
    prefix, port = (env("BERTH_CLUSTER_PREFIX") or "").strip("/"), int(env("BERTH_HTTP_PORT") or 8787)
    # All of Dask's own HTTP: it ends on the loopback of the pod. No proxy to the workers' pages:
    # those are on the workers' loopbacks.
    dask.config.set({"distributed.scheduler.dashboard.tls.cert": None, "distributed.scheduler.http.routes": [
        "distributed.http." + m for m in ("scheduler.prometheus", "scheduler.info", "scheduler.json", "scheduler.api", "health", "statics")]})
    # No host: all interfaces, of IPv4 and IPv6.
    scheduler = distributed.Scheduler(
        protocol="tls://", host=env("BERTH_HEAD_HOST"), port=int(env("BERTH_HEAD_PORT") or 8786), security=security,
        dashboard_address="127.0.0.1:%d" % port, http_prefix="/" + prefix)
    if scheduler.http_server.port != port:  # Dask takes another one silently
        end(1, "port %d is in use" % port)
    drains, versions, seen = Drains(scheduler), packages(get_versions()), {"client": time.monotonic()}

    class State(RequestHandler):
        def get(self):
            self.write(state(scheduler, drains, versions, seen))

    class Drain(RequestHandler):
        def post(self):
            try:
                names = [str(n) for n in json.loads(self.request.body)["workers"]]
            except (ValueError, KeyError, TypeError):
                self.set_status(400)
                return self.finish({"error": 'the body is not {"workers": [NAME, ...]}'})
            self.set_status(202)
            self.write(drains.start(names))

    base = "/" + prefix + "/berth/" if prefix else "/berth/"
    scheduler.http_application.add_handlers(".*$", [(base + "state", State), (base + "drain", Drain)])
    await scheduler
    offers(scheduler)
    print("berth: head of a Dask cluster, distributed %s, %s" % (distributed.__version__, python), flush=True)
    waits = [asyncio.ensure_future(f) for f in (term.wait(), scheduler.finished(), wasted(scheduler, seen))]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if waits[1].done() and not term.is_set():
        end(0, "the head ends: a client shut the cluster down")
    await quietly(scheduler.close(), 1)  # tells the workers
    end(143) if term.is_set() else end(0, "the head ends: " + waits[2].result())


# ---- worker


async def worker():
    term, security = on_term(), secure()
    address, name = env("BERTH_CLUSTER_HEAD") or end(1, "BERTH_CLUSTER_HEAD is not set"), env("BERTH_WORKER_NAME") or socket.gethostname()
    lost, began = float(env("BERTH_HEAD_LOST") or 0), time.time()
    # Tasks of this worker find the head as their own clients' default.
    dask.config.set({"scheduler-address": address})

    def again(why):
        """Begins anew as a new process in the same pod, which ends threads that compute for nobody."""
        print("berth: %s; trying again" % why, file=sys.stderr, flush=True)
        if time.time() - began < 1:
            time.sleep(0.5)
        shutil.rmtree(scratch, ignore_errors=True)
        os.environ["BERTH_HEAD_LOST"] = str(lost if lost and not joined else time.time())
        with open("/proc/self/cmdline", "rb") as f:
            os.execv(sys.executable, f.read().split(b"\0")[:-1])

    joined, ended, over = False, {}, asyncio.Event()

    class Worker(distributed.Worker):
        async def close(self, *args, reason="worker-close", **kwargs):
            if not over.is_set():
                ended.update(reason=reason, retired=self.status == Status.closing_gracefully)
                over.set()
            return await super().close(*args, reason=reason, **kwargs)

    async def drain():
        w.batched_send({"op": "berth-begun", "keys": [ts.key for ts in w.state.all_running_tasks]})
        while w.status == Status.closing_gracefully:
            if not (w.state.all_running_tasks or w.active_keys):
                return w.batched_send({"op": "berth-quiet"})
            await asyncio.sleep(0.02)

    async def join():
        # Dask's own retries get slower and slower, up to 30 s. These stay quick.
        left = lambda: (lost + HEAD_GONE if lost else began + HEAD_COMES) - time.time()
        while True:
            try:
                comm = await connect(address, timeout=min(5, 0.5 + (time.time() - began) / 2), **security.get_connection_args("worker"))
                await comm.close()
                break
            except Exception as e:  # a head that just begins or ends brings others than OSError
                why = e.__cause__ if e.__cause__ is not None else e
                if "certificate does not match" in str(e) or "UNKNOWN_CA" in str(why).upper().replace(" ", "_"):
                    end(1, "the head at %s and this worker don't accept each other's certificates: %s" % (address, why))
                if left() < 0:
                    end(1, "the head at %s did not answer for %.0f s: %s" % (address, HEAD_GONE if lost else HEAD_COMES, why))
                await asyncio.sleep(0.05)
        try:
            await asyncio.wait_for(w, 60)
        except Exception as e:
            why = e.__cause__ if e.__cause__ is not None else e
            if left() < 0:
                end(1, "the head at %s does not take this worker: %s" % (address, why))
            again("the head does not take this worker: %s" % why)

    threads, memory, gpu = (env(n) for n in ("BERTH_WORKER_THREADS", "BERTH_WORKER_MEMORY", "BERTH_WORKER_GPU"))
    w = Worker(address, name=name, nthreads=int(threads) if threads else None, memory_limit=int(memory) if memory else "auto",
               resources={"GPU": int(gpu)} if gpu else None, local_directory=scratch, security=security, protocol="tls://",
               dashboard=False, dashboard_address="127.0.0.1:0")
    w.stream_handlers["berth-drain"] = lambda: asyncio.ensure_future(drain()) and None
    stopped = asyncio.ensure_future(term.wait())
    joining = asyncio.ensure_future(join())
    await asyncio.wait([stopped, joining], return_when=asyncio.FIRST_COMPLETED)
    if joining.done():
        joining.result()
        joined = True
        await asyncio.wait([stopped, asyncio.ensure_future(over.wait())], return_when=asyncio.FIRST_COMPLETED)
    if term.is_set():
        if joined:
            # That the tasks don't count as what kills workers; the keyword's name changed.
            how = "expected" if "expected" in inspect.signature(distributed.Scheduler.remove_worker).parameters else "safe"
            await quietly(w.scheduler.unregister(address=w.contact_address, stimulus_id="berth-term", close=False, **{how: True}), 1)
        shutil.rmtree(scratch, ignore_errors=True)
        end(143)
    if ended["retired"] or ended["reason"].startswith("scheduler-close"):
        await quietly(w.finished(), 5)
        shutil.rmtree(scratch, ignore_errors=True)
        end(0, "the worker ends: " + ("it was drained" if ended["retired"] else "the cluster was shut down"))
    # The head is gone, or it took this worker for dead, or a client restarted the workers.
    again("this worker is no part of the cluster any more (%s)" % ended["reason"])


if __name__ == "__main__":
    if sys.argv[1:] not in (["head"], ["worker"]):
        end(2, "usage: head|worker")
    try:
        asyncio.run(head() if sys.argv[1] == "head" else worker())
    except BaseException:
        traceback.print_exc()
        end(1)
