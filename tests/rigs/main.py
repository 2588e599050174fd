# SPDX-License-Identifier: MIT
"""tools/boot: Boot a guest on Monocle, in an emulator."""
import argparse
import contextlib
import os
import signal
import sys
import time

from . import debug, nested, result
from .result import RigError
from .run import RIGS, settle, start
from .spec import Spec
from .terminal import HELP, Terminal

EPILOG = """\
The guest's serial line goes to standard output, all else to standard error.
Without --kernel the demo guest boots: Debian's kernel and a busybox.

Exit status: 0 the guest powered off, or wrote 0 to its debug exit port 0xF4;
10 it wrote another value (the last line says `guest exit N`); 3 Monocle
stopped the guest; 4 Monocle refused to start; 124 time-out; 2 the rig itself
cannot run.
"""


def parser():
    """The command line."""
    parse = argparse.ArgumentParser(
        prog="tools/boot", description=__doc__.split(": ")[1], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parse.add_argument
    add("--rig", choices=["auto", *RIGS, "nested"], default="auto",
        help="auto: kvm where it has nested VMX, else bochs")
    add("--kernel", metavar="FILE", help="bzImage or Multiboot 1 ELF")
    add("--initrd", metavar="FILE",
        help="initrd, or the ELF's first module")
    add("--guest-firmware", metavar="FILE",
        help="the guest is SeaBIOS (bios.bin) or OVMF (OVMF.fd)")
    add("--append", metavar="LINE", default="",
        help="the guest's command line (the demo guest: added to its own)")
    add("--hv", metavar="OPTIONS", default="", help="Monocle's options")
    add("--memory", metavar="MIB", type=int, default=Spec.memory,
        help="memory of the whole machine (default %(default)s)")
    add("--cpus", metavar="N", type=int, default=Spec.cpus,
        help="CPUs of the whole machine (default %(default)s)")
    add("--cpu", metavar="MODEL", help="CPU model by the emulator's name")
    add("--screenshot", metavar="FILE.png", help="the screen at the end")
    add("--serial", metavar="FILE", help="the serial line's copy in a file")
    add("--timeout", metavar="S", type=float,
        help=f"default {Spec.timeout}; none with --interactive or "
             "--debug")
    add("--interactive", action="store_true",
        help="the terminal is the guest's serial line")
    add("--debug", action="store_true",
        help="stop at boot_main(), in Bochs's debugger with Monocle's "
             "symbols; on the QEMU rigs wait for gdb, and say its line")
    add("--firmware", choices=["bios", "uefi"], default="bios",
        help="uefi: on the QEMU rigs")
    add("--device", action="append", default=[], metavar="QEMU_DEVICE",
        help="on the QEMU rigs, repeatable")
    add("--drive", action="append", default=[], metavar="QEMU_DRIVE",
        help="on the QEMU rigs, repeatable")
    add("--no-module", action="store_true", help="no guest at all")
    add("--native", action="store_true",
        help="the guest alone on the same machine, without Monocle")
    add("--monocle", metavar="FILE", help="instead of build/monocle.elf")
    add("--iso", metavar="FILE", help="boot this image as it is")
    return parse


def spec_of(args):
    """The command line as a Spec."""
    timeout = args.timeout
    if timeout is None:
        endless = args.interactive or args.debug
        timeout = float("inf") if endless else Spec.timeout
    modules = ((args.guest_firmware, "firmware"),) \
        if args.guest_firmware else ()
    return Spec(rig=args.rig, kernel=args.kernel, initrd=args.initrd,
                append=args.append, hv=args.hv, memory=args.memory,
                cpu=args.cpu, cpus=args.cpus, timeout=timeout,
                firmware=args.firmware,
                native=args.native,
                module=not (args.no_module or modules), modules=modules,
                monocle=args.monocle, iso=args.iso,
                devices=tuple(args.device), drives=tuple(args.drive))


class Output:
    """Where the streams go, and the lines of progress."""

    def __init__(self, copy):
        self.copy = copy
        self.terminal = None
        self.begin = time.monotonic()
        self.first = {"serial": "the guest speaks", "log": "Monocle speaks"}

    def say(self, line):
        """One line on standard error."""
        end = self.terminal.newline() if self.terminal else "\n"
        sys.stderr.write(f"boot: {line}{end}")
        sys.stderr.flush()

    def _once(self, stream):
        text = self.first.pop(stream, None)
        if text:
            self.say(f"{text} after {time.monotonic() - self.begin:.1f} s")

    def serial(self, data):
        """Bytes of the guest."""
        self._once("serial")
        with contextlib.suppress(BrokenPipeError):
            os.write(sys.stdout.fileno(), data)
        if self.copy:
            self.copy.write(data)

    def log(self, data):
        """Bytes of port 0xE9."""
        self._once("log")
        if self.terminal and self.terminal.saved:
            data = data.replace(b"\n", b"\r\n")
        with contextlib.suppress(BrokenPipeError):
            os.write(sys.stderr.fileno(), data)


def run(args, copy):
    """Boot as the arguments say; return the Result."""
    out = Output(copy)
    hooks = {"serial": out.serial, "log": out.log}
    if args.rig == "nested":
        if args.interactive or args.screenshot or args.debug:
            raise RigError("nested shows its streams at the end, no more")
        return nested.boot(spec_of(args), hooks, out.say)
    spec = spec_of(args)
    settle(spec, out.say)
    if args.debug and spec.rig == "bochs":
        return debug.by_bochs(spec, out.say)
    line = debug.by_gdb(spec) if args.debug else None
    with start(spec, hooks, out.say) as machine:
        if line:
            out.say(line)
        with contextlib.ExitStack() as stack:
            if args.interactive:
                out.say(HELP)
                out.terminal = stack.enter_context(
                    Terminal(machine.write_serial, machine.leave))
            done = machine.finish(screenshot=args.screenshot)
    return done


def leave(*_):
    """A signal that ends this program ends the emulator too."""
    raise KeyboardInterrupt


def main(argv=None):
    """Return the exit status of the table above."""
    args = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGHUP, leave)
    try:
        with contextlib.ExitStack() as stack:
            copy = None
            if args.serial:
                copy = stack.enter_context(open(args.serial, "wb",
                                                buffering=0))
            done = run(args, copy)
    except (RigError, OSError) as error:
        print(f"boot: {error}", file=sys.stderr)
        return result.USAGE
    except KeyboardInterrupt:
        print("boot: interrupted", file=sys.stderr)
        return 130
    if done.status not in (result.POWER_OFF, result.GUEST_EXIT):
        if done.console.strip() and done.status == result.STOPPED:
            print(done.console.strip(), file=sys.stderr)
    if args.screenshot and not done.screenshot:
        print("boot: no screenshot: the machine was off", file=sys.stderr)
    print(f"boot: {done.text} ({done.seconds:.1f} s)" if
          done.status != result.GUEST_EXIT else done.text, file=sys.stderr)
    return done.status
