"""What the tests share."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import unittest
from typing import Any, Callable, Iterator
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import berth  # noqa: E402
import berth._service  # noqa: E402
from fake import FakeClusters, FakeServer  # noqa: E402

try:
    import distributed  # noqa: F401

    HAS_DASK = True
except ImportError:
    HAS_DASK = False


class Case(unittest.TestCase):
    """A test with a fake server that the environment names, and a short patience."""

    TOKEN = "berth_sesame-open"

    def setUp(self) -> None:
        for name in list(os.environ):
            if name.startswith("BERTH_") or name.lower().endswith("_proxy"):
                self.environ({name: None})
        self.server = FakeServer(token=self.TOKEN)
        self.addCleanup(self.server.stop)
        self.environ({"BERTH_SERVER": f"http://127.0.0.1:{self.server.port}", "BERTH_TOKEN": self.TOKEN})
        self.clusters = FakeClusters(self.server)
        berth.configure()
        self.addCleanup(berth.configure)
        patience = mock.patch.object(berth._service, "PATIENCE", 1.5)
        patience.start()
        self.addCleanup(patience.stop)

    def environ(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            before = os.environ.get(name)
            self.addCleanup(_set, name, before)
            _set(name, value)

    @contextlib.contextmanager
    def said(self) -> Iterator[io.StringIO]:
        """Takes what is written to stderr."""
        out = io.StringIO()
        with mock.patch.object(sys, "stderr", out):
            yield out

    def eventually(self, condition: Callable[[], Any], what: str = "", seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"did not become so within {seconds} s: {what}")
            time.sleep(0.02)


def _set(name: str, value: Any) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
