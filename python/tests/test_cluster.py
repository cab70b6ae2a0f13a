"""Clusters, on a fake server, without Dask."""

import os
import re
import subprocess
import sys
import textwrap
import threading
import unittest
import warnings
from unittest import mock

from common import Case, berth
from fake import DIAGNOSIS, Refusal
from berth import _dask
from berth._info import ClusterInfo


class Clusters(Case):
    """wait=True would ask for Dask's Security: that is stood in for."""

    def setUp(self):
        super().setUp()
        for name, stand_in in {"security": lambda *pem: ("security", pem), "distributed": lambda *_: None, "check": lambda *_: None}.items():
            patch = mock.patch.object(_dask, name, stand_in)
            patch.start()
            self.addCleanup(patch.stop)

    def make(self, name="analysis", **options):
        options.setdefault("image", "registry/dask:1")
        cluster = berth.Cluster(name, **options)
        self.addCleanup(cluster.close)
        return cluster

    def in_thread(self, work):
        out = []

        def run():
            try:
                out.append(work())
            except BaseException as error:
                out.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join, 20)
        return thread, out


class Making(Clusters):
    def test_says_all_that_was_asked(self):
        with self.make(n_workers=(1, 10), on="site-a", worker_cpu="1", worker_memory="2GiB", worker_gpu=1, head_cpu=0.5, head_memory="1Gi", env={"A": 1},
                       labels={"l": "x"}, idle_timeout="1h", no_client_timeout=90, max_lifetime="1d", drain_timeout=60, user="1000:1000", pull="always"):
            pass
        request = self.server.asked("CreateCluster")[0]
        self.assertGreaterEqual(len(request["key"]), 20)
        self.assertEqual(request["spec"], {
            "name": "analysis", "engine": "dask", "infrastructure": "site-a", "image": "registry/dask:1", "user": "1000:1000", "pull": "always",
            "env": [{"name": "A", "value": "1"}], "labels": {"l": "x"}, "head": {"cpu": "0.5", "memory": "1Gi"},
            "workers": [{"name": "", "min": 1, "max": 10, "image": "", "cpu": "1", "memory": "2Gi", "gpu": 1, "ephemeralStorage": "", "env": [], "labels": {}}],
            "idleTimeout": "3600s", "noClientTimeout": "90s", "maxLifetime": "86400s", "drainTimeout": "60s"})

    def test_has_defaults(self):
        self.environ({"BERTH_DASK_IMAGE": "registry/default:1"})
        self.make(image=None)
        spec = self.server.asked("CreateCluster")[0]["spec"]
        self.assertEqual((spec["image"], spec["idleTimeout"], spec["noClientTimeout"], spec["workers"][0]["count"]), ("registry/default:1", "1200s", "0s", 1))
        self.make("other", image=None, software="registry/software:1", idle_timeout=None)
        spec = self.server.asked("CreateCluster")[1]["spec"]
        self.assertEqual((spec["image"], spec["idleTimeout"]), ("registry/software:1", "0s"))

    def test_of_several_groups(self):
        cluster = self.make(groups=[berth.WorkerGroup("small", 2), berth.WorkerGroup("big", (0, 3), cpu=4, image="registry/gpu:1")])
        self.assertEqual([g.name for g in cluster.info.groups], ["small", "big"])
        spec = self.server.asked("CreateCluster")[0]["spec"]["workers"]
        self.assertEqual((spec[0]["count"], spec[1]["max"], spec[1]["cpu"], spec[1]["image"]), (2, 3, "4", "registry/gpu:1"))
        cluster.scale(4, group="big")
        self.assertEqual(self.server.asked("ScaleCluster")[0], {"id": cluster.id, "group": "big", "count": 4})

    def test_what_can_not_be_is_refused_here(self):
        for options, why in (
            ({"worker_memory": "much"}, "worker memory 'much'"), ({"idle_timeout": "soon"}, "idle_timeout 'soon'"), ({"n_workers": -1}, "can't be fewer than 0"),
            ({"groups": [berth.WorkerGroup("a")], "n_workers": 2, "worker_cpu": 1}, "leave n_workers, worker_cpu out"), ({"software": "x"}, "same thing"),
            ({"check_versions": "no"}, "check_versions"), ({"timeout": "x"}, "timeout"), ({"image": None}, "BERTH_DASK_IMAGE"),
        ):
            with self.assertRaisesRegex(berth.ClusterError, why) as caught:
                self.make(**options)
            self.assertEqual(caught.exception.code, "invalid")
        self.assertEqual(self.server.asked("CreateCluster"), [])

    def test_a_refusal_has_its_diagnosis(self):
        def refuse(_):
            raise Refusal("invalid_argument", "site-a would not take this cluster", DIAGNOSIS)

        self.server.methods["CreateCluster"] = refuse
        with self.assertRaises(berth.ClusterError) as caught:
            self.make()
        self.assertEqual((caught.exception.cause, caught.exception.summary), (DIAGNOSIS["cause"], DIAGNOSIS["summary"]))
        self.assertEqual(caught.exception.remedy, DIAGNOSIS["remedy"])

    def test_made_here_is_deleted_at_the_end(self):
        with self.make() as cluster:
            self.assertEqual(cluster.state, "running")
        self.assertEqual(self.server.asked("DeleteCluster"), [{"id": cluster.id}])
        cluster.close()
        self.assertEqual(len(self.server.asked("DeleteCluster")), 1)
        self.assertIn("closed here", repr(cluster))
        with self.assertRaisesRegex(berth.ClusterError, "was closed here"):
            cluster.scheduler_address  # noqa: B018

    def test_shutdown_on_close_says_otherwise(self):
        self.make(shutdown_on_close=False).close()
        self.assertEqual(self.server.asked("DeleteCluster"), [])
        self.make("other").close(shutdown=False)
        self.assertEqual(self.server.asked("DeleteCluster"), [])

    def test_one_of_that_name_is_used_and_left(self):
        first = self.make(shutdown_on_close=False)
        with self.said() as said, self.make(n_workers=7) as second:
            self.assertEqual(second.id, first.id)
        self.assertIn("using the cluster analysis that there is (1 of 1 workers)", said.getvalue())
        self.assertEqual(self.server.asked("DeleteCluster"), [])
        self.assertEqual([r["reuse"] for r in self.server.asked("CreateCluster")], [False, False, True])
        second.close(shutdown=True)
        self.assertEqual(len(self.server.asked("DeleteCluster")), 1)

    def test_one_of_that_name_needs_no_image(self):
        first = self.make()
        with self.said(), self.make(image=None) as second:
            self.assertEqual(second.id, first.id)

    def test_one_that_ends_is_waited_for_and_another_is_made(self):
        first = self.make(shutdown_on_close=False)
        self.clusters.change("analysis", state="stopping")
        with self.said() as said:
            thread, out = self.in_thread(self.make)
            self.eventually(lambda: self.server.asked("WatchCluster")[1:], "it is watched")
            self.clusters.change("analysis", state="stopped")
            thread.join(20)
        self.assertNotEqual(out[0].id, first.id)
        self.assertTrue(out[0]._created)
        self.assertIn("another is made when it has ended", said.getvalue())

    def test_an_answer_that_was_cut_makes_no_second(self):
        make = self.clusters.CreateCluster

        def cut(r):
            answer = make(r)
            if len(self.server.asked("CreateCluster")) == 1:
                raise Refusal("unavailable", "this process is about to end", ending=True)
            return answer

        self.server.methods["CreateCluster"] = cut
        self.make()
        self.assertEqual(len(self.clusters.clusters), 1)

    def test_connect_uses_one_that_there_is(self):
        first = self.make(shutdown_on_close=False)
        for name in ("analysis", first.id):
            with berth.Cluster.connect(name) as cluster:
                self.assertEqual(cluster.id, first.id)
        self.assertEqual(self.server.asked("DeleteCluster"), [])
        with self.assertRaises(berth.ClusterError) as caught:
            berth.Cluster.connect("nothing")
        self.assertEqual(caught.exception.code, "not_found")
        self.clusters.change("analysis", state="stopped", reason="it was idle for 20m0s")
        with self.assertRaisesRegex(berth.ClusterError, "has ended, it is stopped: it was idle for 20m0s"):
            berth.Cluster.connect("analysis")

    def test_clusters_lists_all_pages(self):
        for n in range(5):
            self.make(f"c{n}")
        self.clusters.change("c1", state="stopped")
        self.assertEqual([c.name for c in berth.clusters()], ["c0", "c2", "c3", "c4"])
        self.assertEqual(len(berth.clusters(all=True)), 5)
        self.assertIsInstance(berth.clusters()[0], berth.ClusterInfo)


class Waiting(Clusters):
    def setUp(self):
        super().setUp()
        self.clusters.start_at_once = False

    def test_tells_what_holds_it_up(self):
        with self.said() as said:
            thread, out = self.in_thread(lambda: self.make(n_workers=4))
            self.eventually(lambda: self.server.asked("WatchCluster"), "it is watched")
            self.clusters.change("analysis", reason="its head is launching: it pulls the image")
            self.eventually(lambda: "its head is launching: it pulls the image" in said.getvalue(), "the reason is told")
            self.clusters.change("analysis", diagnosis={"cause": "ImageNotFound", "summary": "There is no image x."})
            self.eventually(lambda: "its head: ImageNotFound: There is no image x." in said.getvalue(), "the diagnosis is told")
            self.clusters.change("analysis", state="running", reason=None, diagnosis=None, workers={"ready": 2, "waiting": 2, "diagnosis": DIAGNOSIS})
            self.eventually(lambda: "berth: cluster analysis: 2 of 4 workers: InsufficientMemory: " in said.getvalue(), "the workers are told")
            self.assertIn("What to do (you): ask for less: worker_memory", said.getvalue())
            self.assertTrue(thread.is_alive())
            self.assertIn("<berth.Cluster", repr(list(berth._cluster._open_clusters)[0]))
            self.clusters.change("analysis", workers={"ready": 4, "diagnosis": None})
            thread.join(20)
        self.assertEqual(out[0].info.ready, 4)

    def test_a_failure_raises_the_diagnosis_and_leaves_nothing(self):
        with self.said():
            thread, out = self.in_thread(self.make)
            self.eventually(lambda: self.server.asked("WatchCluster"), "it is watched")
            self.clusters.change("analysis", state="stopping", diagnosis={"cause": "OOMKilled", "summary": "The head used more than 1Gi.", "remedy": "give it more"})
            thread.join(20)
        self.assertIsInstance(out[0], berth.ClusterError)
        self.assertEqual((out[0].cause, out[0].remedy), ("OOMKilled", "give it more"))
        self.assertEqual(str(out[0]), "cluster analysis is stopping: OOMKilled: The head used more than 1Gi. What to do (you): give it more")
        self.assertEqual(len(self.server.asked("DeleteCluster")), 1)

    def test_when_the_time_is_over_without_a_worker_it_raises_and_leaves_nothing(self):
        with self.said(), self.assertRaises(berth.ClusterTimeout) as caught:
            thread, _ = self.in_thread(lambda: (self.eventually(lambda: self.clusters.clusters), self.clusters.change(
                "analysis", state="running", workers={"waiting": 1, "diagnosis": DIAGNOSIS})))
            self.make(timeout=2)
        self.assertIsInstance(caught.exception, TimeoutError)
        self.assertEqual(caught.exception.cause, "InsufficientMemory")
        self.assertRegex(str(caught.exception), r"waited \d+ s for its start; it is running, 0 of 1 workers are ready: InsufficientMemory")
        self.assertEqual(len(self.server.asked("DeleteCluster")), 1)

    def test_when_the_time_is_over_with_some_workers_it_goes_on(self):
        with self.said() as said:
            thread, _ = self.in_thread(lambda: (self.eventually(lambda: self.clusters.clusters), self.clusters.change(
                "analysis", state="running", workers={"ready": 1, "waiting": 1, "diagnosis": DIAGNOSIS})))
            cluster = self.make(n_workers=2, timeout=2)
        self.assertEqual(cluster.info.ready, 1)
        self.assertIn("going on with 1 of 2 workers", said.getvalue())

    def test_workers_that_are_given_up_are_not_waited_for(self):
        warning = "5 workers of group workers in a row ended before they were ready: no more are made until it is scaled (berth cluster scale analysis 2)"
        with self.said():
            thread, out = self.in_thread(lambda: self.make(n_workers=2))
            self.eventually(lambda: self.server.asked("WatchCluster"), "it is watched")
            self.clusters.change("analysis", state="running", warnings=[warning], workers={"diagnosis": DIAGNOSIS})
            thread.join(20)
        self.assertIsInstance(out[0], berth.ClusterError)
        self.assertIn("no worker of cluster analysis starts", str(out[0]))
        self.assertEqual(out[0].cause, "InsufficientMemory")

    def test_not_waiting_returns_at_once(self):
        cluster = self.make(wait=False)
        self.assertEqual(cluster.state, "starting")
        self.assertEqual(self.server.asked("WatchCluster"), [])
        thread, out = self.in_thread(lambda: cluster.scheduler_address)
        self.eventually(lambda: self.server.asked("WatchCluster"), "what needs the head waits for it")
        self.clusters.change("analysis", state="running")
        thread.join(20)
        self.assertRegex(out[0], r"^tls://127\.0\.0\.1:\d+$")


class Using(Clusters):
    def test_scale_and_adapt_say_so(self):
        cluster = self.make()
        cluster.scale(8)
        cluster.adapt(minimum=1, maximum=10)
        cluster.scale((2, 3))
        self.assertEqual([{k: v for k, v in r.items() if k != "id"} for r in self.server.asked("ScaleCluster")], [
            {"group": "", "count": 8}, {"group": "", "adaptive": True, "min": 1, "max": 10}, {"group": "", "adaptive": True, "min": 2, "max": 3}])
        for wrong in (lambda: cluster.adapt(), lambda: cluster.adapt(5, 2), lambda: cluster.scale(-1), lambda: cluster.scale("3")):
            with self.assertRaises(berth.ClusterError):
                wrong()

    def test_waiting_for_workers(self):
        cluster = self.make(n_workers=1)
        cluster.wait_for_workers(1, timeout=5)
        cluster.scale(3)
        with self.said() as said:
            self.clusters.change("analysis", workers={"waiting": 2, "diagnosis": DIAGNOSIS})
            with self.assertRaises(berth.ClusterTimeout) as caught:
                cluster.wait_for_workers(3, timeout=0.3)
            self.assertIn("1 of 3 workers: InsufficientMemory", said.getvalue())
            self.assertEqual(caught.exception.cause, "InsufficientMemory")
            thread, out = self.in_thread(cluster.wait_for_workers)
            self.clusters.change("analysis", workers={"ready": 3, "diagnosis": None})
            thread.join(20)
        self.assertEqual(out, [None])
        with self.said(), self.assertRaisesRegex(berth.ClusterError, "no group big; there are workers"):
            cluster.wait_for_workers(1, group="big")
        self.clusters.change("analysis", state="failed", reason="its head ended")
        with self.said(), self.assertRaisesRegex(berth.ClusterError, "is failed: its head ended"):
            cluster.wait_for_workers(9)

    def test_security_is_of_the_clusters_keys(self):
        self.assertEqual(self.make().security, ("security", ("CA\n", "CERT\n", "KEY\n")))

    def test_the_dashboard_is_below_the_id(self):
        cluster = self.make()
        link = cluster.dashboard_link
        self.assertRegex(link, rf"^http://127\.0\.0\.1:\d+/{cluster.id}/status$")
        self.assertEqual(link, cluster.dashboard_link)
        import socket

        here, there = socket.socketpair()
        self.server.backend = lambda path: here if path == f"/berth.v1/clusters/{cluster.id}/dashboard" else None
        with socket.create_connection(("127.0.0.1", int(re.search(r":(\d+)/", link)[1]))) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            self.assertEqual(there.recv(100), b"GET / HTTP/1.1\r\n\r\n")
        there.close()
        cluster.close()
        self.assertEqual(cluster.dashboard_link, "")

    def test_its_text_is_short_and_without_secrets(self):
        cluster = self.make()
        self.assertEqual(repr(cluster), f"<berth.Cluster 'analysis' ({cluster.id}): running, 1 of 1 workers>")
        self.clusters.change("analysis", workers={"wanted": 2, "diagnosis": DIAGNOSIS})
        cluster.refresh()
        self.assertEqual(repr(cluster), f"<berth.Cluster 'analysis' ({cluster.id}): running, 1 of 2 workers, InsufficientMemory>")

    def test_its_html_is_current_escaped_and_from_nowhere_else(self):
        cluster = self.make()
        self.clusters.change("analysis", reason="<script>x</script>", warnings=["a & b"], workers={"wanted": 4, "waiting": 3, "lost": {"OOMKilled": 2}, "diagnosis": DIAGNOSIS})
        html = cluster._repr_html_()
        for part in ("running", "1 of 4 ready, 3 waiting", "2 OOMKilled", "InsufficientMemory", "What to do (you)", "a &amp; b", "&lt;script&gt;", cluster.dashboard_link):
            self.assertIn(part, html)
        self.assertNotIn("<script", html)
        self.assertEqual(re.findall(r"(?:src|href)=\"([^\"]*)\"", html), [cluster.dashboard_link])
        self.server.stop()
        self.assertIn("Not current", cluster._repr_html_())
        cluster.close(shutdown=False)

    def test_the_end_of_a_cluster_is_told_when_a_connection_is_refused(self):
        cluster = self.make(shutdown_on_close=False)
        address = cluster.scheduler_address
        self.clusters.change("analysis", state="stopped", reason="it was idle for 20m0s")

        def backend(_):
            raise Refusal("failed_precondition", "the cluster has ended")

        self.server.backend = backend
        import socket

        with self.said() as said:
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as sock:
                    self.assertEqual(sock.recv(1), b"")
            self.eventually(lambda: said.getvalue(), "it is told")
        self.assertEqual(said.getvalue(), "berth: cluster analysis: it is stopped: it was idle for 20m0s\n")
        self.assertEqual(cluster.state, "stopped")
        self.assertEqual(str(getattr(cluster.status, "name", cluster.status)), "closed")

    def test_logs_are_those_of_the_head(self):
        self.server.methods["TaskLogs"] = lambda r: iter([{"data": "aGk="}] if r["id"] == "t1" else [])
        self.assertEqual(self.make().logs(), "hi")

    def test_python_that_ends_deletes_what_it_made(self):
        root = os.path.dirname(os.path.dirname(os.path.abspath(berth.__file__)))
        code = """
            import berth, os
            made = berth.Cluster("made", image="x", wait=False)
            left = berth.Cluster("left", image="x", wait=False, shutdown_on_close=False)
            if os.fork() == 0:
                import sys
                sys.exit(0)  # a child's end is not ours
            os.wait()
            assert berth.clusters()[0].state == "running"
        """
        subprocess.run([sys.executable, "-B", "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": root}, check=True, timeout=60)
        self.assertEqual({c["name"]: c["state"] for c in self.clusters.clusters.values()}, {"made": "stopped", "left": "running"})
        self.assertEqual(len(self.server.asked("DeleteCluster")), 1)


class Ending(Clusters):
    def delete(self, r):
        """Stores the wish, as a server does, and nothing more."""
        return {"cluster": self.clusters.find(r["id"])}

    def test_with_a_server_it_is_waited_for_that_it_begins(self):
        self.server.methods["DeleteCluster"] = self.delete
        cluster = self.make()
        thread, _ = self.in_thread(cluster.close)
        self.eventually(lambda: len(self.server.asked("WatchCluster")) == 2, "it is watched")
        self.assertTrue(thread.is_alive())
        self.clusters.change("analysis", state="stopping")
        thread.join(20)
        self.assertEqual(cluster.state, "stopping")

    def test_without_a_server_the_end_is_waited_for(self):
        self.server.methods["DeleteCluster"] = self.delete
        cluster = self.make()
        with mock.patch.object(type(cluster._service), "local", True):
            thread, _ = self.in_thread(cluster.close)
            self.eventually(lambda: len(self.server.asked("WatchCluster")) == 2, "it is watched")
            self.clusters.change("analysis", state="stopping")
            thread.join(0.3)
            self.assertTrue(thread.is_alive())
            self.clusters.change("analysis", state="stopped")
            thread.join(20)
        self.assertEqual(cluster.state, "stopped")

    def test_one_that_was_cut_off_is_tried_again(self):
        def forbid(_):
            raise Refusal("permission_denied", "not now")

        delete, self.server.methods["DeleteCluster"] = self.server.methods["DeleteCluster"], forbid
        cluster = self.make()
        with self.assertRaisesRegex(berth.ClusterError, "not now"):
            cluster.close()
        self.server.methods["DeleteCluster"] = delete
        berth._cluster._close_all()
        self.assertEqual(cluster.state, "stopped")
        cluster.close()
        self.assertEqual(len(self.server.asked("DeleteCluster")), 2)

    def test_it_is_not_waited_for_ever(self):
        self.server.methods["DeleteCluster"] = self.delete
        cluster = self.make()
        with mock.patch.object(berth._cluster, "_ENDING_TIMEOUT", 0.2):
            cluster.close()
        with self.assertRaisesRegex(berth.ClusterError, "was closed here"):
            cluster.scheduler_address  # noqa: B018


class Versions(Case):
    HERE = {"python": "3.11.2", "dask": "2022.12.1+dfsg.1", "distributed": "2022.12.1+ds.1"}

    def info(self, **groups):
        return ClusterInfo.from_json({"id": "k1", "name": "analysis", "head": {"versions": {"python": "3.11.9", "dask": "2022.12.1", "distributed": "2022.12.1"}},
                                      "groups": [{"name": name, "versions": versions} for name, versions in groups.items()]})

    def check(self, info, how=True):
        with mock.patch.object(_dask, "local_versions", lambda: self.HERE):
            _dask.check(info, how)

    def test_that_fit_pass(self):
        self.check(self.info(big={"python": "3.11.0", "distributed": "2022.12.1"}, small={}))

    def test_that_do_not_fit_are_an_error_that_names_both(self):
        info = self.info(big={"python": "3.10.1", "distributed": "2024.1.0"})
        with self.assertRaises(berth.VersionError) as caught:
            self.check(info)
        for part in ("Python is 3.11.2 here and 3.10.1 on the workers of group big", "distributed is 2022.12.1+ds.1 here and 2024.1.0 on the workers of group big", "check_versions=False"):
            self.assertIn(part, str(caught.exception))
        self.check(info, False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.check(info, "warn")
        self.assertIn("3.10.1", str(caught[0].message))

    def test_another_dask_alone_is_a_warning(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.check(self.info(big={"dask": "2022.12.0"}))
        self.assertIn("dask is 2022.12.1+dfsg.1 here and 2022.12.0", str(caught[0].message))


if __name__ == "__main__":
    unittest.main()
