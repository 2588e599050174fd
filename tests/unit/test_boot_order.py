# SPDX-License-Identifier: MIT
"""What SeaBIOS starts from first, by its own search (src/boot.c): a pattern for
each disk that it finds, compared with the lines of the list."""
import re

import pytest

import harness
from pcihost import bdf

AHCI, NVME, USB, NET, DISPLAY = 0x0106, 0x0108, 0x0c03, 0x0200, 0x0300
SIZE = 8192


@pytest.fixture(scope="module")
def m():
    return harness.build("boot_order", ["vmm/boot_order.c"],
                         headers=["vmm/boot_order.h"])


class Host:
    """functions: {bdf: class}; bridges: {bdf: secondary bus}."""

    def __init__(self, m, functions, bridges=()):
        bridges = dict(bridges)
        self.m, self.pci = m, m.new("struct pci_host *")
        self.index = {}
        for at in sorted([*functions, *bridges]):
            self.index[at] = self.pci.count
            self.pci.functions[self.pci.count] = {
                "bdf": at, "class": functions.get(at, 0x0604),
                "secondary_bus": bridges.get(at, 0)}
            self.pci.count += 1
        self.bridges = {bus: at for at, bus in bridges.items()}

    def order(self, *named, more=(), size=SIZE):
        """The lines."""
        m = self.m
        self.all = m.new("struct assignment *", {
            "pci": self.pci, "named": len(named),
            "count": len(named) + len(more)})
        for i, at in enumerate([*named, *more]):
            self.all.functions[i].function = m.ffi.addressof(
                self.pci.functions[self.index[at]])
        text = m.new("char[]", b"\xff" * SIZE)
        length = m.boot_order(self.all, text, size)
        assert length < size
        raw = bytes(m.ffi.buffer(text, length))
        assert not raw or raw.endswith(b"\n")
        return raw.decode().split("\n")[:-1]

    def place(self, at, name="*"):
        """build_pci_path()"""
        above = self.bridges.get(at >> 8)
        way = "/pci@i0cf8" if above is None else self.place(
            above, "pci-bridge")
        slot, number = at >> 3 & 31, at & 7
        return f"{way}/{name}@{slot:x}" + (f",{number:x}" if number else "")


def priority(lines, pattern):
    """find_prio(): the first line that begins so, as far as a slash."""
    expression = re.escape(pattern).replace(r"\*", "[^/]*") + "(/.*)?$"
    return next((n for n, line in enumerate(lines)
                 if re.match(expression, line)), None)


def disk(host, at, cls, place=0):
    """SeaBIOS's pattern of the disk in that place."""
    if cls == USB:
        return f"{host.place(at, 'usb')}/storage@{place + 1:x}/*@0/*@0,0"
    if cls == AHCI:
        return f"{host.place(at)}/drive@{place:x}/disk@0"
    return host.place(at)


FUNCTIONS = {bdf(0, 2): DISPLAY, bdf(0, 0x14): USB, bdf(0, 0x17): AHCI,
             bdf(0, 0x1f, 6): NET, bdf(1, 0): NVME, bdf(4, 0, 3): AHCI}
BRIDGES = {bdf(0, 0x1c, 4): 1, bdf(0, 0x1d): 2, bdf(2, 0): 3, bdf(3, 5, 1): 4}
NAMED = [at for at in FUNCTIONS if FUNCTIONS[at] != DISPLAY]


@pytest.mark.parametrize("named", [
    NAMED, NAMED[::-1], NAMED[2:] + NAMED[:2], NAMED[3:4]])
def test_the_order_is_that_of_the_words(m, named):
    host = Host(m, FUNCTIONS, BRIDGES)
    rest = [at for at in FUNCTIONS if at not in named]
    lines = host.order(*named, more=rest)
    found = {at: priority(lines, disk(host, at, FUNCTIONS[at]))
             for at in FUNCTIONS}
    assert [found[at] for at in rest] == [None] * len(rest)
    assert sorted(named, key=lambda at: found[at]) == named


@pytest.mark.parametrize("cls", [USB, AHCI])
def test_each_place_of_a_controller(m, cls):
    host = Host(m, {bdf(0, 9): cls, bdf(0, 8): NVME})
    lines = host.order(bdf(0, 9), bdf(0, 8))
    assert [priority(lines, disk(host, bdf(0, 9), cls, n))
            for n in range(32)] == list(range(32))
    assert priority(lines, disk(host, bdf(0, 8), NVME)) == 32


def test_all_alone_says_nothing(m):
    assert Host(m, FUNCTIONS, BRIDGES).order(more=FUNCTIONS) == []


def test_what_is_behind_another_root_bus(m):
    """Whose paths begin otherwise: it is not taken for its like on bus 0."""
    host = Host(m, {bdf(0, 3): NVME, bdf(0x64, 3): NVME})
    assert host.order(bdf(0x64, 3)) == []
    assert len(host.order(bdf(0x64, 3), bdf(0, 3))) == 1


def test_a_way_that_is_too_long(m):
    depth = 20
    host = Host(m, {bdf(depth, 3): NVME, bdf(0, 3): NVME},
                {bdf(n, 31, 7): n + 1 for n in range(depth)})
    assert len(host.order(bdf(depth, 3), bdf(0, 3))) == 1


@pytest.mark.parametrize("size", [1, 40, 100, 1000])
def test_too_little_room(m, size):
    """Whole lines, the first ones."""
    host = Host(m, FUNCTIONS, BRIDGES)
    every = host.order(*NAMED)
    lines = host.order(*NAMED, size=size)
    assert lines == [line for line in every if line in lines]
    assert sum(map(len, lines)) + len(lines) < size
