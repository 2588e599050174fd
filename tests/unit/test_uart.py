# SPDX-License-Identifier: MIT
"""16550A as Linux's 8250 driver meets it, and no byte lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmodel import Machine

PORT = 0x3F8
RBR, THR, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 0, 1, 2, 2, 3, 4, 5, 6, 7
LOOP, OUT2, OUT1, RTS, DTR = 0x10, 8, 4, 2, 1
TRIGGERS = {0: 1, 1: 4, 2: 8, 3: 14}


class Uart(Machine):
    def __init__(self, put=True):
        super().__init__()
        self.output = bytearray()

        def take(_ctx, data, n):
            self.output += bytes(self.m.ffi.buffer(data, n))
        self.put = self.m.callback("void(void *, const uint8_t *, size_t)",
                                   take)
        self.u = self.m.new("struct uart *")
        self.rts = []       # as the other side sees it, each change
        self.set_rts = self.m.callback("void(void *, _Bool)",
                                       lambda _, on: self.rts.append(on))
        assert self.m.uart_init(self.u, self.bus, self.virq,
                                self.put if put else self.m.NULL,
                                self.set_rts if put else self.m.NULL,
                                self.m.NULL) == 0

    def get(self, reg):
        return self.inp(PORT + reg)

    def set(self, reg, value):
        self.out(PORT + reg, value)

    def receive(self, data, ends_in_break=False):
        return self.m.uart_receive(self.u, data, len(data), ends_in_break)

    def irq(self):
        return bool(self.lines.get(4))

    def start(self, ier=0, fcr=0xC7):
        """As an open port: FIFOs on, OUT2 and the modem lines up."""
        self.set(FCR, fcr)
        self.set(LCR, 3)
        self.set(MCR, OUT2 | RTS | DTR)
        self.set(IER, ier)

    def read_all(self):
        data = bytearray()
        while self.get(LSR) & 1:
            data.append(self.get(RBR))
        return bytes(data)


@pytest.fixture
def uart():
    return Uart()


def test_linux_autoconfig_finds_a_16550a(uart):
    """drivers/tty/serial/8250/8250_port.c: autoconfig()."""
    uart.set(IER, 0)
    assert uart.get(IER) & 0x0F == 0
    uart.set(IER, 0x0F)
    assert uart.get(IER) == 0x0F         # and no UUE bit of an XScale
    uart.set(IER, 0)
    uart.set(MCR, LOOP | 0x0A)
    assert uart.get(MSR) & 0xF0 == 0x90  # loopback: RTS and OUT2 come back
    uart.set(MCR, 0)
    uart.set(LCR, 0xBF)                  # no EFR of a 16650
    uart.set(FCR, 0)
    uart.set(LCR, 0)
    uart.set(FCR, 1)
    assert uart.get(IIR) >> 6 == 3
    uart.set(LCR, 0x80)
    uart.set(FCR, 0x21)                  # no 64-byte FIFO of a 16750
    assert uart.get(IIR) >> 5 == 6
    uart.set(LCR, 0)
    uart.set(SCR, 0xAA)
    assert uart.get(SCR) == 0xAA


def test_divisor_latch(uart):
    uart.set(LCR, 0x83)
    uart.set(0, 1)
    uart.set(1, 2)
    assert (uart.get(0), uart.get(1)) == (1, 2)
    assert uart.output == b""
    uart.set(LCR, 3)
    assert (uart.get(0), uart.get(1)) == (0, 0)
    assert uart.get(LCR) == 3


def test_output_as_the_console_writes_it(uart):
    for byte in b"Linux version 6.1\r\n":
        assert uart.get(LSR) & 0x60 == 0x60
        uart.set(THR, byte)
    assert uart.output == b"Linux version 6.1\r\n"


def test_output_without_a_host_uart_is_dropped():
    uart = Uart(put=False)
    uart.set(THR, 0x41)
    assert uart.get(LSR) == 0x60


def test_transmitter_interrupt(uart):
    uart.start()
    uart.set(IER, 2)                     # empty: at once
    assert uart.irq() and uart.get(IIR) == 0xC2
    assert not uart.irq() and uart.get(IIR) == 0xC1
    uart.set(THR, 0x41)
    assert uart.irq()
    uart.set(IER, 0)                     # serial8250_stop_tx
    assert not uart.irq()
    uart.set(IER, 2)
    assert uart.irq()


def test_every_byte_sent_is_an_edge_of_its_own(uart):
    """PC16550D 8.6.3: a write of THR ends the interrupt, the byte's departure
    begins the next. A handler that never reads IIR, at an edge-triggered
    pin, lives by that."""
    uart.start(ier=2)
    for sent in range(3):
        assert uart.irq() and len(uart.edges) == sent + 1
        uart.set(THR, 0x41)


def test_linux_thre_test(uart):
    """serial8250_do_startup: re-enabling the interrupt shows it again."""
    uart.start()
    uart.get(IIR)
    for _ in range(2):
        uart.set(IER, 2)
        assert uart.get(IIR) & 0xF == 2
        uart.set(IER, 0)


@pytest.mark.parametrize("code,level", TRIGGERS.items())
def test_receiver_interrupt_and_timeout(uart, code, level):
    uart.start(ier=1, fcr=code << 6 | 7)
    uart.receive(b"x" * (level - 1))
    if level > 1:
        assert uart.irq() and uart.get(IIR) == 0xCC
    uart.receive(b"x")
    assert uart.irq() and uart.get(IIR) == 0xC4
    for left in range(level, 0, -1):
        assert uart.get(LSR) & 1
        assert uart.irq()
        uart.get(RBR)
    assert not uart.irq() and not uart.get(LSR) & 1
    assert uart.get(IIR) == 0xC1


def test_16450_mode(uart):
    uart.start(ier=1, fcr=0)
    uart.receive(b"abc")
    assert uart.get(IIR) == 0x04
    assert uart.read_all() == b"abc"
    assert uart.get(IIR) == 0x01


def test_out2_gates_the_line(uart):
    uart.start(ier=1)
    uart.set(MCR, 0)
    uart.receive(b"x")
    assert not uart.irq() and uart.get(IIR) == 0xCC
    uart.set(MCR, OUT2)
    assert uart.irq()


def test_interrupts_by_priority(uart):
    uart.start(ier=0xF)
    uart.set(MCR, OUT2 | LOOP)
    for byte in range(17):
        uart.set(THR, byte)
    uart.set(MCR, OUT2)
    seen = []
    for clear in (LSR, RBR, IIR, MSR):
        seen.append(uart.get(IIR) & 0xF)
        if clear == RBR:
            for _ in range(16):
                uart.get(RBR)
        elif clear != IIR:
            uart.get(clear)
    assert seen == [6, 4, 2, 0]
    assert uart.get(IIR) == 0xC1 and not uart.irq()


def test_loopback_and_overrun(uart):
    uart.start()
    uart.set(MCR, LOOP)
    uart.receive(b"not now")
    assert not uart.get(LSR) & 1         # the line from outside is cut
    for byte in range(20):
        uart.set(THR, byte)
    assert uart.output == b""
    assert uart.get(LSR) == 0x63
    assert uart.get(LSR) == 0x61         # the error is told once
    assert uart.read_all() == bytes(range(16))
    uart.set(MCR, 0)
    assert uart.read_all() == b"not now"


def test_modem_lines(uart):
    assert uart.get(MSR) == 0xB0         # the other side is ready
    uart.set(MCR, LOOP | OUT1)
    assert uart.get(MSR) == 0x40 | 0x0B
    uart.set(MCR, LOOP)
    assert uart.get(MSR) == 0x04         # trailing edge of RI
    uart.set(MCR, LOOP | DTR)
    assert uart.get(MSR) == 0x22
    assert uart.get(MSR) == 0x20


def test_fifo_reset_takes_what_a_fifo_held(uart):
    uart.start()
    uart.receive(bytes(range(40)))
    uart.set(FCR, 3)
    assert uart.read_all() == bytes(range(16, 40))
    uart.receive(b"x")
    uart.set(FCR, 0)                     # switching the FIFOs clears them
    assert not uart.get(LSR) & 1


def test_pasted_text_is_not_lost(uart):
    """By a sender who waits while RTS is off, at most 16 bytes late."""
    uart.start(ier=1)
    text = bytes(n % 251 for n in range(4000))
    sent, got, late = 0, bytearray(), 16
    while len(got) < len(text):
        while sent < len(text) and (uart.rts[-1] or late):
            late = 16 if uart.rts[-1] else late - 1
            assert uart.receive(text[sent:sent + 1]) == 1
            sent += 1
        assert uart.irq()
        for _ in range(16):              # one interrupt's work
            if uart.get(LSR) & 1:
                got.append(uart.get(RBR))
    assert got == text and not uart.irq()
    assert uart.rts[-1] and uart.rts.count(False) > 3
    assert not uart.get(LSR) & 2


def test_rts_is_the_guests(uart):
    assert uart.rts == []                # off until a driver is there
    uart.set(MCR, RTS | OUT2)
    uart.set(MCR, RTS | LOOP)            # its pin is off then (PC16550D 8.7)
    uart.set(MCR, RTS)
    uart.m.uart_reset(uart.u)
    assert uart.rts == [True, False, True, False]
    uart.receive(b"x" * 600)
    uart.set(MCR, RTS)                   # no room
    assert len(uart.rts) == 4
    uart.read_all()
    assert uart.rts[4:] == [True]


def test_room(uart):
    """What a sender who does not look at RTS loses is an overrun."""
    uart.start(ier=4)
    taken = uart.receive(b"y" * 400)
    assert taken == 400 and not uart.get(LSR) & 2
    taken += uart.receive(b"y" * 500)
    assert taken < 900 and uart.receive(b"y") == 0
    assert uart.irq() and uart.get(IIR) & 0xF == 6
    assert uart.get(LSR) & 2 and not uart.get(LSR) & 2
    assert uart.read_all() == b"y" * taken
    assert uart.receive(b"") == 0 and not uart.get(LSR) & 2


@pytest.mark.parametrize("before", [0, 5, 40])
@pytest.mark.parametrize("fcr", [0xC7, 0])
def test_a_break_is_told_with_its_byte(uart, before, fcr):
    """PC16550D, LSR bit 4: when its byte is at the top of the FIFO, and once.
    Linux takes SysRq's key from what comes next."""
    uart.start(ier=5, fcr=fcr)
    uart.receive(b"x" * before + b"\0", ends_in_break=True)
    uart.receive(b"h")
    for _ in range(before):
        assert uart.get(IIR) & 0xF != 6
        assert uart.get(LSR) & 0x11 == 1 and uart.get(RBR) == ord("x")
    assert uart.irq() and uart.get(IIR) & 0xF == 6
    assert uart.get(LSR) & 0x11 == 0x11
    assert uart.get(IIR) & 0xF != 6 and uart.get(LSR) & 0x11 == 1
    assert uart.get(RBR) == 0
    assert uart.get(LSR) & 0x11 == 1 and uart.get(RBR) == ord("h")
    assert not uart.get(LSR) & 1


def test_read_only_registers(uart):
    for reg in (LSR, MSR):
        before = uart.get(reg)
        uart.set(reg, 0xFF)
        assert uart.get(reg) == before


def test_reset_keeps_what_the_user_typed(uart):
    uart.start(ier=0xF)
    uart.receive(b"abc" * 10)
    assert uart.irq()
    uart.m.uart_reset(uart.u)
    assert not uart.irq()
    assert [uart.get(r) for r in (IER, IIR, LCR, MCR, MSR)] == \
        [0, 1, 0, 0, 0xB0]
    uart.start(fcr=1)
    assert uart.read_all().endswith(b"bc")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(
    st.tuples(st.just("input"), st.binary(max_size=300)),
    st.tuples(st.just("read"), st.integers(1, 40)),
    st.tuples(st.just("write"), st.binary(max_size=20)),
    st.tuples(st.just("poll"), st.sampled_from([IIR, LSR, MSR, IER, SCR])),
    st.tuples(st.just("ier"), st.integers(0, 15))), max_size=40),
    st.sampled_from([0x07, 0xC7, 0x00]))
def test_streams_and_the_line(steps, fcr):
    """Bytes come out in order, and the line is up exactly while the enabled
    causes that the guest can see are."""
    uart = Uart()
    uart.start(fcr=fcr)
    sent, got, written, ier = bytearray(), bytearray(), bytearray(), 0
    for what, value in steps:
        if what == "input":
            sent += value[:uart.receive(value)]
        elif what == "read":
            for _ in range(value):
                if uart.get(LSR) & 1:
                    got.append(uart.get(RBR))
        elif what == "write":
            for byte in value:
                uart.set(THR, byte)
            written += value
        elif what == "poll":
            uart.get(value)
        else:
            uart.set(IER, value)
            ier = value
        waiting = len(got) < len(sent)
        assert bool(uart.get(LSR) & 1) == waiting
        if ier & 1 and waiting:
            assert uart.irq()
        if not ier & 2:
            assert uart.irq() == bool(ier & 1 and waiting or
                                      ier & 8 and uart.u.msr & 15)
        assert sent.startswith(got)
    assert uart.output == written
    got += uart.read_all()
    assert got == sent
