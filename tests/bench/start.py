# SPDX-License-Identifier: MIT
"""How long Monocle's own start takes, by breakpoints of Bochs.

    ticks(monocle)      {"all": N, "clock": N, "clear": N, "load": N}

All: from boot_main(), where GRUB has handed over, to where the guest is run. In
it: the clock's calibration, the clearing of the guest's memory, and what copies
the guest there.
"""
import re

import rigs
from rigs.spec import BUILD
from walker import boot as walk

FIRST, LAST = "boot_main", walk.START_SYMBOL
PARTS = {"clock": "tsc_frequency", "clear": "physmap_clear",
         "load": "loader_load"}
LIMIT = 120


class Stops(walk.Breakpoint):
    """Bochs stops at one breakpoint after the other."""

    def __init__(self, machine):
        super().__init__(machine)
        self.last = 0

    def next(self, limit=LIMIT):
        """(ticks, RIP) at the next one, in so many seconds at most."""
        machine = self.machine
        with machine.change:
            if self.last:
                machine._debug("c")
            if not machine.change.wait_for(
                    lambda: machine.ticks != self.last and self._at_prompt()
                    or not machine.alive(), limit) or not machine.alive():
                raise rigs.RigError("no breakpoint is reached")
            self.last = machine.ticks
        return self.last, self.register("rip")

    def register(self, name):
        return int(re.search(rf"^{name}: ([0-9a-f_]+)", self.ask("r"),
                             re.MULTILINE)[1].replace("_", ""), 16)

    def caller(self):
        """Where the function returns to that begins here."""
        low, high = re.search(r">:\t0x(\w+)\t0x(\w+)", self.ask(
            f"x /2wx {self.register('rsp'):#x}")).groups()
        return int(high + low, 16)


def ticks(monocle=None):
    """Of each part, and of all."""
    image = monocle or BUILD / "monocle.elf"
    places = {walk.symbol(image, name): name
              for name in (FIRST, *PARTS.values(), LAST)}
    spent = dict.fromkeys(PARTS, 0)
    with rigs.start(rig="bochs", monocle=monocle,
                    breakpoints=tuple(places)) as machine:
        stops = Stops(machine)
        began, rip = stops.next()
        assert places[rip] == FIRST
        while True:
            at, rip = stops.next()
            name = places[rip]
            if name == LAST:
                return {"all": at - began, **spent}
            part, = (part for part in PARTS if PARTS[part] == name)
            back = stops.caller()
            stops.ask(f"lb {back:#x}")
            end, rip = stops.next()
            assert rip == back
            spent[part] += end - at
