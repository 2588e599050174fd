# SPDX-License-Identifier: MIT
"""The bochs rig: Bochs 2.7, which emulates VMX with EPT."""
import glob
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

from . import result
from .machine import Machine, run_as_child
from .result import RigError
from .rfb import Rfb

PROGRAM = "/usr/bin/bochs-bin"
CPU = "corei7_haswell_4770"
START_LIMIT = 20
CONFIG = """\
plugin_ctrl: unmapped=1, biosdev=1, serial=1, iodebug=1, extfpuirq=1, \
speaker=0, parallel=0, gameport=0
config_interface: textconfig
display_library: rfb, options="timeout=0"
cpu: model={cpu}, count={cpus}, ips=100000000, \
reset_on_triple_fault=0, ignore_bad_msrs={bad_msrs}
memory: guest={memory}, host={memory}
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
# Redrawn by the machine's own time: by the host's, a picture takes seconds.
vga: extension=vbe, update_freq=50, realtime=0
pci: enabled=1, chipset=i440fx, slot1=pcivga, slot2=e1000
e1000: enabled=1, mac=52:54:00:12:34:56, ethmod=null
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={image}, status=inserted
boot: cdrom
clock: sync=none, time0=1700000000
com1: enabled=1, {com1}
port_e9_hack: enabled=1
log: {work}/bochs.log
# The display says that 32 bits for a pixel are not supported, and shows them.
# The keyboard does not know what a guest may send it (0xFE, resend).
panic: action=fatal, rfb=report, keyboard=report
error: action=ignore
info: action=ignore
debug: action=ignore
{more}
"""
GOES_ON = re.compile(rb"<bochs:\d+> c\r?\n")
BREAKS_IN = re.compile(rb"Next at t=(\d+)\r?\n")
HALF_A_LINE = re.compile(rb"(^[N(][^\n]*)?\Z", re.MULTILINE)
LAST_WORDS = re.compile(rb"^\(\d+\)\.\[(\d+)\] \[0x[^\n]*\n",
                        re.MULTILINE)
PROMPT = re.compile(rb"<bochs:\d+> ")
MEMORY_LINE = re.compile(r">:((?:\t0x[0-9a-f]{8})+)")
ANSWER_LIMIT = 30
SOFT_OFF = "soft power off"


def free_port():
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening_ports(pid):
    """TCP ports on which a process listens (proc(5), net/tcp)."""
    inodes = set()
    for link in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            target = str(pathlib.Path(link).readlink())
        except OSError:
            continue
        inodes.update(re.findall(r"^socket:\[(\d+)\]$", target))
    ports = []
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        field = line.split()
        if field[3] == "0A" and field[9] in inodes:
            ports.append(int(field[1].split(":")[1], 16))
    return ports


def connect(port):
    """A connection to a local TCP port, or None."""
    try:
        return socket.create_connection(("127.0.0.1", port))
    except ConnectionRefusedError:
        return None


class Bochs(Machine):
    """Bochs with its debugger on a pipe, where SIGINT breaks in.

    Standard output carries port 0xE9 and the debugger's words; the latter
    begin with "Next at t=" and end with the echo of "c".
    """
    name = "bochs"

    def __init__(self, spec, hooks=None):
        super().__init__(spec, hooks)
        self.serial = None
        self.display = None
        self.output = b""           # not yet sorted
        self.answers = b""          # the debugger's
        self.in_debugger = True     # from the start until the first "c"
        self.asked = True           # ... on this program's wish
        self.ticks = 0              # Bochs's time at the last break or end

    def launch(self, image):
        if not pathlib.Path(PROGRAM).exists():
            raise RigError(f"{PROGRAM} is not installed: tools/install")
        port = free_port()
        config = self.configure(
            image, f"mode=socket-server, dev=127.0.0.1:{port}")
        self.process = run_as_child(
            [PROGRAM, "-q", "-f", config], cwd=self.work,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, bufsize=0)
        self.serial = self._retry(lambda: connect(port))
        self.display = self._retry(self._open_display)
        self._retry(self.display.all_read)
        self._debug(*(f"lb {at:#x}" for at in self.spec.breakpoints), "c")
        return {"serial": self.serial, "log": self.process.stdout,
                "console": self.process.stderr}

    def _open_display(self):
        """Bochs takes the first free port of 5900-5949. It was seen, once in
        hundreds of starts, to refuse the client: which then asks again."""
        port = next((port for port in listening_ports(self.process.pid)
                     if 5900 <= port < 5950), None)
        try:
            return port and Rfb(port)
        except RigError:
            return None

    def configure(self, image, com1):
        """Write Bochs's configuration; its path."""
        config = pathlib.Path(self.work, "bochsrc")
        config.write_text(CONFIG.format(
            cpu=self.spec.cpu or CPU, cpus=self.spec.cpus,
            memory=self.spec.memory, image=image,
            # Linux wants MSRs that Bochs's models lack (0x1A0, 0x179).
            bad_msrs=int(self.spec.native), com1=com1, work=self.work,
            more="\n".join(self.spec.bochsrc)))
        return config

    def start(self, image):
        super().start(image)
        with self.change:
            self._await(lambda: not self.in_debugger)
        return self

    def _retry(self, attempt):
        """Until Bochs is ready, or dead."""
        limit = time.monotonic() + START_LIMIT
        while True:
            done = attempt()
            if done:
                return done
            if self.process.poll() is not None:
                raise RigError("bochs does not start:\n" +
                               self.process.stderr.read().decode())
            if time.monotonic() > limit:
                raise RigError("bochs does not come up")
            time.sleep(0.01)

    def write_serial(self, data):
        self.serial.sendall(data)

    def screenshot(self, path):
        self.display.save(path)

    def last_picture(self, path):
        self.display.save_last(path)
        return path

    def key(self, name):
        self.display.key(name)

    def exit_status(self, code):
        if SOFT_OFF in self.text("console"):
            return ((result.POWER_OFF, "power-off") if self.spec.native else
                    (result.STOPPED, "machine off without an end line"))
        why = re.search(r"following message:\n(.*)", self.text("console"))
        return (result.STOPPED,
                f"bochs died: {why[1] if why else f'status {code}'}")

    # -- the debugger

    def monitor(self, *commands):
        """Break in, give the debugger's commands, go on; their answers."""
        with self.change:
            self.asked, self.answers = True, b""
            self._break_in()
            self._debug(*commands, "c")
            self._await(lambda: not self.in_debugger)
            self.asked = False
            return self.answers.decode(errors="replace")

    def memory(self, address, size):
        start = address & ~3
        count = (address + size - start + 3) // 4
        text = self.monitor(*(
            f"xp /{min(1024, count - i)}wx {start + 4 * i:#x}"
            for i in range(0, count, 1024)))
        data = b"".join(int(word, 16).to_bytes(4, "little")
                        for line in MEMORY_LINE.findall(text)
                        for word in line.split())
        if len(data) != 4 * count:
            raise RigError(f"bochs shows no memory at {address:#x}")
        return data[address - start:][:size]

    def _break_in(self):
        """Bochs forgets a signal that comes just behind the echo of "c"; one
        too many it forgets as well, at the next."""
        for _ in range(ANSWER_LIMIT):
            os.kill(self.process.pid, signal.SIGINT)
            if self.change.wait_for(
                    lambda: self.in_debugger or not self.alive(), 1):
                break
        self._await(lambda: self.in_debugger)

    def _await(self, condition):
        if not self.change.wait_for(
                lambda: condition() or not self.alive(), ANSWER_LIMIT):
            raise RigError("bochs's debugger does not answer")
        if not condition():
            raise RigError("bochs ended")

    def _debug(self, *commands):
        self.process.stdin.write("".join(f"{line}\n"
                                         for line in commands).encode())

    def _feed(self, stream, data):
        if stream == "log":
            with self.change:
                self.output += data
                data = self._sort()
                self.change.notify_all()
        if data:
            super()._feed(stream, data)

    def _sort(self):
        """Take from the output what came from port 0xE9."""
        plain = b""
        while True:
            mark = (GOES_ON if self.in_debugger else BREAKS_IN).search(
                self.output)
            if not mark:
                break
            if self.in_debugger:
                self.answers += self.output[:mark.start()]
            else:
                plain += self.output[:mark.start()]
                self.ticks = int(mark[1])
            self.output = self.output[mark.end():]
            self.in_debugger = not self.in_debugger
        if not self.in_debugger:
            keep = HALF_A_LINE.search(self.output).start()
            plain += self.output[:keep]
            self.output = self.output[keep:]
            self.asked = False
        elif not self.asked and PROMPT.search(self.output):
            self.ended = self.ended or (
                result.POWER_OFF, "break into the debugger (port 0x8900)")
        # Where it ends, the debugger shows the last instruction.
        last = LAST_WORDS.search(plain)
        if last:
            self.ticks = int(last[1])
            self.streams["console"] += last[0]
            plain = LAST_WORDS.sub(b"", plain)
        return plain
