# SPDX-License-Identifier: MIT
"""Multiboot2 information (specification 2.0, 3.6), right or wrong."""
import struct

MAGIC = 0x36D76289
EXTRA = 0x2900000       # tests/guests/chain.c
# A Bochs of 64 MiB: its BIOS's memory map, and where its RSDT is.
MEMORY = [(0, 0x9F000, 1), (0x9F000, 0x1000, 2), (0xE8000, 0x18000, 2),
          (0x100000, 0x3EF0000, 1), (0x3FF0000, 0x10000, 3),
          (0xFFFC0000, 0x40000, 2)]
RSDT = 0x3FF0000


def tag(kind, payload, size=None):
    """One tag, padded to 8 bytes."""
    size = 8 + len(payload) if size is None else size
    raw = struct.pack("<II", kind, size) + payload
    return raw + bytes(-len(raw) % 8)


def cmdline(text=b"log=e9\0", size=None):
    return tag(1, text, size)


def module(start, end, text=b"kernel exit\0", size=None):
    return tag(3, struct.pack("<II", start, end) + text, size)


def mmap(rows=MEMORY, entry_size=24, size=None):
    return tag(6, struct.pack("<II", entry_size, 0) + b"".join(
        struct.pack("<QQII", *row, 0) for row in rows), size)


def rsdp(rsdt=RSDT, signature=b"RSD PTR ", checksum=None, size=None):
    raw = bytearray(signature + b"\0BOCHS \0" + struct.pack("<I", rsdt))
    raw[8] = -sum(raw) & 0xFF if checksum is None else checksum
    return tag(14, bytes(raw), size)


def framebuffer(base=0xB8000, pitch=160, width=80, height=25, bpp=16, kind=2,
                more=bytes(6), size=None):
    return tag(8, struct.pack("<QIIIBBH", base, pitch, width, height, bpp,
                              kind, 0) + more, size)


def tags(kernel_size, **changes):
    """The usual tags; a change replaces one, None leaves it out."""
    usual = {"cmdline": cmdline(), "memory": mmap(), "rsdp": rsdp(),
             "module": module(EXTRA, EXTRA + kernel_size),
             "more": None}
    return [one for one in {**usual, **changes}.values() if one]


def information(parts, total=None):
    """The whole of it, as EBX points to it."""
    raw = b"".join(parts) + tag(0, b"")
    size = 8 + len(raw) if total is None else total
    return struct.pack("<II", size, 0) + raw


def parcel(elf, info, extra, magic=MAGIC):
    """The module for tests/guests/chain.c."""
    at = [4096]
    blobs = [elf, info, extra]
    for blob in blobs:
        at.append(at[-1] + len(blob) + -len(blob) % 4096)
    head = struct.pack("<7I", magic, *(n for pair in zip(at, map(len, blobs))
                                       for n in pair))
    return b"".join(blob + bytes(-len(blob) % 4096)
                    for blob in [head, *blobs])
