"""Calls of Berth's API that outlive a server that is away for a while."""

from __future__ import annotations

import os
import secrets
import threading
import time
from typing import Any, Callable, Iterator, Optional, Union

from . import _connect, _local
from ._errors import Away, Error
from ._say import say
from ._transport import Server, read_token

PATIENCE = 30.0  # s, with a server that is away
_TELL_AFTER = 1.0  # s
_LONG_LIVED = 5.0  # s after which a stream that is cut was a good one


def new_key() -> str:
    """Returns an idempotency key: a request with it that is made twice is made once."""
    return secrets.token_hex(16)


class Patience:
    """Paces the tries of one request: soon at first, then once a second."""

    def __init__(self, seconds: Optional[float] = None) -> None:
        self.seconds = PATIENCE if seconds is None else seconds
        self.reset()

    def reset(self) -> None:
        self.began = time.monotonic()
        self.pause = 0.02
        self.told = False

    def again(self, error: Error, deadline: Optional[float] = None) -> None:
        """Waits before the next try, or raises the error to give up with."""
        now = time.monotonic()
        away = now - self.began
        if deadline is not None and now >= deadline:
            raise TimeoutError
        if away > self.seconds:
            raise Error(f"{error.message} (it was tried for {away:.0f} s)", error.code, error.diagnosis)
        if away > _TELL_AFTER and not self.told:
            self.told = True
            say(f"waiting: {error.message}")
        time.sleep(self.pause if deadline is None else min(self.pause, max(0.0, deadline - now)))
        self.pause = min(2 * self.pause, 1.0)


class Service:
    """Berth's API. Requests and answers are protojson as dicts (proto/berth/v1/berth.proto)."""

    def __init__(self, transport: Union[Server, _local.Local]) -> None:
        self.transport = transport

    def __repr__(self) -> str:
        return f"<berth API of {self.transport.name}>"

    @property
    def local(self) -> bool:
        """Whether it is the store of this machine: then nothing goes on without some berth process."""
        return isinstance(self.transport, _local.Local)

    def call(
        self, method: str, message: dict[str, Any], patience: Optional[float] = None, timeout: float = _connect.ANSWER_TIMEOUT
    ) -> dict[str, Any]:
        """Makes a call, again while it can't be answered, for ``patience`` s; each answer may take ``timeout`` s.

        A message that makes something carries a key, so that a second try is the
        same request.
        """
        tries = Patience(patience)
        while True:
            try:
                return _connect.unary(self.transport, method, message, timeout)
            except Away as error:
                tries.again(error)

    def stream(
        self,
        method: str,
        message: dict[str, Any],
        deadline: Optional[float] = None,
        seen: Callable[[dict[str, Any]], None] = lambda _: None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Iterator[dict[str, Any]]:
        """Yields a server stream to its end, over cuts of the connection.

        ``seen`` may change the message by what was yielded, so that it goes on
        behind that. ``deadline`` is of time.monotonic(): TimeoutError then. A stream
        that is cut ends where it is not ``wanted`` any more.
        """
        tries = Patience()
        while True:
            began = time.monotonic()
            try:
                for answer in _connect.stream(self.transport, method, message, deadline):
                    seen(answer)
                    tries.reset()
                    yield answer
                return
            except Away as error:
                if not wanted():
                    return
                if time.monotonic() - began > _LONG_LIVED:
                    tries.reset()
                tries.again(error, deadline)


_lock = threading.RLock()
_settings: dict[str, Optional[str]] = {}
_current: Optional[tuple[tuple[str, ...], Service]] = None


def configure(
    server: Optional[str] = None, token: Optional[str] = None, ca_file: Optional[str] = None, binary: Optional[str] = None
) -> None:
    """Says where Berth is, in place of the environment, for this process from now on.

    server: https://HOST:PORT (BERTH_SERVER). token: its text (BERTH_TOKEN, or the
    file of BERTH_TOKEN_FILE). ca_file: path of a PEM file (BERTH_CA_FILE). binary:
    path of the berth program (BERTH_BINARY), which is used when there is no server.
    What is None is taken from the environment.
    """
    global _current
    with _lock:
        _settings.update(server=server, token=token, ca_file=ca_file, binary=binary)
        _current = None


def service() -> Service:
    """Returns the API that the settings and the environment name."""
    global _current
    with _lock:
        address = _settings.get("server") or os.environ.get("BERTH_SERVER") or ""
        if not address:
            binary = _settings.get("binary") or ""
            if _current is None or _current[0] != ("", binary):
                _current = ("", binary), Service(_local.shared(binary or None))
            return _current[1]
        token = read_token(_settings.get("token"))
        ca_file = _settings.get("ca_file") or os.environ.get("BERTH_CA_FILE") or ""
        if _current is None or _current[0] != (address, token, ca_file):
            _current = (address, token, ca_file), Service(Server(address, token, ca_file))
        return _current[1]


def disconnect() -> None:
    """Ends the berth process of this Python process, if there is one. The next call starts another,
    with the BERTH_INFRA, BERTH_DATA and working directory of then."""
    global _current
    with _lock:
        _current = None
        _local.close()
