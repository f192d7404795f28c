"""Inverters at the other end of the cable: what `test_every_inverter.py` puts every inverter protocol through.

A new one gets its row in `SPEAKING`. What it understands is read here byte by byte, from the protocol notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from controller.inverters.base import Answer
from controller.model.settings import NO_OPTIONS, OptionValue
from controller.ports import CanFrame, RegisterWrite
from sim.byd_can_inverter import BydCanInverter


class Says(NamedTuple):
    """What an inverter sends in one tick."""

    frames: Sequence[CanFrame] = ()
    writes: Sequence[RegisterWrite] = ()
    polls: int = 0


class Far(Protocol):
    """One inverter. charge_w, discharge_w: what it believes it may, ready: that it may use the battery at all.

    faulted: that the battery is out of order; None where the protocol has no word for it.
    """

    charge_w: float
    discharge_w: float
    ready: bool
    faulted: bool | None

    def step(self, now_ms: int, answer: Answer, pack_v: float) -> Says:
        """One tick: what it is told, at this voltage → what it says."""


@dataclass(frozen=True)
class Speaking:
    """One inverter. periods: the most a frame's next one may take, by id, ms. pause: how much earlier it may come."""

    far: Callable[[], Far]
    options: Mapping[str, OptionValue] = field(default_factory=lambda: NO_OPTIONS)
    periods: Mapping[int, int] = field(default_factory=dict)


@dataclass
class Gen24Reads:
    """A Gen24: polls every 5 s, asks for the battery after 10 s. Section 2.3 of the BYD Modbus note."""

    charge_w: float = 0.0
    discharge_w: float = 0.0
    ready: bool = False
    faulted: bool | None = None

    def step(self, now_ms: int, answer: Answer, pack_v: float) -> Says:
        if answer.registers is not None:
            lengths = {first: len(words) for first, words in answer.registers.items()}
            assert lengths == {101: 68, 201: 13, 301: 24, 401: 20, 1001: 100, 12289: 768}
            words = answer.registers[301]
            self.ready, self.faulted = words[0] == 3, words[0] == 4
            self.discharge_w, self.charge_w = float(words[6]), float(words[7])
        go = [RegisterWrite(401, (2,))] if now_ms == 10_000 else []
        return Says(writes=go, polls=int(now_ms % 5_000 == 0) + len(go))


@dataclass
class OnBydCan:
    """A hybrid that takes us for a BYD battery."""

    brand: str
    faulted: bool | None = None

    def __post_init__(self) -> None:
        self.peer = BydCanInverter(brand=self.brand)

    @property
    def charge_w(self) -> float:
        return self.peer.charge_limit_w

    @property
    def discharge_w(self) -> float:
        return self.peer.discharge_limit_w

    @property
    def ready(self) -> bool:
        return bool(self.peer.sees_ready)

    def step(self, now_ms: int, answer: Answer, pack_v: float) -> Says:
        return Says(self.peer.step(now_ms, answer.frames, pack_v, 0.0))


@dataclass
class SungrowReads:
    """A Sungrow with its own battery: part B of the BYD CAN note. It works from the third second on."""

    charge_w: float = 0.0
    discharge_w: float = 0.0
    ready: bool = False
    faulted: bool | None = None

    def step(self, now_ms: int, answer: Answer, pack_v: float) -> Says:
        for frame in answer.frames:
            if frame.id == 0x701:
                amps = [int.from_bytes(frame.data[at : at + 2], "little") / 10 for at in (4, 6)]
                self.charge_w, self.discharge_w = (round(pack_v * a, 3) for a in amps)
            elif frame.id == 0x705:
                self.ready = frame.data[0] == 2
        if now_ms == 5_000:
            return Says([CanFrame(0x1E0, bytes.fromhex("01044DE20002C691"))])
        if now_ms < 3_000:
            return Says([CanFrame(0x191, bytes.fromhex("0000010600090400"))] if now_ms % 1_000 == 0 else [])
        turn = (now_ms - 3_000) % 1_250
        return Says([CanFrame((0x100, 0x106, 0x108, 0x109)[turn // 250 % 4], bytes(8))] if turn % 250 == 0 else [])


SBR_EACH_SECOND = (
    0x401, 0x402, 0x500, *range(0x00, 0x07), *range(0x13, 0x1F), *range(0x700, 0x707), *range(0x713, 0x71A),
    *range(0x70F, 0x710), *range(0x71A, 0x71F), 0x512, *range(0x501, 0x507),
)  # fmt: skip
SBR_EACH_TEN = (0x707, 0x708, 0x709, 0x70A, 0x70B, 0x70D, 0x70E)
BYD_PERIODS = {0x110: 2_000, 0x150: 10_000, 0x1D0: 10_000, 0x210: 10_000, 0x190: 60_000}

SPEAKING: Mapping[str, Speaking] = {
    "byd_modbus": Speaking(Gen24Reads),
    "byd_can": Speaking(lambda: OnBydCan("SUNGROW"), {"profile": "sungrow"}, BYD_PERIODS),
    "sungrow_sbr": Speaking(
        SungrowReads,
        {"model": "SBR160"},
        {**dict.fromkeys(SBR_EACH_SECOND, 1_000), **dict.fromkeys(SBR_EACH_TEN, 10_000), 0x71F: 60_000},
    ),
}
"""Every inverter of the registry."""
