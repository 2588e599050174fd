# SPDX-License-Identifier: MIT
"""A keyboard and a stick in Debian's hands, nested; the same natively.

Whose controller has an RMRR, and whose has its interrupt line alone.
"""
import re

import pytest

from boot.nested_cases import TEXT, XHCI, bdf
from boot.told import check_disk, check_image, said, served
from rigs import result
from walker import boot as walk, vtd

DRIVERS = {"xhci": "xhci_hcd", "ehci": "ehci_hcd:usb1"}
STATUS_INTERRUPT = 1 << 3


def check_keys(done, which):
    """Each key came, by an interrupt of the controller's."""
    assert said(done, "keys: typed") == TEXT, done.report()
    before, after = (served(done, f"keys-{when}", DRIVERS[which])
                     for when in ("before", "after"))
    assert after - before >= len(TEXT)


@pytest.mark.long
@pytest.mark.parametrize("which", [pytest.param(
    which, marks=pytest.mark.runs(f"tcg-keys-{which}")) for which in DRIVERS])
def test_natively(run, which):
    """The devices and the tasks are right."""
    done = run(f"tcg-keys-{which}")
    check_keys(done, which)
    if which == "xhci":
        check_disk(done, XHCI)


@pytest.mark.long
@pytest.mark.parametrize("which", [pytest.param(
    which, marks=pytest.mark.nested(f"keys-{which}")) for which in DRIVERS])
def test_keyboard(nested, which):
    """Nothing that is typed is lost."""
    done = nested(f"keys-{which}")
    assert done.status == result.POWER_OFF, done.report()
    check_keys(done, which)


@pytest.mark.parametrize("name, remapped", [
    pytest.param("ioapic-renamed", True,
                 marks=[pytest.mark.nested("ioapic-renamed")]),
    pytest.param("ioapic-unnamed", False, marks=[
        pytest.mark.nested("ioapic-unnamed"), pytest.mark.long])])
def test_the_pcs_own_keyboard(nested, name, remapped):
    """Where MADT and DMAR call its I/O APIC differently."""
    done = nested(name)
    assert done.status == result.POWER_OFF, done.report()
    assert f"keys: typed {TEXT}" in done.serial, done.report()
    assert "the DMAR table has no IOAPIC 0, which the MADT has" in done.log
    assert ("VT-d: interrupt table" in done.log) == remapped
    assert "cannot be routed" not in done.log


@pytest.mark.long
@pytest.mark.nested("keys-xhci")
def test_stick(nested):
    """Beside the keyboard."""
    done = nested("keys-xhci")
    check_disk(done, XHCI)
    check_image(done, XHCI, "drive0")


@pytest.mark.long
@pytest.mark.nested("keys-ehci")
def test_line(nested):
    """It is a line, for Debian, and no line of the host's was named."""
    done = nested("keys-ehci")
    assert re.search(r"^irq keys-after: +\d+ .*IO-APIC +\d+-fasteoi +ehci_hcd",
                     done.serial, re.MULTILINE), done.report()
    assert "gsi=" not in done.log


@pytest.mark.nested("parked")
def test_rmrr_has_lapsed(nested):
    """What firmware's driver used is not the controller's any more: it
    reaches what every function of the guest's reaches."""
    done = nested("parked")
    assert done.status == result.POWER_OFF, done.report()
    still = walk.Still(done.log, done.memory)
    unit, = walk.units(still)
    reach = vtd.reach(still, unit.root, unit.width, unit.large)
    last = (64 << 20) - 0x1000
    assert reach[bdf(XHCI)] and len(set(map(tuple, reach.values()))) == 1
    assert not any(piece.gpa <= last < piece.end and
                   piece.hpa - piece.gpa == 0 for piece in reach[bdf(XHCI)])
