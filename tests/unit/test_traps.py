# SPDX-License-Identifier: MIT
"""Monocle's own CPU: its descriptor tables and stacks, and what becomes of
each trap."""

import pytest

import harness
import vmxcpu

FAKES = """
#include "tests/unit/vmx_fakes.c"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"
#include "kernel/traps.h"

const char trap_stubs[256 * 8], rdmsr_fault[8], rdmsr_recover[8];
unsigned stacks, stack_fails, screens;

void *stack_alloc(void)
{
	static char memory[64][4096];

	return ++stacks == stack_fails ? NULL : memory[stacks % 64];
}

void host_irq_dispatch(unsigned vector)
{
	fakes_record(FAKE_OTHER, vector, 0, 0);
}

/* arch/x86/cpu.asm's: three addresses in a row */
__asm__(".pushsection .data; .globl cpu_sleep_window, cpu_sleep_last,"
	"cpu_sleep_out; cpu_sleep_window: .zero 16; cpu_sleep_last:"
	".zero 4; cpu_sleep_out: .zero 4; .popsection");

int local_apic_send(u32 apic_id, u32 low)
{
	fakes_record(FAKE_OTHER, apic_id, 4, low);
	return 0;
}

bool told; /* by another CPU */

void panic_begin(void)
{
	screens = fakes_line_count + 1; /* before the line of that number */
	if (told)
		cpu_stop();
}

void panic_check(void)
{
	if (told)
		cpu_stop();
}

void backtrace(u64 rbp)
{
	log_error("backtrace %016lx", rbp);
}

void panic_end(const char *fmt, ...)
{
	log_error("panic: %s", fmt);
	cpu_stop();
}

bool stops_at(struct trap_frame *f)
{
	return STOPS(trap_handle(f));
}
"""
NOT_LIBC = ["backtrace=own_backtrace"]
CDEF = """
extern char cpu_sleep_window[], cpu_sleep_out[];
extern const char trap_stubs[2048], rdmsr_fault[8], rdmsr_recover[8];
extern unsigned stacks, stack_fails, screens;
extern bool told;
bool stops_at(struct trap_frame *f);
"""
NMI, DF, GP, MC = 2, 8, 13, 18
CODE, DATA, TSS = 8, 16, 24


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "traps", ["kernel/traps.c", "kernel/percpu.c", "kernel/kick.c", "kernel/cpu_tables.c"],
        headers=["kernel/percpu.h", "kernel/traps.h", *vmxcpu.HEADERS],
        fakes=FAKES, cdef=CDEF, defines=NOT_LIBC)


@pytest.fixture(autouse=True)
def cpu(m):
    cpu = vmxcpu.Cpu(m)
    cpu.set_msr(m.MSR_GS_BASE, 0)
    m.lib.stacks = m.lib.stack_fails = m.lib.screens = 0
    m.lib.told = False
    return cpu


def address(m, pointer):
    return int(m.ffi.cast("uintptr_t", pointer))


# --- Tables and stacks ---------------------------------------------------

def make(m, index=0):
    cpu = m.percpu_create(index, 0x20 + index)
    m.fake_gs_base(cpu)
    return cpu


def number(m, pointer, size):
    return int.from_bytes(m.ffi.buffer(m.ffi.cast("char *", pointer), size),
                          "little")


def gates(m):
    """[(stub, selector, IST, type)] of SDM figure 6-8."""
    out = []
    for n in range(256):
        g = number(m, m.ffi.cast("char *", m.idt_base()) + 16 * n, 16)
        out.append((g & 0xffff | (g >> 48 & 0xffffffffffff) << 16,
                    g >> 16 & 0xffff, g >> 32 & 0xff, g >> 40 & 0xff))
    return out


def test_every_vector_has_its_gate(m):
    """Interrupt gates, present, of ring 0: SDM 6.14.1."""
    m.percpu_load(make(m))
    for n, (stub, selector, _, kind) in enumerate(gates(m)):
        assert stub == address(m, m.trap_stubs) + 8 * n
        assert (selector, kind) == (CODE, 0x8e)


def test_stacks_of_their_own(m):
    """A double fault's, an NMI's and a machine check's: each may come while
    another is handled, or with a stack that is no good (SDM 6.14.5)."""
    cpus = [make(m, n) for n in range(3)]
    ists = {}
    m.percpu_load(cpus[0])
    for n, (_, _, ist, _) in enumerate(gates(m)):
        assert bool(ist) == (n in (DF, NMI, MC)), n
        if ist:
            ists[n] = ist
    assert len(set(ists.values())) == 3 and max(ists.values()) <= 7
    tops = [address(m, c.stack) for c in cpus] + [
        c.tables.tss.ist[i - 1] for c in cpus for i in ists.values()]
    assert all(tops) and len(set(tops)) == len(tops) == m.stacks


def test_what_a_cpu_loads(m, cpu):
    c = make(m, 3)
    assert (c.self, c.index, c.apic_id) == (c, 3, 0x23)
    m.clear_events()
    m.percpu_load(c)
    gdt = address(m, c.tables.gdt)
    assert [(e.kind, e.addr, e.size, e.value) for e in m.events()] == [
        ("lgdt", gdt, 39, 0), ("segments", CODE, 0, DATA),
        ("ltr", TSS, 0, 0), ("lidt", m.idt_base(), 4095, 0),
        ("wrmsr", m.MSR_GS_BASE, 8, address(m, c))]
    # SDM 3.4.5: P, DPL 0, S; code, readable, L; data, writable.
    code, data = c.tables.gdt[CODE // 8], c.tables.gdt[DATA // 8]
    assert code >> 40 & 0xfa == 0x9a and code >> 53 & 3 == 1
    assert data >> 40 & 0xfe == 0x92
    # Figure 7-4: an available 64-bit TSS, its base in four parts.
    tss = number(m, c.tables.gdt + TSS // 8, 16)
    assert tss & 0xffff | tss >> 32 & 0xf0000 == 103
    assert tss >> 40 & 0xff == 0x89 and not tss >> 52 & 0xf
    assert tss >> 16 & 0xffffff | (tss >> 56 & 0xff) << 24 | \
        tss >> 64 << 32 == address(m, m.ffi.addressof(c.tables, "tss"))
    assert c.tables.tss.io_map >= 104   # no I/O bitmap


def test_a_cpu_is_found(m):
    """By its index, and by its APIC ID once it runs a guest."""
    cpus = {n: make(m, n) for n in (0, 1, 2, 3, 63)}
    assert not make(m, 64) and not m.percpu_at(64)
    assert all(m.percpu_at(n) == cpus[n] for n in cpus)
    assert not m.percpu_of_guest(0x22)
    cpus[2].runs_guest = cpus[63].runs_guest = True
    assert m.percpu_of_guest(0x22) == cpus[2]
    assert m.percpu_of_guest(0x5f) == cpus[63]
    assert not m.percpu_of_guest(0x20) and not m.percpu_of_guest(0x99)


def test_no_memory_for_a_cpu(m):
    m.lib.arena_limit = 0
    assert not m.percpu_create(0, 0)
    m.lib.arena_limit = m.ARENA_PAGES
    for failing in (1, 2, 3, 4, 5):
        m.lib.stacks, m.lib.stack_fails = 0, failing
        assert bool(m.percpu_create(0, 0)) == (failing == 5)


# --- Traps ---------------------------------------------------------------

REGISTERS = ("rax rcx rdx rbx rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15 rip "
             "cs rflags rsp").split()


def frame(m, vector, **fields):
    f = m.new("struct trap_frame *", {
        **{name: 0x1111 * (n + 1) for n, name in enumerate(REGISTERS)},
        "vector": vector, **fields})
    return f


def test_an_nmi_is_noted_for_the_guest(m):
    c = make(m)
    m.clear_events()
    for _ in range(2):
        f = frame(m, NMI)
        before = bytes(m.ffi.buffer(f))
        assert not m.stops_at(f) and bytes(m.ffi.buffer(f)) == before
    assert c.nmis == 2 and m.log_text() == "" and not m.events("other")


def test_an_nmi_by_another_cpus_panic(m):
    c = make(m)
    m.lib.told = True
    assert m.stops_at(frame(m, NMI)) and c.nmis == 0


@pytest.mark.parametrize("at, to", [(-1, None), (0, "out"), (15, "out"), (16, None)])
@pytest.mark.parametrize("window", ["entry", "sleep"])
def test_an_nmi_behind_the_last_look(m, window, at, to):
    """The CPU looks again instead of entering the guest, or sleeping."""
    c = make(m)
    m.percpu_load(c)
    c.entry = {"first": 0x5000, "last": 0x5010, "out": 0x5020}
    first, out = ((0x5000, 0x5020) if window == "entry" else tuple(
        int(m.ffi.cast("u64", m.ffi.addressof(m.lib, name)))
        for name in ("cpu_sleep_window", "cpu_sleep_out")))
    f = frame(m, NMI, rip=first + at)
    assert not c.attention and not m.stops_at(f)
    assert c.attention and f.rip == (out if to else first + at)


def test_a_kick_is_an_nmi_that_is_not_the_guest_s(m):
    """One at a time is on its way; another NMI is the guest's."""
    mine, other = make(m, 0), make(m, 1)
    m.fake_gs_base(mine)
    m.clear_events()
    m.percpu_kick(other)
    m.percpu_kick(other)
    assert [(e.addr, e.value) for e in m.events("other")] == [
        (other.apic_id, 0x4400)]
    m.percpu_nmi(other)
    assert (other.attention, other.nmis) == (1, 0)
    m.percpu_kick(other)
    assert len(m.events("other")) == 2
    m.percpu_nmi(other)
    m.percpu_nmi(other)
    assert other.nmis == 1


def test_a_kick_of_itself_needs_no_nmi(m):
    c = make(m)
    m.percpu_load(c)
    m.clear_events()
    m.percpu_kick(c)
    assert c.attention and not m.events("other")


@pytest.mark.parametrize("vector", [32, 0x31, 255])
def test_an_interrupt(m, vector):
    c = make(m)
    m.clear_events()
    assert not m.stops_at(frame(m, vector))
    assert [e.addr for e in m.events("other")] == [vector]
    assert (c.interrupts, c.nmis, m.log_text()) == (1, 0, "")


def test_an_msr_that_the_cpu_lacks(m):
    """rdmsr_safe() goes on with its error; no other #GP does."""
    make(m)
    fault, on = address(m, m.rdmsr_fault), address(m, m.rdmsr_recover)
    f = frame(m, GP, rip=fault)
    assert not m.stops_at(f) and f.rip == on and m.log_text() == ""
    assert m.stops_at(frame(m, 6, rip=fault))


# SDM table 6-1
NAMES = {0: "divide", 1: "debug", 3: "breakpoint", 6: "invalid opcode",
         8: "double fault", 10: "TSS", 11: "not present", 12: "stack",
         13: "general protection", 14: "page fault", 17: "alignment",
         18: "machine check", 19: "?", 31: "?"}


@pytest.mark.parametrize("vector", NAMES)
def test_a_trap_of_monocle_s_own(m, vector):
    """Its name and all registers, on a screen that is Monocle's again."""
    make(m)
    m.fake_cr[0:16] = [0x99000 + n for n in range(16)]
    f = frame(m, vector, error=0x1234)
    m.lib.screens = 0
    assert m.stops_at(f)
    lines = [t for level, t in m.log_lines() if level == m.LOG_ERROR]
    assert lines[0].startswith(f"trap {vector} (")
    assert NAMES[vector] in lines[0] and "0x1234" in lines[0]
    words = " ".join(lines).split()
    for name in REGISTERS:
        assert int(words[words.index(name) + 1], 16) == getattr(f, name), name
    for n in (0, 2, 3, 4):
        assert int(words[words.index(f"cr{n}") + 1], 16) == 0x99000 + n
    assert m.screens == 1, "its first line is not seen"
    assert lines[-2] == f"backtrace {f.rbp:016x}"
    assert lines[-1].startswith("panic: Monocle itself has failed")


@pytest.mark.parametrize("vector", [MC, DF])
@pytest.mark.parametrize("told", [False, True])
def test_a_machine_check_reaches_all_cpus(m, vector, told):
    """The first one tells, whichever it is; the others stop."""
    make(m, 1)
    m.lib.told = told
    assert m.stops_at(frame(m, vector)) and bool(m.log_text()) != told
