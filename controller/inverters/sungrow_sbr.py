"""Sungrow's own SBR battery over CAN, for inverters that accept no other (250 kbit/s, little-endian).

Only one public source exists and calls itself beta (SUNGROW-CAN.cpp and .h in dalathegreat/Battery-Emulator); there is
no recording to check it by. FROZEN frames are copied from a real battery; nobody knows what they say. The others are
rows of sungrow_sbr.dbc beside this file. 0x00n and 0x50n repeat 0x70n.

INIT until the inverter is at work, then RUN. The battery speaks first. What is unknown is treated as in byd_can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from controller.codec import dbc, rtu
from controller.inverters.base import SILENCE, Answer, InverterProtocol
from controller.inverters.byd_can import (
    BLIND_MS,
    NOTHING_REFUSED,
    Profile,
    Refusals,
    known,
    next_frames,
    nothing,
    number,
    offered_a,
    text_of,
)
from controller.model.inverter import InverterRequest, InverterStatus, InverterView
from controller.model.settings import NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame, RegisterWrite
from controller.schedule import Beat, Schedule

TABLES: Final = dbc.load(Path(__file__).with_name("sungrow_sbr.dbc"))
MODELS: Mapping[str, int] = MappingProxyType({f"SBR{32 * modules:03d}": modules for modules in range(2, 9)})
"""Modules of 3200 Wh, 1920 W and 54…73 V each."""
OFFER: Final = Profile("SUNGROW", max_a=30.0, margin_v=0.0)
"""A module carries 30 A."""

STANDBY, RUN = 1, 2
NORMAL, FULL, EMPTY = 0, 1, 2
STOP_CHARGE: Final = 2

FROZEN: Mapping[int, tuple[bytes, ...]] = MappingProxyType(
    {
        0x401: (bytes(8),),
        0x402: (bytes.fromhex("0000550000000000"),),
        0x512: (bytes(8),),
        0x700: (bytes(8),),
        0x708: (b"\x00S231012", b"\x013456\x00\x00S"),
        0x709: (bytes(8),),
        0x70A: (b"\x00SUNGROW", b"\x01\x00BRXXX\x00"),
        0x70B: (b"\x00SBRXXX\x00",),
        0x70D: (bytes.fromhex("0F0000000F000000"),),
        0x70E: (bytes.fromhex("07000F0000000000"),),
        0x719: (bytes.fromhex("0200000000000000"),),
    }
)
"""The same for every battery. Of more than one frame byte 0 counts."""

_MADE: Final = bytes.fromhex("3F7A6F01")
_CELL_TYPE: Final = 0x44

_MODULES: Final = tuple(range(0x13, 0x1F))
_SHORT: Final = tuple(range(0x501, 0x507))
_ABOUT: Final = (0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0D, 0x0E)
_HEAD: Final = (0x402, 0x500, 0x401)


class Batch(NamedTuple):
    """Frames that go out together, and when."""

    beat: Beat
    ids: tuple[int, ...]


INIT: Final = (Batch(Beat(1_000), (*_HEAD, *_ABOUT, 0x512, *_SHORT)),)
RUNNING: Final = (
    Batch(Beat(1_000, 0), _HEAD),
    Batch(Beat(1_000, 20), (*range(0x00, 0x07), *_MODULES)),
    Batch(Beat(1_000, 40), (*range(0x700, 0x707), *range(0x713, 0x71A))),
    Batch(Beat(1_000, 60), (0x70F, *range(0x71A, 0x71F))),
    Batch(Beat(1_000, 80), (0x512, *_SHORT)),
    Batch(Beat(10_000, 100), tuple(0x700 + low for low in _ABOUT)),
    Batch(Beat(60_000, 120), (0x71F,)),
)
LIMIT_IDS: Final = (0x001, 0x701, 0x501)
PRESSING: Final = (*LIMIT_IDS, 0x005)
"""Sent at once when there is a new refusal."""

MODBUS: Final = 0x1E0
MODBUS_FIRST: Final = 0x4DE2
MODBUS_REGISTERS: Final = (500, 0, 300, 0, 200, 0)
"""Discharge ends at 5.00 %, emergency charge at 3.00 %, idle at 2.00 % SoC."""


def complete(view: InverterView) -> bool:
    return known(view) and number(view.cell_min_v) > 0 and number(view.cell_max_v) > 0


def pages(can_id: int, view: InverterView, modules: int) -> tuple[bytes, ...]:
    """The frames that make up 0x4nn, 0x500, 0x512 or 0x7nn."""
    if can_id in FROZEN:
        return FROZEN[can_id]
    if can_id == 0x500:
        return (bytes((1, 1, 3, 0xFF, 0, 1, 0, int(_soc_pct(view)))),)
    if can_id == 0x70F:
        return tuple(TABLES.encode("SBR_more", values, page) for page, values in enumerate(_more(view, modules)))
    if can_id == 0x71A:
        return (bytes([_CELL_TYPE] * modules).ljust(8, b"\0"),)
    if 0x71B <= can_id <= 0x71E:
        there = min(2, max(0, modules - 2 * (can_id - 0x71B)))
        return ((_MADE * there).ljust(8, b"\0"),)
    if can_id == 0x71F:
        return tuple(
            bytes((module, n)) + piece
            for module in range(1, modules + 1)
            for n, piece in enumerate((b"EM032" + bytes([_CELL_TYPE]), b"231012", b"346%dDF" % module), 1)
        )
    message = TABLES.by_id[can_id][0].name
    return (TABLES.encode(message, _values(can_id, view, modules)),)


def _soc_pct(view: InverterView) -> float:
    return min(max(0.0, number(view.soc_pct)), 100.0)


def _values(can_id: int, view: InverterView, modules: int) -> dict[str, float]:
    """What a frame of one page says."""
    volts, cell_min_v, cell_max_v = (number(v) for v in (view.pack_voltage_v, view.cell_min_v, view.cell_max_v))
    coldest_c, hottest_c = number(view.temp_min_c), number(view.temp_max_c)
    match can_id:
        case 0x701:
            return {
                "highest_voltage_v": number(view.design_max_v), "lowest_voltage_v": number(view.design_min_v),
                "max_charge_a": offered_a(view, view.max_charge_w, OFFER),
                "max_discharge_a": offered_a(view, view.max_discharge_w, OFFER),
            }  # fmt: skip
        case 0x702:
            full_wh = number(view.energy_full_wh)
            return {
                "soc_pct": _soc_pct(view), "soh_pct": number(view.soh_pct), "energy_full_wh": full_wh,
                "energy_remaining_wh": full_wh * _soc_pct(view) / 100,
            }  # fmt: skip
        case 0x703:
            return {"charged_wh": number(view.charged_wh), "discharged_wh": number(view.discharged_wh)}
        case 0x704:
            return {
                "pack_voltage_v": volts, "current_a": number(view.current_a), "pack_voltage_again_v": volts,
                "temp_max_c": hottest_c,
            }  # fmt: skip
        case 0x705:
            status = RUN if view.status is InverterStatus.ACTIVE else STANDBY
            return {
                "status": status, "end_stop": NORMAL, "always_1": 1, "model": 8420 + modules, "pack_voltage_v": volts,
            }  # fmt: skip
        case 0x706:
            return {
                "temp_max_c": hottest_c, "temp_min_c": coldest_c, "cell_max_v": cell_max_v, "cell_min_v": cell_min_v,
            }  # fmt: skip
        case 0x707:
            return {"firmware": 0x30, "always_1": 1, "nameplate_wh": 3200 * modules, "modules": modules}
        case 0x713:
            return {
                "cell_of_min": 2, "module_of_min": 1, "temp_min_c": coldest_c, "cell_of_max": 1, "module_of_max": 2,
                "temp_max_c": hottest_c,
            }  # fmt: skip
        case 0x714:
            return {
                "cell_of_max": 5, "module_of_max": 1, "cell_max_v": cell_max_v, "cell_of_min": 17, "module_of_min": 2,
                "cell_min_v": cell_min_v,
            }  # fmt: skip
    first = 2 * (can_id - 0x715) + 1
    return {
        f"module_{module}_{name}_v": volts if module <= modules else 0.0
        for module in (first, first + 1)
        for name, volts in (("min", cell_min_v), ("max", cell_max_v))
    }


def _more(view: InverterView, modules: int) -> tuple[dict[str, float], ...]:
    """The pages of 0x70F."""
    power_w, soc_pct = 1920 * modules, _soc_pct(view)
    full = nothing(offered_a(view, view.max_charge_w, OFFER))
    return (
        {"always_5000": 5000, "max_power_w": power_w, "max_power_again_w": power_w},
        {"nothing": 0},
        {"drifting_2": 0x2070, "unexplained_2": 0x0992},
        {"drifting_3": 0x1DFD, "unexplained_3": 0x26CE},
        {"drifting_4": 0x060C, "stop_charge": STOP_CHARGE if full else 0},
        *(
            {f"module_{n}_soc_pct": soc_pct if n <= modules else 0.0 for n in range(first, min(first + 3, 9))}
            for first in (1, 4, 7)
        ),
    )


def said(can_id: int, view: InverterView, modules: int) -> tuple[CanFrame, ...]:
    """The frames of one id. 0x504 has the current's sign turned; 0x005 alone says that an end is reached."""
    if can_id == 0x504:
        view = view._replace(current_a=-number(view.current_a))
    repeats = can_id < 0x100 or can_id in _SHORT
    frames = pages(0x700 | can_id & 0xFF if repeats else can_id, view, modules)
    if can_id == 0x005:
        empty, full = _soc_pct(view) == 0, nothing(offered_a(view, view.max_charge_w, OFFER))
        end_stop = EMPTY if empty else FULL if full else NORMAL
        frames = (frames[0][:1] + bytes([end_stop]) + frames[0][2:],)
    return tuple(CanFrame(can_id, data) for data in frames)


def modbus_answer(request: bytes) -> tuple[CanFrame, ...]:
    """Modbus RTU in pieces of 8 bytes. Empty: not for us, torn, or nothing that can be read."""
    unit, function, first, count = request[0], request[1], request[2:4], int.from_bytes(request[4:6], "big")
    readable = function in (3, 4) and int.from_bytes(first, "big") == MODBUS_FIRST and 1 <= count <= 6
    if rtu.encode(unit, request[1:6]) != request or unit != 1 or not readable:
        return ()
    words = b"".join(word.to_bytes(2, "big") for word in MODBUS_REGISTERS[:count])
    answer = rtu.encode(unit, bytes((function, len(words))) + words)
    return tuple(CanFrame(MODBUS, answer[at : at + 8]) for at in range(0, len(answer), 8))


def _others(waiting: tuple[CanFrame, ...]) -> tuple[CanFrame, ...]:
    """Without a Modbus answer that has not gone out: only the newest request is answered."""
    return tuple(frame for frame in waiting if frame.id != MODBUS)


@dataclass(frozen=True, slots=True)
class SungrowSbrState:
    """What the inverter said and when, and what is on its way to it; as BydCanState. running: the phase is RUN."""

    modules: int
    soh_pct: float = 0.0
    running: bool = False
    heard_at_ms: int | None = None
    schedule: Schedule | None = None
    told: Refusals = NOTHING_REFUSED
    waiting: tuple[CanFrame, ...] = ()
    blind_since_ms: int | None = None

    def receive(
        self, frames: Sequence[CanFrame], writes: Sequence[RegisterWrite], polls: int, now_ms: int
    ) -> SungrowSbrState:
        """Take in frames. Foreign ids, 29-bit ids and other lengths than 8 change nothing."""
        heard = self
        for frame in frames:
            if frame.id not in PROTOCOL.rx or frame.extended or len(frame.data) != 8:
                continue
            heard = replace(heard, heard_at_ms=now_ms)
            if frame.id in (0x101, 0x191) and heard.running:
                heard = replace(heard, running=False, schedule=None)
            elif frame.id in (0x108, 0x109) and not heard.running:
                heard = replace(heard, running=True, schedule=None)
            elif frame.id == MODBUS:
                heard = replace(heard, waiting=(*_others(heard.waiting), *modbus_answer(frame.data)))
        return heard

    def request(self, now_ms: int) -> InverterRequest:
        """It never says go, and tells no voltage that anybody could name."""
        return InverterRequest(heard_at_ms=self.heard_at_ms)

    def answer(self, view: InverterView, now_ms: int) -> tuple[SungrowSbrState, Answer]:
        """The frames due. Never two of one id in a tick: a CAN port keeps only the newest of them."""
        awake = self._awake(complete(view), now_ms)
        if awake.schedule is None:
            return awake, SILENCE
        if awake.blind_since_ms is not None:
            view = view._replace(status=InverterStatus.STANDBY)
        batches = RUNNING if self.running else INIT
        schedule, due = awake.schedule.tick(now_ms)
        refused, waiting = Refusals.of(view, OFFER), awake.waiting
        ids = [can_id for n in due for can_id in batches[n].ids]
        pressing: tuple[int, ...] = PRESSING if refused.beyond(awake.told) else ()
        if awake.blind_since_ms is not None:
            pressing = tuple(i for i in LIMIT_IDS if i in pressing or i in ids)
            ids, waiting = [], ()
            refused = refused._replace(connect=awake.told.connect)
        if not ids and not waiting and not pressing and schedule is awake.schedule:
            return awake, SILENCE
        waiting = (
            *self._frames(pressing, view),
            *(frame for frame in waiting if frame.id not in pressing),
            *self._frames([can_id for can_id in ids if can_id not in pressing], view),
        )
        now, later = next_frames(waiting)
        return replace(awake, schedule=schedule, waiting=later, told=refused), Answer(now)

    def _awake(self, sees: bool, now_ms: int) -> SungrowSbrState:
        """Begin to speak once everything is known, and stop when it has not been for BLIND_MS."""
        blind_since_ms = None if sees else now_ms if self.blind_since_ms is None else self.blind_since_ms
        schedule, waiting = self.schedule, self.waiting
        if blind_since_ms is not None and now_ms - blind_since_ms >= BLIND_MS:
            schedule, waiting = None, ()
        elif sees and schedule is None:
            schedule = Schedule(tuple(batch.beat for batch in (RUNNING if self.running else INIT)))
        if (blind_since_ms, schedule, waiting) == (self.blind_since_ms, self.schedule, self.waiting):
            return self
        return replace(self, blind_since_ms=blind_since_ms, schedule=schedule, waiting=waiting)

    def image(self, view: InverterView) -> tuple[CanFrame, ...]:
        """Every frame of RUN; nothing while a number is unknown."""
        return self._frames([i for batch in RUNNING for i in batch.ids], view) if complete(view) else ()

    def _frames(self, ids: Sequence[int], view: InverterView) -> tuple[CanFrame, ...]:
        if view.soh_pct is None:
            view = view._replace(soh_pct=self.soh_pct)
        return tuple(frame for can_id in ids for frame in said(can_id, view, self.modules))


class SungrowSbr(InverterProtocol):
    """The row of the registry."""

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> SungrowSbrState:
        chosen = self.chosen(options)
        return SungrowSbrState(MODELS[str(chosen["model"])], float(chosen["soh_pct"]))

    def explain_frame(self, frame: CanFrame) -> tuple[tuple[str, Mapping[str, float | str | None]], ...]:
        if frame.extended or frame.id not in self.tx | self.rx:
            return ()
        if frame.id == MODBUS:
            return (("SBR_modbus", {}),)
        repeats = frame.id < 0x100 or frame.id in _SHORT
        found = TABLES.explain(0x700 | frame.id & 0xFF if repeats else frame.id, frame.data)
        if not found and len(frame.data) == 8:
            return (("SBR_frozen", {}),)
        return tuple(
            (message, {n: text_of(v) if v is not None and n.endswith("_text") else v for n, v in values.items()})
            for message, values in found
        )


UNCERTAIN = (
    "All of it: one source, which calls itself beta, and no recording.",
    "Every frozen frame, bytes 2 and 3 of pages 2 to 4 of 0x70F, and 0x719.",
    "Whether one of the three copies (0x00n, 0x50n, 0x70n) would do.",
    "Whether the inverter stops on status 1, and when it gives a silent battery up.",
)
RECORDINGS: Mapping[str, str] = {}

PROTOCOL = SungrowSbr(
    name="sungrow_sbr",
    title="Sungrow (its own SBR battery over CAN, beta)",
    asks=False,
    zero_ms=35_000,
    silent_ms=180_000,
    follow_ms=5_000,
    max_w=20_000.0,
    offers_before_go=False,
    tx=frozenset({MODBUS, *(can_id for batch in (*INIT, *RUNNING) for can_id in batch.ids)}),
    options=(
        Option(
            "model",
            "SBR160",
            "The battery it is told it has. Its window of 54 to 73 V for each module of 32 should hold the pack's.",
            choices=tuple(MODELS),
            yours=True,
        ),
        Option("soh_pct", 0.0, "State of health told while the pack does not say its own.", unit="%", low=0, high=100),
    ),
    windows_v=MappingProxyType({name: (54.0 * modules, 73.0 * modules) for name, modules in MODELS.items()}),
    bitrate=250_000,
    rx=frozenset({0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x108, 0x109, 0x191, MODBUS}),
)
