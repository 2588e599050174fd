/* SPDX-License-Identifier: MIT */
/*
 * Linux bzImage by the 64-bit boot protocol: Linux,
 * Documentation/arch/x86/boot.rst and zero-page.rst.
 */
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/core/guest_mem.h"
#include "vmm/load/loader_priv.h"
#include "vmm/load/setup_header.h"

#define SETUP_HEADER_END 0x290 /* where the zero page has other things */
#define PROTOCOL_64BIT 0x20c
#define XLF_KERNEL_64 1
#define ENTRY_64 0x200
#define PARAGRAPH 16u

#define VIDEO_TYPE_VLFB 0x23 /* by a VESA BIOS */
#define VIDEO_TYPE_EFI 0x70
#define VIDEO_CAPABILITY_64BIT_BASE 2
#define VGA_COLOUR_TEXT 3 /* BIOS mode 3 */

/* include/uapi/linux/screen_info.h */
struct screen_info {
	u8 orig_x, orig_y;
	u16 ext_mem_k;
	u16 orig_video_page;
	u8 orig_video_mode;
	u8 orig_video_cols;
	u16 flags;
	u16 orig_video_ega_bx;
	u16 unused3;
	u8 orig_video_lines;
	u8 orig_video_isvga;
	u16 orig_video_points;
	u16 lfb_width, lfb_height, lfb_depth;
	u32 lfb_base, lfb_size;
	u32 cl_magic;
	u16 lfb_linelength;
	u8 red_size, red_pos, green_size, green_pos;
	u8 blue_size, blue_pos, rsvd_size, rsvd_pos;
	u16 vesapm_seg, vesapm_off;
	u16 pages;
	u16 vesa_attributes;
	u32 capabilities;
	u32 ext_lfb_base;
	u16 reserved;
} PACKED;

_Static_assert(offsetof(struct screen_info, lfb_base) == 0x18, "screen_info");
_Static_assert(offsetof(struct screen_info, ext_lfb_base) == 0x3a,
	       "screen_info");

#define E820_ROWS 128

/* zero-page.rst */
struct boot_params {
	struct screen_info screen;
	u8 pad1[0x70 - 0x40];
	u64 acpi_rsdp_addr;
	u8 pad2[0x1e8 - 0x78];
	u8 e820_entries;
	u8 pad3[SETUP_HEADER - 0x1e9];
	struct setup_header hdr;
	u8 pad4[0x2d0 - 0x268];
	struct e820_row e820[E820_ROWS];
	u8 pad5[0x1000 - 0xcd0];
} PACKED;

_Static_assert(sizeof(struct screen_info) == 0x40, "zero-page.rst");
_Static_assert(offsetof(struct boot_params, hdr) == 0x1f1, "zero-page.rst");
_Static_assert(offsetof(struct boot_params, e820) == 0x2d0, "zero-page.rst");
_Static_assert(sizeof(struct boot_params) == PAGE_SIZE, "zero-page.rst");
_Static_assert(REGION_E820_MAX <= E820_ROWS, "all that is laid out fits");

/*
 * One block in low memory holds what the kernel reads before it has a
 * memory map of its own:
 *
 *   zero page | PML4 | PDPT | 4 page directories | stack, GDT | command line
 */
enum {
	BLOCK_ZERO_PAGE = 0x0000,
	BLOCK_PML4 = 0x1000,
	BLOCK_PDPT = 0x2000,
	BLOCK_PD = 0x3000,
	BLOCK_STACK = 0x7000,
	BLOCK_GDT = 0x7fe0, /* the stack grows down from here */
	BLOCK_CMDLINE = 0x8000,
};

struct bzimage {
	struct setup_header hdr;
	const u8 *code; /* the protected-mode part of the file */
	u64 code_size;
	u64 missing;  /* zeros behind it, up to a whole paragraph */
	u64 run_size; /* what the kernel needs from its start on */
	gpa_t start;
	gpa_t block;
	gpa_t initrd;
	u64 cmdline_size; /* with its zero */
};

bool linux_detect(const struct loader_input *in)
{
	u32 magic;

	if (in->kernel_size < SETUP_HEADER + sizeof(struct setup_header))
		return false;
	memcpy(&magic, (const u8 *)in->kernel + SETUP_AT(header),
	       sizeof(magic));
	return magic == SETUP_MAGIC;
}

static const char *header_defect(const struct setup_header *hdr)
{
	if (hdr->boot_flag != 0xaa55)
		return "has no boot signature: the file is damaged";
	if (hdr->version < PROTOCOL_64BIT)
		return "has a boot protocol older than 2.12: take Linux 3.8 "
		       "or newer";
	if (!(hdr->xloadflags & XLF_KERNEL_64))
		return "has no 64-bit entry: take an x86-64 kernel";
	if (!(hdr->loadflags & LOADED_HIGH))
		return "is a zImage, which loads below 640 KiB: take a "
		       "bzImage";
	if (hdr->kernel_alignment & (hdr->kernel_alignment - 1) ||
	    (hdr->relocatable_kernel && !hdr->kernel_alignment))
		return "has an alignment that is no power of two: the file is "
		       "damaged";
	return NULL;
}

static int parse(const struct loader_input *in, struct bzimage *image)
{
	const struct setup_header *hdr = &image->hdr;
	const char *defect;
	u64 offset, end;

	memcpy(&image->hdr, (const u8 *)in->kernel + SETUP_HEADER,
	       sizeof(image->hdr));
	defect = header_defect(hdr);
	if (defect) {
		log_error("the guest's bzImage %s", defect);
		return -EINVAL;
	}
	/* boot.rst: for compatibility, 0 means 4. */
	offset = (u64)((hdr->setup_sects ? hdr->setup_sects : 4) + 1) * 512;
	end = offset + (u64)hdr->syssize * PARAGRAPH;
	/* Rounded up; memtest86+ does not pad its file. */
	if (in->kernel_size <= offset + ENTRY_64 ||
	    in->kernel_size + PARAGRAPH <= end) {
		log_error("the guest's bzImage is truncated: %llu bytes of "
			  "%llu; copy it again",
			  (unsigned long long)in->kernel_size,
			  (unsigned long long)end);
		return -EINVAL;
	}
	image->code = (const u8 *)in->kernel + offset;
	image->code_size = in->kernel_size - offset;
	image->missing = end > in->kernel_size ? end - in->kernel_size : 0;
	image->run_size =
		MAX(image->code_size + image->missing, hdr->init_size);
	return 0;
}

static int check_cmdline(const struct loader_input *in, struct bzimage *image)
{
	u64 length = in->cmdline ? strlen(in->cmdline) : 0;

	if (length > image->hdr.cmdline_size) {
		log_error("the guest's command line has %llu characters, its "
			  "kernel takes %u; shorten it",
			  (unsigned long long)length, image->hdr.cmdline_size);
		return -EINVAL;
	}
	image->cmdline_size = length + 1;
	return 0;
}

static int place_kernel(struct loader *l, struct bzimage *image)
{
	const struct setup_header *hdr = &image->hdr;
	bool fits = hdr->pref_address < LOADER_LIMIT &&
		    image->run_size <= LOADER_LIMIT - hdr->pref_address;

	if (hdr->relocatable_kernel &&
	    (!fits || !hdr->pref_address ||
	     !ram_is_free(l, hdr->pref_address, image->run_size))) {
		image->start =
			ram_take_low(l, image->run_size,
				     MAX(hdr->kernel_alignment, PAGE_SIZE), MIB,
				     LOADER_LIMIT);
		if (image->start != LOADER_NONE)
			return 0;
	} else if (fits) {
		image->start = hdr->pref_address;
		return ram_take(l, "the guest's Linux kernel", image->start,
				image->run_size);
	}
	log_error("the guest's Linux kernel needs %llu KiB of RAM in one piece "
		  "below 4 GiB%s; give the guest more memory",
		  (unsigned long long)(image->run_size / KIB),
		  hdr->relocatable_kernel ? "" : ", at its fixed address");
	return -ENOSPC;
}

static int place_block(struct loader *l, struct bzimage *image)
{
	image->block = ram_take_low(l, BLOCK_CMDLINE + image->cmdline_size,
				    PAGE_SIZE, LOADER_LOW, LOADER_LIMIT);
	if (image->block != LOADER_NONE)
		return 0;
	log_error("no guest RAM for the kernel's boot parameters; give the "
		  "guest more memory");
	return -ENOSPC;
}

static int place_initrd(struct loader *l, struct bzimage *image)
{
	u64 size = l->in->initrd ? l->in->initrd_size : 0;
	gpa_t limit = MIN((u64)image->hdr.initrd_addr_max + 1, LOADER_LIMIT);

	if (!size)
		return 0;
	image->initrd = ram_take_high(l, size, PAGE_SIZE, MIB, limit);
	if (image->initrd != LOADER_NONE)
		return 0;
	log_error("the initrd (%llu KiB) does not fit guest RAM beside the "
		  "kernel, below 0x%llx; give the guest more memory",
		  (unsigned long long)(size / KIB), (unsigned long long)limit);
	return -ENOSPC;
}

/*
 * The kernel draws on what it is told is there: colour text with 16-pixel
 * characters, or a linear frame buffer.
 */
static void fill_text(struct screen_info *s, u8 row)
{
	s->orig_y = MIN(row, 24);
	s->orig_video_mode = VGA_COLOUR_TEXT;
	s->orig_video_cols = 80;
	s->orig_video_lines = 25;
	s->orig_video_isvga = 1;
	s->orig_video_ega_bx = 3; /* INT 10h, AH=12h: 256 KiB of memory */
	s->orig_video_points = 16;
}

static void fill_rgb(struct screen_info *s, const struct boot_framebuffer *fb,
		     bool uefi)
{
	u64 size = (u64)fb->pitch * fb->height;
	u8 used = (u8)(fb->red_size + fb->green_size + fb->blue_size);

	/* Linux's vesafb knows 32-bit addresses only, efifb all. */
	if (uefi || fb->base >> 32) {
		s->orig_video_isvga = VIDEO_TYPE_EFI;
		s->lfb_size = (u32)size;
	} else {
		s->orig_video_isvga = VIDEO_TYPE_VLFB;
		s->lfb_size = (u32)(ALIGN_UP(size, 64 * KIB) / (64 * KIB));
	}
	s->lfb_base = (u32)fb->base;
	s->ext_lfb_base = (u32)(fb->base >> 32);
	s->capabilities = s->ext_lfb_base ? VIDEO_CAPABILITY_64BIT_BASE : 0;
	s->lfb_width = (u16)fb->width;
	s->lfb_height = (u16)fb->height;
	s->lfb_depth = fb->bpp;
	s->lfb_linelength = (u16)fb->pitch;
	s->red_pos = fb->red_pos;
	s->red_size = fb->red_size;
	s->green_pos = fb->green_pos;
	s->green_size = fb->green_size;
	s->blue_pos = fb->blue_pos;
	s->blue_size = fb->blue_size;
	if (fb->bpp == 32 && used == 24) {
		s->rsvd_size = 8;
		s->rsvd_pos = 24;
	}
}

static void fill_screen(const struct loader_input *in, struct screen_info *s)
{
	const struct boot_framebuffer *fb = in->screen;

	if (!fb)
		return;
	if (fb->kind == DISPLAY_TEXT)
		fill_text(s, in->cursor_row);
	else if (fb->kind == DISPLAY_RGB)
		fill_rgb(s, fb, in->uefi);
}

static void fill_header(const struct loader_input *in,
			const struct bzimage *image, struct boot_params *params)
{
	u64 end = SETUP_AT(header) + image->hdr.jump_length;

	/* The header may be longer than the part of it known here. */
	end = MIN(MIN(end, SETUP_HEADER_END), in->kernel_size);
	memcpy((u8 *)params + SETUP_HEADER,
	       (const u8 *)in->kernel + SETUP_HEADER, end - SETUP_HEADER);
	params->hdr.type_of_loader = LOADER_UNDEFINED;
	params->hdr.code32_start = (u32)image->start;
	params->hdr.cmd_line_ptr = (u32)(image->block + BLOCK_CMDLINE);
	params->hdr.ramdisk_image = (u32)image->initrd;
	params->hdr.ramdisk_size = image->initrd ? (u32)in->initrd_size : 0;
}

static int write_zero_page(const struct loader_input *in,
			   const struct bzimage *image)
{
	struct boot_params *params = guest_ptr(
		in->map, image->block + BLOCK_ZERO_PAGE, sizeof(*params));
	unsigned index = 0;

	if (!params)
		return -EINVAL;
	memset(params, 0, sizeof(*params));
	fill_screen(in, &params->screen);
	fill_header(in, image, params);
	params->acpi_rsdp_addr = in->rsdp;
	while (params->e820_entries < E820_ROWS &&
	       e820_next(in->map, &index, &params->e820[params->e820_entries]))
		params->e820_entries++;
	return 0;
}

/* The first 4 GiB, one to one, in 2 MiB pages: SDM vol 3, 4.5. */
static void write_page_tables(struct loader *l, gpa_t block)
{
	enum { PRESENT_WRITE = 3, LARGE = 0x80 };
	const u64 directories = 4, rows = 512;

	loader_zero(l, block + BLOCK_PML4, 2 * PAGE_SIZE);
	loader_put(l, block + BLOCK_PML4,
		   &(u64){(block + BLOCK_PDPT) | PRESENT_WRITE}, 8);
	for (u64 i = 0; i < directories; i++)
		loader_put(l, block + BLOCK_PDPT + i * 8,
			   &(u64){(block + BLOCK_PD + i * PAGE_SIZE) |
				  PRESENT_WRITE},
			   8);
	for (u64 i = 0; i < directories * rows; i++)
		loader_put(l, block + BLOCK_PD + i * 8,
			   &(u64){i * 2 * MIB | LARGE | PRESENT_WRITE}, 8);
}

static void write_all(struct loader *l, const struct bzimage *image)
{
	const char *cmdline = l->in->cmdline ? l->in->cmdline : "";

	if (write_zero_page(l->in, image))
		l->failed = true;
	write_page_tables(l, image->block);
	loader_put(l, image->block + BLOCK_CMDLINE, cmdline,
		   image->cmdline_size);
	loader_put(l, image->start, image->code, image->code_size);
	loader_zero(l, image->start + image->code_size, image->missing);
	if (image->initrd)
		loader_put(l, image->initrd, l->in->initrd, l->in->initrd_size);
}

int linux_load(struct loader *l, struct guest_entry *entry)
{
	struct bzimage image = {0};
	int error = parse(l->in, &image);

	if (!error)
		error = check_cmdline(l->in, &image);
	if (!error)
		error = place_kernel(l, &image);
	if (!error)
		error = place_block(l, &image);
	if (!error)
		error = place_initrd(l, &image);
	if (error)
		return error;
	if (!l->dry)
		write_all(l, &image);
	entry->mode = ENTRY_LONG64;
	entry->rip = image.start + ENTRY_64;
	entry->rsp = image.block + BLOCK_GDT;
	entry->cr3 = image.block + BLOCK_PML4;
	entry->gpr[GPR_RSI] = image.block + BLOCK_ZERO_PAGE;
	entry->gpr[GPR_RSP] = entry->rsp;
	loader_gdt(l, image.block + BLOCK_GDT, entry);
	return 0;
}
