"""Recordings: every format gives the same frames, nothing torn becomes a frame, nothing foreign is believed."""

import gzip
import random
import tracemalloc
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import can
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.ports import CanFrame
from sim import recording
from sim.recording import EXTENDED, RecordingError, locate, open_recording, shipped, write_candump

SHARED = Path(__file__).parents[3] / "shared" / "logs"
WRITERS = {
    "candump": can.CanutilsLogWriter,
    "asc": can.ASCWriter,
    "blf": can.BLFWriter,
    "csv": can.CSVWriter,
    "trc": can.TRCWriter,
}
SAVVYCAN = "Time Stamp,ID,Extended,Dir,Bus,LEN,D1,D2,D3,D4,D5,D6,D7,D8\n"
T0 = 1_700_000_000_000_000

frames = st.builds(
    lambda number, data, extended: CanFrame(number if extended else number & 0x7FF, data, 0, extended),
    st.integers(0, 0x1FFF_FFFF),
    st.binary(max_size=8),
    st.booleans(),
)
stamped = st.tuples(
    st.integers(0, 2**50), st.lists(st.tuples(st.integers(0, 3_600_000_000), frames), min_size=1, max_size=40)
).map(lambda found: [(found[0] + us, frame) for us, frame in sorted(found[1], key=lambda pair: pair[0])])
"""Frames in the order of time, within an hour: a longer gap is taken for a clock that was set."""


@cache
def some_frames(count: int = 300) -> list[tuple[int, CanFrame]]:
    """A small real recording when there is one, else one of our own; with a 29-bit id and an empty frame among it."""
    path = SHARED / "tesla-m3-drive.log"
    if path.exists():
        found = list(open_recording(path))[:count]
    else:
        dice = random.Random(7)
        found = [(1000 * k, CanFrame(0x132 + k % 9, dice.randbytes(8 - k % 2), k)) for k in range(count)]
    found.insert(100, (found[99][0], CanFrame(0x18FF50E5, b"\x01\x02\x03", found[99][0] // 1000, True)))
    found.insert(200, (found[199][0], CanFrame(0x7FF, b"", found[199][0] // 1000)))
    return found


def message(stamp_us: int, frame: CanFrame) -> can.Message:
    return can.Message(
        timestamp=(T0 + stamp_us) / 1e6,
        arbitration_id=frame.id,
        is_extended_id=frame.extended,
        data=frame.data,
        check=True,
    )


@cache
def written_by_python_can(kind: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "recording.dat"
        with WRITERS[kind](path) as writer:
            for stamp_us, frame in some_frames():
                writer.on_message_received(message(stamp_us, frame))
        return path.read_bytes()


def put(folder: Path, content: str | bytes) -> Path:
    path = folder / "recording.dat"
    path.write_bytes(content.encode("latin-1") if isinstance(content, str) else content)
    return path


def read(folder: Path, content: str | bytes) -> tuple[recording.Recording, list[tuple[int, CanFrame]]]:
    found = open_recording(put(folder, content))
    return found, list(found)


def candump(count: int, first: int = 0) -> str:
    return "".join(f"({1700000000 + k * 0.01:.6f}) can0 132#{k:016X}\n" for k in range(first, first + count))


# ---- every format ---------------------------------------------------------------------------------------------------


@given(stamped, st.integers(0, 2**50))
@settings(max_examples=150)
def test_what_is_written_as_candump_reads_back_the_same(tmp_path_factory, pairs, start_us):
    path = tmp_path_factory.mktemp("x") / "a"
    assert write_candump(path, pairs, start_us) == len(pairs)
    first = pairs[0][0]
    found = open_recording(path)
    assert list(found) == [(us - first, frame._replace(at_ms=(us - first) // 1000)) for us, frame in pairs]
    assert (found.format, found.frames, found.rejected, found.stepped_back) == ("candump", len(pairs), 0, 0)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", WRITERS)
def test_what_python_can_writes_reads_back_the_same_whatever_its_suffix(tmp_path, kind, zipped):
    content = written_by_python_can(kind)
    found = open_recording(put(tmp_path, gzip.compress(content, mtime=0) if zipped else content))
    assert found.format == kind
    assert list(found) == some_frames()
    assert (found.rejected, found.skipped, found.stepped_back) == (0, 0, 0)
    assert found.position() == found.size


@pytest.mark.skipif(not SHARED.exists(), reason="the shared recordings are not here")
def test_every_shared_recording_reads_as_python_can_reads_it():
    for path in sorted(SHARED.glob("*.log")):
        found = open_recording(path)
        ours = [(frame.id, frame.data) for _, frame in found]
        assert ours == [(m.arbitration_id, bytes(m.data)) for m in can.LogReader(path)], path.name
        assert (found.format, found.rejected) == ("candump", 0), path.name
        assert found.stepped_back == (1 if path.name == "leaf-me0-40-startup.log" else 0), path.name


def test_text_that_candump_prints_is_read(tmp_path):
    found, pairs = read(
        tmp_path,
        " (1436509052.249713)  can0  132   [8]  7D 83 D5 FF E2 3F FF 0F   '}.....?.'\n"
        " (1436509052.250713)  can0  TX - -  132   [2]  7D 83\n"
        " (1436509052.251713)  can0  18FF50E5   [0] \n"
        " (1436509052.252713)  can0  132   [0]  remote request\n"
        " (1436509052.252813)  can0  20000080   [8]  00 00 00 00 00 00 00 00   ERRORFRAME\n"
        " (1436509052.252913)  can0  132  [12]  00 00 00 00 00 00 00 00 00 00 00 00\n",
    )
    assert pairs == [
        (0, CanFrame(0x132, bytes.fromhex("7D83D5FFE23FFF0F"), 0)),
        (1000, CanFrame(0x132, b"\x7d\x83", 1)),
        (2000, CanFrame(0x18FF50E5, b"", 2, True)),
    ]
    assert (found.format, found.skipped, found.rejected) == ("printed", 3, 0)


@pytest.mark.parametrize(
    ("kind", "stamps"),
    [
        ("printed", ["000.000000", "000.010000", "000.020500", "000.030000"]),
        ("delta", ["000.000000", "000.010000", "000.010500", "000.009500"]),
        ("delta", ["000.000000", "000.010000", "000.010000", "000.010000"]),
        ("printed", ["2026-01-31 23:59:59.990000", "2026-02-01 00:00:00.000000", "2026-02-01 00:00:00.010500"]),
    ],
)
def test_stamps_of_candump_from_zero_from_the_last_frame_and_as_dates(tmp_path, kind, stamps):
    found, pairs = read(tmp_path, "".join(f" ({stamp})  can0  132   [1]  7D\n" for stamp in stamps))
    assert found.format == kind
    assert [us for us, _ in pairs[:3]] in ([0, 10_000, 20_500], [0, 10_000, 20_000])


def test_savvycan_is_read_in_microseconds(tmp_path):
    found, pairs = read(
        tmp_path,
        SAVVYCAN
        + "166064000,00000132,false,Rx,0,8,7D,83,D5,FF,E2,3F,FF,0F,\n"
        + "166065500,18FF50E5,true,Rx,0,2,1,A,\n"
        + "166065600,000007FF,false,Rx,0,0\n"
        + "166065600,00000FFF,false,Rx,0,0\n"
        + "".join(f"1660700{k:02},00000132,false,Rx,0,1,00,\n" for k in range(9)),
    )
    assert pairs[:3] == [
        (0, CanFrame(0x132, bytes.fromhex("7D83D5FFE23FFF0F"), 0)),
        (1500, CanFrame(0x18FF50E5, b"\x01\x0a", 1, True)),
        (1600, CanFrame(0x7FF, b"", 1)),
    ]
    assert (found.format, found.rejected, found.first_rejection) == ("savvycan", 1, (5, "the id FFF is too large"))


def test_a_serial_recording_gives_its_chunks_and_no_frames(tmp_path):
    text = "".join(f"({1643225378 + k}.500000) rs485 1503012C001886E1\n" for k in range(20))
    found = open_recording(put(tmp_path, text + "(1643225400.000000) rs485 15030"))
    assert found.format == "rtu"
    assert list(found.chunks()) == [(1_000_000 * k, bytes.fromhex("1503012C001886E1")) for k in range(20)]
    assert found.first_rejection == (21, "the last line has no end and may be torn")
    with pytest.raises(RecordingError, match="serial line"):
        next(iter(found))
    with pytest.raises(RecordingError, match="CAN bus"):
        next(open_recording(put(tmp_path, candump(3))).chunks())


def test_mf4_without_its_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("can.io.mf4.asammdf", None)
    with pytest.raises(RecordingError, match="extra mf4"):
        read(tmp_path, b"MDF     4.10    " + bytes(100))


def test_relative_asc_stamps_are_refused(tmp_path):
    text = "date Wed Nov 25 10:00:00 2026\nbase hex  timestamps relative\n   0.010000 1  132  Rx   d 1 7D\n"
    with pytest.raises(RecordingError, match="absolute"):
        read(tmp_path, text)


# ---- time -----------------------------------------------------------------------------------------------------------


def lines_at(*seconds: float) -> str:
    return "".join(f"({1000 + s:.6f}) can0 132#{k:02X}\n" for k, s in enumerate(seconds))


def test_a_stamp_that_steps_back_a_little_is_clamped_and_counted(tmp_path):
    found, pairs = read(tmp_path, lines_at(0, 0.010, 0.009, 0.011))
    assert [us for us, _ in pairs] == [0, 10_000, 10_000, 11_000]
    assert found.stepped_back == 1


def test_after_a_clock_was_set_back_time_goes_on(tmp_path):
    found, pairs = read(tmp_path, lines_at(0, 100, 50, 50.25, 60))
    assert [us for us, _ in pairs] == [0, 100_000_000, 100_000_000, 100_250_000, 110_000_000]
    assert (found.stepped_back, found.duration_us) == (1, 110_000_000)


def test_after_a_clock_was_set_ahead_time_goes_on(tmp_path):
    found, pairs = read(tmp_path, lines_at(0, 1, 10**8, 10**8 + 0.5))
    assert [us for us, _ in pairs] == [0, 1_000_000, 1_000_000, 1_500_000]
    assert (found.stepped_forward, found.stepped_back, found.duration_us) == (1, 0, 1_500_000)


def test_a_frame_belongs_to_the_first_tick_not_before_it(tmp_path):
    found = open_recording(put(tmp_path, lines_at(0, 0.000001, 0.010, 0.010001, 3600.0)))
    assert [(tick, [frame.data[0] for frame in batch]) for tick, batch in found.batches()] == [
        (0, [0]),
        (1, [1, 2]),
        (2, [3]),
        (360_000, [4]),
    ]


@given(stamped, st.integers(1, 10**6))
def test_batches_hold_every_frame_once_in_order(tmp_path_factory, pairs, tick_us):
    path = tmp_path_factory.mktemp("x") / "a"
    write_candump(path, pairs)
    batches = list(open_recording(path).batches(tick_us))
    assert [frame for _, batch in batches for frame in batch] == [frame for _, frame in open_recording(path)]
    assert all(earlier[0] < later[0] for earlier, later in pairwise(batches))
    for us, frame in open_recording(path):
        assert any(frame in batch for tick, batch in batches if (tick - 1) * tick_us < us <= tick * tick_us)


def test_frames_of_other_ids_are_counted_and_not_handed_out(tmp_path):
    path = tmp_path / "a"
    write_candump(path, some_frames())
    found = open_recording(path, ids=[0x132, 0x18FF50E5 + EXTENDED])
    handed = list(found)
    assert {frame.id for _, frame in handed} == {0x132, 0x18FF50E5}
    assert found.frames == len(some_frames()) > len(handed)
    assert sum(found.ids_seen.values()) == found.frames
    assert found.ids_seen[0x18FF50E5 + EXTENDED] == 1
    assert [pair for pair in open_recording(path) if pair[1].id in (0x132, 0x18FF50E5)] == handed


def test_reading_again_begins_again(tmp_path):
    found = open_recording(put(tmp_path, candump(20)))
    next(iter(found))
    assert list(found) == list(found)
    assert (found.frames, found.duration_us) == (20, 190_000)


# ---- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("(1700000000.500000) can0 132#7D8", "an odd number of hex digits"),
        ("(1700000000.500000) can0 132#7D83D5FFE23FFF0F00", "more than 8 bytes of data"),
        ("(1700000000.500000) can0 132#7G", "the data is not hexadecimal"),
        ("(1700000000.500000) can0 132", "not a line of candump"),
        ("(1700000000.500000) can0 8FF#00", "the id 8FF is too large"),
        ("(1700000000.500000) can0 FFFFFFFF#00", "the id FFFFFFFF is too large"),
        ("(1700000000.500000) can0 0132#00", "an id has 3 or 8 hex digits, not 4"),
        ("(17000000", "not a line of candump"),
        ("(nan) can0 132#00", "not a line of candump"),
        ("\x00\xff\x0b\x85\x1c", "not a line of candump"),
    ],
)
def test_a_line_that_is_no_frame_is_counted_and_named(tmp_path, line, reason):
    found, pairs = read(tmp_path, candump(20) + "# a remark\n\n" + line + "\n" + candump(20, 100))
    assert (found.rejected, found.first_rejection, len(pairs)) == (1, (23, reason), 40)


def test_remote_error_and_fd_frames_are_skipped_not_rejected(tmp_path):
    odd = "132#R\n|132#R8\n|20000080#0000000000000000\n|132##1001122\n|132##0\n".replace("|", "(1700000001.0) can0 ")
    found, pairs = read(tmp_path, candump(20) + "(1700000001.0) can0 " + odd)
    assert (len(pairs), found.skipped, found.rejected) == (20, 5, 0)


@pytest.mark.parametrize("cut", range(1, 44))
def test_a_torn_last_line_never_becomes_a_frame(tmp_path, cut):
    whole = candump(20)
    _, all_pairs = read(tmp_path, whole)
    found, pairs = read(tmp_path, whole[:-cut])
    if cut == 1:
        assert pairs == all_pairs  # only its line end is missing
    else:
        assert pairs == all_pairs[:-1]
        assert found.rejected == 1
        assert found.first_rejection is not None
        assert found.first_rejection[0] == 20


def test_a_short_frame_at_the_end_is_believed_when_its_id_was_as_short_before(tmp_path):
    short = "(1700000000.300000) can0 7FF#01"
    assert len(read(tmp_path, candump(20) + short)[1]) == 20
    assert len(read(tmp_path, short.replace("3", "1", 1) + "\n" + candump(20) + short)[1]) == 22


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 8, 13, 21, 34])
def test_no_torn_file_gives_a_frame_that_was_not_recorded(tmp_path, kind, cut):
    _, pairs = read(tmp_path, written_by_python_can(kind)[:-cut])
    assert pairs == some_frames()[: len(pairs)]
    assert len(pairs) >= len(some_frames()) - 3


@pytest.mark.parametrize("kind", ["asc", "csv", "trc"])
def test_a_damaged_line_does_not_lose_the_rest_of_the_file(tmp_path, kind):
    lines = written_by_python_can(kind).splitlines(keepends=True)
    lines[-40] = lines[-40][: len(lines[-40]) // 2] + b"\n"
    lines[-60] = lines[-60].replace(b"0", b"x")
    lines[-80] = b"\x00\x01\x02" + lines[-80]
    found, pairs = read(tmp_path, b"".join(lines))
    recorded = some_frames()
    assert len(pairs) >= len(recorded) - 3
    assert pairs[-1] == recorded[-1]
    assert {frame for _, frame in pairs} <= {frame for _, frame in recorded}
    assert found.rejected >= 1
    assert found.first_rejection == (len(lines) - 79, "binary data")


def test_a_torn_gzip_file_gives_what_it_holds(tmp_path):
    whole = gzip.compress(candump(3000).encode(), mtime=0)
    found, pairs = read(tmp_path, whole[:-9])
    assert len(pairs) > 2900
    assert 1 <= found.rejected <= 2
    half = len(whole) // 2
    with pytest.raises(RecordingError, match="damaged at byte"):
        read(tmp_path, whole[:half] + bytes(2000) + whole[half + 2000 :] + bytes(200_000))


def test_more_than_a_tenth_unreadable_is_refused_with_the_first_line_named(tmp_path):
    good, bad = candump(90), "(oops)\n"
    assert len(read(tmp_path, good + 10 * bad)[1]) == 90
    with pytest.raises(RecordingError, match=r"recording\.dat: 11 of 101 lines cannot be read; line 91: not a line"):
        read(tmp_path, good + 11 * bad)


def test_a_file_that_is_mostly_unreadable_is_given_up_early(tmp_path):
    bad = 501 * "(oops)\n"
    with pytest.raises(RecordingError, match="501 of 1000 lines cannot be read; line 500: not a line"):
        next(iter(open_recording(put(tmp_path, candump(499) + bad + candump(9000)))))
    assert len(read(tmp_path, candump(500) + bad + candump(9000))[1]) == 9500


def test_a_line_that_never_ends_is_one_rejection(tmp_path):
    found, pairs = read(tmp_path, candump(20) + "x" * 1_000_000 + "\n(oops)\n" + candump(20, 100))
    assert (len(pairs), found.rejected, found.first_rejection) == (40, 2, (21, "the line has no end"))


@given(st.binary(max_size=300), st.integers(0, 10**6), st.sampled_from(sorted(WRITERS)))
@example(b"\x00", 0, "candump")
@settings(max_examples=200, deadline=None)
def test_any_damage_ends_in_frames_or_in_a_sentence(tmp_path_factory, dirt, place, kind):
    folder = tmp_path_factory.mktemp("x")
    content = written_by_python_can(kind)
    place %= len(content)
    try:
        found, pairs = read(folder, content[:place] + dirt + content[place + len(dirt) :])
    except RecordingError as refused:
        sentence = str(refused)
    else:
        sentence = "recording.dat"
        assert len(pairs) == found.frames > 0
    assert "recording.dat" in sentence
    assert "\n" not in sentence


# ---- what is no recording -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 9, "not a recording"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 9, "not a recording"),
        (gzip.compress(b"\x7fELF" + bytes(5000), mtime=0), "not a recording"),
        (b"name,age\nAnna,7\nBert,8\n", "not a recording"),
        (b"Time,ID,Value\n1.0,132,5\n", "not a recording"),
        (b"[1700000000.1] error (5.0) happened\n" * 50, "not a recording"),
        (b":R00=01.\n:r00=1,217,2140,110,6,\n", "not a recording"),
        (("\ufeff" + candump(3)).encode("utf-16-le"), "UTF-16"),
        (b"  can0  132   [8]  7D 83 D5 FF E2 3F FF 0F\n", "no time stamps"),
        (b"(1.0) can0 132#R\n", "no readable frame"),
        (b"(1.0) can0 132#0\n", "no readable frame"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_sentence(tmp_path, content, word):
    with pytest.raises(RecordingError, match=word) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "recording.dat") in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(RecordingError, match="No such file"):
        open_recording(tmp_path / "nowhere.log")
    with pytest.raises(RecordingError, match="folder"):
        open_recording(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path):
    plain = read(tmp_path, candump(9))[1]
    assert read(tmp_path, b"\xef\xbb\xbf" + candump(9).replace("\n", "\r\n").encode())[1] == plain


# ---- size, shipped recordings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path, zipped):
    path = tmp_path / "a"
    text = candump(50_000).encode()
    path.write_bytes(gzip.compress(text, 1, mtime=0) if zipped else text)
    assert len(text) > 2_000_000
    found = open_recording(path)
    del text
    tracemalloc.start()
    try:
        frames_read = sum(len(batch) for _, batch in found.batches())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert frames_read == 50_000
    assert peak < 2_000_000


def test_a_name_that_is_no_file_is_looked_for_among_the_shipped(tmp_path, monkeypatch):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "m3.log").write_text(candump(2))
    (tmp_path / "secret.log").write_text(candump(2))
    monkeypatch.setattr(recording, "LOGS", tmp_path / "logs")
    monkeypatch.chdir(tmp_path)
    assert shipped("m3.log") == tmp_path / "logs" / "m3.log"
    assert shipped("../secret.log") is None
    assert shipped("nothing.log") is None
    assert locate("m3.log") == tmp_path / "logs" / "m3.log"
    assert locate("secret.log") == Path("secret.log")
    (tmp_path / "m3.log").write_text(candump(2))
    assert locate("m3.log") == Path("m3.log")


def test_writing_is_deterministic(tmp_path):
    write_candump(tmp_path / "a", some_frames())
    write_candump(tmp_path / "b", some_frames())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_text().startswith("(1700000000.000000) can0 ")
