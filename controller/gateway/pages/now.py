"""How it is now, and what a person may do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import Request
from nicegui import ui

from controller.gateway.pages import view
from controller.gateway.pages.frame import House, Visitor, card, frame, html, live

NO_PASSWORD: Final = (
    "This page is for this machine only, and commands nothing, until a password is set: "
    "<code>sudo controller gateway passwd</code>. The terminal always can: <code>controller enable</code>, "
    "<code>stop</code>, <code>acknowledge</code>, <code>limit</code>."
)
CAP_HOURS: Final = (1, 2, 4, 8, 24)


def build(house: House, request: Request) -> None:
    with frame(house, request, "/") as visitor:
        with card("Causes that act or are held", wide=True) as faults_card:
            faults = ui.element("div")
        with card():
            state = html("")
        with card():
            charge = html("")
        with card("What the inverter may do"):
            limits = html("")
        with card("Commands"):
            _commands(visitor)
        with card("The pack", wide=True):
            pack, spread = html(""), html("")
        with card(wide=True):
            health = html("")
    shown: list[tuple[str, bool, bool]] = []
    texts: dict[str, ui.html] = {}

    def refresh() -> None:
        seen = house.seen()
        state.set_content(view.state(seen))
        charge.set_content(view.charge(seen))
        limits.set_content(view.limits(seen))
        pack.set_content(view.values(seen, view.PACK))
        spread.set_content(view.spread(seen))
        health.set_content(view.health(seen))
        told = seen.status["faults"] if seen.status else []
        faults_card.set_visibility(bool(told))
        key = [(fault["id"], fault["held"], visitor.may_command) for fault in told]
        if key != shown:
            shown[:] = key
            texts.clear()
            faults.clear()
            with faults:
                for fault in told:
                    texts[fault["id"]] = html("")
                    if fault["held"] and visitor.may_command:
                        _acknowledge(visitor, fault["id"])
        for fault in told:
            texts[fault["id"]].set_content(view.fault(seen, fault))

    live(refresh)


def _acknowledge(visitor: Visitor, name: str) -> None:
    async def acknowledge() -> None:
        await visitor.command({"do": "acknowledge", "name": name}, f"{name} is acknowledged")

    ui.button(f"Acknowledge {name}", on_click=acknowledge).props("outline no-caps").style("margin-top:.4rem")


def _commands(visitor: Visitor) -> None:
    if visitor.house.access.password is None:
        html(f'<p class="muted">{NO_PASSWORD}</p>')
        return
    if not visitor.may_command:
        html('<p class="muted"><a href="/login">Log in</a> to enable, stop, acknowledge or cap the power.</p>')
        return

    async def stop() -> None:
        await visitor.command({"do": "stop"}, "It unloads and opens.")

    with ui.element("div").classes("tools"):
        ui.button("Enable", on_click=_enable_dialog(visitor)).props("no-caps unelevated color=positive")
        ui.button("Stop", on_click=stop).props("no-caps unelevated color=negative")
    html('<p class="muted small" style="margin-top:.8rem">Cap the power for a while:</p>')
    with ui.element("div").classes("tools"):
        charge = ui.number("charge, W", min=0, step=100).props("dense outlined").style("width:8rem")
        discharge = ui.number("discharge, W", min=0, step=100).props("dense outlined").style("width:8rem")
        hours = ui.select({hour: f"{hour} h" for hour in CAP_HOURS}, value=2).props("dense outlined")

        async def cap() -> None:
            asked = {"charge_w": charge.value, "discharge_w": discharge.value}
            known = {name: value for name, value in asked.items() if value is not None}
            if not known:
                ui.notify("State a power first.", type="warning")
                return
            await visitor.command({"do": "cap", **known, "for_s": int(hours.value) * 3600}, "The cap is set.")

        ui.button("Cap", on_click=cap).props("no-caps outline")


def _enable_dialog(visitor: Visitor) -> Callable[[], object]:
    """Asks once more: it closes contactors."""
    with ui.dialog() as dialog, ui.card().classes("card"):
        html("<h2>Enable?</h2><p>The contactors close as soon as every permission is there.</p>")
        with ui.element("div").classes("tools"):

            async def enable() -> None:
                dialog.close()
                await visitor.command({"do": "enable"}, "It is enabled.")

            ui.button("Enable now", on_click=enable).props("no-caps unelevated color=positive")
            ui.button("Not now", on_click=dialog.close).props("no-caps flat")
    return dialog.open
