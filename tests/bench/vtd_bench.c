/* SPDX-License-Identifier: MIT */
/*
 * What the IOMMU driver does for a domain of 64 GiB: vtd_bench LAYOUT prints
 * "create tables N", "create invalidations N" and so on. The driver is the
 * real one, built for the host (vtd_bench.py); the unit here only answers.
 * measured_*() are what callgrind counts the instructions of.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/errno.h"
#include "drivers/vtd/vtd.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/phys.h"

#define TOTAL (64 * GIB)
#define EDU BDF(0u, 5u, 0u)
/* 4 levels, 48 bits, 2 MiB and 1 GiB pages, page-selective; not coherent */
#define CAP_VALUE 0xd2008c222f0606ull
#define ECAP_VALUE 0xf00f4aull
#define REGS_SIZE 0x8000

static struct vtd vtd;
static struct pci_host pci;
static struct region_list list;
static u8 regs[REGS_SIZE] __attribute__((aligned(4096)));
static u64 flushes;

int measured_create(struct vtd_domain **domain);
int measured_unmap(struct vtd_domain *domain);

/* The thin edge: registers are memory, two of them act. */

static u64 get(unsigned at, unsigned size)
{
	u64 value = 0;

	memcpy(&value, regs + at, size);
	return value;
}

static void put(unsigned at, unsigned size, u64 value)
{
	memcpy(regs + at, &value, size);
}

/* VT-d 6.5.2.8: what a wait descriptor asks for; the rest is nothing here */
static void run_queue(u64 tail)
{
	u64 head = get(VTD_IQH, 8), base = get(VTD_IQA, 8) & ~PAGE_MASK;

	for (; head != tail; head = (head + 16) % PAGE_SIZE) {
		struct vtd_entry *e = (void *)(uintptr_t)(base + head);

		if ((e->lo & 15) == 5)
			*(volatile u32 *)(uintptr_t)e->hi = (u32)(e->lo >> 32);
	}
	put(VTD_IQH, 8, head);
}

static bool is_register(const volatile void *p, unsigned *at)
{
	uintptr_t offset = (uintptr_t)p - (uintptr_t)regs;

	*at = (unsigned)offset;
	return offset < REGS_SIZE;
}

void mmio_write32(volatile void *p, u32 value)
{
	unsigned at;

	*(volatile u32 *)p = value;
	/* 11.4.4: the status follows; a write buffer is empty at once. */
	if (is_register(p, &at) && at == VTD_GCMD)
		put(VTD_GSTS, 4, value & ~VTD_GCMD_WBF);
}

void mmio_write64(volatile void *p, u64 value)
{
	unsigned at;

	*(volatile u64 *)p = value;
	if (is_register(p, &at) && at == VTD_IQT)
		run_queue(value);
}

u32 mmio_read32(const volatile void *p)
{
	return *(const volatile u32 *)p;
}

u64 mmio_read64(const volatile void *p)
{
	return *(const volatile u64 *)p;
}

u64 rdtsc(void)
{
	return 0;
}

void clflush(const volatile void *p)
{
	(void)p;
	flushes++;
}

void sfence(void)
{
}

void cpu_relax(void)
{
}

/* The rest of Monocle, as little as the driver needs */

void log_write(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	if (level > LOG_ERROR)
		return;
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

int format(char *out, size_t size, const char *fmt, ...)
{
	(void)fmt;
	return size ? (out[0] = 0) : 0;
}

struct phys host_memory;

hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{
	(void)p, (void)limit;
	return (hpa_t)(uintptr_t)aligned_alloc(align, size);
}

void *page_alloc(void)
{
	void *page = aligned_alloc(PAGE_SIZE, PAGE_SIZE);

	return page ? memset(page, 0, PAGE_SIZE) : NULL;
}

void page_free(void *page)
{
	free(page);
}

void *phys_to_virt(hpa_t hpa)
{
	return (void *)(uintptr_t)hpa;
}

hpa_t virt_to_phys(const void *p)
{
	return (uintptr_t)p;
}

bool phys_keep(hpa_t base, u64 size)
{
	return !base && !size;
}

volatile void *mmio_map(hpa_t hpa, u64 size)
{
	return hpa && size <= REGS_SIZE ? regs : NULL;
}

/* ACPI and VT-d 8.1, 8.3: one unit for all of segment 0 */
static const struct {
	struct dmar_table table;
	u8 unit[16];
} PACKED dmar = {
	.table = {.acpi = {.length = 64}, .host_width = 47, .flags = 1},
	.unit = {[2] = 16, [4] = 1, [9] = 0x90, [10] = 0xd9, [11] = 0xfe},
};

const struct acpi_header *acpi_find(const struct acpi_tables *acpi,
				    const char *signature, unsigned n)
{
	(void)acpi;
	(void)signature;
	return n ? NULL : &dmar.table.acpi;
}

bool acpi_checksum_ok(const void *table, u32 length)
{
	return table && length;
}

struct pci_function *pci_find(struct pci_host *host, bdf_t bdf)
{
	return bdf == EDU ? host->functions : NULL;
}

unsigned pci_find_capability(const struct pci_host *host, bdf_t bdf, u8 id)
{
	(void)host;
	(void)bdf;
	(void)id;
	return 0;
}

u32 pci_config_read(const struct pci_host *host, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	(void)host;
	(void)bdf;
	(void)offset;
	(void)size;
	return 0;
}

void pci_config_write(const struct pci_host *host, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	(void)host;
	(void)bdf;
	(void)offset;
	(void)size;
	(void)value;
}

/*
 * Layouts of host memory: one piece; 100 pieces as relocated memory lies,
 * congruent to 2 MiB with 4 KiB rests at the edges; 100 pieces in which no
 * large page fits.
 */
static void add(gpa_t gpa, hpa_t hpa, u64 size)
{
	struct region r = {.gpa = gpa,
			   .hpa = hpa,
			   .size = size,
			   .dma = REGION_RW,
			   .name = "ram"};

	if (region_add(&list, &r, NULL))
		abort();
	printf("piece %lx %lx %lx\n", (unsigned long)gpa, (unsigned long)hpa,
	       (unsigned long)size);
}

static void lay_out(const char *layout)
{
	const unsigned pieces = 100;
	u64 size = ALIGN_DOWN(TOTAL / pieces, PAGE_SIZE), at = 0;

	if (!strcmp(layout, "contiguous")) {
		add(0, 4 * GIB, TOTAL);
		return;
	}
	for (unsigned i = 0; i < pieces; i++, at += size) {
		u64 last = i + 1 == pieces ? TOTAL - at : size;
		u64 shift = !strcmp(layout, "scattered") ? PAGE_SIZE : 0;

		/* Each piece has a gap of 6 MiB behind it in host memory. */
		add(at, 4 * GIB + at + i * 6 * MIB + shift, last);
	}
}

__attribute__((noinline)) int measured_create(struct vtd_domain **domain)
{
	int err = vtd_domain_create(&vtd, &list, domain);

	return err ? err : vtd_assign(&vtd, *domain, EDU);
}

/* A page out of the middle, as a BAR that moves over it does */
__attribute__((noinline)) int measured_unmap(struct vtd_domain *domain)
{
	return vtd_map(&vtd, domain, TOTAL / 2, 0, PAGE_SIZE, 0);
}

int main(int argc, char **argv)
{
	const struct vtd_config config = {.display = VTD_NO_DISPLAY};
	struct vtd_domain *domain = NULL;
	u64 before;

	put(VTD_CAP, 8, CAP_VALUE);
	put(VTD_ECAP, 8, ECAP_VALUE);
	pci.count = 1;
	pci.functions[0].bdf = EDU;
	lay_out(argc > 1 ? argv[1] : "contiguous");
	if (vtd_init(&vtd, NULL, &pci, &config) || vtd_start(&vtd))
		return 1;
	before = vtd.units[0].invalidations;
	flushes = 0;
	if (measured_create(&domain))
		return 1;
	printf("create tables %lu\n", (unsigned long)domain->sl.tables);
	printf("create invalidations %lu\n",
	       (unsigned long)(vtd.units[0].invalidations - before));
	printf("create flushes %lu\n", (unsigned long)flushes);
	before = vtd.units[0].invalidations;
	flushes = 0;
	if (measured_unmap(domain))
		return 1;
	printf("unmap tables %lu\n", (unsigned long)domain->sl.tables);
	printf("unmap invalidations %lu\n",
	       (unsigned long)(vtd.units[0].invalidations - before));
	printf("unmap flushes %lu\n", (unsigned long)flushes);
	return 0;
}
