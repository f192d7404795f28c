"""What each event says to a person: what happened, the likely cause, what to do. One row for each id, in English."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from controller.model.events import Event

E = Event


class Text(NamedTuple):
    what: str
    cause: str
    todo: str


TEXTS: Mapping[Event, Text] = MappingProxyType({
    E.ESTOP_OPEN: Text(
        "The emergency stop is pressed, or its wire is broken.",
        "Somebody pressed it; a loose plug or a cut wire reads the same.",
        "Find out why, release it, then acknowledge e-stop-open."),
    E.INTERLOCK_OPEN: Text(
        "Our interlock loop is open.",
        "A cover or connector in the loop is open, or its wire is broken.",
        "Close it, check the loop with a meter, then acknowledge interlock-open."),
    E.OPERATOR_STOP: Text(
        "Somebody asked to stop: the limits go to zero and the contactors open once the current has fallen.",
        "A person, or an automation of theirs.", "Nothing; enable again when wanted."),
    E.SERVICE_STOP: Text(
        "The service is stopping: the contactors open once the current has fallen, then the program ends.",
        "systemctl stop, a shutdown or an upgrade.", "Nothing."),
    E.COMMAND_REFUSED: Text(
        "A command was refused.", "It does not fit the present state; the detail says why.",
        "Mend what the detail names and ask again."),
    E.COMMAND_GIVEN: Text(
        "Somebody gave a command; the detail says what and who.", "A person, or an automation of theirs.", "Nothing."),
    E.HVIL_OPEN: Text(
        "The pack reports its high-voltage interlock loop open.",
        "A high-voltage connector, the loop resistor on pins 1 to 3 or a lid is open.",
        "Switch the DC breaker off, check connectors and loop resistor, then acknowledge hvil-open."),
    E.OVERCURRENT: Text(
        "The current exceeds 1.2 times the configured maximum.",
        "The inverter ignores its limit, a short circuit, or a maximum set too low.",
        "Check inverter settings, cables and max_charge_a / max_discharge_a, then acknowledge overcurrent."),
    E.CELL_OVERVOLTAGE_CRITICAL: Text(
        "A cell is at or above its critical voltage.",
        "Charging went on past the limit, or one cell is far out of balance.",
        "Do not charge. Discharge gently under watch, look for the cell, then acknowledge."),
    E.CELL_UNDERVOLTAGE_CRITICAL: Text(
        "A cell is at or below its critical voltage.",
        "The pack was left empty, or one cell is weak.",
        "Do not discharge. If the cell is above the recovery floor, a recovery charge may be started at the machine."),
    E.CELL_OVERVOLTAGE: Text(
        "A cell has reached its charge stop: charging is at zero.", "The pack is full.",
        "Nothing; it discharges first."),
    E.CELL_UNDERVOLTAGE: Text(
        "A cell has reached its discharge stop: discharging is at zero.", "The pack is empty.",
        "Nothing; it charges first."),
    E.CELL_LIMIT_IGNORED: Text(
        "A cell is at its stop and the inverter goes on in that direction.",
        "The inverter does not follow a limit of zero (some modes ignore it).",
        "Check the inverter's battery mode and firmware, then acknowledge cell-limit-ignored."),
    E.PACK_VOLTAGE_HIGH: Text(
        "The pack voltage is above its window: charging is at zero.", "The pack is full, or the cell count is wrong.",
        "Check battery.cells in the config."),
    E.PACK_VOLTAGE_LOW: Text(
        "The pack voltage is below its window: discharging is at zero.",
        "The pack is empty, or the cell count is wrong.", "Charge; check battery.cells in the config."),
    E.PACK_VOLTAGE_CRITICAL: Text(
        "The pack voltage is beyond its window by more than 2 %.",
        "Overcharged or deeply discharged, or a broken measurement.",
        "Measure the pack with a meter before anything else, then acknowledge."),
    E.PACK_FUSE_BLOWN: Text(
        "The pack reports almost no voltage.", "Its pyro fuse has most likely fired, or a service plug is out.",
        "Do not use the pack before an expert has looked at it."),
    E.TEMPERATURE_CRITICAL: Text(
        "The pack is 5 K or more above its temperature limit.", "Too much current, no cooling, or a failing cell.",
        "Let it cool, watch for smoke and swelling, find the reason, then acknowledge."),
    E.CELL_SPREAD: Text(
        "The cells differ by more than usual at rest.", "The pack is out of balance or a cell is weak.",
        "Let the pack balance (full, contactors open); watch the cell that stands out."),
    E.ISOLATION_LOW: Text(
        "The isolation between the poles and the case is low: no closing.",
        "Moisture, a damaged cable, or the inverter's filter.",
        "Disconnect the inverter and measure again; do not touch the poles."),
    E.ISOLATION_WARNING: Text(
        "The isolation reads low while closed.",
        "A transformerless inverter spoils the reading; a real fault reads the same.",
        "Compare with the reading while open."),
    E.SOC_JUMP: Text(
        "The state of charge jumped by more than the current explains: power is held at half.",
        "The BMS recalibrated, or its capacity estimate is off.", "Nothing, unless it keeps happening."),
    E.CELLS_CONTRADICT_PACK: Text(
        "The cell voltages do not add up to the pack voltage: limits are zero.",
        "A wrong cell count in the config, or a failing measurement.", "Check battery.cells in the config."),
    E.CELLS_CONTRADICT_PACK_LONG: Text(
        "The cell voltages still do not add up to the pack voltage: opening.",
        "A wrong cell count in the config, or a failing measurement.", "Check battery.cells, then acknowledge."),
    E.LV_SUPPLY_LOW: Text(
        "The 12 V supply is low: no closing.", "A weak supply or a thin cable.",
        "Use a supply that holds 12 V at 30 A, with a thick cable."),
    E.LV_SUPPLY_LOW_CLOSED: Text(
        "The 12 V supply is failing while the contactors are closed: opening.", "A weak or overloaded supply.",
        "Mend the supply; it clears itself after a minute."),
    E.CURRENT_OFFSET_HIGH: Text(
        "The current sensor reads more than 6 A with everything open: no closing.",
        "A broken sensor, or current that flows where none should.", "Measure the current with a clamp."),
    E.PACK_DATA_STALE: Text(
        "Voltage or current of the pack are not fresh: limits are zero.", "The bus or the BMS has stopped.",
        "Check CAN wiring, termination and the BMS's supply."),
    E.PACK_DATA_LOST: Text(
        "Voltage or current of the pack are lost: open.", "The bus or the BMS has stopped.",
        "Check CAN wiring, termination and the BMS's supply; it clears itself after a minute of data."),
    E.CELL_DATA_STALE: Text(
        "Cell voltages are not fresh: limits are zero.", "A frame or multiplexer value is missing.",
        "Check the bus."),
    E.CELL_DATA_LOST: Text(
        "Cell voltages are lost: opening.", "A frame or multiplexer value is missing.",
        "Check the bus; it clears itself after a minute of data."),
    E.TEMPERATURE_DATA_STALE: Text(
        "Temperatures are not fresh: limits are zero.", "A frame or multiplexer value is missing.", "Check the bus."),
    E.TEMPERATURE_DATA_LOST: Text(
        "Temperatures are lost: opening.", "A frame or multiplexer value is missing.",
        "Check the bus; it clears itself after a minute of data."),
    E.CONTACTOR_DATA_STALE: Text(
        "The pack's contactor state is not fresh: limits are zero.", "A frame is missing.", "Check the bus."),
    E.CONTACTOR_DATA_LOST: Text(
        "The pack's contactor state is lost: opening.", "A frame is missing.",
        "Check the bus; it clears itself after a minute of data."),
    E.HVIL_DATA_STALE: Text(
        "The pack's interlock status is not fresh: limits are zero.", "A frame is missing.", "Check the bus."),
    E.HVIL_DATA_LOST: Text(
        "The pack's interlock status is lost: opening.", "A frame is missing, or the pack cannot tell.",
        "Check the bus and the pack's 12 V; it clears itself after a minute of data."),
    E.SOC_STALE: Text(
        "The state of charge is not fresh: limits are zero.", "A frame is missing.", "Check the bus."),
    E.SOC_LOST: Text(
        "The state of charge is lost: opening, the inverter is told FAULT.", "A frame is missing.",
        "Check the bus; it clears itself after a minute of data."),
    E.FRAMES_CORRUPT: Text(
        "Frames were refused: wrong checksum, counter or length.", "Noise, missing termination, or a foreign sender.",
        "Check shield, termination and what else is on the bus."),
    E.BMS_OPEN_NOW: Text(
        "The pack's BMS demands to open at once.", "It sees a danger; its alerts in the detail say which.",
        "Look its alerts up before acknowledging."),
    E.BMS_FAULT: Text(
        "The pack's BMS reports a fault or asks to open.", "Its alerts in the detail say which.",
        "Look its alerts up, mend the reason, then acknowledge bms-fault."),
    E.BMS_RELAY_CUT: Text(
        "The pack's BMS wants its contactors open: it asks for it, or does not permit closing.",
        "A passing condition of the BMS, or an interlock pin that is not wired (battery.interlock_wired).",
        "Nothing if it passes: a minute later closing is possible again. If it stays, check plug and connectors."),
    E.BMS_WARNING: Text(
        "The pack's BMS warns.", "Its alerts in the detail say which.", "Look its alerts up."),
    E.BMS_NO_CHARGE: Text(
        "The pack's BMS forbids charging.", "Full, cold or hot.", "Nothing; it allows it again by itself."),
    E.BMS_NO_DISCHARGE: Text(
        "The pack's BMS forbids discharging.", "Empty, cold or hot.", "Nothing; it allows it again by itself."),
    E.PACK_REFUSES: Text(
        "The pack refuses to close its contactors.",
        "Blocked after a failed close, an open interlock, a fault of its own, or a reset it waits for.",
        "Take its 12 V away for a minute (X098 and PCS), look at its alerts, then acknowledge pack-refuses."),
    E.PACK_LINK_LOADED: Text(
        "The pack cannot precharge the link.", "The inverter or another load draws from the link while it precharges.",
        "Keep the inverter disconnected until the pack is closed (wiring pack+inverter)."),
    E.FEEDBACK_MISMATCH: Text(
        "A relay does not do what it is told.", "Welded, stuck, no coil supply, or feedback wired to another relay.",
        "Measure the relay with the DC breaker off, then acknowledge feedback-mismatch."),
    E.FEEDBACK_LOST: Text(
        "A relay is not fed back any more: opening.", "The board or the wire of its auxiliary contact has failed.",
        "Mend it; it clears itself after a minute of feedback."),
    E.PACK_CLOSED_UNASKED: Text(
        "The pack stays closed though it is not asked to: locked out.",
        "A welded contactor, or another controller on its bus.",
        "Open the DC breaker. Look who else talks to the pack, inspect; then `controller unlock` at the machine."),
    E.PACK_LEFT_CLOSED: Text(
        "The pack opened its contactors though it was not asked to.", "A fault of its own, or our frames were missed.",
        "Look at its alerts, then acknowledge pack-left-closed."),
    E.WELD_REPORTED: Text(
        "The pack reports a welded contactor: locked out.", "It opened or closed under load.",
        "Inspect or replace the contactor; then `controller unlock` at the machine."),
    E.WELD_CURRENT: Text(
        "Current flows although everything is open: locked out.", "A welded contactor, or a broken current sensor.",
        "Open the DC breaker. Inspect; then `controller unlock` at the machine."),
    E.WELD_MEASURED: Text(
        "The weld check was contradicted: locked out.",
        "The link stayed at or rose to pack voltage, a contact stayed closed, or the pack did not open.",
        "Open the DC breaker. Inspect; then `controller unlock` at the machine."),
    E.LINK_CONTRADICTS_PACK: Text(
        "The link is not at pack voltage though the contactors are closed: limits are zero.",
        "A contactor that did not close, a blown fuse, or a failing measurement.", "Measure both sides."),
    E.LINK_CONTRADICTS_PACK_LONG: Text(
        "The link is still not at pack voltage: open.",
        "A contactor that did not close, a blown fuse, or a failing measurement.",
        "Measure contactors and fuse with the DC breaker off, then acknowledge."),
    E.PRECHARGE_FAILED: Text(
        "A precharge failed; the resistor cools down before the next try.",
        "A load or short on the link, a broken resistor or relay, or wrong R and C in the config.",
        "Watch the next try; check the inverter's DC input."),
    E.PRECHARGE_TRIES_SPENT: Text(
        "Three precharges failed in a row: no more tries.",
        "A load or short on the link, a broken resistor or relay, or wrong R and C in the config.",
        "Find the reason before acknowledging precharge-tries-spent."),
    E.CLOSINGS_SPENT: Text(
        "The contactors were closed too often: no closing.",
        "An inverter or automation that toggles, or a fault that keeps coming back.",
        "Find what keeps opening them; acknowledge closings-spent to go on."),
    E.OPENED_UNDER_LOAD: Text(
        "The contactors opened while current flowed.", "An immediate cause, or the wait of a graceful one was over.",
        "Each such opening wears the contacts; check them when it happens often."),
    E.INVERTER_REVOKED: Text(
        "The inverter takes its permission back: opening.", "It is shutting down, or its own fault.",
        "Look at the inverter; closing follows its next permission."),
    E.INVERTER_QUIET: Text(
        "The inverter is quiet: limits are zero.", "It is off, restarting, or the cable is broken.",
        "Check the inverter and the RS485 or CAN cable."),
    E.INVERTER_SILENT: Text(
        "The inverter is silent: opening.", "It is off, or the cable is broken.",
        "Check the inverter and the RS485 or CAN cable; closing follows when it is back."),
    E.INVERTER_UNHEARD: Text(
        "The inverter is silent; off-grid, so this only warns.", "It is off, or the cable is broken.",
        "Check the inverter and the cable."),
    E.INVERTER_BEAT_STOPPED: Text(
        "The inverter still asks, but its heartbeat stands still.", "A part of its software hangs.",
        "Restart the inverter when it does not use the battery."),
    E.INVERTER_OVER_LIMIT: Text(
        "The inverter exceeds the limit it was given.", "It ignores limits in its present mode.",
        "Check the inverter's battery mode."),
    E.INVERTER_IGNORES_LIMIT: Text(
        "The inverter keeps exceeding the limit it was given: opening.", "It ignores limits in its present mode.",
        "Check the inverter's battery mode, then acknowledge. With the wiring none nobody speaks to it until then."),
    E.INVERTER_CONTRADICTS_PACK: Text(
        "The inverter measures another battery voltage than the pack: limits are zero.",
        "A bad connection, an open breaker, or a failing measurement.", "Measure both ends."),
    E.INVERTER_CONTRADICTS_PACK_LONG: Text(
        "The inverter still measures another battery voltage than the pack: opening.",
        "A bad connection, an open breaker, or a failing measurement.", "Measure both ends, then acknowledge."),
    E.UNCLEAN_RESTART: Text(
        "The program ended while the contactors were closed; the weld check comes first.",
        "A power cut, a crash or a kill.", "Nothing after a power cut; otherwise look into the journal."),
    E.UNCLEAN_RESTARTS_SPENT: Text(
        "It is the third restart while closed within a day.", "An unstable supply or a failing machine.",
        "Mend it, then acknowledge unclean-restarts-spent."),
    E.TICK_LATE: Text(
        "A tick was more than 50 ms late.", "The machine is overloaded.", "Stop what loads it."),
    E.TICK_OVERRUN: Text(
        "Ticks are too late to keep the reaction times: open.", "The machine is overloaded or failing.",
        "Stop what loads it, then acknowledge tick-overrun."),
    E.EXCEPTION: Text(
        "The program met an error it does not know: open.", "A bug.",
        "Please report it with the incident bundle; then acknowledge exception."),
    E.RELAY_FAILED: Text(
        "A relay board could not be written: open.", "The board or its cable has failed.",
        "Check the board, then acknowledge relay-failed."),
    E.BUS_FAILED: Text(
        "A bus could not be used.", "The interface is down, unplugged, or bus-off.",
        "Check the interface (`ip -details link show can0`); its silence counts as stale data."),
    E.FRAMES_LOST: Text(
        "Frames on the bus were not seen; what did come is taken to be as old as it can be.",
        "The controller was held up, or the CAN chip's own buffer is too slow for this bus.",
        "Look for tick-late beside it; let less else run on this machine, or take a better CAN adapter."),
    E.GATE_REFUSED: Text(
        "The gate refused what the supervisor wanted: open.", "A bug.",
        "Please report it with the incident bundle; then acknowledge gate-refused."),
    E.RECORD_LOST: Text(
        "Both copies of the record are unreadable: locked out.", "A failing disk or SD card.",
        "Replace the card, inspect the contactors, then `controller unlock` at the machine."),
    E.RECORD_SPOILT: Text(
        "One copy of the record is missing or damaged; the other one is used, and both are written anew.",
        "A failing disk or SD card, or somebody's hand.", "Replace the card when it comes back."),
    E.RECORD_NOT_STORED: Text(
        "The record of a restart cannot be stored: no closing.", "The disk is full, read-only or failing.",
        "Make room or mend the disk; it is tried again every second."),
    E.STARTED: Text("The controller has started.", "A boot, an upgrade or a person.", "Nothing."),
    E.ENDED: Text(
        "The controller has ended; its outputs are off.", "It was told to stop, or could not go on; the detail says.",
        "Nothing after a stop; otherwise look into the journal."),
    E.STATE_CHANGED: Text("The state machine went on.", "The detail names the cause.", "Nothing."),
    E.INCIDENT: Text(
        "An incident bundle is being written: every input of the last minutes.", "A fault, a stop, or somebody asked.",
        "`controller incident show` tells what is in it, `controller sim --replay` shows why it came to that."),
    E.INCIDENT_NOT_WRITTEN: Text(
        "An incident bundle could not be written; control is not touched by that.",
        "The disk is full, read-only or failing.", "Make room or mend the disk; the next one is tried again."),
    E.TELEMETRY_FAILED: Text(
        "Something that only answers or tells has failed; control is not touched by that.", "An error in the program.",
        "Report it with the detail; answers or the status may be missing until the next start."),
})  # fmt: skip

if _missing := [event.name for event in Event if event not in TEXTS]:
    raise AssertionError(f"events without a text: {', '.join(_missing)}")
