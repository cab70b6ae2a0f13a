"""Local ports that lead to the head of a cluster."""

import os
import select
import socket
import threading
import time
import unittest
from unittest import mock

from common import Case, berth
from fake import FakeServer, Refusal, certificates, private_directory
from berth import _tunnel
from berth._service import service
from berth._tunnel import Tunnel


class Echo:
    """A head that sends back what it gets, and at the end of that one line more."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.echo, args=(conn,), daemon=True).start()

    @staticmethod
    def echo(conn):
        with conn:
            try:
                while True:
                    data = conn.recv(1 << 16)
                    if not data:
                        break
                    conn.sendall(data)
                conn.sendall(b"end")
            except OSError:
                pass

    def dial(self, _):
        return socket.create_connection(self.listener.getsockname())


def read_all(sock):
    out = b""
    while True:
        data = sock.recv(1 << 16)
        if not data:
            return out
        out += data


class Tunnels(Case):
    def setUp(self):
        super().setUp()
        self.head = Echo()
        self.addCleanup(self.head.listener.close)
        self.server.backend = self.head.dial

    def open(self, **options):
        options.setdefault("patience", 5)
        tunnel = Tunnel(service().transport, "k1", "scheduler", **options)
        self.addCleanup(tunnel.close)
        return tunnel

    def dial(self, tunnel):
        sock = socket.create_connection(("127.0.0.1", tunnel.port))
        sock.settimeout(20)
        self.addCleanup(sock.close)
        return sock

    def test_pass_bytes_both_ways_and_the_end_of_one_direction(self):
        sock = self.dial(self.open())
        sock.sendall(b"hello")
        self.assertEqual(sock.recv(100), b"hello")
        sock.sendall(b", world")
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(read_all(sock), b", worldend")
        path, headers = self.server.upgrades[0]
        self.assertEqual(path, "/berth.v1/clusters/k1/scheduler")
        self.assertEqual((headers["Connection"], headers["Upgrade"], headers["Authorization"]), ("Upgrade", "tcp", "Bearer " + self.TOKEN))

    def test_pass_much_without_mixing(self):
        self.much(self.open())

    def much(self, tunnel, size=30_000_000):
        data = os.urandom(1 << 20) * (size >> 20)
        sock = self.dial(tunnel)
        writer = threading.Thread(target=sock.sendall, args=(data,))
        writer.start()
        got = bytearray()
        while len(got) < len(data):
            part = sock.recv(1 << 18)
            if not part:
                break
            got += part
        writer.join()
        self.assertTrue(bytes(got) == data, f"{len(got)} of {len(data)} bytes came back, or others")

    def test_several_connections_at_once(self):
        tunnel = self.open()
        socks = [self.dial(tunnel) for _ in range(20)]
        for n, sock in enumerate(socks):
            sock.sendall(b"%d" % n)
        for n, sock in enumerate(socks):
            self.assertEqual(sock.recv(100), b"%d" % n)

    def test_through_tls(self):
        ca, cert, key = certificates(private_directory(self))
        server = FakeServer(token=self.TOKEN, certificate=(cert, key))
        server.backend = self.head.dial
        self.addCleanup(server.stop)
        self.environ({"BERTH_SERVER": f"https://127.0.0.1:{server.port}", "BERTH_CA_FILE": ca})
        tunnel = self.open()
        sock = self.dial(tunnel)
        sock.sendall(b"hello")
        self.assertEqual(sock.recv(100), b"hello")
        sock.close()
        self.eventually(lambda: not server.tunnelled, "the end of the connection reaches the server")
        # The fake relays by blocking calls: no more at once than what fits into buffers.
        sock = self.dial(tunnel)
        for n in range(100):
            data = os.urandom(50_000)
            sock.sendall(data)
            got = b""
            while len(got) < len(data):
                got += sock.recv(1 << 16)
            self.assertEqual(got, data)

    def test_the_end_of_the_head_ends_the_connection(self):
        sock = self.dial(self.open())
        sock.sendall(b"x")
        self.assertEqual(sock.recv(1), b"x")
        self.server.cut()
        self.assertEqual(sock.recv(1), b"")

    def test_a_server_that_is_away_is_waited_for(self):
        away = [True]

        def backend(path):
            if away[0]:
                raise Refusal("unavailable", "the head can't be reached")
            return self.head.dial(path)

        self.server.backend = backend
        sock = self.dial(self.open())
        sock.sendall(b"hello")
        self.eventually(lambda: len(self.server.upgrades) > 2, "it is tried again")
        away[0] = False
        self.assertEqual(sock.recv(100), b"hello")

    @unittest.skipUnless(hasattr(select, "POLLRDHUP"), "Linux alone tells that the other end has closed")
    def test_one_that_gave_up_meanwhile_is_not_connected_any_more(self):
        away = [True]

        def backend(path):
            if away[0]:
                raise Refusal("unavailable", "the head can't be reached")
            raise AssertionError("it was connected")

        self.server.backend = backend
        sock = self.dial(self.open())
        sock.sendall(b"hello")
        self.eventually(lambda: self.server.upgrades, "it is tried")
        sock.close()
        self.eventually(lambda: not [t for t in threading.enumerate() if t.name == "berth-tunnel-scheduler" and t._target.__name__ == "_serve"], "it is given up", 3)

    def test_it_is_not_waited_for_ever(self):
        self.server.stop()
        with self.assertLogs("berth.tunnel", "WARNING") as logged:
            sock = self.dial(self.open(patience=0.3))
            self.assertEqual(sock.recv(1), b"")
        self.assertIn("can't be reached", logged.output[0])
        self.assertNotIn(self.TOKEN, logged.output[0])

    def test_what_never_will_be_is_told_and_not_tried_again(self):
        def backend(_):
            raise Refusal("failed_precondition", "cluster k1 has ended")

        self.server.backend = backend
        told = []
        sock = self.dial(self.open(refused=told.append))
        self.assertEqual(sock.recv(1), b"")
        self.assertEqual([str(error) for error in told], ["cluster k1 has ended"])
        self.assertEqual(len(self.server.upgrades), 1)

    def test_a_proxy_that_lets_no_upgrade_through_is_named(self):
        def answer(handler):
            handler.answer(404, "text/html", b"<html>" + b"x" * 5000)

        told = []
        with mock.patch("fake._Handler.do_GET", answer):
            self.assertEqual(self.dial(self.open(refused=told.append)).recv(1), b"")
        self.assertRegex(str(told[0]), "404.*has to let HTTP upgrades through")

    def test_closing_ends_all(self):
        tunnel = self.open()
        sock = self.dial(tunnel)
        sock.sendall(b"x")
        self.assertEqual(sock.recv(1), b"x")
        tunnel.close()
        try:
            self.assertEqual(sock.recv(1), b"")
        except ConnectionResetError:
            pass
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", tunnel.port), 1)
        self.eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("berth-tunnel")], "its threads end")

    def test_a_head_that_reads_slowly_is_waited_for(self):
        received = []

        def slow(_):
            here, there = socket.socketpair()

            def read():
                time.sleep(0.3)
                received.append(len(read_all(there)))
                there.close()

            threading.Thread(target=read, daemon=True).start()
            return here

        self.server.backend = slow
        sock = self.dial(self.open())
        sock.sendall(b"x" * 20_000_000)
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(read_all(sock), b"")
        self.assertEqual(received, [20_000_000])


class Pump(unittest.TestCase):
    def test_waits_without_turning(self):
        """A connection on which nothing happens takes no CPU."""
        a, b = socket.socketpair()
        c, d = socket.socketpair()
        thread = threading.Thread(target=_tunnel.pump, args=(b, c), daemon=True)
        thread.start()
        writer = threading.Thread(target=lambda: (a.sendall(b"x" * 1_000_000), a.close()))  # more than d reads, for now
        writer.start()
        time.sleep(0.2)
        before = time.process_time()
        time.sleep(0.3)
        self.assertLess(time.process_time() - before, 0.1)
        self.assertEqual(len(read_all(d)), 1_000_000)
        writer.join()
        d.close()
        thread.join(10)
        self.assertFalse(thread.is_alive())
        b.close()
        c.close()


if __name__ == "__main__":
    unittest.main()
