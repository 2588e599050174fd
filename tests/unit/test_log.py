# SPDX-License-Identifier: MIT
"""format() against Python's % formatting; lines, ring and sinks of the log."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

# The sinks: what was written to each, and whether it is there.
FAKES = """
/* A hosted compiler knows log() as a function. */
#define log log_state
#include "kernel/log_sink.c"
#undef log
#include <pthread.h>
#include <sched.h>
#include "kernel/screen.h"
#include "kernel/serial.h"
#define SINK 8192
enum { AT_COM1, AT_COM2, AT_SCREEN, AT_PCI, AT_UART, SINKS };
char sink[SINKS][SINK];
size_t sink_length[SINKS];
bool sink_absent[SINKS];
unsigned drained[SINKS];
static bool many;
static void put(int at, const char *text, size_t n)
{
	for (size_t i = 0; i < n && sink_length[at] < SINK; i++) {
		sink[at][sink_length[at]++] = text[i];
		if (many && i % 16 == 8)
			sched_yield();
	}
}
void cpu_relax(void) { sched_yield(); }
/* CPUs that log at once: each a line of its own letter, 20 times. */
static void *cpu(void *letter)
{
	char line[61];
	memset(line, *(char *)letter, 60);
	line[60] = '\\n';
	for (int i = 0; i < 20; i++)
		log_emit(LOG_INFO, line, sizeof(line));
	return NULL;
}
void at_once(void)
{
	pthread_t threads[4];
	many = true;
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, cpu, (void *)&"ABCD"[i]);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	many = false;
}
static int at(serial_port port)
{
	return port == COM1 ? AT_COM1 : port == COM2 ? AT_COM2
	     : port == 0xe060 ? AT_PCI : AT_UART;
}
bool serial_join(serial_port port) { return !sink_absent[at(port)]; }
bool serial_init(serial_port port) { return !sink_absent[at(port)]; }
void serial_write_text(serial_port port, const char *text, size_t size)
{
	put(at(port), text, size);
}
void serial_drain(serial_port port) { drained[at(port)]++; }
bool screen_init(const struct boot_framebuffer *fb)
{
	return fb && !sink_absent[AT_SCREEN];
}
void screen_write(const char *text, size_t n) { put(AT_SCREEN, text, n); }
unsigned room;
bool screen_has_room(size_t n) { (void)n; return room && room--; }
static void page(void) { room = 2; put(AT_SCREEN, "--", 2); }
void pages(bool on) { log_page = on ? page : 0; }
"""


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "log", ["kernel/log.c", "kernel/log_ram.c"], fakes=FAKES,
        headers=["kernel/log_sink.h", "kernel/boot_info.h",
                 "kernel/log_ram.h"],
        cdef="extern char sink[5][8192]; extern size_t sink_length[5];"
             "extern bool sink_absent[5]; extern unsigned drained[5];"
             "void pages(bool on); extern unsigned room; void at_once(void);")


# --- format() ------------------------------------------------------------

def c_format(m, size, fmt, *args):
    """(what is in the buffer, what was returned); ASan guards the buffer."""
    buf = m.new(f"char[{max(size, 1)}]", b"\x7f" * (max(size, 1) - 1))
    length = m.format(buf if size else m.NULL, size, m.new(
        "char[]", fmt.encode("latin-1")), *args)
    text = bytes(m.ffi.buffer(buf, size))
    assert not size or 0 in text, "no terminating zero"
    return text.split(b"\0")[0].decode("latin-1"), length


FLAGS = st.sampled_from(["", "-", "0", "#", "-#", "0#", "#0", "-0"])
WIDTH = st.sampled_from(["", "1", "5", "12", "40"])
PLAIN = st.text(st.characters(min_codepoint=1, max_codepoint=255,
                              blacklist_characters="%"), max_size=8)


def whole(bits, signed):
    low, high = (-2**(bits - 1), 2**(bits - 1) - 1) if signed else (
        0, 2**bits - 1)
    return st.integers(low, high) | st.sampled_from([low, 0, 1, 9, 10, high])


@st.composite
def numbers(draw):
    """(C's format, Python's, C's type, value)"""
    letter = draw(st.sampled_from("diux"))
    long = draw(st.sampled_from(["", "l", "ll", "z"]))
    flags, width = draw(FLAGS), draw(WIDTH)
    if letter != "x":
        flags = flags.replace("#", "")
    value = draw(whole(64 if long else 32, letter in "di"))
    ctype = ("long" if long else "int") if letter in "di" else (
        "unsigned long" if long else "unsigned")
    return (f"%{flags}{width}{long}{letter}", f"%{flags}{width}{letter}",
            ctype, value)


@st.composite
def texts(draw):
    flag, width = draw(st.sampled_from(["", "-"])), draw(WIDTH)
    precision = draw(st.sampled_from(["", ".0", ".3", ".20"]))
    spec = f"%{flag}{width}{precision}s"
    return spec, spec, "char[]", draw(PLAIN)


@st.composite
def characters(draw):
    return "%c", "%c", "int", chr(draw(st.integers(1, 255)))


PIECE = numbers() | texts() | characters() | PLAIN.map(lambda t: (t, t)) | \
    st.just(("%%", "%%"))


def argument(m, ctype, value):
    if ctype == "char[]":
        return m.new("char[]", value.encode("latin-1"))
    return m.ffi.cast(ctype, ord(value) if isinstance(value, str) else value)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECE, max_size=6), st.integers(0, 120))
def test_format_is_pythons(m, pieces, size):
    args = [p[3] for p in pieces if len(p) > 2]
    expected = "".join(p[1] for p in pieces) % tuple(args)
    fmt = "".join(p[0] for p in pieces)
    text, length = c_format(m, size, fmt, *[argument(m, p[2], p[3])
                                            for p in pieces if len(p) > 2])
    assert length == len(expected)
    assert text == expected[:max(size - 1, 0)]


@settings(max_examples=100, deadline=None)
@given(PLAIN, st.integers(0, 12), st.integers(0, 12),
       st.integers(0, 2**64 - 1))
def test_stars_and_pointers(m, text, width, precision, pointer):
    cast = m.ffi.cast
    assert c_format(m, 200, "<%*s|%.*s|%p>", cast("int", width),
                    argument(m, "char[]", text), cast("int", precision),
                    argument(m, "char[]", text), cast("void *", pointer))[0] \
        == f"<{text:>{width}}|{text[:precision]}|{pointer:#x}>"


@pytest.mark.parametrize("fmt", ["%", "%5", "%l", "%-", "%.", "a%"])
def test_a_format_that_ends_early(m, fmt):
    """Stays within the format: ASan watches its end."""
    text, length = c_format(m, 40, fmt)
    assert text == fmt.split("%")[0] and length == len(text)


def test_an_unterminated_string_with_a_precision(m):
    four = m.new("char[4]", b"abcd")
    assert c_format(m, 20, "%.*s", m.ffi.cast("int", 4), four) == ("abcd", 4)


# --- Lines and the ring --------------------------------------------------

class Log:
    """The log's state is a global of the C file: where it stands now."""

    def __init__(self, m):
        self.m = m
        position = m.new("u64[1]", [0])
        while self.read(position)[0]:
            pass
        self.end, self.written = position[0], b""
        for n in range(5):
            m.sink_length[n] = m.drained[n] = 0
            m.sink_absent[n] = False

    def read(self, position, size=8192):
        buf = self.m.new(f"char[{max(size, 1)}]")
        n = self.m.log_read(position, buf, size)
        return self.m.ffi.buffer(buf, n)[:], position[0]

    def emit(self, line, level=None):
        level = self.m.LOG_INFO if level is None else level
        self.m.log_emit(level, self.m.new("char[]", line), len(line))
        self.written += line

    def write(self, level, text):
        self.m.log_write(level, self.m.new("char[]", b"%s"),
                         self.m.new("char[]", text))

    def new(self):
        position = self.m.new("u64[1]", [self.end])
        out = b""
        while part := self.read(position)[0]:
            out += part
        return out

    def at(self, n):
        return self.m.ffi.buffer(self.m.sink[n], self.m.sink_length[n])[:]


@pytest.fixture
def log(m):
    m.log_start(0, m.LOG_INFO, m.NULL)
    return Log(m)


def test_prefixes(m, log):
    for level in (m.LOG_ERROR, m.LOG_WARN, m.LOG_INFO, m.LOG_DEBUG):
        log.write(level, b"text")
    assert log.new().splitlines() == [
        b"monocle: error: text", b"monocle: warning: text", b"monocle: text",
        b"monocle: text"]


@pytest.mark.parametrize("length", [0, 1, 200, 230, 237, 238, 239, 240, 241,
                                    244, 245, 246, 247, 255, 256, 1000])
def test_a_long_line_is_cut_and_stays_a_line(m, log, length):
    for level, prefix in ((m.LOG_ERROR, b"monocle: error: "),
                          (m.LOG_INFO, b"monocle: ")):
        log = Log(m)
        log.write(level, b"x" * length)
        whole_line = prefix + b"x" * length
        room = m.LOG_LINE - 2       # the newline, and no zero
        assert log.new() == whole_line[:room] + b"\n"


LINE = st.integers(0, 700).map(lambda n: bytes(n % 251 + 1 for n in range(n)))


@settings(max_examples=60, deadline=None)
@given(st.lists(LINE | st.just(b"y" * 40000), max_size=12),
       st.lists(st.tuples(st.integers(-150000, 30000),
                          st.integers(0, 5000)), max_size=6))
def test_the_ring_keeps_the_last_bytes(m, lines, reads):
    log = Log(m)
    log.emit(b"z" * m.LOG_RING)
    for line in lines:
        log.emit(line)
    end = log.end + len(log.written)
    for back, size in reads:
        start = max(0, end + back)
        position = m.new("u64[1]", [start])
        got, after = log.read(position, size)
        first = max(start, end - m.LOG_RING)
        expected = log.written[first - log.end:][:size] if first < end else b""
        assert got == expected
        assert after == first + len(got)


def test_cpus_log_at_once(m, log):
    """Each line is whole, in the ring and at each sink."""
    m.log_start(m.LOG_COM1 | m.LOG_COM2, m.LOG_INFO, m.NULL)
    log = Log(m)
    m.at_once()
    lines = [letter * 60 for letter in (b"A", b"B", b"C", b"D")] * 20
    for text in (log.new(), log.at(0), log.at(1)):
        assert sorted(text.splitlines()) == sorted(lines)
    assert log.at(0) == log.at(1) == log.new()
    m.log_start(0, m.LOG_INFO, m.NULL)


# --- Sinks ---------------------------------------------------------------

def e9(m):
    return bytes(e.value for e in m.events("out") if e.addr == 0xe9)


def test_each_sink_gets_what_it_was_asked_for(m, log):
    fb = m.new("struct boot_framebuffer *")
    for sinks in range(16):
        m.log_start(0, m.LOG_INFO, fb)
        log = Log(m)
        m.log_start(sinks, m.LOG_ERROR, fb)
        for n in range(3):
            m.sink_length[n] = 0
        m.clear_events()
        m.log_start(sinks, m.LOG_ERROR, fb)
        log.emit(b"line\n", m.LOG_ERROR)
        for bit, text in ((m.LOG_COM1, log.at(0)), (m.LOG_COM2, log.at(1)),
                          (m.LOG_SCREEN, log.at(2)), (m.LOG_E9, e9(m))):
            assert text.endswith(b"line\n") == bool(sinks & bit), (sinks, bit)


def test_levels(m, log):
    levels = {m.LOG_ERROR: b"E", m.LOG_WARN: b"W", m.LOG_INFO: b"I",
              m.LOG_DEBUG: b"D"}
    for n, limit in enumerate(levels):
        m.log_start(m.LOG_COM1, limit, m.NULL)
        log = Log(m)
        for level, text in levels.items():
            log.emit(text, level)
        assert log.at(0) == b"EWID"[:n + 1]
        assert log.new() == b"EWID", "the ring keeps all"


def test_the_start_brings_sinks_up_to_date(m, log):
    # So much is forgotten that the ring starts in these lines.
    log.emit(b"-" * m.LOG_RING)
    log.emit(b"first\n")
    log.emit(b"second\n")
    m.log_start(m.LOG_COM2, m.LOG_INFO, m.NULL)
    position = m.new("u64[1]", [0])
    start = log.read(position, 8192)[0]
    assert log.at(1) == start       # as much as the fake keeps
    m.log_start(0, m.LOG_INFO, m.NULL)


LATE = [("LOG_PCI", 3, 0xe060), ("LOG_UART", 4, 0xffff_8000_fe03_2000)]


@pytest.mark.parametrize("name, at, port", LATE)
def test_a_port_that_is_found_late(m, log, name, at, port):
    """It has what was said before, and what comes."""
    log.emit(b"-" * m.LOG_RING)
    log.emit(b"early\n")
    sink = getattr(m, name)
    m.log_start(sink | m.LOG_COM1, m.LOG_INFO, m.NULL)
    assert not m.log_goes_to(sink) and log.at(at) == b""
    before = log.at(0)
    assert m.log_add_serial(sink, port) and m.log_goes_to(sink)
    assert log.at(at)[-1000:] == before[-1000:]
    m.sink_length[at] = 0
    log.emit(b"late\n")
    assert log.at(at) == b"late\n" and m.log_goes_to(m.LOG_COM1)
    m.log_drain()
    assert (m.drained[0], m.drained[1], m.drained[at]) == (1, 0, 1)
    m.log_start(0, m.LOG_INFO, m.NULL)


@pytest.mark.parametrize("name, at, port", LATE)
def test_a_late_port_that_is_none(m, log, name, at, port):
    m.sink_absent[at] = True
    sink = getattr(m, name)
    m.log_start(sink, m.LOG_ERROR, m.NULL)
    assert not m.log_add_serial(sink, port) and not m.log_goes_to(sink)
    m.sink_absent[at] = False
    assert not m.log_add_serial(sink, 0) and not m.log_goes_to(sink)
    assert m.log_add_serial(sink, port)
    log.emit(b"line\n", m.LOG_WARN)
    assert log.at(at) == b"", "quiet is for it, too"
    m.log_start(0, m.LOG_INFO, m.NULL)


@pytest.mark.parametrize("name", ["LOG_PCI", "LOG_UART"])
def test_a_late_port_that_is_com1(m, log, name):
    """As SPCR mostly has it: each line comes once."""
    sink = getattr(m, name)
    m.log_start(sink | m.LOG_COM1, m.LOG_INFO, m.NULL)
    m.sink_length[0] = 0
    assert m.log_add_serial(sink, m.COM1)
    log.emit(b"line\n")
    assert log.at(0) == b"line\n"
    m.log_start(0, m.LOG_INFO, m.NULL)


def test_absent_sinks_are_left_alone(m, log):
    fb = m.new("struct boot_framebuffer *")
    for n in range(3):
        m.sink_absent[n] = True
    m.log_start(m.LOG_COM1 | m.LOG_COM2 | m.LOG_SCREEN | m.LOG_E9,
                m.LOG_ERROR, fb)
    log.emit(b"line\n", m.LOG_ERROR)
    assert [log.at(n) for n in range(3)] == [b""] * 3
    assert e9(m).endswith(b"line\n")


def test_the_guest_owns_the_screen(m, log):
    fb = m.new("struct boot_framebuffer *")
    m.log_start(m.LOG_SCREEN | m.LOG_COM1, m.LOG_ERROR, fb)
    log = Log(m)
    log.emit(b"1", m.LOG_ERROR)
    m.log_leave_screen()
    log.emit(b"2", m.LOG_ERROR)
    m.log_lock()        # by a CPU that a panic has stopped
    m.log_take_over()
    log.emit(b"3", m.LOG_ERROR)
    assert (log.at(2), log.at(0)) == (b"13", b"123")


def test_a_full_screen_is_a_page(m, log):
    m.pages(True)
    m.lib.room = 1
    for sinks in (m.LOG_COM1, m.LOG_SCREEN):
        m.log_start(sinks, m.LOG_ERROR, m.new("struct boot_framebuffer *"))
        log = Log(m)
        for line in (b"1", b"2", b"3", b"4", b"5"):
            log.emit(line, m.LOG_ERROR)
            log.emit(b"not shown", m.LOG_WARN)
    m.pages(False)
    assert log.at(2) == b"1--234--5"


KEPT = []


def test_the_copy_has_the_log_from_its_first_line_on(m, log):
    place = m.new("u64[]", m.LOG_RAM_SIZE // 8)
    KEPT.append(place)          # it is written to from now on
    text = m.new("char[201]")
    log.emit(b"." * m.LOG_RING)
    log.emit(b"early\n")
    m.log_keep(place)
    log.emit(b"late\n", m.LOG_DEBUG)
    m.log_ram_last(place, text, 201)
    assert m.ffi.string(text) == b"." * 189 + b"early\nlate\n"


def test_drain_waits_for_the_uarts(m, log):
    m.log_start(m.LOG_COM1 | m.LOG_COM2, m.LOG_ERROR, m.NULL)
    m.log_drain()
    assert (m.drained[0], m.drained[1]) == (1, 1)
