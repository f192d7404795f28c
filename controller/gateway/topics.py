"""Our own MQTT tree, as values: a status becomes messages, a command's payload becomes what to ask of control.

<tree>/<site>/<pack>/…      retained, QoS                  …/command/…     not retained, QoS 1
    available   yes   1     online, offline (last will)        enable, stop, unlimit        PRESS
    state       yes   0     JSON: state, signals, faults …     acknowledge                  a name, or {"names": […]}
    limits      yes   0     JSON: limits and caps              charge_limit, discharge_limit   W, for the time set
    cells       yes   0     JSON: voltage of each cell         limit_minutes                the time set, in minutes
    faults      yes   0     JSON: every cause, in words        limit        {"charge_w": 2000, "for_s": 7200}
    event       yes   1     JSON: what happened last
    refused     no    1     JSON: a command that was refused
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from controller.gateway.hub import Happening, Newest, Status
from controller.gateway.wall import Stamp
from controller.messages import CAP_MAX_S, POWER_MAX_W, MessageError, line_of, parse
from controller.model.events import Event, Severity
from controller.model.texts import TEXTS

SCHEMA: Final = 1
ONLINE, OFFLINE, PRESS = "online", "offline", "PRESS"
PAYLOAD_MAX: Final = 2048
NAMES_MAX: Final = 32
SHOWN_MAX: Final = 200
LASTS_S: Final = 3600.0
LEAN: Final = ("cells_v", "events", "faults", "inverter", "limits", "cap", "version", "schema")
"""Parts of the status that have a topic of their own, or none."""
NUMBER: Final = re.compile(r"\d{1,7}(\.\d{1,3})?")
SEVERITIES: Final = tuple(severity.value for severity in Severity)


class Message(NamedTuple):
    """Something to publish. qos: 0 for what comes again, 1 for what is said once."""

    topic: str
    payload: str
    qos: int = 0
    retain: bool = True


class Names(NamedTuple):
    """Where the topics of this pack are."""

    tree: str
    site: str
    pack: str

    def topic(self, name: str) -> str:
        return f"{self.tree}/{self.site}/{self.pack}/{name}"


# --- outwards ---


def available(names: Names, heard: bool) -> Message:
    """Whether what stands in the other topics is of now: gateway and control process both there."""
    return Message(names.topic("available"), ONLINE if heard else OFFLINE, qos=1)


def messages(names: Names, newest: Newest, lasts_s: float) -> list[Message]:
    """Everything the tree tells of a status. lasts_s: how long the next cap lasts."""
    status = newest.status
    caps = {f"cap_{name}": cap for name, cap in status["cap"].items()}
    bodies = {
        "state": _state(status),
        "limits": {**status["limits"], **caps, "lasts_s": lasts_s},
        "cells": {"cells_v": status["cells_v"]},
        "faults": {
            "level": level(status), "held": [fault["id"] for fault in status["faults"] if fault["held"]],
            "faults": status["faults"],
        },
    }  # fmt: skip
    return [Message(names.topic(name), dumped(newest.stamp, body)) for name, body in bodies.items()]


def event(names: Names, happening: Happening) -> Message:
    """One event, with its words. Sent once; the retained one says where the last sending ended."""
    text = TEXTS.get(_known(happening.id))
    body = {
        "event_type": happening.id, "severity": happening.severity, "detail": happening.detail,
        "what": text and text.what, "cause": text and text.cause, "do": text and text.todo,
        "boot": happening.boot, "t_s": happening.t_s,
    }  # fmt: skip
    return Message(names.topic("event"), dumped(happening.stamp, body), qos=1)


class Sent(NamedTuple):
    """An event that has been sent, as its message tells it."""

    boot: str
    t_s: float
    event_type: str
    detail: str


def sent_until(payload: bytes) -> Sent | None:
    """The event in a retained message of ours; None when it is none."""
    try:
        told = json.loads(payload)
        return Sent(*(told[name] for name in Sent._fields))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def unsent(happened: Sequence[Happening], until: Sent) -> list[Happening]:
    """What came after the one that was sent last; all of it when that is unknown here."""
    known = [Sent(one.boot, one.t_s, one.id, one.detail) for one in happened]
    return list(happened[max((n for n, one in enumerate(known, 1) if one == until), default=0) :])


def refusal(topic: str, commanded: str, payload: bytes, why: str, stamp: Stamp) -> Message:
    """The answer to a command that is not obeyed."""
    shown = payload[:SHOWN_MAX].decode("utf-8", "replace") + ("…" if len(payload) > SHOWN_MAX else "")
    body = {"topic": commanded, "payload": shown, "why": why.encode("utf-8", "replace").decode()}
    return Message(topic, dumped(stamp, body), qos=1, retain=False)


def level(status: Status) -> str | None:
    """The most severe cause that acts or is held; None when there is none."""
    found = [SEVERITIES.index(fault["severity"]) for fault in status["faults"]]
    return SEVERITIES[max(found)] if found else None


def urgent(status: Status) -> tuple[Any, ...]:
    """What is worth telling at once when it differs from what was told last."""
    faults = [(fault["id"], fault["held"], fault["active"]) for fault in status["faults"]]
    caps = [cap and cap["limit_w"] for cap in status["cap"].values()]
    return (status["state"], status["cause"], status["enabled"], status["closed"], status["withheld"], faults, caps)


def dumped(stamp: Stamp, body: Mapping[str, Any]) -> str:
    """The JSON of a message, with its moment."""
    about = {"schema": SCHEMA, "at": stamp.text, "clock_synchronised": stamp.synchronised}
    return json.dumps({**about, **body}, ensure_ascii=False, allow_nan=False)


def _state(status: Status) -> dict[str, Any]:
    """The status without its long parts, and what people would compute from it."""
    signals, inverter = status["signals"], status["inverter"]
    low_v, high_v = signals["cell_min_v"], signals["cell_max_v"]
    return {
        **{name: value for name, value in status.items() if name not in LEAN},
        "power_w": power_w(status),
        "cell_spread_mv": None if None in (low_v, high_v) else round((high_v - low_v) * 1000),
        "faults": [fault["id"] for fault in status["faults"]], "level": level(status),
        "inverter": {name: inverter[name] for name in ("name", "go", "heard_s")},
    }  # fmt: skip


def power_w(status: Status) -> int | None:
    """At the pack, W; positive is charging."""
    volts, amperes = status["signals"]["pack_voltage_v"], status["signals"]["current_a"]
    return None if None in (volts, amperes) else round(volts * amperes)


def _known(name: str) -> Any:
    return Event(name) if name in Event._value2member_map_ else None


# --- inwards ---


class Refused(Exception):
    """Why a command is not even handed to control."""


class Wish(NamedTuple):
    """What a command asks for. asks: messages to control, one after the other. lasts_s: how long later caps last."""

    asks: tuple[Mapping[str, Any], ...] = ()
    lasts_s: float | None = None


def commands(names: Names) -> list[str]:
    """The topics to subscribe to."""
    return [names.topic(f"command/{name}") for name in COMMANDS]


def wish(names: Names, topic: str, payload: bytes, lasts_s: float) -> Wish:
    """The wish behind a payload. Raises Refused."""
    name = topic.removeprefix(names.topic("command/"))
    return checked(COMMANDS[name](text_of(payload), lasts_s))


def checked(asked: Wish) -> Wish:
    """The wish, when control would understand it. Raises Refused with what control would say."""
    for ask in asked.asks:
        try:
            parse(line_of(ask))
        except MessageError as error:
            raise Refused(str(error)) from None
        except ValueError:  # JSON can hold numbers and characters that a line to control cannot
            raise Refused("a number or a character in it cannot be passed on") from None
    return asked


def text_of(payload: bytes) -> str:
    """Raises Refused."""
    if len(payload) > PAYLOAD_MAX:
        raise Refused(f"a command is at most {PAYLOAD_MAX} bytes long, this has {len(payload)}")
    try:
        return payload.decode().strip()
    except UnicodeDecodeError:
        raise Refused("this is no text") from None


def object_of(text: str) -> dict[str, Any]:
    """Raises Refused."""
    try:
        told = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Refused("this is no JSON") from None
    if not isinstance(told, dict):
        raise Refused("this is no JSON object")
    return told


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) != len(pairs):
        raise Refused("a key is there twice")
    return told


def _no_number(text: str) -> float:
    raise Refused(f"{text} is no number")


Understand = Callable[[str, float], Wish]


def _press(*asks: Mapping[str, Any]) -> Understand:
    def understand(text: str, _: float) -> Wish:
        if text != PRESS:
            raise Refused(f"only {PRESS} is understood here")
        return Wish(asks)

    return understand


def _acknowledge(text: str, _: float) -> Wish:
    names: Sequence[Any] = [text]
    if text.startswith("{"):
        told = object_of(text)
        names = told.get("names", ())
        if list(told) != ["names"] or not isinstance(names, list):
            raise Refused('write a name, or {"names": ["…"]}')
    if not names or not text:
        raise Refused("nothing is named that could be acknowledged")
    if len(names) > NAMES_MAX:
        raise Refused(f"at most {NAMES_MAX} names at once")
    return Wish(tuple({"do": "acknowledge", "name": name} for name in names))


def _limit(text: str, _: float) -> Wish:
    told = object_of(text)
    if "do" in told or "version" in told:
        raise Refused("a limit has charge_w, discharge_w and for_s")
    return Wish(({**told, "do": "cap"},))


def _one_limit(field: str) -> Understand:
    def understand(text: str, lasts_s: float) -> Wish:
        return Wish(({"do": "cap", field: _number(text, "W"), "for_s": lasts_s},))

    return understand


def _minutes(text: str, _: float) -> Wish:
    lasts_s = _number(text, "minutes") * 60
    if not 60 <= lasts_s <= CAP_MAX_S:
        raise Refused(f"must be from 1 to {CAP_MAX_S / 60:.0f} minutes")
    return Wish(lasts_s=lasts_s)


def _number(text: str, unit: str) -> float:
    if not NUMBER.fullmatch(text):
        raise Refused(f"this is no number of {unit}")
    return float(text)


COMMANDS: Final[Mapping[str, Understand]] = {
    "enable": _press({"do": "enable"}),
    "stop": _press({"do": "stop"}),
    "acknowledge": _acknowledge,
    "limit": _limit,
    "charge_limit": _one_limit("charge_w"),
    "discharge_limit": _one_limit("discharge_w"),
    "limit_minutes": _minutes,
    "unlimit": _press({"do": "cap", "charge_w": POWER_MAX_W, "discharge_w": POWER_MAX_W, "for_s": 1}),
}
"""The last part of the topic → what its payload means. A cap above all others that is over at once lifts what was."""
