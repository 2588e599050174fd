# SPDX-License-Identifier: MIT
"""What hardware would reach, read from a dump of physical memory.

Written from the manuals alone (VT-d specification chapters 5 and 9, SDM 3C
chapter 29), not from Monocle's C: it walks root, context, second-level and
interrupt tables, and the EPT, and says where they differ from the region list
that Monocle printed. A reserved bit that is set is an error of the tables.

    memory = Dump("memory.bin", base=0)
    found = vtd.reach(memory, root_table)           # {bdf: [Piece]}
    regions = parse_regions(log)
    compare(found[bdf], wanted_dma(regions))        # [] or the differences
"""

from .compare import (Difference, Piece, compare, merge, reached, wanted_cpu,
                      wanted_dma)
from .memory import Dump, TableError
from .regions import Region, parse_regions
from . import ept, vtd

__all__ = ["Difference", "Dump", "Piece", "Region", "TableError", "compare",
           "ept", "merge", "parse_regions", "reached", "vtd", "wanted_cpu",
           "wanted_dma"]
