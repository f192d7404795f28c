"""A value and how long it may be believed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Freshness:
    """When a signal was last seen valid, and how often it should be.

    valid_at_ms: None until the first valid value. round_ms: the time in which every frame and multiplexer value that
    feeds it comes once.
    """

    valid_at_ms: int | None
    round_ms: int

    def age_ms(self, now_ms: int) -> int | None:
        """Milliseconds since the last valid value; None when there never was one."""
        return None if self.valid_at_ms is None else now_ms - self.valid_at_ms

    def fresh(self, now_ms: int) -> bool:
        """Seen within five rounds (never less than 100 ms)."""
        return self.valid_at_ms is not None and now_ms - self.valid_at_ms <= max(5 * self.round_ms, 100)


@dataclass(frozen=True, slots=True)
class Reading:
    """A measured value; `at(now_ms)` is None once it is older than `max_age_ms`."""

    value: float
    at_ms: int
    max_age_ms: int

    def at(self, now_ms: int) -> float | None:
        return self.value if 0 <= now_ms - self.at_ms <= self.max_age_ms else None
