"""Exhaustive sweeps of the pure parts: on what is unknown nothing rises, nothing is charged, nothing is offered."""

from dataclasses import replace
from itertools import combinations, product

import pytest

from controller import precharge, supervisor
from controller.model.battery import BatterySnapshot, Feed, PackContactor
from controller.model.events import Event, Severity
from controller.model.inverter import InverterRequest
from controller.model.reading import Freshness
from controller.model.settings import CHEMISTRIES, PackSettings, PrechargeSettings, Settings
from controller.safety import envelope
from controller.safety.monitor import NO_FAULTS, Faults, Track
from controller.safety.rules import RULES, Rule
from controller.safety.situation import Situation
from controller.supervisor import GUARDS, Supervisor
from controller.weld import LinkWatch
from statecharts.supervisor import SUPERVISOR, WIRINGS, Contactor, Guard, State, energised
from tests.bench import HEALTHY, ROUNDS_MS, needs

NOW_MS = 1_000_000
FRESH = {feed: Freshness(NOW_MS, ROUNDS_MS[feed]) for feed in Feed}
PACK = HEALTHY._replace(feeds=FRESH)
OWN = PackSettings(CHEMISTRIES["nca"], 96, 50.0, 60.0)
PRECHARGE = PrechargeSettings(resistance_ohm=100.0, capacitance_f=0.001)
BLOCKING = [rule for rule in RULES if rule.severity in (Severity.NO_CLOSING, Severity.GRACEFUL, Severity.OPEN,
                                                        Severity.LOCK_OUT)]  # fmt: skip
CHARGED = precharge.Progress(begun_ms=NOW_MS - 900, good=8, good_since_ms=NOW_MS - 200, charged=True)
PASSES = {
    "none": (State.STANDBY,),
    "pack": (State.STANDBY, State.WAKING_PACK),
    "pack+inverter": (State.STANDBY, State.WAKING_PACK, State.CLOSING_POSITIVE),
    "own": (State.STANDBY, State.CLOSING_NEGATIVE, State.PRECHARGING, State.CLOSING_POSITIVE),
}
"""The states each wiring passes on its way up."""


def situation(wiring: str, state: State, pack: BatterySnapshot = PACK, **changes: object) -> Situation:
    """Everything is known, permitted and as long ago as it takes."""
    says = PackContactor.OPEN if state is State.STANDBY else PackContactor.CLOSED
    if wiring.startswith("pack") and pack is PACK:
        pack = pack._replace(contactor_state=says)
    closed = energised(state, wiring)
    return Situation(
        now_ms=NOW_MS, pack=pack, request=InverterRequest(go=True, heard_at_ms=NOW_MS), state=state,
        settings=Settings("said", "said", wiring, OWN, 15_000.0, PRECHARGE),
        closed=closed, feedback={c: c in closed for c in Contactor if c in WIRINGS["own"] & WIRINGS[wiring]},
        estop_ok=True, interlock_ok=True, link_voltage_v=0.0 if state is State.STANDBY else 359.0, link_at_ms=NOW_MS,
        breakdowns=frozenset(), offset_a=0.0, charge_limit_w=0.0, discharge_limit_w=0.0, corrupt=0, soc_jumped=False,
        weld_measured=False, tries=0, closings_hour=0, closings_day=0, feedback_lost=False,
        unclean=False, unclean_day=0, started_ms=0, inverter_zero_ms=20_000, inverter_silent_ms=60_000,
        inverter_follow_ms=8_000, inverter_asks=True, recovering=False, shadow=False, since_ms=0,
    )._replace(**changes)  # fmt: skip


def memory(state: State, **changes: object) -> Supervisor:
    """A supervisor that only waits for this tick to go on."""
    good = CHARGED if state is State.PRECHARGING else precharge.NOT_BEGUN
    return replace(
        Supervisor(
            state=state, since_ms=NOW_MS - 600, enabled=True, recorded_seq=3, stored_seq=3, off_since_ms=0,
            closings_ms=(NOW_MS - 700,), precharges_ms=((NOW_MS - 700, 2000),), charge=good,
            link=LinkWatch(may_close=True, base_v=0.0) if state is State.STANDBY else LinkWatch(),
        ),
        **changes,
    )  # fmt: skip


def rising(sup: Supervisor, s: Situation, faults: Faults = NO_FAULTS) -> frozenset[Contactor] | str:
    """What this tick would energise; where nothing is switched, whether its use would begin."""
    after, _ = supervisor.step(sup, s, faults)
    wiring = s.settings.wiring
    if wiring == "none" and after.state is State.RUNNING and sup.state is not State.RUNNING:
        return "use begins"
    return energised(after.state, wiring) - energised(sup.state, wiring)


def edges(wiring: str) -> list[State]:
    """The states something rises from when all is well: the sweep's own proof that it can fail."""
    return [state for state in PASSES[wiring] if rising(memory(state), situation(wiring, state))]


def test_with_everything_known_and_permitted_every_edge_of_every_wiring_rises():
    assert {wiring: edges(wiring) for wiring in sorted(WIRINGS)} == {
        "none": [State.STANDBY],
        "own": [State.STANDBY, State.CLOSING_NEGATIVE, State.PRECHARGING],
        "pack": [State.STANDBY],
        "pack+inverter": [State.STANDBY, State.WAKING_PACK],
    }


def unknowns(wiring: str) -> list[BatterySnapshot]:
    """The pack with every choice of required feeds unknown: their values, their stamps, or both."""
    packs = []
    feeds = needs(wiring)
    for n in range(1, len(feeds) + 1):
        for lost in combinations(feeds, n):
            names = [name for feed in lost for name in feed.signals]
            stale = FRESH | {feed: Freshness(NOW_MS - 60_000, ROUNDS_MS[feed]) for feed in lost}
            never = FRESH | {feed: Freshness(None, ROUNDS_MS[feed]) for feed in lost}
            packs += [PACK._replace(**dict.fromkeys(names)), PACK._replace(feeds=stale), PACK._replace(feeds=never)]
            packs += [PACK._replace(**{name: None}) for name in names] if n == 1 else []
    return packs


@pytest.mark.parametrize("wiring", sorted(WIRINGS))
def test_no_supervisor_in_any_state_energises_anything_on_a_required_signal_that_is_unknown(wiring: str):
    for state, pack in product(State, unknowns(wiring)):
        for says in (PackContactor.OPEN, PackContactor.CLOSED, None):
            said = pack if pack.contactor_state is None else pack._replace(contactor_state=says)
            s = situation(wiring, state, said)
            if says is None and not wiring.startswith("pack"):
                continue
            assert not rising(memory(state), s), (state, said)


@pytest.mark.parametrize("wiring", sorted(WIRINGS))
def test_nothing_rises_in_any_state_over_a_grid_of_the_unknown_the_bad_and_the_good(wiring: str):
    """2 to 4 answers for each input; something rises only where every one that counts is the good one."""
    says_all = (PackContactor.OPEN, PackContactor.CLOSED, PackContactor.BLOCKED, None)
    grid = {
        "link": (0.0, 359.0, 180.0, None) if wiring == "own" else (None,),
        "volts": (360.0, None), "amps": (0.0, -30.0, None), "offset": (0.0, None), "go": (True, False, None),
        "says": says_all if wiring.startswith("pack") else (None,), "fed": ("as wanted", True, None),
    }  # fmt: skip
    seen = 0
    for state, link_v, volts, amps, offset_a, go, says, fed in product(State, *grid.values()):
        closed = energised(state, wiring)
        members = [c for c in Contactor if c in WIRINGS["own"] & WIRINGS[wiring]]
        feedback = {c: c in closed if fed == "as wanted" else fed for c in members}
        pack = PACK._replace(pack_voltage_v=volts, current_a=amps, contactor_state=says)
        request = InverterRequest(go=go, heard_at_ms=NOW_MS)
        link_ms = NOW_MS if link_v is not None else None
        s = situation(wiring, state, pack, link_voltage_v=link_v, offset_a=offset_a, request=request,
                      feedback=feedback, link_at_ms=link_ms)  # fmt: skip
        began = precharge.Progress(begun_ms=NOW_MS - 900, good=8, good_since_ms=NOW_MS - 200, mark_ms=NOW_MS - 10)
        if not rising(memory(state, charge=began), s):
            continue
        seen += 1
        assert None not in (volts, amps), s
        assert says is not None or not wiring.startswith("pack"), s
        if state is State.STANDBY:
            assert go is True, s
            assert True not in feedback.values(), s
            assert says is PackContactor.OPEN or not wiring.startswith("pack"), s
            assert wiring != "own" or (link_v == 0.0 and offset_a is not None), s
        if state is State.PRECHARGING:
            assert (link_v, offset_a, amps) == (359.0, 0.0, 0.0), s
        if state is State.WAKING_PACK:
            assert says is PackContactor.CLOSED, s
    assert seen


def reachable(rule: Rule, track: Track, state: State) -> bool:
    """What only withholds closing is judged while open and never held; waking ends in the tick a pack refuses."""
    if rule.severity is Severity.NO_CLOSING:
        return not track.held and (state is State.STANDBY or track.active_since_ms is None)
    return rule.id is not Event.PACK_REFUSES or state is not State.WAKING_PACK or track.bad_since_ms is not None


@pytest.mark.parametrize("wiring", sorted(WIRINGS))
def test_every_blocking_cause_acting_held_or_only_seen_keeps_every_edge_down(wiring: str):
    for state, rule in product(edges(wiring), BLOCKING):
        for track in (
            Track(NOW_MS - 50, None, None, True),
            Track(NOW_MS - 5000, None, NOW_MS - 5, True, True),
            Track(None, NOW_MS - 5, None, False, True),
        ):
            faults = Faults({rule.id: track})
            s = situation(wiring, state)
            if not reachable(rule, track, state):
                continue
            assert not rising(memory(state), s, faults), (state, rule.id, track)


@pytest.mark.parametrize("state", list(State))
def test_no_guard_that_goes_on_is_true_when_nothing_at_all_is_known(state: State):
    going_on = {
        Guard.SIGNALS_SEEN, Guard.READY, Guard.PACK_CLOSED, Guard.LINK_CHARGED, Guard.UNLOADED, Guard.OPEN_CHECKED,
        Guard.UNLOCKED, Guard.ABOVE_BREAK_MAX,
    }  # fmt: skip
    for wiring in WIRINGS:
        s = situation(wiring, state, BatterySnapshot(), request=InverterRequest(), feedback={}, estop_ok=None,
                      interlock_ok=None, link_voltage_v=None, link_at_ms=None, offset_a=None)  # fmt: skip
        sup = memory(state, charge=precharge.NOT_BEGUN, link=LinkWatch())
        assert not {guard for guard in going_on if GUARDS[guard](s, sup, NO_FAULTS)}


def test_a_precharge_is_charged_only_where_every_value_it_needs_is_known_fresh_and_near():
    values = {
        "link": (None, 0.0, 180.0, 340.0, 352.0, 353.0, 360.0), "volts": (None, 0.0, 360.0), "amps": (None, 0.0, -1.5),
        "offset": (None, 0.0, 4.3), "at": (None, NOW_MS - 900, NOW_MS - 10, NOW_MS), "good": (0, 3, 4, 8),
        "since": (NOW_MS - 200, NOW_MS - 40),
    }  # fmt: skip
    charged = 0
    for link_v, volts, amps, offset_a, at_ms, good, since_ms in product(*values.values()):
        pack = PACK._replace(pack_voltage_v=volts, current_a=amps)
        s = situation("own", State.PRECHARGING, pack, link_voltage_v=link_v, link_at_ms=at_ms, offset_a=offset_a)
        progress = precharge.Progress(
            begun_ms=NOW_MS - 900, sample_at_ms=NOW_MS - 10, good=good, good_since_ms=since_ms, mark_ms=NOW_MS
        )  # fmt: skip
        if not precharge.step(progress, s, State.PRECHARGING).charged:
            continue
        charged += 1
        assert (volts, amps, offset_a, at_ms) == (360.0, 0.0, 0.0, NOW_MS)
        assert link_v in (353.0, 360.0)
        assert good + 1 >= 5
        assert since_ms == NOW_MS - 200
    assert charged == 2 * 2


# --- the envelope ---

LIMIT_SETTINGS = Settings("said", "said", "own", OWN, 15_000.0)
HIGH = envelope.Limits(
    15_000.0, 15_000.0, "", "", envelope.Deratings(envelope.Source("", 1.0), envelope.Source("", 1.0)), 0
)
VALUES = {
    "pack_voltage_v": (None, 280.0, 360.0, 399.0), "current_a": (None, 0.0), "soc_pct": (None, 0.0, 50.0, 100.0),
    "cell_min_v": (None, 3.0, 3.2, 3.7), "cell_max_v": (None, 3.7, 4.1, 4.2), "temp_min_c": (None, -15.0, 1.0, 20.0),
    "temp_max_c": (None, 20.0, 47.0, 60.0), "max_charge_w": (None, -1.0, 700.0, 50_000.0),
}  # fmt: skip


def offered(pack: BatterySnapshot, faults: Faults = NO_FAULTS, before: envelope.Limits = HIGH) -> tuple[float, float]:
    after = envelope.limits(before, pack, LIMIT_SETTINGS, faults, "", 30_000.0, envelope.NO_CAP, 10)
    return after.charge_w, after.discharge_w


def test_no_unknown_value_is_ever_offered_as_a_limit_and_no_source_is_exceeded():
    for values in product(*VALUES.values()):
        pack = PACK._replace(**dict(zip(VALUES, values, strict=True)))
        charge_w, discharge_w = offered(pack)
        common = None in (pack.pack_voltage_v, pack.current_a, pack.soc_pct, pack.temp_min_c, pack.temp_max_c)
        if common or pack.cell_max_v is None or pack.max_charge_w is None:
            assert charge_w == 0.0, pack
        else:
            assert 0.0 <= charge_w <= min(15_000.0, 50.0 * pack.pack_voltage_v, max(0.0, pack.max_charge_w)), pack
        if common or pack.cell_min_v is None:
            assert discharge_w == 0.0, pack
        if charge_w > 0.0:
            assert (pack.soc_pct, pack.temp_min_c) not in ((100.0, 1.0), (100.0, 20.0))
            assert pack.cell_max_v < 4.15
            assert pack.temp_min_c > 0.0
            assert pack.temp_max_c < 55.0
        if discharge_w > 0.0:
            assert pack.soc_pct > 5.0
            assert pack.cell_min_v > 3.1


def test_no_pair_of_causes_offers_more_than_either_of_them_or_than_none():
    tracks = {rule.id: Track(0, None, 0, True, held) for rule in RULES for held in (False, True)}
    alone = {event: offered(PACK, Faults({event: track})) for event, track in tracks.items()}
    none = offered(PACK)
    for first, second in product(tracks, repeat=2):
        both = offered(PACK, Faults({first: tracks[first], second: tracks[second]}))
        for fewer in (alone[first], alone[second], none):
            assert both[0] <= fewer[0], (first, second)
            assert both[1] <= fewer[1], (first, second)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id.value)
def test_every_cause_that_opens_zeroes_both_directions_also_while_it_is_only_held(rule):
    opens = rule.severity in (Severity.GRACEFUL, Severity.OPEN, Severity.LOCK_OUT)
    for track in (Track(0, None, 0, True), Track(None, 0, None, False, True)):
        limits = offered(PACK, Faults({rule.id: track}))
        assert limits == (0.0, 0.0) or not opens
        if rule.severity in (Severity.WARNING, Severity.NO_CLOSING) and rule.id is not Event.SOC_JUMP:
            assert limits == offered(PACK)


# --- the chart ---


def test_every_state_energises_exactly_what_the_concept_says():
    """Section 1's table once more, by hand, so that a changed entry is seen by something that is not the chart."""
    pack, negative, charging, positive = "PACK", "NEGATIVE", "PRECHARGE", "POSITIVE"
    wants = {
        State.WAKING_PACK: {pack}, State.CLOSING_NEGATIVE: {pack, negative},
        State.PRECHARGING: {pack, negative, charging}, State.CLOSING_POSITIVE: {pack, negative, charging, positive},
        State.RUNNING: {pack, negative, positive}, State.UNLOADING: {pack, negative, positive},
        State.OPENING_POSITIVE: {pack, negative},
    }  # fmt: skip
    assert {state: {c.name for c in SUPERVISOR.closed[state]} for state in State} == {
        state: wants.get(state, set()) for state in State
    }
