# SPDX-License-Identifier: MIT
"""A guest asks for the display's memory: tests/guests/windows.c on Bochs.

What the units of an IGD need besides is in tests/unit/test_windows.py.
"""
import re

import pytest

import rigs
from boot import runs
from rigs import result
from rigs.spec import BUILD
from walker import boot as walk, parse_regions, wanted_cpu

CLOSED = re.compile(r"(region a0000-c0000 hpa a0000 device cpu )---"
                    r"( dma --- UC none legacy VGA)")
PAGE = 4096


@runs.define("windows")
def opened():
    """Looked at twice: where the guest starts, and when it has asked."""
    with runs.start("windows", hv="igd=closed log=e9,screen") as machine:
        machine.wait_for("windows: open", runs.TIMEOUT)
        log = machine.text("log")
        # It asked for three pages of the window, at 0xB8000.
        now = CLOSED.sub(
            r"\1---\2\nregion b8000-bb000 hpa b8000 device cpu rw- dma --- UC "
            "none legacy", log).replace(
                "region a0000-c0000 hpa a0000 ",
                "region a0000-b8000 hpa a0000 ")
        found = walk.check(walk.Still(now, machine.memory))
        machine.send("x")
        return machine.finish(), found, machine.walked


@pytest.mark.runs("windows")
class TestWindows:
    def test_guest_is_content(self, run):
        """All ones before, content after; refused as a whole; closed again
        after a reset."""
        result, *_ = run("windows")
        assert result.status == 0, result.report()
        assert "guests/windows.c" not in result.serial, result.report()
        assert "windows: closed again" in result.serial

    def test_content_is_the_screens(self, run):
        """Monocle's own last words, where it wrote them."""
        result, *_ = run("windows")
        screen = re.findall(r"^screen: (.*?) *$", result.serial, re.M)
        assert len(screen) == 25
        assert any("the guest starts" in line for line in screen), screen

    def test_walker_sees_exactly_what_was_asked_for(self, run):
        _, found, before = run("windows")
        assert CLOSED.search(before.still.log)
        vga = [set(range(leaf[0], leaf[0] + leaf[1], PAGE)) &
               set(range(0xa0000, 0xc0000, PAGE))
               for leaf in found.ept]
        assert set().union(*vga) == {0xb8000, 0xb9000, 0xba000}
        for walked in (before, found):
            assert sum(leaf[1] for leaf in walked.ept) == sum(
                p.end - p.gpa
                for p in wanted_cpu(parse_regions(walked.still.log)))


@runs.define("identity-map")
def by_linux():
    """tests/guests/identity_map in Debian, with the module of tools/."""
    return rigs.boot(
        rig="bochs", initrd=str(BUILD / "guest" / "initrd-identity.img"),
        hv="igd=closed log=e9,screen", append="demo.run=identity_map",
        memory=256, monocle=runs.MONOCLE, timeout=runs.TIMEOUT)


@pytest.mark.long
@pytest.mark.runs("identity-map")
class TestModule:
    def test_all_ones_before_content_after(self, run):
        done = run("identity-map")
        assert done.status == result.POWER_OFF, done.report()
        seen = {}
        for when, at, what in re.findall(
                r"^identity_map: (\w+): (\w{5}) (.*)$", done.serial, re.M):
            seen.setdefault(when, {})[at] = what
        closed = dict.fromkeys(("a0000", "b8000", "b9000", "c0000"), "ones")
        assert seen["before"] == seen["refused"] == closed, done.report()
        page = "content of 4096 bytes"
        assert seen["after"] == {**closed, "b8000": page, "c0000": page}

    def test_content_is_the_displays(self, run):
        """Monocle's last words on its screen, and a ROM's signature."""
        serial = run("identity-map").serial
        text, = re.findall(r"^identity_map: text: (.*)$", serial, re.M)
        assert "the guest starts" in text
        assert "identity_map: rom: 55aa\n" in serial

    def test_module_says_what_is_wrong(self, run):
        serial = run("identity-map").serial
        assert re.findall(r"^identity_map: insmod (.*): (\d+)$", serial,
                          re.M) == [
            ("", "22"), ("runs=0xb8000", "22"),
            ("runs=0xb8000:1,0xc0000:1,0xf0000:1", "22"),
            ("runs=0xb8000:1,0xc0000:1", "0")]
        for line in ("say what to open: runs=ADDRESS:PAGES,...",
                     "'0xb8000': write ADDRESS:PAGES, as 0xa0000:32",
                     "nothing is opened: a page is none of the display's "
                     "that igd=closed closes, or an address is not "
                     "page-aligned (error 22)", "2 runs are open"):
            assert f"\nidentity_map: {line}\n" in serial
