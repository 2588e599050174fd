# SPDX-License-Identifier: MIT
"""The boots that tests share, and what most of them have in common."""
import concurrent.futures
import os
import pathlib
import re
import tempfile

import pytest

import rigs
from rigs.spec import BUILD

GUEST = BUILD / "guests" / "guest.elf"
# Another image, and fewer emulators at once: for a machine that is shared.
MONOCLE = os.environ.get("MONOCLE_ELF")
JOBS = int(os.environ.get("MONOCLE_JOBS", min(2, os.cpu_count() or 1)))
TIMEOUT = 400
# Seconds after which no run is still to come: more than any rig is given
# (tests/boot/linux.py), and time for the runs before it.
LIMIT = 3600

_directory = tempfile.TemporaryDirectory(prefix="monocle-boot-")
_defined = {}
_first = []
_futures = {}
_pool = concurrent.futures.ThreadPoolExecutor(JOBS)


def define(name, first=False):
    """Decorator: the function makes the run of that name.

    first: it takes long, and so begins before the others.
    """
    def keep(function):
        assert name not in _defined, name
        _defined[name] = function
        if first:
            _first.append(name)
        return function
    return keep


def each(names, pattern="{}", short=None):
    """Parameters of a test, each marked with the run that it needs.

    short: those of the short suite, where not all are.
    """
    return [pytest.param(name, marks=[
        pytest.mark.runs(pattern.format(name)),
        *([] if short is None or name in short else [pytest.mark.long])])
            for name in names]


def request(names):
    """Start these runs, the long ones first."""
    for name in sorted(dict.fromkeys(names), key=lambda n: n not in _first):
        _futures[name] = _pool.submit(_defined[name])


def submit(function):
    """Make another run among these; a future."""
    return _pool.submit(function)


def result(name):
    """Wait for a run."""
    return _futures[name].result()


def shutdown():
    """No further run begins."""
    _pool.shutdown(wait=True, cancel_futures=True)


def work(name):
    """A path for a file of this session."""
    return pathlib.Path(_directory.name, name)


def spec(append="", **fields):
    """What boots the tiny guest on a small machine."""
    fields = {"rig": "bochs", "memory": 64, "timeout": TIMEOUT,
              "monocle": MONOCLE, "kernel": GUEST, **fields}
    return rigs.Spec(append=append, **fields)


def boot(append="", **fields):
    """Boot the tiny guest to its end."""
    return rigs.boot(spec(append, **fields))


def start(append="", **fields):
    """Start the tiny guest; a machine."""
    return rigs.start(spec(append, **fields))


def counted(result, what):
    """(number, exits, exits for ports, exits for MMIO), by the guest."""
    return tuple(map(int, re.search(
        rf"^{what}: (\d+), exits (\d+), io (\d+), mmio (\d+)$",
        result.serial, re.MULTILINE).groups()))
