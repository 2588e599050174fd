# SPDX-License-Identifier: MIT
"""The guest's PCI through its ports, against a model of single bytes.

Mechanism #1 is PCI 3.0, 3.2.2.3.2; the guest's part in sizing a BAR is as
Linux does it (drivers/pci/probe.c, __pci_read_base).
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

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


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "vpci", ["vmm/bus.c", "vmm/devmodel/pci_bus.c",
                 "vmm/devmodel/pci_bridges.c", "vmm/devmodel/pci_assigned.c"],
        headers=["vmm/devmodel/pci_bridges.h", "vmm/devmodel/pci_assigned.h",
                 "vmm/bus.h", "drivers/pci/pci.h"],
        exports=["vpci_line"], fakes=FAKES,
        cdef="extern u8 host_config[65536][256];")


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

    def __init__(self, m, bars=None, config=None, forward=0, bdf=VGA):
        self.m, self.events = m, []
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
        changed = m.callback("void(void *, unsigned, uint64_t, uint64_t, bool)",
                             lambda _, *what: self.events.append(what))
        self.setup = m.new("struct pci_assigned_config *", {
            "host": self.host, "function": self.function,
            "command_forward": forward, "bar_changed": changed})
        assert m.vpci_init(self.pci, self.bus) == 0
        assert m.host_bridge_init(self.bridges, self.pci, self.identity) == 0
        assert m.isa_bridge_init(self.bridges + 1, self.pci, self.isa) == 0
        assert m.pci_assigned_init(self.assigned, self.pci, self.setup) == 0
        self.access = m.new("struct bus_access *")

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


class Model:
    """What a guest sees, byte by byte; written from the specification."""

    def __init__(self, machine):
        self.address = 0
        self.space = {
            0x0000: bytearray(256), 0x00f8: bytearray(256),
            machine.bdf: bytearray(256)}
        self.writable = {bdf: bytearray(256) for bdf in self.space}
        for bdf, ids, class_ in ((0, machine.identity, 0x0600),
                                 (0xf8, machine.isa, 0x0601)):
            self.put(bdf, 0, ids.vendor | ids.device << 16, 4)
            self.put(bdf, 4, 0x02000007, 4)
            self.put(bdf, 8, ids.revision | class_ << 16, 4)
            self.put(bdf, 0x2c, ids.subsystem_vendor | ids.subsystem << 16, 4)
        card, host = self.space[machine.bdf], machine.config
        for at in (*range(4), *range(8, 12), *range(0x2c, 0x30), 0x3e, 0x3f):
            card[at] = host[at]
        card[0xe] = host[0xe] & 0x7f
        card[4] = host[4] & 3
        card[6], card[7] = host[6] & 0xa0, host[7] & 0x06
        for at, bits in ((4, 0x47), (5, 0x05), (0xc, 0xff), (0xd, 0xff),
                         (0x3c, 0xff)):
            self.writable[machine.bdf][at] = bits
        for i, (mask, fixed) in machine.bar_masks().items():
            base = machine.bars.get(i) or machine.bars[i - 1]
            value = base[0] if i in machine.bars else base[0] >> 32
            self.put(machine.bdf, 0x10 + 4 * i, value & mask | fixed, 4)
            for k in range(4):
                self.writable[machine.bdf][0x10 + 4 * i + k] = \
                    mask >> 8 * k & 0xff

    def put(self, bdf, at, value, size):
        self.space[bdf][at:at + size] = value.to_bytes(size, "little")

    def byte(self, at):
        """(bytes, index) that a byte of CONFIG_DATA names, or None."""
        bdf = self.address >> 8 & 0xffff
        if not (DATA <= at < DATA + 4 and self.address >> 31
                and bdf in self.space):
            return None
        return bdf, (self.address & 0xfc) + at - DATA

    def read(self, port, size):
        if (port, size) == (ADDRESS, 4):
            return self.address
        if port < DATA:     # the bus: who has the first byte has all
            return (1 << 8 * size) - 1
        out = 0
        for k in range(size):
            where = self.byte(port + k)
            value = self.space[where[0]][where[1]] if where else 0xff
            out |= value << 8 * k
        return out

    def write(self, port, size, value):
        if (port, size) == (ADDRESS, 4):
            self.address = value & 0x80fffffc
        for k in range(size if port >= DATA else 0):
            where = self.byte(port + k)
            if where:
                bdf, at = where
                bits = self.writable[bdf][at]
                self.space[bdf][at] = self.space[bdf][at] & ~bits | \
                    value >> 8 * k & bits

    def decoded(self, machine):
        """Where each BAR is, by the registers."""
        card, out = self.space[machine.bdf], [NOWHERE] * 6
        masks = machine.bar_masks()
        for i, (_, _, io, is64, _) in machine.bars.items():
            at = 0x10 + 4 * i
            raw = int.from_bytes(card[at:at + 8 if is64 else at + 4],
                                 "little")
            raw &= masks[i][0] | 0xffffffff00000000
            if card[4] & (IO if io else MEMORY):
                out[i] = raw
        return out


BDFS = st.sampled_from([0, 0xf8, VGA, VGA, VGA, VGA + 1, 0x100, 0xffff])
OFFSETS = st.integers(0, 255) | st.sampled_from(
    [4, 5, 6, 0xc, 0xe, 0x10, 0x18, 0x1c, 0x24, 0x3c])
CONFIG = st.tuples(BDFS, OFFSETS).map(
    lambda x: (ADDRESS, 4, 1 << 31 | x[0] << 8 | x[1]))
VALUES = st.integers(0, 2**32 - 1) | st.sampled_from([0, 2**32 - 1])
ACCESS = st.tuples(st.integers(ADDRESS, DATA + 3), st.sampled_from([1, 2, 4]),
                   st.none() | VALUES)
DATA_ACCESS = st.tuples(st.integers(DATA, DATA + 3),
                        st.sampled_from([1, 2, 4]), st.none() | VALUES)


def bars_ok(chosen):
    """No BAR where a 64-bit one has its upper half."""
    out = {}
    for i, bar in sorted(chosen.items()):
        if out.get(i - 1, (0, 0, 0, 0))[3] or (i == 5 and bar[3]):
            continue
        out[i] = bar
    return out


@st.composite
def bars(draw):
    chosen = {}
    for i in draw(st.sets(st.integers(0, 5))):
        io = draw(st.integers(0, 3)) == 0
        is64 = not io and draw(st.booleans())
        bits = draw(st.integers(2, 8) if io else
                    st.integers(4, 40 if is64 else 31))
        top = 16 if io else 48 if is64 else 32
        base = draw(st.integers(0, (1 << top) - 1)) >> bits << bits
        chosen[i] = (base, 1 << bits, int(io), int(is64),
                     int(not io and draw(st.booleans())))
    return bars_ok(chosen)


@settings(max_examples=300, deadline=None)
@given(bars(), st.lists(st.one_of(CONFIG, ACCESS, DATA_ACCESS, DATA_ACCESS),
                        max_size=60))
def test_against_the_model(m, chosen, accesses):
    m.reset()
    machine = Machine(m, chosen)
    model = Model(machine)
    where = model.decoded(machine)
    assert list(machine.assigned.decoded) == where
    for port, size, value in accesses:
        value = value if value is None else value & (1 << 8 * size) - 1
        if value is None:
            assert machine.port(port, size) == model.read(port, size)
            continue
        machine.events.clear()
        machine.port(port, size, value)
        model.write(port, size, value)
        for index, old, new, enabled in machine.events:
            assert old == where[index]
            where[index] = new if enabled else NOWHERE
        assert where == model.decoded(machine)
    assert machine.host_writes() == []      # the host's own never change
    for bdf, space in model.space.items():
        for at in range(0, 256, 4):
            assert machine.read(bdf, at) == int.from_bytes(
                space[at:at + 4], "little")


def test_every_size_at_every_offset(m):
    machine = Machine(m)
    model = Model(machine)
    for bdf in (0, 0xf8, VGA, 0x20):
        for offset in range(256):
            for size in (1, 2, 4):
                machine.select(bdf, offset)
                model.write(ADDRESS, 4, 1 << 31 | bdf << 8 | offset)
                port = DATA + offset % 4
                assert machine.port(port, size) == model.read(port, size)


def test_nothing_answers_without_the_enable_bit(m):
    machine = Machine(m)
    machine.port(ADDRESS, 4, 0xffffffff)
    assert machine.port(ADDRESS, 4) == 0x80fffffc   # the others are reserved
    machine.port(ADDRESS, 4, VGA << 8)
    assert machine.port(DATA, 4) == 0xffffffff
    machine.port(DATA, 4, 0)
    assert machine.read(VGA, 0) == 0x11111234


def test_the_reset_register_is_left_alone(m):
    machine, seen = Machine(m), []
    handler = m.callback("bus_handler *", lambda _, a: seen.append(
        (a.addr, a.size, a.value)) or 0, on_error=0)
    assert m.bus_register(machine.bus, m.BUS_PORT, 0xcf9, 0xcf9, handler,
                          m.NULL, b"reset") == 0
    machine.select(VGA, 8)
    machine.port(0xcf9, 1, 6)
    assert seen == [(0xcf9, 1, 6)]
    assert machine.port(ADDRESS, 4) == 0x80001008
    assert machine.port(ADDRESS, 1) == 0xff     # no part of the address


def test_a_linux_kernel_finds_mechanism_1(m):
    """pci_check_type1() of Linux, arch/x86/pci/direct.c."""
    machine = Machine(m)
    machine.port(0xcfb, 1, 1)
    saved = machine.port(ADDRESS, 4)
    machine.port(ADDRESS, 4, 0x80000000)
    assert machine.port(ADDRESS, 4) == 0x80000000
    machine.port(ADDRESS, 4, saved)
    found = {}
    for bdf in range(0x200):
        if (ids := machine.read(bdf, 0)) != 0xffffffff:
            found[bdf] = ids, machine.read(bdf, 0xa, 2)
    assert found == {0: (0x12378086, 0x0600), VGA: (0x11111234, 0x0300),
                     0xf8: (0x9d488086, 0x0601)}
    assert all(machine.read(bdf, 0xe, 1) == 0 for bdf in found)


def linux_sizes(machine, bdf):
    """{BAR: (base, size, io, 64 bit, prefetchable)} as Linux finds them."""
    out, i = {}, 0
    command = machine.read(bdf, 4, 2)
    machine.write(bdf, 4, command & ~(IO | MEMORY), 2)

    def size_of(at):
        value = machine.read(bdf, at)
        machine.write(bdf, at, 0xffffffff)
        bits = machine.read(bdf, at)
        machine.write(bdf, at, value)
        return value, bits
    while i < 6:
        at, here = 0x10 + 4 * i, i
        value, bits = size_of(at)
        i += 1
        if bits in (0, 0xffffffff):
            continue
        io, is64 = value & 1, value & 7 == 4
        low = 0xfffffffc if io else 0xfffffff0
        base, mask = value & low, bits & low
        if is64:
            upper, upper_bits = size_of(at + 4)
            base |= upper << 32
            mask |= upper_bits << 32
            i += 1
        else:
            mask |= 0xffffffff00000000
        out[here] = (base, mask & -mask, io, int(is64),
                     int(not io and value >> 3 & 1))
    machine.write(bdf, 4, command, 2)
    return out


@settings(max_examples=200, deadline=None)
@given(bars())
def test_bars_are_sized_as_the_host_has_them(m, chosen):
    machine = Machine(m, chosen)
    start = list(machine.assigned.decoded)
    assert linux_sizes(machine, VGA) == chosen
    # With its decode off meanwhile, the function never was anywhere else.
    assert all(new == start[i] for i, _, new, on in machine.events if on)
    assert list(machine.assigned.decoded) == start


def test_moving_a_bar(m):
    machine = Machine(m)
    machine.write(VGA, 4, 0, 2)
    assert sorted(machine.events) == sorted(
        (i, base, base, False) for i, (base, *_) in VGA_BARS.items())
    machine.events.clear()
    machine.write(VGA, 0x10, 0xe0000000)
    machine.write(VGA, 0x18, 0)
    machine.write(VGA, 0x1c, 0x10)
    assert machine.events == []
    machine.write(VGA, 4, MEMORY, 2)
    assert machine.events == [
        (0, NOWHERE, 0xe0000000, True), (2, NOWHERE, 0x1000000000, True),
        (5, NOWHERE, 0xfebf0000, True)]
    machine.events.clear()
    machine.write(VGA, 0x10, 0xd1234567)    # while it is decoded
    assert machine.events == [(0, 0xe0000000, 0xd1000000, True)]
    assert machine.read(VGA, 0x10) == 0xd1000008
    assert machine.host_writes() == []


def test_reset_brings_everything_back(m):
    machine = Machine(m)
    before = [machine.read(VGA, at) for at in range(0, 256, 4)]
    start = list(machine.assigned.decoded)
    for at in range(0, 256, 4):
        machine.write(VGA, at, 0x5a5a5a5a)
    machine.events.clear()
    moved = list(machine.assigned.decoded)
    m.vpci_reset(machine.pci)
    assert machine.port(ADDRESS, 4) == 0
    assert [machine.read(VGA, at) for at in range(0, 256, 4)] == before
    assert list(machine.assigned.decoded) == start
    assert machine.events == [
        (i, moved[i], start[i], True) for i in sorted(VGA_BARS)
        if moved[i] != start[i]]
    assert machine.host_writes() == []


def test_what_firmware_left_disabled_stays_so(m):
    machine = Machine(m, config=header(command=MEMORY))
    assert machine.read(VGA, 4, 2) == MEMORY
    assert machine.assigned.decoded[1] == NOWHERE
    machine.write(VGA, 4, IO | MEMORY, 2)
    assert machine.events == [(1, NOWHERE, 0xc000, True)]


def test_command_bits_that_policy_forwards(m):
    machine = Machine(m, forward=MASTER, config=header(command=0x0103))
    machine.write(VGA, 4, 0x0547, 2)
    assert machine.host_writes() == [(VGA, 4, 2, 0x0107)]
    m.clear_events()
    machine.write(VGA, 4, MASTER, 2)        # decode off: the guest's view only
    assert machine.host_writes() == []
    m.vpci_reset(machine.pci)
    assert machine.host_writes() == [(VGA, 4, 2, 0x0103)]


def test_no_capability_rom_or_pin_is_seen(m):
    machine = Machine(m)
    assert machine.read(VGA, 6, 2) & 0x10 == 0
    assert machine.read(VGA, 0x34) == 0 and machine.read(VGA, 0x3d, 1) == 0
    machine.write(VGA, 0x30, 0xffffffff)
    assert machine.read(VGA, 0x30) == 0
    assert machine.assigned.dropped == 1
    assert all(machine.read(VGA, at) == 0 for at in range(0x40, 256, 4))


def test_every_dword_has_a_reason(m):
    for offset in range(256):
        row = m.pci_policy_find(offset)
        assert row.first <= (offset & 0xfc) <= row.last
        assert m.string(row.reason)
        if row.policy != m.PCI_EMULATED:
            assert row.host_bits == row.guest_bits == 0
        assert row.host_bits & row.guest_bits == 0


def test_the_bus_says_which_devices_have_more_functions(m):
    machine = Machine(m)
    assert machine.read(VGA, 0xe, 1) == 0
    more = m.new("struct pci_bridge *")
    ops = machine.pci.functions[0].ops
    assert m.vpci_add(machine.pci, VGA + 1, ops, more) == 0
    assert machine.read(VGA, 0xe, 1) == 0x80
    assert machine.read(VGA, 0xc) & 0xff0000 == 0x800000
    assert machine.read(VGA, 0xf, 1) == 0 and machine.read(VGA, 0xc, 2) == \
        int.from_bytes(bytes(2), "little")
    assert machine.read(VGA + 1, 0xe, 1) == 0
    assert machine.read(0, 0xe, 1) == 0


def test_the_table_of_functions_is_bounded(m):
    machine = Machine(m)
    ops, dev = machine.pci.functions[0].ops, machine.bridges
    assert m.vpci_add(machine.pci, VGA, ops, dev) == -m.EEXIST
    for bdf in range(0x1000, 0x1000 + m.VPCI_FUNCTIONS - 3):
        assert m.vpci_add(machine.pci, bdf, ops, dev) == 0
    assert m.vpci_add(machine.pci, 0x2000, ops, dev) == -m.ENOSPC
    assert machine.read(0x2000, 0) == 0xffffffff


def test_two_buses_do_not_share_ports(m):
    machine = Machine(m)
    assert m.vpci_init(m.new("struct vpci *"), machine.bus) == -m.EEXIST


def test_the_bridges_identities_are_the_hosts(m):
    host = m.new("struct pci_host *", {"count": 3})
    for i, (bdf, class_, config) in enumerate([
            (0x00, 0x0600, header(0x8086, 0x191f, class_=0x0600)),
            (0xf8, 0x0601, header(0x8086, 0xa143, class_=0x0601)),
            (0x100, 0x0601, header(0x10de, 0x0001, class_=0x0601))]):
        host.functions[i].bdf = bdf
        setattr(host.functions[i], "class", class_)
        m.host_config[bdf] = bytes(config)
    found = m.new("struct pci_identity *")
    assert m.pci_identity_read(host, 0, found)
    assert (found.vendor, found.device, found.revision, found.subsystem_vendor,
            found.subsystem) == (0x8086, 0x191f, 2, 0x1af4, 0x1100)
    m.pci_identity_isa(host, found)
    assert found.device == 0xa143
    host.count = 1
    m.pci_identity_isa(host, found)
    assert (found.vendor, found.device, found.subsystem) == (0x8086, 0x7000, 0)
    m.host_config[0x700] = b"\xff" * 256
    assert not m.pci_identity_read(host, 0x700, found)
    assert found.vendor == found.device == 0


def test_the_routing_is_the_conventional_rotation(m):
    assert [m.vpci_line(dev << 3, pin) for dev in (0, 1, 31)
            for pin in (1, 2, 3, 4)] == [16, 17, 18, 19, 17, 18, 19, 16,
                                         19, 16, 17, 18]
