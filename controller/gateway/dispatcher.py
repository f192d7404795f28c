"""The resident that steers one inverter: owns the expiry, keeps what was there before, and puts it back.

A dispatch ends by expiry, on request, on a fault, without the control process, when the inverter does not do as told,
and with the gateway. A failed way back is tried again for as long as it takes, by the next start too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from controller.gateway import dispatch
from controller.gateway.brands import BRANDS, HOLDING, Inverter, Read, Refused, Site, Write
from controller.gateway.dispatch import POLL_S, Live, Over, Steering, Wish
from controller.gateway.modbus_tcp import ModbusTcp
from controller.gateway.restore_file import Restore, RestoreFile, RestoreFileError
from controller.ports import BusError

RESTORE_PATH = Path("/var/lib/packwarden/dispatch-restore.json")
LIVE_WAIT_S = 1.0
LAST_TRIES = 4
"""Attempts to put the inverter back before the gateway exits; the next start goes on."""


class Limits(Protocol):
    """The feed from the control process."""

    async def newest(self) -> Live | None:
        """What it said last; None when it never did, or is gone."""


class Link(Protocol):
    """An inverter's registers. Reading and writing raise BusError."""

    async def read(self, read: Read) -> tuple[int, ...]: ...
    async def write(self, wire: int, values: tuple[int, ...]) -> None: ...
    async def close(self) -> None: ...


def site_of(values: Mapping[str, Any]) -> Site | None:
    """The inverter of the config ("dispatch.host" → value); None when none is named."""
    kind, host = values["dispatch.inverter"], values["dispatch.host"].strip()
    if kind not in BRANDS or not host:
        return None
    names = ("port", "unit", "sungrow_mode", "timeout_s")
    return Site(kind, host, *(values[f"dispatch.{name}"] for name in names))


@dataclass
class _Owed:
    """An inverter that is not put back yet. inverter: recognised already; None when that has to be done again."""

    restore: Restore
    why: str
    inverter: Inverter | None = None
    tries: int = 0
    next_s: float = 0.0
    problem: str = ""


class Dispatcher:
    """One inverter at a time, one request after the other.

    max_power_w: that of the config. now_s and pause: the clock. tell: one line for the journal.
    """

    def __init__(
        self, site: Site | None, max_power_w: float, limits: Limits, file: RestoreFile,
        *, tell: Callable[[str], None], connect: Callable[[Site], Link] = ModbusTcp,
        now_s: Callable[[], float] = time.monotonic, pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._site, self._max_power_w, self._limits, self._file = site, max_power_w, limits, file
        self._tell, self._connect, self._now_s, self._pause = tell, connect, now_s, pause
        self._lock = asyncio.Lock()
        self._links: dict[tuple[str, int, int], Link] = {}
        self._steering: Steering | None = None
        self._owed: _Owed | None = None
        self._broken = ""
        self._ended = ""

    # --- its life ---

    async def run(self) -> None:
        """Until it is cancelled; then the inverter is put back before it returns."""
        try:
            await self.begin()
            while True:
                await self._pause(POLL_S)
                await self.tick()
        finally:
            await self.end()

    async def begin(self) -> None:
        """First of all: put back what an earlier run left steered."""
        async with self._lock:
            await self._load()

    async def tick(self) -> None:
        """Every two seconds: clamp again, or try again to put the inverter back."""
        async with self._lock:
            if self._owed is not None:
                if self._now_s() >= self._owed.next_s:
                    await self._put_back()
            elif self._steering is not None:
                await self._steer(self._steering)
            elif self._broken:
                await self._load()
            else:
                await self._hang_up()

    async def end(self) -> None:
        """Put the inverter back, in a few attempts."""
        async with self._lock:
            if self._steering is not None:
                await self._finish("the gateway stops")
            for tries in range(1, LAST_TRIES):
                if self._owed is None:
                    break
                await self._pause(dispatch.back_off_s(tries))
                await self._put_back()
            await self._hang_up()

    # --- what is asked ---

    async def status(self) -> dict[str, Any]:
        """What is running, until when, clamped to what; what ended last; what is not put back."""
        s, owed = self._steering, self._owed
        running = None
        if s is not None:
            running = {
                "inverter": s.inverter.title, "direction": "charge" if s.wish.charge else "discharge",
                "asked_w": s.wish.power_w, "allowed_w": abs(s.allowed_w), "told_w": abs(s.power_w),
                "battery_w": s.battery_w, "left_s": max(0, round(s.wish.until_s - self._now_s())),
            }  # fmt: skip
        problem = self._broken or (owed.problem if owed is not None else "")
        return {"running": running, "ended": self._ended, "problem": problem}

    async def dispatch(self, charge: bool, power_w: int, for_s: int, dry_run: bool = False) -> dict[str, Any]:
        """Steer from now on, in place of what was running. Returns the plan.

        Raises Refused: then nothing was changed, or it is being put back.
        """
        async with self._lock:
            try:
                return await self._dispatch(Wish(power_w, charge, self._now_s() + for_s), dry_run)
            except (BusError, RestoreFileError) as error:
                raise Refused(str(error)) from None

    async def auto(self) -> bool:
        """Put the inverter back now. False when nothing was running. Raises Refused while that fails."""
        async with self._lock:
            was = self._steering is not None or self._owed is not None
            if self._steering is not None:
                await self._finish("asked to")
            elif self._owed is not None:
                await self._put_back()
            self._all_put_back()
            return was

    def _all_put_back(self) -> None:
        """Raises Refused while the inverter of an earlier dispatch is not."""
        if self._broken:
            raise Refused(self._broken)
        if self._owed is not None:
            raise Refused(f"the inverter is not put back yet, and tried again: {self._owed.problem}")

    async def _dispatch(self, wish: Wish, dry_run: bool) -> dict[str, Any]:
        self._all_put_back()
        live = await self._newest()
        why = dispatch.unfit(live, self._now_s())
        if why or live is None:
            raise Refused(why)
        s = self._steering
        after = replace(s, wish=wish) if s is not None else await self._recognised(wish)
        plan = {
            "inverter": after.inverter.title, "serial": after.inverter.serial, "asked_w": wish.power_w,
            "allowed_w": abs(dispatch.allowed_w(wish, live, after.max_w)),
            "changes": [row for w in dispatch.planned(after, live) for row in dispatch.words(w, after.known)],
            "runs": not dry_run,
        }  # fmt: skip
        if dry_run:
            return plan
        if s is None:
            self._file.store(Restore(after.site, after.inverter.serial, after.kept))
        self._steering, self._ended = after, ""
        direction = "charge" if wish.charge else "discharge"
        self._tell(f"dispatch: {after.inverter.title}: {direction} with {wish.power_w} W, {plan['allowed_w']} W now")
        await self._steer(after)
        if self._steering is None:
            raise Refused(self._ended)
        return plan

    async def _recognised(self, wish: Wish) -> Steering:
        """Reads only. Raises Refused and BusError."""
        if self._site is None:
            raise Refused("no inverter to steer: state dispatch.inverter and dispatch.host in controller.toml")
        link = self._linked(self._site)
        inverter = await _recognise(link, self._site)
        return dispatch.begin(self._site, inverter, await _polled(link, inverter), wish, self._max_power_w)

    # --- steering ---

    async def _steer(self, s: Steering) -> None:
        """One step, or the end of it."""
        link = self._linked(s.site)
        try:
            seen = await _polled(link, s.inverter)
            moved = dispatch.step(s, await self._newest(), seen, self._now_s())
            if isinstance(moved, Over):
                await self._finish(moved.why)
                return
            after, writes = moved
            for write in writes:
                await _written(link, write)
        except BusError as error:
            await self._finish(str(error))
            return
        if (after.allowed_w == 0) != (s.allowed_w == 0):
            self._tell("dispatch: idle, the pack allows nothing" if after.allowed_w == 0 else "dispatch: under way")
        self._steering = after

    async def _finish(self, why: str) -> None:
        """Steering is over: from now on the inverter has to be put back."""
        s, self._steering = self._steering, None
        if s is None:
            return
        self._tell(f"dispatch: over: {why}")
        self._ended = why
        self._owed = _Owed(Restore(s.site, s.inverter.serial, s.kept), why, s.inverter)
        await self._put_back()

    async def _put_back(self) -> None:
        """One attempt. The file goes only after the inverter said that everything is as it was."""
        owed = self._owed
        if owed is None:
            return
        site, kept = owed.restore.site, owed.restore.kept
        try:
            link = self._linked(site)
            inverter = owed.inverter or await self._the_same(link, owed.restore)
            for write in inverter.restore(kept):
                await _written(link, write)
            if (holds := inverter.kept(await _polled(link, inverter))) != kept:
                raise BusError(f"it holds {holds}, not {dict(kept)}")
            self._file.remove()
        except (BusError, Refused, RestoreFileError) as error:
            owed.inverter = None
            owed.tries += 1
            owed.next_s = self._now_s() + dispatch.back_off_s(owed.tries)
            problem = f"the inverter at {site.host} could not be put back ({owed.why}): {error}"
            if problem != owed.problem:
                self._tell(f"dispatch: {problem}; trying again")
            owed.problem = problem
            return
        self._owed = None
        self._tell(f"dispatch: the inverter is as it was before: {owed.why}")

    async def _the_same(self, link: Link, restore: Restore) -> Inverter:
        """The inverter of the record, recognised anew. Raises Refused for another one, which is left alone."""
        inverter = await _recognise(link, restore.site)
        if inverter.serial != restore.serial:
            raise Refused(f"another inverter answers there: {inverter.serial}, not {restore.serial}")
        if inverter.kept(await _polled(link, inverter)).keys() != restore.kept.keys():
            raise Refused(f"{self._file.path} names other registers")
        return inverter

    async def _load(self) -> None:
        """Put back what the file says. One that is not understood stays, and nothing is steered while it does."""
        try:
            left = self._file.read()
        except RestoreFileError as error:
            if str(error) != self._broken:
                self._tell(f"dispatch: {error}")
            self._broken = str(error)
            return
        self._broken = ""
        if left is not None:
            self._owed = _Owed(left, "an earlier run left it steered")
            await self._put_back()

    def _linked(self, site: Site) -> Link:
        where = (site.host, site.port, site.unit)
        if where not in self._links:
            self._links[where] = self._connect(site)
        return self._links[where]

    async def _hang_up(self) -> None:
        while self._links:
            await self._links.popitem()[1].close()

    async def _newest(self) -> Live | None:
        """None as well when the feed does not answer."""
        with suppress(OSError, TimeoutError):
            return await asyncio.wait_for(self._limits.newest(), LIVE_WAIT_S)
        return None


async def _recognise(link: Link, site: Site) -> Inverter:
    seen: dict[Read, tuple[int, ...]] = {}
    while isinstance(found := BRANDS[site.inverter](site, seen), Read):
        seen[found] = await link.read(found)
    return found


async def _polled(link: Link, inverter: Inverter) -> dict[Read, tuple[int, ...]]:
    return {read: await link.read(read) for read in inverter.polls}


async def _written(link: Link, write: Write) -> None:
    """Write, then read back. A register that fades may have counted down already."""
    first = write.registers[0].wire
    await link.write(first, write.values)
    held = await link.read(Read(HOLDING, first, len(write.values)))
    for register, wanted, got in zip(write.registers, write.values, held, strict=True):
        if got != wanted and not (register.fades and 0 < got <= wanted):
            raise BusError(f"{register.doc} {register.name} was written {wanted} and reads {got}")
