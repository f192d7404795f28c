"""Every cell as a bar, their spread, and the temperatures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from fastapi import Request
from nicegui import ui

from controller.gateway.pages import view
from controller.gateway.pages.frame import House, card, frame, html, live
from controller.gateway.pages.view import Item

TEMPERATURES: Final = (Item("temp_min_c", "Coldest sensor", "°C"), Item("temp_max_c", "Hottest sensor", "°C"))
GREY: Final = "#8893a0"
BAR, LOWEST, HIGHEST, OLD = "#3f7fb8", "#d08700", "#b0304a", "#8f98a3"
STEP_V: Final = 0.005


def option(cells_v: list[float | None], old: bool) -> dict[str, Any]:
    """For ECharts. The axis begins just below the lowest cell: a bar's foot is not 0 V."""
    known = [volts for volts in cells_v if volts is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    colour = {low: LOWEST, high: HIGHEST}
    bars = [
        {"value": volts, "itemStyle": {"color": OLD if old else colour.get(volts, BAR)}} if volts is not None else "-"
        for volts in cells_v
    ]
    axis = {"axisLabel": {"color": GREY}, "axisLine": {"lineStyle": {"color": GREY}}}
    return {
        "animation": False,
        "grid": {"left": 52, "right": 8, "top": 12, "bottom": 28},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {"type": "category", "data": [str(number) for number in range(1, len(cells_v) + 1)], **axis},
        "yAxis": {
            "type": "value", "min": _step(low, math.floor), "max": _step(high, math.ceil), **axis,
            "splitLine": {"lineStyle": {"color": GREY, "opacity": 0.25}},
        },
        "series": [{"type": "bar", "name": "V", "data": bars, "barCategoryGap": "20%"}],
    }  # fmt: skip


def _step(volts: float, rounded: Callable[[float], int]) -> float:
    """An end of the axis: at least half a step beyond."""
    beyond = 0.5 if rounded is math.ceil else -0.5
    return round(rounded(volts / STEP_V + beyond) * STEP_V, 3)


def build(house: House, request: Request) -> None:
    with frame(house, request, "/cells"):
        with card("Cells", wide=True):
            spread = html("")
            bars = ui.echart(option([], False)).style("height:320px; width:100%")
            html('<p class="small muted">Amber is the lowest, red the highest. The axis does not begin at 0 V.</p>')
        with card("Temperatures"):
            temperatures = html("")
        with card():
            table = html("")
    drawn: list[Any] = [None]

    def refresh() -> None:
        seen = house.seen()
        spread.set_content(view.spread(seen))
        temperatures.set_content(view.values(seen, TEMPERATURES))
        if seen.status is None:
            return
        cells_v = list(seen.status["cells_v"])
        if (key := (cells_v, seen.old)) != drawn[0]:
            drawn[0] = key
            bars.options.clear()
            bars.options.update(option(cells_v, seen.old))
            bars.update()
            table.set_content(_table(cells_v))

    live(refresh)


def _table(cells_v: list[float | None]) -> str:
    cells = "".join(
        f'<div class="value"><span class="label">{number}</span>'
        f"<span>{view.UNKNOWN if volts is None else view.number(volts, 3)}</span></div>"
        for number, volts in enumerate(cells_v, 1)
    )
    grid = "grid-template-columns:repeat(auto-fill,minmax(62px,1fr))"
    return f'<details><summary>Each cell, V</summary><div class="grid" style="{grid}">{cells}</div></details>'
