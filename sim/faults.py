"""What can go wrong in a garage: one class for each fault, from `begin_ms` to `end_ms`. They add up in any number.

A fault changes frames on a wire, breaks a part of the plant, misleads a sensor, disturbs the controller's own machine,
or is a person. Chance comes from the seed given to it. `draw` makes some for a garage; which end is for good is said
in a class: whatever has no `end` stays.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

from controller.ports import CanFrame, CommandKind
from sim.garage import FROM_PACK, TO_PACK, Build, Filter, Garage, LeafEnd, PlainEnd, TeslaEnd
from sim.plant import Relay
from sim.tesla_pack import TeslaPack
from statecharts.supervisor import Contactor, Guard, State

OWN = (Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE)
FOREIGN = (0x1DB, 0x55B, 0x5BC, 0x1D4, 0x305)
"""Ids of other makes' cars."""


@dataclass
class Fault:
    """From when until when, in ms since the garage began."""

    begin_ms: int = 0
    end_ms: int = 0

    def begin(self, garage: Garage) -> None:
        """It happens."""

    def end(self, garage: Garage) -> None:
        """It is over."""

    @property
    def name(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        """Its name, when, and what else makes it up."""
        rest = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.name not in ("begin_ms", "end_ms")]
        shown = [text for text in rest if not text.startswith("_")]
        return f"{self.name}({self.begin_ms / 1000:g}–{self.end_ms / 1000:g} s{''.join(', ' + s for s in shown)})"


# --- on the wire ---


@dataclass
class OnTheWire(Fault):
    """Takes the frames of a wire and gives what arrives. ids: of these only; empty = all. seed: of its chance."""

    wire: str = FROM_PACK
    ids: tuple[int, ...] = ()
    seed: int = 0

    def begin(self, garage: Garage) -> None:
        self._garage, self._dice = garage, random.Random(self.seed)
        garage.wires[self.wire].append(self._pass)

    def end(self, garage: Garage) -> None:
        wire: list[Filter] = garage.wires[self.wire]
        wire.remove(self._pass)

    def _pass(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        if not self.ids:
            return self.arriving(frames, now_ms)
        others = [frame for frame in frames if frame.id not in self.ids]
        return others + self.arriving([frame for frame in frames if frame.id in self.ids], now_ms)

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        raise NotImplementedError


@dataclass
class Loss(OnTheWire):
    """Each frame is lost with this probability."""

    share: float = 1.0

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        return [frame for frame in frames if self._dice.random() >= self.share]


@dataclass
class Delay(OnTheWire):
    """Each frame comes so much later, stamped when it comes."""

    delay_ms: int = 200
    _late: list[tuple[int, CanFrame]] = field(default_factory=list)

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        self._late += [(now_ms + self.delay_ms, frame) for frame in frames]
        due = [frame._replace(at_ms=now_ms) for at_ms, frame in self._late if at_ms <= now_ms]
        self._late = [late for late in self._late if late[0] > now_ms]
        return due


@dataclass
class Duplication(OnTheWire):
    """Each frame comes twice with this probability."""

    share: float = 0.5

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        return [copy for frame in frames for copy in [frame] * (1 + (self._dice.random() < self.share))]


@dataclass
class Reordering(OnTheWire):
    """The frames of so many ticks come together, in any order."""

    ticks: int = 5
    _held: list[CanFrame] = field(default_factory=list)

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        self._held += frames
        if now_ms // 10 % self.ticks:
            return []
        mixed, self._held = [frame._replace(at_ms=now_ms) for frame in self._held], []
        self._dice.shuffle(mixed)
        return mixed


@dataclass
class Corruption(OnTheWire):
    """One bit of each frame is turned with this probability; `sealed`: the checksum is made to fit."""

    share: float = 0.1
    sealed: bool = False

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        return [self._turned(frame) if self._dice.random() < self.share else frame for frame in frames]

    def _turned(self, frame: CanFrame) -> CanFrame:
        if not frame.data:
            return frame
        word = int.from_bytes(frame.data, "big") ^ 1 << self._dice.randrange(8 * len(frame.data))
        turned = frame._replace(data=word.to_bytes(len(frame.data), "big"))
        return self._garage.pack.mended(turned) if self.sealed and self.wire == FROM_PACK else turned


@dataclass
class Shortened(OnTheWire):
    """The last bytes of each frame are missing."""

    length: int = 4

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        return [frame._replace(data=frame.data[: self.length]) for frame in frames]


@dataclass
class Frozen(OnTheWire):
    """Each id and first byte repeats what it said first."""

    _first: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        return [
            frame._replace(data=self._first.setdefault((frame.id, frame.data[0] & 0x0F), frame.data))
            for frame in frames
        ]


@dataclass
class MissingPage(OnTheWire):
    """One multiplexer value of an id never comes. mux: the low bits of its first byte."""

    mux: int = 1
    mask: int = 0x03

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        return [frame for frame in frames if frame.data[0] & self.mask != self.mux]


@dataclass
class AnotherCar(OnTheWire):
    """Ids of another make, and our own ids as extended frames, in between."""

    def arriving(self, frames: list[CanFrame], now_ms: int) -> list[CanFrame]:
        strange = CanFrame(self._dice.choice(FOREIGN), self._dice.randbytes(8), now_ms)
        return [*frames, strange, *(frame._replace(extended=True, data=bytes(8)) for frame in frames[:1])]


# --- one attribute that is wrong for a while ---


@dataclass
class Turned(Fault):
    """An attribute has another value, and then the one it had. Of several at once the last one counts."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        """Its owner, its name, the value it has then."""
        raise NotImplementedError

    def begin(self, garage: Garage) -> None:
        garage.turn(self, *self.what(garage))

    def end(self, garage: Garage) -> None:
        owner, attribute, _ = self.what(garage)
        garage.turn_back(self, owner, attribute)


@dataclass
class AtARelay(Turned):
    """One of the relays we drive."""

    member: Contactor = Contactor.POSITIVE

    def at(self, garage: Garage) -> Relay:
        return garage.plant.relays[self.member]


@dataclass
class Weld(AtARelay):
    """It stays closed."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return self.at(garage), "welded", True


@dataclass
class StuckOpen(AtARelay):
    """It never conducts."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return self.at(garage), "stuck_open", True


@dataclass
class FeedbackLost(AtARelay):
    """Its auxiliary contact says nothing."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return self.at(garage), "aux_lost", True


@dataclass
class FeedbackStuck(AtARelay):
    """Its auxiliary contact always says this."""

    says: bool = True

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return self.at(garage), "aux_stuck", self.says


@dataclass
class Bounce(AtARelay):
    """It bounces for 40 ms when it closes."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return self.at(garage), "bounces", 20


@dataclass
class FuseBlown(Turned):
    """The pack fuse is open; at its end somebody replaces it."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.plant, "fuse_blown", True


@dataclass
class Resistor(Turned):
    """The precharge resistor is burnt open, shorted, or another one."""

    ohm: float = 1e9

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.plant, "precharge_ohm", self.ohm


@dataclass
class LeakyLink(Turned):
    """Something across the link draws current: it charges to a part of the pack's voltage only."""

    ohm: float = 100.0

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.plant, "bleed_ohm", self.ohm


@dataclass
class LoadSurge(Turned):
    """A load or a source nobody asked for, A into the link."""

    amps: float = -60.0

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.plant, "load_a", self.amps


@dataclass
class LinkSensorStuck(Turned):
    """Our link sensor reads this whatever there is."""

    volts: float = 0.0

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage, "sensor_stuck_v", self.volts


@dataclass
class LinkSensorLost(Turned):
    """Our link sensor gives no new sample."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage, "sensor_on", False


@dataclass
class InThePack(Turned):
    """An attribute of either pack."""

    attribute: str = "offset_a"
    value: object = 0.0

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.pack.pack, self.attribute, self.value  # type: ignore[attr-defined]


@dataclass
class CurrentOffset(Turned):
    """The pack's current sensor reads so much more."""

    amps: float = -4.3

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.pack.pack, "offset_a", self.amps  # type: ignore[attr-defined]


@dataclass
class InTheInverter(Turned):
    """One misbehaviour of the inverter."""

    attribute: str = "silent"
    value: object = True

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.inverter, self.attribute, self.value


@dataclass
class RelayBoardDead(Turned):
    """The relay board takes no orders; its outputs stay as they are until the watchdog drops them."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.relays, "broken", True


@dataclass
class BusOff(Turned):
    """Nothing passes on the pack's bus in either direction, sending fails."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.bus, "off", True


@dataclass
class DriverBreaks(Turned):
    """The bus driver raises what nobody foresaw."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.bus, "raises", RuntimeError("the driver broke")


@dataclass
class DiskFull(Turned):
    """Nothing more is stored."""

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.disk, "full", True


@dataclass
class DiskSlow(Turned):
    """Storing takes its time."""

    write_ms: int = 2_000

    def what(self, garage: Garage) -> tuple[object, str, object]:
        return garage.disk, "write_ms", self.write_ms


# --- the pack ---


@dataclass
class Noise(Fault):
    """Its current and voltage sensors are this noisy, A and 0.3 V."""

    sigma: float = 0.5
    seed: int = 0

    def begin(self, garage: Garage) -> None:
        dice = random.Random(self.seed)
        pack = garage.pack.pack  # type: ignore[attr-defined]
        if isinstance(pack, TeslaPack):
            pack._rng = dice
        else:
            pack.noise = lambda: dice.gauss(0.0, self.sigma)

    def end(self, garage: Garage) -> None:
        pack = garage.pack.pack  # type: ignore[attr-defined]
        if isinstance(pack, TeslaPack):
            pack._rng = None
        else:
            pack.noise = lambda: 0.0


@dataclass
class Complaint(Fault):
    """The plain pack's BMS reports this."""

    complaint: str = "fault"

    def begin(self, garage: Garage) -> None:
        if isinstance(garage.pack, PlainEnd):
            garage.pack.pack.complaints.add(self.complaint)

    def end(self, garage: Garage) -> None:
        if isinstance(garage.pack, PlainEnd):
            garage.pack.pack.complaints.discard(self.complaint)


@dataclass
class BadCell(Fault):
    """One cell reads so much beside where its charge would put it, V."""

    volts: float = 0.6

    def begin(self, garage: Garage) -> None:
        if isinstance(garage.pack, TeslaEnd):
            garage.pack.pack.offset_cell(17, self.volts)
            return
        if isinstance(garage.pack, LeafEnd):
            garage.pack.pack.offset_v[17] = self.volts
            return
        assert isinstance(garage.pack, PlainEnd)
        low_v, high_v = garage.pack.cells.extremes_v()
        name, base_v = ("cell_high_v", high_v) if self.volts > 0 else ("cell_low_v", low_v)
        setattr(garage.pack.pack, name, base_v + self.volts)

    def end(self, garage: Garage) -> None:
        if isinstance(garage.pack, TeslaEnd):
            garage.pack.pack.offset_cell(17, 0.0)
        elif isinstance(garage.pack, LeafEnd):
            garage.pack.pack.offset_v.clear()
        elif isinstance(garage.pack, PlainEnd):
            garage.pack.pack.cell_high_v = garage.pack.pack.cell_low_v = None


@dataclass
class TeslaBlocks(Fault):
    """The pack refuses until it is told to forget it."""

    def begin(self, garage: Garage) -> None:
        self._pack(garage).block()

    def end(self, garage: Garage) -> None:
        self._pack(garage).reset_required = False

    def _pack(self, garage: Garage) -> TeslaPack:
        assert isinstance(garage.pack, TeslaEnd)
        return garage.pack.pack


@dataclass
class TeslaFallsOpen(TeslaBlocks):
    """Both its contactors drop unasked."""

    def begin(self, garage: Garage) -> None:
        self._pack(garage).falls_open()

    def end(self, garage: Garage) -> None:
        self._pack(garage).bms_fault = False


@dataclass
class TeslaWelds(TeslaBlocks):
    """One of its own contactors sticks; healing replaces it."""

    which: str = "positive"

    def begin(self, garage: Garage) -> None:
        self._pack(garage)._welded.add(self.which)

    def end(self, garage: Garage) -> None:
        self._pack(garage)._welded.discard(self.which)


# --- the inverter ---


@dataclass
class InverterReboots(Fault):
    """It forgets everything and searches anew."""

    def begin(self, garage: Garage) -> None:
        garage.inverter.reboot(garage.now_ms)


@dataclass
class PermissionFlaps(Fault):
    """Its permission comes and goes with this period."""

    period_ms: int = 1_000

    def begin(self, garage: Garage) -> None:
        garage.observers.append(self._flap)

    def end(self, garage: Garage) -> None:
        garage.observers.remove(self._flap)
        garage.inverter.revoked = False

    def _flap(self, garage: Garage, outputs: object) -> None:
        garage.inverter.revoked = garage.now_ms // self.period_ms % 2 == 0


# --- our own machine ---


@dataclass
class Stall(Fault):
    """The process does not run for a while."""

    for_ms: int = 300

    def begin(self, garage: Garage) -> None:
        garage.stall(self.for_ms)


@dataclass
class LateTicks(Fault):
    """Every now and then a tick is late by this much."""

    late_ms: int = 70
    every_ms: int = 150

    def begin(self, garage: Garage) -> None:
        garage.observers.append(self._delay)

    def end(self, garage: Garage) -> None:
        garage.observers.remove(self._delay)

    def _delay(self, garage: Garage, outputs: object) -> None:
        if garage.now_ms // 10 % (self.every_ms // 10) == 0:
            garage.stall(self.late_ms)


@dataclass
class PowerCut(Fault):
    """The supply fails at once and comes back. torn: both copies of the record are destroyed. edited: the config was
    changed meanwhile (a smaller pack current)."""

    for_ms: int = 3_000
    torn: bool = False
    edited: bool = False

    def begin(self, garage: Garage) -> None:
        garage.disk.torn = self.torn
        smaller = replace(garage.settings.pack, max_charge_a=10.0, max_discharge_a=12.0)
        garage.cut_power(self.for_ms, replace(garage.settings, pack=smaller) if self.edited else None)
        garage.disk.torn = False


# --- people and hard wires ---


@dataclass
class PinOpens(Fault):
    """A hard-wired input opens; value None: it cannot be read."""

    pin: str = "estop_ok"
    value: bool | None = False

    def begin(self, garage: Garage) -> None:
        garage.pins.pins = garage.pins.pins._replace(**{self.pin: self.value})

    def end(self, garage: Garage) -> None:
        garage.pins.pins = garage.pins.pins._replace(**{self.pin: True})


@dataclass
class Asks(Fault):
    """A person wants something, once."""

    kind: CommandKind = CommandKind.STOP
    event: str = ""
    charge_w: float | None = None
    discharge_w: float | None = None

    def begin(self, garage: Garage) -> None:
        if self.kind is CommandKind.CAP:
            caps = {"charge_w": self.charge_w, "discharge_w": self.discharge_w}
            garage.ask(self.kind, for_ms=5_000, **caps)  # type: ignore[arg-type]
        else:
            garage.ask(self.kind, self.event)


@dataclass
class Insists(Fault):
    """A person acknowledges, unlocks and enables once a second."""

    def begin(self, garage: Garage) -> None:
        garage.observers.append(self._insist)

    def end(self, garage: Garage) -> None:
        garage.observers.remove(self._insist)

    def _insist(self, garage: Garage, outputs: object) -> None:
        if garage.now_ms % 1_000 == 0:
            garage.acknowledge_all().ask(CommandKind.ENABLE)


@dataclass
class Restless(Fault):
    """A person who stops it, enables it, stops it again: every closing is a chance for trouble."""

    period_ms: int = 4_000

    def begin(self, garage: Garage) -> None:
        garage.observers.append(self._ask)

    def end(self, garage: Garage) -> None:
        garage.observers.remove(self._ask)

    def _ask(self, garage: Garage, outputs: object) -> None:
        turn, rest_ms = divmod(garage.now_ms, self.period_ms)
        if rest_ms == 0:
            garage.acknowledge_all().ask(CommandKind.STOP if turn % 2 else CommandKind.ENABLE)


@dataclass
class Wish(Fault):
    """House and sun want this power from now on, W."""

    watts: float = 3_000.0

    def begin(self, garage: Garage) -> None:
        garage.inverter.wish_w = self.watts


# --- at the worst moment ---


@dataclass
class Ambush(Fault):
    """Waits for a state, and once it has lasted `after_ms` lets its faults happen together, for `for_ms`; once."""

    state: State = State.RUNNING
    after_ms: int = 0
    for_ms: int = 200
    faults: tuple[Fault, ...] = ()
    _sprung_ms: int | None = None
    _past: bool = False

    def begin(self, garage: Garage) -> None:
        garage.observers.append(self._wait)

    def end(self, garage: Garage) -> None:
        garage.observers.remove(self._wait)
        self._over(garage)

    def _wait(self, garage: Garage, outputs: object) -> None:
        now_ms = garage.now_ms
        if self._past:
            return
        if self._sprung_ms is None:
            if garage.at is self.state and now_ms - garage.states[-1].at_ms >= self.after_ms:
                self._sprung_ms = now_ms
                for fault in self.faults:
                    fault.begin(garage)
        elif now_ms - self._sprung_ms >= self.for_ms:
            self._over(garage)

    def _over(self, garage: Garage) -> None:
        if self._sprung_ms is not None and not self._past:
            for fault in self.faults:
                fault.end(garage)
        self._past = True


# --- chance ---

Make = Callable[[random.Random, Build], Fault]


def _pick(*values: object) -> Callable[[random.Random], object]:
    return lambda dice: dice.choice(values)


def _ids(dice: random.Random, build: Build) -> tuple[int, ...]:
    if build.pack == "leaf":
        return dice.choice(((0x1DB,), (0x1DC,), (0x55B,), (0x7BB,), ()))
    tesla = ((0x132,), (0x20A,), (0x212,), (0x332,), (0x292,), (0x252,), (0x132, 0x212), ())
    return dice.choice(tesla if build.pack == "tesla" else ((0x100,), (0x101,), (0x102,), ()))


def _relay(dice: random.Random, build: Build) -> Contactor:
    return dice.choice(OWN if build.wiring == "own" else OWN[2:])


def _page(dice: random.Random, build: Build) -> Fault:
    if build.pack == "tesla":
        return MissingPage(ids=(0x332,), mux=dice.choice((0, 1)))
    if build.pack == "leaf":  # consecutive frames of its diagnosis
        return MissingPage(ids=(0x7BB,), mux=dice.choice((0x21, 0x22, 0x25)), mask=0xFF)
    return MissingPage(ids=(0x101,), mux=dice.choice((0, 1)), mask=0xFF)


WIRES: Mapping[str, Make] = {
    "loss": lambda d, b: Loss(ids=_ids(d, b), share=d.choice((0.3, 0.9, 1.0)), seed=d.getrandbits(32)),
    "deafness": lambda d, b: Loss(wire=TO_PACK, share=d.choice((0.5, 1.0)), seed=d.getrandbits(32)),
    "delay": lambda d, b: Delay(ids=_ids(d, b), delay_ms=d.choice((50, 300, 2_000))),
    "duplication": lambda d, b: Duplication(wire=d.choice((FROM_PACK, TO_PACK)), seed=d.getrandbits(32)),
    "reordering": lambda d, b: Reordering(ids=_ids(d, b), seed=d.getrandbits(32)),
    "corruption": lambda d, b: Corruption(
        ids=_ids(d, b), share=d.choice((0.001, 0.05, 1.0)), sealed=d.random() < 0.5, seed=d.getrandbits(32)),
    "shortened": lambda d, b: Shortened(ids=_ids(d, b)),
    "frozen": lambda d, b: Frozen(ids=_ids(d, b)),
    "missing page": _page,
    "another car": lambda d, b: AnotherCar(seed=d.getrandbits(32)),
    "bus-off": lambda d, b: BusOff(),
}  # fmt: skip
RELAYS: Mapping[str, Make] = {
    "weld": lambda d, b: Weld(member=_relay(d, b)),
    "stuck open": lambda d, b: StuckOpen(member=_relay(d, b)),
    "feedback lost": lambda d, b: FeedbackLost(member=_relay(d, b)),
    "feedback stuck": lambda d, b: FeedbackStuck(member=_relay(d, b), says=d.random() < 0.5),
    "bounce": lambda d, b: Bounce(member=_relay(d, b)),
    "negative told closed": lambda d, b: FeedbackStuck(member=Contactor.NEGATIVE, says=True),
    "positive weld": lambda d, b: Weld(member=Contactor.POSITIVE),
    "positive unseen": lambda d, b: FeedbackStuck(member=Contactor.POSITIVE, says=False),
}
LINK: Mapping[str, Make] = {
    "resistor": lambda d, b: Resistor(ohm=d.choice((1e9, 0.5, 10.0, 500.0))),
    "broken resistor": lambda d, b: Resistor(ohm=1e9),
    "high resistor": lambda d, b: Resistor(ohm=700.0),
    "leaky link": lambda d, b: LeakyLink(ohm=d.choice((5.0, 100.0, 1_700.0))),
    "link sensor stuck": lambda d, b: LinkSensorStuck(volts=d.choice((0.0, 180.0, 340.0, 360.0))),
    "link sensor lost": lambda d, b: LinkSensorLost(),
    "fuse": lambda d, b: FuseBlown(),
}
PACK: Mapping[str, Make] = {
    "current offset": lambda d, b: CurrentOffset(amps=d.choice((1.5, -4.3, 7.0, 12.0))),
    "noise": lambda d, b: Noise(sigma=d.choice((0.2, 2.0)), seed=d.getrandbits(32)),
    "bad cell": lambda d, b: BadCell(volts=d.choice((0.6, 0.45, -0.5, -1.0))),
}
PLAIN: Mapping[str, Make] = {
    "complaint": lambda d, b: Complaint(
        complaint=d.choice(("fault", "open_now", "open_asked", "refuses", "no_charge", "no_discharge", "warns",
                            "welded"))),
    "weld told": lambda d, b: Complaint(complaint="welded"),
    "heat": lambda d, b: InThePack(attribute="offset_c", value=d.choice((40.0, -25.0, 25.0))),
    "voltage offset": lambda d, b: InThePack(attribute="offset_v", value=d.choice((-15.0, 60.0, -90.0))),
    "SoC jump": lambda d, b: InThePack(attribute="offset_soc_pct", value=d.choice((10.0, -60.0))),
    "weak supply": lambda d, b: InThePack(attribute="lv_supply_v", value=d.choice((11.0, 9.0))),
    "BMS power": lambda d, b: InThePack(attribute="charge_w", value=d.choice((0.0, 800.0))),
}  # fmt: skip
TESLA: Mapping[str, Make] = {
    "blocks": lambda d, b: TeslaBlocks(),
    "falls open": lambda d, b: TeslaFallsOpen(),
    "welds": lambda d, b: TeslaWelds(which=d.choice(("positive", "negative"))),
    "HVIL": lambda d, b: InThePack(attribute="hvil", value=4),
    "open now": lambda d, b: InThePack(attribute="open_now", value=True),
    "BMS fault": lambda d, b: InThePack(attribute="bms_fault", value=True),
    "weak supply": lambda d, b: InThePack(attribute="lv_supply_v", value=d.choice((11.0, 10.0, 8.0, 3.0))),
    "load on link": lambda d, b: InThePack(attribute="load_on_link", value=True),
    "isolation": lambda d, b: InThePack(attribute="isolation_kohm", value=60.0),
    "pyro": lambda d, b: InThePack(attribute="pyro_blown", value=True),
    "heat": lambda d, b: InThePack(attribute="temp_c", value=d.choice((62.0, -3.0, 48.0))),
    "frozen ids": lambda d, b: InThePack(attribute="frozen", value=set(_ids(d, b))),
    "status frozen": lambda d, b: InThePack(attribute="frozen", value={0x212}),
    "contactors frozen": lambda d, b: InThePack(attribute="frozen", value={0x20A}),
}
LEAF: Mapping[str, Make] = {
    "bad cell": PACK["bad cell"],
    "failsafe": lambda d, b: InThePack(attribute="failsafe", value=d.choice((1, 2, 3, 4, 5, 7))),
    "relay cut": lambda d, b: InThePack(attribute="relay_cut", value=d.choice((1, 2, 3))),
    "interlock": lambda d, b: InThePack(attribute="interlock", value=False),
    "permits": lambda d, b: InThePack(attribute="permits", value=False),
    "isolation": lambda d, b: InThePack(attribute="isolation_fault", value=True),
    "weak supply": lambda d, b: InThePack(attribute="lv_supply_v", value=d.choice((11.0, 9.0))),
    "heat": lambda d, b: InThePack(attribute="temp_c", value=d.choice((62, -3, 48))),
    "mute": lambda d, b: InThePack(attribute="mute", value=True),
    "stops": lambda d, b: InThePack(attribute="stops_at", value=d.choice((1, 3))),
    "bad CRC": lambda d, b: InThePack(attribute="bad_crc", value={0x1DB, 0x1DC}),
    "stuck counter": lambda d, b: InThePack(attribute="stuck", value={0x1DB}),
    "no supply": lambda d, b: InThePack(attribute="powered", value=False),
}
OF_PACK: Mapping[str, Mapping[str, Make]] = {
    "plain": {**PACK, **PLAIN},
    "tesla": {**PACK, **TESLA},
    "leaf": LEAF,
}
INVERTER: Mapping[str, Make] = {
    "silent": lambda d, b: InTheInverter(attribute="silent"),
    "revokes": lambda d, b: InTheInverter(attribute="revoked"),
    "ignores limits": lambda d, b: InTheInverter(attribute="ignores"),
    "measures wrong": lambda d, b: InTheInverter(attribute="offset_v", value=d.choice((25.0, -40.0))),
    "garbage": lambda d, b: InTheInverter(attribute="garbage"),
    "reboots": lambda d, b: InverterReboots(),
    "permission flaps": lambda d, b: PermissionFlaps(period_ms=d.choice((200, 1_000, 5_000))),
    "load surge": lambda d, b: LoadSurge(amps=d.choice((-60.0, 40.0, -250.0, -3.0))),
    "short circuit": lambda d, b: LoadSurge(amps=d.choice((-250.0, 250.0))),
    "steady load": lambda d, b: LoadSurge(amps=d.choice((-12.0, 15.0))),
    "big wish": lambda d, b: Wish(watts=d.choice((9_000.0, -9_000.0, 0.0, 2_000.0, -3_000.0))),
}
MACHINE: Mapping[str, Make] = {
    "stall": lambda d, b: Stall(for_ms=d.choice((60, 300, 2_000))),
    "late ticks": lambda d, b: LateTicks(late_ms=d.choice((70, 40))),
    "driver breaks": lambda d, b: DriverBreaks(),
    "relay board": lambda d, b: RelayBoardDead(),
    "disk full": lambda d, b: DiskFull(),
    "disk slow": lambda d, b: DiskSlow(write_ms=d.choice((500, 5_000))),
    "power cut": lambda d, b: PowerCut(
        for_ms=d.choice((20, 1_000, 8_000)), torn=d.random() < 0.1, edited=d.random() < 0.3),
}  # fmt: skip
PEOPLE: Mapping[str, Make] = {
    "pin opens": lambda d, b: PinOpens(pin=d.choice(("estop_ok", "interlock_ok")), value=d.choice((False, None))),
    "stop": lambda d, b: Asks(kind=CommandKind.STOP),
    "service stop": lambda d, b: Asks(kind=CommandKind.SERVICE_STOP),
    "enable": lambda d, b: Asks(kind=CommandKind.ENABLE),
    "recovery": lambda d, b: Asks(kind=CommandKind.RECOVERY_CHARGE),
    "cap": lambda d, b: Asks(kind=CommandKind.CAP, charge_w=d.choice((None, 500.0)), discharge_w=900.0),
    "insists": lambda d, b: Insists(),
}


def kinds(build: Build) -> dict[str, Make]:
    """Everything that can happen to this garage, by name."""
    every = {**WIRES, **OF_PACK[build.pack], **INVERTER, **MACHINE, **PEOPLE}
    if build.wiring in ("own", "pack+inverter"):
        every |= RELAYS
    if build.wiring == "own":
        every |= LINK
    if not build.pins:
        del every["pin opens"]
    return every


SPANS_MS = (10, 50, 200, 700, 2_500, 8_000, 40_000)
LASTING_MS = SPANS_MS[2:]
LYING_IN_WAIT = 0.7
"""The share of faults that wait for a state instead of a time."""
QUICK = ("pin opens", "stop", "service stop", "complaint", "open now", "HVIL", "welds", "falls open", "relay cut",
         "revokes", "driver breaks", "relay board", "stall", "late ticks", "weld")  # fmt: skip
"""Kinds that stop a closing within a second; a state of the ladder lasts no longer."""
AT_REST_KINDS = ("complaint", "weld", "welds", "pin opens", "heat", "open now", "BMS fault", "failsafe", "power cut")
MATTERS: Mapping[State, tuple[str, ...]] = {
    State.STARTING: ("loss", "weld", "welds", "missing page", "deafness", "link sensor lost", "complaint"),
    State.STANDBY: AT_REST_KINDS,
    State.WAKING_PACK: ("blocks", "load on link", "deafness", "welds", "weak supply", "frozen ids", "loss"),
    State.CLOSING_NEGATIVE: ("stuck open", "feedback stuck", "feedback lost", "weld", "link sensor lost"),
    State.PRECHARGING: ("resistor", "leaky link", "link sensor stuck", "link sensor lost", "fuse", "complaint", "loss"),
    State.CLOSING_POSITIVE: ("stuck open", "feedback stuck", "feedback lost", "weld", "welds", "complaint"),
    State.RUNNING: ("ignores limits", "measures wrong", "silent", "big wish", "heat", "bad cell", "welds", "complaint"),
    State.UNLOADING: ("ignores limits", "big wish", "complaint", "welds", "loss", "current offset"),
    State.OPENING_POSITIVE: ("weld", "welds", "complaint", "stuck open", "feedback stuck"),
    State.VERIFYING_OPEN: ("link sensor lost", "link sensor stuck", "loss", "weld", "welds", "complaint", "bus-off"),
    State.COOLING_DOWN: AT_REST_KINDS,
    State.FAULT: AT_REST_KINDS,
    State.LOCKED_OUT: AT_REST_KINDS,
}
"""What can go wrong in a state and then only."""


class Stage(NamedTuple):
    """What happens together in a state, once it has lasted `after_ms`, for `for_ms`."""

    state: State
    after_ms: int
    for_ms: int
    names: tuple[str, ...]


class Trap(NamedTuple):
    """Moments that fire a row of the chart chance seldom fires (L3): from, to and first guard of the row, and which
    wiring."""

    row: tuple[State, State, Guard]
    wiring: str
    stages: tuple[Stage, ...]

    def suited(self, build: Build) -> Build:
        """The garage without what keeps it from coming there."""
        return replace(
            build, wiring=self.wiring, pack="plain" if self.wiring == "own" else "tesla", inverter="registers",
            soc=0.5, hurried=True, unverified=False, sensor=True, blind=False, pins=True, off_grid=False, record=None,
            residual_v=0.0, welded=frozenset(), disk_ms=30,
        )  # fmt: skip

    def laid(self, dice: random.Random, build: Build, until_ms: int) -> list[Fault]:
        known = kinds(build)
        return [
            Ambush(0, until_ms, state=state, after_ms=after_ms, for_ms=for_ms,
                   faults=tuple(known[name](dice, build) for name in names))
            for state, after_ms, for_ms, names in self.stages
        ]  # fmt: skip


S, G = State, Guard
_WELD = ("weld told",)
_UNSEEN = Stage(S.VERIFYING_OPEN, 0, 8_000, ("link sensor lost", "feedback lost", "silent"))
_LOADED = Stage(S.RUNNING, 2_500, 40_000, ("steady load", "stop"))
TRAPS: tuple[Trap, ...] = (
    Trap((S.STARTING, S.FAULT, G.SIGNALS_OVERDUE), "own",
         (Stage(S.STARTING, 0, 9_000, ("bus-off",)), Stage(S.STARTING, 7_930, 300, ("negative told closed",)))),
    Trap((S.CLOSING_NEGATIVE, S.LOCKED_OUT, G.WELDED), "own", (Stage(S.CLOSING_NEGATIVE, 0, 2_500, _WELD),)),
    Trap((S.CLOSING_NEGATIVE, S.VERIFYING_OPEN, G.NEGATIVE_OVERDUE), "own",
         (Stage(S.CLOSING_NEGATIVE, 0, 2_500, ("feedback lost",)),)),
    Trap((S.PRECHARGING, S.LOCKED_OUT, G.WELDED), "own", (Stage(S.PRECHARGING, 0, 2_500, _WELD),)),
    Trap((S.PRECHARGING, S.COOLING_DOWN, G.PRECHARGE_FAILED), "own",
         (Stage(S.PRECHARGING, 0, 700, ("broken resistor",)),)),
    Trap((S.PRECHARGING, S.COOLING_DOWN, G.PRECHARGE_OVERDUE), "own",
         (Stage(S.PRECHARGING, 0, 8_000, ("high resistor",)),)),
    Trap((S.COOLING_DOWN, S.LOCKED_OUT, G.WELDED), "own",
         (Stage(S.PRECHARGING, 0, 700, ("broken resistor",)), Stage(S.COOLING_DOWN, 0, 2_500, _WELD))),
    Trap((S.CLOSING_POSITIVE, S.LOCKED_OUT, G.WELDED), "own", (Stage(S.CLOSING_POSITIVE, 0, 2_500, _WELD),)),
    Trap((S.CLOSING_POSITIVE, S.CLOSING_POSITIVE, G.WELDED), "own",
         (Stage(S.CLOSING_POSITIVE, 0, 2_500, _WELD), Stage(S.CLOSING_POSITIVE, 190, 700, ("short circuit",)))),
    Trap((S.CLOSING_POSITIVE, S.CLOSING_POSITIVE, G.STOP), "own",
         (Stage(S.CLOSING_POSITIVE, 90, 2_500, ("short circuit", "stop")),)),
    Trap((S.CLOSING_POSITIVE, S.CLOSING_POSITIVE, G.POSITIVE_OVERDUE), "own",
         (Stage(S.CLOSING_POSITIVE, 450, 700, ("positive unseen",)),
          Stage(S.CLOSING_POSITIVE, 540, 700, ("short circuit",)))),
    Trap((S.CLOSING_POSITIVE, S.VERIFYING_OPEN, G.POSITIVE_OVERDUE), "own",
         (Stage(S.CLOSING_POSITIVE, 450, 700, ("positive unseen",)),)),
    Trap((S.RUNNING, S.UNLOADING, G.WELDED), "own", (Stage(S.RUNNING, 0, 2_500, _WELD),)),
    Trap((S.UNLOADING, S.UNLOADING, G.UNLOAD_OVERDUE), "own",
         (_LOADED, Stage(S.UNLOADING, 7_940, 700, ("short circuit",)))),
    Trap((S.UNLOADING, S.OPENING_POSITIVE, G.UNLOAD_OVERDUE), "own", (_LOADED,)),
    Trap((S.OPENING_POSITIVE, S.OPENING_POSITIVE, G.OPEN_NOW), "own",
         (Stage(S.RUNNING, 2_500, 200, ("stop",)),
          Stage(S.OPENING_POSITIVE, 0, 8_000, ("positive weld", "short circuit")))),
    Trap((S.VERIFYING_OPEN, S.STANDBY, G.VERIFY_OVERDUE), "own", (Stage(S.RUNNING, 2_500, 200, ("stop",)), _UNSEEN)),
    Trap((S.VERIFYING_OPEN, S.FAULT, G.VERIFY_OVERDUE), "own",
         (Stage(S.RUNNING, 2_500, 200, ("driver breaks",)), _UNSEEN)),
    Trap((S.WAKING_PACK, S.LOCKED_OUT, G.WELDED), "pack",  # its frozen status hides the fault that would act first
         (Stage(S.WAKING_PACK, 0, 8_000, ("status frozen", "welds")),)),
    Trap((S.WAKING_PACK, S.FAULT, G.PACK_REFUSES), "pack", (Stage(S.WAKING_PACK, 0, 8_000, ("blocks",)),)),
    Trap((S.WAKING_PACK, S.COOLING_DOWN, G.WAKING_OVERDUE), "pack",
         (Stage(S.WAKING_PACK, 0, 20_000, ("contactors frozen",)),)),
    Trap((S.UNLOADING, S.VERIFYING_OPEN, G.UNLOAD_OVERDUE), "pack", (_LOADED,)),
)  # fmt: skip
CARRYING = (State.CLOSING_POSITIVE, State.RUNNING, State.UNLOADING, State.OPENING_POSITIVE)
CLOSES_FIRST: Mapping[str, tuple[State, ...]] = {
    "own": (State.CLOSING_NEGATIVE, State.PRECHARGING, State.CLOSING_POSITIVE),
    "pack": (State.WAKING_PACK,),
    "pack+inverter": (State.WAKING_PACK, State.CLOSING_POSITIVE),
    "none": (),
}


def moments(build: Build) -> tuple[State, ...]:
    """Every state this garage can be in, those that pass quickly more often."""
    opens = (State.OPENING_POSITIVE,) if build.wiring in ("own", "pack+inverter") else ()
    brief = (*CLOSES_FIRST[build.wiring], State.UNLOADING, *opens)
    resting = (State.STARTING, State.STANDBY, State.COOLING_DOWN, State.FAULT, State.LOCKED_OUT)
    return (*brief, *brief, State.RUNNING, State.RUNNING, State.VERIFYING_OPEN, *resting)


def ambush(dice: random.Random, build: Build, known: Mapping[str, Make], chosen: Sequence[str]) -> Ambush:
    """Some faults together in one state: what acts at once, what matters then, or what this life is about.

    Beside them often a current no relay of ours may break, or an inverter that does not follow.
    """
    state = dice.choice(moments(build))
    of = dice.random()
    names = QUICK if of < 0.4 else MATTERS[state] if of < 0.8 else tuple(chosen)
    there = [name for name in names if name in known] or list(chosen)
    faults = [known[dice.choice(there)](dice, build) for _ in range(dice.choice((1, 1, 2)))]
    if state in CARRYING and (beside := dice.random()) < 0.6:
        faults.append(LoadSurge(amps=dice.choice((-250.0, 250.0, -130.0))) if beside < 0.4
                      else InTheInverter(attribute="ignores"))  # fmt: skip
    dice.shuffle(faults)
    return Ambush(state=state, after_ms=dice.choice((0, 0, 0, 20, 90, 300)), for_ms=dice.choice(LASTING_MS),
                  faults=tuple(faults))  # fmt: skip


def draw(dice: random.Random, build: Build, until_ms: int) -> list[Fault]:
    """Some faults for a life, in order of time: of a few kinds that are chosen for it, and in ambushes of any kind.

    Half of those with a time happen while it closes for the first time; most ambushes wait from the beginning. Beside
    most stands a person who insists, or a restless one.
    """
    known = kinds(build)
    chosen = dice.sample(sorted(known), dice.choice((1, 2, 3, 4, 6)))
    first_ms = 3_500 if build.hurried else 14_000
    found: list[Fault] = []
    person = dice.random()
    if person < 0.5:
        found.append(Insists(0, until_ms))
    elif person < 0.85:
        found.append(Restless(0, until_ms, period_ms=dice.choice((2_500, 4_000, 9_000))))
    for _ in range(dice.choice((0, 1, 2, 3, 4, 6, 8))):
        if dice.random() < LYING_IN_WAIT:
            fault: Fault = ambush(dice, build, known, chosen)
            if dice.random() < 0.8:
                fault.end_ms = until_ms
                found.append(fault)
                continue
        else:
            fault = known[dice.choice(chosen)](dice, build)
        fault.begin_ms = 10 * dice.randrange((first_ms if dice.random() < 0.5 else until_ms) // 10)
        fault.end_ms = min(until_ms, fault.begin_ms + dice.choice((*SPANS_MS, until_ms)))
        found.append(fault)
    return sorted(found, key=lambda fault: fault.begin_ms)


def shown(faults: Sequence[Fault]) -> list[str]:
    """Each as a line."""
    return [str(fault) for fault in faults]
