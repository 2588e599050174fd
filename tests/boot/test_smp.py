# SPDX-License-Identifier: MIT
"""All CPUs are the guest's: tests/guests/storm.c and Debian, beside the same on
the bare machine.

Bochs ends in its debugger at a triple fault, and with two CPUs its BIOS does
not come through a second start: resets have no such run beside them.
"""
import functools
import re

import pytest

import rigs
from boot import linux, runs

# Of the short suite, of the long one: (CPUs, first seed, how many)
STORMS = {"storm": (2, 1, 10), "storm-4": (4, 11, 10),
          "storm-long": (2, 21, 200)}
WAYS = ("port 0xCF9", "triple fault", "keyboard controller")


def storm(what, cpus, **fields):
    return runs.boot(what, cpus=cpus, memory=64, timeout=1200, **fields)


for _name, (_cpus, _seed, _seeds) in STORMS.items():
    _line = f"storm cpus={_cpus} seed={_seed} seeds={_seeds}"
    runs.define(_name)(functools.partial(storm, _line, _cpus))
    runs.define(_name + "-native")(functools.partial(
        storm, _line, _cpus, native=True))

runs.define("storm-apicv")(functools.partial(
    storm, "storm cpus=2 seed=1 seeds=10", 2, hv="apicv=on"))

for _cpus in (2, 4):
    runs.define(f"storm-resets-{_cpus}")(functools.partial(
        storm, "storm-resets", _cpus))


def lines(result):
    assert result.status == 0, result.report()
    assert "guests/storm.c" not in result.serial, result.report()
    return re.findall(r"^storm: (.*)$", result.serial, re.MULTILINE)


def named(names, pattern="{}"):
    """Parameters: a name, marked with its runs; "storm" is a short one."""
    return [pytest.param(name, marks=[
        pytest.mark.runs(*(part.format(name) for part in pattern.split())),
        *([] if name == "storm" else [pytest.mark.long])]) for name in names]


@pytest.mark.parametrize("name", named(STORMS, "{}-native"))
def test_the_bare_machine_loses_nothing(run, name):
    """The guest is right: each phase of each seed, and none has failed."""
    cpus, _, seeds = STORMS[name]
    found = lines(run(name + "-native"))
    assert found[0] == f"{cpus} CPUs" and found[-1] == "0 failed"
    assert len(found) == 2 + 8 * seeds


@pytest.mark.parametrize("name", named(STORMS, "{} {}-native"))
def test_nothing_is_lost(run, name):
    """IPIs, NMIs, INITs and SIPIs from all to all, and a BAR that moves."""
    assert lines(run(name)) == lines(run(name + "-native"))


@pytest.mark.runs("storm-apicv", "storm-native")
def test_apicv_loses_nothing(run):
    """Where the CPU delivers what lies in the mailboxes."""
    assert lines(run("storm-apicv")) == lines(run("storm-native"))


@pytest.mark.parametrize("cpus", [
    pytest.param(2, marks=pytest.mark.runs("storm-resets-2")),
    pytest.param(4, marks=[pytest.mark.runs("storm-resets-4"),
                           pytest.mark.long])])
def test_each_cpu_resets(run, cpus):
    """In each way, while the others run, halt, or spin; all come up again."""
    result = run(f"storm-resets-{cpus}")
    assert lines(result) == [
        f"reset {n}: by {WAYS[n // cpus]} of CPU {n % cpus}"
        for n in range(3 * cpus)] + [f"{3 * cpus} resets"]
    assert result.log.count("monocle: guest: reset (") == 3 * cpus


# -- Debian

OFF_AND_ON = (
    "cd /sys/devices/system/cpu; for n in $(seq 20); do for to in 0 1; do "
    "for c in cpu[1-9]*; do echo $to >$c/online; "
    "[ $(cat $c/online) = $to ] || echo $c; done; done; done; cat online; cd")
BUSY = "for n in $(seq $(nproc)); do while :; do :; done & done"
SMP_QUESTIONS = {
    "online": "nproc",
    "cpuinfo": "grep -c ^processor /proc/cpuinfo",
    "hotplug": OFF_AND_ON,
    "complaints": linux.QUESTIONS["complaints"],
}


def debian(cpus, native):
    """Asked, rebooted three times (once while all CPUs are busy), off."""
    session = linux.Session()
    # Bochs 2.7's MONITOR does not see what other CPUs store by their TLBs: on
    # four of them, natively, Linux's idle loop waits for ever for its work.
    with rigs.start(rig="bochs", cpus=cpus, native=native, append="idle=halt",
                    timeout=linux.TIMEOUT * 2,
                    monocle=runs.MONOCLE) as machine:
        machine.wait_for("demo# ", linux.TIMEOUT)
        linux.ask(machine, session, SMP_QUESTIONS)
        for n in range(0 if native else linux.REBOOTS):
            if n == 1:
                machine.send(BUSY + "\n")
            linux.reboot(machine, session, "nproc")
        machine.send("poweroff -f\n")
        session.result = machine.finish()
    return session


for _cpus in (2, 4):
    for _native in (False, True):
        runs.define(f"debian-{_cpus}" + "-native" * _native)(
            functools.partial(debian, _cpus, _native))


def debians(pattern):
    return [pytest.param(cpus, marks=[
        pytest.mark.long,
        pytest.mark.runs(*(part.format(cpus) for part in pattern.split()))])
            for cpus in (2, 4)]


def check_debian(session, cpus):
    assert session.result.status == 0, session.result.report()
    assert session.answers["online"].split() == [str(cpus)]
    assert session.answers["cpuinfo"].split() == [str(cpus)]
    # Nothing is said of those that did not go off or on.
    assert session.answers["hotplug"].split() == [f"0-{cpus - 1}"]


@pytest.mark.parametrize("cpus", debians("debian-{}-native"))
def test_debian_natively(run, cpus):
    check_debian(run(f"debian-{cpus}-native"), cpus)


@pytest.mark.parametrize("cpus", debians("debian-{}"))
def test_debian_has_all_cpus(run, cpus):
    """They go off and on 20 times; three reboots, one while all are busy."""
    session = run(f"debian-{cpus}")
    check_debian(session, cpus)
    assert session.result.text == "guest power-off"
    assert [after.split() for after in session.reboots] == [
        [str(cpus)]] * linux.REBOOTS


@pytest.mark.parametrize("cpus", debians("debian-{0} debian-{0}-native"))
def test_debian_complains_of_nothing_new(run, cpus):
    here, bare = (linux.lines(run(name).answers["complaints"]) for name in
                  (f"debian-{cpus}", f"debian-{cpus}-native"))
    assert [line for line in here if line not in bare] == []
