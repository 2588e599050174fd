# SPDX-License-Identifier: MIT
"""Intel graphics played by tests/igd/standin.c at 00:02.0.

Natively first: Debian's unmodified i915 binds to it, with an OpRegion and
stolen memory where SeaBIOS puts them. That is what Monocle's guest is
measured by.
"""
import re

import pytest

import rigs
from boot import runs
from igd import compare, config, opregion
from rigs.spec import BUILD, Igd

INITRD = BUILD / "guest" / "initrd-i915.img"
CONFIG = "gen9-small"
# One output, on whatever hangs there; the console stays off the framebuffer,
# each write to which would be a message. With nopv the kernel takes no
# hypervisor for one that it knows, and so no IOMMU for active.
APPEND = ("i915.force_probe=* nopv intel_iommu=off fbcon=map:9 "
          "video=HDMI-A-1:1024x768@60e")
LOAD = "while read -r m; do insmod /lib/$m; done </lib/modules.drm"
# Time that the guest spends waiting is skipped.
QEMU = ("-icount", "shift=1,sleep=off")
QUESTIONS = {
    "dmesg": "dmesg -r",
    "framebuffer": "cat /sys/class/graphics/fb0/name",
    "driver": "basename $(readlink -f /sys/bus/pci/devices/0000:00:02.0/"
              "driver)",
    "opregion": "hexdump -v -e '1/1 \"%02x\"' "
                "/sys/kernel/debug/dri/0/i915_opregion",
    "vbt": "hexdump -v -e '1/1 \"%02x\"' /sys/kernel/debug/dri/0/i915_vbt",
}


def igd(name=CONFIG, table=None):
    """What the rig plays."""
    size = config.load(name).number("dsm", 1) or 0
    return Igd(config.for_firmware(name), table or opregion.build(), size)


def native():
    """{question: answer} and the Result, on tcg."""
    answers = {}
    with rigs.start(rig="tcg", native=True, initrd=str(INITRD), igd=igd(),
                    append=APPEND, qemu=QEMU,
                    timeout=runs.TIMEOUT) as machine:
        machine.wait_for(rigs.DEMO_READY, runs.TIMEOUT)
        machine.wait_for("demo# ", runs.TIMEOUT)
        machine.command(LOAD, runs.TIMEOUT)
        machine.command("mount -t debugfs d /sys/kernel/debug", runs.TIMEOUT)
        for name, question in QUESTIONS.items():
            answers[name] = machine.command(question, runs.TIMEOUT)
        machine.send("poweroff -f\n")
        return answers, machine.finish()


runs.define("igd-native")(native)
runs.define("igd-native-again")(native)


@pytest.mark.runs("igd-native")
def test_i915_binds(run):
    """No warning, a framebuffer."""
    answers, result = run("igd-native")
    assert result.status == 0, result.report()
    assert re.search(r"Initialized i915 .* for 0000:00:02\.0",
                     answers["dmesg"])
    assert answers["driver"].strip() == "i915"
    assert answers["framebuffer"].strip() == "i915drmfb"
    # The device raises no interrupts.
    complaints = [line for line in answers["dmesg"].splitlines()
                  if re.search(r"WARNING|\*ERROR\*", line) and
                  not line.endswith("timed out")]
    assert not complaints


@pytest.mark.runs("igd-native")
def test_firmware_places_opregion_and_stolen_memory(run):
    """It writes ASLS and BDSM, once each; Linux reserves what they say."""
    answers, result = run("igd-native")
    log = compare.parse(result.device)
    assert log.complete
    written = {name: [e.words[2] for n, _, e in compare.config_writes(log)
                      if n == name] for name in ("ASLS", "BDSM")}
    (asls,), (bdsm,) = written["ASLS"], written["BDSM"]
    assert asls % 4096 == 0 and bdsm % (1 << 20) == 0
    assert f"Reserving Intel graphics memory at [mem {bdsm:#010x}-" \
        f"{bdsm + (4 << 20) - 1:#010x}]" in answers["dmesg"]


@pytest.mark.runs("igd-native")
def test_driver_reads_the_opregion(run):
    """All of it as it was given to the firmware, but for the mailboxes, in
    which i915 writes."""
    answers, _ = run("igd-native")
    region, read = (opregion.build(), bytes.fromhex(answers["opregion"]))
    assert len(read) == len(region) == 8192
    assert read[:0x100] == region[:0x100]
    assert read[0x400:] == region[0x400:]
    assert bytes.fromhex(answers["vbt"]).rstrip(b"\0") == \
        opregion.vbt().rstrip(b"\0")


@pytest.mark.long
@pytest.mark.runs("igd-native", "igd-native-again")
def test_native_runs_are_alike(run):
    """What is compared with Monocle's run is the same in each native one."""
    one, other = (compare.parse(run(name)[1].device)
                  for name in ("igd-native", "igd-native-again"))
    assert len(compare.writes(one)) > 1000
    assert compare.difference(one, other) is None
