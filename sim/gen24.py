"""A Fronius Gen24 as bytes on RS485: the Modbus master that looks for a BYD battery, asks it to close and uses it.

Requests, spacing and order: protocols/inverters/byd-modbus-rtu.md, sections 1, 3 and 4 (a Symo Gen24 5.0 with an HVM
11.0), and the recordings `byd-gen24-*.rtu`. It shares no table with the code it tests. Not known from any source, and
chosen here: how soon it gives up a battery that fell silent (`LOST_AFTER`), and that it takes its go back by 401 = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

UNIT: Final = 21
GIVES_UP_MS: Final = 110
SCAN_MS: Final = 60_000
GO_AFTER_MS, GO_MS, BEAT_BACK_MS, MEASURED_MS = 5_000, 120, 60, 200
LOST_AFTER: Final = 3
METER_UNITS: Final = range(0x28, 0x30)
METERS: Final = tuple((unit, 0x9C49, 10) for unit in METER_UNITS for _ in range(2)) + tuple(
    (1, wire, words)
    for wire, words in ((0x0303, 1), (0x06AA, 1), (0xC350, 2), (0x9C40, 1), (0x0000, 1), (0x000B, 1))
    for _ in range(2)
)
"""Each is asked twice. The note gives the number of registers for the first three of unit 1 only."""


class Task(Enum):
    """What it has to say to the battery: (wire address, registers to read), None for a write."""

    SEARCH = (0x0064, 2)
    MAKER = (0x0066, 16)
    MODEL = (0x0076, 16)
    PROTOCOL = (0x00A6, 2)
    IDENTITY = (0x0064, 68)
    NAMEPLATE = (0x00C8, 13)
    LIVE = (0x012C, 24)
    BEAT = (0x0191, 1)
    EMPTY = (0x03E8, 100)
    ANNOUNCE = "401 = 1, and the time"
    BEAT_BACK = "402, inverted"
    GO = "401 = 2"
    REVOKE = "401 = 0"
    MEASURED = "418 and 419"


START_UP: Final = (
    (140, Task.MAKER), (350, Task.MODEL), (470, Task.PROTOCOL), (720, Task.IDENTITY), (910, Task.NAMEPLATE),
    (1_110, Task.LIVE), (1_320, Task.ANNOUNCE), (1_500, Task.LIVE), (1_850, Task.BEAT), (2_050, Task.BEAT_BACK),
    (2_300, Task.EMPTY), (2_600, Task.EMPTY), (6_510, Task.LIVE), (21_850, Task.EMPTY),
)  # fmt: skip
"""ms after the search that was answered. The note gives no times for the first two of 1001."""

EVERY_MS: Final = {Task.LIVE: 5_000, Task.BEAT: 57_000, Task.EMPTY: 20_000}
STANDBY, INACTIVE, ACTIVE = 0, 1, 3


class Asked(NamedTuple):
    """A request that waits for its answer of `length` bytes. task: None when it was for a meter."""

    task: Task | None
    frame: bytes
    length: int
    at_ms: int


@dataclass
class Gen24:
    """Call `step` every tick. The first block is for a test to set, the second to read.

    gives_go: False never gives it, or takes it back. silent: its plug is pulled. ignores_limits: it knows the nameplate
    only. measures: it writes 418 and 419 after each poll. leading: stray bytes before each request. per_step: bytes
    sent in one step, 0 = the whole request; 9 is the pace of 9600 baud. unix_s: the time of day at 0 ms.

    found: a battery answers; lost: one did, and does not any more. live, nameplate, identity: the words it read last.
    misses_voltage: the battery says it is closed and nothing is measured. unanswered: requests in a row.
    intrusions: bytes came that it had not asked this battery for. refusals: answers that were exceptions.
    """

    gives_go: bool = True
    silent: bool = False
    ignores_limits: bool = False
    measures: bool = False
    leading: bytes = b""
    per_step: int = 0
    unix_s: int = 1_643_478_600

    found: bool = False
    lost: bool = False
    go_written: bool = False
    live: tuple[int, ...] = ()
    nameplate: tuple[int, ...] = ()
    identity: tuple[int, ...] = ()
    misses_voltage: bool = False
    unanswered: int = 0
    intrusions: int = 0
    refusals: int = 0

    _agenda: list[tuple[int, Task]] = field(default_factory=list)
    _meters: list[tuple[int, int, int]] = field(default_factory=list)
    _scan_ms: int | None = None
    _announced_ms: int | None = None
    _beat: int = 0
    _asked: Asked | None = None
    _outbox: bytes = b""
    _inbox: bytes = b""
    _heard_ms: int = 0

    @property
    def status(self) -> int | None:
        """301 as it was read last; None without a battery."""
        return self.live[0] if self.live else None

    @property
    def active(self) -> bool:
        """The battery says it is closed, and still answers."""
        return self.status == ACTIVE

    @property
    def charge_limit_w(self) -> float:
        """The most it charges with now: 308, and the lower of 204 and 205."""
        return self._limit_w(7)

    @property
    def discharge_limit_w(self) -> float:
        """The most it discharges with now: 307, and the lower of 204 and 205."""
        return self._limit_w(6)

    def _limit_w(self, index: int) -> float:
        if not self.active or not self.nameplate:
            return 0.0
        most = min(self.nameplate[3:5])
        return float(most if self.ignores_limits else min(self.live[index], most))

    def reboot(self, now_ms: int, dead_ms: int = 30_000) -> None:
        """Off, and after `dead_ms` a new search; it has forgotten everything."""
        self._forget()
        self._asked, self._outbox, self._meters = None, b"", []
        self.lost, self._scan_ms = False, now_ms + dead_ms

    def step(self, now_ms: int, heard: bytes, link_voltage_v: float, current_a: float) -> bytes:
        """One tick: what came on the wire, and what it measures. Returns what it puts on the wire.

        Each inverter of `sim` is given both measurements; of the current a Gen24 says nothing here.
        """
        self._listen(now_ms, b"" if self.silent else heard)
        if self._scan_ms is None or now_ms >= self._scan_ms:
            self._scan_ms = now_ms + SCAN_MS
            self._meters = list(METERS)
            if not self.found:
                self._agenda = [(now_ms, Task.SEARCH)]
        if self._asked is None:
            self._ask(now_ms, link_voltage_v)
        self.misses_voltage = self.active and link_voltage_v < 0.8 * self.live[8] / 10
        count = self.per_step or len(self._outbox)
        sent, self._outbox = self._outbox[:count], self._outbox[count:]
        if sent:
            self._heard_ms = now_ms
        return b"" if self.silent else sent

    # --- the wire ---

    def _listen(self, now_ms: int, heard: bytes) -> None:
        """An answer is what was asked for, in the right length and with its CRC, or an exception."""
        asked = self._asked
        if asked is None or self._outbox:
            self.intrusions += bool(heard)
            return
        if heard:
            self._inbox, self._heard_ms = self._inbox + heard, now_ms
        refused = self._inbox[1:2] == bytes([asked.frame[1] | 0x80])
        answer = self._inbox[: 5 if refused else asked.length]
        if len(answer) == (5 if refused else asked.length) and answer[0] == asked.frame[0] and not crc(answer):
            self.intrusions += asked.task is None or len(self._inbox) > len(answer)
            self.refusals += refused
            self.unanswered, self._asked = 0, None
            if asked.task is not None and not refused:
                self._answered(asked.task, words_of(answer), asked.at_ms)
        elif now_ms - self._heard_ms >= GIVES_UP_MS:
            self._asked = None
            self._missed(asked.task)

    def _ask(self, now_ms: int, link_voltage_v: float) -> None:
        """The battery first; the meters fill the time in which nothing is due."""
        due_ms, task = min(self._agenda, key=lambda entry: entry[0], default=(now_ms + SCAN_MS, None))
        if task is not None and due_ms <= now_ms:
            self._agenda.remove((due_ms, task))
            if task in EVERY_MS and all(other is not task for _, other in self._agenda):
                self._agenda.append((due_ms + EVERY_MS[task], task))
            self._send(task, *self._request(task, now_ms, link_voltage_v), now_ms)
        elif self._meters and due_ms - now_ms > GIVES_UP_MS:
            unit, wire, count = self._meters.pop(0)
            self._send(None, read(unit, wire, count), 5 + 2 * count, now_ms)

    def _send(self, task: Task | None, frame: bytes, length: int, now_ms: int) -> None:
        self._asked = Asked(task, frame, length, now_ms)
        self._outbox, self._inbox = self.leading + frame, b""

    # --- what it says and what it makes of the answer ---

    def _request(self, task: Task, now_ms: int, link_voltage_v: float) -> tuple[bytes, int]:
        """The frame, and the length of its answer."""
        if isinstance(task.value, tuple):
            wire, count = task.value
            return read(UNIT, wire, count), 5 + 2 * count
        match task:
            case Task.ANNOUNCE:
                time_s = self.unix_s + now_ms // 1000
                frame = write(UNIT, 0x0190, (1, 0xFF00, 60, 0, 0, time_s >> 16, time_s & 0xFFFF, 0, 1))
            case Task.BEAT_BACK:
                frame = write(UNIT, 0x0191, (self._beat ^ 0xFFFF,))
            case Task.MEASURED:
                frame = write(UNIT, 0x01A1, (round(link_voltage_v * 10), self.live[8]))
            case _:
                frame = write(UNIT, 0x0190, (2 if task is Task.GO else 0,))
        return frame, 8

    def _answered(self, task: Task, words: tuple[int, ...], asked_ms: int) -> None:
        match task:
            case Task.SEARCH if words == (0x5349, 1):
                self.found, self.lost = True, False
                self._agenda = [(asked_ms + after_ms, next_task) for after_ms, next_task in START_UP]
            case Task.IDENTITY:
                self.identity = words
            case Task.NAMEPLATE:
                self.nameplate = words
            case Task.ANNOUNCE:
                self._announced_ms = asked_ms
            case Task.BEAT:
                self._beat = words[0]
                self._plan(asked_ms + BEAT_BACK_MS, Task.BEAT_BACK)
            case Task.GO | Task.REVOKE:
                self.go_written = task is Task.GO
            case Task.LIVE:
                self.live = words
                self._decide(asked_ms)

    def _decide(self, polled_ms: int) -> None:
        """The go, once something is offered and 5 s after it announced itself."""
        if self._announced_ms is None:
            return
        if self.measures:
            self._plan(polled_ms + MEASURED_MS, Task.MEASURED)
        offered = self.status in (STANDBY, INACTIVE) and max(self.live[6:8]) > 0
        if self.go_written and not self.gives_go:
            self._plan(polled_ms + GO_MS, Task.REVOKE)
        elif self.gives_go and not self.go_written and offered and polled_ms - self._announced_ms >= GO_AFTER_MS:
            self._plan(polled_ms + GO_MS, Task.GO)

    def _plan(self, due_ms: int, task: Task) -> None:
        if all(other is not task for _, other in self._agenda):
            self._agenda.append((due_ms, task))

    def _missed(self, task: Task | None) -> None:
        if task is None or not self.found:
            return
        self.unanswered += 1
        if self.unanswered >= LOST_AFTER or self._announced_ms is None:
            self._forget()
            self.lost = True

    def _forget(self) -> None:
        """No battery any more; the next scan searches."""
        self.found = self.go_written = False
        self.live = self.nameplate = self.identity = ()
        self._announced_ms, self._agenda, self.unanswered = None, [], 0


def read(unit: int, wire: int, count: int) -> bytes:
    """Function 3."""
    return framed(bytes([unit, 3]) + wire.to_bytes(2, "big") + count.to_bytes(2, "big"))


def write(unit: int, wire: int, words: Sequence[int]) -> bytes:
    """Function 16."""
    head = bytes([unit, 16]) + wire.to_bytes(2, "big") + len(words).to_bytes(2, "big") + bytes([2 * len(words)])
    return framed(head + b"".join(word.to_bytes(2, "big") for word in words))


def words_of(answer: bytes) -> tuple[int, ...]:
    """The registers in an answer to function 3; none in one to function 16."""
    data = answer[3:-2] if answer[1] == 3 else b""
    return tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


def framed(body: bytes) -> bytes:
    return body + crc(body).to_bytes(2, "little")


def crc(data: bytes) -> int:
    """CRC-16/Modbus; 0 over a frame with its own."""
    rest = 0xFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest, odd = rest >> 1, rest & 1
            rest ^= 0xA001 * odd
    return rest
