# SPDX-License-Identifier: MIT
"""Runs Monocle's start on a machine on paper, twice, and judges it.

The second run has the word `list`: it has to foretell the first. Of a start
everything is looked up where hardware, or a guest, would find it: context
entries and the EPT in the memory that the start has written (tests/walker),
the functions by a scan from the root buses that the DSDT names, with the
windows and the `_PRT` of their root.
"""

import os
import pathlib
import re
import struct
import subprocess

from walker import TableError, boot as walk, ept, parse_regions, vtd

from . import aml, paper

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "fleet" / "fleet"
SPACE = 1 << 46
LIMIT = 60
PAGE = 4096
TABLES = 2 << 20        # for BARs that the guest moves
ERROR = re.compile(r"^monocle: error: (.*)$", re.MULTILINE)
ASSIGNED = re.compile(r"^monocle: assigned: (\w\w:\w\w\.\w)", re.MULTILINE)
END = re.compile(r"^monocle: end: (\d+) ", re.MULTILINE)
ENDS = {"0": "ended", "4": "refused", "5": "panic"}     # kernel/panic.h
LOST_LINE = re.compile(r"^monocle: warning: (.*cannot be routed)$",
                       re.MULTILINE)
# The line that a user copies, as it is broken on a screen.
GRUB = re.compile(r"^monocle:   multiboot2 /boot/monocle\.elf"
                  r"(.*(?:\nmonocle: {14}\S.*)*)", re.MULTILINE)
VERDICT = re.compile(r"^monocle: this machine (.*)$", re.MULTILINE)


class Run:
    """One run of the program; its memory stays until close()."""

    def __init__(self, path, words, program=PROGRAM):
        self.fd = os.memfd_create("fleet")
        os.ftruncate(self.fd, SPACE)
        try:
            done = subprocess.run(
                [program, path, words, str(self.fd)], pass_fds=[self.fd],
                capture_output=True, timeout=LIMIT, check=False, env={})
            self.status, out = done.returncode, done.stdout
            self.complaint = done.stderr.decode(errors="replace")
        except subprocess.TimeoutExpired as hung:
            self.status, out = -1, hung.stdout or b""
            self.complaint = f"no end within {LIMIT} s"
        self.output = out.decode(errors="replace")
        lines = self.output.splitlines()
        self.log = "".join(line + "\n" for line in lines
                           if not line.startswith("fact "))
        self._facts = [line[5:].split() for line in lines
                       if line.startswith("fact ")]

    def close(self):
        os.close(self.fd)

    def facts(self, name):
        return [words[1:] for words in self._facts if words[0] == name]

    def read(self, address, size):
        return os.pread(self.fd, size, address)

    def error(self):
        """The line that refuses, with those that led to it before it."""
        return "; ".join(ERROR.findall(self.log))

    def grub(self):
        """The words of the line for GRUB that a list ends with, or None;
        without the one that fleet.c adds."""
        found = GRUB.search(self.log)
        return found and [word for word in found[1].split()
                          if word not in ("monocle:", "log=e9")]

    def free_and_given(self):
        """MiB that are nobody's at the start, and those that are the guest's."""
        return (int(re.search(rf"{what}: (\d+) MiB", self.log)[1])
                for what in ("memory", "guest memory"))

    def assigned(self):
        return [paper.bdf_of(text) for text in ASSIGNED.findall(self.log)]

    def end(self):
        """"starts", "refused", "ended", or what went wrong."""
        if self.facts("bad"):
            return "bad file: " + " ".join(self.facts("bad")[0])
        if self.status or not self.facts("end"):
            last = [line for line in self.complaint.splitlines() if line]
            return f"crash, status {self.status}: {last[0] if last else ''}"
        how = self.facts("end")[-1]
        status = END.search(self.log)
        return ENDS.get(status and status[1], "an end without a status") \
            if how == ["stopped"] else " ".join(how)


class Start:
    """A guest that was about to be entered."""

    def __init__(self, machine, run, words=""):
        self.machine, self.run, self.words = machine, run, words.split()
        self.still = walk.Still(run.log, run.read)
        for base, size in self._numbers("own"):
            self.still.own.update({page: "Monocle's memory" for page in range(
                base, base + size, PAGE)})
        self.regions = parse_regions(run.log)
        self.given = [paper.bdf_of(words[0]) for words in run.facts("given")]
        self.units = {unit.base: unit for unit in walk.units(self.still)}
        self.trapped = self._numbers("trapped", "memory")
        self.ports = self._numbers("trapped", "ports") + self._numbers("open")
        eptp = walk.EPTP.search(run.log)
        self.pieces = ept.pieces(self.still, int(eptp[1], 16)) if eptp else []

    def _numbers(self, name, first=None):
        return [tuple(int(w, 16) for w in words[bool(first):])
                for words in self.run.facts(name)
                if first in (None, words[0])]

    def walk(self):
        """What hardware reaches that it must not, or does not reach."""
        try:
            walk.check(self.still)
        except (AssertionError, TableError) as error:
            return [str(error).replace("\n", " ")[:300]]
        return []

    def translate(self, gpa):
        for p in self.pieces:
            if p.gpa <= gpa < p.end:
                return p.hpa + gpa - p.gpa
        return None

    def guest_memory(self, gpa, size):
        data = b""
        while size > 0:
            part = min(size, PAGE - gpa % PAGE)
            where = self.translate(gpa)
            data += self.run.read(where, part) if where is not None else \
                b"\xff" * part
            gpa, size = gpa + part, size - part
        return data

    # -- ACPI, as the guest reads it

    def tables(self):
        """{signature: table}, of those that the XSDT names and the DSDT."""
        bios = self.guest_memory(0xe0000, 0x20000)
        at = bios.find(b"RSD PTR ")
        if at < 0:
            return {}
        xsdt, = struct.unpack_from("<Q", bios, at + 24)
        found = [self._table(table) for table, in
                 struct.iter_unpack("<Q", self._table(xsdt)[36:])]
        found += [self._table(struct.unpack_from("<Q", body, 140)[0] or
                              struct.unpack_from("<I", body, 40)[0])
                  for body in found if body[:4] == b"FACP"]
        return {body[:4]: body for body in found}

    def dsdt(self):
        return self.tables().get(b"DSDT", b"")

    def _table(self, gpa):
        size = int.from_bytes(self.guest_memory(gpa + 4, 4), "little")
        return self.guest_memory(gpa, min(size, 1 << 20))

    def last_bus(self):
        """Of ECAM, as MCFG has it (PCI Firmware 3.0, 4.1.2)."""
        mcfg = self.tables().get(b"MCFG", b"")
        return mcfg[55] if len(mcfg) > 55 else None

    def scan(self):
        """{BDF in words: (its root, vendor and device)}, from each root on
        and behind bridges whose buses are its own."""
        seen = {words[0]: words[1] for words in self.run.facts("seen")}
        leads = {words[0]: int(words[1], 16)
                 for words in self.run.facts("leads")}
        found = {}
        for root in aml.roots(self.dsdt()):
            first, last = root.buses[0] if len(root.buses) == 1 else (1, 0)
            left = [first] * (first == root.bus and not root.segment)
            while left:
                bus = left.pop()
                for text in seen:
                    if int(text[:2], 16) != bus or text in found:
                        continue
                    found[text] = root, seen[text]
                    if bus < leads.get(text, 0) <= last:
                        left.append(leads[text])
        return found

    # -- what a function has

    def lacks(self):
        """A line for each thing that a given function does not have."""
        found, out = self.scan(), aml.overlaps(aml.roots(self.dsdt()))
        for bdf in self.given:
            f = self.machine.functions[bdf]
            root, ident = found.get(paper.text_of(bdf), (None, None))
            missing = [
                *self._scan(f, ident), *self._bars(f, root),
                *self._context(bdf),
                *self._interrupt(f, root.routes if root else ())]
            out += [f"{paper.text_of(bdf)} {what}" for what in missing]
        return out

    def _scan(self, f, ident):
        if ident != f"{f.vendor:04x}:{f.device:04x}":
            yield "is not found by a scan from the roots of the DSDT"
        last = self.last_bus()
        if last is not None and f.bdf >> 8 > last:
            yield "is on a bus that MCFG does not have"

    def _bars(self, f, root):
        guest = {int(n): (kind == "ports", int(base, 16), int(size, 16))
                 for bdf, n, kind, base, size in self.run.facts("bar")
                 if bdf == paper.text_of(f.bdf)}
        for n, (ports, base, size) in f.bars().items():
            if n not in guest or guest[n][::2] != (ports, size):
                yield f"lacks BAR {n}"
            elif ports and not all(self._is_open(guest[n][1] + i)
                                   for i in range(size)):
                yield f"does not reach the ports of BAR {n}"
            elif not ports and not self._is_mapped(guest[n][1], base, size):
                yield f"does not reach the memory of BAR {n}"
            elif root and not root.passes("ports" if ports else "memory",
                                          guest[n][1], size):
                yield f"has BAR {n} in no window of its root"

    def _is_open(self, port):
        return any(first <= port <= last for first, last in self.ports)

    def _is_mapped(self, gpa, hpa, size):
        at = gpa
        while at < gpa + size:
            piece = next((p for p in self.pieces if p.gpa <= at < p.end), None)
            trap = next((t for t in self.trapped if t[0] <= at <= t[1]), None)
            if trap:
                at = trap[1] + 1
            elif piece and piece.hpa + at - piece.gpa == hpa + at - gpa and \
                    piece.rights[:2] == "rw":
                at = min([piece.end] + [t[0] for t in self.trapped
                                        if at < t[0]])
            else:
                return False
        return True

    def _is_direct(self, bdf):
        """As the user wants it: and then its unit, its own, is off."""
        unit = self.machine.unit_of(bdf)
        return bdf == 0x10 and "igd-dma=direct" in self.words and not (
            unit and self.still.register(unit, walk.GSTS, 4) &
            (walk.TES | walk.IRES))

    def _context(self, bdf):
        if not self.units or self._is_direct(bdf):
            return
        unit = self.units.get(self.machine.unit_of(bdf))
        if not unit:
            yield "has no IOMMU"
            return
        contexts = vtd.contexts(self.still, unit.root, unit.width)
        if bdf not in contexts:
            yield "has no context entry"
            return
        for requester in self.machine.requesters(bdf):
            if requester not in contexts:
                yield f"has no context entry as {paper.text_of(requester)}"
        if self.machine.functions[bdf].kind() == "usb":
            return      # firmware has handed it over
        for base, limit in self.machine.rmrrs_of(bdf):
            for at in (base & -PAGE, limit & -PAGE):
                if vtd.translate(self.still, contexts[bdf], at) != (at, "rw-"):
                    yield f"does not reach its RMRR at {at:#x}"

    # -- what stays Monocle's

    def stray_ports(self):
        """Open ones that are neither a function's, nor VGA's, nor those of the
        machine's PM timer."""
        good = {*range(0x3b0, 0x3bc), *range(0x3c0, 0x3e0), *range(
            0x1ce, 0x1d1)} if any(
                self.machine.functions[bdf].base_class >> 8 == 3
                for bdf in self.given) else set()
        good |= self.machine.pm_timer()
        for _, _, kind, base, size in self.run.facts("bar"):
            if kind == "ports":
                good |= {int(base, 16) + n for n in range(int(size, 16))}
        for first, last in self._numbers("open"):
            if not good.issuperset(range(first, last + 1)):
                yield f"ports {first:#x}-{last:#x} are open, and nobody's"

    def strays(self):
        """What a function can that the guest is not given."""
        allowed = {r for bdf in self.given
                   for r in self.machine.requesters(bdf)}
        left = {bdf for bdf, f in self.machine.functions.items()
                if f.kind() == "usb" and "usb-firmware" in self.words}
        for unit in self.units.values():
            for bdf in vtd.contexts(self.still, unit.root, unit.width):
                if bdf not in allowed | left:
                    yield f"{paper.text_of(bdf)} has a context entry"
        for text, ident, code in self.run.facts("seen"):
            f = self.machine.functions.get(paper.bdf_of(text))
            if f and code[:2] != "06" and f.bdf not in self.given and \
                    ident == f"{f.vendor:04x}:{f.device:04x}":
                yield f"{text} answers the guest"
        for (text,) in self.run.facts("master"):
            f = self.machine.functions[paper.bdf_of(text)]
            if self.units and not f.is_bridge and f.bdf not in {
                    *self.given, *left}:
                yield f"{text} is bus master"

    def _interrupt(self, f, routes):
        words = next((w[1:] for w in self.run.facts("interrupt")
                      if w[0] == paper.text_of(f.bdf)), None)
        if not words:
            yield "has no interrupt"
            return
        kind, pin, why = words[0], int(words[2]), " ".join(words[3:])
        # Behind no unit it is the plain format that arrives (VT-d 5.1.2.1).
        if why != ("in compatibility format" if self.units and
                   self._is_direct(f.bdf) else "ok"):
            yield f"{kind}: {why}"
        if kind == "line" and not pin and f.get(0x3d, 1):
            yield "has neither message nor line"
        if pin and self.machine.root_pin(f.bdf) not in routes:
            yield "has no entry in _PRT"

    def memory(self):
        """Bytes of RAM that the guest is told of."""
        return sum(r.end - r.gpa for r in self.regions if r.e820 == "ram")


class Row:
    """What came of one machine."""

    def __init__(self, machine):
        self.machine = machine
        self.name = machine.name
        self.outcome = ""
        self.given = {}         # {BDF: kind or "other"}
        self.there = machine.there()
        self.memory = 0
        self.listed = ""
        self.faults = []

    @property
    def starts(self):
        return self.outcome == "starts"

    @property
    def refused(self):
        return self.outcome.startswith("refuses")

    def has_all(self):
        return self.starts and not self.faults and \
            self.there.keys() <= self.given.keys()


def _verdict(run):
    found = VERDICT.search(run.log)
    return found[1] if found else ""


def _outcome(run):
    how = run.end()
    if how != "refused":
        return f"lists: {_verdict(run)}" if how == "ended" else how
    late = "late" if run.facts("changed") else ""
    return f"refuses {late}".strip() + ": " + run.error()


def _unsaid(machine, run, given):
    """Functions that are kept back without a reason."""
    for bdf in machine.there():
        text = paper.text_of(bdf)
        said = re.search(rf"^monocle: .*\bnot {text}\b.*: \S", run.log,
                         re.MULTILINE)
        if bdf not in given and not said:
            yield f"{text} is kept back without a reason"


def _compare_list(row, start, listing, words):
    if listing.end() != "ended":
        row.faults.append(f"list: {listing.end()}")
        return
    row.listed = _verdict(listing)
    if listing.facts("changed"):
        row.faults.append("list changes the machine: " +
                          " ".join(listing.facts("changed")[0]))
    if start.error() != listing.error():
        row.faults.append(f"list says '{listing.error()}' where the start "
                          f"says '{start.error()}'")
    # A refusal comes before the plan; the list goes on without VMX.
    elif start.assigned() != listing.assigned() and not start.error():
        row.faults.append("list names other functions than the start")
    elif "display only" in row.listed and {*row.given.values()} - {"gfx"}:
        row.faults.append("list promises the display only, and the start "
                          "gives more")
    elif not listing.error() and listing.grub() != words:
        row.faults.append(f"list's line for GRUB is {listing.grub()}")


def judge(path, words, runner=Run):
    """The Row of a machine with that command line."""
    machine = paper.Machine(path)
    row = Row(machine)
    words = f"{words} {machine.options}".strip()
    start = runner(path, words)
    listing = runner(path, words + " list")
    row.outcome = _outcome(start)
    if row.starts:
        _judge_start(row, start, words)
    elif not row.refused and start.end() != "ended":
        row.faults.append(row.outcome)
    elif start.facts("changed"):
        row.faults.append("it refuses after a change: " +
                          " ".join(start.facts("changed")[0]))
    _compare_list(row, start, listing, words.split())
    start.close()
    listing.close()
    return row


def _judge_start(row, run, words):
    machine = row.machine
    start = Start(machine, run, words)
    row.given = {bdf: machine.functions[bdf].kind() or "other"
                 for bdf in start.given}
    row.memory = start.memory()
    if run.facts("entry") != [["0"]]:
        row.faults.append("the CPU would not enter the guest")
    row.faults += [*start.walk(), *start.lacks(), *start.strays(),
                   *start.stray_ports(),
                   *(" ".join(words) for words in run.facts("differs"))]
    row.faults += LOST_LINE.findall(run.log)
    if int(run.facts("left")[0][0], 16) < TABLES:
        row.faults.append("too little is left for tables")
    said, is_so = (int(n) for n in run.facts("tsc")[0])
    if abs(said - is_so) > is_so // 100:
        row.faults.append(f"the TSC is taken for {said} Hz, not {is_so}")
    if "assign=all" in words.split():
        row.faults += _unsaid(machine, run, row.given)
