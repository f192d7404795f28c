"""The status as HTML, piece by piece: no value without its age, unknown as –, everything escaped. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final, NamedTuple

from controller.gateway.hub import Status
from controller.model.battery import RESOLUTION
from controller.model.events import Event
from controller.model.texts import TEXTS
from statecharts.supervisor import State

UNKNOWN: Final = "–"
OLD_S: Final = 5.0
"""Control publishes every second, in overload every two."""


class Seen(NamedTuple):
    """What there is to show. status: the last one heard, None when there never was one. lost: empty while control is
    heard. age_s: of the status."""

    status: Status | None
    age_s: float
    lost: str

    @property
    def old(self) -> bool:
        return bool(self.lost) or self.age_s > OLD_S


class Item(NamedTuple):
    """One signal on the page. feed: whose age it has, the status' own when that has none."""

    signal: str
    label: str
    unit: str


PACK: Final = (
    Item("pack_voltage_v", "Voltage", "V"), Item("current_a", "Current", "A"), Item("soh_pct", "State of health", "%"),
    Item("energy_remaining_wh", "Energy left", "kWh"),
    Item("cell_min_v", "Lowest cell", "V"), Item("cell_max_v", "Highest cell", "V"),
    Item("temp_min_c", "Coldest", "°C"), Item("temp_max_c", "Hottest", "°C"),
    Item("contactor_state", "Pack's contactors", ""), Item("hvil_ok", "Interlock loop", ""),
    Item("link_voltage_v", "Inverter's side", "V"), Item("lv_supply_v", "12 V supply", "V"),
    Item("isolation_kohm", "Isolation", "kΩ"), Item("max_charge_w", "BMS allows charging", "W"),
    Item("max_discharge_w", "BMS allows discharging", "W"), Item("energy_full_wh", "Energy when full", "kWh"),
)  # fmt: skip

BOUNDED_BY: Final[Mapping[str, str]] = {
    "max_power_w": "the configured power, limits.max_power_w",
    "inverter profile": "what the inverter's protocol can say",
    "configured current": "the configured current, limits.max_charge_a or max_discharge_a",
    "BMS": "what the pack's BMS allows",
    "BMS current": "the current the pack's BMS allows",
    "SoC window": "the configured SoC window: it is at its edge",
    "operator cap": "the cap a person has set",
    "highest cell": "the highest cell, near its charge stop",
    "lowest cell": "the lowest cell, near its discharge stop",
    "mean cell": "the mean cell voltage, near its stop",
    "coldest cell": "the cold: the coldest sensor",
    "hottest cell": "the heat: the hottest sensor",
    "unknown cells or temperatures": "unknown cell voltages or temperatures",
    "unknown pack voltage or current": "an unknown voltage or current of the pack",
    "unknown SoC": "an unknown state of charge",
    "starting": "the start: nothing has been judged yet",
}
TONES: Final[Mapping[str, str]] = {
    "RUNNING": "good", "FAULT": "bad", "LOCKED_OUT": "bad", "STANDBY": "calm", "STARTING": "calm",
}  # fmt: skip
"""What colour a state has; every other one is on its way."""


# --- words ---


def ago(seconds: float | None) -> str:
    """An age or a duration, short."""
    if seconds is None:
        return UNKNOWN
    for below, unit_s, unit in ((9.95, 1, "s"), (100, 1, "s"), (6000, 60, "min"), (172_800, 3600, "h")):
        if seconds < below:
            return f"{seconds:.1f} s" if below == 9.95 else f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def number(value: float, decimals: int = 0) -> str:
    """With thin spaces between thousands and a true minus."""
    return f"{value:,.{decimals}f}".replace(",", "\u202f").replace("-", "−")


def told(signal: str, value: Any, unit: str) -> tuple[str, str]:
    """A signal's value and unit as they are read."""
    if value is None:
        return UNKNOWN, unit
    if signal == "hvil_ok":
        return ("closed" if value else "OPEN"), ""
    if isinstance(value, bool | str):
        return str(value), unit
    if unit == "kWh":
        return number(value / 1000, 1), unit
    return number(value, RESOLUTION.get(signal, 0)), unit


def bounded_by(name: str) -> str:
    """What bounds the power, in words."""
    if name.startswith("rising to "):
        return f"a slow rise, towards {bounded_by(name.removeprefix('rising to '))}"
    if name in State.__members__:
        return f"the state: nothing is offered in {name}"
    if name in Event._value2member_map_:
        return f"{name}: {TEXTS[Event(name)].what}"
    return BOUNDED_BY.get(name, name)


def because(cause: str) -> str:
    """Why it is in its state, in words where there are any."""
    return f"{cause}: {TEXTS[Event(cause)].what}" if cause in Event._value2member_map_ else cause


def when(utc_s: float, synchronised: bool | None = True) -> str:
    """Local time with its offset; a ? where the clock was not right."""
    local = datetime.fromtimestamp(utc_s).astimezone()
    text = f"{local:%Y-%m-%d %H:%M:%S} {local:%z}"
    return f"{text[:-2]}:{text[-2:]}" + ("" if synchronised is not False else " ?")


# --- pieces ---


def banner(seen: Seen) -> str:
    """What a person must know before believing anything on the page."""
    if seen.status is None:
        return _alert("bad", "Nothing is known", f"{seen.lost}. Nothing can be shown before it has been heard.")
    if seen.old:
        why = seen.lost or "the controller has fallen silent"
        return _alert("bad", f"OLD VALUES, {ago(seen.age_s)} old", f"{why}. What you see is not how it is now.")
    if seen.status["listen_only"]:
        return _alert("warn", "Listening only", "nothing is sent and no relay moves.")
    if seen.status["stopping"]:
        return _alert("warn", "Stopping", "the service is ending.")
    return ""


def _alert(tone: str, head: str, text: str) -> str:
    return f'<div class="alert {tone}" role="alert"><b>{escape(head)}</b> {escape(text)}</div>'


def chip(seen: Seen) -> str:
    """The state, in one word and colour."""
    if seen.status is None:
        return '<span class="chip old">not heard</span>'
    state = str(seen.status["state"])
    tone = "old" if seen.old else TONES.get(state, "busy")
    return f'<span class="chip {tone}">{escape(state)}{" ?" if seen.old else ""}</span>'


def state(seen: Seen) -> str:
    """Where it is, why, for how long, what is energised and what is waited for."""
    status = seen.status
    if status is None:
        return ""
    held_s = None if status["since_s"] is None else status["since_s"] + seen.age_s
    head = f'<div class="row">{chip(seen)}<span class="muted">for {ago(held_s)}</span></div>'
    lines = [
        f"<p>{escape(str(status['note'])).capitalize()}.</p>",
        f'<p class="muted">Reached by <b>{escape(because(str(status["cause"])))}</b></p>',
    ]
    closed = ", ".join(status["closed"]) or "nothing"
    apart = "" if status["disconnected"] or status["closed"] else "; not disconnected, as nothing here can switch"
    enabled = "enabled" if status["enabled"] else "not enabled"
    again = "enables itself after a power cut" if status["auto_enable"] else "stays open after a power cut"
    lines.append(f'<p class="muted">Energised: {escape(closed)}{apart}. It is {enabled} and {again}.</p>')
    if status["withheld"]:
        waits = "".join(f"<li>{escape(str(why))}</li>" for why in status["withheld"])
        lines.append(f"<p>It waits for:</p><ul>{waits}</ul>")
    return f'{head}<div class="{fade(seen)}">{"".join(lines)}</div>'


def charge(seen: Seen) -> str:
    """State of charge and power, large."""
    status = seen.status
    if status is None:
        return ""
    signals = status["signals"]
    soc, volts, amperes = signals["soc_pct"], signals["pack_voltage_v"], signals["current_a"]
    watts = None if volts is None or amperes is None else volts * amperes
    width = 0 if soc is None else min(100.0, max(0.0, soc))
    way = UNKNOWN if watts is None else "charging" if watts > 10 else "discharging" if watts < -10 else "at rest"
    shown = UNKNOWN if watts is None else number(abs(watts))
    return (
        f'<div class="pair{fade(seen)}"><div><div class="huge">{told("soc_pct", soc, "%")[0]}<small>%</small></div>'
        f'<div class="bar" aria-hidden="true"><i style="width:{width:.1f}%"></i></div>'
        f'<div class="muted">State of charge {_age(seen, "soc_pct")}</div></div>'
        f'<div><div class="huge">{shown}<small>W</small></div><div class="muted">{way} {_age(seen, "current_a")}</div>'
        f"</div></div>"
    )


def limits(seen: Seen) -> str:
    """What the inverter may do now, and what bounds it, in words."""
    status = seen.status
    if status is None:
        return ""
    rows = []
    for way, label in (("charge", "Charging"), ("discharge", "Discharging")):
        cap = status["cap"][way]
        until = "" if cap is None else f" Cap of {number(cap['limit_w'])} W for {ago(cap['left_s'] - seen.age_s)} more."
        rows.append(
            f'<div class="limit"><div class="value"><span class="label">{label}, at most</span>'
            f"<b>{number(status['limits'][f'{way}_w'])}</b> W {_age(seen, None)}</div>"
            f'<div class="muted">Bounded by {escape(bounded_by(status["limits"][f"{way}_by"]))}.{until}</div></div>'
        )
    return f'<div class="pair limits{fade(seen)}">{"".join(rows)}</div>'


def values(seen: Seen, items: Sequence[Item]) -> str:
    """Signals, each with its age."""
    status = seen.status
    if status is None:
        return ""
    cells = []
    for item in items:
        text, unit = told(item.signal, status["signals"].get(item.signal), item.unit)
        cells.append(
            f'<div class="value"><span class="label">{item.label}</span><span><b>{escape(text)}</b> {unit} '
            f"{_age(seen, item.signal)}</span></div>"
        )
    return f'<div class="grid{fade(seen)}">{"".join(cells)}</div>'


def spread(seen: Seen) -> str:
    """The cells in one line."""
    if seen.status is None:
        return ""
    cells = seen.status["cells_v"]
    known = [volts for volts in cells if volts is not None]
    if not known:
        return '<p class="muted">No cell voltages yet.</p>'
    apart = number((max(known) - min(known)) * 1000)
    lowest, highest = cells.index(min(known)) + 1, cells.index(max(known)) + 1
    return (
        f'<p class="{fade(seen).strip()}">{len(known)} of {len(cells)} cells known, <b>{apart} mV</b> apart. Lowest '
        f"is cell {lowest} with {number(min(known), 3)} V, highest cell {highest} with {number(max(known), 3)} V "
        f"{_age(seen, 'cell_min_v')}</p>"
    )


def fault(seen: Seen, told: Mapping[str, Any]) -> str:
    """One cause: what it is, what likely is behind it, what to do."""
    since = f"for {ago(told['since_s'] + seen.age_s)}" if told["active"] else "gone"
    clears = told["clears_itself_s"]
    held = "" if not told["held"] else ", held" + ("" if clears is None else f" until it was away for {ago(clears)}")
    tone = "bad" if told["severity"] in ("open", "lock-out", "graceful") else "warn"
    return (
        f'<div class="fault {tone}{fade(seen)}"><b>{escape(told["what"])}</b>'
        f'<div class="muted"><code>{escape(told["id"])}</code> {escape(told["severity"])}, {since}{held}</div>'
        f'<div><span class="muted">Likely:</span> {escape(told["cause"])}</div>'
        f'<div><span class="muted">Do:</span> {escape(told["do"])}</div></div>'
    )


def health(seen: Seen) -> str:
    """The controller itself, in small print."""
    status = seen.status
    if status is None:
        return ""
    closings, late, inverter, record = (status[n] for n in ("closings", "lateness_ms", "inverter", "record"))
    heard = "never" if inverter["heard_s"] is None else f"{ago(inverter['heard_s'] + seen.age_s)} ago"
    go = {True: "gives its go", False: "gives no go", None: "has not said whether it may"}[inverter["go"]]
    lines = [
        f"Inverter {escape(inverter['name'])}: heard {heard}, {go}",
        f"closings {closings['hour']} of {closings['hour_max']} this hour, {closings['day']} of {closings['day_max']} "
        "this day",
        f"ticks late by {late['p50']} ms (half), {late['p99']} (99 %), {late['max']} (most)",
        f"{escape(status['battery'])}, wiring {escape(status['wiring'])}, packwarden {escape(status['program'])}",
        f"all of this is {ago(seen.age_s)} old",
    ]
    trouble = _alert("warn", "No closing", str(record["trouble"])) if record["trouble"] else ""
    return f'{trouble}<p class="small muted">{"; ".join(lines)}.</p>'


def fade(seen: Seen) -> str:
    """A class for what is not how it is now."""
    return " old" if seen.old else ""


def _age(seen: Seen, signal: str | None) -> str:
    """How old it is: by its own age where it has one, else by that of the status. Unknown for what never came."""
    assert seen.status is not None
    ages = seen.status["ages_s"]
    own_s = 0.0 if signal is None else ages.get(signal, 0.0)
    return f'<span class="age">{UNKNOWN if own_s is None else ago(own_s + seen.age_s)}</span>'
