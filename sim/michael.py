"""The story behind the shipped recording `sim/logs/m3-michael.log`: a pack's day in two minutes, for any controller.

The pack wakes, is closed, charged, discharged and opened, is closed again, and then its interlock opens: the one
fault. Only wishes and times stand here; how to close a pack is the partner's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from itertools import pairwise

from controller.ports import CanFrame
from sim.tesla_pack import TeslaPack

TICK_MS = 10
DURATION_MS = 66_000
FRAME_US = 250  # about one frame of 8 bytes at 500 kbit/s

Partner = Callable[[Sequence[CanFrame], int], Sequence[CanFrame]]
"""(frames from the pack, now_ms) -> frames to the pack. It learns the wishes of a person from `story`."""


class Action(Enum):
    """What happens besides the load: two wishes to the controller, one blow to the pack."""

    ENABLE = "enable"
    STOP = "stop"
    HVIL_OPENS = "hvil-opens"


ACTIONS = {4_000: Action.ENABLE, 44_000: Action.STOP, 46_000: Action.ENABLE, 62_000: Action.HVIL_OPENS}

# (ms, A), straight lines between; positive charges. The pack ignores it while open. Inside 5 kW and 20 A.
LOAD_A = (
    (16_000, 0.0), (18_000, 8.0), (22_000, 8.0), (24_000, 13.0), (28_000, 13.0), (30_000, 0.0), (32_000, 0.0),
    (34_000, -8.0), (37_000, -8.0), (39_000, -13.0), (42_000, -13.0), (43_000, 0.0), (58_000, 0.0), (60_000, -2.5),
    (DURATION_MS, -2.5),
)  # fmt: skip


def pack() -> TeslaPack:
    """The pack of the story: a used Model 3 at 55 %, with the noise and the offset real sensors have."""
    return TeslaPack(soc_pct=54.94, temp_c=21.0, offset_a=-0.4, seed=2023)


def story(now_ms: int) -> tuple[float, tuple[Action, ...]]:
    """The current at the terminals, and what happens in the tick that ends at now_ms."""
    actions = tuple(action for at_ms, action in ACTIONS.items() if now_ms - TICK_MS < at_ms <= now_ms)
    for (x0, y0), (x1, y1) in pairwise(LOAD_A):
        if x0 <= now_ms < x1:
            return y0 + (y1 - y0) * (now_ms - x0) / (x1 - x0), actions
    return 0.0, actions


def record(partner: Partner, pack: TeslaPack, until_ms: int = DURATION_MS) -> list[tuple[int, CanFrame]]:
    """Play the story; all frames of both directions as (microseconds, frame), in the order of time."""
    recording: list[tuple[int, CanFrame]] = []
    for now_ms in range(0, until_ms, TICK_MS):
        load_a, actions = story(now_ms)
        if Action.HVIL_OPENS in actions:
            pack.hvil_open()
        said = pack.step(now_ms, load_a)
        answer = [frame._replace(at_ms=now_ms) for frame in partner(said, now_ms)]
        pack.receive(answer, now_ms)
        frames = [*said, *answer]
        gap_us = min(FRAME_US, TICK_MS * 1_000 // max(len(frames), 1))
        recording += [(now_ms * 1_000 + i * gap_us, frame) for i, frame in enumerate(frames)]
    return recording
