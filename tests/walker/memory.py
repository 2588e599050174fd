# SPDX-License-Identifier: MIT
"""Physical memory as a function read(address, size) -> bytes."""

import mmap
import struct


class TableError(Exception):
    """A table that hardware would refuse: a reserved bit, a bad pointer."""


class Dump:
    """A file that holds physical memory from `base` on."""

    def __init__(self, path, base=0):
        self.base = base
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __call__(self, address, size):
        at = address - self.base
        if at < 0 or at + size > len(self._map):
            raise TableError(f"{address:#x} is not in the dump")
        return self._map[at:at + size]


def table(read, address):
    """The 512 quadwords of a page."""
    return struct.unpack("<512Q", read(address, 4096))


def is_run(entries):
    """Whether a table of pages maps one piece: neighbours, with the same
    bits. Millions of entries are looked at so."""
    first = entries[0]
    return entries == tuple(range(first, first + 512 * 4096, 4096))


def expand(runs):
    """The single pages of (gpa, page size, pages, hpa, ...)."""
    for gpa, size, count, hpa, *rest in runs:
        for i in range(count):
            yield (gpa + i * size, size, hpa + i * size, *rest)


def field(value, low, high):
    """Bits high..low, as the manuals write them."""
    return value >> low & ((1 << (high - low + 1)) - 1)


def reserved(value, mask, what):
    if value & mask:
        raise TableError(f"{what} {value:#x}: reserved bits {value & mask:#x}")
