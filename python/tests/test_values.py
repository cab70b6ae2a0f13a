"""Values between Python and protojson."""

import unittest
from datetime import datetime, timedelta, timezone

from common import berth  # noqa: F401
from berth import _values as v
from berth import WorkerGroup
from berth._spec import bounds


class Durations(unittest.TestCase):
    def test_are_written_as_protojson_has_them(self):
        for value, want in {"20m": "1200s", "1h30m": "5400s", "12.5s": "12.5s", "500ms": "0.5s", "2d": "172800s", "0": "0s", ".5h": "1800s"}.items():
            self.assertEqual(v.duration(value), want, value)
        self.assertEqual(v.duration(90), "90s")
        self.assertEqual(v.duration(0.25), "0.25s")
        self.assertEqual(v.duration(100), "100s")
        self.assertEqual(v.duration(timedelta(minutes=2, milliseconds=1)), "120.001s")

    def test_what_is_none_is_refused_by_name(self):
        for value in ("20", "m", "10 minutes", "", "-5s", -1, float("nan"), float("inf"), True, None, "1h junk"):
            with self.assertRaisesRegex(ValueError, "idle_timeout", msg=repr(value)):
                v.duration(value, "idle_timeout")


class Quantities(unittest.TestCase):
    def test_are_written_as_kubernetes_does(self):
        for value, want in {"500m": "500m", 2: "2", 0.5: "0.5", "2Gi": "2Gi", "2GiB": "2Gi", "2 GB": "2G", "1KB": "1k", 1073741824: "1073741824", 1.0: "1"}.items():
            self.assertEqual(v.quantity(value, "memory"), want, value)
        self.assertEqual(v.quantity(None, "memory"), "")

    def test_what_is_none_is_refused_by_name(self):
        for value in ("", "two", "-1", "1 2", True, []):
            with self.assertRaisesRegex(ValueError, "worker_memory", msg=repr(value)):
                v.quantity(value, "worker_memory")


class Counts(unittest.TestCase):
    def test_are_a_number_or_bounds(self):
        self.assertEqual(bounds(4), (4, 0))
        self.assertEqual(bounds((0, 10)), (0, 10))
        for value in (-1, 1.5, (3, 2), (0, 0), (1, 2, 3), "4", True, None):
            with self.assertRaises(ValueError, msg=repr(value)):
                bounds(value)

    def test_a_group_says_so(self):
        self.assertEqual(WorkerGroup("big", (1, 5), cpu=0.5, memory="4GiB", gpu=1, env={"A": 1}).to_json(), {
            "name": "big", "min": 1, "max": 5, "image": "", "cpu": "0.5", "memory": "4Gi", "gpu": 1, "ephemeralStorage": "",
            "env": [{"name": "A", "value": "1"}], "labels": {}})

    def test_a_group_shows_no_environment(self):
        self.assertNotIn("hunter2", repr(WorkerGroup("big", env={"PASSWORD": "hunter2"})))


class Others(unittest.TestCase):
    def test_bytes_of_either_alphabet(self):
        for text in ("-_8=", "+/8=", "-_8", "+/8"):
            self.assertEqual(v.read_bytes(text), b"\xfb\xff")
        self.assertEqual(v.read_bytes(None), b"")
        self.assertEqual(v.read_bytes(v.write_bytes(b"\x00\xff")), b"\x00\xff")

    def test_times(self):
        self.assertEqual(v.read_time("2026-03-01T10:05:00Z"), datetime(2026, 3, 1, 10, 5, tzinfo=timezone.utc))
        self.assertEqual(v.read_time("2026-03-01T10:05:00.5Z"), datetime(2026, 3, 1, 10, 5, 0, 500000, tzinfo=timezone.utc))
        self.assertIsNone(v.read_time(None))


if __name__ == "__main__":
    unittest.main()
