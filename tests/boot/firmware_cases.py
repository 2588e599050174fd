# SPDX-License-Identifier: MIT
"""A disk with GRUB and Debian's kernel, and SeaBIOS that starts it, nested."""
import functools
import pathlib
import shutil

from boot import grubroot, runs
from boot.nested_cases import AHCI, INITRD, define
from rigs import disk
from rigs.nested import Case
from rigs.spec import BUILD, DEMO_APPEND, Spec

SEABIOS = pathlib.Path("/usr/share/seabios/bios-256k.bin")
TEXT = pathlib.Path(__file__)       # any file
ENTRY = "Debian of this disk"
KERNEL = next((BUILD / "cache" / "linux-image-amd64" / "boot").glob(
    "vmlinuz-*"), None)
SIZE = 48                           # MiB
DRIVE = "id=own,if=none,format=raw,file="
# Of each: the function, its devices, the driver's modules. NVMe is behind the
# second of two root ports, whose bus the guest numbers anew: it sees no other.
DISKS = {
    "ahci": (AHCI, ("ich9-ahci,id=sata,addr=08.0",
                    "ide-hd,bus=sata.0,drive=own"), "ahci,sd_mod"),
    "nvme": ("02:00.0", (
        "pcie-root-port,id=rp0,addr=1c.0,chassis=1,multifunction=on",
        "pcie-root-port,id=rp4,addr=1c.4,chassis=2",
        "nvme,bus=rp4,drive=own,serial=1"), "nvme"),
    "usb": ("00:09.0", ("qemu-xhci,id=hub,addr=09.0",
                        "usb-storage,bus=hub.0,drive=own"),
            "xhci_pci,usb_storage,sd_mod"),
}
MENU = """serial
terminal_output console serial
set timeout={timeout}
menuentry '{entry}' {{
	linux /boot/vmlinuz {append} demo.run='tasks own={uuid},{modules}'
	initrd /boot/initrd.img
}}
"""


def image(name, modules, timeout):
    """A disk of its own; its path."""
    root = runs.work(f"firmware-{name}") / "root"
    (root / "boot" / "grub").mkdir(parents=True)
    shutil.copy(KERNEL, root / "boot" / "vmlinuz")
    shutil.copy(INITRD, root / "boot" / "initrd.img")
    (root / "boot" / "grub" / "grub.cfg").write_text(MENU.format(
        timeout=timeout, entry=ENTRY, uuid=grubroot.UUID, modules=modules,
        append=f"{DEMO_APPEND} tsc=reliable"))
    return disk.build(root.parent / "disk.img", root, grubroot.UUID, SIZE)


def spec(name, timeout=0, **fields):
    """SeaBIOS, and the disk behind that kind of controller. The machine's own
    firmware starts Monocle from the CD."""
    at, devices, modules = DISKS[name]
    path = image(f"{name}-{timeout}", modules, timeout)
    return Spec(rig="nested", module=False, modules=((SEABIOS, "firmware"),),
                memory=256, timeout=runs.TIMEOUT, hv=f"assign={at}",
                monocle=runs.MONOCLE, devices=devices, drives=(DRIVE + str(path),),
                qemu=("-boot", "d"), **fields)


@define
def seabios_menu():
    """The last that GRUB draws is how long it waits."""
    return Case(spec("ahci", timeout=60), dump_at="executed automatically",
                picture=True)


def own_disk(name):
    return Case(spec(name), drives_back=True)


for _name in DISKS:
    _case = functools.partial(own_disk, _name)
    _case.__name__ = f"seabios-{_name}"
    define(_case)
