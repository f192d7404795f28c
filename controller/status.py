"""What the controller tells of itself: one JSON object for page, terminal, gateway. Unknown is null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from controller import supervisor
from controller.core import CoreState
from controller.model.battery import RESOLUTION, SIGNALS
from controller.model.events import Event, Notice
from controller.model.texts import TEXTS
from controller.safety.monitor import RULE_OF
from controller.supervisor import DAY_MS, HOUR_MS
from statecharts.supervisor import SUPERVISOR, Contactor, State, energised

SCHEMA: Final = 1


class Happened(NamedTuple):
    at_ms: int
    notice: Notice


class Aside(NamedTuple):
    """What the core does not know of itself. trouble: why the record is not stored, empty when it is.

    registers: the blocks the inverter reads now. bus: what the ports count, by port and counter. events_lost: lines the
    journal did not take, None when nobody counts. black_box: the span it holds, its size, the newest bundle; None when
    there is none.
    """

    program: str
    config: str
    closed: frozenset[Contactor]
    stored_seq: int
    trouble: str
    registers: Mapping[int, Sequence[int]]
    events: Sequence[Happened]
    lateness: Mapping[str, Any]
    bus: Mapping[str, Mapping[str, int]]
    events_lost: int | None = None
    black_box: Mapping[str, Any] | None = None


def status(core: CoreState, aside: Aside, now_ms: int) -> dict[str, Any]:
    """Everything, at now_ms. Times ago are in s; t_ms and t_s are of the loop's own clock."""
    sup, setup = core.supervisor, core.setup
    return {
        "version": SCHEMA, "schema": SCHEMA, "program": aside.program, "config": aside.config,
        "battery": setup.battery.name, "wiring": setup.settings.wiring, "listen_only": setup.shadow,
        "t_ms": now_ms, "state": sup.state.value, "cause": sup.cause, "since_s": _s(now_ms - sup.since_ms),
        "note": SUPERVISOR.notes[sup.state],
        "enabled": sup.enabled, "auto_enable": setup.settings.contactors.auto_enable, "stopping": sup.exiting,
        "closed": [member.value for member in Contactor if member in aside.closed],
        "disconnected": setup.settings.wiring != "none" and not energised(sup.state, setup.settings.wiring),
        "withheld": list(core.withheld),
        "limits": {
            "charge_w": int(core.limits.charge_w), "discharge_w": int(core.limits.discharge_w),
            "charge_by": core.limits.charge_by, "discharge_by": core.limits.discharge_by,
        },
        "cap": _cap(core, now_ms),
        "signals": {name: _rounded(name, getattr(core.pack, name)) for name in (*SIGNALS, "cells", "serial")},
        "ages_s": _ages(core, now_ms),
        "cells_v": list(core.pack.cells_v),
        "balancing": None if core.pack.balancing is None else list(core.pack.balancing),
        "faults": _faults(core, now_ms),
        "inverter": _inverter(core, aside, now_ms),
        "closings": {
            "hour": supervisor.closings_within(sup, HOUR_MS, now_ms),
            "hour_max": setup.settings.contactors.closings_per_hour,
            "day": supervisor.closings_within(sup, DAY_MS, now_ms),
            "day_max": setup.settings.contactors.closings_per_day,
            "failed_precharges": sup.tries, "unclean_restarts_day": len(sup.unclean_ms),
        },
        "lateness_ms": aside.lateness,
        "bus": {**aside.bus, "pack": {"decoded": core.pack.decoded_frames, "corrupt": core.pack.corrupt_frames}},
        "black_box": aside.black_box,
        "record": {
            "seq": core.record.seq if core.record else None, "stored_seq": aside.stored_seq,
            "stored": core.record is None or aside.stored_seq >= core.record.seq, "trouble": aside.trouble or None,
        },
        "events": [
            {"t_s": at_ms / 1000, "id": n.id.value, "severity": n.severity.value, "detail": n.detail}
            for at_ms, n in aside.events
        ],
        "events_lost": aside.events_lost,
    }  # fmt: skip


def _s(duration_ms: int | None) -> float | None:
    return None if duration_ms is None else duration_ms / 1000


def _rounded(name: str, value: Any) -> Any:
    return round(value, RESOLUTION[name]) if isinstance(value, float) and name in RESOLUTION else value


def _cap(core: CoreState, now_ms: int) -> dict[str, Any]:
    """The operator's caps that still count; null where there is none."""
    return {
        name: None if bound is None else {"limit_w": bound.limit_w, "left_s": _s(bound.until_ms - now_ms)}
        for name, bound in core.cap.at(now_ms)._asdict().items()
    }


def _ages(core: CoreState, now_ms: int) -> dict[str, float | None]:
    """How long ago each signal that is judged for freshness was last valid; null when it never was."""
    feeds = core.pack.feeds
    ages = {name: _s(freshness.age_ms(now_ms)) for feed, freshness in feeds.items() for name in feed.signals}
    link_ms = core.pack.link_at_ms
    return {**ages, "link_voltage_v": None if link_ms is None else _s(now_ms - link_ms)}


def _faults(core: CoreState, now_ms: int) -> list[dict[str, Any]]:
    """Every cause that acts or is held, in the order of the rules. since_s is null for one from before the start."""
    found = []
    for event, rule in RULE_OF.items():
        track = core.faults.tracks.get(event)
        if track is None or (track.active_since_ms is None and not track.held):
            continue
        text, since_ms = TEXTS[event], track.active_since_ms
        found.append(
            {
                "id": event.value, "severity": rule.severity.value, "held": track.held, "active": since_ms is not None,
                "since_s": None if since_ms is None else _s(now_ms - since_ms),
                "clears_itself_s": _s(rule.quiet_ms), "what": text.what, "cause": text.cause, "do": text.todo,
            }
        )  # fmt: skip
    return found


def _inverter(core: CoreState, aside: Aside, now_ms: int) -> dict[str, Any]:
    heard_ms = core.request.heard_at_ms
    registers = {first: tuple(words) for first, words in aside.registers.items()}
    says = core.setup.inverter.explain(registers)
    return {
        "name": core.setup.inverter.name, "go": core.request.go,
        "heard_s": None if heard_ms is None else _s(now_ms - heard_ms),
        "battery_voltage_v": core.request.battery_voltage_v,
        "says": {str(first): dict(values) for first, values in says.items()},
        "registers": {str(first): list(words) for first, words in registers.items() if first in says},
    }  # fmt: skip


def headline(core: CoreState) -> str:
    """One line: where it is and why it is there."""
    sup, limits = core.supervisor, core.limits
    line = f"{sup.state.value} ({sup.cause})"
    if sup.state is State.RUNNING:
        return f"{line}, charge {int(limits.charge_w)} W, discharge {int(limits.discharge_w)} W"
    if core.faults.held:
        return f"{line}, held by {', '.join(rule.id.value for rule in core.faults.held)}"
    if core.withheld:
        return f"{line}, waits for: {'; '.join(core.withheld)}"
    return line


def knows(name: str) -> bool:
    """Is there an event of this name?"""
    return name in Event._value2member_map_
