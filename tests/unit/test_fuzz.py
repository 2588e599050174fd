# SPDX-License-Identifier: MIT
"""make fuzz: what it runs, and that its fuzzers find an error."""
import re
import shutil
import subprocess

import pytest

import harness

TARGETS = sorted(path.stem[len("fuzz_"):] for path in
                 (harness.ROOT / "tests/unit/fuzz").glob("fuzz_*.c"))
# A check of the parser's that is left out: (what stands there, instead)
MUTANTS = {
    ("dmar", "drivers/vtd/dmar.c"): (
        "left < (long)HEAD_SIZE || e->length > left || ",
        "left < (long)HEAD_SIZE || "),
    ("acpi", "kernel/acpi.c"): (" || length > h->length - at", ""),
    ("rom", "drivers/pci/rom.c"): ("list + 2 <= room && ", ""),
    ("pcicap", "vmm/devmodel/pci_assigned.c"): (
        "i >= ARRAY_SIZE(d->rule) || ", ""),
}


def commands(goal):
    """What make would run."""
    return subprocess.run(["make", "-n", goal], cwd=harness.ROOT, text=True,
                          capture_output=True, check=True).stdout


def test_every_fuzzer_is_run():
    runs = re.findall(r"build/fuzz/(\w+) -runs=(\d+)", commands("fuzz"))
    assert [name for name, _ in runs] == TARGETS
    assert all(int(count) >= 50_000 for _, count in runs)
    assert {"acpi", "dmar"} <= set(TARGETS)


def test_long_runs():
    found = re.findall(r"build/fuzz/(\w+) -runs=(\d+)", commands("fuzz-long"))
    assert dict(found) == {"acpi": "10000000", "dmar": "10000000"}


@pytest.mark.parametrize("goal, parts", [
    ("test", {"fuzz"}), ("test-long", {"fuzz", "fuzz-long"})])
def test_is_part_of_the_suites(goal, parts):
    text = (harness.ROOT / "mk/fuzz.mk").read_text()
    assert set(re.search(rf"^{goal}: (.*)$", text, re.MULTILINE)[1].split()) \
        == parts


@pytest.mark.parametrize("name, source", MUTANTS)
def test_missing_check_is_found(name, source, tmp_path):
    """The fuzzer ends with a report, as `make fuzz` would."""
    if not shutil.which("clang"):
        pytest.skip("no clang")
    here, instead = MUTANTS[name, source]
    text = (harness.ROOT / source).read_text()
    assert here in text
    mutant = tmp_path / source
    mutant.parent.mkdir(parents=True)
    mutant.write_text(text.replace(here, instead))
    main = harness.ROOT / f"tests/unit/fuzz/fuzz_{name}.c"
    named = re.findall(r"^// sources: ((?:\S+\.c ?)+)$", main.read_text(),
                       re.MULTILINE)
    link = [mutant if file == source else harness.ROOT / file
            for file in " ".join(named).split()]
    fuzzer = tmp_path / "fuzzer"
    subprocess.run(
        ["clang", "-std=c17", "-g", "-O1", "-DMONOCLE_HOST",
         "-fno-strict-aliasing", f"-I{tmp_path}", f"-I{harness.ROOT}",
         "-fsanitize=fuzzer,address,undefined",
         "-fno-sanitize-recover=all", main, *link, "-o", fuzzer], check=True)
    words = harness.ROOT / f"tests/unit/fuzz/{name}.dict"
    done = subprocess.run(
        [fuzzer, "-runs=3000000", "-seed=1",
         f"-artifact_prefix={tmp_path}/",
         *([f"-dict={words}"] if words.exists() else [])],
        capture_output=True, text=True, check=False)
    assert done.returncode, done.stderr[-2000:]
    assert re.search("AddressSanitizer|runtime error|timeout|deadly signal",
                     done.stderr)
