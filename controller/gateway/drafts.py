"""The config as the page shows it for changing, and the proposal that is kept of it.

The gateway writes no file of the control process: what is kept here is applied by a person, `controller config apply`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from controller import config_proposal
from controller.config_check import ConfigError, Problem
from controller.config_file import SIZE_MAX, text_of, written_beside
from controller.config_keys import Catalogue

MODE: Final = 0o640


class Drafts:
    """path: of the config in force. Every method reads it anew."""

    def __init__(self, path: Path, folder: Path, catalogue: Catalogue) -> None:
        self.path, self.proposal = path, folder / config_proposal.NAME
        self._catalogue = catalogue

    def present(self) -> str:
        """The config in force, without secrets. Raises ConfigError."""
        return config_proposal.without_secrets(text_of(self.path), str(self.path), self._catalogue)

    def proposed(self) -> str | None:
        """What is proposed, without secrets; None when nothing is. Raises ConfigError."""
        if not self.proposal.exists():
            return None
        return config_proposal.without_secrets(text_of(self.proposal), str(self.proposal), self._catalogue)

    def problems(self, text: str) -> list[Problem]:
        """Everything that would be wrong with it."""
        try:
            return config_proposal.problems(text, text_of(self.path), str(self.path), self._catalogue)
        except ConfigError as error:
            return error.problems

    def difference(self, text: str) -> list[str]:
        """What it would change. Raises ConfigError."""
        return config_proposal.difference(text, text_of(self.path), str(self.path), self._catalogue)

    def propose(self, text: str) -> list[Problem]:
        """Keep it; nothing is kept that has a problem. A new secret in it is kept with it, for us and control alone."""
        if len(text.encode()) > SIZE_MAX:
            return [Problem(None, "", f"it is larger than {SIZE_MAX // 1024} KiB", "")]
        if wrong := self.problems(text):
            return wrong
        try:
            written_beside(self.proposal, text, MODE).replace(self.proposal)
        except OSError as error:
            return [Problem(None, "", f"{self.proposal} cannot be written ({error.strerror})", "")]
        return []

    def keeps(self, text: str) -> bool:
        """Whether this very text is the proposal."""
        try:
            return self.proposal.exists() and text_of(self.proposal) == text
        except ConfigError:
            return False

    def discard(self) -> None:
        """Raises OSError."""
        self.proposal.unlink(missing_ok=True)
