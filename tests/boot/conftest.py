# SPDX-License-Identifier: MIT
"""Boots are shared: each run is made once, and two at a time.

A test names the runs that it looks at, `@pytest.mark.runs("exits")`, and
gets each by `run("exits")`. A run is a function under `@runs.define(name)`;
those that the selected tests need are started when collection is over.
"""
import faulthandler
import os
import pathlib
import resource
import time

import pytest

from boot import nested_cases, runs
from walker import boot as walk

# Seconds of `make test` on two cores: the machine and its guest, VT-d, PCI
# assignment (nested), Intel graphics, video BIOS.
BUDGET = 60 * (10 + 5 + 10 + 5 + 4)


def processors():
    """Seconds of processor time: (all that was used, this process's and its
    children's)."""
    # proc(5): user nice system idle iowait irq softirq steal
    ticks = [int(n) for n in pathlib.Path("/proc/stat").read_text().split(
        "\n", 1)[0].split()[1:9]]
    used = (sum(ticks) - sum(ticks[3:5])) / os.sysconf("SC_CLK_TCK")
    return used, sum(sum(resource.getrusage(who)[:2]) for who in (
        resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def pytest_configure(config):
    config.started = time.monotonic(), *processors()
    # What each boot that enters a guest maps, compared with what it says.
    walk.install()


def names_of(item, marker="runs"):
    """The runs that a test needs."""
    return [name for mark in item.iter_markers(marker) for name in mark.args]


def pytest_collection_modifyitems(items):
    """Quick ones first; the budget is looked at when all is done."""
    items.sort(key=lambda item: (item.name == "test_budget",
                                 bool(item.get_closest_marker("long"))))


def pytest_collection_finish(session):
    if session.config.option.collectonly:
        return
    cases = [name for item in session.items
             for name in names_of(item, "nested")]
    limit_waits(session.items, nested_cases.limit(cases))
    # It takes the longest.
    nested_cases.request(cases)
    runs.request(name for item in session.items for name in names_of(item))


def limit_waits(items, nested_limit):
    """Later than the rigs' own limits: they know what the machine said."""
    for item in items:
        # With one job, all wait for the Linux that serves the cases.
        nested = names_of(item, "nested") or runs.JOBS == 1
        if nested or names_of(item):
            item.add_marker(pytest.mark.timeout(
                runs.LIMIT + (nested_limit if nested else 0)))


def pytest_unconfigure(config):
    # What still runs belongs to tests that have failed; their report is out.
    faulthandler.dump_traceback_later(runs.LIMIT, exit=True,
                                      file=config.stderr)
    runs.shutdown()


@pytest.fixture
def run(request):
    """run(name): what that run returned."""
    named = names_of(request.node)

    def get(name):
        assert name in named, f"@pytest.mark.runs({name!r}) is missing"
        return runs.result(name)
    return get


@pytest.fixture
def nested(request):
    """nested(name): what came of that case."""
    named = names_of(request.node, "nested")

    def get(name):
        assert name in named, f"@pytest.mark.nested({name!r}) is missing"
        return nested_cases.result(name)
    return get


@pytest.fixture
def budget(request):
    """Seconds: allowed, since pytest began, of processors for the tests, and
    of processors for others in that time."""
    started, used, own = request.config.started
    now_used, now_own = processors()
    return (BUDGET, time.monotonic() - started, now_own,
            now_used - used - (now_own - own))
