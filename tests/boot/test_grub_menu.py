# SPDX-License-Identifier: MIT
"""A disk as Debian has it: its GRUB, the grub.cfg that grub-mkconfig wrote for
it, and the first of Monocle's entries, which is started. On LVM it is GRUB that
reads a volume group; only grub-probe is played."""
import functools
import shutil

import pytest

import rigs
from boot import grubroot, runs
from rigs import disk
from rigs.spec import BUILD, DEMO_APPEND, DEMO_INITRD, DEMO_KERNEL

VERSION = "6.1.0-57-amd64"
TIMEOUT = 600
WHY = grubroot.obstacle()


def menu(name, lvm):
    """A disk's root with the demo guest's kernel, as an installed one."""
    root = grubroot.Root(runs.work(name) / "root")
    shutil.copy(runs.MONOCLE or BUILD / "monocle.elf", root.path / "boot")
    shutil.copy(DEMO_KERNEL, root.path / "boot" / f"vmlinuz-{VERSION}")
    shutil.copy(DEMO_INITRD, root.path / "boot" / f"initrd.img-{VERSION}")
    shutil.copy("/etc/grub.d/00_header", root.path / "etc" / "grub.d")
    if lvm:
        root.disk("/", "/boot", device="/dev/mapper/vg-root",
                  abstraction="lvm", hint=disk.LVMID)
    root.set("grub", GRUB_DEFAULT=f"monocle-simple-{grubroot.UUID}",
             GRUB_TIMEOUT=0, GRUB_CMDLINE_LINUX=f'"{DEMO_APPEND}"')
    root.set(MONOCLE_CMDLINE="log=e9")
    root.mkconfig()
    shutil.copy(root.path / "tmp" / "grub.cfg", root.path / "boot" / "grub")
    only = runs.work(name) / "disk"
    only.mkdir()
    (root.path / "boot").rename(only / "boot")
    return only


def boot(name, lvm):
    """Start it without a key, to Linux's shell."""
    image = disk.build(runs.work(name) / "disk.img", menu(name, lvm),
                       grubroot.UUID, lvm=lvm)
    seen = {}
    with rigs.start(rig="bochs", timeout=TIMEOUT, iso=image,
                    bochsrc=disk.bochs(image)) as machine:
        machine.wait_for(rigs.DEMO_READY, TIMEOUT)
        machine.wait_for("demo# ", TIMEOUT)
        seen["cmdline"] = machine.command("cat /proc/cmdline", TIMEOUT)
        seen["version"] = machine.command("monoclectl version", TIMEOUT)
        machine.send("poweroff -f\n")
        seen["result"] = machine.finish()
    return seen


NAMES = {"partition": f"UUID={grubroot.UUID}", "lvm": "/dev/mapper/vg-root"}
for _name in NAMES:
    runs.define(f"grub-{_name}")(functools.partial(
        boot, f"grub-{_name}", _name == "lvm"))


@pytest.mark.skipif(bool(WHY), reason=f"no namespaces: {WHY}")
@pytest.mark.parametrize("name", runs.each(NAMES, "grub-{}", ["partition"]))
def test_the_entry_starts_linux(run, name):
    seen = run(f"grub-{name}")
    assert seen["result"].status == 0, seen["result"].report()
    assert seen["version"].strip().isdigit()
    assert seen["cmdline"].split() == [
        f"root={NAMES[name]}", "ro", *DEMO_APPEND.split(), "quiet"]
