"""How a cluster stands, as Berth tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Optional

from ._errors import Diagnosis
from ._values import read_time


_REASON = 200  # characters of a reason that are shown while it is waited: what others said may be long


@dataclass(frozen=True)
class GroupInfo:
    """How the workers of a group stand: numbers of workers, by what they do."""

    name: str
    wanted: int = 0
    ready: int = 0  # the head knows them
    waiting: int = 0  # they don't run yet, or the head does not know them yet
    draining: int = 0  # what they hold is moved to others, and then they end
    lost: dict[str, int] = field(default_factory=dict)  # how many were replaced, by cause
    diagnosis: Optional[Diagnosis] = None
    versions: dict[str, str] = field(default_factory=dict)  # of its first worker


@dataclass(frozen=True)
class ClusterInfo:
    """A compute cluster. ``state`` is starting, running, stopping, stopped or failed."""

    id: str
    name: str
    state: str
    infrastructure: str = ""
    image: str = ""
    owner: str = ""
    reason: Optional[str] = None  # why it ended or ends, or what it waits for
    diagnosis: Optional[Diagnosis] = None  # of the head, or of a cluster that failed
    created_at: Optional[datetime] = None
    started_at: Optional[datetime] = None
    finished_at: Optional[datetime] = None
    head_task: Optional[str] = None  # its id
    head_state: Optional[str] = None
    head_versions: dict[str, str] = field(default_factory=dict)
    groups: tuple[GroupInfo, ...] = ()
    clients: Optional[int] = None  # that are connected; None where the head did not tell
    idle_since: Optional[datetime] = None
    ends_at: Optional[datetime] = None  # when it ends by itself if nothing changes
    warnings: tuple[str, ...] = ()
    least: dict[str, int] = field(default_factory=dict)  # by group: how many workers were asked for at least

    @classmethod
    def from_json(cls, c: dict[str, Any]) -> ClusterInfo:
        """Reads berth.v1.Cluster."""
        head, spec = c.get("head") or {}, c.get("spec") or {}
        return cls(
            id=c.get("id", ""),
            name=c.get("name", ""),
            state=c.get("state", ""),
            infrastructure=c.get("infrastructure", ""),
            image=spec.get("image", ""),
            owner=c.get("owner", ""),
            reason=c.get("reason"),
            diagnosis=Diagnosis.from_json(c.get("diagnosis")),
            created_at=read_time(c.get("createdAt")),
            started_at=read_time(c.get("startedAt")),
            finished_at=read_time(c.get("finishedAt")),
            head_task=head.get("task"),
            head_state=head.get("state"),
            head_versions=dict(head.get("versions") or {}),
            groups=tuple(
                GroupInfo(
                    name=g.get("name", ""),
                    wanted=g.get("wanted", 0),
                    ready=g.get("ready", 0),
                    waiting=g.get("waiting", 0),
                    draining=g.get("draining", 0),
                    lost=dict(g.get("lost") or {}),
                    diagnosis=Diagnosis.from_json(g.get("diagnosis")),
                    versions=dict(g.get("versions") or {}),
                )
                for g in c.get("groups") or []
            ),
            clients=c.get("clients"),
            idle_since=read_time(c.get("idleSince")),
            ends_at=read_time(c.get("endsAt")),
            warnings=tuple(c.get("warnings") or []),
            least={
                g.get("name", ""): g.get("min", 0) if g.get("max", 0) else g.get("count", 0)
                for g in spec.get("workers") or []
            },
        )

    @property
    def ended(self) -> bool:
        """Whether it has ended, with all that it had."""
        return self.state in ("stopped", "failed")

    @property
    def ending(self) -> bool:
        """Whether it can't be used any more."""
        return self.ended or self.state == "stopping"

    @property
    def ready(self) -> int:
        return sum(g.ready for g in self.groups)

    @property
    def wanted(self) -> int:
        return sum(g.wanted for g in self.groups)

    def group(self, name: str = "") -> Optional[GroupInfo]:
        """Returns a group by its name; the only one for none."""
        if not name and len(self.groups) == 1:
            return self.groups[0]
        return next((g for g in self.groups if g.name == name), None)

    def stalled(self) -> Optional[Diagnosis]:
        """Returns what holds the cluster up: of the head, or of the first group that lacks workers."""
        if self.diagnosis is not None:
            return self.diagnosis
        return next((g.diagnosis for g in self.groups if g.diagnosis is not None and g.ready < g.wanted), None)

    def given_up(self, group: str) -> bool:
        """Whether no more workers of a group are made, as several in a row ended before they were ready."""
        return any("in a row ended before they were ready" in w and f" of group {group} " in w for w in self.warnings)

    def lines(self) -> list[str]:
        """Returns what a person who waits should know, a line each."""
        out = []
        if self.ending:
            return [f"it is {self.state}: {self.diagnosis or self.reason or 'nobody said why'}"]
        if self.diagnosis is not None:
            out.append(f"its head: {self.diagnosis}")
        elif self.reason:
            out.append(self.reason if len(self.reason) <= _REASON else self.reason[:_REASON] + "...")
        for g in self.groups:
            if g.diagnosis is not None and g.ready < g.wanted:
                what = "workers" if len(self.groups) == 1 else f"workers of group {g.name}"
                out.append(f"{g.ready} of {g.wanted} {what}: {g.diagnosis}")
        return out + list(self.warnings)
