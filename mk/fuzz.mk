# SPDX-License-Identifier: MIT
# make fuzz         each tests/unit/fuzz/fuzz_NAME.c, FUZZ_RUNS times
# make fuzz-NAME    one of them
# make fuzz-long    those of firmware's tables, FUZZ_LONG_RUNS times
# Its line "// sources: FILE.c ..." names what is linked to it (but for what it
# includes itself, marked so); NAME.dict beside it has its words. What breaks
# is left as build/fuzz/NAME-crash-...: build/fuzz/NAME FILE repeats it. The
# corpus stays in build/ and grows from run to run.

# By count and not by time, so that a loaded machine tests as much.
FUZZ_RUNS ?= 500000
# Each takes about 20 times as long as others.
fuzz-pcicap: FUZZ_RUNS = 50000
FUZZ_LONG_RUNS ?= 10000000
FUZZ_CC ?= clang
FUZZ_CFLAGS := -std=c17 -g -O1 -DMONOCLE_HOST -fno-strict-aliasing -I. \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
FUZZ := $(patsubst tests/unit/fuzz/fuzz_%.c,%, \
	$(sort $(wildcard tests/unit/fuzz/fuzz_*.c)))

fuzz_src = $(shell sed -n '/included below/d; s,^// sources:,,p' \
	tests/unit/fuzz/fuzz_$(1).c)

FUZZ_LONG := acpi dmar

.PHONY: fuzz $(FUZZ:%=fuzz-%) fuzz-long $(FUZZ_LONG:%=fuzz-long-%)
fuzz: $(FUZZ:%=fuzz-%)
fuzz-long: $(FUZZ_LONG:%=fuzz-long-%)

define FUZZ_RULE
$(B)/fuzz/$(1): tests/unit/fuzz/fuzz_$(1).c $(SRC_C) \
		$(wildcard $(ROOMS:%=%/*.h))
	$$(say) FUZZCC $$@
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(FUZZ_CC) $$(FUZZ_CFLAGS) $$< $(call fuzz_src,$(1)) -o $$@
endef
$(foreach t,$(FUZZ),$(eval $(call FUZZ_RULE,$(t))))

# How often it runs
define FUZZ_RUN
	$(say) FUZZ "$* $(1)"
	$(Q)mkdir -p $(B)/fuzz/$*.corpus
	$(Q)$(B)/fuzz/$* -runs=$(1) -timeout=10 \
		-rss_limit_mb=1024 -artifact_prefix=$(B)/fuzz/$*- \
		$(addprefix -dict=,$(wildcard tests/unit/fuzz/$*.dict)) \
		$(B)/fuzz/$*.corpus >$(B)/fuzz/$*.log 2>&1 || \
		{ tail -n 60 $(B)/fuzz/$*.log >&2; exit 1; }
	$(Q)tail -n 1 $(B)/fuzz/$*.log
endef

$(FUZZ:%=fuzz-%): fuzz-%: $(B)/fuzz/%
	$(call FUZZ_RUN,$(FUZZ_RUNS))

$(FUZZ_LONG:%=fuzz-long-%): fuzz-long-%: $(B)/fuzz/%
	$(call FUZZ_RUN,$(FUZZ_LONG_RUNS))

test: fuzz
test-long: fuzz fuzz-long
