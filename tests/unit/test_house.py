# SPDX-License-Identifier: MIT
"""The house's own rules: which room may include which, headers that stand
alone, short functions, and nothing of the machine it was written on."""
import os
import pathlib
import re
import statistics
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Room: what it may include besides itself. Longest prefix decides.
ROOMS = {
    "arch/x86/vmx": ["arch/x86", "kernel"],
    "arch/x86": [],
    "kernel": ["arch/x86"],
    "drivers/pci": ["arch/x86", "kernel"],
    "drivers/vtd": ["arch/x86", "kernel", "drivers/pci"],
    "vmm/core": ["arch/x86", "kernel"],
    "vmm/devmodel": ["arch/x86", "kernel", "drivers/pci", "vmm/core"],
    "vmm/vcpu": ["arch/x86", "arch/x86/vmx", "kernel", "vmm/core",
                 "vmm/devmodel"],
    "vmm/load": ["arch/x86", "kernel", "vmm/core", "vmm/devmodel"],
    # A program of the guest's.
    "vmm/assign/gop": ["arch/x86", "vmm/assign"],
    "vmm/assign": ["arch/x86", "arch/x86/vmx", "kernel", "drivers/pci",
                   "drivers/vtd", "vmm/core", "vmm/devmodel"],
    "vmm": ["arch/x86", "arch/x86/vmx", "kernel", "drivers/pci",
            "drivers/vtd", "vmm/core", "vmm/devmodel", "vmm/vcpu",
            "vmm/load", "vmm/assign"],
    "boot": ["arch/x86", "arch/x86/vmx", "kernel", "drivers/pci",
             "drivers/vtd", "vmm"],
}
# Lines of code, without blanks and comments, that a room may have.
LIDS = {
    "arch/x86/vmx": 1490,
    "arch/x86": 860,
    "kernel": 3950,
    "drivers/pci": 1560,
    "drivers/vtd": 1880,
    "vmm/core": 1080,
    "vmm/devmodel": 4500,
    "vmm/vcpu": 3500,
    "vmm/load": 2850,
    "vmm/assign/gop": 330,
    "vmm/assign": 3300,
    "vmm": 2300,
    "boot": 1250,
}
IMAGE_LID = 260 << 10   # bytes of text, rodata and data
STANDARD = {"stdarg.h", "stdbool.h", "stddef.h", "stdint.h"}

SOURCES = sorted(p for room in ROOMS for p in (ROOT / room).glob("*.[ch]"))
HEADERS = [p for p in SOURCES if p.suffix == ".h"]


def room(path):
    return max((r for r in ROOMS if path.startswith(r + "/")), key=len)


def includes(path):
    return re.findall(r'^#include ["<](.+?)[">]', path.read_text(), re.M)


def name(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_includes_run_down(path):
    here = room(name(path))
    for target in includes(path):
        if target in STANDARD:
            continue
        assert (ROOT / target).is_file(), target
        there = room(target)
        allowed = there == here or there in ROOMS[here]
        assert allowed, f"{name(path)} includes {target}: an arrow upwards"


def test_no_circle_of_headers():
    graph = {name(p): [t for t in includes(p) if (ROOT / t).is_file()]
             for p in HEADERS}
    done = set()

    def visit(node, path):
        assert node not in path, " -> ".join([*path, node])
        if node not in done:
            for target in graph.get(node, []):
                visit(target, [*path, node])
            done.add(node)
    for node in graph:
        visit(node, [])


def test_what_tests_share_is_no_test():
    """It would be run as one, and drag its builds along."""
    found = [f"{name(path)}: {line}"
             for path in (ROOT / "tests").rglob("*.py")
             for line in re.findall(r"^\s*(?:from|import) .*\btest_\w+.*",
                                    path.read_text(), re.MULTILINE)]
    assert not found


def test_each_header_compiles_alone(tmp_path):
    """One compiler run for all, each in a translation unit of its own."""
    for header in HEADERS:
        unit = tmp_path / (name(header).replace("/", "_") + ".c")
        unit.write_text(f'#include "{name(header)}"\n')
    units = sorted(tmp_path.glob("*.c"))
    done = subprocess.run(
        ["gcc", "-std=c17", "-ffreestanding", "-mgeneral-regs-only",
         "-fsyntax-only", "-Wall", "-Wextra", "-Wconversion", "-Wshadow",
         "-Werror", "-Wno-unused-function", f"-I{ROOT}", *units],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FUNCTION = re.compile(
    r"^(?!(?:enum|struct|union|typedef|static const)\b[^(]*$)"
    r"[a-zA-Z_][^;{}=#]*\([^;{}]*\)\n\{\n(.*?)^\}\n", re.M | re.S)


def functions(path):
    """(length in lines, first line) of each function's body."""
    text = path.read_text()
    for match in FUNCTION.finditer(text):
        yield match.group(1).count("\n"), match.group(0).split("\n")[0]


def test_functions_are_short():
    lengths = []
    for path in SOURCES:
        for length, head in functions(path):
            lengths.append(length)
            # A switch that is a table of keys has no other shape.
            table = "parse_tag" in head
            assert length <= 40 or table, f"{name(path)}: {head}: {length}"
    assert len(lengths) > 500
    print(f"{len(lengths)} functions, median {statistics.median(lengths)}")
    assert statistics.median(lengths) <= 10


def code_lines(path):
    """Lines without blanks and comments."""
    text = path.read_text()
    if path.suffix == ".asm":
        lines = (line.split(";")[0] for line in text.splitlines())
    else:
        lines = re.sub(r"/\*.*?\*/", "", text, flags=re.S).splitlines()
    return sum(1 for line in lines if line.strip())


def lines(where):
    """How much there is to read in a room."""
    return sum(code_lines(p) for p in (ROOT / where).glob("*")
               if p.suffix in (".c", ".h", ".asm"))


FULL = ("take out what nobody needs, or use what is there already; else raise "
        "the lid in a commit of its own that says what the growth is good for")


def test_no_room_is_full(capsys):
    sizes = {where: lines(where) for where in ROOMS}
    with capsys.disabled():
        print("\nlines of C and assembly:", sum(sizes.values()), sizes)
    for where, size in sizes.items():
        assert size <= LIDS[where], \
            f"{where} has {size} lines, of {LIDS[where]} it may have: {FULL}"


def make(*words):
    """The make that runs this test has no say in it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(["make", "-s", *words], cwd=ROOT, env=env, check=True,
                   stdout=subprocess.DEVNULL)


def test_the_image_is_small():
    """What GRUB loads. An exit's files may stay large (Makefile)."""
    make("build/monocle.elf")
    table = subprocess.run(["size", "build/monocle.elf"], cwd=ROOT, text=True,
                           capture_output=True, check=True).stdout
    code, data = map(int, table.splitlines()[1].split()[:2])
    assert code + data <= IMAGE_LID, \
        f"{code + data} bytes of text, rodata and data: {FULL}"


def test_objects_follow_their_flags(tmp_path):
    built = tmp_path / "obj/kernel/string.o"

    def build(*words):
        make(f"B={tmp_path}", *words, str(built))
        return built.stat().st_mtime_ns
    first = build()
    assert build() == first
    assert build("FAST=-O1") > first


TRACKED = subprocess.run(["git", "-C", ROOT, "ls-files"], text=True,
                         capture_output=True, check=False).stdout.split()
# Put together here, so that this file does not hold what it looks for.
FOREIGN = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "fire" + "cracker",
           "proxy" + ".golang", "registry" + ".npmjs"]


@pytest.mark.skipif(not TRACKED, reason="not a git checkout")
def test_the_repository_speaks_of_monocle_alone():
    for file in TRACKED:
        path = ROOT / file
        if path.suffix in (".png", ".bin") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for word in FOREIGN:
            assert word not in text, f"{file} names {word}"
