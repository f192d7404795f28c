"""One owner for each bus, port and pin, and a clock that nothing moves."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from controller.ports import PortError
from drivers.exclusive import Exclusive
from drivers.monotonic import MonotonicClock

SCOPE = f"test {os.getpid()}"
HOLDER = """
import sys
from drivers.exclusive import Exclusive
owned = Exclusive(sys.argv[1])
owned.take("CAN bus can0")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_number_of_the_first_until_that_one_is_gone():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, SCOPE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        ours = Exclusive(SCOPE)
        words = f"CAN bus can0 is in use by another controller (process {holder.pid}); stop that one first"
        with pytest.raises(PortError, match=f"^{re.escape(words)}$"):
            ours.take("CAN bus can0")
        holder.kill()
    ours.take("CAN bus can0")
    ours.close()


def test_the_same_name_is_refused_within_a_process_too_and_another_is_not():
    owned = Exclusive(SCOPE)
    owned.take("GPIO 17")
    with pytest.raises(PortError, match=rf"GPIO 17 is in use .*process {os.getpid()}"):
        owned.take("GPIO 17")
    owned.take("GPIO 18")
    owned.close()
    owned.take("GPIO 17")
    owned.close()


def test_the_clock_never_steps_back():
    clock = MonotonicClock()
    seen = [clock.now_ms() for _ in range(1000)]
    assert seen == sorted(seen)
