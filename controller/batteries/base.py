"""What every battery protocol is: frames in, a snapshot out, frames to send."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from controller.codec.dbc import Values
from controller.model.battery import BatterySnapshot, Feed
from controller.model.settings import NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame, SerialLine
from statecharts.supervisor import Contactor


@dataclass(frozen=True, slots=True)
class PackKind:
    """What a pack turned out to be. cells: in series, None when it cannot be told. chemistry: a key of CHEMISTRIES.

    perhaps: the chemistries it may have as well, none of them judged more strictly.
    """

    cells: int | None
    chemistry: str | None
    perhaps: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        names = [name.upper() for name in (self.chemistry, *self.perhaps) if name]
        return f"{self.cells or '?'} cells, {' or '.join(names) or 'chemistry unknown'}"


class BatteryState(Protocol):
    """The frames of one pack, as a value: receive and transmit return a new one."""

    def receive(self, frames: Sequence[CanFrame], now_ms: int) -> Self:
        """Take in frames. Foreign ids and extended frames change nothing; corrupt ones are counted and refused."""

    def snapshot(self, now_ms: int) -> BatterySnapshot:
        """What the pack says now; everything too old, invalid or never seen is None."""

    def transmit(self, closed: frozenset[Contactor], now_ms: int) -> tuple[Self, tuple[CanFrame, ...]]:
        """The frames due at now_ms. PACK in `closed` asks the pack to close; a change is sent in that tick."""


class LineBatteryState(BatteryState, Protocol):
    """A battery on a serial line instead of CAN."""

    def hear(self, data: bytes, now_ms: int) -> Self:
        """Take in what came over the line since the last tick, in whatever pieces."""

    def ask(self, now_ms: int) -> tuple[Self, bytes]:
        """What is due to be sent at now_ms, empty when nothing is."""


@dataclass(frozen=True)
class BatteryProtocol:
    """One row of the registry.

    rx: ids it listens to, with the cycle in ms. tx: ids it may send (the gate refuses all others). wirings: those it
    can be used with. telling: ids that only this battery sends, for `log identify`. options: config keys of its own.
    An option named like a key every battery has gets that key's value. lacks: required signals it cannot give; what
    protects the cells instead has to be named in the config. line: how its serial line is set with these options, None
    for a battery on CAN; where it has one its state is a LineBatteryState.
    """

    name: str
    title: str
    rx: Mapping[int, int]
    tx: frozenset[int]
    wirings: tuple[str, ...]
    chemistries: tuple[str, ...]
    telling: frozenset[int]
    options: tuple[Option, ...] = ()
    lacks: frozenset[Feed] = frozenset()
    line: Callable[[Mapping[str, OptionValue]], SerialLine] | None = None

    def chosen(self, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """Every option with its value. Raises KeyError for a foreign key, ValueError for a value it cannot have."""
        foreign = sorted(options.keys() - {option.name for option in self.options})
        if foreign:
            raise KeyError(f"{self.name} has no option {', '.join(foreign)}")
        chosen = {option.name: options.get(option.name, option.default) for option in self.options}
        for option in self.options:
            value = chosen[option.name]
            if type(value) is not type(option.default) or (option.choices and value not in option.choices):
                wanted = " or ".join(option.choices) or f"a {type(option.default).__name__}"
                raise ValueError(f"{self.name}: {option.name} must be {wanted}, not {value!r}")
        return chosen

    def ids(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> Collection[int]:
        """The ids to listen to with these options; a 29-bit one has 0x8000_0000 added, as in a recording."""
        return self.rx.keys()

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> BatteryState:
        """The state before the first frame. A key that is missing has its default."""
        raise NotImplementedError

    def kind(self, pack: BatterySnapshot) -> PackKind:
        """What can be told of the pack from what it said so far."""
        raise NotImplementedError

    def explain(self, frame: CanFrame) -> tuple[tuple[str, Values], ...]:
        """Every reading of one frame alone: message name and values, for `log decode`. Empty: foreign, or refused."""
        raise NotImplementedError
