# SPDX-License-Identifier: MIT
"""Rigs: the machines on which Monocle runs without hardware of its own.

    result = rigs.boot(rig="bochs", append="demo.run=dmesg")
    assert result.status == 0, result.report()

    with rigs.start(rig="bochs") as machine:
        machine.wait_for("demo: shell is ready")
        machine.send("uname -r\\n")

tools/boot is the same by hand.
"""
from .result import Result, RigError, TimeOut
from .run import boot, start
from .spec import DEMO_APPEND, DEMO_READY, Spec

__all__ = ["boot", "start", "Spec", "Result", "RigError", "TimeOut",
           "DEMO_APPEND", "DEMO_READY"]
