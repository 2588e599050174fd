# SPDX-License-Identifier: MIT
# make selftest     an image that drives VT-d without a guest
# It is linked from Monocle's own objects.
SELFTEST_OBJ := $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/selftest/*.c))
$(SELFTEST_OBJ): $(B)/obj.flags

.PHONY: selftest
selftest test test-long: $(B)/selftest.elf

$(B)/selftest.elf: $(filter-out $(B)/obj/boot/main.o,$(OBJ)) $(SELFTEST_OBJ) \
		linker.ld
	$(say) LD $@
	$(Q)$(LD) $(LDFLAGS) -T linker.ld -o $@ $(filter %.o,$^)

-include $(SELFTEST_OBJ:.o=.d)
