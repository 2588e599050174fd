# SPDX-License-Identifier: MIT
"""What a guest under test and Monocle's log tell, and what the disks hold."""
import hashlib
import re
import struct
import subprocess

from boot.nested_cases import (AHCI, BEHIND, NVME, ROOT_AHCI, ROOT_NVME, USB,
                               XHCI, payload, space)
from rigs import result

EDU, DISPLAY, IOAPIC = 0x0028, 0x0010, 0xff00   # requester IDs
NOISE = 20      # exits by the host's own timers
BAR0 = 0x10
IMAGES = {NVME: "nvme", BEHIND: "nvme", AHCI: "ahci", USB: "usb",
          XHCI: "usb", ROOT_AHCI: "ahci", ROOT_NVME: "nvme"}
E2FSCK, DEBUGFS = "/sbin/e2fsck", "/sbin/debugfs"


def passed(done, what="edu"):
    """Names of the guest's tests that passed; it must have said 0."""
    assert done.status == result.POWER_OFF, done.report()
    return re.findall(rf"^{what}-(\S+): ok$", done.serial, re.MULTILINE)


def starts(log):
    """{function: [configuration at each start of the guest]}."""
    found = {}
    for at, digest in re.findall(
            r"(\S+) starts: .*configuration (\w+)$", log, re.MULTILINE):
        found.setdefault(at, []).append(digest)
    return found


def host(done, function, offset):
    """A dword of a configuration space, from outside."""
    at, _ = space(function)
    return struct.unpack("<I", done.memory(at + offset, 4))[0]


# -- tests/guests/tasks

def said(done, what):
    """What stands behind "NAME: WHAT" in the guest's output."""
    found = re.search(rf"^{re.escape(what)} (.+)$", done.serial, re.MULTILINE)
    assert found, f"no {what!r}\n{done.report()}"
    return found[1]


def md5(data):
    return hashlib.md5(data).hexdigest()


def check_disk(done, at):
    """Read, written, read again, as the guest says."""
    read = said(done, f"{at}: payload")
    assert read == md5(payload(IMAGES[at]).read_bytes())
    assert said(done, f"{at}: wrote") == said(done, f"{at}: written")


def contents(image, name):
    """A file on an image, whose file system is in order."""
    subprocess.run([E2FSCK, "-fn", image], check=True, capture_output=True)
    return subprocess.run([DEBUGFS, "-R", f"cat {name}", image], check=True,
                          capture_output=True).stdout


def check_image(done, at, drive):
    """What the guest wrote is on the host's side."""
    written = contents(done.files[drive], "written")
    assert md5(written) == said(done, f"{at}: wrote")


def served(done, when, name):
    """Interrupts so far of the lines whose name begins so."""
    return sum(map(int, re.findall(rf"^irq {when}: +(\d+) .* {name}\S*$",
                                   done.serial, re.MULTILINE)))


def configs(done, last):
    """{function: {offset: dword}}: of the first or the last time."""
    found = {}
    parts = re.split(r"^config (\S+):\n", done.serial, flags=re.MULTILINE)
    for at, text in zip(parts[1::2], parts[2::2]):
        if at in found and not last:
            continue
        found[at], row, before = {}, None, 0
        for line in text.splitlines():
            if line == "*":
                continue
            match = re.fullmatch(r"([0-9a-f]{6,7})((?: [0-9a-f]{8})*) *", line)
            if not match:
                break
            start = int(match[1], 16)
            while row and before < start:       # "*"
                found[at].update((before + i, n) for i, n in row.items())
                before += 16
            row = {4 * i: int(n, 16)
                   for i, n in enumerate(match[2].split())}
            found[at].update((start + i, n) for i, n in row.items())
            before = start + 16
    return found
