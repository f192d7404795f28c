"""A whole garage around the real Loop: pack, link, relays, inverter, operator, pins, disk, supply. A hand moves time.

    garage = Garage(Build("own"))
    garage.ask(CommandKind.ENABLE)
    garage.run_ms(60_000)

One tick: the plant moves, the pack and the inverter speak, the controller (when it has power and is not stalled) hears
them through memory ports, and what it says and switches reaches them. Invariants watch each tick. A fault changes an
attribute of any part, or what travels on a wire; see `sim/faults.py`. No clock, and no chance without a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, cast

from controller import core
from controller.batteries.base import BatteryProtocol
from controller.batteries.registry import BATTERIES
from controller.core import CoreState
from controller.inverters.base import InverterProtocol
from controller.inverters.registry import INVERTERS
from controller.loop import TICK_MS, Loop, Ports
from controller.model.events import Event, Notice
from controller.model.settings import CHEMISTRIES as LIMITS
from controller.model.settings import ContactorSettings, PackSettings, PrechargeSettings, Settings
from controller.ports import (
    BusError,
    CanFrame,
    ClockPort,
    Command,
    CommandKind,
    Inputs,
    Outputs,
    Pins,
    Record,
    RegisterWrite,
)
from controller.trace import Trace
from drivers.memory import HandClock, MemoryEvents, MemoryHeartbeat, MemoryLine, MemoryLink, MemoryPins, MemoryRegisters
from drivers.modbus_server import ModbusServer
from sim import leaf_pack, plain_pack
from sim.byd_can_inverter import BydCanInverter
from sim.gen24 import UNIT, Gen24
from sim.invariants import Invariants, moment
from sim.leaf_pack import LeafPack
from sim.plain_pack import PlainPack
from sim.plant import CHEMISTRIES, Cells, Plant, PlantRelays, Relay, Source
from sim.tesla_pack import Phase, TeslaPack
from statecharts.chart import Row
from statecharts.supervisor import WIRINGS, Contactor, State

NEGATIVE, PRECHARGE, POSITIVE = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE
RELAYS = (NEGATIVE, PRECHARGE, POSITIVE)
WATCHDOG_MS = 500
FILTER_F = 20e-6
"""What is left of the link where pack or inverter precharge by themselves: the filter at the inverter's terminals."""
SENSOR_MAX_A, LEAF_MAX_A = 800.0, 390.0
FROM_PACK, TO_PACK = "pack>us", "us>pack"

Filter = Callable[[list[CanFrame], int], list[CanFrame]]
"""(the frames on a wire, now_ms) -> the frames that arrive."""


# --- what it is built from ---


@dataclass(frozen=True, slots=True)
class Build:
    """A garage before its first tick. pack: "tesla" in the wirings `pack…`, else "plain", in `own` also "leaf".

    inverter: "gen24" as bytes on its serial line, behind the real server; "registers", the same register by register,
    which is cheaper; "byd_can", a Sungrow as frames.
    hurried: waits of seconds instead of tens of seconds, so that a short life sees more. unverified: the precharge is
    timed, not measured. sensor: our own link sensor (own). blind: relays without feedback. pins: stop and interlock are
    wired. record: what an earlier life left on the disk. residual_v: on the link. welded: closed before the first boot.
    """

    wiring: str = "own"
    pack: str = "plain"
    inverter: str = "registers"
    chemistry: str = "nca"
    soc: float = 0.5
    hurried: bool = False
    unverified: bool = False
    sensor: bool = True
    blind: bool = False
    pins: bool = True
    off_grid: bool = False
    auto_enable: bool = False
    max_a: float = 20.0
    max_power_w: float = 5_000.0
    link_f: float = 0.001
    precharge_ohm: float = 100.0
    bleed_ohm: float = 20_000.0
    disk_ms: int = 30
    record: Record | None = None
    residual_v: float = 0.0
    welded: frozenset[Contactor] = frozenset()
    seed: int | None = None

    def __post_init__(self) -> None:
        packs = {"own": ("plain", "leaf"), "none": ("plain",)}.get(self.wiring, ("tesla",))
        if self.wiring not in WIRINGS or self.pack not in packs:
            raise ValueError(f"no garage with a {self.pack} pack and the wiring {self.wiring}")

    @property
    def settings(self) -> Settings:
        kind = LIMITS["lmo" if self.pack == "leaf" else self.chemistry]
        pack = PackSettings(kind, 96, self.max_a, self.max_a, energy_full_wh=60_000.0)
        precharge = PrechargeSettings(
            resistance_ohm=100.0, capacitance_f=0.001,
            unverified_reason="no sensor on the link" if self.unverified else "",
        )  # fmt: skip
        contactors = ContactorSettings(auto_enable=self.auto_enable)
        if self.hurried:
            precharge = replace(precharge, cool_down_ms=2_000)
            contactors = replace(
                contactors, minimum_off_ms=1_000, verify_ms=4_000, pack_open_ms=3_000, auto_enable_ms=3_000,
                signals_ms=8_000, confirm_ms=600,
            )  # fmt: skip
        name = "tesla_model3" if self.pack == "tesla" else self.pack
        inverter = "byd_can" if self.inverter == "byd_can" else "byd_modbus"
        return Settings(
            name, inverter, self.wiring, pack, self.max_power_w, precharge, contactors, off_grid=self.off_grid
        )  # fmt: skip

    @property
    def battery(self) -> BatteryProtocol:
        return plain_pack.PROTOCOL if self.pack == "plain" else BATTERIES[self.settings.battery]


# --- the other ends of the cables ---


class PackEnd(Protocol):
    """A pack at the far end of the bus, and what the plant must know of it."""

    @property
    def conducting(self) -> bool:
        """The pack's own contactors carry; True where it has none."""

    def step(self, now_ms: int, plant: Plant) -> list[CanFrame]: ...
    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> None: ...
    def mended(self, frame: CanFrame) -> CanFrame:
        """The same frame with its checksum made true, where it has one."""


class PlainEnd:
    """A pack without contactors of its own, its cells in the plant."""

    conducting = True

    def __init__(self, build: Build) -> None:
        self.cells = Cells(CHEMISTRIES[build.chemistry], 96, soc=build.soc, seed=build.seed)
        self.pack = PlainPack(self.cells)

    def step(self, now_ms: int, plant: Plant) -> list[CanFrame]:
        current_a = plant.current_a
        volts = 2.0 if plant.fuse_blown else self.cells.emf_v + current_a * self.cells.ohm
        return self.pack.step(now_ms, volts, current_a)

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> None:
        pass

    def mended(self, frame: CanFrame) -> CanFrame:
        return frame._replace(data=plain_pack.sealed(frame.data[:7]))


class TeslaEnd:
    """A pack that closes itself; what its cells do, it works out itself, so it is also the plant's source."""

    def __init__(self, build: Build) -> None:
        self.pack = TeslaPack(soc_pct=100.0 * build.soc, seed=build.seed)
        self.pack.link_v = build.residual_v

    @property
    def conducting(self) -> bool:
        return self.pack.conducting

    @property
    def emf_v(self) -> float:
        kind = self.pack.chemistry
        return kind.cells * kind.cell_ocv_v(self.pack.soc_pct)

    @property
    def ohm(self) -> float:
        return self.pack.chemistry.cells * self.pack.chemistry.cell_ohm

    def carry(self, charge_c: float, square_a2s: float, elapsed_s: float) -> None:
        """The pack counts by itself."""

    def extremes_v(self, current_a: float = 0.0) -> tuple[float, float]:
        volts = [self.pack.cell_v(i) for i in range(self.pack.chemistry.cells)]
        return min(volts), max(volts)

    def step(self, now_ms: int, plant: Plant) -> list[CanFrame]:
        return self.pack.step(now_ms, min(max(plant.current_a, -SENSOR_MAX_A), SENSOR_MAX_A))

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> None:
        self.pack.receive(frames, now_ms)

    def mended(self, frame: CanFrame) -> CanFrame:
        return frame  # what this pack sends carries no checksum


class LeafEnd:
    """A pack behind our relays that works out its own cells, so it is also the plant's source."""

    conducting = True

    def __init__(self, build: Build) -> None:
        self.pack = LeafPack(soc_pct=100.0 * build.soc)

    @property
    def emf_v(self) -> float:
        return self.pack.pack_v - self.pack.current_a * self.ohm

    @property
    def ohm(self) -> float:
        return leaf_pack.CELLS * leaf_pack.CELL_OHM

    def carry(self, charge_c: float, square_a2s: float, elapsed_s: float) -> None:
        """The pack counts by itself."""

    def extremes_v(self, current_a: float = 0.0) -> tuple[float, float]:
        volts = self.pack.cells_v
        return min(volts), max(volts)

    def step(self, now_ms: int, plant: Plant) -> list[CanFrame]:
        return self.pack.step(now_ms, min(max(plant.current_a, -LEAF_MAX_A), LEAF_MAX_A))

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> None:
        self.pack.receive(frames, now_ms)

    def mended(self, frame: CanFrame) -> CanFrame:
        sealed = frame.id in (0x1DB, 0x1DC)
        return frame._replace(data=frame.data[:7] + bytes([leaf_pack.crc8(frame.data[:7])])) if sealed else frame


ENDS: Mapping[str, Callable[[Build], PackEnd]] = {"plain": PlainEnd, "tesla": TeslaEnd, "leaf": LeafEnd}


@dataclass
class InverterEnd:
    """An inverter at the far end of its cable, whatever it speaks: it follows the limits it reads.

    wish_w: what house and sun would have it do, positive charges. Misbehaviour, to be changed at any time: silent,
    revoked, ignores (limits, and whether the battery is there), garbage on the line, offset_v of its measurement.
    """

    FOLLOW_W_PER_S = 2_000.0

    wish_w: float = 0.0
    silent: bool = False
    revoked: bool = False
    ignores: bool = False
    garbage: bool = False
    offset_v: float = 0.0
    power_w: float = field(default=0.0, init=False)

    @property
    def ports(self) -> Mapping[str, Any]:
        """Our side of its cable, by the names of Ports."""
        raise NotImplementedError

    def reboot(self, now_ms: int) -> None:
        """It searches anew: nothing said, nothing read, no power."""
        self.power_w = 0.0

    def power_cut(self) -> None:
        """Our side of the cable lost its power, and starts anew."""

    def exchange(self, now_ms: int, link_v: float, current_a: float) -> tuple[float, float]:
        """Speak and listen for one tick; the bounds of its power now: most it takes (negative), most it puts in."""
        raise NotImplementedError

    def step(self, now_ms: int, link_v: float, current_a: float) -> float:
        """One tick; the power it puts into the link."""
        low_w, high_w = self.exchange(now_ms, link_v, current_a)
        target_w = self.wish_w if self.ignores else min(max(self.wish_w, low_w), high_w)
        slope_w = self.FOLLOW_W_PER_S * TICK_MS / 1000.0
        self.power_w = min(max(target_w, self.power_w - slope_w), self.power_w + slope_w) if link_v > 100.0 else 0.0
        return self.power_w


class RegisterInverter(InverterEnd):
    """The least a Gen24 does, at the level of registers: polls, gives its go, measures the link."""

    POLL_MS = 5_000
    GO_MS = 2_000

    def __init__(self) -> None:
        super().__init__()
        self.registers = MemoryRegisters()
        self._since_ms, self._said = 0, 0
        self._bounds_w = (0.0, 0.0)

    @property
    def ports(self) -> Mapping[str, Any]:
        return {"registers": self.registers}

    def reboot(self, now_ms: int) -> None:
        super().reboot(now_ms)
        self._since_ms, self._said, self._bounds_w = now_ms, 0, (0.0, 0.0)

    def power_cut(self) -> None:
        self.registers.writes, self.registers.polls = [], 0

    def exchange(self, now_ms: int, link_v: float, current_a: float) -> tuple[float, float]:
        if not self.silent:
            self._speak(now_ms - self._since_ms, link_v)
        return self._bounds_w

    def _speak(self, up_ms: int, link_v: float) -> None:
        wanted = 1 if up_ms < self.GO_MS or self.revoked else 2
        if wanted != self._said and up_ms >= self.GO_MS // 2:
            self._write(401, wanted)
            self._said = wanted
        if up_ms % self.POLL_MS == 0:
            self.registers.polls += 1
            self._read()
            if link_v > 50.0:
                self._write(418, round(10 * (link_v + self.offset_v)))
        if self.garbage and up_ms % 70 == 0:
            self._write(300 + up_ms // 70 % 200, 0xFFFF)

    def _write(self, register: int, value: int) -> None:
        self.registers.polls += 1
        self.registers.writes.append(RegisterWrite(register, (max(0, value),)))

    def _read(self) -> None:
        """Block 301: status, then 307 discharge and 308 charge limit. Power flows while the battery says ACTIVE."""
        words = self.registers.blocks.get(301, ())
        self._bounds_w = (-float(words[6]), float(words[7])) if words and words[0] == 3 else (0.0, 0.0)


class Gen24Inverter(InverterEnd):
    """The Gen24 of sim/gen24.py as bytes on RS485, and our real Modbus server at the other end."""

    DEAD_MS = 2_000

    def __init__(self, clock: ClockPort, check_write: Callable[[RegisterWrite], None]) -> None:
        super().__init__()
        self.peer, self.line = Gen24(), MemoryLine()
        self._clock, self._check_write = clock, check_write
        self.peer.reboot(0, self.DEAD_MS)
        self.power_cut()

    @property
    def ports(self) -> Mapping[str, Any]:
        return {"registers": self.server}

    def reboot(self, now_ms: int) -> None:
        super().reboot(now_ms)
        self.peer.reboot(now_ms, self.DEAD_MS)

    def power_cut(self) -> None:
        self.server = ModbusServer(self.line, self._clock, UNIT, self._check_write)

    def exchange(self, now_ms: int, link_v: float, current_a: float) -> tuple[float, float]:
        peer = self.peer
        peer.silent, peer.gives_go, peer.ignores_limits = self.silent, not self.revoked, self.ignores
        peer.leading = b"\x55\xaa\x00" if self.garbage else b""
        peer.measures = True
        heard, self.line.outbox = self.line.outbox, b""
        self.line.inbox += peer.step(now_ms, heard, max(0.0, link_v + self.offset_v), current_a)
        return -peer.discharge_limit_w, peer.charge_limit_w


class CanInverter(InverterEnd):
    """The Sungrow of sim/byd_can_inverter.py on a bus of its own. What takes its go back is its silence."""

    def __init__(self) -> None:
        super().__init__()
        self.peer, self.bus = BydCanInverter(), Bus()

    @property
    def ports(self) -> Mapping[str, Any]:
        return {"inverter_bus": self.bus}

    def reboot(self, now_ms: int) -> None:
        super().reboot(now_ms)
        self.peer.reboot(now_ms)

    def power_cut(self) -> None:
        self.bus.inbox, self.bus.outbox = [], []

    def exchange(self, now_ms: int, link_v: float, current_a: float) -> tuple[float, float]:
        peer = self.peer
        peer.silent, peer.ignores_limits, peer.garbage = self.silent or self.revoked, self.ignores, self.garbage
        heard, self.bus.outbox = self.bus.outbox, []
        said = peer.step(now_ms, heard, max(0.0, link_v + self.offset_v), current_a)
        self.bus.inbox += [frame._replace(at_ms=now_ms) for frame in said]
        if not (peer.works and peer.sees_ready):
            return 0.0, 0.0
        return -peer.discharge_limit_w, peer.charge_limit_w


INVERTER_ENDS: Mapping[str, Callable[[ClockPort, InverterProtocol], InverterEnd]] = {
    "registers": lambda clock, protocol: RegisterInverter(),
    "gen24": lambda clock, protocol: Gen24Inverter(clock, protocol.check_write),
    "byd_can": lambda clock, protocol: CanInverter(),
}


# --- ports of our own ---


class Bus:
    """A CanPort: off means that nothing passes, and that sending fails."""

    def __init__(self) -> None:
        self.inbox: list[CanFrame] = []
        self.outbox: list[CanFrame] = []
        self.off = False
        self.raises: Exception | None = None

    def receive(self) -> Sequence[CanFrame]:
        if self.raises is not None:
            raise self.raises
        frames, self.inbox = self.inbox, []
        return frames

    def send(self, frames: Sequence[CanFrame]) -> None:
        if self.off:
            raise BusError("memory bus: bus-off")
        self.outbox.extend(frames)


class Disk:
    """A RecordPort that takes its time. A cut leaves what was stored; torn, it destroys both copies."""

    def __init__(self, record: Record | None, write_ms: int) -> None:
        self.record, self.write_ms = record, write_ms
        self.full = self.torn = False
        self._pending: list[tuple[int, Record]] = []
        self._now_ms = 0

    def settle(self, now_ms: int) -> None:
        """What had its time is stored now."""
        self._now_ms = now_ms
        while self._pending and self._pending[0][0] <= now_ms:
            self.record = self._pending.pop(0)[1]

    def store(self, record: Record) -> None:
        if not self.full:
            self._pending.append((self._now_ms + self.write_ms, record))

    def stored_seq(self) -> int:
        return self.record.seq if self.record else 0

    def cut(self) -> None:
        """The power goes: what was on its way is lost."""
        self._pending.clear()
        if self.torn:  # both copies bad: locked out
            self.record = Record(self.stored_seq() + 1, locked_out=True, latched=(Event.RECORD_LOST.value,))


# --- the garage ---


class Occurrence(Protocol):
    """What happens to a garage between two times; sim/faults.py."""

    begin_ms: int
    end_ms: int

    def begin(self, garage: Garage) -> None: ...
    def end(self, garage: Garage) -> None: ...


class StateChange(NamedTuple):
    at_ms: int
    state: State
    cause: str


class Garage:
    """Everything, at `now_ms`. The parts are plain attributes and may be changed between two ticks."""

    def __init__(self, build: Build, trace: Trace | None = None) -> None:
        self.build, self.trace, self.now_ms = build, trace, 0
        self.settings = build.settings
        self.pack = ENDS[build.pack](build)
        source = self.pack.cells if isinstance(self.pack, PlainEnd) else cast(Source, self.pack)
        own = build.wiring == "own"
        relay = Relay() if own else Relay(weld_make_a=1e9)  # elsewhere the inverter limits the inrush
        link_f = build.link_f if own else FILTER_F
        self.plant = Plant(source, relay, link_f, build.precharge_ohm, build.bleed_ohm, link_v=build.residual_v)
        for member in build.welded:
            self.plant.relays[member].welded = True
        self.members = frozenset(
            member for member in (NEGATIVE, PRECHARGE, POSITIVE) if member in WIRINGS[build.wiring]
        )
        self.relays = PlantRelays(self.plant, self.members, blind=build.blind)
        self.bus, self.clock = Bus(), HandClock()
        self.events, self.heartbeat, self.link = MemoryEvents(), MemoryHeartbeat(), MemoryLink()
        self.pins = MemoryPins(Pins(True, True) if build.pins else Pins())
        self.disk = Disk(build.record, build.disk_ms)
        self.protocol = INVERTERS[self.settings.inverter]
        self.inverter = INVERTER_ENDS[build.inverter](self.clock, self.protocol)
        self.sensor_on = build.sensor and build.wiring == "own"
        self.sensor_stuck_v: float | None = None
        self.wires: dict[str, list[Filter]] = {FROM_PACK: [], TO_PACK: []}
        self.happening: list[Occurrence] = []
        self.invariants, self.broken = Invariants(), list[str]()
        self.observers: list[Callable[[Garage, Outputs], None]] = []
        self.states: list[StateChange] = []
        self.rows: dict[Row, int] = {}
        self.heard = Inputs()
        """What the last tick went by."""
        self.down_until_ms: int | None = None
        self.stalled_until_ms = 0
        self._turned: dict[tuple[int, str], list[tuple[object, object]]] = {}
        self._beaten = (0, 0)
        self._due: list[tuple[int, int, bool, Occurrence]] = []
        self._boot()

    # --- what people do ---

    def ask(self, kind: CommandKind, name: str = "", **values: float) -> Garage:
        """A wish, handed to the next tick; lost while the controller has no power."""
        if self.down_until_ms is None:
            self.loop.commands.append(Command(kind, name, **values))  # type: ignore[arg-type]
        return self

    def acknowledge_all(self) -> Garage:
        """By name, each; and a person unlocks what was inspected."""
        if self.at is State.LOCKED_OUT:
            self.ask(CommandKind.UNLOCK)
        for rule in self.state.faults.held:
            self.ask(CommandKind.ACKNOWLEDGE, rule.id.value)
        return self.ask(CommandKind.ACKNOWLEDGE, Event.CLOSINGS_SPENT.value)

    def plan(self, *occurrences: Occurrence) -> Garage:
        """Let these happen at their times."""
        for occurrence in occurrences:
            self._due += [(occurrence.begin_ms, len(self._due), True, occurrence)]
            self._due += [(occurrence.end_ms, len(self._due), False, occurrence)]
        self._due.sort(key=lambda due: due[:2])
        return self

    def end_all(self) -> Garage:
        """Whatever still happens or is planned ends now."""
        self._due.clear()
        for occurrence in self.happening:
            occurrence.end(self)
        self.happening.clear()
        return self

    def turn(self, who: object, owner: object, attribute: str, value: object) -> None:
        """Let an attribute have this value until `turn_back`; of several wishes the last one counts."""
        wishes = self._turned.setdefault((id(owner), attribute), [(None, getattr(owner, attribute))])
        wishes.append((who, value))
        setattr(owner, attribute, value)

    def turn_back(self, who: object, owner: object, attribute: str) -> None:
        wishes = self._turned[id(owner), attribute]
        wishes[:] = [wish for wish in wishes if wish[0] is not who]
        setattr(owner, attribute, wishes[-1][1])

    # --- the supply ---

    def cut_power(self, for_ms: int, settings: Settings | None = None) -> Garage:
        """Off, and on again after `for_ms`, then with these settings. The coils drop; the pack hears nothing."""
        self.down_until_ms = self.now_ms + for_ms
        self.settings = settings or self.settings
        self.disk.cut()
        self._drop_coils()
        return self

    def stall(self, for_ms: int) -> Garage:
        """The process does not run: the world goes on, the next tick is late."""
        self.stalled_until_ms = self.now_ms + for_ms
        return self

    def _boot(self) -> None:
        """As systemd does it: the record is read, relays are off at construction."""
        started = core.start(
            self.settings, self.build.battery, self.protocol, record=self.disk.record, now_ms=self.now_ms
        )  # fmt: skip
        self.booted_from = self.disk.record
        self._drop_coils()
        self.bus.inbox, self.bus.outbox = [], []
        self.inverter.power_cut()
        ports = Ports(
            self.bus, self.relays, self.clock, self.events, self.disk, pins=self.pins, link=self.link,
            heartbeat=self.heartbeat, **self.inverter.ports,
        )  # fmt: skip
        self.loop = Loop(started, ports, recorder=self._hear)
        self.down_until_ms, self._beaten = None, (self.heartbeat.beats, self.now_ms)
        self.states.append(StateChange(self.now_ms, self.at, "boot"))

    def _drop_coils(self) -> None:
        for member in self.members:
            self.plant.relays[member].energise(False, self.plant.now_ms)

    # --- time ---

    def run_ms(self, duration_ms: int) -> Garage:
        for _ in range(duration_ms // TICK_MS):
            self.tick()
        return self

    def until(self, *states: State, within_ms: int = 60_000) -> bool:
        """Run until it is in one of them; whether it got there."""
        for _ in range(within_ms // TICK_MS):
            if self.at in states:
                return True
            self.tick()
        return self.at in states

    def tick(self) -> None:
        """10 ms."""
        self.now_ms = now_ms = self.now_ms + TICK_MS
        while self._due and self._due[0][0] <= now_ms:
            self._happens(*self._due.pop(0)[2:])
        self._move(now_ms)
        self._watchdog(now_ms)
        if self.down_until_ms is not None and now_ms >= self.down_until_ms:
            self._boot()
        if self.down_until_ms is None and now_ms >= self.stalled_until_ms:
            self._control(now_ms)

    def _happens(self, begins: bool, occurrence: Occurrence) -> None:
        if begins:
            occurrence.begin(self)
            self.happening.append(occurrence)
        elif occurrence in self.happening:
            self.happening.remove(occurrence)
            occurrence.end(self)

    def _move(self, now_ms: int) -> None:
        """The world without the controller."""
        plant, wiring = self.plant, self.build.wiring
        plant.load_w = self.inverter.step(now_ms, plant.link_v, plant.current_a)
        if wiring != "own":
            self._mirror(plant, wiring)
        plant.step(TICK_MS)
        said = self.pack.step(now_ms, plant)
        if not self.bus.off:
            for wire in self.wires[FROM_PACK]:
                said = wire(said, now_ms)
            self.bus.inbox += said
        if self.sensor_on:
            volts = plant.link_v if self.sensor_stuck_v is None else self.sensor_stuck_v
            self.link.newest = (round(volts, 1), now_ms)

    def _mirror(self, plant: Plant, wiring: str) -> None:
        """Contacts that are not ours: the pack's own, or none at all between cells and link."""
        carries = self.pack.conducting
        plant.relays[NEGATIVE].welded = carries
        if wiring != "pack+inverter":
            plant.relays[POSITIVE].welded = carries
        if isinstance(self.pack, TeslaEnd):
            tesla = self.pack.pack
            if wiring == "pack" and not carries:
                plant.link_v = tesla.link_v
            if wiring == "pack+inverter" and tesla.phase is Phase.CLOSING:
                tesla.load_on_link = tesla.load_on_link or plant.relays[POSITIVE].closed

    def _watchdog(self, now_ms: int) -> None:
        """The monostable behind the heartbeat pin: without edges the coils have no supply."""
        if self.heartbeat.beats != self._beaten[0]:
            self._beaten = (self.heartbeat.beats, now_ms)
        elif now_ms - self._beaten[1] > WATCHDOG_MS:
            self._drop_coils()

    def _control(self, now_ms: int) -> None:
        """One tick of the loop, judged."""
        self.clock.ms = now_ms
        outputs = self.loop.tick()
        self.disk.settle(now_ms)
        state = self.loop.state
        said, self.bus.outbox = self.bus.outbox, []
        if said and not self.bus.off:
            said = [frame._replace(at_ms=now_ms) for frame in said]
            for wire in self.wires[TO_PACK]:
                said = wire(said, now_ms)
            self.pack.receive(said, now_ms)
        if state.row is not None and self.loop.error is None:
            self.rows[state.row] = self.rows.get(state.row, 0) + 1
        if state.supervisor.state is not self.states[-1].state:
            self.states.append(StateChange(now_ms, state.supervisor.state, state.supervisor.cause))
        if state.view is not None:  # None: nothing was decided yet
            now = moment(state, self.heard, outputs, state.view, self.disk.record, now_ms, self.booted_from)
            self.broken += self.invariants.look(now._replace(broken=self.loop.error is not None))
        if self.trace is not None:
            self.trace.add(now_ms, state, outputs)
        for observe in self.observers:
            observe(self, outputs)

    def _hear(self, inputs: Inputs, now_ms: int) -> None:
        self.heard = inputs

    # --- what can be asked ---

    @property
    def state(self) -> CoreState:
        return self.loop.state

    @property
    def at(self) -> State:
        return self.loop.state.supervisor.state

    @property
    def notices(self) -> list[tuple[int, Notice]]:
        return self.events.seen

    @property
    def closed(self) -> Mapping[Contactor, bool]:
        """What really conducts, of ours."""
        return {member: self.plant.relays[member].closed for member in sorted(self.members, key=list(Contactor).index)}

    @property
    def reason(self) -> str:
        """Why it rests where it rests, in words; empty when nothing is named."""
        held = [rule.id.value for rule in self.state.faults.held]
        return ", ".join(held or self.state.withheld)
