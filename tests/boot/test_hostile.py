# SPDX-License-Identifier: MIT
"""Guests that do what no guest should: tests/guests/hostile.c, garbage.c.

Each gets hardware's answer, or Monocle stops it with a dump and status 3.
"""
import functools
import re

import pytest

from boot import linux, runs

# Bochs's display stops the emulator at some writes.
PATIENT = ("panic: bxvga=report",)
# The guest's devices and its card (vmm/devmodel, vmm/machine_map.c).
PORTS = {0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0x40, 0x41, 0x42, 0x43, 0x60,
         0x61, 0x64, 0x70, 0x71, 0x92, 0x1CE, 0x1CF, *range(0x3B0, 0x3BC),
         *range(0x3C0, 0x3E0), *range(0x3F8, 0x400), *range(0x600, 0x60C),
         *range(0xCF8, 0xD00)}
# Architectural MSRs that the guest's CPU has (vmm/vcpu/msr.c and its devices).
MSRS = {0x10, 0x17, 0x1B, 0x3A, 0x79, 0x8B, 0xFE, 0x174, 0x175, 0x176, 0x179,
        0x17A, 0x1A0, 0x1D9, 0x250, 0x258, 0x259, 0x277, 0x2FF, 0x6E0, 0xDA0,
        # docs/power.md: read-outs, and what is read and kept.
        0xCE, 0xE2, 0x199, 0x19B, 0x1B2, 0x1FC,
        *range(0x200, 0x210), *range(0x268, 0x270), *range(0x800, 0x840),
        *range(0xC0000080, 0xC0000085), *range(0xC0000100, 0xC0000104)}
DUMP = [r"guest: exit reason 0x\w+ \(\w[\w /]*\), qualification 0x\w+",
        r"rip [0-9a-f]{16}", r"rax [0-9a-f]{16}", r"cr0 [0-9a-f]{16}",
        r"cs   [0-9a-f]{4}", r"host rip", r"code at rip:"]
STOPPED = ["fetch-lapic", "fetch-vga", "sse-lapic"]
# What reads ones and drops writes on the bare machine, too: how that ends
# there. A fault is printed by the guest (status 99), if its stack is one.
WENT_ON, RESET, FAULT = "hostile: it went on", "hostile: reset", None
HOLES = {"fxsave-hole": WENT_ON, "ins-hole": WENT_ON, "gdt-hole": WENT_ON,
         "idt-hole": RESET, "tables-hole": RESET, "fetch-hole": FAULT,
         "call-hole": FAULT, "stack-hole": FAULT}
# Stopped as well, or carried out as a CPU does.
EITHER = ["cmpxchg-lapic"]
ANSWERED = {"init-self": "hostile: reset",
            "sipi-self": "hostile: the start-up IPI is ignored",
            "read-lapic": "hostile: all read the same"}


def is_sound(result):
    """Monocle itself is well: no trap, panic, or failed entry."""
    return not re.search(r"trap \d+ \(|panic|VM entry failed|broken",
                         result.log)


def dump_is_whole(result):
    """What a user needs to find the guest's mistake."""
    return [part for part in DUMP if not re.search(part, result.log)]


def answering(result, what):
    """The numbers in the guest's lines of runs."""
    return {n for first, last in
            re.findall(rf"^{what}: (\w+)-(\w+)$", result.serial, re.MULTILINE)
            for n in range(int(first, 16), int(last, 16) + 1)}


@runs.define("hostile-ports")
def hostile_ports():
    return runs.boot("hostile-ports", bochsrc=PATIENT)


@runs.define("hostile-msrs")
def hostile_msrs():
    return runs.boot("hostile-msrs")


@runs.define("hostile-memory")
def hostile_memory():
    return runs.boot("hostile-memory")


@runs.define("resets")
def resets():
    return runs.boot("resets")


@pytest.mark.parametrize("name", runs.each(
    ["hostile-ports", "hostile-msrs", "hostile-memory"]))
def test_sweep(run, name):
    """Every one read and written, in every size; and the guest lives on."""
    result = run(name)
    assert result.status == 0, result.report()
    assert re.search("^hostile: all .* done", result.serial, re.MULTILINE)
    assert is_sound(result), result.report()


@pytest.mark.runs("hostile-ports", "linux-bare")
def test_only_known_ports_answer(run):
    """The PM timer's are where Linux finds them without Monocle."""
    answer = answering(run("hostile-ports"), "port answers")
    timer = linux.pm_timer(run("linux-bare").answers)
    assert answer - PORTS == set(range(timer, timer + 4))
    assert {0x40, 0x61, 0x71, 0x3F8, 0x600} <= answer


@pytest.mark.runs("hostile-msrs")
def test_only_known_msrs_answer(run):
    answer = answering(run("hostile-msrs"), "MSR readable")
    assert answer - MSRS == set()
    assert {0x10, 0x1B, 0x277, 0x802, 0xC0000080} <= answer


for deed in [*STOPPED, *EITHER, *ANSWERED, *HOLES]:
    runs.define(deed)(functools.partial(runs.boot, f"hostile-one {deed}"))


@pytest.mark.parametrize("name", runs.each(STOPPED))
def test_stopped(run, name):
    result = run(name)
    assert result.status == 3, result.report()
    assert result.text == "guest stopped"
    assert dump_is_whole(result) == [], result.report()
    assert is_sound(result), result.report()


@pytest.mark.parametrize("name", runs.each(HOLES, short=("fxsave-hole", "ins-hole")))
def test_where_nothing_is(run, name):
    """Whatever the instruction, and for the CPU's own accesses."""
    result = run(name)
    assert result.status == (0 if HOLES[name] else 10), result.report()
    # The log may come in between, which goes to the same line.
    assert HOLES[name] is None or re.sub(
        "monocle: .*\n", "", result.serial).count(HOLES[name])
    assert HOLES[name] or result.text == "guest exit 99"
    assert is_sound(result), result.report()


@pytest.mark.parametrize("name", runs.each(EITHER))
def test_stopped_or_done(run, name):
    result = run(name)
    assert result.status in (0, 3), result.report()
    assert result.status == 0 or dump_is_whole(result) == []
    assert is_sound(result), result.report()


@pytest.mark.parametrize("name", runs.each(ANSWERED))
def test_answered(run, name):
    result = run(name)
    assert result.status == 0, result.report()
    assert ANSWERED[name] in result.serial


@pytest.mark.runs("resets")
def test_every_way_to_reset(run):
    """Six ways; each time the guest finds its data and devices as new."""
    result = run("resets")
    assert result.status == 0, result.report()
    assert "resets: 6\n" in result.serial
    assert result.log.count("monocle: guest: reset (") == 6
    assert "guests/hostile.c" not in result.serial


def execute(first, count):
    """Random code until `count` runs are made; returns the results.

    A boot ends where Monocle stops the guest, and where the code happens to
    write to the debug exit port.
    """
    results, at = [], first
    while at < first + count:
        result = runs.boot(f"hostile-garbage start={at} "
                           f"runs={first + count - at}")
        results.append(result)
        assert result.status in (0, 3, 10), result.report()
        assert is_sound(result), result.report()
        if "hostile: all garbage done" in result.serial:
            assert result.status == 0, result.report()
            break
        if result.status == 3:
            assert dump_is_whole(result) == [], result.report()
        made = [int(n) for n in re.findall(r"^run (\d+)", result.serial,
                                           re.MULTILINE)]
        assert made, result.report()
        at = made[-1] + 16
    return results


@runs.define("garbage")
def garbage():
    return execute(0, 6000)


@pytest.mark.runs("garbage")
def test_garbage(run):
    """Random bytes in ring 0, thousands of times."""
    results = run("garbage")
    assert len(results) < 20
    exits = {name for result in results for name in
             re.findall(r"^monocle: stats: (\w[\w /]*?)  ", result.log,
                        re.MULTILINE)}
    assert {"CPUID", "I/O", "RDMSR", "WRMSR", "control register", "HLT",
            "VMREAD", "INVD", "RDPMC"} <= exits


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_much_garbage(part):
    execute(100000 * (part + 1), 20000)
