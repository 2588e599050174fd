# SPDX-License-Identifier: MIT
"""A remapping unit for the VT-d tests: registers, queue, caches, faults.

Written from the VT-d specification with the worst permitted habits: it keeps
everything that it ever translated until an invalidation names it, it sees
memory only as tests/unit/vtd_fakes.c lets it, and caching mode remembers
absence. It notes each rule that the driver breaks in `broken`.
"""

import struct
import sys

import harness

sys.path.insert(0, str(harness.ROOT / "tests"))
from walker import TableError, vtd as walk  # noqa: E402

TE, SRTP, SFL, WBF, QIE, IRE, SIRTP, CFI = (
    1 << n for n in (31, 30, 29, 27, 26, 25, 24, 23))
ONE_SHOT = SRTP | SFL | WBF | SIRTP
FRO, IRO = 0x220, 0xf0
SOURCES = ["drivers/pci/groups.c",
           "drivers/vtd/dmar.c", "drivers/vtd/errors.c", "drivers/vtd/faults.c",
           "drivers/vtd/invalidate.c", "drivers/vtd/regs.c",
           "drivers/vtd/remap.c", "drivers/vtd/tables.c",
           "drivers/vtd/unit.c", "drivers/vtd/vtd.c", "kernel/region.c"]
HEADERS = ["drivers/vtd/vtd.h", "kernel/log.h", "kernel/phys.h",
           "tests/unit/vtd_fakes.h"]


def build(name="vtd", sources=None, sanitize=True):
    return harness.build(name, sources or SOURCES, headers=HEADERS,
                         fakes="tests/unit/vtd_fakes.c", sanitize=sanitize)


def cap(sagaw=(4,), mgaw=None, large=2, cm=False, rwbf=False, psi=True,
        mamv=9, records=1, drain=3, pmr=0, domains=6):
    """sagaw: the levels it can; large: 0 none, 1 2 MiB, 2 1 GiB as well."""
    mgaw = mgaw or min(12 + 9 * max(sagaw), 48 if max(sagaw) < 5 else 57)
    return (domains | rwbf << 4 | pmr << 5 | cm << 7 |
            sum(1 << (8 + n - 2) for n in sagaw) | (mgaw - 1) << 16 |
            FRO // 16 << 24 | (0, 1, 3)[large] << 34 | psi << 39 |
            (records - 1) << 40 | mamv << 48 | drain << 54)


def ecap(coherent=False, qi=True, ir=True, eim=False):
    return coherent | qi << 1 | ir << 3 | eim << 4 | IRO // 16 << 8


class Fault(Exception):
    def __init__(self, reason):
        super().__init__(hex(reason))
        self.reason = reason


class Unit:
    """One unit of a Machine."""

    def __init__(self, machine, base, caps, ecaps):
        self.machine, self.base, self.cap, self.ecap = machine, base, caps, \
            ecaps
        self.status = 0
        self.regs = {0x34: 0, 0x64: 0}
        self.root = self.irta = None
        self.context_cache, self.iotlb, self.irt_cache = {}, {}, {}
        self.head, self.last = 0, 0     # of the queue; type of descriptor
        self.iqa = 0            # as it was when the queue was enabled
        self.goes_on = True     # where the queue's error is cleared
        self.records = [(0, 0)] * ((caps >> 40 & 0xff) + 1)
        self.next_record = 0
        self.broken, self.log = [], []
        self.dead = set()       # commands and "queue" that never end
        self.bad_descriptors = 0    # so many end in a queue error

    # --- registers -------------------------------------------------------

    def read(self, at, size):
        value = self._value(at & ~7) if size == 8 or at >= FRO else \
            self._value(at & ~3 if at % 8 in (0, 4) else at)
        if size == 4 and (at >= FRO or at & ~7 in (0x8, 0x10, 0x20, 0x28,
                                                   0x80, 0x88, 0x90, 0xb8,
                                                   IRO, IRO + 8)):
            value = self._value(at & ~7) >> 8 * (at % 8) & 0xffffffff
        return value

    def _value(self, at):
        if FRO <= at < FRO + 16 * len(self.records):
            return self.records[(at - FRO) // 16][(at - FRO) // 8 % 2]
        fixed = {0x0: 0x10, 0x8: self.cap, 0x10: self.ecap,
                 0x1c: self.status, 0x80: self.head}
        return fixed.get(at, self.regs.get(at, 0))

    def write(self, at, size, value):
        if at == 0x18:
            self._command(value)
        elif at == 0x34:
            self.regs[0x34] &= ~(value & 0x7d)
            if value & 0x70 and self.status & QIE and self.goes_on:
                self._run_queue()
        elif FRO <= at < FRO + 16 * len(self.records):
            self._free_record((at - FRO) // 16, at, value)
        elif at == 0x64:
            if not self.status & TE:
                self.broken.append("protected memory changed before TE")
            self.regs[0x64] = value & 1 << 31 | value >> 31
            self.log.append("pmen")
        elif at == 0x28:
            self._context_command(value)
        elif at == IRO + 8:
            self._iotlb_command(value)
        else:
            if size == 8 and at % 8:
                self.broken.append(f"unaligned write at {at:#x}")
            self.regs[at] = value
            if at == 0x88 and self.status & QIE:
                self._run_queue()

    def _command(self, value):
        change = (value ^ self.status) & ~ONE_SHOT | value & ONE_SHOT
        if change & (change - 1):
            self.broken.append(f"command {change:#x} has several bits")
        if self.status & TE and not value & TE and \
                self.regs.get(0x20, 0) >> 10 & 3 != 3:
            self.broken.append("TE was cleared")
        if change in self.dead:
            return
        if change == QIE and not value & QIE and (
                self.head != self.regs[0x88] or self.last != 5):
            return              # 6.5.2: not in this state
        if change == SRTP:
            # It need not flush the write buffer by itself (6.8).
            self.root = self.regs[0x20]
        elif change == SIRTP:
            self.irta = self.regs[0xb8]
        elif change == WBF:
            self.machine.commit()
        elif change == QIE and value & QIE:
            self.head = self.last = 0
            self.iqa = self.regs[0x90]
        names = {TE: "te", SRTP: "srtp", WBF: "wbf", QIE: "qie", IRE: "ire",
                 SIRTP: "sirtp", CFI: "cfi"}
        sign = "" if value & change else "-"
        self.log.append(sign + names.get(change, hex(change)))
        self.status = value & ~(WBF | SFL) | self.status & (SRTP | SIRTP)

    # --- invalidation ----------------------------------------------------

    def _context_command(self, value):
        self.log.append("context")
        if "context" not in self.dead:
            self.context_cache.clear()
            value = value & ~(1 << 63) | (value >> 61 & 3) << 59
        self.regs[0x28] = value

    def _iotlb_command(self, value):
        self.log.append("iotlb")
        if "iotlb" not in self.dead:
            iva = self.regs.get(IRO, 0)
            self._drop(value >> 60 & 3, value >> 32 & 0xffff, iva & ~0xfff,
                       iva & 0x3f)
            value = value & ~(1 << 63) | (value >> 60 & 3) << 57
        self.regs[IRO + 8] = value

    def _drop(self, granularity, domain, address, order):
        if granularity == 1:
            self.iotlb.clear()
            return
        if granularity == 3:
            if not self.cap >> 39 & 1 or order > (self.cap >> 48 & 0x3f):
                self.broken.append("page-selective beyond the capability")
            if address % (4096 << order):
                self.broken.append("page-selective address is not aligned")
        end = address + (4096 << order)
        for key in list(self.iotlb):
            if key[0] == domain and (granularity == 2 or
                                     address <= key[1] < end):
                del self.iotlb[key]

    def _run_queue(self):
        if "queue" in self.dead:
            return
        tail = self.regs[0x88]
        step = 32 if self.iqa & 1 << 11 else 16
        while self.head != tail and not self.regs[0x34] & 0x70:
            low, high, *rest = struct.unpack(f"<{step // 8}Q", (
                self.machine.memory((self.iqa & ~0xfff) + self.head, step)))
            self.last = low & 15
            if self.bad_descriptors and low & 15 != 5:
                self.bad_descriptors -= 1
                self.regs[0x34] |= 0x10
                return
            self._descriptor(low, high)
            if any(rest):
                self.regs[0x34] |= 0x10
            if not self.regs[0x34] & 0x10:
                self.head = (self.head + step) % (4096 << (self.iqa & 7))

    def _descriptor(self, low, high):
        kind, g = low & 15, low >> 4 & 3
        if kind == 1:
            self.log.append("context")
            self.context_cache.clear()
        elif kind == 2:
            self.log.append("iotlb")
            self._drop(g, low >> 16 & 0xffff, high & ~0xfff, high & 0x3f)
        elif kind == 4:
            self.log.append("iec")
            if low & 16:
                first, count = low >> 32 & 0xffff, 1 << (low >> 27 & 31)
                for i in range(first, first + count):
                    self.irt_cache.pop(i, None)
            else:
                self.irt_cache.clear()
        elif kind == 5:
            self.log.append("wait")
            self.machine.poke(high, low >> 32)
        else:
            self.regs[0x34] |= 0x10

    # --- what a device sees ----------------------------------------------

    def view(self, address, size):
        """Memory as a walk of this unit finds it."""
        m = self.machine.m
        out = m.ffi.new("uint8_t[]", size)
        m.fake_view(address, out, size, bool(self.ecap & 1))
        return bytes(m.ffi.buffer(out))

    def _context(self, bdf):
        if bdf in self.context_cache:
            return self.context_cache[bdf]
        context = walk.contexts(self.view, self.root & ~0xfff).get(bdf)
        if context or self.cap >> 7 & 1:
            self.context_cache[bdf] = context
        return context

    def dma(self, bdf, gpa, write):
        """The host address, or Fault."""
        if not self.status & TE:
            return gpa
        context = self._context(bdf)
        if not context:
            raise Fault(2)
        if gpa >> (self.cap >> 16 & 0x3f) + 1:
            raise Fault(4)
        levels = [n for n in (3, 4, 5) if self.cap >> (8 + n - 2) & 1]
        if context.levels not in levels:
            raise Fault(3)
        key = (context.domain, gpa & ~0xfff)
        if key not in self.iotlb:
            large = [n for n in (2, 3) if self.cap >> (34 + n - 2) & 1]
            try:
                found = walk.translate(self.view, context,
                                       gpa & ~0xfff, large=large)
            except TableError as error:
                raise Fault(12) from error
            if found is None and not self.cap >> 7 & 1:
                raise Fault(5 if write else 6)
            self.iotlb[key] = found
        found = self.iotlb[key]
        if not found or ("w" if write else "r") not in found[1]:
            raise Fault(5 if write else 6)
        return found[0] + (gpa & 0xfff)

    def interrupt(self, source, address, data=0):
        """(vector, APIC ID) of a message, or Fault."""
        if not self.status & IRE:
            return data & 0xff, address >> 12 & 0xff
        eim = bool(self.irta & 1 << 11)
        if not address & 16:
            if self.status & CFI and not eim:
                return data & 0xff, address >> 12 & 0xff
            raise Fault(0x25)
        index = (address >> 5 & 0x7fff) | (address >> 2 & 1) << 15
        if address & 8:
            index += data & 0xffff
        if index not in self.irt_cache:
            entries = 2 << (self.irta & 15)
            if index >= entries:
                raise Fault(0x21)
            found = walk.interrupts(self.view, self.irta & ~0xfff,
                                    entries, eim)
            if index not in found:
                raise Fault(0x22)
            self.irt_cache[index] = found[index]
        entry = self.irt_cache[index]
        ignored = (0, 4, 6, 7)[entry.qualifier]     # 9.10: SQ
        if entry.check == 1 and (entry.source ^ source) & ~ignored:
            raise Fault(0x26)
        return entry.vector, entry.destination

    def record(self, bdf, reason, address, read=True, junk=0):
        """Puts a fault record, as 7.2 says; False: overflow."""
        slot = self.next_record
        if self.regs[0x34] & 1 or self.records[slot][1] >> 63:
            self.regs[0x34] |= 1
            return False
        if not self.regs[0x34] & 2:
            self.regs[0x34] = self.regs[0x34] & ~0xff00 | slot << 8 | 2
        self.records[slot] = (
            address, 1 << 63 | read << 62 | junk << 40 | reason << 32 | bdf)
        self.next_record = (slot + 1) % len(self.records)
        return True

    def _free_record(self, slot, at, value):
        if at % 16 == 12 and value >> 31:
            low, high = self.records[slot]
            self.records[slot] = (low, high & ~(1 << 63))
        elif at % 16 != 12:
            self.broken.append("a fault record was written")
        if not any(high >> 63 for _, high in self.records):
            self.regs[0x34] &= ~2


class Machine:
    """Units, memory and a PCI bus around a struct vtd."""

    BASE = 0xfed90000

    def __init__(self, m, units, functions, dmar):
        """units: [(cap, ecap)]; functions: {bdf: {field: value}}; dmar: the
        table's bytes."""
        self.m = m
        m.lib.fakes_relax_ticks = 10**8     # a time-out takes 40 looks
        self.vtd = m.fake_start()
        self.units = [Unit(self, self.BASE + 0x1000 * i, c, e)
                      for i, (c, e) in enumerate(units)]
        for i, unit in enumerate(self.units):
            m.lib.fake_unit_base[i] = unit.base
        m.lib.fake_coherent = all(u.ecap & 1 for u in self.units)
        m.lib.fake_buffered = any(u.cap >> 4 & 1 for u in self.units)
        self._window = {m.fake_regs(i): u for i, u in enumerate(self.units)}
        m.on_read(self._read)
        m.on_write(self._write)
        self.table = m.ffi.from_buffer(dmar)
        m.lib.fake_dmar = m.ffi.cast("void *", self.table)
        self.pci = m.new("struct pci_host *")
        self.functions = sorted(functions)
        self.pci.count = len(functions)
        for i, bdf in enumerate(self.functions):
            f = self.pci.functions[i]
            f.bdf = bdf
            for name, value in functions[bdf].items():
                if name == "config":
                    for at, byte in value.items():
                        m.lib.fake_config[i][at] = byte
                else:
                    setattr(f, name, value)
            m.lib.fake_config[i][4] = 6
        m.lib.fake_pci = self.pci
        self.config = m.new("struct vtd_config *", {
            "display": m.VTD_NO_DISPLAY})
        self.acpi = m.new("struct acpi_tables *")

    def start(self):
        assert self.init() == 0, self.m.log_text()
        assert self.m.vtd_start(self.vtd) == 0, self.m.log_text()
        self.check()
        return self

    def init(self):
        return self.m.vtd_init(self.vtd, self.acpi, self.pci, self.config)

    def check(self):
        assert [u.broken for u in self.units] == [[]] * len(self.units)

    def _unit(self, addr):
        base = addr & ~0x7fff
        for start, unit in self._window.items():
            if start <= addr < start + 0x8000:
                return unit, addr - start
        raise AssertionError(f"MMIO at {addr:#x} ({base:#x})")

    def _read(self, kind, addr, size):
        unit, at = self._unit(addr)
        return unit.read(at, size)

    def _write(self, kind, addr, size, value):
        arena = int(self.m.ffi.cast("uintptr_t", self.m.lib.fake_arena))
        at = addr - arena
        if 0 <= at < self.m.ARENA_PAGES * 4096:
            self.m.ffi.memmove(self.m.lib.fake_arena + at,
                               value.to_bytes(size, "little"), size)
            self.stored()
            return
        unit, at = self._unit(addr)
        unit.write(at, size, value)

    def stored(self):
        """Behind each store to what a unit may walk meanwhile."""

    def commit(self):
        self.m.fake_commit()

    def memory(self, address, size):
        """Memory as the CPU, and the queue's fetches, find it."""
        at = address - self.m.ARENA_BASE
        if not 0 <= at <= self.m.ARENA_PAGES * 4096 - size:
            return b"\xff" * size
        return bytes(self.m.ffi.buffer(self.m.lib.fake_arena + at, size))

    def poke(self, address, value):
        self.m.fake_poke32(address, value)

    def master(self, bdf):
        return bool(self.m.lib.fake_config[self.functions.index(bdf)][4] & 4)

    def regions(self, rows):
        """A region list of rows (gpa, hpa, size, dma rights, kind)."""
        regions = self.m.new("struct region_list *")
        for gpa, hpa, size, dma, *kind in rows:
            row = self.m.new("struct region *", {
                "gpa": gpa, "hpa": hpa, "size": size, "dma": dma,
                "kind": kind[0] if kind else self.m.REGION_RAM})
            assert self.m.region_add(regions, row, self.m.NULL) == 0
        return regions

    def domain(self, rows):
        regions = self.regions(rows)
        slot = self.m.new("struct vtd_domain **")
        assert self.m.vtd_domain_create(self.vtd, regions, slot) == 0
        slot[0]     # the list must live as long as the domain
        self._keep = getattr(self, "_keep", []) + [regions]
        return slot[0]


def table(entries, width=39, flags=1, checksum=True):
    """A DMAR table of (type, body) structures."""
    body = b"".join(struct.pack("<HH", kind, 4 + len(data)) + data
                    for kind, data in entries)
    head = struct.pack("<4sIBB6s8sI4sI", b"DMAR", 48 + len(body), 1, 0,
                       b"TESTER", b"TESTTABL", 1, b"TEST", 1)
    out = bytearray(head + struct.pack("<BB10x", width - 1, flags) + body)
    if checksum:
        out[9] = -sum(out) & 0xff
    return out


def scope(path, kind=1, bus=0, ident=0):
    return struct.pack("<BBHBB", kind, 6 + 2 * len(path), 0, ident, bus) + \
        bytes(n for hop in path for n in hop)


def drhd(base, scopes=b"", include_all=False, segment=0):
    return 0, struct.pack("<BBHQ", include_all, 0, segment, base) + scopes


def rmrr(base, limit, scopes=b"", segment=0):
    return 1, struct.pack("<HHQQ", 0, segment, base, limit) + scopes
