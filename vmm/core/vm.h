/* SPDX-License-Identifier: MIT */
/*
 * One guest: its memory, its devices' bus and clock. Nothing here
 * is global; whoever has the pointer has the guest.
 */
#ifndef VMM_CORE_VM_H
#define VMM_CORE_VM_H

#include "arch/x86/cpu.h"
#include "arch/x86/spinlock.h"
#include "kernel/percpu.h"
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

/* Leaves of CPUID whose features differ where CPUs are not all of one kind. */
enum guest_common {
	GUEST_LEAF_1,
	GUEST_LEAF_7,
	GUEST_LEAF_D_1,
	GUEST_LEAF_EXTENDED_1,
	GUEST_COMMON,
};

/* What a guest's CPUID may show: decided once, from the host's. */
struct guest_features {
	u64 cr4_allowed; /* bits that the guest may set */
	u64 efer_allowed;
	u64 xcr0_allowed;
	u64 xss_allowed;
	u64 tsc_hz; /* 0: only measured */
	u8 physical_bits;
	u32 cpu2;  /* secondary controls in force */
	u32 mwait; /* states of CPUID.5:EDX that it may sleep in */
	bool no_hypervisor_bit;
	bool pv_eoi; /* KVM's: where the CPU ends no interrupts itself */
	bool smp; /* its CPUs' places are the host's; else it has one thread */
	u32 leaf6_eax, leaf6_ecx;	  /* of CPUID 6, whose MSRs are there */
	bool limited;			  /* lacks is not all 0, perhaps */
	struct cpuid lacks[GUEST_COMMON]; /* what not all of its CPUs have */
};

#define WINDOWS_RUNS 32 /* that one hypercall asks for */

/* An entry of its list (docs/hypercalls.md). */
struct window_run {
	u64 gpa, pages;
};

_Static_assert(sizeof(struct window_run) == 16, "ABI");

struct vcpu;

struct vm {
	/* On one line, which no CPU writes before the end: what each exit
	 * reads, or nearly each. */
	enum vm_request request;
	bool smp;      /* there is more than one vCPU: else there is no lock */
	bool rom_runs; /* rom-init: the guest is not started yet */
	u8 exit_code;
	struct ept *ept;
	const struct vmx_capabilities *vmx;
	void *io_bitmap; /* two pages: A, B */
	void *msr_bitmap;
	void *apicv_bitmap; /* of MSRs, for a vCPU with APICv */
	/* Of the n-th assigned function; false: there is none. NULL: none. */
	bool (*device_stats)(void *ctx, unsigned n, struct device_stats *out);
	void *device_ctx;
	struct bus bus;
	struct vclock clock;
	struct region_list map;
	/* Memory of the graphics, with the rights that it has when open. */
	struct region_list windows;
	struct guest_features features;
	/* windows_open() (vmm/assign/windows.h). */
	int (*open_windows)(struct vm *vm, const struct window_run *runs,
			    unsigned count);

	/*
	 * Several vCPUs, each on a CPU of its own. What is below is changed by
	 * locked instructions, or under the lock.
	 */
	struct vcpu *vcpus[CPUS_MAX]; /* the first is the BSP's */
	unsigned vcpu_count;
	struct spinlock lock;
	u64 held_since, longest_hold; /* of the lock, TSC ticks */
	bool stop;		      /* the map is being changed */
	u64 running; /* CPUs (bits by percpu.index) that run vCPUs */
	u64 paused;  /* those of them that look at nothing meanwhile */
	/* All vCPUs but the caller's come out of the guest and look. */
	void (*kick_others)(struct vm *vm);
};

_Static_assert(offsetof(struct vm, bus) == 64, "what is written is apart");

/*
 * The lock of the devices, of their clock, of the map and the EPT. Held for
 * one access, never over an entry; not taken twice.
 */
void vm_lock_shared(struct vm *vm);
void vm_unlock_shared(struct vm *vm);

static inline void vm_lock(struct vm *vm)
{
	if (vm->smp)
		vm_lock_shared(vm);
}

static inline void vm_unlock(struct vm *vm)
{
	if (vm->smp)
		vm_unlock_shared(vm);
}

int vm_dispatch_shared(struct vm *vm, enum bus_space space,
		       struct bus_access *a);

/* bus_dispatch() on the devices' bus, under the lock. */
static inline int vm_dispatch(struct vm *vm, enum bus_space space,
			      struct bus_access *a)
{
	return vm->smp ? vm_dispatch_shared(vm, space, a)
		       : bus_dispatch(&vm->bus, space, a);
}

/*
 * Between these, under the lock, the map and the EPT are changed and tables are
 * freed: every other vCPU is outside of the guest and looks at neither, and
 * before its next entry it drops what its CPU remembers of the EPT.
 */
void vm_change_begin(struct vm *vm);
void vm_change_end(struct vm *vm);

/* The calling CPU begins to run its vCPU; false: there is a request. */
bool vm_enter(struct vm *vm);
void vm_leave(struct vm *vm);
/* Where a vCPU looks at nothing: while the map is changed, it waits. */
void vm_pause(struct vm *vm);
/* Until no CPU runs a vCPU, after a request. */
void vm_wait_for_others(struct vm *vm);

/* From any CPU. The first word counts: a reset does not undo a power-off. */
void vm_request(struct vm *vm, enum vm_request what);

static inline enum vm_request vm_requested(const struct vm *vm)
{
	return __atomic_load_n(&vm->request, __ATOMIC_RELAXED);
}

/* These ports cause no exit, or do. */
void vm_open_ports(struct vm *vm, u64 first, u64 count, bool open);

#endif
