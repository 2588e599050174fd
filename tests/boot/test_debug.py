# SPDX-License-Identifier: MIT
"""tools/boot --debug: Monocle stops at its first function, with names."""
import re
import socket
import subprocess

import pytest

from boot import runs
from rigs.spec import BUILD, REPOSITORY

TOOL = REPOSITORY / "tools" / "boot"
ELF = runs.MONOCLE or BUILD / "monocle.elf"
COMMANDS = """\
bt
lb "exit_io"
c
bt
q
"""


def words(rig):
    """A boot of the tiny guest into the debugger."""
    return [TOOL, "--debug", "--rig", rig, "--memory", "256", "--kernel",
            runs.GUEST, "--monocle", ELF, "--timeout", str(runs.TIMEOUT)]


@runs.define("debug-bochs")
def bochs_run():
    return subprocess.run(words("bochs"), input=COMMANDS, text=True,
                          capture_output=True, timeout=runs.TIMEOUT,
                          check=False)


@pytest.mark.runs("debug-bochs")
def test_bochs(run):
    """A backtrace at the start, and one inside the guest's first exit."""
    done = run("debug-bochs")
    assert done.returncode == 0, done.stderr
    start, exit_ = done.stdout.split("the guest starts")
    assert "(boot_main+0)" in start, done.stdout
    # The loop of vcpu_run() is not in its frame yet; who called it is.
    assert re.search(r"\(exit_io\+0\)\n.*\(\w+\+\w+\)\n.*\(run\+",
                     exit_), done.stdout


class Gdb:
    """The few words of gdb's remote protocol that a breakpoint takes."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port),
                                               runs.TIMEOUT)
        self.data = b""

    def ask(self, text):
        """Send a packet; return the answer's text."""
        check = sum(text.encode()) % 256
        self.socket.sendall(f"${text}#{check:02x}".encode())
        while not (packet := re.search(rb"\$([^#]*)#..", self.data)):
            part = self.socket.recv(4096)
            assert part, "the machine has ended"
            self.data += part
        self.data = self.data[packet.end():]
        self.socket.sendall(b"+")
        return packet[1].decode()


def address_of(name):
    lines = subprocess.run(["nm", ELF], check=True, text=True,
                           capture_output=True).stdout
    return int(re.search(rf"^(\w+) T {name}$", lines, re.MULTILINE)[1], 16)


@runs.define("debug-gdb")
def gdb_run():
    """(the line for the user, RIP where the machine has stopped)"""
    with subprocess.Popen(words("tcg"), text=True, stderr=subprocess.PIPE,
                          stdout=subprocess.DEVNULL,
                          stdin=subprocess.DEVNULL) as boot:
        try:
            line = next(line for line in boot.stderr if "gdb " in line)
            gdb = Gdb(int(re.search(r"remote :(\d+)", line)[1]))
            assert gdb.ask(f"Z1,{address_of('boot_main'):x},1") == "OK"
            assert gdb.ask("c").startswith("T05")
            registers = bytes.fromhex(gdb.ask("g"))
            return line, int.from_bytes(registers[16 * 8:17 * 8], "little")
        finally:
            boot.terminate()


@pytest.mark.runs("debug-gdb")
def test_gdb(run):
    """Where gdb's own line would stop."""
    line, rip = run("debug-gdb")
    assert str(ELF) in line and "hbreak boot_main" in line
    assert rip == address_of("boot_main")
