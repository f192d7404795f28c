"""The residents people look at, as the config asks for them: history and page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from controller.config import Config
from controller.gateway.history import History
from controller.gateway.history_store import Keep, Store
from controller.gateway.hub import Hub

STATE_FOLDER: Final = Path("/var/lib/packwarden-gateway")
INCIDENTS: Final = Path("/var/lib/packwarden/incidents")
"""Where control writes its bundles."""

Run = Callable[[], Awaitable[None]]


def residents(config: Config, state: Path, hub: Hub, tell: Callable[[str], None]) -> Iterator[tuple[str, Run]]:
    """Name and life of each. state: the gateway's own folder."""
    values = config.values
    store = None
    if values["history.days"]:
        keep = Keep(values["history.seconds_days"], values["history.days"], bytes_max=values["history.max_mb"] * 10**6)
        store = Store(Path(values["history.folder"] or state), keep)
        yield "history", History(store, hub, tell).run
    if values["web.port"]:
        from controller.gateway.web import Web, place_of  # a hundred MiB, only where it is wanted

        site, pack = values["site.name"], values["site.pack"]
        web = Web(
            place_of(config, state), hub, tell, site=site, pack=pack, store=store, config=config, incidents=INCIDENTS
        )
        yield "page", web.run
