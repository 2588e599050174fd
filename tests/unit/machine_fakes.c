/* SPDX-License-Identifier: MIT */
/*
 * For test_machine.py: a host of some memory and of functions on bus 0, and the
 * rooms around machine.c, which only note that they were called. The vCPU's run
 * is the test's.
 */
#define _DEFAULT_SOURCE
#include "tests/unit/machine_fakes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/vmx/vmcs.h"
#include "kernel/log.h"
#include "kernel/park.h"
#include "kernel/phys.h"
#include "kernel/serial.h"
#include "kernel/traps.h"
#include "vmm/assign/windows.h"
#include "vmm/cpus.h"
#include "vmm/load/guest_acpi.h"

#define SPACE (5 * GIB)

int arch_prctl(int code, unsigned long address); /* libc's */

char machine_notes[4096];
int (*machine_guest)(void);
int machine_fails; /* the loader's status */
bool machine_no_rom;
enum pci_reset machine_reset;
char machine_failing[32];
bool machine_serial;
u8 machine_config[256][256];

#define STATUS (strcmp(machine_failing, __func__) ? 0 : -EIO)

static struct {
	host_irq_handler *handler;
	void *ctx;
} vectors[16];
static unsigned vector_count;
static int vector_of[16]; /* of an ISA line, or -1 */

static struct percpu here;
static struct machine machine;
static struct host host;
static u8 *space;

static void note(const char *text)
{
	size_t used = strlen(machine_notes);

	snprintf(machine_notes + used, sizeof(machine_notes) - used, "%s\n",
		 text);
}

struct machine *fresh_machine(void)
{
	if (!space)
		space = mmap(NULL, SPACE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			     0);
	memset(&machine, 0, sizeof(machine));
	memset(&host, 0, sizeof(host));
	memset(machine_config, 0xff, sizeof(machine_config));
	machine_notes[0] = 0;
	machine_fails = 0;
	machine_no_rom = false;
	machine_reset = PCI_RESET_FLR;
	machine_failing[0] = 0;
	machine_serial = false;
	vector_count = 0;
	memset(vector_of, 0xff, sizeof(vector_of));
	here.self = &here;
	if (arch_prctl(0x1001 /* ARCH_SET_GS: percpu() */, (u64)&here))
		abort();
	machine_connect(&machine, &host);
	return &machine;
}

void *phys_to_virt(hpa_t hpa)
{
	return space + hpa;
}

hpa_t virt_to_phys(const void *p)
{
	return (hpa_t)((const u8 *)p - space);
}

struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	(void)subleaf;
	return (struct cpuid){leaf == 0x80000008 ? 39 : 0, 0, 0, 0};
}

void wrmsr(u32 msr, u64 value)
{
	(void)msr;
	(void)value;
}

int rdmsr_safe(u32 msr, u64 *value)
{
	(void)msr, (void)value;
	return -EFAULT;
}

/* No guest writes IA32_EFER here. */
u64 vmread(u64 field)
{
	(void)field;
	return 0;
}

void vmwrite(u64 field, u64 value)
{
	(void)field, (void)value;
}

u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	u32 value = 0;

	(void)pci;
	memcpy(&value, &machine_config[bdf & 0xff][offset], size);
	return value;
}

void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	(void)pci;
	memcpy(&machine_config[bdf & 0xff][offset], &value, size);
}

unsigned pci_find_capability(const struct pci_host *pci, bdf_t bdf, u8 id)
{
	(void)pci, (void)bdf, (void)id;
	return 0;
}

int ept_init(struct ept *ept, const struct vmx_capabilities *cap)
{
	(void)ept, (void)cap;
	return STATUS;
}

int ept_map_list(struct ept *ept, const struct region_list *list)
{
	(void)ept, (void)list;
	return STATUS;
}

int vtd_domain_create(struct vtd *v, const struct region_list *list,
		      struct vtd_domain **domain)
{
	(void)v, (void)list;
	*domain = NULL;
	return STATUS;
}

/* A unit here has small pages alone. */
unsigned vtd_leaf_levels(const struct vtd *v)
{
	return v->unit_count ? 1 : 3;
}

enum pci_reset pci_reset_method(const struct pci_host *pci, bdf_t bdf)
{
	(void)pci, (void)bdf;
	return machine_reset;
}

u64 vtd_fault_count(const struct vtd *v, bdf_t bdf)
{
	return v->faults + bdf;
}

int host_irq_alloc(host_irq_handler *handler, void *ctx)
{
	if (STATUS)
		return STATUS;
	vectors[vector_count].handler = handler;
	vectors[vector_count].ctx = ctx;
	return 0x40 + (int)vector_count++;
}

int host_irq_route(const struct acpi_madt *madt, u8 irq, u8 vector)
{
	(void)madt;
	vector_of[irq] = vector - 0x40;
	return STATUS;
}

bool machine_interrupt(u8 irq)
{
	int n = vector_of[irq];

	if (n >= 0)
		vectors[n].handler(vectors[n].ctx, 0x40 + (unsigned)n);
	return n >= 0;
}

bool serial_init(serial_port port)
{
	(void)port;
	return machine_serial;
}

void serial_interrupts(serial_port port, bool transmit)
{
	(void)port;
	note(transmit ? "COM1 asks for more" : "COM1 receives");
}

void console_put(void *console, const u8 *bytes, size_t n)
{
	(void)console, (void)bytes, (void)n;
}

void console_rts(void *console, bool on)
{
	(void)console, (void)on;
}

void console_interrupt(void *console, unsigned vector)
{
	(void)vector;
	note(console == &machine.console ? "COM1" : "?");
}

void console_flush(struct console *c)
{
	(void)c;
	log_info("console flushed");
}

int assigned_choose(struct assignment *all)
{
	(void)all;
	return STATUS;
}

int assigned_init(struct assignment *all)
{
	(void)all;
	return STATUS;
}

void assigned_reset_all(struct assignment *all, bool display)
{
	(void)all;
	note(display ? "functions and display reset" : "functions reset");
}

void assigned_log(const struct assignment *all)
{
	(void)all;
}

int assigned_regions(struct assignment *all, struct region_list *map)
{
	(void)all, (void)map;
	return STATUS;
}

int assigned_window(const struct assignment *all, struct region_list *map,
		    struct region r)
{
	if (all->options->igd == IGD_CLOSED)
		r.cpu = 0;
	return STATUS ? STATUS : region_pin(map, &r);
}

void pci_rom_read(const struct pci_host *pci, const struct pci_function *f,
		  bool shadow, struct pci_rom *rom)
{
	(void)pci, (void)f, (void)rom;
	note(shadow ? "ROM read, or its shadow" : "ROM read");
}

/* vmm/assign/gop.c: the driver that it adds. */
const u8 gop_rom[1], gop_rom_end[1];
int pci_rom_prepend(struct pci_rom *rom, const u8 *image, u64 size,
		    const struct pci_function *f)
{
	static u8 data[128];

	(void)image, (void)size, (void)f;
	rom->data = data;
	rom->efi = true;
	return STATUS;
}

int pci_rom_load(const u8 *file, u64 size, const struct pci_function *f,
		 struct pci_rom *rom, const char **why)
{
	(void)f;
	*why = "is another device's";
	if (*file)
		return -EINVAL;
	rom->data = (u8 *)file;
	rom->length = size;
	return 0;
}

int windows_open(struct vm *vm, const struct window_run *runs, unsigned count)
{
	(void)vm, (void)runs, (void)count;
	return 0;
}

void windows_close(struct vm *vm)
{
	(void)vm;
	note("windows closed");
}

int bios_regions(struct bios *b, struct region_list *map)
{
	(void)b, (void)map;
	return STATUS;
}

int bios_save(struct bios *b)
{
	(void)b;
	return STATUS;
}

void bios_restore(const struct bios *b)
{
	(void)b;
	note("firmware's memory restored");
}

int bios_start(struct bios *b, struct guest_entry *entry)
{
	(void)b, (void)entry;
	note("boot sector");
	return STATUS;
}

int loader_check(const struct loader_input *input)
{
	(void)input;
	return STATUS;
}

int loader_load(const struct loader_input *input, struct guest_entry *entry)
{
	(void)entry;
	note(input->screen ? "kernel, with a screen" : "kernel");
	return machine_fails;
}

int rom_init_check(const struct rom_init *r, const struct region_list *map,
		   bool say)
{
	(void)r, (void)map, (void)say;
	return machine_no_rom ? -EINVAL : STATUS;
}

int rom_init(struct rom_init *r, struct boot_framebuffer *screen, u8 *row)
{
	(void)r, (void)screen, (void)row;
	note("video BIOS");
	return STATUS;
}

int vcpu_init(struct vcpu *v)
{
	(void)v;
	return STATUS;
}

void vcpu_kick(void *vcpu)
{
	(void)vcpu;
}

void vcpu_kick_others(struct vm *vm)
{
	if (vm->request == VM_RUN)
		note("kick");
}

void vcpu_serve(void *vcpu)
{
	(void)vcpu;
}

unsigned cpus_choose(struct percpu *cpus[CPUS_MAX], unsigned count, u64 most,
		     const struct vmx_capabilities *vmx,
		     struct guest_features *features, u64 tsc_hz)
{
	(void)cpus, (void)count, (void)most, (void)vmx, (void)features,
		(void)tsc_hz;
	return 0;
}

int park_give_job(struct percpu *cpu, void (*job)(void *ctx), void *ctx,
		  u64 tsc_hz)
{
	(void)cpu, (void)job, (void)ctx, (void)tsc_hz;
	return -ETIMEDOUT;
}

void vcpu_reset(struct vcpu *v, const struct guest_entry *entry)
{
	(void)v, (void)entry;
}

void vcpu_run(struct vcpu *v)
{
	(void)v;
	machine_guest();
}

void vcpu_stats_sum(const struct vm *vm, struct stats *sum)
{
	*sum = vm->vcpus[0]->stats;
}

void stats_log_vcpu(const struct stats *s, u32 apic_id, u64 now)
{
	(void)s, (void)apic_id, (void)now;
}

void stats_log(const struct stats *s, u64 now)
{
	(void)now;
	log_info("statistics from %lu of %lu Hz", s->start, s->tsc_hz);
}
