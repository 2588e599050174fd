# SPDX-License-Identifier: MIT
"""Runs with Intel graphics in the nested rig."""
import struct

from boot import runs
from boot.nested_cases import define
from igd import config, opregion
from rigs.nested import Case
from rigs.spec import BUILD, Igd, Spec

INITRD = BUILD / "guest" / "initrd-i915.img"
# Stolen memory that is too little for a picture, which otherwise is cleared
# there byte by byte.
SMALL = "gen9-small"
# With nopv the kernel takes no hypervisor for one that it knows, and so no
# IOMMU for active: natively as under Monocle.
APPEND = "nopv intel_iommu=off demo.run=report"
ACCESSES = 50000        # pairs
# In a register that nobody has: from here on it is Monocle that writes.
GRUB_MARK = "setpci -s 00:02.0 f8.b=4d"
MARK = "cw f8 1 4d"
# Generation 4 is refused; 5 has its control word in the host bridge.
GENERATIONS = [name for name in config.NAMES if config.load(name).gen > 4]
HOLD = 200_000_000


def igd(name, table=None):
    """What the rig plays."""
    size = config.load(name).number("dsm", 1) or 0
    return Igd(config.for_firmware(name), table or opregion.build(), size)


def tiny(name, append="igd", table=None, **fields):
    """The tiny guest looks at it."""
    paper = config.load(name)
    hv, grub = "debug igd", ()
    if paper.expect["remapping"] == ["no"]:
        hv += " iommu=off unsafe-dma ram=identity"
    if paper.gen == 5:
        grub = (f"setpci -s 00:00.0 52.w={paper.host.get(0x52, 2):x}",)
    fields = {"hv": hv, "memory": 256, "timeout": 60, **fields}
    return Spec(rig="nested", kernel=str(runs.GUEST), append=append,
                monocle=runs.MONOCLE, grub=(*grub, GRUB_MARK),
                igd=igd(name, table), **fields)


def add(name, make):
    """A case of that name."""
    def case():
        return make()
    case.__name__ = f"igd-{name}"
    define(case)


for _name in GENERATIONS:
    add(_name, lambda name=_name: tiny(name, table=opregion.extended()))
add("few", lambda: tiny(SMALL, "igd accesses=10"))
add("many", lambda: tiny(SMALL, f"igd accesses={ACCESSES + 10}", timeout=300))
add("dump", lambda: Case(tiny(SMALL, f"igd accesses=10 hold={HOLD}"),
                         dump_at="igd: 0 failed"))


def linux(**fields):
    """Debian's kernel and its driver."""
    return Spec(rig="nested", initrd=str(INITRD), append=APPEND, memory=384,
                igd=igd(SMALL), grub=(GRUB_MARK,), timeout=300, **fields)


add("linux-native", lambda: linux(native=True))
add("linux", lambda: linux(hv="debug igd", monocle=runs.MONOCLE))


def size_of(kib):
    """An OpRegion that says that it has so many KiB."""
    region = bytearray(opregion.build())
    struct.pack_into("<I", region, 0x10, kib)
    return bytes(region)


# {name: (case, what Monocle says)}
REFUSED = {
    "huge-opregion": (lambda: tiny(SMALL, table=size_of(1 << 20)),
                      "which cannot be"),
    "cantiga": (lambda: tiny("gen4-gm45"), "is not supported"),
    "remapping": (lambda: tiny("gen8-bdw", hv="igd"), "must stay off"),
}
for _name, (_make, _) in REFUSED.items():
    add(_name, _make)
