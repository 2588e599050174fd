# SPDX-License-Identifier: MIT
"""The guest's serial line on the host's: bytes both ways, and the host's
interrupt comes with the edge of a line, as on a PC."""
import random

import pytest

import harness

COM1 = 0x3f8
DATA, IER, IIR, LSR = COM1, COM1 + 1, COM1 + 2, COM1 + 5
RECEIVE, TRANSMIT = 1, 2
FIFO = 16
BYTE = 12       # accesses that pass while a byte is on the line

FAKES = """
#include "vmm/devmodel/uart.h"
u16 arrived[4096];
unsigned arrived_count;
size_t uart_receive(struct uart *u, const u8 *bytes, size_t n, bool is_break)
{
	(void)u;
	for (size_t i = 0; i < n; i++)
		arrived[arrived_count++ % 4096] = (u16)(bytes[i] |
			(is_break && i + 1 == n ? 0x100 : 0));
	return n;
}
"""


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "console", ["vmm/console.c", "kernel/serial.c"],
        headers=["vmm/console.h", "kernel/serial.h"], fakes=FAKES,
        cdef="extern unsigned short arrived[4096];"
             "extern unsigned arrived_count;")


BREAK = 0x100   # the byte that a UART makes of one, and LSR's word for it


class Host:
    """A 16550 (PC16550D, table III); each access of it takes time."""

    def __init__(self, m, arrivals, delays=()):
        self.m, self.now, self.delays = m, 0, list(delays)
        self.coming = list(arrivals)        # (when, byte)
        self.received, self.waiting, self.sent = [], [], []
        self.ier = self.busy_until = 0
        self.empty = False                  # the transmitter's interrupt
        self.level = self.edge = False
        m.lib.arrived_count = 0
        m.on_read(lambda kind, port, size: self.read(port))
        m.on_write(lambda kind, port, size, value: self.write(port, value))
        self.c = m.new("struct console *", {"present": True})
        m.serial_interrupts(COM1, False)

    def tick(self):
        self.now += 1
        while self.coming and self.coming[0][0] <= self.now:
            self.received.append(self.coming.pop(0)[1])
        assert len(self.received) <= FIFO, "overrun"
        if self.waiting and self.now >= self.busy_until:
            self.sent += self.waiting
            self.waiting, self.empty = [], True
        self.update()

    def update(self):
        level = bool(self.ier & RECEIVE and self.received or
                     self.ier & TRANSMIT and self.empty)
        self.edge |= level and not self.level
        self.level = level

    def read(self, port):
        self.tick()
        value = 0
        if port == DATA:
            value = self.received.pop(0) & 0xff if self.received else 0
        elif port == LSR:
            value = 0x60 * (not self.waiting) | bool(self.received)
            if self.received and self.received[0] & BREAK:
                self.received[0] &= 0xff        # said once (table II)
                value |= 0x10
        elif port == IIR:
            value = 1
            if self.ier & RECEIVE and self.received:
                value = 4
            elif self.ier & TRANSMIT and self.empty:
                value, self.empty = 2, False
        self.update()
        return value

    def write(self, port, value):
        self.tick()
        if port == DATA:
            if not self.waiting:
                self.busy_until = self.now
            self.waiting.append(value)
            self.busy_until += BYTE
            self.empty = False
            assert len(self.waiting) <= FIFO
        elif port == IER:
            self.empty |= bool(value & ~self.ier & TRANSMIT and
                               not self.waiting)
            self.ier = value
        self.update()

    def run(self, until):
        """The CPU's other work, and interrupts where an edge has come."""
        while self.now < until:
            self.tick()
            if self.edge:
                for _ in range(self.delays.pop() if self.delays else 0):
                    self.tick()
                self.edge = False
                self.m.console_interrupt(self.c, 0)

    def arrived(self):
        return list(self.m.lib.arrived[0:self.m.lib.arrived_count])


@pytest.mark.parametrize("seed", range(40))
def test_nothing_is_lost(m, seed):
    """Whatever arrives while something is sent, and interrupts are off; a
    BREAK stays one, whoever has read LSR before its byte is taken."""
    chance, when, arrivals, told = random.Random(seed), 0, [], []
    for n in range(60):
        when += chance.randint(BYTE, 3 * BYTE)
        arrivals.append((when, n))
        if n % 7 == 3:
            when += chance.randint(BYTE, 3 * BYTE)
            arrivals.append((when, BREAK))
    host = Host(m, arrivals, [chance.randint(0, 5 * BYTE) for _ in arrivals])
    for n in range(20):
        host.run(host.now + chance.randint(1, 5 * BYTE))
        told += range(n, n + 40)
        m.console_put(host.c, bytes(told[-40:]), 40)
    host.run(max(host.now, when) + BYTE * (len(told) + 2 * FIFO))
    assert not host.ier & TRANSMIT      # of an empty line nobody hears more
    assert host.arrived() == [byte for _, byte in arrivals]
    assert host.sent == told


def test_a_line_that_always_asks(m):
    """A broken UART does not hold the CPU."""
    Host(m, [])
    m.on_read(lambda kind, port, size: 0x04 if port == IIR else 0x61)
    c = m.new("struct console *", {"present": True})
    m.clear_events()
    m.console_interrupt(c, 0)
    assert 16 < len(m.events("in")) < 1000


def test_more_than_the_ring_holds(m):
    """On a line that takes nothing: the first bytes are kept, in order."""
    host, room, told = Host(m, []), 50, bytes(range(200))
    m.on_read(lambda kind, port, size: 0xff)
    host.c.head, host.c.sending = m.CONSOLE_RING - room, True
    m.console_put(host.c, told, len(told))
    assert host.c.head - host.c.tail == m.CONSOLE_RING
    host.c.tail = host.c.head - room - 10       # the rest has gone
    m.on_read(lambda kind, port, size: host.read(port))
    m.console_flush(host.c)     # to the last byte's end
    assert bytes(host.sent) == bytes(10) + told[:room]


def test_rts_is_passed_on(m):
    """DTR stays, and OUT2, without which there is no interrupt."""
    c = m.new("struct console *", {"present": True})
    m.clear_events()
    for on in (False, True):
        m.console_rts(c, on)
    c.present = False       # no UART: nobody's port is written to
    m.console_rts(c, False)
    assert [(e.addr, e.value) for e in m.events("out")] == [
        (COM1 + 4, 0x09), (COM1 + 4, 0x0b)]


def test_no_uart(m):
    """All ones: nothing arrives."""
    m.reset()
    m.lib.arrived_count = 0
    m.console_interrupt(m.new("struct console *", {"present": True}), 0)
    assert m.lib.arrived_count == 0


def test_init_lets_the_line_finish(m):
    """The log's last bytes are on their way when the guest's console sets
    the UART up again; the FIFO's reset would drop them."""
    polls, scratch, early = [], [0], []

    def read(kind, port, size):
        if port == LSR:
            polls.append(port)
            return 0x60 if len(polls) > 200 else 0x20
        return scratch[0]

    def write(kind, port, size, value):
        if port == COM1 + 7:
            scratch[0] = value
        elif len(polls) <= 200:
            early.append((port, value))
    m.on_read(read)
    m.on_write(write)
    assert m.serial_init(COM1)
    assert early == []


def test_the_line_s_settings(m):
    """115200 baud, 8N1, FIFOs on; OUT2, without which a PC's line gives no
    interrupt, and none before it is asked for."""
    regs, divisor = {}, {}

    def read(kind, port, size):
        return regs.get(port - COM1, 0x60)

    def write(kind, port, size, value):
        latched = regs.get(3, 0) & 0x80 and port - COM1 < 2
        (divisor if latched else regs)[port - COM1] = value
    m.on_read(read)
    m.on_write(write)
    assert m.serial_init(COM1)
    assert divisor == {0: 1, 1: 0}
    assert (regs[3], regs[2] & 1, regs[4], regs[1]) == (3, 1, 0xb, 0)


def test_a_line_that_takes_nothing(m):
    """It is waited for once."""
    reads, busy = [0], [True]

    def read(kind, port, size):
        reads[0] += 1
        return 0 if busy[0] else 0x60

    def write(text):
        reads[0] = 0
        m.serial_write(COM1, text, len(text))
        return reads[0]

    m.on_read(read)
    first = write(b"abc")
    assert write(b"abc") <= first / 1000
    busy[0] = False
    assert write(b"x" * 17) == 2


def test_two_lines_of_which_one_takes_nothing(m):
    """The other one's bytes do not make it new."""
    reads = []

    def read(kind, port, size):
        reads.append(port)
        return 0x60 if port < COM1 else 0
    m.on_read(read)
    m.serial_write(COM1, b"a", 1)
    for _ in range(3):
        reads.clear()
        m.serial_write_text(0x2f8, b"abc", 3)
        m.serial_write_text(COM1, b"a whole line", 12)
        assert reads.count(COM1 + 5) <= 1000


class Mapped:
    """Registers of 32 bits, four bytes apart, as those of an LPSS."""

    def __init__(self, m):
        self.base, self.regs, self.sent = 0x40_1000_0000, {5: 0x60}, []
        m.on_read(self.read)
        m.on_write(self.write)

    def read(self, kind, addr, size):
        assert (kind, size) == ("read", 4) and (addr - self.base) % 4 == 0
        return self.regs.get((addr - self.base) // 4, 0)

    def write(self, kind, addr, size, value):
        assert (kind, size) == ("write", 4) and (addr - self.base) % 4 == 0
        n = (addr - self.base) // 4
        if n:
            self.regs[n] = value
        else:
            self.sent.append(value)


def test_a_port_in_memory(m):
    """Its speed is firmware's: nobody knows its clock."""
    port = Mapped(m)
    port.regs[3] = 0x1b
    assert m.serial_join(port.base)
    assert (port.regs[3], port.regs[1], port.regs[2] & 1) == (0x1b, 0, 1)
    assert port.sent == []
    m.serial_write_text(port.base, b"ab\n", 3)
    assert bytes(port.sent) == b"ab\r\n"


def test_a_port_in_memory_that_sleeps(m):
    m.on_read(lambda kind, addr, size: 0xffffffff)
    m.on_write(lambda *_: None)
    assert not m.serial_join(0x40_1000_0000)
