# SPDX-License-Identifier: MIT
"""What the CPU's VMX can do: each lack is one clear line, and nothing on the
machine was changed or asked for that the CPU does not have."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
import vmxcpu

SETS = [  # controls in struct vmx_capabilities, MSR, MSR with VMX_BASIC[55]
    ("pin", "MSR_VMX_PINBASED", "MSR_VMX_TRUE_PINBASED"),
    ("cpu", "MSR_VMX_PROCBASED", "MSR_VMX_TRUE_PROCBASED"),
    ("cpu2", "MSR_VMX_PROCBASED2", "MSR_VMX_PROCBASED2"),
    ("exit", "MSR_VMX_EXIT", "MSR_VMX_TRUE_EXIT"),
    ("entry", "MSR_VMX_ENTRY", "MSR_VMX_TRUE_ENTRY")]
TRUE_MSRS = 1 << 55


@pytest.fixture(scope="module")
def m():
    return vmxcpu.build("vmx_probe", ["arch/x86/vmx/probe.c"],
                        headers=["arch/x86/vmx/vmx.h", "arch/x86/vmx/vmcs.h"])


@pytest.fixture
def cpu(m):
    return vmxcpu.skylake(m)


def probe(m):
    """(status, what was found, lines); MSRs were read and no more."""
    harness.reset_all()
    cap = m.new("struct vmx_capabilities *")
    status = m.vmx_probe(cap)
    assert {e.kind for e in m.events()} <= {"rdmsr"}
    if status:
        assert status == -m.ENOTSUP
        (level, _), = m.log_lines()
        assert level == m.LOG_ERROR
    return status, cap, m.log_text()


def clear(cpu, m, name, bit):
    """The control of a set may no longer be 1, by either MSR."""
    for msr in next(s[1:] for s in SETS if s[0] == name):
        msr = getattr(m, msr)
        cpu.set_msr(msr, cpu.msr(msr) & ~(1 << 32 + bit) & ~(1 << bit))


def drop(m, cpu, *names):
    """The CPU no longer has these MSRs: to read them is #GP."""
    keep = [(row.msr, row.value) for row in m.msr_rows[0:m.msr_count]]
    m.lib.msr_count = 0
    for msr, value in keep:
        if msr not in {getattr(m, n) for n in names}:
            cpu.set_msr(msr, value)


def test_a_cpu_without_a_tpr_shadow(m, cpu):
    """Each MOV to or from CR8 exits: SDM 25.6.2, bits 19 and 20."""
    clear(cpu, m, "cpu", 21)
    status, cap, _ = probe(m)
    assert status == 0 and cap.cpu >> 19 & 7 == 3


def test_a_current_cpu(m, cpu):
    status, cap, text = probe(m)
    assert (status, text) == (0, "")
    # Written out from the SDM: what Monocle relies on, and what the MSRs
    # hold at 1.
    assert cap.pin == 0x16 | 1 << 0 | 1 << 3 | 1 << 5 | 1 << 6
    assert cap.cpu == 0x04006172 | 1 << 3 | 1 << 7 | 1 << 10 | 1 << 11 | \
        1 << 21 | 1 << 25 | 1 << 28 | 1 << 29 | 1 << 31
    assert cap.cpu2 == 1 << 1 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 12 | 1 << 20
    assert cap.exit == 0x36dfb | 1 << 2 | 1 << 9 | 1 << 15 | 1 << 18 | \
        1 << 19 | 1 << 20 | 1 << 21 | 1 << 22
    assert cap.entry == 0x11fb | 1 << 2 | 1 << 14 | 1 << 15
    assert cap.vmcs_revision == 4
    assert (cap.cr0_fixed0, cap.cr0_fixed1) == (0x80000021, 0xffffffff)
    # VMXE, and MCE: without it a machine check is a shutdown.
    assert (cap.cr4_fixed0, cap.cr4_fixed1) == (0x2040, 0x3767ff)
    assert cap.preemption_shift == 7
    assert cap.xsaves
    assert cap.ept_2m and cap.ept_1g and cap.invept_single
    m.vmx_log(cap)
    assert "4K 2M 1G" in m.log_text() and "TSC/128" in m.log_text()


# Linux's vmx_preemption_cpu_tfms[]; steppings beside them are right.
UNRELIABLE = [0x106a0, 0x106a1, 0x106a4, 0x106a5, 0x106e5, 0x20652, 0x20655,
              0x206e6, 0x306a8]
RELIABLE = [0x206a7, 0x306a9, 0x306c3, 0x506e3, 0x106a2, 0x20651]


def choose(m, cpu, signature, asked="AUTO", monitor=False):
    """(status, whether the preemption timer is the clock, lines)"""
    cpu.cpuid(1, eax=signature, ecx=1 << 5 | monitor << 3)
    _, cap, _ = probe(m)
    status = m.vmx_choose_clock(cap, getattr(m, f"CLOCK_{asked}"))
    if status == 0:
        m.vmx_log(cap)
        assert bool(cap.pin >> 6 & 1) == (not cap.apic_clock)
        # Saved at exits only where it runs: SDM 27.2.1.2.
        assert cap.exit >> 22 & 1 == cap.pin >> 6 & 1
    return status, not cap.apic_clock, m.log_text()


@pytest.mark.parametrize("signature", UNRELIABLE + RELIABLE)
def test_the_clock(m, cpu, signature):
    """Bits 31:28 and 15:14 of CPUID 1 say nothing of the stepping."""
    status, preemption, text = choose(m, cpu, signature | 0xf000c000)
    assert status == 0 and preemption == (signature in RELIABLE)
    assert "clock: the preemption timer, TSC/128" in text if preemption else \
        "clock: the local APIC's timer (this CPU's preemption timer is " \
        "unreliable)" in text


def test_bochs_plays_such_a_cpu(m, cpu):
    """And its timer is right."""
    cpu.set_msr(m.MSR_VMX_BASIC, 0x00da04000000002b)
    assert choose(m, cpu, 0x20652)[1]


@pytest.mark.parametrize("asked", ["PREEMPTION", "APIC"])
@pytest.mark.parametrize("signature", [0x20652, 0x506e3])
def test_the_clock_by_option(m, cpu, asked, signature):
    status, preemption, text = choose(m, cpu, signature, asked)
    assert status == 0 and preemption == (asked == "PREEMPTION")
    assert preemption or "(clock=apic)" in text


MONITOR_EXITING, MWAIT_EXITING = 1 << 29, 1 << 10


@pytest.mark.parametrize("monitor, arat, asked, preemption, states", [
    (True, True, "AUTO", False, 2**32 - 1),
    (True, True, "APIC", False, 2**32 - 1),
    # C1 is all that is sure, with a timer that stops, and without ARAT.
    (True, True, "PREEMPTION", True, 0xff), (True, False, "AUTO", True, 0xff),
    (True, False, "APIC", False, 0xff), (False, True, "AUTO", True, 0)])
def test_how_deep_the_guest_may_sleep(m, cpu, monitor, arat, asked, preemption,
                                      states):
    cpu.cpuid(0, eax=6)
    cpu.cpuid(6, eax=arat << 2)
    cpu.cpuid(1, eax=0x506e3, ecx=1 << 5 | monitor << 3)
    _, cap, _ = probe(m)
    assert m.vmx_choose_clock(cap, getattr(m, f"CLOCK_{asked}")) == 0
    assert (not cap.apic_clock, cap.mwait) == (preemption, states)
    # An exit would make MWAIT of it that waits for nothing.
    assert bool(cap.cpu & (MONITOR_EXITING | MWAIT_EXITING)) == (not monitor)


@pytest.mark.parametrize("missing", [None, 4, 8, 9, "TPR shadow"])
@pytest.mark.parametrize("below", [None, "Bochs", "a hypervisor"])
@pytest.mark.parametrize("asked", ["AUTO", "ON", "OFF"])
def test_apicv(m, cpu, asked, below, missing):
    """All of it or nothing; by itself on a bare machine alone."""
    cpu.set_msr(m.MSR_VMX_PROCBASED2, cpu.msr(m.MSR_VMX_PROCBASED2) | 0x310 << 32)
    if below == "Bochs":
        cpu.set_msr(m.MSR_VMX_BASIC, 0x00da04000000002b)
    elif below:
        cpu.cpuid(1, ecx=1 << 5 | 1 << 31)
    if missing:
        clear(cpu, m, *(("cpu2", missing) if missing != "TPR shadow" else
                        ("cpu", 21)))
    _, cap, _ = probe(m)
    status = m.vmx_choose_apicv(cap, getattr(m, f"APICV_{asked}"))
    assert status == (-m.ENOTSUP if missing and asked == "ON" else 0)
    if status:
        assert "leave that option out" in m.log_text()
        return
    on = not missing and (asked == "ON" or asked == "AUTO" and not below)
    assert cap.apicv == (0x310 if on else 0) and cap.cpu2 & 0x310 == 0
    m.vmx_log(cap)
    assert ("APICv in x2APIC mode" if on else "APICv is off: ") in m.log_text()
    if below and not missing and asked == "AUTO":
        assert below in m.log_text()
    # Another CPU has to have it, too.
    clear(cpu, m, "cpu2", 8)
    assert (m.vmx_objection(cap) != m.NULL) == on


def test_bochs_keeps_its_clock(m, cpu):
    cpu.set_msr(m.MSR_VMX_BASIC, 0x00da04000000002b)
    cpu.cpuid(0, eax=6)
    cpu.cpuid(6, eax=1 << 2)
    assert choose(m, cpu, 0x306c3, monitor=True)[1]


def test_no_preemption_timer(m, cpu):
    clear(cpu, m, "pin", 6)
    status, preemption, text = choose(m, cpu, 0x506e3)
    assert status == 0 and not preemption and "no preemption timer" in text
    status, _, text = choose(m, cpu, 0x506e3, "PREEMPTION")
    assert status == -m.ENOTSUP and "clock=preemption" in text


# EMR158: below 2^25 * EBX / EAX; what was seen to fail on such CPUs
@pytest.mark.parametrize("ratio, most, bad", [
    ((2, 160), 2**25 * 80 - 1, 0xa0006db6),
    ((2, 224), 2**25 * 112 - 1, 0xe0003bf7),
    ((2, 334), 2**32 - 1, None), ((0, 0), 2**32 - 1, None),
    ((2, 0), 2**32 - 1, None)])
def test_large_values(m, cpu, ratio, most, bad):
    cpu.cpuid(0, eax=0x16)
    cpu.cpuid(0x15, eax=ratio[0], ebx=ratio[1])
    _, cap, _ = probe(m)
    assert cap.preemption_max == most and not (bad and bad <= most)


@pytest.mark.parametrize("feature, ready", [
    (0, True), (4, True), (5, True), (7, True), (0xff05, True),
    (1, False), (3, False)])
def test_what_firmware_did(m, cpu, feature, ready):
    """Unlocked is for vmx_enable() to lock; locked without bit 2 is final."""
    cpu.set_msr(m.MSR_FEATURE_CONTROL, feature)
    status, _, text = probe(m)
    assert (status == 0) == ready
    assert cpu.msr(m.MSR_FEATURE_CONTROL) == feature
    if not ready:
        assert "firmware" in text and "VT-x" in text and "setup" in text


def test_no_vmx(m):
    """Such a CPU has none of the MSRs."""
    cpu = vmxcpu.Cpu(m)
    cpu.cpuid(1, ecx=0xffffffff & ~(1 << 5))
    status, _, text = probe(m)
    assert status and "no VMX" in text and "VT-x" in text


def test_no_secondary_controls(m, cpu):
    clear(cpu, m, "cpu", 31)
    drop(m, cpu, "MSR_VMX_PROCBASED2", "MSR_VMX_EPT_VPID")
    status, _, text = probe(m)
    assert status and "lacks secondary controls" in text and "EPT" in text


@pytest.mark.parametrize("name, bit, text", [
    ("pin", 5, "virtual NMIs"),
    ("cpu", 28, "MSR bitmaps"), ("cpu2", 1, "EPT"),
    ("cpu2", 7, "unrestricted guest"), ("cpu2", 5, "VPID"),
    ("pin", 0, "pin-based controls 0x1"),
    ("exit", 20, "VM-exit controls 0x100000"),
    ("entry", 14, "VM-entry controls 0x4000")])
def test_a_missing_control(m, cpu, name, bit, text):
    clear(cpu, m, name, bit)
    if text == "EPT":
        drop(m, cpu, "MSR_VMX_EPT_VPID")
    status, _, said = probe(m)
    assert status and f"lacks {text}" in said.replace("the VMX-", "")


def test_no_halted_guests(m, cpu):
    """Activity state HLT: SDM A.6."""
    cpu.set_msr(m.MSR_VMX_MISC, cpu.msr(m.MSR_VMX_MISC) & ~(1 << 6))
    status, _, text = probe(m)
    assert status and "halted" in text and "newer CPU" in text


@pytest.mark.parametrize("bit, field", [(3, None), (12, None), (20, "xsaves")])
def test_an_optional_control(m, cpu, bit, field):
    clear(cpu, m, "cpu2", bit)
    status, cap, text = probe(m)
    assert (status, text) == (0, "") and not cap.cpu2 >> bit & 1
    assert not field or not getattr(cap, field)


@pytest.mark.parametrize("bit", [6, 14, 20])
def test_ept_that_will_not_do(m, cpu, bit):
    value = cpu.msr(m.MSR_VMX_EPT_VPID) & ~(1 << bit)
    cpu.set_msr(m.MSR_VMX_EPT_VPID, value)
    status, _, text = probe(m)
    assert status and "EPT" in text and f"{value:x}" in text


@pytest.mark.parametrize("bit, field", [(16, "ept_2m"), (17, "ept_1g"),
                                        (25, "invept_single")])
def test_ept_that_can_do_less(m, cpu, bit, field):
    value = cpu.msr(m.MSR_VMX_EPT_VPID) & ~(1 << bit)
    cpu.set_msr(m.MSR_VMX_EPT_VPID, value)
    status, cap, _ = probe(m)
    assert status == 0
    assert {n for n in ("ept_2m", "ept_1g", "invept_single")
            if not getattr(cap, n)} == {field}


def test_a_cpu_without_true_msrs(m, cpu):
    """CR3 accesses then exit always, which Monocle does not emulate."""
    cpu.set_msr(m.MSR_VMX_BASIC, cpu.msr(m.MSR_VMX_BASIC) & ~TRUE_MSRS)
    drop(m, cpu, *[s[2] for s in SETS if s[1] != s[2]])
    status, _, text = probe(m)
    assert status and "CR3" in text and "newer CPU" in text


@pytest.mark.parametrize("bit", [9, 15, 16])
def test_controls_that_the_guest_would_pay_for(m, cpu, bit):
    msr = m.MSR_VMX_TRUE_PROCBASED
    cpu.set_msr(msr, cpu.msr(msr) | 1 << bit)
    status, _, text = probe(m)
    assert status and "CR3" in text


BIT = st.tuples(st.sampled_from([*dict.fromkeys(n for s in SETS
                                                for n in s[1:])]),
                st.integers(0, 31))


@settings(max_examples=300, deadline=None)
@given(st.lists(BIT, max_size=6), st.lists(BIT, max_size=6), st.booleans())
def test_controls_are_what_the_msrs_allow(m, must, must_not, true_msrs):
    cpu = vmxcpu.skylake(m)
    cpu.set_msr(m.MSR_VMX_BASIC, 4 | (TRUE_MSRS if true_msrs else 0))
    for name in {n for s in SETS for n in s[1:]}:
        ones = sum({1 << b for n, b in must if n == name})
        zeros = sum({1 << b for n, b in must_not if n == name})
        cpu.set_msr(getattr(m, name),
                    (2**32 - 1 - zeros) << 32 | ones & ~zeros)
    status, cap, text = probe(m)
    if status:
        assert "use a" in text, "no advice"
        return
    for name, old, true in SETS:
        msr = cpu.msr(getattr(m, true if true_msrs else old))
        value = getattr(cap, name)
        assert value & ~(msr >> 32) == 0, f"{name}: a bit must be 0"
        assert msr & 0xffffffff & ~value == 0, f"{name}: a bit must be 1"
