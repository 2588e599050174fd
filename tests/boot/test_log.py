# SPDX-License-Identifier: MIT
"""Where the log goes on a machine without COM1."""
import struct

import pytest

import rigs.iso

from boot import runs


def spcr(port):
    """Microsoft's SPCR, revision 2: a 16550 at I/O ports."""
    body = struct.pack("<B3xBBBBQ", 0, 1, 8, 0, 1, port) + bytes(28)
    table = bytearray(struct.pack("<4sIBB6s8sI4sI", b"SPCR", 36 + len(body), 2,
                                  0, b"TEST  ", b"TEST    ", 1, b"TEST", 1) +
                      body)
    table[9] = -sum(table) & 0xff
    return bytes(table)


def file(name):
    """What QEMU wrote from a serial port."""
    return runs.work(f"log-{name}")


@runs.define("log-ports")
def ports():
    """AMT's place, 00:16.3; and a port that no PC has at these ports."""
    file("spcr").write_bytes(spcr(0x3000))
    return runs.boot(
        rig="tcg", hv="list log=e9,pci,uart", module=False, memory=256,
        grub=("acpi /boot/spcr",), files={"/boot/spcr": file("spcr")},
        qemu=[word for name in ("sol", "uart")
              for word in ("-chardev", f"file,id={name},path={file(name)}")],
        devices=("edu,addr=16.0,multifunction=on",
                 "pci-serial,addr=16.3,chardev=sol",
                 "isa-serial,iobase=0x3000,irq=5,chardev=uart"))


@pytest.mark.runs("log-ports")
@pytest.mark.parametrize("name", ["sol", "uart"])
def test_a_port_that_is_found_late_has_the_whole_log(run, name):
    result = run("log-ports")
    assert result.status == 0, result.report()
    assert "monocle: Monocle " in result.log
    text = file(name).read_text()
    assert text.replace("\r\n", "\n") == result.log, text


@pytest.mark.runs("log-ports")
def test_it_stays_monocles(run):
    log = run("log-ports").log
    row = log[log.index("monocle: 00:16.3 "):]
    assert "serial port" in row.split("\n")[0] and " no\n" in row
    assert "is a serial port, which stays Monocle's: log=pci" in \
        " ".join(row.replace("monocle:", "").split())


@runs.define("log-last")
def last():
    """A start, the reset button, and a start with `list`."""
    words = {"rig": "tcg", "module": False, "memory": 1024,
             "qemu": ("-action", "reboot=reset")}
    second = runs.work("log-last")
    second.mkdir()
    image = rigs.iso.build(runs.spec(**words), "log=e9 list", second)
    with runs.start(**words) as machine:
        machine.wait_for("monocle: end: 4 refused", runs.TIMEOUT, "log")
        first = machine.text("log")
        machine.qmp.command("blockdev-change-medium", device="ide2-cd0",
                            filename=str(image))
        with machine.change:
            machine.streams["log"], machine.ended = b"", None
        machine.qmp.command("system_reset")
        return first, machine.finish()


@pytest.mark.runs("log-last")
def test_list_shows_the_end_of_the_last_start(run):
    """QEMU's reset keeps memory, as many a machine's does."""
    first, result = run("log-last")
    assert (result.status, result.text) == (0, "list"), result.report()
    kept = first.index("monocle: log: kept at ")
    assert "last start" not in first
    told = [line.removeprefix("monocle: last start: ")
            for line in result.log.splitlines() if "last start: " in line]
    lines = first.splitlines()
    assert len(told) > 5 and told[1:] == lines[len(lines) - len(told) + 1:]
    # Before the verdict, behind what the list has to say.
    assert result.log.rindex("last start: ") < result.log.index("IOMMU: ") \
        and "assign" in result.log[:result.log.index("last start: ")]
    assert kept and "\nmonocle: log: kept at" not in result.log
