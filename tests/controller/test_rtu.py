"""Frames in a stream of bytes: none is lost, none is made up. The other opinion on every CRC is pymodbus'."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer.rtu import FramerRTU

from controller.codec import rtu
from controller.codec.rtu import Frame, crc16, encode, split
from tests.shared import LOGS, needs_shared

POLL = bytes.fromhex("1503012C001886E1")
ANNOUNCE = bytes.fromhex("151001900009120001ff00003c0000000061f57e4900000001afc2")
ANNOUNCED = bytes.fromhex("15100190000902ca")
METER = encode(0x28, bytes.fromhex("039c49000a"))


def frames(data: bytes, quiet: bool = True) -> list[Frame]:
    return [piece for piece in split(data, quiet)[0] if isinstance(piece, Frame)]


def with_crc(body: bytes) -> bytes:
    return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")


bodies = st.binary(min_size=2, max_size=254)


@given(bodies)
def test_the_crc_is_the_one_others_compute(body: bytes) -> None:
    assert encode(body[0], body[1:]) == with_crc(body)
    assert crc16(with_crc(body)) == 0


@needs_shared
def test_every_recorded_chunk_is_one_frame_of_the_kind_the_readme_says() -> None:
    seen = set()
    for path in sorted(LOGS.glob("*.rtu")):
        for line in path.read_text().splitlines():
            chunk = bytes.fromhex(line.split()[-1])
            (frame,), rest = split(chunk, quiet=False)
            assert isinstance(frame, Frame)
            request = (len(chunk) == 8) is (chunk[1] == 3)
            assert (frame, rest) == (Frame(21, chunk[1:-2], request), b"")
            seen.add((chunk[1], request))
    assert seen == {(3, True), (3, False), (16, True), (16, False)}


@pytest.mark.parametrize("chunk", [POLL, ANNOUNCE, ANNOUNCED, METER])
def test_a_frame_whose_content_tells_its_length_is_there_with_its_last_byte(chunk: bytes) -> None:
    for cut in range(len(chunk)):
        assert split(chunk[:cut], quiet=False) == ([], chunk[:cut])
    assert frames(chunk, quiet=False) == [Frame(chunk[0], chunk[1:-2], chunk is not ANNOUNCED)]


@pytest.mark.parametrize("stray", range(256))
def test_no_single_stray_byte_delays_the_poll_behind_it(stray: int) -> None:
    pieces, rest = split(bytes([stray]) + POLL, quiet=False)
    assert (pieces, rest) == ([bytes([stray]), Frame(21, POLL[1:-2], True)], b"")


@pytest.mark.parametrize("stray", [b"\0", b"\xff", b"\0\0", b"\xff\0\xff"])
def test_what_a_line_driver_leaves_in_front_delays_no_write(stray: bytes) -> None:
    write = bytes.fromhex("1510019100010200ff1551")
    assert split(stray + write, quiet=False) == ([stray, Frame(21, write[1:-2], True)], b"")


def test_a_write_is_no_answer_though_its_first_eight_bytes_have_a_right_crc() -> None:
    """The CRC of "written 1 register at 0x38E8" is 0x??02: a write there may begin like its own answer."""
    heads = (bytes.fromhex("1510") + wire.to_bytes(2, "big") + b"\0\1" for wire in range(0x10000))
    head = next(body for body in heads if with_crc(body)[6] == 2)
    write = with_crc(with_crc(head) + b"\x07")
    assert len(write) == 11
    assert crc16(write[:8]) == 0
    assert frames(write, quiet=False) == [Frame(21, write[1:-2], True)]


def test_an_answer_to_a_write_is_told_from_a_write_that_has_only_begun() -> None:
    heads = (bytes.fromhex("1510") + wire.to_bytes(2, "big") + b"\0\1" for wire in range(0x10000))
    answer = next(with_crc(body) for body in heads if with_crc(body)[6] == 2)
    assert split(answer, quiet=False) == ([], answer)
    assert frames(answer) == [Frame(21, answer[1:-2], False)]
    assert frames(answer + POLL, quiet=False)[-1] == Frame(21, POLL[1:-2], True)


def test_a_request_inside_the_answer_of_another_unit_is_not_seen() -> None:
    answer = encode(0x28, b"\x03\x14" + POLL + bytes(12))
    for cut in range(len(answer)):
        assert split(answer[:cut], quiet=False)[0] == []
    assert [frame.unit for frame in frames(answer, quiet=False)] == [0x28]


def test_a_half_frame_is_dropped_once_the_line_is_quiet() -> None:
    half = METER[:5]
    assert split(half + POLL, quiet=False) == ([], half + POLL)
    assert split(half + POLL, quiet=True) == ([half, Frame(21, POLL[1:-2], True)], b"")
    assert split(half, quiet=True) == ([half], b"")


@pytest.mark.parametrize("pdu", ["07", "0b", "11", "2b0e0100", "080000a5a5", "6401020304"])
def test_a_function_of_unknown_length_is_a_frame_when_the_line_is_quiet(pdu: str) -> None:
    chunk = encode(21, bytes.fromhex(pdu))
    assert frames(chunk, quiet=False) == []
    assert frames(chunk, quiet=True) == [Frame(21, bytes.fromhex(pdu), None)]


@pytest.mark.parametrize(
    ("pdu", "request_"),
    [
        ("0300640002", True), ("030453490001", False), ("0600640002", None),
        ("100064000100", True), ("1000640001020007", True), ("1000640001", False), ("8302", False),
        ("17006400020190000102ff00", True), ("170453490001", False),
        ("0f00640004010f", True), ("0f00640004", False), ("1407060000000a0002", None),
    ],
)  # fmt: skip
def test_the_length_tells_a_request_from_an_answer(pdu: str, request_: bool | None) -> None:
    assert frames(encode(21, bytes.fromhex(pdu)), quiet=False) == [Frame(21, bytes.fromhex(pdu), request_)]


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([POLL, ANNOUNCE, METER, ANNOUNCED]))), st.booleans())
def test_no_byte_is_lost_or_doubled_whatever_comes(parts: list[bytes], quiet: bool) -> None:
    data = b"".join(parts)
    pieces, rest = split(data, quiet)
    back = b"".join(p if isinstance(p, bytes) else encode(p.unit, p.pdu) for p in pieces)
    assert back + rest == data
    assert len(rest) < rtu.LONGEST
    assert not (quiet and rest)


@given(st.binary(max_size=600), st.lists(st.integers(1, 40)))
def test_how_the_stream_is_cut_changes_nothing(data: bytes, cuts: list[int]) -> None:
    data = METER + data + POLL
    whole = frames(data)
    heard, found = b"", []
    for at in [*cuts, len(data)]:
        heard, data = heard + data[:at], data[at:]
        pieces, heard = split(heard, quiet=False)
        found += [piece for piece in pieces if isinstance(piece, Frame)]
    assert found + frames(heard) == whole
