"""The CAN buses as a listener hears them: each id's newest frame with its meaning, and captures to take away."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from nicegui import ui

from controller.gateway.bus import Monitor, Readings, Row, captures
from controller.gateway.pages import view
from controller.gateway.pages.frame import House, Visitor, card, frame, html, live
from controller.gateway.pages.papers import LOG_IN, listed

SPANS: Final = {10: "10 s", 60: "1 min", 300: "5 min", 600: "10 min"}
STAMP: Final = "%Y%m%dT%H%M%SZ"
HEAD: Final = "<tr><th>id</th><th>bytes</th><th>meaning</th></tr>"


def build(house: House, request: Request) -> None:
    with frame(house, request, "/bus") as visitor:
        if not visitor.may_know:
            with card("CAN", wide=True):
                html(LOG_IN)
            return
        if not house.monitors:
            with card("CAN", wide=True):
                html('<p class="muted">No CAN bus is in the config.</p>')
        for monitor in house.monitors:
            _bus(monitor, visitor)
        with card("Captures", wide=True):
            html('<p class="muted">candump text, for canplayer, SavvyCAN or <code>controller sim --replay</code>.</p>')
            listing = html("")

    def refresh() -> None:
        listing.set_content(listed(house.bench.captures if house.bench else None, captures, _capture))

    live(refresh)


def _bus(monitor: Monitor, visitor: Visitor) -> None:
    place = monitor.place
    with card(f"[{place.section}] {place.channel}", wide=True):
        said = html("")
        if visitor.may_command:
            with ui.element("div").classes("tools"):
                span = ui.select(SPANS, value=60, label="Capture").props("dense outlined")

                def begin() -> None:
                    if visitor.may_command:
                        why = monitor.record(float(span.value), time.strftime(STAMP, time.gmtime()))
                        ui.notify(why or "Capturing.", type="negative" if why else "positive")

                ui.button("Begin", on_click=begin).props("no-caps outline")
                ui.button("Stop", on_click=monitor.stop).props("no-caps outline")
        table = html("")

    def refresh() -> None:
        rows = monitor.look()
        said.set_content(_said(monitor, rows))
        table.set_content(shown(rows, [place.explain(row.frame) for row in rows], time.monotonic()))

    live(refresh)


def _said(monitor: Monitor, rows: Sequence[Row]) -> str:
    if monitor.trouble:
        return f'<p class="alert warn">Not heard: {escape(monitor.trouble)}</p>'
    more = f", and {monitor.strangers} frames of more ids" if monitor.strangers else ""
    captured, told = monitor.capture, ""
    if captured is not None:
        how = f"ended: {captured.why}" if captured.why else "goes on"
        size = captured.bytes / 2**20
        told = f"<p>{escape(captured.path.name)}: {captured.frames} frames, {size:.1f} MiB, {escape(how)}.</p>"
    return f'<p class="muted">{len(rows)} ids heard since somebody looks{more}.</p>{told}'


def shown(rows: Sequence[Row], meanings: Sequence[Readings], now_s: float) -> str:
    """One row a frame. The bytes that changed with the last one are bold."""
    if not rows:
        return '<p class="muted">Nothing heard yet.</p>'
    lines = "".join(_row(row, meaning, now_s) for row, meaning in zip(rows, meanings, strict=True))
    return f'<div class="scroll"><table class="stack"><thead>{HEAD}</thead><tbody>{lines}</tbody></table></div>'


def _row(row: Row, meaning: Readings, now_s: float) -> str:
    frame = row.frame
    ident = f"{frame.id:08X}" if frame.extended else f"{frame.id:03X}"
    changed = row.changed.ljust(len(frame.data), b"\0")
    octets = " ".join(
        f"<b>{byte:02X}</b>" if bits else f"{byte:02X}" for byte, bits in zip(frame.data, changed, strict=False)
    )
    every = view.UNKNOWN if row.period_ms is None else f"{row.period_ms:.0f} ms"
    words = "; ".join(
        f"{escape(name)}: {', '.join(f'{escape(key)} {_value(value)}' for key, value in values.items())}"
        for name, values in meaning
    )
    return (
        f'<tr><td style="white-space:nowrap"><code>{ident}</code> <span class="age">{view.ago(now_s - row.at_s)} old, '
        f'every {every}</span></td><td style="white-space:nowrap">{octets}</td>'
        f'<td class="small">{words or view.UNKNOWN}</td></tr>'
    )


def _value(value: Any) -> str:
    return view.UNKNOWN if value is None else escape(f"{value:.6g}" if isinstance(value, float) else str(value))


def _capture(path: Path) -> str:
    return f'<td><a href="/captures/{path.name}" download>{path.name}</a></td>'
