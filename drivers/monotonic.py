"""The clock of the live loop."""

from __future__ import annotations

import time


class MonotonicClock:
    """CLOCK_MONOTONIC: no clock change and no NTP step moves it."""

    def now_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000
