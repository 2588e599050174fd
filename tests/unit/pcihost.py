# SPDX-License-Identifier: MIT
"""A host's PCI whose configuration spaces are byte arrays."""

ECAM = 0xb000_0000
FAKES = """
#include "kernel/phys.h"
void *phys_to_virt(hpa_t hpa) { return (void *)hpa; }
volatile void *mmio_map(hpa_t hpa, u64 size)
{ (void)size; return (volatile void *)hpa; }
"""


def bdf(bus, dev, fn=0):
    return bus << 8 | dev << 3 | fn


class Function:
    """256 bytes, and for each of them the bits that a write changes."""

    def __init__(self, vendor=0x8086, device=0x1234, cls=0x020000, header=0,
                 multi=False, secondary=0):
        self.config, self.writable = bytearray(4096), bytearray(4096)
        self.put(0, 2, vendor)
        self.put(2, 2, device)
        self.put(4, 2, 0x0007)
        self.put(8, 4, cls << 8 | 0x5a)
        self.put(0xe, 1, header | multi << 7)
        self.writable[4:6] = b"\x47\x05"
        if header:
            self.put(0x19, 1, secondary)

    def put(self, at, size, value):
        self.config[at:at + size] = value.to_bytes(size, "little")

    def bar(self, n, value, mask):
        """A BAR register: its value and its writable bits."""
        self.put(0x10 + 4 * n, 4, value)
        self.writable[0x10 + 4 * n:0x14 + 4 * n] = mask.to_bytes(4, "little")

    def capabilities(self, *chain):
        """[(offset, id, next)]; the first is where 0x34 points."""
        self.put(6, 2, 0x10)
        if chain:
            self.put(0x34, 1, chain[0][0])
        for at, kind, following in chain:
            self.put(at & 0xfc, 2, kind | following << 8)

    def read(self, at, size):
        return int.from_bytes(self.config[at:at + size], "little")

    def write(self, at, size, value):
        for i, byte in enumerate(value.to_bytes(size, "little")):
            mask = self.writable[at + i]
            self.config[at + i] = self.config[at + i] & ~mask | byte & mask


MS = 1000       # of ticks
BAR = 0x10000000
PM, EXPRESS, AF = 1, 0x10, 0x13
NONE, FLR, AF_FLR, POWER, BUS = range(5)


class Device(Function):
    """A function that can be reset: it is away for a time, then as new."""

    def __init__(self, m, flr=False, af=False, power=False, away=50 * MS,
                 pending=0, **fields):
        super().__init__(**fields)
        self.m, self.away, self.pending = m, away, pending
        self.back, self.resets, self.early = 0, [], []
        self.placed = False     # its BAR had an address before the reset
        caps = [(at, kind, 0) for at, kind, on in
                [(0x40, EXPRESS, flr), (0x60, AF, af), (0x70, PM, power)]
                if on]
        caps = [(at, kind, after[0] if after else 0) for (at, kind, _), after
                in zip(caps, [*caps[1:], None])]
        self.capabilities(*caps)
        self.flr, self.af, self.power = flr, af, power
        if flr:
            self.put(0x44, 4, 1 << 28)
        if af:
            self.put(0x62, 2, 0x0300 | 6)
        self.bar(0, BAR, 0xfffff000)
        self.put(0x3c, 1, 11)
        for at in (0xc, 0x3c, 0x48, 0x74):
            self.writable[at] = 0xff
        self.initial = bytearray(4096)
        self.initial[:] = self.config
        self.initial[4:6] = bytes(2)
        self.initial[0x10:0x14] = bytes(4)
        self.initial[0x3c] = 0

    def reset(self, how):
        self.resets.append(how)
        self.placed = any(self.config[0x10:0x14])
        if self.m.tsc < self.pending:
            self.early.append(how)
        self.config[:] = self.initial
        self.back = self.m.tsc + self.away

    def read(self, at, size):
        if self.m.tsc < self.back:
            return 2 ** (8 * size) - 1
        if self.flr and at == 0x4a and size == 1:
            return 0x20 * (self.m.tsc < self.pending)
        if self.af and at == 0x65:
            return int(self.m.tsc < self.pending)
        return super().read(at, size)

    def write(self, at, size, value):
        if self.m.tsc < self.back:
            return
        if self.flr and at == 0x48 and value & 0x8000:
            self.reset(FLR)
        elif self.af and at == 0x64 and value & 1:
            self.reset(AF_FLR)
        elif self.power and at == 0x74:
            before = self.config[0x74] & 3
            super().write(at, size, value)
            if before == 3 and not value & 3:
                self.reset(POWER)
        else:
            super().write(at, size, value)
        assert not (self.placed and self.config[4] & 2) or any(
            self.config[0x10:0x14]), "it answers at address 0, where RAM is"


class Machine:
    """Answers mechanism #1 and, up to last_bus, ECAM; keeps the writes."""

    def __init__(self, m, functions, ecam=False, last_bus=255):
        self.functions, self.address, self.writes = functions, 0, []
        self.log = []
        self.chipset = {}   # {address: [value, its writable bits]}
        m.on_read(self.on_read)
        m.on_write(self.on_write)
        self.host = m.new("struct pci_host *")
        if ecam:
            self.host.ecam, self.host.ecam_last_bus = ECAM, last_bus

    def target(self, kind, addr, size):
        if kind in ("read", "write"):
            at = addr - ECAM
            assert 0 <= at < 256 << 20
            return at >> 12, at & 0xfff
        assert 0xcfc <= addr and addr + size <= 0xd00
        assert self.address >> 31, "CONFIG_ADDRESS is not enabled"
        assert not self.address & 0x7f00_0003
        return self.address >> 8 & 0xffff, \
            (self.address & 0xfc) + addr - 0xcfc

    def on_read(self, kind, addr, size):
        if addr in self.chipset:
            return self.chipset[addr][0]
        where, at = self.target(kind, addr, size)
        assert at % size == 0
        self.log.append((kind, where, at, size))
        if where not in self.functions:
            return 2 ** (8 * size) - 1
        return self.functions[where].read(at, size)

    def on_write(self, kind, addr, size, value):
        if kind == "out" and addr == 0xcf8:
            assert size == 4
            self.address = value
            return
        if addr in self.chipset:
            old, mask = self.chipset[addr]
            self.chipset[addr][0] = old & ~mask | value & mask
            return
        where, at = self.target(kind, addr, size)
        assert at % size == 0
        self.writes.append((where, at, size, value))
        if where in self.functions:
            self.functions[where].write(at, size, value)

    def scan(self, m):
        m.pci_scan(self.host)
        found = self.host.functions[0:self.host.count]
        assert [f.bdf for f in found] == sorted({f.bdf for f in found})
        return [f.bdf for f in found]

ENDPOINT, ROOT, UP, DOWN, TO_PCI, TO_EXPRESS, INTEGRATED = 0, 4, 5, 6, 7, 8, 9
ACS, ISOLATION = 0x0d, 0x1d


def function(kind=None, acs=False, secondary=0, multi=False, can=0x5f,
             extended=(), cls=0x020000, vendor=0x8086, device=0x1234):
    """kind: the PCI Express type; None: conventional PCI."""
    f = Function(vendor, device, cls=0x060400 if secondary else cls,
                 header=1 if secondary else 0, multi=multi,
                 secondary=secondary)
    if kind is not None:
        f.capabilities((0x40, 0x10, 0))
        f.put(0x42, 2, 2 | kind << 4)
    chain = [*extended, *([ACS] if acs else [])]
    for n, id_ in enumerate(chain):
        last = n == len(chain) - 1
        f.put(0x100 + 0x40 * n, 4,
              id_ | 1 << 16 | (0 if last else 0x140 + 0x40 * n) << 20)
        if id_ == ACS:
            f.put(0x104 + 0x40 * n, 2, can)
            f.writable[0x106 + 0x40 * n:0x108 + 0x40 * n] = b"\x7f\x00"
    return f
