# SPDX-License-Identifier: MIT
"""A suite that takes long is not run."""
import resource

import pytest

CORES = 2


def test_budget(request, budget):
    """On two cores. Last of all tests: see conftest.py."""
    seconds, allowed, busy = budget
    if request.config.option.markexpr != "not long":
        pytest.skip("of the short suite")
    spent = sum(sum(resource.getrusage(who)[:2]) for who in
                (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    assert spent < allowed * CORES, "processor time"
    # Where others use the machine, its clock says nothing.
    assert busy or seconds < allowed
