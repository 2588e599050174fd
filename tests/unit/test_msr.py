# SPDX-License-Identifier: MIT
"""MSRs with fixed answers, and which the bitmap opens."""

import pytest

import vmxcpu

# SDM volume 4, table 2-2, IA32_ARCH_CAPABILITIES: what says that there is a
# further MSR, and that MSR. None of them is there for a guest.
CAPABILITIES = {7: "TSX_CTRL", 10: "MISC_PACKAGE_CTLS", 11: "ENERGY_FILTERING",
                12: "DOITM: UARCH_MISC_CTL", 18: "FB_CLEAR_CTRL: MCU_OPT_CTRL",
                21: "XAPIC_DISABLE_STATUS", 22: "OVERCLOCKING_STATUS",
                25: "GDS_CTRL: MCU_OPT_CTRL"}
FACTS = [0, 1, 2, 3, 4, 5, 6, 8, 13, 14, 15, 17, 19, 20, 24, 26, 27, 28, 62]
ARCH_CAPABILITIES = 0x10a


@pytest.fixture(scope="module")
def m():
    return vmxcpu.build("msr", [
        "vmm/vcpu/msr.c", "vmm/core/bus.c", "vmm/core/vclock.c",
        *(f"vmm/devmodel/{name}.c" for name in (
            "lapic", "lapic_accept", "apic_bus"))],
        headers=["vmm/vcpu/msr.h", "vmm/core/bus.h"])


class Guest:
    def __init__(self, m):
        self.m, self.cpu = m, vmxcpu.Cpu(m)
        self.restarted()

    def restarted(self):
        """What the CPU has is looked at then."""
        self.bus = self.m.new("struct bus *")
        assert self.m.msr_init(self.bus) == 0
        return self

    def access(self, msr, value=None):
        a = self.m.new("struct bus_access *", {
            "addr": msr, "size": 8, "write": value is not None,
            "value": value or 0})
        err = self.m.bus_dispatch(self.bus, self.m.BUS_MSR, a)
        return None if err else a.value

    def is_open(self, msr, write=False):
        bitmap = self.m.new("uint8_t[4096]")
        self.m.msr_bitmap_fill(bitmap)
        at = (msr >= 0xc0000000) * 1024 + write * 2048
        return not bitmap[at + (msr & 0x1fff) // 8] >> msr % 8 & 1


@pytest.fixture
def guest(m):
    return Guest(m)


def test_arch_capabilities_are_there_where_cpuid_says_so(guest):
    assert guest.access(ARCH_CAPABILITIES) is None
    guest.cpu.cpuid(7, edx=1 << 29)
    assert guest.restarted().access(ARCH_CAPABILITIES) == 0


def test_arch_capabilities_name_no_further_msr(guest):
    """Linux reads IA32_TSX_CTRL and its like without a net, where these bits
    say that they exist."""
    guest.cpu.every_cpuid()
    guest.restarted()
    guest.cpu.set_msr(ARCH_CAPABILITIES, 2**64 - 1)
    assert not guest.is_open(ARCH_CAPABILITIES)
    shown = guest.access(ARCH_CAPABILITIES)
    assert shown == sum(1 << bit for bit in FACTS)
    assert not any(shown >> bit & 1 for bit in CAPABILITIES)
    guest.cpu.set_msr(ARCH_CAPABILITIES, 1 << 7 | 1 << 5)
    assert guest.access(ARCH_CAPABILITIES) == 1 << 5
    assert guest.access(ARCH_CAPABILITIES, 0) is None


@pytest.mark.parametrize("msr, value, dropped", [
    (0x17, 0, False), (0x3a, 1, False), (0x79, 0, True), (0x179, 0, False),
    (0x1a0, 0x1801, True)])
def test_what_never_changes(guest, msr, value, dropped):
    """SDM volume 4, table 2-2. FEATURE_CONTROL is locked without VMX, which
    CPUID does not show; no machine-check bank; no performance counters."""
    assert guest.access(msr) == value
    for write in (0, 1, 5, 2**64 - 1):
        assert (guest.access(msr, write) is not None) == dropped
        assert guest.access(msr) == value
    assert not guest.is_open(msr) and not guest.is_open(msr, write=True)


@pytest.mark.parametrize("spec", [False, True])
def test_what_a_reset_clears(guest, spec):
    """SDM table 10-1: what the guest reaches and no VMCS switches; SPEC_CTRL
    where the CPU has it, and no command."""
    m, cpu = guest.m, guest.cpu
    kept = {m.MSR_PRED_CMD, m.MSR_FLUSH_CMD, m.MSR_TSC, m.MSR_PAT, m.MSR_EFER,
            m.MSR_FS_BASE, m.MSR_SYSENTER_EIP}
    cleared = {m.MSR_STAR, m.MSR_LSTAR, m.MSR_CSTAR, m.MSR_FMASK,
               m.MSR_KERNEL_GS_BASE, m.MSR_TSC_AUX}
    cpu.cpuid(7, edx=1 << 26 if spec else 0)
    for msr in {*kept, *cleared, m.MSR_SPEC_CTRL}:
        cpu.set_msr(msr, 0xbad)
    m.msr_reset()
    assert {cpu.msr(msr) for msr in cleared} == {0}
    assert {cpu.msr(msr) for msr in kept} == {0xbad}
    assert cpu.msr(m.MSR_SPEC_CTRL) == (0 if spec else 0xbad)


def test_btf_alone_of_debugctl(guest):
    """It hangs on no feature; an exit and an entry switch it."""
    for bit in range(64):
        assert (guest.access(0x1d9, 1 << bit) is not None) == (bit == 1)
        assert guest.access(0x1d9) == (2 if bit >= 1 else 0)
    assert guest.access(0x1d9, 0) is not None and guest.access(0x1d9) == 0


@pytest.mark.parametrize("msr", [0x17a, 0xda0])
def test_what_takes_no_bit(guest, msr):
    """MCG_STATUS, XSS"""
    assert guest.access(msr) == 0 and guest.access(msr, 0) is not None
    for bit in (0, 1, 11, 63):
        assert guest.access(msr, 1 << bit) is None


def test_the_hosts_where_it_has_it(guest):
    assert guest.access(0x8b) == 0
    guest.cpu.set_msr(0x8b, 0xf0 << 32)
    assert guest.access(0x8b) == 0xf0 << 32
    assert guest.access(0x8b, 0) is not None
    assert guest.access(0x1a0) == 0x1801
    assert guest.access(0x17a, 1) is None and guest.access(0x17a, 0) == 0


def test_open_only_where_the_host_shows_it(guest):
    assert not guest.is_open(0x48) and guest.is_open(0x277, write=True)
    guest.cpu.cpuid(7, edx=1 << 26)
    assert guest.is_open(0x48) and guest.is_open(0x49, write=True)
    assert not guest.is_open(0x49) and not guest.is_open(0x10b, write=True)
    assert guest.is_open(0xc0000080) and not guest.is_open(0xc0000080, True)


# SDM 4, table 2-2 and the models' tables: what tells of speed and heat, and the
# wishes that harm nothing.
TELLS = [0xe7, 0xe8, 0x198, 0x19c, 0x1a2, 0x1ad, 0x1b1, 0x771, 0x777, 0x3f8,
         0x3f9, 0x3fa, 0x3fc, 0x3fd, 0x3fe, 0x60d, 0x630, 0x631, 0x632, 0x660,
         0x606, 0x610, 0x611, 0x614, 0x619, 0x639, 0x641, 0x648, 0x649, 0x64a,
         0x64b, 0x64c, 0x64d]
WISHES = [0x1b0, 0x770, 0x774]
# The overclocking mailbox, limits of power and current, all CPUs' HWP
# request, turbo's table, voltage planes, interrupts.
HARM = [0x150, 0x610, 0x618, 0x638, 0x640, 0x64b, 0x64c, 0x1ad, 0x1a2, 0x601,
        0x772, 0x773, 0x19b, 0x1b2, 0xe2, 0x1fc, 0x199, 0x1aa, 0xce]


def test_speed_and_heat(guest):
    assert all(guest.is_open(msr) for msr in TELLS + WISHES)
    assert all(guest.is_open(msr, write=True) for msr in WISHES)
    assert not any(guest.is_open(msr, write=True) for msr in TELLS + HARM)


RATIO, NO_TURBO, VOLTAGE = 0x1c00, 1 << 32, 0x3a
WRITTEN = 0x2100


@pytest.mark.parametrize("status, taken", [
    (0x1d2700000c00, True),         # Sandy Bridge: a voltage that is measured
    (0x1c00 | VOLTAGE, False),      # Silvermont: the one that is asked for
    (0x14, False),                  # Westmere's ratio
    (None, False)])
def test_a_p_state(guest, status, taken):
    """The ratio and turbo are the guest's; what may be a voltage is not."""
    guest.cpu.set_msr(0x199, RATIO)
    if status is not None:
        guest.cpu.set_msr(0x198, status)
    assert guest.access(0x199) == RATIO
    for more in (0, 0x55, NO_TURBO, 2**64 - 1 - 0xff00):
        assert guest.access(0x199, WRITTEN | more) is not None
        assert guest.access(0x199) == guest.cpu.msr(0x199) == (
            WRITTEN | more & NO_TURBO if taken else RATIO)
    assert not guest.is_open(0x199, write=True)


def test_a_cpu_without_p_states(guest):
    """Bochs: nothing is written, and Linux finds nothing."""
    assert guest.access(0x199) == 0 and guest.access(0x199, 0x1c00) == 0x1c00
    assert not [e for e in guest.m.events() if e.kind == guest.m.FAKE_NO_MSR]


# SDM 4, table 2-2: what the VMCS switches, or Monocle does not use; commands.
ITS_OWN = [0x174, 0x175, 0x176, 0x277, *range(0xc0000081, 0xc0000085),
           *range(0xc0000100, 0xc0000104)]


# SDM 10.12.1.2, table 10-6. Read: all but the ICR, whose upper half is none of
# the page's, and the timer's count; not what is written only.
X2APIC_READ = [0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f, *range(0x810, 0x829),
               *range(0x832, 0x839), 0x83e]
# SDM 30.5: TPR, EOI, self-IPI.
X2APIC_WRITTEN = [0x808, 0x80b, 0x83f]


@pytest.mark.parametrize("apicv", [False, True])
def test_nothing_else_is_open(guest, apicv):
    """Denied by default: a bit too many hands out what is not looked at."""
    guest.cpu.cpuid(7, edx=1 << 26 | 1 << 27 | 1 << 28 | 1 << 31)
    bitmap = guest.m.new("uint8_t[4096]")
    guest.m.msr_bitmap_fill(bitmap)
    if apicv:
        guest.m.msr_bitmap_open_apic(bitmap)
    bits = int.from_bytes(bytes(bitmap), "little")

    def opened(write):
        return {first + n for k, first in enumerate((0, 0xc0000000))
                for n in range(0x2000)
                if not bits >> (8192 * (2 * write + k) + n) & 1}
    assert opened(write=True) == {*ITS_OWN, *WISHES, 0x48, 0x49, 0x10b,
                                  *X2APIC_WRITTEN * apicv}
    # The TSC, and EFER, whose writes are looked at.
    assert opened(write=False) == {*ITS_OWN, *WISHES, *TELLS, 0x48, 0x10,
                                   0xc0000080, *X2APIC_READ * apicv}


@pytest.mark.parametrize("msr, host, shown, dropped", [
    (0xe2, 0x1e000405, 0x1e000405, True),       # the firmware's C-state limit
    (0x1fc, 0x4005d, 0x4005d, True),
    (0xce, 0x80838f3012400, 0x8083803012400, False),
    (0x19b, 7, 0, True), (0x1b2, 7, 0, True),
    (0x1a0, 0x40008d0089, 0x4000051809, True),
])
def test_what_stays_as_the_firmware_has_it(guest, msr, host, shown, dropped):
    guest.cpu.set_msr(msr, host)
    assert guest.access(msr) == shown
    assert (guest.access(msr, 0) is not None) == dropped
    assert guest.cpu.msr(msr) == host
