"""Checksums and counters of the buses we speak; one function each, with its source."""

from __future__ import annotations

from collections.abc import Sequence


def tesla_sum(can_id: int, data: bytes, at: int) -> int:
    """Additive checksum of a Tesla frame: every byte but the one at `at`, plus both bytes of the id, modulo 256.

    Source: section 2.1 of the Tesla protocol note; agrees with every listed payload of Battery-Emulator but 0x3A1.
    """
    return (sum(data) - data[at] + (can_id & 0xFF) + (can_id >> 8)) & 0xFF


def with_tesla_sum(can_id: int, data: bytes, at: int) -> bytes:
    """The frame with its checksum in byte `at`."""
    return data[:at] + bytes((tesla_sum(can_id, data, at),)) + data[at + 1 :]


def with_nibble(data: bytes, at: int, counter: int, *, high: bool) -> bytes:
    """The frame with a 4-bit counter in the high or low nibble of byte `at`; the other nibble stays."""
    byte = data[at] & 0x0F | counter << 4 if high else data[at] & 0xF0 | counter
    return data[:at] + bytes((byte,)) + data[at + 1 :]


def _crc8_table(polynomial: int) -> tuple[int, ...]:
    """What each byte becomes after eight shifts, most significant bit first."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte << 1 ^ polynomial if byte & 0x80 else byte << 1
        table.append(byte & 0xFF)
    return tuple(table)


_LEAF = _crc8_table(0x185)


def leaf_crc8(data: bytes) -> int:
    """CRC-8 of a Nissan Leaf: polynomial 0x85, from 0, not reflected. Over all bytes given.

    Source: section 1 of the Leaf protocol note; agrees with every 0x1DB, 0x1DC and 0x55B of the recordings.
    """
    crc = 0
    for byte in data:
        crc = _LEAF[crc ^ byte]
    return crc


def leaf_nibble_sum(data: bytes) -> int:
    """Low nibble of byte 7 of 0x1F2: all other nibbles of the frame and 2, modulo 16. Source as `leaf_crc8`."""
    return (sum((byte >> 4) + (byte & 0xF) for byte in data[:7]) + (data[7] >> 4) + 2) & 0xF


def juntek_vat_sum(data: bytes) -> int:
    """Last byte of a Juntek VAT frame: every byte before it, modulo 256. Source: opless/juntek-vat-python."""
    return sum(data) & 0xFF


def juntek_kg_sum(numbers: Sequence[int]) -> int:
    """Second field of a Juntek KG, KH or KL line, from the numbers behind it: 1 to 255. 0 there: it is not checked.

    Source: the manuals of the three, chapter "Communication protocol control".
    """
    return sum(numbers) % 255 + 1
