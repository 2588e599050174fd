# SPDX-License-Identifier: MIT
"""A clean Debian 12 to install something in: debootstrap's minimal system, below
build/; its packages stay in build/cache. Its apt sources are this machine's own.

Each command runs in a mount and process namespace of its own: whatever it mounts
and starts ends with it, however it ends.
"""
import os
import pathlib
import shutil
import subprocess

from rigs.spec import BUILD

DEBS = BUILD / "cache" / "debs"
RELEASE = "bookworm"
# What reaches the mirror, where the machine needs it.
PASSED = {name: os.environ[name] for name in os.environ
          if name.lower().endswith("_proxy")}
INSIDE = """
mount -t proc proc "$1/proc" && mount --bind /dev "$1/dev" &&
mount --bind "$2" "$1/var/cache/apt/archives" &&
exec chroot "$1" /bin/sh -ec "cd /$3
$4"
"""
NAMESPACE = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]


def mirror():
    """Where this machine gets Debian 12's main part from, or None."""
    if not shutil.which("apt-get"):
        return None
    lines = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)",
         "Created-By: Packages", "Component: main"], check=True, text=True,
        capture_output=True).stdout.split("\n")
    return next((line.split()[1] for line in lines
                 if line.startswith(f"{RELEASE} ")), None)


def obstacle():
    """What this machine lacks for it, or None."""
    if os.geteuid():
        return "only root can set a system up"
    if not shutil.which("debootstrap"):
        return "debootstrap is not installed"
    if not mirror():
        return f"no source of Debian's {RELEASE} in this machine's apt"
    if subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        return "no mount namespace can be had here"
    return None


def remove(root):
    """Nothing is mounted there."""
    subprocess.run(["rm", "-rf", root], check=True)


def install(root, *packages):
    """The minimal system, with a few packages more."""
    remove(root)
    (DEBS / "partial").mkdir(parents=True, exist_ok=True)
    subprocess.run([*NAMESPACE, "debootstrap", "--variant=minbase",
                    f"--include={','.join(packages)}", f"--cache-dir={DEBS}",
                    RELEASE, root, mirror()], check=True)
    for name in ("apt/sources.list", "apt/sources.list.d", "resolv.conf",
                 "hosts"):
        source = pathlib.Path("/etc", name)
        if source.is_dir():
            shutil.copytree(source, root / "etc" / name, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, root / "etc" / name)


def start(root, command, where="root", **more):
    """Start a shell command in a folder of the system."""
    return subprocess.Popen(
        [*NAMESPACE, "sh", "-c", INSIDE, "sh", root, DEBS, where, command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
             "LC_ALL": "C", **PASSED}, **more)
