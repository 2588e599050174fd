# SPDX-License-Identifier: MIT
"""Exits for control registers, XSETBV, ports and device memory: what the
instruction does on hardware, by the SDM, against what the handlers do; and
hypercalls, by docs/hypercalls.md."""

import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import guestram
import vmxcpu
from mutants import mutated

SOURCES = ["vmm/vcpu/exit_cr.c", "vmm/vcpu/exit_io.c", "vmm/vcpu/exit_mmio.c", "vmm/vcpu/msr.c",
           "vmm/vcpu/pv_eoi.c",
           "vmm/vcpu/vcpu_state.c", "vmm/core/stats.c", "vmm/core/guest_mem.c", "vmm/vcpu/insn.c",
           "vmm/core/bus.c", "vmm/core/vm.c", "vmm/core/vclock.c", "kernel/region.c",
           "vmm/devmodel/lapic.c", "vmm/devmodel/lapic_accept.c",
           "vmm/devmodel/apic_bus.c", "vmm/vcpu/hypercall.c"]
# What hypercalls reach: a log of 1000 bytes, of which the first 100 are gone.
FAKES = """
#include "tests/unit/vmx_fakes.c"
#include "kernel/log_sink.h"
#include "vmm/assign/windows.h"
#include "vmm/vcpu/exits.h"

/* vmm/vcpu/lend.c has tests of its own; here something is always there. */
enum exit_action exit_lend(struct vcpu *v)
{
	(void)v;
	return EXIT_STOP;
}

struct window_run opened[WINDOWS_RUNS];
unsigned opened_count;
int open_error;

size_t log_read(u64 *from, char *buf, size_t size)
{
	*from = MAX(*from, 100u);
	size = MIN(size, 1000u - MIN(*from, 1000u));
	for (size_t i = 0; i < size; i++)
		buf[i] = (char)(*from + i);
	*from += size;
	return size;
}

int windows_open(struct vm *vm, const struct window_run *runs, unsigned count)
{
	(void)vm;
	memcpy(opened, runs, count * sizeof(*runs));
	opened_count = count;
	return open_error;
}
"""
CDEF = """
extern struct window_run opened[32];
extern unsigned opened_count;
extern int open_error;
"""
PAGE, MIB = 4096, 1 << 20
U32, U64 = 2**32 - 1, 2**64 - 1
PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG = (
    1 << n for n in (0, 1, 2, 3, 4, 5, 16, 18, 29, 30, 31))
CR0_KNOWN = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG
PSE, PAE, PGE, VMXE, PCIDE, SMEP = (1 << n for n in (4, 5, 7, 13, 17, 20))
LME, LMA = 1 << 8, 1 << 10
DF, TF, IF = 1 << 10, 1 << 8, 1 << 9
CS64, CS32, CS16 = 0xa09b, 0xc09b, 0x009b
ENTRY, IA32E = 0xd1ff, 1 << 9
GUEST_OWNED = PE | MP | EM | TS | WP | AM | PG
ALLOWED_CR4 = 0x3706ff | PCIDE
EPTP = 0x5000 | 0x1e
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = range(8)
PF, GP = 14, 13


def build(sources=(), name="exits"):
    """sources: {the tree's file: what to build instead}"""
    return vmxcpu.harness.build(
        name, [dict(sources).get(s, s) for s in SOURCES], fakes=FAKES,
        cdef=CDEF, exports=["lapic_cr8"],
        headers=["arch/x86/vmx/ept.h", "vmm/vcpu/exits.h", "vmm/vcpu/hypercall.h", "vmm/assign/windows.h",
                 "vmm/vcpu/guest_cpuid.h",
                 *vmxcpu.HEADERS])


@pytest.fixture(scope="module")
def m():
    return build()


class Fault(Exception):
    """(vector, error code, CR2): what is queued for the guest."""


class Vcpu:
    """One vCPU whose exit handlers are called as its loop does."""

    def __init__(self, m, rows=(), **state):
        self.m, self.cpu = m, vmxcpu.Cpu(m)
        self.guest = guestram.Guest(m, rows or self.rows())
        self.vm = m.new("struct vm *")
        self.vm.map = self.guest.list[0]
        self.cap = m.new("struct vmx_capabilities *", {
            "cr4_fixed0": VMXE, "cr0_fixed0": PE | NE | PG, "entry": ENTRY})
        self.vm.vmx = self.cap
        self.ept = m.new("struct ept *", {"eptp": EPTP})
        self.vm.ept = self.ept
        self.windows = m.callback("int(struct vm *, const struct window_run *,"
                                  " unsigned)", m.windows_open)
        self.vm.open_windows = self.windows
        f = self.vm.features
        f.cr4_allowed, f.xcr0_allowed, f.physical_bits = ALLOWED_CR4, 0xe7, 39
        f.efer_allowed = 1 | LME | LMA | 1 << 11
        self.v = m.new("struct vcpu *")
        self.v.vm, self.v.lapic = self.vm, self.lapic()
        self.bus = self.v.bus = m.new("struct bus *")
        self.log = []       # what devices saw: (port or address, size, value)
        self._names = []
        self.fields = {
            "CR0_MASK": ~GUEST_OWNED & U64, "GUEST_CR0": PE | NE,
            "CR0_SHADOW": PE | ET, "GUEST_CR4": VMXE, "GUEST_RFLAGS": 2,
            "GUEST_CS_RIGHTS": CS32, "GUEST_SS_RIGHTS": 0xc093,
            "ENTRY_CONTROLS": ENTRY, "GUEST_RIP": 0x1000, "EXIT_LENGTH": 3,
            **state}
        for name, value in self.fields.items():
            self.cpu.write(getattr(m, f"VMCS_{name}"), value)

    @staticmethod
    @functools.lru_cache
    def rows():
        """Made once: Hypothesis runs through many. See clean()."""
        return (guestram.Row(0, 0xc0000), guestram.Row(0xc0000, 0x40000, "ROM",
                                                       "RESERVED", "bios"),
                guestram.Row(MIB, MIB),
                guestram.Row(0xfec00000, PAGE, "HOLE", "NONE", "ioapic"))

    def clean(self):
        for row in self.rows():
            if row.memory:
                row.memory[:] = bytes(row.size)
        return self

    def lapic(self):
        m = self.m
        memory = m.new("char[]", m.ffi.sizeof("struct lapic") + PAGE)
        at = int(m.ffi.cast("uintptr_t", memory))
        self._lapic = memory
        return m.ffi.cast("struct lapic *", at + -at % PAGE)

    def __getitem__(self, name):
        return self.cpu.read(getattr(self.m, f"VMCS_{name}"))

    @property
    def cr0(self):
        """As the guest reads it."""
        mask = self["CR0_MASK"]
        return self["GUEST_CR0"] & ~mask | self["CR0_SHADOW"] & mask

    def vmcs(self):
        """But for what the exit itself writes."""
        fields = bytearray(self.m.ffi.buffer(self.m.vmcs_fields))
        at = 8 * self.m.VMCS_QUALIFICATION
        fields[at:at + 8] = bytes(8)
        return bytes(fields)

    def run(self, handler, qualification=0):
        """'skip', 'resume', 'stop', or the Fault."""
        m = self.m
        self.v.qualification = qualification
        self.cpu.write(m.VMCS_QUALIFICATION, qualification)
        self.v.injection.info = 0
        m.clear_events()
        action = getattr(m, handler)(self.v)
        info = self.v.injection.info
        if action == m.EXIT_GP:
            raise Fault(GP, 0, None)
        if action == m.EXIT_RESUME and info:
            assert info >> 31 and info >> 8 & 7 == 3, "an exception"
            raise Fault(info & 0xff, self.v.injection.error,
                        m.fake_cr[2] if info & 0xff == PF else None)
        assert info == 0
        return {m.EXIT_SKIP: "skip", m.EXIT_RESUME: "resume",
                m.EXIT_STOP: "stop"}[action]

    def invept(self):
        return [e.addr for e in self.m.events("invept")]

    def device(self, space, first, last, answer=0xa5a5a5a5a5a5a5a5):
        def handle(_dev, access):
            if access.write:
                self.log.append((access.addr, access.size, access.value))
            else:
                access.value = answer(access) if callable(answer) else (
                    answer & (1 << 8 * access.size) - 1)
                self.log.append((access.addr, access.size, None))
            return 0
        name = self.m.ffi.new("char[]", b"device")
        self._names.append(name)
        bus = (self.bus if space == self.m.BUS_MSR
               else self.m.ffi.addressof(self.vm.bus))
        assert self.m.bus_register(
            bus, space, first, last,
            self.m.callback("bus_handler *", handle), self.m.NULL, name) == 0

    def poke(self, gpa, data):
        for row in self.guest.rows:
            if row.memory and row.gpa <= gpa < row.end:
                row.memory[gpa - row.gpa:gpa - row.gpa + len(data)] = data
                return
        raise AssertionError("no memory there")


# --- Control registers ---------------------------------------------------

PDPTES = {
    "good": [0x1001, 0, 0x2001 | 0x18, 0x1e6], "reserved": [3, 0, 0, 0],
    "wide": [0, 0, 0, 1 << 39 | 1], "nx": [0, 1 << 63 | 1, 0, 0]}
CR3S = {"memory": 0x2020, "nowhere": 0x80000000}


class Arch:
    """What the guest sees of its mode, by SDM volume 3, 2.5, 4.1, 10.8.5."""

    def __init__(self, cr0, cr4, efer, cs_l, cr3, pdptes):
        self.cr0, self.cr4, self.efer, self.cs_l = cr0, cr4, efer, cs_l
        self.cr3, self.pdptes, self.loaded = cr3, pdptes, None

    @property
    def lma(self):
        return self.efer & LMA != 0

    def load_pdptes(self):
        if self.cr3 == "nowhere" or self.pdptes != "good":
            raise Fault(GP, 0, None)
        self.loaded = PDPTES["good"]

    def pae_after(self, cr0, cr4, lma):
        return cr0 & PG and cr4 & PAE and not lma

    def mov_cr0(self, value):
        if value >> 32 or (value & PG and not value & PE) or (
                value & NW and not value & CD):
            raise Fault(GP, 0, None)
        new, change = value & CR0_KNOWN | ET, value ^ self.cr0
        lma = self.lma
        if change & PG and not new & PG:
            if lma and self.cs_l or self.cr4 & PCIDE:
                raise Fault(GP, 0, None)
            lma = False
        elif change & PG and self.efer & LME:
            if not self.cr4 & PAE or self.cs_l:
                raise Fault(GP, 0, None)
            lma = True
        if change & (PG | CD | NW) and self.pae_after(new, self.cr4, lma):
            self.load_pdptes()
        self.cr0 = new
        self.efer = self.efer & ~LMA | (LMA if lma else 0)
        return change & PG

    def mov_cr4(self, value):
        change = value ^ self.cr4
        if value & ~ALLOWED_CR4 or self.lma and not value & PAE:
            raise Fault(GP, 0, None)
        if value & change & PCIDE and (not self.lma or self.cr3_low()):
            raise Fault(GP, 0, None)
        if change & (PAE | PGE | PSE | SMEP) and self.pae_after(
                self.cr0, value, self.lma):
            self.load_pdptes()
        self.cr4 = value
        return change & (PAE | PGE | PCIDE | SMEP)

    def cr3_low(self):
        return CR3S[self.cr3] & 0xfff

    def lmsw(self, source):
        return self.mov_cr0(self.cr0 & ~0xe | source & 0xf)

    def clts(self):
        return self.mov_cr0(self.cr0 & ~TS)


@st.composite
def modes(draw):
    """A state that a guest can be in."""
    cr0 = ET | draw(st.sampled_from([0, PE, PE | PG, PE | PG]))
    cr0 |= draw(st.integers(0, U32)) & (MP | EM | TS | NE | WP | AM)
    cr0 |= draw(st.sampled_from([0, 0, CD, CD | NW]))
    cr4 = draw(st.integers(0, U32)) & ALLOWED_CR4 & ~PCIDE
    efer = draw(st.sampled_from([0, LME]))
    cs_l = draw(st.booleans())
    cr3 = draw(st.sampled_from(sorted(CR3S)))
    if cr0 & PG and efer:
        efer |= LMA
        cr4 |= PAE | draw(st.sampled_from([0, PCIDE]))
    return Arch(cr0, cr4, efer, cs_l, cr3,
                draw(st.sampled_from([*sorted(PDPTES), "good", "good"])))


def enter(m, arch):
    """A vCPU in that state; its VMCS as Monocle keeps it."""
    vcpu = Vcpu(
        m, GUEST_CR0=arch.cr0 & ~(NE | NW | CD) | NE, CR0_SHADOW=arch.cr0,
        GUEST_CR4=arch.cr4 | VMXE, CR4_SHADOW=arch.cr4, GUEST_EFER=arch.efer,
        GUEST_CR3=CR3S[arch.cr3],
        GUEST_CS_RIGHTS=CS64 if arch.cs_l else CS32,
        ENTRY_CONTROLS=ENTRY | (IA32E if arch.lma else 0))
    vcpu.poke(0x2020, b"".join(p.to_bytes(8, "little")
                               for p in PDPTES[arch.pdptes]))
    return vcpu


def agree(vcpu, arch):
    assert vcpu.cr0 == arch.cr0
    assert vcpu["CR4_SHADOW"] == arch.cr4
    assert vcpu["GUEST_CR4"] == arch.cr4 | VMXE
    assert vcpu["GUEST_EFER"] == arch.efer
    # What the hardware runs with: caches on, native FPU errors (SDM 24.8).
    assert vcpu["GUEST_CR0"] == arch.cr0 & ~(NE | NW | CD) | NE
    assert vcpu["ENTRY_CONTROLS"] == ENTRY | (IA32E if arch.lma else 0)
    if arch.loaded:
        assert [vcpu.cpu.read(vcpu.m.VMCS_GUEST_PDPTE0 + 2 * n)
                for n in range(4)] == arch.loaded


def both(vcpu, arch, expected, qualification):
    """The instruction on the model and by the exit: same outcome."""
    before = vcpu.vmcs()
    try:
        flushes = expected()
    except Fault as fault:
        with pytest.raises(Fault) as got:
            vcpu.run("exit_control_register", qualification)
        assert got.value.args == fault.args
        assert vcpu.vmcs() == before, "a fault changes nothing"
        assert vcpu.invept() == []
        return
    assert vcpu.run("exit_control_register", qualification) == "skip"
    agree(vcpu, arch)
    if flushes:
        assert vcpu.invept() == [EPTP], "stale translations"


CR0_VALUE = st.builds(
    lambda base, more, high: base | more & (CR0_KNOWN | 0xffc0) | high,
    st.sampled_from([0, PE, PE | PG, PG]), st.integers(0, U32),
    st.sampled_from([0, 0, 0, 1 << 32, 1 << 63]))


@settings(max_examples=400, deadline=None)
@given(modes(), CR0_VALUE, st.integers(0, 15), st.booleans())
def test_mov_to_cr0(m, arch, value, reg, near):
    """near: a change of a bit or two, as guests do it."""
    if near:
        value = arch.cr0 ^ value & (CD | PG | TS | WP)
    vcpu = enter(m, arch)
    m.vcpu_set_gpr(vcpu.v, reg, value)
    if not (arch.lma and arch.cs_l):
        value &= U32
    both(vcpu, arch, lambda: arch.mov_cr0(value), reg << 8)


@settings(max_examples=400, deadline=None)
@given(modes(), st.integers(0, U32), st.integers(0, 15),
       st.sampled_from([0, 0, 0, 1 << 13, 1 << 40]))
def test_mov_to_cr4(m, arch, change, reg, bad):
    value = arch.cr4 ^ change & ALLOWED_CR4 | bad
    vcpu = enter(m, arch)
    m.vcpu_set_gpr(vcpu.v, reg, value)
    if not (arch.lma and arch.cs_l):
        value &= U32
    both(vcpu, arch, lambda: arch.mov_cr4(value), reg << 8 | 4)


@settings(max_examples=200, deadline=None)
@given(modes(), st.integers(0, 0xffff))
def test_lmsw_and_clts(m, arch, source):
    vcpu = enter(m, arch)
    both(vcpu, arch, lambda: arch.lmsw(source), 3 << 4 | source << 16)
    both(vcpu, arch, arch.clts, 2 << 4)


@pytest.mark.parametrize("value", [*range(17), 0x10000000f, 1 << 63])
def test_cr8(m, value):
    vcpu = Vcpu(m, GUEST_EFER=LME | LMA, GUEST_CS_RIGHTS=CS64)
    m.vcpu_set_gpr(vcpu.v, 9, value)
    if value > 15:
        with pytest.raises(Fault):
            vcpu.run("exit_control_register", 9 << 8 | 8)
        value = 0
    else:
        assert vcpu.run("exit_control_register", 9 << 8 | 8) == "skip"
    assert m.lapic_cr8(vcpu.v.lapic) == value
    assert vcpu.run("exit_control_register", 1 << 4 | RSP << 8 | 8) == "skip"
    assert vcpu["GUEST_RSP"] == value


@pytest.mark.parametrize("qualification", [
    3, 2, 1 << 4, 1 << 4 | 3, 1 << 4 | 4])
def test_accesses_that_cannot_exit_stop(m, qualification):
    assert Vcpu(m).run("exit_control_register", qualification) == "stop"


XCR0 = {0b1, 0b11, 0b111, 0b11100111}      # SDM 13.3, of 0xe7


@pytest.mark.parametrize("allowed", [0, 1, 3, 7, 0xe7])
def test_xsetbv(m, allowed):
    for value in [*range(256), 1 << 8 | 7, 1 << 9 | 7, 1 << 32 | 7, 1 << 63]:
        vcpu = Vcpu(m)
        vcpu.vm.features.xcr0_allowed = allowed
        # The upper halves are not looked at.
        vcpu.v.gpr[RAX] = value & U32 | 0xdead << 32
        vcpu.v.gpr[RDX] = value >> 32 | 0xbeef << 32
        vcpu.v.gpr[RCX] = 1 << 32
        vcpu.v.answers[13].leaf = 13
        if value in XCR0 and value & ~allowed == 0:
            assert vcpu.run("exit_xsetbv") == "skip"
            assert m.fake_xcr0 == value
            assert vcpu.v.answers[13].leaf != 13    # its EBX is another
        else:
            with pytest.raises(Fault) as fault:
                vcpu.run("exit_xsetbv")
            assert fault.value.args == (GP, 0, None)
            assert m.fake_xcr0 == 1


@pytest.mark.parametrize("index, rights", [(1, 0xc093), (U32, 0xc093),
                                           (0, 0xc0f3), (0, 0xc0b3)])
def test_xsetbv_of_another_register_or_ring(m, index, rights):
    vcpu = Vcpu(m, GUEST_SS_RIGHTS=rights)
    vcpu.v.gpr[RAX], vcpu.v.gpr[RCX] = 3, index
    with pytest.raises(Fault):
        vcpu.run("exit_xsetbv")
    assert m.fake_xcr0 == 1


# --- MSRs ----------------------------------------------------------------

def wrmsr(vcpu, msr, value):
    vcpu.v.gpr[RCX] = msr | 0xffff << 32
    vcpu.v.gpr[RAX] = value & U32 | 0xffff << 32
    vcpu.v.gpr[RDX] = value >> 32 | 0xffff << 32
    return vcpu.run("exit_wrmsr")


@settings(max_examples=200, deadline=None)
@given(modes(), st.integers(0, 0xfff) | st.integers(0, U64))
def test_wrmsr_of_efer(m, arch, value):
    vcpu = enter(m, arch)
    allowed = vcpu.vm.features.efer_allowed
    before = vcpu.vmcs()
    if value & ~allowed or (value ^ arch.efer) & LME and arch.cr0 & PG:
        with pytest.raises(Fault):
            wrmsr(vcpu, m.MSR_EFER, value)
        assert vcpu.vmcs() == before
    else:
        assert wrmsr(vcpu, m.MSR_EFER, value) == "skip"
        assert vcpu["GUEST_EFER"] == value & ~LMA | arch.efer & LMA


def test_an_msr_that_nobody_has(m):
    vcpu = Vcpu(m)
    vcpu.v.gpr[RCX] = 0x12345
    for handler in ("exit_rdmsr", "exit_wrmsr"):
        with pytest.raises(Fault) as fault:
            vcpu.run(handler)
        assert fault.value.args == (GP, 0, None)


PV_EOI = 0x4b564d04


@pytest.mark.parametrize("address, there", [
    (0x5000, True), (MIB + 0xffc, True), (0, True), (0x5002, False),
    (0xbffff, False), (0xc0000, False), (0xfec00000, False),
    (2 * MIB, False), (1 << 40, False), (U64 & ~3, False)])
def test_the_word_of_a_paravirtual_eoi(m, address, there):
    """RAM alone, at a multiple of four; Linux's MSR_KVM_PV_EOI_EN."""
    vcpu = Vcpu(m)
    l = vcpu.v.lapic
    assert m.pv_eoi_init(vcpu.v) == 0
    assert wrmsr(vcpu, PV_EOI, 0x6001) == "skip"
    old = l.pv_eoi
    if there:
        assert wrmsr(vcpu, PV_EOI, address | 1) == "skip"
        assert l.pv_eoi == m.ffi.cast("u32 *", m.guest_ptr(
            m.ffi.addressof(vcpu.vm.map), address, 4)) != m.NULL
        assert wrmsr(vcpu, PV_EOI, 0) == "skip" and l.pv_eoi == m.NULL
        return
    with pytest.raises(Fault) as fault:
        wrmsr(vcpu, PV_EOI, address | 1)
    assert fault.value.args == (GP, 0, None)
    assert l.pv_eoi == old != m.NULL and vcpu.v.pv_eoi == 0x6001


@pytest.mark.parametrize("x2apic", [False, True])
@pytest.mark.parametrize("value", [0, 1, 1 << 32])
def test_an_eoi(m, x2apic, value):
    """0 alone may be written, in x2APIC mode alone (SDM 10.12.1.2)."""
    vcpu = Vcpu(m)
    bus = vcpu.v.bus = m.new("struct bus *")
    clock, apics = m.new("struct vclock *"), m.new("struct apic_bus *")
    m.vclock_init(clock, 10**9)
    assert m.lapic_init(vcpu.v.lapic, apics, bus, clock, 0, 39) == 0
    vcpu.v.gpr[RCX], vcpu.v.gpr[RDX] = m.MSR_APIC_BASE, 0
    vcpu.v.gpr[RAX] = 0xfee00900 | x2apic << 10
    assert vcpu.run("exit_wrmsr") == "skip"
    for vector in (0x41, 0x52):
        m.lapic_ack(vcpu.v.lapic, vector)
    if value or not x2apic:
        with pytest.raises(Fault) as fault:
            wrmsr(vcpu, 0x80b, value)
        assert fault.value.args == (GP, 0, None)
        assert m.lapic_priority(vcpu.v.lapic) == 0x50
    else:
        assert wrmsr(vcpu, 0x80b, value) == "skip"
        assert m.lapic_priority(vcpu.v.lapic) == 0x40


def test_a_device_s_msr(m):
    vcpu = Vcpu(m)
    vcpu.device(m.BUS_MSR, 0x800, 0x8ff, 0x1122334455667788)
    vcpu.v.gpr[RCX] = 0x802 | 1 << 40
    assert vcpu.run("exit_rdmsr") == "skip"
    assert (vcpu.v.gpr[RAX], vcpu.v.gpr[RDX]) == (0x55667788, 0x11223344)
    assert wrmsr(vcpu, 0x80b, 0x123456789abcdef0) == "skip"
    assert vcpu.log == [(0x802, 8, None), (0x80b, 8, 0x123456789abcdef0)]


# --- Ports ---------------------------------------------------------------

IN, STRING, REP = 1 << 3, 1 << 4, 1 << 5


def port_io(port, size, flags=0):
    return port << 16 | flags | size - 1


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("port", [0, 0x60, 0xfffe])
def test_in_and_out(m, size, port):
    mask = (1 << 8 * size) - 1
    vcpu = Vcpu(m)
    vcpu.device(m.BUS_PORT, 0, 0xffff, 0x1122334455667788)
    vcpu.v.gpr[RAX] = 0xfedcba9876543210
    assert vcpu.run("exit_io", port_io(port, size)) == "skip"
    assert vcpu.v.gpr[RAX] == 0xfedcba9876543210
    assert vcpu.run("exit_io", port_io(port, size, IN)) == "skip"
    assert vcpu.log == [(port, size, 0x76543210 & mask), (port, size, None)]
    # 32 bits clear the upper half, fewer leave all else (SDM vol 1, 3.4.1.1).
    kept = 0 if size == 4 else 0xfedcba9876543210 & ~mask
    assert vcpu.v.gpr[RAX] == kept | 0x55667788 & mask


def test_a_port_that_nobody_has(m):
    vcpu = Vcpu(m)
    vcpu.v.gpr[RAX] = 0x1234
    assert vcpu.run("exit_io", port_io(0x80, 1)) == "skip"
    assert vcpu.run("exit_io", port_io(0x80, 1, IN)) == "skip"
    assert vcpu.v.gpr[RAX] == 0x12ff


DIRECTORY, TABLE = 0x4000, 0x5000
P, W, US = 1, 2, 4


def paging32(vcpu, missing=(), read_only=()):
    """The first 4 MiB, 1:1, but for pages that are missing or read-only."""
    entries = [n * PAGE | P | W | US for n in range(1024)]
    for n in missing:
        entries[n] = 0
    for n in read_only:
        entries[n] &= ~W
    vcpu.poke(DIRECTORY, (TABLE | P | W | US).to_bytes(4, "little"))
    vcpu.poke(TABLE, b"".join(e.to_bytes(4, "little") for e in entries))
    return {"GUEST_CR0": PE | PG | NE | WP, "GUEST_CR3": DIRECTORY}


def with_paging(m, missing=(), read_only=(), **state):
    vcpu = Vcpu(m).clean()
    state = {**paging32(vcpu, missing, read_only), **state}
    return Vcpu(m, **state)


class Element:
    """INS or OUTS by the book (SDM vol 2), one element at a time."""

    def __init__(self, vcpu, size, is_in, rep, bits, base, down, faults):
        self.vcpu, self.size, self.is_in, self.rep = vcpu, size, is_in, rep
        self.mask, self.base = (1 << bits) - 1, base
        self.delta = -size if down else size
        self.faults = faults        # pages, of this access
        self.index = RDI if is_in else RSI
        self.regs = list(vcpu.v.gpr[0:16])
        self.memory = bytearray(vcpu.guest.read(0, 0xc0000))
        self.log = []

    def add(self, reg, by):
        old = self.regs[reg]
        new = old + by & self.mask
        self.regs[reg] = old & ~self.mask | new if self.mask == 0xffff else new

    def run(self, answers):
        """The CR2 of a fault, or None."""
        while not self.rep or self.regs[RCX] & self.mask:
            at = self.base + (self.regs[self.index] & self.mask)
            for byte in range(at, at + self.size):
                if byte // PAGE in self.faults:
                    return byte
            if self.is_in:
                value = next(answers)
                self.memory[at:at + self.size] = value.to_bytes(
                    self.size, "little")
                self.log.append((0x1f0, self.size, None))
            else:
                self.log.append((0x1f0, self.size, int.from_bytes(
                    self.memory[at:at + self.size], "little")))
            self.add(self.index, self.delta)
            if not self.rep:
                break
            self.add(RCX, -1)
        return None


@settings(max_examples=250, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 4]), st.booleans(), st.booleans(),
       st.sampled_from([16, 32]), st.booleans(), st.integers(0, 700),
       st.sampled_from([0, 0x10000]), st.sets(st.integers(0x20, 0x23)))
def test_string_io(m, data, size, is_in, rep, bits, down, count, base, bad):
    """Until the instruction is over, or a page is not there: then memory,
    registers and what the device saw are as after the elements so far."""
    read_only = bad if data.draw(st.booleans()) else set()
    start = data.draw(st.integers(0x20000 - 40, 0x24000))
    vcpu = with_paging(m, bad - read_only, read_only,
                       GUEST_RFLAGS=2 | (DF if down else 0))
    content = data.draw(st.binary(min_size=16, max_size=16))
    vcpu.poke(0x1e000, content * 0x800)
    junk = 0xabcd << 32 if bits == 32 else 0xabcd1234 << 16
    answers = [n * 0x01030507 & (1 << 8 * size) - 1 for n in range(1, 2000)]
    if bits == 16:
        # DS or ES of a 16-bit segment; the offset may wrap.
        base, start = 0x20000 - 0x8000, start - 0x20000 + 0x8000 & 0xffff
    else:
        start -= base
    index = RDI if is_in else RSI
    vcpu.v.gpr[index], vcpu.v.gpr[RCX] = junk | start, junk | count
    faults = bad if is_in or not read_only else set()
    book = Element(vcpu, size, is_in, rep, bits, base, down, faults)
    fault = book.run(iter(answers))
    given_out = iter(answers)
    vcpu.device(m.BUS_PORT, 0x1f0, 0x1f0, lambda _a: next(given_out))
    outcome, rounds = "resume", 0
    while outcome == "resume":
        vcpu.cpu.write(m.VMCS_GUEST_LINEAR,
                       base + (vcpu.v.gpr[index] & (1 << bits) - 1))
        vcpu.cpu.write(m.VMCS_EXIT_INSTRUCTION,
                       {16: 0, 32: 1}[bits] << 7)
        seen = len(vcpu.log)
        try:
            outcome = vcpu.run("exit_io", port_io(
                0x1f0, size, STRING | (IN if is_in else 0) |
                (REP if rep else 0)))
        except Fault as got:
            outcome = got
        # Events come through between bursts, and each makes headway.
        assert len(vcpu.log) - seen <= 512
        assert outcome != "resume" or len(vcpu.log) > seen
        rounds += 1
    if fault is None:
        assert outcome == "skip"
    else:
        error = (P if read_only else 0) | (W if is_in else 0)
        assert isinstance(outcome, Fault)
        assert outcome.args == (PF, error, fault)
    assert list(vcpu.v.gpr[0:16]) == book.regs
    assert vcpu.log == book.log
    assert vcpu.guest.read(0x1e000, 0x12000) == book.memory[0x1e000:0x30000]


def test_string_io_in_64_bits(m):
    """The index is 64 bits wide; RCX counts with all of them."""
    vcpu = long_mode(m)
    vcpu.device(m.BUS_PORT, 0x3f8, 0x3f8)
    vcpu.poke(0x30000, b"Monocle")
    vcpu.v.gpr[RSI], vcpu.v.gpr[RCX] = 0x30000, 7
    vcpu.cpu.write(m.VMCS_GUEST_LINEAR, 0x30000)
    vcpu.cpu.write(m.VMCS_EXIT_INSTRUCTION, 2 << 7)
    assert vcpu.run("exit_io", port_io(0x3f8, 1, STRING | REP)) == "skip"
    assert bytes(value for *_, value in vcpu.log) == b"Monocle"
    assert (vcpu.v.gpr[RSI], vcpu.v.gpr[RCX]) == (0x30007, 0)


def test_string_io_walks_once_a_page(m):
    """Not once an element, or a firmware that reads its files so is slow."""
    vcpu = long_mode(m)
    vcpu.device(m.BUS_PORT, 0x511, 0x511)
    vcpu.v.gpr[RDI], vcpu.v.gpr[RCX] = 0x30fc0, 128
    vcpu.cpu.write(m.VMCS_GUEST_LINEAR, 0x30fc0)
    vcpu.cpu.write(m.VMCS_EXIT_INSTRUCTION, 2 << 7)
    m.lib.vmcs_reads = 0
    vcpu.run("exit_io", port_io(0x511, 1, STRING | REP | IN))
    assert len(vcpu.log) == 128 and m.vmcs_reads < 128


@pytest.mark.parametrize("blocking", [1, 2, 8, 9])
def test_events_come_through_a_repeated_string_after_sti(m, blocking):
    """STI and MOV SS hold them back for one element, not for all of it."""
    vcpu = long_mode(m, GUEST_INTERRUPTIBILITY=blocking)
    vcpu.device(m.BUS_PORT, 0x3f8, 0x3f8)
    vcpu.v.gpr[RSI], vcpu.v.gpr[RCX] = 0x30000, 10000
    vcpu.cpu.write(m.VMCS_GUEST_LINEAR, 0x30000)
    vcpu.cpu.write(m.VMCS_EXIT_INSTRUCTION, 2 << 7)
    assert vcpu.run("exit_io", port_io(0x3f8, 1, STRING | REP)) == "resume"
    assert vcpu["GUEST_INTERRUPTIBILITY"] == blocking & 8      # by NMI


@pytest.mark.parametrize("wide", [False, True])
def test_string_io_above_4_gib(m, wide):
    """In compatibility mode a linear address has 32 bits: a segment's base
    and an index wrap."""
    vcpu = long_mode(m)
    vcpu.cpu.write(m.VMCS_GUEST_CS_RIGHTS, CS64 if wide else CS32)
    vcpu.device(m.BUS_PORT, 0x3f8, 0x3f8)
    vcpu.poke(0, b"3")
    vcpu.v.gpr[RSI], vcpu.v.gpr[RCX] = 0x10, 1
    vcpu.cpu.write(m.VMCS_GUEST_LINEAR, 2**32)
    vcpu.cpu.write(m.VMCS_EXIT_INSTRUCTION, 1 << 7)
    io = port_io(0x3f8, 1, STRING | REP)
    if wide:            # page tables end at 4 GiB
        with pytest.raises(Fault) as fault:
            vcpu.run("exit_io", io)
        assert fault.value.args == (PF, 0, 2**32)
    else:
        assert vcpu.run("exit_io", io) == "skip"
        assert vcpu.log == [(0x3f8, 1, 0x33)]


@pytest.mark.parametrize("at, read", [
    (0xfec00010, [0x44332211, 0x88776655]), (0xd0000000, [2**32 - 1] * 2)],
    ids=["a device's", "nobody's"])
@pytest.mark.parametrize("is_in", [False, True])
def test_string_io_where_there_is_no_memory(m, at, read, is_in):
    """A device's registers, an element each; else ones, and writes go nowhere."""
    vcpu, words = Vcpu(m, EXIT_INSTRUCTION=1 << 7, GUEST_LINEAR=at,
                       GUEST_PHYSICAL=0xbad000), iter([0x1111, 0x2222])
    registers = iter([0x44332211, 0x88776655])
    vcpu.device(m.BUS_PORT, 0x3f8, 0x3f8, lambda a: next(words))
    vcpu.device(m.BUS_MMIO, 0xfec00000, 0xfec00fff, lambda a: next(registers))
    vcpu.v.gpr[RSI] = vcpu.v.gpr[RDI] = at
    vcpu.v.gpr[RCX], vcpu.v.reason = 2, m.EXIT_IO
    assert vcpu.run("exit_io", port_io(
        0x3f8, 4, STRING | REP | (IN if is_in else 0))) == "skip"
    assert vcpu.v.gpr[RDI if is_in else RSI] == at + 8
    ports = [(size, value) for port, size, value in vcpu.log if port == 0x3f8]
    assert ports == [(4, None if is_in else word) for word in read]
    there = [row for row in vcpu.log if row[0] != 0x3f8]
    assert there == ([(at + 4 * n, 4, [0x1111, 0x2222][n] if is_in else None)
                      for n in range(2)] if at == 0xfec00010 else [])


# --- Device memory -------------------------------------------------------

PML4, PDPT = 0x6000, 0x7000
IOAPIC, NOBODY = 0xfec00000, 0xd0000000
TRAPPED = 1 << 7 | 1 << 8       # linear address valid, not a table walk
CODE = 0x8000


def long_mode(m, **state):
    """64-bit code; the first 4 GiB are mapped 1:1 with 1 GiB pages."""
    vcpu = Vcpu(m, GUEST_EFER=LME | LMA, GUEST_CR0=PE | PG | NE | WP,
                GUEST_CR4=VMXE | PAE, GUEST_CR3=PML4, GUEST_CS_RIGHTS=CS64,
                ENTRY_CONTROLS=ENTRY | IA32E, **state).clean()
    vcpu.poke(PML4, (PDPT | P | W).to_bytes(8, "little"))
    vcpu.poke(PDPT, b"".join((n << 30 | P | W | 0x80).to_bytes(8, "little")
                             for n in range(4)))
    return vcpu


def trap(vcpu, code, at, gpa=None, qualification=TRAPPED | 1):
    vcpu.poke(CODE, code)
    vcpu.cpu.write(vcpu.m.VMCS_GUEST_RIP, CODE)
    vcpu.cpu.write(vcpu.m.VMCS_GUEST_LINEAR, at)
    vcpu.cpu.write(vcpu.m.VMCS_GUEST_PHYSICAL, at if gpa is None else gpa)
    return vcpu.run("exit_ept_violation", qualification)


def test_loads_and_stores(m):
    vcpu = long_mode(m, GUEST_INTERRUPTIBILITY=3)
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff, 0x1122334455667788)
    vcpu.v.gpr[RBX], vcpu.v.gpr[RAX] = IOAPIC, U64
    assert trap(vcpu, b"\x8b\x43\x10", IOAPIC + 16) == "resume"  # mov
    assert vcpu.v.gpr[RAX] == 0x55667788 and vcpu["GUEST_RIP"] == CODE + 3
    assert vcpu["GUEST_INTERRUPTIBILITY"] == 0, "blocking ends"
    assert trap(vcpu, b"\x48\x8b\x03", IOAPIC) == "resume"       # rax
    assert vcpu.v.gpr[RAX] == 0x1122334455667788
    assert trap(vcpu, b"\x0f\xb6\x0b", IOAPIC) == "resume"       # movzx
    assert vcpu.v.gpr[RCX] == 0x88
    assert trap(vcpu, b"\xc7\x03\x78\x56\x34\x12", IOAPIC) == "resume"
    assert trap(vcpu, b"\x66\x89\x03", IOAPIC) == "resume"
    assert vcpu["GUEST_RIP"] == CODE + 3
    assert vcpu.log == [
        (IOAPIC + 16, 4, None), (IOAPIC, 8, None), (IOAPIC, 1, None),
        (IOAPIC, 4, 0x12345678), (IOAPIC, 2, 0x7788)]


def test_read_modify_write(m):
    vcpu = long_mode(m)
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff, 0x80)
    vcpu.v.gpr[RBX] = IOAPIC
    assert trap(vcpu, b"\x83\x0b\x01", IOAPIC) == "resume"   # or dword, 1
    assert vcpu.log == [(IOAPIC, 4, None), (IOAPIC, 4, 0x81)]


def test_nobody_answers(m):
    vcpu = long_mode(m)
    vcpu.v.gpr[RBX], vcpu.v.gpr[RAX] = NOBODY, 0
    assert trap(vcpu, b"\x8b\x03", NOBODY) == "resume"
    assert vcpu.v.gpr[RAX] == U32
    assert trap(vcpu, b"\x89\x03", NOBODY) == "resume"


def test_the_stack_pointer_is_the_vmcs_s(m):
    vcpu = long_mode(m, GUEST_RSP=0x30000)
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff, 0x1234)
    vcpu.v.gpr[RSP] = 0xdead
    vcpu.v.gpr[RBX] = IOAPIC
    assert trap(vcpu, b"\x89\x23", IOAPIC) == "resume"       # mov [rbx], esp
    assert trap(vcpu, b"\x8b\x23", IOAPIC) == "resume"       # mov esp, [rbx]
    assert vcpu.log[0] == (IOAPIC, 4, 0x30000)
    assert vcpu["GUEST_RSP"] == 0x1234


def test_a_write_to_rom_is_dropped(m):
    vcpu = long_mode(m)
    vcpu.device(m.BUS_MMIO, 0, 0xfffff)
    vcpu.v.gpr[RBX] = 0xc0010
    assert trap(vcpu, b"\xc6\x03\x55", 0xc0010, qualification=TRAPPED | 2) \
        == "resume"
    assert vcpu["GUEST_RIP"] == CODE + 3
    assert vcpu.guest.read(0xc0010, 1) == b"\0" and vcpu.log == []
    # A read-modify-write of it reads the ROM.
    vcpu.poke(0xc0010, b"\x7f")
    assert trap(vcpu, b"\x80\x03\x01", 0xc0010) == "resume"   # add byte, 1
    assert vcpu["GUEST_RFLAGS"] & 0x800, "0x7f + 1 overflows"
    assert vcpu.guest.read(0xc0010, 1) == b"\x7f"


@pytest.mark.parametrize("kind", ["RAM", "ROM", "DEVICE"])
def test_a_closed_window_is_nobodys(m, kind):
    """igd=closed: all ones, and writes are dropped, whatever will be there;
    its memory is neither read nor written by Monocle."""
    rows = [guestram.Row(0, 0xa0000), guestram.Row(
        0xc0000, 0x10000, kind, "RESERVED", "window")]
    vcpu = Vcpu(m, rows)
    for r in vcpu.vm.map.regions[0:vcpu.vm.map.count]:
        r.cpu = 0 if r.gpa else r.cpu
    vcpu.poke(0xc0010, bytes(range(1, 9)))
    vcpu.v.gpr[RBX], vcpu.v.gpr[RAX] = 0xc0010, 0
    assert trap(vcpu, b"\x8b\x03", 0xc0010) == "resume"       # mov
    assert vcpu.v.gpr[RAX] == U32
    vcpu.v.gpr[RAX] = 0
    assert trap(vcpu, b"\x89\x03", 0xc0010) == "resume"
    assert vcpu.guest.read(0xc0010, 8) == bytes(range(1, 9))


def test_movs_between_device_and_memory(m):
    """From the device, to it, and from one register to another."""
    vcpu = long_mode(m)
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff,
                lambda a: a.addr - IOAPIC + 0x11)
    vcpu.v.gpr[RSI], vcpu.v.gpr[RDI] = IOAPIC, 0x30000
    assert trap(vcpu, b"\xa5", IOAPIC) == "resume"            # movsd
    assert vcpu.guest.number(0x30000) == 0x11
    assert (vcpu.v.gpr[RSI], vcpu.v.gpr[RDI]) == (IOAPIC + 4, 0x30004)
    vcpu.v.gpr[RSI], vcpu.v.gpr[RDI] = 0x30000, IOAPIC + 8
    assert trap(vcpu, b"\xa5", IOAPIC + 8) == "resume"
    vcpu.v.gpr[RSI], vcpu.v.gpr[RDI] = IOAPIC + 16, IOAPIC + 32
    assert trap(vcpu, b"\xa5", IOAPIC + 16) == "resume"
    assert vcpu.log == [
        (IOAPIC, 4, None), (IOAPIC + 8, 4, 0x11), (IOAPIC + 16, 4, None),
        (IOAPIC + 32, 4, 0x21)]


def test_a_repeated_store_is_one_element_each_exit(m):
    vcpu = long_mode(m)
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff)
    vcpu.v.gpr[RDI], vcpu.v.gpr[RCX], vcpu.v.gpr[RAX] = IOAPIC, 3, 0x77
    for n in range(3):
        assert trap(vcpu, b"\xf3\xab", IOAPIC + 4 * n) == "resume"
        assert vcpu["GUEST_RIP"] == (CODE if n < 2 else CODE + 2)
    assert vcpu.log == [(IOAPIC + 4 * n, 4, 0x77) for n in range(3)]
    assert vcpu.v.gpr[RCX] == 0


def test_the_other_operand_faults(m):
    """The guest gets its page fault and nothing has happened; a device that
    was read before it will be read again."""
    vcpu = with_paging(m, missing=[0x30], read_only=[0x31],
                       GUEST_CS_RIGHTS=CS32)
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff, 0x55)
    # The last page of what the tables map stands for the device.
    device = 0x3ff000
    for source, target, cr2, error in (
            (device, 0x30000, 0x30000, W), (device, 0x31ffe, 0x31ffe, P | W),
            (0x30ffc, device, 0x30ffc, 0)):
        vcpu.v.gpr[RSI], vcpu.v.gpr[RDI] = source, target
        with pytest.raises(Fault) as fault:
            trap(vcpu, b"\xa5", device, IOAPIC)
        assert fault.value.args == (PF, error, cr2)
        assert vcpu["GUEST_RIP"] == CODE
        assert (vcpu.v.gpr[RSI], vcpu.v.gpr[RDI]) == (source, target)
    assert all(value is None for *_, value in vcpu.log)


def test_16_bit_code(m):
    """CS has a base, the data segment as well; IP is 16 bits."""
    vcpu = Vcpu(m, GUEST_CS_RIGHTS=CS16, GUEST_CS_BASE=0x7000).clean()
    vcpu.cpu.write(m.VMCS_GUEST_ES_BASE + 6, IOAPIC)     # DS
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff, 0x99)
    vcpu.poke(CODE, b"\x8a\x07")                         # mov al, [bx]
    vcpu.v.gpr[RBX] = 0x12345678
    vcpu.cpu.write(m.VMCS_GUEST_RIP, CODE - 0x7000)
    vcpu.cpu.write(m.VMCS_GUEST_LINEAR, IOAPIC + 0x5678)
    vcpu.cpu.write(m.VMCS_GUEST_PHYSICAL, IOAPIC + 0x678)
    assert vcpu.run("exit_ept_violation", TRAPPED | 1) == "resume"
    assert vcpu.log == [(IOAPIC + 0x678, 1, None)]
    assert vcpu["GUEST_RIP"] == CODE - 0x7000 + 2


def test_single_step_ends_behind_the_instruction(m):
    """SDM 27.7.3: with RFLAGS.TF, BS is pending after it."""
    vcpu = long_mode(m, GUEST_RFLAGS=2 | TF)
    vcpu.v.gpr[RBX] = NOBODY
    assert trap(vcpu, b"\x8b\x03", NOBODY) == "resume"
    assert vcpu["GUEST_PENDING_DEBUG"] == 1 << 14


@pytest.mark.parametrize("qualification", [
    TRAPPED | 1 << 2, 1, 1 << 7 | 1, 1 << 8 | 1])
def test_what_no_load_or_store_caused_stops(m, qualification):
    """A fetch from a device, a walk through one, no linear address."""
    vcpu = long_mode(m)
    vcpu.v.gpr[RBX] = NOBODY
    assert trap(vcpu, b"\x8b\x03", NOBODY, qualification=qualification) == \
        "stop"
    assert vcpu["GUEST_RIP"] == CODE


def test_an_event_delivered_into_a_device_stops(m):
    """Its stack frame trapped, not the instruction at RIP."""
    vcpu = long_mode(m)
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff)
    vcpu.v.gpr[RBX] = IOAPIC
    vcpu.poke(CODE, b"\x8b\x03")
    for name, value in (("RIP", CODE), ("LINEAR", IOAPIC),
                        ("PHYSICAL", IOAPIC)):
        vcpu.cpu.write(getattr(m, f"VMCS_GUEST_{name}"), value)
    vcpu.v.qualification = TRAPPED | 2
    vcpu.v.injection.info = 1 << 31 | 0x41
    assert m.exit_ept_violation(vcpu.v) == m.EXIT_STOP
    assert vcpu.log == [] and vcpu["GUEST_RIP"] == CODE


@pytest.mark.parametrize("code", [
    b"\x0f\x28\x03", b"\xc5\xf8\x10\x03", b"\x0f\x0b", b"\xff\x33"],
    ids=["movaps", "vmovups", "ud2", "push"])
def test_what_is_not_decoded_stops(m, code):
    vcpu = long_mode(m)
    vcpu.v.gpr[RBX] = IOAPIC
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff)
    before = list(vcpu.v.gpr[0:4])
    assert trap(vcpu, code, IOAPIC) == "stop"
    assert list(vcpu.v.gpr[0:4]) == before and vcpu.log == []


def test_no_instruction_at_rip_stops(m):
    vcpu = long_mode(m)
    vcpu.cpu.write(m.VMCS_GUEST_RIP, NOBODY)
    assert vcpu.run("exit_ept_violation", TRAPPED | 1) == "stop"


# --- Hypercalls ----------------------------------------------------------

USER, KERNEL = 0xc0f3, 0xc093
BUFFER, GONE, LOCKED = 0x20000, 0x30, 0x31  # the latter two: pages


class Caller:
    """A program that asks Monocle: its pages GONE and LOCKED it cannot
    write; around BUFFER lie zeros."""

    def __init__(self, m, rights=USER):
        self.m = m
        self.vcpu = with_paging(m, {GONE}, {LOCKED}, GUEST_SS_RIGHTS=rights)
        self.v = self.vcpu.v
        m.lib.opened_count = m.lib.open_error = 0

    def call(self, number, rbx=0, rcx=0, rdx=0):
        """RAX as a signed number, and RDX."""
        g = self.v.gpr
        for n in range(16):
            g[n] = 0x1111 * n
        g[RAX], g[RBX] = self.m.HYPERCALL_BASE + number & U64, rbx
        g[RCX], g[RDX] = rcx, rdx
        before = list(g)
        action = self.vcpu.run("exit_hypercall")
        assert action == "skip"
        assert [g[n] for n in range(16) if n not in (RAX, RDX)] == [
            before[n] for n in range(16) if n not in (RAX, RDX)]
        result = g[RAX] - (g[RAX] >> 63 << 64)
        return result, g[RDX]

    def memory(self, size, at=BUFFER):
        return self.vcpu.guest.read(at, size)


@pytest.fixture
def caller(m):
    return Caller(m)


def test_the_abi_s_version(m, caller):
    assert caller.call(0) == (3, 0)


@pytest.mark.parametrize("number", [7, 99, 0x100, 0xffff, 2**64 - 1])
def test_a_call_that_is_not_there(m, caller, number):
    assert caller.call(number) == (-38, 0)
    assert caller.vcpu.vm.request == m.VM_RUN


@pytest.mark.parametrize("call, n", [(1, 7), (6, 0), (6, 1)])
@pytest.mark.parametrize("size", [0, 8, 1000, 4096, 5000, 2**64 - 1])
def test_statistics(m, caller, size, call, n):
    """The sum, and each vCPU's: as much of the record as fits, and not a byte
    of what lies behind."""
    other = m.new("struct vcpu *", {"cpuid": {"apic_id": 0x106}})
    vm = caller.vcpu.vm
    vm.vcpus[0], vm.vcpus[1], vm.vcpu_count = caller.v, other, 2
    for stats, exits in ((caller.v.stats, 77), (other.stats, 1000)):
        stats.tsc_hz, stats.start = 10**9, 5
        stats.reasons[75].ticks = 2**62
        stats.reasons[10].count = exits - 1
        stats.reasons[30].count, stats.reasons[30].ticks = 1, exits
    vm.lock.spins, vm.longest_hold = 4, 99
    m.tsc = 12345
    sum_ = m.new("struct stats *", {
        "tsc_hz": 10**9, "start": 5, "now": 12345, "exits": 1077,
        "ticks": 2**63 + 1077, "vcpus": 2, "spins": 4, "longest_hold": 99})
    sum_.reasons[75].ticks, sum_.reasons[10].count = 2**63, 1075
    sum_.reasons[30].count, sum_.reasons[30].ticks = 2, 1077
    whole = m.ffi.sizeof("struct stats")
    rdx, record = (n, sum_) if call == 1 else (
        (caller.v.cpuid.apic_id, m.ffi.addressof(caller.v.stats)),
        (0x106, m.ffi.addressof(other.stats)))[n]
    assert caller.call(call, BUFFER, size, n) == (min(size, whole), rdx)
    assert record.now == 12345
    exits = 1077 if call == 1 else (77, 1000)[n]
    assert (record.exits, record.ticks) == (
        exits, 2**(63 if call == 1 else 62) + exits)
    expected = bytes(m.ffi.buffer(record))[:size]
    assert caller.memory(8192) == expected.ljust(8192, b"\0")
    for n in (2, 2**64 - 1):
        assert caller.call(6, BUFFER, 64, n) == (-22, n)


@pytest.mark.parametrize("number, args", [
    (1, (0x30000, 8)), (1, (0x2fff8, 64)), (1, (0x31000, 8)),
    (2, (0x30000, 8)), (3, (10, 0x30000, 64)), (5, (0x30000, 4096))])
def test_a_buffer_that_is_not_there(m, caller, number, args):
    """The caller's page fault; RIP and its registers stand, so that the
    call is made again."""
    give_devices(caller, 2)
    caller.v.reason = m.EXIT_IO
    with pytest.raises(Fault) as fault:
        caller.call(number, *args)
    vector, error, cr2 = fault.value.args
    assert vector == PF and cr2 & ~0xfff in (0x30000, 0x31000)
    assert error == (7 if cr2 >> 12 == LOCKED else 6)   # a user's write
    g = caller.v.gpr
    assert g[RAX] == m.HYPERCALL_BASE + number
    assert [g[RBX], g[RCX]] == list(args[:2])
    assert number != 2 or g[RDX] == 0


def test_a_buffer_that_is_no_memory(m, caller):
    for number, args in ((1, (0xc0000, 8)), (2, (0xc0000, 8)),
                         (3, (10, 0xc0000, 8)), (5, (0xc0000, 4096))):
        caller.v.reason = m.EXIT_IO
        give_devices(caller, 1)
        result, rdx = caller.call(number, *args)
        assert result == -14, number


def test_the_log_is_not_for_everybody(m, caller):
    """It has the host's addresses. Who reaches the port was let."""
    assert caller.call(2, BUFFER, 64) == (-1, 0)
    assert caller.memory(64) == bytes(64)
    caller.v.reason = m.EXIT_IO
    assert caller.call(2, BUFFER, 64) == (64, 164)


def test_a_hypercall_by_port(m):
    """OUT of 32 bits, with all of the base in RAX; RAX is the result then."""
    v = Caller(m).vcpu
    port = m.HYPERCALL_PORT << 16

    def out(value, size=4):
        v.v.gpr[RAX], v.v.reason = value, m.EXIT_IO
        assert v.run("exit_io", port | size - 1) == "skip"
        return v.v.gpr[RAX]
    call = m.HYPERCALL_BASE
    assert out(call) == 3
    for value, size in ((call, 2), (call, 1), (0, 4), (3, 4),
                        (1 << 32 | call, 4), (call - 1, 4)):
        assert out(value, size) == value


def test_the_log(m):
    """In pieces, each from where the last one ended, until there is none."""
    caller = Caller(m, KERNEL)
    text, position = b"", 0
    while True:
        size, position = caller.call(2, BUFFER, 5000, position)
        if not size:
            break
        text += caller.memory(size)
    assert text == bytes(n & 0xff for n in range(100, 1000))
    assert position == 1000
    assert caller.call(2, BUFFER, 3, 200) == (3, 203)
    assert caller.call(2, BUFFER, 0, 200) == (0, 200)
    assert caller.call(2, BUFFER, 8, 2**64 - 1)[0] == 0


def test_names_of_exit_reasons(m, caller):
    for reason, size, name in ((10, 64, b"CPUID"), (10, 3, b"CPU"),
                               (10, 0, b""), (69, 64, None)):
        got, _ = caller.call(3, reason, BUFFER, size)
        name = name if name is not None else m.string(
            m.exit_reason_name(reason)).encode()
        assert caller.memory(got) == name and caller.memory(
            1, BUFFER + got) == b"\0"
        caller.vcpu.poke(BUFFER, bytes(64))
    assert caller.call(3, 76, BUFFER, 64)[0] == -22
    assert caller.call(3, 2**32 + 10, BUFFER, 64)[0] == -22
    for reason in 51, m.STATS_REASONS, 0xffff, 2**32 - 1:
        assert m.string(m.exit_reason_name(reason)) == "unknown"


def test_a_dump_has_all_that_it_names(m):
    """Each value at its name, as wide as it is."""
    vcpu = Vcpu(m)
    lines = {
        "rip %016x rflags %08x": ("GUEST_RIP", "GUEST_RFLAGS"),
        "guest-physical %016x linear %016x vectoring 0x%x": (
            "GUEST_PHYSICAL", "GUEST_LINEAR", "IDT_VECTORING"),
        "interruptibility %x activity %x pending debug %x": (
            "GUEST_INTERRUPTIBILITY", "GUEST_ACTIVITY",
            "GUEST_PENDING_DEBUG"),
        "gdtr %016x limit %04x idtr %016x limit %04x": (
            "GUEST_GDTR_BASE", "GUEST_GDTR_LIMIT", "GUEST_IDTR_BASE",
            "GUEST_IDTR_LIMIT"),
        "host rip %016x rsp %016x cr0 %x cr3 %x cr4 %x efer %x gs %x": tuple(
            f"HOST_{n}" for n in ("RIP", "RSP", "CR0", "CR3", "CR4", "EFER",
                                  "GS_BASE")),
        "controls pin %x cpu %x/%x exit %x entry %x inject %x": (
            "PIN_CONTROLS", "CPU_CONTROLS", "CPU_CONTROLS2", "EXIT_CONTROLS",
            "ENTRY_CONTROLS", "ENTRY_INTERRUPTION")}
    value, expected = 0x10001, ["exit reason 0xa (CPUID), qualification 0x77"]
    for text, names in lines.items():
        values = range(value, value + len(names))
        value = values.stop
        for name, number in zip(names, values):
            vcpu.cpu.write(getattr(m, f"VMCS_{name}"), number)
        expected.append(text % tuple(values))
    for n, name in enumerate("es cs ss ds fs gs ldtr tr".split()):
        parts = ["", "_BASE", "_LIMIT", "_RIGHTS"]
        for k, part in enumerate(parts):
            vcpu.cpu.write(getattr(m, f"VMCS_GUEST_ES{part}") + 2 * n,
                           0x1100 + 16 * n + k)
        expected.append("%-4s %04x base %016x limit %08x rights %05x" % (
            name, *(0x1100 + 16 * n + k for k in range(4))))
    for n in range(16):
        m.vcpu_set_gpr(vcpu.v, n, 0xabc0000 + n)
    names = "rax rcx rdx rbx rsp rbp rsi rdi r8  r9  r10 r11 r12 r13 r14 r15"
    for n in range(0, 16, 4):
        expected.append(" ".join(
            f"{names[4 * k:4 * k + 3]} {0xabc0000 + k:016x}"
            for k in range(n, n + 4)))
    for n, name in enumerate(("CR0", "CR3", "CR4", "EFER")):
        vcpu.cpu.write(getattr(m, f"VMCS_GUEST_{name}"), 0x20 + n)
    m.fake_cr[2] = 0x55
    expected += ["cr0 %016x cr2 %016x cr3 %016x cr4 %016x efer %x" % (
        0x20, 0x55, 0x21, 0x22, 0x23), "code at rip: " + "90 " * 15]
    rip = vcpu["GUEST_RIP"]
    vcpu.poke(vcpu.cpu.read(m.VMCS_GUEST_ES_BASE + 2) + rip, b"\x90" * 15)
    vcpu.v.reason, vcpu.v.qualification = 10, 0x77
    m.vcpu_dump(vcpu.v)
    said = m.log_text()
    assert [line for line in expected if line not in said] == []


def give_devices(caller, count):
    m = caller.m

    def one(ctx, n, out):
        out.bdf, out.config, out.storms = n << 3, n * 10, n
        return n < count
    caller.vcpu.vm.device_stats = m.callback(
        "bool(*)(void *, unsigned, struct device_stats *)", one, False)


@pytest.mark.parametrize("count, size, fit", [
    (0, 4096, 0), (2, 4096, 2), (2, 55, 0), (2, 56, 1), (3, 167, 2),
    (100, 4096, 73), (100, 2**40, 73)])
def test_assigned_functions(m, caller, count, size, fit):
    """Whole records, at most 4096 bytes of them."""
    one = m.ffi.sizeof("struct device_stats")
    assert one == 56
    give_devices(caller, count)
    assert caller.call(5, BUFFER, size) == (fit * one, one)
    for n in range(fit):
        got = m.ffi.from_buffer("struct device_stats *",
                                bytearray(caller.memory(one, BUFFER + n * one)))
        assert (got.bdf, got.config, got.storms) == (n << 3, n * 10, n)
    assert caller.memory(one, BUFFER + fit * one) == bytes(one)


def test_no_assigned_functions(m, caller):
    assert caller.call(5, BUFFER, 4096) == (0, 56)


def runs(*pairs):
    return b"".join(n.to_bytes(8, "little") for pair in pairs for n in pair)


@pytest.mark.parametrize("error", [0, "EINVAL", "ENOSPC"])
def test_identity_map(m, error):
    """Of ring 0 alone, 1 to 32 runs; what becomes of them is the answer."""
    caller = Caller(m, KERNEL)
    m.lib.open_error = -getattr(m, error) if error else 0
    wanted = [(0xa0000, 32), (0xc0000, 1)] * 16
    caller.vcpu.poke(BUFFER, runs(*wanted))
    for count in (1, 32):
        assert caller.call(4, BUFFER, count)[0] == m.open_error
        assert [(r.gpa, r.pages) for r in m.opened[0:m.opened_count]] == \
            wanted[:count]
    m.lib.opened_count = 0
    for count in (0, 33, 2**60 + 1, 2**64 - 1):
        assert caller.call(4, BUFFER, count)[0] == -22
    assert m.opened_count == 0


def test_identity_map_is_ring_0_s(m):
    for dpl in (1, 2, 3):
        caller = Caller(m, KERNEL | dpl << 5)
        caller.vcpu.poke(BUFFER, runs((0xa0000, 32)))
        assert caller.call(4, BUFFER, 1)[0] == -1
        assert m.opened_count == 0


def test_an_identity_map_s_list_that_is_not_there(m):
    caller = Caller(m, KERNEL)
    with pytest.raises(Fault) as fault:
        caller.call(4, GONE * PAGE - 16, 2)
    assert fault.value.args == (PF, 0, GONE * PAGE)
    assert m.opened_count == 0


@pytest.mark.parametrize("runs_rom", [False, True])
def test_the_video_bios_s_end(m, caller, runs_rom):
    """No guest's call: only while Monocle runs the ROM for it."""
    caller.vcpu.vm.rom_runs = runs_rom
    result, _ = caller.call(0x100)
    assert result == (0 if runs_rom else -38)
    assert caller.vcpu.vm.request == (m.VM_ROM_DONE if runs_rom else m.VM_RUN)

# --- Decoded once ----------------------------------------------------------

OTHER = 0x30000                 # code that stores, where CODE's loads
TABLES = (0x40000, 0x50000)     # PML4, PDPT, PD, PT: to the one, to the other


def tables(vcpu, base, code):
    """Four levels; CODE's page lies at code, the IOAPIC's page where it is."""
    entry = lambda at: (at | P | W | 0x20).to_bytes(8, "little")
    for level in range(3):
        vcpu.poke(base + level * PAGE, entry(base + (level + 1) * PAGE))
    vcpu.poke(base + 3 * PAGE + CODE // PAGE * 8, entry(code))


def loaded(m):
    """A load from the IOAPIC has been carried out, and its decode is kept."""
    vcpu = long_mode(m)
    vcpu.ept.generation = 1
    vcpu.device(m.BUS_MMIO, IOAPIC, IOAPIC + 0xfff, 0x55)
    tables(vcpu, TABLES[0], CODE)
    tables(vcpu, TABLES[1], OTHER)
    vcpu.poke(OTHER, b"\x89\x03")
    vcpu.cpu.write(m.VMCS_GUEST_CR3, TABLES[0])
    vcpu.v.gpr[RBX] = IOAPIC
    assert trap(vcpu, b"\x8b\x03", IOAPIC) == "resume"
    m.lib.vmcs_reads = 0
    assert again(vcpu) == "resume"
    # The guest's tables were not walked: that takes its registers.
    assert m.vmcs_reads == 8
    assert vcpu.log == [(IOAPIC, 4, None)] * 2
    vcpu.log.clear()
    return vcpu


def again(vcpu):
    vcpu.cpu.write(vcpu.m.VMCS_GUEST_RIP, CODE)
    return vcpu.run("exit_ept_violation", TRAPPED | 1)


CHANGES = {
    "bytes": lambda v: v.poke(CODE, b"\x89\x03"),
    "CR3": lambda v: v.cpu.write(v.m.VMCS_GUEST_CR3, TABLES[1]),
    **{f"level {4 - n}": lambda v, n=n: v.poke(
        TABLES[0] + n * PAGE, v.guest.read(TABLES[1] + n * PAGE, PAGE))
       for n in range(4)}}


@pytest.mark.parametrize("what", CHANGES)
def test_another_instruction_at_the_same_place(m, what):
    """Nobody says so: the bytes and the walk's entries are compared."""
    vcpu = loaded(m)
    CHANGES[what](vcpu)
    assert again(vcpu) == "resume"
    assert [size for _, size, value in vcpu.log if value is not None] == [4]


def test_the_same_bytes_in_another_mode(m):
    """48 is a REX prefix in 64-bit mode alone."""
    vcpu = loaded(m)
    for _ in range(2):
        assert trap(vcpu, b"\x48\x8b\x03", IOAPIC) == "resume"
    vcpu.cpu.write(m.VMCS_GUEST_CS_RIGHTS, CS32)
    assert again(vcpu) == "stop"


def test_the_same_instruction_elsewhere(m):
    """Registers and the page that it accesses are looked at each time."""
    vcpu = loaded(m)
    vcpu.device(m.BUS_MMIO, NOBODY, NOBODY + 0xfff, 0x66)
    vcpu.v.gpr[RBX] = NOBODY + 8
    assert trap(vcpu, b"\x8b\x03", NOBODY + 8) == "resume"
    assert vcpu.v.gpr[RAX] == 0x66 and vcpu.log == [(NOBODY + 8, 4, None)]


def test_memory_beside_a_device(m):
    """A ROM, say: its writes are dropped, though a device answers there."""
    vcpu = loaded(m)
    vcpu.device(m.BUS_MMIO, 0xc0000, 0xc0fff, 0x66)
    vcpu.v.gpr[RBX] = 0xc0010
    vcpu.poke(TABLES[0] + 3 * PAGE + 0xc0 * 8, (0xc0000 | P | W).to_bytes(
        8, "little"))
    assert trap(vcpu, b"\x8b\x03", 0xc0010) == "resume"
    assert vcpu.v.gpr[RAX] == 0 and vcpu.log == []


def test_memory_where_a_device_was(m):
    """A map that changes ends what hangs on it."""
    vcpu = loaded(m)
    for r in vcpu.vm.map.regions[0:vcpu.vm.map.count]:
        if r.gpa == IOAPIC:
            other = vcpu.vm.map.regions[0]
            r.kind, r.hpa, r.cpu = other.kind, other.hpa, other.cpu
    vcpu.ept.generation += 1
    vcpu.poke(TABLES[0] + PAGE + 3 * 8, (3 << 30 | P | W | 0x80).to_bytes(
        8, "little"))
    assert again(vcpu) == "resume" and vcpu.log == []


def test_the_end_of_a_long_instruction(m):
    vcpu = loaded(m)
    for value in (0x11, 0x11, 0x22):
        code = b"\xc7\x83" + bytes(7) + bytes([value])
        vcpu.poke(CODE, code)
        assert again(vcpu) == "resume"
    assert [value >> 24 for *_, value in vcpu.log] == [0x11, 0x11, 0x22]


PREFIXES = ["", "48", "41", "44", "42", "64", "67", "66", "6748"]
OPCODES = ["8b", "89", "88", "63", "01", "0fb7", "0fc3", "87"]
# [rbx], [rbx + 16], [rsp + 8], RSP or R12 as a register, [rbx + 4 * rcx],
# [rip + x], [x], [rsi + 4], which is above 4 GiB
OPERANDS = ["03", "4604", "4310", "442408", "23", "048b", "0500003000", "042500003000"]
INSTRUCTIONS = [*map("".join, itertools.product(PREFIXES, OPCODES, OPERANDS)),
                "c70378563412", "48c7037856f412", "a1001000d0" + 4 * "00"]


def outcome(vcpu, code, rflags, shadow):
    """What the instruction does to a guest that is always the same."""
    vcpu.v.gpr[0:16] = [0xd0001000 + 0x10101 * n for n in range(16)]
    vcpu.v.gpr[RAX], vcpu.v.gpr[RCX] = 0x1122334455667788, 5
    vcpu.v.gpr[RSI] |= 1 << 32
    for name, value in (("RSP", 0xd0002000), ("RFLAGS", 2 | rflags),
                        ("INTERRUPTIBILITY", shadow), ("FS_BASE", 0x300),
                        ("PENDING_DEBUG", 0)):
        vcpu.cpu.write(getattr(vcpu.m, f"VMCS_GUEST_{name}"), value)
    vcpu.log.clear()
    try:
        action = trap(vcpu, bytes.fromhex(code) + bytes(15), 0xd0001300)
    except Fault as fault:
        action = fault.args
    return (action, list(vcpu.log), vcpu["GUEST_RSP"],
            [vcpu.v.gpr[n] for n in range(16) if n != RSP],
            [vcpu[f"GUEST_{n}"] for n in (
                "RIP", "RFLAGS", "INTERRUPTIBILITY", "PENDING_DEBUG")])


def test_the_same_again(m):
    """The second time a MOV is carried out in short: no difference."""
    vcpu = long_mode(m)
    vcpu.device(m.BUS_MMIO, 0x200000, IOAPIC - 1, 0x8899aabbccddeeff)
    ends = set()
    for code in INSTRUCTIONS:
        first = outcome(vcpu, code, 0, 0)
        assert outcome(vcpu, code, 0, 0) == first, code
        ends.add(first[0])
    assert ends >= {"resume"}
    for state in ((1 << 8, 0), (1 << 16, 0), (0, 1), (0, 2), (1 << 8, 1)):
        for code in ("8b03", "8903"):
            vcpu.v.decoded[0:m.VCPU_DECODED] = m.new(
                f"struct decoded[{m.VCPU_DECODED}]")
            first = outcome(vcpu, code, *state)
            assert outcome(vcpu, code, *state) == first, (code, state)


# --- Defects that must be noticed ---------------------------------------

SHORT = {
    "a doubleword's upper half": ("vmm/vcpu/exit_mmio.c", "if (insn->size == 4)",
                                  "if (false)"),
    "a step": ("vmm/vcpu/exit_mmio.c", "RFLAGS_TF | RFLAGS_RF", "RFLAGS_RF"),
    "RF": ("vmm/vcpu/exit_mmio.c", "RFLAGS_TF | RFLAGS_RF", "RFLAGS_TF"),
    "the shadow of STI": ("vmm/vcpu/exit_mmio.c", "rip + insn->length);\n"
                          "	vcpu_unblock();\n", "rip + insn->length);\n"),
    "another operation": ("vmm/vcpu/insn.c", "insn->op == INSN_MOV && !(d",
                          "!(d"),
    "32-bit addresses": ("vmm/vcpu/insn.c", " && insn->address_size == 8", ""),
    "FS": ("vmm/vcpu/insn.c", "	       insn->segment < SEG_FS && ", ""),
    "a word": ("vmm/vcpu/insn.c", "insn->size >= 4 &&", ""),
    "a sign": ("vmm/vcpu/insn.c", "insn->size == insn->reg_size && ", ""),
    "RSP's own register": ("vmm/vcpu/insn.c", " &&\n	       !(insn->has_reg &&"
                           " insn->reg == RSP)", ""),
    "RSP as the base": ("vmm/vcpu/insn.c", "insn->base != RSP", "true"),
}


@pytest.mark.parametrize("what", SHORT)
def test_what_is_no_plain_mov_is_noticed(what):
    source, old, new = SHORT[what]
    m = build({source: mutated(source, (old, new))}, "exits_mutant")
    with pytest.raises(AssertionError):
        test_the_same_again(m)


def test_stale_translations_after_cr0():
    """The EPT's mappings of linear addresses are the guest's TLB."""
    source = "vmm/vcpu/exit_cr.c"
    m = build({source: mutated(
        source, ("	if (change & CR0_PG)\n		flush(v);\n", ""))},
        "exits_mutant")
    arch = Arch(PE | PG | ET,
                           0, 0, False, "memory", "good")
    vcpu = enter(m, arch)
    m.vcpu_set_gpr(vcpu.v, 0, PE)
    with pytest.raises(AssertionError, match="stale translations"):
        both(vcpu, arch, lambda: arch.mov_cr0(PE), 0)


def test_the_counts_as_the_log_has_them(m):
    """Every reason that came, from the first to the last."""
    stats = m.new("struct stats *", {"exits": 6, "ticks": 2500, "start": 1000})
    counts = {0: (1, 700), 12: (3, 1000), m.STATS_REASONS - 1: (2, 800)}
    for reason, (count, ticks) in counts.items():
        stats.reasons[reason].count = count
        stats.reasons[reason].ticks = ticks
    m.lib.fakes_line_count = 0
    m.stats_log(stats, 1000 + 40000)
    assert [" ".join(text.split()) for _, text in m.log_lines()] == [
        "stats: 6 exits, 2500 of 40000 ticks in Monocle (6.25 %)",
        "stats: exception or NMI 1 exits 700 ticks 700 each",
        "stats: HLT 3 exits 1000 ticks 333 each",
        "stats: notify 2 exits 800 ticks 400 each"]
    m.stats_log(stats, 1001)    # no time to divide by
    assert "(0.00 %)" in m.log_text()


COMPARED = {
    "CR3": ("d->cr3 != cr3", "!cr3", "another_instruction", "CR3"),
    "the map": ("d->generation != v->vm->ept->generation", "!v",
                "memory_where_a_device_was"),
    "the mode": (" || !vcpu_long_mode())", ")",
                 "the_same_bytes_in_another_mode"),
    "the first entry": ("for (unsigned i = 0; i < d", "for (unsigned i = 1; "
                        "i < d", "another_instruction", "level 4"),
    "the last entry": ("i < d->depth", "i + 1 < d->depth",
                       "another_instruction", "level 1"),
    "the first bytes": ("load(d->code) == d->first && ", "",
                        "another_instruction", "bytes"),
    "the last bytes": (" && load(d->code + 7) == d->last", "",
                       "the_end_of_a_long_instruction"),
    "the device's page": ("*device != a.addr >> PAGE_SHIFT", "!*device",
                          "memory_beside_a_device")}


@pytest.mark.parametrize("what", COMPARED)
def test_what_is_not_compared_is_noticed(what):
    source = "vmm/vcpu/exit_mmio.c"
    old, new, name, *more = COMPARED[what]
    m = build({source: mutated(source, (old, new))}, "exits_mutant")
    test = next(f for n, f in globals().items()
                if n.startswith(f"test_{name}"))
    with pytest.raises(AssertionError):
        test(m, *more)
