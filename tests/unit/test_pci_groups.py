# SPDX-License-Identifier: MIT
"""Isolation groups on made-up machines, and against a naive model.

Rules: PCIe 5.0, 6.12; Linux, drivers/iommu/iommu.c, pci_device_group().
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from pcihost import (ACS, DOWN, ENDPOINT, FAKES, INTEGRATED, ISOLATION, ROOT,
                     TO_EXPRESS, TO_PCI, UP, Function, Machine, bdf, function)

OTHER = 0x10ec      # a vendor that nothing special is known of
BRIDGES = (ROOT, UP, DOWN, TO_PCI, TO_EXPRESS)


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "pci_groups", ["drivers/pci/config.c", "drivers/pci/scan.c",
                       "drivers/pci/groups.c", "drivers/pci/acs.c"],
        headers=["drivers/pci/pci.h", "kernel/log.h"],
        exports=["pci_bridge_above"], fakes=FAKES)


def machine(m, functions, ecam=True, registers=()):
    x = Machine(m, functions, ecam)
    x.chipset.update(registers)
    assert x.scan(m) == sorted(functions)
    before = [bytes(f.config) for f in functions.values()]
    m.pci_acs_probe(x.host)
    assert [bytes(f.config) for f in functions.values()] == before
    x.writes.clear()
    return x


def groups(m, functions, ecam=True):
    """The functions that share each group, without bridges."""
    x, found = machine(m, functions, ecam), {}
    for at in functions:
        found.setdefault(m.pci_group(x.host, at), set()).add(at)
    assert x.writes == []
    return {frozenset(g) for g in found.values()}


def together(m, functions, *which, ecam=True):
    return any(g >= set(which) for g in groups(m, functions, ecam))


def switch(root=True, up=True, down=(True, True)):
    """A root port, a switch below it, an endpoint behind each of its ports."""
    out = {bdf(0, 1): function(ROOT, root, 1),
           bdf(1, 0): function(UP, up, 2)}
    for n, acs in enumerate(down):
        out[bdf(2, n)] = function(DOWN, acs, 3 + n)
        out[bdf(3 + n, 0)] = function(ENDPOINT)
    return out


def requesters(m, functions, at):
    """The IDs that its requests carry."""
    x, out = machine(m, functions), m.new("bdf_t[2]")
    return list(out[0:m.pci_requesters(x.host, at, out)])


# Linux, drivers/pci/quirks.c: quirk_dma_func0_alias(), quirk_dma_func1_alias()
AS_0 = [(0x1180, 0xe832), (0x1180, 0xe476)]
AS_1 = [(0x197b, 0x2392), (0x1c28, 0x0122), (0x1103, 0x0642), (0x1103, 0x0645),
        *((0x1b4b, device) for device in (
            0x9120, 0x9123, 0x9125, 0x9128, 0x9130, 0x9170, 0x9172, 0x917a,
            0x9182, 0x9183, 0x91a0, 0x9215, 0x9220, 0x9230, 0x9235))]


@pytest.mark.parametrize("which, fn", [(AS_0, 0), (AS_1, 1), (
    [(0x1180, 0xe833), (0x1b4b, 0x9236), (0x8086, 0x9235)], 2)])
def test_functions_with_the_id_of_another(m, which, fn):
    for vendor, device in which:
        at = bdf(1, 0, 3)
        found = requesters(m, {bdf(0, 1): function(ROOT, True, 1),
                               bdf(1, 0): function(ENDPOINT, multi=True),
                               at: function(ENDPOINT, vendor=vendor,
                                            device=device)}, at)
        assert found == [at] + [bdf(1, 0, fn)] * (fn < 2), hex(device)


# quirk_use_pcie_bridge_dma_alias(): PCI Express, and do not say so.
HIDDEN = [(0x1b21, 0x1080), (0x10e3, 0x8113), (0x1283, 0x8892),
          (0x1283, 0x8893), (0x8086, 0x244e)]


@pytest.mark.parametrize("ids, kind, behind", [
    *((ids, None, bdf(2, 0)) for ids in HIDDEN),
    ((0x8086, 0x1234), None, bdf(1, 0)), ((0x8086, 0x1234), TO_PCI, bdf(2, 0))])
def test_requests_from_conventional_pci(m, ids, kind, behind):
    """The bridge's own ID where it is conventional, too; else that of the
    first function on the bus behind it (PCIe to PCI bridges 1.0, 2.3)."""
    bridge = function(kind, False, 2, vendor=ids[0], device=ids[1])
    at = bdf(2, 4)
    assert requesters(m, {bdf(0, 1): function(ROOT, True, 1),
                          bdf(1, 0): bridge, at: function()}, at) == [
        at, behind]


def test_devices_of_the_root_bus_are_apart(m):
    """A PC of old: no PCI Express, no ECAM."""
    found = groups(m, {bdf(0, n): function() for n in range(4)}, ecam=False)
    assert all(len(g) == 1 for g in found)


@pytest.mark.parametrize("kind", [None, ENDPOINT, INTEGRATED])
def test_functions_of_one_device(m, kind):
    def device(first, second):
        return {bdf(0, 4): function(kind, first, multi=True, vendor=OTHER),
                bdf(0, 4, 3): function(kind, second, vendor=OTHER),
                bdf(0, 5): function()}
    pair = bdf(0, 4), bdf(0, 4, 3)
    for first, second in (False, False), (True, False), (False, True):
        assert together(m, device(first, second), *pair)
        assert not together(m, device(first, second), *pair, bdf(0, 5))
    # What is not PCI Express has no extended space, whatever it reads.
    assert together(m, device(True, True), *pair) == (kind is None)


def test_intels_functions_of_the_root_complex_are_apart(m):
    """VT-d 3.16; where each of the device is such a one."""
    def device(**other):
        return {bdf(0, 4): function(INTEGRATED, multi=True),
                bdf(0, 4, 3): function(**other)}
    pair = bdf(0, 4), bdf(0, 4, 3)
    assert not together(m, device(kind=INTEGRATED), *pair)
    for other in ({"kind": INTEGRATED, "vendor": OTHER}, {},
                  {"kind": ENDPOINT}):
        assert together(m, device(**other), *pair)


def test_root_ports(m):
    """With ACS apart; without, everything behind the ports of one device."""
    def ports(acs):
        return {bdf(0, 0x1c): function(ROOT, acs, 1, multi=True),
                bdf(0, 0x1c, 4): function(ROOT, acs, 2),
                bdf(0, 0x1d): function(ROOT, acs, 3),
                **{bdf(n, 0): function(ENDPOINT) for n in (1, 2, 3)}}
    assert all(len(g) == 1 for g in groups(m, ports(True)))
    assert together(m, ports(False), bdf(1, 0), bdf(2, 0))
    assert not together(m, ports(False), bdf(1, 0), bdf(3, 0))
    # ACS lies in the extended space: without ECAM there is none.
    assert together(m, ports(True), bdf(1, 0), bdf(2, 0), ecam=False)


def test_switches(m):
    ends = bdf(3, 0), bdf(4, 0)
    assert not together(m, switch(), *ends)
    # Upstream ports of one function have nobody beside them.
    assert not together(m, switch(up=False), *ends)
    for down in (False, False), (True, False), (False, True):
        assert together(m, switch(down=down), *ends)
    assert together(m, switch(root=False), *ends, bdf(0, 1))


def test_a_bridge_to_conventional_pci(m):
    for kind in TO_PCI, None:
        functions = {bdf(0, 1): function(ROOT, True, 1),
                     bdf(1, 0): function(kind, True, 2),
                     bdf(2, 3): function(), bdf(2, 4): function(),
                     bdf(0, 2): function()}
        found = groups(m, functions)
        assert frozenset({bdf(1, 0), bdf(2, 3), bdf(2, 4)}) in found
        assert frozenset({bdf(0, 2)}) in found


def test_acs_anywhere_in_the_list(m):
    f = function(ENDPOINT, True, extended=(1, 0x0b, 0x18))
    x = machine(m, {bdf(0, 1): f, bdf(0, 2): function()})
    assert m.pci_find_extended(x.host, bdf(0, 1), ACS) == 0x1c0
    assert m.pci_find_extended(x.host, bdf(0, 1), 0x0b) == 0x140
    assert m.pci_find_extended(x.host, bdf(0, 1), 0x10) == 0
    assert m.pci_find_extended(x.host, bdf(0, 2), ACS) == 0
    assert m.pci_find_extended(x.host, bdf(0, 3), ACS) == 0


@pytest.mark.parametrize("following", [0x100, 0x104, 0x140, 0x0fc, 0x004])
def test_extended_lists_that_lie(m, following):
    f = function(ENDPOINT, extended=(1, 2))
    f.put(0x140, 4, 2 | 1 << 16 | following << 20)
    x = machine(m, {bdf(0, 1): f})
    x.log.clear()
    assert m.pci_find_extended(x.host, bdf(0, 1), ACS) == 0
    assert len(x.log) <= 480, "no bound"


def test_switching_acs_on(m):
    """Only what isolates and what there is, and nowhere else."""
    functions = switch(down=(True, False)) | {
        bdf(0, 5): function(ENDPOINT, True, multi=True, can=0x24),
        bdf(0, 5, 1): function(ENDPOINT), bdf(0, 6): function(None, True)}
    x = machine(m, functions)
    functions[bdf(2, 0)].put(0x106, 2, 0x40)
    m.pci_acs_enable(x.host)
    assert {w: v for w, at, size, v in x.writes if (at, size) == (0x106, 2)} \
        == {bdf(0, 1): ISOLATION, bdf(1, 0): ISOLATION,
            bdf(2, 0): ISOLATION | 0x40, bdf(0, 5): 0x04}
    assert len(x.writes) == 4


def ports(device, vendor=0x8086):
    """Two root ports of one device, each with a card; a chipset's bridge."""
    return {bdf(0, 0x1c, n): function(ROOT, True, n + 1, multi=True,
                                      vendor=vendor, device=device)
            for n in (0, 1)} | {
        bdf(1, 0): function(ENDPOINT), bdf(2, 0): function(ENDPOINT),
        bdf(0, 0x1f): Function(cls=0x060100)}


def apart(m, functions, registers=()):
    """By what is found out at first, and by what is found when it is on."""
    x = machine(m, functions, registers=registers)
    found = [len({m.pci_group(x.host, b) for b in (bdf(1, 0), bdf(2, 0))})]
    m.pci_acs_enable(x.host)
    found.append(len({m.pci_group(x.host, b) for b in (bdf(1, 0), bdf(2, 0))}))
    assert found[0] == found[1]
    return found[0] == 2


def dwords(functions):
    """100 Series, 12.1.46 and 12.1.47: nothing at +6, the control at +8."""
    for f in functions.values():
        if f.read(0x100, 2) == ACS:
            f.writable[0x106:0x10c] = b"\0\0\x7f\0\0\0"
    return functions


@pytest.mark.parametrize("device", [0xa110, 0xa11f, 0xa167, 0xa2ee, 0x9d10])
def test_control_registers_that_are_elsewhere(m, device):
    functions = dwords(ports(device))
    assert apart(m, functions)
    for n in (0, 1):
        assert functions[bdf(0, 0x1c, n)].read(0x108, 4) == ISOLATION
    # Others of that layout are none that anybody knows.
    assert not apart(m, dwords(ports(0xa120)))
    assert not apart(m, dwords(ports(device, vendor=0x1022)))


def test_only_what_sticks_is_believed(m):
    """Each bit of the capability has to be in the control register."""
    assert apart(m, ports(0x1234))
    for bit in range(8):
        functions = ports(0x1234)
        functions[bdf(0, 0x1c)].writable[0x106] &= ~(1 << bit)
        assert apart(m, functions) == (not ISOLATION >> bit & 1)
        for f in functions.values():
            if f.read(0x100, 2) == ACS:     # nor has it to be
                f.config[0x104] &= ~(1 << bit)
        assert apart(m, functions)


RCBA = 0xfed1c000


@pytest.mark.parametrize("device", [0x3b42, 0x1c1e, 0x1e10, 0x8c16, 0x8c96,
                                    0x9c91, 0x9c1b, 0x1d1e, 0x8d10])
@pytest.mark.parametrize("rcba, decode, mask, checks, wanted", [
    (RCBA | 1, 0x3f, 0x3f, 4, True), (RCBA | 1, 0, 0, 4, True),
    (RCBA, 0x3f, 0x3f, 4, False),       # not enabled
    (RCBA | 1, 0x3f, 0x3d, 4, False),   # a bit that stays
    (RCBA | 1, 0x3f, 0x3f, 0, False)])
def test_ports_of_older_chipsets(m, device, rcba, decode, mask, checks, wanted):
    """Peer decode off (UPDCR), bus numbers checked (MPC); no ACS."""
    functions = ports(device)
    functions[bdf(0, 0x1f)].put(0xf0, 4, rcba)
    for n in (0, 1):
        port = functions[bdf(0, 0x1c, n)]
        port.put(0x100, 4, 0)
        port.put(0xd8, 4, 0x80110000)
        port.writable[0xdb] = checks
    updcr = [0xabc00000 | decode, mask]
    assert apart(m, functions, registers={RCBA + 0x1014: updcr}) == wanted
    if wanted:
        assert updcr[0] == 0xabc00000
        assert functions[bdf(0, 0x1c)].read(0xd8, 4) == 0x84110000


def test_an_older_chipset_that_is_not_there(m):
    """All ones are no address."""
    functions = ports(0x1c10)
    functions.pop(bdf(0, 0x1f))
    assert not apart(m, functions)


KINDS = st.tuples(st.sampled_from([None, ENDPOINT, INTEGRATED, *BRIDGES,
                                   "conventional bridge"]), st.booleans())


@st.composite
def machines(draw):
    """{bdf: (kind, ACS, secondary bus)}: any kind anywhere, but for a port of a
    switch right below another: only the switch's own bus can have it."""
    out, buses, used = {}, [(0, None)], 1
    while buses:
        bus, parent = buses.pop(0)
        for dev in draw(st.sets(st.integers(0, 3), max_size=3)):
            for fn in range(draw(st.sampled_from([1, 1, 2, 3]))):
                kind, acs = draw(KINDS)
                if kind == parent == DOWN:
                    kind = UP
                bridge = kind in BRIDGES or kind == "conventional bridge"
                out[bdf(bus, dev, fn)] = (
                    kind, acs and kind != "conventional bridge",
                    used if bridge and used < 7 else 0)
                if bridge and used < 7:
                    buses.append((used, kind))
                    used += 1
    return out


def model(drawn):
    """Groups by joining who can reach whom, rule by rule."""
    group = {at: {at} for at in drawn}

    def join(members):
        merged = set().union(*(group[at] for at in members))
        for at in merged:
            group[at] = merged

    def below(bridge):
        out = set()
        for at in drawn:
            if drawn[bridge][2] and at >> 8 == drawn[bridge][2]:
                out |= {at} | below(at)
        return out

    def acs(at):
        return drawn[at][0] is not None and drawn[at][1]

    def device(at):
        return [o for o in drawn if o >> 3 == at >> 3]

    def apart(at):
        return len(device(at)) == 1 or all(map(acs, device(at)))
    for at, (kind, _, secondary) in drawn.items():
        if not apart(at):
            join(device(at))
        if not secondary or not below(at):
            continue
        above = [o for o in drawn if drawn[o][2] == at >> 8 and at >> 8]
        peers = [o for o in drawn if o >> 8 == at >> 8]
        if kind == ROOT:
            if not all(map(acs, device(at))):
                join({at} | below(at))
        elif kind == DOWN:
            if not all(map(acs, peers)):
                join({above[0] if above else at} | below(at))
        elif kind != UP or not apart(at):
            join({at} | below(at))
    return {frozenset(g) for g in group.values()}


@settings(max_examples=200, deadline=None)
@given(machines())
def test_against_the_model(m, drawn):
    """Groups are a partition, and the model's."""
    m.reset()
    functions = {
        at: function(kind if isinstance(kind, int) else None, acs, secondary,
                     vendor=OTHER,
                     multi=any(o >> 3 == at >> 3 and o != at for o in drawn))
        for at, (kind, acs, secondary) in drawn.items()}
    found = groups(m, functions)
    assert sorted(at for g in found for at in g) == sorted(drawn)
    assert found == model(drawn)
