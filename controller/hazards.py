"""What a reviewer has to judge and no table can know: assumptions, hazards, failures, gaps. Causes are named by id."""

from __future__ import annotations

from typing import NamedTuple

from controller.model.events import Event

E = Event

ASSUMPTIONS: tuple[str, ...] = (
    "The pack's own BMS works, protects single cells between two of its messages, and has authority over its "
    "contactors where it holds them.",
    "There is a pack fuse that clears any current above `break_max_a` within 3 s, and a DC breaker a person can reach.",
    "There is a hard-wired emergency stop in the coil supply; where the pack holds the coils it acts on its 12 V.",
    "There are pull-downs on relay inputs: an output that is not driven is off.",
    "An external relay watchdog, a retriggerable monostable fed by our heartbeat pin, drops the coils when that sticks "
    "high or low.",
    "Values only the user can know are true: limits of cable, fuse and contactors, R and C of the precharge, cells and "
    "chemistry.",
    "The precharge resistor bears three full tries in ten minutes.",
    "A battery that reports no cells or no temperatures has something else that protects them, named in the config.",
    "A person inspects before acknowledging, and measures before unlocking.",
    "Whoever has the machine's console or its config file is trusted; the network is not.",
)


class Hazard(NamedTuple):
    """What can happen to somebody or something. safe: what is done against it; causes: the rules that see it come."""

    name: str
    safe: str
    causes: tuple[Event, ...]


HAZARDS: tuple[Hazard, ...] = (
    Hazard("A person touches live parts", "open; stays open until acknowledged",
           (E.ESTOP_OPEN, E.INTERLOCK_OPEN, E.HVIL_OPEN, E.HVIL_DATA_LOST)),
    Hazard("A cell is overcharged or overdischarged: fire later, or at once",
           "taper, zero at the stop limit, open beyond the critical one",
           (E.CELL_OVERVOLTAGE_CRITICAL, E.CELL_UNDERVOLTAGE_CRITICAL, E.CELL_LIMIT_IGNORED, E.PACK_VOLTAGE_CRITICAL,
            E.CELLS_CONTRADICT_PACK_LONG, E.CELL_DATA_LOST, E.SOC_LOST)),
    Hazard("A cell overheats, or is charged while frozen", "taper to zero, open 5 K above the limit",
           (E.TEMPERATURE_CRITICAL, E.TEMPERATURE_DATA_LOST)),
    Hazard("Cable, fuse or contactor carries more than it may", "open at once; what relays may not break is the fuse's",
           (E.OVERCURRENT, E.PACK_DATA_LOST, E.PACK_FUSE_BLOWN, E.INVERTER_IGNORES_LIMIT)),
    Hazard("The link is closed onto uncharged, shorted or fed: arc, weld",
           "no closing but behind a precharge verified by voltage, current and progress",
           (E.PRECHARGE_TRIES_SPENT, E.LINK_CONTRADICTS_PACK_LONG, E.INVERTER_CONTRADICTS_PACK_LONG, E.PACK_REFUSES)),
    Hazard("A contactor opens under load: arc, weld", "limits to zero, wait for the break current, positive first",
           (E.BMS_FAULT, E.BMS_RELAY_CUT, E.BMS_OPEN_NOW, E.INVERTER_REVOKED, E.INVERTER_SILENT,
            E.LV_SUPPLY_LOW_CLOSED)),
    Hazard("A contactor is welded and cannot open when it must", "checked before closing and after opening; locked out",
           (E.WELD_REPORTED, E.WELD_CURRENT, E.WELD_MEASURED, E.PACK_CLOSED_UNASKED, E.FEEDBACK_MISMATCH,
            E.FEEDBACK_LOST, E.CONTACTOR_DATA_LOST)),
    Hazard("It is energised again unexpectedly", "what opened by a fault is latched, over restarts too",
           (E.PACK_LEFT_CLOSED, E.UNCLEAN_RESTART, E.UNCLEAN_RESTARTS_SPENT, E.RECORD_LOST)),
    Hazard("The controller itself hangs, is late or is wrong",
           "outputs off first; a gate that shares no logic; the external watchdog",
           (E.TICK_OVERRUN, E.EXCEPTION, E.RELAY_FAILED, E.GATE_REFUSED)),
)  # fmt: skip


class Failure(NamedTuple):
    """One failure. told_by: causes that detect it. borne: what bears it. tried_by: the simulation's fault classes."""

    what: str
    effect: str
    told_by: tuple[Event, ...]
    borne: str
    residual: str
    tried_by: tuple[str, ...] = ()


STALE = (E.PACK_DATA_STALE, E.PACK_DATA_LOST, E.CELL_DATA_LOST, E.TEMPERATURE_DATA_LOST, E.CONTACTOR_DATA_LOST,
         E.HVIL_DATA_LOST, E.SOC_LOST)  # fmt: skip

FAILURES: tuple[Failure, ...] = (
    # what the pack tells
    Failure("frames of the pack lost, bus off, bus driver fails", "decisions on old values", (*STALE, E.BUS_FAILED), "",
            "the time until a value counts as stale", ("Loss", "BusOff", "DriverBreaks")),
    Failure("one multiplexer value never comes", "one value frozen among fresh ones", (E.CELL_DATA_LOST,
            E.TEMPERATURE_DATA_LOST), "each value and multiplexer page ages on its own", "–", ("MissingPage",)),
    Failure("frames delayed, doubled, out of order", "a value jumps back", (E.FRAMES_CORRUPT,),
            "stamped when received; a counter that stands is refused", "a delay below the stale time is not seen",
            ("Delay", "Duplication", "Reordering")),
    Failure("frames corrupted or cut", "a wrong value that looks right", (E.FRAMES_CORRUPT, *STALE),
            "a refused frame refreshes nothing; plausible bounds of every value",
            "a corruption that fits checksum and bounds, where the pack has a checksum at all",
            ("Corruption", "Shortened")),
    Failure("frames frozen though fresh", "decisions on an old value nobody calls stale",
            (E.FRAMES_CORRUPT, E.CELLS_CONTRADICT_PACK_LONG, E.SOC_JUMP, E.INVERTER_CONTRADICTS_PACK_LONG),
            "a counter that stands is refused", "a pack without counters, frozen as a whole", ("Frozen",)),
    Failure("frames of another car on the bus", "a foreign value taken for ours", (),
            "a foreign or extended id never refreshes anything", "–", ("AnotherCar",)),
    Failure("current sensor with offset or noise", "a weld or a precharge misjudged", (E.CURRENT_OFFSET_HIGH,
            E.WELD_CURRENT), "offset measured with everything open", "an offset that grows while closed",
            ("CurrentOffset", "Noise")),
    Failure("the SoC is lost or jumps", "the inverter plans with a wrong SoC", (E.SOC_STALE, E.SOC_LOST, E.SOC_JUMP),
            "cells bound the power whatever the SoC says", "an SoC that stands still is seen above 1 % a minute only"),
    # what the pack is
    Failure("a cell runs away, high or low", "fire", (E.CELL_OVERVOLTAGE, E.CELL_OVERVOLTAGE_CRITICAL,
            E.CELL_UNDERVOLTAGE, E.CELL_UNDERVOLTAGE_CRITICAL, E.CELL_LIMIT_IGNORED, E.CELL_SPREAD,
            E.PACK_VOLTAGE_CRITICAL), "", "between two messages of the pack only its BMS acts", ("BadCell",)),
    Failure("a cell overheats", "fire", (E.TEMPERATURE_CRITICAL,), "limits taper from 40 °C on",
            "sensors are few; a spot between them is not seen"),
    Failure("the BMS reports a fault, forbids, asks to open", "the pack knows something we do not", (E.BMS_OPEN_NOW,
            E.BMS_FAULT, E.BMS_RELAY_CUT, E.BMS_NO_CHARGE, E.BMS_NO_DISCHARGE, E.BMS_WARNING), "", "–", ("Complaint",)),
    Failure("the pack refuses, cannot close, falls open", "we go on asking; we close into it again", (E.PACK_REFUSES,
            E.PACK_LINK_LOADED, E.PACK_LEFT_CLOSED), "", "–", ("TeslaFallsOpen", "InThePack")),
    Failure("the pack stays closed, or closes unasked", "live terminals", (E.PACK_CLOSED_UNASKED, E.WELD_MEASURED,
            E.WELD_REPORTED), "", "only a person with the breaker can open it then", ("TeslaWelds", "Restless")),
    Failure("isolation low", "the next touch is a shock", (E.ISOLATION_LOW, E.ISOLATION_WARNING), "",
            "while closed it is only told: a transformerless inverter spoils the reading"),
    Failure("pyro fuse or pack fuse blown", "current through nothing; the link floats", (E.PACK_FUSE_BLOWN,
            E.LINK_CONTRADICTS_PACK_LONG), "", "–", ("FuseBlown",)),
    Failure("overcurrent", "cable, fuse, contactor", (E.OVERCURRENT,), "",
            "above `break_max_a` the fuse has to do it", ("LoadSurge",)),
    # relays, link, inputs
    Failure("a relay welds", "cannot open when it must", (E.WELD_MEASURED, E.WELD_CURRENT, E.FEEDBACK_MISMATCH), "",
            "a single welded negative without auxiliary contact is not seen", ("Weld",)),
    Failure("a relay does not close, bounces", "precharge without a path; arc", (E.FEEDBACK_MISMATCH,
            E.PRECHARGE_TRIES_SPENT, E.LINK_CONTRADICTS_PACK_LONG), "feedback has its settling time", "–",
            ("StuckOpen", "Bounce")),
    Failure("an auxiliary contact is lost or stuck", "a relay nobody sees", (E.FEEDBACK_LOST, E.FEEDBACK_MISMATCH), "",
            "–", ("FeedbackLost", "FeedbackStuck")),
    Failure("the relay board takes no orders", "outputs stay as they are", (E.RELAY_FAILED,),
            "no heartbeat: the external watchdog drops them", "the watchdog's own time", ("RelayBoardDead",)),
    Failure("resistor open, shorted or another; link leaks or is loaded", "closing onto an uncharged link",
            (E.PRECHARGE_TRIES_SPENT, E.LINK_CONTRADICTS_PACK),
            "too slow, too fast, no progress, current does not fall",
            "R and C declared wrongly on purpose", ("Resistor", "LeakyLink")),
    Failure("the link sensor is lost or stuck", "a precharge verified by a value that means nothing",
            (E.LINK_CONTRADICTS_PACK, E.LINK_CONTRADICTS_PACK_LONG), "unknown or old never counts as charged",
            "stuck exactly at pack voltage", ("LinkSensorStuck", "LinkSensorLost")),
    Failure("emergency stop or interlock opens, or is not readable", "somebody is in danger", (E.ESTOP_OPEN,
            E.INTERLOCK_OPEN, E.HVIL_OPEN), "unknown, once wired, counts as open", "–", ("PinOpens",)),
    Failure("weak 12 V supply", "weak coils weld", (E.LV_SUPPLY_LOW, E.LV_SUPPLY_LOW_CLOSED), "", "if not measured"),
    # the inverter
    Failure("the inverter ignores limits, or polls garbage", "overcharge, overcurrent", (E.INVERTER_OVER_LIMIT,
            E.INVERTER_IGNORES_LIMIT, E.CELL_LIMIT_IGNORED), "", "up to 31 s at what it takes", ("InTheInverter",)),
    Failure("the inverter revokes, flaps, reboots, is silent", "opening under load; contactors worn out",
            (E.INVERTER_REVOKED, E.INVERTER_QUIET, E.INVERTER_SILENT, E.INVERTER_UNHEARD, E.INVERTER_BEAT_STOPPED,
            E.CLOSINGS_SPENT), "", "–",
            ("PermissionFlaps", "InverterReboots")),
    Failure("the inverter measures another voltage", "something between is open", (E.INVERTER_CONTRADICTS_PACK,
            E.INVERTER_CONTRADICTS_PACK_LONG), "", "–"),
    # the controller
    Failure("the process stalls, ticks are late", "late decisions", (E.TICK_LATE, E.TICK_OVERRUN),
            "no heartbeat: the external watchdog", "the watchdog's own time", ("Stall", "LateTicks")),
    Failure("an exception, or the supervisor wants what must never be", "no decision, or a wrong one", (E.EXCEPTION,
            E.GATE_REFUSED), "outputs go off first", "an error gate and supervisor share"),
    Failure("power cut while closed; config edited meanwhile", "a latched cause or a weld forgotten",
            (E.UNCLEAN_RESTART, E.UNCLEAN_RESTARTS_SPENT), "relays drop without power; the record survives", "–",
            ("PowerCut",)),
    Failure("disk full or slow, record unreadable", "a latched cause or a weld forgotten", (E.RECORD_LOST,),
            "nothing closes before its record is on disk; opening waits for no disk", "–", ("DiskFull", "DiskSlow")),
)  # fmt: skip

GAPS: tuple[str, ...] = (
    "No standard was applied as a process: there is no hazard analysis by a team, no integrity level, no tool "
    "qualification, no independent assessment.",
    "One channel: one computer with Linux and Python, not real-time, without redundancy. The hard-wired stop and the "
    "external watchdog are the second one.",
    "Proven against models, recordings and terminals, not on hardware; the drivers' timing on a loaded Pi is measured, "
    "not guaranteed.",
    "A pack frozen as a whole, with fresh frames and no counter in them, is not told from a pack at rest.",
    "An SoC that stands still while the charge moves is noticed only above 1 % of the capacity a minute.",
    "While closed, low isolation is only told.",
    "A single welded negative contactor without an auxiliary contact is not seen.",
    "Where the pack holds its contactors, its own word CLOSED stands for its precharge.",
    "No defence against a person who may log in at the machine.",
)
