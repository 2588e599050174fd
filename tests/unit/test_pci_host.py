# SPDX-License-Identifier: MIT
"""The host's PCI against machines whose configuration space is a dict."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from pcihost import ECAM, FAKES, Function, Machine, bdf

ABSENT = b"\xff" * 256


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "pci_host", ["drivers/pci/config.c", "drivers/pci/scan.c"],
        headers=["drivers/pci/pci.h", "kernel/log.h"],
        exports=["pci_on_root"], fakes=FAKES)


BOTH = pytest.mark.parametrize("ecam", [False, True])


# --- Access --------------------------------------------------------------

@BOTH
@pytest.mark.parametrize("where", [0, bdf(0, 2), bdf(255, 31, 7)])
def test_every_width_at_every_place(m, ecam, where):
    f = Function()
    f.config[:] = bytes(n * 7 & 255 for n in range(4096))
    f.writable[:] = b"\xff" * 4096
    machine = Machine(m, {where: f}, ecam)
    for size in 1, 2, 4:
        for at in range(0, 256, size):
            assert m.pci_config_read(machine.host, where, at, size) == \
                f.read(at, size)
            value = 0xa1b2c3d4 + at * 0x01030507 & 2 ** (8 * size) - 1
            m.pci_config_write(machine.host, where, at, size, value)
            assert machine.writes[-1] == (where, at, size, value)
            assert f.read(at, size) == value
    assert m.pci_config_read(machine.host, where ^ 8, 4, 2) == 0xffff


@pytest.mark.parametrize("at, value, wanted", [
    (None, 0, True), (0, 0xffffffff, False), (0, 0, False), (8, 0, False)])
def test_ecam_is_compared_with_mechanism_1(m, at, value, wanted):
    """At 00:00.0, by the ID, and by revision and class."""
    machine = Machine(m, {0: Function(cls=0x060000)})

    def lies(kind, addr, size):
        if kind == "read" and addr - ECAM == at:
            return value
        return machine.on_read(kind, addr, size)
    m.on_read(lies)
    assert m.pci_use_ecam(machine.host, ECAM, 63) == wanted
    assert (machine.host.ecam, machine.host.ecam_last_bus) == (
        ECAM * wanted, 63)
    assert m.pci_config_read(machine.host, 0, 0, 4) == 0x12348086


def test_extended_space_needs_ecam(m):
    f = Function()
    f.put(0x100, 4, 0x12345678)
    for last_bus, bus, seen in (255, 3, 0x12345678), (2, 3, 0xffffffff):
        machine = Machine(m, {bdf(bus, 1): f}, True, last_bus)
        assert m.pci_config_read(machine.host, bdf(bus, 1), 0x100, 4) == seen
    # Past ECAM's buses and in reach of mechanism #1.
    assert m.pci_config_read(machine.host, bdf(3, 1), 2, 2) == 0x1234
    plain = Machine(m, {bdf(3, 1): f})
    for size in 1, 2, 4:
        assert m.pci_config_read(plain.host, bdf(3, 1), 0xffc, size) == \
            2 ** (8 * size) - 1
    m.pci_config_write(plain.host, bdf(3, 1), 0x100, 4, 0)
    assert plain.writes == [] and plain.log == []


@BOTH
@pytest.mark.parametrize("at, size", [
    (1, 2), (2, 4), (0, 3), (0, 0), (0, 8), (4096, 1), (2**32 - 4, 4)])
def test_what_is_no_access_reaches_no_hardware(m, ecam, at, size):
    machine = Machine(m, {0: Function()}, ecam)
    m.pci_config_read(machine.host, 0, at, size)
    m.pci_config_write(machine.host, 0, at, size, 0)
    assert m.events() == []


# --- Scan ----------------------------------------------------------------

@BOTH
def test_a_laptop(m, ecam):
    """Bridges in and out of order, one function table with gaps."""
    functions = {
        bdf(0, 0): Function(device=0x1904, cls=0x060000),
        bdf(0, 2): Function(device=0x191b, cls=0x030000),
        bdf(0, 0x1c): Function(cls=0x060400, header=1, multi=True,
                               secondary=3),
        bdf(0, 0x1c, 4): Function(cls=0x060400, header=1, secondary=1),
        bdf(0, 0x1f): Function(cls=0x060100, multi=True),
        bdf(0, 0x1f, 3): Function(cls=0x040300),
        bdf(0, 0x1f, 6): Function(device=0x15b7),
        bdf(1, 0): Function(cls=0x060400, header=1, secondary=5),
        bdf(3, 0): Function(vendor=0x10ec, cls=0xff0000),
        bdf(5, 7): Function(vendor=0x144d, device=0xa802, cls=0x010802),
    }
    machine = Machine(m, functions, ecam)
    assert machine.scan(m) == sorted(functions)
    igd = m.pci_find(machine.host, bdf(0, 2))
    assert (igd.vendor, igd.device, getattr(igd, "class"), igd.revision,
            igd.header_type, igd.secondary_bus) == \
        (0x8086, 0x191b, 0x0300, 0x5a, 0, 0)
    port = m.pci_find(machine.host, bdf(0, 0x1c))
    assert (port.header_type, port.secondary_bus) == (1, 3)
    assert m.pci_find(machine.host, bdf(0, 3)) == m.NULL
    assert m.pci_find(machine.host, 0xffff) == m.NULL
    assert machine.writes == [], "a scan writes nothing"
    assert "10 functions on 4 buses" in m.log_text()


def test_functions_of_a_single_function_device_are_not_touched(m):
    """Some single-function devices answer for all eight."""
    machine = Machine(m, {bdf(0, 3, fn): Function() for fn in range(8)})
    assert machine.scan(m) == [bdf(0, 3)]
    assert not [e for e in machine.log if e[1] & 7]


def test_function_zero_must_be_there(m):
    machine = Machine(m, {bdf(0, 3, 1): Function(multi=True)})
    assert machine.scan(m) == []


@pytest.mark.parametrize("vendor", [0xffff, 0])
def test_what_answers_with_no_vendor_is_absent(m, vendor):
    dead = Function(vendor=vendor, header=1, multi=True, secondary=9)
    machine = Machine(m, {bdf(0, 1): dead, bdf(0, 2): Function(),
                          bdf(9, 0): Function()}, True, 8)
    assert machine.scan(m) == [bdf(0, 2)]


def test_a_bridge_that_has_died_leads_nowhere(m):
    dead = Function(cls=0xffffff, header=0x7f, multi=True)
    dead.config[2:] = b"\xff" * 4094
    machine = Machine(m, {bdf(0, 1): dead, bdf(0, 1, 5): Function(),
                          bdf(255, 0): Function()}, True, 254)
    assert machine.scan(m) == [bdf(0, 1), bdf(0, 1, 5)]


def test_loops_end(m):
    """To itself, to its parent, unconfigured, and twice to one bus."""
    machine = Machine(m, {
        bdf(0, 1): Function(header=1, secondary=0),
        bdf(0, 2): Function(header=1, secondary=7),
        bdf(0, 3): Function(header=2, secondary=7),
        bdf(7, 0): Function(header=1, secondary=7),
        bdf(7, 1): Function(header=1, secondary=0),
        bdf(7, 2): Function(header=1, secondary=255),
        bdf(255, 31): Function(),
    })
    assert machine.scan(m) == sorted(machine.functions)
    visits = [w for kind, w, at, size in machine.log if (at, size) == (0, 4)]
    assert len(visits) == len(set(visits)), "a function was visited twice"


def test_more_functions_than_the_table_holds(m):
    functions = {bdf(b, d, f): Function(multi=True)
                 for b in range(3) for d in range(1, 32) for f in range(8)}
    functions[bdf(0, 0)] = Function(header=1, secondary=1, multi=True)
    functions[bdf(0, 0, 1)] = Function(header=1, secondary=2)
    machine = Machine(m, functions)
    assert machine.scan(m) == sorted(functions)[:m.PCI_FUNCTIONS_MAX]
    assert f"{len(functions)} functions on 3 buses" in m.log_text()
    assert m.log_lines()[-1] == (
        m.LOG_WARN, f"pci: {len(functions) - m.PCI_FUNCTIONS_MAX} functions "
        "are too many, left out")


# --- Root buses other than 0 ----------------------------------------------

def bridge(secondary, subordinate=None, **fields):
    f = Function(cls=0x060400, header=1, secondary=secondary, **fields)
    f.put(0x1a, 1, secondary if subordinate is None else subordinate)
    return f


def two_roots():
    """As Arrow Lake: the chipset by itself, from 0x80 on."""
    functions = {
        bdf(0, 0): Function(cls=0x060000), bdf(0, 6): bridge(1),
        bdf(1, 0): Function(device=0xa80c),
        bdf(0x80, 0x14): Function(device=0x7f6e, cls=0x0c0330, multi=True),
        bdf(0x80, 0x14, 5): Function(),
        bdf(0x80, 0x1c): bridge(0x82, 0x84), bdf(0x82, 0): bridge(0x83),
        bdf(0x83, 3): Function()}
    for n, f in enumerate(functions.values()):
        f.put(0x10, 4, 0x8000_0000 + 0x10_0000 * n)
    return functions


def visited(machine):
    return {where >> 8 for _, where, _, _ in machine.log}


@BOTH
def test_a_bus_that_no_bridge_leads_to_is_a_root(m, ecam):
    machine = Machine(m, two_roots(), ecam)
    assert machine.scan(m) == sorted(machine.functions)
    assert "8 functions on 5 buses, 2 of them roots" in m.log_text()
    assert machine.writes == [], "a scan writes nothing"
    for where, top in ((1, 0, 0), (0, 6)), ((0x83, 3), (0x80, 0x1c)), \
            ((0x80, 0x14, 5), (0x80, 0x14, 5)):
        assert m.pci_on_root(machine.host, bdf(*where)) == bdf(*top)


@BOTH
def test_the_search_for_roots_is_bounded(m, ecam):
    """An access for each device of each bus, and behind what a bridge
    passes on there is none."""
    machine = Machine(m, {bdf(0, 1): bridge(1, 0x7f)}, ecam)
    assert machine.scan(m) == [bdf(0, 1)]
    assert visited(machine) == {0, 1, *range(0x80, 256)}
    assert len(machine.log) <= 130 * 32 + 10


@pytest.mark.parametrize("secondary, subordinate", [
    (0, 255), (1, 0), (255, 255)])
def test_a_bridges_numbers_that_lie_hide_no_root(m, secondary, subordinate):
    """Not set up at all, its last bus not set, or to itself."""
    machine = Machine(m, two_roots())
    at = bdf(0x80, 0) if secondary == 255 else bdf(0, 1)
    machine.functions[at] = bridge(secondary, subordinate)
    assert machine.scan(m) == sorted(machine.functions)


def test_buses_that_mcfg_does_not_have_are_no_roots(m):
    machine = Machine(m, two_roots(), True, 0x7f)
    assert machine.scan(m) == [bdf(0, 0), bdf(0, 6), bdf(1, 0)]
    assert max(visited(machine)) == 0x7f


class Short(Machine):
    """ECAM of some buses only; behind it lies a device's memory."""

    def on_read(self, kind, addr, size):
        where, at = self.target(kind, addr, size)
        if kind == "read" and where >> 8 >= 0x40:
            self.log.append((kind, where, at, size))
            return 0x1234_8086 & 2 ** (8 * size) - 1
        return super().on_read(kind, addr, size)


def test_memory_behind_ecam_is_no_root(m):
    """MCFG has stated more than the chipset decodes."""
    machine = Short(m, {bdf(0, 0): Function()}, True)
    assert machine.scan(m) == [bdf(0, 0)]
    assert machine.writes == []
    assert len(machine.log) < 256 * 32


class Narrow(Machine):
    """A chipset that decodes six bits of the bus number."""

    def target(self, kind, addr, size):
        where, at = super().target(kind, addr, size)
        return where & 0x3fff, at


@BOTH
def test_a_bus_that_is_seen_again_is_no_root(m, ecam):
    functions = {
        bdf(0, 0): Function(cls=0x060000), bdf(0, 2): Function(multi=True),
        bdf(0, 2, 3): Function(), bdf(0, 6): bridge(1),
        bdf(1, 0): Function(device=0xa80c), bdf(0x20, 1): Function()}
    functions[bdf(1, 0)].bar(0, 0xfe00_0004, 0xffff_0000)
    machine = Narrow(m, functions, ecam)
    assert machine.scan(m) == sorted(functions)
    assert "6 functions on 3 buses, 2 of them roots" in m.log_text()


@pytest.mark.parametrize("at, value", [
    (0x00, 0x1235_8086), (0x08, 0x0200_0001), (0x10, 0xfe10_0000),
    (0x2c, 0x1234_5678), (0x3c, 0x0000_010b)])
def test_a_bus_that_is_like_another_but_for_a_register_is_a_root(m, at,
                                                                 value):
    """A machine with two cards of a kind."""
    functions = {bdf(bus, dev): Function() for bus in (0, 0x40)
                 for dev in (1, 2)}
    functions[bdf(0x40, 2)].put(at, 4, value)
    assert Machine(m, functions).scan(m) == sorted(functions)


BUS = st.integers(0, 6) | st.just(255)
KIND = st.tuples(st.sampled_from([0, 0, 1, 1, 2, 3]), st.booleans(), BUS,
                 st.sampled_from([0x8086, 0x8086, 0x8086, 0xffff, 0]), BUS)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(
    st.builds(bdf, BUS, st.integers(0, 3), st.integers(0, 7)), KIND,
    max_size=60))
def test_against_a_naive_search(m, drawn):
    m.reset()
    functions = {w: Function(vendor, header=header, multi=multi,
                             secondary=secondary)
                 for w, (header, multi, secondary, vendor, _) in drawn.items()}
    for where, f in functions.items():
        f.put(0x10, 4, where << 12)     # none is like another
        if drawn[where][0]:
            f.put(0x1a, 1, drawn[where][4])

    def search(bus, done):
        """Recursion by the manual's words."""
        found, done = set(), done | {bus}
        for dev in range(32):
            zero = drawn.get(bdf(bus, dev))
            if not zero or zero[3] != 0x8086:
                continue
            for fn in range(8 if zero[1] else 1):
                one = drawn.get(bdf(bus, dev, fn))
                if one and one[3] == 0x8086:
                    found.add(bdf(bus, dev, fn))
                    if one[0] in (1, 2) and one[2] not in done:
                        found |= search(one[2], done)
        return found

    found = search(0, set())
    for bus in range(1, 10):
        led_to = any(drawn[w][0] in (1, 2) and (
            drawn[w][2] == bus or w >> 8 < drawn[w][2] <= bus <= drawn[w][4])
            for w in found)
        if not led_to:
            found |= search(bus, {w >> 8 for w in found})
    assert Machine(m, functions, True, 9).scan(m) == sorted(found)


# --- BARs ----------------------------------------------------------------

def bars(m, f):
    machine = Machine(m, {bdf(0, 2): f}, True, 0)
    machine.scan(m)
    before = bytes(f.config)
    found = m.pci_find(machine.host, bdf(0, 2))
    m.pci_size_bars(machine.host, found)
    assert bytes(f.config) == before, "every register is restored"
    return machine, [
        (b.base, b.size, "".join(c for c, on in zip(
            "i6p", (b.io, b.is64, b.prefetchable)) if on)) for b in found.bars]


def test_the_bars_of_an_igd(m):
    f = Function(cls=0x030000)
    f.bar(0, 0xd000_0004, 0xff00_0000)
    f.bar(1, 0, 0xffff_ffff)
    f.bar(2, 0x8000_000c, 0xe000_0000)
    f.bar(3, 0x60, 0xffff_ffff)
    f.bar(4, 0xf001, 0x0000_ffc0)   # 16 bits of port only
    machine, found = bars(m, f)
    assert found == [
        (0xd000_0000, 16 << 20, "6"), (0, 0, ""),
        (0x60_8000_0000, 512 << 20, "6p"), (0, 0, ""), (0xf000, 64, "i"),
        (0, 0, "")]
    command = [(i, w[3]) for i, w in enumerate(machine.writes) if w[1] == 4]
    assert command == [(0, 4), (len(machine.writes) - 1, 7)], \
        "decode is off first, back last, and bus mastering stays"


@pytest.mark.parametrize("value, mask, expected", [
    (0xfebf_0000, 0xffff_0000, (0xfebf_0000, 65536, "")),
    (0xfebf_f008, 0xffff_fff0, (0xfebf_f000, 16, "p")),
    (0x8000_0000, 0x8000_0000, (0x8000_0000, 2 << 30, "")),
    (0xe001, 0xffff_fffc, (0xe000, 4, "i")),
    (0xe003, 0xffff_fffc, (0xe000, 4, "i")),    # bit 1 is reserved
    (0x0000_0002, 0xfff0_0000, (0, 1 << 20, "")),  # below 1 MiB (PCI 2.1)
    (0, 0, (0, 0, ""))])
def test_single_bars(m, value, mask, expected):
    f = Function()
    f.bar(5, value, mask)
    assert bars(m, f)[1][5] == expected


def test_64_bit_bars_of_every_size(m):
    for bit in range(4, 64):
        f = Function()
        mask = 2**64 - 2**bit
        f.bar(1, 0x0000_0004, mask & 0xffff_fff0)
        f.bar(2, 0, mask >> 32)
        assert bars(m, f)[1][1:3] == [(0, 2**bit, "6"), (0, 0, "")]


def test_a_64_bit_bar_has_no_room_in_the_last_register(m):
    f = Function()
    f.bar(5, 0xfeb0_0004, 0xffff_0000)
    f.put(0x28, 4, 0xdeadbeef)      # CardBus CIS: not the upper half
    f.writable[0x28:0x2c] = b"\xff" * 4
    machine, found = bars(m, f)
    assert found[5] == (0xfeb0_0000, 65536, "")
    assert not [w for w in machine.writes if w[1] >= 0x28]


def test_a_bridge_has_two(m):
    f = Function(cls=0x060400, header=1, secondary=1)
    f.bar(0, 0xfe00_0004, 0xffff_c000)
    f.bar(1, 0, 0xffff_ffff)
    f.writable[0x18:0x28] = b"\xff" * 16    # bus numbers and windows
    machine, found = bars(m, f)
    assert found == [(0xfe00_0000, 0x4000, "6")] + [(0, 0, "")] * 5
    assert {w[1] for w in machine.writes} == {4, 0x10, 0x14}
    f = Function(cls=0x060700, header=2, secondary=1)
    assert bars(m, f)[1] == [(0, 0, "")] * 6


def test_a_host_bridge_keeps_its_decode(m):
    f = Function(cls=0x060000)
    f.bar(0, 0xe000_0008, 0xf000_0000)
    machine, found = bars(m, f)
    assert found[0] == (0xe000_0000, 256 << 20, "p")
    assert not [w for w in machine.writes if w[1] == 4]


@pytest.mark.parametrize("vendor, size", [(0x8086, 0), (0x1af4, 65536)])
def test_registers_of_a_servers_that_are_no_bars_are_not_written(m, vendor,
                                                                 size):
    """Xeon E5 v4's home agent (erratum BDF2), and another's device."""
    f = Function(vendor, 0x6fa0)
    f.bar(0, 0xfe00_0000, 0xffff_0000)
    machine, found = bars(m, f)
    assert found[0][1] == size
    assert bool([w for w in machine.writes if w[1] >= 0x10]) == bool(size)


def test_a_function_that_is_gone_has_no_bars(m):
    f = Function()
    f.bar(0, 0xfe00_0000, 0xffff_0000)
    machine = Machine(m, {bdf(0, 2): f})
    machine.scan(m)
    found = m.pci_find(machine.host, bdf(0, 2))
    m.pci_size_bars(machine.host, found)
    assert found.bars[0].size == 65536
    del machine.functions[bdf(0, 2)]
    m.pci_size_bars(machine.host, found)
    assert [b.size for b in found.bars] == [0] * 6


# --- Capabilities --------------------------------------------------------

def capability(m, f, kind):
    machine = Machine(m, {bdf(0, 2): f})
    at = m.pci_find_capability(machine.host, bdf(0, 2), kind)
    assert machine.writes == []
    assert len(machine.log) < 200, "no bound"
    return at


def test_capabilities(m):
    f = Function()
    f.capabilities((0x40, 9, 0x70), (0x70, 0x10, 0xac), (0xac, 5, 0xd0),
                   (0xd0, 1, 0))
    assert [capability(m, f, k) for k in (9, 0x10, 5, 1, 0x11)] == \
        [0x40, 0x70, 0xac, 0xd0, 0]
    assert capability(m, Function(), 0) == 0
    f.put(6, 2, 0)      # without the status bit the pointer means nothing
    assert capability(m, f, 9) == 0


def test_capability_pointers_that_lie(m):
    f = Function()
    f.capabilities((0x53, 9, 0x62), (0x60, 5, 0x3c))    # low bits: reserved
    assert capability(m, f, 9) == 0x50 and capability(m, f, 5) == 0x60
    f.put(0x3c, 1, 7)       # a header register is no capability
    assert capability(m, f, 7) == 0
    loop = Function()
    loop.capabilities((0x40, 9, 0x44), (0x44, 5, 0x40))
    assert capability(m, loop, 5) == 0x44 and capability(m, loop, 1) == 0
    every = Function()
    every.capabilities(*((at, 9, at + 4 & 255) for at in range(0x40, 256, 4)))
    every.put(0xfc, 1, 0x10)        # the longest list there is
    assert capability(m, every, 0x10) == 0xfc
    every.config[0x34] = every.config[0xfd] = 0xff
    every.put(0xfc, 2, 0xffff)
    assert capability(m, every, 1) == 0
    assert m.pci_find_capability(Machine(m, {}).host, 0, 0xff) == 0


def test_cardbus_keeps_its_pointer_elsewhere(m):
    f = Function(header=2, secondary=4)
    f.capabilities()
    f.put(0x14, 1, 0xa0)
    f.put(0x34, 1, 0x40)        # an I/O window there
    f.put(0xa0, 2, 1)
    assert capability(m, f, 1) == 0xa0


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=256, max_size=256), st.integers(0, 255))
def test_any_bytes(m, config, kind):
    m.reset()
    f = Function()
    f.config[:256], f.writable[:256] = config, b"\xff" * 256
    at = capability(m, f, kind)
    if at:
        assert at % 4 == 0 and 0x40 <= at < 256 and config[at] == kind
