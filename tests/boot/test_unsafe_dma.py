# SPDX-License-Identifier: MIT
"""An assigned function without an IOMMU, as the user asked for it: Bochs's
e1000 and Debian's driver. What is refused: test_refusals.py."""
import re
import sys

import pytest

from boot import runs
from rigs.spec import BUILD, DEMO_INITRD

sys.path.insert(0, str(BUILD.parent / "tools" / "demo"))
import initrd  # noqa: E402

DRIVER = "e1000"
MAC = "52:54:00:12:34:56"       # tests/rigs/bochs.py
ASK = """insmod /lib/e1000.ko; cd /sys/class/net/eth0
echo driver $(readlink device/driver)
echo at $(readlink device)
echo mac $(cat address)
ifconfig eth0 10.0.0.1 up
echo interrupts $(grep eth0 /proc/interrupts)
dmesg | grep e1000"""


@runs.define("unsafe DMA")
def unsafe_dma():
    """The demo guest, with the driver in a second archive behind its own."""
    module, = initrd.load_order(BUILD / "cache" / "linux-image-amd64", DRIVER)
    archive = runs.work("initrd-e1000")
    archive.write_bytes(DEMO_INITRD.read_bytes() + initrd.archive([
        ("lib/e1000.ko", 0o100644, module.read_bytes(), (0, 0))]))
    return runs.boot(
        kernel=None, initrd=str(archive), memory=512, timeout=300,
        append='demo.run="' + "; ".join(ASK.splitlines()) + '"',
        hv="assign=00:03.0,gsi=11 iommu=off unsafe-dma ram=identity")


@pytest.mark.long
@pytest.mark.runs("unsafe DMA")
def test_what_it_means_is_said(run):
    warnings = re.findall("^monocle: warning: (.*)$", run("unsafe DMA").log,
                          re.MULTILINE)
    assert "iommu=off unsafe-dma ram=identity: what is assigned can read and " \
        "write all memory, Monocle's too" in warnings
    assert not any("nothing is assigned" in line for line in warnings)


@pytest.mark.long
@pytest.mark.runs("unsafe DMA")
def test_debians_driver_finds_its_card(run):
    done = run("unsafe DMA")
    assert done.status == 0, done.report()
    told = dict(re.findall(r"^(driver|at|mac|interrupts) (.*?)\r?$",
                           done.serial, re.MULTILINE))
    assert told["driver"].endswith("/e1000")
    assert told["at"].endswith("/0000:00:03.0")
    assert told["mac"] == MAC
    # It raises one itself when it is brought up (ICS, by the driver).
    assert re.match(r"19: +[1-9]", told["interrupts"])
    assert "Intel(R) PRO/1000 Network Connection" in done.serial
