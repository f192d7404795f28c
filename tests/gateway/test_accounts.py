"""Passwords, sessions, the brake on guessing, and the certificate."""

from __future__ import annotations

import json
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from controller.gateway import accounts, certificates
from controller.gateway.accounts import Access, Brake, Hashed, PasswordError, PasswordFile, Sessions, hashed
from controller.gateway.certificates import CertificateError

RIGHT = "correct horse battery"
HASHED = hashed(RIGHT)


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- the password ---


def test_only_the_right_password_fits():
    assert HASHED.fits(RIGHT)
    assert not HASHED.fits(RIGHT + " ")
    assert not HASHED.fits("")


def test_two_hashes_of_one_password_differ():
    assert hashed(RIGHT) != HASHED


@pytest.mark.parametrize("password", ["", "short", "x" * 201])
def test_a_password_too_short_or_too_long_is_refused(password: str):
    with pytest.raises(PasswordError, match="10 to 200"):
        hashed(password)


def test_the_file_is_for_its_owner_only_and_does_not_hold_the_password(tmp_path: Path):
    file = PasswordFile(tmp_path / "state")
    assert file.read() is None
    file.write(HASHED)
    assert file.read() == HASHED
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert RIGHT not in file.path.read_text()
    assert [path.name for path in file.path.parent.iterdir()] == ["password.json"]
    assert file.remove()
    assert not file.remove()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"schema": 1}', '{"schema": 2}',
     json.dumps({"schema": 1, "n": 2**25, "r": 8, "p": 1, "salt": "", "hash": ""}),
     json.dumps({"schema": 1, "n": 2**15, "r": 8, "p": 1, "salt": "", "hash": ""})],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_never_taken_for_none(tmp_path: Path, text: str):
    file = PasswordFile(tmp_path)
    file.path.write_text(text)
    with pytest.raises(PasswordError):
        file.read()


# --- who may what ---


def test_without_a_password_everybody_looks_and_nobody_commands(clock: Clock):
    access = Access(None, False, clock)
    assert access.may_look("")
    assert not access.may_command("")
    assert access.log_in("here", "")[0] == ""


def test_with_a_password_a_session_is_needed_to_look_and_to_command(clock: Clock):
    access = Access(HASHED, False, clock)
    assert not access.may_look("")
    token, _ = access.log_in("here", RIGHT)
    assert token
    assert access.may_look(token)
    assert access.may_command(token)
    assert not access.may_command(token[:-1])


def test_guests_look_and_do_not_command_nor_see_the_config(clock: Clock):
    access = Access(HASHED, True, clock)
    assert access.may_look("")
    assert not access.may_command("")
    assert not access.may_know("")


def test_a_session_ends_by_being_idle_by_its_age_and_by_logging_out(clock: Clock):
    sessions = Sessions(clock)
    idle, old, left = sessions.begin(), sessions.begin(), sessions.begin()
    sessions.end(left)
    assert sessions.of(left) is None
    clock.s += accounts.IDLE_S
    assert sessions.of(old)
    clock.s += 1
    assert sessions.of(idle) is None
    while clock.s < 1000 + accounts.LIFE_S:
        assert sessions.of(old)
        clock.s += accounts.IDLE_S / 2
    clock.s += 1
    assert sessions.of(old) is None


def test_sessions_are_bounded_and_tokens_and_csrf_never_repeat(clock: Clock):
    sessions = Sessions(clock)
    tokens = [sessions.begin() for _ in range(accounts.SESSIONS_MAX + 5)]
    alive = [token for token in tokens if sessions.of(token)]
    assert alive == tokens[5:]
    secrets = {sessions.of(token).csrf for token in alive} | set(tokens)  # type: ignore[union-attr]
    assert len(secrets) == len(alive) + len(tokens)


# --- guessing ---


class Cheap(Hashed):
    """A password that costs nothing to try; counts the tries."""

    tries = 0

    def fits(self, password: str) -> bool:
        Cheap.tries += 1
        return password == RIGHT


@pytest.fixture
def access(clock: Clock) -> Access:
    Cheap.tries = 0
    return Access(Cheap(*HASHED), False, clock)


def test_after_three_wrong_passwords_even_the_right_one_has_to_wait(access: Access, clock: Clock):
    waits = [access.log_in("there", "wrong")[1] for _ in range(3)]
    assert waits == [0, 0, 1]
    assert access.log_in("there", RIGHT) == ("", 1.0)
    clock.s += 1
    assert access.log_in("there", RIGHT)[0]


def test_every_further_wrong_one_doubles_the_wait_up_to_five_minutes(access: Access, clock: Clock):
    waits = []
    for _ in range(14):
        waits.append(access.log_in("there", "wrong")[1])
        clock.s += max(60, waits[-1])
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_a_day_of_guessing_from_one_address_is_a_few_hundred_tries(access: Access, clock: Clock):
    while clock.s < 1000 + 86_400:
        clock.s += access.log_in("there", "wrong")[1] or 1
    assert Cheap.tries < 320


def test_a_day_of_guessing_from_everywhere_is_bounded_too(access: Access, clock: Clock):
    for second in range(3600):
        for address in range(3):
            access.log_in(f"{second}.{address}", "wrong")
        clock.s += 1
    assert Cheap.tries <= 60 * accounts.TRIES_PER_MINUTE


def test_one_address_that_guesses_does_not_lock_out_another(access: Access, clock: Clock):
    for _ in range(5):
        access.log_in("there", "wrong")
    assert access.log_in("here", RIGHT)[0]


def test_the_brake_remembers_a_bounded_number_of_addresses(clock: Clock):
    brake = Brake(clock)
    for address in range(accounts.ADDRESSES_MAX + 10):
        brake.failed(str(address))
    assert len(brake._failed) == accounts.ADDRESSES_MAX


# --- the certificate ---


def test_a_certificate_is_made_once_for_the_names_of_this_machine(tmp_path: Path):
    pair = certificates.self_made(tmp_path, "garage-pi")
    told = ssl._ssl._test_decode_cert(str(pair.certificate))  # type: ignore[attr-defined]
    assert ("DNS", "garage-pi.local") in told["subjectAltName"]
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
    first = pair.fingerprint()
    assert certificates.self_made(tmp_path).fingerprint() == first
    shown = subprocess.run(
        ["openssl", "x509", "-in", pair.certificate, "-noout", "-fingerprint", "-sha256"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.strip().endswith(first)


def test_a_damaged_one_is_made_anew(tmp_path: Path):
    pair = certificates.self_made(tmp_path)
    first = pair.fingerprint()
    pair.key.write_text("")
    assert certificates.self_made(tmp_path).fingerprint() != first


def test_an_own_one_that_is_no_pair_is_a_sentence_and_never_replaced(tmp_path: Path):
    one, other = certificates.self_made(tmp_path / "one"), certificates.self_made(tmp_path / "other")
    assert certificates.own(str(one.certificate), str(one.key)) == one
    with pytest.raises(CertificateError, match="cannot be used"):
        certificates.own(str(one.certificate), str(other.key))
    with pytest.raises(CertificateError, match="cannot be used"):
        certificates.own(str(tmp_path / "none.pem"), "")
