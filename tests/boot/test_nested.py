# SPDX-License-Identifier: MIT
"""The whole system, nested: an assigned function in a tiny guest's hands.

The guest (tests/guests/edu.c) drives QEMU's edu by configuration space, BAR,
DMA, MSI and INTx; its memory is not where the guest thinks it is, so DMA that
were not remapped would bring other bytes. Cases: nested_cases.py.
"""
import re

import pytest

from boot import runs
from boot.nested_cases import AHCI, NET, NVME, RESETS, USB, bdf
from boot.told import DISPLAY, EDU, IOAPIC, NOISE, passed, starts
from rigs import result
from walker import boot as walk

TESTS = ("find", "bar", "registers", "bar-moves", "dma", "dma-pages",
         "dma-far", "msi", "msi-off", "intx")
MONOCLE_TESTS = ("dma-denied", "steady")


def each(*names, short=()):
    """Parameters: cases, each marked with itself."""
    return [pytest.param(name, marks=[
        pytest.mark.nested(name),
        *([] if name in short else [pytest.mark.long])]) for name in names]


@pytest.mark.long
@pytest.mark.nested("native")
def test_guest_natively(nested):
    """The guest is right: it passes on the same machine by itself."""
    assert tuple(passed(nested("native"))) == TESTS


@pytest.mark.parametrize("name", each("relocated", "identity", "x2apic", "gsi",
                                      "many", "behind-a-port",
                                      short=("relocated",)))
def test_edu(nested, name):
    """An unmodified driver's every step works under Monocle."""
    found = passed(nested(name))
    assert set(found) == {*TESTS, *MONOCLE_TESTS}


@pytest.mark.nested("relocated")
def test_memory_is_elsewhere(nested):
    """Else the DMA of the test before has shown nothing."""
    regions = walk.parse_regions(nested("relocated").log)
    ram = [r for r in regions if r.kind == "ram"]
    assert ram and all(r.gpa != r.hpa for r in ram)


@pytest.mark.nested("relocated")
def test_denied_dma_is_told(nested):
    """Both directions, with requester and address."""
    faults = re.findall(r"fault \d+ of (\S+) .*: (read|write) 0x([0-9a-f]+):",
                        nested("relocated").log)
    assert ("00:05.0", "write", "d0000000") in faults
    assert {fault[::2] for fault in faults} == {("00:05.0", "d0000000")}


CONTEXTS = {"relocated": {EDU, DISPLAY}, "identity": {EDU},
            "many": {EDU, DISPLAY, *map(bdf, (NVME, NET, AHCI, USB))}}


@pytest.mark.parametrize("name", each(*CONTEXTS, short=("relocated",)))
def test_tables(nested, name):
    """What devices and the CPU reach is what the region list says."""
    done = nested(name)
    still = walk.Still(done.log, done.memory)
    found = walk.check(still)
    assert CONTEXTS[name] == set(found.contexts)
    unit, = walk.units(still)
    entries = unit.interrupts(still).values()
    assert any(entry.source == EDU for entry in entries)
    assert {entry.source for entry in entries} <= {*CONTEXTS[name], IOAPIC}


@pytest.mark.long
@pytest.mark.nested("x2apic", "many")
def test_extended_interrupt_mode(nested):
    """Where firmware left x2APIC mode on, and where not: the unit follows,
    and test_edu's interrupts have arrived."""
    for name, mode in (("x2apic", "x2APIC"), ("many", "xAPIC")):
        assert re.search(rf"interrupt table .* {mode}$", nested(name).log,
                         re.MULTILINE)


@pytest.mark.parametrize("name, what, at_least", [
    pytest.param("relocated", "accesses", 10000,
                 marks=pytest.mark.nested("relocated")),
    pytest.param("relocated", "transfers", 4,
                 marks=pytest.mark.nested("relocated")),
    pytest.param("ahci", "ports", 10000,
                 marks=[pytest.mark.nested("ahci"), pytest.mark.long])])
def test_no_exits(nested, name, what, at_least):
    """The steady state has none for registers, ports and DMA."""
    number, exits, ports, mmio = runs.counted(nested(name), what)
    assert number >= at_least and ports == mmio == 0
    assert exits <= NOISE


@pytest.mark.nested("relocated")
def test_exits_for_interrupts(nested):
    """At most two for each, delivery and EOI together."""
    number, exits, ports, mmio = runs.counted(nested("relocated"), "interrupts")
    # The EOI's is one for MMIO: the guest is in xAPIC mode.
    assert number >= 1000 and ports == 0 and mmio <= number
    assert number <= exits <= 2 * number + NOISE


@pytest.mark.long
@pytest.mark.nested("ahci")
def test_ports(nested):
    """A BAR of ports is the guest's, and closes when it is switched off."""
    assert passed(nested("ahci"), "ahci") == [
        "find", "registers", "steady", "ports-close"]


@pytest.mark.long
@pytest.mark.nested("resets")
def test_resets_under_load(nested):
    """Each life finds the function as the first one did."""
    done = nested("resets")
    assert done.status == result.POWER_OFF, done.report()
    lives = re.findall(r"^edu-resets: (\d+): (.*)$", done.serial,
                       re.MULTILINE)
    assert [int(n) for n, _ in lives] == list(range(RESETS["tiny"] + 1))
    assert len({seen for _, seen in lives}) == 1, lives
    digests = starts(done.log)["00:05.0"]
    assert len(digests) == len(lives) and len(set(digests)) == 1


@pytest.mark.parametrize("name, why", [
    pytest.param(name, why, marks=[pytest.mark.nested(name),
                                   pytest.mark.long])
    for name, why in (("twice", "is named twice"),
                      ("absent", "no such function"),
                      ("bridge", "is a bridge"),
                      ("uart", "is a serial port"),
                      ("no-unit", "is behind no IOMMU"),
                      ("group", "cannot be isolated from 00:06.0;"))])
def test_refusal(nested, name, why):
    """One line, and status 4."""
    done = nested(name)
    assert done.status == result.REFUSED, done.report()
    errors = [line for line in done.log.splitlines() if "error:" in line]
    assert len(errors) == 1 and why in errors[0], done.report()
