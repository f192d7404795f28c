"""A bench for the core: the real step over a pack and an inverter whose every word is set by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controller import core
from controller.batteries.base import BatteryProtocol
from controller.inverters.base import Answer, InverterProtocol
from controller.model.battery import BatterySnapshot, Feed, PackContactor, PackReport
from controller.model.events import Event, Notice
from controller.model.inverter import InverterRequest, InverterView
from controller.model.reading import Freshness
from controller.model.settings import CHEMISTRIES, ContactorSettings, PackSettings, PrechargeSettings, Settings
from controller.ports import CanFrame, Command, CommandKind, Inputs, Outputs, Record, RegisterWrite
from controller.safety.situation import required_feeds
from sim.invariants import Moment, moment
from statecharts.supervisor import Contactor, State

TICK_MS = 10
FEED_NAMES = {
    Feed.VOLTAGE: ("pack_voltage_v",),
    Feed.CURRENT: ("current_a",),
    Feed.CELLS: ("cell_min_v", "cell_max_v"),
    Feed.TEMPERATURES: ("temp_min_c", "temp_max_c"),
    Feed.SOC: ("soc_pct",),
    Feed.CONTACTOR: ("contactor_state",),
    Feed.HVIL: ("hvil_ok",),
}
ROUNDS_MS = {
    Feed.VOLTAGE: 10, Feed.CURRENT: 10, Feed.CELLS: 2000, Feed.TEMPERATURES: 2000, Feed.SOC: 100, Feed.CONTACTOR: 100,
    Feed.HVIL: 1000,
}  # fmt: skip
HEALTHY = BatterySnapshot(
    pack_voltage_v=360.0, current_a=0.0, soc_pct=50.0, soh_pct=90.0, cell_min_v=3.74, cell_max_v=3.76,
    temp_min_c=20.0, temp_max_c=22.0, max_charge_w=50_000.0, max_discharge_w=80_000.0, energy_full_wh=60_000.0,
    contactor_state=PackContactor.OPEN, hvil_ok=True, lv_supply_v=13.5,
    report=PackReport(fault=False, open_now=False, open_asked=False, refuses=False, link_loaded=False, welded=False,
                      isolation_alert=False, no_charge=False, no_discharge=False, warns=False),
)  # fmt: skip


@dataclass(frozen=True)
class _SaidPack:
    """A battery that says what the bench wrote on its slate."""

    slate: dict[str, object]

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> _SaidPack:
        return self

    def snapshot(self, now_ms: int) -> BatterySnapshot:
        pack: BatterySnapshot = self.slate["pack"]  # type: ignore[assignment]
        stamps: dict[Feed, int | None] = self.slate["stamps"]  # type: ignore[assignment]
        silent: set[Feed] = self.slate["silent"]  # type: ignore[assignment]
        for feed, names in FEED_NAMES.items():
            if feed not in silent and (self.slate.get("stamped") or getattr(pack, names[0]) is not None):
                stamps[feed] = now_ms
        feeds = {feed: Freshness(stamps.get(feed), ROUNDS_MS[feed]) for feed in Feed}
        stale = {
            name: None for feed, names in FEED_NAMES.items() if not feeds[feed].fresh(now_ms) for name in names
        }  # fmt: skip
        return pack._replace(feeds=feeds, link_at_ms=now_ms, **stale)

    def transmit(self, closed: frozenset[Contactor], now_ms: int) -> tuple[_SaidPack, tuple[CanFrame, ...]]:
        asked = Contactor.PACK in closed
        return self, (CanFrame(0x100, bytes([asked])),) if self.slate["speaks"] else ()


@dataclass(frozen=True)
class SaidBattery(BatteryProtocol):
    slate: dict[str, object] = field(default_factory=dict)

    def start(self, options: Mapping[str, object] = {}) -> _SaidPack:  # type: ignore[override]
        return _SaidPack(self.slate)


@dataclass(frozen=True)
class _SaidRequest:
    slate: dict[str, object]

    def receive(
        self, frames: Sequence[CanFrame], writes: Sequence[RegisterWrite], polls: int, now_ms: int
    ) -> _SaidRequest:
        if not self.slate["deaf"]:
            self.slate["request"] = replace(self.slate["request"], heard_at_ms=now_ms)  # type: ignore[type-var]
        return self

    def request(self, now_ms: int) -> InverterRequest:
        return self.slate["request"]  # type: ignore[return-value]

    def answer(self, view: InverterView, now_ms: int) -> tuple[_SaidRequest, Answer]:
        self.slate["view"] = view
        return self, Answer(registers={301: (int(view.max_charge_w),)})


@dataclass(frozen=True)
class SaidInverter(InverterProtocol):
    slate: dict[str, object] = field(default_factory=dict)

    def start(self, options: Mapping[str, object] = {}) -> _SaidRequest:  # type: ignore[override]
        return _SaidRequest(self.slate)


class Bench:
    """One controller, its pack and its inverter. Everything is healthy and permitted until the test says otherwise.

    With physics on (the default) the world obeys: a pack asked to close does so within 1 s, relays feed back at once,
    the link charges over R·C through the precharge relay and keeps pack voltage behind closed contactors.
    """

    def __init__(
        self, wiring: str = "own", *, record: Record | None = None, physics: bool = True, feedback: bool = True,
        asks: bool = True, precharge: PrechargeSettings | None = None, contactors: ContactorSettings | None = None,
        shadow: bool = False, chemistry: str = "nca", off_grid: bool = False,
    ) -> None:  # fmt: skip
        self.wiring, self.physics, self.feedback = wiring, physics, feedback
        self.slate: dict[str, object] = {
            "pack": HEALTHY, "stamps": {}, "silent": set(), "speaks": wiring.startswith("pack"), "deaf": False,
            "stamped": False,
            "request": InverterRequest(go=True, heard_at_ms=0), "view": None,
        }  # fmt: skip
        self.settings = Settings(
            battery="said", inverter="said", wiring=wiring,
            pack=PackSettings(CHEMISTRIES[chemistry], 96, 60.0, 60.0), max_power_w=10_000.0,
            precharge=precharge or PrechargeSettings(resistance_ohm=100.0, capacitance_f=0.001),
            contactors=contactors or ContactorSettings(), off_grid=off_grid,
        )  # fmt: skip
        battery = SaidBattery(
            "said", "a pack that says what it is told", {}, frozenset({0x100}), (wiring,), ("nca",), frozenset(),
            slate=self.slate,
        )  # fmt: skip
        inverter = SaidInverter(
            "said", "an inverter that says what it is told", asks=asks, zero_ms=20_000, silent_ms=60_000,
            follow_ms=8_000, max_w=30_000.0, offers_before_go=True, tx=frozenset(), slate=self.slate,
        )  # fmt: skip
        self.state = core.start(self.settings, battery, inverter, record=record, shadow=shadow)
        self.now_ms = 0
        self.outputs = Outputs()
        self.estop_ok: bool | None = True
        self.interlock_ok: bool | None = True
        self.commands: list[Command] = []
        self.breakdowns: list[Event] = []
        self.disk_full = False
        self.stored: Record | None = record
        self.booted_from = record
        self.link_v: float | None = 0.0
        self.sampled_ms: int | None = None
        self.load_a = 0.0
        self.welded: frozenset[Contactor] = frozenset()
        self.stuck_open: frozenset[Contactor] = frozenset()
        self.unreadable: frozenset[Contactor] = frozenset()
        self.pack_obeys = True
        self._asked_ms: int | None = None
        self.notices: list[tuple[int, Notice]] = []
        self.closed_at: list[tuple[int, frozenset[Contactor]]] = [(0, frozenset())]
        self.states: list[tuple[int, State, str]] = [(0, State.STARTING, "boot")]
        self.views: list[InverterView] = []
        self.observers: list[Callable[[Moment], None]] = []

    # --- what the test writes on the slate ---

    def says(self, **values: object) -> Bench:
        """The pack says this from now on."""
        self.slate["pack"] = self.slate["pack"]._replace(**values)  # type: ignore[attr-defined]
        return self

    def reports(self, **values: object) -> Bench:
        pack: BatterySnapshot = self.slate["pack"]  # type: ignore[assignment]
        return self.says(report=replace(pack.report, **values))

    def silence(self, *feeds: Feed) -> Bench:
        """These feeds are not refreshed any more."""
        self.slate["silent"] = set(feeds)
        return self

    def stamped(self) -> Bench:
        """From now on its frames come whether their values mean anything or not."""
        self.slate["stamped"] = True
        return self

    def inverter(self, **values: object) -> Bench:
        self.slate["request"] = replace(self.slate["request"], **values)  # type: ignore[type-var]
        return self

    def deaf(self, silent: bool = True) -> Bench:
        """The inverter is not heard any more."""
        self.slate["deaf"] = silent
        return self

    def command(self, kind: CommandKind, name: str = "", **values: object) -> Bench:
        self.commands.append(Command(kind, name, **values))  # type: ignore[arg-type]
        return self

    def enable(self) -> Bench:
        return self.command(CommandKind.ENABLE)

    # --- time ---

    def run_ms(self, duration_ms: int) -> Bench:
        for _ in range(duration_ms // TICK_MS):
            self._tick()
        return self

    def until(self, state: State, within_ms: int = 60_000) -> Bench:
        for _ in range(within_ms // TICK_MS):
            if self.state.supervisor.state is state:
                return self
            self._tick()
        raise AssertionError(f"{state.name} not reached in {within_ms} ms: {self.states}, {self.state.withheld}")

    def running(self) -> Bench:
        """Enabled, closed and settled, its limits fully up."""
        return self.enable().until(State.RUNNING).run_ms(11_000)

    def _tick(self) -> None:
        self.now_ms += TICK_MS
        if self.physics:
            self._world()
        inputs = Inputs(
            feedback=self._fed_back(), estop_ok=self.estop_ok, interlock_ok=self.interlock_ok,
            link_voltage_v=self.link_v if self.wiring == "own" else None,
            link_at_ms=self.now_ms if self.sampled_ms is None else self.sampled_ms,
            commands=tuple(self.commands),
            breakdowns=tuple(self.breakdowns), stored_seq=self.stored.seq if self.stored else 0,
        )  # fmt: skip
        self.commands = []
        self.state, self.outputs = core.step(self.state, inputs, self.now_ms)
        if self.outputs.record is not None and not self.disk_full:
            self.stored = self.outputs.record
        self.notices.extend((self.now_ms, notice) for notice in self.outputs.events)
        if self.outputs.closed != self.closed_at[-1][1]:
            self.closed_at.append((self.now_ms, self.outputs.closed))
        sup = self.state.supervisor
        if sup.state is not self.states[-1][1]:
            self.states.append((self.now_ms, sup.state, sup.cause))
        self.views.append(self.slate["view"])  # type: ignore[arg-type]
        for observe in self.observers:
            observe(moment(self.state, inputs, self.outputs, self.view, self.stored, self.now_ms, self.booted_from))

    # --- the world ---

    @property
    def closed(self) -> frozenset[Contactor]:
        return self.closed_at[-1][1]

    def _really_closed(self) -> frozenset[Contactor]:
        return (self.closed | self.welded) - self.stuck_open

    def _fed_back(self) -> dict[Contactor, bool | None]:
        members = {"own": (Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE),
                   "pack+inverter": (Contactor.POSITIVE,)}.get(self.wiring, ())  # fmt: skip
        really = self._really_closed()
        if not self.feedback:
            return {}
        return {member: None if member in self.unreadable else member in really for member in members}

    def _world(self) -> None:
        pack: BatterySnapshot = self.slate["pack"]  # type: ignore[assignment]
        voltage_v = pack.pack_voltage_v or 360.0
        really = self._really_closed()
        connected = self.state.supervisor.state in (State.RUNNING, State.UNLOADING) and (
            self.wiring == "none" or bool(really)
        )
        current_a = self.load_a if connected else 0.0
        if self.wiring == "own" and self.link_v is not None:
            if {Contactor.NEGATIVE, Contactor.POSITIVE} <= really:
                self.link_v = voltage_v
            elif {Contactor.NEGATIVE, Contactor.PRECHARGE} <= really:
                current_a = -(voltage_v - self.link_v) / 100.0
                self.link_v += (voltage_v - self.link_v) * TICK_MS / 100.0
            else:
                self.link_v *= 1.0 - TICK_MS / 5000.0
        if self.pack_obeys and self.wiring.startswith("pack"):
            self._pack_obeys()
        self.says(current_a=current_a)

    def _pack_obeys(self) -> None:
        if Contactor.PACK not in self.closed:
            self._asked_ms = None
            self.says(contactor_state=PackContactor.OPEN)
            return
        self._asked_ms = self.now_ms if self._asked_ms is None else self._asked_ms
        done = self.now_ms - self._asked_ms >= 1000
        self.says(contactor_state=PackContactor.CLOSED if done else PackContactor.CLOSING)

    # --- what the test asks ---

    @property
    def at(self) -> State:
        return self.state.supervisor.state

    @property
    def view(self) -> InverterView:
        return self.slate["view"]  # type: ignore[return-value]

    @property
    def limits(self) -> tuple[float, float]:
        return self.view.max_charge_w, self.view.max_discharge_w

    @property
    def ever_closed(self) -> frozenset[Contactor]:
        return frozenset().union(*(closed for _, closed in self.closed_at))

    def events(self) -> list[Event]:
        return [notice.id for _, notice in self.notices]

    def happened(self, event: Event) -> Notice:
        """The first notice of this event. Raises AssertionError when it never came."""
        for _, notice in self.notices:
            if notice.id is event:
                return notice
        raise AssertionError(f"{event.value} never happened: {self.notices}")

    def opened_after_ms(self, since_ms: int) -> int:
        """How long after `since_ms` everything went off for the first time."""
        for at_ms, closed in self.closed_at:
            if at_ms > since_ms and not closed:
                return at_ms - since_ms
        raise AssertionError(f"still closed: {self.closed_at[-1]}")


def needs(wiring: str) -> tuple[Feed, ...]:
    return required_feeds(wiring)
