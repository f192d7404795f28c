"""The resident that records: a sample each second, on the disk once a minute, and at once when control is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from controller.gateway.history_store import SERIES, Batch, HistoryError, Past, Store
from controller.gateway.hub import Hub, Newest, Status
from controller.gateway.wall import boot_id

FLUSH_S: Final = 60
PRUNE_EVERY: Final = 60
"""So many flushes."""
WAITING_MAX: Final = 3600
"""So many samples are kept while the disk cannot be written."""


def sample(status: Status) -> tuple[float | None, ...]:
    """One value for each of SERIES; None where unknown."""
    signals, limits = status["signals"], status["limits"]
    volts, amperes = signals["pack_voltage_v"], signals["current_a"]
    known: dict[str, Any] = {
        **signals,
        "power_w": None if volts is None or amperes is None else volts * amperes,
        "limit_charge_w": limits["charge_w"],
        "limit_discharge_w": limits["discharge_w"],
    }
    return tuple(known[name] for name in SERIES)


class History:
    """`run` never ends by itself. What cannot be written waits, and is bounded."""

    def __init__(self, store: Store, hub: Hub, tell: Callable[[str], None], boot: str | None = None) -> None:
        self.store, self._hub, self._tell = store, hub, tell
        self._boot = boot_id() if boot is None else boot
        self._waiting: dict[int, tuple[float | None, ...]] = {}
        self._clock: tuple[float, bool | None] | None = None
        self._event_written = 0
        self._flushes = 0
        self._flushed_s: int | None = None

    async def run(self) -> None:
        """Until it is cancelled; what waits is written then."""
        seen = 0
        try:
            while True:
                seen = await self._hub.changed(seen)
                if self.look(self._hub.newest):
                    await asyncio.to_thread(self.flush)
        finally:
            self.flush()
            self.store.close()

    def look(self, newest: Newest | None) -> bool:
        """Whether it is time to flush."""
        if newest is None:
            return bool(self._waiting)
        now_s: int = newest.status["t_ms"] // 1000
        self._clock = (newest.stamp.utc_s - newest.status["t_ms"] / 1000, newest.stamp.synchronised)
        self._waiting[now_s] = sample(newest.status)
        while len(self._waiting) > WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
        if self._flushed_s is None or now_s < self._flushed_s:
            self._flushed_s = now_s
        return now_s - self._flushed_s >= FLUSH_S

    def flush(self) -> None:
        """Write what waits. What is not written is told, and waits on."""
        if self._clock is None:
            return
        seconds, happened = dict(self._waiting), list(self._hub.since(self._event_written))
        self._flushed_s = max(seconds, default=self._flushed_s)
        if not seconds and not happened:
            return
        events = [Past(happening.t_s, happening.id, happening.severity, happening.detail) for happening in happened]
        try:
            self.store.write(Batch(self._boot, *self._clock, seconds, events))
            self._flushes += 1
            if self._flushes % PRUNE_EVERY == 1:
                self.store.prune()
        except (HistoryError, OSError) as error:
            self._tell(f"history: {error}")
            return
        for second in seconds:
            self._waiting.pop(second, None)
        if happened:
            self._event_written = happened[-1].number
