# SPDX-License-Identifier: MIT
"""A bridge in front of an assigned function, as a guest sees it.

The registers are those of PCI-to-PCI bridges 1.2, 3.2, and PCIe 7.5.3; what
Linux does to them is in its drivers/pci/probe.c.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from vpcimodel import DATA, FAKES, Machine, header

PORT, EXPRESS = 0x00e4, 0x10        # 00:1c.4


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "pci_port", ["vmm/core/bus.c", "vmm/devmodel/pci_bus.c",
                     "vmm/devmodel/pci_bridges.c", "drivers/pci/scan.c",
                     "vmm/devmodel/pci_assigned.c",
                     "vmm/devmodel/pci_port.c"],
        headers=["vmm/devmodel/pci_bridges.h", "vmm/devmodel/pci_assigned.h",
                 "vmm/devmodel/pci_port.h", "vmm/devmodel/pci_bus.h", "vmm/core/bus.h", "drivers/pci/pci.h"],
        fakes=FAKES, cdef="extern u8 host_config[65536][256];")


def bridge(express=0x40, version=2, **more):
    """A root port of a laptop, as firmware leaves it."""
    config = header(0x8086, 0x9d14, 0x0407, 0x0010, 0x0604, 0x81)
    fields = {
        0x10: (0xfe000004, 4), 0x14: (0, 4), 0x18: (0, 1), 0x19: (1, 1),
        0x1a: (1, 1), 0x1b: (0, 1), 0x1c: (0xe1d1, 2), 0x1e: (0x2000, 2),
        0x20: (0xd000cff0, 4), 0x24: (0x8ff18001, 4), 0x28: (0x60, 4),
        0x2c: (0x60, 4), 0x30: (0, 4), 0x34: (express, 1),
        0x38: (0xfffff801, 4), 0x3c: (11, 1), 0x3d: (4, 1),
        0x3e: (0x0058, 2), **more}
    if express:
        fields |= {express: (EXPRESS, 1), express + 1: (0x80, 1),
                   express + 2: (0x0140 | version, 2)}
    for at, (value, size) in fields.items():
        config[at:at + size] = value.to_bytes(size, "little")
    return config


class Bridge(Machine):
    def __init__(self, m, config=None, bdf=PORT, clear=True, cold=False):
        super().__init__(m, bdf=0x100)      # 01:00.0
        self.at, self.raw = bdf, config or bridge()
        m.host_config[bdf] = bytes(self.raw)
        self.port_function = m.new("struct pci_function *", {
            "bdf": bdf, "secondary_bus": 1})
        self.bridge = m.new("struct pci_port *")
        assert m.pci_port_init(self.bridge, self.pci, self.host,
                               self.port_function, cold) == 0
        if clear:
            m.clear_events()


# Byte by byte what is the host's: everything else of the header reads 0.
HOST = {4: 7, 6: 0xa0, 7: 6, 0xe: 0x7f, 0x1e: 0xa0, 0x1f: 6, 0x3e: 0xbf,
        0x3f: 0x0f}
HOST |= {at: 0xff for at in (
    *range(0, 4), *range(8, 12), 0x18, 0x19, 0x1a, 0x1c, 0x1d,
    *range(0x20, 0x34))}
GUEST = {4: 0x47, 5: 5, 0xc: 0xff, 0xd: 0xff, 0x1c: 0xf0, 0x1d: 0xf0,
         0x20: 0xf0, 0x21: 0xff, 0x22: 0xf0, 0x23: 0xff, 0x24: 0xf0,
         0x25: 0xff, 0x26: 0xf0, 0x27: 0xff, 0x3c: 0xff, 0x3e: 0xff,
         0x3f: 0x0f}
GUEST |= {at: 0xff for at in (*range(0x18, 0x1c), *range(0x28, 0x34))}


def model(config, express=0x40, dwords=15):
    out = bytearray(config[at] & HOST.get(at, 0) for at in range(64)) + \
        bytearray(192)
    if not express:
        return out
    out[6] |= 0x10
    out[0x34] = express
    end = min(express + 4 * dwords, 256)
    out[express:end] = config[express:end]
    out[express + 1] = 0
    out[express + 3] &= ~1              # Slot Implemented
    for first, last in (0x14, 0x23), (0x34, 0x3b):
        for at in range(express + first, min(express + last + 1, end)):
            out[at] = 0
    for at, bit in (0xe, 0x20), (0x24, 0x20):
        if express + at < end:
            out[express + at] &= ~bit
    return out


@pytest.mark.parametrize("express, version, dwords", [
    (0x40, 2, 15), (0x40, 1, 9), (0xc4, 2, 15), (0xe0, 2, 8), (0xfc, 2, 1),
    (0, 0, 0)])
def test_every_size_at_every_offset(m, express, version, dwords):
    config = bridge(express, version)
    if not express:
        config[6] = 0
    b, expected = Bridge(m, config), model(config, express, dwords)
    for at in range(256):
        b.select(PORT, at)
        for size in 1, 2, 4:
            lane = at % 4
            want = (expected[at - lane:at - lane + 4] +
                    b"\xff" * 4)[lane:lane + size]
            assert b.port(DATA + lane, size) == \
                int.from_bytes(want, "little"), (hex(at), size)
    assert b.host_writes() == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(
    st.sampled_from([1, 2, 4]), st.integers(0, 255),
    st.integers(0, 2**32 - 1) | st.sampled_from([0, 2**32 - 1])),
    max_size=30))
def test_writes_are_the_guests_note(m, writes):
    m.reset()
    b = Bridge(m)
    expected = model(b.raw)
    for size, at, value in writes:
        at -= at % size
        b.write(PORT, at, value, size)
        for k in range(size):
            bits = GUEST.get(at + k, 0)
            expected[at + k] = expected[at + k] & ~bits | \
                value >> 8 * k & bits
    assert bytes(expected) == b"".join(
        b.read(PORT, at).to_bytes(4, "little") for at in range(0, 256, 4))
    # The function behind it is on the bus that the guest has given it.
    secondary, subordinate = expected[0x19], expected[0x1a]
    for bus in (1, secondary, subordinate):
        found = 0 < bus == secondary <= subordinate
        assert not bus or b.read(bus << 8, 0) == \
            (0x11111234 if found else 0xffffffff), bus
    assert b.host_writes() == []
    m.vpci_reset(b.pci)
    assert bytes(model(b.raw)) == b"".join(
        b.read(PORT, at).to_bytes(4, "little") for at in range(0, 256, 4))


def test_after_power_on_a_bridge_has_neither_numbers_nor_windows(m):
    """3.2.5.1 ff.; which windows it can have stays to be read."""
    config = bridge()
    b = Bridge(m, config, cold=True)
    expected = model(config)
    for at in range(0x40):
        expected[at] &= ~GUEST.get(at, 0)
    assert expected[0x24] == 1                  # 64 bits
    assert b.read(PORT, 0x19, 1) == b.read(PORT, 0x20) == 0

    def seen():
        return b"".join(b.read(PORT, at).to_bytes(4, "little")
                        for at in range(0, 256, 4))
    assert seen() == bytes(expected)
    b.write(PORT, 0x18, 0x020200)
    assert b.read(0x200, 0) == 0x11111234
    m.vpci_reset(b.pci)
    assert seen() == bytes(expected) and b.read(0x200, 0) == 0xffffffff


def test_linux_keeps_firmwares_numbers_and_windows(m):
    """pci_scan_bridge_extend(), pci_read_bridge_windows()."""
    b = Bridge(m)
    primary, secondary, subordinate = (
        b.read(PORT, at, 1) for at in (0x18, 0x19, 0x1a))
    assert (primary, secondary, subordinate) == (0, 1, 1)
    control = b.read(PORT, 0x3e, 2)
    b.write(PORT, 0x3e, control & ~0x20, 2)
    b.write(PORT, 0x3e, control, 2)
    assert b.read(PORT, 0x1c, 2) and b.read(PORT, 0x24)
    upper = b.read(PORT, 0x28)
    b.write(PORT, 0x28, 0xffffffff)
    assert b.read(PORT, 0x28) == 0xffffffff     # "64-bit prefetchable"
    b.write(PORT, 0x28, upper)
    assert (b.read(PORT, 0x24), b.read(PORT, 0x28)) == (0x8ff18001, 0x60)


class Tree:
    """Bridges and functions, by the host's numbers; each tells by its first
    dword what it is."""

    def __init__(self, m, bridges, functions, roots=()):
        """bridges: {host's BDF: secondary}; none has guest's numbers yet."""
        self.m, self.pci = m, m.new("struct vpci *")
        assert m.vpci_init(self.pci, m.new("struct bus *")) == 0
        self.ops = m.new("struct vpci_ops *", {
            "read": m.callback("u32(void *, unsigned, unsigned)",
                               lambda dev, at, size: int(
                                   m.ffi.cast("uintptr_t", dev)))})
        self.numbers = {bdf: m.new("u8[3]") for bdf in bridges}
        for bdf in [*functions, *roots]:
            assert m.vpci_add(self.pci, bdf, self.ops, self.name(bdf)) == 0
        for bdf, secondary in bridges.items():
            assert m.vpci_add_bridge(self.pci, bdf, self.ops, self.name(bdf),
                                     secondary, self.numbers[bdf]) == 0

    def name(self, bdf):
        return self.m.ffi.cast("void *", bdf)

    def number(self, bdf, secondary, subordinate):
        self.numbers[bdf][1], self.numbers[bdf][2] = secondary, subordinate

    def found(self):
        """{the guest's BDF: what is there}, of all."""
        return {bus << 8 | dev << 3: what for bus in range(256)
                for dev in range(32)
                if (what := self.m.vpci_read(self.pci, bus << 8 | dev << 3,
                                             0, 4)) != 0xffffffff}


def test_firmware_numbers_buses_anew(m):
    """SeaBIOS' pci_bios_init_bus_rec(): depth first, 255 while it looks."""
    t = Tree(m, {0x08: 0x10, 0x1000: 0x11, 0x1108: 0x20, 0x10: 0x30},
             [0x1110, 0x2000, 0x3008], roots=[0x18])
    here = {0x08: 0x08, 0x10: 0x10, 0x18: 0x18}
    assert t.found() == here                    # as after power-on
    t.number(0x08, 1, 255)
    assert t.found() == here | {0x100: 0x1000}
    t.number(0x1000, 2, 255)
    assert t.found() == here | {0x100: 0x1000, 0x208: 0x1108, 0x210: 0x1110}
    t.number(0x1108, 3, 3)
    t.number(0x1000, 2, 3)
    t.number(0x08, 1, 3)
    t.number(0x10, 4, 4)
    assert t.found() == here | {
        0x100: 0x1000, 0x208: 0x1108, 0x210: 0x1110, 0x300: 0x2000,
        0x408: 0x3008}
    # By chance, a number of the host's.
    t.number(0x1108, 0x11, 0x11)
    t.number(0x1000, 0x10, 0x11)
    t.number(0x08, 0x20, 0x20)
    assert t.found() == here | {0x2000: 0x1000, 0x408: 0x3008}
    t.number(0x08, 0x0f, 0x11)
    assert t.found() == here | {
        0xf00: 0x1000, 0x1008: 0x1108, 0x1010: 0x1110, 0x1100: 0x2000,
        0x408: 0x3008}
    # The bridge above does not let it through.
    t.number(0x1108, 3, 3)
    t.number(0x1000, 2, 3)
    t.number(0x08, 1, 2)
    assert 0x300 not in t.found()


def test_a_root_bus_keeps_its_number(m):
    t = Tree(m, {0x08: 1, 0x8008: 0x81}, [0x100, 0x8100], roots=[0x8010])
    t.number(0x08, 0x80, 0x90)                  # which is not its
    t.number(0x8008, 0x81, 0x81)
    assert t.found() == {0x08: 0x08, 0x8008: 0x8008, 0x8010: 0x8010,
                         0x8100: 0x8100}


def test_bridges_in_a_circle(m):
    """Firmware's tables may have them; a look there comes to an end."""
    t = Tree(m, {0x08: 1, 0x100: 2, 0x200: 1}, [0x208])
    for bdf in t.numbers:
        t.number(bdf, 3, 9)
    assert t.found()[0x08] == 0x08
    assert 0x700 not in t.found()


@pytest.mark.parametrize("command, io, memory, wide, on", [
    (0x0400, 0xe1d1, 0xd000cff0, 0x8ff18001, 0x0407),
    (0x0000, 0xe1d1, 0x0000fff0, 0x8ff18001, 7),
    (0x0000, 0x00f0, 0xd000cff0, 0x0000fff0, 6),
    (0x0000, 0x00f0, 0x0000fff0, 0x0001fff1, 4),    # closed
    (0x0000, 0, 0, 0, 4),                           # never set up
    (0x0007, 0xe1d1, 0xd000cff0, 0, None)])
def test_a_port_that_firmware_left_off_is_on(m, command, io, memory, wide, on):
    config = bridge()
    for at, value, size in ((4, command, 2), (0x1c, io, 2), (0x20, memory, 4),
                            (0x24, wide, 4)):
        config[at:at + size] = value.to_bytes(size, "little")
    m.reset()
    b = Bridge(m, config, clear=False)
    assert [w for w in b.host_writes() if w[0] == PORT] == \
        ([] if on is None else [(PORT, 4, 2, on)])
    # The guest sees what firmware has left.
    assert b.read(PORT, 4, 2) == command & 7


@pytest.mark.parametrize("which, at, fields, window", [
    ("PREFETCHABLE", 0x24, (0x8ff18001, 0x60, 0x60),
     (0x6080000000, 0x6090000000)),
    ("PREFETCHABLE", 0x24, (0xfff18001, 0x60, 0x61),
     (0x6080000000, 0x6200000000)),
    # A 32-bit one has no upper halves.
    ("PREFETCHABLE", 0x24, (0x8ff08000, 0x60, 0x60), (0x80000000, 0x90000000)),
    ("PREFETCHABLE", 0x24, (0x8ff18001, 0, 0), (0x80000000, 0x90000000)),
    ("PREFETCHABLE", 0x24, (0x0001fff1, 1, 0), None),       # closed
    ("MEMORY", 0x20, (0xd000cff0,), (0xcff00000, 0xd0100000)),
    ("MEMORY", 0x20, (0x0000fff0,), None),
    ("MEMORY", 0x20, (0,), None),                   # never set up
    ("IO", 0x1c, (0x2000e1d1,), (0xd000, 0xf000)),
    ("IO", 0x1c, (0x00f0,), None), ("IO", 0x1c, (0,), None)])
def test_windows(m, which, at, fields, window):
    config = bridge()
    for n, value in enumerate(fields):
        config[at + 4 * n:at + 4 * n + 4] = value.to_bytes(4, "little")
    b = Bridge(m, config)
    found = m.new("u64[2]")
    on = m.pci_port_window(b.bridge, getattr(m, f"PCI_PORT_{which}"),
                           found, found + 1)
    assert (tuple(found) if on else None) == window
    # Of firmware in the guest what that has written.
    b = Bridge(m, config, cold=True)
    assert not m.pci_port_window(b.bridge, getattr(m, f"PCI_PORT_{which}"),
                                 found, found + 1)
    for n, value in enumerate(fields):
        b.write(PORT, at + 4 * n, value)
    on = m.pci_port_window(b.bridge, getattr(m, f"PCI_PORT_{which}"),
                           found, found + 1)
    assert (tuple(found) if on else None) == window


def test_every_dword_has_a_row_and_a_reason(m):
    for at in range(0, 64, 4):
        row = m.pci_port_policy(at)
        assert row.first <= at <= row.last and m.string(row.reason)
