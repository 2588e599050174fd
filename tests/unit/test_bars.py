# SPDX-License-Identifier: MIT
"""BARs that a guest moves, switches off and lays over each other.

After every write, what the EPT maps, which ports are open and what the bus
passes on is what a naive model says.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from vpcimodel import header

IO, MEMORY = 1, 2
NOWHERE = 2**64 - 1
PAGE, MIB = 4096, 1 << 20
RAM, ECAM, LIMIT = 64 * MIB, 0xe0000000, 1 << 39
A, B = 0x18, 0x20                       # 00:03.0, 00:04.0
MSIX_TABLE = 0x2000
ROM = 6
# {BAR: (base, size, I/O, 64 bit)}; A's BAR 0 has an MSI-X table, and B's ROM
# lies in memory.
BARS = {
    A: {0: (0xf0000000, 0x8000, 0, 0), 1: (0xc000, 64, 1, 0),
        2: (0x600000000, 2 * MIB, 0, 1), 4: (0xf0010000, 256, 0, 0),
        5: (0xf0011000, PAGE, 0, 0)},
    B: {0: (0xf0010100, 128, 0, 0), 1: (0xffe0, 32, 1, 0),
        2: (0xf0020000, 0x2000, 0, 0), 3: (0, 0x1000, 0, 0),
        4: (0x5f0010000, 1024, 0, 1), ROM: (0x200000, 0x2000, 0, 0)}}


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "bars", ["vmm/assign/assigned_bars.c", "vmm/assign/gop.c",
                 "vmm/core/bus.c", "vmm/core/vm.c", "kernel/region.c",
                 "vmm/devmodel/pci_bus.c", "vmm/devmodel/pci_assigned.c"],
        headers=["tests/unit/assign_fakes.h", "kernel/log.h"],
        fakes="tests/unit/bars_fakes.c",
        cdef="struct assignment *fresh_assignment(void);"
             "extern uint8_t host_config[65536][256], io_bitmap[8192];"
             "extern struct region_list ept_list; extern int ept_good;")


class Machine:
    def __init__(self, m, command=IO | MEMORY, cold=False, picture=None):
        m.reset()
        self.m, self.machine = m, m.fresh_assignment()
        self.machine.cold = cold
        self.bus = m.ffi.addressof(self.machine.vm[0], "bus")
        self.vpci = self.machine.vpci
        self.map = m.ffi.addressof(self.machine.vm[0], "map")
        self.access = m.new("struct bus_access *")
        self.reads = []
        m.on_read(self.on_read)
        m.on_write(lambda *what: self.reads.append(what))
        assert m.vpci_init(self.vpci, self.bus) == 0
        # Something emulated at fixed ports.
        assert m.bus_register(self.bus, m.BUS_PORT, 0x3f8, 0x3ff,
                              m.NULL, m.NULL, b"uart") == 0
        for gpa, size, kind in ((0, RAM, "RAM"), (ECAM, MIB, "HOLE"),
                                (0xfee00000, PAGE, "HOLE")):
            assert m.region_add(self.map, m.new("struct region *", {
                "gpa": gpa, "hpa": gpa, "size": size,
                "kind": getattr(m, f"REGION_{kind}"), "name": m.NULL}),
                m.NULL) == 0
        self.functions = [self.function(at, bars, command)
                          for at, bars in BARS.items()]
        self.machine.count = len(BARS)
        if picture:
            self.show(*picture)
        assert m.assigned_pin_bars(self.machine, self.map) == 0
        self.changed = m.callback("void(void *, unsigned)",
                                  m.assigned_bar_changed)
        for n, f in enumerate(self.functions):
            a = self.machine.functions[n]
            config = m.new("struct pci_assigned_config *", {
                "host": self.machine.pci,
                "function": f, "bar_changed": self.changed, "cold": cold,
                "rom_size": a.rom.size, "ctx": m.ffi.addressof(a)})
            assert m.pci_assigned_init(m.ffi.addressof(a, "config"),
                                       self.vpci, config) == 0
        m.assigned_place_bars(self.machine)

    def function(self, at, bars, command):
        m, n = self.m, list(BARS).index(at)
        m.host_config[at] = bytes(header(command=command))
        f = m.new("struct pci_function *", {"bdf": at})
        a = self.machine.functions[n]
        for i, (base, size, io, is64) in bars.items():
            if i == ROM:
                a.rom.data, a.rom.size = m.ffi.cast("u8 *", base), size
                continue
            f.bars[i] = {"base": base, "size": size, "io": io, "is64": is64}
        a.all, a.function = self.machine, f
        a.msix.trapped = NOWHERE
        if n == 0:
            a.msix.host = m.ffi.cast("uint8_t *", 0x1000)
            a.msix.page, a.msix.pages_size = MSIX_TABLE, PAGE
        return f

    def show(self, i, offset, size, prefetchable=True, uefi=True):
        """The first function is the display, its BAR i holds the screen."""
        f = self.functions[0]
        f.bars[i].prefetchable = prefetchable
        self.machine.display, self.machine.uefi = f, uefi
        boot = self.m.ffi.cast("struct boot_info *", self.machine.boot)
        boot.fb.kind, boot.fb.base = self.m.DISPLAY_RGB, f.bars[i].base + offset
        boot.fb.pitch, boot.fb.height = 4096, size // 4096

    def on_read(self, kind, addr, size):
        """A host's register is its own address, in words of the size."""
        self.reads.append((kind, addr, size))
        return addr & (1 << 8 * size) - 1

    def write(self, at, offset, value, size=4):
        self.m.vpci_write(self.vpci, at, offset, size, value)

    def decoded(self):
        return {(at, i): self.machine.functions[n].config.decoded[i]
                for n, (at, bars) in enumerate(BARS.items()) for i in bars}

    def ept(self):
        """{guest page: host page}"""
        out = {}
        for r in self.m.ept_list.regions[0:self.m.ept_list.count]:
            for k in range(0, r.size, PAGE):
                out[r.gpa + k] = r.hpa + k
        return out

    def on_bus(self, space, addr, size=1, value=None):
        a = self.access
        a.addr, a.size, a.write = addr, size, value is not None
        a.value = 0x77 if value is None else value
        assert self.m.bus_dispatch(self.bus, space, a) == 0
        return a.value


class Model:
    """Who is where: first come, and who waits goes in as soon as it fits."""

    def __init__(self):
        self.at = {}

    @staticmethod
    def pages(bar, where):
        size = max(bar[1], PAGE)
        first = where // PAGE * PAGE
        return range(first, first + size, PAGE)

    def fits(self, key, where):
        bar = BARS[key[0]][key[1]]
        base, size, io, _ = bar
        if not base:
            return False
        mine = {(k, BARS[k[0]][k[1]]) for k in self.at if k != key}
        if io:
            taken = [(0x3f8, 0x400), (0xcf8, 0xcf9), (0xcfc, 0xd00)] + [
                (self.at[k], self.at[k] + b[1]) for k, b in mine if b[2]]
        else:
            taken = [(0, RAM), (ECAM, ECAM + MIB),
                     (0xfee00000, 0xfee01000), (LIMIT, 2**64)]
            for k, b in mine:
                at, end = self.at[k], self.at[k] + b[1]
                if not b[2] and (b[1] >= PAGE or size >= PAGE):
                    at = at // PAGE * PAGE      # whole pages of one of them
                    end = -(-end // PAGE) * PAGE
                if not b[2]:
                    taken.append((at, end))
            if size < PAGE and where >= LIMIT:
                return where + size <= 2**64
        if io and where + size > 0x10000:
            return False
        return not any(first < where + size and where < last
                       for first, last in taken)

    def follow(self, wanted, changed=()):
        for key in changed:
            self.at.pop(key, None)
            for k, where in wanted(key).items():
                if where != NOWHERE and k not in self.at and \
                        self.fits(k, where):
                    self.at[k] = where


def model_ept(model):
    out = {}
    for (at, i), where in model.at.items():
        base, size, io, _ = BARS[at][i]
        for k in range(0, 0 if io or size < PAGE else size, PAGE):
            if (at, i) != (A, 0) or k != MSIX_TABLE:
                out[where + k] = base + k
    return out


def open_ports(m):
    """SDM 25.6.4: a bit that is clear."""
    return {8 * n + bit for n, byte in enumerate(m.ffi.buffer(m.io_bitmap)[:])
            if byte != 0xff for bit in range(8) if not byte >> bit & 1}


def compare(machine, model):
    m = machine.m
    assert machine.ept() == model_ept(model)
    home = {p for (at, i), where in model.at.items()
            if BARS[at][i][2] and where == BARS[at][i][0]
            for p in range(where, where + BARS[at][i][1])}
    assert open_ports(m) == home
    for (at, i), where in model.at.items():
        base, size, io, _ = BARS[at][i]
        if io and where != base:
            assert machine.on_bus(m.BUS_PORT, where + 4, 4) == base + 4
            machine.on_bus(m.BUS_PORT, where + size - 1, 1, 0x5a)
            assert machine.reads[-1] == ("out", base + size - 1, 1, 0x5a)
        elif not io and size < PAGE:
            assert machine.on_bus(m.BUS_MMIO, where + 4, 4) == \
                base + 4 & 0xffffffff
        elif (at, i) == (A, 0):
            assert machine.on_bus(m.BUS_MMIO, where + MSIX_TABLE) == 0x51
            assert machine.machine.functions[0].msix.trapped == \
                where + MSIX_TABLE
    # Nothing else answers on the bus.
    small = [b for b in model.at if not BARS[b[0]][b[1]][2]
             and BARS[b[0]][b[1]][1] < PAGE]
    assert machine.bus.count[m.BUS_MMIO] == len(small) + ((A, 0) in model.at)
    moved = [b for b, where in model.at.items() if BARS[b[0]][b[1]][2]
             and where != BARS[b[0]][b[1]][0]]
    assert machine.bus.count[m.BUS_PORT] == len(moved) + 3
    assert m.events("other") == []      # the host's own never change


PLACES = st.sampled_from([
    0, 0x3f8, 0xc000, 0xc020, 0xc100, 0xcf0, 0xffc0, 0xffe0, RAM - PAGE, RAM,
    0xe0000000, 0xf0000000, 0xf0002000, 0xf0008000, 0xf0010000, 0xf0010080,
    0xf0010100, 0xf0011000, 0xf0020000, 0xfee00000, 0xfffff000, 0xffffffff])
ACTS = st.tuples(st.sampled_from([A, B]), st.one_of(
    st.tuples(st.integers(0, 5), PLACES),
    st.tuples(st.just(ROM), PLACES.map(lambda at: at | 1) | PLACES),
    st.tuples(st.just("command"), st.integers(0, 3)),
    st.tuples(st.sampled_from([3, 5]), st.sampled_from([0, 5, 6, 0x7f, 1])),
    st.just(("reset", 0))))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 3), st.lists(ACTS, max_size=25), st.booleans())
def test_against_the_model(m, command, acts, cold):
    machine, model = Machine(m, command, cold), Model()
    state = machine.decoded()
    model.follow(lambda _: state, [None])
    compare(machine, model)
    for at, (what, value) in acts:
        old = machine.decoded()
        if what == "reset":
            m.vpci_reset(machine.vpci)
        elif what == "command":
            machine.write(at, 4, value, 2)
        else:
            machine.write(at, 0x30 if what == ROM else 0x10 + 4 * what, value)
        new = machine.decoded()
        # Told one by one, in order.
        changed = [k for k in new if new[k] != old[k]]
        for n, key in enumerate(changed):
            now = {k: old[k] if k in changed[n + 1:] else new[k]
                   for k in new}
            model.follow(lambda _, now=now: now, [key])
        compare(machine, model)


def test_at_first_all_is_where_firmware_left_it(m):
    machine = Machine(m)
    assert machine.ept()[0xf0000000] == 0xf0000000
    assert 0xf0002000 not in machine.ept()      # the MSI-X table's
    assert machine.ept()[0x6001ff000] == 0x6001ff000
    assert machine.on_bus(m.BUS_MMIO, 0xf0010104, 2) == 0x0104
    assert open_ports(m) >= {0xc000} and 0xc040 not in open_ports(m)
    assert "BAR 3 of 4096 bytes at 0x0 cannot be reached" in m.log_text()


def test_after_power_on_no_bar_is_anywhere(m):
    """Nor is the host's place kept for it: something else may be there."""
    machine = Machine(m, cold=True)
    names = {"ROM", "BAR", "MSI-X table"}
    assert not machine.ept() and not open_ports(m) and not names & {
        m.string(r.name) for r in machine.map.regions[0:machine.map.count]
        if r.name}
    machine.write(A, 0x10, 0xd0000000)
    machine.write(A, 4, MEMORY, 2)
    assert machine.ept()[0xd0000000] == 0xf0000000
    m.vpci_reset(machine.vpci)
    assert not machine.ept()


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_small_bar_and_no_byte_more(m, size):
    """Another device's registers may be on the same page."""
    machine = Machine(m)
    machine.reads.clear()
    for k in range(256 - size + 1):
        assert machine.on_bus(m.BUS_MMIO, 0xf0010000 + k, size) == \
            0xf0010000 + k & (1 << 8 * size) - 1
        machine.on_bus(m.BUS_MMIO, 0xf0010000 + k, size, 0x5a)
        assert machine.reads[-1] == ("write", 0xf0010000 + k, size, 0x5a)
    machine.reads.clear()
    for k in range(256 - size + 1, 256):
        assert machine.on_bus(m.BUS_MMIO, 0xf0010000 + k, size) == \
            (1 << 8 * size) - 1
        machine.on_bus(m.BUS_MMIO, 0xf0010000 + k, size, 0)
    assert machine.on_bus(m.BUS_MMIO, 0xf0010180, size) == (1 << 8 * size) - 1
    assert machine.reads == []


def test_what_a_bar_is_in_the_map(m):
    """Uncached for the CPU alone, in no row of the guest's E820; a ROM is
    memory that it only reads. No other function reaches it by DMA."""
    machine = Machine(m)
    machine.write(B, 0x30, 0xf2000001)
    for regions in m.ept_list, machine.map:
        found = {r.gpa: r for r in regions.regions[0:regions.count]}
        for at in 0xf0000000, 0xf0003000, 0x600000000, 0xf2000000:
            r, rom = found[at], at == 0xf2000000
            assert (r.kind, r.memtype, r.cpu, r.dma, r.e820) == (
                (m.REGION_ROM, m.MEMTYPE_WB, m.REGION_RX, 0, m.E820_NONE)
                if rom else
                (m.REGION_DEVICE, m.MEMTYPE_UC, m.REGION_RW, 0, m.E820_NONE))
    # What traps is a hole: the MSI-X table, and BARs of less than a page.
    for at, size in (0xf0002000, PAGE), (0xf0010000, PAGE):
        r = found[at]
        assert (r.kind, r.size, r.cpu, r.e820) == (
            m.REGION_HOLE, size, 0, m.E820_NONE)


def types(machine, at):
    """(from, to, memory type) of what the EPT has of A's BAR 2."""
    m = machine.m
    return [(r.gpa - at, r.gpa + r.size - at, r.memtype)
            for r in m.ept_list.regions[0:m.ept_list.count]
            if 0 <= r.gpa - at < 2 * MIB]


def test_a_picture_is_written_without_waiting(m):
    """... by UEFI, and where the BAR says that it may be; all pages of it, and
    no others, wherever the guest has moved the BAR."""
    where, moved = 0x600000000, 0x7000000000
    plain = [(0, 2 * MIB, m.MEMTYPE_UC)]
    for picture, wanted in (
            ((2, 0, 2 * MIB), [(0, 2 * MIB, m.MEMTYPE_WC)]),
            ((2, 0, MIB), [(0, MIB, m.MEMTYPE_WC),
                           (MIB, 2 * MIB, m.MEMTYPE_UC)]),
            ((2, 0x8010, MIB), [(0, 0x8000, m.MEMTYPE_UC),
                                (0x8000, MIB + 0x9000, m.MEMTYPE_WC),
                                (MIB + 0x9000, 2 * MIB, m.MEMTYPE_UC)]),
            ((2, 0, MIB, False), plain), ((2, 0, MIB, True, False), plain),
            ((5, 0, PAGE), plain)):
        machine = Machine(m, picture=picture)
        before = machine.ept()
        assert types(machine, where) == wanted
        machine.write(A, 0x1c, moved >> 32)
        machine.write(A, 0x18, 0)
        assert types(machine, moved) == wanted
        assert {at - moved + where if at >= moved else at: to
                for at, to in machine.ept().items()} == before


def test_a_picture_beside_an_msix_table_waits(m):
    machine = Machine(m, picture=(0, 0x3000, PAGE))
    machine.write(A, 0x10, 0xf3000000)
    assert {r.memtype for r in m.ept_list.regions[0:m.ept_list.count]} == {
        m.MEMTYPE_UC}


def test_accesses_are_counted_as_what_they_are(m):
    """Of the function whose they are; ports at home do not come by here."""
    machine = Machine(m)
    machine.write(A, 0x14, 0x5000)
    for n in range(3):
        machine.on_bus(m.BUS_PORT, 0x5000 + n, 1, n)
    for n in range(5):
        machine.on_bus(m.BUS_MMIO, 0xf0010100 + n)
    assert [(f.stats.ports, f.stats.mmio) for f in
            machine.machine.functions[0:2]] == [(3, 0), (0, 5)]


@pytest.mark.parametrize("first, second", [(A, B), (B, A)])
def test_ports_side_by_side(m, first, second):
    """Moved ones end at their last port, whoever comes first."""
    machine = Machine(m)
    places = {A: 0x5000, B: 0x5040}
    for at in first, second:
        machine.write(at, 0x14, places[at])
    assert "no room" not in m.log_text()
    for at, where in places.items():
        base, size = BARS[at][1][:2]
        for port in 0, size - 1:
            assert machine.on_bus(m.BUS_PORT, where + port) == \
                base + port & 0xff
    machine.reads.clear()
    for port in 0x4fff, 0x5060:
        assert machine.on_bus(m.BUS_PORT, port) == 0xff
    assert machine.reads == []
    # A doubleword over the end is neither's.
    assert machine.on_bus(m.BUS_PORT, 0x505e, 4) == 0xffffffff
    assert machine.reads == []


def test_a_taken_place_is_told_once_and_given_when_free(m):
    machine = Machine(m)
    machine.write(B, 0x18, 0xf0000000)          # over A's BAR 0
    machine.write(B, 0x18, 0xf0004000)
    lines = [text for _, text in m.log_lines() if "no room" in text]
    assert len(lines) == 1 and "00:04.0" in lines[0] and "BAR 2" in lines[0]
    assert 0xf0020000 not in machine.ept()
    assert machine.ept()[0xf0004000] == 0xf0004000      # A's still
    machine.write(A, 0x10, 0xf1000000)
    assert machine.ept()[0xf0004000] == 0xf0020000
    assert machine.ept()[0xf1004000] == 0xf0004000


def test_a_rom_waits_for_its_place_too(m):
    machine = Machine(m)
    machine.write(B, 0x30, 0xf0000001)          # over A's BAR 0
    assert machine.ept()[0xf0000000] == 0xf0000000
    machine.write(A, 0x10, 0xf1000000)
    rom, = (r for r in m.ept_list.regions[0:m.ept_list.count]
            if r.gpa == 0xf0000000)
    assert (rom.hpa, rom.size, rom.cpu) == (0x200000, 0x2000, m.REGION_RX)
    machine.write(B, 0x30, 0xf0000000)
    assert 0xf0000000 not in machine.ept()


def test_above_the_cpus_reach_is_nowhere(m):
    machine = Machine(m)
    machine.write(A, 0x1c, 0x80)                # 1 << 39
    assert 0x600000000 not in machine.ept() and len(machine.ept()) == 10
    machine.write(A, 0x1c, 0x10000)             # would wrap in the tables
    assert len(machine.ept()) == 10
    machine.write(A, 0x1c, 0x7f)
    assert machine.ept()[0x7f00000000] == 0x600000000


@pytest.mark.parametrize("good", [0, 1, 2])
def test_no_part_of_a_bar_stays_where_memory_has_run_out(m, good):
    """The pages around the MSI-X table are two runs; a hole is none."""
    machine = Machine(m)
    before = machine.bus.count[m.BUS_MMIO]
    m.lib.ept_good = good
    machine.write(A, 0x10, 0xf1000000)
    m.lib.ept_good = -1
    assert not [at for at in machine.ept() if 0xf1000000 <= at < 0xf1008000]
    assert machine.bus.count[m.BUS_MMIO] == before - 1
    # It waits; the next change of any BAR finds memory again.
    machine.write(B, 0x18, 0xf3000000)
    assert machine.ept()[0xf1000000] == 0xf0000000
    assert machine.ept()[0xf1007000] == 0xf0007000


def test_a_small_bar_that_the_bus_does_not_take_blocks_no_page(m):
    machine = Machine(m)
    for n in range(m.BUS_RANGES):
        if m.bus_register(machine.bus, m.BUS_MMIO, (1 << 40) + n, (1 << 40) + n,
                          m.NULL, m.NULL, b"full"):
            break
    # One is given up when the BAR leaves its place.
    m.bus_unregister(machine.bus, m.BUS_MMIO, 1 << 40)
    machine.write(A, 4, 0, 2)
    left = m.BUS_RANGES - machine.bus.count[m.BUS_MMIO]
    for n in range(left):
        assert m.bus_register(machine.bus, m.BUS_MMIO, (1 << 41) + n,
                              (1 << 41) + n, m.NULL, m.NULL, b"full") == 0
    machine.write(A, 0x20, 0xf1000000)
    machine.write(A, 4, MEMORY, 2)
    assert "no room" in m.log_text()
    machine.write(B, 0x18, 0xf1000000)
    assert machine.ept()[0xf1000000] == 0xf0020000


def test_a_place_that_firmware_gave_twice_is_refused_by_name(m):
    machine = Machine(m)
    a = "%02x:%02x.%x" % (A >> 8, A >> 3 & 31, A & 7)
    assert m.assigned_pin_bars(machine.machine, machine.map) == -m.EEXIST
    line, = (text for level, text in m.log_lines() if level == m.LOG_ERROR)
    assert line.startswith(f"{a}: BAR 0 at 0xf0000000 lies over something")
    assert line.endswith(f"assign=all,-{a} leaves it out")
