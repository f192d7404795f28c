"""What every RelayPort does: pins of the Pi (gpiozero's mock pins), a Modbus board, the twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import pytest
from gpiozero.pins.mock import MockFactory

from controller.ports import RelayError, RelayPort
from drivers.gpio import GpioRelays
from drivers.memory import HandClock, MemoryRelays
from drivers.modbus_relays import ModbusRelays
from drivers.no_relays import NoRelays
from statecharts.supervisor import Contactor
from tests.drivers.board import Board

NEGATIVE, PRECHARGE, POSITIVE, PACK = Contactor.NEGATIVE, Contactor.PRECHARGE, Contactor.POSITIVE, Contactor.PACK
OWN = frozenset({NEGATIVE, PRECHARGE, POSITIVE})
PINS = {NEGATIVE: 17, PRECHARGE: 27, POSITIVE: 22}
CONTACTS = {NEGATIVE: 5, PRECHARGE: 6, POSITIVE: 13}
NUMBERS = {NEGATIVE: 1, PRECHARGE: 2, POSITIVE: 4}


class Rig(NamedTuple):
    """A port with auxiliary contacts, and the world behind it.

    coils: which are energised. move: the contacts are where they are told to be. settle: let time pass for a write.
    """

    port: RelayPort
    coils: Callable[[], frozenset[Contactor]]
    move: Callable[[frozenset[Contactor]], None]
    settle: Callable[[], None]


def memory() -> Rig:
    relays = MemoryRelays(OWN, blind=False)

    def move(closed: frozenset[Contactor]) -> None:
        relays.welded = closed

    return Rig(relays, lambda: relays.history[-1], move, lambda: None)


def gpio(active_high: bool, normally_closed: bool) -> Rig:
    pins = MockFactory()
    port = GpioRelays(PINS, pins, active_high=active_high, feedback=CONTACTS, normally_closed=normally_closed)

    def move(closed: frozenset[Contactor]) -> None:
        for member, number in CONTACTS.items():
            contact_closed = (member in closed) is not normally_closed
            pins.pin(number).drive_low() if contact_closed else pins.pin(number).drive_high()

    move(frozenset())
    return Rig(
        port, lambda: frozenset(m for m, number in PINS.items() if pins.pin(number).state is active_high), move,
        lambda: None,
    )  # fmt: skip


def modbus(normally_closed: bool) -> Rig:
    board, clock = Board(normally_closed), HandClock(1000)

    def pause(_: float = 0.01) -> None:
        clock.ms += 10

    port = ModbusRelays(board, 1, NUMBERS, clock.now_ms, inputs=NUMBERS, normally_closed=normally_closed, pause=pause)
    written: list[frozenset[Contactor]] = []
    write = port.write

    def remember(closed: frozenset[Contactor]) -> None:
        written[:] = [closed]
        write(closed)

    port.write = remember  # type: ignore[method-assign]

    def settle() -> None:
        for _ in range(10):
            pause()
            write(written[0] if written else frozenset())

    def move(closed: frozenset[Contactor]) -> None:
        board.contacts = {NUMBERS[member] for member in closed}
        settle()

    return Rig(port, lambda: frozenset(m for m, number in NUMBERS.items() if number in board.coils), move, settle)


RIGS: Mapping[str, Callable[[], Rig]] = {
    "twin": memory,
    "gpio": lambda: gpio(True, False),
    "gpio, active low, mirror contacts": lambda: gpio(False, True),
    "modbus": lambda: modbus(False),
    "modbus, mirror contacts": lambda: modbus(True),
}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    return RIGS[request.param]()


def test_everything_is_off_from_construction_on(rig: Rig):
    assert rig.coils() == frozenset()


@pytest.mark.parametrize("closed", [frozenset({NEGATIVE}), frozenset({NEGATIVE, PRECHARGE}), OWN, frozenset()])
@pytest.mark.parametrize("before", [frozenset(), frozenset({POSITIVE}), OWN])
def test_a_write_closes_exactly_these(rig: Rig, before: frozenset[Contactor], closed: frozenset[Contactor]):
    for wanted in (before, closed):
        rig.port.write(wanted)
        rig.settle()
    assert rig.coils() == closed


def test_asking_the_pack_to_close_moves_no_coil_of_ours(rig: Rig):
    rig.port.write(frozenset({PACK, POSITIVE}))
    rig.settle()
    assert rig.coils() - {PACK} == {POSITIVE}


def test_feedback_tells_where_the_contacts_are(rig: Rig):
    for closed in (frozenset({NEGATIVE}), OWN):
        rig.move(closed)
        assert rig.port.feedback() == {member: member in closed for member in OWN}
    assert rig.coils() == frozenset()


# --- a board without relays, and one without contacts ---


def test_a_setup_without_relays_refuses_to_energise_one_but_lets_the_pack_be_asked():
    port = NoRelays()
    port.write(frozenset({PACK}))
    with pytest.raises(RelayError, match="no relay is wired for positive"):
        port.write(frozenset({PACK, POSITIVE}))
    assert port.feedback() == {}


def test_without_auxiliary_contacts_nothing_is_fed_back_whatever_is_commanded():
    gpio_port = GpioRelays(PINS, MockFactory())
    clock = HandClock(1000)
    modbus_port = ModbusRelays(Board(), 1, NUMBERS, clock.now_ms, pause=lambda _: setattr(clock, "ms", clock.ms + 10))
    for port in (gpio_port, modbus_port, MemoryRelays(OWN)):
        port.write(OWN)
        assert port.feedback() == {}


def test_a_relay_that_is_not_wired_is_refused_and_nothing_is_closed():
    pins = MockFactory()
    port = GpioRelays({POSITIVE: 22}, pins)
    with pytest.raises(RelayError, match="no relay is wired for negative"):
        port.write(frozenset({NEGATIVE, POSITIVE}))
    assert not pins.pin(22).state
