"""Tesla Model 3 / Y: every worked example of the protocol note, every recording, and what must stay unknown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.batteries import tesla_model3
from controller.batteries.base import PackKind
from controller.batteries.registry import BATTERIES
from controller.batteries.tesla_model3 import EnergyLayout, TeslaState
from controller.codec import dbc
from controller.model.battery import BatterySnapshot, Feed, PackContactor, PackReport
from controller.ports import CanFrame
from statecharts.supervisor import Contactor

PROTOCOL = BATTERIES["tesla_model3"]
LOGS = Path(__file__).parents[2].parent / "shared" / "logs"
TABLES = tesla_model3.TABLES
TABLES_2026 = dbc.load(Path(tesla_model3.__file__).with_name("tesla_model3_2026.dbc"))
PACK = frozenset({Contactor.PACK})
NOTHING: frozenset[Contactor] = frozenset()


def frame(can_id: int, data: str | bytes, at_ms: int = 0) -> CanFrame:
    return CanFrame(can_id, bytes.fromhex(data) if isinstance(data, str) else data, at_ms)


def heard(*frames: tuple[int, str], at_ms: int = 0, state: TeslaState | None = None) -> TeslaState:
    start = PROTOCOL.start() if state is None else state
    return start.receive([frame(can_id, data, at_ms) for can_id, data in frames], at_ms)  # type: ignore[return-value]


def look(*frames: tuple[int, str]) -> BatterySnapshot:
    return heard(*frames).snapshot(0)


def page(message: str, data: str, index: int | None = None, tables: dbc.Tables = TABLES) -> dbc.Values:
    """Decode one page; the frame has to be of that page."""
    raw = bytes.fromhex(data)
    found = tables.layouts[message].page_of(raw)
    assert found is tables.page(message, index)
    return found.decode(raw)


# Worked examples: section 1


@pytest.mark.parametrize(
    ("data", "volts", "amps"),
    [
        ("96 8D 38 FF 00 00 FF 0F", 362.46, -20.0),
        ("FE 8D 9C 00 00 00 FF 0F", 363.50, 15.6),
        ("60 8D 05 00 00 00 FF 0F", 361.92, 0.5),
        ("96 8D 38 FF 00 00", 362.46, -20.0),
    ],
)
def test_0x132_gives_voltage_and_current_with_charging_positive(data: str, volts: float, amps: float):
    pack = look((0x132, data))
    assert (pack.pack_voltage_v, pack.current_a) == (volts, amps)


def test_0x132_without_a_measurement_is_unknown_not_0_v():
    assert page("BMS_hvBusStatus", "00 00 00 80 00 00 00 00")["BMS_packVoltage"] == 0
    pack = look((0x132, "00 00 00 80 00 00 00 00"))
    assert (pack.pack_voltage_v, pack.current_a) == (None, None)


def test_0x132_tells_a_blown_pyro_fuse():
    assert look((0x132, "64 00 00 00 00 00")).pack_voltage_v == 1.0


def test_0x132_charge_time_needs_the_8_byte_frame():
    assert page("BMS_hvBusStatus", "96 8D 38 FF 00 00 10 00")["BMS_chargeTimeRemaining"] == 16
    assert page("BMS_hvBusStatus", "96 8D 38 FF 00 00 FF 0F")["BMS_chargeTimeRemaining"] is None
    assert page("BMS_hvBusStatus", "96 8D 38 FF 00 00")["BMS_chargeTimeRemaining"] is None


@pytest.mark.parametrize(
    ("data", "negative", "positive", "set_state", "asked", "allowed", "link", "state", "hvil"),
    [
        ("C9 11 09 00 08 01", 1, 1, 1, 0, 1, 0, PackContactor.OPEN, True),
        ("D4 12 09 40 18 01", 4, 2, 2, 1, 1, 1, PackContactor.CLOSING, True),
        ("F6 15 09 80 18 01", 6, 6, 5, 2, 1, 1, PackContactor.CLOSED, True),
        ("C9 13 09 00 00 03", 1, 1, 3, 0, 0, 0, PackContactor.BLOCKED, False),
        ("FE 16 09 00 00 01", 6, 7, 6, 0, 0, 0, PackContactor.WELDED, True),
    ],
)  # fmt: skip
def test_0x20a_gives_contactors_and_interlock(
    data: str, negative: int, positive: int, set_state: int, asked: int, allowed: int, link: int,
    state: PackContactor, hvil: bool,
):  # fmt: skip
    values = page("HVP_contactorState", data)
    assert values["HVP_packContNegativeState"] == negative
    assert values["HVP_packContPositiveState"] == positive
    assert values["HVP_packContactorSetState"] == set_state
    assert values["HVP_packCtrsRequestStatus"] == asked
    assert values["HVP_packCtrsClosingAllowed"] == allowed
    assert values["HVP_dcLinkAllowedToEnergize"] == link
    pack = look((0x20A, data))
    assert (pack.contactor_state, pack.hvil_ok) == (state, hvil)


@pytest.mark.parametrize(
    ("raw", "known"),
    [(0, None), (1, True), *((raw, False) for raw in range(2, 10)), (10, None), (11, None), (12, False), (13, False),
     (14, None), (15, None)],
)  # fmt: skip
def test_the_interlock_is_ok_broken_or_unknown(raw: int, known: bool | None):
    assert look((0x20A, f"C9 11 09 00 08 {raw:02X}")).hvil_ok is known


@pytest.mark.parametrize(
    ("data", "state", "bms_state", "hv_state", "isolation", "charge_kw", "asked"),
    [
        ("00 01 C0 12 20 00 00 00", PackContactor.OPEN, 0, 0, 6000, 0.0, 0),
        ("00 03 C1 12 20 00 00 01", PackContactor.CLOSING, 0, 1, 6000, 0.0, 1),
        ("00 04 43 10 21 20 03 01", PackContactor.CLOSED, 1, 3, 5200, 100.0, 1),
        ("00 05 F8 1F 27 FF 07 07", PackContactor.WELDED, 7, 0, None, None, 7),
    ],
)
def test_0x212_in_the_2020_layout(
    data: str, state: PackContactor, bms_state: int, hv_state: int, isolation: int | None, charge_kw: float | None,
    asked: int,
):  # fmt: skip
    assert page("BMS_status", data)["BMS_state"] == bms_state
    values = page("BMS_status2020", data)
    assert values["BMS_hvState"] == hv_state
    assert values["BMS_isolationResistance"] == isolation
    assert values["BMS_chgPowerAvailable"] == charge_kw
    assert values["BMS_smStateRequest"] == asked
    assert look((0x212, data)).contactor_state is state


@pytest.mark.parametrize(
    ("data", "state", "bms_state", "input_kw", "charge_kw", "hv_state"),
    [
        ("00 01 00 00 00 00 00 00", PackContactor.OPEN, 0, 0.0, 0.0, 0),
        ("00 04 26 00 01 F4 01 62", PackContactor.CLOSED, 1, 7.6, 125.0, 3),
        ("00 06 00 00 86 FF 07 0C", PackContactor.BLOCKED, 6, 0.0, None, 0),
    ],
)
def test_0x212_in_the_2026_layout_has_the_same_two_stable_fields(
    data: str, state: PackContactor, bms_state: int, input_kw: float, charge_kw: float | None, hv_state: int
):
    values = page("BMS_status2026", data, tables=TABLES_2026)
    assert values["BMS_batteryInputPower"] == pytest.approx(input_kw)
    assert values["BMS_chgPowerAvailable"] == charge_kw
    assert values["BMS_hvState"] == hv_state
    assert page("BMS_status", data)["BMS_state"] == bms_state
    pack = look((0x212, data))
    assert (pack.contactor_state, pack.isolation_kohm) == (state, None)


@pytest.mark.parametrize(
    ("data", "charge_w", "discharge_w", "heat_kw"),
    [
        ("1A 1F 1A 1F F4 01 00 00", 79_620, 79_620, 5.0),
        ("80 0C A8 61 FF 03 00 00", 32_000, 250_000, 10.23),
        ("00 00 98 3A 00 00 00 00", 0, 150_000, 0.0),
    ],
)
def test_0x252_gives_powers_with_the_lower_discharge_factor(data: str, charge_w: int, discharge_w: int, heat_kw: float):
    pack = look((0x252, data))
    assert (pack.max_charge_w, pack.max_discharge_w) == (charge_w, discharge_w)
    assert page("BMS_powerAvailable", data)["BMS_maxStationaryHeatPower"] == pytest.approx(heat_kw)


def test_0x252_with_every_bit_set_is_no_power():
    pack = look((0x252, "FF FF FF FF FF FF FF FF"))
    assert (pack.max_charge_w, pack.max_discharge_w) == (None, None)


@pytest.mark.parametrize(
    ("data", "low", "shown", "high", "mean", "new_kwh", "temp_pct"),
    [
        ("E0 AD 47 9F 7A 35 93 01", 48.0, 49.1, 50.0, 49.0, 82.1, 40),
        ("00 8C C0 83 07 E9 CA 00", 0.0, 3.5, 6.0, 3.0, 74.5, 20),
        ("98 C7 6E 3B EB FF FF 03", 92.0, 94.5, 95.0, 94.0, None, None),
    ],
)
def test_0x292_gives_the_state_of_charge(
    data: str, low: float, shown: float, high: float, mean: float, new_kwh: float | None, temp_pct: float | None
):
    values = page("BMS_socStatus", data)
    assert values["BMS_socMin"] == pytest.approx(low)
    assert values["BMS_socMax"] == pytest.approx(high)
    assert values["BMS_socAve"] == pytest.approx(mean)
    assert values["BMS_beginningOfLifeEnergy"] == (None if new_kwh is None else pytest.approx(new_kwh))
    assert values["BMS_battTempPct"] == (None if temp_pct is None else pytest.approx(temp_pct))
    assert look((0x292, data)).soc_pct == shown


def test_0x292_with_the_minimum_above_the_maximum_is_refused():
    low, high = 500, 499
    data = (low | 490 << 10 | high << 20 | 495 << 30).to_bytes(8, "little")
    state = heard((0x292, "E0 AD 47 9F 7A 35 93 01"))
    state = state.receive([frame(0x292, data, 100)], 100)
    pack = state.snapshot(100)
    assert (pack.soc_pct, pack.decoded_frames, pack.corrupt_frames) == (49.1, 1, 1)
    assert state.snapshot(501).soc_pct is None


def test_a_state_of_charge_above_100_is_unknown():
    data = (1000 | 1001 << 10 | 1000 << 20).to_bytes(8, "little")
    assert look((0x292, data.hex())).soc_pct is None


@pytest.mark.parametrize(
    ("data", "low", "high", "charge_a", "discharge_a"),
    [
        ("96 5E 40 9D C8 00 E8 03", 242.14, 402.56, 20.0, 128.0),
        ("4B 2F A0 4E DC 05 D0 07", 242.14, 402.56, 150.0, 256.0),
        ("F8 39 C8 4B 00 00 F4 01", 296.80, 388.00, 0.0, 64.0),
    ],
)
def test_0x2d2_picks_the_believable_voltage_factor(
    data: str, low: float, high: float, charge_a: float, discharge_a: float
):
    pack = look((0x2D2, data))
    assert (pack.design_min_v, pack.design_max_v) == (low, high)
    assert (pack.max_charge_a, pack.max_discharge_a) == (charge_a, discharge_a)


def test_0x2d2_with_no_believable_factor_leaves_the_window_unknown():
    pack = look((0x2D2, "96 5E 00 30 C8 00 E8 03"))
    assert (pack.design_min_v, pack.design_max_v, pack.max_charge_a) == (None, None, 20.0)


@pytest.mark.parametrize(
    ("data", "high", "low"), [("14 02 86 7E 85 80", 27.0, 23.0), ("04 03 4A 45 4A 46", -3.0, -5.5)]
)
def test_0x332_page_0_gives_temperatures(data: str, high: float, low: float):
    pack = look((0x332, data))
    assert (pack.temp_max_c, pack.temp_min_c) == (high, low)
    assert (pack.cell_max_v, pack.cell_min_v) == (None, None)


def test_0x332_page_0_gives_sensors_and_model_temperatures():
    values = page("BMS_bmbMinMax", "14 02 86 7E 85 80", 0)
    assert (values["BMS_thermistorNumA"], values["BMS_thermistorNumB"]) == (5, 2)
    assert (values["BMS_modelTMax"], values["BMS_modelTMin"]) == (26.5, 24.0)
    values = page("BMS_bmbMinMax", "04 03 4A 45 4A 46", 0)
    assert (values["BMS_modelTMax"], values["BMS_modelTMin"]) == (-3.0, -5.0)


@pytest.mark.parametrize(
    ("data", "high", "number_high", "low", "number_low"),
    [("89 1D 5A 07 0B 57", 3.780, 12, 3.764, 88), ("2D 1A 7C 06 00 69", 3.350, 1, 3.320, 106)],
)
def test_0x332_page_1_gives_cell_extremes(data: str, high: float, number_high: int, low: float, number_low: int):
    values = page("BMS_bmbMinMax", data, 1)
    assert (values["BMS_brickNumVoltageMax"], values["BMS_brickNumVoltageMin"]) == (number_high, number_low)
    pack = look((0x332, data))
    assert (pack.cell_max_v, pack.cell_min_v) == (high, low)
    assert (pack.temp_max_c, pack.temp_min_c) == (None, None)


def extremes(low_v: float, high_v: float) -> str:
    """0x332 page 1."""
    return (1 | round(high_v / 0.002) << 2 | round(low_v / 0.002) << 16).to_bytes(6, "little").hex()


@pytest.mark.parametrize(
    ("data", "cells", "temps"),
    [
        (extremes(0.0, 3.8), (None, 3.8), (None, None)),
        (extremes(3.7, 4.502), (3.7, None), (None, None)),
        (extremes(3.7, 4.5), (3.7, 4.5), (None, None)),
        (extremes(3.8, 3.7), (None, None), (None, None)),
        ("14 02 00 7E 85 80", (None, None), (23.0, None)),
        ("14 02 86 FF 85 80", (None, None), (None, 27.0)),
        ("14 02 7E 86 85 80", (None, None), (None, None)),
    ],
)
def test_implausible_extremes_are_unknown(data: str, cells: tuple[Any, Any], temps: tuple[Any, Any]):
    pack = look((0x332, data))
    assert (pack.cell_min_v, pack.cell_max_v) == cells
    assert (pack.temp_min_c, pack.temp_max_c) == temps


@pytest.mark.parametrize("index", [2, 3])
def test_0x332_with_a_page_that_cannot_be_is_refused(index: int):
    pack = look((0x332, f"{0x88 | index:02X} 1D 5A 07 0B 57"))
    assert (pack.decoded_frames, pack.corrupt_frames, pack.cell_max_v) == (0, 1, None)


def test_0x352_flat_examples():
    values = page("BMS_energyStatus2020", "D5 22 8B 57 CC 12 97 16")
    assert {name: round(value, 1) for name, value in values.items() if value is not None} == {
        "BMS_nominalFullPackEnergy": 72.5, "BMS_nominalEnergyRemaining": 35.6, "BMS_expectedEnergyRemaining": 35.0,
        "BMS_idealEnergyRemaining": 35.8, "BMS_energyToChargeComplete": 36.9, "BMS_energyBuffer": 4.5,
        "BMS_fullChargeComplete": 0,
    }  # fmt: skip
    values = page("BMS_energyStatus2020", "14 42 90 81 14 C4 00 8F")
    assert {name: round(value, 1) for name, value in values.items() if value is not None} == {
        "BMS_nominalFullPackEnergy": 53.2, "BMS_nominalEnergyRemaining": 52.0, "BMS_expectedEnergyRemaining": 51.8,
        "BMS_idealEnergyRemaining": 52.2, "BMS_energyToChargeComplete": 1.2, "BMS_energyBuffer": 3.0,
        "BMS_fullChargeComplete": 1,
    }  # fmt: skip
    values = page("BMS_energyStatus2020", "FF FF FF FF FF FF FF 7F")
    assert [name for name, value in values.items() if value is not None] == ["BMS_fullChargeComplete"]


def test_0x352_paged_examples():
    values = page("BMS_energyStatus2021", "00 00 29 0E F4 06 FE 06", 0)
    assert values["BMS_nominalFullPackEnergy"] == pytest.approx(72.5)
    assert values["BMS_nominalEnergyRemaining"] == pytest.approx(35.6)
    assert values["BMS_idealEnergyRemaining"] == pytest.approx(35.8)
    values = page("BMS_energyStatus2021", "01 00 C2 01 D6 06 35 07", 1)
    assert values["BMS_energyBuffer"] == pytest.approx(4.5)
    assert values["BMS_expectedEnergyRemaining"] == pytest.approx(35.0)
    assert values["BMS_energyToChargeComplete"] == pytest.approx(36.9)
    assert values["BMS_fullChargeComplete"] == 0
    values = page("BMS_energyStatus2021", "02 FE 06 29 0E 00 80 3D", 2)
    assert values["BMS_energyRemainingDisplay"] == pytest.approx(35.8)
    assert values["BMS_energyRemainingTDisplay"] == pytest.approx(72.5)
    assert values["BMS_userFacingSoe"] == pytest.approx(49.2)
    real = page("BMS_energyStatus2021", "02 26 02 20 02 80 00 00", 2)
    assert real["BMS_energyRemainingDisplay"] == pytest.approx(11.0)
    assert real["BMS_energyRemainingTDisplay"] == pytest.approx(10.88)


@pytest.mark.parametrize(
    ("data", "dissipation", "flow", "targets", "low", "high", "flags"),
    [
        ("0C 50 E0 71 63 E4 8B 18", 0.24, 6.0, (35, 30, 10), 22.5, 24.0, (0, 0)),
        ("00 00 90 D1 22 C3 63 C8", 0.0, 0.0, (25, 20, 0), -10.0, -8.25, (1, 1)),
        ("9B 84 08 C2 03 85 F0 22", 3.10, 9.9, (40, 35, 15), 41.0, 44.75, (0, 0)),
    ],
)
def test_0x312_flat_examples(
    data: str, dissipation: float, flow: float, targets: tuple[int, int, int], low: float, high: float,
    flags: tuple[int, int],
):  # fmt: skip
    values = page("BMS_thermalStatus2020", data)
    assert values["BMS_dissipation"] == pytest.approx(dissipation)
    assert values["BMS_flowRequest"] == pytest.approx(flow)
    names = "BMS_inletActiveCoolTarget", "BMS_inletPassiveTarget", "BMS_inletActiveHeatTarget"
    assert tuple(values[name] for name in names) == targets
    assert (values["BMS_packTMin"], values["BMS_packTMax"]) == (low, high)
    assert (values["BMS_pcsNoFlowRequest"], values["BMS_noFlowRequest"]) == flags


def test_0x312_paged_example():
    values = page("BMS_thermalStatus2026", "00 00 00 00 38 19 14 18", 0, TABLES_2026)
    assert values["BMS_packTMin"] == pytest.approx(22.4)
    assert values["BMS_packTMax"] == pytest.approx(24.3)
    assert values["BMS_flowRequest"] == 6.0


@pytest.mark.parametrize(
    ("data", "index", "volts"),
    [
        ("00 2A B2 93 A2 93 AA 93", 0, (3.7810, 3.7794, 3.7802)),
        ("1F 6A 42 93 4E 93 46 93", 31, (3.7698, 3.7710, 3.7702)),
        ("23 02 CA 82 00 00 00 00", 35, (3.3482, None, None)),
    ],
)
def test_0x401_believes_a_cell_only_with_its_own_status_nominal(data: str, index: int, volts: tuple[float | None, ...]):
    book = tesla_model3.CellBook().page(index, page("BMS_brickMeasurements", data, index), 0)
    assert book.volts[3 * index : 3 * index + 3] == volts
    assert [value for value in book.volts if value is not None] == [value for value in volts if value is not None]


@pytest.mark.parametrize(
    ("data", "discharged", "charged"),
    [
        ("4E 61 BC 00 59 59 C6 00", 12_345_678, 12_999_001),
        ("00 00 00 00 98 3A 00 00", 0, 15_000),
        ("78 0A E3 05 87 B7 08 06", 98_765_432, 101_234_567),
        ("FF FF FF FF 98 3A 00 00", None, 15_000),
    ],
)
def test_0x3d2_gives_lifetime_energies(data: str, discharged: int | None, charged: int):
    pack = look((0x3D2, data))
    assert (pack.discharged_wh, pack.charged_wh) == (discharged, charged)


@pytest.mark.parametrize(
    ("data", "index", "name", "kwh"),
    [
        ("00 80 2D 4E 00 00 00 00", 0, "BMS_acChargerKwhTotal", 5123.456),
        ("01 FD E8 21 00 00 00 00", 1, "BMS_dcChargerKwhTotal", 2222.333),
        ("02 41 42 0F 00 00 00 00", 2, "BMS_kwhRegenChargeTotal", 1000.001),
    ],
)
def test_0x3f2_examples(data: str, index: int, name: str, kwh: float):
    assert page("BMS_kwhCountersMultiplexed", data, index)[name] == pytest.approx(kwh)


@pytest.mark.parametrize(
    ("data", "low_v", "link_v", "amps"),
    [
        ("66 A9 26 7D 00", 13.98, 362.40, 12.5),
        ("E6 00 00 00 00", 8.98, 0.0, 0.0),
        ("5A CD 2A 5F 01", 13.52, 401.22, 35.1),
    ],
)
def test_0x2b4_of_five_bytes(data: str, low_v: float, link_v: float, amps: float):
    pack = look((0x2B4, data))
    assert (pack.lv_supply_v, pack.link_voltage_v, pack.link_at_ms) == (low_v, link_v, 0)
    assert page("PCS_dcdcRailStatus5", data)["PCS_dcdcLvOutputCurrent"] == pytest.approx(amps)


def test_0x2b4_of_six_bytes_is_another_layout():
    pack = look((0x2B4, "96 05 04 0F 4B 01"))
    assert (pack.lv_supply_v, pack.link_voltage_v) == (14.3, 384.4)


def test_of_two_lengths_of_0x2b4_the_newest_counts():
    five, six = (0x2B4, "66 A9 26 7D 00"), (0x2B4, "96 05 04 0F 4B 01")
    assert heard(six, at_ms=100, state=heard(five)).snapshot(100).link_voltage_v == 384.4
    assert heard(five, at_ms=100, state=heard(six)).snapshot(100).link_voltage_v == 362.4


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 7, 8])
def test_0x2b4_of_any_other_length_is_unknown(length: int):
    pack = heard().receive([frame(0x2B4, bytes.fromhex("66 A9 26 7D 00 00 00 00")[:length])], 0).snapshot(0)
    assert (pack.lv_supply_v, pack.link_voltage_v, pack.link_at_ms, pack.corrupt_frames) == (None, None, None, 1)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("C1 24 00 40 9C 00 00 00", {"PCS_prechargeStatus": 1, "PCS_dcdcMainState": 3, "PCS_dcdcSubState": 9,
                                     "PCS_dcdcMaxCurrent": 125.0}),
        ("44 08 7D 00 C8 00 00 00", {"PCS_supportStatus": 1, "PCS_dcdcSubState": 2, "PCS_dcdcLvCurrent": 12.5,
                                     "PCS_dcdcMaxCurrent": 160.0}),
        ("82 AD 00 00 00 00 00 00", {"PCS_prechargeStatus": 2, "PCS_dcdcMainState": 6, "PCS_dcdcSubState": 11,
                                     "PCS_dcdcFaulted": 1}),
    ],
)  # fmt: skip
def test_0x224_examples(data: str, wanted: Mapping[str, float]):
    values = page("PCS_dcdcStatus", data)
    assert {name: values[name] for name in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("data", "degrees"),
    [
        ("4C DF 3A D8 A1 2F 74", (22.0, 23.5, 24.0, 35.2, 21.0)),
        ("00 00 00 00 00 00 00", (40.0,) * 5),
        ("3E 1E 32 92 D7 3D 63", (-5.0, -4.5, -4.0, 12.3, -6.1)),
    ],
)
def test_0x2a4_temperatures_are_signed(data: str, degrees: tuple[float, ...]):
    assert tuple(page("PCS_thermalStatus", data).values()) == pytest.approx(degrees)


@pytest.mark.parametrize(
    ("data", "alerts"),
    [
        ("01 40 00 05 00 00 00 00", (71, 81, 83)),
        ("00 00 00 00 80 00 00 00", (36,)),
        ("02 00 00 00 00 00 03 00", (165, 166)),
        ("01 00 00 00 03 00 00 00", (89, 90)),
        ("00 10 00 00 00 00 00 80", (1 + (12 - 4), 60)),
        ("03 10 00 00 00 00 00 00", (189,)),
        ("04 10 00 00 00 00 00 00", (249,)),
    ],
)
def test_0x320_numbers_its_alerts_by_page_and_bit(data: str, alerts: tuple[int, ...]):
    assert look((0x320, data)).report.alerts == alerts


@pytest.mark.parametrize(
    ("data", "alerts"),
    [
        ("00 00 00 00 08 00 00 00", {"HVP_a036_pyroFuseBlown"}),
        ("00 00 00 02 40 00 00 00", {"HVP_a026_hvilFault", "HVP_a039_packContactorFellOpen"}),
        ("00 00 00 00 00 01 01 00", {"HVP_a041_packCloseBlocked", "HVP_a049_packCloseFailed"}),
    ],
)
def test_0x3aa_flat_examples(data: str, alerts: set[str]):
    assert {name for name, value in page("HVP_alertMatrix1", data).items() if value} == alerts


def test_0x7aa_page_1_gives_the_link():
    pack = look((0x7AA, "01 0E 00 2A 0E 00 00 00"))
    assert (pack.link_voltage_v, pack.link_at_ms) == (1.4, 0)
    values = page("HVP_debugMessage", "01 0E 00 2A 0E 00 00 00", 1)
    assert values["HVP_packVoltage"] == pytest.approx(362.6)
    assert values["HVP_fcLinkVoltage"] == 0


def test_0x7aa_page_5_gives_the_12_v_supply():
    assert look((0x7AA, "05 00 00 00 80 07 00 00")).lv_supply_v == 12.0
    assert page("HVP_debugMessage", "05 00 00 00 80 07 00 00", 5)["HVP_packContCoilCurrent"] == 0


def test_0x7aa_page_4_gives_the_interlock_voltages():
    values = page("HVP_debugMessage", "04 00 00 20 03 19 00 00", 4)
    assert (values["HVP_hvilInVoltage"], values["HVP_hvilOutVoltage"]) == (5.0, 2.5)


def test_0x392_examples():
    for data, kind, mass, volts, new_kwh in (
        ("01 03 A0 F6 00 00 00 00", 3, 460, 399.6, 0.0),
        ("01 04 B2 4F 01 E9 02 00", 4, 478, 408.5, 74.5),
        ("01 05 64 32 00 00 00 00", 5, 400, 380.0, 0.0),
    ):
        values = page("BMS_packConfig", data, 1)
        assert (values["BMS_moduleType"], values["BMS_packMass"]) == (kind, mass)
        assert values["BMS_platformMaxBusVoltage"] == pytest.approx(volts)
        assert values["BMS_packConfigBolEnergy"] == pytest.approx(new_kwh)


SERIAL = (0x72A, "00 54 47 33 32 31 32 30"), (0x72A, "01 32 30 30 33 41 48 58")


def test_0x72a_gives_the_serial_number_once_both_halves_came():
    assert look(SERIAL[0]).serial is None
    assert look(SERIAL[1]).serial is None
    assert look(*SERIAL).serial == "TG321202003AHX"
    assert heard(*SERIAL).snapshot(10_000_000).serial == "TG321202003AHX"


def test_a_serial_number_that_is_no_text_is_unknown():
    assert look((0x72A, "00 54 47 33 32 31 32 01"), SERIAL[1]).serial is None
    assert look((0x72A, "00 00 00 00 00 00 00 00"), SERIAL[1]).serial is None
    assert look((0x72A, "00 54 47 33"), SERIAL[1]).serial is None


@pytest.mark.parametrize(("data", "soh"), [("75 03 00 00 00 00 00 00", 88.5), ("E8 03", 100.0), ("FF 03", None)])
def test_0x492_gives_the_state_of_health(data: str, soh: float | None):
    assert look((0x492, data)).soh_pct == soh


def test_0x300_example():
    values = page("BMS_info", "0A 03 2C 03 31 00 C8 00", 10)
    wanted = {"BMS_buildConfigId": 812, "BMS_hardwareId": 49, "BMS_componentId": 200}
    assert {name: values[name] for name in wanted} == wanted


@pytest.mark.parametrize(("data", "asked"), [("08", 1), ("10", 2), ("18", 3)])
def test_0x232_examples(data: str, asked: int):
    assert page("BMS_contactorRequest", data)["BMS_packContactorRequest"] == asked


def test_0x22a_examples():
    values = page("HVP_pcsControl", "78 0E 02")
    assert values["HVP_dcLinkVoltageRequest"] == pytest.approx(370.4)
    assert values["HVP_pcsControlRequest"] == 2
    assert page("HVP_pcsControl", "00 00 03")["HVP_pcsControlRequest"] == 3


# 0x352: which layout

FLAT = "D5 22 8B 57 CC 12 97 16"  # low bits 1, and low bits 0 just as well:
FLAT_0 = "D4 22 8B 57 CC 12 97 16"
FLAT_3 = "D7 22 8B 57 CC 12 97 16"
PAGE_0, PAGE_1, PAGE_2 = "00 00 29 0E F4 06 FE 06", "01 00 C2 01 D6 06 35 07", "02 FE 06 29 0E 00 80 3D"
UNAVAILABLE = "FF FF FF FF FF FF FF 7F"


def layout(*frames: str, every_ms: int = 1000) -> str | None:
    state = EnergyLayout()
    for count, data in enumerate(frames):
        state = state.see(bytes.fromhex(data), count * every_ms)
    return state.known


def test_one_frame_of_0x352_decides_nothing():
    assert all(layout(data) is None for data in (FLAT, FLAT_0, FLAT_3, PAGE_0, PAGE_1, PAGE_2))
    pack = look((0x352, FLAT_3), (0x212, "00 01 C0 12 20 00 00 00"))
    assert (pack.energy_full_wh, pack.energy_remaining_wh, pack.isolation_kohm) == (None, None, None)


def test_paged_is_known_once_pages_0_and_1_were_seen():
    assert layout(PAGE_0, PAGE_2, PAGE_0) is None
    assert layout(PAGE_1, PAGE_2, PAGE_1) is None
    assert layout(PAGE_0, PAGE_1) == layout(PAGE_2, PAGE_1, PAGE_0) == "2021"


def test_flat_is_known_at_once_when_the_frame_cannot_be_a_page():
    assert layout(FLAT_3, FLAT_3) == "2020"
    # low bits 0, but as page 0 it would be a pack of 591 kWh (recorded)
    assert layout("20 82 8E 73 9C 23 00 8E", "20 82 8E 73 9C 23 00 8E") == "2020"


def test_flat_takes_five_seconds_when_the_frame_could_be_a_page():
    # As page 2 it would say 66.35 % (52|11): nothing speaks against a page but that no other one comes.
    frames = ["D6 22 8B 57 CC 12 97 16"] * 6
    assert layout(*frames[:5]) is None
    assert layout(*frames) == "2020"


def test_a_flat_frame_that_counts_down_through_every_low_bit_never_becomes_paged():
    assert layout(*[f"{0xD7 - n % 4:02X} 22 8B 57 CC 12 97 16" for n in range(20)]) == "2020"


def test_frames_that_read_both_ways_and_show_pages_0_and_1_stay_undecided():
    # A nearly empty flat pack whose full energy moves between 60.0 and 60.1 kWh: as pages it would be believable too.
    empty = 40 << 11 | 40 << 22 | 40 << 33 | 544 << 44 | 40 << 55
    turn = [(full | empty).to_bytes(8, "little").hex() for full in (600, 601)]
    assert all(tesla_model3.flat_fits(page("BMS_energyStatus2020", data)) for data in turn)
    assert all(
        tesla_model3.paged_fits(index, page("BMS_energyStatus2021", data, index)) for index, data in enumerate(turn)
    )
    assert layout(*turn * 10) is None


def test_recorded_page_2_alone_is_never_taken_for_a_flat_frame():
    # tesla-m3-parked-b: as a flat frame 102.6 kWh full, but 126.8 kWh of them left
    assert layout(*["02 54 05 3D 05 48 F0 2D"] * 20) is None


def test_a_page_1_with_a_buffer_no_pack_has_speaks_against_pages():
    assert tesla_model3.paged_fits(1, page("BMS_energyStatus2021", PAGE_1, 1)) is True
    assert tesla_model3.paged_fits(1, page("BMS_energyStatus2021", "01 00 C2 0C D6 06 35 07", 1)) is False


def test_a_frame_that_says_not_available_decides_nothing():
    assert layout(*[UNAVAILABLE] * 20) is None
    assert layout(FLAT_3, UNAVAILABLE, FLAT_3) == "2020"
    assert layout(PAGE_0, UNAVAILABLE, PAGE_1) == "2021"


def test_a_contradiction_starts_everything_again():
    assert layout(FLAT_3, FLAT_3, PAGE_0) is None
    assert layout(FLAT_3, FLAT_3, PAGE_0, PAGE_1) == "2021"
    assert layout(PAGE_0, PAGE_1, FLAT_3) is None
    assert layout(PAGE_0, PAGE_1, FLAT_3, FLAT_3) == "2020"


def test_a_short_frame_of_0x352_decides_nothing():
    assert layout(FLAT_3[:20], FLAT_3[:20]) is None


@given(
    full=st.integers(200, 1200), share=st.floats(0.0, 1.0), buffer=st.integers(0, 80), done=st.booleans(),
    drift=st.lists(st.integers(-1, 1), min_size=12, max_size=12),
)  # fmt: skip
def test_a_flat_pack_is_never_taken_for_a_paged_one(full: int, share: float, buffer: int, done: bool, drift: list[int]):
    state = EnergyLayout()
    left = round(full * share)
    for count, step in enumerate(drift):
        full = min(max(full + step, 200), 1200)
        left = min(left, full)
        word = full | left << 11 | left << 22 | left << 33 | (full - left) << 44 | buffer << 55 | int(done) << 63
        state = state.see(word.to_bytes(8, "little"), count * 1000)
        assert state.known != "2021"


@given(
    full=st.integers(1_050, 6_000), share=st.floats(0.0, 1.0), buffer=st.integers(0, 800),
    pages=st.lists(st.sampled_from([0, 0, 1, 1, 2]), min_size=12, max_size=12), displayed=st.integers(0, 6_000),
    soe=st.integers(0, 2000), blend=st.integers(0, 4095),
)  # fmt: skip
def test_a_paged_pack_is_never_taken_for_a_flat_one_once_page_0_or_1_came(
    full: int, share: float, buffer: int, pages: list[int], displayed: int, soe: int, blend: int
):
    state = EnergyLayout()
    left = round(full * share)
    words = (
        full << 16 | left << 32 | left << 48,
        1 | buffer << 16 | left << 32 | (full - left) << 48,
        2 | displayed << 8 | displayed << 24 | blend << 40 | soe << 52,
    )
    for count, index in enumerate(pages):
        state = state.see(words[index].to_bytes(8, "little"), count * 667)
        if {0, 1} & set(pages[: count + 1]):
            assert state.known != "2020"
    if {0, 1} <= set(pages):
        assert state.known == "2021"


def with_energy(*more: tuple[int, str], frames: Iterable[str] = (FLAT_3, FLAT_3)) -> BatterySnapshot:
    state = heard(*((0x352, data) for data in ()))
    for data in frames:
        state = heard((0x352, data), state=state)
    return heard(*more, state=state).snapshot(0)


def test_energies_of_both_layouts():
    pack = with_energy()
    assert (pack.energy_full_wh, pack.energy_remaining_wh) == (72_700, 35_600)
    pack = with_energy(frames=(PAGE_0, PAGE_1))
    assert (pack.energy_full_wh, pack.energy_remaining_wh) == (72_500, 35_600)


def test_isolation_is_told_only_in_the_2020_layout():
    status = 0x212, "00 04 43 10 21 20 03 01"
    assert with_energy(status).isolation_kohm == 5200
    assert with_energy(status, frames=(PAGE_0, PAGE_1)).isolation_kohm is None
    assert with_energy(status, frames=()).isolation_kohm is None
    assert with_energy((0x212, "00 05 F8 1F 27 FF 07 07")).isolation_kohm is None


def test_health_is_derived_from_the_energy_when_new():
    assert with_energy((0x292, "E0 AD 47 9F 7A 35 93 01"), frames=(PAGE_0, PAGE_1)).soh_pct == 88.31
    assert with_energy((0x292, "98 C7 6E 3B EB FF FF 03"), frames=(PAGE_0, PAGE_1)).soh_pct is None
    assert with_energy((0x292, "E0 AD 47 9F 7A 35 93 01"), frames=()).soh_pct is None


def test_the_pack_s_own_health_comes_first():
    soc = 0x292, "E0 AD 47 9F 7A 35 93 01"
    assert with_energy(soc, (0x492, "75 03"), frames=(PAGE_0, PAGE_1)).soh_pct == 88.5
    assert with_energy(soc, (0x492, "FF 03"), frames=(PAGE_0, PAGE_1)).soh_pct == 88.31


@pytest.mark.parametrize("raw", [0, 1, 512, 513, 768, 769])
def test_the_power_in_the_2026_layout_of_0x292_is_not_taken_for_an_energy(raw: int):
    word = 480 | 491 << 10 | 500 << 20 | 490 << 30 | raw << 40
    assert with_energy((0x292, word.to_bytes(8, "little").hex()), frames=(PAGE_0, PAGE_1)).soh_pct is None


# Contactor state

BMS = {"SNA": 0, "OPEN": 1, "OPENING": 2, "CLOSING": 3, "CLOSED": 4, "WELDED": 5, "BLOCKED": 6}
HVP = {"SNA": 0, "OPEN": 1, "CLOSING": 2, "BLOCKED": 3, "OPENING": 4, "CLOSED": 5, "PARTIAL_WELD": 6, "WELDED": 7,
       "POSITIVE_CLOSED": 8, "NEGATIVE_CLOSED": 9}  # fmt: skip


def status(contactor: str = "OPEN", bms_state: int = 0) -> tuple[int, str]:
    return 0x212, f"00 {BMS[contactor]:02X} 00 00 {bms_state:02X} 00 00 00"


def contactors(
    set_state: str = "OPEN", more: int = 0, hvil: int = 1, negative: int = 1, positive: int = 1
) -> tuple[int, str]:
    word = negative | positive << 3 | HVP[set_state] << 8 | 1 << 12 | 1 << 16 | 1 << 19 | hvil << 40 | more
    return 0x20A, word.to_bytes(6, "little").hex()


@pytest.mark.parametrize(
    ("bms", "hvp", "wanted"),
    [
        ("CLOSED", "CLOSED", "CLOSED"),
        ("OPEN", "OPEN", "OPEN"),
        ("CLOSED", None, "CLOSED"),
        (None, "CLOSED", "CLOSED"),
        (None, None, None),
        ("SNA", "SNA", None),
        ("SNA", "OPEN", "OPEN"),
        ("CLOSED", "SNA", "CLOSED"),
        ("CLOSED", "WELDED", "WELDED"),
        ("CLOSED", "PARTIAL_WELD", "WELDED"),
        ("WELDED", "OPEN", "WELDED"),
        ("CLOSED", "BLOCKED", "BLOCKED"),
        ("BLOCKED", "CLOSED", "BLOCKED"),
        ("CLOSED", "OPENING", "OPENING"),
        ("OPENING", "CLOSED", "OPENING"),
        ("CLOSED", "CLOSING", "CLOSING"),
        ("OPEN", "CLOSING", "CLOSING"),
        ("OPEN", "CLOSED", "OPENING"),
        ("CLOSED", "OPEN", "OPENING"),
        ("OPEN", "POSITIVE_CLOSED", "CLOSING"),
        (None, "NEGATIVE_CLOSED", "CLOSING"),
    ],
)
def test_of_two_contradicting_contactor_states_the_worse_counts(bms: str | None, hvp: str | None, wanted: str | None):
    frames = [] if bms is None else [status(bms)]
    frames += [] if hvp is None else [contactors(hvp)]
    assert look(*frames).contactor_state is (None if wanted is None else PackContactor[wanted])


# The report

QUIET = ((0x320, "00 00 00 00 00 00 00 00"), (0x320, "01 00 00 00 00 00 00 00"), (0x320, "02 00 00 00 00 00 00 00"))
SUPPLY = 0x7AA, "05 00 00 00 80 07 00 00"
CALM = (*QUIET, SUPPLY, status(), contactors())


def alert(number: int) -> tuple[int, str]:
    """The page of 0x320 with exactly this alert."""
    word = (number - 1) // 60 | 1 << 4 + (number - 1) % 60
    return 0x320, word.to_bytes(8, "little").hex()


COMPLAINTS = ("fault", "open_now", "open_asked", "refuses", "link_loaded", "welded", "isolation_alert", "warns")


def complaints(report: PackReport) -> set[str]:
    return {name for name in COMPLAINTS if getattr(report, name)}


def test_a_calm_pack_complains_of_nothing_and_says_so():
    assert look(*CALM).report == PackReport(
        fault=False, open_now=False, open_asked=False, refuses=False, link_loaded=False, welded=False,
        isolation_alert=False, no_charge=None, no_discharge=None, warns=False, alerts=(),
    )  # fmt: skip


def test_before_the_first_frame_every_complaint_is_unknown():
    assert PROTOCOL.start().snapshot(0).report == PackReport()


@pytest.mark.parametrize(
    ("missing", "unknown"),
    [
        (0x212, {"fault", "refuses", "welded"}),
        (0x20A, {"fault", "open_now", "open_asked", "refuses", "welded"}),
        (0x320, {"fault", "open_asked", "refuses", "link_loaded", "welded", "isolation_alert", "warns"}),
    ],
)
def test_a_complaint_is_ruled_out_only_when_every_source_is_known(missing: int, unknown: set[str]):
    report = look(*(entry for entry in CALM if entry[0] != missing)).report
    assert {name for name in COMPLAINTS if getattr(report, name) is None} == unknown


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        ([status("OPEN", 6)], {"fault"}),
        ([status("OPEN", 7)], {"fault"}),
        ([status("OPEN", 9)], set()),
        ([contactors(more=1 << 33)], {"open_now"}),
        ([contactors(more=1 << 34)], {"open_asked"}),
        ([alert(82)], {"open_asked", "fault"}),
        ([contactors(more=1 << 32)], {"refuses"}),
        ([contactors("BLOCKED")], {"refuses"}),
        ([status("BLOCKED")], {"refuses"}),
        ([contactors(negative=3)], {"refuses"}),
        ([alert(81)], {"refuses"}),
        ([alert(52)], {"refuses"}),
        ([status("WELDED")], {"welded"}),
        ([contactors("PARTIAL_WELD")], {"welded"}),
        ([contactors("WELDED")], {"welded"}),
        ([contactors(positive=7)], {"welded"}),
        ([contactors(negative=7)], {"welded"}),
        ([alert(165)], {"welded", "fault"}),
        ([alert(166)], {"welded", "fault"}),
        *(([alert(number)], {"fault"}) for number in (167, 168, 169)),
        ([contactors(more=6 << 19)], {"fault"}),
        *(([alert(number)], {"isolation_alert"}) for number in (34, 35, 123, 151)),
        *(([alert(number)], {"warns"}) for number in (62, 69, 105, 136, 137, 138, 170, 179)),
        *(([alert(number)], {"fault"})
          for number in (17, 18, 19, 22, 23, 36, 39, 61, 99, 106, 107, 146, 159, 163)),
        *(([alert(number)], set()) for number in (1, 41, 84, 89, 90, 94, 134, 145, 161, 180)),
        ([alert(71)], set()),
        ([alert(83)], set()),
        ([(0x320, "01 40 00 04 00 00 00 00")], {"link_loaded"}),
    ],
)  # fmt: skip
def test_what_the_pack_complains_of(frames: list[tuple[int, str]], wanted: set[str]):
    assert complaints(look(*CALM, *frames).report) == wanted


def test_a_sagging_12_v_supply_while_closing_is_a_load_on_the_link():
    weak = 0x2B4, "E6 00 00 00 00"  # 8.98 V
    assert complaints(look(*CALM, weak, status("CLOSING")).report) == {"link_loaded"}
    assert complaints(look(*CALM, weak, contactors("CLOSING")).report) == {"link_loaded"}
    assert complaints(look(*CALM, weak).report) == set()
    assert complaints(look(*CALM, (0x2B4, "66 A9 26 7D 00"), status("CLOSING")).report) == set()
    assert complaints(look(*CALM, (0x7AA, "05 00 00 00 E0 05 00 00"), status("CLOSING")).report) == {"link_loaded"}


def test_alerts_of_all_pages_are_named_lowest_first():
    both_ends = 0x320, (1 << 4 | 1 << 63).to_bytes(8, "little").hex()
    assert look(alert(166), both_ends, alert(120)).report.alerts == (1, 60, 120, 166)


def test_alerts_go_stale_page_by_page():
    state = heard(*QUIET, alert(81), status(), contactors())
    state = heard(QUIET[0], status(), contactors(), at_ms=5_000, state=state)
    assert state.snapshot(5_000).report.alerts == (81,)
    report = state.snapshot(5_001).report
    assert (report.alerts, report.refuses, report.warns) == ((), None, None)


# Link voltage


def test_the_hv_processor_s_link_voltage_comes_before_the_dc_dc_s():
    hvp, pcs = (0x7AA, "01 0E 00 2A 0E 00 00 00"), (0x2B4, "66 A9 26 7D 00")
    assert look(hvp, pcs).link_voltage_v == 1.4
    state = heard(pcs, at_ms=6_000, state=heard(hvp))
    assert (state.snapshot(6_000).link_voltage_v, state.snapshot(6_000).link_at_ms) == (362.4, 6_000)


@pytest.mark.parametrize(("bms", "known"), [("CLOSED", False), ("OPEN", True), ("CLOSING", True)])
def test_while_closed_a_link_far_from_the_pack_is_unknown(bms: str, known: bool):
    pack = look((0x132, "60 8D 05 00 00 00"), (0x2B4, "66 A9 1F 7D 00"), status(bms))  # 361.92 V and 297 V
    assert (pack.link_voltage_v is not None) is known
    assert (pack.link_at_ms is not None) is known


def test_while_closed_a_link_near_the_pack_is_known_and_one_without_a_pack_voltage_is_not():
    assert look((0x132, "60 8D 05 00 00 00"), (0x2B4, "66 A9 26 7D 00"), status("CLOSED")).link_voltage_v == 362.4
    assert look((0x2B4, "66 A9 26 7D 00"), status("CLOSED")).link_voltage_v is None


def test_while_closed_a_contradicting_source_gives_way_to_an_agreeing_one():
    pack = look((0x132, "60 8D 05 00 00 00"), (0x2B4, "66 A9 26 7D 00"), status("CLOSED"), (0x7AA, "01 0E 00 2A 0E"))
    assert pack.link_voltage_v == 362.4


# Single cells


def bricks(index: int, volts: Iterable[float | None], counter: int = 0) -> tuple[int, str]:
    """One page of 0x401; None is a missing cell."""
    word = index | counter << 14
    for place, value in enumerate(volts):
        if value is not None:
            word |= 2 << 8 + 2 * place | round(value * 10_000) << 16 + 16 * place
    return 0x401, word.to_bytes(8, "little").hex()


def round_of(cells: int, pages: int = 36) -> Iterator[tuple[int, str]]:
    for index in range(pages):
        yield bricks(
            index, [3.3 + number / 1000 if number < cells else None for number in range(3 * index, 3 * index + 3)]
        )


def gathered(frames: Iterable[tuple[int, str]], *before: tuple[int, str]) -> BatterySnapshot:
    state = heard((0x332, extremes(3.3, 3.4)), *before)
    for entry in frames:
        state = heard(entry, state=state)
    return state.snapshot(0)


@pytest.mark.parametrize(("cells", "chemistry"), [(92, "nca"), (96, "nca"), (102, "lfp"), (106, "lfp"), (108, "lfp")])
def test_cells_are_counted_once_a_whole_round_was_seen(cells: int, chemistry: str):
    entries = list(round_of(cells))
    assert gathered(entries).cells is None
    pack = gathered([*entries, entries[0]])
    assert pack.cells_v == tuple(round(3.3 + number / 1000, 4) for number in range(cells))
    assert PROTOCOL.kind(pack) == PackKind(cells, chemistry)


def test_a_round_that_began_in_the_middle_is_no_whole_round():
    entries = list(round_of(106))
    assert PROTOCOL.kind(gathered([*entries[20:], *entries[:20]])) == PackKind(None, None)
    assert PROTOCOL.kind(gathered([*entries[20:], *entries[:21]])) == PackKind(106, "lfp")


def test_96_pages_worth_of_a_106_cell_pack_are_not_96_cells():
    assert PROTOCOL.kind(gathered(list(round_of(106))[:32])) == PackKind(None, None)


def test_a_count_that_contradicts_the_voltages_is_believed_by_nobody():
    # Pages 32 to 35 of an LFP pack are lost in the first round: 96 cells are counted, which would make it NCA.
    entries = list(round_of(106))
    looks = [(0x132, "CF 89 F8 FF 00 00"), (0x332, extremes(3.33, 3.332))] * 2  # 352.79 V, -0.8 A
    state = heard()
    for entry in [*looks, *entries[:32], entries[0]]:
        state = heard(entry, state=state)
    assert state.cells.counted == 96
    assert state.snapshot(0).cells is None
    for entry in [*entries[1:], entries[0]]:
        state = heard(entry, state=state)
    assert PROTOCOL.kind(state.snapshot(0)) == PackKind(106, "lfp")


def test_a_page_sent_twice_in_a_row_is_no_whole_round():
    entries = list(round_of(106))[:32]
    assert gathered([*entries, entries[-1]]).cells is None


def test_an_s_or_x_pack_of_110_cells_is_of_no_known_chemistry():
    entries = list(round_of(110, pages=37))
    assert PROTOCOL.kind(gathered([*entries, entries[0]])) == PackKind(110, None)


def test_cells_that_are_bad_missing_or_beyond_physics_are_none():
    entries = list(round_of(96))
    entries[0] = bricks(0, [3.7, None, 4.6])
    word = int.from_bytes(bytes.fromhex(bricks(1, [3.7, 3.7, 3.7])[1]), "little")
    entries[1] = 0x401, (word ^ (2 ^ 1) << 8).to_bytes(8, "little").hex()  # BAD
    assert gathered([*entries, entries[0]]).cells_v[:6] == (3.7, None, None, None, 3.7, 3.7)


def test_cells_without_the_pack_s_own_extremes_are_not_shown():
    entries = list(round_of(96))
    state = heard()
    for entry in [*entries, entries[0]]:
        state = heard(entry, state=state)
    assert state.snapshot(0).cells is None
    assert PROTOCOL.kind(state.snapshot(0)) == PackKind(None, None)


def test_single_cells_go_stale_page_by_page():
    state = heard((0x332, extremes(3.3, 3.4)))
    entries = list(round_of(96))
    for entry in [*entries, entries[0]]:
        state = heard(entry, state=state)
    state = heard(bricks(1, [3.5, 3.5, 3.5]), (0x332, extremes(3.3, 3.4)), at_ms=300_000, state=state)
    assert None not in state.snapshot(300_000).cells_v
    assert state.snapshot(300_001).cells_v == (None, None, None, 3.5, 3.5, 3.5, *(None,) * 90)


@pytest.mark.parametrize(
    ("volts", "low", "high", "amps", "kind"),
    [
        (357.94, 3.724, 3.732, -2.6, PackKind(96, "nca")),
        (343.0, 3.724, 3.732, -2.6, PackKind(92, "nca")),
        (353.07, 3.330, 3.332, -0.8, PackKind(106, "lfp")),
        (357.94, 3.724, 3.732, 25.0, PackKind(None, None)),
        (365.4, 3.724, 3.732, 0.0, PackKind(None, None)),
        (380.0, 3.724, 3.732, 0.0, PackKind(102, "lfp")),
        (395.4, 3.8, 3.8, 0.0, PackKind(104, None)),
        (357.94, None, 3.732, 0.0, PackKind(None, None)),
        (None, 3.724, 3.732, 0.0, PackKind(None, None)),
    ],
)
def test_until_then_pack_over_cell_voltage_tells_the_kind_near_rest(
    volts: float | None, low: float | None, high: float, amps: float, kind: PackKind
):
    pack = BatterySnapshot(pack_voltage_v=volts, cell_min_v=low, cell_max_v=high, current_a=amps)
    assert PROTOCOL.kind(pack) == kind


# Freshness, "not available", short and foreign frames

EVERYTHING = (
    (0x132, "96 8D 38 FF 00 00 FF 0F"), (0x20A, "F6 15 09 80 18 01"), (0x212, "00 04 43 10 21 20 03 01"),
    (0x252, "1A 1F 1A 1F F4 01 00 00"), (0x292, "E0 AD 47 9F 7A 35 93 01"), (0x2D2, "4B 2F A0 4E DC 05 D0 07"),
    (0x332, "14 02 86 7E 85 80"), (0x332, "89 1D 5A 07 0B 57"), (0x352, FLAT_3), (0x3D2, "4E 61 BC 00 59 59 C6 00"),
    (0x2B4, "66 A9 26 7D 00"), (0x7AA, "05 00 00 00 80 07 00 00"), *QUIET,
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "rounds_ms", "feed"),
    [
        (("pack_voltage_v",), 100, Feed.VOLTAGE),
        (("current_a",), 100, Feed.CURRENT),
        (("cell_min_v", "cell_max_v"), 10_000, Feed.CELLS),
        (("temp_min_c", "temp_max_c"), 10_000, Feed.TEMPERATURES),
        (("soc_pct",), 500, Feed.SOC),
        (("hvil_ok",), 5_000, Feed.HVIL),
        (("max_charge_w", "max_discharge_w"), 500, None),
        (("design_min_v", "design_max_v", "max_charge_a", "max_discharge_a"), 500, None),
        (("energy_full_wh", "energy_remaining_wh"), 5_000, None),
        (("charged_wh", "discharged_wh"), 5_000, None),
        (("isolation_kohm",), 500, None),
        (("lv_supply_v",), 5_000, None),
    ],
)
def test_a_value_lives_five_rounds_and_not_longer(names: tuple[str, ...], rounds_ms: int, feed: Feed | None):
    state = heard(*EVERYTHING, (0x352, FLAT_3))
    state = heard((0x352, FLAT_3), state=state)
    for name in names:
        assert getattr(state.snapshot(rounds_ms), name) is not None
        assert getattr(state.snapshot(rounds_ms + 1), name) is None
    if feed is not None:
        freshness = state.snapshot(rounds_ms).feeds[feed]
        assert freshness.valid_at_ms == 0
        assert freshness.fresh(rounds_ms)
        assert not freshness.fresh(rounds_ms + 1)


def test_the_contactor_state_lives_on_the_frame_that_is_left():
    state = heard(*EVERYTHING)
    assert state.snapshot(500).contactor_state is PackContactor.CLOSED
    assert state.snapshot(5_000).contactor_state is PackContactor.CLOSED  # 0x20A, once a second
    assert state.snapshot(5_001).contactor_state is None
    assert state.snapshot(501).feeds[Feed.CONTACTOR].fresh(501) is False


def test_each_page_of_0x332_ages_on_its_own():
    state = heard(*EVERYTHING)
    state = heard((0x332, "14 02 86 7E 85 80"), at_ms=10_000, state=state)
    pack = state.snapshot(10_001)
    assert (pack.temp_max_c, pack.cell_max_v) == (27.0, None)
    assert (pack.feeds[Feed.TEMPERATURES].valid_at_ms, pack.feeds[Feed.CELLS].valid_at_ms) == (10_000, 0)


@pytest.mark.parametrize(
    ("entry", "feed", "names"),
    [
        ((0x132, "96 8D 00 80 00 00 FF 0F"), Feed.CURRENT, ("current_a",)),
        ((0x132, "00 00 38 FF 00 00 FF 0F"), Feed.VOLTAGE, ("pack_voltage_v",)),
        ((0x332, "01 00 00 00 00 00"), Feed.CELLS, ("cell_min_v", "cell_max_v")),
        ((0x332, "14 02 FF FF 85 80"), Feed.TEMPERATURES, ("temp_min_c", "temp_max_c")),
        ((0x332, "14 02 FF 7E 85 80"), Feed.TEMPERATURES, ("temp_max_c",)),
        ((0x212, "00 00 00 00 00 00 00 00"), Feed.CONTACTOR, ()),
        ((0x20A, "C9 11 09 00 08 00"), Feed.HVIL, ("hvil_ok",)),
        ((0x292, (480 | 1023 << 10 | 500 << 20).to_bytes(8, "little").hex()), Feed.SOC, ("soc_pct",)),
    ],
)
def test_a_frame_that_says_not_available_is_unknown_at_once_and_refreshes_nothing(
    entry: tuple[int, str], feed: Feed, names: tuple[str, ...]
):
    state = heard(entry, at_ms=50, state=heard(*EVERYTHING))
    pack = state.snapshot(50)
    assert pack.feeds[feed].valid_at_ms == 0
    assert [getattr(pack, name) for name in names] == [None] * len(names)


def test_a_value_comes_back_with_the_next_valid_frame():
    state = heard((0x132, "96 8D 00 80 00 00"), at_ms=10, state=heard(*EVERYTHING))
    state = heard((0x132, "96 8D 38 FF 00 00"), at_ms=20, state=state)
    assert state.snapshot(20).current_a == -20.0
    assert state.snapshot(20).feeds[Feed.CURRENT].valid_at_ms == 20


def test_one_feed_of_a_frame_may_be_valid_and_the_other_not():
    pack = heard((0x132, "96 8D 00 80 00 00"), at_ms=10, state=heard(*EVERYTHING)).snapshot(10)
    assert pack.feeds[Feed.VOLTAGE].valid_at_ms == 10
    assert pack.feeds[Feed.CURRENT].valid_at_ms == 0


@pytest.mark.parametrize(
    ("can_id", "data", "length", "names"),
    [
        (0x132, "96 8D 38 FF", 3, ("current_a",)),
        (0x132, "96 8D 38 FF", 2, ("current_a",)),
        (0x20A, "F6 15 09 80 18 01", 5, ("hvil_ok",)),
        (0x252, "1A 1F 1A 1F", 3, ("max_discharge_w",)),
        (0x292, "E0 AD 47 9F", 1, ("soc_pct",)),
        (0x2D2, "4B 2F A0 4E", 3, ("design_min_v", "design_max_v")),
        (0x332, "89 1D 5A 07 0B 57", 3, ("cell_min_v",)),
        (0x332, "14 02 86 7E 85 80", 3, ("temp_min_c",)),
        (0x3D2, "4E 61 BC 00 59 59 C6 00", 7, ("charged_wh",)),
    ],
)
def test_missing_bytes_are_unknown_never_zero(can_id: int, data: str, length: int, names: tuple[str, ...]):
    full = look((can_id, data))
    short = look((can_id, bytes.fromhex(data)[:length].hex()))
    for name in names:
        assert getattr(full, name) is not None
        assert getattr(short, name) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([*sorted(PROTOCOL.rx), 0x100, 0x7DF]), st.binary(max_size=8), st.booleans()),
        max_size=40,
    )
)
def test_no_frame_whatever_makes_it_raise(frames: list[tuple[int, bytes, bool]]):
    state = PROTOCOL.start()
    for tick, (can_id, data, extended) in enumerate(frames):
        state = state.receive([CanFrame(can_id, data, 10 * tick, extended)], 10 * tick)
        pack = state.snapshot(10 * tick)
        known = sum(1 for entry in frames[: tick + 1] if entry[0] in PROTOCOL.rx and not entry[2])
        assert pack.decoded_frames + pack.corrupt_frames == known
        PROTOCOL.kind(pack)
        state.transmit(PACK, 10 * tick)


def test_extended_and_foreign_frames_refresh_nothing_and_are_not_counted():
    state = heard(*EVERYTHING)
    foreign = [CanFrame(can_id, bytes.fromhex(data), 400, True) for can_id, data in EVERYTHING]
    foreign += [CanFrame(0x1DB, bytes(8), 400), CanFrame(0x133, bytes(8), 400)]
    later = state.receive(foreign, 400)
    assert later.snapshot(400) == state.snapshot(400)
    assert later.snapshot(400).pack_voltage_v is None
    assert later.snapshot(400).decoded_frames == len(EVERYTHING)


def test_receiving_and_transmitting_leave_the_old_state_as_it_was():
    state = PROTOCOL.start()
    later = state.receive([frame(*entry) for entry in EVERYTHING], 0)
    later.transmit(PACK, 0)
    assert state.snapshot(0).pack_voltage_v is None
    assert later.transmit(PACK, 0)[1] == later.transmit(PACK, 0)[1]


# What is sent


def transmitted(
    closed_at: Mapping[int, frozenset[Contactor]], until_ms: int, options: Mapping[str, Any] | None = None,
    bms: Mapping[int, str] | None = None,
) -> list[tuple[int, CanFrame]]:  # fmt: skip
    """Every frame with its tick; `closed_at` and `bms` (0x212) change at the named times."""
    state = PROTOCOL.start(options or {})
    closed, contactor, sent = NOTHING, None, []
    for now_ms in range(0, until_ms, 10):
        closed = closed_at.get(now_ms, closed)
        contactor = (bms or {}).get(now_ms, contactor)
        if contactor is not None and now_ms % 100 == 0:
            state = heard(status(contactor), at_ms=now_ms, state=state)  # type: ignore[arg-type]
        state, frames = state.transmit(closed, now_ms)
        sent += [(now_ms, entry) for entry in frames]
    return sent


def of(sent: Iterable[tuple[int, CanFrame]], can_id: int) -> list[tuple[int, bytes]]:
    return [(now_ms, entry.data) for now_ms, entry in sent if entry.id == can_id]


def hexes(frames: Iterable[tuple[int, bytes]]) -> list[str]:
    return [data.hex(" ").upper() for _, data in frames]


PERIODS = {
    0x118: 10, 0x2E1: 10, 0x221: 50, 0x3C2: 50, 0x39D: 50, 0x3A1: 50, 0x102: 100, 0x103: 100, 0x229: 100, 0x241: 100,
    0x2D1: 100, 0x2A8: 100, 0x2E8: 100, 0x7FF: 100, 0x213: 500, 0x284: 500, 0x293: 500, 0x313: 500, 0x333: 500,
    0x334: 500, 0x3B3: 500, 0x55A: 500, 0x082: 1000, 0x321: 1000,
}  # fmt: skip
CONSTANTS = {
    0x102: ["22 33 00 00 C0 38 21 08"], 0x103: ["22 33 00 00 30 F2 20 02"], 0x241: ["35 34 0C 0F 8F 55 00"],
    0x2D1: ["FF 01"], 0x284: ["10 00 00 00 00"], 0x333: ["84 30 84 07 02"], 0x3B3: ["90 80 05 08 00 00 00 01"],
    0x55A: ["01 00 00 00 00 00 00 00"], 0x082: ["00 00 00 80 00 80 00 80"],
    0x3C2: ["00 55 55 55 00 00 5A 45", "29 55 00 00 00 00 00 00"],
    0x2E1: ["29 0A 00 FF 0F 00 00 00", "02 00 00 00 00 00 03 00", "03 6D 99 02 1B 57 00 00",
            "FC 1B D1 99 9A D8 09 00", "05 00 00 00 00 00 00 00", "08 21 04 6E A0 88 06 04"],
    0x7FF: ["01 49 42 47 00 03 15 01", "02 66 32 24 04 49 95 82", "03 01 08 48 01 00 00 12",
            "04 73 03 67 5C 00 00 00", "05 00 00 00 20 00 00 00"],
}  # fmt: skip
FIRSTS = {
    0x118: ["AB 60 2A 00 00 08 00 00", "AC 61 2A 00 00 08 00 00"], 0x39D: ["E1 59 C1 27 00", "E2 5A C1 27 00"],
    0x2A8: ["02 00 00 00 00 80 00 2C", "02 00 00 00 00 80 10 3C"], 0x2E8: ["02 00 10 00 00 80 00 7C"],
    0x213: ["00 15"], 0x293: ["01 0C 55 91 55 15 01 F3"], 0x313: ["00 00 00 05 00 00 00 1B"],
    0x321: ["EC 71 A7 6E 02 6C 00 04"], 0x334: ["3F 3F C8 00 E2 3F 80 1E", "3F 3F 00 0F E2 3F 90 75"],
    0x229: ["46 00 00", "44 01 00", "52 02 00", "6D 03 00"],
}  # fmt: skip
SUM_AT = {0x221: 7, 0x2A8: 7, 0x293: 7, 0x313: 7, 0x321: 7, 0x334: 7, 0x2E8: 7, 0x118: 0, 0x39D: 0, 0x213: 1}
COUNTER = {0x221: 52, 0x2A8: 52, 0x293: 52, 0x313: 52, 0x321: 52, 0x334: 52, 0x2E8: 52, 0x118: 8, 0x39D: 8, 0x229: 8,
           0x213: 4}  # fmt: skip


@pytest.fixture(scope="module")
def long_drive() -> list[tuple[int, CanFrame]]:
    """40 s of asking, CLOSED from the second on."""
    return transmitted({0: PACK}, 40_000, bms={1_000: "CLOSED"})


def test_the_full_method_sends_every_id_of_the_note_at_its_period(long_drive: list[tuple[int, CanFrame]]):
    assert {entry.id for _, entry in long_drive} == set(PERIODS)
    for can_id, period_ms in PERIODS.items():
        times = [now_ms for now_ms, _ in of(long_drive, can_id)]
        assert {later - earlier for earlier, later in pairwise(times)} == {period_ms}, hex(can_id)
        assert times[0] < (1_100 if can_id == 0x3A1 else period_ms)


def test_the_constant_frames_are_those_of_the_note_in_turn(long_drive: list[tuple[int, CanFrame]]):
    for can_id, turn in CONSTANTS.items():
        sent = hexes(of(long_drive, can_id))
        assert sent == [turn[count % len(turn)] for count in range(len(sent))], hex(can_id)


def test_the_counted_frames_begin_as_listed(long_drive: list[tuple[int, CanFrame]]):
    for can_id, first in FIRSTS.items():
        assert hexes(of(long_drive, can_id))[: len(first)] == first, hex(can_id)
    assert "BA 6F 2A 00 00 08 00 00" in hexes(of(long_drive, 0x118))
    assert "F0 05" in hexes(of(long_drive, 0x213))


def test_0x334_sends_its_first_payload_once(long_drive: list[tuple[int, CanFrame]]):
    assert {data[:6] for _, data in of(long_drive, 0x334)[1:]} == {bytes.fromhex("3F 3F 00 0F E2 3F")}


def test_every_counter_goes_up_by_one_and_every_checksum_is_right(long_drive: list[tuple[int, CanFrame]]):
    for can_id, bit in COUNTER.items():
        counters = [int.from_bytes(data, "little") >> bit & 0xF for _, data in of(long_drive, can_id)]
        assert all((later - earlier) % 16 == 1 for earlier, later in pairwise(counters)), hex(can_id)
        assert len(set(counters)) == 16, hex(can_id)
    for can_id, at in SUM_AT.items():
        for _, data in of(long_drive, can_id):
            assert data[at] == (sum(data) - data[at] + (can_id & 0xFF) + (can_id >> 8)) & 0xFF, hex(can_id)


def test_0x229_takes_its_checksum_from_the_table(long_drive: list[tuple[int, CanFrame]]):
    table = bytes.fromhex("46 44 52 6D 43 41 DD F9 4C A5 F6 8C 49 2F 31 3B")
    assert hexes(of(long_drive, 0x229))[:16] == [f"{check:02X} {count:02X} 00" for count, check in enumerate(table)]


def test_0x221_drive_alternates_mux_1_and_0_with_one_counter_from_15_on(long_drive: list[tuple[int, CanFrame]]):
    assert hexes(of(long_drive, 0x221))[:4] == [
        "61 05 55 05 00 00 F0 D3", "60 55 55 15 54 51 01 E8", "61 05 55 05 00 00 10 F3", "60 55 55 15 54 51 21 08",
    ]  # fmt: skip


def test_in_standby_the_pack_is_kept_awake_with_off():
    sent = transmitted({}, 2_000)
    power = hexes(of(sent, 0x221))
    assert power[0] == "01 01 01 50 00 00 F0 " + f"{(0x76 + 0xF0) & 0xFF:02X}"
    assert power[1] == "00 01 00 00 00 50 01 " + f"{(0x65 - 0xF0) & 0xFF:02X}"
    assert {data[0] >> 5 for _, data in of(sent, 0x221)} == {0}
    assert {entry.id for _, entry in sent} == set(PERIODS) - {0x3A1}


def test_off_with_counter_0_and_15_are_the_listed_frames():
    power = hexes(of(transmitted({}, 3_000), 0x221))
    assert "01 01 01 50 00 00 00 76" in hexes((0, data) for data in tesla_model3.OFF[1])
    assert "00 01 00 00 00 50 F1 65" in hexes((0, data) for data in tesla_model3.OFF[0])
    assert "61 05 55 05 00 00 00 E3" in hexes((0, data) for data in tesla_model3.DRIVE[1])
    assert "60 55 55 15 54 51 F1 D8" in hexes((0, data) for data in tesla_model3.DRIVE[0])
    assert set(power) <= {data.hex(" ").upper() for mux in tesla_model3.OFF for data in mux}


@pytest.mark.parametrize("at_ms", range(1_000, 1_060, 10))
def test_off_goes_out_in_the_tick_that_stops_asking_whatever_the_period(at_ms: int):
    sent = of(transmitted({0: PACK, at_ms: NOTHING}, 2_000), 0x221)
    first_off = next(now_ms for now_ms, data in sent if data[0] >> 5 == 0)
    assert first_off == at_ms
    assert [data[0] for now_ms, data in sent if now_ms == at_ms] == [0x01]
    assert all(data[0] >> 5 == 0 for now_ms, data in sent if now_ms >= at_ms)
    counters = [data[6] >> 4 for _, data in sent]
    assert all((later - earlier) % 16 == 1 for earlier, later in pairwise(counters))


@pytest.mark.parametrize("at_ms", [500, 510, 540])
def test_drive_goes_out_in_the_tick_that_asks_with_mux_1(at_ms: int):
    sent = of(transmitted({at_ms: PACK}, 1_000), 0x221)
    assert next((now_ms, data[0]) for now_ms, data in sent if data[0] >> 5 == 3) == (at_ms, 0x61)


def test_no_frame_of_ours_ever_says_accessory(long_drive: list[tuple[int, CanFrame]]):
    stop = transmitted({0: PACK, 3_000: NOTHING}, 6_000, bms={0: "CLOSED", 4_000: "OPEN"})
    assert {data[0] >> 5 & 3 for sent in (long_drive, stop) for _, data in of(sent, 0x221)} == {0, 3}


def test_0x3a1_is_sent_only_while_closed_and_each_time_from_its_first_frame():
    sent = transmitted({0: PACK}, 4_000, bms={0: "CLOSING", 1_000: "CLOSED", 2_000: "OPENING", 3_000: "CLOSED"})
    times = [now_ms for now_ms, _ in of(sent, 0x3A1)]
    assert [now_ms for now_ms in times if not (1_000 <= now_ms < 2_000 or now_ms >= 3_000)] == []
    table = [
        "C3 FF FF FF 3D 00 D0 01", "08 62 0B 18 00 28 E2 CB", "C3 FF FF FF 3D 00 F0 21", "08 62 0B 18 00 28 02 EB",
        "C3 FF FF FF 3D 00 10 41", "08 62 0B 18 00 28 22 0B", "C3 FF FF FF 3D 00 30 61", "08 62 0B 18 00 28 42 2B",
        "C3 FF FF FF 3D 00 50 81", "08 62 0B 18 00 28 62 4B", "C3 FF FF FF 3D 00 70 A1", "08 62 0B 18 00 28 82 6B",
        "C3 FF FF FF 3D 00 90 C1", "08 62 0B 18 00 28 A2 8B", "C3 FF FF FF 3D 00 B0 E1", "08 62 0B 18 00 28 C2 AB",
    ]  # fmt: skip
    for start_ms in (1_000, 3_000):
        turn = hexes(entry for entry in of(sent, 0x3A1) if start_ms <= entry[0] < start_ms + 1_000)
        assert turn == [table[count % 16] for count in range(20)]


def test_0x3a1_stops_when_0x212_is_lost():
    sent = transmitted({0: PACK}, 1_000, bms={0: "CLOSED"})
    assert of(sent, 0x3A1)
    state = heard(status("CLOSED"))
    later = []
    for now_ms in range(0, 1_000, 10):
        state, frames = state.transmit(PACK, now_ms)
        later += [now_ms for entry in frames if entry.id == 0x3A1]
    assert max(later) <= 500


def test_a_pack_that_is_closed_without_being_asked_hears_nothing_that_holds_it():
    sent = transmitted({}, 2_000, bms={0: "CLOSED"}, options={"digital_hvil": True})
    assert not of(sent, 0x3A1)
    assert not of(sent, 0x118)
    assert not of(sent, 0x1CF)


def test_the_digital_interlock_is_answered_while_asking_and_ends_in_the_tick_that_stops():
    sent = transmitted({500: PACK, 1_000: NOTHING}, 2_000, options={"digital_hvil": True})
    tails = ["60 69", "80 89", "A0 A9", "C0 C9", "E0 E9", "00 09", "20 29", "40 49"]
    frames = of(sent, 0x1CF)
    assert [now_ms for now_ms, _ in frames] == list(range(500, 1_000, 10))
    assert hexes(frames) == [f"01 00 00 1A 1C 02 {tails[count % 8]}" for count in range(50)]
    heads = ["61 80", "62 81", "63 82", "64 83", "65 84", "66 85", "67 86", "68 87", "69 88", "6A 89", "6B 8A", "6C 8B",
             "6D 8C", "6E 8D", "6F 8E", "70 8F"]  # fmt: skip
    assert [now_ms for now_ms, _ in of(sent, 0x118)] == list(range(500, 1_000, 10))
    assert hexes(of(sent, 0x118)) == [f"{heads[count % 16]} 30 10 00 08 00 80" for count in range(50)]
    for can_id, at in ((0x1CF, 7), (0x118, 0)):
        assert all(
            data[at] == (sum(data) - data[at] + (can_id & 0xFF) + (can_id >> 8)) & 0xFF for _, data in of(sent, can_id)
        )


def test_the_minimal_method_sends_its_two_frames_while_asking_and_nothing_else_ever():
    sent = transmitted({1_000: PACK, 2_000: NOTHING}, 3_000, {"closing": "minimal"}, bms={0: "OPEN", 1_500: "CLOSED"})
    assert {now_ms // 1_000 for now_ms, _ in sent} == {1}
    for data in ("41 11 01 00 00 00 20 96", "61 15 01 00 00 00 20 BA"):
        times = [now_ms for now_ms, entry in sent if entry == CanFrame(0x221, bytes.fromhex(data))]
        assert len(times) == 20
        assert {later - earlier for earlier, later in pairwise(times)} == {50}
    assert len(sent) == 40


def test_no_tick_sends_one_id_twice_because_a_port_keeps_only_the_newest(long_drive: list[tuple[int, CanFrame]]):
    minimal = transmitted({0: PACK}, 1_000, {"closing": "minimal"})
    for sent in (long_drive, minimal, transmitted({0: PACK, 500: NOTHING, 520: PACK}, 1_000)):
        keys = [(now_ms, entry.id) for now_ms, entry in sent]
        assert len(keys) == len(set(keys))


def test_no_tick_is_a_burst(long_drive: list[tuple[int, CanFrame]]):
    ticks = [now_ms for now_ms, _ in long_drive]
    assert max(ticks.count(now_ms) for now_ms in range(0, 2_000, 10)) <= 8


def test_a_late_tick_sends_every_frame_once_and_the_next_is_on_the_grid(long_drive: list[tuple[int, CanFrame]]):
    state = PROTOCOL.start()
    state, _ = state.transmit(PACK, 0)
    state, frames = state.transmit(PACK, 3_333)
    ids = [entry.id for entry in frames]
    assert len(ids) == len(set(ids))
    state, frames = state.transmit(PACK, 3_340)
    assert {entry.id for entry in frames} == {entry.id for now_ms, entry in long_drive if now_ms == 3_340} - {0x3A1}


def test_nothing_is_sent_that_the_gate_would_refuse(long_drive: list[tuple[int, CanFrame]]):
    for options in ({}, {"digital_hvil": True}, {"closing": "minimal"}):
        sent = transmitted({0: PACK, 600: NOTHING}, 1_200, options, bms={0: "CLOSED"})
        assert {entry.id for _, entry in sent} <= PROTOCOL.tx
    assert {entry.id for _, entry in long_drive} == PROTOCOL.tx - {0x1CF}
    assert not any(entry.extended or entry.at_ms for _, entry in long_drive)
    assert not PROTOCOL.tx & set(PROTOCOL.rx)


def test_contactors_of_ours_are_no_wish_to_the_pack():
    _, frames = PROTOCOL.start().transmit(frozenset({Contactor.NEGATIVE, Contactor.POSITIVE}), 0)
    assert [entry.data[0] >> 5 for entry in frames if entry.id == 0x221] == [0]


# The registry row


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"closing": "fast"}, ValueError, "closing must be full or minimal"),
        ({"digital_hvil": "yes"}, ValueError, "digital_hvil must be a bool"),
        ({"digital_hvil": 1}, ValueError, "digital_hvil must be a bool"),
        ({"hurry": True}, KeyError, "no option hurry"),
    ],
)
def test_wrong_options_are_refused(options: Mapping[str, Any], error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        PROTOCOL.start(options)


def test_the_row_names_its_ids_and_cycles():
    assert {can_id: PROTOCOL.rx[can_id] for can_id in (0x132, 0x20A, 0x212, 0x292, 0x2B4, 0x352)} == {
        0x132: 10, 0x20A: 1000, 0x212: 100, 0x292: 100, 0x2B4: 100, 0x352: 1000,
    }  # fmt: skip
    assert PROTOCOL.telling <= set(PROTOCOL.rx)
    assert (PROTOCOL.wirings, PROTOCOL.chemistries) == (("pack", "pack+inverter"), ("nca", "lfp"))


def test_a_frame_can_be_explained_alone():
    assert dict(PROTOCOL.explain(frame(0x292, "E0 AD 47 9F 7A 35 93 01")))["BMS_socStatus"]["BMS_socMin"] == 48.0
    assert [name for name, _ in PROTOCOL.explain(frame(0x352, FLAT_3))] == ["BMS_energyStatus2020"]
    assert [name for name, _ in PROTOCOL.explain(frame(0x352, PAGE_0))] == ["BMS_energyStatus2021"]
    assert [name for name, _ in PROTOCOL.explain(frame(0x352, "20 82 8E 73 9C 23 00 8E"))] == ["BMS_energyStatus2020"]
    assert [name for name, _ in PROTOCOL.explain(frame(0x212, "00 01 00 00 00 00 00 00"))] == ["BMS_status"]
    assert PROTOCOL.explain(frame(0x1DB, bytes(8))) == ()
    assert PROTOCOL.explain(CanFrame(0x292, bytes(8), 0, True)) == ()


# Recordings, decoded a second time here with nothing but the bit rule

needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="the shared recordings are not here")


def recording(name: str) -> list[CanFrame]:
    frames = []
    for line in (LOGS / f"{name}.log").read_text().splitlines():
        stamp, _, text = line.split()
        can_id, _, payload = text.partition("#")
        at_ms = round((float(stamp.strip("()")) - 1_700_000_000) * 1000)
        frames.append(CanFrame(int(can_id, 16), bytes.fromhex(payload), at_ms, len(can_id) > 3))
    return frames


class Replayed(NamedTuple):
    frames: list[CanFrame]
    packs: list[tuple[int, BatterySnapshot]]

    @property
    def last(self) -> BatterySnapshot:
        return self.packs[-1][1]

    def seen(self, name: str) -> list[Any]:
        return [value for _, pack in self.packs if (value := getattr(pack, name)) is not None]

    def raws(self, can_id: int, start: int, length: int, *, signed: bool = False, mux: int | None = None) -> set[int]:
        """Every raw value of a signal: (int.from_bytes(data, "little") >> start) & mask."""
        values = set()
        for entry in self.frames:
            if entry.id == can_id and (mux is None or entry.data[0] & 3 == mux):
                raw = int.from_bytes(entry.data, "little") >> start & (1 << length) - 1
                values.add(raw - (1 << length) if signed and raw >> length - 1 else raw)
        return values


REPLAYS: dict[str, Replayed] = {}


def replay(name: str) -> Replayed:
    if name not in REPLAYS:
        frames, state, packs = recording(name), PROTOCOL.start(), []
        position, now_ms = 0, 0
        while position < len(frames):
            batch = []
            while position < len(frames) and frames[position].at_ms <= now_ms:
                batch.append(frames[position])
                position += 1
            state = state.receive(batch, now_ms)
            packs.append((now_ms, state.snapshot(now_ms)))
            now_ms += 10
        REPLAYS[name] = Replayed(frames, packs)
    return REPLAYS[name]


class Figures(NamedTuple):
    """What logs/README.md and an independent look say: volts, amps, SoC, cells, degrees, charge and discharge power."""

    volts: tuple[float, float]
    amps: tuple[float, float]
    soc: tuple[float, float]
    cells: tuple[float, float]
    degrees: tuple[float, float]
    charge_kw: tuple[float, float]
    discharge_kw: tuple[float, float]
    full_kwh: float
    soh: float
    cells_in_series: int | None


RECORDED = {
    "tesla-m3-parked-a": Figures((356.96, 358.12), (-13.3, -2.1), (47.2, 47.2), (3.724, 3.732), (11.0, 12.0),
                                 (85.0, 85.0), (254.91, 254.91), 72.82, 92.41, 96),
    "tesla-m3-parked-b": Figures((353.93, 354.33), (-4.5, -3.8), (40.3, 40.3), (3.690, 3.694), (10.5, 11.5),
                                 (0.0, 0.0), (16.66, 16.66), 73.00, 92.64, 96),
    "tesla-m3-dc-charging-90kw": Figures((376.49, 377.13), (236.8, 238.6), (38.6, 38.7), (3.908, 3.938), (21.5, 23.0),
                                         (93.43, 93.46), (14.88, 14.88), 72.98, 92.61, 96),
    "tesla-m3-dc-charging-40kw": Figures((402.44, 403.08), (100.8, 104.9), (79.3, 80.0), (4.192, 4.202), (55.5, 57.5),
                                         (76.84, 79.08), (16.33, 16.35), 72.64, 92.18, 96),
    "tesla-m3-drive": Figures((381.13, 400.88), (-147.7, 127.7), (80.9, 80.9), (4.010, 4.144), (51.5, 53.5),
                              (82.39, 85.11), (308.97, 309.28), 72.62, 92.16, 96),
    "tesla-m3-accelerate": Figures((347.73, 394.54), (-515.7, 136.3), (77.2, 77.3), (3.842, 4.098), (32.0, 33.0),
                                   (85.0, 85.0), (301.89, 302.56), 76.38, 96.93, None),
    "tesla-m3-lfp-vehicle-bus-a": Figures((352.89, 353.25), (-1.0, -0.7), (85.3, 85.3), (3.330, 3.332), (21.5, 22.5),
                                          (0.0, 0.0), (16.76, 16.76), 54.4, 98.73, 106),
    "tesla-m3-lfp-vehicle-bus-b": Figures((352.81, 353.19), (-1.3, -0.8), (85.3, 85.3), (3.330, 3.332), (21.5, 22.5),
                                          (0.0, 0.0), (16.76, 16.76), 54.4, 98.73, 106),
    "tesla-m3-lfp-vehicle-bus-c": Figures((352.89, 353.22), (-1.4, -0.7), (85.3, 85.3), (3.328, 3.332), (22.0, 22.5),
                                          (0.0, 0.0), (16.76, 16.76), 54.4, 98.73, 106),
    "tesla-m3-bench-battery-only": Figures((336.49, 336.95), (-4.4, -4.2), (17.3, 17.3), (3.504, 3.512), (7.5, 9.5),
                                           (0.0, 0.0), (0.0, 0.0), 74.3, 99.73, 96),
}  # fmt: skip
LFP = [f"tesla-m3-lfp-vehicle-bus-{letter}" for letter in "abc"]
PAGED = [name for name in RECORDED if name not in LFP and "bench" not in name]


@needs_logs
@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_decodes_to_its_known_figures(name: str):
    run, wanted = replay(name), RECORDED[name]

    def ends(low: str, high: str) -> tuple[Any, Any]:
        return min(run.seen(low)), max(run.seen(high))

    assert ends("pack_voltage_v", "pack_voltage_v") == wanted.volts
    assert ends("current_a", "current_a") == wanted.amps
    assert ends("soc_pct", "soc_pct") == wanted.soc
    assert ends("cell_min_v", "cell_max_v") == wanted.cells
    assert ends("temp_min_c", "temp_max_c") == wanted.degrees
    assert ends("max_charge_w", "max_charge_w") == tuple(round(1000 * kw) for kw in wanted.charge_kw)
    assert ends("max_discharge_w", "max_discharge_w") == tuple(round(1000 * kw) for kw in wanted.discharge_kw)
    assert run.last.energy_full_wh == round(1000 * wanted.full_kwh)
    assert run.last.soh_pct == wanted.soh
    assert PROTOCOL.kind(run.last).cells == wanted.cells_in_series


@needs_logs
@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_decodes_as_the_bit_rule_does_it(name: str):
    run = replay(name)

    def ends(values: Iterable[float]) -> tuple[float, float]:
        values = set(values)
        return pytest.approx(min(values)), pytest.approx(max(values))

    def ours(signal: str) -> tuple[Any, Any]:
        return min(run.seen(signal)), max(run.seen(signal))

    assert ours("pack_voltage_v") == ends(raw / 100 for raw in run.raws(0x132, 0, 16))
    assert ours("current_a") == ends(raw / 10 for raw in run.raws(0x132, 16, 16, signed=True))
    assert ours("soc_pct") == ends(raw / 10 for raw in run.raws(0x292, 10, 10))
    assert ours("cell_max_v") == ends(raw / 500 for raw in run.raws(0x332, 2, 12, mux=1))
    assert ours("cell_min_v") == ends(raw / 500 for raw in run.raws(0x332, 16, 12, mux=1))
    assert ours("temp_max_c") == ends(raw / 2 - 40 for raw in run.raws(0x332, 16, 8, mux=0))
    assert ours("temp_min_c") == ends(raw / 2 - 40 for raw in run.raws(0x332, 24, 8, mux=0))
    assert ours("max_charge_w") == ends(raw * 10 for raw in run.raws(0x252, 0, 16))
    assert ours("max_discharge_w") == ends(raw * 10 for raw in run.raws(0x252, 16, 16))
    assert ours("design_max_v") == ends(raw / 50 for raw in run.raws(0x2D2, 16, 16))
    assert ours("design_min_v") == ends(raw / 50 for raw in run.raws(0x2D2, 0, 16))
    assert ours("max_charge_a") == ends(raw / 10 for raw in run.raws(0x2D2, 32, 14))
    assert ours("discharged_wh") == ends(run.raws(0x3D2, 0, 32))
    assert ours("charged_wh") == ends(run.raws(0x3D2, 32, 32))


@needs_logs
@pytest.mark.parametrize("name", [*RECORDED, "tesla-hvc-alone-power-up"])
def test_no_recorded_frame_is_refused(name: str):
    run = replay(name)
    assert run.last.corrupt_frames == 0
    assert run.last.decoded_frames == sum(1 for entry in run.frames if entry.id in PROTOCOL.rx)


@needs_logs
@pytest.mark.parametrize("name", RECORDED)
def test_every_value_published_in_a_recording_is_the_newest_frame_s(name: str):
    run = replay(name)
    newest: dict[int, bytes] = {}
    position = 0
    for now_ms, pack in run.packs:
        while position < len(run.frames) and run.frames[position].at_ms <= now_ms:
            newest[run.frames[position].id] = run.frames[position].data
            position += 1
        if 0x132 in newest:
            word = int.from_bytes(newest[0x132], "little")
            assert pack.pack_voltage_v == pytest.approx((word & 0xFFFF) / 100)
            raw = word >> 16 & 0xFFFF
            assert pack.current_a == pytest.approx((raw - 0x1_0000 if raw & 0x8000 else raw) / 10)


@needs_logs
@pytest.mark.parametrize("name", PAGED)
def test_energies_of_a_paged_recording_are_never_anything_but_page_0(name: str):
    run = replay(name)
    full, left = run.raws(0x352, 16, 16, mux=0), run.raws(0x352, 32, 16, mux=0)
    assert set(run.seen("energy_full_wh")) <= {20 * raw for raw in full}
    assert set(run.seen("energy_remaining_wh")) <= {20 * raw for raw in left}
    assert run.seen("energy_full_wh")
    assert run.seen("isolation_kohm") == []


@needs_logs
@pytest.mark.parametrize("name", [*LFP, "tesla-m3-bench-battery-only"])
def test_energies_of_a_flat_recording_are_never_anything_but_flat(name: str):
    run = replay(name)
    assert set(run.seen("energy_full_wh")) <= {100 * raw for raw in run.raws(0x352, 0, 11)}
    assert set(run.seen("energy_remaining_wh")) <= {100 * raw for raw in run.raws(0x352, 11, 11)}
    assert set(run.seen("isolation_kohm")) <= {10 * raw for raw in run.raws(0x212, 19, 10)}
    assert run.seen("energy_full_wh")


@needs_logs
@pytest.mark.parametrize("name", ["tesla-m3-dc-charging-40kw", "tesla-m3-dc-charging-90kw"])
def test_dc_charging_is_positive_current_and_raises_only_the_charge_counter(name: str):
    run = replay(name)
    assert min(run.seen("current_a")) > 0
    assert run.seen("charged_wh")[-1] > run.seen("charged_wh")[0]
    assert len(set(run.seen("discharged_wh"))) == 1


@needs_logs
@pytest.mark.parametrize("name", RECORDED)
def test_the_recorded_link_agrees_with_the_pack_wherever_the_contactors_are_closed(name: str):
    run = replay(name)
    gaps = [
        pack.link_voltage_v - pack.pack_voltage_v
        for _, pack in run.packs
        if pack.link_voltage_v is not None and pack.pack_voltage_v is not None
    ]
    if "bench" in name:
        assert max(gaps) < -300
    else:  # 0x2B4 comes every 100 ms, so hard acceleration moves the pack in between
        assert max(abs(gap) for gap in gaps) < (25 if "accelerate" in name or "drive" in name else 3.6)


@needs_logs
@pytest.mark.parametrize("name", LFP)
def test_the_lfp_car_is_closed_healthy_and_of_106_cells(name: str):
    run = replay(name)
    assert set(run.seen("contactor_state")) == {PackContactor.CLOSED}
    assert set(run.seen("hvil_ok")) == {True}
    assert complaints(run.last.report) == set()
    assert (run.last.report.fault, run.last.report.welded, run.last.report.alerts) == (False, False, (84,))
    assert 5_060 <= run.last.isolation_kohm <= 5_070  # type: ignore[operator]
    assert 13.9 <= run.last.lv_supply_v <= 14.1  # type: ignore[operator]
    assert PROTOCOL.kind(run.last) == PackKind(106, "lfp")


@needs_logs
def test_cells_of_the_lfp_car_are_those_of_the_bit_rule():
    run = replay(LFP[0])
    wanted: list[float | None] = [None] * 106
    for entry in run.frames:
        if entry.id == 0x401:
            word = int.from_bytes(entry.data, "little")
            for place in range(3):
                if word >> 8 + 2 * place & 3 == 2:
                    wanted[3 * entry.data[0] + place] = round((word >> 16 + 16 * place & 0xFFFF) / 10_000, 4)
    assert list(run.last.cells_v) == wanted
    assert sum(value is not None for value in wanted) == 15


@needs_logs
def test_the_pack_alone_on_a_bench_is_open_and_refuses():
    run = replay("tesla-m3-bench-battery-only")
    pack = run.last
    assert set(run.seen("contactor_state")) == {PackContactor.OPEN}
    assert run.seen("hvil_ok") == []
    assert pack.feeds[Feed.HVIL].valid_at_ms is None
    assert {raw & 1 for raw in run.raws(0x20A, 35, 1)} == {0}  # closing not allowed
    assert pack.report.alerts == (63, 81, 90, 91, 92, 95, 123, 142, 179)
    assert complaints(pack.report) == {"open_now", "refuses", "isolation_alert", "warns"}
    assert (pack.report.fault, pack.report.welded, pack.report.open_asked) == (False, False, False)
    assert pack.isolation_kohm == 140
    assert (pack.lv_supply_v, pack.link_voltage_v) == (6.5, 9.3)


@needs_logs
def test_the_high_voltage_controller_alone_has_no_cells_and_no_pack():
    run = replay("tesla-hvc-alone-power-up")
    assert sum(1 for entry in run.frames if entry.id == 0x401) > 500
    assert all(pack.cells_v == () for _, pack in run.packs)
    assert run.seen("pack_voltage_v") == run.seen("cell_min_v") == run.seen("soc_pct") == run.seen("hvil_ok") == []
    assert run.packs[0][1].contactor_state is None  # "not available" at power-up
    assert run.last.contactor_state is PackContactor.OPEN
    assert run.last.feeds[Feed.CONTACTOR].valid_at_ms is None  # no 0x212
    assert PROTOCOL.kind(run.last) == PackKind(None, None)
