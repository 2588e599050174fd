# SPDX-License-Identifier: MIT
"""Kernels that are wrong in one way each."""
import struct

MULTIBOOT = struct.pack("<3I", 0x1BADB002, 3, -(0x1BADB002 + 3) & 0xFFFFFFFF)
CODE = b"\xf4" * 16     # HLT
PAGE = 4096


def elf(paddr, memsz=PAGE, entry=None, wide=False, **fields):
    """A Multiboot 1 ELF executable of one segment; fields spoil it."""
    body = MULTIBOOT + bytes(4) + CODE
    where = {"offset": PAGE, "filesz": len(body), **fields}
    entry = paddr + 16 if entry is None else entry
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    size, phsize = (64, 56) if wide else (52, 32)
    kind, machine = where.get("kind", 2), where.get("machine",
                                                    62 if wide else 3)
    phoff = where.get("phoff", size)
    if wide:
        head = struct.pack("<HHIQQQI6H", kind, machine, 1, entry, phoff, 0, 0,
                           size, phsize, where.get("phnum", 1), 0, 0, 0)
        segment = struct.pack("<IIQQQQQQ", 1, 7, where["offset"], paddr,
                              paddr, where["filesz"], memsz, PAGE)
    else:
        head = struct.pack("<HHIIIII6H", kind, machine, 1, entry, phoff, 0, 0,
                           size, phsize, where.get("phnum", 1), 0, 0, 0)
        segment = struct.pack("<8I", 1, where["offset"], paddr, paddr,
                              where["filesz"], memsz, 7, PAGE)
    return (ident + head + segment).ljust(PAGE, b"\0") + body


def bzimage(size=64 * 1024, **fields):
    """A bzImage's header (Linux, boot.rst) and empty code; fields spoil it."""
    code = size - 2 * 512
    where = {"sects": 1, "syssize": code // 16, "flag": 0xAA55,
             "version": 0x20F, "loadflags": 1, "xloadflags": 1,
             "alignment": 0x200000, "cmdline": 2047, "init_size": size,
             "pref_address": 0x1000000, "initrd_max": 0x7FFFFFFF, **fields}
    image = bytearray(size)
    put = struct.pack_into
    put("<B", image, 0x1F1, where["sects"])
    put("<I", image, 0x1F4, where["syssize"])
    put("<H", image, 0x1FE, where["flag"])
    image[0x202:0x206] = b"HdrS"
    put("<H", image, 0x206, where["version"])
    put("<B", image, 0x211, where["loadflags"])
    put("<I", image, 0x22C, where["initrd_max"])
    put("<I", image, 0x230, where["alignment"])
    put("<B", image, 0x234, where.get("relocatable", 1))
    put("<H", image, 0x236, where["xloadflags"])
    put("<I", image, 0x238, where["cmdline"])
    put("<Q", image, 0x258, where["pref_address"])
    put("<I", image, 0x260, where["init_size"])
    # Its 64-bit entry: out 0xF4, 0.
    entry = 2 * 512 + 0x200
    image[entry:entry + 4] = bytes.fromhex("30c0e6f4")
    return bytes(image)
