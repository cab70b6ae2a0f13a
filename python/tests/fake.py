"""A fake of Berth's API for tests: Connect with JSON, streams, and upgrades to plain bytes.

Run as a program it is a fake `berth`: `fake.py api --socket PATH`.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any, Callable, Optional


class Refusal(Exception):
    """An error of Connect, as a method of the fake raises it."""

    STATUS = {"not_found": 404, "invalid_argument": 400, "unauthenticated": 401, "permission_denied": 403, "failed_precondition": 400, "unavailable": 503}

    def __init__(self, code: str, message: str, diagnosis: Optional[dict] = None, ending: bool = False) -> None:
        super().__init__(message)
        self.code, self.diagnosis, self.ending = code, diagnosis, ending

    def json(self) -> dict:
        out: dict[str, Any] = {"code": self.code, "message": str(self)}
        if self.diagnosis:
            out["details"] = [{"type": "berth.v1.Diagnosis", "value": "AA", "debug": self.diagnosis}]
        return out


class Cut(Exception):
    """Has the fake break the connection off, without an end."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 64 << 10  # or each answer would wait for the acknowledgement of its headers
    server: FakeServer

    def log_message(self, *_: Any) -> None:
        pass

    def address_string(self) -> str:
        return "test"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        method = self.path.rpartition("/")[2]
        streaming = self.headers["Content-Type"] == "application/connect+json"
        if streaming:
            flags, size = struct.unpack(">BI", body[:5])
            assert flags == 0 and size == len(body) - 5
            body = body[5:]
        request = json.loads(body)
        self.server.requests.append((method, request, dict(self.headers)))
        if self.server.raw is not None:
            status, kind, text = self.server.raw
            return self.answer(status, kind, text)
        try:
            if self.server.token and self.headers["Authorization"] != "Bearer " + self.server.token:
                raise Refusal("unauthenticated", "a token is needed")
            function = self.server.methods.get(method)
            if function is None:
                return self.answer(404, "text/plain", b"404 page not found")
            if streaming:
                return self.stream(function(request))
            result = function(request)
        except Refusal as error:
            if streaming:
                return self.stream(iter(()), error)
            return self.answer(Refusal.STATUS[error.code], "application/json", json.dumps(error.json()).encode(), error.ending)
        except Cut:
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        self.answer(200, "application/json", json.dumps(result).encode())

    def answer(self, status: int, kind: str, body: bytes, ending: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) + self.server.missing))
        self.close_connection = self.server.missing > 0
        if ending:
            self.send_header("Berth-Ending", "true")
        self.end_headers()
        self.wfile.write(body)

    def stream(self, messages: Any, error: Optional[Refusal] = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/connect+json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        end: dict[str, Any] = {}
        try:
            if error is not None:
                raise error
            for message in messages:
                self.envelope(0, message)
        except Refusal as error:
            end["error"] = error.json()
            if error.ending:
                end["metadata"] = {"Berth-Ending": ["true"]}
        except Cut:
            self.close_connection = True
            self.wfile.flush()
            return self.connection.shutdown(socket.SHUT_RDWR)
        self.envelope(2, end)
        self.wfile.write(b"0\r\n\r\n")

    def envelope(self, flags: int, message: dict) -> None:
        data = json.dumps(message).encode()
        data = struct.pack(">BI", flags, len(data)) + data
        # In two chunks, as a proxy may cut them.
        for part in (data[:3], data[3:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()

    def do_GET(self) -> None:
        self.server.upgrades.append((self.path, dict(self.headers)))
        try:
            if self.headers.get("Upgrade") != "tcp" or self.headers.get("Connection") != "Upgrade":
                raise Refusal("invalid_argument", "no upgrade")
            if self.server.token and self.headers["Authorization"] != "Bearer " + self.server.token:
                raise Refusal("unauthenticated", "a token is needed")
            backend = self.server.backend(self.path)
        except Refusal as error:
            return self.answer(Refusal.STATUS[error.code], "application/json", json.dumps(error.json()).encode())
        self.close_connection = True
        with backend:
            self.server.tunnelled.add(backend)
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            self.wfile.flush()
            relay(self.connection, backend)
            self.server.tunnelled.discard(backend)


def relay(client: socket.socket, backend: socket.socket) -> None:
    """Passes bytes on until both directions have ended, or one end is gone."""
    open_ones = {client: backend, backend: client}
    try:
        for sock in open_ones:
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while open_ones:
            pending = isinstance(client, ssl.SSLSocket) and client in open_ones and client.pending()
            readable = [client] if pending else select.select(list(open_ones), [], [], 30)[0]
            for source in readable:
                data = source.recv(64 << 10)
                if data:
                    open_ones.get(source, backend if source is client else client).sendall(data)
                    continue
                target = open_ones.pop(source)
                if isinstance(target, ssl.SSLSocket) or isinstance(source, ssl.SSLSocket):
                    return
                target.shutdown(socket.SHUT_WR)
    except (OSError, ValueError):
        pass


class _Threads(socketserver.ThreadingMixIn):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    allow_reuse_address = True


class FakeServer(_Threads, socketserver.TCPServer):
    """methods: by name, what answers a request. backend: a socket for a path of an upgrade."""

    def __init__(self, token: str = "", certificate: Optional[tuple[str, str]] = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.prepare(token)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server_address[1]
        self.start()

    def prepare(self, token: str = "") -> None:
        self.token = token
        self.methods: dict[str, Callable[[dict], Any]] = {}
        self.requests: list[tuple[str, dict, dict]] = []
        self.upgrades: list[tuple[str, dict]] = []
        self.tunnelled: set[socket.socket] = set()
        self.raw: Optional[tuple[int, str, bytes]] = None
        self.missing = 0  # bytes of each body that never come

    def backend(self, path: str) -> socket.socket:
        raise Refusal("not_found", f"there is no {path}")

    def handle_error(self, *_: Any) -> None:
        pass

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.cut()

    def cut(self) -> None:
        """Breaks all tunnels off."""
        for backend in list(self.tunnelled):
            try:
                backend.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def asked(self, method: str) -> list[dict]:
        return [request for name, request, _ in self.requests if name == method]


def certificates(directory: str, names: str = "IP:127.0.0.1,DNS:localhost", name: str = "server") -> tuple[str, str, str]:
    """Makes a CA and a certificate of it, and returns the paths of CA, certificate and key."""
    ca, ca_key, cert, key, request = (os.path.join(directory, name + part) for part in ("-ca.pem", "-ca-key.pem", ".pem", "-key.pem", ".csr"))

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", f"/CN={name} authority", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", *curve, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    extensions = os.path.join(directory, name + ".ext")
    with open(extensions, "w") as file:
        file.write(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=critical,digitalSignature\n"
                   "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-out", cert, "-days", "2", "-extfile", extensions)
    return ca, cert, key


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


DIAGNOSIS = {
    "cause": "InsufficientMemory", "summary": "2Gi are asked for, and no node has more than 1Gi free.", "remedy": "ask for less: worker_memory",
    "remedyBy": "you", "since": "2026-03-01T10:05:00.123456789Z", "evidence": [{"source": "pod condition PodScheduled", "text": "0/1 nodes"}],
}


class FakeClusters:
    """Clusters as the server keeps them, of which a test says how they stand."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.clusters: dict[str, dict] = {}
        self.changed = threading.Condition()
        self.made: dict[str, str] = {}  # by key
        self.versions: dict[str, str] = {}
        self.start_at_once = True
        self.access = {"ca": "CA\n", "certificate": "CERT\n", "key": "KEY\n"}
        for name in ("CreateCluster", "GetCluster", "ListClusters", "WatchCluster", "ScaleCluster", "DeleteCluster", "GetClusterAccess"):
            server.methods[name] = getattr(self, name)

    def CreateCluster(self, r: dict) -> dict:
        spec = json.loads(json.dumps(r["spec"]))
        with self.changed:
            if r["key"] in self.made:
                return {"cluster": self.clusters[self.made[r["key"]]]}
            live = [c for c in self.clusters.values() if c["name"] == spec["name"] and c["state"] not in ("stopped", "failed")]
            if live and (not r.get("reuse") or live[0]["state"] == "stopping"):
                raise Refusal("failed_precondition", f"there is a cluster {spec['name']} already, which is {live[0]['state']}")
            if live:
                return {"cluster": live[0]}
            identity = f"k{len(self.clusters):020d}"
            self.made[r["key"]] = identity
            groups = []
            for g in spec["workers"]:
                g["name"] = g["name"] or "workers"
                n = g.get("min", 0) if g.get("max") else g.get("count", 0)
                groups.append({"name": g["name"], "wanted": n, "ready": n if self.start_at_once else 0, "versions": self.versions})
            self.clusters[identity] = {
                "id": identity, "name": spec["name"] or "made-up", "state": "running" if self.start_at_once else "starting", "spec": spec,
                "head": {"task": "t1", "versions": self.versions}, "groups": groups, "createdAt": "2026-03-01T10:05:00Z",
            }
            return {"cluster": self.clusters[identity]}

    def find(self, name: str) -> dict:
        found = [c for c in self.clusters.values() if name in (c["id"], c["name"])]
        if not found:
            raise Refusal("not_found", f"there is no cluster {name}")
        return found[-1]

    def GetCluster(self, r: dict) -> dict:
        return {"cluster": self.find(r["id"])}

    def ListClusters(self, r: dict) -> dict:
        every = [c for c in self.clusters.values() if r["all"] or c["state"] not in ("stopped", "failed")]
        ids = [c["id"] for c in every]
        start = ids.index(r["after"]) + 1 if r["after"] else 0
        page = every[start : start + 2]
        return {"clusters": page, "next": page[-1]["id"] if start + 2 < len(every) else ""}

    def WatchCluster(self, r: dict) -> Any:
        last = None
        while True:
            with self.changed:
                now = json.dumps(self.find(r["id"]))
                if now == last:
                    self.changed.wait(0.05)
                    continue
            last = now
            cluster = json.loads(now)
            yield {"cluster": cluster}
            if cluster["state"] in ("stopped", "failed"):
                return

    def change(self, name: str, **changes: Any) -> None:
        with self.changed:
            cluster = self.find(name)
            for key, value in changes.items():
                if key == "workers":
                    cluster["groups"][0].update(value)
                else:
                    cluster[key] = value
            self.changed.notify_all()

    def ScaleCluster(self, r: dict) -> dict:
        cluster = self.find(r["id"])
        group = next(g for g in cluster["groups"] if r["group"] in ("", g["name"]))
        group["wanted"] = r.get("count", r.get("min", 0))
        return {"cluster": cluster}

    def DeleteCluster(self, r: dict) -> dict:
        cluster = self.find(r["id"])
        self.change(cluster["id"], state="stopped", reason="it was deleted")
        return {"cluster": cluster}

    def GetClusterAccess(self, r: dict) -> dict:
        self.find(r["id"])
        return self.access


class _UnixServer(_Threads, socketserver.UnixStreamServer if hasattr(socketserver, "UnixStreamServer") else object):  # type: ignore[misc]
    pass


def main() -> None:
    """Serves what a berth api process would, for a while: as FAKE_BERTH says, badly."""
    how = os.environ.get("FAKE_BERTH", "")
    if sys.argv[1:3] != ["api", "--socket"] or how == "broken":
        sys.exit("berth: there is no infra.yml here: run berth infra add")

    class Server(_UnixServer):
        prepare, backend, handle_error = FakeServer.prepare, FakeServer.backend, FakeServer.handle_error
        asked = FakeServer.asked

    server: Any = Server(sys.argv[3], _Handler)
    server.prepare()
    server.methods["Info"] = lambda _: {"pid": os.getpid(), "dataDir": os.environ.get("BERTH_DATA", "")}
    server.methods["ListClusters"] = lambda _: {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.buffer.read()


def program(directory: str) -> str:
    """Makes this file a program, and returns its path."""
    path = os.path.join(directory, "berth")
    with open(path, "w") as file:
        file.write(f'#!/bin/sh\nexec "{sys.executable}" "{os.path.abspath(__file__)}" "$@"\n')
    os.chmod(path, 0o755)
    return path


def private_directory(test: Any) -> str:
    directory = tempfile.mkdtemp()
    test.addCleanup(shutil.rmtree, directory, True)
    return directory


if __name__ == "__main__":
    main()
