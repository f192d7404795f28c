"""ONE row for each hazard of the safety concept, section 3. The monitor owns time, latching and memory.

A condition answers True (bad), False (known to be good) or None (cannot tell: it neither counts nor clears).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from controller.model.battery import Feed, PackContactor
from controller.model.events import Event, Severity
from controller.model.settings import RECOVERY_FLOOR_ELSE_V, RECOVERY_FLOOR_V
from controller.safety.situation import Situation
from statecharts.supervisor import LADDER, Contactor, State

E, V = Event, Severity
Condition = Callable[[Situation], bool | None]


class Masked(Enum):
    """Why a rule says nothing about a recording. The value is the reason in words."""

    COMMAND = "compares our command with the pack's contactors"
    INVERTER = "compares with an inverter the recording does not hold"


@dataclass(frozen=True)
class Rule:
    """One cause: when it is bad for `hold_ms`, `severity` happens.

    wait_ms: of a graceful cause, the longest wait for the break current. budget_ms: from the first bad frame to outputs
    off. quiet_ms: it clears itself after being good this long; None: what it opened stays latched until acknowledged.
    always: it is held although nothing is energised (†). rests: it leads to STANDBY and holds nothing.
    charge, discharge: the directions a LIMIT zeroes. masked: why it is silent in shadow, None when it runs there.
    """

    id: Event
    severity: Severity
    threshold: str
    when: Condition
    why: str
    hold_ms: int = 0
    wait_ms: int = 0
    budget_ms: int | None = None
    quiet_ms: int | None = None
    always: bool = False
    rests: bool = False
    charge: bool = True
    discharge: bool = True
    masked: Masked | None = None
    detail: Callable[[Situation], str] = lambda s: ""


def _above(value: float | None, bound: float | None) -> bool | None:
    return None if value is None or bound is None else value > bound


def _below(value: float | None, bound: float | None) -> bool | None:
    return None if value is None or bound is None else value < bound


def _reaches(value: float | None, bound: float) -> bool | None:
    return None if value is None else value >= bound


def _sinks_to(value: float | None, bound: float) -> bool | None:
    return None if value is None else value <= bound


def _or(*answers: bool | None) -> bool | None:
    """True when one is; None when none is and one cannot tell."""
    if True in answers:
        return True
    return None if None in answers else False


def older(feed: Feed, rounds: int) -> Condition:
    """Not valid for more than `rounds` of its rounds, of 500 ms at least. None when never seen: unknown, no fault."""

    def check(s: Situation) -> bool | None:
        freshness = s.pack.feeds.get(feed)
        if freshness is None or freshness.valid_at_ms is None:
            return None
        age_ms = s.now_ms - freshness.valid_at_ms
        return age_ms > rounds * 500 and age_ms > rounds * freshness.round_ms

    return check


def pack_data_older(extra_ms: int) -> Condition:
    """Voltage or current not valid for max(500 ms, 5 cycles) and `extra_ms`."""

    def check(s: Situation) -> bool | None:
        worst: bool | None = False
        for feed in (Feed.VOLTAGE, Feed.CURRENT):
            freshness = s.pack.feeds.get(feed)
            if freshness is None or freshness.valid_at_ms is None:
                worst = None
            elif (late_ms := s.now_ms - freshness.valid_at_ms - extra_ms) > 500 and late_ms > 5 * freshness.round_ms:
                return True
        return worst

    return check


def soc_older(than_ms: int) -> Condition:
    def check(s: Situation) -> bool | None:
        age_ms = s.age_ms(Feed.SOC)
        return None if age_ms is None else age_ms > than_ms

    return check


def overcurrent(s: Situation) -> bool | None:
    if (current_a := s.pack.current_a) is None:
        return None
    bound_a = s.settings.pack.max_charge_a if current_a > 0 else s.settings.pack.max_discharge_a
    return abs(current_a) > 1.2 * bound_a


def cell_limit_ignored(s: Situation) -> bool | None:
    cell, current_a = s.settings.pack.chemistry, s.net_current_a
    if current_a is None:
        return None
    if current_a > 2.0:
        return _reaches(s.pack.cell_max_v, cell.charge_stop_v)
    if current_a < -2.0:
        return _sinks_to(s.pack.cell_min_v, cell.discharge_stop_v)
    return False


def pack_voltage_critical(s: Situation) -> bool | None:
    if (voltage_v := s.pack.pack_voltage_v) is None:
        return None
    pack = s.settings.pack
    lowest_v = pack.cells * recovery_floor_v(s) if s.recovering else 0.98 * pack.design_min_v
    return not lowest_v <= voltage_v <= 1.02 * pack.design_max_v


def recovery_floor_v(s: Situation) -> float:
    """No cell may be below it in a recovery charge."""
    return RECOVERY_FLOOR_V.get(s.settings.pack.chemistry.name, RECOVERY_FLOOR_ELSE_V)


def cell_undervoltage_critical(s: Situation) -> bool | None:
    if s.recovering:
        return _below(s.pack.cell_min_v, recovery_floor_v(s))
    return _sinks_to(s.pack.cell_min_v, s.settings.pack.chemistry.critical_low_v)


def pack_fuse_blown(s: Situation) -> bool | None:
    return None if s.pack.pack_voltage_v is None else 0.5 <= s.pack.pack_voltage_v <= 5.0


def cells_contradict_pack(s: Situation) -> bool | None:
    pack, n = s.pack, s.settings.pack.cells
    if pack.pack_voltage_v is None or pack.cell_min_v is None or pack.cell_max_v is None:
        return None
    slack_v = max(3.0, 0.01 * pack.pack_voltage_v)
    return not n * pack.cell_min_v - slack_v <= pack.pack_voltage_v <= n * pack.cell_max_v + slack_v


def cell_spread(s: Situation) -> bool | None:
    pack = s.pack
    if pack.cell_min_v is None or pack.cell_max_v is None or s.net_current_a is None:
        return None
    return abs(s.net_current_a) < 5.0 and pack.cell_max_v - pack.cell_min_v > s.settings.pack.chemistry.spread_warn_v


def isolation_low(s: Situation) -> bool | None:
    pack, bound = s.pack, s.settings.pack
    if pack.isolation_kohm is None:
        return pack.report.isolation_alert
    volts = pack.pack_voltage_v if pack.pack_voltage_v is not None else bound.design_max_v
    return pack.isolation_kohm < max(bound.isolation_min_kohm, bound.isolation_kohm_per_v * volts)


def only_open(condition: Condition) -> Condition:
    return lambda s: False if s.live else condition(s)


def only_live(condition: Condition) -> Condition:
    return lambda s: condition(s) if s.live else False


def feedback_mismatch(s: Situation) -> bool | None:
    known = [(c, s.feedback.get(c)) for c in (Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE)]
    return any(fed_back is not None and fed_back is not (c in s.closed) for c, fed_back in known)


def pack_left_closed(s: Situation) -> bool | None:
    if Contactor.PACK not in s.closed or s.state is State.WAKING_PACK:
        return False
    return None if s.pack.contactor_state is None else s.pack.contactor_state is not PackContactor.CLOSED


def pack_closed_unasked(s: Situation) -> bool | None:
    if s.live or s.state is State.STARTING or not s.settings.wiring.startswith("pack"):
        return False
    return None if s.pack.contactor_state is None else s.pack.contactor_state is PackContactor.CLOSED


def current_while_open(s: Situation) -> bool | None:
    """Everything of ours is off, the pack (where it has a say) says OPEN, and current flows all the same."""
    wiring, says = s.settings.wiring, s.pack.contactor_state
    if s.closed or s.live or s.state is State.STARTING or wiring == "none":
        return False
    if wiring.startswith("pack") and says is not PackContactor.OPEN:
        return None if says is None else False
    if s.offset_a is None or s.pack.current_a is None:
        return None
    return abs(s.pack.current_a - s.offset_a) > 5.0


def over_limit(s: Situation) -> bool | None:
    """In RUNNING; in every state where nothing can be disconnected."""
    if s.state is not State.RUNNING and s.settings.wiring != "none":
        return False
    if s.pack.pack_voltage_v is None or s.net_current_a is None:
        return None
    power_w = s.pack.pack_voltage_v * s.net_current_a
    limit_w = s.charge_limit_w if power_w > 0 else s.discharge_limit_w
    return abs(power_w) > limit_w + max(1000.0, 0.1 * limit_w)


def link_contradicts_pack(s: Situation) -> bool | None:
    """Behind closed relays of ours a fresh link voltage is the pack's, or something between them is open."""
    if s.state is not State.RUNNING or s.settings.wiring != "own":
        return False
    pack_v, link_v, at_ms = s.pack.pack_voltage_v, s.link_voltage_v, s.link_at_ms
    if pack_v is None or link_v is None or at_ms is None or s.now_ms - at_ms > 1000:
        return None
    return abs(pack_v - link_v) > max(10.0, 0.05 * pack_v)


def inverter_contradicts_pack(s: Situation) -> bool | None:
    """What it measured before the contactors closed says nothing."""
    if s.state is not State.RUNNING:
        return False
    if s.request.link_at_ms is not None and s.request.link_at_ms <= s.since_ms:
        return None
    if s.pack.pack_voltage_v is None or s.request.battery_voltage_v is None:
        return None
    return abs(s.pack.pack_voltage_v - s.request.battery_voltage_v) > 10.0


def inverter_unheard(which: str) -> Condition:
    """Silent for the profile's time; an inverter never heard is silent since the start."""

    def check(s: Situation) -> bool | None:
        heard_ms = s.started_ms if s.request.heard_at_ms is None else s.request.heard_at_ms
        bound_ms: int = getattr(s, which)
        return not s.settings.off_grid and s.now_ms - heard_ms > bound_ms

    return check


def inverter_revoked(s: Situation) -> bool | None:
    if not s.inverter_asks or s.state not in (*LADDER, State.RUNNING, State.UNLOADING, State.OPENING_POSITIVE):
        return False
    return s.request.go is not True if s.state in LADDER else s.request.go is False


def broke_down(event: Event) -> Condition:
    return lambda s: event in s.breakdowns


def volts(name: str) -> Callable[[Situation], str]:
    return lambda s: f"{name} {_shown(getattr(s.pack, name))}"


def amps(s: Situation) -> str:
    return f"current_a {_shown(s.pack.current_a)}"


def ages(*feeds: Feed) -> Callable[[Situation], str]:
    return lambda s: ", ".join(f"{feed.value}: last valid {_shown(s.age_ms(feed))} ms ago" for feed in feeds)


def alerts(s: Situation) -> str:
    state = s.pack.contactor_state
    named = "contactors " + (state.value if state else "unknown")
    return named + "".join(f" a{number:03d}" for number in s.pack.report.alerts)


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"


QUIET_MS = 60_000
BEAT_MS = 300_000

RULES: tuple[Rule, ...] = (
    # people and hard wires
    Rule(E.ESTOP_OPEN, V.OPEN, "input open", lambda s: None if s.estop_ok is None else not s.estop_ok,
         "The hard-wired part has already cut the coils; the outputs must agree before it is released.",
         hold_ms=30, budget_ms=250, always=True),
    Rule(E.INTERLOCK_OPEN, V.OPEN, "input open", lambda s: None if s.interlock_ok is None else not s.interlock_ok,
         "An open loop means that somebody may touch live parts.", hold_ms=100, budget_ms=250),
    Rule(E.HVIL_OPEN, V.OPEN, "the pack reports its loop open",
         lambda s: None if s.pack.hvil_ok is None else not s.pack.hvil_ok,
         "An open loop means that a connector or lid of the pack is open.", hold_ms=100, budget_ms=250, detail=alerts),
    # the pack's condition
    Rule(E.OVERCURRENT, V.OPEN, "> 1.2 × configured maximum of that direction", overcurrent,
         "Cable and fuse are the bound, not what the BMS allows.", hold_ms=100, budget_ms=250, detail=amps),
    Rule(E.CELL_OVERVOLTAGE_CRITICAL, V.OPEN, "highest cell ≥ critical high",
         lambda s: _reaches(s.pack.cell_max_v, s.settings.pack.chemistry.critical_high_v),
         "Overcharging a cell can end in fire; the pack's own cut-off is not leaned on alone.",
         hold_ms=500, budget_ms=750, detail=volts("cell_max_v")),
    Rule(E.CELL_UNDERVOLTAGE_CRITICAL, V.OPEN, "lowest cell ≤ critical low",
         cell_undervoltage_critical,
         "A cell discharged this far dissolves its copper and must not be charged again as if nothing had been.",
         hold_ms=500, budget_ms=750, detail=volts("cell_min_v")),
    Rule(E.CELL_OVERVOLTAGE, V.LIMIT, "highest cell ≥ charge stop",
         lambda s: _reaches(s.pack.cell_max_v, s.settings.pack.chemistry.charge_stop_v),
         "The taper has ended; nothing more goes in.", discharge=False, detail=volts("cell_max_v")),
    Rule(E.CELL_UNDERVOLTAGE, V.LIMIT, "lowest cell ≤ discharge stop",
         lambda s: _sinks_to(s.pack.cell_min_v, s.settings.pack.chemistry.discharge_stop_v),
         "The taper has ended; nothing more comes out.", charge=False, detail=volts("cell_min_v")),
    Rule(E.CELL_LIMIT_IGNORED, V.GRACEFUL, "cell at its stop and still > 2 A in that direction", cell_limit_ignored,
         "An inverter that does not follow a limit of 0 leaves only the contactors.",
         hold_ms=10_000, wait_ms=1800, budget_ms=12_000, detail=amps),
    Rule(E.PACK_VOLTAGE_HIGH, V.LIMIT, "> cells × charge stop",
         lambda s: _above(s.pack.pack_voltage_v, s.settings.pack.design_max_v),
         "The sum says what the extremes may not.", hold_ms=500, discharge=False, detail=volts("pack_voltage_v")),
    Rule(E.PACK_VOLTAGE_LOW, V.LIMIT, "< cells × discharge stop",
         lambda s: _below(s.pack.pack_voltage_v, s.settings.pack.design_min_v),
         "The sum says what the extremes may not.", hold_ms=500, charge=False, detail=volts("pack_voltage_v")),
    Rule(E.PACK_VOLTAGE_CRITICAL, V.OPEN, "outside that window by 2 %", pack_voltage_critical,
         "Beyond what any healthy pack of this kind can read.", hold_ms=500, budget_ms=750,
         detail=volts("pack_voltage_v")),
    Rule(E.PACK_FUSE_BLOWN, V.OPEN, "pack voltage 0.5…5 V", pack_fuse_blown,
         "A pack that reads almost nothing has most likely fired its pyro fuse.", hold_ms=500, budget_ms=750,
         detail=volts("pack_voltage_v")),
    Rule(E.TEMPERATURE_CRITICAL, V.GRACEFUL, "hottest ≥ limit + 5 K",
         lambda s: _reaches(s.pack.temp_max_c, s.settings.pack.temp_max_c + 5.0),
         "Heat feeds itself; the limits were already 0 at the limit.", hold_ms=5000, wait_ms=800, budget_ms=6000,
         detail=volts("temp_max_c")),
    Rule(E.CELL_SPREAD, V.WARNING, "spread > chemistry's warning, at rest", cell_spread,
         "A weak or unbalanced cell ends charge and discharge early.", hold_ms=5000, quiet_ms=QUIET_MS,
         detail=lambda s: f"cells {_shown(s.pack.cell_min_v)} to {_shown(s.pack.cell_max_v)} V"),
    Rule(E.CELLS_CONTRADICT_PACK, V.LIMIT, "pack voltage outside n·min…n·max by > max(3 V, 1 %)", cells_contradict_pack,
         "One of the two is wrong, and limits are judged by both.", hold_ms=5000, detail=volts("pack_voltage_v")),
    Rule(E.CELLS_CONTRADICT_PACK_LONG, V.GRACEFUL, "the same for longer", cells_contradict_pack,
         "A contradiction that stays is no transient.", hold_ms=30_000, wait_ms=800, budget_ms=31_000,
         detail=volts("pack_voltage_v")),
    Rule(E.SOC_JUMP, V.WARNING, "|ΔSoC| > I·dt/C + 0.5 %", lambda s: s.soc_jumped,
         "An SoC that jumps is not to be planned with: half power until it has been plausible for a minute.",
         quiet_ms=QUIET_MS, detail=volts("soc_pct")),
    Rule(E.ISOLATION_LOW, V.NO_CLOSING, "open: < max(100 kΩ, 500 Ω/V), or the pack's alert", only_open(isolation_low),
         "A pole with a path to ground makes the next touch a shock.", hold_ms=5000, detail=volts("isolation_kohm")),
    Rule(E.ISOLATION_WARNING, V.WARNING, "closed: the same", only_live(isolation_low),
         "A transformerless inverter spoils the reading while closed, so this only warns.", hold_ms=5000,
         quiet_ms=QUIET_MS, detail=volts("isolation_kohm")),
    Rule(E.LV_SUPPLY_LOW, V.NO_CLOSING, "open: 12 V supply < 11.7 V",
         only_open(lambda s: _below(s.pack.lv_supply_v, s.settings.pack.lv_min_open_v)),
         "Weak coils weld.", hold_ms=1000, detail=volts("lv_supply_v")),
    Rule(E.LV_SUPPLY_LOW_CLOSED, V.GRACEFUL, "closed: 12 V supply < 10.5 V",
         only_live(lambda s: _below(s.pack.lv_supply_v, s.settings.pack.lv_min_closed_v)),
         "Weak coils weld; open while they still hold.", hold_ms=5000, wait_ms=2000, budget_ms=8000,
         quiet_ms=QUIET_MS, detail=volts("lv_supply_v")),
    Rule(E.CURRENT_OFFSET_HIGH, V.NO_CLOSING, "|I₀| > 6 A with everything open",
         only_open(lambda s: None if s.offset_a is None else abs(s.offset_a) > s.settings.contactors.offset_max_a),
         "A sensor this far off cannot judge a precharge or a weld.",
         detail=lambda s: f"offset_a {_shown(s.offset_a)}"),
    # the pack's data
    Rule(E.PACK_DATA_STALE, V.LIMIT, "voltage or current > max(500 ms, 5 cycles) old", pack_data_older(0),
         "What is not measured is not known.", detail=ages(Feed.VOLTAGE, Feed.CURRENT)),
    Rule(E.PACK_DATA_LOST, V.OPEN, "the same, 600 ms later", pack_data_older(600),
         "Nobody closes a battery with closed eyes.", budget_ms=1200, quiet_ms=QUIET_MS,
         detail=ages(Feed.VOLTAGE, Feed.CURRENT)),
    Rule(E.CELL_DATA_STALE, V.LIMIT, "cell extremes > 3 rounds old", older(Feed.CELLS, 3),
         "A cell can run away between two looks.", detail=ages(Feed.CELLS)),
    Rule(E.CELL_DATA_LOST, V.GRACEFUL, "> 5 rounds", older(Feed.CELLS, 5),
         "A cell can run away between two looks.", wait_ms=1800, quiet_ms=QUIET_MS, detail=ages(Feed.CELLS)),
    Rule(E.TEMPERATURE_DATA_STALE, V.LIMIT, "temperatures > 3 rounds old", older(Feed.TEMPERATURES, 3),
         "Charging a frozen cell plates lithium.", detail=ages(Feed.TEMPERATURES)),
    Rule(E.TEMPERATURE_DATA_LOST, V.GRACEFUL, "> 5 rounds", older(Feed.TEMPERATURES, 5),
         "Charging a frozen cell plates lithium.", wait_ms=1800, quiet_ms=QUIET_MS, detail=ages(Feed.TEMPERATURES)),
    Rule(E.CONTACTOR_DATA_STALE, V.LIMIT, "contactor state > 3 rounds old", older(Feed.CONTACTOR, 3),
         "Whether the pack is still connected decides what the current means.", detail=ages(Feed.CONTACTOR)),
    Rule(E.CONTACTOR_DATA_LOST, V.GRACEFUL, "> 5 rounds", older(Feed.CONTACTOR, 5),
         "Whether the pack is still connected decides what the current means.", wait_ms=1800, quiet_ms=QUIET_MS,
         detail=ages(Feed.CONTACTOR)),
    Rule(E.HVIL_DATA_STALE, V.LIMIT, "HVIL > 3 rounds old", older(Feed.HVIL, 3),
         "An interlock that is not read protects nobody.", detail=ages(Feed.HVIL)),
    Rule(E.HVIL_DATA_LOST, V.GRACEFUL, "> 5 rounds", older(Feed.HVIL, 5),
         "An interlock that is not read protects nobody.", wait_ms=1800, quiet_ms=QUIET_MS, detail=ages(Feed.HVIL)),
    Rule(E.SOC_STALE, V.LIMIT, "SoC > 10 s old", soc_older(10_000),
         "The inverter plans with it.", detail=ages(Feed.SOC)),
    Rule(E.SOC_LOST, V.GRACEFUL, "> 60 s", soc_older(60_000),
         "The inverter plans with it, and is told FAULT.", wait_ms=2000, budget_ms=63_000, quiet_ms=QUIET_MS,
         detail=ages(Feed.SOC)),
    Rule(E.FRAMES_CORRUPT, V.WARNING, "a known id with wrong checksum, counter or length", lambda s: s.corrupt > 0,
         "A bus that corrupts frames also loses them; a refused frame refreshes nothing.", quiet_ms=QUIET_MS,
         detail=lambda s: f"{s.pack.corrupt_frames} so far"),
    # what the pack's BMS says
    Rule(E.BMS_OPEN_NOW, V.OPEN, "the BMS demands opening at once", lambda s: s.pack.report.open_now,
         "The pack knows its cells best.", hold_ms=100, budget_ms=300, detail=alerts),
    Rule(E.BMS_FAULT, V.GRACEFUL, "the BMS reports a fault or asks to open",
         lambda s: _or(s.pack.report.fault, s.pack.report.open_asked),
         "The pack knows its cells best.", hold_ms=100, wait_ms=1700, budget_ms=2000, detail=alerts),
    Rule(E.BMS_RELAY_CUT, V.GRACEFUL, "the BMS withholds or takes back its permission",
         lambda s: s.pack.report.withholds, "A Leaf asks for it briefly and takes it back by itself.", hold_ms=100,
         wait_ms=1700, budget_ms=2000, quiet_ms=QUIET_MS, detail=amps),
    Rule(E.BMS_WARNING, V.WARNING, "the BMS warns", lambda s: s.pack.report.warns,
         "The pack knows its cells best.", hold_ms=100, quiet_ms=QUIET_MS, detail=alerts),
    Rule(E.BMS_NO_CHARGE, V.LIMIT, "the BMS forbids charging", lambda s: s.pack.report.no_charge,
         "The pack knows its cells best.", hold_ms=100, discharge=False),
    Rule(E.BMS_NO_DISCHARGE, V.LIMIT, "the BMS forbids discharging", lambda s: s.pack.report.no_discharge,
         "The pack knows its cells best.", hold_ms=100, charge=False),
    Rule(E.PACK_REFUSES, V.OPEN, "BLOCKED, reset required, close blocked", lambda s: s.pack.report.refuses,
         "Asking a pack again that refused hides the reason; take its 12 V away for a minute, look, acknowledge.",
         hold_ms=300, budget_ms=500, always=True, detail=alerts),
    Rule(E.PACK_LINK_LOADED, V.WARNING, "close failure with a load on the link, or LV supply < 9.5 V while closing",
         lambda s: s.pack.report.link_loaded, "The pack's DC-DC cannot charge a link something draws from.",
         hold_ms=300, detail=alerts),
    # contactors
    Rule(E.FEEDBACK_MISMATCH, V.OPEN, "relay feedback ≠ command", feedback_mismatch,
         "A relay that does not follow is welded, stuck or not ours.", hold_ms=200, budget_ms=350, always=True,
         masked=Masked.COMMAND),
    Rule(E.FEEDBACK_LOST, V.GRACEFUL, "a relay once fed back is not any more", lambda s: s.feedback_lost,
         "A relay nobody sees may do anything.", hold_ms=1000, wait_ms=1800, budget_ms=3000, quiet_ms=QUIET_MS,
         masked=Masked.COMMAND),
    Rule(E.PACK_CLOSED_UNASKED, V.LOCK_OUT, "the pack is CLOSED, not asked to be", pack_closed_unasked,
         "It opens within 10 s of being told, or it is welded, or somebody else holds it.", hold_ms=10_000, always=True,
         masked=Masked.COMMAND, detail=alerts),
    Rule(E.PACK_LEFT_CLOSED, V.OPEN, "the pack leaves CLOSED unasked", pack_left_closed,
         "Whatever made it open, our outputs must not close into it again by themselves.", hold_ms=200, budget_ms=350,
         always=True, masked=Masked.COMMAND, detail=alerts),
    Rule(E.WELD_REPORTED, V.LOCK_OUT, "the pack reports a welded contactor", lambda s: s.pack.report.welded,
         "A welded contactor cannot open again when it must.", hold_ms=200, always=True, detail=alerts),
    Rule(E.WELD_CURRENT, V.LOCK_OUT, "|I − I₀| > 5 A with everything open", current_while_open,
         "Current with everything open flows through a weld.", hold_ms=1000, always=True, masked=Masked.COMMAND,
         detail=amps),
    Rule(E.WELD_MEASURED, V.LOCK_OUT, "weld check contradicted (section 2)", lambda s: s.weld_measured,
         "A link that stays at pack voltage, or a contact that stays closed, is a weld.", always=True,
         masked=Masked.COMMAND, detail=lambda s: f"link_voltage_v {_shown(s.link_voltage_v)}"),
    Rule(E.LINK_CONTRADICTS_PACK, V.LIMIT, "own relays, RUNNING: link > max(10 V, 5 %) from the pack",
         link_contradicts_pack, "Something between pack and link is open; when it closes it welds.", hold_ms=1000,
         masked=Masked.COMMAND),
    Rule(E.LINK_CONTRADICTS_PACK_LONG, V.OPEN, "the same for longer", link_contradicts_pack,
         "Something between pack and link is open; when it closes it welds.", hold_ms=3000, budget_ms=3100,
         masked=Masked.COMMAND),
    Rule(E.PRECHARGE_TRIES_SPENT, V.OPEN, "3 failed tries", lambda s: s.tries >= s.settings.precharge.tries,
         "A precharge that keeps failing burns its resistor; find out why.", always=True, masked=Masked.COMMAND,
         detail=lambda s: f"{s.tries} tries"),
    Rule(E.CLOSINGS_SPENT, V.NO_CLOSING, "> 6 closings an hour or > 20 a day before an acknowledgement",
         only_open(lambda s: (s.closings_hour >= s.settings.contactors.closings_per_hour
                              or s.closings_day >= s.settings.contactors.closings_per_day)),
         "Contactors wear with every closing; something is switching them for no good.", masked=Masked.COMMAND,
         detail=lambda s: f"{s.closings_hour} this hour, {s.closings_day} this day"),
    # the inverter
    Rule(E.INVERTER_REVOKED, V.GRACEFUL, "the inverter takes its permission back", inverter_revoked,
         "An inverter that wants to be disconnected is, without breaking its current.", hold_ms=100, wait_ms=900,
         budget_ms=1200, quiet_ms=0, rests=True, masked=Masked.INVERTER, detail=amps),
    Rule(E.INVERTER_QUIET, V.LIMIT, "silent: Gen24 20 s, BYD CAN 35 s", inverter_unheard("inverter_zero_ms"),
         "An inverter that does not ask does not follow.", masked=Masked.INVERTER),
    Rule(E.INVERTER_SILENT, V.GRACEFUL, "silent: Gen24 60 s, BYD CAN 180 s", inverter_unheard("inverter_silent_ms"),
         "An inverter that is gone needs no battery on its terminals.", wait_ms=2000, budget_ms=183_000, quiet_ms=0,
         rests=True, masked=Masked.INVERTER),
    Rule(E.INVERTER_UNHEARD, V.WARNING, "off-grid profile: silent as long as that",
         lambda s: s.settings.off_grid and s.now_ms - (s.request.heard_at_ms or s.started_ms) > s.inverter_zero_ms,
         "Off-grid the house goes dark with the battery, so silence only warns.", quiet_ms=QUIET_MS,
         masked=Masked.INVERTER),
    Rule(E.INVERTER_BEAT_STOPPED, V.WARNING, "it asks, and its heartbeat has not changed for 5 min",
         lambda s: s.request.beat_at_ms is not None and s.now_ms - s.request.beat_at_ms > BEAT_MS,
         "The Gen24 changes register 402 every 57 s.", quiet_ms=QUIET_MS, masked=Masked.INVERTER),
    Rule(E.INVERTER_OVER_LIMIT, V.WARNING,
         "RUNNING, or nothing to open: power > limit + max(1 kW, 10 %) for the time to follow", over_limit,
         "The inverter does not follow its limits.", hold_ms=8000, quiet_ms=QUIET_MS, masked=Masked.INVERTER,
         detail=amps),
    Rule(E.INVERTER_IGNORES_LIMIT, V.GRACEFUL, "the same for 30 s", over_limit,
         "An inverter that does not follow leaves only the contactors.", hold_ms=30_000, wait_ms=800,
         budget_ms=31_000, masked=Masked.INVERTER, detail=amps),
    Rule(E.INVERTER_CONTRADICTS_PACK, V.LIMIT, "its voltage > 10 V from the pack's in RUNNING",
         inverter_contradicts_pack, "One of the two measures something else.", hold_ms=5000, masked=Masked.INVERTER),
    Rule(E.INVERTER_CONTRADICTS_PACK_LONG, V.GRACEFUL, "the same for longer", inverter_contradicts_pack,
         "A contradiction that stays is no transient.", hold_ms=30_000, wait_ms=800, budget_ms=31_000,
         masked=Masked.INVERTER),
    # the controller itself
    Rule(E.UNCLEAN_RESTART, V.OPEN, "“closed” on record at boot", lambda s: s.unclean,
         "Nobody saw it open; the weld check looks first.", quiet_ms=QUIET_MS, always=True, masked=Masked.COMMAND),
    Rule(E.UNCLEAN_RESTARTS_SPENT, V.OPEN, "the third in a day", lambda s: s.unclean_day >= 3,
         "A machine that keeps falling over is mended before it is trusted.", always=True, masked=Masked.COMMAND),
    Rule(E.TICK_LATE, V.WARNING, "a tick > 50 ms late", broke_down(E.TICK_LATE),
         "A late tick is a late decision.", quiet_ms=QUIET_MS),
    Rule(E.TICK_OVERRUN, V.OPEN, "> 200 ms, or 5 late ones in 1 s", broke_down(E.TICK_OVERRUN),
         "Late decisions cannot hold the budgets above.", budget_ms=600, always=True),
    Rule(E.EXCEPTION, V.OPEN, "an exception anywhere in the tick", broke_down(E.EXCEPTION),
         "What broke once cannot be trusted to decide.", budget_ms=10, always=True),
    Rule(E.RELAY_FAILED, V.OPEN, "a relay write fails", broke_down(E.RELAY_FAILED),
         "Outputs that cannot be written are not known.", budget_ms=10, always=True),
    Rule(E.GATE_REFUSED, V.OPEN, "the gate refuses", broke_down(E.GATE_REFUSED),
         "The supervisor wanted what must never be; both are stopped.", budget_ms=10, always=True),
    Rule(E.RECORD_LOST, V.LOCK_OUT, "both copies of the record are unreadable", broke_down(E.RECORD_LOST),
         "Without its record a latched cause or a weld would be forgotten.", always=True),
    Rule(E.BUS_FAILED, V.WARNING, "a bus cannot be used", broke_down(E.BUS_FAILED),
         "Its silence counts as stale data.", quiet_ms=QUIET_MS),
)  # fmt: skip
