# SPDX-License-Identifier: MIT
"""Option ROMs for GRUB's modules."""
import pathlib

from boot import runs

VGABIOS = pathlib.Path("/usr/share/bochs/VGABIOS-lgpl-latest")


def sealed(data):
    """With a right checksum."""
    data = bytearray(data)
    data[-1] = (data[-1] - sum(data)) & 0xff
    return bytes(data)


def file(name, data):
    """A module for GRUB."""
    path = runs.work(f"rom-{name}")
    path.write_bytes(data)
    return ((path, f"rom {name}"),)
