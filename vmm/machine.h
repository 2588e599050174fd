/* SPDX-License-Identifier: MIT */
/*
 * The guest's machine: its memory map, its devices and their wiring, and the
 * kernel that runs on it. Built once; reset as often as the guest asks.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "arch/x86/vmx/ept.h"
#include "drivers/pci/pci.h"
#include "drivers/vtd/vtd.h"
#include "kernel/acpi.h"
#include "kernel/boot_info.h"
#include "kernel/options.h"
#include "vmm/assign/assigned.h"
#include "vmm/console.h"
#include "vmm/core/virq.h"
#include "vmm/devmodel/acpi_pm.h"
#include "vmm/devmodel/i8042.h"
#include "vmm/devmodel/ioapic.h"
#include "vmm/devmodel/mtrr.h"
#include "vmm/devmodel/pci_assigned.h"
#include "vmm/devmodel/pci_bridges.h"
#include "vmm/devmodel/pci_bus.h"
#include "vmm/devmodel/pci_port.h"
#include "vmm/devmodel/pit.h"
#include "vmm/devmodel/reset.h"
#include "vmm/devmodel/rtc.h"
#include "vmm/load/bios.h"
#include "vmm/load/firmware.h"
#include "vmm/load/guest_acpi.h"
#include "vmm/rom_init.h"
#include "vmm/vcpu/vcpu.h"

/* The host as Monocle found it; outlives the machine. */
struct host {
	struct boot_info boot;
	struct options options;
	struct acpi_tables acpi;
	struct acpi_madt madt;
	struct acpi_power power;
	struct pci_host pci;
	struct vmx_capabilities vmx;
	bool has_vmx; /* with all that Monocle needs */
	struct vtd vtd;
	bool has_vtd;  /* DMA is remapped, or will be */
	u32 microcode; /* the revision in force, 0: not known */
	u64 tsc_hz;
	bool tsc_exact;	     /* else the guest measures it itself */
	unsigned screen_row; /* where the log ended on a text screen */
	struct percpu *parked[CPUS_MAX]; /* further CPUs, by boot/smp.c */
	unsigned parked_count;
};

/* What is each vCPU's own. */
struct machine_cpu {
	struct lapic lapic; /* first, for it is aligned */
	struct vcpu vcpu;
	struct bus bus; /* behind what ends a line */
	struct mtrr mtrr;
};

struct machine {
	struct host *host;
	_Alignas(64) struct vm vm; /* lines that each exit reads */
	struct ept ept;
	struct apic_bus apics;
	struct machine_cpu *cpus[CPUS_MAX]; /* the first is the BSP's */
	u32 apic_ids[CPUS_MAX];		    /* theirs: the host's */
	unsigned cpu_count;
	struct ioapic ioapic;
	struct pic pic;
	struct pic no_pic; /* further CPUs hear nothing of the 8259s */
	struct pit pit;
	struct rtc rtc;
	struct uart uart;
	struct console console;
	struct i8042 i8042;
	struct acpi_pm acpi_pm;
	struct reset_ports reset_ports;
	struct vpci vpci;
	struct pci_bridge host_bridge, isa_bridge;
	struct virq virq;
	struct assignment assign;
	struct loader_input loader;
	struct loader_module modules[BOOT_MODULES_MAX]; /* of role "module" */
	struct bios bios;				/* guest=bios */
	struct firmware firmware;
	struct rom_init rom_init;
	struct boot_framebuffer text; /* the screen after it */
	void *rsdp;		      /* where the guest's BIOS area holds it */
	gpa_t acpi_base;	      /* the guest's ACPI tables */
	gpa_t ecam; /* the guest's, 0: none; a MiB for each bus */
	struct guest_acpi_root roots[GUEST_ACPI_ROOTS]; /* that it finds */
	unsigned root_count;
	unsigned resets;
};

/* Hands the rooms what is theirs of the host, and of each other. */
void machine_connect(struct machine *m, struct host *host);
/*
 * After machine_connect(). Chooses what the guest is given, lays out its
 * memory, builds EPT and VT-d tables and checks that the kernel can be loaded;
 * touches no device but to size BARs. Errors are logged in one line each. For
 * the option list it does without a kernel, and without VMX.
 */
int machine_plan(struct machine *m);
/* Builds the devices and the vCPU. After VMXON. */
int machine_build(struct machine *m);
/* Runs the guest, through its resets, until it ends; says how. */
enum vm_request machine_run(struct machine *m);

#endif
