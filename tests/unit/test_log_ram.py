# SPDX-License-Identifier: MIT
"""The copy of the log that the next start finds: what a reset leaves of it is
what the caches have written back, at whatever moment it comes."""
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

# Memory behind the caches: a line of 64 bytes arrives by CLFLUSH.
FAKES = """
#include "kernel/log_ram.h"
#include <string.h>
_Alignas(64) u8 cached[LOG_RAM_SIZE], memory[LOG_RAM_SIZE];
unsigned flushes = ~0u; /* that are still to come before the reset */
void clflush(const volatile void *p)
{
	size_t at = ((size_t)p - (size_t)cached) & ~63ul;

	if (flushes && flushes--)
		memcpy(memory + at, cached + at, 64);
}
"""
EVER = 0xffffffff


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "log_ram", ["kernel/log_ram.c"], fakes=FAKES,
        headers=["kernel/log_ram.h", "kernel/log_sink.h"],
        cdef=f"extern u8 cached[{0x21000}], memory[{0x21000}];"
             "extern unsigned flushes;")


def clear(m):
    m.ffi.memmove(m.cached, random.Random(1).randbytes(0x21000), 0x21000)
    m.ffi.memmove(m.memory, m.cached, 0x21000)
    m.lib.flushes = EVER


def write(m, line):
    m.log_ram_write(m.new("char[]", line), len(line))


def last(m, size=1000, place=None):
    """What the next start is told; ASan guards the buffer."""
    text = m.new(f"char[{size}]", b"?" * (size - 1))
    m.log_ram_last(m.memory if place is None else place, text, size)
    return m.ffi.string(text)


LINE = st.integers(1, 256).map(lambda n: bytes(n % 94 + 33 for n in
                                               range(n, 2 * n - 1)) + b"\n")


@settings(max_examples=40, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=30), st.integers(0, 1200),
       st.integers(2, 1500))
def test_the_end_of_it_is_found(m, lines, before, size):
    clear(m)
    m.log_ram_start(m.cached)
    text = b""
    for line in [b"%0199d\n" % n for n in range(before)] + lines:
        write(m, line)
        text += line
    assert last(m, size) == text[-(size - 1):]
    assert last(m, 2) == b"\n"


@pytest.mark.parametrize("before", [0, 1, 655, 700, 2000])
def test_a_reset_at_any_moment(m, before):
    """The last line is whole, or the one before it is the last."""
    line = b"the new one" * 20 + b"\n"
    tried = 0
    for stop in range(20):
        clear(m)
        m.log_ram_start(m.cached)
        for n in range(before):
            write(m, b"%0199d\n" % n)
        old = last(m)
        m.lib.flushes = stop
        write(m, line)
        found = last(m)
        if m.lib.flushes:
            break
        tried += 1
        assert found in (old, (old + line)[-999:])
    assert tried >= 4 and found.endswith(line)


def test_a_second_start_begins_anew(m):
    clear(m)
    m.log_ram_start(m.cached)
    write(m, b"first\n")
    m.log_ram_start(m.cached)
    assert last(m) == b""
    write(m, b"second\n")
    assert last(m) == b"second\n"


def test_memory_that_has_not_kept_it(m):
    """Random bytes, none, and one bit that fell over."""
    clear(m)
    assert last(m) == b""
    zeros = m.new("u8[]", 0x21000)
    assert last(m, place=zeros) == b""
    m.log_ram_start(m.cached)
    for n in range(1000):
        write(m, b"%0199d\n" % n)
    whole = last(m)
    assert whole
    bits = random.Random(2)
    for _ in range(60):
        at = bits.choice([bits.randrange(24),
                          64 + bits.randrange(m.LOG_RING)])
        if 64 + 200000 % m.LOG_RING <= at < 64 + 200000 % m.LOG_RING + 256:
            continue            # what the next line takes counts no more
        m.memory[at] ^= 1 << bits.randrange(8)
        assert last(m) == b"", at
        m.memory[at] = m.cached[at]
    assert last(m) == whole


def test_it_fits_its_pages(m):
    """Nothing is written behind them: ASan's to tell."""
    clear(m)
    m.log_ram_start(m.cached)
    for _ in range(3 * m.LOG_RING // 256):
        write(m, b"x" * 255 + b"\n")
    assert bytes(m.cached)[64 + m.LOG_RING:] == \
        bytes(m.memory)[64 + m.LOG_RING:]
