"""Where the material is that is not part of the project: real recordings, read here and in CI, absent at a user's."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
LOGS = SHARED / "logs"
needs_shared = pytest.mark.skipif(not LOGS.is_dir(), reason="the shared recordings are not on this machine")
