"""The feed of live limits: watches the control socket, and keeps the newest thing it said with its time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from controller.gateway.dispatch import Live

VERSION = 1
WATCH = json.dumps({"version": VERSION, "do": "watch", "every_ms": 1000}).encode() + b"\n"
STATUS_MAX = 1_000_000
AGAIN_S = 1.0
FAULTS = ("FAULT", "LOCKED_OUT")


def live_of(status: Mapping[str, Any], at_s: float) -> Live | None:
    """The limits in a status of the control process that came at `at_s`. None when they are not in it."""
    limits, state = status.get("limits"), status.get("state")
    if type(limits) is not dict or type(state) is not str:
        return None
    charge_w, discharge_w = _watts(limits.get("charge_w")), _watts(limits.get("discharge_w"))
    if charge_w is None or discharge_w is None:
        return None
    return Live(charge_w, discharge_w, state == "RUNNING", state in FAULTS, at_s)


def _watts(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and isfinite(value) else None


class ControlLimits:
    """`watching` runs beside the dispatcher and never ends by itself; `newest` never waits."""

    def __init__(self, path: Path, now_s: Callable[[], float] = time.monotonic) -> None:
        self._path, self._now_s = path, now_s
        self._newest: Live | None = None

    async def newest(self) -> Live | None:
        return self._newest

    async def watching(self) -> None:
        """Connects again for as long as it takes; what was said before stays, and grows old."""
        while True:
            with suppress(OSError, ValueError):
                await self._watch()
            await asyncio.sleep(AGAIN_S)

    async def _watch(self) -> None:
        """Until the control process hangs up. Raises OSError, and ValueError for what is no status."""
        reader, writer = await asyncio.open_unix_connection(self._path, limit=STATUS_MAX)
        try:
            writer.write(WATCH)
            while line := await reader.readline():
                told = json.loads(line)
                if type(told) is not dict or told.get("version") != VERSION or type(told.get("status")) is not dict:
                    raise ValueError("no status")
                self._newest = live_of(told["status"], self._now_s())
        finally:
            writer.close()
