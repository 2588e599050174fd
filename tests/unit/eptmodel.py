# SPDX-License-Identifier: MIT
"""The EPT as a CPU's walk sees it."""

PAGE, M2, G1 = 1 << 12, 1 << 21, 1 << 30
RWX, ADDRESS, LARGE = 7, 0x000ffffffffff000, 1 << 7
WB, UC, WC = 6, 0, 1


def shift(level):
    return 12 + 9 * level


class Memory:
    """The arena's pages as the CPU's walk sees them: 64-bit entries."""

    def __init__(self, m, ept):
        self.m = m
        size = m.ARENA_PAGES * PAGE
        self.bytes = bytearray(m.ffi.buffer(m.arena, size))
        self.q = memoryview(self.bytes).cast("Q")
        self.base = int(m.ffi.cast("uintptr_t", m.arena))
        self.root = self.index(ept.eptp & ADDRESS)

    def index(self, hpa):
        n = hpa - self.m.VMX_ARENA_BASE
        assert 0 <= n < len(self.bytes) and n % PAGE == 0, "not a table"
        return n // 8

    def tables(self):
        """{first entry: (level, gpa that the table starts at)}."""
        found, todo = {}, [(self.root, 3, 0)]
        while todo:
            at, level, gpa = todo.pop()
            assert at not in found, "a table with two parents"
            found[at] = level, gpa
            for n, e in enumerate(self.q[at:at + 512]):
                if links(e, level):
                    todo.append((self.index(e & ADDRESS), level - 1,
                                 gpa + (n << shift(level))))
        return found

    def leaves(self, cap):
        """[(gpa, end, hpa, rights, memory type)]; neighbours are merged."""
        out = []
        for at, (level, gpa) in self.tables().items():
            step = 1 << shift(level)
            entries = self.q[at:at + 512].tolist()
            if level < 2 and entries[0] & RWX and entries == list(range(
                    entries[0], entries[0] + 512 * step, step)):
                # The same entry 512 times, one page on each: as one.
                out.append(leaf(cap, entries[0], level, gpa, 512 * step))
                continue
            for n, e in enumerate(entries):
                if not e & RWX:
                    assert e == 0, "an entry with no rights holds bits"
                elif links(e, level):
                    # SDM table 29-3: bits 7:3 of an entry that points to a
                    # table are reserved or none of ours; rights are the
                    # leaf's alone.
                    assert e & ~ADDRESS == RWX
                else:
                    out.append(leaf(cap, e, level, gpa + n * step, step))
        return merged(sorted(out))


def leaf(cap, e, level, gpa, size):
    assert level < 3 and (level < 2 or cap.ept_1g) and (
        level < 1 or cap.ept_2m), "a page that the CPU lacks"
    address = ADDRESS & -1 << shift(level)
    assert e & ~(address | 0x3f | (LARGE if level else 0)) == 0, \
        "reserved bits"
    assert e & 3 != 2, "SDM 29.3.3.1: W without R"
    return gpa, gpa + size, e & address, e & RWX, e >> 3 & 7


def merged(rows):
    out = []
    for row in rows:
        if out and out[-1][1] == row[0] and out[-1][3:] == row[3:] and \
                out[-1][2] + out[-1][1] - out[-1][0] == row[2]:
            out[-1] = (out[-1][0], row[1], *out[-1][2:])
        else:
            out.append(row)
    return out


def links(entry, level):
    """Whether it points at a table."""
    return entry & RWX and level and not entry & LARGE
