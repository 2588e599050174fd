# SPDX-License-Identifier: MIT
# make guest        the demo guest: Debian's kernel, repacked, and a busybox
# make distclean    remove all that was built, and the packages that were fetched
GUEST := $(B)/guest
CACHE := $(B)/cache
DEMO := $(GUEST)/vmlinuz-demo $(GUEST)/initrd.img $(GUEST)/initrd-drm.img
# What assigned functions of QEMU's need, and the tasks of the tests.
DRIVERS := $(GUEST)/initrd-drivers.img
KERNEL_TREE := $(CACHE)/linux-image-amd64
BUSYBOX_TREE := $(CACHE)/busybox-static

.PHONY: guest distclean
guest: $(DEMO)

# PACKAGE, or PACKAGE@RELEASE of Debian.
$(CACHE)/%.fetched:
	$(say) FETCH $*
	$(Q)mkdir -p $(@D)
	$(Q)tools/demo/fetch $(firstword $(subst @, ,$*)) $(CACHE) \
		$(CACHE)/$* $(word 2,$(subst @, ,$*))
	$(Q)touch $@

$(GUEST)/vmlinuz-demo: $(KERNEL_TREE).fetched tools/demo/repack.py \
		tools/demo/stub.asm
	$(say) REPACK $@
	$(Q)mkdir -p $(@D)
	$(Q)$(PYTHON) tools/demo/repack.py --nasm $(NASM) \
		$(KERNEL_TREE)/boot/vmlinuz-* $@

# Programs for the guest: static, for the guest's own C library is not there.
MONOCLECTL_SRC := $(sort $(wildcard tools/monoclectl/*.c))
MONOCLECTL := $(if $(MONOCLECTL_SRC),$(GUEST)/monoclectl)
$(GUEST)/monoclectl: $(MONOCLECTL_SRC) $(wildcard tools/monoclectl/*.h) \
		vmm/vcpu/hypercall.h vmm/core/stats.h
$(GUEST)/play: tests/guests/linux/play.c
$(GUEST)/kvm: tests/guests/linux/kvm.c
$(GUEST)/monoclectl $(GUEST)/play $(GUEST)/kvm:
	$(say) CC $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=c17 -O2 -static -s -I. $(WARN) -Wno-undef \
		-ffile-prefix-map=$(CURDIR)=. -Wl,--build-id=none \
		-o $@ $(filter %.c,$^)

# The DRM driver's modules are as large as all the rest.
$(GUEST)/initrd-drm.img: DRM := --drm bochs
$(DRIVERS): MODULES := e1000e nvme ahci sd_mod xhci_pci usb_storage ext4 \
	crc32c_generic ehci_pci usbhid hid_generic snd_hda_intel \
	snd_hda_codec_generic vfat nls_cp437 nls_ascii efivarfs
$(DRIVERS): PROGRAMS := tests/guests/tasks $(GUEST)/play
$(DRIVERS): tests/guests/tasks $(GUEST)/play
# The tests' own guest on Linux's KVM: what Monocle is measured beside.
BESIDE := $(GUEST)/initrd-kvm.img
bench: $(DEMO) $(BESIDE)
$(BESIDE): MODULES := kvm_intel
$(BESIDE): PROGRAMS := $(GUEST)/kvm $(B)/guests/guest.elf
$(BESIDE): $(GUEST)/kvm $(B)/guests/guest.elf
$(GUEST)/initrd.img $(GUEST)/initrd-drm.img $(DRIVERS) $(BESIDE): \
		$(KERNEL_TREE).fetched $(BUSYBOX_TREE).fetched \
		tools/demo/initrd.py tools/demo/init $(MONOCLECTL)
	$(say) INITRD $@
	$(Q)mkdir -p $(@D)
	$(Q)$(PYTHON) tools/demo/initrd.py --root $(KERNEL_TREE) \
		--busybox $(BUSYBOX_TREE)/bin/busybox --init tools/demo/init \
		--output $@ $(DRM) --modules "$(MODULES)" $(MONOCLECTL) $(PROGRAMS)

distclean:
	$(say) CLEAN $(B)
	$(Q)rm -rf $(B)
