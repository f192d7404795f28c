"""The config as it is, and the incident bundles to take away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

from fastapi import Request
from nicegui import ui

from controller import config as configs
from controller.config import HIDDEN, ConfigError, Problem, Shown
from controller.gateway.drafts import Drafts
from controller.gateway.pages.frame import House, Visitor, card, frame, html
from controller.gateway.pages.view import UNKNOWN

BUNDLE: Final = re.compile(r"(\d{4,})-(\d{8}T\d{6}Z)-[0-9a-f]{8}-([a-z]+)\.zip")
LOG_IN: Final = '<p class="muted"><a href="/login">Log in</a> to see this.</p>'


def bundles(folder: Path) -> list[Path]:
    """Newest first. Raises OSError."""
    found = [path for path in folder.iterdir() if BUNDLE.fullmatch(path.name)] if folder.exists() else []
    return sorted(found, key=lambda path: int(path.name.partition("-")[0]), reverse=True)


def incidents(house: House, request: Request) -> None:
    with frame(house, request, "/incidents") as visitor, card("Incidents", wide=True):
        html(
            '<p class="muted">The last minutes before a fault or an end, as control wrote them. '
            "<code>controller sim --replay FILE</code> replays one, tick by tick.</p>"
        )
        html(listed(house.incidents, bundles, _bundle, HEAD) if visitor.may_know else LOG_IN)


def listed(
    folder: Path | None, there: Callable[[Path], list[Path]], cells: Callable[[Path], str], head: str = ""
) -> str:
    """The files of a folder, each with its size behind its `cells`; why there is nothing to show."""
    try:
        rows = "".join(
            f'<tr>{cells(path)}<td class="n">{path.stat().st_size / 2**20:.1f} MiB</td></tr>'
            for path in (there(folder) if folder is not None else ())
        )
    except OSError as error:
        return f'<p class="muted">{escape(str(folder))} cannot be read ({escape(error.strerror or "")}).</p>'
    if not rows:
        return '<p class="muted">None so far.</p>'
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'


HEAD: Final = "<thead><tr><th>bundle</th><th>why</th><th>size</th></tr></thead>"


def _bundle(path: Path) -> str:
    return f'<td><a href="/incidents/{path.name}" download>{path.name}</a></td><td>{_why(path)}</td>'


def _why(path: Path) -> str:
    found = BUNDLE.fullmatch(path.name)
    return found[3] if found else ""


def config(house: House, request: Request) -> None:
    with frame(house, request, "/config") as visitor:
        if not visitor.may_know or house.config is None:
            with card("Config", wide=True):
                html(LOG_IN)
            return
        if visitor.may_command and house.drafts is not None:
            with card("Change it", wide=True):
                _editor(house, visitor, house.drafts)
        with card("Config", wide=True):
            html(
                f'<p class="muted">{escape(house.config.name)} as this gateway read it when it started. Bold is '
                "stated, the rest is default.</p>"
            )
        shown = configs.show(house.config)
        for section, names in groupby(shown, key=lambda name: name.partition(".")[0]):
            with card(f"[{section}]"):
                html(_section({name: shown[name] for name in names}))


def _editor(house: House, visitor: Visitor, drafts: Drafts) -> None:
    try:
        present = drafts.present()
        text = drafts.proposed() or present
    except ConfigError as error:
        html(f'<p class="alert bad">{escape(str(error))}</p>')
        return

    async def look() -> None:
        text = area.value
        wrong = await asyncio.to_thread(drafts.problems, text)
        told = _problems(wrong) if wrong else await asyncio.to_thread(_news, drafts, text)
        if text == area.value:
            propose.set_enabled(not wrong)
            said.set_content(told)

    async def keep() -> None:
        if not visitor.may_command:
            ui.notify("You are not logged in any more.", type="negative")
            return
        wrong = await asyncio.to_thread(drafts.propose, area.value)
        house.tell("page: a config is proposed" if not wrong else "page: a config was proposed that is wrong")
        ui.notify("Not kept." if wrong else "Kept as a proposal.", type="negative" if wrong else "positive")
        await look()

    def discard() -> None:
        if not visitor.may_command:
            ui.notify("You are not logged in any more.", type="negative")
            return
        try:
            drafts.discard()
        except OSError as error:
            ui.notify(f"Not discarded ({error.strerror}).", type="negative")
            return
        area.value = present

    html(
        '<p class="muted">What is kept here is a proposal. In force it is after somebody at the machine, with the pack '
        "open, has run <code>sudo controller config apply</code> and restarted the services. A secret is not shown; "
        f"leave <code>{HIDDEN}</code> where it is to stay.</p>"
    )
    area = ui.textarea(value=text, on_change=look).props("outlined debounce=600 spellcheck=false input-class=toml")
    area.classes("wide").style("width:100%")
    said = html("")
    with ui.element("div").classes("tools"):
        propose = ui.button("Propose", on_click=keep).props("no-caps")
        ui.button("Discard", on_click=discard).props("no-caps outline")
    ui.timer(0.0, look, once=True)


def _problems(wrong: Sequence[Problem]) -> str:
    rows = "".join(
        f"<li>{f'line {one.line}, ' if one.line else ''}<code>{escape(one.key)}</code> {escape(one.message)}"
        f'<div class="small muted">{escape(one.fix)}</div></li>' for one in wrong
    )  # fmt: skip
    return f'<div class="alert bad"><ul>{rows}</ul></div>'


def _news(drafts: Drafts, text: str) -> str:
    try:
        lines = drafts.difference(text)
    except ConfigError as error:
        return f'<p class="alert bad">{escape(str(error))}</p>'
    if not lines:
        return '<p class="muted">Nothing is changed.</p>'
    kept = "It is kept as a proposal." if drafts.keeps(text) else "Not kept yet."
    return f'<p>{kept}</p><pre class="scroll small">{escape(chr(10).join(lines[2:]))}</pre>'


def _section(shown: Mapping[str, Shown]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name.partition('.')[2])}</code><div class='small muted'>{escape(key.text)}</div></td>"
        f"<td>{_value(key)}</td></tr>" for name, key in shown.items()
    )  # fmt: skip
    return f'<div class="scroll"><table class="stack">{rows}</table></div>'


def _value(key: Shown) -> str:
    """As it is written in the file."""
    if key.value is None:
        return UNKNOWN
    value = escape("“”" if key.value == "" else key.written)
    return f"<b>{value}</b> {escape(key.unit)}" if key.origin == "file" else f"{value} {escape(key.unit)}"
