"""The limits' arithmetic, to the edge: curves, tapers, hysteresis, rise, and batteries that lack signals."""

from dataclasses import replace
from math import inf, nan

import pytest

from controller.model.battery import Feed, PackContactor
from controller.model.events import Event
from controller.safety.envelope import (
    NO_CAP,
    UNJUDGED,
    Bound,
    Cap,
    Deratings,
    Limits,
    Source,
    charge_derating,
    discharge_derating,
    limits,
    over,
)
from controller.safety.monitor import NO_FAULTS, Faults, Track
from tests.bench import HEALTHY
from tests.situation import SETTINGS

WHOLE = Deratings(Source("", 1.0), Source("", 1.0))
UP = Limits(15_000.0, 15_000.0, "", "", WHOLE, 1_000)
CELLS, TEMPERATURES = Feed.CELLS, Feed.TEMPERATURES


def now(settings=SETTINGS, before=UP, faults=NO_FAULTS, offered="", profile_w=30_000.0, cap=NO_CAP, at_ms=1_010,
        before_go=False, **said) -> Limits:  # fmt: skip
    pack = HEALTHY._replace(**said)
    return limits(before, pack, settings, faults, offered, profile_w, cap, at_ms, before_go=before_go)


def watts(published: Limits) -> tuple[float, float]:
    return published.charge_w, published.discharge_w


CURVE = ((0.0, 0.2), (10.0, 0.4), (20.0, 1.0))


@pytest.mark.parametrize(
    ("at", "value"), [(-5, 0.2), (0, 0.2), (5, 0.3), (10, 0.4), (15, 0.7), (20, 1.0), (99, 1.0)]
)  # fmt: skip
def test_a_curve_is_linear_between_its_points_and_constant_beyond(at: float, value: float):
    assert over(CURVE, at) == pytest.approx(value)


@pytest.mark.parametrize(("volts", "fraction"), [(4.0, 1.0), (4.05, 1.0), (4.10, 0.5), (4.15, 0.0), (4.30, 0.0)])
def test_the_taper_has_its_two_ends(volts: float, fraction: float):
    assert charge_derating(HEALTHY._replace(cell_max_v=volts), SETTINGS) == ("highest cell", pytest.approx(fraction))


def test_the_least_of_cells_and_temperatures_counts_and_is_named():
    cold, hot = HEALTHY._replace(temp_min_c=5.0, temp_max_c=6.0), HEALTHY._replace(temp_max_c=50.0)
    assert charge_derating(cold, SETTINGS) == ("coldest cell", 0.5)
    assert charge_derating(hot, SETTINGS) == ("hottest cell", 0.25)
    assert discharge_derating(HEALTHY._replace(cell_min_v=3.2), SETTINGS) == ("lowest cell", pytest.approx(0.5))
    assert discharge_derating(HEALTHY._replace(temp_min_c=0.0), SETTINGS) == ("coldest cell", 0.25)


@pytest.mark.parametrize("name", ["cell_max_v", "temp_min_c", "temp_max_c"])
def test_one_unknown_value_derates_charging_to_nothing(name: str):
    assert charge_derating(HEALTHY._replace(**{name: None}), SETTINGS) == ("unknown cells or temperatures", 0.0)


# --- what a battery lacks ---


def lacking(*feeds: Feed):
    return replace(SETTINGS, lacks=frozenset(feeds))


def test_a_battery_that_lacks_cells_is_judged_by_its_mean_cell():
    said = HEALTHY._replace(cell_min_v=None, cell_max_v=None, pack_voltage_v=96 * 4.10)
    assert charge_derating(said, lacking(CELLS)) == ("mean cell", pytest.approx(0.5))
    assert discharge_derating(said._replace(pack_voltage_v=96 * 3.2), lacking(CELLS)).fraction == pytest.approx(0.5)
    unknown = said._replace(pack_voltage_v=None)
    assert charge_derating(unknown, lacking(CELLS)) == ("unknown cells or temperatures", 0.0)
    assert charge_derating(said, lacking(TEMPERATURES)).fraction == 0.0


def test_a_battery_that_lacks_temperatures_is_judged_by_its_cells_only():
    said = HEALTHY._replace(temp_min_c=None, temp_max_c=None)
    assert charge_derating(said, lacking(TEMPERATURES)) == ("highest cell", 1.0)
    assert charge_derating(said, lacking(CELLS)) == ("unknown cells or temperatures", 0.0)


def test_a_battery_that_lacks_cells_has_no_bms_that_could_allow_anything_but_may_forbid():
    none = {"cell_min_v": None, "cell_max_v": None, "max_charge_w": None, "max_discharge_w": None}
    assert watts(now(lacking(CELLS), **none)) == (15_000.0, 15_000.0)
    assert watts(now(SETTINGS, max_charge_w=None, max_discharge_w=None)) == (0.0, 0.0)
    assert watts(now(lacking(TEMPERATURES), max_charge_w=None, max_discharge_w=None)) == (0.0, 0.0)
    assert now(lacking(CELLS), **{**none, "max_charge_w": 700.0}).charge_w == 700.0


def test_the_mean_cell_is_judged_anew_when_the_voltage_moves():
    none = {"cell_min_v": None, "cell_max_v": None}
    first = now(lacking(CELLS), **none, pack_voltage_v=360.0)
    assert now(lacking(CELLS), first, at_ms=1_020, **none, pack_voltage_v=96 * 4.15).charge_w == 0.0


# --- the minimum ---


@pytest.mark.parametrize(
    ("said", "charge", "discharge"),
    [
        ({"soc_pct": 94.9}, 15_000, 15_000), ({"soc_pct": 95.0}, 0, 15_000), ({"soc_pct": 5.1}, 15_000, 15_000),
        ({"soc_pct": 5.0}, 15_000, 0), ({"max_discharge_a": 10.0}, 15_000, 3_600), ({"max_charge_w": -5.0}, 0, 15_000),
        ({"max_discharge_a": 10.0, "pack_voltage_v": None}, 0, 0), ({"current_a": None}, 0, 0),
        ({"pack_voltage_v": 200.0}, 10_000, 12_000), ({"max_discharge_w": 900.0}, 15_000, 900),
    ],
)  # fmt: skip
def test_each_source_bounds_its_own_direction(said: dict, charge: float, discharge: float):
    assert watts(now(**said)) == (charge, discharge)


def test_an_unknown_state_of_charge_is_offered_nothing():
    published = now(soc_pct=None)
    assert (watts(published), published.charge_by) == ((0.0, 0.0), "unknown SoC")


def test_of_equal_bounds_the_first_is_named():
    published = now(offered="STANDBY", soc_pct=None, current_a=None, max_charge_w=None, max_discharge_w=None)
    assert (published.charge_by, published.discharge_by) == ("STANDBY", "STANDBY")
    opens = Faults({Event.BMS_FAULT: Track(0, None, 0), Event.CELL_OVERVOLTAGE: Track(0, None, 0)})
    published = now(offered="STANDBY", faults=opens)
    assert (published.charge_by, published.discharge_by) == ("STANDBY", "STANDBY")
    assert now(faults=opens).charge_by == "cell-overvoltage"
    assert now(soc_pct=96.0, faults=opens).charge_by == "SoC window"
    assert now(soc_pct=96.0, max_charge_w=0.0).charge_by == "BMS"
    assert now(soc_pct=4.0, max_discharge_w=0.0).discharge_by == "BMS"


def test_before_the_first_tick_nothing_is_offered_and_a_derating_below_two_percent_is_none():
    assert (watts(Limits()), Limits().at_ms) == ((0.0, 0.0), 0)
    after = now(before=Limits(), temp_min_c=0.1, at_ms=10)
    assert (after.deratings.charge.fraction, after.charge_w) == (0.0, 0.0)
    cold = now(before=Limits(), temp_min_c=-9.7, at_ms=10)
    assert (cold.deratings.discharge.fraction, cold.discharge_w) == (0.0, 0.0)


def test_the_profile_the_state_and_the_config_bound_both():
    assert watts(now(profile_w=8_000.0)) == (8_000.0, 8_000.0)
    assert watts(now(replace(SETTINGS, max_power_w=4_000.0))) == (4_000.0, 4_000.0)
    published = now(offered="STANDBY")
    assert (watts(published), published.charge_by) == ((0.0, 0.0), "STANDBY")


def test_a_cap_bounds_the_directions_it_names():
    assert watts(now(cap=Cap(charge=Bound(500.0, 9_999)))) == (500.0, 15_000.0)
    assert watts(now(cap=Cap(discharge=Bound(600.0, 9_999)))) == (15_000.0, 600.0)
    cap = Cap(Bound(500.0, 2_000), Bound(600.0, 3_000))
    assert cap.at(1_999) is cap
    assert cap.at(2_000) == Cap(None, Bound(600.0, 3_000))
    assert cap.at(3_000) == Cap()


def test_a_cause_forbids_its_direction_and_is_named():
    track = Track(0, None, 0)
    up = now(faults=Faults({Event.CELL_OVERVOLTAGE: track}))
    assert (watts(up), up.charge_by) == ((0.0, 15_000.0), "cell-overvoltage")
    down = now(faults=Faults({Event.BMS_NO_DISCHARGE: track}))
    assert (watts(down), down.discharge_by) == ((15_000.0, 0.0), "bms-no-discharge")
    jumped = now(faults=Faults({Event.SOC_JUMP: track}))
    assert (watts(jumped), jumped.charge_by) == ((7_500.0, 7_500.0), "soc-jump")
    both = now(faults=Faults({Event.SOC_JUMP: track, Event.CELL_OVERVOLTAGE: track}))
    assert (both.charge_w, both.charge_by) == (0.0, "cell-overvoltage")
    assert now(faults=Faults({Event.SOC_JUMP: Track(None, 0, None, False, True)})).charge_w == 15_000.0


# --- up slowly ---


def test_a_limit_rises_by_a_tenth_of_the_configured_power_a_second():
    low = replace(UP, charge_w=2_000.0, discharge_w=14_990.0)
    after = now(before=low, at_ms=1_100)
    assert watts(after) == (pytest.approx(2_150.0), 15_000.0)
    assert (after.charge_by, after.discharge_by) == ("rising to max_power_w", "max_power_w")
    assert now(before=replace(low, charge_w=14_850.0), at_ms=1_100).charge_by == "max_power_w"  # exactly there
    assert after.at_ms == 1_100


@pytest.mark.parametrize(
    ("before", "temp_c", "fraction"),
    [(0.5, 5.0, 0.5), (0.5, 5.1, 0.5), (0.5, 5.2, 0.52), (0.5, 4.9, 0.4916667), (0.99, 10.0, 1.0)],
)  # fmt: skip
def test_a_derating_falls_at_once_and_rises_by_two_percent_or_to_its_end(before, temp_c, fraction):
    was = replace(UP, deratings=Deratings(Source("coldest cell", before), Source("", 1.0)))
    after = now(before=was, temp_min_c=temp_c)
    assert after.deratings.charge.fraction == pytest.approx(fraction, abs=1e-6)


def test_a_derating_is_not_worked_out_again_while_its_values_stand():
    first = now()
    assert now(before=first, at_ms=1_020).deratings is first.deratings
    assert now(before=first, at_ms=1_020, temp_min_c=19.9).deratings is not first.deratings
    assert first.deratings is not UNJUDGED


def test_a_derating_that_is_no_number_is_nothing():
    broken = replace(SETTINGS, pack=replace(SETTINGS.pack, charge_over_coldest=((0.0, 0.0), (nan, 1.0), (50.0, 0.0))))
    after = now(broken)
    assert (after.charge_w, after.charge_by) == (0.0, "coldest cell")
    assert after.deratings.charge == ("coldest cell", 0.0)
    assert now(broken, cell_max_v=4.2).charge_by == "coldest cell"


# --- the offer before the go ---

ZEROS = {"max_charge_w": 0.0, "max_discharge_w": 0.0, "max_charge_a": 0.0, "max_discharge_a": 0.0}


@pytest.mark.parametrize(
    ("before_go", "says", "offered"),
    [(True, PackContactor.OPEN, True), (False, PackContactor.OPEN, False), (True, PackContactor.CLOSED, False),
     (True, None, False)],
)  # fmt: skip
def test_the_zeros_of_an_open_pack_say_nothing_before_the_go(before_go: bool, says, offered: bool):
    published = now(before_go=before_go, contactor_state=says, **ZEROS)
    assert watts(published) == ((15_000.0, 15_000.0) if offered else (0.0, 0.0))


def test_unless_it_is_said_the_go_is_not_waited_for():
    said = HEALTHY._replace(contactor_state=PackContactor.OPEN, **ZEROS)
    assert watts(limits(UP, said, SETTINGS, NO_FAULTS, "", 30_000.0, NO_CAP, 1_010)) == (0.0, 0.0)


def test_what_an_open_pack_allows_above_nothing_bounds_the_offer():
    said = {**ZEROS, "max_charge_w": 700.0, "max_discharge_a": 10.0}
    published = now(before_go=True, contactor_state=PackContactor.OPEN, **said)
    assert watts(published) == (700.0, 3_600.0)
    assert inf not in watts(published)
