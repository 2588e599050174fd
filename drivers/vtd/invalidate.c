/* SPDX-License-Identifier: MIT */
#include "drivers/vtd/unit.h"

#include "arch/x86/errno.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/phys.h"

#define SLOTS (PAGE_SIZE / sizeof(struct vtd_entry))

/* 6.5.2.1 to 6.5.2.8: bits 3:0 of a descriptor */
enum { INV_CONTEXT = 1, INV_IOTLB = 2, INV_INTERRUPT = 4, INV_WAIT = 5 };
/* Granularity of context and IOTLB invalidations, bits 5:4 */
enum { GLOBAL = 1, DOMAIN = 2, PAGES = 3 };

#define INV_GRANULARITY(g) ((u64)(g) << 4)
#define INV_DRAIN(d) ((d) << 6)
#define INV_INTERRUPT_ONE BIT(4)
#define INV_WAIT_STATUS_WRITE BIT(5)
#define INV_WAIT_FENCE BIT(6)

volatile struct vtd_entry *inv_firmware_queue(const struct vtd_unit *u)
{
	u64 iqa = unit_read64(u, VTD_IQA);
	hpa_t base = VTD_IQA_BASE(iqa);

	if (!(unit_read32(u, VTD_GSTS) & VTD_GCMD_QIE))
		return NULL;
	if (phys_keep(base, VTD_IQA_SIZE(iqa)))
		return mmio_map(base, VTD_IQA_SIZE(iqa));
	log_warn("VT-d: unit at 0x%lx: the queue that was left on, at 0x%lx, "
		 "is overwritten",
		 u->base, base);
	return NULL;
}

/* 6.5.2.8: the unit writes its number to u->done. */
static struct vtd_entry wait_descriptor(struct vtd_unit *u)
{
	return (struct vtd_entry){INV_WAIT | INV_WAIT_STATUS_WRITE |
					  INV_WAIT_FENCE |
					  (u64)++u->sequence << 32,
				  virt_to_phys((const void *)&u->done)};
}

static int await(struct vtd_unit *u)
{
	u64 start = rdtsc();

	while (u->done != u->sequence) {
		/* 6.5.2.10: an error stops the queue until it is cleared. */
		if (unit_read32(u, VTD_FSTS) & VTD_FSTS_QUEUE)
			return -EIO;
		if (rdtsc() - start > VTD_TIMEOUT)
			return -ETIMEDOUT;
		cpu_relax();
	}
	return 0;
}

/*
 * 6.5.2: a queue may be switched off when it is empty and its last descriptor
 * was a wait. One is put where the unit reads next, which is the bad one's
 * place where the queue has stopped with an error. Where that fails nothing
 * is lost: the unit may take the command all the same.
 */
static void end_queue(struct vtd_unit *u)
{
	u64 iqa = unit_read64(u, VTD_IQA);
	u32 step = iqa & VTD_IQA_DW ? 32 : 16, head, next;
	volatile struct vtd_entry *slot;

	if (!(unit_read32(u, VTD_FSTS) & VTD_FSTS_QUEUE) &&
	    unit_wait(u, VTD_IQH, ~0u, (u32)unit_read64(u, VTD_IQT)))
		return;
	head = unit_read32(u, VTD_IQH);
	if (!u->in_force || head % step || head >= VTD_IQA_SIZE(iqa))
		return;
	slot = u->in_force + head / sizeof(*slot);
	next = (head + step) % VTD_IQA_SIZE(iqa);
	*slot = wait_descriptor(u);
	if (iqa & VTD_IQA_DW)
		slot[1] = (struct vtd_entry){0, 0};
	sfence();
	/* The tail first, and again for a unit that goes on at nothing else */
	unit_write64(u, VTD_IQT, next);
	unit_write32(u, VTD_FSTS, VTD_FSTS_QUEUE);
	unit_write64(u, VTD_IQT, next);
	await(u);
}

int inv_start_queue(struct vtd_unit *u)
{
	int err = 0;

	if (unit_read32(u, VTD_GSTS) & VTD_GCMD_QIE) {
		end_queue(u);
		err = unit_command(u, VTD_GCMD_QIE, false);
	}
	unit_write32(u, VTD_FSTS, VTD_FSTS_QUEUE);
	u->tail = 0;
	unit_write64(u, VTD_IQT, 0);
	/* QS 0: one page; DW 0: 128-bit descriptors */
	unit_write64(u, VTD_IQA, virt_to_phys(u->queue));
	u->in_force = u->queue;
	return err ? err : unit_command(u, VTD_GCMD_QIE, true);
}

static int submit_once(struct vtd_unit *u, u64 lo, u64 hi)
{
	/* By twos: the number of slots is even. */
	u->queue[u->tail] = (struct vtd_entry){lo, hi};
	u->queue[u->tail + 1] = wait_descriptor(u);
	u->tail = (u->tail + 2) % SLOTS;
	/* The unit may fetch as soon as the tail moves: stores first. */
	sfence();
	unit_write64(u, VTD_IQT, u->tail * sizeof(struct vtd_entry));
	return await(u);
}

static int submit(struct vtd_unit *u, u64 lo, u64 hi)
{
	int err = submit_once(u, lo, hi);

	u->invalidations++;
	if (!err)
		return 0;
	log_error("VT-d: unit at 0x%lx: invalidation 0x%lx 0x%lx: %s (status "
		  "0x%x, queue head 0x%x)",
		  u->base, lo, hi, err == -EIO ? "queue error" : "no answer",
		  unit_read32(u, VTD_FSTS), unit_read32(u, VTD_IQH));
	err = inv_start_queue(u);
	return err ? err : submit_once(u, lo, hi);
}

int inv_write_buffer(struct vtd_unit *u)
{
	return u->write_buffer ? unit_command(u, VTD_GCMD_WBF, true) : 0;
}

/* 11.4.6: done names the bits that say what was done; 0: nothing. */
static int by_register(struct vtd_unit *u, unsigned reg, u64 command, u64 done)
{
	enum vtd_reg32 high = (enum vtd_reg32)(reg + 4);
	int err;

	u->invalidations++;
	unit_write64(u, (enum vtd_reg64)reg, VTD_START | command);
	err = unit_wait(u, high, VTD_START >> 32, 0);
	if (!err && !(unit_read32(u, high) & done >> 32))
		err = -EIO;
	return err;
}

/* address: bits 63:12 of the first page, in 5:0 the mask (11.4.6.3) */
static int iotlb(struct vtd_unit *u, u64 granularity, u64 domain, u64 address)
{
	unsigned iva = VTD_ECAP_IRO(u->ecap);
	u64 drain = VTD_CAP_DRAIN(u->cap);

	if (u->queue)
		return submit(u,
			      INV_IOTLB | INV_GRANULARITY(granularity) |
				      INV_DRAIN(drain) | domain << 16,
			      address);
	if (granularity == PAGES)
		unit_write64(u, (enum vtd_reg64)iva, address);
	return by_register(u, iva + 8,
			   granularity << VTD_IOTLB_IIRG_SHIFT |
				   drain << VTD_IOTLB_DRAIN_SHIFT |
				   domain << VTD_IOTLB_DID_SHIFT,
			   VTD_IOTLB_IAIG);
}

/* In this order: a context read late would bring the old ones back (6.5.3) */
int inv_all(struct vtd_unit *u)
{
	int err = inv_write_buffer(u);

	if (!err && u->queue)
		err = submit(u, INV_CONTEXT | INV_GRANULARITY(GLOBAL), 0);
	else if (!err)
		err = by_register(u, VTD_CCMD, VTD_CCMD_GLOBAL, VTD_CCMD_CAIG);
	return err ? err : iotlb(u, GLOBAL, 0, 0);
}

int inv_range(struct vtd_unit *u, u16 domain, gpa_t gpa, u64 size, bool removed)
{
	u64 first = gpa >> PAGE_SHIFT, last = (gpa + size - 1) >> PAGE_SHIFT;
	unsigned order = 0;
	int err = inv_write_buffer(u);

	if (err || (!removed && !(u->cap & VTD_CAP_CM)))
		return err;
	/* The smallest naturally aligned block that holds the range */
	while (first >> order != last >> order)
		order++;
	if (!(u->cap & VTD_CAP_PSI) || order > VTD_CAP_MAMV(u->cap))
		return iotlb(u, DOMAIN, domain, 0);
	return iotlb(u, PAGES, domain,
		     first >> order << order << PAGE_SHIFT | order);
}

int inv_interrupt(struct vtd_unit *u, int index)
{
	u64 lo = INV_INTERRUPT;
	int err = inv_write_buffer(u);

	if (index >= 0)
		lo |= INV_INTERRUPT_ONE | (u64)index << 32;
	return err ? err : submit(u, lo, 0);
}
