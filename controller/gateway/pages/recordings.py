"""Recordings that were captured, brought or written by control; each can be replayed here, and its plot looked at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from html import escape
from pathlib import Path

from fastapi import Request
from nicegui import background_tasks, events, ui

from controller.gateway import workbench
from controller.gateway.bus import captures
from controller.gateway.pages import papers
from controller.gateway.pages.frame import House, Visitor, card, frame, html, live
from controller.gateway.shelf import kept
from controller.gateway.workbench import PLOT, UPLOAD_MAX_BYTES, Job, Workbench


def build(house: House, request: Request) -> None:
    with frame(house, request, "/recordings") as visitor:
        bench = house.bench
        if not visitor.may_know or bench is None:
            with card("Recordings", wide=True):
                html(papers.LOG_IN)
            return
        with card("Replay", wide=True):
            html(
                '<p class="muted">Runs a recording through the whole controller of this program, in shadow, and draws '
                "it: one at a time, and with little of the machine. The pack is not touched.</p>"
            )
            if visitor.may_command:
                _choice(house, visitor, bench)
            said = html("")
        with card("Plots", wide=True):
            plots = html("")

    def refresh() -> None:
        said.set_content(_job(bench.job))
        plots.set_content(papers.listed(bench.plots, partial(kept, pattern=PLOT), _plot))

    live(refresh)


def _choice(house: House, visitor: Visitor, bench: Workbench) -> None:
    def known() -> dict[str, str]:
        return {str(path): path.name for path in recordings(house, bench)}

    def replay() -> None:
        if not visitor.may_command:
            ui.notify("You are not logged in any more.", type="negative")
        elif bench.job is not None and bench.job.runs:
            ui.notify("One is running already.", type="warning")
        elif chosen.value in known():
            house.tell(f"page: replay of {Path(chosen.value).name}")
            background_tasks.create(bench.replay(Path(chosen.value)))

    async def take(brought: events.UploadEventArguments) -> None:
        if not visitor.may_command:
            return
        why = await workbench.keep(bench.uploads, brought.file.name, brought.file.iterate())
        ui.notify(why or f"{brought.file.name} is here.", type="negative" if why else "positive")
        chosen.set_options(known(), value=None if why else str(bench.uploads / brought.file.name))

    with ui.element("div").classes("tools"):
        chosen = ui.select(known(), label="Recording").props("dense outlined").style("min-width:16rem")
        ui.button("Replay", on_click=replay).props("no-caps outline")
    _bring(take)


def _bring(take: Callable[[events.UploadEventArguments], object]) -> None:
    ui.upload(
        label="Bring one: candump, ASC, BLF, TRC, CSV, .rtu", on_upload=take, auto_upload=True, max_files=1,
        max_file_size=UPLOAD_MAX_BYTES,
        on_rejected=lambda: ui.notify(f"It is larger than {UPLOAD_MAX_BYTES // 2**20} MiB.", type="negative"),
    ).props("flat bordered").style("max-width:100%; margin-top:.6rem")  # fmt: skip


def recordings(house: House, bench: Workbench) -> list[Path]:
    """Everything that can be replayed here; a folder that cannot be read has none."""
    found: list[Path] = []
    there: list[tuple[Callable[[Path], list[Path]], Path | None]] = [
        (kept, bench.uploads), (captures, bench.captures), (papers.bundles, house.incidents)
    ]  # fmt: skip
    for look, folder in there:
        with suppress(OSError):
            found += look(folder) if folder is not None else []
    return found


def _job(job: Job | None) -> str:
    if job is None:
        return ""
    name = escape(job.recording)
    if job.runs:
        return f'<p class="alert warn">{name} is being replayed…</p>'
    told = f'<details><summary>What it printed</summary><pre class="scroll small">{escape(job.told)}</pre></details>'
    if job.why:
        return f'<p class="alert bad">{name}: {escape(job.why)}</p>{told if job.told else ""}'
    return f'<p>{name}: <a href="/plots/{job.plot}" target="_blank">look at its plot</a></p>{told}'


def _plot(path: Path) -> str:
    return f'<td><a href="/plots/{path.name}" target="_blank">{path.name}</a></td>'
