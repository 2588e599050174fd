/* SPDX-License-Identifier: MIT */
#include "arch/x86/types.h"
#include "drivers/pci/pci.h"
#include "kernel/log.h"
#include "kernel/string.h"

#define BUSES 256
#define HEADER_MULTI_FUNCTION 0x80
#define HEADER_SIZE 0x40
#define CACHE_LINE 0x0c /* and latency, header type, BIST */
#define HEADER_NORMAL 0
#define HEADER_CARDBUS 2
#define STATUS_CAPABILITIES 0x10
#define CARDBUS_CAPABILITIES 0x14
#define CLASS_HOST_BRIDGE 0x0600
#define CAPABILITIES_MAX 48 /* of 4 bytes, what 0x40-0xff holds */

/*
 * Buses by number: those seen, of these the ones still to scan, and those
 * that a bridge passes on.
 */
struct scan {
	struct pci_host *pci;
	unsigned lost, buses, roots;
	u64 seen[BUSES / 64], pending[BUSES / 64], below[BUSES / 64];
};

static void scan_later(struct scan *s, unsigned bus)
{
	u64 bit = BIT(bus % 64);

	if (s->seen[bus / 64] & bit)
		return;
	s->seen[bus / 64] |= bit;
	s->pending[bus / 64] |= bit;
}

/* The lowest bus still to scan, or BUSES. */
static unsigned scan_next(struct scan *s)
{
	for (unsigned bus = 0; bus < BUSES; bus++) {
		if (!(s->pending[bus / 64] & BIT(bus % 64)))
			continue;
		s->pending[bus / 64] &= ~BIT(bus % 64);
		return bus;
	}
	return BUSES;
}

/* The index of the first function at or above bdf. */
static unsigned position(const struct pci_host *pci, bdf_t bdf)
{
	unsigned low = 0, high = pci->count;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (pci->functions[middle].bdf < bdf)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct pci_function *pci_find(struct pci_host *pci, bdf_t bdf)
{
	unsigned at = position(pci, bdf);

	if (at == pci->count || pci->functions[at].bdf != bdf)
		return NULL;
	return &pci->functions[at];
}

/* Sorted in: a bridge may lead to a bus below its own. */
static void insert(struct scan *s, const struct pci_function *f)
{
	struct pci_host *pci = s->pci;
	unsigned at = position(pci, f->bdf);

	if (pci->count == PCI_FUNCTIONS_MAX) {
		s->lost++;
		return;
	}
	memmove(&pci->functions[at + 1], &pci->functions[at],
		(pci->count - at) * sizeof(*f));
	pci->functions[at] = *f;
	pci->count++;
}

/* Nobody answers with all ones; some bridges answer an abort with zeros. */
static bool present(u32 id)
{
	u16 vendor = (u16)id;

	return vendor != 0xffff && vendor != 0;
}

/* What a bridge says that stands on a bus of a lower number, as it has to. */
static void note_below(struct scan *s, const struct pci_function *f)
{
	unsigned last = pci_config_read(s->pci, f->bdf, PCI_SUBORDINATE_BUS, 1);

	for (unsigned bus = f->secondary_bus;
	     bus > BDF_BUS(f->bdf) && bus <= last; bus++)
		s->below[bus / 64] |= BIT(bus % 64);
}

/* Returns the header type with the multi-function bit; 0: no function. */
static u8 scan_function(struct scan *s, bdf_t bdf)
{
	const struct pci_host *pci = s->pci;
	u32 id = pci_config_read(pci, bdf, PCI_VENDOR, 4);
	struct pci_function f = {.bdf = bdf};
	u8 type;

	if (!present(id))
		return 0;
	type = (u8)pci_config_read(pci, bdf, PCI_HEADER_TYPE, 1);
	f.vendor = (u16)id;
	f.device = (u16)(id >> 16);
	f.class = (u16)pci_config_read(pci, bdf, PCI_CLASS, 2);
	f.revision = (u8)pci_config_read(pci, bdf, PCI_REVISION, 1);
	f.header_type = type & (u8)~HEADER_MULTI_FUNCTION;
	if (f.header_type == PCI_HEADER_BRIDGE ||
	    f.header_type == HEADER_CARDBUS) {
		f.secondary_bus =
			(u8)pci_config_read(pci, bdf, PCI_SECONDARY_BUS, 1);
		scan_later(s, f.secondary_bus);
		note_below(s, &f);
	}
	insert(s, &f);
	return type;
}

/* PCI 3.0, 3.2.2.3.4: functions 1-7 only where function 0 says so. */
static void scan_bus(struct scan *s, unsigned bus)
{
	for (unsigned dev = 0; dev < 32; dev++) {
		if (!(scan_function(s, BDF(bus, dev, 0)) &
		      HEADER_MULTI_FUNCTION))
			continue;
		for (unsigned fn = 1; fn < 8; fn++)
			scan_function(s, BDF(bus, dev, fn));
	}
	s->buses++;
}

/* PCI 3.0, 6.1: all of the header but COMMAND, STATUS, and BIST's dword. */
static bool is_same(const struct pci_host *pci, bdf_t a, bdf_t b)
{
	for (unsigned at = 0; at < HEADER_SIZE; at += 4)
		if (at != PCI_COMMAND && at != CACHE_LINE &&
		    pci_config_read(pci, a, at, 4) !=
			    pci_config_read(pci, b, at, 4))
			return false;
	return true;
}

/*
 * Where a chipset decodes fewer bits of the bus number than there are, a bus
 * shows another one's functions, BARs and all.
 */
static bool is_alias(const struct pci_host *pci, unsigned bus)
{
	unsigned last = BUSES;
	bool same = false;

	for (unsigned i = 0; i < pci->count; i++) {
		bdf_t bdf = pci->functions[i].bdf;

		if (BDF_BUS(bdf) != last && same)
			return true;
		same = (same || BDF_BUS(bdf) != last) &&
		       is_same(pci, bdf, BDF(bus, bdf >> 3 & 31, bdf & 7));
		last = BDF_BUS(bdf);
	}
	return same;
}

/*
 * As Linux looks for peer bridges where no table names them. MCFG may state
 * more buses than ECAM has; mechanism #1 tells memory from functions.
 */
static bool is_root(const struct scan *s, unsigned bus)
{
	for (unsigned dev = 0; dev < 32; dev++) {
		bdf_t bdf = BDF(bus, dev, 0);
		u32 id = pci_config_read(s->pci, bdf, PCI_VENDOR, 4);

		if (present(id))
			return id == pci_port_read(bdf, PCI_VENDOR, 4) &&
			       !is_alias(s->pci, bus);
	}
	return false;
}

void pci_scan(struct pci_host *pci)
{
	struct scan s = {.pci = pci};
	unsigned last = pci->ecam ? pci->ecam_last_bus : BUSES - 1, next;

	pci->count = 0;
	for (unsigned bus = 0; bus <= last; bus++) {
		u64 known = s.seen[bus / 64] | s.below[bus / 64];

		if (known & BIT(bus % 64) || (bus && !is_root(&s, bus)))
			continue;
		s.roots++;
		scan_later(&s, bus);
		while ((next = scan_next(&s)) < BUSES)
			scan_bus(&s, next);
	}
	log_info("pci: %u functions on %u buses, %u of them roots",
		 pci->count + s.lost, s.buses, s.roots);
	if (s.lost)
		log_warn("pci: %u functions are too many, left out", s.lost);
}

/*
 * Intel's of servers, where BARs stand other registers (Linux,
 * pci_invalid_bar(); Xeon E5 v4's erratum BDF2): home agents, power control,
 * the C620's MROM.
 */
static bool lacks_bars(const struct pci_function *f)
{
	static const u16 devices[] = {0x2fc0, 0x6f60, 0x6fa0, 0x6fc0,
				      0xa1ec, 0xa1ed, 0xa26c, 0xa26d};

	for (unsigned i = 0; i < ARRAY_SIZE(devices); i++)
		if (f->vendor == PCI_INTEL && f->device == devices[i])
			return true;
	return false;
}

static unsigned bar_count(const struct pci_function *f)
{
	return lacks_bars(f)			     ? 0
	       : f->header_type == HEADER_NORMAL     ? 6
	       : f->header_type == PCI_HEADER_BRIDGE ? 2
						     : 0;
}

/* Writes all ones, reads what stuck, restores (PCI 3.0, 6.2.5.1). */
static u32 probe(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		 u32 *original)
{
	u32 mask;

	*original = pci_config_read(pci, bdf, offset, 4);
	pci_config_write(pci, bdf, offset, 4, ~0u);
	mask = pci_config_read(pci, bdf, offset, 4);
	pci_config_write(pci, bdf, offset, 4, *original);
	return mask;
}

/* Fills in BAR n; returns how many registers it takes. */
static unsigned size_bar(const struct pci_host *pci, struct pci_function *f,
			 unsigned n, unsigned count)
{
	unsigned offset = PCI_BAR0 + 4 * n;
	struct pci_bar *bar = &f->bars[n];
	u32 low, high;
	u64 mask = probe(pci, f->bdf, offset, &low);

	bar->io = low & 1;
	bar->is64 = (low & 7) == 4 && n + 1 < count;
	bar->prefetchable = (low & 9) == 8;
	bar->base = low & (bar->io ? ~3u : ~15u);
	mask &= bar->io ? ~3u : ~15u;
	if (bar->is64) {
		mask |= (u64)probe(pci, f->bdf, offset + 4, &high) << 32;
		bar->base |= (u64)high << 32;
	}
	/* The lowest address bit that can be set is the size. */
	bar->size = mask & (~mask + 1);
	return bar->is64 ? 2 : 1;
}

void pci_size_bars(const struct pci_host *pci, struct pci_function *f)
{
	unsigned count = bar_count(f);
	u16 command;

	memset(f->bars, 0, sizeof(f->bars));
	if (!present(pci_config_read(pci, f->bdf, PCI_VENDOR, 4)))
		return;
	command = (u16)pci_config_read(pci, f->bdf, PCI_COMMAND, 2);
	/* A host bridge's decode may be the CPU's way to memory. */
	if (f->class != CLASS_HOST_BRIDGE)
		pci_config_write(
			pci, f->bdf, PCI_COMMAND, 2,
			command & (u32) ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
	for (unsigned n = 0; n < count;)
		n += size_bar(pci, f, n, count);
	if (f->class != CLASS_HOST_BRIDGE)
		pci_config_write(pci, f->bdf, PCI_COMMAND, 2, command);
}

unsigned pci_find_capability(const struct pci_host *pci, bdf_t bdf, u8 id)
{
	u8 type = pci_config_read(pci, bdf, PCI_HEADER_TYPE, 1) & 0x7f;
	unsigned at;

	if (!present(pci_config_read(pci, bdf, PCI_VENDOR, 4)) ||
	    !(pci_config_read(pci, bdf, PCI_STATUS, 2) & STATUS_CAPABILITIES))
		return 0;
	at = pci_config_read(pci, bdf,
			     type == HEADER_CARDBUS ? CARDBUS_CAPABILITIES
						    : PCI_CAPABILITIES,
			     1);
	for (unsigned i = 0; i < CAPABILITIES_MAX; i++) {
		at &= ~3u;
		if (at < 0x40)
			return 0;
		if (pci_config_read(pci, bdf, at, 1) == id)
			return at;
		at = pci_config_read(pci, bdf, at + 1, 1);
	}
	return 0;
}
