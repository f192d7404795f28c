"""One look at the world, everything known, healthy and permitted, for tests of what judges a single tick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controller.model.battery import Feed
from controller.model.inverter import InverterRequest
from controller.model.reading import Freshness
from controller.model.settings import CHEMISTRIES, PackSettings, PrechargeSettings, Settings
from controller.safety.situation import Situation
from statecharts.supervisor import WIRINGS, Contactor, State, energised
from tests.bench import HEALTHY, ROUNDS_MS

NOW_MS = 1_000_000
OWN = PackSettings(CHEMISTRIES["nca"], 96, 50.0, 60.0)
SETTINGS = Settings("said", "said", "own", OWN, 15_000.0, PrechargeSettings(resistance_ohm=100.0, capacitance_f=0.001))
RELAYS = WIRINGS["own"]


def feeds(ages: Mapping[Feed, int | None] | None = None, rounds: Mapping[Feed, int] | None = None) -> dict:
    """Every feed valid now, but those of `ages`: so many ms old, or never seen (None)."""
    old, every = ages or {}, {**ROUNDS_MS, **(rounds or {})}
    return {
        feed: Freshness(None if old.get(feed, 0) is None else NOW_MS - (old.get(feed) or 0), every[feed])
        for feed in Feed
    }  # fmt: skip


def seen(
    wiring: str = "own", state: State = State.STANDBY, *, pack: Mapping[str, object] | None = None,
    report: Mapping[str, object] | None = None, request: Mapping[str, object] | None = None,
    settings: Settings = SETTINGS, **changes: object,
) -> Situation:  # fmt: skip
    """What is known in `state`, with these values of the pack, its report, the inverter and the rest."""
    closed = energised(state, wiring)
    said = HEALTHY._replace(**{"feeds": feeds(), **(pack or {})})
    return Situation(
        now_ms=NOW_MS, pack=said._replace(report=replace(said.report, **(report or {}))),
        request=replace(InverterRequest(go=True, heard_at_ms=NOW_MS), **(request or {})),
        settings=replace(settings, wiring=wiring), state=state, closed=closed,
        feedback={c: c in closed for c in Contactor if c in RELAYS & WIRINGS[wiring]}, estop_ok=True, interlock_ok=True,
        link_voltage_v=360.0 if closed else 0.0, link_at_ms=NOW_MS, breakdowns=frozenset(), offset_a=0.0,
        charge_limit_w=0.0, discharge_limit_w=0.0, corrupt=0, soc_jumped=False, weld_measured=False, tries=0,
        closings_hour=0, closings_day=0, feedback_lost=False, unclean=False, unclean_day=0, started_ms=0,
        inverter_zero_ms=20_000, inverter_silent_ms=60_000, inverter_follow_ms=8_000, inverter_asks=True,
        recovering=False, shadow=False, since_ms=NOW_MS - 60_000,
    )._replace(**changes)  # fmt: skip
