# SPDX-License-Identifier: MIT
"""An exit costs what docs/bench.md says: `make bench` writes its figures."""
import pytest

from bench import bench, marked
from boot import runs

SPARE = 0.03
PROMISED = {cells[0].removeprefix(bench.EXIT): int(cells[1].replace(",", ""))
            for cells in marked.rows(bench.DOCS, bench.place("exits"))}

runs.define("bench")(lambda: bench.on_monocle("bench", runs.MONOCLE))
pytestmark = pytest.mark.runs("bench")


@pytest.mark.parametrize("name", PROMISED)
def test_an_exit_costs_what_is_promised(run, name):
    """Neither more nor less: else the figures there are to be written anew."""
    assert run("bench")[name] == pytest.approx(PROMISED[name], SPARE, 1)


def test_each_exit_is_promised(run):
    assert run("bench").keys() == PROMISED.keys()
