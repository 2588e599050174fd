# SPDX-License-Identifier: MIT
"""Debian's OVMF as the guest, nested: from the system partition of an assigned
disk into Linux, and what is on the screen, which a card shows that OVMF has no
driver for."""
import re

import pytest
from PIL import Image

import rigs
from boot import runs, screen
from boot.nested_cases import MODE, OVMF, OVMF_13
from rigs import disk, nested as rig

pytestmark = pytest.mark.long
SIZE = tuple(map(int, MODE.split("x")[:2]))


def picture(result):
    return Image.open(result.files[rig.PICTURE]).convert("RGB")


def in_the_firmware(machine, cpu):
    """Whether that CPU is in 64-bit code of OVMF's (LINEAR_CODE64_SEL there):
    one that was not started waits for a SIPI."""
    return re.search(rf"^\({cpu}\) \[\w+\] 0038:00000000", machine.monitor("r"),
                     re.MULTILINE)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("release, image", [(12, OVMF), (13, OVMF_13)])
def test_the_shell_of_each_release(release, image, cpus):
    """By a serial line, without a disk; 13's has ECAM in another place. It has
    started each CPU."""
    spec = rigs.Spec(rig="bochs", memory=512, timeout=1800, module=False,
                     modules=((image, "firmware"),), monocle=runs.MONOCLE,
                     cpus=cpus)
    with rigs.start(spec) as machine:
        machine.wait_for("Shell>", 1800)
        for cpu in range(1, cpus):
            assert any(in_the_firmware(machine, cpu) for _ in range(20))


@pytest.mark.nested("ovmf-linux")
def test_linux_starts_from_an_assigned_disk_again_and_again(nested):
    """A variable and a file of the first time are there the second time, and
    when the machine is off: OVMF keeps its variables beside GRUB."""
    result = nested("ovmf-linux")
    assert result.status == 0, result.report()
    assert re.findall(r"^uefi: (set|kept.*)$", result.serial, re.M) == [
        "set", "kept variable, file"]
    image = result.files["drive0"]
    assert disk.read(image, "written") == b"file\n"
    kept = disk.read(image, "NvVars")
    assert "Monocle".encode("utf-16-le") in kept and b"variable" in kept


@pytest.mark.nested("ovmf-linux")
def test_linux_draws_on_uefi_s_framebuffer(nested):
    result = nested("ovmf-linux")
    assert "uefi: frame buffer 0 EFI VGA" in result.serial
    shown = picture(result)
    assert shown.size == SIZE
    # Linux's font has another f.
    assert f"ue{screen.UNKNOWN}i: set" in screen.read(shown, 8)


@pytest.mark.nested("ovmf-shell")
def test_the_shell_is_on_the_screen(nested):
    """Its prompt is yellow, its version bold white, all else grey."""
    shown = picture(nested("ovmf-shell"))
    assert shown.size == SIZE
    colours = {colour: count for count, colour in shown.getcolors()}
    assert {(0, 0, 0), (255, 255, 0), (255, 255, 255), (152, 152, 152)} <= \
        colours.keys()
    assert colours[0, 0, 0] < SIZE[0] * SIZE[1] - 1000


@pytest.mark.nested("ovmf-grub")
def test_grub_s_menu_is_on_the_screen(nested):
    shown = picture(nested("ovmf-grub"))
    assert shown.size == SIZE
    assert screen.shows(shown, screen.grub_rows(disk.FONT, "GNU GRUB"))
