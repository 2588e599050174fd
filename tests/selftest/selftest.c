/* SPDX-License-Identifier: MIT */
#include "tests/selftest/selftest.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/string.h"
#include "kernel/traps.h"

#define EDU_VENDOR 0x1234
#define EDU_DEVICE 0x11e8
#define EDU_SIZE MIB
#define EDU_BUFFER 0x40000 /* DMA address of its own 4096 bytes */
#define EDU_MOST 4095	   /* bytes a transfer */

enum edu_register {
	EDU_RAISE = 0x60,
	EDU_ACKNOWLEDGE = 0x64,
	EDU_SOURCE = 0x80,
	EDU_DESTINATION = 0x88,
	EDU_COUNT = 0x90,
	EDU_COMMAND = 0x98,
};

enum edu_command { EDU_START = 1, EDU_TO_RAM = 2, EDU_INTERRUPT = 4 };

/* The guest-physical layout, above all host memory of the rigs */
#define GPA_PAGES (15 * GIB) /* four pages, in another order in memory */
#define GPA_LARGE (16 * GIB) /* two of 2 MiB, exchanged, then a page */
#define GPA_READ (17 * GIB)
#define GPA_WRITE (GPA_READ + PAGE_SIZE)
#define GPA_NOTHING (18 * GIB)
#define GPA_HUGE (20 * GIB) /* 1 GiB, in a domain of its own */
#define LARGE (2 * MIB)
#define BUFFER_SIZE (4 * LARGE)

struct selftest {
	struct vtd *v;
	struct pci_host *pci;
	struct pci_function *edu;
	volatile u8 *bar;
	hpa_t memory; /* BUFFER_SIZE, aligned to LARGE */
	struct vtd_domain *domain;
	struct region_list list;
	u32 seed;
	unsigned vector; /* of handler */
	unsigned arrived;
	int cases, failures;
};

static void report(struct selftest *t, const char *name, const char *wrong)
{
	t->cases++;
	if (!wrong) {
		log_info("selftest vtd: %s: ok", name);
		return;
	}
	t->failures++;
	log_error("selftest vtd: %s: FAILED: %s", name, wrong);
}

/* SplitMix's mixing: each seed gives another sequence of bytes. */
static u8 pattern(u32 seed, u64 i)
{
	u64 x = (u64)seed * 0x9e3779b97f4a7c15ull + i / 8;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return (u8)(x >> i % 8 * 8);
}

static void fill(hpa_t at, u64 size, u32 seed)
{
	u8 *p = phys_to_virt(at);

	for (u64 i = 0; i < size; i++)
		p[i] = pattern(seed, i);
}

static bool filled(hpa_t at, u64 size, u32 seed, u64 from)
{
	const u8 *p = phys_to_virt(at);

	for (u64 i = 0; i < size; i++)
		if (p[i] != pattern(seed, from + i))
			return false;
	return true;
}

static void set_mastering(struct selftest *t, bool on)
{
	u32 command = pci_config_read(t->pci, t->edu->bdf, PCI_COMMAND, 2);

	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	if (!on)
		command &= ~(u32)PCI_COMMAND_MASTER;
	pci_config_write(t->pci, t->edu->bdf, PCI_COMMAND, 2, command);
}

/* Returns when the device says that it has finished: it takes 100 ms. */
static bool dma(struct selftest *t, u64 from, u64 to, u64 count, u32 command)
{
	u64 start = rdtsc();

	mmio_write64(t->bar + EDU_SOURCE, from);
	mmio_write64(t->bar + EDU_DESTINATION, to);
	mmio_write64(t->bar + EDU_COUNT, count);
	mmio_write64(t->bar + EDU_COMMAND, command | EDU_START);
	while (mmio_read64(t->bar + EDU_COMMAND) & EDU_START) {
		if (rdtsc() - start > 10 * VTD_TIMEOUT) {
			log_error("selftest vtd: the edu device hangs");
			return false;
		}
		cpu_relax();
	}
	return true;
}

static bool read_ram(struct selftest *t, gpa_t from, u64 count)
{
	return dma(t, from, EDU_BUFFER, count, 0);
}

static bool write_ram(struct selftest *t, gpa_t to, u64 count)
{
	return dma(t, EDU_BUFFER, to, count, EDU_TO_RAM);
}

static void forget_faults(struct selftest *t)
{
	while (vtd_handle_faults(t->v))
		;
	t->v->faults = 0;
}

/* A fault of edu: its page, its direction, one of two reasons (7.1.3). */
static const char *check_fault(struct selftest *t, gpa_t page, bool read,
			       u8 reason, u8 or_reason)
{
	const struct vtd_fault *f = &t->v->last_fault;

	while (vtd_handle_faults(t->v))
		;
	if (!t->v->faults)
		return "no fault was recorded";
	if (f->source != t->edu->bdf)
		return "the fault names another requester";
	if (f->address != page)
		return "the fault names another address";
	if (f->read != read)
		return "the fault has the wrong direction";
	if (f->reason != reason && f->reason != or_reason)
		return "the fault has another reason";
	return NULL;
}

/*
 * A known pattern goes from RAM at `from` (host address from_hpa) into edu
 * and on to `to`, where `count` bytes must be and not one beside them. The
 * pieces of both lie as layout says: at most two, broken at `split` bytes.
 */
struct place {
	gpa_t gpa;
	hpa_t first, second;
	u64 split; /* bytes in first */
};

static void fill_place(const struct place *p, u64 count, u32 seed)
{
	for (u64 i = 0; i < count; i++) {
		u8 *byte = phys_to_virt(
			i < p->split ? p->first + i : p->second + i - p->split);

		*byte = pattern(seed, i);
	}
}

static bool in_place(const struct place *p, u64 count, u32 seed)
{
	u64 first = MIN(count, p->split);

	return filled(p->first, first, seed, 0) &&
	       filled(p->second, count - first, seed, first);
}

static const char *move(struct selftest *t, const struct place *from,
			const struct place *to, u64 count)
{
	const u64 edge = 64;
	u32 old = t->seed + 1, new = t->seed + 2;
	u64 first = MIN(count, to->split);
	hpa_t end = count > to->split ? to->second + count - to->split
				      : to->first + count;

	t->seed += 2;
	/* From edge bytes before the target to edge bytes behind it */
	fill(to->first - edge, first + edge, old);
	if (count > to->split)
		fill(to->second, count - first, old);
	fill(end, edge, old);
	fill_place(from, count, new);
	forget_faults(t);
	if (!read_ram(t, from->gpa, count) || !write_ram(t, to->gpa, count))
		return "the device hangs";
	if (vtd_handle_faults(t->v))
		return "a permitted transfer made a fault";
	if (!in_place(to, count, new))
		return "the bytes are not where they should be";
	if (!filled(to->first - edge, edge, old, 0) ||
	    !filled(end, edge, old, 0))
		return "bytes beside the target changed";
	return NULL;
}

/* Page n of the four: in memory in another order */
static hpa_t page(const struct selftest *t, unsigned n)
{
	static const u8 order[] = {9, 4, 12, 2};

	return t->memory + 2 * LARGE + order[n] * PAGE_SIZE;
}

/* Inside one page, and inside one large page */
static struct place inside(gpa_t gpa, hpa_t hpa)
{
	return (struct place){gpa, hpa, hpa, LARGE};
}

static void add(struct selftest *t, gpa_t gpa, hpa_t hpa, u64 size, u8 dma_)
{
	const struct region r = {.gpa = gpa,
				 .hpa = hpa,
				 .size = size,
				 .dma = dma_,
				 .name = "dma"};

	if (region_add(&t->list, &r, NULL))
		report(t, "region list", "refused");
}

static int make_domain(struct selftest *t)
{
	memset(&t->list, 0, sizeof(t->list));
	for (unsigned n = 0; n < 4; n++)
		add(t, GPA_PAGES + n * PAGE_SIZE, page(t, n), PAGE_SIZE,
		    REGION_RW);
	add(t, GPA_LARGE, t->memory + LARGE, LARGE, REGION_RW);
	add(t, GPA_LARGE + LARGE, t->memory, LARGE, REGION_RW);
	add(t, GPA_LARGE + 2 * LARGE, t->memory + 3 * LARGE, PAGE_SIZE,
	    REGION_RW);
	add(t, GPA_READ, t->memory + 3 * LARGE + 2 * PAGE_SIZE, PAGE_SIZE,
	    REGION_R);
	add(t, GPA_WRITE, t->memory + 3 * LARGE + 4 * PAGE_SIZE, PAGE_SIZE,
	    REGION_W);
	/* For the independent walker of tests/walker */
	region_log(&t->list);
	return vtd_domain_create(t->v, &t->list, &t->domain);
}

static void test_transfers(struct selftest *t)
{
	const struct place small =
		inside(GPA_PAGES + 0x100, page(t, 0) + 0x100);
	const struct place across = {GPA_PAGES + 2 * PAGE_SIZE - 0x234,
				     page(t, 1) + PAGE_SIZE - 0x234, page(t, 2),
				     0x234};
	const struct place large =
		inside(GPA_LARGE + 0x12345, t->memory + LARGE + 0x12345);
	const struct place larges = {GPA_LARGE + LARGE - 0x7ff,
				     t->memory + 2 * LARGE - 0x7ff, t->memory,
				     0x7ff};
	const struct place mixed = {GPA_LARGE + 2 * LARGE - 1,
				    t->memory + LARGE - 1,
				    t->memory + 3 * LARGE, 1};
	const struct place last =
		inside(GPA_PAGES + 3 * PAGE_SIZE + 0x80, page(t, 3) + 0x80);
	static const u16 most = EDU_MOST;

	report(t, "page to page", move(t, &small, &last, 0xe00));
	report(t, "across pages", move(t, &small, &across, 0x1000 - 0x234));
	report(t, "from across pages", move(t, &across, &last, 0xe00));
	report(t, "page to 2 MiB page", move(t, &small, &large, 0xe00));
	report(t, "2 MiB page to page", move(t, &large, &last, 0xe00));
	report(t, "across 2 MiB pages", move(t, &large, &larges, most));
	report(t, "from across 2 MiB pages", move(t, &larges, &last, 0xe00));
	report(t, "2 MiB page into page", move(t, &large, &mixed, 0x900));
}

/* A write that must change nothing at hpa, and a read: each is a fault. */
static void test_refused(struct selftest *t, const char *name, gpa_t gpa,
			 hpa_t hpa, bool read, u8 reason, u8 or_reason)
{
	u32 old = ++t->seed;
	u8 saved[256];
	const char *wrong = NULL;

	memcpy(saved, phys_to_virt(hpa), sizeof(saved));
	fill(page(t, 0), sizeof(saved), old);
	if (!read_ram(t, GPA_PAGES, sizeof(saved)))
		wrong = "the device hangs";
	forget_faults(t);
	if (!(read ? read_ram(t, gpa, sizeof(saved))
		   : write_ram(t, gpa, sizeof(saved))))
		wrong = "the device hangs";
	if (memcmp(saved, phys_to_virt(hpa), sizeof(saved)))
		wrong = "memory changed";
	if (!wrong)
		wrong = check_fault(t, gpa & ~PAGE_MASK, read, reason,
				    or_reason);
	report(t, name, wrong);
}

static void test_refusals(struct selftest *t)
{
	hpa_t own = virt_to_phys(t->v->units[0].root);
	hpa_t here = t->memory + 3 * LARGE + 2 * PAGE_SIZE;
	gpa_t beyond = BIT(t->v->units[0].width);

	test_refused(t, "write to nothing", GPA_NOTHING + 0x500, here, false, 5,
		     5);
	test_refused(t, "read from nothing", GPA_NOTHING + 0x500, here, true, 6,
		     6);
	test_refused(t, "write to a read-only page", GPA_READ, here, false, 5,
		     5);
	test_refused(t, "read from a write-only page", GPA_WRITE, here, true, 6,
		     6);
	test_refused(t, "write to a host address", t->memory, t->memory, false,
		     5, 5);
	test_refused(t, "write to Monocle's tables", own, own, false, 5, 5);
	test_refused(t, "read of Monocle's tables", own, own, true, 6, 6);
	test_refused(t, "write beyond the width", beyond, here, false, 4, 4);
}

static void test_read_only(struct selftest *t)
{
	const struct place from =
		inside(GPA_READ, t->memory + 3 * LARGE + 2 * PAGE_SIZE);
	const struct place to = inside(
		GPA_WRITE + 0x80, t->memory + 3 * LARGE + 4 * PAGE_SIZE + 0x80);

	report(t, "read-only page to write-only page",
	       move(t, &from, &to, 0xe00));
}

/* What a device has used, and the unit has cached, is taken away. */
static void test_changes(struct selftest *t)
{
	const struct place small = inside(GPA_PAGES, page(t, 0));
	const struct place before =
		inside(GPA_LARGE + 0x3080, t->memory + LARGE + 0x3080);
	const struct place after =
		inside(GPA_LARGE + 0x3080, page(t, 3) + 0x80);
	gpa_t gpa = GPA_LARGE + 3 * PAGE_SIZE;
	const char *wrong = move(t, &small, &before, 0xe00);

	if (!wrong && vtd_map(t->v, t->domain, gpa, 0, PAGE_SIZE, 0))
		wrong = "unmap failed";
	report(t, "use before unmap", wrong);
	test_refused(t, "write after unmap", gpa, t->memory + LARGE + 0x3000,
		     false, 5, 5);
	test_refused(t, "read after unmap", gpa, t->memory + LARGE + 0x3000,
		     true, 6, 6);
	wrong = NULL;
	if (vtd_map(t->v, t->domain, gpa, page(t, 3), PAGE_SIZE, SL_R | SL_W))
		wrong = "map failed";
	report(t, "page mapped anew",
	       wrong ? wrong : move(t, &small, &after, 0xe00));
	report(t, "rest of a split page",
	       move(t, &small,
		    &(struct place){gpa + PAGE_SIZE + 0x80,
				    t->memory + LARGE + 0x4080,
				    t->memory + LARGE + 0x4080, LARGE},
		    0xe00));
}

/* One page of 1 GiB over the memory, in place of the other domain */
static void test_huge(struct selftest *t)
{
	hpa_t base = ALIGN_DOWN(t->memory, GIB);
	struct vtd_domain *huge;
	const struct place from =
		inside(GPA_HUGE + t->memory - base, t->memory);
	const struct place to =
		inside(GPA_HUGE + t->memory - base + 3 * LARGE + 0x345,
		       t->memory + 3 * LARGE + 0x345);
	const char *wrong = NULL;

	memset(&t->list, 0, sizeof(t->list));
	add(t, GPA_HUGE, base, GIB, REGION_RW);
	if (vtd_domain_create(t->v, &t->list, &huge)) {
		report(t, "1 GiB page", "no domain");
		return;
	}
	if (vtd_release(t->v, t->edu->bdf) ||
	    vtd_assign(t->v, huge, t->edu->bdf))
		wrong = "not assigned";
	set_mastering(t, true);
	report(t, "1 GiB page", wrong ? wrong : move(t, &from, &to, EDU_MOST));
	if (vtd_release(t->v, t->edu->bdf) || vtd_domain_destroy(huge) ||
	    vtd_assign(t->v, t->domain, t->edu->bdf))
		report(t, "back to the first domain", "failed");
	set_mastering(t, true);
}

static void test_release(struct selftest *t)
{
	const char *wrong = NULL;
	u16 command;

	if (vtd_release(t->v, t->edu->bdf))
		wrong = "an error";
	command = (u16)pci_config_read(t->pci, t->edu->bdf, PCI_COMMAND, 2);
	if (command & PCI_COMMAND_MASTER)
		wrong = "its bus mastering is still on";
	report(t, "release", wrong);
	set_mastering(t, true);
	test_refused(t, "write after release", GPA_PAGES + PAGE_SIZE,
		     page(t, 1), false, 1, 2);
}

static void test_limit(struct selftest *t)
{
	u64 before = t->v->config.dma_faults;
	const char *wrong = NULL;
	u16 command;

	t->v->config.dma_faults = 1;
	if (!write_ram(t, GPA_NOTHING, 16))
		wrong = "the device hangs";
	vtd_handle_faults(t->v);
	command = (u16)pci_config_read(t->pci, t->edu->bdf, PCI_COMMAND, 2);
	if (command & PCI_COMMAND_MASTER)
		wrong = "its bus mastering is still on";
	t->v->config.dma_faults = before;
	report(t, "dma-faults=1 stops the device", wrong);
	set_mastering(t, true);
}

/* Interrupts. IF is clear: what arrives stays in the local APIC's IRR. */

static bool pending(unsigned vector)
{
	u32 offset = 0x200 + vector / 32 * 0x10; /* SDM 3A 10.8.4 */
	hpa_t base = rdmsr(MSR_APIC_BASE) & ~PAGE_MASK;
	u32 bits;

	if (rdmsr(MSR_APIC_BASE) & BIT(10)) /* x2APIC mode */
		bits = (u32)rdmsr(0x800 + offset / 16);
	else
		bits = mmio_read32((volatile u8 *)mmio_map(base, PAGE_SIZE) +
				   offset);
	return bits >> vector % 32 & 1;
}

static bool arrives(unsigned vector)
{
	u64 start = rdtsc();

	while (!pending(vector))
		if (rdtsc() - start > VTD_TIMEOUT)
			return false;
	return true;
}

static void handler(void *ctx, unsigned vector)
{
	struct selftest *t = ctx;

	t->vector = vector;
	t->arrived++;
}

static void set_msi(struct selftest *t, struct vtd_msi msi)
{
	unsigned cap = pci_find_capability(t->pci, t->edu->bdf, PCI_CAP_MSI);
	bdf_t bdf = t->edu->bdf;

	/* PCI 3.0, 6.8.1: edu's has 64 address bits. */
	pci_config_write(t->pci, bdf, cap + 2, 2, 0x80);
	pci_config_write(t->pci, bdf, cap + 4, 4, (u32)msi.address);
	pci_config_write(t->pci, bdf, cap + 8, 4, (u32)(msi.address >> 32));
	pci_config_write(t->pci, bdf, cap + 12, 2, msi.data);
	pci_config_write(t->pci, bdf, cap + 2, 2, 0x81);
}

static void raise(struct selftest *t, struct vtd_msi msi)
{
	set_msi(t, msi);
	mmio_write32(t->bar + EDU_RAISE, 1);
	mmio_write32(t->bar + EDU_ACKNOWLEDGE, ~0u);
}

/* Takes the pending vector, which wakes the HLT, and says if it was right. */
static bool accept(struct selftest *t, unsigned vector)
{
	unsigned before = t->arrived;

	if (!arrives(vector))
		return false;
	cpu_sti_halt_cli();
	return t->arrived == before + 1 && t->vector == vector;
}

/*
 * The message must not arrive. That is known when one that may, sent after
 * it, has come and nothing else with it.
 */
static const char *lost(struct selftest *t, struct vtd_msi bad,
			unsigned bad_vector, struct vtd_msi good,
			unsigned good_vector)
{
	raise(t, bad);
	raise(t, good);
	if (!arrives(good_vector))
		return "no later interrupt arrives";
	if (pending(bad_vector))
		return "it arrived";
	return accept(t, good_vector) ? NULL : "the handler did not run";
}

static void test_remapped(struct selftest *t, unsigned a, unsigned b)
{
	struct vtd *v = t->v;
	u32 apic = local_apic_id();
	int mine = vtd_irq_alloc(v, t->edu->bdf, 1);
	int other = vtd_irq_alloc(v, BDF(0u, 0u, 0u), 1);
	struct vtd_msi good = vtd_irq_msi((unsigned)mine, 1);
	struct vtd_msi bad = vtd_irq_msi((unsigned)other, 1);
	const char *wrong = NULL;

	if (mine < 0 || other < 0 ||
	    vtd_irq_set(v, (unsigned)mine, (u8)a, apic, false) ||
	    vtd_irq_set(v, (unsigned)other, (u8)b, apic, false)) {
		report(t, "interrupt entries", "no entry");
		return;
	}
	raise(t, good);
	report(t, "remapped MSI", accept(t, a) ? NULL : "it did not arrive");
	report(t, "MSI by another's entry", lost(t, bad, b, good, a));
	if (vtd_irq_free(v, (unsigned)other))
		wrong = "an error";
	report(t, "MSI by an absent entry",
	       wrong ? wrong : lost(t, bad, b, good, a));
	report(t, "MSI beyond the table",
	       lost(t, vtd_irq_msi(VTD_IRTES + 3, 1), b, good, a));
	wrong = NULL;
	if (vtd_irq_set(v, (unsigned)mine, (u8)b, apic, false))
		wrong = "an error";
	raise(t, good);
	if (!wrong && !accept(t, b))
		wrong = "the new vector did not arrive";
	report(t, "changed entry", wrong);
	if (vtd_irq_free(v, (unsigned)mine))
		report(t, "freed entry", "an error");
}

static void test_interrupts(struct selftest *t)
{
	int a = host_irq_alloc(handler, t), b = host_irq_alloc(handler, t);

	if (a < 0 || b < 0) {
		report(t, "interrupts", "no vector");
		return;
	}
	if (t->v->remapping) {
		test_remapped(t, (unsigned)a, (unsigned)b);
	} else {
		raise(t, vtd_msi_plain((u8)a, local_apic_id()));
		report(t, "MSI without remapping",
		       accept(t, (unsigned)a) ? NULL : "it did not arrive");
	}
	host_irq_free(NULL, (unsigned)a);
	host_irq_free(NULL, (unsigned)b);
}

/* The fault event's MSI, which is never remapped (7.3) */
static void test_fault_event(struct selftest *t)
{
	unsigned vector = t->v->config.fault_vector;
	const char *wrong = NULL;
	u64 faults;

	if (!vector)
		return;
	/* Those of the cases before, which were polled */
	forget_faults(t);
	while (pending(vector))
		cpu_sti_halt_cli();
	faults = t->v->faults;
	if (!write_ram(t, GPA_NOTHING, 16))
		wrong = "the device hangs";
	else if (!arrives(vector))
		wrong = "no event";
	else
		cpu_sti_halt_cli();
	if (!wrong && t->v->faults == faults)
		wrong = "the event's handler counted nothing";
	report(t, "fault event", wrong);
}

static const char *prepare(struct selftest *t)
{
	for (unsigned i = 0; i < t->pci->count; i++)
		if (t->pci->functions[i].vendor == EDU_VENDOR &&
		    t->pci->functions[i].device == EDU_DEVICE)
			t->edu = &t->pci->functions[i];
	if (!t->edu)
		return "no edu device";
	pci_size_bars(t->pci, t->edu);
	t->bar = mmio_map(t->edu->bars[0].base, EDU_SIZE);
	/* phys_alloc() gives what the direct map holds */
	t->memory = phys_alloc(&host_memory, BUFFER_SIZE, LARGE, PHYS_ANYWHERE);
	if (!t->bar || t->memory == PHYS_NONE)
		return "no memory";
	memset(phys_to_virt(t->memory), 0, BUFFER_SIZE);
	return make_domain(t) ? "no domain" : NULL;
}

static void finish(struct selftest *t)
{
	if (t->edu)
		set_mastering(t, false);
	if (t->domain && vtd_domain_destroy(t->domain))
		report(t, "end", "the domain is in use");
	if (t->memory && t->memory != PHYS_NONE)
		phys_free(&host_memory, t->memory, BUFFER_SIZE);
	log_info("selftest vtd: %d cases, %d failed", t->cases, t->failures);
}

int vtd_selftest(struct vtd *v, struct pci_host *pci)
{
	static struct selftest t;
	const char *wrong;

	t = (struct selftest){.v = v, .pci = pci, .seed = 1};
	wrong = prepare(&t);
	report(&t, "preparation", wrong);
	if (!wrong) {
		set_mastering(&t, true);
		test_refused(&t, "write before it is assigned",
			     GPA_PAGES + PAGE_SIZE, page(&t, 1), false, 1, 2);
		if (vtd_assign(v, t.domain, t.edu->bdf))
			report(&t, "assign", "an error");
		test_transfers(&t);
		/*
		 * QEMU records no fault for a right that is missing in a
		 * cached translation, so the refusals come first.
		 */
		test_refusals(&t);
		test_read_only(&t);
		test_changes(&t);
		test_fault_event(&t);
		test_interrupts(&t);
		test_huge(&t);
		test_limit(&t);
		test_release(&t);
	}
	finish(&t);
	return t.failures;
}

/* Where a host page can be read: Monocle's image is not in the direct map */
static const u8 *host_page(hpa_t hpa)
{
	extern const char image_start[], image_end[];
	hpa_t image = virt_to_phys(image_start);
	u64 size = (uintptr_t)image_end - (uintptr_t)image_start;

	if (hpa >= image && hpa < image + size)
		return (const u8 *)image_start + (hpa - image);
	return phys_to_virt(hpa);
}

static bool holds_pattern(const struct selftest *t, hpa_t at, u64 from)
{
	const u8 *p = host_page(ALIGN_DOWN(at, PAGE_SIZE)) + (at & PAGE_MASK);

	for (u64 i = 0; i < 32; i++)
		if (p[i] != pattern(t->seed, from + i))
			return false;
	return true;
}

/* The second half of a page and the first of the next, in one transfer */
static bool is_refused(struct selftest *t, hpa_t at)
{
	hpa_t from = at + PAGE_SIZE / 2, next = at + PAGE_SIZE;
	unsigned before = t->arrived;

	t->v->faults = 0;
	mmio_write64(t->bar + EDU_SOURCE, EDU_BUFFER);
	mmio_write64(t->bar + EDU_DESTINATION, from);
	mmio_write64(t->bar + EDU_COUNT, EDU_MOST);
	mmio_write64(t->bar + EDU_COMMAND,
		     EDU_START | EDU_TO_RAM | EDU_INTERRUPT);
	/* Idle, so that an emulator's clock can leap to the interrupt */
	while (t->arrived == before)
		cpu_sti_halt_cli();
	mmio_write32(t->bar + EDU_ACKNOWLEDGE, ~0u);
	while (vtd_handle_faults(t->v))
		;
	return t->v->faults && !holds_pattern(t, from, 0) &&
	       !holds_pattern(t, next, PAGE_SIZE / 2);
}

static int sweep(struct selftest *t, hpa_t from, hpa_t to)
{
	int vector = host_irq_alloc(handler, t);
	int index = vtd_irq_alloc(t->v, t->edu->bdf, 1);
	struct vtd_msi msi = vtd_msi_plain((u8)vector, local_apic_id());
	u64 pages = 0;

	if (vector < 0)
		return -ENOSPC;
	if (index >= 0) {
		if (vtd_irq_set(t->v, (unsigned)index, (u8)vector,
				local_apic_id(), false))
			return -EIO;
		msi = vtd_irq_msi((unsigned)index, 1);
	}
	set_msi(t, msi);
	for (hpa_t at = from; at + 2 * PAGE_SIZE <= to; at += 2 * PAGE_SIZE) {
		if (!is_refused(t, at)) {
			log_error("selftest vtd: DMA to 0x%lx is not refused",
				  at);
			t->failures++;
		}
		pages += 2;
	}
	host_irq_free(NULL, (unsigned)vector);
	log_info("selftest vtd: DMA to %lu pages, %d failed", pages,
		 t->failures);
	return 0;
}

int vtd_selftest_sweep(struct vtd *v, struct pci_host *pci, hpa_t from,
		       hpa_t to)
{
	static struct selftest t;
	const char *wrong;

	t = (struct selftest){.v = v, .pci = pci, .seed = 77};
	v->config.dma_faults = 0;
	wrong = prepare(&t);
	if (!wrong && vtd_assign(v, t.domain, t.edu->bdf))
		wrong = "edu cannot be assigned";
	if (!wrong) {
		set_mastering(&t, true);
		fill(page(&t, 0), PAGE_SIZE, t.seed);
		if (!read_ram(&t, GPA_PAGES, EDU_MOST))
			wrong = "the device hangs";
		/* The only copy of the pattern is edu's now. */
		memset(phys_to_virt(page(&t, 0)), 0, PAGE_SIZE);
	}
	if (!wrong && sweep(&t, from, to))
		wrong = "no interrupt for it";
	report(&t, "sweep", wrong);
	if (t.edu)
		vtd_release(v, t.edu->bdf);
	finish(&t);
	return t.failures;
}
