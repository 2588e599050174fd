# SPDX-License-Identifier: MIT
"""The checker of VM entries: silence on what a CPU enters, and one line, the
right one, for each rule that is broken."""

import re

import pytest

import harness
import vmxcpu

SOURCE = "arch/x86/vmx/vmx_check.c"
NAMES = ["ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"]
# What is checked in a loop has a case for its first and its last name.
ENDS = ("ES", "GS")
HIGH = 0xffff888000000000
ODD = 0x0000900000000000        # not canonical with 48 bits
WIDE = 1 << 39                  # a physical address that is too wide

PIN, CPU, CPU2, EXIT, ENTRY = 0x7f, 0xb6186dfa, 0xaa, 0x3fefff, 0xd3ff
PREEMPTION_SAVE = 1 << 22
WINDOW = 1 << 22                # NMI-window exiting
IA32E = 1 << 9
VALID = 1 << 31
UNUSABLE = 1 << 16
TF, IF, VM = 1 << 8, 1 << 9, 1 << 17


@pytest.fixture(scope="module")
def m():
    return vmxcpu.build("vmx_check", [SOURCE],
                        headers=["arch/x86/vmx/vmx_check.h",
                                 "arch/x86/vmx/vmcs.h", "kernel/phys.h"])


def segments(**all_of):
    """{"CS": (selector, base, limit, rights)} as VMCS fields' names."""
    out = {}
    for name, values in all_of.items():
        for what, value in zip(("", "_BASE", "_LIMIT", "_RIGHTS"), values):
            out[name + what] = value
    return out


COMMON = {
    "PIN_CONTROLS": PIN, "CPU_CONTROLS": CPU, "CPU_CONTROLS2": CPU2,
    "EXIT_CONTROLS": EXIT & ~PREEMPTION_SAVE,
    "IO_BITMAP_A": 0x1000, "IO_BITMAP_B": 0x2000, "MSR_BITMAP": 0x3000,
    "VPID": 1, "EPTP": 0x5000 | 0x1e, "LINK_POINTER": 2**64 - 1,
    "HOST_CR0": 0x80010031, "HOST_CR3": 0x7000, "HOST_CR4": 0x2620,
    "HOST_PAT": 0x0007040600070406, "HOST_EFER": 0xd00,
    "HOST_ES": 16, "HOST_CS": 8, "HOST_SS": 16, "HOST_DS": 16, "HOST_TR": 24,
    "HOST_GS_BASE": HIGH, "HOST_TR_BASE": HIGH, "HOST_GDTR_BASE": HIGH,
    "HOST_IDTR_BASE": HIGH, "HOST_RIP": HIGH, "HOST_RSP": HIGH,
    "GUEST_PAT": 0x0407050600070106, "GUEST_DR7": 0x400,
}
LONG = {
    **COMMON,
    "ENTRY_CONTROLS": ENTRY,
    "GUEST_CR0": 0x80050033, "GUEST_CR3": 0x1234000, "GUEST_CR4": 0x3626e0,
    "GUEST_EFER": 0xd01, "GUEST_RFLAGS": 0x246, "GUEST_RIP": HIGH,
    "GUEST_SYSENTER_ESP": HIGH, "GUEST_SYSENTER_EIP": HIGH,
    "GUEST_GDTR_BASE": HIGH, "GUEST_GDTR_LIMIT": 0x7f,
    "GUEST_IDTR_BASE": HIGH, "GUEST_IDTR_LIMIT": 0xfff,
    **segments(ES=(0, 0, 0, UNUSABLE), CS=(0x10, 0, 0xffffffff, 0xa09b),
               SS=(0x18, 0, 0xffffffff, 0xc093),
               DS=(0x18, 0, 0xffffffff, 0xc093),
               FS=(0, HIGH, 0, UNUSABLE), GS=(0, HIGH, 0, UNUSABLE),
               LDTR=(0, 0, 0, UNUSABLE), TR=(0x40, HIGH, 0x206f, 0x8b)),
}
REAL_DATA = (0x1000, 0x10000, 0xffff, 0x93)
REAL = {
    **COMMON,
    "ENTRY_CONTROLS": ENTRY & ~IA32E,
    "GUEST_CR0": 0x30, "GUEST_CR4": 0x2000, "GUEST_RFLAGS": 0x202,
    "GUEST_RIP": 0x7c00, "GUEST_IDTR_LIMIT": 0x3ff,
    **segments(ES=REAL_DATA, CS=(0xf000, 0xffff0000, 0xffff, 0x9b),
               SS=REAL_DATA, DS=REAL_DATA, FS=REAL_DATA, GS=REAL_DATA,
               LDTR=(0, 0, 0xffff, 0x82), TR=(0, 0, 0xffff, 0x8b)),
}
V86_DATA = (0x1000, 0x10000, 0xffff, 0xf3)
V86 = {
    **REAL, "GUEST_CR0": 0x31, "GUEST_RFLAGS": 0x2 | VM,
    **segments(ES=V86_DATA, CS=V86_DATA, SS=V86_DATA, DS=V86_DATA,
               FS=V86_DATA, GS=V86_DATA),
}
# Ring 3 with PAE paging in a guest that is not unrestricted.
FLAT3 = (0x23, 0, 0xffffffff, 0xc0f3)
PAE = {
    **REAL, "CPU_CONTROLS2": CPU2 & ~0x80,
    "GUEST_CR0": 0x80010031, "GUEST_CR4": 0x2020, "GUEST_CR3": 0x20,
    "GUEST_PDPTE0": 0x1001, "GUEST_PDPTE0+2": 0x2019, "GUEST_PDPTE0+4": 0x1e6,
    **segments(ES=FLAT3, CS=(0x1b, 0, 0xffffffff, 0xc0fb), SS=FLAT3, DS=FLAT3,
               FS=FLAT3, GS=FLAT3, LDTR=(0x28, 0x6000, 0xfff, 0x82)),
}
HALTED = {**LONG, "GUEST_ACTIVITY": 1}
# The TPR, in the first page that the fake has, is 0x5f.
TPR_SHADOW = {**LONG, "CPU_CONTROLS": CPU | 1 << 21, "TPR_THRESHOLD": 5,
              "VIRTUAL_APIC": 0x7000000000}
APICV = {**TPR_SHADOW, "CPU_CONTROLS2": CPU2 | 0x310}
NO_EPT = {**PAE, "CPU_CONTROLS2": 0x28, "EPTP": 0}


def field(m, name):
    """An encoding by its short name: CS_BASE, HOST_TR, GUEST_PDPTE0+2."""
    hit = re.fullmatch(r"(ES|CS|SS|DS|FS|GS|LDTR|TR)(_BASE|_LIMIT|_RIGHTS)?",
                       name)
    if hit:
        first = getattr(m, f"VMCS_GUEST_ES{hit[2] or ''}")
        return first + 2 * NAMES.index(hit[1])
    name, _, more = name.partition("+")
    return getattr(m, f"VMCS_{name}") + int(more or 0)


def check(m, state, msrs=(), misc=None):
    """The lines that the checker logs on this VMCS."""
    cpu = vmxcpu.skylake(m)
    cpu.set_msr(m.MSR_VMX_PROCBASED2,       # a server's: with APICv
                cpu.msr(m.MSR_VMX_PROCBASED2) | 0x300 << 32)
    for name, value in dict(msrs).items():
        cpu.set_msr(getattr(m, name), value)
    for name, value in state.items():
        cpu.write(field(m, name), value)
    m.ffi.cast("u8 *", m.page_alloc())[0x80] = 0x5f
    cap = m.new("struct vmx_capabilities *", {
        "cr0_fixed0": cpu.msr(m.MSR_VMX_CR0_FIXED0),
        "cr0_fixed1": cpu.msr(m.MSR_VMX_CR0_FIXED1),
        "cr4_fixed0": cpu.msr(m.MSR_VMX_CR4_FIXED0),
        "cr4_fixed1": cpu.msr(m.MSR_VMX_CR4_FIXED1),
        "misc": cpu.msr(m.MSR_VMX_MISC) if misc is None else misc,
        "ept_vpid": cpu.msr(m.MSR_VMX_EPT_VPID)})
    harness.reset_all()
    count = m.vmx_check(cap)
    lines = m.log_lines()
    assert count == len(lines)
    assert all(level == m.LOG_ERROR for level, _ in lines)
    return [text for _, text in lines]


def event(kind, vector, **more):
    return {"ENTRY_INTERRUPTION": VALID | kind << 8 | vector, **more}


EXTERNAL, NMI, EXCEPTION, SOFTWARE, PRIVILEGED, SOFT_EXCEPTION, OTHER = \
    0, 2, 3, 4, 5, 6, 7
ERROR = 1 << 11
# SDM table 6-1: #DF, #TS, #NP, #SS, #GP, #PF, #AC.
PUSH = {8, 10, 11, 12, 13, 14, 17}

VALID_STATES = [
    LONG, REAL, V86, PAE, HALTED, NO_EPT,
    # An invalid event field has no rules.
    {**LONG, "ENTRY_INTERRUPTION": 0x7fffffff},
    {**LONG, **event(EXTERNAL, 0xff)},
    {**LONG, **event(NMI, 2)},
    {**LONG, **event(EXCEPTION, 14 | ERROR, ENTRY_ERROR_CODE=0xffff)},
    {**LONG, **event(EXCEPTION, 6)},
    *({**LONG, **event(EXCEPTION, vector | ERROR * (vector in PUSH))}
      for vector in range(32)),
    {**REAL, **event(EXCEPTION, 13)},     # no error code in real mode
    {**LONG, **event(SOFTWARE, 0x80, ENTRY_LENGTH=2)},
    {**LONG, **event(SOFTWARE, 0x80, ENTRY_LENGTH=0)},  # MISC[30]
    {**LONG, **event(OTHER, 0)},
    {**HALTED, **event(EXTERNAL, 0x30)},
    {**HALTED, **event(NMI, 2)},
    {**HALTED, **event(EXCEPTION, 1)},
    {**HALTED, **event(EXCEPTION, 18)},
    {**HALTED, "GUEST_RFLAGS": 0x246 | TF, "GUEST_PENDING_DEBUG": 1 << 14},
    {**LONG, "GUEST_ACTIVITY": 2, **event(EXCEPTION, 18)},
    {**LONG, "GUEST_ACTIVITY": 3},
    {**LONG, "GUEST_INTERRUPTIBILITY": 1},
    {**LONG, "GUEST_INTERRUPTIBILITY": 8},          # NMIs are blocked
    {**LONG, "GUEST_INTERRUPTIBILITY": 8, **event(EXTERNAL, 0x30)},
    # Single-stepping by branches holds BS back.
    {**LONG, "GUEST_INTERRUPTIBILITY": 2, "GUEST_RFLAGS": 0x246 | TF,
     "GUEST_DEBUGCTL": 2},
    {**LONG, "GUEST_CR0": 0xe0050033, "HOST_CR0": 0xe0010031},  # no cache
    {**LONG, "CS_RIGHTS": 0xc09b, "GUEST_RIP": 0xfffffff0},     # compatibility
    {**LONG, "CPU_CONTROLS": CPU | WINDOW},
    TPR_SHADOW,
    APICV, {**APICV, "TPR_THRESHOLD": 6},       # which is not used then
    # Type 3 in CS: a real-mode data segment, in an unrestricted guest only.
    {**REAL, "CS_RIGHTS": 0x93},
    {**LONG, "CS_RIGHTS": 0xa09f},
    {**LONG, "SS_RIGHTS": 0xc097},
    {**REAL, "TR_RIGHTS": 0x83},
    {**PAE, "DS_RIGHTS": 0xc0fb},
    # What is switched off is not looked at.
    {**LONG, "CPU_CONTROLS": CPU & ~(1 << 25), "IO_BITMAP_A": 1},
    {**LONG, "CPU_CONTROLS": CPU & ~(1 << 28), "MSR_BITMAP": 1},
    {**PAE, "CPU_CONTROLS": CPU & ~VALID, "CPU_CONTROLS2": 0x10000, "VPID": 0},
    {**REAL, "ENTRY_CONTROLS": ENTRY & ~IA32E & ~(1 << 15),
     "GUEST_EFER": 2**63},
    {**LONG, "ENTRY_CONTROLS": ENTRY & ~(1 << 14), "GUEST_PAT": 2},
    {**LONG, "EXIT_CONTROLS": EXIT & ~PREEMPTION_SAVE & ~(5 << 19),
     "HOST_PAT": 2, "HOST_EFER": 2},
    {**LONG, "DS_RIGHTS": UNUSABLE | 0xfff00, "DS_BASE": 2**40},
    {**LONG, "LDTR_RIGHTS": UNUSABLE, "LDTR_BASE": ODD, "LDTR": 4},
    {**LONG, "GUEST_PDPTE0": 2**64 - 1},
    {**PAE, "GUEST_CR0": 0x80010031, "GUEST_CR4": 0x2000,
     "GUEST_PDPTE0": 2**64 - 1},
]


@pytest.mark.parametrize("n", range(len(VALID_STATES)))
def test_what_a_cpu_enters(m, n):
    assert check(m, VALID_STATES[n]) == []


S = "27.3.1.2"
BITS = "have bits that the CPU does not allow"
PAGE = "must be the physical address of a page"
FIXED = "has bits that VMX fixes otherwise"
WIDTH = "has bits beyond the physical-address width"
CANONICAL = "must be canonical"
PATTERN = "has a memory type that there is not"
MODE = "contradicts the mode or has reserved bits"
RESERVED = "has reserved bits"
EVENT, ACTIVITY, STATE = ("event to inject", "activity state",
                          "interruptibility state")

BROKEN = [
    (LONG, {"PIN_CONTROLS": PIN & ~2}, "27.2.1.1", "pin-based controls", BITS),
    (LONG, {"PIN_CONTROLS": PIN | 0x80}, "27.2.1.1", "pin-based controls",
     BITS),
    (LONG, {"CPU_CONTROLS": CPU & ~2}, "27.2.1.1", "primary controls", BITS),
    (LONG, {"CPU_CONTROLS": CPU | 1}, "27.2.1.1", "primary controls", BITS),
    (LONG, {"CPU_CONTROLS2": CPU2 | 1 << 31}, "27.2.1.1",
     "secondary controls", BITS),
    (LONG, {"EXIT_CONTROLS": EXIT & ~PREEMPTION_SAVE & ~2}, "27.2.1.2",
     "VM-exit controls", BITS),
    (LONG, {"ENTRY_CONTROLS": ENTRY & ~2}, "27.2.1.3", "VM-entry controls",
     BITS),
    (LONG, {"IO_BITMAP_A": 0x1001}, "27.2.1.1", "I/O bitmap A", PAGE),
    (LONG, {"IO_BITMAP_B": WIDE}, "27.2.1.1", "I/O bitmap B", PAGE),
    (LONG, {"MSR_BITMAP": 0x800}, "27.2.1.1", "MSR bitmap", PAGE),
    (TPR_SHADOW, {"VIRTUAL_APIC": 0x800}, "27.2.1.1", "virtual-APIC page",
     PAGE),
    (TPR_SHADOW, {"TPR_THRESHOLD": 6}, "27.2.1.1", "TPR threshold",
     "must not be above the TPR's class"),
    *[(LONG, {"CPU_CONTROLS2": CPU2 | bit}, "27.2.1.1", "APICv",
       "needs the TPR shadow") for bit in (1 << 4, 1 << 8, 1 << 9)],
    (APICV, {"PIN_CONTROLS": PIN & ~1}, "27.2.1.1",
     "virtual-interrupt delivery", "needs external-interrupt exiting"),
    (LONG, {"PIN_CONTROLS": PIN & ~8}, "27.2.1.1", "virtual NMIs",
     "need NMI exiting"),
    ({**LONG, "CPU_CONTROLS": CPU | WINDOW}, {"PIN_CONTROLS": PIN & ~0x20},
     "27.2.1.1", "NMI-window exiting", "needs virtual NMIs"),
    (LONG, {"VPID": 0}, "27.2.1.1", "VPID", "must not be 0"),
    (LONG, {"CPU_CONTROLS2": CPU2 & ~2}, "27.2.1.1", "unrestricted guest",
     "needs EPT"),
    *[(LONG, {"EPTP": value}, "27.2.1.1", "EPTP",
       "must say write-back and 4 levels, with no further bits")
      for value in (0x501c, 0x5016, 0x501e | 0x80, 0x501e | WIDE)],

    *[(LONG, event(kind, 0), "27.2.1.3", EVENT,
       "has reserved bits or the reserved type") for kind in (1, 0x10)],
    *[(LONG, event(kind, vector, ENTRY_LENGTH=2), "27.2.1.3", EVENT,
       "has a vector that its type does not have")
      for kind, vector in ((NMI, 3), (EXCEPTION, 32), (OTHER, 1))],
    *[(base, event(kind, vector, ENTRY_LENGTH=2), "27.2.1.3", EVENT,
       "must deliver an error code where the exception has one")
      for base, kind, vector in (
          *((LONG, EXCEPTION, vector | ERROR * (vector not in PUSH))
            for vector in range(32)), (REAL, EXCEPTION, ERROR | 13),
          (LONG, SOFTWARE, ERROR | 13), (LONG, EXTERNAL, ERROR | 40))],
    (LONG, event(EXCEPTION, ERROR | 14, ENTRY_ERROR_CODE=0x10000), "27.2.1.3",
     EVENT, "has an error code with reserved bits"),
    *[(LONG, event(kind, 3, ENTRY_LENGTH=16), "27.2.1.3", EVENT,
       "must have an instruction of 1 to 15 bytes")
      for kind in (SOFTWARE, PRIVILEGED, SOFT_EXCEPTION)],

    (LONG, {"HOST_CR0": 0x80010011}, "27.2.2", "host CR0", FIXED),
    (LONG, {"HOST_CR4": 0x620}, "27.2.2", "host CR4", FIXED),
    (LONG, {"HOST_CR4": 0x2620 | 1 << 30}, "27.2.2", "host CR4", FIXED),
    (LONG, {"HOST_CR3": WIDE}, "27.2.2", "host CR3", WIDTH),
    (LONG, {"HOST_PAT": 0x02 << 8}, "27.2.2", "host PAT", PATTERN),
    *[(LONG, {"HOST_EFER": value}, "27.2.2", "host EFER", MODE)
      for value in (0, 0x100, 0x400, 0xd02)],
    *[(LONG, {f"HOST_{name}_BASE": ODD}, "27.2.3", f"host {name} base",
       CANONICAL) for name in ("FS", "GS", "TR", "GDTR", "IDTR")],
    *[(LONG, {f"HOST_SYSENTER_{name}": ODD}, "27.2.2",
       f"host SYSENTER_{name}", CANONICAL) for name in ("ESP", "EIP")],
    *[(LONG, {f"HOST_{name}": value}, "27.2.3", name,
       "of the host must have RPL 0 and be in the GDT")
      for name, value in (("ES", 0x13), ("CS", 0x14), ("TR", 0x14))],
    *[(LONG, {f"HOST_{name}": 0}, "27.2.3", name,
       "of the host must not be 0") for name in ("CS", "TR")],
    (LONG, {"EXIT_CONTROLS": EXIT & ~PREEMPTION_SAVE & ~IA32E,
            "HOST_EFER": 0}, "27.2.4", "host address-space size",
     "must be 1 in IA-32e mode, in which Monocle runs"),
    (LONG, {"HOST_CR4": 0x2600}, "27.2.4", "host CR4", "must have PAE"),
    (LONG, {"HOST_RIP": ODD}, "27.2.4", "host RIP", CANONICAL),

    (LONG, {"GUEST_CR0": 0x80050013}, "27.3.1.1", "guest CR0", FIXED),
    (LONG, {"GUEST_CR0": 0x180050033}, "27.3.1.1", "guest CR0", FIXED),
    (PAE, {"GUEST_CR0": 0x31}, "27.3.1.1", "guest CR0", FIXED),
    (LONG, {"GUEST_CR4": 0x3606e0}, "27.3.1.1", "guest CR4", FIXED),
    (REAL, {"GUEST_CR0": 0x80000030}, "27.3.1.1", "guest CR0",
     "must have PE where it has PG"),
    ({**LONG, "GUEST_EFER": 0xd01}, {"GUEST_CR0": 0x50033}, "27.3.1.1",
     "guest CR0", "must have PG in IA-32e mode"),
    (LONG, {"GUEST_CR4": 0x3626c0}, "27.3.1.1", "guest CR4",
     "must have PAE in IA-32e mode"),
    (REAL, {"GUEST_CR4": 0x22000}, "27.3.1.1", "guest CR4",
     "must not have PCIDE outside IA-32e mode"),
    (LONG, {"GUEST_CR3": WIDE}, "27.3.1.1", "guest CR3", WIDTH),
    *[(LONG, {"GUEST_DEBUGCTL": value}, "27.3.1.1", "guest DEBUGCTL",
       RESERVED) for value in (8, 1 << 16)],
    (LONG, {"GUEST_DR7": 1 << 32}, "27.3.1.1", "guest DR7", RESERVED),
    *[(LONG, {f"GUEST_SYSENTER_{name}": ODD}, "27.3.1.1",
       f"guest SYSENTER_{name}", CANONICAL) for name in ("ESP", "EIP")],
    *[(LONG, {"GUEST_PAT": value}, "27.3.1.1", "guest PAT", PATTERN)
      for value in (3, 8 << 56)],
    *[(LONG, {"GUEST_EFER": value}, "27.3.1.1", "guest EFER", MODE)
      for value in (0, 0x100, 0x400, 0x1500)],
    (REAL, {"GUEST_EFER": 0x400}, "27.3.1.1", "guest EFER", MODE),
    (PAE, {"GUEST_EFER": 0x100}, "27.3.1.1", "guest EFER", MODE),

    *[(V86, {f"{name}_BASE": 0x10001}, S, name,
       "must have the base of its selector in virtual-8086 mode")
      for name in ENDS],
    (V86, {"SS_LIMIT": 0xfffff}, S, "SS",
     "must have limit 0xffff in virtual-8086 mode"),
    (V86, {"GS_RIGHTS": 0x93}, S, "GS",
     "must have rights 0xf3 in virtual-8086 mode"),
    *[(PAE, {f"{name}": 0x10000 | 0x2c}, S, name, "must be in the GDT")
      for name in ("LDTR", "TR")],
    (LONG, {"TR_RIGHTS": UNUSABLE | 0x8b}, S, "TR", "must be usable"),
    ({**PAE, "SS_RIGHTS": 0xc0f3}, {"CS": 0x18}, S, "SS",
     "must have the RPL of CS"),
    *[(LONG, {f"{name}_BASE": ODD}, S, f"guest {name} base", CANONICAL)
      for name in ("FS", "GS", "TR")],
    (PAE, {"LDTR_BASE": ODD}, S, "LDTR",
     "has a base that is not canonical"),
    *[(REAL, {f"{name}_BASE": 1 << 32}, S, name, "has a base beyond 4 GiB")
      for name in ("ES", "DS")],
    *[(base, {f"{name}_RIGHTS": rights}, S, name, "has the wrong type")
      for base, name, rights in (
          (LONG, "CS", 0xa09a), (LONG, "CS", 0xa09c),
          (LONG, "SS", 0xc091), (LONG, "SS", 0xc09b), (LONG, "DS", 0xc092),
          (LONG, "DS", 0xc099), (REAL, "LDTR", 0x83), (LONG, "TR", 0x83),
          (LONG, "TR", 0x89), (REAL, "TR", 0x89))],
    # Data in CS: only in an unrestricted guest.
    (PAE, segments(**{n: (0x20, 0, 0xffffffff, 0xc093) for n in NAMES[:6]}),
     S, "CS", "has the wrong type"),
    *[(base, {f"{name}_RIGHTS": base[f"{name}_RIGHTS"] ^ 0x10}, S, name,
       "has the wrong S bit") for base, name in ((LONG, "CS"), (REAL, "TR"))],
    *[(REAL, {f"{name}_RIGHTS": REAL[f"{name}_RIGHTS"] ^ 0x80}, S, name,
       "must be present") for name in ("ES", "TR")],
    *[(REAL, {f"{name}_RIGHTS": REAL[f"{name}_RIGHTS"] | extra}, S, name,
       "has rights with reserved bits")
      for name, extra in (("ES", 0x100), ("TR", 0x20000))],
    *[(REAL, {f"{name}_LIMIT": 0x1fffff}, S, name,
       "has a G bit that contradicts its limit") for name in ("ES", "TR")],
    (LONG, {"SS_LIMIT": 0xfffffffe}, S, "SS",
     "has a G bit that contradicts its limit"),
    *[(base, change, S, name, "has the wrong DPL")
      for base, name, change in (
          (LONG, "CS", {"CS_RIGHTS": 0xa0fb}),
          (LONG, "CS", {"CS_RIGHTS": 0xa0ff}),
          (REAL, "CS", {"CS_RIGHTS": 0xf3}),
          (PAE, "CS", {"CS_RIGHTS": 0xc09b}),
          ({**PAE, "CS_RIGHTS": 0xc0ff}, "SS", {"SS": 0x22, "CS": 0x1a}),
          ({**REAL, "CS_RIGHTS": 0x9f}, "SS", {"SS_RIGHTS": 0xf3}),
          *[(PAE, name, {f"{name}_RIGHTS": 0xc093})
            for name in ENDS])],
    (LONG, {"CS_RIGHTS": 0xe09b}, S, "CS",
     "must not have D in 64-bit mode"),

    *[(LONG, {f"GUEST_{name}_BASE": ODD}, "27.3.1.3", f"guest {name} base",
       CANONICAL) for name in ("GDTR", "IDTR")],
    *[(LONG, {f"GUEST_{name}_LIMIT": 0x10000}, "27.3.1.3", f"guest {name}",
       "must have a limit below 64 KiB") for name in ("GDTR", "IDTR")],

    *[(base, change, "27.3.1.4", "guest RIP",
       "is wider than the code segment allows")
      for base, change in ((LONG, {"GUEST_RIP": ODD}),
                           (REAL, {"GUEST_RIP": 1 << 32}),
                           (LONG, {"CS_RIGHTS": 0xc09b}))],
    *[(LONG, {"GUEST_RFLAGS": flags}, "27.3.1.4", "guest RFLAGS",
       "has reserved bits, or bit 1 is 0")
      for flags in (0x244, 0x24e, 0x266, 0x8246, 1 << 22 | 0x246)],
    (V86, {"GUEST_CR0": 0x30}, "27.3.1.4", "guest RFLAGS",
     "must not have VM in IA-32e or real mode"),
    (LONG, {**event(EXTERNAL, 0x30), "GUEST_RFLAGS": 0x46}, "27.3.1.4",
     "guest RFLAGS", "must have IF where an external interrupt is injected"),

    *[(LONG, {"GUEST_ACTIVITY": value}, "27.3.1.5", ACTIVITY,
       "is not one that the CPU has") for value in (4, 2**31)],
    ({**PAE, "GUEST_RFLAGS": 2}, {"GUEST_ACTIVITY": 1}, "27.3.1.5", ACTIVITY,
     "HLT needs DPL 0 of SS"),
    (HALTED, {"GUEST_INTERRUPTIBILITY": 1}, "27.3.1.5", ACTIVITY,
     "must be active under blocking by STI or MOV SS"),
    *[({**LONG, "GUEST_ACTIVITY": activity}, event(kind, vector), "27.3.1.5",
       ACTIVITY, "must be one that the event to inject ends")
      for activity, kind, vector in (
          (1, EXCEPTION, 6), (1, SOFTWARE, 0x80), (2, EXTERNAL, 0x30),
          (2, EXCEPTION, 1), (3, NMI, 2))],
    *[(LONG, {"GUEST_INTERRUPTIBILITY": value}, "27.3.1.5", STATE,
       "has bits that must be 0 outside SMM and enclaves")
      for value in (4, 0x10, 0x20, 2**31)],
    (LONG, {"GUEST_INTERRUPTIBILITY": 3}, "27.3.1.5", STATE,
     "must not block by both STI and MOV SS"),
    ({**LONG, "GUEST_RFLAGS": 0x46}, {"GUEST_INTERRUPTIBILITY": 1},
     "27.3.1.5", STATE, "must not block by STI without RFLAGS.IF"),
    *[({**LONG, **event(*what)}, {"GUEST_INTERRUPTIBILITY": value},
       "27.3.1.5", STATE,
       "must not block the interrupt or NMI that is injected")
      for what in ((EXTERNAL, 0x30), (NMI, 2)) for value in (1, 2)],
    ({**LONG, **event(NMI, 2)}, {"GUEST_INTERRUPTIBILITY": 8}, "27.3.1.5",
     STATE, "must not block the virtual NMI that is injected"),
    *[(LONG, {"GUEST_PENDING_DEBUG": value}, "27.3.1.5",
       "pending debug exceptions", "have reserved bits")
      for value in (0x10, 0x2000, 0x8000, 0x20000)],
    *[(base, change, "27.3.1.5", "pending debug exceptions",
       "must have BS as RFLAGS.TF says")
      for base, change in (
          (HALTED, {"GUEST_PENDING_DEBUG": 1 << 14}),
          (HALTED, {"GUEST_RFLAGS": 0x246 | TF}),
          ({**LONG, "GUEST_RFLAGS": 0x246 | TF},
           {"GUEST_INTERRUPTIBILITY": 2}))],
    (LONG, {"LINK_POINTER": 0x9000}, "27.3.1.5", "VMCS link pointer",
     "must be all ones where no VMCS is linked"),

    *[(PAE, {f"GUEST_PDPTE0+{2 * n}": value}, "27.3.1.6", "guest PDPTEs",
       "have reserved bits")
      for n, value in ((0, 3), (1, 0x21), (3, WIDE | 1))],
]


def line(section, what, rule):
    return f"SDM {section}: {what} {rule}"


@pytest.mark.parametrize("n", range(len(BROKEN)))
def test_a_broken_rule_is_named(m, n):
    base, change, *expected = BROKEN[n]
    assert check(m, base) == [], "the state before the change"
    assert check(m, {**base, **change}) == [line(*expected)]


def test_every_rule_has_a_case():
    text = re.sub(r'"\s*"', "", (harness.ROOT / SOURCE).read_text())
    text = text[text.index("enum segment_number"):]
    literals = {t for t in re.findall(r'"([^"]*)"', text)
                if not re.fullmatch(r"27\.[\d.]+|SDM .*", t)}
    lines = [line(*expected) for _, _, *expected in BROKEN]
    assert [t for t in literals if not any(t in at for at in lines)] == []


def test_several_rules_give_a_line_each(m):
    lines = check(m, {**LONG, "VPID": 0, "HOST_RIP": ODD, "GUEST_CR3": WIDE,
                      "LINK_POINTER": 0})
    assert [text.split(":")[0] for text in lines] == [
        "SDM 27.2.1.1", "SDM 27.2.4", "SDM 27.3.1.1", "SDM 27.3.1.5"]


def test_an_old_cpu_has_no_true_msrs(m):
    """Without VMX_BASIC[55] CR3 exiting must stand as the MSR says."""
    basic = vmxcpu.CAPABILITIES["MSR_VMX_BASIC"] & ~(1 << 55)
    old = {**LONG, "CPU_CONTROLS": CPU | 0x18000,
           "EXIT_CONTROLS": LONG["EXIT_CONTROLS"] | 4,
           "ENTRY_CONTROLS": LONG["ENTRY_CONTROLS"] | 4}
    assert check(m, old, {"MSR_VMX_BASIC": basic}) == []
    assert check(m, {**old, "CPU_CONTROLS": CPU},
                 {"MSR_VMX_BASIC": basic}) == [
        line("27.2.1.1", "primary controls", BITS)]


def test_what_the_cpu_has_decides(m):
    misc = vmxcpu.CAPABILITIES["MSR_VMX_MISC"]
    halt = {**LONG, "GUEST_ACTIVITY": 1}
    assert check(m, halt, misc=misc & ~(1 << 6)) == [
        line("27.3.1.5", ACTIVITY, "is not one that the CPU has")]
    empty = {**LONG, **event(SOFTWARE, 0x80, ENTRY_LENGTH=0)}
    assert check(m, empty, misc=misc & ~(1 << 30)) == [
        line("27.2.1.3", EVENT, "must have an instruction of 1 to 15 bytes")]
    # VMX_BASIC[56]: with #CP, an error code where software wants one.
    free = {"MSR_VMX_BASIC": vmxcpu.CAPABILITIES["MSR_VMX_BASIC"] | 1 << 56}
    assert check(m, {**LONG, **event(EXCEPTION, ERROR | 21)}, free) == []
    assert check(m, {**LONG, **event(EXTERNAL, ERROR | 40)}, free) == [
        line("27.2.1.3", EVENT,
             "must deliver an error code where the exception has one")]
