/* SPDX-License-Identifier: MIT */
/*
 * Multiboot 1: Multiboot Specification version 0.6.96. ELF32 and ELF64
 * images are loaded by physical address, others by the header's address
 * fields ("a.out kludge"); both are entered in 32-bit protected mode.
 */
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/load/loader_priv.h"

#define HEADER_SEARCH 8192 /* 3.1.1 */
#define HEADER_MAGIC 0x1badb002
#define LOADER_MAGIC 0x2badb002
#define LOADER_NAME "Monocle"
/* In the place of a file's name, as all loaders but "GRUB 2" begin. */
#define FIRST_WORD "kernel "
#define SEGMENTS_MAX 32

/* 3.1.2: flags 0-2 are modules on pages, a memory map, and a video mode. The
 * first two are always given; the mode is a wish, the screen stays as it is.
 * The other lower 16 bits would be demands that are not known here.
 */
enum header_flags {
	HEADER_UNKNOWN = 0xfff8,
	HEADER_ADDRESSES = BIT(16),
};

struct header {
	u32 magic, flags, checksum;
	/* With HEADER_ADDRESSES: */
	u32 header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
} PACKED;

_Static_assert(sizeof(struct header) == 32, "Multiboot 3.1.1");

enum info_flags {
	INFO_MEMORY = BIT(0),
	INFO_CMDLINE = BIT(2),
	INFO_MODULES = BIT(3),
	INFO_MMAP = BIT(6),
	INFO_LOADER_NAME = BIT(9),
};

struct info {
	u32 flags;
	u32 mem_lower, mem_upper; /* KiB */
	u32 boot_device;
	u32 cmdline;
	u32 mods_count, mods_addr;
	u32 syms[4];
	u32 mmap_length, mmap_addr;
	u32 drives_length, drives_addr;
	u32 config_table;
	u32 boot_loader_name;
	u32 apm_table;
	u8 vbe_and_framebuffer[44];
} PACKED;

_Static_assert(offsetof(struct info, mmap_length) == 44, "Multiboot 3.3");
_Static_assert(offsetof(struct info, boot_loader_name) == 64, "Multiboot 3.3");
_Static_assert(sizeof(struct info) == 116, "Multiboot 3.3");

struct module {
	u32 start, end; /* end is exclusive */
	u32 string;
	u32 reserved;
} PACKED;

struct mmap_row {
	u32 size; /* of what follows */
	struct e820_row row;
} PACKED;

_Static_assert(sizeof(struct mmap_row) == 24, "Multiboot 3.3");

/* System V ABI, ELF: the parts of both classes that loading needs. */
struct elf_ident {
	u8 magic[4];
	u8 class, data, version, pad[9];
	u16 type, machine;
	u32 version2;
} PACKED;

struct elf32_header {
	struct elf_ident ident;
	u32 entry, phoff, shoff, flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
} PACKED;

struct elf64_header {
	struct elf_ident ident;
	u64 entry, phoff, shoff;
	u32 flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
} PACKED;

struct elf32_segment {
	u32 type, offset, vaddr, paddr, filesz, memsz, flags, align;
} PACKED;

struct elf64_segment {
	u32 type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
} PACKED;

_Static_assert(sizeof(struct elf32_header) == 52, "ELF32 header");
_Static_assert(sizeof(struct elf64_header) == 64, "ELF64 header");
_Static_assert(sizeof(struct elf32_segment) == 32, "ELF32 program header");
_Static_assert(sizeof(struct elf64_segment) == 56, "ELF64 program header");

enum elf {
	ELF_CLASS32 = 1,
	ELF_CLASS64 = 2,
	ELF_LITTLE_ENDIAN = 1,
	ELF_EXECUTABLE = 2,
	ELF_386 = 3,
	ELF_X86_64 = 62,
	ELF_LOAD = 1,
};

/* Of an ELF header of either class. */
struct elf_table {
	u64 entry, phoff, phnum, phentsize;
	u64 wanted; /* size of a program header of this class */
};

struct segment {
	u64 offset, filesz; /* in the file, checked */
	u64 vaddr, paddr, memsz;
};

struct image {
	unsigned count;
	struct segment segments[SEGMENTS_MAX];
	u64 entry; /* physical */
};

/* What the information block points at lies behind it, in this order. */
struct block {
	gpa_t at;
	u64 modules, mmap, gdt, name, strings, size; /* offsets */
};

static int refuse(const char *why)
{
	log_error("the guest's Multiboot image %s", why);
	return -EINVAL;
}

/* Offset of the header, or LOADER_NONE: 3.1, aligned, in the first 8 KiB. */
static u64 find_header(const struct loader_input *in, struct header *header)
{
	u64 size = MIN(in->kernel_size, HEADER_SEARCH);

	memset(header, 0, sizeof(*header));
	for (u64 at = 0; at + 12 <= size; at += 4) {
		memcpy(header, (const u8 *)in->kernel + at,
		       MIN(size - at, sizeof(*header)));
		if (header->magic == HEADER_MAGIC &&
		    header->magic + header->flags + header->checksum == 0 &&
		    (!(header->flags & HEADER_ADDRESSES) ||
		     size - at >= sizeof(*header)))
			return at;
	}
	return LOADER_NONE;
}

bool multiboot_detect(const struct loader_input *in)
{
	struct header header;

	return find_header(in, &header) != LOADER_NONE;
}

/* 3.1.3: the segment starts in the file as far before the header as there. */
static int parse_addresses(const struct loader_input *in,
			   const struct header *h, u64 header_at,
			   struct image *image)
{
	u64 before = (u64)h->header_addr - h->load_addr;
	struct segment *s = &image->segments[0];

	if (h->header_addr < h->load_addr || before > header_at)
		return refuse("has a load address that does not fit its "
			      "header's place in the file");
	s->offset = header_at - before;
	s->filesz = in->kernel_size - s->offset;
	if (h->load_end_addr) {
		if (h->load_end_addr < h->load_addr ||
		    h->load_end_addr - h->load_addr > s->filesz)
			return refuse("is truncated: its header promises "
				      "more bytes; copy it again");
		s->filesz = h->load_end_addr - h->load_addr;
	}
	s->memsz = s->filesz;
	if (h->bss_end_addr > h->load_addr)
		s->memsz = MAX(s->memsz, h->bss_end_addr - h->load_addr);
	s->paddr = h->load_addr;
	s->vaddr = h->load_addr;
	image->count = 1;
	image->entry = h->entry_addr;
	return 0;
}

static int add_segment(const struct loader_input *in, struct image *image,
		       const struct segment *s)
{
	if (s->memsz == 0)
		return 0;
	if (s->filesz > s->memsz)
		return refuse("has a segment with more bytes in the file "
			      "than in memory: the file is damaged");
	if (s->offset > in->kernel_size ||
	    s->filesz > in->kernel_size - s->offset)
		return refuse("is truncated: a segment runs over the end of "
			      "the file; copy it again");
	if (image->count == SEGMENTS_MAX)
		return refuse("has more than 32 segments to load; link it "
			      "with fewer");
	image->segments[image->count++] = *s;
	return 0;
}

/* The fields that matter, of a program header of either class. */
static bool read_segment(u8 class, const u8 *p, struct segment *s)
{
	struct elf32_segment p32;
	struct elf64_segment p64;

	if (class == ELF_CLASS32) {
		memcpy(&p32, p, sizeof(p32));
		*s = (struct segment){p32.offset, p32.filesz, p32.vaddr,
				      p32.paddr, p32.memsz};
		return p32.type == ELF_LOAD;
	}
	memcpy(&p64, p, sizeof(p64));
	*s = (struct segment){p64.offset, p64.filesz, p64.vaddr, p64.paddr,
			      p64.memsz};
	return p64.type == ELF_LOAD;
}

static struct elf_table read_header(const u8 *file)
{
	struct elf32_header h32;
	struct elf64_header h64;

	memcpy(&h32, file, sizeof(h32));
	memcpy(&h64, file, sizeof(h64));
	if (h32.ident.class == ELF_CLASS32)
		return (struct elf_table){h32.entry, h32.phoff, h32.phnum,
					  h32.phentsize,
					  sizeof(struct elf32_segment)};
	return (struct elf_table){h64.entry, h64.phoff, h64.phnum,
				  h64.phentsize, sizeof(struct elf64_segment)};
}

static int read_segments(const struct loader_input *in, u8 class,
			 struct image *image)
{
	const u8 *file = in->kernel;
	struct elf_table t = read_header(file);
	int error = 0;

	if (t.phentsize < t.wanted || t.phoff > in->kernel_size ||
	    t.phnum * t.phentsize > in->kernel_size - t.phoff)
		return refuse("is truncated: its program headers lie outside "
			      "the file; copy it again");
	for (u64 i = 0; i < t.phnum && !error; i++) {
		struct segment s;

		if (read_segment(class, file + t.phoff + i * t.phentsize, &s))
			error = add_segment(in, image, &s);
	}
	image->entry = t.entry;
	if (!error && !image->count)
		return refuse("has no segment to load");
	return error;
}

/*
 * The entry is a virtual address in most files and a physical one in some
 * that are linked high: the segment that holds it decides.
 */
static int find_entry(struct image *image)
{
	for (unsigned i = 0; i < image->count; i++) {
		const struct segment *s = &image->segments[i];

		if (image->entry - s->vaddr < s->memsz) {
			image->entry = image->entry - s->vaddr + s->paddr;
			return 0;
		}
	}
	for (unsigned i = 0; i < image->count; i++) {
		const struct segment *s = &image->segments[i];

		if (image->entry - s->paddr < s->memsz)
			return 0;
	}
	return refuse("has its entry point outside its segments: the file is "
		      "damaged or linked wrongly");
}

static int parse_elf(const struct loader_input *in, struct image *image)
{
	struct elf_ident ident;

	if (in->kernel_size < sizeof(struct elf64_header))
		return refuse("is truncated: it ends in its ELF header; copy "
			      "it again");
	memcpy(&ident, in->kernel, sizeof(ident));
	if (memcmp(ident.magic, "\177ELF", 4) != 0)
		return refuse("is not ELF and has no load addresses in its "
			      "header");
	if (ident.type != ELF_EXECUTABLE || ident.data != ELF_LITTLE_ENDIAN)
		return refuse("is an ELF file but no x86 executable; link it "
			      "statically, at fixed addresses");
	if (!(ident.class == ELF_CLASS32 && ident.machine == ELF_386) &&
	    !(ident.class == ELF_CLASS64 && ident.machine == ELF_X86_64))
		return refuse("is an ELF file for another processor; build "
			      "it for x86");
	return read_segments(in, ident.class, image);
}

static int parse(const struct loader_input *in, struct image *image)
{
	struct header header;
	u64 at = find_header(in, &header);
	int error;

	if (header.flags & HEADER_UNKNOWN)
		return refuse("demands a feature that Multiboot 1 does not "
			      "define");
	if (header.flags & HEADER_ADDRESSES)
		error = parse_addresses(in, &header, at, image);
	else
		error = parse_elf(in, image);
	return error ? error : find_entry(image);
}

static int place_segments(struct loader *l, const struct image *image)
{
	for (unsigned i = 0; i < image->count; i++) {
		const struct segment *s = &image->segments[i];
		int error = 0;

		if (s->paddr >= LOADER_LIMIT ||
		    s->memsz > LOADER_LIMIT - s->paddr)
			return refuse("has a segment above 4 GiB, where 32-bit "
				      "code does not reach; link it lower");
		error = ram_take(l, "the guest's ELF segment", s->paddr,
				 s->memsz);
		if (error)
			return error;
	}
	return 0;
}

static void write_segments(struct loader *l, const struct image *image)
{
	for (unsigned i = 0; i < image->count; i++) {
		const struct segment *s = &image->segments[i];

		loader_put(l, s->paddr, (const u8 *)l->in->kernel + s->offset,
			   s->filesz);
		loader_zero(l, s->paddr + s->filesz, s->memsz - s->filesz);
	}
}

static unsigned module_count(const struct loader_input *in)
{
	return (in->initrd && in->initrd_size ? 1 : 0) + in->module_count;
}

static struct loader_module module_at(const struct loader_input *in, unsigned i)
{
	if (!in->initrd || !in->initrd_size)
		return in->modules[i];
	if (i == 0)
		return (struct loader_module){in->initrd, in->initrd_size,
					      "initrd"};
	return in->modules[i - 1];
}

static u64 string_size(const char *s)
{
	return s ? strlen(s) + 1 : 1;
}

/* The block's layout; its strings are the command line and the modules'. */
static int place_block(struct loader *l, struct block *b)
{
	unsigned modules = module_count(l->in), index = 0, rows = 0;
	struct e820_row row;

	while (e820_next(l->in->map, &index, &row))
		rows++;
	b->modules = ALIGN_UP(sizeof(struct info), 16);
	b->mmap = b->modules + modules * sizeof(struct module);
	b->gdt = ALIGN_UP(b->mmap + rows * sizeof(struct mmap_row), 16);
	b->name = b->gdt + LOADER_GDT_SIZE;
	b->strings = b->name + sizeof(LOADER_NAME);
	b->size = b->strings + strlen(FIRST_WORD) + string_size(l->in->cmdline);
	for (unsigned i = 0; i < modules; i++)
		b->size += string_size(module_at(l->in, i).string);
	b->at = ram_take_low(l, b->size, PAGE_SIZE, LOADER_LOW, LOADER_LIMIT);
	if (b->at != LOADER_NONE)
		return 0;
	log_error("no guest RAM for the Multiboot information; give the guest "
		  "more memory");
	return -ENOSPC;
}

/* Writes a string behind those before it; returns its address. */
static u32 put_string(struct loader *l, gpa_t *at, const char *s)
{
	gpa_t start = *at;

	loader_put(l, start, s ? s : "", string_size(s));
	*at += string_size(s);
	return (u32)start;
}

static int load_modules(struct loader *l, const struct block *b, gpa_t *strings)
{
	unsigned count = module_count(l->in);

	for (unsigned i = 0; i < count; i++) {
		struct loader_module m = module_at(l->in, i);
		gpa_t at = ram_take_low(l, MAX(m.size, 1), PAGE_SIZE, MIB,
					LOADER_LIMIT);
		struct module row;

		if (at == LOADER_NONE) {
			log_error("the guest's module %u (%llu KiB) does not "
				  "fit guest RAM below 4 GiB; give the guest "
				  "more memory",
				  i + 1, (unsigned long long)(m.size / KIB));
			return -ENOSPC;
		}
		row = (struct module){(u32)at, (u32)(at + m.size),
				      put_string(l, strings, m.string), 0};
		loader_put(l, at, m.data, m.size);
		loader_put(l, b->at + b->modules + i * sizeof(row), &row,
			   sizeof(row));
	}
	return 0;
}

/*
 * Writes the memory map and what is derived from it: KiB of RAM from 0 (640
 * at most) and from 1 MiB to the first hole.
 */
static void write_mmap(struct loader *l, const struct block *b,
		       struct info *info)
{
	struct mmap_row row = {.size = sizeof(struct e820_row)};
	unsigned index = 0;

	info->mmap_addr = (u32)(b->at + b->mmap);
	while (e820_next(l->in->map, &index, &row.row)) {
		loader_put(l, info->mmap_addr + info->mmap_length, &row,
			   sizeof(row));
		info->mmap_length += (u32)sizeof(row);
	}
	info->mem_lower = (u32)(e820_ram(l->in->map, 0, 640 * KIB) / KIB);
	info->mem_upper = (u32)(e820_ram(l->in->map, MIB, LOADER_LIMIT) / KIB);
}

static void write_info(struct loader *l, const struct block *b, gpa_t strings)
{
	struct info info = {
		.flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MMAP |
			 INFO_LOADER_NAME,
		.mods_count = module_count(l->in),
		.mods_addr = (u32)(b->at + b->modules),
		.boot_loader_name = (u32)(b->at + b->name),
	};

	info.cmdline = (u32)strings;
	loader_put(l, strings, FIRST_WORD, strlen(FIRST_WORD));
	strings += strlen(FIRST_WORD);
	put_string(l, &strings, l->in->cmdline);
	loader_put(l, b->at + b->name, LOADER_NAME, sizeof(LOADER_NAME));
	write_mmap(l, b, &info);
	loader_put(l, b->at, &info, sizeof(info));
}

int multiboot_load(struct loader *l, struct guest_entry *entry)
{
	struct image image = {0};
	struct block block;
	gpa_t strings;
	int error = parse(l->in, &image);

	if (!error)
		error = place_segments(l, &image);
	if (!error)
		error = place_block(l, &block);
	if (error)
		return error;
	strings = block.at + block.strings;
	error = load_modules(l, &block, &strings);
	if (error)
		return error;
	write_segments(l, &image);
	write_info(l, &block, strings);
	entry->mode = ENTRY_PROTECTED32;
	entry->rip = image.entry;
	entry->gpr[GPR_RAX] = LOADER_MAGIC;
	entry->gpr[GPR_RBX] = block.at;
	loader_gdt(l, block.at + block.gdt, entry);
	return 0;
}
