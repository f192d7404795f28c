"""The Leaf pack model: pinned by recordings, and heard by an ISO-TP stack that is not ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import isotp as other_end
import pytest

from controller.ports import CanFrame
from sim.leaf_pack import LeafPack, crc8
from tests.shared import LOGS, needs_shared

LINE = re.compile(r"\((\d+)\.(\d{6})\) \S+ ([0-9A-Fa-f]{3})#([0-9A-Fa-f]*)$")
RECORDED = {
    "ZE0": "leaf-ze0-shift-and-stop.log",
    "AZE0": "leaf-me0-40-startup.log",
    "ZE1": "leaf-ze1-62-drive-cells.log",
}
STARTS = {"AZE0": "leaf-me0-40-startup.log", "ZE1": "leaf-ze1-62-startup-ignition.log"}


def recorded(name: str) -> Iterator[tuple[int, int, bytes]]:
    """Milliseconds since the pack's first 0x1DB, id, data."""
    first = None
    for line in (LOGS / name).read_text(encoding="ascii").splitlines():
        if (match := LINE.match(line)) is None:
            continue
        at_ms, can_id = (int(match[1]) * 1_000_000 + int(match[2])) // 1000, int(match[3], 16)
        first = at_ms if first is None and can_id == 0x1DB else first
        if first is not None:
            yield at_ms - first, can_id, bytes.fromhex(match[4])


def spoken(pack: LeafPack, until_ms: int = 10_000) -> Iterator[tuple[int, int, bytes]]:
    for now_ms in range(0, until_ms, 10):
        yield from ((now_ms, each.id, each.data) for each in pack.step(now_ms))


def rhythm(frames: Iterator[tuple[int, int, bytes]]) -> dict[int, tuple[int, int]]:
    """Id → (length, middle gap in ms)."""
    stamps: dict[int, list[int]] = {}
    lengths: dict[int, int] = {}
    for at_ms, can_id, data in frames:
        stamps.setdefault(can_id, []).append(at_ms)
        lengths[can_id] = len(data)
    gaps = {i: sorted(b - a for a, b in pairwise(at)) for i, at in stamps.items() if len(at) > 2}
    return {i: (lengths[i], all_gaps[len(all_gaps) // 2]) for i, all_gaps in gaps.items()}


@needs_shared
@pytest.mark.parametrize("generation", RECORDED)
def test_it_sends_what_a_recorded_pack_sends_in_the_same_rhythm(generation: str):
    real, ours = rhythm(recorded(RECORDED[generation])), rhythm(spoken(LeafPack(generation)))  # type: ignore[arg-type]
    for can_id, (length, gap_ms) in ours.items():
        assert real[can_id][0] == length
        assert real[can_id][1] == pytest.approx(gap_ms, abs=2)


def status(data: bytes) -> tuple[bool, bool, int, int, int]:
    """Current known, interlock, permission, failsafe and cut, power status of 0x1DB."""
    known = (data[0] << 3 | data[1] >> 5) != 0x3FF
    return known, bool(data[3] >> 3 & 1), data[3] >> 5 & 1, data[1] & 0x1F, data[3] >> 1 & 3


def changes(frames: Iterator[tuple[int, int, bytes]]) -> list[tuple[int, tuple[bool, bool, int, int, int]]]:
    seen: list[tuple[int, tuple[bool, bool, int, int, int]]] = []
    for at_ms, can_id, data in frames:
        if can_id == 0x1DB and at_ms < 3_000 and (not seen or seen[-1][1] != status(data)):
            seen.append((at_ms, status(data)))
    return seen


@needs_shared
@pytest.mark.parametrize("name", STARTS.values())
def test_it_wakes_step_by_step_as_recorded_packs_do(name: str):
    """Nothing known, then the current, then permission, then the interlock; a ZE1 has its current 50 ms earlier."""
    real = [step for step in changes(recorded(name)) if step[1][4] == 1 or step[0] == 0]
    ours = changes(spoken(LeafPack("AZE0")))
    assert [step for _, step in ours] == [step for _, step in real]
    assert [at_ms for at_ms, _ in ours] == pytest.approx([at_ms for at_ms, _ in real], abs=20)


@needs_shared
def test_its_frames_are_the_recorded_ones_where_its_values_are():
    pack = LeafPack("AZE0", soc_pct=20.8, soh_pct=98, temp_c=26, max_charge_w=69_000.0)
    ours: dict[int, set[bytes]] = {}
    for _, can_id, data in spoken(pack):
        ours.setdefault(can_id, set()).add(data)
    real: dict[int, set[bytes]] = {}
    for _, can_id, data in recorded("leaf-me0-40-startup.log"):
        real.setdefault(can_id, set()).add(data)
    assert {data[:4] for data in ours[0x1DC]} == {data[:4] for data in real[0x1DC]}
    assert {data[:2] for data in ours[0x55B]} == {data[:2] for data in real[0x55B]}
    assert bytes.fromhex("ffc0ffffc4001fff") in ours[0x5BC] & real[0x5BC]
    assert {data[:2] for data in ours[0x5BC] if data[5] >> 4 & 1} == {b"\x7d\x00"}
    assert {data[:2] for data in real[0x5BC] if data[5] >> 4 & 1} == {b"\x7d\x00"}
    assert {data[0] >> 6 for data in ours[0x5C0]} == {data[0] >> 6 for data in real[0x5C0]} == {1, 2, 3}
    assert bytes.fromhex("408686") in {data[:3] for data in ours[0x5C0]} & {data[:3] for data in real[0x5C0]}
    assert bytes.fromhex("7fe0ffc67f00000d") in ours[0x1DB] & real[0x1DB]


@needs_shared
@pytest.mark.parametrize("generation", RECORDED)
def test_its_checksum_is_that_of_recorded_packs_and_of_its_own_frames(generation: str):
    for source in (recorded(RECORDED[generation]), spoken(LeafPack(generation))):  # type: ignore[arg-type]
        assert all(crc8(data[:7]) == data[7] for _, can_id, data in source if can_id in (0x1DB, 0x1DC, 0x55B))


@needs_shared
@pytest.mark.parametrize("number", [0x01, 0x02, 0x04, 0x06])
def test_its_answers_are_as_long_as_recorded_ones(number: int):
    lengths = {
        data[1]
        for _, can_id, data in recorded("leaf-ze1-62-drive-cells.log")
        if can_id == 0x7BB and data[0] == 0x10 and data[3] == number
    }
    answer = LeafPack("ZE1").group(number)
    assert answer is not None
    assert lengths == {2 + len(answer)}


def asked_by(pack: LeafPack, number: int, block: int) -> tuple[bytes | None, list[Exception]]:
    """can-isotp as the tester, driven by hand: what it received, and what it complained of."""
    heard: list[other_end.CanMessage] = []
    complaints: list[Exception] = []
    out: list[CanFrame] = []
    tester = other_end.TransportLayerLogic(
        rxfn=lambda timeout: heard.pop(0) if heard else None,
        txfn=lambda message: out.append(CanFrame(message.arbitration_id, bytes(message.data))),
        address=other_end.Address(other_end.AddressingMode.Normal_11bits, rxid=0x7BB, txid=0x79B),
        error_handler=complaints.append,
        params={"blocksize": block, "stmin": 0, "tx_padding": 0, "tx_data_min_length": 8},
    )  # fmt: skip
    tester.send(bytes((0x21, number)))
    for now_ms in range(0, 2_000, 10):
        heard += [
            other_end.CanMessage(arbitration_id=each.id, data=each.data)
            for each in pack.step(now_ms)
            if each.id == 0x7BB
        ]
        tester.process()
        pack.receive(out, now_ms)
        out.clear()
    return tester.recv(), complaints


@pytest.mark.parametrize("block", [0, 1, 4])
@pytest.mark.parametrize("number", [0x01, 0x02, 0x04, 0x06, 0x83, 0x84])
def test_another_tester_gets_each_answer_whole(number: int, block: int):
    pack = LeafPack("ZE1")
    answer, complaints = asked_by(pack, number, block)
    assert answer == bytes((0x61, number)) + (pack.group(number) or b"")
    assert complaints == []
    assert (pack.asked, pack.answered, pack.given_up) == ([number], 1, 0)


def test_a_group_it_does_not_know_is_refused_in_one_frame():
    assert asked_by(LeafPack("ZE1"), 0x77, 1)[0] == bytes.fromhex("7F 21 12")


def test_it_gives_up_when_flow_control_does_not_come_in_15_ms():
    pack = LeafPack("ZE1")
    pack.step(0)
    pack.receive([CanFrame(0x79B, bytes.fromhex("0221020000000000"))], 0)
    said = [each for now_ms in range(10, 200, 10) for each in pack.step(now_ms) if each.id == 0x7BB]
    assert [each.data[:2] for each in said] == [b"\x10\xc6"]
    assert (pack.answered, pack.given_up) == (0, 1)


@pytest.mark.parametrize(
    ("can_id", "right"),
    [(0x1D4, "6E 6E 00 04 07 46 E0 12"), (0x1F2, "10 64 00 B0 00 1E 00 8F"), (0x50C, "00 00 00 01 B2 31")],
)
def test_it_judges_what_it_hears(can_id: int, right: str):
    pack = LeafPack("ZE1")
    data = bytes.fromhex(right)
    pack.receive([CanFrame(can_id, data), CanFrame(can_id, data[:-1] + bytes((data[-1] ^ 1,)))], 0)
    assert (pack.heard[can_id], pack.refused[can_id]) == (1, 1)


def test_it_answers_the_question_of_the_self_test():
    pack = LeafPack("ZE1")
    pack.receive([CanFrame(0x50C, bytes.fromhex("00 00 00 01 B2 31"))], 0)
    assert [data[2] for _, can_id, data in spoken(pack, 200) if can_id == 0x55B] == [0xAA, 0xAA]


def test_what_goes_in_is_counted_and_raises_the_voltage():
    pack = LeafPack("AZE0")
    before_v = pack.pack_v
    for now_ms in range(0, 3_600_000, 1_000):
        pack.step(now_ms, 10.0)
    assert pack.soc_pct == pytest.approx(55.0 + 100 * 10 / (115 * 0.92), abs=0.05)
    assert pack.pack_v > before_v
    assert sum(pack.cells_v) == pytest.approx(pack.pack_v)


def test_without_its_supply_it_is_silent_and_wakes_anew():
    pack = LeafPack("ZE1")
    list(spoken(pack, 1_000))
    pack.powered = False
    assert pack.step(1_000) == []
    pack.powered = True
    assert status(pack.step(2_000)[0].data) == (False, False, 0, 0, 3)
