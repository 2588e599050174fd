# SPDX-License-Identifier: MIT
"""A second CPU while a guest runs on the first."""
import re

import pytest

from boot import runs

WHERE = re.compile(r"^\(1\) \[0x([0-9a-f]+)\]", re.M)
MWAIT = bytes.fromhex("0f01c9")


@runs.define("two-cpus")
def two_cpus():
    # Where the walk of the tables has no log there is no limit of a minute:
    # two CPUs take Bochs longer.
    with runs.start("draw-text", hv="log=com1 cpus=1", cpus=2) as machine:
        machine.wait_for("draw: ready", runs.TIMEOUT)
        where = [int(WHERE.search(machine.monitor("r"))[1], 16)
                 for _ in range(2)]
        before = machine.memory(where[0] - 3, 3)
        return machine.text(), where, before


@pytest.mark.runs("two-cpus")
def test_the_second_one_sleeps(run):
    """It stands behind its MWAIT, and goes nowhere."""
    text, where, before = run("two-cpus")
    assert "cpus: 2, of which 1 are parked, in MWAIT 0x33" in text
    assert before == MWAIT and where[0] == where[1]
