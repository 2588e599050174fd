# SPDX-License-Identifier: MIT
"""Guests of others, as Debian's packages have them: other releases' kernels,
Xen with a Linux on it, and iPXE in real mode."""
import gzip
import time

import pytest

import rigs
from boot import runs, screen
from boot.realmode import HV
from rigs.spec import BUILD, DEMO_APPEND, DEMO_INITRD, DEMO_READY

# Beside the emulator's own limit.
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

CACHE = BUILD / "cache"
TIMEOUT = 1800
KERNELS = {"5.10": "linux-image-amd64@bullseye", "6.1": "linux-image-amd64",
           "6.12": "linux-image-6.12-amd64"}


def kernel(package):
    image, = (CACHE / package / "boot").glob("vmlinuz-*")
    return image


@pytest.mark.parametrize("version", KERNELS)
def test_a_kernel_of_debians(version):
    """Unpacked by itself, to a shell and to its end."""
    spec = rigs.Spec(rig="bochs", kernel=kernel(KERNELS[version]),
                     initrd=DEMO_INITRD, append=DEMO_APPEND, timeout=TIMEOUT,
                     monocle=runs.MONOCLE)
    with rigs.start(spec) as machine:
        machine.wait_for(DEMO_READY, TIMEOUT)
        machine.wait_for("demo# ", TIMEOUT)
        assert machine.command("uname -r", TIMEOUT).startswith(version + ".")
        machine.send("poweroff -f\n")
        assert machine.finish().status == 0


def test_xen():
    """Its dom0 is Debian's kernel, reaches a shell, and powers off."""
    xen = runs.work("xen")
    package = CACHE / "xen-hypervisor-4.17-amd64"
    xen.write_bytes(gzip.decompress(
        (package / "boot" / "xen-4.17-amd64.gz").read_bytes()))
    dom0 = DEMO_APPEND.replace("console=ttyS0 quiet", "console=hvc0") + \
        " demo.run='echo dom0 on $(cat /sys/hypervisor/type): $((6*7))'"
    spec = rigs.Spec(
        rig="bochs", memory=768, timeout=TIMEOUT, kernel=xen,
        append="no-real-mode console=com1 com1=115200,8n1 dom0_mem=256M",
        modules=((kernel(KERNELS["6.1"]), f"module vmlinuz {dom0}"),
                 (DEMO_INITRD, "module initrd.img")), monocle=runs.MONOCLE)
    with rigs.start(spec) as machine:
        machine.wait_for("Xen version 4.17", TIMEOUT)
        machine.wait_for("dom0 on xen: 42", TIMEOUT)
        assert machine.finish().status == 0


def shows(machine, line, path):
    """Waits until the screen has this line; its number among the lines."""
    end = time.monotonic() + 300
    lines = []
    while line not in lines:
        assert time.monotonic() < end, lines
        machine.screenshot(path)
        lines = screen.read(screen.text_picture(path))
    return lines.index(line)


def test_ipxe():
    """Entered in real mode, it unpacks itself by what INT 15h tells; its shell
    has a screen and a keyboard."""
    path = runs.work("ipxe.png")
    spec = rigs.Spec(rig="bochs", timeout=TIMEOUT, append="shell", hv=HV,
                     kernel=CACHE / "ipxe" / "boot" / "ipxe.lkrn",
                     monocle=runs.MONOCLE)
    with rigs.start(spec) as machine:
        prompt = shows(machine, "iPXE>", path)
        machine.type("echo ${buildarch}\n")
        assert shows(machine, "i386", path) > prompt
