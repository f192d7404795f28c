"""Incident bundles on disk: whole or not there, the oldest dropped, and nobody waits for them."""

import json
import os
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from drivers import incidents
from drivers.incidents import Contents, Incidents, bundles, clock_synchronised

WITHIN_S = 30.0


def holding(*pieces: bytes, name: str = "frames.log") -> Callable[[Mapping[str, Any]], Contents]:
    """A bundle of one file, and what the outside had to say."""

    def fill(outside: Mapping[str, Any]) -> Contents:
        yield name, pieces
        yield "manifest.json", (json.dumps(dict(outside)).encode(),)

    return fill


def noise(size: int) -> Callable[[Mapping[str, Any]], Contents]:
    return holding(os.urandom(size))


def written(folder: Path, *fills: Callable[[Mapping[str, Any]], Contents], **bounds: int) -> Incidents:
    """Each of them, one after the other."""
    for fill in fills:
        store = Incidents(folder, **bounds)
        store.store("fault", fill)
        assert store.close(WITHIN_S) or store.trouble
    return store


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_is_one_zip_that_any_tool_opens(tmp_path: Path):
    store = written(tmp_path / "incidents", holding(b"one\n", b"two\n"))
    (path,) = bundles(tmp_path / "incidents")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("frames.log") == b"one\ntwo\n"
    assert store.newest == path.name


def test_it_says_when_on_which_boot_and_whether_the_clock_was_right(tmp_path: Path):
    written(tmp_path, holding())
    (path,) = bundles(tmp_path)
    with zipfile.ZipFile(path) as archive:
        outside = json.loads(archive.read("manifest.json"))
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert outside["boot_id"] == boot_id
    assert outside["written_utc"].endswith("+00:00")
    assert outside["clock_synchronised"] is clock_synchronised()
    number, stamp, boot, why = path.stem.split("-")
    assert (number, boot, why) == ("0001", boot_id[:8], "fault")
    assert stamp[:8] == outside["written_utc"][:10].replace("-", "")


def test_others_of_the_machine_cannot_read_it(tmp_path: Path):
    written(tmp_path, holding())
    assert stat.S_IMODE(bundles(tmp_path)[0].stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_bundle_that_breaks_off_leaves_nothing_behind_and_is_told(tmp_path: Path, at: int):
    def fill(outside: Mapping[str, Any]) -> Contents:
        def pieces() -> Iterator[bytes]:
            yield os.urandom(100_000)
            if at == 1:
                raise ValueError("a state that cannot be written")
            yield b"end"

        if at == 0:
            raise ValueError("a state that cannot be written")
        yield "frames.log", pieces()
        if at == 2:
            raise ValueError("a state that cannot be written")

    store = Incidents(tmp_path)
    name = store.store("fault", fill)
    assert not store.close(WITHIN_S)
    assert files(tmp_path) == []
    assert store.trouble == f"{name} could not be written: a state that cannot be written"
    assert store.newest == ""


def test_while_it_is_written_there_is_no_bundle_of_its_name(tmp_path: Path):
    seen: list[list[str]] = []

    def fill(outside: Mapping[str, Any]) -> Contents:
        yield "frames.log", (b"x",)
        seen.append([path.name for path in bundles(tmp_path)])
        yield "manifest.json", (b"{}",)

    written(tmp_path, fill)
    assert seen == [[]]
    assert len(bundles(tmp_path)) == 1


def test_what_a_power_cut_left_half_written_is_swept_away(tmp_path: Path):
    (tmp_path / ".0007-20261101T120003Z-1f0c2a9b-fault.zip.new").write_bytes(b"half")
    written(tmp_path, holding())
    assert len(files(tmp_path)) == 1


def test_after_a_failure_the_next_one_is_tried(tmp_path: Path):
    def broken(outside: Mapping[str, Any]) -> Contents:
        raise ValueError("no")
        yield

    store = Incidents(tmp_path)
    store.store("fault", broken)
    store.store("request", holding())
    assert store.close(WITHIN_S)
    assert [path.name[:5] for path in bundles(tmp_path)] == ["0002-"]


def test_a_folder_that_cannot_be_made_is_told_and_breaks_nothing(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    store = written(tmp_path / "file", holding())
    assert "could not be written" in store.trouble


def test_the_size_on_disk_is_bounded_and_the_oldest_are_dropped(tmp_path: Path):
    written(tmp_path, *(noise(100_000) for _ in range(6)), limit_bytes=350_000)
    assert [path.name[:5] for path in bundles(tmp_path)] == ["0004-", "0005-", "0006-"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 350_000


def test_one_that_is_larger_than_the_bound_is_kept_alone(tmp_path: Path):
    written(tmp_path, noise(10_000), noise(200_000), limit_bytes=100_000)
    assert [path.name[:5] for path in bundles(tmp_path)] == ["0002-"]


def test_the_oldest_is_told_by_its_number_since_clocks_jump(tmp_path: Path):
    for number, stamp in ((9, "19700101T000003Z"), (10, "20261101T120003Z"), (11, "19700101T000001Z")):
        path = tmp_path / f"{number:04}-{stamp}-1f0c2a9b-fault.zip"
        path.write_bytes(bytes(100_000))
        os.utime(path, (1_000 - number, 1_000 - number))
    store = written(tmp_path, noise(100_000), limit_bytes=250_000)
    assert [path.name[:5] for path in bundles(tmp_path)] == ["0011-", "0012-"]
    assert store.newest.startswith("0012-")


def test_files_of_other_names_are_left_alone(tmp_path: Path):
    (tmp_path / "notes.zip").write_bytes(bytes(500_000))
    written(tmp_path, noise(100_000), noise(100_000), limit_bytes=150_000)
    assert [name[:5] for name in files(tmp_path)] == ["0002-", "notes"]


def test_a_disk_that_is_nearly_full_loses_old_bundles_before_the_record_finds_no_room(tmp_path: Path):
    written(tmp_path, noise(1000), noise(1000))
    store = written(tmp_path, noise(1000), keep_free_bytes=1 << 62)
    assert "are free on the disk" in store.trouble
    assert files(tmp_path) == []


def test_the_caller_waits_for_no_disk(tmp_path: Path):
    go_on, begun = threading.Event(), threading.Event()

    def hanging(outside: Mapping[str, Any]) -> Contents:
        begun.set()
        go_on.wait(WITHIN_S)
        yield "manifest.json", (b"{}",)

    store = Incidents(tmp_path)
    names = [store.store("fault", hanging)]
    assert begun.wait(WITHIN_S)
    names += [store.store("request", holding()) for _ in range(4)]
    assert not store.close(0.0)
    go_on.set()
    assert store.close(WITHIN_S)
    assert [path.name for path in bundles(tmp_path)] == [names[0], *names[-incidents.WAITING_MAX :]]


def test_numbers_go_on_after_a_restart(tmp_path: Path):
    written(tmp_path, holding(), holding())
    store = Incidents(tmp_path)
    assert store.newest == bundles(tmp_path)[-1].name
    assert store.store("stop", holding()).startswith("0003-")
    assert store.close(WITHIN_S)
