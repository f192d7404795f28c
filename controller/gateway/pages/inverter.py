"""What the inverter is told and what it says, as it sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fastapi import Request

from controller.gateway.pages import view
from controller.gateway.pages.frame import House, card, frame, html, live
from controller.gateway.pages.view import Seen


def build(house: House, request: Request) -> None:
    with frame(house, request, "/inverter"):
        with card("Inverter", wide=True):
            head = html("")
        with card("In words", wide=True):
            says = html("")
        with card("Registers", wide=True):
            raw = html("")

    def refresh() -> None:
        seen = house.seen()
        if seen.status is None:
            return
        told = seen.status["inverter"]
        head.set_content(_head(seen, told))
        says.set_content(_aged(seen, [_block(first, values) for first, values in told["says"].items()]))
        raw.set_content(_aged(seen, [_words(first, words) for first, words in told["registers"].items()]))

    live(refresh)


_NOTHING = '<p class="muted">This inverter\'s protocol has none to show.</p>'


def _aged(seen: Seen, parts: Sequence[str]) -> str:
    age = f'<p class="age">{view.ago(seen.age_s)} old</p>'
    return f'<div class="{view.fade(seen)}">{"".join(parts)}{age}</div>' if parts else _NOTHING


def _head(seen: Seen, told: Mapping[str, Any]) -> str:
    heard = "never heard" if told["heard_s"] is None else f"heard {view.ago(told['heard_s'] + seen.age_s)} ago"
    go = {True: "it gives its go", False: "it gives no go", None: "it has not said whether it may"}[told["go"]]
    volts = told["battery_voltage_v"]
    measured = "" if volts is None else f"; it measures {view.number(volts, 1)} V at the battery"
    return f"<p><b>{escape(told['name'])}</b>: {heard}; {go}{measured}.</p>"


def _block(first: str, values: Mapping[str, Any]) -> str:
    cells = "".join(
        f'<div class="value"><span class="label">{escape(name)}</span>'
        f"<span>{view.UNKNOWN if value is None else escape(str(value))}</span></div>"
        for name, value in values.items()
    )
    return f'<p class="muted">from register {escape(first)}</p><div class="grid">{cells}</div>'


def _words(first: str, words: Sequence[int]) -> str:
    rows = []
    for at in range(0, len(words), 8):
        cells = "".join(f'<td class="n" title="0x{word:04X}">{word}</td>' for word in words[at : at + 8])
        rows.append(f"<tr><td>{int(first) + at}</td>{cells}</tr>")
    return (
        f'<details><summary>{escape(first)} to {int(first) + len(words) - 1}</summary><div class="scroll">'
        f"<table>{''.join(rows)}</table></div></details>"
    )
