# SPDX-License-Identifier: MIT
"""`./run`, and the steps of .github/workflows/test.yml with `./test`, from a
fresh clone on a clean Debian 12.

boot/debian.py's minimal system with git stands in for it, in build/fresh.
"""
import re
import subprocess
import textwrap
import threading

import pytest

from boot import debian
from rigs import DEMO_READY
from rigs.spec import BUILD, REPOSITORY

# Beside their own limits, debootstrap.
pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * 3600)]

ROOT = BUILD / "fresh"
TREE = "root/monocle"
WORKFLOW = REPOSITORY / ".github" / "workflows" / "test.yml"
# One test of each kind; the tests' own budget is of the whole suite.
PICK = "test_house.py or test_string.py or test_pic.py or test_exit_status"
STEP = re.compile(r"^      - name: .*\n        run: (?:\|\n"
                  r"((?: {10}.*\n)+)|(.*)\n)", re.MULTILINE)


@pytest.fixture(scope="module")
def system():
    """A minimal Debian, with a clone of the tree that was committed."""
    if reason := debian.obstacle():
        pytest.skip(reason)
    debian.install(ROOT, "git", "ca-certificates")
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", REPOSITORY,
                    ROOT / TREE], check=True)
    yield ROOT
    debian.remove(ROOT)


def start(root, command, **more):
    """Start a command in the clone; its output is this test's."""
    return debian.start(root, command, TREE, **more)


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
