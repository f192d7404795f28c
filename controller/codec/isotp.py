"""ISO-TP (ISO 15765-2) as far as a tester with one question at a time needs it: the frames of an answer put together.

    10 0A 61 06 14 55 55 51     first frame: 10 bytes will come, six are here
    21 50 55 41 2B FF FF FF     consecutive frame 1: the rest, and padding
    02 61 06                    single frame: two bytes, all here

A value without clock, lock or thread. Normal addressing, answers of up to 4095 bytes.
"""

from __future__ import annotations

from typing import NamedTuple

TIMEOUT_MS = 1000
FLOW_CONTROL = bytes.fromhex("30 01 00 FF FF FF FF FF")
"""Go on, one frame, without a pause: what is sent after each frame that leaves the answer incomplete."""


class Assembly(NamedTuple):
    """An answer in the making: `length` bytes are announced, 0 when none is; `turn` numbers the next frame.

    whole: the answer that the last frame completed, None when it completed none.
    """

    length: int = 0
    data: bytes = b""
    turn: int = 0
    at_ms: int = 0
    whole: bytes | None = None

    @property
    def incomplete(self) -> bool:
        """More frames are expected, so flow control is due."""
        return self.length > 0

    def receive(self, frame: bytes, now_ms: int) -> Assembly:
        """With one more frame. One out of turn, later than 1 s after the last, or too short ends the answer."""
        kind = frame[0] >> 4 if frame else None
        if kind == 0 and 0 < frame[0] < len(frame):
            return Assembly(whole=frame[1 : 1 + frame[0]])
        if kind == 1 and len(frame) == 8 and (length := (frame[0] & 0xF) << 8 | frame[1]) > 7:
            return Assembly(length, frame[2:], 1, now_ms)
        if kind != 2 or not self.incomplete or frame[0] & 0xF != self.turn or now_ms - self.at_ms > TIMEOUT_MS:
            return NOTHING
        data = self.data + frame[1 : 1 + self.length - len(self.data)]
        if len(data) >= self.length:
            return Assembly(whole=data)
        return Assembly(self.length, data, (self.turn + 1) & 0xF, now_ms) if len(frame) == 8 else NOTHING


NOTHING = Assembly()
