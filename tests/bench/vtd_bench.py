# SPDX-License-Identifier: MIT
"""The IOMMU driver's work for a domain of 64 GiB: rows of the bench table.

    rows()      [{"name", "unit", "value", "goal"}]; value None: not measured

The driver is built for this machine around a unit that only answers
(vtd_bench.c): tables, invalidations and flushed cache lines are exact. No
emulator that counts instructions has a VT-d unit, so the ticks are the
instructions of this build, counted by valgrind where it is installed; what a
flush or an invalidation costs on hardware is not in them. The goal for tables
is worked out here from the layout; none may be more than it.
"""
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
PROGRAM = BUILD / "bench" / "vtd_bench"
DRIVER = ["dmar", "errors", "faults", "invalidate", "regs", "remap", "tables",
          "unit", "vtd"]
SOURCES = ["tests/bench/vtd_bench.c", "drivers/pci/groups.c",
           *(f"drivers/vtd/{name}.c" for name in DRIVER), "kernel/region.c"]
LAYOUTS = {"contiguous": "one piece",
           "fragmented": "100 pieces, congruent to 2 MiB",
           "scattered": "100 pieces, no large page fits"}
# Instructions: what was measured when it was written, and a quarter more
TICKS = {("contiguous", "create"): 80_000, ("contiguous", "unmap"): 10_000,
         ("fragmented", "create"): 6_000_000, ("fragmented", "unmap"): 5_600,
         ("scattered", "create"): 1_100_000_000, ("scattered", "unmap"): 1_000}
INVALIDATIONS = {"create": 2, "unmap": 1}
INTERRUPTS = (0xfee00000, 0xfef00000)       # VT-d 3.14
LARGE = (2, 3)                              # levels that have leaves, and 1


def build():
    """Compile the driver with the unit that only answers."""
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["gcc", "-std=c17", "-O2", "-flto", "-fno-strict-aliasing", "-w",
         "-DMONOCLE_HOST", "-I.", "-o", PROGRAM, *SOURCES], cwd=ROOT,
        check=True)


def numbers(layout):
    """({("create", "tables"): N, ...}, [(gpa, hpa, size)])"""
    text = subprocess.run([PROGRAM, layout], check=True, text=True,
                          capture_output=True).stdout
    pieces = [tuple(int(n, 16) for n in words)
              for words in re.findall(r"piece (\w+) (\w+) (\w+)", text)]
    return {(what, kind): int(n) for what, kind, n in re.findall(
        r"(create|unmap) (\w+) (\d+)", text)}, pieces


def instructions(layout, function):
    """How many that function takes, or None without valgrind."""
    if not shutil.which("valgrind"):
        return None
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
         f"--toggle-collect={function}", PROGRAM, layout], check=True,
        capture_output=True, text=True)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def without(pieces, hole):
    """Pieces with a range taken out."""
    low, high = hole
    for gpa, hpa, size in pieces:
        for start, end in ((gpa, min(gpa + size, low)),
                           (max(gpa, high), gpa + size)):
            if start < end:
                yield start, hpa + start - gpa, end - start


def least_tables(pieces, level=4, base=0):
    """As few as can map the pieces: the range of a table is looked at entry
    by entry, whether a page of that size fits or another table is needed."""
    span = 4096 << 9 * level
    mine = [p for p in pieces if p[0] < base + span and base < p[0] + p[2]]
    if not mine:
        return 0
    gpa, hpa, size = mine[0]
    if level + 1 in LARGE and gpa <= base and \
            base + span <= gpa + size and (hpa - gpa) % span == 0:
        return 0
    if level == 1:
        return 1
    low = max(base, min(p[0] for p in mine))
    high = min(base + span, max(p[0] + p[2] for p in mine))
    part = span >> 9
    return 1 + sum(least_tables(mine, level - 1, at)
                   for at in range(low & -part, high, part))


def rows():
    """The bench table's rows on VT-d."""
    build()
    out = []

    def row(name, unit, value, goal):
        out.append({"name": f"VT-d: 64 GiB {name}", "unit": unit,
                    "value": value, "goal": goal})

    for layout, words in LAYOUTS.items():
        found, pieces = numbers(layout)
        row(f"{layout} ({words}): tables", "tables",
            found["create", "tables"],
            least_tables(list(without(pieces, INTERRUPTS))))
        for what, goal in INVALIDATIONS.items():
            title = {"create": "map", "unmap": "unmap a page"}[what]
            row(f"{layout}: {title}: invalidations", "invalidations",
                found[what, "invalidations"], goal)
            row(f"{layout}: {title}: flushes", "cache lines",
                found[what, "flushes"], None)
            row(f"{layout}: {title}: ticks", "instructions",
                instructions(layout, f"measured_{what}"), TICKS[layout, what])
    return out
