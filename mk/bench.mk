# SPDX-License-Identifier: MIT
# make bench        tables, and rows of name, unit, value, goal in build/bench.json
bench: $(B)/monocle.elf $(B)/guests/guest.elf $(DEMO)
	$(say) BENCH $(B)/bench.json
	$(Q)$(PYTHON) tests/bench/bench.py
