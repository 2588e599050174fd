# SPDX-License-Identifier: MIT
"""The UEFI driver of a display's ROM in Debian's OVMF, over a framebuffer in the
midst of a 64-bit BAR, with lines longer than the picture. No display of an emulator
has such a BAR: it is another device's, whose memory is a file, without Monocle."""
import os
import struct
import subprocess

import pytest
from PIL import Image

import rigs
from boot import runs, screen
from boot.nested_cases import GFXTERM, GRUB_READY, MODE
from rigs import disk
from rigs.spec import BUILD, DEMO_APPEND, DEMO_INITRD, DEMO_KERNEL, DEMO_READY

pytestmark = pytest.mark.timeout(runs.TIMEOUT)
IVSHMEM = 0x1af4, 0x1110
SIZE = tuple(map(int, MODE.split("x")[:2]))
LINE, AT = 1280, 8 << 20
FORMS = {"RGBX": 0, "BGRX": 1}
MENU = f"""set timeout=60
serial
{GFXTERM}
menuentry Linux {{
	linux /vmlinuz console=tty0 {DEMO_APPEND} loglevel=6
	initrd /initrd
}}
"""


def rom(path, form):
    """That of the image, with the table as vmm/assign/gop_table.h says."""
    built = BUILD / "obj" / "vmm" / "assign" / "gop_rom.asm.o"
    subprocess.run(["objcopy", "-O", "binary", "-j", ".rodata", built, path],
                   check=True)
    data = bytearray(path.read_bytes())
    struct.pack_into("<IIQ4I", data, 0x40, 0x706f474d, 2, AT, *SIZE,
                     4 * LINE, FORMS[form])
    struct.pack_into("<HH", data, data.index(b"PCIR") + 4, *IVSHMEM)
    path.write_bytes(data)


def picture(memory, form):
    """What is on it; nothing is beside it."""
    data, line = memory.read_bytes(), 4 * LINE
    lines = [data[AT + line * y:][:line] for y in range(SIZE[1])]
    assert not any(one[4 * SIZE[0]:].strip(b"\0") for one in lines)
    assert not (data[:AT] + data[AT + line * SIZE[1]:]).strip(b"\0")
    return Image.frombytes("RGB", SIZE, b"".join(
        one[:4 * SIZE[0]] for one in lines), "raw", form)


@pytest.mark.parametrize("form", FORMS)
def test_grub_and_linux_draw_in_a_64_bit_bar(tmp_path, form):
    memory, drive = tmp_path / "memory", tmp_path / "esp"
    memory.touch()
    os.truncate(memory, 64 << 20)
    rom(tmp_path / "gop.rom", form)
    disk.esp(drive, MENU, {"/vmlinuz": DEMO_KERNEL, "/initrd": DEMO_INITRD})
    spec = rigs.Spec(
        rig="tcg", native=True, module=False, firmware="uefi", iso=drive,
        timeout=runs.TIMEOUT, devices=("ide-hd,drive=esp",),
        drives=(f"id=esp,if=none,format=raw,snapshot=on,file={drive}",),
        display=f"ivshmem-plain,memdev=fb,romfile={tmp_path}/gop.rom",
        qemu=("-object", "memory-backend-file,id=fb,share=on,size=64M,"
              f"mem-path={memory}"))
    with rigs.start(spec) as machine:
        machine.wait_for(GRUB_READY, runs.TIMEOUT)
        assert screen.shows(picture(memory, form),
                            screen.grub_rows(disk.FONT, "GNU GRUB"))
        machine.write_serial(b"\r")
        machine.wait_for(DEMO_READY, runs.TIMEOUT)
        shown = screen.read(picture(memory, form), 8)
    # Linux's font has another x.
    assert f"] Linu{screen.UNKNOWN} " in shown[0]
    assert "(debian-kernel@lists.debian.org)" in shown[0]
