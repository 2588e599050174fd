# SPDX-License-Identifier: MIT
"""Resets of Intel graphics, as the device itself tells them (igd_cases.py)."""
import functools
import re

import pytest

from boot.igd_cases import LOST, MARK, RESETS, SET_UP
from igd import compare
from rigs import result

ID = 0
WAKE = 0xa188           # forcewake's request


def marks(name):
    """Those of a case. One is of the short suite."""
    return [pytest.mark.nested(f"igd-reset-{name}"),
            *([] if name == "reboot" else [pytest.mark.long])]


def case(name):
    """Decorator: a test of that case."""
    return lambda test: functools.reduce(lambda t, mark: mark(t),
                                         marks(name), test)


def heard(done):
    """What the device heard since GRUB's mark: [Event]."""
    assert done.status == result.POWER_OFF, done.report()
    log = compare.parse(done.device)
    assert log.complete, done.report()
    return log.since(MARK).events


def registers(events, kind):
    """{offset: value} of accesses to what an FLR takes."""
    return {event.words[0]: event.words[2] for event in events
            if event.kind == kind and event.words[0] in SET_UP}


def parts(done):
    """What came before each FLR, and after the last one."""
    found = [[]]
    for event in heard(done):
        if event.kind == "flr":
            found.append([])
        else:
            found[-1].append(event)
    return found


def complaints(done):
    """Monocle's warnings and errors about resets."""
    return re.findall(r"^monocle: (?:warning|error): (00:02.0.* its reset.*)$",
                      done.log, re.MULTILINE)


@pytest.mark.parametrize("policy, count", [
    pytest.param(policy, count, marks=marks(policy))
    for policy, count in (("auto", 0), ("uefi", 0), ("never", 0), ("reboot", RESETS),
                          ("always", RESETS + 1))])
def test_when(nested, policy, count):
    """At each reboot of the guest, and before its first start, or not. By
    default not here, where no video BIOS brings the picture back: else each
    reset that takes it has a line."""
    done = nested(f"igd-reset-{policy}")
    assert len(parts(done)) == count + 1
    assert done.log.count("guest: reset (") == RESETS
    assert done.log.count("has taken the picture of 00:02.0") == count
    assert complaints(done) == []


@case("reboot")
def test_saved_and_restored(nested):
    """Once, before the guest has them, and restored each time; bus mastering
    is off, and BARs come first."""
    found = parts(nested("igd-reset-reboot"))
    assert registers(found[0], "mr") == SET_UP
    for before, after in zip(found, found[1:]):
        starts = before[-1]     # PCIe 7.5.3.4, bit 15 of Device Control
        assert starts.kind == "cw" and starts.words[2] & 0x8000
        commands = [e.words[2] for e in before
                    if e.kind == "cw" and e.words[0] == 4]
        assert not commands[-1] & 4
        written = [e for e in after if e.kind in ("cw", "mw")]
        back = registers(written, "mw")
        assert back == SET_UP
        first = next(n for n, e in enumerate(written) if e.kind == "mw")
        assert {0x04, 0x10} <= {e.words[0] for e in written[:first]}


@case("dead")
def test_a_register_that_does_not_come_back(nested):
    """Is said; the others are back."""
    done = nested("igd-reset-dead")
    _, after = parts(done)
    assert registers(after, "mw") == SET_UP
    assert complaints(done) == [
        f"00:02.0: after its reset RC6 state ({LOST:#x}) is 0x0, was "
        f"{SET_UP[LOST]:#x}"]


@case("away")
def test_never_over(nested):
    """PCIe 6.6.2: 100 ms and a second, here 100 times 10 ms."""
    done = nested("igd-reset-away")
    assert complaints(done) == ["00:02.0 does not come back from its reset"]
    _, after = parts(done)
    asked = [e for e in after if e.kind == "cr" and e.words[0] == ID]
    assert asked and {e.words[2] for e in asked} == {0xffffffff}
    assert 100 <= len(asked) < 150
    assert not [e for e in after if e.kind == "mw" and e.words[0] != WAKE]


@case("ivb")
def test_ivy_bridge(nested):
    """No FLR: its own sequence (Linux's drivers/pci/quirks.c)."""
    events, = parts(nested("igd-reset-ivb"))
    steps = [e.words[::2] for e in events if e.kind == "mw"]
    assert [s for s in steps if s[0] != WAKE] == [(0x45010, 2), (0xc2004, 5), (0xc7204, 0xabcd0000),
                     (0xd0100, 2)]
    assert registers(events, "mr") == SET_UP
