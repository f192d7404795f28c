"""A Modbus relay board that does not answer, answers late or refuses: write() says so, and goes on saying it."""

from __future__ import annotations

import pytest

from controller.ports import PortError, RelayError
from drivers.memory import HandClock, MemoryLine
from drivers.modbus_master import LATE_MS
from drivers.modbus_relays import CONFIRM_MS, FEEDBACK_MS, REFRESH_MS, YIELD_MS, ModbusRelays
from statecharts.supervisor import Contactor
from tests.drivers.board import Board, checksum

NEGATIVE, POSITIVE = Contactor.NEGATIVE, Contactor.POSITIVE
CHANNELS = {NEGATIVE: 1, POSITIVE: 8}
CLOSED = frozenset({NEGATIVE, POSITIVE})
NOTHING: frozenset[Contactor] = frozenset()


class Rig:
    def __init__(self, inputs: dict[Contactor, int] | None = None) -> None:
        self.board, self.clock = Board(), HandClock(1000)
        self.port = ModbusRelays(self.board, 1, CHANNELS, self.clock.now_ms, inputs=inputs, pause=self.pause)

    def pause(self, _: float) -> None:
        self.clock.ms += 5

    def ticks(self, wanted: frozenset[Contactor], ms: int) -> list[bool]:
        """Write in every tick; whether each was refused."""
        refused = []
        for _ in range(ms // 10):
            self.clock.ms += 10
            try:
                self.port.write(wanted)
                refused.append(False)
            except RelayError:
                refused.append(True)
        return refused


def test_the_frames_are_those_boards_are_documented_with():
    assert checksum(bytes.fromhex("010F0000000801FF")) == bytes.fromhex("BED5")
    rig = Rig()
    rig.ticks(CLOSED, 20)
    assert rig.board.heard[0] == bytes.fromhex("010F000000080100FE95")
    assert rig.board.heard[1][:-2] == bytes.fromhex("010F000000080181")


def test_a_board_that_does_not_answer_at_the_start_is_one_line_with_what_to_check():
    clock = HandClock(1000)
    with pytest.raises(PortError, match=r"^\[relays\] x: no answer from Modbus unit 1; check port, baud, unit"):
        ModbusRelays(MemoryLine(), 1, CHANNELS, clock.now_ms, name="[relays] x",
                     pause=lambda _: setattr(clock, "ms", clock.ms + 5))  # fmt: skip


def test_every_write_is_repeated_while_all_is_well():
    rig = Rig()
    assert not any(rig.ticks(CLOSED, 1000))
    assert 4 <= len(rig.board.heard) <= 8
    assert rig.board.coils == {1, 8}


def test_a_write_that_is_not_acknowledged_in_time_is_an_error_in_every_tick_from_then_on():
    rig = Rig()
    rig.ticks(CLOSED, 100)
    rig.board.mute = True
    refused = rig.ticks(NOTHING, 2000)
    first = refused.index(True)
    assert first * 10 <= CONFIRM_MS
    assert all(refused[first:])


def test_a_board_that_dies_while_nothing_changes_is_noticed_and_stays_an_error_even_when_opening_is_tried():
    rig = Rig()
    rig.ticks(CLOSED, 500)
    rig.board.dead = True
    refused = rig.ticks(CLOSED, 1000)
    assert refused.index(True) * 10 <= REFRESH_MS + CONFIRM_MS
    assert all(rig.ticks(NOTHING, 1000))


def test_a_board_that_answers_again_is_used_again():
    rig = Rig()
    rig.board.dead = True
    assert rig.ticks(CLOSED, 1000)[-1]
    rig.board.dead = False
    assert not rig.ticks(NOTHING, 300)[-1]
    assert rig.board.coils == set()


def test_a_refusal_of_the_board_is_no_acknowledgement():
    rig = Rig()
    rig.board.refuses = True
    assert rig.ticks(CLOSED, 300)[-1]


def test_the_echo_of_our_own_frame_is_no_acknowledgement():
    rig = Rig()
    rig.board.echo = rig.board.dead = True
    assert rig.ticks(CLOSED, 300)[-1]


def test_an_answer_with_a_wrong_checksum_is_no_acknowledgement():
    rig = Rig()
    rig.board.garbles = True
    assert rig.ticks(CLOSED, 300)[-1]


def test_an_echo_whose_front_looks_like_an_acknowledgement_is_none():
    """The first eight bytes of this request end in their own checksum."""
    front = bytes.fromhex("F00F000000070128")
    assert checksum(front[:-2]) == front[-2:]
    board, clock = Board(), HandClock(1000)
    channels = {NEGATIVE: 4, Contactor.PRECHARGE: 6, POSITIVE: 7}
    port = ModbusRelays(board, 240, channels, clock.now_ms, pause=lambda _: setattr(clock, "ms", clock.ms + 5))
    board.echo = board.dead = True
    wanted = frozenset({NEGATIVE, Contactor.PRECHARGE})
    for _ in range(CONFIRM_MS // 10):
        clock.ms += 10
        port.write(wanted)
        board.unread += b"\0"  # noise behind it
    assert board.heard[-1].startswith(front)
    clock.ms += 10
    with pytest.raises(RelayError):
        port.write(wanted)


def test_an_acknowledgement_behind_the_echo_counts():
    rig = Rig()
    rig.board.echo = True
    assert not any(rig.ticks(CLOSED, 1000))


def unanswered(inputs: dict[Contactor, int] | None = None) -> Rig:
    """In this tick the board was asked something, all closed, and has fallen silent."""
    rig = Rig(inputs)
    rig.ticks(CLOSED, 500)
    rig.board.mute = True
    rig.board.heard.clear()
    while not rig.board.heard:
        rig.ticks(CLOSED, 10)
    return rig


@pytest.mark.parametrize("inputs", [None, {NEGATIVE: 3}])
def test_opening_does_not_wait_for_an_answer_that_does_not_come(inputs: dict[Contactor, int] | None):
    rig = unanswered(inputs)
    rig.ticks(NOTHING, YIELD_MS)
    assert rig.board.coils == set()


@pytest.mark.parametrize("stall_ms", [0, 70, 80, 90])
def test_off_goes_out_in_the_tick_that_gives_up_on_a_line_long_silent(stall_ms: int):
    rig = unanswered()
    asked_ms = [rig.clock.ms]
    rig.ticks(CLOSED, 90)
    rig.clock.ms += stall_ms
    while not rig.ticks(CLOSED, 10)[0]:
        asked_ms += [rig.clock.ms] * (len(rig.board.heard) - len(asked_ms))
    assert rig.board.coils == {1, 8}
    with pytest.raises(RelayError):
        rig.port.write(NOTHING)
    assert rig.board.coils == set()
    assert rig.clock.ms - asked_ms[-1] >= YIELD_MS


def test_a_board_that_was_given_up_is_asked_to_close_nothing_before_it_has_acknowledged_off():
    rig = unanswered()
    rig.ticks(CLOSED, 1000)
    rig.board.heard.clear()
    assert all(rig.ticks(CLOSED, 500))
    assert rig.board.heard == []
    rig.board.mute = False
    assert not rig.ticks(NOTHING, 300)[-1]
    assert not any(rig.ticks(CLOSED, 300))
    assert rig.board.coils == {1, 8}


@pytest.mark.parametrize("late_ms", range(YIELD_MS, LATE_MS - 10, 10))
def test_a_late_acknowledgement_of_on_is_none_of_off(late_ms: int):
    rig = unanswered()
    rig.board.dead = True
    refused = rig.ticks(NOTHING, late_ms)
    rig.board.unread = bytes.fromhex("010F00000008") + checksum(bytes.fromhex("010F00000008"))
    refused += rig.ticks(NOTHING, CONFIRM_MS + 10 - late_ms)
    assert refused[-1]


@pytest.mark.parametrize("ms", range(0, 300, 10))
def test_one_lost_answer_is_no_error_whenever_opening_is_asked_for(ms: int):
    rig = unanswered()
    rig.board.mute = False
    refused = rig.ticks(CLOSED, ms) + rig.ticks(NOTHING, YIELD_MS)
    assert rig.board.coils == set()
    assert not any(refused + rig.ticks(NOTHING, 1000))


def test_one_lost_answer_leaves_the_contacts_known():
    rig = unanswered({NEGATIVE: 3})
    rig.board.mute = False
    for _ in range(100):
        assert rig.port.feedback() == {NEGATIVE: False}
        rig.ticks(CLOSED, 10)


def test_feedback_that_is_not_refreshed_any_more_is_unknown():
    rig = Rig(inputs={NEGATIVE: 3})
    rig.board.contacts = {3}
    rig.ticks(NOTHING, 100)
    assert rig.port.feedback() == {NEGATIVE: True}
    rig.board.dead = True
    rig.ticks(NOTHING, FEEDBACK_MS + 10)
    assert rig.port.feedback() == {NEGATIVE: None}


def test_closing_the_port_switches_everything_off_first():
    rig = Rig()
    rig.ticks(CLOSED, 100)
    rig.port.close()
    assert rig.board.coils == set()


def test_a_relay_that_is_not_wired_is_refused():
    with pytest.raises(RelayError, match="no relay is wired for precharge"):
        Rig().port.write(frozenset({NEGATIVE, Contactor.PRECHARGE}))
