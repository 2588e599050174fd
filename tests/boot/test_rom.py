# SPDX-License-Identifier: MIT
"""The display's option ROM in a guest's hands: tests/guests/rom.c."""
import functools
import re

import pytest

from boot import runs
from boot.rom import VGABIOS, file, sealed

PLACES = ["BAR", "moved", "again", "back", "shadow"]


def fnv(data):
    """What the guest computes."""
    value = 0x811c9dc5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xffffffff
    return value


def another():
    """The card's ROM with another text in it, longer than a power of two."""
    data = VGABIOS.read_bytes()
    at = data.index(b"PCIR")
    data += bytes(0x11000 - len(data))
    units = (len(data) // 512)
    return sealed(data[:2] + bytes([units]) + data[3:at + 0x10] +
                  bytes([units, 0]) + data[at + 0x12:])


@runs.define("rom")
def rom():
    return runs.boot("rom")


@runs.define("rom-file")
def rom_file():
    return runs.boot("rom", modules=file("another", another()))


def places(result):
    """{where the guest saw it: (bytes, hash)}, the same after its reset."""
    before, after = result.serial.split("rom: after the reset")
    found = [re.findall(r"^rom: (\w+): (\d+) bytes, hash (\w+)$", part,
                        re.MULTILINE) for part in (before, after)]
    assert found[0] == found[1], result.report()
    return {where: (int(size), int(value, 16))
            for where, size, value in found[0]}


def check(result, data):
    """Everywhere it is the file, and nothing else answers."""
    assert result.status == 0, result.report()
    assert places(result) == dict.fromkeys(PLACES, (len(data), fnv(data)))


@pytest.mark.runs("rom")
def test_the_cards_own(run):
    result = run("rom")
    check(result, VGABIOS.read_bytes())
    assert "00:02.0: ROM of 38400 bytes, from its BAR" in result.log
    assert "rom: size 65536" in result.serial


@pytest.mark.runs("rom-file")
def test_a_file_in_its_place(run):
    result = run("rom-file")
    check(result, another())
    assert "rom: size 131072" in result.serial
    assert "from its BAR" not in result.log


# -- files that are refused

def damaged(at, value):
    """The card's ROM with another byte there. Its PCIR is at 0x110."""
    data = VGABIOS.read_bytes()
    return data[:at] + bytes([value]) + data[at + 1:]


BAD = {
    "checksum": (r"module 'rom checksum', the ROM of 00:02\.0, has a wrong "
                 r"checksum", lambda: damaged(0x800, 0x5a), {}),
    "device": (r"is another device's: no PCIR names this one",
               lambda: damaged(0x116, 0x12), {}),
    "long": (r"is too long: a ROM has 16 MiB at most",
             lambda: VGABIOS.read_bytes() + bytes(16 << 20), {"memory": 128}),
    "display": (r"is the display's ROM, but no display is assigned",
                VGABIOS.read_bytes, {"hv": "no-vga"}),
}


def bad(name):
    _, make, fields = BAD[name]
    return runs.boot("exit", modules=file(name, make()), **fields)


for _name in BAD:
    runs.define(f"rom-bad-{_name}")(functools.partial(bad, _name))


@pytest.mark.parametrize("name", runs.each(BAD, "rom-bad-{}",
                                           short={"checksum", "display"}))
def test_bad_file_is_refused(run, name):
    """One line says what is wrong; tests/unit has all that can be."""
    result = run(f"rom-bad-{name}")
    assert (result.status, result.text) == (4, "refused"), result.report()
    complaints = re.findall(r"^monocle: error: (.*)$", result.log,
                            re.MULTILINE)
    assert len(complaints) == 1 and re.search(BAD[name][0], complaints[0]), \
        result.report()
    assert "the guest starts" not in result.log
