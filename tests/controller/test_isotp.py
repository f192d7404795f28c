"""Answers put together from frames: the note's real ones, can-isotp as the other end, and everything out of turn."""

from __future__ import annotations

import isotp as other_end
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.codec.isotp import FLOW_CONTROL, NOTHING, TIMEOUT_MS, Assembly


def frames(*texts: str) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


SHUNTS = frames("10 1A 61 06 14 55 55 51", "21 50 55 41 2B 56 54 15", "22 51 FF FF FF FF FF FF", "23" + "FF" * 7)


def heard(*parts: bytes, assembly: Assembly = NOTHING, every_ms: int = 10) -> Assembly:
    for n, part in enumerate(parts):
        assembly = assembly.receive(part, n * every_ms)
    return assembly


def test_a_recorded_answer_is_whole_after_its_last_frame_only():
    assembly = NOTHING
    for n, part in enumerate(SHUNTS):
        assembly = assembly.receive(part, 10 * n)
        assert assembly.incomplete is (n < 3)
        assert (assembly.whole is None) is (n < 3)
    assert assembly.whole == bytes.fromhex("61 06 14 55 55 51 50 55 41 2B 56 54 15 51") + b"\xff" * 12


def test_a_single_frame_is_an_answer_and_wants_no_flow_control():
    assembly = heard(bytes.fromhex("03 7F 21 12 FF FF FF FF"))
    assert assembly.whole == bytes.fromhex("7F 21 12")
    assert not assembly.incomplete


def answered_by(payload: bytes) -> tuple[bytes | None, int, list[Exception]]:
    """can-isotp sends the payload, driven by hand: what arrived, in how many frames, and what it complained of."""
    sent, to_it, complaints = [], [], []
    address = other_end.Address(other_end.AddressingMode.Normal_11bits, rxid=0x79B, txid=0x7BB)
    layer = other_end.TransportLayerLogic(
        rxfn=lambda timeout: to_it.pop(0) if to_it else None, txfn=sent.append, address=address,
        error_handler=complaints.append, params={"tx_padding": 0xFF, "tx_data_min_length": 8},
    )  # fmt: skip
    layer.send(payload)
    assembly, count = NOTHING, 0
    for turn in range(2 * len(payload) // 7 + 20):
        layer.process()
        for message in sent:
            count += 1
            assembly = assembly.receive(bytes(message.data), 10 * turn)
            if assembly.incomplete:
                to_it.append(other_end.CanMessage(arbitration_id=0x79B, data=FLOW_CONTROL))
        sent.clear()
        if assembly.whole is not None:
            break
    return assembly.whole, count, complaints


@pytest.mark.parametrize("length", [1, 7, 8, 13, 14, 112, 118, 198, 4095])
def test_another_implementation_is_understood_frame_by_frame(length: int):
    payload = bytes(n % 251 for n in range(length))
    whole, count, complaints = answered_by(payload)
    assert whole == payload
    assert count == (1 if length <= 7 else 1 + -(-(length - 6) // 7))
    assert complaints == []


def test_a_lost_frame_drops_the_answer_and_what_follows_is_ignored():
    assembly = heard(SHUNTS[0], SHUNTS[2])
    assert assembly == NOTHING
    assert heard(SHUNTS[3], assembly=assembly) == NOTHING


def test_a_repeated_frame_drops_the_answer():
    assert heard(SHUNTS[0], SHUNTS[1], SHUNTS[1]) == NOTHING


def test_a_pause_of_more_than_a_second_drops_the_answer():
    begun = heard(SHUNTS[0])
    assert begun.receive(SHUNTS[1], TIMEOUT_MS).incomplete
    assert begun.receive(SHUNTS[1], TIMEOUT_MS + 1) == NOTHING


def test_a_new_answer_takes_the_place_of_an_unfinished_one():
    assert heard(SHUNTS[0], SHUNTS[1], *SHUNTS).whole is not None


def test_the_number_of_a_frame_goes_round():
    payload = bytes(range(200))
    parts = [bytes([0x10, 200]) + payload[:6]]
    parts += [bytes([0x20 | n & 15]) + payload[at : at + 7] for n, at in enumerate(range(6, 200, 7), 1)]
    assert heard(*parts).whole == payload


@pytest.mark.parametrize(
    "data", ["", "00", "05 61 06", "0F 61 06 00 00 00 00 00", "10 07 61 06 00 00 00 00", "10 1A 61 06", "30 01 00",
             "21 00 00 00 00 00 00 00", "F0 00 00 00 00 00 00 00"]
)  # fmt: skip
def test_what_begins_no_answer_begins_none(data: str):
    assert heard(bytes.fromhex(data)) == NOTHING


def test_a_short_frame_inside_an_answer_drops_it_and_a_short_last_one_does_not():
    assert heard(SHUNTS[0], bytes.fromhex("21 50 55")) == NOTHING
    assert heard(bytes.fromhex("10 08 61 06 01 02 03 04"), bytes.fromhex("21 05 06")).whole is not None


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_no_noise_makes_an_answer_longer_or_shorter_than_announced(noise: list[bytes]):
    assembly = NOTHING
    for n, data in enumerate(noise):
        before, assembly = assembly, assembly.receive(data, n)
        assert len(assembly.data) < assembly.length or assembly.length == 0
        if assembly.whole is not None and data[0] >> 4 == 2:
            assert len(assembly.whole) == before.length
