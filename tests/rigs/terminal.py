# SPDX-License-Identifier: MIT
"""The user's terminal as the guest's serial line."""
import os
import select
import sys
import termios
import threading
import tty

ESCAPE = b"\x01"    # Ctrl-A
LEAVE = b"x"
HELP = "the terminal is the guest's serial line; Ctrl-A x ends"


class Terminal:
    """Standard input, raw where it is a terminal; a context manager."""

    def __init__(self, send, leave):
        self.send = send        # called with bytes for the guest
        self.leave = leave      # called when the user wants to end
        self.fd = None
        self.saved = None
        self.escaped = False
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.fd = sys.stdin.fileno()
        if os.isatty(self.fd):
            self.saved = termios.tcgetattr(self.fd)
            tty.setraw(self.fd)
        self._thread.start()
        return self

    def __exit__(self, *_):
        os.write(self._wake[1], b"x")
        self._thread.join()
        for end in self._wake:
            os.close(end)
        if self.saved:
            termios.tcsetattr(self.fd, termios.TCSADRAIN, self.saved)

    def newline(self):
        """The end of a line on standard error, in the terminal's mode."""
        return "\r\n" if self.saved else "\n"

    def filter(self, data):
        """Split typed bytes into (for the guest, leave?)."""
        out = b""
        for byte in data:
            byte = bytes([byte])
            if self.escaped:
                self.escaped = False
                if byte == LEAVE:
                    return out, True
                out += byte if byte == ESCAPE else ESCAPE + byte
            elif byte == ESCAPE:
                self.escaped = True
            else:
                out += byte
        return out, False

    def _run(self):
        while True:
            ready, _, _ = select.select([self.fd, self._wake[0]], [], [])
            if self._wake[0] in ready:
                return
            data = os.read(self.fd, 4096)
            if not data:
                return
            if self.saved:
                data, leave = self.filter(data)
                if leave:
                    self.leave()
                    return
            try:
                self.send(data)
            except OSError:
                return
