# SPDX-License-Identifier: MIT
"""The VGA card is the guest's: what it draws is on the screen, unhindered."""
import functools
import re

import pytest
from PIL import Image

from boot import runs, screen

PICTURES = ["text", "mode13", "lfb", "moved"]


def drawn(path, what):
    """Boot, wait for the picture, look at it, let the guest end."""
    with runs.start(f"draw-{what}") as machine:
        machine.wait_for("draw: ready", runs.TIMEOUT)
        machine.screenshot(path)
        machine.send("x")
        result = machine.finish()
    if what == "text":
        return result, screen.text_picture(path)
    return result, Image.open(path).convert("RGB")


for name in PICTURES:
    runs.define(f"draw-{name}")(functools.partial(
        drawn, runs.work(f"{name}.png"), name))


@pytest.mark.parametrize("what", runs.each(PICTURES, "draw-{}"))
class TestPicture:
    def test_is_as_drawn(self, run, what):
        result, image = run(f"draw-{what}")
        box = screen.difference(image, screen.expected(what))
        assert box is None, f"differs in {box}\n{result.report()}"

    def test_costs_no_exit(self, run, what):
        """Ten thousand stores and more, and not one exit."""
        result, _ = run(f"draw-{what}")
        count = re.search(r"draw: (\d+) stores, (\d+) exits", result.serial)
        assert count and int(count[1]) >= 10000, result.report()
        assert int(count[2]) == 0, result.report()

    def test_nothing_was_wrong(self, run, what):
        result, _ = run(f"draw-{what}")
        assert result.status == 0, result.report()
        assert "guests/draw.c" not in result.serial
