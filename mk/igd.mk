# SPDX-License-Identifier: MIT
# make igd          the stand-in for Intel graphics, and Debian guests for it
# It is static, for it runs in the nested rig too.
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

# A module for that kernel (tools/identity_map), and a guest that loads it.
# The headers' packages are named by the kernel's version (where the archive has
# gone on to another, `make distclean` fetches all anew; so `make test` does
# without); that of the processor wants the other two beside it, in /usr/src and
# /usr/lib.
IDENTITY := $(GUEST)/initrd-identity.img
IDENTITY_BUILD := $(B)/identity_map
igd test-long: $(IDENTITY)

KERNEL_VERSION = $(shell ls $(KERNEL_TREE)/lib/modules)
HEADERS_COMMON = linux-headers-$(KERNEL_VERSION:-amd64=-common)
KBUILD_PACKAGE = linux-kbuild-$(firstword $(subst .0-, ,$(KERNEL_VERSION)))
HEADERS = $(CACHE)/linux-headers-$(KERNEL_VERSION)/usr

$(IDENTITY_BUILD)/identity_map.ko: $(wildcard tools/identity_map/*) \
		$(KERNEL_TREE).fetched
	$(Q)$(MAKE) -s $(patsubst %,$(CACHE)/%.fetched, \
		linux-headers-$(KERNEL_VERSION) $(HEADERS_COMMON) $(KBUILD_PACKAGE))
	$(say) KBUILD $@
	$(Q)mkdir -p $(@D) && cp tools/identity_map/* $(@D)
	$(Q)ln -sfn $(CURDIR)/$(CACHE)/$(KBUILD_PACKAGE)/usr/lib $(HEADERS)/lib
	$(Q)ln -sfn $(CURDIR)/$(CACHE)/$(KBUILD_PACKAGE)/usr/lib \
		$(CACHE)/$(HEADERS_COMMON)/usr/lib
	$(Q)$(MAKE) -s -C $(HEADERS)/src/linux-headers-$(KERNEL_VERSION) \
		-f $(CURDIR)/$(CACHE)/$(HEADERS_COMMON)/usr/src/$(HEADERS_COMMON)/Makefile \
		M=$(CURDIR)/$(@D) CC=$(CC) CONFIG_DEBUG_INFO_BTF_MODULES= modules

$(IDENTITY): $(IDENTITY_BUILD)/identity_map.ko tests/guests/identity_map \
		$(BUSYBOX_TREE).fetched tools/demo/initrd.py tools/demo/init
	$(say) INITRD $@
	$(Q)mkdir -p $(@D)
	$(Q)$(PYTHON) tools/demo/initrd.py --root $(KERNEL_TREE) \
		--busybox $(BUSYBOX_TREE)/bin/busybox --init tools/demo/init \
		--output $@ $< tests/guests/identity_map
