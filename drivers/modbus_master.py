"""Questions to one Modbus RTU unit on a line of its own, one at a time and without waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from controller.codec.rtu import crc16, encode
from controller.ports import LinePort

ANSWER_MS = 100
"""After this time an answer is not waited for any more: 30 ms of wire at 9600 baud, and the unit's own time."""

LATE_MS = 150
"""After this time an answer does not come any more."""

REFUSED, REFUSAL_BYTES = 0x80, 5


class Answer(NamedTuple):
    """pdu: a refusal has bit 7 of the function set. asked_ms: when the oldest question it can be for was asked."""

    pdu: bytes
    asked_ms: int


class _Question(NamedTuple):
    frame: bytes
    answer_bytes: int
    asked_ms: int


class ModbusMaster:
    """An answer does not say which question it is for. So it counts only where all that are open ask for the same.

    After an answer that leaves one open, the line is left alone until nothing can come any more.
    """

    def __init__(self, line: LinePort, unit: int, now: Callable[[], int]) -> None:
        self._line, self._unit, self._now = line, unit, now
        self._open: list[_Question] = []
        self._heard = b""
        self._asked_ms = self._free_ms = now()

    @property
    def busy(self) -> bool:
        """A question is out, and its answer may yet come."""
        return bool(self._open) and self._now() < self._free_ms

    @property
    def waited_ms(self) -> int:
        """How long ago the last question was asked."""
        return self._now() - self._asked_ms

    def ask(self, pdu: bytes, answer_bytes: int) -> None:
        """What came before is no answer to it. answer_bytes: how long the answer's PDU is. Raises BusError."""
        self._line.receive()
        self._heard, self._asked_ms = b"", self._now()
        self._free_ms = self._asked_ms + ANSWER_MS
        self._open.append(_Question(encode(self._unit, pdu), answer_bytes, self._asked_ms))
        self._line.send(self._open[-1].frame)

    def answer(self) -> Answer | None:
        """The next answer, once. None while there is none that counts."""
        self._heard += self._line.receive()
        self._open = [question for question in self._open if self._now() - question.asked_ms < LATE_MS]
        while pdu := self._next():
            alike = [question for question in self._open if question.frame[1] == pdu[0] & ~REFUSED]
            self._open.remove(alike[0])
            if len({question.frame for question in alike}) == 1:
                if self._open:
                    self._free_ms = self._open[-1].asked_ms + LATE_MS
                return Answer(pdu, alike[0].asked_ms)
        return None

    def _next(self) -> bytes:
        """Cut the first answer to an open question out of what was heard: its PDU, empty when there is none."""
        if not self._open or self._open[-1].frame.startswith(self._heard):
            return b""
        heard = self._heard.replace(self._open[-1].frame, b"", 1)  # some adapters hear what they send
        for at in range(len(heard)):
            for question in self._open:
                for function, length in ((0, question.answer_bytes + 3), (REFUSED, REFUSAL_BYTES)):
                    frame = heard[at : at + length]
                    head = bytes([self._unit, question.frame[1] | function])
                    if len(frame) == length and frame.startswith(head) and not crc16(frame):
                        self._heard = heard[at + length :]
                        return frame[1:-2]
        return b""
