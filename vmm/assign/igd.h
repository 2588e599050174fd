/* SPDX-License-Identifier: MIT */
/*
 * Intel's integrated graphics at 00:02.0: what it is, and which memory it
 * shares with its firmware and its driver. All of it is read and judged
 * before anything on the machine changes; docs/igd.md has the table of what
 * is refused and what goes on without a part.
 */
#ifndef VMM_ASSIGN_IGD_H
#define VMM_ASSIGN_IGD_H

#include "drivers/pci/pci.h"
#include "kernel/boot_info.h"
#include "kernel/options.h"
#include "kernel/phys.h"
#include "kernel/region.h"
#include "vmm/devmodel/pci_assigned.h"

#define IGD_BDF BDF(0, 2, 0)
#define IGD_RMRRS 8

/* What differs between the generations: one const row for each layout. */
struct igd_layout {
	u8 first, last; /* generations */
	u8 control;	/* GGC: of 00:00.0 up to 5, of 00:02.0 from 6 on */
	u8 dsm;		/* base of stolen memory, in 00:02.0 */
	bool dsm_wide;	/* that register has 64 bits */
	u8 gsm;		/* base of the GTT's stolen memory, in 00:00.0 */
	u8 top;		/* top of usable DRAM below 4 GiB, in 00:00.0 */
	u64 (*dsm_size)(u32 control); /* bytes */
	u64 (*gsm_size)(u32 control);
};

enum igd_quirk {
	IGD_NO_REMAPPING = 1, /* DMA remapping must stay off */
	IGD_SHADOW_GTT = 2,   /* ... unless there is a shadow GTT */
	IGD_STOLEN_IN_BAR = 4,
	IGD_UNSUPPORTED = 8,
};

struct igd_input {
	const struct pci_host *pci;
	const struct pci_function *function; /* 00:02.0, or NULL */
	const struct boot_info *boot;
	const struct options *options;
	unsigned rmrr_count; /* of 00:02.0 in the DMAR table, all of them */
	struct phys_range rmrr[IGD_RMRRS]; /* the first ones */
};

/* A range of size 0 is not there. Pages are whole, but for opregion, vbt. */
struct igd {
	const struct pci_function *function;
	u16 bridge; /* device ID of 00:00.0 */
	u16 pch;    /* of the ISA bridge, or 0 */
	u8 generation;
	const char *generation_source;
	const struct igd_layout *layout;
	u32 quirks;	    /* enum igd_quirk */
	u32 control;	    /* GGC */
	u64 top;	    /* TOLUD, 0: the register is not set */
	bool vga;	    /* it decodes legacy VGA */
	bool remapping_off; /* ... of DMA: it must stay off */
	struct phys_range dsm, gsm;
	bool stolen_open; /* from Meteor Lake on: the CPU may reach both */
	bool gsm_unknown; /* there is some, and no register says where */
	u32 asls;
	u16 opregion_version; /* major << 8 | minor */
	struct phys_range opregion, vbt;
	const char *vbt_source;
	unsigned rmrr_count;
	struct phys_range rmrr[IGD_RMRRS];
};

/* An Intel display at 00:02.0, whether or not Monocle can assign it. */
bool igd_is_one(const struct pci_function *f);
/*
 * Fills *igd by reads alone. Each error after one log_error line: -ENODEV:
 * no Intel graphics there; -ENOTSUP: a generation that is not known, or
 * remapping that must stay off but does not; -EINVAL: registers or tables
 * that contradict the memory map.
 */
int igd_probe(struct igd *igd, const struct igd_input *in);
/*
 * DSM and GSM, from which firmware's picture is scanned out, assigned or not;
 * size 0: not there, or not to be believed. Says nothing. False: its DMA is
 * not to be remapped, by what it is, or as igd-dma= says.
 */
bool igd_picture(const struct igd_input *in, struct phys_range out[2]);
/* Offset in BAR 0 of the request that its registers wake, and, at *ack, of the
 * answer; 0: of this generation none are known. */
u32 igd_forcewake(const struct igd *igd, u32 *ack);
/* Every decision, in one block. */
void igd_log(const struct igd *igd);
/* What the guest does with its device-specific registers; *count rows. */
const struct pci_policy_row *igd_policy(const struct igd *igd, unsigned *count);
/*
 * Its memory, 1:1, as regions of a list of their own: where two overlap,
 * rights add up, but the CPU never reaches GSM. region_add()'s errors.
 */
int igd_regions(const struct igd *igd, struct region_list *list);

#endif
