"""The state machine, drawn with the present state and why it is there."""

from __future__ import annotations

from fastapi import Request
from nicegui import ui

from controller.gateway.pages import diagram, view
from controller.gateway.pages.frame import House, card, frame, html, live

CONFIG = {"theme": "neutral", "securityLevel": "strict", "state": {"nodeSpacing": 50, "rankSpacing": 60}}

TO_PRESENT = """setTimeout(() => document.querySelector(".paper .present")?.scrollIntoView(
  {inline: "center", block: "nearest"}), 700)"""
"""On a narrow screen the drawing is wider than the window."""


def build(house: House, request: Request) -> None:
    with frame(house, request, "/machine"):
        with card(wide=True):
            drawing = ui.mermaid("stateDiagram-v2", config=CONFIG).classes("paper")
            html('<p class="small muted">Yellow is where it is, blue is energised. Only what this wiring can do.</p>')
        with card(wide=True):
            state, ways = html(""), html("")
    drawn = [""]

    def refresh() -> None:
        seen = house.seen()
        if seen.status is None:
            return
        status = seen.status
        chart = diagram.chart_of(status["listen_only"])
        where = diagram.mermaid(chart, status["wiring"], status["state"])
        if where != drawn[0]:
            drawn[0] = where
            drawing.set_content(where)
            ui.run_javascript(TO_PRESENT)
        state.set_content(view.state(seen))
        ways.set_content(diagram.ways_out(chart, status["wiring"], status["state"]))

    live(refresh)
