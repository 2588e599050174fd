# SPDX-License-Identifier: MIT
"""Guest memory for tests: host memory behind a region list.

The fake direct map is the identity, so a region's host-physical address is
the address of the test's own memory. What is read back is read by Python.
"""

import errno
import mmap
import os

PAGE = 4096
MIB = 1 << 20
FAKES = """
#include <stdint.h>
#include "kernel/phys.h"
void *phys_to_virt(hpa_t hpa)
{
	return (void *)(uintptr_t)hpa;
}
"""
SOURCES = ["kernel/region.c", "vmm/core/guest_mem.c"]


class Row:
    """One region: gpa, size, kind and E820 kind, and its memory."""

    def __init__(self, gpa, size, kind="RAM", e820="RAM", name="ram"):
        self.gpa, self.size, self.kind, self.e820 = gpa, size, kind, e820
        self.end, self.name, self.memory = gpa + size, name, None
        self.fd = -1
        if kind != "HOLE":
            self.fd = os.memfd_create("guest")
            os.ftruncate(self.fd, size)
            self.memory = mmap.mmap(self.fd, size)

    def __del__(self):
        if self.fd >= 0:
            os.close(self.fd)

    def is_zero(self):
        """Looks only at pages that were ever touched."""
        at = 0
        while True:
            try:
                at = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return True
                raise
            end = os.lseek(self.fd, at, os.SEEK_HOLE)
            if self.memory[at:end] != bytes(end - at):
                return False
            at = end


class Guest:
    def __init__(self, m, rows):
        self.rows = sorted(rows, key=lambda r: r.gpa)
        self.list = m.new("struct region_list *")
        self._keep = []
        for row in self.rows:
            self._add(m, row)

    def _add(self, m, row):
        name = m.ffi.new("char[]", row.name.encode())
        hpa = 0
        if row.memory:
            view = m.ffi.from_buffer(row.memory)
            hpa = int(m.ffi.cast("uintptr_t", view))
            self._keep.append(view)
        self._keep.append(name)
        rights = m.REGION_RX if row.kind == "ROM" else m.REGION_RWX
        region = m.new("struct region *", {
            "gpa": row.gpa, "hpa": hpa, "size": row.size, "name": name,
            "kind": getattr(m, f"REGION_{row.kind}"),
            "e820": getattr(m, f"E820_{row.e820}"),
            "memtype": m.MEMTYPE_WB, "cpu": rights, "dma": m.REGION_RW})
        assert m.region_add(self.list, region, m.NULL) == 0

    def read(self, gpa, size):
        """Bytes at gpa; a hole in the range is an error of the test."""
        out = b""
        while len(out) < size:
            at = gpa + len(out)
            row = next(r for r in self.rows
                       if r.gpa <= at < r.end and r.memory)
            step = min(size - len(out), row.end - at)
            out += row.memory[at - row.gpa:at - row.gpa + step]
        return out

    def number(self, gpa, size=4):
        return int.from_bytes(self.read(gpa, size), "little")

    def text(self, gpa):
        out = b""
        while (byte := self.read(gpa + len(out), 1)) != b"\0":
            out += byte
        return out.decode()

    def untouched(self):
        return all(row.is_zero() for row in self.rows if row.memory)

    def e820(self):
        """The map by a naive reading: adjacent rows of one kind are one."""
        kinds = {"RAM": 1, "RESERVED": 2, "ACPI": 3, "NVS": 4}
        out = []
        for row in self.rows:
            if row.e820 == "NONE":
                continue
            kind = kinds[row.e820]
            if out and out[-1][2] == kind and sum(out[-1][:2]) == row.gpa:
                out[-1] = (out[-1][0], out[-1][1] + row.size, kind)
            else:
                out.append((row.gpa, row.size, kind))
        return out

    def is_ram(self, start, size):
        """Every byte belongs to a row of RAM that the guest may use."""
        at = start
        for row in self.rows:
            if row.e820 == "RAM" and row.gpa <= at < row.end:
                at = row.end
        return at >= start + size


def pc(ram_mib=16, low=0xa0000):
    """A PC's map: low RAM, VGA, BIOS, RAM, an ACPI area on top of it."""
    top = ram_mib * MIB
    return [
        Row(0, low, name="low"),
        Row(0xa0000, 0x20000, "HOLE", "NONE", "vga"),
        Row(0xc0000, 0x40000, "ROM", "RESERVED", "bios"),
        Row(MIB, top - MIB - 0x10000, name="ram"),
        Row(top - 0x10000, 0x10000, "RAM", "ACPI", "acpi"),
        Row(0xfec00000, PAGE, "HOLE", "RESERVED", "ioapic"),
    ]
