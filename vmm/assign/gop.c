/* SPDX-License-Identifier: MIT */
#include "vmm/assign/gop.h"

#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/assign/gop_table.h"

/* gop_rom.asm */
extern const u8 gop_rom[], gop_rom_end[];

int gop_bar(const struct pci_function *f, const struct boot_framebuffer *fb)
{
	u64 size = (u64)fb->pitch * fb->height;

	for (int i = 0; fb->kind == DISPLAY_RGB && i < 6; i++) {
		const struct pci_bar *bar = &f->bars[i];
		u64 offset = fb->base - bar->base;

		if (!bar->io && offset < bar->size &&
		    size <= bar->size - offset)
			return i;
	}
	return -1;
}

static bool has_order(const struct boot_framebuffer *fb, u8 red, u8 blue)
{
	return fb->bpp == 32 && fb->red_pos == red && fb->green_pos == 8 &&
	       fb->blue_pos == blue && fb->red_size == 8 &&
	       fb->green_size == 8 && fb->blue_size == 8;
}

/* Or why there can be none, as the rest of a sentence. */
static const char *make_table(const struct pci_function *f,
			      const struct boot_framebuffer *fb,
			      struct gop_table *t)
{
	bool bgrx = has_order(fb, 16, 0);
	int bar = gop_bar(f, fb);

	if (fb->kind != DISPLAY_RGB)
		return "GRUB has set no graphics mode";
	if (bar < 0)
		return "no BAR of it holds GRUB's framebuffer";
	if (!bgrx && !has_order(fb, 0, 16))
		return "a pixel is not 4 bytes in the order BGRX or RGBX";
	if (!fb->height || fb->width - 1 >= fb->pitch / 4 || fb->pitch % 4)
		return "GRUB's framebuffer has lines of no such length";
	*t = (struct gop_table){
		.magic = GOP_TABLE_MAGIC,
		.bar = (u32)bar,
		.offset = fb->base - f->bars[bar].base,
		.width = fb->width,
		.height = fb->height,
		.pitch = fb->pitch,
		.format = bgrx ? GOP_BGRX : GOP_RGBX,
	};
	return NULL;
}

void gop_add(struct pci_rom *rom, const struct pci_function *f,
	     const struct boot_framebuffer *fb)
{
	struct gop_table table;
	const char *why;

	if (rom->efi)
		return;
	why = make_table(f, fb, &table);
	if (!why &&
	    pci_rom_prepend(rom, gop_rom, (u64)gop_rom_end - (u64)gop_rom, f))
		why = "there is too little memory";
	if (why) {
		log_warn("display: %02x:%02x.%x has no picture for UEFI: %s "
			 "(%ux%u at 0x%lx, %u bytes a line, %u bits a pixel)",
			 BDF_ARGS(f->bdf), why, fb->width, fb->height, fb->base,
			 fb->pitch, fb->bpp);
		return;
	}
	memcpy(rom->data + GOP_TABLE_AT, &table, sizeof(table));
	log_info("display: %02x:%02x.%x has GRUB's picture of %ux%u for UEFI, "
		 "in BAR %u",
		 BDF_ARGS(f->bdf), fb->width, fb->height, table.bar);
}
