# SPDX-License-Identifier: MIT
"""QEMU's machine protocol: one command at a time, events kept."""
import json
import threading

from .result import RigError

ANSWER_LIMIT = 60       # seconds


class Qmp:
    """The client end of a QMP socket."""

    def __init__(self, sock):
        sock.settimeout(ANSWER_LIMIT)
        self.file = sock.makefile("rw", encoding="utf-8", newline="\n")
        self.lock = threading.Lock()
        self.events = []
        if "QMP" not in self._message():
            raise RigError("no QMP greeting")
        self.command("qmp_capabilities")

    def _message(self):
        try:
            line = self.file.readline()
        except TimeoutError as error:
            raise RigError("QEMU's monitor does not answer") from error
        if not line:
            raise RigError("QEMU closed its monitor")
        return json.loads(line)

    def command(self, name, **arguments):
        """Run a command and return its answer."""
        with self.lock:
            json.dump({"execute": name, "arguments": arguments}, self.file)
            self.file.write("\n")
            self.file.flush()
            while True:
                message = self._message()
                if "event" in message:
                    self.events.append(message)
                elif "error" in message:
                    raise RigError(f"{name}: {message['error']['desc']}")
                else:
                    return message["return"]

    def drain(self):
        """Read the events that are left, to the end of the connection."""
        with self.lock:
            try:
                while True:
                    message = self._message()
                    if "event" in message:
                        self.events.append(message)
            except (RigError, OSError, ValueError):
                return self.events
