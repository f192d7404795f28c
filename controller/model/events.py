"""Everything that can be reported, by an id that is never renamed or reused. Their words stand in `texts.py`."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """What the event does, mildest first."""

    INFO = "info"
    WARNING = "warning"
    NO_CLOSING = "no-closing"
    LIMIT = "limit"
    GRACEFUL = "graceful"
    OPEN = "open"
    LOCK_OUT = "lock-out"


class Event(StrEnum):
    # people and hard wires
    ESTOP_OPEN = "e-stop-open"
    INTERLOCK_OPEN = "interlock-open"
    OPERATOR_STOP = "operator-stop"
    SERVICE_STOP = "service-stop"
    COMMAND_REFUSED = "command-refused"
    COMMAND_GIVEN = "command-given"
    # the pack's condition
    HVIL_OPEN = "hvil-open"
    OVERCURRENT = "overcurrent"
    CELL_OVERVOLTAGE_CRITICAL = "cell-overvoltage-critical"
    CELL_UNDERVOLTAGE_CRITICAL = "cell-undervoltage-critical"
    CELL_OVERVOLTAGE = "cell-overvoltage"
    CELL_UNDERVOLTAGE = "cell-undervoltage"
    CELL_LIMIT_IGNORED = "cell-limit-ignored"
    PACK_VOLTAGE_HIGH = "pack-voltage-high"
    PACK_VOLTAGE_LOW = "pack-voltage-low"
    PACK_VOLTAGE_CRITICAL = "pack-voltage-critical"
    PACK_FUSE_BLOWN = "pack-fuse-blown"
    TEMPERATURE_CRITICAL = "temperature-critical"
    CELL_SPREAD = "cell-spread"
    ISOLATION_LOW = "isolation-low"
    ISOLATION_WARNING = "isolation-warning"
    SOC_JUMP = "soc-jump"
    CELLS_CONTRADICT_PACK = "cells-contradict-pack"
    CELLS_CONTRADICT_PACK_LONG = "cells-contradict-pack-long"
    LV_SUPPLY_LOW = "lv-supply-low"
    LV_SUPPLY_LOW_CLOSED = "lv-supply-low-closed"
    CURRENT_OFFSET_HIGH = "current-offset-high"
    # the pack's data
    PACK_DATA_STALE = "pack-data-stale"
    PACK_DATA_LOST = "pack-data-lost"
    CELL_DATA_STALE = "cell-data-stale"
    CELL_DATA_LOST = "cell-data-lost"
    TEMPERATURE_DATA_STALE = "temperature-data-stale"
    TEMPERATURE_DATA_LOST = "temperature-data-lost"
    CONTACTOR_DATA_STALE = "contactor-data-stale"
    CONTACTOR_DATA_LOST = "contactor-data-lost"
    HVIL_DATA_STALE = "hvil-data-stale"
    HVIL_DATA_LOST = "hvil-data-lost"
    SOC_STALE = "soc-stale"
    SOC_LOST = "soc-lost"
    FRAMES_CORRUPT = "frames-corrupt"
    # what the pack's BMS says
    BMS_OPEN_NOW = "bms-open-now"
    BMS_FAULT = "bms-fault"
    BMS_RELAY_CUT = "bms-relay-cut"
    BMS_WARNING = "bms-warning"
    BMS_NO_CHARGE = "bms-no-charge"
    BMS_NO_DISCHARGE = "bms-no-discharge"
    PACK_REFUSES = "pack-refuses"
    PACK_LINK_LOADED = "pack-link-loaded"
    # contactors
    FEEDBACK_MISMATCH = "feedback-mismatch"
    FEEDBACK_LOST = "feedback-lost"
    PACK_LEFT_CLOSED = "pack-left-closed"
    PACK_CLOSED_UNASKED = "pack-closed-unasked"
    WELD_REPORTED = "weld-reported"
    WELD_CURRENT = "weld-current"
    WELD_MEASURED = "weld-measured"
    LINK_CONTRADICTS_PACK = "link-contradicts-pack"
    LINK_CONTRADICTS_PACK_LONG = "link-contradicts-pack-long"
    PRECHARGE_FAILED = "precharge-failed"
    PRECHARGE_TRIES_SPENT = "precharge-tries-spent"
    CLOSINGS_SPENT = "closings-spent"
    OPENED_UNDER_LOAD = "opened-under-load"
    # the inverter
    INVERTER_REVOKED = "inverter-revoked"
    INVERTER_QUIET = "inverter-quiet"
    INVERTER_SILENT = "inverter-silent"
    INVERTER_UNHEARD = "inverter-unheard"
    INVERTER_BEAT_STOPPED = "inverter-beat-stopped"
    INVERTER_OVER_LIMIT = "inverter-over-limit"
    INVERTER_IGNORES_LIMIT = "inverter-ignores-limit"
    INVERTER_CONTRADICTS_PACK = "inverter-contradicts-pack"
    INVERTER_CONTRADICTS_PACK_LONG = "inverter-contradicts-pack-long"
    # the controller itself
    UNCLEAN_RESTART = "unclean-restart"
    UNCLEAN_RESTARTS_SPENT = "unclean-restarts-spent"
    TICK_LATE = "tick-late"
    TICK_OVERRUN = "tick-overrun"
    EXCEPTION = "exception"
    RELAY_FAILED = "relay-failed"
    BUS_FAILED = "bus-failed"
    FRAMES_LOST = "frames-lost"
    GATE_REFUSED = "gate-refused"
    RECORD_LOST = "record-lost"
    RECORD_SPOILT = "record-spoilt"
    RECORD_NOT_STORED = "record-not-stored"
    STARTED = "started"
    ENDED = "ended"
    STATE_CHANGED = "state-changed"
    INCIDENT = "incident"
    INCIDENT_NOT_WRITTEN = "incident-not-written"
    TELEMETRY_FAILED = "telemetry-failed"


class Notice(NamedTuple):
    """One thing that happened in one tick. detail: numbers and names, no sentence."""

    id: Event
    severity: Severity
    detail: str
