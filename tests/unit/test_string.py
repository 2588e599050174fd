# SPDX-License-Identifier: MIT
"""Monocle's own memory and string functions against Python's bytes."""

import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness

NAMES = "memcpy memmove memset memcmp strlen strncmp".split()
TEXT = st.binary(max_size=40).map(lambda b: b.replace(b"\0", b"\x80"))


@pytest.fixture(scope="module")
def m():
    if platform.machine() != "x86_64":
        pytest.skip("x86 instructions")
    # Beside the C library's, hence the names.
    return harness.build("string", ["kernel/string.c"],
                         headers=["kernel/string.h"],
                         defines=[f"{name}=monocle_{name}" for name in NAMES])


def sign(n):
    return (n > 0) - (n < 0)


@given(st.binary(min_size=64, max_size=64), st.integers(0, 40),
       st.integers(0, 40), st.integers(0, 24))
def test_copies(m, content, to, source, n):
    expected = bytearray(content)
    expected[to:to + n] = content[source:source + n]
    buffer = m.new("char[64]", content)
    assert m.monocle_memmove(buffer + to, buffer + source, n) == buffer + to
    assert m.ffi.buffer(buffer)[:] == expected
    apart = m.new("char[64]", content)
    other = m.new("char[64]", bytes(64))
    assert m.monocle_memcpy(other + to, apart + source, n) == other + to
    expected = bytearray(64)
    expected[to:to + n] = content[source:source + n]
    assert m.ffi.buffer(other)[:] == expected


@given(st.integers(0, 40), st.integers(0, 24), st.integers(-300, 300))
def test_fills(m, at, n, value):
    buffer = m.new("char[64]", b"\xa5" * 64)
    assert m.monocle_memset(buffer + at, value, n) == buffer + at
    expected = bytearray(b"\xa5" * 64)
    expected[at:at + n] = bytes([value % 256]) * n
    assert m.ffi.buffer(buffer)[:] == expected


@given(TEXT, TEXT, st.integers(0, 45), st.integers(0, 40))
def test_compares(m, a, b, n, common):
    b = a[:common] + b
    x, y = m.new("char[]", a), m.new("char[]", b)
    assert m.monocle_strlen(x) == len(a)
    assert sign(m.monocle_strncmp(x, y, 99)) == (a > b) - (a < b)
    a, b = a[:n], b[:n]
    assert sign(m.monocle_strncmp(x, y, n)) == (a > b) - (a < b)
    shared = min(len(a), len(b))
    a, b = a[:shared], b[:shared]
    assert sign(m.monocle_memcmp(x, y, shared)) == (a > b) - (a < b)
