# SPDX-License-Identifier: MIT
"""Debian's memtest86+, as its package has it, as a guest."""
import re

import pytest

import rigs
from boot import runs
from rigs.spec import BUILD

# Beside the emulator's own limit.
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

IMAGE = BUILD / "cache" / "memtest86+" / "boot" / "memtest86+x64.bin"
TIMEOUT = 3000
# A look at SPD, the other CPUs, a benchmark and ten seconds of waiting are left
# out; what is on the screen goes to the serial line, too.
OPTIONS = "console=ttyS0 nosm nosmp nobench nopause"


def test_memory_is_good():
    """A whole pass over all of the guest's memory, without an error. About
    eight minutes of the guest's; tests 1 and 2 are too short to be seen."""
    spec = rigs.Spec(rig="bochs", memory=128, timeout=TIMEOUT, kernel=IMAGE,
                     append=OPTIONS, hv="memory=32M", monocle=runs.MONOCLE)
    with rigs.start(spec) as machine:
        machine.wait_for("Pass:  1 ", TIMEOUT)
        text = machine.text()
    assert re.search(r"Memory  : +32MB", text)
    assert {0, *range(3, 11)} <= {int(n) for n in re.findall(
        r"#(\d+) +\[", text)}
    assert set(re.findall(r"Errors: (\d+)", text)) == {"0"}
