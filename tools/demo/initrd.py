#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Pack the demo guest's initrd: busybox, /init, a few modules, extra files.

    initrd.py --root UNPACKED_KERNEL_PACKAGE --busybox FILE --init FILE
              --output FILE [--drm MODULE] [--modules "NAME ..."] [FILE ...]

Modules come with those they need, where modprobe finds them.

The archive is "newc" (Documentation/driver-api/early-userspace/buffer-format
of the Linux kernel), not compressed (an emulator unpacks slowly), with fixed
owner, time and order: the same input gives the same bytes.
"""
import argparse
import os
import pathlib
import re
import stat


def entry(number, name, mode, data=b"", rdev=(0, 0)):
    """One member of a newc archive."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev,
              len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    record = head + path
    record += bytes(-len(record) % 4) + data
    return record + bytes(-len(data) % 4)


def archive(members):
    """A newc archive of (name, mode, data, rdev) tuples."""
    blob = b"".join(entry(i, *member)
                    for i, member in enumerate(sorted(members), 1))
    blob += entry(0, "TRAILER!!!", 0)
    return blob + bytes(-len(blob) % 512)


def depends(module):
    """Names of the modules that this one needs (its .modinfo section)."""
    match = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    return [name for name in match[1].decode().split(",") if name]


def load_order(root, name):
    """A module's file and those it needs, in the order of loading."""
    files = {path.stem.replace("-", "_"): path
             for path in pathlib.Path(root).glob("lib/modules/**/*.ko")}
    order = []

    def visit(name):
        path = files[name.replace("-", "_")]
        if path not in order:
            for needed in depends(path):
                visit(needed)
            order.append(path)
    visit(name)
    return order


def modules(args):
    """Members below lib: modules as depmod would leave them, but flat; and
    the DRM driver's in the order of loading."""
    file, directory, null = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, (0, 0)
    version, = (path.name for path in args.root.glob("lib/modules/*"))
    drm = load_order(args.root, args.drm) if args.drm else []
    files = dict.fromkeys(drm + [
        path for name in args.modules.split()
        for path in load_order(args.root, name)])
    lines = []
    for path in files:
        *needed, _ = load_order(args.root, path.stem)
        lines.append(f"{path.name}: "
                     f"{' '.join(other.name for other in reversed(needed))}")
    place = f"modules/{version}"
    members = [(f"lib/{name}", directory, b"", null)
               for name in ("modules", place)]
    members += [(f"lib/{place}/{path.name}", file, path.read_bytes(), null)
                for path in files]
    for name, text in ((f"{place}/modules.dep", lines),
                       ("modules.drm", [f"{place}/{path.name}"
                                        for path in drm])):
        data = "".join(f"{line}\n" for line in text)
        members.append((f"lib/{name}", file, data.encode(), null))
    return members


def members_of(args):
    """Everything that goes into the archive."""
    directory = stat.S_IFDIR | 0o755
    program = stat.S_IFREG | 0o755
    null = (0, 0)
    members = [(name, directory, b"", null)
               for name in ("bin", "dev", "lib", "proc", "sys", "tmp")]
    # The kernel opens /dev/console before there is a devtmpfs.
    members.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
    members.append(("init", program, args.init.read_bytes(), null))
    members.append(("bin/busybox", program, args.busybox.read_bytes(), null))
    members.append(("bin/sh", stat.S_IFLNK | 0o777, b"busybox", null))
    members += modules(args)
    members += [(f"bin/{path.name}", program, path.read_bytes(), null)
                for path in args.files]
    return members


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--busybox", type=pathlib.Path, required=True)
    parser.add_argument("--init", type=pathlib.Path, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--drm", help="DRM driver for demo.drm")
    parser.add_argument("--modules", default="",
                        help="names, for modprobe, separated by spaces")
    parser.add_argument("files", type=pathlib.Path, nargs="*",
                        help="programs for /bin")
    args = parser.parse_args()
    partial = args.output.with_suffix(".partial")
    partial.write_bytes(archive(members_of(args)))
    os.replace(partial, args.output)


if __name__ == "__main__":
    main()
