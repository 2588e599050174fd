# SPDX-License-Identifier: MIT
"""Guests of others, as Debian's packages have them: other releases' kernels,
and Xen with a Linux on it."""
import gzip

import pytest

import rigs
from boot import runs
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
