# SPDX-License-Identifier: MIT
"""Hardware task switches: what stands in the TSSs and the GDT afterwards, what
the CPU runs on with, and what each broken descriptor gives. SDM 8.3; the
tables are laid out here by its figures 6-5, 8-2 and 8-10."""
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import guestram
import vmxcpu

FAKES = """
#include "tests/unit/vmx_fakes.c"
#include "vmm/vcpu/exits.h"

unsigned lends_ended;

void lend_end(struct vcpu *v)
{
	(void)v;
	lends_ended++;
}
"""
CALL, IRET, JMP, GATE = range(4)
GDT, A, B, LDT_AT, STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x8000
CODE, DATA, TSS_A, TSS_B, LDT, CODE3, DATA3, READ_ONLY, ABSENT = range(
    0x8, 0x50, 8)
LOCAL = 0x4
BUSY, NT, TF_VALID, ERROR = 2, 0x4000, 1 << 31, 1 << 11
EXTERNAL, NMI, EXCEPTION, SOFTWARE = (n << 8 for n in (0, 2, 3, 4))
DB, TS, NP, SS, GP, PF = 1, 10, 11, 12, 13, 14
PE, TASK_SWITCHED = 1, 8
SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS")
GPRS = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")


def descriptor(base, limit, kind, g=False, db=True):
    return (limit & 0xffff | (base & 0xffffff) << 16 | kind << 40 |
            (limit >> 16 & 15) << 48 | db << 54 | g << 55 |
            (base >> 24) << 56)


FLAT, TSS32, TSS16 = 0xfffff, 0x89, 0x81
TABLE = {
    CODE: descriptor(0, FLAT, 0x9a, True), DATA: descriptor(0, FLAT, 0x92, True),
    TSS_A: descriptor(A, 0x67, TSS32 | BUSY, db=False),
    TSS_B: descriptor(B, 0x67, TSS32, db=False),
    LDT: descriptor(LDT_AT, 0xf, 0x82, db=False),
    CODE3: descriptor(0, FLAT, 0xfa, True),
    DATA3: descriptor(0x12345678, 0x1234, 0xf2),
    READ_ONLY: descriptor(0, FLAT, 0x90, True),
    ABSENT: descriptor(0, FLAT, 0x12, True)}


@pytest.fixture(scope="module")
def m():
    return vmxcpu.harness.build(
        "task", ["vmm/vcpu/exit_task.c", "vmm/vcpu/exit_cr.c",
                 "vmm/vcpu/vcpu_state.c", "vmm/core/stats.c",
                 "vmm/core/guest_mem.c", "kernel/region.c",
                 "vmm/devmodel/lapic.c", "vmm/devmodel/lapic_accept.c",
                 "vmm/devmodel/apic_bus.c", "vmm/core/bus.c",
                 "vmm/core/vclock.c", "vmm/core/vm.c"], fakes=FAKES,
        cdef="extern unsigned lends_ended;",
        headers=["arch/x86/vmx/ept.h", "vmm/vcpu/exits.h", *vmxcpu.HEADERS])


def task(ip=0x5000, flags=2, regs=range(0x10, 0x18), segments=None, ldt=0,
         cr3=0, trap=False):
    """A TSS of 32 bits, and one of 16: SDM figures 8-2, 8-10."""
    at = dict(zip(SEGMENTS, (DATA, CODE, DATA, DATA, DATA, DATA)),
              **segments or {})
    wide = struct.pack("<3I", 0, 0, 0).ljust(0x1c, b"\0") + struct.pack(
        "<3I8I7I2H", cr3, ip, flags, *regs, *at.values(), ldt, trap, 0x68)
    narrow = bytes(14) + struct.pack(
        "<2H8H4HH", ip & 0xffff, flags & 0xffff, *[r & 0xffff for r in regs],
        *[at[n] for n in SEGMENTS[:4]], ldt)
    return wide, narrow


class Machine:
    """Task A runs in protected mode without paging; B waits."""

    def __init__(self, m, new=None, table=(), narrow=False, **state):
        self.m, self.cpu = m, vmxcpu.Cpu(m)
        self.row = guestram.Row(0, 0x20000)
        self.guest = guestram.Guest(m, [self.row])
        self.vm = m.new("struct vm *")
        self.vm.map = self.guest.list[0]
        self.vm.vmx = m.new("struct vmx_capabilities *")
        self.cap = self.vm.vmx
        self.vm.features.physical_bits = 39
        self.v = m.new("struct vcpu *", {"vm": self.vm})
        for n, value in {**TABLE, **dict(table)}.items():
            self.poke(GDT + n, value.to_bytes(8, "little"))
        self.poke(LDT_AT + 8, TABLE[DATA].to_bytes(8, "little"))
        self.poke(B, (new or task())[narrow])
        for n in range(16):
            self.v.gpr[n] = 0xa0 + n
        self.set(GUEST_GDTR_BASE=GDT, GUEST_GDTR_LIMIT=0x4f, GUEST_CR0=0x21,
                 GUEST_RFLAGS=0x202, GUEST_RIP=0x6000, GUEST_RSP=0xb00,
                 EXIT_LENGTH=5, GUEST_DR7=0x755, GUEST_TR_BASE=A,
                 GUEST_TR_RIGHTS=0x8b, GUEST_SS_RIGHTS=0xc093,
                 GUEST_CS_RIGHTS=0xc09b, GUEST_INTERRUPTIBILITY=3)
        for at, n in enumerate((DATA, CODE, DATA, DATA, 0, 0, 0, TSS_A)):
            self.cpu.write(m.VMCS_GUEST_ES + 2 * at, n)
        self.set(**state)

    def poke(self, at, data):
        self.row.memory[at:at + len(data)] = data

    def set(self, **fields):
        for name, value in fields.items():
            self.cpu.write(getattr(self.m, f"VMCS_{name}"), value)

    def __getitem__(self, name):
        return self.cpu.read(getattr(self.m, f"VMCS_{name}"))

    def segment(self, n):
        """(selector, base, limit, rights); 7: TR."""
        return tuple(self.cpu.read(getattr(self.m, f"VMCS_GUEST_ES{part}") +
                                   2 * n)
                     for part in ("", "_BASE", "_LIMIT", "_RIGHTS"))

    def kind(self, selector):
        return self.guest.number(GDT + selector + 5, 1)

    def switch(self, source, selector=TSS_B, event=0, error=0):
        """(vector, error code) of what is queued for the new task, or None."""
        m, v = self.m, self.v
        v.qualification = source << 30 | selector
        v.injection.info, v.injection.error = event, error
        assert m.exit_task_switch(v) == m.EXIT_RESUME
        info = v.injection.info
        return (info & 0xff, v.injection.error if info & ERROR else None) \
            if info else None

    def saved(self):
        """Of task A: EIP, EFLAGS, registers, segments."""
        words = struct.unpack("<2I8I6I", self.guest.read(A + 0x20, 64))
        return words[0], words[1], list(words[2:10]), list(words[10:])


HERE = [0xa0, 0xa1, 0xa2, 0xa3, 0xb00, 0xa5, 0xa6, 0xa7]


@pytest.mark.parametrize("source, busy_a, link, nt", [
    (JMP, 0, 0, 0), (CALL, BUSY, TSS_A, NT), (IRET, 0, 0, 0)])
def test_from_one_task_to_another(m, source, busy_a, link, nt):
    """SDM table 8-2: busy flags, the link, NT. IRET's old one has it off."""
    table = {TSS_B: TABLE[TSS_B] | BUSY << 40} if source == IRET else ()
    x = Machine(m, task(flags=0x246), table, GUEST_RFLAGS=0x202 | NT)
    assert x.switch(source) is None
    assert x.saved() == (0x6005, 0x202 | (0 if source == IRET else NT), HERE,
                         [DATA, CODE, DATA, DATA, 0, 0])
    assert x.kind(TSS_A) & BUSY == busy_a and x.kind(TSS_B) & BUSY
    assert x.guest.number(B, 2) == link
    assert x["GUEST_RIP"] == 0x5000 and x["GUEST_RFLAGS"] == 0x246 | nt
    assert [*x.v.gpr[0:4], x["GUEST_RSP"], *x.v.gpr[5:8]] == list(
        range(0x10, 0x18))
    # TS; no local breakpoint; no shadow. What was lent is taken back.
    assert x["GUEST_CR0"] & TASK_SWITCHED and x["GUEST_DR7"] == 0x600
    assert x["GUEST_INTERRUPTIBILITY"] == 0 and m.lends_ended
    assert x.segment(7) == (TSS_B, B, 0x67, TSS32 | BUSY)
    for n in (0, 2, 3, 4, 5):
        assert x.segment(n) == (DATA, 0, 2**32 - 1, 0xc093)
    assert x.segment(1) == (CODE, 0, 2**32 - 1, 0xc09b)
    # Loaded: accessed, in the table, too.
    assert x.kind(DATA) == 0x93 and x.kind(CODE) == 0x9b


@pytest.mark.parametrize("event, ip", [
    (EXTERNAL | 0x41, 0x6000), (EXCEPTION | 8 | ERROR, 0x6000),
    (NMI | 2, 0x6000), (SOFTWARE | 0x80, 0x6005)])
def test_a_gate(m, event, ip):
    """The link leads back, for an INT behind it; an error code is pushed; an
    NMI blocks others until IRET."""
    x = Machine(m, task(regs=[0] * 4 + [STACK] + [0] * 3))
    x.poke(STACK - 8, b"\xee" * 8)
    assert x.switch(GATE, event=TF_VALID | event, error=0x1234) is None
    assert x.saved()[0] == ip
    assert x.guest.number(B, 2) == TSS_A and x["GUEST_RFLAGS"] == 2 | NT
    pushed = bool(event & ERROR)
    assert x["GUEST_RSP"] == STACK - 4 * pushed
    assert x.guest.number(STACK - 8, 8) == (
        0x1234eeeeeeee if pushed else 0xeeeeeeeeeeeeeeee)
    assert x["GUEST_INTERRUPTIBILITY"] == (8 if event & 0x700 == NMI else 0)
    # And IRET out of it.
    x.set(EXIT_LENGTH=1, GUEST_INTERRUPTIBILITY=8)
    assert x.switch(IRET, TSS_A) is None
    assert x["GUEST_RIP"] == ip and x["GUEST_INTERRUPTIBILITY"] == 0
    assert not x.kind(TSS_B) & BUSY and x.kind(TSS_A) & BUSY


def test_a_tss_of_16_bits(m):
    """No FS, no GS, no CR3; the halves that it has not are 0 here."""
    table = {TSS_B: descriptor(B, 0x2b, TSS16, db=False)}
    x = Machine(m, task(ip=0xdead5000), table, narrow=True)
    assert x.switch(JMP) is None
    assert x["GUEST_RIP"] == 0x5000 and x.segment(4)[0] == 0
    assert x.segment(7) == (TSS_B, B, 0x2b, TSS16 | BUSY)
    assert x.segment(3)[0] == DATA and x.segment(5)[3] >> 16 & 1


def test_a_local_table(m):
    x = Machine(m, task(ldt=LDT, segments={"GS": 8 | LOCAL}))
    assert x.switch(JMP) is None
    assert x.segment(6) == (LDT, LDT_AT, 0xf, 0x82)
    assert x.segment(5) == (8 | LOCAL, 0, 2**32 - 1, 0xc093)


def test_virtual_8086_mode(m):
    """Segments without descriptors."""
    x = Machine(m, task(flags=0x20002, segments={"CS": 0x1234, "SS": 0x4321}))
    assert x.switch(JMP) is None
    assert x.segment(1) == (0x1234, 0x12340, 0xffff, 0xf3)
    assert x.segment(2) == (0x4321, 0x43210, 0xffff, 0xf3)


def test_the_trap_flag_of_a_task(m):
    x = Machine(m, task(trap=True))
    assert x.switch(JMP) == (DB, None)
    assert m.fake_dr[6] >> 15 & 1 and x["GUEST_RIP"] == 0x5000


@pytest.mark.parametrize("segments, ldt, fault", [
    ({"CS": 0}, 0, (TS, 0)), ({"CS": DATA}, 0, (TS, DATA)),
    ({"CS": CODE | 3}, 0, (TS, CODE)), ({"SS": 0}, 0, (TS, 0)),
    ({"SS": CODE}, 0, (TS, CODE)), ({"SS": READ_ONLY}, 0, (TS, READ_ONLY)),
    ({"SS": DATA3 | 3}, 0, (TS, DATA3)), ({"SS": ABSENT}, 0, (SS, ABSENT)),
    ({"DS": ABSENT}, 0, (NP, ABSENT)), ({"ES": 0x800}, 0, (TS, 0x800)),
    ({"CS": CODE3 | 3, "SS": DATA3 | 3, "ES": DATA}, 0, (TS, DATA)),
    ({"DS": 8 | LOCAL}, 0, (TS, 8 | LOCAL)), ({}, DATA, (TS, DATA)),
    ({}, LDT | LOCAL, (TS, LDT | LOCAL))])
def test_what_cannot_be_loaded_is_the_new_task_s_fault(m, segments, ldt, fault):
    """SDM table 8-1. The switch has taken place by then."""
    x = Machine(m, task(segments=segments, ldt=ldt))
    assert x.switch(JMP) == fault
    assert x["GUEST_RIP"] == 0x5000 and x.segment(7)[0] == TSS_B
    assert x.kind(TSS_B) & BUSY and not x.kind(TSS_A) & BUSY


def test_an_external_event_s_fault_says_so(m):
    """EXT of the error code."""
    x = Machine(m, task(segments={"DS": ABSENT}))
    assert x.switch(GATE, event=TF_VALID | EXTERNAL | 0x41) == (NP, ABSENT | 1)


def test_a_selector_beyond_the_table(m):
    x = Machine(m, GUEST_GDTR_LIMIT=TSS_B + 6)
    before = x.guest.read(0, 0x10000)
    assert x.switch(JMP) == (TS, TSS_B)
    assert x.guest.read(0, 0x10000) == before
    assert x["GUEST_RIP"] == 0x6000 and x.segment(7)[0] == TSS_A


def test_a_tss_that_is_no_memory(m):
    """It stops the guest."""
    x = Machine(m, table={TSS_B: descriptor(0x80000, 0x67, TSS32, db=False)})
    x.v.qualification = JMP << 30 | TSS_B
    assert m.exit_task_switch(x.v) == m.EXIT_STOP


WORD = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORD, min_size=8, max_size=8), WORD, WORD)
def test_there_and_back(m, regs, ip, flags):
    """A task goes on as it was, but for what no task keeps."""
    flags = flags & 0x3d7fd5 & ~(NT | 0x20000) | 2
    x = Machine(m, GUEST_RIP=ip, GUEST_RFLAGS=flags, GUEST_RSP=regs[4],
                EXIT_LENGTH=0)
    x.v.gpr[0:8] = regs
    for n in (4, 5):
        x.cpu.write(m.VMCS_GUEST_ES + 2 * n, DATA)
    assert x.switch(CALL) is None and x.switch(IRET, TSS_A) is None
    assert [*x.v.gpr[0:4], x["GUEST_RSP"], *x.v.gpr[5:8]] == regs
    assert x["GUEST_RIP"] == ip and x["GUEST_RFLAGS"] == flags
    assert [x.segment(n)[0] for n in range(6)] == [DATA, CODE, *[DATA] * 4]
