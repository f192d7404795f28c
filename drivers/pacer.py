"""Wakes the loop at absolute deadlines of the monotonic clock, and raises its standing with the scheduler."""

from __future__ import annotations

import ctypes
import os
import signal
import time

NS_PER_MS, NS_PER_US = 1_000_000, 1000
PRIORITY = 20
PR_SET_PDEATHSIG = 1
MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4


class Pacer:
    """Deadlines on the multiples of the period. One that has passed is left out, never caught up."""

    def __init__(self, period_ms: int) -> None:
        self._period_ns = period_ms * NS_PER_MS
        self._next_ns = 0

    def wait(self) -> int:
        """Sleep to the next deadline. Returns how late it woke, in µs."""
        deadline_ns = self._next_ns or self._following(time.monotonic_ns())
        left_ns = deadline_ns - time.monotonic_ns()
        if left_ns > 0:
            time.sleep(left_ns / 1e9)
        now_ns = time.monotonic_ns()
        self._next_ns = max(deadline_ns + self._period_ns, self._following(now_ns))
        return (now_ns - deadline_ns) // NS_PER_US

    def spare_us(self) -> int:
        """The time left to the next deadline, negative when it has passed."""
        return (self._next_ns - time.monotonic_ns()) // NS_PER_US

    def _following(self, now_ns: int) -> int:
        return (now_ns // self._period_ns + 1) * self._period_ns


def ends_with_its_parent() -> None:
    """For a child, before it becomes its own program: it is told to stop when its parent is gone, however it went."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def favour_this_thread() -> list[str]:
    """Real-time priority for this thread (not for those it starts) and locked memory. Returns what was not permitted.

    Pages are locked as they are touched (MCL_ONFAULT, mlock2(2)), so that unused stacks cost nothing.
    """
    refused = []
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(PRIORITY))
    except OSError as error:
        refused.append(f"real-time priority ({error.strerror})")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        refused.append(f"locked memory ({os.strerror(ctypes.get_errno())})")
    return refused
