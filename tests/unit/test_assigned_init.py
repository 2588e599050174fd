# SPDX-License-Identifier: MIT
"""Assigned functions at their first start: decoders and interrupt lines."""

import pytest

import harness
from pcihost import (AF, AF_FLR, BAR, DOWN, ENDPOINT, EXPRESS, FLR, MS, ROOT,
                     TO_PCI, UP, Device, Machine, bdf, function)

FAKES = """
#include "tests/unit/assign_fakes.h"
#include "tests/unit/fakes.h"
#include "arch/x86/errno.h"
struct assignment *fresh_assignment(void) { return empty_assignment(); }
/* What was done, in order: in capitals what fails when told so. */
char steps[64], failing[1];
static int step(char c)
{
	if (strlen(steps) < sizeof(steps) - 1)
		steps[strlen(steps)] = c;
	return failing[0] == c ? -EBUSY : 0;
}
void *phys_to_virt(hpa_t hpa) { return (void *)hpa; }
volatile void *mmio_map(hpa_t hpa, u64 size)
{ (void)hpa; (void)size; return NULL; }
const struct pci_policy_row *igd_policy(const struct igd *g, unsigned *n)
{
	static const struct pci_policy_row row = {0xfc, 0xfc, PCI_HIDDEN};
	(void)g;
	*n = 1;
	return &row;
}
void assigned_timer_fired(void *m, u64 now) { (void)m; (void)now; step('t'); }
void assigned_line_eoi(void *m, unsigned p) { (void)m; (void)p; step('e'); }
void assigned_pin_routed(void *m, unsigned p) { (void)m; (void)p; step('r'); }
u32 igd_forcewake(const struct igd *g, u32 *ack)
{ *ack = 2; return g->generation < 6 ? 0 : 1; }
bool assigned_is_direct(const struct assignment *m, const struct pci_function *f)
{ (void)m; (void)f; return false; }
bool assigned_stats(void *m, unsigned n, struct device_stats *out)
{ (void)m; (void)n; (void)out; return step('s'); }
int vtd_assign(struct vtd *v, struct vtd_domain *d, bdf_t b)
{ (void)v; (void)d; (void)b; return step('D'); }
void assigned_irq_off(struct assigned *a) { (void)a; }
void assigned_interrupts_changed(void *a)
{
	struct assigned *x = a;

	fakes_record(FAKE_OTHER, 0, 0, pci_assigned_intx(&x->config));
}
void assigned_stats_reset(struct assigned *a) { (void)a; step('n'); }
int assigned_line_init(struct assigned *a) { (void)a; return step('I'); }
void assigned_irq_reset(struct assigned *a) { (void)a; step('o'); }
unsigned tables_cleared[1];
void assigned_msix_reset(struct assigned *a) { (void)a; tables_cleared[0]++; }
void assigned_bar_changed(void *a, unsigned i)
{
	struct assigned *x = a;

	fakes_record(FAKE_OTHER, 1 + i, 0, x->config.decoded[i]);
}
void assigned_place_bars(struct assignment *m) { (void)m; step('b'); }
bool asleep[32];
unsigned beside[1] = {~0u}, card[1] = {~0u};
void pci_take_over(const struct pci_host *p, struct pci_function *f, u64 hz)
{ (void)p; (void)hz; f->taken_over = true; step('k'); }
void pci_route_usb_ports(const struct pci_host *p, const struct pci_function *f)
{ (void)p; fakes_record(FAKE_OTHER, f->bdf, 7, 0); }
bool assigned_is_beside(const struct assignment *m, const struct pci_function *f)
{ (void)m; return f->bdf == card[0] || (f->bdf >> 3 == beside[0] && f->bdf & 7); }
"""
# In place of drivers/pci/reset.c
RESETS = """
unsigned kept[32], resets[1];
void pci_save(const struct pci_host *p, const struct pci_function *f,
	      struct pci_saved *s)
{
	(void)s;
	/* In time, and without bus mastering: 1 */
	kept[f->bdf >> 3 & 31] += resets[0] ||
		pci_config_read(p, f->bdf, 4, 2) & PCI_COMMAND_MASTER ? 100 : 1;
}
int pci_reset_function(const struct pci_host *p, const struct pci_function *f,
	bool bus, u64 hz)
{
	(void)hz;
	resets[0]++;
	step('R');
	fakes_record(FAKE_OTHER, f->bdf, bus, pci_config_read(p, f->bdf, 4, 2));
	return 0;
}
enum pci_reset pci_reset_method(const struct pci_host *p, bdf_t b)
{ (void)p; (void)b; return PCI_RESET_NONE; }
const char *pci_reset_name(enum pci_reset method)
{ (void)method; return "by no means"; }
unsigned saved[1];
void pci_save_graphics(struct pci_host *p, const struct pci_function *f,
	u32 wake, u32 ack, u64 hz)
{ (void)p, (void)f, (void)hz; saved[0] += wake == 1 && ack == 2; }
void pci_wake(const struct pci_host *p, const struct pci_function *f, u64 hz)
{
	(void)p, (void)f, (void)hz;
	step('w');
}
void pci_sleep(const struct pci_host *p, bdf_t b)
{ (void)p; asleep[b >> 3 & 31] = true; }
void pci_reset_begin(const struct pci_host *p, const struct pci_function *f,
	enum pci_reset method)
{ (void)p, (void)f, (void)method; }
int pci_reset_finish(const struct pci_host *p, const struct pci_saved *saved)
{ (void)p, (void)saved; return 0; }
"""
SOURCES = ["vmm/assign/assigned.c", "vmm/assign/assign_word.c",
           "vmm/core/vclock.c", "vmm/core/bus.c",
           "drivers/pci/config.c", "drivers/pci/scan.c",
           "drivers/pci/groups.c", "drivers/pci/acs.c",
           "vmm/devmodel/pci_bus.c", "vmm/devmodel/pci_port.c",
           "vmm/devmodel/pci_assigned.c"]
CDEF = ("struct assignment *fresh_assignment(void); extern bool asleep[32];"
        "extern unsigned beside[1], card[1], tables_cleared[1];"
        "extern char steps[64], failing[1];")


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "assigned_init", SOURCES,
        headers=["tests/unit/assign_fakes.h", "kernel/log.h"],
        fakes=FAKES + RESETS,
        cdef=CDEF + "extern unsigned kept[32], resets[1], saved[1];")


def init(m, functions, chosen, bars=(), prepare=lambda machine: None):
    """The machine after assigned_init(), and what was written to the host."""
    m.reset()
    m.ffi.memmove(m.steps, bytes(64), 64)
    x, machine = Machine(m, functions, True), m.fresh_assignment()
    host = machine.pci
    host[0] = x.host[0]
    m.pci_scan(host)
    found = m.pci_find(host, chosen)
    for i, bar in enumerate(bars):
        found.bars[i] = dict(zip(("base", "size", "io"), bar))
    machine.count = 1
    machine.functions[0].all, machine.functions[0].function = machine, found
    bus = m.ffi.addressof(machine.vm[0], "bus")
    assert m.vpci_init(machine.vpci, bus) == 0
    prepare(machine)
    assert m.assigned_init(machine) == 0
    return machine, [w for w in x.writes if w[0] == chosen]


@pytest.mark.parametrize("where, pin, line", [
    (bdf(0, 5), 1, 17), (bdf(0, 5), 4, 16), (bdf(0, 6), 2, 19),
    # Behind 00:1c.0 (line 0 of its INTA), device 0 and device 3 of the bus
    (bdf(1, 0), 1, 16), (bdf(1, 0), 2, 17), (bdf(1, 3), 1, 19),
    # Two bridges more: 4 + 2 + 28 and the pin
    (bdf(3, 4), 1, 18), (bdf(3, 4), 3, 16), (bdf(0, 5), 0, 0),
    # None: firmware's byte means no pin.
    (bdf(0, 5), 5, 0), (bdf(0, 5), 255, 0)])
def test_the_line_of_a_pin(m, where, pin, line):
    functions = {bdf(0, 0x1c): function(ROOT, True, 1),
                 bdf(1, 0): function(UP, False, 2),
                 bdf(2, 2): function(DOWN, True, 3),
                 where: function(ENDPOINT)}
    functions[where].put(0x3d, 1, pin)
    machine, _ = init(m, functions, where)
    assert machine.functions[0].line == line
    assert m.vpci_read(machine.vpci, where, 0x3d, 1) == (pin if line else 0)


MEMORY, SMALL, PORTS = (0xf0000000, 0x10000), (0xf0010000, 64), (0xc000, 32, 1)


@pytest.mark.parametrize("bars, command, on", [
    ((MEMORY, PORTS), 0, 3), ((MEMORY,), 0, 2), ((PORTS,), 0, 1),
    ((SMALL,), 0x400, 0x402), ((MEMORY, PORTS), 3, None),
    (((0, 0),) * 5 + (PORTS,), 0, 1),       # the last one
    # An address that is missing would be address 0.
    ((MEMORY, (0, 0x1000)), 0, None), ((MEMORY, (0, 32, 1)), 0, 2), ((), 0,
                                                                   None)])
def test_decoders_that_firmware_left_off(m, bars, command, on):
    f = function(TO_PCI)
    f.put(4, 2, command)
    machine, writes = init(m, {bdf(0, 5): f}, bdf(0, 5), bars)
    assert writes == ([] if on is None else [(bdf(0, 5), 4, 2, on)])
    # The guest sees what firmware has left.
    vpci = machine.vpci
    assert m.vpci_read(vpci, bdf(0, 5), 4, 2) == command & 3


@pytest.mark.parametrize("display, iommu, left, kept", [
    (True, True, 7, 7), (True, True, 3, 3), (False, True, 7, 3),
    (True, False, 7, 3)])
def test_a_picture_keeps_its_dma(m, display, iommu, left, kept):
    """As firmware had it, whatever a guest wrote; not past an IOMMU."""
    f, where = function(ENDPOINT, cls=VGA), bdf(0, 2)
    f.put(4, 2, left)
    _, machine = assigned(m, {where: f}, [where])
    if display:
        machine.display = machine.functions[0].function
    if not iommu:
        machine.domain = m.NULL
    bus = m.ffi.addressof(machine.vm[0], "bus")
    assert m.vpci_init(machine.vpci, bus) == 0
    assert m.assigned_init(machine) == 0
    for guest in (0, 7):
        m.vpci_write(machine.vpci, where, 4, 2, guest)
        m.assigned_reset_all(machine, False)
        m.vpci_reset(machine.vpci)
        assert f.read(4, 2) == kept
        assert m.vpci_read(machine.vpci, where, 4, 2) == kept & 7


USB, SMBUS, VGA = 0x0c0330, 0x0c0500, 0x030000


@pytest.mark.parametrize("cls, command, asleep", [
    # What firmware, or the log, may need keeps its registers.
    (USB, 0x400, True), (SMBUS, 0x403, False), (VGA, 0x403, False)])
def test_what_is_beside_rests(m, cls, command, asleep):
    f = function(ENDPOINT, cls=cls)
    f.put(4, 2, 7)
    m.reset()
    x = Machine(m, {bdf(0, 5): function(ENDPOINT, multi=True),
                    bdf(0, 5, 1): f, bdf(0, 6): function(ENDPOINT)}, True)
    machine = m.fresh_assignment()
    machine.pci[0] = x.host[0]
    m.pci_scan(machine.pci)
    machine.domain = m.new("struct vtd_domain *")
    m.beside[0], m.asleep[5] = 5, False
    bus = m.ffi.addressof(machine.vm[0], "bus")
    assert m.vpci_init(machine.vpci, bus) == 0
    assert m.assigned_init(machine) == 0
    assert f.read(4, 2) == command and m.asleep[5] == asleep
    # A reset of the bus wakes it.
    f.put(4, 2, 7)
    m.asleep[5] = False
    m.assigned_reset_all(machine, False)
    assert f.read(4, 2) == command and m.asleep[5] == asleep
    m.beside[0] = 2**32 - 1
    assert x.functions[bdf(0, 6)].read(4, 2) == 7


@pytest.mark.parametrize("vtd", [True, False])
def test_every_usb_controller_is_taken_over(m, vtd):
    """The rest lose their DMA; without an IOMMU they keep it."""
    m.reset()
    m.ffi.memmove(m.steps, bytes(64), 64)
    x = Machine(m, {bdf(0, 0x14): function(cls=USB),
                    bdf(0, 0x1a): function(cls=SMBUS),
                    bdf(0, 0x1b): function(cls=USB)}, True)
    machine = m.fresh_assignment()
    pci = machine.pci
    pci[0] = x.host[0]
    if not vtd:
        machine.vtd = m.NULL
    m.pci_scan(pci)
    machine.count = 1
    machine.functions[0].function = m.ffi.addressof(pci.functions[0])
    m.assigned_take_over(machine)
    assert [f.taken_over for f in pci.functions[0:3]] == [
        True, False, vtd]
    # Awake, for its registers have to answer.
    assert m.string(m.steps) == ("wkk" if vtd else "wk")


@pytest.mark.parametrize("generation, saves", [(0, 0), (5, 0), (9, 1)])
def test_registers_of_graphics_are_saved_before_the_guest(m, generation, saves):
    """Of those that are given, once; of generation 5 none are known."""
    _, machine = assigned(m, {bdf(0, 2): function(cls=VGA)}, [bdf(0, 2)])
    machine.igd.generation = generation
    if generation:
        machine.igd.function = machine.functions[0].function
    m.saved[0] = 0
    m.assigned_take_over(machine)
    m.assigned_reset_all(machine, True)
    assert m.saved[0] == saves


def assigned(m, functions, chosen):
    m.reset()
    x, machine = Machine(m, functions, True), m.fresh_assignment()
    machine.pci[0] = x.host[0]
    m.pci_scan(machine.pci)
    machine.domain = m.new("struct vtd_domain *")
    m.beside[0] = 2**32 - 1
    machine.count = len(chosen)
    for n, at in enumerate(chosen):
        machine.functions[n].all = machine
        machine.functions[n].function = m.pci_find(machine.pci, at)
    m.clear_events()
    return x, machine


def resets(m):
    """(function, whether its whole bus may be reset) of each."""
    return [(e.addr, bool(e.size)) for e in m.events("other") if e.size < 2]


def test_ports_of_usb_are_routed_after_each_reset(m):
    _, machine = assigned(m, {bdf(0, 0x14): function(cls=USB)}, [bdf(0, 0x14)])
    for _ in range(2):
        m.assigned_reset_all(machine, False)
    assert [e.size for e in m.events("other")] == [1, 7, 1, 7]


@pytest.mark.parametrize("display", [True, False])
def test_bus_mastering_is_off_at_a_reset(m, display):
    """What is still on could write into what the next guest has. The display
    that is not reset may scan its picture out of memory."""
    functions = {bdf(0, slot): function(ENDPOINT) for slot in (2, 5, 6)}
    for f in functions.values():
        f.put(4, 2, 7)
    _, machine = assigned(m, functions, [bdf(0, 2), bdf(0, 5)])
    machine.display = machine.functions[0].function
    machine.functions[0].config.initial_command = 7
    m.assigned_reset_all(machine, display)
    assert [f.read(4, 2) for f in functions.values()] == [
        3 if display else 7, 3, 7]
    assert [(e.addr, e.value) for e in m.events("other") if e.size < 2] == \
        [(bdf(0, 2), 3)] * display + [(bdf(0, 5), 3)]


def test_what_a_reset_brings_back_is_of_before_the_first(m):
    """Of all functions, without bus mastering, once."""
    functions = {bdf(0, slot): function(ENDPOINT) for slot in (2, 5)}
    for f in functions.values():
        f.put(4, 2, 7)
    m.kept[2] = m.kept[5] = m.resets[0] = 0
    _, machine = assigned(m, functions, functions)
    for _ in range(2):
        m.assigned_reset_all(machine, True)
    assert m.resets[0] == 4 and m.kept[2] == m.kept[5] == 1
    assert all(f.function.saved == m.ffi.addressof(f, "saved")
               for f in machine.functions[0:2])


def test_all_is_silent_before_the_first_is_reset(m):
    """Each one's interrupts, too; and its counts begin anew."""
    functions = {bdf(0, slot): function(ENDPOINT) for slot in (5, 6)}
    _, machine = assigned(m, functions, [bdf(0, 5), bdf(0, 6)])
    m.ffi.memmove(m.steps, bytes(64), 64)
    m.assigned_reset_all(machine, True)
    assert m.string(m.steps) == "ononRR"


def test_without_an_iommu_what_is_beside_goes_on(m):
    """It is firmware's, or another system's."""
    f = function(ENDPOINT, cls=USB)
    f.put(4, 2, 7)
    _, machine = assigned(m, {bdf(0, 5): function(ENDPOINT, multi=True),
                              bdf(0, 5, 1): f}, [bdf(0, 5)])
    machine.domain = m.NULL
    m.beside[0], m.asleep[5] = 5, False
    m.assigned_reset_all(machine, True)
    m.beside[0] = 2**32 - 1
    assert f.read(4, 2) == 7 and not m.asleep[5]


def test_isolation_is_switched_on_again_after_a_reset(m):
    """A reset may have switched ACS off (PCIe 6.12.1)."""
    functions = {bdf(0, 1): function(ROOT, True, 1),
                 bdf(1, 0): function(ENDPOINT)}
    _, machine = assigned(m, functions, [bdf(1, 0)])
    m.assigned_reset_all(machine, True)
    assert functions[bdf(0, 1)].read(0x106, 2) == 0x1d
    functions[bdf(0, 1)].put(0x106, 2, 0)
    machine.domain = m.NULL         # without an IOMMU it is firmware's
    m.assigned_reset_all(machine, True)
    assert functions[bdf(0, 1)].read(0x106, 2) == 0


@pytest.mark.parametrize("others, own", [
    ((), True), ((bdf(1, 0, 1),), False), ((bdf(1, 3),), False),
    ((bdf(2, 0),), True)])
def test_a_bus_is_reset_where_nobody_else_is_on_it(m, others, own):
    functions = {bdf(0, 1): function(ROOT, True, 1),
                 bdf(0, 2): function(ROOT, True, 2),
                 bdf(1, 0): function(ENDPOINT, multi=True)}
    functions.update({at: function(ENDPOINT) for at in others})
    _, machine = assigned(m, functions, [bdf(1, 0)])
    m.assigned_reset_all(machine, True)
    assert resets(m) == [
        (bdf(1, 0), own)]


@pytest.mark.parametrize("given, resets", [
    (True, True), (True, False), (False, True)])
def test_a_card_keeps_its_picture_when_its_sound_is_reset(m, given, resets):
    """By its bus alone: the firmware's, before the first start, or the log's
    where the card was left out."""
    functions = {bdf(0, 1): function(ROOT, True, 1),
                 bdf(1, 0): function(ENDPOINT, cls=VGA, multi=True),
                 bdf(1, 0, 1): function(ENDPOINT, cls=0x040300)}
    sound = bdf(1, 0, 1)
    _, machine = assigned(m, functions, [bdf(1, 0), sound] if given
                          else [sound])
    if given:
        machine.display = machine.functions[0].function
    else:
        m.card[0] = bdf(1, 0)
    m.assigned_reset_all(machine, resets)
    m.card[0] = 2**32 - 1
    assert [bool(e.size) for e in m.events("other")
            if e.addr == sound and e.size < 2] == [
        given and resets]


# --- Resets that the guest asks for: PCIe 6.6.2, AF ECN -----------------------

WHERE = bdf(0, 5)
NOWHERE = 2**64 - 1
HOST = """
#include "arch/x86/cpu.h"
struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	(void)leaf; (void)subleaf;
	return (struct cpuid){0};
}
"""


@pytest.fixture(scope="module")
def g():
    """With the real resets, of a real device."""
    return harness.build(
        "guest_reset", [*SOURCES, "drivers/pci/reset.c", "kernel/time.c"],
        headers=["tests/unit/assign_fakes.h", "kernel/log.h"],
        fakes=FAKES + HOST, cdef=CDEF)


class Guest:
    """A device in a guest's hands, which drives it."""

    def __init__(self, g, device=None, away=50 * MS, **fields):
        g.reset()
        g.lib.fakes_relax_ticks = MS
        self.g, self.device = g, Device(g, away=0, **fields)
        self.device.put(0x3d, 1, 1)
        self.device.put(2, 2, device or 0x1234)
        self.device.initial[2:4] = self.device.config[2:4]
        self.device.initial[0x3d] = 1
        x = Machine(g, {WHERE: self.device})
        self.all = g.fresh_assignment()
        self.all.pci[0] = x.host[0]
        self.all.tsc_hz, self.all.count = 1_000_000, 1
        g.pci_scan(self.all.pci)
        f = g.pci_find(self.all.pci, WHERE)
        f.bars[0] = {"base": BAR, "size": 4096}
        self.function = self.all.functions[0]
        self.function.all, self.function.function = self.all, f
        bus = g.ffi.addressof(self.all.vm[0], "bus")
        assert g.vpci_init(self.all.vpci, bus) == 0
        self.all.domain = g.new("struct vtd_domain *")
        g.beside[0] = 2**32 - 1
        assert g.assigned_init(self.all) == 0
        g.assigned_reset_all(self.all, True)
        self.device.resets.clear()
        self.device.away = away
        g.vpci_reset(self.all.vpci)
        self.write(4, 7, 2)
        g.clear_events()

    def read(self, at, size):
        return self.g.vpci_read(self.all.vpci, WHERE, at, size)

    def write(self, at, value, size):
        self.g.vpci_write(self.all.vpci, WHERE, at, size, value)

    def flr(self):
        """By the capability that there is, as Linux's pcie_flr() and
        pci_af_flr() do it; without one: False."""
        at = self.read(0x34, 1)
        while at and self.read(at, 1) not in (EXPRESS, AF):
            at = self.read(at + 1, 1)
        if at and self.read(at, 1) == AF:
            self.write(at + 4, 1, 1)
        elif at and self.read(at + 4, 4) & 1 << 28:
            self.write(at + 8, self.read(at + 8, 2) | 0x8000, 2)
        else:
            return False
        return True

    def told(self):
        return [(e.addr, e.value) for e in self.g.events("other")]


@pytest.mark.parametrize("fields", [{"flr": True}, {"af": True}])
def test_a_guests_reset_is_carried_out(g, fields):
    x = Guest(g, away=50 * MS, **fields)
    before, start = bytes(x.device.config), g.tsc
    x.write(0x10, 0xd0000000, 4)
    g.clear_events()
    g.tables_cleared[0] = 0
    assert x.flr()
    # The device is quiet, and the guest not held up.
    assert x.device.resets == [fields.keys() == {"af"} and AF_FLR or FLR]
    assert g.tsc - start < MS and g.tables_cleared[0] == 1
    assert x.told() == [(1, NOWHERE), (0, False)]
    # As a device that is not there (6.6.2), which nobody asks anything.
    g.clear_events()
    for at, size in ((0, 4), (4, 2), (0x34, 1), (0x48, 2), (0x3c, 4)):
        assert x.read(at, size) == 2 ** (8 * size) - 1
        x.write(at, 2 ** (8 * size) - 1, size)
    g.tsc += 99 * MS
    assert x.read(0, 4) == 0xffffffff and not g.events("in", "out")
    g.tsc += 2 * MS
    # The host's as it was, without bus mastering; the guest's as new.
    assert x.read(0, 4) == 0x12348086 and x.read(4, 2) == 0
    assert bytes(x.device.config) == \
        before[:4] + bytes((before[4] & ~4,)) + before[5:]
    # An xHCI's ports are routed anew, before the guest's INTx is on.
    assert x.read(0x10, 4) == 0 and x.told() == [(WHERE, 0), (0, True)]
    x.write(0x10, 0xd0000000, 4)
    x.write(4, 7, 2)
    assert x.told()[2:] == [(1, 0xd0000000), (0, True)]
    assert x.device.config[4] & 4 and x.flr() and len(x.device.resets) == 2


@pytest.mark.parametrize("fields, device", [
    ({"flr": True}, 0x1502), ({"af": True}, 0x1503), ({"af": True}, 0x0166),
    ({"power": True}, 0x1234), ({}, 0x1234)])
def test_a_reset_that_cannot_be_is_not_offered(g, fields, device):
    """By Linux's list of those that hang; nor one that Monocle has to do by
    other means."""
    x = Guest(g, device, **fields)
    if fields == {"flr": True}:
        assert x.read(0x34, 1) == 0x40 and x.read(0x40, 1) == EXPRESS
    assert not x.flr()
    # Nor without an announcement.
    for at in (0x48, 0x64):
        x.write(at, 0xffff, 2)
    assert x.device.resets == [] and x.read(0, 2) == 0x8086


def test_one_that_takes_its_time(g):
    """Up to PCIe's 1.1 s; then the guest finds it gone, as natively."""
    x = Guest(g, flr=True, away=700 * MS)
    assert x.flr()
    g.tsc += 699 * MS
    assert x.read(0, 4) == 0xffffffff
    g.tsc += 12 * MS
    assert x.read(0, 4) == 0x12348086
    x = Guest(g, flr=True, away=1 << 60)
    assert x.flr()
    g.tsc += 1090 * MS
    assert x.read(0, 4) == 0xffffffff and x.function.config.away
    g.tsc += 20 * MS
    assert x.read(0, 4) == 0xffffffff and not x.function.config.away


def test_a_stopped_function_does_not_reset_itself_free(g):
    x = Guest(g, flr=True)
    g.pci_assigned_stop(g.ffi.addressof(x.function, "config"))
    assert x.flr()
    g.tsc += 101 * MS
    x.write(4, 7, 2)
    assert x.read(4, 2) == 3 and not x.device.config[4] & 4


@pytest.mark.parametrize("away", [50 * MS, 600 * MS, 1 << 60])
def test_a_guests_reset_comes_to_its_end_before_the_guests(g, away):
    """Else what a device in its reset answers would be kept as its own."""
    x = Guest(g, flr=True, away=away)
    before, start = bytes(x.device.config[8:]), g.tsc
    assert x.flr()
    g.assigned_reset_all(x.all, True)
    assert g.tsc - start < 3000 * MS
    if away < 1000 * MS:
        assert bytes(x.device.config[8:]) == before
        assert x.device.resets == [FLR, FLR]


# -- what a function may do, and what is joined to it

@pytest.mark.parametrize("domain, unsafe, reaches", [
    (True, {}, True), (False, {}, False),
    (False, {"unsafe_dma": True}, False),
    (False, {"unsafe_dma": True, "iommu": 1}, False),
    (False, {"unsafe_dma": True, "iommu": 1, "ram": 1}, True)])
def test_bus_mastering_reaches_the_host_where_dma_is_confined(m, domain,
                                                              unsafe, reaches):
    """Or where somebody has said that it need not be."""
    assert (m.IOMMU_OFF, m.RAM_IDENTITY) == (1, 1)
    f = function(ENDPOINT)
    f.put(4, 2, 3)
    keep = m.new("struct vtd_domain *")

    def prepare(machine):
        machine.domain = keep if domain else m.NULL
        for name, value in unsafe.items():
            setattr(m.ffi.cast("struct options *", machine.options), name,
                    value)
    machine, _ = init(m, {bdf(0, 5): f}, bdf(0, 5), prepare=prepare)
    m.vpci_write(machine.vpci, bdf(0, 5), 4, 2, 7)
    assert f.read(4, 2) == (7 if reaches else 3)
    # A domain, if there is one, before the guest can ask for anything.
    assert m.string(m.steps) == ("DIb" if domain else "Ib")


@pytest.mark.parametrize("is_graphics", [True, False])
def test_the_graphics_rules_are_theirs_alone(m, is_graphics):
    f = function(ENDPOINT)
    f.put(0xfc, 4, 0x12345678)

    def prepare(machine):
        if is_graphics:
            machine.igd.function = machine.functions[0].function
    machine, _ = init(m, {bdf(0, 2): f}, bdf(0, 2), prepare=prepare)
    assert m.vpci_read(machine.vpci, bdf(0, 2), 0xfc, 4) == (
        0 if is_graphics else 0x12345678)


@pytest.mark.parametrize("table, rom", [(False, 0), (True, 0x8000)])
def test_what_monocle_has_of_it_is_offered(m, table, rom):
    """MSI-X if its table can be reached; a ROM as large as the copy."""
    f = function(ENDPOINT)
    f.capabilities((0x40, 0x11, 0))
    keep = m.new("u8[4096]")

    def prepare(machine):
        a = machine.functions[0]
        a.msix.host, a.rom.size = keep if table else m.NULL, rom
    machine, _ = init(m, {bdf(0, 5): f}, bdf(0, 5), prepare=prepare)
    assert m.vpci_read(machine.vpci, bdf(0, 5), 0x34, 1) == 0x40 * table
    m.vpci_write(machine.vpci, bdf(0, 5), 0x30, 4, 2**32 - 2)
    assert m.vpci_read(machine.vpci, bdf(0, 5), 0x30, 4) == -rom % 2**32


def test_each_is_joined_to_the_machine(m):
    """The timer, the EOI, the counts; and the bridges on the way to it."""
    port, bridge = bdf(0, 0x1c), function(ROOT, True, 1)
    bridge.put(0x1a, 1, 1)

    def prepare(machine):
        m.vclock_init(m.ffi.addressof(machine.vm[0], "clock"), 10**9)
        machine.port_count = 1
        machine.ports[0].function = m.pci_find(machine.pci, port)
    machine, _ = init(m, {port: bridge, bdf(1, 0): function(ENDPOINT)},
                      bdf(1, 0), prepare=prepare)
    for bus, header in (port, 1), (bdf(1, 0), 0), (bdf(1, 1), 0xff):
        assert m.vpci_read(machine.vpci, bus, 0xe, 1) == header
    assert m.vpci_read(machine.vpci, port, 0x19, 1) == 1
    vm, ioapic = machine.vm, machine.ioapic
    assert vm.device_ctx == ioapic.ctx == machine
    clock = m.ffi.addressof(vm, "clock")
    m.vtimer_set(clock, m.ffi.addressof(machine, "timer"), 5)
    m.vclock_run(clock, 5)
    ioapic.ended(ioapic.ctx, 1)
    ioapic.routed(ioapic.ctx, 1)
    vm.device_stats(vm.device_ctx, 0, m.NULL)
    assert m.string(m.steps) == "Ibters"


@pytest.mark.parametrize("step, done", [("D", "D"), ("I", "DI")])
def test_a_step_that_fails_is_the_last(m, step, done):
    m.reset()
    m.ffi.memmove(m.steps, bytes(64), 64)
    _, machine = assigned(m, {bdf(0, 5): function(ENDPOINT),
                              bdf(0, 6): function(ENDPOINT)},
                          [bdf(0, 5), bdf(0, 6)])
    bus = m.ffi.addressof(machine.vm[0], "bus")
    assert m.vpci_init(machine.vpci, bus) == 0
    m.failing[0] = step.encode()
    err = m.assigned_init(machine)
    m.failing[0] = b"\0"
    assert err == -m.EBUSY and m.string(m.steps) == done


def test_a_place_that_is_taken_is_an_error(m):
    """A bridge's, or a function's: the guest would see another."""
    for port in True, False:
        _, machine = assigned(m, {bdf(0, 1): function(ROOT, True, 1)},
                              [] if port else [bdf(0, 1)] * 2)
        bus = m.ffi.addressof(machine.vm[0], "bus")
        assert m.vpci_init(machine.vpci, bus) == 0
        machine.port_count = 2 * port
        for n in range(2 * port):
            machine.ports[n].function = m.pci_find(machine.pci, bdf(0, 1))
        assert m.assigned_init(machine) < 0


def test_one_that_attacks_gets_no_bus_mastering(m):
    """It alone, up to the reset; said once."""
    functions = {bdf(0, slot): function(ENDPOINT) for slot in (5, 6)}
    for f in functions.values():
        f.put(4, 2, 3)
    _, machine = assigned(m, functions, [bdf(0, 5), bdf(0, 6)])
    bus = m.ffi.addressof(machine.vm[0], "bus")
    assert m.vpci_init(machine.vpci, bus) == 0
    assert m.assigned_init(machine) == 0
    for _ in range(2):
        m.assigned_stopped(machine, bdf(0, 6))
    m.assigned_stopped(machine, bdf(0, 7))
    for at in functions:
        m.vpci_write(machine.vpci, at, 4, 2, 7)
    assert [f.read(4, 2) for f in functions.values()] == [7, 3]
    level, line = m.log_lines()[-1]
    assert m.log_text().count("no bus mastering") == 1
    assert level == m.LOG_WARN and "00:06.0 gets no bus mastering" in line
    m.vpci_reset(machine.vpci)
    m.vpci_write(machine.vpci, bdf(0, 6), 4, 2, 7)
    assert functions[bdf(0, 6)].read(4, 2) == 7
    m.assigned_stopped(machine, bdf(0, 6))
    assert m.log_text().count("no bus mastering") == 2


def test_a_start_can_be_compared_with_the_one_before(m):
    """A line for each; any byte of its 256 that differs is seen."""
    functions = {bdf(0, slot): function(ENDPOINT) for slot in (5, 6)}
    _, machine = assigned(m, functions, [bdf(0, 5), bdf(0, 6)])
    seen = set()
    for at in None, 0, 1, 0x7f, 0xfe, 0xff:
        if at is not None:
            functions[bdf(0, 6)].config[at] ^= 1
        m.reset()
        Machine(m, functions, True)
        m.assigned_log(machine)
        one, other = m.log_lines()
        assert one == (m.LOG_DEBUG, one[1]) and other[0] == m.LOG_DEBUG
        assert one[1].startswith("00:05.0 starts: reset by no means, ")
        assert other[1].startswith("00:06.0 starts: ")
        seen.add(one[1])
        assert other[1] not in seen
        seen.add(other[1])
    assert len(seen) == 7
