"""The black box in the live loop: fed by every turn, asked over the socket, and never felt by the control."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.blackbox import BlackBox, Decided
from controller.incident import Keeper
from drivers.incidents import Incidents
from sim.bundle import BundleReplay, open_bundle
from statecharts.supervisor import State
from tests.controller.live_rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    rig.live.keeper = Keeper(BlackBox(), Incidents(tmp_path / "incidents"), "1.0", "schema = 1\n")
    rig.live.loop.recorder = rig.live.keeper.took
    yield rig
    rig.link.close()


def written(rig: Rig) -> Path:
    """The newest bundle, when nothing waits any more."""
    assert rig.live.keeper is not None
    store = rig.live.keeper._store
    assert isinstance(store, Incidents)
    assert store.close(60.0), store.trouble
    return rig.path.parent / "incidents" / store.newest


def test_somebody_who_asks_over_the_socket_gets_the_name_of_a_bundle_that_replays(rig: Rig):
    rig.running()
    reply = rig.ask(do="incident")
    assert (reply["done"], reply["state"]) == (True, "RUNNING")
    path = written(rig)
    assert path.name == reply["incident"]
    bundle = open_bundle(path)
    assert bundle.manifest["reason"] == "request"
    assert "user " in bundle.manifest["words"]
    replay = BundleReplay(bundle)
    assert replay.run().final_state == "RUNNING"
    assert replay.differs is None
    assert any(line.startswith(f"incident: {path.name}") for line in rig.told())


def test_the_one_who_enabled_it_is_in_the_bundle(rig: Rig):
    rig.running().ask(do="incident")
    by = [tick.by for tick in open_bundle(written(rig)).ticks() if tick.by]
    assert by[0].startswith("enable by user ")


def test_asking_again_at_once_is_refused_and_writes_nothing(rig: Rig):
    rig.until(State.STANDBY)
    assert rig.ask(do="incident")["done"]
    again = rig.ask(do="incident")
    assert not again["done"]
    assert "just been written" in again["why"]


def test_without_a_black_box_the_request_is_refused(rig: Rig):
    rig.live.keeper = None
    assert not rig.until(State.STANDBY).ask(do="incident")["done"]


def test_the_end_of_a_run_writes_a_bundle_and_says_why(rig: Rig):
    rig.until(State.STANDBY).live.signals(15, None)
    rig.live.run()
    bundle = open_bundle(written(rig))
    assert (bundle.manifest["reason"], bundle.manifest["words"]) == ("stop", "it was told to stop")
    replay = BundleReplay(bundle)
    replay.run()
    assert replay.differs is None


def test_the_span_held_and_the_newest_bundle_are_in_the_status(rig: Rig):
    rig.turns(500).ask(do="incident")
    path = written(rig)
    box = rig.live.status(rig.clock.ms)["black_box"]
    assert box["span_s"] >= 4.9
    assert box["newest"] == path.name
    assert box["trouble"] is None


def test_a_black_box_that_breaks_opens_nothing_and_is_told_once(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    rig.running()

    def broken(self: Keeper, tick: Decided) -> str:
        raise MemoryError("no room")

    monkeypatch.setattr(Keeper, "decided", broken)
    rig.turns(200)
    assert rig.state is State.RUNNING
    assert rig.live.loop.error is None
    assert [line for line in rig.told() if line.startswith("incident-not-written")] == [
        "incident-not-written: the black box has failed: MemoryError('no room')"
    ]
    assert rig.live.status(rig.clock.ms)["black_box"] is None


def test_a_bundle_that_cannot_be_written_is_told_once_and_control_goes_on(rig: Rig):
    (rig.path.parent / "incidents").write_text("in the way")
    rig.running().ask(do="incident")
    store = rig.live.keeper._store  # type: ignore[union-attr]
    assert isinstance(store, Incidents)
    store.close(60.0)
    rig.turns(500)
    assert rig.state is State.RUNNING
    assert len([line for line in rig.told() if line.startswith("incident-not-written")]) == 1
