# SPDX-License-Identifier: MIT
# make fleet        Monocle's own start over machines on paper (docs/fleet.md)
# make fleet-table  README's table of the tree's own machines
# With FLEET=DIR over that directory's, with HV="igd assign=all" as its command
# line. Status 1 where something differs from what is expected.
FLEET ?=
HV ?= igd assign=all

# All but what tests/fleet/fleet.c includes or stands for; files by name, for
# they move. Of the assembly only what is put into a guest.
FLEET_NOT := main.c string.c
FLEET_SRC := $(foreach s,$(SRC_C),$(if $(filter $(FLEET_NOT), \
	$(notdir $(s))),,$(s))) $(wildcard tests/fleet/*.c)
FLEET_OBJ := $(FLEET_SRC:%.c=$(B)/fleet/obj/%.o) $(patsubst \
	%.asm,$(B)/obj/%.asm.o,$(filter vmm/%,$(SRC_ASM)))
HOSTCC ?= gcc
# Its image is the program itself: no PIE.
FLEET_CFLAGS := -std=c17 -DMONOCLE_HOST -g -O1 -I. -fno-strict-aliasing \
	-fno-pie -ffunction-sections -fdata-sections -fsanitize=undefined \
	-fno-sanitize-recover=all -fno-sanitize=alignment $(WARN)
FLEET_LDFLAGS := -no-pie -Wl,--gc-sections -Wl,-z,noexecstack \
	$(foreach f,page_alloc page_free stack_alloc,-Wl,--wrap=$(f)) \
	-Wl,--defsym=image_start=__executable_start \
	-Wl,--defsym='image_text_end=etext+4095&~4095' \
	-Wl,--defsym=image_rodata_end=image_text_end \
	-Wl,--defsym='image_end=_end+4095&~4095'
FLAGS_fleet = $(HOSTCC) $(FLEET_CFLAGS)
$(filter $(B)/fleet/%,$(FLEET_OBJ)): $(B)/fleet.flags

.PHONY: fleet fleet-table
fleet: $(B)/fleet/fleet
	$(Q)$(PYTHON) tests/fleet/fleet.py --hv "$(HV)" $(FLEET)
fleet-table: $(B)/fleet/fleet
	$(Q)$(PYTHON) tests/fleet/fleet.py --readme
test test-long: $(B)/fleet/fleet

$(B)/fleet/obj/%.o: %.c
	$(say) HOSTCC $<
	$(Q)mkdir -p $(@D)
	$(Q)$(HOSTCC) $(FLEET_CFLAGS) -MMD -MP -c $< -o $@

$(B)/fleet/fleet: $(FLEET_OBJ)
	$(say) HOSTLD $@
	$(Q)$(HOSTCC) $(FLEET_CFLAGS) $(FLEET_LDFLAGS) -o $@ $^

-include $(FLEET_OBJ:.o=.d)
