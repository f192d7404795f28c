"""Lines as InfluxDB takes them, to a server that is one; and what waits while it is not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from controller.gateway.hub import Hub, Newest
from controller.gateway.influx import WAITING_MAX, Database, Influx, InfluxError, line, write
from controller.gateway.wall import Stamp
from tests.gateway import statuses


class Server:
    """Answers every POST with `code`; asked: path, authorization and body of each."""

    def __init__(self) -> None:
        self.code, self.asked = 204, list[tuple[str, str | None, str]]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                server.asked.append((self.path, self.headers["authorization"], body))
                self.send_response(server.code)
                if server.code == 301:
                    self.send_header("location", f"{server.url}&elsewhere=1")
                self.end_headers()
                if server.code != 204:
                    self.wfile.write(b'{"message": "no such bucket"}')

            def do_GET(self) -> None:
                server.asked.append((self.path, self.headers["authorization"], "GET"))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/api/v2/write?org=home&bucket=car"


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    yield served
    served.http.shutdown()
    served.http.server_close()


def newest(at_s: float = 1_800_000_000.5, synchronised: bool | None = True) -> Newest:
    return Newest(statuses.running(), 0.0, Stamp(at_s, synchronised))


def influx(put: Any = write, url: str = "http://127.0.0.1:1/write?db=x") -> tuple[Influx, list[str]]:
    said: list[str] = []
    return Influx(Database(url, "a token"), Hub(), said.append, "my, garage", "a=b", put=put), said


def test_a_line_has_what_is_known_and_nothing_else():
    status = {**statuses.running(), "state": 'a "b" \\'}
    status["signals"] = {"soc_pct": 55, "current_a": None, "hvil_ok": True, "isolation_kohm": float("nan")}
    told = line(status, "my, garage", "a=b", 1_800_000_000.5)
    assert told.startswith("packwarden,site=my\\,\\ garage,pack=a\\=b soc_pct=55.0,hvil_ok=true,limit_charge_w=")
    assert 'state="a \\"b\\" \\\\"' in told
    assert told.endswith(" 1800000000500")
    assert "current_a" not in told
    assert "isolation" not in told


def test_it_is_written_with_its_token_and_once(server: Server):
    resident, said = influx(url=server.url)
    told = newest()
    for _ in range(2):
        resident.look(told)
        resident.flush()
    ((path, authorization, body),) = server.asked
    assert path == "/api/v2/write?org=home&bucket=car&precision=ms"
    assert authorization == "Token a token"
    assert body == line(told.status, "my, garage", "a=b", 1_800_000_000.5) + "\n"
    assert said == []


def test_version_1_gets_user_and_password(server: Server):
    write(Database(server.url, "me:secret"), "x y=1\n")
    assert server.asked[0][1] == "Basic bWU6c2VjcmV0"


def test_a_clock_that_is_not_set_leaves_the_time_to_the_database():
    resident, _ = influx()
    resident.look(newest(synchronised=False))
    assert not resident.waiting[0].endswith("500")


def test_what_cannot_be_written_waits_and_is_bounded(server: Server):
    gone = True

    def put(database: Database, lines: str) -> None:
        if gone:
            raise InfluxError("nobody there", again=True)
        write(database, lines)

    resident, said = influx(put, server.url)
    for n in range(WAITING_MAX + 7):
        resident.look(newest(n))
    resident.flush()
    assert (len(resident.waiting), said) == (WAITING_MAX, ["influx: nobody there"])
    gone = False
    resident.flush()
    stamps = [row.rpartition(" ")[2] for _, _, body in server.asked for row in body.splitlines()]
    assert stamps == [str(n * 1000) for n in range(7, WAITING_MAX + 7)]


@pytest.mark.parametrize(("code", "waits"), [(400, 0), (404, 0), (401, 1), (503, 1)])
def test_what_is_refused_for_good_is_dropped_and_said(server: Server, code: int, waits: int):
    server.code = code
    resident, said = influx(url=server.url)
    resident.look(newest())
    resident.flush()
    assert len(resident.waiting) == waits
    assert said[0].startswith(f"influx: {code} ")
    assert "no such bucket" in said[0]


def test_it_follows_nobody_elsewhere_with_lines_and_token(server: Server):
    server.code = 301
    resident, said = influx(url=server.url)
    resident.look(newest())
    resident.flush()
    assert (len(server.asked), len(resident.waiting)) == (1, 1)
    assert said[0].startswith("influx: 301 ")


def test_nobody_there_is_an_error_that_may_pass():
    with pytest.raises(InfluxError) as caught:
        write(Database("http://127.0.0.1:1/write?db=x"), "x y=1\n")
    assert caught.value.again
