# SPDX-License-Identifier: MIT
"""Debian's SeaBIOS as a guest: on Bochs from its reset vector to its last word;
nested from a disk that it is given to GRUB, and to Debian's kernel there. And
what else GRUB starts from one, by OVMF, too."""
import hashlib
import re

import pytest
from PIL import Image

import rigs
from bench.firmware import LAST
from boot import firmware_cases as cases, runs, screen
from rigs import disk, nested as rig, result

TIMEOUT = 600


def diskless(*modules, memory=128, **fields):
    return rigs.Spec(rig="bochs", memory=memory, timeout=TIMEOUT, module=False,
                     modules=((cases.SEABIOS, "firmware"),
                              (cases.TEXT, "opt/test"), *modules),
                     monocle=runs.MONOCLE, **fields)


@runs.define("seabios")
def _seabios():
    """Without a disk. What it then waits for is a minute to pass."""
    path = runs.work("seabios.png")
    with rigs.start(diskless()) as machine:
        machine.wait_for(LAST, TIMEOUT, "log")
        machine.screenshot(path)
        return machine.text("log"), path


@pytest.mark.runs("seabios")
def test_seabios_comes_to_its_end(run):
    log, _ = run("seabios")
    said = re.findall("^monocle: firmware: (.*)$", log, re.MULTILINE)
    for line in ("Running on QEMU (q35)", "Found QEMU fw_cfg",
                 "PCIe: using q35 mmconfig at 0xb0000000",
                 "Found 1 cpu(s) max supported 1 cpu(s)",
                 "Running option rom at c000:0003", "PS2 keyboard initialized",
                 "Scan for option roms", "Press ESC for boot menu."):
        assert line in said, line
    # Of the tables that Monocle gives, this one is its PM timer's.
    assert "Moving pm_base to 0x600" in said
    assert said[-1].startswith(LAST)


@pytest.mark.runs("seabios")
def test_seabios_knows_the_memory(run):
    """In one piece, and all of it that it may use."""
    log, _ = run("seabios")
    rows = [(int(a, 16), int(b, 16), int(kind)) for a, b, kind in re.findall(
        r"firmware:   \d+: (\w+) - (\w+) = (\d)", log)]
    given = int(re.search(r"guest memory: (\d+) MiB", log)[1])
    ram = [(a, b) for a, b, kind in rows if kind == 1 and a >= 1 << 20]
    assert ram[0][0] == 1 << 20
    # SeaBIOS keeps something at the top for itself. Given are whole MiB, without
    # the 384 KiB below the first.
    assert (given - 1 << 20) < ram[0][1] < (given + 1 << 20) + (384 << 10)
    assert (0xb0000000, 0xc0000000, 2) in rows


@pytest.mark.runs("seabios")
def test_its_picture_is_that_of_the_displays_rom(run):
    _, path = run("seabios")
    text = "\n".join(screen.read(screen.text_picture(path)))
    assert "SeaBIOS (version" in text and LAST in text


@runs.define("seabios-2")
def _two():
    with rigs.start(diskless(cpus=2)) as machine:
        machine.wait_for("Running option rom", TIMEOUT, "log")
        return machine.text("log")


@pytest.mark.runs("seabios-2")
def test_seabios_starts_each_cpu(run):
    """By INIT and SIPIs; those that come are counted."""
    assert "firmware: Found 2 cpu(s) max supported 2 cpu(s)" in run("seabios-2")


@runs.define("seabios-linux")
def _linux():
    """Bochs's MONITOR: docs/rigs.md"""
    return rigs.boot(diskless(*cases.without_a_disk(
        'idle=halt demo.run="nproc; grep LOC: /proc/interrupts; dmesg"'),
        cpus=2, memory=256))


@pytest.mark.long
@pytest.mark.runs("seabios-linux")
def test_linux_behind_seabios_has_two_cpus(run):
    """Which each of the two has started, with the tables that SeaBIOS has put
    into memory. Both take ticks."""
    done = run("seabios-linux")
    assert done.status == result.POWER_OFF, done.report()
    assert "firmware: Found 2 cpu(s) max supported 2 cpu(s)" in done.log
    assert re.search("^2$", done.serial, re.MULTILINE)
    assert "smp: Brought up 1 node, 2 CPUs" in done.serial
    ticks, = re.findall(r"LOC: +(\d+) +(\d+) ", done.serial)
    assert min(map(int, ticks)) > 0


# -- from a disk

@pytest.mark.nested("seabios-menu")
def test_grubs_menu_from_an_assigned_disk(nested):
    done = nested("seabios-menu")
    text = "\n".join(screen.read(screen.text_picture(
        done.files["screen.png"])))
    assert "GNU GRUB" in text and cases.ENTRY in text, text


@pytest.mark.long
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.nested(f"seabios-{name}"))
    for name in cases.DISKS])
def test_debians_kernel_from_its_own_disk(nested, name):
    """It writes a file and starts anew, finds the file, and switches off; the
    host finds the same, and nothing wrong with the file system."""
    done = nested(f"seabios-{name}")
    assert done.status == result.POWER_OFF, done.report()
    wrote, = re.findall(r"^own: wrote (\w+)", done.serial, re.MULTILINE)
    assert re.findall(r"^own: found (\w+)", done.serial,
                      re.MULTILINE) == [wrote]
    assert done.log.count("guest: reset") == 1
    data = disk.content(done.files["drive0"], "/written")
    assert hashlib.md5(data).hexdigest() == wrote


ANSWERS = {"shell": rf"^\r?{cases.SAID}$", "ipxe": r"^version 1\.0\.0",
           "memtest": r"#[3-5]  \[Moving inversions, "}


def tools(firmware):
    return pytest.mark.parametrize("tool", [
        pytest.param(tool, marks=pytest.mark.nested(f"{firmware}-tool-{tool}"))
        for tool in ANSWERS])


def check_tool(done, tool, text):
    """It answers what was typed, or memory tests have come so far."""
    assert re.search(ANSWERS[tool], text, re.MULTILINE), done.report()
    assert set(re.findall(r"Errors: (\d+)", text)) == (
        {"0"} if tool == "memtest" else set())
    assert not re.search("monocle: (error|panic)", done.log), done.report()


@pytest.mark.long
@tools("seabios")
def test_what_else_starts_from_a_disk(nested, tool):
    done = nested(f"seabios-tool-{tool}")
    assert rig.PICTURE in done.files, done.report()
    check_tool(done, tool, "\n".join(screen.read(screen.text_picture(
        done.files[rig.PICTURE]))))


@pytest.mark.long
@tools("ovmf")
def test_what_else_starts_by_uefi(nested, tool):
    """Text by a serial line; on the screen GRUB's font, memtest86+'s blue, or
    the colours in which iPXE says who it is."""
    done = nested(f"ovmf-tool-{tool}")
    check_tool(done, tool, done.serial)
    shown = Image.open(done.files[rig.PICTURE]).convert("RGB")
    if tool == "shell":
        assert screen.shows(shown, screen.grub_rows(disk.FONT, cases.SAID))
        return
    colours = {colour: count for count, colour in shown.getcolors(1 << 16)}
    if tool == "memtest":
        assert colours[0, 0, 170] > 640 * 400 * 3 // 4
    else:
        assert {(255, 255, 255), (152, 152, 152), (0, 152, 152)} <= \
            colours.keys()
