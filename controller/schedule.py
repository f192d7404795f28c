"""Which periodic frames are due. A pure value: the first tick fixes the grid, nothing ever shifts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self


class Beat(NamedTuple):
    """One thing done every `period_ms`, first `phase_ms` after the schedule's first tick."""

    period_ms: int
    phase_ms: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Beats and when each is due next.

        period 50, phase 10:   ticks  0   10   20 … 60 … 110 (late: 137) … 160
                               due         x        x              x        x

    A late tick does what it missed once, not once for each miss, and the next beat is on the grid again.
    """

    beats: tuple[Beat, ...]
    due_ms: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        wrong = [beat for beat in self.beats if beat.period_ms <= 0 or not 0 <= beat.phase_ms < beat.period_ms]
        if wrong:
            raise ValueError(f"a beat needs a period above 0 and a phase within it: {wrong}")

    def tick(self, now_ms: int) -> tuple[Self, tuple[int, ...]]:
        """The schedule after this tick, and the indices of the beats that are due, in their order."""
        due_ms = self.due_ms or tuple(now_ms + beat.phase_ms for beat in self.beats)
        due = tuple([index for index, at_ms in enumerate(due_ms) if at_ms <= now_ms])
        if not due and self.due_ms:
            return self, ()
        moved = list(due_ms)
        for index in due:
            period_ms = self.beats[index].period_ms
            moved[index] += ((now_ms - moved[index]) // period_ms + 1) * period_ms
        return type(self)(self.beats, tuple(moved)), due
