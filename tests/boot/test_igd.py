# SPDX-License-Identifier: MIT
"""Intel graphics played by tests/igd/standin.c at 00:02.0.

Natively first: Debian's unmodified i915 binds to it, with an OpRegion and
stolen memory where SeaBIOS puts them. That is what Monocle's guest is
measured by, in the nested rig. Cases of that rig: igd_cases.py.
"""
import re

import pytest

import rigs
from boot import igd_cases, runs
from boot.igd_cases import GENERATIONS, MARK, REFUSED
from boot.told import NOISE, passed
from igd import compare, config, opregion
from rigs import result
from walker import boot as walk

# The console stays off the framebuffer, each write to which would be a
# message; the output is there whatever hangs on it.
APPEND = f"{igd_cases.APPEND} fbcon=map:9 video=HDMI-A-1:1024x768@60e"
# Time that the guest spends waiting is skipped.
QEMU = ("-icount", "shift=1,sleep=off")


def native():
    """On tcg."""
    return rigs.boot(rig="tcg", native=True, initrd=str(igd_cases.INITRD),
                     igd=igd_cases.igd(igd_cases.SMALL), append=APPEND,
                     qemu=QEMU, timeout=runs.TIMEOUT)


runs.define("igd-native")(native)
runs.define("igd-native-again")(native)


def answers(done):
    """What tests/igd/report printed: {name: text}."""
    assert done.status == result.POWER_OFF, done.report()
    parts = re.split(r"^== (\S+)\n", done.serial, flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], parts[1::2]))
    assert "end" in found, done.report()
    return found


def log_of(done):
    """What reached the device."""
    log = compare.parse(done.device)
    assert log.complete, done.report()
    return log


def check_binds(done):
    """i915 has the device, and complains of nothing but this: it raises no
    interrupts and loads no firmware."""
    told = answers(done)
    assert re.search(r"Initialized i915 .* for 0000:00:02\.0", told["dmesg"])
    assert told["driver"].strip() == "i915"
    assert not [line for line in told["dmesg"].splitlines()
                if re.search(r"WARNING|\*ERROR\*", line) and
                not line.endswith("timed out")]
    return told


def check_opregion(told, region):
    """All of it as it was given to the firmware, but for the mailboxes, in
    which i915 writes."""
    read = bytes.fromhex(told["opregion"])
    assert len(read) == len(region) == 8192
    assert read[:0x100] == region[:0x100]
    assert read[0x400:] == region[0x400:] != bytes(8192 - 0x400)   # VBT


def placed(log):
    """(ASLS, BDSM) as the firmware wrote them, once; None: it did not."""
    written = {name: [e.words[2] for n, _, e in compare.config_writes(log)
                      if n == name] for name in ("ASLS", "BDSM")}
    (asls,), (bdsm,) = (written[name] or (None,) for name in written)
    assert (asls or 0) % 4096 == 0 and (bdsm or 0) % (1 << 20) == 0
    return asls, bdsm


@pytest.mark.long
@pytest.mark.runs("igd-native")
def test_i915_binds(run):
    told = check_binds(run("igd-native"))
    assert told["framebuffer"].strip() == "i915drmfb"
    check_opregion(told, opregion.build())


@pytest.mark.long
@pytest.mark.runs("igd-native")
def test_firmware_places_opregion_and_stolen_memory(run):
    """Linux reserves what they say."""
    done = run("igd-native")
    _, bdsm = placed(log_of(done))
    assert f"Reserving Intel graphics memory at [mem {bdsm:#010x}-" \
        f"{bdsm + (4 << 20) - 1:#010x}]" in answers(done)["dmesg"]


@pytest.mark.long
@pytest.mark.runs("igd-native", "igd-native-again")
def test_native_runs_are_alike(run):
    """What is compared with Monocle's run is the same in each native one."""
    one, other = (log_of(run(name))
                  for name in ("igd-native", "igd-native-again"))
    assert len(compare.writes(one)) > 1000
    assert compare.difference(one, other) is None


# -- what goes wrong: by `list`, which changes nothing and needs no VMX

@pytest.mark.parametrize("name", runs.each(igd_cases.BAD, "igd-bad-{}"))
def test_what_goes_wrong(run, name):
    """One line; then the block of all decisions, where it goes on."""
    _, refused, text = igd_cases.BAD[name]
    done = run(f"igd-bad-{name}")
    assert (done.status, done.text) == (0, "list"), done.report()
    kind = "error" if refused else "warning"
    said = [line for line in re.findall(rf"{kind}: (.*)", done.log)
            if line.startswith("igd: ")]
    # Where GSM is, this chipset does not say.
    said = [line for line in said if "in GGC, but no base" not in line or
            name == "gsm-unknown"]
    assert len(said) == 1 and text in said[0], done.report()
    assert ("igd: generation " in done.log) == (not refused)


@pytest.mark.runs("igd-bad-vbt-in-monocle")
def test_where_monocle_is(run):
    start, end = re.search(r"Monocle [\d.]+, at 0x(\w+)-0x(\w+)",
                           run("igd-bad-vbt-in-monocle").log).groups()
    assert int(start, 16) <= igd_cases.IMAGE < int(end, 16)


# -- nested: Monocle's guest

def by_monocle(log):
    """Configuration writes since GRUB's mark: [(name, allowed, Event)]."""
    return compare.config_writes(log.since(MARK))


@pytest.mark.long
@pytest.mark.nested("igd-linux-native", "igd-linux")
def test_i915_as_natively(nested):
    """It binds, and its writes are those of the native run."""
    natively, done = nested("igd-linux-native"), nested("igd-linux")
    for each in natively, done:
        check_opregion(check_binds(each), opregion.build())
    assert len(compare.writes(log_of(done))) > 500
    assert compare.difference(log_of(natively), log_of(done)) is None


@pytest.mark.long
@pytest.mark.nested("igd-linux-native", "igd-linux")
def test_identities_of_bridges(nested):
    """Host bridge, graphics and PCH are the real ones."""
    here, there = ({line.split()[0]: line.split()[1:6]
                    for line in answers(nested(name))["pci"].splitlines()
                    if line} for name in ("igd-linux-native", "igd-linux"))
    for function in "00.0", "02.0", "1f.0":
        assert there[function] == here[function]


@pytest.mark.long
@pytest.mark.nested("igd-linux")
def test_configuration_writes_by_linux(nested):
    """Printed. Those of ASLS, BDSM, SWSCI never arrive."""
    arrived = by_monocle(log_of(nested("igd-linux")))
    for name, allowed, event in arrived:
        print(name, "" if allowed else "(Monocle's own)", event)
    assert not {name for name, _, _ in arrived} & {"ASLS", "BDSM", "SWSCI"}
    assert "COMMAND" in {name for name, _, _ in arrived}


def numbers(done, what, stream="serial"):
    """The hexadecimal numbers of a line "igd: WHAT ..." of the guest's, or
    of Monocle's."""
    line = re.search(rf"^(?:monocle: )?igd: {what}(.*)$",
                     getattr(done, stream), re.MULTILINE)
    assert line, done.report()
    return [int(word, 16) for word in
            re.findall(r"(?<!\S)[0-9a-f]+(?!\S)", line[1])]


def rows(done):
    """The guest's memory map: {(base, end): kind}."""
    return {(int(base, 16), int(end, 16)): int(kind) for base, end, kind in
            re.findall(r"^memory: (\w+)-(\w+) kind (\d+)$", done.serial,
                       re.MULTILINE)}


def kind_at(done, address):
    return next((kind for (base, end), kind in rows(done).items()
                 if base <= address < end), None)


def fnv(data):
    """As tests/guests/igd.c."""
    value = 0x811c9dc5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xffffffff
    return value


# One of them in the short suite
EACH = pytest.mark.parametrize("name", [
    pytest.param(name, marks=[
        pytest.mark.nested(f"igd-{name}"),
        *([] if name == igd_cases.SMALL else [pytest.mark.long])])
    for name in GENERATIONS])


@EACH
def test_generation(nested, name):
    """Each: decided rightly, memory pinned, nothing moved by the guest."""
    # SeaBIOS does nothing for class 0380.
    done, paper = nested(f"igd-{name}"), config.load(name)
    assert done.status == result.POWER_OFF, done.report()
    assert "igd: 0 failed" in done.serial
    log = log_of(done)
    asls, bdsm = placed(log)
    assert f"igd: generation {paper.gen} (" in done.log
    vga = paper.expect["class"] == ["0300"]
    assert ("legacy VGA decoded" in done.log) == vga
    assert (asls is not None) == vga == ("no opregion" not in done.serial)
    if not vga:
        return
    region = opregion.extended()
    at, size, told = numbers(done, "opregion")
    assert (at, size) == (asls, 8192) and told == fnv(region[:8192])
    at, size, told = numbers(done, "vbt")
    assert at == asls + 8192 and told == fnv(region[8192:8192 + size])
    dsm = paper.number("dsm", 1)
    if dsm:
        assert f"stolen memory (DSM) {bdsm:#x}-{bdsm + dsm:#x}" in done.log
        assert {kind_at(done, bdsm), kind_at(done, bdsm + dsm - 1)} == {2}
    # ACPI NVS
    assert kind_at(done, asls) == 4


@EACH
def test_what_arrives(nested, name):
    """Of the guest's configuration writes, COMMAND's alone. Its marks on the
    device's memory tell them from Monocle's, before and at the end."""
    log = log_of(nested(f"igd-{name}")).since("mw 4f100 4 4d6f6e6f")
    guests = compare.config_writes(log.until("mw 4f100 4 4d6f6e70"))
    assert {name for name, _, _ in guests} == {"COMMAND"}
    assert any(event.words[2] & 4 for _, _, event in guests)


@pytest.mark.long
@pytest.mark.nested("igd-no-signature")
def test_no_opregion(nested):
    """Where ASLS points to something else, the guest reads 0 there."""
    done = nested("igd-no-signature")
    assert done.status == result.POWER_OFF, done.report()
    asls, _ = placed(log_of(done))
    assert f"igd: no OpRegion at {asls:#x} (ASLS)" in done.log
    assert "igd: no opregion" in done.serial
    assert kind_at(done, asls) is None


@pytest.mark.long
@pytest.mark.nested("igd-many")
def test_no_exits_for_registers(nested):
    """At BAR 0, as the device counts them."""
    done = nested("igd-many")
    number, exits, ports, mmio = runs.counted(done, "igd registers")
    totals = log_of(done).totals
    assert totals["mr"] + totals["mw"] >= number >= igd_cases.ACCESSES
    assert ports == mmio == 0 and exits <= NOISE


@pytest.mark.long
@pytest.mark.nested("igd-many")
def test_guest_memory(nested):
    """The EPT holds OpRegion and stolen memory 1:1, and for DMA the latter."""
    done = nested("igd-many")
    found = walk.check(walk.Still(done.log, done.memory))
    for address in placed(log_of(done)):
        leaf, = (leaf for leaf in found.ept
                 if leaf[0] <= address < leaf[0] + leaf[1])
        assert leaf[0] == leaf[2]
        row, = (r for r in walk.parse_regions(done.log)
                if r.gpa <= address < r.end)
        assert row.gpa == row.hpa


@pytest.mark.long
@pytest.mark.nested("igd-closed")
def test_closed_windows(nested):
    """All ones before, content after; GSM is none and stays closed. The EPT
    holds what was asked for, and nothing else of the windows."""
    done = nested("igd-closed")
    assert done.status == result.POWER_OFF, done.report()
    assert "windows: igd: 0 failed" in done.serial
    asked = [(igd_cases.STOLEN, igd_cases.STOLEN + (2 << 20)),
             (igd_cases.RMRR, igd_cases.RMRR_END),
             (numbers(done, "ASLS", "log")[0], 1 << 28)]
    log = done.log
    for start, end in asked:
        row, last, rest = re.search(
            rf"^(monocle: region {start:x}-(\w+) hpa {start:x} device cpu )---"
            r"(.*)$", log, re.MULTILINE).groups()
        opened = f"{row}rw-{rest}".replace(f"-{last} ", f"-{end:x} ", 1)
        if int(last, 16) != end:
            opened += (f"\nmonocle: region {end:x}-{last} hpa {end:x} device "
                       f"cpu ---{rest}")
        log = log.replace(f"{row}---{rest}", opened)
    found = walk.check(walk.Still(log, done.memory))
    assert {page for at, size, *_ in found.ept
            for page in range(at, at + size, 4096)
            if igd_cases.STOLEN <= page < igd_cases.RMRR_END or
            page >= asked[2][0] and page < asked[2][1]} == {
                page for start, end in asked
                for page in range(start, end, 4096)}


@pytest.mark.long
@pytest.mark.nested("igd-domain")
def test_dma_in_its_domain(nested):
    """`edu` and the CPU see one stolen memory and one RMRR; GSM is for DMA
    alone; at Monocle's image there is a fault, told with who and where."""
    done = nested("igd-domain")
    assert passed(done) == ["find", "bar", "stolen", "rmrr", "gtt", "own"]
    for line in (f"stolen memory (DSM) {igd_cases.STOLEN:#x}-",
                 f"GTT memory (GSM) {igd_cases.GSM:#x}-",
                 f"RMRR {igd_cases.GSM:#x}-{igd_cases.RMRR_END:#x}"):
        assert f"igd: {line}" in done.log, done.log
    own, = re.findall(r"Monocle [\d.]+, at 0x([0-9a-f]+)-", done.log)
    assert set(re.findall(r"fault \d+ of (\S+) .*: (read|write) 0x(\w+):",
                          done.log)) == {("00:05.0", "read", own),
                                         ("00:05.0", "write", own)}


@pytest.mark.long
@pytest.mark.nested("igd-domain")
@pytest.mark.parametrize("what, at_least", [
    ("vga memory", 100000), ("vga ports", 2000), ("vga strings", 100000)])
def test_no_exits_for_legacy_vga(nested, what, at_least):
    """The card behind it is QEMU's own; single ports are few here, for QEMU
    takes long: on Bochs they are many (test_exits.py)."""
    number, exits, ports, mmio = runs.counted(nested("igd-domain"), what)
    assert number >= at_least and ports == mmio == 0 and exits <= NOISE


@pytest.mark.long
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.nested(f"igd-{name}"))
    for name in REFUSED])
def test_refusal(nested, name):
    """One line, status 4."""
    done = nested(f"igd-{name}")
    assert done.status == result.REFUSED, done.report()
    errors = [line for line in done.log.splitlines() if "error:" in line]
    assert len(errors) == 1 and re.search(REFUSED[name][1], errors[0])
