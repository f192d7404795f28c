"""Recordings that were captured or brought, and their replay: a child process, one at a time, with little of the Pi.

The child is `controller sim --replay FILE --plot PAGE`, niced, with an end to its memory, time and files. Nothing here
grows: UPLOADS_KEPT recordings and PLOTS_KEPT plots are kept, the oldest goes first.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from controller.gateway.shelf import NAME, trim

UPLOAD_MAX_BYTES, UPLOADS_KEPT, PLOTS_KEPT = 64 * 2**20, 8, 8
MEMORY_BYTES, CPU_S, FILE_BYTES = 768 * 2**20, 600, 64 * 2**20
PATIENCE_S: Final = 900.0
TOLD_MAX: Final = 20_000
PLOT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}\.html")


class Job(NamedTuple):
    """A replay. why: how it ended badly, empty when it did not. told: what it printed. plot: empty without one."""

    recording: str
    runs: bool
    why: str = ""
    told: str = ""
    plot: str = ""


class Workbench:
    """job: the last replay, None before the first."""

    def __init__(self, folder: Path, command: Sequence[str] = (sys.executable, "-m", "controller")) -> None:
        self.captures, self.uploads, self.plots = (folder / name for name in ("captures", "uploads", "plots"))
        self.job: Job | None = None
        self._command = command

    async def replay(self, recording: Path) -> None:
        """Run it to its end; what came of it is the job. Beside one that runs nothing is begun."""
        if self.job is not None and self.job.runs:
            return
        self.job = Job(recording.name, runs=True)
        plot = self.plots / f"{recording.stem}.html"
        try:
            self.plots.mkdir(parents=True, exist_ok=True)
            trim(self.plots, PLOTS_KEPT - 1)
            self.job = await self._run(recording, plot)
        except (OSError, asyncio.CancelledError) as error:
            self.job = Job(recording.name, False, getattr(error, "strerror", None) or "it was cancelled")
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _run(self, recording: Path, plot: Path) -> Job:
        """Raises OSError."""
        modest = ("nice", "-n", "15", "prlimit", f"--as={MEMORY_BYTES}", f"--cpu={CPU_S}", f"--fsize={FILE_BYTES}")
        child = await asyncio.create_subprocess_exec(
            *modest, *self._command, "sim", "--replay", str(recording), "--plot", str(plot), cwd=self.plots,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE_S):
                told = await _all(child)
                code = await child.wait()
        except TimeoutError:
            return Job(recording.name, False, f"it took longer than {PATIENCE_S / 60:.0f} min")
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        if code:
            last = told.strip().rpartition("\n")[2]
            why = f"it ended with {code}" if code > 0 else "it took more memory or time than it may"
            return Job(recording.name, False, f"{why}: {last}" if last else why, told)
        return Job(recording.name, False, "", told, plot.name)


async def _all(child: asyncio.subprocess.Process) -> str:
    """What it prints, as far as it is kept."""
    told = b""
    assert child.stdout is not None
    while piece := await child.stdout.read(65536):
        told = (told + piece)[:TOLD_MAX]
    return told.decode(errors="replace")


_being_filled: set[Path] = set()
NEW: Final = ".new"
"""Ends the name of what is not wholly there yet."""


async def keep(folder: Path, name: str, pieces: AsyncIterator[bytes]) -> str:
    """Keep what somebody brings as `name`; why it is not kept, empty when it is."""
    if not NAME.fullmatch(name):
        return "a name has letters, digits, _ . and - only, and begins with a letter or digit"
    if folder in _being_filled:
        return "another one is being brought; try again when it is there"
    fresh = folder / f".{name}{NEW}"
    _being_filled.add(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob(f".*{NEW}"):
            torn.unlink()
        if shutil.disk_usage(folder).free < 2 * UPLOAD_MAX_BYTES:
            return f"less than {2 * UPLOAD_MAX_BYTES // 2**20} MiB are left on the disk"
        trim(folder, UPLOADS_KEPT - 1)
        size = 0
        with fresh.open("wb") as file:
            async for piece in pieces:
                size += len(piece)
                if size > UPLOAD_MAX_BYTES:
                    return f"it is larger than {UPLOAD_MAX_BYTES // 2**20} MiB"
                await asyncio.to_thread(file.write, piece)
        fresh.replace(folder / name)
    except OSError as error:
        return f"it cannot be written ({error.strerror})"
    finally:
        _being_filled.discard(folder)
        fresh.unlink(missing_ok=True)
    return ""
