"""When each guard of the chart is true, to the millisecond and the ampere, and what is remembered to answer it."""

from dataclasses import is_dataclass, replace
from pathlib import Path

import pytest

from controller import precharge, supervisor
from controller.model.battery import Feed, PackContactor
from controller.model.events import Event
from controller.model.reading import Freshness
from controller.model.settings import PrechargeSettings
from controller.safety import envelope, gate, monitor, rules
from controller.safety.monitor import NO_FAULTS, Faults, Track
from controller.safety.situation import believed, missing_feeds, required_feeds
from controller.supervisor import GUARDS, SEEN, Supervisor
from controller.weld import UNWATCHED, LinkWatch
from statecharts import chart, explore, interlocks
from statecharts.shadow import Seen
from statecharts.supervisor import ENERGISED, LADDER, Contactor, Guard, State
from tests.situation import NOW_MS, SETTINGS, feeds, seen

NEGATIVE, POSITIVE = Contactor.NEGATIVE, Contactor.POSITIVE
ACTING, HELD, ONLY_SEEN = Track(0, None, 0, True), Track(None, 0, None, False, True), Track(0, None, None, True)
ENABLED = Supervisor(enabled=True, off_since_ms=0, link=LinkWatch(may_close=True), recorded_seq=1, stored_seq=1)


def faults(**tracks: Track) -> Faults:
    return Faults({Event[name]: track for name, track in tracks.items()})


def holds(guard: Guard, wiring: str = "own", state: State = State.RUNNING, some: Faults = NO_FAULTS, **changes) -> bool:
    """The guard's answer. Fields of the supervisor's memory are told from those of the situation by their name."""
    memory = {name: value for name, value in changes.items() if name in Supervisor.__dataclass_fields__}
    world = {name: value for name, value in changes.items() if name not in memory}
    return GUARDS[guard](seen(wiring, state, **world), replace(ENABLED, state=state, **memory), some)


# --- causes ---


def test_a_cause_to_open_at_once_opens_whether_it_acts_or_is_held():
    assert holds(Guard.OPEN_NOW, some=faults(HVIL_OPEN=ACTING))
    assert holds(Guard.OPEN_NOW, some=faults(HVIL_OPEN=HELD))
    assert not holds(Guard.OPEN_NOW, some=faults(HVIL_OPEN=ONLY_SEEN, BMS_FAULT=ACTING, WELD_REPORTED=ACTING))


def test_a_pack_that_refuses_while_it_wakes_has_a_row_of_its_own():
    refuses = faults(PACK_REFUSES=ACTING)
    assert not holds(Guard.OPEN_NOW, "pack", State.WAKING_PACK, refuses)
    assert holds(Guard.OPEN_NOW, "pack", State.RUNNING, refuses)
    assert holds(Guard.OPEN_NOW, "pack", State.WAKING_PACK, faults(PACK_REFUSES=ACTING, HVIL_OPEN=ACTING))
    assert holds(Guard.PACK_REFUSES, "pack", State.WAKING_PACK, refuses)
    assert not holds(Guard.PACK_REFUSES, "pack", State.WAKING_PACK, faults(HVIL_OPEN=ACTING))


def test_a_weld_is_a_lock_out_on_record_a_check_contradicted_or_a_cause():
    assert not holds(Guard.WELDED, some=faults(HVIL_OPEN=ACTING, WELD_CURRENT=ONLY_SEEN))
    assert holds(Guard.WELDED, locked=True)
    assert holds(Guard.WELDED, link=LinkWatch(suspected=True))
    assert holds(Guard.WELDED, some=faults(WELD_CURRENT=ACTING))


def test_a_held_cause_is_a_fault_and_an_acting_one_alone_is_none():
    assert holds(Guard.FAULTED, some=faults(BMS_FAULT=HELD))
    assert not holds(Guard.FAULTED, some=faults(BMS_FAULT=ACTING))


def test_a_stop_is_asked_for_or_caused():
    assert not holds(Guard.STOP, some=faults(HVIL_OPEN=ACTING, BMS_FAULT=ONLY_SEEN))
    assert holds(Guard.STOP, enabled=False)
    assert holds(Guard.STOP, exiting=True)
    assert holds(Guard.STOP, some=faults(BMS_FAULT=ACTING))


@pytest.mark.parametrize("state", list(State))
def test_an_unknown_required_signal_stops_the_ladder_and_nothing_else(state: State):
    unknown = {"pack": {"soc_pct": None}}
    assert holds(Guard.STOP, state=state, **unknown) == (state in LADDER)
    assert not holds(Guard.STOP, state=state, pack={"hvil_ok": None})  # not required of this wiring


def test_what_is_only_seen_is_suspected():
    assert holds(Guard.SUSPECTED, some=faults(BMS_FAULT=ONLY_SEEN))
    assert not holds(Guard.SUSPECTED, some=faults(BMS_FAULT=ACTING, TICK_LATE=ONLY_SEEN))


def test_a_load_on_the_link_is_one_that_acts():
    assert holds(Guard.LINK_LOADED, some=faults(PACK_LINK_LOADED=ACTING))
    assert not holds(Guard.LINK_LOADED, some=faults(PACK_LINK_LOADED=ONLY_SEEN, BMS_FAULT=ACTING))


# --- the fuse, the load ---


@pytest.mark.parametrize(
    ("amps", "above"), [(200.0, False), (200.1, True), (-200.1, True), (-200.0, False), (None, False)]
)
def test_the_fuse_is_waited_for_above_what_our_relays_may_break(amps: float | None, above: bool):
    current = {"pack": {"current_a": amps}}
    assert holds(Guard.ABOVE_BREAK_MAX, **current) == above
    assert not holds(Guard.ABOVE_BREAK_MAX, breakdowns=frozenset({Event.EXCEPTION}), **current)
    assert not holds(Guard.ABOVE_BREAK_MAX, some=faults(ESTOP_OPEN=ACTING), **current)
    assert holds(Guard.ABOVE_BREAK_MAX, some=faults(OVERCURRENT=ACTING), **current) == above


@pytest.mark.parametrize(
    ("amps", "offset_a", "unloaded"),
    [(3.49, 0.0, True), (3.5, 0.0, False), (-3.49, 0.0, True), (-3.5, 0.0, False), (7.0, 4.0, True), (7.6, 4.0, False),
     (4.3, None, False), (3.4, None, True), (None, 0.0, False), (3.0, 9.0, True), (-3.0, 4.0, True)],
)  # fmt: skip
def test_unloaded_is_below_the_break_current_with_or_without_the_offset(amps, offset_a, unloaded: bool):
    assert holds(Guard.UNLOADED, pack={"current_a": amps}, offset_a=offset_a) == unloaded


@pytest.mark.parametrize(
    ("by_ms", "over"), [(None, False), (NOW_MS + 1, False), (NOW_MS, True), (NOW_MS - 1, True)]
)  # fmt: skip
def test_a_wait_is_over_at_its_end(by_ms: int | None, over: bool):
    assert holds(Guard.UNLOAD_OVERDUE, state=State.UNLOADING, unload_by_ms=by_ms) == over


@pytest.mark.parametrize(("since_ms", "over"), [(None, False), (NOW_MS - 2_999, False), (NOW_MS - 3_000, True)])
def test_the_fuse_has_its_three_seconds(since_ms: int | None, over: bool):
    assert holds(Guard.FUSE_OVERDUE, fuse_since_ms=since_ms) == over


# --- going on ---


def test_a_pack_is_found_closed_by_its_word_or_by_the_record():
    assert not holds(Guard.PACK_FOUND_CLOSED)
    assert holds(Guard.PACK_FOUND_CLOSED, pack={"contactor_state": PackContactor.CLOSED})
    assert holds(Guard.PACK_FOUND_CLOSED, found_closed=True)


def test_the_self_test_wants_no_relay_fed_back_closed():
    assert holds(Guard.SELF_TESTED, feedback={})
    assert holds(Guard.SELF_TESTED, feedback={NEGATIVE: False, POSITIVE: None})
    assert not holds(Guard.SELF_TESTED, feedback={NEGATIVE: False, POSITIVE: True})


@pytest.mark.parametrize("guard", [Guard.NEGATIVE_CONFIRMED, Guard.POSITIVE_CONFIRMED])
def test_a_contactor_is_confirmed_unless_it_is_fed_back_open(guard: Guard):
    member, other = (NEGATIVE, POSITIVE) if guard is Guard.NEGATIVE_CONFIRMED else (POSITIVE, NEGATIVE)
    for fed_back, confirmed in ((True, True), (None, True), (False, False)):
        assert holds(guard, feedback={member: fed_back, other: not fed_back}) == confirmed
    assert holds(guard, feedback={})


def test_the_record_of_this_very_closing_must_be_stored():
    assert holds(Guard.READY, state=State.STANDBY, recorded_seq=5, stored_seq=5)
    assert holds(Guard.READY, state=State.STANDBY, recorded_seq=5, stored_seq=6)
    assert not holds(Guard.READY, state=State.STANDBY, recorded_seq=5, stored_seq=4)
    assert not holds(Guard.READY, state=State.STANDBY, recorded_seq=None)
    assert not holds(Guard.READY, state=State.STANDBY, enabled=False)


def test_verdicts_are_those_of_the_precharge_and_the_weld_check():
    for charge, charged, failed in (
        (precharge.NOT_BEGUN, False, False), (precharge.Progress(charged=True), True, False),
        (precharge.Progress(failed="x"), False, True),
    ):  # fmt: skip
        assert holds(Guard.LINK_CHARGED, charge=charge) == charged
        assert holds(Guard.PRECHARGE_FAILED, charge=charge) == failed
    assert holds(Guard.OPEN_CHECKED, link=LinkWatch(proven_open=True))
    assert not holds(Guard.OPEN_CHECKED)
    assert holds(Guard.UNLOCKED, unlocking=True)
    assert not holds(Guard.UNLOCKED)
    for says in (*PackContactor, None):
        closed = says is PackContactor.CLOSED
        assert holds(Guard.PACK_CLOSED, "pack", pack={"contactor_state": says}) == closed


@pytest.mark.parametrize(
    ("wiring", "pack", "negative", "positive"),
    [("pack", 1, 0, 0), ("pack+inverter", 1, 0, 1), ("own", 0, 1, 1), ("none", 0, 0, 0)],
)
def test_the_wiring_answers_for_its_members(wiring: str, pack: int, negative: int, positive: int):
    members = (Guard.WIRED_PACK, Guard.WIRED_NEGATIVE, Guard.WIRED_POSITIVE)
    assert [holds(guard, wiring) for guard in members] == [pack, negative, positive]


BLIND = {"feedback": {}}


@pytest.mark.parametrize(
    ("guard", "wiring", "after_ms", "changes"),
    [
        (Guard.SIGNALS_OVERDUE, "own", 60_000, {}),
        (Guard.WAKING_OVERDUE, "pack", 10_000, {}),
        (Guard.SETTLED, "own", 200, {"feedback": {NEGATIVE: True}}),
        (Guard.SETTLED, "own", 500, BLIND),
        (Guard.NEGATIVE_OVERDUE, "own", 1_000, {}),
        (Guard.PRECHARGE_OVERDUE, "own", 2_000, {}),
        (Guard.OVERLAPPED, "own", 500, {}),
        (Guard.POSITIVE_OVERDUE, "own", 1_000, {}),
        (Guard.BROKEN, "own", 100, {}),
        (Guard.VERIFY_OVERDUE, "own", 30_000, {}),
        (Guard.VERIFY_OVERDUE, "pack", 11_000, {}),
        (Guard.VERIFY_OVERDUE, "pack+inverter", 11_000, {}),
        (Guard.COOLED, "own", 30_000, {}),
    ],
)
def test_a_timer_runs_from_the_entry_of_its_state(guard: Guard, wiring: str, after_ms: int, changes: dict):
    assert not holds(guard, wiring, since_ms=NOW_MS - after_ms + 1, **changes)
    assert holds(guard, wiring, since_ms=NOW_MS - after_ms, **changes)


def test_a_longer_time_constant_makes_the_precharge_overdue_later():
    slow = replace(SETTINGS, precharge=PrechargeSettings(resistance_ohm=500.0, capacitance_f=0.001))
    assert not holds(Guard.PRECHARGE_OVERDUE, since_ms=NOW_MS - 2_499, settings=slow)
    assert holds(Guard.PRECHARGE_OVERDUE, since_ms=NOW_MS - 2_500, settings=slow)


# --- what every rule may ask ---


@pytest.mark.parametrize("state", list(State))
def test_the_pack_may_be_connected_in_the_energised_states_only(state: State):
    for wiring in ("own", "pack", "pack+inverter", "none"):
        assert seen(wiring, state).live == (state in ENERGISED)
        assert seen(wiring, state, charge_limit_w=1.0, discharge_limit_w=1.0).live == (
            state in ENERGISED or wiring == "none"
        )


def test_what_cannot_be_disconnected_is_live_while_either_direction_is_offered():
    for up_w, down_w in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.0), (0.0, 0.5), (0.0, 0.0)):
        assert seen("none", charge_limit_w=up_w, discharge_limit_w=down_w).live == (up_w + down_w > 0)


@pytest.mark.parametrize(
    ("amps", "offset_a", "net_a"), [(None, 4.3, None), (None, None, None), (9.0, None, 9.0), (9.0, 4.0, 5.0)]
)
def test_the_net_current_is_less_its_offset_where_that_is_known(amps, offset_a, net_a):
    assert seen(pack={"current_a": amps}, offset_a=offset_a).net_current_a == net_a


def test_an_age_is_known_once_a_feed_was_valid():
    s = seen(pack={"feeds": feeds({Feed.SOC: 700, Feed.HVIL: None})})
    assert (s.age_ms(Feed.SOC), s.age_ms(Feed.HVIL)) == (700, None)
    assert seen(pack={"feeds": {}}).age_ms(Feed.SOC) is None


# --- required signals ---


def test_a_pack_that_holds_its_contactors_must_tell_of_them_and_of_its_interlock():
    always = (Feed.VOLTAGE, Feed.CURRENT, Feed.CELLS, Feed.TEMPERATURES, Feed.SOC)
    assert required_feeds("own") == required_feeds("none") == always
    assert required_feeds("pack") == required_feeds("pack+inverter") == (*always, Feed.CONTACTOR, Feed.HVIL)
    assert required_feeds("own", frozenset({Feed.CELLS, Feed.HVIL})) == (
        Feed.VOLTAGE, Feed.CURRENT, Feed.TEMPERATURES, Feed.SOC,
    )  # fmt: skip


@pytest.mark.parametrize("feed", required_feeds("pack"))
def test_a_required_feed_is_missing_when_never_seen_stale_or_without_any_of_its_values(feed: Feed):
    s = seen("pack")
    assert missing_feeds(s.pack, s.settings, NOW_MS) == ()
    for pack in (
        {"feeds": feeds({feed: None})}, {"feeds": {f: v for f, v in feeds().items() if f is not feed}},
        {"feeds": feeds({feed: 60_000})}, *({name: None} for name in feed.signals),
    ):  # fmt: skip
        s = seen("pack", pack=pack)
        assert missing_feeds(s.pack, s.settings, NOW_MS) == (feed,)


def test_signals_are_seen_when_none_is_missing():
    assert holds(Guard.SIGNALS_SEEN, "pack")
    assert not holds(Guard.SIGNALS_SEEN, "pack", pack={"hvil_ok": None})
    assert holds(Guard.SIGNALS_SEEN, "own", pack={"hvil_ok": None})


# --- permission ---


def withheld(wiring: str = "own", some: Faults = NO_FAULTS, **changes) -> tuple[str, ...]:
    memory = {name: value for name, value in changes.items() if name in Supervisor.__dataclass_fields__}
    world = {name: value for name, value in changes.items() if name not in memory}
    sup = replace(ENABLED, state=State.STANDBY, recorded_seq=None, **memory)
    return supervisor.withheld(seen(wiring, State.STANDBY, **world), sup, some)


@pytest.mark.parametrize("wiring", ["own", "pack", "pack+inverter", "none"])
def test_nothing_is_withheld_when_every_permission_is_there(wiring: str):
    assert withheld(wiring) == ()


@pytest.mark.parametrize(
    ("wiring", "changes", "why"),
    [
        ("own", {"enabled": False}, "operator: not enabled"),
        ("own", {"exiting": True, "enabled": False}, "service: stopping"),
        ("own", {"pack": {"soc_pct": None, "temp_max_c": None}}, "battery: unknown temp_min_c, temp_max_c, soc_pct"),
        ("own", {"feedback": {POSITIVE: True, NEGATIVE: False}}, "battery: positive fed back closed"),
        ("pack", {"pack": {"contactor_state": PackContactor.CLOSING}}, "battery: contactors CLOSING"),
        ("own", {"some": faults(LV_SUPPLY_LOW=ACTING)}, "cause: lv-supply-low"),
        ("own", {"some": faults(BMS_FAULT=ACTING)}, "cause: bms-fault"),
        ("own", {"some": faults(HVIL_OPEN=HELD)}, "cause: hvil-open"),
        ("own", {"some": faults(WELD_REPORTED=HELD)}, "cause: weld-reported"),
        ("own", {"some": faults(WELD_CURRENT=ONLY_SEEN)}, "cause: weld-current"),
        ("own", {"link": UNWATCHED}, "link: no voltage known"),
        ("own", {"link": LinkWatch(why="200 V and falling")}, "link: 200 V and falling"),
        ("own", {"offset_a": None}, "battery: current offset not measured yet"),
        ("own", {"precharges_ms": ((NOW_MS - 500, 2_000),) * 3}, "precharge: resistor rests 600 s"),
        ("own", {"request": {"go": None}}, "inverter: no go"),
        ("own", {"request": {"go": False}}, "inverter: no go"),
        ("own", {"off_since_ms": NOW_MS - 9_999}, "contactors: minimum off time"),
    ],
)
def test_one_missing_permission_is_named_and_withholds(wiring: str, changes: dict, why: str):
    assert withheld(wiring, **changes) == (why,)


def test_what_a_wiring_does_not_need_it_does_not_wait_for():
    assert withheld("own", request={"go": None}, inverter_asks=False) == ()
    assert withheld("own", off_since_ms=NOW_MS - 10_000) == ()
    assert withheld("own", pack={"contactor_state": PackContactor.CLOSED}) == ()
    assert withheld("pack", link=UNWATCHED, offset_a=None, precharges_ms=((NOW_MS, 2_000),) * 3) == ()
    unverified = replace(SETTINGS, precharge=replace(SETTINGS.precharge, unverified_reason="no sensor"))
    assert withheld("own", link=UNWATCHED, settings=unverified) == ()
    warned = faults(TICK_LATE=ACTING, BMS_NO_CHARGE=ACTING, CELL_SPREAD=ONLY_SEEN)
    assert withheld("own", warned) == ()


def test_every_missing_permission_is_named_at_once():
    some = faults(BMS_FAULT=ACTING, ESTOP_OPEN=ONLY_SEEN)
    assert withheld("own", some, enabled=False, link=UNWATCHED, request={"go": None}) == (
        "operator: not enabled", "cause: bms-fault", "cause: e-stop-open", "link: no voltage known", "inverter: no go",
    )  # fmt: skip


OLD = (NOW_MS - 86_400_000, NOW_MS - 86_399_999, NOW_MS - 86_399_998)


def test_a_closing_goes_on_record_once_and_comes_off_it_when_a_permission_goes():
    before = ((NOW_MS - 9, 40), (NOW_MS - 1, 50))
    sup = replace(ENABLED, state=State.STANDBY, recorded_seq=None, closings_ms=OLD, precharges_ms=before)
    booked = supervisor.permit(sup, seen(), NO_FAULTS, 7)
    assert booked.recorded_seq == 7
    assert booked.closings_ms == (*OLD[1:], NOW_MS)  # a day old is forgotten
    assert booked.precharges_ms == (*before, (NOW_MS, 2_000))
    assert supervisor.permit(booked, seen(now_ms=NOW_MS), NO_FAULTS, 8) is booked
    settled = supervisor.permit(booked, seen(request={"go": False}), NO_FAULTS, 8)
    assert settled == replace(booked, recorded_seq=None, closings_ms=OLD[1:], precharges_ms=before)
    assert supervisor.permit(sup, seen(request={"go": False}), NO_FAULTS, 8) is sup


def test_a_closing_that_began_stays_on_record():
    begun = replace(ENABLED, state=State.CLOSING_NEGATIVE, closings_ms=(NOW_MS,), precharges_ms=((NOW_MS, 2_000),))
    assert supervisor.settled(begun) is begun


def test_closings_are_counted_within_their_window():
    sup = replace(ENABLED, closings_ms=(NOW_MS - 3_600_000, NOW_MS - 3_599_999, NOW_MS))
    assert supervisor.closings_within(sup, supervisor.HOUR_MS, NOW_MS) == 2
    assert supervisor.closings_within(sup, supervisor.DAY_MS, NOW_MS) == 3
    assert supervisor.closings_within(ENABLED, supervisor.DAY_MS, NOW_MS) == 0


# --- one step ---


def stepped(sup: Supervisor, some: Faults = NO_FAULTS, wiring: str = "own", **changes) -> Supervisor:
    after, _ = supervisor.step(sup, seen(wiring, sup.state, **changes), some)
    return after


LOADED = {"pack": {"current_a": -30.0}}
ABOVE = {"pack": {"current_a": -250.0}}


def test_unloading_waits_for_the_shortest_of_its_causes_counted_from_when_each_began_to_act():
    running = replace(ENABLED, state=State.RUNNING, since_ms=0)
    both = Faults({Event.BMS_FAULT: Track(0, None, NOW_MS - 500, True), Event.INVERTER_REVOKED: Track(0, None, NOW_MS)})
    assert stepped(running, both, **LOADED).unload_by_ms == NOW_MS + 900
    assert stepped(running, Faults({Event.BMS_FAULT: Track(0, None, NOW_MS - 500)}), **LOADED).unload_by_ms == (
        NOW_MS - 500 + 1_700
    )
    assert stepped(replace(running, enabled=False), **LOADED).unload_by_ms == NOW_MS + 8_000
    assert stepped(running, faults(WELD_REPORTED=HELD), **LOADED).unload_by_ms == NOW_MS + 1_800


def test_a_held_cause_that_no_longer_acts_asks_for_no_wait_of_its_own():
    sup = replace(ENABLED, state=State.UNLOADING, since_ms=NOW_MS - 100, unload_by_ms=NOW_MS + 5_000)
    assert stepped(sup, faults(BMS_FAULT=HELD), **LOADED).unload_by_ms == NOW_MS + 5_000


def test_a_new_cause_shortens_the_wait_and_never_restarts_it():
    sup = replace(ENABLED, state=State.UNLOADING, since_ms=NOW_MS - 100, unload_by_ms=NOW_MS + 1_000)
    later, sooner = Track(0, None, NOW_MS), Track(0, None, NOW_MS - 1_200)
    assert stepped(sup, Faults({Event.BMS_FAULT: later}), **LOADED).unload_by_ms == NOW_MS + 1_000
    assert stepped(sup, Faults({Event.BMS_FAULT: sooner}), **LOADED).unload_by_ms == NOW_MS + 500
    assert stepped(replace(sup, enabled=False), **LOADED).unload_by_ms == NOW_MS + 1_000
    weld = faults(WELD_REPORTED=HELD)
    assert stepped(replace(sup, unload_by_ms=NOW_MS + 5_000), weld, **LOADED).unload_by_ms == NOW_MS + 1_800


@pytest.mark.parametrize(
    ("state", "some", "changes", "waits"),
    [
        (State.RUNNING, faults(OVERCURRENT=ACTING), {}, True),
        (State.RUNNING, NO_FAULTS, {}, False),
        (State.CLOSING_POSITIVE, NO_FAULTS, {"enabled": False}, True),
        (State.CLOSING_POSITIVE, faults(WELD_REPORTED=HELD), {}, True),
        (State.UNLOADING, NO_FAULTS, {}, True),
        (State.OPENING_POSITIVE, NO_FAULTS, {}, True),
        (State.PRECHARGING, faults(OVERCURRENT=ACTING), {}, False),
    ],
)
def test_the_fuses_time_runs_while_something_wants_to_open_and_must_not(state, some, changes, waits: bool):
    sup = replace(ENABLED, state=state, since_ms=NOW_MS - 10, unload_by_ms=NOW_MS + 100, **changes)
    assert (stepped(sup, some, **ABOVE).fuse_since_ms == NOW_MS) == waits
    began = replace(sup, fuse_since_ms=NOW_MS - 500)
    assert stepped(began, some, **ABOVE).fuse_since_ms == (NOW_MS - 500 if waits else None)
    assert stepped(began, NO_FAULTS if state is not State.PRECHARGING else some, **LOADED).fuse_since_ms is None


@pytest.mark.parametrize(
    ("wiring", "says", "counts"),
    [("pack", PackContactor.OPEN, True), ("pack", PackContactor.OPENING, False), ("pack", None, False),
     ("own", PackContactor.CLOSED, True)],
)  # fmt: skip
def test_the_off_time_counts_from_when_the_pack_is_open(wiring: str, says, counts: bool):
    sup = replace(ENABLED, state=State.FAULT, off_since_ms=5)
    s = {"pack": {"contactor_state": says}, "some": faults(BMS_FAULT=HELD)}
    assert stepped(sup, wiring=wiring, **s).off_since_ms == (5 if counts else NOW_MS)
    running = replace(sup, state=State.RUNNING)
    assert stepped(running, wiring=wiring, pack={"contactor_state": says}).off_since_ms == 5


def test_everything_off_starts_the_off_time_and_forgets_what_belonged_to_the_closing():
    sup = replace(
        ENABLED, state=State.RUNNING, since_ms=3, charge=precharge.Progress(charged=True), recorded_seq=4,
        recovery_until_ms=9, fuse_since_ms=None, found_closed=True, closings_ms=(NOW_MS - 5,), tries=2,
    )  # fmt: skip
    after = stepped(sup, faults(HVIL_OPEN=ACTING))
    assert (after.state, after.since_ms, after.cause) == (State.VERIFYING_OPEN, NOW_MS, "hvil-open")
    assert after.off_since_ms == NOW_MS
    assert after.charge is precharge.NOT_BEGUN
    assert (after.recorded_seq, after.recovery_until_ms, after.fuse_since_ms) == (None, None, None)
    assert not after.found_closed
    assert after.link == LinkWatch(base_v=360.0, base_ms=NOW_MS)
    assert after.closings_ms == (NOW_MS - 5,)
    assert after.tries == 2


def test_going_from_one_live_state_to_another_forgets_nothing_of_the_closing():
    charged = precharge.Progress(charged=True)
    sup = replace(ENABLED, state=State.RUNNING, enabled=False, recorded_seq=4, charge=charged, recovery_until_ms=9)
    after = stepped(replace(sup, off_since_ms=3))
    assert after.state is State.UNLOADING
    assert (after.recorded_seq, after.charge, after.recovery_until_ms, after.off_since_ms) == (4, charged, 9, 3)


def test_going_from_one_resting_state_to_another_restarts_no_off_time():
    sup = replace(ENABLED, state=State.STANDBY, off_since_ms=3, recovery_until_ms=9, recorded_seq=None)
    after = stepped(sup, faults(BMS_FAULT=HELD))
    assert after.state is State.FAULT
    assert (after.off_since_ms, after.recovery_until_ms) == (3, 9)


def test_a_machine_begins_in_starting_with_nothing_asked_and_nothing_remembered():
    first = Supervisor()
    asked = (first.enabled, first.auto_enables, first.exiting, first.locked, first.unlocking, first.found_closed)
    assert (first.state, first.cause, asked) == (State.STARTING, "boot", (False,) * 6)
    assert (first.since_ms, first.off_since_ms, first.stored_seq, first.tries, first.closings_ms) == (0, 0, 0, 0, ())
    assert (first.recorded_seq, first.unload_by_ms, first.fuse_since_ms, first.contactor_seen) == (None,) * 3 + (False,)


BOOKED = ((1, 50), (2, 60), (NOW_MS - 400, 2_000))


@pytest.mark.parametrize(
    ("state", "wiring", "some", "precharges"),
    [
        (State.PRECHARGING, "own", faults(HVIL_OPEN=ACTING), ((1, 50), (2, 60), (NOW_MS - 300, 300))),
        (State.CLOSING_NEGATIVE, "own", faults(HVIL_OPEN=ACTING), BOOKED[:-1]),
        (State.WAKING_PACK, "pack", faults(HVIL_OPEN=ACTING), BOOKED[:-1]),
        (State.RUNNING, "own", faults(HVIL_OPEN=ACTING), BOOKED),
        (State.CLOSING_POSITIVE, "own", faults(HVIL_OPEN=ACTING), BOOKED),
    ],
)
def test_a_precharge_is_booked_for_what_it_took_and_not_at_all_when_it_never_began(state, wiring, some, precharges):
    sup = replace(ENABLED, state=state, since_ms=NOW_MS - 300, precharges_ms=BOOKED)
    assert stepped(sup, some, wiring).precharges_ms == precharges


def test_a_precharge_that_succeeds_is_booked_for_what_it_took():
    charge = precharge.Progress(begun_ms=NOW_MS - 300, charged=True)
    sup = replace(ENABLED, state=State.PRECHARGING, since_ms=NOW_MS - 300, precharges_ms=BOOKED, charge=charge)
    after = stepped(sup)
    assert after.state is State.CLOSING_POSITIVE
    assert after.precharges_ms == ((1, 50), (2, 60), (NOW_MS - 300, 300))
    assert stepped(replace(ENABLED, state=State.CLOSING_NEGATIVE, since_ms=0, precharges_ms=BOOKED)).precharges_ms == (
        BOOKED
    )


def test_a_failed_try_counts_and_a_success_starts_anew():
    failed = replace(ENABLED, state=State.PRECHARGING, since_ms=NOW_MS - 300, tries=1, precharges_ms=BOOKED,
                     charge=precharge.Progress(begun_ms=NOW_MS - 300, failed="no progress at 3 V"))  # fmt: skip
    after = stepped(failed)
    assert (after.state, after.tries, after.cause) == (State.COOLING_DOWN, 2, "precharge-failed: no progress at 3 V")
    closing = replace(ENABLED, state=State.CLOSING_POSITIVE, since_ms=NOW_MS - 500, tries=2)
    assert (stepped(closing).state, stepped(closing).tries, stepped(closing).ran) == (State.RUNNING, 0, True)
    assert not stepped(replace(closing, since_ms=NOW_MS)).ran


def test_a_lock_out_is_kept_and_an_unlock_forgets_it_and_the_enabling():
    locked = stepped(replace(ENABLED, state=State.STANDBY), faults(WELD_CURRENT=HELD))
    assert (locked.state, locked.locked, locked.cause) == (State.LOCKED_OUT, True, "weld-current")
    suspicious = replace(locked, unlocking=True, link=LinkWatch(suspected=True))
    after = stepped(suspicious)
    assert (after.state, after.locked, after.enabled, after.unlocking) == (State.STANDBY, False, False, False)
    assert after.link is UNWATCHED


@pytest.mark.parametrize(
    ("state", "some", "changes", "cause"),
    [
        (State.RUNNING, faults(BMS_FAULT=ACTING), {}, "bms-fault"),
        (State.RUNNING, NO_FAULTS, {"enabled": False}, "operator-stop"),
        (State.RUNNING, NO_FAULTS, {"enabled": False, "exiting": True}, "service-stop"),
        (State.RUNNING, NO_FAULTS, {"exiting": True}, "service-stop"),
        (State.PRECHARGING, NO_FAULTS, {"pack": {"soc_pct": None}}, "signals-missing"),
        (State.STANDBY, NO_FAULTS, {"locked": True}, "weld-suspected"),
        (State.STANDBY, faults(BMS_FAULT=HELD, HVIL_OPEN=HELD), {}, "hvil-open"),
        (State.STANDBY, faults(PACK_DATA_LOST=HELD), {}, "pack-data-lost"),
    ],
)
def test_a_change_of_state_is_named_after_its_cause(state: State, some: Faults, changes: dict, cause: str):
    memory = {name: value for name, value in changes.items() if name in Supervisor.__dataclass_fields__}
    world = {name: value for name, value in changes.items() if name not in memory}
    after = stepped(replace(ENABLED, state=state, since_ms=NOW_MS - 50, recorded_seq=None, **memory), some, **world)
    assert after.state is not state
    assert after.cause == cause


def test_a_row_that_holds_its_state_restarts_no_clock():
    sup = replace(ENABLED, state=State.RUNNING, since_ms=5)
    after, row = supervisor.step(sup, seen(state=State.RUNNING, **ABOVE), faults(OVERCURRENT=ACTING))
    assert row is not None
    assert row.cause == "fuse-clearing"
    assert (after.state, after.since_ms) == (State.RUNNING, 5)


# --- a recording ---


def recorded(contactor: PackContactor | None, amps: float | None = 0.0, since_start_ms: int = 1_500, **memory):
    s = seen("pack", pack={"contactor_state": contactor, "current_a": amps}, started_ms=NOW_MS - since_start_ms)
    sup = replace(ENABLED, **memory)
    return [seen_as for seen_as in (Seen.CLOSED, Seen.CLOSING, Seen.OPEN) if SEEN[seen_as](s, sup, NO_FAULTS)]


def test_a_recorded_pack_is_what_its_contactors_say():
    assert recorded(PackContactor.CLOSED) == [Seen.CLOSED]
    assert recorded(PackContactor.CLOSING) == [Seen.CLOSING]
    for says in (PackContactor.OPEN, PackContactor.OPENING, PackContactor.BLOCKED):
        assert recorded(says, 99.0) == [Seen.OPEN]
    assert recorded(PackContactor.WELDED) == []


def test_a_recording_without_contactor_frames_counts_as_closed_while_current_flows():
    assert recorded(None, 5.1) == recorded(None, -5.1) == [Seen.CLOSED]
    assert recorded(None, 5.0) == recorded(None, None) == []
    assert recorded(None, 99.0, since_start_ms=1_499) == []  # it may still say what it is
    assert recorded(None, 99.0, contactor_seen=True) == []


def test_a_contactor_frame_once_seen_is_remembered_and_a_recording_remembers_nothing_else():
    sup = replace(ENABLED, state=State.STANDBY)
    s = seen("pack", shadow=True, pack={"contactor_state": PackContactor.OPEN, "current_a": 250.0})
    after, row = supervisor.step(sup, s, faults(OVERCURRENT=ACTING))
    assert after == replace(sup, contactor_seen=True)
    assert row is None
    again, _ = supervisor.step(after, s, NO_FAULTS)
    assert again is after


def test_no_record_of_what_decides_can_be_changed():
    modules = (chart, explore, interlocks, envelope, gate, monitor, rules, supervisor)
    records = [kind for module in modules for kind in vars(module).values() if is_dataclass(kind)]
    assert len(records) > 10
    assert [kind for kind in records if not kind.__dataclass_params__.frozen] == []


def test_a_guard_without_a_function_stops_the_program_at_its_start():
    path = Path(supervisor.__file__)
    answer = "    G.COOLED: after(lambda s: s.settings.precharge.cool_down_ms),"
    source = path.read_text(encoding="utf-8")
    assert source.count(answer) == 1
    with pytest.raises(AssertionError, match="guards without a function: COOLED"):
        exec(compile(source.replace(answer, ""), str(path), "exec"), {"__name__": supervisor.__name__})


# --- what is believed of a pack ---


def test_a_feed_is_as_old_as_its_last_whole_value():
    before = {Feed.CELLS: Freshness(NOW_MS - 700, 99), Feed.SOC: Freshness(NOW_MS - 50, 99)}
    pack = seen(pack={"cell_max_v": None, "temp_min_c": None}).pack
    heard = believed(pack, before, SETTINGS).feeds
    assert heard[Feed.CELLS] == Freshness(NOW_MS - 700, pack.feeds[Feed.CELLS].round_ms)
    assert heard[Feed.TEMPERATURES] == Freshness(None, pack.feeds[Feed.TEMPERATURES].round_ms)
    assert heard[Feed.SOC] == pack.feeds[Feed.SOC]


def test_what_is_whole_or_not_required_or_not_there_stays_as_it_is():
    whole = seen().pack
    assert believed(whole, {}, SETTINGS) is whole
    without_hvil = seen(pack={"hvil_ok": None}).pack
    assert believed(without_hvil, {}, SETTINGS) is without_hvil
    fewer = {feed: freshness for feed, freshness in feeds().items() if feed is not Feed.SOC}
    no_soc = seen(pack={"soc_pct": None, "feeds": fewer}).pack
    assert believed(no_soc, {Feed.SOC: Freshness(1, 1)}, SETTINGS) is no_soc


@pytest.mark.parametrize(("wiring", "current_a", "flows"), [
    ("none", 5.0, False), ("none", 5.1, True), ("none", -5.1, True), ("none", None, False), ("own", 30.0, False),
])  # fmt: skip
def test_current_flows_through_what_cannot_be_disconnected(wiring: str, current_a: float | None, flows: bool):
    assert seen(wiring, pack={"current_a": current_a}).flows is flows
