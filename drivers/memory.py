"""In-memory twin of every port: remembers what it was told, gives what it was fed, and can misbehave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.model.events import Notice
from controller.ports import CanFrame, Pins, Record, RegisterWrite, RelayError
from statecharts.supervisor import Contactor

NOT_WIRED = Pins()


class MemoryCan:
    """Frames put into `inbox` are received once; frames sent pile up in `outbox`."""

    def __init__(self) -> None:
        self.inbox: list[CanFrame] = []
        self.outbox: list[CanFrame] = []

    def receive(self) -> Sequence[CanFrame]:
        frames, self.inbox = self.inbox, []
        return frames

    def send(self, frames: Sequence[CanFrame]) -> None:
        self.outbox.extend(frames)


class MemoryLine:
    """Bytes put into `inbox` are received once; bytes sent pile up in `outbox`."""

    def __init__(self) -> None:
        self.inbox = b""
        self.outbox = b""

    def receive(self) -> bytes:
        data, self.inbox = self.inbox, b""
        return data

    def send(self, data: bytes) -> None:
        self.outbox += data


class MemoryPins:
    """Inputs set by hand."""

    def __init__(self, pins: Pins = NOT_WIRED) -> None:
        self.pins = pins

    def read(self) -> Pins:
        return self.pins


class MemoryLink:
    """A link sensor set by hand: (volts, sampled at ms)."""

    def __init__(self) -> None:
        self.newest: tuple[float, int] | None = None

    def link(self) -> tuple[float, int] | None:
        return self.newest


class MemoryHeartbeat:
    """Counts its edges."""

    def __init__(self) -> None:
        self.beats = 0

    def beat(self) -> None:
        self.beats += 1


class MemoryRegisters:
    """Holds the published blocks; `writes` and `polls` are what the inverter will have done."""

    def __init__(self) -> None:
        self.blocks: Mapping[int, tuple[int, ...]] = {}
        self.writes: list[RegisterWrite] = []
        self.polls = 0

    def publish(self, registers: Mapping[int, tuple[int, ...]]) -> None:
        self.blocks = registers

    def requests(self) -> tuple[Sequence[RegisterWrite], int]:
        writes, polls = self.writes, self.polls
        self.writes, self.polls = [], 0
        return writes, polls


class MemoryRelays:
    """Relays without delay. welded: stay closed whatever is written. blind: no feedback at all. broken: writes fail."""

    def __init__(self, members: frozenset[Contactor] = frozenset(), blind: bool = True) -> None:
        self.members = members - {Contactor.PACK}
        self.history: list[frozenset[Contactor]] = [frozenset()]
        self.welded: frozenset[Contactor] = frozenset()
        self.blind = blind
        self.broken = False

    def write(self, closed: frozenset[Contactor]) -> None:
        if self.broken:
            raise RelayError("memory relays: told to fail")
        if closed != self.history[-1]:
            self.history.append(closed)

    def feedback(self) -> Mapping[Contactor, bool | None]:
        if self.blind:
            return {}
        return {member: member in self.history[-1] | self.welded for member in sorted(self.members, key=_order)}


def _order(member: Contactor) -> int:
    return list(Contactor).index(member)


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self, now_ms: int = 0) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms


class MemoryEvents:
    """Everything that happened: (now_ms, notice)."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Notice]] = []

    def write(self, notices: Sequence[Notice], now_ms: int) -> None:
        self.seen.extend((now_ms, notice) for notice in notices)


class MemoryRecords:
    """A disk that stores at once, unless it is `full`."""

    def __init__(self) -> None:
        self.record: Record | None = None
        self.full = False

    def store(self, record: Record) -> None:
        if not self.full:
            self.record = record

    def stored_seq(self) -> int:
        return self.record.seq if self.record else 0
