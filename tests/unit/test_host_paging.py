# SPDX-License-Identifier: MIT
"""Monocle's own address space, read by a walk of the tables' bytes (SDM 4.5):
what is mapped where, with which rights and as which memory."""

import pytest

import harness
import vmxcpu

# The image is where the linker puts it; its host-physical address is IMAGE.
FAKES = """
#define virt_to_phys arena_to_phys
#include "tests/unit/vmx_fakes.c"
#undef virt_to_phys

#define IMAGE 0x23400000ull

__asm__(".pushsection .data; .balign 4096; .globl image_start, "
	"image_text_end, image_rodata_end, image_end; image_start: .zero 12288;"
	"image_text_end: .zero 8192; image_rodata_end: .zero 4096; image_end:"
	".popsection");
extern const char image_start[], image_text_end[], image_rodata_end[],
	image_end[];

hpa_t virt_to_phys(const void *p);
hpa_t virt_to_phys(const void *p)
{
	u64 at = (u64)p - (u64)image_start;

	return at < (u64)(image_end - image_start) ? IMAGE + at
						   : arena_to_phys(p);
}

u64 image_part(unsigned n)
{
	return (u64)(n == 0   ? image_start
		     : n == 1 ? image_text_end
		     : n == 2 ? image_rodata_end
			      : image_end);
}
"""
PAGE, M2, G1, G4 = 1 << 12, 1 << 21, 1 << 30, 1 << 32
DIRECT, IMAGE = 0xffff800000000000, 0x23400000
ADDRESS = 0x000ffffffffff000
RAM, RESERVED, ACPI, NVS, BAD = range(1, 6)
RX, R, RW, RWX = "rx", "r", "rw", "rwx"
GLOBAL, WB, UC = 1 << 8, 0, 0x18


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "host_paging", ["kernel/host_paging.c", "arch/x86/paging.c"],
        headers=["kernel/host_paging.h", "arch/x86/paging.h", "kernel/phys.h",
                 *vmxcpu.HEADERS], fakes=FAKES,
        cdef="u64 image_part(unsigned n);")


class Space:
    """The tables that CR3 names."""

    def __init__(self, m, memory=(), page_1g=True, pages=None, **cpuid):
        self.m, self.cpu = m, vmxcpu.Cpu(m)
        self.cpu.cpuid(0x80000001, edx=page_1g << 26)
        self.cpu.cpuid(1, edx=cpuid.get("edx", 0))
        self.cpu.cpuid(7, ebx=cpuid.get("ebx", 0), ecx=cpuid.get("ecx", 0))
        boot = m.new("struct boot_info *", {
            "image": IMAGE, "image_size": 6 * PAGE,
            "memory_count": len(memory)})
        for n, (base, size, kind) in enumerate(memory):
            boot.memory[n].base, boot.memory[n].size = base, size
            boot.memory[n].kind = kind
        if pages is not None:
            m.lib.arena_limit = pages
        self.error = m.host_paging_init(boot)
        self.cr3 = m.fake_cr[3]

    def entry(self, table, n):
        at = (table & ADDRESS) - self.m.VMX_ARENA_BASE + 8 * n
        assert 0 <= at < self.m.ARENA_PAGES * PAGE, "not a table"
        return int.from_bytes(self.m.ffi.buffer(self.m.arena + at, 8),
                              "little")

    def at(self, va):
        """(host-physical, rights, memory type, G), or None: a page fault."""
        table, write, execute = self.cr3, True, True
        for level in (3, 2, 1, 0):
            e = self.entry(table, va >> 12 + 9 * level & 511)
            if not e & 1:
                return None
            assert not e & 4, "open to user mode"
            write, execute = write and bool(e & 2), execute and not e >> 63
            if not level or e & 0x80:
                assert level < 3, "reserved"
                size = PAGE << 9 * level
                assert not e & ADDRESS & size - 1 & ~0x1000, "reserved bits"
                assert level < 2 or self.m.cpuid(0x80000001, 0).edx >> 26 & 1
                return ((e & ADDRESS & -size) + va % size,
                        "r" + "w" * write + "x" * execute, e & UC, e & GLOBAL)
            assert not e & UC
            table = e
        return None

    def direct(self, hpa):
        got = self.at(DIRECT + hpa)
        assert got is None or got[0] == hpa
        return got and got[1:]


MEMORY = (RW, WB, GLOBAL)


@pytest.mark.parametrize("page_1g", [True, False])
def test_the_first_4_gib(m, page_1g):
    """All of them, but for the image: no second, writable way to it."""
    x = Space(m, page_1g=page_1g)
    assert x.error == 0
    for hpa in (0, PAGE, M2 - 1, IMAGE - 1, IMAGE + 6 * PAGE, IMAGE + M2,
                G1 - 1, G1, 3 * G1 + 5 * M2 + 77, 0xfee00000, G4 - 1):
        assert x.direct(hpa) == MEMORY, hex(hpa)
    for hpa in (IMAGE, IMAGE + 3 * PAGE, IMAGE + 6 * PAGE - 1, G4):
        assert x.direct(hpa) is None, hex(hpa)
    # A null pointer traps, the boot loader's 1:1 map is gone.
    for va in (0, PAGE, IMAGE, G1, (1 << 47) - 1):
        assert x.at(va) is None


def test_the_image_s_rights(m):
    x = Space(m)
    parts = [m.image_part(n) for n in range(4)]
    for start, end, rights in zip(parts, parts[1:], (RX, R, RW)):
        for va in (start, end - 1):
            assert x.at(va) == (IMAGE + va - parts[0], rights, WB, GLOBAL)
    assert x.at(parts[0] - 1) is x.at(parts[3]) is None


@pytest.mark.parametrize("page_1g", [True, False])
def test_memory_above_4_gib(m, page_1g):
    """What is memory, to its last byte; what is not is never touched."""
    x = Space(m, [
        (0, 2 * G1, RAM), (G4 - PAGE, M2 + PAGE, RAM),
        (G4 + 4 * M2 + 0x800, 0x1000, ACPI), (G4 + 6 * M2, PAGE + 1, NVS),
        (5 * G1, G1, RESERVED), (6 * G1, M2, BAD), (8 * G1, 2 * G1, RAM)],
        page_1g=page_1g)
    assert x.error == 0
    for hpa in (G4 - 1, G4, G4 + M2 - 1, G4 + 4 * M2, G4 + 4 * M2 + 0x17ff,
                G4 + 6 * M2, G4 + 6 * M2 + PAGE, 8 * G1, 10 * G1 - 1):
        assert x.direct(hpa) == MEMORY, hex(hpa)
    for hpa in (G4 + M2, G4 + 4 * M2 - 1, G4 + 4 * M2 + 2 * PAGE,
                G4 + 6 * M2 + 2 * PAGE, 5 * G1, 6 * G1, 8 * G1 - 1, 10 * G1):
        assert x.direct(hpa) is None, hex(hpa)


@pytest.mark.parametrize("kind", [RAM, ACPI, NVS])
@pytest.mark.parametrize("end", [1 << 46, 1 << 47, 1 << 63, 2**64 - 1])
def test_a_row_that_no_machine_has(m, kind, end):
    """Of it is mapped what there is room for; the start goes on."""
    base = (1 << 46) - 2 * G1
    x = Space(m, [(base, end - base, kind)])
    assert x.error == 0
    assert x.direct(base) == x.direct((1 << 46) - 1) == MEMORY
    assert x.direct(1 << 46) is None


BAR = 0x4000000000


def test_registers_above_4_gib(m):
    """Uncached: a 64-bit BAR has MSI-X tables and registers in it."""
    x = Space(m, [(G4, G1, RAM)])
    pointer = m.mmio_map(BAR + 0xffc, 8)
    assert int(m.ffi.cast("uintptr_t", pointer)) == BAR + 0xffc
    for page in range(2):
        assert x.direct(BAR + page * PAGE) == (RW, UC, 0)
    assert x.direct(BAR - 1) is x.direct(BAR + 2 * PAGE) is None
    # What is mapped stays as it is, with what is beside it.
    assert m.mmio_map(BAR, PAGE) and m.mmio_map(0xfee00000, PAGE)
    assert m.mmio_map(G4 + G1 - PAGE, 2 * PAGE)
    assert x.direct(G4 + G1 - PAGE) == x.direct(0xfee00000) == MEMORY
    assert x.direct(G4 + G1) == (RW, UC, 0)


@pytest.mark.parametrize("hpa, size, fits", [
    ((1 << 46) - PAGE, PAGE, True), ((1 << 46) - PAGE, PAGE + 1, False),
    (1 << 46, PAGE, False), (2**64 - PAGE, 2 * PAGE, False)])
def test_registers_out_of_reach(m, hpa, size, fits):
    """Behind 46 bits the direct map would be the image's place."""
    x = Space(m)
    assert bool(m.mmio_map(hpa, size)) == fits
    if hpa < 1 << 47:
        assert bool(x.direct(hpa)) == fits


def test_stacks(m):
    """Four pages each, and a page without mapping on both sides."""
    x = Space(m)
    tops = [int(m.ffi.cast("uintptr_t", m.stack_alloc())) for _ in range(3)]
    assert tops[0] >= 0xffffffffc0000000
    pages = set()
    for top in tops:
        for n in range(4):
            hpa, *rest = x.at(top - (n + 1) * PAGE)
            pages.add(hpa)
            assert tuple(rest) == MEMORY
        assert x.at(top) is x.at(top - 4 * PAGE - 1) is None
    assert len(pages) == 12


def test_the_trampoline_s_page(m):
    """1:1 and executable, for as long as it is needed."""
    x = Space(m)
    for page in (0x8000, 0x8000):
        m.clear_events()
        assert m.trampoline_map(page, True) == 0
        assert x.at(page) == (page, RWX, WB, 0)
        assert x.at(page - 1) is x.at(page + PAGE) is None
        m.trampoline_map(page, False)
        assert x.at(page) is None
        assert [e.addr for e in m.events("invlpg")] == [page] * 2
    m.trampoline_map(0x9000, False)     # which never was


MCE, SMEP, SMAP, UMIP = 1 << 6, 1 << 20, 1 << 21, 1 << 11


@pytest.mark.parametrize("cpuid, bits", [
    ({}, 0), ({"edx": 1 << 7}, MCE), ({"ebx": 1 << 7}, SMEP),
    ({"ebx": 1 << 20}, SMAP), ({"ecx": 1 << 2}, UMIP)])
def test_what_each_cpu_loads(m, cpuid, bits):
    """CR4's protections where the CPU has them, and no bit that it has not;
    the tables before the rest of CR0."""
    x = Space(m, **cpuid)
    assert x.error == 0 and m.fake_cr[4] == 1 << 5 | 1 << 7 | bits
    # PE, MP, ET, NE, WP, PG: caches on, no lazy FPU
    assert m.fake_cr[0] == 0x80010033
    assert m.fake_cr[3] == m.host_cr3() and not m.fake_cr[3] & 0xfff
    m.clear_events()
    m.host_paging_load()
    assert {e.addr: e.value for e in m.events("cr")} == {
        n: m.fake_cr[n] for n in (0, 3, 4)}


def test_no_memory_at_any_point(m):
    """An error each time, and nothing is in force."""
    x = Space(m)
    need = m.arena_count()
    for pages in range(need):
        x = Space(m, pages=pages)
        assert x.error == -m.ENOMEM and x.cr3 == 0
    x = Space(m, pages=need)
    assert x.error == 0
    assert not m.mmio_map(BAR, PAGE) and not m.stack_alloc()
    assert m.trampoline_map(0x8000, True) == -m.ENOMEM


# --- The tables' own function --------------------------------------------

class Tables(Space):
    """Tables of the test's own."""

    def __init__(self, m, page_1g=True):
        self.m, self.cpu = m, vmxcpu.Cpu(m)
        self.cpu.cpuid(0x80000001, edx=page_1g << 26)
        f = m.ffi
        self.ops = m.new("struct page_table_ops *", {
            "alloc": f.addressof(m.lib, "page_alloc"),
            "to_virt": f.addressof(m.lib, "phys_to_virt"),
            "to_phys": f.addressof(m.lib, "virt_to_phys"),
            "page_1g": page_1g})
        self.pml4 = f.cast("u64 *", m.page_alloc())
        self.cr3 = m.virt_to_phys(self.pml4)

    def map(self, va, hpa, size, flags=2):
        return self.m.page_map(self.pml4, self.ops, va, hpa, size, flags)


@pytest.mark.parametrize("page_1g", [True, False])
def test_large_pages_where_they_fit(m, page_1g):
    x = Tables(m, page_1g)
    assert x.map(G1, 5 * G1, G1) == 0
    assert x.map(2 * G1, M2, M2) == 0               # 2 MiB
    assert x.map(2 * G1 + M2, PAGE, M2) == 0        # 512 of 4 KiB
    for va, hpa in ((G1, 5 * G1), (2 * G1 - 1, 6 * G1 - 1), (2 * G1, M2),
                    (2 * G1 + M2 - 1, 2 * M2 - 1), (2 * G1 + M2, PAGE),
                    (2 * G1 + 2 * M2 - 1, PAGE + M2 - 1)):
        assert x.at(va)[0] == hpa, hex(va)
    assert x.at(G1 - 1) is x.at(2 * G1 + 2 * M2) is None
    # PML4, PDPT, a PD for each GiB that has smaller pages, one table
    assert m.arena_count() == (4 if page_1g else 5)


def test_what_is_mapped_already(m):
    x = Tables(m)
    assert x.map(0, 0, M2) == x.map(G1, 0, G1) == x.map(M2, 0, PAGE) == 0
    for va in (0, M2 - PAGE, G1, 2 * G1 - M2):
        assert x.map(va, 0, PAGE) == -m.EEXIST
    assert x.map(M2, 7 * PAGE, PAGE, 0) == 0        # overwritten
    assert x.at(M2) == (7 * PAGE, RX, WB, 0)
    assert x.map(0, G1, M2) == 0 and x.at(5)[0] == G1 + 5


def test_lookup(m):
    """The entry itself, at whatever level; what it names is not followed."""
    x = Tables(m)
    x.map(0, 3 * PAGE, PAGE), x.map(M2, 8 * M2, M2), x.map(G1, 3 * G1, G1)
    for va, hpa in ((0, 3 * PAGE), (M2 + 5 * PAGE, 8 * M2),
                    (2 * G1 - 1, 3 * G1)):
        assert m.page_lookup(x.pml4, x.ops, va)[0] & ADDRESS == hpa
    for va in (PAGE, 2 * M2, 2 * G1, 1 << 39, 1 << 47):
        assert not m.page_lookup(x.pml4, x.ops, va)
