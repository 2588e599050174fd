# SPDX-License-Identifier: MIT
"""The package in a clean Debian 12 (boot/debian.py) with its own kernels: what is
in GRUB's menu, from the installation to the purge; then that system's disk is
started on Bochs.

A change root has no disk of its own: grub-probe is played, as in grubroot.py.
Kernels, initrds, their hooks, update-grub and the rest of GRUB are Debian's.
"""
import re
import shutil
import subprocess

import pytest

import rigs
from boot import debian, grubroot, runs
from rigs import disk
from rigs.spec import BUILD, REPOSITORY

# Beside the emulator's limit, debootstrap, and initrds for two kernels.
pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * 3600)]

ROOT = BUILD / "deb-system"
TREE = "root/monocle"
KERNEL = "linux-image-amd64"
ANOTHER = "linux-image-cloud-amd64"
TIMEOUT = 1800
# No question, no package more than asked for.
APT = '''APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
Dpkg::Use-Pty "false";
'''
INSTALL = "apt-get -qq install "
# The two commands; root has no sudo there.
COMMANDS = [line.replace("sudo ", "") for line in re.findall(
    r"^    (\S.*?) +# ", (REPOSITORY / "README.md").read_text().split(
        "## On a real machine")[1].split("\n## ")[0], re.MULTILINE)]


class System(grubroot.Files):
    """The clean system, and the answers of its grub-probe."""

    def sh(self, command):
        """What a command says; it must not fail."""
        with debian.start(self.path, "export DEBIAN_FRONTEND=noninteractive\n"
                          + command, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as done:
            text = done.communicate()[0]
        assert done.returncode == 0, text[-5000:]
        return text

    def menu(self):
        """grub.cfg, which GRUB takes."""
        config = self.path / "boot" / "grub" / "grub.cfg"
        subprocess.run(["grub-script-check", config], check=True)
        return config.read_text()

    def kernels(self):
        """Versions in /boot."""
        return [path.name.partition("-")[2]
                for path in (self.path / "boot").glob("vmlinuz-*")]


@pytest.fixture(scope="module")
def system():
    """With a kernel and GRUB's files, and Monocle's package."""
    if reason := debian.obstacle():
        pytest.skip(reason)
    debian.install(ROOT, "ca-certificates")
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", REPOSITORY,
                    ROOT / TREE], check=True)
    system = System(ROOT)
    system.write("etc/apt/apt.conf.d/99test", APT)
    system.sh(f"apt-get -qq update; {INSTALL} grub2-common grub-pc-bin {KERNEL}"
              "\ndpkg-divert --quiet --rename --divert "
              "/usr/sbin/grub-probe.real /usr/sbin/grub-probe")
    system.write("usr/sbin/grub-probe", grubroot.PROBE).chmod(0o755)
    system.disk("/", "/boot")
    (ROOT / "boot" / "grub").mkdir()    # by grub-install
    system.set("grub", GRUB_DISTRIBUTOR="Debian", GRUB_TIMEOUT=0,
               GRUB_DEFAULT=f"monocle-simple-{grubroot.UUID}",
               GRUB_CMDLINE_LINUX='"console=ttyS0 break=top"')
    system.sh("update-grub")
    system.before = system.menu()
    assert len(system.kernels()) == 1
    for command in COMMANDS:
        system.sh(f"cd /{TREE}; {command}")
    yield system
    debian.remove(ROOT)


def entries(system):
    """{title: lines} of those that start a kernel on Monocle."""
    part = grubroot.part(system.menu())
    return {title: lines for title, lines in grubroot.entries(part).items()
            if "list" not in title}


def test_installed(system):
    """Its own hook has written the menu."""
    version, = system.kernels()
    assert [title.partition(",")[2] for title in entries(system)] == [
        "", f" with Linux {version}", f" with Linux {version} (recovery mode)"]
    # Debian's own entries have no other words.
    ours = [grubroot.told(lines) for lines in entries(system).values()]
    assert ours == [grubroot.told(lines) for lines in grubroot.entries(
        grubroot.part(system.menu(), "10_linux")).values()]
    assert ours[0][0] == f"/boot/vmlinuz-{version}"
    assert ours[0][2] == f"/boot/initrd.img-{version}"
    assert "no guest of Monocle" in system.sh("monoclectl log 2>&1 || true")


def test_kernels_come_and_go(system):
    """By their own packages' hooks, without a word to GRUB or Monocle."""
    old, = system.kernels()
    system.sh(INSTALL + ANOTHER)
    new, = set(system.kernels()) - {old}
    text = "\n".join(entries(system))
    assert f"Linux {old}" in text and f"Linux {new}" in text
    assert len(entries(system)) == 5
    system.sh(f"apt-get -qq purge {ANOTHER} linux-image-{new}")
    assert len(entries(system)) == 3


def test_on_lvm(system):
    system.disk("/", "/boot", device="/dev/mapper/vg-root", abstraction="lvm",
                hint="lvmid/mZk1mF-DqWl/T9U0aX-Zz2w")
    system.sh("update-grub")
    for lines in entries(system).values():
        assert "insmod lvm" in lines
        assert any("root=/dev/mapper/vg-root ro" in line for line in lines)
    system.disk("/", "/boot")
    system.sh("update-grub")


def test_secure_boot(system):
    system.efi("SecureBoot", 1)
    said = system.sh("update-grub")
    assert "Monocle has no entries: Secure Boot is on" in said
    assert not entries(system)
    assert "# Monocle has no entries: Secure Boot" in system.menu()
    system.efi("SecureBoot", 0)
    system.sh("update-grub")
    assert len(entries(system)) == 3


@pytest.fixture(scope="module")
def started(system):
    """What came of its disk on Bochs."""
    system.set(MONOCLE_CMDLINE="log=e9")
    system.sh("update-grub")
    work = runs.work("deb")
    (work / "root").mkdir(parents=True)
    shutil.copytree(ROOT / "boot", work / "root" / "boot")
    image = disk.build(work / "disk.img", work / "root", grubroot.UUID,
                       size=256)
    spec = rigs.Spec(rig="bochs", timeout=TIMEOUT, iso=image,
                     bochsrc=disk.bochs(image))
    with rigs.start(spec) as machine:
        machine.wait_for("(initramfs) ", TIMEOUT)
        machine.send("cat /proc/cmdline\n")
        machine.wait_for("break=top", TIMEOUT, after=machine.text().index(
            "(initramfs) "))
        return machine.text(), machine.text("log")


def test_it_starts_debian(system, started):
    """Debian's kernel and initrd, to the shell that `break=top` asks for."""
    version, = system.kernels()
    serial, log = started
    assert f"Linux version {version} " in serial
    assert "ro console=ttyS0 break=top" in serial
    assert re.search("^monocle: Monocle [0-9]", log, re.MULTILINE)


def test_removed_and_purged(system):
    """The menu is as it was before; a purge leaves no file."""
    system.sh("apt-get -qq remove monocle")
    assert grubroot.part(system.menu()) == ""
    assert (ROOT / "etc/default/monocle").exists()
    system.sh("apt-get -qq purge monocle; update-grub")
    assert system.menu() == system.before
    left = [path for where in ("boot", "etc", "usr")
            for path in (ROOT / where).rglob("*monocle*")]
    assert not left
