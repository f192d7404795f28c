"""What may be said over the control socket: one JSON object a line, a closed set, checked field by field.

→ {"version": 1, "do": "cap", "charge_w": 2000, "for_s": 7200}
← {"version": 1, "done": true, "state": "RUNNING", "withheld": []}
← {"version": 1, "done": false, "field": "for_s", "why": "must be a number from 1 to 604800"}
→ {"version": 1, "do": "stop", "by": "MQTT bms/control"}
→ {"version": 1, "do": "watch", "every_ms": 500}
← {"version": 1, "status": {…}}          at once, and every 500 ms; `status` asks for one
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from controller.ports import Command, CommandKind

VERSION: Final = 1
LINE_MAX: Final = 4096
TEXT_MAX: Final = 200
POWER_MAX_W: Final = 1_000_000.0
CAP_MAX_S: Final = 7 * 24 * 3600.0
WATCH_MIN_MS, WATCH_MAX_MS, WATCH_MS = 200, 60_000, 1000


class MessageError(Exception):
    """Why a message is refused, as a whole. field: what is wrong in it, empty when it is no message at all."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}" if field else why)
        self.field, self.why = field, why


class Reach(Enum):
    """From where a message is taken. MACHINE: a person at a terminal of this machine, never the gateway."""

    ANYWHERE = "anywhere"
    MACHINE = "machine"


class Ask(NamedTuple):
    """One valid message. command: what the core is to do, None when only the status, or a bundle, is wanted.

    every_ms: how often the status is wanted, 0 for once. said: the words of a person, for the journal. by: for whom the
    other end asks, in its own words; who it is itself the kernel says.
    """

    do: str
    command: Command | None = None
    every_ms: int = 0
    said: str = ""
    reach: Reach = Reach.ANYWHERE
    by: str = ""


Fields = Mapping[str, Any]


class Kind(NamedTuple):
    """One message: its fields (name → check; optional ones in `may`), and what it means."""

    means: Callable[[Fields], Ask]
    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


def parse(line: bytes) -> Ask:
    """One line as a message. Raises MessageError."""
    told = _object(line)
    if "version" not in told:
        raise MessageError("version", f"is missing; this program speaks {VERSION}")
    if told["version"] != VERSION or type(told["version"]) is not int:
        raise MessageError("version", f"must be {VERSION}")
    do = told.get("do")
    if not isinstance(do, str) or do not in KINDS:
        raise MessageError("do", f"must be one of {', '.join(KINDS)}")
    kind = KINDS[do]
    for field in told:
        if field not in ("version", "do", "by", *kind.must, *kind.may):
            raise MessageError(_short(field), f"{do} has no such field")
    for field in kind.must:
        if field not in told:
            raise MessageError(field, "is missing")
    for field in ("by", *kind.must, *kind.may):
        if field in told and (why := CHECKS[field](told[field])):
            raise MessageError(field, why)
    return kind.means(told)._replace(by=told.get("by", ""))


def line_of(message: Mapping[str, Any]) -> bytes:
    """A message as it goes over the socket. Half a surrogate pair goes as JSON's escape of it: any text can be sent."""
    text = json.dumps({"version": VERSION, **message}, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"


def _object(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line, object_pairs_hook=_once, parse_constant=_no_number)
    except MessageError:
        raise
    except (ValueError, RecursionError):
        raise MessageError("", "this is no line of JSON") from None
    if not isinstance(told, dict):
        raise MessageError("", "this is no JSON object")
    return told


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) != len(pairs):
        raise MessageError("", "a field is there twice")
    return told


def _no_number(text: str) -> float:
    raise MessageError("", f"{text} is no number")


def _short(text: str) -> str:
    text = text.encode(errors="backslashreplace").decode()  # half a surrogate can be said back nowhere
    return text if len(text) <= 40 else text[:39] + "…"


Check = Callable[[Any], str]


def _number(low: float, high: float) -> Check:
    def check(value: Any) -> str:
        good = type(value) in (int, float) and low <= value <= high
        return "" if good else f"must be a number from {low:g} to {high:.0f}"

    return check


def _text(value: Any) -> str:
    good = isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= TEXT_MAX
    return "" if good else f"must be a line of 1 to {TEXT_MAX} characters"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


CHECKS: Final[Mapping[str, Check]] = {
    "by": _text,
    "name": _text,
    "inspected": _text,
    "charge_w": _number(0, POWER_MAX_W),
    "discharge_w": _number(0, POWER_MAX_W),
    "for_s": _number(1, CAP_MAX_S),
    "every_ms": _number(WATCH_MIN_MS, WATCH_MAX_MS),
    "id": _number(0, 255),
    "on": _flag,
}


def _plain(kind: CommandKind) -> Kind:
    return Kind(lambda fields: Ask(kind.value, Command(kind)))


def _cap(fields: Fields) -> Ask:
    charge_w, discharge_w = fields.get("charge_w"), fields.get("discharge_w")
    if charge_w is None and discharge_w is None:
        raise MessageError("charge_w", "or discharge_w must be there")
    for_ms = round(fields["for_s"] * 1000)
    return Ask("cap", Command(CommandKind.CAP, charge_w=charge_w, discharge_w=discharge_w, for_ms=for_ms))


def _relay(fields: Fields) -> Ask:
    raise MessageError("id", "no relay of this setup is free to be switched")


KINDS: Final[Mapping[str, Kind]] = {
    "status": Kind(lambda fields: Ask("status")),
    "watch": Kind(lambda fields: Ask("watch", every_ms=int(fields.get("every_ms", WATCH_MS))), may=("every_ms",)),
    "incident": Kind(lambda fields: Ask("incident")),
    "enable": _plain(CommandKind.ENABLE),
    "stop": _plain(CommandKind.STOP),
    "acknowledge": Kind(
        lambda fields: Ask("acknowledge", Command(CommandKind.ACKNOWLEDGE, fields["name"])), must=("name",)
    ),
    "cap": Kind(_cap, must=("for_s",), may=("charge_w", "discharge_w")),
    "relay": Kind(_relay, must=("id", "on")),
    "unlock": Kind(
        lambda fields: Ask("unlock", Command(CommandKind.UNLOCK), said=fields["inspected"], reach=Reach.MACHINE),
        must=("inspected",),
    ),
    "recovery-charge": Kind(
        lambda fields: Ask("recovery-charge", Command(CommandKind.RECOVERY_CHARGE), reach=Reach.MACHINE)
    ),
}
