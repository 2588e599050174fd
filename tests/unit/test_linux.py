# SPDX-License-Identifier: MIT
"""The bzImage loader, read back by the boot protocol's own document.

The reader below knows Documentation/arch/x86/{boot,zero-page}.rst by offsets
and shares nothing with the loader but them.
"""

import struct

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import guestram
import harness
from guestram import MIB, PAGE, Guest, Row, pc

KIB = 1024


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "loader", ["vmm/load/loader.c", "vmm/load/loader_ram.c", "vmm/load/linux.c", "vmm/load/multiboot.c",
                   *guestram.SOURCES],
        headers=["vmm/load/loader.h", "kernel/region.h", "kernel/log.h"], fakes=guestram.FAKES)


class Kernel:
    """A bzImage as its build writes it, field by field."""

    def __init__(self, code=b"\x90" * 4096, **fields):
        self.code = code + b"\0" * (-len(code) % 16)
        self.fields = {
            "setup_sects": 4, "boot_flag": 0xaa55, "jump": 0x66eb,
            "magic": b"HdrS", "version": 0x20f, "loadflags": 1,
            "initrd_addr_max": 0x7fffffff, "kernel_alignment": 0x200000,
            "relocatable_kernel": 1, "min_alignment": 21,
            "xloadflags": 0x3f, "cmdline_size": 2047,
            "pref_address": 0x200000, "init_size": 0x100000,
            "syssize": len(self.code) // 16, "kernel_info_offset": 0x77,
            "setup_data": 0, **fields}

    LAYOUT = {"setup_sects": (0x1f1, "B"), "syssize": (0x1f4, "I"),
              "boot_flag": (0x1fe, "H"), "jump": (0x200, "H"),
              "magic": (0x202, "4s"), "version": (0x206, "H"),
              "type_of_loader": (0x210, "B"), "loadflags": (0x211, "B"),
              "code32_start": (0x214, "I"), "ramdisk_image": (0x218, "I"),
              "ramdisk_size": (0x21c, "I"), "cmd_line_ptr": (0x228, "I"),
              "initrd_addr_max": (0x22c, "I"),
              "kernel_alignment": (0x230, "I"),
              "relocatable_kernel": (0x234, "B"),
              "min_alignment": (0x235, "B"), "xloadflags": (0x236, "H"),
              "cmdline_size": (0x238, "I"), "setup_data": (0x250, "Q"),
              "pref_address": (0x258, "Q"), "init_size": (0x260, "I"),
              "kernel_info_offset": (0x268, "I")}

    def bytes(self):
        sects = self.fields["setup_sects"] or 4
        image = bytearray(512 * (sects + 1))
        for name, value in self.fields.items():
            at, form = self.LAYOUT[name]
            struct.pack_into("<" + form, image, at, value)
        return bytes(image) + self.code

    def run_size(self):
        return max(self.fields["init_size"], len(self.code))


class Load:
    """One call of the loader, with everything that it was given."""

    def __init__(self, m, rows, kernel, initrd=b"", cmdline="", screen=None,
                 rsdp=0, dry=False, **more):
        self.m, self.guest, self.keep = m, Guest(m, rows), []
        self.initrd, self.cmdline = initrd, cmdline
        image = kernel if isinstance(kernel, bytes) else kernel.bytes()
        self.input = m.new("struct loader_input *", {
            "map": self.guest.list, "kernel": self.blob(image),
            "kernel_size": len(image), "rsdp": rsdp,
            "initrd": self.blob(initrd) if initrd else m.NULL,
            "initrd_size": len(initrd),
            "cmdline": self.blob(cmdline.encode() + b"\0"), **more})
        if screen:
            self.screen = m.new("struct boot_framebuffer *", screen)
            self.input.screen = self.screen
        self.entry = m.new("struct guest_entry *")
        m.reset()
        self.checked = m.loader_check(self.input)
        self.check_log = m.log_lines()
        assert self.guest.untouched()
        self.status = self.checked
        if not dry:
            if self.checked == 0:   # what a guest before left behind
                low = self.guest.rows[0]
                low.memory[:] = b"\xee" * low.size
            m.reset()
            self.status = m.loader_load(self.input, self.entry)
            assert m.log_lines() == self.check_log
        assert self.status == self.checked

    def blob(self, data):
        # Exactly as long as the data: ASan sees a read behind it.
        self.keep.append(self.m.new(f"u8[{len(data)}]", data))
        return self.m.ffi.cast("void *", self.keep[-1])

    def refusal(self):
        """The one line that the user gets."""
        assert self.status < 0
        (level, line), = self.check_log
        assert level == self.m.LOG_ERROR
        assert self.guest.untouched()
        return line


class Protocol:
    """What the kernel finds at its 64-bit entry point."""

    def __init__(self, load):
        self.load, self.guest, self.entry = load, load.guest, load.entry
        assert load.status == 0, load.check_log
        assert load.check_log == []
        self.zero_page = load.entry.gpr[6]     # RSI

    def param(self, at, form):
        size = struct.calcsize("<" + form)
        return struct.unpack("<" + form, self.guest.read(
            self.zero_page + at, size))[0]

    def header(self, name):
        return self.param(*Kernel.LAYOUT[name])

    def e820(self):
        count = self.param(0x1e8, "B")
        return [struct.unpack("<QQI", self.guest.read(
            self.zero_page + 0x2d0 + 20 * i, 20)) for i in range(count)]

    def cmdline_at(self):
        return self.header("cmd_line_ptr") | self.param(0xc8, "I") << 32

    def initrd(self):
        return (self.header("ramdisk_image") | self.param(0xc0, "I") << 32,
                self.header("ramdisk_size") | self.param(0xc4, "I") << 32)

    def physical(self, linear):
        """Walks the entry's page tables: SDM 4.5.4."""
        table = self.entry.cr3
        for shift in (39, 30, 21, 12):
            row = self.guest.number(table + 8 * (linear >> shift & 511), 8)
            assert row & 3 == 3, f"{linear:#x} is not mapped for writing"
            base = row & 0x000ffffffffff000
            if shift == 12 or (shift < 39 and row & 0x80):
                return base & ~((1 << shift) - 1) | linear & (1 << shift) - 1
            table = base
        raise AssertionError

    def segment(self, selector):
        """Base, limit, access byte and flags of a GDT row: SDM 3.4.5."""
        assert selector + 7 <= self.entry.gdt_limit
        raw = self.guest.number(self.entry.gdt_base + selector, 8)
        base = raw >> 16 & 0xffffff | raw >> 56 << 24
        limit = raw & 0xffff | raw >> 32 & 0xf0000
        return base, limit, raw >> 40 & 0xff, raw >> 52 & 0xf


def check(load, kernel):
    """Every promise of boot.rst's "64-bit boot protocol"."""
    p = Protocol(load)
    guest, entry = load.guest, load.entry
    assert entry.mode == load.m.ENTRY_LONG64
    start = entry.rip - 0x200
    assert guest.read(start, len(kernel.code)) == kernel.code
    assert guest.is_ram(start, kernel.run_size())
    if not kernel.fields["relocatable_kernel"]:
        assert start == kernel.fields["pref_address"]
    elif start != kernel.fields["pref_address"]:
        assert start % kernel.fields["kernel_alignment"] == 0
    assert entry.cs == 0x10 and entry.ds == 0x18
    assert p.segment(0x10) == (0, 0xfffff, 0x9b, 0xa)   # long, 4 KiB limit
    assert p.segment(0x18) == (0, 0xfffff, 0x93, 0xc)

    # Of the header, only what boot.rst marks as written has changed.
    end = 0x202 + (kernel.fields["jump"] >> 8)
    ours = bytearray(guest.read(p.zero_page + 0x1f1, end - 0x1f1))
    theirs = bytearray(kernel.bytes()[0x1f1:end])
    for name in ("type_of_loader", "code32_start", "ramdisk_image",
                 "ramdisk_size", "cmd_line_ptr"):
        at, form = Kernel.LAYOUT[name]
        span = slice(at - 0x1f1, at - 0x1f1 + struct.calcsize("<" + form))
        ours[span] = theirs[span] = bytes(span.stop - span.start)
    assert ours == theirs
    assert p.header("type_of_loader") == 0xff
    assert p.header("code32_start") == start
    assert p.param(0x70, "Q") == load.input.rsdp
    assert p.e820() == guest.e820()

    assert guest.text(p.cmdline_at()) == load.cmdline
    at, size = p.initrd()
    assert size == len(load.initrd) and guest.read(at, size) == load.initrd
    used = [(start, start + kernel.run_size()), (entry.cr3, entry.cr3 + PAGE),
            (p.zero_page, p.zero_page + PAGE), (entry.rsp - 0x100, entry.rsp),
            (entry.gdt_base, entry.gdt_base + entry.gdt_limit + 1),
            (p.cmdline_at(), p.cmdline_at() + len(load.cmdline) + 1)]
    if size:
        assert at % PAGE == 0 and guest.is_ram(at, size)
        assert at + size - 1 <= kernel.fields["initrd_addr_max"]
        used.append((at, at + size))
        # As high as possible: what is above is too small or not allowed.
        limit = min(kernel.fields["initrd_addr_max"] + 1, 1 << 32)
        for higher in range(at + PAGE, limit - size + 1, PAGE):
            if higher > guest.rows[-1].end:
                break
            clash = any(higher < b and a < higher + size for a, b in used[:-1])
            assert clash or not guest.is_ram(higher, size)
    for i, (a, b) in enumerate(sorted(used)):
        assert guest.is_ram(a, b - a)
        assert i == 0 or sorted(used)[i - 1][1] <= a, "two things overlap"
    pdpt = guest.number(entry.cr3, 8) & ~0xfff
    assert guest.read(entry.cr3 + 8, PAGE - 8) == bytes(PAGE - 8)
    assert guest.read(pdpt + 32, PAGE - 32) == bytes(PAGE - 32)
    for a, b in used + [(0xb8000, 0xb8001), (0xfffff000, 1 << 32)]:
        for linear in (a, b - 1):
            assert p.physical(linear) == linear
    return p


def test_a_kernel_with_everything(m):
    kernel = Kernel(bytes(range(256)) * 64)
    load = Load(m, pc(), kernel, initrd=b"initrd" * 5000, rsdp=0xf0000,
                cmdline="console=ttyS0 quiet")
    p = check(load, kernel)
    assert load.entry.rip == 0x200200
    assert p.initrd()[0] + 32768 == 16 * MIB - 0x10000    # below the tables


def test_no_initrd_and_no_command_line(m):
    kernel = Kernel()
    load = Load(m, pc(), kernel)
    p = check(load, kernel)
    assert p.initrd() == (0, 0)
    assert p.param(0x06, "B") == p.param(0x0f, "B") == 0   # no screen


def test_a_fixed_kernel_goes_to_its_address(m):
    """The demo guest: uncompressed, init_size from 14 MiB on."""
    kernel = Kernel(b"\xcc" * 100000, relocatable_kernel=0,
                    pref_address=0xe00000, init_size=60 * MIB)
    check(Load(m, pc(80), kernel, initrd=b"i" * 3 * MIB), kernel)
    line = Load(m, pc(64), kernel).refusal()
    assert "0xe00000" in line and "memory" in line


def test_a_relocatable_kernel_moves_off_what_is_taken(m):
    kernel = Kernel(pref_address=0xff0000)
    load = Load(m, pc(), kernel)
    check(load, kernel)
    assert load.entry.rip == 0x200200


def test_memory_in_pieces_of_the_host(m):
    """Adjacent regions of one kind are one piece to the guest."""
    rows = [Row(0, 0x9f000), Row(0x9f000, 0x1000, e820="NVS"),
            Row(MIB, MIB), Row(2 * MIB, MIB + PAGE), Row(3 * MIB + PAGE, MIB)]
    kernel = Kernel(b"\xaa" * (MIB + 5 * PAGE), init_size=2 * MIB - PAGE)
    load = Load(m, rows, kernel, cmdline="x" * 2047)
    check(load, kernel)
    assert Protocol(load).e820() == [
        (0, 0x9f000, 1), (0x9f000, 0x1000, 4), (MIB, 3 * MIB + PAGE, 1)]


def test_a_map_of_as_many_pieces_as_the_loader_knows(m):
    """The kernel would cut one of them in two."""
    rows = [Row(0, 0x9f000), Row(MIB, 8 * MIB)] + [
        Row(16 * MIB + n * 2 * PAGE, PAGE) for n in range(94)]
    kernel = Kernel(pref_address=2 * MIB, relocatable_kernel=0)
    assert "does not fit" in Load(m, rows, kernel).refusal()
    check(Load(m, rows[:-2], kernel), kernel)


def test_text_screen(m):
    kernel = Kernel()
    load = Load(m, pc(), kernel, cursor_row=7, screen={
        "kind": m.DISPLAY_TEXT, "base": 0xb8000, "width": 80, "height": 25,
        "pitch": 160, "bpp": 16})
    p = check(load, kernel)
    assert p.param(0x00, "B") == 0 and p.param(0x01, "B") == 7
    assert p.param(0x06, "B") == 3          # mode: colour text
    assert p.param(0x07, "B") == 80 and p.param(0x0e, "B") == 25
    assert p.param(0x0f, "B") == 1          # isVGA: VGA or better
    assert p.param(0x10, "H") == 16         # points
    assert p.param(0x0a, "H") & 0xff != 0x10    # else no EGA to Linux


@pytest.mark.parametrize("base, uefi, kind, unit", [
    (0xe0000000, False, 0x23, 65536), (0xe0000000, True, 0x70, 1),
    (0x480000000, False, 0x70, 1)])
def test_framebuffer(m, base, uefi, kind, unit):
    kernel = Kernel()
    load = Load(m, pc(), kernel, uefi=uefi, screen={
        "kind": m.DISPLAY_RGB, "base": base, "pitch": 5504, "width": 1366,
        "height": 768, "bpp": 32, "red_pos": 16, "red_size": 8,
        "green_pos": 8, "green_size": 8, "blue_pos": 0, "blue_size": 8})
    p = check(load, kernel)
    assert p.param(0x0f, "B") == kind
    assert p.param(0x18, "I") | p.param(0x3a, "I") << 32 == base
    assert bool(p.param(0x36, "I") & 2) == (base >> 32 > 0)
    visible = 5504 * 768
    assert visible <= p.param(0x1c, "I") * unit < visible + unit
    assert [p.param(at, "H") for at in (0x12, 0x14, 0x16, 0x24)] == [
        1366, 768, 32, 5504]
    assert [p.param(at, "B") for at in range(0x26, 0x2e)] == [
        8, 16, 8, 8, 8, 0, 8, 24]


def test_the_kernel_is_left_pristine(m):
    kernel = Kernel()
    load = Load(m, pc(), kernel, initrd=b"abc")
    first = load.guest.read(0, 0xa0000), load.guest.read(MIB, 8 * MIB)
    assert m.ffi.buffer(load.keep[0])[:] == kernel.bytes()
    assert m.loader_load(load.input, load.entry) == 0
    assert (load.guest.read(0, 0xa0000), load.guest.read(MIB, 8 * MIB)) == \
        first


@pytest.mark.parametrize("fields, words", [
    ({"version": 0x20b}, "older than 2.12"),
    ({"xloadflags": 0x3e}, "64-bit"),
    ({"loadflags": 0}, "zImage"),
    ({"boot_flag": 0}, "damaged"),
    ({"kernel_alignment": 0x300000}, "power of two"),
    ({"kernel_alignment": 0}, "power of two"),
    ({"syssize": 0x101}, "truncated"),
    ({"init_size": 15 * MIB}, "more memory"),
    ({"init_size": 0xffffffff}, "more memory"),
    ({"pref_address": 2**64 - 4096, "relocatable_kernel": 0}, "more memory"),
    ({"pref_address": 0xc0000, "relocatable_kernel": 0}, "bios"),
    ({"pref_address": 15 * MIB + 0xf0000, "relocatable_kernel": 0}, "acpi"),
])
def test_refusals(m, fields, words):
    assert words in Load(m, pc(), Kernel(**fields)).refusal()


def test_an_initrd_larger_than_memory(m):
    line = Load(m, pc(), Kernel(), initrd=bytes(15 * MIB)).refusal()
    assert "initrd" in line and "15360 KiB" in line and "memory" in line


def test_an_initrd_above_what_the_kernel_reaches(m):
    kernel = Kernel(initrd_addr_max=0x57ffff, init_size=MIB)
    check(Load(m, pc(), kernel, initrd=bytes(0x280000)), kernel)
    line = Load(m, pc(), kernel, initrd=bytes(0x280001)).refusal()
    assert "0x580000" in line


def test_a_long_command_line(m):
    kernel = Kernel(cmdline_size=255)
    check(Load(m, pc(), kernel, cmdline="y" * 255), kernel)
    line = Load(m, pc(), kernel, cmdline="y" * 256).refusal()
    assert "256" in line and "255" in line and "shorten" in line


def test_no_low_memory_is_no_hindrance(m):
    kernel = Kernel()
    check(Load(m, [Row(MIB, 8 * MIB)], kernel), kernel)


def test_every_truncation(m):
    """One line for every length, and never a byte too far (ASan)."""
    whole, rows = Kernel(setup_sects=1).bytes(), [Row(0, 4 * PAGE)]
    for size in [*range(0, 1100), len(whole) - 16]:
        Load(m, rows, whole[:size], dry=True).refusal()
    assert "truncated" in Load(m, rows, whole[:-16]).refusal()
    assert "neither" in Load(m, rows, whole[:0x200]).refusal()


@pytest.mark.parametrize("missing", [1, 8, 15])
def test_a_last_paragraph_that_is_not_whole(m, missing):
    """syssize is rounded up: memtest86+'s file is 8 bytes shorter. The rest
    is zeros, whatever lay there."""
    kernel = Kernel(b"\x90" * (4096 - missing), init_size=0)
    assert kernel.code.endswith(bytes(missing))
    check(Load(m, pc(), kernel.bytes()[:-missing]), kernel)


FIELDS = st.fixed_dictionaries({
    "setup_sects": st.sampled_from([0, 1, 4, 30]),
    "relocatable_kernel": st.sampled_from([1, 1, 0]),
    "pref_address": st.integers(0, 700).map(lambda n: n * PAGE) |
    st.sampled_from([0, 0x200000, 0xfffff000, 2**32, 2**63]),
    "init_size": st.integers(0, 600000) |
    st.sampled_from([0, PAGE, 3 * MIB, 0xfffff000]),
    "kernel_alignment": st.sampled_from([PAGE, PAGE, 1 << 16, 1 << 21]),
    "initrd_addr_max": st.integers(0, 6 * MIB) |
    st.sampled_from([0x7fffffff] * 2),
    "cmdline_size": st.sampled_from([2047, 2047, 100, 0]),
    "jump": st.sampled_from([0x66eb, 0x6aeb, 0x8eeb]),
})


@st.composite
def memory_maps(draw):
    rows, at = [], 0
    for gap, pages, kind in draw(st.lists(st.tuples(
            st.sampled_from([0, 0, 1, 64]), st.integers(1, 500),
            st.sampled_from(["RAM", "RAM", "RAM", "NVS", "RESERVED"])),
            min_size=1, max_size=8)):
        rows.append(Row(at + gap * PAGE, pages * PAGE, e820=kind))
        at = rows[-1].end
    return rows


def pages_of(start, size):
    return set(range(start // PAGE, -(-(start + size) // PAGE)))


def model(rows, kernel, initrd, cmdline):
    """Where things go by the protocol, by trying page after page.

    (kernel, initrd) addresses, or the word for what has no place.
    """
    f, size = kernel.fields, kernel.run_size()
    free = {page for r in rows if r.e820 == "RAM"
            for page in pages_of(r.gpa, r.size) if page < 1 << 20}

    def fits(start, length):
        return start + length <= 1 << 32 and free >= pages_of(start, length)
    if cmdline > f["cmdline_size"]:
        return "command line"
    if size > 16 * MIB:
        return "Linux kernel"
    top = max(r.end for r in rows)
    kernel_at = f["pref_address"]
    if f["relocatable_kernel"] and not (
            kernel_at and fits(kernel_at, size)):
        kernel_at = next((at for at in range(MIB, top, PAGE)
                          if at % f["kernel_alignment"] == 0
                          and fits(at, size)), 2**64)
    if not fits(kernel_at, size):
        return "Linux kernel"
    free -= pages_of(kernel_at, size)
    parameters = 0x8000 + cmdline + 1
    low = next((at for at in range(0x10000, top, PAGE)
                if fits(at, parameters)), None)
    if low is None:
        return "boot parameters"
    free -= pages_of(low, parameters)
    highest = f["initrd_addr_max"] + 1 - initrd
    initrd_at = next((at for at in range(top, MIB - 1, -PAGE)
                      if at <= highest and fits(at, initrd)), None)
    if initrd and initrd_at is None:
        return "initrd"
    return kernel_at, initrd_at if initrd else 0


@settings(max_examples=300, deadline=None)
@given(memory_maps(), FIELDS, st.integers(0x201, 200000),
       st.integers(0, MIB) | st.just(0), st.sampled_from([0, 9, 101]))
def test_any_kernel_in_any_memory(m, rows, fields, code, initrd, cmdline):
    kernel = Kernel(b"\x5a" * code, **fields)
    load = Load(m, rows, kernel, initrd=b"\xa5" * initrd,
                cmdline="c" * cmdline)
    expected = model(rows, kernel, initrd, cmdline)
    event(expected if isinstance(expected, str) else "loads")
    if isinstance(expected, str):
        assert expected in load.refusal()
    else:
        p = check(load, kernel)
        assert (load.entry.rip - 0x200, p.initrd()[0]) == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0x1f1, 0x270), st.integers(0, 255)),
                min_size=1, max_size=6))
def test_damaged_headers(m, damage):
    image = bytearray(Kernel(b"\x33" * 9000).bytes())
    for at, value in damage:
        image[at] = value
    load = Load(m, pc(8), bytes(image), initrd=b"q" * 5000, cmdline="hello")
    if load.status:
        load.refusal()
    else:
        p = Protocol(load)
        assert load.guest.text(p.cmdline_at()) == "hello"
        at, size = p.initrd()
        assert load.guest.read(at, size) == b"q" * 5000
