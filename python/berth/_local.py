"""No server: the store of this machine, through a `berth api` process of our own.

It listens on a socket in a directory that only this user can open, serves the API
that a server has, and ends when its stdin is closed: also when this process is
killed. One is shared by all of this process.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections import deque
from contextlib import suppress
from typing import Optional

from ._errors import Away, Error

log = logging.getLogger("berth.api")

_START_TIMEOUT = 60.0  # s; another berth command may just hand the store over
_LONGEST_PATH = 100  # bytes; a socket's path has at most 108 with the zero


class Local:
    """The API of the embedded store: infra.yml here, or that of BERTH_INFRA and BERTH_DATA."""

    host = "berth"
    prefix = ""
    token = ""
    name = "the berth process of this machine"

    def __init__(self, binary: Optional[str] = None) -> None:
        self._binary = binary
        self._lock = threading.Lock()
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._directory = ""
        self._pid = os.getpid()
        self._said: deque[str] = deque(maxlen=20)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def connect(self, timeout: float) -> socket.socket:
        path = self._ensure()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(timeout)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise Away(f"{self.name} does not answer: {error}") from None
        return sock

    def close(self) -> None:
        """Ends the process. The next connection starts another."""
        with self._lock:
            self._stop()

    def _ensure(self) -> str:
        """Returns the socket's path of a process that listens."""
        with self._lock:
            if self._pid != os.getpid():  # after a fork: the process is the parent's
                self._process, self._directory, self._pid = None, "", os.getpid()
            if self._process is None or self._process.poll() is not None:
                self._stop()
                self._start()
            return os.path.join(self._directory, "s")

    def _start(self) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise Error("on this system Berth is reached by a server alone: set BERTH_SERVER to https://HOST:PORT", "unsupported")
        binary = self._find()
        self._directory = tempfile.mkdtemp(prefix="berth-")
        if len(os.fsencode(self._directory)) > _LONGEST_PATH:  # TMPDIR may be deep
            os.rmdir(self._directory)
            self._directory = tempfile.mkdtemp(prefix="berth-", dir="/tmp")
        path = os.path.join(self._directory, "s")
        self._said.clear()
        try:
            # A session of its own: Ctrl-C here is not for it.
            self._process = process = subprocess.Popen(
                [binary, "api", "--socket", path],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
            )
        except OSError as error:
            self._stop()
            raise Error(f"cannot start {binary}: {error.strerror or error}; set BERTH_BINARY to the berth program, or BERTH_SERVER to a server", "invalid") from None
        listening = threading.Event()
        ready = threading.Event()

        def read_stdout() -> None:
            assert process.stdout is not None
            with suppress(OSError, ValueError), process.stdout:
                for line in process.stdout:
                    if line.strip() == b"ready":
                        ready.set()
                        listening.set()
            listening.set()

        listener = threading.Thread(target=read_stdout, name="berth-api-stdout", daemon=True)
        reader = threading.Thread(target=self._read_stderr, args=(process, self._said), name="berth-api-stderr", daemon=True)
        try:
            listener.start()
            reader.start()
            listening.wait(_START_TIMEOUT)
        except BaseException:  # Ctrl-C
            self._stop()
            raise
        if ready.is_set():
            return
        slow = not listening.is_set()
        self._stop()
        reader.join(1)
        why = " ".join(self._said) or "it wrote nothing"
        if slow:
            raise Error(f"{binary} api did not begin to listen within {_START_TIMEOUT:.0f} s: {why}", "unavailable")
        raise Error(f"{binary} api ended before it listened: {why}", "unavailable")

    @staticmethod
    def _read_stderr(process: subprocess.Popen[bytes], said: deque[str]) -> None:
        assert process.stderr is not None
        with suppress(OSError, ValueError), process.stderr:
            for line in process.stderr:
                text = line.decode(errors="replace").rstrip()
                said.append(text)
                log.info("%s", text)

    def _find(self) -> str:
        given = self._binary or os.environ.get("BERTH_BINARY")
        binary = shutil.which(given or "berth")
        if binary:
            return binary
        if given:
            raise Error(f"BERTH_BINARY is {given!r}, and there is no such program: set it to the path of berth", "invalid")
        raise Error(
            "there is no berth program on PATH, and no server is named: set BERTH_SERVER to https://HOST:PORT "
            "(and BERTH_TOKEN, BERTH_CA_FILE), or BERTH_BINARY to the path of the berth program",
            "invalid",
        )

    def _stop(self) -> None:
        process, directory = self._process, self._directory
        self._process, self._directory = None, ""
        if process is not None:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if directory:
            shutil.rmtree(directory, ignore_errors=True)

    def _forget(self) -> None:
        """In a child after a fork: lets go of the pipe, or the process would outlive the parent."""
        process, self._process, self._directory = self._process, None, ""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
            process.returncode = 0  # not ours to wait for


_shared: Optional[Local] = None


def shared(binary: Optional[str] = None) -> Local:
    """Returns the one of this process."""
    global _shared
    if _shared is None:
        _shared = Local(binary)
    elif binary is not None:
        _shared._binary = binary
    return _shared


def close() -> None:
    if _shared is not None:
        _shared.close()


def _after_fork() -> None:
    if _shared is not None:
        _shared._forget()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
