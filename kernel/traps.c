/* SPDX-License-Identifier: MIT */
#include "kernel/traps.h"

#include "arch/x86/apic.h"
#include "kernel/log.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"

/* cpu.asm */
extern const char rdmsr_fault[], rdmsr_recover[];
extern const char cpu_sleep_window[], cpu_sleep_last[], cpu_sleep_out[];

static void dump(const struct trap_frame *f)
{
	log_error("  rip %016lx cs %04lx rflags %08lx rsp %016lx", f->rip,
		  f->cs, f->rflags, f->rsp);
	log_error("  rax %016lx rbx %016lx rcx %016lx rdx %016lx", f->rax,
		  f->rbx, f->rcx, f->rdx);
	log_error("  rsi %016lx rdi %016lx rbp %016lx r8  %016lx", f->rsi,
		  f->rdi, f->rbp, f->r8);
	log_error("  r9  %016lx r10 %016lx r11 %016lx r12 %016lx", f->r9,
		  f->r10, f->r11, f->r12);
	log_error("  r13 %016lx r14 %016lx r15 %016lx cr2 %016lx", f->r13,
		  f->r14, f->r15, read_cr2());
	log_error("  cr0 %016lx cr3 %016lx cr4 %016lx", read_cr0(), read_cr3(),
		  read_cr4());
	backtrace(f->rbp);
}

static const char *const names[] = {"divide error",
				    "debug",
				    "NMI",
				    "breakpoint",
				    "overflow",
				    "bound range",
				    "invalid opcode",
				    "no FPU",
				    "double fault",
				    "9",
				    "invalid TSS",
				    "segment not present",
				    "stack fault",
				    "general protection",
				    "page fault",
				    "15",
				    "FPU error",
				    "alignment check",
				    "machine check"};

static bool is_inside(u64 rip, u64 first, u64 last)
{
	return rip >= first && rip < last;
}

/* What it was about to do without a further look is not done. */
static void turn_back(struct trap_frame *f)
{
	const struct nmi_window *entry = &percpu()->entry;

	if (is_inside(f->rip, entry->first, entry->last))
		f->rip = entry->out;
	else if (is_inside(f->rip, (u64)cpu_sleep_window, (u64)cpu_sleep_last))
		f->rip = (u64)cpu_sleep_out;
}

void trap_handle(struct trap_frame *f)
{
	if (f->vector == VECTOR_NMI) {
		panic_check();
		percpu_nmi(percpu());
		turn_back(f);
		return;
	}
	if (f->vector >= 32) {
		percpu()->interrupts++;
		host_irq_dispatch((unsigned)f->vector);
		return;
	}
	if (f->vector == VECTOR_GP && f->rip == (u64)rdmsr_fault) {
		f->rip = (u64)rdmsr_recover;
		return;
	}
	panic_begin(); /* a machine check reaches all CPUs: the first tells */
	log_error("trap %lu (%s), error code 0x%lx", f->vector,
		  f->vector < ARRAY_SIZE(names) ? names[f->vector] : "?",
		  f->error);
	dump(f);
	panic_end("Monocle itself has failed; please report the lines above");
}
