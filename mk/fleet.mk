# SPDX-License-Identifier: MIT
# make fleet [FLEET=DIR] [HV="igd assign=all"]
#   Monocle's own start over machines on paper (tests/fleet): a row for each,
#   what differs from what is expected, and a last line of sums. Status 1 where
#   something differs. FLEET: a directory of .fleet files.
FLEET ?=
HV ?= igd assign=all

# What tests/fleet/fleet.c stands for, or includes; by name, for files move
FLEET_NOT := main panic traps host_paging string trap vmx smp vcpu \
	selftest start ap entry
fleet_has = $(foreach s,$(1),$(if $(filter $(FLEET_NOT), \
	$(basename $(notdir $(s)))),,$(s)))
FLEET_SRC := $(call fleet_has,$(SRC_C)) $(wildcard tests/fleet/*.c)
FLEET_OBJ := $(FLEET_SRC:%.c=$(B)/fleet/obj/%.o) \
	$(patsubst %.asm,$(B)/obj/%.asm.o,$(call fleet_has,$(SRC_ASM)))
HOSTCC ?= gcc
# Its image is the program itself: no PIE.
FLEET_CFLAGS := -std=c17 -DMONOCLE_HOST -g -O1 -I. -fno-strict-aliasing \
	-fno-pie -ffunction-sections -fdata-sections -fsanitize=undefined \
	-fno-sanitize-recover=all -fno-sanitize=alignment $(WARN)
FLEET_LDFLAGS := -no-pie -Wl,--gc-sections -Wl,-z,noexecstack \
	-Wl,--wrap=page_alloc \
	-Wl,--wrap=page_free -Wl,--defsym=image_start=__executable_start \
	-Wl,--defsym=image_end=_end

.PHONY: fleet
fleet: $(B)/fleet/fleet
	$(Q)$(PYTHON) tests/fleet/fleet.py --hv "$(HV)" $(FLEET)
test test-long: $(B)/fleet/fleet

$(B)/fleet/obj/%.o: %.c
	$(say) HOSTCC $<
	$(Q)mkdir -p $(@D)
	$(Q)$(HOSTCC) $(FLEET_CFLAGS) -MMD -MP -c $< -o $@

$(B)/fleet/fleet: $(FLEET_OBJ)
	$(say) HOSTLD $@
	$(Q)$(HOSTCC) $(FLEET_CFLAGS) $(FLEET_LDFLAGS) -o $@ $^

-include $(FLEET_OBJ:.o=.d)
