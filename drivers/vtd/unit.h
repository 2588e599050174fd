/* SPDX-License-Identifier: MIT */
/*
 * One remapping unit: its registers, what it can do, its root and context
 * tables, its invalidation queue. VT-d specification chapters 6, 9 and 11.
 *
 * The order that every change of a table keeps (6.5, 6.8):
 *   store -> clflush (walks that do not snoop) -> write-buffer flush (RWBF)
 *   -> invalidate -> wait -> only then reuse of what the table named.
 */
#ifndef DRIVERS_VTD_UNIT_H
#define DRIVERS_VTD_UNIT_H

#include "arch/x86/io.h"
#include "drivers/vtd/regs.h"

/* Ticks that the slowest answer may take: over half a second at 6 GHz. */
#define VTD_TIMEOUT 4000000000ull

/* Root entries, context entries, IRTEs, invalidation descriptors */
struct vtd_entry {
	u64 lo, hi;
};

_Static_assert(sizeof(struct vtd_entry) == 16, "VT-d 9.1, 9.3, 9.10, 6.5.2");

#define VTD_PRESENT BIT(0) /* lo, of all but descriptors */

struct vtd_unit {
	volatile u8 *regs;
	hpa_t base; /* of the registers */
	u64 cap, ecap;
	u8 levels;	   /* of its second-level tables: 3, 4 or 5 */
	u8 width;	   /* bits of the addresses it translates */
	bool flush;	   /* its walks do not snoop the caches */
	bool write_buffer; /* needs RWBF */
	struct vtd_entry *root;
	struct vtd_entry *queue; /* one page, or NULL: registers instead */
	/* The queue that is on: firmware's, until take-over; NULL: none */
	volatile struct vtd_entry *in_force;
	u32 tail;	   /* index of the queue's next free slot */
	u32 sequence;	   /* of the last wait descriptor */
	volatile u32 done; /* the unit writes the sequence here */
	u64 invalidations;
};

static inline u32 unit_read32(const struct vtd_unit *u, enum vtd_reg32 reg)
{
	return mmio_read32(u->regs + reg);
}

static inline u64 unit_read64(const struct vtd_unit *u, enum vtd_reg64 reg)
{
	return mmio_read64(u->regs + reg);
}

static inline void unit_write32(struct vtd_unit *u, enum vtd_reg32 reg, u32 v)
{
	mmio_write32(u->regs + reg, v);
}

static inline void unit_write64(struct vtd_unit *u, enum vtd_reg64 reg, u64 v)
{
	mmio_write64(u->regs + reg, v);
}

/* regs.c */

/* Waits until (register & mask) == value; -ETIMEDOUT after VTD_TIMEOUT. */
int unit_wait(const struct vtd_unit *u, enum vtd_reg32 reg, u32 mask,
	      u32 value);
/*
 * The one way to the global command register (11.4.4): one bit at a time,
 * the others as the status shows them, one-shot bits never repeated.
 * Returns once the status agrees, or -ETIMEDOUT.
 */
int unit_command(struct vtd_unit *u, u32 bit, bool on);
/* The bytes have left the caches when this returns; no-op unless needed. */
void vtd_flush(const void *p, size_t size, bool needed);

/* unit.c */

/*
 * Reads what the unit can do and allocates its root table and queue; changes
 * nothing. -ENODEV: no unit answers there; -ENOTSUP: no second-level tables,
 * or translation is on in scalable mode, which cannot be changed under it
 * (TTM); -ENOMEM.
 */
int unit_init(struct vtd_unit *u, hpa_t base, bool write_buffer);
/* Before take-over: with what a previous owner left on. */
void unit_log(const struct vtd_unit *u, unsigned number);

/*
 * Fault events masked, then its queue. Of all units before the root of one:
 * what the old tables translated must be dropped at once when the new ones are
 * in force, and on X58 that waits for ever while another's is not on (Linux:
 * init_dmars). -ETIMEDOUT, -EIO.
 */
int unit_start_queue(struct vtd_unit *u);
/*
 * Puts the root table in force, whatever a previous owner left on; DMA
 * remapping stays on where it is on, but where it blocks all (abort-DMA mode):
 * that has to end first. -ETIMEDOUT, -EIO.
 */
int unit_take_over(struct vtd_unit *u);
/*
 * A unit that is not used: what of VTD_GCMD_TE (with it, protected memory) and
 * VTD_GCMD_IRE to switch off; 0: what is on is said.
 */
void unit_end(hpa_t base, u32 what);
/* Remapping on, then the protected memory regions given up (11.4.8). */
int unit_enable(struct vtd_unit *u);

/*
 * The context entry of a requester ID: lo and hi as 9.3 says. The caller
 * invalidates afterwards. -ENOMEM: no page for the bus's context table.
 */
int unit_set_context(struct vtd_unit *u, u16 requester, u64 lo, u64 hi);
/* The domain in it, or 0: absent. */
u16 unit_domain(const struct vtd_unit *u, u16 requester);
/* Its faults are no longer recorded, in force on return; it stays blocked.
 * -ENOMEM, as above. */
int unit_silence(struct vtd_unit *u, u16 requester);

/*
 * invalidate.c (6.5): by the queue where the unit has one, else by registers.
 * Each call returns after the unit has finished, and begins with the
 * write-buffer flush of a unit that needs it. -ETIMEDOUT and -EIO: the unit
 * does not do it; what the tables named must not be reused.
 */

/*
 * The queue that firmware left on, kept from other use; NULL: none is on, or
 * it is out of reach.
 */
volatile struct vtd_entry *inv_firmware_queue(const struct vtd_unit *u);
/* Starts u->queue anew, empty, whatever was going on. */
int inv_start_queue(struct vtd_unit *u);
/* The write buffer alone (6.8) */
int inv_write_buffer(struct vtd_unit *u);
/* All context entries, then all translations */
int inv_all(struct vtd_unit *u);
/*
 * A domain's translations of [gpa, gpa + size), page-selective where the
 * unit can. removed: some of them were in force; else they were absent, and
 * only caching mode remembers such (6.1).
 */
int inv_range(struct vtd_unit *u, u16 domain, gpa_t gpa, u64 size,
	      bool removed);
/*
 * An interrupt entry, or all for -1. A unit that remaps interrupts has a
 * queue (ECAP.IR is set only with ECAP.QI).
 */
int inv_interrupt(struct vtd_unit *u, int index);

#endif
