"""controller.toml: read and checked, shown, written. Says everything that is wrong at once, with its line.

A limit that a person must state has no default; the others may be moved to the safe side only. Writing keeps the user's
comments. `config_keys` is the table of keys, `config_check` says what is wrong with a text.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import tomlkit
from tomlkit.exceptions import TOMLKitError

from controller.config_check import (
    KINDS,
    SCHEMA,
    ConfigError,
    Problem,
    cell_bound,
    contradictions,
    example,
    invalid,
    keys_for,
    lines_of,
    literal,
    model,
    nearest,
    pack_v,
    placed,
    said,
    toml,
    unknown,
)
from controller.config_file import alone, text_of, written_beside
from controller.config_keys import EXAMPLES, SECTIONS, WIRINGS, Catalogue, Key, Kind, keys
from controller.config_places import RELAYS_OF, idle
from controller.model.settings import (
    CHEMISTRIES,
    Chemistry,
    ContactorSettings,
    Curve,
    PackSettings,
    PrechargeSettings,
    Settings,
)

__all__ = [
    "Catalogue",
    "Config",
    "ConfigError",
    "Key",
    "Problem",
    "Shown",
    "check",
    "defaults_for",
    "init_file",
    "load",
    "parse",
    "read",
    "schema",
    "search",
    "set_value",
    "show",
    "template",
]

SCHEMA_FILE: Final = "controller.schema.json"
SYSTEM_PATH: Final = Path("/etc/packwarden/controller.toml")
UNGUESSED_LINK: Final = "link.source"
HIDDEN: Final = "(not shown)"
"""What stands for a secret wherever values are printed."""


# --- reading ---


@dataclass(frozen=True)
class Config:
    """A config that was read and found right. values: every key, "limits.tries" → value, defaults included.

    stated: the keys the file states itself. A value of None is a number nobody stated and nobody needs.
    """

    name: str
    keys: tuple[Key, ...]
    values: Mapping[str, Any]
    stated: frozenset[str]
    settings: Settings


def load(path: str | Path, catalogue: Catalogue) -> Settings:
    """What the core is to judge by. Raises ConfigError."""
    return read(path, catalogue).settings


def read(path: str | Path, catalogue: Catalogue) -> Config:
    """The file, checked. Raises ConfigError."""
    return parse(text_of(Path(path)), str(path), catalogue)


def check(text: str, name: str, catalogue: Catalogue) -> list[Problem]:
    """Everything that is wrong with this text, in the order of its lines."""
    try:
        parse(text, name, catalogue)
    except ConfigError as error:
        return error.problems
    return []


def parse(text: str, name: str, catalogue: Catalogue) -> Config:
    """The text of a config, checked. `name` is what errors call it. Raises ConfigError."""
    lines = lines_of(text)
    raw, problems, spoilt = toml(text)
    if raw is None:
        raise ConfigError(name, problems)
    if (newer := raw.get("schema")) and type(newer) is int and newer > SCHEMA:
        message = f"this file has version {newer}, this program reads {SCHEMA}"
        raise ConfigError(name, [Problem(lines.get("schema"), "schema", message, "update the program")])
    known = keys_for(raw, catalogue)
    problems += [placed(lines, *wrong) for wrong in invalid(raw, known) if wrong[0] not in spoilt]
    bad = spoilt | {problem.key for problem in problems}
    good = [key for key in known if key.path not in bad]
    stated = {key.path: said(raw, key) for key in good if said(raw, key) is not None}
    values = {key.path: stated.get(key.path, key.default) for key in good}
    problems += [placed(lines, *wrong) for wrong in contradictions(values, catalogue)]
    if problems:
        raise ConfigError(name, problems)
    return Config(name, known, values, frozenset(stated), _settings(values, known, catalogue))


# --- what the core gets ---


def _settings(values: Mapping[str, Any], known: tuple[Key, ...], catalogue: Catalogue) -> Settings:
    """The records the core judges by, from values that were checked."""

    def of(section: str, owner: type) -> dict[str, Any]:
        names = {field.name for field in fields(owner)}
        ours = [key for key in known if key.section == section and key.name in names]
        return {key.name: _curve(values[key.path]) if key.kind is list else values[key.path] for key in ours}

    def options(section: str, kind: Kind) -> dict[str, Any]:
        named = {option.name: values[f"{section}.{option.name}"] for option in kind.options}
        return {name: value for name, value in named.items() if value is not None}

    battery = catalogue.batteries[values["battery.name"]]
    inverter = catalogue.inverters[values["inverter.name"]]
    cells = {name: volts for name, volts in of("limits", Chemistry).items() if volts is not None}
    pack = of("battery", PackSettings) | of("limits", PackSettings)
    pack["chemistry"] = replace(CHEMISTRIES[values["battery.chemistry"]], **cells)
    return Settings(
        battery=values["battery.name"],
        inverter=values["inverter.name"],
        wiring=values["wiring.kind"],
        pack=PackSettings(**pack),
        max_power_w=values["limits.max_power_w"],
        precharge=PrechargeSettings(**of("precharge", PrechargeSettings)),
        contactors=ContactorSettings(**of("contactors", ContactorSettings)),
        battery_options=options("battery", battery),
        inverter_options=options("inverter", inverter),
        off_grid=values["inverter.off_grid"],
        lacks=battery.lacks,
    )


def _curve(points: Sequence[Sequence[float]]) -> Curve:
    return tuple((float(at), float(fraction)) for at, fraction in points)


def defaults_for(
    battery: str, chemistry: str, cells: int, wiring: str, inverter: str, catalogue: Catalogue
) -> Settings:
    """What is used without a config, of names that exist: the chemistry's limits and the currents `init` writes."""
    known = keys(catalogue, battery, inverter)
    chosen = _chosen(battery, chemistry, cells, inverter, wiring, catalogue)
    return _settings({key.path: key.default for key in known} | chosen, known, catalogue)


def _chosen(
    battery: str, chemistry: str, cells: int, inverter: str, wiring: str, catalogue: Catalogue
) -> dict[str, Any]:
    """The keys that say which setup it is. Resistor and pins are made up; only their owner can know them."""
    resistor = {"precharge.resistance_ohm": 100.0, UNGUESSED_LINK: "none"} if wiring == "own" else {}
    coils = RELAYS_OF.get(wiring, ())
    names = [*coils, *(f"{coil}_feedback" for coil in coils if wiring == "own")]
    relays: dict[str, Any] = {"relays.kind": "gpio", "pins.heartbeat": EXAMPLES["heartbeat"]} if coils else {}
    windows_v = catalogue.inverters[inverter].windows_v if inverter in catalogue.inverters else {}
    pack = pack_v({"battery.chemistry": chemistry, "battery.cells": cells})
    model = {"inverter.model": nearest(windows_v, pack)} if windows_v and pack else {}
    return {
        "battery.name": battery,
        "battery.chemistry": chemistry,
        "battery.cells": cells,
        "inverter.name": inverter,
        **model,
        "wiring.kind": wiring,
        **resistor,
        **relays,
        **{f"relays.{name}": EXAMPLES[name] for name in names},
    }


class Shown(NamedTuple):
    """One effective value and where it comes from: "file" or "default"."""

    value: Any
    origin: str
    unit: str
    bound: str
    text: str

    @property
    def written(self) -> str:
        """The value as one would type it; – where none is stated."""
        if self.value is None:
            return "–"
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)


def show(config: Config) -> dict[str, Shown]:
    """Every key with its effective value; a voltage nobody stated is that of the chemistry."""
    chemistry = CHEMISTRIES[config.settings.pack.chemistry.name]
    shown = {}
    for key in config.keys:
        value, bound = config.values[key.path], key.bound
        if key.section == "limits" and hasattr(chemistry, key.name):
            value = getattr(chemistry, key.name) if value is None else value
            bound = cell_bound(key.name, chemistry)[2]
        value = HIDDEN if key.secret and value else value
        origin = "file" if key.path in config.stated else "default"
        shown[key.path] = Shown(value, origin, key.unit, bound, key.text)
    return shown


def search(option: str | Path | None, environ: Mapping[str, str], here: Path) -> Path | None:
    """The file to use: --config, $CONTROLLER_CONFIG, ./controller.toml, /etc. One named expressly need not exist."""
    if named := option or environ.get("CONTROLLER_CONFIG"):
        return Path(named)
    return next((path for path in (here / "controller.toml", SYSTEM_PATH) if os.path.exists(path)), None)


def schema(catalogue: Catalogue) -> dict[str, Any]:
    """JSON schema of the file, for editors."""
    table = model(keys(catalogue)).model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **table, "title": "packwarden controller.toml"}


# --- writing ---

_HEAD = """\
#:schema {schema_file}
# packwarden: {battery}
# with {inverter},
# wired as `{wiring}`: {wiring_text}.
#
# YOURS TO SET marks what only you can know; until you have checked it, it is a cautious guess.
# A key with a # before it has its default. Take the # away, or use `controller config set KEY VALUE`, to change it.
# Limits may be moved to the safe side only; `controller config check` says what is wrong.
schema = {schema}
"""


def template(
    catalogue: Catalogue, battery: str, inverter: str, wiring: str, chemistry: str | None = None, cells: int = 96
) -> str:
    """A commented config: each key with its meaning, unit, default and hard bound.

    It passes `check`, but for what nobody can guess and is left for the user to state. Without a chemistry it is the
    battery's first. Raises ConfigError for a combination that cannot be.
    """
    kinds, inverters = catalogue.batteries, catalogue.inverters
    guessed = chemistry is None and battery in kinds and len(kinds[battery].chemistries) > 1
    if chemistry is None:
        chemistry = next(iter(kinds[battery].chemistries), "nca") if battery in kinds else "nca"
    chosen = _chosen(battery, chemistry, cells, inverter, wiring, catalogue)
    known = keys(catalogue, battery, inverter)
    text = _HEAD.format(
        schema_file=SCHEMA_FILE,
        schema=SCHEMA,
        battery=kinds[battery].title if battery in kinds else battery,
        inverter=inverters[inverter].title if inverter in inverters else inverter,
        wiring=wiring,
        wiring_text=WIRINGS.get(wiring, "unknown"),
    )
    if battery in kinds:
        offered = {"battery.chemistry": kinds[battery].chemistries, "wiring.kind": kinds[battery].wirings}
        known = tuple(replace(key, choices=offered.get(key.path) or key.choices) for key in known)
    silent = idle(kinds.get(battery), inverters.get(inverter), wiring)
    for section, about in SECTIONS.items():
        if section in silent:
            continue
        text += f"\n\n[{section}]  # {about}\n"
        text += "".join(
            _entry(key, chosen.get(key.path), CHEMISTRIES.get(chemistry), guessed and key.path == "battery.chemistry")
            for key in known
            if key.section == section and key.path not in silent
        )
    unguessed = {key.path for key in known if key.yours} - chosen.keys() | {UNGUESSED_LINK}
    if wrong := [problem for problem in check(text, "", catalogue) if problem.key not in unguessed]:
        raise ConfigError("the new config", wrong)
    return text


def _entry(key: Key, chosen: Any, chemistry: Chemistry | None, guessed: bool) -> str:
    """One key of the template with its comment; one nobody has to state is commented out."""
    of_cell = chemistry is not None and key.section == "limits" and hasattr(chemistry, key.name)
    default = getattr(chemistry, key.name) if of_cell else key.default
    bound = cell_bound(key.name, chemistry)[2] if of_cell and chemistry else key.bound
    facts = [
        f"unit {key.unit}" if key.unit else "",
        f"default {literal(default)}" if default is not None and not key.yours else "",
        f"hard bound {bound}" if bound else "",
        f"one of {', '.join(key.choices)}" if key.choices else "",
    ]
    about = f"{key.text} ({'; '.join(fact for fact in facts if fact)})".replace(" ()", "")
    mine = key.yours or chosen is not None
    about = f"YOURS TO SET. {about}" if guessed or (mine and not key.choices) else about
    comment = textwrap.indent(textwrap.fill(about, 110, break_long_words=False), "# ")
    value = chosen if chosen is not None else default
    line = f"{key.name} = {example(key) if value is None else literal(value)}"
    return f"\n{comment}\n{'' if mine else '#'}{line}\n"


def init_file(path: str | Path, text: str) -> None:
    """Write a new config as a whole, or not at all. Never overwrites: ConfigError when the file exists."""
    target = Path(path)
    fix = "give another path, or move the old file away"
    try:
        fresh = written_beside(target, text)
        try:
            os.link(fresh, target)
        finally:
            fresh.unlink()
    except FileExistsError:
        raise ConfigError(str(path), [Problem(None, "", "there is a file already, and it is kept", fix)]) from None
    except OSError as error:
        message = f"it cannot be written ({error.strerror})"
        raise ConfigError(str(path), [Problem(None, "", message, "check folder and permissions")]) from None


class Change(NamedTuple):
    """What was written. left: the problems that were there before and still are."""

    key: Key
    left: list[Problem]


def set_value(path: str | Path, key: str, value: str, catalogue: Catalogue) -> Change:
    """Change one key of the file, keeping its comments. The result is checked as a whole before it replaces the file.

    Raises ConfigError and leaves the file as it was when the value or the key is wrong, or the result has a problem
    that was not there before.
    """
    target = Path(os.path.realpath(path))
    with alone(target):
        return _set_alone(target, path, key, value, catalogue)


def _set_alone(target: Path, path: str | Path, key: str, value: str, catalogue: Catalogue) -> Change:
    text = text_of(target)
    lines = lines_of(text)
    raw, problems, _ = toml(text)
    if raw is None or problems:
        raise ConfigError(str(path), problems)
    known = keys_for(raw, catalogue)
    row = next((row for row in known if row.path == key), None)
    if row is None:
        raise ConfigError(str(path), [Problem(None, key, *unknown(key, known))])
    changed = _changed(text, lines, row, _typed(row, value, str(path)))
    before = {(problem.key, problem.message) for problem in check(text, str(path), catalogue)}
    left = check(changed, str(path), catalogue)
    if new := [problem for problem in left if problem.key == key or (problem.key, problem.message) not in before]:
        raise ConfigError(str(path), new)
    try:
        fresh = written_beside(target, changed)
        fresh.replace(target)
    except OSError as error:
        message = f"it cannot be written ({error.strerror})"
        raise ConfigError(str(path), [Problem(None, "", message, "check folder and permissions")]) from None
    return Change(row, left)


def _typed(key: Key, text: str, name: str) -> Any:
    """The value that `text` stands for; a ConfigError when it is none of this type."""
    try:
        if key.kind is bool:
            return {"true": True, "false": False}[text.strip().lower()]
        if key.kind is list:
            return tomlkit.value(text).unwrap()
        text.encode()  # what the shell passes on need not be UTF-8
        return key.kind(text)
    except (KeyError, ValueError, TOMLKitError):
        shown = "what was given" if key.secret else repr(textwrap.shorten(text, 40))
        message = f"{shown} is not {KINDS[key.kind]}"
        raise ConfigError(name, [Problem(None, key.path, message, f"give for example {example(key)}")]) from None


def _changed(text: str, lines: Mapping[str, int], key: Key, value: Any) -> str:
    """The text with one value changed, everything else byte by byte as it was.

    A key that is not there takes the place of its commented-out line, else of the line behind its section's header.
    """
    document = tomlkit.parse(text)
    rows = text.split("\n")
    header = lines.get(key.section, 0)
    has_header = header > 0 and rows[header - 1].lstrip().startswith("[")
    if key.path in lines or (key.section in document and not has_header):
        document[key.section][key.name] = value
        return document.as_string()
    end = "\r" if rows[0].endswith("\r") else ""
    entry = f"{key.name} = {literal(value)}{end}"
    if not has_header:
        last = [rows[-1] + end] if rows[-1] else []
        return "\n".join([*rows[:-1], *last, end, f"[{key.section}]{end}", entry, ""])
    behind = [line for path, line in lines.items() if line > header and "." not in path]
    section = range(header, min(behind, default=len(rows) + 1) - 1)
    sketch = re.compile(rf"#\s*{re.escape(key.name)}\s*=")
    at = next((at for at in section if sketch.match(rows[at])), None)
    if at is None:
        rows.insert(header, entry)
    else:
        rows[at] = entry
    return "\n".join(rows)
