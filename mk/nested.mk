# SPDX-License-Identifier: MIT
# make nested       the nested rig: Bochs runs a Linux with KVM, which runs QEMU
NESTED := $(B)/nested/initrd.img

.PHONY: nested
nested: $(NESTED) $(DRIVERS)
test test-long bench: $(NESTED) $(DRIVERS)

$(NESTED): $(KERNEL_TREE).fetched $(BUSYBOX_TREE).fetched \
		tools/nested/initrd.py tools/nested/init tools/demo/initrd.py
	$(say) INITRD $@
	$(Q)mkdir -p $(@D)
	$(Q)$(PYTHON) tools/nested/initrd.py --root $(KERNEL_TREE) \
		--busybox $(BUSYBOX_TREE)/bin/busybox \
		--init tools/nested/init --output $@
