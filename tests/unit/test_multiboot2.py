# SPDX-License-Identifier: MIT
"""GRUB's information: tags built here, whole, cut short and corrupted. The
bytes lie in memory of exactly their size, whose ends ASan watches."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

FAKES = """
#include <stdint.h>
#include "kernel/phys.h"
void *phys_to_virt(hpa_t hpa) { return (void *)(uintptr_t)hpa; }
hpa_t virt_to_phys(const void *p) { return (hpa_t)(uintptr_t)p; }
"""
RAM, RESERVED, ACPI, NVS, BAD = 1, 2, 3, 4, 5
TEXT, RGB = 2, 1


@pytest.fixture(scope="module")
def m():
    return harness.build("multiboot2", ["boot/multiboot2.c"], fakes=FAKES,
                         headers=["boot/multiboot2.h", "kernel/log.h"])


# --- Tags, as GRUB writes them (Multiboot2 3.6) --------------------------

def tag(kind, body=b"", size=None):
    data = struct.pack("<II", kind, 8 + len(body) if size is None else size)
    data += body
    return data + bytes(-len(data) % 8)


def text(kind, words):
    return tag(kind, words + b"\0")


def module(start, end, words):
    return tag(3, struct.pack("<II", start, end) + words + b"\0")


def mmap(rows, entry=24):
    return tag(6, struct.pack("<II", entry, 0) + b"".join(
        struct.pack("<QQII", *row, 0).ljust(entry, b"\xee") for row in rows))


def efi_mmap(rows, size=48):
    return tag(17, struct.pack("<II", size, 1) + b"".join(
        struct.pack("<IIQQQQ", kind, 0, base, 0, pages, 0).ljust(
            size, b"\xee") for kind, base, pages in rows))


def framebuffer(base, pitch, width, height, bpp, kind, colours=b""):
    """GRUB: 32 bytes, and 6 more (not padded to 40) for colours."""
    return tag(8, struct.pack("<QIIIBBH", base, pitch, width, height, bpp,
                              kind, 0) + colours)


def rsdp(kind, size):
    return tag(kind, b"RSD PTR ".ljust(size, b"\x11"))


EFI64 = tag(12, (0x7654_3210_8).to_bytes(8, "little"))
END = tag(0)
# What GRUB adds and Monocle does not read.
OTHERS = tag(1 << 20, b"x") + tag(4, bytes(8)) + tag(10, bytes(20)) + \
    tag(21, bytes(4))
MEMORY = [(0, 0x9fc00, RAM), (0x9fc00, 0x400, RESERVED),
          (0x100000, 0x7fee0000, RAM), (0x7ffe0000, 0x20000, ACPI),
          (0xfeffc000, 0x4000, NVS), (0x100000000, 0x80000000, RAM),
          (0x180000000, 0x1000, BAD)]


class Info:
    """The parsed information; `at` is where the bytes lie."""

    def __init__(self, m, body, total=None):
        total = 8 + len(body) if total is None else total
        data = struct.pack("<II", total & 0xffffffff, 0) + body
        self.m, self.data = m, m.new(f"char[{len(data)}]")
        m.ffi.buffer(self.data)[:] = data
        self.at = int(m.ffi.cast("uintptr_t", self.data))
        self.boot = m.new("struct boot_info *")
        harness.reset_all()
        self.status = m.multiboot2_parse(self.boot, self.at)

    @property
    def memory(self):
        return [(r.base, r.size, r.kind) for r in
                self.boot.memory[0:self.boot.memory_count]]

    @property
    def modules(self):
        return [(r.start, r.size, self.bytes(r.string)) for r in
                self.boot.modules[0:self.boot.module_count]]

    def bytes(self, pointer):
        return self.m.ffi.string(pointer)


def errors(m):
    return [t for level, t in m.log_lines() if level == m.LOG_ERROR]


# --- What GRUB says ------------------------------------------------------

def test_a_bios_machine(m):
    info = Info(m, b"".join([
        text(1, b"ram=identity log=com1"), text(2, b"GRUB 2.06"), OTHERS,
        module(0x200000, 0x300001, b"kernel console=ttyS0"),
        module(0x400000, 0x400000, b"initrd"), mmap(MEMORY),
        framebuffer(0xb8000, 160, 80, 25, 16, TEXT), rsdp(14, 20), END]))
    boot = info.boot
    assert info.status == 0 and m.log_lines() == []
    assert info.bytes(boot.cmdline) == b"ram=identity log=com1"
    assert info.bytes(boot.loader) == b"GRUB 2.06"
    assert info.memory == MEMORY
    assert info.modules == [(0x200000, 0x100001, b"kernel console=ttyS0"),
                            (0x400000, 0, b"initrd")]
    assert (boot.fb.kind, boot.fb.base, boot.fb.pitch, boot.fb.width,
            boot.fb.height, boot.fb.bpp) == (m.DISPLAY_TEXT, 0xb8000, 160,
                                             80, 25, 16)
    assert not boot.uefi
    assert m.ffi.string(m.ffi.cast("char *", boot.rsdp), 8) == b"RSD PTR "
    assert (boot.info, boot.info_size) == (info.at, m.ffi.sizeof(info.data))


def test_a_uefi_machine(m):
    body = [rsdp(14, 20), rsdp(15, 36), EFI64, mmap(MEMORY),
            efi_mmap([(7, 0, 1)]),
            framebuffer(0xc00000000, 7680, 1920, 1080, 32, RGB,
                        bytes([16, 8, 9, 7, 0, 6]))]
    for order in (body, body[::-1]):
        info = Info(m, b"".join(order) + END)
        fb = info.boot.fb
        assert info.status == 0 and m.log_lines() == []
        assert info.boot.uefi and info.boot.efi == 0x765432108
        # The plain map is GRUB's own reading of the EFI map.
        assert info.memory == MEMORY
        assert (fb.kind, fb.base, fb.bpp) == (m.DISPLAY_RGB, 0xc00000000, 32)
        assert (fb.red_pos, fb.red_size, fb.green_pos, fb.green_size,
                fb.blue_pos, fb.blue_size) == (16, 8, 9, 7, 0, 6)
        new = b"".join(order).index(rsdp(15, 36))
        assert info.boot.rsdp == info.at + 8 + new + 8, "the newer RSDP"


def test_only_an_efi_map(m):
    """UEFI 2.9, table 7-10: what is free once boot services are over."""
    free, kinds = {1, 2, 3, 4, 7}, {8: BAD, 9: ACPI, 10: NVS}
    for size in (40, 48, 64):
        rows = [(kind, kind << 24, kind + 1)
                for kind in [*range(20), 0x107, 0x10007]]
        info = Info(m, efi_mmap(rows, size) + END)
        assert info.status == 0
        assert info.memory == [
            (base, pages * 4096, RAM if kind in free else
             kinds.get(kind, RESERVED)) for kind, base, pages in rows]


def test_an_indexed_framebuffer_is_no_screen(m):
    info = Info(m, mmap(MEMORY) + framebuffer(
        0xa0000, 320, 320, 200, 8, 0, struct.pack("<H", 2) + bytes(6)) + END)
    assert info.status == 0 and info.boot.fb.kind == m.DISPLAY_NONE


@pytest.mark.parametrize("entry", [24, 32, 40])
def test_larger_rows_of_the_map(m, entry):
    assert Info(m, mmap(MEMORY, entry) + END).memory == MEMORY


def test_kinds_that_there_are_not_are_reserved(m):
    rows = [(n << 20, 1 << 20, kind) for n, kind in
            enumerate([0, 6, 0x101, 0x10001, 0xffffffff, RAM])]
    assert [kind for *_, kind in Info(m, mmap(rows) + END).memory] == [
        RESERVED] * 5 + [RAM]


def test_rows_that_make_no_sense_are_left_out(m):
    rows = [(0x1000, 0, RAM), (2**64 - 0x1000, 0x2000, RAM),
            (0x1000, 2**64 - 1, RAM), *MEMORY]
    assert Info(m, mmap(rows) + END).memory == MEMORY
    rows = [(7, 0x1000, 2**52), (7, 0x1000, 2**64 - 1), (7, 0x1000, 5)]
    assert Info(m, efi_mmap(rows) + END).memory == [(0x1000, 0x5000, RAM)]


# --- What is wrong -------------------------------------------------------

@pytest.mark.parametrize("total", [0, 8, 15, 16 << 20 | 1, 2**32 - 1])
def test_a_size_that_makes_no_sense(m, total):
    info = Info(m, mmap(MEMORY) + END, total)
    assert info.status == -m.EINVAL
    assert errors(m) == [f"multiboot2: information of {total} bytes; start "
                         "Monocle with GRUB's multiboot2 command"]


@pytest.mark.parametrize("body", [
    END, b"", text(1, b"quiet") + END, mmap([]) + END, mmap([(0, 0, 1)]) + END,
    mmap(MEMORY, 16) + END, mmap(MEMORY, 0) + END,
    mmap(MEMORY, 28) + END, efi_mmap([(7, 0, 1)], 44) + END,
    END + mmap(MEMORY)],
    ids=range(10))
def test_no_memory_map(m, body):
    info = Info(m, body + bytes(8))
    assert info.status == -m.EINVAL
    error, = errors(m)
    assert "memory map" in error and "GRUB" in error


@pytest.mark.parametrize("bad, words", [
    *((tag(kind, bytes(size)), f"tag {kind} of {8 + size} bytes is too short")
      for kind, size in ((3, 7), (6, 7), (17, 7), (8, 23), (12, 7), (14, 19),
                         (15, 35))),
    *((tag(kind, b"no end"), f"tag {kind} holds a string with no end")
      for kind in (1, 2)),
    (module(0x2000, 0x1fff, b"backwards"),
     "a module that ends before it starts")], ids=range(10))
def test_a_bad_tag_is_said_and_passed_over(m, bad, words):
    info = Info(m, bad + mmap(MEMORY) + END)
    assert info.status == 0 and errors(m) == []
    assert m.log_lines() == [(m.LOG_WARN, "multiboot2: " + words)]
    assert not info.boot.uefi
    good = Info(m, mmap(MEMORY) + END)
    assert info.memory == good.memory and info.modules == []
    assert info.bytes(info.boot.cmdline) == b""
    assert info.boot.rsdp == 0 and info.boot.fb.kind == m.DISPLAY_NONE


@pytest.mark.parametrize("size", [0, 1, 7, 0x1000, 0x7fffffff, 0xffffffff])
def test_a_tag_with_a_wild_size_ends_the_list(m, size):
    info = Info(m, mmap(MEMORY) + tag(1, b"word\0", size) + module(0, 1, b"")
                + END)
    assert info.status == 0 and info.memory == MEMORY
    assert info.modules == []
    assert m.log_lines() == [(m.LOG_WARN, f"multiboot2: tag 1 of {size} bytes; "
                              "the rest is lost")] * 2


def test_no_end_tag(m):
    assert Info(m, mmap(MEMORY)).memory == MEMORY


def test_more_than_there_is_room_for(m):
    rows = [(n << 20, 1 << 20, RAM) for n in range(m.BOOT_MEMORY_MAX + 3)]
    mods = [module(n << 12, (n << 12) + 5, b"%d" % n)
            for n in range(m.BOOT_MODULES_MAX + 2)]
    info = Info(m, b"".join(mods) + mmap(rows) + END)
    assert info.status == 0
    assert info.memory == rows[:m.BOOT_MEMORY_MAX]
    assert [r[2] for r in info.modules] == [
        b"%d" % n for n in range(m.BOOT_MODULES_MAX)]
    assert [text for _, text in m.log_lines()] == [
        f"multiboot2: more than {m.BOOT_MODULES_MAX} modules"] * 2 + [
        f"memory map: more than {m.BOOT_MEMORY_MAX} rows; "
        f"{rows[n][0]:#x} left out" for n in range(-3, 0)]
    # Nor is one written over what lies behind.
    none = Info(m, mmap(MEMORY) + END).boot
    for name in "cmdline", "loader", "rsdp", "uefi":
        assert getattr(info.boot, name) == getattr(none, name), name
    assert bytes(m.ffi.buffer(m.ffi.addressof(info.boot, "fb"))) == \
        bytes(m.ffi.buffer(m.ffi.addressof(none, "fb")))


# --- Random ones ---------------------------------------------------------

WORDS = st.binary(max_size=30).map(lambda b: b.replace(b"\0", b" "))
U32 = st.integers(0, 2**32 - 1)
ADDRESS = st.integers(0, 2**40)
TAG = st.one_of(
    WORDS.map(lambda w: text(1, w)), WORDS.map(lambda w: text(2, w)),
    st.builds(module, U32, U32, WORDS),
    st.builds(mmap, st.lists(st.tuples(ADDRESS, ADDRESS, st.integers(0, 7)),
                             max_size=6), st.sampled_from([24, 32, 27])),
    st.builds(efi_mmap, st.lists(st.tuples(st.integers(0, 20), ADDRESS,
                                           st.integers(0, 2**20)),
                                 max_size=4)),
    st.builds(framebuffer, ADDRESS, U32, U32, U32, st.integers(0, 255),
              st.integers(0, 3), st.sampled_from([b"", bytes(range(6))])),
    st.builds(rsdp, st.sampled_from([14, 15]), st.integers(8, 40)),
    st.builds(tag, U32, st.binary(max_size=20)), st.just(EFI64))


def sane(info):
    """Whatever was said: lists in their bounds, strings inside the tags."""
    m, boot = info.m, info.boot
    assert boot.memory_count <= m.BOOT_MEMORY_MAX
    assert boot.module_count <= m.BOOT_MODULES_MAX
    for base, size, kind in info.memory:
        assert size and base + size <= 2**64 and RAM <= kind <= BAD
    end = info.at + m.ffi.sizeof(info.data)
    for _, _, words in info.modules:
        assert len(words) < end - info.at
    info.bytes(boot.cmdline)
    assert boot.rsdp == 0 or info.at < boot.rsdp <= end - 20
    assert (info.status == 0) == (boot.memory_count > 0)
    assert len(errors(m)) == (0 if info.status == 0 else 1)


@settings(max_examples=300, deadline=None)
@given(st.lists(TAG, max_size=8), st.lists(st.tuples(
    st.integers(0, 600), st.integers(0, 255)), max_size=6),
    st.integers(0, 600) | st.none())
def test_cut_and_corrupt(m, tags, pokes, cut):
    body = bytearray(b"".join([*tags, mmap(MEMORY), END]))
    for at, value in pokes:
        body[at % len(body)] = value
    body = bytes(body[:cut])
    sane(Info(m, body))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(
    st.sampled_from([0, 1, 2, 3, 6, 8, 12, 14, 15, 17]),
    st.integers(0, 80) | U32, st.binary(max_size=60)), max_size=6))
def test_sizes_that_lie(m, tags):
    """Headers that do not fit what follows."""
    sane(Info(m, b"".join(tag(kind, body, size)
                          for kind, size, body in tags)))
