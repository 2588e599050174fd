# SPDX-License-Identifier: MIT
"""What a DSDT says of PCI roots, read as ACPI 6.4 has it (20.2, 6.4).

The subset that has no methods: scopes, devices, and names of integers,
strings, buffers and packages.
"""
import dataclasses
import struct

SIZES = {0x0a: 1, 0x0b: 2, 0x0c: 4, 0x0e: 8}
WIDTHS = {0x88: "<5H", 0x87: "<5I", 0x8a: "<5Q"}
KINDS = "memory", "ports", "buses"
PCI = {0x030ad041: "PNP0A03", 0x080ad041: "PNP0A08"}


def _length(aml, at):
    """(the end, where the content begins): PkgLength, 20.2.4."""
    more = aml[at] >> 6
    size = aml[at] & (0xf if more else 0x3f)
    for i in range(more):
        size |= aml[at + 1 + i] << (4 + 8 * i)
    return at + size, at + 1 + more


def _name(aml, at):
    """20.2.2, of one segment."""
    at += aml[at:at + 1] == b"\\"
    return aml[at:at + 4].decode("ascii"), at + 4


def _value(aml, at):
    """(an integer, bytes or a list, what is behind it): 20.2.3, 20.2.5.4."""
    op = aml[at]
    if op in (0, 1, 0xff):
        return op, at + 1
    if op == 0x0d:
        end = aml.index(0, at)
        return aml[at + 1:end], end + 1
    if op in SIZES:
        end = at + 1 + SIZES[op]
        return int.from_bytes(aml[at + 1:end], "little"), end
    end, at = _length(aml, at + 1)
    if op == 0x11:
        size, at = _value(aml, at)
        return aml[at:at + size], end
    if op != 0x12:
        raise ValueError(f"no value: {op:#x}")
    count, at, out = aml[at], at + 1, []
    while at < end:
        value, at = _value(aml, at)
        out.append(value)
    if len(out) != count:
        raise ValueError("a package of another length")
    return out, end


def _terms(aml, at, end):
    """{name: a value, or such a table of a scope or device}"""
    out = {}
    while at < end:
        if aml[at] == 8:
            name, at = _name(aml, at + 1)
            out[name], at = _value(aml, at)
            continue
        at += {0x10: 1, 0x5b: 2}[aml[at]]
        after, at = _length(aml, at)
        name, at = _name(aml, at)
        out[name], at = _terms(aml, at, after), after
    return out


@dataclasses.dataclass
class Root:
    """A PCI root: its buses, (kind, first, last) of what it passes on, and
    the (device, pin) pairs that `_PRT` routes."""
    bus: int
    segment: int
    buses: list
    windows: list
    routes: set

    def passes(self, kind, base, size):
        return any(k == kind and first <= base and base + size - 1 <= last
                   for k, first, last in self.windows)


def _windows(crs):
    """(kind, first, last) of each address space descriptor: 6.4.3.5."""
    at = 0
    while at < len(crs) and crs[at] != 0x79:
        if not crs[at] & 0x80:
            at += 1 + (crs[at] & 7)
            continue
        size, = struct.unpack_from("<H", crs, at + 1)
        if crs[at] in WIDTHS:
            _, first, last, moved, length = struct.unpack_from(
                WIDTHS[crs[at]], crs, at + 6)
            if length != last - first + 1 or moved:
                raise ValueError("a window that is none")
            yield KINDS[crs[at + 3]], first, last
        at += 3 + size


def roots(dsdt):
    """The roots that a guest's kernel finds."""
    try:
        devices = _terms(dsdt, 36, len(dsdt)).get("_SB_", {}).values()
    except (IndexError, KeyError, ValueError):
        return []
    out = []
    for device in devices:
        if not isinstance(device, dict) or \
                not {device.get("_HID"), device.get("_CID")} & PCI.keys():
            continue
        windows = list(_windows(device.get("_CRS", b"")))
        out.append(Root(device.get("_BBN", 0), device.get("_SEG", 0),
                        [w[1:] for w in windows if w[0] == "buses"],
                        [w for w in windows if w[0] != "buses"],
                        {(row[0] >> 16, row[1] + 1)
                         for row in device.get("_PRT", [])}))
    return out


def overlaps(found):
    """A line for each pair of roots that pass on the same."""
    rows = sorted((kind, first, last, root.bus) for root in found
                  for kind, first, last in [
                      *root.windows, *(("buses", *b) for b in root.buses)])
    return [f"roots {a[3]:02x} and {b[3]:02x} both pass on {b[0]} at "
            f"{b[1]:#x}" for a, b in zip(rows, rows[1:])
            if a[0] == b[0] and b[1] <= a[2]]
