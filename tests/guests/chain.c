/* SPDX-License-Identifier: MIT */
/*
 * A boot loader that hands over whatever the test made up: the module holds
 * Monocle's ELF file, the boot information, and what that points to.
 */
#include "guests/guest.h"

/* Where things go; the test knows it, too. */
#define IMAGE 0x2000000u /* on 2 MiB, as Monocle's header asks */
#define INFO 0x2800000u
#define EXTRA 0x2900000u

struct parcel {
	u32 magic; /* what EAX holds */
	u32 elf, elf_size, info, info_size, extra, extra_size; /* offsets */
};

struct elf64 {
	u8 ident[24];
	u64 entry, phoff, shoff;
	u32 flags;
	u16 ehsize, phentsize, phnum;
};

struct segment {
	u32 type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};

__attribute__((noreturn)) void enter_kernel(u32 entry, u32 magic, u32 info);

static u32 load(const u8 *file)
{
	const struct elf64 *elf = (const void *)file;
	const struct segment *s = (const void *)(file + elf->phoff);
	u64 first = s[0].vaddr, base = s[0].paddr;

	for (unsigned i = 0; i < elf->phnum; i++) {
		u64 to = IMAGE + s[i].paddr - base;

		if (s[i].type != 1)
			continue;
		memset((void *)to, 0, s[i].memsz);
		memcpy((void *)to, file + s[i].offset, s[i].filesz);
	}
	return (u32)(elf->entry - first + IMAGE);
}

/* Multiboot 0.6.96, 3.3: the modules' rows at 24. */
void chain(u64 info)
{
	const u32 *module = (const u32 *)(u64)read32(info + 24);
	const u8 *base = (const u8 *)(u64)module[0];
	const struct parcel *p = (const void *)base;
	u32 entry = load(base + p->elf);

	memcpy((void *)(u64)INFO, base + p->info, p->info_size);
	memcpy((void *)(u64)EXTRA, base + p->extra, p->extra_size);
	enter_kernel(entry, p->magic, INFO);
}
