# SPDX-License-Identifier: MIT
# make              build/monocle.elf and build/monocle.iso
# make run          the demo guest, interactive
# make test         every test of the short suite
# make help         these lines
# make clean        remove the image, keep packages and guests
# V=1 shows commands; CROSS_COMPILE=x86_64-linux-gnu- on another machine.

CROSS_COMPILE ?=
CC := $(CROSS_COMPILE)gcc
LD := $(CROSS_COMPILE)ld
OBJCOPY := $(CROSS_COMPILE)objcopy
NASM ?= nasm
# Debian's own python3: the tests' libraries come as Debian packages.
PYTHON ?= /usr/bin/python3
B := build

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-8s %s\n'
endif

WARN := -Wall -Wextra -Wconversion -Wshadow -Werror -Wstrict-prototypes \
	-Wmissing-prototypes -Wvla -Wundef
# No FPU or vector register is touched: they stay the guest's.
CFLAGS := -std=c17 -g -ffreestanding -fno-builtin-printf \
	-ffunction-sections -fdata-sections -malign-data=abi \
	-mgeneral-regs-only -mno-red-zone -mcmodel=kernel -fno-pie \
	-fno-pic -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-omit-frame-pointer -fno-strict-aliasing -fcf-protection=none \
	-ffile-prefix-map=$(CURDIR)=. -I. $(WARN)
LDFLAGS := -nostdlib -static --gc-sections \
	-z max-page-size=4096 -z noexecstack \
	--build-id=none --no-warn-rwx-segments --orphan-handling=error

ROOMS := boot kernel arch/x86 arch/x86/vmx drivers/pci drivers/vtd vmm \
	vmm/core vmm/devmodel vmm/vcpu vmm/load vmm/assign
SRC_C := $(sort $(wildcard $(ROOMS:%=%/*.c)))
SRC_ASM := $(sort $(wildcard $(ROOMS:%=%/*.asm)))
OBJ := $(SRC_C:%.c=$(B)/obj/%.o) $(SRC_ASM:%.asm=$(B)/obj/%.asm.o)

# What an exit runs is built for speed (to align code pays nothing there), all
# else for size. `make bench` tells what belongs here.
EXIT_PATH := $(wildcard vmm/vcpu/*.c vmm/core/*.c) arch/x86/vmx/vmx.c \
	arch/x86/apic.c $(addprefix kernel/,host_irq.c region.c string.c \
	vectors.c) $(addprefix vmm/devmodel/,apic_bus.c ioapic.c lapic.c \
	lapic_accept.c mtrr.c pci_bridges.c pci_bus.c pic.c pit.c uart.c)
FAST := -O2 $(foreach a,functions jumps loops labels,-fno-align-$(a))
SMALL := -Oz

.PHONY: all help run test test-long bench clean FORCE
all: $(B)/monocle.elf

# What the head of this file and of each in mk/ says.
help:
	@sed -n 's/^# make/make/p' Makefile mk/*.mk

$(B)/obj/%.o: %.c
	$(say) CC $<
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(if $(filter $<,$(EXIT_PATH)),$(FAST),$(SMALL)) \
		-MMD -MP -c $< -o $@

# What objects are built with: a file that changes only when the words do.
FLAGS_obj = $(CC) $(CFLAGS) $(LDFLAGS) $(SMALL) $(FAST) $(EXIT_PATH)
$(OBJ): $(B)/obj.flags
$(B)/%.flags: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)echo '$(FLAGS_$*)' | cmp -s - $@ || echo '$(FLAGS_$*)' >$@
FORCE:

$(B)/obj/%.asm.o: %.asm
	$(say) NASM $<
	$(Q)mkdir -p $(@D)
	$(Q)$(NASM) -f elf64 -I ./ -I $(B)/obj/ -MD $(@:.o=.d) -MP $< -o $@

$(B)/monocle.elf: $(OBJ) linker.ld
	$(say) LD $@
	$(Q)$(LD) $(LDFLAGS) -T linker.ld -o $@ $(OBJ)

clean:
	$(say) CLEAN $(B)
	$(Q)rm -rf $(B)/obj $(B)/monocle.elf

-include $(OBJ:.o=.d)
include $(sort $(wildcard mk/*.mk))
