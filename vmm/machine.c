/* SPDX-License-Identifier: MIT */
#include "vmm/machine.h"

#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/host_irq.h"
#include "kernel/log.h"
#include "kernel/log_sink.h"
#include "kernel/park.h"
#include "kernel/percpu.h"
#include "kernel/serial.h"
#include "kernel/string.h"
#include "kernel/traps.h"
#include "vmm/assign/gop.h"
#include "vmm/assign/windows.h"
#include "vmm/boot_order.h"
#include "vmm/cpus.h"
#include "vmm/load/guest_acpi.h"
#include "vmm/machine_map.h"
#include "vmm/physmap.h"
#include "vmm/rom_init.h"
#include "vmm/vcpu/guest_cpuid.h"
#include "vmm/vcpu/msr.h"

static void take_module(struct machine *m, const struct boot_module *module)
{
	struct loader_input *in = &m->loader;
	const void *data = phys_to_virt(module->start);
	const char *rest;

	if ((rest = boot_module_role(module, "kernel"))) {
		in->kernel = data;
		in->kernel_size = module->size;
		in->cmdline = rest;
	} else if (boot_module_role(module, "initrd")) {
		in->initrd = data;
		in->initrd_size = module->size;
	} else if (boot_module_role(module, "firmware")) {
		m->firmware.image = data;
		m->firmware.size = module->size;
		m->assign.cold = true;
	} else if ((rest = boot_module_role(module, "module"))) {
		m->modules[in->module_count++] =
			(struct loader_module){data, module->size, rest};
		in->modules = m->modules;
	} else if (boot_module_role(module, "rom")) {
		m->assign.rom_file = module;
	} else if (!boot_module_role(module, "microcode") &&
		   !firmware_is_text(module->string)) {
		log_warn("module '%s': its first word is none of 'kernel', "
			 "'initrd', 'module', 'firmware', 'rom', 'microcode'",
			 module->string);
	}
}

static int find_modules(struct machine *m)
{
	const struct boot_info *b = &m->host->boot;

	for (unsigned i = 0; i < b->module_count; i++)
		take_module(m, &b->modules[i]);
	if (m->loader.kernel && m->firmware.image) {
		log_error("modules 'kernel' and 'firmware': each of them is a "
			  "guest; leave one out");
		return -EINVAL;
	}
	if (m->loader.kernel || m->firmware.image || m->host->options.list)
		return firmware_check(&m->firmware);
	log_error("no guest: name one in GRUB's menu entry: module2 FILE "
		  "kernel COMMAND LINE, or module2 FILE firmware");
	return -ENOENT;
}

/* Another card may show what the loader has drawn. */
static bool owns_screen(const struct machine *m)
{
	const struct pci_function *f = m->assign.display;

	return m->assign.vga || (f && gop_bar(f, &m->host->boot.fb) >= 0);
}

static bool is_bios_guest(const struct machine *m)
{
	return m->host->options.guest == GUEST_BIOS;
}

static int init_vm(struct machine *m)
{
	struct vm *vm = &m->vm;
	hpa_t bitmaps = phys_alloc(&host_memory, 4 * PAGE_SIZE, PAGE_SIZE,
				   PHYS_ANYWHERE);
	int err;

	if (bitmaps == PHYS_NONE)
		return -ENOMEM;
	vm->vmx = &m->host->vmx;
	vm->io_bitmap = phys_to_virt(bitmaps);
	vm->msr_bitmap = phys_to_virt(bitmaps + 2 * PAGE_SIZE);
	memset(vm->io_bitmap, 0xff, 2 * PAGE_SIZE);
	msr_bitmap_fill(vm->msr_bitmap);
	vm->apicv_bitmap = phys_to_virt(bitmaps + 3 * PAGE_SIZE);
	msr_bitmap_fill(vm->apicv_bitmap);
	msr_bitmap_open_apic(vm->apicv_bitmap);
	guest_features_init(&vm->features, vm->vmx->cpu2);
	vm->features.mwait = vm->vmx->mwait;
	vm->features.pv_eoi = !vm->vmx->apicv;
	vm->features.tsc_hz = m->host->tsc_exact ? m->host->tsc_hz : 0;
	vm->features.no_hypervisor_bit = m->host->options.no_hypervisor_bit;
	vclock_init(&vm->clock, m->host->tsc_hz);
	err = ept_init(vm->ept, vm->vmx);
	err = err ? err : ept_map_list(vm->ept, &vm->map);
	/* For the independent walker of tests/walker */
	if (!err)
		log_info("vmx: EPTP 0x%lx, %u tables", vm->ept->eptp,
			 vm->ept->tables);
	return err;
}

/* All that the guest is given does DMA by one reading of its map. */
static int init_dma(struct machine *m)
{
	if (!m->host->has_vtd)
		return 0;
	return vtd_domain_create(&m->host->vtd, &m->vm.map, &m->assign.domain);
}

/* One that no CPU of the host has: the guest's have theirs. */
static u8 ioapic_id(const struct machine *m)
{
	return guest_acpi_ioapic_id(m->host->madt.cpus,
				    m->host->madt.cpu_count);
}

static int write_acpi(struct machine *m)
{
	const struct acpi_madt *madt = &m->host->madt;
	bool planned = !m->cpu_count; /* as many as there may be */
	bool firmware = m->firmware.image;
	struct guest_acpi_config cfg = {
		.tables = m->acpi_base,
		.tables_host = m->firmware.tables,
		.tables_size = GUEST_ACPI_SIZE,
		.rsdp = BIOS_RSDP,
		.rsdp_host = firmware ? &m->firmware.rsdp : m->rsdp,
		.vcpus = planned ? MIN(MAX(madt->cpu_count, 1u), CPUS_MAX)
				 : m->cpu_count,
		.apic_ids = planned ? madt->cpus : m->apic_ids,
		.ioapic_id = ioapic_id(m),
		.ecam = m->ecam,
		.roots = m->roots,
		.root_count = m->root_count,
		.pm_timer = m->acpi_pm.port,
		.pm_timer_bits = m->acpi_pm.bits,
		.no_8042 = !i8042_present(),
		.no_vga = !m->assign.vga,
	};
	gpa_t rsdp;

	machine_windows(m, &cfg);
	return guest_acpi_build(&cfg, &m->vm.map, &rsdp);
}

/* The guest's kernel, or the boot sector's BIOS, will find what it needs. */
static int check_start(struct machine *m)
{
	if (m->host->options.rom_init &&
	    rom_init_check(&m->rom_init, &m->vm.map, true))
		return -EINVAL;
	if (m->firmware.image && firmware_check_memory(&m->firmware))
		return -ENOMEM;
	if (write_acpi(m)) {
		log_error("the guest's ACPI tables do not fit their place");
		return -ENOSPC;
	}
	return m->loader.kernel && !is_bios_guest(m) ? loader_check(&m->loader)
						     : 0;
}

/* All tables that the CPU and the IOMMU walk; in force is none. */
static int build_tables(struct machine *m)
{
	int err = m->host->has_vmx ? init_vm(m) : 0;

	if (!err)
		err = init_dma(m);
	if (err)
		log_error("the guest's page tables cannot be built (error %d); "
			  "too little memory, or an address out of the CPU's "
			  "or the IOMMU's reach",
			  -err);
	return err;
}

static void set_line(void *ctx, unsigned line, bool asserted)
{
	struct machine *m = ctx;

	if (line < PIC_LINES)
		pic_set_line(&m->pic, line, asserted);
	/* The override that the guest's MADT states. */
	ioapic_set_line(&m->ioapic, line == VIRQ_PIT ? 2 : line, asserted);
	if (m->pic.intr && m->vm.smp)
		vcpu_kick(&m->cpus[0]->vcpu);
}

static void send_msi(void *ctx, u64 address, u32 data)
{
	struct machine *m = ctx;

	apic_bus_msi(&m->apics, address, data);
}

static u32 msi_target(void *ctx, u64 address, u32 data)
{
	const struct machine *m = ctx;

	return apic_bus_msi_target(&m->apics, address, data);
}

void machine_connect(struct machine *m, struct host *host)
{
	m->host = host;
	m->assign.pci = &host->pci;
	m->assign.vtd = host->has_vtd ? &host->vtd : NULL;
	m->assign.madt = &host->madt;
	m->assign.boot = &host->boot;
	m->assign.options = &host->options;
	m->assign.tsc_hz = host->tsc_hz;
	m->assign.vm = &m->vm;
	m->assign.vpci = &m->vpci;
	m->assign.ioapic = &m->ioapic;
	m->assign.virq = &m->virq;
	m->virq = (struct virq){set_line, send_msi, msi_target, m};
	m->vm.ept = &m->ept;
	m->vm.open_windows = windows_open;
	m->loader.map = &m->vm.map;
	m->loader.rsdp = BIOS_RSDP;
	m->loader.uefi = host->boot.uefi;
	m->bios.loader = &m->loader;
	m->bios.bus = &m->vm.bus;
	m->rsdp = &m->bios.rsdp; /* or pin_bios() says where */
	m->firmware.map = &m->vm.map;
	m->firmware.boot = &host->boot;
	m->firmware.options = &host->options;
	m->rom_init.boot = &host->boot;
	m->rom_init.options = &host->options;
}

/* What the other rooms need to know of what is assigned. */
static void tell_choice(struct machine *m)
{
	const struct assignment *all = &m->assign;

	m->rom_init.display = all->display;
	m->rom_init.rom = assigned_display_rom(all);
	m->rom_init.vga = all->vga;
	for (unsigned i = 0; i < all->count; i++)
		m->bios.has_disk |= all->functions[i].function->class >> 8 == 1;
	if (owns_screen(m))
		m->loader.screen = &m->host->boot.fb;
}

int machine_plan(struct machine *m)
{
	int err = find_modules(m);

	m->assign.uefi = m->firmware.uefi;
	if (!err)
		err = assigned_choose(&m->assign);
	if (!err)
		err = assigned_find_roms(&m->assign);
	if (!err)
		err = machine_map(m);
	if (!err)
		err = build_tables(m);
	if (err)
		return err;
	tell_choice(m);
	return check_start(m);
}

static void request_reset(void *ctx)
{
	struct machine *m = ctx;

	vm_request(&m->vm, VM_RESET);
}

static void request_power_off(void *ctx)
{
	struct machine *m = ctx;

	vm_request(&m->vm, VM_POWER_OFF);
}

static void debug_exit(void *ctx, u32 value)
{
	struct machine *m = ctx;

	m->vm.exit_code = (u8)value;
	vm_request(&m->vm, VM_EXIT_CODE);
}

static void host_keyboard(void *ctx, unsigned vector)
{
	struct machine *m = ctx;

	(void)vector;
	i8042_host_irq(&m->i8042, VIRQ_KEYBOARD);
}

static void host_mouse(void *ctx, unsigned vector)
{
	struct machine *m = ctx;

	(void)vector;
	i8042_host_irq(&m->i8042, VIRQ_MOUSE);
}

static void route(struct machine *m, u8 irq, host_irq_handler *handler,
		  void *ctx)
{
	int vector = host_irq_alloc(handler, ctx);

	if (vector < 0 || host_irq_route(&m->host->madt, irq, (u8)vector))
		log_warn("ISA interrupt %u cannot be routed", irq);
}

static void connect_host(struct machine *m)
{
	route(m, VIRQ_KEYBOARD, host_keyboard, m);
	route(m, VIRQ_MOUSE, host_mouse, m);
	m->console.uart = &m->uart;
	m->console.present = serial_init(COM1);
	if (!m->console.present)
		return;
	console_rts(&m->console, m->uart.rts);
	route(m, VIRQ_COM1, console_interrupt, &m->console);
	serial_interrupts(COM1, false);
}

/* A level interrupt's EOI, which comes without the lock. */
static void level_eoi(void *ctx, u8 vector)
{
	struct machine *m = ctx;

	vm_lock(&m->vm);
	ioapic_eoi(&m->ioapic, vector);
	vm_unlock(&m->vm);
}

static int init_interrupts(struct machine *m)
{
	struct bus *bus = &m->vm.bus;
	int err = ioapic_init(&m->ioapic, bus, &m->apics, ioapic_id(m));

	m->apics.eoi = level_eoi;
	m->apics.ioapic = m;
	if (!err)
		err = pic_init(&m->pic, bus);
	return err;
}

/* The guest's firmware asks for them when it has set the BARs. */
static void tell_firmware(void *machine)
{
	struct machine *m = machine;

	if (!write_acpi(m))
		firmware_link(&m->firmware);
}

static int init_firmware(struct machine *m)
{
	const struct pci_rom *rom = assigned_display_rom(&m->assign);
	struct firmware *f = &m->firmware;
	struct firmware_machine machine = {
		.serial_port = rom && rom->legacy ? 0 : COM1,
		.roots = m->root_count,
		.fill = tell_firmware,
		.ctx = m,
	};

	/* OVMF has an order of its own, and deletes what a list leaves out. */
	if (!f->uefi)
		machine.boot_order = boot_order(&m->assign, f->boot_order,
						sizeof(f->boot_order));
	return firmware_init(f, &m->vm.bus, &machine);
}

static int init_legacy(struct machine *m)
{
	struct bus *bus = &m->vm.bus;
	struct vclock *clock = &m->vm.clock;
	u8 cmos[RTC_CMOS_SIZE] = {0};
	int err;

	rtc_cmos_memory(cmos, MIB + e820_ram(&m->vm.map, MIB, 4 * GIB),
			e820_ram(&m->vm.map, 4 * GIB, ~0ull));
	err = pit_init(&m->pit, bus, clock, &m->virq);
	if (!err)
		err = rtc_init(&m->rtc, bus, clock, &m->virq, cmos);
	if (!err)
		err = uart_init(&m->uart, bus, &m->virq, console_put,
				console_rts, &m->console);
	if (!err)
		err = i8042_init(&m->i8042, bus, &m->virq, request_reset, m);
	if (!err)
		err = acpi_pm_init(&m->acpi_pm, bus, clock, &m->virq,
				   request_power_off, m);
	if (!err)
		err = reset_ports_init(&m->reset_ports, bus, request_reset,
				       debug_exit, m);
	return err;
}

/* The hole for devices below 4 GiB, uncached as firmware would say it. */
static int init_mtrr(struct machine *m, struct machine_cpu *cpu)
{
	struct guest_acpi_config cfg = {0};
	struct mtrr_hole hole = {.base = 4 * GIB};
	int err;

	machine_windows(m, &cfg);
	for (unsigned i = 0; i < cfg.window_count; i++)
		if (!cfg.windows[i].ports && cfg.windows[i].base >= MIB)
			hole.base = MIN(hole.base, cfg.windows[i].base);
	/* From a boundary that few ranges describe. */
	hole.base = ALIGN_UP(hole.base, 256 * MIB);
	hole.size = 4 * GIB - hole.base;
	err = mtrr_init(&cpu->mtrr, &cpu->bus, m->vm.features.physical_bits,
			&hole, hole.base < 4 * GIB && !m->assign.cold ? 1 : 0);
	cpu->mtrr.cold = m->assign.cold;
	return err;
}

static void stop_for_smm(void *ctx)
{
	struct machine *m = ctx;

	log_error("module 'firmware': this OVMF needs system management mode, "
		  "which no guest has; take the file that is not *.secboot.fd "
		  "or *.ms.fd");
	vm_request(&m->vm, VM_STOP);
}

/* OVMF has it at 0xE0000000 since 2023; what stays at FIRMWARE_ECAM is no RAM. */
static void move_ecam(void *ctx, gpa_t base)
{
	struct machine *m = ctx;
	u8 last = m->roots[m->root_count - 1].last_bus;
	u64 size = (last + 1) * MIB;
	gpa_t at;

	if (base == m->ecam)
		return;
	bus_unregister(&m->vm.bus, BUS_MMIO, m->ecam);
	m->ecam = base;
	if ((base == FIRMWARE_ECAM ||
	     region_next_free(&m->vm.map, base, base + size, &at) == size) &&
	    !vpci_add_ecam(&m->vpci, &m->vm.bus, base, last))
		return;
	log_error("module 'firmware': it wants ECAM at 0x%lx, where something "
		  "of the hardware must stay",
		  base);
	vm_request(&m->vm, VM_STOP);
}

/* A vCPU's devices; its VMCS is its own CPU's to set up. */
static int add_cpu(struct machine *m, struct percpu *host)
{
	hpa_t at = phys_alloc(&host_memory,
			      ALIGN_UP(sizeof(struct machine_cpu), PAGE_SIZE),
			      PAGE_SIZE, PHYS_ANYWHERE);
	struct machine_cpu *cpu = phys_to_virt(at);
	struct vcpu *v = &cpu->vcpu;
	int err;

	if (at == PHYS_NONE)
		return -ENOMEM;
	memset(cpu, 0, sizeof(*cpu));
	v->vm = &m->vm;
	v->cpu = host;
	v->lapic = &cpu->lapic;
	v->bus = &cpu->bus;
	v->pic = m->cpu_count ? &m->no_pic : &m->pic;
	vclock_init(&v->clock, m->host->tsc_hz);
	err = lapic_init(&cpu->lapic, &m->apics, &cpu->bus, &v->clock,
			 host->apic_id, m->vm.features.physical_bits);
	cpu->lapic.kick = vcpu_kick;
	cpu->lapic.vcpu = v;
	if (!err)
		err = msr_init(&cpu->bus);
	if (!err && m->vm.features.pv_eoi)
		err = pv_eoi_init(v);
	if (!err)
		err = init_mtrr(m, cpu);
	if (err)
		return err;
	m->apic_ids[m->cpu_count] = host->apic_id;
	m->vm.vcpus[m->cpu_count] = v;
	m->cpus[m->cpu_count++] = cpu;
	return 0;
}

static int init_first_cpu(struct machine *m)
{
	struct host *host = m->host;
	int err;

	/* Before its VMCS: what others lack, it may not set either. */
	host->parked_count =
		cpus_choose(host->parked, host->parked_count,
			    host->options.cpus ? host->options.cpus : CPUS_MAX,
			    &host->vmx, &m->vm.features, host->tsc_hz);
	err = add_cpu(m, percpu());
	m->vm.vcpu_count = m->cpu_count;
	return err ? err : vcpu_init(&m->cpus[0]->vcpu);
}

static int start_cpu(struct machine *m, struct percpu *host)
{
	u64 hz = m->host->tsc_hz;
	struct vcpu *v;
	int err = add_cpu(m, host);

	if (err)
		return err;
	v = &m->cpus[m->cpu_count - 1]->vcpu;
	err = park_give_job(host, vcpu_serve, v, hz);
	if (err)
		return err;
	return spin_until(&v->ready, 1, hz) ? v->error : -ETIMEDOUT;
}

/* As soon as there is more than one, they share. */
static void share(struct machine *m)
{
	struct vm *vm = &m->vm;

	vm->vcpu_count = m->cpu_count;
	vm->smp = m->cpu_count > 1;
	vm->features.smp = vm->smp;
	vm->kick_others = vcpu_kick_others;
	if (vm->smp)
		log_info("guest: %u CPUs", m->cpu_count);
}

/* Those that do not start are left out, and the guest hears nothing of them. */
static void start_further_cpus(struct machine *m)
{
	const struct host *host = m->host;

	for (unsigned n = 0; n < host->parked_count; n++) {
		unsigned before = m->cpu_count;
		int err = start_cpu(m, host->parked[n]);

		if (!err)
			continue;
		log_warn("CPU with APIC ID 0x%x runs no vCPU (error %d)",
			 host->parked[n]->apic_id, -err);
		m->cpu_count = before;
		m->apics.count = before;
	}
	share(m);
}

static int init_pci(struct machine *m)
{
	const struct pci_host *host = &m->host->pci;
	struct pci_identity bridge, isa;
	int err = vpci_init(&m->vpci, &m->vm.bus);

	if (!err && m->ecam)
		err = vpci_add_ecam(&m->vpci, &m->vm.bus, m->ecam,
				    m->roots[m->root_count - 1].last_bus);
	pci_identity_read(host, BDF(0, 0, 0), &bridge);
	pci_identity_isa(host, &isa);
	if (m->firmware.image)
		pci_identity_q35(&bridge);
	if (!err)
		err = host_bridge_init(&m->host_bridge, &m->vpci, &bridge);
	if (m->assign.igd.function)
		host_bridge_graphics(&m->host_bridge, host,
				     m->assign.igd.generation == 5
					     ? BRIDGE_IRONLAKE
					     : BRIDGE_SANDY_BRIDGE);
	if (!err)
		err = isa_bridge_init(&m->isa_bridge, &m->vpci, &isa);
	if (m->firmware.image) {
		m->isa_bridge.pm_base = ACPI_PM1A_EVT_BLK;
		m->host_bridge.no_smm = stop_for_smm;
		m->host_bridge.move_ecam = move_ecam;
		m->host_bridge.ctx = m;
	}
	if (!err)
		err = assigned_init(&m->assign);
	return err;
}

int machine_build(struct machine *m)
{
	int err = init_interrupts(m);

	if (!err)
		err = init_legacy(m);
	if (!err && m->firmware.image)
		err = init_firmware(m);
	if (!err)
		err = init_pci(m);
	if (!err)
		err = init_first_cpu(m);
	if (!err && is_bios_guest(m))
		err = bios_save(&m->bios);
	if (err) {
		log_error("the guest's machine cannot be built (error %d)",
			  -err);
		return err;
	}
	m->rom_init.vcpu = &m->cpus[0]->vcpu;
	start_further_cpus(m);
	m->firmware.config.vcpus = (u16)m->cpu_count;
	machine_open_ports(m);
	connect_host(m);
	physmap_clear(&m->vm.map);
	return 0;
}

/* Before the first start the firmware's picture stays, if not told else. */
static bool display_is_reset(const struct machine *m)
{
	unsigned policy = m->host->options.igd_reset;

	if (policy == RESET_AUTO && m->resets)
		return !m->firmware.uefi &&
		       !rom_init_check(&m->rom_init, &m->vm.map, false);
	return policy == RESET_ALWAYS || (policy == RESET_REBOOT && m->resets);
}

static void reset_devices(struct machine *m)
{
	if (m->host->options.igd == IGD_CLOSED)
		windows_close(&m->vm);
	assigned_reset_all(&m->assign, display_is_reset(m));
	vpci_reset(&m->vpci);
	for (unsigned n = 0; n < m->cpu_count; n++) {
		lapic_reset(&m->cpus[n]->lapic);
		mtrr_reset(&m->cpus[n]->mtrr);
	}
	lapic_virtual_wire(&m->cpus[0]->lapic);
	ioapic_reset(&m->ioapic);
	pic_reset(&m->pic);
	pit_reset(&m->pit);
	rtc_reset(&m->rtc);
	uart_reset(&m->uart);
	i8042_reset(&m->i8042);
	acpi_pm_reset(&m->acpi_pm);
	reset_ports_reset(&m->reset_ports);
	assigned_log(&m->assign);
}

static int load_kernel(struct machine *m, struct guest_entry *entry)
{
	int err;

	if (m->firmware.image)
		return firmware_start(&m->firmware, entry);
	err = write_acpi(m);
	if (err)
		return err;
	return is_bios_guest(m) ? bios_start(&m->bios, entry)
				: loader_load(&m->loader, entry);
}

/* Nobody scans out what firmware has drawn: the guest is not told of it. */
static void give_picture_up(struct machine *m)
{
	const struct pci_function *f = m->assign.display;

	if (!f || pci_reset_method(&m->host->pci, f->bdf) == PCI_RESET_NONE)
		return;
	m->loader.screen = NULL;
	log_warn("display: its reset (igd-reset=) has taken the picture of "
		 "%02x:%02x.%x; it is back when a driver sets a mode",
		 BDF_ARGS(f->bdf));
}

/* The picture that a guest, or the display's reset, has taken. */
static int bring_picture_back(struct machine *m)
{
	bool lost = display_is_reset(m);

	/* A guest's firmware runs the video BIOS itself. */
	if (m->firmware.image || (!m->host->options.rom_init && !lost))
		return 0;
	if (rom_init_check(&m->rom_init, &m->vm.map, false)) {
		give_picture_up(m);
		return 0;
	}
	m->loader.screen = &m->text;
	return rom_init(&m->rom_init, &m->text, &m->loader.cursor_row);
}

/* Devices as after power-on, the kernel anew from its pristine module. */
static int start_guest(struct machine *m)
{
	struct guest_entry entry;
	int err;

	reset_devices(m);
	m->loader.cursor_row = (u8)MIN(m->host->screen_row, 24u);
	if (is_bios_guest(m))
		bios_restore(&m->bios);
	err = bring_picture_back(m);
	if (err && !m->resets)
		return err;
	err = load_kernel(m, &entry);
	if (err)
		return err;
	vcpu_reset(&m->cpus[0]->vcpu, &entry);
	__atomic_store_n(&m->vm.request, VM_RUN, __ATOMIC_SEQ_CST);
	if (m->vm.smp) /* for what devices sent them before their reset */
		m->vm.kick_others(&m->vm);
	return 0;
}

static void start_stats(struct machine *m)
{
	const struct stats none = {.tsc_hz = m->host->tsc_hz, .start = rdtsc()};

	for (unsigned n = 0; n < m->cpu_count; n++)
		m->cpus[n]->vcpu.stats = none;
}

/* Nobody runs. */
static void log_stats(struct machine *m)
{
	struct stats sum;

	vcpu_stats_sum(&m->vm, &sum);
	stats_log(&sum, sum.now);
	for (unsigned n = 0; m->vm.smp && n < m->cpu_count; n++)
		stats_log_vcpu(&m->cpus[n]->vcpu.stats, m->cpus[n]->lapic.id,
			       sum.now);
	assigned_stats_log(&m->assign);
}

enum vm_request machine_run(struct machine *m)
{
	for (;; m->resets++) {
		if (start_guest(m))
			return m->resets ? VM_STOP : VM_REFUSED;
		start_stats(m);
		vcpu_run(&m->cpus[0]->vcpu);
		vm_wait_for_others(&m->vm);
		console_flush(&m->console);
		if (m->vm.request != VM_RESET)
			break;
		log_info("guest: reset (%u)", m->resets + 1);
		log_stats(m);
	}
	log_stats(m);
	assigned_reset_all(&m->assign, false);
	return m->vm.request;
}
