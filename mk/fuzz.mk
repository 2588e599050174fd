# SPDX-License-Identifier: MIT
# make fuzz    runs each tests/unit/fuzz/fuzz_NAME.c for FUZZ_SECONDS
# Its line "// sources: FILE.c ..." names what is linked to it (but for what it
# includes itself, marked so); NAME.dict beside it has its words. What breaks
# is left as build/fuzz/NAME-crash-...: build/fuzz/NAME FILE repeats it. The
# corpus stays in build/ and grows from run to run.

FUZZ_SECONDS ?= 20
FUZZ_CC ?= clang
FUZZ_CFLAGS := -std=c17 -g -O1 -DMONOCLE_HOST -fno-strict-aliasing -I. \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
FUZZ := $(patsubst tests/unit/fuzz/fuzz_%.c,%, \
	$(sort $(wildcard tests/unit/fuzz/fuzz_*.c)))

fuzz_src = $(shell sed -n '/included below/d; s,^// sources:,,p' \
	tests/unit/fuzz/fuzz_$(1).c)

.PHONY: fuzz $(FUZZ:%=fuzz-%)
fuzz: $(FUZZ:%=fuzz-%)

define FUZZ_RULE
$(B)/fuzz/$(1): tests/unit/fuzz/fuzz_$(1).c $(SRC_C) \
		$(wildcard $(ROOMS:%=%/*.h))
	$$(say) FUZZCC $$@
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(FUZZ_CC) $$(FUZZ_CFLAGS) $$< $(call fuzz_src,$(1)) -o $$@
endef
$(foreach t,$(FUZZ),$(eval $(call FUZZ_RULE,$(t))))

$(FUZZ:%=fuzz-%): fuzz-%: $(B)/fuzz/%
	$(say) FUZZ "$* for $(FUZZ_SECONDS) s"
	$(Q)mkdir -p $(B)/fuzz/$*.corpus
	$(Q)$(B)/fuzz/$* -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
		-rss_limit_mb=1024 -artifact_prefix=$(B)/fuzz/$*- \
		$(addprefix -dict=,$(wildcard tests/unit/fuzz/$*.dict)) \
		$(B)/fuzz/$*.corpus >$(B)/fuzz/$*.log 2>&1 || \
		{ tail -n 60 $(B)/fuzz/$*.log >&2; exit 1; }
	$(Q)tail -n 1 $(B)/fuzz/$*.log
