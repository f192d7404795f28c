"""step(state, inputs, now_ms): the whole flow on one screen. Pure: no clock, no I/O, no chance.

frames → snapshot → rules → supervisor → limits → encode → gate
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import NamedTuple, cast

from controller import supervisor, watch, weld
from controller.batteries.base import BatteryProtocol, BatteryState, LineBatteryState
from controller.inverters.base import SILENCE, InverterProtocol, InverterState
from controller.model.battery import BatterySnapshot
from controller.model.events import Event, Notice, Severity
from controller.model.inverter import InverterRequest, InverterStatus, InverterView
from controller.model.settings import RECOVERY_A, RECOVERY_MS, Settings
from controller.ports import Command, CommandKind, Inputs, Outputs, Record
from controller.safety import envelope, gate, monitor
from controller.safety.monitor import NO_FAULTS
from controller.safety.rules import RULES, Masked
from controller.safety.situation import Situation, believed
from controller.supervisor import DAY_MS, HOUR_MS, INVERTER_GO, Supervisor
from controller.watch import Watch
from statecharts.chart import Row
from statecharts.supervisor import ENERGISED, Contactor, State, energised

NO_PACK, NO_REQUEST = BatterySnapshot(), InverterRequest()


@dataclass(frozen=True, slots=True)
class Setup:
    """What never changes while the core runs. shadow: the pack answers to somebody else; nothing is sent or moved."""

    settings: Settings
    battery: BatteryProtocol
    inverter: InverterProtocol
    gate: gate.GateSettings
    shadow: bool = False


class Kept(NamedTuple):
    """What must survive a restart, with stamps of this run."""

    closed: bool = False
    locked_out: bool = False
    latched: tuple[str, ...] = ()
    tries: int = 0
    closings_ms: tuple[int, ...] = ()
    precharges_ms: tuple[tuple[int, int], ...] = ()
    unclean_ms: tuple[int, ...] = ()

    def as_record(self, seq: int, now_ms: int) -> Record:
        """With ages instead of stamps: no clock is trusted at boot."""
        return Record(
            seq=seq, closed=self.closed, locked_out=self.locked_out, latched=self.latched, tries=self.tries,
            closings_age_ms=tuple(now_ms - at for at in self.closings_ms),
            precharges_age_ms=tuple((now_ms - at, ms) for at, ms in self.precharges_ms),
            unclean_age_ms=tuple(now_ms - at for at in self.unclean_ms),
        )  # fmt: skip


NOTHING_KEPT = Kept()


class CoreState(NamedTuple):
    """Everything the next tick needs. pack, request, limits, withheld, row, view are of the last tick, to be shown.

    record_at_ms: when the record was handed out last.
    """

    setup: Setup
    battery: BatteryState
    inverter: InverterState
    faults: monitor.Faults
    supervisor: Supervisor
    limits: envelope.Limits
    watch: Watch
    gate: gate.Gate
    cap: envelope.Cap = envelope.NO_CAP
    record: Record | None = None
    pack: BatterySnapshot = NO_PACK
    request: InverterRequest = NO_REQUEST
    withheld: tuple[str, ...] = ()
    started_ms: int = 0
    kept: Kept = NOTHING_KEPT
    record_at_ms: int = 0
    row: Row | None = None
    view: InverterView | None = None


def start(
    settings: Settings, battery: BatteryProtocol, inverter: InverterProtocol, *, record: Record | None = None,
    shadow: bool = False, now_ms: int = 0,
) -> CoreState:  # fmt: skip
    """The state before the first tick. record: what was kept over a restart, None on a first start."""
    gate_settings = gate.GateSettings(
        wiring=settings.wiring, lacks=frozenset(name for feed in settings.lacks for name in feed.signals),
        precharge_ms=settings.precharge.overdue_ms,
        unverified=bool(settings.precharge.unverified_reason), battery_tx=battery.tx, inverter_tx=inverter.tx,
        silent=shadow,
    )  # fmt: skip
    kept = record or Record()
    clean = record is not None and not kept.closed and not kept.latched and not kept.locked_out
    unclean_ms = tuple(now_ms - age for age in kept.unclean_age_ms if age < DAY_MS)
    if kept.closed:
        unclean_ms = (*unclean_ms, now_ms)
    sup = Supervisor(
        since_ms=now_ms, off_since_ms=now_ms, auto_enables=settings.contactors.auto_enable and clean,
        locked=kept.locked_out, found_closed=kept.closed, tries=kept.tries,
        closings_ms=tuple(now_ms - age for age in kept.closings_age_ms),
        precharges_ms=tuple((now_ms - age, ms) for age, ms in kept.precharges_age_ms),
        unclean_ms=unclean_ms,
    )  # fmt: skip
    return CoreState(
        Setup(settings, battery, inverter, gate_settings, shadow), battery.start(settings.battery_options),
        inverter.start(settings.inverter_options), monitor.start(kept.latched), sup, envelope.Limits(at_ms=now_ms),
        Watch(at_ms=now_ms), gate.Gate(), record=record, started_ms=now_ms,
    )  # fmt: skip


def masked_rules(shadow: bool) -> dict[str, Masked]:
    """The rules that say nothing about a recording, with the reason."""
    return {rule.id.value: rule.masked for rule in RULES if shadow and rule.masked is not None}


def step(core: CoreState, inputs: Inputs, now_ms: int) -> tuple[CoreState, Outputs]:
    """One tick."""
    setup = core.setup
    battery = core.battery.receive(inputs.battery_frames, now_ms)
    if setup.battery.line is not None:
        battery = cast(LineBatteryState, battery).hear(inputs.battery_bytes, now_ms)
    inverter = core.inverter.receive(inputs.inverter_frames, inputs.register_writes, inputs.register_polls, now_ms)
    pack = believed(battery.snapshot(now_ms), core.pack.feeds, setup.settings)
    request = inverter.request(now_ms)
    seen = watch.step(core.watch, pack, setup.settings, inputs, core.supervisor.state is State.STANDBY, now_ms)
    faults, sup, cap, answers = _obey(core, inputs.commands, now_ms)
    situation = _situation(core, sup, inputs, pack, request, seen, now_ms)
    faults = monitor.step(faults, situation, now_ms - core.limits.at_ms)
    if sup.stored_seq != inputs.stored_seq:
        sup = replace(sup, stored_seq=inputs.stored_seq)
    if sup.state is State.STANDBY and not setup.shadow:
        sup = supervisor.permit(sup, situation, faults, (core.record.seq if core.record else 0) + 1)
    was = sup.state
    sup, row = supervisor.step(sup, situation, faults)
    withheld = _withheld(sup, situation, faults) if sup.state is State.STANDBY and not setup.shadow else ()
    waits_for_go = _waits_for_go(sup, setup, withheld)
    limits = envelope.limits(
        core.limits,
        pack,
        setup.settings,
        faults,
        _not_offered(sup, waits_for_go),
        setup.inverter.max_w,
        _recovery_cap(cap, sup, pack),
        now_ms,
        before_go=waits_for_go,
    )
    closed: frozenset[Contactor] = frozenset() if setup.shadow else energised(sup.state, setup.settings.wiring)
    battery, battery_frames = battery.transmit(closed, now_ms) if not setup.shadow else (battery, ())
    question = b""
    if setup.battery.line is not None and not setup.shadow:
        battery, question = cast(LineBatteryState, battery).ask(now_ms)
    view = _view(pack, limits, sup, faults, setup.settings, waits_for_go)
    inverter, answer = inverter.answer(view, now_ms)
    if setup.settings.wiring == "none" and faults.holds(Event.INVERTER_IGNORES_LIMIT):
        answer = SILENCE
    kept = core.kept if setup.shadow else _kept(sup, faults)
    record = core.record if kept == core.kept else kept.as_record(_seq(core.record) + 1, now_ms)
    unstored = sup.stored_seq < _seq(record) and now_ms - core.record_at_ms >= RETRY_MS
    store = record is not core.record or unstored
    news = (*answers, *faults.news, *_told(was, sup, situation, row is not None))
    wanted = Outputs(
        closed, battery_frames, question, () if setup.shadow else answer.frames, answer.registers or {}, news,
        record if store else None, heartbeat=not inputs.breakdowns,
    )  # fmt: skip
    blocked = _blocked(faults)
    before = core.gate
    if Event.EXCEPTION in inputs.breakdowns:
        before = gate.switched_off(before, core.limits.at_ms, now_ms)
    gated, outputs = gate.allow(before, setup.gate, wanted, pack, situation.link_voltage_v, blocked, now_ms)
    after = CoreState(
        setup, battery, inverter, faults, sup, limits, seen, gated, cap, record, pack, request, withheld,
        core.started_ms, kept, now_ms if store else core.record_at_ms, row, view,
    )  # fmt: skip
    return after, outputs


def _withheld(sup: Supervisor, s: Situation, faults: monitor.Faults) -> tuple[str, ...]:
    """Why STANDBY is kept, in words."""
    reasons = supervisor.withheld(s, sup, faults)
    waiting = sup.recorded_seq is not None and sup.stored_seq < sup.recorded_seq
    return (*reasons, "record: not stored yet") if waiting else reasons


def _situation(
    core: CoreState, sup: Supervisor, inputs: Inputs, pack: BatterySnapshot, request: InverterRequest, seen: Watch,
    now_ms: int,
) -> Situation:  # fmt: skip
    setup, settled = core.setup, supervisor.settled(sup)
    link_v, link_at_ms = _link(inputs, pack, request, now_ms)
    estop_ok = False if seen.estop_seen and inputs.estop_ok is None else inputs.estop_ok
    interlock_ok = False if seen.interlock_seen and inputs.interlock_ok is None else inputs.interlock_ok
    breakdowns = frozenset(inputs.breakdowns) | ({Event.GATE_REFUSED} if core.gate.refusal else frozenset())
    return Situation(
        now_ms=now_ms, pack=pack, request=request, settings=setup.settings, state=sup.state,
        closed=core.gate.closed, feedback=inputs.feedback, estop_ok=estop_ok,
        interlock_ok=interlock_ok, link_voltage_v=link_v, link_at_ms=link_at_ms, breakdowns=breakdowns,
        offset_a=seen.offset_a, charge_limit_w=core.limits.charge_w, discharge_limit_w=core.limits.discharge_w,
        corrupt=seen.corrupt, soc_jumped=seen.jumped, weld_measured=sup.link.suspected, tries=sup.tries,
        closings_hour=supervisor.closings_within(settled, HOUR_MS, now_ms),
        closings_day=supervisor.closings_within(settled, DAY_MS, now_ms),
        feedback_lost=any(inputs.feedback.get(member) is None for member in seen.fed_back),
        recovering=sup.recovery_until_ms is not None,
        unclean=sup.found_closed, unclean_day=len(sup.unclean_ms), started_ms=core.started_ms,
        inverter_zero_ms=setup.inverter.zero_ms, inverter_silent_ms=setup.inverter.silent_ms,
        inverter_follow_ms=setup.inverter.follow_ms, inverter_asks=setup.inverter.asks, shadow=setup.shadow,
        since_ms=sup.since_ms,
    )  # fmt: skip


METER_MS = 2000


def _link(
    inputs: Inputs, pack: BatterySnapshot, request: InverterRequest, now_ms: int
) -> tuple[float | None, int | None]:
    """The link voltage from its most trusted source: a meter of ours, the pack, the inverter; each ages by itself."""
    at_ms = inputs.link_at_ms
    if inputs.link_voltage_v is not None and at_ms is not None and now_ms - at_ms <= METER_MS:
        return inputs.link_voltage_v, at_ms
    if pack.link_voltage_v is not None:
        return pack.link_voltage_v, pack.link_at_ms
    return request.link_voltage_v, request.link_at_ms


Obeyed = tuple[monitor.Faults, Supervisor, envelope.Cap]


def _obey(core: CoreState, commands: Sequence[Command], now_ms: int) -> tuple[*Obeyed, tuple[Notice, ...]]:
    """Commands are wishes: each is taken up, or refused with a reason."""
    faults, sup, cap = core.faults, core.supervisor, core.cap
    if cap is not envelope.NO_CAP:
        cap = cap.at(now_ms)
    answers: list[Notice] = []
    if sup.recovery_until_ms is not None and now_ms >= sup.recovery_until_ms:  # it is masked until the pack is open
        masked_ms = sup.recovery_until_ms if sup.state in ENERGISED else None
        sup = replace(sup, recovery_until_ms=masked_ms, enabled=False)
    if sup.auto_enables and faults.held:
        sup = replace(sup, auto_enables=False)
    if sup.auto_enables and now_ms - core.started_ms >= core.setup.settings.contactors.auto_enable_ms:
        sup = replace(sup, auto_enables=False, enabled=True)
    for command in commands:
        (faults, sup, cap), why = _obey_one(command, (faults, sup, cap), core.setup.shadow, now_ms)
        if why:
            told = f"{command.kind.value} {command.name}".strip()
            answers.append(Notice(Event.COMMAND_REFUSED, Severity.INFO, f"{told}: {why}"))
    return faults, sup, cap, tuple(answers)


def _obey_one(command: Command, before: Obeyed, shadow: bool, now_ms: int) -> tuple[Obeyed, str]:
    """One command. The reason is empty when it was taken up."""
    faults, sup, cap = before
    match command.kind:
        case CommandKind.ENABLE if shadow:
            return before, "this pack answers to somebody else"
        case CommandKind.ENABLE if sup.exiting:
            return before, "the service is stopping"
        case CommandKind.ENABLE:
            return (faults, replace(sup, enabled=True, ran=False), cap), ""
        case CommandKind.STOP:
            return (faults, replace(sup, enabled=False, auto_enables=False), cap), ""
        case CommandKind.SERVICE_STOP:
            return (faults, replace(sup, enabled=False, auto_enables=False, exiting=True), cap), ""
        case CommandKind.ACKNOWLEDGE:
            return _acknowledge(command.name, before)
        case CommandKind.UNLOCK if sup.state is not State.LOCKED_OUT:
            return before, "it is not locked out"
        case CommandKind.UNLOCK:
            return (monitor.unlock(faults), replace(sup, unlocking=True, link=weld.UNWATCHED), cap), ""
        case CommandKind.RECOVERY_CHARGE:
            return (faults, replace(sup, recovery_until_ms=now_ms + RECOVERY_MS), cap), ""
        case CommandKind.CAP:
            wishes = [w for w in (command.charge_w, command.discharge_w) if w is not None]
            if not wishes or not all(isfinite(w) and w >= 0 for w in wishes) or command.for_ms <= 0:
                return before, "a cap needs watts of 0 or more and a time"
            return (faults, sup, _capped(cap, command, now_ms + command.for_ms)), ""


def _capped(cap: envelope.Cap, command: Command, until_ms: int) -> envelope.Cap:
    """With the directions the command names; the other one stays as it is."""
    charge, discharge = (
        None if w is None else envelope.Bound(w, until_ms) for w in (command.charge_w, command.discharge_w)
    )
    return envelope.Cap(charge or cap.charge, discharge or cap.discharge)


def _recovery_cap(cap: envelope.Cap, sup: Supervisor, pack: BatterySnapshot) -> envelope.Cap:
    """A recovery charge takes 5 A at most, and gives nothing."""
    until_ms = sup.recovery_until_ms
    if until_ms is None:
        return cap
    charge_w = 0.0 if pack.pack_voltage_v is None else RECOVERY_A * pack.pack_voltage_v
    if cap.charge is not None:
        charge_w = min(charge_w, cap.charge.limit_w)
    return envelope.Cap(envelope.Bound(charge_w, until_ms), envelope.Bound(0.0, until_ms))


def _acknowledge(name: str, before: Obeyed) -> tuple[Obeyed, str]:
    """Counters a person looks into start anew with the acknowledgement; their causes clear by that."""
    faults, sup, cap = before
    at_fault = sup.state is State.FAULT
    if name == Event.CLOSINGS_SPENT.value and faults.active_since_ms(Event.CLOSINGS_SPENT) is not None:
        pending = len(supervisor.settled(sup).closings_ms)
        return (faults, replace(sup, closings_ms=sup.closings_ms[pending:]), cap), ""
    if name == Event.PRECHARGE_TRIES_SPENT.value and at_fault:
        return (monitor.release(faults, Event.PRECHARGE_TRIES_SPENT), replace(sup, tries=0), cap), ""
    if name == Event.UNCLEAN_RESTARTS_SPENT.value and at_fault:
        return (monitor.release(faults, Event.UNCLEAN_RESTARTS_SPENT), replace(sup, unclean_ms=()), cap), ""
    faults, why = monitor.acknowledge(faults, name)
    return (faults, sup, cap), why or ""


def _waits_for_go(sup: Supervisor, setup: Setup, withheld: tuple[str, ...]) -> bool:
    """Only the inverter's own go is missing, and it takes up no offer of 0.

    Where nothing can be disconnected that counts once for each wish of a person: a go taken back is an end, not a wait.
    """
    waits = sup.state is State.STANDBY and setup.inverter.offers_before_go and withheld == (INVERTER_GO,)
    return waits and not (sup.ran and setup.settings.wiring == "none")


def _not_offered(sup: Supervisor, waits_for_go: bool) -> str:
    """Why the inverter is offered nothing in this state; empty when it is. A Gen24 must see an offer before its go."""
    return "" if sup.state is State.RUNNING or waits_for_go else sup.state.value


def _view(
    pack: BatterySnapshot, limits: envelope.Limits, sup: Supervisor, faults: monitor.Faults, settings: Settings,
    waits_for_go: bool,
) -> InverterView:  # fmt: skip
    """What the inverter is told: ACTIVE and a live outer voltage only in RUNNING (I10).

    The wiring `none` cannot disconnect, so off is FAULT there, but for the moment in which only the inverter's go is
    missing: a Gen24 gives none to a battery in FAULT.
    """
    running = sup.state is State.RUNNING
    latched = bool(faults.held) or sup.state in (State.FAULT, State.LOCKED_OUT)
    status = InverterStatus.STANDBY
    if latched or (settings.wiring == "none" and not running and not waits_for_go):
        status = InverterStatus.FAULT
    elif running:
        status = InverterStatus.ACTIVE
    known = pack.pack_voltage_v is not None and pack.current_a is not None
    return InverterView(
        status=status, soc_pct=pack.soc_pct, soh_pct=pack.soh_pct,
        energy_full_wh=pack.energy_full_wh or settings.pack.energy_full_wh,
        max_charge_w=float(int(limits.charge_w)), max_discharge_w=float(int(limits.discharge_w)),
        pack_voltage_v=pack.pack_voltage_v, outer_voltage_v=pack.pack_voltage_v if running else 0.0,
        current_a=pack.current_a if running else 0.0,
        power_w=(pack.pack_voltage_v * pack.current_a if known else None) if running else 0.0,  # type: ignore[operator]
        temp_min_c=pack.temp_min_c, temp_max_c=pack.temp_max_c, cell_min_v=pack.cell_min_v,
        cell_max_v=pack.cell_max_v, design_max_v=settings.pack.design_max_v,
        design_min_v=settings.pack.design_min_v, max_power_w=settings.max_power_w,
        charged_wh=pack.charged_wh, discharged_wh=pack.discharged_wh,
    )  # fmt: skip


def _kept(sup: Supervisor, faults: monitor.Faults) -> Kept:
    closed = sup.recorded_seq is not None or sup.state in _CLOSED_ON_RECORD
    latched = tuple(rule.id.value for rule in faults.held)
    return Kept(closed, sup.locked, latched, sup.tries, sup.closings_ms, sup.precharges_ms, sup.unclean_ms)


def _seq(record: Record | None) -> int:
    return record.seq if record else 0


RETRY_MS = 1000
"""A record that was not stored is handed out again this often."""

_CLOSED_ON_RECORD = frozenset(
    {
        State.WAKING_PACK, State.CLOSING_NEGATIVE, State.PRECHARGING, State.CLOSING_POSITIVE, State.RUNNING,
        State.UNLOADING, State.OPENING_POSITIVE, State.VERIFYING_OPEN,
    }
)  # fmt: skip


def _told(was: State, sup: Supervisor, s: Situation, fired: bool) -> tuple[Notice, ...]:
    """What a change of state itself has to report."""
    if not fired or sup.state is was or s.shadow:
        return ()
    told: list[Notice] = []
    if sup.state is State.COOLING_DOWN:
        told.append(Notice(Event.PRECHARGE_FAILED, Severity.WARNING, f"try {sup.tries}: {sup.cause}"))
    carried = was in (State.CLOSING_POSITIVE, State.RUNNING, State.UNLOADING, State.OPENING_POSITIVE)
    current_a = s.pack.current_a
    if carried and sup.state in (State.OPENING_POSITIVE, State.VERIFYING_OPEN, State.LOCKED_OUT):
        if not supervisor.unloaded(s, sup, NO_FAULTS):
            shown = "unknown" if current_a is None else f"{current_a:g}"
            told.append(Notice(Event.OPENED_UNDER_LOAD, Severity.WARNING, f"current_a {shown}, {sup.cause}"))
    return tuple(told)


def _blocked(faults: monitor.Faults) -> str:
    """The cause that forbids energising anything more, acting or only seen; empty when none does."""
    acting = faults.acting(Severity.NO_CLOSING, Severity.GRACEFUL, Severity.OPEN, Severity.LOCK_OUT)
    blocking = acting or faults.suspected
    return blocking[0].id.value if blocking else ""
