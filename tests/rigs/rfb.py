# SPDX-License-Identifier: MIT
"""A small RFB ("VNC") client for Bochs's display: pictures and keys.

RFC 6143. Bochs 2.7 offers one pixel format (BGR233, a byte for each pixel),
sends updates whether asked or not, and follows the guest's screen size only
for a client that knows the DesktopSize pseudo-encoding: so the client is
there from the start, and a thread of its own reads.
"""
import contextlib
import socket
import struct
import threading
import time

from .result import RigError

DESKTOP_SIZE = -223
RAW = 0
# Bochs draws its own bars above and below the guest's screen.
HEADER_BAR = 32
STATUS_BAR = 18
# The screen is redrawn at 50 Hz of the machine's time, 2 million instructions:
# two pictures this far apart that do not differ show what the guest's video
# memory holds.
REFRESH = 0.3
PICTURE_LIMIT = 15

# X11 keysyms (RFC 6143, section 7.5.4)
KEYSYMS = {"ret": 0xFF0D, "\n": 0xFF0D, "esc": 0xFF1B, "tab": 0xFF09,
           "backspace": 0xFF08, "delete": 0xFFFF, "left": 0xFF51,
           "up": 0xFF52, "right": 0xFF53, "down": 0xFF54, "shift": 0xFFE1,
           "ctrl": 0xFFE3, "alt": 0xFFE9}
SHIFTED = '~!@#$%^&*()_+{}|:"<>?'


def write_png(path, width, height, pixels):
    """Write BGR233 pixels to a PNG file."""
    try:
        from PIL import Image
    except ImportError as error:
        raise RigError("screenshots need python3-pil") from error
    image = Image.frombytes("P", (width, height), pixels)
    image.putpalette([level for value in range(256) for level in (
        (value & 7) * 255 // 7, (value >> 3 & 7) * 255 // 7,
        (value >> 6) * 255 // 3)])
    image.convert("RGB").save(path, "PNG")


class Rfb:
    """One connection."""

    def __init__(self, port, timeout=10):
        self.port, self.timeout = port, timeout
        self.change = threading.Condition()
        self.why = ""           # the connection ended
        self._connect()

    def _connect(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port),
                                               self.timeout)
        # Ended by a reset, it leaves no port of Bochs's in TIME-WAIT: there
        # are 50, and many short boots in a minute.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                               struct.pack("ii", 1, 0))
        self.full = 0           # whole pictures that have come; -1: it ended
        self._handshake()
        self.socket.settimeout(None)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _exact(self, size):
        data = bytearray()
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise RigError("the display closed the connection")
            data += part
        return bytes(data)

    def _handshake(self):
        self._exact(12)
        self.socket.sendall(b"RFB 003.003\n")
        if struct.unpack(">I", self._exact(4))[0] != 1:
            raise RigError("the display wants a password")
        self.socket.sendall(b"\x01")
        width, height = struct.unpack(">HH", self._exact(4))
        pixel_format, name = struct.unpack(">16sI", self._exact(20))
        self._exact(name)
        self._resize(width, height)
        # Bochs keeps to the format it offers only where it is asked for it.
        self.socket.sendall(b"\0\0\0\0" + pixel_format)
        self.socket.sendall(struct.pack(">BxHii", 2, 2, RAW, DESKTOP_SIZE))

    def all_read(self):
        """Whether Bochs has read what was sent: until it knows DesktopSize,
        a change of the screen's size is lost on this client."""
        pair = {f":{end[1]:04X}" for end in (self.socket.getsockname(),
                                             self.socket.getpeername())}
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table]
        # What is on its way, and what waits to be read, of both ends.
        return all(row[4] == "00000000:00000000" for row in rows
                   if {row[1][-5:], row[2][-5:]} == pair)

    def _resize(self, width, height):
        self.width, self.height = width, height
        self.pixels = bytearray(width * height)

    def _read(self):
        try:
            while True:
                kind = self._exact(1)[0]
                if kind == 0:
                    _, count = struct.unpack(">BH", self._exact(3))
                    for _ in range(count):
                        self._rectangle()
                elif kind == 3:     # ServerCutText
                    self._exact(struct.unpack(">3xI", self._exact(7))[0])
                elif kind != 2:     # Bell
                    raise RigError(f"display message {kind} not understood")
        except (OSError, RigError, struct.error, ValueError) as error:
            with self.change:
                self.full, self.why = -1, str(error)
                self.socket.close()
                self.change.notify_all()

    def _rectangle(self):
        x, y, width, height, encoding = struct.unpack(">4Hi", self._exact(12))
        if encoding == DESKTOP_SIZE:
            with self.change:
                self._resize(width, height)
            return
        data = self._exact(width * height)
        with self.change:
            for row in range(height):
                at = (y + row) * self.width + x
                self.pixels[at:at + width] = data[row * width:][:width]
            if (width, height) == (self.width, self.height):
                self.full += 1
                self.change.notify_all()

    def picture(self):
        """One whole picture: (width, height, BGR233 pixels), bars cut.

        Two threads of Bochs write to the connection without a lock: when
        they have spoilt it, a new one serves.
        """
        for _ in range(4):
            if self.full < 0:
                self.socket.close()
                self.thread.join()
                self._connect()
            try:
                return self._picture()
            except RigError as error:
                self.why = self.why or str(error)
                with contextlib.suppress(OSError):
                    self.socket.shutdown(socket.SHUT_RDWR)
                self.full = -1
        raise RigError(f"the display sends no picture: {self.why}")

    def _picture(self):
        limit = time.monotonic() + PICTURE_LIMIT
        with self.change:
            wanted = self.full + 1
            # Bochs forgets a request that comes while it sends an update.
            while 0 <= self.full < wanted and time.monotonic() < limit:
                self.socket.sendall(struct.pack(
                    ">BB4H", 3, 0, 0, 0, self.width, self.height))
                self.change.wait(1)
            if self.full < wanted:
                raise RigError("the display sends no picture")
            return self._screen()

    def _screen(self):
        height = self.height - HEADER_BAR - STATUS_BAR
        start = HEADER_BAR * self.width
        return (self.width, height,
                bytes(self.pixels[start:start + self.width * height]))

    def steady_picture(self):
        """A picture that stands still (or the newest, if none does)."""
        limit = time.monotonic() + PICTURE_LIMIT
        before = self.picture()
        while True:
            time.sleep(REFRESH)
            now = self.picture()
            if now == before or time.monotonic() > limit:
                return now
            before = now

    def save(self, path):
        """Write a steady picture to a PNG file."""
        write_png(path, *self.steady_picture())

    def save_last(self, path):
        """Write what Bochs sent last: it may be a moment old."""
        with self.change:
            write_png(path, *self._screen())

    def key(self, name):
        """Press and release a key: one character, or a name of KEYSYMS."""
        symbol = KEYSYMS.get(name) or ord(name)
        shift = len(name) == 1 and (name.isupper() or name in SHIFTED)
        for down in (1, 0):
            if shift and down:
                self._event(KEYSYMS["shift"], 1)
            self._event(symbol, down)
        if shift:
            self._event(KEYSYMS["shift"], 0)
        # Bochs keeps a short queue, which a picture shows to be emptied.
        self.picture()

    def _event(self, symbol, down):
        self.socket.sendall(struct.pack(">BBxxI", 4, down, symbol))
