"""When the rows of the chart fire: one function for each Guard, and what must be remembered to answer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import cast

from controller import precharge, weld
from controller.model.battery import PackContactor
from controller.model.events import Event, Severity
from controller.safety.monitor import Faults
from controller.safety.situation import Situation, missing_feeds
from statecharts.chart import Row
from statecharts.runner import Runner
from statecharts.shadow import SHADOW, Seen
from statecharts.supervisor import CARRYING, ENERGISED, LADDER, SUPERVISOR, Contactor, Guard, State

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
WELD_WAIT_MS = 1800
SHADOW_CURRENT_A = 5.0
SHADOW_WAIT_MS = 1_500


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Where the machine is and what it remembers. Stamps are of the loop's clock, None while not running.

    enabled: a person (or auto_enable) wants it closed. auto_enables: it will be, after a clean boot.
    recovery_until_ms: when a recovery charge ends. unload_by_ms: when UNLOADING ends at the latest. recorded_seq: the
    record this closing waits for.
    closings_ms: when each closing of the last day began. tries: failed precharges since the last success. ran: it was
    RUNNING since it was last enabled.
    """

    state: State = State.STARTING
    since_ms: int = 0
    cause: str = "boot"
    enabled: bool = False
    auto_enables: bool = False
    exiting: bool = False
    locked: bool = False
    unlocking: bool = False
    found_closed: bool = False
    recovery_until_ms: int | None = None
    off_since_ms: int = 0
    unload_by_ms: int | None = None
    fuse_since_ms: int | None = None
    recorded_seq: int | None = None
    stored_seq: int = 0
    closings_ms: tuple[int, ...] = ()
    precharges_ms: tuple[tuple[int, int], ...] = ()
    unclean_ms: tuple[int, ...] = ()
    tries: int = 0
    charge: precharge.Progress = precharge.NOT_BEGUN
    link: weld.LinkWatch = weld.UNWATCHED
    contactor_seen: bool = False
    ran: bool = False


Answer = Callable[[Situation, "Supervisor", Faults], bool]


def open_now(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    """An immediate cause acts. A pack that refuses while it is being woken has a row of its own."""
    acting = faults.acting(Severity.OPEN)
    if sup.state is State.WAKING_PACK:
        return any(rule.id is not Event.PACK_REFUSES for rule in acting)
    return bool(acting)


def welded(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return sup.locked or sup.link.suspected or bool(faults.acting(Severity.LOCK_OUT))


def faulted(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return bool(faults.held)


def stop(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    """Asked for, caused, or, in the ladder, a required signal is unknown: nobody closes further with closed eyes."""
    if not sup.enabled or sup.exiting or faults.acting(Severity.GRACEFUL):
        return True
    return sup.state in LADDER and bool(missing_feeds(s.pack, s.settings, s.now_ms))


def suspected(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return bool(faults.suspected)


def pack_refuses(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return any(rule.id is Event.PACK_REFUSES for rule in faults.acting(Severity.OPEN))


def link_loaded(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return faults.active_since_ms(Event.PACK_LINK_LOADED) is not None


def above_break_max(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    """In a healthy tick only; and the emergency stop has cut the coils already, so it waits for no fuse."""
    current_a = s.pack.current_a
    if s.breakdowns or current_a is None or faults.active_since_ms(Event.ESTOP_OPEN) is not None:
        return False
    return abs(current_a) > s.settings.contactors.break_max_a


def pack_found_closed(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return sup.found_closed or s.pack.contactor_state is PackContactor.CLOSED


def self_tested(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    """Config and records were read before the first tick; no relay of ours may be fed back closed."""
    return not any(closed for closed in s.feedback.values())


def signals_seen(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return not missing_feeds(s.pack, s.settings, s.now_ms)


def ready(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    """Every permission, and the record of this very closing is on disk."""
    return sup.recorded_seq is not None and sup.stored_seq >= sup.recorded_seq and not withheld(s, sup, faults)


def pack_closed(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return s.pack.contactor_state is PackContactor.CLOSED


def negative_confirmed(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return s.feedback.get(Contactor.NEGATIVE) is not False


def link_charged(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return sup.charge.charged


def precharge_failed(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return bool(sup.charge.failed)


def positive_confirmed(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return s.feedback.get(Contactor.POSITIVE) is not False


def unloaded(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    """|I| or |I − I₀| below the break current; an unknown current is never unloaded."""
    current_a, net_a, bound_a = s.pack.current_a, s.net_current_a, s.settings.contactors.break_current_a
    if current_a is None or net_a is None:
        return False
    return min(abs(current_a), abs(net_a)) < bound_a


def open_checked(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return sup.link.proven_open


def unlocked(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return sup.unlocking


def wired(member: Contactor) -> Answer:
    return lambda s, sup, faults: member in SUPERVISOR.wirings[s.settings.wiring]


def after(duration_ms: Callable[[Situation], int]) -> Answer:
    """A timer that starts when the state is entered."""
    return lambda s, sup, faults: s.now_ms - sup.since_ms >= duration_ms(s)


def settle_ms(s: Situation) -> int:
    fed_back = s.feedback.get(Contactor.NEGATIVE) is not None
    times = s.settings.contactors
    return times.settle_feedback_ms if fed_back else times.settle_blind_ms


def verify_ms(s: Situation) -> int:
    times = s.settings.contactors
    return times.verify_ms if s.settings.wiring == "own" else times.pack_open_ms + 1000


def unload_overdue(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return sup.unload_by_ms is not None and s.now_ms >= sup.unload_by_ms


def fuse_overdue(s: Situation, sup: Supervisor, faults: Faults) -> bool:
    return sup.fuse_since_ms is not None and s.now_ms - sup.fuse_since_ms >= s.settings.contactors.fuse_ms


G = Guard
GUARDS: Mapping[Guard, Answer] = {
    G.OPEN_NOW: open_now,
    G.WELDED: welded,
    G.FAULTED: faulted,
    G.STOP: stop,
    G.SUSPECTED: suspected,
    G.PACK_REFUSES: pack_refuses,
    G.LINK_LOADED: link_loaded,
    G.PRECHARGE_FAILED: precharge_failed,
    G.ABOVE_BREAK_MAX: above_break_max,
    G.PACK_FOUND_CLOSED: pack_found_closed,
    G.SELF_TESTED: self_tested,
    G.SIGNALS_SEEN: signals_seen,
    G.READY: ready,
    G.PACK_CLOSED: pack_closed,
    G.NEGATIVE_CONFIRMED: negative_confirmed,
    G.LINK_CHARGED: link_charged,
    G.POSITIVE_CONFIRMED: positive_confirmed,
    G.UNLOADED: unloaded,
    G.OPEN_CHECKED: open_checked,
    G.UNLOCKED: unlocked,
    G.WIRED_PACK: wired(Contactor.PACK),
    G.WIRED_NEGATIVE: wired(Contactor.NEGATIVE),
    G.WIRED_POSITIVE: wired(Contactor.POSITIVE),
    G.SIGNALS_OVERDUE: after(lambda s: s.settings.contactors.signals_ms),
    G.WAKING_OVERDUE: after(lambda s: s.settings.contactors.waking_ms),
    G.SETTLED: after(settle_ms),
    G.NEGATIVE_OVERDUE: after(lambda s: s.settings.contactors.confirm_ms),
    G.PRECHARGE_OVERDUE: after(lambda s: s.settings.precharge.overdue_ms),
    G.OVERLAPPED: after(lambda s: s.settings.contactors.overlap_ms),
    G.POSITIVE_OVERDUE: after(lambda s: s.settings.contactors.confirm_ms),
    G.UNLOAD_OVERDUE: unload_overdue,
    G.FUSE_OVERDUE: fuse_overdue,
    G.BROKEN: after(lambda s: s.settings.contactors.break_ms),
    G.VERIFY_OVERDUE: after(verify_ms),
    G.COOLED: after(lambda s: s.settings.precharge.cool_down_ms),
}


def recorded_state(s: Situation, sup: Supervisor) -> PackContactor | None:
    """The recorded pack's contactors; without any contactor frame, a current above 5 A counts as closed."""
    if s.pack.contactor_state is not None or sup.contactor_seen:
        return s.pack.contactor_state
    if s.now_ms - s.started_ms < SHADOW_WAIT_MS or s.pack.current_a is None:
        return None
    return PackContactor.CLOSED if abs(s.pack.current_a) > SHADOW_CURRENT_A else None


SEEN: Mapping[Seen, Answer] = {
    Seen.CLOSED: lambda s, sup, faults: recorded_state(s, sup) is PackContactor.CLOSED,
    Seen.CLOSING: lambda s, sup, faults: recorded_state(s, sup) is PackContactor.CLOSING,
    Seen.OPEN: lambda s, sup, faults: (
        recorded_state(s, sup) in (PackContactor.OPEN, PackContactor.OPENING, PackContactor.BLOCKED)
    ),
    Seen.SIGNALS: signals_seen,
    Seen.SIGNALS_OVERDUE: GUARDS[G.SIGNALS_OVERDUE],
}

for _guards, _answers in ((Guard, GUARDS), (Seen, SEEN)):
    if _missing := [guard.name for guard in _guards if guard not in _answers]:
        raise AssertionError(f"guards without a function: {', '.join(_missing)}")

_SUPERVISOR, _SHADOW = Runner(SUPERVISOR), Runner(SHADOW)


def withheld(s: Situation, sup: Supervisor, faults: Faults) -> tuple[str, ...]:
    """Why STANDBY is kept: every permission that is missing, in words. Empty means that the ladder may start."""
    wiring, times = s.settings.wiring, s.settings.contactors
    reasons: list[str] = []
    if sup.exiting:
        reasons.append("service: stopping")
    elif not sup.enabled:
        reasons.append("operator: not enabled")
    if missing := missing_feeds(s.pack, s.settings, s.now_ms):
        reasons.append("battery: unknown " + ", ".join(feed.value for feed in missing))
    reasons.extend(f"battery: {why}" for why in _contactors_not_open(s))
    blocking = faults.acting(Severity.NO_CLOSING, Severity.GRACEFUL, Severity.OPEN, Severity.LOCK_OUT)
    reasons.extend(f"cause: {rule.id.value}" for rule in (*blocking, *faults.suspected))
    if wiring == "own" and not s.settings.precharge.unverified_reason and not sup.link.may_close:
        reasons.append(f"link: {sup.link.why or 'no voltage known'}")
    if wiring == "own" and s.offset_a is None:
        reasons.append("battery: current offset not measured yet")
    if wiring == "own" and (wait_ms := precharge.budget_wait_ms(s, settled(sup).precharges_ms)):
        reasons.append(f"precharge: resistor rests {wait_ms // 1000 + 1} s")
    if s.inverter_asks and s.request.go is not True:
        reasons.append(INVERTER_GO)
    if s.now_ms - sup.off_since_ms < times.minimum_off_ms:
        reasons.append("contactors: minimum off time")
    return tuple(reasons)


def settled(sup: Supervisor) -> Supervisor:
    """Without the closing that is put on record and not begun yet."""
    if sup.recorded_seq is None or sup.state is not State.STANDBY:
        return sup
    return replace(sup, recorded_seq=None, closings_ms=sup.closings_ms[:-1], precharges_ms=sup.precharges_ms[:-1])


def permit(sup: Supervisor, s: Situation, faults: Faults, seq: int) -> Supervisor:
    """Once every permission is present, this closing and its precharge go on record as `seq`, booked in full.

    The ladder waits until that is stored; when a permission goes meanwhile, it is taken off again.
    """
    permitted = not withheld(s, sup, faults)
    if not permitted:
        return settled(sup)
    if sup.recorded_seq is not None:
        return sup
    return replace(
        sup,
        recorded_seq=seq,
        closings_ms=(*of_last_day(sup.closings_ms, s.now_ms), s.now_ms),
        precharges_ms=precharge.booked(sup.precharges_ms, s),
    )


INVERTER_GO = "inverter: no go"


def _contactors_not_open(s: Situation) -> tuple[str, ...]:
    """Nothing is closed onto what is not known to be open."""
    stuck = tuple(f"{c.value} fed back closed" for c in Contactor if s.feedback.get(c))
    if s.settings.wiring.startswith("pack") and s.pack.contactor_state not in (None, PackContactor.OPEN):
        return (*stuck, f"contactors {s.pack.contactor_state.value}")
    return stuck


def step(sup: Supervisor, s: Situation, faults: Faults) -> tuple[Supervisor, Row | None]:
    """One tick: remember what this tick showed, ask the chart, enter the state it names. Returns the row that fired."""
    sup = _remember(sup, s, faults)
    reads: Callable[[Enum], bool]
    if s.shadow:
        reads = lambda guard: SEEN[guard](s, sup, faults)  # type: ignore[index]  # noqa: E731
        row = _SHADOW.fire(sup.state, reads)
    else:
        reads = lambda guard: GUARDS[guard](s, sup, faults)  # type: ignore[index]  # noqa: E731
        row = _SUPERVISOR.fire(sup.state, reads)
    if row is None or row.target is row.source:
        return sup, row
    return _enter(sup, s, row, faults), row


def _remember(sup: Supervisor, s: Situation, faults: Faults) -> Supervisor:
    """What a tick adds to memory before the chart is asked."""
    changes: dict[str, object] = {}
    if not sup.contactor_seen and s.pack.contactor_state is not None:
        changes["contactor_seen"] = True
    if s.shadow:
        return replace(sup, **changes) if changes else sup  # type: ignore[arg-type]
    above = sup.state in CARRYING and above_break_max(s, sup, faults)
    leaving = sup.state in (State.UNLOADING, State.OPENING_POSITIVE)
    wants_open = above and (leaving or open_now(s, sup, faults) or stop(s, sup, faults) or welded(s, sup, faults))
    if wants_open != (sup.fuse_since_ms is not None):
        changes["fuse_since_ms"] = s.now_ms if wants_open else None
    if sup.state is State.UNLOADING:
        by_ms = _unload_by(sup, s, faults)
        if by_ms != sup.unload_by_ms:
            changes["unload_by_ms"] = by_ms
    if sup.state not in ENERGISED and _pack_not_open(s):
        changes["off_since_ms"] = s.now_ms
    charge = precharge.step(sup.charge, s, sup.state)
    if charge is not sup.charge:
        changes["charge"] = charge
    link = weld.step(sup.link, s, sup.state, sup.since_ms)
    if link is not sup.link:
        changes["link"] = link
    return replace(sup, **changes) if changes else sup  # type: ignore[arg-type]


def _pack_not_open(s: Situation) -> bool:
    return s.settings.wiring.startswith("pack") and s.pack.contactor_state is not PackContactor.OPEN


def _unload_by(sup: Supervisor, s: Situation, faults: Faults) -> int:
    """When UNLOADING ends at the latest: a new cause can shorten the wait, never restart it."""
    waits = [
        since_ms + rule.wait_ms
        for rule in faults.acting(Severity.GRACEFUL)
        if (since_ms := faults.active_since_ms(rule.id)) is not None
    ]
    if welded(s, sup, faults):
        waits.append(s.now_ms + WELD_WAIT_MS)
    if sup.unload_by_ms is not None:
        return min([sup.unload_by_ms, *waits])
    return min(waits) if waits else s.now_ms + s.inverter_follow_ms


def _enter(sup: Supervisor, s: Situation, row: Row, faults: Faults) -> Supervisor:
    """The target state with its clocks started."""
    target = cast(State, row.target)
    was_live, is_live, began_ms = sup.state in ENERGISED, target in ENERGISED, sup.since_ms
    sup = replace(sup, state=target, since_ms=s.now_ms, cause=_cause(row, sup, s, faults), unlocking=False)
    if was_live and not is_live:
        sup = replace(sup, off_since_ms=s.now_ms, charge=precharge.NOT_BEGUN, fuse_since_ms=None, recorded_seq=None)
        sup = replace(sup, recovery_until_ms=None)
    if target is State.UNLOADING:
        sup = replace(sup, unload_by_ms=None)
        sup = replace(sup, unload_by_ms=_unload_by(sup, s, faults))
    if row.source is State.PRECHARGING:
        sup = replace(sup, precharges_ms=precharge.spent(sup.precharges_ms, began_ms, s.now_ms))
    elif was_live and not is_live and row.source in (State.WAKING_PACK, State.CLOSING_NEGATIVE):
        sup = replace(sup, precharges_ms=sup.precharges_ms[:-1])
    if target is State.COOLING_DOWN:
        sup = replace(sup, tries=sup.tries + 1)
    if target is State.RUNNING:
        sup = replace(sup, tries=0, ran=True)
    if target is State.VERIFYING_OPEN:
        link = replace(weld.opened(s), suspected=sup.link.suspected, why=sup.link.why)
        sup = replace(sup, found_closed=False, link=link)
    if target is State.LOCKED_OUT:
        sup = replace(sup, locked=True)
    if row.cause == "unlocked":
        sup = replace(sup, locked=False, enabled=False, found_closed=False, link=weld.UNWATCHED)
    return sup


def of_last_day(stamps: tuple[int, ...], now_ms: int) -> tuple[int, ...]:
    return tuple(at for at in stamps if now_ms - at < DAY_MS)


def closings_within(sup: Supervisor, window_ms: int, now_ms: int) -> int:
    """How many closings began in the last `window_ms`."""
    return sum(1 for at in sup.closings_ms if now_ms - at < window_ms) if sup.closings_ms else 0


def _cause(row: Row, sup: Supervisor, s: Situation, faults: Faults) -> str:
    """The id of what made the row fire where a cause did, else the row's own word."""
    asked = {
        "open-now": (Severity.OPEN,),
        "stop": (Severity.GRACEFUL,),
        "weld-suspected": (Severity.LOCK_OUT,),
        "fault-held": (Severity.OPEN, Severity.GRACEFUL, Severity.LOCK_OUT),
    }.get(row.cause)
    if asked is None:
        return f"{row.cause}: {sup.charge.failed}" if row.cause == "precharge-failed" else row.cause
    if rules := faults.acting(*asked):
        return rules[0].id.value
    if row.cause == "stop":
        if sup.enabled and not sup.exiting:
            return "signals-missing"
        return Event.SERVICE_STOP.value if sup.exiting else Event.OPERATOR_STOP.value
    return row.cause
