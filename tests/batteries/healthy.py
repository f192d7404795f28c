"""Healthy packs, as the far end of the cable: what `test_every_battery.py` puts every battery through.

A new battery gets its rows in `HEALTHY`: a peer of `sim`, or recordings of a pack that is charged and discharged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from controller.model.battery import Feed
from controller.model.settings import NO_OPTIONS, OptionValue
from controller.ports import CanFrame
from sim.leaf_pack import LeafPack, crc8
from sim.recording import locate, open_recording
from sim.small_packs import KgShunt, VatShunt, WatchMon
from sim.tesla_pack import LFP, TeslaPack

TICK_MS = 10


class Far(Protocol):
    """One pack at the other end."""

    def step(self, now_ms: int, frames: Sequence[CanFrame], data: bytes) -> tuple[Sequence[CanFrame], bytes]:
        """One tick: what it was sent in the last one → what it says in this one."""


@dataclass(frozen=True)
class Healthy:
    """One kind of pack that is well.

    far: the pack while this current flows, in A, positive charges it. options: the config it needs. checked: ids whose
    every bit a checksum guards; sealed: any bytes as such a frame, its checksum right. answer: any bytes as what is
    said on a serial line, its checksum right. told_twice: what a second frame tells as well, so that it may be known
    while the one that feeds it is silent.
    """

    title: str
    far: Callable[[float], Far]
    options: Mapping[str, OptionValue] = field(default_factory=lambda: NO_OPTIONS)
    checked: frozenset[int] = frozenset()
    sealed: Callable[[bytes], bytes] = bytes
    answer: Callable[[bytes], bytes] = bytes
    told_twice: frozenset[Feed] = frozenset()


# --- peers and recordings ---


@dataclass
class OnBus:
    """A pack model that hears frames, and is told the current."""

    pack: TeslaPack | LeafPack
    current_a: float

    def step(self, now_ms: int, frames: Sequence[CanFrame], data: bytes) -> tuple[Sequence[CanFrame], bytes]:
        self.pack.receive(frames, now_ms)
        return self.pack.step(now_ms, self.current_a), b""


@dataclass
class Broadcasting:
    """A pack model that hears nothing."""

    pack: WatchMon

    def step(self, now_ms: int, frames: Sequence[CanFrame], data: bytes) -> tuple[Sequence[CanFrame], bytes]:
        return self.pack.frames(now_ms), b""


@dataclass
class OnLine:
    """A shunt on a serial line."""

    pack: VatShunt | KgShunt

    def step(self, now_ms: int, frames: Sequence[CanFrame], data: bytes) -> tuple[Sequence[CanFrame], bytes]:
        self.pack.pass_ms(TICK_MS)
        return (), self.pack.hear(data)


@dataclass
class Recorded:
    """A recording, over and over. It hears nothing."""

    ticks: Mapping[int, Sequence[CanFrame]]

    def step(self, now_ms: int, frames: Sequence[CanFrame], data: bytes) -> tuple[Sequence[CanFrame], bytes]:
        said = self.ticks.get(now_ms // TICK_MS % (max(self.ticks) + 1), ())
        return [frame._replace(at_ms=now_ms) for frame in said], b""


def recorded(charged: str | Path, discharged: str | Path) -> Callable[[float], Far]:
    """Two recordings, by path or by their names in `sim/logs`."""
    logs = [dict(open_recording(locate(name)).batches(TICK_MS * 1000)) for name in (charged, discharged)]
    return lambda amps: Recorded(logs[0] if amps > 0 else logs[1])


# --- the table ---


def tesla(title: str, options: Mapping[str, OptionValue] = NO_OPTIONS, **pack: Any) -> Healthy:
    """Of its contactors 0x20A tells beside 0x212."""
    return Healthy(
        f"tesla {title}",
        lambda amps: OnBus(TeslaPack(**pack), amps),
        options,
        told_twice=frozenset({Feed.CONTACTOR}),
    )


def with_leaf_crc(data: bytes) -> bytes:
    body = data[:7].ljust(7, b"\0")
    return body + bytes((crc8(body),))


def leaf(generation: str, **options: OptionValue) -> Healthy:
    return Healthy(
        f"leaf {generation}",
        lambda amps: OnBus(LeafPack(generation=generation), amps),  # type: ignore[arg-type]
        options,
        frozenset({0x1DB, 0x1DC, 0x55B}),
        with_leaf_crc,
    )


def vat_answer(data: bytes) -> bytes:
    """Of the address the config has by default."""
    body = b"\xaa\x1c\x01\x01" + data[:24].ljust(24, b"\0")
    return body + bytes((sum(body) % 256,))


def kg_answer(data: bytes) -> bytes:
    """Twelve numbers of three bytes each."""
    numbers = [int.from_bytes(data[at : at + 3], "big") for at in range(0, 36, 3)]
    fields = ",".join(map(str, (1, 1 + sum(numbers) % 255, *numbers)))
    return f":r50={fields},\r\n".encode()


SHUNT_OPTIONS: Mapping[str, OptionValue] = {"capacity_ah": 100.0, "cells": 96, "chemistry": "nca"}

HEALTHY: Mapping[str, tuple[Healthy, ...]] = {
    "tesla_model3": (
        tesla("2020"),
        tesla("2021 lfp", chemistry=LFP, energy_muxed=True, link_bytes=6),
        tesla("minimal", {"closing": "minimal"}, firmware="old"),
    ),
    "leaf": (leaf("ZE0"), leaf("AZE0", interlock_wired=False), leaf("ZE1", wh_per_gid=77.0)),
    "batrium": (
        Healthy("batrium", lambda amps: Broadcasting(WatchMon(current_a=amps))),
        Healthy(
            "batrium at 0, 29 bits, no flags",
            lambda amps: Broadcasting(WatchMon(base=0, extended=True, flags=(0, 0, 0), current_a=amps)),
            {"base_id": "0x000", "flags": "ignore"},
        ),
    ),
    "juntek": (
        Healthy(
            "juntek vat4300",
            lambda amps: OnLine(VatShunt(current_a=amps)),
            SHUNT_OPTIONS,
            answer=vat_answer,
        ),
        Healthy(
            "juntek kg-f",
            lambda amps: OnLine(KgShunt(current_a=amps)),
            {**SHUNT_OPTIONS, "model": "kg-f"},
            answer=kg_answer,
        ),
    ),
}
"""Every battery of the registry, in each of the kinds it decodes differently."""
