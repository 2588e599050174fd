/* SPDX-License-Identifier: MIT */
/*
 * The host's functions in the guest's hands: which (assign=, and the
 * display), their BARs in the memory map, their interrupts on the way from
 * a remapped host vector to the guest's local APIC.
 */
#ifndef VMM_ASSIGNED_H
#define VMM_ASSIGNED_H

#include "drivers/pci/rom.h"
#include "drivers/vtd/vtd.h"
#include "vmm/devmodel/pci_assigned.h"
#include "vmm/vm.h"

#define ASSIGNED_MAX 8
#define MESSAGES_MAX 32 /* of a function's MSI-X table that are served */

enum interrupt_mode { IRQ_OFF, IRQ_INTX, IRQ_MSI, IRQ_MSIX };

struct machine;
struct assigned;

struct assigned_message {
	struct assigned *owner;
	int vector, entry; /* host vector, remapping entry; -1: none */
	struct pci_message guest;
	u64 count;
};

/* Where an MSI-X table lies (PCI 3.0, 6.8.2), and the guest's own. */
struct msix {
	unsigned bar;
	unsigned total, count; /* entries: the host's; those that are served */
	u64 offset;	       /* in the BAR */
	u64 page, pages_size;  /* the pages that trap, in the BAR */
	volatile u8 *host;     /* those pages */
	gpa_t trapped;	       /* where they are, or PCI_BAR_NOWHERE */
	u32 table[MESSAGES_MAX][4];
};

struct assigned_bar {
	struct assigned *owner;
	gpa_t placed;	   /* or port: where it works, or PCI_BAR_NOWHERE */
	volatile u8 *host; /* of less than a page: its registers */
	bool told;	   /* that its place was taken */
};

struct assigned {
	struct machine *machine;
	struct pci_function *function;
	struct pci_assigned config;
	enum interrupt_mode mode;
	unsigned line; /* of its INTx, vmm/virq.h */
	struct msix msix;
	struct assigned_bar bars[6];
	struct pci_rom rom;
	struct assigned_message messages[MESSAGES_MAX];
};

/*
 * Reads the assign= words and adds the display. Errors, each in one line:
 * -ENODEV, -EEXIST, -EINVAL, -EPERM. BARs are sized; nothing else changes.
 */
int assigned_choose(struct machine *m);
/* The reason why f cannot be assigned, as the rest of a sentence, or NULL. */
const char *assigned_objection(const struct machine *m,
			       const struct pci_function *f);
/* From firmware, before its DMA ends: USB controllers. */
void assigned_take_over(struct machine *m);
/* Configuration space, domain and interrupts. After vtd_start(). */
int assigned_init(struct machine *m);
/*
 * Bus mastering and interrupts off, then each function's reset; of the
 * display, which loses its picture, only if asked.
 */
void assigned_reset_all(struct machine *m, bool display);
/* vtd_config.stopped, with the machine as its context */
void assigned_stopped(void *machine, bdf_t bdf);
/* A line for each function as the guest is given it, at each start. */
void assigned_log(const struct machine *m);

/* assigned_bars.c */

/* Pins the BARs into the guest's memory map. */
int assigned_pin(struct machine *m);
/* Once configuration space stands: every BAR to where it is decoded. */
void assigned_place_bars(struct machine *m);
/* BAR i (6: the ROM's, which has moved) is decoded elsewhere, or no longer. */
void assigned_bar_changed(void *assigned, unsigned i);

/* assigned_rom.c: reads them; of the display the file that there may be. */
int assigned_find_roms(struct machine *m);
/* NULL: no display is assigned. */
const struct pci_rom *assigned_display_rom(const struct machine *m);
void assigned_rom_moved(struct assigned *a, u64 old_gpa, u64 new_gpa,
			bool enabled);

/* assigned_irq.c */
void assigned_interrupts_changed(void *assigned);
/* The pages of the MSI-X table: the bus's handler. */
int assigned_msix_access(void *assigned, struct bus_access *access);
void assigned_msix_find(struct assigned *a, const struct pci_host *pci);
void assigned_irq_off(struct assigned *a);

#endif
