"""What a cluster is asked to be, from Python's words to the API's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence, Union

from ._errors import Error
from ._values import Duration, Quantity, duration, env_list, quantity, texts, user_text

Count = Union[int, tuple[int, int]]
"""How many workers: a number, or (least, most), between which Dask says how many it wants."""


@dataclass(frozen=True)
class WorkerGroup:
    """Workers that are alike.

    ``count`` is a number of workers, or (least, most) for as many as Dask wants. ``cpu`` and
    ``memory`` are what each worker asks for and is limited to ("500m" or 0.5; "2Gi" or
    bytes), ``gpu`` a number of GPUs. ``image`` is that of the cluster when it is None.
    """

    name: str = ""
    count: Count = 1
    cpu: Optional[Quantity] = None
    memory: Optional[Quantity] = None
    gpu: int = 0
    ephemeral_storage: Optional[Quantity] = None
    image: Optional[str] = None
    env: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may hold what is nobody's business
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns berth.v1.ClusterGroup. ValueError for what can't be."""
        what = f"worker group {self.name}: " if self.name else "worker "
        least, most = bounds(self.count, what)
        out: dict[str, Any] = {"name": self.name, "min": least, "max": most} if most else {"name": self.name, "count": least}
        out.update(
            image=self.image or "",
            cpu=quantity(self.cpu, what + "cpu"),
            memory=quantity(self.memory, what + "memory"),
            gpu=self.gpu,
            ephemeralStorage=quantity(self.ephemeral_storage, what + "ephemeral_storage"),
            env=env_list(self.env),
            labels=texts(self.labels),
        )
        return out


def bounds(count: Count, what: str = "") -> tuple[int, int]:
    """Returns (number, 0), or (least, most) where Dask says how many."""
    if isinstance(count, (tuple, list)) and len(count) == 2 and all(_whole(n) for n in count):
        least, most = count
        if not 0 <= least <= most or most == 0:
            raise ValueError(f"{what}from {least} to {most} workers: write (least, most), and at least 1 for the most")
        return least, most
    if not _whole(count):
        raise ValueError(f"{what}{count!r} workers: write a number, or (least, most)")
    assert isinstance(count, int)
    if count < 0:
        raise ValueError(f"{what}{count} workers: there can't be fewer than 0")
    return count, 0


def _whole(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool)


def cluster_spec(
    *,
    name: Optional[str],
    image: Optional[str],
    on: Optional[str],
    groups: Sequence[WorkerGroup],
    head_cpu: Optional[Quantity],
    head_memory: Optional[Quantity],
    env: Optional[Mapping[str, Any]],
    labels: Optional[Mapping[str, str]],
    user: Union[str, int, None],
    pull: str,
    idle_timeout: Optional[Duration],
    no_client_timeout: Optional[Duration],
    max_lifetime: Optional[Duration],
    drain_timeout: Optional[Duration],
) -> dict[str, Any]:
    """Returns berth.v1.ClusterSpec. Error with the code "invalid" for what can't be; the server checks the rest."""
    try:
        spec = {
            "name": name or "",
            "engine": "dask",
            "infrastructure": on or "",
            "image": image or "",
            "user": user_text(user),
            "pull": pull,
            "env": env_list(env),
            "labels": texts(labels),
            "head": {"cpu": quantity(head_cpu, "head_cpu"), "memory": quantity(head_memory, "head_memory")},
            "workers": [group.to_json() for group in groups],
            "idleTimeout": duration(idle_timeout or 0, "idle_timeout"),
            "noClientTimeout": duration(no_client_timeout or 0, "no_client_timeout"),
            "maxLifetime": duration(max_lifetime or 0, "max_lifetime"),
        }
        if drain_timeout is not None:
            spec["drainTimeout"] = duration(drain_timeout, "drain_timeout")
        return spec
    except ValueError as error:
        raise Error(str(error), "invalid") from None
