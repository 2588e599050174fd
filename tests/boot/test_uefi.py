# SPDX-License-Identifier: MIT
"""The image that users boot, under UEFI and BIOS, as far as QEMU's CPU goes.

QEMU emulates no VMX: the line that says so is the end.
"""
import re

import pytest

import rigs
from boot import runs
from rigs.spec import BUILD

LINE = "this CPU has no VMX"


def boot_image(firmware):
    """The release image, which logs on COM1."""
    return rigs.boot(rig="tcg", iso=BUILD / "monocle.iso", firmware=firmware,
                     memory=1024, timeout=runs.TIMEOUT)


for _firmware in ("uefi", "bios"):
    runs.define(f"iso-{_firmware}")(
        lambda firmware=_firmware: boot_image(firmware))


@pytest.mark.parametrize("firmware", runs.each(["uefi", "bios"], "iso-{}"))
def test_image_starts(run, firmware):
    result = run(f"iso-{firmware}")
    assert result.status == 4, result.report()
    text = result.serial + result.log
    assert re.search(rf"^monocle: error: {LINE}", text, re.MULTILINE), \
        result.report()
    assert "started by GRUB" in text


@pytest.mark.runs("iso-uefi")
def test_uefi_is_noticed(run):
    """Its memory map and tables are read."""
    result = run("iso-uefi")
    text = result.serial + result.log
    assert re.search(r"acpi: XSDT", text), result.report()
    assert re.search(r"memory: \d{3,} MiB free", text)
