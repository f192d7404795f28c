"""Relays a dead controller has left on: switched off again, by whom, and when that is refused."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gpiozero.pins.mock import MockFactory
from typer.testing import CliRunner

from controller import coils, run
from controller.batteries.registry import BATTERIES
from controller.cli import app
from controller.coils import Coils, coils_of, keep, kept, switch_off
from controller.config import Catalogue, parse, template
from controller.inverters.registry import INVERTERS
from controller.ports import PortError
from drivers.exclusive import Exclusive
from drivers.record_files import COPIES, RecordError
from statecharts.supervisor import Contactor

CATALOGUE = Catalogue(BATTERIES, INVERTERS)
BOTH = template(CATALOGUE, "tesla_model3", "byd_modbus", "pack+inverter")
PACK = template(CATALOGUE, "tesla_model3", "byd_modbus", "pack")
PINS = {Contactor.NEGATIVE: 17, Contactor.PRECHARGE: 27, Contactor.POSITIVE: 22}
RUNNER = CliRunner()


class LeftOn(MockFactory):
    """A chip whose outputs are still driven as a dead process left them. failing: a pin nobody can claim."""

    def __init__(self, *numbers: int, level: bool = True, failing: int = 0) -> None:
        super().__init__()
        self._failing, self._left = failing, {number: self.pin(number) for number in numbers}
        for pin in self._left.values():
            pin.function, pin.state = "output", level

    def reserve_pins(self, requester: Any, *pins: Any) -> None:
        if self._failing in pins:
            raise OSError("busy")
        super().reserve_pins(requester, *pins)

    def levels(self) -> dict[int, bool]:
        return {number: bool(pin.state) for number, pin in self._left.items()}


class Devices(Exception):
    """It got as far as its devices."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its locks are those of this process: other tests may run beside it."""
    monkeypatch.setattr(coils, "Exclusive", partial(Exclusive, f"test {os.getpid()}"))


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> LeftOn:
    chip = LeftOn(17, 22, 27)
    monkeypatch.setattr(coils, "pi_pins", lambda: chip)
    return chip


def outputs_off(config: Path, folder: Path) -> Any:
    return RUNNER.invoke(app, ["outputs-off", "--config", str(config)], env={"STATE_DIRECTORY": str(folder)})


@pytest.mark.parametrize("active_low", [False, True])
def test_each_coil_is_driven_to_its_off_level(active_low: bool):
    chip = LeftOn(17, 22, 27, level=not active_low)
    said = switch_off(Coils(PINS, active_low), lambda: chip)
    assert said == "off: negative (GPIO 17), precharge (GPIO 27), positive (GPIO 22)"
    assert chip.levels() == {17: active_low, 22: active_low, 27: active_low}


def test_a_coil_that_fails_keeps_no_other_one_on_and_is_told():
    chip = LeftOn(17, 22, 27, failing=17)
    with pytest.raises(PortError, match=r"^GPIO 17 "):
        switch_off(Coils(PINS), lambda: chip)
    assert chip.levels() == {17: True, 22: False, 27: False}


def test_nothing_is_touched_while_a_controller_has_one_of_the_pins():
    chip, owned = LeftOn(17, 22, 27), Exclusive(f"test {os.getpid()}")
    owned.take("GPIO 22")
    with pytest.raises(PortError, match="GPIO 22 is in use by another controller"):
        switch_off(Coils(PINS), lambda: chip)
    owned.close()
    assert chip.levels() == {17: True, 22: True, 27: True}
    switch_off(Coils(PINS), lambda: chip)


def test_a_board_that_does_not_answer_is_told():
    with pytest.raises(PortError, match=r"^\[relays\] port /dev/none: "):
        switch_off(Coils({Contactor.POSITIVE: 1}, port="/dev/none", baud=9600, unit=1))


def test_the_command_says_what_it_did(chip: LeftOn, tmp_path: Path):
    config = tmp_path / "c.toml"
    config.write_text(BOTH)
    done = outputs_off(config, tmp_path)
    assert (done.exit_code, done.stdout) == (0, "off: positive (GPIO 22)\n")
    assert chip.levels()[22] is False
    config.write_text(PACK)
    assert "nothing to switch off" in outputs_off(config, tmp_path).stdout


def test_without_a_readable_config_the_relays_of_the_last_start_go_off(chip: LeftOn, tmp_path: Path):
    config = tmp_path / "c.toml"
    config.write_text("no config")
    done = outputs_off(config, tmp_path)
    assert done.exit_code == 2
    assert "no relay was switched off" in done.stderr
    assert chip.levels()[22] is True
    keep(coils_of(parse(BOTH, "c.toml", CATALOGUE)), tmp_path)
    done = outputs_off(config, tmp_path)
    assert (done.exit_code, done.stdout) == (0, "off: positive (GPIO 22)\n")
    assert "the relays of the last start" in done.stderr
    assert chip.levels()[22] is False


def test_the_command_is_refused_while_a_controller_runs(chip: LeftOn, tmp_path: Path):
    config = tmp_path / "c.toml"
    config.write_text(BOTH)
    owned = Exclusive(f"test {os.getpid()}")
    owned.take("GPIO 22")
    done = outputs_off(config, tmp_path)
    owned.close()
    assert done.exit_code == 2
    assert "stop that one first" in done.stderr
    assert chip.levels()[22] is True


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"numbers": {"engine": 3}}', '{"numbers": 3}'])
def test_what_is_no_file_of_relays_is_none(text: str, tmp_path: Path):
    assert kept(tmp_path) is None
    (tmp_path / coils.FILE).write_text(text)
    assert kept(tmp_path) is None


# --- a start that fails early ---


def start(folder: Path, socket: str, listen_only: bool = False) -> None:
    """Until its devices are to be opened."""
    given = run.Options(folder / "c.toml", folder / socket, folder, listen_only)

    def wired(*_: object, **__: object) -> Any:
        raise Devices

    with run._assembled(given, parse(BOTH, "c.toml", CATALOGUE), wired, {}):
        pass


def test_a_start_that_fails_on_its_record_has_switched_the_relays_off(chip: LeftOn, tmp_path: Path):
    for name in COPIES:
        (tmp_path / name).write_bytes(newer())
    with pytest.raises(RecordError):
        start(tmp_path, "control.sock")
    assert chip.levels()[22] is False


def test_a_start_that_gets_no_socket_has_switched_the_relays_off(chip: LeftOn, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises((PortError, OSError)):
        start(tmp_path, "file/control.sock")
    assert chip.levels()[22] is False


def test_a_start_that_only_listens_touches_no_relay(chip: LeftOn, tmp_path: Path):
    with pytest.raises(Devices):
        start(tmp_path, "control.sock", listen_only=True)
    assert chip.levels()[22] is True


def newer() -> bytes:
    """A record of a program to come."""
    body = b'{"schema": 99}'
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
