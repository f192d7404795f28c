"""What every inverter protocol is: requests in, a view of the battery out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, Self

from controller.codec.registers import ILLEGAL_ADDRESS, RegisterError
from controller.model.inverter import InverterRequest, InverterView
from controller.model.settings import NO_OPTIONS, Option, OptionValue
from controller.ports import CanFrame, RegisterWrite, SerialLine


@dataclass(frozen=True, slots=True)
class Answer:
    """What one tick tells the inverter: frames to send, and the register blocks to serve (first register → values)."""

    frames: tuple[CanFrame, ...] = ()
    registers: Mapping[int, tuple[int, ...]] | None = None


SILENCE: Final = Answer()
"""Nobody speaks to it, and nothing is answered: what an inverter that does not follow must stop at."""


class InverterState(Protocol):
    """The other end of one inverter's cable, as a value."""

    def receive(self, frames: Sequence[CanFrame], writes: Sequence[RegisterWrite], polls: int, now_ms: int) -> Self:
        """Take in frames, register writes and the number of valid requests since the last tick."""

    def request(self, now_ms: int) -> InverterRequest:
        """What the inverter asks now."""

    def answer(self, view: InverterView, now_ms: int) -> tuple[Self, Answer]:
        """What it is told now."""

    def image(self, view: InverterView) -> tuple[CanFrame, ...]:
        """Every frame that tells `view`, whatever is due: for whoever shows it. Empty where it reads registers."""


@dataclass(frozen=True)
class InverterProtocol:
    """One row of the registry.

    asks: it gives its go before we may close. zero_ms, silent_ms: silence after which limits are 0, and after which we
    open. follow_ms: the time it needs to follow a new limit. max_w: what it can be offered at most.
    offers_before_go: it sees RUNNING's limits once only its own go is missing. tx: CAN ids we may send to it, rx: those
    it sends. options: config keys of its own. precharges: it charges its own input behind the relay of `pack+inverter`.
    precharge_max_ms: the hard bound of a precharge into it. ignores_zero: the choices of its option `profile` that heed
    no limit of 0. windows_v: lowest and highest voltage of each choice of its option `model`. line: how its serial line
    is set, where we are unit `unit` on it. bitrate: of its CAN bus; exactly one of line and bitrate is there.
    """

    name: str
    title: str
    asks: bool
    zero_ms: int
    silent_ms: int
    follow_ms: int
    max_w: float
    offers_before_go: bool
    tx: frozenset[int]
    options: tuple[Option, ...] = ()
    precharges: bool = False
    precharge_max_ms: int = 2000
    windows_v: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    line: SerialLine | None = None
    unit: int = 0
    bitrate: int | None = None
    rx: frozenset[int] = frozenset()
    ignores_zero: frozenset[str] = frozenset()

    def chosen(self, options: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """Every option with its value; a key that is missing has its default. Raises KeyError for a foreign key."""
        foreign = sorted(options.keys() - {option.name for option in self.options})
        if foreign:
            raise KeyError(f"{self.name} has no option {', '.join(foreign)}")
        return {option.name: options.get(option.name, option.default) for option in self.options}

    def start(self, options: Mapping[str, OptionValue] = NO_OPTIONS) -> InverterState:
        """The state before the first request. A key that is missing has its default, a foreign one is a KeyError."""
        raise NotImplementedError

    def check_write(self, write: RegisterWrite) -> None:
        """Raises RegisterError (with the Modbus exception code) for a write that must be refused on the wire."""
        raise RegisterError(f"{self.name} has no register {write.register} to write", ILLEGAL_ADDRESS)

    def explain(self, registers: Mapping[int, tuple[int, ...]]) -> Mapping[int, Mapping[str, float | str]]:
        """The register blocks in words: first register → name → value. Empty for an inverter without registers."""
        return {}

    def explain_frame(self, frame: CanFrame) -> tuple[tuple[str, Mapping[str, float | str | None]], ...]:
        """One frame of either side in words: message name and values. Empty: a foreign id, or a frame to be refused."""
        return ()
