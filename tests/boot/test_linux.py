# SPDX-License-Identifier: MIT
"""Debian's unmodified kernel as the guest, beside itself on the bare machine.

Two boots serve all tests: boot/linux.py says what is typed there.
"""
import hashlib
import pathlib
import re

import pytest
from PIL import Image

from boot import linux, runs, screen
from rigs.spec import REPOSITORY

runs.define("linux", first=True)(linux.on_monocle)

BORN = 1700000000       # what Bochs's clock says at power-on
pytestmark = pytest.mark.runs("linux")


@pytest.fixture
def answers(run):
    """What the guest said."""
    return run("linux").answers


def test_reaches_the_shell_and_powers_off(run):
    result = run("linux").result
    assert result.status == 0, result.report()
    assert result.text == "guest power-off"
    assert linux.READY in result.serial


def test_is_debians_kernel(answers):
    assert re.match(r"Linux demo \S+-amd64 .*Debian", answers["uname"])


def test_acpi_is_on(answers):
    """Tables of the guest's own; power-off and interrupts go by them."""
    assert {"APIC", "DSDT", "FACP", "MCFG"} <= set(answers["tables"].split())
    assert "ACPI: Interpreter enabled" in answers["dmesg"]
    assert "ACPI: Using IOAPIC for interrupt routing" in answers["dmesg"]
    assert re.search(r"ACPI: PM: \(supports S0 S5\)", answers["dmesg"])


def test_ecam_is_accepted(answers):
    """It is reserved as PCI Firmware 3.0, 4.1.2, asks for."""
    assert re.search(r"PCI: MMCONFIG at \[mem 0x(\w+)-0x\w+\] "
                     r"\(?reserved", answers["dmesg"])


def test_lapic_is_in_x2apic_mode(answers):
    assert re.search(r"x2apic( enabled|: enabled)|Switched APIC routing to "
                     r"\w* ?(physical|cluster)? ?x2apic", answers["dmesg"],
                     re.IGNORECASE), answers["dmesg"]


def test_ioapic_delivers(answers):
    counts = {match[2]: int(match[1]) for match in re.finditer(
        r"^ *\d+: +(\d+) +IO-APIC +\d+-\w+ +(\S+)", answers["interrupts"],
        re.MULTILINE)}
    assert counts["ttyS0"] > 0 and counts["timer"] > 0
    assert {"acpi", "rtc0", "i8042"} <= set(counts)


def test_local_timer_ticks(answers):
    match = re.search(r"^LOC: +(\d+)", answers["interrupts"], re.MULTILINE)
    assert int(match[1]) > 100


def test_no_interrupt_goes_astray(answers):
    for name in ("ERR", "MIS", "SPU", "NMI"):
        match = re.search(rf"^{name}: +(\d+)", answers["interrupts"],
                          re.MULTILINE)
        assert int(match[1]) == 0, name


@pytest.mark.runs("linux-bare")
def test_pci(run, answers):
    """Two bridges of Monocle's, and the machine's own display."""
    functions = dict(line.split(" ", 1)
                     for line in answers["pci"].splitlines())
    bare = dict(line.split(" ", 1) for line in
                run("linux-bare").answers["pci"].splitlines())
    assert set(functions) == {"0000:00:00.0", "0000:00:02.0", "0000:00:1f.0"}
    assert functions["0000:00:02.0"] == bare["0000:00:02.0"]
    assert functions["0000:00:00.0"].endswith("0x060000")
    assert functions["0000:00:1f.0"].endswith("0x060100")


@pytest.mark.runs("linux-bare")
def test_option_rom(run, answers):
    """The card's, as the kernel shows it: the file that Bochs was given."""
    file = pathlib.Path("/usr/share/bochs/VGABIOS-lgpl-latest").read_bytes()
    assert answers["rom"].split()[0] == hashlib.md5(file).hexdigest()
    assert answers["rom"] == run("linux-bare").answers["rom"]


def test_clock_is_right(run, answers):
    """The host's time: that of Bochs's power-on and what has passed.

    An idle guest's time passes as fast as Bochs can count it, so how much
    it is depends on this machine; a wrong zone or century is more than that.
    """
    assert BORN < int(answers["date"]) < BORN + 120
    for after in run("linux").reboots:
        assert int(answers["date"]) < int(after.split()[-1]) < BORN + 3600


def test_pat(answers):
    assert re.search(r"x86/PAT: Configuration \[0-7\]: WB  WC  UC- UC ",
                     answers["dmesg"])


@pytest.mark.runs("linux-bare")
def test_the_pm_timer_is_the_hosts(run, answers):
    """Linux checks its TSC by it, twice a second."""
    assert linux.pm_timer(answers) == linux.pm_timer(
        run("linux-bare").answers)


def test_clocksource_is_the_tsc(answers):
    assert answers["clocksource"].split() == ["tsc"]


def test_mtrrs_describe_the_pci_hole(answers):
    assert "uncachable" in answers["mtrr"]
    assert "MTRR" not in complaints(answers)


@pytest.mark.runs("linux-bare")
def test_machine_looks_alike(run, answers):
    """The memory that Monocle takes is small."""
    def total(text):
        return int(re.search(r"MemTotal: +(\d+) kB", text)[1])
    bare = total(run("linux-bare").answers["memory"])
    assert bare - 40 * 1024 < total(answers["memory"]) < bare


@pytest.mark.runs("linux-bare")
def test_dmi_is_the_hosts(run, answers):
    """By these lines drivers look for their quirks."""
    def dmi(text):
        # An entry point of 3.0 has a third number.
        return re.findall(r"SMBIOS \d+\.\d+|DMI: .*", text)
    bare = dmi(run("linux-bare").answers["dmesg"])
    assert len(bare) >= 2 and dmi(answers["dmesg"]) == bare


def complaints(answers):
    """Messages of warning level and above."""
    return "\n".join(linux.lines(answers["complaints"]))


@pytest.mark.runs("linux-bare")
def test_complains_of_nothing_new(run, answers, capsys):
    """What it does not complain of on the bare machine, it may not here."""
    here = linux.lines(answers["complaints"])
    bare = linux.lines(run("linux-bare").answers["complaints"])
    with capsys.disabled():
        for line in bare:
            if line not in here:
                print(f"\n  only without Monocle: {line}", end="")
        for line in here:
            if line not in bare:
                print(f"\n  only on Monocle: {line}", end="")
        print()
    assert [line for line in here if line not in bare] == []


def test_serial_line_answers(answers):
    """What is typed there reaches a shell, and its answer comes back."""
    assert answers["sum"].strip() == "42"


def test_reboots(run):
    """Three times in a row, each to a shell."""
    session = run("linux")
    assert len(session.reboots) == linux.REBOOTS
    assert len(re.findall(r"monocle: guest: reset \(\d\)",
                          session.result.log)) == linux.REBOOTS
    for after in session.reboots:
        assert float(after.split()[0]) < 60


def test_text_console(run):
    """The picture of the screen shows what the kernel says is on it."""
    session = run("linux")
    image = screen.text_picture(session.pictures["text"])
    cells = session.answers["cells"].splitlines()
    lines = screen.read(image)
    while lines and not lines[-1]:
        lines.pop()
    while cells and not cells[-1]:
        cells.pop()
    assert lines == [line.rstrip() for line in cells]
    assert lines[0] == linux.READY


def test_keyboard(run):
    """Keys of the host's keyboard arrive at the guest's console."""
    cells = run("linux").answers["cells"].splitlines()
    assert "demo# echo typed $((6*7))" in [line.rstrip() for line in cells]
    assert "typed 42" in [line.rstrip() for line in cells]


def test_framebuffer(run):
    """Debian's driver on the card itself: what is painted is seen."""
    session = run("linux")
    assert session.answers["fb"].split("\n")[0].startswith("bochs-drm")
    picture = Image.open(session.pictures["framebuffer"]).convert("RGB")
    wanted = Image.new("RGB", (1024, 768))
    for y in range(16):
        for x in range(16):
            blue, green, red = linux.LEVELS[(5 * y + x) % 16]
            wanted.paste((red, green, blue),
                         (64 * x, 48 * y, 64 * (x + 1), 48 * (y + 1)))
    assert screen.difference(picture, wanted) is None


def violations(stats):
    """EPT violations so far."""
    return int(re.search(r"^EPT violation +(\d+)", stats, re.MULTILINE)[1])


def test_painting_causes_no_exit(answers):
    """Three megabytes to the card's memory, and no EPT violation."""
    assert violations(answers["after"]) == violations(answers["before"])


def test_monoclectl(answers):
    assert answers["version"].strip() == "3"
    assert re.match(r"\d+ exits, \d+ of \d+ ticks in Monocle \(\d+\.\d+ %\)",
                    answers["stats"])
    assert "I/O" in answers["stats"] and "CPUID" in answers["stats"]


def test_version(answers):
    """The first line of the log says that of CHANGELOG.md's first entry."""
    newest = re.search(r"^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$",
                       (REPOSITORY / "CHANGELOG.md").read_text(),
                       re.MULTILINE)[1]
    assert answers["log"].startswith(f"monocle: Monocle {newest}, at 0x")


def test_statistics_of_functions(answers):
    """The display: its configuration was read, its BARs cause no exit."""
    head, *rows = answers["devices"].splitlines()
    assert head.split()[:3] == ["function", "config", "MMIO"]
    counts = {row.split()[0]: [int(n) for n in row.split()[1:]]
              for row in rows}
    config, *others = counts["00:02.0"]
    assert config > 50 and not any(others)


def test_statistics_grow(answers):
    def exits(text):
        return int(text.split()[0])
    assert exits(answers["later"]) > exits(answers["stats"]) > 1000


def test_share_of_ticks(answers):
    """From the kernel's first instruction to its shell: at most 5 %."""
    share = float(re.search(r"\((\d+\.\d+) %\)", answers["stats"])[1])
    assert 0 < share <= 5
