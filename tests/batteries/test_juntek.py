"""Juntek shunts: every worked example of the note, the recording, streams in any pieces, the whole controller."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.batteries import juntek
from controller.batteries.juntek import AT_REST, JuntekState, kg_poll, over, vat_poll
from controller.batteries.registry import BATTERIES
from controller.codec.checks import juntek_kg_sum, juntek_vat_sum
from controller.model.battery import BatterySnapshot, Feed
from controller.model.events import Event
from controller.model.settings import CHEMISTRIES, OptionValue
from controller.ports import CanFrame, SerialLine
from sim.small_packs import KgShunt, VatShunt
from statecharts.supervisor import State
from tests.batteries.life import ACTIVE, FAULT, Life
from tests.shared import LOGS, needs_shared

PROTOCOL = BATTERIES["juntek"]
VAT = {"model": "vat4300", "address": 32, "capacity_ah": 100.0}
KG = {"model": "kg-f", "address": 1, "capacity_ah": 500.0}
FRAMES = [
    bytes.fromhex("AA 1C 01 20 14 78 00 C8 00 0F FD C0 00 00 30 39 00 09 DE F4 00 00 0E 10 00 18 00 00 81"),
    bytes.fromhex("AA 1C 01 20 8D 90 FF 64 00 56 43 98 00 00 53 FC 00 76 E3 F0 00 01 51 80 00 1F 00 00 21"),
    bytes.fromhex("AA 1C 01 20 12 C5 00 00 00 00 00 00 00 01 86 A0 00 4E 20 00 00 01 5F CD 01 FD 00 00 7E"),
    bytes.fromhex("AA 1C 01 20 9C 40 04 B3 02 DE 40 C0 00 00 01 F4 00 03 0D 40 00 00 00 0F 00 19 00 00 C7"),
]
LINES = [
    b":r50=1,220,5366,5410,416983,289634,1427701,88851,128,0,0,1,3,4277,\r\n",
    b":r50=1,34,5166,1030,109337,11738441,62100651,48663,125,0,99,0,644,9117,\r\n",
    b":r50=2,215,2056,200,5408,4592,9437,14353,134,0,0,0,162,30682,\r\n",
    b":r50=1,229,1342,20,16022,52,71,43,123,0,99,1,1193,13392,\r\n",
    b":r50=1,123,1198,1090,7421,2749,437,298,113,0,0,1,69,100,230208,112418,\r\n",
]


def start(options: dict[str, OptionValue], **more: OptionValue) -> JuntekState:
    return cast(JuntekState, PROTOCOL.start(options | more))


def look(data: bytes, options: dict[str, OptionValue], **more: OptionValue) -> BatterySnapshot:
    return start(options, **more).hear(data, 1000).snapshot(1000)


# --- the worked examples of the note ---


@pytest.mark.parametrize(
    ("frame", "volts", "amps", "soc_pct", "celsius", "warns"),
    [
        (FRAMES[0], 52.40, -20.0, 87.7, 24, False),
        (FRAMES[1], 362.40, 15.6, 78.5, 31, False),
        (FRAMES[2], 48.05, 0.0, 0.0, -3, True),
        (FRAMES[3], 400.00, -120.3, 99.5, 25, False),
    ],
)
def test_vat(frame: bytes, volts: float, amps: float, soc_pct: float, celsius: float, warns: bool):
    pack = look(frame, VAT)
    assert (pack.pack_voltage_v, pack.current_a, pack.soc_pct) == (volts, amps, soc_pct)
    assert (pack.temp_min_c, pack.temp_max_c, pack.report.warns) == (celsius, celsius, warns)
    assert (pack.decoded_frames, pack.corrupt_frames) == (1, 0)


@pytest.mark.parametrize(
    ("line", "model", "address", "volts", "amps", "left_ah", "celsius", "output"),
    [
        (LINES[0], "kg-f", 1, 53.66, 54.1, 416.983, 28, ()),
        (LINES[1], "kg-f", 1, 51.66, -10.3, 109.337, 25, (99,)),
        (LINES[2], "kl-f", 2, 20.56, -2.0, 5.408, 34, ()),
        (LINES[3], "kh-f", 1, 13.42, 0.2, 16.022, 23, (99,)),
        (LINES[4], "kh-f", 1, 11.98, 10.9, 7.421, 13, ()),
    ],
)
def test_kg_kl_and_kh(
    line: bytes, model: str, address: int, volts: float, amps: float, left_ah: float, celsius: float,
    output: tuple[int, ...],
):  # fmt: skip
    pack = look(line, KG, model=model, address=address)
    assert (pack.pack_voltage_v, pack.current_a, pack.soc_pct) == (volts, amps, round(left_ah / 5, 1))
    assert (pack.temp_min_c, pack.report.alerts, pack.report.warns) == (celsius, output, False)


def numbers(line: bytes) -> tuple[int, list[int]]:
    """The checksum of a line, and what it is made of."""
    fields = [int(field) for field in line.split(b"=")[1].split(b",")[1:-1]]
    return fields[0], fields[1:]


@pytest.mark.parametrize("line", [LINES[0], LINES[1], LINES[3], b":r00=1,217,2140,110,6,", b":r00=1,177,4140,116,0,",
                                  b":r00=1,47,1120,100,101,", b":R50=1,2,1,", b":W60=1,51,50,"])  # fmt: skip
def test_every_checksum_the_note_verified(line: bytes):
    told, behind = numbers(line)
    assert juntek_kg_sum(behind) == told


def test_the_checksum_the_note_names_as_wrong_is_wrong():
    manual = b":r51=1,211,3000,100,2000,2000,10000,151,10,7,200,120,90,101,0,0,2,12,13,"
    assert juntek_kg_sum(numbers(manual)[1]) == 212


@pytest.mark.parametrize(
    ("command", "address", "poll"),
    [(0x01, 32, "AA040120CF"), (0x01, 27, "AA04011BCA"), (0x01, 1, "AA040101B0"), (0x02, 32, "AA040220D0"),
     (0xFF, 32, "AA04FF20CD"), (0x00, 32, "AA040020CE")],
)  # fmt: skip
def test_every_poll_of_the_note(command: int, address: int, poll: str):
    assert vat_poll(command, address).hex().upper() == poll


def test_the_poll_with_the_typing_error_fails_its_checksum():
    wrong = bytes.fromhex("AA 04 20 20 D0")
    assert juntek_vat_sum(wrong[:4]) != wrong[4]
    assert kg_poll(1) == b":R50=1,2,1,\r\n"


@needs_shared
def test_the_recording_holds_two_readings_and_nothing_corrupt():
    state = start(KG)
    seen = []
    for line in (LOGS / "juntek-kgf-serial.txt").read_bytes().splitlines(keepends=True):
        state = state.hear(line, 1000)
        seen.append(state.snapshot(1000))
    assert [(p.pack_voltage_v, p.current_a) for p in seen if p.pack_voltage_v] == [(53.66, 54.1), (51.66, -10.3)]
    assert (seen[-1].decoded_frames, seen[-1].corrupt_frames) == (2, 0)


# --- options ---


def test_each_model_has_its_line():
    assert PROTOCOL.line is not None
    assert PROTOCOL.line({}) == SerialLine(57_600)
    assert {PROTOCOL.line({"model": model}) for model in ("kg-f", "kl-f", "kh-f")} == {SerialLine(115_200)}


@pytest.mark.parametrize(("data", "options", "amps"), [(FRAMES[0], VAT, 20.0), (LINES[0], KG, -54.1)])
def test_the_sign_of_the_current_can_be_turned(data: bytes, options: dict[str, OptionValue], amps: float):
    assert look(data, options, invert_current=True).current_a == amps


def test_a_direction_that_is_neither_makes_the_current_unknown():
    behind = [5366, 5410, 416983, 289634, 1427701, 88851, 128, 0, 0, 7, 3, 4277]
    line = ",".join(map(str, [1, juntek_kg_sum(behind), *behind]))
    pack = look(f":r50={line},\r\n".encode(), KG)
    assert (pack.pack_voltage_v, pack.current_a, pack.feeds[Feed.CURRENT].valid_at_ms) == (53.66, None, None)


def test_without_a_capacity_there_is_no_soc():
    pack = look(FRAMES[0], VAT, capacity_ah=0.0)
    assert (pack.soc_pct, pack.soc_by, pack.feeds[Feed.SOC].valid_at_ms) == (None, None, None)


@pytest.mark.parametrize(
    ("output", "no_charge", "no_discharge"),
    [(0, False, False), (1, True, False), (3, False, True), (2, True, True), (6, True, True), (99, False, False),
     (255, False, False)],
)  # fmt: skip
def test_a_trip_of_the_shunts_own_protection_forbids_what_it_is_about(output: int, no_charge: bool, no_discharge: bool):
    report = look(KgShunt(output=output).answer(), KG).report
    assert (report.no_charge, report.no_discharge) == (no_charge, no_discharge)
    assert report.warns is (no_charge or no_discharge)


# --- the stream ---


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


NOISE = [b"", b"\xaa", b"\x1c\xaa\x1c", b":r5", b"\r\n", b",3,4277,\r\n", b"\x00\xff", vat_poll(1, 32), kg_poll(1)]


@given(st.lists(st.sampled_from(FRAMES), max_size=5), st.lists(st.integers(0, 10_000)), st.data())
def test_a_vat_stream_means_the_same_in_whatever_pieces_and_noise_between_costs_no_frame(
    frames: list[bytes], cuts: list[int], data: st.DataObject
):
    noise = data.draw(st.lists(st.sampled_from(NOISE), min_size=len(frames), max_size=len(frames)))
    stream = b"".join(n + f for n, f in zip(noise, frames, strict=True))
    state = start(VAT)
    for piece in pieces(stream, cuts):
        state = state.hear(piece, 1000)
    assert state.accepted == len(frames)
    assert state == start(VAT).hear(stream, 1000) or not stream


@given(st.lists(st.sampled_from([LINES[0], LINES[1]]), max_size=5), st.lists(st.integers(0, 10_000)), st.data())
def test_a_kg_stream_means_the_same_in_whatever_pieces_and_torn_lines_cost_no_whole_one(
    lines: list[bytes], cuts: list[int], data: st.DataObject
):
    torn = st.sampled_from([*NOISE, *(LINES[0][:cut] for cut in (5, 9, 40, -3))])
    noise = data.draw(st.lists(torn, min_size=len(lines), max_size=len(lines)))
    stream = b"".join(n + line for n, line in zip(noise, lines, strict=True))
    state = start(KG)
    for piece in pieces(stream, cuts):
        state = state.hear(piece, 1000)
    assert (state.accepted, state.corrupt) == (len(lines), 0)
    assert state == start(KG).hear(stream, 1000) or not stream


@given(st.sampled_from([VAT, KG]), st.lists(st.binary(max_size=80), max_size=20))
def test_whatever_comes_nothing_breaks_and_little_is_kept(options: dict[str, OptionValue], chunks: list[bytes]):
    state = start(options)
    for chunk in chunks:
        state = state.hear(chunk, 1000)
        assert len(state.tail) <= 256
    state.snapshot(1000)


@pytest.mark.parametrize(("options", "most"), [(VAT, 28), (KG, 256)])
def test_rubbish_without_an_end_is_not_kept(options: dict[str, OptionValue], most: int):
    state = start(options)
    for _ in range(100):
        state = state.hear(b":r50=\xaa" * 10, 1000)
    assert len(state.tail) <= most


@pytest.mark.parametrize("at", [*range(2, 29)])
def test_a_vat_frame_with_a_wrong_byte_is_refused_and_counted_and_the_next_one_is_read(at: int):
    wrong = FRAMES[1][:at] + bytes((FRAMES[1][at] ^ 0x10,)) + FRAMES[1][at + 1 :]
    state = start(VAT).hear(wrong, 1000)
    assert (state.accepted, state.corrupt) == (0, 1)
    assert state.snapshot(1000).pack_voltage_v is None
    assert state.hear(FRAMES[1], 1000).snapshot(1000).pack_voltage_v == 362.4


@pytest.mark.parametrize(
    "line",
    [
        LINES[0].replace(b"5366", b"5367"),
        LINES[0].replace(b",1,3,", b",0,3,"),
        LINES[0].replace(b"=1,220", b"=1,221"),
        LINES[0].replace(b"5366", b"53x6"),
        LINES[0].replace(b"5366", b"-5366"),
        b":r50=1,220,\r\n",
        b":r50=\r\n",
        b":r50=1,2,1,\r\n",
    ],
)
def test_a_kg_line_that_is_wrong_is_refused_and_counted(line: bytes):
    pack = look(line, KG)
    assert (pack.pack_voltage_v, pack.decoded_frames, pack.corrupt_frames) == (None, 0, 1)


def test_a_checksum_of_0_is_not_checked():
    assert look(LINES[0].replace(b"=1,220", b"=1,0"), KG).pack_voltage_v == 53.66


def test_half_a_frame_is_given_up_after_a_pause():
    state = start(VAT).hear(FRAMES[0][:20], 1000)
    assert state.hear(FRAMES[0][20:], 1400).accepted == 1
    late = state.hear(FRAMES[0][20:], 1600)
    assert (late.accepted, late.hear(FRAMES[1], 1700).accepted) == (0, 1)


@pytest.mark.parametrize(
    ("data", "options"),
    [(FRAMES[0], VAT | {"address": 1}), (LINES[2], KG), (FRAMES[0], KG), (LINES[0], VAT), (vat_poll(1, 32), VAT),
     (kg_poll(1), KG), (b":r00=1,217,2140,110,6,\r\n:r51=1,12,0,0,0,0,0,100,0,0,4200,100,100,100,0,0,1,\r\n", KG)],
)  # fmt: skip
def test_what_is_not_for_us_refreshes_nothing_and_is_not_counted(data: bytes, options: dict[str, OptionValue]):
    good = VatShunt(32).answer() if options["model"] == "vat4300" else KgShunt(int(options["address"])).answer()
    state = start(options)
    assert state.hear(data, 1000).snapshot(1000) == state.snapshot(1000)
    heard = start(options | {"address": options["address"]}).hear(good, 0)
    assert heard.hear(data, 1000).snapshot(1000) == heard.snapshot(1000)


# --- age ---


def test_before_the_first_answer_everything_is_unknown():
    pack = start(VAT).snapshot(0)
    assert pack._replace(feeds={}) == BatterySnapshot()
    assert {feed: f.valid_at_ms for feed, f in pack.feeds.items()} == dict.fromkeys(
        (Feed.VOLTAGE, Feed.CURRENT, Feed.SOC)
    )
    assert PROTOCOL.lacks == {Feed.CELLS, Feed.TEMPERATURES}


@pytest.mark.parametrize(("data", "options"), [(FRAMES[0], VAT), (LINES[0], KG)])
def test_after_5_s_everything_is_unknown(data: bytes, options: dict[str, OptionValue]):
    state = start(options).hear(data, 1000)
    assert state.snapshot(6000) == state.snapshot(1000)
    pack = state.snapshot(6001)
    assert pack._replace(feeds={}) == BatterySnapshot(decoded_frames=1)
    assert not any(freshness.fresh(6001) for freshness in pack.feeds.values())


# --- polls ---


def asked(state: JuntekState, until_ms: int) -> list[tuple[int, str]]:
    said = []
    for now_ms in range(0, until_ms, 10):
        state, question = state.ask(now_ms)
        if question:
            said.append((now_ms, question.hex().upper()))
    return said


def test_a_vat_is_polled_each_second_and_woken_while_it_is_silent():
    wakes = [(500 + 1000 * n, "AA04FF20CD") for n in range(3)]
    polls = [(1000 * n, "AA040120CF") for n in range(3)]
    assert asked(start(VAT), 3000) == sorted(wakes + polls)


def test_a_vat_that_answers_is_not_woken_until_it_was_silent_for_3_s():
    said = asked(start(VAT).hear(FRAMES[0], 0), 5000)
    assert [at for at, question in said if question == "AA04FF20CD"] == [3500, 4500]


def test_a_kg_is_polled_each_second():
    assert asked(start(KG), 2500) == [(at, kg_poll(1).hex().upper()) for at in (0, 1000, 2000)]


@pytest.mark.parametrize("options", [VAT, KG])
def test_with_its_display_connected_nothing_is_ever_asked(options: dict[str, OptionValue]):
    assert asked(start(options, listen_only=True), 10_000) == []


def test_nothing_is_sent_or_taken_on_can():
    state = start(VAT)
    assert state.receive([CanFrame(0x501, bytes(8))], 0) is state
    assert state.transmit(frozenset(), 0) == (state, ())
    assert PROTOCOL.explain(CanFrame(0x501, bytes(8))) == ()


# --- the charge ---


def rested(shunt: VatShunt, minutes: float, state: JuntekState | None = None, **options: OptionValue) -> JuntekState:
    """After a time in which it answered every second."""
    chosen = VAT | {"address": 1, "cells": 96, "chemistry": "nca"} | options
    state = start(chosen) if state is None else state
    begin_ms = state.heard_ms + 1000
    for now_ms in range(begin_ms, begin_ms + int(minutes * 60_000) + 1, 1000):
        state = state.hear(shunt.answer(), now_ms)
    return state


def soc(state: JuntekState) -> tuple[float | None, str | None]:
    pack = state.snapshot(state.heard_ms)
    return pack.soc_pct, pack.soc_by


FULL_LOOKING = {"pack_v": 96 * 4.066, "used_ah": 70.0}
"""4.066 V a cell are 83.9 % of nca; the counter says 30 %."""


def test_a_counter_that_agrees_with_the_voltage_is_believed():
    assert soc(rested(VatShunt(pack_v=96 * 3.694, used_ah=60.0), 30)) == (40.0, "counter")


def test_a_counter_far_off_is_put_right_by_the_voltage_only_after_a_quarter_of_an_hour_at_rest():
    shunt = VatShunt(**FULL_LOOKING)
    early = rested(shunt, 14.9)
    assert soc(early) == (30.0, "counter")
    late = rested(shunt, 1, early)
    expected = over(AT_REST["nca"], round(96 * 4.066, 2) / 96 - 0.020)
    assert soc(late) == (pytest.approx(expected, abs=0.1), "voltage")


def test_a_corrected_charge_counts_on_with_the_counter():
    shunt = VatShunt(**FULL_LOOKING)
    state = rested(shunt, 16)
    before = soc(state)[0]
    shunt.current_a, shunt.used_ah = -20.0, 75.0
    assert soc(rested(shunt, 0.1, state)) == (pytest.approx(before - 5.0, abs=0.05), "voltage")


def test_a_counter_that_comes_right_is_believed_again_at_the_next_rest():
    shunt = VatShunt(**FULL_LOOKING)
    state = rested(shunt, 16)
    shunt.used_ah = 14.0
    assert soc(rested(shunt, 1, state)) == (86.0, "counter")


@pytest.mark.parametrize("amps", [1.1, -1.1])
def test_under_load_the_voltage_corrects_nothing(amps: float):
    assert soc(rested(VatShunt(**FULL_LOOKING, current_a=amps), 60)) == (30.0, "counter")


def test_a_pause_in_the_data_is_no_rest():
    shunt = VatShunt(**FULL_LOOKING)
    state = rested(shunt, 10)
    state = state._replace(heard_ms=state.heard_ms + 6000)
    assert soc(rested(shunt, 10, state)) == (30.0, "counter")
    assert soc(rested(shunt, 10, rested(shunt, 10)))[1] == "voltage"


def test_the_flat_curve_of_lfp_leaves_the_counter_alone():
    for used_ah in (35.0, 65.0):
        shunt = VatShunt(pack_v=96 * 3.30, used_ah=used_ah)
        assert soc(rested(shunt, 20, chemistry="lfp"))[1] == "counter"
    assert soc(rested(VatShunt(pack_v=96 * 3.10, used_ah=10.0), 20, chemistry="lfp"))[1] == "voltage"


def test_without_a_curve_or_a_cell_count_the_counter_stands_alone():
    assert soc(rested(VatShunt(**FULL_LOOKING), 20, chemistry="lto")) == (30.0, "counter")
    assert soc(rested(VatShunt(**FULL_LOOKING), 20, cells=0)) == (30.0, "counter")


def test_the_charge_stays_within_0_and_100_percent():
    assert soc(rested(VatShunt(used_ah=130.0, current_a=-5.0), 0.1)) == (0.0, "counter")


@pytest.mark.parametrize("chemistry", AT_REST)
def test_every_curve_rises_from_0_to_100_percent_and_belongs_to_a_chemistry(chemistry: str):
    curve = AT_REST[chemistry]
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(curve))
    assert (curve[0][1], curve[-1][1]) == (0.0, 100.0)
    assert chemistry in CHEMISTRIES


# --- the whole controller ---


def shunts() -> list[tuple[str, VatShunt | KgShunt]]:
    return [("vat4300", VatShunt()), ("kg-f", KgShunt())]


@pytest.mark.parametrize(("model", "shunt"), shunts(), ids=["vat4300", "kg-f"])
def test_it_runs_once_enabled_and_permitted_and_offers_the_configured_power(model: str, shunt: VatShunt | KgShunt):
    life = Life("juntek", shunt, model=model, capacity_ah=100.0)
    assert life.run_ms(1900).state is State.STANDBY
    life.running()
    assert (life.state, life.status, life.offered) == (State.RUNNING, ACTIVE, (5000, 5000))
    assert (life.snapshot.soc_pct, life.snapshot.pack_voltage_v) == (50.0, 360.0)
    assert (life.snapshot.cell_min_v, life.snapshot.cell_max_v) == (None, None)
    assert life.relays.history == [frozenset()]


def test_a_box_that_lost_its_power_is_woken():
    shunt = VatShunt(asleep=True)
    life = Life("juntek", shunt, capacity_ah=100.0).until(State.RUNNING)
    assert not shunt.asleep
    assert vat_poll(0xFF, 1) in life.asked


@pytest.mark.parametrize(("model", "shunt"), shunts(), ids=["vat4300", "kg-f"])
def test_silence_is_zero_after_5_s_and_open_shortly_after(model: str, shunt: VatShunt | KgShunt):
    life = Life("juntek", shunt, model=model, capacity_ah=100.0).running()
    shunt.silent = True
    began_ms = life.clock.ms
    life.until(State.FAULT, 8000)
    last_ms = life.told[Event.PACK_DATA_STALE] - 5010
    assert began_ms - 1010 <= last_ms <= began_ms
    assert life.told[Event.PACK_DATA_LOST] - last_ms == 5610
    assert (life.limits, life.offered, life.status) == ((0.0, 0.0), (0, 0), FAULT)


def test_corrupt_answers_are_silence_with_a_warning():
    class Noisy(VatShunt):
        def answer(self) -> bytes:
            said = super().answer()
            return said[:7] + bytes((said[7] ^ self.inverted,)) + said[8:]

        inverted = 0

    shunt = Noisy()
    life = Life("juntek", shunt, capacity_ah=100.0).running()
    shunt.inverted = 0x40
    life.until(State.FAULT, 8000)
    assert {Event.FRAMES_CORRUPT, Event.PACK_DATA_LOST} <= set(life.told)


def test_limits_taper_with_the_mean_cell():
    shunt = VatShunt(used_ah=15.0)
    life = Life("juntek", shunt, capacity_ah=100.0).running()
    offers = []
    for cell_v in (4.04, 4.10, 4.12, 4.15):
        shunt.pack_v = 96 * cell_v
        offers.append(life.run_ms(12_000).offered[0])
    assert offers[0] == 5000
    assert 0 < offers[2] < offers[1] < offers[0]
    assert offers[3] == 0
    assert life.limits[1] == 5000.0
    assert life.state is State.RUNNING


def test_an_empty_mean_cell_ends_discharging():
    shunt = VatShunt(used_ah=80.0)
    life = Life("juntek", shunt, capacity_ah=100.0).running()
    shunt.pack_v = 96 * 3.10
    assert life.run_ms(12_000).limits == (5000.0, 0.0)


def test_without_a_capacity_nothing_runs():
    life = Life("juntek", VatShunt()).run_ms(61_000)
    assert life.state is State.STANDBY
    assert "battery: unknown soc_pct" in life.loop.state.withheld


def test_the_module_names_a_dialect_for_every_model():
    options = {option.name: option for option in PROTOCOL.options}
    assert options["model"].choices == tuple(juntek.DIALECTS)
