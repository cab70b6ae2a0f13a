"""A Dask cluster on a namespace, as an object that Dask's Client takes."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from contextlib import suppress
from html import escape
from typing import Any, Callable, Generator, Iterator, Mapping, Optional, Sequence, Union

from . import _dask, _html
from ._errors import ClusterError, ClusterTimeout, Error
from ._info import ClusterInfo
from ._say import say
from ._service import Service, new_key, service
from ._spec import Count, WorkerGroup, bounds, cluster_spec
from ._task import Task
from ._tunnel import Tunnel
from ._values import Duration, Quantity, seconds

_END_TIMEOUT = 60.0  # s that the end of a cluster is waited for where no server sees to it
_ENDING_TIMEOUT = 5.0  # s that it is waited for that a server begins with it
_EXIT_PATIENCE = 5.0  # s with a server that is away while Python ends


class Cluster:
    """A Dask cluster: a head (scheduler) and groups of workers, in containers on a namespace.

    ::

        with berth.Cluster(name="analysis", n_workers=4, image="registry/dask:1", worker_memory="2Gi") as cluster:
            with cluster.get_client() as client:
                ...

    A cluster of that name that has not ended is used as it is; otherwise one is made.
    ``dask.distributed.Client(cluster)`` works as well as ``get_client()``.

    Parameters
    ----------
    name
        Unique among the caller's clusters that have not ended; one is made up when it is None.
    n_workers
        How many workers (default 1), or (least, most), between which Dask says how many it wants.
    image
        An image with Python and dask.distributed of the versions here; default: BERTH_DASK_IMAGE.
        ``software`` is another name for it.
    on
        The infrastructure, as in infra.yml; default: the only one, or the default one.
    worker_cpu, worker_memory, worker_gpu
        What each worker asks for and is limited to: "500m" or 0.5, "2Gi" or bytes. A worker has as
        many threads as whole CPUs.
    head_cpu, head_memory
        The same for the head.
    groups
        Several groups of workers, in place of n_workers and worker_*.
    env, labels
        Of head and workers.
    idle_timeout, no_client_timeout, max_lifetime
        After how long the cluster ends by itself: that nothing is computed, that no client is
        connected, at all. "20m", seconds or a timedelta; None: never. Default: 20 minutes idle.
    drain_timeout
        How long a worker that is too many may take to finish and hand over; None: the server's default.
    user
        UID or UID:GID to run as.
    pull
        When nodes pull the image: "missing", "always" or "never".
    wait, timeout
        Wait until the head answers and the workers are ready (for as many as are asked for, the least of an
        adaptive group), and for how long (default 10 minutes; None: for ever). What holds them up is written
        to stderr. When the time is over and some worker is ready, it is gone on with.
    shutdown_on_close
        Whether close() ends the cluster; default: if this object made it. The same happens when Python ends.
    check_versions
        Compare the versions of Python, dask and distributed here with the cluster's before a client gets it:
        True raises VersionError where they can't work together, "warn" warns, False doesn't look.
    asynchronous
        For use in coroutines: ``async with``, and methods return awaitables.

    Raises ClusterError, with a ``diagnosis`` where there is one, when the cluster is refused, fails or ends.
    """

    def __init__(
        self,
        name: Optional[str] = None,
        n_workers: Optional[Count] = None,
        image: Optional[str] = None,
        *,
        software: Optional[str] = None,
        on: Optional[str] = None,
        worker_cpu: Optional[Quantity] = None,
        worker_memory: Optional[Quantity] = None,
        worker_gpu: Optional[int] = None,
        head_cpu: Optional[Quantity] = None,
        head_memory: Optional[Quantity] = None,
        groups: Optional[Sequence[WorkerGroup]] = None,
        env: Optional[Mapping[str, Any]] = None,
        labels: Optional[Mapping[str, str]] = None,
        idle_timeout: Optional[Duration] = "20m",
        no_client_timeout: Optional[Duration] = None,
        max_lifetime: Optional[Duration] = None,
        drain_timeout: Optional[Duration] = None,
        user: Union[str, int, None] = None,
        pull: str = "",
        wait: bool = True,
        timeout: Optional[Duration] = "10m",
        shutdown_on_close: Optional[bool] = None,
        check_versions: _dask.CheckVersions = True,
        asynchronous: bool = False,
    ) -> None:
        if image is not None and software is not None:
            raise ClusterError("image and software are the same thing: give one of them", "invalid")
        self._setup(wait, timeout, shutdown_on_close, check_versions, asynchronous)
        self._attach = False
        one = {"n_workers": n_workers, "worker_cpu": worker_cpu, "worker_memory": worker_memory, "worker_gpu": worker_gpu}
        if groups is None:
            groups = [WorkerGroup("", 1 if n_workers is None else n_workers, worker_cpu, worker_memory, worker_gpu or 0)]
        elif any(value is not None for value in one.values()):
            given = ", ".join(key for key, value in one.items() if value is not None)
            raise ClusterError(f"groups say how many workers there are, and of which size: leave {given} out", "invalid")
        with _as_cluster_error():
            self._spec = cluster_spec(
                name=name, image=image or software or os.environ.get("BERTH_DASK_IMAGE"), on=on, groups=groups,
                head_cpu=head_cpu, head_memory=head_memory, env=env, labels=labels, user=user, pull=pull,
                idle_timeout=idle_timeout, no_client_timeout=no_client_timeout, max_lifetime=max_lifetime, drain_timeout=drain_timeout,
            )  # fmt: skip
        self._name = name or ""
        if not asynchronous:
            self._open()

    @classmethod
    def connect(
        cls,
        name: str,
        *,
        wait: bool = True,
        timeout: Optional[Duration] = "10m",
        shutdown_on_close: bool = False,
        check_versions: _dask.CheckVersions = True,
        asynchronous: bool = False,
    ) -> Cluster:
        """Returns a cluster that there is, by its name or id. close() leaves it as it is.

        Waits until its head answers. ClusterError (not_found, conflict) where there is none, or it has ended.
        """
        cluster = cls.__new__(cls)
        cluster._setup(wait, timeout, shutdown_on_close, check_versions, asynchronous)
        cluster._attach, cluster._name, cluster._spec = True, name, {}
        if not asynchronous:
            cluster._open()
        return cluster

    def _setup(
        self, wait: bool, timeout: Optional[Duration], shutdown: Optional[bool], check: _dask.CheckVersions, asynchronous: bool
    ) -> None:
        if check not in (True, False, "warn"):
            raise ClusterError(f'check_versions={check!r}: write True, "warn" or False', "invalid")
        try:
            self._timeout = None if timeout is None else seconds(timeout, "timeout")
        except ValueError as error:
            raise ClusterError(str(error), "invalid") from None
        self._wait, self._shutdown, self._check, self.asynchronous = wait, shutdown, check, asynchronous
        self._service: Service = service()
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._info: Optional[ClusterInfo] = None
        self._created = False
        self._closing = self._closed = False
        self._settled = False  # whether what close() does to the cluster is done
        self._security: Any = None
        self._tunnels: dict[str, Tunnel] = {}
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()
        self._checked: Any = None
        self._told_refused = False

    # ---- start

    def _open(self) -> None:
        """Makes or finds the cluster, and waits for it where that was asked for."""
        deadline = self._deadline(self._timeout)
        self._begin(deadline)
        if not self._wait:
            return
        try:
            self._wait_started(deadline)
            self._connect_head(deadline)
        except BaseException as error:  # Ctrl-C too: nobody would have the object to close
            with suppress(Error):
                self._close(None, patience=_EXIT_PATIENCE)
            if isinstance(error, Error) and not isinstance(error, ClusterError):
                raise ClusterError(error.message, error.code, error.diagnosis) from None
            raise

    @staticmethod
    def _deadline(timeout: Optional[float]) -> Optional[float]:
        return None if timeout is None else time.monotonic() + timeout

    def _begin(self, deadline: Optional[float] = None) -> ClusterInfo:
        with self._lock, _as_cluster_error():
            if self._info is None:
                self._info = self._find() if self._attach else self._create(deadline)
                _open_clusters.add(self)
            return self._info

    def _find(self) -> ClusterInfo:
        info = self._get(self._name)
        if info.ending:
            raise ClusterError(f"cluster {self._name} has ended, it is {info.state}: {info.diagnosis or info.reason or 'nobody said why'}", "conflict", info.diagnosis)
        return info

    def _create(self, deadline: Optional[float]) -> ClusterInfo:
        if not self._spec["image"]:
            if self._name:
                with suppress(Error):
                    info = self._get(self._name)
                    if not info.ending:
                        return self._reused(info)
            raise ClusterError("no image was given: write image='REGISTRY/NAME:TAG' of an image with dask.distributed, or set BERTH_DASK_IMAGE", "invalid")
        for last in (False, False, True):
            try:
                # Not reused at first: so it is known whose it is to end.
                info = self._submit(reuse=False)
                self._created = True
                return info
            except Error as error:
                if error.code != "conflict" or not self._name:
                    raise
                refused = error
            try:
                info = self._submit(reuse=True)
            except Error as error:  # one that ends is not used again
                if error.code != "conflict":
                    raise
                info = self._get(self._name)
                if not info.ending or last:
                    raise refused from None
            if not info.ending:
                return self._reused(info)
            if not info.ended:
                say(f"the cluster {self._name} that there is ends just now; another is made when it has ended")
                self._watch(info, lambda i: i.ended, "the end of the one before", deadline, ending=True)
        raise refused

    def _submit(self, reuse: bool) -> ClusterInfo:
        answer = self._service.call("CreateCluster", {"key": new_key(), "spec": self._spec, "reuse": reuse})
        return ClusterInfo.from_json(answer.get("cluster") or {})

    def _reused(self, info: ClusterInfo) -> ClusterInfo:
        say(f"using the cluster {info.name} that there is ({info.ready} of {info.wanted} workers), as it is; it is left when this is closed")
        return info

    def _get(self, name: str, **how: Any) -> ClusterInfo:
        answer = self._service.call("GetCluster", {"id": name}, **how)
        return ClusterInfo.from_json(answer.get("cluster") or {})

    def _wait_started(self, deadline: Optional[float]) -> None:
        """Waits for head and workers. What some workers lack is no reason not to use those that there are."""
        info = self._begin()

        def ready(i: ClusterInfo) -> bool:
            if i.state != "running":
                return False
            if self._attach:
                return True
            waiting = [g for g in i.groups if g.ready < i.least.get(g.name, g.wanted)]
            if waiting and all(i.given_up(g.name) for g in waiting):
                if i.ready == 0:
                    raise ClusterError(f"no worker of cluster {i.name} starts: {'; '.join(i.lines())}", "conflict", i.stalled())
                return True
            return not waiting

        try:
            info = self._watch(info, ready, "its start", deadline)
        except ClusterTimeout:
            current = self._info
            if current is None or current.state != "running" or current.ready == 0:
                raise
            info = current
        if info.ready < sum(info.least.values()) and not self._attach:
            say(f"cluster {info.name}: going on with {info.ready} of {info.wanted} workers; others join when they are ready")

    def _watch(
        self, info: ClusterInfo, until: Callable[[ClusterInfo], bool], what: str, deadline: Optional[float], ending: bool = False
    ) -> ClusterInfo:
        """Returns the cluster once it is as it should be, and tells meanwhile what holds it up."""
        said: set[str] = set()
        began = time.monotonic()
        try:
            for answer in self._service.stream("WatchCluster", {"id": info.id}, deadline):
                info = ClusterInfo.from_json(answer.get("cluster") or {})
                if not ending:
                    self._info = info
                if until(info):
                    return info
                if ending:
                    continue
                if info.ending:
                    break
                for line in info.lines():
                    if line not in said:
                        said.add(line)
                        say(f"cluster {info.name}: {line}")
        except TimeoutError:
            why = info.stalled()
            text = f"cluster {info.name}: waited {time.monotonic() - began:.0f} s for {what}; it is {info.state}, {info.ready} of {info.wanted} workers are ready"
            raise ClusterTimeout(f"{text}: {why or info.reason}" if why or info.reason else text, why) from None
        if info.ending and not ending:
            why_ended = info.diagnosis or info.stalled()
            raise ClusterError(f"cluster {info.name} is {info.state}: {why_ended or info.reason or 'nobody said why'}", "conflict", why_ended)
        return info

    def _connect_head(self, deadline: Optional[float] = None) -> None:
        """Gets all that a client needs, once."""
        with self._lock:
            info = self._begin(deadline)
            self._usable()
            if self._security is None:
                if info.state != "running":
                    info = self._watch(info, lambda i: i.state == "running", "its head", deadline or self._deadline(self._timeout))
                _dask.distributed(info.head_versions)
                access = self._service.call("GetClusterAccess", {"id": info.id})
                self._security = _dask.security(access.get("ca", ""), access.get("certificate", ""), access.get("key", ""))
            self._tunnel("scheduler")

    def _check_versions(self) -> None:
        info = self._info
        if info is None:
            return
        versions = info.head_versions, [g.versions for g in info.groups]
        if versions != self._checked:
            _dask.check(info, self._check)
            self._checked = versions

    def _usable(self) -> None:
        if self._closing:
            raise ClusterError(f"cluster {self.name} was closed here; berth.Cluster.connect({self.name!r}) opens one that still runs", "conflict")

    def _tunnel(self, port: str) -> Tunnel:
        with self._lock:
            self._usable()
            if port not in self._tunnels:
                self._tunnels[port] = Tunnel(self._service.transport, self._begin().id, port, self._on_refused)
            return self._tunnels[port]

    def _on_refused(self, error: Error) -> None:
        """A connection never will come through: most often the cluster has ended meanwhile."""
        if self._closing:
            return
        with suppress(Error):
            self._info = self._get(self._begin().id, patience=0.0)
        if not self._told_refused:
            self._told_refused = True
            lines = self._info.lines() if self._info is not None and self._info.ending else [str(error)]
            say(f"cluster {self.name}: {'; '.join(lines)}")

    # ---- what Dask's Client looks at

    @property
    def scheduler_address(self) -> str:
        """tls://127.0.0.1:PORT, which leads to the head. Waits for it where that was not done yet.

        VersionError where versions here and there can't work together.
        """
        if self.asynchronous and self._security is None:
            raise ClusterError("await the cluster before it is used: cluster = await berth.Cluster(..., asynchronous=True)", "conflict")
        if self._security is None or self._closing:
            self._connect_head()
        self._check_versions()
        return f"tls://127.0.0.1:{self._tunnel('scheduler').port}"

    @property
    def security(self) -> Any:
        """The key pair of the cluster, as a distributed.Security."""
        if self._security is None:
            if self.asynchronous:
                raise ClusterError("await the cluster before it is used", "conflict")
            self._connect_head()
        return self._security

    @property
    def status(self) -> Any:
        """Dask's Status of it; ``state`` is Berth's."""
        info = self._info
        ended = info is not None and info.ending
        return _dask.status(self._closed or ended, self._closing, info is not None and info.state == "running")

    @property
    def dashboard_link(self) -> str:
        """http://127.0.0.1:PORT/ID/status: Dask's dashboard, for whoever is on this machine. Empty when it is closed."""
        if self._info is None or self._closing or self._info.ending:
            return ""
        return f"http://127.0.0.1:{self._tunnel('dashboard').port}/{self._info.id}/status"

    def __await__(self) -> Generator[Any, Any, Cluster]:
        async def start() -> Cluster:
            if self._security is None:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(None, self._open if self.asynchronous and self._info is None else self._connect_head)
            return self

        return start().__await__()

    # ---- what people use

    @property
    def id(self) -> str:
        return self._info.id if self._info is not None else ""

    @property
    def name(self) -> str:
        return (self._info.name if self._info is not None else "") or self._name

    @property
    def state(self) -> str:
        """starting, running, stopping, stopped or failed, as of the last time that Berth was asked."""
        return self._info.state if self._info is not None else "starting"

    @property
    def info(self) -> Optional[ClusterInfo]:
        """How it stood when Berth was asked last; refresh() asks."""
        return self._info

    def refresh(self) -> Any:
        """Asks how the cluster stands, and returns that as a ClusterInfo."""

        def ask() -> ClusterInfo:
            self._info = self._get(self._begin().id)
            return self._info

        return self._run(ask)

    def get_client(self, **options: Any) -> Any:
        """Returns a distributed.Client of this cluster; options are the Client's own.

        It is closed with the cluster, if not before.
        """
        if not self.asynchronous:
            self._connect_head()
        module = _dask.distributed(self._info.head_versions if self._info is not None else None)
        if self.asynchronous:
            options.setdefault("asynchronous", True)
        client = module.Client(self, **options)
        self._clients.add(client)
        return client

    def scale(self, n: int, group: str = "") -> Any:
        """Says how many workers there are from now on, in a group, or the only one.

        Workers that are too many finish what they compute and hand over what they hold. Doesn't
        wait: see wait_for_workers.
        """
        try:
            least, most = bounds(n)
        except ValueError as error:
            raise ClusterError(str(error), "invalid") from None
        if most:
            return self.adapt(least, most, group)
        return self._run(self._scale, {"group": group, "count": n})

    def adapt(self, minimum: int = 0, maximum: Optional[int] = None, group: str = "") -> Any:
        """Has as many workers as Dask wants, from minimum to maximum, in a group, or the only one."""
        if maximum is None:
            raise ClusterError("adapt needs the most workers that there may be: cluster.adapt(minimum=0, maximum=10)", "invalid")
        try:
            least, most = bounds((minimum, maximum))
        except ValueError as error:
            raise ClusterError(str(error), "invalid") from None
        return self._run(self._scale, {"group": group, "adaptive": True, "min": least, "max": most})

    def _scale(self, message: dict[str, Any]) -> None:
        with _as_cluster_error():
            answer = self._service.call("ScaleCluster", {"id": self._begin().id, **message})
            self._info = ClusterInfo.from_json(answer.get("cluster") or {})

    def wait_for_workers(self, n_workers: Optional[int] = None, timeout: Optional[Duration] = None, group: str = "") -> Any:
        """Waits until so many workers are ready, of all groups or of one; by default all that are wanted.

        What holds them up is written to stderr. ClusterTimeout, with the diagnosis, when the time is over;
        ClusterError when the cluster ends, or no more workers are made as too many failed.
        """
        try:
            limit = None if timeout is None else seconds(timeout, "timeout")
        except ValueError as error:
            raise ClusterError(str(error), "invalid") from None
        return self._run(self._wait_for_workers, n_workers, limit, group)

    def _wait_for_workers(self, n_workers: Optional[int], limit: Optional[float], name: str) -> None:
        def enough(i: ClusterInfo) -> bool:
            if name and i.group(name) is None:
                raise ClusterError(f"cluster {i.name} has no group {name}; there are {', '.join(g.name for g in i.groups)}", "invalid")
            groups = [g for g in i.groups if not name or g.name == name]
            ready = sum(g.ready for g in groups)
            lacking = [g for g in groups if g.ready < g.wanted]
            if i.state == "running" and (not lacking if n_workers is None else ready >= n_workers):
                return True
            if lacking and all(i.given_up(g.name) for g in lacking):
                raise ClusterError(f"cluster {i.name} gets no more workers: {'; '.join(i.lines())}", "conflict", i.stalled())
            return False

        with _as_cluster_error():
            what = "its workers" if n_workers is None else f"{n_workers} worker{'s' if n_workers != 1 else ''}"
            self._watch(self._begin(), enough, what + (f" of group {name}" if name else ""), self._deadline(limit))

    def logs(self, tail: int = 0) -> Any:
        """Returns what the head wrote; ``tail`` is a number of lines, 0 for all."""

        def read() -> str:
            info = self._get(self._begin().id)
            return Task(self._service, {"id": info.head_task}).logs(tail=tail) if info.head_task else ""

        return self._run(read)

    def close(self, shutdown: Optional[bool] = None) -> Any:
        """Closes clients of get_client() and the connections, and ends the cluster: if this object made it,
        unless ``shutdown_on_close`` or ``shutdown`` say otherwise. May be called again."""
        try:
            loop: Optional[asyncio.AbstractEventLoop] = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        # Client.shutdown() awaits this on its own loop, in a thread that is not the main one. In a notebook
        # the main thread has a loop too, and there the caller does not wait for a coroutine.
        if loop is not None and (self.asynchronous or threading.current_thread() is not threading.main_thread()):
            return loop.run_in_executor(None, self._close, shutdown)
        for client in list(self._clients):
            with suppress(Exception):
                client.close()
        self._close(shutdown)
        return None

    def _close(self, shutdown: Optional[bool], patience: Optional[float] = None) -> None:
        with self._lock:
            self._closing = True
            if shutdown is None:
                shutdown = not self._settled and (self._created if self._shutdown is None else self._shutdown)
            try:
                if shutdown and self._info is not None and not self._info.ended:
                    with _as_cluster_error():
                        self._delete(self._info, patience)
                self._settled = True
                _open_clusters.discard(self)  # one whose end was cut off is tried again when Python ends
            finally:
                for tunnel in self._tunnels.values():
                    tunnel.close()
                self._closed = True

    def _delete(self, info: ClusterInfo, patience: Optional[float]) -> None:
        try:
            answer = self._service.call("DeleteCluster", {"id": info.id}, patience)
        except Error as error:
            if error.code == "not_found":
                return
            raise
        self._info = ClusterInfo.from_json(answer.get("cluster") or {})
        # The wish is stored, and nothing may have been done yet: whoever asks for the same name just now
        # would get this one. And without a server nobody ends its pods once our berth process has ended.
        local = self._service.local
        deadline = self._deadline(_END_TIMEOUT if local else _ENDING_TIMEOUT)
        try:
            self._info = self._watch(info, lambda i: i.ended or (i.ending and not local), "its end", deadline, ending=True)
        except ClusterTimeout:
            if local:
                say(f"cluster {info.name} is still being ended; any berth command goes on with that")

    def _run(self, work: Callable[..., Any], *args: Any) -> Any:
        """Does some work; in a thread, for an asynchronous cluster."""
        if self.asynchronous:
            return asyncio.get_running_loop().run_in_executor(None, work, *args)
        return work(*args)

    def __enter__(self) -> Cluster:
        if self.asynchronous:
            raise ClusterError("this cluster is asynchronous: use async with", "invalid")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Cluster:
        return await self

    async def __aexit__(self, *_: object) -> None:
        for client in list(self._clients):
            with suppress(Exception):
                await client.close()
        await asyncio.get_running_loop().run_in_executor(None, self._close, None)

    def __repr__(self) -> str:
        info = self._info
        if info is None:
            return f"<berth.Cluster {self._name!r}: not started>"
        text = f"<berth.Cluster {info.name!r} ({info.id}): {'closed here, ' if self._closing else ''}{info.state}"
        if not info.ending:
            text += f", {info.ready} of {info.wanted} workers"
        why = info.stalled()
        return text + (f", {why.cause}>" if why is not None else ">")

    def _repr_html_(self) -> str:
        stale = ""
        if not self.asynchronous and self._info is not None and not self._closed:
            try:
                self._info = self._get(self._info.id, patience=0.0, timeout=3.0)
            except Error as error:
                stale = str(error)
        if self._info is None:
            return f"<pre>{escape(repr(self))}</pre>"
        return _html.cluster(self._info, self.dashboard_link, stale)


class _as_cluster_error:
    """Turns an Error of a cluster's call into a ClusterError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: Optional[BaseException], __: object) -> None:
        if isinstance(error, Error) and not isinstance(error, ClusterError):
            raise ClusterError(error.message, error.code, error.diagnosis) from None


def clusters(all: bool = False, on: Optional[str] = None) -> list[ClusterInfo]:
    """Returns the clusters that the caller may see, newest first; with ``all`` those that have ended too."""

    def pages() -> Iterator[ClusterInfo]:
        after = ""
        while True:
            answer = service().call("ListClusters", {"all": all, "infrastructure": on or "", "limit": 100, "after": after})
            for cluster in answer.get("clusters") or []:
                yield ClusterInfo.from_json(cluster)
            after = answer.get("next", "")
            if not after:
                return

    return list(pages())


_open_clusters: set[Cluster] = set()  # of this process, which are closed when it ends


def _close_all() -> None:
    for cluster in list(_open_clusters):
        if cluster._pid != os.getpid():  # a child after a fork
            continue
        try:
            cluster._close(None, patience=_EXIT_PATIENCE)
        except Exception as error:  # Python ends in any case
            say(f"cannot close the cluster {cluster.name}: {error}")


# Registered behind that of _local, and hence called before its process is ended.
atexit.register(_close_all)
