/* SPDX-License-Identifier: MIT */
/* A word of assign=: which functions it names. Pure: looks at no device. */
#ifndef VMM_ASSIGN_ASSIGN_WORD_H
#define VMM_ASSIGN_ASSIGN_WORD_H

#include "drivers/pci/pci.h"
#include "kernel/options.h"

struct assign_word {
	enum { BY_ADDRESS, BY_ID, BY_CLASS, ALL } kind;
	u32 a, b, c;
	bool has_gsi; /* the host's line of its INTx */
	u32 gsi;
	struct option_word but; /* ALL: ",-BB:DD.F", as often as need be */
};

/* BB:DD.F, VENDOR:DEVICE or class=CCSS, then perhaps ,gsi=N; or all and its
 * exceptions. -EINVAL. text must stay. */
int assign_word_parse(struct option_word text, struct assign_word *w);
/* Of ALL: an ordinary function that is no exception. */
bool assign_word_names(const struct assign_word *w,
		       const struct pci_function *f);
/* The next exception of ALL; *but starts as w->but and goes on behind it.
 * -ENOENT: there is no more; -EINVAL. */
int assign_word_next_but(struct option_word *but, bdf_t *bdf);
/*
 * What a guest can use and the machine can do without: storage, network,
 * display, audio, SD, USB, and Intel's HECI. All else (SPI flash, power
 * management, SMBus, sensors, serial ports ...) has classes that say little;
 * it is assigned by name only.
 */
bool assign_is_ordinary(const struct pci_function *f);
/*
 * Of a controller that stands in the place of the disks behind it (a sentence
 * with what to switch), or NULL. Linux: vmd.c, ahci.c's ahci_remap_check().
 */
const char *assign_hides_disks(const struct pci_function *f);
/* What the driver of Intel's graphics works with: for the log, or NULL. */
const char *assign_companion(const struct pci_function *f);

#endif
