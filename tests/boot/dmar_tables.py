# SPDX-License-Identifier: MIT
"""DMAR tables of our own (VT-d chapter 8), in the place of firmware's."""
import struct

from boot import runs

UNIT = 0xfed90000           # QEMU's, of its q35 machine
ECAM = 0xb0000000
EDU, VGA, AHCI = 0x28, 0x10, 0xfa


def scope(bdf, kind=1, ident=0):
    return struct.pack("<BBHBBBB", kind, 8, 0, ident, bdf >> 8, bdf >> 3 & 31,
                       bdf & 7)


def structure(kind, body):
    return struct.pack("<HH", kind, 4 + len(body)) + body


def unit_at(base, *scopes, everything=False):
    return structure(0, struct.pack("<BBHQ", everything, 0, 0, base) +
                     b"".join(scopes))


def rmrr(base, limit, *scopes):
    return structure(1, struct.pack("<HHQQ", 0, 0, base, limit) +
                     b"".join(scopes))


def dmar(*structures, width=48, flags=1):
    body = bytes([width - 1, flags]) + bytes(10) + b"".join(structures)
    head = struct.pack("<4sIBB6s8sI4sI", b"DMAR", 36 + len(body), 1, 0,
                       b"TEST  ", b"TEST    ", 1, b"TEST", 1)
    table = bytearray(head + body)
    table[9] = -sum(table) & 0xff
    return bytes(table)


IOAPIC = scope(0xff00, kind=3, ident=0)
ALL = unit_at(UNIT, IOAPIC, everything=True)


def with_table(name, table, make, **fields):
    """make() with the firmware's DMAR table replaced."""
    file = runs.work(f"dmar-{name}")
    file.write_bytes(table)
    return make(grub=("acpi --exclude=DMAR /boot/dmar",),
                files={"/boot/dmar": file}, **fields)
