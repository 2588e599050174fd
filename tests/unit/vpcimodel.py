# SPDX-License-Identifier: MIT
"""The guest's PCI with one assigned function, by its ports."""

FAKES = """
#include "drivers/pci/pci.h"
#include "tests/unit/fakes.h"
u8 host_config[0x10000][256];
u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	u32 value = 0;
	(void)pci;
	if (offset % size || offset + size > 256)
		__builtin_trap();
	for (unsigned i = 0; i < size; i++)
		value |= (u32)host_config[bdf][offset + i] << (8 * i);
	return value;
}
u32 pci_port_read(bdf_t bdf, unsigned offset, unsigned size)
{
	return pci_config_read(NULL, bdf, offset, size);
}
void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	(void)pci;
	if (offset % size || offset + size > 256)
		__builtin_trap();
	fakes_record(FAKE_OTHER, (u64)bdf << 8 | offset, size, value);
	for (unsigned i = 0; i < size; i++)
		host_config[bdf][offset + i] = (u8)(value >> (8 * i));
}
"""
ADDRESS, DATA = 0xcf8, 0xcfc
IO, MEMORY, MASTER = 1, 2, 4
NOWHERE = 2**64 - 1
VGA = 0x0010                # 00:02.0


def header(vendor=0x1234, device=0x1111, command=0x0107, status=0x02b0,
           class_=0x0300, fn_header=0x80, **more):
    """256 bytes of a real card: everything that is set is recognisable."""
    config = bytearray((7 * i + 0x31) % 251 + 1 for i in range(256))
    fields = {0: (vendor, 2), 2: (device, 2), 4: (command, 2), 6: (status, 2),
              8: (2, 1), 9: (0, 1), 0xa: (class_, 2), 0xe: (fn_header, 1),
              0x2c: (0x1af4, 2), 0x2e: (0x1100, 2), 0x34: (0x40, 1),
              0x3c: (11, 1), 0x3d: (1, 1), **more}
    for at, (value, size) in fields.items():
        config[at:at + size] = value.to_bytes(size, "little")
    return config


VGA_BARS = {0: (0xfd000000, 16 << 20, 0, 0, 1), 1: (0xc000, 256, 1, 0, 0),
            2: (0x800000000, 1 << 33, 0, 1, 1), 5: (0xfebf0000, 4096, 0, 0, 0)}


class Machine:
    """A bus with the bridges and one assigned function."""

    def __init__(self, m, bars=None, config=None, forward=0, bdf=VGA,
                 pin=0, rows=(), rom=0, cold=False):
        self.m, self.events, self.pin = m, [], pin
        self.interrupts = []    # what was wanted at each change
        self.bars = VGA_BARS if bars is None else bars
        self.bus = m.new("struct bus *")
        self.pci = m.new("struct vpci *")
        self.host = m.new("struct pci_host *")
        self.config = config or header()
        self.bdf = bdf
        m.host_config[bdf] = bytes(self.config)
        self.function = m.new("struct pci_function *", {"bdf": bdf})
        for i, (base, size, io, is64, prefetchable) in self.bars.items():
            self.function.bars[i] = {
                "base": base, "size": size, "io": io, "is64": is64,
                "prefetchable": prefetchable}
        self.identity = m.new("struct pci_identity *", {
            "vendor": 0x8086, "device": 0x1237, "revision": 2,
            "subsystem_vendor": 0x17aa, "subsystem": 0x3978})
        self.isa = m.new("struct pci_identity *", {
            "vendor": 0x8086, "device": 0x9d48, "revision": 0x21})
        self.bridges = m.new("struct pci_bridge[2]")
        self.assigned = m.new("struct pci_assigned *")
        changed = m.callback("void(void *, unsigned)", self.changed)
        interrupts = m.callback(
            "void(void *)", lambda _: self.interrupts.append(self.wanted()))
        self.setup = m.new("struct pci_assigned_config *", {
            "host": self.host, "function": self.function,
            "command_forward": forward, "bar_changed": changed,
            "interrupts_changed": interrupts, "pin": pin,
            "rows": rows or m.NULL, "row_count": len(rows),
            "rom_size": rom, "cold": cold})
        assert m.vpci_init(self.pci, self.bus) == 0
        assert m.host_bridge_init(self.bridges, self.pci, self.identity) == 0
        assert m.isa_bridge_init(self.bridges + 1, self.pci, self.isa) == 0
        assert m.pci_assigned_init(self.assigned, self.pci, self.setup) == 0
        self.access = m.new("struct bus_access *")

    def changed(self, _, i):
        self.events.append((i, self.assigned.decoded[i]))

    def port(self, port, size, value=None):
        a = self.access
        a.addr, a.size, a.write = port, size, value is not None
        a.value = 0xdeadbeefdeadbeef if value is None else value
        assert self.m.bus_dispatch(self.bus, self.m.BUS_PORT, a) == 0
        return a.value if value is None else None

    def select(self, bdf, offset):
        self.port(ADDRESS, 4, 1 << 31 | bdf << 8 | offset & 0xfc)

    def read(self, bdf, offset, size=4):
        self.select(bdf, offset)
        return self.port(DATA + offset % 4, size)

    def write(self, bdf, offset, value, size=4):
        self.select(bdf, offset)
        self.port(DATA + offset % 4, size, value)

    def wanted(self):
        """What the guest wants raised: MSI, MSI-X (on, masked), INTx."""
        msi = self.m.pci_assigned_msi(self.assigned)
        masked = self.m.new("bool *")
        on = self.m.pci_assigned_msix(self.assigned, masked)
        return ((msi.enabled, msi.mask, msi.address, msi.data),
                (on, masked[0]), self.m.pci_assigned_intx(self.assigned))

    def chain(self):
        """[(offset, ID)] as a guest walks it; it has to end."""
        out, at = [], 0
        if self.read(self.bdf, 6, 2) & 0x10:
            at = self.read(self.bdf, 0x34, 1)
        while at:
            assert at >= 0x40 and at % 4 == 0 and len(out) < 48
            out.append((at, self.read(self.bdf, at, 1)))
            at = self.read(self.bdf, at + 1, 1)
        return out

    def host_writes(self):
        return [(e.addr >> 8, e.addr & 0xff, e.size, e.value)
                for e in self.m.events("other")]

    def bar_masks(self):
        """{register: (writable bits, fixed low bits)} by PCI 6.2.5.1."""
        out = {}
        for i, (_, size, io, is64, prefetchable) in self.bars.items():
            mask = 2**64 - size
            out[i] = (mask & (0xfffffffc if io else 0xfffffff0),
                      io | is64 << 2 | prefetchable << 3)
            if is64:
                out[i + 1] = (mask >> 32, 0)
        return out
