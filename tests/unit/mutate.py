#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Plants faults in C files, one at a time, and says which of them no unit test
notices: `make mutants ROOM=vmm/assign N=20 SEED=3`.

ROOM is a room, a C file or nothing for all rooms. Lines are drawn by SEED, and
for each one fault of those that may be there. What the compiler refuses, or
makes the same code of, is drawn again; so is what EQUIVALENT has. All of it
happens in a copy of the tree, so one may go on working meanwhile.
"""
import argparse
import atexit
import collections
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREE = "MONOCLE_MUTANTS"    # in the environment: this is the copy
ROOMS = ["boot", "kernel", "arch/x86", "arch/x86/vmx", "drivers/pci",
         "drivers/vtd", "vmm", "vmm/core", "vmm/devmodel", "vmm/vcpu",
         "vmm/load", "vmm/assign"]
# (file, the line's text, what stands there instead): why nobody can notice
EQUIVALENT = {
    ("vmm/load/bios.c", "u16 port;", "u8 port;"): "no port is above 255",
    ("kernel/acpi.c", "if (lead < 0)", "if (lead < 1)"):
    "a length of 0 spans nothing",
    ("kernel/acpi.c", "if (reachable(0x40e, sizeof(segment), top))",
     "if (reachable(1037, sizeof(segment), top))"): "no memory ends there",
    ("arch/x86/paging.c", "return *entry & PTE_PS ? NULL",
     "return *entry & PTE_G ? NULL"): "its caller has looked",
    ("arch/x86/vmx/probe.c", "PIN_PREEMPTION_TIMER, 0},",
     "PIN_PREEMPTION_TIMER, 1},"): "that bit is required anyway",
    ("boot/multiboot2.c", "if (d->pages < BIT(52))",
     "if (d->pages < BIT(51))"): "no memory is as large",
    ("vmm/vcpu/exit_task.c", "for (unsigned n = 0; n < count; n++)",
     "for (unsigned n = 0; n <= count; n++)"):
    "one more is put together than is written",
    ("vmm/assign/assigned_irq.c", "a->mode = IRQ_OFF;", ";"):
    "what follows, a reset of the configuration space, sets it",
    ("vmm/assign/assigned_irq.c", "assigned_messages_follow(a);", ";"):
    "its only caller does the same behind it",
    ("vmm/physmap.c", "while (given < wanted && rows_left(list) &&",
     "while ( rows_left(list) &&"): "a piece of no bytes ends it",
    ("vmm/physmap.c", "from = gpa + size;", ";"):
    "what is taken is not free any more",
    ("vmm/physmap.c", "gpa_t gpa = 0;", "gpa_t gpa = 1;"):
    "where there is none its size is 0",
    ("vmm/machine.c",
     "if (!cfg.windows[i].ports && cfg.windows[i].base >= MIB)",
     "if ( cfg.windows[i].base >= MIB)"): "no port is above 1 MiB",
    ("vmm/devmodel/acpi_pm.c", "memset(pm, 0, sizeof(*pm));", ";"):
    "struct machine is zeroed memory",
    ("vmm/assign/assigned_message.c",
     "(masked || a->held ? MSIX_MASKED : 0));",
     "(masked || a->held ? MSIX_MASKED : 1));"): "that bit is read-only",
    ("drivers/pci/reset.c", "wait_ms(tsc_hz, 1);", "wait_ms(tsc_hz, 2);"):
    "it looks less often",
    ("drivers/pci/scan.c", "unsigned last = BUSES;",
     "unsigned last = CACHE_LINE;"): "the first bus is 0",
    ("vmm/vcpu/msr.c", "for (unsigned i = 0; i < ARRAY_SIZE(open_rows); i++)",
     "for (unsigned i = 1; i < ARRAY_SIZE(open_rows); i++)"):
    "msr_reset(): the first row is not reset",
    ("vmm/list.c", 'sizeof(l->text) - l->length, "%s%.*s",',
     'sizeof(l->text) + l->length, "%s%.*s",'): "what is longer went before",
    ("vmm/core/guest_mem.c", "return -EFAULT;", "return 0;"):
    "the second one: what is reachable is there",
    ("vmm/devmodel/lapic_accept.c",
     "return (tpr & 0xF0) >= class ? tpr : class;",
     "return (tpr & 0xf2) >= class ? tpr : class;"):
    "a class has no low bits",
    ("vmm/devmodel/rtc.c", "rtc->base_tsc = rdtsc();", ";"):
    "rtc_reset() follows, which sets it",
}

# -- what a fault is

# What is in no code: comments, strings, the preprocessor's lines
_BLANK = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
                    r'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.S | re.M)
SWAPS = [("&&", "||"), (" < ", " <= "), (" > ", " >= "), (" == ", " != "),
         (" + ", " - "), (" << ", " >> "), (" | ", " & "), ("|=", "&="),
         ("+=", "-="), ("++", "--"), ("MIN(", "MAX("), ("true", "false"),
         ("ALIGN_UP(", "ALIGN_DOWN("), ("continue;", "break;")]
# What tests notice most often is drawn less often than the rest, 4.
EASY = {"negated": 1, "operator": 2}
WIDTHS = ["8", "16", "32", "64"]
_NUMBER = re.compile(r"(?<![\w.])(0x[0-9a-f]+|\d+)(?=u?l*\b)", re.I)
# Of an array
_SIZE = re.compile(r"\[\w+\](?:;|,| = \{|\))")
# Not a declaration, whose absence the compiler would see
_STATEMENT = re.compile(r"^\t+((?!return|goto|case|default|else|do\b)"
                        r"(?:\*?\w[\w>.\[\]()-]*(?: [+|&^<>-]*= |\(|\+\+|--)"
                        r"[^;{}]*)|goto \w+|break);", re.M)


def code_of(text):
    return _BLANK.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)


def _close(code, at):
    """The index of the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if not depth:
            return i
    return at


def _half(code, at, step):
    """The end of a condition's half that begins at `at`, in that direction."""
    depth = 0
    while True:
        depth += ((code[at] in "([{") - (code[at] in ")]}")) * step
        if depth < 0 or depth == 0 and (
                code[at] in ",;?:{}" or code[at:at + 2] in ("&&", "||") or
                code[at - 1:at + 1] in ("&&", "||") or
                code[at - 5:at + 1] == "return" or
                re.match(r"[^<>=!]=[^=]", code[at - 1:at + 2])):
            return at
        at += step


def siblings(tree):
    """{a constant: those beside it}: enumerators, and #defines in a row."""
    found = collections.defaultdict(set)
    for path in sorted(p for room in ROOMS for p in tree.glob(f"{room}/*.[ch]")):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        rows = [re.findall(r"^\s*(\w+)", body, re.M) for body in
                re.findall(r"\benum \w*\s*\{(.*?)\}", text, re.S)]
        rows += [re.findall(r"#define (\w+) ", block) for block in
                 re.findall(r"(?:^#define [A-Z]\w+ [^\n]*\n)+", text, re.M)]
        for row in rows:
            for name in row:
                found[name].update(set(row) - {name})
    return {name: sorted(beside) for name, beside in found.items() if beside}


def faults(text, beside, rng):
    """[(kind, start, end, what comes there)]"""
    code, out = code_of(text), []

    def add(kind, start, end, new):
        if text[start:end] != new:
            out.append((kind, start, end, new))
    for pair in SWAPS:
        for old, new in (pair, pair[::-1]):
            word = re.escape(old).replace("\\ ", r"(?:(?<= )|(?<=\n)|(?=\n)| )")
            word = rf"\b{word}" if old[0].isalpha() else word
            for m in re.finditer(word, code):
                add("operator", m.start(), m.end(), new)
    for m in re.finditer(r"\bif \(", code):
        end = _close(code, m.end() - 1)
        add("negated", m.end(), end, f"!({text[m.end():end]})")
    for m in re.finditer("&&|\\|\\|", code):
        add("half", m.start(), _half(code, m.end(), 1), "")
        add("half", _half(code, m.start() - 1, -1) + 1, m.end(), "")
    for m in re.finditer(r"!(?=[\w(])", code):
        add("negated", m.start(), m.end(), "")
    for m in re.finditer("~", code):
        add("mask", m.start(), m.end(), "")
    for m in _NUMBER.finditer(code):
        if _SIZE.match(code, m.start() - 1):
            continue
        value = int(m[1], 0)
        add("number", m.start(1), m.end(1), str(value + 1))
        if value:
            add("number", m.start(1), m.end(1), str(value - 1))
        if m[1][:2] == "0x":
            bit = rng.randrange(max(value.bit_length(), 1))
            add("mask", m.start(1), m.end(1), hex(value ^ 1 << bit))
    for m in re.finditer(r"\b[A-Z][A-Z0-9_]+\b(?!\()", code):
        if m[0] in beside and code[m.start() - 1] != "-" and \
                not _SIZE.match(code, m.start() - 1):
            add("constant", m.start(), m.end(), rng.choice(beside[m[0]]))
    for m in re.finditer(r"\b(u|\w*(?:read|write))(8|16|32|64)\b", code):
        # A wider type is rarely another.
        others = [w for w in WIDTHS if w != m[2] and (
            m[1] != "u" or int(w) < int(m[2]))]
        if others:
            add("width", m.start(2), m.end(2), rng.choice(others))
    for m in re.finditer(r"\bfor \([^;]*;[^;]*?(\w+) < ", code):
        add("last", m.end(1), m.end(1), " + 1")
    for m in re.finditer(r"\bARRAY_SIZE\(\w+\)", code):
        add("last", m.end(), m.end(), " - 1")
    for m in re.finditer(r"^\t+\{[^;{}]*\},$", code, re.M):
        add("row", m.start(), m.end(), "")
    for m in _STATEMENT.finditer(code):
        add("deleted", m.start(1), m.end(1), "")
    for m in re.finditer(r"\breturn (-E\w+|\w*err\w*|rc|ret)\b", code):
        add("result", m.start(1), m.end(1), "0")
    for m in re.finditer(r"\blog_(?:error|warn|info|debug)\(", code):
        end = _close(code, m.end() - 1)
        last = code.rfind(",", m.end(), end)
        if last > 0:
            add("logged", last + 1, end, f" 1 + ({text[last + 1:end].strip()})")
    return out


def draw(tree, where, seed):
    """Faults without an end, by lines: (file, kind, start, end, new)."""
    rng, beside = random.Random(seed), siblings(tree)
    by_line = collections.defaultdict(list)
    for path in sorted(p for room in ROOMS for p in tree.glob(f"{room}/*.c")):
        name = str(path.relative_to(tree))
        if where not in ("", name, str(Path(name).parent)):
            continue
        text = path.read_text()
        for fault in faults(text, beside, rng):
            line = text.count("\n", 0, fault[1]) + 1
            by_line[name, line].append((name, *fault))
    lines = sorted(by_line)
    rng.shuffle(lines)
    for line in lines:
        kinds = sorted({f[1] for f in by_line[line]})
        kind, = rng.choices(kinds, [EASY.get(kind, 4) for kind in kinds])
        yield rng.choice([f for f in by_line[line] if f[1] == kind])


# -- which tests build a file

def _closure(path, seen):
    """A test's text, with that of helpers and fakes."""
    if path in seen or not path.exists():
        return ""
    seen.add(path)
    text, here = path.read_text(), path.parent
    more = [here / f"{n}.py" for n in re.findall(
        r"^(?:import|from) (\w+)", text, re.M)]
    more += [here / n for n in re.findall(r"tests/unit/(\w+\.[ch])", text)]
    return text + "".join(_closure(p, seen) for p in more if p.stem !=
                          "harness")


def tests_of(tree, source):
    """The test files that build it, its own first."""
    stem, room = Path(source).stem, Path(source).parent
    found = {}
    for path in sorted((tree / "tests/unit").glob("test_*.py")):
        text = _closure(path, set())
        # Lists of a room's files have their stems.
        if path.stem != "test_mutate" and "harness" in text and (source in text or (
                f"{room}/{{" in text and f'"{stem}"' in text)):
            found[path] = (path.stem != f"test_{stem}",
                           stem not in path.stem,
                           source not in path.read_text(), len(text))
    return sorted(found, key=found.get)


# -- one run

class _Plugin:
    """The first failure counts, not the smallest; and a test that looks for
    its own mutant's text in the source does not count."""

    def pytest_configure(self, config):
        import mutants
        import pytest
        from hypothesis import Phase, settings
        settings.register_profile(
            "planted", settings.get_profile("monocle"),
            phases=(Phase.explicit, Phase.generate))
        settings.load_profile("planted")
        mutants.mutated = lambda *_: pytest.skip("no mutant's mutant")


def run(path, log, seconds):
    """(status, processor time) of a test file in a process of its own."""
    import pytest
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if not child:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        try:
            os._exit(pytest.main(
                ["-q", "-x", "-p", "no:cacheprovider", "--capture=sys", "-m",
                 "not long", "--tb=short", str(path)], plugins=[_Plugin()]))
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return status, sum(getattr(after, f) - getattr(before, f)
                       for f in ("ru_utime", "ru_stime"))


class Judge:
    def __init__(self, tree):
        self.tree, self.log = tree, tree / "build/log"
        self.seconds = {}       # {test file: processor time without a fault}

    def _limit(self, test):
        if test not in self.seconds:
            status, spent = run(self.tree / test, self.log, 1200)
            if status:
                sys.exit(f"{test} fails without a fault:\n"
                         f"{self.log.read_text()[-3000:]}")
            self.seconds[test] = spent
        return int(5 * self.seconds[test]) + 20

    def _object(self, source):
        """What the product's compiler makes of it, without line numbers."""
        words = subprocess.run(
            ["make", "-sn", "V=1", f"build/obj/{source[:-2]}.o"], text=True,
            cwd=self.tree, capture_output=True, check=True, env=self.env()
        ).stdout.replace("\\\n", "")
        words = re.search(r"^\S*gcc .*", words, re.M)[0]
        words = re.sub(r" -g | -MMD -MP|-o \S+", " ", words)
        made = subprocess.run(f"{words} -o build/one.o", shell=True,
                              cwd=self.tree, capture_output=True, check=False,
                              env=self.env())
        return None if made.returncode else (
            self.tree / "build/one.o").read_bytes()

    @staticmethod
    def env():
        return {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}

    def judge(self, fault):
        """The test that notices, "" for none, None where it is no fault."""
        source, _, start, end, new = fault
        path = self.tree / source
        text = path.read_text()
        tests = [str(t.relative_to(self.tree))
                 for t in tests_of(self.tree, source)]
        limits = [self._limit(test) for test in tests]
        try:
            path.write_text(text[:start] + new + text[end:])
            for test, limit in zip(tests, limits):
                status, _ = run(self.tree / test, self.log, limit)
                if status:
                    said = self.log.read_text(errors="replace")
                    if re.search(r"BuildError: gcc.*\.c", said):
                        return None
                    found = re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)", said,
                                       re.M)
                    return f"{Path(test).stem}::{found[0] if found else '?'}"
            mine = self._object(source)
        finally:
            path.write_text(text)
        return "" if mine and mine != self._object(source) else None


def described(tree, fault):
    """file:line, the line as it is, and as it was made."""
    source, kind, start, end, new = fault
    text = (tree / source).read_text()
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    old = text[first:last].strip()
    now = (text[first:start] + new + text[end:last]).strip()
    return (source, text.count("\n", 0, start) + 1, kind,
            re.sub(r"\s+", " ", old), re.sub(r"\s+", " ", now))


def copied():
    """A copy of the tree, which has the objects that are built already."""
    (ROOT / "build/unit/obj").mkdir(parents=True, exist_ok=True)
    tree = Path(tempfile.mkdtemp(prefix="mutants-", dir=ROOT / "build"))
    shutil.copytree(ROOT, tree, dirs_exist_ok=True, symlinks=True,
                    ignore=shutil.ignore_patterns("build", ".git", ".hyp*"))
    shutil.copytree(ROOT / "build/unit/obj", tree / "build/unit/obj",
                    copy_function=os.link,
                    ignore=shutil.ignore_patterns("tmp*"))
    return tree


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--room", default="")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main():
    args = options()
    if TREE not in os.environ:
        sys.path.insert(0, str(ROOT / "tests/unit"))
        import conftest
        tree = copied()
        os.execve(sys.executable, [
            sys.executable, str(tree / "tests/unit/mutate.py"), *sys.argv[1:]],
            conftest.sanitized() | {TREE: str(ROOT)})
    tree = ROOT
    os.chdir(tree)
    atexit.register(shutil.rmtree, tree, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.path.insert(0, str(tree / "tests/unit"))
    import cffi  # noqa: F401  what each run would read anew
    import hypothesis  # noqa: F401
    judge, rooms, survivors = Judge(tree), collections.Counter(), []
    for fault in draw(tree, args.room, args.seed):
        if sum(rooms.values()) == args.count:
            break
        source, line, kind, old, new = described(tree, fault)
        if (source, old, new) in EQUIVALENT:
            continue
        by = judge.judge(fault)
        if by is None:
            continue
        rooms[str(Path(source).parent)] += 1
        if not by:
            survivors.append(source)
        print(f"{source}:{line}: {kind}: {by or 'SURVIVES'}\n"
              f"    - {old}\n    + {new}", flush=True)
    left = collections.Counter(str(Path(s).parent) for s in survivors)
    for room in sorted(rooms):
        print(f"{room}: {rooms[room] - left[room]}/{rooms[room]} noticed")
    total = sum(rooms.values())
    print(f"all: {total - len(survivors)}/{total} noticed, seed {args.seed}")


if __name__ == "__main__":
    main()
