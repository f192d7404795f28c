"""The wall clock, which the control process does not know: UTC, and whether it was synchronised just then."""

from __future__ import annotations

import ctypes
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

TIMEX_BYTES: Final = 512
"""More than struct timex is on any of our machines; all zero means: tell, change nothing (adjtimex(2))."""
TIME_ERROR: Final = 5
TIMESYNCD: Final = Path("/run/systemd/timesync/synchronized")
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Stamp(NamedTuple):
    """A moment. synchronised: None when the kernel does not say."""

    utc_s: float
    synchronised: bool | None

    @property
    def text(self) -> str:
        """2026-11-25T22:59:19.123Z"""
        return iso(self.utc_s)

    def before(self, seconds: float) -> Stamp:
        """The moment so long before this one."""
        return self._replace(utc_s=self.utc_s - seconds)


def now() -> Stamp:
    """This moment."""
    return Stamp(time.time(), synchronised())


def iso(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def synchronised() -> bool | None:
    """Whether something keeps the kernel's clock right: adjtimex(2), or where a unit may not ask that, timesyncd."""
    with suppress(OSError, AttributeError):
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
        if state >= 0:
            return bool(state != TIME_ERROR)
    return True if TIMESYNCD.exists() else None


def boot_id() -> str:
    """This boot of the machine; monotonic times of two boots cannot be compared. Empty when it cannot be told."""
    with suppress(OSError):
        return BOOT_ID.read_text(encoding="ascii").strip()
    return ""
