"""Batrium WatchMon on CAN, mode "Native 2.0": a broadcast that is only listened to.

Facts: section 1 of the Batrium protocol note (sources in batrium.dbc). The base address is set on the WatchMon. Frames
of 11 and of 29 bits are taken alike, since only their number is known for sure. Its periods are not documented: a value
counts for 5 s. It switches contactors by its own configuration, if at all, so the wiring is `none`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from controller.batteries.base import BatteryProtocol, PackKind
from controller.codec import dbc
from controller.codec.dbc import Mailbox, Page, Value, Values
from controller.model.battery import BatterySnapshot, Feed, PackReport
from controller.model.reading import Freshness
from controller.model.settings import CHEMISTRIES, NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame
from statecharts.supervisor import Contactor

TABLES = dbc.load(Path(__file__).parent / "batrium.dbc")
DEVICE = TABLES.page("WM_deviceVersion")
CELLS = TABLES.page("WM_cellVoltages")
TEMPERATURES = TABLES.page("WM_cellTemperatures")
SHUNT = TABLES.page("WM_shuntPower")
CHARGE = TABLES.page("WM_shuntState")
LIMITS = TABLES.page("WM_targetLimits")
FLAGS = TABLES.page("WM_controlFlags")
BASE = DEVICE.can_id
EXTENDED = 0x8000_0000

PACK_MAX_V = 1000.0
CELL_MAX_V = 5.0
TARGET_MAX_A = 3276.7
SOC_SLACK_PCT = 20.0

Signals = dict[str, Value]


def within(value: Value, low: float, high: float, digits: int) -> Value:
    """The value, rounded, when it is known and low < value <= high."""
    return round(value, digits) if value is not None and low < value <= high else None


def ordered(low: Value, high: Value) -> tuple[Value, Value]:
    """A minimum and a maximum; if one is unknown or they contradict each other, neither is known."""
    return (low, high) if low is not None and high is not None and low <= high else (None, None)


def cells(said: Values) -> Signals:
    lowest, highest = (within(said[f"WM_cellVoltage{which}"], 0.0, CELL_MAX_V, 3) for which in ("Min", "Max"))
    return dict(zip(Feed.CELLS.signals, ordered(lowest, highest), strict=True))


def temperatures(said: Values) -> Signals:
    extremes = ordered(said["WM_cellTemperatureMin"], said["WM_cellTemperatureMax"])
    return dict(zip(Feed.TEMPERATURES.signals, extremes, strict=True))


def shunt(said: Values) -> Signals:
    """Without a voltage there is no shunt, or it is off: then its current is no measurement either."""
    pack_v, current_a = within(said["WM_shuntVoltage"], 0.0, PACK_MAX_V, 2), said["WM_shuntCurrent"]
    known = pack_v is not None and current_a is not None
    return {"pack_voltage_v": pack_v, "current_a": round(current_a, 1) if known and current_a is not None else None}


def charge(said: Values) -> Signals:
    soc = within(said["WM_stateOfCharge"], -SOC_SLACK_PCT, 100.0 + SOC_SLACK_PCT, 1)
    soh = within(said["WM_stateOfHealth"], 0.0, 110.0, 2)
    return {"soc_pct": None if soc is None else min(100.0, max(0.0, soc)), "soh_pct": soh}


MEANINGS: Mapping[Page, Callable[[Values], Signals]] = {
    CELLS: cells,
    TEMPERATURES: temperatures,
    SHUNT: shunt,
    CHARGE: charge,
}
"""What each page says of the pack."""
FED_BY: Mapping[Page, tuple[Feed, ...]] = {
    CELLS: (Feed.CELLS,),
    TEMPERATURES: (Feed.TEMPERATURES,),
    SHUNT: (Feed.VOLTAGE, Feed.CURRENT),
    CHARGE: (Feed.SOC,),
}
ROUND_MS = CELLS.round_ms
NEVER: Mapping[Feed, int | None] = {feed: None for feeds in FED_BY.values() for feed in feeds}


class Direction(NamedTuple):
    """What the WatchMon allows of charging, or of discharging. on: what its flag says, None when it counts not."""

    target_a: Value
    target_v: Value
    on: Value
    obeys: bool

    @property
    def forbidden(self) -> bool | None:
        if self.target_a == 0.0 or (self.obeys and self.on == 0):
            return True
        return None if self.target_a is None or (self.obeys and self.on is None) else False

    def limit_w(self, pack_v: Value) -> Value:
        """Target current × pack voltage; a flag that is to be obeyed and is unknown allows nothing known."""
        if self.forbidden:
            return 0.0
        if self.forbidden is None or self.target_a is None or pack_v is None:
            return None
        return float(round(self.target_a * pack_v))


def direction(name: str, limits: Values, flags: Values, obeys: bool) -> Direction:
    return Direction(
        within(limits[f"WM_{name}TargetCurrent"], -1.0, TARGET_MAX_A, 1),
        within(limits[f"WM_{name}TargetVoltage"], 0.0, PACK_MAX_V, 2),
        flags[f"WM_{name}On"],
        obeys,
    )


class BatriumState(NamedTuple):
    """Everything heard from one WatchMon. shift: from its ids to those of the .dbc. obeys: its flags count."""

    shift: int
    obeys: bool
    box: Mailbox = Mailbox(TABLES)
    valid_at_ms: Mapping[Feed, int | None] = NEVER

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> BatriumState:
        box = self.box.receive([CanFrame(f.id + self.shift, f.data, f.at_ms) for f in frames], now_ms)
        if box is self.box:
            return self
        valid_at_ms = dict(self.valid_at_ms)
        for page in box.news:
            latest = box.latest[page]
            said = MEANINGS[page](latest.values) if page in MEANINGS else {}
            for feed in FED_BY.get(page, ()):
                if all(said[name] is not None for name in feed.signals):
                    valid_at_ms[feed] = latest.at_ms
        return self._replace(box=box, valid_at_ms=valid_at_ms)

    def snapshot(self, now_ms: int) -> BatterySnapshot:
        read = self.box.read
        signals: dict[str, Any] = {}
        for page, meaning in MEANINGS.items():
            signals |= meaning(read(page, now_ms))
        limits, flags = read(LIMITS, now_ms), read(FLAGS, now_ms)
        up = direction("charge", limits, flags, self.obeys)
        down = direction("discharge", limits, flags, self.obeys)
        serial, critical_ok = read(DEVICE, now_ms)["WM_serialNumber"], flags["WM_criticalOk"]
        return BatterySnapshot(
            **signals,
            max_charge_a=up.target_a,
            max_discharge_a=down.target_a,
            max_charge_w=up.limit_w(signals["pack_voltage_v"]),
            max_discharge_w=down.limit_w(signals["pack_voltage_v"]),
            design_max_v=up.target_v,
            design_min_v=down.target_v,
            report=PackReport(
                open_now=critical_ok == 0 if self.obeys and critical_ok is not None else None,
                no_charge=up.forbidden,
                no_discharge=down.forbidden,
            ),
            feeds={feed: Freshness(at_ms, ROUND_MS) for feed, at_ms in self.valid_at_ms.items()},
            serial=f"{serial:.0f}" if serial else None,  # 0: not initialised
            decoded_frames=self.box.accepted,
            corrupt_frames=self.box.rejected,
        )

    def transmit(self, closed: frozenset[Contactor], now_ms: int) -> tuple[BatriumState, tuple[CanFrame, ...]]:
        return self, ()


class Batrium(BatteryProtocol):
    """The row of the registry."""

    def ids(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> Collection[int]:
        shift = self._shift(options)
        return {kind + can_id - shift for can_id in self.rx for kind in (0, EXTENDED)}

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> BatriumState:
        return BatriumState(self._shift(options), self.chosen(options)["flags"] == "obey")

    def _shift(self, options: Mapping[str, OptionValue]) -> int:
        return BASE - int(str(self.chosen(options)["base_id"]), 16)

    def kind(self, pack: BatterySnapshot) -> PackKind:
        """It tells neither: its packs are built by their owners."""
        return PackKind(None, None)

    def explain(self, frame: CanFrame) -> tuple[tuple[str, Values], ...]:
        """By the default base address."""
        return TABLES.explain(frame.id, frame.data)


UNCERTAIN = (
    "The base address (`base_id`), and whether its ids have 11 or 29 bits: both are taken.",
    "How often each frame comes: a value counts for 5 s.",
    "What the bits of 0x07 mean (`flags`): taken as in the UDP message of the same name. Compare with the display.",
    "The sign of the current is stated for UDP only: positive is charging.",
    "Whether the state of health is signed, and how far the charge leaves 0 to 100 %.",
    "Single cells are in no CAN frame that any source names.",
)
RECORDINGS: Mapping[str, str] = {}

PROTOCOL = Batrium(
    name="batrium",
    title="Batrium WatchMon (CAN, Native 2.0)",
    rx=TABLES.cycles(),
    tx=frozenset(),
    wirings=("none",),
    chemistries=tuple(CHEMISTRIES),
    telling=frozenset(page.can_id for page in (*MEANINGS, LIMITS, FLAGS)),
    options=(
        Option(
            "base_id", f"0x{BASE:03X}",
            "Base address of the broadcast, as set on the WatchMon, in hex; some are at 0x000.",
            pattern="0x[01]?[0-9A-Fa-f]{1,7}",
        ),
        Option(
            "flags", "obey",
            "What its control flags (0x07) do. Their meaning is inferred, not documented: obey takes bit 0 of the first"
            " three bytes as battery OK, charge on, discharge on, and offers nothing without them; ignore goes by the"
            " target currents alone, for a WatchMon whose display proves the flags wrong",
            choices=("obey", "ignore"),
        ),
        Option("energy_full_wh", 0.0, "Nameplate energy: the WatchMon tells Ah only.", yours=True),
    ),
)  # fmt: skip
