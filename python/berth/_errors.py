"""What goes wrong, for a person: what was tried, on what, why, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Optional

from . import _values


@dataclass(frozen=True)
class Evidence:
    """A text taken verbatim from somewhere, for a person to check."""

    source: str
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """Why something failed or does not start.

    ``cause`` is a stable code, such as ``InsufficientMemory``; ``summary`` one
    sentence with the concrete names and numbers; ``remedy`` what to do, and
    ``remedy_by`` who can do it ("you", or "the cluster's engineer").
    """

    cause: str
    summary: str
    remedy: str = ""
    remedy_by: str = ""
    evidence: tuple[Evidence, ...] = field(default=(), repr=False)
    since: Optional[datetime] = field(default=None, compare=False, repr=False)

    @classmethod
    def from_json(cls, value: Optional[dict[str, Any]]) -> Optional[Diagnosis]:
        """Reads berth.v1.Diagnosis; None for none."""
        if not value:
            return None
        return cls(
            cause=value.get("cause", ""),
            summary=value.get("summary", ""),
            remedy=value.get("remedy", ""),
            remedy_by=value.get("remedyBy", ""),
            evidence=tuple(Evidence(e.get("source", ""), e.get("text", "")) for e in value.get("evidence") or []),
            since=_values.read_time(value.get("since")),
        )

    def __str__(self) -> str:
        text = f"{self.cause}: {self.summary}" if self.summary else self.cause
        if self.remedy:
            text += f" What to do ({self.remedy_by or 'you'}): {self.remedy}"
        return text


class Error(Exception):
    """What Berth refuses, or can't do.

    ``code`` is one of invalid, not_found, conflict, unauthorized, forbidden,
    unavailable, exhausted, unsupported and internal, as in Berth's API.
    ``diagnosis`` says why a cluster would not take or did not run something; None
    where there is nothing to say beyond the message. ``cause``, ``summary`` and
    ``remedy`` are those of the diagnosis, and None without one.
    """

    def __init__(self, message: str, code: str = "internal", diagnosis: Optional[Diagnosis] = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.diagnosis = diagnosis

    def __str__(self) -> str:
        return self.message

    @property
    def cause(self) -> Optional[str]:
        return self.diagnosis.cause if self.diagnosis else None

    @property
    def summary(self) -> Optional[str]:
        return self.diagnosis.summary if self.diagnosis else None

    @property
    def remedy(self) -> Optional[str]:
        return self.diagnosis.remedy if self.diagnosis else None


class Away(Error):
    """Whoever should answer can't now: the same request may be made again.

    Internal: what is raised in the end is an Error with the code "unavailable".
    """

    def __init__(self, message: str, diagnosis: Optional[Diagnosis] = None) -> None:
        super().__init__(message, "unavailable", diagnosis)


class ClusterError(Error):
    """A compute cluster that failed, ended, or can't be used."""


class ClusterTimeout(ClusterError, TimeoutError):
    """What was waited for did not come in time; the diagnosis says what holds it up."""

    def __init__(self, message: str, diagnosis: Optional[Diagnosis] = None) -> None:
        ClusterError.__init__(self, message, "unavailable", diagnosis)


class VersionError(ClusterError):
    """The versions of Python or Dask here and in the cluster can't work together."""


class TaskError(Error):
    """A task that did not succeed; ``task`` is how it ended."""

    def __init__(self, message: str, task: Any, diagnosis: Optional[Diagnosis] = None) -> None:
        super().__init__(message, "failed", diagnosis)
        self.task = task
