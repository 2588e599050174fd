# SPDX-License-Identifier: MIT
"""Builds Monocle's C files for the host and calls them from Python.

    m = harness.build("bus", ["vmm/core/bus.c"], headers=["vmm/core/bus.h"])
    bus = m.new("struct bus *")         # zeroed, with red zones around it
    m.bus_register(bus, m.BUS_PORT, 0x60, 0x64, handler, m.NULL, b"kbd")

A module has every function that the sources (or the fakes) define and the
headers declare, every enumerator, every variable, and every macro whose value
is a whole number; so a test cannot drift from the headers. What is built has
UBSan and ASan, and a report ends the run. What is made is cached in
build/unit by its content: the object of each C file, what headers declare, and
cffi's glue, which a copy of a C file with a defect shares with the original.

Static inline functions of headers: name them in `exports`.
Hardware and log are fakes.c's: m.events(), m.log_lines(), m.on_read(), ...
A test's own fakes: `fakes`, C text or a path; `cdef` declares what tests
want of it. Fixtures reset every module between tests (conftest.py).
"""

import ast
import collections
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import pickle
import re
import subprocess
import sysconfig
import tempfile
import time
import traceback
import types
from pathlib import Path

import cffi

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "unit"
CC = os.environ.get("HOSTCC", "gcc")
SANITIZE = ["-fsanitize=undefined,address", "-fno-sanitize-recover=all",
            "-fno-omit-frame-pointer"]
# Calls before each access: tests/unit/touched.c
LINES = ["-O2", "-fsanitize=kernel-address",
         "--param=asan-instrumentation-with-call-threshold=0",
         "--param=asan-stack=0", "--param=asan-globals=0"]
WARN = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror",
        "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wvla", "-Wundef"]
BASE = ["-std=c17", "-DMONOCLE_HOST", "-g1", "-O1", "-fPIC",
        "-fno-strict-aliasing", "-I."]
FAKES = "tests/unit/fakes.c"
ALWAYS = ["arch/x86/errno.h", "tests/unit/fakes.h"]

Event = collections.namedtuple("Event", "kind addr size value")
_modules = []


class BuildError(Exception):
    """The C files do not compile; the compiler's words are the message."""


def _run(command, **kwargs):
    env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    done = subprocess.run(command, cwd=ROOT, env=env, text=True,
                          capture_output=True, check=False, **kwargs)
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


# --- C declarations for cffi out of a preprocessed header ---------------

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[A-Za-z_]\w*'
                    r'|\d[\w.]*|\s+|\.\.\.|.', re.S)
_CLOSE = {"(": ")", "[": "]", "{": "}"}
_NOISE = {"__extension__", "inline", "__inline", "__inline__", "_Noreturn",
          "static", "restrict", "__restrict", "__restrict__", "register",
          "__signed__"}
_BALANCED = {"__attribute__", "__attribute", "__asm__", "asm", "_Alignas",
             "__declspec"}


def _tokens(text):
    return [t for t in _TOKEN.findall(text) if not t.isspace()]


def _group_end(tokens, at):
    """The index behind the bracket group that opens at `at`."""
    depth = 0
    for i in range(at, len(tokens)):
        if tokens[i] in _CLOSE:
            depth += 1
        elif tokens[i] in _CLOSE.values():
            depth -= 1
            if depth == 0:
                return i + 1
    raise BuildError("unbalanced brackets in a header")


def _strip(tokens):
    """Drops attributes and qualifiers; says whether one was `packed`."""
    out, packed, i = [], False, 0
    while i < len(tokens):
        t = tokens[i]
        if t in _BALANCED:
            end = _group_end(tokens, i + 1)
            packed |= any("packed" in x for x in tokens[i:end])
            i = end
        else:
            if t not in _NOISE:
                out.append(t)
            i += 1
    return out, packed


def _declarations(tokens):
    """Splits a translation unit into its top-level declarations."""
    start = i = 0
    while i < len(tokens):
        t = tokens[i]
        if t in _CLOSE:
            end = _group_end(tokens, i)
            body_of_function = t == "{" and tokens[i - 1] == ")"
            i = end
            if body_of_function:
                yield tokens[start:i]
                start = i
        else:
            i += 1
            if t == ";":
                yield tokens[start:i]
                start = i


def evaluate(text, names=None):
    """The value of an integer constant expression of C, or None."""
    text = re.sub(r"\(\s*(?:unsigned|signed|long|int|char|short|const|[us]\d+|"
                  r"u?int\d+_t|size_t|\s)+\s*\)", "", text)
    unsigned = re.search(r"\b(?:0x[0-9a-f]+|\d+)l*ul*\b", text, re.I)
    text = re.sub(r"\b(0x[0-9a-f]+|\d+)[ul]+\b", r"\1", text, flags=re.I)
    text = re.sub(r"\b0+([0-7]+)\b", r"0o\1", text)
    text = re.sub(r"'([^'\\])'", lambda c: str(ord(c[1])), text)
    text = text.replace("/", "//").strip()
    try:
        tree = ast.parse(text, mode="eval")
        allowed = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant,
                   ast.operator, ast.unaryop, ast.Name, ast.Load)
        if not all(isinstance(n, allowed) for n in ast.walk(tree)):
            return None
        value = eval(compile(tree, "constant", "eval"),  # names: ints only
                     {"__builtins__": {}}, dict(names or {}))
    except (SyntaxError, NameError, TypeError, ValueError, ArithmeticError):
        return None
    if not isinstance(value, int):
        return None
    return value % 2**64 if unsigned and value < 0 else value


def _enumerators(body, known):
    """`{ A, B = 3 }` with each value worked out, or `...` where it can't."""
    out, value = [], -1
    for item in " ".join(body).split(","):
        name, _, text = (s.strip() for s in item.partition("="))
        if not name:
            continue
        if text:
            value = evaluate(text, known)
        elif value is not None:
            value += 1
        if value is None:
            out.append(f"{name} = ...")
        else:
            known[name] = value
            out.append(f"{name} = {value}")
    return "{ " + ", ".join(out) + " }"


def _rewrite(tokens, known, packed, depth=0):
    """Enumerators and array bounds as numbers, structs open-ended."""
    out, i = [], 0
    while i < len(tokens):
        t = tokens[i]
        end = _group_end(tokens, i) if t in _CLOSE else i + 1
        inner = tokens[i + 1:end - 1]
        if t == "{" and "enum" in tokens[max(0, i - 2):i]:
            out.append(_enumerators(inner, known))
        elif t == "{":
            text = _rewrite(inner, known, packed, depth + 1)
            # cffi wants bit-fields laid out by itself.
            bitfield = ":" in inner
            rest = "" if depth or bitfield else " ...;"
            out.append("{ " + text + rest + " }")
        elif t == "[" and inner:
            value = evaluate(" ".join(inner), known)
            out.append("[...]" if value is None else f"[{value}]")
        elif t in _CLOSE:
            out.append(t + _rewrite(inner, known, packed, depth) + _CLOSE[t])
        else:
            out.append(t)
        i = end
    return " ".join(out)


class _Header:
    """What a set of headers declares, as cffi wants it."""

    def __init__(self, text):
        self.known = {}
        self.types = []       # (declaration, packed)
        self.functions = {}   # name: prototype
        self.inlines = {}
        self.variables = {}
        for decl in _declarations(_tokens(text)):
            self._add(decl)

    def _add(self, decl):
        if decl[0] in ("_Static_assert", ";"):
            return
        inline = decl[-1] == "}"
        if inline:
            body = next(i for i, t in enumerate(decl) if t == "{")
            decl = decl[:body] + [";"]
        static = "static" in decl
        decl, packed = _strip(decl)
        if any("va_list" in t for t in decl):
            return
        if "=" in decl[:decl.index("{") if "{" in decl else None]:
            return
        text = _rewrite(decl, self.known, packed)
        if decl[0] == "typedef" or ("{" in decl and "(" not in
                                    decl[:decl.index("{")]):
            self.types.append((text, packed))
            return
        call = re.match(r"^[\w\s*]*?\b(\w+)\s*\(", text)
        if call and not re.match(r"^[^(]*\(\s*\*", text):
            (self.inlines if inline else self.functions)[call[1]] = text
        elif not static and decl[0] == "extern":
            name = re.match(r"^[^(]*\(\s*\*\s*(?:const\s+)?(\w+)", text) or \
                re.match(r".*?(\w+)\s*(?:\[[^\]]*\]\s*)*;$", text)
            self.variables[name[1]] = text
        elif decl[0] in ("struct", "union", "enum") and len(decl) == 3:
            self.types.append((text, packed))


_MARKER = re.compile(r'# \d+ "([^"]*)"(.*)')


def _own_lines(preprocessed):
    """The lines that come from no system header and not from the compiler."""
    # Flag 3 marks system headers, but also what a macro of theirs (bool)
    # expands to in our file.
    ours, own = set(), False
    for line in preprocessed.splitlines():
        marker = _MARKER.match(line)
        if marker:
            if marker[1][0] != "<" and "3" not in marker[2].split():
                ours.add(marker[1])
            own = marker[1] in ours
        elif own:
            yield line


def _macros(prelude, flags):
    """Every macro of the tree that is a whole number: {name: value}."""
    dump = _run([CC, *flags, "-E", "-dD", "-x", "c", "-"], input=prelude)
    defines = (re.match(r"#define (\w+) (?=\S)", line)
               for line in _own_lines(dump))
    names = [found[1] for found in defines if found]
    probe = prelude + "".join(f'\n@@ "{n}" @= {n}' for n in names)
    found = {}
    for line in _run([CC, *flags, "-E", "-P", "-x", "c", "-"],
                     input=probe).splitlines():
        hit = re.match(r'@@ "(\w+)" @= (.*)', line)
        value = evaluate(hit[2]) if hit else None
        if value is not None:
            found[hit[1]] = value
    return found


# --- Building ------------------------------------------------------------

def _digest(*parts):
    h = hashlib.sha256()
    for part in parts:
        h.update(str(part).encode() + b"\0")
    return h.hexdigest()[:20]


def _replace(path, write):
    """Writes path in one step: other runs may build the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as tmp:
        made = Path(tmp) / path.name
        write(made)
        made.replace(path)


@functools.cache
def _included(source):
    """A file of C and all that it includes, from the tree's root."""
    found, todo = {}, [str(source)]
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = (ROOT / name).read_text()
            todo += re.findall(r'^\s*#\s*include "(.+?)"', found[name], re.M)
    return _digest(*sorted(found.items()))


def _made(name, suffix, key, write):
    """The file that write(path) makes; `key` is all that it depends on."""
    path = OUT / "obj" / f"{name}-{_digest(CC, *key)}{suffix}"
    if not path.exists():
        _replace(path, write)
    return path


def _object(source, flags):
    return _made(Path(source).stem, ".o", (_included(source), flags),
                 lambda to: _run([CC, *flags, "-c", source, "-o", str(to)]))


def _defined(objects):
    out = _run(["nm", "--defined-only", "-g", *map(str, objects)])
    return {line.split()[2] for line in out.splitlines()
            if len(line.split()) == 3}


def _file_of_text(text, name):
    path = OUT / "src" / f"{name}-{_digest(text)}.c"
    if not path.exists():
        _replace(path, lambda to: to.write_text(text))
    return str(path.relative_to(ROOT))


def _drop_old(name, keep):
    for path in OUT.glob(f"_unit_{name}-*"):
        if path != keep and path.stat().st_mtime < time.time() - 86400:
            path.unlink(missing_ok=True)


@functools.cache
def _declared(prelude, cdef, flags):
    """(what headers and cdef declare, their macros)"""
    def write(to):
        header = _Header("\n".join(_own_lines(_run(
            [CC, *flags, "-E", "-x", "c", "-"], input=prelude))))
        for decl in _declarations(_tokens(cdef)):
            header._add(decl)
        to.write_bytes(pickle.dumps((header, _macros(prelude, flags))))
    headers = re.findall('"(.*)"', prelude)
    return pickle.loads(_made("headers", ".pickle", (
        *map(_included, headers), prelude, cdef, flags, _included(
            Path(__file__))), write).read_bytes())


def program(name, sources, sanitize):
    """The path of a program of C files, whose main() is one of theirs."""
    objects = [_object(s, (*BASE, *sanitize)) for s in sources]
    return _made(name, "", objects, lambda to: _run(
        [CC, *sanitize, *map(str, objects), "-o", str(to), "-lpthread"]))


def build(name, sources, headers=(), fakes=None, cdef="", exports=(),
          defines=(), sanitize=True, lines=False):
    """A Module of the C files `sources` (paths from the tree's root).

    headers: what tests call; exports: their static inline functions to call
    as well; fakes: C text, or the path of a C file; cdef: declarations of
    what the tests use of the fakes (plain C); defines: ["NAME=VALUE"];
    lines: no sanitizers, but the fakes hear of each access (touched.c).
    """
    flags = (*BASE, *(f"-D{d}" for d in defines))
    sanitizers = SANITIZE if sanitize and not lines else []
    strict = [*flags, *WARN, *(LINES if lines else sanitizers)]
    objects = [_object(s, strict) for s in sources]
    if fakes is not None:
        if "\n" in fakes or not (ROOT / fakes).exists():
            fakes = _file_of_text(fakes, f"{name}-fakes")
        objects.append(_object(fakes, [*flags, *sanitizers, "-Wall", "-Werror",
                                       "-Wno-unused-function"]))
    objects.append(_object(FAKES, flags))
    prelude = "".join(f'#include "{h}"\n' for h in [*headers, *ALWAYS])
    header, macros = _declared(prelude, cdef, flags)
    key = (vars(header), prelude, cdef, sorted(exports), flags,
           sysconfig.get_config_var("EXT_SUFFIX"))
    module_name = f"_unit_{_digest(*key)}"
    path = OUT / f"_unit_{name}-{_digest(module_name, sanitize, objects)}.so"
    if not path.exists():
        glue = _glue(module_name, header, prelude + cdef, exports, flags,
                     _defined(objects))
        _replace(path, lambda to: _run(
            [CC, *sanitizers, "-shared", str(glue), *map(str, objects), "-o",
             str(to)]))
        _drop_old(name, path)
    loader = importlib.machinery.ExtensionFileLoader(module_name, str(path))
    spec = importlib.util.spec_from_loader(module_name, loader)
    if sanitize and "libasan" not in Path("/proc/self/maps").read_text():
        raise BuildError("libasan is not loaded: run this by pytest")
    try:
        extension = importlib.util.module_from_spec(spec)
        loader.exec_module(extension)
    except ImportError as error:
        raise BuildError(f"{name}: {error} (missing source or fake?)") from None
    return Module(extension, macros, header)


def _glue(module_name, header, prelude, exports, flags, defined):
    """cffi's object, by which Python calls those that are `defined`."""
    missing = set(exports) - set(header.inlines)
    if missing:
        raise BuildError(f"no static inline function {sorted(missing)}")
    wanted = [t for n, t in (header.functions | header.variables).items()
              if n in defined]
    wanted += [header.inlines[n] for n in exports]

    def write(to):
        ffi = cffi.FFI()
        for text, packed in [*header.types, *((t, False) for t in wanted)]:
            try:
                ffi.cdef(text, packed=packed, override=True)
            except Exception as error:
                raise BuildError(
                    f"cffi cannot take `{text}`: {error}") from None
        ffi.set_source(module_name, prelude)
        glue = to.with_suffix(".c")
        ffi.emit_c_code(str(glue))
        include = sysconfig.get_path("include")
        _run([CC, *flags, "-w", "-g0", "-O0", f"-I{include}", "-c", str(glue),
              "-o", str(to)])
    return _made("glue", ".o", (module_name, wanted), write)


# --- A module as the tests see it ---------------------------------------

class Module:
    """Attributes are the C names; the rest is the fakes' Python side."""

    def __init__(self, extension, macros, header):
        self.ffi, self.lib = extension.ffi, extension.lib
        self.NULL = self.ffi.NULL
        self.constants = {**macros, **header.known}
        # What a test reads most, past __getattr__.
        vars(self).update((n, v) for n, v in self.constants.items()
                          if not hasattr(type(self), n))
        self._kinds = {v: n[5:].lower() for n, v in self.constants.items()
                       if n.startswith("FAKE_")}
        self._keep, self._errors = [], []
        self._allocate = self.ffi.new_allocator(
            self.lib.fakes_alloc, self.lib.fakes_free)
        _modules.append(self)

    def __getattr__(self, name):
        if name.startswith("_") or name in ("ffi", "lib"):
            raise AttributeError(name)
        found = getattr(self.lib, name)
        if isinstance(found, types.BuiltinFunctionType):
            vars(self)[name] = found
        return found

    def new(self, ctype, init=None):
        """As ffi.new, in memory whose bounds ASan watches."""
        return self._allocate(ctype, init)

    def string(self, pointer):
        return self.ffi.string(pointer).decode()

    def callback(self, ctype, function, on_error=None):
        """A C function pointer; an exception in it fails the test."""
        def guarded(*args):
            try:
                return function(*args)
            except BaseException as error:  # cffi would only print it
                self._errors.append(error)
                raise
        made = self.ffi.callback(ctype, guarded, error=on_error,
                                 onerror=lambda *_: None)
        self._keep.append(made)
        return made

    def handle(self, thing):
        """A void * for C to carry; ffi.from_handle gives `thing` back."""
        made = self.ffi.new_handle(thing)
        self._keep.append(made)
        return made

    def events(self, *kinds):
        """Recorded hardware accesses in order, of those kinds (or all)."""
        count = self.lib.fakes_event_count
        assert count <= self.FAKES_EVENTS, "events overflowed: clear_events()"
        every = [Event(self._kinds.get(e.kind, e.kind), e.addr, e.size, e.value)
                 for e in self.lib.fakes_events[0:count]]
        return [e for e in every if not kinds or e.kind in kinds]

    def clear_events(self):
        self.lib.fakes_event_count = 0

    def log_lines(self):
        """Lines logged since the reset: [(level, text)]."""
        return [(line.level, self.string(line.text)) for line in
                self.lib.fakes_lines[0:self.lib.fakes_line_count]]

    def log_text(self):
        return "\n".join(text for _, text in self.log_lines())

    def on_read(self, function):
        """function(kind, addr, size) -> value, or None for the default: a
        port gives all ones, MMIO reads the memory it points at."""
        def hook(kind, addr, size, value):
            got = function(self._kinds[kind], addr, size)
            if got is not None:
                value[0] = got
            return got is not None
        self.lib.fakes_read_hook = self.callback(
            "bool(enum fake_kind, uint64_t, unsigned, uint64_t *)", hook)

    def on_write(self, function):
        """function(kind, addr, size, value); MMIO stores then reach no
        memory but what the function changes."""
        self.lib.fakes_write_hook = self.callback(
            "void(enum fake_kind, uint64_t, unsigned, uint64_t)",
            lambda kind, *rest: function(self._kinds[kind], *rest))

    @property
    def tsc(self):
        return self.lib.fakes_tsc

    @tsc.setter
    def tsc(self, value):
        self.lib.fakes_tsc = value

    def reset(self):
        """Fakes as at the start. State of the C files is the test's own."""
        self.lib.fakes_reset()

    def check(self):
        """Raises what a callback raised; conftest.py calls it."""
        errors, self._errors = self._errors, []
        if errors:
            traceback.print_exception(errors[0])
            raise errors[0]


def reset_all():
    for module in _modules:
        module.reset()


def check_all():
    for module in _modules:
        module.check()
