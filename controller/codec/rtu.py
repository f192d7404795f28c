"""Modbus RTU on a wire that others share: the CRC-true frames in a stream of bytes, whoever sent them.

    unit | function … | CRC-16, low byte first        at most 256 bytes (Modbus over Serial Line V1.02, 2.5.1)

The gap between two frames is lost on the way to a program, so a frame is told by its content: each function says how
long it is, and the CRC says whether that is true. Frames of others are read as a whole: what stands inside them is
nobody's request. What fits no frame is passed over byte by byte, so nothing in front of a frame can hide it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

QUIET_MS: Final = 20
"""Silence that ends a frame: the wire's own 4 ms, and what a USB adapter (16 ms) hides of it."""

LONGEST: Final = 256
UNIT_MAX: Final = 247
WRITES: Final = frozenset({5, 6, 15, 16})
"""All that a broadcast, to unit 0, can be: a stray 0x00 or 0xFF in front of a request is no frame, at once."""


class Frame(NamedTuple):
    """A CRC-true frame. pdu: function and what follows it. request: None when its length does not tell."""

    unit: int
    pdu: bytes
    request: bool | None


def crc16(data: bytes) -> int:
    """CRC-16/Modbus (Modbus over Serial Line V1.02, 6.2.2); 0 over a frame with its own CRC."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_OF[(crc ^ byte) & 0xFF]
    return crc


def encode(unit: int, pdu: bytes) -> bytes:
    """The frame on the wire."""
    body = bytes([unit]) + pdu
    return body + crc16(body).to_bytes(2, "little")


def split(data: bytes, quiet: bool) -> tuple[list[Frame | bytes], bytes]:
    """What `data` holds, oldest first, and its tail that may yet become a frame. bytes: fit no frame.

    quiet: the line has been silent since, so nothing becomes anything any more and no tail is left.
    """
    pieces: list[Frame | bytes] = []
    at = strays = 0
    while at < len(data):
        found = _first(data[at : at + LONGEST], quiet)
        if found is None:
            break
        length, request = found
        if not length:
            at += 1
            continue
        if strays < at:
            pieces.append(data[strays:at])
        pieces.append(Frame(data[at], data[at + 1 : at + length - 2], request))
        at = strays = at + length
    if strays < at:
        pieces.append(data[strays:at])
    return pieces, data[at:]


Claim = tuple[int, bool | None]
"""How long a frame would be, and whether it would be a request."""

_NO_FRAME: Final[Claim] = (0, None)


def _first(data: bytes, quiet: bool) -> Claim | None:
    """The frame that `data` begins with; length 0: it begins with none; None: too early to tell."""
    early = False
    for length, request in _claims(data, quiet):
        if length > len(data):
            early = not quiet
        elif not crc16(data[:length]):
            return length, request
    return None if early else _NO_FRAME


def _claims(data: bytes, quiet: bool) -> Iterator[Claim]:
    """What `data` may begin with (Modbus Application Protocol V1.1b3, section 6)."""
    if len(data) < 2:
        yield LONGEST, None
        return
    match data[1]:
        case function if function & 0x7F == 0 or data[0] > UNIT_MAX or (data[0] == 0 and function not in WRITES):
            return
        case 1 | 2 | 3 | 4:
            yield 8, True
            yield _counted(data, 2, 5), False
        case 5 | 6:
            yield 8, None  # the answer repeats the request
        case 15 | 16:
            length = _counted(data, 6, 9)
            yield length, True
            begun = len(data) < length and (len(data) < 7 or data[6] == 2 * data[5])  # a write, the rest to come
            if quiet or not begun:
                yield 8, False
        case 20 | 21:
            yield _counted(data, 2, 5), None
        case 23:
            yield _counted(data, 10, 13), True
            yield _counted(data, 2, 5), False
        case function if function > 0x80:
            yield 5, False
        case _:
            yield (len(data) if quiet and len(data) >= 4 else LONGEST), None


def _counted(data: bytes, at: int, others: int) -> int:
    """The length of a frame with a byte count at `at` and `others` bytes beside the counted ones."""
    return min(data[at] + others, LONGEST) if at < len(data) else LONGEST


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ 0xA001 if byte & 1 else byte >> 1
    return byte


_CRC_OF: Final = tuple(map(_crc_of, range(256)))
