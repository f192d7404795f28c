"""A Modbus relay board as a line: coils by functions 5 and 15, inputs by function 2, read from the wire alone.

Written from the Modbus specification and the frames such boards are documented with: all eight relays on is
01 0F 00 00 00 08 01 FF BE D5 (test_modbus_relays pins it).
"""

from __future__ import annotations


def checksum(data: bytes) -> bytes:
    """CRC-16/Modbus, bit by bit."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


class Board:
    """coils, contacts: the numbers, from 1, of what is energised and of what is closed. mute: it answers nothing.

    dead: it does not even obey. garbles: its checksums are wrong. refuses: it answers with an exception. echo: the
    adapter hears what is sent. unread: what was said since the last receive.
    """

    def __init__(self, normally_closed: bool = False) -> None:
        self.coils: set[int] = set()
        self.contacts: set[int] = set()
        self.heard: list[bytes] = []
        self.unread = b""
        self.normally_closed = normally_closed
        self.mute = self.dead = self.echo = self.garbles = self.refuses = False

    def receive(self) -> bytes:
        data, self.unread = self.unread, b""
        return data

    def send(self, data: bytes) -> None:
        assert checksum(data[:-2]) == data[-2:]
        self.heard.append(data)
        if self.echo:
            self.unread += data
        if not self.dead:
            self._serve(data)

    def _serve(self, data: bytes) -> None:
        unit, function, count = data[0], data[1], int.from_bytes(data[4:6], "big")
        if self.refuses:
            answer = bytes([unit, function | 0x80, 2])
        elif function == 15:
            for number in range(1, count + 1):
                on = data[7 + (number - 1) // 8] >> (number - 1) % 8 & 1
                (self.coils.add if on else self.coils.discard)(number)
            answer = data[:6]
        else:
            assert function == 2
            level = {n for n in range(1, count + 1) if (n in self.contacts) is not self.normally_closed}
            bits = sum(1 << number - 1 for number in level)
            size = (count + 7) // 8
            answer = data[:2] + bytes([size]) + bits.to_bytes(size, "little")
        if not self.mute:
            self.unread += answer + (b"\0\0" if self.garbles else checksum(answer))
