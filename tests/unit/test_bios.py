# SPDX-License-Identifier: MIT
"""guest=bios and rom-init on a PC whose first mebibyte is the test's own.

Interrupt controllers and timer are the real ones; the code that runs at the
guest's end is a stand-in (tests/boot/test_bios.py has it run)."""
import mmap
import struct

import pytest

import harness

KIB, MIB = 1024, 1 << 20
EBDA = 639 * KIB                # where Bochs's firmware has it
STUB = 0x9F000                  # 3072 bytes below that, on a page
INT15, INT13, BDA = 0x15 * 4, 0x13 * 4, 0x400
FAKES = """
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>
#include "tests/unit/fakes.h"
#include "kernel/phys.h"
#include "vmm/load/bios.h"
#include "vmm/rom_init.h"

u8 *low_memory;                  /* what lies below 1 MiB */
struct phys host_memory;
struct phys_range largest;       /* of what is free there */
bool out_of_memory;
struct guest_entry entered;
void (*run_hook)(void);

void low_make(void)
{
	low_memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
void low_free(void)
{
	munmap(low_memory, MIB);
}
/* A store there ends the run. */
void low_protect(u64 from, u64 size)
{
	mprotect(low_memory + from, size, PROT_READ);
}
void *phys_to_virt(hpa_t hpa)
{
	return hpa < MIB ? low_memory + hpa : (void *)hpa;
}
hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{
	(void)p; (void)limit;
	return out_of_memory ? PHYS_NONE : (hpa_t)aligned_alloc(align, size);
}
struct phys_range phys_largest(const struct phys *p, hpa_t from, hpa_t limit)
{
	(void)p; (void)from; (void)limit;
	return largest;
}
void vcpu_reset(struct vcpu *v, const struct guest_entry *entry)
{
	(void)v;
	entered = *entry;
}
void vcpu_run(struct vcpu *v)
{
	(void)v;
	run_hook();
}
#define BYTES(name, fill, size) \\
	".globl " name "\\n" name ": .fill " size ", 1, " fill "\\n"
__asm__(".section .rodata\\n"
	BYTES("bios_stub", "0x11", "40")
	BYTES("bios_stub_int13", "0x13", "8")
	BYTES("bios_stub_parameters", "0", "16")
	BYTES("bios_stub_end", "0", "0")
	BYTES("rom_init_stub", "0x66", "9")
	BYTES("rom_init_stub_iret", "0xcf", "1")
	BYTES("rom_init_stub_end", "0", "0")
	".text\\n");
"""
CDEF = """
extern uint8_t *low_memory;
extern struct phys_range largest;
extern bool out_of_memory;
extern struct guest_entry entered;
extern void (*run_hook)(void);
void low_make(void);
void low_free(void);
void low_protect(u64 from, u64 size);
"""
CODE, HANDLER_13, PARAMETERS = 64, 40, 48


@pytest.fixture(scope="module", name="built")
def build():
    return harness.build(
        "bios", ["vmm/load/bios.c", "vmm/rom_init.c", "vmm/load/loader.c", "vmm/load/loader_ram.c",
                 "vmm/load/linux.c", "vmm/load/multiboot.c", "vmm/core/guest_mem.c",
                 "kernel/region.c", "kernel/acpi.c", "vmm/core/bus.c", "vmm/core/vm.c",
                 "vmm/core/vclock.c", "vmm/devmodel/pic.c", "vmm/devmodel/pit.c"],
        headers=["vmm/load/bios.h", "vmm/rom_init.h", "vmm/devmodel/pit.h",
                 "kernel/phys.h", "kernel/log.h"],
        fakes=FAKES, cdef=CDEF)


@pytest.fixture(name="pc")
def make_pc(built):
    built.low_make()
    yield Pc(built)
    built.low_free()


def boot_sector(size=512):
    return bytes(n * 7 & 0xff for n in range(510)) + b"\x55\xaa" + bytes(
        n & 0xff for n in range(size - 512))


class Pc:
    def __init__(self, m):
        self.m = m
        self.boot = m.new("struct boot_info *")
        self.options = m.new("struct options *", {
            "ram": m.RAM_IDENTITY, "guest": m.GUEST_BIOS})
        self.vm = m.new("struct vm *")
        self.vcpu = m.new("struct vcpu *", {"vm": self.vm})
        self.map = m.ffi.addressof(self.vm.map)
        self.loader = m.new("struct loader_input *", {"map": self.map})
        self.bios = m.new("struct bios *", {
            "loader": self.loader, "bus": m.ffi.addressof(self.vm.bus)})
        self.rom_init = m.new("struct rom_init *", {
            "vcpu": self.vcpu, "boot": self.boot, "options": self.options})
        self.image(boot_sector())
        m.lib.largest = {"base": 4096, "size": 0x9f000 - 4096}
        m.lib.out_of_memory = False
        self.put(0x413, (EBDA // KIB).to_bytes(2, "little"))
        self.put(INT15, struct.pack("<HH", 0xf859, 0xf000))
        self.put(INT13, struct.pack("<HH", 0xe3fe, 0xf000))

    def image(self, data):
        self.data = self.m.new("u8[]", data)    # no byte behind it
        loader = self.loader
        loader.kernel, loader.kernel_size = self.data, len(data)

    def put(self, at, data):
        self.m.ffi.buffer(self.m.lib.low_memory, MIB)[at:at + len(data)] = data

    def get(self, at=0, size=MIB):
        return self.m.ffi.buffer(self.m.lib.low_memory, MIB)[at:at + size]

    def ram(self, base, size, kind="RAM", hpa=None):
        m = self.m
        assert m.region_add(self.map, m.new("struct region *", {
            "gpa": base, "hpa": hpa or base, "size": size, "kind": m.REGION_RAM,
            "e820": getattr(m, f"E820_{kind}"), "cpu": m.REGION_RWX,
            "name": m.NULL}), m.NULL) == 0

    def line(self):
        """The one line that the user gets."""
        (level, text), = self.m.log_lines()
        assert level == self.m.LOG_ERROR
        return text

    def devices(self):
        m = self.m
        bus = m.ffi.addressof(self.vm.bus)
        clock = m.ffi.addressof(self.vm.clock)
        m.vclock_init(clock, 1_193_182)     # a tick is the timer's
        self.virq = m.callback(
            "void(void *, unsigned, _Bool)",
            lambda _ctx, line, on: m.pic_set_line(self.pic, line, on))
        self.lines = m.new("struct virq *", {"set_line": self.virq})
        self.pic, self.pit = m.new("struct pic *"), m.new("struct pit *")
        assert m.pic_init(self.pic, bus) == 0
        assert m.pit_init(self.pit, bus, clock, self.lines) == 0

    def start(self, *ram):
        """guest=bios from the map to the guest's first instruction."""
        assert self.m.bios_regions(self.bios, self.map) == 0
        for row in ram:
            self.ram(*row)
        assert self.m.bios_save(self.bios) == 0
        self.devices()
        self.m.bios_restore(self.bios)
        entry = self.m.new("struct guest_entry *")
        assert self.m.bios_start(self.bios, entry) == 0
        return entry

    def parameters(self):
        """(old INT 15h, below 16 MiB, above, for AH=88h), [E820 rows]"""
        old, rows, *memory, zero = struct.unpack(
            "<IIHHHH", self.get(STUB + PARAMETERS, 16))
        assert zero == 0
        table = self.get(STUB + CODE, 20 * rows)
        return (old, *memory), list(struct.iter_unpack("<QQI", table))


def same(one, other):
    """Two long strings of bytes (pytest would show all that differs)."""
    wrong = next((n for n, pair in enumerate(zip(one, other))
                  if pair[0] != pair[1]), None)
    assert wrong is None and len(one) == len(other)


# -- guest=bios

@pytest.mark.parametrize("uefi, ram, word", [
    (False, "IDENTITY", None), (True, "IDENTITY", "UEFI"),
    (False, "RELOCATED", "ram=identity"), (True, "RELOCATED", "UEFI")])
def test_machine_that_can(pc, uefi, ram, word):
    pc.boot.uefi = uefi
    pc.options.ram = getattr(pc.m, f"RAM_{ram}")
    status = pc.m.bios_check(pc.boot,
                             pc.options)
    if word:
        assert status == -pc.m.EINVAL and word in pc.line()
    else:
        assert status == 0 and not pc.m.log_lines()


def test_another_guest_is_none_of_its_business(pc):
    pc.options.guest, pc.boot.uefi = pc.m.GUEST_KERNEL, True
    assert pc.m.bios_check(pc.boot,
                           pc.options) == 0


ROOM = STUB - 0x7c00


NO_IMAGES = {
    "two bytes": (b"\x55\xaa", "no boot signature"),
    "511 bytes": (bytes(509) + b"\x55\xaa", "no boot signature"),
    "zeros": (bytes(512), "no boot signature"),
    "half a signature": (boot_sector()[:511] + b"\x55", "no boot signature"),
    "long": (boot_sector(ROOM + 1), "too large"),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_image_that_is_none(pc, name):
    image, word = NO_IMAGES[name]
    pc.image(image)
    before = pc.get()
    assert pc.m.bios_regions(pc.bios, pc.map) == -pc.m.EINVAL
    assert word in pc.line()
    assert pc.map.count == 0
    same(pc.get(), before)


def test_largest_image(pc):
    pc.image(boot_sector(ROOM))
    pc.start()
    same(pc.get(0x7c00, ROOM), boot_sector(ROOM))
    assert pc.get(STUB, 40) == b"\x11" * 40


@pytest.mark.parametrize("kib, base, end, fits", [
    (639, 4096, 0x9f000, True), (639, 0, 0x9f000, True),
    (640, 4096, 0xa0000, True), (0xffff, 4096, 0xa0000, True),
    (256, 4096, 0x40000, True), (255, 4096, 0x9f000, False),
    (0, 4096, 0x9f000, False), (639, 8192, 0x9f000, False),
    (639, 4096, 0x9e000, False), (640, 4096, 0x9f000, False)])
def test_conventional_memory(pc, kib, base, end, fits):
    """What the BDA says, all of it free but page 0."""
    pc.put(0x413, kib.to_bytes(2, "little"))
    pc.m.lib.largest = {"base": base, "size": end - base}
    status = pc.m.bios_regions(pc.bios, pc.map)
    if not fits:
        assert status == -pc.m.EINVAL
        assert "below 640 KiB" in pc.line() or "too large" in pc.line()
        return
    assert status == 0
    top = min(kib, 640) * KIB
    stub = pc.bios.stub
    assert stub % 4096 == 0 and stub + 3072 <= top


def test_first_mebibyte(pc):
    """RAM to the stub, the firmware's and the BIOS area, and no VGA."""
    m = pc.m
    assert m.bios_regions(pc.bios, pc.map) == 0
    rows = [(r.gpa, r.hpa, r.gpa + r.size, r.kind, r.e820, r.memtype, r.cpu,
             r.dma) for r in pc.map.regions[0:pc.map.count]]
    ram = (m.MEMTYPE_WB, m.REGION_RWX, m.REGION_RW)
    assert rows == [
        (0, 0, STUB, m.REGION_RAM, m.E820_RAM, *ram),
        (STUB, STUB, 0xa0000, m.REGION_RAM, m.E820_RESERVED, *ram),
        (0xc0000, 0xc0000, MIB, m.REGION_ROM, m.E820_RESERVED, m.MEMTYPE_WP,
         m.REGION_RWX, 0)]


@pytest.mark.parametrize("at", range(3))
def test_map_is_full(pc, at):
    full = pc.m.REGION_MAX
    for n in range(full - at):
        pc.ram((1 << 32) + 2 * n * 4096, 4096)
    assert pc.m.bios_regions(pc.bios, pc.map) == -28
    assert pc.map.count == full and "does not fit the list" in pc.line()


def test_entry(pc):
    """At 0000:7C00 with a drive's number, its stack below the image."""
    entry = pc.start()
    assert entry.mode == pc.m.ENTRY_REAL16
    assert (entry.rip, entry.rsp) == (0x7c00, 0x7c00)
    assert [n for n in range(16) if entry.gpr[n]] == [pc.m.GPR_RDX]
    assert entry.gpr[pc.m.GPR_RDX] == 0x80
    assert pc.get(0x7c00, 512) == boot_sector()


def test_vectors(pc):
    before = pc.get(0, 0x400)
    pc.start()
    after = pc.get(0, 0x400)
    hooked = {n // 4 for n in range(0x400) if before[n] != after[n]}
    assert hooked == {0x13, 0x15}
    assert struct.unpack_from("<HH", after, INT15) == (0, STUB >> 4)
    assert struct.unpack_from("<HH", after, INT13) == (HANDLER_13, STUB >> 4)
    assert pc.get(STUB + HANDLER_13, 8) == b"\x13" * 8
    assert pc.get(0x413, 2) == (STUB // KIB).to_bytes(2, "little")


def kernel(sectors=3, rest=5000, magic=b"HdrS", version=0x20d, flags=1):
    """By Linux's boot protocol (boot.rst): its setup, and what lies high."""
    setup = bytearray(n * 3 & 0xff for n in range(512 * (sectors + 1)))
    setup[0x1f1], setup[510:512] = sectors, b"\x55\xaa"
    setup[0x202:0x208] = magic + version.to_bytes(2, "little")
    setup[0x211] = flags
    return bytes(setup) + bytes(n * 5 & 0xff for n in range(rest))


def load_kernel(pc, image, line=b"shell", high=8192):
    """The status, what is at 1 MiB, and the entry."""
    m = pc.m
    pc.image(image)
    pc.words = pc.loader.cmdline = m.new("char[]", line)
    status = m.bios_regions(pc.bios, pc.map)
    if status:
        return status, None, None
    memory = mmap.mmap(-1, high)
    pc.ram(MIB, high, hpa=int(m.ffi.cast("uintptr_t",
                                         m.ffi.from_buffer(memory))))
    assert m.bios_save(pc.bios) == 0
    pc.devices()
    entry = m.new("struct guest_entry *")
    return m.bios_start(pc.bios, entry), memory[:], entry


def test_a_kernel_in_real_mode(pc):
    """Behind its boot sector, with the protocol's own segments and fields."""
    image = kernel()
    status, high, entry = load_kernel(pc, image)
    assert status == 0 and high[:5000] == image[2048:]
    assert entry.mode == pc.m.ENTRY_REAL16 and entry.rip == 0
    assert entry.cs == entry.ds + 0x20 and not any(entry.gpr)
    at = entry.ds << 4
    setup = bytearray(pc.get(at, 2048))
    assert setup[0x210:0x212] == b"\xff\x81"     # no known loader; a heap
    heap_end, line = struct.unpack_from("<H2xI", setup, 0x224)
    assert 2048 < heap_end + 0x200 <= entry.rsp and at + entry.rsp <= STUB
    assert pc.get(line, 6) == b"shell\0" and line >= at + entry.rsp
    setup[0x210:0x212], setup[0x224:0x226], setup[0x228:0x22c] = (
        image[0x210:0x212], image[0x224:0x226], image[0x228:0x22c])
    assert setup == image[:2048]


@pytest.mark.parametrize("image, line, high, said", [
    (kernel(sectors=64), b"", 8192, "truncated"),
    (kernel()[:1500], b"", 8192, "truncated"),
    (kernel(), b"x" * 2048, 8192, "command line"),
    (kernel(rest=8193), b"", 8192, "1 MiB")],
    ids=["setup", "short", "words", "memory"])
def test_a_kernel_that_has_no_place(pc, image, line, high, said):
    status, _, _ = load_kernel(pc, image, line, high)
    assert status < 0 and said in pc.line()


@pytest.mark.parametrize("image", [
    kernel(magic=b"HdrT"), kernel(version=0x1ff), kernel(flags=0)],
    ids=["magic", "version", "low"])
def test_what_is_no_such_kernel_is_a_boot_sector(pc, image):
    status, _, entry = load_kernel(pc, image)
    assert status == 0 and entry.rip == 0x7c00


@pytest.mark.parametrize("disk", [True, False])
def test_disk_of_its_own(pc, disk):
    """With a disk assigned, the firmware's INT 13h stays."""
    pc.bios.has_disk = disk
    before = pc.get(INT13, 4)
    pc.start()
    assert (pc.get(INT13, 4) != before) != disk
    assert pc.get(INT15, 4) == struct.pack("<HH", 0, STUB >> 4)


@pytest.mark.parametrize("ram, below, above, extended", [
    ([], 0, 0, 0),
    ([(MIB, 7 * MIB)], 7 * KIB, 0, 7 * KIB),
    ([(MIB, 15 * MIB)], 15 * KIB, 0, 15 * KIB),
    ([(MIB, 31 * MIB)], 15 * KIB, 256, 31 * KIB),
    # AH=88h has 16 bits of KiB.
    ([(MIB, 499 * MIB)], 15 * KIB, 484 * 16, 63 * KIB),
    # Behind a gap it is not extended memory.
    ([(2 * MIB, 8 * MIB)], 0, 0, 0),
    ([(MIB, 7 * MIB), (16 * MIB, 16 * MIB)], 7 * KIB, 0, 7 * KIB),
    ([(MIB, 4095 * MIB)], 15 * KIB, 0xff00, 63 * KIB)])
def test_memory_that_int_15h_tells(pc, ram, below, above, extended):
    pc.start(*ram)
    memory, rows = pc.parameters()
    assert memory == (0xf000f859, below, above, extended)
    assert rows == [(0, STUB, 1), (STUB, 0xa0000 - STUB, 2),
                    (0xc0000, 0x40000, 2), *((*row, 1) for row in ram)]


def test_as_many_rows_as_there_is_room(pc):
    """A map of the greatest length: the table ends below the firmware's."""
    pc.put(STUB + 3072, b"\xeb" * (0xa0000 - STUB - 3072))
    assert pc.m.bios_regions(pc.bios, pc.map) == 0
    more = [(16 * MIB + 8192 * n, 4096) for n in range(
        pc.m.REGION_E820_MAX - pc.map.count)]
    for row in more:
        pc.ram(*row)
    assert pc.m.bios_save(pc.bios) == 0
    pc.devices()
    assert pc.m.bios_start(pc.bios, pc.m.new("struct guest_entry *")) == 0
    _, rows = pc.parameters()
    assert [row[:2] for row in rows[3:]] == more
    assert set(pc.get(STUB + 3072, 0xa0000 - STUB - 3072)) == {0xeb}


def test_interrupts_as_firmware_sets_them_up(pc):
    """The timer ticks at vector 8, 18.2 times a second; IRQ 12 is 74h."""
    m = pc.m
    pc.start()
    clock = m.ffi.addressof(pc.vm.clock)
    for n in (1, 2):
        # Its first clock loads the count, and a deadline is rounded up.
        assert clock.next - 65536 * n in (1, 2)
        assert not pc.pic.intr
        m.tsc = clock.next
        m.vclock_run(clock, m.tsc)
        assert pc.pic.intr and m.pic_ack(pc.pic) == 8
        m.bus_dispatch(m.ffi.addressof(pc.vm.bus), m.BUS_PORT,
                       m.new("struct bus_access *", {
                           "addr": 0x20, "size": 1, "write": True,
                           "value": 0x20}))
    open_lines = []
    for line in set(range(16)) - {0, 2}:
        m.pic_set_line(pc.pic, line, True)
        if pc.pic.intr:
            open_lines.append((line, m.pic_ack(pc.pic)))
            pc.pic.chip[0].isr = pc.pic.chip[1].isr = 0
        m.pic_set_line(pc.pic, line, False)
    assert open_lines == [(1, 9), (6, 14), (12, 0x74), (13, 0x75),
                          (14, 0x76)]


def test_reset_restores_what_the_guest_changed(pc):
    m = pc.m
    pc.put(0xc0000, bytes(n * 13 & 0xff for n in range(0x40000)))
    was = pc.get()
    pc.start()
    pc.put(0, b"\xcc" * 0x500)
    pc.put(0x9ffff, b"\xcc")
    pc.put(0xa0000, b"\x77" * 0x20000)      # the picture: not memory
    pc.put(0xe1234, b"\xcc")                # BIOS area that can be written
    # The rest of that area takes no store, and gets none.
    m.low_protect(0xc0000, 0x20000)
    m.low_protect(0xf0000, 0x10000)
    m.bios_restore(pc.bios)
    now = pc.get()
    same(now, was[:0xa0000] + b"\x77" * 0x20000 + was[0xc0000:])


def rsdp(revision, mark=b"H", tables=0x7fe0000):
    """ACPI 5.2.5.3: 20 bytes, and from revision 2 on 36."""
    data = bytearray(struct.pack("<8sB6sBI", b"RSD PTR ", 0, mark * 6,
                                 revision, tables))
    data[8] = -sum(data) & 0xff
    if revision >= 2:
        data += struct.pack("<IQI", 36, tables + 0x1000, 0)
        data[32] = -sum(data) & 0xff
    return bytes(data)


def own_tables(pc):
    pc.m.ffi.buffer(pc.m.ffi.addressof(pc.bios.rsdp))[:] = rsdp(
        2, b"M", 0x3ff0000)


def guest_view(pc):
    """The first MiB as the guest's CPU reads it; who is not there: zeros."""
    view = bytearray(MIB)
    for r in pc.map.regions[0:pc.map.count]:
        if r.gpa < MIB:
            view[r.gpa:r.gpa + r.size] = pc.m.ffi.buffer(
                pc.m.phys_to_virt(r.hpa), r.size)
    return bytes(view)


RSDPS = {
    "Bochs's": {0xf9bc0: 0}, "long": {0xe0010: 2}, "over a page": {0xf0fe0: 2},
    "the last page": {0xff000: 1}, "the last bytes": {0xfffe0: 0},
    "EBDA": {EBDA: 0}, "EBDA, long": {EBDA + 976: 2},
    "several": {EBDA + 16: 2, 0xe7ff0: 2, 0xe8020: 0, 0xf0000: 0},
}


@pytest.mark.parametrize("name", RSDPS)
def test_every_rsdp_is_the_guests(pc, name):
    """In the firmware's form; every other byte is the firmware's."""
    pc.put(0x40e, (EBDA >> 4).to_bytes(2, "little"))
    pc.put(0xc0000, bytes(n * 13 & 0xff for n in range(0x40000)))
    for at, revision in RSDPS[name].items():
        pc.put(at, rsdp(revision))
    was = pc.get()
    own_tables(pc)
    pc.m.lib.low_protect(0xc0000, 0x40000)      # ROM takes no store
    entry = pc.start()
    expected = bytearray(was)
    for at, revision in RSDPS[name].items():
        new = rsdp(revision if revision >= 2 else 0, b"M", 0x3ff0000)
        expected[at:at + len(new)] = new
    for _ in range(2):
        now = guest_view(pc)
        same(now[EBDA:0xa0000] + now[0xc0000:],
             bytes(expected[EBDA:0xa0000] + expected[0xc0000:]))
        last = pc.map.regions[pc.map.count - 1]
        size = min(last.size, 0x1000)           # the guest may write there
        if last.hpa != last.gpa:
            pc.m.ffi.buffer(pc.m.phys_to_virt(last.hpa), size)[:] = bytes(size)
        pc.m.bios_restore(pc.bios)
        assert pc.m.bios_start(pc.bios, entry) == 0
    pc.m.bios_restore(pc.bios)
    same(pc.get(), was)


def test_the_copy_of_the_bios_is_not_more_than_it_must_be(pc):
    m = pc.m
    pc.put(0xf9bc0, rsdp(0))
    pc.put(0xd0000, rsdp(0))                    # no place for one
    pc.put(0xf2001, rsdp(0))                    # nor that
    pc.put(0xf4000, rsdp(0)[:19] + b"\1")       # its sum is wrong
    assert m.bios_regions(pc.bios, pc.map) == 0
    rows = [(r.gpa, r.size, r.hpa == r.gpa, r.kind, r.e820, r.cpu, r.dma)
            for r in pc.map.regions[2:pc.map.count]]
    rom = (m.REGION_ROM, m.E820_RESERVED, m.REGION_RWX, 0)
    assert rows == [(0xc0000, 0x39000, True, *rom),
                    (0xf9000, 0x1000, False, *rom),
                    (0xfa000, 0x6000, True, *rom)]


def test_no_memory_for_the_copy(pc):
    pc.put(0xf9bc0, rsdp(0))
    pc.m.lib.out_of_memory = True
    assert pc.m.bios_regions(pc.bios, pc.map) == -pc.m.ENOMEM
    assert "copy of the BIOS" in pc.line()


def test_no_memory_to_save_it(pc):
    pc.m.lib.out_of_memory = True
    assert pc.m.bios_save(pc.bios) == -pc.m.ENOMEM


# -- rom-init

@pytest.fixture(name="vga")
def make_vga(pc):
    """A guest with relocated RAM and a display that has a video BIOS."""
    m = pc.m
    pc.options.guest = m.GUEST_KERNEL
    pc.ram(0, 0xa0000)
    pc.display = m.new("struct pci_function *", {"bdf": 2 << 3})
    pc.rom_init.display, pc.rom_init.vga = pc.display, True
    pc.rom = m.new("struct pci_rom *", {"legacy": pc.data,
                                        "legacy_size": 512})
    pc.rom_init.rom = pc.rom
    m.vclock_init(m.ffi.addressof(pc.vm.clock), 1000)
    return pc


def no_legacy_image(pc):
    pc.rom.legacy = pc.m.NULL


def set_to(field, value):
    def change(pc):
        at, *path = [pc, *field.split(".")]
        for name in path[:-1]:
            at = getattr(at, name)
        setattr(at, path[-1], value(pc.m))
    return change


CANNOT = {
    "uefi": (set_to("boot.uefi", lambda m: True), "UEFI"),
    "no rom": (set_to("rom_init.rom", lambda m: m.NULL),
               "no video BIOS"),
    "EFI driver only": (no_legacy_image, "no video BIOS"),
    "no-vga": (set_to("rom_init.vga", lambda m: False), "no video BIOS"),
    "closed": (set_to("options.igd", lambda m: m.IGD_CLOSED),
               "igd=closed"),
    "no memory at 0": (set_to("map.count", lambda m: 0), "first page"),
}


@pytest.mark.parametrize("say", [True, False])
@pytest.mark.parametrize("why", CANNOT)
def test_rom_that_cannot_run(vga, why, say):
    assert vga.m.rom_init_check(vga.rom_init, vga.map, True) == 0
    change, word = CANNOT[why]
    change(vga)
    assert vga.m.rom_init_check(vga.rom_init, vga.map, say) == -vga.m.EINVAL
    if say:
        assert word in vga.line()
    else:
        assert not vga.m.log_lines()


def run(pc, rom):
    """rom(): what the vCPU does meanwhile. (status, screen, row)"""
    m = pc.m
    m.lib.run_hook = m.callback("void(void)", rom)
    screen, row = m.new("struct boot_framebuffer *"), m.new("u8 *", 99)
    status = m.rom_init(pc.rom_init, screen, row)
    m.check()
    assert not pc.vm.rom_runs
    assert pc.vm.clock.next == 2**64 - 1
    return status, screen, row[0]


def returns(pc, cursor=0, look=lambda: None):
    def rom():
        assert pc.vm.request == pc.m.VM_RUN
        assert pc.vm.rom_runs
        look()
        pc.put(0x451, bytes([cursor]))
        pc.vm.request = pc.m.VM_ROM_DONE
    return rom


def test_what_the_rom_finds(vga):
    """PCI Firmware 3.0, 5.2.1.1: AX is its function; no vector is wild."""
    m = vga.m
    vga.put(0, b"\xee" * 0x500)

    def look():
        entry = m.lib.entered
        assert entry.mode == m.ENTRY_REAL16
        assert (entry.rip, entry.rsp) == (0x7c00, 0x7c00)
        assert entry.gpr[m.GPR_RAX] == 2 << 3
        assert entry.gpr[m.GPR_RBX] == entry.gpr[m.GPR_RDX] == 0xffff
        assert vga.get(0x7c00, 10) == b"\x66" * 9 + b"\xcf"
        for segment_offset in struct.iter_unpack("<HH", vga.get(0, 0x400)):
            assert segment_offset == (0x7c09, 0)
        equipment = bytes(0x10) + b"\x20"       # 80 x 25, colour
        assert vga.get(BDA, 0x100) == equipment.ljust(0x100, b"\0")

    status, *_ = run(vga, returns(vga, look=look))
    assert status == 0
    (level, text), = m.log_lines()
    assert level == m.LOG_INFO and "00:02.0 has run" in text


def test_firmware_below_stays(vga):
    """guest=bios: vectors and data area are the firmware's."""
    vga.options.guest = vga.m.GUEST_BIOS
    before = vga.get(0, 0x500)

    def look():
        assert vga.get(0, 0x500) == before
    assert run(vga, returns(vga, look=look))[0] == 0


@pytest.mark.parametrize("cursor, row", [(0, 0), (7, 7), (24, 24), (25, 24),
                                         (255, 24)])
def test_screen_afterwards(vga, cursor, row):
    status, screen, found = run(vga, returns(vga, cursor))
    assert (status, found) == (0, row)
    assert screen.kind == vga.m.DISPLAY_TEXT
    assert (screen.base, screen.width, screen.height, screen.pitch) == (
        0xb8000, 80, 25, 160)


def test_time_it_has(vga):
    """Two seconds, by the guest's clock; and again at each reset."""
    m = vga.m
    clock = m.ffi.addressof(vga.vm.clock)

    def endless():
        start = m.tsc
        m.tsc = start + 2 * vga.vm.clock.tsc_hz - 1
        m.vclock_run(clock, m.tsc)
        assert vga.vm.request == m.VM_RUN
        m.tsc = start + 2 * vga.vm.clock.tsc_hz
        m.vclock_run(clock, m.tsc)
        assert vga.vm.request == m.VM_STOP

    for _ in range(12):         # a clock has 8 timers
        m.reset()
        m.tsc = 5_000_000
        status, screen, row = run(vga, endless)
        assert status == -m.EIO and "does not return" in vga.line()
        assert (screen.kind, row) == (m.DISPLAY_NONE, 99)
    assert run(vga, returns(vga))[0] == 0


@pytest.mark.parametrize("request_", ["RESET", "POWER_OFF", "EXIT_CODE",
                                      "STOP"])
def test_rom_that_ends_otherwise(vga, request_):
    def rom():
        vga.vm.request = getattr(vga.m, f"VM_{request_}")
    assert run(vga, rom)[0] == -vga.m.EIO
    assert "00:02.0 does not return" in vga.line()


def test_no_memory_for_its_vectors(vga):
    """The first page has gone: an error, and nothing runs."""
    vga.map.count = 0
    assert run(vga, lambda: pytest.fail("it ran"))[0] == -vga.m.EFAULT
