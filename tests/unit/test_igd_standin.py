# SPDX-License-Identifier: MIT
"""The stand-in for Intel graphics, spoken to as QEMU does; and what compares
its logs, on made-up ones."""

import array
import os
import socket
import struct
import subprocess
import time

import pytest

import harness
from igd import compare, config

BAR0, BAR2, BAR4 = 0xe000_0000, 0xc000_0000, 0xf000
PROGRAM = harness.ROOT / "build" / "unit" / "standin"
(MEMORY, ANSWER, CONFIG_WRITE, CONFIG_READ, BAR_WRITE, BAR_READ, IRQFD,
 RESET) = range(8)


@pytest.fixture(scope="module")
def program():
    """Built with the sanitizers."""
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [harness.CC, "-std=c17", "-g", "-O1", "-I.", *harness.SANITIZE,
         "-Wall", "-Wextra", "-Wconversion", "-Wno-missing-field-initializers",
         "-Werror", "-o", PROGRAM, "tests/igd/standin.c"],
        cwd=harness.ROOT, check=True)
    return PROGRAM


class Device:
    """One process, and QEMU's side of its socket."""

    def __init__(self, program, tmp_path, text):
        (tmp_path / "igd.txt").write_text(text)
        self.path = tmp_path / "igd.log"
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        self.process = subprocess.Popen(
            [program, tmp_path / "igd.txt", self.path, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
        theirs.close()

    def send(self, command, payload=b"", size=None):
        size = len(payload) if size is None else size
        self.socket.sendall(struct.pack("<iIQ", command, 0, size) + payload)

    def call(self, command, payload=b""):
        self.send(command, payload)
        answer = self.socket.recv(24, socket.MSG_WAITALL)
        command, _, size, value = struct.unpack("<iIQQ", answer)
        assert (command, size) == (ANSWER, 8)
        return value

    def read(self, at, size=4):
        return self.call(CONFIG_READ, struct.pack("<IIi", at, 0, size))

    def write(self, at, value, size=4):
        self.call(CONFIG_WRITE, struct.pack("<IIi", at, value, size))

    def peek(self, address, size=4, memory=1):
        return self.call(BAR_READ, struct.pack("<QQIB3x", address, 0, size,
                                               memory))

    def poke(self, address, value, size=4, memory=1):
        self.call(BAR_WRITE, struct.pack("<QQIB3x", address, value, size,
                                         memory))

    def place(self):
        """BARs at their places, as firmware does."""
        self.call(RESET)
        for at, value in (0x10, BAR0), (0x18, BAR2), (0x20, BAR4):
            self.write(at, value)
        self.write(4, 7, 2)

    def end(self):
        """(exit status, what it said, its log)."""
        self.socket.close()
        _, words = self.process.communicate(timeout=20)
        return self.process.returncode, words, \
            compare.parse(self.path.read_text())


@pytest.fixture
def start(program, tmp_path):
    """start(name, more lines): a Device."""
    devices = []

    def make(name="gen9-skl", *more):
        text = "\n".join([config.load(name).text, *more, ""])
        devices.append(Device(program, tmp_path, text))
        return devices[-1]
    yield make
    for device in devices:
        device.socket.close()
        device.process.wait(20)


@pytest.mark.parametrize("name", config.NAMES)
def test_every_configuration(start, name):
    """Both readers of the files see the same."""
    device, paper = start(name), config.load(name)
    device.call(RESET)
    for at in range(0, 256, 4):
        assert device.read(at) == paper.igd.get(at, 4), hex(at)
    for at in range(0, 64, 4):
        device.write(at, 0xffffffff)
        fixed = ~paper.igd.get_writable(at, 4) & 0xffffffff
        assert device.read(at) & fixed == paper.igd.get(at, 4) & fixed
    for n, (kind, size) in paper.bars.items():
        assert device.read(0x10 + 4 * n) == \
            config.KINDS[kind] | (-size & 0xffffffff)
    status, words, log = device.end()
    assert (status, words, log.complete) == (0, "", True)
    assert log.totals["cw"] == 16 and log.totals["cr"] > 64


def test_sizing_by_qemu(start):
    """Before the first reset a BAR's upper half seems not to be there."""
    device = start()
    for at, size in (0x10, -1 << 24), (0x18, -1 << 28), (0x20, -64):
        device.write(at, 0xffffffff)
        assert device.read(at) & 0xfffffff0 == size & 0xfffffff0
    device.write(0x14, 0xffffffff)
    assert device.read(0x14) == 0
    device.call(RESET)
    assert device.read(0x10) == 4
    device.write(0x14, 0xffffffff)
    assert device.read(0x14) == 0xffffffff


def test_registers(start):
    """A row of each kind."""
    device = start("gen9-skl", "mmio 4f100 1234 keep")
    device.place()
    device.poke(BAR0 + 0xa278, 0x10001)         # masked, and its mirror
    assert device.peek(BAR0 + 0xd84) == 1
    device.poke(BAR0 + 0xa278, 0x20002)
    assert device.peek(BAR0 + 0xd84) == 3
    device.poke(BAR0 + 0xa278, 0x10000)
    assert device.peek(BAR0 + 0xd84) == 2
    device.poke(BAR0 + 0x20d0, 0x10001)         # asked, ready
    assert device.peek(BAR0 + 0x20d0) & 3 == 3
    device.poke(BAR0 + 0x138124, 0x80000005)    # clears
    assert device.peek(BAR0 + 0x138124) == 0
    device.poke(BAR0 + 0x45404, 0x22)           # state follows
    assert device.peek(BAR0 + 0x45404) == 0x33
    device.poke(BAR0 + 0x64010, 0x80000000)     # answers
    assert device.peek(BAR0 + 0x64010) == 0x50000000
    device.poke(BAR0 + 0x42000, 0)              # fixed
    assert device.peek(BAR0 + 0x42000) == 0x8e000000
    assert device.peek(BAR0 + 0x70000) != device.peek(BAR0 + 0x70000)
    device.poke(BAR0 + 0x4f100, 5)              # firmware's, locked
    assert device.peek(BAR0 + 0x4f100) == 0x1234
    device.poke(BAR0 + 0x2030, 0x11223344_55667788, 8)
    assert device.peek(BAR0 + 0x2034) == 0x11223344
    assert device.peek(BAR0 + 0x2031, 1) == 0x77


def test_bars(start):
    """Each answers at its place alone; what is beside is nobody's."""
    device = start()
    device.place()
    device.poke(BAR2 + 0x1000, 0xabcd)
    device.poke(BAR4, 0x10, 4, memory=0)
    assert device.peek(BAR2 + 0x1000) == 0xabcd
    assert device.peek(BAR4, 4, memory=0) == 0x10
    assert device.peek(BAR4) == 2**64 - 1
    assert device.peek(BAR0 + (16 << 20)) == 2**64 - 1
    assert device.peek(BAR0 - 4) == 2**64 - 1
    device.write(0x10, 0xd0000000)
    assert device.peek(BAR0) == 2**64 - 1
    assert device.peek(0xd0000000) == 0


def test_log(start):
    """Lines in order; repeats, hot registers and the page table are short."""
    device = start()
    device.place()
    for _ in range(1000):
        device.poke(BAR0 + 0x2030, 7)
    for n in range(600):
        device.poke(BAR0 + 0x2030, n)
        device.peek(BAR0 + 0x2034)
    for n in range(512):
        device.poke(BAR0 + 0x800000 + 8 * n, n << 12 | 3, 8)
    device.peek(BAR0 + 0x2030)
    status, words, log = device.end()
    assert (status, words, log.complete) == (0, "", True)
    assert [str(e) for e in log.of("mw")[:1000]] == ["mw 2030 4 7"] * 1000
    assert len(log.of("mw")) == 1600 and len(log.of("mr")) == 256 + 1
    assert log.hot == {0x2034: 600}
    assert log.totals["mr"] == 601 and log.totals["gw"] == 512
    burst, = log.of("gw")
    assert burst.words[:2] == (0x800000, 512)
    assert len(device.path.read_text().splitlines()) < 900


def test_memory_and_interrupts_are_let_go(start):
    """Descriptors that come are closed; there is no answer."""
    device = start()
    sent, kept = os.pipe()
    fds = array.array("i", [kept, kept]).tobytes()
    for command, size in (MEMORY, 192), (IRQFD, 0):
        device.socket.sendmsg(
            [struct.pack("<iIQ", command, 0, size) + bytes(size)],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    os.close(kept)
    assert device.read(0, 2) == 0x8086
    assert os.read(sent, 1) == b""      # nobody else holds the other end
    os.close(sent)


MALFORMED = {
    "unknown": lambda d: d.send(8),
    "negative": lambda d: d.send(-1),
    "an answer": lambda d: d.send(ANSWER, bytes(8)),
    "too long": lambda d: d.send(CONFIG_READ, b"", 1 << 40),
    "too short": lambda d: d.send(BAR_READ, bytes(8)),
    "config beyond": lambda d: d.send(
        CONFIG_READ, struct.pack("<IIi", 4096, 0, 1)),
    "config far beyond": lambda d: d.send(
        CONFIG_WRITE, struct.pack("<IIi", 0xffffffff, 0, 4)),
    "config of 3 bytes": lambda d: d.send(
        CONFIG_READ, struct.pack("<IIi", 0, 0, 3)),
    "config of -1 bytes": lambda d: d.send(
        CONFIG_READ, struct.pack("<IIi", 0, 0, -1)),
    "bar of 5 bytes": lambda d: d.send(
        BAR_READ, struct.pack("<QQIB3x", BAR0, 0, 5, 1)),
    "cut": lambda d: d.send(CONFIG_READ, bytes(4), 12),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_messages(start, name):
    """One line, status 1; nothing is read or written beyond bounds."""
    device = start()
    device.place()
    MALFORMED[name](device)
    status, words, _ = device.end()
    assert status == 1 and words.startswith("standin: ")
    assert len(words.splitlines()) == 1


@pytest.mark.parametrize("line", [
    "bar 6 mem32 1000", "bar 5 mem64 1000", "bar 0 mem32 1001", "bar 0 what 8",
    "bar 0 mem32 80000000", "igd 1000 1 0", "igd ffd 4 0", "igd 0 8 0",
    "igd 0 4", "mmio 800000 0", "mmio 0 123456789", "flr 70 -5", "nonsense 1",
    "igd 0 4 12345678 xyz"])
def test_bad_configurations(start, line):
    process = start("gen9-skl", line).process
    _, words = process.communicate(timeout=20)
    assert process.returncode == 1 and words.startswith("standin: ")
    assert len(words.splitlines()) == 1


def test_where_firmware_puts_stolen_memory(start):
    """SeaBIOS knows BDSM's old place alone; BAR 0 shows it, too."""
    for name, at in ("gen9-skl", 0x5c), ("gen12-tgl", 0xc0):
        device = start(name, config.for_firmware(name))
        device.place()
        device.write(0x5c, 0x7c000000)
        assert device.read(at) == 0x7c000000
        assert device.peek(BAR0 + 0x1080c0) == 0x7c000000
        assert device.read(0x5c) == (0x7c000000 if at == 0x5c else 0)


# --- Reset of the function ---

def test_flr(start):
    """Registers are lost but for locked ones; one is dead afterwards."""
    device = start("gen9-skl", "mmio a090 88040000", "mmio d48 1000 dead",
                   "flr 70 0")
    device.place()
    device.write(0xfc, 0x7ff00000)
    assert device.peek(BAR0 + 0xa090) == 0x88040000
    device.poke(BAR0 + 0xd48, 0x2000)
    device.write(0x78, 0x8000, 2)
    assert device.read(4, 2) == 0 and device.read(0x10) == 4
    assert device.read(0xfc) == 0x7ff00000
    device.write(0x10, BAR0)
    assert device.peek(BAR0 + 0xa090) == 0
    assert device.peek(BAR0 + 0x108040) == 0x141
    for at, comes_back in (0xa090, True), (0xd48, False):
        device.poke(BAR0 + at, 0x3000)
        assert (device.peek(BAR0 + at) == 0x3000) == comes_back
    assert "flr" in [str(e) for e in device.end()[2].events]


def test_flr_takes_time_or_never_ends(start):
    device = start("gen8-bdw", "flr a4 300")
    device.place()
    device.write(0xa8, 1, 1)
    begin = time.monotonic()
    assert device.read(0) == 0xffffffff
    while device.read(0) == 0xffffffff:
        assert time.monotonic() - begin < 10
    assert time.monotonic() - begin >= 0.25
    device = start("gen8-bdw", "flr a4 never")
    device.place()
    device.write(0xa8, 1, 1)
    assert device.read(0, 2) == 0xffff and device.read(0x10) == 0xffffffff
    assert device.peek(BAR0) == 2**64 - 1


# --- Comparison ---

def log(*lines):
    return compare.parse("\n".join([*lines, "total mr 0", "end"]))


BASE = ("reset", "mw 2030 4 1", "mr 2030 4 1", "mw a278 4 10001",
        "mw 2034 4 2", "gw 800000 2 11 22 33", "mw 2038 4 3")


def planted(at, line):
    return log(*BASE[:at], line, *BASE[at + 1:])


def test_alike():
    assert compare.difference(log(*BASE), log(*BASE)) is None
    # Reads and the pages' own addresses are no difference.
    for at, line in (2, "mr 9999 4 1"), (5, "gw 800000 2 11 22 44"):
        assert compare.difference(log(*BASE), planted(at, line)) is None


@pytest.mark.parametrize("at, line", [
    (1, "mw 2030 4 9"), (1, "mw 2031 1 1"), (4, "mr 2034 4 2"),
    (5, "gw 800000 2 12 22 33"), (5, "gw 800000 2 11 23 33"),
    (5, "gw 800008 2 11 22 33"), (6, "mr 0 4 0"), (2, "mw 2030 4 1")])
def test_a_difference_is_found(at, line):
    text = compare.difference(log(*BASE), planted(at, line))
    assert text and "differs" in text


def test_order_counts():
    one = log("mw 2030 4 1", "mw 2034 4 2")
    other = log("mw 2034 4 2", "mw 2030 4 1")
    text = compare.difference(one, other)
    assert "-mw 2034 4 2" in text and "write 0 of 2 and 2" in text


def test_loops_count_once():
    """Named ones; a repeated write elsewhere is a difference."""
    aux = ("mw 64014 4 1", "mw 64010 4 80000000")
    assert compare.difference(log(*BASE, *aux),
                              log(*BASE, *aux * 5)) is None
    assert compare.difference(log(*BASE, *aux), log(*BASE, *aux[:1]))
    assert compare.difference(
        log("mw 2030 4 1"), log("mw a278 4 10000", "mw 2030 4 1")) is None
    assert compare.difference(log("mw 2030 4 1"), log("mw 2030 4 1 x 2"))


def test_a_lane_is_compared_by_itself():
    """Where its writes come is the scheduler's; their order is not."""
    one = log("mw 2030 4 1", "mw 2034 4 2", "mw 1a230 4 0", "mw 1a230 4 20")
    other = log("mw 1a230 4 0", "mw 2030 4 1", "mw 1a230 4 20", "mw 2034 4 2")
    assert compare.difference(one, other) is None
    other = log("mw 1a230 4 20", "mw 2030 4 1", "mw 1a230 4 0", "mw 2034 4 2")
    text = compare.difference(one, other)
    assert text.startswith("submission: write 0 of 2 and 2 differs")


def test_split_bursts_are_joined(start, program, tmp_path):
    """What a timer puts between two writes of the table changes nothing."""
    texts = []
    for between in [], [0xa278]:
        device = start()
        device.place()
        for n in range(100):
            device.poke(BAR0 + 0x800000 + 8 * n, n << 12 | 3, 8)
            if n == 40:
                for at in between:
                    device.poke(BAR0 + at, 0x10000)
        texts.append(device.end()[2])
    assert len(texts[1].of("gw")) == 2
    assert compare.difference(*texts) is None


def test_policy():
    arrived = compare.config_writes(log(
        "cw 4 2 7", "cw 10 4 ffffffff", "cw fc 4 0", "cw 5c 4 0", "cw e8 2 1",
        "cw 78 2 0"))
    assert [(name, allowed) for name, allowed, _ in arrived] == [
        ("COMMAND", True), ("BAR", False), ("ASLS", False), ("BDSM", False),
        ("SWSCI", False), ("78", False)]


def test_since_a_mark():
    one = log("cw 10 4 1", "cw f8 1 4d", "cw 4 2 7")
    assert [str(e) for e in one.since("cw f8 1 4d").events] == ["cw 4 2 7"]
