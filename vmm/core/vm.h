/* SPDX-License-Identifier: MIT */
/*
 * One guest: its memory, its devices' bus and clock, its vCPU. Nothing here
 * is global; whoever has the pointer has the guest.
 */
#ifndef VMM_CORE_VM_H
#define VMM_CORE_VM_H

#include "arch/x86/vmx/ept.h"
#include "kernel/region.h"
#include "vmm/core/bus.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/stats.h"
#include "vmm/core/vclock.h"
#include "vmm/devmodel/lapic.h"
#include "vmm/devmodel/pic.h"
#include "vmm/load/loader.h"

/* What the guest, or Monocle on its behalf, asks of the vCPU loop. */
enum vm_request {
	VM_RUN,
	VM_RESET,
	VM_POWER_OFF,
	VM_EXIT_CODE, /* a byte written to the debug exit port */
	VM_ROM_DONE,  /* the video BIOS has returned */
	VM_REFUSED,   /* never started; the log says why */
	VM_STOP,      /* what cannot be emulated; the dump is in the log */
};

/* What a guest's CPUID may show: decided once, from the host's. */
struct guest_features {
	u64 cr4_allowed; /* bits that the guest may set */
	u64 efer_allowed;
	u64 xcr0_allowed;
	u64 xss_allowed;
	u64 tsc_hz;
	u8 physical_bits;
	u32 cpu2; /* secondary controls in force */
};

/* What only the running vCPU can tell of its CPUID. */
struct cpuid_context {
	u64 cr4;
	u32 apic_id;
	const struct guest_features *features;
};

struct vm {
	struct region_list map;
	/* Memory of the graphics, with the rights that it has when open. */
	struct region_list windows;
	struct ept ept;
	struct bus bus;
	struct vclock clock;
	struct guest_features features;
	const struct vmx_capabilities *vmx;
	struct apic_bus apics;
	struct pic *pic;
	enum vm_request request;
	bool rom_runs; /* rom-init: the guest is not started yet */
	u8 exit_code;
	void *io_bitmap; /* two pages: A, B */
	void *msr_bitmap;
	/* Of the n-th assigned function; false: there is none. NULL: none. */
	bool (*device_stats)(void *ctx, unsigned n, struct device_stats *out);
	void *device_ctx;
};

/* An event that the next entry injects (SDM 25.8.3). */
struct injection {
	u32 info; /* 0: none */
	u32 error;
	u32 length; /* of the instruction, for software events */
};

struct percpu;

struct vcpu {
	u64 gpr[16]; /* enum gpr; RSP lives in the VMCS */
	struct vm *vm;
	struct percpu *cpu; /* where it runs */
	struct lapic *lapic;
	u32 cpu_controls; /* as last written */
	bool launched;
	bool halted; /* waits for an event in HLT */
	bool asleep; /* the VMCS's activity state is HLT */
	bool nmi_pending;
	struct injection injection;
	struct cpuid_context cpuid;
	u32 reason; /* of the exit in hand */
	u64 qualification;
	hpa_t vmcs;
	struct stats stats;
};

#endif
