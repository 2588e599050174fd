/* SPDX-License-Identifier: MIT */
/*
 * A UEFI driver in the display's option ROM, which the guest's firmware runs: a
 * Graphics Output Protocol (UEFI 2.10, 12.9) with one mode, over the
 * framebuffer that Monocle was started with. A table in the ROM says where that
 * is (vmm/assign/gop_table.h).
 *
 * A framebuffer is slow to read, and text scrolls by reading: all is drawn in a
 * canvas in memory first, in the protocol's own format.
 */
#include "vmm/assign/gop/efi.h"
#include "vmm/assign/gop_table.h"

static const struct efi_guid pci_io_id = {
	0x4cf5b200,
	0x68b8,
	0x4ca5,
	{0x9e, 0xec, 0xb2, 0x3e, 0x3f, 0x50, 0x02, 0x9a}};
static const struct efi_guid gop_id = {
	0x9042a9de,
	0x23dc,
	0x4a38,
	{0x96, 0xfb, 0x7a, 0xde, 0xd0, 0x80, 0x51, 0x6a}};
static const struct efi_guid binding_id = {
	0x18a031ab,
	0xb443,
	0x4d1a,
	{0xa5, 0xc0, 0x0c, 0x09, 0x26, 0x1e, 0x9f, 0x71}};

static struct efi_boot_services *boot;
static struct efi_driver_binding binding;
static struct efi_gop gop;
static struct efi_gop_mode mode;
static struct efi_gop_info info;
static u32 *canvas; /* info.height lines of info.width */

static size_t canvas_pages(void)
{
	return (size_t)(((u64)info.width * info.height * 4 + PAGE_MASK) >>
			PAGE_SHIFT);
}

static EFIAPI efi_status query(struct efi_gop *self, u32 number, size_t *size,
			       struct efi_gop_info **out)
{
	efi_status err;
	void *copy;

	(void)self;
	if (number || !size || !out)
		return EFI_INVALID_PARAMETER;
	err = boot->allocate_pool(EFI_BOOT_DATA, sizeof(info), &copy);
	if (err)
		return err;
	*size = sizeof(info);
	*out = copy;
	**out = info;
	return EFI_SUCCESS;
}

static bool fits(size_t x, size_t y, size_t width, size_t height)
{
	return width <= info.width && x <= info.width - width &&
	       height <= info.height && y <= info.height - height;
}

static void copy_line(u32 *to, const u32 *from, size_t count)
{
	if (to <= from)
		for (size_t i = 0; i < count; i++)
			to[i] = from[i];
	else
		while (count--)
			to[count] = from[count];
}

static void show(size_t x, size_t y, size_t width, size_t height)
{
	for (size_t end = y + height; y < end; y++) {
		u32 *from = canvas + y * info.width + x;
		volatile u32 *to = (volatile u32 *)mode.base +
				   y * info.pixels_per_line + x;

		for (size_t i = 0; i < width; i++)
			to[i] = info.format == GOP_BGRX
					? from[i]
					: (from[i] & 0xff00ff00) |
						  (from[i] & 0xff) << 16 |
						  (from[i] >> 16 & 0xff);
	}
}

static EFIAPI efi_status blt(struct efi_gop *self, u32 *buffer,
			     enum efi_blt operation, size_t from_x,
			     size_t from_y, size_t x, size_t y, size_t width,
			     size_t height, size_t delta)
{
	bool reads = operation == EFI_BLT_READ || operation == EFI_BLT_MOVE;
	size_t from_line = info.width, line = info.width;
	u32 *from = canvas, *to = canvas;

	(void)self;
	if (operation > EFI_BLT_MOVE || !width || !height ||
	    (!buffer && operation != EFI_BLT_MOVE) ||
	    (reads && !fits(from_x, from_y, width, height)) ||
	    (operation != EFI_BLT_READ && !fits(x, y, width, height)))
		return EFI_INVALID_PARAMETER;
	if (operation == EFI_BLT_WRITE) {
		from = buffer;
		from_line = delta ? delta / 4 : width;
	} else if (operation == EFI_BLT_READ) {
		to = buffer;
		line = delta ? delta / 4 : width;
	}
	from += from_y * from_line + from_x;
	to += y * line + x;
	for (size_t n = 0; n < height; n++) {
		/* A move downwards begins at its end. */
		size_t i = y > from_y ? height - 1 - n : n;

		if (operation != EFI_BLT_FILL)
			copy_line(to + i * line, from + i * from_line, width);
		else
			for (size_t k = 0; k < width; k++)
				to[i * line + k] = *buffer;
	}
	if (operation != EFI_BLT_READ)
		show(x, y, width, height);
	return EFI_SUCCESS;
}

static EFIAPI efi_status set(struct efi_gop *self, u32 number)
{
	u32 black = 0;

	return number ? EFI_UNSUPPORTED
		      : blt(self, &black, EFI_BLT_FILL, 0, 0, 0, 0, info.width,
			    info.height, 0);
}

static void close_pci(efi_handle controller)
{
	boot->close(controller, &pci_io_id, binding.handle, controller);
}

/* In the firmware's copy of the device's own ROM, or NULL. */
static const struct gop_table *find_table(const struct efi_pci_io *pci)
{
	const struct gop_table *t;

	if (!pci->rom || pci->rom_size < GOP_TABLE_AT + sizeof(*t))
		return NULL;
	t = (const void *)(pci->rom + GOP_TABLE_AT);
	return t->magic == GOP_TABLE_MAGIC ? t : NULL;
}

/* A function with the table. */
static efi_status open_pci(efi_handle controller, struct efi_pci_io **pci)
{
	void *interface;
	efi_status err = boot->open(controller, &pci_io_id, &interface,
				    binding.handle, controller, EFI_BY_DRIVER);

	*pci = interface;
	if (err || find_table(*pci))
		return err;
	close_pci(controller);
	return EFI_UNSUPPORTED;
}

static EFIAPI efi_status supported(struct efi_driver_binding *self,
				   efi_handle controller, void *path)
{
	struct efi_pci_io *pci;
	efi_status err = open_pci(controller, &pci);

	(void)self;
	(void)path;
	if (!err)
		close_pci(controller);
	return err;
}

/* Where the guest's firmware has put the BAR. */
static efi_status find_framebuffer(struct efi_pci_io *pci,
				   const struct gop_table *t, u64 *base)
{
	u32 bar[2] = {0, 0};
	efi_status err =
		pci->config_read(pci, EFI_PCI_UINT32, 0x10 + 4 * t->bar,
				 t->bar < 5 ? 2 : 1, bar);

	*base = t->offset + (bar[0] & ~0xfu);
	if ((bar[0] & 6) == 4)
		*base += (u64)bar[1] << 32;
	return err ? err
		   : pci->attributes(pci, EFI_PCI_ENABLE, EFI_PCI_MEMORY, NULL);
}

static efi_status set_up(efi_handle controller, struct efi_pci_io *pci)
{
	const struct gop_table *t = find_table(pci);
	u64 memory;
	efi_status err;

	info.width = t->width;
	info.height = t->height;
	info.format = t->format;
	info.pixels_per_line = t->pitch / 4;
	mode.size = (u64)t->pitch * t->height;
	err = find_framebuffer(pci, t, &mode.base);
	if (err)
		return err;
	err = boot->allocate_pages(EFI_ANY_PAGES, EFI_BOOT_DATA, canvas_pages(),
				   &memory);
	if (err)
		return err;
	canvas = (u32 *)memory;
	set(&gop, 0);
	err = boot->install(&controller, &gop_id, &gop, NULL);
	if (err)
		boot->free_pages(memory, canvas_pages());
	return err;
}

static EFIAPI efi_status start(struct efi_driver_binding *self,
			       efi_handle controller, void *path)
{
	struct efi_pci_io *pci;
	efi_status err = open_pci(controller, &pci);

	(void)self;
	(void)path;
	if (err)
		return err;
	err = set_up(controller, pci);
	if (err)
		close_pci(controller);
	return err;
}

static EFIAPI efi_status stop(struct efi_driver_binding *self,
			      efi_handle controller, size_t children,
			      efi_handle *child)
{
	efi_status err = boot->uninstall(controller, &gop_id, &gop, NULL);

	(void)self;
	(void)children;
	(void)child;
	if (err)
		return err;
	boot->free_pages((u64)canvas, canvas_pages());
	close_pci(controller);
	return EFI_SUCCESS;
}

EFIAPI efi_status efi_main(efi_handle image, struct efi_system_table *system);

EFIAPI efi_status efi_main(efi_handle image, struct efi_system_table *system)
{
	boot = system->boot;
	/* One by one: ld does not make relocations for a table of pointers. */
	gop.query = query;
	gop.set = set;
	gop.blt = blt;
	gop.mode = &mode;
	mode.count = 1;
	mode.info = &info;
	mode.info_size = sizeof(info);
	binding.supported = supported;
	binding.start = start;
	binding.stop = stop;
	binding.version = 0x10;
	binding.image = binding.handle = image;
	return boot->install(&binding.handle, &binding_id, &binding, NULL);
}
