# SPDX-License-Identifier: MIT
"""The whole system, nested: an assigned function in the guest's hands.

The guest (tests/guests/edu.c) drives QEMU's edu by configuration space, BAR,
DMA, MSI and INTx; its memory is not where the guest thinks it is, so DMA that
were not remapped would bring other bytes. All cases run in one Linux.
"""
import re

import pytest

from rigs import nested, result
from rigs.nested import Case
from rigs.spec import BUILD, Spec
from walker import boot as walk

pytestmark = [pytest.mark.nested, pytest.mark.long]

GUEST = str(BUILD / "guests" / "guest.elf")
EDU, DISPLAY, IOAPIC = 0x0028, 0x0010, 0xff00   # requester IDs
TESTS = ("find", "bar", "registers", "bar-moves", "dma", "dma-pages",
         "dma-far", "msi", "msi-off", "intx")
# Ticks of 10 ns, in which the machine is looked at.
HOLD = 200_000_000
STEADY = {"interrupts": 1000, "accesses": 10000}
NOISE = 20      # exits by the host's own timers in such a run


def edu(append="edu", hv="assign=00:05.0", **fields):
    """A run of the tiny guest."""
    return Spec(rig="nested", kernel=GUEST, append=append, hv=f"debug {hv}",
                memory=128, timeout=60, **fields)


def steady(interrupts, accesses):
    """The same guest with other numbers."""
    return edu(f"edu-steady interrupts={interrupts} accesses={accesses}")


CASES = {
    "native": edu(hv="", native=True),
    "relocated": Case(edu(f"edu hold={HOLD}"), dump_at="edu: 0 failed"),
    "identity": edu(hv="assign=1234:11e8 ram=identity"),
    "steady": steady(10, 10),
    "interrupts": steady(10 + STEADY["interrupts"], 10),
    "accesses": steady(10, 10 + STEADY["accesses"]),
    "twice": edu(hv="assign=00:05.0 assign=class=00ff"),
    "absent": edu(hv="assign=00:1d.0"),
    "bridge": edu(hv="assign=00:1f.0"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """All cases."""
    done = nested.run(CASES.values(), say=print,
                      keep=tmp_path_factory.mktemp("nested"))
    return dict(zip(CASES, done))


def passed(done):
    """Names of the guest's tests that passed; it must have said 0."""
    assert done.status == result.POWER_OFF, done.report()
    return re.findall(r"^edu-(\S+): ok$", done.serial, re.MULTILINE)


def test_guest_natively(results):
    """The guest is right: it passes on the same machine by itself."""
    assert tuple(passed(results["native"])) == TESTS


@pytest.mark.parametrize("name", ["relocated", "identity"])
def test_edu(results, name):
    """An unmodified driver's every step works under Monocle."""
    found = passed(results[name])
    assert set(found) == {*TESTS, "dma-denied"}


def test_memory_is_elsewhere(results):
    """Else the DMA of the test before has shown nothing."""
    regions = walk.parse_regions(results["relocated"].log)
    ram = [r for r in regions if r.kind == "ram"]
    assert ram and all(r.gpa != r.hpa for r in ram)


def test_denied_dma_is_told(results):
    """Both directions, with requester and address."""
    faults = re.findall(r"fault \d+ of (\S+) .*: (read|write) 0x([0-9a-f]+):",
                        results["relocated"].log)
    assert ("00:05.0", "write", "d0000000") in faults
    assert {fault[::2] for fault in faults} == {("00:05.0", "d0000000")}


def test_tables(results):
    """What edu and the CPU reach is what the region list says."""
    done = results["relocated"]
    still = walk.Still(done.log, done.memory)
    found = walk.check(still)
    assert {EDU, DISPLAY} == set(found.contexts)
    unit, = walk.units(still)
    entries = unit.interrupts(still).values()
    assert any(entry.source == EDU for entry in entries)
    assert {entry.source for entry in entries} <= {EDU, IOAPIC}


def exits(done):
    """{what: number} of the run's statistics."""
    assert done.status == result.POWER_OFF, done.report()
    found = {name.strip(): int(count) for name, count in re.findall(
        r"stats: (.{26,}?) +(\d+) exits +\d+ ticks", done.log)}
    found["all"] = int(re.search(r"stats: (\d+) exits", done.log)[1])
    return found


def test_exits_for_interrupts(results):
    """At most two for each, delivery and EOI together."""
    before, after = (exits(results[name])["all"]
                     for name in ("steady", "interrupts"))
    count = STEADY["interrupts"]
    assert count <= after - before <= 2 * count + NOISE


def test_exits_for_accesses(results):
    """None for the BAR's registers."""
    before, after = (exits(results[name])["all"]
                     for name in ("steady", "accesses"))
    assert abs(after - before) <= NOISE


@pytest.mark.parametrize("name, why", [
    ("twice", "is named twice"), ("absent", "no such function"),
    ("bridge", "is a bridge")])
def test_refusal(results, name, why):
    """One line, and status 4."""
    done = results[name]
    assert done.status == result.REFUSED, done.report()
    errors = [line for line in done.log.splitlines() if "error:" in line]
    assert len(errors) == 1 and why in errors[0], done.report()
