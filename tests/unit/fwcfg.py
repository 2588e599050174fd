# SPDX-License-Identifier: MIT
"""fw_cfg as firmware reads it, by ports (QEMU's docs/specs/fw_cfg.rst)."""
import struct

PORT, DATA = 0x510, 0x511


def read(machine, key, size):
    """SeaBIOS' qemu_cfg_read_entry(); machine has out() and inp()."""
    machine.out(PORT, key, 2)
    return bytes(machine.inp(DATA) for _ in range(size))


def directory(machine):
    """{name: (key, size)}"""
    count, = struct.unpack(">I", read(machine, 0x19, 4))
    raw = read(machine, 0x19, 4 + 64 * count)[4:]
    return {name.rstrip(b"\0").decode(): (key, size)
            for size, key, _, name in struct.iter_unpack(">IHH56s", raw)}


def file(machine, name):
    """Its bytes, or None."""
    found = directory(machine).get(name)
    return found and read(machine, *found)
