# SPDX-License-Identifier: MIT
"""Chipsets that make a platform error of a DMA fault: what is masked.

Xen: drivers/passthrough/vtd/quirks.c, pci_vtd_quirk().
"""

import pytest

import harness
from pcihost import FAKES, ROOT, Machine, bdf, function

DMI = 0xfed18000


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "vtd_errors", ["drivers/pci/config.c", "drivers/pci/scan.c",
                       "drivers/pci/groups.c", "drivers/vtd/errors.c"],
        headers=["drivers/vtd/vtd.h", "kernel/log.h"], fakes=FAKES)


def masked(m, at, f, registers=()):
    """The machine's writes, as {offset: value}."""
    x = Machine(m, {at: f}, ecam=True)
    x.chipset.update(registers)
    x.scan(m)
    m.vtd_mask_errors(x.host)
    return {where: value for _, where, _, value in x.writes}


@pytest.mark.parametrize("device, at, dmibar, wanted", [
    (0x0044, 0, DMI | 1, True), (0x0104, 0, DMI | 1, True),
    (0x0158, 0, DMI | 1, True), (0x0a04, 0, DMI | 1, True),
    (0x0c00, 0, DMI | 1, True), (0x0d0f, 0, DMI | 1, True),
    (0x1614, 0, DMI | 1, True), (0x191f, 0, DMI | 1, True),
    (0x191f, 0, DMI, False), (0x191f, 0, 1, False),     # no DMIBAR
    (0x1616, bdf(0, 2), DMI | 1, False),                # graphics
    (0x3e30, 0, DMI | 1, False)])
def test_clients(m, device, at, dmibar, wanted):
    f = function(vendor=0x8086, device=device, cls=0x060000)
    f.put(0x68, 8, dmibar)
    register = [0x11, 0xffffffff]
    assert masked(m, at, f, {DMI + 0x1c8: register}) == {}
    assert register[0] == (0x100011 if wanted else 0x11)


@pytest.mark.parametrize("device", [0x342e, 0x3728, 0x3c28])
def test_hubs(m, device):
    f = function(ROOT, device=device)
    f.put(0x1ac, 4, 5)
    assert masked(m, bdf(0, 0x14), f) == {0x1ac: 0x80000005}
    f = function(ROOT, vendor=0x1022, device=device)
    assert masked(m, bdf(0, 0x14), f) == {}


@pytest.mark.parametrize("device", [0x3400, 0x340a, 0x3421, 0x3700, 0x3724,
                                    0x3c0b])
@pytest.mark.parametrize("ident, head, base", [
    (0x01, 0, 0x100), (0x0b, 0x10004, 0x104), (0x0b, 0x10005, None),
    (0x0d, 0, None)])
def test_ports(m, device, ident, head, base):
    """By their AER, or by a capability of Intel's that is laid out so."""
    f = function(ROOT, device=device, extended=(ident,))
    f.put(0x104, 4, head)
    assert masked(m, bdf(0, 3), f) == ({} if base is None else {
        base + 8: 1 << 20, base + 0x14: 1 << 13, 0x20c: 1 << 4})
