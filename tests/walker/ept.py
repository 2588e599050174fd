# SPDX-License-Identifier: MIT
"""Extended page tables: SDM 3C 29.3 (28.3 in older editions)."""

from .compare import Piece, merge
from .memory import (TableError, expand, field, is_run, reserved,
                     table)

MEMTYPES = {0: "UC", 1: "WC", 4: "WT", 5: "WP", 6: "WB"}


def root(eptp, width=52):
    """The address of the PML4 table that an EPTP names (25.6.11)."""
    reserved(eptp, 0xf80 | ~((1 << width) - 1) & (1 << 64) - 1, "EPTP")
    if field(eptp, 0, 2) not in (0, 6):
        raise TableError(f"EPTP {eptp:#x}: memory type {field(eptp, 0, 2)}")
    if field(eptp, 3, 5) != 3:
        raise TableError(f"EPTP {eptp:#x}: not four levels")
    return eptp & ~0xfff


def _rights(bits):
    return "".join(c if bits >> i & 1 else "-" for i, c in enumerate("rwx"))


def _entries(read, address, level, gpa, width, large, execute_only):
    size = 1 << (12 + 9 * (level - 1))
    entries, pages = table(read, address), 1
    if level == 1 and is_run(entries):
        reserved(entries[-1], ~((1 << width) - 1) & (1 << 52) - 1,
                 f"EPT level 1 entry for {gpa + 511 * size:#x}")
        entries, pages = entries[:1], 512
    for i, entry in enumerate(entries):
        bits, at = entry & 7, gpa + i * size
        if not bits:
            continue
        what = f"EPT level {level} entry for {at:#x}"
        # 29.3.3.1: what makes a misconfiguration
        if bits in (2, 6) or (bits == 4 and not execute_only):
            raise TableError(f"{what}: rights {_rights(bits)}")
        leaf = level == 1 or entry >> 7 & 1
        mask = ~((1 << width) - 1) & (1 << 52) - 1
        if not leaf:
            mask |= 0x78
        elif level > 1:
            if level not in large:
                raise TableError(f"{what}: a page of {size:#x} bytes")
            mask |= size - 1 & ~0xfff
        if leaf and field(entry, 3, 5) not in MEMTYPES:
            raise TableError(f"{what}: memory type {field(entry, 3, 5)}")
        reserved(entry, mask, what)
        where = entry & (1 << 52) - 1 & ~0xfff
        if leaf:
            yield (at, size, pages, where, bits, MEMTYPES[field(entry, 3, 5)],
                   bool(entry >> 6 & 1))
        else:
            for sub in _entries(read, where, level - 1, at, width, large,
                                execute_only):
                yield (*sub[:4], sub[4] & bits, *sub[5:])


def runs(read, eptp, width=52, large=(2, 3), execute_only=True):
    """As leaves(), but (gpa, page size, pages, hpa, ...) of pages in a row
    that one table maps as one piece."""
    return [(*run, _rights(bits), memtype, ignore)
            for *run, bits, memtype, ignore in _entries(
                read, root(eptp, width), 4, 0, width, large, execute_only)
            if bits]


def leaves(read, eptp, width=52, large=(2, 3), execute_only=True):
    """[(gpa, page size, hpa, "rwx", memory type, ignores PAT)] in order."""
    return list(expand(runs(read, eptp, width, large, execute_only)))


def pieces(read, eptp, width=52, large=(2, 3), execute_only=True):
    """As compare() wants it; "ignore PAT" shows as the type's suffix."""
    return merge(Piece(gpa, gpa + size * pages, hpa, rights,
                       memtype + ("!" if ignore else ""))
                 for gpa, size, pages, hpa, rights, memtype, ignore in runs(
                     read, eptp, width, large, execute_only))
