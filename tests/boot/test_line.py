# SPDX-License-Identifier: MIT
"""INTx by the host's own line (gsi=): Bochs's e1000, which has nothing else.
The guest is tests/guests/e1000.c."""
import re

import pytest

from boot import runs

TESTS = ("find", "line", "level", "masks", "exits")
HV = "iommu=off unsafe-dma ram=identity assign=00:03.0,gsi=11"


@runs.define("line")
def line():
    """Pin 11 is where Bochs's BIOS puts it."""
    return runs.boot("e1000", hv=HV)


@pytest.mark.runs("line")
@pytest.mark.parametrize("name", TESTS)
def test_a_level_triggered_line(run, name):
    done = run("line")
    assert f"e1000-{name}: ok" in done.serial.splitlines(), done.report()


@pytest.mark.runs("line")
def test_exits_for_interrupts(run):
    """Delivery and EOI, and the host's few."""
    done = run("line")
    count, exits = map(int, re.search(
        r"^e1000-interrupts: (\d+), exits (\d+),", done.serial,
        re.MULTILINE).groups())
    assert count == 1000 and count <= exits <= 2 * count + 20


@pytest.mark.runs("line")
def test_interrupts_are_counted(run):
    """By function, in the log: 20, and 2, and 2, and 1000."""
    found = re.search(r"stats: 00:03\.0: .*; (\d+) interrupts, 0 storms",
                      run("line").log)
    assert int(found[1]) == 1024
