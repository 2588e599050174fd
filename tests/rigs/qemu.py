# SPDX-License-Identifier: MIT
"""The QEMU rigs: kvm (nested VMX) and tcg (no VMX), both with intel-iommu."""
import os
import pathlib
import shutil
import socket
import subprocess

from . import result
from .machine import OFF_LIMIT, Machine, run_as_child
from .qmp import Qmp
from .result import RigError
from .spec import STANDIN

PROGRAM = "qemu-system-x86_64"
OVMF_CODE = pathlib.Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = pathlib.Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
MONOCLE_EXIT_PORT = 0x501   # selftests: QEMU ends with (value << 1) | 1
GUEST_EXIT_PORT = 0xF4      # a guest without Monocle below it
# Keys whose names differ from RFB's or are no letters or digits.
QCODES = {" ": "spc", "\n": "ret", "-": "minus", "=": "equal", ".": "dot",
          ",": "comma", "/": "slash", ";": "semicolon", "'": "apostrophe",
          "`": "grave_accent", "[": "bracket_left", "]": "bracket_right",
          "\\": "backslash"}
SHIFTED = dict(zip('~!@#$%^&*()_+{}|:"<>?', "`1234567890-=[]\\;',./"))

RIGS = {
    "kvm": {"accel": "kvm", "cpu": "host",
            "machine": "q35,kernel-irqchip=split",
            "iommu": "intel-iommu,intremap=on,eim=on,caching-mode=on,"
                     "aw-bits=48"},
    "tcg": {"accel": "tcg", "cpu": "max", "machine": "q35",
            "iommu": "intel-iommu,intremap=on,aw-bits=48"},
}


IGD_FD = 200        # the stand-in's end: above all others that are inherited
IGD_LOG = "igd.log"


def igd_words(spec):
    """The stand-in for Intel graphics as QEMU's device. Its memory must be a
    file, of which QEMU hands out a descriptor. SeaBIOS knows the other files.
    """
    words = ["-object", "memory-backend-memfd,id=memory,share=on,"
             f"size={spec.memory}M",
             "-device", f"x-pci-proxy-dev,id=igd,addr=02.0,fd={IGD_FD}"]
    for name in spec.igd.files():
        if name != "igd.txt":
            words += ["-fw_cfg", f"name=etc/{name},file={name}"]
    return words


def display_words(spec):
    """What is at 00:02.0."""
    return igd_words(spec) if spec.igd else ["-device",
                                               f"{spec.display},addr=02.0"]


def command(rig, spec, image, serial, log, monitor=None, firmware_vars=None):
    """The QEMU command line of a rig, as a list of words.

    `serial`, `log` and `monitor` are character devices as -chardev takes
    them, without the id: here sockets, elsewhere files.
    """
    machine = RIGS[rig]["machine"]
    words = [PROGRAM]
    if spec.igd:
        machine += ",memory-backend=memory"
        words = ["./standin", "igd.txt", IGD_LOG, str(IGD_FD), PROGRAM]
    words += ["-accel", RIGS[rig]["accel"],
             "-cpu", spec.cpu or RIGS[rig]["cpu"],
             "-machine", machine, "-m", str(spec.memory),
             "-smp", str(spec.cpus),
             "-nodefaults", "-no-user-config", "-display", "none",
             "-vga", "none", *display_words(spec),
             "-device", ",".join(filter(None, [RIGS[rig]["iommu"],
                                               spec.iommu])),
             "-device",
             "edu,addr=05.0,dma_mask=0xffffffffffffffff",
             "-chardev", f"{serial},id=serial", "-serial", "chardev:serial",
             "-chardev", f"{log},id=log",
             "-device", "isa-debugcon,iobase=0xe9,chardev=log",
             "-rtc", "base=2023-11-14T22:13:20,clock=vm"]
    port = GUEST_EXIT_PORT if spec.native else MONOCLE_EXIT_PORT
    words += ["-device", f"isa-debug-exit,iobase={port:#x},iosize=4"]
    if not spec.native:
        words += ["-no-reboot"]
    if monitor:
        words += ["-chardev", f"{monitor},id=monitor",
                  "-mon", "chardev=monitor,mode=control"]
    if spec.firmware == "uefi":
        words += ["-drive", "if=pflash,format=raw,readonly=on,"
                  f"file={OVMF_CODE}",
                  "-drive", f"if=pflash,format=raw,file={firmware_vars}"]
    for device in spec.devices:
        words += ["-device", device]
    for drive in spec.drives:
        words += ["-drive", drive]
    return words + [*spec.qemu, "-cdrom", str(image)]


def complaints(console):
    """What QEMU says of itself, but for the firmware's files."""
    return "\n".join(line for line in console.splitlines()
                     if line.strip() and "externally provided fw_cfg" not in
                     line)


def key(name, **more):
    """QMP's arguments of send-key, for one that is pressed and released."""
    keys = []
    if name in SHIFTED or (len(name) == 1 and name.isupper()):
        keys.append("shift")
    name = SHIFTED.get(name, name.lower())
    keys.append(QCODES.get(name, name))
    return {"keys": [{"type": "qcode", "data": key} for key in keys], **more}


class Qemu(Machine):
    """QEMU with its serial line, port 0xE9 and monitor on socket pairs."""

    def __init__(self, spec, hooks=None):
        super().__init__(spec, hooks)
        self.name = spec.rig
        self.serial = None
        self.qmp = None

    def start(self, image):
        # QEMU waits, its monitor too, while nobody reads the log: the guest
        # begins when the thread does.
        super().start(image)
        if "-S" not in self.spec.qemu:      # else gdb says when
            self.qmp.command("cont")
        return self

    def launch(self, image):
        if not shutil.which(PROGRAM):
            raise RigError(f"{PROGRAM} is not installed: tools/install")
        firmware_vars = self._firmware_vars()
        self._igd_files()
        pairs = [socket.socketpair() for _ in range(3)]
        devices = [f"socket,fd={theirs.fileno()}" for _, theirs in pairs]
        self.process = run_as_child(
            [*command(self.spec.rig, self.spec, image, *devices,
                      firmware_vars=firmware_vars), "-S"],
            cwd=self.work, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0,
            pass_fds=[theirs.fileno() for _, theirs in pairs])
        for _, theirs in pairs:
            theirs.close()
        self.serial, log, monitor = (ours for ours, _ in pairs)
        try:
            self.qmp = Qmp(monitor)
        except (RigError, OSError) as error:
            self.end(OFF_LIMIT)
            raise RigError(f"{self.name} does not start:\n" +
                           self.process.stderr.read().decode()) from error
        return {"serial": self.serial, "log": log,
                "console": self.process.stderr}

    def _firmware_vars(self):
        if self.spec.firmware != "uefi":
            return None
        if not OVMF_CODE.exists():
            raise RigError("OVMF is not installed: tools/install")
        return shutil.copy(OVMF_VARS, self.work)

    def _igd_files(self):
        if not self.spec.igd:
            return
        if not STANDIN.exists():
            raise RigError(f"{STANDIN} is not there; has `make` been run?")
        os.symlink(STANDIN, pathlib.Path(self.work, "standin"))
        for name, data in self.spec.igd.files().items():
            pathlib.Path(self.work, name).write_bytes(data)

    def device_log(self):
        path = pathlib.Path(self.work, IGD_LOG)
        return path.read_text() if self.spec.igd and path.exists() else ""

    def write_serial(self, data):
        self.serial.sendall(data)

    def screenshot(self, path):
        self.qmp.command("screendump", filename=os.path.abspath(path),
                         format="png")

    def key(self, name):
        self.qmp.command("send-key", **key(name))

    def memory(self, address, size):
        path = pathlib.Path(self.work, "memory.bin")
        self.qmp.command("pmemsave", val=address, size=size,
                         filename=str(path))
        data = path.read_bytes()
        path.unlink()
        return data

    def exit_status(self, code):
        reasons = [event["data"].get("reason") for event in self.qmp.drain()
                   if event["event"] == "SHUTDOWN"]
        if code > 0 and code & 1 and not complaints(self.text("console")):
            value = code >> 1
            return ((result.POWER_OFF, "guest exit 0") if value == 0 else
                    (result.GUEST_EXIT, f"guest exit {value}"))
        if self.spec.native and "guest-shutdown" in reasons:
            return result.POWER_OFF, "power-off"
        return (result.STOPPED,
                f"{self.name} ended with status {code} {reasons}")
