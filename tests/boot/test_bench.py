# SPDX-License-Identifier: MIT
"""An exit costs what docs/bench.md says: `make bench` writes its figures."""
import pytest

from bench import bench, marked
from boot import runs

SPARE = 0.03
# By the run that measures them.
PROMISED = {run: {cells[0].removeprefix(words): int(cells[1].replace(",", ""))
                  for cells in marked.rows(bench.DOCS, bench.place(part))
                  if cells[0].startswith(words)}
            for run, part, words in (
                ("bench", "exits", bench.EXIT),
                ("bench-2", "smp", bench.TWO + bench.EXIT))}

runs.define("bench")(lambda: bench.on_monocle("bench", runs.MONOCLE))
runs.define("bench-2")(lambda: bench.on_monocle("bench", runs.MONOCLE, cpus=2))


@pytest.mark.parametrize("which, name", [
    pytest.param(which, name, marks=pytest.mark.runs(which))
    for which, rows in PROMISED.items() for name in rows])
def test_an_exit_costs_what_is_promised(run, which, name):
    """Neither more nor less: else the figures there are to be written anew."""
    assert run(which)[name] == pytest.approx(PROMISED[which][name], SPARE, 1)


@pytest.mark.parametrize("which", runs.each(PROMISED))
def test_each_exit_is_promised(run, which):
    assert run(which).keys() == PROMISED[which].keys()
