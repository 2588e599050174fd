# SPDX-License-Identifier: MIT
"""A disk with GRUB and what it starts, and firmware that starts that, nested."""
import functools
import pathlib
import shutil
import struct

from bench.firmware import SEABIOS
from boot import grubroot, rom, runs
from boot.nested_cases import (AHCI, ATI_BIOS, GFXTERM, INITRD, define, ovmf,
                               typed)
from rigs import disk
from rigs.nested import Case
from rigs.spec import BUILD, DEMO_APPEND, DEMO_INITRD, DEMO_KERNEL, Spec

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
# What GRUB starts besides, from the file "tool"; without one it has a shell.
CACHE = BUILD / "cache"
MEMTEST, IPXE = CACHE / "memtest86+" / "boot", CACHE / "ipxe" / "boot"
OPTIONS = "console=ttyS0 nosm nosmp nopause keyboard=legacy"
TOOLS = {
    ("seabios", "shell"): ("", None),
    ("ovmf", "shell"): ("", None),
    ("seabios", "memtest"): (f"linux /tool {OPTIONS}",
                             MEMTEST / "memtest86+x64.bin"),
    ("ovmf", "memtest"): (f"linux /tool {OPTIONS}",
                          MEMTEST / "memtest86+x64.efi"),
    ("seabios", "ipxe"): ("linux16 /tool", IPXE / "ipxe.lkrn"),
    ("ovmf", "ipxe"): ("chainloader /tool", IPXE / "ipxe.efi"),
}
SAID = "a file of this disk"
CTRL_B = ("send-key", {"hold-time": 30, "keys": [
    {"type": "qcode", "data": key} for key in ("ctrl", "b")]}),
# The text that ends it, and those at which something is typed. What GRUB says is
# on the screen when it asks again. Tests 0 to 2 of memtest86+ are soon over.
TALK = {
    "shell": ("not found", (("grub>", typed("cat /said")),
                            (SAID, typed("cat /nothing")))),
    "memtest": ("[Moving inversions", ()),
    "ipxe": ("version 1.0.", (
        ("Press Ctrl-B", CTRL_B),
        ("iPXE>", typed("echo version ${version}")))),
}


def image(name, menu, files):
    """A disk of its own, and files {path: file}; its path."""
    root = runs.work(f"firmware-{name}") / "root"
    (root / "boot" / "grub").mkdir(parents=True)
    for path, file in files.items():
        shutil.copy(file, root / path)
    (root / "boot" / "grub" / "grub.cfg").write_text(menu)
    return disk.build(root.parent / "disk.img", root, grubroot.UUID, SIZE)


def without_a_disk(append):
    """Modules by which firmware starts Debian's kernel though no disk is there:
    its files, and the VGA's ROM with tests/guests/bios/config.asm behind it."""
    at = 0xc000
    data = rom.VGABIOS.read_bytes().ljust(at, b"\0") + (
        BUILD / "guests" / "config.bin").read_bytes() + (
            f"{DEMO_APPEND} {append}\0").encode()
    data = bytearray(data.ljust((len(data) // 512 + 1) * 512, b"\0"))
    jump, own = struct.unpack_from("<BH", data, 3)
    assert jump == 0xe9
    struct.pack_into("<H", data, 4, at - 6)
    struct.pack_into("<H", data, at + 3, 6 + own)
    # PCI Firmware 3.0, 5.1: the size, twice
    data[2] = data[data.find(b"PCIR") + 16] = len(data) // 512
    return (*rom.file("config", rom.sealed(data)),
            (DEMO_KERNEL, "opt/vmlinuz"), (DEMO_INITRD, "opt/initrd"))


def other():
    path = runs.work("firmware-other")
    path.write_bytes(WAITS.ljust(1 << 20, b"\0"))
    return path


def seabios(name, path, hv=""):
    """SeaBIOS, and the disk behind that kind of controller. The machine's own
    firmware starts Monocle from the CD."""
    at, devices, _ = DISKS[name]
    drives = {"own": path}
    if "drive=other" in devices[-1]:
        drives["other"] = other()
    return Spec(rig="nested", module=False, modules=((SEABIOS, "firmware"),),
                memory=256, timeout=runs.TIMEOUT,
                hv=f"assign={at} {hv}".strip(),
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


def tool(firmware, name):
    """With as little memory as this firmware takes: where it has room for its
    caches' sizes eight times, memtest86+ 6.10 measures it, `nobench` or not."""
    command, program = TOOLS[firmware, name]
    said = runs.work("said")
    said.write_text(f"{SAID}\n")
    files = {"said": said, **({"tool": program} if program else {})}
    start = f"{command}\nboot\n" if command else ""
    if firmware == "seabios":
        made = seabios("ahci", image(f"tool-{name}", "serial\n"
                                     "terminal_output console serial\n" + start,
                                     files), "memory=64M")
    else:
        made = ovmf(disk.esp(runs.work(f"tool-{name}"),
                             f"serial\n{GFXTERM}\n{start}", {
                                 f"/{path}": file
                                 for path, file in files.items()}),
                    hv="memory=128M", timeout=runs.TIMEOUT)
    text, before = TALK[name]
    return Case(made, dump_at=text, before=before, picture=True,
                look=firmware == "seabios", files=ATI_BIOS)


def define_as(name, make, *words):
    case = functools.partial(make, *words)
    case.__name__ = name
    define(case)


for _name in DISKS:
    define_as(f"seabios-{_name}", own_disk, _name)
for _words in TOOLS:
    define_as("-tool-".join(_words), tool, *_words)
