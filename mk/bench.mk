# SPDX-License-Identifier: MIT
# make bench        tables, beside KVM's; rows in build/bench.json
#                   PARTS="exits linux": these alone (docs/bench.md)
bench: $(B)/monocle.elf $(B)/guests/guest.elf $(B)/fleet/fleet
	$(say) BENCH $(B)/bench.json
	$(Q)$(PYTHON) tests/bench/bench.py $(PARTS)
