# SPDX-License-Identifier: MIT
"""Linux's console on the screen that firmware and GRUB have left."""
import re

import pytest

import rigs
from boot import runs, screen


@runs.define("console-text")
def console_text():
    """vgacon, while the first lines (of level 5 and below) still stand."""
    with rigs.start(rigs.Spec(
            rig="bochs", timeout=runs.TIMEOUT, monocle=runs.MONOCLE,
            append="console=tty0 loglevel=6")) as machine:
        machine.wait_for("crng init done", runs.TIMEOUT)
        path = runs.work("console-text.png")
        machine.screenshot(path)
        machine.wait_for(rigs.DEMO_READY, runs.TIMEOUT)
        machine.send("poweroff -f\n")
        return machine.finish(), screen.read(screen.text_picture(path))


def wrapped(line):
    """As the screen shows a long line."""
    return [line[at:at + screen.COLUMNS].rstrip()
            for at in range(0, len(line), screen.COLUMNS)]


@pytest.mark.runs("console-text")
def test_first_line_on_text(run):
    """What the serial console tells first stands on the screen, too."""
    result, lines = run("console-text")
    assert result.status == 0, result.report()
    first = re.search(r"^.*Linux version .*$", result.serial, re.MULTILINE)[0]
    rows = wrapped(first)
    at = lines.index(rows[0])
    assert lines[at:at + len(rows)] == rows, "\n".join(lines)
    assert any("Kernel command line: console=ttyS0" in line
               for line in lines[at:]), "\n".join(lines)
