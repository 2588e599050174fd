# SPDX-License-Identifier: MIT
# The stand-in for Intel graphics: static, for it runs in the nested rig too.
STANDIN := $(B)/igd/standin

.PHONY: igd
igd: $(STANDIN)
test test-long: $(STANDIN)

$(STANDIN): tests/igd/standin.c tests/igd/registers.h
	$(say) CC $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=c17 -O2 -static -s -I. $(WARN) -Wno-undef \
		-Wno-missing-field-initializers \
		-ffile-prefix-map=$(CURDIR)=. -Wl,--build-id=none -o $@ $<

# Debian's kernel with its driver for Intel graphics.
I915 := $(GUEST)/initrd-i915.img
igd test test-long: $(I915)

$(I915): $(KERNEL_TREE).fetched $(BUSYBOX_TREE).fetched tools/demo/initrd.py \
		tools/demo/init tests/igd/report $(MONOCLECTL)
	$(say) INITRD $@
	$(Q)mkdir -p $(@D)
	$(Q)$(PYTHON) tools/demo/initrd.py --root $(KERNEL_TREE) \
		--busybox $(BUSYBOX_TREE)/bin/busybox --init tools/demo/init \
		--output $@ --modules i915 tests/igd/report $(MONOCLECTL)
