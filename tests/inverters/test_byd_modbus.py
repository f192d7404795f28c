"""The BYD register image against the seed's dump, a real HVM 11.0 and a Gen24's own writes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.codec.registers import Block, RegisterError
from controller.inverters import byd_modbus
from controller.inverters.byd_modbus import ASKED, BLOCKS, IDENTITY, LIVE, NAMEPLATE, PROTOCOL, BydModbusState
from controller.inverters.registry import INVERTERS
from controller.model.inverter import InverterStatus, InverterView
from controller.ports import RegisterWrite

SHARED = Path(__file__).parents[2].parent / "shared"
Words = tuple[int, ...]

VIEW = InverterView(
    status=InverterStatus.ACTIVE,
    soc_pct=49.1,
    soh_pct=88.3,
    energy_full_wh=30_000.0,
    max_charge_w=4_000.0,
    max_discharge_w=5_000.0,
    pack_voltage_v=361.92,
    outer_voltage_v=361.8,
    current_a=2.0,
    power_w=723.8,
    temp_min_c=23.0,
    temp_max_c=27.0,
    cell_min_v=3.764,
    cell_max_v=3.778,
    design_max_v=402.56,
    design_min_v=242.14,
    max_power_w=6_000.0,
    charged_wh=1_071_317.0,
    discharged_wh=904_032.0,
)


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here; it comes with the development machine, not with the repository")
    return path


def image(view: InverterView, state: BydModbusState | None = None) -> Mapping[int, Words]:
    _, answer = (state or PROTOCOL.start()).answer(view, 0)
    assert answer.registers is not None
    return answer.registers


def live(view: InverterView) -> dict[str, Any]:
    return LIVE.decode(image(view)[301])


def heard(*writes: tuple[int, tuple[int, ...]], at_ms: int = 0, state: BydModbusState | None = None) -> BydModbusState:
    """The state after each write in a tick of its own, all at one time."""
    state = state or PROTOCOL.start()
    for register, values in writes:
        state = state.receive((), [RegisterWrite(register, values)], 1, at_ms)
    return state


# --- the seed's dump ---


def seed_json() -> dict[str, Any]:
    text = shared("seed/batt2gen24-README.txt").read_text("utf-8")
    found = re.search(r"Received message b'(\{.*?\})' on topic 'inverter/data'", text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1].replace("\n", ""))
    return data


def seed_dump() -> dict[str, Words]:
    text = shared("seed/batt2gen24-README.txt").read_text("utf-8")
    return {
        first: tuple(int(word) for word in words.split(","))
        for first, words in re.findall(r"^(\d+): \[([\d,\s]+)\]", text, re.MULTILINE)
    }


def seed_view() -> InverterView:
    data = seed_json()
    return InverterView(
        status={3: InverterStatus.ACTIVE}[data["status"]],
        soc_pct=data["soc"],
        soh_pct=data["soh"],
        energy_full_wh=data["static_nominal_capacity"],
        max_charge_w=data["target_charge_power"],
        max_discharge_w=data["target_discharge_power"],
        pack_voltage_v=data["batt_voltage"],
        outer_voltage_v=data["batt_voltage"],
        current_a=0.0,
        power_w=data["batt_power"],
        temp_min_c=data["cell_temp_min"],
        temp_max_c=data["cell_temp_max"],
        cell_min_v=data["cell_voltage_min"],
        cell_max_v=data["cell_voltage_max"],
        design_max_v=data["static_max_voltage"],
        design_min_v=data["static_min_voltage"],
        max_power_w=data["static_max_power"],
        charged_wh=None,
        discharged_wh=None,
    )


@pytest.mark.parametrize("first", ["101", "201", "301", "401", "1001"])
def test_the_seeds_json_becomes_the_seeds_dump_value_by_value(first: str) -> None:
    state = heard((401, (1,)), state=PROTOCOL.start({"serial": "Pelle"}))
    served = dict(enumerate(image(seed_view(), state)[int(first)], int(first)))
    assert served == dict(enumerate(seed_dump()[first], int(first)))


def test_the_seeds_pack_is_60_kwh_and_told_as_32() -> None:
    assert seed_json()["static_nominal_capacity"] == 60_000
    assert (image(seed_view())[201][2], image(seed_view())[301][4]) == (32_000, 32_000)


# --- worked examples of the note, and recorded answers ---

REAL_LIVE = """
    00 03 00 00 00 80 01 d6 2a c4 02 02 00 00 20 9c 07 ff 00 00 08 09 00 00 00 3c 00 46 00 00 00 00 00 10 58 d5
    00 00 00 00 00 0d cb 60 00 5a 26 ac
"""
REAL_LIVE_VALUES = {
    "status": 3, "mode": 128, "soc_pct": 4.7, "energy_full_wh": 10948, "energy_remaining_wh": 514,
    "max_discharge_w": 0, "max_charge_w": 8348, "outer_voltage_v": 204.7, "outer_discharge_w": 0,
    "inner_voltage_v": 205.7, "inner_discharge_w": 0, "temp_min_c": 6.0, "temp_max_c": 7.0, "charged_wh": 1_071_317,
    "discharged_wh": 904_032, "device_temp_c": 9.0, "soh_pct": 99.0,
}  # fmt: skip
REAL_PLATE = "0000 0000 2b33 2800 2800 0920 0640 3400 000a 3400 000a 0000 0000"
REAL_PLATE_VALUES = {
    "energy_full_wh": 11059, "max_power_w": 10240, "max_power_again_w": 10240, "design_max_v": 233.6,
    "design_min_v": 160.0, "peak_power_w": 13312, "peak_s": 10, "peak_power_again_w": 13312, "peak_again_s": 10,
}  # fmt: skip
OTHER_PLATE = (0, 0, 44236, 40960, 40960, 4672, 3200, 53248, 10, 53248, 10, 0, 0)
OTHER_PLATE_VALUES = {
    "energy_full_wh": 44236, "max_power_w": 40960, "max_power_again_w": 40960, "design_max_v": 467.2,
    "design_min_v": 320.0, "peak_power_w": 53248, "peak_s": 10, "peak_power_again_w": 53248, "peak_again_s": 10,
}  # fmt: skip
OTHER_LIVE = (
    3, 0, 128, 3200, 24000, 7680, 0, 4312, 1734, 61760, 1732, 61760, 140, 150, 0, 0, 101, 9912, 0, 0, 92, 7448, 230,
    9850,
)  # fmt: skip
OTHER_LIVE_VALUES = {
    "status": 3, "mode": 128, "soc_pct": 32.0, "energy_full_wh": 24000, "energy_remaining_wh": 7680,
    "max_discharge_w": 0, "max_charge_w": 4312, "outer_voltage_v": 173.4, "outer_discharge_w": -3776,
    "inner_voltage_v": 173.2, "inner_discharge_w": -3776, "temp_min_c": 14.0, "temp_max_c": 15.0,
    "charged_wh": 6_629_048, "discharged_wh": 6_036_760, "device_temp_c": 23.0, "soh_pct": 98.5,
}  # fmt: skip


def words_of(text: str) -> Words:
    raw = bytes.fromhex(text)
    return tuple(int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2))


@pytest.mark.parametrize(
    ("block", "words", "values"),
    [
        (LIVE, words_of(REAL_LIVE), REAL_LIVE_VALUES),
        (NAMEPLATE, words_of(REAL_PLATE), REAL_PLATE_VALUES),
        (NAMEPLATE, OTHER_PLATE, OTHER_PLATE_VALUES),
        (LIVE, OTHER_LIVE, OTHER_LIVE_VALUES),
    ],
    ids=["5.2 live", "5.3 nameplate", "5.4 nameplate", "5.4 live"],
)
def test_the_notes_examples_read_as_it_says_and_are_written_back_word_by_word(
    block: Block, words: Words, values: dict[str, Any]
) -> None:
    assert block.decode(words) == values
    assert block.encode(values) == words


def test_the_inverters_clock_reads_as_the_note_says() -> None:
    written = words_of("0001 ff00 003c 0000 0000 61f5 7e49 0000 0001")
    asked = ASKED.decode(image(VIEW, heard((401, written)))[401])
    assert asked["inverter_time_s"] == 1_643_478_601  # 2022-01-29 17:50:01 UTC
    assert (asked["heartbeat_period_s"], asked["inverter_time_valid"]) == (60, 1)


def recorded_frames() -> Iterator[bytes]:
    for name in ("active", "ready", "standby", "standby-text"):
        for line in shared(f"logs/byd-gen24-{name}.rtu").read_text().splitlines():
            if line.strip():
                yield bytes.fromhex(line.split()[-1])


def recorded_live() -> list[Words]:
    return [words_of(frame[3:-2].hex()) for frame in recorded_frames() if frame[:3] == b"\x15\x03\x30"]


def test_every_recorded_answer_is_read_and_written_back_word_by_word() -> None:
    answers = recorded_live()
    assert len(answers) >= 38
    assert [LIVE.encode(LIVE.decode(words)) for words in answers] == answers


def test_our_image_of_a_recorded_battery_differs_only_where_we_mean_it_to() -> None:
    """We copy the highest cell temperature to 323, never send mode 144 nor a residue in 309 while open."""
    for words in recorded_live():
        values: dict[str, Any] = LIVE.decode(words)
        view = VIEW._replace(
            status={code: status for status, code in byd_modbus.STATUS.items()}[values["status"]],
            soc_pct=values["soc_pct"],
            soh_pct=values["soh_pct"],
            energy_full_wh=values["energy_full_wh"],
            max_charge_w=values["max_charge_w"],
            max_discharge_w=values["max_discharge_w"],
            pack_voltage_v=values["inner_voltage_v"],
            outer_voltage_v=values["outer_voltage_v"],
            power_w=-values["inner_discharge_w"],
            temp_min_c=values["temp_min_c"],
            temp_max_c=values["temp_max_c"],
            charged_wh=values["charged_wh"],
            discharged_wh=values["discharged_wh"],
        )
        ours = dict(enumerate(image(view)[301], 301))
        theirs = dict(enumerate(words, 301))
        meant = {303, 323} if values["status"] == 3 else {303, 309, 323}
        assert {number for number in ours if ours[number] != theirs[number]} <= meant


# --- block 201 ---


def test_the_capacity_is_capped_alike_in_203_305_and_306() -> None:
    served = image(VIEW._replace(energy_full_wh=78_000.0, soc_pct=50.0))
    assert (served[201][2], served[301][4], served[301][5]) == (32_000, 32_000, 16_000)


def test_the_cap_can_be_moved_up_to_three_towers() -> None:
    state = PROTOCOL.start({"capacity_cap_wh": 57_960})
    served = image(VIEW._replace(energy_full_wh=78_000.0), state)
    assert (served[201][2], served[301][4]) == (57_960, 57_960)


def test_a_primo_is_told_at_most_450_volts() -> None:
    view = VIEW._replace(design_max_v=498.0)
    assert image(view)[201][5] == 4980
    assert image(view, PROTOCOL.start({"primo": True}))[201][5] == 4500


def test_an_unknown_voltage_window_is_told_as_zero() -> None:
    assert image(VIEW._replace(design_max_v=None, design_min_v=None))[201][5:7] == (0, 0)


def test_a_foreign_option_is_refused() -> None:
    with pytest.raises(KeyError, match="capacity"):
        PROTOCOL.start({"capacity": 1})


# --- block 301 ---


def test_charging_is_negative_on_the_wire_with_mode_129() -> None:
    served = image(VIEW._replace(power_w=1000.0))[301]
    assert (served[2], served[9], served[11]) == (129, 0xFC18, 0xFC18)


def test_discharging_is_positive_on_the_wire_with_mode_130() -> None:
    served = image(VIEW._replace(power_w=-1000.0))[301]
    assert (served[2], served[9], served[11]) == (130, 1000, 1000)


def test_less_than_one_watt_is_idle() -> None:
    assert image(VIEW._replace(power_w=0.9))[301][2] == 128


def test_power_beyond_16_bits_is_clamped_and_keeps_its_direction() -> None:
    assert live(VIEW._replace(power_w=90_000.0))["outer_discharge_w"] == -32_768
    assert live(VIEW._replace(power_w=-90_000.0))["outer_discharge_w"] == 32_767


@pytest.mark.parametrize("status", [status for status in InverterStatus if status is not InverterStatus.ACTIVE])
def test_outside_voltage_and_power_are_zero_unless_active(status: InverterStatus) -> None:
    values = live(VIEW._replace(status=status))
    assert (values["outer_voltage_v"], values["outer_discharge_w"], values["inner_discharge_w"]) == (0, 0, 0)
    assert values["mode"] == 128
    assert values["inner_voltage_v"] == 361.9


def test_each_status_has_its_code() -> None:
    codes = {status.value: live(VIEW._replace(status=status))["status"] for status in InverterStatus}
    assert codes == {"STANDBY": 0, "INACTIVE": 1, "ACTIVE": 3, "FAULT": 4, "UPDATING": 5}


def test_no_more_than_30_kilowatts_are_offered() -> None:
    values = live(VIEW._replace(max_charge_w=60_000.0, max_discharge_w=99_000.0))
    assert (values["max_charge_w"], values["max_discharge_w"]) == (30_000, 30_000)


@pytest.mark.parametrize("name", ["soc_pct", "energy_full_wh", "pack_voltage_v", "temp_min_c", "temp_max_c"])
@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_no_power_is_offered_while_a_number_it_rests_on_is_unknown(name: str, value: float | None) -> None:
    changes: dict[str, Any] = {name: value}
    values = live(VIEW._replace(**changes))
    assert (values["max_charge_w"], values["max_discharge_w"]) == (0, 0)


def test_a_limit_that_is_no_number_offers_nothing() -> None:
    values = live(VIEW._replace(max_charge_w=float("nan"), max_discharge_w=-5.0))
    assert (values["max_charge_w"], values["max_discharge_w"]) == (0, 0)


def test_everything_unknown_is_told_as_zero_and_offers_nothing() -> None:
    changes: dict[str, Any] = dict.fromkeys((name for name in InverterView._fields if name != "status"), None)
    changes |= {"max_charge_w": 9e3, "max_discharge_w": 9e3, "max_power_w": 6e3}
    view = VIEW._replace(**changes)
    assert {name for name, value in live(view).items() if value} == {"status", "mode"}


def test_an_unknown_health_is_told_as_zero_and_costs_no_power() -> None:
    values = live(VIEW._replace(soh_pct=None, charged_wh=None, discharged_wh=None, power_w=None))
    assert values["soh_pct"] == 0
    assert (values["max_charge_w"], values["max_discharge_w"]) == (4_000, 5_000)


def test_cold_is_told_in_twos_complement() -> None:
    served = image(VIEW._replace(temp_min_c=-12.5, temp_max_c=-0.5))[301]
    assert (served[12], served[13], served[22]) == (0x10000 - 125, 0x10000 - 5, 0x10000 - 5)


def test_energy_counters_take_64_bits() -> None:
    served = image(VIEW)[301]
    assert (served[14:18], served[18:22]) == ((0, 0, 16, 22741), (0, 0, 13, 52064))


NUMBERS = st.none() | st.floats(width=32) | st.integers(-100_000, 100_000).map(float)
SURE = st.floats(width=32)
VIEWS = st.builds(
    InverterView,
    status=st.sampled_from(InverterStatus),
    **{name: NUMBERS for name in InverterView._fields if not name.startswith(("status", "max_"))},
    **dict.fromkeys(("max_charge_w", "max_discharge_w", "max_power_w"), SURE),
)


@given(VIEWS)
def test_whatever_the_view_every_word_is_a_word_and_no_limit_is_exceeded(view: InverterView) -> None:
    served = image(view)
    assert [len(served[first]) for first in (101, 201, 301, 401, 1001, 12289)] == [68, 13, 24, 20, 100, 768]
    assert all(0 <= word <= 0xFFFF for words in served.values() for word in words)
    values: dict[str, Any] = LIVE.decode(served[301])
    for name in ("max_charge_w", "max_discharge_w"):
        limit = getattr(view, name)
        assert values[name] <= (0 if math.isnan(limit) else max(limit + 1e-6, 0))
    assert values["energy_remaining_wh"] <= values["energy_full_wh"] <= 32_000
    if view.status is not InverterStatus.ACTIVE:
        assert (values["outer_voltage_v"], values["outer_discharge_w"]) == (0, 0)


# --- block 401 and what the Gen24 asks ---


def test_the_captured_start_up_is_announced_then_given_its_go() -> None:
    """17:49:59 to 17:50:10 of the capture: polled, 401 = 1, heartbeat, 401 = 2."""
    standby = VIEW._replace(status=InverterStatus.STANDBY)
    state = PROTOCOL.start().receive((), (), 1, 900)
    assert (state.request(900).go, image(standby, state)[301][0]) == (None, 0)
    state = heard((401, words_of("0001 ff00 003c 0000 0000 61f5 7e49 0000 0001")), at_ms=1_100, state=state)
    assert (state.request(1_100).go, image(standby, state)[301][0]) == (False, 1)
    assert image(standby, state)[401][1] == 0xFF00
    state = heard((402, (0x00FF,)), at_ms=1_830, state=state)
    assert image(standby, state)[401][1] == 0x00FF
    state = heard((401, (2,)), at_ms=6_410, state=state)
    assert (state.request(6_410).go, image(standby, state)[301][0]) == (True, 0)
    assert image(VIEW, state)[301][0] == 3


@pytest.mark.parametrize(("code", "go"), [(0, False), (1, False), (2, True), (3, False), (0xFFFF, False)])
def test_only_401_equal_2_is_a_go(code: int, go: bool) -> None:
    assert heard((401, (code,))).request(0).go is go


def test_before_any_write_there_is_neither_go_nor_refusal() -> None:
    state = PROTOCOL.start()
    assert (state.request(0).go, state.request(0).heard_at_ms) == (None, None)
    assert image(VIEW, state)[401] == (0, 0xFF00, *(0,) * 18)


def test_a_write_to_402_alone_says_nothing_about_the_go() -> None:
    assert heard((402, (0x00FF,))).request(0).go is None


def test_the_go_is_revoked_by_writing_zero() -> None:
    assert heard((401, (2,)), (401, (0,))).request(0).go is False


def test_polls_keep_the_inverter_heard() -> None:
    state = heard((401, (2,)))
    for at_ms in range(5_000, 600_000, 5_000):
        state = state.receive((), (), 1, at_ms)
        assert (state.request(at_ms).go, state.request(at_ms).heard_at_ms) == (True, at_ms)
    assert state.receive((), (), 0, 700_000).request(700_000).heard_at_ms == 595_000


def test_a_go_does_not_survive_a_minute_of_silence() -> None:
    """The Gen24 then searches anew and announces itself: yesterday's go must not close onto a starting inverter."""
    state = heard((401, (2,)))
    assert state.request(60_000).go is True
    assert state.request(60_001).go is None
    assert state.receive((), (), 1, 60_001).request(60_001).go is None


def test_its_heartbeat_is_the_last_change_of_402_and_begins_anew_after_silence() -> None:
    state = heard((401, (2,)), at_ms=500)
    assert state.request(500).beat_at_ms == 500
    state = heard((402, (0x00FF,)), at_ms=57_000, state=state)
    assert state.request(57_000).beat_at_ms == 57_000
    state = heard((402, (0x00FF,)), at_ms=60_000, state=state)  # written, and the same as before
    assert state.request(60_000).beat_at_ms == 57_000
    assert state.request(120_001).beat_at_ms is None
    assert state.receive((), (), 1, 120_001).request(120_001).beat_at_ms == 120_001


def test_without_waiting_for_the_go_being_polled_is_enough_until_the_inverter_says_otherwise() -> None:
    state = PROTOCOL.start({"wait_for_go": False})
    assert state.request(0).go is None
    state = state.receive((), (), 1, 0)
    assert state.request(0).go is True
    assert state.request(60_001).go is None
    assert heard((401, (0,)), state=state).request(0).go is False


def test_the_voltage_the_inverter_measures_is_known_for_20_seconds() -> None:
    request = heard((418, (4018, 4023)), at_ms=500).request(20_500)
    assert (request.link_voltage_v, request.battery_voltage_v, request.link_at_ms) == (401.8, 401.8, 500)
    request = heard((418, (4018, 4023)), at_ms=500).request(20_501)
    assert (request.link_voltage_v, request.battery_voltage_v, request.link_at_ms) == (None, None, None)


def test_zero_in_418_is_a_field_not_filled_and_no_proof_of_a_dead_link() -> None:
    request = heard((401, (1, *(0,) * 18))).request(0)
    assert (request.link_voltage_v, request.battery_voltage_v) == (None, None)


def test_419_is_our_own_word_and_no_measurement() -> None:
    assert heard((419, (4023,))).request(0).link_voltage_v is None


@pytest.mark.parametrize(
    "write", [(400, (2,)), (420, (1, 2)), (401, (2, 70_000)), (401, (2, -1)), (401, (2,) * 124), (401, ()), (301, (3,))]
)
def test_a_bad_write_changes_nothing_and_is_counted_with_its_reason(write: tuple[int, Words]) -> None:
    before = heard((401, (1,)))
    after = heard(write, state=before)
    assert (after.asked, after.go) == (before.asked, before.go)
    assert after.refused == 1
    with pytest.raises(RegisterError) as caught:
        PROTOCOL.check_write(RegisterWrite(*write))
    assert after.refusal == str(caught.value)


@given(st.lists(st.tuples(st.integers(395, 425), st.lists(st.integers(-5, 70_000), max_size=24).map(tuple))))
def test_whatever_is_written_the_block_stays_words_and_each_write_is_whole(writes: list[tuple[int, Words]]) -> None:
    state = PROTOCOL.start()
    for register, values in writes:
        after = heard((register, values), state=state)
        served = image(VIEW, after)[401]
        assert len(served) == 20
        assert all(0 <= word <= 0xFFFF for word in served)
        assert after.refused > state.refused or served[register - 401 :][: len(values)] == values
        assert after.refused == state.refused or after.asked == state.asked
        state = after


def test_the_recorded_heartbeats_are_taken_in_and_read_back() -> None:
    state = PROTOCOL.start()
    writes = [frame for frame in recorded_frames() if frame[1] == 0x10 and len(frame) > 8]
    assert len(writes) >= 4
    for at_ms, frame in enumerate(writes):
        register, values = int.from_bytes(frame[2:4], "big") + 1, words_of(frame[7:-2].hex())
        state = heard((register, values), at_ms=at_ms, state=state)
        assert image(VIEW, state)[401][1:2] == values


# --- the row of the registry ---


def test_blocks_are_encoded_only_when_they_are_read_and_then_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    monkeypatch.setattr(byd_modbus, "live", lambda *args: encoded.append(args) or (0,) * 24)
    _, answer = byd_modbus.PROTOCOL.start().answer(VIEW, 0)
    assert encoded == []
    assert answer.registers is not None
    assert len(answer.registers[301]) == len(answer.registers[301]) == 24
    assert len(encoded) == 1


def test_the_gen24_is_in_the_registry_with_the_times_of_the_safety_concept() -> None:
    row = INVERTERS["byd_modbus"]
    assert (row.asks, row.offers_before_go) == (True, True)
    assert (row.zero_ms, row.silent_ms, row.follow_ms) == (20_000, 60_000, 8_000)
    assert row.tx == frozenset()


def test_the_blocks_lie_where_the_note_says() -> None:
    assert {first: block.length for first, block in BLOCKS.items()} == {
        101: 68, 201: 13, 301: 24, 401: 20, 1001: 100, 12289: 768,
    }  # fmt: skip


def test_the_serial_number_is_ours_to_choose() -> None:
    words = image(VIEW, PROTOCOL.start({"serial": "2025-9876"}))[101]
    assert IDENTITY.decode(words)["serial"] == "2025-9876"
    assert IDENTITY.decode(words)["model"] == "BYD Battery-Box Premium HV"
