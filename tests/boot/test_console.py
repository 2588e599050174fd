# SPDX-License-Identifier: MIT
"""Linux's console on the screen that firmware and GRUB have left."""
import functools
import re

import pytest

import rigs
from boot import runs, screen
from boot.nested_cases import CONSOLE, MODE
from boot.rom import VGABIOS, file, sealed

# vgabios's dispi_get_max_bpp; Bochs's display says 8, and shows 32 as well.
MAX_BPP = re.compile(rb"RS\xe8..\x89\xc3\x0d\x02\x00\xe8..\xba\xce\x01"
                     rb"\xb8\x03\x00", re.DOTALL)
SAYS_32 = b"\xb8\x20\0\xc3"


def vgabios_of_32_bits(name):
    """A line of Bochs's configuration."""
    data = VGABIOS.read_bytes()
    at = MAX_BPP.search(data).start()
    (path, _), = file(name, sealed(
        data[:at] + SAYS_32 + data[at + len(SAYS_32):]))
    return f"vgaromimage: file={path}"


def shown(name, until, native, **fields):
    """(result, picture) while the first lines still stand."""
    path = runs.work(f"console-{name}-{native}-{fields['rig']}.png")
    with rigs.start(rigs.Spec(
            timeout=runs.TIMEOUT, monocle=runs.MONOCLE, append=CONSOLE,
            native=native, **fields)) as machine:
        machine.wait_for(until, runs.TIMEOUT)
        machine.screenshot(path)
        machine.wait_for(rigs.DEMO_READY, runs.TIMEOUT)
        machine.send("poweroff -f\n")
        return machine.finish(), path


def text(native):
    """vgacon, on 25 lines."""
    return shown("text", "crng init done", native, rig="bochs")


def vbe(native):
    """vesafb, which is there later."""
    return shown("vbe", rigs.DEMO_READY, native, rig="bochs", gfx=MODE,
                 bochsrc=(vgabios_of_32_bits(f"32-bits-{native}"),))


for _make in text, vbe:
    for _native in False, True:
        runs.define(f"console-{_make.__name__}" + "-native" * _native)(
            functools.partial(_make, _native))
for _name, _fields in {"vbe": {"gfx": MODE},
                       "efi": {"firmware": "uefi"}}.items():
    runs.define(f"console-{_name}-qemu")(functools.partial(
        shown, _name, rigs.DEMO_READY, True, rig="tcg", **_fields))


def wrapped(line):
    """As the screen shows a long line."""
    return [line[at:at + screen.COLUMNS].rstrip()
            for at in range(0, len(line), screen.COLUMNS)]


def alike(line, told):
    """But for glyphs that are not known, of which there are few."""
    return (len(line) == len(told) and
            line.count(screen.UNKNOWN) <= max(2, len(told) / 4) and
            all(a in (b, screen.UNKNOWN) for a, b in zip(line, told)))


def rows(path, width):
    """{what is read in a row of the screen: its pixels}, from the top on."""
    picture = screen.text_picture(path)
    return {line: picture.crop((0, n * screen.HEIGHT, picture.width,
                                (n + 1) * screen.HEIGHT)).tobytes()
            for n, line in enumerate(screen.read(picture, width)) if line}


def check(done, native, width):
    """The kernel's first words, which the serial console tells, too, stand
    there; what both pictures show looks the same."""
    (result, here), (other, there) = (
        (result, rows(path, width)) for result, path in (done, native))
    assert other.status == 0, other.report()
    for what in "Linux version", "Kernel command line: ":
        told = wrapped(re.search(rf"{what}.*$", result.serial,
                                 re.MULTILINE)[0])
        assert any(all(map(alike, list(here)[at:], told))
                   for at in range(len(here) - len(told) + 1)), \
            "\n".join([what, *here, result.report()])
    both = here.keys() & there.keys()
    assert len(both) > 3, here.keys() ^ there.keys()
    assert not [line for line in both if here[line] != there[line]]


@pytest.mark.parametrize("name, width", [
    pytest.param(name, width, marks=pytest.mark.runs(
        f"console-{name}", f"console-{name}-native"))
    for name, width in (("text", screen.WIDTH), ("vbe", screen.WIDTH - 1))])
def test_first_line(run, name, width):
    """vgacon and vesafb, as natively."""
    done = run(f"console-{name}")
    assert done[0].status == 0, done[0].report()
    check(done, run(f"console-{name}-native"), width)


@pytest.mark.long
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.nested(f"console-{name}"),
                              pytest.mark.runs(f"console-{name}-qemu")])
    for name in ("vbe", "efi")])
def test_first_line_by_other_firmware(nested, run, name):
    """vesafb by SeaVGABIOS, efifb by OVMF."""
    done = nested(f"console-{name}")
    check((done, done.files["screen.png"]), run(f"console-{name}-qemu"),
          screen.WIDTH - 1)
