# SPDX-License-Identifier: MIT
"""Hardware task switches: all that a guest sees of them (tests/guests/switch.asm),
beside the same on the bare machine.
"""
import functools
import re

import pytest

from boot import runs

for _native in (False, True):
    runs.define("switches" + "-native" * _native)(functools.partial(
        runs.boot, "switches", native=_native))


def records(result):
    assert result.status == 0, result.report()
    return [line for line in result.serial.splitlines()
            if re.match("record|switches", line)]


@pytest.mark.runs("switches-native")
def test_the_bare_machine_makes_them(run):
    """JMP, CALL, gates and IRET, of both sizes; 20 TSSs that are wrong."""
    lines = records(run("switches-native"))
    assert lines[-1] == f"switches: {len(lines) - 1} records"
    steps = {int(match[1], 16) for line in lines
             if (match := re.match(r"record \d+: 0=(\w+)", line))}
    assert steps == set(range(1, 38))


@pytest.mark.runs("switches", "switches-native")
def test_switches_are_the_native_ones(run):
    assert records(run("switches")) == records(run("switches-native"))
