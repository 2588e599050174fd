# SPDX-License-Identifier: MIT
"""The guest's PCI through its ports, against a model of single bytes.

Mechanism #1 is PCI 3.0, 3.2.2.3.2; the guest's part in sizing a BAR is as
Linux does it (drivers/pci/probe.c, __pci_read_base).
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from vpcimodel import (ADDRESS, DATA, FAKES, IO, MASTER, MEMORY, NOWHERE, VGA,
                       VGA_BARS, Machine, header)


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "vpci", ["vmm/core/bus.c", "vmm/devmodel/pci_bus.c",
                 "vmm/devmodel/pci_bridges.c", "vmm/devmodel/pci_assigned.c"],
        headers=["vmm/devmodel/pci_bridges.h", "vmm/devmodel/pci_assigned.h",
                 "vmm/core/bus.h", "drivers/pci/pci.h"],
        exports=["vpci_line"], fakes=FAKES,
        cdef="extern u8 host_config[65536][256];")


def with_rom(register):
    """The host's ROM BAR as firmware left it."""
    config = header()
    config[0x30:0x34] = register.to_bytes(4, "little")
    return config


PM, VPD, MSI, HOT_SWAP, VENDOR, HOT_PLUG, EXPRESS, MSIX, AF = (
    1, 3, 5, 6, 9, 0xc, 0x10, 0x11, 0x13)
BODIES = {VPD, 7, HOT_PLUG, 0x12, AF}   # with a dword behind their head
OFFERED = {PM, MSI, VENDOR, EXPRESS, MSIX}
WIDE, MASKABLE = 0x80, 0x100


def capability_size(id_, control):
    """Bytes that it has at least, in whole dwords."""
    if id_ == MSI:          # PCI 3.0, figure 6-9
        return {0: 12, WIDE: 16, MASKABLE: 20,
                WIDE | MASKABLE: 24}[control & (WIDE | MASKABLE)]
    return {PM: 8, MSIX: 12, EXPRESS: 12}.get(id_, 4)


def with_capabilities(caps, config=None, first=None, last=0):
    """[(offset, ID, bits of the control word)] as a chain in this order."""
    config = config or header()
    config[6] |= 0x10
    config[0x34] = first if first is not None else caps[0][0]
    for n, (at, id_, control) in enumerate(caps):
        link = caps[n + 1][0] if n + 1 < len(caps) else last
        config[at:at + 2] = bytes((id_, link))
        if id_ == MSI:      # the rest of it as firmware's garbage
            control |= 0x7f
        if control or id_ == MSI:
            config[at + 2:at + 4] = control.to_bytes(2, "little")
    return config


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
        # What ie31200_edac calls "no ECC": it leaves MCHBAR alone then.
        self.put(0, 0xe4, 1 << 25, 4)
        card, host = self.space[machine.bdf], machine.config
        for at in (*range(4), *range(8, 12), *range(0x2c, 0x30), 0x3e, 0x3f,
                   *range(0x40, 0x100)):
            card[at] = host[at]
        card[0x3c:0x3e] = 0xff * bool(machine.pin), machine.pin
        card[0xe] = host[0xe] & 0x7f
        card[4] = host[4] & 3
        card[6], card[7] = host[6] & 0xa8, host[7] & 0x06
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

        self.capabilities(card, host, self.writable[machine.bdf])

    @staticmethod
    def capabilities(card, host, writable):
        """Those of a host's well-formed list."""
        at, links, seen = host[0x34] & 0xfc, [0x34], []
        offered, taken, hidden = [], set(), []
        if not host[6] & 0x10:
            return
        while at >= 0x40 and at not in seen:
            seen.append(at)
            id_ = host[at]
            control = host[at + 2] | host[at + 3] << 8
            again = id_ in (MSI, MSIX) and id_ in offered
            if id_ not in OFFERED or again or \
                    at + capability_size(id_, control) > 256:
                card[at:at + 4] = bytes(4)
                hidden.append((at, id_))
            else:
                taken |= {*range(at, at + capability_size(id_, control))}
                card[links[-1]] = at
                links.append(at + 1)
                offered.append(id_)
                Model.capability(card, host, writable, at)
            at = host[at + 1] & 0xfc
        for at, id_ in hidden:
            if id_ in BODIES and at < 0xfc and not taken & {at + 4} and \
                    at + 4 not in seen:
                card[at + 4:at + 8] = bytes(4)
        if offered:
            card[links[-1]] = 0
            card[6] |= 0x10

    @staticmethod
    def capability(card, host, writable, at):
        def field(k, value, bits=()):
            card[at + k:at + k + len(value)] = bytes(value)
            writable[at + k:at + k + len(bits)] = bytes(bits)
        control = host[at + 2] | host[at + 3] << 8
        if host[at] == PM:
            field(4, (8, host[at + 5], 0, 0), (3,))
        elif host[at] == EXPRESS:   # no FLR where none would be done
            field(7, (host[at + 7] & 0xef,))
        elif host[at] == MSIX:
            field(3, (host[at + 3] & 7,), (0xc0,))
        elif host[at] == MSI:
            field(2, (host[at + 2] & 0x8e, host[at + 3] & 1), (0x71, 0))
            field(4, bytes(4), (0xfc, 0xff, 0xff, 0xff))
            data = 12 if control & WIDE else 8
            if control & WIDE:
                field(8, bytes(4), b"\xff" * 4)
            field(data, bytes(4), (0xff, 0xff))
            if control & MASKABLE:
                field(data + 4, bytes(4), b"\xff" * 4)

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
        card, out = self.space[machine.bdf], [NOWHERE] * 7
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


IDS = st.sampled_from([*OFFERED, *OFFERED, VPD, HOT_SWAP, HOT_PLUG, AF, 0,
                       0xff])


@st.composite
def layouts(draw):
    """A configuration space whose capabilities do not overlap."""
    caps, at = [], 0x40
    while draw(st.integers(0, 7)):
        at += 4 * draw(st.integers(0, 6))
        id_ = draw(IDS)
        control = draw(st.integers(0, 0xffff))
        if at > 0xfc:
            break
        caps.append((at + draw(st.sampled_from([0, 0, 1, 2, 3])), id_,
                     control))
        at += capability_size(id_, control)
    caps = draw(st.permutations(caps))
    last = draw(st.sampled_from([0, 0, 0x3f] + [at for at, *_ in caps]))
    config = header()
    config[0x34], config[6] = 0, draw(st.sampled_from([0x10, 0x18, 0xb8, 0]))
    links = [*(at for at, *_ in caps), last]
    for n, (odd, id_, control) in enumerate(caps):
        at = odd & 0xfc
        config[at:at + 4] = bytes((id_, links[n + 1], control & 0xff,
                                   control >> 8))
    config[0x34] = links[0]
    return config


@settings(max_examples=300, deadline=None)
@given(bars(), st.none() | layouts(), st.integers(0, 4),
       st.lists(st.one_of(CONFIG, ACCESS, DATA_ACCESS, DATA_ACCESS),
                max_size=60))
def test_against_the_model(m, chosen, config, pin, accesses):
    m.reset()
    machine = Machine(m, chosen, config=config, pin=pin)
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
        for index, new in machine.events:
            where[index] = new
        assert where == model.decoded(machine)
    assert machine.host_writes() == []      # the host's own never change
    for bdf, space in model.space.items():
        for at in range(0, 256, 4):
            assert machine.read(bdf, at) == int.from_bytes(
                space[at:at + 4], "little")


def test_every_size_at_every_offset(m):
    machine = Machine(m, pin=3, config=with_capabilities([
        (0xf0, MSI, WIDE), (0x48, AF, 0), (0x50, MSIX, 0xffff),
        (0x80, PM, 0), (0xc0, VENDOR, 0)]))
    model = Model(machine)
    for bdf in (0, 0xf8, VGA, 0x20):
        for offset in range(256):
            for size in (1, 2, 4):
                machine.select(bdf, offset)
                model.write(ADDRESS, 4, 1 << 31 | bdf << 8 | offset)
                port = DATA + offset % 4
                assert machine.port(port, size) == model.read(port, size)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(BDFS, st.integers(0, 0x107) | st.just(0xffd),
                          st.sampled_from([1, 2, 4, 8]), st.none() | VALUES),
                min_size=1, max_size=40))
def test_ecam_against_the_model(m, accesses):
    """The same registers, any size and alignment within the dword."""
    m.reset()
    machine = Machine(m)
    assert m.vpci_add_ecam(machine.pci, machine.bus, 0xe0000000, 1) == 0
    model, a = Model(machine), machine.access

    def byte(bdf, at):
        if bdf not in model.space:
            return 0xff
        return model.space[bdf][at] if at < 256 else 0

    for bdf, at, size, value in accesses:
        a.addr, a.size, a.write = 0xe0000000 + (bdf << 12 | at), size, \
            value is not None
        a.value = 0x1122334455667788 if value is None else value
        assert m.bus_dispatch(machine.bus, m.BUS_MMIO, a) == 0
        within = at % 4 + size <= 4
        if value is None:
            assert a.value == (sum(
                byte(bdf, at + k) << 8 * k for k in range(size)) if within
                and bdf < 0x200 else (1 << 8 * size) - 1)
        elif within and at < 256:
            model.address = 1 << 31 | bdf << 8 | at & 0xfc
            model.write(DATA + at % 4, size, value & (1 << 8 * size) - 1)
    for bdf, space in model.space.items():
        for at in range(0, 256, 4):
            assert machine.read(bdf, at) == int.from_bytes(
                space[at:at + 4], "little")


def test_extended_space_ends_the_list_and_keeps_nothing(m):
    """What Linux takes for 4 KiB without a capability."""
    machine, a = Machine(m), m.new("struct bus_access *")
    assert m.vpci_add_ecam(machine.pci, machine.bus, 0xe0000000, 0) == 0
    for at in (0x100, 0x104, 0xffc):
        a.addr, a.size, a.write = 0xe0000000 + (VGA << 12 | at), 4, True
        a.value = 0x1234
        assert m.bus_dispatch(machine.bus, m.BUS_MMIO, a) == 0
        a.write = False
        assert m.bus_dispatch(machine.bus, m.BUS_MMIO, a) == 0
        assert a.value == 0
    assert machine.host_writes() == []
    a.addr = 0xe0000000 + (VGA + 8 << 12 | 0x100)
    assert m.bus_dispatch(machine.bus, m.BUS_MMIO, a) == 0
    assert a.value == 0xffffffff


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
    assert all(new in (start[i], NOWHERE) for i, new in machine.events)
    assert list(machine.assigned.decoded) == start


def test_moving_a_bar(m):
    machine = Machine(m)
    machine.write(VGA, 4, 0, 2)
    assert sorted(machine.events) == sorted(
        (i, NOWHERE) for i in VGA_BARS)
    machine.events.clear()
    machine.write(VGA, 0x10, 0xe0000000)
    machine.write(VGA, 0x18, 0)
    machine.write(VGA, 0x1c, 0x10)
    assert machine.events == []
    machine.write(VGA, 4, MEMORY, 2)
    assert machine.events == [
        (0, 0xe0000000), (2, 0x1000000000), (5, 0xfebf0000)]
    machine.events.clear()
    machine.write(VGA, 0x10, 0xd1234567)    # while it is decoded
    assert machine.events == [(0, 0xd1000000)]
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
    assert machine.events == [(i, start[i]) for i in sorted(VGA_BARS)
                              if moved[i] != start[i]]
    assert machine.host_writes() == []


def test_after_power_on_bars_have_sizes_and_no_addresses(m):
    """PCI 3.0, 6.2.5.1 and 6.2.2: nothing is decoded, either."""
    machine = Machine(m, rom=0x10000, cold=True, config=with_rom(0xfe000000))
    fixed = {i: low for i, (_, low) in machine.bar_masks().items()}
    for _ in range(2):
        assert machine.read(VGA, 4, 2) == 0 and machine.read(VGA, ROM) == 0
        assert {i: machine.read(VGA, 0x10 + 4 * i) for i in fixed} == fixed
        assert set(machine.assigned.decoded) == {NOWHERE}
        assert {i: bar[1] for i, bar in linux_sizes(machine, VGA).items()} \
            == {i: bar[1] for i, bar in VGA_BARS.items()}
        for at in range(4, 0x40, 4):
            machine.write(VGA, at, 0x55555555)
        m.vpci_reset(machine.pci)
    assert machine.host_writes() == []


def test_what_firmware_left_disabled_stays_so(m):
    machine = Machine(m, config=header(command=MEMORY))
    assert machine.read(VGA, 4, 2) == MEMORY
    assert machine.assigned.decoded[1] == NOWHERE
    machine.write(VGA, 4, IO | MEMORY, 2)
    assert machine.events == [(1, 0xc000)]


ROM, ROM_BAR = 0x30, 6


@pytest.mark.parametrize("size", [0x1000, 0x10000, 1 << 24])
@pytest.mark.parametrize("host", [0, 0xfe000000, 0xfe000001])
def test_rom_is_sized(m, size, host):
    """PCI 3.0, 6.2.5.2; disabled at first, whatever firmware left."""
    machine = Machine(m, rom=size, config=with_rom(host))
    assert machine.read(VGA, ROM) == host & ~1
    machine.write(VGA, ROM, 0xfffffffe)
    assert machine.read(VGA, ROM) == 2**32 - size
    machine.write(VGA, ROM, 0xffffffff)
    assert machine.read(VGA, ROM) == 2**32 - size | 1
    assert machine.host_writes() == []


def test_rom_larger_than_the_hosts_has_no_address_at_first(m):
    machine = Machine(m, rom=0x10000, config=with_rom(0xfe008000))
    assert machine.read(VGA, ROM) == 0


def test_rom_moves(m):
    """Decoded where COMMAND and its own bit say so."""
    machine = Machine(m, rom=0x10000, config=with_rom(0xfe000000))
    decoded = lambda: machine.assigned.decoded[ROM_BAR]
    at = 0xfe000000
    assert decoded() == NOWHERE
    machine.write(VGA, ROM, at | 1)
    machine.write(VGA, ROM, 0xe0000001)
    machine.write(VGA, ROM, 0xe0000801)     # no bit of it is there
    assert machine.events == [(ROM_BAR, at), (ROM_BAR, 0xe0000000)]
    assert decoded() == 0xe0000000
    machine.events.clear()
    machine.write(VGA, 4, IO, 2)
    assert (ROM_BAR, NOWHERE) in machine.events
    machine.events.clear()
    machine.write(VGA, ROM, at | 1)
    assert machine.events == [] and decoded() == NOWHERE
    machine.write(VGA, 4, IO | MEMORY, 2)
    assert (ROM_BAR, at) in machine.events
    machine.events.clear()
    machine.write(VGA, ROM, 0, 1)           # its byte alone
    assert machine.events == [(ROM_BAR, NOWHERE)]
    machine.write(VGA, ROM, 1, 1)
    machine.events.clear()
    m.vpci_reset(machine.pci)
    assert machine.events == [(ROM_BAR, NOWHERE)]
    assert machine.read(VGA, ROM) == at


def test_without_a_rom_nothing_is_decoded(m):
    machine = Machine(m, config=with_rom(0xfe000000))
    machine.write(VGA, ROM, 0xffffffff)
    assert machine.read(VGA, ROM) == 0 and machine.events == []


def test_command_bits_that_policy_forwards(m):
    machine = Machine(m, forward=MASTER, config=header(command=0x0103))
    machine.write(VGA, 4, 0x0547, 2)
    assert machine.host_writes() == [(VGA, 4, 2, 0x0107)]
    m.clear_events()
    machine.write(VGA, 4, MASTER, 2)        # decode off: the guest's view only
    assert machine.host_writes() == []
    m.vpci_reset(machine.pci)
    assert machine.host_writes() == [(VGA, 4, 2, 0x0103)]


def test_a_stopped_function_stays_so_until_the_reset(m):
    """The IOMMU's fault limit: the guest sees it, and cannot undo it."""
    machine = Machine(m, forward=MASTER, config=header(command=0x0103))
    machine.write(VGA, 4, 0x0547, 2)
    m.host_config[VGA][4] = 3       # as vtd_stop_mastering() does
    m.pci_assigned_stop(machine.assigned)
    m.clear_events()
    assert machine.read(VGA, 4, 2) == 0x0543
    for value, size in ((0x0547, 2), (MASTER, 1), (0x0107, 4)):
        machine.write(VGA, 4, value, size)
        assert machine.read(VGA, 4, size) & 0x0547 == value & ~MASTER
    assert machine.host_writes() == []
    m.vpci_reset(machine.pci)
    machine.write(VGA, 4, 0x0107, 2)
    assert machine.read(VGA, 4, 2) == 0x0107
    assert machine.host_writes() == [(VGA, 4, 2, 0x0107)]


@pytest.mark.parametrize("status, caps", [
    (0x10, [(0x50, VPD, 0), (0x60, AF, 0), (0x70, HOT_PLUG, 0),
            (0x80, HOT_SWAP, 0), (0x90, 0x14, 0), (0xa0, 0, 0)]),
    (0, [(0x50, PM, 0), (0x60, MSI, WIDE)])])
def test_no_capability_rom_or_pin_is_seen(m, status, caps):
    config = with_capabilities(caps)
    config[6] = status
    machine = Machine(m, config=config)
    assert machine.read(VGA, 6, 2) & 0x10 == 0
    assert machine.read(VGA, 0x34) == 0 and machine.read(VGA, 0x3d, 1) == 0
    machine.write(VGA, 0x30, 0xffffffff)
    assert machine.read(VGA, 0x30) == 0
    machine.write(VGA, 0x28, 0xffffffff)
    assert machine.read(VGA, 0x28) == 0
    assert machine.assigned.dropped == 1
    hidden = [at + k for at, id_, _ in caps if status
              for k in ((0, 4) if id_ in BODIES else (0,))]
    for at in range(0x40, 256, 4):
        assert machine.read(VGA, at) == (0 if at in hidden else int.from_bytes(
            config[at:at + 4], "little"))
    assert machine.wanted() == ((False, 0, 0, 0), (False, False), False)


def test_the_chain_skips_what_is_hidden(m):
    machine = Machine(m, config=with_capabilities([
        (0x40, VPD, 0), (0xc8, PM, 0), (0x48, AF, 0), (0x50, HOT_PLUG, 0),
        (0xd0, MSI, 0), (0x70, EXPRESS, 0), (0x60, HOT_SWAP, 0),
        (0xa0, MSIX, 0), (0xb0, VENDOR, 0), (0x54, VPD, 0)]))
    assert machine.chain() == [(0xc8, PM), (0xd0, MSI), (0x70, EXPRESS),
                               (0xa0, MSIX), (0xb0, VENDOR)]
    m.clear_events()
    for at in (0x34, 0x40, 0x44, 0x48, 0x4c, 0x50, 0x54, 0x70, 0x78, 0xb0):
        machine.write(VGA, at, 0xffffffff)
    assert machine.host_writes() == []
    assert len(machine.chain()) == 5


@pytest.mark.parametrize("last", [0x40, 0x50, 0x60, 0x43, 0x61])
def test_a_loop_ends_at_the_second_visit(m, last):
    caps = [(0x40, PM, 0), (0x50, VPD, 0), (0x60, VENDOR, 0)]
    machine = Machine(m, config=with_capabilities(caps, last=last))
    assert machine.chain() == [(0x40, PM), (0x60, VENDOR)]


def test_a_vendor_capability_of_no_length_in_a_loop(m):
    config = with_capabilities([(0x40, VENDOR, 0), (0x50, VENDOR, 0)],
                               last=0x40)
    config[0x42] = config[0x52] = 0
    assert Machine(m, config=config).chain() == [(0x40, VENDOR),
                                                 (0x50, VENDOR)]


def test_pointers_low_bits_are_ignored(m):
    """PCI 3.0, 6.7: software masks the two reserved bits."""
    config = with_capabilities([(0x40, PM, 0), (0x50, MSI, 0)], first=0x43)
    config[0x41] = 0x51
    assert Machine(m, config=config).chain() == [(0x40, PM), (0x50, MSI)]


def test_a_chain_into_the_header_or_a_card_that_is_gone(m):
    for last in (0x3c, 0x04, 0x01):
        config = with_capabilities([(0x40, PM, 0)], last=last)
        assert Machine(m, config=config).chain() == [(0x40, PM)]
    gone = Machine(m, bars={}, config=bytearray(b"\xff" * 256))
    assert gone.chain() == []


def test_a_first_generation_express_capability_has_neighbours(m):
    """Its 20 bytes are not the 60 of later ones."""
    caps = [(0x44, EXPRESS, 1), (0x58, MSI, WIDE), (0x68, MSIX, 3)]
    machine = Machine(m, config=with_capabilities(caps))
    assert machine.chain() == [(at, id_) for at, id_, _ in caps]


def test_a_vendors_length_swallows_nothing(m):
    config = with_capabilities([(0x44, VENDOR, 0xff), (0x58, MSI, WIDE)])
    assert Machine(m, config=config).chain() == [(0x44, VENDOR), (0x58, MSI)]


@pytest.mark.parametrize("kind", [0, WIDE, MASKABLE, WIDE | MASKABLE])
@pytest.mark.parametrize("at", range(0xe4, 0x100, 4))
def test_msi_at_the_end(m, at, kind):
    """Where it does not fit there is none; nothing is overrun (ASan)."""
    machine = Machine(m, config=with_capabilities([(at, MSI, kind)]), pin=1)
    fits = at + capability_size(MSI, kind) <= 256
    assert machine.chain() == ([(at, MSI)] if fits else [])
    for dword in range(0x40, 256, 4):
        machine.write(VGA, dword, 0xffffffff)
    (enabled, mask, address, data), _, intx = machine.wanted()
    assert enabled == fits
    assert mask == (0xffffffff if fits and kind & MASKABLE else 0)
    assert data == (0xffff if fits else 0)
    assert address == (0 if not fits else 0xfffffffffffffffc
                       if kind & WIDE else 0xfffffffc)
    assert intx == (not fits) and machine.host_writes() == []


@pytest.mark.parametrize("id_, seen", [
    (VENDOR, True), (PM, False), (MSIX, False), (EXPRESS, False),
    (AF, False)])
def test_a_capability_in_the_last_dword(m, id_, seen):
    machine = Machine(m, config=with_capabilities([(0xfc, id_, 0xc000)]))
    assert machine.chain() == ([(0xfc, id_)] if seen else [])
    for size in (1, 2, 4):
        for at in range(0xfc, 0x100, size):
            machine.read(VGA, at, size)
            machine.write(VGA, at, 0xffffffff, size)
    assert machine.wanted()[1] == (False, False)


@pytest.mark.parametrize("kind", [0, WIDE, MASKABLE, WIDE | MASKABLE])
def test_msi_fields(m, kind):
    machine = Machine(m, config=with_capabilities([(0x60, MSI, kind)]), pin=1)
    data = 0x6c if kind & WIDE else 0x68
    host = bytes(m.host_config[VGA])
    # Nothing of firmware's: only what the card is.
    kind |= 0xe
    assert machine.read(VGA, 0x62, 2) == kind
    assert machine.wanted() == ((False, 0, 0, 0), (False, False), True)
    machine.write(VGA, 0x64, 0xfee01007)
    assert machine.read(VGA, 0x64) == 0xfee01004
    address = 0xfee01004
    if kind & WIDE:
        machine.write(VGA, 0x68, 0x12345678)
        address |= 0x12345678 << 32
    machine.write(VGA, data, 0x4321, 2)
    machine.write(VGA, data + 2, 0xffff, 2)
    assert machine.read(VGA, data) == 0x4321
    machine.write(VGA, 0x62, 0x11, 2)
    assert machine.read(VGA, 0x62, 2) == kind | 0x11
    on = ((True, 0, address, 0x4321), (False, False), False)
    assert machine.wanted() == on and machine.interrupts[-1] == on
    if kind & MASKABLE:
        machine.write(VGA, data + 4, 0x81, 1)
        assert machine.wanted()[0] == (True, 0x81, address, 0x4321)
        assert machine.interrupts[-1] == machine.wanted()
        # Pending is the card's, and what has arrived since.
        pending = int.from_bytes(host[data + 8:data + 12], "little")
        machine.write(VGA, data + 8, 0)
        assert machine.read(VGA, data + 8) == pending
        m.pci_assigned_set_pending(machine.assigned, 0x5555)
        assert machine.read(VGA, data + 8) == pending | 0x5555
        m.pci_assigned_set_pending(machine.assigned, 0)
        assert machine.read(VGA, data + 8) == pending
    assert bytes(m.host_config[VGA]) == host


@pytest.mark.parametrize("offered", range(8))
@pytest.mark.parametrize("enabled", range(8))
def test_messages_of_an_msi(m, offered, enabled):
    """PCI 3.0, 6.8.1.3: powers of two up to 32; 6 and 7 are reserved."""
    config = with_capabilities([(0x60, MSI, WIDE)])
    config[0x62] = WIDE | offered << 1
    machine = Machine(m, config=config)
    assert machine.read(VGA, 0x62, 2) == WIDE | offered << 1
    machine.write(VGA, 0x62, enabled << 4 | 1, 2)
    assert m.pci_assigned_msi(machine.assigned).count == \
        1 << min(enabled, offered, 5)
    assert machine.host_writes() == []


def test_msix_control(m):
    machine = Machine(m, config=with_capabilities([(0x70, MSIX, 0xc0ff)]),
                      pin=2)
    # As many entries as the card's; disabled whatever firmware left.
    assert machine.read(VGA, 0x72, 2) == 0x00ff
    assert machine.wanted()[1:] == ((False, False), True)
    for value, seen, wanted in ((0x4000, 0x40ff, (False, True)),
                                (0xffff, 0xc0ff, (True, True)),
                                (0x8000, 0x80ff, (True, False)),
                                (0, 0x00ff, (False, False))):
        machine.write(VGA, 0x72, value, 2)
        assert machine.read(VGA, 0x72, 2) == seen
        assert machine.interrupts[-1][1:] == (wanted, not wanted[0])
    machine.write(VGA, 0x73, 0x80, 1)
    assert machine.wanted()[1] == (True, False)
    table = machine.read(VGA, 0x74)
    machine.write(VGA, 0x74, ~table & 0xffffffff)   # read-only
    assert machine.read(VGA, 0x74) == table
    assert machine.host_writes() == []


def test_the_first_of_two_is_the_one(m):
    """Drivers take the first that they find."""
    machine = Machine(m, config=with_capabilities([
        (0x80, MSI, 0), (0x60, MSI, WIDE), (0xa0, MSIX, 1), (0x40, MSIX, 2)]))
    assert machine.chain() == [(0x80, MSI), (0xa0, MSIX)]
    machine.write(VGA, 0x82, 1, 2)
    machine.write(VGA, 0xa2, 0x8000, 2)
    machine.write(VGA, 0x60, 0xffffffff)
    assert machine.wanted()[0][0] and machine.wanted()[1] == (True, False)
    assert machine.read(VGA, 0x60) == machine.read(VGA, 0x40) == 0


def test_power_states_are_a_copy(m):
    config = with_capabilities([(0x50, PM, 0)])
    machine = Machine(m, config=config)
    before = machine.read(VGA, 0x54, 2)
    # No_Soft_Reset, since nothing is lost on the way (PCI PM 1.2, 3.2.4).
    assert before == 8 | config[0x55] << 8
    machine.write(VGA, 0x54, 0xffff, 2)
    assert machine.read(VGA, 0x54, 2) == before | 3
    machine.write(VGA, 0x54, 0, 2)
    assert machine.read(VGA, 0x54, 2) == before
    assert machine.host_writes() == []


def test_interrupt_status_is_the_cards(m):
    """By it uio_pci_generic and vfio-pci tell whose INTx it was."""
    machine = Machine(m, pin=1)
    for status in (0x08, 0):
        m.host_config[VGA][6] = 0xb0 | status
        assert machine.read(VGA, 6, 2) & 8 == status
        machine.write(VGA, 6, 8, 2)
        assert machine.read(VGA, 4) >> 16 & 8 == status


@pytest.mark.parametrize("pin", range(5))
def test_intx_is_wanted_by_default(m, pin):
    machine = Machine(m, pin=pin)
    # PCI 3.0, 6.2.4: 255 is "unknown"; 0 would be the timer's line.
    assert machine.read(VGA, 0x3c, 2) == (pin << 8 | 0xff if pin else 0)
    machine.write(VGA, 0x3c, 0xffff, 2)     # the line alone
    assert machine.read(VGA, 0x3c, 2) == pin << 8 | 0xff
    assert machine.wanted()[2] == bool(pin)
    machine.write(VGA, 4, 0x400, 2)         # Interrupt Disable
    assert not machine.wanted()[2] and not machine.interrupts[-1][2]
    machine.write(VGA, 4, 0, 2)
    assert machine.interrupts[-1][2] == bool(pin)


def test_reset_brings_capabilities_back(m):
    machine = Machine(m, pin=1, config=with_capabilities([
        (0x40, PM, 0), (0x50, MSI, WIDE | MASKABLE), (0x70, MSIX, 7),
        (0x80, VPD, 0), (0x90, VENDOR, 0)]))
    before = [machine.read(VGA, at) for at in range(0, 256, 4)]
    wanted, chain = machine.wanted(), machine.chain()
    for at in range(0, 256, 4):
        machine.write(VGA, at, 0xffffffff)
    assert machine.wanted() != wanted and machine.chain() == chain
    # What the card says meanwhile (it may be in reset) changes no layout.
    m.host_config[VGA][0x34] = 0
    machine.interrupts.clear()
    m.vpci_reset(machine.pci)
    assert [machine.read(VGA, at) for at in range(0, 256, 4)] == before
    assert machine.wanted() == wanted and machine.interrupts == [wanted]
    assert machine.chain() == chain


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0x40, 0xff), IDS,
                          st.integers(0, 0xff), st.integers(0, 0xffff)),
                max_size=30),
       st.integers(0, 0xff), st.lists(st.tuples(
           OFFSETS, st.sampled_from([1, 2, 4]), VALUES), max_size=40),
       st.randoms(use_true_random=False))
def test_any_layout_is_safe(m, heads, first, writes, random):
    """Overlaps, loops, nonsense: a chain that ends, with what is offered."""
    m.reset()
    config = header()
    config[6], config[0x34] = 0x10, first
    for n, (at, id_, link, control) in enumerate(heads):
        if n + 1 < len(heads) and random.random() < .8:
            link = heads[n + 1][0]
        at &= 0xfc
        config[at:at + 4] = bytes((id_, link, control & 0xff, control >> 8))
    if heads and random.random() < .8:
        config[0x34] = heads[0][0]
    machine = Machine(m, config=config, pin=1)
    chain = machine.chain()
    for at, id_ in chain:
        assert id_ in OFFERED and id_ == config[at]
        control = config[at + 2] | config[at + 3] << 8
        assert at + capability_size(id_, control) <= 256
    assert len({at for at, _ in chain}) == len(chain)
    ids = [id_ for _, id_ in chain]
    assert ids.count(MSI) <= 1 and ids.count(MSIX) <= 1
    for offset, size, value in writes:
        machine.write(VGA, offset & -size, value & (1 << 8 * size) - 1, size)
        machine.wanted()
        # A card may as well change its mind about what it has.
        m.host_config[VGA][offset] = value & 0xff
    m.host_config[VGA] = bytes(config)
    assert machine.chain() == chain
    m.vpci_reset(machine.pci)
    assert machine.chain() == chain
    assert machine.wanted() == ((False, 0, 0, 0), (False, False), True)
    assert machine.host_writes() == []


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


def test_where_function_0_is_not_given_something_stands(m):
    """So that a guest looks for the others: QEMU's generic bridge, which no
    driver wants."""
    machine = Machine(m, bdf=VGA | 3)
    assert [machine.read(VGA, at) for at in range(0, 0x40, 4)] == [
        0x00081b36, 0, 0x06000000, 0x00800000] + [0] * 12
    assert machine.read(VGA | 1, 0) == 0xffffffff
    assert machine.read(VGA | 3, 0) not in (0xffffffff, 0x00081b36)


def test_configuration_accesses_are_counted(m):
    machine = Machine(m)
    before = machine.assigned.accesses
    for n in range(3):
        machine.read(VGA, 4 * n)
    assert machine.assigned.accesses - before == 3
    m.vpci_write(machine.pci, VGA, 4, 2, 3)
    assert machine.assigned.accesses - before == 4


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


# --- Intel's graphics -----------------------------------------------------

# Dwords that drivers read of the host bridge: docs/igd.md.
GRAPHICS = {"IRONLAKE": (0x52, [0x50, 0x54, 0x60, 0x64, 0xa0, 0xa4, 0xa8,
                                0xac, 0xb0]),
            "SANDY_BRIDGE": (0x50, [0x50, 0x54, 0x58, 0x5c, 0x60, 0x64, 0xa8,
                                    0xac, 0xb0, 0xb4, 0xb8, 0xbc, 0xe0, 0xe4,
                                    0xe8, 0xec])}
ALIGNED = st.sampled_from([1, 2, 4]).flatmap(lambda size: st.tuples(
    st.integers(0, 256 // size - 1).map(lambda n: n * size), st.just(size)))


def with_graphics(m, layout):
    """A machine whose host bridge has a byte of its own everywhere."""
    machine = Machine(m)
    machine.bridge_config = bytearray((5 * i + 3) % 251 for i in range(256))
    m.host_config[0] = bytes(machine.bridge_config)
    m.host_bridge_graphics(machine.bridges, machine.host,
                           getattr(m, f"BRIDGE_{layout}"))
    return machine


@pytest.mark.parametrize("layout", GRAPHICS)
def test_host_bridge_registers(m, layout):
    machine = with_graphics(m, layout)
    _, listed = GRAPHICS[layout]
    shown = {at + i for at in [*listed, 0x48, 0x4c] for i in range(4)}
    for at in range(0x40, 0x100):
        want = machine.bridge_config[at] if at in shown else 0
        assert machine.read(0, at, 1) == want, hex(at)
    assert machine.read(0, 0, 4) == 0x12378086


@pytest.mark.parametrize("layout", GRAPHICS)
@settings(max_examples=200, deadline=None)
@given(writes=st.lists(st.tuples(ALIGNED, VALUES), max_size=20))
def test_host_bridge_writes(m, layout, writes):
    """Nothing but bit 1 of the control word arrives, MCHBAR is a copy, and a
    reset undoes both."""
    machine = with_graphics(m, layout)
    control, listed = GRAPHICS[layout]
    host = bytearray(machine.bridge_config)
    mchbar = bytearray(host[0x48:0x50])
    for (at, size), value in writes:
        value &= (1 << 8 * size) - 1
        machine.write(0, at, value, size)
        data = value.to_bytes(size, "little")
        if at <= control < at + size:
            host[control] = host[control] & ~2 | data[control - at] & 2
        for i, byte in enumerate(data):
            if 0x48 <= at + i < 0x50:
                mchbar[at + i - 0x48] = byte
    assert bytes(m.host_config[0]) == bytes(host)
    assert bytes(machine.read(0, 0x48 + i, 1) for i in range(8)) == mchbar
    assert machine.read(0, listed[0], 4) == int.from_bytes(
        host[listed[0]:listed[0] + 4], "little")
    m.vpci_reset(machine.pci)
    assert bytes(m.host_config[0]) == bytes(machine.bridge_config)
    assert machine.read(0, 0x48, 1) == machine.bridge_config[0x48]


@pytest.mark.parametrize("layout", [None, *GRAPHICS])
def test_a_machine_as_qemus_q35(m, layout):
    """IDs by which firmware knows it; the graphics' registers stay."""
    machine = with_graphics(m, layout) if layout else Machine(m)
    identity = machine.bridges[0].identity
    m.pci_identity_q35(m.ffi.addressof(identity))
    assert machine.read(0, 0) == 0x29c08086
    assert machine.read(0, 0x2c) == 0x11001af4
    before = [machine.read(0, at) for at in range(0x40, 0x100, 4)]
    machine.bridges[1].pm_base = 0x600
    assert machine.read(0xf8, 0x40) == 0x601 and machine.read(0xf8, 0x44) == 0x80
    machine.write(0xf8, 0x40, 0)
    assert machine.read(0xf8, 0x40, 2) == 0x601
    assert [machine.read(0, at) for at in range(0x40, 0x100, 4)] == before
    assert layout is None or machine.read(0, 0x50)


@pytest.mark.parametrize("offset, size, value, asked", [
    (0x50, 2, 0xffff, True), (0x50, 2, 0x7fff, False),
    (0x50, 4, 0xffffffff, False), (0x50, 1, 0xff, False),
    (0x52, 2, 0xffff, False)])
def test_who_asks_for_smram(m, offset, size, value, asked):
    machine, told = with_graphics(m, "SANDY_BRIDGE"), []
    bridge = machine.bridges
    bridge[0].no_smm = callback = m.callback("void(void *)", told.append)
    before = bytes(m.host_config[0])
    machine.write(0, offset, value, size)
    assert len(told) == asked and callback
    assert not asked or bytes(m.host_config[0]) == before


def test_rows_of_a_function(m):
    """They count before capabilities and before the general table."""
    rows = m.new("struct pci_policy_row[]", [
        {"first": 0xfc, "last": 0xfc, "policy": m.PCI_HIDDEN},
        {"first": 0x80, "last": 0x84, "policy": m.PCI_READ_THROUGH}])
    config = with_capabilities([(0x80, MSI, 0)])
    machine = Machine(m, config=config, rows=rows)
    assert machine.read(VGA, 0xfc) == 0
    assert machine.read(VGA, 0x80) == int.from_bytes(config[0x80:0x84],
                                                     "little")
    assert machine.read(VGA, 0xf8) == int.from_bytes(config[0xf8:0xfc],
                                                     "little")
    dropped = machine.assigned.dropped
    for at in (0xfc, 0x80, 0x84, 0xe8):
        machine.write(VGA, at, 0xffffffff)
        machine.write(VGA, at + 2, 0xff, 1)
    assert not machine.host_writes()
    assert machine.assigned.dropped == dropped + 8
