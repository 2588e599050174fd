# SPDX-License-Identifier: MIT
# make guests       the tests' own tiny guest, a boot sector for guest=bios, and
#                   what an option ROM has that starts Linux
# build/guests/guest.elf is a Multiboot 1 kernel, real.bin and config.bin the others.
GUESTS_C := $(sort $(wildcard tests/guests/*.c))
GUESTS_ASM := $(sort $(wildcard tests/guests/*.asm))
GUESTS_OBJ := $(GUESTS_C:%.c=$(B)/obj/%.o) $(GUESTS_ASM:%.asm=$(B)/obj/%.asm.o)
GUESTS_CFLAGS := -std=c17 -O2 -g -ffreestanding -fno-builtin \
	-mgeneral-regs-only -mno-red-zone -fno-pie -fno-pic \
	-fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-strict-aliasing -fcf-protection=none -Wno-array-bounds \
	-ffile-prefix-map=$(CURDIR)=. -Itests $(WARN)
FLAGS_guests = $(CC) $(GUESTS_CFLAGS)
$(GUESTS_OBJ): $(B)/guests.flags

.PHONY: guests
guests test test-long bench: $(B)/guests/guest.elf $(B)/guests/real.bin \
	$(B)/guests/config.bin

$(B)/obj/tests/guests/%.o: tests/guests/%.c
	$(say) CC $<
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(GUESTS_CFLAGS) -MMD -MP -c $< -o $@

$(B)/obj/tests/guests/%.asm.o: tests/guests/%.asm
	$(say) NASM $<
	$(Q)mkdir -p $(@D)
	$(Q)$(NASM) -f elf64 -I tests/ -MD $(@:.o=.d) -MP $< -o $@

$(B)/guests/guest.elf: $(GUESTS_OBJ) tests/guests/guest.ld
	$(say) LD $@
	$(Q)mkdir -p $(@D)
	$(Q)$(LD) -nostdlib -static -z max-page-size=4096 -z noexecstack \
		--build-id=none --no-warn-rwx-segments \
		-T tests/guests/guest.ld -o $@ $(GUESTS_OBJ)

$(B)/guests/%.bin: tests/guests/bios/%.asm
	$(say) NASM $@
	$(Q)mkdir -p $(@D)
	$(Q)$(NASM) -f bin -o $@ $<

-include $(GUESTS_OBJ:.o=.d)
