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


def byte_colour(value):
    """A byte of red, green, blue (3, 3, 2 bits) as levels."""
    return ((value & 7) * 255 // 7, (value >> 3 & 7) * 255 // 7,
            (value >> 6) * 255 // 3)


def plot(width, height, rule, zoom=1):
    """A picture by a rule from (x, y) to a byte."""
    image = Image.new("RGB", (width, height))
    image.putdata([byte_colour(rule(x, y) & 0xff)
                   for y in range(height) for x in range(width)])
    return image.resize((width * zoom, height * zoom), Image.Resampling.NEAREST)


def expected(what):
    """The pictures of tests/guests/draw.c."""
    if what == "text":
        return screen.draw([(n * 5 & 0xff, (n * 7 + n // 80) & 0x7f)
                            for n in range(80 * 25)])
    if what == "mode13":
        return plot(320, 200, lambda x, y: (x // 4) ^ (y // 2), 2)
    return plot(640, 480, lambda x, y: x // 40 + 16 * (y // 30))


@pytest.mark.parametrize("what", runs.each(PICTURES, "draw-{}"))
class TestPicture:
    def test_is_as_drawn(self, run, what):
        result, image = run(f"draw-{what}")
        box = screen.difference(image, expected(what))
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
