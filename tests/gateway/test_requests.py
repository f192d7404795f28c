"""`controller dispatch` and the gateway's socket, from the typed line to the inverter's registers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from controller.gateway import commands, requests
from controller.gateway.brands import Site
from controller.gateway.dispatch import Live
from controller.gateway.dispatcher import Dispatcher
from controller.gateway.limits import ControlLimits
from controller.gateway.restore_file import RestoreFile
from sim.tcp_inverters import SungrowSim

app = typer.Typer()
app.command()(commands.dispatch)


@dataclass
class Gateway:
    sim: SungrowSim
    path: Path
    dispatcher: Dispatcher
    live: Live

    async def typed(self, line: str) -> tuple[int, str]:
        """What a person types after `controller dispatch`: exit status and what is printed."""
        args = [*line.split(), "--socket", str(self.path)]
        result = await asyncio.to_thread(CliRunner().invoke, app, args)
        return result.exit_code, result.output

    async def asked(self, line: bytes) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(line)
        answer = json.loads(await reader.readline())
        writer.close()
        assert isinstance(answer, dict)
        return answer


class Steady:
    """A feed that always says the same, just now."""

    def __init__(self, live: Live) -> None:
        self.live = live

    async def newest(self) -> Live | None:
        return self.live


def told(tmp_path: Path, story: Callable[[Gateway], Awaitable[None]], running: bool = True) -> None:
    async def run() -> None:
        live = Live(2400.0, 6000.0, running, fault=False, at_s=0.0)
        async with SungrowSim() as sim:
            dispatcher = Dispatcher(
                Site("sungrow", sim.host, sim.port, sungrow_mode=2), 5000.0, Steady(live),
                RestoreFile(tmp_path / "restore.json"), tell=lambda line: None, now_s=lambda: 0.0,
            )  # fmt: skip
            path = tmp_path / "gateway.sock"
            async with requests.serving(path, partial(requests.answer, dispatcher)):
                await story(Gateway(sim, path, dispatcher, live))
            assert not path.exists()

    asyncio.run(run())


# --- what a person sees ---


def test_it_shows_what_it_changes_and_what_runs(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        status, shown = await gateway.typed("--charge 3000 --for 2h")
        assert status == 0
        assert [line.split(maxsplit=1) for line in shown.splitlines()[:4]] == [
            ["Sungrow", "type 0x0E03, serial number A2290612345: 2400 of 3000 W"],
            ["13052", "forced power       0 W → 2400 W"],
            ["13051", "forced command     stop → charge"],
            ["13050", "EMS mode           self-consumption → forced"],
        ]
        assert "charge with 1000 W (asked 3000 W, allowed 2400 W)" in shown
        assert "2 h left" in shown
        status, shown = await gateway.typed("")
        assert status == 0
        assert "charge with 1000 W" in shown
        assert await gateway.typed("--auto") == (0, "the inverter is as it was before\n")
        assert gateway.sim.holding[13049] == 0
        assert await gateway.typed("") == (0, "nothing is running; the last dispatch ended: asked to\n")
        assert await gateway.typed("--auto") == (0, "nothing was running\n")

    told(tmp_path, story)


def test_a_dry_run_says_that_nothing_was_written(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        status, shown = await gateway.typed("--discharge 3000 --for 45m --dry-run")
        assert status == 0
        assert shown.endswith("stop → discharge\n   13050  EMS mode           self-consumption → forced\n"
                              "nothing was written (--dry-run)\n")  # fmt: skip
        assert gateway.sim.writes == []

    told(tmp_path, story)


def test_a_refusal_is_one_line_and_status_1(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        status, shown = await gateway.typed("--charge 3000 --for 2h")
        assert (status, shown.splitlines()[0]) == (1, "controller: the pack is not RUNNING")
        status, shown = await gateway.typed("--charge 3000 --for 2h --json")
        assert (status, json.loads(shown)["ok"]) == (1, False)

    told(tmp_path, story, running=False)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--charge 3000", "for how long"),
        ("--charge 3000 --for soon", "write 2h"),
        ("--charge 1 --discharge 1 --for 2h", "only one of them"),
        ("--charge 1 --auto", "only one of them"),
        ("--for 2h", "go with"),
        ("--auto --dry-run", "go with"),
    ],
)
def test_options_that_do_not_go_together_are_status_2(line: str, why: str, tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        status, shown = await gateway.typed(line)
        assert status == 2
        assert shown.startswith("controller: ")
        assert why in shown
        assert gateway.sim.frames == []

    told(tmp_path, story)


def test_a_gateway_that_does_not_run_is_one_clear_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--socket", str(tmp_path / "none.sock")])
    assert (result.exit_code, "the gateway is not running" in result.output) == (2, True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    result = CliRunner().invoke(app, ["--socket", str(tmp_path / "dead.sock")])
    assert (result.exit_code, "the gateway is not running" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("text", "wanted"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("10 min", 600)]
)
def test_times_are_written_as_people_do(text: str, wanted: int) -> None:
    assert commands.seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "1.5h", "1m2h"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        commands.seconds(text)


# --- the socket ---

BODIES = [
    '{"charge_w":3000}', '{"charge_w":3000,"for_s":0}', '{"charge_w":3000,"for_s":86401}', '{"charge_w":-1,"for_s":60}',
    '{"charge_w":1e3,"for_s":60}', '{"charge_w":true,"for_s":60}', '{"charge_w":NaN,"for_s":60}',
    '{"charge_w":1,"discharge_w":1,"for_s":60}', '{"auto":false}', '{"auto":true,"charge_w":1,"for_s":60}',
    '{"charge_w":1,"for_s":60,"dry_run":1}', "3",
]  # fmt: skip
WRONG = [
    b"", b"{}", b"[]", b"charge", b"[" * 30_000, b"\xff\xfe", b'{"version":1}', b'{"version":2,"dispatch":{}}',
    b'{"version":1,"dispatch":{},"more":1}', *(f'{{"version":1,"dispatch":{body}}}'.encode() for body in BODIES),
]  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_a_request_that_is_not_understood_is_refused_and_moves_nothing(line: bytes, tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        answer = await gateway.asked(line + b"\n")
        assert (answer["ok"], bool(answer["why"])) == (False, True)
        assert gateway.sim.frames == []

    told(tmp_path, story)


def test_the_socket_is_for_owner_and_group_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "gateway.sock"))

    async def story(gateway: Gateway) -> None:
        assert stat.S_IMODE(gateway.path.stat().st_mode) == 0o660
        before = os.umask(0o022)
        os.umask(before)
        assert before != 0o117
        with pytest.raises(requests.RequestError, match="another gateway"):
            async with requests.serving(gateway.path, partial(requests.answer, gateway.dispatcher)):
                pass
        assert (await gateway.asked(b'{"version":1,"dispatch":{}}\n'))["ok"]

    told(tmp_path, story)


def test_a_file_in_the_place_of_the_socket_is_kept(tmp_path: Path) -> None:
    (tmp_path / "gateway.sock").write_text("mine")
    with pytest.raises(requests.RequestError, match="kept"):
        told(tmp_path, lambda gateway: asyncio.sleep(0))
    assert (tmp_path / "gateway.sock").read_text() == "mine"


def test_a_line_without_end_is_dropped_and_the_next_caller_is_served(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        reader, writer = await asyncio.open_unix_connection(gateway.path)
        writer.write(b"x" * (requests.LINE_MAX + 10))
        assert await reader.read() == b""
        writer.close()
        assert (await gateway.asked(b'{"version":1,"dispatch":{}}\n'))["ok"]

    told(tmp_path, story)


def test_the_resident_puts_the_inverter_back_when_it_is_told_to_go(tmp_path: Path) -> None:
    async def story(gateway: Gateway) -> None:
        path = tmp_path / "other.sock"
        life = asyncio.create_task(requests.reside(gateway.dispatcher, path))
        async with asyncio.timeout(30):
            while not path.exists():
                await asyncio.sleep(0)
        answer = await asyncio.to_thread(requests.ask, path, {"charge_w": 3000, "for_s": 60})
        assert (answer["plan"]["runs"], gateway.sim.battery_w) == (True, 1000)
        life.cancel()
        with pytest.raises(asyncio.CancelledError):
            await life
        assert (gateway.sim.battery_w, path.exists()) == (0, False)

    told(tmp_path, story)


# --- the feed ---


def test_the_feed_takes_what_the_control_process_says_with_the_time_it_came(tmp_path: Path) -> None:
    path, asked = tmp_path / "control.sock", list[bytes]()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        status = {"state": "RUNNING", "limits": {"charge_w": 2000, "discharge_w": 3000}, "cells_v": [3.7] * 40_000}
        writer.write(json.dumps({"version": 1, "status": status}).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        feed = ControlLimits(path, lambda: 7.0)
        assert await feed.newest() is None
        async with await asyncio.start_unix_server(control, path):
            life = asyncio.create_task(feed.watching())
            async with asyncio.timeout(30):
                while await feed.newest() is None:
                    await asyncio.sleep(0)
            life.cancel()
        assert await feed.newest() == Live(2000.0, 3000.0, running=True, fault=False, at_s=7.0)
        assert json.loads(asked[0]) == {"version": 1, "do": "watch", "every_ms": 1000}

    asyncio.run(run())
