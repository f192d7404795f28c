"""A black box on any loop over memory ports: what `controller.live` does around it, and the bundle that comes of it."""

from __future__ import annotations

from pathlib import Path

from controller.blackbox import BlackBox, Decided
from controller.incident import Fill, Keeper
from controller.loop import Loop
from controller.ports import Inputs, Outputs
from drivers.incidents import Incidents


class NoStore:
    """Bundles are named, and never made."""

    def __init__(self) -> None:
        self.trouble = self.newest = ""
        self.wanted: list[tuple[str, Fill]] = []

    def store(self, why: str, fill: Fill) -> str:
        self.wanted.append((why, fill))
        return f"{len(self.wanted):04}-{why}.zip"


class Kept:
    """Records every tick of `loop` from now on. begun: the bundles that began by themselves, by the tick's time."""

    def __init__(self, loop: Loop, folder: Path | None = None, box: BlackBox | None = None, config: str = "") -> None:
        self.loop, self.store = loop, NoStore() if folder is None else Incidents(folder)
        self.box = box or BlackBox()
        self.keeper = Keeper(self.box, self.store, "1.0", config)
        self.begun: list[tuple[int, str]] = []
        self.by, self.folder = "", folder
        self._before, self._tick, loop.recorder = loop.recorder, loop.tick, self._took
        loop.tick = self._ticked  # type: ignore[method-assign]

    def _took(self, inputs: Inputs, now_ms: int) -> None:
        if self._before is not None:
            self._before(inputs, now_ms)
        self.keeper.took(inputs, now_ms)

    def _ticked(self) -> Outputs:
        was = self.loop.state
        outputs = self._tick()
        now_ms = self.loop.ports.clock.now_ms()
        error = "" if self.loop.error is None else repr(self.loop.error)
        if begun := self.keeper.decided(Decided(was, self.loop.state, outputs, now_ms, self.by, error)):
            self.begun.append((now_ms, begun))
        self.by = ""
        return outputs

    def bundle(self, why: str = "it was told to stop") -> Path:
        """The run is over: its last bundle."""
        assert self.folder is not None
        assert isinstance(self.store, Incidents)
        name = self.keeper.end(why, self.loop.ports.clock.now_ms())
        assert self.store.close(60.0), self.store.trouble
        return self.folder / name
