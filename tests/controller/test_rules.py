"""Every row of the cause table, on each side of its limit and where nothing can be told; and its times, by hand."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from controller.model.battery import Feed, PackContactor
from controller.model.events import Event, Severity
from controller.model.settings import CHEMISTRIES
from controller.safety.monitor import RULE_OF
from controller.safety.rules import RULES, Masked
from statecharts.supervisor import LADDER, Contactor, State
from tests.situation import NOW_MS, SETTINGS, feeds, seen

E, V = Event, Severity
NEGATIVE, PRECHARGE, POSITIVE, PACK = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE, Contactor.PACK
OPEN, CLOSED = PackContactor.OPEN, PackContactor.CLOSED
RUNNING = State.RUNNING

Case = tuple[dict, bool | None]


def said(name: str, *cases: tuple[object, bool | None]) -> list[Case]:
    """The pack says this; unknown cannot be told."""
    return [*(({"pack": {name: value}}, bad) for value, bad in cases), ({"pack": {name: None}}, None)]


def reported(name: str) -> list[Case]:
    return [({"report": {name: value}}, value) for value in (True, False, None)]


def aged(feed: Feed, round_ms: int, *cases: tuple[int | None, bool | None]) -> list[Case]:
    """This feed is so old; its round is `round_ms`."""
    return [({"pack": {"feeds": feeds({feed: age}, {feed: round_ms})}}, bad) for age, bad in cases]


def older(feed: Feed, rounds: int) -> list[Case]:
    """Bad after so many rounds, of 500 ms at least; never seen cannot be told."""
    long_ms, short_ms = rounds * 2000, rounds * 500
    return [
        *aged(feed, 2000, (long_ms, False), (long_ms + 1, True), (None, None)),
        *aged(feed, 100, (short_ms, False), (short_ms + 1, True)),
        ({"pack": {"feeds": {}}}, None),
    ]


def data_older(extra_ms: int) -> list[Case]:
    """Voltage or current: 500 ms, or 5 of its cycles where that is longer."""
    both = (Feed.VOLTAGE, Feed.CURRENT)
    return [
        *(case for feed in both for case in aged(
            feed, 10, (500 + extra_ms, False), (501 + extra_ms, True), (None, None))),
        *(case for feed in both for case in aged(feed, 200, (1000 + extra_ms, False), (1001 + extra_ms, True))),
        ({"pack": {"feeds": feeds({Feed.VOLTAGE: None, Feed.CURRENT: 9000})}}, True),
        ({"pack": {"feeds": {}}}, None),
    ]  # fmt: skip


def flagged(name: str) -> list[Case]:
    return [({name: True}, True), ({name: False}, False)]


def broken(event: Event) -> list[Case]:
    others = frozenset(Event) - {event}
    return [({"breakdowns": frozenset({event})}, True), ({"breakdowns": others}, False)]


def unheard(after_ms: int) -> list[Case]:
    off_grid = replace(SETTINGS, off_grid=True)
    return [
        ({"request": {"heard_at_ms": NOW_MS - after_ms}}, False),
        ({"request": {"heard_at_ms": NOW_MS - after_ms - 1}}, True),
        ({"request": {"heard_at_ms": None}, "started_ms": NOW_MS - after_ms}, False),
        ({"request": {"heard_at_ms": None}, "started_ms": NOW_MS - after_ms - 1}, True),
        ({"request": {"heard_at_ms": 0}, "settings": off_grid}, False),
    ]


def running(bad: bool | None, wiring: str = "own", **changes: object) -> Case:
    return {"wiring": wiring, "state": RUNNING, **changes}, bad


def cells(low: float | None, high: float | None, volts: float | None = 360.0, amps: float | None = 0.0) -> dict:
    return {"pack": {"cell_min_v": low, "cell_max_v": high, "pack_voltage_v": volts, "current_a": amps}}


NCA, PACK_OF = SETTINGS.pack.chemistry, SETTINGS.pack
LTO = replace(SETTINGS, pack=replace(PACK_OF, chemistry=CHEMISTRIES["lto"]))

CONTRADICTION: list[Case] = [
    (cells(3.74, 3.76, 355.5), False), (cells(3.74, 3.76, 355.4), True),  # 359.04 V less 1 %
    (cells(3.74, 3.76, 364.6), False), (cells(3.74, 3.76, 364.7), True),  # 360.96 V and 1 %
    (cells(3.0, 3.0, 285.0), False), (cells(3.0, 3.0, 284.9), True),  # 288 V less 3 V
    (cells(3.0, 3.0, 291.0), False), (cells(3.0, 3.0, 291.1), True),
    (cells(None, 3.76), None), (cells(3.74, None), None), (cells(3.74, 3.76, None), None),
]  # fmt: skip
LINK: list[Case] = [
    running(False, link_voltage_v=342.0), running(True, link_voltage_v=341.9),  # 5 % of 360 V
    running(False, link_voltage_v=378.0), running(True, link_voltage_v=378.1),
    running(False, pack={"pack_voltage_v": 100.0}, link_voltage_v=90.0),
    running(True, pack={"pack_voltage_v": 100.0}, link_voltage_v=89.9),  # 10 V
    running(True, link_voltage_v=0.0, link_at_ms=NOW_MS - 1000),
    running(None, link_voltage_v=0.0, link_at_ms=NOW_MS - 1001), running(None, link_voltage_v=0.0, link_at_ms=None),
    running(None, link_voltage_v=None), running(None, link_voltage_v=0.0, pack={"pack_voltage_v": None}),
    running(False, "pack", link_voltage_v=0.0), ({"state": State.UNLOADING, "link_voltage_v": 0.0}, False),
]  # fmt: skip
OVER: list[Case] = [
    running(False, pack={"pack_voltage_v": 100.0, "current_a": 60.0}, charge_limit_w=5_000.0),
    running(True, pack={"pack_voltage_v": 100.0, "current_a": 60.005}, charge_limit_w=5_000.0),  # 1 kW more
    running(False, pack={"pack_voltage_v": 100.0, "current_a": 220.0}, charge_limit_w=20_000.0),
    running(True, pack={"pack_voltage_v": 100.0, "current_a": 220.1}, charge_limit_w=20_000.0),  # 10 % more
    running(False, pack={"pack_voltage_v": 100.0, "current_a": -60.0}, discharge_limit_w=5_000.0),
    running(True, pack={"pack_voltage_v": 100.0, "current_a": -60.005}, discharge_limit_w=5_000.0),
    running(True, pack={"pack_voltage_v": 100.0, "current_a": -60.1}, charge_limit_w=9_000.0),
    running(False, pack={"pack_voltage_v": 100.0, "current_a": 14.3}, offset_a=4.3),
    running(None, pack={"pack_voltage_v": None}), running(None, pack={"current_a": None}),
    ({"state": State.UNLOADING, "pack": {"current_a": 99.0}}, False),
    *(({"wiring": "none", "state": state, "pack": {"pack_voltage_v": 100.0, "current_a": amps}}, abs(amps) > 10.0)
      for state in (State.STANDBY, State.FAULT) for amps in (10.0, 10.1, -10.0, -10.1)),
]  # fmt: skip
MEASURED: list[Case] = [
    running(False, request={"battery_voltage_v": 350.0}), running(True, request={"battery_voltage_v": 349.9}),
    running(False, request={"battery_voltage_v": 370.0}), running(True, request={"battery_voltage_v": 370.1}),
    running(None, request={"battery_voltage_v": None}),
    running(None, request={"battery_voltage_v": 0.0}, pack={"pack_voltage_v": None}),
    running(None, request={"battery_voltage_v": 0.0, "link_at_ms": NOW_MS - 60_000}),  # as it began, or before
    running(True, request={"battery_voltage_v": 0.0, "link_at_ms": NOW_MS - 59_999}),
    ({"request": {"battery_voltage_v": 0.0}}, False),
]  # fmt: skip
LOW_ISOLATION: list[Case] = [
    ({"pack": {"isolation_kohm": 180.0}}, False), ({"pack": {"isolation_kohm": 179.0}}, True),  # 0.5 kΩ/V
    ({"pack": {"isolation_kohm": 100.0, "pack_voltage_v": 100.0}}, False),
    ({"pack": {"isolation_kohm": 99.0, "pack_voltage_v": 100.0}}, True),
    ({"pack": {"isolation_kohm": 200.0, "pack_voltage_v": None}}, False),
    ({"pack": {"isolation_kohm": 199.0, "pack_voltage_v": None}}, True),  # the highest it may have
    *reported("isolation_alert"),
]  # fmt: skip
CLOSED_STATES = (State.CLOSING_NEGATIVE, RUNNING, State.OPENING_POSITIVE)


def while_open(cases: list[Case]) -> list[Case]:
    """As they stand; and while the pack may be connected, not judged."""
    return [*cases, *(({**case, "state": state}, False) for case, _ in cases for state in CLOSED_STATES)]


def while_closed(cases: list[Case]) -> list[Case]:
    return [*(({**case, "state": state}, bad) for case, bad in cases for state in CLOSED_STATES),
            *((case, False) for case, _ in cases)]  # fmt: skip


CASES: Mapping[Event, list[Case]] = {
    E.ESTOP_OPEN: [({"estop_ok": ok}, bad) for ok, bad in ((False, True), (True, False), (None, None))],
    E.INTERLOCK_OPEN: [({"interlock_ok": ok}, bad) for ok, bad in ((False, True), (True, False), (None, None))],
    E.HVIL_OPEN: said("hvil_ok", (False, True), (True, False)),
    E.OVERCURRENT: said("current_a", (60.0, False), (60.1, True), (-72.0, False), (-72.1, True), (0.0, False)),
    E.CELL_OVERVOLTAGE_CRITICAL: said("cell_max_v", (4.249, False), (4.25, True)),
    E.CELL_UNDERVOLTAGE_CRITICAL: [
        *said("cell_min_v", (2.901, False), (2.90, True)),
        *(({**case, "recovering": True}, bad) for case, bad in said("cell_min_v", (2.0, False), (1.999, True))),
        *(({**case, "recovering": True, "settings": LTO}, bad)
          for case, bad in said("cell_min_v", (1.5, False), (1.499, True))),
    ],
    E.CELL_OVERVOLTAGE: said("cell_max_v", (4.149, False), (4.15, True)),
    E.CELL_UNDERVOLTAGE: said("cell_min_v", (3.101, False), (3.10, True)),
    E.CELL_LIMIT_IGNORED: [
        (cells(3.7, 4.15, amps=2.1), True), (cells(3.7, 4.15, amps=2.0), False), (cells(3.7, 4.149, amps=2.1), False),
        (cells(3.1, 3.8, amps=-2.1), True), (cells(3.1, 3.8, amps=-2.0), False), (cells(3.101, 3.8, amps=-2.1), False),
        (cells(3.7, 4.15, amps=-2.1), False), (cells(3.1, 3.8, amps=2.1), False),
        (cells(3.7, None, amps=2.1), None), (cells(None, 3.8, amps=-2.1), None), (cells(3.1, 4.15, amps=None), None),
        ({**cells(3.7, 4.15, amps=5.0), "offset_a": 4.3}, False),
        ({**cells(3.7, 4.15, amps=2.5), "offset_a": None}, True),
    ],
    E.PACK_VOLTAGE_HIGH: said("pack_voltage_v", (96 * 4.15, False), (398.5, True)),
    E.PACK_VOLTAGE_LOW: said("pack_voltage_v", (96 * 3.10, False), (297.5, True)),
    E.PACK_VOLTAGE_CRITICAL: [
        *said("pack_voltage_v", (406.3, False), (406.4, True), (291.7, False), (291.6, True)),
        ({"pack": {"pack_voltage_v": 1.02 * PACK_OF.design_max_v}}, False),
        *(({**case, "recovering": True}, bad)
          for case, bad in said("pack_voltage_v", (192.0, False), (191.9, True), (406.4, True))),
    ],
    E.PACK_FUSE_BLOWN: said("pack_voltage_v", (0.49, False), (0.5, True), (5.0, True), (5.1, False)),
    E.TEMPERATURE_CRITICAL: said("temp_max_c", (59.9, False), (60.0, True)),
    E.CELL_SPREAD: [
        (cells(0.0, NCA.spread_warn_v), False),
        (cells(3.5, 3.8), False), (cells(3.5, 3.801), True),
        *((cells(3.5, 3.801, amps=amps), abs(amps) < 5.0) for amps in (4.9, 5.0, -4.9, -5.0)),
        ({**cells(3.5, 3.801, amps=9.0), "offset_a": 4.3}, True),
        (cells(None, 3.8), None), (cells(3.5, None), None), (cells(3.5, 3.801, amps=None), None),
    ],
    E.CELLS_CONTRADICT_PACK: CONTRADICTION,
    E.CELLS_CONTRADICT_PACK_LONG: CONTRADICTION,
    E.SOC_JUMP: flagged("soc_jumped"),
    E.ISOLATION_LOW: while_open(LOW_ISOLATION),
    E.ISOLATION_WARNING: while_closed(LOW_ISOLATION),
    E.LV_SUPPLY_LOW: while_open(said("lv_supply_v", (11.7, False), (11.69, True))),
    E.LV_SUPPLY_LOW_CLOSED: while_closed(said("lv_supply_v", (10.5, False), (10.49, True))),
    E.CURRENT_OFFSET_HIGH: while_open(
        [({"offset_a": a}, bad) for a, bad in ((6.0, False), (6.1, True), (-6.1, True), (None, None))]
    ),
    E.PACK_DATA_STALE: data_older(0),
    E.PACK_DATA_LOST: data_older(600),
    E.CELL_DATA_STALE: older(Feed.CELLS, 3),
    E.CELL_DATA_LOST: older(Feed.CELLS, 5),
    E.TEMPERATURE_DATA_STALE: older(Feed.TEMPERATURES, 3),
    E.TEMPERATURE_DATA_LOST: older(Feed.TEMPERATURES, 5),
    E.CONTACTOR_DATA_STALE: older(Feed.CONTACTOR, 3),
    E.CONTACTOR_DATA_LOST: older(Feed.CONTACTOR, 5),
    E.HVIL_DATA_STALE: older(Feed.HVIL, 3),
    E.HVIL_DATA_LOST: older(Feed.HVIL, 5),
    E.SOC_STALE: [*aged(Feed.SOC, 100, (10_000, False), (10_001, True), (None, None)), ({"pack": {"feeds": {}}}, None)],
    E.SOC_LOST: aged(Feed.SOC, 100, (60_000, False), (60_001, True), (None, None)),
    E.FRAMES_CORRUPT: [({"corrupt": 0}, False), ({"corrupt": 1}, True)],
    E.BMS_OPEN_NOW: reported("open_now"),
    E.BMS_FAULT: [
        ({"report": {"fault": fault, "open_asked": asked}}, bad)
        for fault, asked, bad in (
            (True, None, True), (False, True, True), (False, False, False), (None, False, None), (False, None, None),
        )
    ],
    E.BMS_RELAY_CUT: reported("withholds"),
    E.BMS_WARNING: reported("warns"),
    E.BMS_NO_CHARGE: reported("no_charge"),
    E.BMS_NO_DISCHARGE: reported("no_discharge"),
    E.PACK_REFUSES: reported("refuses"),
    E.PACK_LINK_LOADED: reported("link_loaded"),
    E.FEEDBACK_MISMATCH: [
        *(({"closed": frozenset({NEGATIVE}), "feedback": {NEGATIVE: True, **fed}}, bad)
          for fed, bad in (({PRECHARGE: False, POSITIVE: False}, False), ({POSITIVE: True}, True), ({}, False),
                           ({PRECHARGE: True}, True), ({NEGATIVE: False}, True), ({NEGATIVE: None}, False))),
    ],
    E.FEEDBACK_LOST: flagged("feedback_lost"),
    E.PACK_CLOSED_UNASKED: [
        *(({"wiring": wiring, "pack": {"contactor_state": says}}, bad)
          for wiring in ("pack", "pack+inverter") for says, bad in ((CLOSED, True), (OPEN, False), (None, None))),
        *(({"wiring": "pack", "state": state, "pack": {"contactor_state": CLOSED}}, False)
          for state in (RUNNING, State.STARTING)),
        ({"pack": {"contactor_state": CLOSED}}, False),
    ],
    E.PACK_LEFT_CLOSED: [
        *(running(bad, "pack", pack={"contactor_state": says})
          for says, bad in ((CLOSED, False), (OPEN, True), (PackContactor.OPENING, True), (None, None))),
        ({"wiring": "pack", "state": State.WAKING_PACK}, False), ({"wiring": "pack"}, False),
    ],
    E.WELD_REPORTED: reported("welded"),
    E.WELD_CURRENT: [
        *said("current_a", (5.0, False), (5.1, True), (-5.1, True)),
        ({"pack": {"current_a": 9.0}, "offset_a": 4.3}, False), ({"pack": {"current_a": 99.0}, "offset_a": None}, None),
        *(({"wiring": "pack", "pack": {"current_a": 9.0, "contactor_state": says}}, bad)
          for says, bad in ((OPEN, True), (CLOSED, False), (None, None))),
        ({"pack": {"current_a": 9.0}, "closed": frozenset({NEGATIVE})}, False),
        *(({"pack": {"current_a": 9.0}, "closed": frozenset(), "state": state}, False)
          for state in (RUNNING, State.STARTING)),
        ({"pack": {"current_a": 9.0}, "wiring": "none"}, False),
    ],
    E.WELD_MEASURED: flagged("weld_measured"),
    E.LINK_CONTRADICTS_PACK: LINK,
    E.LINK_CONTRADICTS_PACK_LONG: LINK,
    E.PRECHARGE_TRIES_SPENT: [({"tries": 2}, False), ({"tries": 3}, True)],
    E.CLOSINGS_SPENT: while_open([
        ({"closings_hour": hour, "closings_day": day}, bad)
        for hour, day, bad in ((5, 19, False), (6, 6, True), (0, 20, True))
    ]),
    E.INVERTER_REVOKED: [
        *(({"state": state, "request": {"go": go}}, go is not True) for state in LADDER for go in (True, False, None)),
        *(({"state": state, "request": {"go": go}}, go is False)
          for state in (RUNNING, State.UNLOADING, State.OPENING_POSITIVE) for go in (True, False, None)),
        *(({"state": state, "request": {"go": False}}, False) for state in (State.STANDBY, State.VERIFYING_OPEN)),
        running(False, request={"go": False}, inverter_asks=False),
    ],
    E.INVERTER_QUIET: unheard(20_000),
    E.INVERTER_SILENT: unheard(60_000),
    E.INVERTER_UNHEARD: [
        *(({**case, "settings": replace(SETTINGS, off_grid=True)}, bad) for case, bad in unheard(20_000)[:4]),
        ({"request": {"heard_at_ms": 1}}, False),
    ],
    E.INVERTER_BEAT_STOPPED: [
        ({"request": {"beat_at_ms": NOW_MS - 300_000}}, False), ({"request": {"beat_at_ms": NOW_MS - 300_001}}, True),
        ({"request": {"beat_at_ms": None}}, False),
    ],
    E.INVERTER_OVER_LIMIT: OVER,
    E.INVERTER_IGNORES_LIMIT: OVER,
    E.INVERTER_CONTRADICTS_PACK: MEASURED,
    E.INVERTER_CONTRADICTS_PACK_LONG: MEASURED,
    E.UNCLEAN_RESTART: flagged("unclean"),
    E.UNCLEAN_RESTARTS_SPENT: [({"unclean_day": 2}, False), ({"unclean_day": 3}, True)],
    **{event: broken(event) for event in (E.TICK_LATE, E.TICK_OVERRUN, E.EXCEPTION, E.RELAY_FAILED, E.GATE_REFUSED,
                                          E.RECORD_LOST, E.BUS_FAILED)},
}  # fmt: skip


@pytest.mark.requirement("S3.2", "cause:{event}")
@pytest.mark.parametrize("event", [rule.id for rule in RULES], ids=str)
def test_a_row_is_bad_beyond_its_limit_good_up_to_it_and_unknown_without_a_value(event: Event):
    for changes, bad in CASES[event]:
        assert RULE_OF[event].when(seen(**changes)) is bad, changes
    assert {True, False} <= {bad for _, bad in CASES[event]}


def test_nothing_is_bad_in_a_healthy_world_in_any_state():
    for wiring in ("own", "pack", "pack+inverter", "none"):
        for state in State:
            says = CLOSED if state in (RUNNING, State.UNLOADING, State.OPENING_POSITIVE, *LADDER[1:]) else OPEN
            s = seen(wiring, state, pack={"contactor_state": says})
            assert [rule.id for rule in RULES if rule.when(s)] == [], (wiring, state)


# severity, debounce, longest wait, budget and quiet time in ms, and what else is said of it: the concept once more
HELD_AT_REST, RESTS, UP, DOWN = "†", "→ STANDBY", "charge only", "discharge only"
MINUTE = 60_000
ROWS: Mapping[Event, tuple] = {
    E.ESTOP_OPEN: (V.OPEN, 30, 0, 250, None, HELD_AT_REST),
    E.INTERLOCK_OPEN: (V.OPEN, 100, 0, 250, None),
    E.HVIL_OPEN: (V.OPEN, 100, 0, 250, None),
    E.OVERCURRENT: (V.OPEN, 100, 0, 250, None),
    E.CELL_OVERVOLTAGE_CRITICAL: (V.OPEN, 500, 0, 750, None),
    E.CELL_UNDERVOLTAGE_CRITICAL: (V.OPEN, 500, 0, 750, None),
    E.CELL_OVERVOLTAGE: (V.LIMIT, 0, 0, None, None, UP),
    E.CELL_UNDERVOLTAGE: (V.LIMIT, 0, 0, None, None, DOWN),
    E.CELL_LIMIT_IGNORED: (V.GRACEFUL, 10_000, 1800, 12_000, None),
    E.PACK_VOLTAGE_HIGH: (V.LIMIT, 500, 0, None, None, UP),
    E.PACK_VOLTAGE_LOW: (V.LIMIT, 500, 0, None, None, DOWN),
    E.PACK_VOLTAGE_CRITICAL: (V.OPEN, 500, 0, 750, None),
    E.PACK_FUSE_BLOWN: (V.OPEN, 500, 0, 750, None),
    E.TEMPERATURE_CRITICAL: (V.GRACEFUL, 5000, 800, 6000, None),
    E.CELL_SPREAD: (V.WARNING, 5000, 0, None, MINUTE),
    E.CELLS_CONTRADICT_PACK: (V.LIMIT, 5000, 0, None, None),
    E.CELLS_CONTRADICT_PACK_LONG: (V.GRACEFUL, 30_000, 800, 31_000, None),
    E.SOC_JUMP: (V.WARNING, 0, 0, None, MINUTE),
    E.ISOLATION_LOW: (V.NO_CLOSING, 5000, 0, None, None),
    E.ISOLATION_WARNING: (V.WARNING, 5000, 0, None, MINUTE),
    E.LV_SUPPLY_LOW: (V.NO_CLOSING, 1000, 0, None, None),
    E.LV_SUPPLY_LOW_CLOSED: (V.GRACEFUL, 5000, 2000, 8000, MINUTE),
    E.CURRENT_OFFSET_HIGH: (V.NO_CLOSING, 0, 0, None, None),
    E.PACK_DATA_STALE: (V.LIMIT, 0, 0, None, None),
    E.PACK_DATA_LOST: (V.OPEN, 0, 0, 1200, MINUTE),
    **dict.fromkeys((E.CELL_DATA_STALE, E.TEMPERATURE_DATA_STALE, E.CONTACTOR_DATA_STALE, E.HVIL_DATA_STALE,
                     E.SOC_STALE), (V.LIMIT, 0, 0, None, None)),
    **dict.fromkeys((E.CELL_DATA_LOST, E.TEMPERATURE_DATA_LOST, E.CONTACTOR_DATA_LOST, E.HVIL_DATA_LOST),
                    (V.GRACEFUL, 0, 1800, None, MINUTE)),
    E.SOC_LOST: (V.GRACEFUL, 0, 2000, 63_000, MINUTE),
    E.FRAMES_CORRUPT: (V.WARNING, 0, 0, None, MINUTE),
    E.BMS_OPEN_NOW: (V.OPEN, 100, 0, 300, None),
    E.BMS_FAULT: (V.GRACEFUL, 100, 1700, 2000, None),
    E.BMS_RELAY_CUT: (V.GRACEFUL, 100, 1700, 2000, MINUTE),
    E.BMS_WARNING: (V.WARNING, 100, 0, None, MINUTE),
    E.BMS_NO_CHARGE: (V.LIMIT, 100, 0, None, None, UP),
    E.BMS_NO_DISCHARGE: (V.LIMIT, 100, 0, None, None, DOWN),
    E.PACK_REFUSES: (V.OPEN, 300, 0, 500, None, HELD_AT_REST),
    E.PACK_LINK_LOADED: (V.WARNING, 300, 0, None, None),
    E.FEEDBACK_MISMATCH: (V.OPEN, 200, 0, 350, None, HELD_AT_REST),
    E.FEEDBACK_LOST: (V.GRACEFUL, 1000, 1800, 3000, MINUTE),
    E.PACK_CLOSED_UNASKED: (V.LOCK_OUT, 10_000, 0, None, None, HELD_AT_REST),
    E.PACK_LEFT_CLOSED: (V.OPEN, 200, 0, 350, None, HELD_AT_REST),
    E.WELD_REPORTED: (V.LOCK_OUT, 200, 0, None, None, HELD_AT_REST),
    E.WELD_CURRENT: (V.LOCK_OUT, 1000, 0, None, None, HELD_AT_REST),
    E.WELD_MEASURED: (V.LOCK_OUT, 0, 0, None, None, HELD_AT_REST),
    E.LINK_CONTRADICTS_PACK: (V.LIMIT, 1000, 0, None, None),
    E.LINK_CONTRADICTS_PACK_LONG: (V.OPEN, 3000, 0, 3100, None),
    E.PRECHARGE_TRIES_SPENT: (V.OPEN, 0, 0, None, None, HELD_AT_REST),
    E.CLOSINGS_SPENT: (V.NO_CLOSING, 0, 0, None, None),
    E.INVERTER_REVOKED: (V.GRACEFUL, 100, 900, 1200, 0, RESTS),
    E.INVERTER_QUIET: (V.LIMIT, 0, 0, None, None),
    E.INVERTER_SILENT: (V.GRACEFUL, 0, 2000, 183_000, 0, RESTS),
    E.INVERTER_UNHEARD: (V.WARNING, 0, 0, None, MINUTE),
    E.INVERTER_BEAT_STOPPED: (V.WARNING, 0, 0, None, MINUTE),
    E.INVERTER_OVER_LIMIT: (V.WARNING, 8000, 0, None, MINUTE),
    E.INVERTER_IGNORES_LIMIT: (V.GRACEFUL, 30_000, 800, 31_000, None),
    E.INVERTER_CONTRADICTS_PACK: (V.LIMIT, 5000, 0, None, None),
    E.INVERTER_CONTRADICTS_PACK_LONG: (V.GRACEFUL, 30_000, 800, 31_000, None),
    E.UNCLEAN_RESTART: (V.OPEN, 0, 0, None, MINUTE, HELD_AT_REST),
    E.UNCLEAN_RESTARTS_SPENT: (V.OPEN, 0, 0, None, None, HELD_AT_REST),
    E.TICK_LATE: (V.WARNING, 0, 0, None, MINUTE),
    E.TICK_OVERRUN: (V.OPEN, 0, 0, 600, None, HELD_AT_REST),
    **dict.fromkeys((E.EXCEPTION, E.RELAY_FAILED, E.GATE_REFUSED), (V.OPEN, 0, 0, 10, None, HELD_AT_REST)),
    E.RECORD_LOST: (V.LOCK_OUT, 0, 0, None, None, HELD_AT_REST),
    E.BUS_FAILED: (V.WARNING, 0, 0, None, MINUTE),
}  # fmt: skip


@pytest.mark.requirement("S3.1")
def test_every_row_has_the_times_and_the_reaction_of_the_concept():
    def said_of(rule) -> Iterator[str]:
        yield from [HELD_AT_REST] * rule.always + [RESTS] * rule.rests
        yield from [UP] * (not rule.discharge) + [DOWN] * (not rule.charge)

    rows = {
        rule.id: (rule.severity, rule.hold_ms, rule.wait_ms, rule.budget_ms, rule.quiet_ms, *said_of(rule))
        for rule in RULES
    }
    assert rows == dict(ROWS)


def test_a_recording_is_spared_what_it_cannot_answer_for():
    spared = {rule.id: rule.masked for rule in RULES if rule.masked}
    ours = (E.FEEDBACK_MISMATCH, E.FEEDBACK_LOST, E.PACK_CLOSED_UNASKED, E.PACK_LEFT_CLOSED, E.WELD_CURRENT,
            E.WELD_MEASURED, E.LINK_CONTRADICTS_PACK, E.LINK_CONTRADICTS_PACK_LONG, E.PRECHARGE_TRIES_SPENT,
            E.CLOSINGS_SPENT, E.UNCLEAN_RESTART, E.UNCLEAN_RESTARTS_SPENT)  # fmt: skip
    assert spared == {
        event: Masked.COMMAND if event in ours else Masked.INVERTER
        for event in Event if event in ours or (event.value.startswith("inverter-") and event in RULE_OF)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("event", "changes", "detail"),
    [
        (E.OVERCURRENT, {"pack": {"current_a": -72.5}}, "current_a -72.5"),
        (E.OVERCURRENT, {"pack": {"current_a": None}}, "current_a unknown"),
        (E.CELL_OVERVOLTAGE_CRITICAL, {"pack": {"cell_max_v": 4.26}}, "cell_max_v 4.26"),
        (E.CELL_SPREAD, cells(3.5, None), "cells 3.5 to unknown V"),
        (E.CURRENT_OFFSET_HIGH, {"offset_a": 6.5}, "offset_a 6.5"),
        (E.PACK_DATA_LOST, {"pack": {"feeds": feeds({Feed.VOLTAGE: 1_200, Feed.CURRENT: None})}},
         "pack_voltage_v: last valid 1200 ms ago, current_a: last valid unknown ms ago"),
        (E.FRAMES_CORRUPT, {"pack": {"corrupt_frames": 7}}, "7 so far"),
        (E.BMS_FAULT, {"pack": {"contactor_state": CLOSED}, "report": {"alerts": (7, 90)}},
         "contactors CLOSED a007 a090"),
        (E.HVIL_OPEN, {"pack": {"contactor_state": None}}, "contactors unknown"),
        (E.WELD_MEASURED, {"link_voltage_v": None}, "link_voltage_v unknown"),
        (E.PRECHARGE_TRIES_SPENT, {"tries": 3}, "3 tries"),
        (E.CLOSINGS_SPENT, {"closings_hour": 6, "closings_day": 8}, "6 this hour, 8 this day"),
        (E.ESTOP_OPEN, {}, ""),
    ],
)  # fmt: skip
def test_what_is_told_of_a_cause_names_the_value_it_was_judged_by(event: Event, changes: dict, detail: str):
    assert RULE_OF[event].detail(seen(**changes)) == detail
