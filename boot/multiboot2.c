/* SPDX-License-Identifier: MIT */
#include "boot/multiboot2.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/string.h"

/* Multiboot2 3.6.2: every tag starts on 8 bytes. */
struct tag {
	u32 type;
	u32 size; /* with this header, without padding */
};

enum tag_type {
	TAG_END = 0,
	TAG_CMDLINE = 1,
	TAG_LOADER = 2,
	TAG_MODULE = 3,
	TAG_MMAP = 6,
	TAG_FRAMEBUFFER = 8,
	TAG_EFI64 = 12,
	TAG_RSDP_OLD = 14,
	TAG_RSDP_NEW = 15,
	TAG_EFI_MMAP = 17,
};

struct tag_module {
	struct tag tag;
	u32 start, end;
	char string[];
};

struct tag_mmap {
	struct tag tag;
	u32 entry_size, entry_version;
};

struct mmap_entry {
	u64 base, size;
	u32 type, reserved;
};

struct tag_framebuffer {
	struct tag tag;
	u64 base;
	u32 pitch, width, height;
	u8 bpp, type;
	u16 reserved;
	u8 red_pos, red_size, green_pos, green_size, blue_pos, blue_size;
};

struct tag_efi_mmap {
	struct tag tag;
	u32 descriptor_size, descriptor_version;
};

/* UEFI 2.9, 7.2: EFI_MEMORY_DESCRIPTOR. */
struct efi_descriptor {
	u32 type, pad;
	u64 physical_start, virtual_start, pages, attribute;
};

_Static_assert(sizeof(struct mmap_entry) == 24, "Multiboot2 3.6.8");
/* Ends here, without the structure's padding. */
#define FRAMEBUFFER_RGB_SIZE (offsetof(struct tag_framebuffer, blue_size) + 1)

_Static_assert(FRAMEBUFFER_RGB_SIZE == 38, "Multiboot2 3.6.12");
_Static_assert(sizeof(struct efi_descriptor) == 40, "UEFI 2.9, 7.2");

/* A string that ends inside its tag, or "". */
static const char *tag_string(const struct tag *tag, size_t offset)
{
	const char *s = (const char *)tag + offset;

	for (size_t i = offset; i < tag->size; i++)
		if (!((const char *)tag)[i])
			return s;
	log_warn("multiboot2: tag %u holds a string with no end", tag->type);
	return "";
}

static void add_memory(struct boot_info *boot, hpa_t base, u64 size,
		       enum memory_kind kind)
{
	if (!size || base + size < base)
		return;
	if (boot->memory_count == BOOT_MEMORY_MAX) {
		log_warn("memory map: more than %u rows; 0x%lx left out",
			 BOOT_MEMORY_MAX, base);
		return;
	}
	boot->memory[boot->memory_count++] =
		(struct boot_memory){base, size, kind};
}

static void parse_mmap(struct boot_info *boot, const struct tag_mmap *tag)
{
	const u8 *p = (const u8 *)(tag + 1);
	u32 left = tag->tag.size - (u32)sizeof(*tag);

	if (tag->entry_size < sizeof(struct mmap_entry) ||
	    tag->entry_size % 8) {
		log_warn("multiboot2: memory map rows of %u bytes",
			 tag->entry_size);
		return;
	}
	for (; left >= tag->entry_size;
	     left -= tag->entry_size, p += tag->entry_size) {
		const struct mmap_entry *e = (const void *)p;

		add_memory(boot, e->base, e->size,
			   e->type >= MEMORY_AVAILABLE && e->type <= MEMORY_BAD
				   ? (enum memory_kind)e->type
				   : MEMORY_RESERVED);
	}
}

/*
 * UEFI 2.9, table 7-10, once boot services are over (GRUB has left them when
 * the tag is there without tag 18). GRUB derives the plain map from this one;
 * it serves where that is missing.
 */
static enum memory_kind efi_kind(u32 type)
{
	switch (type) {
	case 1: /* loader code and data, boot services code and data */
	case 2:
	case 3:
	case 4:
	case 7: /* conventional */
		return MEMORY_AVAILABLE;
	case 8:
		return MEMORY_BAD;
	case 9:
		return MEMORY_ACPI;
	case 10:
		return MEMORY_NVS;
	default:
		return MEMORY_RESERVED;
	}
}

static void parse_efi_mmap(struct boot_info *boot,
			   const struct tag_efi_mmap *tag)
{
	const u8 *p = (const u8 *)(tag + 1);
	u32 left = tag->tag.size - (u32)sizeof(*tag);

	if (tag->descriptor_size < sizeof(struct efi_descriptor) ||
	    tag->descriptor_size % 8)
		return;
	for (; left >= tag->descriptor_size;
	     left -= tag->descriptor_size, p += tag->descriptor_size) {
		const struct efi_descriptor *d = (const void *)p;

		if (d->pages < BIT(52))
			add_memory(boot, d->physical_start, d->pages * 4096,
				   efi_kind(d->type));
	}
}

static void parse_module(struct boot_info *boot, const struct tag_module *tag)
{
	struct boot_module *m = &boot->modules[boot->module_count];

	if (tag->end < tag->start) {
		log_warn("multiboot2: a module that ends before it starts");
		return;
	}
	if (boot->module_count == BOOT_MODULES_MAX) {
		log_warn("multiboot2: more than %u modules", BOOT_MODULES_MAX);
		return;
	}
	boot->module_count++;
	m->start = tag->start;
	m->size = tag->end - tag->start;
	m->string = tag_string(&tag->tag, sizeof(*tag));
}

static void parse_framebuffer(struct boot_info *boot,
			      const struct tag_framebuffer *t)
{
	struct boot_framebuffer *fb = &boot->fb;

	*fb = (struct boot_framebuffer){
		.base = t->base,
		.pitch = t->pitch,
		.width = t->width,
		.height = t->height,
		.bpp = t->bpp,
	};
	if (t->type == 2) {
		fb->kind = DISPLAY_TEXT;
	} else if (t->type == 1 && t->tag.size >= FRAMEBUFFER_RGB_SIZE) {
		fb->kind = DISPLAY_RGB;
		fb->red_pos = t->red_pos;
		fb->red_size = t->red_size;
		fb->green_pos = t->green_pos;
		fb->green_size = t->green_size;
		fb->blue_pos = t->blue_pos;
		fb->blue_size = t->blue_size;
	}
}

static size_t least_size(u32 type)
{
	switch (type) {
	case TAG_MODULE:
		return sizeof(struct tag_module);
	case TAG_MMAP:
		return sizeof(struct tag_mmap);
	case TAG_EFI_MMAP:
		return sizeof(struct tag_efi_mmap);
	case TAG_FRAMEBUFFER:
		return offsetof(struct tag_framebuffer, red_pos);
	case TAG_EFI64:
		return sizeof(struct tag) + sizeof(u64);
	case TAG_RSDP_OLD:
		return sizeof(struct tag) + 20;
	case TAG_RSDP_NEW:
		return sizeof(struct tag) + 36;
	default:
		return sizeof(struct tag);
	}
}

static void parse_tag(struct boot_info *boot, const struct tag *tag, bool plain)
{
	if (tag->size < least_size(tag->type)) {
		log_warn("multiboot2: tag %u of %u bytes is too short",
			 tag->type, tag->size);
		return;
	}
	switch (tag->type) {
	case TAG_CMDLINE:
		boot->cmdline = tag_string(tag, sizeof(*tag));
		break;
	case TAG_LOADER:
		boot->loader = tag_string(tag, sizeof(*tag));
		break;
	case TAG_MODULE:
		parse_module(boot, (const void *)tag);
		break;
	case TAG_MMAP:
		parse_mmap(boot, (const void *)tag);
		break;
	case TAG_EFI_MMAP:
		if (!plain)
			parse_efi_mmap(boot, (const void *)tag);
		break;
	case TAG_FRAMEBUFFER:
		parse_framebuffer(boot, (const void *)tag);
		break;
	case TAG_EFI64:
		boot->uefi = true;
		memcpy(&boot->efi, tag + 1, sizeof(boot->efi));
		break;
	case TAG_RSDP_OLD:
		if (boot->rsdp)
			break; /* the new one is better */
			       /* fallthrough */
	case TAG_RSDP_NEW:
		boot->rsdp = virt_to_phys(tag + 1);
		break;
	default:
		break;
	}
}

/* The tag at offset, or NULL at the end or where the size makes no sense. */
static const struct tag *tag_at(const struct boot_info *boot, u64 offset)
{
	const struct tag *tag = phys_to_virt(boot->info + offset);

	if (offset + sizeof(*tag) > boot->info_size || tag->type == TAG_END)
		return NULL;
	if (tag->size < sizeof(*tag) || tag->size > boot->info_size - offset) {
		log_warn("multiboot2: tag %u of %u bytes; the rest is lost",
			 tag->type, tag->size);
		return NULL;
	}
	return tag;
}

int multiboot2_parse(struct boot_info *boot, hpa_t info)
{
	const u32 *head = phys_to_virt(info);
	const struct tag *tag;
	bool plain = false;

	boot->info = info;
	boot->info_size = head[0];
	boot->cmdline = "";
	boot->loader = "an unnamed loader";
	if (boot->info_size < 16 || boot->info_size > 16 * MIB) {
		log_error("multiboot2: information of %lu bytes; start Monocle "
			  "with GRUB's multiboot2 command",
			  boot->info_size);
		return -EINVAL;
	}
	for (u64 o = 8; (tag = tag_at(boot, o)); o += ALIGN_UP(tag->size, 8))
		plain |= tag->type == TAG_MMAP;
	for (u64 o = 8; (tag = tag_at(boot, o)); o += ALIGN_UP(tag->size, 8))
		parse_tag(boot, tag, plain);
	if (boot->memory_count)
		return 0;
	log_error("multiboot2: no memory map; start Monocle with GRUB's "
		  "multiboot2 command");
	return -EINVAL;
}
