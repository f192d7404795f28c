"""Recordings that are brought and replayed: bounded in size, number, memory and time; and drafts of the config."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller import config_proposal
from controller.catalogue import CATALOGUE
from controller.config import HIDDEN
from controller.gateway import workbench
from controller.gateway.drafts import Drafts
from controller.gateway.guard import BODY_MAX, ENVELOPE
from controller.gateway.shelf import kept
from controller.gateway.workbench import Workbench, keep
from tests.gateway.test_web import session, site
from tests.live.world import CONFIG


def child(folder: Path, code: str) -> Workbench:
    return Workbench(folder, (sys.executable, "-c", code))


def replayed(bench: Workbench) -> workbench.Job:
    asyncio.run(bench.replay(Path("/somewhere/drive.log")))
    assert bench.job is not None
    return bench.job


def test_a_replay_leaves_a_plot_and_what_it_said(tmp_path: Path):
    job = replayed(child(tmp_path, "import sys; print('hello', sys.argv[1:]); open(sys.argv[-1], 'w').write('plot')"))
    plot = tmp_path / "plots" / "drive.html"
    assert (job.runs, job.why, job.plot) == (False, "", "drive.html")
    assert job.told == f"hello {['sim', '--replay', '/somewhere/drive.log', '--plot', str(plot)]}\n"
    assert plot.read_text() == "plot"


def test_a_replay_that_fails_says_its_last_line(tmp_path: Path):
    job = replayed(child(tmp_path, "import sys; print('controller: no recording', file=sys.stderr); sys.exit(2)"))
    assert (job.why, job.plot) == ("it ended with 2: controller: no recording", "")


def test_a_replay_has_no_more_memory_than_it_may(tmp_path: Path):
    job = replayed(child(tmp_path, f"b'x' * {workbench.MEMORY_BYTES}"))
    assert job.why.startswith("it ended with 1: MemoryError")


def test_a_replay_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workbench, "PATIENCE_S", 0.05)
    assert replayed(child(tmp_path, "while True: pass")).why == "it took longer than 0 min"


async def pieces(*of: bytes) -> AsyncIterator[bytes]:
    for piece in of:
        yield piece


def test_what_is_brought_is_kept_under_its_name_and_the_oldest_goes(tmp_path: Path):
    for n in range(workbench.UPLOADS_KEPT + 2):
        assert asyncio.run(keep(tmp_path, f"{n}.log", pieces(b"ab", b"c"))) == ""
    assert len(kept(tmp_path)) == workbench.UPLOADS_KEPT
    assert (tmp_path / f"{n}.log").read_bytes() == b"abc"


@pytest.mark.parametrize("name", ["../x.log", "a/b", ".hidden", "", "x" * 100, "ä.log", "a\0"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str):
    assert asyncio.run(keep(tmp_path, name, pieces(b""))).startswith("a name has letters")
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_large_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workbench, "UPLOAD_MAX_BYTES", 2**20)
    assert asyncio.run(keep(tmp_path, "a.log", pieces(b"x" * 2**20, b"x"))) == "it is larger than 1 MiB"
    assert list(tmp_path.iterdir()) == []


def test_only_one_is_brought_at_a_time_and_what_was_torn_off_goes(tmp_path: Path):
    (tmp_path / ".torn.log.new").write_text("half")
    second: list[str] = []

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        second.append(await keep(tmp_path, "b.log", pieces(b"second")))

    assert asyncio.run(keep(tmp_path, "a.log", slow())) == ""
    assert second == ["another one is being brought; try again when it is there"]
    assert asyncio.run(keep(tmp_path, "b.log", pieces(b"second"))) == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "b.log"]


def test_nothing_is_kept_on_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    left = shutil.disk_usage(tmp_path)._replace(free=2 * workbench.UPLOAD_MAX_BYTES - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: left)
    assert asyncio.run(keep(tmp_path, "a.log", pieces(b"x"))) == "less than 128 MiB are left on the disk"
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_taken_from_who_may_command_and_from_nobody_else():
    upload, size = "/_nicegui/client/0123-ab/upload/7", str(BODY_MAX + 1)
    visited = site(upload_max=BODY_MAX)
    told = {"origin": "https://localhost:8443", "content_length": size}
    assert visited.ask(upload, "POST", cookie=session(visited), **told)[0] == 200
    assert visited.ask("/logout", "POST", cookie=session(visited), **told)[0] == 413
    assert visited.ask(upload, "POST", **told)[0] == 413
    too_large = {**told, "content_length": str(BODY_MAX + ENVELOPE + 1)}
    assert visited.ask(upload, "POST", cookie=session(visited), **too_large)[0] == 413
    assert site(guests=True, upload_max=BODY_MAX).ask(upload, "POST", **told)[0] == 413


# --- drafts of the config ---

SECRET = '[mqtt]\nhost = "broker"\nuser = "me"\npassword = "hunter22"  # mine\n'


@pytest.fixture
def drafts(tmp_path: Path) -> Drafts:
    (tmp_path / "controller.toml").write_text(CONFIG + SECRET)
    return Drafts(tmp_path / "controller.toml", tmp_path, CATALOGUE)


def test_a_secret_is_not_shown_and_not_lost(drafts: Drafts):
    text = drafts.present()
    assert "hunter22" not in text
    assert text == (CONFIG + SECRET).replace("hunter22", HIDDEN)
    assert drafts.propose(text.replace('"broker"', '"other"')) == []
    assert drafts.difference(drafts.proposed() or "")[3:] == [
        " [mqtt]", '-host = "broker"', '+host = "other"', ' user = "me"'
    ]  # fmt: skip
    config_proposal.apply(drafts.path, drafts.proposal.read_text(), CATALOGUE)
    assert drafts.path.read_text() == (CONFIG + SECRET).replace('"broker"', '"other"')
    assert drafts.path.with_name("controller.toml.before").read_text() == CONFIG + SECRET


def test_what_is_wrong_is_said_with_its_line_and_not_kept(drafts: Drafts):
    text = drafts.present() + "[web]\nport = 70000\n"
    (wrong,) = drafts.propose(text)
    assert (wrong.line, wrong.key) == (text.count("\n"), "web.port")
    assert drafts.propose("no toml")[0].line == 1
    assert drafts.proposed() is None


def test_a_new_secret_is_proposed_and_not_shown_again(drafts: Drafts):
    assert drafts.propose(drafts.present().replace(HIDDEN, "fresh one")) == []
    assert "fresh one" not in (drafts.proposed() or "")
    assert drafts.difference(drafts.proposal.read_text()) == ["! mqtt.password: another secret"]
    config_proposal.apply(drafts.path, drafts.proposal.read_text(), CATALOGUE)
    assert 'password = "fresh one"' in drafts.path.read_text()


def test_what_is_shown_of_a_proposal_moves_no_cursor_and_turns_no_line(drafts: Drafts):
    shown = drafts.difference(drafts.present() + "# fine\u202e\u009b2Jé\n")
    assert shown[-1] == "+# fine\\u202e\\x9b2Jé"
