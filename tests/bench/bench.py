#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Measure Monocle, print the tables, and write them down: `make bench`.

On Bochs a tick is an instruction; the IOMMU driver is measured by itself
(vtd_bench.py). Rows of name, unit, value and goal (at most; or null) go to
build/bench.json, the tables into docs/bench.md and README.md between their
marks. The status says whether the goals are met.
"""
import argparse
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import rigs  # noqa: E402
from bench import marked, vtd_bench  # noqa: E402
from rigs.spec import BUILD, REPOSITORY  # noqa: E402

GUEST = BUILD / "guests" / "guest.elf"
ROWS = BUILD / "bench.json"
DOCS = REPOSITORY / "docs" / "bench.md"
README = REPOSITORY / "README.md"
COMMAND = "make bench"
# Measured on the same Bochs, the guest executing CPUID in a loop.
OTHERS = {"cpuid": "KVM 976, BitVisor 432"}
GOALS = {"cpuid": 250}
SHARE_GOAL = 5.0
TOTAL = re.compile(r"(\d+) exits, (\d+) of (\d+) ticks in Monocle")
REASON = re.compile(r"^(\w[\w /]*?) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)
# The rows of README's table.
CHOSEN = ("share of ticks", "exit cost: cpuid", ": tables",
          "contiguous: map: invalidations", "contiguous: unmap a page: inv")


def row(name, unit, value, goal=None):
    """One row of the JSON file."""
    return {"name": name, "unit": unit, "value": value, "goal": goal}


def number(value):
    """A cell; None is a dash."""
    return "-" if value is None else f"{value:,}"


def exits(monocle):
    """(rows, table): ticks of one exit of each kind, seen by the guest."""
    result = rigs.boot(rig="bochs", memory=64, kernel=GUEST, append="bench",
                       monocle=monocle)
    if result.status != 0:
        raise SystemExit(result.report())
    found = re.findall(r"^bench: (.+) (\d+)$", result.serial, re.MULTILINE)
    rows = [row(f"exit cost: {name}", "ticks", int(value), GOALS.get(name))
            for name, value in found]
    return rows, [["one exit", "ticks", "goal", "others"], *(
        [name, value, number(GOALS.get(name)), OTHERS.get(name, "-")]
        for name, value in found)]


def linux(monocle):
    """(rows, table): Debian's kernel, first instruction to shell."""
    result = rigs.boot(rig="bochs", append="demo.run='monoclectl stats'",
                       monocle=monocle)
    total = TOTAL.search(result.serial)
    if result.status != 0 or not total:
        raise SystemExit(result.report())
    count, spent, ticks = map(int, total.groups())

    def line(reason, count, spent):
        return [reason, number(count), number(spent), number(spent // count),
                f"{100 * spent / ticks:.3f} %"]
    rows = [row("Linux boot: share of ticks in Monocle", "%",
                round(100 * spent / ticks, 3), SHARE_GOAL),
            row("Linux boot: exits", "exits", count),
            row("Linux boot: ticks", "ticks", ticks)]
    return rows, [
        ["exits of Linux's boot", "count", "ticks", "each", "share"],
        *(line(reason, int(number), int(cost)) for reason, number, cost, _
          in REASON.findall(result.serial)),
        line(f"all; goal {SHARE_GOAL} %", count, spent)]


def vtd():
    """(rows, table): the IOMMU driver."""
    rows = vtd_bench.rows()
    return rows, plain(rows)


def plain(rows):
    """A table of rows."""
    return [["measured", "value", "unit", "goal"], *(
        [r["name"], number(r["value"]), r["unit"], number(r["goal"])]
        for r in rows)]


def text(table):
    """A table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*table)]
    return "\n".join("  ".join(
        cell.rjust(width) if n else cell.ljust(width)
        for n, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in table) + "\n"


def main():
    """Measure; the status says whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--monocle", help="instead of build/monocle.elf; "
                        "nothing is written down")
    args = parser.parse_args()
    rows, tables = [], []
    for measure in (lambda: exits(args.monocle), lambda: linux(args.monocle),
                    vtd):
        more, table = measure()
        print(text(table), flush=True)
        rows += more
        tables.append(table)
    if not args.monocle:
        ROWS.write_text(json.dumps(rows, indent=1) + "\n")
        marked.write(DOCS, COMMAND, tables)
        marked.write(README, COMMAND, [plain([r for r in rows if any(
            words in r["name"] for words in CHOSEN)])])
    missed = [r for r in rows if None not in (r["value"], r["goal"]) and
              r["value"] > r["goal"]]
    for r in missed:
        print(f"missed: {r['name']}: {r['value']} {r['unit']}, "
              f"goal {r['goal']}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
