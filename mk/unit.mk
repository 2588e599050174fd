# SPDX-License-Identifier: MIT
# make test-unit    the pure C files, built for this machine with sanitizers
# ARGS="-k bus" picks some.

.PHONY: test-unit
test-unit:
	$(say) PYTEST tests/unit
	$(Q)$(PYTHON) -m pytest -q tests/unit $(ARGS)
