/* SPDX-License-Identifier: MIT */
/*
 * One guest: its memory, its devices' bus and clock. Nothing here
 * is global; whoever has the pointer has the guest.
 */
#ifndef VMM_CORE_VM_H
#define VMM_CORE_VM_H

#include "kernel/region.h"
#include "vmm/core/bus.h"
#include "vmm/core/stats.h"
#include "vmm/core/vclock.h"

struct ept;
struct vmx_capabilities;

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
	u64 tsc_hz; /* 0: only measured */
	u8 physical_bits;
	u32 cpu2; /* secondary controls in force */
	bool no_hypervisor_bit;
	u32 leaf6_eax, leaf6_ecx; /* of CPUID 6, whose MSRs are there */
};

#define WINDOWS_RUNS 32 /* that one hypercall asks for */

/* An entry of its list (docs/hypercalls.md). */
struct window_run {
	u64 gpa, pages;
};

_Static_assert(sizeof(struct window_run) == 16, "ABI");

struct vm {
	struct region_list map;
	/* Memory of the graphics, with the rights that it has when open. */
	struct region_list windows;
	struct ept *ept;
	struct bus bus;
	struct vclock clock;
	struct guest_features features;
	const struct vmx_capabilities *vmx;
	enum vm_request request;
	bool rom_runs; /* rom-init: the guest is not started yet */
	u8 exit_code;
	void *io_bitmap; /* two pages: A, B */
	void *msr_bitmap;
	/* Of the n-th assigned function; false: there is none. NULL: none. */
	bool (*device_stats)(void *ctx, unsigned n, struct device_stats *out);
	void *device_ctx;
	/* windows_open() (vmm/assign/windows.h). */
	int (*open_windows)(struct vm *vm, const struct window_run *runs,
			    unsigned count);
};

/* These ports cause no exit, or do. */
void vm_open_ports(struct vm *vm, u64 first, u64 count, bool open);

#endif
