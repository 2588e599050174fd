/* SPDX-License-Identifier: MIT */
/*
 * The host's PCI: configuration access by mechanism #1 (PCI 3.0, 3.2.2.3.2)
 * or ECAM (PCIe 7.2.2), scan, capabilities, BARs.
 */
#ifndef DRIVERS_PCI_PCI_H
#define DRIVERS_PCI_PCI_H

#include "arch/x86/types.h"

/* Bus, device, function of segment 0 as the requester ID: 8.5.3 bits. */
typedef u16 bdf_t;

#define BDF(bus, dev, fn) ((bdf_t)((bus) << 8 | (dev) << 3 | (fn)))
#define BDF_BUS(b) ((unsigned)(b) >> 8)
#define BDF_DEV(b) ((unsigned)(b) >> 3 & 31)
#define BDF_FN(b) ((unsigned)(b)&7)
/* For "%02x:%02x.%x" */
#define BDF_ARGS(b) BDF_BUS(b), BDF_DEV(b), BDF_FN(b)

#define PCI_FUNCTIONS_MAX 512

enum pci_reg {
	PCI_VENDOR = 0x00,
	PCI_DEVICE = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x0a, /* 16 bits: class << 8 | subclass */
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SECONDARY_BUS = 0x19,
	PCI_SUBORDINATE_BUS = 0x1a,
	PCI_SUBSYSTEM_VENDOR = 0x2c,
	PCI_ROM = 0x30,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
};

#define PCI_CLASS_USB 0x0c03
#define PCI_INTEL 0x8086 /* a vendor */

/* Of PCI_HEADER_TYPE; 0 is a function that is no bridge. */
enum { PCI_HEADER_BRIDGE = 1 };

/* PCI 3.0 appendix H, and PCIe. */
enum pci_capability {
	PCI_CAP_POWER = 0x01,
	PCI_CAP_VPD = 0x03,
	PCI_CAP_MSI = 0x05,
	PCI_CAP_PCIX = 0x07,
	PCI_CAP_VENDOR = 0x09,
	PCI_CAP_HOT_PLUG = 0x0c,
	PCI_CAP_EXPRESS = 0x10,
	PCI_CAP_MSIX = 0x11,
	PCI_CAP_SATA = 0x12,
	PCI_CAP_AF = 0x13,
};

/* Extended capabilities (PCIe 7.6.3) */
enum { PCI_EXT_ACS = 0x000d, PCI_EXT_REBAR = 0x0015 };

/* Of the capability's first word (PCIe 7.5.3.2) */
#define PCI_EXPRESS_TYPE(flags) ((flags) >> 4 & 15)
enum pci_express_type {
	PCI_EXPRESS_ROOT_PORT = 4,
	PCI_EXPRESS_UPSTREAM = 5,
	PCI_EXPRESS_DOWNSTREAM = 6,
	PCI_EXPRESS_TO_PCI = 7,
	PCI_EXPRESS_INTEGRATED = 9, /* in the root complex */
};

enum pci_command {
	PCI_COMMAND_IO = 1,
	PCI_COMMAND_MEMORY = 2,
	PCI_COMMAND_MASTER = 4,
	PCI_COMMAND_INTX_DISABLE = 0x400,
};

enum { PCI_STATUS_INTERRUPT = 8 }; /* PCI 3.0, 6.2.3 */

struct pci_bar {
	u64 base; /* host address, or port */
	u64 size; /* 0: not implemented (or upper half of the one before) */
	bool io, is64, prefetchable;
};

struct pci_function;

/* What a reset takes: drivers/pci/reset.c */
struct pci_saved {
	const struct pci_function *function;
	u32 config[64];
	unsigned rebar_count, rebar; /* offset of the first control */
	u32 sizes[7];
};

#define PCI_GRAPHICS_REGISTERS 6

/* Registers that firmware has set up: pci_save_graphics(). */
struct pci_graphics {
	const struct pci_function *function;
	bool saved;
	u32 wake, ack;
	u64 tsc_hz;
	u32 values[PCI_GRAPHICS_REGISTERS];
};

struct pci_function {
	bdf_t bdf;
	u16 vendor, device;
	u16 class; /* class << 8 | subclass */
	u8 revision;
	u8 header_type;		/* without the multi-function bit */
	u8 secondary_bus;	/* of a bridge, else 0 */
	bool taken_over;	/* a USB controller: by pci_take_over() */
	bool isolates;		/* see pci_acs_probe() */
	bool left;		/* with its firmware: by vtd_leave() */
	struct pci_bar bars[6]; /* sized by pci_size_bars() only */
	const struct pci_saved *saved; /* for its resets, or NULL */
};

struct pci_host {
	u64 ecam; /* host-physical base of bus 0, or 0: mechanism #1 alone */
	u8 ecam_last_bus;
	struct pci_graphics graphics;
	unsigned count;
	struct pci_function functions[PCI_FUNCTIONS_MAX]; /* sorted by bdf */
};

/* size: 1, 2 or 4, offset aligned to it. Absent functions read all ones. */
u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size);
void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value);
/* By mechanism #1, where there is ECAM, too; offset below 256. */
u32 pci_port_read(bdf_t bdf, unsigned offset, unsigned size);
/*
 * From now on by ECAM, whose base is bus 0's. False: 00:00.0's IDs are others
 * there than by mechanism #1, which remains.
 */
bool pci_use_ecam(struct pci_host *pci, u64 base, u8 last_bus);
/*
 * Finds the functions: those of bus 0, and of each bus with functions that
 * no bridge leads to (of those that ECAM has, if there is ECAM); from there
 * through bridges with a bound (a bus is visited once). What does not fit the
 * table is counted and logged.
 */
void pci_scan(struct pci_host *pci);
struct pci_function *pci_find(struct pci_host *pci, bdf_t bdf);
/*
 * Sizes the BARs of a function by the write-ones protocol with its decode
 * off (PCI 3.0, 6.2.5.1) and restores every register.
 */
void pci_size_bars(const struct pci_host *pci, struct pci_function *f);
/* Offset of the capability (PCI 3.0, 6.7), or 0; loops are bounded. */
unsigned pci_find_capability(const struct pci_host *pci, bdf_t bdf, u8 id);

/* The bridge that leads to bdf's bus, or NULL on a root bus. */
static inline const struct pci_function *
pci_bridge_above(const struct pci_host *pci, bdf_t bdf)
{
	/* A bridge's bus is below its secondary one: walks up come to an end */
	for (unsigned i = 0; i < pci->count; i++) {
		const struct pci_function *f = &pci->functions[i];

		if (f->secondary_bus == BDF_BUS(bdf) &&
		    BDF_BUS(f->bdf) < f->secondary_bus)
			return f;
	}
	return NULL;
}

/* What leads to bdf from its root bus: a bridge there, or bdf itself. */
static inline bdf_t pci_on_root(const struct pci_host *pci, bdf_t bdf)
{
	const struct pci_function *above;

	while ((above = pci_bridge_above(pci, bdf)))
		bdf = above->bdf;
	return bdf;
}

/* groups.c */

/* Offset of the extended capability, or 0: none, or no ECAM. */
unsigned pci_find_extended(const struct pci_host *pci, bdf_t bdf, u16 id);
/* enum pci_express_type, or another; -1: not PCI Express. */
int pci_express_type(const struct pci_host *pci, bdf_t bdf);
/*
 * The isolation group: two functions have the same one exactly if their
 * requests may reach each other past the IOMMU. It counts on what
 * pci_acs_probe(), or later pci_acs_enable(), found.
 */
bdf_t pci_group(const struct pci_host *pci, bdf_t bdf);
#define PCI_REQUESTERS_MAX 2
/*
 * The requester IDs that bdf's requests may carry (VT-d 3.4.1); itself first.
 * The last one is that of its interrupts.
 */
unsigned pci_requesters(const struct pci_host *pci, bdf_t bdf,
			bdf_t out[PCI_REQUESTERS_MAX]);

/* acs.c */

/* Which functions can send their neighbours' requests by way of the IOMMU:
 * tried, and put back. */
void pci_acs_probe(struct pci_host *pci);
/* They do so from now on, and are noted anew. */
void pci_acs_enable(struct pci_host *pci);

/* In the order of preference. */
enum pci_reset {
	PCI_RESET_NONE,
	PCI_RESET_FLR,	 /* PCIe 6.6.2 */
	PCI_RESET_AF,	 /* conventional PCI Advanced Features ECN */
	PCI_RESET_POWER, /* D3hot to D0 without No_Soft_Reset */
	PCI_RESET_BUS,	 /* PCI-to-PCI Bridge 1.2, 3.2.5.17 */
	PCI_RESET_IVB, /* mobile Ivy Bridge's graphics: a sequence of theirs */
};

/* For the log; at most 6 characters. */
const char *pci_reset_name(enum pci_reset method);
enum pci_reset pci_reset_method(const struct pci_host *pci, bdf_t bdf);
/*
 * What a reset of f takes, as it is now, or as f->saved has it: that is set
 * where f may be driven into any state meanwhile. f's BARs are sized.
 */
void pci_save(const struct pci_host *pci, const struct pci_function *f,
	      struct pci_saved *s);
/*
 * Resets the function by the best method it has and restores its
 * configuration, as it was or as f->saved has it (then without a method, too),
 * and what pci_save_graphics() has kept; what does not come back is logged.
 * Bus mastering must be off. bus: its whole bus may be reset, which is then
 * done to, and restored of, all functions on it. f's BARs are sized.
 * -ENOTSUP: it has no method; -ETIMEDOUT: it does not answer within PCIe's
 * 1.1 s, which is logged.
 */
int pci_reset_function(const struct pci_host *pci, const struct pci_function *f,
		       bool bus, u64 tsc_hz);
/*
 * The same in two parts, by FLR or AF-FLR: it is begun, without a wait for what
 * is pending, and to be left alone for 100 ms. Then it is finished, or does not
 * answer yet: -EBUSY, for a second at most. Nothing of it is logged.
 */
void pci_reset_begin(const struct pci_host *pci, const struct pci_function *f,
		     enum pci_reset method);
int pci_reset_finish(const struct pci_host *pci, const struct pci_saved *saved);

#define PCI_WAKE_SNB 0xa18c
/*
 * Keeps the registers of Intel's graphics that a reset loses, for each reset
 * from now on: before the guest has them. wake, ack: the offsets in BAR 0 of
 * forcewake's request and answer. f's BARs are sized; f stays.
 */
void pci_save_graphics(struct pci_host *pci, const struct pci_function *f,
		       u32 wake, u32 ack, u64 tsc_hz);

/* To D3hot, if it can; its configuration is kept by nobody. */
void pci_sleep(const struct pci_host *pci, bdf_t bdf);
/* A function that firmware left in D1 to D3hot goes to D0, its configuration
 * as it was. f's BARs are sized. */
void pci_wake(const struct pci_host *pci, const struct pci_function *f,
	      u64 tsc_hz);

/* pci_take_over() knows how to ask for it; not so for USB4, for instance. */
bool pci_can_take_over(const struct pci_host *pci,
		       const struct pci_function *f);
/*
 * A USB controller is taken over from firmware, if need be by force, stopped,
 * and marked so; other functions are left alone. f's BARs are sized. Bounded
 * by a second.
 */
void pci_take_over(const struct pci_host *pci, struct pci_function *f,
		   u64 tsc_hz);
/*
 * The ports that an xHCI of Intel's 7- to 9-series shares with EHCI become
 * its own (Linux: usb_enable_intel_xhci_ports); others are left alone. A
 * reset undoes it.
 */
void pci_route_usb_ports(const struct pci_host *pci,
			 const struct pci_function *f);

#endif
