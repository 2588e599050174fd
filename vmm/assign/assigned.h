/* SPDX-License-Identifier: MIT */
/*
 * The host's functions in the guest's hands: which (assign=, and the
 * display), their BARs in the memory map, their interrupts on the way from
 * a remapped host vector to the guest's local APIC.
 */
#ifndef VMM_ASSIGN_ASSIGNED_H
#define VMM_ASSIGN_ASSIGNED_H

#include "drivers/pci/rom.h"
#include "drivers/vtd/vtd.h"
#include "kernel/host_irq.h"
#include "vmm/assign/storm.h"
#include "vmm/core/vm.h"
#include "vmm/devmodel/pci_assigned.h"

#define ASSIGNED_MAX 64

/* INTx by the host's MSI, by its line, or by looking at its status. */
enum interrupt_mode {
	IRQ_OFF,
	IRQ_INTX,
	IRQ_LINE,
	IRQ_POLLED,
	IRQ_MSI,
	IRQ_MSIX,
};

struct host;
struct machine;
struct assigned;

/* One message: of MSI (up to 32), or an entry of MSI-X (up to 2048). */
struct assigned_message {
	struct assigned *owner;
	int vector, entry; /* host vector, remapping entry; -1: none */
	bool pending;	   /* it came when the guest had just masked it */
	u32 entry_copy[4]; /* of MSI-X: the guest's */
};

/* Where an MSI-X table lies (PCI 3.0, 6.8.2). */
struct msix {
	unsigned bar;
	unsigned total;	      /* entries; each has a message */
	u64 offset;	      /* in the BAR */
	u64 pending;	      /* the PBA, in this BAR, or PCI_BAR_NOWHERE */
	u64 page, pages_size; /* the pages that trap, in the BAR */
	volatile u8 *host;    /* those pages */
	gpa_t trapped;	      /* where they are, or PCI_BAR_NOWHERE */
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
	unsigned line; /* of its INTx, vmm/core/virq.h */
	/* Where gsi= names the host's line of it. */
	bool has_gsi;
	u32 gsi;
	struct host_irq_line pin;
	bool raised; /* masked there, asserted here, until the EOI */
	struct msix msix;
	struct assigned_bar bars[PCI_ROM_BAR + 1];
	struct pci_rom rom;
	struct pci_bar rom_bar; /* where Monocle's copy of it lies */
	unsigned message_count;
	struct assigned_message *messages;
	unsigned wanted, served;   /* MSI: messages that have a vector */
	bool some_pending;	   /* of the messages */
	bool reported;		   /* that there are too few vectors */
	struct device_stats stats; /* those that are counted here */
	u64 old_faults;		   /* before the guest's start */
	struct storm storm;
	bool held; /* its interrupts, after a storm, up to then */
	u64 release;
};

/*
 * Reads the assign= words and adds the display. Errors, each in one line:
 * -ENODEV, -EEXIST, -EINVAL, -EPERM. BARs are sized; nothing else changes.
 */
int assigned_choose(struct machine *m);
/* The reason why f cannot be assigned, as the rest of a sentence, or NULL. */
const char *assigned_objection(const struct machine *m,
			       const struct pci_function *f);
/* The RMRR after e (NULL: the first) that has to lie 1:1 in the guest's memory
 * map for f's sake, or NULL. */
const struct dmar_entry *assigned_next_rmrr(const struct host *h,
					    const struct pci_function *f,
					    const struct dmar_entry *e);
/* The same of its interrupts, where no gsi= is said. */
const char *assigned_line_objection(const struct machine *m,
				    const struct pci_function *f);
/* igd_probe() of what is at 00:02.0, into m->igd, and its errors. */
int assigned_probe_igd(struct machine *m);
/* Of the group of an assigned function, and not assigned itself. */
bool assigned_is_beside(const struct machine *m, const struct pci_function *f);
/* From firmware, before its DMA ends: USB controllers. */
void assigned_take_over(struct machine *m);
/*
 * Configuration space, domain and interrupts; what is beside an assigned
 * function is put to rest. After vtd_start().
 */
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
/* BAR i is decoded elsewhere, or no longer. */
void assigned_bar_changed(void *assigned, unsigned i);

/* assigned_rom.c: reads them; of the display the file that there may be. */
int assigned_find_roms(struct machine *m);
/* NULL: no display is assigned. */
const struct pci_rom *assigned_display_rom(const struct machine *m);

/* assigned_stats.c */

/* Counts from 0, at the guest's start. */
void assigned_stats_reset(struct assigned *a);
/* vm.device_stats; machine: a struct machine. */
bool assigned_stats(void *machine, unsigned n, struct device_stats *out);
void assigned_stats_log(struct machine *m);

/* assigned_irq.c */

/* Its messages, with memory from host_memory. -ENOMEM. */
int assigned_irq_init(struct assigned *a, const struct pci_host *pci);
/* The rest, when the guest's machine is built. -ENOSPC. */
int assigned_irq_build(struct assigned *a);
void assigned_interrupts_changed(void *assigned);
void assigned_irq_off(struct assigned *a);
/* Off, and the guest's MSI-X table as after power-on. */
void assigned_irq_reset(struct assigned *a);
/* Vectors and remapping entries for count messages (1, 2, ... 32) in a row,
 * and what the device is to send for the first. -ENOSPC; vtd_irq_set()'s. */
int assigned_arm(struct assigned_message *first, unsigned count,
		 struct vtd_msi *out);
/* A message gets no vector: said once. */
void assigned_unserved(struct assigned *a, unsigned n);
/* Those kept that the guest has unmasked by now. */
void assigned_deliver_pending(struct assigned *a);

/* Counts an interrupt that came; in a storm its source is held. */
void assigned_count(struct assigned *a);

/* Of all assigned functions: held interrupts, and INTx that is polled. */
void assigned_timer_fired(void *machine, u64 now);
/* The timer comes at now, or earlier. */
void assigned_timer_by(struct machine *m, u64 now);

/* assigned_line.c */

#define ASSIGNED_POLL_US 1000

/* A vector for the line, which stays masked. -ENOSPC, -ENODEV. */
int assigned_line_init(struct assigned *a);
void assigned_line_on(struct assigned *a);
void assigned_line_off(struct assigned *a);
/* Looks at the function's Interrupt Status, which the virtual line follows. */
void assigned_line_poll(struct assigned *a);
/* The host's pin open or masked, as it has to be now. */
void assigned_line_follow(struct assigned *a);
/* The guest's EOI of a virtual pin; machine: a struct machine. */
void assigned_line_eoi(void *machine, unsigned pin);

/* assigned_msix.c */
void assigned_msix_find(struct assigned *a, const struct pci_host *pci);
/* The pages of the MSI-X table: the bus's handler. */
int assigned_msix_access(void *assigned, struct bus_access *access);
/* The guest's entry n; false: it is masked. */
bool assigned_msix_message(const struct assigned *a, unsigned n, u64 *address,
			   u32 *data);
/* Every entry of the host's table as the guest's are. */
void assigned_msix_start(struct assigned *a);
void assigned_msix_reset(struct assigned *a);

#endif
