#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Compares what two runs did to the stand-in: compare.py LOG LOG.

Writes behind BAR 0 must come in the same order with the same values, up to
what LOOPS and LANES name; writes to the page table there with the same offsets and
flags, for the pages themselves lie where a run has its memory. Of
configuration writes those may arrive that POLICY lets through.
"""
import dataclasses
import difflib
import sys

PRIME, WORD = 0x100000001b3, 1 << 64    # of the page table's hashes


def between(first, last):
    """A set of register offsets."""
    return range(first, last + 1, 4)


# How writes that depend on time count: "drop": not at all; "once": a
# sequence of at most PERIOD of them that repeats itself counts once.
PERIOD = 12
LOOPS = (
    ("forcewake", "drop", (0xa278, 0xa188, 0xa270),
     "a timer releases it, between any two other writes"),
    ("AUX", "once", (*between(0x64010, 0x64024), *between(0x64110, 0x64124),
                     *between(0x64210, 0x64224), *between(0x64310, 0x64324)),
     "retries until a time is over"),
    ("GMBUS and GPIO", "once", between(0xc5010, 0xc5120),
     "retries until a time is over; bits of a bus clocked by hand"),
    ("mailbox", "once", (0x138124, 0x138128, 0x13812c),
     "asked again until the answer is right or a time is over"),
)
# Registers that another thread of the driver writes, between any two writes of
# the first: each lane is compared by itself.
ENGINES = (0x2000, 0x12000, 0x1a000, 0x22000)
LANES = (
    ("submission", [base + at for base in ENGINES for at in (0xa8, 0x230)],
     "i915's tasklet hands a request to an engine (ELSP) and opens the "
     "engine's interrupts (IMR)"),
)
# Configuration registers of 00:02.0 by name, and whether a guest's writes may
# arrive. What is not named: no.
POLICY = (
    ("COMMAND", range(0x04, 0x06), True),
    ("BAR", range(0x10, 0x28), False),
    ("ROM BAR", range(0x30, 0x34), False),
    ("BDSM", range(0x5c, 0x60), False),
    ("BDSM", range(0xc0, 0xc8), False),
    ("SWSCI", range(0xe8, 0xea), False),
    ("ASLS", range(0xfc, 0x100), False),
)


@dataclasses.dataclass(frozen=True)
class Event:
    """A line of the log: "mw", offset, bytes, value; gw has hashes."""
    kind: str
    words: tuple = ()

    def __str__(self):
        return " ".join([self.kind, *(f"{word:x}" for word in self.words)])


@dataclasses.dataclass
class Log:
    """One run."""
    events: list = dataclasses.field(default_factory=list)
    totals: dict = dataclasses.field(default_factory=dict)
    hot: dict = dataclasses.field(default_factory=dict)
    complete: bool = False      # neither cut nor broken off

    def since(self, mark):
        """The same from behind the last event that reads `mark`."""
        at = max(n for n, event in enumerate(self.events)
                 if str(event) == mark)
        return dataclasses.replace(self, events=self.events[at + 1:])

    def until(self, mark):
        """The same before the first event that reads `mark`."""
        at = next(n for n, event in enumerate(self.events)
                  if str(event) == mark)
        return dataclasses.replace(self, events=self.events[:at])

    def of(self, *kinds):
        """Events of some kinds."""
        return [event for event in self.events if event.kind in kinds]


def parse(text):
    """A Log out of the stand-in's file."""
    log, cut = Log(), False
    for line in text.splitlines():
        kind, *words = line.split()
        if kind == "total":
            log.totals = {name: int(count, 16)
                          for name, count in zip(words[::2], words[1::2])}
        elif kind == "hot":
            log.hot[int(words[0], 16)] = int(words[1], 16)
        elif kind in ("cut", "end"):
            cut |= kind == "cut"
            log.complete = kind == "end" and not cut
        else:
            times = 1
            if "x" in words:
                times = int(words[-1], 16)
                words = words[:-2]
            event = Event(kind, tuple(int(word, 16) for word in words))
            log.events += [event] * times
    return log


def joined(first, second):
    """Two bursts of the page table's writes as one."""
    at, count, *hashes = first.words
    _, more, *others = second.words
    shift = pow(PRIME, more, WORD)
    return Event("gw", (at, count + more, *(
        (a * shift + b) % WORD for a, b in zip(hashes, others))))


def loop_of(event):
    """(name, how) of the loop that a write belongs to, or None."""
    for name, how, offsets, _ in LOOPS:
        if event.kind == "mw" and event.words[0] in offsets:
            return name, how
    return None


def without_repeats(events):
    """Sequences of one loop, each repeated sequence once."""
    kept = []
    for event in events:
        kept.append(event)
        loop = loop_of(event)
        for period in range(1, PERIOD + 1):
            last = kept[-period:]
            if loop and kept[-2 * period:-period] == last and \
                    all(loop_of(e) == loop for e in last):
                del kept[-period:]
                break
    return kept


def lane_of(event):
    """The lane that a write belongs to, or None."""
    return next((name for name, offsets, _ in LANES
                 if event.kind == "mw" and event.words[0] in offsets), None)


def writes(log, lane=None):
    """What is compared, of one lane: [Event]."""
    kept = []
    for event in log.of("mw", "gw"):
        if lane_of(event) != lane:
            continue
        loop = loop_of(event)
        if loop and loop[1] == "drop":
            continue
        if event.kind == "gw" and kept and kept[-1].kind == "gw":
            kept[-1] = joined(kept[-1], event)
        else:
            kept.append(event)
    # The last hash is of the pages' addresses.
    return without_repeats([
        Event("gw", e.words[:4]) if e.kind == "gw" else e for e in kept])


def difference(one, other):
    """The first difference of a lane in words, or None."""
    for lane in None, *(name for name, _, _ in LANES):
        text = difference_of(*([str(event) for event in writes(log, lane)]
                               for log in (one, other)))
        if text:
            return f"{lane}: {text}" if lane else text
    return None


def difference_of(a, b, context=6):
    """The first difference of two lists, with what is around it, or None."""
    for n, (left, right) in enumerate(zip(a, b)):
        if left != right:
            break
    else:
        if len(a) == len(b):
            return None
        n = min(len(a), len(b))
    begin, end = max(0, n - context), n + context
    lines = difflib.unified_diff(a[begin:end], b[begin:end], "one", "other",
                                 lineterm="", n=2 * context)
    return "\n".join([f"write {n} of {len(a)} and {len(b)} differs:", *lines])


def config_writes(log):
    """[(register's name, may it arrive?, Event)]."""
    named = []
    for event in log.of("cw"):
        name, allowed = next(((name, allowed) for name, offsets, allowed in
                              POLICY if event.words[0] in offsets),
                             (f"{event.words[0]:02x}", False))
        named.append((name, allowed, event))
    return named


def main(paths):
    """0: alike."""
    logs = []
    for path in paths:
        with open(path, encoding="ascii") as file:
            logs.append(parse(file.read()))
    for path, log in zip(paths, logs):
        print(f"{path}: {len(writes(log))} writes compared, of "
              f"{log.totals.get('mw', 0)} and {log.totals.get('gw', 0)} to "
              f"the page table{'' if log.complete else '; not complete'}")
    text = difference(*logs)
    print(text or "no difference")
    return bool(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
