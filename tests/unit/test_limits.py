# SPDX-License-Identifier: MIT
"""A test that hangs is ended, and named with where it stood."""
import shutil
import subprocess
import sys

import harness

PLANTED = """\
import ctypes
import threading

import conftest

conftest.GRACE = 1


def test_hangs():
    {}


def test_goes_on():
    pass
"""
# With the interpreter's lock held, and a system call that signals restart
IN_C = """\
lock = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(lock)"""


def run(tmp_path, hang):
    """pytest with this suite's settings, on a test that hangs."""
    tests = tmp_path / "tests"
    (tests / "unit").mkdir(parents=True)
    for name in ("pytest.ini", "tests/conftest.py"):
        shutil.copy(harness.ROOT / name, tmp_path / name)
    (tests / "unit" / "test_planted.py").write_text(PLANTED.format(hang))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "timeout=1", "tests"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)


def test_every_test_has_a_limit(request):
    assert 0 < float(request.config.getini("timeout")) <= 900


def test_hang_fails_and_the_rest_goes_on(tmp_path):
    done = run(tmp_path, "threading.Event().wait()")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "FAILED tests/unit/test_planted.py::test_hangs" in done.stdout
    assert "test_planted.py:10:" in done.stdout


def test_hang_in_c_ends_the_process(tmp_path):
    done = run(tmp_path, IN_C)
    assert done.returncode == 1
    assert 'tests/unit/test_planted.py", line 12 in test_hangs' in done.stderr
