# SPDX-License-Identifier: MIT
"""An exit of every kind, each result checked in the guest: tests/guests.

The same guest runs on the bare machine: what it expects is then shown to be
what a CPU of another make gives, too.
"""
import functools
import re

import pytest

from boot import runs
from rigs.spec import REPOSITORY

ROW = re.compile(r'\{"([\w-]+)",\s+test_\w+,\s+(true|false)\}')
GUESTS = REPOSITORY / "tests/guests"


def rows():
    """(name, whether Monocle's only) of the tests that main.c's exits() runs.
    """
    source = "".join(path.read_text() for path in sorted(GUESTS.glob("*.c")))
    main = (GUESTS / "main.c").read_text()
    body = re.search(r"^static u8 exits\(void\)\n\{(.*?)^\}", main,
                     re.MULTILINE | re.DOTALL)[1]
    return [row for table in re.findall(r"run_tests\((\w+),", body)
            for row in ROW.findall(re.search(
                rf"^const struct test {table}\[\] = \{{(.*?)^\}};", source,
                re.MULTILINE | re.DOTALL)[1])]


TABLE = rows()
NAMES = [name for name, _ in TABLE]
ON_BARE = [name for name, monocle_only in TABLE if monocle_only == "false"]
IF_OFF = "x2apic-if-off"
# Exit reasons that the guest must have caused: their names in the statistics.
REASONS = ["external interrupt", "interrupt window", "NMI window", "CPUID",
           "HLT", "INVD", "RDPMC", "VMCALL", "VMCLEAR", "VMLAUNCH", "VMPTRLD",
           "VMPTRST", "VMREAD", "VMRESUME", "VMWRITE", "VMXOFF", "VMXON",
           "control register", "I/O", "RDMSR", "WRMSR", "MWAIT",
           "TPR below threshold", "EPT violation", "INVEPT", "INVVPID", "preemption timer",
           "XSETBV"]
STATUSES = [0, 1, 255]
MODELS = ["corei5_arrandale_m520", "corei7_sandy_bridge_2600k",
          "corei7_ivy_bridge_3770k", "broadwell_ult", "corei7_skylake_x",
          "corei7_icelake_u", "tigerlake"]


@runs.define("exits")
def exits():
    """Guest memory laid out anew."""
    return runs.boot("exits")


@runs.define("exits-identity")
def exits_identity():
    """Guest memory 1:1 with the host's."""
    return runs.boot("exits", hv="ram=identity")


@runs.define("exits-apicv")
def exits_apicv():
    """Bochs's APICv, where it is right."""
    return runs.boot("exits", hv="apicv=on")


@runs.define("exits-native")
def exits_native():
    """On the bare machine."""
    return runs.boot("exits", native=True)


def verdict(result, name):
    """The guest's line on one test, with what it complained of before."""
    lines = result.serial.splitlines()
    for at, line in enumerate(lines):
        if line.startswith(f"{name}: "):
            first = at
            while first and lines[first - 1].startswith("  "):
                first -= 1
            return "\n".join(lines[first:at + 1])
    return result.report()


def test_table_is_read():
    assert len(NAMES) > 50
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.runs("exits")
@pytest.mark.parametrize("name", NAMES)
def test_exit(run, name):
    assert verdict(run("exits"), name) == f"{name}: ok"


@pytest.mark.runs("exits-identity")
@pytest.mark.parametrize("name", NAMES)
def test_exit_identity(run, name):
    assert verdict(run("exits-identity"), name) == f"{name}: ok"


@pytest.mark.runs("exits-apicv")
@pytest.mark.parametrize("name", [n for n in NAMES if n != IF_OFF])
def test_exit_apicv(run, name):
    assert verdict(run("exits-apicv"), name) == f"{name}: ok"


@pytest.mark.runs("exits", "exits-apicv")
@pytest.mark.parametrize("what, takes", [("x2apic registers", 5),
                                         ("x2apic self-ipi", 4)])
def test_apicv_takes_no_exits(run, what, takes):
    """But for the host's own timers; without it each access takes one (the
    handler reads the ISR, too), and so does the window that waits for IF."""
    for mode, least, most in (("exits", takes, takes + 1),
                              ("exits-apicv", 0, 0.02)):
        number, exits, _, _ = runs.counted(run(mode), what)
        assert number == 1000 and least <= exits / number <= most, mode


@runs.define("apicv-if-off")
def apicv_if_off():
    """A physical interrupt while a virtual one waits."""
    return runs.boot(f"exits {IF_OFF}", hv="apicv=on clock=apic")


@pytest.mark.runs("apicv-if-off")
def test_bochs_apicv_does_not_heed_if(run):
    """Why APICv is off on Bochs. Where this fails, Bochs is right at last."""
    assert "interrupts[V_IPI] is 0x1, not 0x0" in verdict(
        run("apicv-if-off"), IF_OFF)


@pytest.mark.runs("exits")
def test_a_paravirtual_eoi_takes_no_exit(run):
    """The self-IPI does, and the window in which it waits for IF."""
    number, exits, _, _ = runs.counted(run("exits"), "paravirtual eoi")
    assert number == 1000 and 2 <= exits / number <= 2.05


@pytest.mark.runs("exits-apicv")
def test_apicv_ends_a_level_interrupt(run):
    """The IOAPIC hears of it."""
    assert re.search(r"^monocle: stats: EOI +\d+ exits",
                     run("exits-apicv").log, re.MULTILINE)


@pytest.mark.runs("exits-native")
@pytest.mark.parametrize("name", ON_BARE)
def test_expectation(run, name):
    assert verdict(run("exits-native"), name) == f"{name}: ok"


@pytest.mark.runs("exits", "exits-identity")
@pytest.mark.parametrize("mode", ["exits", "exits-identity"])
def test_end(run, mode):
    result = run(mode)
    assert result.status == 0, result.report()
    assert result.text == "guest exit 0"


@pytest.mark.runs("exits")
@pytest.mark.parametrize("reason", REASONS)
def test_reason_is_counted(run, reason):
    log = run("exits").log
    match = re.search(rf"^monocle: stats: {re.escape(reason)} +(\d+) exits",
                      log, re.MULTILINE)
    assert match and int(match[1]) > 0, log


@pytest.mark.runs("exits")
def test_functions_are_counted(run):
    """The display, by name, at the guest's end."""
    match = re.search(r"^monocle: stats: 00:02\.0: exits: (\d+) configuration, "
                      r"0 MMIO, 0 ports; 0 interrupts, 0 storms, 0 faults$",
                      run("exits").log, re.MULTILINE)
    assert match and int(match[1]) > 0, run("exits").log


@pytest.mark.runs("exits")
@pytest.mark.parametrize("what", ["vga memory", "vga ports", "vga strings"])
def test_legacy_vga_takes_no_exits(run, what):
    """But for the host's own timers."""
    number, exits, ports, mmio = runs.counted(run("exits"), what)
    assert number >= 100000 and ports == mmio == 0 and exits <= 20


@pytest.mark.runs("exits")
def test_mov_cr8_takes_no_exits(run):
    """But for the host's own timers."""
    number, exits, _, _ = runs.counted(run("exits"), "cr8")
    assert number == 1000 and exits <= 20


@pytest.mark.runs("exits")
def test_mov_cr8_exits_for_an_interrupt_that_waits(run):
    """The rest are to send it, and its EOI, over MMIO."""
    number, exits, _, mmio = runs.counted(run("exits"), "cr8 waits")
    assert number == 100 and mmio > 0 and 100 <= exits - mmio <= 120


@pytest.mark.runs("exits-identity")
def test_identity_is_identity(run):
    """Every region of RAM lies at its own host address."""
    rows = re.findall(r"^monocle: region ([0-9a-f]+)-\S+ hpa (\S+) ram",
                      run("exits-identity").log, re.MULTILINE)
    assert rows and all(gpa == hpa for gpa, hpa in rows), rows


@pytest.mark.runs("exits")
def test_relocated_is_not(run):
    rows = re.findall(r"^monocle: region ([0-9a-f]+)-\S+ hpa (\S+) ram",
                      run("exits").log, re.MULTILINE)
    assert rows and all(gpa != hpa for gpa, hpa in rows), rows


@pytest.mark.long
def test_code_in_small_pages():
    result = runs.boot("exits", hv="itlb=split")
    assert result.status == 0, result.report()


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_other_cpus(model):
    result = runs.boot("exits", cpu=model)
    assert result.status == 0, result.report()


for _status in STATUSES:
    runs.define(f"exit {_status}")(functools.partial(
        runs.boot, f"exit status={_status}"))


@pytest.mark.parametrize("status", runs.each(STATUSES, "exit {}"))
def test_exit_status(run, status):
    """What the guest writes to port 0xF4 is what a user gets."""
    result = run(f"exit {status}")
    assert result.status == (10 if status else 0), result.report()
    assert result.text == f"guest exit {status}"
