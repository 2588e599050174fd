# SPDX-License-Identifier: MIT
"""Machines with Intel graphics on paper: configs/GENERATION-PLATFORM.txt.

One statement a line; numbers are hexadecimal; "#" begins a comment; what is
not named reads 0 and cannot be written; a later line overrides an earlier one.

    igd|host|pch OFFSET BYTES VALUE [WRITABLE]
                 configuration space of 00:02.0, 00:00.0, 00:1f.0; WRITABLE
                 are the bits that a write changes
    bar NUMBER KIND SIZE
                 of 00:02.0; KIND: io, mem32, mem64, mem32-prefetch,
                 mem64-prefetch
    mmio OFFSET VALUE [keep|dead]
                 a dword behind BAR 0 as firmware leaves it; a reset loses it;
                 keep: no reset and no write changes it; dead: after a reset
                 no write reaches it
    flr CAPABILITY [MILLISECONDS|never]
                 a reset by the PCI Express or AF capability at that offset,
                 and how long it takes (decimal)
    moved FROM TO
                 a dword of 00:02.0's configuration space: what is written
                 at FROM goes to TO
    shown AT OFFSET
                 a dword of 00:02.0's configuration space that reads the same
                 at an offset behind BAR 0
    expect NAME WORD ...
                 what the manuals' rules make of it, for tests only: gen
                 (decimal), class, dsm BASE SIZE or dsm-in-bar2 SIZE, gsm BASE
                 SIZE, asls, tolud, remapping (no: it must stay off)

Firmware on the rigs places OpRegion and stolen memory itself, see
`for_firmware`. tests/igd/standin.c reads the same files.
"""
import dataclasses
import pathlib

CONFIGS = pathlib.Path(__file__).resolve().parent / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.txt"))
SPACES = ("igd", "host", "pch")
KINDS = {"io": 1, "mem32": 0, "mem64": 4, "mem32-prefetch": 8,
         "mem64-prefetch": 12}


@dataclasses.dataclass
class Space:
    """A function's configuration space, and the bits that can be written."""
    bytes: bytearray = dataclasses.field(
        default_factory=lambda: bytearray(4096))
    writable: bytearray = dataclasses.field(
        default_factory=lambda: bytearray(4096))

    def put(self, at, size, value, writable=0):
        """Set a register."""
        assert at + size <= 4096
        self.bytes[at:at + size] = value.to_bytes(size, "little")
        self.writable[at:at + size] = writable.to_bytes(size, "little")

    def get(self, at, size):
        """Read a register."""
        return int.from_bytes(self.bytes[at:at + size], "little")

    def get_writable(self, at, size):
        """The bits of a register that a write changes."""
        return int.from_bytes(self.writable[at:at + size], "little")


@dataclasses.dataclass
class Config:
    """One file."""
    text: str
    igd: Space = dataclasses.field(default_factory=Space)
    host: Space = dataclasses.field(default_factory=Space)
    pch: Space = dataclasses.field(default_factory=Space)
    bars: dict = dataclasses.field(default_factory=dict)   # n: (kind, size)
    mmio: dict = dataclasses.field(default_factory=dict)   # offset: value
    expect: dict = dataclasses.field(default_factory=dict)

    @property
    def gen(self):
        """The generation."""
        return int(self.expect["gen"][0])

    def number(self, name, word=0):
        """A word of what is expected, as a number; None: nothing is said."""
        words = self.expect.get(name)
        return None if words is None else int(words[word], 16)


def statements(text):
    """The words of each line that has some."""
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words:
            yield words


def add_bar(config, number, kind, size):
    """A base address register: address 0, its kind, its writable bits."""
    config.bars[number] = kind, size
    at, mask = 0x10 + 4 * number, 0xffff_ffff & -size
    config.igd.put(at, 4, KINDS[kind], mask)
    if kind.startswith("mem64"):
        config.igd.put(at + 4, 4, 0, 0xffff_ffff)


def parse(text):
    """A Config; ValueError where the text is none."""
    config = Config(text)
    for name, *words in statements(text):
        if name in SPACES:
            getattr(config, name).put(*(int(word, 16) for word in words))
        elif name == "bar":
            add_bar(config, int(words[0], 16), words[1], int(words[2], 16))
        elif name == "mmio":
            config.mmio[int(words[0], 16)] = int(words[1], 16)
        elif name == "expect":
            config.expect[words[0]] = words[1:]
        elif name not in ("flr", "moved", "shown"):
            raise ValueError(f"no statement: {name}")
    return config


def load(name):
    """The Config of one of NAMES."""
    return parse((CONFIGS / f"{name}.txt").read_text())


def for_firmware(name):
    """Its text where a firmware is still to place OpRegion and stolen memory
    (SeaBIOS writes FC and 5C, and knows no other place)."""
    config = load(name)
    lines = [config.text, "igd fc 4 0 ffffffff"]
    lines.append("igd 5c 4 0 ffffffff")
    if config.igd.get(0xc0, 4):
        lines += ["igd c0 4 0 ffffffff", "igd c4 4 0", "moved 5c c0",
                  "shown c0 1080c0"]
    elif 0x1080c0 in config.mmio:
        lines += ["shown 5c 1080c0"]
    return "\n".join(lines + [""])
