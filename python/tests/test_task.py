"""Tasks and calls of functions."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import unittest
from unittest import mock

from common import Case, berth
from fake import DIAGNOSIS, Refusal, b64


def task(state, **more):
    return {"task": {"id": "t1", "state": state, "attempt": 1, **more}}


class Tasks(Case):
    def setUp(self):
        super().setUp()
        self.end = task("succeeded", exitCode=0)
        self.server.methods["SubmitTask"] = lambda r: task("queued", spec=r["spec"])
        self.server.methods["WatchTask"] = lambda _: iter([task("queued"), task("running"), self.end])
        self.server.methods["TaskLogs"] = self.logs
        self.written = [("stdout", "hällo\n".encode())]

    def logs(self, r):
        if r.get("attempt", 0) > 1:
            raise Refusal("not_found", "no further attempt")
        for n, (stream, data) in enumerate(self.written):
            yield {"attempt": 1, "data": b64(data), "offset": str(n + 1), "stream": stream}

    def run_quietly(self, *args, **options):
        out = io.StringIO()
        with self.said() as err, mock.patch.object(sys, "stdout", out):
            try:
                self.task = berth.run(*args, **options)
            finally:
                self.out, self.err = out.getvalue(), err.getvalue()
        return self.task

    def test_a_run_says_all_that_was_asked(self):
        self.run_quietly("busybox", "echo", 1, on="site-a", name="n", cpu=0.5, memory="1GiB", gpu=1, env={"A": "b"}, timeout="10m", retries=2,
                         labels={"l": "1"}, entrypoint="sh", user=1000, idempotent=True)
        request = self.server.asked("SubmitTask")[0]
        self.assertEqual(request["spec"], {
            "image": "busybox", "args": ["echo", "1"], "infrastructure": "site-a", "name": "n", "cpu": "0.5", "memory": "1Gi", "gpu": 1,
            "ephemeralStorage": "", "env": [{"name": "A", "value": "b"}], "timeout": "600s", "retries": 2, "labels": {"l": "1"}, "entrypoint": ["sh"],
            "user": "1000", "pull": "", "idempotent": True})

    def test_a_run_shows_its_output_and_returns_how_it_ended(self):
        self.written = [("stdout", "hä".encode()[:2]), ("stdout", "hä".encode()[2:]), ("stderr", b"oops\n"), ("", b"!")]
        t = self.run_quietly("busybox")
        self.assertEqual((t.state, t.exit_code, t.id), ("succeeded", 0, "t1"))
        self.assertEqual(self.out, "hä!")
        self.assertIn("oops\n", self.err)  # libraries of other tests may write there too
        self.assertEqual(t.logs(), "häoops\n!")

    def test_without_logs_nothing_is_shown(self):
        self.run_quietly("busybox", logs=False)
        self.assertEqual((self.out, self.server.asked("TaskLogs")), ("", []))

    def test_one_that_fails_raises_its_diagnosis(self):
        self.end = task("failed", exitCode=3, diagnosis={"cause": "ExitedNonZero", "summary": "The program ended with 3."})
        with self.assertRaises(berth.TaskError) as caught:
            self.run_quietly("busybox")
        error = caught.exception
        self.assertEqual(str(error), "task t1 failed: ExitedNonZero: The program ended with 3.")
        self.assertEqual((error.cause, error.task.exit_code, error.code), ("ExitedNonZero", 3, "failed"))
        self.assertEqual(self.run_quietly("busybox", check=False).exit_code, 3)

    def test_what_holds_it_up_is_told_once(self):
        waiting = task("launching", diagnosis=DIAGNOSIS)
        self.server.methods["WatchTask"] = lambda _: iter([waiting, waiting, self.end])
        self.run_quietly("busybox")
        self.assertEqual(self.err.count("berth: task t1 is launching: InsufficientMemory"), 1)
        self.assertIn("What to do (you): ask for less", self.err)

    def test_a_refusal_has_its_diagnosis(self):
        def refuse(_):
            raise Refusal("invalid_argument", "site-a would not take this task", DIAGNOSIS)

        self.server.methods["SubmitTask"] = refuse
        with self.assertRaises(berth.Error) as caught:
            berth.run("busybox")
        self.assertEqual(caught.exception.cause, "InsufficientMemory")

    def test_a_submitted_one_is_waited_for_later(self):
        t = berth.submit("busybox", "true")
        self.assertEqual((t.state, t.ended), ("queued", False))
        self.assertEqual(self.server.asked("WatchTask"), [])
        with self.said():
            t.wait(timeout=10, check=True)
        self.assertEqual(t.state, "succeeded")

    def test_waiting_has_an_end(self):
        release = threading.Event()
        self.addCleanup(release.set)

        def watch(_):
            yield task("queued", diagnosis=DIAGNOSIS)
            release.wait(20)

        self.server.methods["WatchTask"] = watch
        with self.said(), self.assertRaisesRegex(TimeoutError, "task t1 is still queued: InsufficientMemory"):
            berth.submit("busybox").wait(timeout=0.2)

    def test_interrupting_cancels_and_waits_for_the_end(self):
        root = os.path.dirname(os.path.dirname(os.path.abspath(berth.__file__)))
        cancelled = threading.Event()

        def watch(_):
            yield task("running")
            cancelled.wait(20)
            yield task("cancelled")

        def cancel(_):
            cancelled.set()
            return task("running")

        self.server.methods.update(WatchTask=watch, CancelTask=cancel)
        code = """
            import berth, signal, sys
            signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background begin without
            try:
                berth.run("busybox")
            except KeyboardInterrupt:
                print("interrupted")
        """
        python = subprocess.Popen([sys.executable, "-B", "-c", textwrap.dedent(code)], env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.eventually(lambda: self.server.asked("WatchTask"), "it is watched")
        self.eventually(lambda: self.server.asked("TaskLogs"), "its output is read")
        time.sleep(0.3)
        python.send_signal(signal.SIGINT)
        out, err = python.communicate(timeout=20)
        self.assertEqual(out, "hällo\ninterrupted\n")
        self.assertIn("berth: cancelling task t1", err)
        self.assertEqual(len(self.server.asked("CancelTask")), 1)

    def test_interrupting_twice_at_once_cancels_all_the_same(self):
        root = os.path.dirname(os.path.dirname(os.path.abspath(berth.__file__)))
        release, stored = threading.Event(), []
        self.addCleanup(release.set)

        def watch(_):
            yield task("running")
            release.wait(20)

        def cancel(_):
            time.sleep(0.5)
            stored.append(True)
            return task("running")

        self.server.methods.update(WatchTask=watch, CancelTask=cancel)
        python = subprocess.Popen([sys.executable, "-B", "-c", "import berth, signal; signal.signal(signal.SIGINT, signal.default_int_handler); berth.run('busybox', logs=False)"], env={**os.environ, "PYTHONPATH": root}, stderr=subprocess.PIPE, text=True)
        self.eventually(lambda: self.server.asked("WatchTask"), "it is watched")
        time.sleep(0.3)
        python.send_signal(signal.SIGINT)
        time.sleep(0.05)
        python.send_signal(signal.SIGINT)
        err = python.communicate(timeout=20)[1]
        self.assertEqual(stored, [True])
        self.assertIn("berth: left; task t1 is being cancelled", err)

    def test_values_that_can_not_be_are_refused_here(self):
        for options, why in (({"cpu": "much"}, "cpu 'much'"), ({"timeout": "soon"}, "timeout 'soon'")):
            with self.assertRaisesRegex(berth.Error, why) as caught:
                berth.run("busybox", **options)
            self.assertEqual(caught.exception.code, "invalid")
        self.assertEqual(self.server.requests, [])


class Calls(Tasks):
    def test_a_call_returns_the_value(self):
        self.end = task("succeeded", result=b64(b'{"sum": [7, "\xc3\xbc"]}'))
        self.written = [("stdout", b"adding\n")]
        with self.said() as said:
            value = berth.call("arithmetic@1.0.0", "add", a=3, b=[1.5, None, "x"], on="site-a", cpu=1, arguments={"timeout": 9})
        self.assertEqual(value, {"sum": [7, "ü"]})
        spec = self.server.asked("SubmitTask")[0]["spec"]
        self.assertEqual(spec["call"], {"package": "arithmetic", "version": "1.0.0", "function": "add",
                                        "arguments": {"a": b64(b"3"), "b": b64(b'[1.5, null, "x"]'), "timeout": b64(b"9")}})
        self.assertEqual((spec["infrastructure"], spec["image"], spec["cpu"]), ("site-a", "", "1"))
        self.assertNotIn("timeout", spec)
        self.assertIn("", said.getvalue())

    def test_nothing_is_none(self):
        with self.said():
            self.assertIsNone(berth.call("p", "f"))

    def test_one_that_fails_raises_its_diagnosis(self):
        self.end = task("failed", exitCode=1, diagnosis={"cause": "ResultMissing", "summary": "There is no result."})
        with self.said(), self.assertRaises(berth.TaskError) as caught:
            berth.call("p", "f")
        self.assertEqual(caught.exception.cause, "ResultMissing")

    def test_what_json_can_not_say_is_refused_by_name_and_not_shown(self):
        for value in (float("nan"), {"hunter2"}, b"hunter2", object()):
            with self.assertRaisesRegex(berth.Error, "argument secret can't be written as JSON") as caught:
                berth.call("p", "f", secret=value)
            self.assertNotIn("hunter2", str(caught.exception))
        for package in ("", "@1", "p@"):
            with self.assertRaisesRegex(berth.Error, "write NAME or NAME@VERSION"):
                berth.call(package, "f")

    def test_output_that_does_not_end_is_not_waited_for_when_the_value_is_there(self):
        release = threading.Event()
        self.addCleanup(release.set)

        def logs(_):
            yield {"data": b64(b"x")}
            release.wait(20)

        self.server.methods["TaskLogs"] = logs
        self.end = task("succeeded", result=b64(json.dumps(5).encode()))
        began = time.monotonic()
        with self.said():
            self.assertEqual(berth.call("p", "f"), 5)
        self.assertLess(time.monotonic() - began, 5)


if __name__ == "__main__":
    unittest.main()
