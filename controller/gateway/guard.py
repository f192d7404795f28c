"""What stands before every page: who may come in, how much they may send, and what browsers are told to forbid.

ASGI; it knows no page. The cookie, the Origin of everything that writes, and the size of it are looked at here.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import quote

from controller.gateway.accounts import Access

COOKIE: Final = "__Host-packwarden"
BODY_MAX: Final = 64 * 1024
UPLOAD: Final = re.compile(r"/_nicegui/client/[^/]+/upload/\d+")
ENVELOPE: Final = 16 * 1024
"""What a browser wraps around an uploaded file, at most."""
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC: Final = ("/login", "/favicon.ico", "/_nicegui/")
METRICS: Final = "/metrics"
POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws: wss:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class TooLarge(Exception):
    """More was sent than is taken."""


class Guard:
    """app: what is guarded. access: asked at every request, as it may be another one later. busy: no page more.

    upload_max: the largest file taken, in bytes, from who may command.
    """

    def __init__(
        self, app: App, access: Callable[[], Access], metrics_token: str = "",
        busy: Callable[[], bool] = lambda: False, upload_max: int = 0,
    ) -> None:  # fmt: skip
        self.app, self._access, self._metrics_token, self._busy = app, access, metrics_token, busy
        self._upload_max = upload_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        most = self._most(scope, headers)
        if refusal := self._refusal(scope, headers, most):
            await _refuse(scope, send, *refusal)
            return
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            await self.app(scope, _bounded(receive, most), sent)
        except TooLarge:
            if not started:
                await _refuse(scope, send, 413, "too much was sent")

    def _refusal(self, scope: Scope, headers: dict[str, str], most: int) -> tuple[int, str] | None:
        """Status and reason, None for what may pass."""
        access, host = self._access(), headers.get("host", "")
        if access.password is None and _name(host) not in LOCAL_NAMES:
            return 403, "this page is for this machine only until a password is set"
        writes = scope["type"] == "websocket" or scope["method"] not in READS
        if writes and not _same(headers.get("origin", ""), host):
            return 403, "this comes from another site"
        if not headers.get("content-length", "0").isdigit() or int(headers.get("content-length", "0")) > most:
            return 413, "too much was sent"
        path = scope["path"]
        if path.startswith(PUBLIC):
            return None
        if access.may_look(cookie_of(headers.get("cookie", ""))):
            full = scope["type"] == "http" and not path.startswith(("/_nicegui", METRICS)) and self._busy()
            return (503, "too many pages are open") if full else None
        if path == METRICS and self._is_prometheus(headers.get("authorization", "")):
            return None
        return 401, "log in first"

    def _most(self, scope: Scope, headers: dict[str, str]) -> int:
        """How much may be sent."""
        uploads = UPLOAD.fullmatch(scope["path"]) and self._access().may_command(cookie_of(headers.get("cookie", "")))
        return self._upload_max + ENVELOPE if uploads and self._upload_max else BODY_MAX

    def _is_prometheus(self, authorization: str) -> bool:
        told = f"Bearer {self._metrics_token}"
        return bool(self._metrics_token) and hmac.compare_digest(authorization.encode("latin-1"), told.encode())


def cookie_of(header: str) -> str:
    """The session's token; empty when there is none."""
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _name(host: str) -> str:
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _same(origin: str, host: str) -> bool:
    """Browsers state the origin of all that writes, and nothing but a browser can be led astray."""
    return bool(host) and origin.lower() in (f"https://{host.lower()}", f"http://{host.lower()}")


def _bounded(receive: Receive, most: int) -> Receive:
    taken = 0

    async def received() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > most:
                raise TooLarge
        return message

    return received


async def _refuse(scope: Scope, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
        return
    headers = [*HEADERS, (b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    if status == 401:
        if scope["method"] == "GET" and scope["path"] != METRICS and not scope["path"].startswith("/_nicegui"):
            status = 303
            headers.append((b"location", b"/login?next=" + quote(scope["path"]).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{why}\n".encode()})
