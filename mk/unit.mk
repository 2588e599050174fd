# SPDX-License-Identifier: MIT
# make unit         the pure C files, built for this machine with sanitizers
# ARGS="-k bus" picks some.

.PHONY: unit
unit:
	$(say) PYTEST tests/unit
	$(Q)$(PYTHON) -m pytest -q -m "not long" tests/unit $(ARGS)
