# SPDX-License-Identifier: MIT
"""GRUB's entries by boot/etc/grub.d/20_monocle, beside those of Debian's 10_linux
for the same kernels: what Linux is told is the same."""
import pathlib
import re
import subprocess

import pytest

from boot import grubroot

WHY = grubroot.obstacle()
pytestmark = pytest.mark.skipif(bool(WHY), reason=f"no namespaces: {WHY}")
LINUX = "6.1.0-57-amd64"
OLDER = "6.1.0-9-amd64"


@pytest.fixture
def root(tmp_path):
    """A machine with two kernels."""
    root = grubroot.Root(tmp_path / "root")
    root.kernel(OLDER, LINUX)
    return root


def found_by(lines):
    """What makes GRUB find /boot."""
    return [line for line in lines if re.match(
        r"set root=|search |cryptomount |insmod (?!gzio|efi_gop)", line)]


def linux_entries(root):
    """Those that start a kernel: (title, lines), without `list`."""
    return [(title, lines) for title, lines in grubroot.entries(
        root.part()).items() if "list" not in title]


def same_as_debian(root):
    """Each of 10_linux's entries has its like, in the same order."""
    ours = linux_entries(root)
    theirs = list(grubroot.entries(root.part("10_linux")).items())
    assert [title for title, _ in ours] == \
        ["Monocle: " + title for title, _ in theirs]
    for (_, our), (_, their) in zip(ours, theirs):
        assert grubroot.told(our) == grubroot.told(their)
        assert found_by(our) == found_by(their)
    return [grubroot.told(lines) for _, lines in ours]


def test_each_kernel(root):
    said = root.mkconfig()
    assert "Monocle" not in said
    seen = same_as_debian(root)
    assert [kernel for kernel, _, _ in seen] == [
        f"/boot/vmlinuz-{v}" for v in (LINUX, LINUX, LINUX, OLDER, OLDER)]
    assert seen[0] == (f"/boot/vmlinuz-{LINUX}", [
        f"root=UUID={grubroot.UUID}", "ro", "quiet"],
        f"/boot/initrd.img-{LINUX}")
    assert [words[2] for _, words, _ in seen] == [
        "quiet", "quiet", "single", "quiet", "single"]


def lvm(root):
    root.disk("/", "/boot", device="/dev/mapper/vg-root", abstraction="lvm",
              hint="lvmid/mZk1mF-DqWl/T9U0aX-Zz2w")


def lvm_and_a_boot_of_its_own(root):
    root.disk("/", device="/dev/mapper/vg-root", abstraction="lvm",
              hint="lvmid/mZk1mF-DqWl/T9U0aX-Zz2w", fs_uuid="aa-bb")
    root.disk("/boot", device="/dev/sda2", hint="hd0,msdos2")
    root.mounts += ["cp -a boot kept", "mount -t tmpfs tmpfs boot",
                    "cp -a kept/. boot"]


def luks(root):
    root.disk("/", "/boot", device="/dev/mapper/vda_crypt",
              abstraction="cryptodisk\nluks\ngcry_rijndael\ngcry_sha256",
              hint="cryptouuid/1f2e3d4c", cryptodisk_uuid="1f2e3d4c")
    root.set("grub", GRUB_ENABLE_CRYPTODISK="y")


def btrfs(root):
    """A subvolume is a part of GRUB's paths."""
    root.disk("/", "/boot", fs="btrfs")
    root.write("relpath", '#!/bin/sh\necho "/@rootfs${1%/}"\n').chmod(0o755)
    root.mounts.append("mount --bind relpath usr/bin/grub-mkrelpath")


def zfs(root):
    root.disk("/", "/boot", device="/dev/sda3", fs="zfs", fs_label="rpool")


def no_initrd(root):
    for file in (root.path / "boot").glob("initrd*"):
        file.unlink()


def partuuid_without_initrd(root):
    no_initrd(root)
    root.set("grub", GRUB_DISABLE_LINUX_PARTUUID="false")


def partuuid(root):
    root.set("grub", GRUB_DISABLE_LINUX_UUID="true",
             GRUB_DISABLE_LINUX_PARTUUID="false")


def no_uuid_at_all(root):
    root.set("grub", GRUB_DISABLE_UUID="true")


def nothing_by_uuid(root):
    subprocess.run(["rm", "-r", root.path / "dev/disk"], check=True)


def words(root):
    root.set("grub", GRUB_CMDLINE_LINUX="'console=ttyS0 a=\"b  c\" d=e\\;f'")


def flat(root):
    root.set("grub", GRUB_DISABLE_SUBMENU="y")


def no_recovery(root):
    root.set("grub", GRUB_DISABLE_RECOVERY="true")


def a_distributor_with_a_quote(root):
    root.set("grub", GRUB_DISTRIBUTOR='"Ann\'s"')


def versions(root):
    """By dpkg's rules; what was kept has the other's initrd."""
    root.kernel("6.1.0-10-amd64", "6.2-rc1-amd64", "6.2-amd64", "5.10.0+")
    root.kernel("6.2-amd64.old", "6.2-amd64.dpkg-tmp", initrd=None)
    root.kernel("6.3.1", initrd="initrd-{}.img")
    root.kernel("6.3.2", initrd="initramfs-{}.img")


@pytest.mark.parametrize("change", [
    lvm, lvm_and_a_boot_of_its_own, luks, btrfs, zfs, no_initrd,
    partuuid_without_initrd, partuuid, no_uuid_at_all, nothing_by_uuid, words,
    flat, no_recovery, a_distributor_with_a_quote, versions])
def test_as_debian_has_it(root, change):
    root.mkconfig()
    before = linux_entries(root)
    change(root)
    root.mkconfig()
    same_as_debian(root)
    assert linux_entries(root) != before


def test_on_lvm(root):
    lvm(root)
    root.mkconfig()
    (_, lines), *_ = linux_entries(root)
    assert grubroot.told(lines)[1][0] == "root=/dev/mapper/vg-root"
    assert "insmod lvm" in lines


def monocle_lines(root):
    root.mkconfig()
    return re.findall(r"^\s*multiboot2 (.*)", root.part(), re.MULTILINE)


def test_a_new_kernel_is_there_at_the_next_run(root):
    root.mkconfig()
    assert "6.12.3" not in root.part()
    root.kernel("6.12.3")
    root.mkconfig()
    (_, lines), *_ = linux_entries(root)
    assert grubroot.told(lines)[0] == "/boot/vmlinuz-6.12.3"
    (root.path / "boot/vmlinuz-6.12.3").unlink()
    root.mkconfig()
    assert "6.12.3" not in root.part()


@pytest.mark.parametrize("vendor, kind, options", [
    ("0x8086", "0x030000", "igd assign=all"),
    ("0x8086", "0x038000", "igd assign=all"),
    ("0x8086", "0x020000", "assign=all"),
    ("0x1002", "0x030000", "assign=all"),
    (None, None, "assign=all")])
def test_options_that_nobody_has_set(root, vendor, kind, options):
    if vendor:
        device = "sys/bus/pci/devices/0000:00:02.0"
        root.write(f"{device}/vendor", vendor + "\n")
        root.write(f"{device}/class", kind + "\n")
    seen = monocle_lines(root)
    assert seen.pop() == f"/boot/monocle.elf list {options}"
    assert seen == [f"/boot/monocle.elf {options}"] * 5


def test_options_that_are_set(root):
    root.write("boot/x", "")
    root.set(MONOCLE_CMDLINE="'memory=2G assign=all,-00:1f.3 * $x;y'",
             MONOCLE_CMDLINE_LINUX="nomodeset")
    seen = monocle_lines(root)
    assert seen[0] == ("/boot/monocle.elf memory=2G assign=all,-00:1f.3 "
                       "'*' '$x;y'")
    assert seen[-1].startswith("/boot/monocle.elf list memory=2G ")
    assert all("nomodeset" in grubroot.told(lines)[1]
               for _, lines in linux_entries(root))


def test_the_picture_on_each_firmware(root):
    root.mkconfig()
    for _, lines in linux_entries(root):
        at = lines.index('if [ "$grub_platform" = efi ]; then')
        assert lines[at - 1].startswith("multiboot2 ")
        assert lines[at + 1:at + 5] == ["insmod efi_gop", "else",
                                        "set gfxpayload=text", "fi"]


@pytest.mark.parametrize("uefi, title, file", [
    (False, "SeaBIOS", "/usr/share/seabios/bios-256k.bin"),
    (True, "OVMF", "/usr/share/ovmf/OVMF.fd")])
def test_what_is_on_the_disks(root, uefi, title, file):
    """By firmware as the machine has it, from where GRUB finds the file."""
    if not pathlib.Path(file).exists():
        pytest.skip("not installed")
    if uefi:
        root.efi("SecureBoot", 0)
    root.disk(file, device="/dev/sdb1", fs_uuid="0000-usr")
    root.mkconfig()
    found = {name: lines for name, lines in grubroot.entries(
        root.part()).items() if "on the disks" in name}
    (name, lines), = found.items()
    assert name == f"Monocle: what is on the disks, by {title}"
    # In a mount of its own it has a shorter name.
    assert lines[-1] in (f"module2 {file} firmware",
                         f"module2 {file.removeprefix('/usr')} firmware")
    at = next(n for n, line in enumerate(lines)
              if line.startswith("multiboot2 "))
    assert "0000-usr" in " ".join(lines[at:]) and \
        "0000-usr" not in " ".join(lines[:at])


def test_firmware_that_grub_does_not_find(root):
    root.mkconfig()
    assert "on the disks" not in root.part()


def empty(root):
    """No line in the menu, and the reason."""
    said = root.mkconfig()
    part = root.part()
    assert len(part.splitlines()) == 1 and part.startswith("# Monocle has no ")
    assert part[2:] in said
    assert root.part("10_linux")
    return part


def test_secure_boot(root):
    root.efi("SecureBoot", 1)
    root.efi("SetupMode", 0)
    assert "Secure Boot is on" in empty(root)


@pytest.mark.parametrize("variables", [
    [("SecureBoot", 0)], [("SecureBoot", 1), ("SetupMode", 1)],
    [("SecureBoot", 1), ("SetupMode", 0), ("MokSBStateRT", 1, grubroot.SHIM)]])
def test_secure_boot_that_stops_nothing(root, variables):
    for variable in variables:
        root.efi(*variable)
    root.mkconfig()
    assert len(linux_entries(root)) == 5


@pytest.mark.parametrize("value, off", [
    ("true", True), ("yes", True), ("1", True), ("no", False), ("", False)])
def test_disabled(root, value, off):
    root.set(MONOCLE_DISABLE=value)
    if off:
        assert "MONOCLE_DISABLE" in empty(root)
    else:
        root.mkconfig()
        assert linux_entries(root)


@pytest.mark.parametrize("gone", ["monocle.elf", "vmlinuz-*", "*"])
def test_nothing_without_monocle_or_kernels(root, gone):
    root.mkconfig()
    for file in (root.path / "boot").glob(gone):
        if file.is_file():
            file.unlink()
    said = root.mkconfig()
    assert root.part() == "" and "Monocle" not in said


def test_by_hand_where_there_is_no_boot(root):
    """As in a container."""
    subprocess.run(["rm", "-r", root.path / "boot"], check=True)
    done = root.run("/etc/grub.d/20_monocle")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
