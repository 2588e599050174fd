# SPDX-License-Identifier: MIT
# The UEFI driver in a display's ROM (vmm/assign/gop/), a PE image by the same gcc
# and ld. That ld makes no relocations, so none may be needed: wherever the
# driver lies, it finds its own by RIP.
GOP := $(B)/obj/vmm/assign/gop
GOP_CFLAGS := -std=c17 -Os -ffreestanding -fpie -fno-ident -mgeneral-regs-only \
	-mno-red-zone -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-strict-aliasing -fno-tree-loop-distribute-patterns \
	-fcf-protection=none -ffile-prefix-map=$(CURDIR)=. -I. $(WARN)
GOP_LDFLAGS := -m i386pep -s --no-insert-timestamp --subsystem 11 -e efi_main --image-base 0 \
	--file-alignment 32 --section-alignment 4096
FLAGS_gop = $(CC) $(GOP_CFLAGS) $(LD) $(GOP_LDFLAGS)
$(GOP)/gop.o: $(B)/gop.flags

$(GOP)/%.o: vmm/assign/gop/%.c
	$(say) CC $<
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(GOP_CFLAGS) -MMD -MP -c $< -o $@

$(GOP)/gop.efi: $(GOP)/gop.o
	$(say) LD $@
	$(Q)! $(OBJCOPY:objcopy=objdump) -r $< | grep R_X86_64_64
	$(Q)$(LD) $(GOP_LDFLAGS) -o $@ $<

$(B)/obj/vmm/assign/gop_rom.asm.o: $(GOP)/gop.efi
-include $(GOP)/gop.d
