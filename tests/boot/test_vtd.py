# SPDX-License-Identifier: MIT
"""The IOMMU driver against QEMU's: build/selftest.elf on the tcg rig, the walk
over the tables in memory meanwhile, and the tables that firmware gets wrong."""

import functools
import itertools
import re
import struct

import pytest

import rigs
from boot import runs
from boot.dmar_tables import (AHCI, ALL, ECAM, EDU, UNIT, VGA, dmar, rmrr,
                              scope, structure, unit_at, with_table)
from rigs.spec import BUILD
from walker import TableError, boot as walk, parse_regions, vtd

PAGE = 4096
SELFTEST = BUILD / "selftest.elf"

BEFORE = ["preparation", "write before it is assigned"]
TRANSFERS = ["page to page", "across pages", "from across pages",
             "page to 2 MiB page", "2 MiB page to page", "across 2 MiB pages",
             "from across 2 MiB pages", "2 MiB page into page"]
REFUSALS = ["write to nothing", "read from nothing",
            "write to a read-only page", "read from a write-only page",
            "write to a host address", "write to Monocle's tables",
            "read of Monocle's tables", "write beyond the width"]
CHANGES = ["read-only page to write-only page", "use before unmap",
           "write after unmap", "read after unmap", "page mapped anew",
           "rest of a split page", "fault event"]
REMAPPED = ["remapped MSI", "MSI by another's entry",
            "MSI by an absent entry", "MSI beyond the table", "changed entry"]
PLAIN = ["MSI without remapping"]
AFTER = ["1 GiB page", "dma-faults=1 stops the device", "release",
         "write after release"]
# What is wrong, what to do, what follows: one line or two
NO_UNIT = re.compile(r"no DMAR table[;:] switch VT-d on in the firmware's setup"
                     r"[\s\S]*nothing is assigned that does DMA")
# The tables are complete, and stay as they are for 30 transfers of 100 ms.
STEADY = f"selftest vtd: {TRANSFERS[0]}: ok"


def cases(remapping):
    """Every case of the selftest, in order."""
    return (BEFORE + TRANSFERS + REFUSALS + CHANGES +
            (REMAPPED if remapping else PLAIN) + AFTER)


def start(sweep=False, **fields):
    """A tcg machine with the selftest and no guest."""
    if sweep:       # any module asks for it
        fields["modules"] = ((SELFTEST, "sweep"),)
    fields = {"memory": 256, "timeout": 200, **fields}
    return rigs.start(rig="tcg", module=False, monocle=SELFTEST, **fields)


def run(**fields):
    """As start(), to the end."""
    with start(**fields) as machine:
        return machine.finish()


def pooled(table):
    """Decorator: the test is made among the shared runs, once for each row
    of {id: arguments}; what it raises is raised there."""
    def decorate(test):
        params = []
        for key, arguments in table.items():
            name = f"{test.__name__}[{key}]"
            runs.define(name)(functools.partial(test, *arguments))
            params.append(pytest.param(name, id=key,
                                       marks=pytest.mark.runs(name)))

        @pytest.mark.parametrize("name", params)
        def collected(run, name):
            run(name)
        collected.__doc__ = test.__doc__
        return collected
    return decorate


ONCE = pooled({"tcg": ()})


def passed(result):
    """The names of the selftest's cases, all of which are ok."""
    assert "FAILED" not in result.log, result.report()
    assert (result.status, result.text) == (0, "selftest passed"), \
        result.report()
    return re.findall(r"selftest vtd: (.*): ok$", result.log, re.MULTILINE)


def faults(log):
    """[(number, requester, class, what, address, reason, code)]"""
    return [(int(n), who, kind, what, int(address, 16), reason, int(code, 16))
            for n, who, kind, what, address, reason, code in re.findall(
                r"VT-d: fault (\d+) of (\S+) class (\w+): (\w+) 0x(\w+): "
                r"(.*) \(reason 0x(\w+)\)", log)]


def expected_faults(log):
    """The first eight, by what the selftest does."""
    host = next(r.hpa for r in parse_regions(log) if r.gpa == 0x400200000)
    root = int(re.search(r"root table 0x(\w+)", log)[1], 16)
    absent = ("root entry not present", 1)
    no_write, no_read = ("no right to write", 5), ("no right to read", 6)
    rows = [("read", 0x3c0000000, absent), ("write", 0x3c0001000, absent),
            ("write", 0x480000000, no_write), ("read", 0x480000000, no_read),
            ("write", 0x440000000, no_write), ("read", 0x440001000, no_read),
            ("write", host, no_write), ("write", root, no_write)]
    return [(n, "00:05.0", "00ff", what, address, *reason)
            for n, (what, address, reason) in enumerate(rows, 1)]


# -- the selftest

def must_be_found(still, found):
    """Errors in the tables of the machine at hand are not overlooked."""
    context = found.contexts[EDU]
    image = min(page for page, what in found.own.items() if what == "image")
    for gpa, change, text in (
            (0x440000000, lambda e: e | 2, "differ"),
            (0x3c0001000, lambda e: 0, "differ"),
            (0x3c0001000, lambda e: e + PAGE, "differ"),
            (0x3c0001000, lambda e: image | 3, "differ"),
            (0x3c0001000, lambda e: e | 1 << 11, "reserved"),
            (0x400000000, lambda e: e | 0x1000, "reserved")):
        where = still.leaf_of(context.table, context.levels, gpa)
        with pytest.raises((AssertionError, TableError), match=text):
            walk.check(still.changed(where, change))


def walk_tables(machine, levels, remapping):
    """What is in memory while the selftest runs."""
    machine.wait_for(STEADY, 120, stream="log")
    with walk.frozen(machine) as still:
        found = walk.check(still)
        unit, = walk.units(still)
        must_be_found(still, found)
    assert list(found.contexts) == [EDU]
    assert found.contexts[EDU].levels == levels
    wanted = walk.TES | walk.QIES | (walk.IRES if remapping else 0)
    assert unit.status & (wanted | walk.IRES | walk.CFIS) == wanted
    kinds = set(found.own.values())
    assert {"image", "stack", "a CPU's tables", "tables",
            "invalidation queue"} <= kinds
    assert ("interrupt table" in kinds) == remapping


MATRIX = {f"{width}-caching-{caching}-intremap-{remapping}":
          (width, caching, remapping)
          for width, caching, remapping in itertools.product(
              (39, 48), ("off", "on"), ("off", "on"))}


@pooled(MATRIX)
def test_selftest(width, caching, remapping):
    with start(iommu=f"aw-bits={width},caching-mode={caching},"
                     f"intremap={remapping}") as machine:
        walk_tables(machine, (width - 12) // 9, remapping == "on")
        result = machine.finish()
    assert passed(result) == cases(remapping == "on"), result.report()
    assert faults(result.log)[:8] == expected_faults(result.log)
    log = result.log
    assert f": {(width - 12) // 9}-level tables, {width} bits," in log
    assert ("caching mode;" in log) == (caching == "on")
    assert ("no interrupt remapping" in log) == (remapping == "off")
    if remapping == "on":   # in QEMU's own words
        assert all(text in result.console for text in (
            "invalid IRTE SID", "detected non-present IRTE",
            "index too large"))


@ONCE
def test_selftest_with_uefi():
    result = run(firmware="uefi")
    assert passed(result) == cases(True), result.report()


@ONCE
def test_dma_faults_option_stops_a_device():
    """The limit is met in the middle of the selftest, whose later cases then
    miss the device's bus mastering."""
    with start(hv="dma-faults=3") as machine:
        machine.wait_for("read from nothing: FAILED: no fault", 120,
                         stream="log")
        lines = machine.text("log").splitlines()
    stop = "VT-d: 00:05.0: bus mastering off after 3 faults (dma-faults=N)"
    at = next(i for i, line in enumerate(lines) if stop in line)
    assert "fault 3 of 00:05.0" in lines[at - 1]
    assert "across 2 MiB pages: ok" in "".join(lines[:at])


# -- the sweep, and interrupt entries on the way

def config(machine, bdf, at, size):
    """Configuration space as it is."""
    return int.from_bytes(machine.memory(ECAM + (bdf << 12) + at, size),
                          "little")


def sweeping(machine):
    """Runs to where the sweep has set up its interrupt: (Still, Unit, {index:
    Interrupt}) of the machine, which stands still until the next call."""
    machine.wait_for("selftest vtd: preparation: ok", 60, stream="log")
    machine.wait_for(f"selftest vtd: {AFTER[-1]}: ok", 120, stream="log")
    begin = machine.wait_for("failed\n", 60, stream="log")
    machine.wait_for("region 440001000", 60, stream="log", after=begin)
    for _ in range(200):
        with walk.frozen(machine) as still:
            unit, = walk.units(still)
            entries = unit.interrupts(still)
            if entries:
                yield still, unit, entries
                return
    raise AssertionError("no interrupt entry is set")


@ONCE
def test_entry_of_a_remapped_interrupt():
    """The message that edu is told to send names an entry, as the hardware
    reads both, and the entry lets edu alone through."""
    with start(sweep=True) as machine:
        for still, unit, entries in sweeping(machine):
            walk.check(still)
            cap = config(machine, EDU, 0x34, 1)
            while config(machine, EDU, cap, 1) != 5:    # MSI
                cap = config(machine, EDU, cap + 1, 1)
            address = config(machine, EDU, cap + 4, 8)
            data = config(machine, EDU, cap + 12, 2)
    (index, entry), = entries.items()
    # VT-d 5.1.2.2
    assert address >> 20 == 0xfee and address >> 4 & 1, "not remappable"
    assert (address >> 5 & 0x7fff | (address >> 2 & 1) << 15) + \
        (data if address >> 3 & 1 else 0) == index
    assert (entry.source, entry.check) == (EDU, 1)
    assert (entry.destination, entry.level, entry.mode) == (0, False, 0)
    assert 0x20 <= entry.vector <= 0xfe
    assert unit.status & (walk.IRES | walk.CFIS) == walk.IRES


@pytest.mark.long
@ONCE
def test_sweep_over_all_memory():
    """DMA to every page of memory: what differs afterwards is Monocle's own
    and the domain's. QEMU's clock leaps over what the device takes, at 32 ns
    an instruction."""
    size = 256 << 20
    with start(sweep=True, memory=256, timeout=1500,
               qemu=("-icount", "shift=5,sleep=off", "-no-shutdown")) \
            as machine:
        for still, _, _ in sweeping(machine):
            own = set(walk.check(still).own)
            before = machine.memory(0, size)
            regions = parse_regions(still.log)
        machine.wait_for("monocle: end:", 1500, stream="log")
        after = machine.memory(0, size)
        result = machine.finish()
    passed(result)
    swept = sum(int(n) for n in re.findall(
        r"selftest vtd: DMA to (\d+) pages, 0 failed", result.log))
    assert swept >= 0.95 * size / PAGE
    own.update(page for r in regions
               for page in range(r.hpa, r.hpa + r.end - r.gpa, PAGE))
    changed = {at for at in range(0, size, PAGE)
               if before[at:at + PAGE] != after[at:at + PAGE]}
    assert changed and not changed - own


# -- the options

@ONCE
def test_iommu_off_has_nothing_to_test():
    result = run(hv="iommu=off")
    assert (result.status, result.text) == (4, "refused")
    assert "error: selftest: there is no IOMMU to test" in result.log
    assert "iommu=off: nothing is assigned that does DMA" in result.log


@ONCE
def test_no_dmar_table_is_said():
    result = run(grub=("acpi --exclude=DMAR",))
    assert result.status == 4
    assert NO_UNIT.search(result.log), result.report()


@pooled({"bochs": ()})
def test_without_a_unit_the_guest_starts():
    """Bochs has none."""
    result = runs.boot("exit status=0")
    assert NO_UNIT.search(result.log), result.report()
    assert "monocle: the guest starts" in result.log, result.report()


# -- DMAR tables of our own


@ONCE
def test_structures_of_all_kinds():
    """INCLUDE_PCI_ALL, and what Monocle skips; an RMRR that is no range; one
    of a device that is not there."""
    result = with_table("all", make=run, table=dmar(
        structure(2, bytes(4)), structure(0x1234, bytes(20)),
        ALL, rmrr(0x2000, 0x1000, scope(EDU)),
        rmrr(0x7000, 0x7fff, scope(0x98)), structure(3, bytes(16))))
    assert passed(result) == cases(True), result.report()
    assert "DMAR: unknown structure, type 4660, 24 bytes: not used" in \
        result.log
    assert len(re.findall("DMAR: .*: not used", result.log)) == 4


BAD = {
    "checksum": (lambda: bytes([*dmar(ALL)[:-1], 0x55]),
                 "DMAR at 0x\\w+ has a wrong checksum"),
    "length": (lambda: dmar(ALL)[:4] + bytes([0xff] * 4) + dmar(ALL)[8:],
               "DMAR at 0x\\w+ has a wrong length"),
    "cut": (lambda: dmar(ALL[:-3]), "structure at offset 48 cannot be"),
    "its end first": (lambda: dmar(struct.pack("<HH", 0, 0), ALL),
                      "the table names no unit"),
    "no room for a header": (lambda: dmar(ALL, b"\0\0"),
                             "structure at offset 72 cannot be"),
    "scope beyond its unit": (
        lambda: dmar(unit_at(UNIT, b"\x01\x40" + bytes(6))),
        "structure at offset 48 cannot be"),
    "no unit": (lambda: dmar(rmrr(0x7000, 0x7fff, scope(EDU))),
                "the table names no unit"),
    "same address twice": (lambda: dmar(ALL, unit_at(UNIT, scope(EDU))),
                           "structure at offset 72 repeats another"),
    "two for all": (lambda: dmar(ALL, unit_at(UNIT + PAGE, everything=True)),
                    "structure at offset 72 repeats another"),
    "not on a page": (lambda: dmar(unit_at(UNIT + 0x10, everything=True)),
                      "structure at offset 48 cannot be"),
    "at 0": (lambda: dmar(unit_at(0, everything=True)),
             "every unit of the DMAR table is switched off: switch VT-d on"),
    "nothing there": (lambda: dmar(unit_at(0xfed80000, everything=True)),
                      "unit at 0xfed80000: does not answer"),
    "width": (lambda: dmar(ALL, width=64),
              "wrong length, checksum or address width"),
}


@pooled({name.replace(" ", "-"): (name, *row) for name, row in BAD.items()})
def test_bad_table_is_refused(name, make, text):
    """One line says what is wrong; nothing hangs."""
    result = with_table(name, make(), run)
    assert (result.status, result.text) == (4, "refused"), result.report()
    assert re.search(text, result.log), result.report()
    assert "root table" not in result.log


@ONCE
def test_rmrr_of_an_assigned_function():
    """It must be in the function's domain, which says so."""
    result = with_table("assigned", make=run, table=dmar(
        ALL, rmrr(0x100000, 0x100fff, scope(EDU))))
    assert result.status == 10
    assert "VT-d: 00:05.0 needs 0x100000-0x100fff 1:1" in result.log
    assert "assign: FAILED" in result.log


@ONCE
def test_rmrr_of_the_display_stays_mapped():
    """... 1:1, and nothing else of it."""
    table = dmar(ALL, rmrr(0x4000000, 0x41fffff, scope(VGA)),
                 rmrr(0x4300000, 0x43007ff, scope(VGA)))
    with with_table("display", table, make=start) as machine:
        machine.wait_for(STEADY, 120, stream="log")
        with walk.frozen(machine) as still:
            unit, = walk.units(still)
            reach = vtd.reach(still, unit.root, unit.width, unit.large)
        result = machine.finish()
    assert passed(result) == cases(True)
    assert set(reach) == {VGA, EDU}
    assert [p[:4] for p in reach[VGA]] == [
        (0x4000000, 0x4200000, 0x4000000, "rw-"),
        (0x4300000, 0x4301000, 0x4300000, "rw-")]


# -- left on by firmware

# Conventional memory that neither the firmware nor GRUB uses
ROOT, CONTEXT, TABLE, QUEUE = 0x58000, 0x59000, 0x5a000, 0x5b000
TE, SRTP, QIE, IRE, SIRTP = (1 << n for n in (31, 30, 26, 25, 24))


def left_on():
    """GRUB commands: translation with the disk's controller passed through,
    interrupt remapping, the queue."""
    entry = CONTEXT + 16 * AHCI
    words = [(ROOT, CONTEXT | 1), (ROOT + 4, 0), (ROOT + 8, 0),
             (ROOT + 12, 0), (entry, 1 | 2 << 2), (entry + 4, 0),
             (entry + 8, 0x302), (entry + 12, 0),
             (UNIT + 0x20, ROOT), (UNIT + 0x24, 0), (UNIT + 0x18, SRTP),
             (UNIT + 0xb8, TABLE | 7), (UNIT + 0xbc, 0),
             (UNIT + 0x18, SIRTP), (UNIT + 0x18, TE),
             (UNIT + 0x18, TE | IRE), (UNIT + 0x88, 0),
             (UNIT + 0x90, QUEUE), (UNIT + 0x94, 0),
             (UNIT + 0x18, TE | IRE | QIE),
             # One wait descriptor
             (QUEUE, 0x25), (QUEUE + 4, 1), (QUEUE + 8, QUEUE + PAGE),
             (QUEUE + 12, 0), (UNIT + 0x88, 0x10)]
    return [f"write_dword {at:#x} {value:#x}" for at, value in words]


def queue_left_on(*descriptors, at=QUEUE):
    """GRUB commands: the queue is on and has done these, of 128 bits each."""
    words = [(QUEUE + 4 * n, word) for n, word in enumerate(struct.unpack(
        f"<{4 * len(descriptors)}I", b"".join(
            d.to_bytes(16, "little") for d in descriptors)))]
    words += [(UNIT + 0x88, 0), (UNIT + 0x90, at), (UNIT + 0x94, 0),
              (UNIT + 0x18, QIE), (UNIT + 0x88, 16 * len(descriptors))]
    return [f"write_dword {a:#x} {value:#x}" for a, value in words]


ALL_CONTEXTS, ALL_TRANSLATIONS, UNKNOWN = 0x11, 0x12, 0xf


@pooled({"never-used": (), "no-wait": (ALL_CONTEXTS, ALL_TRANSLATIONS),
         "error": (ALL_CONTEXTS, UNKNOWN, ALL_CONTEXTS)})
def test_queue_that_was_left_on(*descriptors):
    """QEMU switches off a queue that is empty and had a wait descriptor last,
    and no other."""
    result = run(grub=queue_left_on(*descriptors))
    assert passed(result) == cases(True), result.report()
    assert "improper state when disable QI" not in result.console


@ONCE
def test_queue_that_cannot_be_switched_off():
    """It lies where no memory is, so QEMU insists: one error, a refusal."""
    result = run(grub=queue_left_on(at=0xe0000000))
    assert (result.status, result.text) == (4, "refused"), result.report()
    assert "improper state when disable QI" in result.console
    assert re.findall(r"error: (.*)", result.log)[-2:] == [
        "VT-d: unit at 0xfed90000 does not do as it is told: register 0x1c "
        "stays 0x4000000", "an IOMMU cannot be taken over; switch VT-d off "
        "in the firmware's setup, or say iommu=off"], result.log


@ONCE
def test_translation_that_was_left_on_stays_on():
    """The tables are swapped under way; each command changes one bit and
    none is against the manual. As QEMU tells it."""
    result = run(grub=left_on(), qemu=(
        "-trace", "vtd_reg_write_gcmd", "-trace", "vtd_reg_*_root"))
    assert passed(result) == cases(True), result.report()
    told = re.findall(r"vtd_reg_(?:write_gcmd status (\w+) value (\w+)|"
                      r"(\w+)_root addr (\w+))", result.console)
    roots = [int(address, 16) for *_, kind, address in told if kind == "dmar"]
    irts = [int(address, 16) for *_, kind, address in told if kind == "ir"]
    assert roots[0] == ROOT and len(roots) == 2
    assert irts[0] == TABLE and len(irts) == 2
    assert f"root table {roots[1]:#x}" in result.log
    commands = [(int(status, 16), int(value, 16))
                for status, value, kind, _ in told if not kind]
    before = commands.index((TE | SRTP | SIRTP | IRE, TE | IRE | QIE))
    ours = commands[before + 1:]
    assert ours[0][0] & (TE | IRE | QIE) == TE | IRE | QIE
    assert all(value & TE for _, value in ours), "switched off"
    for status, value in ours:
        change = (status ^ value) & ~(SRTP | SIRTP) | value & (SRTP | SIRTP)
        assert not change & (change - 1), result.console
