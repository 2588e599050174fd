# SPDX-License-Identifier: MIT
"""Machines on paper (make fleet): each of them comes out as is expected, and
what is wrong with a start does not escape the judge."""
import collections
import os
import re
import shutil
import struct
import subprocess

import pytest

from bench import marked
from fleet import expect, fleet, judge, make_machines, paper
from walker import boot as walk, ept, vtd

HV = "igd assign=all"
PAGE = 4096
CASES = fleet.SHARED.parent / "cases"
BROADWELL = "igd-dma=direct ram=identity"


@pytest.fixture(scope="session", autouse=True)
def _built():
    env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    subprocess.run(["make", "-s", judge.PROGRAM.relative_to(judge.ROOT)],
                   cwd=judge.ROOT, env=env, check=True)


def own(name):
    return fleet.OWN / f"{name}.fleet"


# -- firmware as the guest

def firmwares_tables(run):
    """{signature: bytes}, as firmware links them; DSDT included."""
    base, xsdt = (int(word, 16) for word in run.facts("tables")[0])

    def table(at):
        size, = struct.unpack("<I", run.read(base + at + 4, 4))
        raw = run.read(base + at, size)
        return raw[:4].decode(), raw
    _, raw = table(xsdt)
    found = dict(table(at) for at, in struct.iter_unpack("<Q", raw[36:]))
    dsdt, = struct.unpack("<Q", found["FACP"][140:148])
    return found | dict([table(dsdt)])


@pytest.mark.skipif(not shutil.which("acpiexec"), reason="no acpica-tools")
def test_firmware_starts_with_tables_that_acpica_takes(tmp_path):
    """Each machine that starts a kernel starts firmware, too; but for those
    whose graphics need ram=identity, which are told. Of all devices _INI, _STA,
    _PRT and _CRS are evaluated without a word of complaint."""
    started, refused = 0, {}
    for path in [p for d in fleet.directories() for p in paper.files(d)]:
        kernel = judge.Run(path, HV)
        run = judge.Run(path, f"firmware {HV}")
        starts, _ = kernel.end() == "starts", kernel.close()
        if run.end() != "starts":
            assert run.end() == "refused" and not run.facts("changed"), path
            if starts:
                refused[path.stem] = run.error()
            run.close()
            continue
        started += 1
        tables = firmwares_tables(run)
        assert list(tables) == ["FACP", "APIC", "MCFG", "DSDT"], path
        assert tables["MCFG"][44:52] == struct.pack("<Q", 0xb0000000)
        ram = [(r.gpa, r.end) for r in walk.parse_regions(run.log)
               if r.e820 == "ram"]
        assert max(end for _, end in ram if end <= 1 << 32) <= 2 << 30
        run.close()
        (tmp_path / "dsdt.aml").write_bytes(tables["DSDT"])
        done = subprocess.run(
            ["acpiexec", "-b", "resources *", "dsdt.aml"], cwd=tmp_path,
            text=True, capture_output=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "_CRS" in said, path
        assert not re.search(r"ACPI (Error|Warning|Exception)", said), said
    assert started > 25
    print(started, refused)
    assert refused == {}


# -- the fleet

@pytest.fixture(scope="session")
def rows(_built):
    paths = [p for where in fleet.directories() for p in paper.files(where)]
    return fleet.run(paths, HV)


def test_all_as_expected(rows):
    lines = []
    assert fleet.report(rows, HV, say=lines.append), "\n".join(lines)
    sums = re.fullmatch(r"fleet: (\d+) machines, (\d+) start, (\d+) with all "
                        r"that they have, (\d+) refused", lines[-1])
    assert sums and int(sums[1]) == len(rows) == int(sums[2]) + int(sums[4])


def test_readme_has_the_table(rows):
    """Else `make fleet-table` writes it anew."""
    own = rows[:len(paper.files(fleet.OWN))]
    written = marked.parts(fleet.README.read_text(), fleet.COMMAND)[1]
    assert written == "\n" + marked.markdown(fleet.table(own))


def test_each_own_machine_says_what_is_expected():
    for path in paper.files(fleet.OWN):
        lines = path.with_suffix(".expect").read_text().splitlines()
        assert lines[0] == expect.MARK + HV, path.name


def test_own_machines_are_what_the_script_writes(tmp_path):
    for make in make_machines.MACHINES:
        make().write(tmp_path)
    written = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert written == {p.name: p.read_text() for p in fleet.OWN.iterdir()}


@pytest.mark.skipif(not fleet.SHARED.is_dir(), reason="not there")
def test_real_machines_get_all_that_they_have(rows):
    """But for no DMAR table, and Broadwell untold."""
    others = {row.name: row for row in rows
              if row.machine.path.parent == fleet.SHARED}
    less = {name for name, row in others.items() if not row.has_all()}
    assert less == {"pixelbook-eve", "intel-nuc-5i5myhe"}
    assert "IOMMU" in others["pixelbook-eve"].outcome
    assert BROADWELL in others["intel-nuc-5i5myhe"].outcome
    assert any(bdf >> 8 >= 0x80 for bdf in others["arl-s-w880"].given)


@pytest.mark.parametrize("name", ["broadwell", "ironlake", "no-dmar"])
def test_the_words_that_a_refusal_names_work(name):
    """A user who copies them has all."""
    before = judge.judge(own(name), HV)
    words = re.search(r"i\w+-?\w*=(off|direct)[\w= -]*identity",
                      before.outcome)[0]
    after = judge.judge(own(name), f"{HV} {words}")
    assert after.has_all() and not after.faults


def test_direct_dma_is_the_graphics_alone(tmp_path):
    """Their unit is as firmware left it, which must be off; all others are
    behind theirs. It is said, wherever the graphics stay."""
    untouched = f"igd assign=all {BROADWELL}"
    for name, words, said in (
            ("usb-rmrr", untouched, 2), ("broadwell", untouched, 2),
            ("broadwell", "assign=all", 1)):
        run = judge.Run(own(name), words)
        unit = walk.units(walk.Still(run.log, run.read))
        assert [u.base for u in unit] == [make_machines.UNIT]
        assert not int.from_bytes(run.read(
            make_machines.GFX_UNIT + walk.GSTS, 4), "little")
        assert len(re.findall("not remapped|read and write all memory",
                              run.log)) == said, run.log
    path = variant(tmp_path, "broadwell-told", "unit fed90000 {:x} {:x} "
                   "80000000".format(*make_machines.UNITS[8][0]))
    row = judge.judge(path, HV)
    assert "igd-dma=direct cannot be" in row.outcome and not row.faults
    needs = judge.judge(own("usb-rmrr"), f"{HV} igd-dma=direct")
    assert "needs ram=identity" in needs.outcome and not needs.faults


def test_usb_that_stays_with_its_firmware(tmp_path):
    """Its DMA goes on, to what firmware shares with it, and nowhere else; it
    is not asked for, and no guest's."""
    words = f"{HV} usb-firmware"
    row = judge.judge(own("usb-owned"), words)
    usb = paper.bdf_of("00:14.0")
    assert row.starts and not row.faults and usb not in row.given
    machine, run = paper.Machine(own("usb-owned")), judge.Run(
        own("usb-owned"), words)
    assert run.read(0xf7228040, 8) == bytes.fromhex("0100010001000000")
    start = judge.Start(machine, run, words)
    unit = start.units[machine.unit_of(usb)]
    context = vtd.contexts(start.still, unit.root, unit.width)[usb]
    assert [(p.gpa, p.end, p.hpa, p.rights) for p in vtd.pieces(
        start.still, context, unit.width, unit.large)] == [
            (0x87100000, 0x87120000, 0x87100000, "rw-")]
    assert ["00:14.0"] in run.facts("master")
    assert ["00:14.0"] not in [w[:1] for w in run.facts("seen")]
    for name, words, said in (
            ("usb-owned", "igd assign=00:14.0 usb-firmware", "is left with"),
            ("usb-rmrr-in-ram", words, "the memory map says RAM")):
        row = judge.judge(own(name), words)
        assert row.refused and said in row.outcome and not row.faults
    row = judge.judge(own("nine"), words)       # which has no RMRR for USB
    assert row.has_all() and not row.faults


def test_companions_of_the_graphics_are_named():
    """In list, too; not those that are given, nor where the graphics are not."""
    def named(words):
        return re.findall(r"igd: (\S+) is not assigned, which its driver",
                          judge.Run(own("usb-rmrr"), words).log)
    assert named("igd") == named("igd list") == ["00:16.0", "00:1f.3"]
    assert named("igd assign=00:1f.3") == ["00:16.0"]
    assert named("igd assign=all") == named("assign=00:17.0") == []


def test_all_but_one():
    row = judge.judge(own("usb-rmrr"), f"{HV},-00:17.0")
    assert row.starts and not row.faults
    assert row.there.keys() - row.given.keys() == {paper.bdf_of("00:17.0")}


@pytest.mark.parametrize("ports", [[0x1804], [0x1804, 0x1904]])
def test_the_machine_is_switched_off_at_the_end(tmp_path, ports):
    """ACPI 4.8.3.2.1 and 7.4.2: SLP_TYP of \\_S5, each block's own."""
    fadt = bytearray(208)
    for n, port in enumerate(ports):
        struct.pack_into("<I", fadt, 64 + 4 * n - 36, port)
    s5 = b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x07\0\0"
    text = re.sub(r"(acpi \w+ FACP) \w+", lambda found: found[1] + " " +
                  make_machines.header(b"FACP", 5, bytes(fadt)).hex(),
                  own("usb-rmrr").read_text())
    path = tmp_path / "s5.fleet"
    path.write_text(text + "acpi 872bd800 SSDT " + make_machines.header(
        b"SSDT", 1, s5).hex() + "\n")
    run = judge.Run(path, f"{HV} list")
    assert run.end() == "ended"
    assert [[int(w, 16) for w in words] for words in run.facts("port")] == [
        [port, 1 << 13 | kind << 10] for port, kind in zip(ports, (5, 7))]


def with_fadt(tmp_path, put=(), lines=()):
    """A machine whose FADT has {offset: value} of `put`, and more lines."""
    fadt = bytearray(208)
    for at, value in {76: 0x1808, 91: 4, **dict(put)}.items():
        size = 1 if at == 91 else 4
        fadt[at - 36:at - 36 + size] = value.to_bytes(size, "little")
    text = re.sub(r"(acpi \w+ FACP) \w+", lambda found: found[1] + " " +
                  make_machines.header(b"FACP", 5, bytes(fadt)).hex(),
                  own("usb-rmrr").read_text())
    path = tmp_path / "fadt.fleet"
    path.write_text(text + "".join(lines))
    return path


@pytest.mark.parametrize("put, lines, port, bits", [
    ({}, (), 0x1808, 24), ({112: 1 << 8}, (), 0x1808, 32),
    ({76: 0, 208: 1, 212: 0x1908}, (), 0x1908, 24),
    ({76: 0x608}, (), 0x608, 24),
    ({91: 0}, (), None, 32), ({76: 0x180a}, (), None, 32),
    ({}, ("pmtimer off\n",), None, 32),
    ({76: 0xf068}, (), None, 32)])      # within 00:17.0's BAR 4
def test_the_pm_timer_is_the_guests(tmp_path, put, lines, port, bits):
    """Its four ports are open and the guest's FADT names them; else it names
    the emulated one, and none is."""
    path = with_fadt(tmp_path, put=put, lines=lines)
    machine, run = paper.Machine(path), judge.Run(path, HV)
    assert run.end() == "starts"
    start = judge.Start(machine, run, HV)
    opened = {n for first, last in run.facts("open")
              for n in range(int(first, 16), int(last, 16) + 1)}
    if port:
        assert machine.pm_timer() == set(range(port, port + 4)) <= opened
        assert not {port - 1, port + 4} & opened
    else:
        assert not set(range(0x1800, 0x1810)) & opened
    assert list(start.stray_ports()) == []
    fadt = start.tables()[b"FACP"]
    assert struct.unpack_from("<I", fadt, 76)[0] == (port or 0x608)
    assert struct.unpack_from("<Q", fadt, 212)[0] == (port or 0x608)
    assert fadt[113] & 1 == (bits == 32)
    run.close()


@pytest.mark.parametrize("port, lent", [(0xf068, False), (0x1808, True)])
def test_no_timer_of_firmwares_is_within_a_functions_ports(tmp_path, port,
                                                           lent):
    """Though no BAR is anywhere before firmware has given it a place."""
    run = judge.Run(with_fadt(tmp_path, put={76: port}), f"firmware {HV}")
    assert run.end() == "starts"
    opened = {int(first, 16) for first, _ in run.facts("open")}
    named = struct.unpack_from("<I", firmwares_tables(run)["FACP"], 76)[0]
    run.close()
    assert (port in opened) == lent and named == (port if lent else 0x608)


def test_a_port_that_is_open_and_nobodys_is_found(tmp_path):
    path = with_fadt(tmp_path)
    run = judge.Run(path, HV)
    other = paper.Machine(with_fadt(tmp_path, put={76: 0x1810}))
    assert list(judge.Start(other, run, HV).stray_ports()) == [
        "ports 0x1808-0x180b are open, and nobody's"]
    run.close()


@pytest.mark.parametrize("words, said", [
    ("", "igd assign=all"), ("igd", "igd"),
    ("assign=00:17.0", "assign=00:17.0")])
def test_list_judges_what_is_said_and_else_the_readmes_words(words, said):
    assert judge.Run(own("usb-rmrr"), f"{words} list").grub() == said.split()


def test_the_line_that_list_ends_with_gives_all(rows):
    """Whoever copies it from the screen has what the best words give."""
    tried = 0
    for row in rows[:len(paper.files(fleet.OWN))]:
        path, words = row.machine.path, row.machine.options
        listing = judge.Run(path, f"list {words}")
        if not row.starts:
            listing.close()
            continue
        start = judge.Run(path, " ".join(listing.grub()))
        assert start.end() == "starts", row.name
        assert sorted(listing.assigned()) == sorted(start.assigned()) == \
            sorted(row.given), row.name
        tried += 1
        start.close()
        listing.close()
    assert tried > 20


@pytest.mark.parametrize("words", [HV, f"{HV} {BROADWELL}"])
def test_the_logs_copy_is_nobody_elses(words):
    """Neither the EPT nor, by the region list, a device reaches it."""
    run = judge.Run(own("usb-rmrr"), words)
    start = judge.Start(paper.Machine(own("usb-rmrr")), run)
    at = int(re.search(r"log: kept at (0x\w+)", run.log)[1], 16)
    end = at + 0x21000
    assert start.pieces and start.regions and end <= 768 << 20
    for p in [*start.pieces, *start.regions]:
        assert p.hpa is None or p.hpa >= end or \
            p.hpa + p.end - p.gpa <= at, p
    assert run.read(at, 8) == b"!MONLOG1" and \
        run.read(at + 64, 9) == b"monocle: "
    run.close()


def test_quiet_hides_neither_help_nor_what_is_wrong():
    help_ = judge.Run(own("usb-rmrr"), "quiet help")
    assert help_.end() == "ended" and "assign=..." in help_.log
    wrong = judge.Run(own("usb-rmrr"), "log=e9 quiet asign=all")
    assert wrong.end() == "refused" and "'assign'" in wrong.log
    assert "Monocle " not in judge.Run(own("usb-rmrr"), f"{HV} quiet").log


def test_interrupts_are_remapped_for_an_x2apic(tmp_path):
    """Firmware that has switched to it; a unit without EIM cannot (5.1.4)."""
    run = judge.Run(own("usb-rmrr"), HV)
    assert "entries, xAPIC" in run.log
    run = judge.Run(variant(tmp_path, "usb-rmrr", "msr 1b fee00d00"), HV)
    assert "entries, x2APIC" in run.log


# -- the cases of the findings (as machines of ours they stand in the tree)

Case = collections.namedtuple("Case", "words starts given")
ISSUE = {
    "1-usb-rmrr": Case("igd assign=00:14.0", True, "00:02.0 00:14.0"),
    "1-usb-rmrr-in-ram": Case("igd assign=00:14.0 assign=00:14.2", True,
                              "00:02.0 00:14.0 00:14.2"),
    "1-usb-rmrr-list": Case("igd assign=00:14.0", True, "00:02.0 00:14.0"),
    "2-nine-functions": Case(
        "igd assign=00:14.0 assign=00:14.2 assign=00:17.0 assign=00:1f.2 "
        "assign=00:1f.3 assign=00:1f.4,gsi=16 assign=00:1f.6 assign=01:00.0",
        True, "00:02.0 00:14.0 00:14.2 00:17.0 00:1f.2 00:1f.3 00:1f.4 "
        "00:1f.6 01:00.0"),
    "3-sound-needs-smbus": Case("igd assign=00:1f.3", True,
                                "00:02.0 00:1f.3"),
    "3-sound-needs-smbus-2": Case(
        "igd assign=00:1f.3 assign=00:1f.2 assign=00:1f.6", True,
        "00:02.0 00:1f.2 00:1f.3 00:1f.6"),
    "3-sound-needs-smbus-3": Case(
        "igd assign=00:1f.3 assign=00:1f.2 assign=00:1f.4,gsi=16 "
        "assign=00:1f.6", True, "00:02.0 00:1f.2 00:1f.3 00:1f.4 00:1f.6"),
    "4-broadwell": Case("igd", False, BROADWELL),
    "4-broadwell-list": Case("igd", False, BROADWELL),
    "5-pit-gated": Case("igd", True, "00:02.0"),
    "7-unit-at-0": Case("igd", True, "00:02.0"),
    "8-second-root-bus": Case("igd assign=80:14.0", True, "00:02.0 80:14.0"),
}


@pytest.mark.skipif(not CASES.is_dir(), reason="not there")
@pytest.mark.parametrize("name", ISSUE)
def test_case(name):
    case = ISSUE[name]
    row = judge.judge(CASES / f"{name}.fleet", case.words)
    assert not row.faults
    assert row.starts == case.starts, row.outcome
    if case.starts:
        assert {paper.text_of(bdf) for bdf in row.given} == \
            set(case.given.split())
    else:
        assert case.given in row.outcome and row.refused


# -- what is wrong does not escape

def spoiled(name, spoil, words=HV):
    """The faults of a start in whose results something is spoiled."""
    class Spoiled(judge.Run):
        def __init__(self, path, line):
            super().__init__(path, line)
            spoil(self, "list" in line.split())
    return judge.judge(own(name), words, Spoiled).faults


def has(faults, *words):
    assert faults, "nothing is found"
    assert any(all(word in fault for word in words) for fault in faults), \
        faults


def in_memory(change):
    """Spoils the memory that the start has left, by its own tables."""
    def spoil(run, listing):
        if not listing:
            change(run, walk.Still(run.log, run.read))
    return spoil


def poke(run, at, value):
    data = struct.pack("<Q", value)
    assert os.pwrite(run.fd, data, at) == 8


def context_at(still, bdf):
    unit = next(u for u in walk.units(still) if paper.bdf_of(bdf) in
                vtd.contexts(still, u.root))
    table, = struct.unpack("<Q", still.read_now(
        unit.root + 16 * (paper.bdf_of(bdf) >> 8), 8))
    return (table & -PAGE) + 16 * (paper.bdf_of(bdf) & 0xff)


def leaf_at(run, still, gpa):
    top = ept.root(int(walk.EPTP.search(run.log)[1], 16))
    page, at = still.leaf_of(top, 4, gpa)
    return page + at


def test_a_missing_context_entry_is_found():
    has(spoiled("usb-rmrr", in_memory(lambda run, still: poke(
        run, context_at(still, "00:14.0"), 0))),
        "00:14.0", "has no context entry")


def test_a_context_entry_too_many_is_found():
    """Of the SMBus controller, which stays Monocle's."""
    def change(run, still):
        sound = context_at(still, "00:1f.3")
        for at in (0, 8):
            value, = struct.unpack("<Q", run.read(sound + at, 8))
            poke(run, sound + 16 + at, value)
    has(spoiled("shared-slot", in_memory(change)),
        "00:1f.4", "has a context entry")


def test_a_page_of_monocle_in_the_ept_is_found():
    def change(run, still):
        mine = min(int(base, 16) for base, _ in run.facts("own"))
        at = leaf_at(run, still, 0x1000)
        value, = struct.unpack("<Q", run.read(at, 8))
        poke(run, at, value & 0xfff | mine)
    has(spoiled("usb-rmrr", in_memory(change)), "EPT")


def test_memory_of_monocle_that_the_list_grants_is_found():
    """Where tables and list agree: the guest's BIOS area is called own."""
    def change(run, _):
        bios = next(r for r in walk.parse_regions(run.log)
                    if r.name == "BIOS")
        run._facts.append(["own", f"{bios.hpa:x}", "1000"])
    has(spoiled("usb-rmrr", in_memory(change)), "Monocle is in reach")


def test_a_bar_out_of_reach_is_found():
    has(spoiled("usb-rmrr", in_memory(lambda run, still: poke(
        run, leaf_at(run, still, 0xf7220000), 0))),
        "00:14.0", "memory of BAR 0")


def test_a_missing_route_is_found():
    def change(run, still):
        tables = next(r for r in walk.parse_regions(run.log)
                      if r.name == "ACPI")
        data = run.read(tables.hpa, tables.end - tables.gpa)
        poke(run, tables.hpa + data.index(b"_PRT"), 0)
    has(spoiled("usb-rmrr", in_memory(change)), "00:14.0", "_PRT")


def in_tables(change):
    """Spoils the guest's ACPI tables, a bytearray."""
    def spoil(run, _):
        tables = next(r for r in walk.parse_regions(run.log)
                      if r.name == "ACPI")
        data = bytearray(run.read(tables.hpa, tables.end - tables.gpa))
        change(data)
        os.pwrite(run.fd, data, tables.hpa)
    return in_memory(spoil)


def put(what, instead, behind=b""):
    """In place of the first one behind those bytes."""
    def change(data):
        at = data.index(what, data.index(behind))
        data[at:at + len(instead)] = instead
    return in_tables(change)


def window(width, first, last):
    """Limits, offset and length of a descriptor (ACPI 6.4.3.5)."""
    return struct.pack(f"<4{width}", first, last, 0, last - first + 1)


@pytest.mark.parametrize("spoil, words", [
    # The chipset's root is none, or another segment's, or of another bus.
    (put(b"_HID\x0c\x41\xd0\x0a\x08\x08_UID\x0a\x80\x08_CID",
         b"_HIX\x0c\x41\xd0\x0a\x08\x08_UID\x0a\x80\x08_CIX"),
     ("80:14.0", "scan")),
    (put(b"_SEG\0", b"_SEG\1"), ("82:00.0", "scan")),
    (put(b"_BBN\x0a\x80", b"_BBN\x0a\x81"), ("80:17.0", "scan")),
    (put(window("H", 0x80, 0x84), window("H", 0x80, 0x81)),
     ("82:00.0", "scan")),
    (put(window("H", 0, 0x7f), window("H", 0, 0x80)),
     ("roots 00 and 80 both pass on buses at 0x80",)),
    # A BAR in bus 0's window; a window that two roots have.
    (put(window("I", 0xf7220000, 0xf73fffff),
         window("I", 0xf7221000, 0xf7400fff)),
     ("80:14.0", "BAR 0 in no window")),
    (put(window("Q", 0x5020814000, 0x50209fffff),
         window("Q", 0x5020824000, 0x5020a0ffff)),
     ("80:16.0", "BAR 0 in no window")),
    (put(window("H", 0xe060, 0xe07f), window("H", 0xe000, 0xe01f)),
     ("80:17.0", "BAR 4 in no window")),
    (put(window("I", 0xf7400000, 0xfaffffff),
         window("I", 0xf73f0000, 0xfafeffff)),
     ("both pass on memory",)),
    (put(b"_PRT", b"_PRX", b"PCI1"), ("80:14.0", "_PRT")),
], ids=str)
def test_a_wrong_root_is_found(spoil, words):
    has(spoiled("root-buses", spoil), *words)


def test_an_mcfg_without_the_last_bus_is_found():
    def change(data):
        data[data.index(b"MCFG") + 55] = 0x83
    has(spoiled("root-buses", in_tables(change)),
        "b3:00.0", "MCFG does not have")


def facts(*change):
    """Spoils what the program says: (name, words) goes, or another comes."""
    def spoil(run, listing):
        if not listing:
            run._facts = [new for fact in run._facts
                          for new in change[0](fact)]
    return spoil


@pytest.mark.parametrize("fact, change, words", [
    ("seen", lambda f: [], "is not found by a scan"),
    ("bar", lambda f: [], "lacks BAR 0"),
    ("interrupt", lambda f: [[*f[:-1], "stays", "off"]], "MSI: stays off"),
    ("given", lambda f: [], "00:14.0 is bus master"),
    ("given", lambda f: [], "00:14.0 answers the guest"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_function_without_something_is_found(fact, change, words):
    def spoil(f):
        about = f[0] == fact and f[1] == "00:14.0"
        return [*(change(f) if about else [f]),
                *([["master", "00:14.0"]] if about else [])]
    has(spoiled("usb-rmrr", facts(spoil)), words)


def test_a_wrong_clock_is_found():
    has(spoiled("usb-rmrr", facts(
        lambda f: [["tsc", "1000000000", f[2]] if f[0] == "tsc" else f])),
        "TSC")


def test_a_guest_that_cannot_be_entered_is_found():
    has(spoiled("usb-rmrr", facts(
        lambda f: [["entry", "2"] if f[0] == "entry" else f])), "enter")


def test_too_little_memory_for_tables_is_found():
    has(spoiled("usb-rmrr", facts(
        lambda f: [["left", "1fffff"] if f[0] == "left" else f])),
        "left for tables")


@pytest.mark.parametrize("name, words, share", [
    ("nine", "", 0), ("nine", "ram=identity", 0), ("nine", "itlb=split", 512),
    ("ports-without-acs", "", 512)])
def test_the_guest_has_all_memory_but_what_tables_need(name, words, share):
    """An entry of 8 bytes for each page of 4 KiB where a unit has no larger
    ones, or where a large one may hold no code."""
    run = judge.Run(own(name), f"{HV} {words}")
    free, given = run.free_and_given()
    run.close()
    assert 0 < free - given - (share and free // share) <= 6


def test_another_list_is_found():
    def less(run, listing):
        if listing:
            run.log = run.log.replace("monocle: assigned: 00:14.0", "monocle:")
    has(spoiled("usb-rmrr", less), "list names other functions")

    def silent(run, listing):
        if listing:
            run.log = run.log.replace("monocle: error: ", "monocle: ")
    has(spoiled("broadwell", silent), "list says ''")


def test_a_function_kept_back_without_a_reason_is_found():
    def spoil(run, _):
        run.log = re.sub("not 01:00.0, class 0200: .*", "01:00.0: \\n",
                         run.log)
    has(spoiled("nic-rmrr-in-ram", spoil), "01:00.0 is kept back")


def test_a_crash_is_found(tmp_path):
    """UBSan's, a panic, a run without an end: status, or no last fact."""
    path = tmp_path / "empty.fleet"
    path.write_text("# nothing at all\n")
    row = judge.judge(path, HV)
    assert row.refused          # there is no memory map
    assert spoiled("usb-rmrr", lambda run, _: run._facts.clear())
    assert spoiled("usb-rmrr", lambda run, _: run._facts.append(
        ["end", "panic", "VMXON failed"]))


def variant(tmp_path, name, *lines):
    """A machine of ours with more statements."""
    path = tmp_path / "variant.fleet"
    path.write_text("\n".join([own(name).read_text(), *lines, ""]))
    return path


@pytest.mark.parametrize("words", ["", "igd"])
def test_a_picture_needs_no_rmrr(tmp_path, words):
    """Stolen memory and the GTT's by registers alone, assigned or not."""
    path = tmp_path / "variant.fleet"
    path.write_text(re.sub("(?<=DMAR )[0-9a-f]+", lambda found: make_machines
                           .header(b"DMAR", 1, bytes([38, 1]) + bytes(10) +
                                   b"".join(make_machines.usb_rmrr().drhds)
                                   ).hex(), own("usb-rmrr").read_text()))
    machine, run = paper.Machine(path), judge.Run(path, words)
    assert run.end() == "starts", run.log
    start = judge.Start(machine, run)
    unit = start.units[machine.unit_of(0x10)]
    gfx = vtd.contexts(start.still, unit.root, unit.width)[0x10]
    for at in (0x89800000, 0x8a000000, 0x8a000000 + (32 << 20) - PAGE):
        assert vtd.translate(start.still, gfx, at) == (at, "rw-")
    assert ("00:02.0",) in [tuple(w) for w in run.facts("master")] or words


def test_a_late_refusal_is_found(tmp_path):
    """By an IOMMU that does not do as it is told nobody can know before; it
    shows that each kind of change is seen."""
    path = variant(tmp_path, "usb-owned", "stuck fed91000")
    row = judge.judge(path, HV)
    assert row.outcome.startswith("refuses late: ")
    has(row.faults, "refuses after a change")
    run = judge.Run(path, HV)
    kinds = {words[0] for words in run.facts("changed")}
    assert kinds >= {"configuration", "IOMMU", "port", "device"}


@pytest.mark.parametrize("statement", [
    "unknown 1 2", "e820 0 100 banana", "unit fed90000", "cfg 00:40.0 0 00",
    "mem 0 0g", "pit perhaps", "msr 10"])
def test_a_statement_that_is_none_is_said(tmp_path, statement):
    path = variant(tmp_path, "usb-rmrr", statement)
    run = judge.Run(path, HV)
    assert run.status == 65 and statement.split()[0] in run.end()
    run.close()
    assert not fleet.report([judge.judge(path, HV)], HV, say=lambda _: None)


def test_what_differs_from_the_expectation_is_said(tmp_path):
    """And a file of another format is not looked at."""
    path = variant(tmp_path, "usb-rmrr")
    row = judge.judge(path, HV)
    beside = path.with_suffix(".expect")
    good = own("usb-rmrr").with_suffix(".expect").read_text()
    for text, wrong in (
            (good, False), (good.replace("memory 98", "memory 100"), True),
            (good.replace("usb 00:14.0\n", ""), True),
            (good + "net 00:1f.6\n", True),
            (good.replace("starts", "refuses IOMMU"), True),
            ('$ fleet x.fleet "igd"\nRESULT starts\n', False)):
        beside.write_text(text)
        assert fleet.report([row], HV, say=lambda _: None) != wrong, text
    fleet.report([row], HV, update=True, say=lambda _: None)
    assert fleet.report([row], HV, say=lambda _: None)


def test_status_of_the_command(tmp_path):
    """0, or 1 where something differs."""
    for lines, status in (([], 0), (["stuck fed91000"], 1)):
        done = subprocess.run(
            [judge.ROOT / "tests/fleet/fleet.py",
             variant(tmp_path, "usb-rmrr", *lines)], capture_output=True,
            text=True, check=False)
        assert done.returncode == status, done.stdout
        assert done.stdout.splitlines()[-1].startswith("fleet: 1 machines, ")
