# SPDX-License-Identifier: MIT
"""Where the log goes on a machine without COM1."""
import struct

import pytest

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
