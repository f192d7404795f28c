"""The page as a process beside a control process made up of statuses: told what to be on stdin, one word a line.

python -m tests.gateway.page_world FOLDER [guests]

running, held, unheard: what control tells from now on. lose: it is not heard any more. silent: it says nothing more.
refuse: it does no command. Each command it gets is printed, as is what the page tells.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controller.batteries.registry import BATTERIES
from controller.catalogue import CATALOGUE
from controller.config import parse
from controller.gateway.bus import Monitor, Place
from controller.gateway.drafts import Drafts
from controller.gateway.history import History
from controller.gateway.history_store import Store
from controller.gateway.hub import Answer, Hub
from controller.gateway.web import Place as Where
from controller.gateway.web import Web
from controller.gateway.workbench import Workbench
from controller.ports import CanFrame
from sim.tesla_pack import TeslaPack
from tests.gateway import statuses
from tests.live.world import CONFIG

EVERY_S = 0.25


class Control:
    """What the hub hears."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._kind, self._told, self._refusing = hub, "running", 0, False
        hub.attach(self.command)

    async def talk(self) -> None:
        while True:
            if self._kind == "lose":
                self._hub.lose("no controller answers at /run/packwarden/control.sock")
            elif self._kind != "silent":
                self._told += 1
                self._hub.publish(statuses.later(STATUSES[self._kind](), self._told * EVERY_S))
            await asyncio.sleep(EVERY_S)

    def be(self, word: str) -> None:
        if word == "refuse":
            self._refusing = True
        else:
            self._kind = word

    async def command(self, message: Mapping[str, Any]) -> Answer:
        say(f"command {json.dumps(dict(message), sort_keys=True)}")
        if self._refusing:
            return Answer(False, "name: hvil-open still acts <b>here</b>")
        self._kind = {"enable": "running", "acknowledge": "running", "stop": "held"}.get(message["do"], self._kind)
        return Answer(True)


class Car:
    """The frames of a Tesla pack, as an ear hears them; now and then one nobody knows."""

    def __init__(self) -> None:
        self._pack, self._now_ms, self._left = TeslaPack(soc_pct=55.0, temp_c=21.0, seed=1), 0, list[CanFrame]()

    def hear(self, within_s: float) -> tuple[int, CanFrame] | None:
        while not self._left:
            time.sleep(0.01)
            self._now_ms += 10
            self._left = [*self._pack.step(self._now_ms, 0.0), CanFrame(0x7FF, b"\xde\xad", self._now_ms)]
        return round(time.time() * 1e6), self._left.pop(0)

    def close(self) -> None:
        pass


STATUSES = {"running": statuses.running, "held": statuses.held, "unheard": statuses.unheard}


def say(text: str) -> None:
    print(text, flush=True)


async def main(folder: Path, *words: str) -> None:
    hub, store = Hub(), Store(folder)
    config = parse(CONFIG, "controller.toml", CATALOGUE)
    bench = Workbench(folder)
    place = Place("can", "virtual", "car", BATTERIES["tesla_model3"].explain)
    (folder / "controller.toml").write_text(CONFIG)
    web = Web(
        Where("127.0.0.1", 0, folder, guests="guests" in words, metrics_token="a token of some length"), hub, say,
        site="garage", pack="left", store=store, config=config, incidents=folder / "incidents",
        monitors=[Monitor(place, bench.captures, lambda interface, channel: Car())], bench=bench,
        drafts=Drafts(folder / "controller.toml", folder, CATALOGUE),
    )  # fmt: skip
    control = Control(hub)
    async with asyncio.TaskGroup() as group:
        group.create_task(web.run())
        group.create_task(control.talk())
        group.create_task(History(store, hub, say, "boot").run())
        while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
            control.be(word)
            say(f"is {word}")
        raise SystemExit


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
