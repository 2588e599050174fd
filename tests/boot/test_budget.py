# SPDX-License-Identifier: MIT
"""A suite that takes long is not run."""
import pytest

CORES = 2


def test_budget(request, budget):
    """On two cores. Last of all tests: see conftest.py."""
    allowed, seconds, spent, others = budget
    if request.config.option.markexpr != "not long":
        pytest.skip("of the short suite")
    assert spent < allowed * CORES, "processor time"
    # Others who use the machine delay the tests by what they use, at most.
    assert seconds - others < allowed
