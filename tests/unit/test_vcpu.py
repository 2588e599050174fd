# SPDX-License-Identifier: MIT
"""The vCPU's loop: what each entry injects, which windows it opens, in which
activity state the guest runs, and what becomes of each exit.

A fake VM entry notes what the CPU would do by the VMCS (SDM 27.6, 28) and
leaves the next of the test's exits. The LAPIC, the 8259s and the clock are
the real ones.
"""

import collections
import dataclasses
import typing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import guestram
import vmxcpu
from mutants import mutated

SOURCES = ["vmm/vcpu/vcpu.c", "vmm/vcpu/exits.c", "vmm/vcpu/vcpu_state.c", "vmm/core/stats.c",
           "vmm/vcpu/guest_cpuid.c", "vmm/core/guest_mem.c", "vmm/core/bus.c", "vmm/core/vm.c", "vmm/core/vclock.c",
           "kernel/region.c", "vmm/devmodel/lapic.c", "vmm/devmodel/lapic_accept.c",
           "vmm/devmodel/apic_bus.c", "vmm/devmodel/pic.c",
           "arch/x86/vmx/probe.c", "kernel/percpu.c", "kernel/kick.c"]
# What lies around the two files: handlers that only say that they were called.
FAKES = """
#include <setjmp.h>
#include "tests/unit/vmx_fakes.c"
#include "arch/x86/vmx/vmx_check.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/panic.h"
#include "kernel/traps.h"
#include "vmm/vcpu/exits.h"
#include "vmm/vcpu/vcpu.h"

int (*enter_hook)(void);
int handler_action;
u64 handler_ticks;
const char *handler_called;
unsigned host_vector, unblocked_nmi, checked;
static jmp_buf panicked;

/* As entry.asm does: not in, where there is something to look at. */
int vmx_enter(struct vmx_frame *frame)
{
	if (((struct vcpu *)frame)->cpu->attention)
		return VMX_TURNED;
	return enter_hook();
}

#define HANDLER(name)                              \\
	enum exit_action name(struct vcpu *v)      \\
	{                                          \\
		(void)v;                           \\
		handler_called = #name;            \\
		fakes_tsc += handler_ticks;        \\
		return (enum exit_action)handler_action; \\
	}
HANDLER(exit_control_register)
HANDLER(exit_task_switch)
HANDLER(exit_xsetbv)
HANDLER(exit_io)
HANDLER(exit_rdmsr)
HANDLER(exit_wrmsr)
HANDLER(exit_ept_violation)
HANDLER(exit_hypercall)

void lend_end(struct vcpu *v)
{
	v->lent_count = 0;
	v->steps = false;
}

void msr_reset(void)
{
	fakes_record(FAKE_OTHER, 0, 0, 0);
}

void host_irq_dispatch(unsigned info)
{
	host_vector = info & 0xff;
}

void cpu_unblock_nmi(void)
{
	unblocked_nmi++;
}

__attribute__((weak)) unsigned vmx_check(const struct vmx_capabilities *cap)
{
	(void)cap;
	return checked++;
}

NORETURN void panic(const char *fmt, ...)
{
	log_error("panic: %s", fmt);
	longjmp(panicked, 1);
}

bool stops_now;

/* Another CPU's panic stops this one here. */
void panic_check(void)
{
	if (stops_now)
		panic("stopped");
}

bool run_to_panic(struct vcpu *v)
{
	if (setjmp(panicked))
		return true;
	vcpu_run(v);
	return false;
}

/* Of vcpu_init(), which acts on a real CPU. */
u64 host_state[5];
hpa_t loaded;
int load_error;

/* The host's local APIC's timer. */
u64 apic_deadline;
unsigned apic_sets;
int apic_error;
bool deadlines_are_right = true, by_deadline;

bool microcode_mends_deadline(void)
{
	return deadlines_are_right;
}

int local_apic_timer_init(u8 vector, u64 window, bool deadline)
{
	by_deadline = deadline;
	host_vector = vector;
	apic_deadline = ~0ull;
	return window ? apic_error : -1;
}

void local_apic_timer_set(u64 deadline)
{
	apic_deadline = deadline;
	apic_sets++;
}

__asm__(".pushsection .data; .globl vmx_window, vmx_window_last, vmx_window_out;"
	"vmx_window: .zero 1; vmx_window_last: .zero 1; vmx_window_out: .zero 1;"
	".popsection");
void *stack_alloc(void) { return NULL; }
void cpu_tables_load(struct cpu_tables *t, void *gs)
{
	(void)t, (void)gs;
}
int local_apic_send(u32 apic_id, u32 low)
{
	(void)apic_id, (void)low;
	return 0;
}
u64 idt_base(void) { return 0x1d7000; }
hpa_t host_cr3(void) { return 0xc3000; }
int vmcs_load(const struct vmx_capabilities *cap, hpa_t vmcs)
{
	(void)cap;
	loaded = vmcs;
	return load_error;
}
void vmx_write_host_state(u64 gs_base, u64 tr_base, u64 gdtr, u64 idtr,
			  hpa_t cr3)
{
	u64 state[] = {gs_base, tr_base, gdtr, idtr, cr3};

	memcpy(host_state, state, sizeof(state));
}
"""
CDEF = """
extern int (*enter_hook)(void);
extern int handler_action;
extern u64 handler_ticks;
extern const char *handler_called;
extern unsigned host_vector, unblocked_nmi, checked;
extern u64 apic_deadline;
extern bool deadlines_are_right, by_deadline;
extern unsigned apic_sets;
extern int apic_error;
bool run_to_panic(struct vcpu *v);
extern bool stops_now;
extern u64 host_state[5];
extern u64 loaded;
extern int load_error;
"""
VALID, ERROR = 1 << 31, 1 << 11
EXTERNAL, NMI, EXCEPTION, SOFTWARE, PRIVILEGED, SOFT_EXCEPTION = (
    n << 8 for n in (0, 2, 3, 4, 5, 6))
IF, TF = 1 << 9, 1 << 8
STI, MOV_SS, SMI, BY_NMI = 1, 2, 4, 8
INTERRUPT_WINDOW, NMI_WINDOW, MWAIT_EXITING = 1 << 2, 1 << 22, 1 << 10
TPR_SHADOW = 1 << 21
APICV, CPU2 = 1 << 4 | 1 << 8 | 1 << 9, 0x10ac
CPU = 0x84006172
ACTIVE, HLT = 0, 1
RIP, LENGTH = 0x1000, 3


def build(sources=(), name="vcpu", more=()):
    """sources: {the tree's file: what to build instead}"""
    return vmxcpu.harness.build(
        name, [dict(sources).get(s, s) for s in (*SOURCES, *more)], fakes=FAKES,
        cdef=CDEF, headers=["arch/x86/vmx/ept.h", "arch/x86/vmx/vmx_check.h", "vmm/vcpu/vcpu.h", "kernel/percpu.h",
                 "arch/x86/vmx/vmx.h", "kernel/traps.h", *vmxcpu.HEADERS],
        exports=["lapic_set_cr8", "lapic_cr8", "lapic_pending"])


@pytest.fixture(scope="module")
def m():
    return build()


@dataclasses.dataclass
class Entry:
    """What the CPU finds at a VM entry."""
    info: int           # 0: nothing is injected
    error: int
    length: int
    windows: int
    activity: int
    rip: int
    timer: int
    threshold: int
    cr8: int

    @property
    def vector(self):
        return self.info & 0xff if self.info else None


class Vm:
    """A guest in long mode whose exits the test makes up."""

    def __init__(self, m, **state):
        self.m, self.cpu = m, vmxcpu.Cpu(m)
        self.vm = m.new("struct vm *")
        self.cap = m.new("struct vmx_capabilities *", {"cpu": CPU})
        self.pic = m.new("struct pic *")
        self.ept = m.new("struct ept *")
        self.vm.vmx, self.vm.ept = self.cap, self.ept
        self._keep = [m.ffi.new("char[]", m.ffi.sizeof("struct lapic") + 4096)]
        at = int(m.ffi.cast("uintptr_t", self._keep[0]))
        self.lapic = m.ffi.cast("struct lapic *", at + -at % 4096)
        part, self.apics = m.ffi.addressof, m.new("struct apic_bus *")
        self.v, self.bus = m.new("struct vcpu *"), m.new("struct bus *")
        m.vclock_init(part(self.vm.clock), 1 << 30)
        m.vclock_init(part(self.v.clock), 1 << 30)
        assert m.pic_init(self.pic, part(self.vm.bus)) == 0
        assert m.lapic_init(self.lapic, self.apics, self.bus,
                            part(self.v.clock), 0, 39) == 0
        m.lapic_virtual_wire(self.lapic)
        self.vm.vcpus[0] = self.v
        self.changed = m.callback("void(void *)",
                                  lambda _: setattr(self.v, "slack", -1))
        self.vm.clock.changed = self.v.clock.changed = self.changed
        self.v.bus = self.bus
        self.v.devices_next = part(self.vm.clock, "next")
        self.percpu = self.v.cpu = m.new("struct percpu *")
        self.v.vm, self.v.lapic, self.v.cpu_controls = self.vm, self.lapic, CPU
        self.preemption_timer(0)
        self.v.pic = self.pic
        self.lapic.attention = self.pic.attention = part(self.v, "attention")
        self.v.cpuid.features = part(self.vm.features)
        m.vcpu_forget_answers(self.v)
        self.set(CPU_CONTROLS=CPU, GUEST_RFLAGS=2 | IF, GUEST_RIP=RIP,
                 GUEST_CR0=0x80000021, GUEST_EFER=0x500, GUEST_CS_RIGHTS=0xa09b,
                 EXIT_LENGTH=LENGTH, **state)
        self.entries, self.on_the_way = [], []
        m.lib.handler_action, m.lib.handler_called = m.EXIT_SKIP, m.NULL
        m.lib.handler_ticks = 0
        m.lib.host_vector = m.lib.unblocked_nmi = m.lib.checked = 0

    def set(self, **fields):
        for name, value in fields.items():
            self.cpu.write(getattr(self.m, f"VMCS_{name}"), value)

    def preemption_timer(self, shift, most=2**32 - 1):
        self.v.timer_shift, self.v.timer_max = shift, most
        self.v.timer_limit, self.v.slack_max = most << shift, -1

    def tpr_shadow(self):
        """CR8 is the guest's own; its moves exit by the threshold alone."""
        self.v.cpu_controls |= TPR_SHADOW
        self.set(CPU_CONTROLS=self.v.cpu_controls)

    def __getitem__(self, name):
        return self.cpu.read(getattr(self.m, f"VMCS_{name}"))

    def _enter(self):
        if self.on_the_way:
            self.on_the_way.pop()()
            return self.m.VMX_TURNED
        info = self["ENTRY_INTERRUPTION"]
        info = info if info & VALID else 0
        self.entries.append(Entry(
            info, self["ENTRY_ERROR_CODE"] if info & ERROR else 0,
            self["ENTRY_LENGTH"] if info else 0,
            self["CPU_CONTROLS"] & (INTERRUPT_WINDOW | NMI_WINDOW),
            self["GUEST_ACTIVITY"], self["GUEST_RIP"],
            self["PREEMPTION_TIMER"], self["TPR_THRESHOLD"],
            self.m.lapic_cr8(self.lapic)))
        # An event makes the guest active, and an exit clears the valid bit;
        # after an NMI others are blocked until an IRET (SDM 27.6, 28.2).
        self.set(ENTRY_INTERRUPTION=info & ~VALID, IDT_VECTORING=0)
        if info & 0x700 == NMI and info:
            self.set(GUEST_INTERRUPTIBILITY=self["GUEST_INTERRUPTIBILITY"] |
                     BY_NMI)
        if not self.exits:
            self.vm.request = self.m.VM_POWER_OFF
            self.set(EXIT_REASON=self.m.EXIT_PREEMPTION_TIMER)
            return 0
        exit = self.exits.popleft()
        if callable(exit):
            exit = exit() or {}
        if isinstance(exit, int):
            exit = {"EXIT_REASON": exit}
        self.set(**{"EXIT_REASON": self.m.EXIT_PREEMPTION_TIMER, **exit})
        return exit.get("fail", 0) if "fail" in exit else 0

    def run(self, *exits):
        """The entries, one more than exits: fields of the VMCS after each, a
        reason, or a function that says so."""
        self.exits, self.entries = collections.deque(exits), []
        self.vm.request = self.m.VM_RUN
        self.m.clear_events()
        self.m.lib.enter_hook = self.m.callback("int(*)(void)", self._enter)
        self.panicked = self.m.run_to_panic(self.v)
        return self.entries

    def interrupt(self, vector, level=False):
        message = self.m.new("struct apic_message *", {
            "vector": vector, "level": level})
        assert self.m.lapic_accept(self.lapic, message)

    def message(self, delivery):
        message = self.m.new("struct apic_message *", {"delivery": delivery})
        assert self.m.lapic_accept(self.lapic, message)


@pytest.fixture
def vm(m):
    return Vm(m)


def written(vm, name):
    field = getattr(vm.m, f"VMCS_{name}")
    return [e.value for e in vm.m.events("vmwrite") if e.addr == field]


# --- Interrupts and NMIs -------------------------------------------------

def test_nothing_due(vm):
    """Nothing is injected, and no control is written."""
    for entry in vm.run(vm.m.EXIT_CPUID, vm.m.EXIT_CPUID):
        assert (entry.info, entry.windows, entry.activity) == (0, 0, ACTIVE)
    assert not written(vm, "CPU_CONTROLS") + written(vm, "GUEST_ACTIVITY")
    assert [e.rip for e in vm.entries] == [RIP, RIP + 3, RIP + 6]


def test_an_interrupt(vm):
    vm.interrupt(0x41)
    entries = vm.run(*[vm.m.EXIT_CPUID] * 2)
    assert [e.info for e in entries] == [VALID | EXTERNAL | 0x41, 0, 0]
    assert [e.windows for e in entries] == [0, 0, 0]
    # In service: the same again waits for its EOI, behind the priority.
    vm.interrupt(0x41)
    (entry,) = vm.run()
    assert (entry.info, entry.windows) == (0, 0)
    vm.m.lapic_eoi(vm.lapic)
    assert vm.run()[0].vector == 0x41


@pytest.mark.parametrize("state", [
    {"GUEST_RFLAGS": 2}, {"GUEST_INTERRUPTIBILITY": STI},
    {"GUEST_INTERRUPTIBILITY": MOV_SS}])
def test_the_interrupt_window(vm, state):
    """Open while the guest takes no interrupt; shut when it has it."""
    vm.set(**state)
    vm.interrupt(0x41)
    vm.interrupt(0x52)
    entries = vm.run(vm.m.EXIT_IO, {
        "EXIT_REASON": vm.m.EXIT_INTERRUPT_WINDOW, "GUEST_RFLAGS": 2 | IF,
        "GUEST_INTERRUPTIBILITY": 0}, vm.m.EXIT_IO)
    if "GUEST_RFLAGS" in state:
        assert [e.vector for e in entries] == [None, None, 0x52, None]
        assert [e.windows for e in entries] == [INTERRUPT_WINDOW] * 2 + [0, 0]
    else:       # the instruction that exited ends the blocking
        assert [e.vector for e in entries] == [None, 0x52, None, None]
        assert [e.windows for e in entries] == [INTERRUPT_WINDOW, 0, 0, 0]
    # The lower one's turn comes with the EOI.
    vm.m.lapic_eoi(vm.lapic)
    assert vm.run()[0].vector == 0x41


def test_the_window_stays_open_for_the_next(vm):
    """The guest's gate clears IF: the higher vector waits in a window."""
    vm.interrupt(0x41)
    entries = vm.run(lambda: (vm.interrupt(0x61), vm.set(GUEST_RFLAGS=2)) and
                     {"EXIT_REASON": vm.m.EXIT_EXTERNAL_INTERRUPT},
                     {"EXIT_REASON": vm.m.EXIT_INTERRUPT_WINDOW,
                      "GUEST_RFLAGS": 2 | IF})
    assert [e.vector for e in entries] == [0x41, None, 0x61]
    assert [e.windows for e in entries] == [0, INTERRUPT_WINDOW, 0]


def test_priority_threshold(vm):
    """Below the TPR nothing comes, and no window opens; lowering it, or an
    EOI, delivers at the next entry."""
    vm.m.lapic_set_cr8(vm.lapic, 4)
    vm.interrupt(0x41)
    lower = lambda: vm.m.lapic_set_cr8(vm.lapic, 3)
    entries = vm.run(vm.m.EXIT_CPUID, lower, vm.m.EXIT_CPUID)
    assert [e.vector for e in entries] == [None, None, 0x41, None]
    assert not any(e.windows for e in entries)


def test_a_self_ipi_that_cannot_be(vm):
    """Below vector 16 it exits, written (SDM 30.5); an error bit tells of it."""
    Apicv(vm)
    vm.lapic.page[4 * vm.m.LAPIC_SELF_IPI] = 5
    vm.run({"EXIT_REASON": vm.m.EXIT_APIC_WRITE, "QUALIFICATION": 0x3f0})
    assert vm.lapic.errors == 1 << 5


class Apicv:
    """What the CPU does with the virtual-APIC page: SDM 30.1.3, 30.1.4, 30.2,
    30.5. Its deeds cause no exit but where they return one."""

    def __init__(self, vm):
        self.vm, self.m = vm, vm.m
        vm.tpr_shadow()
        vm.cap.apicv, vm.cap.cpu2, vm.lapic.base = APICV, CPU2, 0xfee00c00
        self.came, self.wrong = [], []

    def _bits(self, register):
        return {32 * n + bit for n in range(8) for bit in range(32)
                if self.vm.lapic.page[4 * (register + n)] >> bit & 1}

    def _put(self, register, vector, on):
        word = self.vm.lapic.page
        at, bit = 4 * (register + vector // 32), 1 << vector % 32
        word[at] = word[at] | bit if on else word[at] & ~bit

    def status(self):
        """RVI, SVI"""
        status = self.vm["GUEST_INTERRUPT_STATUS"]
        return status & 0xff, status >> 8

    def entered(self):
        """The state that the entry loads, and the interrupt that it lets in."""
        loaded = (self.status(), self.vm["CPU_CONTROLS2"],
                  self.vm.entries[-1].info, self.vm.entries[-1].threshold)
        highest = [max(self._bits(reg), default=0) for reg in (
            self.m.LAPIC_IRR, self.m.LAPIC_ISR)]
        if loaded != (tuple(highest), CPU2 | APICV, 0, 0):
            self.wrong.append((loaded, highest))
        self.evaluate()

    def evaluate(self):
        """Bits that no status tells of are not there for the CPU."""
        m, (rvi, svi) = self.m, self.status()
        if rvi >> 4 <= max(svi >> 4, m.lapic_cr8(self.vm.lapic)):
            return
        self._put(m.LAPIC_IRR, rvi, False)
        self._put(m.LAPIC_ISR, rvi, True)
        self.came.append(rvi)
        self._set(max(self._bits(m.LAPIC_IRR), default=0), rvi)

    def _set(self, rvi, svi):
        self.vm.set(GUEST_INTERRUPT_STATUS=rvi | svi << 8)

    def cr8(self, value):
        self.m.lapic_set_cr8(self.vm.lapic, value)
        self.evaluate()

    def self(self, vector):
        rvi, svi = self.status()
        self._put(self.m.LAPIC_IRR, vector, True)
        self._set(max(rvi, vector), svi)
        self.evaluate()

    def eoi(self, _):
        m, (rvi, svi) = self.m, self.status()
        if svi:
            self._put(m.LAPIC_ISR, svi, False)
        self._set(rvi, max(self._bits(m.LAPIC_ISR), default=0))
        if self.vm.cpu.read(m.VMCS_EOI_EXIT + 2 * (svi // 64)) >> svi % 64 & 1:
            return {"EXIT_REASON": m.EXIT_EOI, "QUALIFICATION": svi}
        self.evaluate()


def by_deeds(m, deeds, how="exits"):
    """(the vectors that come, and the EOIs that the IOAPIC hears of, each with
    the number of deeds before it; exits of the guest's deeds). With the TPR
    shadow MOV CR8 exits below the threshold alone (SDM 30.1.2)."""
    vm, done, seen, let_in, exits = Vm(m), 0, [], [], 0
    apicv = Apicv(vm) if how == "apicv" else None
    ended = m.callback("void(*)(void *, u8)", lambda ctx, vector: seen.append(
        (done, "EOI", vector)))
    vm.apics.eoi = ended
    word = m.new("u32 *")
    if how == "shadow":
        vm.tpr_shadow()
    if how == "paravirtual":
        m.lapic_pv_eoi(vm.lapic, word)

    def others(name, value):
        """A deed of the guest's that exits."""
        if name == "cr8":
            m.lapic_set_cr8(vm.lapic, value)
            return m.EXIT_CR_ACCESS
        if name == "eoi":
            m.lapic_eoi(vm.lapic)
        else:
            vm.interrupt(value)
        return m.EXIT_WRMSR

    def look():
        if apicv:
            seen.extend((done, vector) for vector in apicv.came)
            apicv.came.clear()
        elif vm.entries[-1].info:
            seen.append((done, vm.entries[-1].vector))

    def exit():
        nonlocal done, exits
        if apicv:
            apicv.entered()
        look()
        while done < len(deeds):
            name, value = deeds[done]
            done += 1
            if name in ("edge", "level"):
                vm.interrupt(value, name == "level")
                return m.EXIT_EXTERNAL_INTERRUPT
            if how == "shadow" and name == "cr8":
                m.lapic_set_cr8(vm.lapic, value)
                if value >= vm["TPR_THRESHOLD"]:
                    continue
                let_in.append(len(vm.entries))
                reason = m.EXIT_TPR_BELOW_THRESHOLD
            elif word[0] and name == "eoi":
                word[0] = 0
                continue
            elif apicv:
                reason = getattr(apicv, name)(value)
                look()
                if not reason:
                    continue
            else:
                reason = others(name, value)
            exits += 1
            return reason
        return m.EXIT_CPUID
    vm.run(*[exit] * (len(deeds) + 2))
    assert done == len(deeds) and all(vm.entries[n].info for n in let_in)
    # SDM 27.2.1.1
    assert how != "shadow" or all(e.threshold <= e.cr8 for e in vm.entries)
    assert not apicv or not apicv.wrong
    return seen, exits


VECTORS = st.integers(16, 255).map(lambda vector: vector & ~3 | 1)
LAPIC_DEEDS = st.lists(st.one_of(
    st.tuples(st.just("cr8"), st.integers(0, 15)),
    st.tuples(st.sampled_from(["edge", "self"]), VECTORS),
    # A self-IPI leaves the TMR as it is: these are others.
    st.tuples(st.just("level"), VECTORS.map(lambda vector: vector | 3)),
    st.tuples(st.just("eoi"), st.just(0))), max_size=30)


@pytest.mark.parametrize("how", ["shadow", "apicv", "paravirtual"])
@settings(max_examples=200, deadline=None)
@given(LAPIC_DEEDS)
def test_no_vector_is_lost_without_exits(m, how, deeds):
    """Each comes behind the deed that lets it in, as where each deed exits; a
    MOV CR8 that exits lets one in."""
    assert by_deeds(m, deeds, how)[0] == by_deeds(m, deeds)[0]


LOWERED = [("cr8", 6), ("edge", 0x41), ("edge", 0x52), ("cr8", 5),
           ("cr8", 15), ("cr8", 4), ("cr8", 3), ("cr8", 4), ("eoi", 0),
           ("cr8", 3), ("eoi", 0)] + [("cr8", n % 16) for n in range(100)]


def test_mov_cr8_exits_for_what_waits_alone(m):
    assert by_deeds(m, LOWERED, "shadow")[0] == [(6, 0x52), (10, 0x41)]
    assert by_deeds(m, LOWERED, "shadow")[1] == 2 + 2
    assert by_deeds(m, LOWERED) == ([(6, 0x52), (10, 0x41)], 107 + 2)


ALONE = [("self", 0x61), ("eoi", 0), ("level", 0x42), ("edge", 0x31),
         ("self", 0x43), ("eoi", 0), ("eoi", 0), ("eoi", 0)]


def test_apicv_exits_for_the_ioapic_alone(m):
    assert by_deeds(m, ALONE, "apicv") == (
        [(1, 0x61), (3, 0x42), (6, "EOI", 0x42), (6, 0x43), (7, 0x31)], 1)


WAITING = [("edge", 0x41), ("eoi", 0), ("edge", 0x52), ("edge", 0x61),
           ("eoi", 0), ("eoi", 0), ("level", 0x43), ("eoi", 0), ("edge", 0x52),
           ("edge", 0x41), ("eoi", 0), ("eoi", 0)]


def test_a_paravirtual_eoi_exits_where_somebody_waits(m):
    """Of a vector in service alone, and of the last, there is no exit; of a
    level interrupt's, and of one behind which another waits, there is."""
    assert by_deeds(m, WAITING, "paravirtual") == (
        [(1, 0x41), (3, 0x52), (4, 0x61), (7, 0x43), (8, "EOI", 0x43),
         (9, 0x52), (11, 0x41)], 3)
    assert by_deeds(m, WAITING)[1] == 6


def test_what_reads_the_lapic_hears_of_a_paravirtual_eoi(vm):
    word = vm.m.new("u32 *")
    vm.m.lapic_pv_eoi(vm.lapic, word)
    vm.interrupt(0x41)
    vm.run()
    assert word[0] == 1
    word[0] = 0
    access = vm.m.new("struct bus_access *", {
        "addr": 0xfee00000 + 16 * (vm.m.LAPIC_ISR + 2), "size": 4})
    assert vm.m.bus_dispatch(vm.v.bus, vm.m.BUS_MMIO, access) == 0
    assert access.value == 0
    vm.interrupt(0x51)
    vm.run()
    vm.m.lapic_init_signal(vm.lapic)
    assert vm.lapic.pv_eoi == vm.m.NULL


def test_apicv_begins_and_ends_with_x2apic_mode(vm):
    """Its MSRs are open no longer than that."""
    apicv, bitmaps = Apicv(vm), (0x1000, 0x2000)
    vm.vm.msr_bitmap, vm.vm.apicv_bitmap = (
        vm.m.ffi.cast("void *", n) for n in bitmaps)
    state = lambda: (vm["CPU_CONTROLS2"], vm["MSR_BITMAP"])
    vm.run()
    assert state() == (CPU2 | APICV, 0x2000)
    access = vm.m.new("struct bus_access *", {
        "addr": 0x1b, "size": 8, "write": True, "value": 0xfee00000})
    vm.run(lambda: vm.m.bus_dispatch(vm.v.bus, vm.m.BUS_MSR, access) and None)
    assert state() == (CPU2, 0x1000)
    vm.lapic.base = 0xfee00900
    vm.m.lapic_virtual_wire(vm.lapic)
    vm.interrupt(0x41)
    assert vm.run()[0].vector == 0x41 and apicv.status() == (0, 0)


def test_apicv_wakes_a_guest_that_is_halted(vm):
    """Bochs's CPU does not."""
    apicv = Apicv(vm)
    entries = vm.run(vm.m.EXIT_HLT, vm.m.EXIT_EXTERNAL_INTERRUPT,
                     lambda: vm.interrupt(0x41))
    assert [e.activity for e in entries] == [ACTIVE, HLT, HLT, ACTIVE]
    assert apicv.status() == (0x41, 0) and not any(e.info for e in entries)


def test_apicv_and_mwait(vm):
    """With IF = 0 what waits ends it, by an exit."""
    Apicv(vm)
    vm.vm.features.mwait = 1
    exiting = lambda: vm["CPU_CONTROLS"] & MWAIT_EXITING
    vm.v.cpu_controls &= ~MWAIT_EXITING
    vm.set(GUEST_RFLAGS=2, CPU_CONTROLS=vm.v.cpu_controls)
    vm.run()
    assert not exiting()
    vm.interrupt(0x41)
    assert vm.run()[0].windows == 0 and exiting()


def test_apicv_and_the_8259(vm):
    """Its interrupt is injected as ever, in its window; a virtual one is not
    delivered meanwhile (SDM 30.2.2)."""
    Apicv(vm)
    vm.set(GUEST_RFLAGS=2)
    vm.interrupt(0x41)
    (entry,) = vm.run()
    assert entry.windows == 0
    wire_8259(vm)
    vm.m.pic_set_line(vm.pic, 3, True)
    entries = vm.run({"EXIT_REASON": vm.m.EXIT_INTERRUPT_WINDOW,
                      "GUEST_RFLAGS": 2 | IF})
    assert [e.windows for e in entries] == [INTERRUPT_WINDOW, 0]
    assert [e.vector for e in entries] == [None, 0x23]


def test_a_tpr_that_an_exit_lowers(vm):
    """By MMIO, while a window is open for the 8259's: no entry has a threshold
    above the TPR (SDM 27.2.1.1)."""
    wire_8259(vm)
    vm.tpr_shadow()
    vm.set(GUEST_RFLAGS=2)
    vm.m.lapic_set_cr8(vm.lapic, 6)
    vm.interrupt(0x61)
    vm.m.pic_set_line(vm.pic, 3, True)
    entries = vm.run(vm.m.EXIT_CPUID, lambda: vm.m.lapic_set_cr8(vm.lapic, 3),
                     vm.m.EXIT_CPUID)
    assert entries[0].threshold == 6 and entries[-1].cr8 == 3
    assert all(e.windows == INTERRUPT_WINDOW for e in entries)
    assert all(e.threshold <= e.cr8 for e in entries)


def test_what_waits_for_if_needs_no_threshold(vm):
    """Nor may one be above the TPR (SDM 27.2.1.1)."""
    vm.tpr_shadow()
    vm.set(GUEST_RFLAGS=2)
    vm.interrupt(0x41)
    (entry,) = vm.run()
    assert (entry.windows, entry.threshold) == (INTERRUPT_WINDOW, 0)


def test_nmi(vm):
    vm.message(vm.m.APIC_NMI)
    entries = vm.run(vm.m.EXIT_CPUID)
    assert [e.info for e in entries] == [VALID | NMI | 2, 0]
    assert [e.windows for e in entries] == [0, 0]


def test_an_nmi_in_the_shadow_of_sti(vm):
    """The window for it may open before any instruction (SDM 26.4.2): it is
    injected at once, and entry wants no shadow then (27.3.1.5)."""
    vm.set(GUEST_INTERRUPTIBILITY=STI)
    vm.message(vm.m.APIC_NMI)
    entries = vm.run({"EXIT_REASON": vm.m.EXIT_EXTERNAL_INTERRUPT})
    assert [e.vector for e in entries] == [2, None]
    assert vm["GUEST_INTERRUPTIBILITY"] == BY_NMI


@pytest.mark.parametrize("blocking", [BY_NMI, MOV_SS, STI | BY_NMI])
def test_the_nmi_window(vm, blocking):
    """SDM 27.6.1: entry with an NMI needs no blocking but by SMI."""
    vm.set(GUEST_INTERRUPTIBILITY=blocking)
    vm.message(vm.m.APIC_NMI)
    entries = vm.run({"EXIT_REASON": vm.m.EXIT_EXTERNAL_INTERRUPT},
                     {"EXIT_REASON": vm.m.EXIT_NMI_WINDOW,
                      "GUEST_INTERRUPTIBILITY": SMI}, vm.m.EXIT_CPUID)
    assert [e.vector for e in entries] == [None, None, 2, None]
    assert [e.windows for e in entries] == [NMI_WINDOW, NMI_WINDOW, 0, 0]


def test_an_nmi_goes_first(vm):
    """SDM table 6-2; the interrupt follows, in its window."""
    vm.interrupt(0x41)
    vm.message(vm.m.APIC_NMI)
    entries = vm.run({"EXIT_REASON": vm.m.EXIT_INTERRUPT_WINDOW,
                      "GUEST_INTERRUPTIBILITY": BY_NMI})
    assert [e.vector for e in entries] == [2, 0x41]
    assert [e.windows for e in entries] == [INTERRUPT_WINDOW, 0]


def test_nmis_while_one_is_handled(vm):
    """One waits in its window; interrupts come meanwhile."""
    vm.message(vm.m.APIC_NMI)
    vm.interrupt(0x41)
    again = lambda: vm.message(vm.m.APIC_NMI)
    entries = vm.run(again, vm.m.EXIT_CPUID, {
        "EXIT_REASON": vm.m.EXIT_NMI_WINDOW, "GUEST_INTERRUPTIBILITY": 0})
    assert [e.vector for e in entries] == [2, 0x41, None, 2]
    assert [e.windows for e in entries] == [INTERRUPT_WINDOW, NMI_WINDOW,
                                            NMI_WINDOW, 0]


def test_a_host_nmi_is_passed_on(vm):
    nmi = {"EXIT_REASON": vm.m.EXIT_EXCEPTION_NMI,
           "EXIT_INTERRUPTION": VALID | NMI | 2}
    entries = vm.run(nmi)
    assert [e.vector for e in entries] == [None, 2]
    assert vm.m.unblocked_nmi == 1


def wire_8259(vm):
    """Vectors from 0x20, no input masked."""
    for port, value in [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1),
                        (0x21, 0)]:
        access = vm.m.new("struct bus_access *", {
            "addr": port, "size": 1, "write": True, "value": value})
        assert vm.m.bus_dispatch(vm.m.ffi.addressof(vm.vm.bus),
                                 vm.m.BUS_PORT, access) == 0


@pytest.mark.parametrize("what, vector", [
    ("interrupt", 0x41), ("nmi", 2), ("8259", 0x23), ("host", 2)])
def test_what_comes_when_all_is_quiet(vm, what, vector):
    """The next entry has it."""
    wire_8259(vm)

    def comes():
        if what == "interrupt":
            vm.interrupt(vector)
        elif what == "nmi":
            vm.message(vm.m.APIC_NMI)
        elif what == "8259":
            vm.m.pic_set_line(vm.pic, 3, True)
        else:       # trap_handle() of kernel/traps.c kicks the CPU
            vm.percpu.nmis = 1
            return {"EXIT_REASON": vm.m.EXIT_EXTERNAL_INTERRUPT}
    entries = vm.run(vm.m.EXIT_CPUID, vm.m.EXIT_CPUID, comes, vm.m.EXIT_CPUID)
    assert [e.vector for e in entries] == [None] * 3 + [vector, None]


@pytest.mark.parametrize("lint0, vector", [
    (0x700, 0x23), (0x10700, None), (0x041, None)],
    ids=["ExtINT", "masked", "fixed"])
def test_the_8259s(vm, lint0, vector):
    """Their INTR by virtual wire, as LINT0 says (SDM 10.1)."""
    wire_8259(vm)
    vm.lapic.page[4 * vm.m.LAPIC_LVT_LINT0] = lint0
    vm.m.pic_set_line(vm.pic, 3, True)
    entries = vm.run(vm.m.EXIT_CPUID)
    assert [e.vector for e in entries] == [vector, None]
    assert vm.pic.intr == (vector is None)


def test_an_extint_message(vm):
    """Of an IOAPIC's pin or another CPU: taken from the 8259s, once."""
    wire_8259(vm)
    vm.lapic.page[4 * vm.m.LAPIC_LVT_LINT0] = 0x10700
    vm.m.pic_set_line(vm.pic, 3, True)
    vm.message(vm.m.APIC_EXTINT)
    entries = vm.run(vm.m.EXIT_CPUID)
    assert [e.vector for e in entries] == [0x23, None]


def test_a_request_that_is_withdrawn(vm):
    """Masked before the guest took it: the window's exit shuts it again."""
    wire_8259(vm)
    vm.set(GUEST_RFLAGS=2)
    vm.m.pic_set_line(vm.pic, 3, True)

    def mask():
        vm.pic.chip[0].imr = 0xff
        vm.m.pic_set_line(vm.pic, 3, False)
    entries = vm.run(vm.m.EXIT_CPUID, mask, {
        "EXIT_REASON": vm.m.EXIT_INTERRUPT_WINDOW, "GUEST_RFLAGS": 2 | IF},
        vm.m.EXIT_CPUID)
    assert [e.windows for e in entries] == [INTERRUPT_WINDOW] * 3 + [0, 0]
    assert not any(e.info for e in entries)


def test_a_timer_that_is_due_behind_the_look(vm):
    """What the look has handed over goes in first, the timer's own behind it."""
    m, clock = vm.m, vm.m.ffi.addressof(vm.v.clock)
    keep = []

    def timer(deadline, fire):
        one = m.new("struct vtimer *")
        call = m.callback("void(*)(void *, u64)", lambda *_: fire())
        keep.extend((one, call))
        assert m.vclock_add(clock, one, call, m.ffi.NULL) == 0
        m.vtimer_set(clock, one, deadline)

    def late():
        vm.interrupt(0x41)
        m.tsc = m.tsc + 200
    timer(m.tsc + 100, late)
    timer(m.tsc + 200, lambda: vm.interrupt(0x81))

    def timer_exit():
        m.tsc = max(m.tsc, 150)
        return m.EXIT_PREEMPTION_TIMER
    m.tsc = 0
    entries = vm.run(*[timer_exit] * 3)
    assert [e.vector for e in entries if e.info] == [0x41, 0x81]


def test_a_request_that_the_lapic_does_not_pass_on(vm):
    """No window tells of it: each exit looks whether it does."""
    wire_8259(vm)
    lint0 = 4 * vm.m.LAPIC_LVT_LINT0
    was, vm.lapic.page[lint0] = vm.lapic.page[lint0], 1 << 16
    vm.m.pic_set_line(vm.pic, 3, True)

    def unmask():
        vm.lapic.page[lint0] = was
    entries = vm.run(vm.m.EXIT_CPUID, unmask)
    assert [(e.vector, e.windows) for e in entries] == [
        (None, 0), (None, 0), (0x23, 0)]


def test_init_resets(vm):
    vm.message(vm.m.APIC_INIT)
    assert vm.run() == [] and vm.vm.request == vm.m.VM_RESET


def test_a_start_up_ipi_is_nothing(vm):
    vm.message(vm.m.APIC_SIPI)
    assert [e.info for e in vm.run(vm.m.EXIT_SIPI)] == [0, 0]


# --- Events that an exit cut short ---------------------------------------

@pytest.mark.parametrize("kind, vector, error, length", [
    (EXTERNAL, 0x41, None, 0), (EXCEPTION, 6, None, 0),
    (EXCEPTION, 14, 0x12, 0), (SOFTWARE, 0x80, None, 2),
    (PRIVILEGED, 1, None, 1), (SOFT_EXCEPTION, 3, None, 1)])
def test_vectoring(vm, kind, vector, error, length):
    """SDM 28.2.4, 27.6: delivered again, before what else is pending."""
    info = VALID | kind | vector | (0 if error is None else ERROR)
    vm.set(GUEST_RFLAGS=2)
    vm.interrupt(0x51)
    cut = {"EXIT_REASON": vm.m.EXIT_EPT_VIOLATION, "IDT_VECTORING":
           info | 1 << 12, "IDT_VECTORING_ERROR": error or 0,
           "EXIT_LENGTH": length}
    vm.m.lib.handler_action = vm.m.EXIT_RESUME
    _, entry, after, last = vm.run(cut, vm.m.EXIT_CPUID,
                                   lambda: vm.interrupt(0x61))
    assert entry.info == info and entry.rip == RIP
    assert entry.error == (error or 0)
    if length:
        assert entry.length == length
    assert entry.windows == INTERRUPT_WINDOW
    assert after.info == last.info == 0


def test_vectoring_of_an_nmi(vm):
    """It is not being handled yet: blocking would refuse the entry."""
    vm.m.lib.handler_action = vm.m.EXIT_RESUME
    vm.message(vm.m.APIC_NMI)
    cut = {"EXIT_REASON": vm.m.EXIT_EPT_VIOLATION,
           "IDT_VECTORING": VALID | NMI | 2,
           "GUEST_INTERRUPTIBILITY": BY_NMI}
    blocked = []
    entries = vm.run(cut, lambda: blocked.append(
        written(vm, "GUEST_INTERRUPTIBILITY")))
    assert [e.info for e in entries] == [VALID | NMI | 2] * 2 + [0]
    assert blocked == [[0]]


def test_vectoring_without_protection_has_no_error(vm):
    """Real-address mode pushes none: SDM 27.2.1.3."""
    vm.set(GUEST_CR0=0x20)
    vm.m.lib.handler_action = vm.m.EXIT_RESUME
    cut = {"EXIT_REASON": vm.m.EXIT_EPT_VIOLATION,
           "IDT_VECTORING": VALID | EXCEPTION | ERROR | 13}
    assert vm.run(cut)[1].info == VALID | EXCEPTION | 13


def test_an_exit_in_vectoring_that_faults(vm):
    """A page fault cut short, and #GP by the handler: a double fault."""
    vm.m.lib.handler_action = vm.m.EXIT_GP
    cut = {"EXIT_REASON": vm.m.EXIT_EPT_VIOLATION,
           "IDT_VECTORING": VALID | EXCEPTION | ERROR | 14}
    entry = vm.run(cut)[1]
    assert (entry.info, entry.error) == (VALID | EXCEPTION | ERROR | 8, 0)


def test_stale_vectoring_is_left(vm):
    assert vm.run({"EXIT_REASON": vm.m.EXIT_CPUID,
                   "IDT_VECTORING": EXTERNAL | 0x41})[1].info == 0


# --- HLT, time -----------------------------------------------------------

def test_hlt(vm):
    """Asleep at each entry, until something wakes the guest."""
    wake = lambda: vm.interrupt(0x41)
    entries = vm.run(vm.m.EXIT_HLT, vm.m.EXIT_EXTERNAL_INTERRUPT,
                     vm.m.EXIT_PREEMPTION_TIMER, wake, vm.m.EXIT_CPUID)
    assert [e.activity for e in entries] == [ACTIVE, HLT, HLT, HLT, ACTIVE,
                                             ACTIVE]
    assert [e.vector for e in entries] == [None] * 4 + [0x41, None]
    assert [e.rip for e in entries] == [RIP] + [RIP + 3] * 4 + [RIP + 6]
    # Bochs saves "active" at an exit from HLT: it is written each time.
    assert written(vm, "GUEST_ACTIVITY") == [HLT, HLT, HLT, ACTIVE]


def test_hlt_with_interrupts_off(vm):
    """Only an NMI ends it; a window would not."""
    vm.set(GUEST_RFLAGS=2)
    entries = vm.run(vm.m.EXIT_HLT, lambda: vm.interrupt(0x41),
                     lambda: vm.message(vm.m.APIC_NMI), vm.m.EXIT_CPUID)
    assert [e.activity for e in entries] == [ACTIVE, HLT, HLT, ACTIVE, ACTIVE]
    assert [e.vector for e in entries] == [None, None, None, 2, None]
    assert [e.windows for e in entries] == [0, 0, 0] + [INTERRUPT_WINDOW] * 2


def test_hlt_behind_sti(vm):
    """STI; HLT with an interrupt pending: HLT ends the blocking."""
    vm.set(GUEST_INTERRUPTIBILITY=STI)
    vm.interrupt(0x41)
    entries = vm.run(vm.m.EXIT_HLT)
    assert [e.vector for e in entries] == [None, 0x41]
    assert entries[1].activity == ACTIVE and entries[1].rip == RIP + 3


def test_the_timer_wakes(vm):
    """The VMX-preemption timer is due when the LAPIC's is."""
    m = vm.m
    vm.lapic.page[4 * m.LAPIC_LVT_TIMER] = 0x41
    timer = m.ffi.addressof(vm.lapic.timer)
    vm.lapic.deadline = 1000
    m.vtimer_set(m.ffi.addressof(vm.v.clock), timer, 1000)

    def at(tsc):
        def later():
            m.tsc = tsc
        return later
    entries = vm.run(m.EXIT_HLT, at(999), at(1000))
    assert [e.vector for e in entries] == [None, None, None, 0x41]
    assert [e.activity for e in entries] == [ACTIVE, HLT, HLT, ACTIVE]
    assert [e.timer for e in entries] == [1001, 1001, 2, 0xffffffff]


@pytest.mark.parametrize("tpr, again", [(0, False), (0xf0, True)])
def test_what_a_timer_brings_is_looked_for_once(vm, tpr, again):
    """The look that runs it hands it over; the next exit is quiet, but where
    it waits for the TPR."""
    m = vm.m
    vm.lapic.page[4 * m.LAPIC_LVT_TIMER] = 0x41
    vm.lapic.page[4 * m.LAPIC_TPR] = tpr
    vm.lapic.deadline = 1000
    m.vtimer_set(m.ffi.addressof(vm.v.clock),
                 m.ffi.addressof(vm.lapic.timer), 1000)
    seen = []

    def due():
        m.tsc = 1000
        return m.EXIT_PREEMPTION_TIMER

    def behind():
        seen.append(vm.v.attention)
        return m.EXIT_CPUID
    entries = vm.run(m.EXIT_CPUID, due, behind, m.EXIT_CPUID)
    assert [e.vector for e in entries][2] == (None if again else 0x41)
    assert seen == [again]


def test_a_timers_request_ends_the_run(vm):
    """As an entry would if there were an event: it is looked at each time."""
    m = vm.m
    clock = m.ffi.addressof(vm.vm.clock)
    timer = m.new("struct vtimer *")

    @m.ffi.callback("void(void *, uint64_t)")
    def stop(_dev, _now):
        vm.vm.request = m.VM_STOP
    assert m.vclock_add(clock, timer, stop, m.ffi.NULL) == 0
    m.vtimer_set(clock, timer, 1000)

    def later():
        m.tsc = 1000
    assert len(vm.run(later, m.EXIT_CPUID)) == 1
    assert vm.vm.request == m.VM_STOP


@pytest.mark.parametrize("shift", [0, 5, 7])
def test_the_preemption_timer_is_never_early(vm, shift):
    vm.preemption_timer(shift)
    for left in (1, 31, 32, 33, 1000, 2**32 - 1, 2**39, 2**63):
        vm.vm.clock.next, vm.m.tsc = 5000 + left, 5000
        (entry,) = vm.run()
        assert entry.timer <= 0xffffffff
        assert entry.timer << shift > left or entry.timer == 0xffffffff
        assert entry.timer <= (left >> shift) + 1


# --- The clock, on CPUs whose preemption timer is wrong --------------------

NEVER = 2**64 - 1
ARRANDALE = 0x20652
SHIFT, RATIO = 5, 84            # Skylake-SP: 2.1 GHz of 25 MHz
AT_ONCE = 2**25 * RATIO         # values from here on


class Clocks:
    """A CPU whose guest does nothing: TSC, preemption timer, APIC's timer.

    counts(value): timer counts till the preemption timer is over, or NEVER.
    early: ticks that the APIC's timer comes before its deadline, at most.
    arat: of a CPU with MWAIT, in whose deepest state the guest waits.
    busy: ticks after which the guest causes an exit, in the first half of
    each million; away: those that the CPU is on its way there and back."""

    def __init__(self, vm, init, counts, signature=0x50654, early=0,
                 asked="AUTO", arat=None, busy=NEVER, away=0, saves=True):
        m = vm.m
        self.vm, self.m, self.counts, self.early = vm, m, counts, early
        self.arat, mwait = arat, arat is not None
        self.busy, self.away = busy, away
        vmxcpu.skylake(m)
        if not saves:
            vm.cpu.set_msr(m.MSR_VMX_TRUE_EXIT, 0x01bfffff00036dfb)
        vm.cpu.cpuid(0, eax=0x16)
        vm.cpu.cpuid(1, eax=signature, ecx=1 << 5 | mwait << 3)
        vm.cpu.cpuid(6, eax=4 if arat else 0)
        vm.cpu.cpuid(0x15, eax=2, ebx=2 * RATIO)
        vm.cpu.set_msr(m.MSR_VMX_MISC, 0x7004c1e0 | SHIFT)
        assert m.vmx_probe(vm.cap) == 0
        assert m.vmx_choose_clock(vm.cap, getattr(m, f"CLOCK_{asked}")) == 0
        for field in range(m.VMCS_FIELDS):
            vm.cpu.write(field, 0)
        assert init() == 0
        vm.set(GUEST_RFLAGS=2, GUEST_RIP=RIP, GUEST_EFER=0x500,
               GUEST_CS_RIGHTS=0xa09b, GUEST_CR0=0x80000021)
        self.clock = m.ffi.addressof(vm.vm.clock)
        self.timer, self.fired = m.new("struct vtimer *"), []
        self.callback = m.callback("void(void *, uint64_t)", self.fire)
        assert m.vclock_add(self.clock, self.timer, self.callback,
                            m.NULL) == 0
        m.lib.apic_sets = 0

    def fire(self, _dev, now):
        self.fired.append(now)
        self.next()

    def next(self):
        if self.deadlines:
            self.m.vtimer_set(self.clock, self.timer, self.deadlines.pop(0))
        else:
            self.vm.vm.request = self.m.VM_STOP

    def state(self):
        """The deepest that CPUID 5 shows to the guest: 1 for C1."""
        states = CSTATES & self.vm.cap.mwait
        return max([n for n in range(8) if states >> 4 * n & 15], default=1)

    def guest(self):
        """Until a timer ends it."""
        vm, m = self.vm, self.m
        self.entries += 1
        assert self.entries < 10000, "exits without an end"
        value, preempted = vm["PREEMPTION_TIMER"], NEVER
        if vm["PIN_CONTROLS"] >> 6 & 1 and self.counts(value) != NEVER and \
                self.state() <= 2:      # SDM 26.5.1
            preempted = ((m.tsc >> SHIFT) + self.counts(value)) << SHIFT
        apic = m.lib.apic_deadline
        if self.state() > 1 and not self.arat:
            apic = NEVER
        if apic != NEVER:
            left = max(apic - m.tsc, 0)
            apic = m.tsc + left - min(self.early, left // 2)
        start = m.tsc
        busy = self.busy if m.tsc % 10**6 < 500000 else NEVER
        m.tsc = max(min(preempted, apic, m.tsc + busy), m.tsc)
        assert m.tsc < NEVER, "nothing ends the guest's run"
        if vm["EXIT_CONTROLS"] >> 22 & 1:   # the timer is saved
            vm.set(PREEMPTION_TIMER=max(
                0, value - (m.tsc >> SHIFT) + (start >> SHIFT)))
        if m.tsc < min(preempted, apic):
            m.tsc += self.away
            return m.EXIT_IO
        if apic <= preempted:
            m.lib.apic_deadline = NEVER         # once
            return m.EXIT_EXTERNAL_INTERRUPT
        return m.EXIT_PREEMPTION_TIMER

    def run(self, *deadlines):
        """When each was noticed."""
        self.deadlines, self.entries, self.fired = list(deadlines), 0, []
        self.next()
        self.vm.run(*[self.guest] * 10000)
        return self.fired


CSTATES = 0x11142120            # Skylake's CPUID.5:EDX
DEADLINES = [10**6 * n + 12345 * n * n for n in range(1, 100)]
HABITS = {"slow": lambda value: 4096 * value, "stopped": lambda value: NEVER,
          "limping": lambda value: value + value % 3 * 1000}


def noticed(cpu, deadlines=(*DEADLINES, 10**12), bound=1 << SHIFT):
    late = [at - due for at, due in zip(cpu.run(*deadlines), deadlines,
                                        strict=True)]
    assert min(late) >= 0 and max(late) <= bound
    return cpu.entries / len(deadlines)


@pytest.mark.parametrize("habit", HABITS)
def test_a_clock_that_is_wrong(vm, init, habit):
    """Errata of CPUs with Ironlake graphics: AAT59, AAU65."""
    cpu = Clocks(vm, init, HABITS[habit], ARRANDALE)
    assert vm.m.host_vector == vm.m.HOST_VECTOR_TIMER
    assert noticed(cpu) < 1.1
    assert not vm["PIN_CONTROLS"] >> 6 & 1


@pytest.mark.parametrize("early", [1, 1000, 10**9])
def test_an_apic_timer_that_comes_early(vm, init, early):
    """Or the interrupt was another one's: it is set again."""
    cpu = Clocks(vm, init, HABITS["stopped"], ARRANDALE, early)
    assert noticed(cpu, DEADLINES[:10]) < 50


def test_a_clock_that_is_at_once_there(vm, init):
    """EMR158: large values are over at once."""
    cpu = Clocks(vm, init, lambda value: 0 if value >= AT_ONCE else value)
    assert noticed(cpu) < 2


def test_a_clock_that_is_right(vm, init):
    """Everywhere else, and no APIC timer is touched."""
    assert noticed(Clocks(vm, init, lambda value: value)) < 10
    assert vm["PIN_CONTROLS"] >> 6 & 1 and vm.m.apic_sets == 0


@pytest.mark.parametrize("arat", [True, False])
@pytest.mark.parametrize("asked", ["AUTO", "PREEMPTION", "APIC"])
def test_a_guest_that_sleeps_deep(vm, init, arat, asked):
    """As deep as it may; what runs no further there ends no sleep."""
    cpu = Clocks(vm, init, lambda value: value, arat=arat, asked=asked)
    assert noticed(cpu) < 10
    assert cpu.state() == (7 if arat and asked != "PREEMPTION" else 1)


def test_mwait_with_an_interrupt_that_waits(vm):
    """The CPU does not know of it: with IF = 0 it would sleep on. Else MWAIT
    is the guest's own."""
    m = vm.m
    vm.v.vm.features.mwait = 0xff
    vm.set(GUEST_RFLAGS=2)
    exiting = lambda: vm["CPU_CONTROLS"] & MWAIT_EXITING
    seen = []
    vm.v.cpu_controls = vm.cap.cpu = CPU & ~MWAIT_EXITING
    vm.set(CPU_CONTROLS=vm.cap.cpu)
    entries = vm.run(
        lambda: seen.append(exiting()) or vm.interrupt(0x41),
        lambda: seen.append(exiting()) or m.EXIT_MWAIT,
        lambda: {"EXIT_REASON": m.EXIT_INTERRUPT_WINDOW,
                 "GUEST_RFLAGS": 2 | IF},
        lambda: seen.append(exiting()) or m.EXIT_CPUID)
    assert seen == [0, MWAIT_EXITING, 0]
    assert [e.rip - RIP for e in entries] == [0, 0, 3, 3, 6]
    assert [e.vector for e in entries] == [None, None, None, 0x41, None]
MICROSECOND = 2**30 // 10**6


@pytest.mark.parametrize("saves", [True, False])
def test_an_exit_does_not_set_the_preemption_timer(vm, init, saves):
    """Where the CPU saves what is left of it; but no more than 10 us late of
    what it does not count, and one exit."""
    cpu = Clocks(vm, init, lambda value: value, busy=1000, away=500,
                 saves=saves)
    for first, ticks in ((1, 100), (5, 900)):
        vm.m.lib.handler_ticks = ticks
        noticed(cpu, [n * 10**6 - 1 for n in range(first, first + 4)],
                bound=10 * MICROSECOND + 1500)
        timer = written(vm, "PREEMPTION_TIMER")
        assert len(timer) < cpu.entries / 5 if saves else (
            len(timer) == cpu.entries)


def test_an_exit_does_not_set_the_apic_s_timer(vm, init):
    """A write of its register is slow; only another deadline needs one."""
    m, cpu = vm.m, Clocks(vm, init, HABITS["stopped"], ARRANDALE)
    m.vtimer_set(cpu.clock, cpu.timer, 5000)
    seen = []

    def at(deadline):
        def later():
            seen.append((m.apic_sets, m.apic_deadline))
            m.vtimer_set(cpu.clock, cpu.timer, deadline)
            return m.EXIT_CPUID
        return [later, m.EXIT_CPUID]
    vm.run(*[m.EXIT_CPUID] * 5, *at(4000), *at(NEVER), *at(NEVER))
    assert seen == [(1, 5000), (2, 4000), (3, NEVER)]


def test_an_apic_timer_that_does_not_count(vm, init):
    Clocks(vm, init, HABITS["stopped"], ARRANDALE)
    vm.m.lib.apic_error = -vm.m.EIO
    try:
        assert vm.m.vcpu_init(vm.v) == -vm.m.EIO
    finally:
        vm.m.lib.apic_error = 0


@pytest.mark.parametrize("right", [True, False])
def test_a_deadline_that_microcode_would_mend(vm, init, right):
    """One-shot; the log has it once, and on the first CPU."""
    Clocks(vm, init, HABITS["stopped"], ARRANDALE)
    vm.m.lib.deadlines_are_right = right
    assert vm.m.vcpu_init(vm.v) == 0
    vm.m.lib.deadlines_are_right = True
    assert vm.m.by_deadline == right
    assert vm.m.log_text().count("vmx: clock: one-shot") == 1 - right


# --- Exits ---------------------------------------------------------------

HANDLERS = {"CR_ACCESS": "exit_control_register", "IO": "exit_io",
            "RDMSR": "exit_rdmsr", "WRMSR": "exit_wrmsr",
            "EPT_VIOLATION": "exit_ept_violation", "XSETBV": "exit_xsetbv",
            "TASK_SWITCH": "exit_task_switch",
            "VMCALL": "exit_hypercall"}
UNDEFINED = ["GETSEC", "MWAIT", "MONITOR", "INVEPT", "INVVPID"]
VMX_INSTRUCTIONS = range(19, 28)


@pytest.mark.parametrize("reason", HANDLERS)
@pytest.mark.parametrize("action", ["RESUME", "SKIP", "GP", "UD", "STOP"])
def test_a_handler_and_its_answer(vm, reason, action):
    m = vm.m
    m.lib.handler_action = getattr(m, f"EXIT_{action}")
    entries = vm.run(getattr(m, f"EXIT_{reason}"))
    assert m.string(m.handler_called) == HANDLERS[reason]
    if action == "STOP":
        assert len(entries) == 1 and vm.vm.request == m.VM_STOP
        assert "does not emulate" in m.log_text() and "rip 0" in m.log_text()
        return
    assert entries[1].rip == RIP + (LENGTH if action == "SKIP" else 0)
    assert entries[1].info == {"GP": VALID | EXCEPTION | ERROR | 13,
                               "UD": VALID | EXCEPTION | 6}.get(action, 0)


@pytest.mark.parametrize("how, sleeps", [
    ({}, True), ({"GUEST_RFLAGS": 2 | TF}, False),
    ({"GUEST_RFLAGS": 2 | TF, "GUEST_DEBUGCTL": 2}, True),
    ({"GUEST_PENDING_DEBUG": 0x1001}, False)])
def test_hlt_and_a_trap_behind_it(vm, how, sleeps):
    """A single step, or a breakpoint of the MOV SS before it, ends it; with
    BTF TF traps branches alone."""
    vm.set(**how)
    entries = vm.run(vm.m.EXIT_HLT, vm.m.EXIT_EXTERNAL_INTERRUPT)
    assert [e.activity for e in entries] == [ACTIVE, *[HLT * sleeps] * 2]
    assert vm["GUEST_PENDING_DEBUG"] == how.get("GUEST_PENDING_DEBUG", 0) | (
        1 << 14 if how.get("GUEST_RFLAGS") and not how.get("GUEST_DEBUGCTL")
        else 0)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_guest_that_lets_nothing_in(vm, lost):
    """The CPU ends its run; it goes on, unless its state is lost."""
    entries = vm.run({"EXIT_REASON": vm.m.EXIT_NOTIFY, "QUALIFICATION": lost})
    assert len(entries) == 2 - lost
    assert (vm.vm.request == vm.m.VM_STOP) == bool(lost)
    assert vm.v.stats.reasons[75].count == 1 - lost


@pytest.mark.parametrize("there", [False, True])
def test_the_notify_window(init, vm, there):
    vm.cap.cpu2 = 1 << 31 if there else 0
    vm.set(NOTIFY_WINDOW=7)
    assert init() == 0
    # A millisecond at 1 to 8 GHz, and less than 10.
    assert 8e6 <= vm["NOTIFY_WINDOW"] <= 1e7 if there else (
        vm["NOTIFY_WINDOW"] == 7)


@pytest.mark.parametrize("reason", range(70))
def test_every_reason(vm, reason):
    """What has no arm stops the guest with a dump; nothing is passed over."""
    m = vm.m
    names = {getattr(m, f"EXIT_{n}"): n for n in (
        "EXTERNAL_INTERRUPT", "TRIPLE_FAULT", "INIT", "SIPI",
        "INTERRUPT_WINDOW", "NMI_WINDOW", "TPR_BELOW_THRESHOLD", "CPUID",
        "EOI", "APIC_WRITE", "HLT", "INVD", "WBINVD",
        "RDPMC", "PREEMPTION_TIMER", "MONITOR_TRAP", *HANDLERS,
        *UNDEFINED)}
    name = names.get(reason)
    entries = vm.run({"EXIT_REASON": reason,
                      "EXIT_INTERRUPTION": VALID | EXTERNAL | 0x33})
    if name in ("TRIPLE_FAULT", "INIT"):
        assert len(entries) == 1 and vm.vm.request == m.VM_RESET
        return
    if name is None and reason not in VMX_INSTRUCTIONS:
        assert len(entries) == 1 and vm.vm.request == m.VM_STOP
        assert f"guest: exit reason 0x{reason:x} (" in m.log_text()
        return
    skipped = name in {*HANDLERS, "CPUID", "HLT", "INVD", "WBINVD"}
    assert entries[1].rip == RIP + LENGTH * skipped
    if name in UNDEFINED or reason in VMX_INSTRUCTIONS:
        assert entries[1].info == VALID | EXCEPTION | 6
    elif name == "RDPMC":
        assert entries[1].info == VALID | EXCEPTION | ERROR | 13
    else:
        assert entries[1].info == 0
    assert (m.host_vector == 0x33) == (name == "EXTERNAL_INTERRUPT")
    assert bool(m.events("wbinvd")) == (name in ("INVD", "WBINVD"))
    m.stats_total(m.ffi.addressof(vm.v.stats))
    assert (vm.v.stats.exits, vm.v.stats.reasons[reason].count) == (1, 1)


@pytest.mark.parametrize("mode, rip, after", [
    ({"GUEST_EFER": 0, "GUEST_CS_RIGHTS": 0xc09b}, 2**32 - 1, 2),
    ({"GUEST_CS_RIGHTS": 0xc09b}, 2**32 - 1, 2),        # compatibility mode
    ({}, 2**32 - 1, 2**32 + 2), ({}, 2**64 - 4, 2**64 - 1)])
def test_rip_behind_an_instruction(vm, mode, rip, after):
    """EIP has 32 bits outside of 64-bit mode."""
    vm.set(**mode)
    assert vm.run(lambda: vm.set(GUEST_RIP=rip) or {
        "EXIT_REASON": vm.m.EXIT_CPUID})[1].rip == after


def test_triple_fault_says_where(vm):
    vm.run(vm.m.EXIT_TRIPLE_FAULT)
    assert f"triple fault at rip 0x{RIP:x}" in vm.m.log_text()


def test_cpuid(vm):
    m = vm.m
    vm.cpu.cpuid(1, ebx=0xff00, ecx=1, edx=1)
    for cr4, osxsave in ((1 << 18, 1), (0, 0)):
        vm.set(GUEST_CR4=cr4)
        vm.v.gpr[0], vm.v.gpr[1] = 0xffff00000001, 7
        vm.run(m.EXIT_CPUID)
        assert vm.v.gpr[1] >> 27 & 1 == osxsave
        assert vm.v.gpr[2] >> 9 & 1 == 1
        assert all(vm.v.gpr[n] >> 32 == 0 for n in range(4))


QUESTIONS = [(0, 0), (0, 1), (1, 0), (4, 0), (4, 32), (5, 0), (7, 0), (0xd, 0),
             (0xd, 1), (0x80000000, 0), (0x80000004, 0), (0x40000000, 0),
             (2**32 - 1, 0), (2**32 - 1, 1), (0, 2**32 - 1)]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(QUESTIONS), st.booleans(),
                          st.booleans()), max_size=12))
def test_cpuid_again_and_again(m, questions):
    """What is kept is what a look-up gives, whatever came in between."""
    vm = Vm(m)
    for n, (leaf, subleaf) in enumerate(QUESTIONS):
        vm.cpu.cpuid(leaf, subleaf, eax=32 - n, ebx=n << 8, ecx=2**32 - 1 - n,
                     edx=0xff000000 + n)
    for (leaf, subleaf), osxsave, apic in questions:
        vm.set(GUEST_CR4=osxsave << 18)
        vm.lapic.base = vm.lapic.base & ~(1 << 11) | apic << 11
        vm.v.gpr[0], vm.v.gpr[1] = leaf, subleaf
        vm.run(m.EXIT_CPUID)
        ctx = m.new("struct cpuid_context *", {
            "cr4": osxsave << 18, "apic_off": not apic,
            "features": vm.v.cpuid.features})
        right = m.guest_cpuid(ctx, leaf, subleaf)
        assert [vm.v.gpr[n] for n in (0, 3, 1, 2)] == [
            right.eax, right.ebx, right.ecx, right.edx]


def test_cpuid_is_asked_once(vm):
    """In root mode, too, it takes long; until a reset, which sets XCR0."""
    m = vm.m

    def ask():
        vm.v.gpr[0], vm.v.gpr[1] = 0xd, 0
        vm.run(m.EXIT_CPUID)
        return vm.v.gpr[0]
    vm.vm.features.xcr0_allowed = 0xe7
    for host in (7, 0xe7):
        vm.cpu.cpuid(0xd, eax=host)
        assert ask() == 7
    m.vcpu_reset(vm.v, m.new("struct guest_entry *"))
    assert ask() == 0xe7


def test_cpuid_without_the_apic(vm):
    """IA32_APIC_BASE.EN clears the feature (SDM 10.4.3)."""
    vm.cpu.cpuid(1, edx=2**32 - 1)
    vm.lapic.base &= ~(1 << 11)
    vm.v.gpr[0] = 1
    vm.run(vm.m.EXIT_CPUID)
    assert vm.v.gpr[2] >> 9 & 1 == 0


def test_an_exception_that_was_not_asked_for(vm):
    vm.run({"EXIT_REASON": 0, "EXIT_INTERRUPTION": VALID | EXCEPTION | 14})
    assert vm.vm.request == vm.m.VM_STOP


def test_what_could_loop_in_its_delivery_is_handed_on(vm):
    """#AC exits (CVE-2015-5307); the guest sees its own."""
    entries = vm.run({"EXIT_REASON": 0, "EXIT_INTERRUPTION":
                      VALID | EXCEPTION | ERROR | 17})
    assert (entries[1].info, entries[1].error, entries[1].rip) == (
        VALID | EXCEPTION | ERROR | 17, 0, RIP)


@pytest.mark.parametrize("cause", [0x1, 0xf, 0x2000, 0x4000])
@pytest.mark.parametrize("shadow", [0, STI, MOV_SS])
def test_a_debug_exception_is_handed_on(vm, cause, shadow):
    """The CPU leaves DR6, DR7.GD and BTF as they were (SDM 28.1), and entry
    refuses a step in a shadow (27.3.1.5)."""
    m = vm.m
    m.fake_dr[6] = 0xffff0ff0 | 0x8009
    vm.set(GUEST_DR7=0x2401, GUEST_DEBUGCTL=2, GUEST_RFLAGS=2 | TF)
    entries = vm.run({"EXIT_REASON": 0, "QUALIFICATION": cause,
                      "EXIT_INTERRUPTION": VALID | EXCEPTION | 1,
                      "GUEST_INTERRUPTIBILITY": shadow | BY_NMI})
    assert (entries[1].info, entries[1].rip) == (VALID | EXCEPTION | 1, RIP)
    # B0 to B3 are this one's alone, the others stay until software clears.
    assert m.fake_dr[6] == 0xffff0ff0 | 0x8000 | cause
    assert (vm["GUEST_DR7"], vm["GUEST_DEBUGCTL"]) == (0x401, 0)
    assert vm["GUEST_INTERRUPTIBILITY"] == BY_NMI
    # A trap's handler goes on behind the instruction: no RF.
    assert vm["GUEST_RFLAGS"] == 2 | TF


def test_a_step_of_monocle_s_own(vm):
    """Behind an instruction that a page was lent to: by TF, of which the
    guest sees nothing, or by the monitor trap flag. An interrupt that comes
    first must not push that TF."""
    for how in ({"EXIT_REASON": 0, "QUALIFICATION": 0x4000,
                 "EXIT_INTERRUPTION": VALID | EXCEPTION | 1},
                {"EXIT_REASON": vm.m.EXIT_MONITOR_TRAP}):
        vm.v.lent_count, vm.v.steps = 1, True
        entries = vm.run(how)
        assert (entries[1].info, vm.v.lent_count) == (0, 0)
    assert not vm.m.events("dr")
    vm.v.lent_count = 1
    vm.interrupt(0x41)
    assert vm.run()[0].vector == 0x41 and vm.v.lent_count == 0
    # What an exit cut short is delivered with what was lent to it.
    vm.v.lent_count = 1
    assert vm.run({"EXIT_REASON": vm.m.EXIT_EPT_VIOLATION,
                   "IDT_VECTORING": VALID | 0x71})[1].vector == 0x71
    assert vm.v.lent_count == 1
    vm.m.vcpu_reset(vm.v, vm.m.new("struct guest_entry *"))
    assert vm.v.lent_count == 0


def test_int1_is_no_debug_condition(vm):
    """It goes on behind itself, and changes no debug register."""
    vm.m.fake_dr[6] = 0xffff0ff0
    entries = vm.run({"EXIT_REASON": 0, "EXIT_LENGTH": 1, "EXIT_INTERRUPTION":
                      VALID | PRIVILEGED | 1})
    assert (entries[1].info, entries[1].length, entries[1].rip) == (
        VALID | PRIVILEGED | 1, 1, RIP)
    assert vm.m.fake_dr[6] == 0xffff0ff0 and not vm.m.events("dr")


def test_a_fault_pushes_rf(vm):
    """SDM 18.3.1.1: else a breakpoint on its instruction fires twice."""
    vm.m.lib.handler_action = vm.m.EXIT_GP
    vm.run(vm.m.EXIT_IO)
    assert vm["GUEST_RFLAGS"] == 2 | IF | 1 << 16


def test_another_cpus_panic_stops_this_one(vm):
    """Its NMI ends the guest's run, and is none of the guest's."""
    vm.m.lib.stops_now = True
    nmi = {"EXIT_REASON": vm.m.EXIT_EXCEPTION_NMI,
           "EXIT_INTERRUPTION": VALID | NMI | 2}
    entries = vm.run(nmi)
    vm.m.lib.stops_now = False
    assert vm.panicked and len(entries) == 1 and not vm.v.nmi_pending


def test_machine_check(vm):
    vm.run({"EXIT_REASON": 0, "EXIT_INTERRUPTION": VALID | EXCEPTION | 18})
    assert vm.panicked and "machine check" in vm.m.log_text()


@pytest.mark.parametrize("fields, says", [
    ({"fail": 1}, "VMfailInvalid"),
    ({"fail": 2, "INSTRUCTION_ERROR": 7}, "VMfailValid, VM-instruction error 7"),
    ({"EXIT_REASON": 1 << 31 | 33, "QUALIFICATION": 4},
     "invalid guest state, qualification 0x4"),
    ({"EXIT_REASON": 1 << 31 | 34, "QUALIFICATION": 1}, "MSR loading"),
    ({"EXIT_REASON": 1 << 31 | 41}, "machine check")])
def test_a_failed_entry(vm, fields, says):
    """Said, checked by software, dumped; and the guest is over."""
    m = vm.m
    fields = dict(fields)
    fail = fields.pop("fail", 0)
    vm.set(**fields)
    m.lib.enter_hook = m.callback("int(*)(void)", lambda: fail)
    vm.vm.request = m.VM_RUN
    m.vcpu_run(vm.v)
    text = m.log_text()
    assert f"VM entry failed: {says}" in text.replace("-entry", ""), text
    assert vm.vm.request == m.VM_STOP and m.checked == 1
    assert "cr0 " in text and "host rip" in text


# --- Reset ---------------------------------------------------------------

def test_reset_forgets_events(vm):
    m = vm.m
    vm.message(m.APIC_NMI)
    vm.set(GUEST_INTERRUPTIBILITY=BY_NMI)
    m.lib.handler_action = m.EXIT_GP

    def last():
        vm.vm.request = m.VM_RESET
        vm.v.halted = True
        return {"EXIT_REASON": m.EXIT_IO}
    vm.run(last)
    assert vm.v.injection.info and vm.v.nmi_pending
    assert vm.entries[0].windows == NMI_WINDOW
    m.lapic_reset(vm.lapic)
    entry = m.new("struct guest_entry *", {"mode": 2, "rip": 0x5000})
    m.vcpu_reset(vm.v, entry)
    vm.set(GUEST_RFLAGS=2 | IF)
    entries = vm.run(m.EXIT_CPUID)
    assert [(e.info, e.windows, e.activity) for e in entries] == [(0, 0, 0)] * 2
    assert entries[0].rip == 0x5000


def test_reset_forgets_what_was_ready_for_the_entry(vm):
    """An INIT and an interrupt at once: the entry for which the interrupt
    was prepared never came."""
    m = vm.m
    vm.message(m.APIC_INIT)
    vm.interrupt(0x41)
    assert vm.run() == [] and vm.vm.request == m.VM_RESET
    m.lapic_reset(vm.lapic)
    m.vcpu_reset(vm.v, m.new("struct guest_entry *", {"mode": 0}))
    assert [e.info for e in vm.run(m.EXIT_CPUID)] == [0, 0]


def test_reset_drops_translations(vm):
    """The old guest's, behind the last write of the new one's state."""
    m = vm.m
    vm.ept.eptp = 0x501e
    m.clear_events()
    m.vcpu_reset(vm.v, m.new("struct guest_entry *", {"mode": 2}))
    events = m.events("invept", "vmwrite")
    assert [(e.kind, e.addr) for e in events[-1:]] == [("invept", 0x501e)]


# Where the guest starts: CR0, CR4, EFER, its code segment's and data
# segments' rights (SDM 25.4.1), their limit, the IDT's limit.
STARTS = {
    "REAL16": (0x10, 0, 0, 0x9b, 0x93, 0xffff, 0x3ff),
    "PROTECTED32": (0x11, 0, 0, 0xc09b, 0xc093, 2**32 - 1, 0),
    "LONG64": (0x80000011, 0x20, 0x500, 0xa09b, 0xc093, 2**32 - 1, 0)}


@pytest.mark.parametrize("mode", STARTS)
def test_where_a_guest_starts(vm, mode):
    """All of its state as after RESET (SDM table 10-1), but what the loader
    wants; nothing of the guest before it."""
    m = vm.m
    cr0, cr4, efer, code, data, limit, idt = STARTS[mode]
    vm.cap.cr0_fixed0, vm.cap.cr4_fixed0 = 0x80000021, 0x2040
    vm.cap.entry = 0x11fb
    fields = {n[5:]: getattr(m, n) for n in m.constants
              if n.startswith("VMCS_GUEST_")}
    for field in fields.values():
        vm.cpu.write(field, 0xbad)
    e = m.new("struct guest_entry *", {
        "mode": getattr(m, f"ENTRY_{mode}"), "rip": 0x5000, "rsp": 0x6000,
        "cr3": 0x7000, "gdt_base": 0x8000, "gdt_limit": 39, "cs": 0x10,
        "ds": 0x18})
    e.gpr[0:16] = range(100, 116)
    m.vcpu_reset(vm.v, e)
    real = mode == "REAL16"
    expected = {"CR0": cr0 | 0x20, "CR3": 0x7000, "CR4": cr4 | 0x2040,
                "EFER": efer, "RIP": 0x5000, "RSP": 0x6000, "RFLAGS": 2,
                "GDTR_BASE": 0x8000, "GDTR_LIMIT": 39, "IDTR_BASE": 0,
                "IDTR_LIMIT": idt, "DR7": 0x400, "DEBUGCTL": 0,
                "PAT": 0x0007040600070406, "INTERRUPTIBILITY": 0,
                "ACTIVITY": 0, "SYSENTER_CS": 0, "SYSENTER_ESP": 0,
                "SYSENTER_EIP": 0, "PENDING_DEBUG": 0}
    assert {n: vm[f"GUEST_{n}"] for n in expected} == expected
    assert vm["CR0_SHADOW"] == cr0 and vm["CR4_SHADOW"] == cr4
    assert vm["ENTRY_CONTROLS"] == 0x11fb | (1 << 9 if efer else 0)
    for n in range(8):
        selector, base, rights = (0x10, 0x100, code) if n == 1 else (
            0x18, 0x180, data)
        wanted = (selector, base * real, limit, rights)
        if n > 5:       # LDTR: unusable; TR: a busy 32-bit TSS
            wanted = (0, 0, 0xffff, 0x10082 if n == 6 else 0x8b)
        assert tuple(vm.cpu.read(getattr(m, f"VMCS_GUEST_ES{part}") + 2 * n)
                     for part in ("", "_BASE", "_LIMIT", "_RIGHTS")) == wanted
    assert list(vm.v.gpr) == list(range(100, 116))


@pytest.mark.parametrize("xsave", [False, True])
def test_what_no_vmcs_switches_after_a_reset(vm, xsave):
    """SDM table 10-1: nothing that the guest before it has left."""
    m = vm.m
    vm.vm.features.cr4_allowed = 1 << 18 if xsave else 0
    vm.vm.features.xcr0_allowed = 0xe7
    m.fake_cr[2], m.fake_cr[4] = 0xbad, 0x2020
    m.fake_dr[0:8] = [0xbad] * 8
    m.clear_events()
    m.vcpu_reset(vm.v, m.new("struct guest_entry *"))
    assert len(m.events("other")) == 1 and m.fake_cr[2] == 0
    assert list(m.fake_dr[0:4]) == [0] * 4 and m.fake_dr[6] == 0xffff0ff0
    # By SDM 1, 10.5.1 and 13.4: FCW, FSW, tags, MXCSR, registers, header.
    area = bytes(m.ffi.buffer(m.ffi.addressof(m.lib, "fake_fpu")))
    word = lambda at, size: int.from_bytes(area[at:at + size], "little")
    assert (word(0, 2), word(2, 2), word(24, 4)) == (0x40, 0, 0x1f80)
    # Each x87 register holds 0 (tag 01), none is empty.
    assert area[4] == 0xff and not any(area[32:512])
    # Of all else the header says that it is in its initial state, in the
    # standard format; with all of them in XCR0, or with OSFXSR for SSE.
    assert word(512, 8) == 3 and not any(area[520:]) and len(area) == 576
    (restored,) = m.events("xrstor")
    assert restored.value == (0xe7 if xsave else 0)
    assert restored.addr == 0xe7 or not xsave
    if not xsave:
        assert [e.value for e in m.events("cr") if e.addr == 4] == [
            0x2220, 0x2020]


@pytest.mark.parametrize("xsave", [False, True])
def test_xcr0_after_a_reset(vm, xsave):
    """x87 alone (SDM table 10-1); XSETBV needs CR4.OSXSAVE, which an exit
    then keeps. A CPU without XSAVE has neither."""
    m = vm.m
    vm.vm.features.cr4_allowed = 1 << 18 if xsave else 0
    m.fake_cr[4], m.lib.fake_xcr0 = 0x2020, 7
    vm.set(HOST_CR4=0x2020)
    m.vcpu_reset(vm.v, m.new("struct guest_entry *"))
    assert m.fake_xcr0 == (1 if xsave else 7)
    assert m.fake_cr[4] == vm["HOST_CR4"] == 0x2020 | xsave << 18


# --- A vCPU's first state ------------------------------------------------

OWNED_CR0 = 1 | 2 | 4 | 8 | 1 << 16 | 1 << 18 | 1 << 31
MCE = 1 << 6


@pytest.fixture
def init(vm):
    return initialiser(vm)


def initialiser(vm):
    """vcpu_init() on a VMCS full of what was there before."""
    m = vm.m
    m.fake_gs_base(vm.percpu)
    vm.percpu.self = vm.percpu
    for field in range(m.VMCS_FIELDS):
        vm.cpu.write(field, 0xbad)
    vm.cap.pin, vm.cap.cpu, vm.cap.cpu2 = 0x7f, CPU, 0x101
    vm.cap.exit, vm.cap.entry = 0x36dfb, 0x11fb
    vm.ept.eptp, vm.lapic.id = 0x501e, 3
    vm.vm.features.cr4_allowed = 0x6f8 | MCE
    vm.vm.io_bitmap, vm.vm.msr_bitmap = (m.ffi.cast("void *", n)
                                         for n in (0x9000, 0xb000))
    m.lib.load_error = 0

    def run():
        return m.vcpu_init(vm.v)
    return run


@pytest.mark.parametrize("xsaves", [False, True])
def test_controls(vm, init, xsaves):
    """What exits: machine checks and no other exception (SDM 25.6.3), the
    ports and MSRs of the bitmaps, and writes of control register bits that
    the guest does not own."""
    vm.cap.xsaves = xsaves
    assert init() == 0
    expected = {
        "PIN_CONTROLS": 0x7f, "CPU_CONTROLS": CPU, "CPU_CONTROLS2": 0x101,
        "EXIT_CONTROLS": 0x36dfb, "EXCEPTION_BITMAP": 1 << 1 | 1 << 17 | 1 << 18,
        "PF_ERROR_MASK": 0, "PF_ERROR_MATCH": 0, "CR3_TARGETS": 0,
        "EXIT_MSR_STORE_COUNT": 0, "EXIT_MSR_LOAD_COUNT": 0,
        "ENTRY_MSR_LOAD_COUNT": 0, "EPTP": 0x501e, "IO_BITMAP_A": 0x9000,
        "IO_BITMAP_B": 0xa000, "MSR_BITMAP": 0xb000, "TSC_OFFSET": 0,
        "LINK_POINTER": 2**64 - 1, "CR0_MASK": 2**64 - 1 - OWNED_CR0,
        "CR4_MASK": 2**64 - 1 - 0x6b8,
        "XSS_EXITING": 0 if xsaves else 0xbad}
    assert {n: vm[n] for n in expected} == expected
    # 0 is the host's own translations.
    assert vm["VPID"] not in (0, 0xbad)
    assert (vm.v.vm, vm.v.lapic, vm.v.pic) == (vm.vm, vm.lapic, vm.pic)
    assert vm.v.cpu == vm.percpu and vm.percpu.runs_guest
    assert vm.v.cpuid.apic_id == 3
    assert vm.v.cpu_controls == CPU


@pytest.mark.parametrize("shadow", [0, TPR_SHADOW])
def test_the_virtual_apic_page(vm, init, shadow):
    """The LAPIC's registers are the CPU's TPR: a page of its own."""
    vm.cap.cpu |= shadow
    vm.set(VIRTUAL_APIC=0xbad, TPR_THRESHOLD=0xbad)
    assert init() == 0
    page = int(vm.m.ffi.cast("uintptr_t", vm.lapic))
    assert (vm["VIRTUAL_APIC"], vm["TPR_THRESHOLD"]) == (
        (page, 0) if shadow else (0xbad, 0xbad))
    assert page % 4096 == 0 and vm.v.cpu_controls == CPU | shadow


def test_the_host_behind_an_exit(vm, init):
    """What percpu() finds, stacks for traps, tables: of this CPU."""
    m = vm.m
    assert init() == 0
    address = lambda p: int(m.ffi.cast("uintptr_t", p))
    part = lambda name: m.ffi.addressof(vm.percpu.tables, name)
    assert list(m.host_state) == [
        address(vm.percpu), address(part("tss")), address(part("gdt")),
        0x1d7000, 0xc3000]
    assert vm["HOST_RSP"] == address(m.ffi.addressof(vm.v, "frame"))
    assert vm.v.cpu == vm.percpu and vm.v.vmcs == m.loaded != 0
    assert vm.v.cpuid.apic_id == 3


@pytest.mark.parametrize("others", [False, True])
def test_another_deadline(vm, init, others):
    """Of a device: the CPU that serves their clock sets its timer anew, and
    hears of it where another CPU is the one that has changed it."""
    m = vm.m
    timer = m.new("struct vtimer *")
    vm.vm.smp, vm.vm.clock.changed = others, m.NULL
    assert m.vclock_add(m.ffi.addressof(vm.vm.clock), timer, m.NULL, m.NULL) == 0
    assert init() == 0
    vm.preemption_timer(0)
    vm.v.slack_max = 10**9
    m.tsc = 1 << 20
    other = m.new("struct percpu *")

    def change():
        if others:
            other.self = other
            m.fake_gs_base(other)
        m.vtimer_set(m.ffi.addressof(vm.vm.clock), timer, (1 << 20) + 77)
        m.fake_gs_base(vm.percpu)
        assert vm.percpu.kicked == others
        return {"EXIT_REASON": m.EXIT_EXCEPTION_NMI, "EXIT_INTERRUPTION":
                VALID | NMI | 2} if others else m.EXIT_CPUID
    before, after = [e.timer for e in vm.run(change)]
    assert before > after and after <= 78


def test_no_vmcs(vm, init):
    vm.m.lib.load_error = -vm.m.EIO
    assert init() == -vm.m.EIO
    vm.m.lib.arena_limit = 0
    assert init() == -vm.m.ENOMEM


# --- Exceptions in the delivery of others (SDM table 6-5) ------------------

CONTRIBUTORY = {0, 10, 11, 12, 13}


@pytest.mark.parametrize("first", [0, 3, 6, 8, 10, 13, 14, 17])
def test_a_second_exception(vm, first):
    for second in (0, 1, 6, 10, 12, 13, 14, 17):
        has_error = second in (10, 12, 13, 14, 17)
        vm.v.injection.info = VALID | EXCEPTION | first
        vm.vm.request = vm.m.VM_RUN
        vm.m.vcpu_inject(vm.v, second, has_error, 0x77)
        if first == 8:
            assert vm.vm.request == vm.m.VM_RESET       # triple fault
            continue
        assert vm.vm.request == vm.m.VM_RUN
        double = second in CONTRIBUTORY and first in CONTRIBUTORY | {14} or \
            first == second == 14
        info = vm.v.injection.info
        assert info & 0xff == (8 if double else second), (first, second)
        assert bool(info & ERROR) == (double or has_error)
        if info & ERROR:
            assert vm.v.injection.error == (0 if double else 0x77)


@pytest.mark.parametrize("kind", [EXTERNAL, NMI, SOFTWARE])
def test_an_exception_in_the_delivery_of_an_interrupt(vm, kind):
    """Served by itself, whatever its vector is called."""
    for vector in (8, 13, 14):
        vm.v.injection.info = VALID | kind | vector
        vm.m.vcpu_inject(vm.v, 13, True, 5)
        assert vm.v.injection.info == VALID | EXCEPTION | ERROR | 13
        assert vm.vm.request == vm.m.VM_RUN


def test_an_nmi_that_hit_monocle_is_the_guests(vm):
    """kernel/traps.c counts those that come outside of the guest."""
    vm.percpu.nmis, vm.percpu.attention = 2, 1
    entries = vm.run(vm.m.EXIT_CPUID)
    assert [e.info for e in entries] == [VALID | NMI | 2, 0]
    assert vm.percpu.nmis == 0


# --- Nothing is put off --------------------------------------------------

DEEDS = ["interrupt", "low", "nmi", "hlt", "cpuid", "gp", "open", "shut",
         "block", "eoi", "cr8", "pic", "cut", "window"]


def play(m, deeds):
    """[(how many deeds are done, what an entry injects)], and what waits at the
    end. A window is an exit (SDM 26.2) before the next deed."""
    vm, done = Vm(m), 0
    m.tsc = 0

    def deed(name):
        m.lib.handler_action = m.EXIT_GP if name == "gp" else m.EXIT_SKIP
        if name in ("interrupt", "low"):
            vm.interrupt(0x81 if name == "interrupt" else 0x31)
        elif name == "nmi":
            vm.message(m.APIC_NMI)
        elif name in ("open", "shut"):
            vm.set(GUEST_RFLAGS=2 | (IF if name == "open" else 0))
        elif name == "block":
            vm.set(GUEST_INTERRUPTIBILITY=vm["GUEST_INTERRUPTIBILITY"] ^ BY_NMI)
        elif name == "eoi":
            m.lapic_eoi(vm.lapic)
        elif name == "cr8":
            m.lapic_set_cr8(vm.lapic, 0 if vm.lapic.page[
                4 * m.LAPIC_TPR] else 5)
        elif name == "pic":
            vm.message(m.APIC_EXTINT)
        return {"EXIT_REASON": {
            "hlt": m.EXIT_HLT, "gp": m.EXIT_IO, "cut": m.EXIT_EPT_VIOLATION,
            "window": m.EXIT_INTERRUPT_WINDOW}.get(name, m.EXIT_CPUID),
            "IDT_VECTORING": VALID | 0x71 if name == "cut" else 0}
    came = []

    def exit():
        nonlocal done
        entry = vm.entries[-1]
        if entry.info:
            came.append((done, entry.info, entry.error))
        elif (entry.windows & INTERRUPT_WINDOW and vm["GUEST_RFLAGS"] & IF and
              not vm["GUEST_INTERRUPTIBILITY"] & (STI | MOV_SS)):
            return m.EXIT_INTERRUPT_WINDOW
        done += 1
        return deed(deeds[done - 1]) if done <= len(deeds) else m.EXIT_CPUID
    vm.run(*[exit] * (2 * len(deeds) + 4))
    return came, vm.v.halted, m.lapic_pending(vm.lapic)


@pytest.fixture(scope="module")
def thorough():
    """The same, but that looks for events before each entry."""
    return build({"vmm/vcpu/vcpu.c": mutated("vmm/vcpu/vcpu.c", (
        "__builtin_expect(v->attention, false) &&", "v &&"))}, "vcpu_thorough")


@settings(max_examples=300)
@given(st.lists(st.sampled_from(DEEDS), max_size=12))
def test_a_quiet_exit_puts_nothing_off(m, thorough, deeds):
    """Where the loop passes over what is due, nothing was due."""
    assert play(m, deeds) == play(thorough, deeds)

def test_an_nmi_on_the_way_in(vm):
    """What was about to be injected is so first, then the NMI; none is lost."""
    vm.interrupt(0x41)
    vm.interrupt(0x52)
    vm.on_the_way.append(lambda: vm.m.percpu_nmi(vm.percpu))
    entries = vm.run(*[vm.m.EXIT_CPUID] * 2)
    assert [e.vector for e in entries] == [0x52, 2, None]
    assert not vm.percpu.attention


def test_a_kick_on_the_way_in(vm):
    """A vector of another CPU's, which goes in at this entry, not the next."""
    def send():
        vm.percpu.kicked = True
        vm.m.percpu_nmi(vm.percpu)
        vm.interrupt(0x41)
    vm.on_the_way.append(send)
    assert [e.vector for e in vm.run()] == [0x41]


# --- What an exit costs, but for its ticks (tests/bench) -------------------

HANDLERS_C = ["vmm/vcpu/exit_cr.c", "vmm/vcpu/exit_io.c",
              "vmm/vcpu/exit_mmio.c", "vmm/vcpu/insn.c", "vmm/vcpu/msr.c",
              "vmm/vcpu/hypercall.c", "vmm/devmodel/ioapic.c"]
# The real handlers, and what is around them in turn.
WHOLE_FAKES = "\n".join(
    line for line in FAKES.split("void msr_reset")[0].replace(
        "return enter_hook();", "return entered(enter_hook(), frame);"
    ).replace("/* As entry.asm does:", """
#include "tests/unit/touched.c"

/* What entry.asm has touched, and nothing before it. */
static int entered(int fail, struct vmx_frame *frame)
{
	touched_count = 0;
	touch((u64)frame, sizeof(*frame), true);
	touch((u64)&((struct vcpu *)frame)->cpu->attention, 4, false);
	return fail;
}

/* As entry.asm does:""").splitlines()
    if not line.startswith("HANDLER(") or "task_switch" in line) + """
#include "kernel/log_sink.h"

enum exit_action exit_lend(struct vcpu *v)
{
	(void)v;
	return EXIT_STOP;
}

size_t log_read(u64 *from, char *buf, size_t size)
{
	(void)from, (void)buf;
	return size & 0;
}

void host_irq""" + FAKES.split("void host_irq", 1)[1]
MSRS = ("rdmsr", "wrmsr", "no_msr")
LAPIC, IOAPIC, CODE, TABLE = 0xfee00000, 0xfec00000, 0x8000, 0x6000


@pytest.fixture(scope="module")
def whole_build():
    return vmxcpu.harness.build(
        "vcpu_whole", SOURCES + HANDLERS_C, fakes=WHOLE_FAKES, lines=True,
        cdef=CDEF + "extern u64 touched[256]; extern bool stored[256];"
        "extern unsigned touched_count;",
        exports=["lapic_set_cr8", "lapic_cr8", "lapic_pending"],
        headers=["arch/x86/vmx/ept.h", "vmm/vcpu/vcpu.h", "vmm/vcpu/msr.h",
                 "vmm/devmodel/ioapic.h", "kernel/percpu.h",
                 "arch/x86/vmx/vmx.h", "kernel/traps.h", *vmxcpu.HEADERS])


class Cost(typing.NamedTuple):
    """Of an exit, from its entry on. The lines are those of the cache."""
    reads: int          # VMREADs
    writes: int         # VMWRITEs
    msrs: int           # accesses
    vcpu: int           # lines of struct vcpu
    vm: int             # ... of struct vm
    others: int         # ... of what else there is


class Whole(Vm):
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
        assert m.ioapic_init(self.ioapic, m.ffi.addressof(self.vm.bus),
                             self.apics, 0) == 0

    def touched(self, of, stored=False):
        """How many cache lines of a struct that exit has touched."""
        at = int(self.m.ffi.cast("uintptr_t", of))
        last = at + self.m.ffi.sizeof(self.m.ffi.typeof(of).item) - 1
        return len([line for line, is_stored in self.lines.items()
                    if at // 64 <= line <= last // 64
                    and (is_stored or not stored)])

    def cost(self, exit, **registers):
        """The third such exit's."""
        m, marks = self.m, []

        def leave():
            marks.append((m.vmcs_reads, len(m.events("vmwrite")),
                          len(m.events(*MSRS))))
            count = m.touched_count
            assert len(marks) == 1 or count < len(m.touched)
            if len(marks) == 4:
                self.lines = dict(zip(m.touched[0:count], m.stored[0:count]))
            for name, value in registers.items():
                self.v.gpr[("rax", "rcx", "rdx", "rbx").index(name)] = value
            if "prepare" in exit:
                exit["prepare"]()
            self.set(GUEST_RIP=CODE)
            return {n: v for n, v in exit.items() if n != "prepare"}
        self.run(*[leave] * 4)
        assert self.vm.request == m.VM_POWER_OFF, m.log_text()
        lines = self.touched(self.v), self.touched(self.vm)
        return Cost(*(b - a for a, b in zip(marks[2], marks[3])), *lines,
                    len(self.lines) - sum(lines))


@pytest.fixture
def whole(whole_build):
    return Whole(whole_build)


def x2apic(whole):
    whole.lapic.base |= 1 << 10


def of_a_port(qualification):
    """Its exit."""
    return lambda w: ({"EXIT_REASON": w.m.EXIT_IO,
                       "QUALIFICATION": qualification}, {})


def of_a_register(at):
    """The exit of one in memory, read."""
    return lambda w: ({
        "EXIT_REASON": w.m.EXIT_EPT_VIOLATION, "QUALIFICATION": 0x181,
        "GUEST_LINEAR": at, "GUEST_PHYSICAL": at}, {"rbx": at})


def of_wrmsr(prepare, **registers):
    """The exit of one in x2APIC mode."""
    def exit(w):
        x2apic(w)
        return {"EXIT_REASON": w.m.EXIT_WRMSR,
                "prepare": lambda: prepare(w)}, registers
    return exit


# What a guest does again and again: (the exit, registers).
GUEST_EXITS = {
    "cpuid": lambda w: ({"EXIT_REASON": w.m.EXIT_CPUID}, {"rax": 0, "rcx": 0}),
    "vmcall": lambda w: ({"EXIT_REASON": w.m.EXIT_VMCALL},
                         {"rax": 0x4d4f0000, "rcx": 0}),
    "rdmsr": lambda w: ({"EXIT_REASON": w.m.EXIT_RDMSR}, {"rcx": 0x1b}),
    "port that nobody has": of_a_port(0x12340008),
    "port of the PIC": of_a_port(0x210008),
    "LAPIC register by MMIO": of_a_register(LAPIC + 0x30),
    "IOAPIC register": of_a_register(IOAPIC + 0x10),
    "x2APIC EOI": of_wrmsr(lambda w: w.m.lapic_ack(w.lapic, 0x41),
                           rcx=0x80b, rax=0, rdx=0),
    "x2APIC self-IPI": of_wrmsr(lambda w: w.m.lapic_eoi(w.lapic),
                                rcx=0x83f, rax=0x41, rdx=0),
}
# VMREADs: reason, RIP, its length, shadow and TF. A port's: and the
# qualification; a register's: a delivery that was cut short; CR3, EFER and CS,
# which the kept decode hangs on; RF; both addresses. A self-IPI's: and the
# vector that comes of it, if the guest takes interrupts, and what it is, behind
# an instruction of no length. VMWRITEs: RIP.
# Lines: struct vcpu's are two of registers, one of what the loop looks at, one
# of statistics, and an answer or a decode; struct vm's its first, and the bus.
COSTS = {
    "cpuid": Cost(5, 1, 0, 5, 1, 2),
    "vmcall": Cost(5, 1, 0, 5, 1, 2),
    "rdmsr": Cost(5, 1, 0, 4, 1, 4),
    "port that nobody has": Cost(6, 1, 0, 4, 2, 2),
    "port of the PIC": Cost(6, 1, 0, 4, 2, 3),
    "LAPIC register by MMIO": Cost(11, 1, 0, 9, 1, 10),
    "IOAPIC register": Cost(11, 1, 0, 9, 2, 8),
    "x2APIC EOI": Cost(5, 1, 0, 4, 1, 5),
    "x2APIC self-IPI": Cost(7, 3, 0, 6, 3, 13),
}


@pytest.mark.parametrize("name", GUEST_EXITS)
def test_cost_of_an_exit(whole, name):
    """`make bench` has what is printed here."""
    exit, registers = GUEST_EXITS[name](whole)
    cost = whole.cost(exit, **registers)
    print(f"cost of {name}: {' '.join(map(str, cost))}")
    assert cost == COSTS[name]


def cost_in_vmcs(whole, exit, **registers):
    return whole.cost(exit, **registers)[:3]


@pytest.mark.parametrize("leaf", [7, 0x80000002, 0x40000000])
def test_cost_of_other_leaves(whole, leaf):
    assert cost_in_vmcs(whole, {"EXIT_REASON": whole.m.EXIT_CPUID}, rax=leaf,
                        rcx=0) == (5, 1, 0)


def test_cost_of_cpuid_that_shows_osxsave(whole):
    assert cost_in_vmcs(whole, {"EXIT_REASON": whole.m.EXIT_CPUID}, rax=1,
                        rcx=0) == (6, 1, 0)


def test_cost_of_other_msrs(whole):
    read = {"EXIT_REASON": whole.m.EXIT_RDMSR}
    assert cost_in_vmcs(whole, read, rcx=0x17) == (5, 1, 0)
    # Its DEBUGCTL is the VMCS's.
    assert cost_in_vmcs(whole, read, rcx=0x1d9) == (6, 1, 0)


def test_cost_of_other_sizes(whole):
    for qualification in (0x12340000, 0x12340003):
        exit, _ = of_a_port(qualification)(whole)
        assert cost_in_vmcs(whole, exit) == (6, 1, 0)


def test_cost_of_a_deadline(whole):
    """It is the preemption timer's at once, and that is written once."""
    deadline = [1 << 30]

    def later():
        deadline[0] += 1 << 20
        whole.v.gpr[0] = deadline[0]
    whole.lapic.page[4 * whole.m.LAPIC_LVT_TIMER] = 2 << 17 | 0x41
    assert cost_in_vmcs(whole, {"EXIT_REASON": whole.m.EXIT_WRMSR,
                                "prepare": later},
                        rcx=0x6e0, rdx=0) == (5, 2, 0)


@pytest.mark.parametrize("name", GUEST_EXITS)
def test_cpus_that_exit_share_no_line_that_one_writes(whole, name):
    """But for those of the devices, whose lock they take."""
    exit, registers = GUEST_EXITS[name](whole)
    whole.vm.smp, whole.percpu.self = True, whole.percpu
    whole.m.fake_gs_base(whole.percpu)
    whole.cost(exit, **registers)
    part = whole.m.ffi.addressof
    devices = "port" in name or "IOAPIC" in name
    assert bool(whole.touched(part(whole.vm.lock))) == devices
    if not devices:
        assert not whole.touched(whole.vm, stored=True)


# --- Defects that must be noticed ---------------------------------------

VCPU = "vmm/vcpu/vcpu.c"
IF_OFF = {"GUEST_RFLAGS": 2}


def check(name, *more):
    """A test of py, run on a build."""
    def run(m):
        globals()[f"test_{name}"](Vm(m), *more)
    return run


def check_nmi(m):
    assert [n for n, *_ in play(m, ["nmi", "nmi", "block"])[0]] == [1, 3]


def check_pv(m):
    test_a_paravirtual_eoi_exits_where_somebody_waits(m)


def check_apicv(m):
    assert by_deeds(m, ALONE, "apicv") == by_deeds(m, ALONE, "apicv")
    test_apicv_exits_for_the_ioapic_alone(m)


def check_cr8(m):
    test_mov_cr8_exits_for_what_waits_alone(m)


MUTANTS = {
    "a window that stays open": (
        "on ? v->cpu_controls | control : v->cpu_controls & ~control;",
        "on ? v->cpu_controls | control : v->cpu_controls;",
        check("the_interrupt_window", IF_OFF)),
    "no interrupt window": (
        "	set_window(v, CPU_INTERRUPT_WINDOW | (v->apicv ? 0 : mwait),\n",
        "	set_window(v, mwait,\n",
        check("the_interrupt_window", IF_OFF)),
    "no NMI window": (
        "	set_window(v, CPU_NMI_WINDOW, v->nmi_pending);\n", "",
        check("the_nmi_window", BY_NMI)),
    "an interrupt that is not acknowledged": (
        "		lapic_ack(v->lapic, (unsigned)vector);\n", "",
        check("an_interrupt")),
    "an interrupt in the shadow of STI": (
        "return !blocking && (vmcs", "return (blocking | 1) && (vmcs",
        check("the_interrupt_window",
              {"GUEST_INTERRUPTIBILITY": STI})),
    "an NMI in an NMI": (
        "	    !(blocking & ~(u32)(BLOCKING_SMI | BLOCKING_STI))) {",
        "	    true) {", check("the_nmi_window", BY_NMI)),
    "a shadow that an NMI's entry keeps": (
        "		if (blocking & BLOCKING_STI)\n", "		if (false)\n",
        check("an_nmi_in_the_shadow_of_sti")),
    "vectoring dropped": (
        "	keep_vectoring(v);\n", "	(void)keep_vectoring;\n",
        check("vectoring", EXTERNAL, 0x41, None, 0)),
    "its length dropped": (
        "	vmcs_write32(VMCS_ENTRY_LENGTH, i->length);\n", "",
        check("vectoring", SOFTWARE, 0x80, None, 2)),
    "its error code dropped": (
        "		vmcs_write32(VMCS_ENTRY_ERROR_CODE, i->error);\n",
        "		(void)i->error;\n",
        check("vectoring", EXCEPTION, 14, 0x12, 0)),
    "an NMI cut short stays blocked": (
        "if ((info & INTERRUPTION_TYPE) == INTERRUPTION_NMI)\n		vmcs",
        "if (false)\n		vmcs", check("vectoring_of_an_nmi")),
    "injected twice": (
        "		v->injection.info = 0;\n		v->halted", "		v->halted",
        check("vectoring", EXTERNAL, 0x41, None, 0)),
    "asleep with an event": (
        "	inject_now(&event);\n	v->halted = false;\n",
        "	inject_now(&event);\n", check("hlt")),
    "an interrupt that MWAIT sleeps over": (
        "features.mwait ? CPU_MWAIT : 0", "features.mwait ? 0 : 0",
        check("mwait_with_an_interrupt_that_waits")),
    "a TPR that is lowered behind our back": (
        "		vmcs_write32(VMCS_TPR_THRESHOLD, v->threshold = class);\n",
        "		v->threshold = class;\n", check_cr8),
    "a threshold that stays": (
        "class != v->threshold)", "class > v->threshold)", check_cr8),
    "a vector that waits is forgotten": (
        "l->irr_words || l->ext", "l->ext", check("priority_threshold")),
    "an NMI that waits is forgotten": (
        "	if (v->nmi_pending || v->halted ||", "	if (v->halted ||",
        check_nmi),
    "asleep and nobody looks": (
        "	if (v->nmi_pending || v->halted ||", "	if (v->nmi_pending ||",
        check("hlt")),
    "a request that waits is forgotten": (
        " || v->pic->intr)", ")",
        check("a_request_that_the_lapic_does_not_pass_on")),
    "an event that was cut short is forgotten": (
        "	v->attention = true;\n	v->injection.info = info",
        "	v->injection.info = info",
        check("vectoring_without_protection_has_no_error")),
    "an event that a turned entry loses": (
        "	take_back(v);\n", "	if (!v)\n		take_back(v);\n",
        check("an_nmi_on_the_way_in")),
}


def check_clock(name, *more):
    def run(m):
        vm = Vm(m)
        globals()[f"test_{name}"](vm, initialiser(vm), *more)
    return run


def check_answers(m):
    """Each question behind each other one, OSXSAVE and the APIC or not."""
    test = test_cpuid_again_and_again.hypothesis.inner_test
    test(m, [(q, *state) for a in QUESTIONS for b in QUESTIONS
             for q, state in ((a, (0, 1)), (b, (1, 1)), (a, (1, 0)))])


PROBE, EXITS = "arch/x86/vmx/probe.c", "vmm/vcpu/exits.c"
ACCEPT = "vmm/devmodel/lapic_accept.c"
QUIET = "what_comes_when_all_is_quiet"
SAVED = check_clock("an_exit_does_not_set_the_preemption_timer", True)
# (source, what it reads, what it would read, who notices)
MORE_MUTANTS = {
    "a window is no reason to look": (
        EXITS, "		v->attention = true; /* the loop does", "		; /*",
        [check("the_interrupt_window", {"GUEST_RFLAGS": 2})]),
    "no list of errata": (
        PROBE, "			return true;\n", "			return false;\n",
        [check_clock("a_clock_that_is_wrong", habit) for habit in HABITS]),
    "any timer for any sleep": (
        PROBE, "cap->apic_clock && arat ? ~0u : STATES_C1", "arat || true ? ~0u : 0",
        [check_clock("a_guest_that_sleeps_deep", False, asked)
         for asked in ("AUTO", "APIC")] +
        [check_clock("a_guest_that_sleeps_deep", True, "PREEMPTION")]),
    "any value": (
        PROBE, "BIT(25) * r.ebx / r.eax - 1", "BIT(32)",
        [check_clock("a_clock_that_is_at_once_there")]),
    "an interrupt was the last one": (
        EXITS, "	v->slack = -1;\n	if (!timer)", "	if (!timer)",
        [check_clock("an_apic_timer_that_comes_early", 1000)]),
    "written at each exit": (
        VCPU, "	v->slack_max = (s64)(~0ull >> 1);\n",
        "	v->slack_max = -1;\n",
        [check_clock("an_exit_does_not_set_the_apic_s_timer")]),
    "the answer to another leaf": (
        EXITS, "a->leaf == leaf && ", "", [check_answers]),
    "the answer to another subleaf": (
        EXITS, " && a->subleaf == subleaf", "", [check_answers]),
    "OSXSAVE as it once was": (
        EXITS, "if (leaf != 1)\n", "if (leaf)\n", [check_answers]),
    "an answer that outlives the guest": (
        VCPU, "	vcpu_forget_answers(v);\n", "", [check("cpuid_is_asked_once")]),
    "each time anew": (
        EXITS, "if (leaf != 1)\n", "if (!leaf)\n",
        [check("cpuid_is_asked_once")]),
    "written at each exit, though it is saved": (
        VCPU, "cap->exit & EXIT_SAVE_TIMER ?", "!cap ?", [SAVED]),
    "not written where it is not saved": (
        VCPU, "cap->exit & EXIT_SAVE_TIMER ?", "cap ?",
        [check_clock("an_exit_does_not_set_the_preemption_timer", False)]),
    "what it stands still is not counted": (
        VCPU, "(s64)(ticks + v->transition)", "0", [SAVED]),
    "only what is spent in Monocle is": (
        VCPU, "(ticks + v->transition)", "ticks", [SAVED]),
    "only the way is": (
        VCPU, "(ticks + v->transition)", "v->transition", [SAVED]),
    "another deadline, and the old one stays": (
        VCPU, "	else\n		v->slack = -1;\n", "",
        [check_clock("an_exit_does_not_set_the_apic_s_timer")]),
    "a device's deadline, and the old one stays": (
        VCPU, "		serve_clock(v, &v->vm->clock);\n", "",
        [check_clock("another_deadline", False)]),
    "another CPU's deadline for a device": (
        VCPU, "	v->slack = -1; /* the dev", "	/* the dev",
        [check_clock("another_deadline", True)]),
    "over, and not set": (
        EXITS, "		v->slack = -1;\n		return", "		return",
        [check_clock("a_clock_that_is_at_once_there")]),
    "a message that nobody hears": (
        ACCEPT, "	lapic_collect(l);\n	if (l->attention)\n",
        "	lapic_collect(l);\n	if (false)\n", [check(QUIET, "interrupt", 0x41),
                             check(QUIET, "nmi", 2)]),
    "a threshold above the TPR": (
        ACCEPT, "class > lapic_cr8(l) || ", "",
        [check("what_waits_for_if_needs_no_threshold")]),
    "a threshold for what the ISR holds back": (
        ACCEPT, "in_service >> 4 >= (int)class", "in_service > 255",
        [check_cr8]),
    "APICv: what waits is not told": (
        VCPU, "		vmcs_write16(VMCS_GUEST_INTERRUPT_STATUS, status);\n",
        "		(void)status;\n", [check_apicv]),
    "APICv: delivered, and injected too": (
        VCPU, "return v->apicv ? -1 : lapic", "return lapic", [check_apicv]),
    "APICv: an EOI that no IOAPIC hears of": (
        EXITS, "		lapic_level_eoi(v->lapic, (unsigned)v->qualification);\n",
        "", [check_apicv]),
    "APICv: no EOI exits": (
        VCPU, "if (level != v->eoi_exits[n])", "if (v == NULL)",
        [check_apicv]),
    "APICv: in service as of old": (
        ACCEPT, "	l->isr_words = (u8)isr;\n", "	(void)isr;\n",
        [check_apicv]),
    "APICv: asleep with what waits": (
        VCPU, "interrupts_open(0))", "interrupts_open(1))",
        [check("apicv_wakes_a_guest_that_is_halted")]),
    "APICv: its MSRs stay open": (
        VCPU, "on ? v->vm->apicv_bitmap", "cap ? v->vm->apicv_bitmap",
        [check("apicv_begins_and_ends_with_x2apic_mode")]),
    "APICv: another mode, and nobody looks": (
        "vmm/devmodel/lapic.c", "	if (l->attention) /*", "	if (false) /*",
        [check("apicv_begins_and_ends_with_x2apic_mode")]),
    "APICv: an interrupt that MWAIT sleeps over": (
        VCPU, "(interrupt || lapic_pending(v->lapic) >= 0) &&",
        "interrupt &&", [check("apicv_and_mwait")]),
    "paravirtual: offered where one waits": (
        ACCEPT, "v < 0 || l->irr_words ||\n", "v < 0 ||\n", [check_pv]),
    "paravirtual: offered where an IOAPIC waits": (
        ACCEPT, "	    vector_test(l, LAPIC_TMR, (unsigned)v))\n		return;\n	__",
        "	    !l)\n		return;\n	__", [check_pv]),
    "paravirtual: nobody hears of it": (
        VCPU, "	lapic_pv_hear(v->lapic);\n", "", [check_pv]),
    "paravirtual: ended, though it is not": (
        ACCEPT, "	if (!(__atomic_fetch_and(l->pv_eoi, ~1u, __ATOMIC_RELAXED) & 1))",
        "	if (__atomic_fetch_and(l->pv_eoi, ~1u, __ATOMIC_RELAXED) < 2)",
        [check_pv]),
    "paravirtual: the bit stays": (
        ACCEPT, "fetch_and(l->pv_eoi, ~1u,", "fetch_and(l->pv_eoi, ~0u,",
        [check_pv]),
    "a line that nobody hears": (
        "vmm/devmodel/pic.c", "	if (pic->intr && pic->attention)\n",
        "	if (false)\n", [check(QUIET, "8259", 0x23)]),
    "a kick that is for nothing": (
        EXITS, "	v->attention = true;\n	v->slack", "	v->slack",
        [check(QUIET, "host", 2)]),
    "an exception that nobody hears": (
        "vmm/vcpu/vcpu_state.c", "	v->attention = true;\n", "",
        [check("a_handler_and_its_answer", "IO", "GP")]),
    "an NMI's exit that nobody hears": (
        EXITS, "percpu_nmi(v->cpu);", "(void)0;",
        [check("a_host_nmi_is_passed_on")]),
    "a HLT that nobody hears": (
        EXITS, "VMCS_GUEST_PENDING_DEBUG);\n	v->attention = true;",
        "VMCS_GUEST_PENDING_DEBUG);", [check("hlt")]),
    "a debug exception that nobody hears": (
        EXITS, "	};\n	v->attention = true;\n", "	};\n",
        [check("a_debug_exception_is_handed_on", 1, 0)]),
}


@pytest.mark.parametrize("name", MORE_MUTANTS)
def test_one_more_defect_is_noticed(name):
    source, old, new, runs = MORE_MUTANTS[name]
    m = build({source: mutated(source, (old, new))}, "vcpu_mutant")
    for run in runs:
        with pytest.raises((AssertionError, ValueError)):
            run(m)
        m._errors.clear()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_lost_event_is_noticed(name):
    old, new, run = MUTANTS[name]
    m = build({VCPU: mutated(VCPU, (old, new))}, "vcpu_mutant")
    with pytest.raises(AssertionError):
        run(m)


# --- What each entry is checked for --------------------------------------
# The VMCS is what vmx_probe(), vcpu_init() and vcpu_reset() make of it. At each
# entry the checker of entries looks at it; what the CPU does until the next
# exit follows from it.

CHECKER = "arch/x86/vmx/vmx_check.c"
BS = 1 << 14            # of the pending debug exceptions
EXTD, EN = 1 << 10, 1 << 11
# As vmx_write_host_state() leaves it.
HOST = {"CR0": 0x80010031, "CR3": 0x7000, "CR4": 0x2660, "EFER": 0xd00,
        "PAT": 0x0007040600070406, "ES": 16, "CS": 8, "SS": 16, "DS": 16,
        "TR": 24, "GS_BASE": 0x4000, "TR_BASE": 0x5000, "GDTR_BASE": 0x5100,
        "IDTR_BASE": 0x6000, "RIP": 0x100000, "RSP": 0x7000}
WAYS = ["exits", "shadow", "apicv"]     # exits: there is no TPR shadow


@pytest.fixture(scope="module")
def checked():
    return build(name="vcpu_checked", more=[CHECKER])


class Delivery(Apicv):
    """Virtual interrupts, where the guest takes any (SDM 30.2.2)."""

    def __init__(self, guest):
        self.vm, self.m, self.came = guest, guest.m, []

    def evaluate(self):
        if self.vm.takes_interrupts() and not (
                self.vm["CPU_CONTROLS"] & INTERRUPT_WINDOW):
            super().evaluate()
        if self.came:
            self.came.clear()
            self.vm.handler_begins()

    def highest(self):
        return tuple(max(self._bits(reg), default=0) for reg in (
            self.m.LAPIC_IRR, self.m.LAPIC_ISR))


class Checked(Vm):
    def __init__(self, m, how, deeds):
        super().__init__(m)
        self.cpu, self.broken = vmxcpu.skylake(m), []
        self.deeds, self.delivery = collections.deque(deeds), Delivery(self)
        self.settle(how)
        self.set(**{f"HOST_{name}": value for name, value in HOST.items()})
        m.fake_cr[4] = HOST["CR4"]
        m.fake_gs_base(self.percpu)
        self.percpu.self = self.percpu
        self.ept.eptp, self.vm.features.cr4_allowed = 0x501e, 0x3606f8
        self.vm.io_bitmap, self.vm.msr_bitmap, self.vm.apicv_bitmap = (
            m.ffi.cast("void *", n) for n in (0x9000, 0xb000, 0xc000))
        assert m.vcpu_init(self.v) == 0

    def settle(self, how):
        m, allowed = self.m, self.m.MSR_VMX_TRUE_PROCBASED
        self.cpu.cpuid(0x80000008, eax=48 << 8 | 48)
        self.cpu.set_msr(m.MSR_VMX_PROCBASED2,
                         self.cpu.msr(m.MSR_VMX_PROCBASED2) | APICV << 32)
        self.cpu.set_msr(m.MSR_VMX_MISC,    # no event of an INT of 0 bytes
                         self.cpu.msr(m.MSR_VMX_MISC) & ~(1 << 30))
        if how == "exits":
            self.cpu.set_msr(allowed,
                             self.cpu.msr(allowed) & ~(TPR_SHADOW << 32))
        assert m.vmx_probe(self.cap) == 0
        assert m.vmx_choose_clock(self.cap, m.CLOCK_PREEMPTION) == 0
        assert m.vmx_choose_apicv(self.cap, m.APICV_ON if how == "apicv" else
                                  m.APICV_OFF) == 0

    def live(self):
        """From one reset to the next, until all is done."""
        m = self.m
        while self.deeds:
            m.lapic_reset(self.lapic)
            m.lapic_virtual_wire(self.lapic)
            m.vcpu_reset(self.v, m.new("struct guest_entry *", {
                "mode": m.ENTRY_LONG64, "rip": 0x1000, "cs": 8, "ds": 16,
                "gdt_limit": 23}))
            wire_8259(self)
            self.run(*[self.exit] * (3 * len(self.deeds) + 3))
            m.check()

    def _enter(self):
        try:
            self.look()
            return super()._enter()
        except Exception:       # else the loop would go on
            self.vm.request = self.m.VM_POWER_OFF
            raise

    def look(self):
        m = self.m
        if not self.on_the_way:
            m.lib.fakes_line_count = 0
            if m.vmx_check(self.cap):
                self.broken.append(m.log_text())
            if self.v.apicv and (self.delivery.status() !=
                                 self.delivery.highest()):
                self.broken.append("RVI, SVI: IRR, ISR")

    # -- what the CPU does

    def blocked(self, by):
        return self["GUEST_INTERRUPTIBILITY"] & by

    def takes_interrupts(self):
        return self["GUEST_RFLAGS"] & IF and not self.blocked(STI | MOV_SS)

    def handler_begins(self):
        """... of an interrupt or an exception: an interrupt gate."""
        self.set(GUEST_RFLAGS=2, GUEST_PENDING_DEBUG=0, GUEST_ACTIVITY=0,
                 GUEST_INTERRUPTIBILITY=self.blocked(BY_NMI))

    def exit(self):
        m, entry = self.m, self.entries[-1]
        if entry.info and self.deeds and self.deeds[0][0] == "cut":
            self.deeds.popleft()
            return self.cut(entry.info, entry.error, entry.length)
        if entry.info:
            self.handler_begins()
        elif self["GUEST_PENDING_DEBUG"] & BS and not self.blocked(
                STI | MOV_SS):
            self.set(GUEST_PENDING_DEBUG=0)
            return {"EXIT_REASON": m.EXIT_EXCEPTION_NMI, "QUALIFICATION": BS,
                    "EXIT_INTERRUPTION": VALID | EXCEPTION | 1}
        if entry.windows & NMI_WINDOW and not self.blocked(BY_NMI | MOV_SS):
            return m.EXIT_NMI_WINDOW
        if entry.windows & INTERRUPT_WINDOW and self.takes_interrupts():
            return m.EXIT_INTERRUPT_WINDOW
        if self.v.apicv:
            self.delivery.evaluate()
        while self.deeds:
            name, *value = self.deeds.popleft()
            asleep = self["GUEST_ACTIVITY"] == HLT
            if name in OTHERS or not asleep:
                reason = getattr(self, name)(*value)
                if reason is not None:
                    return reason
        return m.EXIT_PREEMPTION_TIMER

    def cut(self, info=0, error=0, length=2):
        """An event's delivery, by an access to a device."""
        return info and {
            "EXIT_REASON": self.m.EXIT_EPT_VIOLATION, "IDT_VECTORING": info,
            "IDT_VECTORING_ERROR": error, "EXIT_LENGTH": length} or None

    # -- what the guest does; without an exit: None

    def access(self, bus, space, address, value, size):
        access = self.m.new("struct bus_access *", {
            "addr": address, "size": size, "write": True, "value": value})
        return self.m.bus_dispatch(bus, space, access)

    def register(self, reg, value):
        m = self.m
        if self.lapic.base & EXTD:
            self.access(self.bus, m.BUS_MSR, 0x800 + reg, value, 8)
            return m.EXIT_WRMSR
        self.access(self.bus, m.BUS_MMIO, LAPIC + 16 * reg, value, 4)
        return m.EXIT_EPT_VIOLATION

    def state(self, flags, shadow):
        if shadow == STI:
            flags |= IF
        self.set(GUEST_RFLAGS=2 | flags,
                 GUEST_INTERRUPTIBILITY=self.blocked(BY_NMI) | shadow,
                 GUEST_PENDING_DEBUG=BS if flags & TF and shadow else 0)

    def ends(self, how):
        """An instruction that exits, and one that is refused."""
        self.m.lib.handler_action = getattr(self.m, f"EXIT_{how}")
        return self.m.EXIT_IO

    def hlt(self):
        return self.m.EXIT_HLT

    def event(self, info, error):
        return self.cut(VALID | info, error)

    def iret(self):
        self.set(GUEST_INTERRUPTIBILITY=self.blocked(STI | MOV_SS))

    def cr8(self, value):
        if self.v.apicv:
            return self.delivery.cr8(value)
        self.m.lapic_set_cr8(self.lapic, value)
        if not self.cap.cpu & TPR_SHADOW:
            return self.m.EXIT_CR_ACCESS
        if value < self["TPR_THRESHOLD"]:
            return self.m.EXIT_TPR_BELOW_THRESHOLD

    def tpr(self, value):
        if self.v.apicv:
            return self.delivery.cr8(value)
        return self.register(self.m.LAPIC_TPR, value << 4)

    def eoi(self):
        if self.v.apicv:
            return self.delivery.eoi(0)
        return self.register(self.m.LAPIC_EOI, 0)

    def itself(self, vector):
        if self.v.apicv:
            return self.delivery.self(vector)
        return self.register(self.m.LAPIC_ICR, 1 << 18 | vector)

    def lint0(self, value):
        return self.register(self.m.LAPIC_LVT_LINT0, value)

    def mode(self):
        """From xAPIC to x2APIC mode, off, and again."""
        m, base = self.m, self.lapic.base
        new = EN if not base & EN else 0 if base & EXTD else EN | EXTD
        assert self.access(self.bus, m.BUS_MSR, 0x1b, LAPIC | 0x100 | new,
                           8) == 0
        if new == EN:
            m.lapic_virtual_wire(self.lapic)
        return m.EXIT_WRMSR

    def end_8259(self):
        self.access(self.m.ffi.addressof(self.vm.bus), self.m.BUS_PORT, 0x20,
                    0x20, 1)
        return self.m.EXIT_IO

    # -- what comes from elsewhere

    def arrives(self, **message):
        self.m.lapic_accept(self.lapic, self.m.new("struct apic_message *",
                                                   message))
        return self.m.EXIT_EXTERNAL_INTERRUPT

    def comes(self, vector, level):
        return self.arrives(vector=vector, level=level)

    def line(self, on):
        self.m.pic_set_line(self.pic, 3, on)
        return self.m.EXIT_EXTERNAL_INTERRUPT

    def sent(self, kind):
        return self.arrives(delivery=getattr(self.m, f"APIC_{kind}"))

    def late(self, vector):
        """On the way in: turned back."""
        def kick():
            self.m.percpu_nmi(self.percpu)
            self.arrives(vector=vector)
        self.on_the_way.append(kick)
        return self.m.EXIT_PREEMPTION_TIMER

    def timer(self):
        return self.m.EXIT_PREEMPTION_TIMER


OTHERS = {"comes", "line", "sent", "late", "timer"}
FEW = st.sampled_from([0x31, 0x52, 0x61, 0x6f])
CLASSES = st.sampled_from([0, 3, 5, 6])
LIVED = st.one_of(*(st.tuples(st.just(name), *values) for name, *values in (
    ("state", st.sampled_from([0, IF, TF, IF | TF]),
     st.sampled_from([0, STI, MOV_SS])),
    ("state", st.just(IF), st.just(0)),
    ("ends", st.sampled_from(["SKIP", "GP", "UD"])), ("hlt",),
    ("event", st.sampled_from([SOFTWARE | 0x80, SOFT_EXCEPTION | 3,
                               PRIVILEGED | 1, EXCEPTION | 6]), st.just(0)),
    ("event", st.just(EXCEPTION | ERROR | 14), st.integers(0, 31)),
    ("cut",), ("iret",), ("cr8", CLASSES), ("tpr", CLASSES),
    ("tpr", CLASSES), ("eoi",), ("eoi",),
    ("itself", FEW), ("lint0", st.sampled_from([0x700, 0x10700])),
    ("mode",), ("end_8259",), ("comes", FEW, st.booleans()),
    ("line", st.booleans()),
    ("sent", st.sampled_from(["NMI", "EXTINT", "INIT"])), ("late", FEW),
    ("timer",))))

# A vector that the TPR holds back, a window that is open for the 8259's
# request, and the TPR falls: by the LAPIC's page.
HELD = [("state", 0, 0), ("cr8", 6), ("comes", 0x61, False), ("line", True),
        ("tpr", 3), ("timer",)]
# A reset in the shadow of STI: IF is off behind it.
RESET = [("state", IF, STI), ("sent", "INIT"), ("timer",)]


def broken(m, how, deeds):
    guest = Checked(m, how, deeds)
    guest.live()
    return guest.broken[:1]


@pytest.mark.parametrize("how", WAYS)
@settings(max_examples=400)
@given(st.lists(LIVED, min_size=1, max_size=40))
@example(HELD)
@example(RESET)
def test_a_cpu_takes_each_entry(checked, how, deeds):
    """SDM 27.2, 27.3; whatever guest, devices and host have done before it."""
    assert not broken(checked, how, deeds)


ENTERS_X2APIC = [("mode",), ("comes", 0x61, False), ("timer",)]
# (source, what it reads, what it would read, the history that it fails in)
ENTRY_MUTANTS = {
    "a TPR that an exit lowers": (
        VCPU, "v->halted || v->threshold ||", "v->halted ||", "shadow", HELD),
    "a threshold that stays": (
        VCPU, "class != v->threshold)", "class > v->threshold)", "shadow",
        [("cr8", 3), ("comes", 0x31, False), ("mode",), ("mode",)]),
    "an NMI in the shadow of STI": (
        VCPU, "		if (blocking & BLOCKING_STI)\n", "		if (false)\n",
        "exits", [("state", 0, STI), ("sent", "NMI")]),
    "the NMI that was cut short blocks itself": (
        VCPU, "if ((info & INTERRUPTION_TYPE) == INTERRUPTION_NMI)\n		vmcs",
        "if (false)\n		vmcs", "exits",
        [("sent", "NMI"), ("cut",)]),
    "a reset that leaves the shadow": (
        VCPU, "	vmcs_write32(VMCS_GUEST_INTERRUPTIBILITY, 0);\n", "", "exits",
        RESET),
    "an INT without a length": (
        VCPU, "	vmcs_write32(VMCS_ENTRY_LENGTH, i->length);\n", "", "exits",
        [("event", SOFTWARE | 0x80, 0)]),
    "APICv: what waits is not told": (
        VCPU, "		vmcs_write16(VMCS_GUEST_INTERRUPT_STATUS, status);\n",
        "		(void)status;\n", "apicv", ENTERS_X2APIC),
}


@pytest.mark.parametrize("name", ENTRY_MUTANTS)
def test_an_entry_that_fails_is_noticed(name):
    source, old, new, how, deeds = ENTRY_MUTANTS[name]
    m = build({source: mutated(source, (old, new))}, "vcpu_checked_mutant",
              [CHECKER])
    assert broken(m, how, deeds)
