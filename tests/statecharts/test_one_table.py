"""One table is the only source: swap two rows, and runtime, exports and model check all see it."""

from dataclasses import replace

from statecharts.interlocks import verify
from statecharts.render import FORMATS
from statecharts.runner import Runner
from statecharts.supervisor import SUPERVISOR, Guard, State


def test_swapping_two_rows_changes_the_runtime_every_export_and_the_verdict():
    stop = next(row for row in SUPERVISOR.rows_from(State.PRECHARGING) if Guard.OPEN_NOW in row.when)
    charged = next(row for row in SUPERVISOR.rows_from(State.PRECHARGING) if Guard.LINK_CHARGED in row.when)
    swapped = replace(
        SUPERVISOR, rows=tuple({stop: charged, charged: stop}.get(row, row) for row in SUPERVISOR.rows)
    )  # fmt: skip
    both = {Guard.OPEN_NOW, Guard.LINK_CHARGED}.__contains__
    before, after = Runner(SUPERVISOR).fire(State.PRECHARGING, both), Runner(swapped).fire(State.PRECHARGING, both)
    assert (before, after) == (stop, charged)
    assert all(render(SUPERVISOR) != render(swapped) for render in FORMATS.values())
    assert not verify(SUPERVISOR).broken
    assert "immediate causes open in the same tick" in {example.rule for example in verify(swapped).broken}
