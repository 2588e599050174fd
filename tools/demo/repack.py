#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Repack a distribution's bzImage with its kernel uncompressed.

    repack.py VMLINUZ OUTPUT [--nasm NASM] [--lz4 LZ4]

Unpacking xz takes an emulator most of a minute, and reading a kernel that is
not packed at all takes GRUB longer than unpacking LZ4. The result is a valid
bzImage with the same kernel, byte for byte, as stub.asm says:

    setup sectors (header patched) | stub, 4 KiB | LZ4 blocks

Field offsets: Documentation/arch/x86/boot.rst of the Linux kernel.
"""
import argparse
import lzma
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

ALIGN = 2 << 20         # from the load address to vmlinux
TABLES_SIZE = 7 * 4096  # behind vmlinux
LZ4_LEGACY = b"\x02\x21\x4c\x18"

# setup header fields: offset, struct format
SETUP_SECTS = (0x1F1, "<B")
SYSSIZE = (0x1F4, "<I")
HEADER = (0x202, "4s")
VERSION = (0x206, "<H")
KERNEL_ALIGNMENT = (0x230, "<I")
RELOCATABLE = (0x234, "<B")
MIN_ALIGNMENT = (0x235, "<B")
XLOADFLAGS = (0x236, "<H")
PAYLOAD_OFFSET = (0x248, "<I")
PAYLOAD_LENGTH = (0x24C, "<I")
PREF_ADDRESS = (0x258, "<Q")
INIT_SIZE = (0x260, "<I")
HANDOVER_OFFSET = (0x264, "<I")
KERNEL_INFO_OFFSET = (0x268, "<I")

XLF_KERNEL_64 = 1 << 0
XLF_CAN_BE_LOADED_ABOVE_4G = 1 << 1


class RepackError(Exception):
    """The input is not a bzImage that this program can repack."""


def get(image, field):
    """Read one field of the setup header."""
    offset, form = field
    return struct.unpack_from(form, image, offset)[0]


def put(image, field, value):
    """Write one field of the setup header."""
    offset, form = field
    struct.pack_into(form, image, offset, value)


def pipe(command, data):
    """Run a filter; its output, to the end of the stream that it knows."""
    if not shutil.which(command[0]):
        raise RepackError(f"{command[0]} is not installed")
    done = subprocess.run(command, input=data, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=False)
    return done.stdout


def decompress(payload):
    """Unpack the payload, in one of the formats that Linux builds with."""
    if payload[:4] == b"\x7fELF":
        return payload
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(payload)
    if payload[:2] == b"\x1f\x8b":
        return zlib.decompressobj(31).decompress(payload)
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return pipe(["zstd", "-dc"], payload)
    raise RepackError(f"payload of an unknown format: {payload[:6].hex()}")


def vmlinux_of(image):
    """The ELF file in the bzImage."""
    if len(image) < 0x270 or get(image, HEADER) != b"HdrS":
        raise RepackError("not a bzImage: no HdrS at 0x202")
    if get(image, VERSION) < 0x020C:
        raise RepackError("boot protocol older than 2.12: no 64-bit entry")
    start = (get(image, SETUP_SECTS) or 4) * 512 + 512
    start += get(image, PAYLOAD_OFFSET)
    elf = decompress(image[start:start + get(image, PAYLOAD_LENGTH)])
    if elf[:5] != b"\x7fELF\x02":
        raise RepackError("the payload holds no 64-bit ELF file")
    return elf


def flatten(elf):
    """Return (physical base, flat image, size in memory) of an ELF file."""
    entry, phoff = struct.unpack_from("<QQ", elf, 24)
    phentsize, phnum = struct.unpack_from("<HH", elf, 54)
    loads = []
    for i in range(phnum):
        kind, _, offset, _, paddr, filesz, memsz, _ = struct.unpack_from(
            "<IIQQQQQQ", elf, phoff + i * phentsize)
        if kind == 1:
            loads.append((paddr, memsz, elf[offset:offset + filesz]))
    base = min(paddr for paddr, _, _ in loads)
    end = max(paddr + memsz for paddr, memsz, _ in loads)
    if entry != base or base % ALIGN:
        raise RepackError("startup_64 is not at the start of the kernel")
    flat = bytearray(end - base)
    for paddr, _, data in loads:
        flat[paddr - base:paddr - base + len(data)] = data
    used = len(flat.rstrip(b"\0"))
    return base, bytes(flat[:round_up(used)]), round_up(len(flat))


def round_up(size, unit=4096):
    """The next multiple of a unit."""
    return -(-size // unit) * unit


def pack(flat, lz4):
    """LZ4 blocks, each behind its size: lz4's legacy format, then a 0."""
    packed = pipe([lz4, "-l", "-9", "-c"], flat)
    if packed[:4] != LZ4_LEGACY:
        raise RepackError("lz4 does not know its legacy format")
    return packed[4:] + bytes(4 + -len(packed) % 8)


def stub(nasm, payload_size, flat_size, kernel_size):
    """Assemble the two entries and the unpacker."""
    source = pathlib.Path(__file__).with_name("stub.asm")
    with tempfile.TemporaryDirectory() as work:
        out = pathlib.Path(work, "stub.bin")
        subprocess.run([nasm, "-f", "bin", f"-DPAYLOAD_SIZE={payload_size}",
                        f"-DFLAT_SIZE={flat_size}",
                        f"-DKERNEL_SIZE={kernel_size}", "-o", out, source],
                       check=True)
        return out.read_bytes()


def repack(image, nasm="nasm", lz4="lz4"):
    """Return the repacked bzImage."""
    base, flat, size = flatten(vmlinux_of(image))
    payload = pack(flat, lz4)
    # The payload waits behind what is being unpacked.
    size = max(size, round_up(len(flat) + len(payload)))
    body = stub(nasm, len(payload), len(flat), size) + payload
    body += bytes(-len(body) % 16)
    setup = bytearray(image[:(get(image, SETUP_SECTS) or 4) * 512 + 512])
    # No EFI program any more: the MZ and PE headers spoke of the old image.
    setup[:0x1F1] = bytes(0x1F1)
    for field, value in (
            (SYSSIZE, len(body) // 16),
            (KERNEL_ALIGNMENT, ALIGN),
            (RELOCATABLE, 1),
            (MIN_ALIGNMENT, ALIGN.bit_length() - 1),
            (XLOADFLAGS, XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G),
            (PAYLOAD_OFFSET, 0),
            (PAYLOAD_LENGTH, 0),
            (PREF_ADDRESS, base - ALIGN),
            (INIT_SIZE, ALIGN + size + TABLES_SIZE),
            (HANDOVER_OFFSET, 0),
            (KERNEL_INFO_OFFSET, 0)):
        put(setup, field, value)
    return bytes(setup) + body


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vmlinuz", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--nasm", default="nasm")
    parser.add_argument("--lz4", default="lz4")
    args = parser.parse_args()
    try:
        image = repack(args.vmlinuz.read_bytes(), args.nasm, args.lz4)
    except (RepackError, lzma.LZMAError, zlib.error, struct.error) as error:
        sys.exit(f"repack.py: {args.vmlinuz}: {error}")
    partial = args.output.with_suffix(".partial")
    partial.write_bytes(image)
    os.replace(partial, args.output)


if __name__ == "__main__":
    main()
