# SPDX-License-Identifier: MIT
"""GRUB's configurations are ones that GRUB takes, and name what is there."""

import re
import subprocess

import pytest

import harness

BOOT = harness.ROOT / "boot"
ENTRY = BOOT / "grub-entry.cfg"


@pytest.mark.parametrize("path", sorted(BOOT.glob("*.cfg")),
                         ids=lambda path: path.name)
def test_syntax(path):
    subprocess.run(["grub-script-check", path], check=True)


def test_the_entry_needs_what_readme_has_copied():
    entry = ENTRY.read_text().split("\nmenuentry ")[1]
    needed = re.findall(r"^\t\w+2 /boot/(\S+)", entry, re.MULTILINE)
    assert needed[0] == "monocle.elf" and len(needed) == 3
    part = (harness.ROOT / "README.md").read_text().split("## ")[2]
    assert part.startswith("On a real machine")
    for where in (part, ENTRY.read_text()):
        copied = re.findall(r"\bbuild/(\S+[a-z])", where)
        assert {path.rsplit("/")[-1] for path in copied} - {"monocle.deb"} \
            == set(needed)
