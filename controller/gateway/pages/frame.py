"""What every page has: the head with the state, the way to the other pages, and what a visitor may do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from nicegui import ui

from controller.config import Config
from controller.gateway.accounts import Access
from controller.gateway.bus import Monitor
from controller.gateway.drafts import Drafts
from controller.gateway.guard import COOKIE
from controller.gateway.history_store import Store
from controller.gateway.hub import Hub, Newest
from controller.gateway.pages import style, view
from controller.gateway.pages.view import Seen
from controller.gateway.workbench import Workbench

REFRESH_S: Final = 1.0
PAGES: Final[Mapping[str, str]] = {
    "/": "Now", "/machine": "Machine", "/cells": "Cells", "/events": "Events", "/history": "History",
    "/inverter": "Inverter", "/bus": "Bus", "/recordings": "Recordings", "/incidents": "Incidents", "/config": "Config",
}  # fmt: skip
KNOWN_ONLY: Final = ("/bus", "/recordings", "/incidents", "/config")


@dataclass
class House:
    """What the pages show, and whom they obey. store: None without history. newest: the last status ever heard."""

    hub: Hub
    site: str
    pack: str
    access: Access
    tell: Callable[[str], None]
    store: Store | None = None
    config: Config | None = None
    incidents: Path | None = None
    monitors: Sequence[Monitor] = ()
    bench: Workbench | None = None
    drafts: Drafts | None = None
    now_s: Callable[[], float] = time.monotonic
    newest: Newest | None = field(default=None)

    @property
    def title(self) -> str:
        return f"packwarden {self.site} {self.pack}"

    def seen(self) -> Seen:
        """The status to be shown; that of before when control is not heard any more."""
        self.newest = self.hub.newest or self.newest
        if self.newest is None:
            return Seen(None, 0.0, self.hub.lost)
        return Seen(self.newest.status, self.now_s() - self.newest.at_s, self.hub.lost)

    async def remember(self) -> None:
        """Keeps the last status, whoever looks."""
        seen = 0
        while True:
            seen = await self.hub.changed(seen)
            self.newest = self.hub.newest or self.newest


class Visitor:
    """One browser at one page."""

    def __init__(self, house: House, request: Request) -> None:
        self.house, self._token = house, request.cookies.get(COOKIE, "")
        self._address = request.client.host if request.client else "?"

    @property
    def may_command(self) -> bool:
        """Asked again at every command: a session ends."""
        return self.house.access.may_command(self._token)

    @property
    def may_know(self) -> bool:
        return self.house.access.may_know(self._token)

    @property
    def csrf(self) -> str:
        session = self.house.access.sessions.of(self._token)
        return session.csrf if session else ""

    async def command(self, message: Mapping[str, Any], done: str) -> bool:
        """Have control do it, and show what became of it."""
        if not self.may_command:
            ui.notify("You are not logged in any more.", type="negative")
            return False
        told = " ".join(f"{name} {value}" for name, value in message.items() if name != "do")
        self.house.tell(f"page: {message['do']} {told} by {self._address}".replace("  ", " "))
        answer = await self.house.hub.command(message, f"page, {self._address}")
        if answer.done:
            ui.notify(done, type="positive")
        else:
            ui.notify(f"Refused: {answer.why}", type="negative", timeout=10_000, close_button="OK")
        return answer.done


@contextmanager
def frame(house: House, request: Request, here: str) -> Iterator[Visitor]:
    """The page around what is built inside."""
    visitor = Visitor(house, request)
    ui.add_css(style.CSS)
    ui.page_title(f"{PAGES[here]} · {house.title}")
    with ui.element("header").classes("top"), ui.element("div").classes("in"):
        with ui.element("div").classes("line"):
            html(f'<a class="name" href="/">{escape(house.site)} {escape(house.pack)}</a>')
            with ui.element("div").classes("row"):
                chip = html(view.chip(house.seen()))
                _door(visitor)
        links = "".join(
            f'<a href="{path}"{_mark(path == here)}>{name}</a>'
            for path, name in PAGES.items() if visitor.may_know or path not in KNOWN_ONLY
        )  # fmt: skip
        html(f'<nav class="pages">{links}</nav>')
    with ui.element("div").classes("page"):
        banner = html(view.banner(house.seen())).classes("wide")
        yield visitor

    def refresh() -> None:
        seen = house.seen()
        chip.set_content(view.chip(seen))
        banner.set_content(view.banner(seen))

    ui.timer(REFRESH_S, refresh)


def _mark(here: bool) -> str:
    return ' class="here" aria-current="page"' if here else ""


def _door(visitor: Visitor) -> None:
    """The way in and out."""
    if visitor.may_command:
        html(
            '<form method="post" action="/logout"><input type="hidden" name="csrf" '
            f'value="{escape(visitor.csrf)}"><button class="link">Log out</button>'
            "</form>"
        )
    elif visitor.house.access.password is not None:
        html('<a href="/login">Log in</a>')


def html(content: str) -> ui.html:
    """HTML of our own; whatever comes from elsewhere in it has been escaped."""
    return ui.html(content, sanitize=False)


@contextmanager
def card(title: str = "", wide: bool = False) -> Iterator[ui.element]:
    with ui.element("section").classes("card wide" if wide else "card") as element:
        if title:
            html(f"<h2>{escape(title)}</h2>")
        yield element


def live(refresh: Callable[[], None]) -> None:
    """Now, and again and again."""
    refresh()
    ui.timer(REFRESH_S, refresh)
