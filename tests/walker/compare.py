# SPDX-License-Identifier: MIT
"""Maps as sorted pieces, and the difference of two."""

import collections

# [gpa, end) lies at hpa..., rights "rwx" with "-", memtype a name or None
Piece = collections.namedtuple("Piece", "gpa end hpa rights memtype",
                               defaults=[None])
Difference = collections.namedtuple("Difference", "gpa end found wanted")
# DMA to this range is an interrupt, never memory (VT-d 3.14)
INTERRUPTS = (0xfee00000, 0xfef00000)


def merge(pieces):
    """Sorted, and adjacent pieces that continue each other are one."""
    out = []
    for p in sorted(pieces):
        last = out[-1] if out else None
        if last and p.gpa < last.end:
            raise ValueError(f"{last} and {p} overlap")
        if last and p.gpa == last.end and p[3:] == last[3:] and \
                p.hpa - p.gpa == last.hpa - last.gpa:
            out[-1] = last._replace(end=p.end)
        else:
            out.append(p)
    return out


def wanted_dma(regions, join=merge):
    """What a device may reach; join=list: a piece for each region."""
    out = []
    for r in regions:
        if r.kind == "hole" or r.dma[:2] == "--":
            continue
        low, high = INTERRUPTS
        for gpa, end in ((r.gpa, min(r.end, low)), (max(r.gpa, high), r.end)):
            if gpa < end:
                out.append(Piece(gpa, end, r.hpa + gpa - r.gpa,
                                 r.dma[:2] + "-"))
    return join(out)


def wanted_cpu(regions, join=merge):
    """What the guest's CPU may reach."""
    return join(Piece(r.gpa, r.end, r.hpa, r.cpu, r.memtype) for r in regions
                 if r.kind != "hole" and r.cpu != "---")


def compare(found, wanted):
    """[Difference], in order; what they have of found and wanted is
    (hpa, rights, memtype), or None where nothing is mapped. Every byte of
    the address space is looked at, by pieces."""
    sides = [merge(found), merge(wanted)]
    borders = sorted({n for side in sides for p in side
                      for n in (p.gpa, p.end)})
    out, at = [], [0, 0]
    for low, high in zip(borders, borders[1:]):
        has = []
        for k, side in enumerate(sides):
            while at[k] < len(side) and side[at[k]].end <= low:
                at[k] += 1
            p = side[at[k]] if at[k] < len(side) else None
            has.append((p.hpa + low - p.gpa, p.rights, p.memtype)
                       if p and p.gpa <= low else None)
        if has[0] != has[1]:
            out.append(Difference(low, high, *has))
    return out


def reached(pieces, ranges):
    """The pieces that touch one of the host ranges [(base, end)]: for
    memory that nobody may reach."""
    return [p for p in pieces for base, end in ranges
            if p.hpa < end and base < p.hpa + p.end - p.gpa]
