"""When an incident bundle is written, and what is in it. Files and threads are `drivers.incidents`.

On a fault: 10 s after a new cause is held, so that what it led to is in it, and every five minutes at most. At the end
of a run. When somebody asks, twice a minute at most.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from controller.blackbox import SCHEMA, VOCABULARY, BlackBox, Chunk, Decided
from controller.safety.monitor import Faults

AFTER_MS: Final = 10_000
AGAIN_MS: Final = 300_000
ASKED_AGAIN_MS: Final = 30_000
WITHHELD: Final = "# The config is withheld: a secret in it could not be removed for certain.\n"

Contents = Iterator[tuple[str, Iterable[bytes]]]
"""The files of a bundle, one after the other: name, and its bytes in pieces."""
Fill = Callable[[Mapping[str, Any]], Contents]
"""Makes them; is given what only the outside knows: clock, machine."""


class Store(Protocol):
    """See drivers.incidents.Incidents."""

    @property
    def trouble(self) -> str: ...
    @property
    def newest(self) -> str: ...
    def store(self, why: str, fill: Fill) -> str: ...


class Keeper:
    """Feeds the black box, and has a bundle written when there is a reason to."""

    def __init__(self, box: BlackBox, store: Store, program: str, config: str) -> None:
        self._box, self._store, self._program, self._config = box, store, program, without_secrets(config)
        self.took = box.took
        self._causes: dict[str, None] = {}
        self._due_ms: int | None = None
        self._next_ms = self._next_asked_ms = 0

    @property
    def trouble(self) -> str:
        """Why the last bundle could not be written, empty when it could."""
        return self._store.trouble

    def decided(self, tick: Decided) -> str:
        """The name of the bundle that begins with this tick, empty when none does."""
        self._box.decided(tick)
        if tick.after.faults is not tick.before.faults and (causes := _new(tick.before.faults, tick.after.faults)):
            self._causes |= dict.fromkeys(causes)
            if self._due_ms is None:
                self._due_ms = max(tick.now_ms + AFTER_MS, self._next_ms)
        if self._due_ms is None or tick.now_ms < self._due_ms:
            return ""
        self._next_ms = tick.now_ms + AGAIN_MS
        return self._write("fault", tick.now_ms)

    def asked(self, by: str, now_ms: int) -> str:
        """Somebody wants a bundle: its name, empty when one has just been asked for."""
        if now_ms < self._next_asked_ms:
            return ""
        self._next_asked_ms = now_ms + ASKED_AGAIN_MS
        return self._write("request", now_ms, by)

    def end(self, why: str, now_ms: int) -> str:
        """The run is over."""
        return self._write("stop", now_ms, why)

    def _write(self, reason: str, now_ms: int, words: str = "") -> str:
        """One bundle. The causes that waited for it are in it, whatever it is written for."""
        causes, self._causes, self._due_ms = list(self._causes), {}, None
        chunks = self._box.cut()
        about = {
            "schema": SCHEMA, "program": self._program, "reason": reason, "words": words, "causes": causes,
            "t_ms": now_ms,
        }  # fmt: skip
        return self._store.store(reason, lambda outside: contents(chunks, {**about, **outside}, self._config))

    def status(self) -> dict[str, Any]:
        return {
            "span_s": self._box.span_ms / 1000, "bytes": self._box.size, "bytes_max": self._box.limit_bytes,
            "newest": self._store.newest or None, "trouble": self._store.trouble or None,
        }  # fmt: skip


def _new(before: Faults, after: Faults) -> list[str]:
    """The causes that are held now and were not."""
    return [rule.id.value for rule in after.held if rule not in before.held]


def contents(chunks: Iterable[Chunk], about: Mapping[str, Any], config: str) -> Contents:
    """The files of a bundle, the manifest last. `about` is the head of the manifest."""
    chunks, digests, rows, tick = tuple(chunks), dict[str, str](), list[dict[str, Any]](), 0

    def noted(name: str, pieces: Iterable[bytes]) -> tuple[str, Iterable[bytes]]:
        return name, _digested(name, pieces, digests)

    yield noted("config.toml", (config.encode(),))
    for chunk in chunks:
        rows.append(
            {"state": f"states/{tick}.json", "tick": tick, "ticks": chunk.ticks, "frames": chunk.frames,
             "from_ms": chunk.from_ms, "to_ms": chunk.to_ms, "trace_sha256": chunk.trace_sha256}
        )  # fmt: skip
        yield noted(rows[-1]["state"], (VOCABULARY.dumps(chunk.state).encode(),))
        tick += chunk.ticks
    yield noted("frames.log", (zlib.decompress(chunk.log) for chunk in chunks))
    yield noted("ticks.jsonl", (zlib.decompress(chunk.lines) for chunk in chunks))
    manifest = {
        **about, "span_s": (chunks[-1].to_ms - chunks[0].from_ms) / 1000 if chunks else 0.0, "ticks": tick,
        "frames": sum(chunk.frames for chunk in chunks), "chunks": rows, "sha256": digests,
    }  # fmt: skip
    yield "manifest.json", (json.dumps(manifest, indent=1, ensure_ascii=False).encode(),)


def _digested(name: str, pieces: Iterable[bytes], digests: dict[str, str]) -> Iterator[bytes]:
    total = hashlib.sha256()
    for piece in pieces:
        total.update(piece)
        yield piece
    digests[name] = total.hexdigest()


# --- the config, without what nobody else may know ---

_SECRET = r"(?i:password|passphrase|passwd|secret|token|credential|private_?key|api_?key)"
_NAMED = re.compile(
    rf"""(?P<key>[\w."'-]*{_SECRET}[\w."'-]*\s*=\s*)(?P<value>\"\"\".*?\"\"\"|'''.*?'''|"(?:\\.|[^"\\\n])*"|'[^'\n]*')""",
    re.DOTALL,
)
_IN_ADDRESS = re.compile(r"(://[^/\s:@\"']*:)[^@\s\"']+(?=@)")
_IN_COMMENT = re.compile(rf"#[^\n]*{_SECRET}[^\n]*")


def without_secrets(config: str) -> str:
    """The text with every password as "***". One in which a secret may be left is withheld as a whole."""
    text = _IN_ADDRESS.sub(r"\1***", _NAMED.sub(r'\g<key>"***"', _IN_COMMENT.sub("# ***", config)))
    try:
        clean = not any(_secrets(tomllib.loads(text)))
    except tomllib.TOMLDecodeError:
        clean = False
    return text if clean else WITHHELD


def _secrets(values: Any, secret: bool = False) -> Iterator[object]:
    """Every value under a key that sounds like a secret and is not starred."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _secrets(value, secret or re.search(_SECRET, key) is not None)
    elif isinstance(values, list):
        for value in values:
            yield from _secrets(value, secret)
    elif secret and values != "***" and not isinstance(values, bool):
        yield values
