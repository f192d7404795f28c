"""The tables: what they refuse to load, and that they decode as cantools does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cantools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.batteries import tesla_model3
from controller.codec import dbc
from controller.codec.dbc import Mailbox, TableError, Tables

SHARED = Path(__file__).parents[2].parent / "shared"
TESLA_DBCS = sorted(Path(tesla_model3.__file__).parent.glob("tesla_model3*.dbc"))

HEAD = 'VERSION ""\n\nBS_:\n\nBU_: A B\n\n'
ATTRIBUTES = (
    'BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;\nBA_DEF_ BO_ "RoundMs" INT 0 600000;\n'
    'BA_DEF_ BO_ "UnlistedPages" ENUM "refused","ignored";\nBA_DEF_ BO_ "ExactLength" ENUM "no","yes";\n'
    'BA_DEF_DEF_ "GenMsgCycleTime" 0;\nBA_DEF_DEF_ "RoundMs" 0;\n'
    'BA_DEF_DEF_ "UnlistedPages" "refused";\nBA_DEF_DEF_ "ExactLength" "no";\n'
)
MIXED = """BO_ 256 Mixed: 8 A
 SG_ Little : 4|12@1+ (0.5,0) [0|2047.5] "V" B
 SG_ LittleSigned : 16|9@1- (0.25,-10) [-74|53.75] "A" B
 SG_ Big : 39|11@0+ (0.5,0) [0|1023.5] "V" B
 SG_ BigSigned : 55|11@0- (0.5,0) [-512|511.5] "A" B

BO_ 257 Paged: 8 A
 SG_ Index M : 7|4@0+ (1,0) [0|15] "" B
 SG_ Common : 8|8@1+ (1,0) [0|255] "" B
 SG_ First m0 : 16|16@1- (0.1,0) [-3276.8|3276.7] "V" B
 SG_ Second m1 : 16|8@1+ (2,5) [5|515] "V" B
 SG_ Third m1 : 24|8@1+ (1,0) [0|255] "" B

BO_ 258 Other: 8 A
 SG_ OtherIndex M : 0|8@1+ (1,0) [0|255] "" B
 SG_ OtherFirst m3 : 8|8@1+ (1,0) [0|255] "" B

BO_ 259 Short: 5 A
 SG_ ShortValue : 0|8@1+ (1,0) [0|255] "" B

CM_ BO_ 256 "made up";
CM_ BO_ 257 "made up";
CM_ BO_ 258 "made up";
CM_ BO_ 259 "made up";
"""
MIXED_ENDS = (
    'BA_ "GenMsgCycleTime" BO_ 256 10;\nBA_ "GenMsgCycleTime" BO_ 257 100;\nBA_ "RoundMs" BO_ 257 200;\n'
    'BA_ "UnlistedPages" BO_ 258 1;\nBA_ "ExactLength" BO_ 259 1;\n'
    'VAL_ 256 Big 1023 "SNA" 0 "Zero" ;\nVAL_ 256 LittleSigned -256 "SNA" ;\n'
    'VAL_ 257 First -32768 "SNA" 32767 "SNA" ;\n'
)


def write(path: Path, body: str, ends: str = "") -> Path:
    path.write_text(HEAD + body + ATTRIBUTES + ends)
    return path


@pytest.fixture(scope="module")
def mixed_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("dbc") / "mixed.dbc", MIXED, MIXED_ENDS)


@pytest.fixture(scope="module")
def mixed(mixed_path: Path) -> Tables:
    return dbc.load(mixed_path)


# What is refused


def refusal(tmp_path: Path, *bodies: str) -> str:
    paths = [write(tmp_path / f"bad{index}.dbc", body) for index, body in enumerate(bodies)]
    with pytest.raises(TableError) as error:
        dbc.load(*paths)
    return str(error.value)


SIGNED_BY_MISTAKE = """BO_ 475 PackStatus: 8 A
 SG_ LB_Current : 7|11@0+ (0.5,0) [-400|200] "A" B

CM_ BO_ 475 "EV-can_ZE0.dbc in dalathegreat/leaf_can_bus_messages";
"""


def test_a_range_the_bits_cannot_express_is_refused_though_cantools_lets_it_pass(tmp_path: Path):
    path = write(tmp_path / "ze0.dbc", SIGNED_BY_MISTAKE)
    cantools.database.load_file(str(path), strict=True)
    assert "LB_Current: the declared range -400" in refusal(tmp_path, SIGNED_BY_MISTAKE)


def test_two_messages_with_one_id_in_one_file_are_refused_though_cantools_lets_them_pass(tmp_path: Path):
    twice = (
        'BO_ 5 One: 8 A\n SG_ X : 0|8@1+ (1,0) [0|255] "" B\n\nBO_ 5 Two: 8 A\n SG_ Y : 0|8@1+ (1,0) [0|255] "" B\n\n'
    )
    twice += 'CM_ BO_ 5 "somewhere";\n'
    cantools.database.load_file(str(write(tmp_path / "twice.dbc", twice)), strict=True)
    assert "Two has the id 0x5 of One" in refusal(tmp_path, twice)


def test_a_message_that_does_not_name_its_source_is_refused(tmp_path: Path):
    assert "Bare has no comment" in refusal(tmp_path, 'BO_ 5 Bare: 8 A\n SG_ X : 0|8@1+ (1,0) [0|255] "" B\n\n')


def test_overlapping_signals_are_refused(tmp_path: Path):
    body = 'BO_ 5 One: 8 A\n SG_ X : 0|8@1+ (1,0) [0|255] "" B\n SG_ Y : 7|8@1+ (1,0) [0|255] "" B\n\nCM_ BO_ 5 "x";\n'
    assert "bad0.dbc" in refusal(tmp_path, body)


def test_a_29_bit_id_is_refused(tmp_path: Path):
    body = 'BO_ 2147483653 One: 8 A\n SG_ X : 0|8@1+ (1,0) [0|255] "" B\n\nCM_ BO_ 2147483653 "x";\n'
    assert "29-bit" in refusal(tmp_path, body)


def test_everything_wrong_is_said_at_once(tmp_path: Path):
    bare = 'BO_ 5 Bare: 8 A\n SG_ X : 0|8@1+ (1,0) [0|256] "" B\n\n'
    text = refusal(tmp_path, bare, SIGNED_BY_MISTAKE)
    assert [line.split(":")[0] for line in text.splitlines()] == ["bad0.dbc", "bad0.dbc", "bad1.dbc"]


def test_the_same_message_name_in_two_files_is_refused(tmp_path: Path):
    body = 'BO_ 5 One: 8 A\n SG_ X : 0|8@1+ (1,0) [0|255] "" B\n\nCM_ BO_ 5 "x";\n'
    assert "name of another message" in refusal(tmp_path, body, body)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(TableError, match=r"nothing\.dbc"):
        dbc.load(tmp_path / "nothing.dbc")


def test_a_check_for_an_id_no_file_has_is_refused(mixed_path: Path):
    with pytest.raises(TableError, match="0x999"):
        dbc.load(mixed_path, checks={0x999: lambda data, before: True})


def test_all_tesla_files_load():
    assert [path.name for path in TESLA_DBCS] == [
        "tesla_model3.dbc", "tesla_model3_2020.dbc", "tesla_model3_2021.dbc", "tesla_model3_2026.dbc",
        "tesla_model3_pcs6.dbc",
    ]  # fmt: skip
    for path in TESLA_DBCS:
        assert dbc.load(path).layouts


# Decoding


@given(st.binary(min_size=8, max_size=8))
def test_any_frame_decodes_as_cantools_does_it(mixed_path: Path, mixed: Tables, data: bytes):
    theirs = (
        cantools.database.load_file(str(mixed_path), strict=True)
        .get_message_by_name("Mixed")
        .decode(data, decode_choices=False)
    )
    ours = mixed.page("Mixed").decode(data)
    for name, value in theirs.items():
        sna = (name == "Big" and value == 1023 * 0.5) or (name == "LittleSigned" and value == -256 * 0.25 - 10)
        assert ours[name] is None if sna else ours[name] == value


def test_big_endian_bits_are_counted_from_the_top(mixed: Tables):
    # byte 4 and 5: Big = 0b101_0000_0001 from bit 7 of byte 4 on; byte 6 and 7: BigSigned = -1
    values = mixed.page("Mixed").decode(bytes.fromhex("00 00 00 00 A0 20 FF E0"))
    assert values["Big"] == 0b101_0000_0001 * 0.5
    assert values["BigSigned"] == -0.5


def test_a_raw_value_named_sna_is_none_and_other_named_values_are_not(mixed: Tables):
    assert mixed.page("Mixed").decode(bytes.fromhex("00 00 00 00 7F E0 00 00"))["Big"] is None
    assert mixed.page("Mixed").decode(bytes(8))["Big"] == 0
    assert mixed.page("Mixed").decode(bytes.fromhex("00 00 00 01 00 00 00 00"))["LittleSigned"] is None
    assert mixed.page("Paged", 0).decode(bytes.fromhex("00 00 00 80"))["First"] is None
    assert mixed.page("Paged", 0).decode(bytes.fromhex("00 00 FF 7F"))["First"] is None
    assert mixed.page("Paged", 0).decode(bytes.fromhex("00 00 01 80"))["First"] == pytest.approx(-3276.7)


@pytest.mark.parametrize("length", range(9))
def test_missing_bytes_are_none_never_zero(mixed: Tables, length: int):
    values = mixed.page("Mixed").decode(bytes.fromhex("11 11 11 11 11 11 11 11")[:length])
    known = {name for name, value in values.items() if value is not None}
    reach = {"Little": 2, "LittleSigned": 4, "Big": 6, "BigSigned": 8}
    assert known == {name for name, needs in reach.items() if needs <= length}


# The mailbox

FRAME = bytes.fromhex("10 05 64 00 00 00 00 00")  # Paged, page 1


def test_each_page_is_kept_on_its_own_with_its_stamp(mixed: Tables):
    box = Mailbox(mixed).receive([(257, bytes.fromhex("00 07 0A 00"), 10, False), (257, FRAME, 20, False)], 30)
    assert box.read(mixed.page("Paged", 0), 30) == {"Index": 0, "Common": 7, "First": 1.0}
    assert box.read(mixed.page("Paged", 1), 30) == {"Index": 1, "Common": 5, "Second": 205, "Third": 0}
    assert box.latest[mixed.page("Paged", 0)].at_ms == 10
    assert (box.accepted, box.rejected) == (2, 0)


def test_a_page_is_unknown_before_it_came_and_once_it_is_too_old(mixed: Tables):
    page = mixed.page("Paged", 1)
    nothing = {"Index": None, "Common": None, "Second": None, "Third": None}
    box = Mailbox(mixed)
    assert box.read(page, 0) == nothing
    box = box.receive([(257, FRAME, 100, False)], 100)
    assert box.read(page, 100 + 5 * 200)["Second"] == 205  # its round is 200 ms
    assert box.read(page, 100 + 5 * 200 + 1) == nothing


def test_a_fast_page_may_still_be_100_ms_old(mixed: Tables):
    page = mixed.page("Mixed")
    box = Mailbox(mixed).receive([(256, bytes(8), 0, False)], 0)
    assert box.read(page, 100)["Little"] == 0
    assert box.read(page, 101)["Little"] is None


def test_a_multiplexer_value_that_cannot_be_is_counted_and_changes_nothing(mixed: Tables):
    before = Mailbox(mixed).receive([(257, FRAME, 0, False)], 0)
    box = before.receive([(257, bytes.fromhex("90 05 64 00"), 10, False)], 10)
    assert (box.accepted, box.rejected) == (1, 1)
    assert box.latest == before.latest


def test_a_multiplexer_value_known_to_exist_unlisted_is_accepted_unread(mixed: Tables):
    box = Mailbox(mixed).receive([(258, bytes.fromhex("63 01"), 0, False)], 0)
    assert (box.accepted, box.rejected) == (1, 0)
    assert box.read(mixed.page("Other", 3), 0)["OtherFirst"] is None


@pytest.mark.parametrize("data", [b"", bytes(1)])
def test_a_frame_too_short_for_any_signal_is_counted_as_rejected(mixed: Tables, data: bytes):
    box = Mailbox(mixed).receive([(256, data, 0, False)], 0)
    assert (box.accepted, box.rejected) == (0, 1)


def test_an_exact_length_is_exact(mixed: Tables):
    box = Mailbox(mixed).receive([(259, bytes(n), 0, False) for n in (4, 5, 6, 8)], 0)
    assert (box.accepted, box.rejected) == (1, 3)


def test_foreign_ids_and_29_bit_ids_give_the_same_mailbox_back(mixed: Tables):
    box = Mailbox(mixed).receive([(257, FRAME, 0, False)], 0).receive([], 10)
    assert box.news == ()
    assert box.receive([(999, FRAME, 20, False), (257, FRAME, 20, True)], 20) is box


def test_receiving_leaves_the_old_mailbox_as_it_was(mixed: Tables):
    page = mixed.page("Paged", 1)
    old = Mailbox(mixed).receive([(257, FRAME, 0, False)], 0)
    new = old.receive([(257, bytes.fromhex("10 06 64 00"), 10, False)], 10)
    assert old.read(page, 10)["Common"] == 5
    assert new.read(page, 10)["Common"] == 6


def test_of_two_frames_in_one_tick_the_newest_counts(mixed: Tables):
    frames = [(257, FRAME, 0, False), (257, bytes.fromhex("10 06 64 00"), 5, False)]
    box = Mailbox(mixed).receive(frames, 10)
    assert box.read(mixed.page("Paged", 1), 10)["Common"] == 6
    assert box.accepted == 2


def test_an_unchanged_frame_is_not_decoded_again_but_is_fresh_again(mixed: Tables):
    page = mixed.page("Paged", 1)
    old = Mailbox(mixed).receive([(257, FRAME, 0, False)], 0)
    values = old.read(page, 0)
    new = old.receive([(257, FRAME, 5_000, False)], 5_000)
    assert new.read(page, 5_000) is values


def test_a_stamp_from_the_future_is_not_believed(mixed: Tables):
    box = Mailbox(mixed).receive([(257, FRAME, 99_999, False)], 10)
    assert box.latest[mixed.page("Paged", 1)].at_ms == 10


def test_a_check_sees_the_frame_before_and_what_it_refuses_refreshes_nothing(mixed_path: Path):
    seen: list[tuple[bytes, bytes | None]] = []

    def check(data: bytes, before: bytes | None) -> bool:
        seen.append((data, before))
        return data[1] != 0xFF

    tables = dbc.load(mixed_path, checks={257: check})
    bad = bytes.fromhex("10 FF 64 00")
    box = Mailbox(tables).receive([(257, FRAME, 0, False), (257, bad, 10, False), (257, FRAME, 20, False)], 20)
    assert seen == [(FRAME, None), (bad, FRAME), (FRAME, FRAME)]
    assert (box.accepted, box.rejected) == (2, 1)


def test_a_frame_is_explained_in_every_layout_it_fits(mixed: Tables):
    assert mixed.explain(259, bytes(5)) == (("Short", {"ShortValue": 0}),)
    assert mixed.explain(259, bytes(6)) == ()
    assert mixed.explain(1, bytes(8)) == ()


def test_cycles_come_from_the_file(mixed: Tables):
    assert mixed.cycles() == {256: 10, 257: 100, 258: 0, 259: 0}


# Against cantools, on recordings


def recorded(ids: set[int]) -> Iterator[tuple[int, bytes]]:
    """Every different frame of these ids in the Tesla recordings."""
    seen: set[tuple[int, bytes]] = set()
    for path in sorted((SHARED / "logs").glob("tesla-*.log")):
        for line in path.read_text().splitlines():
            name, _, payload = line.split()[2].partition("#")
            if len(name) == 3 and int(name, 16) in ids:
                frame = int(name, 16), bytes.fromhex(payload)
                if frame not in seen:
                    seen.add(frame)
                    yield frame


@pytest.mark.skipif(not (SHARED / "logs").is_dir(), reason="the shared recordings are not here")
@pytest.mark.parametrize("path", TESLA_DBCS, ids=lambda path: path.stem)
def test_recorded_frames_decode_as_cantools_does_it(path: Path):
    theirs = cantools.database.load_file(str(path), strict=True)
    tables = dbc.load(path)
    compared = 0
    for can_id, data in recorded(set(tables.by_id)):
        (layout,) = tables.by_id[can_id]
        page = layout.page_of(data)
        if page is None or (page.index is not None and page.index not in layout.pages):
            continue
        message = theirs.get_message_by_frame_id(can_id)
        expected = message.decode_simple(data, decode_choices=False, allow_truncated=True)
        ours = page.decode(data)
        assert set(expected) <= set(ours)
        for name, value in expected.items():
            row = next(row for row in page.little.all if row.name == name)
            raw = int.from_bytes(data, "little") >> row.shift & row.mask
            assert ours[name] is None if raw in row.sna else ours[name] == pytest.approx(value, rel=1e-12), name
        compared += 1
    assert compared >= 5
