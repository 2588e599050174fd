# SPDX-License-Identifier: MIT
"""Sessions with Debian's Linux: what a user would type, and what came."""
import dataclasses
import re

import rigs
from boot import runs
from rigs.spec import DEMO_INITRD_DRM

READY = rigs.DEMO_READY
TIMEOUT = 600
REBOOTS = 3
# What is asked at the first shell.
QUESTIONS = {
    "sum": "echo $((6*7))",
    "dmesg": "dmesg",
    "complaints": "dmesg -r | grep '^<[0-4]>'",
    "date": "date -u +%s",
    "interrupts": "cat /proc/interrupts",
    "cpuinfo": "cat /proc/cpuinfo",
    "memory": "cat /proc/meminfo",
    "ioports": "cat /proc/ioports",
    "iomem": "cat /proc/iomem",
    "clocksource": "cat /sys/devices/system/clocksource/*/current_clocksource",
    "tables": "ls /sys/firmware/acpi/tables",
    "pci": "for d in /sys/bus/pci/devices/*; do echo ${d##*/} "
           "$(cat $d/vendor $d/device $d/class); done",
    "uname": "uname -a",
    "mtrr": "cat /proc/mtrr",
    "rom": "cd /sys/bus/pci/devices/0000:00:02.0; echo 1 >rom; "
           "md5sum <rom; echo 0 >rom; cd",
}
MONOCLE_ONLY = {
    "later": "monoclectl stats",
    "log": "monoclectl log",
    "devices": "monoclectl devices",
    "version": "monoclectl version",
}


@dataclasses.dataclass
class Session:
    """Everything that came of one boot."""
    answers: dict = dataclasses.field(default_factory=dict)
    pictures: dict = dataclasses.field(default_factory=dict)
    reboots: list = dataclasses.field(default_factory=list)
    result: rigs.Result = None


def ask(machine, session, questions):
    """The answers to shell commands."""
    for name, command in questions.items():
        session.answers[name] = machine.command(command, TIMEOUT)


def look(machine, session, name):
    """A picture of the screen."""
    path = runs.work(f"linux-{name}.png")
    machine.screenshot(path)
    session.pictures[name] = path


def text_console(machine, session):
    """The screen, and the cells that the kernel says are on it."""
    machine.type("echo typed $((6*7))\n")
    machine.command("until tr -s '\\0 ' ' ' </dev/vcs1 | grep -q 'typed 42'; "
                    "do :; done", TIMEOUT)
    machine.command("printf '\\033[?25l' >/dev/tty1", TIMEOUT) # no cursor
    look(machine, session, "text")
    ask(machine, session, {
        "cells": "fold -w 80 /dev/vcs1 | sed 's/ *$//'"})


# 16 x 16 rectangles of 64 x 48 pixels on the framebuffer: rectangle (x, y) has
# colour (5 y + x) mod 16 of SHADES, bytes of blue, green, red.
SHADES = [(n & 3, n // 2, n * 3 & 7) for n in range(16)]
LEVELS = [(blue * 255 // 3, green * 255 // 7, red * 255 // 7)
          for blue, green, red in SHADES]
PAINT = """
cd /tmp
double() {{ cat $1 $1 >d; mv d $1; }}
n=0
for c in {shades}; do
printf "$c" >c$n; for i in 1 2 3 4 5 6; do double c$n; done; n=$((n+1))
done
y=0
while [ $y -lt 16 ]; do
x=0; row=
while [ $x -lt 16 ]; do row="$row c$(((5*y+x)%16))"; x=$((x+1)); done
cat $row >r; cat r r r >b; for i in 1 2 3 4; do double b; done
cat b >>fb; y=$((y+1))
done
"""


def framebuffer(machine, session):
    """Load Debian's driver for the card, and paint."""
    shades = " ".join("'" + "".join(f"\\{level:03o}" for level in pixel) +
                      "\\000'" for pixel in LEVELS)
    machine.command("while read -r m; do insmod /lib/$m; done "
                    "</lib/modules.drm", TIMEOUT)
    ask(machine, session, {
        "fb": "cd /sys/class/graphics/fb0; cat name virtual_size "
              "bits_per_pixel stride",
        "fb interrupts": "dmesg | tail -n 30"})
    for line in PAINT.format(shades=shades).strip().splitlines():
        machine.send(line + "\n")
    # Without its console, nobody else paints.
    machine.command("for v in /sys/class/vtconsole/vtcon*; do "
                    "grep -q frame $v/name && echo 0 >$v/bind; done", TIMEOUT)
    session.answers["before"] = machine.command("monoclectl stats", TIMEOUT)
    machine.command("cat /tmp/fb >/dev/fb0", TIMEOUT)
    session.answers["after"] = machine.command("monoclectl stats", TIMEOUT)
    look(machine, session, "framebuffer")


def reboot(machine, session, question="cat /proc/uptime; date -u +%s"):
    """From a shell, behind an answer, to the next one, which is asked."""
    machine.send("reboot -f\n")
    # Not by the prompt: the one behind the answer may still be to come.
    after = machine.wait_for(READY, TIMEOUT, after=machine.asked_at)
    machine.wait_for("demo# ", TIMEOUT, after=after)
    session.reboots.append(machine.command(question, TIMEOUT))


def on_monocle():
    """Boot, ask, look, type, reboot three times, power off."""
    session = Session()
    # With the driver, which is loaded by hand, late.
    with rigs.start(rig="bochs", timeout=TIMEOUT * 4, monocle=runs.MONOCLE,
                    initrd=DEMO_INITRD_DRM) as machine:
        machine.wait_for(READY, TIMEOUT)
        machine.wait_for("demo# ", TIMEOUT)
        session.answers["stats"] = machine.command("monoclectl stats", TIMEOUT)
        ask(machine, session, QUESTIONS)
        ask(machine, session, MONOCLE_ONLY)
        text_console(machine, session)
        for _ in range(REBOOTS):
            reboot(machine, session)
        framebuffer(machine, session)
        machine.send("poweroff -f\n")
        session.result = machine.finish()
    return session


@runs.define("linux-bare", first=True)
def on_bare():
    """The same kernel without Monocle: the same questions."""
    session = Session()
    with rigs.start(rig="bochs", timeout=TIMEOUT, native=True) as machine:
        machine.wait_for(READY, TIMEOUT)
        machine.wait_for("demo# ", TIMEOUT)
        ask(machine, session, QUESTIONS)
        machine.send("poweroff -f\n")
        session.result = machine.finish()
    return session


def pm_timer(answers):
    """The port of the ACPI timer, as Linux reads it in the FADT."""
    return int(re.search(r"ACPI: PM-Timer IO Port: 0x(\w+)",
                         answers["dmesg"])[1], 16)


def lines(text):
    """Kernel messages without their time and level."""
    return [re.sub(r"^(<\d+>)?\[ *\d+\.\d+\] ", "", line)
            for line in text.splitlines()]
