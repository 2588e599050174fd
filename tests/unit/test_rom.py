# SPDX-License-Identifier: MIT
"""Option ROMs (PCI 3.0, 6.3): images made here, and any damage to them; and the
one with Monocle's driver for UEFI."""
import os
import pathlib
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness

FAKES = """
#include <stdlib.h>
#include "kernel/phys.h"
#include "kernel/host_paging.h"
#include "tests/unit/fakes.h"
#include "drivers/pci/pci.h"
struct phys host_memory;
u8 *machine_memory;      /* what lies at machine_base */
u64 machine_base;
int allocations;
bool out_of_memory;
hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{
	(void)p; (void)align; (void)limit;
	if (out_of_memory)
		return PHYS_NONE;
	allocations++;
	return (hpa_t)aligned_alloc(4096, size);
}
int phys_free(struct phys *p, hpa_t base, u64 size)
{
	(void)p; (void)size;
	allocations--;
	free((void *)base);
	return 0;
}
void *phys_to_virt(hpa_t hpa)
{
	return hpa == machine_base ? machine_memory : (void *)hpa;
}
hpa_t virt_to_phys(const void *p) { return (hpa_t)p; }
volatile void *mmio_map(hpa_t hpa, u64 size)
{
	(void)size;
	return phys_to_virt(hpa);
}
u32 config[64], writable[64];
u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	(void)pci; (void)bdf;
	return config[offset / 4] >> 8 * (offset & 3) &
		(u32)(((u64)1 << 8 * size) - 1);
}
void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	u32 mask = (u32)(((u64)1 << 8 * size) - 1) & writable[offset / 4];
	(void)pci; (void)bdf;
	if (offset & 3)
		__builtin_trap();
	fakes_record(FAKE_OTHER, offset, size, value);
	config[offset / 4] = (config[offset / 4] & ~mask) | (value & mask);
}
"""
VENDOR, DEVICE = 0x8086, 0x1912
ROM_AT = 0xFEB00000
LAST = 0x80
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """vmm/assign/gop_rom.asm as it is in the image."""
    built = ROOT / "build/obj/vmm/assign/gop_rom.asm.o"
    raw = tmp_path_factory.mktemp("gop") / "gop.rom"
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("MAKE") and k != "LD_PRELOAD"}
    for command in (["make", "-s", built.relative_to(ROOT)],
                    ["objcopy", "-O", "binary", "-j", ".rodata", built, raw]):
        subprocess.run(command, cwd=ROOT, env=env, check=True)
    return raw.read_bytes()


@pytest.fixture(scope="module")
def m(driver):
    own = ('__asm__(".globl gop_rom, gop_rom_end\\n.section .rodata\\ngop_rom: .byte '
           + ",".join(map(str, driver)) + '\\ngop_rom_end:\\n.previous");\n')
    return harness.build(
        "rom", ["drivers/pci/rom.c", "vmm/assign/gop.c"], fakes=FAKES + own,
        headers=["drivers/pci/rom.h", "kernel/log.h", "vmm/assign/gop.h",
                 "vmm/assign/gop_table.h"],
        cdef="extern uint8_t *machine_memory; extern uint64_t machine_base;"
             "extern int allocations; extern bool out_of_memory;"
             "extern uint32_t config[64]; extern uint32_t writable[64];")


def image(size=1024, code=0, last=True, vendor=VENDOR, device=DEVICE,
          devices=(), pcir=0x1C, revision=3, init=None, fill=0x90):
    """One image; a PC's has its checksum in its last byte."""
    data = bytearray([fill]) * size
    data[0:3] = b"\x55\xaa" + bytes([size // 512 if init is None else init])
    data[0x18:0x1a] = pcir.to_bytes(2, "little")
    body = bytearray(0x1c)
    body[0:4] = b"PCIR"
    body[4:6] = vendor.to_bytes(2, "little")
    body[6:8] = device.to_bytes(2, "little")
    body[8:10] = (0x1c if devices else 0).to_bytes(2, "little")
    body[0xa], body[0xc] = 0x1c, revision
    body[0x10:0x12] = (size // 512).to_bytes(2, "little")
    body[0x14], body[0x15] = code, LAST * last
    for entry in (*devices, 0) if devices else ():
        body += entry.to_bytes(2, "little")
    data[pcir:pcir + len(body)] = body
    return sealed(data) if code == 0 else bytes(data)


def sealed(data):
    end = data[2] * 512
    data = bytearray(data)
    data[end - 1] = (data[end - 1] - sum(data[:end])) & 0xff
    return bytes(data)


def check(m, data, device=DEVICE):
    """(why it is none, doubt, length, offset and size of the video BIOS)."""
    raw = m.new("uint8_t[]", max(1, len(data)))
    m.ffi.buffer(raw)[:len(data)] = bytes(data)
    if not data:
        raw = m.NULL
    rom = m.new("struct pci_rom *")
    f = m.new("struct pci_function *", {"vendor": VENDOR, "device": device})
    why = m.pci_rom_check(raw, len(data), f, rom)
    if why:
        return m.string(why), None, None, None
    legacy = (rom.legacy - raw, rom.legacy_size) if rom.legacy else None
    return (None, m.string(rom.doubt) if rom.doubt else None, rom.length,
            legacy)


def model(data, device=DEVICE):
    """The same in Python, from the manual; False: no ROM."""
    at, served, sound, legacy = 0, False, True, None
    while True:
        left = data[at:]
        if len(left) < 0x1a or left[:2] != b"\x55\xaa":
            return False
        word = lambda n: int.from_bytes(left[n:n + 2], "little")
        p = word(0x18)
        if p < 0x1a or p + 0x18 > len(left) or left[p:p + 4] != b"PCIR":
            return False
        size = word(p + 0x10) * 512
        if p + 0x18 > size or size > len(left):
            return False
        ids = [word(p + 6)]
        if left[p + 0xc] >= 3 and word(p + 8):
            for n in range(p + word(p + 8), size - 1, 2):
                if not word(n):
                    break
                ids.append(word(n))
        mine = word(p + 4) == VENDOR and device in ids
        served |= mine
        if left[p + 0x14] == 0:
            init = left[2] * 512
            sound &= 0 < init <= size and sum(left[:init]) % 256 == 0
            if mine and not legacy:
                legacy = at, min(init, size)
        at += size
        if left[p + 0x15] & LAST:
            return served, sound, at, legacy


# --- The check -----------------------------------------------------------

def test_one_image(m):
    assert check(m, image(2048)) == (None, None, 2048, (0, 2048))
    assert check(m, image(2048) + b"\xff" * 1000) == \
        (None, None, 2048, (0, 2048))


def test_several_images(m):
    """A PC's for another device of the card, EFI's, a PC's for this one."""
    data = (image(1024, last=False, device=0x1111) +
            image(512, code=3, last=False) + image(1536, fill=7))
    assert check(m, data) == (None, None, 3072, (1536, 1536))


def test_efi_alone_has_no_video_bios_and_no_checksum(m):
    assert check(m, image(code=3)) == (None, None, 1024, None)


def test_init_size_is_what_has_the_checksum(m):
    assert check(m, image(4096, init=3)) == (None, None, 4096, (0, 1536))


def test_device_list(m):
    data = image(devices=[0x1902, 0x1906], device=0x0406)
    for device in 0x0406, 0x1902, 0x1906:
        assert check(m, data, device)[1] is None
    assert "another device's" in check(m, data, 0x1907)[1]
    old = image(devices=[0x1902], device=0x0406, revision=0)
    assert "another device's" in check(m, old, 0x1902)[1]


def test_device_list_without_an_end(m):
    data = bytearray(image(512, device=1, devices=[2], code=3))
    data[0x38:] = b"\x02" * (512 - 0x38)
    assert "another device's" in check(m, data)[1]


def damaged(at, *values, data=image(1024)):
    return data[:at] + bytes(values) + data[at + len(values):]


WRONG = {
    "empty": (b"", "does not begin with 55AA"),
    "short": (image()[:0x19], "does not begin with 55AA"),
    "signature": (damaged(0, 0xaa, 0x55), "does not begin with 55AA"),
    "pointer into the header": (damaged(0x18, 0x10), "without a PCIR"),
    "pointer out": (damaged(0x18, 0xff, 0xff), "without a PCIR"),
    "no PCIR": (damaged(0x1c, 0x51), "without a PCIR"),
    "length 0": (damaged(0x2c, 0, 0), "ends before its PCIR"),
    "cut": (image(1024)[:1023], "is cut off"),
    "cut behind an image": (image(512, last=False), "does not begin"),
    "too long": (damaged(0x2c, 0xff, 0xff), "is cut off"),
}


@pytest.mark.parametrize("name", WRONG)
def test_no_rom(m, name):
    data, text = WRONG[name]
    assert text in check(m, data)[0]


DOUBTED = {
    "checksum": (damaged(0x100, 1), "has a wrong checksum"),
    "no size": (damaged(2, 0), "has a wrong checksum"),
    "size beyond the image": (damaged(2, 200), "has a wrong checksum"),
    "vendor": (image(vendor=0x1002), "is another device's"),
    "device": (image(device=0x1913), "is another device's"),
}


@pytest.mark.parametrize("name", DOUBTED)
def test_doubt(m, name):
    data, text = DOUBTED[name]
    assert check(m, data)[0] is None
    assert text in check(m, data)[1]


@st.composite
def roms(draw):
    out, count = b"", draw(st.integers(1, 3))
    for n in range(count):
        size = 512 * draw(st.integers(1, 4))
        pcir = draw(st.integers(0x1a, size - 0x30))
        out += image(size, draw(st.sampled_from([0, 0, 1, 3])),
                     n == count - 1,
                     draw(st.sampled_from([VENDOR, VENDOR, 0x1002])),
                     draw(st.sampled_from([DEVICE, 0x1111])),
                     draw(st.lists(st.sampled_from([1, 2, DEVICE]),
                                   max_size=4)), pcir,
                     draw(st.sampled_from([0, 3])))
    return out + b"\xff" * draw(st.integers(0, 64))


def agree(m, data):
    why, doubt, length, legacy = check(m, data)
    wanted = model(bytes(data))
    assert (why is None) == bool(wanted)
    if wanted:
        assert (doubt is None) == (wanted[0] and wanted[1])
        assert (length, legacy) == wanted[2:]


@given(data=roms(), changes=st.lists(st.tuples(
    st.integers(0, 8191), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.integers(0, 4096))
def test_damage_is_found_or_harmless(m, data, changes, cut):
    data = bytearray(data)
    for at, value in changes:
        data[at % len(data)] = value
    agree(m, data[:cut])


@given(at=st.sampled_from([0, 1, 2, 0x18, 0x19, *range(0x1c, 0x40)]),
       value=st.integers(0, 255), data=roms())
def test_damage_to_the_headers(m, at, value, data):
    data = bytearray(data)
    data[at] = value
    agree(m, data)


@given(at=st.integers(0, 1023), value=st.integers(0, 255))
def test_no_single_byte_is_changed_unseen(m, at, value):
    """... of a video BIOS: at the least its checksum says so."""
    before = image(1024)
    data = bytearray(before)
    data[at] = value
    why, doubt, _, legacy = check(m, data)
    assert (why is None and doubt is None and legacy is not None) == (bytes(data) == before)


@pytest.mark.parametrize("path", [
    "/usr/share/bochs/VGABIOS-lgpl-latest",
    "/usr/share/seabios/vgabios-stdvga.bin"])
def test_the_emulators_own(m, path):
    file = pathlib.Path(path)
    if not file.exists():
        pytest.skip("not installed")
    data = file.read_bytes()
    raw = m.new("uint8_t[]", data)
    rom = m.new("struct pci_rom *")
    f = m.new("struct pci_function *", {"vendor": 0x1234, "device": 0x1111})
    assert m.pci_rom_check(raw, len(data), f, rom) == m.NULL
    assert rom.doubt == m.NULL and rom.legacy == raw


# --- Reading it ----------------------------------------------------------

class Card:
    """A function whose ROM is seen at its BAR while all is enabled."""

    def __init__(self, m, data, size=0x10000, base=ROM_AT, command=2,
                 shadow=False, bars=()):
        self.m, self.data = m, data + b"\xff" * (size - len(data))
        for i in range(64):
            m.config[i] = m.writable[i] = 0
        m.config[1], m.writable[1] = command, 0x7
        m.config[12], m.writable[12] = base, (-size & 0xffffffff) | 1
        raw = m.new("uint8_t[]", max(size, 0x20000))
        m.ffi.buffer(raw)[:size] = self.data
        m.lib.machine_memory = self.memory = raw
        m.lib.machine_base = 0xc0000 if shadow else base
        self.low, self.shadow = int(m.ffi.cast("uintptr_t", raw)), shadow
        self.f = m.new("struct pci_function *",
                       {"vendor": VENDOR, "device": DEVICE, "bdf": 0x10})
        for i, (at, length) in enumerate(bars):
            self.f.bars[i].base, self.f.bars[i].size = at, length
        self.rom = m.new("struct pci_rom *")
        m.on_read(self.on_read)
        m.clear_events()
        m.lib.allocations = 0
        m.lib.out_of_memory = False

    def on_read(self, kind, addr, size):
        assert kind == "read" and size in (2, 4)
        if not self.shadow:
            assert self.m.config[12] & 1 and self.m.config[1] & 2
        return None

    def read(self, may_be_shadowed=False):
        before = self.m.config[1], self.m.config[12]
        self.m.pci_rom_read(self.m.NULL, self.f, may_be_shadowed, self.rom)
        assert (self.m.config[1], self.m.config[12]) == before
        return bool(self.rom.data)

    def bytes(self):
        if not self.rom.data:
            return None
        return bytes(self.m.ffi.buffer(self.rom.data, self.rom.size))


def test_from_the_bar(m):
    card = Card(m, image(1024))
    assert card.read()
    assert card.bytes() == image(1024) + b"\xff" * (0x10000 - 1024)
    assert (card.rom.length, card.rom.legacy_size) == (1024, 1024)
    assert m.log_text() == "00:02.0: ROM of 1024 bytes, from its BAR"


def test_where_nothing_begins_there_is_none(m):
    card = Card(m, b"")
    assert not card.read() and m.log_text() == ""


def test_a_small_rom_takes_a_page(m):
    card = Card(m, image(1024), size=2048)
    assert card.read()
    assert card.bytes() == image(1024) + b"\xff" * 3072


def test_decode_is_switched_on_for_the_time(m):
    card = Card(m, image(1024), command=0, bars=[(0xfe000000, 4096)])
    assert card.read()


def test_decode_stays_off_where_a_bar_has_no_address(m):
    card = Card(m, image(1024), command=0, bars=[(0, 4096)])
    assert not card.read()
    assert not [e for e in m.events("other") if e.addr == 4]


def test_without_an_address_it_is_given_none(m):
    card = Card(m, image(1024), base=0)
    assert not card.read()
    assert all(not e.value & 1 for e in m.events("other"))


def test_sizing_does_not_enable(m):
    card = Card(m, b"", size=0x8000, base=ROM_AT)
    bar = m.pci_rom_size(m.NULL, 0x10)
    assert (bar.base, bar.size) == (ROM_AT, 0x8000)
    assert all(not e.value & 1 for e in m.events("other"))
    assert m.config[12] == ROM_AT
    m.writable[12] = 0
    m.config[12] = 0
    assert m.pci_rom_size(m.NULL, 0x10).size == 0
    assert card.rom.size == 0


def test_from_the_shadow(m):
    card = Card(m, image(2048) + image(512, fill=3), size=0x20000, base=0,
                shadow=True)
    assert not card.read()
    assert card.read(True)
    # Other cards' ROMs lie behind it.
    assert card.bytes() == image(2048) + b"\xff" * (0x20000 - 2048)


@pytest.mark.parametrize("name", DOUBTED)
def test_the_functions_own_is_taken_with_a_warning(m, name):
    """Firmware ran it; video BIOSes change themselves in the shadow."""
    data, text = DOUBTED[name]
    card = Card(m, data)
    assert card.read() and card.rom.length == 1024
    (level, line), (_, found) = m.log_lines()
    assert level == m.LOG_WARN
    assert found == "00:02.0: ROM of 1024 bytes, from its BAR"
    assert line.startswith("00:02.0: the ROM in its BAR ") and text in line


@pytest.mark.parametrize("name", [n for n in WRONG
                                  if n not in ("empty", "cut",
                                                   "signature")])
def test_none_is_said_in_one_line(m, name):
    card = Card(m, WRONG[name][0], size=0x800)
    assert not card.read() and m.lib.allocations == 0
    (_, line), = m.log_lines()
    assert line.startswith("00:02.0: the ROM in its BAR ")
    assert line.endswith("; it is left out")


def test_out_of_memory(m):
    card = Card(m, image(1024))
    m.lib.out_of_memory = True
    assert not card.read()
    (_, line), = m.log_lines()
    assert "larger than free memory" in line


# --- A file --------------------------------------------------------------

def load(m, data, full=False):
    raw = m.new("uint8_t[]", bytes(data))
    rom, why = m.new("struct pci_rom *"), m.new("char **")
    f = m.new("struct pci_function *", {"vendor": VENDOR, "device": DEVICE})
    m.lib.out_of_memory = full
    err = m.pci_rom_load(raw, len(data), f, rom,
                         m.ffi.cast("const char **", why))
    assert bool(err) == (why[0] != m.NULL) == (rom.data == m.NULL)
    return m.string(why[0]) if err else \
        bytes(m.ffi.buffer(rom.data, rom.size))


def test_file(m):
    assert load(m, image(5120) + b"junk") == \
        image(5120) + b"\xff" * (8192 - 5120)


@pytest.mark.parametrize("name", [*WRONG, *DOUBTED])
def test_bad_file(m, name):
    data, text = {**WRONG, **DOUBTED}[name]
    if data:
        assert text in load(m, data)


def test_a_file_and_no_memory(m):
    assert load(m, image(1024), full=True) == "does not fit memory"


def test_file_too_long(m):
    assert "too long" in load(m, image(1024) + bytes(16 << 20))
    assert len(load(m, image(512 * 300, init=255))) == 256 << 10


# --- Monocle's driver for UEFI -------------------------------------------

def words(data, at, *sizes):
    """Little endian numbers of these sizes."""
    return struct.unpack_from("<" + "".join({1: "B", 2: "H", 4: "I", 8: "Q"}[n]
                                            for n in sizes), data, at)


def test_the_driver_is_an_image_for_uefi(driver):
    """UEFI 2.10, 14.4.2: what a firmware looks at before it loads one."""
    units = len(driver) // 512
    assert len(driver) % 512 == 0 and 0 < units < 16
    assert words(driver, 0, 2, 2, 4, 2, 2, 2) == (
        0xAA55, units, 0x0EF1, 11, 0x8664, 0)
    start, pcir = words(driver, 0x16, 2, 2)
    assert driver[pcir:pcir + 4] == b"PCIR" and pcir % 4 == 0
    assert words(driver, pcir + 10, 2, 1) == (24, 3)
    assert words(driver, pcir + 16, 2) == (units,)
    assert driver[pcir + 20:pcir + 22] == bytes([3, LAST])
    # PE/COFF: all sections are in the file, none is written and run.
    pe = start + words(driver, start + 0x3c, 4)[0]
    assert driver[start:start + 2] == b"MZ"
    assert driver[pe:pe + 4] == b"PE\0\0"
    machine, sections = words(driver, pe + 4, 2, 2)
    optional, _ = words(driver, pe + 20, 2, 2)
    assert (machine, words(driver, pe + 24, 2)[0]) == (0x8664, 0x20b)
    entry, = words(driver, pe + 40, 4)
    assert words(driver, pe + 92, 2) == (11,)
    held = False
    for n in range(sections):
        at = pe + 24 + optional + 40 * n
        size, address, stored, where = words(driver, at + 8, 4, 4, 4, 4)
        flags, = words(driver, at + 36, 4)
        assert where + stored <= len(driver) - start
        assert not (flags & 0x20000000 and flags & 0x80000000)
        held |= address <= entry < address + size and flags & 0x20000000
    assert held


MIB = 1 << 20
BGRX, RGBX = (16, 8, 0), (0, 8, 16)


def screen(m, base, width=1024, height=768, pitch=4096, bpp=32, order=BGRX,
           kind=None, size=8):
    """GRUB's."""
    red, green, blue = order
    return m.new("struct boot_framebuffer *", {
        "kind": m.DISPLAY_RGB if kind is None else kind, "base": base,
        "width": width, "height": height, "pitch": pitch, "bpp": bpp,
        "red_pos": red, "green_pos": green, "blue_pos": blue,
        "red_size": size, "green_size": size, "blue_size": size})


# Registers; memory for pictures above 4 GiB, in registers 2 and 3; ports
BARS = [(0xde000000, 16 * MIB), (0, 0), (0x4000000000, 256 * MIB), (0, 0),
        (0xf000, 64)]


def with_picture(m, fb, data=b"", bars=BARS):
    """The card whose ROM has then got the driver, or not."""
    card = Card(m, data, bars=bars)
    card.f.bars[4].io = len(bars) > 4
    if data:
        assert card.read()
    m.gop_add(card.rom, card.f, fb)
    return card


PICTURES = {
    "at its start": ({"base": BARS[2][0]}, (2, 0, 1024, 768, 4096, 1)),
    "Meteor Lake": ({"base": BARS[2][0] + 0x800000, "width": 2880,
                     "height": 1800, "pitch": 11520},
                    (2, 0x800000, 2880, 1800, 11520, 1)),
    "RGBX": ({"base": BARS[0][0] + 4, "order": RGBX},
             (0, 4, 1024, 768, 4096, 0)),
    "longer lines": ({"base": BARS[0][0], "width": 1366, "pitch": 5504},
                     (0, 0, 1366, 768, 5504, 1)),
    "to the end": ({"base": BARS[0][0] + 13 * MIB},
                   (0, 13 * MIB, 1024, 768, 4096, 1)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_driver_is_told_where_the_picture_is(m, driver, name):
    fields, table = PICTURES[name]
    card = with_picture(m, screen(m, **fields))
    data = card.bytes()
    assert words(data, 0x40, 4, 4, 8, 4, 4, 4, 4) == (0x706f474d, *table)
    pcir, = words(data, 0x18, 2)
    assert words(data, pcir + 4, 2, 2) == (VENDOR, DEVICE)
    assert data[pcir + 21] == LAST
    # All else is the driver's.
    assert data[0x60:len(driver)] == driver[0x60:]
    assert set(data[len(driver):]) == {0xff} and len(data) == 4096
    assert (card.rom.length, card.rom.efi) == (len(driver), True)
    assert not card.rom.legacy and not card.rom.doubt
    (level, line), = m.log_lines()
    assert level == m.LOG_INFO and "picture" in line


def test_a_video_bios_stays_behind_the_driver(m, driver):
    data = image(2048, fill=5)
    card = with_picture(m, screen(m, BARS[0][0]), data)
    all_of_it = card.bytes()
    assert all_of_it[len(driver):len(driver) + 2048] == data
    assert len(all_of_it) == 8192
    why, doubt, length, legacy = check(m, all_of_it)
    assert (why, doubt) == (None, None)
    assert (length, legacy) == (len(driver) + 2048, (len(driver), 2048))
    assert card.rom.legacy - card.rom.data == len(driver)
    assert m.lib.allocations == 1


def test_a_driver_of_its_own_is_left_alone(m):
    data = image(512, last=False) + image(1024, code=3)
    card = with_picture(m, screen(m, BARS[0][0]), data)
    assert card.bytes()[:1536] == data and m.lib.allocations == 1
    assert "picture" not in m.log_text()


NO_PICTURES = {
    "text": ({"kind": 1}, "no graphics mode"),
    "none": ({"kind": 0}, "no graphics mode"),
    "elsewhere": ({"base": 0x80000000}, "no BAR of it holds"),
    "below": ({"base": BARS[0][0] - 4096}, "no BAR of it holds"),
    "a line too long": ({"base": BARS[0][0] + 13 * MIB + 4096},
                        "no BAR of it holds"),
    "ports": ({"base": BARS[4][0], "height": 0}, "no BAR of it holds"),
    "24 bits": ({"bpp": 24}, "4 bytes"),
    "10 bits a colour": ({"size": 10}, "4 bytes"),
    "another order": ({"order": (8, 16, 0)}, "4 bytes"),
    "no lines": ({"height": 0}, "lines of no such length"),
    "no columns": ({"width": 0}, "lines of no such length"),
    "short lines": ({"pitch": 4092}, "lines of no such length"),
    "half a pixel": ({"pitch": 4098}, "lines of no such length"),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_without_a_picture_the_rom_is_as_before(m, name):
    fields, text = NO_PICTURES[name]
    data = image(1024)
    card = with_picture(m, screen(m, **{"base": BARS[0][0], **fields}), data)
    assert card.bytes()[:1024] == data and card.rom.length == 1024
    assert [text in line for level, line in m.log_lines()
            if level == m.LOG_WARN] == [True]


def test_a_size_beyond_all_addresses_is_in_no_bar(m):
    fb = screen(m, BARS[2][0], height=0xffffffff, pitch=0xfffffffc)
    assert m.gop_bar(with_picture(m, fb).f, fb) == -1


def test_without_memory_there_is_no_picture(m):
    card = Card(m, image(1024), bars=BARS)
    assert card.read()
    m.lib.out_of_memory = True
    m.gop_add(card.rom, card.f, screen(m, BARS[0][0]))
    assert card.rom.length == 1024 and card.rom.size == 0x10000
    assert "too little memory" in m.log_text()
