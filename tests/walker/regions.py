# SPDX-License-Identifier: MIT
"""The region list as Monocle logs it (kernel/region.h)."""

import collections
import re

Region = collections.namedtuple(
    "Region", "gpa end hpa kind cpu dma memtype e820 name")
_LINE = re.compile(
    r"\bregion ([0-9a-f]+)-([0-9a-f]+) hpa ([0-9a-f]+) (ram|device|rom|hole) "
    r"cpu ([r-][w-][x-]) dma ([r-][w-][x-]) (UC|WC|WT|WP|WB) (\w+) (\S+)")


def parse_regions(log):
    """The regions of a log text; of several lists the last one.

    A new list begins where a region lies below the one before it.
    """
    found = []
    for match in _LINE.finditer(log):
        gpa, end, hpa = (int(n, 16) for n in match.groups()[:3])
        if gpa >= end:
            raise ValueError(f"no region: {match[0]}")
        if found and gpa < found[-1].end:
            found = []
        found.append(Region(gpa, end, hpa, *match.groups()[3:]))
    return found
