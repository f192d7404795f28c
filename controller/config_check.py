"""What is wrong with the text of a controller.toml: all of it at once, each with its line, in plain words."""

from __future__ import annotations

import difflib
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, NamedTuple

import pydantic
import tomlkit
from tomlkit.exceptions import TOMLKitError

from controller.config_keys import EXAMPLES, LIMITS, SECTIONS, Catalogue, Key, keys
from controller.config_places import places_wrong
from controller.model.settings import CHEMISTRIES, Chemistry

SCHEMA: Final = 1
SYNTAX_ERRORS_MAX: Final = 20


class Problem(NamedTuple):
    """One thing wrong. line: None when it is about the file as a whole. fix: what would be right."""

    line: int | None
    key: str
    message: str
    fix: str


class ConfigError(Exception):
    """A config that cannot be used; str() is one line for each problem."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = sorted(problems, key=lambda p: (p.line or 0, p.key))
        super().__init__("\n".join(self._line(problem) for problem in self.problems))

    def _line(self, problem: Problem) -> str:
        where = self.name if problem.line is None else f"{self.name}:{problem.line}"
        return f"{where}: {problem.key + ': ' if problem.key else ''}{problem.message}; {problem.fix}"


_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*|[\[{]|[\]}]|\n''', re.DOTALL
)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each statement; strings and brackets may span lines."""
    line = number = 1
    start = depth = 0
    for token in _TOKEN.finditer(text + "\n"):
        what = token[0]
        if what in ("[", "{"):
            depth += 1
        elif what in ("]", "}"):
            depth -= 1
        elif what == "\n" and depth <= 0:
            yield number, text[start : token.start()]
            start, depth, number = token.end(), 0, line + 1
        line += what.count("\n")


def _places(text: str) -> Iterator[tuple[str, int]]:
    """Every section and key with its line, in the order of the text; says nothing about validity."""
    section: tuple[str, ...] = ()
    for line, statement in _statements(text):
        if head := re.match(r"\s*\[\[?([^\]]*)\]", statement):
            section = _path(head[1])
            yield ".".join(section), line
        elif path := _path(statement.partition("#")[0].partition("=")[0]):
            yield ".".join(section + path), line


def lines_of(text: str) -> dict[str, int]:
    """Where each section and key stands first: "limits" and "limits.max_charge_a" → line."""
    return dict(reversed(list(_places(text))))


def _repeated(text: str) -> int | None:
    """The line of the first section or key that stood before."""
    seen: set[str] = set()
    for path, line in _places(text):
        if path in seen:
            return line
        seen.add(path)
    return None


def _path(dotted: str) -> tuple[str, ...]:
    """The parts of a TOML key."""
    return tuple("".join(part) for part in re.findall(r'"([^"]*)"|\'([^\']*)\'|([A-Za-z0-9_-]+)', dotted))


def placed(lines: Mapping[str, int], key: str, message: str, fix: str) -> Problem:
    """The problem at the line of its key, else of the section it belongs to."""
    return Problem(lines.get(key, lines.get(key.partition(".")[0])), key, message, fix)


def toml(text: str) -> tuple[dict[str, Any] | None, list[Problem], set[str]]:
    """The document, its syntax errors, and the keys that stand on their lines; no document when it has to give up.

    A line that cannot be read is left out, so that errors behind it are found as well.
    """
    problems: list[Problem] = []
    spoilt: set[str] = set()
    rows, places = text.split("\n"), list(_places(text))
    while len(problems) < SYNTAX_ERRORS_MAX:
        try:
            return tomlkit.parse("\n".join(rows)).unwrap(), problems, spoilt
        except TOMLKitError as error:
            line = getattr(error, "line", None) or _repeated("\n".join(rows))
            message = re.sub(r" at line \d+ col \d+$", "", str(error))
        row = rows[line - 1] if line and line <= len(rows) else ""
        at = [path for path, number in places if number == line]
        problems.append(Problem(line, at[0] if at else "", f"not readable: {message}", _syntax_fix(row)))
        if not re.match(r"\s*[^\s\[\]#][^\[\]{}]*$", row) or '"""' in row or "'''" in row:
            break
        spoilt.update(at)
        rows[line - 1 if line else 0] = ""
    return None, problems, spoilt


def _syntax_fix(row: str) -> str:
    if row.lstrip().startswith("["):
        return "write a section as `[limits]`, each only once"
    return 'write `key = value`, each key only once; text needs "quotes", numbers and true or false none'


# --- checking ---

Wrong = tuple[str, str, str]
"""Key, message, fix."""


def keys_for(raw: Mapping[str, Any], catalogue: Catalogue) -> tuple[Key, ...]:
    """The keys allowed beside the battery and inverter that `raw` names."""
    chosen = [
        section.get("name") if isinstance(section := raw.get(of), dict) else None for of in ("battery", "inverter")
    ]
    return keys(catalogue, *(name if isinstance(name, str) else None for name in chosen))


def said(raw: Mapping[str, Any], key: Key) -> Any:
    """What the file says under this key, None when it says nothing; a whole number may stand for a float."""
    section = raw.get(key.section)
    value = section.get(key.name) if isinstance(section, dict) else None
    return float(value) if key.kind is float and type(value) is int else value


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


@lru_cache(maxsize=8)
def model(known: tuple[Key, ...]) -> type[pydantic.BaseModel]:
    """The table as a pydantic model: what is validated, and what editors get as JSON schema."""
    sections: dict[str, Any] = {}
    for name, text in SECTIONS.items():
        rows = {key.name: _field(key) for key in known if key.section == name}
        model = pydantic.create_model(name.title(), __base__=_Section, __doc__=text, **rows)
        required = any(key.section == name and key.yours for key in known)
        sections[name] = (model, ... if required else pydantic.Field(default_factory=model))
    version = pydantic.Field(alias="schema", ge=SCHEMA, le=SCHEMA, description="Version of this file.")
    return pydantic.create_model("Controller", __base__=_Section, version=(int, version), **sections)


def _field(key: Key) -> Any:
    """Type and bounds of one key, as pydantic takes them. A default of None is left out of the JSON schema."""
    kind: Any = key.kind
    if key.choices:
        kind = Literal[key.choices]
    elif kind is list:
        number = Annotated[float, pydantic.Field(allow_inf_nan=False)]
        kind = list[Annotated[list[number], pydantic.Field(min_length=2, max_length=2)]]
    rules: dict[str, Any] = {"description": f"{key.text}{f' [{key.unit}]' if key.unit else ''}"}
    if kind in (float, int):
        rules |= {"ge": key.low, "le": key.high, "allow_inf_nan": False if kind is float else None}
    if key.pattern:
        rules["pattern"] = f"^{key.pattern}$"
    if not key.yours and key.default is None:
        return kind, pydantic.Field(default_factory=lambda: None, **rules)
    return kind, pydantic.Field(... if key.yours else key.default, **rules)


def invalid(raw: Mapping[str, Any], known: tuple[Key, ...]) -> list[Wrong]:
    """What pydantic finds, at most one problem a key, in our words."""
    whole = {section: {} for section in SECTIONS} | dict(raw)
    try:
        model(known).model_validate(whole)
    except pydantic.ValidationError as error:
        found: dict[str, Wrong] = {}
        for flaw in error.errors(include_url=False):
            at = [str(part) for part in flaw["loc"][:2]]
            value = whole[at[0]][at[1]] if len(flaw["loc"]) > 2 else flaw["input"]
            found.setdefault(".".join(at), (".".join(at), *_worded(".".join(at), flaw["type"], value, known)))
        return list(found.values())
    return []


def _worded(path: str, flaw: str, value: Any, known: tuple[Key, ...]) -> tuple[str, str]:
    """Message and fix for one of pydantic's findings."""
    key = next((key for key in known if key.path == path), None)
    shown = textwrap.shorten(tomlkit.item(value).as_string() if not isinstance(value, dict) else "a section", 40)
    if key is not None and key.secret:
        shown = "what stands there"
    if path == "schema":
        return ("is missing" if flaw == "missing" else f"is {shown}"), f"write `schema = {SCHEMA}` above all sections"
    if path in SECTIONS:
        return f"is {shown}, not a section", f"write it as `[{path}]`"
    if key is None:
        return unknown(path, known)
    if flaw == "missing":
        what = "the controller does not start without it" if key.section == "limits" else "it has to be stated"
        one = f"{key.name} = {' or '.join(literal(name) for name in key.choices) or example(key)}"
        return f"is missing; {what}", f"add {one} under [{key.section}]: {key.text}"
    if key.yours and literal(value) == example(key):
        return f"still to be stated: {key.text.rstrip('.')}", f"write it behind `{key.name} =`"
    if flaw in ("greater_than_equal", "less_than_equal"):
        return f"{shown} is outside the hard bound {key.bound}", _STAY if key.section in _JUDGED else "stay inside it"
    if flaw == "literal_error":
        close = difflib.get_close_matches(str(value), key.choices, 1)
        return f"{shown} is none of {', '.join(key.choices)}", f"did you mean {close[0]}?" if close else "choose one"
    if flaw == "string_pattern_mismatch":
        return f"{shown} does not fit", key.text
    return f"{shown} is not {KINDS[key.kind]}", f"write for example `{key.name} = {example(key)}`"


_STAY = "stay inside it; limits may be moved to the safe side only"
_JUDGED = ("limits", "precharge", "contactors")
KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", list: "a list of points"}


def example(key: Key) -> str:
    """A value of this key as one writes it."""
    spare = key.choices[0] if key.choices else EXAMPLES.get(key.name, "…")
    return literal(spare if key.default is None else key.default)


def literal(value: Any) -> str:
    """The value in TOML."""
    return str(tomlkit.item(value).as_string())


def unknown(path: str, known: tuple[Key, ...]) -> tuple[str, str]:
    """Message and fix for a key that does not exist: the same name elsewhere, or one spelt alike in its section."""
    section, _, name = path.rpartition(".")
    if not section:
        close = difflib.get_close_matches(path, SECTIONS, 1)
    else:
        beside = [key.name for key in known if key.section == section]
        close = [key.path for key in known if key.name == name]
        close = close or [f"{section}.{alike}" for alike in difflib.get_close_matches(name, beside, 1)]
    fix = f"did you mean {close[0]}?" if close else "remove it; `controller config schema` lists all there are"
    return f"there is no such {'key' if section else 'section or key'}", fix


def contradictions(values: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Wrong]:
    """What no single key can be blamed for. Keys with a problem of their own are missing from `values`."""
    judges = (_wiring_wrong, _precharge_wrong, _cells_wrong, _windows_wrong, _curves_wrong, _model_wrong, places_wrong)
    for judge in judges:
        yield from judge(values, catalogue)


def _wiring_wrong(values: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Wrong]:
    name, wiring, chemistry = (values.get(path) for path in ("battery.name", "wiring.kind", "battery.chemistry"))
    if battery := catalogue.batteries.get(name or ""):
        if wiring and wiring not in battery.wirings:
            fix = f"it takes {_either(battery.wirings)}"
            yield "wiring.kind", f"{battery.title} cannot be wired as `{wiring}`", fix
        if chemistry and battery.chemistries and chemistry not in battery.chemistries:
            fix = f"it has {_either(battery.chemistries)}"
            yield "battery.chemistry", f"{battery.title} has no cells of `{chemistry}`", fix
    inverter = catalogue.inverters.get(values.get("inverter.name") or "")
    if inverter and wiring == "pack+inverter" and not inverter.precharges:
        message = f"{inverter.title} does not precharge itself behind a relay"
        yield "wiring.kind", message, "take `pack`, or an inverter that does"
    if inverter and wiring == "none" and (profile := values.get("inverter.profile")) in inverter.ignores_zero:
        message = f"an inverter of the profile `{profile}` ignores a limit of 0, and nothing could disconnect it"
        yield "wiring.kind", message, "switch the battery by a relay, or take an inverter that follows its limits"


def _precharge_wrong(values: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Wrong]:
    ohm, farad, reason, limit_ms = (
        values.get(f"precharge.{name}", ...)
        for name in ("resistance_ohm", "capacitance_f", "unverified_reason", "limit_ms")
    )
    if values.get("wiring.kind") == "own" and ohm is None:
        yield "precharge.resistance_ohm", "is missing; the wiring `own` precharges by it", "state the resistor in Ω"
    if values.get("wiring.kind") == "own" and reason == "" and values.get("link.source") == "none":
        message = "nothing measures the link fast enough to verify a precharge, so nothing would ever be closed"
        yield "link.source", message, "set it, or state precharge.unverified_reason with resistor and capacitors"
    if reason not in ("", ...) and None in (ohm, farad):
        fix = "state precharge.resistance_ohm and precharge.capacitance_f"
        yield "precharge.unverified_reason", "an unverified precharge needs resistor and capacitors declared", fix
    if inverter := catalogue.inverters.get(values.get("inverter.name") or ""):
        bound_ms = inverter.precharge_max_ms
        if isinstance(limit_ms, int) and limit_ms > bound_ms:
            message = f"{limit_ms} is outside the hard bound {bound_ms} ms of {inverter.title}"
            yield "precharge.limit_ms", message, _STAY
        if isinstance(ohm, float) and isinstance(farad, float) and 5000 * ohm * farad > bound_ms:
            message = f"5·R·C is {5000 * ohm * farad:.0f} ms, beyond the hard bound {bound_ms} ms of a precharge"
            yield "precharge.capacitance_f", message, "take a smaller resistor, or correct the values"


_CELL_ORDER = (
    "critical_low_v",
    "discharge_stop_v",
    "discharge_taper_v",
    "charge_taper_v",
    "charge_stop_v",
    "critical_high_v",
)


def cell_bound(name: str, chemistry: Chemistry) -> tuple[float, float, str]:
    """The lowest and highest value a voltage of the chemistry may be moved to, and both in words."""
    volts: float = getattr(chemistry, name)
    if name.startswith("discharge") or name == "critical_low_v":
        return volts, math.inf, f"{volts:g} V and above for {chemistry.name}"
    return 0.0, volts, f"{volts:g} V and below for {chemistry.name}"


def _cells_wrong(values: Mapping[str, Any], _: Catalogue) -> Iterator[Wrong]:
    """Each voltage on the safe side of the chemistry's, and all in their order."""
    if (chemistry := CHEMISTRIES.get(values.get("battery.chemistry") or "")) is None:
        return
    wrong = False
    for name in (*_CELL_ORDER, "spread_warn_v"):
        volts = values.get(f"limits.{name}")
        low, high, bound = cell_bound(name, chemistry)
        if volts is not None and not low <= volts <= high:
            wrong = True
            yield f"limits.{name}", f"{volts:g} is outside the hard bound {bound}", _STAY
    if not wrong and all(f"limits.{name}" in values for name in _CELL_ORDER):
        volts = [values[f"limits.{name}"] or getattr(chemistry, name) for name in _CELL_ORDER]
        for (low, high), (below, above) in zip(pairwise(volts), pairwise(_CELL_ORDER), strict=True):
            if low >= high:
                yield (
                    f"limits.{above}",
                    f"{high:g} is not above limits.{below} ({low:g})",
                    "keep the order of the limits",
                )


def _windows_wrong(values: Mapping[str, Any], _: Catalogue) -> Iterator[Wrong]:
    for low, high in (("soc_min_pct", "soc_max_pct"), ("lv_min_closed_v", "lv_min_open_v")):
        bottom, top = values.get(f"limits.{low}"), values.get(f"limits.{high}")
        if bottom is not None and top is not None and bottom >= top:
            yield f"limits.{high}", f"{top:g} is not above limits.{low} ({bottom:g})", "leave room between the two"
    confirm_ms = values.get("contactors.confirm_ms")
    for other in ("settle_feedback_ms", "settle_blind_ms", "overlap_ms"):
        other_ms = values.get(f"contactors.{other}")
        if isinstance(confirm_ms, int) and isinstance(other_ms, int) and confirm_ms <= other_ms:
            message = f"{confirm_ms} is not above contactors.{other} ({other_ms}): it would give up before it goes on"
            yield "contactors.confirm_ms", message, "leave room between the two"


def pack_v(values: Mapping[str, Any]) -> tuple[float, float] | None:
    """The pack's voltage at the stop voltages of all its cells; None while that cannot be told."""
    chemistry, cells = CHEMISTRIES.get(values.get("battery.chemistry") or ""), values.get("battery.cells")
    if chemistry is None or cells is None:
        return None
    low_v = values.get("limits.discharge_stop_v") or chemistry.discharge_stop_v
    high_v = values.get("limits.charge_stop_v") or chemistry.charge_stop_v
    return cells * low_v, cells * high_v


def beyond_v(model: tuple[float, float], pack: tuple[float, float]) -> float:
    """How much of the pack's window lies outside that of a model."""
    return max(0.0, model[0] - pack[0]) + max(0.0, pack[1] - model[1])


def nearest(windows_v: Mapping[str, tuple[float, float]], pack: tuple[float, float]) -> str:
    return min(windows_v, key=lambda name: beyond_v(windows_v[name], pack))


def _model_wrong(values: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Wrong]:
    """The model that holds the pack's window or comes nearest: their steps are coarse, and few packs fit one."""
    inverter = catalogue.inverters.get(values.get("inverter.name") or "")
    model, pack = values.get("inverter.model") or "", pack_v(values)
    if inverter is None or pack is None or model not in inverter.windows_v:
        return
    best, (low_v, high_v) = nearest(inverter.windows_v, pack), inverter.windows_v[model]
    if beyond_v((low_v, high_v), pack) > beyond_v(inverter.windows_v[best], pack):
        message = f"its {low_v:.0f} to {high_v:.0f} V do not hold the pack's {pack[0]:.0f} to {pack[1]:.0f} V"
        yield "inverter.model", message, f"take {best}"


def _curves_wrong(values: Mapping[str, Any], _: Catalogue) -> Iterator[Wrong]:
    """Rising temperatures, fractions from 0 to 1, nowhere above the default."""
    for key in LIMITS:
        curve = values.get(key.path)
        if key.kind is not list or curve is None:
            continue
        if not curve or any(a[0] >= b[0] for a, b in pairwise(curve)) or any(not 0 <= point[1] <= 1 for point in curve):
            yield key.path, "is no curve", "write points [°C, fraction], temperatures rising, fractions from 0 to 1"
            continue
        for at_c in sorted(point[0] for point in [*curve, *key.default]):
            if _fraction(curve, at_c) > _fraction(key.default, at_c) + 1e-9:
                message = f"allows {_fraction(curve, at_c):.0%} at {at_c:g} °C, beyond the hard bound"
                bound = f"{_fraction(key.default, at_c):.0%}"
                yield key.path, f"{message} {bound}", _STAY
                break


def _fraction(curve: Sequence[Sequence[float]], at: float) -> float:
    """The curve at `at`: linear between its points, level outside."""
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return curve[0][1] if at < curve[0][0] else curve[-1][1]


def _either(names: Sequence[str]) -> str:
    return " or ".join(f"`{name}`" for name in names)
