# SPDX-License-Identifier: MIT
"""ACPI fixed hardware and the ports that reset and exit."""

import pytest

from devmodel import Machine

TIMER_HZ = 3579545
TMR, GBL, PWRBTN, SLPBTN, RTC = 1, 1 << 5, 1 << 8, 1 << 9, 1 << 10


class Pm(Machine):
    def __init__(self, hz=1_000_000_000):
        super().__init__(hz)
        m = self.m
        self.p = m.new("struct acpi_pm *")
        self.power_off = self.note("off")
        assert m.acpi_pm_init(self.p, self.bus, self.clock, self.virq,
                              self.power_off, m.NULL) == 0
        self.sts, self.en = m.ACPI_PM1A_EVT_BLK, m.ACPI_PM1A_EVT_BLK + 2
        self.cnt, self.tmr = m.ACPI_PM1A_CNT_BLK, m.ACPI_PM_TMR_BLK

    def timer(self):
        return self.inp(self.tmr, 4)

    def sci(self):
        return bool(self.lines.get(9))


@pytest.fixture
def pm():
    return Pm()


@pytest.mark.parametrize("hz", [1_000_000_000, 2_999_999_999, TIMER_HZ * 10])
def test_timer_frequency(hz):
    pm = Pm(hz)
    start = pm.timer()
    for seconds in (1, 10, 100, 3600, 86400 * 30):
        pm.until(12_345_678_901 + seconds * hz)
        ticks = pm.timer() - start & 0xFFFFFFFF
        assert ticks == seconds * TIMER_HZ & 0xFFFFFFFF


def test_linux_checks_the_timer(pm):
    """init_acpi_pm_clocksource: it moves, and always forwards."""
    values = []
    for _ in range(1000):
        values.append(pm.timer())
        pm.wait(pm.hz // TIMER_HZ + 1)
    assert values == sorted(set(values))
    pm.wait(pm.seconds(100))
    value = pm.timer()
    assert [pm.inp(pm.tmr + n) for n in range(4)] == list(
        value.to_bytes(4, "little"))
    assert pm.inp(pm.tmr + 2, 2) == value >> 16
    pm.out(pm.tmr, 0, 4)
    assert pm.timer() == value


def test_overflow_interrupt(pm):
    """TMR_STS at every change of bit 31."""
    pm.out(pm.en, TMR, 2)
    half = -(-(1 << 31) * pm.hz // TIMER_HZ)
    for n in (1, 2, 3):
        pm.until(12_345_678_901 + n * half - 1000)
        assert not pm.sci() and not pm.inp(pm.sts, 2) & TMR
        pm.wait(2000)
        assert pm.sci() and pm.inp(pm.sts, 2) & TMR
        pm.out(pm.sts, TMR, 2)
        assert not pm.sci() and not pm.inp(pm.sts, 2) & TMR


def test_overflow_is_seen_by_polling(pm):
    assert pm.clock.next == pm.m.VCLOCK_NEVER
    pm.wait(pm.seconds(601))
    assert pm.inp(pm.sts, 2) & TMR and not pm.sci()
    pm.out(pm.en, TMR, 2)
    assert pm.sci()
    pm.out(pm.sts, 0xFFFF & ~TMR, 2)     # writing others clears nothing
    assert pm.sci()


def test_enable_bits(pm):
    pm.out(pm.en, 0xFFFF, 2)
    assert pm.inp(pm.en, 2) == TMR | GBL | PWRBTN | SLPBTN | RTC
    pm.out(pm.sts, 0xFFFF | PWRBTN << 16, 4)     # both at once
    assert pm.inp(pm.sts, 4) == PWRBTN << 16


def test_always_in_acpi_mode(pm):
    assert pm.m.ACPI_SMI_CMD == 0
    assert pm.inp(pm.cnt, 2) == 1
    pm.out(pm.cnt, 0, 2)
    assert pm.inp(pm.cnt, 2) == 1


@pytest.mark.parametrize("kind", range(8))
def test_sleep(pm, kind):
    """Linux: SLP_TYP first, then SLP_TYP with SLP_EN."""
    pm.out(pm.cnt, kind << 10 | 1, 2)
    assert pm.called == []
    pm.out(pm.cnt, kind << 10 | 1 << 13 | 1, 2)
    # That of QEMU's, which OVMF writes without asking.
    assert pm.called == [("off",)] * (kind == 0)
    assert pm.inp(pm.cnt, 2) == kind << 10 | 1   # SLP_EN reads 0


def test_power_off_by_bytes(pm):
    pm.out(pm.cnt + 1, 1 << 5)
    assert pm.called == [("off",)]


def test_reset(pm):
    pm.out(pm.en, 0xFFFF, 2)
    pm.out(pm.cnt, 5 << 10, 2)
    pm.wait(pm.seconds(601))
    assert pm.sci()
    pm.m.acpi_pm_reset(pm.p)
    assert not pm.sci() and pm.inp(pm.sts, 4) == 0
    assert pm.inp(pm.cnt, 2) == 1 and pm.timer() == 0
    assert pm.clock.next == pm.m.VCLOCK_NEVER


class Ports(Machine):
    def __init__(self):
        super().__init__()
        self.r = self.m.new("struct reset_ports *")
        self.request = self.note("reset")
        self.debug_exit = self.note("exit", "void(void *, uint32_t)")
        assert self.m.reset_ports_init(self.r, self.bus, self.request,
                                       self.debug_exit, self.m.NULL) == 0


@pytest.mark.parametrize("writes,resets", [
    ([0x06], 1), ([0x0E], 1), ([0x04], 1), ([0x02, 0x06], 1), ([0x02], 0),
    ([0x0A], 0), ([0x00], 0), ([0x06, 0x06], 1), ([0x06, 0x02, 0x06], 2)])
def test_reset_control(writes, resets):
    """Linux's BOOT_CF9, the FADT's reset register, and what is neither."""
    ports = Ports()
    for value in writes:
        ports.out(ports.m.RESET_PORT, value)
    assert ports.called == [("reset",)] * resets
    assert ports.inp(0xCF9) == writes[-1]


def test_reset_value_of_the_fadt():
    ports = Ports()
    ports.out(ports.m.RESET_PORT, ports.m.RESET_VALUE)
    assert ports.called == [("reset",)]


def test_port_92():
    ports = Ports()
    assert ports.inp(0x92) == 2          # A20 is open
    ports.out(0x92, ports.inp(0x92) | 2)
    ports.out(0x92, 0)
    assert ports.called == [] and ports.inp(0x92) == 0
    ports.out(0x92, 1)
    ports.out(0x92, 3)
    assert ports.called == [("reset",)]
    ports.m.reset_ports_reset(ports.r)
    assert ports.inp(0x92) == 2


def test_debug_exit():
    ports = Ports()
    ports.out(0xF4, 0)
    ports.out(0xF4, 0x2A)
    ports.out(0xF4, 0x12345678, 4)
    assert ports.called == [("exit", 0), ("exit", 0x2A), ("exit", 0x12345678)]
    assert ports.inp(0xF4, 2) == 0xFFFF


def test_wide_accesses_to_a_byte_port():
    ports = Ports()
    ports.out(0xCF9, 0x0602, 2)
    assert ports.called == [] and ports.inp(0xCF9, 4) == 0xFFFFFF02
