"""Who may look and who may command: one password, sessions, and a brake on guessing.

Without a password the page is for this machine only, and nothing can be commanded on it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

SCHEMA: Final = 1
FILE: Final = "password.json"
LENGTH_MIN, LENGTH_MAX = 10, 200
N, R, P, SALT_BYTES, HASH_BYTES = 2**15, 8, 1, 16, 32
"""scrypt: 32 MiB and about half a second of a Raspberry Pi for each try."""
MEMORY_MAX: Final = 64 * 2**20
IDLE_S, LIFE_S = 12 * 3600.0, 7 * 24 * 3600.0
SESSIONS_MAX: Final = 32
FREE_TRIES: Final = 3
WAIT_MAX_S: Final = 300.0
ADDRESSES_MAX: Final = 1000
TRIES_PER_MINUTE: Final = 12
"""By all addresses together: each costs a good part of a second of the processor."""


class PasswordError(Exception):
    """Why a password cannot be set or read, in one sentence."""


class Hashed(NamedTuple):
    n: int
    r: int
    p: int
    salt: bytes
    hash: bytes

    def fits(self, password: str) -> bool:
        """Takes a good part of a second, whatever the answer."""
        return hmac.compare_digest(_scrypt(password, self.n, self.r, self.p, self.salt), self.hash)


def hashed(password: str) -> Hashed:
    """Raises PasswordError for one that is too short or too long."""
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise PasswordError(f"a password has {LENGTH_MIN} to {LENGTH_MAX} characters")
    salt = secrets.token_bytes(SALT_BYTES)
    return Hashed(N, R, P, salt, _scrypt(password, N, R, P, salt))


def _scrypt(password: str, n: int, r: int, p: int, salt: bytes) -> bytes:
    text = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(text, salt=salt, n=n, r=r, p=p, maxmem=MEMORY_MAX, dklen=HASH_BYTES)


class PasswordFile:
    """The hash on disk, for its owner only."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def read(self) -> Hashed | None:
        """None when none is set. Raises PasswordError for a file that is there and cannot be used."""
        try:
            told = json.loads(self.path.read_bytes())
            if told["schema"] != SCHEMA:
                raise PasswordError(f"{self.path} has version {told['schema']}, this program reads {SCHEMA}")
            salt, digest = (base64.b64decode(told[name], validate=True) for name in ("salt", "hash"))
            found = Hashed(int(told["n"]), int(told["r"]), int(told["p"]), salt, digest)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PasswordError(f"{self.path} cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError):
            raise PasswordError(f"{self.path} is damaged; set it again: controller gateway passwd") from None
        if (found.n, found.r, found.p, len(found.hash)) != (N, R, P, HASH_BYTES):
            raise PasswordError(f"{self.path} is damaged; set it again: controller gateway passwd")
        return found

    def write(self, hashed: Hashed) -> None:
        """It has the owner of its folder, so that the service can read what root wrote. Raises PasswordError."""
        told: dict[str, Any] = {
            "schema": SCHEMA, "n": hashed.n, "r": hashed.r, "p": hashed.p,
            "salt": base64.b64encode(hashed.salt).decode(), "hash": base64.b64encode(hashed.hash).decode(),
        }  # fmt: skip
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{FILE}.", dir=self.path.parent)  # of mode 0600
            try:
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(json.dumps(told) + "\n")
                    file.flush()
                    owner = self.path.parent.stat()
                    with suppress(PermissionError):
                        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                    os.fsync(file.fileno())
                os.replace(name, self.path)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise PasswordError(
                f"{self.path} cannot be written ({error.strerror}): sudo controller gateway passwd"
            ) from None

    def remove(self) -> bool:
        """Whether there was one. Raises PasswordError."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise PasswordError(f"{self.path} cannot be removed ({error.strerror})") from None
        return True


class Session(NamedTuple):
    """csrf: what every form of this session carries."""

    csrf: str
    began_s: float
    seen_s: float


class Sessions:
    """Known by a token that only the browser has. The oldest make room for new ones."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._known: dict[str, Session] = {}

    def begin(self) -> str:
        """The token of a new session."""
        token, now_s = secrets.token_urlsafe(32), self._now_s()
        self._known[token] = Session(secrets.token_urlsafe(32), now_s, now_s)
        while len(self._known) > SESSIONS_MAX:
            del self._known[next(iter(self._known))]
        return token

    def of(self, token: str) -> Session | None:
        """None when it is no session, or not any more. Being asked for keeps it alive."""
        session, now_s = self._known.get(token), self._now_s()
        if session is None:
            return None
        if now_s - session.seen_s > IDLE_S or now_s - session.began_s > LIFE_S:
            del self._known[token]
            return None
        self._known[token] = session._replace(seen_s=now_s)
        return session

    def end(self, token: str) -> None:
        self._known.pop(token, None)


class Brake:
    """How long an address has to wait before its next try; after a few free ones twice as long each time."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._failed: dict[str, tuple[int, float]] = {}
        self._tries: deque[float] = deque(maxlen=TRIES_PER_MINUTE)

    def wait_s(self, address: str) -> float:
        """0 when it may try now."""
        now_s = self._now_s()
        count, last_s = self._failed.get(address, (0, 0.0))
        own_s = last_s + min(2.0 ** (count - FREE_TRIES), WAIT_MAX_S) - now_s if count >= FREE_TRIES else 0.0
        full = len(self._tries) == TRIES_PER_MINUTE
        return max(0.0, own_s, self._tries[0] + 60.0 - now_s if full else 0.0)

    def tried(self) -> None:
        """By whomever."""
        self._tries.append(self._now_s())

    def failed(self, address: str) -> None:
        count, last_s = self._failed.pop(address, (0, 0.0))
        if self._now_s() - last_s > 2 * WAIT_MAX_S:
            count = 0
        self._failed[address] = (count + 1, self._now_s())
        if len(self._failed) > ADDRESSES_MAX:
            del self._failed[next(iter(self._failed))]

    def succeeded(self, address: str) -> None:
        self._failed.pop(address, None)


class Access:
    """What a visitor may do, by the token of his browser. password: None when none is set."""

    def __init__(self, password: Hashed | None, guests: bool, now_s: Callable[[], float]) -> None:
        self.password, self.guests = password, guests
        self.sessions, self.brake = Sessions(now_s), Brake(now_s)

    def may_look(self, token: str) -> bool:
        return self.password is None or self.guests or self.may_command(token)

    def may_command(self, token: str) -> bool:
        return self.password is not None and self.sessions.of(token) is not None

    def may_know(self, token: str) -> bool:
        """What is not for guests: config, incidents."""
        return self.password is None or self.may_command(token)

    def log_in(self, address: str, password: str) -> tuple[str, float]:
        """The token of a new session, or an empty one and how long to wait before the next try.

        A try that has to wait is not looked at, and costs nothing. Takes a good part of a second: for a thread.
        """
        if wait_s := self.brake.wait_s(address):
            return "", wait_s
        self.brake.tried()
        if self.password is None or len(password) > LENGTH_MAX or not self.password.fits(password):
            self.brake.failed(address)
            return "", self.brake.wait_s(address)
        self.brake.succeeded(address)
        return self.sessions.begin(), 0.0
