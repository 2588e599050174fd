# SPDX-License-Identifier: MIT
"""A refusal comes before anything has changed, nested: the IOMMU, every
function's configuration space, the USB controller and the other CPU are as
they were in GRUB."""
import json
import re

import pytest

from boot.nested_cases import SPACES, XHCI, XHCI_BAR
from boot.told import BAR0, host
from rigs import nested as rig, result

REFUSALS = {
    "untouched-group": r"00:06\.1.* cannot be isolated",
    "untouched-no-unit": r"IOMMU",
    "untouched-rmrr": r"00:07\.0.*RMRR|RMRR.*00:07\.0",
}
MOVES = 0x1000, 0x1038      # MFINDEX counts; ERDP: SeaBIOS looks for keys


def cpu(done):
    """The second CPU's registers, as QEMU shows them."""
    text = next(json.loads(line)["return"]
                for line in done.monitor.splitlines() if "CPU#1" in line)
    return text[text.index("CPU#1"):]


def seen(done):
    """{what: its registers}"""
    usb = bytearray(done.memory(*XHCI_BAR))
    for at in MOVES:
        usb[at:at + 4] = bytes(4)
    return {"IOMMU": done.memory(*rig.IOMMU), "USB": bytes(usb),
            "configuration": [done.memory(*space) for space in SPACES],
            "CPU": cpu(done)}


@pytest.mark.long
@pytest.mark.nested("untouched-grub", "untouched-not")
def test_a_start_is_seen(nested):
    """What is looked at is what it says, and a guest's start changes it."""
    before = nested("untouched-grub")
    assert host(before, XHCI, BAR0) & ~0xf == XHCI_BAR[0]
    after = seen(nested("untouched-not"))
    for what, registers in seen(before).items():
        assert registers != after[what], what


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.nested(
    name, "untouched-grub")) for name in REFUSALS])
def test_untouched(nested, name):
    done = nested(name)
    assert done.status == result.REFUSED, done.report()
    errors = re.findall(r"^monocle: error: (.*)$", done.log, re.MULTILINE)
    assert len(errors) == 1 and re.search(REFUSALS[name], errors[0]), errors
    before, after = seen(nested("untouched-grub")), seen(done)
    assert {what for what in after if after[what] != before[what]} == set()
