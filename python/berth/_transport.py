"""Where the API is: a server by TLS, as the environment names it for the berth command too."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import urllib.parse
import urllib.request
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Optional

from ._errors import Away, Error


def read_token(token: Optional[str] = None) -> str:
    """Returns the token of BERTH_TOKEN, or of the file of BERTH_TOKEN_FILE; empty for none."""
    token = token or os.environ.get("BERTH_TOKEN")
    if token:
        return token.strip()
    path = os.environ.get("BERTH_TOKEN_FILE")
    if not path:
        return ""  # the server says that one is needed, and how to get it
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Error(f"cannot read the token (BERTH_TOKEN_FILE): {error}", "invalid") from None
    if not token:
        raise Error(f"the file {path} of BERTH_TOKEN_FILE is empty", "invalid")
    return token


class Server:
    """A server at https://HOST:PORT, or http:// on this machine."""

    def __init__(self, address: str, token: str = "", ca_file: Optional[str] = None) -> None:
        try:
            url = urllib.parse.urlsplit(address)
            port = url.port
        except ValueError:
            raise Error(f"server address {address!r}: write https://HOST:PORT", "invalid") from None
        if url.username is not None or url.query or url.fragment:
            raise Error("the server's address has more than https://HOST:PORT: the token is given apart, by BERTH_TOKEN", "invalid")
        if url.scheme == "unix":
            raise Error(f"server address {address!r}: for a data directory of this machine leave BERTH_SERVER out and set BERTH_DATA", "invalid")
        if url.scheme not in ("https", "http") or not url.hostname:
            raise Error(f"server address {address!r}: write https://HOST:PORT", "invalid")
        loopback = url.hostname in ("localhost", "::1") or url.hostname.startswith("127.")
        if url.scheme == "http" and not loopback:
            raise Error(f"server address {address!r}: use https://; over http:// the token could be read by others", "invalid")
        if any(c in token for c in "\r\n"):
            raise Error("the token has more than one line: see BERTH_TOKEN or BERTH_TOKEN_FILE", "invalid")
        self.address = (url.hostname, port or (443 if url.scheme == "https" else 80))
        self.host = url.netloc
        self.prefix = url.path.rstrip("/")
        self.token = token
        self.name = f"the server {url.scheme}://{url.netloc}"
        self.context = _context(ca_file) if url.scheme == "https" else None
        self.proxy = None if loopback else _proxy(url.hostname)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def connect(self, timeout: float) -> socket.socket:
        try:
            sock = self._connect(timeout)
        except (ssl.SSLError, ssl.CertificateError) as error:
            raise _tls_error(self.name, error) from None
        except (OSError, HTTPException) as error:
            raise Away(f"{self.name} can't be reached: {' '.join(str(error).split()) or type(error).__name__}") from None
        _keep_alive(sock)
        return sock

    def _connect(self, timeout: float) -> socket.socket:
        conn: HTTPConnection
        if self.context is None:
            conn = HTTPConnection(*self.address, timeout=timeout)
        elif self.proxy is None:
            conn = HTTPSConnection(*self.address, timeout=timeout, context=self.context)
        else:
            host, port, headers = self.proxy
            conn = HTTPSConnection(host, port, timeout=timeout, context=self.context)
            conn.set_tunnel(*self.address, headers=headers)
        try:
            conn.connect()
        except BaseException:
            conn.close()
            raise
        assert conn.sock is not None
        return conn.sock


def _context(ca_file: Optional[str]) -> ssl.SSLContext:
    """TLS 1.2 or later, and certificates are always verified."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError:
        raise Error(f"the CA file {ca_file} holds no PEM certificate", "invalid") from None
    except OSError as error:
        raise Error(f"cannot read the CA file: {error}", "invalid") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])  # later ones upgrade nothing
    return context


def _proxy(host: str) -> Optional[tuple[str, int, dict[str, str]]]:
    """Returns host, port and headers of the proxy of HTTPS_PROXY, unless NO_PROXY has the host."""
    address = urllib.request.getproxies().get("https")
    if not address or urllib.request.proxy_bypass(host):
        return None
    url = urllib.parse.urlsplit(address if "://" in address else "http://" + address)
    if url.scheme != "http" or not url.hostname:
        raise Error("HTTPS_PROXY: write http://HOST:PORT; other kinds of proxies are not known here", "unsupported")
    headers = {}
    if url.username is not None:
        pair = urllib.parse.unquote(url.username) + ":" + urllib.parse.unquote(url.password or "")
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return url.hostname, url.port or 80, headers


def _tls_error(name: str, error: Exception) -> Error:
    """Returns what no second try will change; and Away for what may be a server that just ends."""
    text = " ".join(str(error).split())
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (62, 63, 64):
            return Error(
                f"the certificate of {name} is for another name: use one of its names, or start the server "
                f"with --advertise and this one: {error.verify_message}",
                "unavailable",
            )
        if error.verify_code in (9, 10):
            return Error(f"the certificate of {name} isn't good: {error.verify_message}; is this machine's clock right?", "unavailable")
        return Error(
            f"the certificate of {name} is signed by a CA that isn't known here: name its CA with BERTH_CA_FILE "
            f"(the server keeps a generated one as ca.pem in its data directory): {error.verify_message}",
            "unavailable",
        )
    reason = getattr(error, "reason", "") or ""
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"):
        return Error(f"{name} is not a server of Berth: it doesn't speak TLS; check BERTH_SERVER", "invalid")
    return Away(f"{name} can't be reached by TLS: {text}")


def _keep_alive(sock: socket.socket) -> None:
    """Has a connection end within a minute whose other end is gone without a word, as after a sleep."""
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in {"TCP_KEEPIDLE": 15, "TCP_KEEPALIVE": 15, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 45_000}.items():
        if hasattr(socket, option):
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
