"""What the core takes in and gives out, and one small Protocol for each kind of hardware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from controller.model.events import Event, Notice
from statecharts.supervisor import Contactor


class CanFrame(NamedTuple):
    """One classic CAN data frame. at_ms: receive stamp on the loop's clock, 0 for frames to send."""

    id: int
    data: bytes
    at_ms: int = 0
    extended: bool = False


class RegisterWrite(NamedTuple):
    """The inverter wrote `values` from the document number `register` on (401 is the first)."""

    register: int
    values: tuple[int, ...]


class CommandKind(Enum):
    ENABLE = "enable"
    STOP = "stop"
    SERVICE_STOP = "service-stop"
    ACKNOWLEDGE = "acknowledge"
    UNLOCK = "unlock"
    CAP = "cap"
    RECOVERY_CHARGE = "recovery-charge"


class Command(NamedTuple):
    """A wish of a person. name: the event acknowledged. charge_w, discharge_w, for_ms: a power cap and its life."""

    kind: CommandKind
    name: str = ""
    charge_w: float | None = None
    discharge_w: float | None = None
    for_ms: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """What survives a restart. seq grows with every change; ages are running time only (no clock is trusted at boot).

    closed: an energised ladder was begun and its opening not yet verified. latched: ids of latched causes.
    closings_age_ms: how long ago each closing of the last day began. unclean: unclean restarts of the last day.
    """

    seq: int = 0
    closed: bool = False
    locked_out: bool = False
    latched: tuple[str, ...] = ()
    closings_age_ms: tuple[int, ...] = ()
    precharges_age_ms: tuple[tuple[int, int], ...] = ()
    tries: int = 0
    unclean_age_ms: tuple[int, ...] = ()


NO_FEEDBACK: Mapping[Contactor, bool | None] = MappingProxyType({})
NO_REGISTERS: Mapping[int, tuple[int, ...]] = MappingProxyType({})


class Inputs(NamedTuple):
    """Everything that reached us since the last tick. None and a missing key mean "not known, not wired".

    battery_bytes: what came over the line of a battery that has no CAN. link_at_ms: when link_voltage_v was sampled.
    stored_seq: the newest record that is safely on disk.
    """

    battery_frames: Sequence[CanFrame] = ()
    battery_bytes: bytes = b""
    inverter_frames: Sequence[CanFrame] = ()
    register_writes: Sequence[RegisterWrite] = ()
    register_polls: int = 0
    feedback: Mapping[Contactor, bool | None] = NO_FEEDBACK
    estop_ok: bool | None = None
    interlock_ok: bool | None = None
    link_voltage_v: float | None = None
    link_at_ms: int | None = None
    commands: Sequence[Command] = ()
    breakdowns: Sequence[Event] = ()
    stored_seq: int = 0


class Outputs(NamedTuple):
    """Everything one tick decided. closed: exactly these outputs are energised. heartbeat: the tick was healthy."""

    closed: frozenset[Contactor] = frozenset()
    battery_frames: tuple[CanFrame, ...] = ()
    battery_bytes: bytes = b""
    inverter_frames: tuple[CanFrame, ...] = ()
    registers: Mapping[int, tuple[int, ...]] = NO_REGISTERS
    events: tuple[Notice, ...] = ()
    record: Record | None = None
    heartbeat: bool = False


class CanPort(Protocol):
    """One CAN bus."""

    def receive(self) -> Sequence[CanFrame]:
        """The frames since the last call, oldest first. Never waits."""

    def send(self, frames: Sequence[CanFrame]) -> None:
        """Queue frames; of two with one id the newest wins. Raises BusError."""


class SerialLine(NamedTuple):
    """How a serial line is set: always 8 data bits, no parity, 1 stop bit."""

    baud: int


class LinePort(Protocol):
    """One serial line."""

    def receive(self) -> bytes:
        """What came since the last call. Never waits."""

    def send(self, data: bytes) -> None:
        """Begin to send; returns at once. Raises BusError."""


class Pins(NamedTuple):
    """Hard-wired inputs, normally closed: True = closed. None = not wired; what cannot be read is open."""

    estop_ok: bool | None = None
    interlock_ok: bool | None = None


class PinPort(Protocol):
    """Reads the hard-wired inputs."""

    def read(self) -> Pins:
        """Their levels now. Never raises: what cannot be read is None."""


class LinkPort(Protocol):
    """A sensor of ours on the link."""

    def link(self) -> tuple[float, int] | None:
        """The newest link voltage in V and when it was sampled in ms; None when there is none, or none young enough.

        Never waits.
        """


class HeartbeatPort(Protocol):
    """Retriggers the external relay watchdog."""

    def beat(self) -> None:
        """One edge. Called after a healthy tick only. Never raises."""


class RegisterPort(Protocol):
    """The registers an inverter polls."""

    def publish(self, registers: Mapping[int, tuple[int, ...]]) -> None:
        """Answer reads from these blocks (first register number → values) from now on."""

    def requests(self) -> tuple[Sequence[RegisterWrite], int]:
        """Writes since the last call, and how many valid requests came."""


class RelayPort(Protocol):
    """Drives the contactor coils we hold."""

    def write(self, closed: frozenset[Contactor]) -> None:
        """Close exactly these, open all others. Raises RelayError; the caller then treats all feedback as unknown."""

    def feedback(self) -> Mapping[Contactor, bool | None]:
        """True = measured closed, None = cannot be read, no key = no contact is wired. Never echoes the command."""


class ClockPort(Protocol):
    def now_ms(self) -> int:
        """Monotonic milliseconds."""


class EventPort(Protocol):
    def write(self, notices: Sequence[Notice], now_ms: int) -> None:
        """Hand on what happened. Never waits, never raises."""


class RecordPort(Protocol):
    """Keeps the Record of a restart."""

    def store(self, record: Record) -> None:
        """Begin to store it; returns at once."""

    def stored_seq(self) -> int:
        """The seq of the newest record that is safely stored."""


class PortError(Exception):
    """A device failed. The message names the device and what it said."""


class RelayError(PortError):
    """A relay could not be written."""


class BusError(PortError):
    """A bus could not be used."""
