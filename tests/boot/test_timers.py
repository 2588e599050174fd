# SPDX-License-Identifier: MIT
"""How late the guest's timers are, by either of Monocle's clocks."""
import re

import pytest

from boot import runs

CLOCKS = ["preemption", "apic"]
TIMERS = ["one-shot", "periodic", "deadline", "pit", "rtc"]
DEADLINES = 600
LATE = 50e-6
HZ = {"pit": 1193182 / 358, "rtc": 4096}


for _clock in CLOCKS:
    runs.define(f"timers {_clock}")(
        lambda clock=_clock: runs.boot("timers", hv=f"clock={clock}"))


def tsc_hz(result):
    return int(re.search(r"^monocle: tsc: (\d+) Hz", result.log, re.M)[1])


def told(result, timer, how):
    """(how many came, ticks late, early) at most."""
    return tuple(map(int, re.search(
        rf"^timers: {timer} {how}: (\d+) came, late (\d+), early (\d+)$",
        result.serial, re.M).groups()))


@pytest.mark.parametrize("clock", runs.each(CLOCKS, "timers {}"))
@pytest.mark.parametrize("how", ["idle", "loaded"])
@pytest.mark.parametrize("timer", TIMERS)
def test_no_deadline_is_missed(run, clock, timer, how):
    """Not early either, where the guest knows when it is."""
    result = run(f"timers {clock}")
    came, late, early = told(result, timer, how)
    hz = tsc_hz(result)
    assert came == DEADLINES, result.report()
    assert late <= LATE * hz
    assert early <= (LATE * hz if timer in HZ else 0)
    if timer in HZ:
        period = int(re.search(rf"^timers: {timer} {how}: period (\d+)$",
                               result.serial, re.M)[1]) / 1000
        assert period * HZ[timer] == pytest.approx(hz, rel=1e-3)


@pytest.mark.parametrize("clock", runs.each(CLOCKS, "timers {}"))
def test_with_interrupts_closed(run, clock):
    """Bochs ends no run with IF = 0 for an external interrupt, and so is the
    local APIC's timer no clock for it (docs/rigs.md); a CPU would."""
    came = int(re.search(r"^timers: closed: (\d+) came$",
                         run(f"timers {clock}").serial, re.M)[1])
    assert came >= 15 if clock == "preemption" else came == 0


@pytest.mark.parametrize("clock", runs.each(CLOCKS, "timers {}"))
def test_the_clock_is_said(run, clock):
    says = {"preemption": "the preemption timer, TSC/1, at most 0xffffffff",
            "apic": "the local APIC's timer (clock=apic)"}
    log = run(f"timers {clock}").log
    assert f"monocle: vmx: clock: {says[clock]}\n" in log
    # By the other clock no timer of VMX's runs, right or wrong (SDM A.3.1).
    pin = int(re.search(r"controls pin 0x(\w+)", log)[1], 16)
    assert bool(pin & 1 << 6) == (clock == "preemption")
