# SPDX-License-Identifier: MIT
"""Functions of a group that the guest is not given, nested: they do nothing,
and nobody answers for them; the one that is given works among them."""
import re

import pytest

from boot import runs
from boot.nested_cases import NVME, SAMPLES, SOUND, XHCI, bdf
from boot.told import (BAR0, DISPLAY, IOAPIC, configs, host, passed,
                       served)
from rigs import result
from walker import boot as walk

BESIDE = SOUND[:-1] + "2"       # edu
COMMAND = 0x04
PMCSR = 0x64                    # of QEMU's nvme
DECODES, MASTER = 0x3, 0x4
D3HOT = 3
NVME_ID, EDU_ID, PLACEHOLDER = 0x00101b36, 0x11e81234, 0x06000000


def check_parked(done):
    """What the machine says of the neighbours, while the given one works."""
    assert host(done, SOUND, COMMAND) & MASTER
    assert host(done, NVME, 0) == NVME_ID
    assert not host(done, NVME, COMMAND) & (MASTER | DECODES)
    assert host(done, NVME, PMCSR) & 3 == D3HOT
    # Of a class that firmware may need: its registers stay, and it is said.
    assert host(done, BESIDE, 0) == EDU_ID
    assert host(done, BESIDE, COMMAND) & (MASTER | DECODES) == DECODES
    warnings = re.findall(r"warning: (.* can reach their registers .*)$",
                          done.log, re.MULTILINE)
    assert len(warnings) == 1
    assert BESIDE in warnings[0] and NVME not in warnings[0]


@pytest.mark.nested("parked")
def test_edu(nested):
    """It works, and its neighbours' configuration spaces are ones; in
    function 0's place is one that does nothing."""
    assert passed(nested("parked")) == ["find", "parked", "bar", "registers",
                                        "dma", "msi"]


@pytest.mark.nested("parked")
def test_they_are_parked(nested):
    check_parked(nested("parked"))


@pytest.mark.nested("parked")
def test_tables(nested):
    """No context entry, no interrupt, and their BARs are not in reach."""
    done = nested("parked")
    still = walk.Still(done.log, done.memory)
    found = walk.check(still)
    assert set(found.contexts) == {bdf(SOUND), DISPLAY, bdf(XHCI)}
    unit, = walk.units(still)
    assert {entry.source for entry in unit.interrupts(still).values()} <= {
        *found.contexts, IOAPIC}
    for function in (BESIDE, NVME):
        bar = host(done, function, BAR0) & ~0xf
        assert bar
        assert not any(hpa <= bar < hpa + size
                       for _, size, hpa, *_ in found.ept)
    # The given one's is there.
    bar = host(done, SOUND, BAR0) & ~0xf
    assert any(hpa <= bar < hpa + size for _, size, hpa, *_ in found.ept)


# -- a sound function

def played(wav):
    """The samples of a file that QEMU records."""
    data = wav.read_bytes()
    assert data[:4] == b"RIFF" and data[36:40] == b"data"
    return data[44:]


def check_sound(done, wav):
    """All samples arrived in their order, none twice, none between."""
    assert "sound: done" in done.serial, done.report()
    assert SAMPLES in played(wav)
    count = (served(done, "sound-after", "snd_hda_intel") -
             served(done, "sound-before", "snd_hda_intel"))
    assert count >= len(SAMPLES) // 4 // 4800   # one for each period


@pytest.mark.long
@pytest.mark.runs("tcg-sound")
def test_sound_natively(run):
    """The device and the player are right."""
    done = run("tcg-sound")
    check_sound(done, runs.work("tcg.wav"))
    assert f"function: {BESIDE}" in done.serial


@pytest.mark.long
@pytest.mark.nested("sound")
def test_sound(nested):
    """Debian's driver streams."""
    done = nested("sound")
    assert done.status == result.POWER_OFF, done.report()
    check_sound(done, done.files["sound.wav"])


@pytest.mark.long
@pytest.mark.nested("sound")
def test_neighbours_of_the_sound(nested):
    """Parked meanwhile; Debian finds the placeholder, and not the other."""
    done = nested("sound")
    check_parked(done)
    assert f"function: {SOUND}" in done.serial
    assert f"function: {BESIDE}" not in done.serial
    placeholder = configs(done, last=False)[NVME]
    assert placeholder[0] not in (NVME_ID, 0xffffffff)
    assert placeholder[8] == PLACEHOLDER
    assert not any(placeholder[at] for at in range(0x10, 0x28, 4))
