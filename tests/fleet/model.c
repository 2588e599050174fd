/* SPDX-License-Identifier: MIT */
/* The machine on paper, behind the accessors of arch/x86/. */
#define _GNU_SOURCE
#include "tests/fleet/model.h"

#include <asm/prctl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "arch/x86/vmx/vmcs.h"
#include "arch/x86/vmx/vmx.h"
#include "drivers/pci/pci.h"
#include "drivers/vtd/dmar.h"
#include "drivers/vtd/regs.h"
#include "kernel/percpu.h"
#include "kernel/phys.h"

#define CHIPSET 0xfec00000ull /* I/O APICs, units, local APICs, flash */
#define UNITS 64
#define UNIT_SIZE 0x8000
#define IOAPICS 16
#define IOAPIC_PINS 120
#define LOCAL_APIC 0xfee00000ull
#define CPUIDS 1024
#define MSRS 512
#define JOURNAL 65536
#define PIT_HZ 1193182
#define PM_HZ 3579545

struct model model;

extern const char image_start[], image_end[]; /* of this program */
extern const u8 ap_trampoline[], ap_parameters[];

static struct {
	u32 leaf, subleaf;
	struct cpuid r;
} cpuids[CPUIDS];

static struct {
	u32 number;
	u64 value, was;
} msrs[MSRS];

static struct unit {
	u64 base;    /* 0: free */
	bool silent; /* the DMAR table names it, and nobody is there */
	bool stuck;
	u64 iqa;
	u8 *was; /* its registers, UNIT_SIZE bytes */
} units[UNITS];

static struct ioapic_model {
	u64 base, gsi_base;
	unsigned pins;
	u32 index;
	u64 entries[IOAPIC_PINS], was[IOAPIC_PINS];
} ioapics[IOAPICS];

/* Device memory that was written, with what it held before. */
static struct {
	u64 at, old;
	unsigned size;
} journal[JOURNAL];

static unsigned ends; /* CPUs parked, VMXON: there is no way back */
static unsigned cpuid_count, msr_count, journal_count, other_ports;
static u16 other_port;
static u64 now;

static NORETURN void broken(const char *what, u64 value)
{
	printf("fact end broken model: %s 0x%llx\n", what,
	       (unsigned long long)value);
	exit(70);
}

/* -- memory */

void model_open(int fd)
{
	model.space = mmap(NULL, SPACE, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (model.space == MAP_FAILED)
		broken("no memory for physical memory", SPACE);
}

void *phys_to_virt(hpa_t hpa)
{
	if (hpa >= SPACE)
		broken("beyond physical memory:", hpa);
	return model.space + hpa;
}

hpa_t virt_to_phys(const void *p)
{
	const char *at = p;

	if (at >= image_start && at < image_end)
		return model.image + (u64)(at - image_start);
	return (u64)(uintptr_t)p - (u64)(uintptr_t)model.space;
}

/* What a device, or a unit, finds at the address. */
static void *dma(hpa_t hpa)
{
	u64 at = hpa - model.image;

	if (at < (u64)(image_end - image_start))
		return (void *)(uintptr_t)(image_start + at);
	return phys_to_virt(hpa);
}

/* As the product's, but gigabytes of guest memory become a hole. */
void *memset(void *dst, int c, size_t n)
{
	u8 *p = dst, *at = p, *end = p + n;

	if (!c && n > MIB && p >= model.space && end <= model.space + SPACE) {
		u8 *first = (u8 *)ALIGN_UP((uintptr_t)p, PAGE_SIZE);
		u8 *last = (u8 *)ALIGN_DOWN((uintptr_t)end, PAGE_SIZE);

		if (!madvise(first, (size_t)(last - first), MADV_REMOVE)) {
			memset(p, 0, (size_t)(first - p));
			at = last;
		}
	}
	for (n = (size_t)(end - at); n; n--)
		*(volatile u8 *)at++ = (u8)c;
	return dst;
}

bool model_is_ram(u64 hpa)
{
	for (unsigned i = 0; i < model.row_count; i++)
		if (model.rows[i].kind == 1 &&
		    hpa - model.rows[i].base < model.rows[i].size)
			return true;
	return false;
}

struct model_table *model_table(const char *signature)
{
	for (unsigned i = 0; i < model.table_count; i++)
		if (!strcmp(model.tables[i].signature, signature))
			return &model.tables[i];
	return NULL;
}

/* -- time: reading the clock takes a little, waiting takes more */

u64 rdtsc(void)
{
	return now += 100;
}

void cpu_relax(void)
{
	now += 20000;
}

/* now * hz / tsc_hz, of hours */
static u64 ticks(u64 hz, u64 since)
{
	return (u64)((unsigned __int128)(now - since) * hz / model.tsc_hz);
}

/* What the manuals let CPUID say, and else what a file may state. Of the
 * crystals that there are one makes what 0x16 rounds (SDM 3B 18.7.3). */
static u64 clock_of_cpuid(void)
{
	static const u32 crystals[] = {24000000, 19200000, 38400000, 25000000};
	struct cpuid r = cpuid(0x15, 0);
	u64 base = (cpuid(0x16, 0).eax & 0xffff) * 1000000ull;

	if (r.eax && r.ebx && r.ecx)
		return (u64)r.ecx * r.ebx / r.eax;
	for (unsigned i = 0; r.eax && r.ebx && i < 4; i++) {
		u64 hz = (u64)crystals[i] * r.ebx / r.eax;

		if (hz - base + base / 100 < base / 50)
			return hz;
	}
	return base ? base : 2400000000ull;
}

/* -- CPUID, MSRs */

void model_cpuid(u32 leaf, u32 subleaf, const u64 r[4])
{
	if (cpuid_count == CPUIDS)
		broken("too many rows of CPUID:", CPUIDS);
	cpuids[cpuid_count].leaf = leaf;
	cpuids[cpuid_count].subleaf = subleaf;
	cpuids[cpuid_count++].r =
		(struct cpuid){(u32)r[0], (u32)r[1], (u32)r[2], (u32)r[3]};
}

struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	for (unsigned i = 0; i < cpuid_count; i++)
		if (cpuids[i].leaf == leaf && cpuids[i].subleaf == subleaf)
			return cpuids[i].r;
	return (struct cpuid){0, 0, 0, 0};
}

static unsigned msr_at(u32 number)
{
	unsigned i = 0;

	while (i < msr_count && msrs[i].number != number)
		i++;
	return i;
}

void model_msr(u32 number, u64 value)
{
	unsigned i = msr_at(number);

	if (i == MSRS)
		broken("too many MSRs:", MSRS);
	msrs[i].number = number;
	msrs[i].value = value;
	msr_count = MAX(msr_count, i + 1);
}

u64 rdmsr(u32 number)
{
	unsigned i = msr_at(number);

	return i < msr_count ? msrs[i].value : 0;
}

int rdmsr_safe(u32 number, u64 *value)
{
	unsigned i = msr_at(number);

	if (i == msr_count)
		return -EFAULT;
	*value = msrs[i].value;
	return 0;
}

/* The other CPUs: SDM 9.4.4.1, and boot/ap.asm for the parameters' order. */
static void interprocessor(u32 low)
{
	u64 page = (low & 0xff) << PAGE_SHIFT;
	struct percpu *cpu;

	if ((low & 0x700) != 0x600)
		return;
	memcpy(&cpu, model.space + page + (ap_parameters - ap_trampoline) + 16,
	       sizeof(cpu));
	cpu->parked = true;
	ends++;
}

void wrmsr(u32 number, u64 value)
{
	if (number == MSR_GS_BASE)
		syscall(SYS_arch_prctl, ARCH_SET_GS, value);
	else if (number == 0x830)
		interprocessor((u32)value);
	else if (number != MSR_MICROCODE) /* CPUID writes its revision there */
		model_msr(number, value);
}

/* -- the CPU */

static u64 control_registers[5];
static u64 fields[0x8000]; /* of the VMCS */

#define CONTROL_REGISTER(n)                   \
	u64 read_cr##n(void)                  \
	{                                     \
		return control_registers[n];  \
	}                                     \
	void write_cr##n(u64 value)           \
	{                                     \
		control_registers[n] = value; \
	}

CONTROL_REGISTER(0)
CONTROL_REGISTER(2)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)

void write_dr(unsigned n, u64 value)
{
	(void)n;
	(void)value;
}

u64 read_dr6(void)
{
	return 0;
}

void fxrstor(const struct xsave_area *area)
{
	(void)area;
}

void xrstor(const struct xsave_area *area, u64 components)
{
	(void)area;
	(void)components;
}

void xsetbv(u32 index, u64 value)
{
	(void)index;
	(void)value;
}

u64 xgetbv(u32 index)
{
	(void)index;
	return 1;
}

void lgdt(const struct descriptor_pointer *p)
{
	(void)p;
}

void lidt(const struct descriptor_pointer *p)
{
	(void)p;
}

void ltr(u16 selector)
{
	(void)selector;
}

void load_segments(u16 code, u16 data)
{
	(void)code;
	(void)data;
}

void invlpg(const void *p)
{
	(void)p;
}

void cpu_cli(void)
{
}

void cpu_take_interrupts(void)
{
}

void cpu_sleep(const void *line, u32 hint)
{
	(void)line;
	(void)hint;
}

void cpu_unblock_nmi(void)
{
}

void wbinvd(void)
{
}

/* Bits 14:13 of a field's encoding are its width: SDM 25.11.2. */
static u64 in_width(u64 field, u64 value)
{
	unsigned width = field >> 13 & 3;

	return width == 0 ? (u16)value : width == 2 ? (u32)value : value;
}

u64 vmread(u64 field)
{
	return in_width(field, fields[field & 0x7fff]);
}

void vmwrite(u64 field, u64 value)
{
	fields[field & 0x7fff] = in_width(field, value);
}

bool vmxon(hpa_t region)
{
	(void)region;
	ends++;
	return true;
}

bool vmclear(hpa_t vmcs)
{
	return vmcs;
}

bool vmptrld(hpa_t vmcs)
{
	return vmcs;
}

void invept(u64 type, u64 eptp)
{
	(void)type;
	(void)eptp;
}

/* What the assembly of boot/, arch/ and kernel/ has; nothing here goes there. */
const char trap_stubs[1], vmx_exit[1], rdmsr_fault[1], rdmsr_recover[1];
const char vmx_window[1], vmx_window_last[1], vmx_window_out[1];
__asm__(".pushsection .rodata\n"
	".globl ap_trampoline, ap_parameters, ap_trampoline_end\n"
	"ap_trampoline: .skip 64\n"
	"ap_parameters: .skip 32\n"
	"ap_trampoline_end: .popsection");

/* -- configuration space */

struct model_function *model_function(unsigned bdf)
{
	struct model_function **f = &model.functions[bdf & 0xffff];

	if (!*f)
		*f = calloc(1, sizeof(**f));
	if (!*f)
		broken("no memory for function", bdf);
	return *f;
}

static void add_mask(struct model_function *f, unsigned at, unsigned size,
		     u64 bits)
{
	for (unsigned i = 0; i < size && at + i < sizeof(f->mask); i++)
		f->mask[at + i] |= (u8)(bits >> 8 * i);
}

static void add_capability(struct model_function *f, unsigned at)
{
	bool wide = f->config[at + 2] & 0x80;

	switch (f->config[at]) {
	case PCI_CAP_POWER:
		add_mask(f, at + 4, 1, 3);
		break;
	case PCI_CAP_MSI:
		add_mask(f, at + 2, 1, 0x71);
		add_mask(f, at + 4, 8, wide ? ~3ull : 0x0000fffffffffffcull);
		if (wide)
			add_mask(f, at + 12, 2, 0xffff);
		if (f->config[at + 3] & 1)
			add_mask(f, at + (wide ? 16 : 12), 4, 0xffffffff);
		break;
	case PCI_CAP_MSIX:
		add_mask(f, at + 3, 1, 0xc0);
		break;
	}
}

/* What can be written in every function, whether the file says so or not. */
static void add_masks(struct model_function *f)
{
	unsigned at = f->config[PCI_CAPABILITIES];

	if (!f->mask[PCI_COMMAND] && !f->mask[PCI_COMMAND + 1])
		add_mask(f, PCI_COMMAND, 2, 0x507);
	add_mask(f, PCI_INTERRUPT_LINE, 1, 0xff);
	if ((f->config[PCI_HEADER_TYPE] & 0x7f) == PCI_HEADER_BRIDGE)
		add_mask(f, 0x3e, 1, 0x43);
	if (!(f->config[PCI_STATUS] & 0x10))
		return;
	for (unsigned i = 0; at >= 0x40 && at < 0xf0 && i < 48; i++) {
		at &= ~3u;
		add_capability(f, at);
		at = f->config[at + 1];
	}
}

static struct model_function *answers(unsigned bdf)
{
	struct model_function *f = model.functions[bdf & 0xffff];

	return f && (f->config[0] || f->config[1]) ? f : NULL;
}

static u64 config_read(unsigned bdf, unsigned at, unsigned size)
{
	struct model_function *f = answers(bdf);
	u64 value = ~0ull;

	if (f && at + size <= sizeof(f->config)) {
		value = 0;
		memcpy(&value, f->config + at, size);
	}
	return value;
}

static void config_write(unsigned bdf, unsigned at, unsigned size, u64 value)
{
	struct model_function *f = answers(bdf);

	for (unsigned i = at; f && i < at + size && i < 4096; i++, value >>= 8)
		f->config[i] = (u8)((f->config[i] & ~f->mask[i]) |
				    (value & f->mask[i]));
}

/* -- remapping units: VT-d specification, chapters 6 and 11 */

static u32 reg32(const struct unit *u, unsigned at)
{
	u32 v;

	memcpy(&v, model.space + u->base + at, 4);
	return v;
}

static u64 reg64(const struct unit *u, unsigned at)
{
	u64 v;

	memcpy(&v, model.space + u->base + at, 8);
	return v;
}

static void set32(const struct unit *u, unsigned at, u32 v)
{
	memcpy(model.space + u->base + at, &v, 4);
}

static void set64(const struct unit *u, unsigned at, u64 v)
{
	memcpy(model.space + u->base + at, &v, 8);
}

static struct unit *new_unit(u64 base)
{
	for (unsigned i = 0; i < UNITS; i++)
		if (!units[i].base || units[i].base == base) {
			units[i].base = base;
			return &units[i];
		}
	broken("too many units, at", base);
}

void model_unit(u64 base, u64 cap, u64 ecap, u32 status)
{
	struct unit *u = new_unit(base & ~PAGE_MASK);

	set32(u, VTD_VER, 0x10);
	set64(u, VTD_CAP, cap);
	set64(u, VTD_ECAP, ecap);
	set32(u, VTD_GSTS, status);
	set32(u, VTD_FECTL, VTD_FECTL_IM);
}

void model_stuck(u64 base)
{
	new_unit(base & ~PAGE_MASK)->stuck = true;
}

/* 6.5.2: a wait descriptor writes its status; the others have no effect
 * here, for nothing is cached. */
static void run_queue(struct unit *u)
{
	u32 size = VTD_IQA_SIZE(u->iqa), head = reg32(u, VTD_IQH);
	u32 tail = (u32)reg64(u, VTD_IQT) % size;
	u32 step = u->iqa & VTD_IQA_DW ? 32 : 16;

	if (!(reg32(u, VTD_GSTS) & VTD_GCMD_QIE))
		return;
	while (head != tail && !(reg32(u, VTD_FSTS) & VTD_FSTS_QUEUE)) {
		u64 d[2];

		memcpy(d, dma(VTD_IQA_BASE(u->iqa) + head), sizeof(d));
		switch (d[0] & 15) {
		case 1:
		case 2:
		case 4:
			break;
		case 5:
			if (d[0] & BIT(5))
				memcpy(dma(d[1] & ~3ull), (u8 *)d + 4, 4);
			break;
		default: /* 6.5.2.10 */
			set32(u, VTD_FSTS, reg32(u, VTD_FSTS) | BIT(4));
			continue;
		}
		head = (head + step) % size;
	}
	set64(u, VTD_IQH, head);
}

/* 11.4.4: GSTS follows; the one-shot bits say that it is done. */
static void command(struct unit *u, u32 value)
{
	u32 old = reg32(u, VTD_GSTS);
	u32 status = (value & ~VTD_GCMD_ONE_SHOT) |
		     (old & (VTD_GCMD_SRTP | VTD_GCMD_SIRTP));

	status |= value & (VTD_GCMD_SRTP | VTD_GCMD_SIRTP);
	/* 6.5.2: on from its start; off only when it is empty. */
	if (value & ~old & VTD_GCMD_QIE) {
		u->iqa = reg64(u, VTD_IQA);
		set64(u, VTD_IQH, 0);
	} else if (old & ~value & VTD_GCMD_QIE &&
		   reg32(u, VTD_IQH) != reg64(u, VTD_IQT)) {
		status |= VTD_GCMD_QIE;
	}
	set32(u, VTD_GSTS, status);
	run_queue(u);
}

static bool is_fault_record(const struct unit *u, unsigned at)
{
	u64 cap = reg64(u, VTD_CAP);
	unsigned from = at - VTD_CAP_FRO(cap);

	return from < VTD_CAP_NFR(cap) * 16;
}

/* 11.4.6: done at once, as it was asked for. */
static void by_register(struct unit *u, unsigned at, unsigned asked,
			unsigned done)
{
	u64 value = reg64(u, at), kind = value >> asked & 3;

	if (value & VTD_START)
		set64(u, at,
		      (value & ~(VTD_START | 3ull << done)) | kind << done);
}

/* The dword at at is written, bits as the register has them. */
static void unit_write(struct unit *u, unsigned at, u32 value)
{
	unsigned iotlb = VTD_ECAP_IRO(reg64(u, VTD_ECAP)) + 8;

	if (at <= VTD_ECAP + 4 || at == VTD_GSTS || at == VTD_IQH) {
		return;
	} else if (at == VTD_GCMD) {
		if (!u->stuck)
			command(u, value);
	} else if (at == VTD_FSTS) {
		set32(u, at, reg32(u, at) & ~(value & 0x7d));
		run_queue(u);
	} else if (is_fault_record(u, at)) {
		if (at % 16 == 12)
			set32(u, at, reg32(u, at) & ~(value & BIT(31)));
	} else {
		set32(u, at, value);
		if (at == VTD_FECTL)
			set32(u, at, value & VTD_FECTL_IM);
		else if (at == VTD_PMEN)
			set32(u, at, (value & VTD_PMEN_EPM) | value >> 31);
		else if (at == VTD_CCMD + 4)
			by_register(u, VTD_CCMD, 61, 59);
		else if (at == iotlb + 4)
			by_register(u, iotlb, 60, 57);
		else if (at == VTD_IQT)
			run_queue(u);
	}
}

const char *model_message(u64 address)
{
	u64 index = (address >> 5 & 0x7fff) | (address >> 2 & 1) << 15, irta;
	struct unit *u = units;
	u64 entry;

	if (address >> 20 != 0xfee)
		return "no address of an interrupt";
	while (u < units + UNITS && u->base &&
	       (u->silent || !(reg32(u, VTD_GSTS) & VTD_GCMD_IRE)))
		u++;
	if (u == units + UNITS || !u->base)
		return address & BIT(4) ? "no unit remaps interrupts" : NULL;
	if (!(address & BIT(4)))
		return "in compatibility format";
	irta = reg64(u, VTD_IRTA);
	if (index >= 2ull << (irta & 15))
		return "beyond the interrupt table";
	memcpy(&entry, dma((irta & ~PAGE_MASK) + 16 * index), 8);
	return entry & 1 ? NULL : "its interrupt entry is absent";
}

/* -- I/O APICs (82093AA) */

static u32 ioapic_value(const struct ioapic_model *a)
{
	unsigned n = a->index - 0x10;

	if (a->index == 1)
		return (a->pins - 1) << 16 | 0x20;
	if (a->index < 0x10 || n / 2 >= a->pins)
		return 0;
	return (u32)(a->entries[n / 2] >> (n & 1 ? 32 : 0));
}

static void ioapic_set(struct ioapic_model *a, u32 value)
{
	unsigned n = a->index - 0x10, shift = n & 1 ? 32 : 0;

	if (a->index < 0x10 || n / 2 >= a->pins)
		return;
	a->entries[n / 2] &= ~(0xffffffffull << shift);
	a->entries[n / 2] |= (u64)value << shift;
}

static void add_ioapic(u64 base, u64 gsi_base)
{
	unsigned i = 0;

	while (i < IOAPICS && ioapics[i].base)
		i++;
	if (i == IOAPICS || !base)
		return;
	ioapics[i] = (struct ioapic_model){
		.base = base, .gsi_base = gsi_base, .pins = IOAPIC_PINS};
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
		ioapics[i].entries[pin] = BIT(16);
	for (unsigned k = 0; k <= i; k++)
		for (unsigned j = 0; j <= i; j++) {
			u64 more = ioapics[j].gsi_base - ioapics[k].gsi_base;

			if (more && more < ioapics[k].pins)
				ioapics[k].pins = (unsigned)more;
		}
}

/* ACPI 5.2.12.3 */
static void find_ioapics(void)
{
	const struct model_table *t = model_table("APIC");
	const u8 *p = t ? model.space + t->at : NULL;
	u32 address, gsi;

	for (u32 at = 44; p && at + 12 <= t->length && p[at + 1] >= 2;
	     at += p[at + 1]) {
		if (p[at] != 1)
			continue;
		memcpy(&address, p + at + 4, 4);
		memcpy(&gsi, p + at + 8, 4);
		add_ioapic(address, gsi);
	}
}

/* Units that the table names and the file does not: nobody answers. */
static void find_silent_units(void)
{
	const struct model_table *t = model_table("DMAR");
	const u8 *p = t ? model.space + t->at : NULL;
	u16 type, length;
	u64 base;

	for (u32 at = 48; p && at + 16 <= t->length; at += length) {
		memcpy(&type, p + at, 2);
		memcpy(&length, p + at + 2, 2);
		memcpy(&base, p + at + 8, 8);
		base &= ~PAGE_MASK;
		if (length < 4)
			return;
		if (type == DMAR_UNIT && base && base < SPACE - UNIT_SIZE) {
			struct unit *u = new_unit(base);

			u->silent |= !reg64(u, VTD_CAP);
		}
	}
}

/* -- MMIO */

static struct unit *unit_at(u64 hpa, u64 *at)
{
	for (unsigned i = 0; i < UNITS && units[i].base; i++) {
		u64 size = units[i].silent ? PAGE_SIZE : UNIT_SIZE;

		/* The next one's registers may come at once. */
		for (unsigned k = 0; k < UNITS && units[k].base; k++)
			if (units[k].base > units[i].base)
				size = MIN(size, units[k].base - units[i].base);
		*at = hpa - units[i].base;
		if (*at < size)
			return &units[i];
	}
	return NULL;
}

static struct ioapic_model *ioapic_at(u64 hpa, u64 *at)
{
	for (unsigned i = 0; i < IOAPICS; i++) {
		*at = hpa - ioapics[i].base;
		if (ioapics[i].base && *at < 0x20)
			return &ioapics[i];
	}
	return NULL;
}

static u64 get(const volatile void *p, unsigned size)
{
	u64 hpa = (u64)((const volatile u8 *)p - model.space), at, value = 0;
	const struct ioapic_model *a;
	const struct unit *u;

	if (hpa < SPACE && hpa - model.ecam < model.ecam_size)
		return config_read((unsigned)((hpa - model.ecam) >> 12),
				   hpa & 4095, size);
	a = hpa < SPACE ? ioapic_at(hpa, &at) : NULL;
	if (a)
		return at == 0x10 ? ioapic_value(a) : a->index;
	u = hpa < SPACE ? unit_at(hpa, &at) : NULL;
	if (u && u->silent)
		return ~0ull;
	memcpy(&value, (const void *)p, size);
	return value;
}

static void write_memory(u64 hpa, volatile void *p, unsigned size, u64 value)
{
	u64 old = 0;

	if (hpa < SPACE && !model_is_ram(hpa) && journal_count < JOURNAL) {
		memcpy(&old, (const void *)p, size);
		journal[journal_count].at = hpa;
		journal[journal_count].old = old;
		journal[journal_count++].size = size;
	}
	memcpy((void *)p, &value, size);
	if (hpa == LOCAL_APIC + APIC_ICR)
		interprocessor((u32)value);
}

static void put(volatile void *p, unsigned size, u64 value)
{
	u64 hpa = (u64)((volatile u8 *)p - model.space), at;
	struct ioapic_model *a;
	struct unit *u;

	if (hpa < SPACE && hpa - model.ecam < model.ecam_size) {
		config_write((unsigned)((hpa - model.ecam) >> 12), hpa & 4095,
			     size, value);
		return;
	}
	a = hpa < SPACE ? ioapic_at(hpa, &at) : NULL;
	if (a && at == 0)
		a->index = (u8)value;
	else if (a && at == 0x10)
		ioapic_set(a, (u32)value);
	if (a)
		return;
	u = hpa < SPACE ? unit_at(hpa, &at) : NULL;
	if (!u) {
		write_memory(hpa, p, size, value);
		return;
	}
	if (u->silent || size < 4)
		return;
	unit_write(u, (unsigned)at, (u32)value);
	if (size == 8)
		unit_write(u, (unsigned)at + 4, (u32)(value >> 32));
}

#define MMIO(bits)                                             \
	u##bits mmio_read##bits(const volatile void *p)        \
	{                                                      \
		return (u##bits)get(p, bits / 8);              \
	}                                                      \
	void mmio_write##bits(volatile void *p, u##bits value) \
	{                                                      \
		put(p, bits / 8, value);                       \
	}

MMIO(8)
MMIO(16)
MMIO(32)
MMIO(64)

void clflush(const volatile void *p)
{
	(void)p;
}

void sfence(void)
{
}

void mfence(void)
{
}

void lfence(void)
{
}

/* -- ports */

static u32 config_address;
static u8 port61;
static u16 pit_count;
static u64 pit_start;

static u16 pm_timer_port(void)
{
	const struct model_table *t = model_table("FACP");
	u32 port = 0;
	u64 wide = 0;

	if (t && t->length >= 80)
		memcpy(&port, model.space + t->at + 76, 4);
	if (t && t->length >= 220)
		memcpy(&wide, model.space + t->at + 212, 8);
	return (u16)(port ? port : wide);
}

/* Intel 8254, mode 0: OUT of channel 2 rises when the count is over. */
static u8 read_port61(void)
{
	bool out = !model.pit_stopped && pit_start &&
		   ticks(PIT_HZ, pit_start) >= pit_count;

	now += 1000;
	return (u8)(port61 | (out ? 0x20 : 0));
}

static u32 in(u16 port, unsigned size)
{
	u16 timer = pm_timer_port();

	if (port >= 0xcfc && port <= 0xcff && config_address >> 31)
		return (u32)config_read(config_address >> 8 & 0xffff,
					(config_address & 0xfc) + (port & 3),
					size);
	if (port == 0xcf8 && size == 4)
		return config_address;
	if (port == 0x61)
		return read_port61();
	if (timer && port == timer && size == 4) {
		now += 1000;
		return model.pm_timer_stopped ? 0 : ticks(PM_HZ, 0) & 0xffffff;
	}
	return ~0u;
}

/* Of no consequence: clocks, the log's own sinks, the POST code. */
static bool is_harmless(u16 port)
{
	return (port >= 0x40 && port <= 0x43) || port == 0x80 || port == 0xe9 ||
	       (port & 0xfff8) == 0x3f8 || (port & 0xfff8) == 0x2f8;
}

static void out(u16 port, unsigned size, u32 value)
{
	if (port == 0xcf8 && size == 4) {
		config_address = value;
	} else if (port >= 0xcfc && port <= 0xcff) {
		if (config_address >> 31)
			config_write(config_address >> 8 & 0xffff,
				     (config_address & 0xfc) + (port & 3), size,
				     value);
	} else if (port == 0x61) {
		port61 = value & 0xf;
	} else if (port == 0x42) {
		/* Low byte, then high byte. */
		pit_count = (u16)(pit_count >> 8 | value << 8);
		pit_start = now;
	} else if (port == 0xe9) {
		putchar((int)value);
	} else if (!is_harmless(port)) {
		if (model.tell_ports)
			printf("fact port %x %x\n", port, value);
		other_ports++;
		other_port = port;
	}
}

#define PORT(suffix, type)                           \
	type in##suffix(u16 port)                    \
	{                                            \
		return (type)in(port, sizeof(type)); \
	}                                            \
	void out##suffix(u16 port, type value)       \
	{                                            \
		out(port, sizeof(type), value);      \
	}

PORT(b, u8)
PORT(w, u16)
PORT(l, u32)

/* -- what Monocle has of memory for itself */

void *__real_page_alloc(void);
void __real_page_free(void *page);
void *__wrap_page_alloc(void);
void __wrap_page_free(void *page);

static u64 *own;
static size_t own_count, own_room;

void *__wrap_page_alloc(void)
{
	void *page = __real_page_alloc();

	if (page && own_count == own_room) {
		own_room = own_room * 2 + 1024;
		own = realloc(own, own_room * sizeof(*own));
	}
	if (page && own)
		own[own_count++] = virt_to_phys(page);
	return page;
}

void __wrap_page_free(void *page)
{
	for (size_t i = own_count; page && i-- > 0;)
		if (own[i] == virt_to_phys(page)) {
			own[i] = own[--own_count];
			break;
		}
	__real_page_free(page);
}

static int by_address(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

void model_own_pages(void (*tell)(u64 base, u64 size))
{
	u64 base = 0, size = 0;

	qsort(own, own_count, sizeof(*own), by_address);
	for (size_t i = 0; i < own_count; i++) {
		if (size && own[i] == base + size) {
			size += PAGE_SIZE;
			continue;
		}
		if (size)
			tell(base, size);
		base = own[i];
		size = PAGE_SIZE;
	}
	if (size)
		tell(base, size);
}

/* -- what has changed */

static void default_msr(u32 number, u64 value)
{
	if (msr_at(number) == msr_count)
		model_msr(number, value);
}

void model_finish(void)
{
	if (!model.ecam_size)
		model.ecam = SPACE;
	/* Tables claim more buses than there is room for. */
	if (model.ecam < CHIPSET)
		model.ecam_size = MIN(model.ecam_size, CHIPSET - model.ecam);
	default_msr(MSR_EFER, EFER_LME | EFER_LMA | EFER_NXE);
	default_msr(MSR_PAT, 0x0007040600070406);
	default_msr(MSR_APIC_BASE, LOCAL_APIC | 0x900);
	default_msr(MSR_FEATURE_CONTROL, 5);
	model.tsc_hz = model.tsc_hz ? model.tsc_hz : clock_of_cpuid();
	now = model.tsc_hz; /* a second since power-on */
	*(u32 *)phys_to_virt(LOCAL_APIC + APIC_ID) =
		cpuid(1, 0).ebx & 0xff000000;
	find_ioapics();
	find_silent_units();
	for (unsigned bdf = 0; bdf < 0x10000; bdf++) {
		struct model_function *f = model.functions[bdf];

		if (!f)
			continue;
		add_masks(f);
		memcpy(f->was, f->config, sizeof(f->was));
	}
	for (unsigned i = 0; i < UNITS && units[i].base; i++) {
		units[i].was = malloc(UNIT_SIZE);
		memcpy(units[i].was, model.space + units[i].base, UNIT_SIZE);
	}
	for (unsigned i = 0; i < IOAPICS; i++)
		memcpy(ioapics[i].was, ioapics[i].entries,
		       sizeof(ioapics[i].was));
	for (unsigned i = 0; i < msr_count; i++)
		msrs[i].was = msrs[i].value;
}

static void (*tell_change)(const char *what);

static PRINTF(1, 2) void changed(const char *fmt, ...)
{
	char text[120];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tell_change(text);
}

static void config_changes(void)
{
	for (unsigned bdf = 0; bdf < 0x10000; bdf++) {
		const struct model_function *f = model.functions[bdf];

		for (unsigned at = 0; f && at < 4096; at += 4)
			if (memcmp(f->config + at, f->was + at, 4))
				changed("configuration space of "
					"%02x:%02x.%x at 0x%x",
					BDF_ARGS(bdf), at);
	}
}

static void unit_changes(void)
{
	for (unsigned i = 0; i < UNITS && units[i].base; i++)
		for (unsigned at = 0; at < UNIT_SIZE; at += 4) {
			u64 in_unit;

			if (unit_at(units[i].base + at, &in_unit) ==
				    &units[i] &&
			    memcmp(units[i].was + at,
				   model.space + units[i].base + at, 4))
				changed("IOMMU at 0x%llx, register 0x%x",
					(unsigned long long)units[i].base, at);
		}
}

static void memory_changes(void)
{
	/* Backwards: of two writes the first one's note counts. */
	for (unsigned i = 0; i < journal_count; i++) {
		u8 *p = model.space + journal[i].at;
		unsigned k = 0;

		while (k < i && journal[k].at != journal[i].at)
			k++;
		if (k == i && memcmp(p, &journal[i].old, journal[i].size))
			changed("device memory at 0x%llx",
				(unsigned long long)journal[i].at);
	}
}

void model_changes(void (*tell)(const char *what))
{
	tell_change = tell;
	config_changes();
	unit_changes();
	for (unsigned i = 0; i < IOAPICS; i++)
		if (memcmp(ioapics[i].was, ioapics[i].entries,
			   sizeof(ioapics[i].was)))
			changed("I/O APIC at 0x%llx",
				(unsigned long long)ioapics[i].base);
	for (unsigned i = 0; i < msr_count; i++)
		if (msrs[i].was != msrs[i].value)
			changed("MSR 0x%x", msrs[i].number);
	if (other_ports)
		changed("port 0x%x, %u writes", other_port, other_ports);
	if (ends)
		changed("CPUs, in VMX or parked");
	memory_changes();
}
