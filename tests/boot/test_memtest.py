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
TIMEOUT = 1800
# A look at SPD, the other CPUs, a benchmark and ten seconds of waiting are left
# out; what is on the screen goes to the serial line, too.
OPTIONS = "console=ttyS0 nosm nosmp nobench nopause"


def test_memory_is_good():
    """All of the guest's memory, in the first kinds of test, without an error."""
    spec = rigs.Spec(rig="bochs", memory=64, timeout=TIMEOUT, kernel=IMAGE,
                     append=OPTIONS, hv="memory=16M", monocle=runs.MONOCLE)
    with rigs.start(spec) as machine:
        machine.wait_for("#4  [Moving inversions, 8 bit pattern]", TIMEOUT)
        text = machine.text()
    assert re.search(r"Memory  : +16MB", text)
    assert set(re.findall(r"Errors: (\d+)", text)) == {"0"}
