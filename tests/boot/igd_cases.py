# SPDX-License-Identifier: MIT
"""Runs with Intel graphics in the nested rig."""
import dataclasses
import functools
import struct

import rigs
from boot import dmar_tables as tables, runs
from boot.nested_cases import define, held
from igd import config, opregion
from rigs import nested
from rigs.spec import BUILD, Igd, Spec

INITRD = BUILD / "guest" / "initrd-i915.img"
# Stolen memory that is too little for a picture, which otherwise is cleared
# there byte by byte.
SMALL = "gen9-small"
# With nopv the kernel takes no hypervisor for one that it knows, and so no
# IOMMU for active: natively as under Monocle.
APPEND = "nopv intel_iommu=off demo.run=report"
ACCESSES = 100000
# In a register that nobody has: from here on it is Monocle that writes.
GRUB_MARK = "setpci -s 00:02.0 f8.b=4d"
MARK = "cw f8 1 4d"
# Generation 4 is refused; 5 has its control word in the host bridge.
GENERATIONS = [name for name in config.NAMES if config.load(name).gen > 4]
# Of the 7 MiB that the firmware reserves at the end of 256, the upper 3 are an
# RMRR, and GSM in it, as the host bridge says. QEMU's DMAR table has none.
STOLEN, GSM, RMRR, RMRR_END = 0xe800000, 0xec00000, 0xee00000, 0xef00000
# Monocle and its tables, of such a machine.
OWN = (RMRR_END, (256 << 20) - RMRR_END), nested.IOMMU


def igd(name, table=None, stolen=None):
    """What the rig plays. stolen: more than what its registers say."""
    size = stolen or config.load(name).number("dsm", 1) or 0
    return Igd(config.for_firmware(name), table or opregion.build(), size)


def tiny(name, append="igd", table=None, stolen=None, **fields):
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
                igd=igd(name, table, stolen), **fields)


def add(name, make):
    """A case of that name."""
    def case():
        return make()
    case.__name__ = f"igd-{name}"
    define(case)


for _name in GENERATIONS:
    add(_name, lambda name=_name: tiny(name, table=opregion.extended()))
add("many", lambda: held(
    f"igd accesses={ACCESSES}", "igd: 0 failed", OWN,
    functools.partial(tiny, SMALL), timeout=300))


def with_rmrr(base, limit):
    """... and the DMAR table has one of the graphics."""
    return tables.with_table(f"igd-{base:x}", tables.dmar(
        tables.ALL, tables.rmrr(
            base, limit, tables.scope(tables.VGA))), make=dict)


def staged(append, **fields):
    """With GSM and an RMRR."""
    firmware = with_rmrr(GSM, RMRR_END - 1)
    spec = tiny(SMALL, f"{append} rmrr={RMRR}", stolen=RMRR_END - STOLEN,
                files=firmware["files"], **fields)
    return dataclasses.replace(spec, grub=(
        f"setpci -s 00:00.0 b4.l={GSM:x}", *firmware["grub"], *spec.grub))


# Another function in the domain of the graphics, and another card behind
# legacy VGA, which the stand-in does not decode.
add("domain", lambda: staged(
    "edu-igd ports=2000", hv="debug igd assign=00:05.0", timeout=120,
    devices=("VGA,addr=03.0,romfile=",)))
add("closed", lambda: held("windows-igd", "windows: igd", OWN, staged,
                           hv="debug igd=closed"))
# The guest must not look where ASLS points: it reads 0.
add("no-signature", lambda: tiny(SMALL, table=opregion.build(
    signature=b"IntelGraphicsNot")))


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


def listed(name=SMALL, lines="", hv="list", table=None, **fields):
    """What `list` makes of a machine, without VMX. `lines`: more of the
    stand-in's file; a later one overrides."""
    paper = igd(name, table)
    paper.config += lines
    return Spec(rig="tcg", hv=hv, module=False, memory=256, igd=paper,
                monocle=runs.MONOCLE, timeout=runs.TIMEOUT, **fields)


def setpci(*words):
    """GRUB writes to the graphics, or 00:00.0, before Monocle starts."""
    return {"grub": tuple(
        f"setpci -s {'' if ' ' in word else '00:02.0 '}{word}"
        for word in words)}


# Where Monocle is on that machine; the tests look.
IMAGE = 0xfe00000
# docs/igd.md, "What goes wrong". {name: (Spec, whether it is refused, what
# is said)}
BAD = {
    "none": (lambda: listed("gen9-cfl", "igd 00 4 11111234\n", "list igd"),
             True, "00:02.0 is no Intel graphics"),
    "disabled": (lambda: listed(
        lines="igd 00 4 ffffffff\n", hv="list igd",
        **setpci("00:00.0 54.l=23")), True, "switched 00:02.0 off (DEVEN"),
    "unknown": (lambda: listed(lines="igd 00 4 fff08086\nigd 5c 4 0 0\n"),
                True, "is not known and its registers do not tell"),
    "remapping": (lambda: listed("gen8-bdw"), True, "must stay off"),
    "remapping-relocated": (lambda: listed(
        "gen8-bdw", hv="list iommu=off unsafe-dma"), True,
        "it needs igd-dma=direct ram=identity"),
    "too-much": (lambda: listed(lines="igd 50 2 0241\n", **setpci(
        "00:00.0 bc.l=10000000")), True, "of 64 MiB at 0xeb00000 (GGC 0241) "
        "ends above the top of memory 0x10000000"),
    "stolen-in-ram": (lambda: listed(**setpci("5c.l=4000000")), True,
                      "stolen memory 0x4000000-0x4400000 lies in what the "
                      "memory map calls RAM"),
    "gsm-in-ram": (lambda: listed(**setpci("00:00.0 b4.l=4000000")), True,
                   "GTT memory 0x4000000-0x4200000 lies in"),
    "opregion-in-ram": (lambda: listed(**setpci("fc.l=8000000")), True,
                        "OpRegion at 0x8000000 is outside reserved memory"),
    "opregion-huge": (lambda: listed(table=size_of(1 << 20)), True,
                      "says that it has 1048576 KiB, which cannot be"),
    "opregion-small": (lambda: listed(table=size_of(4)), True,
                       "says that it has 4 KiB, which cannot be"),
    "rmrr-in-ram": (lambda: listed(**with_rmrr(0x4000000, 0x4000fff)), True,
                    "RMRR 0x4000000-0x4001000 lies in"),
    "asls-0": (lambda: listed(**setpci("fc.l=0")), False,
               "firmware has made no OpRegion (ASLS 00000000)"),
    "no-signature": (lambda: listed(table=opregion.build(
        signature=b"IntelGraphicsNot")), False, "its signature is missing"),
    "vbt-in-ram": (lambda: listed(table=opregion.build(
        rvda=0x4000000, rvds=7000)), False,
        "the VBT's 0x1b58 bytes at 0x4000000 are not in reserved memory"),
    "vbt-in-monocle": (lambda: listed(table=opregion.build(
        rvda=IMAGE, rvds=7000)), False,
        f"bytes at {IMAGE:#x} are not in reserved memory"),
    "gsm-unknown": (lambda: listed(), False, "has a size in GGC, but no base"),
}
for _name, (_make, *_) in BAD.items():
    runs.define(f"igd-bad-{_name}")(lambda make=_make: rigs.boot(make()))

# {name: (case, what Monocle says)}
REFUSED = {
    "huge-opregion": (lambda: tiny(SMALL, table=size_of(1 << 20)),
                      "which cannot be"),
    "cantiga": (lambda: tiny("gen4-gm45"), "is not supported"),
    "remapping": (lambda: tiny("gen8-bdw", hv="igd"), "must stay off"),
}
for _name, (_make, _) in REFUSED.items():
    add(_name, _make)


# -- resets (test_igd_reset.py)

# What firmware has set up and an FLR takes, in the order of drivers/pci/reset.c.
SET_UP = {0x45008: 0xc0000000, 0xd48: 0x0b400001, 0xdc8: 0x00000012,
          0xa090: 0x88040000, 0xa094: 0x00040000, 0x1082c0: 0x8b500001}
RESETS = 6              # of the guest, each in another way
LOST = 0xa094


def resets(policy, append="resets", name=SMALL, more=()):
    """The tiny guest, which resets itself; the device has what is lost."""
    device = igd(name)
    device.config += "".join(
        f"{line}\n" for line in (*(f"mmio {at:x} {value:x}" for at, value in
                                   SET_UP.items()), *more))
    return Spec(rig="nested", kernel=str(runs.GUEST), append=append,
                monocle=runs.MONOCLE, grub=(GRUB_MARK,), igd=device,
                memory=256, timeout=120, hv=f"debug igd igd-reset={policy}")


def once(*more, **fields):
    """At the first start alone."""
    return resets("always", "exit status=0", more=more, **fields)


for _name in "auto", "never", "reboot", "always":
    add(f"reset-{_name}", lambda name=_name: resets(name))
add("reset-uefi", lambda: dataclasses.replace(
    resets("auto"), firmware="uefi", timeout=300))
add("reset-dead", lambda: once(
    f"mmio {LOST:x} {SET_UP[LOST]:x} dead"))
add("reset-away", lambda: once("flr 70 never"))
# The panel is on, as firmware leaves it; that it goes off is seen at once.
add("reset-ivb", lambda: once("mmio c7204 abcd0001", "mmio 130040 1 keep",
                              name="gen7-ivb"))
