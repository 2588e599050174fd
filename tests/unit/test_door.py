# SPDX-License-Identifier: MIT
"""What a newcomer is told is so: `make help`, and the pages' own words."""
import itertools
import os
import re
import shutil
import subprocess

import pytest

from harness import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
HACKING = (ROOT / "HACKING.md").read_text()
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a reader makes, by HACKING.md's words.
MADE = ["vmm/devmodel/answer.h", "vmm/devmodel/answer.c",
        "tests/unit/test_answer.py"]


def names(text):
    """What stands in backticks, outside of listings."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


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
                            re.MULTILINE)[1].split()) - {"all", "FORCE"}
    assert targets >= {"test", "fuzz-acpi", "help"}
    assert not [t for t in targets if not is_listed(t, listed)]
    assert not [name for name in listed
                if not any(is_listed(t, [name]) for t in targets)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page):
    """Links, and paths of the tree."""
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    tops = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"build"}
    for name in names(text):
        path = name.split()[0].partition("::")[0]
        if path.partition("/")[0] in tops and "/" in path:
            there = (ROOT / path).exists() or list(ROOT.glob(path + ".[chp]*"))
            assert there or path in MADE, f"{page.name}: {path}"


def defines(path, function):
    """Whether a file, or one below a folder, has it."""
    files = [path] if path.is_file() else itertools.chain(
        path.rglob("*.[ch]"), path.rglob("*.py"), path.rglob("*.asm"))
    what = re.compile(rf"^{function}:|^(?:def )?\w[^;\n=]*\b{function}\(|"
                      rf"^(?:def )?{function}\(", re.MULTILINE)
    return any(what.search(file.read_text()) for file in files)


def test_functions_that_hacking_names():
    """Each is where the page says, or somewhere in the tree."""
    found = re.findall(r"`(?:\w+\.)?(\w+)\(\)`(?:\s+\(`([\w/.]+)`\))?",
                       FENCED.sub("", HACKING))
    assert len(found) > 20 and sum(bool(path) for _, path in found) > 8
    for function, path in found:
        places = [path] if path else ["vmm", "boot", "tests"]
        assert any(defines(ROOT / place, function) for place in places), \
            f"{function}() is not in {places}"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_device_as_hacking_says(tmp_path):
    """To the letter, in a copy of the tree."""
    tree = tmp_path / "tree"
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], text=True,
                             capture_output=True, check=True).stdout
    for name in tracked.rstrip("\0").split("\0"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    # Packages, and the guest that was made of them.
    (tree / "build").mkdir()
    shutil.copytree(ROOT / "build/cache", tree / "build/cache",
                    copy_function=os.link, symlinks=True)
    *files, lines, script = [text for _, text in FENCED.findall(HACKING)]
    for name, text in zip(MADE, files, strict=True):
        (tree / name).write_text(text)
    put(tree / "tests/unit/devmodel.py", r"(?<=^DEVICES = \[)", '"answer", ')
    machine = tree / "vmm/machine.c"
    put(machine, r'(?=^#include "vmm/(?:devmodel|load|machine_map))',
        '#include "vmm/devmodel/answer.h"\n')
    put(machine, r"(?<=init_legacy\(struct machine \*m\)\n)(?s:.*?)"
        r"(?=\treturn err;\n)", r"\g<0>" + lines.replace("\\", r"\\"))
    done = subprocess.run(["sh", "-ec", script], cwd=tree, text=True,
                          capture_output=True, timeout=1800, check=False,
                          env={k: v for k, v in os.environ.items()
                               if k not in ("LD_PRELOAD", "MAKEFLAGS")})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout, done.stdout
    assert re.search(r"^00000000  2a +\|\*\|", done.stdout, re.MULTILINE), \
        done.stdout


def put(path, where, text):
    """Put text at the first place of a file that a pattern names."""
    old = path.read_text()
    new, count = re.subn(where, text, old, count=1, flags=re.MULTILINE)
    assert count == 1, (path, where)
    path.write_text(new)


PROMISES = (ROOT / "docs/promises.md").read_text()
# In README's words, but nobody's promise: names, and an example's.
NO_PROMISE = {"64"}      # x86-64


def test_promises_name_tests_that_are_there():
    rows = [line.split(" | ") for line in PROMISES.splitlines()
            if line.startswith("| ") and "---" not in line]
    rows = [row for row in rows if row[1] != "held by |"]
    assert len(rows) > 20
    for promise, held in rows:
        tests = re.findall(r"`(tests/[\w/.]+)::(\w+)`", held)
        assert tests or "`make bench`" in held or held.startswith("no test"), \
            promise
        for path, function in tests:
            assert re.search(rf"^\s*def {function}\(",
                             (ROOT / path).read_text(), re.MULTILINE), function


def numbers(text):
    """Those of a text, but what stands in code, in links or is a name."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)|^    .*$|^<!--.*?-->$", " ", text,
                  flags=re.MULTILINE)
    return set(re.findall(
        r"(?<![\w.:,-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w:]|[.,]\d)", text))


def test_numbers_of_readme_are_promised():
    """What a command measures and writes, goals too, is one promise of its
    own: docs/bench.md's figures and goals."""
    text = re.sub("<!-- written by .*?<!-- end of .*?-->", "",
                  (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert "docs/bench.md's figures" in PROMISES
    text = re.sub(r"^\d\. ", "", text, flags=re.MULTILINE)
    promised = numbers(PROMISES)
    assert {"32,834", "124", "1000"} <= promised
    assert numbers(text) - promised - NO_PROMISE == set()
