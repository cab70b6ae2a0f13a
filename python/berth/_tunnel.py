"""Local ports that lead to the head of a cluster.

Each connection to the port becomes one connection to Berth's API that is upgraded
to plain bytes (GET .../clusters/ID/scheduler, Upgrade: tcp). Bytes are passed on as
they are: where Dask speaks TLS, it does so from end to end.
"""

from __future__ import annotations

import http.client
import logging
import select
import selectors
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Optional, cast
from urllib.parse import quote

from . import _connect
from ._errors import Away, Error
from ._service import PATIENCE

log = logging.getLogger("berth.tunnel")

_BUFFER = 256 << 10  # bytes
_DIAL_TIMEOUT = 30.0  # s for an answer; the server reaches into the cluster meanwhile


class _Unbuffered:
    """A socket for HTTPResponse, which reads nothing behind the headers: what follows is not HTTP."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def makefile(self, *_: Any) -> Any:
        return self.sock.makefile("rb", buffering=0)


def dial(transport: _connect.Transport, cluster: str, port: str) -> socket.socket:
    """Returns a connection to the scheduler or the dashboard of a cluster.

    Away while it can't be reached; another Error where it never will.
    """
    sock = transport.connect(10.0)
    try:
        sock.settimeout(_DIAL_TIMEOUT)
        lines = [f"GET {transport.prefix}/berth.v1/clusters/{quote(cluster, safe='')}/{port} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in _connect.headers(transport).items()]
        lines += ["Connection: Upgrade", "Upgrade: tcp", "", ""]
        sock.sendall("\r\n".join(lines).encode())
        response = http.client.HTTPResponse(cast(socket.socket, _Unbuffered(sock)), method="GET")
        response.begin()
        if response.status == 101:
            response.close()
            return sock
        error = _connect.refusal(transport, response, _rest(response))
        if response.status != 401 and error.code == "invalid" and not response.headers.get("Content-Type", "").startswith("application/json"):
            error = Error(f"{error.message}; a proxy in front of it has to let HTTP upgrades through", error.code)
        raise error
    except BaseException as error:
        sock.close()
        raise _connect.away(transport, error) from None


def _rest(response: http.client.HTTPResponse) -> bytes:
    """Reads the body of an answer; reads of the bare socket may be short."""
    out = b""
    try:
        while len(out) < 1 << 20:
            part = response.read(64 << 10)
            if not part:
                break
            out += part
    except http.client.IncompleteRead as error:
        out += error.partial
    return out


class Tunnel:
    """A port of this machine's loopback that leads to a port of a cluster's head.

    A connection that is made while the server is away waits for it for ``patience``
    s. ``refused`` is told, from a thread, why one never will come through.
    """

    def __init__(
        self,
        transport: _connect.Transport,
        cluster: str,
        port: str,
        refused: Callable[[Error], None] = lambda _: None,
        patience: float = PATIENCE,
    ) -> None:
        self._transport, self._cluster, self._head_port = transport, cluster, port
        self._refused, self._patience = refused, patience
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()  # our ends of connections
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name=f"berth-tunnel-{port}", daemon=True).start()

    def __repr__(self) -> str:
        return f"<tunnel of 127.0.0.1:{self.port} to the {self._head_port} of cluster {self._cluster}>"

    def close(self) -> None:
        """Ends all connections, and takes no more."""
        self._closed.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        with suppress(OSError):
            self._listener.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # its thread sees that, and closes both ends

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                local, _ = self._listener.accept()
            except OSError:
                if self._closed.is_set():
                    return
                time.sleep(0.1)  # out of file descriptors
                continue
            with self._lock:
                self._open.add(local)
            thread = threading.Thread(target=self._serve, args=(local,), name=f"berth-tunnel-{self._head_port}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # out of threads, or Python ends
                self._let_go(local)

    def _let_go(self, local: socket.socket) -> None:
        with self._lock:
            self._open.discard(local)
        with suppress(OSError):
            local.close()

    def _serve(self, local: socket.socket) -> None:
        try:
            with suppress(OSError):
                local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            remote = self._dial(local)
            if remote is not None:
                try:
                    pump(local, remote)
                finally:
                    remote.close()
        finally:
            self._let_go(local)

    def _dial(self, local: socket.socket) -> Optional[socket.socket]:
        began, pause, tried = time.monotonic(), 0.05, False
        while not self._closed.is_set() and not (tried and _left(local)):
            tried = True
            try:
                return dial(self._transport, self._cluster, self._head_port)
            except Away as error:
                if time.monotonic() - began > self._patience:
                    log.warning("no connection to cluster %s: %s", self._cluster, error)
                    return None
                log.debug("no connection to cluster %s yet: %s", self._cluster, error)
            except Error as error:
                if not self._closed.is_set():
                    self._refused(error)
                return None
            self._closed.wait(pause)
            pause = min(2 * pause, 1.0)
        return None


def _left(sock: socket.socket) -> bool:
    """Whether the other end of a connection has closed it, also with bytes unread: Dask tries anew every
    few seconds, and each try would become a connection once the server is back."""
    if not hasattr(select, "POLLRDHUP"):  # Linux alone has it
        return False
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


class _Direction:
    """Bytes on their way from one socket to another, both without blocking."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.pending = memoryview(b"")
        self.ended = False
        self.waits: Optional[tuple[socket.socket, int]] = None  # for what it waits

    def step(self, buffer: memoryview) -> bool:
        """Passes on what can be; reports whether that was anything. OSError when an end is gone."""
        self.waits = None
        if self.ended:
            return False
        moved = False
        if not self.pending:
            try:
                n = self.source.recv_into(buffer)
            except ssl.SSLWantWriteError:
                self.waits = self.source, selectors.EVENT_WRITE
                return False
            except (ssl.SSLWantReadError, BlockingIOError):
                self.waits = self.source, selectors.EVENT_READ
                return False
            except ssl.SSLEOFError:
                n = 0
            if n == 0:
                self.ended = True
                if isinstance(self.target, ssl.SSLSocket):
                    raise ConnectionAbortedError  # TLS can't end one direction alone here
                self.target.shutdown(socket.SHUT_WR)
                return True
            self.pending, moved = buffer[:n], True
        while self.pending:
            try:
                n = self.target.send(self.pending)
            except ssl.SSLWantReadError:
                self.waits = self.target, selectors.EVENT_READ
            except (ssl.SSLWantWriteError, BlockingIOError):
                self.waits = self.target, selectors.EVENT_WRITE
            else:
                self.pending, moved = self.pending[n:], True
                continue
            break
        return moved


def pump(one: socket.socket, other: socket.socket) -> None:
    """Passes bytes on between two sockets until both directions have ended, or one end is gone.

    One thread does both directions: a TLS connection is not for two threads at once.
    """
    one.setblocking(False)
    other.setblocking(False)
    directions = _Direction(one, other), _Direction(other, one)
    buffers = memoryview(bytearray(_BUFFER)), memoryview(bytearray(_BUFFER))
    with selectors.DefaultSelector() as selector, suppress(OSError):
        while not (directions[0].ended and directions[1].ended):
            if any([direction.step(buffer) for direction, buffer in zip(directions, buffers)]):
                continue
            _wait(selector, [direction.waits for direction in directions if direction.waits is not None])


def _wait(selector: selectors.BaseSelector, waits: list[tuple[socket.socket, int]]) -> None:
    """Waits until one of the sockets is ready for what is waited for."""
    masks: dict[socket.socket, int] = {}
    for sock, event in waits:
        masks[sock] = masks.get(sock, 0) | event
    for key in list(selector.get_map().values()):
        if key.fileobj not in masks:
            selector.unregister(key.fileobj)
    for sock, mask in masks.items():
        try:
            if selector.get_key(sock).events != mask:
                selector.modify(sock, mask)
        except KeyError:
            selector.register(sock, mask)
    selector.select()
