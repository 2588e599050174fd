/* SPDX-License-Identifier: MIT */
/* The whole start on one page, from GRUB's hand-over to the guest's end. */
#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "boot/multiboot2.h"
#include "boot/smp.h"
#include "boot/version.h"
#include "drivers/vtd/vtd.h"
#include "kernel/host_irq.h"
#include "kernel/host_paging.h"
#include "kernel/log_ram.h"
#include "kernel/log_sink.h"
#include "kernel/microcode.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"
#include "kernel/phys.h"
#include "kernel/screen.h"
#include "kernel/string.h"
#include "kernel/time.h"
#include "kernel/traps.h"
#include "vmm/list.h"
#include "vmm/machine.h"

void boot_main(u32 magic, u32 info, u32 image);

#define FAULT_SECONDS 60 /* of dma-faults=N */

extern const char image_start[], image_end[];

static struct host host;
static struct machine machine;
/* What the last start has logged in the end; list shows all of it. */
static char last[3 * KIB / 2 + 1];

static NORETURN void refuse(void)
{
	end(END_REFUSED, "refused");
}

/* ACPI 6.4, 16.1.5: the word that switches the machine off. */
static void power_off(void)
{
	const struct acpi_power *p = &host.power;

	if (!p->has_s5 || !p->pm1a_cnt)
		return;
	outw(p->pm1a_cnt, (u16)((p->slp_typ_a & 7) << 10 | BIT(13)));
	if (p->pm1b_cnt)
		outw(p->pm1b_cnt, (u16)((p->slp_typ_b & 7) << 10 | BIT(13)));
}

static void read_boot_information(u32 magic, u32 info, u32 image)
{
	struct boot_info *b = &host.boot;
	int err;

	b->image = image;
	b->image_size = (u64)image_end - (u64)image_start;
	if (magic != MULTIBOOT2_MAGIC) {
		log_start(LOG_COM1 | LOG_E9, LOG_INFO, &b->fb);
		log_error("not started by a multiboot2 loader; use GRUB's "
			  "multiboot2 command");
		refuse();
	}
	err = multiboot2_parse(b, info);
	if (err) {
		log_start(LOG_COM1 | LOG_E9, LOG_INFO, &b->fb);
		refuse();
	}
	err = options_parse(&host.options, b->cmdline);
	/* Not even "quiet" hides what is wrong with the options. */
	if (err || host.options.help)
		host.options.quiet = false;
	log_start(host.options.sinks,
		  host.options.quiet   ? LOG_ERROR
		  : host.options.debug ? LOG_DEBUG
				       : LOG_INFO,
		  &b->fb);
	if (err)
		refuse();
	if (host.options.help) {
		options_help();
		end(END_POWER_OFF, "help");
	}
	log_info("Monocle %s, at 0x%lx-0x%lx, started by %s", MONOCLE_VERSION,
		 b->image, b->image + b->image_size, b->loader);
}

static void tell_last(bool all)
{
	size_t length = strlen(last), at = all || !length ? 0 : length - 1;

	while (!all && at && last[at - 1] != '\n')
		at--;
	for (size_t n; at < length; at += n + 1) {
		for (n = 0; last[at + n] && last[at + n] != '\n'; n++)
			;
		log_info("last start: %.*s", (int)n, last + at);
	}
}

/*
 * A copy of the log for the next start, which finds it at the same place: not
 * where firmware and GRUB work, at the top of memory, nor where modules lie, at
 * its beginning. `list` leaves the one that it tells of.
 */
static void keep_log(void)
{
	hpa_t at = phys_alloc(&host_memory, LOG_RAM_SIZE, PAGE_SIZE, 768 * MIB);

	if (at == PHYS_NONE)
		return;
	log_ram_last(phys_to_virt(at), last, sizeof(last));
	if (host.options.list)
		return;
	log_keep(phys_to_virt(at));
	tell_last(false);
	log_info("log: kept at 0x%lx for the next start", at);
}

/*
 * What the loader has left, to the top, where Monocle's own is: low, where GRUB
 * puts it, it would be a hole in the RAM of a guest with ram=identity.
 */
static void move_up(void)
{
	struct boot_info *b = &host.boot;
	hpa_t at =
		phys_alloc(&host_memory, b->info_size, PAGE_SIZE, page_limit);

	if (at == PHYS_NONE)
		return;
	memcpy(phys_to_virt(at), phys_to_virt(b->info), b->info_size);
	*b = (struct boot_info){.image = b->image, .image_size = b->image_size};
	multiboot2_parse(b, at);
	for (unsigned i = 0; i < b->module_count; i++) {
		struct boot_module *m = &b->modules[i];

		at = phys_alloc(&host_memory, m->size, PAGE_SIZE, page_limit);
		if (at == PHYS_NONE || at < m->start)
			continue;
		memcpy(phys_to_virt(at), phys_to_virt(m->start), m->size);
		m->start = at;
	}
	phys_init(b);
}

/* Own memory, page tables, descriptor tables, stack. */
static void take_memory(void)
{
	const struct boot_framebuffer *fb = &host.boot.fb;
	struct percpu *cpu = NULL;

	page_limit = 4 * GIB;
	phys_init(&host.boot);
	if (host.options.ram == RAM_IDENTITY)
		move_up();
	log_info("memory: %llu MiB free in %u ranges",
		 phys_total(&host_memory) / MIB, host_memory.count);
	keep_log();
	if (!host_paging_init(&host.boot))
		cpu = percpu_create(0, cpuid(1, 0).ebx >> 24);
	if (!cpu) {
		log_error("too little memory for Monocle itself; it needs "
			  "4 MiB");
		refuse();
	}
	page_limit = PHYS_ANYWHERE;
	percpu_load(cpu);
	if (log_goes_to(LOG_SCREEN))
		screen_mapped(mmio_map(fb->base, (u64)fb->pitch * fb->height));
}

/* AMT's Serial-over-LAN at 00:16.3, or a card: a 16550 at a port BAR. */
static serial_port pci_uart(void)
{
	for (unsigned i = 0; i < host.pci.count; i++) {
		bdf_t bdf = host.pci.functions[i].bdf;
		u32 bar = pci_config_read(&host.pci, bdf, PCI_BAR0, 4);
		u32 command = pci_config_read(&host.pci, bdf, PCI_COMMAND, 2);

		/* At 0, it has none yet; there are the DMA controller's. */
		if (host.pci.functions[i].class != 0x0700 || !(bar & 1) ||
		    !(bar & 0xfffc))
			continue;
		/* Firmware that does not use it may have left it off. */
		pci_config_write(&host.pci, bdf, PCI_COMMAND, 2,
				 command | PCI_COMMAND_IO);
		return bar & 0xfffc;
	}
	return 0;
}

static serial_port table_uart(void)
{
	u64 at = acpi_uart(&host.acpi);

	if (at <= 0xffff)
		return at;
	/* A table that points into RAM is wrong. */
	return boot_memory_kinds(&host.boot, at, 32) & BIT(MEMORY_AVAILABLE)
		       ? 0
		       : (u64)mmio_map(at, 32);
}

static void add_serial_ports(void)
{
	unsigned sinks = host.options.sinks;

	if ((sinks & LOG_PCI) && !log_add_serial(LOG_PCI, pci_uart()))
		log_warn("log=pci: no PCI function is a serial port that "
			 "answers (AMT's: switch SOL on in its setup)");
	if ((sinks & LOG_UART) && !log_add_serial(LOG_UART, table_uart()))
		log_warn("log=uart: neither SPCR nor DBG2 names a 16550 that "
			 "answers");
}

static void read_tables(void)
{
	struct acpi_mcfg mcfg = {0};

	if (acpi_init(&host.acpi, host.boot.rsdp))
		log_warn("acpi: no tables; one CPU, no power-off");
	acpi_madt_init(&host.madt, &host.acpi);
	acpi_power_init(&host.power, &host.acpi);
	if (!acpi_mcfg_init(&mcfg, &host.acpi)) {
		u64 size = (mcfg.last_bus + 1ull) * MIB;
		bool ram = boot_memory_kinds(&host.boot, mcfg.base, MIB) &
			   BIT(MEMORY_AVAILABLE);

		if (ram || !mmio_map(mcfg.base, size) ||
		    !pci_use_ecam(&host.pci, mcfg.base, mcfg.last_bus))
			log_warn("pci: no configuration space is where the "
				 "MCFG table has it, at 0x%lx; by ports, the "
				 "first 256 bytes of each function",
				 mcfg.base);
	}
	machine_power_off = power_off;
	pci_scan(&host.pci);
	add_serial_ports();
}

static void measure_tsc(void)
{
	if (!host.tsc_hz)
		host.tsc_hz =
			tsc_frequency(&host.power.pm_timer, &host.tsc_exact);
}

/*
 * Everything that may refuse, before anything on the machine changes. The
 * option list asks the same.
 */
static int plan(void)
{
	int err = bios_check(&host.boot, &host.options);

	host.has_vmx = !err && !vmx_probe(&host.vmx);
	if (host.has_vmx)
		err = vmx_choose_clock(&host.vmx, host.options.clock);
	if (host.has_vmx && !err)
		err = vmx_choose_apicv(&host.vmx, host.options.apicv);
	host.vmx.split_code = host.options.itlb;
	if (err || !(host.has_vmx || host.options.list))
		return -ENOTSUP;
	measure_tsc();
	if (!host.tsc_hz) {
		log_error("the TSC's frequency is unknown: neither CPUID 0x15 "
			  "and 0x16 nor the PIT nor the ACPI timer tells it");
		return -ENODEV;
	}
	machine_connect(&machine, &host);
	err = machine_plan(&machine);
	return host.has_vmx ? err : -ENOTSUP;
}

static void dma_fault_event(void *ctx, unsigned vector)
{
	(void)vector;
	vtd_handle_faults(ctx);
}

static bdf_t display(void)
{
	for (unsigned i = 0; i < host.pci.count; i++)
		if (host.pci.functions[i].class >> 8 == 3)
			return host.pci.functions[i].bdf;
	return VTD_NO_DISPLAY;
}

/* Chipsets that need write-buffer flushes and do not say so (RWBF). */
static bool needs_write_buffer_flush(void)
{
	u32 id = pci_config_read(&host.pci, BDF(0, 0, 0), PCI_VENDOR, 4);
	u32 device = id >> 16;

	/* Cantiga, Eaglelake: G4x, GM45. */
	return (id & 0xffff) == PCI_INTEL &&
	       (device == 0x2a40 || (device >= 0x2e00 && device <= 0x2e90));
}

/* Else a warning has said why not. */
static bool wants_iommu(void)
{
	if (host.options.iommu == IOMMU_OFF) {
		log_warn("iommu=off%s",
			 options_unsafe_dma(&host.options)
				 ? " unsafe-dma ram=identity: what is assigned "
				   "can read and write all memory, Monocle's "
				   "too"
				 : ": nothing is assigned that does DMA");
		return false;
	}
	if (!acpi_find(&host.acpi, "DMAR", 0)) {
		log_warn("no IOMMU (no DMAR table; switch VT-d on in the "
			 "firmware's setup): nothing is assigned that does "
			 "DMA");
		return false;
	}
	return true;
}

static void add_graphics(struct vtd_config *config)
{
	const struct igd_input igd = {
		.pci = &host.pci,
		.function = pci_find(&host.pci, IGD_BDF),
		.boot = &host.boot,
		.options = &host.options,
	};
	bool remapped = config->display != IGD_BDF ||
			igd_picture(&igd, config->picture);

	config->direct = remapped ? VTD_NO_DISPLAY : IGD_BDF;
}

/* Finds the IOMMUs; nothing on the machine changes yet. */
static void find_iommu(void)
{
	int vector = host_irq_alloc(dma_fault_event, &host.vtd);
	struct vtd_config config = {
		.display = display(),
		.write_buffer = needs_write_buffer_flush(),
		.x2apic = rdmsr(MSR_APIC_BASE) & BIT(10),
		.fault_vector = (u8)MAX(vector, 0),
		.apic_id = cpuid(1, 0).ebx >> 24,
		.madt = &host.madt,
		.dma_faults = host.options.dma_faults,
		.stopped = assigned_stopped,
		.ctx = &machine.assign,
	};
	int err;

	if (!wants_iommu()) {
		vtd_unused(&host.vtd, &host.acpi, 0);
		return;
	}
	add_graphics(&config);
	err = vtd_init(&host.vtd, &host.acpi, &host.pci, &config);
	host.has_vtd = !err;
	if (!err)
		pci_acs_probe(&host.pci);
	if (err)
		log_warn("VT-d cannot be used (iommu=off does not look at it): "
			 "nothing is assigned that does DMA");
	else
		vtd_log(&host.vtd);
}

/* A redirection entry through the remapping table. */
static u64 remap_pin(void *ctx, const struct host_irq_pin *p)
{
	struct vtd *vtd = ctx;
	int index = p->entry ? vtd_rte_index(p->entry)
			     : vtd_irq_alloc_ioapic(vtd, p->ioapic_id);
	struct vtd_pin pin = {
		.vector = p->vector,
		.level = p->level,
		.active_low = p->active_low,
	};

	if (index == -ENOTSUP)
		return HOST_IRQ_PLAIN;
	if (index < 0 ||
	    vtd_irq_set(vtd, (unsigned)index, p->vector, p->apic_id, p->level))
		return 0;
	return vtd_irq_rte((unsigned)index, pin);
}

static void take_interrupts(void)
{
	local_apic_init(mmio_map(rdmsr(MSR_APIC_BASE) & ~PAGE_MASK, PAGE_SIZE),
			false, HOST_VECTOR_SPURIOUS);
	percpu()->apic_id = local_apic_id();
	host_irq_init(&host.madt);
}

static void take_iommu(void)
{
	u32 end = VTD_GCMD_IRE;

	if (options_unsafe_dma(&host.options))
		end |= VTD_GCMD_TE;
	host.vtd.config.fault_ticks = FAULT_SECONDS * host.tsc_hz;
	if (!host.has_vtd) {
		vtd_unused(&host.vtd, &host.acpi, end);
	} else if (vtd_start(&host.vtd)) {
		log_error("an IOMMU cannot be taken over; switch VT-d off in "
			  "the firmware's setup, or say iommu=off");
		refuse();
	}
	if (host.vtd.remapping)
		host_irq_remap(remap_pin, &host.vtd);
}

static void take_cpus(void)
{
	void *region = page_alloc();

	host.parked_count = smp_park_others(&host.madt, acpi_lpit(&host.acpi),
					    host.tsc_hz, host.parked);
	if (!region || vmx_enable(&host.vmx, virt_to_phys(region)))
		panic("VMXON failed");
}

static NORETURN void finish(enum vm_request how)
{
	if (how == VM_POWER_OFF)
		end(END_POWER_OFF, "guest power-off");
	if (how == VM_EXIT_CODE && machine.vm.exit_code == 0)
		end(END_POWER_OFF, "guest exit 0");
	if (how == VM_EXIT_CODE)
		end(END_GUEST_EXIT, "guest exit %u", machine.vm.exit_code);
	if (how == VM_REFUSED)
		refuse();
	end(END_GUEST_STOPPED, "guest stopped");
}

static NORETURN void run(void)
{
	const char *words;
	int err;

	/* Before anything is asked of the CPU that it may change. */
	microcode_init(&host.boot);
	host.microcode = microcode_load(true);
	read_tables();
	find_iommu();
	if (host.options.list) {
		measure_tsc(); /* its pages wait by it */
		machine_connect(&machine, &host);
		words = list_functions(&machine);
		err = plan();
		tell_last(true);
		list_verdict(&machine, words, err);
		end(END_POWER_OFF, "list");
	}
	if (plan())
		refuse();
	vmx_log(&host.vmx);
	region_log(&machine.vm.map);
	assigned_take_over(&machine.assign);
	take_interrupts();
	take_iommu();
	take_cpus();
	if (machine_build(&machine))
		refuse();
	log_info("the guest starts");
	host.screen_row = screen_row();
	log_leave_screen();
	finish(machine_run(&machine));
}

/* On a stack with a guard page from here on; there is no way back. */
static NORETURN void continue_on(void *stack, void (*next)(void))
{
	__asm__ volatile("mov %0, %%rsp; xor %%ebp, %%ebp; call *%1; ud2"
			 :
			 : "r"(stack), "r"(next)
			 : "memory");
	__builtin_unreachable();
}

void boot_main(u32 magic, u32 info, u32 image)
{
	read_boot_information(magic, info, image);
	take_memory();
	continue_on(percpu()->stack, run);
}
