/* SPDX-License-Identifier: MIT */
/*
 * What the two loaders share: guest RAM that is still free, and writes to
 * guest memory which a check leaves out.
 */
#ifndef VMM_LOAD_LOADER_PRIV_H
#define VMM_LOAD_LOADER_PRIV_H

#include "vmm/load/loader.h"

#define LOADER_EXTENTS 96
#define LOADER_NONE (~0ull)
#define LOADER_LOW (64 * KIB)  /* below lie the IVT, the BDA and BIOS data */
#define LOADER_LIMIT (4 * GIB) /* what both entry modes reach */

/* Selectors of the GDT that loader_gdt() writes. */
#define LOADER_CS 0x10
#define LOADER_DS 0x18
#define LOADER_GDT_SIZE 32

struct loader_extent {
	gpa_t start, end;
};

struct loader {
	const struct loader_input *in;
	bool dry;    /* all checks, no writes */
	bool failed; /* a write did not arrive: a broken region list */
	unsigned count;
	struct loader_extent free[LOADER_EXTENTS]; /* sorted, not touching */
};

/* loader_ram.c */

/* Every extent starts as a row of RAM in the guest's own view. -ENOSPC. */
int ram_collect(struct loader *l);
/*
 * Takes [start, start + size) of free RAM. What holds the range is named in
 * the one line that says why not: -ENOSPC.
 */
int ram_take(struct loader *l, const char *what, gpa_t start, u64 size);

/*
 * The lowest or highest free range in [from, limit), which is then taken;
 * align is a power of two. LOADER_NONE: there is none (not logged).
 */
gpa_t ram_take_low(struct loader *l, u64 size, u64 align, gpa_t from,
		   gpa_t limit);
gpa_t ram_take_high(struct loader *l, u64 size, u64 align, gpa_t from,
		    gpa_t limit);
/* Whether all of [start, start + size) is free. */
bool ram_is_free(const struct loader *l, gpa_t start, u64 size);

/* Ranges taken before; nothing is written in a dry run. */
void loader_put(struct loader *l, gpa_t gpa, const void *data, u64 size);
void loader_zero(struct loader *l, gpa_t gpa, u64 size);

/* Flat code (64-bit or 32-bit) and data at LOADER_CS and LOADER_DS. */
void loader_gdt(struct loader *l, gpa_t gpa, struct guest_entry *entry);

/* linux.c, multiboot.c */

int linux_load(struct loader *l, struct guest_entry *entry);
bool linux_detect(const struct loader_input *in);
int multiboot_load(struct loader *l, struct guest_entry *entry);
bool multiboot_detect(const struct loader_input *in);

#endif
