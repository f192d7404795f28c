"""A relay board on RS485 that speaks Modbus RTU: coils by function 15, contacts by function 2.

Such a board keeps its coils as they are when nobody speaks any more. So each write has to be acknowledged, every one of
them is repeated, and where that fails write() goes on raising: no heartbeat, and the external watchdog takes the coils.
Until the board has then acknowledged that all is off, nothing else is asked of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from controller.ports import LinePort, PortError, RelayError
from drivers.modbus_master import ModbusMaster
from statecharts.supervisor import Contactor

READ_INPUTS, WRITE_COILS = 2, 15
CONFIRM_MS = 200
REFRESH_MS = 200
FEEDBACK_MS = 300
YIELD_MS = 40
"""What a board gets to answer in before a question with a new wish is asked over it."""

PAUSE_S, PAUSES = 0.005, 100

NOTHING: frozenset[Contactor] = frozenset()


class ModbusRelays:
    """RelayPort. channels, inputs: the board's numbers from 1, of the coils and of their auxiliary contacts.

    normally_closed: those contacts open when their contactor closes. All coils up to the last one used are ours: those
    between are kept off. Reading a coil back would only echo the command, so without inputs there is no feedback.
    """

    def __init__(
        self, line: LinePort, unit: int, channels: Mapping[Contactor, int], now: Callable[[], int], *,
        inputs: Mapping[Contactor, int] | None = None, normally_closed: bool = False, name: str = "relay board",
        pause: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """Switches everything off and waits until the board has said so, 0.5 s at most. Raises PortError."""
        self._master, self._now, self._name, self._pause = ModbusMaster(line, unit, now), now, name, pause
        self._channels, self._inputs, self._normally_closed = dict(channels), dict(inputs or {}), normally_closed
        self._wanted, self._wanted_ms = NOTHING, now()
        self._asked = NOTHING
        self._confirmed: frozenset[Contactor] | None = None
        self._confirmed_ms = now()
        self._failed = False
        self._read: dict[Contactor, bool] = {}
        self._read_ms = 0
        if not self._settle():
            raise PortError(f"{name}: no answer from Modbus unit {unit}; check port, baud, unit, and A and B swapped")

    def write(self, closed: frozenset[Contactor]) -> None:
        """Raises RelayError until the board has acknowledged, from CONFIRM_MS on."""
        now_ms, wanted = self._now(), closed - {Contactor.PACK}
        if foreign := sorted(wanted - self._channels.keys()):
            raise RelayError(f"{self._name}: no relay is wired for {', '.join(foreign)}")
        if wanted != self._wanted:
            self._wanted, self._wanted_ms = wanted, now_ms
        self._hear()
        well = self._confirmed == wanted and now_ms - self._confirmed_ms <= REFRESH_MS + CONFIRM_MS
        waited_ms = now_ms - self._latest_ms
        self._failed = not well and (self._failed or waited_ms >= CONFIRM_MS)
        hopeful = not self._failed and waited_ms < CONFIRM_MS - YIELD_MS  # later, the line is kept free for OFF
        if self._may_ask and (hopeful or wanted == NOTHING):
            self._ask(now_ms)
        if self._failed:
            raise RelayError(f"{self._name}: it does not acknowledge")

    def feedback(self) -> Mapping[Contactor, bool | None]:
        fresh = self._now() - self._read_ms <= FEEDBACK_MS
        return {member: self._read.get(member) if fresh else None for member in self._inputs}

    def close(self) -> None:
        """Everything off, and half a second for the board to say so."""
        self._settle()

    @property
    def _may_ask(self) -> bool:
        """The line is free, or what is on it is no longer wanted and had its time."""
        patient_ms = 0 if self._failed else YIELD_MS
        return not self._master.busy or (self._asked != self._wanted and self._master.waited_ms >= patient_ms)

    @property
    def _latest_ms(self) -> int:
        """Since when what is wanted has been waiting for the board."""
        return self._wanted_ms if self._confirmed != self._wanted else self._confirmed_ms + REFRESH_MS

    def _settle(self) -> bool:
        """Everything off; whether the board has acknowledged."""
        self._confirmed = None
        for _ in range(PAUSES):
            with suppress(PortError):
                self.write(NOTHING)
                if self._confirmed == NOTHING and (self._read or not self._inputs):
                    return True
            self._pause(PAUSE_S)
        return False

    def _ask(self, now_ms: int) -> None:
        """The coils when they are due, the inputs in between."""
        if self._confirmed != self._wanted or now_ms - self._confirmed_ms >= REFRESH_MS:
            count = max(self._channels.values())
            bits = sum(1 << self._channels[member] - 1 for member in self._wanted)
            size = (count + 7) // 8
            self._asked = self._wanted
            self._send(bytes([WRITE_COILS, 0, 0, 0, count, size]) + bits.to_bytes(size, "little"), 5)
        elif self._inputs:
            count = max(self._inputs.values())
            self._send(bytes([READ_INPUTS, 0, 0, 0, count]), 2 + (count + 7) // 8)

    def _send(self, pdu: bytes, answer_bytes: int) -> None:
        with suppress(PortError):  # the acknowledgement that does not come says so
            self._master.ask(pdu, answer_bytes)

    def _hear(self) -> None:
        answer = self._master.answer()
        if answer is None:
            return
        pdu, asked_ms = answer
        if pdu[0] == WRITE_COILS:
            self._confirmed, self._confirmed_ms = self._asked, asked_ms
        elif pdu[0] == READ_INPUTS:
            bits = int.from_bytes(pdu[2:], "little")
            self._read = {
                member: bool(bits >> number - 1 & 1) is not self._normally_closed
                for member, number in self._inputs.items()
            }
            self._read_ms = asked_ms
