# SPDX-License-Identifier: MIT
"""The tests' own test: a copy of the C source with one defect, which Bochs
would not show, makes the check that is meant for it fail."""

import re

import pytest

import harness
import test_ept
import test_exits
import test_guest_cpuid
import test_vcpu


def mutated(source, *changes):
    """The path of a copy in which each (old, new) was put through once."""
    text = (harness.ROOT / source).read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{source} no longer reads {old!r}"
        text = text.replace(old, new)
    stem = source.rsplit("/", 1)[1].removesuffix(".c")
    return harness._file_of_text(text, f"mutant-{stem}")


# --- EPT -----------------------------------------------------------------

EPT = "arch/x86/vmx/ept.c"
INVEPT = """	invalidate(ept);
	ept->stale = false;
"""
EARLY = """	if (ept->tables > 1)
		vmx_invept(ept->cap, ept->eptp);
"""
CHANGE = "	err = set_range(ept, ept->root, LEVELS - 1, gpa, size, entry);\n"
FILL = """	if (leaf & PRESENT)
		for (unsigned i = 0; i < ENTRIES; i++)
			mmio_write64(&table[i],
				     (level == 1 ? leaf & ~(u64)EPT_PS : leaf) +
					     i * span(level - 1));
"""
LINK = "	store(ept, entry, virt_to_phys(table) | PRESENT);\n"
REPLACE = "			store(ept, e, entry | ps);\n"
FREE = "			free_tables(ept, old, level);\n"


def unmap_a_page(m):
    ept = test_ept.Ept(m)
    assert ept.map(0, 2 << 30, 0) == 0
    assert ept.unmap(5 << 21, 4096) == 0


def protect_a_page(m):
    test_ept.test_a_write_protected_page_in_the_middle_of_a_large_one(m)


def large_in_place_of_small(m):
    test_ept.test_a_large_page_in_place_of_tables_frees_them(m)


EPT_MUTANTS = {
    "no INVEPT": ([(INVEPT, "")], unmap_a_page, "no INVEPT"),
    "no INVEPT after a change of rights":
        ([(INVEPT, "")], protect_a_page, "no INVEPT"),
    "INVEPT before the stores":
        ([(INVEPT, ""),
          (CHANGE, EARLY + CHANGE)],
         unmap_a_page, "INVEPT before the last store"),
    "INVEPT whenever called":
        ([("	if (ept->stale)\n		vmx_invept", "	vmx_invept")],
         unmap_a_page, "INVEPT though nothing present changed"),
    "INVEPT of something else":
        ([("vmx_invept(ept->cap, ept->eptp)", "vmx_invept(ept->cap, 0)")],
         unmap_a_page, ""),
    "a table linked before it is filled":
        ([(FILL, ""), (LINK, LINK + FILL)], unmap_a_page,
         "linked before it was filled"),
    "a table that is not filled":
        ([(FILL, "")], unmap_a_page, "linked before it was filled"),
    "a table freed before it is unlinked":
        ([(REPLACE, ""), (FREE, FREE + REPLACE)], large_in_place_of_small,
         "freed while it is linked"),
    "a table freed before INVEPT":
        ([("				invalidate(ept);\n", "				(void)ept;\n")],
         large_in_place_of_small, "while a CPU may still walk it"),
    "tables leak": ([(FREE, "			(void)free_tables; (void)old;\n")],
                    large_in_place_of_small, ""),
}


@pytest.mark.parametrize("name", EPT_MUTANTS)
def test_a_wrong_order_is_noticed(name):
    changes, check, says = EPT_MUTANTS[name]
    m = test_ept.build(mutated(EPT, *changes), "ept_mutant")
    with pytest.raises(AssertionError, match=says):
        check(m)


def test_the_checks_pass_on_the_source_itself():
    m = test_ept.build()
    for _, check, _ in EPT_MUTANTS.values():
        check(m)


# --- CPUID ---------------------------------------------------------------

CPUID = "vmm/vcpu/guest_cpuid.c"
FIND = "static const struct row *find_row(u32 leaf)\n{\n"
# The row is gone for the lookup: one build for all of them.
REMOVED = "u32 removed_row = 0xffffffff;\n\n" + FIND + \
    "	if (leaf == removed_row)\n		return NULL;\n"


@pytest.fixture(scope="module")
def without_row():
    return test_guest_cpuid.vmxcpu.build(
        "cpuid_mutant", [mutated(CPUID, (FIND, REMOVED))],
        headers=["vmm/vcpu/guest_cpuid.h"], cdef="extern unsigned removed_row;")


def rows():
    """The leaves that have a row in the source's two tables."""
    text = (harness.ROOT / CPUID).read_text()
    for table, first in (("basic", 0), ("extended", 0x80000000)):
        body = text[text.index(f"struct row {table}[] = {{"):]
        for n in re.findall(r"^\t\[(\w+)\] = \{", body[:body.index("\n};")],
                            re.M):
            yield first + int(n, 0)


@pytest.mark.parametrize("leaf", list(rows()), ids=hex)
def test_a_cpuid_row_is_missed(without_row, leaf):
    m = without_row
    m.lib.removed_row = 0xffffffff
    guest = test_guest_cpuid.Guest(m)
    test_guest_cpuid.every_leaf(guest)
    m.lib.removed_row = leaf
    with pytest.raises(AssertionError, match=f"leaf {leaf:x},"):
        test_guest_cpuid.every_leaf(guest)


@pytest.mark.parametrize("old, new, leaf", [
    # A row's text removed; a feature hidden; one shown without a reason.
    ("	[2] = {ALL, ALL, ALL, ALL, NULL}, /* brand */\n", "", "80000002"),
    ("LEAF7_EBX = 1u << 0 |", "LEAF7_EBX =", "7"),
    ("1u << 28 | 1u << 29 | 1u << 31,\n};", "1u << 28 | 1u << 29 | 1u << 31 "
     "| 1u << 8,\n};", "7"),
    ("	if (subleaf)\n", "	if (subleaf > 4)\n", "7"),
    ("	if (subleaf == 0) {\n		r->eax &= (u32)f->xcr0_allowed;",
     "	if (subleaf == 0) {", "d")],
    ids=["removed", "hidden", "shown", "subleaf", "xcr0"])
def test_a_changed_cpuid_row_is_noticed(old, new, leaf):
    m = test_guest_cpuid.build(mutated(CPUID, (old, new)), "cpuid_mutant")
    with pytest.raises(AssertionError, match=f"leaf {leaf},"):
        test_guest_cpuid.every_leaf(test_guest_cpuid.Guest(m))


# --- Control registers ---------------------------------------------------

def test_stale_translations_after_cr0():
    """The EPT's mappings of linear addresses are the guest's TLB."""
    source = "vmm/vcpu/exit_cr.c"
    m = test_exits.build({source: mutated(
        source, ("	if (change & CR0_PG)\n		flush(v);\n", ""))},
        "exits_mutant")
    arch = test_exits.Arch(test_exits.PE | test_exits.PG | test_exits.ET,
                           0, 0, False, "memory", "good")
    vcpu = test_exits.enter(m, arch)
    m.vcpu_set_gpr(vcpu.v, 0, test_exits.PE)
    with pytest.raises(AssertionError, match="stale translations"):
        test_exits.both(vcpu, arch, lambda: arch.mov_cr0(test_exits.PE), 0)


# --- The vCPU's events ---------------------------------------------------

VCPU = "vmm/vcpu/vcpu.c"
IF_OFF = {"GUEST_RFLAGS": 2}


def check(name, *more):
    """A test of test_vcpu.py, run on a build."""
    def run(m):
        getattr(test_vcpu, f"test_{name}")(test_vcpu.Vm(m), *more)
    return run


VCPU_MUTANTS = {
    "a window that stays open": (
        "on ? v->cpu_controls | control : v->cpu_controls & ~control;",
        "on ? v->cpu_controls | control : v->cpu_controls;",
        check("the_interrupt_window", IF_OFF)),
    "no interrupt window": (
        "	set_window(v, CPU_INTERRUPT_WINDOW, interrupt && !v->halted);\n", "",
        check("the_interrupt_window", IF_OFF)),
    "no NMI window": (
        "	set_window(v, CPU_NMI_WINDOW, v->nmi_pending);\n", "",
        check("the_nmi_window", test_vcpu.BY_NMI)),
    "an interrupt that is not acknowledged": (
        "		lapic_ack(v->lapic, (unsigned)vector);\n", "",
        check("an_interrupt")),
    "an interrupt in the shadow of STI": (
        "return !blocking && (vmcs", "return (blocking | 1) && (vmcs",
        check("the_interrupt_window",
              {"GUEST_INTERRUPTIBILITY": test_vcpu.STI})),
    "an NMI in an NMI": (
        "if (v->nmi_pending && !(blocking & ~(u32)BLOCKING_SMI)) {",
        "if (v->nmi_pending) {", check("the_nmi_window", test_vcpu.BY_NMI)),
    "vectoring dropped": (
        "	keep_vectoring(v);\n", "	(void)keep_vectoring;\n",
        check("vectoring", test_vcpu.EXTERNAL, 0x41, None, 0)),
    "its length dropped": (
        "	vmcs_write32(VMCS_ENTRY_LENGTH, i->length);\n", "",
        check("vectoring", test_vcpu.SOFTWARE, 0x80, None, 2)),
    "its error code dropped": (
        "		vmcs_write32(VMCS_ENTRY_ERROR_CODE, i->error);\n",
        "		(void)i->error;\n",
        check("vectoring", test_vcpu.EXCEPTION, 14, 0x12, 0)),
    "an NMI cut short stays blocked": (
        "if ((info & INTERRUPTION_TYPE) == INTERRUPTION_NMI)\n		vmcs",
        "if (false)\n		vmcs", check("vectoring_of_an_nmi")),
    "injected twice": (
        "		v->injection.info = 0;\n		v->halted", "		v->halted",
        check("vectoring", test_vcpu.EXTERNAL, 0x41, None, 0)),
    "asleep with an event": (
        "	inject_now(&event);\n	v->halted = false;\n",
        "	inject_now(&event);\n", check("hlt")),
    "a window that a quiet exit leaves open": (
        " &&\n	       !(v->cpu_controls & (CPU_INTERRUPT_WINDOW | "
        "CPU_NMI_WINDOW))", "", check("a_request_that_is_withdrawn")),
    "an event that a quiet exit puts off": (
        "!(l->irr_words | l->nmi_pending", "!(0u | l->nmi_pending",
        check("an_interrupt")),
}


@pytest.mark.parametrize("name", VCPU_MUTANTS)
def test_a_lost_event_is_noticed(name):
    old, new, run = VCPU_MUTANTS[name]
    m = test_vcpu.build({VCPU: mutated(VCPU, (old, new))}, "vcpu_mutant")
    with pytest.raises(AssertionError):
        run(m)
