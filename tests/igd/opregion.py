# SPDX-License-Identifier: MIT
"""Builds an OpRegion, as firmware hands it to Intel graphics' drivers.

Intel's "IGD OpRegion Specification"; extended VBT: its version 2.
"""
import struct

SIZE = 8192
SIGNATURE = b"IntelGraphicsMem"
VBT_AT, VBT_MOST = 0x400, 6 * 1024
RVDA_AT = 0x3ba     # mailbox 3: u64 address, u32 size
BLOCK_GENERAL_FEATURES, BLOCK_GENERAL_DEFINITIONS = 1, 2
HDMI, PORT_HDMI_B, PIN_B = 0x60d2, 1, 5


def block(kind, body):
    """One block of the VBT's data."""
    return struct.pack("<BH", kind, len(body)) + body


def child_device(handle=4, kind=HDMI, port=PORT_HDMI_B, pin=PIN_B):
    """An output: 39 bytes, as from version 197 on."""
    body = bytearray(39)
    struct.pack_into("<HH", body, 0, handle, kind)
    body[16], body[19] = port, pin
    return bytes(body)


def vbt(version=228, padding=0, children=(child_device(),)):
    """A video BIOS table: header, data blocks, so many bytes of nothing."""
    definitions = struct.pack("<BBBBB", 2, 0, 0, 0, 39) + b"".join(children)
    blocks = block(BLOCK_GENERAL_FEATURES, bytes(5)) + \
        block(BLOCK_GENERAL_DEFINITIONS, definitions)
    if padding:
        blocks += block(0xfe, bytes(n & 0xff for n in range(padding)))
    data = struct.pack("<16s3H", b"BIOS_DATA_BLOCK ", version, 22,
                       22 + len(blocks)) + blocks
    table = bytearray(struct.pack("<20s3HBB5I", b"$VBT MONOCLE TEST   ", 100,
                                  48, 48 + len(data), 0, 0, 48, 0, 0, 0, 0) +
                      data)
    table[26] = -sum(table) & 0xff
    return bytes(table)


def build(version=(2, 0), size=SIZE, signature=SIGNATURE, table=None,
          rvda=None, rvds=0, tail=b""):
    """An OpRegion's bytes; `tail` lies behind it.

    rvda, rvds: where the extended VBT is: an address in version 2.0, from
    the OpRegion's start from 2.1 on. Without it, `table` lies inside.
    """
    table = vbt() if table is None else table
    region = bytearray(SIZE)
    struct.pack_into("<16sIBBBB", region, 0, signature, size // 1024,
                     0, 0, version[1], version[0])
    struct.pack_into("<I", region, 0x58, 1 << 0 | 1 << 2 | 1 << 3)  # mailboxes
    if rvda is None:
        assert len(table) <= VBT_MOST
        region[VBT_AT:VBT_AT + len(table)] = table
    else:
        struct.pack_into("<QI", region, RVDA_AT, rvda, rvds)
    return bytes(region) + tail


def extended(padding=7000):
    """Version 2.1 with a VBT too large for the inside, right behind it."""
    table = vbt(padding=padding)
    return build((2, 1), rvda=SIZE, rvds=len(table), tail=table)
