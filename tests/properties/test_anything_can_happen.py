"""People, packs, inverters, relays and disks do as they like, in any order; on every tick every invariant holds."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from controller import core
from controller.model.battery import BatterySnapshot, Feed, PackContactor
from controller.model.events import Event
from controller.model.settings import ContactorSettings, PrechargeSettings
from controller.ports import CommandKind
from sim.invariants import INVARIANTS, Invariants, Moment
from statecharts.supervisor import WIRINGS, Contactor, State
from tests.bench import HEALTHY, Bench

HURRIED = ContactorSettings(minimum_off_ms=1000, verify_ms=4000, pack_open_ms=3000, closings_per_hour=3)
QUICK = PrechargeSettings(resistance_ohm=100.0, capacitance_f=0.001, cool_down_ms=2000)
UNVERIFIED = PrechargeSettings(
    resistance_ohm=100.0, capacitance_f=0.001, unverified_reason="no sensor", cool_down_ms=2000
)
EMPTY = {"cell_min_v": 2.5, "cell_max_v": 2.6, "pack_voltage_v": 245.0, "soc_pct": 1.0}
SAYINGS = [
    *({name: None} for name in ("pack_voltage_v", "soc_pct", "cell_min_v", "cell_max_v", "temp_min_c", "temp_max_c",
                                "hvil_ok", "contactor_state", "max_charge_w", "lv_supply_v")),
    {"hvil_ok": False}, {"cell_max_v": 4.3}, {"cell_max_v": 4.16}, {"cell_max_v": 4.1}, {"cell_min_v": 2.8},
    {"cell_min_v": 3.05}, {"cell_min_v": 3.2}, {"temp_max_c": 61.0}, {"temp_max_c": 48.0}, {"temp_min_c": 1.0},
    {"pack_voltage_v": 410.0}, {"pack_voltage_v": 280.0}, {"pack_voltage_v": 3.0}, {"pack_voltage_v": 340.0},
    {"soc_pct": 60.0}, {"soc_pct": 96.0}, {"soc_pct": 4.0}, {"lv_supply_v": 11.0}, {"lv_supply_v": 9.0},
    {"max_charge_w": 700.0}, {"max_discharge_a": 9.0}, {"isolation_kohm": 50.0}, EMPTY,
    *({"contactor_state": state} for state in PackContactor),
]  # fmt: skip
REPORTS = ["fault", "open_now", "open_asked", "refuses", "link_loaded", "welded", "isolation_alert", "no_charge",
           "no_discharge", "warns"]  # fmt: skip
BREAKDOWNS = [Event.EXCEPTION, Event.RELAY_FAILED, Event.TICK_OVERRUN, Event.TICK_LATE, Event.BUS_FAILED]
RELAYS = [Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE]
NAMES = [Event.CLOSINGS_SPENT.value, *(event.value for event in Event)]
SPANS_MS = st.sampled_from([10, 10, 20, 30, 50, 100, 150, 200, 300, 500, 700, 1050, 1500, 3000, 9000])
TRUTH = st.sampled_from([True, False, None])


class World(Bench):
    """A bench that can be switched off and on again. offset_a: of its current sensor, None while that says nothing.

    held_below_v: a load keeps the link from rising above it.
    """

    def __init__(self, wiring: str, **options: object) -> None:
        super().__init__(wiring, **options)  # type: ignore[arg-type]
        self.offset_a: float | None = 0.0
        self.held_below_v: float | None = None
        self.invariants = Invariants()
        self.ticks = 0
        self.reached: Counter[State] = Counter()
        self.observers.append(self.judge)

    def judge(self, now: Moment) -> None:
        self.ticks += 1
        self.reached[now.state] += 1
        assert self.invariants.look(now) == ()

    def _world(self) -> None:
        super()._world()
        pack: BatterySnapshot = self.slate["pack"]  # type: ignore[assignment]
        assert pack.current_a is not None
        if self.link_v is not None and self.held_below_v is not None:
            self.link_v = min(self.link_v, self.held_below_v)
        self.says(current_a=None if self.offset_a is None else pack.current_a + self.offset_a)

    def restart(self) -> "World":
        """The power is cut; what is on the disk remains."""
        setup = self.state.setup
        self.state = core.start(
            self.settings, setup.battery, setup.inverter, record=self.stored, now_ms=self.now_ms
        )  # fmt: skip
        self.slate["stamps"] = {}
        self.closed_at.append((self.now_ms, frozenset()))
        self.states.append((self.now_ms, State.STARTING, "boot"))
        return self

    def heal(self) -> "World":
        """Everything is as it should be, except what is latched."""
        self.estop_ok = self.interlock_ok = True
        kept = {name: getattr(self.slate["pack"], name) for name in ("contactor_state", "current_a")}
        self.says(**HEALTHY._replace(**kept)._asdict())
        self.inverter(go=True).deaf(False).silence()
        self.load_a = self.offset_a = 0.0
        self.welded = self.stuck_open = frozenset()
        self.feedback = self.pack_obeys = self.physics = True
        self.disk_full, self.link_v, self.held_below_v = False, self.link_v or 0.0, None
        return self

    def acknowledge_all(self) -> "World":
        for cause in self.state.faults.held:
            self.command(CommandKind.ACKNOWLEDGE, cause.id.value)
        return self.command(CommandKind.ACKNOWLEDGE, Event.CLOSINGS_SPENT.value)


TALLY: Counter[str] = Counter()


class AnythingCanHappen(RuleBasedStateMachine):
    """Each rule changes one thing and lets some time pass."""

    world: World

    @initialize(
        wiring=st.sampled_from(sorted(WIRINGS)), hurried=st.sampled_from([True, True, True, False]),
        runs=st.booleans(), wired=st.booleans(), precharge=st.sampled_from([QUICK, QUICK, UNVERIFIED]),
        off_grid=st.sampled_from([False, False, True]),
    )  # fmt: skip
    def begins(self, wiring: str, hurried: bool, runs: bool, wired: bool, precharge: PrechargeSettings, off_grid: bool):
        self.world = World(
            wiring, precharge=precharge, contactors=HURRIED if hurried else None, off_grid=off_grid
        )  # fmt: skip
        self.world.estop_ok = self.world.interlock_ok = True if wired else None
        if runs:
            self.world.enable().until(State.RUNNING).run_ms(1000)

    @rule(ms=SPANS_MS)
    def time_passes(self, ms: int):
        self.world.run_ms(ms)

    @rule(state=st.sampled_from(list(State)))
    def it_is_watched_until(self, state: State):
        for _ in range(300):
            if self.world.at is state:
                return
            self.world.run_ms(10)

    @rule(kind=st.sampled_from([CommandKind.ENABLE, CommandKind.STOP, CommandKind.UNLOCK]), ms=SPANS_MS)
    def a_person_asks(self, kind: CommandKind, ms: int):
        self.world.command(kind).run_ms(ms)

    @rule(kind=st.sampled_from([CommandKind.SERVICE_STOP, CommandKind.RECOVERY_CHARGE]), ms=SPANS_MS)
    def a_person_asks_for_more(self, kind: CommandKind, ms: int):
        self.world.command(kind).run_ms(ms)

    @rule(name=st.sampled_from(NAMES), ms=SPANS_MS)
    def a_person_acknowledges(self, name: str, ms: int):
        self.world.command(CommandKind.ACKNOWLEDGE, name).run_ms(ms)

    @rule(charge_w=st.sampled_from([None, 0.0, 500.0]), discharge_w=st.sampled_from([None, 900.0]), ms=SPANS_MS)
    def a_person_caps(self, charge_w: float | None, discharge_w: float | None, ms: int):
        self.world.command(CommandKind.CAP, charge_w=charge_w, discharge_w=discharge_w, for_ms=1500).run_ms(ms)

    @rule(said=st.sampled_from(SAYINGS), ms=SPANS_MS)
    def the_pack_says(self, said: dict, ms: int):
        self.world.pack_obeys = self.world.pack_obeys and "contactor_state" not in said
        self.world.says(**said).run_ms(ms)

    @rule(name=st.sampled_from(REPORTS), value=TRUTH, ms=SPANS_MS)
    def the_pack_reports(self, name: str, value: bool | None, ms: int):
        self.world.reports(**{name: value}).run_ms(ms)

    @rule(feeds=st.sets(st.sampled_from(list(Feed)), max_size=2), ms=SPANS_MS)
    def feeds_fall_silent(self, feeds: set, ms: int):
        self.world.silence(*sorted(feeds)).run_ms(ms)

    @rule(a=st.sampled_from([0.0, 1.0, 4.3, -5.5, 7.0, None]), ms=SPANS_MS)
    def the_current_sensor_is_off(self, a: float | None, ms: int):
        self.world.offset_a = a
        self.world.run_ms(ms)

    @rule(a=st.sampled_from([0.0, 5.0, 30.0, -30.0, 80.0, -250.0]), ms=SPANS_MS)
    def the_inverter_draws(self, a: float, ms: int):
        self.world.load_a = a
        self.world.run_ms(ms)

    @rule(go=TRUTH, deaf=st.booleans(), ms=SPANS_MS)
    def the_inverter_says(self, go: bool | None, deaf: bool, ms: int):
        self.world.inverter(go=go).deaf(deaf).run_ms(ms)

    @rule(estop=TRUTH, interlock=TRUTH, ms=SPANS_MS)
    def a_loop_opens(self, estop: bool | None, interlock: bool | None, ms: int):
        self.world.estop_ok, self.world.interlock_ok = estop, interlock
        self.world.run_ms(ms)

    @rule(
        member=st.sampled_from(RELAYS), how=st.sampled_from(["welded", "stuck_open"]), seen=st.booleans(), ms=SPANS_MS
    )
    def a_relay_fails(self, member: Contactor, how: str, seen: bool, ms: int):
        setattr(self.world, how, frozenset({member}))
        self.world.feedback = seen
        self.world.run_ms(ms)

    @rule(link_v=st.sampled_from([None, 0.0, 180.0, 340.0, 360.0]), ms=SPANS_MS)
    def the_link_is_at(self, link_v: float | None, ms: int):
        self.world.link_v = link_v
        self.world.run_ms(ms)

    @rule(event=st.sampled_from(BREAKDOWNS), ms=SPANS_MS)
    def something_breaks_down(self, event: Event, ms: int):
        self.world.breakdowns = [event]
        self.world.run_ms(10)
        self.world.breakdowns = []
        self.world.run_ms(ms)

    @rule(full=st.booleans(), ms=SPANS_MS)
    def the_disk_fills(self, full: bool, ms: int):
        self.world.disk_full = full
        self.world.run_ms(ms)

    @rule(ms=SPANS_MS)
    def the_power_is_cut(self, ms: int):
        self.world.restart().run_ms(ms)

    @rule(ms=SPANS_MS)
    def it_heals(self, ms: int):
        self.world.heal().run_ms(ms)

    @rule(ms=SPANS_MS)
    def it_is_repaired_and_runs(self, ms: int):
        self.world.heal().run_ms(500)
        self.insist_ms(25_000)
        self.world.run_ms(ms)

    @rule(held_below_v=st.sampled_from([0.0, 180.0, 352.0]), ms=SPANS_MS)
    def closing_is_tried_and_something_keeps_it_from_ending(self, held_below_v: float, ms: int):
        self.world.heal().run_ms(500)
        self.world.held_below_v, self.world.pack_obeys = held_below_v, False
        self.insist_ms(8_000)
        self.world.run_ms(ms)

    def insist_ms(self, for_ms: int) -> None:
        """A person unlocks, acknowledges and enables once a second, until it runs."""
        for n in range(for_ms // 10):
            if self.world.at is State.RUNNING:
                return
            if n % 100 == 0:
                if self.world.at is State.LOCKED_OUT:
                    self.world.command(CommandKind.UNLOCK)
                self.world.acknowledge_all().enable()
            self.world.run_ms(10)

    def teardown(self):
        if hasattr(self, "world"):
            TALLY.update(runs=1, ticks=self.world.ticks)
            TALLY.update({f"state {state.value}": 1 for state in self.world.reached})
            TALLY.update({f"met {name}": met > 0 for name, met in self.world.invariants.met.items()})


def lives(runs: int, steps: int, fresh: bool = False) -> None:
    """So many lives of so many steps each, and what they came through, printed."""
    TALLY.clear()
    run_state_machine_as_test(
        AnythingCanHappen,
        settings=settings(
            max_examples=runs, stateful_step_count=steps, deadline=None, print_blob=True, derandomize=not fresh,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    print(", ".join(f"{name} {count}" for name, count in sorted(TALLY.items())))


def test_forty_short_lives_break_no_invariant():
    lives(runs=40, steps=10)


@pytest.mark.campaign
def test_three_hundred_lives_break_no_invariant_reach_every_state_and_exercise_every_invariant():
    lives(runs=300, steps=40, fresh=True)
    assert TALLY["runs"] >= 300
    assert [state.value for state in State if not TALLY[f"state {state.value}"]] == []
    assert [observer.id for observer in INVARIANTS if not TALLY[f"met {observer.id}"]] == []


# --- every single fault in every state, then healed ---

UP = {
    "own": (State.CLOSING_NEGATIVE, State.PRECHARGING, State.CLOSING_POSITIVE, State.RUNNING),
    "pack": (State.WAKING_PACK, State.RUNNING),
    "pack+inverter": (State.WAKING_PACK, State.CLOSING_POSITIVE, State.RUNNING),
    "none": (State.RUNNING,),
}
DOWN = (State.UNLOADING, State.VERIFYING_OPEN)
FAULTS = {
    **{f"says {name}={value}": lambda w, n=name, v=value: w.says(**{n: v})
       for said in SAYINGS for name, value in said.items() if name != "contactor_state"},
    **{f"reports {name}={value}": lambda w, n=name, v=value: w.reports(**{n: v})
       for name in REPORTS for value in (True, None)},
    **{f"silent {feed.name}": lambda w, f=feed: w.silence(f) for feed in Feed},
    **{f"breaks {event.value}": lambda w, e=event: w.breakdowns.append(e) for event in BREAKDOWNS},
    **{f"welded {member.value}": lambda w, m=member: setattr(w, "welded", {m}) for member in RELAYS},
    **{f"stuck {member.value}": lambda w, m=member: setattr(w, "stuck_open", {m}) for member in RELAYS},
    **{f"draws {amps}": lambda w, a=amps: setattr(w, "load_a", a) for amps in (80.0, -250.0)},
    **{f"go {go}": lambda w, g=go: w.inverter(go=g) for go in (False, None)},
    "estop": lambda w: setattr(w, "estop_ok", False), "estop unknown": lambda w: setattr(w, "estop_ok", None),
    "interlock": lambda w: setattr(w, "interlock_ok", False), "no feedback": lambda w: setattr(w, "feedback", False),
    "deaf": lambda w: w.deaf(), "link unknown": lambda w: setattr(w, "link_v", None),
    "current unknown": lambda w: setattr(w, "offset_a", None), "power cut": lambda w: w.restart(),
    "stop": lambda w: w.command(CommandKind.STOP), "disk full": lambda w: setattr(w, "disk_full", True),
}  # fmt: skip
A_FEW = ["reports fault=True", "says soc_pct=60.0", "go False", "power cut", "draws -250.0", "stuck positive"]


def walked(wiring: str, state: State, *faults: str) -> None:
    """Come to `state`, meet the faults, stay with them, be healed, acknowledged and enabled again."""
    world = World(wiring, contactors=HURRIED, precharge=QUICK).enable()
    world.estop_ok = world.interlock_ok = True
    world.until(State.RUNNING if state in DOWN else state)
    if state in DOWN:
        world.load_a = 30.0 if state is State.UNLOADING else 0.0
        world.run_ms(50).command(CommandKind.STOP).until(state)
    for fault in faults:
        FAULTS[fault](world)
        world.run_ms(20)
    world.breakdowns = []
    world.run_ms(12_000 if state is State.UNLOADING else 2_500)
    world.restart().run_ms(50).heal().run_ms(1_000).acknowledge_all().enable().run_ms(2_500)


@pytest.mark.parametrize("state", [*UP["own"], *DOWN])
def test_a_few_faults_in_every_state_break_no_invariant(state: State):
    for fault in A_FEW:
        walked("own", state, fault)


@pytest.mark.campaign
@pytest.mark.parametrize("wiring", sorted(UP))
def test_every_fault_in_every_state_breaks_no_invariant(wiring: str):
    for state in (*UP[wiring], *DOWN):
        for fault in FAULTS:
            walked(wiring, state, fault)


# --- found cases: what such lives came upon, as short as it gets ---


def test_an_acknowledgement_while_a_closing_waits_for_the_disk_does_not_forget_it():
    world = World("own").enable()
    world.disk_full = True
    world.run_ms(12_000).command(CommandKind.ACKNOWLEDGE, Event.CLOSINGS_SPENT.value).run_ms(20)
    world.disk_full = False
    world.run_ms(2_000)


def test_a_lock_out_is_remembered_from_its_very_first_tick():
    world = World("own").running()
    world.welded = frozenset({Contactor.POSITIVE})
    world.command(CommandKind.STOP).until(State.LOCKED_OUT).restart().run_ms(100)
    assert world.at is State.LOCKED_OUT
