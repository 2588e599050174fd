# SPDX-License-Identifier: MIT
"""What the guest may see of CPUID, against a table of its own: each feature
that is shown, with the reason why it works in the guest. Whatever is not in
the table is hidden, even if the host's CPUID is all ones."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vmxcpu
from mutants import mutated

ONES = 0xffffffff
REGS = ("eax", "ebx", "ecx", "edx")
SOURCE = "vmm/vcpu/guest_cpuid.c"

PLAIN = "an instruction without state, or with state of x87, SSE, AVX"
PAGING = "a bit of CR4, EFER or the guest's page tables, which are its own"
MSRS = "its MSRs are open to the guest, and switched or unused by Monocle"
NO_BANK = "MCG_CAP says that there is no bank"
EMULATED = "a device model of Monocle"

# SDM volume 2, CPUID. {leaf: {register: {bit: (feature, reason)}}}
FEATURES = {
    1: {
        "ecx": {
            0: ("SSE3", PLAIN), 1: ("PCLMULQDQ", PLAIN),
            3: ("MONITOR", "it does not exit"), 9: ("SSSE3", PLAIN),
            12: ("FMA", PLAIN), 13: ("CMPXCHG16B", PLAIN),
            17: ("PCID", PAGING), 19: ("SSE4.1", PLAIN),
            20: ("SSE4.2", PLAIN), 22: ("MOVBE", PLAIN),
            23: ("POPCNT", PLAIN), 25: ("AESNI", PLAIN),
            26: ("XSAVE", "XCR0 is the guest's, by checked XSETBV"),
            28: ("AVX", PLAIN), 29: ("F16C", PLAIN), 30: ("RDRAND", PLAIN)},
        "edx": {
            0: ("FPU", PLAIN), 1: ("VME", PAGING), 2: ("DE", PAGING),
            3: ("PSE", PAGING), 4: ("TSC", "the host's, with no offset"),
            5: ("MSR", "an allow-list"), 6: ("PAE", PAGING),
            7: ("MCE", NO_BANK), 8: ("CX8", PLAIN), 11: ("SEP", MSRS),
            13: ("PGE", PAGING), 14: ("MCA", NO_BANK), 15: ("CMOV", PLAIN),
            16: ("PAT", MSRS), 17: ("PSE-36", PAGING),
            19: ("CLFSH", PLAIN), 23: ("MMX", PLAIN), 24: ("FXSR", PLAIN),
            25: ("SSE", PLAIN), 26: ("SSE2", PLAIN), 27: ("SS", PLAIN)},
    },
    7: {
        "ebx": {
            0: ("FSGSBASE", PAGING), 3: ("BMI1", PLAIN), 5: ("AVX2", PLAIN),
            7: ("SMEP", PAGING), 8: ("BMI2", PLAIN), 9: ("ERMS", PLAIN),
            10: ("INVPCID", "enabled by a secondary control"),
            16: ("AVX512F", PLAIN), 17: ("AVX512DQ", PLAIN),
            18: ("RDSEED", PLAIN), 19: ("ADX", PLAIN), 20: ("SMAP", PAGING),
            21: ("AVX512_IFMA", PLAIN), 23: ("CLFLUSHOPT", PLAIN),
            24: ("CLWB", PLAIN), 28: ("AVX512CD", PLAIN), 29: ("SHA", PLAIN),
            30: ("AVX512BW", PLAIN), 31: ("AVX512VL", PLAIN)},
        "ecx": {
            1: ("AVX512_VBMI", PLAIN), 2: ("UMIP", PAGING),
            6: ("AVX512_VBMI2", PLAIN), 8: ("GFNI", PLAIN),
            9: ("VAES", PLAIN), 10: ("VPCLMULQDQ", PLAIN),
            11: ("AVX512_VNNI", PLAIN), 12: ("AVX512_BITALG", PLAIN),
            14: ("AVX512_VPOPCNTDQ", PLAIN),
            22: ("RDPID", "enabled by a secondary control")},
        "edx": {
            4: ("FSRM", PLAIN), 10: ("MD_CLEAR", PLAIN),
            14: ("SERIALIZE", PLAIN), 26: ("IBRS, IBPB", MSRS),
            27: ("STIBP", MSRS), 28: ("L1D_FLUSH", MSRS),
            29: ("ARCH_CAPABILITIES", MSRS), 31: ("SSBD", MSRS)},
    },
    6: {"eax": {0: ("DTS", MSRS), 1: ("turbo", PLAIN), 6: ("PTM", MSRS),
                7: ("HWP", MSRS), 9: ("HWP's window", MSRS),
                10: ("HWP's preference", MSRS)},
        "ecx": {0: ("APERF", MSRS), 3: ("EPB", MSRS)}},
    0x80000001: {
        "ecx": {0: ("LAHF64", PLAIN), 5: ("LZCNT", PLAIN),
                8: ("PREFETCHW", PLAIN)},
        "edx": {11: ("SYSCALL", MSRS), 20: ("NX", PAGING),
                26: ("1 GiB pages", PAGING),
                27: ("RDTSCP", "enabled by a secondary control"),
                29: ("64 bits", PAGING)},
    },
    0x80000007: {"edx": {8: ("invariant TSC", "the host's TSC")}},
}
# Shown whatever the host has.
FORCED = {
    (1, "ecx"): {21: ("x2APIC", EMULATED), 24: ("TSC-deadline", EMULATED),
                 31: ("hypervisor", "there is one")},
    (1, "edx"): {9: ("APIC", EMULATED), 12: ("MTRR", EMULATED)},
    (6, "eax"): {2: ("ARAT", EMULATED)},
}
# Where the guest has several vCPUs: each in its CPU's place among the host's.
SMP = {(1, "edx"): {28: ("HTT", "there are several")},
       (7, "edx"): {15: ("hybrid", "leaf 0x1A says of each which")}}
# Registers that describe, and let nobody do anything.
DESCRIBE = {
    0: REGS, 1: ("eax",), 2: REGS, 0x16: ("eax", "ebx", "ecx"),
    0x80000000: REGS, 0x80000001: ("eax",), 0x80000002: REGS,
    0x80000003: REGS, 0x80000004: REGS, 0x80000005: REGS,
    0x80000006: ("ecx",),
}
CR4 = {  # bit: (leaf, register, bit) that must be shown for it
    16: (7, "ebx", 0), 20: (7, "ebx", 7), 21: (7, "ebx", 20),
    11: (7, "ecx", 2), 17: (1, "ecx", 17), 18: (1, "ecx", 26)}
# VME PVI TSD DE PSE PAE MCE PGE OSFXSR OSXMMEXCPT
CR4_ALWAYS = 0x1ff | 3 << 9
MWAIT = 0xff                    # C0, C1: what Monocle can end
X87, SSE, AVX, AVX512, PKRU, AMX = 1, 2, 4, 7 << 5, 1 << 9, 3 << 17
MAX_BASIC, MAX_EXTENDED = 0x1f, 0x80000008


def build(source=SOURCE, name="guest_cpuid"):
    return vmxcpu.build(name, [source],
                        headers=["vmm/vcpu/guest_cpuid.h"])


@pytest.fixture(scope="module")
def m():
    return build()


# Secondary controls, SDM table 25-7.
ENABLE_RDTSCP, ENABLE_INVPCID, ENABLE_XSAVES = 1 << 3, 1 << 12, 1 << 20


def cpu2(xsaves):
    return ENABLE_RDTSCP | ENABLE_INVPCID | (ENABLE_XSAVES if xsaves else 0)


class Guest:
    def __init__(self, m, host=None, xcr0=X87 | SSE | AVX, xss=0,
                 xsaves=True, cr4=0, apic_id=0, tsc_hz=2_400_000_000,
                 smp=False):
        self.m, self.cr4, self.apic_id, self.smp = m, cr4, apic_id, smp
        self.tsc_hz = tsc_hz
        self.xcr0, self.xss, self.xsaves = xcr0, xss, xsaves
        self.cpu = vmxcpu.Cpu(m)
        self.host = dict.fromkeys(REGS, ONES) if host is None else host
        for name in REGS:
            setattr(m.cpuid_default, name, self.host[name])
        self.features = m.new("struct guest_features *", {
            "xcr0_allowed": xcr0, "xss_allowed": xss, "cpu2": cpu2(xsaves),
            "tsc_hz": tsc_hz, "smp": smp, "leaf6_eax": ONES, "leaf6_ecx": ONES,
            "mwait": MWAIT})
        self.ctx = m.new("struct cpuid_context *", {
            "cr4": cr4, "apic_id": apic_id, "features": self.features})

    def see(self, leaf, subleaf=0):
        r = self.m.guest_cpuid(self.ctx, leaf, subleaf)
        return {n: getattr(r, n) for n in REGS}

    def expected(self, leaf, subleaf):
        out = dict.fromkeys(REGS, 0)
        for name in DESCRIBE.get(leaf, ()):
            out[name] = self.host[name]
        if leaf != 7 or subleaf == 0:
            for name, bits in FEATURES.get(leaf, {}).items():
                out[name] |= self.host[name] & sum(1 << b for b in bits)
        for (at, name), bits in SMP.items():
            if at == leaf and self.smp and not (leaf == 7 and subleaf):
                out[name] |= self.host[name] & sum(1 << b for b in bits)
        for (at, name), bits in FORCED.items():
            if at == leaf:
                out[name] |= sum(1 << b for b in bits)
        special = getattr(self, f"leaf_{leaf:x}", None)
        if special:
            special(out, subleaf)
        return out

    def leaf_0(self, out, _):
        out["eax"] = min(self.host["eax"], MAX_BASIC)

    def leaf_80000000(self, out, _):
        out["eax"] = min(self.host["eax"], MAX_EXTENDED)

    def leaf_1(self, out, _):
        """CLFLUSH line, one logical processor or the host's IDs, APIC ID;
        OSXSAVE."""
        out["ebx"] = self.apic_id % 256 << 24 | (
            self.host["ebx"] & 0xffff00 if self.smp
            else self.host["ebx"] & 0xff00 | 1 << 16)
        out["ecx"] |= 1 << 27 if self.cr4 & 1 << 18 else 0

    def leaf_4(self, out, _):
        """Type, level, flags; no sharing between threads or cores, or the
        host's."""
        out.update(self.host, eax=self.host["eax"] & (
            ONES if self.smp else 0x3fff))

    def leaf_5(self, out, _):
        """Lines of MONITOR; breaks by interrupts; states that have an end."""
        out.update(eax=self.host["eax"] & 0xffff, ebx=self.host["ebx"] & 0xffff,
                   ecx=self.host["ecx"] & 3, edx=self.host["edx"] & MWAIT)

    def leaf_b(self, out, subleaf):
        """A thread in a core, a core in a package; then nothing."""
        if self.smp:
            out.update(self.host)
            return
        level = {0: 1, 1: 2}.get(subleaf, 0)
        out.update(ebx=1 if level else 0, ecx=subleaf & 0xff | level << 8,
                   edx=self.apic_id)

    leaf_1f = leaf_b

    def leaf_1a(self, out, subleaf):
        """Which kind of core (EAX; one subleaf)."""
        if self.smp and not subleaf:
            out["eax"] = self.host["eax"]

    def leaf_15(self, out, _):
        """TSC = crystal * EBX / EAX: the APIC timer counts as the TSC."""
        if 0 < self.tsc_hz < 2**32:
            out.update(eax=1, ebx=1, ecx=self.tsc_hz)

    def leaf_80000008(self, out, _):
        """Address widths: linear ones of 48 bits, for LA57 is not shown."""
        out["eax"] = self.host["eax"] & 0xff | 48 << 8

    def leaf_d(self, out, subleaf):
        both = self.xcr0 | self.xss
        if subleaf == 0:
            out.update(self.host, eax=self.host["eax"] & self.xcr0, edx=0)
            out["ecx"] = max([576] + [
                (self.host["eax"] + self.host["ebx"]) & ONES
                for n in range(2, 63) if self.xcr0 >> n & 1])
        elif subleaf == 1:
            # XSAVEOPT, XSAVEC, XGETBV with ECX=1, XSAVES
            out.update(eax=self.host["eax"] & (15 if self.xsaves else 7),
                       ebx=self.host["ebx"], ecx=self.host["ecx"] & self.xss,
                       edx=0)
        elif subleaf < 63 and both >> subleaf & 1:
            out.update(self.host)


LEAVES = [*range(0x30), *range(0x80000000, 0x80000020), 0x40000200,
          0x3fffffff, 0x40010000, 0x7fffffff, 0xbfffffff, 0xfffffffe, ONES]
SUBLEAVES = [*range(5), 7, 9, 17, 18, 62, 63, 64, 0x100, 0x102, ONES]


def every_leaf(guest):
    for leaf, subleaf in itertools.product(LEAVES, SUBLEAVES):
        assert guest.see(leaf, subleaf) == guest.expected(leaf, subleaf), \
            f"leaf {leaf:x}, subleaf {subleaf:x}"


def test_a_host_with_everything(m):
    every_leaf(Guest(m))


def test_a_host_with_nothing(m):
    every_leaf(Guest(m, host=dict.fromkeys(REGS, 0)))


def test_several_vcpus(m):
    """They are where the host has them: IDs, shifts, caches, kinds."""
    for host in (None, dict.fromkeys(REGS, 0x12345678)):
        for apic_id in (0, 3, 0x106):
            every_leaf(Guest(m, host=host, smp=True, apic_id=apic_id))


def test_every_shown_feature_has_a_reason(m):
    """Bit by bit, so that the failure says which feature it is."""
    guest = Guest(m)
    for leaf, registers in FEATURES.items():
        seen = guest.see(leaf)
        for name, bits in registers.items():
            known = {**bits, **FORCED.get((leaf, name), {})}
            for bit in range(32):
                shown = seen[name] >> bit & 1
                assert shown == (bit in known), (leaf, name, bit,
                                                 known.get(bit))


WORD = st.integers(0, ONES)


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries({n: WORD for n in REGS}),
       st.sampled_from([1, 3, 7, 0xe7]), st.sampled_from([0, 1 << 11]),
       st.booleans(), st.sampled_from([0, 1 << 18, ONES]),
       st.integers(0, 0x1ff), st.sampled_from([0, ONES, 2**32, 5 * 10**9]),
       st.booleans())
def test_any_host(m, host, xcr0, xss, xsaves, cr4, apic_id, tsc_hz, smp):
    every_leaf(Guest(m, host, xcr0, xss, xsaves, cr4, apic_id, tsc_hz, smp))


# --- Leaf 0xD follows XCR0 -----------------------------------------------

COMPONENTS = {  # number: (size, offset), as Intel's CPUs lay them out
    2: (256, 576), 5: (64, 1088), 6: (512, 1152), 7: (1024, 1664),
    9: (8, 2688), 17: (64, 2752), 18: (8192, 2816)}


def host_with(cpu, mask, enabled):
    """Leaf 0xD of a host that has `mask`, with XCR0 as enabled."""
    def size(bits):
        return max([576] + [sum(COMPONENTS[n]) for n in COMPONENTS
                            if bits >> n & 1])
    cpu.cpuid(0xd, 0, eax=mask, ebx=size(enabled), ecx=size(mask))
    cpu.cpuid(0xd, 1, eax=0x1f, ebx=size(enabled), ecx=0x1900)
    for n, (length, offset) in COMPONENTS.items():
        if mask >> n & 1:
            cpu.cpuid(0xd, n, eax=length, ebx=offset, ecx=n == 18 and 2)
    return size


@pytest.mark.parametrize("host", [
    X87, X87 | SSE, X87 | SSE | AVX, X87 | SSE | AVX | AVX512,
    X87 | SSE | AVX | AVX512 | PKRU | AMX, X87 | SSE | AVX | PKRU])
def test_leaf_d_follows_xcr0(m, host):
    guest = Guest(m, host=dict.fromkeys(REGS, 0))
    guest.cpu.cpuid(1, ecx=1 << 26)
    features = m.new("struct guest_features *")
    size = host_with(guest.cpu, host, X87 | SSE)
    m.guest_features_init(features, cpu2(True))
    allowed = host & (X87 | SSE | AVX | AVX512)
    assert features.xcr0_allowed == allowed
    guest.ctx.features = features
    assert guest.see(0xd, 0) == {"eax": allowed, "ebx": size(X87 | SSE),
                                 "ecx": size(allowed), "edx": 0}
    assert guest.see(0xd, 1) == {"eax": 0xf, "ebx": size(X87 | SSE),
                                 "ecx": 0, "edx": 0}
    for n in range(2, 64):
        length, offset = COMPONENTS.get(n, (0, 0))
        shown = allowed >> n & 1
        assert guest.see(0xd, n) == {
            "eax": shown * length, "ebx": shown * offset, "ecx": 0, "edx": 0}
    features.cpu2 = 0
    assert guest.see(0xd, 1)["eax"] == 7


def test_no_xsave_no_xcr0(m):
    guest = Guest(m)
    guest.cpu.cpuid(1, ecx=ONES & ~(1 << 26))
    m.guest_features_init(guest.features, cpu2(True))
    assert guest.features.xcr0_allowed == 0
    assert not guest.features.cr4_allowed & 1 << 18


# --- What the guest may set ----------------------------------------------

def test_allowed_bits_of_a_host_with_everything(m):
    guest = Guest(m)
    guest.cpu.cpuid(0x80000008, eax=0x3027)
    m.guest_features_init(guest.features, cpu2(True))
    f = guest.features
    assert f.cr4_allowed == CR4_ALWAYS | sum(1 << b for b in CR4)
    assert f.efer_allowed == 1 | 1 << 8 | 1 << 10 | 1 << 11
    assert f.xcr0_allowed == X87 | SSE | AVX | AVX512
    assert (f.xss_allowed, f.physical_bits, f.cpu2) == (
        0, 39, cpu2(True))


@pytest.mark.parametrize("bit", sorted(CR4))
def test_a_cr4_bit_goes_with_its_feature(m, bit):
    leaf, name, at = CR4[bit]
    guest = Guest(m)
    guest.cpu.cpuid(leaf, 0, **{n: ONES & ~(1 << at) if n == name else ONES
                                for n in REGS})
    m.guest_features_init(guest.features, cpu2(False))
    assert guest.features.cr4_allowed == (CR4_ALWAYS | sum(
        1 << b for b in CR4)) & ~(1 << bit)


def test_nx_goes_with_efer(m):
    guest = Guest(m)
    guest.cpu.cpuid(0x80000001, edx=ONES & ~(1 << 20))
    m.guest_features_init(guest.features, cpu2(False))
    assert guest.features.efer_allowed == 1 | 1 << 8 | 1 << 10


# --- The hypervisor's leaves ---------------------------------------------

def text(regs):
    return b"".join(regs[n].to_bytes(4, "little")
                    for n in ("ebx", "ecx", "edx"))


def test_hypervisor_leaves(m):
    guest = Guest(m)
    own, kvm = guest.see(0x40000000), guest.see(0x40000100)
    assert text(own) == b"MonocleVMM\0\0" and own["eax"] == 0x40000001
    assert guest.see(0x40000001) == {"eax": 3, "ebx": 0x4d4f0000, "ecx": 0,
                                     "edx": 0}
    # Linux asks KVM's for the highest leaf, and its features: none but EOIs
    # that are a word in memory, where the CPU ends no interrupts itself.
    assert text(kvm) == b"KVMKVMKVM\0\0\0" and kvm["eax"] == 0x40000101
    none = dict.fromkeys(REGS, 0)
    for leaf in (0x40000002, 0x40000010, 0x40000101, 0x40000102, 0x4000ffff):
        assert guest.see(leaf) == none
    guest.features.pv_eoi = True
    assert guest.see(0x40000101) == {**none, "eax": 1 << 6}


def test_the_hypervisors_bit_can_be_left_out(m):
    """That alone: Monocle's own leaves answer whoever asks."""
    guest = Guest(m)
    shown, leaf = guest.see(1), guest.see(0x40000000)
    guest.features.no_hypervisor_bit = True
    hidden = guest.see(1)
    assert shown.pop("ecx") ^ hidden.pop("ecx") == 1 << 31
    assert shown == hidden and guest.see(0x40000000) == leaf


@pytest.mark.parametrize("control,leaf,register,bit", [
    (ENABLE_RDTSCP, 0x80000001, "edx", 27),
    (ENABLE_RDTSCP, 7, "ecx", 22),      # RDPID
    (ENABLE_INVPCID, 7, "ebx", 10)])
def test_no_instruction_without_its_control(m, control, leaf, register, bit):
    """Without the VM-execution control it is #UD in the guest."""
    for on in (True, False):
        guest = Guest(m)
        guest.features.cpu2 = cpu2(True) & ~(0 if on else control)
        assert guest.see(leaf)[register] >> bit & 1 == on

# --- Defects that must be noticed ---------------------------------------

FIND = "static const struct row *find_row(u32 leaf)\n{\n"
# The row is gone for the lookup: one build for all of them.
REMOVED = "u32 removed_row = 0xffffffff;\n\n" + FIND + \
    "	if (leaf == removed_row)\n		return NULL;\n"


@pytest.fixture(scope="module")
def without_row():
    return vmxcpu.build(
        "cpuid_mutant", [mutated(SOURCE, (FIND, REMOVED))],
        headers=["vmm/vcpu/guest_cpuid.h"], cdef="extern unsigned removed_row;")


def rows():
    """The leaves that have a row in the source's two tables."""
    text = (vmxcpu.harness.ROOT / SOURCE).read_text()
    for table, first in (("basic", 0), ("extended", 0x80000000)):
        body = text[text.index(f"struct row {table}[] = {{"):]
        for n in re.findall(r"^\t\[(\w+)\] = \{", body[:body.index("\n};")],
                            re.M):
            yield first + int(n, 0)


@pytest.mark.parametrize("leaf", list(rows()), ids=hex)
def test_a_cpuid_row_is_missed(without_row, leaf):
    m = without_row
    m.lib.removed_row = 0xffffffff
    guest = Guest(m, smp=True)
    every_leaf(guest)
    m.lib.removed_row = leaf
    with pytest.raises(AssertionError, match=f"leaf {leaf:x},"):
        every_leaf(guest)


@pytest.mark.parametrize("old, new, leaf", [
    # A row's text removed; a feature hidden; one shown without a reason.
    ("	[2] = {ALL, ALL, ALL, ALL, NULL}, /* brand */\n", "", "80000002"),
    ("LEAF7_EBX = 1u << 0 |", "LEAF7_EBX =", "7"),
    ("1u << 27 | 1u << 28 | 1u << 29 | 1u << 31,\n	EDX_HYBRID", "1u << 27 | "
     "1u << 28 | 1u << 29 | 1u << 31 | 1u << 8,\n	EDX_HYBRID", "7"),
    # HTT and the caches' sharing of a host with threads.
    ("		r->edx &= ~(u32)EDX_HTT;\n", "", "1"),
    ("	if (!ctx->features->smp)\n		r->eax &= 0x3fff;\n",
     "	(void)ctx;\n	r->eax &= 0x3fff;\n", None),
    ("	if (subleaf)\n", "	if (subleaf > 4)\n", "7"),
    ("	if (subleaf == 0) {\n		r->eax &= (u32)f->xcr0_allowed;",
     "	if (subleaf == 0) {", "d")],
    ids=["removed", "hidden", "shown", "threads", "caches", "subleaf", "xcr0"])
def test_a_changed_cpuid_row_is_noticed(old, new, leaf):
    m = build(mutated(SOURCE, (old, new)), "cpuid_mutant")
    smp = leaf is None
    with pytest.raises(AssertionError, match=f"leaf {leaf or 4},"):
        every_leaf(Guest(m, smp=smp))


@pytest.mark.parametrize("msr, eax, ecx", [
    (None, 0, 0), (0xe8, 2, 1), (0x19c, 1, 0), (0x1b0, 0, 8), (0x1b1, 0x40, 0),
    (0x774, 0x680, 0)])
def test_leaf_6_shows_what_has_its_msr(m, msr, eax, ecx):
    """An emulator shows bits whose MSR it lacks: a guest would run into it."""
    g = Guest(m)
    if msr:
        g.cpu.set_msr(msr, 0)
    m.guest_features_init(g.features, 0)
    assert g.see(6) == {"eax": 4 | eax, "ebx": 0, "ecx": ecx, "edx": 0}
