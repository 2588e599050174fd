#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Monocle's start over machines on paper: `make fleet`.

A row for each machine, then what differs from NAME.expect beside its file,
and what does not hold; as last line the sums. Status 1 where something
differs.
"""
import argparse
import concurrent.futures
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from bench import marked  # noqa: E402
from fleet import expect, judge, paper  # noqa: E402

OWN = pathlib.Path(__file__).resolve().parent / "machines"
SHARED = judge.ROOT.parent / "shared" / "fleet" / "machines"
MIB = 1 << 20
README = judge.ROOT / "README.md"
COMMAND = "make fleet-table"
HV = "igd assign=all"
NAMES = {"gfx": "displays", "usb": "USB", "sound": "sound", "disk": "disks",
         "net": "network", "sd": "SD", "heci": "Intel's HECI"}


def directories():
    """The tree's own machines, and others where they are."""
    return [d for d in (OWN, SHARED) if d.is_dir()]


def run(paths, words):
    """A Row for each file, in their order."""
    with concurrent.futures.ProcessPoolExecutor() as pool:
        return list(pool.map(judge.judge, paths, [words] * len(paths)))


def counts(row):
    """"gfx 1/1 usb 2/2 ...": given, of those that are there."""
    out = []
    for kind in paper.KINDS:
        there = [bdf for bdf, k in row.there.items() if k == kind]
        if there:
            given = [bdf for bdf in there if bdf in row.given]
            out.append(f"{kind} {len(given)}/{len(there)}")
    other = [bdf for bdf in row.given if bdf not in row.there]
    return " ".join(out + [f"other {len(other)}"] * bool(other))


def line(row, width):
    memory = f"{row.memory // MIB}/{row.machine.ram() // MIB} MiB"
    return f"{row.name:{width}}  {row.outcome}; {counts(row)}; {memory}; " \
        f"list: {row.listed or 'nothing'}"


def report(rows, words, update=False, say=print):
    """The table; returns whether all is as expected."""
    width = max((len(row.name) for row in rows), default=0)
    differs = []
    for row in rows:
        say(line(row, width))
        if update:
            expect.write(row, words)
        differs += [f"{row.name}: {text}" for text in
                    [*row.faults, *expect.differences(row, words)]]
    for text in differs:
        say(text)
    say(f"fleet: {len(rows)} machines, {sum(r.starts for r in rows)} start, "
        f"{sum(r.has_all() for r in rows)} with all that they have, "
        f"{sum(r.refused for r in rows)} refused")
    return not differs


def table(rows):
    """README's: of the machines, and of the functions in those that start."""
    begun = [row for row in rows if row.starts]

    def line(kind):
        there = [bdf in row.given for row in begun
                 for bdf, k in row.there.items() if k == kind]
        return [NAMES[kind], str(len(there)), str(sum(there))]
    return [["`igd assign=all` on the tree's machines", "there", "given"],
            ["machines that start", str(len(rows)), str(len(begun))],
            ["machines with all that they have", str(len(rows)),
             str(sum(row.has_all() for row in rows))],
            *map(line, paper.KINDS)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hv", default=HV,
                        help="Monocle's command line")
    parser.add_argument("--update", action="store_true",
                        help="write what came of it as what is expected")
    parser.add_argument("--log", action="store_true",
                        help="print each start's log, and judge nothing")
    parser.add_argument("--readme", action="store_true",
                        help="write README's table of the tree's machines")
    parser.add_argument("where", nargs="*", type=pathlib.Path,
                        help="directories of machines, or files")
    args = parser.parse_args()
    if args.readme:
        marked.write(README, COMMAND, [table(run(paper.files(OWN), HV))])
        return
    paths = [path for where in args.where or directories() for path in
             (paper.files(where) if where.is_dir() else [where])]
    if not paths:
        sys.exit("no machine: *.fleet")
    if args.log:
        for path in paths:
            start = judge.Run(path, args.hv)
            print(start.output + start.complaint)
        return
    good = report(run(paths, args.hv), args.hv, args.update)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
