"""One self-contained HTML page of a run: states, charts with a shared cursor and zoom, events, cells.

    recorder = PlotRecorder()
    recorder.add(t_s, {"pack_voltage_v": 356.1, "soc_pct": None, ...})          # each tick, or whenever it suits
    page(PlotData("drive.log", "Tesla Model 3, BYD Modbus", 29.4, series=recorder.series(), ...))

The page needs nothing from outside: no network, no library, no font. Unknown (None) is a gap in a line, – in words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from controller.model.battery import RESOLUTION

Value = float | None
Series = tuple[str, Sequence[tuple[float, Value]]]
"""Unit, and (t in s, value) in order of time. None: unknown from here on."""

Band = Sequence[tuple[float, str | None]]
"""(t in s, what is true from here on)."""


@dataclass(frozen=True, slots=True)
class PlotData:
    """What the page shows. Times in s since the beginning; every text may hold anything, it is escaped.

    states: (t, state, cause), the last one is the final state. events: t_s, id, severity, detail, text of each.
    bands: further things that are one word at a time, such as the pack's own contactor state. cells_v: None is an
    unknown cell. inverter_image: register or frame → values, what the inverter would read now. badges: a word or two
    each, such as "synthetic recording". notes: sentences.
    """

    title: str
    subtitle: str
    duration_s: float
    states: Sequence[tuple[float, str, str]] = ()
    events: Sequence[Mapping[str, object]] = ()
    series: Mapping[str, Series] = field(default_factory=dict)
    cells_v: Sequence[Value] = ()
    inverter_image: Mapping[str, object] | None = None
    notes: Sequence[str] = ()
    badges: Sequence[str] = ()
    bands: Mapping[str, Band] = field(default_factory=dict)


# ---- collecting -----------------------------------------------------------------------------------------------------

_UNITS = {
    "v": "V",
    "a": "A",
    "pct": "%",
    "c": "°C",
    "w": "W",
    "wh": "Wh",
    "kohm": "kΩ",
    "mv": "mV",
    "ms": "ms",
    "s": "s",
}


def unit_of(name: str) -> str:
    """`pack_voltage_v` → `V`; "" for a name that ends in no unit we know."""
    return _UNITS.get(name.rpartition("_")[2], "")


class _Bucket:
    """What remains of all values in one stretch of time: first, lowest, highest, last, and where it was unknown.

    gaps: how many times the value was unknown for a while; gap_ms: when the first of them began.
    """

    __slots__ = ("first", "gap_ms", "gaps", "high", "index", "last", "low")

    def __init__(self, index: int, at_ms: int, value: Value) -> None:
        point = (at_ms, value)
        self.index, self.first, self.last = index, point, point
        self.gaps, self.gap_ms = (1, at_ms) if value is None else (0, 0)
        self.low: tuple[int, float] | None = None if value is None else (at_ms, value)
        self.high = self.low

    def add(self, at_ms: int, value: Value) -> None:
        if value is None:
            if self.last[1] is not None:
                self.gap_ms = self.gap_ms if self.gaps else at_ms
                self.gaps += 1
        elif self.low is None or self.high is None:
            self.low = self.high = (at_ms, value)
        elif value < self.low[1]:
            self.low = (at_ms, value)
        elif value > self.high[1]:
            self.high = (at_ms, value)
        self.last = (at_ms, value)

    def join(self, later: _Bucket) -> None:
        self.gap_ms = self.gap_ms if self.gaps else later.gap_ms
        self.gaps += later.gaps - (later.first[1] is None and self.last[1] is None)
        if later.low is not None and (self.low is None or later.low[1] < self.low[1]):
            self.low = later.low
        if later.high is not None and (self.high is None or later.high[1] > self.high[1]):
            self.high = later.high
        self.last = later.last

    def points(self) -> list[tuple[int, Value]]:
        """In order of time. With more than one gap no two values are joined: which of them belong together is lost."""
        kept = {self.first, self.last, self.low or self.first, self.high or self.first}
        values = sorted((t, v) for t, v in kept if v is not None)
        if self.gaps > 1:
            apart: list[tuple[int, Value]] = [(self.first[0], None)] if self.first[1] is None else []
            for t, v in values:
                apart += [(t, v), (t, None)]
            return apart[:-1] if self.last[1] is not None else apart
        if self.gaps == 1:
            before: list[tuple[int, Value]] = [(t, v) for t, v in values if t < self.gap_ms]
            return [*before, (self.gap_ms, None), *((t, v) for t, v in values if t >= self.gap_ms)]
        return list(values)


class _Thinned:
    """A series in bounded room: at most `limit` buckets, twice as wide whenever there would be more."""

    def __init__(self, limit: int) -> None:
        self._limit, self._width_ms = limit, 10
        self._buckets: list[_Bucket] = []

    def add(self, at_ms: int, value: Value) -> None:
        index = at_ms // self._width_ms
        if self._buckets and self._buckets[-1].index == index:
            self._buckets[-1].add(at_ms, value)
            return
        self._buckets.append(_Bucket(index, at_ms, value))
        while len(self._buckets) > self._limit:
            self._halve()

    def _halve(self) -> None:
        self._width_ms *= 2
        joined: list[_Bucket] = []
        for bucket in self._buckets:
            bucket.index //= 2
            if joined and joined[-1].index == bucket.index:
                joined[-1].join(bucket)
            else:
                joined.append(bucket)
        self._buckets = joined

    def points(self) -> list[tuple[int, Value]]:
        return [point for bucket in self._buckets for point in bucket.points()]


class PlotRecorder:
    """Collects values over time in bounded room: spikes and gaps of any length stay, the rest is thinned.

    buckets: stretches of time kept for each series; four points at most remain of each.
    """

    def __init__(self, buckets: int = 1500) -> None:
        self._limit = buckets
        self._series: dict[str, _Thinned] = {}
        self._bands: dict[str, list[tuple[float, str | None]]] = {}

    def add(self, t_s: float, values: Mapping[str, float | str | bool | None]) -> None:
        """What is known at this time, by names that end in their unit; names without a unit are words (a band).

        Times never fall. A cell_spread_mv is made of cell_min_v and cell_max_v.
        """
        at_ms = round(t_s * 1000)
        for name, value in values.items():
            if name in self._series:
                self._series[name].add(at_ms, value)  # type: ignore[arg-type]
            elif name in self._bands:
                band, word = self._bands[name], _word(value)
                if band[-1][1] != word and len(band) < self._limit:
                    band.append((t_s, word))
            else:
                self._begin(name, at_ms, value)
        if "cell_min_v" in values and "cell_max_v" in values and "cell_spread_mv" not in values:
            low, high = values["cell_min_v"], values["cell_max_v"]
            spread = None if low is None or high is None else 1000 * (float(high) - float(low))
            self.add(t_s, {"cell_spread_mv": spread})

    def _begin(self, name: str, at_ms: int, value: float | str | bool | None) -> None:
        if unit_of(name):
            self._series[name] = _Thinned(self._limit)
            self._series[name].add(at_ms, None if value is None else float(value))
        else:
            self._bands[name] = [(at_ms / 1000, _word(value))]

    def series(self) -> dict[str, Series]:
        """For PlotData.series."""
        return {
            name: (unit_of(name), [(at_ms / 1000, value) for at_ms, value in thinned.points()])
            for name, thinned in self._series.items()
        }

    def bands(self) -> dict[str, Band]:
        """For PlotData.bands."""
        return dict(self._bands)


def _word(value: float | str | bool | None) -> str | None:
    return None if value is None else "yes" if value is True else "no" if value is False else str(value)


# ---- what the page says of it ---------------------------------------------------------------------------------------

_CHARTS = (
    ("Voltage", ("pack_voltage_v", "link_voltage_v")),
    ("Precharge resistor", ("resistor_w",)),
    ("Current", ("current_a",)),
    ("State of charge", ("soc_pct",)),
    ("Cell voltages", ("cell_min_v", "cell_max_v")),
    ("Cell spread", ("cell_spread_mv",)),
    ("Temperatures", ("temp_min_c", "temp_max_c")),
    ("Power limits", ("charge_limit_w", "discharge_limit_w", "max_charge_w", "max_discharge_w")),
    ("Power of the inverter", ("inverter_w",)),
    ("Current limits", ("charge_limit_a", "discharge_limit_a", "max_charge_a", "max_discharge_a")),
)
_LABELS = {
    "pack_voltage_v": "pack",
    "link_voltage_v": "inverter side",
    "current_a": "pack (+ charging)",
    "soc_pct": "state of charge",
    "soh_pct": "state of health",
    "cell_min_v": "lowest cell",
    "cell_max_v": "highest cell",
    "cell_spread_mv": "highest − lowest",
    "temp_min_c": "coldest",
    "temp_max_c": "warmest",
    "charge_limit_w": "charging, published",
    "discharge_limit_w": "discharging, published",
    "max_charge_w": "charging, by the BMS",
    "max_discharge_w": "discharging, by the BMS",
    "charge_limit_a": "charging, published",
    "discharge_limit_a": "discharging, published",
    "max_charge_a": "charging, by the BMS",
    "max_discharge_a": "discharging, by the BMS",
    "contactor_state": "contactors, by the pack",
    "hvil_ok": "interlock loop closed",
    "resistor_w": "power in it",
    "inverter_w": "into the link",
}
_DECIMALS = {"V": 2, "A": 1, "%": 1, "°C": 1}
_KINDS = {
    "ok": ("RUNNING",),
    "idle": ("STARTING", "STANDBY"),
    "busy": ("WAKING_PACK", "CLOSING_NEGATIVE", "PRECHARGING", "CLOSING_POSITIVE", "closed"),
    "going": ("UNLOADING", "OPENING_POSITIVE", "VERIFYING_OPEN", "COOLING_DOWN"),
    "bad": ("FAULT", "LOCKED_OUT"),
}
_SEVERITIES = {"info": "busy", "warning": "going", "no-closing": "going", "limit": "going"}
_GRAVITY = ("bad", "going", "busy")
_MOST_POINTS, _MOST_EVENTS, _MOST_STATES = 6000, 1000, 1000


def _kind(state: str | None) -> str:
    """The colour of a state; a word we have no colour for is neutral, and None is "unknown"."""
    if state is None:
        return "unknown"
    return next((kind for kind, states in _KINDS.items() if state in states), "idle")


def _label(name: str) -> str:
    return _LABELS.get(name, name.rpartition("_")[0].replace("_", " ") if unit_of(name) else name.replace("_", " "))


def _colour(name: str, index: int) -> int:
    """One of six. Charging and discharging have theirs, whoever speaks of them."""
    return 1 if "discharge" in name else 0 if "charge" in name else index % 6


def _dashed(name: str) -> bool:
    """What the pack allows is dashed, what we publish is not."""
    return name.startswith("max_")


def _charts(series: Mapping[str, Series]) -> list[tuple[str, str, list[str]]]:
    """(title, unit, names) of each chart: the known ones in their order, then whatever else there is, by unit."""
    known = [name for name, (_, points) in series.items() if any(value is not None for _, value in points)]
    charts = [(title, [name for name in names if name in known]) for title, names in _CHARTS]
    rest = [name for name in known if not any(name in names for _, names in charts)]
    for unit in dict.fromkeys(series[name][0] for name in rest):
        names = [name for name in rest if series[name][0] == unit]
        charts.append((_label(names[0]).capitalize() if len(names) == 1 else f"Others in {unit or 'no unit'}", names))
    return [(title, series[names[0]][0], names) for title, names in charts if names]


def _bands(plot: PlotData) -> dict[str, Band]:
    """Those of which anything was ever known."""
    return {name: band for name, band in plot.bands.items() if any(word is not None for _, word in band)}


def _thin(points: Sequence[tuple[float, Value]]) -> list[tuple[int, Value]]:
    """(ms, value), at most about 6000 of them."""
    exact = [(round(t * 1000), value if value is not None and math.isfinite(value) else None) for t, value in points]
    if len(exact) <= _MOST_POINTS:
        return exact
    thinned = _Thinned(_MOST_POINTS // 4)
    for at_ms, value in exact:
        thinned.add(at_ms, value)
    return thinned.points()


def _line(name: str, unit: str, points: Sequence[tuple[float, Value]], index: int) -> dict[str, object]:
    """A series as the script takes it: milliseconds since the point before, and values, null for unknown."""
    thin = _thin(points)
    decimals = RESOLUTION.get(name, _DECIMALS.get(unit, 0))
    after = [now - before for now, before in zip((t for t, _ in thin), [0, *(t for t, _ in thin)], strict=False)]
    return {
        "label": _label(name),
        "decimals": decimals,
        "colour": _colour(name, index),
        "dashed": _dashed(name),
        "t": after,
        "v": [None if value is None else round(value, decimals) for _, value in thin],
    }


def _script_data(plot: PlotData, charts: list[tuple[str, str, list[str]]]) -> str:
    """The numbers of the page as JSON that cannot end its script element."""
    data = {
        "duration": plot.duration_s,
        "charts": [
            {
                "unit": unit,
                "series": [_line(name, unit, plot.series[name][1], i) for i, name in enumerate(names)],
            }
            for _, unit, names in charts
        ],
        "bands": [
            [[t, state, _kind(state), cause] for t, state, cause in plot.states],
            *([[t, word or "–", _kind(word), ""] for t, word in band] for band in _bands(plot).values()),
        ],
        "events": [[event.get("t_s", 0), str(event.get("id", "")), _severity(event)] for event in _shown(plot.events)],
        "cells": [None if v is None or not math.isfinite(v) else round(v, 4) for v in plot.cells_v],
    }
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(events: Sequence[Mapping[str, object]]) -> Sequence[Mapping[str, object]]:
    """All, or of very many the gravest, in order of time."""
    if len(events) <= _MOST_EVENTS:
        return events
    grave = sorted(range(len(events)), key=lambda i: (_GRAVITY.index(_severity(events[i])), i))
    return [events[i] for i in sorted(grave[:_MOST_EVENTS])]


def _severity(event: Mapping[str, object]) -> str:
    return _SEVERITIES.get(str(event.get("severity", "")), "bad")


# ---- the page -------------------------------------------------------------------------------------------------------


def page(plot: PlotData) -> str:
    """The whole page as HTML. Equal data gives an equal page."""
    charts, bands = _charts(plot.series), _bands(plot)
    never = [_label(name) for name in plot.series if not any(name in names for _, _, names in charts)]
    never += [_label(name) for name in plot.bands if name not in bands]
    parts = (
        _head(plot),
        _BAR,
        "<main>",
        _states(plot),
        _events(plot.events),
        *(_chart(i, title, unit, names) for i, (title, unit, names) in enumerate(charts)),
        f'<p class="never">Never known: {escape(", ".join(never))}.</p>' if never else "",
        _cells(plot.cells_v),
        _inverter(plot.inverter_image),
        "</main>",
        f'<script type="application/json" id="data">{_script_data(plot, charts)}</script>',
        f"<script>{_SCRIPT}</script>",
        "</body></html>\n",
    )
    return "\n".join(part for part in parts if part)


def _clock(t_s: float, duration_s: float) -> str:
    """`12.34 s`, or `1:02:03.4` in runs of two minutes and more."""
    if duration_s < 120:
        return f"{t_s:.2f} s"
    minutes, seconds = divmod(round(t_s, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"


def _at(t_s: object, duration_s: float) -> str:
    t = float(t_s) if isinstance(t_s, int | float) and math.isfinite(t_s) else 0.0
    return f'<td class="at"><button type="button" data-t="{t:.3f}">{_clock(t, duration_s)}</button></td>'


def _head(plot: PlotData) -> str:
    badges = "".join(f"<li>{escape(badge)}</li>" for badge in plot.badges)
    final = plot.states[-1][1] if plot.states else "–"
    facts = (
        ("Final state", f'<b class="chip {_kind(final)}">{escape(final)}</b>'),
        ("Duration", _clock(plot.duration_s, plot.duration_s)),
        ("States", str(len(plot.states))),
        ("Events", str(len(plot.events))),
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in plot.notes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'script-src \'unsafe-inline\'; img-src data:"><link rel="icon" href="data:,">'
        f"<title>{escape(plot.title)}</title><style>{_STYLE}</style></head><body>\n<header>"
        f"<h1>{escape(plot.title)}</h1><p>{escape(plot.subtitle)}</p>"
        + (f'<ul class="badges">{badges}</ul>' if badges else "")
        + "<dl>"
        + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
        + "</dl>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + "</header><noscript><p>The charts need JavaScript. States, events and numbers are below.</p></noscript>"
    )


def _states(plot: PlotData) -> str:
    rows = "".join(
        f'<tr>{_at(t, plot.duration_s)}<td><b class="chip {_kind(state)}">{escape(state)}</b></td>'
        f"<td>{escape(cause)}</td></tr>"
        for t, state, cause in plot.states[:_MOST_STATES]
    )
    names = ["", *(f"<p>{escape(_label(name))}</p>" for name in _bands(plot))]
    bands = "".join(
        f'{name}<svg class="time" data-band="{i}" role="img" aria-label="States over time"></svg>'
        for i, name in enumerate(names)
    )
    more = _more(len(plot.states), _MOST_STATES)
    unfolded = " open" if len(plot.states) <= 10 else ""
    listed = f"<details{unfolded}><summary>States and their causes</summary>"
    return f'<section><h2>States</h2>{bands}{listed}<table class="states">{rows}</table>{more}</details></section>'


def _chart(index: int, title: str, unit: str, names: list[str]) -> str:
    colours = (f"c{_colour(name, i)}{' dashed' if _dashed(name) else ''}" for i, name in enumerate(names))
    legend = "".join(
        f'<li class="{colour}"><i></i>{escape(_label(name))} <b></b></li>'
        for colour, name in zip(colours, names, strict=True)
    )
    heading = f'<h2>{escape(title)} <small>{escape(unit)}</small></h2><ul class="legend">{legend}</ul>'
    svg = f'<svg class="time" data-chart="{index}" role="img" aria-label="{escape(title)} over time"></svg>'
    return f'<section class="chart">{heading}{svg}</section>'


def _events(events: Sequence[Mapping[str, object]]) -> str:
    if not events:
        return '<section><h2>Events</h2><p class="none">None.</p></section>'
    longest = max((float(t) for e in events if isinstance(t := e.get("t_s"), int | float)), default=0.0)
    rows = "".join(
        f"<tr>{_at(event.get('t_s'), longest)}"
        f'<td><b class="chip {_severity(event)}">{escape(str(event.get("severity", "")))}</b></td>'
        f'<td class="id">{escape(str(event.get("id", "")))}</td>'
        f"<td>{escape(str(event.get('text') or ''))}"
        f'<span class="detail">{escape(str(event.get("detail") or ""))}</span></td></tr>'
        for event in _shown(events)
    )
    more = _more(len(events), _MOST_EVENTS)
    return f'<section><h2>Events</h2><div class="scroll"><table class="events">{rows}</table>{more}</div></section>'


def _more(count: int, most: int) -> str:
    return f'<p class="none">… and {count - most} more.</p>' if count > most else ""


def _cells(cells_v: Sequence[Value]) -> str:
    known = [v for v in cells_v if v is not None]
    if not known:
        return ""
    low, high, unknown = min(known), max(known), len(cells_v) - len(known)
    words = f"{len(cells_v)} cells at the end, {low:.3f} to {high:.3f} V, spread {1000 * (high - low):.0f} mV"
    words += " (blue: highest, brown: lowest)"
    words += f", {unknown} unknown" if unknown else ""
    svg = '<svg id="cells" role="img" aria-label="Voltage of each cell"></svg>'
    return f'<section class="chart"><h2>Cells <small>V</small></h2><p id="cell">{words}</p>{svg}</section>'


def _inverter(image: Mapping[str, object] | None) -> str:
    if not image:
        return ""
    rows = "".join(
        f"<tr><th>{escape(str(name))}</th><td>"
        + escape(" ".join(map(str, values)) if isinstance(values, list | tuple) else str(values))
        + "</td></tr>"
        for name, values in image.items()
    )
    return f'<section><h2>What the inverter reads at the end</h2><table class="image">{rows}</table></section>'


_BAR = """<div class="bar"><output>–</output><span class="buttons">
<button type="button" data-do="left" aria-label="earlier">◀</button>
<button type="button" data-do="out" aria-label="zoom out">−</button>
<button type="button" data-do="in" aria-label="zoom in">+</button>
<button type="button" data-do="right" aria-label="later">▶</button>
<button type="button" data-do="all">All</button></span></div>"""

_STYLE = """
:root { color-scheme: light dark; --bg: #f4f6f8; --card: #fff; --fg: #1b2330; --dim: #5d6876; --line: #dde2e8;
  --c0: #0b68cb; --c1: #c8570c; --c2: #1a7f37; --c3: #8250df; --c4: #b7357f; --c5: #57606a;
  --ok: #1a7f37; --idle: #6b7683; --busy: #0b68cb; --going: #a85b00; --bad: #c4232f; }
@media screen and (prefers-color-scheme: dark) {
  :root { --bg: #0e1217; --card: #171d25; --fg: #e4e8ee; --dim: #98a3b1; --line: #2c3540;
    --c0: #5cabff; --c1: #ff9d52; --c2: #57c96b; --c3: #bb92ff; --c4: #f27fba; --c5: #a4afbb;
    --ok: #2c8a45; --idle: #5c6773; --busy: #2b74c9; --going: #a8660f; --bad: #d23b45; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 20px 16px 60px; background: var(--bg); color: var(--fg);
  font: 15px/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 26px; line-height: 1.2; }
h2 { margin: 0; font-size: 15px; }
header p { margin: 2px 0 0; color: var(--dim); }
small { color: var(--dim); font-weight: 400; }
ul { list-style: none; margin: 0; padding: 0; }
dl { display: flex; flex-wrap: wrap; gap: 10px 32px; margin: 14px 0; }
dt { color: var(--dim); font-size: 12px; }
dd { margin: 0; font-size: 18px; }
.badges { display: flex; flex-wrap: wrap; gap: 6px; margin-top: 10px; }
.badges li { border: 1px solid var(--dim); border-radius: 99px; padding: 1px 10px; font-size: 13px; }
.notes li { margin: 2px 0; padding-left: 14px; position: relative; }
.notes li::before { content: "·"; position: absolute; left: 3px; }
.chip { display: inline-block; border-radius: 4px; padding: 1px 7px; background: var(--k); color: #fff;
  font-size: 13px; font-weight: 600; white-space: nowrap; }
.bar { position: sticky; top: 0; z-index: 1; display: flex; gap: 10px; align-items: center;
  justify-content: space-between; min-height: 46px; margin: 0 -16px; padding: 6px 16px; background: var(--bg);
  border-bottom: 1px solid var(--line); }
.buttons { display: flex; flex: none; gap: 4px; }
output { color: var(--dim); }
output b { color: var(--fg); }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  cursor: pointer; }
.bar button { min-width: 34px; height: 32px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin-top: 10px;
  padding: 10px 12px; }
section > p, .none, .never { margin: 4px 0; color: var(--dim); font-size: 13px; }
.never { padding: 0 12px; }
.chart h2 { float: left; margin-right: 18px; }
.chart > p { margin: 0; min-height: 22px; }
.legend { display: flex; flex-wrap: wrap; gap: 0 18px; justify-content: flex-end; min-height: 22px;
  font-size: 14px; color: var(--dim); }
.legend b { color: var(--fg); font-weight: 600; }
.legend i { display: inline-block; width: 18px; margin-right: 6px; border-top: 3px solid var(--c);
  vertical-align: 4px; }
.legend .dashed i { border-top-style: dashed; }
.scroll { max-height: 330px; overflow: auto; }
details { margin-top: 8px; }
summary { color: var(--dim); font-size: 13px; cursor: pointer; }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin-top: 6px; }
td, th { padding: 3px 14px 3px 0; text-align: left; vertical-align: top; }
tr + tr > * { border-top: 1px solid var(--line); }
td:last-child { width: 100%; }
.at, .id, th { white-space: nowrap; }
.at button { border: 0; padding: 0; background: none; color: var(--c0); }
.id { font-weight: 600; }
.detail { color: var(--dim); display: block; }
.image { font-family: ui-monospace, monospace; font-size: 13px; }
svg { display: block; width: 100%; height: auto; clear: both; }
svg.time { touch-action: pan-y; cursor: crosshair; user-select: none; }
svg text { font-size: 11px; fill: var(--dim); }
svg .on { fill: #fff; font-size: 12px; font-weight: 600; }
.c0 { --c: var(--c0); }
.c1 { --c: var(--c1); }
.c2 { --c: var(--c2); }
.c3 { --c: var(--c3); }
.c4 { --c: var(--c4); }
.c5 { --c: var(--c5); }
.ok { --k: var(--ok); }
.idle, .unknown { --k: var(--idle); }
.busy { --k: var(--busy); }
.going { --k: var(--going); }
.bad { --k: var(--bad); }
.grid { stroke: var(--line); }
.zero { stroke: var(--dim); }
.cursor { stroke: var(--fg); }
.pick { fill: var(--c0); opacity: .2; }
.event { stroke: var(--k); stroke-dasharray: 2 3; }
.mark, rect.state, rect.cell { fill: var(--k); }
rect.none { fill: none; stroke: var(--line); }
rect.unknown { fill: none; stroke: var(--dim); stroke-dasharray: 2 2; }
path.line { fill: none; stroke: var(--c); stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round; }
path.dashed { stroke-dasharray: 6 4; stroke-linecap: butt; }
@media (max-width: 600px) {
  body { padding: 12px 8px 40px; }
  .bar { margin: 0 -8px; padding: 4px 8px; font-size: 13px; }
  section { padding: 8px; }
  .legend { justify-content: flex-start; clear: both; }
  .chart h2 { float: none; }
  .id { white-space: normal; }
  .events tr { display: grid; grid-template-columns: auto auto 1fr; padding: 4px 0; }
  .events td { border: 0; padding: 1px 10px 1px 0; width: auto; }
  .events td:last-child { grid-column: 1 / -1; }
  .events tr + tr { border-top: 1px solid var(--line); }
}
@media print {
  :root { --bg: #fff; --fg: #000; --dim: #444; --line: #ccc; color-scheme: light; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { padding: 0; max-width: none; font-size: 12px; }
  .bar { display: none; }
  .scroll { max-height: none; }
  section { break-inside: avoid; border-color: #bbb; }
}
"""

_SCRIPT = r"""
"use strict";
(() => {
const D = JSON.parse(document.getElementById("data").textContent);
const END = Math.max(D.duration, 0.001), LEFT = 54, RIGHT = 8, TOP = 6, BOTTOM = 20;
const STEPS = [.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600,
  7200, 10800, 21600, 43200, 86400, 172800, 604800];
const NS = document.querySelector("svg").namespaceURI, plots = [...document.querySelectorAll("svg.time")];
const output = document.querySelector("output");
const hint = matchMedia("(pointer: coarse)").matches ? "Touch a chart for its values."
  : "Point at a chart for the values at that time; drag to zoom.";
let view = [0, END], cursor = null, drag = null;
for (const chart of D.charts) for (const line of chart.series) {
  let now = 0;
  line.t = line.t.map(after => (now += after) / 1000);
}

// ---- helpers
function make(parent, tag, attributes = {}, text) {
  const element = document.createElementNS(NS, tag);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}
function upTo(times, t) {                                   // index of the last time not after t; -1 when there is none
  let low = 0, high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= t) low = middle + 1; else high = middle;
  }
  return low - 1;
}
function valueAt(line, t) {                                 // null where it is unknown, and after the last one
  const i = upTo(line.t, t), last = line.t.length - 1;
  return i < 0 || (i === last && t - line.t[last] > END / 400) ? null : line.v[i];
}
function number(value, decimals) {
  if (value === null) return "–";
  const [units, part] = Math.abs(value).toFixed(decimals).split(".");
  const grouped = units.replace(/\B(?=(\d{3})+$)/g, "\u202f") + (part ? "." + part : "");
  return (value < 0 && +value.toFixed(decimals) ? "−" : "") + grouped;
}
function clock(t, decimals) {
  if (END < 120) return t.toFixed(decimals) + " s";
  t = +t.toFixed(decimals);
  const two = (n, d = 0) => n.toFixed(d).padStart(d ? d + 3 : 2, "0"), minutes = Math.floor(t / 60) % 60;
  const hours = Math.floor(t / 3600), rest = two(t - 60 * Math.floor(t / 60), decimals);
  return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
}
const whole = value => Math.abs(value - Math.round(value)) < 1e-6;
const decimalsOf = step => [0, 1, 2, 3, 4, 5].find(decimals => whole(step * 10 ** decimals)) ?? 6;
const within = (t, [from, to]) => Math.min(Math.max(t, from), to);
const inView = t => t >= view[0] && t <= view[1];
const stateAt = (band, t) => band[Math.max(0, upTo(band.map(row => row[0]), t))];

// ---- drawing
function place(width) {                                     // where a time stands in a plot of this width
  const inside = width - LEFT - RIGHT;
  return { width, inside, x: t => LEFT + (t - view[0]) / (view[1] - view[0]) * inside };
}
function begin(svg, height) {                               // an empty plot
  const width = Math.max(260, Math.round(svg.clientWidth || 800));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  return place(width);
}
function inner(svg, plot, height) {                         // its inside, which clips what is drawn in it
  return make(svg, "svg", { x: LEFT, y: 0, width: plot.inside, height, viewBox: `${LEFT} 0 ${plot.inside} ${height}` });
}
function timeAxis(svg, plot, height) {
  const span = view[1] - view[0], step = STEPS.find(s => span / s * 74 <= plot.inside) || STEPS.at(-1);
  for (let k = Math.ceil(view[0] / step - 1e-9); k * step <= view[1] * (1 + 1e-9); k++) {
    const x = plot.x(k * step).toFixed(1);
    make(svg, "line", { x1: x, x2: x, y1: TOP, y2: height - BOTTOM, class: "grid" });
    if (x > plot.width - 22) continue;
    make(svg, "text", { x, y: height - 5, "text-anchor": "middle" }, clock(k * step, decimalsOf(step)));
  }
}
function rangeOf(lines) {                                   // lowest and highest value in view
  let low = Infinity, high = -Infinity;
  for (const line of lines)
    for (let i = Math.max(0, upTo(line.t, view[0])); i < line.t.length && line.t[i] <= view[1]; i++) {
      if (line.v[i] === null) continue;
      low = Math.min(low, line.v[i]);
      high = Math.max(high, line.v[i]);
    }
  return [low, high];
}
function pathOf(line, x, y) {                               // a gap where a value is unknown; a dot for a lone value
  let path = "", open = false, alone = false;
  for (let i = Math.max(0, upTo(line.t, view[0])); i < line.t.length; i++) {
    const value = line.v[i], point = value === null ? "" : `${x(line.t[i]).toFixed(1)} ${y(value).toFixed(1)}`;
    if (value === null) {
      if (alone) path += "h0";
      open = alone = false;
    } else {
      path += (open ? "L" : "M") + point;
      alone = !open;
      open = true;
    }
    if (line.t[i] > view[1]) break;
  }
  return path + (alone ? "h0" : "");
}
function fewEvents() {                                      // those in view; the grave ones of many; none of too many
  const seen = D.events.filter(([t]) => inView(t)), grave = seen.filter(event => event[2] === "bad");
  return seen.length <= 40 ? seen : grave.length <= 40 ? grave : [];
}
function drawChart(svg) {
  const chart = D.charts[svg.dataset.chart], height = 158, plot = begin(svg, height);
  const finest = 10 ** -Math.max(...chart.series.map(line => line.decimals));
  const most = rangeOf(chart.series.filter(line => !line.dashed))[1];
  let [low, high] = rangeOf(chart.series);
  if (low > high) [low, high] = [0, 1];
  const above = most > 0 && high > 2.5 * most;              // what others allow must not flatten what we publish
  if (above) [low, high] = [Math.min(low, 0), 1.5 * most];
  const pad = Math.max((high - low) * .08, finest * 2);
  if (low < 0 || low - pad >= 0) low -= pad; else low = 0;
  high += pad;
  const y = value => TOP + (high - value) / (high - low) * (height - TOP - BOTTOM);
  const rough = (high - low) / 4.6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(k => k * power).find(s => s >= rough);
  timeAxis(svg, plot, height);
  for (let k = Math.ceil(low / step); k * step <= high; k++) {
    const at = y(k * step).toFixed(1);
    make(svg, "line", { x1: LEFT, x2: plot.width - RIGHT, y1: at, y2: at, class: k ? "grid" : "zero" });
    make(svg, "text", { x: LEFT - 6, y: +at + 4, "text-anchor": "end" }, number(k * step, decimalsOf(step)));
  }
  const clip = inner(svg, plot, height - BOTTOM);
  for (const [t, , kind] of fewEvents())
    make(clip, "line", { x1: plot.x(t), x2: plot.x(t), y1: TOP, y2: height, class: "event " + kind });
  for (const line of chart.series)
    make(clip, "path", { d: pathOf(line, plot.x, y), class: `line c${line.colour}${line.dashed ? " dashed" : ""}` });
  if (above) make(svg, "text", { x: LEFT + 6, y: TOP + 12 }, "↑ dashed lines go on above");
  overlay(svg, TOP, height - BOTTOM);
}
function drawBand(svg) {
  const first = svg.dataset.band === "0", band = D.bands[svg.dataset.band], tall = first ? 32 : 20;
  const height = tall + (first ? BOTTOM + 10 : 0), plot = begin(svg, height);
  if (first) {
    timeAxis(svg, plot, height);
    for (const line of svg.querySelectorAll("line")) line.remove();
  }
  const clip = inner(svg, plot, tall);
  band.forEach(([t, word, kind, cause], i) => {
    const from = Math.max(t, view[0]), end = i + 1 < band.length ? band[i + 1][0] : END, to = Math.min(end, view[1]);
    if (to < from || from > view[1]) return;
    const x = plot.x(from), wide = Math.max(plot.x(to) - x, 1.5), fits = Math.floor((wide - 10) / 7.6);
    const colour = kind === "unknown" ? kind : "state " + kind;
    const box = make(clip, "rect", { x, y: 0, width: wide, height: tall, class: colour });
    make(box, "title", {}, cause ? `${word}: ${cause}` : word);
    const text = word.length > fits ? word.slice(0, fits - 1) + "…" : word;
    if (fits > 2) make(clip, "text", { x: x + 6, y: tall / 2 + 4, class: kind === "unknown" ? "" : "on" }, text);
  });
  if (first) for (const [t, id, kind] of D.events) if (inView(t)) {
    const mark = make(svg, "path", { d: `M${plot.x(t).toFixed(1)} ${tall + 1}l4.5 8h-9z`, class: "mark " + kind });
    make(mark, "title", {}, id);
  }
  overlay(svg, 0, first ? tall + 10 : tall);
}
function overlay(svg, top, bottom) {
  make(svg, "rect", { y: top, height: bottom - top, width: 0, class: "pick" });
  make(svg, "line", { y1: top, y2: bottom, class: "cursor", visibility: "hidden" });
}
function drawCells() {
  const svg = document.getElementById("cells"), known = D.cells.filter(v => v !== null), height = 150;
  if (!svg) return;
  const { width, inside } = begin(svg, height), wide = inside / D.cells.length;
  const least = Math.min(...known), most = Math.max(...known), pad = Math.max((most - least) * .15, .004);
  const low = least - pad * 2, high = most + pad, y = v => TOP + (high - v) / (high - low) * (height - TOP - BOTTOM);
  for (const v of most - least > pad ? [least, most] : [most]) {
    make(svg, "line", { x1: LEFT, x2: width - RIGHT, y1: y(v), y2: y(v), class: "grid" });
    make(svg, "text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, v.toFixed(3));
  }
  const every = [5, 10, 20, 50, 100].find(n => n * wide > 24) ?? 200;
  D.cells.forEach((v, i) => {
    const kind = v === null ? "none" : "cell " + (v === most ? "busy" : v === least ? "going" : "idle");
    const top = v === null ? TOP : y(v), x = LEFT + i * wide;
    const box = { x: x + wide * .1, y: top, width: wide * .8, height: height - BOTTOM - top, class: kind };
    make(make(svg, "rect", box), "title", {}, `cell ${i + 1}: ${v === null ? "–" : v.toFixed(3) + " V"}`);
    if (i && (i + 1) % every) return;
    make(svg, "text", { x: x + wide / 2, y: height - 5, "text-anchor": "middle" }, i + 1);
  });
}
function draw() {
  for (const svg of plots) if (svg.dataset.chart !== undefined) drawChart(svg); else drawBand(svg);
  drawCells();
  point();
}

// ---- the cursor, and what was true there
function point() {
  const seen = cursor !== null && inView(cursor);
  const [from, to] = drag ? [drag.from, drag.to].sort((a, b) => a - b) : [0, 0];
  for (const svg of plots) {
    const line = svg.querySelector(".cursor"), pick = svg.querySelector(".pick");
    const { x } = place(svg.viewBox.baseVal.width);
    line.setAttribute("visibility", seen ? "visible" : "hidden");
    if (seen) for (const side of ["x1", "x2"]) line.setAttribute(side, x(cursor));
    pick.setAttribute("width", x(to) - x(from));
    pick.setAttribute("x", x(from));
    if (svg.dataset.chart !== undefined) values(svg, D.charts[svg.dataset.chart]);
  }
  const span = view[1] - view[0], fine = span < 20 ? 3 : span < 600 ? 2 : 1;
  output.replaceChildren();
  if (cursor === null) {
    output.append(span === END ? hint : `${clock(view[0], fine)} … ${clock(view[1], fine)}`);
    return;
  }
  const time = document.createElement("b"), row = D.bands[0].length ? stateAt(D.bands[0], cursor) : null;
  time.textContent = clock(cursor, fine);
  output.append(time, row ? `  ${row[1]}` : "", row && row[3] ? ` (${row[3]})` : "");
}
function values(svg, chart) {                               // at the cursor; without one, from … to in view
  const places = svg.parentNode.querySelectorAll(".legend b");
  chart.series.forEach((line, i) => {
    const words = v => number(v, line.decimals), [low, high] = cursor === null ? rangeOf([line]) : [0, 0];
    const value = cursor === null ? null : valueAt(line, cursor);
    if (value !== null) places[i].textContent = `${words(value)} ${chart.unit}`;
    else if (cursor !== null || low > high) places[i].textContent = "–";
    else places[i].textContent = low === high ? words(low) : `${words(low)} … ${words(high)}`;
  });
}
function look(from, to) {
  const span = Math.min(Math.max(to - from, .02), END), begin = within(from, [0, END - span]);
  view = [begin, begin + span];
  draw();
}
function timeOf(svg, event) {
  const box = svg.getBoundingClientRect(), width = svg.viewBox.baseVal.width;
  const x = (event.clientX - box.left) / box.width * width;
  return within(view[0] + (x - LEFT) / (width - LEFT - RIGHT) * (view[1] - view[0]), view);
}
for (const svg of plots) {
  svg.addEventListener("pointerdown", event => {
    if (event.button) return;
    cursor = timeOf(svg, event);
    if (event.pointerType === "mouse") {
      svg.setPointerCapture(event.pointerId);
      drag = { from: cursor, to: cursor };
    }
    point();
  });
  svg.addEventListener("pointermove", event => {
    cursor = timeOf(svg, event);
    if (drag) drag.to = cursor;
    point();
  });
  svg.addEventListener("pointerup", () => {
    const [from, to] = drag ? [drag.from, drag.to].sort((a, b) => a - b) : [0, 0];
    drag = null;
    if (to - from > (view[1] - view[0]) / 100) look(from, to); else point();
  });
  svg.addEventListener("pointercancel", () => { drag = null; point(); });
  svg.addEventListener("pointerleave", event => {
    if (event.pointerType !== "mouse" || drag) return;
    cursor = null;
    point();
  });
  svg.addEventListener("dblclick", () => look(0, END));
}
const actions = {
  in: (from, span, centre) => look(centre - span / 4, centre + span / 4),
  out: (from, span, centre) => look(centre - span, centre + span),
  left: (from, span) => look(from - span / 2, from + span / 2),
  right: (from, span) => look(from + span / 2, from + span * 1.5),
  all: () => look(0, END),
};
document.addEventListener("click", event => {
  const button = event.target.closest("button"), span = view[1] - view[0];
  if (!button) return;
  if (button.dataset.do) {
    actions[button.dataset.do](view[0], span, cursor !== null && inView(cursor) ? cursor : view[0] + span / 2);
    return;
  }
  cursor = within(+button.dataset.t, [0, END]);
  if (inView(cursor)) point(); else look(cursor - span / 2, cursor + span / 2);
  document.querySelector(".bar").scrollIntoView({ behavior: "smooth" });
});
document.addEventListener("keydown", event => {
  const steps = { ArrowLeft: -1, ArrowRight: 1 };
  if (event.key === "Escape") { cursor = null; look(0, END); }
  if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
  cursor = within((cursor ?? view[0]) + steps[event.key] * (view[1] - view[0]) / 200, view);
  point();
});
let width = 0;
new ResizeObserver(() => {
  if (width === document.body.clientWidth) return;
  width = document.body.clientWidth;
  draw();
}).observe(document.body);
})();
"""
