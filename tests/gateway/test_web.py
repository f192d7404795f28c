"""The page in a real browser, as a person walks through it; and what stands before it, asked by hand."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.gateway.accounts import Access, Hashed, PasswordFile, hashed
from controller.gateway.guard import BODY_MAX, COOKIE, Guard, cookie_of

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
PASSWORD = "correct horse battery"
HASHED: Hashed = hashed(PASSWORD)
PATIENCE_S = 60.0


# --- the guard, without a server ---


class Site:
    """A guard before a page that says hello and swallows what it is sent."""

    def __init__(self, access: Access, token: str = "", busy: bool = False, upload_max: int = 0) -> None:
        self.access, self.entered = access, 0
        self._guard = Guard(self._hello, lambda: self.access, token, lambda: busy, upload_max)

    async def _hello(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered += 1
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    def ask(self, path: str = "/", method: str = "GET", pieces: tuple[bytes, ...] = (b"",), kind: str = "http",
            **headers: str) -> tuple[int | str, dict[str, str]]:  # fmt: skip
        """The status, or what a websocket was told; and the headers."""
        known = {"host": "localhost:8443", **headers}
        scope = {"type": kind, "method": method, "path": path,
                 "headers": [(n.replace("_", "-").encode(), v.encode()) for n, v in known.items()]}  # fmt: skip
        sent: list[Any] = []
        left = list(pieces)

        async def receive() -> Any:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self._guard(scope, receive, send))
        headers_told = {name.decode(): value.decode() for name, value in sent[0].get("headers", ())}
        return sent[0].get("status", sent[0]["type"]), headers_told


def site(password: bool = True, guests: bool = False, **more: Any) -> Site:
    return Site(Access(HASHED if password else None, guests, time.monotonic), **more)


def session(visited: Site) -> str:
    return f"{COOKIE}={visited.access.sessions.begin()}"


def test_without_a_session_a_visitor_is_sent_to_the_log_in():
    status, headers = site().ask("/history")
    assert (status, headers["location"]) == (303, "/login?next=/history")
    status, headers = site().ask("/häßlich\r\nx: y&")
    assert (status, headers["location"]) == (303, "/login?next=/h%C3%A4%C3%9Flich%0D%0Ax%3A%20y%26")


def test_with_a_session_the_page_is_shown():
    visited = site()
    assert visited.ask(cookie=session(visited))[0] == 200
    assert visited.ask(cookie=f"{COOKIE}=made-up")[0] == 303


def test_a_websocket_without_a_session_is_not_opened():
    visited = site()
    origin = "https://localhost:8443"
    assert visited.ask("/_nicegui_ws/socket.io/", kind="websocket", origin=origin)[0] == "websocket.close"
    assert visited.entered == 0
    told = visited.ask("/_nicegui_ws/socket.io/", kind="websocket", origin=origin, cookie=session(visited))
    assert told[0] == "websocket.accept"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "https://localhost:8443.evil.example"])
def test_whatever_another_site_sends_with_our_cookie_is_refused(origin: str):
    visited = site()
    cookie = session(visited)
    assert (
        visited.ask("/_nicegui_ws/socket.io/", kind="websocket", origin=origin, cookie=cookie)[0] == "websocket.close"
    )
    assert visited.ask("/logout", "POST", origin=origin, cookie=cookie)[0] == 403
    assert visited.entered == 0


def test_without_a_password_only_this_machine_by_its_own_name_is_answered():
    visited = site(password=False)
    assert visited.ask()[0] == 200
    assert visited.ask(host="127.0.0.1:8443")[0] == 200
    assert visited.ask(host="rebound.example:8443")[0] == 403


def test_guests_are_let_in():
    assert site(guests=True).ask()[0] == 200


def test_metrics_need_the_token_or_a_session():
    visited = site(token="a token of some length")
    assert visited.ask("/metrics", authorization="Bearer a token of some length")[0] == 200
    assert visited.ask("/metrics", authorization="Bearer a token of some lengt")[0] == 401
    assert visited.ask("/metrics")[0] == 401
    assert visited.ask("/", authorization="Bearer a token of some length")[0] == 303
    assert site().ask("/metrics", authorization="Bearer ")[0] == 401


def test_a_body_too_large_is_refused_by_its_length_and_by_its_bytes():
    visited = site()
    told = {"origin": "https://localhost:8443", "cookie": session(visited)}
    assert visited.ask("/logout", "POST", content_length=str(BODY_MAX + 1), **told)[0] == 413
    assert visited.ask("/logout", "POST", content_length="a lot", **told)[0] == 413
    assert visited.entered == 0
    assert visited.ask("/logout", "POST", pieces=(b"x" * BODY_MAX, b"x"), **told)[0] == 413
    assert visited.ask("/logout", "POST", pieces=(b"x" * BODY_MAX,), **told)[0] == 200


def test_when_too_many_pages_are_open_the_next_is_refused_and_metrics_are_not():
    visited = site(password=False, busy=True)
    assert visited.ask("/")[0] == 503
    assert visited.ask("/metrics")[0] == 200


def test_browsers_are_told_to_load_nothing_from_elsewhere_and_to_frame_nothing():
    policy = site(password=False).ask()[1]["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy


@pytest.mark.parametrize("header", ["", ";", "=", f"{COOKIE}", "\x00", f"a=b; {COOKIE}=", "x" * 5000])
def test_a_cookie_that_is_none_is_none(header: str):
    assert cookie_of(header) == ""


# --- the page, in a browser ---


class World:
    """The page's process, and a control process that is what it is told to be."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self._heard: queue.Queue[str] = queue.Queue()
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.page_world", str(folder), *words], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1,
        )  # fmt: skip
        threading.Thread(target=self._listen, daemon=True).start()
        self.address = self.until("page: http").split()[1].rstrip(",")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._heard.put(line.rstrip("\n"))

    def until(self, start: str) -> str:
        """The first line from now on that begins so."""
        while not (line := self._heard.get(timeout=PATIENCE_S)).startswith(start):
            self.said.append(line)
        self.said.append(line)
        return line

    def be(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.until(f"is {word}")

    def command(self) -> Any:
        told = json.loads(self.until("command ").removeprefix("command "))
        assert told.pop("by") == "page, 127.0.0.1"
        return told

    def protect(self) -> None:
        """Set the password, as `controller gateway passwd` does, and wait until it is followed."""
        PasswordFile(self.folder).write(HASHED)
        self.address = self.until("page: https").split()[1].rstrip(",")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


slow = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--headless", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Person:
    """Somebody with a phone, or at a desk. complaints: of the browser. strangers: addresses that are not ours."""

    def __init__(self, browser: Any, world: World, size: tuple[int, int] = (390, 844), dark: bool = False) -> None:
        self.world, self.complaints, self.strangers = world, list[str](), list[str]()
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light",
            ignore_https_errors=True,
        )  # fmt: skip
        self.context.set_default_timeout(PATIENCE_S * 1000)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._look(request.url))
        self.page.on("websocket", lambda socket: self._look(socket.url.replace("ws", "http", 1)))

    def _look(self, url: str) -> None:
        if not url.startswith((self.world.address, "data:", "blob:")):
            self.strangers.append(url)

    def go(self, path: str = "/") -> Person:
        self.page.goto(self.world.address + path)
        return self

    def sees(self, text: str) -> Person:
        self.page.get_by_text(text).first.wait_for()
        return self

    def does_not_see(self, text: str) -> Person:
        assert self.page.get_by_text(text).count() == 0
        return self

    def presses(self, name: str) -> Person:
        self.page.get_by_role("button", name=name, exact=True).click()
        return self

    def logs_in(self, password: str = PASSWORD) -> Person:
        self.page.get_by_label("Password").fill(password)
        with self.page.expect_navigation():
            self.page.get_by_role("button", name="Log in").click()
        return self

    @property
    def read(self) -> str:
        return str(self.page.inner_text("body"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def guarded(world: World) -> World:
    world.protect()
    return world


@slow
def test_a_person_at_the_machine_sees_how_it_is_and_can_command_nothing(browser: Any, world: World):
    person = Person(browser, world).go().sees("closed; the limits are published".capitalize())
    read = person.read
    for words in ("RUNNING", "55.0", "at rest", "State of charge", "Bounded by the configured power", "12 mV apart"):
        assert words in read
    assert "sudo controller gateway passwd" in read
    assert person.page.get_by_role("button").count() == 0
    assert person.page.context.cookies() == []


@slow
@pytest.mark.parametrize("size", [(390, 844), (1280, 800)])
@pytest.mark.parametrize("dark", [False, True])
def test_every_page_fits_the_window_loads_nothing_from_elsewhere_and_nothing_complains(
    browser: Any, world: World, size: tuple[int, int], dark: bool
):
    person = Person(browser, world, size, dark)
    for path, words in {
        "/": "What the inverter may do", "/machine": "WAKING_PACK", "/cells": "96 of 96 cells known",
        "/events": "state-changed", "/history": "CSV", "/inverter": "BYD Battery-Box", "/bus": "132",
        "/recordings": "in shadow", "/incidents": "None so far", "/config": "max_charge_a",
    }.items():  # fmt: skip
        person.go(path).sees(words)
        wider = person.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, path
        background = person.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(16, 21, 27)") is dark, path
    assert person.complaints == []
    assert person.strangers == []


@slow
def test_the_present_state_is_marked_in_the_drawing_and_follows(browser: Any, world: World):
    person = Person(browser, world, (1280, 800)).go("/machine")
    person.page.locator(".paper .present", has_text="RUNNING").wait_for()
    world.be("held")
    person.page.locator(".paper .present", has_text="FAULT").wait_for()
    person.sees("hvil-open: The pack reports")


@slow
def test_a_person_logs_in_by_https_enables_and_logs_out(browser: Any, guarded: World):
    assert guarded.address.startswith("https://")
    guarded.be("held")
    person = Person(browser, guarded).go().sees("Log in").logs_in().sees("Commands")
    cookies = {cookie["name"]: cookie for cookie in person.context.cookies()}
    cookie = cookies[COOKIE]
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
    person.presses("Enable").sees("The contactors close as soon as").presses("Enable now").sees("It is enabled.")
    assert guarded.command() == {"do": "enable"}
    person.page.locator(".chip", has_text="RUNNING").first.wait_for()
    person.go("/events").sees("WAKING_PACK → RUNNING").go("/history").sees("CSV")
    person.presses("Log out").sees("Password")
    person.go("/config").sees("Password")


@slow
def test_three_wrong_passwords_make_the_fourth_wait(browser: Any, guarded: World):
    person = Person(browser, guarded).go()
    for _ in range(2):
        person.logs_in("wrong horse battery").sees("That is not the password.")
    person.logs_in("wrong horse battery").sees("The next try is taken in")
    for _ in range(3):
        guarded.until("page: wrong password from 127.0.0.1")


@slow
def test_a_person_acknowledges_a_fault_by_its_name(browser: Any, guarded: World):
    guarded.be("held")
    person = Person(browser, guarded).go().logs_in()
    person.sees("The pack reports its high-voltage interlock loop open.").sees("Switch the DC breaker off")
    person.presses("Acknowledge hvil-open").sees("hvil-open is acknowledged")
    assert guarded.command() == {"do": "acknowledge", "name": "hvil-open"}
    person.page.locator(".fault").wait_for(state="detached")


@slow
def test_what_control_refuses_is_shown_with_its_reason_as_text(browser: Any, guarded: World):
    guarded.be("refuse")
    person = Person(browser, guarded).go().logs_in()
    person.presses("Stop").sees("Refused: name: hvil-open still acts <b>here</b>")
    assert guarded.command() == {"do": "stop"}


@slow
def test_a_cap_has_powers_and_an_end(browser: Any, guarded: World):
    person = Person(browser, guarded).go().logs_in()
    person.presses("Cap").sees("State a power first.")
    person.page.get_by_label("discharge, W").fill("1500")
    person.presses("Cap").sees("The cap is set.")
    assert guarded.command() == {"do": "cap", "discharge_w": 1500, "for_s": 7200}


@slow
def test_when_control_is_lost_the_values_are_shown_as_old_with_their_age(browser: Any, world: World):
    person = Person(browser, world).go().sees("at rest")
    world.be("lose")
    person.sees("OLD VALUES").sees("no controller answers at")
    assert "RUNNING ?" in person.read
    crossed = "getComputedStyle(document.querySelector('.grid.old b')).textDecorationLine"
    assert person.page.evaluate(crossed) == "line-through"
    world.be("running")
    person.page.get_by_text("OLD VALUES").wait_for(state="hidden")


@slow
def test_a_session_that_ended_commands_nothing(browser: Any, guarded: World):
    person = Person(browser, guarded).go().logs_in().sees("Commands")
    other = person.context.new_page()
    other.goto(guarded.address)
    other.get_by_role("button", name="Log out").click()
    other.get_by_label("Password").wait_for()
    person.presses("Stop").sees("You are not logged in any more.")
    guarded.be("running")
    assert not [line for line in guarded.said if line.startswith("command")]


@slow
def test_guests_look_and_find_no_button_no_config_and_no_incident(browser: Any, tmp_path: Path):
    world = World(tmp_path, "guests")
    try:
        world.protect()
        person = Person(browser, world).go().sees("at rest")
        assert person.page.get_by_role("button").count() == 0
        person.does_not_see("Incidents").go("/config").sees("to see this").does_not_see("max_charge_a")
        answer = person.context.request.get(f"{world.address}/incidents/0001-20261101T120003Z-1f0c2a9b-fault.zip")
        assert answer.status == 403
    finally:
        world.close()


@slow
def test_forms_forged_metrics_and_csv(browser: Any, guarded: World):
    asks = Person(browser, guarded).context.request
    told = {"password": PASSWORD, "form": "made up"}
    assert asks.post(f"{guarded.address}/login", form=told).status == 403
    ours = {"origin": guarded.address}
    assert asks.post(f"{guarded.address}/login", form=told, headers=ours).status == 403
    assert asks.post(f"{guarded.address}/login", data="x" * 70_000, headers=ours).status == 413
    assert asks.get(f"{guarded.address}/metrics").status == 401
    bearer = {"authorization": "Bearer a token of some length"}
    assert (
        'packwarden_up{pack="left",site="garage"} 1.0' in asks.get(f"{guarded.address}/metrics", headers=bearer).text()
    )
    person = Person(browser, guarded).go().logs_in().sees("Commands")
    assert person.context.request.get(f"{guarded.address}/history.csv?level=years").status == 400
    assert person.context.request.get(f"{guarded.address}/history.csv").status == 404
    guarded.be("lose")
    person.sees("OLD VALUES")
    lines = person.context.request.get(f"{guarded.address}/history.csv?level=seconds&hours=1").text().splitlines()
    assert lines[0].startswith("time_utc,boot,clock,soc_pct")


@slow
def test_the_frames_of_the_bus_are_shown_with_their_meaning_captured_and_replayed(browser: Any, guarded: World):
    person = Person(browser, guarded).go("/bus").logs_in().sees("BMS_packVoltage")
    read = person.page.locator("tr", has=person.page.get_by_text("132", exact=True)).inner_text()
    assert " ms" in read
    person.presses("Begin").sees("goes on")
    person.presses("Stop").sees("ended: stopped")
    with person.page.expect_download() as download:
        person.page.locator('a[href^="/captures/"]').click()
    frames = Path(download.value.path()).read_text().splitlines()
    assert any(" car 132#" in frame for frame in frames)
    person.go("/recordings")
    person.page.get_by_label("Recording", exact=True).click()
    person.page.get_by_role("option").first.click()
    person.presses("Replay").sees("look at its plot")
    with person.context.expect_page() as opened:
        person.page.get_by_text("look at its plot").click()
    opened.value.wait_for_load_state()
    assert "Tesla Model 3" in opened.value.inner_text("body")


@slow
def test_a_recording_is_brought_and_one_that_is_none_says_so(browser: Any, guarded: World, tmp_path: Path):
    (tmp_path / "mine.log").write_text("this is no recording\n")
    person = Person(browser, guarded).go("/recordings").logs_in().sees("Bring one")
    person.page.set_input_files("input[type=file]", tmp_path / "mine.log")
    person.sees("mine.log is here.")
    person.presses("Replay").sees("mine.log: it ended with 2")


@slow
def test_a_config_is_proposed_and_a_wrong_one_is_not(browser: Any, guarded: World):
    person = Person(browser, guarded, (1280, 900)).go("/config").logs_in().sees("Nothing is changed.")
    area = person.page.locator("textarea")
    right = area.input_value()
    assert "max_power_w" in right
    area.fill(right + "\n[web]\nport = 70000\n")
    person.sees("outside")
    assert person.page.get_by_role("button", name="Propose").is_disabled()
    area.fill(right + "\n[web]\nport = 8444\n")
    person.sees("Not kept yet.").presses("Propose").sees("It is kept as a proposal.")
    assert "port = 8444" in (guarded.folder / "proposal.toml").read_text()
    assert "8444" not in (guarded.folder / "controller.toml").read_text()
    person.presses("Discard").sees("Nothing is changed.")
    assert not (guarded.folder / "proposal.toml").exists()
