# SPDX-License-Identifier: MIT
"""A CPU's own page tables, four levels (SDM 3A 4.5.4)."""

from .memory import table


def _entries(read, address, level, base):
    size = 1 << (12 + 9 * (level - 1))
    for i, entry in enumerate(table(read, address)):
        if not entry & 1:
            continue
        linear = base + i * size
        if level == 4 and i >= 256:     # canonical addresses
            linear |= 0xffff << 48
        where = entry & (1 << 52) - 1 & ~0xfff
        if level == 1 or entry >> 7 & 1:
            yield linear, size, where & ~(size - 1)
        else:
            yield from _entries(read, where, level - 1, linear)


def leaves(read, cr3):
    """[(linear address, page size, physical address)] in order."""
    return list(_entries(read, cr3 & (1 << 52) - 1 & ~0xfff, 4, 0))


def translate(pages, linear):
    """The physical address by what leaves() found, or None."""
    for at, size, where in pages:
        if at <= linear < at + size:
            return where + linear - at
    return None
