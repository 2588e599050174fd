# SPDX-License-Identifier: MIT
"""docs/tour.md: each command does what the page says, and its pictures are
those that `make pictures` makes."""
import functools
import re
import subprocess

import pytest

from bench import pictures
from boot import runs
from rigs.spec import REPOSITORY

PAGE = (REPOSITORY / "docs" / "tour.md").read_text()
STEP = re.compile(r"^## (\d)\. .*?^```sh\n(.*?)\n```\n\n```\n(.*?)^```$",
                  re.MULTILINE | re.DOTALL)
STEPS = {number: (command, seen.splitlines())
         for number, command, seen in STEP.findall(PAGE)}
# The rest is for those who wait.
SHORT = ["3"]
LIMIT = 1800


def walk(command):
    """What a reader sees."""
    return subprocess.run(
        ["sh", "-c", command], cwd=REPOSITORY, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT)


for step in STEPS:
    runs.define(f"tour-{step}")(functools.partial(walk, STEPS[step][0]))


NUMBER = re.compile(r"0x[0-9a-f]{5,}|"
                    r"(?<![\w:.])(?:[1-9]\d*(?:\.\d+)*|0\.\d+)(?![\w:])")


def pattern(line):
    """A line of the page: blanks as many as there are, any number but 0."""
    words = [re.escape(part).replace(r"\ ", r"\s+") for part in
             NUMBER.split(" ".join(line.split()))]
    return r"(?:0x[0-9a-f]+|[1-9]\d*(?:\.\d+)*|0\.\d+)".join(words)


def test_the_page_has_five_steps():
    assert list(STEPS) == ["1", "2", "3", "4", "5"]
    assert all(len(seen) > 1 for _, seen in STEPS.values())


@pytest.mark.timeout(LIMIT + runs.LIMIT)
@pytest.mark.parametrize("step", runs.each(STEPS, "tour-{}", SHORT))
def test_step(run, step):
    done = run(f"tour-{step}")
    assert done.returncode == 0, done.stdout
    for line in STEPS[step][1]:
        assert re.search(pattern(line), done.stdout), (line, pattern(line),
                                                      done.stdout)


def test_pictures():
    shown = re.findall(r"^!\[.+\]\((.+)\)$", PAGE, re.MULTILINE)
    assert sorted(shown) == sorted(pictures.PICTURES)
    for name in shown:
        assert (pictures.DOCS / name).stat().st_size < 60_000
