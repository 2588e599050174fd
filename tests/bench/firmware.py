# SPDX-License-Identifier: MIT
"""How long SeaBIOS takes without a disk, by breakpoints of Bochs.

    on_monocle(monocle)     ticks
    on_kvm()                [ticks, ticks]: with port 0x402, without

From the instruction that the reset vector jumps to, to the HLT behind the last
line. What it sleeps on the way is taken off: the menu waits for a key by HLT.
KVM: QEMU's own q35, in a Linux on Bochs, with the same image.
"""
import pathlib
import tempfile

import rigs
from bench.start import Stops
from rigs import nested
from walker import boot as walk
from rigs.spec import BUILD, Spec

SEABIOS = pathlib.Path("/usr/share/seabios/bios-256k.bin")
LAST = "No bootable device."
MEMORY = 128        # MiB
# Linear addresses: the first instruction of QEMU's CPU, and where a PC BIOS has
# its start and INT 19h, since the first PC.
VECTOR, START, INT_19 = 0xfffffff0, 0xfe05b, 0xfe6f2
SLEEP = b"\xfb\xf4\xfa\xfc"         # sti; hlt; cli; cld
SAID = "said"
QEMU = ("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine",
        "q35,sata=off,smbus=off", "-m", str(MEMORY), "-nodefaults",
        "-no-user-config", "-display", "none", "-vga", "std",
        "-bios", SEABIOS.name, "-boot", "menu=on")
DEBUG = ("-chardev", f"file,path={SAID},id={SAID}",
         "-device", f"isa-debugcon,iobase=0x402,chardev={SAID}")
SECONDS = 15        # emulated, of a QEMU
LINUX = 600         # seconds until the first one begins


def sleeps():
    """Linear addresses of the HLTs in what stays of it below 1 MiB."""
    code = SEABIOS.read_bytes()[-0x10000:]
    return [0xf0000 + at + 1 for at in range(len(code))
            if code.startswith(SLEEP, at)]


def watch(stops):
    """Bochs stops at these, too, from now on."""
    stops.ask(*(f"lb {at:#x}" for at in (START, INT_19, *(
        at + n for at in sleeps() for n in (0, 1)))))


def spent(stops):
    """Ticks of the guest that starts next."""
    halts = {at & 0xffff for at in sleeps()}
    at, rip = stops.next(LINUX)
    while rip != START & 0xffff:
        at, rip = stops.next(LINUX)
    began, asleep, boots = at, 0, False
    while not (boots and rip in halts):
        before, (at, rip) = at, stops.next()
        boots = boots or rip == INT_19 & 0xffff
        # Behind a HLT: where it begins, and again where its interrupt ends.
        if rip - 1 in halts:
            asleep += at - before
    return at - began - asleep


def on_monocle(monocle=None):
    image = monocle or BUILD / "monocle.elf"
    with rigs.start(rig="bochs", memory=MEMORY, module=False, monocle=monocle,
                    modules=((SEABIOS, "firmware"),), breakpoints=(
                        walk.symbol(image, walk.START_SYMBOL),)) as machine:
        stops = Stops(machine)
        stops.next()
        watch(stops)
        ticks = spent(stops)
        if LAST not in machine.text("log"):
            raise rigs.RigError(machine.text("log"))
    return ticks


def on_kvm():
    spec = Spec(rig="nested", native=True, module=False, timeout=SECONDS)
    cases = {f"{n:02}": nested.Case(spec, words=(*QEMU, *more),
                                    back={SAID: 1 << 16})
             for n, more in enumerate((DEBUG, ()))}
    with tempfile.TemporaryDirectory(prefix="monocle-") as work:
        disks = [pathlib.Path(work, name) for name in ("cases", "results")]
        nested.write_disks(*disks, cases)
        with rigs.start(nested.linux(cases.values(), disks,
                                     breakpoints=(VECTOR,))) as machine:
            stops = Stops(machine)
            stops.next(LINUX)
            watch(stops)
            ticks = [spent(stops) for _ in cases]
        said = nested.Output(disks[1]).text("00", SAID)
    if not said.splitlines()[-1].startswith(LAST):
        raise rigs.RigError(said)
    return ticks
