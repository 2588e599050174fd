#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Pack the nested rig's initrd: busybox, KVM's modules, this machine's QEMU.

    initrd.py --root UNPACKED_KERNEL_PACKAGE --busybox FILE --init FILE
              --output FILE [--qemu FILE]
"""
import argparse
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "demo"))
from initrd import archive, load_order  # noqa: E402

MODULES = ("kvm_intel", "ata_piix", "sd_mod")
ROMS = ("bios-256k.bin", "vgabios-stdvga.bin", "kvmvapic.bin",
        "linuxboot_dma.bin")
ROM_PLACES = ("/usr/share/seabios", "/usr/share/qemu")
DIRECTORY = stat.S_IFDIR | 0o755
PROGRAM = stat.S_IFREG | 0o755
LINK = stat.S_IFLNK | 0o777
NULL = (0, 0)


def libraries(program):
    """Shared libraries of a program, the loader with them: {name: file}."""
    text = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    paths = re.findall(r"(/\S+) \(0x", text)
    return {pathlib.Path(path).name: pathlib.Path(path).resolve()
            for path in paths}


def rom(name):
    """Where a ROM image of QEMU's is."""
    for place in ROM_PLACES:
        path = pathlib.Path(place, name)
        if path.exists():
            return path
    sys.exit(f"initrd.py: no {name} in {', '.join(ROM_PLACES)}")


def modules(root):
    """Module files in the order of loading."""
    order = []
    for name in MODULES:
        order += [path for path in load_order(root, name)
                  if path not in order]
    return order


def members_of(args):
    """Everything that goes into the archive."""
    names = ("bin", "dev", "lib", "lib64", "proc", "sys", "tmp", "usr",
             "usr/bin",
             "usr/share", "usr/share/qemu")
    members = [(name, DIRECTORY, b"", NULL) for name in names]
    # The kernel opens /dev/console before there is a devtmpfs.
    members.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
    members.append(("bin/sh", LINK, b"busybox", NULL))
    order = modules(args.root)
    members.append(("lib/modules.load", stat.S_IFREG | 0o644,
                    "".join(f"{path.name}\n" for path in order).encode(),
                    NULL))
    files = {"init": args.init, "bin/busybox": args.busybox,
             "usr/bin/qemu-system-x86_64": args.qemu}
    files.update((f"lib/{path.name}", path) for path in order)
    for name, path in libraries(args.qemu).items():
        where = "lib64" if name.startswith("ld-linux") else "lib"
        files[f"{where}/{name}"] = path
    files.update((f"usr/share/qemu/{name}", rom(name)) for name in ROMS)
    members += [(name, PROGRAM, pathlib.Path(path).read_bytes(), NULL)
                for name, path in files.items()]
    return members


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--busybox", type=pathlib.Path, required=True)
    parser.add_argument("--init", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    args = parser.parse_args()
    args.qemu = shutil.which(args.qemu) or sys.exit("initrd.py: no QEMU")
    # An emulator unpacks zstd about as quickly as it reads what that saves.
    partial = args.output.with_suffix(".partial")
    with open(partial, "wb") as file:
        subprocess.run(["zstd", "-q", "-15", "-T0", "-c"], stdout=file,
                       input=archive(members_of(args)), check=True)
    os.replace(partial, args.output)


if __name__ == "__main__":
    main()
