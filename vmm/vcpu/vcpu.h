/* SPDX-License-Identifier: MIT */
/*
 * The vCPU: its VMCS, the loop around the guest, and what handlers of exits
 * may do to it. Acts on the current VMCS of the calling CPU.
 */
#ifndef VMM_VCPU_VCPU_H
#define VMM_VCPU_VCPU_H

#include "arch/x86/vmx/vmcs.h"
#include "arch/x86/vmx/vmx.h"
#include "vmm/core/entry.h"
#include "vmm/core/guest_mem.h"
#include "vmm/core/vm.h"
#include "vmm/devmodel/lapic.h"
#include "vmm/devmodel/pic.h"
#include "vmm/vcpu/guest_cpuid.h"
#include "vmm/vcpu/insn.h"

/* An event that the next entry injects (SDM 25.8.3). */
struct injection {
	u32 info; /* 0: none */
	u32 error;
	u32 length; /* of the instruction, for software events */
};

/* An instruction that has accessed a device, decoded (exit_mmio.c). */
struct decoded {
	_Alignas(64) u64 rip;
	u64 cr3;
	u64 generation;	 /* of the EPT, at that time; all below hangs on it */
	unsigned depth;	 /* of the walk; 0: not to be used again */
	gpa_t device;	 /* a page's number that is no memory; 0: none */
	const u8 *code;	 /* in host memory */
	u64 first, last; /* of its 15 bytes: 8, and the last 8 */
	struct guest_walked walked[GUEST_LEVELS];
	struct insn insn;
};

/* What CPUID has answered, and will again (exits.c). */
struct answer {
	_Alignas(32) u32 leaf; /* two on a line */
	u32 subleaf;
	struct cpuid r;
};

struct percpu;

#define VCPU_ANSWERS 32
#define VCPU_DECODED 16
#define VCPU_LENT 32 /* pages of one instruction: a gather has 16 operands */

struct vcpu {
	union {
		struct vmx_frame frame;
		u64 gpr[16]; /* enum gpr; RSP lives in the VMCS */
	};
	/* From here to the line's end: all else that a quiet exit reads. */
	struct vm *vm;
	bool attention; /* its own: events may be due before the next entry */
	u32 reason;	/* of the exit in hand */
	s64 slack;	/* ticks; below 0 the timer is armed anew */
	u64 transition; /* and what an exit and an entry take of it */
	struct lapic *lapic;
	struct bus *bus; /* its own, asked first: its LAPIC's page, its MSRs */
	/* The next: what events ask for, and accesses to registers. */
	u64 qualification;
	struct percpu *cpu; /* where it runs, and no other */
	struct pic *pic;
	const u64 *devices_next; /* vm->clock's, if they are its to serve */
	struct injection injection;
	u32 cpu_controls; /* as last written */
	u32 threshold;	  /* of the TPR, likewise */
	bool apicv;	  /* in force: the CPU delivers and ends interrupts */
	bool halted;	  /* waits for an event in HLT */
	bool asleep;	  /* the VMCS's activity state is HLT */
	bool nmi_pending;
	bool waits;	 /* not started: INIT, until a SIPI */
	u8 timer_shift;	 /* the preemption timer counts TSC >> this */
	u32 timer_max;	 /* and this at most */
	u64 timer_limit; /* the same in the TSC's ticks; 0: the clock is the
			  * local APIC's timer */
	s64 slack_max;	 /* how late it may be, for exits that do not arm it */
	struct vclock clock; /* of its LAPIC's timer */
	struct stats stats;
	u64 eoi_exits[4];   /* vectors whose EOI exits, as last written */
	u64 pv_eoi;	    /* KVM's MSR of that, as written */
	u64 ept_generation; /* up to which its CPU has done INVEPT */
	u32 ready;	    /* 1: vcpu_serve() has set it up */
	int error;	    /* why not */
	struct cpuid_context cpuid;
	hpa_t vmcs;
	void *ones; /* the page that is lent where nothing is: lend.c */
	gpa_t lent[VCPU_LENT];
	unsigned lent_count;
	bool lent_device; /* the one that is lent is a device's, to be read */
	bool steps;	  /* TF is Monocle's, meanwhile */
	struct decoded decoded[VCPU_DECODED];
	struct answer answers[VCPU_ANSWERS];
};

_Static_assert(offsetof(struct vcpu, qualification) == 192 &&
		       offsetof(struct vcpu, timer_limit) == 256,
	       "lines");

/* What a handler says of the exit. */
enum exit_action {
	EXIT_RESUME, /* nothing more to do; RIP stands */
	EXIT_SKIP,   /* the instruction is done: RIP moves behind it */
	EXIT_GP,     /* inject #GP(0) */
	EXIT_UD,     /* inject #UD */
	EXIT_STOP,   /* not to be emulated: dump and stop the guest */
};

/*
 * The caller has filled in vm, cpu, lapic, bus and pic (one that never asserts
 * for all but the first), and has added the LAPIC's timer to the clock, which
 * is this one's. A zeroed page for the VMCS is allocated; -ENOMEM, -EIO.
 */
int vcpu_init(struct vcpu *v);
/* pv_eoi.c: its MSR, on the vCPU's bus, whose errors it returns. */
int pv_eoi_init(struct vcpu *v);
/* Of the first: it serves the devices' clock; a reset by INIT is all's. */
static inline bool vcpu_is_first(const struct vcpu *v)
{
	return v->vm->vcpus[0] == v;
}
/* When the nearest timer is due that is its to serve. */
static inline u64 vcpu_next_timer(const struct vcpu *v)
{
	u64 devices = __atomic_load_n(v->devices_next, __ATOMIC_RELAXED);

	return MIN(v->clock.next, devices);
}
/* Registers and VMCS guest state as entry says; all else as after RESET. */
void vcpu_reset(struct vcpu *v, const struct guest_entry *entry);
/* Until vm->request is not VM_RUN, or an INIT stops a further one. */
void vcpu_run(struct vcpu *v);

/* serve.c: a vCPU on a CPU of its own, and what passes between them */

/*
 * A further CPU's work, as park_give_job() wants it: VMXON, vcpu_init(), then
 * the vCPU whenever a SIPI has started it. Sets ready or error.
 */
void vcpu_serve(void *vcpu);
/* Has it look, before its next instruction, for what was sent (from any CPU;
 * one interrupt at most until it has looked). As lapic.kick wants it. */
void vcpu_kick(void *vcpu);
/* As vm.kick_others wants it. */
void vcpu_kick_others(struct vm *vm);

/* Of all vCPUs, up to now. */
void vcpu_stats_sum(const struct vm *vm, struct stats *sum);

/* Queues an exception; contributory ones become #DF (SDM 6.15). */
void vcpu_inject(struct vcpu *v, unsigned vector, bool has_error, u32 error);
void vcpu_inject_page_fault(struct vcpu *v, gva_t gva, u32 error);
/* Blocking by STI and MOV SS is over: an instruction, or an element of a
 * repeated one, has been carried out (SDM 25.4.2, table 25-3). */
void vcpu_unblock(void);
/* An instruction has been carried out: as above, and a single step ends behind
 * it (SDM 27.7.3). */
void vcpu_retire(void);

/* CPUID answers anew: what it hangs on has changed. */
void vcpu_forget_answers(struct vcpu *v);

u64 vcpu_gpr(const struct vcpu *v, unsigned n);
void vcpu_set_gpr(struct vcpu *v, unsigned n, u64 value);
unsigned vcpu_cpl(void);
bool vcpu_long_mode(void);     /* EFER.LMA and CS.L */
unsigned vcpu_code_bits(void); /* 16, 32 or 64 */
bool vcpu_steps(void);	       /* a trap follows the instruction */

/* The guest's paging as guest_walk() wants it. */
struct guest_paging vcpu_paging(const struct vcpu *v);
/*
 * Guest memory by linear address with the guest's rights. A page fault is
 * queued for the guest (-EFAULT); -EIO: what is there is no memory.
 */
int vcpu_read_linear(struct vcpu *v, gva_t gva, void *buf, u64 size,
		     unsigned access);
int vcpu_write_linear(struct vcpu *v, gva_t gva, const void *buf, u64 size,
		      unsigned access);
/* Where size bytes of one page lie in host memory: *host. Errors as above. */
int vcpu_linear_ptr(struct vcpu *v, gva_t gva, u64 size, unsigned access,
		    u8 **host);
/* Up to 15 instruction bytes at RIP; returns how many were read. */
unsigned vcpu_fetch(struct vcpu *v, u8 buf[15]);

/* Registers, control state, exit and instruction bytes into the log. */
void vcpu_dump(struct vcpu *v);

#endif
