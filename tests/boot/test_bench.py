# SPDX-License-Identifier: MIT
"""An exit costs what docs/bench.md says, and so does SeaBIOS: `make bench` writes
the figures."""
import re

import pytest

from bench import bench, firmware, marked
from boot import runs

SPARE = 0.03


def promised(part, words):
    """{what: ticks} of the rows that begin so."""
    return {cells[0].removeprefix(words): int(cells[1].replace(",", ""))
            for cells in marked.rows(bench.DOCS, bench.place(part))
            if cells[0].startswith(words)}


# By the run that measures them.
PROMISED = {"bench": promised("exits", bench.EXIT),
            "bench-2": promised("smp", bench.TWO + bench.EXIT)}

runs.define("bench")(lambda: bench.on_monocle("bench", runs.MONOCLE))
runs.define("bench-2")(lambda: bench.on_monocle("bench", runs.MONOCLE, cpus=2))
runs.define("bench-seabios")(lambda: firmware.on_monocle(runs.MONOCLE))


@pytest.mark.parametrize("which, name", [
    pytest.param(which, name, marks=pytest.mark.runs(which))
    for which, rows in PROMISED.items() for name in rows])
def test_an_exit_costs_what_is_promised(run, which, name):
    """Neither more nor less: else the figures there are to be written anew."""
    assert run(which)[name] == pytest.approx(PROMISED[which][name], SPARE, 1)


@pytest.mark.parametrize("which", runs.each(PROMISED))
def test_each_exit_is_promised(run, which):
    assert run(which).keys() == PROMISED[which].keys()


def counts(text, pattern):
    """The numbers that it finds."""
    return list(map(int, re.findall(pattern, text, re.MULTILINE)))


@pytest.mark.long
@pytest.mark.nested("latency", "latency-native")
@pytest.mark.parametrize("name", ["latency", "latency-native"])
def test_each_message_comes_once(nested, name):
    """The guest ends by itself where one does not come, or comes again."""
    done = nested(name)
    assert done.status == 0, done.report()
    told = bench.told(done)
    assert told.keys() == {
        cells[0] for cells in marked.rows(bench.DOCS, bench.place("nested"))}
    for what in {name.rpartition(": ")[0] for name in told}:
        assert 0 < told[f"{what}: median"] <= told[f"{what}: 99 of 100"] <= \
            told[f"{what}: most"]
    assert "latency: 1000 messages, 0 in vain" in done.serial.splitlines()
    # A tick is an instruction; two of these read the counter.
    ticks, = counts(done.serial, r"1000 instructions: (\d+) ticks$")
    assert ticks == pytest.approx(1000, 0.01)
    # As many as Monocle has taken.
    assert counts(done.log, r"00:05.0: .* (\d+) interrupts") == (
        [1000] if name == "latency" else [])


@pytest.mark.runs("bench-seabios")
def test_seabios_takes_what_is_promised(run):
    assert dict.fromkeys(bench.SEABIOS, run("bench-seabios")) == pytest.approx(
        promised("firmware", bench.FIRMWARE), SPARE)
