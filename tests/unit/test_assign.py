# SPDX-License-Identifier: MIT
"""What assign= words give the guest, and what is refused in one line."""

import pytest

import harness
from pcihost import (DOWN, ENDPOINT, ROOT, TO_PCI, UP, Machine, bdf,
                     function)

FAKES = """
#include "tests/unit/assign_fakes.h"
#include "arch/x86/errno.h"
struct assignment *fresh_assignment(void) { return empty_assignment(); }
/* Intel's graphics: none if not told, and what was asked of it. */
bool igd_there[1], pins_bars[1];
int igd_status[1];
unsigned logged[1], messages[1]; /* how often */
struct igd_input igd_seen[1];
bool igd_is_one(const struct pci_function *f)
{ return igd_there[0] && f && f->bdf == IGD_BDF; }
int igd_probe(struct igd *g, const struct igd_input *in)
{
	igd_seen[0] = *in;
	g->function = in->function;
	g->vga = true;
	if (igd_status[0])
		log_error("igd: told so");
	return igd_status[0];
}
void igd_log(const struct igd *g) { (void)g; logged[0]++; }
int igd_regions(const struct igd *g, struct region_list *l)
{
	struct region r = region_device(0x8000000, 0x8000000, MIB, "stolen");
	(void)g;
	return region_add(l, &r, NULL);
}
/* A BAR comes last: nothing may lie over it then. */
int assigned_pin_bars(struct assignment *a, struct region_list *l)
{
	struct region r = region_device(GIB, GIB, MIB, "BAR");
	(void)a;
	pins_bars[0] = true;
	return region_pin(l, &r);
}
/* Some, one after the other, of this function. */
bdf_t rmrr_of[1];
unsigned rmrrs[1] = {1};
struct dmar_entry rmrr[IGD_RMRRS + 1];
const struct dmar_entry *dmar_rmrr_of(const struct dmar_table *t,
	struct pci_host *pci, bdf_t bdf, const struct dmar_entry *e)
{
	(void)t; (void)pci;
	e = e ? e + 1 : rmrr;
	return bdf == rmrr_of[0] && e < rmrr + rmrrs[0] ? e : NULL;
}
bool pci_can_take_over(const struct pci_host *p, const struct pci_function *f)
{ (void)p; return f->class == PCI_CLASS_USB; }
u64 no_unit[1] = {~0ull};
void *phys_to_virt(hpa_t hpa) { return (void *)hpa; }
volatile void *mmio_map(hpa_t hpa, u64 size)
{ (void)hpa; (void)size; return NULL; }
int assigned_irq_init(struct assigned *a, const struct pci_host *pci)
{
	(void)a; (void)pci;
	return messages[0]-- == 1 ? -ENOMEM : 0;
}
/* A PC's: the timer at pin 2, 24 pins. */
u32 host_irq_gsi(const struct acpi_madt *madt, u8 irq)
{ (void)madt; return irq ? irq : 2; }
bool host_irq_has_gsi(const struct acpi_madt *madt, u32 gsi)
{ (void)madt; return gsi < 24; }
int left_status[1];
int vtd_leave(struct vtd *v, struct pci_function *f)
{ (void)v; f->left = !left_status[0]; return left_status[0]; }
bool vtd_has_unit(struct vtd *v, bdf_t bdf) { (void)v; return bdf != no_unit[0]; }
"""


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "assign", ["vmm/assign/assign.c", "vmm/assign/assign_word.c",
                   "vmm/assign/assigned_regions.c", "kernel/region.c",
                   "kernel/boot_info.c", "drivers/pci/config.c",
                   "drivers/pci/scan.c", "drivers/pci/groups.c",
                   "drivers/pci/acs.c"],
        headers=["tests/unit/assign_fakes.h", "kernel/log.h"],
        fakes='#include "kernel/log.h"' + FAKES,
        cdef="extern u64 no_unit[1]; extern bdf_t rmrr_of[1];"
             "extern unsigned rmrrs[1]; extern struct dmar_entry rmrr[9];"
             "extern bool igd_there[1], pins_bars[1];"
             "extern int left_status[1], igd_status[1]; extern unsigned logged[1], messages[1];"
             "extern struct igd_input igd_seen[1];"
             "struct assignment *fresh_assignment(void);")


def behind_the_last(m, pci):
    """What stands in memory there is no function."""
    if pci.count < m.PCI_FUNCTIONS_MAX:
        pci.functions[pci.count] = {"bdf": bdf(0, 0x1f, 7), "class": 0x0300,
                                    "vendor": 0x8086, "device": 0xa12f}


class Choice:
    """A host with these functions, and what these words choose of it."""

    def __init__(self, m, functions, *words, ecam=True, vtd=True,
                 strict=False, memory=(), igd=0, **more):
        m.reset()
        self.m, self.x = m, Machine(m, functions, ecam)
        self.machine = m.fresh_assignment()
        self.machine.pci[0] = self.x.host[0]
        m.pci_scan(self.machine.pci)
        m.pci_acs_probe(self.machine.pci)
        behind_the_last(m, self.machine.pci)
        if not vtd:
            self.machine.vtd = m.NULL
        options = self.options = m.ffi.cast("struct options *",
                                            self.machine.options)
        boot = m.ffi.cast("struct boot_info *", self.machine.boot)
        options.strict_groups, options.igd = strict, igd
        for name, value in more.items():
            setattr(options, name, value)
        for i, row in enumerate(memory):
            boot.memory[i] = dict(zip(("base", "size", "kind"),
                                                row))
        boot.memory_count = len(memory)
        self.words = [m.ffi.new("char[]", w.encode()) for w in words]
        for i, w in enumerate(words):
            options.assign[i] = {"text": self.words[i],
                                           "length": len(w)}
        options.assign_count = len(words)
        self.status = m.assigned_choose(self.machine)
        self.errors = [t for level, t in m.log_lines()
                       if level == m.LOG_ERROR]
        assert len(self.errors) == (self.status not in (0, -m.ENOMEM))
        self.log = m.log_text()
        self.given = [a.function.bdf for a in
                      self.machine.functions[0:self.machine.count]]
        self.ports = [p.function.bdf for p in
                      self.machine.ports[0:self.machine.port_count]]


def pc(acs=True):
    """A laptop: display, two root ports of one device, a PCH device."""
    out = {
        bdf(0, 0): function(cls=0x060000), bdf(0, 2): function(cls=0x030000),
        bdf(0, 0x14): function(cls=0x0c0330),
        bdf(0, 0x1c): function(ROOT, acs, 1, multi=True),
        bdf(0, 0x1c, 4): function(ROOT, acs, 2),
        bdf(0, 0x1f): function(cls=0x060100, multi=True),
        bdf(0, 0x1f, 3): function(cls=0x040300),
        bdf(0, 0x1f, 6): function(), bdf(1, 0): function(ENDPOINT),
        bdf(2, 0): function(ENDPOINT, cls=0x010802)}
    out[bdf(0, 0x14)].put(2, 2, 0xa12f)
    return out


@pytest.mark.parametrize("words, given, ports", [
    ([], [], []),
    (["00:14.0"], [bdf(0, 0x14)], []),
    (["8086:a12f"], [bdf(0, 0x14)], []),
    (["class=0c03"], [bdf(0, 0x14)], []),
    (["8086:A12F"], [bdf(0, 0x14)], []), (["class=0C03"], [bdf(0, 0x14)], []),
    # The ISA bridge in their midst is no obstacle; it is not given away.
    (["00:1f.3", "00:1f.6"], [bdf(0, 0x1f, 3), bdf(0, 0x1f, 6)], []),
    (["01:00.0"], [bdf(1, 0)], [bdf(0, 0x1c)]),
    (["02:00.0"], [bdf(2, 0)], [bdf(0, 0x1c, 4)]),
    # What is beside it stays where it is.
    (["00:1f.6"], [bdf(0, 0x1f, 6)], [])])
def test_what_is_given(m, words, given, ports):
    done = Choice(m, pc(), *words)
    assert done.status == 0, done.log
    assert done.given == [*given, bdf(0, 2)]
    assert done.machine.named == len(given)
    assert done.machine.display.bdf == bdf(0, 2)
    assert sorted(done.ports) == sorted(ports)


@pytest.mark.parametrize("words, why", [
    (["00:1d.0"], "no such function"), (["1234:5678"], "no such function"),
    (["00:1f.0"], "is a bridge"), (["00:1c.0"], "is a bridge"),
    (["01:00.0", "01:00.0"], "named twice"),
    (["0:14.0"], "write BB:DD.F"), (["00:20.0"], "write BB:DD.F"),
    (["class=xyz0"], "write BB:DD.F"),
    # Neither shorter nor longer than written.
    *(([word], "write BB:DD.F") for word in (
        "class=0c0", "class=0c030", "class=", "8086:a12", "8086:a12f0",
        "8086:", "8086.a12f", "8086-a12f", "00:14", "00:14.", "00:14.00", "00:14.8", "000:14.0",
        "00:1g.0", "0x00:14.0", "")),
    *(([word], "behind it ,-BB:DD.F") for word in (
        "alle", "all,", "all,-", "all,00:14.0", "all,-00:14.0,",
        "all,-00:14.0-00:1f.3", "all,-00:14.00", "all,gsi=3")),
    *(([word], "all,-00:14.1: no such function") for word in (
        "all,-00:14.1", "all,-00:14.0,-00:14.1", "all,-00:14.1,-00:1d.0"))])
def test_refusals(m, words, why):
    done = Choice(m, pc(), *words)
    assert done.status < 0 and why in done.errors[0]


@pytest.mark.parametrize("cls, given", [(0x0700, False), (0x0701, True)])
def test_a_serial_port_stays(m, cls, given):
    functions = {**pc(), bdf(0, 0x16, 3): function(cls=cls << 8)}
    functions[bdf(0, 0x16)] = function(cls=0x078000, multi=True)
    done = Choice(m, functions, "00:16.3")
    assert (bdf(0, 0x16, 3) in done.given) == given
    assert given or "00:16.3 is a serial port, which stays Monocle's: log=pci" \
        in done.errors[0]


@pytest.mark.parametrize("at, code, why", [
    (bdf(0, 0xe), 0x010400, "Intel's VMD hides NVMe disks"),
    (bdf(0, 0x17), 0x010400, "RAID mode hides NVMe disks"),
    (bdf(0, 0x17), 0x010601, "'help' lists the options"),
    (bdf(1, 1), 0x010400, "RAID mode hides NVMe disks")])
def test_a_disk_that_is_hidden(m, at, code, why):
    functions = {**pc(), at: function(cls=code)}
    functions.pop(bdf(2, 0))
    done = Choice(m, functions, "class=0108")
    assert done.errors[0].startswith(
        "assign=class=0108: no such function; " + why)


def test_strict_groups(m):
    done = Choice(m, pc(), "00:1f.6", strict=True)
    assert done.errors[0].startswith(
        "assign: 00:1f.6 cannot be isolated from 00:1f.3; assign these")
    # One that stands alone before it does not excuse it.
    done = Choice(m, pc(), "00:14.0", "00:1f.6", strict=True)
    assert "00:1f.6 cannot be isolated" in done.errors[0]


# Classes as the issue of a keyboard that nobody had taught: an allow list
GIVEN = [0x010400, 0x010601, 0x010802, 0x020000, 0x028000, 0x030000, 0x038000,
         0x040100, 0x040300, 0x080501, 0x0c0330, 0x0c0340]
NOT_GIVEN = [0x040000, 0x048000, 0x050000, 0x058000, 0x070002, 0x078000,
             0x080501 - 0x100, 0x088000, 0x0c0500, 0x0c8000, 0x108000,
             0x118000, 0x120000, 0x130000, 0xff0000, 0x000000]


def test_all_is_an_allow_list(m):
    functions = {bdf(0, 0): function(cls=0x060000), **{
        bdf(1, n): function(cls=c) for n, c in enumerate(GIVEN + NOT_GIVEN)},
        bdf(0, 0x16): function(cls=0x078000),
        bdf(0, 0x17): function(cls=0x078000),
        bdf(0, 1): function(TO_PCI, False, 1)}
    done = Choice(m, functions, "all")
    assert done.status == 0, done.log
    assert done.given == [bdf(0, 0x16), *(bdf(1, n)
                                          for n in range(len(GIVEN)))]
    for n, cls in enumerate(NOT_GIVEN):
        assert "assign=all: not 01:%02x.0, class %04x: it is assigned by " \
            "name only" % (len(GIVEN) + n, cls >> 8) in done.log
    assert "not 00:17.0" in done.log and "00:00.0" not in done.log
    assert {level for level, text in m.log_lines() if "by name only" in text
            } == {m.LOG_INFO}


def test_all_but_some(m):
    done = Choice(m, pc(), "all,-00:1f.3,-02:00.0")
    assert done.given == [bdf(0, 2), bdf(0, 0x14), bdf(0, 0x1f, 6),
                          bdf(1, 0)]
    for text in "00:1f.3", "02:00.0":
        assert f"not {text}" in done.log and "left out as told" in done.log
    assert {level for level, text in m.log_lines() if "as told" in text} == \
        {m.LOG_WARN}


def test_what_is_named_comes_before_all(m):
    done = Choice(m, with_lines(), "all", "00:14.0,gsi=20")
    assert done.status == 0, done.log
    assert done.given[0] == bdf(0, 0x14) and done.machine.functions[0].has_gsi
    assert done.machine.named == 1
    assert sorted(done.given) == sorted(set(done.given))


def test_all_of_more_than_there_is_room_for(m):
    functions = {bdf(0, 0): function(cls=0x060000), **{
        bdf(0, n // 8 + 1, n % 8): function(ENDPOINT, True, multi=True)
        for n in range(m.ASSIGNED_MAX + 2)}}
    done = Choice(m, functions, "all")
    assert done.status == 0 and len(done.given) == m.ASSIGNED_MAX >= 32
    assert done.log.count("is one function too many") == 2
    done = Choice(m, functions, "class=0200")
    assert "is one function too many" in done.errors[0]


def test_all_in_strict_groups_leaves_broken_ones_out(m):
    functions = pc()
    functions[bdf(0, 0x1f, 4)] = function(cls=0x0c0500)
    done = Choice(m, functions, "all", strict=True)
    assert done.status == 0, done.log
    assert done.given == [bdf(0, 2), bdf(0, 0x14), bdf(1, 0), bdf(2, 0)]
    assert "not 00:1f.3, class 0403: it cannot be isolated" in done.log
    done = Choice(m, functions, "all")
    assert bdf(0, 0x1f, 3) in done.given
    assert "assigned beside 00:1f.4 can reach their registers" in done.log


RAM, RESERVED = 1, 2


@pytest.mark.parametrize("who, base, kind, why", [
    (bdf(0, 0x14), 0x7a000000, RAM, None),      # USB: it lapses
    (bdf(1, 0), 0x7a000000, RAM, "an RMRR"),
    (bdf(1, 0), 0x7a000000, RESERVED, None),
    (bdf(1, 0), 0xe0000, RESERVED, "an RMRR")])
def test_reserved_memory_is_judged_here(m, who, base, kind, why):
    m.rmrr_of[0] = who
    m.rmrr[0] = {"base": base, "limit": base + 0xffff}
    rows = ((0, 0x8000000, RAM), (base, 0x100000, kind))
    named = Choice(m, pc(), "00:14.0" if who == bdf(0, 0x14) else "01:00.0",
                   memory=rows)
    every = Choice(m, pc(), "all", memory=rows)
    m.rmrr_of[0] = 0
    assert every.status == 0 and (who in every.given) == (why is None)
    assert (named.status == 0) == (why is None)
    assert why is None or why in named.errors[0] and why in every.log


@pytest.mark.parametrize("bar, size, given", [
    (0x7a000000, 0x10000, False), (0x78000000, 0x8000000, False),
    (0xf7000000, 0x10000, True), (0, 0x10000, True)])
@pytest.mark.parametrize("vtd, words", [
    (True, ["01:00.0"]), (True, ["all"]), (True, []), (False, [])])
def test_a_bar_where_there_is_ram_is_not_given(m, vtd, words, bar, size,
                                               given):
    """There, memory answers the guest: another's. A display, too."""
    functions = pc()
    del functions[bdf(0, 2)]
    f = functions[bdf(1, 0)] = function(ENDPOINT, cls=0x030000)
    f.bar(0, bar, 2**32 - size)
    done = Choice(m, functions, *words, vtd=vtd, memory=(
        (0, 0x8000000, RAM), (0x7a000000, 0x100000, RAM)))
    assert (bdf(1, 0) in done.given) == given, done.log
    assert given or "01:00.0" in done.log and \
        "has a BAR where the memory map says RAM" in done.log


@pytest.mark.parametrize("interface, given", [
    (0x80, False), (0x8a, False), (0x81, False), (0x84, False), (0x85, True),
    (0x8f, True)])
def test_ide_at_the_ports_of_isa_is_not_given(m, interface, given):
    """Nobody opens them for it, and lines 14 and 15 are no INTx."""
    functions = pc()
    functions[bdf(0, 0x1f, 2)] = function(cls=0x010100 | interface)
    done = Choice(m, functions, "all")
    assert done.status == 0
    assert (bdf(0, 0x1f, 2) in done.given) == given
    assert given != ("00:1f.2, class 0101: it is in IDE's" in done.log)


def test_a_display_is_chosen_by_the_same_rules(m):
    """It needs a unit, shares no memory, and -BB:DD.F holds for it."""
    card = pc()
    del card[bdf(0, 2)]
    card[bdf(1, 0)] = function(ENDPOINT, cls=0x030000)
    two = {**card, bdf(2, 0): function(ENDPOINT, cls=0x038000)}
    assert Choice(m, card).given == [bdf(1, 0)]
    for words in [], ["all"]:
        m.no_unit[0] = bdf(1, 0)
        done = Choice(m, card, *words)
        assert done.status == 0 and done.machine.display == m.NULL
        assert "display: not 01:00.0: it is behind no IOMMU" in done.log
        done = Choice(m, two, *words)
        m.no_unit[0] = 2**64 - 1
        assert done.machine.display.bdf == bdf(2, 0)
    m.rmrr_of[0] = bdf(1, 0)
    m.rmrr[0] = {"base": 0x1000000, "limit": 0x100ffff}
    done = Choice(m, card, memory=((0, 0x8000000, RAM),))
    m.rmrr_of[0] = 0
    assert done.given == [] and "not 01:00.0: it shares memory" in done.log
    assert bdf(1, 0) not in Choice(m, card, "all,-01:00.0").given


@pytest.mark.parametrize("words, given", [
    ([], []), (["00:02.0"], [bdf(0, 2)])])
def test_no_vga_keeps_the_display(m, words, given):
    """A card that is named is given, as any other function is."""
    done = Choice(m, pc(), *words, no_vga=True)
    assert done.status == 0 and done.given == given
    assert done.machine.display == m.NULL and not done.machine.vga
    assert "display: none is assigned" in done.log


@pytest.mark.parametrize("cls, vga", [(0x030000, True), (0x030200, False),
                                      (0x038000, False)])
def test_a_vga_card_has_legacy_vga(m, cls, vga):
    """PCI Code and ID Assignment 1.4: the sub-class says who decodes it."""
    functions = pc()
    functions[bdf(0, 2)] = function(cls=cls)
    done = Choice(m, functions)
    assert done.machine.display.bdf == bdf(0, 2)
    assert done.machine.vga == vga


def test_a_display_needs_room_too(m):
    functions = {bdf(0, 0): function(cls=0x060000),
                 bdf(0, 30): function(cls=0x030000), **{
        bdf(0, n // 8 + 1, n % 8): function(ENDPOINT, True, multi=True)
        for n in range(m.ASSIGNED_MAX)}}
    done = Choice(m, functions, "all,-00:1e.0")
    assert done.status == 0 and len(done.given) == m.ASSIGNED_MAX
    done = Choice(m, functions, "class=0200")
    assert done.status == 0 and len(done.given) == m.ASSIGNED_MAX
    assert done.machine.display == m.NULL


def with_lines():
    """The PCH device at line 20 and another function's note of line 19."""
    out = pc()
    out[bdf(0, 0x14)].put(0x3d, 1, 1)
    out[bdf(0, 0x1f, 6)].put(0x3c, 2, 0x0213)
    return out


@pytest.mark.parametrize("word, gsi", [
    ("00:14.0,gsi=20", 20), ("8086:a12f,gsi=7", 7), ("class=0c03,gsi=23", 23)])
def test_a_line_is_named(m, word, gsi):
    done = Choice(m, with_lines(), word)
    assert done.status == 0, done.log
    given = done.machine.functions[0]
    assert (given.function.bdf, given.has_gsi, given.gsi) == (
        bdf(0, 0x14), True, gsi)
    assert not done.machine.functions[1].has_gsi     # the display


@pytest.mark.parametrize("who", [bdf(0, 0), bdf(0, 0x1f, 3), bdf(2, 0)])
def test_whoever_notes_a_line_has_it(m, who):
    """From the first function to the last; firmware's note is a byte."""
    functions = with_lines()
    functions[who].put(0x3c, 2, 0x0116)
    done = Choice(m, functions, "00:14.0,gsi=22")
    assert "another function's Interrupt Line register" in done.errors[0]
    assert Choice(m, functions, "00:14.0,gsi=23").status == 0
    # Its own note is no objection.
    functions[bdf(0, 0x14)].put(0x3c, 1, 23)
    assert Choice(m, functions, "00:14.0,gsi=23").status == 0


def test_a_line_that_a_function_without_a_pin_notes_is_nobodys(m):
    """PCI 3.0, 6.2.4: the register then means nothing."""
    functions = with_lines()
    functions[bdf(0, 0x1f, 6)].put(0x3c, 2, 0x0013)
    assert Choice(m, functions, "00:14.0,gsi=19").status == 0


@pytest.mark.parametrize("words, why", [
    (["00:14.0,gsi=24"], "names no pin of an I/O APIC"),
    *((["00:14.0,gsi=%d" % line], "that Monocle, the chipset or another")
      for line in (1, 2, 4, 9, 12)),
    (["00:14.0,gsi=19"], "another function's Interrupt Line register"),
    (["00:14.0,gsi=20", "00:1f.6,gsi=20", "00:1f.3"],
     "00:1f.6 gsi= names a line that Monocle, the chipset or another"),
    (["01:00.0,gsi=20"], "raises no INTx"),
    *((["00:14.0" + tail], "behind it ,gsi=N") for tail in (
        ",", ",gsi", ",gsi=", ",gsi=x", ",gsi=1x", ",gsi=1000", ",irq=3",
        ",gsi=3,gsi=4"))])
def test_lines_that_are_refused(m, words, why):
    done = Choice(m, with_lines(), *words)
    assert done.status < 0 and why in done.errors[0]


def test_a_line_that_cannot_be_held_back_has_to_be_named(m):
    """PCI before 2.3 has no Interrupt Disable."""
    functions = with_lines()
    assert Choice(m, functions, "00:14.0").status == 0
    functions[bdf(0, 0x14)].writable[5] = 0
    done = Choice(m, functions, "00:14.0")
    assert "name the I/O APIC pin of its line, assign=BB:DD.F,gsi=N" in \
        done.errors[0]
    assert "not 00:14.0" in Choice(m, functions, "all").log
    for kind in 0x05, 0x11:         # but for what has messages
        functions[bdf(0, 0x14)].capabilities((0x50, kind, 0))
        assert Choice(m, functions, "00:14.0").status == 0
    # Firmware's bit is as it was; the one that holds it back is asked for.
    functions[bdf(0, 0x14)].capabilities()
    functions[bdf(0, 0x14)].writable[5] = 5
    for command in 7, 0x407:
        functions[bdf(0, 0x14)].put(4, 2, command)
        assert Choice(m, functions, "00:14.0").status == 0
        assert functions[bdf(0, 0x14)].read(4, 2) == command


def test_a_group_is_listed(m):
    functions = pc(acs=False)
    functions[bdf(1, 0, 1)] = function(ENDPOINT)
    functions[bdf(1, 0)].put(0xe, 1, 0x80)
    done = Choice(m, functions, "02:00.0", strict=True)
    assert "02:00.0 cannot be isolated from 01:00.0 01:00.1; assign these" \
        in done.errors[0]
    done = Choice(m, functions, "02:00.0", "01:00.1", "01:00.0", strict=True)
    assert done.status == 0
    assert set(done.ports) == {bdf(0, 0x1c), bdf(0, 0x1c, 4)}
    # Without ECAM, ACS cannot be seen.
    done = Choice(m, pc(), "01:00.0", ecam=False, strict=True)
    assert "cannot be isolated from 02:00.0;" in done.errors[0]


def test_a_long_list_is_one_line(m):
    functions = {bdf(0, 0): function(cls=0x060000),
                 bdf(0, 1): function(TO_PCI, False, 1),
                 **{bdf(1, n): function() for n in range(20)}}
    done = Choice(m, functions, "01:05.0", strict=True)
    assert "from 01:00.0 01:01.0" in done.errors[0]
    assert len(done.errors[0]) < 200


def test_behind_switches_every_port_is_shown(m):
    functions = {bdf(0, 0): function(cls=0x060000),
                 bdf(0, 1): function(ROOT, True, 1),
                 bdf(1, 0): function(UP, False, 2),
                 bdf(2, 3): function(DOWN, True, 3),
                 bdf(2, 4): function(DOWN, True, 4),
                 bdf(3, 0): function(ENDPOINT), bdf(4, 0): function(ENDPOINT)}
    done = Choice(m, functions, "03:00.0")
    assert set(done.ports) == {bdf(0, 1), bdf(1, 0), bdf(2, 3)}


def test_a_cardbus_bridge_is_not_shown(m):
    functions = {bdf(0, 0): function(cls=0x060000),
                 bdf(0, 3): function(None, False, 4), bdf(4, 0): function()}
    functions[bdf(0, 3)].put(0xe, 1, 2)
    done = Choice(m, functions, "04:00.0")
    assert "04:00.0 stands where a guest would not find it" in done.errors[0]
    done = Choice(m, functions, "all")
    assert done.status == 0 and "not 04:00.0" in done.log


def test_a_card_with_sound_is_a_display_only_as_a_whole(m):
    functions = {bdf(0, 0): function(cls=0x060000),
                 bdf(0, 1): function(ROOT, True, 1),
                 bdf(1, 0): function(ENDPOINT, cls=0x030000, multi=True),
                 bdf(1, 0, 1): function(ENDPOINT, cls=0x040300)}
    done = Choice(m, functions, strict=True)
    assert done.status == 0 and done.given == []
    assert done.machine.display == m.NULL
    assert "display: 01:00.0 cannot be isolated from 01:00.1;" in done.log
    done = Choice(m, functions, "01:00.0", "01:00.1")
    assert done.given == [bdf(1, 0), bdf(1, 0, 1)]
    assert done.machine.display.bdf == bdf(1, 0)
    # Without an IOMMU it gets no bus mastering, hence reaches nobody.
    done = Choice(m, functions, vtd=False)
    assert done.given == [bdf(1, 0)] and done.ports == [bdf(0, 1)]


@pytest.mark.parametrize("nth, good", [(1, False), (2, False), (3, True)])
def test_no_memory_for_a_function_s_messages(m, nth, good):
    """That of the last one, too; who asks says so."""
    m.messages[0] = nth
    done = Choice(m, pc(), "00:14.0")
    m.messages[0] = 0
    assert done.given == [bdf(0, 0x14), IGD]
    assert done.status == (0 if good else -m.ENOMEM)


@pytest.mark.parametrize("word, base, status, lines", [
    (True, 0x7b000000, 0, ["00:14.0 is left with its firmware"]),
    (True, 0x7a000000, 0, ["00:14.0 shares memory with firmware (an RMRR) "
                           "below 1 MiB or where the memory map says RAM; "
                           "leave this word out"]),
    (True, 0x7b000000, -1, ["what 00:14.0 shares with firmware (an RMRR) is "
                            "too large; leave this word out"]),
    (True, None, 0, ["no USB controller shares memory with its firmware (an "
                     "RMRR) here: all are taken from it"]),
    (False, 0x7b000000, 0, []), (False, None, 0, [])])
def test_usb_that_is_left_with_its_firmware(m, word, base, status, lines):
    functions = pc()
    functions[bdf(0, 0x15)] = function(cls=0x0c0330)
    m.rmrr_of[0] = bdf(0, 0x14) if base else 0xffff
    m.rmrr[0] = {"base": base or 0, "limit": (base or 0) + 0xffff}
    m.left_status[0] = status
    done = Choice(m, functions, "all", usb_firmware=word, memory=(
        (0, 0x8000000, RAM), (0x7a000000, 0x100000, RAM)))
    m.rmrr_of[0] = m.left_status[0] = 0
    assert [t.removeprefix("usb-firmware: ") for _, t in m.log_lines()
            if t.startswith("usb-firmware")] == lines
    left = [f.bdf for f in done.machine.pci.functions[
        0:done.machine.pci.count] if f.left]
    good = "is left" in " ".join(lines)
    assert left == ([bdf(0, 0x14)] if good else [])
    assert (done.status == 0) == ("leave this" not in " ".join(lines))
    assert done.status or (bdf(0, 0x14) in done.given) != good
    assert done.status or bdf(0, 0x15) in done.given


def test_who_is_beside_what_is_given(m):
    done = Choice(m, pc(), "00:14.0", "00:1f.6")
    beside = [f.bdf for f in done.machine.pci.functions[
        0:done.machine.pci.count] if m.assigned_is_beside(done.machine, m.ffi
                                                           .addressof(f))]
    assert beside == [bdf(0, 0x1f, 3)]
    done = Choice(m, pc(), "00:1f.6", "00:14.0")
    assert m.assigned_is_beside(done.machine, m.pci_find(done.machine.pci,
                                                         bdf(0, 0x1f, 3)))


def test_no_unit_and_no_iommu(m):
    m.no_unit[0] = bdf(0, 0x14)
    done = Choice(m, pc(), "00:14.0")
    m.no_unit[0] = 2**64 - 1
    assert "behind no IOMMU" in done.errors[0]
    for word in "00:14.0", "all":
        assert "needs an IOMMU" in Choice(m, pc(), word, vtd=False).errors[0]


def test_more_bridges_than_there_is_room_for(m):
    """The guest would not find what is behind the last."""
    functions = {bdf(0, 0): function(cls=0x060000)}
    for n in range(m.PORTS_MAX // 2 + 1):
        bus = 1 + 2 * n
        functions[bdf(0, 1 + n // 8, n % 8)] = function(ROOT, True, bus,
                                                        multi=True)
        functions[bdf(bus, 0)] = function(TO_PCI, False, bus + 1)
        functions[bdf(bus + 1, 0)] = function()
    words = ["%02x:00.0" % (2 * n) for n in range(1, 1 + m.PORTS_MAX // 2)]
    done = Choice(m, functions, *words)
    assert done.status == 0 and len(done.ports) == m.PORTS_MAX
    done = Choice(m, functions, "class=0200")
    assert "01.0: " not in done.log and "is one too many" in done.errors[0]


# -- Intel's graphics

@pytest.fixture
def igd(m):
    m.igd_there[0] = True
    m.rmrrs[0] = 1
    yield m
    m.igd_there[0], m.igd_status[0], m.logged[0] = False, 0, 0
    m.rmrr_of[0], m.rmrrs[0] = 0, 1
    m.no_unit[0] = 2**64 - 1


IGD = bdf(0, 2)


@pytest.mark.parametrize("words", [[], ["00:14.0"], ["all"]])
def test_the_graphics_come_first_and_are_the_display(igd, words):
    functions = {bdf(0, 1): function(ROOT, True, 5),
                 bdf(5, 0): function(ENDPOINT, cls=0x030000), **pc()}
    done = Choice(igd, functions, *words, igd=1)
    assert done.status == 0, done.log
    assert done.given[0] == IGD and done.given.count(IGD) == 1
    assert done.machine.display.bdf == IGD and done.machine.vga
    assert done.machine.igd.function.bdf == IGD and igd.logged[0] == 1
    assert (bdf(5, 0) in done.given) == (words == ["all"])


@pytest.mark.parametrize("words", [["00:02.0"], ["all"], []])
def test_the_graphics_without_their_option_stay(igd, words):
    done = Choice(igd, pc(), *words)
    assert IGD not in done.given and done.machine.igd.function == igd.NULL
    assert "00:02.0" in done.log and "the option igd assigns it" in done.log
    assert (done.status == 0) == (words != ["00:02.0"])


@pytest.mark.parametrize("count", [0, 1, 8, 9])
@pytest.mark.parametrize("vtd", [True, False])
def test_the_graphics_rmrrs_are_judged(igd, vtd, count):
    """With the last byte, and all of them counted; where DMA is remapped."""
    igd.rmrr_of[0], igd.rmrrs[0] = IGD, count
    for n in range(count):
        base = 0x7b000000 + 0x100000 * n
        igd.rmrr[n] = {"base": base, "limit": base + 0x7fff}
    done = Choice(igd, pc(), igd=1, vtd=vtd)
    assert vtd or "igd: 00:02.0 needs an IOMMU" in done.errors[0]
    seen = igd.igd_seen[0]
    assert seen.rmrr_count == (count if vtd else 0)
    assert [(r.base, r.size) for r in seen.rmrr] == [
        (0x7b000000 + 0x100000 * n, 0x8000) if vtd and n < count else (0, 0)
        for n in range(8)]


HECI = "HECI: media engines, content protection"
HDA = "HDA: sound by HDMI and DisplayPort"


@pytest.mark.parametrize("at, cls, vendor, what", [
    (bdf(0, 0x16), 0x078000, 0x8086, HECI), (bdf(0, 0xf), 0x078000, 0x8086,
                                             HECI),
    (bdf(0, 0x16, 1), 0x078000, 0x8086, None),
    (bdf(0, 0x15), 0x078000, 0x8086, None),
    (bdf(0, 0x16), 0x078000, 0x1022, None),
    (bdf(0, 0x16), 0x070000, 0x8086, None),
    (bdf(0, 0x1b), 0x040100, 0x8086, HDA), (bdf(0, 0x1b), 0x040300, 0x8086,
                                            HDA),
    (bdf(0, 0x1b), 0x040300, 0x10de, None),
    (bdf(0, 0x1b), 0x048000, 0x8086, None)])
def test_what_the_graphics_driver_works_with(igd, at, cls, vendor, what):
    functions = {**pc(), at: function(cls=cls, vendor=vendor)}
    functions[bdf(0, 0x16)] = functions.get(bdf(0, 0x16), function())
    del functions[bdf(0, 0x1f, 3)]
    said = f"igd: {at >> 8:02x}:{at >> 3 & 31:02x}.{at & 7} is not assigned, " \
        f"which its driver works with ({what})"
    assert (said in Choice(igd, functions, igd=1).log) == bool(what)
    if not what:
        assert "works with" not in igd.log_text()
    igd.igd_there[0] = False
    assert "works with" not in Choice(igd, functions).log


def test_graphics_that_cannot_be_given(igd):
    igd.no_unit[0] = IGD
    done = Choice(igd, pc(), igd=1)
    assert "igd: 00:02.0 is behind no IOMMU" in done.errors[0]
    assert done.given == []
    igd.igd_status[0] = -igd.ENOTSUP
    done = Choice(igd, pc(), igd=1)
    assert done.status == -igd.ENOTSUP and done.given == []


def test_closed_is_for_any_display(m):
    done = Choice(m, pc(), igd=m.IGD_CLOSED)
    assert done.status == 0 and done.machine.igd.function == m.NULL
    assert done.given == [IGD]
    functions = pc()
    del functions[IGD]
    done = Choice(m, functions, igd=m.IGD_CLOSED)
    assert done.status == -m.ENODEV and "there is no display" in done.errors[0]
    assert Choice(m, functions).status == 0


# -- what of it stands in the guest's memory map

def regions(done):
    """(gpa, size, kind, CPU's rights, DMA's, E820) of each, 1:1 or none."""
    m, vm = done.m, done.machine.vm
    found = []
    for r in vm.map.regions[0:vm.map.count]:
        assert r.kind == m.REGION_HOLE or r.hpa == r.gpa
        found.append((r.gpa, r.size, r.kind, r.cpu, r.dma, r.e820))
    return found


MIB, PAGE = 2**20, 2**12


@pytest.mark.parametrize("cls, option, rights", [
    (0x030000, 0, 3), (0x030000, 2, 0), (0x038000, 0, None)])
def test_the_displays_windows(igd, cls, option, rights):
    """Legacy VGA is the display's, closed for the CPU, or a hole."""
    igd.igd_there[0] = False
    functions = pc()
    functions[IGD] = function(cls=cls)
    assert igd.IGD_CLOSED == 2
    done = Choice(igd, functions, igd=option)
    vm = done.machine.vm
    assert igd.assigned_regions(done.machine, vm_map(igd, vm)) == 0
    vga, bar = regions(done)
    assert vga[:2] == (0xa0000, 0x20000) and bar[0] == 2**30
    if rights is None:
        assert vga[2:] == (igd.REGION_HOLE, 0, 0, igd.E820_RESERVED)
    else:
        assert vga[2:] == (igd.REGION_DEVICE, rights, 0, igd.E820_NONE)
    # As it opens again, whatever the CPU has now.
    open_ = vm.windows.regions[0:vm.windows.count]
    assert [(r.gpa, r.size, r.cpu) for r in open_] == (
        [] if rights is None else [(0xa0000, 0x20000, 3)])


def vm_map(m, vm):
    return m.ffi.addressof(vm, "map")


@pytest.mark.parametrize("option", ["IGD_OPEN", "IGD_CLOSED"])
def test_the_graphics_memory_is_a_window(igd, option):
    done = Choice(igd, pc(), igd=getattr(igd, option))
    vm = done.machine.vm
    assert igd.assigned_regions(done.machine, vm_map(igd, vm)) == 0
    rights = 3 if option == "IGD_OPEN" else 0
    assert [r[:4] for r in regions(done)][:2] == [
        (0xa0000, 0x20000, igd.REGION_DEVICE, rights),
        (0x8000000, MIB, igd.REGION_DEVICE, rights)]
    assert [r.cpu for r in vm.windows.regions[0:vm.windows.count]] == [3, 3]


@pytest.mark.parametrize("vtd", [True, False])
def test_memory_that_firmware_shares_is_there_for_dma_alone(igd, vtd):
    """Whole pages, with the one of the last byte; each RMRR of each function;
    a hole for the CPU that the guest's E820 has as reserved."""
    igd.igd_there[0] = False
    igd.rmrr_of[0], igd.rmrrs[0] = bdf(1, 0), 2
    igd.rmrr[0] = {"base": 0x7a000800, "limit": 0x7a001000}
    igd.rmrr[1] = {"base": 0x7b000000, "limit": 0x7b000fff}
    done = Choice(igd, pc(), "00:14.0", "01:00.0")
    if not vtd:
        done.machine.vtd = igd.NULL
    vm = done.machine.vm
    assert igd.assigned_regions(done.machine, vm_map(igd, vm)) == 0
    assert [r for r in regions(done) if r[5] != igd.E820_NONE] == ([
        (at, size, igd.REGION_DEVICE, 0, 3, igd.E820_RESERVED)
        for at, size in ((0x7a000000, 2 * PAGE), (0x7b000000, PAGE))]
        if vtd else [])


@pytest.mark.parametrize("at, more, fails, bars", [
    (0xa0000, 0, True, False), (0x8000000, 0, True, False),
    # An RMRR goes over what is there, but needs room in the list.
    (0x7a000000, 0, False, True), (0x60000000, 2, True, False),
    (2**30, 0, True, True)])
@pytest.mark.parametrize("vga", [True, False])
def test_what_has_no_room_in_the_map_is_an_error(igd, at, more, fails, bars,
                                                 vga):
    """Each step's, and the last one that is taken."""
    igd.rmrr_of[0] = bdf(1, 0)
    igd.rmrr[0] = {"base": 0x7a000800, "limit": 0x7a001000}
    done = Choice(igd, pc(), "01:00.0", igd=1)
    done.machine.vga = vga
    map_ = vm_map(igd, done.machine.vm)
    keep = igd.new("char[]", b"there")
    for n in range(igd.REGION_MAX - more if more else 1):
        r = igd.new("struct region *", {
            "gpa": at + n * 2 * PAGE, "hpa": 2**31 + at, "size": PAGE,
            "cpu": 7, "name": keep})
        assert igd.region_add(map_, r, igd.NULL) == 0
    igd.pins_bars[0] = False
    assert (igd.assigned_regions(done.machine, map_) < 0) == fails
    assert igd.pins_bars[0] == bars
