"""Batrium WatchMon: every worked example of the protocol note, what stays unknown, the whole controller with one."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from controller.batteries.batrium import BatriumState
from controller.batteries.registry import BATTERIES
from controller.model.battery import BatterySnapshot, Feed
from controller.model.events import Event
from controller.model.settings import OptionValue
from controller.ports import CanFrame
from sim.identify import identify
from sim.recording import open_recording
from sim.small_packs import WatchMon
from statecharts.supervisor import State
from tests.batteries.life import ACTIVE, FAULT, Life

PROTOCOL = BATTERIES["batrium"]
HEALTHY = {
    0x01: "B4 0E C4 0E BC 0E 58 0C", 0x02: "3D 41 3F 03 0E", 0x04: "28 0E 9C 00 35 02", 0x05: "2E 13 48 26 EB 01 E8 03",
    0x06: "A0 0F FA 00 B8 0B E8 03", 0x07: "01 01 01 00 00 00",
}  # fmt: skip


def start(**options: OptionValue) -> BatriumState:
    return cast(BatriumState, PROTOCOL.start(options))


def frame(offset: int, data: str, at_ms: int = 0, base: int = 0x500, extended: bool = False) -> CanFrame:
    return CanFrame(base + offset, bytes.fromhex(data), at_ms, extended)


def look(offset: int, data: str, **options: OptionValue) -> BatterySnapshot:
    return start(**options).receive([frame(offset, data)], 0).snapshot(0)


def healthy(changes: dict[int, str], **options: OptionValue) -> BatterySnapshot:
    frames = [frame(offset, data) for offset, data in (HEALTHY | changes).items()]
    return start(**options).receive(frames, 0).snapshot(0)


# --- the worked examples of the note ---


@pytest.mark.parametrize(
    ("data", "lowest_v", "highest_v"),
    [
        ("F0 0C 0A 0D FD 0C 11 04", 3.312, 3.338),
        ("B4 0E C4 0E BC 0E 58 0C", 3.764, 3.780),
        ("86 0B C2 0B A8 0B 02 5A", 2.950, 3.010),
    ],
)
def test_cell_voltages(data: str, lowest_v: float, highest_v: float):
    pack = look(0x01, data)
    assert (pack.cell_min_v, pack.cell_max_v) == (lowest_v, highest_v)


@pytest.mark.parametrize(
    ("data", "coldest_c", "hottest_c"),
    [("3D 41 3F 03 0E", 21, 25), ("23 26 24 01 07", -5, -2), ("50 60 58 05 06", 40, 56)],
)
def test_temperatures(data: str, coldest_c: float, hottest_c: float):
    pack = look(0x02, data)
    assert (pack.temp_min_c, pack.temp_max_c) == (coldest_c, hottest_c)


@pytest.mark.parametrize(
    ("data", "volts", "amps"), [("28 0E 9C 00 35 02", 362.4, 15.6), ("28 0E 38 FF 2B FD", 362.4, -20.0)]
)
def test_shunt_where_positive_is_charging(data: str, volts: float, amps: float):
    pack = look(0x04, data)
    assert (pack.pack_voltage_v, pack.current_a) == (volts, amps)


@pytest.mark.parametrize(
    ("data", "soc_pct", "soh_pct"),
    [
        ("2E 13 48 26 EB 01 E8 03", 49.1, 98.0),
        ("06 FF 10 27 00 00 E8 03", 0.0, 100.0),
        ("04 29 E4 25 FA 03 E8 03", 100.0, 97.0),
    ],
)
def test_the_charge_is_kept_within_0_and_100_percent(data: str, soc_pct: float, soh_pct: float):
    pack = look(0x05, data)
    assert (pack.soc_pct, pack.soh_pct) == (soc_pct, soh_pct)


@pytest.mark.parametrize(
    ("data", "charge", "discharge", "forbidden"),
    [
        ("A0 0F FA 00 B8 0B E8 03", (25.0, 9060.0), (100.0, 36240.0), (False, False)),
        ("A0 0F 00 00 B8 0B E8 03", (0.0, 0.0), (100.0, 36240.0), (True, False)),
        ("A0 0F FA 00 B8 0B 00 00", (25.0, 9060.0), (0.0, 0.0), (False, True)),
    ],
)
def test_target_currents_are_limits_in_watts_with_the_pack_voltage_and_0_forbids(
    data: str, charge: tuple[float, float], discharge: tuple[float, float], forbidden: tuple[bool, bool]
):
    pack = healthy({0x06: data})
    assert (pack.max_charge_a, pack.max_charge_w) == charge
    assert (pack.max_discharge_a, pack.max_discharge_w) == discharge
    assert (pack.report.no_charge, pack.report.no_discharge) == forbidden
    assert (pack.design_max_v, pack.design_min_v) == (400.0, 300.0)


@pytest.mark.parametrize(
    ("data", "open_now", "forbidden"),
    [
        ("01 01 01 00 00 00", False, (False, False)),
        ("00 00 00 00 00 00", True, (True, True)),
        ("01 00 01 00 01 01", False, (True, False)),
    ],
)
def test_flags(data: str, open_now: bool, forbidden: tuple[bool, bool]):
    pack = healthy({0x07: data})
    assert (pack.report.open_now, pack.report.no_charge, pack.report.no_discharge) == (open_now, *forbidden)
    assert [watts == 0.0 for watts in (pack.max_charge_w, pack.max_discharge_w)] == list(forbidden)


def test_only_bit_0_of_a_flag_byte_counts():
    assert healthy({0x07: "FE FF 03 00 00 00"}).report.open_now is True
    assert healthy({0x07: "FE FF 03 00 00 00"}).report.no_charge is False


def test_flags_can_be_ignored():
    pack = healthy({0x07: "00 00 00 00 00 00"}, flags="ignore")
    assert (pack.report.open_now, pack.report.no_charge, pack.report.no_discharge) == (None, False, False)
    assert (pack.max_charge_w, pack.max_discharge_w) == (9060.0, 36240.0)
    assert healthy({0x06: "A0 0F 00 00 B8 0B E8 03"}, flags="ignore").report.no_charge is True


def test_flags_that_are_to_be_obeyed_and_do_not_come_offer_nothing():
    frames = [frame(offset, data) for offset, data in HEALTHY.items() if offset != 0x07]
    pack = start().receive(frames, 0).snapshot(0)
    assert (pack.max_charge_w, pack.max_discharge_w, pack.report.no_charge) == (None, None, None)


def test_a_device_that_is_not_initialised_has_no_serial_number():
    assert look(0x00, "9A 01 DB 00 40 E2 01 00").serial == "123456"
    assert look(0x00, "00 00 00 00 00 00 00 00").serial is None


def test_the_bypass_is_explained():
    assert [dict(values) for _, values in PROTOCOL.explain(frame(0x03, "60 0A 56"))] == [
        {"WM_cellsInBypass": 96, "WM_cellsInInitialBypass": 10, "WM_cellsInFinalBypass": 86}
    ]


# --- what is unknown ---


def test_before_the_first_frame_everything_is_unknown():
    pack = start().snapshot(0)
    assert pack._replace(feeds={}) == BatterySnapshot()
    assert {feed: f.valid_at_ms for feed, f in pack.feeds.items()} == dict.fromkeys(pack.feeds)
    assert {Feed.VOLTAGE, Feed.CURRENT, Feed.CELLS, Feed.TEMPERATURES, Feed.SOC} == set(pack.feeds)


@pytest.mark.parametrize("offset", [0x01, 0x02, 0x04, 0x05, 0x06, 0x07])
def test_each_frame_ages_on_its_own_and_is_unknown_after_5_s(offset: int):
    state = start().receive([frame(o, data) for o, data in HEALTHY.items()], 0)
    state = state.receive([frame(o, data, 3000) for o, data in HEALTHY.items() if o != offset], 3000)
    before, after = state.snapshot(5000), state.snapshot(5001)
    changed = {name for name in before._fields if getattr(before, name) != getattr(after, name)}
    assert changed == {
        0x01: {"cell_min_v", "cell_max_v"},
        0x02: {"temp_min_c", "temp_max_c"},
        0x04: {"pack_voltage_v", "current_a", "max_charge_w", "max_discharge_w"},
        0x05: {"soc_pct", "soh_pct"},
        0x06: {
            "max_charge_a", "max_discharge_a", "max_charge_w", "max_discharge_w", "design_min_v", "design_max_v",
            "report",
        },
        0x07: {"max_charge_w", "max_discharge_w", "report"},
    }[offset]  # fmt: skip
    assert {getattr(after, name) for name in changed if name != "report"} <= {None}
    stale = {feed for feed, freshness in after.feeds.items() if not freshness.fresh(5001)}
    assert stale == {
        0x01: {Feed.CELLS}, 0x02: {Feed.TEMPERATURES}, 0x04: {Feed.VOLTAGE, Feed.CURRENT}, 0x05: {Feed.SOC},
    }.get(offset, set())  # fmt: skip


def test_zero_volts_mean_no_shunt_and_its_current_is_no_measurement():
    pack = look(0x04, "00 00 00 00 00 00")
    assert (pack.pack_voltage_v, pack.current_a, pack.feeds[Feed.CURRENT].valid_at_ms) == (None, None, None)


@pytest.mark.parametrize("data", ["C4 0E B4 0E BC 0E 58 0C", "00 00 C4 0E BC 0E 58 0C", "B4 0E FF FF BC 0E 58 0C"])
def test_cells_that_cannot_be_are_unknown_and_refresh_nothing(data: str):
    state = start().receive([frame(0x01, HEALTHY[0x01])], 0).receive([frame(0x01, data, 1000)], 1000)
    pack = state.snapshot(1000)
    assert (pack.cell_min_v, pack.cell_max_v) == (None, None)
    assert pack.feeds[Feed.CELLS].valid_at_ms == 0


def test_temperatures_that_contradict_each_other_are_unknown():
    assert look(0x02, "41 3D 3F 03 0E").temp_max_c is None


@pytest.mark.parametrize("soc", ["FF 7F", "00 80", "40 F6"])
def test_a_charge_far_outside_is_unknown(soc: str):
    assert look(0x05, soc + " 48 26 EB 01 E8 03").soc_pct is None


def test_a_target_current_with_its_top_bit_set_is_unknown():
    pack = healthy({0x06: "A0 0F FF FF B8 0B E8 03"})
    assert (pack.max_charge_a, pack.max_charge_w, pack.report.no_charge) == (None, None, None)


def test_a_limit_without_a_pack_voltage_is_unknown():
    assert look(0x06, HEALTHY[0x06], flags="ignore").max_charge_w is None
    assert look(0x06, "A0 0F 00 00 B8 0B E8 03", flags="ignore").max_charge_w == 0.0


# --- ids ---


def test_a_foreign_id_refreshes_nothing_and_is_not_counted():
    state = start()
    others = [CanFrame(can_id, bytes(8)) for can_id in (0x4FF, 0x508, 0x001, 0x510, 0x511, 0xA01)]
    assert state.receive(others, 0) is state


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(
    ("option", "base"), [("0x500", 0x500), ("0x000", 0), ("0x1F0", 0x1F0), ("0x18FF0500", 0x18FF0500)]
)
def test_any_base_address_and_both_kinds_of_id_are_heard(option: str, base: int, extended: bool):
    frames = [frame(offset, data, 0, base, extended) for offset, data in HEALTHY.items()]
    state = start(base_id=option).receive(frames, 0)
    assert state.snapshot(0).pack_voltage_v == 362.4
    assert state.snapshot(0).decoded_frames == len(HEALTHY)
    ids = PROTOCOL.ids({"base_id": option})
    assert all(f.id + (0x8000_0000 if extended else 0) in ids for f in frames)
    if base != 0x500:
        assert start().receive(frames, 0).snapshot(0).decoded_frames == 0


def test_a_recording_with_another_base_address_is_read_with_the_config_that_says_so(tmp_path: Path):
    path, options = tmp_path / "base0.log", {"base_id": "0x000"}
    rows = [f for ms in range(0, 3000, 10) for f in WatchMon(base=0, extended=True).frames(ms)]
    path.write_text("".join(f"({f.at_ms / 1000:.6f}) can0 {f.id:08X}#{f.data.hex()}\n" for f in rows))
    assert identify(open_recording(path), BATTERIES, "batrium", options=options).battery is PROTOCOL
    assert identify(open_recording(path), BATTERIES).battery is None
    assert len(list(open_recording(path, PROTOCOL.ids(options)))) == len(rows) == 48


def test_a_frame_too_short_for_anything_is_refused_and_counted():
    pack = look(0x04, "28")
    assert (pack.pack_voltage_v, pack.decoded_frames, pack.corrupt_frames) == (None, 0, 1)


def test_nothing_is_ever_sent():
    state = start()
    assert PROTOCOL.tx == frozenset()
    assert state.transmit(frozenset(), 0) == (state, ())


# --- the whole controller ---


def test_it_runs_once_enabled_and_permitted_and_offers_what_the_watchmon_allows():
    life = Life("batrium", WatchMon(targets_a=(8.0, 100.0)))
    assert life.run_ms(1900).state is State.STANDBY
    life.running()
    assert life.limits == (8.0 * 360.0, 5000.0)
    assert (life.status, life.offered) == (ACTIVE, (2880, 5000))
    assert life.bus.outbox == []
    assert life.relays.history == [frozenset()]


def test_a_direction_the_watchmon_forbids_is_offered_nothing():
    pack = WatchMon()
    life = Life("batrium", pack).running()
    pack.targets_a = (0.0, 100.0)
    life.run_ms(600)
    assert life.offered == (0, 5000)
    assert Event.BMS_NO_CHARGE in life.told
    pack.targets_a, pack.flags = (25.0, 100.0), (1, 1, 0)
    assert life.run_ms(15_000).offered == (5000, 0)
    assert life.state is State.RUNNING


def test_a_battery_that_is_not_ok_is_stopped_at_once_and_shown_as_a_fault():
    pack = WatchMon()
    life = Life("batrium", pack).running()
    pack.flags = (0, 1, 1)
    life.run_ms(1000)
    assert (life.state, life.status, life.offered) == (State.FAULT, FAULT, (0, 0))
    assert Event.BMS_OPEN_NOW in life.told


def test_silence_is_zero_after_5_s_and_open_shortly_after():
    pack = WatchMon()
    life = Life("batrium", pack).running()
    last_ms = life.clock.ms - life.clock.ms % 500
    pack.silent = True
    life.until(State.FAULT, 8000)
    assert 5000 < life.told[Event.PACK_DATA_STALE] - last_ms <= 5020
    assert 5600 < life.told[Event.PACK_DATA_LOST] - last_ms <= 5620
    assert (life.limits, life.offered, life.status) == ((0.0, 0.0), (0, 0), FAULT)


def test_a_full_cell_ends_charging_whatever_the_watchmon_allows():
    pack = WatchMon()
    life = Life("batrium", pack).running()
    pack.cells_v, pack.pack_v = (4.10, 4.15), 396.0
    assert life.run_ms(2000).offered[0] == 0
    assert life.offered[1] > 0


def test_without_its_flags_nothing_is_offered_unless_they_are_ignored():
    class Mute(WatchMon):
        def frames(self, now_ms: int) -> list[CanFrame]:
            return super().frames(now_ms)[:-1]

    assert Life("batrium", Mute()).running().limits == (0.0, 0.0)
    assert min(Life("batrium", Mute(), flags="ignore").running().limits) > 0
