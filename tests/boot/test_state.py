# SPDX-License-Identifier: MIT
"""A guest's reset leaves nothing of the CPU that the bare machine clears."""
import re

import pytest

from boot import runs


@runs.define("state")
def state():
    return runs.boot("state")


@runs.define("state-native")
def state_native():
    return runs.boot("state", native=True)


def states(result):
    """{when: the line's fields}, as tests/guests/state.c prints them."""
    assert result.status == 0, result.report()
    return dict(re.findall(r"^state (\w+): (.*)$", result.serial,
                           re.MULTILINE))


@pytest.mark.runs("state", "state-native")
def test_a_reset_is_a_reset(run):
    """SDM table 10-1, as the same machine without Monocle has it."""
    own, native = states(run("state")), states(run("state-native"))
    # Bochs 2.7 resets IA32_FMASK to 0x20200; KVM and hardware clear it.
    native["behind"] = native["behind"].replace(" 20200 ", " 0 ")
    assert own == native and set(own) == {"dirty", "behind"}
    # It was dirty: no field but those that reset sets, too, is the same.
    assert own["dirty"] != own["behind"]
    assert "dr 123456 23456 3456 456" in own["dirty"]
    assert "dr 0 0 0 0" in own["behind"]
