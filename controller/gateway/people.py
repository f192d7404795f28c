"""The residents people look at, as the config asks for them: history, InfluxDB and page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from controller.config import Catalogue, Config
from controller.gateway import influx
from controller.gateway.bus import Ear, Monitor, Place
from controller.gateway.drafts import Drafts
from controller.gateway.history import History
from controller.gateway.history_store import Keep, Store
from controller.gateway.hub import Hub
from controller.gateway.influx import Influx

STATE_FOLDER: Final = Path("/var/lib/packwarden-gateway")
INCIDENTS: Final = Path("/var/lib/packwarden/incidents")
"""Where control writes its bundles."""

Run = Callable[[], Awaitable[None]]


class Knows(NamedTuple):
    """What only the program as a whole knows. title: the battery's, in words. file: the config's."""

    title: str
    file: Path
    catalogue: Catalogue
    buses: Sequence[Place] = ()


def residents(
    config: Config, state: Path, hub: Hub, tell: Callable[[str], None], knows: Knows
) -> Iterator[tuple[str, Run]]:
    """Name and life of each. state: the gateway's own folder."""
    values = config.values
    store = None
    if values["history.days"]:
        keep = Keep(values["history.seconds_days"], values["history.days"], bytes_max=values["history.max_mb"] * 10**6)
        store = Store(Path(values["history.folder"] or state), keep)
        yield "history", History(store, hub, tell).run
    if values["influx.url"]:
        written = Influx(influx.database(values), hub, tell, values["site.name"], values["site.pack"])
        yield "influx", written.run
    if values["web.port"]:
        from controller.gateway.web import Web, place_of  # a hundred MiB, only where it is wanted
        from controller.gateway.workbench import Workbench

        site, pack = values["site.name"], values["site.pack"]
        bench = Workbench(state)
        web = Web(
            place_of(config, state), hub, tell, site=site, pack=pack, store=store, config=config, incidents=INCIDENTS,
            monitors=[Monitor(place, bench.captures, ear) for place in knows.buses], bench=bench,
            drafts=Drafts(knows.file, state, knows.catalogue),
        )  # fmt: skip
        yield "page", web.run


def ear(interface: str, channel: str) -> Ear:
    """What hears a bus. Raises PortError."""
    from drivers.can_ear import CanEar  # only where somebody looks

    return CanEar(interface, channel)
