# SPDX-License-Identifier: MIT
"""What `make mutants` plants: code that a compiler takes, in code alone."""
import random

import pytest

import mutate

BESIDE = {"REGION_R": ["REGION_W"]}


def planted(line, beside=None):
    """What stands there instead of a function's line, once for each fault."""
    text = f"/* {line} */\nvoid f(void)\n{{\n\t{line}\n}}\n"
    head, tail = text.split(f"\t{line}\n")
    found = set()
    for kind, start, end, new in mutate.faults(text, beside or BESIDE,
                                               random.Random(1)):
        made = text[:start] + new + text[end:]
        assert made.startswith(head) and made.endswith(tail)
        found.add((kind, made[len(head) + 1:len(made) - len(tail) - 1]))
    return found


@pytest.mark.parametrize("line, some", [
    ("if (a && b < 8)", {
        ("operator", "if (a || b < 8)"), ("operator", "if (a && b <= 8)"),
        ("half", "if ( b < 8)"), ("half", "if (a )"),
        ("negated", "if (!(a && b < 8))"), ("number", "if (a && b < 7)")}),
    ("return f(x) || !g(y, 1);", {
        ("half", "return !g(y, 1);"), ("half", "return f(x) ;"),
        ("negated", "return f(x) || g(y, 1);")}),
    ("for (i = 0; i < n; i++)", {
        ("last", "for (i = 0; i + 1 < n; i++)"),
        ("number", "for (i = 1; i < n; i++)")}),
    ("r.cpu = REGION_R;", {("constant", "r.cpu = REGION_W;"),
                           ("deleted", ";")}),
    ("\t{1, 2},", {("row", "")}),
    ('log_info("%u of 3", n);', {("logged", 'log_info("%u of 3", 1 + (n));'),
                                 ("deleted", ";")}),
    ("mmio_write32(at, (u32)x);", {("deleted", ";")}),
    ("x = y & ~PAGE_MASK;", {("mask", "x = y & PAGE_MASK;"),
                             ("operator", "x = y | ~PAGE_MASK;")}),
    ("return -EINVAL;", {("result", "return 0;")}),
])
def test_faults(line, some):
    assert some <= planted(line)


@pytest.mark.parametrize("line", [
    'const char *s = "a && 1";', "struct x y;", "char text[80];",
    "#define A (1 && 2)", "return;"])
def test_what_is_no_place_for_one(line):
    assert planted(line) == set()


def test_the_same_seed_draws_the_same():
    def some(seed, room=""):
        drawn = mutate.draw(mutate.ROOT, room, seed)
        return [next(drawn) for _ in range(5)]
    assert some(3) == some(3) != some(4)
    assert {f[0] for f in some(3, "vmm/list.c")} == {"vmm/list.c"}


def test_who_builds_a_file():
    def names(source):
        return [p.stem for p in mutate.tests_of(mutate.ROOT, source)]
    assert names("boot/main.c") == ["test_start"]
    assert names("vmm/devmodel/rtc.c")[0] == "test_rtc"
    assert "test_vcpu" in names("vmm/devmodel/pic.c")
