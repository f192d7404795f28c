"""What must never happen (safety concept, section 5): one observer for each invariant, over a trace of ticks.

They judge by their own means, from what went in and what came out, and trust no verdict of the supervisor. Each counts
the moments in which it had something to judge: an invariant nobody exercised has shown nothing. I14, L1 and L3 are
about whole lives and are judged in sim/lives.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import ClassVar, NamedTuple

from controller.core import CoreState
from controller.model.battery import BatterySnapshot, Feed, PackContactor
from controller.model.events import Event, Notice, Severity
from controller.model.inverter import InverterRequest, InverterStatus, InverterView
from controller.model.settings import RECOVERY_A, Settings
from controller.ports import Command, CommandKind, Inputs, Outputs, Record
from controller.safety.envelope import Cap, Limits, over
from controller.safety.monitor import RULE_OF, Faults
from controller.safety.situation import missing_feeds
from controller.supervisor import INVERTER_GO
from statecharts.supervisor import CARRYING, ENERGISED, LADDER, Contactor, State

OWN = (Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE)
NEGATIVE, PRECHARGE, POSITIVE, PACK = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE, Contactor.PACK
HOUR_MS, DAY_MS, WINDOW_MS, TICK_MS = 3_600_000, 86_400_000, 600_000, 10
SHORTEST_WAIT_MS = 800
BLOCKING = (Severity.NO_CLOSING, Severity.GRACEFUL, Severity.OPEN, Severity.LOCK_OUT)
OFF: frozenset[Contactor] = frozenset()


class Moment(NamedTuple):
    """One tick: what went in, what came out, and what the core said of it. None is unknown.

    estop_ok, interlock_ok: None is "not wired" until they were known once. closed: what went out. stored: the record
    that is on the disk after this tick. asks, profile_w, follow_ms: the inverter's profile. broken: the tick ended in
    an exception, so the core decided nothing and everything must be off. since_ms: since when the state before this
    tick was there. fed_once: the relays that were fed back once.
    weld_shown: a weld check was contradicted, and nobody has unlocked since. ran: it was RUNNING since enabled.
    booted_from: the record that was on the disk when the program started.
    """

    now_ms: int
    started_ms: int
    settings: Settings
    asks: bool
    profile_w: float
    follow_ms: int
    silent_ms: int
    estop_ok: bool | None
    interlock_ok: bool | None
    feedback: Mapping[Contactor, bool | None]
    link_v: float | None
    link_at_ms: int | None
    commands: tuple[Command, ...]
    breakdowns: tuple[Event, ...]
    pack: BatterySnapshot
    request: InverterRequest
    offset_a: float | None
    state: State
    closed: frozenset[Contactor]
    faults: Faults
    withheld: tuple[str, ...]
    recovering: bool
    cap: Cap
    limits: Limits
    view: InverterView
    record: Record | None
    stored: Record | None
    refusal: str
    heartbeat: bool
    told: tuple[Notice, ...]
    broken: bool = False
    since_ms: int = 0
    fed_once: frozenset[Contactor] = OFF
    weld_shown: bool = False
    ran: bool = False
    booted_from: Record | None = None

    @property
    def waits_for_go(self) -> bool:
        """Only the inverter's go is missing; where nothing can be disconnected, not once it ran."""
        only_go = self.state is State.STANDBY and self.withheld == (INVERTER_GO,)
        return only_go and not (self.ran and self.settings.wiring == "none")

    @property
    def live(self) -> bool:
        """Something is energised, or, where nothing is switched, the pack is in use."""
        return bool(self.closed) or (
            self.settings.wiring == "none" and self.state in (State.RUNNING, State.UNLOADING)
        )  # fmt: skip

    @property
    def net_a(self) -> float | None:
        """The current less its offset, where that is known."""
        current_a = self.pack.current_a
        return None if current_a is None else current_a - (self.offset_a or 0.0)

    @property
    def held(self) -> frozenset[Event]:
        return frozenset(rule.id for rule in self.faults.held)

    def asked(self, kind: CommandKind, name: str = "") -> bool:
        """A person asked for this in this tick."""
        return any(command.kind is kind and command.name == name for command in self.commands)


def moment(
    core: CoreState, inputs: Inputs, outputs: Outputs, view: InverterView, stored: Record | None, now_ms: int,
    booted_from: Record | None,
) -> Moment:  # fmt: skip
    """The record of a tick, from the core as the tick left it."""
    setup, pack, request = core.setup, core.pack, core.request
    link_v, link_at_ms = inputs.link_voltage_v, inputs.link_at_ms
    if link_v is None:
        link_v, link_at_ms = pack.link_voltage_v, pack.link_at_ms
    if link_v is None:
        link_v, link_at_ms = request.link_voltage_v, request.link_at_ms
    return Moment(
        now_ms, core.started_ms, setup.settings, setup.inverter.asks, setup.inverter.max_w, setup.inverter.follow_ms,
        setup.inverter.silent_ms, inputs.estop_ok, inputs.interlock_ok, inputs.feedback, link_v, link_at_ms,
        tuple(inputs.commands), tuple(inputs.breakdowns), pack, request, core.watch.offset_a, core.supervisor.state,
        outputs.closed, core.faults, core.withheld, core.supervisor.recovery_until_ms is not None, core.cap,
        core.limits, view, core.record, stored, core.gate.refusal, outputs.heartbeat, outputs.events,
        ran=core.supervisor.ran, booted_from=booted_from,
    )  # fmt: skip


# --- what is known to be bad, worked out again ---


class Cause(NamedTuple):
    """A stop cause: bad(now, before) for `hold_ms` acts, and everything is off `budget_ms` after the first bad tick."""

    id: Event
    hold_ms: int
    budget_ms: int
    bad: Callable[[Moment, Moment], bool]


def _at_least(value: float | None, bound: float) -> bool:
    return value is not None and value >= bound


def _at_most(value: float | None, bound: float) -> bool:
    return value is not None and value <= bound


def _stale(feed: Feed, at_least_ms: int, rounds: int = 5) -> Callable[[Moment, Moment], bool]:
    """Seen once, and not valid for this long."""

    def bad(now: Moment, before: Moment) -> bool:
        freshness = now.pack.feeds.get(feed)
        if freshness is None or freshness.valid_at_ms is None:
            return False
        return now.now_ms - freshness.valid_at_ms > max(at_least_ms, rounds * freshness.round_ms)

    return bad


def _too_much_current(now: Moment, before: Moment) -> bool:
    current_a, pack = now.pack.current_a, now.settings.pack
    if current_a is None:
        return False
    return current_a > 1.2 * pack.max_charge_a or -current_a > 1.2 * pack.max_discharge_a


def _voltage_beyond(now: Moment, before: Moment) -> bool:
    volts, pack = now.pack.pack_voltage_v, now.settings.pack
    too_low = volts is not None and volts < 0.98 * pack.design_min_v and not (now.recovering or before.recovering)
    return too_low or (volts is not None and volts > 1.02 * pack.design_max_v)


def _cell_too_low(now: Moment, before: Moment) -> bool:
    masked = now.recovering or before.recovering
    return not masked and _at_most(now.pack.cell_min_v, now.settings.pack.chemistry.critical_low_v)


def _limit_ignored(now: Moment, before: Moment) -> bool:
    cell, net_a = now.settings.pack.chemistry, now.net_a
    if net_a is None:
        return False
    charged_on = net_a > 2.0 and _at_least(now.pack.cell_max_v, cell.charge_stop_v)
    return charged_on or (net_a < -2.0 and _at_most(now.pack.cell_min_v, cell.discharge_stop_v))


def _cells_contradict(now: Moment, before: Moment) -> bool:
    volts, low_v, high_v, n = now.pack.pack_voltage_v, now.pack.cell_min_v, now.pack.cell_max_v, now.settings.pack.cells
    if volts is None or low_v is None or high_v is None:
        return False
    slack_v = max(3.0, 0.01 * volts)
    return volts < n * low_v - slack_v or volts > n * high_v + slack_v


def _revoked(now: Moment, before: Moment) -> bool:
    if not now.asks or before.state not in ENERGISED:
        return False
    return now.request.go is False or (before.state in LADDER and now.request.go is None)


def _silent(now: Moment, before: Moment) -> bool:
    heard_ms = now.started_ms if now.request.heard_at_ms is None else now.request.heard_at_ms
    return not now.settings.off_grid and now.now_ms - heard_ms > now.silent_ms


def _contradicted(now: Moment, before: Moment) -> bool:
    fed_back = {member: closed for member, closed in now.feedback.items() if closed is not None}
    return any(closed is not (member in before.closed) for member, closed in fed_back.items())


def _left_closed(now: Moment, before: Moment) -> bool:
    says = now.pack.contactor_state
    waking = PACK not in before.closed or before.state is State.WAKING_PACK
    return not waking and says not in (None, PackContactor.CLOSED)


def _supply_low(now: Moment, before: Moment) -> bool:
    lv_v = now.pack.lv_supply_v
    return before.state in ENERGISED and lv_v is not None and lv_v < now.settings.pack.lv_min_closed_v


def _link_contradicts(now: Moment, before: Moment) -> bool:
    pack_v, at_ms = now.pack.pack_voltage_v, now.link_at_ms
    if before.state is not State.RUNNING or now.settings.wiring != "own" or pack_v is None or now.link_v is None:
        return False
    return at_ms is not None and now.now_ms - at_ms <= 1000 and abs(pack_v - now.link_v) > max(10.0, 0.05 * pack_v)


def _feedback_gone(now: Moment, before: Moment) -> bool:
    return any(now.feedback.get(member) is None for member in now.fed_once)


def _ignores(now: Moment, before: Moment) -> bool:
    volts, net_a = now.pack.pack_voltage_v, now.net_a
    if volts is None or net_a is None or (before.state is not State.RUNNING and now.settings.wiring != "none"):
        return False
    limit_w = before.limits.charge_w if net_a > 0 else before.limits.discharge_w
    return abs(volts * net_a) > limit_w + max(1000.0, 0.1 * limit_w)


def _inverter_contradicts(now: Moment, before: Moment) -> bool:
    ours, its, at_ms = now.pack.pack_voltage_v, now.request.battery_voltage_v, now.request.link_at_ms
    if at_ms is not None and at_ms <= now.since_ms:  # measured before they closed
        return False
    return before.state is State.RUNNING and ours is not None and its is not None and abs(ours - its) > 10.0


def _all_off(now: Moment, before: Moment) -> bool:
    return not (before.live or before.closed) and before.state is not State.STARTING and now.settings.wiring != "none"


def _flows_while_open(now: Moment, before: Moment) -> bool:
    says, a, offset_a = now.pack.contactor_state, now.pack.current_a, now.offset_a
    if not _all_off(now, before) or a is None or offset_a is None or abs(a - offset_a) <= 5.0:
        return False
    return says is PackContactor.OPEN or not now.settings.wiring.startswith("pack")


def _closed_unasked(now: Moment, before: Moment) -> bool:
    return (
        now.settings.wiring.startswith("pack")
        and _all_off(now, before)
        and now.pack.contactor_state is PackContactor.CLOSED
    )


E = Event
CAUSES: tuple[Cause, ...] = (
    Cause(E.ESTOP_OPEN, 30, 250, lambda m, _: m.estop_ok is False),
    Cause(E.INTERLOCK_OPEN, 100, 250, lambda m, _: m.interlock_ok is False),
    Cause(E.HVIL_OPEN, 100, 250, lambda m, _: m.pack.hvil_ok is False),
    Cause(E.OVERCURRENT, 100, 250, _too_much_current),
    Cause(E.CELL_OVERVOLTAGE_CRITICAL, 500, 750,
          lambda m, _: _at_least(m.pack.cell_max_v, m.settings.pack.chemistry.critical_high_v)),
    Cause(E.CELL_UNDERVOLTAGE_CRITICAL, 500, 750, _cell_too_low),
    Cause(E.CELL_LIMIT_IGNORED, 10_000, 12_000, _limit_ignored),
    Cause(E.PACK_VOLTAGE_CRITICAL, 500, 750, _voltage_beyond),
    Cause(E.PACK_FUSE_BLOWN, 500, 750,
          lambda m, _: m.pack.pack_voltage_v is not None and 0.5 <= m.pack.pack_voltage_v <= 5.0),
    Cause(E.TEMPERATURE_CRITICAL, 5000, 6000,
          lambda m, _: _at_least(m.pack.temp_max_c, m.settings.pack.temp_max_c + 5.0)),
    Cause(E.CELLS_CONTRADICT_PACK_LONG, 30_000, 31_000, _cells_contradict),
    Cause(E.PACK_DATA_LOST, 610, 700,
          lambda m, b: _stale(Feed.VOLTAGE, 500)(m, b) or _stale(Feed.CURRENT, 500)(m, b)),
    Cause(E.CELL_DATA_LOST, 0, 2000, _stale(Feed.CELLS, 2500)),
    Cause(E.TEMPERATURE_DATA_LOST, 0, 2000, _stale(Feed.TEMPERATURES, 2500)),
    Cause(E.CONTACTOR_DATA_LOST, 0, 2000, _stale(Feed.CONTACTOR, 2500)),
    Cause(E.HVIL_DATA_LOST, 0, 2000, _stale(Feed.HVIL, 2500)),
    Cause(E.SOC_LOST, 0, 3000, _stale(Feed.SOC, 60_000, rounds=0)),
    Cause(E.BMS_OPEN_NOW, 100, 300, lambda m, _: m.pack.report.open_now is True),
    Cause(E.BMS_FAULT, 100, 2000, lambda m, _: True in (m.pack.report.fault, m.pack.report.open_asked)),
    Cause(E.BMS_RELAY_CUT, 100, 2000, lambda m, _: m.pack.report.withholds is True),
    Cause(E.PACK_REFUSES, 300, 500, lambda m, _: m.pack.report.refuses is True),
    Cause(E.LV_SUPPLY_LOW_CLOSED, 5000, 8000, _supply_low),
    Cause(E.FEEDBACK_MISMATCH, 200, 350, _contradicted),
    Cause(E.PACK_LEFT_CLOSED, 200, 350, _left_closed),
    Cause(E.WELD_REPORTED, 200, 2200, lambda m, _: m.pack.report.welded is True),
    Cause(E.INVERTER_REVOKED, 100, 1200, _revoked),
    Cause(E.INVERTER_SILENT, 0, 3000, _silent),
    Cause(E.LINK_CONTRADICTS_PACK_LONG, 3000, 3100, _link_contradicts),
    Cause(E.FEEDBACK_LOST, 1000, 3000, _feedback_gone),
    Cause(E.INVERTER_IGNORES_LIMIT, 30_000, 31_000, _ignores),
    Cause(E.INVERTER_CONTRADICTS_PACK_LONG, 30_000, 31_000, _inverter_contradicts),
    Cause(E.WELD_CURRENT, 1000, 1100, _flows_while_open),
    Cause(E.WELD_MEASURED, 20, 2200, lambda m, _: m.weld_shown),
    Cause(E.PACK_CLOSED_UNASKED, 10_000, 10_100, _closed_unasked),
    Cause(E.TICK_OVERRUN, 0, 0, lambda m, _: E.TICK_OVERRUN in m.breakdowns),
    Cause(E.EXCEPTION, 0, 0, lambda m, _: E.EXCEPTION in m.breakdowns),
    Cause(E.RELAY_FAILED, 0, 0, lambda m, _: E.RELAY_FAILED in m.breakdowns),
)  # fmt: skip
"""Section 3 once more, written from the table and not from the rules. What is unknown is not known to be bad."""

Bad = Mapping[Event, int]
"""Since when each cause has been known bad without a break."""


# --- the invariants ---


class Invariant:
    """One observer. `says` is the concept's sentence; met: how many moments its premise was true in."""

    id: ClassVar[str]

    def __init__(self) -> None:
        self.met = 0

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        """What is broken in this tick, in words; empty when nothing is."""
        raise NotImplementedError

    def premise(self, true: bool) -> bool:
        """Count it where it is true, and hand it on."""
        self.met += true
        return true


class PositiveOnlyBehindAPrecharge(Invariant):
    """I1 positive closed ⇒ this cycle's precharge was verified (or declared unverified) and negative closed; a
    `pack`'s own CLOSED stands for both."""

    id = "I1"

    def __init__(self) -> None:
        super().__init__()
        self.began_ms: int | None = None
        self.good: list[int] = []

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        self._measure(now, before)
        if not self.premise(POSITIVE in now.closed):
            return ""
        own = now.settings.wiring == "own"
        if own and NEGATIVE not in now.closed:
            return "positive without negative"
        if not own and PACK not in now.closed:
            return "positive while the pack is not asked to close"
        if POSITIVE in before.closed:
            return ""
        if not own:
            return "" if now.pack.contactor_state is PackContactor.CLOSED else "positive onto a pack not CLOSED"
        return self._unverified(now, before)

    def _measure(self, now: Moment, before: Moment) -> None:
        """The fresh samples in a row that look charged, of this precharge."""
        if PRECHARGE not in before.closed:
            self.began_ms, self.good = now.now_ms, []
            return
        at_ms, link_v, pack_v, net_a = now.link_at_ms, now.link_v, now.pack.pack_voltage_v, now.net_a
        if at_ms is not None and self.good and at_ms == self.good[-1]:
            return
        wants, began_ms = now.settings.precharge, self.began_ms or 0
        known = at_ms is not None and link_v is not None and pack_v is not None and at_ms > began_ms
        if not known or net_a is None or now.offset_a is None:
            self.good = []
            return
        assert at_ms is not None
        assert link_v is not None
        assert pack_v is not None
        level = link_v >= max(0.95, wants.charged_fraction) * pack_v and abs(pack_v - link_v) <= wants.charged_gap_v
        self.good = [*self.good, at_ms] if level and abs(net_a) < wants.charged_current_a else []

    def _unverified(self, now: Moment, before: Moment) -> str:
        wants = now.settings.precharge
        if PRECHARGE not in before.closed or self.began_ms is None:
            return "positive without a precharge"
        if wants.unverified_reason:
            enough_ms = 5 * (wants.tau_ms or 0.0)
            return "" if now.now_ms - self.began_ms >= enough_ms else "positive before five τ"
        enough = len(self.good) >= wants.charged_samples and self.good[-1] - self.good[0] >= wants.charged_ms
        return "" if enough else f"positive after {len(self.good)} good samples"


class PrechargeOnlyAsLongAsItMay(Invariant):
    """I2 precharge energised only in PRECHARGING and CLOSING_POSITIVE and within its budget."""

    id = "I2"

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[int, int]] = []

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        if not self.premise(PRECHARGE in now.closed):
            return ""
        if now.state not in (State.PRECHARGING, State.CLOSING_POSITIVE):
            return f"precharge in {now.state.value}"
        if POSITIVE in now.closed:
            return ""
        if PRECHARGE not in before.closed or not self.spans:
            self.spans.append((now.now_ms, now.now_ms))
        self.spans[-1] = (self.spans[-1][0], now.now_ms)
        self.spans = [(a, b) for a, b in self.spans if now.now_ms - b < WINDOW_MS]
        limit_ms = now.settings.precharge.overdue_ms + TICK_MS
        spent = [b - max(a, now.now_ms - WINDOW_MS) for a, b in self.spans]
        if spent[-1] > limit_ms:
            return f"precharge for {spent[-1]} ms"
        return f"precharge for {sum(spent)} ms in 10 min" if sum(spent) > 3 * limit_ms else ""


BEHIND_FUSE = ", behind the fuse"


class EveryStopCauseOpensInTime(Invariant):
    """I3 every stop cause, in any state ⇒ outputs off within its budget (plus the fuse's 3 s)."""

    id = "I3"

    def __init__(self) -> None:
        super().__init__()
        self.stopped_ms: int | None = None
        self.fuse_ms = -DAY_MS
        self.worst_ms: dict[str, int] = {}
        """Of each cause that was bad long enough when everything went off: the longest it took; of those that had to
        leave the current to the fuse first, by a name of its own."""

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        wishes = [c.kind for c in now.commands if c.kind in (CommandKind.STOP, CommandKind.ENABLE)]
        stops = wishes[-1:] == [CommandKind.STOP] or now.asked(CommandKind.SERVICE_STOP)
        if not now.live:
            self.stopped_ms = None
        elif stops and before.live and self.stopped_ms is None:
            self.stopped_ms = now.now_ms
        current_a, times = now.pack.current_a, now.settings.contactors
        if current_a is not None and abs(current_a) > times.break_max_a and now.settings.wiring.endswith(("own", "er")):
            self.fuse_ms = now.now_ms
        late = [cause.id.value for cause in CAUSES if cause.id in bad and self._late(now, bad[cause.id], cause)]
        if self.stopped_ms is not None and now.live:
            waited_ms = now.now_ms - self.stopped_ms
            if waited_ms > now.follow_ms + 1000 + (times.fuse_ms if self.fuse_ms >= self.stopped_ms else 0):
                late.append("stop")
        self.premise(before.live and bool(bad or self.stopped_ms is not None))
        if before.live and not now.live:
            for cause in CAUSES:
                took_ms = now.now_ms - bad.get(cause.id, now.now_ms)
                if cause.id in bad and took_ms >= cause.hold_ms:
                    name = cause.id.value + (BEHIND_FUSE if self._waits(bad[cause.id], cause) else "")
                    self.worst_ms[name] = max(took_ms, self.worst_ms.get(name, 0))
        return f"still closed although {', '.join(late)}" if late and now.live else ""

    def _waits(self, since_ms: int, cause: Cause) -> bool:
        """More current than a contactor may break flowed since: the fuse comes first."""
        return self.fuse_ms >= since_ms and cause.budget_ms > 0 and cause.id is not E.ESTOP_OPEN

    def _late(self, now: Moment, since_ms: int, cause: Cause) -> bool:
        waits_ms = now.settings.contactors.fuse_ms if self._waits(since_ms, cause) else 0
        return now.now_ms - since_ms > cause.budget_ms + waits_ms


class NothingRisesOnAFaultOrTheUnknown(Invariant):
    """I4 no rising edge on any output while a blocking fault or a stale or unknown required signal exists."""

    id = "I4"

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        if not self.premise(bool(rises(now, before))):
            return ""
        why = [f"{feed.value} unknown" for feed in missing_feeds(now.pack, now.settings, now.now_ms)]
        why += [f"{event.value} seen" for event in bad]
        why += [f"{rule.id.value} acts" for rule in (*now.faults.acting(*BLOCKING), *now.faults.suspected)]
        if now.asks and now.request.go is not True:
            why.append("no go")
        if not before.live:
            lv_v, offset_a = now.pack.lv_supply_v, now.offset_a
            why += ["supply low"] if lv_v is not None and lv_v < now.settings.pack.lv_min_closed_v else []
            high = offset_a is not None and abs(offset_a) > now.settings.contactors.offset_max_a
            why += ["offset high"] if high else []
            why += [f"{member.value} fed back closed" for member, closed in now.feedback.items() if closed]
        return f"{rises(now, before)} although {', '.join(why)}" if why else ""


class ClosingsAndRestsWithinBudget(Invariant):
    """I5 closings and off time within budget; and each is on disk, counted, before it begins."""

    id = "I5"

    def __init__(self) -> None:
        super().__init__()
        self.closings: list[int] = []
        self.off_since_ms: int | None = None
        self.stored: Record | None = None

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        if now.asked(CommandKind.ACKNOWLEDGE, E.CLOSINGS_SPENT.value):
            self.closings = []
        off_since_ms = now.started_ms if self.off_since_ms is None else max(self.off_since_ms, now.started_ms)
        not_open = now.settings.wiring.startswith("pack") and now.pack.contactor_state is not PackContactor.OPEN
        if now.live or not_open:
            self.off_since_ms = now.now_ms
        on_disk, self.stored = self.stored, now.stored
        if not self.premise(now.live and not before.live):
            return ""
        times = now.settings.contactors
        self.closings = [at for at in self.closings if now.now_ms - at < DAY_MS] + [now.now_ms]
        this_hour = sum(1 for at in self.closings if now.now_ms - at < HOUR_MS)
        if this_hour > times.closings_per_hour or len(self.closings) > times.closings_per_day:
            return f"{this_hour} closings this hour, {len(self.closings)} this day"
        if now.now_ms - off_since_ms < times.minimum_off_ms:
            return f"closed again after {now.now_ms - off_since_ms} ms"
        if on_disk is None or not on_disk.closed:
            return "closed before it was on disk"
        counted = len(on_disk.closings_age_ms)
        return "" if counted >= len(self.closings) else f"{counted} closings on disk at the {len(self.closings)}th"


class NoOpeningUnderLoadWithoutNeed(Invariant):
    """I6 opening above break current only by an immediate cause or an expired wait, and recorded with the current."""

    id = "I6"

    def __init__(self) -> None:
        super().__init__()
        self.unloading_ms: int | None = None

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        since_ms = self.unloading_ms
        if now.state is not State.UNLOADING:
            self.unloading_ms = None
        elif since_ms is None:
            self.unloading_ms = now.now_ms
        carries = PACK if now.settings.wiring == "pack" else POSITIVE
        falls = carries in before.closed - now.closed and before.state in CARRYING
        current_a, net_a, bound_a = now.pack.current_a, now.net_a, now.settings.contactors.break_current_a
        small = current_a is not None and net_a is not None and min(abs(current_a), abs(net_a)) < bound_a
        if not self.premise(falls and not small):
            return ""
        waited = since_ms is not None and now.now_ms - since_ms >= SHORTEST_WAIT_MS
        if not waited and before.state not in LADDER and not now.faults.acting(Severity.OPEN):
            return f"opened at {current_a} A without waiting"
        shown = "unknown" if current_a is None else f"{current_a:g}"
        recorded = any(n.id is E.OPENED_UNDER_LOAD and f"current_a {shown}" in n.detail for n in now.told)
        return "" if recorded else f"opened at {shown} A and did not say so"


class OffAtConstructionAndException(Invariant):
    """I7 outputs off at construction, exit and exception. (Exit is a stop of I3.)"""

    id = "I7"

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        broken = {E.EXCEPTION, E.RELAY_FAILED, E.TICK_OVERRUN} & set(now.breakdowns)
        if self.premise(bool(broken) and before.live) and now.live:
            return "still closed in the tick something broke"
        if now.breakdowns and now.heartbeat:
            return "a heartbeat in a tick something broke"
        return "closed in the first tick" if now.live and before.now_ms == now.started_ms else ""


class LimitsAreTheMinimumOfAllSources(Invariant):
    """I8 published limits = minimum of all sources and monotone in faults."""

    id = "I8"

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        rise_w = now.settings.max_power_w * 0.1 * (now.now_ms - before.now_ms) / 1000.0
        charge_w, discharge_w = now.limits.charge_w, now.limits.discharge_w
        if (int(charge_w), int(discharge_w)) != (now.view.max_charge_w, now.view.max_discharge_w):
            return "the inverter is told other limits"
        self.premise(charge_w > 0 or discharge_w > 0)
        return (
            self._judged("charge", charge_w, before.limits.charge_w + rise_w, now)
            or self._judged("discharge", discharge_w, before.limits.discharge_w + rise_w, now)
        )  # fmt: skip

    def _judged(self, direction: str, limit_w: float, risen_w: float, now: Moment) -> str:
        """Never above any source; below the least only while it rises, by 2 % of hysteresis or by a halving."""
        half = 0.5 if now.faults.active_since_ms(E.SOC_JUMP) is not None else 1.0
        highest_w, lowest_w = sources_w(now, direction)
        most_w, least_w = min(half * highest_w, risen_w), min(half * lowest_w, risen_w)
        if limit_w > most_w + 1e-6:
            return f"{direction} {limit_w:.1f} W, above {most_w:.1f} W"
        return f"{direction} {limit_w:.1f} W, below {least_w:.1f} W" if limit_w < least_w - 1e-6 else ""


NOTHING_W = (0.0, 0.0)


def sources_w(now: Moment, direction: str) -> tuple[float, float]:
    """The least of every bound of one direction, W, worked out again; what is unknown is 0.

    Twice: as it is, and less 2 % of hysteresis where it derates.
    """
    pack, own, charging = now.pack, now.settings.pack, direction == "charge"
    offered = now.state is State.RUNNING or now.waits_for_go
    volts, soc, coldest_c, hottest_c = pack.pack_voltage_v, pack.soc_pct, pack.temp_min_c, pack.temp_max_c
    cell_v, bms_w = (pack.cell_max_v, pack.max_charge_w) if charging else (pack.cell_min_v, pack.max_discharge_w)
    bms_a = None if charging else pack.max_discharge_a
    if now.state is State.STANDBY and pack.contactor_state is PackContactor.OPEN:  # its zeros say nothing of later
        bms_w, bms_a = bms_w if bms_w is None else bms_w or inf, bms_a or None
    if not offered or volts is None or soc is None or coldest_c is None or hottest_c is None:
        return NOTHING_W
    if pack.current_a is None or cell_v is None or bms_w is None or _forbidden(now, charging, soc):
        return NOTHING_W
    cell = own.chemistry
    begin_v, stop_v = cell.charge_taper_v, cell.charge_stop_v
    curves = own.charge_over_coldest, own.charge_over_hottest
    if not charging:
        begin_v, stop_v = cell.discharge_taper_v, cell.discharge_stop_v
        curves = own.discharge_over_coldest, own.discharge_over_hottest
    taper = min(1.0, max(0.0, (cell_v - stop_v) / (begin_v - stop_v)))
    fraction = min(taper, over(curves[0], coldest_c), over(curves[1], hottest_c))
    full_w = volts * (own.max_charge_a if charging else own.max_discharge_a)
    bounds = [now.profile_w, now.settings.max_power_w, max(0.0, bms_w)]
    bound = now.cap.charge if charging else now.cap.discharge
    bounds += [] if bound is None else [bound.limit_w]
    bounds += [] if not now.recovering else [RECOVERY_A * volts if charging else 0.0]
    bounds += [] if bms_a is None else [bms_a * volts]
    least_w = min(bounds)
    lowered = fraction if fraction >= 1.0 else max(0.0, fraction - 0.02)
    return min(least_w, fraction * full_w), min(least_w, lowered * full_w)


def _forbidden(now: Moment, charging: bool, soc: float) -> bool:
    """The SoC is outside its window, or a cause forbids this direction."""
    own = now.settings.pack
    if soc >= own.soc_max_pct if charging else soc <= own.soc_min_pct:
        return True
    return bool(now.faults.tracks) and any(
        (rule.charge if charging else rule.discharge) for rule in now.faults.acting(*FORBIDDING)
    )


FORBIDDING = (Severity.LIMIT, Severity.GRACEFUL, Severity.OPEN, Severity.LOCK_OUT)


class LatchedUntilAcknowledged(Invariant):
    """I9 a latched cause leaves only by acknowledgement after it cleared; reboot does not clear it. (↺: its time.)"""

    id = "I9"

    def __init__(self) -> None:
        super().__init__()
        self.last: Moment | None = None
        self.bad_ms: dict[Event, int] = {}

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        last, self.last = self.last, now
        bad_ms = dict(self.bad_ms)
        self.bad_ms.update(dict.fromkeys(bad, now.now_ms))
        if now.record is not None and {e.value for e in now.held} != set(now.record.latched):
            return f"held {sorted(now.held)}, on record {sorted(now.record.latched)}"
        if last is None or not self.premise(bool(last.held) or last.state is State.LOCKED_OUT):
            return ""
        if last.started_ms != now.started_ms:
            return self._forgotten(now)
        if last.state is State.LOCKED_OUT and now.state is not last.state and not now.asked(CommandKind.UNLOCK):
            return "LOCKED_OUT left without an unlock"
        if last.state is State.FAULT and now.held and now.state not in (State.FAULT, State.LOCKED_OUT):
            return f"FAULT left with {sorted(now.held)} held"
        left = [f"{e.value} left: {why}" for e in last.held - now.held if (why := _early(e, now, last, bad_ms))]
        return ", ".join(left)

    def _forgotten(self, now: Moment) -> str:
        """What was on disk when it restarted is still there."""
        stored = now.booted_from
        if stored is None:
            return ""
        lost = set(stored.latched) - {event.value for event in now.held}
        if stored.locked_out and now.state is not State.LOCKED_OUT:
            return "a restart forgot the lock-out"
        return f"a restart forgot {sorted(lost)}" if lost else ""


def _early(event: Event, now: Moment, last: Moment, bad_ms: Mapping[Event, int]) -> str:
    """Why a held cause should not have left in this tick; empty when it may."""
    rule, seen_ms = RULE_OF[event], bad_ms.get(event, -DAY_MS)
    if rule.severity is Severity.LOCK_OUT:
        return "" if now.asked(CommandKind.UNLOCK) else "without an unlock"
    if rule.quiet_ms is not None:
        return "" if now.now_ms - seen_ms >= rule.quiet_ms else f"{now.now_ms - seen_ms} ms after it was seen"
    if not now.asked(CommandKind.ACKNOWLEDGE, event.value):
        return "without an acknowledgement"
    return "while it was there" if seen_ms == last.now_ms else ""


class ActiveOnlyInRunning(Invariant):
    """I10 the inverter sees ACTIVE, and a live outer voltage, only in RUNNING, else STANDBY, or FAULT if latched; yet
    a Gen24 sees RUNNING's limits once only its own go is missing."""

    id = "I10"

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        view, running = now.view, now.state is State.RUNNING
        self.premise(running or now.live)
        latched = bool(now.held) or now.state in (State.FAULT, State.LOCKED_OUT)
        latched = latched or (now.settings.wiring == "none" and not running and not now.waits_for_go)
        told = InverterStatus.FAULT if latched else InverterStatus.ACTIVE if running else InverterStatus.STANDBY
        if view.status is not told:
            return f"{view.status.value} told in {now.state.value}, held {sorted(now.held)}"
        if not running and view.outer_voltage_v != 0.0:
            return f"a live outer voltage in {now.state.value}"
        offered = running or now.waits_for_go
        return "" if offered or view.max_charge_w == view.max_discharge_w == 0.0 else f"limits in {now.state.value}"


class ReportedIsCommandedIsFedBack(Invariant):
    """I11 reported = commanded = fed back within the feedback delay: a relay that differs for longer is told of."""

    id = "I11"
    DELAY_MS = 350

    def __init__(self) -> None:
        super().__init__()
        self.since_ms: dict[Contactor, int] = {}

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        wanted = TO_BE_CLOSED[now.state] & WIRED[now.settings.wiring]
        if now.closed != wanted and not now.refusal:
            return f"{_names(now.closed)} commanded in {now.state.value}"
        if before.now_ms == now.started_ms or before.broken:  # in a tick that broke nothing was compared
            self.since_ms = {}
        if not self.premise(bool(now.feedback)):
            return ""
        for member, closed in now.feedback.items():
            if closed is None or closed is (member in before.closed):
                self.since_ms.pop(member, None)
            else:
                self.since_ms.setdefault(member, now.now_ms)
        late = frozenset(m for m, since_ms in self.since_ms.items() if now.now_ms - since_ms > self.DELAY_MS)
        told = (E.FEEDBACK_MISMATCH, E.WELD_MEASURED)
        if not late or any(now.faults.active_since_ms(event) is not None for event in told):
            return ""
        return f"{_names(late)} fed back otherwise for {self.DELAY_MS} ms, and nothing said"


TO_BE_CLOSED: Mapping[State, frozenset[Contactor]] = {
    **dict.fromkeys(State, OFF),
    State.WAKING_PACK: frozenset({PACK}),
    State.CLOSING_NEGATIVE: frozenset({PACK, NEGATIVE}),
    State.PRECHARGING: frozenset({PACK, NEGATIVE, PRECHARGE}),
    State.CLOSING_POSITIVE: frozenset({PACK, NEGATIVE, PRECHARGE, POSITIVE}),
    State.RUNNING: frozenset({PACK, NEGATIVE, POSITIVE}),
    State.UNLOADING: frozenset({PACK, NEGATIVE, POSITIVE}),
    State.OPENING_POSITIVE: frozenset({PACK, NEGATIVE}),
}
WIRED: Mapping[str, frozenset[Contactor]] = {
    "own": frozenset(OWN), "pack": frozenset({PACK}), "pack+inverter": frozenset({PACK, POSITIVE}), "none": OFF,
}  # fmt: skip
"""Section 1 once more, written from its table."""


def _names(members: frozenset[Contactor]) -> str:
    return ", ".join(sorted(member.value for member in members)) or "nothing"


class NoCauseMasksAnother(Invariant):
    """I12 no cause masks another: each that was bad for its time acts, whatever else acts."""

    id = "I12"

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        self.premise(len(bad) > 1)
        silent = [
            cause.id.value
            for cause in CAUSES
            if cause.id in bad
            and now.now_ms - bad[cause.id] >= cause.hold_ms
            and now.faults.active_since_ms(cause.id) is None
        ]
        return f"{', '.join(silent)} does not act" if silent else ""


class TheGateNeverRefuses(Invariant):
    """I13 the gate never had to refuse the supervisor (a refusal is a fault and a test failure)."""

    id = "I13"

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        self.premise(bool(rises(now, before) or now.refusal))
        return now.refusal


class EveryStayIsBounded(Invariant):
    """L2 every state but STANDBY, RUNNING, FAULT and LOCKED_OUT has a bounded stay. (Here: whatever the inputs do.)"""

    id = "L2"

    def __init__(self) -> None:
        super().__init__()
        self.since_ms = 0

    def look(self, now: Moment, before: Moment, bad: Bad) -> str:
        if now.state is not before.state or now.started_ms == before.now_ms:
            self.since_ms = now.now_ms
        bound_ms = longest_stay_ms(now)
        if not self.premise(bound_ms is not None):
            return ""
        assert bound_ms is not None
        stayed_ms = now.now_ms - self.since_ms
        return f"{now.state.value} for {stayed_ms} ms" if stayed_ms > bound_ms + TICK_MS else ""


def longest_stay_ms(now: Moment) -> int | None:
    """The bound of a state's stay; None where it may rest."""
    times, precharge = now.settings.contactors, now.settings.precharge
    switches = now.settings.wiring in ("own", "pack+inverter")
    fuse_ms = times.fuse_ms if switches else 0
    bounds = {
        State.STARTING: times.signals_ms,
        State.WAKING_PACK: times.waking_ms,
        State.CLOSING_NEGATIVE: times.confirm_ms,
        State.PRECHARGING: precharge.overdue_ms,
        State.CLOSING_POSITIVE: max(times.overlap_ms, times.confirm_ms) + fuse_ms,
        State.UNLOADING: now.follow_ms + fuse_ms,
        State.OPENING_POSITIVE: times.break_ms + fuse_ms,
        State.VERIFYING_OPEN: max(times.verify_ms, times.pack_open_ms + 1000),
        State.COOLING_DOWN: precharge.cool_down_ms,
    }
    return bounds.get(now.state)


def rises(now: Moment, before: Moment) -> str:
    """What is energised now and was not, in words; where nothing is switched, the beginning of its use."""
    rising = sorted(member.value for member in now.closed - before.closed)
    if not rising and now.live and not before.live:
        return "use begins"
    return ", ".join(rising)


INVARIANTS: tuple[type[Invariant], ...] = (
    PositiveOnlyBehindAPrecharge, PrechargeOnlyAsLongAsItMay, EveryStopCauseOpensInTime,
    NothingRisesOnAFaultOrTheUnknown, ClosingsAndRestsWithinBudget, NoOpeningUnderLoadWithoutNeed,
    OffAtConstructionAndException, LimitsAreTheMinimumOfAllSources, LatchedUntilAcknowledged, ActiveOnlyInRunning,
    ReportedIsCommandedIsFedBack, NoCauseMasksAnother, TheGateNeverRefuses, EveryStayIsBounded,
)  # fmt: skip


STUCK_MS = 35_000


class WeldWitness:
    """The weld checks of section 2, looked at from outside. What it saw stays seen until a person unlocks.

    After opening: an auxiliary contact still closed after 300 ms, a pack not OPEN after 10 s. On negative alone: the
    link rises by 10 % of the pack. Before closing: the link stays within 5 % of the pack for two windows of 10 s, each
    begun by a sample that may be 5 s old.
    """

    def __init__(self) -> None:
        self.shown = False
        self.entered_ms = 0
        self.low_v: float | None = None
        self.stuck: tuple[int, float] | None = None

    def look(self, now: Moment, before: Moment) -> bool:
        if now.state is not before.state:
            self.entered_ms, self.stuck = now.now_ms, None
        if now.asked(CommandKind.UNLOCK):
            self.shown = False
        checks = (self._after_opening(now), self._on_negative(now), self._before_closing(now))
        self.shown = self.shown or (now.state is before.state and any(checks))
        return self.shown

    def _after_opening(self, now: Moment) -> bool:
        if now.state is not State.VERIFYING_OPEN:
            return False
        stayed_ms, says = now.now_ms - self.entered_ms, now.pack.contactor_state
        if any(now.feedback.get(member) for member in OWN):
            return stayed_ms > 300 + TICK_MS
        not_open = now.settings.wiring.startswith("pack") and says not in (None, PackContactor.OPEN)
        return not_open and stayed_ms > now.settings.contactors.pack_open_ms + TICK_MS

    def _on_negative(self, now: Moment) -> bool:
        if now.state is not State.CLOSING_NEGATIVE:
            self.low_v = now.link_v if now.state is State.STANDBY else None
            return False
        pack_v, link_v = now.pack.pack_voltage_v, now.link_v
        if self.low_v is None or pack_v is None or link_v is None:
            return False
        return link_v - self.low_v >= 0.10 * pack_v

    def _before_closing(self, now: Moment) -> bool:
        pack_v, link_v = now.pack.pack_voltage_v, now.link_v
        resting = now.state is State.STANDBY and now.settings.wiring == "own"
        resting = resting and now.link_at_ms is not None and now.link_at_ms > self.entered_ms
        if not resting or pack_v is None or link_v is None or abs(pack_v - link_v) > 0.05 * pack_v:
            self.stuck = None
            return False
        since_ms, first_v = self.stuck or (now.now_ms, link_v)
        if first_v - link_v >= 0.01 * first_v:
            since_ms, first_v = now.now_ms, link_v
        self.stuck = since_ms, first_v
        return now.now_ms - since_ms > STUCK_MS


class Invariants:
    """All of them over one trace, restarts included (a new `started_ms` is one)."""

    def __init__(self) -> None:
        self.observers = tuple(observer() for observer in INVARIANTS)
        self._before: Moment | None = None
        self._bad: dict[Event, int] = {}
        self._wired: frozenset[str] = frozenset()
        self._fed: frozenset[Contactor] = OFF
        self._welds = WeldWitness()
        self._since_ms = 0

    def look(self, now: Moment) -> tuple[str, ...]:
        """Take in one tick; what is broken in it, each with its number."""
        before = self._before
        if before is None or before.started_ms != now.started_ms:
            before, self._bad, self._wired, self._fed = _unborn(now), {}, frozenset(), OFF
            self._welds = WeldWitness()
        now = self._as_wired(now)
        if now.broken:
            self._before = now
            return self._unjudged(now)
        now = self._remembered(now, before)
        unlocked = now.asked(CommandKind.UNLOCK)
        since = {} if unlocked else self._bad
        self._bad = {c.id: since.get(c.id, now.now_ms) for c in CAUSES if c.bad(now, before)}
        self._before = now
        found = [(observer.id, observer.look(now, before, self._bad)) for observer in self.observers]
        return tuple(f"{name} at {now.now_ms} ms: {what}" for name, what in found if what)

    def _unjudged(self, now: Moment) -> tuple[str, ...]:
        """A tick that ended in an exception: the core has decided nothing, and only I7 can be asked."""
        wrong = now.closed or now.heartbeat
        return (f"I7 at {now.now_ms} ms: something is on in a tick that broke",) if wrong else ()

    def _remembered(self, now: Moment, before: Moment) -> Moment:
        """With what only several ticks can tell."""
        now = now._replace(since_ms=self._since_ms)
        if now.state is not before.state:
            self._since_ms = now.now_ms
        known = {member for member, closed in now.feedback.items() if closed is not None}
        if not known <= self._fed:
            self._fed |= known
        if self._fed or now.settings.wiring != "none":
            now = now._replace(fed_once=self._fed, weld_shown=self._welds.look(now, before))
        return now

    def _as_wired(self, now: Moment) -> Moment:
        """An input that was known once is wired; unknown, it counts as open from then on."""
        inputs = {"estop": now.estop_ok, "interlock": now.interlock_ok}
        self._wired |= {name for name, value in inputs.items() if value is not None}
        if "estop" in self._wired and now.estop_ok is None:
            now = now._replace(estop_ok=False)
        if "interlock" in self._wired and now.interlock_ok is None:
            now = now._replace(interlock_ok=False)
        return now

    @property
    def met(self) -> Mapping[str, int]:
        """In how many moments each one's premise was true."""
        return {observer.id: observer.met for observer in self.observers}

    @property
    def worst_ms(self) -> Mapping[str, int]:
        """The longest it took from the first bad tick until everything was off, for each cause that opened."""
        return next(o.worst_ms for o in self.observers if isinstance(o, EveryStopCauseOpensInTime))


def _unborn(now: Moment) -> Moment:
    """The moment before the first tick of a life."""
    return now._replace(
        now_ms=now.started_ms, state=State.STARTING, closed=OFF, limits=Limits(at_ms=now.started_ms), recovering=False,
        breakdowns=(), commands=(),
    )  # fmt: skip
