"""The Connect protocol (connectrpc.com) with JSON over HTTP/1.1.

Each request has a connection of its own: requests are few, and one that was kept
may have been cut while nobody looked.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from contextlib import suppress
from typing import Any, Iterator, Optional, Protocol

from ._errors import Away, Diagnosis, Error

SERVICE = "/berth.v1.BerthService/"
ANSWER_TIMEOUT = 120.0  # s; a submission asks the cluster before it is taken
_MAX_MESSAGE = 256 << 20  # bytes
_END_OF_STREAM = 0x02

_CODES = {
    "invalid_argument": "invalid",
    "not_found": "not_found",
    "failed_precondition": "conflict",
    "already_exists": "conflict",
    "unauthenticated": "unauthorized",
    "permission_denied": "forbidden",
    "unavailable": "unavailable",
    "resource_exhausted": "exhausted",
    "unimplemented": "unsupported",
}


class Transport(Protocol):
    """Where the API is."""

    host: str  # of the Host header
    prefix: str  # of all paths
    token: str  # bearer token; empty for none
    name: str  # for messages

    def connect(self, timeout: float) -> socket.socket:
        """Returns a new connection. Away while nobody listens; Error for good."""


def headers(transport: Transport) -> dict[str, str]:
    """Headers of each request: the token is in no other place."""
    out = {"Host": transport.host, "User-Agent": "berth-python/0.1", "Accept-Encoding": "identity"}
    if transport.token:
        out["Authorization"] = "Bearer " + transport.token
    return out


class _Request:
    """One request on a connection of its own, and its answer."""

    def __init__(self, transport: Transport, method: str, content_type: str, body: bytes, timeout: float) -> None:
        self.transport = transport
        self.sock = transport.connect(min(timeout, 10.0))
        self.conn = http.client.HTTPConnection("berth")
        self.conn.sock = self.sock
        self.conn.auto_open = 0
        try:
            self.sock.settimeout(timeout)
            self.conn.request(
                "POST",
                transport.prefix + SERVICE + method,
                body,
                {
                    **headers(transport),
                    "Content-Type": content_type,
                    "Connect-Protocol-Version": "1",
                },
            )
            self.response = self.conn.getresponse()
        except BaseException as error:
            self.close()
            raise away(transport, error) from None

    def close(self) -> None:
        with suppress(OSError):
            if hasattr(self, "response"):
                self.response.close()
        with suppress(OSError):
            self.sock.close()
        self.conn.close()


def away(transport: Transport, error: BaseException) -> BaseException:
    """Returns what to raise for an error of a connection under way."""
    if isinstance(error, (OSError, http.client.HTTPException, EOFError)):
        why = "it does not answer" if isinstance(error, (socket.timeout, TimeoutError)) else _one_line(error)
        return Away(f"{transport.name} went away: {why}")
    return error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def unary(
    transport: Transport, method: str, message: dict[str, Any], timeout: float = ANSWER_TIMEOUT
) -> dict[str, Any]:
    """Makes one call. Error as the server says it; Away when nobody answers."""
    request = _Request(transport, method, "application/json", json.dumps(message).encode(), timeout)
    try:
        body = _body(request)
        if request.response.status != 200:
            raise refusal(transport, request.response, body)
        _check_type(transport, request.response)
        return _decode(transport, body)
    finally:
        request.close()


def stream(
    transport: Transport, method: str, message: dict[str, Any], deadline: Optional[float] = None
) -> Iterator[dict[str, Any]]:
    """Yields the messages of a server stream until it ends.

    ``deadline`` is a time of time.monotonic(): TimeoutError when it has passed.
    """
    data = json.dumps(message).encode()
    request = _Request(
        transport,
        method,
        "application/connect+json",
        struct.pack(">BI", 0, len(data)) + data,
        min(ANSWER_TIMEOUT, _left(deadline) or ANSWER_TIMEOUT),
    )
    try:
        if request.response.status != 200:
            raise refusal(transport, request.response, _body(request))
        _check_type(transport, request.response)
        while True:
            flags, size = struct.unpack(">BI", _exactly(request, 5, deadline))
            if size > _MAX_MESSAGE:
                raise Error(f"{transport.name} sent a message of {size} bytes; at most {_MAX_MESSAGE} are read")
            content = _decode(transport, _exactly(request, size, deadline))
            if not flags & _END_OF_STREAM:
                yield content
                continue
            if content.get("error"):
                meta = {key.lower(): value for key, value in (content.get("metadata") or {}).items()}
                raise told(content["error"], bool(meta.get("berth-ending")))
            return
    finally:
        request.close()


def _left(deadline: Optional[float]) -> Optional[float]:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _exactly(request: _Request, size: int, deadline: Optional[float]) -> bytes:
    """Reads so many bytes of a stream; nothing may come for as long as it likes."""
    out = b""
    while len(out) < size:
        left = _left(deadline)
        request.sock.settimeout(left)
        try:
            part = request.response.read(size - len(out))
        except (socket.timeout, TimeoutError):
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError from None
            raise Away(f"{request.transport.name} went away: it does not answer") from None
        except BaseException as error:
            raise away(request.transport, error) from None
        if not part:
            raise Away(f"{request.transport.name} went away in the middle of an answer")
        out += part
    return out


def _body(request: _Request) -> bytes:
    out: list[bytes] = []
    size = 0
    try:
        while size < _MAX_MESSAGE:
            part = request.response.read(1 << 20)  # old Pythons make room for all that is asked for
            if not part:
                break
            out.append(part)
            size += len(part)
        if request.response.length:  # http.client tells it of whole bodies alone
            raise EOFError("its answer was cut")
        return b"".join(out)
    except BaseException as error:
        raise away(request.transport, error) from None


def _check_type(transport: Transport, response: http.client.HTTPResponse) -> None:
    if not response.headers.get("Content-Type", "").startswith("application/"):
        raise _not_berth(transport, response)


def _not_berth(transport: Transport, response: http.client.HTTPResponse) -> Error:
    kind = response.headers.get("Content-Type") or "no content type"
    return Error(
        f"{transport.name} is not a server of Berth that knows this call: it answered "
        f"{response.status} {response.reason} with {kind}; check BERTH_SERVER, and the server's version",
        "invalid",
    )


def _decode(transport: Transport, body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Error(f"{transport.name} answered what is no JSON object: is it a server of Berth?", "invalid")
    return value


def refusal(transport: Transport, response: http.client.HTTPResponse, body: bytes) -> Error:
    """Returns the error of an answer that is not the one that was asked for."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if isinstance(content, dict) and isinstance(content.get("code"), str):
        return told(content, response.headers.get("Berth-Ending") is not None)
    if response.status in (502, 503, 504):
        return Away(f"{transport.name} is away: a proxy answered {response.status} {response.reason}")
    return _not_berth(transport, response)


def told(content: dict[str, Any], ending: bool = False) -> Error:
    """Returns the Error of Connect's JSON form of one."""
    code = _CODES.get(content.get("code", ""), "internal")
    message = content.get("message") or f"the server says only {content.get('code')!r}"
    diagnosis = None
    for detail in content.get("details") or []:
        if detail.get("type") == "berth.v1.Diagnosis":
            diagnosis = Diagnosis.from_json(detail.get("debug"))
    if ending or code == "unavailable":
        return Away(message, diagnosis)
    return Error(message, code, diagnosis)
