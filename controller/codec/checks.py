"""Checksums and counters of the buses we speak; one function each, with its source."""

from __future__ import annotations


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
