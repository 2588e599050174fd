# SPDX-License-Identifier: MIT
"""Debian's own drivers in the guest, nested, each with real work.

What is done is tests/guests/tasks; the same runs on the tcg rig without
Monocle, which says that the tasks are right, and what the configuration
spaces look like there.
"""
import re

import pytest

from boot.nested_cases import (AHCI, BEHIND, DISKS, NET, NVME, READS,
                               RESETS, ROOT_AHCI, ROOT_NVME, SENT_BACK, USB,
                               payload)
from boot.told import (IMAGES, check_disk, check_image, configs, contents, md5,
                       said, served, starts)
from rigs import result
from rigs.spec import REPOSITORY

NOISE = 100         # interrupts of the host's own
IO_OF_LINUX = 200   # its serial line still sends what was printed before
QUEUE = {NVME: "nvme0q1", AHCI: "ahci", USB: "xhci_hcd"}
POLICY = REPOSITORY / "vmm" / "devmodel" / "pci_assigned.c"
NUMBERS = REPOSITORY / "drivers" / "pci" / "pci.h"


@pytest.mark.runs("tcg-drivers")
@pytest.mark.long
def test_tasks_natively(run):
    """On the machine without Monocle everything works."""
    done = run("tcg-drivers")
    assert "tasks: all done" in done.serial, done.report()
    for at in DISKS:
        check_disk(done, at)
    for mode in (0, 2):
        check_network(done, mode)


@pytest.mark.long
@pytest.mark.nested("nvme-behind-a-port")
def test_nvme_behind_a_port(nested):
    """A disk, its ext4, MSI-X; before, the guest has it reset: that is done."""
    done = nested("nvme-behind-a-port")
    assert done.status == result.POWER_OFF, done.report()
    assert re.findall(r"^flr: (.*?)\s*$", done.serial, re.MULTILINE) == [
        "flr bus, CSTS 0x00000001", "done, CSTS 0x00000000"]
    check_disk(done, BEHIND)
    check_image(done, BEHIND, "drive0")
    assert served(done, BEHIND, "nvme0q1") > 0


@pytest.mark.long
@pytest.mark.nested("root-buses")
@pytest.mark.parametrize("at, drive, queue", [
    (ROOT_AHCI, "drive0", "ahci"), (ROOT_NVME, "drive1", "nvme0q1")])
def test_a_disk_on_another_root_bus(nested, at, drive, queue):
    """Each behind a port that stands on it."""
    done = nested("root-buses")
    assert done.status == result.POWER_OFF, done.report()
    check_disk(done, at)
    check_image(done, at, drive)
    assert served(done, at, queue) > 0


# With all that is done, and in the short suite.
CASES = pytest.mark.parametrize("name", [
    pytest.param("devices", marks=pytest.mark.nested("devices")),
    pytest.param("drivers", marks=[pytest.mark.nested("drivers"),
                                   pytest.mark.long])])


@CASES
@pytest.mark.parametrize("at", DISKS, ids=IMAGES.get)
def test_disk(nested, name, at):
    """nvme, AHCI and USB storage, by interrupts."""
    done = nested(name)
    assert done.status == result.POWER_OFF, done.report()
    check_disk(done, at)
    check_image(done, at, f"drive{list(DISKS).index(at)}")
    assert served(done, at, QUEUE[at])


def check_network(done, mode):
    wanted = md5(payload("net").read_bytes())
    assert said(done, f"net{mode}: got") == wanted


@CASES
def test_network(nested, name):
    """Ten megabytes come, and one goes back."""
    done = nested(name)
    check_network(done, 2)
    sent = done.files["received"].read_bytes()
    assert sent == payload("net").read_bytes()[:SENT_BACK]


@pytest.mark.long
@pytest.mark.nested("drivers")
def test_network_by_intx(nested):
    check_network(nested("drivers"), 0)


@pytest.mark.long
@pytest.mark.nested("drivers")
def test_two_at_once(nested):
    """The network, while the disk is read."""
    done = nested("drivers")
    assert said(done, "both: got") == said(done, "net2: got")
    assert said(done, "both: disk")


@pytest.mark.long
@pytest.mark.nested("drivers")
@pytest.mark.parametrize("when, what, name", [
    ("net2-after", "PCI-MSI", "eth0-rx-0"),
    ("net2-after", "PCI-MSI", "eth0-tx-0"),
    (NVME, "PCI-MSI", "nvme0q0"), (NVME, "PCI-MSI", "nvme0q1"),
    (AHCI, "PCI-MSI", rf"ahci\[0000:{AHCI}\]"), (USB, "PCI-MSI", "xhci_hcd"),
    ("net0-after", "IO-APIC", "eth0")],
    ids=lambda text: re.sub(r"[^\w-]", "", text))
def test_interrupts(nested, when, what, name):
    """Of the kind that the driver was to use: MSI-X where a function has
    several messages, MSI with AHCI, INTx."""
    found = re.search(rf"^irq {when}: +(\d+) +(IR-)?{what} .* {name}$",
                      nested("drivers").serial, re.MULTILINE)
    assert found and int(found[1]) > 0


def statistics(done, when):
    """{reason: exits} by monoclectl in the guest."""
    return {name.strip(): int(count) for name, count in re.findall(
        rf"^stats {when}: (.{{24}}) +(\d+) +\d+ +\d+$", done.serial,
        re.MULTILINE)}


@pytest.mark.long
@pytest.mark.nested("drivers")
@pytest.mark.parametrize("what, name, at_least", [
    ("steady", "nvme0q1", READS), ("net2", "eth0", 1000)])
def test_steady_state(nested, what, name, at_least):
    """A driver at work: interrupts, and accesses that Monocle does not see."""
    done = nested("drivers")
    before, after = (statistics(done, f"{what}-{when}")
                     for when in ("before", "after"))
    spent = {reason: after[reason] - before.get(reason, 0)
             for reason in after}
    count = (served(done, f"{what}-after", name) -
             served(done, f"{what}-before", name))
    assert count >= at_least
    assert spent["EPT violation"] == 0, spent
    assert spent["I/O"] <= IO_OF_LINUX, spent
    assert spent["external interrupt"] <= count + NOISE, spent


# -- configuration space


def policy():
    """[(first, last, policy)] of the header, as the table has it."""
    return [(int(first, 16), int(last, 16), kind) for first, last, kind in
            re.findall(r"^\t\{0x(\w\w), 0x(\w\w), PCI_(\w+),",
                       POLICY.read_text(), re.MULTILINE)]


# Dwords of offered capabilities whose state is the driver's, and sizes.
POWER, MSI, EXPRESS, MSIX = 0x01, 0x05, 0x10, 0x11
STATE = {POWER: {4}, MSI: {0, 4, 8, 12, 16}, EXPRESS: {8, 16}, MSIX: {0}}
SIZES = {POWER: 8, MSI: 24, EXPRESS: 60, MSIX: 12}
NEXT = 0xff00


def capabilities(space):
    """{offset: (ID, bytes)} of the native list."""
    found, at = {}, space[0x34] & 0xfc
    while at and at not in found:
        found[at] = space[at] & 0xff, SIZES.get(space[at] & 0xff, 8)
        at = space[at] >> 8 & 0xfc
    return found


def offered():
    """IDs of the capabilities that a guest sees."""
    numbers = dict(re.findall(r"(PCI_CAP_\w+) = (0x\w+)",
                              NUMBERS.read_text()))
    return {int(numbers[name], 16) for name in re.findall(
        r"^\t\{(PCI_CAP_\w+), \d+,", POLICY.read_text(), re.MULTILINE)}


def named(space, offset, bits):
    """Why these bits of a dword may differ from the native ones, or None."""
    if offset >= 0x100:
        return "extended space: not offered"
    for at, (number, size) in capabilities(space).items():
        if not at <= offset < at + size:
            continue
        if number not in offered():
            return f"capability {number:#x}: not offered"
        if offset - at in STATE.get(number, ()):
            return f"capability {number:#x}: emulated, or writes drop"
        return "the next one is another" if at == offset and \
            not bits & ~NEXT else None
    kind, = (kind for first, last, kind in policy() if first <= offset <= last)
    return None if kind == "READ_THROUGH" or 0x10 <= offset < 0x28 else kind


@pytest.mark.long
@pytest.mark.runs("tcg-drivers")
@pytest.mark.nested("drivers")
@pytest.mark.parametrize("last", [False, True], ids=["fresh", "in use"])
@pytest.mark.parametrize("at", [NET, *DISKS], ids=lambda at: at)
def test_configuration(run, nested, at, last):
    """Equals the native one but for the rows that the policy names; BARs
    are where the host has them."""
    native = configs(run("tcg-drivers"), last)[at]
    ours = configs(nested("drivers"), last)[at]
    assert len(ours) >= 64 and ours.keys() <= native.keys()
    different = {offset: (f"{native[offset]:08x}", f"{ours[offset]:08x}",
                          named(native, offset,
                                native[offset] ^ ours[offset]))
                 for offset in ours if ours[offset] != native[offset]}
    for offset, row in different.items():
        print(f"{at} {offset:#04x}: native {row[0]}, guest {row[1]}: {row[2]}")
    assert all(why for _, _, why in different.values()), different


# -- resets

@pytest.mark.long
@pytest.mark.nested("linux-resets")
def test_resets_under_load(nested):
    """Debian is reset while its disk is read; each life finds its disk."""
    done = nested("linux-resets")
    assert done.status == result.POWER_OFF, done.report()
    lives = RESETS["linux"] + 1
    wanted = md5(payload("nvme").read_bytes())
    for n in range(lives):
        assert said(done, f"resets {n}: payload") == wanted
    assert len(re.findall(rf"{NVME} starts: reset FLR,", done.log)) == lives
    for at, digests in starts(done.log).items():
        assert len(digests) == lives and len(set(digests)) == 1, at
    assert contents(done.files["drive0"], "resets") == b"%d\n" % (lives - 1)
