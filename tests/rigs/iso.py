# SPDX-License-Identifier: MIT
"""A bootable image by grub-mkrescue: GRUB, Monocle, and the guest."""
import os
import pathlib
import re
import shlex
import shutil
import struct
import subprocess

from .result import RigError
from .spec import BUILD

PLATFORMS = {"bios": ("i386-pc", ["biosdisk"]),
             "uefi": ("x86_64-efi", ["efi_gop"])}
COMMANDS = ["normal", "iso9660", "multiboot", "multiboot2", "linux"]
# Extra GRUB commands of a boot, and the module that holds each.
MODULE_OF = {"acpi": "acpi", "setpci": "setpci", "echo": "echo",
             "read": "read",
             "write_byte": "memrw", "write_word": "memrw",
             "write_dword": "memrw", "outb": "iorw", "outw": "iorw",
             "outl": "iorw", "wrmsr": "wrmsr", "cutmem": "mmap", "badram": "mmap"}
PLAIN = re.compile(r"[\w@%+=:,./-]+")


def quote(word):
    """A word as GRUB's script language takes it literally."""
    if PLAIN.fullmatch(word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def words(line):
    """A command line, its words split as a shell does, for GRUB's."""
    try:
        return [quote(word) for word in shlex.split(line)]
    except ValueError as error:
        raise RigError(f"command line {line!r}: {error}") from error


def is_linux(image):
    """Whether the file is a bzImage ("HdrS", boot protocol 2.00)."""
    return image[0x202:0x206] == b"HdrS"


def is_multiboot(image):
    """Whether it has a Multiboot 1 header (section 3.1 there)."""
    head = image[:8192]
    return any(magic == 0x1BADB002 and (magic + flags + check) % 2**32 == 0
               for offset in range(0, len(head) - 11, 4)
               for magic, flags, check in
               [struct.unpack_from("<3I", head, offset)])


def native_commands(kernel, initrd, append):
    """GRUB commands that boot the guest with no Monocle below it."""
    with open(kernel, "rb") as file:
        head = file.read(8192)
    if is_linux(head):
        loaders = ("linux", "initrd")
    elif is_multiboot(head):
        loaders = ("multiboot", "module")
    else:
        raise RigError(f"{kernel}: neither a bzImage nor a Multiboot ELF")
    lines = [" ".join([loaders[0], "/boot/kernel", *words(append)])]
    if initrd:
        lines.append(f"{loaders[1]} /boot/initrd")
    return lines


def monocle_commands(spec, options):
    """GRUB commands that start Monocle with its guest."""
    kernel, initrd, append = spec.guest()
    lines = [" ".join(["multiboot2", "/boot/monocle.elf", *words(options)])]
    if kernel:
        lines.append(" ".join(["module2", "/boot/kernel", "kernel",
                               *words(append)]))
    if initrd:
        lines.append("module2 /boot/initrd initrd")
    for i, (_, string) in enumerate(spec.modules):
        lines.append(" ".join(["module2", f"/boot/module{i}",
                               *words(string)]))
    return lines


def contents(spec):
    """What the image holds: {path in the image: file}."""
    kernel, initrd, _ = spec.guest()
    files = {"/boot/kernel": kernel, "/boot/initrd": initrd}
    if not spec.native:
        files["/boot/monocle.elf"] = spec.monocle or BUILD / "monocle.elf"
    for i, (file, _) in enumerate(spec.modules):
        files[f"/boot/module{i}"] = file
    files.update(spec.files)
    return {path: pathlib.Path(file).resolve()
            for path, file in files.items() if file}


def graft(path):
    """A path in xorriso's -graft-points."""
    return re.sub(r"([\\=])", r"\\\1", str(path))


def mkrescue(output, files, firmware, modules):
    """Run grub-mkrescue for one firmware, with no more than is needed."""
    tool = shutil.which("grub-mkrescue")
    platform, own = PLATFORMS[firmware]
    directory = pathlib.Path("/usr/lib/grub") / platform
    if not tool or not directory.is_dir():
        raise RigError(f"grub-mkrescue for {platform} is not installed: "
                       "tools/install")
    command = [tool, "-d", directory, "--fonts=", "--locales=", "--themes=",
               "--install-modules=" + " ".join(COMMANDS + own + modules),
               "-o", output]
    command += ["=".join(graft(part) for part in pair)
                for pair in files.items()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RigError(f"grub-mkrescue failed:\n{done.stdout}")


def build(spec, options, work):
    """Build the image for one run in directory `work`; return its path."""
    files = contents(spec)
    for path, file in files.items():
        if not os.access(file, os.R_OK):
            raise RigError(f"{file}: cannot be read (for {path}); "
                           "has `make` been run?")
    # grub-mkrescue's image complains of partition maps that are left out.
    lines = ["set timeout=0", "clear"]
    if spec.firmware == "uefi":
        lines.append("insmod efi_gop")
    elif spec.gfx != "text":
        lines.append("insmod vbe")
    lines += spec.grub
    if spec.native:
        lines += native_commands(*spec.guest())
    else:
        lines += monocle_commands(spec, options)
    # multiboot2 has set it to "auto": right on UEFI, but without a video
    # driver GRUB 2.06 crashes on it under a BIOS, whose text mode serves.
    if spec.firmware != "uefi":
        lines.append(f"set gfxpayload={spec.gfx}")
    config = pathlib.Path(work, "grub.cfg")
    config.write_text("\n".join(lines + ["boot", ""]))
    needed = {MODULE_OF[word] for line in spec.grub
              for word in line.split()[:1] if word in MODULE_OF}
    if "insmod vbe" in lines:
        needed.add("vbe")
    output = pathlib.Path(work, "boot.iso")
    mkrescue(output, {"/boot/grub/grub.cfg": config, **files},
             spec.firmware, sorted(needed))
    return output
