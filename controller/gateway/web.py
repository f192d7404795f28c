"""The resident that serves the page: on 127.0.0.1 until a password is set, then by HTTPS.

It begins anew when the password changes; every session ends with that.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from html import escape
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from nicegui import Client, ui

from controller.config import Config
from controller.gateway import certificates, history_export, metrics
from controller.gateway.accounts import Access, Hashed, PasswordError, PasswordFile
from controller.gateway.bus import Monitor, captures
from controller.gateway.certificates import CertificateError, Pair
from controller.gateway.drafts import Drafts
from controller.gateway.guard import COOKIE, Guard
from controller.gateway.history_store import LEVEL_OF, HistoryError, Store
from controller.gateway.hub import Hub
from controller.gateway.metrics import Exporter
from controller.gateway.pages import (
    bus,
    cells,
    events,
    frame,
    history,
    inverter,
    machine,
    now,
    papers,
    recordings,
    style,
)
from controller.gateway.pages.frame import House, Visitor
from controller.gateway.shelf import kept
from controller.gateway.workbench import PLOT, UPLOAD_MAX_BYTES, Workbench

LOOK_S: Final = 2.0
"""How often it is looked whether the password is another one."""
END_S: Final = 3.0
AGAIN_S: Final = 10.0
FORM_COOKIE: Final = "__Host-packwarden-form"
WRONG_S: Final = 1.0
"""A wrong password is answered no sooner."""
CLIENTS_MAX: Final = 24
CONNECTIONS_MAX: Final = 120
MESSAGE_MAX: Final = 64 * 1024
HOURS_MAX: Final = 100_000
BUILDERS: Final[Mapping[str, Callable[[House, Request], None]]] = {
    "/": now.build, "/machine": machine.build, "/cells": cells.build, "/events": events.build,
    "/history": history.build, "/inverter": inverter.build, "/bus": bus.build, "/recordings": recordings.build,
    "/incidents": papers.incidents, "/config": papers.config,
}  # fmt: skip


class Place(NamedTuple):
    """Where it is served, and where its files are. certificate and key: empty for a self-made one."""

    bind: str
    port: int
    state: Path
    certificate: str = ""
    key: str = ""
    guests: bool = False
    metrics_token: str = ""


def place_of(config: Config, state: Path) -> Place:
    names = ("bind", "port", "certificate", "key", "guests", "metrics_token")
    return Place(state=state, **{name: config.values[f"web.{name}"] for name in names})


class Web:
    """`run` never ends by itself. NiceGUI lets a process have one."""

    def __init__(
        self, place: Place, hub: Hub, tell: Callable[[str], None], *, site: str = "home", pack: str = "pack",
        store: Store | None = None, config: Config | None = None, incidents: Path | None = None,
        monitors: Sequence[Monitor] = (), bench: Workbench | None = None, drafts: Drafts | None = None,
    ) -> None:  # fmt: skip
        self._place, self._hub, self._tell = place, hub, tell
        self._password = PasswordFile(place.state)
        self.house = House(hub, site, pack, Access(None, False, time.monotonic), tell, store, config, incidents,
                           monitors, bench, drafts)  # fmt: skip
        self._door = Door(self.house)
        self._app = _app(self.house, self._door, Exporter(hub, site, pack))

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            remembering = group.create_task(self.house.remember())
            try:
                while True:
                    try:
                        await self._serve()
                    except (PasswordError, CertificateError, OSError) as error:
                        self._tell(f"page: {error.strerror if isinstance(error, OSError) else error}")
                        await asyncio.sleep(AGAIN_S)
            finally:
                remembering.cancel()

    async def _serve(self) -> None:
        """Until the password is another one. Raises PasswordError, CertificateError, OSError."""
        password = await asyncio.to_thread(self._password.read)
        self.house.access = Access(password, self._place.guests, time.monotonic)
        pair = await asyncio.to_thread(self._certificate) if password else None
        host = self._place.bind if password else "127.0.0.1"
        guard = Guard(self._app, lambda: self.house.access, self._place.metrics_token, _busy, UPLOAD_MAX_BYTES)
        with _listening(host, self._place.port) as ears:
            self._tell(self._where(host, ears, pair))
            server = _Server(_settings(guard, pair))
            serving = asyncio.create_task(server.serve([ears]))
            try:
                await self._until_another(password, serving)
            finally:
                server.should_exit = True
                with suppress(TimeoutError):
                    await asyncio.wait_for(serving, END_S)

    async def _until_another(self, password: Hashed | None, serving: asyncio.Task[None]) -> None:
        while await asyncio.to_thread(self._password.read) == password:
            await asyncio.wait((serving,), timeout=LOOK_S)
            if serving.done():
                await serving
                raise OSError(0, "the server has ended")

    def _certificate(self) -> Pair:
        place = self._place
        return (
            certificates.own(place.certificate, place.key) if place.certificate else certificates.self_made(place.state)
        )

    def _where(self, host: str, ears: socket.socket, pair: Pair | None) -> str:
        port = ears.getsockname()[1]
        if pair is None:
            return f"page: http://127.0.0.1:{port}, for this machine only until `controller gateway passwd`"
        return f"page: https://{host}:{port}, its certificate has SHA-256 {pair.fingerprint()}"


class _Server(uvicorn.Server):
    """Signals are the gateway's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _settings(app: Any, pair: Pair | None) -> uvicorn.Config:
    return uvicorn.Config(
        app, log_level="error", access_log=False, lifespan="on", server_header=False, proxy_headers=False,
        limit_concurrency=CONNECTIONS_MAX, timeout_keep_alive=20, timeout_graceful_shutdown=1,
        ws_max_size=MESSAGE_MAX, h11_max_incomplete_event_size=32 * 1024,
        ssl_certfile=pair and pair.certificate, ssl_keyfile=pair and pair.key,
    )  # fmt: skip


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Raises OSError, with the address in it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        ears = socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        raise OSError(error.errno, f"{host}:{port} cannot be listened on ({os.strerror(error.errno or 0)})") from None
    with ears:
        yield ears


# --- what is served ---


def _app(house: House, door: Door, exporter: Exporter) -> FastAPI:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/login", door.show, methods=["GET"], response_model=None)
    app.add_api_route("/login", door.log_in, methods=["POST"], response_model=None)
    app.add_api_route("/logout", door.log_out, methods=["POST"], response_model=None)

    async def read_metrics() -> Response:
        return Response(exporter.text(), media_type=metrics.CONTENT_TYPE)

    app.add_api_route("/metrics", read_metrics, methods=["GET"], response_model=None)
    app.add_api_route("/history.csv", partial(_csv, house), methods=["GET"], response_model=None)
    app.add_api_route("/incidents/{name}", partial(_bundle, house), methods=["GET"], response_model=None)
    app.add_api_route("/captures/{name}", partial(_capture, house), methods=["GET"], response_model=None)
    app.add_api_route("/plots/{name}", partial(_plot, house), methods=["GET"], response_model=None)
    logging.getLogger("nicegui").setLevel(logging.ERROR)  # whoever asks for what there is not writes no journal
    for path, build in BUILDERS.items():
        ui.page(path)(_page(house, build))
    ui.run_with(
        app, title=house.title, dark=None, tailwind=False, show_welcome_message=False, reconnect_timeout=10.0,
        binding_refresh_interval=None, message_history_length=0, favicon="🔋",
    )  # fmt: skip
    return app


def _busy() -> bool:
    return len(Client.instances) >= CLIENTS_MAX


def _page(house: House, build: Callable[[House, Request], None]) -> Callable[[Request], None]:
    def page(request: Request) -> None:
        build(house, request)

    return page


def _csv(house: House, hours: int = 24, level: str = "minutes") -> Response:
    if house.store is None or level not in LEVEL_OF or not 1 <= hours <= HOURS_MAX:
        return PlainTextResponse("hours is a number, level is seconds, minutes or hours\n", 400)
    try:
        house.store.span()
    except HistoryError as error:
        return PlainTextResponse(f"{error}\n", 404)
    now_s = time.time()
    lines = history_export.csv_lines(LEVEL_OF[level], house.store.points(LEVEL_OF[level], now_s - hours * 3600, now_s))
    name = f"packwarden-{house.site}-{house.pack}-{level}.csv"
    return StreamingResponse(
        lines, media_type="text/csv", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


def _bundle(house: House, name: str, request: Request) -> Response:
    return _file(house, request, name, house.incidents, papers.bundles, media_type="application/zip", filename=name)


def _capture(house: House, name: str, request: Request) -> Response:
    folder = house.bench.captures if house.bench else None
    return _file(house, request, name, folder, captures, media_type="text/plain", filename=name)


def _plot(house: House, name: str, request: Request) -> Response:
    """A page of its own, which may do nothing in our name."""
    alone = {"content-security-policy": "sandbox allow-scripts"}
    folder = house.bench.plots if house.bench else None
    return _file(house, request, name, folder, partial(kept, pattern=PLOT), media_type="text/html", headers=alone)


def _file(
    house: House, request: Request, name: str, folder: Path | None, there: Callable[[Path], list[Path]], **how: Any
) -> Response:
    """One of the files that are listed, and no other."""
    if not Visitor(house, request).may_know:
        return PlainTextResponse("log in first\n", 403)
    try:
        known = {path.name: path for path in there(folder)} if folder is not None else {}
    except OSError:
        known = {}
    if name not in known:
        return PlainTextResponse("there is no such file\n", 404)
    return FileResponse(known[name], **how)


# --- the way in ---


class Door:
    """The log-in, without a line of script. A form is only taken from the browser it was given to."""

    def __init__(self, house: House, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._house, self._pause = house, pause
        self._one_at_a_time = asyncio.Lock()

    async def show(self, request: Request, next: str = "/") -> Response:
        if self._house.access.password is None:
            return RedirectResponse("/", 303)
        return self._form("", next)

    def _form(self, message: str, then: str, status: int = 200) -> Response:
        form = secrets.token_urlsafe(24)
        page = style.LOGIN.format(
            title=escape(self._house.title), css=style.CSS, form=form, next=escape(_ours(then)),
            message=f'<p class="alert bad" role="alert">{escape(message)}</p>' if message else "",
        )  # fmt: skip
        response = HTMLResponse(page, status, headers={"cache-control": "no-store"})
        response.set_cookie(FORM_COOKIE, form, secure=True, httponly=True, samesite="strict", path="/")
        return response

    async def log_in(self, request: Request) -> Response:
        told = _fields(await request.body())
        form, then = told.get("form", ""), _ours(told.get("next", "/"))
        if not form or not hmac.compare_digest(form.encode(), request.cookies.get(FORM_COOKIE, "").encode()):
            return self._form("The form was too old. Try again.", then, 403)
        address = request.client.host if request.client else "?"
        async with self._one_at_a_time:
            token, wait_s = await asyncio.to_thread(self._house.access.log_in, address, told.get("password", ""))
        if not token:
            self._house.tell(f"page: wrong password from {address}")
            await self._pause(WRONG_S)
            wait = f" The next try is taken in {math.ceil(wait_s)} s." if wait_s else ""
            return self._form(f"That is not the password.{wait}", then, 429 if wait else 401)
        self._house.tell(f"page: logged in from {address}")
        response = RedirectResponse(then, 303)
        response.set_cookie(COOKIE, token, secure=True, httponly=True, samesite="strict", path="/")
        return response

    async def log_out(self, request: Request) -> Response:
        token = request.cookies.get(COOKIE, "")
        session = self._house.access.sessions.of(token)
        told = _fields(await request.body()).get("csrf", "")
        if session is not None and hmac.compare_digest(told.encode(), session.csrf.encode()):
            self._house.access.sessions.end(token)
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="strict", path="/")
        return response


def _fields(body: bytes) -> dict[str, str]:
    """Of a form; the first of each name."""
    try:
        return {name: values[0] for name, values in parse_qs(body.decode("ascii"), max_num_fields=10).items()}
    except ValueError:
        return {}


def _ours(path: str) -> str:
    """A page of ours to go on to, whatever was asked."""
    return path if path in frame.PAGES else "/"
