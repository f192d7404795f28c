"""What happened: the newest first, with what it means, what likely is behind it and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from html import escape
from typing import Final

from fastapi import Request
from nicegui import ui

from controller.gateway.history_store import HistoryError, Told
from controller.gateway.pages import view
from controller.gateway.pages.frame import House, card, frame, html
from controller.model.events import Event, Severity
from controller.model.texts import TEXTS

PAGE: Final = 60
OPENED: Final = ("VERIFYING_OPEN", "OPENING_POSITIVE", "UNLOADING")
REACTION_MAX_S: Final = 60.0
ACTS: Final = ("open", "lock-out", "graceful")


def table(events: Sequence[Told]) -> str:
    """Newest first, as they come."""
    rows = "".join(_row(event, _reaction(events, index)) for index, event in enumerate(events))
    if not rows:
        return '<p class="muted">Nothing has happened.</p>'
    head = "<tr><th>when</th><th>severity</th><th>what</th></tr>"
    return f'<div class="scroll"><table class="events stack"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _row(event: Told, reaction: str) -> str:
    text = TEXTS[Event(event.id)] if event.id in Event._value2member_map_ else None
    detail = f' <span class="muted">{escape(event.detail)}</span>' if event.detail else ""
    what = f"<code>{escape(event.id)}</code>{detail}{reaction}"
    if text is not None and event.id != Event.STATE_CHANGED.value:
        more = f"<div>Likely: {escape(text.cause)}</div><div>Do: {escape(text.todo)}</div>"
        what += f'<details><summary class="muted">{escape(text.what)}</summary>{more}</details>'
    severity = escape(event.severity)
    return (
        f"<tr><td>{view.when(event.at_s, event.synchronised)}</td><td><span class='sev {severity}'>{severity}</span>"
        f"</td><td>{what}</td></tr>"
    )


def _reaction(events: Sequence[Told], index: int) -> str:
    """How long after a cause the state changed for it. Events are newest first."""
    event = events[index]
    if event.severity not in ACTS:
        return ""
    for later in reversed(events[:index]):
        if later.at_s - event.at_s > REACTION_MAX_S:
            break
        if later.id == Event.STATE_CHANGED.value and any(f"→ {state}" in later.detail for state in OPENED):
            state = later.detail.partition("→ ")[2].partition(":")[0]
            return f" <b>{escape(state)} after {later.at_s - event.at_s:.2f} s</b>"
    return ""


def build(house: House, request: Request) -> None:
    before: list[int | None] = [None]

    async def load() -> None:
        try:
            found = await asyncio.to_thread(_events, house, before[0], not serious.value)
        except HistoryError as error:
            listing.set_content(f'<p class="muted">{escape(str(error))}</p>')
            return
        listing.set_content(table(found))
        last[0] = found[-1].number or None if found else None
        older.set_visibility(len(found) == PAGE and last[0] is not None)
        newest.set_visibility(before[0] is not None)

    async def turn() -> None:
        before[0] = last[0]
        await load()

    async def first() -> None:
        before[0] = None
        await load()

    async def again() -> None:
        numbered = house.hub.happened[-1].number if house.hub.happened else 0
        if before[0] is None and numbered != heard[0]:
            heard[0] = numbered
            await load()

    last: list[int | None] = [None]
    heard = [-1]
    with frame(house, request, "/events"), card("Events", wide=True):
        serious = ui.checkbox("warnings and worse", on_change=first)
        listing = html("")
        with ui.element("div").classes("tools"):
            newest = ui.button("Newest", on_click=first).props("no-caps outline")
            older = ui.button("Older", on_click=turn).props("no-caps outline")
    ui.timer(2.0, again)


def _events(house: House, before: int | None, mild: bool) -> list[Told]:
    """What the history has, and first what it has not written yet. Raises HistoryError."""
    fresh = [] if before is not None else [
        Told(0, one.stamp.utc_s, one.t_s, one.stamp.synchronised, one.id, one.severity, one.detail)
        for one in reversed(tuple(house.hub.happened)) if mild or one.severity != Severity.INFO.value
    ]  # fmt: skip
    try:
        stored = house.store.events(PAGE, before, mild) if house.store else []
    except HistoryError:
        if before is not None:
            raise
        stored = []
    known = {(one.t_s, one.id, one.detail) for one in stored}
    return [*(one for one in fresh if (one.t_s, one.id, one.detail) not in known), *stored][:PAGE]
