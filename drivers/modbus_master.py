"""Questions to one Modbus RTU unit on a line of its own, one at a time and without waiting."""

from __future__ import annotations

from collections.abc import Callable

from controller.codec.rtu import crc16, encode
from controller.ports import LinePort

ANSWER_MS = 100
"""After this time an answer does not come any more: 30 ms of wire at 9600 baud, and the unit's own time."""

REFUSED, REFUSAL_BYTES = 0x80, 5


class ModbusMaster:
    """busy: a question is out, and its answer may yet come."""

    def __init__(self, line: LinePort, unit: int, now: Callable[[], int]) -> None:
        self._line, self._unit, self._now = line, unit, now
        self._asked = self._heard = b""
        self._asked_ms = self._answer_bytes = 0

    @property
    def busy(self) -> bool:
        return bool(self._asked) and self._now() - self._asked_ms < ANSWER_MS

    def ask(self, pdu: bytes, answer_bytes: int) -> None:
        """What came before is no answer to it. answer_bytes: how long the answer's PDU is. Raises BusError."""
        self._line.receive()
        self._heard, self._asked = b"", encode(self._unit, pdu)
        self._asked_ms, self._answer_bytes = self._now(), answer_bytes
        self._line.send(self._asked)

    def answer(self) -> bytes | None:
        """The PDU of the answer, once; a refusal has bit 7 of the function set. None while there is none."""
        self._heard += self._line.receive()
        if not self._asked or self._asked.startswith(self._heard):
            return None
        heard = self._heard.removeprefix(self._asked)  # some adapters hear what they send
        for at in range(len(heard)):
            for function, length in ((0, self._answer_bytes + 3), (REFUSED, REFUSAL_BYTES)):
                frame = heard[at : at + length]
                head = bytes([self._unit, self._asked[1] | function])
                if len(frame) == length and frame.startswith(head) and not crc16(frame):
                    self._asked = self._heard = b""
                    return frame[1:-2]
        return None
