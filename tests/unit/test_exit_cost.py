# SPDX-License-Identifier: MIT
"""What one exit costs, but for its ticks (tests/bench): VMREADs, VMWRITEs and
accesses to MSRs, all of the loop and the real handlers around a fake CPU, in
steady state: from the exit to the next entry."""
import pytest

import guestram
import test_exits
import test_vcpu

HANDLERS = ["vmm/vcpu/exit_cr.c", "vmm/vcpu/exit_io.c",
            "vmm/vcpu/exit_mmio.c", "vmm/vcpu/insn.c", "vmm/vcpu/msr.c",
            "vmm/vcpu/hypercall.c", "vmm/devmodel/ioapic.c"]
MSRS = ("rdmsr", "wrmsr", "no_msr")
LAPIC, IOAPIC, CODE, TABLE = 0xfee00000, 0xfec00000, 0x8000, 0x6000


def fakes():
    """test_vcpu's, with the real handlers and what they reach."""
    mine, theirs = test_vcpu.FAKES, test_exits.FAKES
    lines = [line for line in mine.splitlines()
             if not line.startswith("HANDLER(") or "task_switch" in line]
    kept = "\n".join(lines).replace(
        "void msr_reset(void)\n{\n	fakes_record(FAKE_OTHER, 0, 0, 0);\n}\n", "")
    return kept + theirs.replace('#include "tests/unit/vmx_fakes.c"', "")


@pytest.fixture(scope="module")
def m():
    return test_vcpu.vmxcpu.harness.build(
        "exit_cost", test_vcpu.SOURCES + HANDLERS, fakes=fakes(),
        cdef=test_vcpu.CDEF, exports=["lapic_cr8", "lapic_set_cr8"],
        headers=["arch/x86/vmx/ept.h", "vmm/vcpu/exits.h",
                 "vmm/vcpu/msr.h", "vmm/devmodel/ioapic.h", "kernel/percpu.h",
                 "arch/x86/vmx/vmx.h", "kernel/traps.h",
                 *test_vcpu.vmxcpu.HEADERS])


class Guest(test_vcpu.Vm):
    """64-bit code at CODE; its MMIO is where it is on a PC."""

    def __init__(self, m):
        super().__init__(m)
        self.v.slack_max = 1 << 60      # root time adds up to nothing
        self.memory = guestram.Guest(m, (guestram.Row(0, 0x100000),))
        self.vm.map = self.memory.list[0]
        self.vm.features.physical_bits = 39
        ram = self.memory.rows[0].memory
        entry = lambda at: (at | 3).to_bytes(8, "little")
        ram[TABLE:TABLE + 8] = entry(TABLE + 0x1000)
        for n in range(4):      # GiB
            at = TABLE + 0x1000 + 8 * n
            ram[at:at + 8] = entry(n << 30 | 0x80)
        ram[CODE:CODE + 2] = b"\x8b\x03"        # mov eax, [rbx]
        self.set(GUEST_CR3=TABLE, GUEST_CR4=0x2020, GUEST_CR0=0x80010021)
        assert m.msr_init(self.v.bus) == 0
        self.ioapic = m.new("struct ioapic *")
        assert m.ioapic_init(self.ioapic, self.v.bus, self.apics, 0) == 0

    def cost(self, exit, **registers):
        """(VMREADs, VMWRITEs, accesses to MSRs) of the third such exit."""
        m, marks = self.m, []

        def leave():
            marks.append((m.vmcs_reads, len(m.events("vmwrite")),
                          len(m.events(*MSRS))))
            for name, value in registers.items():
                self.v.gpr[("rax", "rcx", "rdx", "rbx").index(name)] = value
            if "prepare" in exit:
                exit["prepare"]()
            self.set(GUEST_RIP=CODE)
            return {n: v for n, v in exit.items() if n != "prepare"}
        self.run(*[leave] * 4)
        assert self.vm.request == m.VM_POWER_OFF, m.log_text()
        return tuple(b - a for a, b in zip(marks[2], marks[3]))


@pytest.fixture
def guest(m):
    return Guest(m)


def x2apic(guest):
    guest.lapic.base |= 1 << 10


@pytest.mark.parametrize("leaf", [0, 7, 0x80000002, 0x40000000])
def test_cpuid(m, guest, leaf):
    """Reason, RIP, its length, shadow and TF; RIP is written. `make bench` has
    what is printed here."""
    reads, writes, msrs = guest.cost({"EXIT_REASON": m.EXIT_CPUID}, rax=leaf,
                                     rcx=0)
    print(f"{reads} VMREADs, {writes} VMWRITEs")
    assert (reads, writes, msrs) == (5, 1, 0)


def test_cpuid_that_shows_osxsave(m, guest):
    assert guest.cost({"EXIT_REASON": m.EXIT_CPUID}, rax=1,
                      rcx=0) == (6, 1, 0)


def test_vmcall(m, guest):
    assert guest.cost({"EXIT_REASON": m.EXIT_VMCALL}, rax=0x4d4f0000,
                      rcx=0) == (5, 1, 0)


def test_msrs(m, guest):
    read = {"EXIT_REASON": m.EXIT_RDMSR}
    assert guest.cost(read, rcx=0x1b) == (5, 1, 0)
    assert guest.cost(read, rcx=0x17) == (5, 1, 0)
    # Its DEBUGCTL is the VMCS's.
    assert guest.cost(read, rcx=0x1d9) == (6, 1, 0)


def test_an_eoi(m, guest):
    x2apic(guest)
    assert guest.cost({
        "EXIT_REASON": m.EXIT_WRMSR, "prepare": lambda: m.lapic_ack(
            guest.lapic, 0x41)}, rcx=0x80b, rax=0, rdx=0) == (5, 1, 0)


def test_a_port(m, guest):
    """With the qualification."""
    for qualification in (0x12340008, 0x12340000, 0x12340003):
        assert guest.cost({"EXIT_REASON": m.EXIT_IO,
                           "QUALIFICATION": qualification}) == (6, 1, 0)


@pytest.mark.parametrize("at", [LAPIC + 0x30, IOAPIC + 0x10])
def test_a_register_in_memory(m, guest, at):
    """Reason, qualification, a delivery that was cut short; RIP, CR3, EFER and
    CS, which the kept decode hangs on; RF and TF; both addresses; shadow."""
    assert guest.cost({
        "EXIT_REASON": m.EXIT_EPT_VIOLATION, "QUALIFICATION": 0x181,
        "GUEST_LINEAR": at, "GUEST_PHYSICAL": at}, rbx=at) == (11, 1, 0)


def test_a_self_ipi(m, guest):
    """And the vector that comes of it: if the guest takes interrupts, and
    what it is, behind an instruction of no length."""
    x2apic(guest)
    assert guest.cost({
        "EXIT_REASON": m.EXIT_WRMSR, "prepare": lambda: m.lapic_eoi(
            guest.lapic)}, rcx=0x83f, rax=0x41, rdx=0) == (7, 3, 0)


def test_a_deadline(m, guest):
    """It is the preemption timer's at once, and that is written once."""
    deadline = [1 << 30]

    def later():
        deadline[0] += 1 << 20
        guest.v.gpr[0] = deadline[0]
    guest.lapic.page[4 * m.LAPIC_LVT_TIMER] = 2 << 17 | 0x41
    assert guest.cost({"EXIT_REASON": m.EXIT_WRMSR, "prepare": later},
                      rcx=0x6e0, rdx=0) == (5, 2, 0)
