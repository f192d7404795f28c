"""What every battery protocol is: frames in, a snapshot out, frames to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from controller.model.battery import BatterySnapshot
from controller.ports import CanFrame
from statecharts.supervisor import Contactor


@dataclass(frozen=True, slots=True)
class PackKind:
    """What a pack turned out to be. cells: in series, None when it cannot be told. chemistry: a key of CHEMISTRIES."""

    cells: int | None
    chemistry: str | None


class BatteryState(Protocol):
    """The frames of one pack, as a value: receive and transmit return a new one."""

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> Self:
        """Take in frames. Foreign ids and extended frames change nothing; corrupt ones are counted and refused."""

    def snapshot(self, now_ms: int) -> BatterySnapshot:
        """What the pack says now; everything too old, invalid or never seen is None."""

    def transmit(self, closed: frozenset[Contactor], now_ms: int) -> tuple[Self, tuple[CanFrame, ...]]:
        """The frames due at now_ms. PACK in `closed` asks the pack to close; a change is sent in that tick."""


@dataclass(frozen=True)
class BatteryProtocol:
    """One row of the registry.

    rx: ids it listens to, with the cycle in ms. tx: ids it may send (the gate refuses all others). wirings: those it
    can be used with. telling: ids that only this battery sends, for `log identify`. options: names and defaults of its
    own config keys.
    """

    name: str
    title: str
    rx: Mapping[int, int]
    tx: frozenset[int]
    wirings: tuple[str, ...]
    chemistries: tuple[str, ...]
    telling: frozenset[int]

    def start(self) -> BatteryState:
        raise NotImplementedError

    def kind(self, pack: BatterySnapshot) -> PackKind:
        """What can be told of the pack from what it said so far."""
        raise NotImplementedError
