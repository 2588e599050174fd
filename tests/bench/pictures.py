# SPDX-License-Identifier: MIT
"""Makes the pictures of the documents, on Bochs: `make pictures`."""
import pathlib
import sys

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import rigs  # noqa: E402

DOCS = ROOT / "docs"
SCRIPT = ("clear; uname -srm; cat /sys/class/graphics/fb0/name; "
          "dmesg | grep -e 'Hypervisor det' -e x86/PAT -e x2apic -e bochs; "
          # One line, or what is typed ahead stands in between.
          "monoclectl stats; echo drawn > /dev/ttyS0\n")


def console(path):
    """The demo guest's console on the assigned card."""
    with rigs.start(rig="bochs", append="demo.drm") as machine:
        machine.wait_for("demo: shell is ready", timeout=200)
        # Typed at the guest's keyboard, into its shell on the screen.
        machine.type(SCRIPT)
        machine.wait_for("drawn", timeout=120)
        machine.screenshot(path)
        machine.send("poweroff -f\n")
        return machine.finish()


def drawing(path):
    """What the tiny guest draws."""
    with rigs.start(rig="bochs", kernel=ROOT / "build/guests/guest.elf",
                    append="draw-lfb") as machine:
        machine.wait_for("draw: ready", timeout=100)
        machine.screenshot(path)
        machine.send("x")
        return machine.finish()


PICTURES = {"screenshot.png": console, "tour-draw.png": drawing}


def main():
    for name, make in PICTURES.items():
        path = DOCS / name
        done = make(path)
        if done.status:
            raise SystemExit(done.report())
        # Bochs's display has 256 colours: a palette loses none.
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE).save(
            path, optimize=True)


if __name__ == "__main__":
    main()
