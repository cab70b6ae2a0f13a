"""Values between Python and the JSON form of Berth's API (protojson)."""

from __future__ import annotations

import base64
import re
from datetime import datetime, timedelta, timezone
from typing import Any, Mapping, Optional, Union

Duration = Union[str, int, float, timedelta]
"""A time span: "20m", "1h30m", "500ms", a number of seconds, or a timedelta."""

Quantity = Union[str, int, float]
"""An amount as Kubernetes writes it: "500m" or 0.5 of a CPU, "2Gi" or a number of bytes."""

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SPAN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|us|µs|ns|[dhms])")
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]*)")


def seconds(value: Duration, what: str = "duration") -> float:
    """Returns a time span in seconds. ValueError for what is none."""
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str):
        number = _parse_span(value.strip(), what)
    else:
        raise ValueError(f"{what} {value!r}: write a text such as '20m', a number of seconds, or a timedelta")
    if not 0 <= number < 1e10:  # neither negative, nor infinite, nor not a number
        raise ValueError(f"{what} {value!r}: use 0 or more")
    return number


def _parse_span(text: str, what: str) -> float:
    if text == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(text):
        match = _SPAN.match(text, at)
        if match is None:
            break
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if at == 0 or at < len(text):
        raise ValueError(f"{what} {text!r}: write it with a unit, such as '90s', '20m' or '1h30m'")
    return total


def duration(value: Duration, what: str = "duration") -> str:
    """Returns a time span as protojson has it: "12.5s"."""
    text = f"{seconds(value, what):.9f}".rstrip("0").rstrip(".")
    return text + "s"


def quantity(value: Optional[Quantity], what: str) -> str:
    """Returns an amount as Kubernetes writes it; "" for None.

    The units of Dask, "2GiB" and "2GB", are taken too. ValueError for what is none.
    """
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    text = value.strip() if isinstance(value, str) else ""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{what} {value!r}: write an amount such as '500m' or '2' of CPUs, '512Mi' or '2Gi' of memory")
    unit = match[2]
    if len(unit) > 1 and unit.endswith("B"):
        unit = unit[:-1]
        unit = "k" if unit == "K" else unit
    return match[1] + unit


def env_list(env: Optional[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns environment variables as the API has them."""
    return [{"name": str(name), "value": str(value)} for name, value in (env or {}).items()]


def texts(values: Optional[Mapping[str, Any]]) -> dict[str, str]:
    return {str(key): str(value) for key, value in (values or {}).items()}


def user_text(user: Union[str, int, None]) -> str:
    return "" if user is None else str(user)


def read_bytes(value: Optional[str]) -> bytes:
    """Reads protojson's bytes: base64, of either alphabet, padded or not."""
    if not value:
        return b""
    text = value.replace("-", "+").replace("_", "/").rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4))


def write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")


def read_time(value: Optional[str]) -> Optional[datetime]:
    """Reads an RFC 3339 time in UTC; None for none."""
    match = _TIME.fullmatch(value or "")
    if match is None:
        return None
    whole = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return whole + timedelta(seconds=float(match[2] or 0))
