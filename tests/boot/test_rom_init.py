# SPDX-License-Identifier: MIT
"""The picture comes back: the display's video BIOS run by Monocle."""
import re

import pytest

import rigs
from boot import runs, screen
from boot.rom import VGABIOS, file, sealed

SECONDS_AT_MOST = re.compile(r"does not return \((\d+) s at most\)")


def rounds(hv, orders, **fields):
    """(result, a picture for each order) of the guest that wipes the VGA."""
    at, pictures = 0, []
    with runs.start("draw-wiped", hv=hv, **fields) as machine:
        for n, order in enumerate(orders):
            at = machine.wait_for("draw: ready", runs.TIMEOUT, after=at)
            path = runs.work(f"wiped-{hv.replace(' ', '-')}-{n}.png")
            machine.screenshot(path)
            pictures.append(screen.text_picture(path))
            machine.send(order)
        return machine.finish(), pictures


@runs.define("rom-init")
def rom_init():
    """Before the first start, and after a reset that follows a wipe."""
    return rounds("rom-init", "wx")


@runs.define("rom-init-not")
def rom_init_not():
    return rounds("igd-reset=never", "wx")


def registers(result):
    return [line.split()[1:] for line in
            re.findall(r"^vga: .*", result.serial, re.MULTILINE)]


@pytest.mark.runs("rom-init")
def test_text_appears_after_a_wipe(run):
    result, pictures = run("rom-init")
    assert result.status == 0, result.report()
    assert result.log.count("the video BIOS of 00:02.0 has run") == 2
    first, wiped, again = registers(result)
    assert len(set(wiped)) < len(set(first)) / 2, "it was not wiped"
    assert again == first
    for picture in pictures:
        assert screen.difference(picture, screen.expected("text")) is None


@pytest.mark.runs("rom-init-not")
def test_without_it_nothing_appears(run):
    """So the test above shows what rom-init does, and no one else."""
    result, pictures = run("rom-init-not")
    assert result.status == 0, result.report()
    assert "the video BIOS" not in result.log
    first, wiped, after = registers(result)
    assert after == wiped
    assert screen.difference(pictures[0], screen.expected("text")) is None
    assert len(pictures[1].getcolors(1 << 16)) == 1


def with_entry(code):
    """The card's ROM with another entry point."""
    data = bytearray(VGABIOS.read_bytes())
    data[3:3 + len(code)] = code
    return sealed(data)


BAD = {
    "endless": (b"\xeb\xfe", SECONDS_AT_MOST),
    "halt": (b"\xfa\xf4\xeb\xfd", SECONDS_AT_MOST),
    "undefined": (b"\x0f\x0b\x0f\x0b", SECONDS_AT_MOST),
}
for _name, (_code, _) in BAD.items():
    @runs.define(f"rom-init-{_name}")
    def bad(name=_name, code=_code):
        return runs.boot("exit", hv="rom-init",
                         modules=file(f"init-{name}", with_entry(code)))


@pytest.mark.parametrize("name", runs.each(BAD, "rom-init-{}"))
def test_a_rom_that_does_not_return(run, name):
    result = run(f"rom-init-{name}")
    assert result.status == 4, result.report()
    lines = [line for line in result.log.splitlines() if "error" in line]
    assert len(lines) == 1 and BAD[name][1].search(lines[0]), result.report()


DRAWN = "Linux draws this line."


@runs.define("rom-init-linux")
def linux():
    """Linux with a console on text that the video BIOS has set."""
    with rigs.start(rigs.Spec(
            rig="bochs", timeout=runs.TIMEOUT, monocle=runs.MONOCLE,
            hv="rom-init", append="console=tty0")) as machine:
        machine.wait_for(rigs.DEMO_READY, runs.TIMEOUT)
        machine.command(f"echo '{DRAWN}' >/dev/tty1", runs.TIMEOUT)
        path = runs.work("rom-init-linux.png")
        machine.screenshot(path)
        machine.send("poweroff -f\n")
        return (machine.finish(),
                "\n".join(screen.read(screen.text_picture(path))))


@pytest.mark.runs("rom-init-linux")
def test_linux_draws_on_it(run):
    result, text = run("rom-init-linux")
    assert result.status == 0, result.report()
    assert "rom-init: the video BIOS of 00:02.0 has run" in result.log
    assert DRAWN in text, text
