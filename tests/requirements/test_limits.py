"""The limits handed to the inverter: the minimum of every source, at once down, slowly up, never higher by a fault."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.model.events import Event
from controller.model.settings import CHEMISTRIES, PackSettings, Settings
from controller.ports import CommandKind
from controller.safety.envelope import (
    NO_CAP,
    Bound,
    Cap,
    Deratings,
    Limits,
    Source,
    charge_derating,
    discharge_derating,
    limits,
)
from controller.safety.monitor import NO_FAULTS, Faults, Track
from controller.safety.rules import RULES
from statecharts.supervisor import State
from tests.bench import HEALTHY, Bench

SETTINGS = Settings("said", "said", "own", PackSettings(CHEMISTRIES["nca"], 96, 50.0, 60.0), max_power_w=15_000.0)
UP = Limits(15_000.0, 15_000.0, "", "", Deratings(Source("", 1.0), Source("", 1.0)), 0)


def now(pack=HEALTHY, faults=NO_FAULTS, before=UP, offered="", profile_w=30_000.0, cap=NO_CAP, now_ms=10) -> Limits:
    return limits(before, pack, SETTINGS, faults, offered, profile_w, cap, now_ms)


@pytest.mark.requirement("S4.1")
@pytest.mark.parametrize(
    ("chemistry", "points"),
    [
        ("nca", [(4.05, 1.0), (4.10, 0.5), (4.15, 0.0), (4.20, 0.0)]),
        ("lmo", [(4.00, 1.0), (4.05, 0.5), (4.10, 0.0)]),
        ("lfp", [(3.45, 1.0), (3.475, 0.5), (3.50, 0.0)]),
        ("lto", [(2.70, 1.0), (2.725, 0.5), (2.75, 0.0)]),
    ],
)
def test_charging_tapers_with_the_highest_cell(chemistry: str, points: list):
    own = replace(SETTINGS, pack=replace(SETTINGS.pack, chemistry=CHEMISTRIES[chemistry]))
    for cell_v, fraction in points:
        assert charge_derating(HEALTHY._replace(cell_max_v=cell_v), own).fraction == pytest.approx(fraction)


@pytest.mark.requirement("S4.1")
@pytest.mark.parametrize(
    ("chemistry", "points"),
    [
        ("nca", [(3.30, 1.0), (3.20, 0.5), (3.10, 0.0), (2.5, 0.0)]),
        ("lfp", [(3.05, 1.0), (2.975, 0.5), (2.90, 0.0)]),
    ],
)
def test_discharging_tapers_with_the_lowest_cell(chemistry: str, points: list):
    own = replace(SETTINGS, pack=replace(SETTINGS.pack, chemistry=CHEMISTRIES[chemistry]))
    for cell_v, fraction in points:
        assert discharge_derating(HEALTHY._replace(cell_min_v=cell_v), own).fraction == pytest.approx(fraction)


@pytest.mark.requirement("S4.2")
@pytest.mark.parametrize(
    ("coldest_c", "charge", "discharge"),
    [(-11, 0, 0), (-10, 0, 0), (-5, 0, 0.125), (0, 0, 0.25), (1, 0.125, 0.3), (2, 0.25, 0.35), (5, 0.5, 0.5),
     (7.5, 0.75, 0.75), (10, 1, 1), (25, 1, 1)],
)  # fmt: skip
def test_cold_cells_derate(coldest_c: float, charge: float, discharge: float):
    pack = HEALTHY._replace(temp_min_c=float(coldest_c))
    assert charge_derating(pack, SETTINGS).fraction == pytest.approx(charge)
    assert discharge_derating(pack, SETTINGS).fraction == pytest.approx(discharge)


@pytest.mark.requirement("S4.2")
@pytest.mark.parametrize(("hottest_c", "fraction"), [(40, 1), (42.5, 0.75), (45, 0.5), (50, 0.25), (55, 0), (70, 0)])
def test_hot_cells_derate_both_directions(hottest_c: float, fraction: float):
    pack = HEALTHY._replace(temp_max_c=float(hottest_c))
    assert charge_derating(pack, SETTINGS).fraction == pytest.approx(fraction)
    assert discharge_derating(pack, SETTINGS).fraction == pytest.approx(fraction)


@pytest.mark.requirement("S4.4", "I8")
@pytest.mark.parametrize(
    ("changed", "charge_w", "discharge_w", "by"),
    [
        ({}, 15_000, 15_000, "max_power_w"),
        ({"max_charge_w": 1_234.0}, 1_234, 15_000, "BMS"),
        ({"max_discharge_w": 0.0}, 15_000, 0, "max_power_w"),
        ({"soc_pct": 95.0}, 0, 15_000, "SoC window"),
        ({"soc_pct": 5.0}, 15_000, 0, "max_power_w"),
        ({"pack_voltage_v": 250.0}, 12_500, 15_000, "configured current"),
    ],
)
def test_each_source_bounds_its_direction(changed: dict, charge_w: float, discharge_w: float, by: str):
    published = now(HEALTHY._replace(**changed))
    assert (published.charge_w, published.discharge_w) == (charge_w, discharge_w)
    assert published.charge_by == by


@pytest.mark.requirement("S3.2", "I8")
@pytest.mark.parametrize(
    "name", ["pack_voltage_v", "current_a", "soc_pct", "cell_min_v", "cell_max_v", "temp_min_c", "temp_max_c"]
)
def test_an_unknown_value_is_never_a_limit(name: str):
    published = now(HEALTHY._replace(**{name: None}))
    assert min(published.charge_w, published.discharge_w) == 0.0


@pytest.mark.requirement("S3.2", "S4.2")
def test_a_curve_that_gives_no_number_allows_nothing():
    curve = ((-20.0, 0.0), (math.nan, 1.0), (60.0, 0.0))
    broken = replace(SETTINGS, pack=replace(SETTINGS.pack, charge_over_coldest=curve))
    published = limits(UP, HEALTHY, broken, NO_FAULTS, "", 30_000.0, NO_CAP, 10)
    assert published.charge_w == 0.0


@pytest.mark.requirement("S3.2", "I8")
def test_an_unknown_limit_of_the_bms_is_zero():
    published = now(HEALTHY._replace(max_charge_w=None, max_discharge_w=None))
    assert (published.charge_w, published.discharge_w) == (0.0, 0.0)


@pytest.mark.requirement("S4.3")
def test_a_limit_falls_at_once_and_rises_ten_percent_a_second():
    low = now(HEALTHY._replace(max_charge_w=0.0))
    assert low.charge_w == 0.0
    later = now(before=low, now_ms=low.at_ms + 1_000)
    assert later.charge_w == pytest.approx(1_500.0)
    assert later.charge_by.startswith("rising")


@pytest.mark.requirement("S4.3")
def test_a_derating_rises_only_by_more_than_two_percent():
    half = now(HEALTHY._replace(cell_max_v=4.100))
    a_little = now(HEALTHY._replace(cell_max_v=4.0985), before=half, now_ms=60_000)
    enough = now(HEALTHY._replace(cell_max_v=4.0975), before=half, now_ms=60_000)
    assert a_little.charge_w == half.charge_w
    assert enough.charge_w > half.charge_w


@pytest.mark.requirement("S4.4")
def test_a_cap_of_a_person_counts_until_it_expires():
    cap = Cap(charge=Bound(500.0, until_ms=1_000))
    assert now(cap=cap.at(990), now_ms=990).charge_w == 500.0
    assert now(cap=cap.at(990), now_ms=990).discharge_w == 15_000.0
    assert now(cap=cap.at(1_000), now_ms=1_000).charge_w == 15_000.0


@pytest.mark.requirement("cause:soc-jump")
def test_an_soc_jump_halves_power_until_plausible_for_a_minute():
    bench = Bench("own").running().says(soc_pct=52.0).run_ms(100)
    assert Event.SOC_JUMP in bench.events()
    assert bench.limits == (5_000.0, 5_000.0)
    bench.run_ms(59_000)
    assert bench.limits == (5_000.0, 5_000.0)
    bench.run_ms(10_000)
    assert bench.limits == (10_000.0, 10_000.0)


@pytest.mark.requirement("cause:soc-jump")
def test_an_soc_that_moves_as_the_charge_does_is_no_jump():
    bench = Bench("own").running()
    bench.load_a = 27.7  # 10 kW into 60 kWh: 0.1 % in 21.6 s
    for step in range(1, 6):
        bench.run_ms(21_600).says(soc_pct=50.0 + 0.1 * step)
    assert Event.SOC_JUMP not in bench.events()


@pytest.mark.requirement("I8")
@given(
    first=st.sets(st.sampled_from([rule.id for rule in RULES])),
    more=st.sets(st.sampled_from([rule.id for rule in RULES])),
    cell_v=st.floats(2.5, 4.4), temp_c=st.floats(-30, 70), soc=st.floats(0, 100),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_adding_a_fault_never_raises_a_limit(first, more, cell_v, temp_c, soc):
    def faults(ids: set) -> Faults:
        return Faults({event: Track(0, None, 0, True) for event in sorted(ids)})

    pack = HEALTHY._replace(cell_min_v=cell_v, cell_max_v=cell_v, temp_min_c=temp_c, temp_max_c=temp_c, soc_pct=soc)
    fewer, all_of_them = now(pack, faults(first)), now(pack, faults(first | more))
    assert all_of_them.charge_w <= fewer.charge_w
    assert all_of_them.discharge_w <= fewer.discharge_w


@pytest.mark.requirement("I8", "I10")
def test_the_limits_are_zero_in_every_state_but_running():
    bench = Bench("own").enable()
    while bench.at is not State.RUNNING:
        bench.run_ms(10)
        if bench.at is not State.RUNNING:
            assert bench.limits == (0.0, 0.0)
    bench.run_ms(12_000).command(CommandKind.STOP).run_ms(20)
    assert bench.limits == (0.0, 0.0)


@pytest.mark.requirement("S4.4")
def test_an_operator_cap_is_a_command_and_bad_ones_are_refused():
    bench = Bench("own").running()
    bench.command(CommandKind.CAP, charge_w=700.0, discharge_w=None, for_ms=60_000).run_ms(20)
    assert bench.limits == (700.0, 10_000.0)
    bench.command(CommandKind.CAP, charge_w=-1.0, for_ms=60_000).run_ms(20)
    assert "cap" in bench.happened(Event.COMMAND_REFUSED).detail


@pytest.mark.requirement("I10", "S4.4")
def test_an_open_pack_that_allows_nothing_is_offered_all_the_same_before_the_go_and_never_once_closed():
    """A real Tesla pack says 0 W while open, and a Gen24 may take up no offer of 0: neither would ever begin."""
    bench = Bench("pack").says(max_charge_w=0.0, max_discharge_w=0.0, max_charge_a=0.0, max_discharge_a=0.0)
    bench.inverter(go=None).enable().run_ms(30_000)
    assert bench.at is State.STANDBY
    assert min(bench.limits) > 5_000.0
    bench.inverter(go=True).until(State.RUNNING).run_ms(5_000)
    assert bench.limits == (0.0, 0.0)


@pytest.mark.requirement("I10", "S4.4")
def test_what_an_open_pack_allows_above_nothing_bounds_the_offer_before_the_go():
    bench = Bench("pack").says(max_charge_w=1_000.0, max_discharge_w=2_000.0).inverter(go=None)
    bench.enable().run_ms(30_000)
    assert bench.limits == (1_000.0, 2_000.0)
