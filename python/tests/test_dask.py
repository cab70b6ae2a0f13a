"""Dask's own Client, on a real scheduler and worker that speak mutual TLS, behind the fake's upgrades."""

import asyncio
import logging
import socket
import time
import unittest
import warnings
from unittest import mock

from common import HAS_DASK, Case, berth
from fake import Refusal, certificates, private_directory

if HAS_DASK:
    import dask
    import distributed
    from distributed import Client, LocalCluster
    from distributed.security import Security


def read(path):
    with open(path) as file:
        return file.read()


def double(x):
    return 2 * x


@unittest.skipUnless(HAS_DASK, "distributed is not installed")
class Dask(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        directory = private_directory(type("", (), {"addCleanup": staticmethod(cls.addClassCleanup)}))
        cls.ca, cls.cert, cls.key = certificates(directory, "DNS:analysis", "cluster")
        security = Security(require_encryption=True, tls_ca_file=cls.ca, **{
            f"tls_{role}_{what}": path for role in ("scheduler", "worker", "client") for what, path in (("cert", cls.cert), ("key", cls.key))})
        cls.head = LocalCluster(n_workers=1, threads_per_worker=2, processes=False, protocol="tls://", security=security, dashboard_address=":0", host="127.0.0.1", silence_logs=logging.ERROR)
        cls.addClassCleanup(cls.head.close)

    def setUp(self):
        super().setUp()
        host, _, port = self.head.scheduler_address.rpartition("/")[2].rpartition(":")
        self.away = False

        def backend(path):
            if self.away:
                raise Refusal("unavailable", "the head can't be reached")
            return socket.create_connection((host, int(port)))

        self.server.backend = backend
        self.clusters.access = {"ca": read(self.ca), "certificate": read(self.cert), "key": read(self.key)}
        self.clusters.versions = berth._dask.local_versions()

    def make(self, **options):
        cluster = berth.Cluster("analysis", image="registry/dask:1", **options)
        self.addCleanup(cluster.close)
        return cluster

    def test_a_client_computes_through_the_tunnel(self):
        with self.make() as cluster, cluster.get_client(set_as_default=False) as client:
            self.assertRegex(client.scheduler.address, r"^tls://127\.0\.0\.1:\d+$")
            self.assertNotEqual(client.scheduler.address, self.head.scheduler_address)
            self.assertEqual(client.submit(double, 21).result(timeout=30), 42)
            self.assertEqual(client.gather(client.map(double, range(50))), [2 * n for n in range(50)])
            data = b"x" * 5_000_000
            self.assertEqual(client.submit(len, client.scatter(data)).result(timeout=30), len(data))
            self.assertEqual(client.dashboard_link, cluster.dashboard_link)
            self.assertIn("analysis", client._repr_html_())
        self.assertEqual(len(self.server.asked("DeleteCluster")), 1)
        self.assertTrue(all(path.endswith("/scheduler") for path, _ in self.server.upgrades))

    def test_dasks_client_takes_it_as_it_is(self):
        cluster = self.make()
        with Client(cluster, set_as_default=False) as client:
            self.assertIs(client.cluster, cluster)
            self.assertEqual(client.submit(double, 1).result(timeout=30), 2)
            if tuple(map(int, distributed.__version__.split(".")[:2])) > (2023, 0):
                client.wait_for_workers(1, timeout=10)

    def test_a_collection_is_computed(self):
        with self.make() as cluster, cluster.get_client() as client:
            total = dask.delayed(sum)([dask.delayed(double)(n) for n in range(10)])
            self.assertEqual(total.compute(), 90)
            self.assertEqual(client.compute(total).result(timeout=30), 90)

    def test_the_client_comes_back_when_the_server_was_away(self):
        with self.make() as cluster, cluster.get_client(set_as_default=False) as client:
            self.assertEqual(client.submit(double, 1).result(timeout=30), 2)
            self.away = True
            self.server.cut()
            time.sleep(1.5)
            self.assertNotEqual(client.status, "closed")
            self.away = False
            self.eventually(lambda: client.status == "running" and client.scheduler_comm is not None and not client.scheduler_comm.comm.closed(), "it is connected again", 30)
            self.assertEqual(client.submit(double, 4, pure=False).result(timeout=30), 8)

    def test_without_the_keys_nobody_gets_in(self):
        cluster = self.make()
        with self.assertRaises((OSError, TypeError)):
            Client(cluster.scheduler_address, timeout=3, set_as_default=False)
        other = private_directory(self)
        ca, cert, key = certificates(other, "DNS:analysis", "other")
        strange = Security(require_encryption=True, tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key)
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        with self.assertRaises(OSError):
            Client(cluster.scheduler_address, security=strange, timeout=3, set_as_default=False)

    def test_the_key_is_not_shown(self):
        cluster = self.make()
        text = repr(cluster.security) + repr(cluster) + cluster._repr_html_() + cluster.security._repr_html_()
        self.assertNotIn("PRIVATE", text)
        self.assertIsNotNone(cluster.security.get_connection_args("client")["ssl_context"])

    def test_versions_that_do_not_fit_keep_a_client_back(self):
        self.clusters.versions = {"python": "3.7.1", "distributed": "2020.1.0", "dask": "2020.1.0"}
        cluster = self.make()
        for make in (cluster.get_client, lambda: Client(cluster)):
            with self.assertRaisesRegex(berth.VersionError, "distributed is .* here and 2020.1.0 on the head"):
                make()
        cluster.close()
        with self.make(check_versions="warn") as cluster, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cluster.get_client(set_as_default=False).close()
        self.assertIn("3.7.1", " ".join(str(w.message) for w in caught))

    def test_a_closed_one_takes_no_client(self):
        cluster = self.make()
        cluster.close()
        with self.assertRaises((RuntimeError, berth.ClusterError)):
            Client(cluster, set_as_default=False)

    def test_closing_closes_clients(self):
        cluster = self.make()
        client = cluster.get_client(set_as_default=False)
        cluster.close()
        self.assertEqual(client.status, "closed")

    def test_a_client_may_shut_it_down(self):
        cluster = self.make()
        client = Client(cluster, set_as_default=False)
        client.shutdown()
        client.close()
        self.assertEqual(len(self.server.asked("DeleteCluster")), 1)
        self.assertEqual(cluster.status, distributed.core.Status.closed)

    def test_status_is_dasks(self):
        Status = distributed.core.Status
        cluster = self.make()
        self.assertEqual(cluster.status, Status.running)
        cluster.close()
        self.assertEqual(cluster.status, Status.closed)

    def test_in_coroutines(self):
        async def work():
            async with berth.Cluster("analysis", image="registry/dask:1", n_workers=1, asynchronous=True) as cluster:
                async with cluster.get_client(set_as_default=False) as client:
                    self.assertEqual(await client.submit(double, 5), 10)
                async with Client(cluster, asynchronous=True, set_as_default=False) as client:
                    self.assertEqual(await client.submit(double, 6), 12)
                await cluster.scale(1)
                await cluster.wait_for_workers(1, timeout=10)
                return cluster

        cluster = asyncio.run(work())
        self.assertEqual(cluster.status, distributed.core.Status.closed)
        self.assertEqual(len(self.server.asked("DeleteCluster")), 1)
        with self.assertRaisesRegex(berth.ClusterError, "await the cluster"):
            berth.Cluster("other", image="x", asynchronous=True).scheduler_address

    def test_without_dask_it_says_what_to_install(self):
        self.clusters.versions = {"distributed": "2024.8.0"}
        with mock.patch.dict("sys.modules", {"distributed": None}), self.assertRaisesRegex(berth.ClusterError, "pip install 'distributed==2024.8.0'"):
            self.make()


if __name__ == "__main__":
    unittest.main()
