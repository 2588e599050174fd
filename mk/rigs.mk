# SPDX-License-Identifier: MIT
# make iso          build/monocle.iso: GRUB, Monocle, the demo guest
# make test-long    all tests, those that take hours too
# make lint         clang-format, cppcheck, clang-tidy
# make pictures     those in README and docs/tour.md
PYTEST := $(PYTHON) -m pytest -q

.PHONY: iso lint
iso: $(B)/monocle.iso
all: $(B)/monocle.iso

$(B)/monocle.iso: $(B)/monocle.elf $(DEMO) boot/grub.cfg tools/mkiso
	$(say) ISO $@
	$(Q)tools/mkiso $@ boot/grub/grub.cfg=boot/grub.cfg \
		boot/monocle.elf=$(B)/monocle.elf \
		boot/vmlinuz-demo=$(GUEST)/vmlinuz-demo \
		boot/initrd.img=$(GUEST)/initrd-drm.img

run: $(B)/monocle.iso
	$(Q)tools/boot --interactive

C_FILES := $(sort $(wildcard $(ROOMS:%=%/*.[ch]) vmm/assign/gop/*.[ch] \
	tests/guests/*.[ch] \
	tests/guests/linux/*.[ch] \
	$(foreach d,unit selftest fleet igd,tests/$(d)/*.[ch]) tools/*/*.[ch]))
lint:
	$(say) FORMAT "$(words $(C_FILES)) files"
	$(Q)clang-format --dry-run -Werror $(C_FILES)
	$(say) CPPCHECK "$(words $(SRC_C)) files"
	$(Q)cppcheck --quiet --std=c11 --platform=unix64 -I. \
		--enable=warning,portability --error-exitcode=1 \
		--inline-suppr $(SRC_C)
	$(say) TIDY "$(words $(SRC_C)) files"
	$(Q)mkdir -p $(B)
	$(Q)printf '%s\n' $(SRC_C) | xargs -P 2 -n 6 sh -c 'clang-tidy \
		--quiet "$$@" -- -std=c17 -I. -ffreestanding \
		-mgeneral-regs-only' tidy >$(B)/tidy.log 2>&1 || \
		{ grep -A3 'error:' $(B)/tidy.log >&2; exit 1; }

test: lint $(B)/monocle.iso
	$(Q)$(PYTEST) -m 'not long'

# What tests boot that is not the project's own.
OTHERS := memtest86+ xen-hypervisor-4.17-amd64 linux-image-6.12-amd64 \
	linux-image-amd64@bullseye ovmf@trixie ipxe
test-long: lint $(B)/monocle.iso $(OTHERS:%=$(CACHE)/%.fetched)
	$(Q)MONOCLE_RANDOM=1 $(PYTEST)

.PHONY: pictures
pictures: $(B)/monocle.iso $(B)/guests/guest.elf
	$(say) PICTURES docs
	$(Q)$(PYTHON) tests/bench/pictures.py
