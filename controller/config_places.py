"""What is wrong with the buses, ports, relays, pins and broker of a config: missing, shared, or out of place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from controller.config_keys import COILS, BatteryKind, Catalogue, InverterKind

RELAYS_OF: Final[Mapping[str, tuple[str, ...]]] = {"own": COILS, "pack+inverter": ("positive",)}
"""Which relays of ours a wiring has."""

KEPT: Final[Mapping[str, str]] = {
    "gpio": "the kernel of a Raspberry Pi goes on driving the pins of a program that was killed",
    "modbus": "a Modbus board keeps its coils closed when this program dies",
}
"""What becomes of our relays when nobody switches them off any more."""

HAT_EEPROM: Final = (0, 1)
PULLED_UP: Final = 8
"""GPIO 0 to 8 are pulled up from power-up until somebody claims them, the others down (BCM2835, BCM2711, RP1)."""

Wrong = tuple[str, str, str]
"""Key, message, fix."""

Values = Mapping[str, Any]


def idle(battery: BatteryKind | None, inverter: InverterKind | None, wiring: str) -> frozenset[str]:
    """The sections, and the keys of the others, that say nothing in this setup."""
    used = {
        "can": battery is None or battery.line is None,
        "battery_serial": battery is None or battery.line is not None,
        "serial": inverter is None or inverter.line is not None,
        "inverter_can": inverter is None or inverter.bitrate is not None,
        "relays": wiring in RELAYS_OF,
        "link": wiring == "own",
    }
    absent = [coil for coil in COILS if coil not in RELAYS_OF.get(wiring, ())]
    sections = {section for section, needed in used.items() if not needed}
    return frozenset(sections | {f"relays.{name}" for coil in absent for name in (coil, f"{coil}_feedback")})


def places_wrong(values: Values, catalogue: Catalogue) -> Iterator[Wrong]:
    """All of it. Keys with a problem of their own are missing from `values`."""
    battery = catalogue.batteries.get(values.get("battery.name") or "")
    if battery and values.get("wiring.kind") in battery.wirings:
        yield from _relays_wrong(values)
    yield from _modbus_wrong(values)
    yield from _pins_wrong(values)
    yield from _shared_wrong(values, catalogue)
    yield from _mqtt_wrong(values)


def _mqtt_wrong(values: Values) -> Iterator[Wrong]:
    names = ("host", "user", "password", "password_file", "tls", "ca_file")
    host, user, password, file, tls, ca_file = (values.get(f"mqtt.{name}") for name in names)
    if not host:
        return
    if password and file:
        yield "mqtt.password", "is stated beside a password_file", "keep one of them"
    if (password or file) and user == "":
        yield "mqtt.user", "is missing; a password without a user says nothing", "state the user name at the broker"
    if ca_file and tls is False:
        yield "mqtt.ca_file", "is stated, but mqtt.tls is off", "set mqtt.tls = true"


def _relays_wrong(values: Values) -> Iterator[Wrong]:
    wiring, kind = values["wiring.kind"], values.get("relays.kind")
    if kind is None:
        return
    members = RELAYS_OF.get(wiring, ())
    if bool(members) is not (kind != "none"):
        message = f"is `{kind}`, but the wiring `{wiring}` has {'relays' if members else 'no relay'} of ours"
        yield "relays.kind", message, "choose gpio or modbus" if members else 'set relays.kind = "none"'
        return
    for coil in members:
        if values.get(f"relays.{coil}", ...) is None:
            message = f"is missing; the wiring `{wiring}` switches it"
            yield f"relays.{coil}", message, "state its GPIO number, or the board's relay number"
    for coil in COILS if members else ():
        for name in (coil, f"{coil}_feedback"):
            if coil not in members and values.get(f"relays.{name}") is not None:
                yield f"relays.{name}", f"the wiring `{wiring}` has no such relay", "remove it"
    if kind in KEPT and values.get("pins.heartbeat", ...) is None:
        fix = "wire a relay watchdog into the coil supply and state its pin"
        yield "pins.heartbeat", f"is missing; {KEPT[kind]}", fix
    told = any(values.get(f"relays.{coil}_feedback", ...) is not None for coil in members)
    if wiring == "own" and not told and values.get("link.source") == "none":
        message = "nothing would tell a welded contactor: no auxiliary contact and no meter on the link"
        yield "relays.negative_feedback", message, "wire the auxiliary contacts, or set link.source"


def _modbus_wrong(values: Values) -> Iterator[Wrong]:
    if values.get("relays.kind") == "modbus":
        yield from _stated(values, "relays", "port")
    if values.get("link.source") == "modbus":
        yield from _stated(values, "link", "port", "voltage_register", "volts_per_count", "update_ms")


def _stated(values: Values, section: str, *names: str) -> Iterator[Wrong]:
    for name in names:
        if values.get(f"{section}.{name}", ...) in (None, ""):
            yield f"{section}.{name}", "is missing; `modbus` needs it", "state it as its manual says"


def _pins_wrong(values: Values) -> Iterator[Wrong]:
    """Each pin exists, serves one purpose, and an output rests where nothing is energised."""
    on_pins = values.get("relays.kind") == "gpio"
    outputs = [f"relays.{coil}" for coil in COILS] if on_pins else []
    inputs = [f"relays.{coil}_feedback" for coil in COILS] if on_pins else []
    taken: dict[int, str] = {}
    for path in (*outputs, *inputs, "pins.estop", "pins.interlock", "pins.heartbeat"):
        pin = values.get(path)
        if pin is None:
            continue
        if pin in HAT_EEPROM or pin > 27:
            yield path, f"there is no GPIO {pin} to use", "take one from 2 to 27"
        elif pin in taken:
            yield path, f"GPIO {pin} is {taken[pin]} already", "give each its own pin"
        elif path in outputs and pin <= PULLED_UP and values.get("relays.active_low") is False:
            message = f"GPIO {pin} is pulled up while the Pi boots, which would energise the relay"
            yield path, message, "take one from 9 to 27"
        taken.setdefault(pin, path)


def _shared_wrong(values: Values, catalogue: Catalogue) -> Iterator[Wrong]:
    """One user for each bus and port."""
    taken: dict[str, str] = {}
    for path in _places(values, catalogue):
        place = values.get(path)
        if not isinstance(place, str) or not place:
            continue
        if place in taken:
            yield path, f"{place} is {taken[place]} already", "give each its own adapter"
        taken.setdefault(place, path)


def _places(values: Values, catalogue: Catalogue) -> Iterator[str]:
    """The keys that name a bus or port of this setup."""
    if battery := catalogue.batteries.get(values.get("battery.name") or ""):
        yield "can.channel" if battery.line is None else "battery_serial.port"
    if inverter := catalogue.inverters.get(values.get("inverter.name") or ""):
        if inverter.line is not None:
            yield "serial.port"
        if inverter.bitrate is not None:
            yield "inverter_can.channel"
    for section, key in (("relays", "kind"), ("link", "source")):
        if values.get(f"{section}.{key}") == "modbus":
            yield f"{section}.port"
