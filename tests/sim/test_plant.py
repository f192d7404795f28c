"""The plant obeys the closed-form solutions, conserves charge and energy, and does not depend on the step."""

import math
from collections.abc import Iterator
from itertools import cycle, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.ports import RelayError, RelayPort
from sim.plant import CHEMISTRIES, LFP, NEGATIVE, OWN, POSITIVE, PRECHARGE, Cells, Chemistry, Plant, PlantRelays, Relay
from statecharts.supervisor import Contactor

TAU_MS = 100.0
OPEN: frozenset[Contactor] = frozenset()
CHARGING = frozenset({NEGATIVE, PRECHARGE})
RUNNING = frozenset({NEGATIVE, POSITIVE})
IRREGULAR_MS = (0.3, 17.0, 4.2, 1.0, 33.5, 10.0)


def ideal(volts: float = 400.0, **values: object) -> Plant:
    """A source of `volts` without resistance, relays without delay, nothing but R and C of 100 Ω and 1 mF."""
    flat = Chemistry("flat", ((0.0, volts), (1.0, volts + 1e-9)))
    cells = Cells(flat, 1, soc=0.0, cell_ohm=1e-12, spread=0.0)
    relay = Relay(closing_ms=0.0, opening_ms=0.0, bounces=0)
    given_values = {"wiring_ohm": 1e-9, "bleed_ohm": math.inf, "link_f": 0.001, "precharge_ohm": 100.0, **values}
    return Plant(cells, relay, **given_values)  # type: ignore[arg-type]


def closed(plant: Plant, members: frozenset[Contactor]) -> Plant:
    """With exactly these relays closed, and done bouncing."""
    PlantRelays(plant).write(members)
    plant.step(max((relay.moves[-1][0] for relay in plant.relays.values() if relay.moves), default=plant.now_ms)
               - plant.now_ms)  # fmt: skip
    return plant


def run(plant: Plant, duration_ms: float, steps_ms: Iterator[float] | None = None) -> Plant:
    """Step through this time, 10 ms each or as `steps_ms` says."""
    end_ms = plant.now_ms + duration_ms
    for step_ms in steps_ms or cycle((10.0,)):
        left_ms = end_ms - plant.now_ms
        if left_ms <= 1e-9:
            return plant
        plant.step(min(step_ms, left_ms))
    raise AssertionError("no more steps")


# --- closed forms ---


@pytest.mark.parametrize("step_ms", [0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize(("taus", "percent"), [(1, 63.2), (2, 86.5), (3, 95.0), (4, 98.2), (5, 99.3)])
def test_the_link_charges_along_the_rc_curve(taus: int, percent: float, step_ms: float):
    plant = run(closed(ideal(), CHARGING), taus * TAU_MS, cycle((step_ms,)))
    assert plant.link_v / 400.0 == pytest.approx(1.0 - math.exp(-taus), rel=1e-9)
    assert round(100.0 * plant.link_v / 400.0, 1) == percent


def test_the_resistor_takes_half_c_v_squared_and_v_squared_over_r_at_its_peak():
    plant = run(closed(ideal(), CHARGING), 30 * TAU_MS)
    assert plant.precharge_j == pytest.approx(80.0, rel=1e-6)
    assert plant.precharge_peak_w == pytest.approx(1_600.0, rel=1e-6)
    assert plant.peak_a == pytest.approx(4.0, rel=1e-6)


def test_the_link_decays_through_the_bleed():
    plant = run(ideal(bleed_ohm=100_000.0, link_v=400.0), 100_000.0)
    assert plant.link_v == pytest.approx(400.0 / math.e, rel=1e-9)


@pytest.mark.parametrize("load_a", [-2.0, -0.1, 0.1])
def test_a_current_on_the_link_shifts_where_the_precharge_settles(load_a: float):
    plant = run(closed(ideal(), CHARGING), 40 * TAU_MS)
    plant.load_a = load_a
    run(plant, 40 * TAU_MS)
    assert plant.link_v == pytest.approx(400.0 + 100.0 * load_a)
    assert plant.current_a == pytest.approx(load_a)


@pytest.mark.parametrize("load_w", [-300.0, 300.0])
def test_a_power_on_the_link_shifts_where_the_precharge_settles(load_w: float):
    plant = run(closed(ideal(), CHARGING), 40 * TAU_MS)
    plant.load_w = load_w
    run(plant, 40 * TAU_MS)
    assert plant.link_v == pytest.approx(200.0 + math.sqrt(200.0**2 + 100.0 * load_w))
    assert plant.link_v * plant.current_a == pytest.approx(load_w)


def test_a_constant_power_empties_the_open_link_along_its_energy():
    plant = run(ideal(link_v=400.0, load_w=-100.0), 500.0)
    assert plant.link_v == pytest.approx(math.sqrt(400.0**2 - 2.0 * 50.0 / 0.001), abs=0.01)


def test_what_the_inverter_takes_fades_out_and_what_it_puts_in_stops_at_its_limit():
    plant = ideal(link_v=400.0)
    plant.load_w = -3_000.0
    assert 0.0 <= run(plant, 2_000.0).link_v < 1.0
    plant.load_w, plant.load_a = 0.0, 5.0
    assert run(plant, 2_000.0).link_v == pytest.approx(plant.load_max_v)


def test_a_short_blows_the_fuse_after_its_i_squared_t():
    plant = closed(Plant(cells=Cells(temp_c=25.0, ambient_c=25.0)), RUNNING)
    plant.relays[POSITIVE].welded = plant.relays[NEGATIVE].welded = True
    plant.bleed_ohm = 0.05
    current_a = plant.cells.emf_v / (plant.cells.ohm + plant.wiring_ohm + 0.05)
    melting_ms = -1_000.0 * plant.fuse_a2s / plant.fuse_a**2 * math.log1p(-((plant.fuse_a / current_a) ** 2))
    plant.fuse_blown, plant.fuse_heat_a2, begun_ms = False, 0.0, plant.now_ms
    while not plant.fuse_blown:
        plant.step(0.5)
    assert plant.now_ms - begun_ms == pytest.approx(melting_ms, abs=1.5)
    assert plant.current_a == 0.0


def test_a_fuse_carries_its_current_for_ever_and_blows_soon_above_it():
    plant = closed(Plant(), RUNNING)
    plant.load_a = -390.0
    assert not run(plant, 10_000.0).fuse_blown
    plant.load_a = -500.0
    assert run(plant, 1_000.0).fuse_blown


# --- conservation ---


@given(
    members=st.sampled_from([OPEN, CHARGING, RUNNING]), link_v=st.floats(0.0, 450.0), load_a=st.floats(-50.0, 50.0),
    duration_ms=st.floats(1.0, 500.0),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_charge_is_lost_between_cells_and_link(
    members: frozenset[Contactor], link_v: float, load_a: float, duration_ms: float
):
    plant = closed(Plant(bleed_ohm=math.inf, load_max_v=100_000.0), members)
    plant.link_v, plant.load_a = link_v, load_a
    before_c = plant.cells.charge_c
    lowest_v = link_v
    for _ in range(20):
        plant.step(duration_ms / 20.0)
        lowest_v = min(lowest_v, plant.link_v)
    if lowest_v > plant.load_min_v or load_a >= 0.0:  # below, the load takes less than it is told
        flowed_c = plant.load_a * duration_ms / 1_000.0 - (plant.cells.charge_c - before_c)
        assert plant.link_f * (plant.link_v - link_v) == pytest.approx(flowed_c, abs=1e-9)


def test_the_state_of_charge_counts_coulombs():
    plant = closed(Plant(cells=Cells(spread=0.0, capacity_ah=100.0)), RUNNING)
    plant.load_a = 50.0
    before = plant.cells.soc
    run(plant, 72_000.0)
    assert plant.cells.soc - before == pytest.approx(0.01, rel=1e-4)


def test_the_cells_heat_by_their_resistance_and_cool_to_their_surroundings():
    cells = Cells(spread=0.0, temp_c=25.0, ambient_c=25.0)
    cells.carry(0.0, 100.0**2 * 60.0, 60.0)
    assert cells.cell_c(0) - 25.0 == pytest.approx(100.0**2 * 0.0007 * 60.0 / 3_400.0, rel=2e-3)  # 0.124 K
    cells.heat_to(45.0)
    cells.carry(0.0, 0.0, 3_400.0 / 0.19)
    assert cells.cell_c(0) == pytest.approx(25.0 + 20.0 / math.e)


# --- independence of the step ---


def life(steps_ms: Iterator[float], *, load_a: float = 0.0, load_w: float = 0.0) -> Plant:
    """Precharge, close, carry a load for 20 s, open, decay: relays move at the same times whatever the step."""
    plant = Plant()
    relays = PlantRelays(plant)
    for members, duration_ms, loaded in (
        ({NEGATIVE}, 201.0, 0.0), (CHARGING, 623.0, 0.0), ({*CHARGING, POSITIVE}, 500.0, 0.0),
        (RUNNING, 20_000.0, 1.0), (OPEN, 5_000.0, 0.0),
    ):  # fmt: skip
        relays.write(frozenset(members))
        plant.load_a, plant.load_w = loaded * load_a, loaded * load_w
        run(plant, duration_ms, steps_ms)
    return plant


@pytest.mark.parametrize("load", [{"load_a": 0.0}, {"load_a": -100.0}, {"load_w": 20_000.0}])
def test_a_life_is_the_same_in_steps_of_1_ms_10_ms_1_s_and_irregular_ones(load: dict[str, float]):
    fine = life(cycle((1.0,)), **load)
    for steps in (cycle((10.0,)), cycle((1_000.0,)), cycle(IRREGULAR_MS)):
        other = life(steps, **load)
        assert other.link_v == pytest.approx(fine.link_v, abs=1e-5)
        assert other.pack_v == pytest.approx(fine.pack_v, abs=1e-5)
        assert other.precharge_j == pytest.approx(fine.precharge_j, rel=1e-6)
        assert other.peak_a == pytest.approx(fine.peak_a, abs=0.01)
        assert other.cells.charge_c == pytest.approx(fine.cells.charge_c, rel=1e-4, abs=1e-6)
        assert other.cells.cell_c(0) == pytest.approx(fine.cells.cell_c(0), abs=1e-3)


@pytest.mark.parametrize("load", [{"load_a": -166.0}, {"load_w": 60_000.0}])
def test_the_voltages_under_one_hour_current_differ_by_less_than_10_mv(load: dict[str, float]):
    ends = []
    for steps in ((1.0,), (10.0,), (1_000.0,), IRREGULAR_MS):
        plant = closed(run(closed(Plant(), CHARGING), 600.0), frozenset({*CHARGING, POSITIVE}))
        plant.load_a, plant.load_w = load.get("load_a", 0.0), load.get("load_w", 0.0)
        run(plant, 20_000.0, cycle(steps))
        ends.append((plant.link_v, plant.pack_v))
    for link_v, pack_v in ends:
        assert link_v == pytest.approx(ends[0][0], abs=0.01)
        assert pack_v == pytest.approx(ends[0][1], abs=0.01)


def test_a_precharge_against_a_constant_power_is_the_same_in_any_step():
    ends_v = [
        run(closed(Plant(load_w=-100.0, link_v=100.0), CHARGING), 250.0, cycle(steps)).link_v
        for steps in ((0.05,), (1.0,), (10.0,), IRREGULAR_MS)
    ]
    assert ends_v == pytest.approx([ends_v[0]] * 4, abs=0.02)


# --- cells ---


@pytest.mark.parametrize("kind", CHEMISTRIES.values(), ids=CHEMISTRIES)
def test_the_voltage_of_a_cell_rises_with_its_charge(kind: Chemistry):
    volts = [Cells(kind, 1, soc=soc / 200.0, spread=0.0).cell_v(0) for soc in range(201)]
    assert all(lower < higher for lower, higher in pairwise(volts))


def test_a_pack_is_the_sum_of_its_cells_also_between_the_knots():
    cells = Cells(LFP, soc=0.01, soc_spread=0.01)
    for _ in range(400):
        cells.carry(1_600.0, 0.0, 1.0)
        assert cells.emf_v == pytest.approx(sum(cells.cell_v(i) for i in range(96)), rel=1e-12)


def test_a_spread_in_capacity_opens_the_voltages_at_the_ends():
    cells = Cells(spread=0.05)
    apart_v = [high - low for low, high in (cells.extremes_v(),)]
    cells.carry(-0.47 * 166.0 * 3_600.0, 0.0, 1.0)
    low_v, high_v = cells.extremes_v()
    assert apart_v[0] < 1e-9
    assert high_v - low_v > 0.1


def test_a_bad_cell_shows_in_the_extremes_and_an_overcharged_one_goes_on_rising():
    cells = Cells(soc=0.9)
    cells.damage(7, soc=0.99, ohm=0.01)
    assert cells.extremes_v(50.0)[1] == cells.cell_v(7, 50.0) > cells.cell_v(6, 50.0) + 0.4
    cells.carry(0.05 * 166.0 * 3_600.0, 0.0, 1.0)
    assert cells.cell_soc(7) == 1.0
    assert cells.cell_v(7) > 4.25


def test_a_seed_draws_the_same_cells_again():
    assert Cells(seed=5).ohms == Cells(seed=5).ohms != Cells(seed=6).ohms


def test_wrong_numbers_are_refused_when_built():
    with pytest.raises(ValueError, match="SoC"):
        Cells(soc=1.5)
    with pytest.raises(ValueError, match="capacitor"):
        Plant(link_f=0.0)
    with pytest.raises(ValueError, match="step"):
        Plant().step(-1.0)


# --- relays ---


def test_the_plant_relays_are_a_relay_port():
    port: RelayPort = PlantRelays(Plant())
    assert port.feedback() == dict.fromkeys(OWN, False)


def test_a_relay_closes_after_its_delay_bounces_and_opens_after_its_delay():
    plant = Plant(relay=Relay(closing_ms=20.0, opening_ms=10.0, bounces=2, bounce_ms=1.0))
    relays, seen = PlantRelays(plant), []
    relays.write(frozenset({NEGATIVE}))
    for _ in range(28):
        plant.step(1.0)
        seen.append(plant.relays[NEGATIVE].closed)
    assert seen == [False] * 19 + [True, False, True, False] + [True] * 5
    relays.write(OPEN)
    plant.step(9.9)
    assert relays.feedback()[NEGATIVE] is True
    plant.step(0.1)
    assert relays.feedback()[NEGATIVE] is False


def test_a_command_taken_back_in_time_never_closes():
    plant = Plant()
    relays = PlantRelays(plant)
    relays.write(frozenset({NEGATIVE}))
    plant.step(15.0)
    relays.write(OPEN)
    plant.step(100.0)
    assert not plant.relays[NEGATIVE].closed


def test_closing_the_positive_onto_an_empty_link_welds_it_and_onto_a_charged_one_does_not():
    bare = closed(Plant(), RUNNING)
    assert bare.relays[POSITIVE].welded
    assert bare.peak_a > 4_000.0
    assert not bare.relays[NEGATIVE].welded
    charged = closed(run(closed(Plant(), CHARGING), 420.0), frozenset({*CHARGING, POSITIVE}))
    assert not charged.relays[POSITIVE].welded
    assert charged.peak_a < 100.0


def test_the_relay_that_closes_the_loop_last_is_the_one_that_welds():
    plant = closed(Plant(), frozenset({POSITIVE}))
    assert not plant.relays[POSITIVE].welded
    assert closed(plant, RUNNING).relays[NEGATIVE].welded


@pytest.mark.parametrize(("load_a", "welds"), [(-200.0, False), (-700.0, True)])
def test_breaking_too_much_current_welds(load_a: float, welds: bool):
    plant = closed(run(closed(Plant(fuse_a=2_000.0), CHARGING), 1_000.0), frozenset({*CHARGING, POSITIVE}))
    plant.load_a = load_a
    run(plant, 100.0)
    closed(plant, frozenset({NEGATIVE}))
    assert plant.relays[POSITIVE].welded is welds
    assert plant.relays[POSITIVE].closed is welds


def test_faults_of_a_relay_show_in_its_feedback_or_do_not():
    plant = closed(Plant(), frozenset({NEGATIVE}))
    relays, negative = PlantRelays(plant), plant.relays[NEGATIVE]
    negative.stuck_open = True
    assert relays.feedback()[NEGATIVE] is False
    negative.welded = True
    assert relays.feedback()[NEGATIVE] is True
    negative.aux_stuck = False
    assert relays.feedback()[NEGATIVE] is False
    negative.aux_lost = True
    assert relays.feedback()[NEGATIVE] is None
    relays.broken = True
    assert set(relays.feedback().values()) == {None}
    with pytest.raises(RelayError):
        relays.write(OPEN)


def test_an_opening_relay_does_not_wait_for_the_step():
    plant = run(closed(ideal(), CHARGING), 100.0)
    plant.relays[PRECHARGE].opening_ms = 10.0
    PlantRelays(plant).write(frozenset({NEGATIVE}))
    plant.step(500.0)
    assert plant.link_v == pytest.approx(400.0 * (1.0 - math.exp(-1.1)))


# --- what always holds ---

DEEDS = st.one_of(
    st.tuples(st.just("relays"), st.frozensets(st.sampled_from(OWN))),
    st.tuples(st.just("load_a"), st.floats(-300.0, 300.0)),
    st.tuples(st.just("load_w"), st.floats(-60_000.0, 60_000.0)),
    st.tuples(st.just("precharge_ohm"), st.sampled_from([math.inf, 0.01, 36.0, 100.0])),
    st.tuples(st.just("bleed_ohm"), st.sampled_from([math.inf, 0.05, 1_000.0, 100_000.0])),
    st.tuples(st.just("weld"), st.sampled_from(OWN)),
    st.tuples(st.just("stick"), st.sampled_from(OWN)),
)  # fmt: skip


@given(
    kind=st.sampled_from(list(CHEMISTRIES.values())), soc=st.floats(0.0, 1.0),
    deeds=st.lists(st.tuples(DEEDS, st.floats(0.0, 3_000.0)), max_size=12),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_nothing_leaves_its_bounds_whatever_is_done(
    kind: Chemistry, soc: float, deeds: list[tuple[tuple[str, object], float]]
):
    plant = Plant(Cells(kind, soc=soc, soc_spread=0.02, capacity_ah=5.0))
    relays = PlantRelays(plant)
    for (name, value), step_ms in deeds:
        if name == "relays":
            relays.write(value)  # type: ignore[arg-type]
        elif name == "weld":
            plant.relays[value].welded = True  # type: ignore[index]
        elif name == "stick":
            plant.relays[value].stuck_open = True  # type: ignore[index]
        else:
            setattr(plant, name, value)
        before_v, before_j = plant.cells.emf_v, plant.precharge_j
        highest_v = max(before_v, plant.link_v, plant.load_max_v)
        plant.step(step_ms)
        assert all(map(math.isfinite, (plant.link_v, plant.current_a, plant.pack_v, plant.peak_a, plant.cells.soc)))
        assert 0.0 <= plant.cells.soc <= 1.0
        assert all(0.0 <= plant.cells.cell_soc(i) <= 1.0 for i in range(96))
        assert 0.0 <= plant.link_v <= max(highest_v, plant.cells.emf_v) + 1e-6
        assert plant.precharge_j >= before_j
        assert not plant.fuse_blown or plant.current_a == 0.0
