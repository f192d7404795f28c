"""A Nissan Leaf pack as frames: what the controller meets at the far end of the cable.

It shares no table with the code it tests: bytes are put together here by the formulas of the protocol note
(`protocols/batteries/nissan-leaf.md`) and pinned by recorded frames. The relays in the pack are not its own: whoever
drives them tells it the current. It talks whether it hears a car or not; what a real one does without is not known,
so what it hears is judged and counted. No clock, no randomness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

from controller.ports import CanFrame

CELLS = 96
OCV_V = ((0.0, 3.30), (10.0, 3.50), (20.0, 3.55), (50.0, 3.75), (80.0, 3.98), (100.0, 4.15))  # SoC %, V
CELL_OHM = 0.001

# milliseconds after waking, as in leaf-me0-40-startup.log
CURRENT_MS, PERMIT_MS, INTERLOCK_MS, VOLTAGE_MS, ISOLATION_MS = 100, 130, 260, 730, 5_300
FLOW_MS = 15  # how long it waits for flow control
NOT_AVAILABLE = 0x3FF
QUESTIONS = {0xB2: 0xAA, 0x5D: 0x55}
KEEP_ALIVE = {0x1D4: 8, 0x1F2: 8, 0x50B: 7, 0x50C: 6, 0x355: 8, 0x3B8: 5, 0x5C5: 8, 0x626: 6, 0x5EC: 1}


class Kind(NamedTuple):
    """One generation. full_gids: of a new pack; condition: length of its group 1, and where and how it says Hx."""

    full_gids: int
    says_maximum: bool
    capacity_ah: float
    condition: int
    hx_at: int
    hx_parts: float


KINDS = {
    "ZE0": Kind(281, False, 65.0, 0x29, 28, 100.0),
    "AZE0": Kind(500, True, 115.0, 0x2B, 28, 100.0),
    "ZE1": Kind(750, True, 176.0, 0x35, 30, 102.4),
}
RECORDED = {0x5EB: "E0 0F FF FF FF FF FF FF", 0x1ED: "FF E1 ED", 0x1C2: "00"}  # 0x1ED also carries a current


def crc8(data: bytes) -> int:
    """Polynomial 0x85, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x85) & 0xFF if crc & 0x80 else crc << 1
    return crc


def nibbles(data: bytes) -> list[int]:
    return [nibble for byte in data for nibble in (byte >> 4, byte & 0xF)]


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


@dataclass
class LeafPack:
    """The pack. Options and misbehaviour are plain attributes; a test may change the latter at any time.

    powered: its 12 V. interlock, permits, relay_cut, failsafe, full, empty, trouble_code, isolation_fault, heater_mail:
    what it says of itself. silenced: ids not sent; bad_crc: ids sent with a wrong checksum; stuck: ids whose counter
    stands. mute: diagnosis is not answered; stops_at: it goes silent after this many frames of an answer.
    """

    generation: Literal["ZE0", "AZE0", "ZE1"] = "ZE1"
    soc_pct: float = 55.0
    soh_pct: int = 92
    temp_c: int = 21
    max_charge_w: float = 50_000.0
    max_discharge_w: float = 110_000.0
    serial: str = "230UK1192E001482"

    powered: bool = True
    lv_supply_v: float = 13.0
    isolation_kohm: int = 2_000
    isolation_fault: bool = False
    interlock: bool = True
    permits: bool = True
    relay_cut: int = 0
    failsafe: int = 0
    full: bool = False
    empty: bool = False
    trouble_code: int = 0
    heater_mail: bool = False
    shunts: frozenset[int] = frozenset()
    offset_v: dict[int, float] = field(default_factory=dict)
    silenced: set[int] = field(default_factory=set)
    bad_crc: set[int] = field(default_factory=set)
    stuck: set[int] = field(default_factory=set)
    mute: bool = False
    stops_at: int | None = None

    current_a: float = field(default=0.0, init=False)
    heard: Counter[int] = field(default_factory=Counter, init=False)
    refused: Counter[int] = field(default_factory=Counter, init=False)
    mails_seen: int = field(default=0, init=False)
    asked: list[int] = field(default_factory=list, init=False)
    answered: int = field(default=0, init=False)
    given_up: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._now_ms: int | None = None
        self._woke_ms: int | None = None
        self._counters: dict[int, int] = {}
        self._question = 0x5D
        self._queue: list[bytes] = []
        self._allowed, self._said_ms = 0, 0

    # what others may do to it

    def step(self, now_ms: int, load_a: float = 0.0) -> list[CanFrame]:
        """Live until now_ms with load_a (positive charges) through the terminals; the frames sent at that time."""
        elapsed_ms = 0 if self._now_ms is None else now_ms - self._now_ms
        self._now_ms, self.current_a = now_ms, load_a
        self.soc_pct += 100.0 * load_a * elapsed_ms / 3.6e6 / (self.kind.capacity_ah * self.soh_pct / 100)
        if not self.powered:
            self._woke_ms, self._queue = None, []
            return []
        if self._woke_ms is None:
            self._woke_ms, self._counters = now_ms, {}
        return [CanFrame(can_id, data, now_ms) for can_id, data in (*self._broadcast(now_ms), *self._answer(now_ms))]

    def receive(self, frames: Iterable[CanFrame], now_ms: int) -> None:
        """Hear the controller: keep-alive frames are judged, questions answered."""
        for frame in frames if self.powered else ():
            if frame.id == 0x79B and not self.mute:
                self._diagnose(frame.data, now_ms)
            elif frame.id in KEEP_ALIVE:
                (self.heard if self._right(frame) else self.refused)[frame.id] += 1

    # what can be known of it

    @property
    def kind(self) -> Kind:
        return KINDS[self.generation]

    @property
    def mean_v(self) -> float:
        """Of a cell, under the present current."""
        soc_pct = min(max(self.soc_pct, 0.0), 100.0)
        (x0, y0), (x1, y1) = next(pair for pair in pairwise(OCV_V) if soc_pct <= pair[1][0])
        return y0 + (y1 - y0) * (soc_pct - x0) / (x1 - x0) + self.current_a * CELL_OHM

    @property
    def cells_v(self) -> list[float]:
        """All cells; they lie within 12 mV, scattered over the pack."""
        mean_v = self.mean_v
        return [mean_v + 0.012 * (n * 37 % CELLS / 95 - 0.5) + self.offset_v.get(n, 0.0) for n in range(CELLS)]

    @property
    def pack_v(self) -> float:
        """Sum of the cells; the scatter sums to nothing."""
        return CELLS * self.mean_v + sum(self.offset_v.values())

    @property
    def gids(self) -> int:
        return round(self.kind.full_gids * self.soh_pct / 100 * self.soc_pct / 100)

    def awake_for(self, ms: int) -> bool:
        """Whether it woke this long ago."""
        return self._woke_ms is not None and (self._now_ms or 0) - self._woke_ms >= ms

    # what it broadcasts

    def _broadcast(self, now_ms: int) -> list[tuple[int, bytes]]:
        age_ms, sent = now_ms - (self._woke_ms or 0), []
        for can_id, (period_ms, phase_ms) in self._timetable().items():
            if age_ms < phase_ms or (age_ms - phase_ms) % period_ms or can_id in self.silenced:
                continue
            turn = self._counters[can_id] = self._counters.get(can_id, -1) + (can_id not in self.stuck)
            data = ENCODERS[can_id](self, turn) if can_id in ENCODERS else bytes.fromhex(RECORDED[can_id])
            sent.append((can_id, data[:7] + bytes((data[7] ^ 0xFF,)) if can_id in self.bad_crc else data))
        return sent

    def _timetable(self) -> Mapping[int, tuple[int, int]]:
        """Id → period and phase in ms, as recorded."""
        slow = 500 if self.generation == "ZE0" else 100
        table = {0x1DB: (10, 0), 0x1DC: (10, 0), 0x55B: (100, 90), 0x5BC: (slow, 90), 0x5C0: (500, 500)}
        if self.generation != "ZE0":
            table[0x59E] = (500, 500)
        if self.generation == "ZE1":
            table |= {0x5EB: (500, 500), 0x1ED: (10, 0), 0x1C2: (10, 0)}
        return table

    def say_status(self, turn: int) -> bytes:
        """0x1DB."""
        raw_a = round(self.current_a / 0.5) & 0x7FF if self.awake_for(CURRENT_MS) else NOT_AVAILABLE
        raw_v = round(self.pack_v / 0.5) if self.awake_for(VOLTAGE_MS) else NOT_AVAILABLE
        permits = self.permits and self.awake_for(PERMIT_MS)
        interlock = self.interlock and self.awake_for(INTERLOCK_MS)
        power = 1 if self.awake_for(CURRENT_MS) else 3
        usable = 0 if self.generation != "AZE0" else round(self.soc_pct) if self.awake_for(CURRENT_MS) else 0x7F
        raw_2 = round(self.current_a / 0.5) & 0xFFF if self.generation == "ZE1" else 0
        flags = permits << 5 | self.full << 4 | interlock << 3 | power << 1
        return _sealed(
            raw_a >> 3, (raw_a & 7) << 5 | self.relay_cut << 3 | self.failsafe, raw_v >> 2, (raw_v & 3) << 6 | flags,
            usable, raw_2 >> 4, (raw_2 & 0xF) << 4 | turn % 4,
        )  # fmt: skip

    def say_power(self, turn: int) -> bytes:
        """0x1DC; nobody charges, so the limit for a charger is not available."""
        known = self.awake_for(CURRENT_MS)
        down, up = (
            round(watts / 250) if known else NOT_AVAILABLE for watts in (self.max_discharge_w, self.max_charge_w)
        )
        last = 0xFD if known else 0xFF
        return _sealed(down >> 2, (down & 3) << 6 | up >> 4, (up & 0xF) << 4 | 0xF, last, 0, 0, turn % 4)

    def say_soc(self, turn: int) -> bytes:
        """0x55B; the isolation sensor needs 5 s."""
        raw, volts = round(self.soc_pct / 0.1), 900 if self.awake_for(ISOLATION_MS) else NOT_AVAILABLE
        return _sealed(
            raw >> 2, (raw & 3) << 6, QUESTIONS.get(self._question, 0), 0, volts >> 2,
            (volts & 3) << 6 | self.isolation_fault, self.empty << 7 | 0x10 | turn % 4,
        )  # fmt: skip

    def say_energy(self, turn: int) -> bytes:
        """0x5BC: remaining and maximum in turn where the pack has both; newer packs say nothing at first."""
        if self.generation == "ZE0":  # 0x032: 24 kWh when new
            second, third, fourth = (self.gids & 3) << 6 | 0x03, 0x20, self.temp_c + 40
            return bytes((self.gids >> 2, second, third, fourth, self.soh_pct << 1, 3, 0xFF, 0xFF))
        if turn == 0:
            return bytes((0xFF, 0xC0, 0xFF, 0xFF, self.soh_pct << 1, 0, 0x1F, 0xFF))
        most = self.kind.says_maximum and turn % 2 == 1
        gids = self.kind.full_gids if most else self.gids
        return bytes((gids >> 2, (gids & 3) << 6, 0xF0, 0x64, self.soh_pct << 1, most << 4, 0x1F, 0xFF))

    def say_extremes(self, turn: int) -> bytes:
        """0x5C0: maximum, average, minimum; a ZE1 has no temperatures there."""
        which = turn % 3 + 1
        warm = self.temp_c + 40 + (0, 1, 0, -1)[which]
        if self.generation == "ZE1":
            return bytes((which, 0x50 | self.heater_mail, 0xFF, 0, 1, 0xB8, 0, self.trouble_code))
        return bytes((which << 6, warm << 1 | self.heater_mail, warm << 1, 0, 0, 0xB8, 0, self.trouble_code))

    def say_capacity(self, turn: int) -> bytes:
        """0x59E, in 100 Wh."""
        full, left = round(self.kind.full_gids * 0.8 * self.soh_pct / 100), round(self.gids * 0.8)
        return bytes((0, 0, full >> 4, (full & 0xF) << 4 | left >> 5, (left & 0x1F) << 3, 0, 0, 0))

    # what it hears

    def _right(self, frame: CanFrame) -> bool:
        data = frame.data
        if len(data) != KEEP_ALIVE[frame.id]:
            return False
        if frame.id == 0x1F2:
            return (sum(nibbles(data)[:15]) + 2) & 0xF == data[7] & 0xF
        if frame.id == 0x50C:
            self._question = data[4]
        if frame.id == 0x50B:
            self.mails_seen += data[6] == 0x20
        return frame.id not in (0x1D4, 0x50C) or crc8(data[:-1]) == data[-1]

    # diagnosis: ISO-TP and the groups

    def _diagnose(self, data: bytes, now_ms: int) -> None:
        if data[0] >> 4 == 3:
            self._allowed = data[1] or len(self._queue)
        elif data[:2] == b"\x02\x21":
            self.asked.append(data[2])
            answer = self.group(data[2])
            if answer is None:
                self._queue = [bytes((3, 0x7F, 0x21, 0x12, 0xFF, 0xFF, 0xFF, 0xFF))]
            else:
                whole = bytes((0x61, data[2])) + answer
                rest = [whole[at : at + 7].ljust(7, b"\xff") for at in range(6, len(whole), 7)]
                first = bytes((0x10 | len(whole) >> 8, len(whole) & 0xFF)) + whole[:6]
                self._queue = [first, *(bytes((0x20 | n & 0xF,)) + part for n, part in enumerate(rest, 1))]
            self._allowed, self._said_ms = 1, now_ms
            if self.stops_at is not None:
                del self._queue[self.stops_at :]

    def _answer(self, now_ms: int) -> list[tuple[int, bytes]]:
        """The next frame, once the controller has asked for it in time."""
        if not self._queue:
            return []
        if not self._allowed:
            if now_ms - self._said_ms > FLOW_MS:
                self._queue, self.given_up = [], self.given_up + 1
            return []
        self._allowed, self._said_ms = self._allowed - 1, now_ms
        data = self._queue.pop(0)
        self.answered += not self._queue
        return [] if 0x7BB in self.silenced else [(0x7BB, data)]

    def group(self, number: int) -> bytes | None:
        """What follows 61 GG; None for a group it does not know."""
        match number:
            case 0x01:
                body = bytearray(self.kind.condition - 2)
                body[20:24] = words(round(self.lv_supply_v * 1024), self.isolation_kohm)
                at = self.kind.hx_at - 2
                body[at : at + 2] = words(round(85.0 * self.kind.hx_parts))
                return bytes(body)
            case 0x02:
                return words(*(round(1000 * volts) for volts in self.cells_v), round(100 * self.pack_v), 0)
            case 0x04:
                warmths = (self.temp_c + 1, self.temp_c, None, self.temp_c - 1)
                sensors = (b"\xff" * 3 if c is None else words(717 - 10 * c) + bytes((c & 0xFF,)) for c in warmths)
                return b"".join(sensors).ljust(29, b"\xff")
            case 0x06:
                return sum(1 << cell - 1 for cell in self.shunts).to_bytes(12, "little") + bytes(12)
            case 0x83:
                return b"3NK2A".ljust(24, b" ")
            case 0x84:
                return self.serial.encode("ascii") + b" \xa0" + bytes(2)
        return None


def _sealed(*body: int) -> bytes:
    """Seven bytes and their CRC."""
    return bytes((*body, crc8(bytes(body))))


ENCODERS: Mapping[int, Callable[[LeafPack, int], bytes]] = {
    0x1DB: LeafPack.say_status,
    0x1DC: LeafPack.say_power,
    0x55B: LeafPack.say_soc,
    0x5BC: LeafPack.say_energy,
    0x5C0: LeafPack.say_extremes,
    0x59E: LeafPack.say_capacity,
}
