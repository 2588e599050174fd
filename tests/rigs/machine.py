# SPDX-License-Identifier: MIT
"""A running emulator: its streams, waiting for what they say, its end."""
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from . import result
from .result import Result, RigError, TimeOut

OFF_LIMIT = 5       # seconds in which an emulator that closes has ended
QUIET = 0.1         # seconds of silence after which a stream is drained
DRAIN_LIMIT = 5     # ... and how long a guest may go on talking


def run_as_child(command, session=True, **kwargs):
    """Start a program that dies with this one; session: and that no key of
    the terminal reaches."""
    setpriv = shutil.which("setpriv")
    if setpriv:
        command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    return subprocess.Popen(command, start_new_session=session, **kwargs)


class Machine:
    """One emulator with one guest; a context manager.

    Three streams are kept and can be waited for: "serial" (the guest's
    COM1), "log" (port 0xE9: Monocle's log), "console" (the emulator's own
    words). A thread reads them, so the emulator never waits for the caller.
    """
    name = None

    def __init__(self, spec, hooks=None):
        self.spec = spec
        self.hooks = hooks or {}
        self.work = tempfile.mkdtemp(prefix="monocle-")
        self.streams = {"serial": b"", "log": b"", "console": b""}
        self.change = threading.Condition()
        self.process = None
        self.started = time.monotonic()
        self.ended = None           # (status, text)
        self.result = None
        self.device = ""
        self.asked_at = 0           # behind the last answer of command()
        self._selector = selectors.DefaultSelector()
        self._last = time.monotonic()
        self._thread = None

    # -- what a rig provides

    def launch(self, image):
        """Start self.process; return {stream: file object to read}."""
        raise NotImplementedError

    def write_serial(self, data):
        """Send bytes to the guest's COM1."""
        raise NotImplementedError

    def screenshot(self, path):
        """Write the screen to a PNG file."""
        raise NotImplementedError

    def key(self, name):
        """Press and release one key of the guest's keyboard."""
        raise NotImplementedError

    def memory(self, address, size):
        """Bytes of the machine's physical memory."""
        raise NotImplementedError

    def exit_status(self, code):
        """(status, text) of an emulator that ended without an end line."""
        return result.STOPPED, f"{self.name} ended with status {code}"

    def device_log(self):
        """What a device that is played by a process wrote; all has ended."""
        return ""

    # -- life

    def start(self, image):
        """Start the emulator on a boot image."""
        self.started = time.monotonic()
        sources = self.launch(image)
        for stream, source in sources.items():
            self._selector.register(source, selectors.EVENT_READ, stream)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def end(self, patience=0):
        """End the emulator, which has that long to do so itself."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def close(self):
        """End the emulator, whatever it does, and remove its files."""
        if self.process:
            self.end()
        if self._thread:
            # Its streams end when all who hold them have: a device's, too.
            self._thread.join(OFF_LIMIT)
            if self._thread.is_alive():
                os.killpg(self.process.pid, signal.SIGKILL)
                self._thread.join(OFF_LIMIT)
            self._thread = None
            self.device = self.device_log()
        shutil.rmtree(self.work, ignore_errors=True)

    # -- streams

    def _read(self):
        """The reading thread: until every stream has ended."""
        while self._selector.get_map():
            for key, _ in self._selector.select():
                try:
                    data = os.read(key.fileobj.fileno(), 65536)
                except OSError:
                    data = b""
                if data:
                    self._feed(key.data, data)
                else:
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()
        with self.change:
            self.change.notify_all()

    def _feed(self, stream, data):
        # UEFI's own console is COM1 too, until the guest's time.
        if stream == "serial" and self.firmware_speaks():
            stream = "console"
        with self.change:
            self.streams[stream] += data
            self._last = time.monotonic()
            # A ready image, without log=e9, logs on COM1. Elsewhere COM1
            # is the guest's, which may write what it likes.
            logs = "serial" if self.spec.iso else "log"
            if stream in ("log", logs) and not self.ended:
                self.ended = result.end_of(self.text(stream))
            self.change.notify_all()
        hook = self.hooks.get(stream)
        if hook:
            hook(data)

    def firmware_speaks(self):
        """Whether COM1 is still UEFI's."""
        return (self.spec.firmware == "uefi" and not self.spec.native and
                not self.spec.iso and not self.streams["log"])

    def text(self, stream="serial"):
        """A stream so far."""
        return self.streams[stream].decode(errors="replace").replace(
            "\r\n", "\n")

    def alive(self):
        """Whether the emulator still runs or says something."""
        return self._thread is not None and self._thread.is_alive()

    def wait_for(self, text, timeout=60, stream="serial", after=0):
        """Wait until `text` stands in a stream, from offset `after` on.

        Returns the offset behind it. TimeOut if it does not come, RigError
        if the machine ends first.
        """
        limit = time.monotonic() + timeout
        with self.change:
            while True:
                at = self.text(stream).find(text, after)
                over = self.ended or not self.alive()
                if over and at < 0:
                    self._drain()
                    at = self.text(stream).find(text, after)
                if at >= 0:
                    return at + len(text)
                if over:
                    raise RigError(f"{self.name} ended before {text!r} came "
                                   f"({stream})\n{self._tails()}")
                left = limit - time.monotonic()
                if left <= 0:
                    raise TimeOut(f"no {text!r} in {timeout} s ({stream})\n"
                                  f"{self._tails()}")
                self.change.wait(min(left, 1))

    def send(self, text):
        """Type on the guest's serial line."""
        self.write_serial(text.encode() if isinstance(text, str) else text)

    def command(self, line, timeout=60):
        """Run one shell command in the guest; return what it prints.

        The shell puts the marks together, so that its echo of the line,
        however it is wrapped, does not match them.
        """
        self.send(f"echo be''gin; {line}; echo e''nd-$?\n")
        start = self.wait_for("\nbegin\n", timeout, after=self.asked_at)
        end = self.wait_for("end-", timeout, after=start)
        self.asked_at = self.wait_for("\n", timeout, after=end)
        return self.text()[start:end - len("end-")]

    def type(self, text):
        """Type on the guest's keyboard."""
        for char in text:
            self.key(char)

    def _tails(self):
        return "\n".join(f"--- {stream}\n{self.text(stream)[-2000:]}"
                         for stream in ("console", "log", "serial"))

    # -- end

    def finish(self, timeout=None, screenshot=None):
        """Wait for the end of the run; return its Result."""
        if self.result:
            return self.result
        limit = self.started + (timeout or self.spec.timeout)
        with self.change:
            while not self.ended and self.alive():
                left = limit - time.monotonic()
                if left <= 0:
                    self.ended = result.TIME_OUT, self._late()
                    break
                self.change.wait(min(left, 1))
        shot = self._last_picture(screenshot)
        self._drain()
        if not self.ended:
            try:
                self.ended = self.exit_status(self.process.wait(OFF_LIMIT))
            except subprocess.TimeoutExpired:
                self.ended = (result.STOPPED,
                              f"{self.name} hangs, its streams closed")
        self.close()
        self.result = Result(*self.ended, self.text("serial"),
                             self.text("log"), self.text("console"),
                             time.monotonic() - self.started, shot,
                             self.device)
        return self.result

    def leave(self):
        """The user has had enough: finish() returns."""
        with self.change:
            self.ended = self.ended or (result.POWER_OFF, "ended by the user")
            self.change.notify_all()

    def _late(self):
        return (f"time-out after {time.monotonic() - self.started:.0f} s; "
                f"last line of the log: "
                f"{result.last_line(self.text('log'))}; of the serial line: "
                f"{result.last_line(self.text('serial'))}")

    def last_picture(self, path):
        """What was on the screen of a machine that is off; None: lost."""
        return None

    def _last_picture(self, path):
        if not path:
            return None
        try:
            self.screenshot(path)
            return path
        except (OSError, RigError):
            try:
                self.process.wait(OFF_LIMIT)
            except subprocess.TimeoutExpired:
                pass
            return self.last_picture(path)

    def _drain(self):
        """Let come what the UART's FIFO and the sockets still hold."""
        limit = time.monotonic() + DRAIN_LIMIT
        with self.change:
            while self.alive() and time.monotonic() < limit:
                quiet = self._last + QUIET - time.monotonic()
                if quiet <= 0:
                    break
                self.change.wait(quiet)
