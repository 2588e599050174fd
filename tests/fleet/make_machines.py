#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Writes tests/fleet/machines: a machine for each kind of trouble, and what
`igd assign=all` has to make of it.

    make_machines.py [DIR]

Nobody's machines: parts have the IDs, registers and capabilities of such as
there are, by the manuals; addresses and what firmware does are made up.
"""
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from fleet import expect, paper  # noqa: E402

OWN = pathlib.Path(__file__).resolve().parent / "machines"
HV = "igd assign=all"
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
INTEL = 0x8086
ROOT_PORT, PCIE_TO_PCI, ENDPOINT = 4, 7, 0
TABLES, NVS = 0x872bd000, 0x8730a000
GFX_UNIT, UNIT = 0xfed90000, 0xfed91000

# Skylake: leaves that the start asks for, and the VMX MSRs (SDM appendix A)
CPUID = {(0, 0): (0x16, 0x756e6547, 0x6c65746e, 0x49656e69),
         (1, 0): (0x506e3, 0x100800, 0x7ffafbbf, 0xbfebfbff),
         (7, 0): (0, 0x29c6fbf, 0, 0), (0xd, 0): (7, 0x340, 0x340, 0),
         (0xd, 1): (0xf, 0x340, 0x100, 0),
         (0x15, 0): (2, 0x114, 0, 0), (0x16, 0): (0xce4, 0xce4, 0x64, 0),
         (0x80000000, 0): (0x80000008, 0, 0, 0),
         (0x80000001, 0): (0, 0, 0x121, 0x2c100000),
         (0x80000007, 0): (0, 0, 0, 0x100),
         (0x80000008, 0): (0x3027, 0, 0, 0)}
MSR = {0x3a: 5, 0x480: 0xda040000000004, 0x481: 0x7f00000016,
       0x482: 0xfff9fffe0401e172, 0x483: 0x1ffffff00036dff,
       0x484: 0x3ffff000011ff, 0x485: 0x7004c1e7, 0x486: 0x80000021,
       0x487: 0xffffffff, 0x488: 0x2000, 0x489: 0x3767ff, 0x48a: 0x2a,
       0x48b: 0x5fbcff00000000, 0x48c: 0xf0106334141, 0x48d: 0x7f00000016,
       0x48e: 0xfff9fffe04006172, 0x48f: 0x1ffffff00036dfb,
       0x490: 0x3ffff000011fb}
# CAP and ECAP of the graphics' unit and of the other one, by generation
UNITS = {7: ((0xc0000020e60262, 0xf0101a), (0xc9008020660262, 0xf0105a)),
         8: ((0x1c0000c40660462, 0x7e1ff0505e), (0xd2008c20660462, 0xf010da)),
         9: ((0x1c0000c40660462, 0x19e2ff0505e), (0xd2008c40660462, 0xf050da))}


class Function(paper.Function):
    """One that is built from a few words; what it has not is zero."""

    def __init__(self, bdf, ident, code, given=True):
        super().__init__(paper.bdf_of(bdf))
        vendor, _, device = ident.rpartition(":")
        self.given = given
        self.cap, self.link, self.ext = 0x40, 0x34, 0
        self.put(0, 2, int(vendor or "8086", 16))
        self.put(2, 2, int(device, 16))
        self.put(4, 2, 6, 0x507)
        self.put(0x3c, 1, 0, 0xff)
        self.put(9, 1, code & 0xff)
        self.put(0xa, 2, code >> 8)

    def put(self, at, size, value, mask=None):
        keep = (1 << 8 * size) - 1
        self.config[at:at + size] = (value & keep).to_bytes(size, "little")
        if mask is not None:
            self.mask[at:at + size] = (mask & keep).to_bytes(size, "little")
        return self

    def bar(self, n, base, size, kind=4):
        """kind: the low bits of a BAR; 4: memory of 64 bits, 1: ports"""
        width = 8 if kind & 4 else 4
        if kind & 1:
            self.config[4] |= 1
        return self.put(0x10 + 4 * n, width, base | kind, -size)

    def pin(self, n, line=0xff):
        return self.put(0x3d, 1, n).put(0x3c, 1, line)

    def capability(self, ident, body, mask=b""):
        at = self.cap
        self.config[self.link] = at
        self.link, self.cap = at + 1, at + (len(body) + 2 + 3 & ~3)
        self.config[at], self.config[6] = ident, 0x10
        self.config[at + 2:at + 2 + len(body)] = body
        self.mask[at + 2:at + 2 + len(mask)] = mask
        return self

    def power(self):
        return self.capability(1, b"\x03\x00\x08\x00\x00\x00", b"\0\0\x03")

    def msi(self):
        return self.capability(5, b"\x80" + bytes(11),
                               b"\x71\0\xfc\xff\xff\xff" + b"\xff" * 6)

    def msix(self, entries, bar, at, pending):
        return self.capability(0x11, struct.pack(
            "<HII", entries - 1, at | bar, pending | bar), b"\0\xc0")

    def express(self, kind):
        return self.capability(0x10, struct.pack("<HI", 2 | kind << 4, 0x8000 |
                                                 1 << 28) + bytes(0x34))

    def acs(self, control=0x106):
        self.put(0x100, 4, 0x0001000d).put(0x104, 2, 0x1f)
        return self.put(control, 2, 0, 0x1f)

    def bridge(self, secondary, subordinate=None, window=None):
        self.put(0xe, 1, 1).put(0x18, 1, self.bdf >> 8, 0xff)
        self.put(0x19, 1, secondary, 0xff).put(0x3e, 2, 0, 0x43)
        self.put(0x1a, 1, subordinate or secondary, 0xff)
        low, high = window or (0xfff00000, 0)
        self.put(0x20, 2, low >> 16).put(0x22, 2, high >> 16)
        self.given = False
        return self.put(0x24, 2, 0xfff1).put(0x26, 2, 1)


def checksum(table):
    table = bytearray(table)
    table[9] = 0
    table[9] = -sum(table) & 0xff
    return bytes(table)


def header(signature, revision, body):
    return checksum(struct.pack("<4sIBB6s8sI4sI", signature, 36 + len(body),
                                revision, 0, b"PAPER", b"MACHINE", 1, b"NONE",
                                1) + body)


def scope(bdf, kind=1, ident=0):
    """bdf: "BB:DD.F", and ">DD.F" for each further hop."""
    first, *rest = bdf.split(">")
    hops = [first[3:], *rest]
    path = bytes(int(n, 16) for hop in hops for n in hop.split("."))
    return struct.pack("<BBHBB", kind, 6 + len(path), 0, ident,
                       int(first[:2], 16)) + path


def drhd(base, scopes=(), every=False, segment=0):
    body = b"".join(scopes)
    return struct.pack("<HHBBHQ", 0, 16 + len(body), every, 0, segment,
                       base) + body


def rmrr(base, size, *bdfs):
    body = b"".join(scope(bdf) for bdf in bdfs)
    return struct.pack("<HHHHQQ", 1, 24 + len(body), 0, 0, base,
                       base + size - 1) + body


class Machine:
    """A desktop of 2015; what is troublesome is added, or changed."""

    def __init__(self, name, note, generation=9, device=0x1912):
        self.name, self.note = name, note
        self.refusal, self.percent, self.extra = None, 98, []
        self.cpuid, self.msr = dict(CPUID), dict(MSR)
        self.ecam = self.mcfg = 0xe0000000
        self.last_bus = 0x3f
        self.pm_timer = 0x1808
        self.rows = [(0, 0x9f000, 1), (0x9f000, 0x1000, 2),
                     (0xe0000, 0x20000, 2), (MIB, 0x87000000 - MIB, 1),
                     (0x87000000, TABLES - 0x87000000, 2),
                     (TABLES, NVS - TABLES, 3), (NVS, 0xf6000, 4),
                     (0x87400000, 0xc00000, 2), (0xe0000000, 0x4000000, 2),
                     (0xfee00000, 0x1000, 2), (4 * GIB, 2 * GIB, 1)]
        self.units = [(GFX_UNIT, *UNITS[generation][0]),
                      (UNIT, *UNITS[generation][1])]
        self.rmrrs = [rmrr(0x89800000, 0x2800000, "00:02.0")]
        self.drhds = [drhd(GFX_UNIT, [scope("00:02.0")]),
                      drhd(UNIT, [scope("f0:1f.0", 3, 2)], every=True)]
        self.functions = {}
        bridge = self.add("00:00.0", "191f", 0x060000, given=False)
        gfx = self.add("00:02.0", f"{device:x}", 0x030000).power().msi().pin(1)
        gfx.bar(0, 0xf6000000, 16 * MIB).bar(2, 0xd0000000, 256 * MIB, 0xc)
        gfx.bar(4, 0xf000, 64, 1)
        control = {7: 1 << 3 | 2 << 8, 8: 1 << 8 | 3 << 6,
                   9: 1 << 8 | 3 << 6}[generation]
        for f in (bridge, gfx):
            f.put(0x50, 2, control).put(0x54, 4, 0x1b)
        bridge.put(0xa8, 8, 6 * GIB | 1).put(0xb0, 4, 0x8a000001)
        bridge.put(0xb4, 4, 0x89800001).put(0xbc, 4, 0x8c000001)
        gfx.put(0x5c, 4, 0x8a000001).put(0xfc, 4, NVS + 0x18)
        self.extra.append(f"mem {NVS + 0x18:x} " + b"IntelGraphicsMem".hex() +
                          "08000000" "0000" "0002")
        self.add("00:1f.0", "a146", 0x060100, given=False)

    def add(self, bdf, ident, code, given=True):
        f = Function(bdf, ident, code, given)
        self.functions[f.bdf] = f
        return f

    def usual(self):
        """A chipset's own functions, and a NIC behind a root port."""
        self.xhci()
        self.add("00:16.0", "a13a", 0x078000).power().msi().pin(1).bar(
            0, 0xf7244000, 4 * KIB)
        self.add("00:17.0", "a102", 0x010601).msi().pin(1).power().bar(
            0, 0xf7240000, 8 * KIB, 0).bar(1, 0xf7247000, 256, 0).bar(
                2, 0xf090, 8, 1).bar(3, 0xf080, 4, 1).bar(4, 0xf060, 32, 1)
        self.sound()
        self.port("00:1c.0", 1, (0xf7100000, 0xf7100000))
        self.nic("01:00.0", 0xf7100000)
        return self

    def xhci(self, bdf="00:14.0", bar=0xf7220000):
        return self.add(bdf, "a12f", 0x0c0330).power().msi().pin(1).bar(
            0, bar, 64 * KIB)

    def sound(self):
        """In one slot with what no guest is given."""
        self.add("00:1f.2", "a121", 0x058000, given=False).bar(
            0, 0xf7248000, 16 * KIB, 0)
        self.add("00:1f.3", "a170", 0x040300).power().msi().pin(1).bar(
            0, 0xf7230000, 16 * KIB).bar(4, 0xf7200000, 64 * KIB)
        self.add("00:1f.4", "a123", 0x0c0500, given=False).pin(1).bar(
            0, 0xf7246000, 256).bar(4, 0xf040, 32, 1)
        self.add("00:1f.5", "a124", 0x0c8000, given=False).bar(
            0, 0xfe010000, 4 * KIB, 0)
        return self

    def port(self, bdf, bus, window=None, last=None):
        """Of 100 Series, whose ACS control is not where it should be."""
        self.extra.append(f"after {bdf} 108 1f 1d")
        return self.add(bdf, "a110", 0x060400).express(ROOT_PORT).msi().pin(
            1).acs(0x108).bridge(bus, last, window)

    def without_acs(self):
        """Nobody switches it on: there is no IOMMU, or no ECAM."""
        self.extra = [e for e in self.extra if not e.startswith("after")]
        return self

    def nic(self, bdf, bar):
        return self.add(bdf, "1533", 0x020000).power().express(ENDPOINT).msix(
            5, 3, 0, 0x2000).pin(1).bar(0, bar, 128 * KIB, 0).bar(
                3, bar + 0x80000, 16 * KIB, 0)

    def refuses(self, *words):
        self.refusal = words[0]
        return self

    # -- the files

    def _tables(self):
        fadt = bytearray(208)
        struct.pack_into("<I", fadt, 64 - 36, 0x1804)
        struct.pack_into("<I", fadt, 76 - 36, self.pm_timer)
        madt = struct.pack("<II", 0xfee00000, 1)
        for n in range(4):
            madt += struct.pack("<BBBBI", 0, 8, n + 1, 2 * n, 1)
        madt += struct.pack("<BBBBII", 1, 12, 2, 0, 0xfec00000, 0)
        madt += struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)
        madt += struct.pack("<BBBBIH", 2, 10, 0, 9, 9, 0xd)
        mcfg = bytes(8) + struct.pack("<QHBBI", self.mcfg, 0, 0,
                                      self.last_bus, 0)
        tables = [header(b"FACP", 5, bytes(fadt)), header(b"APIC", 3, madt),
                  header(b"MCFG", 1, mcfg)]
        if self.drhds:
            tables.append(header(b"DMAR", 1, bytes([38, 1]) + bytes(10) +
                                 b"".join(self.drhds + self.rmrrs)))
        return tables

    def lines(self):
        yield "# " + self.note
        yield "# written by tests/fleet/make_machines.py"
        yield "name " + self.name
        yield f"ecam {self.ecam:x}"
        for row in sorted(self.rows):
            yield "e820 {:x} {:x} {:x}".format(*row)
        at = TABLES
        for table in self._tables():
            yield f"acpi {at:x} {table[:4].decode()} {table.hex()}"
            at += len(table) + 63 & ~63
        for unit in self.units:
            yield "unit " + " ".join(f"{word:x}" for word in unit)
        for (leaf, sub), r in self.cpuid.items():
            yield "cpuid {:x} {:x} {:x} {:x} {:x} {:x}".format(leaf, sub, *r)
        for number, value in self.msr.items():
            yield f"msr {number:x} {value:x}"
        yield from self.extra
        for bdf, f in sorted(self.functions.items()):
            yield from _config_lines(paper.text_of(bdf), f)

    def finish(self):
        """Multi-function bits (PCI 3.0, 6.2.1)."""
        for bdf in self.functions:
            if bdf & 7 and bdf & ~7 in self.functions:
                self.functions[bdf & ~7].config[0xe] |= 0x80

    def expected(self):
        if self.refusal:
            return [f"refuses {self.refusal}"]
        given = [f"{f.kind()} {paper.text_of(bdf)}"
                 for bdf, f in sorted(self.functions.items()) if f.given]
        return ["starts", *given, f"memory {self.percent}"]

    def write(self, directory):
        self.finish()
        path = directory / f"{self.name}.fleet"
        path.write_text("\n".join(self.lines()) + "\n")
        path.with_suffix(".expect").write_text(
            "\n".join([expect.MARK + HV, *self.expected()]) + "\n")


def _config_lines(bdf, f):
    """What is not zero, in lines of 16 bytes at most."""
    for name, data in (("cfg", f.config), ("msk", f.mask)):
        for at in range(0, 4096, 16):
            part = bytes(data[at:at + 16]).rstrip(b"\0")
            lead = len(part) - len(part.lstrip(b"\0"))
            if part:
                yield f"{name} {bdf} {at + lead:x} {part[lead:].hex()}"


MACHINES = []


def machine(make):
    MACHINES.append(make)
    return make


@machine
def usb_rmrr():
    m = Machine("usb-rmrr", "a 6th generation desktop: an RMRR for its USB "
                "controller in reserved memory").usual()
    m.rmrrs.append(rmrr(0x87100000, 128 * KIB, "00:14.0"))
    return m


@machine
def usb_rmrr_in_ram():
    m = Machine("usb-rmrr-in-ram", "an RMRR for USB where the memory map says "
                "RAM").usual()
    m.rmrrs.append(rmrr(0x3e2e0000, 128 * KIB, "00:14.0"))
    return m


@machine
def usb_owned():
    """xHCI 7.1: USBLEGSUP at 0x8040, BIOS-owned; halted at once."""
    m = Machine("usb-owned", "firmware holds the USB controller, and does not "
                "give it back")
    m.xhci()
    m.rmrrs.append(rmrr(0x87100000, 128 * KIB, "00:14.0"))
    m.extra += ["mem f7220000 80000001 00000000 00000000 00000000 00001020",
                "mem f7220084 01000000", "mem f7228040 01000100 01000000"]
    return m


@machine
def shared_slot():
    return Machine("shared-slot", "sound in one slot with PMC, SMBus and SPI, "
                   "which stay Monocle's").sound()


@machine
def nine():
    m = Machine("nine", "nine functions and more").usual()
    m.add("00:1f.6", "15b8", 0x020000).power().msi().pin(1).bar(
        0, 0xf7260000, 128 * KIB, 0)
    m.add("00:1e.6", "9d2d", 0x080501).pin(1).power().msi().bar(
        0, 0xf7251000, 4 * KIB)
    m.add("00:1e.0", "9d27", 0x118000, given=False).bar(
        0, 0xf7252000, 4 * KIB)
    return m


@machine
def many():
    m = Machine("many", "35 NICs: five cards of seven ports")
    for n in range(1, 6):
        at = 0xf8000000 + n * MIB
        m.port(f"00:1c.{n - 1}", n, (at, at))
        for function in range(7):
            m.add(f"{n:02x}:00.{function}", "1521", 0x020000).express(
                ENDPOINT).acs().msi().pin(1 + function % 4).bar(
                    0, at + function * 0x20000, 128 * KIB, 0)
    return m


@machine
def function_0_kept():
    m = Machine("function-0-kept", "function 0 of a slot is nobody's; what is "
                "beside it is the guest's")
    m.add("00:15.0", "9d60", 0x118000, given=False).bar(
        0, 0xf7250000, 4 * KIB)
    m.add("00:15.1", "9d2d", 0x080501).pin(2).power().msi().bar(
        0, 0xf7251000, 4 * KIB)
    m.port("00:1c.0", 1, (0xf7100000, 0xf7100000))
    m.add("01:00.0", "10ec:5287", 0xff0000, given=False).express(
        ENDPOINT).pin(1).bar(0, 0xf7110000, 4 * KIB, 0)
    m.add("01:00.1", "10ec:8168", 0x020000).express(ENDPOINT).msi().pin(
        2).bar(0, 0x1, 0, 1).bar(2, 0xf7114000, 4 * KIB)
    return m


@machine
def unit_at_0():
    m = Machine("unit-at-0", "firmware has switched a unit off, and names it "
                "at address 0").usual()
    m.drhds.insert(1, drhd(0, [scope("00:05.0")]))
    return m


@machine
def two_units_for_all():
    """And a tail that is no structure: UEFI leaves room for more."""
    m = Machine("two-units-for-all", "of two units for all others one stands "
                "at address 0; the table has a tail of zeros").usual()
    m.drhds.append(drhd(0, every=True))
    m.rmrrs.append(bytes(16))
    return m


@machine
def gfx_unit_at_0():
    m = Machine("gfx-unit-at-0", "the unit that is switched off is the "
                "graphics'").usual()
    m.drhds[0] = drhd(0, [scope("00:02.0")])
    return m.refuses("iommu=off unsafe-dma ram=identity")


@machine
def dmi_errors():
    """Xen: pci_vtd_quirk(), of XSA-59."""
    m = Machine("dmi-errors", "a chipset that raises an NMI for a DMA fault")
    m.functions[0].put(0x68, 8, 0xfed18001)
    m.extra += ["mem fed181c8 03000000", "after mem fed181c8 ffffffff 100003"]
    return m


@machine
def hub_errors():
    m = Machine("hub-errors", "the same of a server's I/O hub and its ports")
    m.add("00:03.0", "3408", 0x060400).express(ROOT_PORT).bridge(3).put(
        0x100, 4, 0x00010001)
    m.add("00:14.0", "342e", 0x080000, given=False).express(9).put(
        0x1ac, 4, 1, 0xffffffff)
    for bdf, at, bits in (("00:03.0", 0x108, 1 << 20), ("00:03.0", 0x114, 1 << 13),
                          ("00:03.0", 0x20c, 1 << 4), ("00:14.0", 0x1ac, 1 << 31)):
        m.functions[paper.bdf_of(bdf)].put(at, 4, 1, 0xffffffff)
        m.extra.append(f"after {bdf} {at:x} ffffffff {bits | 1:x}")
    return m


@machine
def ioapic_by_two_names():
    m = Machine("ioapic-by-two-names", "MADT and DMAR have different IDs for "
                "the only I/O APIC").usual()
    m.drhds[1] = drhd(UNIT, [scope("f0:1f.0", 3, 0)], every=True)
    return m


@machine
def ioapic_unnamed():
    m = Machine("ioapic-unnamed", "one of two I/O APICs is in no scope; it has "
                "the ISA lines").usual()
    m.drhds[1] = drhd(UNIT, [scope("f0:1f.0", 3, 0), scope("00:05.4", 3, 1)],
                      every=True)
    return m


@machine
def deaf_unit():
    m = Machine("deaf-unit", "the graphics' unit answers; the one for all "
                "others does not").usual()
    m.units.pop()
    for bdf, f in m.functions.items():
        f.given &= bdf == paper.bdf_of("00:02.0")
    return m


@machine
def no_dmar():
    m = Machine("no-dmar", "VT-d is off in the firmware's setup").usual()
    m.without_acs().drhds = []
    return m.refuses("iommu=off")


@machine
def bad_dmar():
    m = Machine("bad-dmar", "a structure of the DMAR table has no end").usual()
    m.drhds.append(struct.pack("<HH", 1, 4))
    return m.refuses("iommu=off")


@machine
def broadwell():
    m = Machine("broadwell", "graphics that do not work behind an IOMMU; "
                "nothing is said of it", 8, 0x1616).usual()
    return m.refuses("igd-dma=direct ram=identity")


@machine
def broadwell_told():
    m = Machine("broadwell-told", "the same, with the words that it needs", 8,
                0x1616).usual()
    m.extra.append("option igd-dma=direct ram=identity")
    return m


def ironlake(name, note):
    """Generation 5: registers of the host bridge (docs/igd.md)."""
    m = Machine(name, note, 7, 0x0046).usual()
    bridge, gfx = m.functions[0], m.functions[paper.bdf_of("00:02.0")]
    bridge.put(2, 2, 0x0044).put(0x52, 2, 0x0350).put(0xa8, 8, 0x89800001)
    bridge.put(0xb0, 4, 0x8c00).put(0xb4, 4, 0).put(0xbc, 4, 0)
    gfx.put(0x50, 2, 0)
    return m


@machine
def ironlake_untold():
    return ironlake("ironlake", "the same of generation 5, without a shadow "
                    "GTT").refuses("igd-dma=direct ram=identity")


@machine
def ironlake_told():
    m = ironlake("ironlake-told", "the same, with the words that it needs")
    m.extra.append("option igd-dma=direct ram=identity")
    return m


@machine
def shared_unit():
    m = Machine("shared-unit", "graphics that are to do DMA past an IOMMU "
                "that others are behind, too").usual()
    m.drhds = m.drhds[1:]
    m.extra.append("option igd-dma=direct ram=identity")
    return m.refuses("igd-dma=direct cannot be")


@machine
def left_on():
    """GSTS: translation and interrupt remapping; PMEN."""
    m = Machine("left-on", "firmware left its IOMMUs on; Monocle is told not "
                "to use them", 8, 0x1616).usual()
    m.without_acs()
    m.units = [(at, *rest, 0x82000000) for at, *rest in m.units]
    m.extra.append("option iommu=off unsafe-dma ram=identity")
    for at, *_ in m.units:
        m.extra += [f"mem {at + 0x64:x} 01000080",
                    f"after mem {at + 0x1c:x} 82000000 0",
                    f"after mem {at + 0x64:x} 80000001 0"]
    return m


@machine
def pit_stopped_cpuid():
    m = Machine("pit-stopped-cpuid", "the 8254 stands still; CPUID 0x15 lacks "
                "the crystal, 0x16 is there, no ACPI timer")
    m.extra.append("pit off")
    m.pm_timer = 0
    return m


@machine
def pit_stopped_timer():
    m = Machine("pit-stopped-timer", "the 8254 stands still, CPUID says "
                "nothing: the ACPI timer")
    m.extra += ["pit off", "tsc 9502f900"]      # 2.5 GHz
    m.cpuid[0, 0] = (0xd, *m.cpuid[0, 0][1:])
    del m.cpuid[0x15, 0], m.cpuid[0x16, 0]
    return m


@machine
def no_clock():
    m = Machine("no-clock", "nothing tells how fast the TSC is")
    m.extra += ["pit off", "pmtimer off"]
    m.cpuid[0, 0] = (0xd, *m.cpuid[0, 0][1:])
    del m.cpuid[0x15, 0], m.cpuid[0x16, 0]
    return m.refuses("frequency is unknown")


@machine
def ehci_by_line():
    """Ivy Bridge: units without large pages; EHCI without MSI."""
    m = Machine("ehci-by-line", "Ivy Bridge: EHCI controllers that have an "
                "RMRR and INTx alone", 7, 0x0152)
    for bdf, device, bar in (("00:1a.0", "1e2d", 0xf7218000),
                             ("00:1d.0", "1e26", 0xf7217000)):
        m.add(bdf, device, 0x0c0320).power().pin(1, 10).bar(0, bar, KIB, 0)
    m.add("00:1f.2", "1e02", 0x010601).msi().pin(2, 11).bar(
        5, 0xf7216000, 2 * KIB, 0)
    m.add("00:1f.3", "1e22", 0x0c0500, given=False).pin(3, 10).bar(
        0, 0xf7215000, 256).bar(4, 0xf040, 32, 1)
    m.rmrrs.append(rmrr(0x87100000, 64 * KIB, "00:1a.0", "00:1d.0"))
    m.rows[-1] = (4 * GIB, GIB // 2, 1)
    m.functions[0].put(0xa8, 8, 4 * GIB + GIB // 2 | 1)
    m.percent = 97
    return m


@machine
def high_bars():
    m = Machine("high-bars", "BARs above 4 GiB, one of a gigabyte, two that "
                "make 2 MiB side by side")
    m.functions[paper.bdf_of("00:02.0")].bar(
        0, 0x6000000000, 16 * MIB).bar(2, 0x4000000000, 256 * MIB, 0xc)
    m.xhci(bar=0x6001200000)
    m.add("00:1f.3", "a170", 0x040300).msi().pin(1).bar(
        0, 0x6001000000, MIB).bar(4, 0x6001100000, MIB)
    m.port("00:01.0", 1)
    m.add("01:00.0", "10de:1c82", 0x030000).express(ENDPOINT).msi().pin(
        1).bar(0, 0xf8000000, 16 * MIB, 0).bar(1, 0x4040000000, GIB, 0xc).bar(
            3, 0x4080000000, 32 * MIB, 0xc)
    return m


@machine
def fragments():
    m = Machine("fragments", "memory in eighty pieces").usual()
    low = (MIB, 0x87000000 - MIB, 1)
    m.rows.remove(low)
    for n in range(40):
        at = MIB + n * 54 * MIB
        end = min(at + 54 * MIB, 0x87000000)
        m.rows += [(at, end - at - 12 * KIB, 1),
                   (end - 12 * KIB, 12 * KIB, 4 if n % 2 else 2)]
    m.percent = 97
    return m


@machine
def nic_rmrr():
    m = Machine("nic-rmrr", "an RMRR for a NIC (its management shares it) in "
                "reserved memory").usual()
    m.rmrrs.append(rmrr(0x87120000, 64 * KIB, "00:1c.0>00.0"))
    return m


@machine
def nic_rmrr_in_ram():
    m = Machine("nic-rmrr-in-ram", "an RMRR for a NIC where the map says RAM: "
                "it cannot be given").usual()
    m.rmrrs.append(rmrr(0x3e2e0000, 64 * KIB, "00:1c.0>00.0"))
    m.functions[paper.bdf_of("01:00.0")].given = False
    return m


@machine
def bar_in_ram():
    m = Machine("bar-in-ram", "a NIC that firmware has left a BAR where the "
                "map says RAM").usual()
    m.add("00:1f.6", "15b8", 0x020000, given=False).power().msi().pin(1).bar(
        0, 0x40000000, 128 * KIB, 0)
    return m


@machine
def ide():
    """PCI IDE Controller Specification 1.0, 2: one native, one not."""
    m = Machine("ide", "SATA as IDE: in native mode, and at the ports of ISA")
    for bdf, code, at in (("00:1f.2", 0x01018f, 0xf060),
                          ("00:1f.5", 0x01018a, 0xf020)):
        m.add(bdf, "1c00", code, given=code & 5 == 5).pin(2).bar(
            0, at + 0x18, 8, 1).bar(1, at + 0x14, 4, 1).bar(
                4, at, 16, 1)
    return m


@machine
def odd_requesters():
    m = Machine("odd-requesters", "SATA that sends as function 1, with and "
                "without one; a bridge that hides that it is PCI Express")
    m.port("00:1c.0", 1, (0xf7100000, 0xf7100000))
    m.add("01:00.0", "1b4b:9172", 0x010601).express(ENDPOINT).msi().pin(
        1).bar(5, 0xf7110000, 512, 0)
    m.port("00:1c.1", 2, (0xf7300000, 0xf7300000))
    for function, device, code in ((0, "9130", 0x010601), (1, "91a4", 0x01018f)):
        m.add(f"02:00.{function}", "1b4b:" + device, code).express(
            ENDPOINT).msi().pin(1).bar(4, 0xe000 + 16 * function, 16, 1)
    m.port("00:1c.2", 3, (0xf7400000, 0xf7400000), 4)
    m.add("03:00.0", "1b21:1080", 0x060401).bridge(
        4, 4, (0xf7400000, 0xf7400000))
    m.add("04:01.0", "10ec:8139", 0x020000).pin(1).bar(
        1, 0xf7400000, 256, 0)
    m.extra += ["requester 01:00.0 01:00.1", "requester 02:00.0 02:00.1",
                "requester 04:01.0 04:00.0"]
    return m


@machine
def ports_without_acs():
    """Intel 7 Series: RCBA at 00:1f.0; UPDCR; MPC of each port."""
    m = Machine("ports-without-acs", "two root ports of Ivy Bridge's chipset, "
                "one card each; groups are given whole", 7, 0x0152)
    m.functions[paper.bdf_of("00:1f.0")].put(0xf0, 4, 0xfed1c001)
    for n, ident, given in ((0, "1533", True), (1, "1cc2", False)):
        at = 0xf7100000 + n * MIB
        port = m.add(f"00:1c.{n}", f"1e1{n}", 0x060400).express(ROOT_PORT)
        port.pin(1).bridge(n + 1, None, (at, at)).put(0xd8, 4, 0x110000,
                                                      0xff000000)
        m.add(f"{n + 1:02x}:00.0", ident, 0x020000 if given else 0xff0000,
              given).express(ENDPOINT).msi().pin(1).bar(0, at, 16 * KIB, 0)
        m.extra.append(f"after 00:1c.{n} d8 4000000 4000000")
    m.extra += ["option strict-groups", "mem fed1d014 3f000000",
                "after mem fed1d014 3f 0"]
    return m


@machine
def mcfg_in_ram():
    m = Machine("mcfg-in-ram", "an MCFG table that points into RAM; ECAM is "
                "elsewhere").usual()
    m.mcfg = 0x40000000
    m.without_acs()
    return m


@machine
def mcfg_elsewhere():
    m = Machine("mcfg-elsewhere", "an MCFG table that points to where nothing "
                "is; ECAM is elsewhere").usual()
    m.mcfg = 0xe8000000
    m.rows.append((m.mcfg, 64 * MIB, 2))
    m.without_acs()
    return m


@machine
def segments():
    """Of paths with several hops, and a unit of another segment."""
    m = Machine("segments", "a second segment with a unit of its own; paths "
                "of several hops; a PCI bus behind a bridge")
    m.port("00:1c.0", 1, (0xf7000000, 0xf7100000), 3)
    m.add("01:00.0", "10b5:8112", 0x060400).express(PCIE_TO_PCI).bridge(
        2, 3, (0xf7000000, 0xf7100000))
    m.add("02:04.0", "10ec:8139", 0x020000).pin(1).bar(
        0, 0xe000, 256, 1).bar(1, 0xf7100000, 256, 0)
    m.port("00:1c.4", 4, (0xf7300000, 0xf7300000))
    m.add("04:00.0", "144d:a804", 0x010802).express(ENDPOINT).msix(
        8, 0, 0x3000, 0x2000).pin(1).bar(0, 0xf7300000, 16 * KIB)
    m.units += [(0xfed92000, *UNITS[9][1]), (0xfed93000, *UNITS[9][1])]
    m.drhds[1:1] = [drhd(0xfed92000, [scope("00:1c.4>00.0")]),
                    drhd(0xfed93000, every=True, segment=1)]
    return m


@machine
def root_buses():
    """As Arrow Lake has it, and X299: addresses of theirs among bus 0's."""
    m = Machine("root-buses", "the chipset is on a root bus of its own, 0x80; "
                "a third one, 0xb2, has a card; MCFG has all buses")
    m.last_bus = 0xff
    m.rows.append((0xe4000000, 0xc000000, 2))
    m.port("00:06.0", 1, (0xf7000000, 0xf7000000), 0x7f)
    m.add("01:00.0", "144d:a80c", 0x010802).express(ENDPOINT).msix(
        8, 0, 0x3000, 0x2000).pin(1).bar(0, 0xf7000000, 16 * KIB)
    m.xhci("00:0d.0", 0xf7f00000)
    m.xhci("80:14.0", 0xf7220000)
    m.add("80:16.0", "7f68", 0x078000).power().msi().pin(1).bar(
        0, 0x5020814000, 4 * KIB)
    m.add("80:17.0", "7f62", 0x010601).msi().pin(1).power().bar(
        0, 0xf7240000, 8 * KIB, 0).bar(1, 0xf7247000, 256, 0).bar(
            4, 0xe060, 32, 1)
    m.port("80:1b.0", 0x81)
    m.port("80:1b.4", 0x82, (0xf7300000, 0xf7300000), 0x84)
    m.nic("82:00.0", 0xf7300000)
    m.add("80:1f.0", "7f08", 0x060100, given=False)
    m.add("80:1f.3", "7f50", 0x040300).power().msi().pin(1).bar(
        0, 0x5020820000, 16 * KIB).bar(4, 0x5020900000, MIB)
    m.add("80:1f.4", "7f23", 0x0c0500, given=False).pin(1).bar(
        0, 0x5020824000, 256).bar(4, 0xefa0, 32, 1)
    m.units.append((0xfed92000, *UNITS[9][1]))
    m.drhds[1:1] = [drhd(0xfed92000, [scope("b2:00.0", 2)])]
    m.rmrrs.append(rmrr(0x87100000, 128 * KIB, "80:17.0"))
    m.port("b2:00.0", 0xb3, (0xfb000000, 0xfb0fffff), 0xb3).put(
        0x24, 4, 0x0ff10001).put(0x28, 8, 0x60 | 0x60 << 32)
    m.add("b2:05.0", "2034", 0x088000, given=False)
    m.add("b2:05.4", "2036", 0x080020, given=False).bar(
        0, 0xfb200000, 4 * KIB, 0)
    m.add("b3:00.0", "10de:1c82", 0x030000).express(ENDPOINT).msi().pin(
        1).bar(0, 0xfb000000, MIB, 0).bar(
            2, 0x6000000000, 256 * MIB, 0xc).bar(4, 0xc000, 128, 1)
    return m


@machine
def vtx_locked():
    m = Machine("vtx-locked", "VT-x is off in the firmware's setup")
    m.msr[0x3a] = 1
    return m.refuses("VT-x")


@machine
def no_graphics():
    m = Machine("no-graphics", "a card alone: there is no Intel graphics")
    m.functions.pop(paper.bdf_of("00:02.0"))
    m.port("00:01.0", 1, (0xf8000000, 0xf8f00000))
    m.add("01:00.0", "10de:1c82", 0x030000).express(ENDPOINT).msi().pin(
        1).bar(0, 0xf8000000, 16 * MIB, 0)
    return m.refuses("00:02.0")


def main():
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else OWN
    directory.mkdir(exist_ok=True)
    for make in MACHINES:
        make().write(directory)


if __name__ == "__main__":
    main()
