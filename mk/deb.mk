# SPDX-License-Identifier: MIT
# make install      Monocle, its GRUB entries and monoclectl, below DESTDIR
# make deb          the same as a package for Debian 12, build/monocle.deb
HOST_CFLAGS ?= -O2

# The guest's own program where the guest is this machine's Linux.
$(B)/monoclectl: $(MONOCLECTL_SRC) vmm/vcpu/hypercall.h vmm/core/stats.h
	$(say) CC $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=c17 -I. $(WARN) -Wno-undef \
		-ffile-prefix-map=$(CURDIR)=. -o $@ $(MONOCLECTL_SRC) $(HOST_CFLAGS)

# GRUB would load symbols, too.
.PHONY: install deb
install: $(B)/monocle.elf $(B)/monoclectl
	$(Q)install -d $(DESTDIR)/boot
	$(Q)$(OBJCOPY) --strip-all $< $(DESTDIR)/boot/monocle.elf
	$(Q)chmod 644 $(DESTDIR)/boot/monocle.elf
	$(Q)install -D $(B)/monoclectl $(DESTDIR)/usr/bin/monoclectl
	$(Q)install -D -m 644 tools/monoclectl/monoclectl.1 \
		$(DESTDIR)/usr/share/man/man1/monoclectl.1
	$(Q)install -D boot/etc/grub.d/20_monocle $(DESTDIR)/etc/grub.d/20_monocle
	$(Q)install -D -m 644 boot/etc/default/monocle $(DESTDIR)/etc/default/monocle

# A source tree as Debian has it, with debian/ in it, that has what it builds in
# a build/ of its own. Its changelog's date is that of all files. `tools/install
# deb` has less than all of build-essential, and enough.
DEB := $(B)/deb
DEB_TREE := Makefile linker.ld mk arch boot drivers kernel vmm tools docs \
	README.md CHANGELOG.md
VERSION := $(shell sed -n 's/.*_VERSION "\(.*\)"/\1/p' boot/version.h)
deb:
	$(say) DEB $(B)/monocle.deb
	$(Q)mkdir -p $(DEB)/tree && cd $(DEB)/tree && \
		rm -rf $(DEB_TREE) debian && \
		cp -a $(DEB_TREE:%=$(CURDIR)/%) . && cp -a tools/deb debian && \
		debian/make-changelog $(VERSION) <CHANGELOG.md \
			>debian/changelog && \
		env -u MAKEFLAGS -u MAKELEVEL dpkg-buildpackage \
			--no-check-builddeps --build=binary --no-sign \
			--no-pre-clean >../log 2>&1 || \
		{ tail -n 40 $(DEB)/log >&2; exit 1; }
	$(Q)cp $(DEB)/monocle_$(VERSION)-1_amd64.deb $(B)/monocle.deb
