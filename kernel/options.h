/* SPDX-License-Identifier: MIT */
/*
 * Monocle's command line: words "name", "name=value", in one table with a
 * help text each (kernel/options.c), which "help" prints and the README
 * repeats.
 */
#ifndef KERNEL_OPTIONS_H
#define KERNEL_OPTIONS_H

#include "arch/x86/types.h"

enum ram_mode { RAM_RELOCATED, RAM_IDENTITY };
enum guest_kind { GUEST_KERNEL, GUEST_BIOS };
enum igd_reset { RESET_AUTO, RESET_NEVER, RESET_REBOOT, RESET_ALWAYS };
enum iommu_mode { IOMMU_STRICT, IOMMU_OFF };
enum igd_dma { DMA_REMAPPED, DMA_DIRECT };
enum igd_mode { IGD_OFF, IGD_OPEN, IGD_CLOSED };

#define ASSIGN_WORDS 32

/* Of the command line, which stays. */
struct option_word {
	const char *text;
	size_t length;
};

struct options {
	unsigned ram;	    /* enum ram_mode */
	unsigned guest;	    /* enum guest_kind */
	unsigned igd_reset; /* enum igd_reset */
	unsigned igd_dma;   /* enum igd_dma */
	unsigned iommu;	    /* enum iommu_mode */
	unsigned sinks;	    /* enum log_sink */
	unsigned igd;	    /* enum igd_mode */
	unsigned apicv;	    /* enum apicv_choice */
	unsigned clock;	    /* enum clock_source */
	unsigned itlb;	    /* 1: large pages hold no code */
	u64 igd_gen;	    /* its generation, 0: by its ID */
	u64 memory;	    /* bytes of guest RAM at most, 0: all there is */
	u64 cpus;	    /* of the guest at most, 0: all */
	u64 dma_faults;	    /* after so many a device is stopped, 0: never */
	unsigned assign_count;
	struct option_word assign[ASSIGN_WORDS];
	bool quiet, debug, help, list, unsafe_dma, no_vga, rom_init;
	bool strict_groups, serials, no_hypervisor_bit, usb_firmware;
};

/* Functions do DMA though no IOMMU is between them and all memory. */
static inline bool options_unsafe_dma(const struct options *o)
{
	return o->unsafe_dma && o->iommu == IOMMU_OFF && o->ram == RAM_IDENTITY;
}

/* Defaults, then the words of cmdline. -EINVAL after one log_error line. */
int options_parse(struct options *options, const char *cmdline);
void options_help(void);

#endif
