# SPDX-License-Identifier: MIT
"""The TSC's frequency by CPUID and by the PIT, on chipsets as they are."""

import re

import pytest

import vmxcpu

HZ = 3_000_000_000
READ = HZ // 100_000              # a read of a port takes 10 µs
SECONDS_50MS = 59659 / 1193182


PM_TIMER = 0x1808


class Pit:
    """Channel 2 in mode 0. smi: {measurement: TSC ticks} that an SMI takes
    while OUT rises; pm_smi: behind the PM timer's first count. gated: its
    clock is off, as newer firmware has it. bits: of the ACPI PM timer; 0: its
    port reads ones. fast: how much faster the PIT or the PM timer is than it
    should be."""

    def __init__(self, m, smi=(), gated=False, bits=24, fast=1, pm_fast=1,
                 pm_smi=()):
        self.m, self.smi, self.gated = m, dict(smi), gated
        self.bits, self.fast, self.pm_fast = bits, fast, pm_fast
        self.pm_smi, self.pm_seen = dict(pm_smi), 0
        self.started, self.count, self.bytes = None, 0, 0
        m.tsc = 1000
        m.on_read(self.read)
        m.on_write(self.write)

    def write(self, kind, port, size, value):
        self.bytes += port == 0x42
        if port == 0x42 and self.bytes % 2 == 0:
            self.started = self.m.tsc
            self.count += 1

    def read(self, kind, port, size):
        self.m.tsc += READ
        if port == PM_TIMER:
            # Close to its end when the measurement begins
            ticks = int(self.m.tsc * self.pm_fast * 3579545 // HZ) + \
                (1 << self.bits) - 40000
            if self.pm_seen != self.count:
                self.pm_seen = self.count
                self.m.tsc += self.pm_smi.pop(self.count, 0)
            return ticks % (1 << self.bits) if self.bits else 2**32 - 1
        due = self.started and self.started + int(
            SECONDS_50MS / self.fast * HZ)
        if not due or self.gated or self.m.tsc < due:
            return 0
        self.m.tsc += self.smi.pop(self.count, 0)
        return 0x20


@pytest.fixture(scope="module")
def m():
    return vmxcpu.build("time", ["kernel/time.c"], headers=["kernel/time.h"])


@pytest.fixture
def cpu(m):
    return vmxcpu.Cpu(m)


def frequency(m, pm_timer=0):
    """(Hz, whether they are exact)"""
    exact = m.new("bool *")
    hz = m.tsc_frequency(m.new("u16 *", pm_timer), exact)
    assert (f"tsc: {hz} Hz" in m.log_text()) == (hz != 0)
    assert ("measure it itself" in m.log_text()) == (hz != 0 and not exact[0])
    return hz, exact[0]


def warnings(m):
    return [text for level, text in m.log_lines() if level == m.LOG_WARN]


def near(hz, part=1e-3):
    return abs(hz - HZ) < HZ * part


def test_measured(m, cpu):
    Pit(m)
    assert near(frequency(m)[0]) and not frequency(m)[1]


@pytest.mark.parametrize("which", [1, 2, 3])
def test_an_smi_in_the_middle_of_it(m, cpu, which):
    """Firmware's keyboard emulation takes milliseconds when it likes."""
    Pit(m, smi={which: HZ // 100})
    assert near(frequency(m, 0)[0])


@pytest.mark.parametrize("which", [1, 2, 3])
def test_an_smi_in_the_middle_of_the_timers_measurement(m, cpu, which):
    Pit(m, gated=True, pm_smi={which: HZ // 100})
    assert near(frequency(m, PM_TIMER)[0])


def test_cpuid_is_exact(m, cpu):
    cpu.cpuid(0, eax=0x16)
    cpu.cpuid(0x15, eax=2, ebx=250, ecx=24_000_000)
    pit = Pit(m, smi={1: HZ // 10000})
    assert frequency(m, 0) == (HZ, True)
    assert pit.count == 1


@pytest.mark.parametrize("ratio", [238, 262])
def test_cpuid_that_is_not_true_is_said(m, cpu, ratio):
    """5 % off: a guest's clock would lose an hour a day."""
    cpu.cpuid(0, eax=0x16)
    cpu.cpuid(0x15, eax=2, ebx=ratio, ecx=24_000_000)
    Pit(m)
    assert near(frequency(m, 0)[0])
    assert f"states a TSC of {12_000_000 * ratio} Hz" in m.log_text()


def test_a_pit_without_a_clock_does_not_hold_the_start(m, cpu):
    """Not even a second: 20 million reads were 20."""
    cpu.cpuid(0, eax=0x16)
    cpu.cpuid(0x15, eax=2, ebx=250, ecx=24_000_000)
    Pit(m, gated=True)
    assert frequency(m, 0) == (HZ, True)
    assert m.tsc < HZ


def test_neither(m, cpu):
    Pit(m, gated=True)
    assert frequency(m, 0) == (0, False)
    assert m.tsc < HZ


@pytest.mark.parametrize("bits", [24, 32])
def test_the_acpi_timer_where_the_pit_stands_still(m, bits):
    Pit(m, gated=True, bits=bits)
    assert near(frequency(m, PM_TIMER)[0])


def test_an_acpi_timer_that_is_not_there(m):
    Pit(m, gated=True, bits=0)
    assert frequency(m, PM_TIMER) == (0, False)
    assert m.tsc < 2 * HZ


# Ratio, MHz on the package (CPUID 0x16), the crystal that makes them agree
@pytest.mark.parametrize("numerator, denominator, mhz, crystal", [
    (334, 2, 4000, 24_000_000),      # an i7-6700K: 4008 MHz
    (250, 2, 3000, 24_000_000), (114, 1, 2200, 19_200_000),
    (168, 2, 2100, 25_000_000), (156, 2, 3000, 38_400_000)])
def test_a_ratio_to_a_crystal_that_is_not_stated(m, cpu, numerator,
                                                 denominator, mhz, crystal):
    cpu.cpuid(0, eax=0x16)
    cpu.cpuid(0x15, eax=denominator, ebx=numerator)
    cpu.cpuid(0x16, eax=mhz)
    Pit(m, gated=True)
    assert frequency(m, 0) == (crystal * numerator // denominator, True)


def test_the_crystal_that_the_measured_clock_tells(m, cpu):
    """Exact then, and without CPUID 0x16."""
    cpu.cpuid(0, eax=0x15)
    cpu.cpuid(0x15, eax=2, ebx=250)
    Pit(m, smi={1: HZ // 100_000})
    assert frequency(m, 0) == (HZ, True)


def test_no_crystal_fits(m, cpu):
    """Then what is measured, or else what is printed on the package."""
    cpu.cpuid(0, eax=0x16)
    cpu.cpuid(0x15, eax=2, ebx=222)
    cpu.cpuid(0x16, eax=2900)
    Pit(m)
    assert near(frequency(m, 0)[0])
    Pit(m, gated=True)
    assert frequency(m, 0) == (2_900_000_000, False)


# --- Sources that disagree -------------------------------------------------

def test_they_agree(m, cpu):
    """Exact, and not a word of warning."""
    cpu.cpuid(0, eax=0x16)
    cpu.cpuid(0x15, eax=2, ebx=250, ecx=24_000_000)
    cpu.cpuid(0x16, eax=3000)
    Pit(m)
    assert frequency(m, PM_TIMER) == (HZ, True)
    assert not warnings(m) and "by CPUID 0x15" in m.log_text()


def test_the_finer_clock(m, cpu):
    """An SMI in each: OUT is seen late, the PM timer's count is not."""
    Pit(m, smi=dict.fromkeys((1, 2, 3), HZ // 5000))
    hz, exact = frequency(m, PM_TIMER)
    assert near(hz, 3e-4) and not exact
    assert "by the ACPI timer" in m.log_text() and not warnings(m)


@pytest.mark.parametrize("pit, timer, by", [
    (1.1, 1, "the PIT"), (1, 1.1, "the PIT")])
def test_the_pit_and_the_timer_differ(m, cpu, pit, timer, by):
    Pit(m, fast=pit, pm_fast=timer)
    hz, exact = frequency(m, PM_TIMER)
    assert near(hz * pit) and not exact and by in m.log_text()
    (text,) = warnings(m)
    found = [int(n) for n in re.findall(r"\b\d{9,}\b", text)]
    assert near(found[0] * pit) and near(found[1] * timer)
    assert "the PIT" in text and "the ACPI timer" in text


@pytest.mark.parametrize("pit, timer", [(1, 1.1), (1.1, 1)])
def test_cpuid_decides_between_them(m, cpu, pit, timer):
    """Two of three; the odd one is named."""
    cpu.cpuid(0, eax=0x15)
    cpu.cpuid(0x15, eax=2, ebx=250, ecx=24_000_000)
    Pit(m, fast=pit, pm_fast=timer)
    assert frequency(m, PM_TIMER) == (HZ, True)
    (text,) = warnings(m)
    assert "the PIT" in text and "the ACPI timer" in text


@pytest.mark.parametrize("said, gated, fast, bits, counts", [
    (3000, False, 1, 24, True), (3000, True, 1, 24, True),
    (0, False, 1, 32, True), (0, False, 1.1, 24, False),
    (3000, False, 1.1, 24, False), (3000, True, 1.1, 32, False),
    (0, True, 1, 24, False), (3000, False, 1, 0, False),
    (0, False, 1, 0, False)])
def test_an_acpi_timer_that_counts_as_another_clock(m, cpu, said, gated, fast,
                                                    bits, counts):
    """Else its port may be anything, and no guest is given it."""
    cpu.cpuid(0, eax=0x15)
    if said:
        cpu.cpuid(0x15, eax=2, ebx=250, ecx=said * 8000)
    Pit(m, gated=gated, pm_fast=fast, bits=bits)
    port = m.new("u16 *", PM_TIMER)
    m.tsc_frequency(port, m.new("bool *"))
    assert port[0] == (PM_TIMER if counts else 0)


def test_the_package_says_another(m, cpu):
    """CPUID 0x16 rounds; but not by 10 %."""
    cpu.cpuid(0, eax=0x16)
    cpu.cpuid(0x16, eax=3300)
    Pit(m)
    hz, exact = frequency(m)
    assert near(hz) and not exact
    (text,) = warnings(m)
    assert "CPUID 0x16" in text and "3300000000" in text and str(hz) in text
