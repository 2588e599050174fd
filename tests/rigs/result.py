# SPDX-License-Identifier: MIT
"""How a run ended, and the errors of the rigs."""
import dataclasses
import re

POWER_OFF = 0       # guest power-off, or 0 at the debug exit port
USAGE = 2           # the rig itself cannot run
STOPPED = 3         # Monocle stopped the guest, or the machine died
REFUSED = 4         # Monocle refused to start
GUEST_EXIT = 10     # the guest left another value at the debug exit port
TIME_OUT = 124

END_LINE = re.compile(r"^monocle: end: (\d+) (.*)\n", re.MULTILINE)


class RigError(Exception):
    """Something that the rig needs is not there, or does not work."""


class TimeOut(RigError):
    """What was waited for did not come."""


@dataclasses.dataclass
class Result:
    """One finished run."""
    status: int         # of the table above
    text: str           # why, in words
    serial: str         # what the guest wrote to COM1
    log: str            # Monocle's log, and all else at port 0xE9
    console: str        # what the emulator itself said
    seconds: float
    screenshot: str = None
    device: str = ""    # the log of Spec.igd's device

    def report(self):
        """For a failed assertion: everything, newest last."""
        return (f"status {self.status} ({self.text}) "
                f"after {self.seconds:.1f} s\n"
                f"--- emulator\n{self.console[-4000:]}\n"
                f"--- log\n{self.log[-8000:]}\n"
                f"--- serial\n{self.serial[-8000:]}")


def end_of(log):
    """Return (status, text) of the end line in a log, or None."""
    match = END_LINE.search(log)
    return (int(match[1]), match[2].strip()) if match else None


def last_line(text):
    """The last line that is not empty."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "(nothing)"
