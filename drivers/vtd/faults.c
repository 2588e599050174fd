/* SPDX-License-Identifier: MIT */
#include "drivers/vtd/vtd.h"
#include "kernel/log.h"

#define RECORD_SIZE 16
#define FAULTS_LOGGED 8
#define REASON_INTERRUPT 0x20

/* 7.1.3: DMA remapping; 7.1.4, from 0x20: interrupt remapping */
static const char *const reasons[] = {
	[0x01] = "root entry not present",
	[0x02] = "context entry not present",
	[0x03] = "bad context entry",
	[0x04] = "address beyond the unit's width",
	[0x05] = "no right to write",
	[0x06] = "no right to read",
	[0x07] = "page table unreadable",
	[0x08] = "root table unreadable",
	[0x09] = "context table unreadable",
	[0x0a] = "reserved bit in root entry",
	[0x0b] = "reserved bit in context entry",
	[0x0c] = "reserved bit in page-table entry",
	[0x0d] = "translated request",
	[0x20] = "reserved bit in request",
	[0x21] = "index beyond the table",
	[0x22] = "entry not present",
	[0x23] = "table unreadable",
	[0x24] = "reserved bit in entry",
	[0x25] = "compatibility format",
	[0x26] = "wrong source",
};

/* F alone is written: the record is free again (11.4.14). */
static void free_record(struct vtd_unit *u, unsigned at)
{
	unit_write32(u, (enum vtd_reg32)(at + 12), VTD_FRCD_F >> 32);
}

void vtd_faults_start(struct vtd *v, struct vtd_unit *u)
{
	u32 id = v->config.apic_id;
	struct vtd_msi msi = vtd_msi_plain(v->config.fault_vector, id);

	/* A previous owner's: while one is left no event comes (7.3). */
	for (unsigned i = 0; i < VTD_CAP_NFR(u->cap); i++)
		free_record(u, VTD_CAP_FRO(u->cap) + i * RECORD_SIZE);
	unit_write32(u, VTD_FSTS, VTD_FSTS_PFO);
	if (!v->config.fault_vector)
		return;
	/* 7.3: these are not remapped; x2APIC ID 31:8 in the upper address */
	unit_write32(u, VTD_FEDATA, msi.data);
	unit_write32(u, VTD_FEADDR, (u32)msi.address);
	unit_write32(u, VTD_FEUADDR, v->config.x2apic ? id & ~0xffu : 0);
	unit_write32(u, VTD_FECTL, 0);
}

/*
 * 11.4.14. Only the fields of a request without PASID are read: the bits
 * between them are reserved, and QEMU leaves something there.
 */
static bool decode(u64 lo, u64 hi, struct vtd_fault *f)
{
	f->source = (bdf_t)hi;
	f->reason = (u8)VTD_FRCD_REASON(hi);
	f->read = hi & VTD_FRCD_T1;
	f->interrupt = (f->reason & 0xf0) == REASON_INTERRUPT;
	f->address = f->interrupt ? lo >> 48 : lo & ~PAGE_MASK;
	return hi & VTD_FRCD_F;
}

/* The count of its requester; stops: how often that was over the limit, where
 * it is just now. */
static u64 count(struct vtd *v, const struct vtd_fault *f, u64 *stops)
{
	u64 limit = v->config.dma_faults, now = rdtsc();
	unsigned i = 0;

	v->faults++;
	v->last_fault = *f;
	while (i < v->source_count && v->sources[i].source != f->source &&
	       i < VTD_FAULT_SOURCES - 1)
		i++;
	if (i == v->source_count) {
		v->source_count++;
		v->sources[i].source = f->source;
	}
	if (v->config.fault_ticks &&
	    now - v->sources[i].since >= v->config.fault_ticks) {
		v->sources[i].since = now;
		v->sources[i].recent = 0;
	}
	v->sources[i].recent++;
	/* At each multiple: the owner may switch it on again. */
	*stops = limit && v->sources[i].recent % limit == 0
			 ? ++v->sources[i].stops
			 : 0;
	return ++v->sources[i].count;
}

u64 vtd_fault_count(const struct vtd *v, bdf_t bdf)
{
	bdf_t ids[PCI_REQUESTERS_MAX];
	unsigned last = pci_requesters(v->pci, bdf, ids) - 1;
	u64 sum = 0;

	for (unsigned i = 0; i < v->source_count; i++)
		if (v->sources[i].source == ids[0] ||
		    v->sources[i].source == ids[last])
			sum += v->sources[i].count;
	return sum;
}

/* The first few, then each time that their number has doubled */
static bool is_due(u64 n)
{
	return n <= FAULTS_LOGGED || !(n & (n - 1));
}

static void log_fault(const struct vtd *v, const struct vtd_fault *f, u64 n)
{
	const struct pci_function *p = pci_find(v->pci, f->source);
	const char *reason = NULL;

	if (f->reason < ARRAY_SIZE(reasons))
		reason = reasons[f->reason];
	log_warn("VT-d: fault %lu of %02x:%02x.%x class %04x: %s 0x%lx: %s "
		 "(reason 0x%02x)",
		 n, BDF_ARGS(f->source), p ? p->class : 0xffff,
		 f->interrupt ? "interrupt"
		 : f->read    ? "read"
			      : "write",
		 f->address, reason ? reason : "unknown", f->reason);
}

void vtd_stop_mastering(const struct vtd *v, const struct pci_function *f)
{
	u32 command = pci_config_read(v->pci, f->bdf, PCI_COMMAND, 2);

	if (command & PCI_COMMAND_MASTER)
		pci_config_write(v->pci, f->bdf, PCI_COMMAND, 2,
				 command & ~(u32)PCI_COMMAND_MASTER);
}

/* The requester ID may be a bridge's: then all that send by it stop. */
static void stop(struct vtd *v, bdf_t id, u64 times)
{
	for (unsigned i = 0; i < v->pci->count; i++) {
		const struct pci_function *f = &v->pci->functions[i];
		bdf_t ids[PCI_REQUESTERS_MAX];
		unsigned last = pci_requesters(v->pci, f->bdf, ids) - 1;

		if (f->bdf != id && ids[last] != id)
			continue;
		vtd_stop_mastering(v, f);
		if (is_due(times))
			log_error("VT-d: %02x:%02x.%x: bus mastering off after "
				  "%lu faults (dma-faults=N)",
				  BDF_ARGS(f->bdf), v->config.dma_faults);
		if (v->config.stopped)
			v->config.stopped(v->config.ctx, f->bdf);
	}
}

/*
 * Graphics read where nothing is mapped, with a good picture; ending them is
 * worse than not being told. An interrupt's fault no context entry silences.
 */
static bool is_spared(const struct vtd *v, const struct vtd_fault *f)
{
	const struct pci_function *p = pci_find(v->pci, f->source);

	return p && p->class >> 8 == 3 && !f->interrupt;
}

static void handle(struct vtd *v, struct vtd_unit *u, const struct vtd_fault *f)
{
	u64 stops, n = count(v, f, &stops);
	bool spared = stops && is_spared(v, f);

	if (is_due(n))
		log_fault(v, f, n);
	if (stops && !spared)
		stop(v, f->source, stops);
	if (spared)
		log_warn("VT-d: %02x:%02x.%x is a display: after %lu faults it "
			 "goes on, and no more are recorded",
			 BDF_ARGS(f->source), n);
	if ((spared || n % VTD_FAULTS_SILENCED == 0) &&
	    unit_silence(u, f->source))
		log_error("VT-d: faults cannot be silenced");
}

/* One record; false: it is empty */
static bool take(struct vtd *v, struct vtd_unit *u, unsigned slot)
{
	unsigned at = VTD_CAP_FRO(u->cap) + slot * RECORD_SIZE;
	u64 lo = unit_read64(u, (enum vtd_reg64)at);
	u64 hi = unit_read64(u, (enum vtd_reg64)(at + 8));
	struct vtd_fault f;

	if (!decode(lo, hi, &f))
		return false;
	free_record(u, at);
	handle(v, u, &f);
	return true;
}

unsigned vtd_handle_faults(struct vtd *v)
{
	unsigned taken = 0;

	for (unsigned i = 0; i < v->unit_count; i++) {
		struct vtd_unit *u = &v->units[i];
		u32 status = unit_read32(u, VTD_FSTS);
		unsigned records = VTD_CAP_NFR(u->cap), k = 0;

		/*
		 * 7.3: no event comes while a record waits or an overflow is
		 * noted, so those count, too, that came meanwhile.
		 */
		for (; status & VTD_FSTS_PPF && k < VTD_FAULTS_SILENCED; k++)
			if (!take(v, u, (VTD_FSTS_FRI(status) + k) % records))
				break;
		taken += k;
		if (unit_read32(u, VTD_FSTS) & VTD_FSTS_PFO) {
			v->faults_lost++;
			unit_write32(u, VTD_FSTS, VTD_FSTS_PFO);
		}
	}
	return taken;
}
