# SPDX-License-Identifier: MIT
"""A hard disk with GRUB in front of a file system, made without mounting one."""
import pathlib
import shutil
import struct
import subprocess
import zlib

SECTOR = 512
START = 2048                # of the one partition, in sectors
GRUB = pathlib.Path("/usr/lib/grub/i386-pc")
# What a UEFI GRUB needs of its own to boot Linux, with a picture, or show a file.
EFI_MODULES = ["part_msdos", "fat", "normal", "linux", "chain", "serial",
               "efi_gop", "gfxterm", "boot", "cat"]
# INT 18h: a BIOS goes on to what is next.
NEXT_DISK = b"\xcd\x18"
FONT = pathlib.Path("/usr/share/grub/unicode.pf2")
HEADS, TRACK = 16, 63
CYLINDER = HEADS * TRACK * SECTOR
# Of the volume group, of the volume, and of what they are on.
VG, LV, PV = (f"Monocl-{kind}000-0000-0000-0000-0000-000000" for kind in "vlp")
LVMID = f"lvmid/{VG}/{LV}"
EXTENT = 4 << 20
PE_START = 1 << 20


def install(root):
    """What grub-install copies to a root's /boot."""
    where = root / "boot" / "grub"
    for file in [*GRUB.glob("*.mod"), *GRUB.glob("*.lst")]:
        (where / "i386-pc").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, where / "i386-pc")
    (where / "fonts").mkdir(exist_ok=True)
    shutil.copy(FONT, where / "fonts")


def loader(prefix, modules, work):
    """boot.img and core.img, which lie one behind the other before the
    partition: where each looks for the next if nobody says otherwise."""
    core = pathlib.Path(work, "core.img")
    subprocess.run(["grub-mkimage", "-O", "i386-pc", "-o", core, "-p", prefix,
                    "biosdisk", "part_msdos", "ext2", *modules], check=True)
    data = (GRUB / "boot.img").read_bytes() + core.read_bytes()
    assert len(data) <= START * SECTOR
    return data


def file_system(root, uuid, size, path):
    """An ext2 with what is in a directory."""
    subprocess.run(["mke2fs", "-q", "-t", "ext2", "-U", uuid, "-d", root, path,
                    f"{size}M"], check=True, stdout=subprocess.DEVNULL)


def crc(data):
    """LVM's (lib/misc/crc.c): no last inversion, a start of its own."""
    return zlib.crc32(data, 0xf597a6cf ^ 0xffffffff) ^ 0xffffffff


def physical_volume(extents):
    """What is before a volume of so many extents, the only one of a volume
    group: label, header and metadata (format_text/layout.h)."""
    text = f"""vg {{
id = "{VG}"
seqno = 1
format = "lvm2"
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = {EXTENT // SECTOR}
max_lv = 0
max_pv = 0
physical_volumes {{
pv0 {{
id = "{PV}"
device = "/dev/sda1"
status = ["ALLOCATABLE"]
flags = []
dev_size = {(PE_START + extents * EXTENT) // SECTOR}
pe_start = {PE_START // SECTOR}
pe_count = {extents}
}}
}}
logical_volumes {{
root {{
id = "{LV}"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
segment_count = 1
segment1 {{
start_extent = 0
extent_count = {extents}
type = "striped"
stripe_count = 1
stripes = [
"pv0", 0
]
}}
}}
}}
}}
contents = "Text Format Volume Group"
version = 1
""".encode() + b"\0"
    area = 4096
    header = struct.pack("<32sQ8Q", PV.replace("-", "").encode(),
                         PE_START + extents * EXTENT, PE_START, 0, 0, 0,
                         area, PE_START - area, 0, 0)
    label = struct.pack("<I8s", 32, b"LVM2 001") + header
    label = label.ljust(SECTOR - 20, b"\0")
    meta = b" LVM2 x[5A%r0N*>" + struct.pack(
        "<IQQQQII", 1, area, PE_START - area, SECTOR, len(text), crc(text), 0)
    meta = meta.ljust(SECTOR - 4, b"\0")
    data = bytes(SECTOR) + struct.pack("<8sQI", b"LABELONE", 1, crc(label))
    data = (data + label).ljust(area, b"\0") + struct.pack("<I", crc(meta))
    return (data + meta + text).ljust(PE_START, b"\0")


def build(path, root, uuid, size=128, lvm=False):
    """A disk whose partition has a root's files in a file system of `size`
    MiB (lvm: in a volume); its path."""
    work = path.parent
    install(root)
    volume = work / "volume"
    file_system(root, uuid, size, volume)
    before = physical_volume((size << 20) // EXTENT) if lvm else b""
    prefix, modules = (LVMID, ["lvm"]) if lvm else ("hd0,msdos1", [])
    head = bytearray(loader(f"({prefix})/boot/grub", modules, work).ljust(
        START * SECTOR, b"\0"))
    # Active; by LBA alone; Linux or its LVM. boot.img has code for floppies there.
    head[446:512] = struct.pack(
        "<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x8e if lvm else 0x83,
        b"\xfe\xff\xff", START,
        (len(before) + (size << 20)) // SECTOR).ljust(64, b"\0") + b"\x55\xaa"
    with open(path, "wb") as disk, open(volume, "rb") as file:
        disk.write(head + before)
        shutil.copyfileobj(file, disk)
        # Bochs has whole cylinders.
        disk.truncate(-(-disk.tell() // CYLINDER) * CYLINDER)
    volume.unlink()
    return path


def content(path, file):
    """A file of build()'s file system, in which e2fsck finds nothing wrong."""
    volume = pathlib.Path(path).with_suffix(".volume")
    with open(path, "rb") as disk, open(volume, "wb") as only:
        disk.seek(446 + 8)
        start, size = struct.unpack("<II", disk.read(8))
        disk.seek(start * SECTOR)
        only.write(disk.read(size * SECTOR))
    subprocess.run(["e2fsck", "-f", "-n", volume], check=True,
                   stdout=subprocess.DEVNULL)
    return subprocess.run(["debugfs", "-R", f"cat {file}", volume],
                          check=True, capture_output=True).stdout


def bochs(path):
    """Lines of Bochs's configuration that start it."""
    cylinders = path.stat().st_size // CYLINDER
    return (f"ata0-master: type=disk, path={path}, mode=flat, "
            f"cylinders={cylinders}, heads={HEADS}, spt={TRACK}",
            "boot: disk")


def esp(path, config, files, size=48):
    """A disk with an EFI system partition of `size` MiB: GRUB, what it is to
    do, and files {path: file}. `mcopy -i PATH@@1M ::FILE` reads it."""
    work = path.parent
    loader_file, menu = work / f"{path.name}.efi", work / f"{path.name}.cfg"
    subprocess.run(["grub-mkimage", "-O", "x86_64-efi", "-o", loader_file,
                    "-p", "/EFI/BOOT", *EFI_MODULES], check=True)
    menu.write_text(config)
    volume = f"{path}@@{START * SECTOR}"
    files = {"/EFI/BOOT/BOOTX64.EFI": loader_file, "/EFI/BOOT/grub.cfg": menu,
             "/EFI/BOOT/unicode.pf2": FONT, **files}
    folders = sorted({str(folder) for name in files
                      for folder in pathlib.Path(name).parents} - {"/"})
    with open(path, "wb") as disk:
        disk.write(struct.pack(
            "<446sB3sB3sII", NEXT_DISK, 0, b"\xfe\xff\xff", 0xef,
            b"\xfe\xff\xff", START, (size << 20) // SECTOR).ljust(510, b"\0") + b"\x55\xaa")
        disk.truncate(START * SECTOR + (size << 20))
    for command in (["mformat", "-i", volume, "-F", "-T",
                     str((size << 20) // SECTOR), "::"],
                    *(["mmd", "-i", volume, f"::{f}"] for f in folders),
                    *(["mcopy", "-i", volume, file, f"::{name}"]
                      for name, file in files.items())):
        subprocess.run(command, check=True)
    return path


def read(path, name):
    """A file of such a disk, or None."""
    done = subprocess.run(["mtype", "-i", f"{path}@@{START * SECTOR}",
                           f"::{name}"], capture_output=True, check=False)
    return None if done.returncode else done.stdout
