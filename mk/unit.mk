# SPDX-License-Identifier: MIT
# make unit         the pure C files, built for this machine with sanitizers
# make mutants      plants faults, and says which ones no unit test notices
# ARGS="-k bus" picks some; ROOM=vmm/assign (or a file), N=20, SEED=3.

.PHONY: unit mutants
unit:
	$(say) PYTEST tests/unit
	$(Q)$(PYTHON) -m pytest -q -m "not long" tests/unit $(ARGS)
N ?= 20
SEED ?= 1
mutants:
	$(Q)$(PYTHON) tests/unit/mutate.py --room "$(ROOM)" --count $(N) \
		--seed $(SEED)
