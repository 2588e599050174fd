# SPDX-License-Identifier: MIT
"""Text screens: drawn from the VGA BIOS's font, and read by the same."""
import functools
import struct

from PIL import Image, ImageChops

from boot.rom import VGABIOS

# Characters of 8 x 16, in cells 9 wide (IBM VGA technical reference).
FIRST_GLYPHS = bytes(16) + bytes.fromhex("00007e81a58181bd9981817e00000000")
WIDTH, HEIGHT = 9, 16
COLUMNS, ROWS = 80, 25
UNKNOWN = "\ufffd"
DAC = [(0, 0, 0), (0, 0, 0xAA), (0, 0xAA, 0), (0, 0xAA, 0xAA), (0xAA, 0, 0),
       (0xAA, 0, 0xAA), (0xAA, 0x55, 0), (0xAA, 0xAA, 0xAA)]
COLOURS = DAC + [tuple(level + 0x55 for level in colour) for colour in DAC]
COLOURS[14] = (0xFF, 0xFF, 0x55)


@functools.cache
def font():
    """256 glyphs of 16 bytes."""
    data = VGABIOS.read_bytes()
    start = data.index(FIRST_GLYPHS)
    return [data[start + 16 * n:][:16] for n in range(256)]


def dots(character):
    """A glyph as rows of 9 dots."""
    rows = []
    for row in font()[character]:
        bits = [row >> (7 - x) & 1 for x in range(8)]
        # Line graphics go on into the ninth column.
        bits.append(bits[7] if 0xC0 <= character <= 0xDF else 0)
        rows.append(tuple(bits))
    return tuple(rows)


def reduce(colour):
    """A colour as Bochs's display sends it: 3, 3 and 2 bits."""
    red, green, blue = colour
    return ((red >> 5) * 255 // 7, (green >> 5) * 255 // 7,
            (blue >> 6) * 255 // 3)


def draw(cells):
    """The picture of (character, attribute) cells, attributes not blinking."""
    image = Image.new("RGB", (COLUMNS * WIDTH, ROWS * HEIGHT))
    for n, (character, attribute) in enumerate(cells):
        x, y = n % COLUMNS * WIDTH, n // COLUMNS * HEIGHT
        pair = (reduce(COLOURS[attribute >> 4 & 7]),
                reduce(COLOURS[attribute & 15]))
        for row, line in enumerate(dots(character)):
            for column, on in enumerate(line):
                image.putpixel((x + column, y + row), pair[on])
    return image


def text_picture(path):
    """A picture of a text screen.

    Bochs keeps a window of 720 x 480 until the size of the screen changes for
    the first time after its viewer has come.
    """
    image = Image.open(path).convert("RGB")
    if image.size == (COLUMNS * WIDTH, 480):
        image = image.crop((0, 0, COLUMNS * WIDTH, ROWS * HEIGHT))
    return image


def difference(one, other):
    """None, or where two pictures differ: a box, or their sizes."""
    one, other = one.convert("RGB"), other.convert("RGB")
    if one.size != other.size:
        return one.size, other.size
    return ImageChops.difference(one, other).getbbox()


@functools.cache
def _characters(width):
    """From dots to a character; of equals the first from space on."""
    return {tuple(row[:width] for row in dots(n)): chr(n) for n in
            [*range(255, 126, -1), *range(31, -1, -1), *range(126, 31, -1)]}


def read(image, width=WIDTH):
    """The lines of a text screen: each cell's glyph looked up.

    width 8: of Linux's console on a framebuffer, whose font has about ten
    other letters, UNKNOWN here.
    """
    if width == WIDTH:
        assert image.size == (COLUMNS * WIDTH, ROWS * HEIGHT), image.size
    pixels = image.load()
    lines = []
    for y in range(0, image.height - HEIGHT + 1, HEIGHT):
        line = ""
        for x in range(0, image.width - width + 1, width):
            cell = [[pixels[x + i, y + j] for i in range(width)]
                    for j in range(HEIGHT)]
            # Blanks look the same in every colour; elsewhere the background
            # is what stands at the edge.
            back = cell[0][width - 1]
            glyph = tuple(tuple(int(dot != back) for dot in part)
                          for part in cell)
            line += _characters(width).get(glyph, UNKNOWN)
        lines.append(line.rstrip())
    return lines


def byte_colour(value):
    """A byte of red, green, blue (3, 3, 2 bits) as levels."""
    return ((value & 7) * 255 // 7, (value >> 3 & 7) * 255 // 7,
            (value >> 6) * 255 // 3)


def plot(width, height, rule, zoom=1):
    """A picture by a rule from (x, y) to a byte."""
    image = Image.new("RGB", (width, height))
    image.putdata([byte_colour(rule(x, y) & 0xff)
                   for y in range(height) for x in range(width)])
    return image.resize((width * zoom, height * zoom), Image.Resampling.NEAREST)


def expected(what):
    """The pictures of tests/guests/draw.c."""
    if what == "text":
        return draw([(n * 5 & 0xff, (n * 7 + n // 80) & 0x7f)
                     for n in range(80 * 25)])
    if what == "mode13":
        return plot(320, 200, lambda x, y: (x // 4) ^ (y // 2), 2)
    return plot(640, 480, lambda x, y: x // 40 + 16 * (y // 30))


def grub_rows(font_file, text):
    """Rows of a text as GRUB's gfxterm draws it, a byte for a dot, by its own
    font (docs of GRUB: PFF2)."""
    data, at, glyphs = font_file.read_bytes(), 0, {}
    while data[at:at + 4] != b"DATA":
        name, length = data[at:at + 4], int.from_bytes(data[at + 4:at + 8],
                                                       "big")
        at += 8
        if name == b"CHIX":
            glyphs = {code: offset for code, _, offset in struct.iter_unpack(
                ">IBI", data[at:at + length])}
        at += length
    dots, left = set(), 0
    for char in text:
        at = glyphs[ord(char)]
        width, height, x, y, step = struct.unpack_from(">HHhhh", data, at)
        bits = int.from_bytes(data[at + 10:at + 10 + -(-width * height // 8)],
                              "big")
        unused = -width * height % 8
        dots |= {(left + x + n % width, -y - height + n // width)
                 for n in range(width * height)
                 if bits >> (width * height + unused - 1 - n) & 1}
        left += step
    columns, rows = zip(*dots)
    return [bytes((column, row) in dots for column in
                  range(min(columns), max(columns) + 1))
            for row in range(min(rows), max(rows) + 1)]


def shows(image, rows):
    """Whether a text is on a picture, in any colour that is not black."""
    lines = [bytes(dot != (0, 0, 0) for dot in image.crop(
        (0, y, image.width, y + 1)).getdata()) for y in range(image.height)]
    for y in range(image.height - len(rows) + 1):
        x = lines[y].find(rows[0])
        while x >= 0:
            if all(lines[y + n].startswith(row, x)
                   for n, row in enumerate(rows)):
                return True
            x = lines[y].find(rows[0], x + 1)
    return False
