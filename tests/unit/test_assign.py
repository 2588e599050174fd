# SPDX-License-Identifier: MIT
"""What assign= words give the guest, and what is refused in one line."""

import pytest

import harness
from test_pci_groups import DOWN, ENDPOINT, ROOT, TO_PCI, UP, function
from test_pci_host import Machine, bdf

FAKES = """
#include "tests/unit/machine_fakes.h"
struct machine *fresh_machine(void) { return empty_machine(); }
/* Intel's graphics is another option: none here. */
bool igd_is_one(const struct pci_function *f) { (void)f; return false; }
int igd_probe(struct igd *g, const struct igd_input *in)
{ (void)g; (void)in; return -1; }
void igd_log(const struct igd *g) { (void)g; }
const struct dmar_entry *dmar_rmrr_of(const struct dmar_table *t,
	struct pci_host *pci, bdf_t bdf, const struct dmar_entry *e)
{ (void)t; (void)pci; (void)bdf; (void)e; return NULL; }
u64 no_unit[1] = {~0ull};
void *phys_to_virt(hpa_t hpa) { return (void *)hpa; }
int assigned_irq_init(struct assigned *a, const struct pci_host *pci)
{ (void)a; (void)pci; return 0; }
/* A PC's: the timer at pin 2, 24 pins. */
u32 host_irq_gsi(const struct acpi_madt *madt, u8 irq)
{ (void)madt; return irq ? irq : 2; }
bool host_irq_has_gsi(const struct acpi_madt *madt, u32 gsi)
{ (void)madt; return gsi < 24; }
bool vtd_has_unit(struct vtd *v, bdf_t bdf) { (void)v; return bdf != no_unit[0]; }
"""


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "assign", ["vmm/assign.c", "drivers/pci/config.c",
                   "drivers/pci/scan.c", "drivers/pci/groups.c"],
        headers=["vmm/machine.h", "kernel/log.h"], fakes=FAKES,
        cdef="extern u64 no_unit[1]; struct machine *fresh_machine(void);")


class Choice:
    """A host with these functions, and what these words choose of it."""

    def __init__(self, m, functions, *words, ecam=True, vtd=True):
        m.reset()
        self.x = Machine(m, functions, ecam)
        self.machine = m.fresh_machine()
        self.host = self.machine.host
        self.host.pci = self.x.host[0]
        m.pci_scan(m.ffi.addressof(self.host, "pci"))
        self.host.has_vtd = vtd
        self.words = [m.ffi.new("char[]", w.encode()) for w in words]
        for i, w in enumerate(words):
            self.host.options.assign[i] = {"text": self.words[i],
                                           "length": len(w)}
        self.host.options.assign_count = len(words)
        self.status = m.assigned_choose(self.machine)
        self.errors = [t for level, t in m.log_lines()
                       if level == m.LOG_ERROR]
        assert len(self.errors) == (self.status != 0)
        self.log = m.log_text()
        self.given = [a.function.bdf for a in
                      self.machine.assigned[0:self.machine.assigned_count]]
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
    # The ISA bridge in their midst is no obstacle; it is not given away.
    (["00:1f.3", "00:1f.6"], [bdf(0, 0x1f, 3), bdf(0, 0x1f, 6)], []),
    (["01:00.0"], [bdf(1, 0)], [bdf(0, 0x1c)]),
    # Function 0 has to be seen, that function 4 is found.
    (["02:00.0"], [bdf(2, 0)], [bdf(0, 0x1c, 4), bdf(0, 0x1c)])])
def test_what_is_given(m, words, given, ports):
    done = Choice(m, pc(), *words)
    assert done.status == 0, done.log
    assert done.given == [*given, bdf(0, 2)]
    assert done.machine.display_function.bdf == bdf(0, 2)
    assert sorted(done.ports) == sorted(ports)


@pytest.mark.parametrize("words, why", [
    (["00:1d.0"], "no such function"), (["1234:5678"], "no such function"),
    (["00:1f.0"], "is a bridge"), (["00:1c.0"], "is a bridge"),
    (["01:00.0", "01:00.0"], "named twice"),
    (["00:1f.6"], "00:1f.6 cannot be isolated from 00:1f.3; assign these"),
    (["0:14.0"], "write BB:DD.F"), (["00:20.0"], "write BB:DD.F"),
    (["class=xyz0"], "write BB:DD.F")])
def test_refusals(m, words, why):
    done = Choice(m, pc(), *words)
    assert done.status < 0 and why in done.errors[0]


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
    given = done.machine.assigned[0]
    assert (given.function.bdf, given.has_gsi, given.gsi) == (
        bdf(0, 0x14), True, gsi)
    assert not done.machine.assigned[1].has_gsi     # the display


@pytest.mark.parametrize("words, why", [
    (["00:14.0"], "name the I/O APIC pin of its line, assign=BB:DD.F,gsi=N"),
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


def test_a_group_is_listed(m):
    functions = pc(acs=False)
    functions[bdf(1, 0, 1)] = function(ENDPOINT)
    functions[bdf(1, 0)].put(0xe, 1, 0x80)
    done = Choice(m, functions, "02:00.0")
    assert "02:00.0 cannot be isolated from 01:00.0 01:00.1; assign these" \
        in done.errors[0]
    done = Choice(m, functions, "02:00.0", "01:00.1", "01:00.0")
    assert done.status == 0
    assert set(done.ports) == {bdf(0, 0x1c), bdf(0, 0x1c, 4)}
    # Without ECAM, ACS cannot be seen.
    done = Choice(m, pc(), "01:00.0", ecam=False)
    assert "cannot be isolated from 02:00.0;" in done.errors[0]


def test_a_long_list_is_one_line(m):
    functions = {bdf(0, 0): function(cls=0x060000),
                 bdf(0, 1): function(TO_PCI, False, 1),
                 **{bdf(1, n): function() for n in range(20)}}
    done = Choice(m, functions, "01:05.0")
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


def test_function_0_has_to_be_there(m):
    functions = {bdf(0, 0): function(cls=0x060000),
                 bdf(0, 3): function(ENDPOINT, True, multi=True),
                 bdf(0, 3, 1): function(ENDPOINT, True)}
    assert Choice(m, functions, "00:03.0").status == 0
    done = Choice(m, functions, "00:03.1")
    assert "00:03.1 by way of function 0 only" in done.errors[0]
    assert Choice(m, functions, "00:03.1", "00:03.0").status == 0


def test_a_cardbus_bridge_is_not_shown(m):
    functions = {bdf(0, 0): function(cls=0x060000),
                 bdf(0, 3): function(None, False, 4), bdf(4, 0): function()}
    functions[bdf(0, 3)].put(0xe, 1, 2)
    done = Choice(m, functions, "04:00.0")
    assert "bridge 00:03.0 cannot be shown" in done.errors[0]


def test_a_card_with_sound_is_a_display_only_as_a_whole(m):
    functions = {bdf(0, 0): function(cls=0x060000),
                 bdf(0, 1): function(ROOT, True, 1),
                 bdf(1, 0): function(ENDPOINT, cls=0x030000, multi=True),
                 bdf(1, 0, 1): function(ENDPOINT, cls=0x040300)}
    done = Choice(m, functions)
    assert done.status == 0 and done.given == []
    assert done.machine.display_function == m.NULL
    assert "display: 01:00.0 cannot be isolated from 01:00.1;" in done.log
    done = Choice(m, functions, "01:00.0", "01:00.1")
    assert done.given == [bdf(1, 0), bdf(1, 0, 1)]
    assert done.machine.display_function.bdf == bdf(1, 0)
    # Without an IOMMU it gets no bus mastering, hence reaches nobody.
    done = Choice(m, functions, vtd=False)
    assert done.given == [bdf(1, 0)] and done.ports == [bdf(0, 1)]


def test_no_unit_and_no_iommu(m):
    m.no_unit[0] = bdf(0, 0x14)
    done = Choice(m, pc(), "00:14.0")
    m.no_unit[0] = 2**64 - 1
    assert "behind no IOMMU" in done.errors[0]
    assert "needs an IOMMU" in Choice(m, pc(), "00:14.0",
                                      vtd=False).errors[0]
