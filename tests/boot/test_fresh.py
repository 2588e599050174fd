# SPDX-License-Identifier: MIT
"""`./run`, and the steps of .github/workflows/test.yml with `./test`, from a
fresh clone on a clean Debian 12.

debootstrap's minimal system with git stands in for it, in build/fresh; the
packages stay in build/cache. Its apt sources are this machine's own. Each
command runs in a mount and process namespace of its own: whatever it mounts
and starts ends with it, however it ends.
"""
import os
import pathlib
import re
import shutil
import subprocess
import textwrap
import threading

import pytest

from rigs import DEMO_READY
from rigs.spec import BUILD, REPOSITORY

# Beside their own limits, debootstrap.
pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * 3600)]

ROOT = BUILD / "fresh"
DEBS = BUILD / "cache" / "debs"
TREE = "root/monocle"
WORKFLOW = REPOSITORY / ".github" / "workflows" / "test.yml"
RELEASE = "bookworm"
# What reaches the mirror, where the machine needs it.
PASSED = {name: os.environ[name] for name in os.environ
          if name.lower().endswith("_proxy")}
# One test of each kind; the tests' own budget is of the whole suite.
PICK = "test_house.py or test_string.py or test_pic.py or test_exit_status"
STEP = re.compile(r"^      - name: .*\n        run: (?:\|\n"
                  r"((?: {10}.*\n)+)|(.*)\n)", re.MULTILINE)
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
    """What this machine lacks for the test, or None."""
    if os.geteuid():
        return "only root can set a system up"
    if not shutil.which("debootstrap"):
        return "debootstrap is not installed"
    if not mirror():
        return f"no source of Debian's {RELEASE} in this machine's apt"
    if subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        return "no mount namespace can be had here"
    return None


@pytest.fixture(scope="module")
def system():
    """A minimal Debian, with a clone of the tree that was committed."""
    if reason := obstacle():
        pytest.skip(reason)
    subprocess.run(["rm", "-rf", ROOT], check=True)
    (DEBS / "partial").mkdir(parents=True, exist_ok=True)
    subprocess.run([*NAMESPACE, "debootstrap", "--variant=minbase",
                    "--include=git,ca-certificates", f"--cache-dir={DEBS}",
                    RELEASE, ROOT, mirror()], check=True)
    for name in ("apt/sources.list", "apt/sources.list.d", "resolv.conf",
                 "hosts"):
        source = pathlib.Path("/etc", name)
        if source.is_dir():
            shutil.copytree(source, ROOT / "etc" / name, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, ROOT / "etc" / name)
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", REPOSITORY,
                    ROOT / TREE], check=True)
    yield ROOT
    subprocess.run(["rm", "-rf", ROOT], check=True)


def start(root, command, **more):
    """Start a command in the clone; its output is this test's."""
    return subprocess.Popen(
        [*NAMESPACE, "sh", "-c", INSIDE, "sh", root, DEBS, TREE, command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
             "LC_ALL": "C", **PASSED}, **more)


def test_run(system):
    """A shell, at which a user powers the guest off: status 0."""
    seen = b""
    with start(system, "./run", stdin=subprocess.PIPE,
               stdout=subprocess.PIPE) as machine:
        limit = threading.Timer(1800, machine.kill)
        limit.start()
        while part := machine.stdout.read1():
            before, seen = seen, seen + part
            if b"demo# " in seen and b"demo# " not in before:
                machine.stdin.write(b"poweroff -f\n")
                machine.stdin.flush()
        limit.cancel()
    assert DEMO_READY.encode() in seen, seen[-3000:].decode(errors="replace")
    assert machine.returncode == 0
    assert (system / TREE / "build" / "monocle.iso").exists()


def steps():
    """What the workflow runs, a shell script each."""
    return [textwrap.dedent(block) or line
            for block, line in STEP.findall(WORKFLOW.read_text())]


def test_workflow(system):
    """Each step passes; in its ./test, each kind of test."""
    assert "./test" in steps()
    for step in steps():
        command = f"export PYTEST_ADDOPTS=\"-k '{PICK}'\"\n{step}"
        with start(system, command, stdin=subprocess.DEVNULL,
                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as suite:
            limit = threading.Timer(3600, suite.kill)
            limit.start()
            text = suite.stdout.read().decode(errors="replace")
            limit.cancel()
        assert suite.returncode == 0, text[-5000:]
        if step == "./test":
            assert " passed" in text and "skipped" not in text, text[-5000:]
