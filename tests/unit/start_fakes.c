/* SPDX-License-Identifier: MIT */
/*
 * For test_start.py: boot/main.c itself between rooms that only note that they
 * were called, and say what the test wants.
 */
#include "tests/unit/start_fakes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernel/log.h"
#include "kernel/percpu.h"

static struct percpu here;
#define percpu() (&here)
#include "boot/main.c"
#undef percpu

struct phys host_memory;
hpa_t page_limit;
void (*machine_power_off)(void);
const char image_start[0x3000], image_end[1];

struct start start;

static jmp_buf out;
static u64 (*compose)(void *ctx, const struct host_irq_pin *pin);
static void *compose_ctx;

static int note(const char *name)
{
	size_t used = strlen(start.notes);

	snprintf(start.notes + used, sizeof(start.notes) - used, "%s ", name);
	return strcmp(start.failing, name) ? 0 : -EIO;
}

#define NOTE note(__func__)

static void note_number(const char *name, u64 n)
{
	char text[64];

	snprintf(text, sizeof(text), "%s:%llx", name, (unsigned long long)n);
	note(text);
}

NORETURN void end(enum end_status status, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(start.end, sizeof(start.end), fmt, args);
	va_end(args);
	start.status = status;
	longjmp(out, 1);
}

NORETURN void panic(const char *fmt, ...)
{
	start.status = END_PANIC;
	snprintf(start.end, sizeof(start.end), "%s", fmt);
	longjmp(out, 1);
}

void fresh_start(void)
{
	memset(&start, 0, sizeof(start));
	memset(&host, 0, sizeof(host));
	memset(&machine, 0, sizeof(machine));
	memset(&here, 0, sizeof(here));
	start.status = -1;
	start.info = 0x1234;
	page_limit = 0;
	compose = NULL;
}

const struct host *start_reads(u32 magic)
{
	if (!setjmp(out))
		read_boot_information(magic, start.info, 0x100000);
	return &host;
}

const struct host *start_takes_memory(void)
{
	if (!setjmp(out))
		take_memory();
	return &host;
}

const struct host *start_runs(void)
{
	host.options = start.options;
	if (!setjmp(out))
		run();
	start.apic_id = here.apic_id;
	return &host;
}

u64 start_composes(const struct host_irq_pin *pin)
{
	return compose(compose_ctx, pin);
}

void start_powers_off(void)
{
	machine_power_off();
}

int multiboot2_parse(struct boot_info *boot, hpa_t info)
{
	boot->cmdline = "";
	boot->loader = "GRUB";
	boot->info = info;
	boot->info_size = start.info_size;
	for (unsigned i = 0; i < 2 && start.modules[i].size; i++)
		boot->modules[boot->module_count++] = start.modules[i];
	note_number("info", info);
	return NOTE;
}

int options_parse(struct options *options, const char *cmdline)
{
	(void)cmdline;
	*options = start.options;
	return NOTE;
}

void options_help(void)
{
	NOTE;
}

void log_start(unsigned sinks, enum log_level level,
	       const struct boot_framebuffer *fb)
{
	(void)fb;
	start.sinks = sinks;
	start.level = level;
}

void log_leave_screen(void)
{
	NOTE;
}

bool log_goes_to(unsigned sink)
{
	return start.on_screen && sink == LOG_SCREEN;
}

unsigned screen_row(void)
{
	return 7;
}

void screen_mapped(volatile void *base)
{
	note_number("screen", (u64)base);
}

void phys_init(const struct boot_info *boot)
{
	(void)boot;
	note_number("phys", page_limit);
}

int host_paging_init(const struct boot_info *boot)
{
	(void)boot;
	note_number("paging", page_limit);
	return NOTE;
}

struct percpu *percpu_create(u32 index, u32 apic_id)
{
	note_number("cpu", (u64)index << 32 | apic_id);
	return NOTE ? NULL : &here;
}

void percpu_load(struct percpu *cpu)
{
	note(cpu == &here ? "percpu_load" : "?");
}

volatile void *mmio_map(hpa_t hpa, u64 size)
{
	note_number("map", hpa);
	note_number("size", size);
	return NOTE ? NULL : (volatile void *)hpa;
}

void *page_alloc(void)
{
	static _Alignas(4096) u8 page[4096];

	return NOTE ? NULL : page;
}

hpa_t virt_to_phys(const void *p)
{
	(void)p;
	return 0x5000;
}

struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	(void)subleaf;
	return (struct cpuid){0, leaf == 1 ? 0x12345678 : 0, 0, 0};
}

u64 rdmsr(u32 msr)
{
	return msr == MSR_APIC_BASE ? start.apic_base : 0;
}

int acpi_init(struct acpi_tables *acpi, hpa_t rsdp)
{
	(void)acpi, (void)rsdp;
	return NOTE;
}

int acpi_madt_init(struct acpi_madt *madt, const struct acpi_tables *acpi)
{
	(void)madt, (void)acpi;
	return NOTE;
}

int acpi_power_init(struct acpi_power *power, const struct acpi_tables *acpi)
{
	(void)acpi;
	*power = start.power;
	return NOTE;
}

int acpi_mcfg_init(struct acpi_mcfg *mcfg, const struct acpi_tables *acpi)
{
	(void)acpi;
	*mcfg = start.mcfg;
	return NOTE;
}

const struct acpi_header *acpi_find(const struct acpi_tables *acpi,
				    const char *signature, unsigned n)
{
	static struct acpi_header header;

	(void)acpi, (void)n;
	return !strcmp(signature, "DMAR") && strcmp(start.failing, "acpi_find")
		       ? &header
		       : NULL;
}

u32 boot_memory_kinds(const struct boot_info *boot, hpa_t base, u64 size)
{
	(void)boot;
	start.looked_at = size;
	return base == start.mcfg.base ? BIT(start.ecam_kind) : 0;
}

void pci_scan(struct pci_host *pci)
{
	NOTE;
	pci->count = start.classes;
	for (unsigned i = 0; i < start.classes; i++)
		pci->functions[i] = (struct pci_function){
			.bdf = BDF(0, 1 + i, 0), .class = start.class[i]};
}

u32 pci_config_read(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		    unsigned size)
{
	(void)pci;
	if (bdf && offset == PCI_BAR0 && size == 4)
		return start.bar;
	if (bdf && offset == PCI_COMMAND && size == 2)
		return 0x406;
	return !bdf && !offset && size == 4 ? start.id : ~0u;
}

struct pci_function *pci_find(struct pci_host *pci, bdf_t bdf)
{
	for (unsigned i = 0; i < pci->count; i++)
		if (pci->functions[i].bdf == bdf)
			return &pci->functions[i];
	return NULL;
}

bool pci_use_ecam(struct pci_host *pci, u64 base, u8 last_bus)
{
	if (NOTE)
		return false;
	pci->ecam = base;
	pci->ecam_last_bus = last_bus;
	return true;
}

void pci_acs_probe(struct pci_host *pci)
{
	note(pci == &host.pci ? "pci_acs_probe" : "?");
}

bool igd_picture(const struct igd_input *in, struct phys_range out[2])
{
	if (in->pci == &host.pci && in->boot == &host.boot &&
	    in->options == &host.options && in->function->bdf == IGD_BDF)
		out[0] = (struct phys_range){0x8000000, 0x1000};
	return !start.direct;
}

int bios_check(const struct boot_info *boot, const struct options *options)
{
	(void)boot, (void)options;
	return NOTE;
}

int vmx_probe(struct vmx_capabilities *cap)
{
	(void)cap;
	return NOTE;
}

int vmx_choose_apicv(struct vmx_capabilities *cap, enum apicv_choice asked)
{
	int err = note(cap == &host.vmx && asked == host.options.apicv
			       ? "vmx_choose_apicv"
			       : "?");

	return err ? -ENOTSUP : 0;
}

int vmx_choose_clock(struct vmx_capabilities *cap, enum clock_source asked)
{
	int err = note(cap == &host.vmx && asked == host.options.clock
			       ? "vmx_choose_clock"
			       : "?");

	return err ? -ENOTSUP : 0;
}

void microcode_init(const struct boot_info *boot)
{
	note(boot == &host.boot ? "microcode_init" : "?");
}

u32 microcode_load(bool tell)
{
	note_number("microcode", tell);
	return 0x20;
}

void vmx_log(const struct vmx_capabilities *cap)
{
	(void)cap;
}

u64 tsc_frequency(u16 *pm_timer, bool *exact)
{
	*exact = true;
	note_number("timer", *pm_timer);
	return NOTE ? 0 : 1000;
}

void machine_connect(struct machine *m, struct host *h)
{
	note(m == &machine && h == &host ? "machine_connect" : "?");
}

int machine_plan(struct machine *m)
{
	(void)m;
	return NOTE;
}

int machine_build(struct machine *m)
{
	(void)m;
	return NOTE;
}

enum vm_request machine_run(struct machine *m)
{
	NOTE;
	m->vm.exit_code = start.exit_code;
	return start.how;
}

const char *list_functions(const struct machine *m)
{
	(void)m;
	NOTE;
	return "igd";
}

void list_verdict(const struct machine *m, const char *words, int err)
{
	(void)m;
	note(strcmp(words, "igd") ? "?" : "list_verdict");
	start.verdict = -err;
}

void region_log(const struct region_list *list)
{
	(void)list;
}

void assigned_take_over(struct assignment *all)
{
	(void)all;
	NOTE;
}

void assigned_stopped(void *assignment, bdf_t bdf)
{
	note(assignment == &machine.assign ? "assigned_stopped" : "?");
	(void)bdf;
}

int vtd_init(struct vtd *v, const struct acpi_tables *acpi,
	     struct pci_host *pci, const struct vtd_config *config)
{
	(void)acpi, (void)pci;
	start.config = *config;
	v->remapping = start.remapping;
	return NOTE;
}

void vtd_log(const struct vtd *v)
{
	(void)v;
}

void vtd_unused(struct vtd *v, const struct acpi_tables *acpi, u32 what)
{
	(void)acpi;
	note_number(v == &host.vtd ? "unused" : "?", what);
}

int vtd_start(struct vtd *v)
{
	(void)v;
	return NOTE;
}

unsigned vtd_handle_faults(struct vtd *v)
{
	note(v == &host.vtd ? "vtd_handle_faults" : "?");
	return 0;
}

int vtd_irq_alloc_ioapic(struct vtd *v, u8 id)
{
	note_number("ioapic", id);
	note(v == &host.vtd ? "vtd_irq_alloc_ioapic" : "?");
	return start.index;
}

int vtd_irq_set(struct vtd *v, unsigned index, u8 vector, u32 apic_id,
		bool level)
{
	note_number("entry",
		    index << 24 | (u64)vector << 16 | apic_id << 4 | level);
	return v == &host.vtd ? NOTE : -1;
}

u64 vtd_irq_rte(unsigned index, struct vtd_pin pin)
{
	start.pin = pin;
	return 0x1000 + index;
}

int vtd_rte_index(u64 rte)
{
	return (int)rte - 0x1000;
}

int host_irq_alloc(host_irq_handler *handler, void *ctx)
{
	note("host_irq_alloc");
	handler(ctx, 0x31); /* it leads to vtd_handle_faults() */
	return strcmp(start.failing, "host_irq_alloc") ? 0x31 : -1;
}

void host_irq_init(const struct acpi_madt *madt)
{
	(void)madt;
	NOTE;
}

void host_irq_remap(u64 (*fn)(void *ctx, const struct host_irq_pin *pin),
		    void *ctx)
{
	NOTE;
	compose = fn;
	compose_ctx = ctx;
}

void local_apic_init(volatile void *base, bool x2apic, u8 spurious)
{
	note_number("apic", (u64)base);
	note_number("spurious", (u64)x2apic << 8 | spurious);
}

u32 local_apic_id(void)
{
	return 9;
}

u32 acpi_lpit(const struct acpi_tables *acpi)
{
	return acpi == &host.acpi ? 0x60 : 0;
}

unsigned smp_park_others(const struct acpi_madt *madt, u32 lpit, u64 tsc_hz,
			 struct percpu *cpus[CPUS_MAX])
{
	(void)madt;
	note_number("lpit", lpit);
	note_number("park", tsc_hz);
	(void)cpus;
	return 0;
}

int vmx_enable(const struct vmx_capabilities *cap, hpa_t region)
{
	(void)cap;
	note_number("vmxon", region);
	return NOTE;
}

/* What the last start has left of its log; where this one's is kept. */
void log_ram_last(const void *at, char *to, size_t size)
{
	(void)at;
	snprintf(to, size, "%s", start.last);
}

void log_keep(void *at)
{
	(void)at;
	NOTE;
}

u64 phys_total(const struct phys *p)
{
	(void)p;
	return 510 * MIB;
}

hpa_t phys_alloc(struct phys *p, u64 size, u64 align, hpa_t limit)
{
	(void)p;
	if (limit == 4 * GIB && start.top)
		return start.top -= ALIGN_UP(size, align);
	return limit == 768 * MIB && size == LOG_RAM_SIZE &&
			       align == PAGE_SIZE && start.log_at
		       ? start.log_at
		       : PHYS_NONE;
}

bool log_add_serial(enum log_sink sink, serial_port port)
{
	(void)sink;
	start.uart = port;
	return port && NOTE == 0;
}

u64 acpi_uart(const struct acpi_tables *acpi)
{
	(void)acpi;
	return start.table_uart;
}

void pci_config_write(const struct pci_host *pci, bdf_t bdf, unsigned offset,
		      unsigned size, u32 value)
{
	(void)pci;
	if (offset == PCI_COMMAND && size == 2 && bdf == start.uart_at)
		start.command = value;
}

void *phys_to_virt(hpa_t hpa)
{
	return (void *)hpa;
}
