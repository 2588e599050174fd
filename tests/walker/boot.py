# SPDX-License-Identifier: MIT
"""The walk over a machine of tests/rigs that stands still.

    boot.install()          # in conftest.py: on every start of a guest

    with rigs.start(...) as machine:
        machine.wait_for(...)
        with boot.frozen(machine) as still:
            boot.check(still)

check() walks what the units and the CPU would walk, and fails where that
differs from the region list in the log, where a page of Monocle's is within
reach, or where a page could have been larger.
"""

import contextlib
import dataclasses
import functools
import re
import struct
import subprocess

from . import ept, paging, vtd
from .compare import compare, reached, wanted_cpu, wanted_dma
from .memory import expand
from .regions import parse_regions

PAGE = 4096
NAMES = {PAGE: "4K", 1 << 21: "2M", 1 << 30: "1G"}
IMAGE = re.compile(r"Monocle [\d.]+, at 0x([0-9a-f]+)-0x([0-9a-f]+)")
UNIT = re.compile(r"VT-d: unit \d+ at 0x([0-9a-f]+),.*"
                  r"root table 0x([0-9a-f]+)")
EPTP = re.compile(r"vmx: EPTP 0x([0-9a-f]+)")
EPT_PAGES = re.compile(r"vmx: EPT with pages of ([\w ]+)")
STARTED = "the guest starts"
# These have memory of their own, which the test of that option looks at.
LEFT = re.compile(r"usb-firmware: (\w\w):(\w\w)\.(\w) is left with")
# Above are the image and the stacks, below is the direct map (docs/memory.md).
OWN_SPACE = 0xffffffff80000000
# Called once for each start of a guest, when its tables are complete.
START_SYMBOL = "vcpu_run"
START_LIMIT = 60        # for each CPU
# VT-d 11.4
CAP, ECAP, GSTS, RTADDR, IQA, IRTA = 0x8, 0x10, 0x1c, 0x20, 0x90, 0xb8
TES, QIES, IRES, CFIS = (1 << n for n in (31, 26, 25, 23))


class Still:
    """A machine that stands still: its memory, page by page, and the linear
    addresses that the CPU holds (none where they are not Monocle's)."""

    def __init__(self, log, read):
        self.log = log
        self.read_now = read
        self.pages = {}         # what was read, as it was
        self.cr3 = None
        self.linear = []
        self.own = {}           # pages known otherwise to be Monocle's

    def __call__(self, address, size):
        data = b""
        for page in range(address & ~(PAGE - 1), address + size, PAGE):
            if page not in self.pages:
                self.pages[page] = self.read_now(page, PAGE)
            data += self.pages[page]
        return data[address % PAGE:][:size]

    def leaf_of(self, top, levels, gpa):
        """(page, offset) of the entry that maps gpa, EPT or second level."""
        for level in range(levels, 0, -1):
            at = gpa // (PAGE << 9 * (level - 1)) % 512 * 8
            entry, = struct.unpack_from("<Q", self(top, PAGE), at)
            if level == 1 or entry >> 7 & 1:
                return top, at
            top = entry & (1 << 52) - 1 & -PAGE
        raise AssertionError("no leaf")

    def changed(self, where, change):
        """A copy with one entry changed by a function, for planted errors."""
        page, at = where
        data = bytearray(self(page, PAGE))
        struct.pack_into("<Q", data, at,
                         change(*struct.unpack_from("<Q", data, at)))
        other = Still(self.log, self.read_now)
        other.cr3, other.linear = self.cr3, self.linear
        other.pages = {**self.pages, page: bytes(data)}
        return other

    def register(self, base, at, size=8):
        """A unit's register: device memory, never remembered."""
        return int.from_bytes(self.read_now(base + at, size), "little")


# -- QEMU

def _info_registers(still, text):
    found = {name: int(value, 16) for name, value in re.findall(
        r"\b(CR3|RSP)=([0-9a-f]+)", text)}
    found.update({name: int(value, 16) for name, value in re.findall(
        r"^(GS|TR|GDT|IDT) *=(?: *[0-9a-f]{4} )? *([0-9a-f]{16})", text,
        re.MULTILINE)})
    if found["RSP"] >= OWN_SPACE:
        still.cr3 = found.pop("CR3")
        still.linear = list(found.values())


@contextlib.contextmanager
def _frozen_qemu(machine):
    machine.qmp.command("stop")
    still = Still(_log(machine), machine.memory)
    _info_registers(still, machine.qmp.command(
        "human-monitor-command", **{"command-line": "info registers"}))
    yield still
    machine.qmp.command("cont")


# -- Bochs

class Breakpoint:
    """Bochs stops where Monocle enters the guest for the first time."""

    def __init__(self, machine):
        self.machine = machine
        self.sort = machine._sort
        machine._sort = self._sort

    def _sort(self):
        # A break is expected, and so no end of the run.
        self.machine.asked = True
        return re.sub(rb"^\(\d\) Breakpoint \d+, .*\n", b"", self.sort(),
                      flags=re.MULTILINE)

    def wait(self, limit):
        """Whether the guest is to be entered."""
        machine = self.machine
        with machine.change:
            machine.change.wait_for(
                lambda: self._at_prompt() or machine.ended or
                not machine.alive(), limit)
            if not machine.in_debugger:
                machine._sort = self.sort
            return self._at_prompt() and not machine.ended

    def _at_prompt(self):
        return self.machine.in_debugger and re.search(
            rb"<bochs:\d+> \Z", self.machine.output)

    def ask(self, *commands):
        """The debugger's answers, without going on."""
        machine = self.machine
        with machine.change:
            first = len(machine.output)
            for command in commands:
                at = len(machine.output)
                machine._debug(command)
                # Its echo, what it says, the next prompt.
                machine._await(lambda at=at: len(machine.output) > at and
                               self._at_prompt())
            return machine.output[first:].decode(errors="replace")

    def memory(self, address, size):
        text = self.ask(f"xp /{size // 4}wx {address:#x}")
        words = re.findall(r">:((?:\t0x[0-9a-f]{8})+)", text)
        data = b"".join(int(word, 16).to_bytes(4, "little")
                        for line in words for word in line.split())
        if len(data) != size:
            raise AssertionError(f"bochs shows no memory at {address:#x}")
        return data

    def go_on(self):
        machine = self.machine
        self.ask("d 1")
        with machine.change:
            machine._debug("c")
            machine._await(lambda: not machine.in_debugger)
            machine._sort = self.sort
            machine.asked = False


@contextlib.contextmanager
def _at_breakpoint(machine, point):
    still = Still(_log(machine), point.memory)
    text = point.ask("creg", "sreg", "r")
    found = {name: int(n.replace("_", ""), 16) for name, n in re.findall(
        r"^(gdtr:base=0x|idtr:base=0x|rsp: |CR3=0x)([0-9a-f_]+)", text,
        re.MULTILINE)}
    # With several CPUs Bochs may stop an instruction later, in the guest.
    if found["rsp: "] >= OWN_SPACE:
        still.cr3 = found.pop("CR3=0x")
        still.linear = list(found.values())
    yield still
    point.go_on()


# -- any rig

def _log(machine):
    text = machine.text("log")
    return text if IMAGE.search(text) else machine.text("serial")


def frozen(machine):
    """A context in which a machine of a QEMU rig stands still."""
    return _frozen_qemu(machine)


@functools.lru_cache
def symbol(image, name):
    text = subprocess.run(["nm", image], capture_output=True, text=True,
                          check=True).stdout
    return int(re.search(rf"^([0-9a-f]+) \w {name}$", text,
                         re.MULTILINE)[1], 16)


def _has_symbols(image):
    """Whether it is Monocle, and not what stands in for it."""
    done = subprocess.run(["nm", image], capture_output=True, text=True,
                          check=False)
    return f" {START_SYMBOL}\n" in done.stdout


def own_pages(still):
    """{page: what it is} of Monocle's own memory, without the tables."""
    image = IMAGE.search(still.log)
    low, high = (int(n, 16) for n in image.groups())
    own = dict(still.own)
    own.update({page: "image" for page in range(low & -PAGE, high, PAGE)})
    if still.cr3 is None:
        return own
    pages = paging.leaves(still, still.cr3)
    for at, size, where in pages:
        if at >= OWN_SPACE:
            for page in range(where, where + size, PAGE):
                own.setdefault(page, "stack")
    for linear in still.linear:
        where = paging.translate(pages, linear)
        if where is None:
            raise AssertionError(f"{linear:#x} is not mapped by Monocle")
        own.setdefault(where & -PAGE, "a CPU's tables")
    return own


def could_be_larger(runs, wanted, sizes):
    """The pages in whose place a larger page would fit; of a run in one
    table the first, for what fits one fits all."""
    out, at = [], 0
    for gpa, size, _, hpa, *_ in runs if sizes else []:
        while at < len(wanted) and wanted[at].end <= gpa:
            at += 1
        piece = wanted[at] if at < len(wanted) else None
        for larger in sizes:
            base = gpa & -larger
            if larger > size and piece and (hpa - gpa) % larger == 0 and \
                    piece.gpa <= base and base + larger <= piece.end:
                out.append(f"{gpa:#x}: {NAMES[size]}, not {NAMES[larger]}")
                break
    return out


def _judge(what, found, wanted, pieces, own):
    differences = compare(pieces, wanted)
    if differences:
        raise AssertionError(f"{what}: found and wanted differ:\n" + "\n".join(
            f"{d.gpa:#x}-{d.end:#x}: {d.found} {d.wanted}"
            for d in differences[:20]))
    mine = reached(pieces, [(page, page + PAGE) for page in own])
    if mine:
        raise AssertionError(f"{what}: Monocle is in reach: " + ", ".join(
            f"{p.gpa:#x} -> {p.hpa:#x}" for p in mine[:8]))
    small = could_be_larger(*found)
    if small:
        raise AssertionError(f"{what}: pages could be larger: " +
                             ", ".join(small[:8]))


class Unit:
    """One remapping unit, by its own registers."""

    def __init__(self, still, base):
        self.base = base
        self.cap, self.ecap = (still.register(base, at) for at in (CAP, ECAP))
        self.status = still.register(base, GSTS, 4)
        self.root = still.register(base, RTADDR) & -PAGE
        self.queue = still.register(base, IQA) & -PAGE
        self.irta = still.register(base, IRTA)
        self.width = (self.cap >> 16 & 0x3f) + 1
        self.large = [2 + i for i in (0, 1) if self.cap >> (34 + i) & 1]

    def interrupts(self, still):
        """As vtd.interrupts(), of the table that is in force."""
        return vtd.interrupts(still, self.irta & -PAGE, 2 << (self.irta & 15),
                              bool(self.irta >> 11 & 1))


def units(still):
    """The remapping units that the log names."""
    return [Unit(still, int(base, 16))
            for base, _ in UNIT.findall(still.log)]


def _check_unit(still, unit, own, regions):
    if not unit.status & TES:
        raise AssertionError(f"unit {unit.base:#x} does not translate")
    said = dict(UNIT.findall(still.log)).get(f"{unit.base:x}")
    if int(said, 16) != unit.root:
        raise AssertionError(f"root table {unit.root:#x}, not {said}")
    wanted = wanted_dma(regions)
    contexts = vtd.contexts(still, unit.root, unit.width)
    left = {int(bus, 16) << 8 | int(slot, 16) << 3 | int(function)
            for bus, slot, function in LEFT.findall(still.log)}
    walked = {c: vtd.runs(still, c, unit.width, unit.large)
              for c in {c for bdf, c in contexts.items() if bdf not in left}}
    if unit.status & QIES:
        own[unit.queue] = "invalidation queue"
    if unit.status & IRES:
        for page in range(unit.irta & -PAGE,
                          (unit.irta & -PAGE) + (32 << (unit.irta & 15)),
                          PAGE):
            own[page] = "interrupt table"
    own.update({page: "tables" for page in still.pages})
    for context, runs in walked.items():
        sizes = [PAGE << 9 * (n - 1) for n in unit.large]
        _judge(f"DMA of domain {context.domain}",
               (runs, wanted_dma(regions, list), sizes),
               wanted, vtd.pieces(still, context, unit.width, unit.large),
               own)
    return contexts


def _check_ept(still, eptp, own, regions):
    pages = EPT_PAGES.search(still.log)[1].split()
    large = [n for n, name in ((2, "2M"), (3, "1G")) if name in pages]
    wanted = wanted_cpu(regions)
    runs = ept.runs(still, eptp, large=large)
    own.update({page: "tables" for page in still.pages})
    _judge("EPT", (runs, wanted_cpu(regions, list),
                   [PAGE << 9 * (n - 1) for n in large]), wanted, ept.pieces(still, eptp, large=large), own)
    return list(expand(runs))


class Found:
    """What check() has walked."""

    def __init__(self, still):
        self.still = still
        self.own = {}           # {page: what it is}, all of Monocle's
        self.contexts = {}      # {requester ID: Context}
        self.ept = []           # leaves


def check(still):
    """Raises AssertionError or TableError; returns what was Found."""
    found = Found(still)
    regions = parse_regions(still.log)
    if not regions:
        raise AssertionError("the log has no region list")
    found.own = own_pages(still)
    for unit in units(still):
        found.contexts.update(_check_unit(still, unit, found.own, regions))
    eptp = EPTP.search(still.log)
    if eptp:
        found.ept = _check_ept(still, int(eptp[1], 16), found.own, regions)
    return found


def wanted(spec):
    """Whether there is something to check, and a log that says what."""
    words = spec.hv.split()
    elsewhere = any(word.startswith("log=") and "e9" not in word
                    for word in words)
    return not spec.native and spec.module and not spec.iso and \
        "quiet" not in words and not elsewhere


def check_start(machine):
    """Runs the machine until it enters its guest, and checks it there: what
    was Found, or None where no guest starts or nothing is to be seen."""
    spec = machine.spec
    if not wanted(spec) or machine.name not in ("bochs", "kvm") or \
            machine.name == "bochs" and not spec.breakpoints:
        return None
    limit = min(START_LIMIT * spec.cpus, spec.timeout)
    if machine.name == "kvm":
        return _check_kvm(machine, limit)
    point = Breakpoint(machine)
    if not point.wait(limit):
        return None
    with _at_breakpoint(machine, point) as still:
        return check(still)


def _check_kvm(machine, limit):
    with machine.change:
        machine.change.wait_for(
            lambda: STARTED in _log(machine) or machine.ended or
            not machine.alive(), limit)
    if machine.ended or STARTED not in _log(machine):
        return None
    with frozen(machine) as still:
        return check(still)


def install():
    """From now on rigs.start() and rigs.boot() check every machine that
    enters a guest. What was Found is the machine's `walked`."""
    import rigs
    from rigs import run
    from rigs.spec import BUILD
    plain = run.start
    if hasattr(plain, "walks"):
        return

    @functools.wraps(plain)
    def start(spec=None, hooks=None, say=None, **fields):
        spec = spec or rigs.Spec(**fields)
        image = str(spec.monocle or BUILD / "monocle.elf")
        if wanted(spec) and _has_symbols(image):
            # Set before the CPU's first instruction: there is no race.
            spec = dataclasses.replace(
                spec, breakpoints=(symbol(image, START_SYMBOL),))
        machine = plain(spec, hooks, say)
        try:
            machine.walked = check_start(machine)
        except BaseException:
            machine.close()
            raise
        return machine

    start.walks = True
    rigs.start = run.start = start
