# SPDX-License-Identifier: MIT
"""tools/boot --debug: a debugger, from boot_main() on, with Monocle's symbols.

The image runs at the addresses that it is linked for, wherever GRUB put it:
so the symbols are right from there on. Before, in boot/start.asm, it runs at
physical addresses.
"""
import pathlib
import signal
import subprocess
import time

from . import iso
from .bochs import PROGRAM, Bochs, free_port
from .machine import run_as_child
from .result import POWER_OFF, Result, RigError
from .run import options
from .spec import BUILD

START = "boot_main"


def image_of(spec):
    """The ELF whose symbols are wanted."""
    if spec.native or spec.iso:
        raise RigError("--debug has symbols for Monocle alone")
    return pathlib.Path(spec.monocle or BUILD / "monocle.elf").resolve()


def symbols(elf):
    """Its functions as Bochs's ldsym reads them."""
    lines = subprocess.run(["nm", elf], check=True, text=True,
                           capture_output=True).stdout.splitlines()
    rows = [line.split() for line in lines]
    return "".join(f"{row[0]} {row[2]}\n" for row in rows
                   if len(row) == 3 and row[1] in "tT")


def by_bochs(spec, say):
    """Bochs's own debugger on the user's terminal, to its end; a Result.

    Monocle's log is on its standard output, the guest's serial line on the
    other.
    """
    elf = image_of(spec)
    machine = Bochs(spec)
    try:
        image = iso.build(spec, options(spec), machine.work)
        work = pathlib.Path(machine.work)
        (work / "symbols").write_text(symbols(elf))
        (work / "commands").write_text(
            f'ldsym global "{work}/symbols"\nlb "{START}"\nc\n')
        say("Bochs's debugger: help lists its commands, Ctrl-C breaks in, "
            "q ends")
        machine.process = run_as_child(
            [PROGRAM, "-q", "-f",
             machine.configure(image, "mode=file, dev=/dev/stderr"),
             "-rc", work / "commands"], session=False, cwd=work)
        # Ctrl-C is for Bochs alone.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        machine.process.wait()
        return Result(POWER_OFF, "the debugger has ended", "", "", "",
                      time.monotonic() - machine.started)
    finally:
        machine.close()


def by_gdb(spec):
    """Let QEMU wait for gdb; its line, for when QEMU runs."""
    elf, port = image_of(spec), free_port()
    spec.qemu += ("-gdb", f"tcp:127.0.0.1:{port}", "-S")
    return f"gdb {elf} -ex 'target remote :{port}' -ex 'hbreak {START}' -ex c"
