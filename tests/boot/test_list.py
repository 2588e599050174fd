# SPDX-License-Identifier: MIT
"""The option list, as a user meets it: before there is a guest, and on a
machine that cannot run one."""
import re

import pytest

from boot import runs

ROW = re.compile(r"^monocle: (\w\w:\w\w\.\d) (\w{4}:\w{4}) (\w{4}) (.{11}) "
                 r"(.{10}) (.{6}) (.{4}) (.{4}) (yes|no|name|gsi=)$", re.MULTILINE)


MORE = "-- more in 20 s, or at a key --"


@runs.define("list")
def on_bochs():
    return runs.boot(hv="list", module=False)


@runs.define("list-tcg")
def on_tcg():
    """No VMX; functions with FLR and MSI-X, and one behind a port; a root
    bus with a port of its own, and a function behind that."""
    return runs.boot(rig="tcg", hv="list", module=False, memory=256, devices=(
        "nvme,serial=1,addr=06.0", "pcie-root-port,id=rp,addr=07.0",
        "e1000e,bus=rp", "pxb-pcie,id=root,bus_nr=0x64,addr=08.0",
        "pcie-root-port,id=rp2,bus=root,addr=04.0,chassis=2",
        "nvme,serial=2,bus=rp2"))


@runs.define("list-screen")
def on_screen():
    """As on a machine without a serial line; whoever has a keyboard is quick."""
    with runs.start(hv="list log=screen,e9", module=False) as machine:
        at = machine.wait_for(MORE, runs.TIMEOUT, "log")
        machine.key(" ")
        machine.wait_for("-- off in 120 s, or at a key --", runs.TIMEOUT,
                         "log", at)
        machine.key(" ")
        return machine.finish()


@runs.define("list-no-keyboard")
def without_a_keyboard():
    """Nor a serial line; an instruction takes a microsecond."""
    return runs.boot(rig="tcg", hv="list log=screen,e9", module=False,
                     memory=256, qemu=("-icount", "shift=10,sleep=off"))


def rows(result):
    """{function: the row's other fields}."""
    assert (result.status, result.text) == (0, "list"), result.report()
    # The plan's own lines, which come next, are as they are at a start.
    assert all(len(line) <= 80 or re.search(": (error|warning|assign.*): ",
                                            line)
               for line in listed(result)), result.report()
    return {row[0]: tuple(field.strip() for field in row[1:])
            for row in ROW.findall(result.log)}


def listed(result):
    """The lines from the table's head on."""
    lines = result.log.splitlines()
    return lines[next(n for n, line in enumerate(lines)
                      if line.startswith("monocle: function ID")):]


def of(result, function):
    """The indented lines below a function's row."""
    lines = iter(listed(result))
    next(line for line in lines if line.startswith(f"monocle: {function}"))
    out = []
    for line in lines:
        if not line.startswith("monocle:  "):
            return " ".join(out)
        out.append(" ".join(line.split()[1:]))
    raise AssertionError("no end")


@pytest.mark.runs("list")
def test_bochs(run):
    result = run("list")
    found = rows(result)
    assert found["00:02.0"] == ("1234:1111", "0300", "display", "none", "none",
                                "64K", "-", "yes")
    assert found["00:03.0"][:2] == ("8086:100e", "0200")
    assert found["00:03.0"][-1] == "no"
    assert of(result, "00:02.0") == \
        "BARs 0: 16M memory (prefetchable) at 0xc0000000"
    assert "not, as it needs an IOMMU: switch VT-d on in the firmware's " \
        "setup" in of(result, "00:03.0")
    assert result.log.splitlines()[-4:-1] == [
        "monocle: IOMMU: no DMAR table: switch VT-d on in the firmware's "
        "setup",
        "monocle: this machine will do for a guest and its display only",
        "monocle:   multiboot2 /boot/monocle.elf log=e9"]


@pytest.mark.runs("list-tcg")
def test_tcg(run):
    result = run("list-tcg")
    found = rows(result)
    assert found["00:05.0"] == ("1234:11e8", "00ff", "", "MSI 1", "none", "-",
                                "0", "name")
    assert found["00:06.0"][2:5] == ("NVMe", "MSI-X 65", "FLR")
    assert found["00:07.0"][2] == "PCI bridge"
    assert found["01:00.0"][2:6] == ("network", "MSI-X 5", "D3hot",
                                     "256K")
    assert "MSI, PCI Express, MSI-X" in of(result, "01:00.0")
    assert "not, as it is a bridge" in of(result, "00:1f.0")
    assert "beside 00:1f.3" in of(result, "00:1f.2")
    assert "error: this CPU has no VMX" in result.log
    assert result.log.splitlines()[-3:-1] == [
        "monocle: IOMMU: VT-d, interrupts remapped",
        "monocle: this machine will not do: see the error above"]
    # On the other root bus, and behind a port there
    assert ", 2 of them roots" in result.log
    assert found["64:04.0"][2] == "PCI bridge"
    assert found["65:00.0"][2] == "NVMe"
    assert re.search("^monocle: root bus 64\nmonocle: 64:04.0 (?s:.*)^"
                     "monocle: 65:00.0 ", result.log, re.MULTILINE)
    assert "assigned: 65:00.0" in result.log
    # What a guest would get, all the same
    assert "assigned: 01:00.0" in result.log
    assert "not 00:05.0, class 00ff: it is assigned by name only" in result.log


@pytest.mark.parametrize("name", runs.each(["list-screen",
                                            "list-no-keyboard"]))
def test_a_screen_is_read_page_by_page(run, name):
    """The machine stays on until the last line was read."""
    result = run(name)
    assert result.status == 0, result.report()
    lines = result.log.splitlines()
    assert lines[-2] == "monocle: -- off in 120 s, or at a key --"
    first = lines.index(listed(result)[0])
    stops = [n for n, line in enumerate(lines) if MORE in line]
    assert stops, result.report()
    # Of the screen's 25 rows: the prompt and the cursor have one each.
    assert sum((len(line) + 79) // 80 for line in lines[first:stops[0]]) == \
        23, result.report()
