# SPDX-License-Identifier: MIT
"""Monocle's command line, as a user meets it."""
import functools
import re

import pytest

from boot import runs, screen
from rigs.spec import REPOSITORY

OPTION = re.compile(r'\{"([a-z-]+)",\s+[A-Z]+,')
SINKS = ["com2", "com1,e9", "e9,screen"]


@runs.define("help")
def help_run():
    return runs.boot("exit", hv="help")


@runs.define("quiet")
def quiet():
    return runs.boot("exit", hv="quiet")


@runs.define("memory=20M")
def little():
    return runs.boot("exit", hv="memory=20M")


@runs.define("no-vga")
def no_vga():
    return runs.boot("hostile-memory", hv="no-vga")


@runs.define("log=com1")
def log_com1():
    return runs.boot("exit", hv="log=com1")


@runs.define("log=screen")
def log_screen():
    """Refused at the end, so that the machine stays on."""
    path = runs.work("log.png")
    with runs.start("exit", hv="log=screen,e9", module=False) as machine:
        result = machine.finish(screenshot=path)
    return result, screen.read(screen.text_picture(path))


@runs.define("big")
def big():
    """More memory than there is room for below the devices."""
    return runs.boot("exit", memory=2048)


@pytest.mark.runs("help")
def test_help(run):
    result = run("help")
    assert result.status == 0, result.report()
    source = (REPOSITORY / "kernel/options.c").read_text()
    names = OPTION.findall(source[source.index("table[]"):])
    assert {"assign", "igd", "log", "memory", "help"} <= set(names)
    for name in names:
        assert re.search(rf"^monocle:\s+{name}\b.*: \w", result.log,
                         re.MULTILINE), name
    assert "the guest starts" not in result.log


@pytest.mark.runs("quiet")
def test_quiet(run):
    """No line but the last."""
    result = run("quiet")
    assert result.text == "guest exit 0", result.report()
    assert result.log.strip() == "monocle: end: 0 guest exit 0"


@pytest.mark.runs("memory=20M")
def test_memory_limit(run):
    """The guest is given no more than the user allows, and nearly that."""
    result = run("memory=20M")
    assert result.status == 0, result.report()
    given = sum(int(last, 16) - int(first, 16) for first, last in
                re.findall(r"^memory: (\w+)-(\w+) kind 1$", result.serial,
                           re.MULTILINE))
    assert 19 << 20 < given <= 20 << 20


@pytest.mark.long
@pytest.mark.runs("big")
def test_memory_is_given(run):
    """All but a little of it is the guest's."""
    result = run("big")
    assert result.status == 0, result.report()
    given = sum(int(last, 16) - int(first, 16) for first, last in
                re.findall(r"^memory: (\w+)-(\w+) kind 1$", result.serial,
                           re.MULTILINE))
    assert 1980 << 20 < given < 2048 << 20


@pytest.mark.runs("no-vga")
def test_no_vga(run):
    """The card stays Monocle's: its memory answers like nothing."""
    result = run("no-vga")
    assert result.status == 0, result.report()
    assert "display: none is assigned" in result.log
    assert not re.search("^monocle: region .* device ", result.log,
                         re.MULTILINE)


@pytest.mark.runs("log=com1")
def test_log_on_com1(run):
    """Where there is no port 0xE9: Monocle's lines are told by their prefix.
    """
    result = run("log=com1")
    assert result.log == ""
    assert result.serial.endswith("monocle: end: 0 guest exit 0\n"), \
        result.report()
    assert re.search(r"^monocle: the guest starts$", result.serial,
                     re.MULTILINE)
    assert re.search(r"^guest: exit on Monocle$", result.serial, re.MULTILINE)


@pytest.mark.runs("log=screen")
def test_log_on_the_screen(run):
    """A refusal is on the screen, for those who have no serial line."""
    result, lines = run("log=screen")
    assert result.status == 4, result.report()
    shown = "".join(line.ljust(80) for line in lines)
    wanted = next(line for line in result.log.splitlines()
                  if "error: no guest" in line)
    assert wanted in shown, lines


for _sink in SINKS:
    runs.define(f"log={_sink}")(functools.partial(
        runs.boot, "exit", hv=f"log={_sink}"))


@pytest.mark.parametrize("sink", runs.each(SINKS, "log={}"))
def test_sinks_are_accepted(run, sink):
    result = run(f"log={sink}")
    assert "guest: exit on Monocle" in result.serial, result.report()
    assert ("monocle: end: 0 guest exit 0\n" in result.log) == \
        ("e9" in sink), result.report()
