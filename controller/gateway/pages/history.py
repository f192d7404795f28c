"""Charts of the past, and the past as a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import Request
from nicegui import ui

from controller.gateway.history_store import SERIES, Chart, HistoryError, Store
from controller.gateway.pages.frame import House, card, frame, html

RANGES: Final[Mapping[int, str]] = {1: "1 h", 6: "6 h", 24: "24 h", 168: "7 days", 720: "30 days", 8760: "1 year"}
"""Hours, and how they are called."""
DRAWN: Final[Mapping[str, Mapping[str, str]]] = {
    "Power": {"power_w": "power", "limit_charge_w": "charge limit", "limit_discharge_w": "discharge limit"},
    "State of charge": {"soc_pct": "SoC"},
    "Cells": {"cell_min_v": "lowest", "cell_max_v": "highest"},
    "Voltage": {"pack_voltage_v": "pack", "link_voltage_v": "inverter's side"},
    "Current": {"current_a": "current"},
    "Temperatures": {"temp_min_c": "coldest", "temp_max_c": "hottest"},
    "12 V supply": {"lv_supply_v": "12 V"},
    "Isolation": {"isolation_kohm": "isolation"},
}
MIRRORED: Final = "limit_discharge_w"
"""Drawn below zero, where discharging is."""
COLOURS: Final = ("#2f7fc4", "#d08700", "#8a5fb8")
GREY: Final = "#8893a0"
POINTS: Final = 500
AGAIN_S: Final = 60.0


def option(chart: Chart, names: Mapping[str, str]) -> dict[str, Any]:
    """For ECharts: each mean as a line, least and most as a band around it."""
    series: list[dict[str, Any]] = []
    for colour, (name, label) in zip(COLOURS, names.items(), strict=False):
        low, mean, high = (_signed(name, column) for column in chart.series[name])
        if name == MIRRORED:
            low, high = high, low
        at_ms = [round(at_s * 1000) for at_s in chart.at_s]
        line = {"type": "line", "showSymbol": False, "connectNulls": False, "itemStyle": {"color": colour}}
        dash = "dashed" if name.startswith("limit_") else "solid"
        series.append({**line, "name": label, "lineStyle": {"width": 1.5, "type": dash}, "data": _pairs(at_ms, mean)})
        if chart.level.finer or chart.step_s > 1:
            edge = {**line, "lineStyle": {"opacity": 0}, "stack": name, "stackStrategy": "all", "silent": True,
                    "tooltip": {"show": False}}  # fmt: skip
            series.append({**edge, "data": _pairs(at_ms, low)})
            wide = [None if a is None or b is None else b - a for a, b in zip(low, high, strict=True)]
            band = {"areaStyle": {"color": colour, "opacity": 0.18}}
            series.append({**edge, **band, "data": _pairs(at_ms, wide)})
    axis = {"axisLabel": {"color": GREY}, "axisLine": {"lineStyle": {"color": GREY}}}
    return {
        "animation": False,
        "grid": {"left": 54, "right": 14, "top": 32, "bottom": 26},
        "legend": {"top": 2, "icon": "roundRect", "textStyle": {"color": GREY}, "data": list(names.values())},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {"type": "time", **axis},
        "yAxis": {
            "type": "value", "scale": True, **axis,
            "splitLine": {"lineStyle": {"color": GREY, "opacity": 0.25}},
        },
        "series": series,
    }  # fmt: skip


def _signed(name: str, column: Sequence[float | None]) -> list[float | None]:
    sign = -1.0 if name == MIRRORED else 1.0
    return [None if value is None else sign * value for value in column]


def _pairs(at_ms: Sequence[int], column: Sequence[float | None]) -> list[list[Any]]:
    return [[at, None if value is None else round(value, 4)] for at, value in zip(at_ms, column, strict=True)]


def build(house: House, request: Request) -> None:
    with frame(house, request, "/history"):
        if house.store is None:
            with card("History", wide=True):
                html('<p class="muted">None is kept: <code>history.days</code> is 0.</p>')
            return
        _charts(house.store)


def _charts(store: Store) -> None:
    async def load() -> None:
        hours = int(span.value)
        minutes = "seconds" if hours <= 6 else "minutes" if hours <= 720 else "hours"
        download.set_content(
            f'<a href="/history.csv?hours={hours}&level={minutes}" download>These {RANGES[hours]} as CSV</a>'
        )
        now_s = time.time()
        names = [name for drawn in DRAWN.values() for name in drawn]
        try:
            chart = await asyncio.to_thread(store.chart, names, now_s - hours * 3600, now_s, POINTS)
        except HistoryError as error:
            note.set_content(f'<p class="muted">{error}</p>')
            return
        note.set_content(_note(chart))
        for title, drawn in DRAWN.items():
            known = any(value is not None for name in drawn for value in chart.series[name][1])
            sections[title].set_visibility(known)
            if known:
                charts[title].options.clear()
                charts[title].options.update(option(chart, drawn))
                charts[title].update()

    with card(wide=True):
        with ui.element("div").classes("tools"):
            span = ui.select(dict(RANGES), value=24, on_change=load).props("dense outlined")
            download = html("")
        note = html("")
    charts, sections = {}, {}
    for title, drawn in DRAWN.items():
        with card(f"{title}, {SERIES[next(iter(drawn))]}") as sections[title]:
            charts[title] = ui.echart({}).style("height:230px; width:100%")
        sections[title].set_visibility(False)
    ui.timer(0.1, load, once=True)
    ui.timer(AGAIN_S, load)


def _note(chart: Chart) -> str:
    step_s = chart.step_s
    every = (
        f"{step_s:.0f} s" if step_s < 120 else f"{step_s / 60:.0f} min" if step_s < 7200 else f"{step_s / 3600:.0f} h"
    )
    if not chart.at_s:
        return '<p class="muted">Nothing was recorded in this time.</p>'
    unsure = "" if chart.sure else " The clock had not been set for a part of it: those times may be wrong."
    return f'<p class="small muted">A point is {every}: its mean, and as a band its least and most.{unsure}</p>'
