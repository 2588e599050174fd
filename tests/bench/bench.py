#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Measure Monocle, print the tables, and write them down: `make bench`.

    make bench PARTS="exits vtd"    these alone

On Bochs a tick is an instruction. What a guest sees is measured by the same
guest on Linux's KVM, on the same Bochs (tests/guests/linux/kvm.c); the IOMMU
driver by itself (vtd_bench.py). Rows of name, unit, value, goal (at most) and
KVM's value go to build/bench.json, tables into docs/bench.md and README.md,
between their marks. The status is 1 where a goal is missed for no known reason.
"""
import argparse
import functools
import json
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import rigs  # noqa: E402
from bench import firmware, marked, start, vtd_bench  # noqa: E402
from fleet import judge  # noqa: E402
from rigs import nested as nested_rig  # noqa: E402
from rigs.spec import BUILD, REPOSITORY, Spec  # noqa: E402

GUEST = BUILD / "guests" / "guest.elf"
BESIDE = BUILD / "guest" / "initrd-kvm.img"
ROWS = BUILD / "bench.json"
DOCS = REPOSITORY / "docs" / "bench.md"
README = REPOSITORY / "README.md"
COMMAND = "make bench"
EXIT = "exit cost: "
LATENCY = "latency: "
NESTED = "nested latency: "
TWO = "two CPUs: "
FIRMWARE = "firmware: "
KEPT = "memory kept, of 4 GiB, for units with 2 MiB pages"
OTHERS = "a second of an idle guest: other exits"
FORKS = TWO + "50 forks and pipes on each: "
GOALS = {
    "cpuid": 165, "port that nobody has": 270, "rdmsr": 195, "vmcall": 165,
    "mov cr8": 10, "LAPIC register by MMIO, eight instructions in turn": 600,
    "IOAPIC register (two exits)": 1100, "x2APIC EOI": 200,
    "x2APIC self-IPI, handler, EOI": 1000}
COUNTED = ("VMREADs", "VMWRITEs", "MSRs", "lines of struct vcpu",
           "lines of struct vm", "other lines")
COUNT_GOALS = {"cpuid: VMREADs": 5, "cpuid: VMWRITEs": 1}
COUNTS = "tests/unit/test_vcpu.py::test_cost_of_an_exit"
SHARE_GOAL = 0.45
VIOLATION_GOAL = 700
START_GOAL = 3_000_000
KEPT_GOAL = 6
FLEET = REPOSITORY / "tests" / "fleet" / "machines" / "nine.fleet"
STARTS = {"clock": "the clock's calibration",
          "clear": "the guest's memory is cleared, 512 MiB",
          "load": "the guest's copy"}
IDLE = 10       # seconds
TIMERS = ("preemption timer", "WRMSR", "interrupt window")
# Bochs's only device that needs no IOMMU to be assigned, and its pin there.
LINE = 11
DEVICE = f"iommu=off unsafe-dma ram=identity assign=00:03.0,gsi={LINE}"
BY_KVM = ("bench", "latency")
SEABIOS = ("SeaBIOS from its start to behind its last line",
           "the same, without port 0x402 on KVM")
# Why a row is more than its goal.
REASONS = {
    "Linux boot: share of ticks in Monocle": "0.14 of it is one loop on "
    "port 0x61, which is 10 ms by the clock: cheaper exits make more of them",
}
TOTAL = re.compile(r"(\d+) exits, (\d+) of (\d+) ticks in Monocle")
REASON = re.compile(r"^(\w[\w /]*?) +(\d+) +(\d+) +(\d+)$", re.MULTILINE)
# The rows of README's table, by their beginnings.
CHOSEN = re.compile(
    rf"{EXIT}|{LATENCY}.*: (median|most)|{TWO}IPI|start: hand-over|memory kept|"
    "a second of|Linux boot: share|firmware: SeaBIOS|"
    "VT-d: .*(: tables|contiguous: map: inv|contiguous: unmap a page: inv)")


def row(name, unit, value, goal=None, kvm=None):
    """One row of the JSON file."""
    return {"name": name, "unit": unit, "value": value, "goal": goal,
            "kvm": kvm}


def number(value):
    """A cell; None is a dash."""
    return "-" if value is None else f"{value:,}"


def ratio(value, kvm):
    """Another cell: KVM's by Monocle's."""
    return "-" if None in (value, kvm) else f"{kvm / max(value, 1):.1f}"


def boot(**fields):
    """A boot on Bochs that ends well; its Result."""
    result = rigs.boot(rig="bochs", timeout=1200, **fields)
    if result.status != 0:
        raise SystemExit(result.report())
    return result


def told(result):
    """{what: number}, by the tiny guest."""
    return {name: int(value) for name, value in re.findall(
        r"^bench: (.+) (\d+)$", result.serial, re.MULTILINE)}


def on_monocle(words, monocle, **fields):
    """What the tiny guest tells there."""
    return told(boot(memory=64, kernel=GUEST, append=words, monocle=monocle,
                     **fields))


@functools.cache
def on_kvm(*words, cpus=1):
    """... on KVM, on a Debian without Monocle; each words for a guest."""
    script = "; ".join(["modprobe kvm_intel", *(
        f"kvm {cpus} /bin/guest.elf {line}" for line in words)])
    return told(boot(native=True, cpus=cpus, initrd=BESIDE,
                     append=f"demo.run='{script}'"))


def counts(_):
    """(rows, table): what an exit reads and writes in the VMCS, of MSRs, and
    of the cache: the loop, built for the host."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", COUNTS], cwd=REPOSITORY,
        check=True, capture_output=True, text=True)
    found = {name: numbers.split() for name, numbers in
             re.findall(r"cost of (.+): ([\d ]+)$", done.stdout, re.MULTILINE)}
    rows = [row(f"count: {name}: {what}", what, int(n),
                COUNT_GOALS.get(f"{name}: {what}"))
            for name, numbers in found.items()
            for what, n in zip(COUNTED, numbers)]
    return rows, [["one exit", *COUNTED],
                  *([name, *numbers] for name, numbers in found.items())]


def exits(monocle):
    """(rows, table): ticks of one exit of each kind, seen by the guest."""
    kvm = on_kvm(*BY_KVM)
    rows = [row(EXIT + name, "ticks", value, GOALS.get(name), kvm.get(name))
            for name, value in on_monocle("bench", monocle).items()]
    return rows, beside(rows)


def linux(monocle):
    """(rows, table): Debian's kernel, first instruction to shell."""
    result = boot(append="demo.run='monoclectl stats'", monocle=monocle)
    total = TOTAL.search(result.serial)
    if not total:
        raise SystemExit(result.report())
    count, spent, ticks = map(int, total.groups())

    def line(reason, count, spent):
        return [reason, number(count), number(spent), number(spent // count),
                f"{100 * spent / ticks:.3f} %"]
    found = {reason: (int(n), int(cost)) for reason, n, cost, _ in
             REASON.findall(result.serial)}
    violations, cost = found["EPT violation"]
    rows = [row("Linux boot: share of ticks in Monocle", "%",
                round(100 * spent / ticks, 3), SHARE_GOAL),
            row("Linux boot: mean EPT violation", "ticks", cost // violations,
                VIOLATION_GOAL),
            row("Linux boot: exits", "exits", count),
            row("Linux boot: ticks", "ticks", ticks)]
    return rows, [
        ["exits of Linux's boot", "count", "ticks", "each", "share"],
        *(line(reason, *numbers) for reason, numbers in found.items()),
        line(f"all; goal {SHARE_GOAL} %", count, spent)]


def latency(monocle):
    """(rows, table): ticks from an event to its handler."""
    places = {"native": told(boot(memory=64, kernel=GUEST, native=True,
                                  append=f"latency pin={LINE}")),
              "Monocle": on_monocle("latency", monocle, hv=DEVICE),
              "KVM": on_kvm(*BY_KVM)}
    native, here, kvm = places.values()
    rows = [row(LATENCY + name, "ticks", value, kvm=kvm.get(name))
            for name, value in here.items()]
    return rows, [["ticks from an event to its handler", *places],
                  *([name, *(number(found.get(name))
                             for found in places.values())]
                    for name in native)]


def nested_specs(monocle):
    """Monocle on KVM, and there its guest alone, with QEMU's edu."""
    same = {"rig": "nested", "memory": 64, "kernel": str(GUEST),
            "append": "latency-msi", "timeout": 60}
    return (Spec(hv="assign=00:05.0", monocle=monocle, **same),
            Spec(native=True, **same))


def nested(monocle):
    """(rows, table): ticks from a device's access to its message's handler."""
    done = nested_rig.run(nested_specs(monocle))
    for result in done:
        if result.status != 0:
            raise SystemExit(result.report())
    here, alone = map(told, done)
    rows = [row(NESTED + name, "ticks", value, kvm=alone.get(name))
            for name, value in here.items()]
    return rows, [["ticks, nested", "guest on KVM", "on Monocle on KVM"],
                  *([name, number(alone.get(name)), number(value)]
                    for name, value in here.items())]


def idle(monocle):
    """{reason: exits} in a second of a Linux that sleeps: of a long sleep
    what a short one has is taken off, and so are the programs around it."""
    long = 1 + IDLE
    result = boot(monocle=monocle, append=(
        f"demo.run='cd /tmp; for n in 1 1 {long}; do monoclectl stats >a$n; "
        "sleep $n; monoclectl stats >b$n; done; "
        f"cat a1 b1 a{long} b{long}'"))
    counts = [{reason: int(n) for reason, n, _, _ in REASON.findall(text)}
              for text in re.split(r"\d+ exits, .*\n", result.serial)[1:]]
    return {reason: sum(sign * count.get(reason, 0) for sign, count in
                        zip((1, -1, -1, 1), counts)) / IDLE
            for reason in counts[-1]}


def memory_kept():
    """MiB, of a machine of the fleet that has 4 GiB: nobody's yet at the
    start, and not given to the guest."""
    run = judge.Run(FLEET, "igd assign=all")
    try:
        free, given = run.free_and_given()
    finally:
        run.close()
    return free - given


def begin(monocle):
    """(rows, table): Monocle's own start, the memory it keeps, a second in
    which a guest does nothing."""
    spent = start.ticks(monocle)
    rest = spent.pop("all") - sum(spent.values())
    exits_of = idle(monocle)
    own = sum(exits_of.get(reason, 0) for reason in TIMERS)
    rows = [row("start: hand-over to the guest, less clock, clearing and copy",
                "ticks", rest, START_GOAL),
            *(row(f"start: {STARTS[part]}", "ticks", ticks)
              for part, ticks in spent.items()),
            row(KEPT, "MiB", memory_kept(), KEPT_GOAL),
            row("a second of an idle guest: exits for its timers", "exits",
                round(own, 1)),
            row(OTHERS, "exits", round(sum(exits_of.values()) - own, 1), 0)]
    return rows, plain(rows)


def forks(monocle):
    """Rows of a Linux with two CPUs, on each of which a shell forks and
    pipes 50 times; what was before is taken off."""
    result = boot(monocle=monocle, cpus=2, append=(
        "demo.run='cd /tmp; monoclectl stats >a; for c in 0 1; do (for n in "
        "$(seq 50); do echo $n | cat >/dev/null; done) & done; wait; "
        "monoclectl stats >b; cat a b'"))
    counts = [int(n) for n in re.findall(
        r"^(?:lock:|CPU 0x\w+) +(\d+)", result.serial, re.MULTILINE)]
    half = len(counts) // 2
    spins, *each = (after - before for before, after in
                    zip(counts[:half], counts[half:]))
    longest = re.findall(r"held for (\d+)", result.serial)[-1]
    return [
        *(row(f"{FORKS}exits of CPU {n}", "exits", count)
          for n, count in enumerate(each)),
        row(f"{FORKS}spins at the devices' lock", "PAUSEs", spins),
        row(f"{TWO}longest hold of that lock, since the start", "ticks",
            int(longest))]


def smp(monocle):
    """(rows, table): the same with two CPUs, and what they send each other."""
    kvm = on_kvm("bench", "storm-echo", cpus=2)
    here = on_monocle("bench", monocle, cpus=2)
    rows = [row(TWO + EXIT + name, "ticks", value, GOALS.get(name),
                kvm.get(name)) for name, value in here.items()]
    rows += [row(f"{TWO}{name}", "ticks", value, kvm=kvm.get(name))
             for name, value in on_monocle("storm-echo", monocle,
                                           cpus=2).items()]
    rows += forks(monocle)
    return rows, beside(rows)


def seabios(monocle):
    """(rows, table): SeaBIOS, without a disk."""
    here = firmware.on_monocle(monocle)
    rows = [row(FIRMWARE + name, "ticks", here, kvm=kvm)
            for name, kvm in zip(SEABIOS, firmware.on_kvm())]
    return rows, beside(rows)


def vtd(_):
    """(rows, table): the IOMMU driver."""
    rows = [{**found, "kvm": None} for found in vtd_bench.rows()]
    return rows, plain(rows)


def plain(rows):
    """A table of rows."""
    return [["measured", "value", "unit", "goal"], *(
        [r["name"], number(r["value"]), r["unit"], number(r["goal"])]
        for r in rows)]


def beside(rows):
    """A table of rows, with KVM's."""
    return [["measured", "Monocle", "KVM", "KVM / Monocle", "unit", "goal"], *(
        [r["name"], number(r["value"]), number(r["kvm"]),
         ratio(r["value"], r["kvm"]), r["unit"], number(r["goal"])]
        for r in rows)]


def text(table):
    """A table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*table)]
    return "\n".join("  ".join(
        cell.rjust(width) if n else cell.ljust(width)
        for n, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in table) + "\n"


PARTS = {"exits": exits, "counts": counts, "latency": latency, "nested": nested,
         "start": begin, "smp": smp, "linux": linux, "firmware": seabios,
         "vtd": vtd}


def place(part):
    """The mark of its table in docs/bench.md."""
    return f"{COMMAND}, {part}"


def reason_of(r):
    """Why that row is more than its goal, or None."""
    return REASONS.get(r["name"].split(EXIT)[-1])


def is_missed(r):
    """Whether the value is more than the goal."""
    return None not in (r["value"], r["goal"]) and r["value"] > r["goal"]


def write_down(part, rows, table):
    """Put a part into its places; what others have measured stays."""
    old = json.loads(ROWS.read_text()) if ROWS.exists() else []
    all_rows = [r for name in PARTS for r in (
        [{**r, "part": part} for r in rows] if name == part else
        [r for r in old if r.get("part") == name])]
    ROWS.write_text(json.dumps(all_rows, indent=1) + "\n")
    missed = [r for r in rows if is_missed(r)]
    marked.write(DOCS, place(part), [table] + [[
        ["more than its goal", "why"],
        *([r["name"], reason_of(r) or "?"] for r in missed)]] * bool(missed))
    if {r["part"] for r in all_rows} == set(PARTS):
        marked.write(README, COMMAND, [beside(
            [r for r in all_rows if CHOSEN.match(r["name"])])])


def main():
    """Measure; the status says whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--monocle", help="instead of build/monocle.elf; "
                        "nothing is written down")
    parser.add_argument("parts", nargs="*", metavar="PART",
                        help=f"of {', '.join(PARTS)}; all")
    args = parser.parse_args()
    missed = []
    for part in args.parts or PARTS:
        started = time.monotonic()
        rows, table = PARTS[part](args.monocle)
        print(text(table), flush=True)
        print(f"{part}: {time.monotonic() - started:.0f} s\n", flush=True)
        missed += filter(is_missed, rows)
        if not args.monocle:
            write_down(part, rows, table)
    for r in missed:
        print(f"missed: {r['name']}: {r['value']} {r['unit']}, goal "
              f"{r['goal']}: {reason_of(r) or 'why?'}")
    return 0 if all(map(reason_of, missed)) else 1


if __name__ == "__main__":
    sys.exit(main())
