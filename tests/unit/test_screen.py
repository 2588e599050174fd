# SPDX-License-Identifier: MIT
"""The log's screen: where the framebuffer lies, and when it can be reached."""

import pytest

import harness

# The first 4 GiB are mapped from the start, what is above later on.
FAKES = """
#include "kernel/phys.h"
u8 frame[64 * 1024];
hpa_t frame_hpa;
void *phys_to_virt(hpa_t hpa) { return frame + (hpa - frame_hpa); }
"""
PITCH, HEIGHT = 256, 128
HIGH = 0x40_0000_0000       # Intel graphics' aperture on a current laptop


@pytest.fixture
def m():
    m = harness.build("screen", ["kernel/screen.c", "kernel/font.c"],
                      headers=["kernel/screen.h", "kernel/font.h",
                               "arch/x86/types.h"],
                      fakes=FAKES,
                      cdef="extern unsigned char frame[65536]; extern unsigned"
                           " long frame_hpa;")
    m.ffi.memmove(m.frame, bytes(65536), 65536)
    return m


def start(m, base):
    m.lib.frame_hpa = base
    fb = m.new("struct boot_framebuffer *", {
        "base": base, "pitch": PITCH, "width": 64, "height": HEIGHT, "bpp": 32,
        "kind": m.DISPLAY_RGB, "red_size": 8, "green_size": 8, "blue_size": 8,
        "red_pos": 16, "green_pos": 8})
    return m.screen_init(fb)


def drawn(m):
    m.screen_write(b"Ab", 2)
    return any(bytes(m.ffi.buffer(m.frame, 65536)))


@pytest.mark.parametrize("base", [0xe0000000, (1 << 32) - PITCH * HEIGHT])
def test_below_4_gib(m, base):
    assert start(m, base)
    assert drawn(m)


@pytest.mark.parametrize("base", [HIGH, (1 << 32) - PITCH, 1 << 32])
def test_above_4_gib_nothing_is_touched_before_it_is_mapped(m, base):
    """A fault there, with no IDT yet, is a reset without a word."""
    assert start(m, base)
    assert not drawn(m)
    m.screen_mapped(m.frame)
    assert drawn(m)


def test_out_of_reach(m):
    assert start(m, HIGH)
    m.screen_mapped(m.NULL)
    assert not drawn(m)


def test_at_the_bottom_it_goes_on_at_the_top(m):
    """On a blank line; what is below it stays to be read."""
    assert start(m, 0xe0000000)
    line = PITCH * m.FONT_CELL_Y
    rows = HEIGHT // m.FONT_CELL_Y
    for n in range(rows):
        assert m.screen_row() == n
        m.screen_write(b"XX\n", 3)
    pixels = bytes(m.ffi.buffer(m.frame, rows * line))
    assert m.screen_row() == 0 and not any(pixels[:line])
    assert all(any(pixels[n * line:n * line + line]) for n in range(1, rows))


def test_a_text_screen_scrolls(m):
    m.lib.frame_hpa = 0xb8000
    assert m.screen_init(m.new("struct boot_framebuffer *", {
        "base": 0xb8000, "kind": m.DISPLAY_TEXT, "width": 4, "height": 3,
        "pitch": 8}))
    for line in (b"1\n", b"2\n", b"3333", b"4\n", b"5"):
        m.screen_write(line, len(line))
    text = bytes(m.ffi.buffer(m.frame, 24))
    assert text[1::2] == b"\x07" * 12          # grey on black
    assert text[::2] == b"3333" b"4   " b"5   "


@pytest.mark.parametrize("kind, rows", [("DISPLAY_TEXT", 25),
                                        ("DISPLAY_RGB", 8)])
def test_a_page_is_as_long_as_the_screen(m, kind, rows):
    """What was written since it was turned stays, with a line behind it."""
    m.lib.frame_hpa = 0xb8000
    text = kind == "DISPLAY_TEXT"
    assert m.screen_init(m.new("struct boot_framebuffer *", {
        "base": 0xb8000, "kind": getattr(m, kind), "bpp": 32,
        "width": 80 if text else 240, "pitch": 160 if text else 960,
        "height": rows if text else rows * m.FONT_CELL_Y}))
    line = b"x" * 19 + b"\n"
    m.screen_write(line * 3, len(line) * 3)
    m.screen_turn_page()
    lines = 0
    while m.screen_has_room(len(line)):
        m.screen_write(line, len(line))
        lines += 1
    assert lines == rows - 2        # and the last, and the cursor's
    m.screen_turn_page()
    assert m.screen_has_room(1)
    wide = 80 if text else 240 // m.FONT_CELL_X
    assert m.screen_has_room((rows - 3) * wide - 1)
    assert not m.screen_has_room((rows - 2) * wide)


def test_no_screen(m):
    assert not m.screen_init(m.new("struct boot_framebuffer *"))
