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


# -- the host's timer, which the guest reads itself

class Lent(Pm):
    """The host's, whose crystal is a little faster than the TSC's, or slower;
    it has been on for a while."""
    PORT, BEFORE = 0x1808, 0xabcdef12

    def __init__(self, bits=24, port=PORT, fast=1.0002):
        super().__init__()
        self.bits, self.port, self.fast = bits, port, fast
        self.m.on_read(lambda kind, at, size: self.host()
                       if (kind, at, size) == ("in", port, 4) else None)
        assert self.m.acpi_pm_lend(self.p, self.bus, port, bits) == 0

    def ticks(self):
        return self.BEFORE + int(self.m.tsc * self.fast * TIMER_HZ // self.hz)

    def host(self):
        return self.ticks() % (1 << self.bits)

    def flip(self):
        """Lets time pass up to just before the highest bit changes."""
        half = 1 << self.bits - 1
        left = half - self.ticks() % half
        self.until(self.m.tsc + int(left * self.hz / TIMER_HZ / self.fast)
                   - 10_000)


@pytest.mark.parametrize("bits", [24, 32])
def test_the_guests_timer_is_the_hosts(bits):
    """At the old port, too, where firmware looks, and by bytes."""
    pm = Lent(bits)
    for seconds in (0, 1, 5, 1000, 86400 * 30):
        pm.wait(pm.seconds(seconds))
        assert pm.timer() == pm.inp(pm.port, 4) == pm.host()
    assert bytes(pm.inp(pm.port + n) for n in range(4)) == \
        pm.host().to_bytes(4, "little")


@pytest.mark.parametrize("bits", [24, 32])
@pytest.mark.parametrize("port", [Lent.PORT, 0x608])
@pytest.mark.parametrize("fast", [1.0002, 0.9998])
def test_overflow_is_that_of_the_hosts(bits, port, fast):
    """Windows counts on by it: not before the bit has changed, nor later but
    for what the two clocks differ by."""
    pm = Lent(bits, port, fast)
    pm.out(pm.en, TMR, 2)
    for _ in range(5):
        pm.flip()
        assert not pm.sci() and not pm.inp(pm.sts, 2) & TMR
        pm.wait(20_000 + int(pm.seconds((1 << bits - 1) / TIMER_HZ) * 0.0003))
        assert pm.sci() and pm.inp(pm.sts, 2) & TMR
        pm.out(pm.sts, TMR, 2)
        assert not pm.sci()


def test_no_change_of_the_hosts_is_missed_or_made_up():
    """Of two it changes back; and for days nobody looks."""
    pm = Lent()
    for seconds in (1, 86400, 5):
        pm.wait(pm.seconds(seconds))
        pm.out(pm.sts, TMR, 2)
        assert not pm.inp(pm.sts, 2) & TMR
    pm.flip()
    pm.out(pm.sts, TMR, 2)
    assert not pm.inp(pm.sts, 2) & TMR
    pm.wait(pm.seconds(4.7))
    assert pm.inp(pm.sts, 2) & TMR


def test_a_timer_that_runs_with_a_time_from_before_the_last_access():
    """The loop reads the TSC, has the exit handled, then runs timers."""
    pm = Lent()
    pm.out(pm.en, TMR, 2)
    pm.flip()
    before = pm.m.tsc = pm.m.tsc + 100_000
    pm.m.tsc += 1000
    assert pm.inp(pm.sts, 2) & TMR
    pm.out(pm.sts, TMR, 2)
    pm.m.vclock_run(pm.clock, before)
    assert not pm.sci() and not pm.inp(pm.sts, 2) & TMR
    pm.flip()
    assert not pm.sci()
    pm.wait(1_000_000)
    assert pm.sci()


def test_a_reset_leaves_the_hosts():
    pm = Lent()
    pm.wait(pm.seconds(100))
    pm.m.acpi_pm_reset(pm.p)
    assert pm.inp(pm.sts, 4) == 0 and pm.timer() == pm.host() != 0


@pytest.mark.parametrize("port", [0x600, 0x604, 0x3f8, 0x6f8])
def test_ports_that_are_others(pm, port):
    m = pm.m
    m.bus_register(pm.bus, m.BUS_PORT, 0x3f8, 0x3ff, m.NULL, m.NULL, m.NULL)
    m.bus_register(pm.bus, m.BUS_PORT, 0x6fb, 0x6fb, m.NULL, m.NULL, m.NULL)
    assert m.acpi_pm_lend(pm.p, pm.bus, port, 24) == -m.EEXIST
    pm.wait(pm.seconds(10))
    assert pm.timer() == 10 * TIMER_HZ and pm.p.port == 0x608


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
