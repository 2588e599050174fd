# SPDX-License-Identifier: MIT
"""Intel's graphics, judged from images of configuration space.

The expectations come from the table of facts in docs/igd.md and from what
drivers do with the same registers, not from the C code's tables.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from igd import config as paper

KIB, MIB, GIB, PAGE = 1 << 10, 1 << 20, 1 << 30, 1 << 12
AVAILABLE, RESERVED, ACPI, NVS, BAD = 1, 2, 3, 4, 5
BRIDGE, IGD = 0, 0x10
WINDOW = 0x8ac00000         # where the test's firmware memory lies
WINDOW_SIZE = 0x80000
OPREGION = 0x8ac18018       # as firmware often has it: not page-aligned
TOLUD = 0x90000000

FAKES = """
#include <stdlib.h>
#include "drivers/pci/pci.h"
#include "kernel/phys.h"
u8 config[65536][256];
u8 window[0x82000];
static u8 nothing[0x2000];
u64 looked_at, window_base;
volatile void *mmio_map(hpa_t hpa, u64 size)
{
	(void)size;
	return (volatile void *)hpa;
}
void *phys_to_virt(hpa_t hpa)
{
	looked_at = hpa;
	if (hpa - window_base >= 0x80000)
		return nothing;
	return window + (hpa - window_base);
}
u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	u32 value = 0;
	(void)pci;
	if (offset % size || offset + size > 256)
		abort();
	for (unsigned i = 0; i < size; i++)
		value |= (u32)config[bdf][offset + i] << (8 * i);
	return value;
}
"""


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "igd", ["vmm/assign/igd.c", "kernel/boot_info.c", "kernel/region.c"],
        headers=["vmm/assign/igd.h", "kernel/log.h"], fakes=FAKES,
        cdef="extern u8 config[65536][256]; "
             "extern u8 window[0x82000]; extern u64 looked_at, window_base;")


class Machine:
    """Configuration space, memory map and OpRegion of one machine."""

    def __init__(self, device=0x1912, bridge=0x191f, **fields):
        self.device, self.present = device, True
        self.vendor, self.class_ = 0x8086, 0x0300
        self.config = {BRIDGE: bytearray(256), IGD: bytearray(256)}
        self.put(BRIDGE, 0, 0x8086 | bridge << 16, 4)
        self.put(BRIDGE, 0x54, 0xffffffff, 4)
        self.rows = [(0, 0x9f000, AVAILABLE), (MIB, WINDOW, AVAILABLE),
                     (WINDOW, WINDOW + WINDOW_SIZE, NVS),
                     (WINDOW + WINDOW_SIZE, TOLUD, RESERVED),
                     (4 * GIB, 8 * GIB, AVAILABLE)]
        self.image = (0x200000, 0x100000)
        self.modules = []
        self.options, self.mmio = {}, {}
        self.rmrrs = []
        self.memory, self.window = bytearray(WINDOW_SIZE), WINDOW
        for name, value in fields.items():
            setattr(self, name, value)

    def put(self, bdf, at, value, size):
        self.config[bdf][at:at + size] = value.to_bytes(size, "little")

    def store(self, address, data):
        at = address - self.window
        data = data[:WINDOW_SIZE - at]
        self.memory[at:at + len(data)] = data

    def opregion(self, at=OPREGION, kib=8, version=0x0200, rvda=0, rvds=0,
                 signature=b"IntelGraphicsMem"):
        data = bytearray(8 * KIB)
        data[0:16] = signature
        data[0x10:0x14] = kib.to_bytes(4, "little")
        data[0x16:0x18] = version.to_bytes(2, "little")
        data[0x3ba:0x3c2] = rvda.to_bytes(8, "little")
        data[0x3c2:0x3c6] = rvds.to_bytes(4, "little")
        if self.window <= at < self.window + WINDOW_SIZE:
            self.store(at, data)
        self.put(IGD, 0xfc, at, 4)
        return self

    def stolen(self, control, base, gsm=0, tolud=TOLUD, wide=False):
        """As generations 6 and later have it."""
        self.put(IGD, 0x50, control, 2)
        self.put(IGD, 0xc0 if wide else 0x5c, base | 1, 8 if wide else 4)
        self.put(BRIDGE, 0xb4, gsm, 4)
        self.put(BRIDGE, 0xbc, tolud | 1, 4)
        return self

    def probe(self, m):
        """(status, struct igd); the log is m's."""
        harness.reset_all()
        m.on_read(lambda kind, at, size: self.mmio[at])
        for bdf, config in self.config.items():
            m.config[bdf] = bytes(config)
        m.ffi.buffer(m.window, WINDOW_SIZE)[:] = bytes(self.memory)
        boot = self.boot = m.new("struct boot_info *")
        boot.image, boot.image_size = self.image
        for i, (start, end, kind) in enumerate(self.rows):
            boot.memory[i] = {"base": start, "size": end - start,
                              "kind": kind}
        boot.memory_count = len(self.rows)
        # What stands behind the last rows is none.
        boot.memory[len(self.rows)] = {"size": 2**40, "kind": AVAILABLE}
        boot.modules[len(self.modules)] = {"start": WINDOW,
                                           "size": WINDOW_SIZE}
        for i, (start, size) in enumerate(self.modules):
            boot.modules[i] = {"start": start, "size": size}
        boot.module_count = len(self.modules)
        self.options_ = m.new("struct options *", self.options)
        function = self.function = m.new("struct pci_function *", {
            "bdf": IGD, "vendor": self.vendor, "device": self.device,
            "class": self.class_})
        self.pci = m.new("struct pci_host *")
        self.pci.functions[0] = {"class": 0x0601, "device": 0x9d48}
        self.pci.count = 1
        self.input = m.new("struct igd_input *", {
            "pci": self.pci, "boot": boot, "options": self.options_,
            "function": function if self.present else m.NULL})
        for i, (start, size) in enumerate(self.rmrrs):
            self.input.rmrr[i] = {"base": start, "size": size}
        self.input.rmrr_count = len(self.rmrrs)
        igd = m.new("struct igd *")
        m.lib.looked_at, m.lib.window_base = 0, self.window
        return m.igd_probe(igd, self.input), igd

    def good(self, m):
        status, igd = self.probe(m)
        assert status == 0, m.log_text()
        return igd

    def regions(self, m):
        """[(start, end, cpu, dma, e820, name)] of a machine that will do."""
        igd = self.good(m)
        found = m.new("struct region_list *")
        assert m.igd_regions(igd, found) == 0
        out = []
        for r in found.regions[0:found.count]:
            assert r.hpa == r.gpa and r.kind == m.REGION_DEVICE
            # Tables are memory for the CPU; stolen memory is uncached.
            assert r.memtype == (
                m.MEMTYPE_WB if m.string(r.name) in ("OpRegion", "VBT")
                else m.MEMTYPE_UC)
            out.append((r.gpa, r.gpa + r.size, r.cpu, r.dma, r.e820,
                        m.ffi.string(r.name).decode()))
        return out


def span(r):
    return (r.base, r.base + r.size) if r.size else None


# --- Generations ----------------------------------------------------------

IDS = {  # Linux's include/drm/intel/pciids.h: the first and last of each family
    5: [0x0042, 0x0046], 6: [0x0102, 0x0126],
    7: [0x0152, 0x016a, 0x0402, 0x042e, 0x0a02, 0x0a2e, 0x0c02, 0x0d2e],
    8: [0x1602, 0x163e],
    9: [0x0a84, 0x1902, 0x193d, 0x1a84, 0x1a85, 0x3184, 0x3185, 0x3e90, 0x3ea9,
        0x5902, 0x593b, 0x5a84, 0x5a85, 0x87c0, 0x87ca, 0x9b21, 0x9bf6],
    10: [0x5a40, 0x5a5c], 11: [0x4541, 0x4571, 0x4e51, 0x4e71, 0x8a50, 0x8a71],
    12: [0x4626, 0x46d4, 0x4c80, 0x4c9a, 0x6420, 0x64b0, 0x7d40, 0x7dd5,
         0x9a40, 0x9af8, 0xa720, 0xa7ad, 0xb080, 0xb0b0, 0xb640, 0xd740,
         0xd75f, 0xfd80, 0xfd81]}
# Of these the CPU's way to stolen memory is by BAR 0 (HAS_LMEMBAR_SMEM_STOLEN)
BY_BAR = {0x6420, 0x64b0, 0x7d40, 0x7dd5, 0xb080, 0xb0b0, 0xb640, 0xd740,
          0xd75f, 0xfd80, 0xfd81}
WITHOUT_REMAPPING = {"iommu": 1, "unsafe_dma": True, "ram": 1}


@pytest.mark.parametrize("generation", IDS)
def test_generation_by_id(m, generation):
    for device in IDS[generation]:
        igd = Machine(device, options=WITHOUT_REMAPPING).good(m)
        assert igd.generation == generation, hex(device)
        assert igd.remapping_off == (generation == 8), hex(device)
        assert (igd.quirks & m.IGD_STOLEN_IN_BAR != 0) == (device in BY_BAR)


@pytest.mark.parametrize("device, name", [
    *((n, "before Ironlake") for n in (0x2562, 0x2582, 0x2a42, 0x2e92)),
    *((n, "Valleyview") for n in (0x0f30, 0x0f33)),
    *((n, "Cherryview") for n in (0x22b0, 0x22b3))])
def test_generations_without_ept_or_vtd_are_refused(m, device, name):
    status, _ = Machine(device).probe(m)
    assert status == -m.ENOTSUP
    assert m.log_text() == f"igd: 8086:{device:04x} ({name}) is not supported"


@pytest.mark.parametrize("device, wake, ack", [
    (0x0046, 0, None), (0x0102, 0xa18c, 0x130090), (0x0166, 0xa188, 0x130040),
    (0x0152, 0xa188, 0x130040), (0x0412, 0xa188, 0x130044),
    (0x1616, 0xa188, 0x130044), (0x1912, 0xa188, 0x130044),
    (0x46a6, 0xa188, 0x130044), (0x7d55, 0xa188, 0xdfc),
    (0xb080, 0xa188, 0xdfc)])
def test_forcewake(m, device, wake, ack):
    """Linux's intel_uncore.c and intel_gt_regs.h"""
    machine, answer = Machine(device, options=WITHOUT_REMAPPING), m.new("u32 *")
    assert m.igd_forcewake(machine.good(m), answer) == wake
    assert answer[0] == ack or not wake


def test_unknown_ids_by_the_registers(m):
    dsm = TOLUD - 64 * MIB
    wide = Machine(0xfff0).stolen(0x02c0, dsm, wide=True).good(m)
    assert (wide.generation, span(wide.dsm)) == (12, (dsm, TOLUD))
    narrow = Machine(0xfff0).stolen(0x02c0, dsm).good(m)
    assert (narrow.generation, span(narrow.dsm)) == (9, (dsm, TOLUD))
    for machine in (Machine(0xfff0), Machine(0xfff0).stolen(0, 0xffffffff)):
        status, _ = machine.probe(m)
        assert status == -m.ENOTSUP
        assert m.log_text() == ("igd: 8086:fff0 is not known and its registers "
                                "do not tell; say igd-gen=5 to 12")


@pytest.mark.parametrize("number", range(0, 20))
def test_generation_by_option(m, number):
    machine = Machine(0xfff0, options={"igd_gen": number},
                      rows=[(0, 0x40000000, AVAILABLE)])
    machine.stolen(0x02c0, 0x50000000)
    status, igd = machine.probe(m)
    if number == 0:
        assert (status, igd.generation) == (0, 9)
    elif 5 <= number <= 12:
        assert (status, igd.generation) == (0, number)
    else:
        assert status == -m.ENOTSUP
        assert m.log_text() == f"igd-gen={number}: say 5 to 12"


# device, GGC, MiB of stolen memory, MiB of GTT memory
SIZES = [
    (0x0102, 0x0000, 0, 0), (0x0102, 0x0108, 32, 1), (0x0102, 0x0210, 64, 2),
    (0x0166, 0x02f9, 992, 2), (0x0412, 0x0280, 512, 2),
    (0x1616, 0x0080, 0, 4), (0x1616, 0x01c0, 32, 8), (0x1616, 0x1040, 512, 2),
    (0x1912, 0x0200, 64, 0), (0x1912, 0x02c1, 64, 8), (0x1912, 0xf040, 4, 2),
    (0x1912, 0xf140, 8, 2), (0x1912, 0xfec0, 60, 8), (0x3e92, 0x0fc0, 480, 8),
    (0x5a40, 0xf080, 4, 4), (0x8a52, 0x02c0, 64, 8), (0x9a49, 0xfe80, 60, 4),
]


@pytest.mark.parametrize("device,control,dsm,gsm", SIZES)
def test_sizes(m, device, control, dsm, gsm):
    base, gtt = 0x50000000, 0x4f000000
    machine = Machine(device, options=WITHOUT_REMAPPING,
                      rows=[(0, 0x40000000, AVAILABLE)])
    machine.stolen(control, base, gtt, wide=device in (0x8a52, 0x9a49))
    igd = machine.good(m)
    assert igd.control == control and igd.top == TOLUD
    assert span(igd.dsm) == ((base, base + dsm * MIB) if dsm else None)
    assert span(igd.gsm) == ((gtt, gtt + gsm * MIB) if gsm else None)


# 00:00.0's 0x52 of generation 5: bits 7:4 in MiB, bits 11:8 in MiB
IRONLAKE = {0x0010: (1, 0), 0x0130: (8, 1), 0x0350: (32, 2), 0x0960: (48, 2),
            0x0b70: (64, 4), 0x0a80: (128, 3), 0x0990: (256, 2),
            0x09a0: (96, 2), 0x09b0: (160, 2), 0x09c0: (224, 2),
            0x09d0: (352, 2), 0x09e0: (0, 2)}


@pytest.mark.parametrize("control", IRONLAKE)
def test_sizes_of_ironlake(m, control):
    dsm, gsm = IRONLAKE[control]
    machine = Machine(0x0046, 0x0040, options=WITHOUT_REMAPPING,
                      rows=[(0, 0x40000000, AVAILABLE)])
    machine.put(BRIDGE, 0x52, control, 2)
    machine.put(BRIDGE, 0xa8, 0x4f000000, 4)
    machine.put(BRIDGE, 0xb0, 0x9000, 2)
    machine.put(IGD, 0x5c, 0x50000000, 4)
    machine.put(IGD, 0x50, 0xffff, 2)    # no such register there
    igd = machine.good(m)
    assert igd.top == TOLUD
    assert span(igd.dsm) == (
        (0x50000000, 0x50000000 + dsm * MIB) if dsm else None)
    assert span(igd.gsm) == (
        (0x4f000000, 0x4f000000 + gsm * MIB) if gsm else None)


def test_stolen_memory_above_4_gib(m):
    machine = Machine(0x9a49).stolen(0x02c0, 9 * GIB, wide=True)
    igd = machine.good(m)
    assert span(igd.dsm) == (9 * GIB, 9 * GIB + 64 * MIB)
    machine.put(BRIDGE, 0xa8, (9 * GIB + 63 * MIB) | 1, 8)     # TOUUD
    assert machine.probe(m)[0] == -m.EINVAL
    assert m.log_text() == (
        "igd: stolen memory of 64 MiB at 0x240000000 (GGC 02c0) ends above the "
        "top of memory 0x243f00000")
    machine.put(BRIDGE, 0xa8, (9 * GIB + 64 * MIB) | 1, 8)
    assert machine.probe(m)[0] == 0
    # One that says nothing: as far as any CPU of these has addresses.
    machine = Machine(0x9a49).stolen(0x02c0, 2**46 - 64 * MIB, wide=True)
    assert machine.probe(m)[0] == 0
    machine.stolen(0x02c0, 2**46 - 63 * MIB, wide=True)
    assert machine.probe(m)[0] == -m.EINVAL


BAR = 0xfa000000


def meteor_lake(ggc=0x02c0, dsm=0x8c000000, gsm=0x8b800000, access=1, on=2,
                **fields):
    """i915_gem_stolen_lmem_setup() and i915_direct_stolen_access()."""
    machine = Machine(0x7d55, **fields)
    machine.stolen(0x02c0, TOLUD - 64 * MIB, wide=True)
    machine.put(IGD, 4, on, 2)
    machine.put(IGD, 0x10, BAR | 4, 8)
    machine.mmio = {BAR + 0x108040: ggc, BAR + 0x1080c0: dsm | 1,
                    BAR + 0x108100: gsm | 1, BAR + 0x138914: access}
    return machine


@pytest.mark.parametrize("access", [0, 1])
def test_stolen_memory_of_meteor_lake(m, access):
    """By BAR 0; for the CPU as well, GSM too, where firmware says so: its
    way through BAR 2 can hang the machine."""
    machine = meteor_lake(access=access)
    dsm, gsm = (0x8c000000, 0x90000000), (0x8b800000, 0x8c000000)
    igd = machine.good(m)
    assert (span(igd.dsm), span(igd.gsm)) == (dsm, gsm)
    cpu = m.REGION_RW if access else 0
    assert [r[:4] for r in machine.regions(m)] == [
        (*gsm, cpu, m.REGION_RW), (*dsm, cpu, m.REGION_RW)]
    out = m.new("struct phys_range[2]")
    assert m.igd_picture(machine.input, out) and span(out[0]) == dsm


@pytest.mark.parametrize("fields", [
    {"on": 0}, {"ggc": 0x0280}, {"ggc": 0x03c0}, {"dsm": 0},
    {"dsm": 2**64 - 1},
    {"gsm": 1 << 60}, {"dsm": 0x10000000}, {"rows": [(0, 4 * GIB,
                                                          AVAILABLE)]}])
def test_meteor_lake_does_without_what_cannot_be(m, fields):
    igd = meteor_lake(**fields).good(m)
    assert span(igd.dsm) is None and not igd.stolen_open


@pytest.mark.parametrize("name", paper.NAMES)
def test_machines_on_paper(m, name):
    """Of each generation, with what the manuals' rules make of it."""
    config = paper.load(name)
    asls = config.igd.get(0xfc, 4)
    window = asls & -PAGE
    tolud = config.number("tolud")
    machine = Machine(
        config.igd.get(2, 2), class_=config.igd.get(0xa, 2), window=window,
        rows=[(0, 0x9f000, AVAILABLE), (MIB, window, AVAILABLE),
              (window, window + 0x8000, NVS),
              (window + 0x8000, tolud, RESERVED)])
    machine.config = {BRIDGE: config.host.bytes[:256],
                      IGD: config.igd.bytes[:256]}
    machine.opregion(asls)
    if config.gen < 5:      # no EPT, and refused for it
        assert machine.probe(m)[0] == -m.ENOTSUP
        return
    allowed = config.expect["remapping"] == ["yes"]
    assert machine.probe(m)[0] == (0 if allowed else -m.ENOTSUP)
    machine.options = WITHOUT_REMAPPING
    igd = machine.good(m)

    def told(what):
        words = config.expect.get(what)
        base, size = (int(word, 16) for word in words) if words else (0, 0)
        return (base, base + size) if size else None
    assert igd.generation == config.gen
    assert (span(igd.dsm), span(igd.gsm)) == (told("dsm"), told("gsm"))
    assert (igd.top, igd.asls) == (tolud, config.number("asls"))
    assert igd.vga == (config.number("class") == 0x0300)
    assert igd.opregion.base == asls
    names = {row[5]: row[:4] for row in machine.regions(m)}
    assert ("stolen memory (DSM)" in names) == bool(told("dsm"))
    if told("gsm"):
        assert names["GTT memory (GSM)"] == (*told("gsm"), 0, m.REGION_RW)


def test_what_the_picture_is_scanned_out_of(m):
    """Assigned or not; nothing is said, whatever the registers say."""
    dsm, gsm = TOLUD - 64 * MIB, TOLUD - 72 * MIB

    def picture(**fields):
        machine = Machine(**fields).stolen(0x02c0, dsm, gsm)
        machine.probe(m)
        harness.reset_all()
        out = m.new("struct phys_range[2]")
        m.igd_picture(machine.input, out)
        assert m.log_text() == ""
        return [span(r) for r in out]
    assert picture() == [(dsm, TOLUD), (gsm, dsm)]
    assert picture(rows=[(0, dsm, AVAILABLE)]) == [(dsm, TOLUD), None]
    assert picture(rows=[(0, TOLUD, AVAILABLE)]) == [None, None]
    assert picture(class_=0x0200) == [None, None]
    assert picture(present=False) == [None, None]
    assert picture(options={"igd_gen": 99}) == [None, None]
    assert picture(device=0x1616) == [(dsm - 0, dsm + 64 * MIB), (gsm, dsm)]


# --- VGA and remapping ----------------------------------------------------

@pytest.mark.parametrize("class_,control,vga", [
    (0x0300, 0x02c0, True), (0x0300, 0x02c2, False), (0x0380, 0x02c0, False),
    (0x0380, 0x02c2, False)])
def test_legacy_vga(m, class_, control, vga):
    machine = Machine(class_=class_)
    machine.stolen(control, TOLUD - 64 * MIB)
    assert machine.good(m).vga == vga


STRICT = {"iommu": 0, "ram": 0}
# device, host bridge, GGC of generation 5: may remapping be on?
REMAPPING = [(0x1912, 0x191f, 0, True), (0x1616, 0x1604, 0, False),
             (0x163e, 0x1604, 0, False), (0x0046, 0x0044, 0x0b00, False),
             (0x0042, 0x0040, 0x0b00, True), (0x0042, 0x0040, 0x0300, False),
             (0x0046, 0x0062, 0x0b00, True), (0x0046, 0x006a, 0x0100, False)]


@pytest.mark.parametrize("device,bridge,control,allowed", REMAPPING)
def test_remapping(m, device, bridge, control, allowed):
    for options in (STRICT, {"iommu": 1, "unsafe_dma": True, "ram": 0},
                    {"iommu": 1, "unsafe_dma": False, "ram": 1},
                    {"igd_dma": 1, "ram": 1}, WITHOUT_REMAPPING):
        machine = Machine(device, bridge, options=options)
        machine.put(BRIDGE, 0x52, control, 2)
        status, _ = machine.probe(m)
        will_do = "igd_dma" in options or options == WITHOUT_REMAPPING
        if allowed or will_do:
            assert status == 0
            out = m.new("struct phys_range[2]")
            assert m.igd_picture(machine.input, out) == (
                allowed and "igd_dma" not in options)
        else:
            assert status == -m.ENOTSUP
            assert "igd-dma=direct ram=identity" in m.log_text()


def test_direct_dma_needs_the_hosts_addresses(m):
    status, _ = Machine(options={"igd_dma": 1, "ram": 0}).probe(m)
    assert status == -m.ENOTSUP
    assert "igd-dma=direct needs ram=identity" in m.log_text()


# --- OpRegion and VBT -----------------------------------------------------

@pytest.mark.parametrize("at", [WINDOW, OPREGION, WINDOW + 0xfff])
@pytest.mark.parametrize("kib", [8, 12, 256])
def test_opregion(m, at, kib):
    machine = Machine().opregion(at, kib)
    igd = machine.good(m)
    assert span(igd.opregion) == (at, at + kib * KIB)
    assert (igd.asls, igd.opregion_version) == (at, 0x0200)
    start, end, cpu, dma, e820, _ = machine.regions(m)[0]
    assert (start, end) == (at & -PAGE, -(-(at + kib * KIB) // PAGE) * PAGE)
    assert (cpu, dma, e820) == (m.REGION_RW, 0, m.E820_NVS)


@pytest.mark.parametrize("version,rvda,want", [
    (0x0200, WINDOW + 0x40000, WINDOW + 0x40000),   # absolute
    (0x0201, 0x2000, OPREGION + 0x2000),            # relative
    (0x0300, 0x2400, OPREGION + 0x2400),
    (0x0100, WINDOW + 0x40000, None), (0x0200, 0, None)])
def test_extended_vbt(m, version, rvda, want):
    machine = Machine().opregion(version=version, rvda=rvda, rvds=0x1e01)
    igd = machine.good(m)
    assert span(igd.vbt) == ((want, want + 0x1e01) if want else None)
    covered = set()
    for start, end, cpu, *_ in machine.regions(m):
        assert cpu == m.REGION_RW
        covered |= set(range(start, end, PAGE))
    for at in range(want or 0, (want or 0) + 0x1e01 if want else 0, 256):
        assert at & -PAGE in covered
    assert m.ffi.string(igd.vbt_source) == (b"RVDA" if want else
                                            b"mailbox 4")


BAD_VBT = {"in RAM": (0x300000, 0x2000), "in Monocle": (0x200000, 0x1000),
           "across the end": (WINDOW + WINDOW_SIZE - 8, TOLUD),
           "too long": (WINDOW + 0x2000, MIB + 1),
           "in nothing": (TOLUD + 0x1000, 0x1000),
           "nowhere": (2**64 - 8, 0x1000)}


@pytest.mark.parametrize("name", BAD_VBT)
def test_bad_vbt_is_left_out(m, name):
    rvda, rvds = BAD_VBT[name]
    machine = Machine().opregion(rvda=rvda, rvds=min(rvds, 2**32 - 1))
    igd = machine.good(m)
    assert span(igd.vbt) is None and igd.opregion.size == 8 * KIB
    assert m.log_text() == (
        f"igd: the VBT's {min(rvds, 2**32 - 1):#x} bytes at {rvda:#x} are not "
        "in reserved memory; the guest does without them")
    assert len(machine.regions(m)) == 1


def test_vbt_over_a_module_is_left_out(m):
    """A map that calls Monocle's own memory reserved."""
    at = WINDOW + 0x40000
    for taken in ({"image": (at, PAGE)}, {"modules": [(at + 64, 100)]}):
        machine = Machine(**taken).opregion(rvda=at, rvds=0x1000)
        assert span(machine.good(m).vbt) is None


@pytest.mark.parametrize("asls", [0, 0xffffffff])
def test_no_opregion(m, asls):
    machine = Machine()
    machine.put(IGD, 0xfc, asls, 4)
    assert span(machine.good(m).opregion) is None
    assert m.log_text() == (f"igd: firmware has made no OpRegion (ASLS "
                            f"{asls:08x}): no VBT for the driver")


def test_opregion_without_signature(m):
    machine = Machine().opregion(signature=b"IntelGraphicsMen")
    assert span(machine.good(m).opregion) is None
    assert m.log_text() == (f"igd: no OpRegion at {OPREGION:#x} (ASLS): its "
                            "signature is missing; the guest reads 0 there")


@pytest.mark.parametrize("at,kib,text", [
    (0x300000, 8, "outside reserved"), (0x10, 8, "outside reserved"),
    (0x200000, 8, "outside reserved"), (TOLUD, 8, "outside reserved"),
    (WINDOW - 1, 8, "outside reserved"), (0xfffff018, 8, "outside reserved"),
    (OPREGION, 0, "cannot be"), (OPREGION, 7, "cannot be"),
    (OPREGION, 257, "cannot be"), (OPREGION, 0xffffffff, "cannot be")])
def test_bad_opregion(m, at, kib, text):
    """Refused, and not looked at where it is not firmware's."""
    status, _ = Machine().opregion(at, kib).probe(m)
    assert status == -m.EINVAL
    assert text in m.log_text() and len(m.log_lines()) == 1
    assert m.log_text().startswith(f"igd: the OpRegion at {at:#x} ")
    assert text != "cannot be" or f" {kib} KiB, which cannot" in m.log_text()
    assert (m.lib.looked_at == 0) == (text == "outside reserved")


def test_opregion_is_not_read_out_of_gtt_memory(m):
    machine = Machine().stolen(0x02c0, TOLUD - 64 * MIB, gsm=0x8ac00000)
    machine.opregion(0x8ac20000)
    assert machine.probe(m)[0] == -m.EINVAL
    assert m.lib.looked_at == 0


# --- Bad input ------------------------------------------------------------

def test_no_igd(m):
    off = Machine(present=False)
    off.put(BRIDGE, 0x54, 0xffffffef, 4)
    for machine, text in (
            (off, "switched 00:02.0 off"),
            (Machine(present=False), "no Intel graphics"),
            (Machine(vendor=0x1234), "no Intel graphics"),
            (Machine(class_=0x0200), "no Intel graphics")):
        status, _ = machine.probe(m)
        assert status == -m.ENODEV
        assert text in m.log_text() and len(m.log_lines()) == 1
    off.probe(m)
    assert "(DEVEN ffffffef)" in m.log_text()


@pytest.mark.parametrize("machine,text", [
    (Machine().stolen(0x04c0, TOLUD - 64 * MIB), "above the top of memory"),
    (Machine().stolen(0xefc0, TOLUD - 64 * MIB), "above the top of memory"),
    (Machine().stolen(0x02c0, TOLUD), "above the top of memory"),
    (Machine().stolen(0x04c0, 0xfc000000, tolud=0), "above the top"),
    (Machine().stolen(0x02c0, 0x40000000),
     "igd: stolen memory 0x40000000-0x44000000 lies in what the memory map "
     "calls RAM"),
    (Machine().stolen(0x02c0, WINDOW - 0x3fc00000), "calls RAM"),
    (Machine().stolen(0x02c0, TOLUD - 64 * MIB, gsm=0x30000000),
     "calls RAM"),
    (Machine().stolen(0x02c0, TOLUD - 64 * MIB, gsm=TOLUD - 4 * MIB),
     "above the top of memory"),
    (Machine(0x9a49).stolen(0x02c0, 5 * GIB, wide=True), "calls RAM"),
    (Machine(0x9a49).stolen(0x02c0, 2**64 - MIB, wide=True), "above the top"),
])
def test_bad_stolen_memory(m, machine, text):
    status, _ = machine.probe(m)
    assert status == -m.EINVAL
    assert text in m.log_text() and len(m.log_lines()) == 1


def test_rmrr_in_ram(m):
    status, _ = Machine(rmrrs=[(0x40000000, 0x1000)]).probe(m)
    assert status == -m.EINVAL
    assert m.log_lines()[-1] == (
        m.LOG_ERROR, "igd: the RMRR 0x40000000-0x40001000 lies in what the "
        "memory map calls RAM")


@pytest.mark.parametrize("count, good", [(8, True), (9, False)])
def test_as_many_rmrrs_as_there_is_room_for(m, count, good):
    at = WINDOW + WINDOW_SIZE
    machine = Machine(rmrrs=[(at + n * 2 * PAGE, PAGE) for n in range(8)])
    assert machine.probe(m)[0] == 0
    machine.input.rmrr_count = count
    igd = m.new("struct igd *")
    m.clear_events()
    assert (m.igd_probe(igd, machine.input) == 0) == good
    assert good or "igd: 9 RMRRs; at most 8 are understood" in m.log_text()
    assert igd.rmrr_count == (count if good else 0)


# --- Regions --------------------------------------------------------------

def test_rights(m):
    """An RMRR over all of stolen memory: the CPU does not reach GSM."""
    dsm, gsm = 0x8c000000, 0x8b800000
    machine = Machine(rmrrs=[(gsm, TOLUD - gsm)])
    machine.stolen(0x02c0, dsm, gsm).opregion()
    rw = m.REGION_RW
    assert machine.regions(m) == [
        (OPREGION & -PAGE, (OPREGION & -PAGE) + 3 * PAGE, rw, 0, m.E820_NVS,
         "OpRegion"),
        (gsm, dsm, 0, rw, m.E820_RESERVED, "GTT memory (GSM)"),
        (dsm, TOLUD, rw, rw, m.E820_RESERVED, "stolen memory (DSM)")]
    machine.stolen(0x02c0, dsm, 0)      # GSM is somewhere in the RMRR
    assert machine.regions(m)[1:] == [
        (gsm, dsm, 0, rw, m.E820_RESERVED, "RMRR"),
        (dsm, TOLUD, rw, rw, m.E820_RESERVED, "stolen memory (DSM)")]


def test_rights_without_an_rmrr(m):
    """Each part has its own; firmware's tables are kept where they are."""
    dsm, gsm = 0x8c000000, 0x8b800000
    machine = Machine().stolen(0x02c0, dsm, gsm)
    machine.opregion(version=0x0200, rvda=WINDOW + 0x40000, rvds=0x2000)
    rw = m.REGION_RW
    assert machine.regions(m) == [
        (OPREGION & -PAGE, (OPREGION & -PAGE) + 3 * PAGE, rw, 0, m.E820_NVS,
         "OpRegion"),
        (WINDOW + 0x40000, WINDOW + 0x42000, rw, 0, m.E820_NVS, "VBT"),
        (gsm, dsm, 0, rw, m.E820_RESERVED, "GTT memory (GSM)"),
        (dsm, TOLUD, rw, rw, m.E820_RESERVED, "stolen memory (DSM)")]


def test_log_block(m):
    machine = Machine(rmrrs=[(0x8b800000, TOLUD - 0x8b800000)])
    machine.stolen(0x02c0, 0x8c000000, 0x8b800000)
    machine.opregion(version=0x0201, rvda=0x2000, rvds=0x2000)
    m.igd_log(machine.good(m))
    assert m.log_text().splitlines() == ["igd: " + text for text in (
        "00:02.0 8086:1912 revision 00 class 0300, host bridge 191f, PCH 9d48",
        "generation 9 (Skylake), GGC 02c0, TOLUD 0x90000000",
        "legacy VGA decoded",
        "stolen memory (DSM) 0x8c000000-0x90000000, 65536 KiB",
        "GTT memory (GSM) 0x8b800000-0x8c000000, 8192 KiB",
        "ASLS 8ac18018", "OpRegion 0x8ac18018-0x8ac1a018, 8 KiB",
        "OpRegion version 2.1, VBT from RVDA",
        "extended VBT 0x8ac1a018-0x8ac1c018, 8 KiB",
        "RMRR 0x8b800000-0x90000000, 73728 KiB", "DMA remapping allowed")]


def test_log_block_of_little(m):
    """What a machine without the rest has."""
    machine = Machine()
    machine.put(IGD, 0x50, 2, 2)
    m.igd_log(machine.good(m))
    for text in ("legacy VGA not decoded: stays closed",
                 "stolen memory (DSM) none", "GTT memory (GSM) none",
                 "OpRegion none", "RMRR none"):
        assert "igd: " + text in m.log_text().splitlines()
    assert "version" not in m.log_text() and "VBT from" not in m.log_text()
    igd = m.new("struct igd *", {"function": machine.good(m).function})
    igd.gsm_unknown = igd.remapping_off = True
    m.igd_log(igd)
    assert "igd: GTT memory (GSM) has a size in GGC, but no base" in \
        m.log_text()
    assert "igd: DMA remapping must stay off, and does" in m.log_text()


def test_policy(m):
    """ASLS says where the OpRegion is, or 0 where there is none."""
    count = m.new("unsigned *")

    def rows(machine):
        first = m.igd_policy(machine.good(m), count)
        return {at: row.policy for row in [*first[0:count[0]]][::-1]
                for at in range(row.first, row.last + 1, 4)}
    with_one = rows(Machine().opregion())
    assert set(with_one.values()) == {m.PCI_READ_THROUGH}
    assert set(with_one) == {0x50, 0x54, 0x5c, 0xc0, 0xc4, 0xe8, 0xfc}
    for machine in (Machine(), Machine().opregion(signature=bytes(16))):
        assert rows(machine) == {**with_one, 0xfc: m.PCI_HIDDEN}


ADDRESS = st.integers(0, 2**32 - 1) | st.integers(
    WINDOW - 0x4000, WINDOW + WINDOW_SIZE + 0x4000) | st.sampled_from(
        [0, TOLUD, TOLUD - 64 * MIB, 0xffffffff, 0x8c000000, 0x8b800000])
DEVICE = st.integers(0, 0xffff) | st.sampled_from(
    [device for group in IDS.values() for device in group])
ROW = st.tuples(ADDRESS, st.integers(1, 2**31), st.integers(0, 9))


@st.composite
def machines(draw):
    rows = [(at, at + size, kind) for at, size, kind in
            draw(st.lists(ROW, max_size=4))]
    machine = Machine(draw(DEVICE), draw(st.sampled_from(
        [0x191f, 0x0040, 0x0044, 0x2e10])))
    if draw(st.booleans()):
        machine.rows = rows + machine.rows
    for bdf, at, size in ((IGD, 0x50, 2), (IGD, 0x5c, 4), (IGD, 0xc0, 8),
                          (BRIDGE, 0x52, 2), (BRIDGE, 0xa8, 8),
                          (BRIDGE, 0xb0, 2), (BRIDGE, 0xb4, 4),
                          (BRIDGE, 0xbc, 4)):
        if draw(st.booleans()):
            machine.put(bdf, at, draw(ADDRESS) & (1 << 8 * size) - 1, size)
    machine.opregion(
        draw(ADDRESS), draw(st.integers(0, 300)),
        draw(st.sampled_from([0x100, 0x200, 0x201])),
        draw(ADDRESS | st.integers(0, 2**64 - 1)),
        draw(st.integers(0, 2**21)))
    machine.rmrrs = draw(st.lists(st.tuples(
        ADDRESS, st.integers(1, 2**27)), max_size=8))
    machine.options = draw(st.sampled_from(
        [STRICT, WITHOUT_REMAPPING, {"igd_gen": 5}, {"igd_gen": 12}]))
    return machine


def available(machine, start, end):
    """Is a page of [start, end) what only RAM's rows cover?"""
    for base, size in (machine.image, *machine.modules):
        if base < end and start < base + size:
            return True
    points = sorted({start, *(p for row in machine.rows for p in row[:2]
                              if start < p < end)})
    for p in points:
        over = {kind for s, e, kind in machine.rows if s <= p < e}
        if over and over <= {0, AVAILABLE} and AVAILABLE in over:
            return True
    return False


@settings(max_examples=400, deadline=None)
@given(machine=machines())
def test_any_machine(m, machine):
    """Refused in one line, or nothing of RAM is in the list and the CPU has
    no way to GSM."""
    status, igd = machine.probe(m)
    looked = m.lib.looked_at
    assert not looked or not available(machine, looked, looked + 8 * KIB)
    errors = [line for line in m.log_lines() if line[0] == m.LOG_ERROR]
    assert len(errors) == (status != 0)
    if status:
        return
    regions = machine.regions(m)
    gsm = span(igd.gsm)
    for (start, end, cpu, *_), following in zip(
            regions, [*regions[1:], (2**64,)]):
        assert start < end <= following[0]
        assert not available(machine, start, end)
        if gsm and start < gsm[1] and gsm[0] < end:
            assert cpu == 0
