# SPDX-License-Identifier: MIT
"""What a newcomer is told is so: `make help`, and the pages' own words."""
import re
import subprocess

from harness import ROOT


def make(*words):
    return subprocess.run(["make", "-C", ROOT, "--no-print-directory",
                           *words], check=True, text=True,
                          capture_output=True).stdout


def is_listed(target, listed):
    """fuzz-NAME stands for all of that kind."""
    return any(re.fullmatch(name.replace("NAME", r"[\w-]+"), target)
               for name in listed)


def test_make_help():
    """A line for each target that is not a file, and none for another."""
    lines = make("help").splitlines()
    rows = [re.fullmatch(r"make ([\w-]*) +(\S.*)", line) for line in lines]
    assert all(rows), lines
    listed = [row[1] for row in rows if row[1]]
    assert listed[0] == "run" and len(set(listed)) == len(listed)
    targets = set(re.search(r"^\.PHONY: (.*)$", make("-pn", "help"),
                            re.MULTILINE)[1].split()) - {"all"}
    assert targets >= {"test", "fuzz-acpi", "help"}
    assert not [t for t in targets if not is_listed(t, listed)]
    assert not [name for name in listed
                if not any(is_listed(t, [name]) for t in targets)]
