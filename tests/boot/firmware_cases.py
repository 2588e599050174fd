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
DRIVE = "if=none,format=raw,id={},file={}"
# A boot sector's first bytes: hlt, and again.
WAITS = b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
# Of each: the functions, its devices, the driver's modules. NVMe is behind the
# second of two root ports, whose bus the guest numbers anew: it sees no other.
# The stick is named first, beside a disk that would be started before it.
DISKS = {
    "ahci": (AHCI, ("ich9-ahci,id=sata,addr=08.0",
                    "ide-hd,bus=sata.0,drive=own"), "ahci,sd_mod"),
    "nvme": ("02:00.0", (
        "pcie-root-port,id=rp0,addr=1c.0,chassis=1,multifunction=on",
        "pcie-root-port,id=rp4,addr=1c.4,chassis=2",
        "nvme,bus=rp4,drive=own,serial=1"), "nvme"),
    "usb": (f"00:09.0 assign={AHCI}",
            ("qemu-xhci,id=hub,addr=09.0", "usb-storage,bus=hub.0,drive=own",
             "ich9-ahci,id=sata,addr=08.0", "ide-hd,bus=sata.0,drive=other"),
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


def image(name, menu, files):
    """A disk of its own, and files {path: file}; its path."""
    root = runs.work(f"firmware-{name}") / "root"
    (root / "boot" / "grub").mkdir(parents=True)
    for path, file in files.items():
        shutil.copy(file, root / path)
    (root / "boot" / "grub" / "grub.cfg").write_text(menu)
    return disk.build(root.parent / "disk.img", root, grubroot.UUID, SIZE)


def other():
    path = runs.work("firmware-other")
    path.write_bytes(WAITS.ljust(1 << 20, b"\0"))
    return path


def seabios(name, path):
    """SeaBIOS, and the disk behind that kind of controller. The machine's own
    firmware starts Monocle from the CD."""
    at, devices, _ = DISKS[name]
    drives = {"own": path}
    if "drive=other" in devices[-1]:
        drives["other"] = other()
    return Spec(rig="nested", module=False, modules=((SEABIOS, "firmware"),),
                memory=256, timeout=runs.TIMEOUT, hv=f"assign={at}",
                monocle=runs.MONOCLE, devices=devices,
                drives=tuple(map(DRIVE.format, drives, drives.values())),
                qemu=("-boot", "d"))


def own(name, timeout=0):
    """... from which GRUB starts Debian's kernel, which writes to it."""
    return image(f"{name}-{timeout}", MENU.format(
        timeout=timeout, entry=ENTRY, uuid=grubroot.UUID,
        modules=DISKS[name][2], append=f"{DEMO_APPEND} tsc=reliable"),
        {"boot/vmlinuz": KERNEL, "boot/initrd.img": INITRD})


@define
def seabios_menu():
    """The last that GRUB draws is how long it waits."""
    return Case(seabios("ahci", own("ahci", 60)),
                dump_at="executed automatically", picture=True)


def own_disk(name):
    return Case(seabios(name, own(name)), drives_back=True)


for _name in DISKS:
    _case = functools.partial(own_disk, _name)
    _case.__name__ = f"seabios-{_name}"
    define(_case)
