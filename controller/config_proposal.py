"""A changed config that somebody proposes on the page. A person at the machine puts it in the old one's place.

The page shows the text with HIDDEN for each secret, and whoever proposes need not know them: where HIDDEN still stands,
the value of the present config is meant.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Final

import tomlkit

from controller.config import HIDDEN, check
from controller.config_check import ConfigError, Problem, keys_for, toml
from controller.config_file import alone, text_of, written_beside
from controller.config_keys import Catalogue

NAME: Final = "proposal.toml"
"""Of the file in the gateway's folder."""
BEFORE: Final = ".before"
"""Added to the name of the config that was in force before."""


def without_secrets(text: str, name: str, catalogue: Catalogue) -> str:
    """The text with HIDDEN for each secret, all else byte by byte as it was. Raises ConfigError when it is no TOML."""
    document, secrets = _document(text, name, catalogue)
    for section, key in secrets:
        if document[section][key]:
            document[section][key] = HIDDEN
    return str(document.as_string())


def whole(proposed: str, present: str, name: str, catalogue: Catalogue) -> str:
    """The proposed text with the present secrets where HIDDEN stands. Raises ConfigError."""
    document, secrets = _document(proposed, name, catalogue)
    known, _ = _document(present, name, catalogue)
    for section, key in secrets:
        if document[section][key] == HIDDEN:
            document[section][key] = known.get(section, {}).get(key, "")
    return str(document.as_string())


def problems(proposed: str, present: str, name: str, catalogue: Catalogue) -> list[Problem]:
    """Everything that would be wrong with it, in the order of its lines."""
    try:
        return check(whole(proposed, present, name, catalogue), name, catalogue)
    except ConfigError as error:
        return error.problems


def difference(proposed: str, present: str, name: str, catalogue: Catalogue) -> list[str]:
    """What it would change, as `diff -u` writes it; of a secret only that it changes. Raises ConfigError."""
    text = whole(proposed, present, name, catalogue)
    before = without_secrets(present, name, catalogue).splitlines()
    after = without_secrets(text, name, catalogue).splitlines()
    news = [_visible(line) for line in difflib.unified_diff(before, after, name, "proposal", lineterm="", n=1)]
    (was, _), (document, secrets) = _document(present, name, catalogue), _document(text, name, catalogue)
    return news + [
        f"! {section}.{key}: another secret"
        for section, key in secrets
        if document[section][key] != was.get(section, {}).get(key, "")
    ]


def _visible(line: str) -> str:
    """Nothing in it moves a terminal's cursor, or turns the line's direction."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)


def apply(path: Path, proposed: str, catalogue: Catalogue) -> Path:
    """Put it in the place of the config at `path`; where the old one is kept. Raises ConfigError, and changes nothing.

    In force at the next start of control: it reads its config once.
    """
    target = Path(os.path.realpath(path))
    with alone(target):
        present = text_of(target)
        text = whole(proposed, present, str(path), catalogue)
        if wrong := check(text, str(path), catalogue):
            raise ConfigError(f"the proposal for {path}", wrong)
        kept = target.with_name(target.name + BEFORE)
        try:
            written_beside(target, present).replace(kept)
            written_beside(target, text).replace(target)
        except OSError as error:
            message = f"it cannot be written ({error.strerror})"
            raise ConfigError(str(path), [Problem(None, "", message, "run this with sudo")]) from None
    return kept


def _document(text: str, name: str, catalogue: Catalogue) -> tuple[Any, list[tuple[str, str]]]:
    """The text as tomlkit has it, and (section, key) of each secret stated in it. Raises ConfigError."""
    raw, wrong, _ = toml(text)
    if raw is None or wrong:
        raise ConfigError(name, wrong)
    stated = [
        (key.section, key.name)
        for key in keys_for(raw, catalogue)
        if key.secret and isinstance(raw.get(key.section), dict) and isinstance(raw[key.section].get(key.name), str)
    ]
    return tomlkit.parse(text), stated
