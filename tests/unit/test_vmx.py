# SPDX-License-Identifier: MIT
"""Into VMX operation, a VMCS made current, and the state that an exit loads:
SDM 24.7, 25.5, 25.11, 29.4.3."""

import pytest

import harness
import vmxcpu

FAKES = """
#include "tests/unit/vmx_fakes.c"
const char vmx_exit[16];
"""
LOCKED, VMX, IN_SMX = 1, 4, 2
PE, NE, CD, PG = 1, 1 << 5, 1 << 30, 1 << 31
PAE, MCE, VMXE, PKE = 1 << 5, 1 << 6, 1 << 13, 1 << 22
PAT, EFER = 0x0007010600070106, 0xd01


@pytest.fixture(scope="module")
def m():
    return harness.build("vmx", ["arch/x86/vmx/vmx.c"], fakes=FAKES, headers=[
        "arch/x86/vmx/vmx.h", "arch/x86/vmx/vmcs.h", "kernel/phys.h",
        *vmxcpu.HEADERS])


@pytest.fixture
def cpu(m):
    cpu = vmxcpu.Cpu(m)
    cpu.set_msr(m.MSR_FEATURE_CONTROL, LOCKED | VMX)
    cpu.set_msr(m.MSR_PAT, PAT)
    cpu.set_msr(m.MSR_EFER, EFER)
    m.fake_cr[0], m.fake_cr[4] = PE | PG | CD, PAE | PKE
    return cpu


def region(m):
    """(its hpa, its first dword)"""
    page = m.page_alloc()
    return m.virt_to_phys(page), m.ffi.cast("u32 *", page)


def capabilities(m, **fields):
    return m.new("struct vmx_capabilities *", {
        "vmcs_revision": 0x1234, "cr0_fixed0": PE | NE | PG,
        "cr0_fixed1": 2**32 - 1 - CD, "cr4_fixed0": MCE,
        "cr4_fixed1": 2**32 - 1 - PKE, **fields})


@pytest.mark.parametrize("before, after", [
    (LOCKED | VMX, None), (LOCKED | VMX | IN_SMX, None),
    (0, LOCKED | VMX), (VMX, LOCKED | VMX),
    (IN_SMX | 0xff00, LOCKED | VMX | IN_SMX | 0xff00)])
def test_vmxon(m, cpu, before, after):
    """What firmware left unlocked is locked with VMX on: without it VMXON
    is #GP until the machine is switched off. A locked one is not written."""
    cpu.set_msr(m.MSR_FEATURE_CONTROL, before)
    hpa, revision = region(m)
    m.clear_events()
    assert m.vmx_enable(capabilities(m), hpa) == 0
    assert [e.value for e in m.events("wrmsr")] == [after] * bool(after)
    # All that VMXON asks for is done before it.
    last = m.events()[-1]
    assert (last.kind, last.addr, last.value) == ("vmxon", hpa, 0x1234)
    assert m.fake_cr[0] == PE | NE | PG
    assert m.fake_cr[4] == PAE | MCE | VMXE
    assert revision[0] == 0x1234


def test_vmxon_fails(m, cpu):
    m.lib.fake_vmfail = m.FAKE_VMXON
    assert m.vmx_enable(capabilities(m), region(m)[0]) == -m.EIO


def test_a_vmcs(m, cpu):
    """Cleared, then current; its revision is there before either."""
    hpa, _ = region(m)
    m.clear_events()
    assert m.vmcs_load(capabilities(m), hpa) == 0
    assert [(e.kind, e.addr, e.value) for e in m.events()] == [
        ("vmclear", hpa, 0x1234), ("vmptrld", hpa, 0x1234)]


@pytest.mark.parametrize("name, done", [("VMCLEAR", 1), ("VMPTRLD", 2)])
def test_a_vmcs_that_is_refused(m, cpu, name, done):
    hpa, _ = region(m)
    m.lib.fake_vmfail = getattr(m, f"FAKE_{name}")
    m.clear_events()
    assert m.vmcs_load(capabilities(m), hpa) == -m.EIO
    assert len(m.events()) == done


@pytest.mark.parametrize("single, kind", [(True, 1), (False, 2)])
def test_invept(m, cpu, single, kind):
    """This EPTP's, or all: by a type that the CPU has (a wrong one fails)."""
    m.clear_events()
    m.vmx_invept(capabilities(m, invept_single=single), 0x501e)
    assert [(e.kind, e.addr, e.value) for e in m.events()] == [
        ("invept", 0x501e, kind)]


def test_the_host_s_state(m, cpu):
    """Each field of table 25-2's host area but RSP, which the entry writes;
    PAT and EFER as Monocle runs with them, else all memory were uncached."""
    fields = {n: getattr(m, n) for n in m.constants
              if n.startswith("VMCS_HOST_")}
    for field in fields.values():
        cpu.write(field, 0xbad)
    m.fake_cr[0], m.fake_cr[4] = PE | NE | PG, PAE | VMXE
    m.vmx_write_host_state(0x9000, 0xa000, 0xb000, 0xc000, 0xd000)
    assert {n: cpu.read(f) for n, f in fields.items()} == {
        **{f"VMCS_HOST_{s}": 16 for s in ("ES", "SS", "DS")},
        **{f"VMCS_HOST_{n}": 0 for n in (
            "FS", "GS", "FS_BASE", "SYSENTER_CS", "SYSENTER_ESP",
            "SYSENTER_EIP")},
        "VMCS_HOST_CS": 8, "VMCS_HOST_TR": 24, "VMCS_HOST_PAT": PAT,
        "VMCS_HOST_EFER": EFER, "VMCS_HOST_CR0": PE | NE | PG,
        "VMCS_HOST_CR3": 0xd000, "VMCS_HOST_CR4": PAE | VMXE,
        "VMCS_HOST_GS_BASE": 0x9000, "VMCS_HOST_TR_BASE": 0xa000,
        "VMCS_HOST_GDTR_BASE": 0xb000, "VMCS_HOST_IDTR_BASE": 0xc000,
        "VMCS_HOST_RSP": 0xbad,
        "VMCS_HOST_RIP": int(m.ffi.cast("uintptr_t", m.ffi.addressof(
            m.lib, "vmx_exit")))}
