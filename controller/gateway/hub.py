"""What the residents of the gateway share: the newest status, what happened, and the way to give a command.

Nothing here grows: of the status only the newest is kept, of what happened the last EVENTS_KEPT, and COMMANDS_MAX
commands may be under way. A resident that is slow misses states in between, never an event that is still kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from controller.gateway import wall
from controller.gateway.wall import Stamp
from controller.messages import TEXT_MAX

EVENTS_KEPT: Final = 2000
COMMANDS_MAX: Final = 4
NOT_HEARD: Final = "the control process has not been heard yet"

Status = Mapping[str, Any]


class Newest(NamedTuple):
    """The last status. at_s: monotonic, when it came."""

    status: Status
    at_s: float
    stamp: Stamp


class Happening(NamedTuple):
    """One event of the control process. number: from 1 in this gateway. t_s: on control's clock, that of this boot."""

    number: int
    boot: str
    t_s: float
    id: str
    severity: str
    detail: str
    stamp: Stamp


class Answer(NamedTuple):
    """What became of a command. why: the reason when it was not done. told: all that control said."""

    done: bool
    why: str = ""
    told: Mapping[str, Any] = {}


Send = Callable[[Mapping[str, Any]], Awaitable[Answer]]


class Hub:
    """newest: None while the control process is not heard; then `lost` says why. version: of the two, counts up."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic, clock: Callable[[], Stamp] = wall.now) -> None:
        self.newest: Newest | None = None
        self.lost = NOT_HEARD
        self.version = 0
        self.happened: deque[Happening] = deque(maxlen=EVENTS_KEPT)
        self._now_s, self._clock, self._boot = now_s, clock, wall.boot_id()
        self._changed = asyncio.Event()
        self._send: Send | None = None
        self._under_way = 0
        self._numbered = 0
        self._told: list[tuple[float, str, str]] = []

    # --- the residents' side ---

    async def changed(self, seen: int) -> int:
        """The version, as soon as it is another than the one seen: a status came, or control is lost."""
        while self.version == seen:
            await self._changed.wait()
        return self.version

    def age_s(self) -> float | None:
        """How old the newest status is."""
        return None if self.newest is None else self._now_s() - self.newest.at_s

    def since(self, number: int) -> Iterator[Happening]:
        """What happened after the one of this number, oldest first, as far as it is kept."""
        return (happening for happening in tuple(self.happened) if happening.number > number)

    async def command(self, message: Mapping[str, Any], by: str = "") -> Answer:
        """Have control do something: {"do": "enable"}, as in controller.messages. by: who wants it, for the journal."""
        if self._send is None:
            return Answer(False, self.lost)
        if self._under_way >= COMMANDS_MAX:
            return Answer(False, "too many commands at once")
        self._under_way += 1
        try:
            return await self._send({**message, "by": by[:TEXT_MAX]} if by else message)
        finally:
            self._under_way -= 1

    # --- the link's side ---

    def attach(self, send: Send) -> None:
        """Where commands go."""
        self._send = send

    def publish(self, status: Status) -> None:
        """A status that has just come."""
        self.newest, self.lost = Newest(status, self._now_s(), self._clock()), ""
        self._learn(self.newest)
        self._wake()

    def lose(self, why: str) -> None:
        """Control is not heard any more, or not understood."""
        news = self.newest is not None or self.lost != why
        self.newest, self.lost = None, why
        if news:
            self._wake()

    def _wake(self) -> None:
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _learn(self, newest: Newest) -> None:
        """Number what is new in the status' last events; control tells the last ones again and again."""
        now_s = newest.status["t_ms"] / 1000
        told = [(event["t_s"], event["id"], event["detail"]) for event in newest.status["events"]]
        known, self._told = self._told, told
        for event, key in zip(newest.status["events"], told, strict=True):
            if key in known:
                known.remove(key)
                continue
            self._numbered += 1
            age_s = max(0.0, now_s - event["t_s"])
            self.happened.append(
                Happening(self._numbered, self._boot, event["t_s"], event["id"], event["severity"], event["detail"],
                          newest.stamp.before(age_s))
            )  # fmt: skip
