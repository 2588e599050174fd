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
#include "kernel/acpi.h"
#include "kernel/host_irq.h"
#include "kernel/options.h"
#include "vmm/assign/igd.h"
#include "vmm/assign/storm.h"
#include "vmm/core/virq.h"
#include "vmm/core/vm.h"
#include "vmm/devmodel/ioapic.h"
#include "vmm/devmodel/pci_assigned.h"
#include "vmm/devmodel/pci_port.h"

#define ASSIGNED_MAX 64
#define PORTS_MAX 64

/* INTx by the host's MSI, by its line, or by looking at its status. */
enum interrupt_mode {
	IRQ_OFF,
	IRQ_INTX,
	IRQ_LINE,
	IRQ_POLLED,
	IRQ_MSI,
	IRQ_MSIX,
};

struct assigned;
struct assignment;

/* One message: of MSI (up to 32), or an entry of MSI-X (up to 2048). */
struct assigned_message {
	struct assigned *owner;
	struct percpu *cpu; /* that it comes to, as long as it has a vector */
	int vector, entry;  /* host vector, remapping entry; -1: none */
	u8 count;	    /* of the first: in a row, on one CPU */
	bool pending;	    /* it came when the guest had just masked it */
	u32 entry_copy[4];  /* of MSI-X: the guest's */
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
	struct assignment *all;
	struct pci_function *function;
	struct pci_saved saved; /* before the guest's first life */
	struct pci_assigned config;
	enum interrupt_mode mode;
	unsigned line; /* of its INTx, vmm/core/virq.h */
	/* Where gsi= names the host's line of it. */
	bool has_gsi;
	u32 gsi;
	struct host_irq_line pin;
	struct percpu *cpu; /* to which it interrupts; NULL: the first */
	bool raised;	    /* masked there, asserted here, until the EOI */
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
	u64 ready; /* while the guest has it reset: not looked at before */
	bool held; /* its interrupts, after a storm, up to then */
	u64 release;
};

/* What the room is handed, and what it has made of it. */
struct assignment {
	/* Of the host; all of it stays the caller's. */
	struct pci_host *pci;
	struct vtd *vtd; /* NULL: DMA is not remapped */
	const struct acpi_madt *madt;
	const struct boot_info *boot;
	const struct options *options;
	const struct boot_module *rom_file; /* for the display, or NULL */
	/* As after power-on: the guest's firmware gives addresses and buses. */
	bool cold;
	bool uefi; /* it is OVMF: it gets a picture */
	u64 tsc_hz;
	/* Of the guest. */
	struct vm *vm;
	struct vpci *vpci;
	struct ioapic *ioapic;
	const struct virq *virq;
	struct vtd_domain *domain; /* NULL: the guest does no DMA */
	/* Its own. */
	unsigned count, named; /* named ones are first, as the words are */
	struct assigned functions[ASSIGNED_MAX];
	unsigned port_count;
	struct pci_port ports[PORTS_MAX];   /* bridges on the way to them */
	struct vtimer timer;		    /* for all of them */
	const struct pci_function *display; /* NULL: none */
	bool vga;			    /* legacy VGA is the display's, and
					     * open */
	struct igd igd;			    /* function NULL: not in use */
	bool crowded;			    /* said: a CPU has no vector left */
};

/*
 * Reads the assign= words and adds the display. Errors, each in one line:
 * -ENODEV, -EEXIST, -EINVAL, -EPERM. BARs are sized; nothing else changes.
 */
int assigned_choose(struct assignment *all);
/*
 * The reason why f cannot be assigned, as the rest of a sentence, or NULL: its
 * BARs are sized then.
 */
const char *assigned_objection(const struct assignment *all,
			       struct pci_function *f);
/* Its DMA is not remapped, as the user wants it (igd-dma=direct). */
bool assigned_is_direct(const struct assignment *all,
			const struct pci_function *f);
/* The same where it is the display, without being named. */
const char *assigned_display_objection(const struct assignment *all,
				       struct pci_function *f);
/* The same of its interrupts, where no gsi= is said. */
const char *assigned_line_objection(const struct assignment *all,
				    const struct pci_function *f);
/* Of the group of an assigned function, and not assigned itself. */
bool assigned_is_beside(const struct assignment *all,
			const struct pci_function *f);
/* From firmware, before its DMA ends: USB controllers. */
void assigned_take_over(struct assignment *all);
/*
 * Configuration space, domain and interrupts; what is beside an assigned
 * function is put to rest. After vtd_start().
 */
int assigned_init(struct assignment *all);
/*
 * Bus mastering and interrupts off, then each function's reset; of the
 * display, which loses its picture, only if asked.
 */
void assigned_reset_all(struct assignment *all, bool display);
/* vtd_config.stopped, with the assignment as its context */
void assigned_stopped(void *assignment, bdf_t bdf);
/* A line for each function as the guest is given it, at each start. */
void assigned_log(const struct assignment *all);

/* assigned_regions.c */

/*
 * Adds what assigned functions have in the guest's memory map: the display's
 * windows (also to vm->windows), RMRRs, BARs. region_pin()'s errors, with its
 * line; -ENOSPC.
 */
int assigned_regions(struct assignment *all, struct region_list *map);
/* A window, closed where igd=closed. region_pin()'s errors. */
int assigned_window(const struct assignment *all, struct region_list *map,
		    struct region r);
/* The RMRR after e (NULL: the first) that has to lie 1:1 in the guest's memory
 * map for f's sake, or NULL. */
const struct dmar_entry *assigned_next_rmrr(const struct assignment *all,
					    const struct pci_function *f,
					    const struct dmar_entry *e);

/* assigned_bars.c */

/* The BARs into the guest's memory map: region_add()'s errors, each in a line
 * that names the function. */
int assigned_pin_bars(struct assignment *all, struct region_list *map);
/* Once configuration space stands: every BAR to where it is decoded. */
void assigned_place_bars(struct assignment *all);
/* BAR i is decoded elsewhere, or no longer. */
void assigned_bar_changed(void *assigned, unsigned i);

/* assigned_rom.c: reads them; of the display the file that there may be. */
int assigned_find_roms(struct assignment *all);
/* NULL: no display is assigned. */
const struct pci_rom *assigned_display_rom(const struct assignment *all);

/* assigned_stats.c */

/* Counts from 0, at the guest's start. */
void assigned_stats_reset(struct assigned *a);
/* vm.device_stats, with the assignment as its context */
bool assigned_stats(void *assignment, unsigned n, struct device_stats *out);
void assigned_stats_log(struct assignment *all);

/* assigned_irq.c */

/* Its messages, with memory from host_memory. -ENOMEM. */
int assigned_irq_init(struct assigned *a, const struct pci_host *pci);
void assigned_interrupts_changed(void *assigned);
void assigned_irq_off(struct assigned *a);
/* Off, and the guest's MSI-X table as after power-on. */
void assigned_irq_reset(struct assigned *a);
/* The guest wrote the entry of a virtual pin; ioapic.routed, with the
 * assignment as its context */
void assigned_pin_routed(void *assignment, unsigned pin);
/* Of all assigned functions: held interrupts, and INTx that is polled. */
void assigned_timer_fired(void *assignment, u64 now);

/* The host's configuration space of the function: pci_config_read()'s sizes. */
static inline void assigned_write(const struct assigned *a, unsigned offset,
				  unsigned size, u32 value)
{
	pci_config_write(a->all->pci, a->function->bdf, offset, size, value);
}

static inline u32 assigned_read(const struct assigned *a, unsigned offset,
				unsigned size)
{
	return pci_config_read(a->all->pci, a->function->bdf, offset, size);
}

/* assigned_message.c: what messages and lines stand on */

/* The CPU of the vCPU with this APIC ID, or the first where there is none. */
struct percpu *assigned_cpu(u32 apic_id);
/* Vectors and remapping entries for count messages (1, 2, ... 32) in a row,
 * and what the device is to send for the first. They come to the CPU of the
 * vCPU that the guest's message names. -ENOSPC; vtd_irq_set()'s. */
int assigned_arm(struct assigned_message *first, unsigned count,
		 struct vtd_msi *out);
/* Those in a row, the first armed if it is not yet, to the CPU that the guest's
 * message names by now. 1: the device is to send what is in out; or errors. */
int assigned_aim(struct assigned_message *first, struct vtd_msi *out);
void assigned_disarm(struct assigned_message *first, unsigned count);
/* A message gets no vector: said once. */
void assigned_unserved(struct assigned *a, unsigned n);
/* Those kept that the guest has unmasked by now. */
void assigned_deliver_pending(struct assigned *a);
/* The guest reads the kept ones as pending. */
void assigned_show_pending(struct assigned *a);
/* The device's masks as the guest has its own, or all where it is held. */
void assigned_messages_follow(const struct assigned *a);
/* The device's MSI-X control: state is its two highest bits. */
void assigned_msix_control(const struct assigned *a, u32 state);
/* Counts an interrupt that came; true: it is one too many, the source is held
 * from now on, and to be masked. */
bool assigned_count(struct assigned *a);
/* The timer comes at now, or earlier. */
void assigned_timer_by(struct assignment *all, u64 now);

/* assigned_line.c */

#define ASSIGNED_POLL_US 1000

/*
 * The function's own INTx, on or off for all lives of the guest; where gsi=
 * names its line a vector, which stays masked. -ENOSPC, -ENODEV.
 */
int assigned_line_init(struct assigned *a);
void assigned_line_off(struct assigned *a);
/* Looks at the function's Interrupt Status, which the virtual line follows. */
void assigned_line_poll(struct assigned *a);
/* The host's pin open or masked, as it has to be now. */
void assigned_line_follow(struct assigned *a);
/* To the CPU that the guest's pin names by now. */
void assigned_line_aim(struct assigned *a);
/* The guest's EOI of a virtual pin, with the assignment as its context */
void assigned_line_eoi(void *assignment, unsigned pin);

/* assigned_msix.c */
void assigned_msix_find(struct assigned *a, const struct pci_host *pci);
/* The pages of the MSI-X table: the bus's handler. */
int assigned_msix_access(void *assigned, struct bus_access *access);
/* Every entry of the host's table as the guest's are. */
void assigned_msix_start(struct assigned *a);
void assigned_msix_reset(struct assigned *a);

#endif
