# SPDX-License-Identifier: MIT
"""No test hangs without a word.

A test that is past its limit (pytest.ini) fails by pytest-timeout's signal,
and the rest goes on. Where it stands in C, Python handles no signal: then
faulthandler, which needs no Python, shows all stacks and ends the process.
"""
import faulthandler
import os

GRACE = 30      # seconds between the two


def pytest_configure(config):
    # The process's own: pytest keeps what is written to the other.
    config.stderr = os.dup(2)


def pytest_timeout_set_timer(item, settings):
    faulthandler.dump_traceback_later(settings.timeout + GRACE, exit=True,
                                      file=item.config.stderr)


def pytest_timeout_cancel_timer():
    faulthandler.cancel_dump_traceback_later()
