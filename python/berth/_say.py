"""What Berth says while it waits: lines on stderr, as the berth command writes them."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(text: str) -> None:
    """Writes a line; one line, whatever a server put into it."""
    with suppress(OSError, ValueError, AttributeError):  # stderr is closed, or None
        print("berth: " + " ".join(text.split()), file=sys.stderr, flush=True)
