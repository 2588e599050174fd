# SPDX-License-Identifier: MIT
"""The option list on machines of any make: it says what there is in lines
that fit a screen, and leaves every register as it was."""
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harness
from pcihost import Function, bdf

FAKES = """
#include "arch/x86/io.h"
#include "kernel/host_paging.h"
#include "kernel/log_sink.h"
#include "kernel/phys.h"
#include "kernel/screen.h"
#include "kernel/time.h"
#include "vmm/list.h"
struct phys host_memory;
static struct host host;
static struct machine machine = {.host = &host};
struct { struct dmar_entry e[3]; } entries;
bool has_dmar, on_screen, no_remapping, no_iommu, no_vga;
unsigned igd_mode, words;
bool log_goes_to(unsigned sink) { return on_screen && sink == LOG_SCREEN; }
void (*log_page)(void);
unsigned pages;
bool small; /* a screen with no room for a line, even on a new page */
void screen_turn_page(void)
{
	if (++pages < 100 && small && log_page)
		log_page();
}
void turn_page(void) { log_page(); }
const char *objection;
hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{ (void)p; (void)size; (void)align; (void)limit; return PHYS_NONE; }
int phys_free(struct phys *p, hpa_t base, u64 size)
{ (void)p; (void)base; (void)size; return 0; }
void *phys_to_virt(hpa_t hpa) { return (void *)hpa; }
hpa_t virt_to_phys(const void *p) { return (hpa_t)p; }
volatile void *mmio_map(hpa_t hpa, u64 size)
{ (void)hpa; (void)size; return NULL; }
void delay_us(u64 tsc_hz, u64 us) { (void)tsc_hz; (void)us; }
bool igd_is_one(const struct pci_function *f)
{ return f && f->vendor == 0x8086 && f->class == 0x0300; }
const char *assigned_objection(const struct assignment *m,
			       struct pci_function *f)
{ (void)m; return no_iommu ? "needs an IOMMU" : f->bdf & 1 ? objection : NULL; }
const char *assigned_display_objection(const struct assignment *m,
				       struct pci_function *f)
{
	(void)m;
	return igd_is_one(f) ? "is Intel's" : f->bdf & 1 ? objection : NULL;
}
const struct acpi_header *acpi_find(const struct acpi_tables *t,
				    const char *name, unsigned n)
{ (void)t; (void)name; (void)n; return has_dmar ? (void *)1 : NULL; }
const char *assigned_line_objection(const struct assignment *m,
				    const struct pci_function *f)
{
	(void)m;
	return pci_config_read(&host.pci, f->bdf, PCI_STATUS, 2) & 0x10
		       ? NULL : "has none";
}
const struct dmar_entry *dmar_unit_of(const struct dmar_table *t,
				      struct pci_host *pci, bdf_t bdf)
{ (void)t; (void)pci; return bdf & 8 ? &entries.e[0] : NULL; }
const struct dmar_entry *dmar_rmrr_of(const struct dmar_table *t,
				      struct pci_host *pci, bdf_t bdf,
				      const struct dmar_entry *prev)
{
	(void)t; (void)pci; (void)bdf;
	return !prev ? &entries.e[1] : prev == &entries.e[1] ? &entries.e[2]
							     : NULL;
}
void list_all(bool plan, bool dmar, bool vtd, bool off, const char *why,
	      const char *line)
{
	has_dmar = dmar;
	host.options.igd = igd_mode;
	host.options.no_vga = no_vga;
	host.options.assign_count = words;
	host.options.assign[0] = (struct option_word){"00:05.0", 7};
	objection = why;
	host.microcode = 0xf4;
	host.has_vtd = vtd;
	host.options.iommu = off ? IOMMU_OFF : IOMMU_STRICT;
	host.vtd.unit_count = 1;
	host.vtd.units[0].base = 0xfed90000;
	host.vtd.remapping = !no_remapping;
	host.tsc_hz = 1000000;
	entries.e[0].base = 0xfed90000;
	entries.e[1].base = 0x7a000000;
	entries.e[1].limit = 0x7fffffff;
	entries.e[2].base = 0xfffffffffff00000;
	entries.e[2].limit = 0xffffffffffffffff;
	pci_scan(&host.pci);
	host.boot.cmdline = line;
	list_verdict(&machine, list_functions(&machine), plan ? 0 : -1);
}
"""
COLUMNS = 80 - len("monocle: ")


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "list", ["vmm/list.c", "vmm/assign/assign_word.c", "drivers/pci/config.c", "drivers/pci/scan.c",
                 "drivers/pci/rom.c", "drivers/pci/reset.c",
                 "drivers/pci/groups.c"], fakes=FAKES,
        headers=["drivers/pci/pci.h", "kernel/log.h"],
        cdef="void list_all(bool plan, bool dmar, bool vtd, bool off,"
             "              const char *why, const char *line);"
             "extern bool small, on_screen, no_remapping, no_iommu, no_vga;"
             "extern unsigned igd_mode, words, pages;"
             "void turn_page(void);")


class Machine:
    """Mechanism #1 in front of functions."""

    def __init__(self, m, functions):
        self.m, self.functions, self.address = m, functions, 0
        self.keys = []      # (status, byte)
        self.idle = 0xff    # the status of no 8042
        m.on_read(self.on_read)
        m.on_write(self.on_write)

    def target(self, port):
        return (self.functions.get(self.address >> 8 & 0xffff),
                (self.address & 0xfc) + port - 0xcfc)

    def on_read(self, kind, port, size):
        assert kind == "in"
        if port == 0x64:
            if self.keys and not self.keys[0][0]:
                return self.keys.pop(0)[0]
            return self.keys[0][0] if self.keys else self.idle
        if port == 0x60:
            return self.keys.pop(0)[1] if self.keys else 0xff
        f, at = self.target(port)
        return f.read(at, size) if f else None

    def on_write(self, kind, port, size, value):
        assert kind == "out"
        if port == 0xcf8:
            self.address = value
            return
        f, at = self.target(port)
        assert at == 4 or 0x10 <= at < 0x28 or at == 0x30, hex(at)
        assert at != 0x30 or not value & 1 or value == f.rom
        f.write(at, size, value)

    def list(self, plan=True, dmar=True, vtd=True, off=False, why=None,
             words="list"):
        for f in self.functions.values():
            f.rom = f.read(0x30, 4)
        before = {at: bytes(f.config) for at, f in self.functions.items()}
        self.m.clear_events()
        self.m.lib.fakes_line_count = 0
        text = self.m.ffi.new("char[]", why.encode()) if why else self.m.NULL
        self.m.list_all(plan, dmar, vtd, off, text,
                        self.m.ffi.new("char[]", words.encode()))
        assert {at: bytes(f.config) for at, f in self.functions.items()} == \
            before
        lines = [line for _, line in self.m.log_lines()]
        assert all(len(line) <= COLUMNS or line.startswith(" " * 13 + "assign=")
                   for line in lines), lines
        assert not any(line.endswith((" ", ":")) for line in lines), lines
        return lines


def display():
    f = Function(0x1234, 0x1111, 0x030000)
    f.bar(0, 0xfd000008, 0xff000000)
    f.bar(2, 0xfebf0000, 0xfffff000)
    f.put(0x30, 4, 0xfebe0000)
    f.writable[0x30:0x34] = (0xffff0001).to_bytes(4, "little")
    return f


def nvme():
    f = Function(0x1b36, 0x10, 0x010802)
    f.bar(0, 0xfe000004, 0xffffc000)
    f.bar(1, 0x80, 0xffffffff)
    f.put(0x3d, 1, 1)
    f.capabilities((0x40, 0x11, 0x80), (0x80, 0x10, 0x60), (0x60, 1, 0))
    f.put(0x42, 2, 0x40)
    f.put(0x84, 4, 1 << 28)
    return f


def test_rows(m):
    lines = Machine(m, {bdf(0, 2): display(), bdf(0, 5): nvme()}).list()
    assert lines[-4] == "microcode: revision 0xf4"
    assert lines[1:-4] == [
        "function ID        class            interrupt  reset  ROM  unit "
        "assign",
        "00:02.0 1234:1111 0300 display     none       none   64K  -    yes",
        "  BARs       0: 16M memory (prefetchable) at 0xfd000000,",
        "             2: 4K memory at 0xfebf0000",
        "  RMRRs      0x7a000000-0x7fffffff,",
        "             0xfffffffffff00000-0xffffffffffffffff",
        "00:05.0 1b36:0010 0108 NVMe        MSI-X 65   FLR    -    0    yes",
        "  BARs       0: 16K memory at 0x80fe000000",
        "  capable of power management, PCI Express, MSI-X",
        "  RMRRs      0x7a000000-0x7fffffff,",
        "             0xfffffffffff00000-0xffffffffffffffff",
    ]


def test_which_root_bus_a_function_is_on(m):
    """Its own, or that of the bridge that leads to it; bus 0 is not said."""
    port = Function(cls=0x060400, header=1, secondary=0x90)
    lines = Machine(m, {
        bdf(0, 2): display(), bdf(0, 0x1c): Function(
            cls=0x060400, header=1, secondary=0x85),
        bdf(0x80, 0x14): Function(), bdf(0x80, 0x1b): port,
        bdf(0x85, 0): nvme(), bdf(0x90, 0): nvme(),
        bdf(0xb2, 0): Function()}).list()
    assert "7 functions on 5 buses, 3 of them roots" in lines[0]
    assert [line[:11] for line in lines[2:-4] if line[0] != " "] == [
        "00:02.0 123", "00:1c.0 808", "root bus 80", "80:14.0 808",
        "80:1b.0 808", "root bus 00", "85:00.0 1b3", "root bus 80",
        "90:00.0 1b3", "root bus b2", "b2:00.0 808"]


IGD = Function(0x8086, 0x1912, 0x030000)


@pytest.mark.parametrize("f, vtd, words", [
    (IGD, True, "igd assign=all"), (IGD, False, "igd"),
    (display(), True, "assign=all"), (display(), False, "")])
def test_the_line_for_grub(m, f, vtd, words):
    """All, and Intel's graphics where there is one, if nothing is said."""
    machine = Machine(m, {bdf(0, 2): f})
    line = f"  multiboot2 /boot/monocle.elf {words}".rstrip()
    assert machine.list(vtd=vtd)[-1] == line
    assert machine.list(vtd=vtd, words="list debug")[-1] == \
        line.replace("elf", "elf debug")
    assert "multiboot2" not in machine.list(vtd=vtd, plan=False)[-1]


def test_a_long_line_for_grub(m):
    """Broken between words, but never in one."""
    few, many = ("assign=all" + ",-01:00.0" * n for n in (4, 12))
    said = f"log=com1,screen list {few}  debug listen {many} ram=identity"
    lines = Machine(m, {bdf(0, 2): IGD}).list(words=said)
    at = next(n for n, line in enumerate(lines) if "multiboot2" in line)
    assert lines[at + 2:at + 4] == [" " * 13 + "listen", " " * 13 + many]
    assert " ".join(lines[at:]).split() == [
        "multiboot2", "/boot/monocle.elf", *said.replace("list ", "", 1).split(),
        "igd", "assign=all"]


@pytest.mark.parametrize("at, words", [
    (bdf(0, 0xe), "note Intel's VMD hides NVMe disks"),
    (bdf(0, 0x17), "note RAID mode hides NVMe disks; switch SATA to AHCI")])
def test_disks_behind_a_controller(m, at, words):
    f = nvme()
    f.put(0, 2, 0x8086)
    f.put(9, 3, 0x010400)
    lines = Machine(m, {at: f}).list()
    assert any(" 0104 RAID  " in line for line in lines)
    assert words in " ".join(" ".join(lines).split())


@pytest.mark.parametrize("igd, words, said", [
    (1, 0, "igd"), (2, 0, "igd=closed"), (0, 1, "assign=00:05.0"),
    (1, 1, "igd assign=00:05.0")])
def test_what_is_said_is_what_counts(m, igd, words, said):
    m.lib.igd_mode, m.lib.words = igd, words
    lines = Machine(m, {bdf(0, 2): IGD}).list(words=f"list {said}")
    m.lib.igd_mode = m.lib.words = 0
    assert lines[-1] == "  multiboot2 /boot/monocle.elf " + said


def test_what_is_assigned_by_name_only(m):
    f = nvme()
    f.put(9, 3, 0x0c8000)
    assert "00:05.0 1b36:0010 0c80             MSI-X 65   FLR    -    0    " \
        "name" in Machine(m, {bdf(0, 5): f}).list()


def test_a_function_that_needs_its_line_named(m):
    f = nvme()
    f.put(6, 2, 0)      # no capabilities
    lines = Machine(m, {bdf(0, 5): f}).list()
    assert "00:05.0 1b36:0010 0108 NVMe        INTx       none   -    0    " \
        "gsi=" in lines


# PCI Code and ID Assignment 1.11, 2 and 1.
CAPABILITIES = {
    0x01: "power management", 0x02: "AGP", 0x03: "VPD", 0x05: "MSI",
    0x06: "hot swap", 0x07: "PCI-X", 0x09: "vendor-specific",
    0x0a: "debug port", 0x0d: "subsystem", 0x10: "PCI Express",
    0x11: "MSI-X", 0x12: "SATA", 0x13: "advanced features"}


@pytest.mark.parametrize("kind", range(1, 0x16))
def test_a_capability_has_its_name(m, kind):
    f = nvme()
    f.capabilities((0x40, kind, 0))
    lines = Machine(m, {bdf(0, 5): f}).list()
    found = [line for line in lines if line.startswith("  capable of")]
    assert found == (["  capable of " + CAPABILITIES[kind]]
                     if kind in CAPABILITIES else [])


@pytest.mark.parametrize("cls, name", [
    (0x0101, "IDE"), (0x0106, "SATA"), (0x0108, "NVMe"), (0x0104, "RAID"),
    (0x0107, "storage"),
    (0x0200, "network"), (0x0280, "network"), (0x0300, "display"),
    (0x0380, "display"), (0x0403, "audio"), (0x0401, "multimedia"),
    (0x0600, "host bridge"), (0x0601, "ISA bridge"), (0x0604, "PCI bridge"),
    (0x0680, "bridge"), (0x0700, "serial port"), (0x0701, ""),
    (0x0c03, "USB"), (0x0c05, "SMBus"), (0x0c00, ""), (0x0880, "")])
def test_a_class_has_its_name(m, cls, name):
    f = nvme()
    f.put(9, 3, cls << 8)
    lines = Machine(m, {bdf(0, 5): f}).list()
    assert f"00:05.0 1b36:0010 {cls:04x} {name:11} MSI-X" in "\n".join(lines)


# PCI Code and ID Assignment 1.11, 1: by base class, and some of their classes
BASES = {1: "storage", 2: "network", 3: "display", 4: "multimedia",
         6: "bridge"}
EXACT = {0x0101: "IDE", 0x0104: "RAID", 0x0106: "SATA", 0x0108: "NVMe",
         0x0403: "audio", 0x0600: "host bridge", 0x0601: "ISA bridge",
         0x0604: "PCI bridge", 0x0700: "serial port", 0x0c03: "USB",
         0x0c05: "SMBus"}


def test_no_other_class_has_a_name(m):
    functions = {}
    for base in range(0x14):
        for sub in (*range(0xb), 0x10, 0x20, 0x41, 0x80, 0xfe):
            functions[bdf(base, *divmod(len(functions) % 16, 8))] = f = \
                Function(cls=base << 16 | sub << 8, multi=True)
    for n in range(0, 256, 8):
        functions.setdefault(n, Function(cls=0x060000))
    lines = [line for line in Machine(m, functions).list()
             if re.match("[0-9a-f]{2}:", line)]
    assert len(lines) > 0x14 * 16
    for line in lines:
        cls = int(line[18:22], 16)
        assert line[23:34].strip() == EXACT.get(cls, BASES.get(cls >> 8, "")), \
            line


@pytest.mark.parametrize("caps, control, pin, said", [
    ([5], 0, 1, "MSI 1"), ([5], 3 << 1, 0, "MSI 8"), ([5], 5 << 1, 1, "MSI 32"),
    ([5, 0x11], 0, 1, "MSI-X 1"), ([0x11], 0xc7ff, 1, "MSI-X 2048"),
    ([1], 0, 4, "INTx"), ([1], 0, 0, "none")])
def test_how_a_function_interrupts(m, caps, control, pin, said):
    """PCI 3.0, 6.8.1.3 and 6.8.2.3; the best of them."""
    f = nvme()
    f.capabilities(*((0x40 + 16 * n, kind, 0x50 + 16 * n if caps[n + 1:] else 0)
                     for n, kind in enumerate(caps)))
    f.put(0x42 + 16 * (len(caps) - 1), 2, control)
    f.put(0x3d, 1, pin)
    lines = Machine(m, {bdf(0, 5): f}).list()
    assert f" NVMe        {said:10} " in "\n".join(lines)


def test_a_reason_is_broken_at_blanks(m):
    why = ("is behind no IOMMU; " + "its DMA would reach everything " * 4 +
           "(or this: it does not matter here)")
    lines = Machine(m, {bdf(0, 2): display(), bdf(0, 3): nvme(),
                        bdf(0, 3, 1): nvme()}).list(why=why)
    assert " ".join(" ".join(lines).split()).count(
        "not, as it " + why.split(" (")[0]) == 0   # function 0 only
    f = nvme()
    f.put(0xe, 1, 0x80)
    lines = Machine(m, {bdf(0, 2): display(), bdf(0, 3): f,
                        bdf(0, 3, 1): nvme()}).list(why=why)
    assert "not, as it " + why.split(" (")[0] in \
        " ".join(" ".join(lines).split())
    assert any(re.match(r"00:03\.1 .* no$", line) for line in lines)


@pytest.mark.parametrize("fields, iommu, will", [
    ({}, "VT-d, interrupts remapped", "will do"),
    ({"vtd": False}, "its DMAR table cannot be used: see the error above",
     "will do for a guest and its display only"),
    ({"vtd": False, "dmar": False},
     "no DMAR table: switch VT-d on in the firmware's setup",
     "will do for a guest and its display only"),
    ({"vtd": False, "off": True}, "iommu=off",
     "will do for a guest and its display only"),
    ({"plan": False}, "VT-d, interrupts remapped",
     "will not do: see the error above"),
])
def test_verdict(m, fields, iommu, will):
    lines = Machine(m, {0: Function(cls=0x060000)}).list(**fields)
    assert [line for line in lines[-3:] if "boot2" not in line][-2:] == [
        "IOMMU: " + iommu, "this machine " + will]


@pytest.mark.parametrize("no_vga", [False, True])
def test_a_display_is_given_without_an_iommu(m, no_vga):
    """The first one, without its DMA; if no-vga does not keep it."""
    m.lib.no_iommu, m.lib.no_vga = True, no_vga
    lines = Machine(m, {bdf(0, 2): display(), bdf(0, 3): display(),
                        bdf(0, 5): nvme()}).list(vtd=False)
    m.lib.no_iommu = m.lib.no_vga = False
    assert [line.split()[-1] for line in lines if line.startswith("00:")] == [
        "no" if no_vga else "yes", "no", "no"]


def test_interrupts_that_are_not_remapped(m):
    m.lib.no_remapping = True
    lines = Machine(m, {0: Function(cls=0x060000)}).list()
    m.lib.no_remapping = False
    assert "IOMMU: VT-d, interrupts not remapped: a device can forge them" in \
        lines


MORE = "-- more in 20 s, or at a key --"
OFF = "-- off in 120 s, or at a key --"


@pytest.fixture
def screen(m):
    m.lib.on_screen = True
    m.lib.fakes_relax_ticks = 1000
    yield Machine(m, {bdf(0, 2): display()})
    m.lib.on_screen = False


@pytest.mark.parametrize("idle", [0, 0xff, 0x14])
def test_no_keyboard_is_needed(m, screen, idle):
    """One that is silent, or none: the time is over, by the machine's clock."""
    screen.idle = idle
    start = m.tsc
    assert screen.list()[-1] == OFF
    assert m.tsc - start == pytest.approx(120e6, rel=0.01)
    start, pages = m.tsc, m.lib.pages
    m.turn_page()
    assert m.log_lines()[-1][1] == MORE
    assert m.tsc - start == pytest.approx(20e6, rel=0.01)
    assert m.lib.pages == pages + 1


def test_a_screen_too_small_for_a_page_s_line(m, screen):
    """It is written all the same, once: no page's line has its own page."""
    screen.list()
    m.lib.pages, m.lib.small = 0, True
    m.turn_page()
    m.turn_page()
    m.lib.small = False
    assert m.lib.pages == 2


def test_a_key_turns_the_page(m, screen):
    """One that goes down: not one that goes up, nor the mouse."""
    screen.keys = [(1, 0x9c), (0x21, 5), (0, 0), (1, 0x1c)]
    start = m.tsc
    assert screen.list()[-1] == OFF
    assert not screen.keys and m.tsc - start < 1e6


def test_a_display_that_cannot_be_given(m):
    """Nor is it called one, which is given without a word."""
    first = display()
    first.put(0xe, 1, 0x80)
    why = "is behind no IOMMU that is switched on"
    lines = Machine(m, {bdf(0, 2): nvme(), bdf(0, 3): first,
                        bdf(0, 3, 1): display()}).list(why=why)
    assert any(re.match(r"00:03\.0 .* yes$", line) for line in lines)
    assert any(re.match(r"00:03\.1 .* no$", line) for line in lines)
    first.put(0xa, 2, 0x0604)
    lines = Machine(m, {bdf(0, 3): first, bdf(0, 3, 1): display()}).list(
        why=why)
    assert any(re.match(r"00:03\.1 .* no$", line) for line in lines)


@st.composite
def functions(draw):
    f = Function(draw(st.integers(1, 0xfffe)), draw(st.integers(0, 0xffff)),
                 draw(st.integers(0, 0xffffff)), draw(st.integers(0, 2)),
                 draw(st.booleans()), draw(st.integers(0, 3)))
    for n in range(6):
        value = draw(st.integers(0, 2**32 - 1))
        f.bar(n, value, draw(st.integers(0, 2**32 - 1)) & ~15)
    if f.read(0xe, 1) & 0x7f == 1:      # bus numbers are no BAR
        f.writable[0x18:0x28] = bytes(16)
    f.put(0x30, 4, draw(st.integers(0, 2**32 - 1)))
    f.writable[0x30:0x34] = draw(st.integers(0, 2**32 - 1)).to_bytes(
        4, "little")
    at = 0x40
    chain = []
    for kind in draw(st.lists(st.integers(0, 0x14), max_size=8)):
        chain.append((at, kind, at + 16))
        at += 16
    f.capabilities(*chain)
    for where, _, _ in chain:
        f.put(where + 2, 2, draw(st.integers(0, 0xffff)))
    return f


# A machine is a large example.
@settings(max_examples=20, deadline=None, suppress_health_check=[
    HealthCheck.data_too_large, HealthCheck.too_slow])
@given(found=st.dictionaries(
    st.integers(0, 0x1ff), functions(), min_size=1, max_size=4),
    why=st.none() | st.text("abc (:", max_size=200).map(
        lambda text: "is " + " ".join(text.split())))
def test_any_machine_fits_and_stays(m, found, why):
    Machine(m, {**found, 0: Function(cls=0x060000)}).list(why=why)
