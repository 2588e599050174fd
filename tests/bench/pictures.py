# SPDX-License-Identifier: MIT
"""Makes docs/screenshot.png: the demo guest's console on the assigned card.

    make screenshot
"""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import rigs  # noqa: E402

SCRIPT = ("clear; uname -srm; cat /sys/class/graphics/fb0/name; "
          "dmesg | grep -e 'Hypervisor det' -e x86/PAT -e x2apic -e bochs; "
          "monoclectl stats\n")


def main(output):
    with rigs.start(rig="bochs", append="demo.drm") as machine:
        machine.wait_for("demo: shell is ready", timeout=200)
        # Typed at the guest's keyboard, into its shell on the screen.
        machine.type(SCRIPT)
        machine.type("echo drawn > /dev/ttyS0\n")
        machine.wait_for("drawn", timeout=120)
        machine.screenshot(output)
        machine.send("poweroff -f\n")
        return machine.finish().status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
