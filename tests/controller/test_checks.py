"""Checksums against frames that others wrote down (Tesla note, sections 2.1 to 2.4; Leaf note, sections 1 to 3)."""

from __future__ import annotations

import pytest

from controller.codec.checks import leaf_crc8, leaf_nibble_sum, tesla_sum, with_nibble, with_tesla_sum


@pytest.mark.parametrize(
    ("can_id", "frame", "at"),
    [
        (0x221, "61 05 55 05 00 00 F0 D3", 7),
        (0x221, "60 55 55 15 54 51 01 E8", 7),
        (0x221, "61 05 55 05 00 00 10 F3", 7),
        (0x221, "60 55 55 15 54 51 21 08", 7),
        (0x221, "40 55 55 05 54 51 F5 AC", 7),
        (0x221, "41 05 55 55 01 00 04 18", 7),
        (0x221, "00 89 55 06 A4 51 F1 ED", 7),
        (0x221, "01 09 55 59 00 00 00 DB", 7),
        (0x221, "41 11 01 00 00 00 20 96", 7),
        (0x221, "61 15 01 00 00 00 20 BA", 7),
        (0x118, "AC 61 2A 00 00 08 00 00", 0),
        (0x118, "6F 8E 30 10 00 08 00 80", 0),
        (0x1CF, "01 00 00 1A 1C 02 E0 E9", 7),
        (0x39D, "E2 5A C1 27 00", 0),
        (0x2A8, "02 00 00 00 00 80 10 3C", 7),
        (0x2E8, "02 00 10 00 00 80 00 7C", 7),
        (0x213, "F0 05", 1),
        (0x293, "01 0C 55 91 55 15 01 F3", 7),
        (0x313, "00 00 00 05 00 00 00 1B", 7),
        (0x321, "EC 71 A7 6E 02 6C 00 04", 7),
        (0x334, "3F 3F C8 00 E2 3F 80 1E", 7),
        (0x334, "3F 3F 00 0F E2 3F 90 75", 7),
    ],
)
def test_the_additive_checksum_agrees_with_the_listed_frame(can_id: int, frame: str, at: int):
    data = bytes.fromhex(frame)
    assert tesla_sum(can_id, data, at) == data[at]
    spoiled = data[:at] + bytes((data[at] ^ 0xFF,)) + data[at + 1 :]
    assert with_tesla_sum(can_id, spoiled, at) == data


def test_0x3a1_is_not_additive_but_always_0x90_more():
    for frame in ("C3 FF FF FF 3D 00 D0 01", "08 62 0B 18 00 28 E2 CB", "08 62 0B 18 00 28 C2 AB"):
        data = bytes.fromhex(frame)
        assert (data[7] - tesla_sum(0x3A1, data, 7)) & 0xFF == 0x90


def test_a_counter_leaves_the_other_nibble_alone():
    data = bytes.fromhex("A5 A5")
    assert with_nibble(data, 1, 0xC, high=True) == bytes.fromhex("A5 C5")
    assert with_nibble(data, 0, 0xC, high=False) == bytes.fromhex("AC A5")


@pytest.mark.parametrize(
    "frame",
    [
        "FC E0 B5 6A 39 00 02 C2", "03 C0 C0 2A 50 00 03 34", "00 02 C9 FA 62 00 00 74", "FF 2D 96 82 02 00 01 03",
        "6E 0A 02 99 00 00 00 17", "16 82 D2 16 00 00 01 20", "00 00 00 03 00 00 02 B5", "8F 40 AA 00 E1 00 20 29",
        "ED 00 55 00 DC 00 21 85", "05 40 AA 00 4B 01 A2 94", "6E 6E 00 04 07 46 E0 12", "6E 6E 00 04 47 46 E0 D5",
        "6E 6E 00 04 87 46 E0 19", "6E 6E 00 04 C7 46 E0 DE", "00 00 00 00 5D C8", "00 00 00 01 B2 31",
        "00 00 00 02 5D 63", "00 00 00 03 B2 9A",
    ],
)  # fmt: skip
def test_the_crc_of_a_leaf_agrees_with_the_listed_frame(frame: str):
    data = bytes.fromhex(frame)
    assert leaf_crc8(data[:-1]) == data[-1]
    assert all(leaf_crc8(bytes([data[0] ^ 1 << bit]) + data[1:-1]) != data[-1] for bit in range(8))


def test_the_nibble_sum_of_a_leaf_agrees_with_the_listed_cycle():
    sums = bytes.fromhex("8F 80 81 82 8F 84 85 86 83 84 81 82 8F 80 81 86 83 84 85 86")
    for n, listed in enumerate(sums):
        data = bytes([0x10, 0x64, 0, 0xB4 if n // 5 % 2 else 0xB0, 0, 0x1E, n % 4, 0x80])
        assert leaf_nibble_sum(data) == listed & 0xF
        assert listed >> 4 == 8
