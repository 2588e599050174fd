# SPDX-License-Identifier: MIT
"""The UEFI driver in the display's ROM, between a firmware's fakes: what it
tells, what is on the screen, and that nothing of it is left behind."""
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness

MAGIC = 0x706f474d
FILL, READ, WRITE, MOVE = range(4)
RGBX, BGRX = range(2)
INVALID, UNSUPPORTED = 1 << 63 | 2, 1 << 63 | 3
NOT_OURS = 0xa5a5a5a5      # what lies between the lines


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "gop", ["vmm/assign/gop/gop.c"], fakes="tests/unit/gop_fakes.c",
        headers=["tests/unit/gop_fakes.h"])


class Card:
    """A display with a framebuffer at an offset in a 64-bit BAR."""

    def __init__(self, m, width=7, height=5, line=9, form=BGRX, offset=16,
                 bar=2, kind=0xc, magic=MAGIC, size=256, memory=None):
        self.m, self.width, self.height, self.line = m, width, height, line
        self.form = form
        words = offset // 4 + line * height
        self.memory = memory or m.new("uint32_t[]", words)
        for i in range(words):
            self.memory[i] = NOT_OURS
        self.at = int(m.ffi.cast("uintptr_t", self.memory)) + offset
        base = self.at - offset
        assert base % 16 == 0
        table = struct.pack("<IIQ4I", magic, bar, offset, width, height,
                            4 * line, form)
        m.ffi.buffer(m.card_rom)[0x40:0x40 + len(table)] = table
        m.card_rom_size[0] = size
        for i in range(6):
            m.card_bars[i] = 0xffffffff
        m.card_bars[bar] = base & 0xffffffff | kind
        if bar < 5:
            m.card_bars[bar + 1] = base >> 32
        m.card_enabled[0] = 0
        for i in range(5):
            m.fails[i] = False
        self.offset = offset // 4
        assert m.load_driver() == 0

    def start(self):
        assert self.m.driver_supported() == 0
        assert self.m.driver_start() == 0
        return self

    def screen(self):
        """Rows of pixels as a Blt buffer has them; the gaps are nobody's."""
        rows = []
        for y in range(self.height):
            row = list(self.memory[self.offset + y * self.line + x]
                       for x in range(self.line))
            assert set(row[self.width:]) <= {NOT_OURS}
            rows.append([p if self.form == BGRX else
                         p & 0xff00ff00 | (p & 0xff) << 16 | p >> 16 & 0xff
                         for p in row[:self.width]])
        assert set(self.memory[i] for i in range(self.offset)) <= {NOT_OURS}
        return rows

    def blt(self, operation, at, buffer=None, delta=0):
        raw = self.m.NULL
        if buffer is not None:
            raw = self.m.new("uint32_t[]", buffer)
        status = self.m.blt(raw, operation,
                            self.m.new("uint64_t[6]", at), delta)
        return status, buffer and list(raw)

    def stop(self):
        assert self.m.driver_stop() == 0
        self.left_nothing()

    def left_nothing(self):
        assert self.m.pages_held[0] == self.m.opened[0] == 0


@pytest.mark.parametrize("form", [BGRX, RGBX])
def test_the_mode_is_the_table_s(m, form):
    card = Card(m, 1366, 768, 1376, form, 0x800000).start()
    told = m.new("struct told_mode *")
    assert m.mode_told(told)
    assert (told.width, told.height, told.format) == (1366, 768, form)
    assert (told.pixels_per_line, told.info_size) == (1376, 36)
    assert (told.count, told.current) == (1, 0)
    assert (told.base, told.size) == (card.at, 1376 * 4 * 768)
    assert m.card_enabled[0] == 0x200
    assert card.screen() == [[0] * 1366] * 768
    card.stop()


def test_a_bar_of_32_bits_has_no_second_half(m):
    """The next register is another BAR's; the last one has none behind it."""
    for bar in 0, 5:
        card = Card(m, bar=bar, kind=8, memory=m.low_memory())
        m.card_bars[1] = 0xdead0000
        card.start()
        assert card.screen() == [[0] * 7] * 5
        card.stop()


@given(form=st.sampled_from([BGRX, RGBX]), steps=st.lists(st.tuples(
    st.integers(0, 4), *[st.integers(0, 3)] * 4, st.integers(0, 6),
    st.integers(0, 5), st.integers(0, 3),
    st.integers(0, 2**32 - 1)), max_size=12))
def test_drawing(m, form, steps):
    """UEFI 2.10, 12.9.2.4, by a model of rows of pixels."""
    card = Card(m, form=form).start()
    width, height = card.width, card.height
    model = [[0x10000 * x + y + 1 for x in range(width)]
             for y in range(height)]
    assert card.blt(WRITE, (0, 0, 0, 0, width, height),
                    sum(model, []))[0] == 0
    for operation, sx, sy, x, y, w, h, more, colour in steps:
        line = w + more
        buffer = [(colour + 0x01030507 * n) % 2**32
                  for n in range((max(y, sy) + h + 1) * (line + 20))]
        delta = 4 * line if more else 0
        off = lambda px, py: px + w > width or py + h > height
        wrong = (operation > MOVE or not w or not h or
                 operation in (READ, MOVE) and off(sx, sy) or
                 operation != READ and off(x, y))
        status, after = card.blt(operation, (sx, sy, x, y, w, h),
                                 None if operation == MOVE else buffer, delta)
        assert status == (INVALID if wrong else 0)
        expected = list(buffer)
        before = [list(row) for row in model]
        for i in range(0 if wrong else h):
            for k in range(w):
                if operation == FILL:
                    model[y + i][x + k] = buffer[0]
                elif operation == READ:
                    expected[(y + i) * line + x + k] = before[sy + i][sx + k]
                elif operation == WRITE:
                    model[y + i][x + k] = buffer[(sy + i) * line + sx + k]
                else:
                    model[y + i][x + k] = before[sy + i][sx + k]
        if operation != MOVE:
            assert after == expected
        assert card.screen() == model
    card.stop()


@pytest.mark.parametrize("at", [
    (0, 0, 2**64 - 1, 0, 2, 2), (0, 0, 0, 2**64 - 1, 2, 2),
    (2**64 - 1, 0, 0, 0, 2, 2), (0, 0, 0, 0, 2**64 - 1, 1),
    (0, 0, 1, 1, 2**63, 2**63)])
def test_numbers_that_would_wrap(m, at):
    card = Card(m).start()
    assert card.blt(MOVE, at)[0] == INVALID
    card.stop()


def test_without_a_buffer(m):
    card = Card(m).start()
    for operation in FILL, READ, WRITE:
        assert card.blt(operation, (0, 0, 0, 0, 1, 1))[0] == INVALID
    card.stop()


def test_there_is_one_mode_and_it_begins_black(m):
    card = Card(m).start()
    assert card.blt(FILL, (0, 0, 0, 0, 7, 5), [0x123456])[0] == 0
    assert m.set_mode(1) == UNSUPPORTED and m.query_mode(1) == INVALID
    assert card.screen()[4][6] == 0x123456
    assert m.set_mode(0) == 0
    assert card.screen() == [[0] * 7] * 5
    m.fails[m.FAILS_POOL] = True
    assert m.query_mode(0) == 1 << 63 | 9
    card.stop()


@pytest.mark.parametrize("fields", [{"magic": MAGIC + 1}, {"size": 0},
                                    {"size": 0x5f}])
def test_a_card_without_a_table_is_another_driver_s(m, fields):
    card = Card(m, **fields)
    assert m.driver_supported() == UNSUPPORTED
    card.left_nothing()


@pytest.mark.parametrize("what", ["OPEN", "CONFIG", "PAGES", "INSTALL"])
def test_a_start_that_fails_leaves_nothing(m, what):
    card = Card(m)
    m.fails[getattr(m, f"FAILS_{what}")] = True
    assert m.driver_start() >> 63
    card.left_nothing()
    m.fails[getattr(m, f"FAILS_{what}")] = False
    card.start().stop()
    card.start().stop()
