# SPDX-License-Identifier: MIT
"""What make bench counts of the VT-d driver, without its instructions."""
import pytest

from bench import vtd_bench


@pytest.fixture(scope="module", autouse=True)
def program():
    vtd_bench.build()


@pytest.mark.parametrize("layout", vtd_bench.LAYOUTS)
def test_no_table_and_no_invalidation_too_many(layout):
    found, pieces = vtd_bench.numbers(layout)
    assert found["create", "tables"] == vtd_bench.least_tables(
        list(vtd_bench.without(pieces, vtd_bench.INTERRUPTS)))
    for what, goal in vtd_bench.INVALIDATIONS.items():
        assert found[what, "invalidations"] == goal
