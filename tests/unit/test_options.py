# SPDX-License-Identifier: MIT
"""The command line: every option, what may be written for it, what is said
of the rest. The expectations are this file's own."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
COM1, COM2, E9, SCREEN = 1, 2, 4, 8
DEFAULTS = {"ram": 0, "igd_dma": 0, "iommu": 0, "guest": 0, "igd": 0,
            "igd_gen": 0, "igd_reset": 0, "rom_init": False,
            "usb_firmware": False, "no_hypervisor_bit": False,
            "strict_groups": False, "serials": False, "clock": 0, "itlb": 0, "apicv": 0,
            "sinks": COM1 | SCREEN, "memory": 0, "cpus": 0,
            "dma_faults": 0, "quiet": False, "debug": False,
            "help": False, "list": False, "unsafe_dma": False, "no_vga": False,
            "assign": []}
# Every option: what is written, what it sets.
GOOD = [
    ("ram=relocated", "ram", 0), ("ram=identity", "ram", 1),
    ("memory=512M", "memory", 512 * MIB), ("memory=2G", "memory", 2 * GIB),
    ("memory=65536K", "memory", 64 * MIB),
    ("memory=123456789", "memory", 123456789), ("memory=0", "memory", 0),
    ("memory=007M", "memory", 7 * MIB),
    ("cpus=4", "cpus", 4), ("cpus=0", "cpus", 0),
    ("log=com1", "sinks", COM1), ("log=com2", "sinks", COM2),
    ("log=e9", "sinks", E9), ("log=screen", "sinks", SCREEN),
    ("log=screen,com2", "sinks", SCREEN | COM2),
    ("log=com1,com2,e9,screen", "sinks", 15),
    ("log=pci", "sinks", 16), ("log=uart,com1", "sinks", 32 | COM1),
    ("log=e9,e9", "sinks", E9),
    ("quiet", "quiet", True), ("debug", "debug", True),
    ("no-vga", "no_vga", True), ("help", "help", True),
    ("list", "list", True),
    ("clock=auto", "clock", 0), ("clock=preemption", "clock", 1),
    ("clock=apic", "clock", 2), ("apicv=auto", "apicv", 0),
    ("apicv=on", "apicv", 1), ("apicv=off", "apicv", 2), ("itlb=large", "itlb", 0),
    ("itlb=split", "itlb", 1),
    ("iommu=strict", "iommu", 0), ("iommu=off", "iommu", 1),
    ("unsafe-dma", "unsafe_dma", True),
    ("igd", "igd", 1), ("igd=open", "igd", 1), ("igd=off", "igd", 0),
    ("igd=closed", "igd", 2), ("igd-gen=9", "igd_gen", 9),
    ("assign=00:02.0", "assign", ["00:02.0"]),
    ("assign=8086:10d3", "assign", ["8086:10d3"]),
    ("assign=class=0200", "assign", ["class=0200"]),
    ("assign=all,-00:14.0", "assign", ["all,-00:14.0"]),
    ("strict-groups", "strict_groups", True),
    ("serials", "serials", True),
    ("dma-faults=7", "dma_faults", 7), ("dma-faults=0", "dma_faults", 0),
    ("guest=kernel", "guest", 0),
    ("igd-reset=auto", "igd_reset", 0), ("igd-reset=never", "igd_reset", 1),
    ("igd-reset=reboot", "igd_reset", 2), ("igd-reset=always", "igd_reset", 3),
    ("igd-dma=remapped", "igd_dma", 0), ("igd-dma=direct", "igd_dma", 1),
    ("rom-init", "rom_init", True), ("usb-firmware", "usb_firmware", True),
    ("no-hypervisor-bit", "no_hypervisor_bit", True),
    ("guest=bios", "guest", 1),
]
NAMES = [*dict.fromkeys(word.partition("=")[0] for word, *_ in GOOD)]
BAD = ["ram", "ram=", "ram=identit", "ram=identityx", "ram=Identity",
       "ram=relocated,identity", "memory", "memory=", "memory=M", "memory=x",
       "memory=5m", "memory=5MB", "memory=-1", "memory=0x10",
       "memory=1T", "memory=99999999999G", "memory=18446744073709551616",
       "cpus", "cpus=", "cpus=all", "cpus=-1",
       "log", "log=", "log=com3", "log=com1,", "log=,com1", "log=com1;com2",
       "quiet=", "quiet=1", "debug=yes", "iommu", "iommu=on",
       "dma-faults=many", "assign", "igd=", "igd=yes", "igd-gen", "igd-gen=x",
       "guest", "guest=uefi", "clock", "clock=pit", "apicv",
       "itlb", "itlb=small"]


@pytest.fixture(scope="module")
def m():
    built = harness.build("options", ["kernel/options.c"],
                          headers=["kernel/options.h", "kernel/log_sink.h"])
    # The one default that is a matter of taste: as the help text says it.
    built.options_help()
    DEFAULTS["dma_faults"] = int(re.search(
        r"dma-faults=N: .*\(default (\d+),", built.log_text())[1])
    return built


def parse(m, line):
    """(status, what is set)"""
    harness.reset_all()
    options = m.new("struct options *")
    text = m.new("char[]", line.encode())
    status = m.options_parse(options, text)
    got = {name: getattr(options, name) for name in DEFAULTS}
    got["assign"] = [m.ffi.buffer(word.text, word.length)[:].decode()
                     for word in options.assign[0:options.assign_count]]
    return status, got


def test_nothing_said(m):
    for line in ("", " ", "      "):
        assert parse(m, line) == (0, DEFAULTS)
    assert (m.LOG_COM1, m.LOG_COM2, m.LOG_E9, m.LOG_SCREEN) == (
        COM1, COM2, E9, SCREEN)
    assert (m.RAM_RELOCATED, m.IOMMU_STRICT) == (0, 0)
    assert m.log_lines() == []


@pytest.mark.parametrize("word, name, value", GOOD)
def test_an_option(m, word, name, value):
    assert parse(m, word) == (0, {**DEFAULTS, name: value})
    assert parse(m, f"  {word} ") == (0, {**DEFAULTS, name: value})
    assert m.log_lines() == []


@pytest.mark.parametrize("line", BAD)
def test_a_bad_value(m, line):
    """One line: which option, what was written, what it takes."""
    word = line.split()[0]
    name, _, value = word.partition("=")
    assert parse(m, line)[0] == -m.EINVAL
    (level, text), = m.log_lines()
    assert level == m.LOG_ERROR
    assert f"option {name}" in text and f"'{value}'" in text
    m.reset()
    m.options_help()
    assert text[text.rindex("("):].strip("()") in m.log_text()


def edits(a, b):
    """Levenshtein's distance, by the book."""
    if not a or not b:
        return len(a) + len(b)
    table = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(table[-1][j - 1] + (x != y), table[-1][j] + 1,
                           row[-1] + 1))
        table.append(row)
    return table[-1][-1]


LETTERS = st.text("abcdefghijklmnopqrstuvwxyz-0", max_size=40)
TYPO = st.builds(
    lambda name, at, put, cut: name[:at] + put + name[at + cut:],
    st.sampled_from(NAMES), st.integers(0, 10), st.text("abcgm-", max_size=2),
    st.integers(0, 2))


@settings(max_examples=300, deadline=None)
@given(LETTERS | TYPO, st.sampled_from(["", "=", "=1", "=off"]))
def test_an_unknown_option(m, name, value):
    if name in NAMES or not name + value:
        return
    assert parse(m, f"quiet {name}{value} debug")[0] == -m.EINVAL
    (level, text), = m.log_lines()
    assert level == m.LOG_ERROR
    assert text.startswith(f"unknown option '{name}'; the nearest is '")
    nearest = text.split("'")[3]
    assert edits(name, nearest) == min(edits(name, n) for n in NAMES)


def test_the_nearest_is_what_was_meant(m):
    for wrong, meant in (("qiet", "quiet"), ("memry=5M", "memory"),
                         ("novga", "no-vga"), ("unsafe_dma", "unsafe-dma"),
                         ("iomu=off", "iommu"), ("lgo=com1", "log")):
        parse(m, wrong)
        assert f"nearest is '{meant}'" in m.log_text()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(GOOD), st.integers(1, 3)),
                max_size=8), st.none() | st.sampled_from(BAD))
def test_a_line_of_them(m, words, bad):
    """The last one counts (of assign= all do); a bad one ends it."""
    line, expected = "", dict(DEFAULTS)
    for (word, name, value), spaces in words:
        line += " " * spaces + word
        expected[name] = expected[name] + value if name == "assign" else value
    if bad:
        assert parse(m, f"{line} {bad}")[0] == -m.EINVAL
        assert len(m.log_lines()) == 1
    else:
        assert parse(m, line) == (0, expected)


def test_functions_to_assign(m):
    """All that are named, in order; one more is too many, and named."""
    words = [f"{n:02x}:1f.{n}" for n in range(32)]
    line = " quiet ".join(f"assign={word}" for word in words)
    assert parse(m, line) == (0, {**DEFAULTS, "quiet": True, "assign": words})
    assert parse(m, f"{line} assign=class=0300")[0] == -m.EINVAL
    (_, text), = m.log_lines()
    assert "option assign" in text and "'class=0300'" in text
    assert "at most 32" in text


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**70) | st.integers(0, 99), st.sampled_from("KMG_"))
def test_sizes(m, number, unit):
    """A size is right, or refused; never another one."""
    scale = {"K": KIB, "M": MIB, "G": GIB, "_": 1}[unit]
    status, got = parse(m, f"memory={number}{unit.strip('_')}")
    if status == 0:
        assert got["memory"] == number * scale
    else:
        assert status == -m.EINVAL and number * scale >= 2**32


PIECE = st.sampled_from([n.encode() for n in NAMES] + [
    b"=", b",", b" ", b"com1", b"9", b"G", b"identity", b"\xff"]) | \
    st.binary(max_size=3).map(lambda b: b.replace(b"\0", b""))


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECE, max_size=12).map(b"".join))
def test_any_bytes(m, line):
    """Whatever the line holds: a result, at most one line, no stray read."""
    harness.reset_all()
    options = m.new("struct options *")
    status = m.options_parse(options, m.new("char[]", line))
    assert status == -m.EINVAL and m.lib.fakes_line_count == 1 or \
        status == 0 and m.lib.fakes_line_count == 0


def test_help_lists_every_option_and_value(m):
    m.options_help()
    lines = [text.split(":")[0].strip() for _, text in m.log_lines()]
    assert lines == ["ram=relocated|identity", "guest=kernel|bios", "memory=N", "cpus=N",
                     "log=com1,com2,e9,screen,pci,uart", "quiet", "debug", "no-vga",
                     "assign=...", "strict-groups", "usb-firmware", "igd=off|open|closed",
                     "igd-gen=N", "igd-reset=auto|never|reboot|always",
                     "igd-dma=remapped|direct", "rom-init", "no-hypervisor-bit", "iommu=strict|off", "unsafe-dma",
                     "dma-faults=N", "clock=auto|preemption|apic", "apicv=auto|on|off",
                     "itlb=large|split", "serials",
                     "list", "help"]
    assert all(len(text.partition(": ")[2]) >= 10 for _, text in m.log_lines())
