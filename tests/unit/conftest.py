# SPDX-License-Identifier: MIT
"""Runs the unit tests with the sanitizers loaded.

The C files under test are shared objects, so ASan's library must be the first
that the process loads: pytest replaces itself by one that has it. A report
aborts that process, whose stderr has the report and the test's name.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal import reflection

import harness

MARK = "MONOCLE_UNIT_SANITIZED"

# No clock decides whether a property holds, and each run is the same run, but
# in `make test-long`.
settings.register_profile(
    "monocle", deadline=None, print_blob=True,
    derandomize="MONOCLE_RANDOM" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("monocle")

# Debian 12's reads and parses the source of a lambda for each value that goes
# through it, to be able to tell where the value came from.
_sources = {}


def _lambda_source(f, read=reflection.extract_lambda_source):
    if f.__code__ not in _sources:
        _sources[f.__code__] = read(f)
    return _sources[f.__code__]


reflection.extract_lambda_source = _lambda_source


def _library(name):
    return subprocess.run([harness.CC, f"-print-file-name={name}"], text=True,
                          capture_output=True, check=True).stdout.strip()


def sanitized():
    """The environment of a process that has them."""
    return {
        **os.environ,
        MARK: "1",
        "LD_PRELOAD": f"{_library('libasan.so')} {_library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:quarantine_size_mb=16",
        "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
    }


def _run_again(config):
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture:
        capture.stop_global_capturing()
    # Captured by file descriptor, a report would be lost with the process.
    more = ["--capture=sys"] if config.option.capture == "fd" else []
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [*sys.orig_argv, *more], sanitized())


def pytest_configure(config):
    if os.environ.pop(MARK, None):
        # The tools that tests start need no sanitizer.
        del os.environ["LD_PRELOAD"]
    elif "libasan" not in Path("/proc/self/maps").read_text():
        _run_again(config)


@pytest.fixture(autouse=True)
def _fresh_fakes():
    harness.reset_all()
    yield
    harness.check_all()
