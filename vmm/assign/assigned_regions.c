/* SPDX-License-Identifier: MIT */
/* What of the guest's memory map is there for assigned functions. */
#include "vmm/assign/assigned.h"

#define VGA_MEMORY 0xa0000u
#define VGA_SIZE 0x20000u

int assigned_window(const struct assignment *all, struct region_list *map,
		    struct region r)
{
	if (all->options->igd == IGD_CLOSED)
		r.cpu = 0;
	return region_pin(map, &r);
}

static int pin_windows(struct assignment *all, struct region_list *map)
{
	struct region_list *windows = &all->vm->windows;
	struct region vga =
		region_device(VGA_MEMORY, VGA_MEMORY, VGA_SIZE, "legacy VGA");
	int err = all->vga ? region_add(windows, &vga, NULL)
			   : region_pin_hole(map, VGA_MEMORY, VGA_SIZE,
					     "legacy VGA (closed)");

	if (!err && all->igd.function)
		err = igd_regions(&all->igd, windows);
	for (unsigned i = 0; !err && i < windows->count; i++)
		err = assigned_window(all, map, windows->regions[i]);
	return err;
}

const struct dmar_entry *assigned_next_rmrr(const struct assignment *all,
					    const struct pci_function *f,
					    const struct dmar_entry *e)
{
	bool lapses =
		!all->options->usb_firmware && pci_can_take_over(all->pci, f);

	/* USB's lapse, and the graphics' are judged by their own rules. */
	if (!all->vtd || lapses || igd_is_one(f))
		return NULL;
	return dmar_rmrr_of(all->vtd->dmar, all->pci, f->bdf, e);
}

/* What firmware shares with assigned functions: for their DMA alone. */
static int pin_rmrrs(struct assignment *all, struct region_list *map)
{
	int err = 0;

	for (unsigned n = 0; n < all->count; n++) {
		const struct pci_function *f = all->functions[n].function;
		const struct dmar_entry *e = NULL;

		while (!err && (e = assigned_next_rmrr(all, f, e))) {
			hpa_t base = ALIGN_DOWN(e->base, PAGE_SIZE);
			struct region r = region_device(
				base, base,
				ALIGN_UP(e->limit + 1, PAGE_SIZE) - base,
				"RMRR");

			r.cpu = 0;
			r.dma = REGION_RW;
			r.e820 = E820_RESERVED;
			err = region_paint(map, r);
		}
	}
	return err;
}

int assigned_regions(struct assignment *all, struct region_list *map)
{
	int err = pin_windows(all, map);

	err = err ? err : pin_rmrrs(all, map);
	return err ? err : assigned_pin_bars(all, map);
}
