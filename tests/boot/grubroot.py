# SPDX-License-Identifier: MIT
"""A machine on paper, for which Debian's own grub-mkconfig writes a grub.cfg.

It runs with this machine's /usr in a root of its own (a mount namespace; for who
is not root, a user namespace as well). Only grub-probe is played: what it says
of disks and file systems stands in files below /probe.
"""
import os
import re
import shutil
import subprocess

from rigs.spec import REPOSITORY

ETC = REPOSITORY / "boot" / "etc"
NAMESPACE = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid()
                                     else [])]
UUID = "0a1b2c3d-0001-4002-8003-000000000001"
PARTUUID = "0badcafe-01"
EFIVARS = "sys/firmware/efi/efivars"
FIRMWARE = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
PROBE = """#!/bin/sh
# grub-probe --target=TARGET PATH, or --device DEVICE --target=TARGET
for word; do
	case $word in
	--target=*) target=${word#--target=} ;;
	-*) ;;
	*) what=$word ;;
	esac
done
exec cat "/probe$what/$target" 2>/dev/null
"""
# What is mounted in the root before grub-mkconfig runs in it.
ENTER = """set -e
cd "$1"
mount --rbind /usr usr
mount --bind grub-probe usr/sbin/grub-probe
mount --bind /dev/null dev/null
{mounts}
shift
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C chroot . "$@"
"""


def obstacle():
    """Why no such root can be had here, or None."""
    done = subprocess.run([*NAMESPACE, "true"], check=False, text=True,
                          capture_output=True)
    return done.stderr if done.returncode else None


class Files:
    """A root's files, those among them that are played."""

    def __init__(self, path):
        self.path = path

    def write(self, name, text):
        """A file."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def disk(self, *paths, device="/dev/sda1", hint="hd0,msdos1", **answers):
        """A device with a file system that these paths are on."""
        name = (f"--hint='{hint}'" if "/" in hint else
                f"--hint-bios={hint} --hint-efi={hint}")
        answers = {"fs": "ext2", "fs_uuid": UUID, "partuuid": PARTUUID,
                   "partmap": "msdos", "abstraction": "",
                   "compatibility_hint": hint, "hints_string": name, **answers}
        for path in paths:
            self.write(f"probe{path}/device", device + "\n")
        for target, answer in answers.items():
            self.write(f"probe{device}/{target}", answer and answer + "\n")
        self.write(device[1:], "")
        self.write(f"dev/disk/by-uuid/{answers['fs_uuid']}", "")
        self.write(f"dev/disk/by-partuuid/{answers['partuuid']}", "")

    def set(self, name="monocle", **values):
        """Settings, of /etc/default/monocle or another."""
        with open(self.path / "etc" / "default" / name, "a") as file:
            file.writelines(f"{key}={value}\n"
                            for key, value in values.items())

    def efi(self, name, value, guid=FIRMWARE):
        """A variable of the firmware's."""
        self.write(f"{EFIVARS}/{name}-{guid}", bytes([6, 0, 0, 0, value]))


class Root(Files):
    """The root of a machine whose /boot is a part of its one file system."""

    def __init__(self, path):
        super().__init__(path)
        self.mounts = []
        for name in ("usr", "boot/grub", "etc/default", "etc/grub.d", "dev",
                     "tmp", "sys"):
            (path / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (path / name).symlink_to(f"usr/{name}")
        self.write("grub-probe", PROBE).chmod(0o755)
        self.write("dev/null", "")
        self.write("boot/monocle.elf", "")
        for name in ("grub.d/20_monocle", "default/monocle"):
            shutil.copy(ETC / name, path / "etc" / name)
        shutil.copy("/etc/grub.d/10_linux", path / "etc" / "grub.d")
        self.write("etc/default/grub", 'GRUB_DISTRIBUTOR=Debian\n'
                   'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
        self.disk("/", "/boot")

    def kernel(self, *versions, initrd="initrd.img-{}"):
        """Installed kernels."""
        for version in versions:
            self.write(f"boot/vmlinuz-{version}", "")
            if initrd:
                self.write("boot/" + initrd.format(version), "")

    def run(self, *command):
        """A command in the root."""
        script = ENTER.format(mounts="\n".join(self.mounts))
        return subprocess.run(
            [*NAMESPACE, "sh", "-c", script, "sh", self.path, *command],
            check=False, text=True, capture_output=True)

    def mkconfig(self):
        """Let grub-mkconfig write a grub.cfg, which it gives to
        grub-script-check; its words."""
        done = self.run("grub-mkconfig", "-o", "/tmp/grub.cfg")
        assert done.returncode == 0, done.stderr
        return done.stderr

    def part(self, script="20_monocle"):
        """What a script of /etc/grub.d has written."""
        return part((self.path / "tmp" / "grub.cfg").read_text(), script)


def part(text, script="20_monocle"):
    """What a script of /etc/grub.d has written to a grub.cfg."""
    return re.search(rf"^### BEGIN /etc/grub.d/{script} ###\n(.*?)"
                     rf"^### END", text, re.MULTILINE | re.DOTALL)[1]


def entries(text):
    """{title: its lines} of a part, in order."""
    return {title.replace("'\\''", "'"):
            [line.strip() for line in body.splitlines()]
            for title, body in re.findall(
                r"^\t*menuentry '((?:[^']|'\\'')*)' [^\n]*\{\n(.*?)^\t*\}$",
                text, re.MULTILINE | re.DOTALL)}


def told(lines):
    """(kernel, its command line, initrd) of an entry, either script's."""
    kernel, initrd = None, ""
    for line in lines:
        match line.split():
            case ["linux", kernel, *words] | \
                    ["module2", kernel, "kernel", *words]:
                pass
            case ["initrd", initrd] | ["module2", "--nounzip", initrd,
                                       "initrd"]:
                pass
    return kernel, words, initrd
