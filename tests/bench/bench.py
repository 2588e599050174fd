#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Measure Monocle on Bochs, where a tick is an instruction: `make bench`.

Prints tables and puts rows of name, unit, value and goal (at most; or null)
into build/bench.json, beside the rows of other benchmarks.
"""
import argparse
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import rigs  # noqa: E402
from rigs.spec import BUILD  # noqa: E402

GUEST = BUILD / "guests" / "guest.elf"
ROWS = BUILD / "bench.json"
# Measured on the same Bochs, the guest executing CPUID in a loop.
OTHERS = {"cpuid": {"KVM": 976, "BitVisor": 432}}
GOALS = {"cpuid": 250}
SHARE_GOAL = 5.0
TOTAL = re.compile(r"(\d+) exits, (\d+) of (\d+) ticks in Monocle")
REASON = re.compile(r"^(\w[\w /]*?) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)


def exits(args):
    """Ticks of one exit of each kind, seen by the guest."""
    result = rigs.boot(rig="bochs", memory=64, kernel=GUEST, append="bench",
                       monocle=args.monocle)
    if result.status != 0:
        raise SystemExit(result.report())
    print("Ticks that one exit costs the guest")
    rows = []
    for name, value in re.findall(r"^bench: (.+) (\d+)$", result.serial,
                                  re.MULTILINE):
        goal = GOALS.get(name)
        beside = [f"{who} {ticks}" for who, ticks in
                  OTHERS.get(name, {}).items()]
        if goal:
            beside.insert(0, f"goal {goal}")
        print(f"  {name:<12} {value:>6}  {', '.join(beside)}")
        rows.append({"name": f"exit cost: {name}", "unit": "ticks",
                     "value": int(value), "goal": goal})
    return rows


def linux(args):
    """Debian's kernel from its first instruction to its shell."""
    result = rigs.boot(rig="bochs", append="demo.run='monoclectl stats'",
                       monocle=args.monocle)
    total = TOTAL.search(result.serial)
    if result.status != 0 or not total:
        raise SystemExit(result.report())
    count, spent, ticks = map(int, total.groups())
    share = 100 * spent / ticks
    print("\nLinux from its first instruction to its shell")
    print(f"  {'reason':<24} {'exits':>8} {'ticks':>11} {'each':>6}"
          f" {'share':>8}")
    for reason, number, cost, each in REASON.findall(result.serial):
        print(f"  {reason:<24} {number:>8} {cost:>11} {each:>6}"
              f" {100 * int(cost) / ticks:>6.3f} %")
    print(f"  {'all':<24} {count:>8} {spent:>11} {spent // count:>6}"
          f" {share:>6.3f} %  of {ticks} ticks; goal {SHARE_GOAL} %")
    return [
        {"name": "Linux boot: share of ticks in Monocle", "unit": "%",
         "value": round(share, 3), "goal": SHARE_GOAL},
        {"name": "Linux boot: exits", "unit": "exits", "value": count,
         "goal": None},
        {"name": "Linux boot: ticks", "unit": "ticks", "value": ticks,
         "goal": None},
    ]


def save(rows, path):
    """Replace the rows of these names; keep the others."""
    kept = json.loads(path.read_text()) if path.exists() else []
    names = {row["name"] for row in rows}
    rows = [row for row in kept if row["name"] not in names] + rows
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")


def main():
    """Measure; the status says whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--monocle", help="instead of build/monocle.elf")
    parser.add_argument("--output", type=pathlib.Path, default=ROWS)
    args = parser.parse_args()
    rows = exits(args) + linux(args)
    save(rows, args.output)
    missed = [row for row in rows if row["goal"] is not None and
              row["value"] > row["goal"]]
    for row in missed:
        print(f"missed: {row['name']}: {row['value']} {row['unit']}, "
              f"goal {row['goal']}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
