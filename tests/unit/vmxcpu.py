# SPDX-License-Identifier: MIT
"""A CPU with VMX for the tests: vmx_fakes.c's tables, as Python sees them."""

import harness

FAKES = "tests/unit/vmx_fakes.c"
HEADERS = ["tests/unit/vmx_fakes.h", "arch/x86/cpu.h", "kernel/log.h"]


def build(name, sources, headers=(), **more):
    return harness.build(name, sources, fakes=FAKES,
                         headers=[*headers, *HEADERS], **more)


class Cpu:
    def __init__(self, m):
        self.m = m
        m.vmx_fakes_reset()

    def cpuid(self, leaf, subleaf=0, **regs):
        m = self.m
        for n in range(m.cpuid_count):
            row = m.cpuid_rows[n]
            if (row.leaf, row.subleaf) == (leaf, subleaf):
                break
        else:
            row = m.cpuid_rows[m.lib.cpuid_count]
            m.lib.cpuid_count += 1
            row.leaf, row.subleaf = leaf, subleaf
        for name in ("eax", "ebx", "ecx", "edx"):
            setattr(row.regs, name, regs.get(name, 0))

    def every_cpuid(self, value=0xffffffff):
        for name in ("eax", "ebx", "ecx", "edx"):
            setattr(self.m.cpuid_default, name, value)

    def _msr_row(self, msr):
        for n in range(self.m.msr_count):
            if self.m.msr_rows[n].msr == msr:
                return self.m.msr_rows[n]
        return None

    def set_msr(self, msr, value):
        row = self._msr_row(msr)
        if not row:
            row = self.m.msr_rows[self.m.msr_count]
            self.m.lib.msr_count += 1
        row.msr, row.value = msr, value

    def msr(self, msr):
        return self._msr_row(msr).value

    def write(self, field, value):
        """The VMCS as the test wants it, past the fake's record."""
        self.m.vmcs_fields[field] = value

    def read(self, field):
        return self.m.vmcs_fields[field]


# What a Skylake's capability MSRs say, by the names of enum msr.
CAPABILITIES = {
    "MSR_FEATURE_CONTROL": 5,
    "MSR_VMX_BASIC": 0x00da040000000004,
    "MSR_VMX_PINBASED": 0x0000007f00000016,
    "MSR_VMX_PROCBASED": 0xfff9fffe0401e172,
    "MSR_VMX_EXIT": 0x01ffffff00036dff,
    "MSR_VMX_ENTRY": 0x0003ffff000011ff,
    "MSR_VMX_MISC": 0x000000007004c1e7,
    "MSR_VMX_CR0_FIXED0": 0x80000021,
    "MSR_VMX_CR0_FIXED1": 0xffffffff,
    "MSR_VMX_CR4_FIXED0": 0x2000,
    "MSR_VMX_CR4_FIXED1": 0x3767ff,
    "MSR_VMX_PROCBASED2": 0x005fbcff00000000,
    "MSR_VMX_EPT_VPID": 0x00000f0106734141,
    "MSR_VMX_TRUE_PINBASED": 0x0000007f00000016,
    "MSR_VMX_TRUE_PROCBASED": 0xfff9fffe04006172,
    "MSR_VMX_TRUE_EXIT": 0x01ffffff00036dfb,
    "MSR_VMX_TRUE_ENTRY": 0x0003ffff000011fb,
}


def skylake(m):
    """A CPU with those MSRs and the CPUID bits that go with them."""
    cpu = Cpu(m)
    for name, value in CAPABILITIES.items():
        cpu.set_msr(getattr(m, name), value)
    cpu.cpuid(1, ecx=1 << 5)
    cpu.cpuid(0x80000008, eax=48 << 8 | 39)
    return cpu
