# SPDX-License-Identifier: MIT
"""A .fleet file (its format: tests/fleet/fleet.c) as the manuals read it."""

import re
import struct

# Kinds of functions that a guest is given, in the order of the table.
KINDS = ("gfx", "usb", "sound", "disk", "net", "sd", "heci")


def text_of(bdf):
    return f"{bdf >> 8:02x}:{bdf >> 3 & 31:02x}.{bdf & 7}"


def bdf_of(text):
    bus, rest = text.split(":")
    device, function = rest.split(".")
    return int(bus, 16) << 8 | int(device, 16) << 3 | int(function, 16)


class Function:
    """Configuration space, and which of its bits can be written."""

    def __init__(self, bdf):
        self.bdf = bdf
        self.config = bytearray(4096)
        self.mask = bytearray(4096)

    def get(self, at, size):
        return int.from_bytes(self.config[at:at + size], "little")

    def writable(self, at, size):
        return int.from_bytes(self.mask[at:at + size], "little")

    @property
    def vendor(self):
        return self.get(0, 2)

    @property
    def device(self):
        return self.get(2, 2)

    @property
    def base_class(self):
        return self.get(0xa, 2)

    @property
    def is_bridge(self):
        return self.get(0xe, 1) & 0x7f == 1

    @property
    def secondary(self):
        return self.get(0x19, 1) if self.is_bridge else 0

    def kind(self):
        """One of KINDS, or None: nothing that every machine may give."""
        code = self.base_class
        if self.get(0xe, 1) & 0x7f:
            return None
        if code == 0x0780 and self.vendor == 0x8086 and \
                self.bdf >> 3 & 31 in (0x16, 0x0f):
            return "heci"
        return {0x0401: "sound", 0x0403: "sound", 0x0805: "sd",
                0x0c03: "usb"}.get(code) or {
                    1: "disk", 2: "net", 3: "gfx"}.get(code >> 8)

    def bars(self):
        """{number: (is ports, base, size)} of those that have a place."""
        found, n = {}, 0
        while n < 6:
            at = 0x10 + 4 * n
            low = self.get(at, 4)
            wide = low & 7 == 4 and n < 5
            size = 8 if wide else 4
            keep = 3 if low & 1 else 15
            bits = self.writable(at, size) & ~keep
            base = self.get(at, size) & ~keep
            if bits and base:
                found[n] = (bool(low & 1), base, bits & -bits)
            n += 2 if wide else 1
        return found

    def capability(self, ident):
        at = self.get(0x34, 1) & ~3 if self.get(6, 2) & 0x10 else 0
        for _ in range(48):
            if at < 0x40:
                return 0
            if self.config[at] == ident:
                return at
            at = self.config[at + 1] & ~3
        return 0


class Machine:
    """What a file says."""

    def __init__(self, path):
        self.path = path
        self.name = path.stem
        self.options = ""
        self.rows = []          # (base, size, kind)
        self.functions = {}     # by BDF
        self.tables = {}        # by signature, the first of each
        self.odd = {}           # IDs that hardware sends for others'
        for line in path.read_text(errors="replace").splitlines():
            words = line.split("#")[0].split()
            if words:
                self._statement(words[0], words[1:])

    def _statement(self, name, words):
        """What is malformed is the C side's to complain of."""
        try:
            if name == "option":
                self.options = " ".join(words)
            elif name == "e820":
                self.rows.append(tuple(int(w, 16) for w in words))
            elif name == "acpi":
                self.tables.setdefault(words[1],
                                       bytes.fromhex("".join(words[2:])))
            elif name == "requester":
                self.odd[bdf_of(words[0])] = bdf_of(words[1])
            elif name in ("cfg", "msk"):
                bdf, at = bdf_of(words[0]), int(words[1], 16)
                f = self.functions.setdefault(bdf, Function(bdf))
                data = bytes.fromhex("".join(words[2:]))
                space = f.config if name == "cfg" else f.mask
                space[at:at + len(data)] = data
        except (ValueError, IndexError):
            pass

    def pm_timer(self):
        """Its ports (ACPI 5.2.9: PM_TMR_BLK, PM_TMR_LEN, X_PM_TMR_BLK)."""
        fadt = self.tables.get("FACP", b"").ljust(276, b"\0")
        old, = struct.unpack_from("<I", fadt, 76)
        space, new = fadt[208], struct.unpack_from("<Q", fadt, 212)[0]
        at = new if space == 1 and new else old
        return set(range(at, at + 4)) if fadt[91] == 4 and at % 4 == 0 else \
            set()

    def ram(self):
        return sum(row[1] for row in self.rows if row[2] == 1)

    def there(self):
        """{BDF: kind} of all that a guest might be given."""
        return {bdf: f.kind() for bdf, f in sorted(self.functions.items())
                if f.vendor not in (0, 0xffff) and f.kind()}

    def bridge_to(self, bus):
        for f in self.functions.values():
            if f.secondary == bus and f.bdf >> 8 < bus:
                return f
        return None

    def requesters(self, bdf):
        """The IDs its requests may carry (VT-d 3.4.1)."""
        ids, at = [bdf], bdf
        if bdf in self.odd:
            return [bdf, self.odd[bdf]]
        while at >> 8:
            bridge = self.bridge_to(at >> 8)
            if not bridge:
                break
            cap = bridge.capability(0x10)
            if not cap:
                ids = [bdf, bridge.bdf]
            elif bridge.get(cap + 2, 2) >> 4 & 15 == 7:
                ids = [bdf, bridge.secondary << 8]
            at = bridge.bdf
        return ids

    def root_pin(self, bdf):
        """(device, pin) on its root bus (PCI-to-PCI Bridge 1.2, 9.1)."""
        pin = self.functions[bdf].get(0x3d, 1)
        while bridge := self.bridge_to(bdf >> 8):
            pin = ((bdf >> 3 & 31) + pin - 1) % 4 + 1
            bdf = bridge.bdf
        return bdf >> 3 & 31, pin

    # -- the DMAR table (VT-d chapter 8)

    def _resolve(self, bus, path):
        bdf = None
        for device, function in path:
            bdf = bus << 8 | device << 3 | function
            bus = self.functions[bdf].secondary if bdf in self.functions else 0
        return bdf

    def _covers(self, scopes, bdf):
        while scopes:
            kind, length = scopes[0], scopes[1]
            if length < 8:
                return False
            end = self._resolve(scopes[5], zip(scopes[6:length:2],
                                               scopes[7:length:2]))
            scopes = scopes[length:]
            at = bdf
            while kind == 2 and at != end and at >> 8 and \
                    self.bridge_to(at >> 8):
                at = self.bridge_to(at >> 8).bdf
            if kind in (1, 2) and at == end:
                return True
        return False

    def _structures(self, wanted):
        """(flags, base, limit, scopes) of those of that type in segment 0."""
        table, at = self.tables.get("DMAR", b""), 48
        while at + 16 <= len(table):
            kind, length = struct.unpack_from("<HH", table, at)
            body = table[at:at + length]
            head = (16, 24)[kind] if kind < 2 else 0
            at += length
            if length < max(head, 4):
                return
            if kind == wanted and body[6:8] == b"\0\0":
                yield (body[4], *(int.from_bytes(body[n:n + 8], "little")
                                  for n in (8, 16)), body[head:])

    def unit_of(self, bdf):
        """The base of the unit that translates for it, or None."""
        every = None
        for flags, base, _, scopes in self._structures(0):
            if base and self._covers(scopes, bdf):
                return base
            if base and flags & 1:
                every = base
        return every

    def rmrrs_of(self, bdf):
        """[(base, limit)] of what it shares with firmware."""
        return [(base, limit) for _, base, limit, scopes in
                self._structures(1)
                if base < limit and self._covers(scopes, bdf)]


def files(directory):
    return sorted(directory.glob("*.fleet"),
                  key=lambda p: [int(n) if n.isdigit() else n for n in
                                 re.split(r"(\d+)", p.stem)])
