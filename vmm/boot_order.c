/* SPDX-License-Identifier: MIT */
#include "vmm/boot_order.h"

#include "kernel/log.h"
#include "kernel/string.h"

#define PATH_MOST 160
#define CLASS_AHCI 0x0106
#define PLACES 32 /* AHCI 1.3.1, 3.1.1: ports; as many of a root hub */

/*
 * The way to the function by slots, for the guest gives buses other numbers.
 * SeaBIOS wants "usb" where it is that, and takes any name else. False: too
 * long, or not from bus 0; other roots it counts by itself.
 */
static bool make_path(const struct pci_host *pci, bdf_t bdf, char *path)
{
	const struct pci_function *above;
	const char *name = "usb";
	char node[24];

	path[0] = 0;
	do {
		size_t rest = strlen(path) + 1;
		size_t n = (size_t)format(node, sizeof(node), "/%s@%x,%x", name,
					  BDF_DEV(bdf), BDF_FN(bdf));

		n -= BDF_FN(bdf) ? 0 : strlen(",0");
		if (n + rest > PATH_MOST)
			return false;
		memmove(path + n, path, rest);
		memcpy(path, node, n);
		name = "pci-bridge";
		above = pci_bridge_above(pci, bdf);
		bdf = above ? above->bdf : bdf;
	} while (above);
	return !BDF_BUS(bdf);
}

/* The length that the line has, or would have; 0: there is none. */
static u32 put_line(u16 class, const char *path, unsigned place, char *text,
		    u32 size)
{
	int n = 0;

	if (class == PCI_CLASS_USB)
		n = format(text, size,
			   "/pci@i0cf8%s/storage@%x/channel@0/disk@0,0\n", path,
			   place + 1);
	else if (class == CLASS_AHCI)
		n = format(text, size, "/pci@i0cf8%s/drive@%x/disk@0\n", path,
			   place);
	else if (!place)
		n = format(text, size, "/pci@i0cf8%s\n", path);
	return (u32)n;
}

u32 boot_order(const struct assignment *all, char *text, u32 size)
{
	char path[PATH_MOST];
	u32 length = 0, n;

	for (unsigned i = 0; i < all->named * PLACES; i++) {
		const struct pci_function *f =
			all->functions[i / PLACES].function;

		if (!make_path(all->pci, f->bdf, path))
			continue;
		n = put_line(f->class, path, i % PLACES, text + length,
			     size - length);
		length += n < size - length ? n : 0;
	}
	return length;
}
