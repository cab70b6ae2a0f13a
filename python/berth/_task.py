"""Tasks: containers, or functions of packages, that run to their end."""

from __future__ import annotations

import codecs
import json
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Iterator, Mapping, Optional, TextIO, Union

from . import _values
from ._errors import Diagnosis, Error, TaskError
from ._say import say
from ._service import Service, new_key, service
from ._values import Duration, Quantity

_ENDED = ("succeeded", "failed", "cancelled", "lost")
_REST_OF_LOGS = 30.0  # s that output is waited for once a task has ended
_CANCEL = 5.0  # s that a wish to cancel may take to be stored, where nobody waits for the end
_REST_OF_CALL = 0.05  # s, where the result of a function is there, and that is what was asked for


class Task:
    """A task as it stood when Berth was asked last: refresh() and wait() ask."""

    def __init__(self, service: Service, value: dict[str, Any]) -> None:
        self._service = service
        self._value = value

    @property
    def id(self) -> str:
        return str(self._value.get("id", ""))

    @property
    def name(self) -> str:
        return str((self._value.get("spec") or {}).get("name", ""))

    @property
    def state(self) -> str:
        """queued, launching, running, and at its end succeeded, failed, cancelled or lost."""
        return str(self._value.get("state", ""))

    @property
    def ended(self) -> bool:
        return self.state in _ENDED

    @property
    def exit_code(self) -> Optional[int]:
        """The container's own; None where there is none."""
        return self._value.get("exitCode")

    @property
    def reason(self) -> Optional[str]:
        """One line: why it ended, or what it waits for."""
        return self._value.get("reason")

    @property
    def diagnosis(self) -> Optional[Diagnosis]:
        return Diagnosis.from_json(self._value.get("diagnosis"))

    @property
    def infrastructure(self) -> str:
        return str(self._value.get("infrastructure", ""))

    @property
    def result(self) -> Any:
        """What a function of a package returned; None where it returned nothing, or the task is no call."""
        text = _values.read_bytes(self._value.get("result"))
        return json.loads(text) if text else None

    def refresh(self) -> Task:
        """Asks how the task stands."""
        self._take(self._service.call("GetTask", {"id": self.id}))
        return self

    def wait(self, timeout: Optional[Duration] = None, check: bool = False) -> Task:
        """Waits until it has ended, and tells on stderr what holds it up.

        TimeoutError when the time is over; TaskError, with ``check``, when it did not succeed.
        """
        deadline = None if timeout is None else time.monotonic() + _seconds(timeout)
        said: set[str] = set()
        try:
            for answer in self._service.stream("WatchTask", {"id": self.id}, deadline):
                self._take(answer)
                self._tell(said)
        except TimeoutError:
            why = self.diagnosis or self.reason
            raise TimeoutError(f"task {self.id} is still {self.state}" + (f": {why}" if why else "")) from None
        if check:
            self.check()
        return self

    def check(self) -> Task:
        """Raises TaskError if it ended in another way than well."""
        if self.ended and self.state != "succeeded":
            why = self.diagnosis
            text = f"task {self.id} {'is ' if self.state == 'lost' else ''}{'was ' if self.state == 'cancelled' else ''}{self.state}"
            if why is not None and self.state != "cancelled":
                text += f": {why}"
            elif self.reason:
                text += f": {self.reason}"
            raise TaskError(text, self, why)
        return self

    def cancel(self) -> Task:
        """Asks for its end; wait() waits for that. One that has ended stays as it is."""
        self._take(self._service.call("CancelTask", {"id": self.id}))
        return self

    def logs(self, attempt: int = 0, tail: int = 0, stream: str = "") -> str:
        """Returns what it wrote so far.

        attempt: 0 for the last one. tail: a number of lines, 0 for all. stream: "stdout", "stderr" (where
        they can be told apart), or "" for both.
        """
        message = {"id": self.id, "attempt": attempt, "tail": tail, "stream": stream}
        try:
            return b"".join(data for _, data, _ in self._chunks(message)).decode("utf-8", "replace")
        except Error as error:
            if error.code == "not_found" and not self.refresh()._value.get("attempt"):
                return ""  # there was no attempt yet
            raise

    def _chunks(self, message: dict[str, Any], wanted: Callable[[], bool] = lambda: True) -> Iterator[tuple[str, bytes, str]]:
        """Yields stream, bytes, and what is missing, if that is so."""

        def seen(answer: dict[str, Any]) -> None:
            message.update(attempt=answer.get("attempt", 0), offset=answer.get("offset", "0"), tail=0)

        for answer in self._service.stream("TaskLogs", message, seen=seen, wanted=wanted):
            yield answer.get("stream", ""), _values.read_bytes(answer.get("data")), answer.get("gap", "")

    def _take(self, answer: dict[str, Any]) -> None:
        self._value = answer.get("task") or self._value

    def _tell(self, said: set[str]) -> None:
        """Writes why it does not start, each reason once."""
        if self.state in ("queued", "launching") and self.diagnosis is not None:
            line = f"task {self.id} is {self.state}: {self.diagnosis}"
            if line not in said:
                said.add(line)
                say(line)

    def __repr__(self) -> str:
        text = f"<berth.Task {self.id}: {self.state}"
        if self.exit_code is not None:
            text += f", exit code {self.exit_code}"
        why = self.diagnosis
        return text + (f", {why.cause}>" if why is not None else ">")


def _seconds(timeout: Duration) -> float:
    try:
        return _values.seconds(timeout, "timeout")
    except ValueError as error:
        raise Error(str(error), "invalid") from None


def run(
    image: str,
    *args: Any,
    on: Optional[str] = None,
    name: Optional[str] = None,
    cpu: Optional[Quantity] = None,
    memory: Optional[Quantity] = None,
    gpu: int = 0,
    ephemeral_storage: Optional[Quantity] = None,
    env: Optional[Mapping[str, Any]] = None,
    timeout: Optional[Duration] = None,
    retries: int = 0,
    labels: Optional[Mapping[str, str]] = None,
    entrypoint: Union[str, list[str], None] = None,
    user: Union[str, int, None] = None,
    pull: str = "",
    idempotent: bool = False,
    wait: bool = True,
    check: bool = True,
    logs: bool = True,
) -> Task:
    """Runs a container to its end, as ``berth run`` does, and returns the Task.

    ``args`` are the container's; the image's ENTRYPOINT stays, unless ``entrypoint`` replaces it. ``cpu``
    ("500m", 0.5), ``memory`` ("2Gi", bytes) and ``gpu`` are request and limit. ``timeout`` ("10m", seconds) is
    that of an attempt. ``idempotent``: running it twice does no harm.

    ``logs`` shows its output while it runs, on sys.stdout and sys.stderr. With ``check`` a TaskError, with the
    diagnosis, is raised when it does not succeed. Ctrl-C cancels the task and waits for its end; a second one
    leaves. Without ``wait`` it is submit(). Error, with a diagnosis, when the cluster would never take it.
    """
    spec = task_spec(
        image, args, on, name, cpu, memory, gpu, ephemeral_storage, env, timeout, retries, labels, entrypoint, user, pull, idempotent
    )
    task = _submit(spec)
    if wait:
        attend(task, sys.stdout if logs else None)
        if check:
            task.check()
    return task


def submit(image: str, *args: Any, **options: Any) -> Task:
    """Submits a container and returns at once. Options are those of run() that say what runs, and where."""
    return run(image, *args, **{**options, "wait": False})


def task_spec(
    image: str,
    args: tuple[Any, ...],
    on: Optional[str],
    name: Optional[str],
    cpu: Optional[Quantity],
    memory: Optional[Quantity],
    gpu: int,
    ephemeral_storage: Optional[Quantity],
    env: Optional[Mapping[str, Any]],
    timeout: Optional[Duration],
    retries: int,
    labels: Optional[Mapping[str, str]],
    entrypoint: Union[str, list[str], None],
    user: Union[str, int, None],
    pull: str,
    idempotent: bool,
) -> dict[str, Any]:
    """Returns berth.v1.TaskSpec. Error with the code "invalid" for what can't be; the server checks the rest."""
    try:
        spec = {
            "image": image,
            "args": [str(arg) for arg in args],
            "infrastructure": on or "",
            "name": name or "",
            "cpu": _values.quantity(cpu, "cpu"),
            "memory": _values.quantity(memory, "memory"),
            "gpu": gpu,
            "ephemeralStorage": _values.quantity(ephemeral_storage, "ephemeral_storage"),
            "env": _values.env_list(env),
            "retries": retries,
            "labels": _values.texts(labels),
            "entrypoint": [entrypoint] if isinstance(entrypoint, str) else [str(word) for word in entrypoint or []],
            "user": _values.user_text(user),
            "pull": pull,
            "idempotent": idempotent,
        }
        if timeout is not None:
            spec["timeout"] = _values.duration(timeout, "timeout")
        return spec
    except ValueError as error:
        raise Error(str(error), "invalid") from None


def _submit(spec: dict[str, Any]) -> Task:
    api = service()
    answer = api.call("SubmitTask", {"key": new_key(), "spec": spec})
    return Task(api, answer.get("task") or {})


def call(
    package: str,
    function: str,
    *,
    on: Optional[str] = None,
    cpu: Optional[Quantity] = None,
    memory: Optional[Quantity] = None,
    gpu: int = 0,
    timeout: Optional[Duration] = None,
    retries: int = 0,
    labels: Optional[Mapping[str, str]] = None,
    idempotent: bool = False,
    logs: bool = True,
    arguments: Optional[Mapping[str, Any]] = None,
    **more: Any,
) -> Any:
    """Calls a function of a package, "NAME" or "NAME@VERSION", and returns its result as a Python value.

    Arguments are given by name, as what JSON can say: ``berth.call("arithmetic", "add", a=3, b=4)``; in
    ``arguments`` those whose names are taken, such as "on". A secret input takes a reference: "secret:KEY", or
    "kube:NAME/KEY". They are checked against the declared types before anything is created. ``logs`` shows the
    program's output on sys.stderr.

    Error for what is refused; TaskError, with the diagnosis, when the function fails. Ctrl-C cancels it.
    """
    name, at, version = package.partition("@")
    if not name or at and not version:
        raise Error(f"package {package!r}: write NAME or NAME@VERSION", "invalid")
    spec = task_spec("", (), on, None, cpu, memory, gpu, None, None, timeout, retries, labels, None, None, "", idempotent)
    encoded = {key: _values.write_bytes(_encode(key, value)) for key, value in {**(arguments or {}), **more}.items()}
    spec["call"] = {"package": name, "version": version, "function": function, "arguments": encoded}
    task = _submit(spec)
    attend(task, sys.stderr if logs else None, _REST_OF_CALL)
    return task.check().result


def _encode(name: str, value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        # Not the value: it may be secret.
        raise Error(f"argument {name} can't be written as JSON, as it is or holds a {type(value).__name__}: {_why(error)}", "invalid") from None


def _why(error: Exception) -> str:
    text = str(error)
    return text if "not JSON serializable" in text else "numbers have to be finite, and nothing may hold itself"


def attend(task: Task, output: Optional[TextIO], rest: float = _REST_OF_LOGS) -> None:
    """Shows a task and its output until it has ended.

    Two threads read, one how it stands and one what it writes; the caller's, which Ctrl-C
    reaches, shows both. ``rest`` is how long output is waited for after a good end, in s.
    """
    events: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=1000)  # slow terminals slow the reading down
    left = threading.Event()

    def put(kind: str, value: Any = None) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                return events.put((kind, value), timeout=0.5)
        raise _Left

    def watch() -> None:
        try:
            for answer in task._service.stream("WatchTask", {"id": task.id}, wanted=lambda: not left.is_set()):
                put("task", answer)
            put("ended")
        except _Left:
            pass
        except BaseException as error:
            with suppress(_Left):
                put("failed", error)

    def follow() -> None:
        try:
            _follow(task, put, lambda: not left.is_set())
        except _Left:
            return
        except Exception as error:
            with suppress(_Left):
                put("said", f"cannot show the output of task {task.id}: {error}")
        with suppress(_Left):
            put("logged")

    def cancel() -> None:
        try:
            task._service.call("CancelTask", {"id": task.id})
        except Error as error:
            say(f"cannot cancel task {task.id}: {error}")

    ended, logged, until = False, output is None, 0.0
    cancelling: Optional[threading.Thread] = None
    said: set[str] = set()
    threading.Thread(target=watch, name="berth-watch", daemon=True).start()
    if output is not None:
        threading.Thread(target=follow, name="berth-logs", daemon=True).start()
    try:
        while not (ended and logged):
            try:
                kind, value = events.get(timeout=max(0.0, until - time.monotonic()) if ended else None)
                if kind == "task":
                    task._take(value)
                    task._tell(said)
                elif kind == "ended":
                    ended, until = True, time.monotonic() + (rest if task.state == "succeeded" else _REST_OF_LOGS)
                elif kind == "failed":
                    raise value
                elif kind == "logged":
                    logged = True
                elif kind == "said":
                    say(value)
                else:
                    _write(sys.stderr if kind == "stderr" else output, value)
            except queue.Empty:
                return  # the rest of the output can be had by logs()
            except KeyboardInterrupt:
                if cancelling is not None:
                    say(f"left; task {task.id} is being cancelled")
                    cancelling.join(_CANCEL)
                    raise
                # In a thread, which a second interrupt does not reach: some senders send two at once.
                cancelling = threading.Thread(target=cancel, name="berth-cancel", daemon=True)
                cancelling.start()
                say(f"cancelling task {task.id}; interrupt again to leave without waiting")
    finally:
        left.set()
    if cancelling is not None:
        raise KeyboardInterrupt


class _Left(Exception):
    """Nobody reads any more."""


def _follow(task: Task, put: Callable[..., None], wanted: Callable[[], bool]) -> None:
    """Tells the output of all attempts, one after the other."""
    attempt = 0
    while wanted():
        attempt += 1
        decoders: dict[str, codecs.IncrementalDecoder] = {}
        try:
            for stream, data, gap in task._chunks({"id": task.id, "attempt": attempt, "follow": True}, wanted):
                if gap:
                    put("said", gap)
                decoder = decoders.setdefault(stream, codecs.getincrementaldecoder("utf-8")("replace"))
                text = decoder.decode(data)
                if text:
                    put("stderr" if stream == "stderr" else "output", text)
        except Error as error:
            if error.code == "not_found":
                return  # no further attempt
            raise


def _write(to: Optional[TextIO], text: str) -> None:
    if to is not None:
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            to.write(text)
            to.flush()
