# SPDX-License-Identifier: MIT
"""The machines on paper: each says of itself what the manuals' rules give."""

import struct

import pytest

from igd import config, opregion

MIB = 1 << 20
BEFORE_GEN6 = {1: 1, 2: 4, 3: 8, 4: 16, 5: 32, 6: 48, 7: 64, 8: 128, 9: 256,
               10: 96, 11: 160, 12: 224, 13: 352}      # GMCH control 7:4, MiB
each = pytest.mark.parametrize("name", config.NAMES)


def stolen(c):
    """(stolen memory, GTT's) in MiB by the rules of each generation."""
    gen = c.gen
    if gen < 6:
        ggc = c.host.get(0x52, 2)
        return BEFORE_GEN6[ggc >> 4 & 15], {0: 0, 1: 1, 3: 2, 9: 2, 10: 3,
                                            11: 4}[ggc >> 8 & 15]
    ggc = c.host.get(0x50, 2)
    if gen < 8:
        return (ggc >> 3 & 31) * 32, ggc >> 8 & 3
    gms, ggms = ggc >> 8, ggc >> 6 & 3
    size = (gms - 0xef) * 4 if gms >= 0xf0 and gen >= 9 else gms * 32
    return size, 1 << ggms if ggms else 0


@each
def test_stolen_memory_lies_below_the_top(name):
    c = config.load(name)
    size, gtt = stolen(c)
    top = c.number("tolud")
    gsm = c.number("gsm")
    assert c.number("gsm", 1) == gtt * MIB
    if "dsm-in-bar2" in c.expect:
        assert c.number("dsm-in-bar2") == size * MIB
        return
    base = c.number("dsm")
    assert c.number("dsm", 1) == size * MIB
    assert base + size * MIB == top and gsm + gtt * MIB == base
    low = c.igd.get(0xc0 if c.gen >= 11 else 0x5c, 4)
    assert low & ~0xfffff == base
    if c.gen < 6:
        assert c.host.get(0xb0, 2) >> 4 == top >> 20
        assert c.host.get(0xa4, 4) == base and c.host.get(0xa8, 4) == gsm
    else:
        assert c.host.get(0xbc, 4) & ~1 == top
        assert c.host.get(0xb0, 4) & ~1 == base
        assert c.host.get(0xb4, 4) & ~1 == gsm


@each
def test_what_is_seen_on_the_bus(name):
    c = config.load(name)
    for space, function in (c.igd, 2), (c.host, 0), (c.pch, 31):
        assert space.get(0, 2) == 0x8086, function
    assert c.igd.get(0xa, 2) == c.number("class")
    assert c.host.get(0xa, 2) == 0x0600 and c.pch.get(0xa, 2) == 0x0601
    assert c.igd.get(0xfc, 4) == c.number("asls") < c.number("gsm")
    for n, (kind, size) in c.bars.items():
        assert size & (size - 1) == 0
        assert c.igd.get(0x10 + 4 * n, 4) == config.KINDS[kind]
    for mirror, at in (0x108040, 0x50), (0x1080c0, 0xb0), (0x108100, 0xb4):
        if mirror in c.mmio:
            assert c.mmio[mirror] == c.host.get(at, 4) & 0xffffffff


@each
def test_capabilities_end(name):
    c = config.load(name)
    seen, at = [], c.igd.get(0x34, 1)
    while at:
        assert at not in seen and at >= 0x40 and at % 4 == 0
        seen.append(at)
        at = c.igd.get(at + 1, 1)
    flr = [words[1] for words in config.statements(c.text)
           if words[0] == "flr"]
    for at in flr:
        assert int(at, 16) in seen
        assert c.igd.get(int(at, 16), 1) in (0x10, 0x13)


@each
def test_for_firmware(name):
    """Its own addresses are gone; the firmware's words have a place."""
    c = config.parse(config.for_firmware(name))
    at = 0xc0 if config.load(name).igd.get(0xc0, 4) else 0x5c
    for register in 0xfc, at:
        assert c.igd.get(register, 4) == 0
        assert c.igd.writable[register:register + 4] == b"\xff" * 4


def test_generations():
    """5 to 12, all of them."""
    assert {config.load(n).number("gen") for n in config.NAMES} >= \
        {int(str(gen), 16) for gen in range(5, 13)}


def test_opregion():
    region = opregion.build()
    assert len(region) == 8192 and region[:16] == b"IntelGraphicsMem"
    assert struct.unpack_from("<I", region, 0x10)[0] == 8
    assert region[0x16:0x18] == b"\x00\x02"
    table = opregion.vbt()
    assert region[0x400:].startswith(table) and sum(table) & 0xff == 0
    assert table.startswith(b"$VBT")
    size, at = struct.unpack_from("<H", table, 24)[0], \
        struct.unpack_from("<I", table, 28)[0]
    assert size == len(table)
    assert table[at:at + 16] == b"BIOS_DATA_BLOCK "
    assert struct.unpack_from("<H", table, at + 20)[0] == size - at


def test_opregion_with_an_extended_vbt():
    region = opregion.extended()
    at, size = struct.unpack_from("<QI", region, 0x3ba)
    assert at == 8192 and len(region) == at + size
    assert region[0x16:0x18] == b"\x01\x02"
    assert region[at:at + 4] == b"$VBT" and size > 6 * 1024
