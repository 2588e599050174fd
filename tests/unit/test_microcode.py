# SPDX-License-Identifier: MIT
"""Microcode updates for CPUs that take them, do not, or change by them (SDM 3,
9.11)."""
import struct

import pytest

import harness
import vmxcpu

FAKES = """
#include "arch/x86/cpu.h"
#define wrmsr table_wrmsr
#define cpuid(leaf, subleaf) table_cpuid(leaf, subleaf)
#include "tests/unit/vmx_fakes.c"
#undef wrmsr
#undef cpuid

/* A CPU: what it does with an update, and what CPUID says after it. */
unsigned taken;
bool refuses;
u64 loaded_at;
static u32 in_force;

void fresh_cpu(u32 revision)
{
	in_force = revision;
	taken = 0;
}

void wrmsr(u32 msr, u64 value)
{
	fakes_record(FAKE_WRMSR, msr, 8, value);
	if (msr == 0x8b)
		find_msr(msr)->value = value;
	if (msr != 0x79)
		return;
	taken++;
	loaded_at = value;
	if (refuses)
		return;
	in_force = ((const u32 *)value)[-11];
	for (unsigned i = 0; i < cpuid_count; i++)
		if (cpuid_rows[i].leaf == 7)
			cpuid_rows[i].regs.edx |= 1u << 10;
}

/* SDM 9.11.7.1: CPUID 1 writes the revision. */
struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	struct msr_row *row = find_msr(0x8b);

	if (leaf == 1 && row)
		row->value = (u64)in_force << 32;
	return table_cpuid(leaf, subleaf);
}
"""
CDEF = """
extern unsigned taken;
extern bool refuses;
extern u64 loaded_at;
void fresh_cpu(u32 revision);
"""
SKYLAKE, PLATFORM = 0x506e3, 1      # bits 52:50
NAME = b"kernel/x86/microcode/GenuineIntel.bin"


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "microcode", ["kernel/microcode.c", "kernel/boot_info.c"],
        fakes=FAKES, cdef=CDEF,
        headers=["kernel/microcode.h", *vmxcpu.HEADERS])


def words(data):
    return sum(struct.unpack(f"<{len(data) // 4}I", data)) & 0xffffffff


def update(revision, signature=SKYLAKE, platforms=1 << PLATFORM, more=(),
           size=2000, **wrong):
    """An update of KiB; more: further (signature, platforms)."""
    data = struct.pack("<I", revision) * (size // 4)
    table = b""
    total = -(-(48 + size + (20 + 12 * len(more) if more else 0)) // 1024
              ) * 1024
    head = [1, revision, 0x06152024, signature, 0, 1, platforms,
            wrong.get("data_size", size if more or size != 2000 else 0),
            wrong.get("total_size", total), 0, 0, 0]
    head[0] = wrong.get("version", 1)
    head[5] = wrong.get("loader", 1)
    head[4] = -words(struct.pack("<12I", *head) + data) & 0xffffffff
    if more:
        own = signature + platforms + head[4]
        rows = [(s, p, (own - s - p) & 0xffffffff) for s, p in more]
        body = struct.pack("<II12x", len(more), 0) + b"".join(
            struct.pack("<III", *row) for row in rows)
        table = body[:4] + struct.pack("<I", -words(body) & 0xffffffff) + \
            body[8:]
    return (struct.pack("<12I", *head) + data + table).ljust(total, b"\0")


def cpio(*files):
    """An archive of these (name, data) pairs (cpio(5), New ASCII Format)."""
    out = b""
    for name, data in (*files, (b"TRAILER!!!", b"")):
        fields = [1, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0,
                  len(name) + 1, 0]
        head = b"070701" + b"".join(b"%08X" % f for f in fields)
        out += (head + name + b"\0").ljust(
            -(-(len(head) + len(name) + 1) // 4) * 4, b"\0")
        out += data.ljust(-(-len(data) // 4) * 4, b"\0")
    return out.ljust(-(-len(out) // 512) * 512, b"\0")


class Machine:
    """A CPU and what GRUB has loaded."""

    def __init__(self, m, module, revision=0x10, role=b"microcode", at=0,
                 hypervisor=False):
        self.m, self.cpu = m, vmxcpu.Cpu(m)
        self.cpu.cpuid(1, eax=SKYLAKE, ecx=hypervisor << 31)
        self.cpu.cpuid(7)
        self.cpu.set_msr(0x17, PLATFORM << 50)
        self.cpu.set_msr(0x8b, revision << 32)
        m.lib.refuses = False
        m.fresh_cpu(revision)
        # A byte past its end is a byte that nobody may read.
        self.string = m.ffi.new("char[]", role)
        self.memory = m.fakes_alloc(len(module) + at + 16)
        self.start = (int(m.ffi.cast("u64", self.memory)) + 15 & ~15) + at
        m.ffi.memmove(m.ffi.cast("void *", self.start), module, len(module))
        self.boot = m.new("struct boot_info *", {"module_count": 1})
        self.boot.modules[0].start = self.start
        self.boot.modules[0].size = len(module)
        self.boot.modules[0].string = self.string

    def load(self, tell=True):
        self.m.microcode_init(self.boot)
        got = self.m.microcode_load(tell)
        if self.m.taken:
            assert self.m.loaded_at % 16 == 0
        return got


@pytest.mark.parametrize("updates, revision", [
    ([update(0x20)], 0x20),
    ([update(0x20, size=3008), update(0x21, size=5000)], 0x21),
    ([update(0x21), update(0x20)], 0x21),               # the newest
    ([update(0x10)], 0x10), ([update(0xf)], 0x10),      # not newer
    ([update(0x80000020)], 0x10),                       # for tests
    ([update(0x20, 0x506e4)], 0x10),
    ([update(0x20, platforms=1)], 0x10),
    ([update(0x20, platforms=0xff)], 0x20),
    ([update(0x20, 0x406e3, more=[(SKYLAKE, 2)])], 0x20),
    ([update(0x20, 0x406e3, more=[(1, 2), (SKYLAKE, 1)])], 0x10),
    ([update(0x30, 0x406e3), update(0x20)], 0x20),
])
def test_the_one_that_is_for_this_cpu(m, updates, revision):
    x = Machine(m, b"".join(updates))
    assert x.load() == revision
    assert m.taken == (revision != 0x10)
    assert m.log_lines() == [(m.LOG_INFO, "microcode: revision 0x%x%s" % (
        revision, " in place of 0x10" if m.taken else ""))]


@pytest.mark.parametrize("signature, revision, right", [
    (0x306c3, 0x21, False), (0x306c3, 0x22, True),      # Haswell, any stepping
    (0x306c1, 0x21, False),
    (0x506e3, 0xb1, False), (0x906ec, 0x51, False), (0x906ec, 0xea, True),
    (0x50654, 0x02000013, False), (0x50654, 0x02000014, True),
    (0x50657, 0x1, True),                   # none of Cascade Lake's has it
    (0x306a9, 0x1, True), (0xb0671, 0x1, True),
    (0x306c3, 0, True),                     # an emulator's CPU has no revision
])
def test_a_tsc_deadline_that_microcode_mends(m, signature, revision, right):
    x = Machine(m, b"", revision)
    x.cpu.cpuid(1, eax=signature)
    assert m.microcode_mends_deadline() == right


def test_the_caches_are_written_back_before(m):
    Machine(m, update(0x20)).load()
    kinds = [(e.kind, e.addr) for e in m.events("wbinvd", "wrmsr")]
    at = kinds.index(("wrmsr", 0x79))
    assert kinds[at - 1][0] == "wbinvd"


def test_it_changes_the_cpu(m):
    """What is asked after it is the new CPU's: here, of MD_CLEAR."""
    x = Machine(m, update(0x20))
    assert not m.cpuid(7, 0).edx
    x.load()
    assert m.cpuid(7, 0).edx == 1 << 10


def test_each_further_cpu_takes_its_own(m):
    """Without a word; the siblings of one that is done have it already."""
    x = Machine(m, update(0x20) + update(0x30, 0xb0671))
    assert x.load() == 0x20
    assert m.microcode_load(False) == 0x20 and m.taken == 1
    x.cpu.cpuid(1, eax=0xb0671)
    m.fresh_cpu(0x11)
    assert m.microcode_load(False) == 0x30 and m.log_lines()[1:] == []


def short(value):
    """A parameter's name."""
    return str(len(value)) if isinstance(value, bytes) else str(value)


def spoiled(data, at, flip=1):
    data = bytearray(data)
    data[at] ^= flip
    return bytes(data)


GOOD = update(0x20)
EXTENDED = update(0x30, 0x406e3, more=[(SKYLAKE, 2)])


@pytest.mark.parametrize("module, said", [
    (GOOD[:-1], 0), (GOOD[:47], 0), (GOOD[:1024], 0), (b"\x01", 0),
    (spoiled(GOOD, 100), 0), (spoiled(GOOD, 16), 0),
    (update(0x20, version=2), 0), (update(0x20, loader=2), 0),
    (update(0x20, size=3008, total_size=0), 0),
    (update(0x20, size=3008, total_size=3072 + 512), 0),
    (update(0x20, size=3008, total_size=1024), 0),
    (update(0x20, size=3008, total_size=0xfffffc00), 0),
    (update(0x20, size=3008, data_size=0xfffffffc), 0),
    (update(0x20, size=3008, data_size=3007), 0),
    (update(8) + spoiled(GOOD, 100) + GOOD, 2048),
    (GOOD.replace(GOOD[:4], b"\0\0\0\0", 1), 0),
], ids=short)
def test_a_file_of_wrong_form(m, module, said):
    """Nothing of it reaches the CPU; what comes before does."""
    x = Machine(m, module)
    assert x.load() == 0x10 and m.taken == 0
    assert m.log_lines()[0] == (
        m.LOG_WARN, f"microcode: the update at byte {said} is cut short or "
        "has a wrong sum; it is left out, with what follows")


@pytest.mark.parametrize("table", [
    spoiled(EXTENDED, 2048 + 4), spoiled(EXTENDED, 2048, 0x80),
    spoiled(EXTENDED, 2048 + 3, 0xff),
    # The row's own sum is wrong, the table's right.
    spoiled(spoiled(EXTENDED, 2048 + 28), 2048 + 4)], ids=short)
def test_a_table_of_further_cpus_of_wrong_form(m, table):
    x = Machine(m, table)
    assert x.load() == 0x10 and m.taken == 0


@pytest.mark.parametrize("archives", [
    cpio((b"kernel", b""), (NAME, GOOD)),
    cpio((NAME[:-1], b"x" * 5), (NAME, GOOD), (b"other", b"y")),
    # Two in front of the packed rest, as Debian's initrd has them.
    cpio((b"kernel/x86/microcode/AuthenticAMD.bin", b"a" * 77)) +
    cpio((NAME, GOOD)) + b"\x1f\x8b packed",
], ids=short)
def test_an_initrd(m, archives):
    x = Machine(m, archives)
    assert x.load() == 0x20 and m.taken == 1


@pytest.mark.parametrize("module", [
    cpio((b"kernel/x86/microcode/AuthenticAMD.bin", GOOD)),
    cpio((NAME, GOOD))[:1000], cpio((NAME, GOOD))[:111],
    cpio((NAME + b"x", GOOD)), b"070701" + b"f" * 104, b"070701" + b"z" * 200,
    cpio((b"kernel", b""))[:-4] + b"\x28\xb5\x2f\xfd" + GOOD], ids=short)
def test_an_archive_without_it(m, module):
    x = Machine(m, module)
    assert x.load() == 0x10 and m.taken == 0
    assert "no kernel/x86/microcode/GenuineIntel.bin is in" in m.log_text()


def test_a_cpu_that_does_not_take_it(m):
    x = Machine(m, GOOD)
    m.lib.refuses = True
    assert x.load() == 0x10 and m.taken == 1
    assert m.log_lines() == [(m.LOG_WARN, "microcode: the CPU does not take "
                              "revision 0x20; it keeps 0x10")]


def test_no_module(m):
    assert Machine(m, GOOD, role=b"microcodes").load() == 0x10
    assert m.taken == 0


def test_another_hypervisor_s_cpu(m):
    """Its MSRs are not written."""
    assert Machine(m, GOOD, hypervisor=True).load() == 0x10
    assert m.events("wrmsr") == []


def test_a_cpu_without_the_msr(m):
    x = Machine(m, GOOD)
    m.lib.msr_count = 0
    assert x.load() == 0 and m.events("wrmsr") == []
