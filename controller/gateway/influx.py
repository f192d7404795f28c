"""The resident that writes the status to an InfluxDB: line protocol over HTTP, versions 1, 2 and 3 alike.

One line every few seconds; while the database cannot be reached WAITING_MAX of them wait, the oldest is dropped first.
https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/
"""

from __future__ import annotations

import asyncio
import http.client
import math
import urllib.error
import urllib.request
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from controller.gateway.hub import Hub, Newest, Status

WAITING_MAX: Final = 1000
BATCH_MAX: Final = 200
WITHIN_S: Final = 10.0
SAID_MAX: Final = 200


class Database(NamedTuple):
    """url: of writing, with `org` and `bucket`, or `db`. token: empty for none; `user:password` for version 1."""

    url: str
    token: str = ""
    every_s: float = 10.0

    @property
    def headers(self) -> dict[str, str]:
        if not self.token:
            return {}
        if ":" in self.token:
            return {"authorization": f"Basic {b64encode(self.token.encode()).decode()}"}
        return {"authorization": f"Token {self.token}"}


class InfluxError(Exception):
    """It was not written. again: whether the same lines may be written another time."""

    def __init__(self, why: str, again: bool) -> None:
        super().__init__(why)
        self.again = again


def line(status: Status, site: str, pack: str, at_s: float | None) -> str:
    """Everything that is known, as one line. at_s: None lets the database set the time, when our clock is not set."""
    limits = status["limits"]
    fields: dict[str, Any] = {
        **status["signals"],
        "limit_charge_w": limits["charge_w"], "limit_discharge_w": limits["discharge_w"],
        "limited_by_charge": limits["charge_by"], "limited_by_discharge": limits["discharge_by"],
        "state": status["state"], "closed": bool(status["closed"]), "enabled": status["enabled"],
        "causes": ",".join(fault["id"] for fault in status["faults"]),
    }  # fmt: skip
    told = ",".join(f"{name}={text}" for name, value in fields.items() if (text := _field(value)))
    stamp = "" if at_s is None else f" {round(at_s * 1000)}"
    return f"packwarden,site={_tag(site)},pack={_tag(pack)} {told}{stamp}"


def _field(value: Any) -> str:
    """Empty for what is unknown or no single value. Every number is a float, so that its kind never changes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(float(value)) if math.isfinite(value) else ""
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        return f'"{escaped}"'
    return ""


def _tag(text: str) -> str:
    for special in ("\\", ",", "=", " "):
        text = text.replace(special, f"\\{special}")
    return text


class _Stays(urllib.request.HTTPRedirectHandler):
    """Follows nobody elsewhere: the lines would be lost on the way, and the token told to a stranger."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


OPENER: Final = urllib.request.build_opener(_Stays)


def write(database: Database, lines: str) -> None:
    """Raises InfluxError."""
    url = f"{database.url}{'&' if '?' in database.url else '?'}precision=ms"
    request = urllib.request.Request(url, lines.encode(), database.headers)
    try:
        with OPENER.open(request, timeout=WITHIN_S) as answer:
            answer.read(SAID_MAX)
    except urllib.error.HTTPError as error:
        said = error.read(SAID_MAX).decode(errors="replace").strip()
        again = error.code < 400 or error.code in (401, 403, 429, 500, 502, 503, 504)
        raise InfluxError(f"{error.code} {error.reason}: {said}".rstrip(": "), again) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InfluxError(str(getattr(error, "reason", None) or error), True) from None


class Influx:
    """`run` never ends by itself. put: writes lines or raises InfluxError."""

    def __init__(
        self, database: Database, hub: Hub, tell: Callable[[str], None], site: str, pack: str, *,
        put: Callable[[Database, str], None] = write, pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._database, self._hub, self._tell, self._put, self._pause = database, hub, tell, put, pause
        self._names = site, pack
        self.waiting: deque[str] = deque(maxlen=WAITING_MAX)
        self._seen: Newest | None = None

    async def run(self) -> None:
        while True:
            self.look(self._hub.newest)
            await asyncio.to_thread(self.flush)
            await self._pause(self._database.every_s)

    def look(self, newest: Newest | None) -> None:
        """Take the newest status in, once."""
        if newest is not None and newest is not self._seen:
            self._seen = newest
            at_s = newest.stamp.utc_s if newest.stamp.synchronised is not False else None
            self.waiting.append(line(newest.status, *self._names, at_s))

    def flush(self) -> None:
        """Write what waits; what is refused for good is dropped, and said."""
        while self.waiting:
            batch = list(self.waiting)[:BATCH_MAX]
            try:
                self._put(self._database, "\n".join(batch) + "\n")
            except InfluxError as error:
                self._tell(f"influx: {error}")
                if error.again:
                    return
            for _ in batch:
                self.waiting.popleft()


def database(values: Mapping[str, Any]) -> Database:
    """Of the config's values."""
    return Database(values["influx.url"], values["influx.token"], values["influx.every_s"])
