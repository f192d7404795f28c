"""The monitor owns time: it debounces, holds, quiets and releases, tick by tick."""

from collections.abc import Mapping

import pytest

from controller.model.battery import PackContactor
from controller.model.events import Event, Severity
from controller.safety import monitor
from controller.safety.monitor import NO_FAULTS, Faults, Track
from controller.safety.situation import Situation
from statecharts.supervisor import State
from tests.situation import NOW_MS, seen

TICK_MS = 10
REST, LIVE = State.STANDBY, State.RUNNING
FAULT, OPEN_NOW, REVOKED, NO_CHARGE = Event.BMS_FAULT, Event.BMS_OPEN_NOW, Event.INVERTER_REVOKED, Event.BMS_NO_CHARGE
SUPPLY = Event.LV_SUPPLY_LOW_CLOSED


class Ticks:
    """A monitor whose world is set by hand."""

    def __init__(
        self, faults: Faults = NO_FAULTS, *, state: State = LIVE, wiring: str = "own", shadow: bool = False
    ) -> None:
        self.faults, self.state, self.wiring, self.shadow, self.now_ms = faults, state, wiring, shadow, NOW_MS
        self.changes: dict[str, object] = {}
        self.told: list[tuple[int, str, Severity, str]] = []

    def look(self) -> Situation:
        s = seen(self.wiring, self.state, **self.changes)  # type: ignore[arg-type]
        fresh = {feed: f.__class__(self.now_ms, f.round_ms) for feed, f in s.pack.feeds.items()}
        request = s.request.__class__(s.request.go, self.now_ms)
        return s._replace(
            now_ms=self.now_ms, shadow=self.shadow, pack=s.pack._replace(feeds=fresh), request=request,
            link_at_ms=self.now_ms,
        )  # fmt: skip

    def tick(self, **changes: object) -> "Ticks":
        return self.later(TICK_MS, **changes)

    def later(self, ms: int, **changes: object) -> "Ticks":
        """One tick, so much after the last."""
        self.changes = changes
        self.now_ms += ms
        self.faults = monitor.step(self.faults, self.look(), ms)
        self.told += [(self.now_ms, n.id.value, n.severity, n.detail) for n in self.faults.news]
        return self

    def run_ms(self, ms: int, **changes: object) -> "Ticks":
        for _ in range(ms // TICK_MS):
            self.tick(**changes)
        return self

    def acts(self, event: Event) -> bool:
        return self.faults.active_since_ms(event) is not None

    def holds(self, event: Event) -> bool:
        return event in [rule.id for rule in self.faults.held]


BAD, GOOD, UNKNOWN = ({"report": {"fault": value, "open_asked": value}} for value in (True, False, None))


# --- the debounce ---


def test_a_cause_acts_once_it_was_bad_for_its_debounce_and_not_a_tick_earlier():
    ticks = Ticks().run_ms(100, **BAD)  # the first of ten ticks is its beginning
    assert not ticks.acts(FAULT)
    assert not ticks.holds(FAULT)
    ticks.tick(**BAD)
    assert ticks.acts(FAULT)
    assert ticks.holds(FAULT)
    assert ticks.faults.active_since_ms(FAULT) == ticks.now_ms
    assert ticks.run_ms(50, **BAD).faults.active_since_ms(FAULT) == ticks.now_ms - 50


def test_a_cause_without_a_debounce_acts_in_its_own_tick():
    assert Ticks().tick(breakdowns=frozenset({Event.EXCEPTION})).acts(Event.EXCEPTION)


def test_one_good_tick_starts_the_debounce_anew():
    ticks = Ticks().run_ms(90, **BAD).tick(**GOOD).run_ms(100, **BAD)
    assert not ticks.acts(FAULT)


def test_ticks_in_which_nothing_can_be_told_neither_count_nor_clear():
    ticks = Ticks().run_ms(60, **BAD).run_ms(5_000, **UNKNOWN).run_ms(40, **BAD)
    assert not ticks.acts(FAULT)
    assert ticks.tick(**BAD).acts(FAULT)


def test_what_acts_goes_on_acting_while_nothing_can_be_told():
    ticks = Ticks().run_ms(200, **BAD)
    since_ms = ticks.faults.active_since_ms(FAULT)
    assert ticks.run_ms(5_000, **UNKNOWN).faults.active_since_ms(FAULT) == since_ms


def test_what_cannot_be_told_ends_a_quiet_time():
    ticks = Ticks().run_ms(5_010, pack={"lv_supply_v": 9.0})
    assert ticks.holds(SUPPLY)
    ticks.tick().later(59_990).tick(pack={"lv_supply_v": None}).tick().later(59_990)
    assert ticks.holds(SUPPLY)
    assert not ticks.tick().holds(SUPPLY)


def test_nothing_is_remembered_of_a_world_in_which_nothing_is_bad():
    assert Ticks().run_ms(100).faults is NO_FAULTS
    assert Ticks().run_ms(100, **UNKNOWN).faults is NO_FAULTS


def test_a_track_that_has_run_out_is_forgotten():
    ticks = Ticks(state=REST).run_ms(50, **BAD).tick(**GOOD)
    assert dict(ticks.faults.tracks) == {}


def test_a_tick_in_which_nothing_changes_changes_nothing():
    ticks = Ticks().run_ms(500, **BAD)
    before = ticks.faults
    assert ticks.tick(**BAD).faults is before


# --- holding ---


def test_what_opened_while_the_pack_may_be_connected_is_held_after_it_is_gone():
    ticks = Ticks().run_ms(200, **BAD).run_ms(50, **GOOD).later(300_000, **GOOD)
    assert ticks.holds(FAULT)
    assert not ticks.acts(FAULT)


def test_what_begins_and_acts_at_rest_is_not_held():
    ticks = Ticks(state=REST).run_ms(200, **BAD)
    assert ticks.acts(FAULT)
    assert not ticks.holds(FAULT)
    assert not ticks.tick(**GOOD).acts(FAULT)


def test_what_began_while_connected_is_held_though_it_acts_only_at_rest():
    ticks = Ticks().run_ms(50, **BAD)
    ticks.state = REST
    assert ticks.run_ms(100, **BAD).holds(FAULT)


def test_what_began_at_rest_is_held_once_the_pack_is_connected_while_it_is_bad():
    ticks = Ticks(state=REST).run_ms(50, **BAD)
    ticks.state = LIVE
    ticks.tick(**BAD)
    ticks.state = REST
    assert ticks.run_ms(100, **BAD).holds(FAULT)


def test_what_acts_at_rest_is_held_from_the_tick_in_which_the_pack_is_connected():
    ticks = Ticks(state=REST).run_ms(200, **BAD)
    ticks.state = LIVE
    assert ticks.tick(**UNKNOWN).holds(FAULT)


def test_a_dagger_is_held_at_rest_too():
    ticks = Ticks(state=REST).run_ms(310, report={"refuses": True}).tick()
    assert ticks.holds(Event.PACK_REFUSES)


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (REVOKED, {"request": {"go": False}}),
        (NO_CHARGE, {"report": {"no_charge": True}}),
        (Event.BMS_WARNING, {"report": {"warns": True}}),
    ],
)
def test_what_rests_only_limits_or_only_warns_is_never_held(event: Event, changes: Mapping):
    ticks = Ticks().run_ms(500, **changes)
    assert ticks.acts(event)
    assert not ticks.holds(event)


# --- release ---


def test_a_cause_of_its_own_quiet_time_is_released_after_exactly_that():
    ticks = Ticks().run_ms(5_010, pack={"lv_supply_v": 9.0})
    ticks.tick().later(59_990)
    assert ticks.holds(SUPPLY)
    assert ticks.acts(SUPPLY)  # good for less than its time is not gone
    ticks.tick()
    assert not ticks.holds(SUPPLY)
    assert not ticks.acts(SUPPLY)


def test_a_warning_lasts_for_its_quiet_time():
    ticks = Ticks().run_ms(110, report={"warns": True}).tick().later(59_990)
    assert ticks.acts(Event.BMS_WARNING)
    assert not ticks.tick().acts(Event.BMS_WARNING)


def test_a_limit_and_a_revoked_permission_end_with_their_cause():
    for event, changes in ((NO_CHARGE, {"report": {"no_charge": True}}), (REVOKED, {"request": {"go": False}})):
        ticks = Ticks().run_ms(200, **changes)
        assert ticks.acts(event)
        assert not ticks.tick().acts(event)


def test_a_cause_of_a_quiet_time_that_only_withholds_ends_with_it():
    ticks = Ticks(state=REST).run_ms(200, report={"withholds": True})
    assert ticks.acts(Event.BMS_RELAY_CUT)
    assert not ticks.tick(report={"withholds": False}).acts(Event.BMS_RELAY_CUT)


# --- what is told ---


def test_a_cause_is_told_once_when_it_acts_and_once_when_it_is_gone():
    ticks = Ticks().run_ms(500, **BAD).run_ms(500, **GOOD)
    assert ticks.told == [
        (NOW_MS + 110, "bms-fault", Severity.GRACEFUL, "contactors OPEN"),
        (NOW_MS + 510, "bms-fault", Severity.INFO, "cleared, still held"),
    ]


def test_a_cause_that_leaves_nothing_behind_is_told_to_be_cleared():
    ticks = Ticks().run_ms(200, report={"no_charge": True}).run_ms(100)
    assert [(severity, detail) for *_, severity, detail in ticks.told] == [
        (Severity.LIMIT, ""), (Severity.INFO, "cleared"),
    ]  # fmt: skip


def test_a_held_cause_of_a_record_that_was_not_seen_again_is_told_to_be_released():
    ticks = Ticks(monitor.start(("lv-supply-low-closed",)), state=REST).tick().later(60_000)
    assert [(at_ms, name, detail) for at_ms, name, _, detail in ticks.told] == [
        (NOW_MS + 60_010, "lv-supply-low-closed", "released")
    ]


# --- what others ask ---


def faults(**tracks: Track) -> Faults:
    return Faults({Event[name]: track for name, track in tracks.items()})


ACTING, HELD, ONLY_SEEN = Track(0, None, 0, True), Track(None, 0, None, False, True), Track(0, None, None, True)


def test_causes_are_listed_by_severity_in_the_order_of_the_table():
    some = faults(BMS_FAULT=ACTING, ESTOP_OPEN=HELD, CELL_OVERVOLTAGE=ACTING, OVERCURRENT=ONLY_SEEN, TICK_LATE=ACTING)
    assert [r.id for r in some.acting(*Severity)] == [
        Event.ESTOP_OPEN, Event.CELL_OVERVOLTAGE, Event.BMS_FAULT, Event.TICK_LATE,
    ]  # fmt: skip
    assert [r.id for r in some.acting(Severity.OPEN)] == [Event.ESTOP_OPEN]
    assert [r.id for r in some.held] == [Event.ESTOP_OPEN]
    assert NO_FAULTS.acting(*Severity) == ()


def test_suspected_is_what_would_stop_or_withhold_and_is_not_yet_long_enough_bad():
    some = faults(BMS_FAULT=ONLY_SEEN, ESTOP_OPEN=ACTING, LV_SUPPLY_LOW=ONLY_SEEN, WELD_CURRENT=ONLY_SEEN,
                  CELL_SPREAD=ONLY_SEEN, BMS_NO_CHARGE=ONLY_SEEN, HVIL_OPEN=HELD, OVERCURRENT=ONLY_SEEN)  # fmt: skip
    assert [r.id for r in some.suspected] == [
        Event.OVERCURRENT, Event.LV_SUPPLY_LOW, Event.BMS_FAULT, Event.WELD_CURRENT,
    ]  # fmt: skip
    assert NO_FAULTS.suspected == ()


def test_each_direction_is_forbidden_by_its_own_limits_and_by_all_that_opens():
    some = faults(CELL_OVERVOLTAGE=ACTING, CELL_UNDERVOLTAGE=ACTING, BMS_FAULT=HELD, LV_SUPPLY_LOW=ACTING,
                  TICK_LATE=ACTING, WELD_REPORTED=ACTING, PACK_DATA_STALE=ACTING, ESTOP_OPEN=ACTING)  # fmt: skip
    both = [Event.PACK_DATA_STALE, Event.BMS_FAULT, Event.WELD_REPORTED]
    assert [r.id for r in some.charge_forbidden] == [Event.ESTOP_OPEN, Event.CELL_OVERVOLTAGE, *both]
    assert [r.id for r in some.discharge_forbidden] == [Event.ESTOP_OPEN, Event.CELL_UNDERVOLTAGE, *both]


def test_one_cause_can_be_asked_whether_it_is_held():
    faults = Faults({FAULT: Track(held=True), Event.HVIL_OPEN: Track(active_since_ms=1)})
    asked = (FAULT, Event.HVIL_OPEN, Event.ESTOP_OPEN)
    assert [faults.holds(event) for event in asked] == [True, False, False]


def test_where_nothing_disconnects_what_acts_while_current_flows_is_held():
    flows, stands = ({"pack": {"current_a": amps}, **BAD} for amps in (-5.1, -5.0))
    assert Ticks(state=State.STANDBY, wiring="none").run_ms(200, **flows).holds(FAULT)
    assert not Ticks(state=State.STANDBY, wiring="none").run_ms(200, **stands).holds(FAULT)


def test_a_cause_that_is_only_held_does_not_act():
    assert faults(BMS_FAULT=HELD).active_since_ms(FAULT) is None
    assert NO_FAULTS.active_since_ms(FAULT) is None


# --- acknowledging ---


@pytest.mark.parametrize(
    ("track", "name", "why"),
    [
        (HELD, "nonsense", "there is no cause 'nonsense'"),
        (HELD, "overcurrent", "overcurrent is not held"),
        (ACTING, "bms-fault", "bms-fault is not held"),
        (Track(0, None, 0, True, True), "bms-fault", "bms-fault is still present, or not known to be gone"),
        (Track(None, None, None, False, True), "bms-fault", "bms-fault is still present, or not known to be gone"),
        (Track(None, 0, 0, False, True), "bms-fault", "bms-fault is still present, or not known to be gone"),
        (HELD, "bms-fault", None),
    ],
)
def test_only_a_held_cause_that_is_known_to_be_gone_is_acknowledged(track: Track, name: str, why: str | None):
    before = faults(BMS_FAULT=track, ESTOP_OPEN=HELD)
    after, said = monitor.acknowledge(before, name)
    assert said == why
    assert dict(after.tracks) == ({Event.ESTOP_OPEN: HELD} if why is None else dict(before.tracks))


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Event.WELD_REPORTED, "needs `controller unlock` at the machine, after inspection"),
        (Event.BMS_RELAY_CUT, "clears itself after 60 s without it"),
    ],
)
def test_what_a_person_cannot_acknowledge_says_what_ends_it(event: Event, words: str):
    before = Faults({event: HELD})
    assert monitor.acknowledge(before, event.value) == (before, f"{event.value} {words}")


def test_an_unlock_releases_the_suspicions_of_a_weld_and_nothing_else():
    some = faults(WELD_REPORTED=HELD, WELD_CURRENT=Track(0, None, 0, True, True), BMS_FAULT=HELD)
    assert list(monitor.unlock(some).tracks) == [FAULT]


def test_a_released_cause_that_is_still_true_comes_back():
    ticks = Ticks(state=REST).run_ms(210, report={"welded": True})
    ticks.faults = monitor.unlock(ticks.faults)
    assert not ticks.holds(Event.WELD_REPORTED)
    assert ticks.run_ms(210, report={"welded": True}).holds(Event.WELD_REPORTED)


# --- a restart, a recording ---


def test_a_record_brings_its_latched_causes_and_what_no_rule_knows_is_a_lost_record():
    assert dict(monitor.start(("bms-fault",)).tracks) == {FAULT: Track(held=True)}
    for unknown in ("from-the-future", "operator-stop"):  # the second is an event, and no cause
        assert dict(monitor.start((unknown,)).tracks) == {Event.RECORD_LOST: Track(held=True)}


def test_a_recording_is_judged_by_what_it_can_answer_for_only():
    for shadow, judged in ((True, {"bms-fault"}), (False, {"bms-fault", "pack-closed-unasked"})):
        ticks = Ticks(state=REST, wiring="pack", shadow=shadow)
        bad = {"pack": {"contactor_state": PackContactor.CLOSED}, "report": {"fault": True}}
        ticks.tick(**bad).later(11_000, **bad)
        assert {name for _, name, *_ in ticks.told} == judged


def test_one_cause_never_hides_another():
    everything = {"report": {"fault": True, "open_now": True, "no_charge": True}, "estop_ok": False}
    ticks = Ticks().run_ms(200, **everything)
    assert {rule.id for rule in ticks.faults.acting(*Severity)} == {FAULT, OPEN_NOW, NO_CHARGE, Event.ESTOP_OPEN}
