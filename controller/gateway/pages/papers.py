"""The config as it is, and the incident bundles to take away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

from fastapi import Request

from controller import config as configs
from controller.config import Shown
from controller.gateway.pages.frame import House, card, frame, html
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
        html(_listing(house.incidents) if visitor.may_know else LOG_IN)


def _listing(folder: Path | None) -> str:
    try:
        found = bundles(folder) if folder is not None else []
        rows = "".join(
            f'<tr><td><a href="/incidents/{path.name}" download>{path.name}</a></td><td>{_why(path)}</td>'
            f'<td class="n">{path.stat().st_size / 2**20:.1f} MiB</td></tr>'
            for path in found
        )
    except OSError as error:
        return f'<p class="muted">{escape(str(folder))} cannot be read ({escape(error.strerror or "")}).</p>'
    if not rows:
        return '<p class="muted">None so far.</p>'
    head = "<tr><th>bundle</th><th>why</th><th>size</th></tr>"
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _why(path: Path) -> str:
    found = BUNDLE.fullmatch(path.name)
    return found[3] if found else ""


def config(house: House, request: Request) -> None:
    with frame(house, request, "/config") as visitor:
        if not visitor.may_know or house.config is None:
            with card("Config", wide=True):
                html(LOG_IN)
            return
        with card("Config", wide=True):
            html(
                f'<p class="muted">{escape(house.config.name)} as this gateway read it when it started. To change it: '
                "<code>controller config set KEY VALUE</code> at the machine. Bold is stated, the rest is default.</p>"
            )
        shown = configs.show(house.config)
        for section, names in groupby(shown, key=lambda name: name.partition(".")[0]):
            with card(f"[{section}]"):
                html(_section({name: shown[name] for name in names}))


def _section(shown: Mapping[str, Shown]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(name.partition('.')[2])}</code><div class='small muted'>{escape(key.text)}</div></td>"
        f"<td>{_value(key)}</td></tr>" for name, key in shown.items()
    )  # fmt: skip
    return f'<div class="scroll"><table class="stack">{rows}</table></div>'


def _value(key: Shown) -> str:
    value = UNKNOWN if key.value is None else "“”" if key.value == "" else str(key.value)
    return (
        f"<b>{escape(value)}</b> {escape(key.unit)}" if key.origin == "file" else f"{escape(value)} {escape(key.unit)}"
    )
