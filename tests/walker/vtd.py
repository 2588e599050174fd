# SPDX-License-Identifier: MIT
"""Root, context, second-level and interrupt tables: VT-d specification.

Legacy mode (9.1, 9.3, 9.8) and interrupt-remapping entries (9.10).
"""

import collections
import struct

from .compare import Piece, merge
from .memory import (TableError, expand, field, is_run, reserved,
                     table)

Context = collections.namedtuple("Context", "table levels domain fault_off")
Interrupt = collections.namedtuple(
    "Interrupt",
    "vector destination level source check logical mode qualifier",
    defaults=(0,))
LEVELS = {1: 3, 2: 4, 3: 5}     # 9.3, address width


def _beyond(width):
    return ~((1 << width) - 1) & (1 << 64) - 1


def contexts(read, root, haw=52):
    """{requester ID: Context} of all that are present (9.1, 9.3)."""
    found = {}
    for bus in range(256):
        low, high = struct.unpack("<QQ", read(root + 16 * bus, 16))
        if not low & 1:
            continue
        reserved(low, 0xffe | _beyond(haw), f"root entry {bus:#x}")
        reserved(high, ~0, f"root entry {bus:#x}, high half")
        for devfn in range(256):
            context = _context(read, (low & ~0xfff) + 16 * devfn, haw)
            if context:
                found[bus << 8 | devfn] = context
    return found


def _context(read, address, haw):
    low, high = struct.unpack("<QQ", read(address, 16))
    if not low & 1:
        return None
    what = f"context entry at {address:#x}"
    reserved(low, 0xff0 | _beyond(haw), what)
    reserved(high, 0xffffffffff000080, what + ", high half")
    if field(low, 2, 3) != 0:
        raise TableError(f"{what}: translation type {field(low, 2, 3)}")
    if field(high, 0, 2) not in LEVELS:
        raise TableError(f"{what}: address width {field(high, 0, 2)}")
    return Context(low & ~0xfff, LEVELS[field(high, 0, 2)],
                   field(high, 8, 23), bool(low & 2))


def _entries(read, address, level, gpa, haw, large):
    """The leaves below a table (9.8), as (gpa, page size, pages in a row,
    hpa, read, write)."""
    size = 1 << (12 + 9 * (level - 1))
    entries, pages = table(read, address), 1
    if level == 1 and is_run(entries):
        reserved(entries[-1], _beyond(haw) & ~(0x7ff << 52) | 1 << 11,
                 f"level 1 entry for {gpa + 511 * size:#x}")
        entries, pages = entries[:1], 512
    for i, entry in enumerate(entries):
        r, w = entry & 1, entry >> 1 & 1
        if not r and not w:
            continue
        at = gpa + i * size
        # Bit 11 of a leaf is snoop control, which Monocle does not use.
        mask = _beyond(haw) & ~(0x7ff << 52) | 1 << 11
        leaf = level == 1 or entry >> 7 & 1
        if leaf and level > 1:
            if level not in large:
                raise TableError(f"a page of {size:#x} bytes at {at:#x}")
            mask |= size - 1 & ~0xfff
        reserved(entry, mask, f"level {level} entry for {at:#x}")
        where = entry & (1 << 52) - 1 & ~0xfff
        if leaf:
            yield at, size, pages, where, r, w
        else:
            for sub in _entries(read, where, level - 1, at, haw, large):
                yield (*sub[:4], sub[4] & r, sub[5] & w)


def runs(read, context, haw=52, large=(2, 3)):
    """[(gpa, page size, pages, hpa, "rw-")] in order: leaves, but for pages
    in a row that one table maps as one piece."""
    return [(*run, ("r" if r else "-") + ("w" if w else "-") + "-")
            for *run, r, w in _entries(
                read, context.table, context.levels, 0, haw, large) if r or w]


def leaves(read, context, haw=52, large=(2, 3)):
    """[(gpa, page size, hpa, "rw-")] in order; large: levels whose pages the
    unit can (CAP.SLLPS)."""
    return list(expand(runs(read, context, haw, large)))


def pieces(read, context, haw=52, large=(2, 3)):
    return merge(Piece(gpa, gpa + size * pages, hpa, rights)
                 for gpa, size, pages, hpa, rights in runs(
                     read, context, haw, large))


def translate(read, context, gpa, haw=52, large=(2, 3)):
    """(hpa, "rw-") of one address, or None: the walk of one request."""
    where, rights = context.table, 3
    if gpa >> (12 + 9 * context.levels):
        return None
    for level in range(context.levels, 0, -1):
        size = 1 << (12 + 9 * (level - 1))
        entry, = struct.unpack(
            "<Q", read(where + (gpa // size % 512) * 8, 8))
        rights &= entry & 3
        if not rights:
            return None
        where = entry & (1 << 52) - 1 & ~0xfff
        if level == 1 or entry >> 7 & 1:
            if level > 1 and level not in large:
                raise TableError(f"a page of {size:#x} bytes at {gpa:#x}")
            text = ("r" if rights & 1 else "-") + ("w" if rights & 2 else "-")
            return where + gpa % size, text + "-"
    return None


def reach(read, root, haw=52, large=(2, 3)):
    """{requester ID: [Piece]}: all that devices can reach by the unit."""
    seen = {}
    out = {}
    for bdf, context in contexts(read, root, haw).items():
        if context[:2] not in seen:
            seen[context[:2]] = pieces(read, context, haw, large)
        out[bdf] = seen[context[:2]]
    return out


def interrupts(read, irta, entries=256, x2apic=False):
    """{index: Interrupt} of the entries that are present (9.10)."""
    found = {}
    for index in range(entries):
        low, high = struct.unpack("<QQ", read(irta + 16 * index, 16))
        if not low & 1:
            continue
        what = f"interrupt entry {index}"
        if low >> 15 & 1:
            raise TableError(f"{what} is posted")
        reserved(low, 0xff00f000, what)
        reserved(high, ~0xfffff, what + ", high half")
        destination = field(low, 32, 63)
        if not x2apic:
            reserved(destination, 0xffff00ff, what + ", destination")
            destination >>= 8
        found[index] = Interrupt(
            field(low, 16, 23), destination, bool(low >> 4 & 1),
            field(high, 0, 15), field(high, 18, 19), bool(low >> 2 & 1),
            field(low, 5, 7), field(high, 16, 17))
    return found
