/* SPDX-License-Identifier: MIT */
/*
 * The host's own CPU as the judge of vmm/vcpu/insn.c: runs one instruction of
 * 64-bit code with given registers, flags and memory. An exception that it
 * raises is the answer, too.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/unit/insn_oracle.h"

struct oracle_state oracle;
extern struct oracle_state oracle_hidden
	__attribute__((visibility("hidden"), alias("oracle")));
u64 oracle_stack __attribute__((visibility("hidden")));
void *oracle_code __attribute__((visibility("hidden")));

void oracle_enter(void);
void oracle_leave(void);
void oracle_left(void); /* ... whose RSP is kept */

/* Offsets: regs in hardware order (rsp at 32), then rflags at 128. */
__asm__(".text\n"
	".globl oracle_enter, oracle_leave, oracle_left\n"
	".hidden oracle_enter, oracle_leave, oracle_left\n"
	"oracle_enter:\n"
	"	push %rbx; push %rbp; push %r12; push %r13\n"
	"	push %r14; push %r15\n"
	"	mov %rsp, oracle_stack(%rip)\n"
	"	pushq oracle_hidden+128(%rip)\n"
	"	popfq\n"
	"	mov oracle_hidden+0(%rip), %rax\n"
	"	mov oracle_hidden+8(%rip), %rcx\n"
	"	mov oracle_hidden+16(%rip), %rdx\n"
	"	mov oracle_hidden+24(%rip), %rbx\n"
	"	mov oracle_hidden+32(%rip), %rsp\n"
	"	mov oracle_hidden+40(%rip), %rbp\n"
	"	mov oracle_hidden+48(%rip), %rsi\n"
	"	mov oracle_hidden+56(%rip), %rdi\n"
	"	mov oracle_hidden+64(%rip), %r8\n"
	"	mov oracle_hidden+72(%rip), %r9\n"
	"	mov oracle_hidden+80(%rip), %r10\n"
	"	mov oracle_hidden+88(%rip), %r11\n"
	"	mov oracle_hidden+96(%rip), %r12\n"
	"	mov oracle_hidden+104(%rip), %r13\n"
	"	mov oracle_hidden+112(%rip), %r14\n"
	"	mov oracle_hidden+120(%rip), %r15\n"
	"	jmp *oracle_code(%rip)\n"
	"oracle_leave:\n"
	"	mov %rsp, oracle_hidden+32(%rip)\n"
	"oracle_left:\n"
	"	mov %rax, oracle_hidden+0(%rip)\n"
	"	mov %rcx, oracle_hidden+8(%rip)\n"
	"	mov %rdx, oracle_hidden+16(%rip)\n"
	"	mov %rbx, oracle_hidden+24(%rip)\n"
	"	mov %rbp, oracle_hidden+40(%rip)\n"
	"	mov %rsi, oracle_hidden+48(%rip)\n"
	"	mov %rdi, oracle_hidden+56(%rip)\n"
	"	mov %r8, oracle_hidden+64(%rip)\n"
	"	mov %r9, oracle_hidden+72(%rip)\n"
	"	mov %r10, oracle_hidden+80(%rip)\n"
	"	mov %r11, oracle_hidden+88(%rip)\n"
	"	mov %r12, oracle_hidden+96(%rip)\n"
	"	mov %r13, oracle_hidden+104(%rip)\n"
	"	mov %r14, oracle_hidden+112(%rip)\n"
	"	mov %r15, oracle_hidden+120(%rip)\n"
	"	mov oracle_stack(%rip), %rsp\n"
	"	pushfq\n"
	"	popq oracle_hidden+128(%rip)\n"
	"	cld\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12\n"
	"	pop %rbp; pop %rbx\n"
	"	ret\n");

/*
 * A return with an RSP that is not canonical may fault itself, and come here
 * again for ever: the stack is this program's before it.
 */
static void on_signal(int number, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)info;
	if (oracle.signal)
		abort();
	oracle.signal = number;
	oracle.regs[4] = (u64)regs[REG_RSP];
	regs[REG_RSP] = (greg_t)oracle_stack;
	regs[REG_RIP] = (greg_t)(uintptr_t)oracle_left;
	oracle.back[0] = (u64)regs[REG_RSP];
	oracle.back[1] = (u64)regs[REG_RIP];
}

/* Below 2 GiB, so that 32-bit displacements and addresses reach it. */
void *oracle_map(size_t size)
{
	const int rights = PROT_READ | PROT_WRITE | PROT_EXEC;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	void *p;

	/* The same address in each run where it can be had. */
	p = mmap((void *)0x20000000, size, rights, flags | MAP_FIXED_NOREPLACE,
		 -1, 0);
	if (p == MAP_FAILED)
		p = mmap(NULL, size, rights, flags | MAP_32BIT, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

u64 oracle_fs_base(void)
{
	u64 base = 0;

	syscall(SYS_arch_prctl, ARCH_GET_FS, &base);
	return base;
}

/* GS is nobody's in a 64-bit process of this libc. */
void oracle_set_gs_base(u64 base)
{
	syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}

void oracle_run(void *code, const u8 *bytes, unsigned length)
{
	static const int signals[] = {SIGILL, SIGSEGV, SIGBUS};
	static char stack[65536];
	/* jmp *0(%rip), then where to */
	static const u8 jump[6] = {0xff, 0x25};
	stack_t alt = {.ss_sp = stack, .ss_size = sizeof(stack)}, old_alt;
	struct sigaction act = {.sa_sigaction = on_signal,
				.sa_flags = SA_SIGINFO | SA_ONSTACK};
	struct sigaction old[ARRAY_SIZE(signals)];
	void (*leave)(void) = oracle_leave;

	memcpy(code, bytes, length);
	memcpy((u8 *)code + length, jump, sizeof(jump));
	memcpy((u8 *)code + length + sizeof(jump), &leave, sizeof(leave));
	oracle_code = code;
	oracle.signal = 0;
	sigaltstack(&alt, &old_alt);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &act, &old[i]);
	oracle_enter();
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &old[i], NULL);
	sigaltstack(&old_alt, NULL);
}
