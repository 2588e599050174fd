/* SPDX-License-Identifier: MIT */
/* Instructions that exit: what each gives is what the SDM says. */
#include "guests/guest.h"

#define CR0_TS BIT(3)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)
#define CR4_PAE BIT(5)
#define CR4_VMXE BIT(13)
#define CR4_PCIDE BIT(17)
#define CR4_OSXSAVE BIT(18)

#define MSR_TSC 0x10
#define MSR_FEATURE_CONTROL 0x3A
#define MSR_MTRRCAP 0xFE
#define MSR_PAT 0x277
#define MSR_MTRR_DEF_TYPE 0x2FF
#define MSR_XSS 0xDA0
#define MSR_EFER 0xC0000080
#define MSR_LSTAR 0xC0000082

#define HYPERCALL 0x4d4f0000u /* docs/hypercalls.md */
#define ENOSYS 38

/* One instruction, for attempt(). */
#define INSTRUCTION(name, text)                                 \
	static void name(void *arg)                             \
	{                                                       \
		__asm__ volatile(text : : "a"(arg) : "memory"); \
	}

/* -- CPUID */

static void test_cpuid(void)
{
	struct cpuid r = cpuid(0, 0);
	u64 high;

	check_true(r.eax >= 0xb);
	check(r.ebx, 0x756e6547); /* "GenuineIntel" */
	check(r.edx, 0x49656e69);
	check(r.ecx, 0x6c65746e);
	r = cpuid(0x80000008, 0);
	check(r.eax >> 8 & 0xff, 48);
	check_true(cpuid(0x80000000, 0).eax >= 0x80000008);
	/* Not only the low halves are written. */
	__asm__ volatile(
		"mov $-1, %%rax; mov $-1, %%rbx; mov $-1, %%rdx;"
		"mov $0xffffffff00000000, %%rcx; mov $0x80000008, %%eax;"
		"cpuid; mov %%rax, %%rdi; or %%rbx, %%rdi;"
		"or %%rcx, %%rdi; or %%rdx, %%rdi; shr $32, %%rdi"
		: "=D"(high)
		:
		: "rax", "rbx", "rcx", "rdx");
	check(high, 0);
}

static void test_cpuid_monocle(void)
{
	struct cpuid r = cpuid(1, 0);

	check(r.ecx >> 31 & 1, 1); /* hypervisor */
	check(r.ecx >> 21 & 1, 1); /* x2APIC */
	check(r.ecx >> 24 & 1, 1); /* TSC deadline */
	check(r.ecx >> 5 & 1, 0);  /* VMX */
	check(r.edx >> 9 & 1, 1);  /* APIC */
	check(r.edx >> 12 & 1, 1); /* MTRR */
	r = cpuid(0x40000000, 0);
	check_true(r.eax >= 0x40000001);
	check(r.ebx, 0x6f6e6f4d); /* "MonocleVMM" */
	check(r.ecx, 0x56656c63);
	check(r.edx, 0x00004d4d);
	r = cpuid(0x40000001, 0);
	check(r.eax, 3); /* the ABI's version */
	check(r.ebx, HYPERCALL);
	check(cpuid(0x40000100, 0).ebx, 0x4b4d564b); /* "KVM" */
	/* At most its paravirtual EOI: not with APICv. */
	check(cpuid(0x40000101, 0).eax & ~BIT(6), 0);
	check(cpuid(0xa, 0).eax, 0);	    /* no PMU */
	check(cpuid(7, 0).ebx >> 2 & 1, 0); /* no SGX */
	check(cpuid(0x12345678, 0).eax, 0);
	/* Below C1 the preemption timer may stand still. */
	check(cpuid(5, 0).edx >> 8, 0);
}

static void set_cr4(void *value)
{
	write_cr4((u64)value);
}

static void test_cpuid_osxsave(void)
{
	u64 cr4 = read_cr4();

	if (!has_xsave()) {
		check(attempt(set_cr4, (void *)(cr4 | CR4_OSXSAVE)), VEC_GP);
		return;
	}
	check(cpuid(1, 0).ecx >> 27 & 1, 0);
	write_cr4(cr4 | CR4_OSXSAVE);
	check(cpuid(1, 0).ecx >> 27 & 1, 1);
	write_cr4(cr4);
	check(cpuid(1, 0).ecx >> 27 & 1, 0);
}

/* -- instructions without a device */

INSTRUCTION(do_rdpmc, "xor %%ecx, %%ecx; rdpmc")
INSTRUCTION(do_vmclear, "vmclear (%%rsp)")
INSTRUCTION(do_vmptrld, "vmptrld (%%rsp)")
INSTRUCTION(do_vmptrst, "vmptrst -64(%%rsp)")
INSTRUCTION(do_vmread, "vmread %%rax, %%rax")
INSTRUCTION(do_vmwrite, "vmwrite %%rax, %%rax")
INSTRUCTION(do_vmlaunch, "vmlaunch")
INSTRUCTION(do_vmresume, "vmresume")
INSTRUCTION(do_vmxoff, "vmxoff")
INSTRUCTION(do_vmxon, "vmxon (%%rsp)")
INSTRUCTION(do_invept, "invept (%%rsp), %%rax")
INSTRUCTION(do_invvpid, "invvpid (%%rsp), %%rax")
INSTRUCTION(do_vmfunc, "vmfunc")
INSTRUCTION(do_getsec, "getsec")
INSTRUCTION(do_rsm, "rsm")
INSTRUCTION(do_ud2, "ud2")
INSTRUCTION(do_xgetbv, "xor %%ecx, %%ecx; xgetbv")
INSTRUCTION(do_invd, "invd")
INSTRUCTION(do_wbinvd, "wbinvd")

static void test_undefined(void)
{
	static void (*const list[])(void *) = {
		do_vmclear,  do_vmptrld,  do_vmptrst, do_vmread, do_vmwrite,
		do_vmlaunch, do_vmresume, do_vmxoff,  do_vmxon,	 do_vmfunc,
		do_getsec,   do_rsm,	  do_ud2,
	};

	for (unsigned i = 0; i < COUNT(list); i++)
		if (attempt(list[i], NULL) != VEC_UD)
			check(i, VEC_UD);
	check((u64)fault.rip, (u64)fault.frame.rip);
}

static void test_undefined_monocle(void)
{
	check(attempt(do_invept, NULL), VEC_UD);
	check(attempt(do_invvpid, NULL), VEC_UD);
}

static void test_rdpmc(void)
{
	check(attempt(do_rdpmc, NULL), VEC_GP);
	check(fault.error, 0);
}

static void test_cache(void)
{
	static volatile u64 word;

	word = 0x123456789abcdef;
	check(attempt(do_wbinvd, NULL), (u64)-1);
	check(attempt(do_invd, NULL), (u64)-1);
	check(word, 0x123456789abcdef); /* INVD may not lose it here */
}

static u64 hypercall(u64 number, u64 rbx, u64 rcx, u64 *rdx)
{
	u64 result;

	__asm__ volatile("vmcall"
			 : "=a"(result), "+d"(*rdx)
			 : "a"(HYPERCALL + number), "b"(rbx), "c"(rcx)
			 : "memory");
	return result;
}

static void test_hypercall(void)
{
	static u64 stats[5 + 2 * 70];
	static char text[64];
	u64 rdx = 0, first;

	check(hypercall(0, 0, 0, &rdx), 3);
	check(hypercall(99, 0, 0, &rdx), (u64)-ENOSYS);
	check(hypercall(1, (u64)stats, sizeof(stats), &rdx), sizeof(stats));
	first = stats[4];
	check_true(stats[0] > 0 && stats[2] > stats[1] && first > 0);
	check(hypercall(1, (u64)stats, sizeof(stats), &rdx), sizeof(stats));
	check(stats[4] - first, 1); /* exits: this call's own is the last */
	check(hypercall(1, (u64)stats, 8, &rdx), 8);
	check(hypercall(2, (u64)text, sizeof(text), &rdx), sizeof(text));
	check(rdx, sizeof(text));
	check_true(starts(text, "monocle: "));
	memset(text, 0, sizeof(text));
	rdx = sizeof(text);
	check(hypercall(3, 10, (u64)text, &rdx), 5);
	check(strcmp(text, "CPUID"), 0);
}

/* Of the display, which every guest has: accesses to its configuration. */
static void test_hypercall_devices(void)
{
	u64 before[7], after[7], rdx = 0;

	check(hypercall(5, (u64)before, sizeof(before), &rdx), sizeof(before));
	check(rdx, sizeof(before));
	outl(0xCF8, 0x80000000u | (u32)(u16)before[0] << 8);
	check_true(inl(0xCFC) != 0xffffffff);
	check_true(inw(0xCFC + 2) != 0xffff);
	outb(0xCFC, 0);
	check(hypercall(5, (u64)after, sizeof(after), &rdx), sizeof(after));
	check(after[0], before[0]);
	check(after[1] - before[1], 3);
	for (unsigned n = 2; n < COUNT(after); n++)
		check(after[n], before[n]);
	check(hypercall(5, (u64)after, sizeof(after) - 1, &rdx), 0);
}

static void call_stats_unmapped(void *arg)
{
	u64 rdx = 0;

	hypercall(1, (u64)arg, 4096, &rdx);
}

static void test_hypercall_fault(void)
{
	check(attempt(call_stats_unmapped, (void *)0x7fe00000000), VEC_PF);
	check(fault.address, 0x7fe00000000);
	check(fault.error, 2); /* a write, not present */
}

/* -- control registers */

static void test_cr0_ts(void)
{
	u64 cr0 = read_cr0();
	u16 word;

	write_cr0(cr0 | CR0_TS);
	check(read_cr0(), cr0 | CR0_TS);
	__asm__ volatile("clts" : : : "memory");
	check(read_cr0(), cr0);
	__asm__ volatile("smsw %w0" : "=r"(word));
	check(word, cr0 & 0xffff);
	__asm__ volatile("lmsw %w0" : : "r"((u16)(word | CR0_TS)));
	check(read_cr0(), cr0 | CR0_TS);
	/* PE it cannot clear. */
	__asm__ volatile("lmsw %w0" : : "r"((u16)(word & ~1u)));
	check(read_cr0(), cr0);
}

static void set_cr0(void *value)
{
	write_cr0((u64)value);
}

static void set_cr8(void *value)
{
	write_cr8((u64)value);
}

static void set_cr3(void *value)
{
	write_cr3((u64)value);
}

static void test_cr0(void)
{
	u64 cr0 = read_cr0();

	write_cr0(cr0 | CR0_CD | CR0_NW);
	check(read_cr0(), cr0 | CR0_CD | CR0_NW);
	write_cr0(cr0 | CR0_CD);
	check(read_cr0(), cr0 | CR0_CD);
	write_cr0(cr0);
	check(read_cr0(), cr0);
	if (is_monocle) /* Bochs 2.7 lets it pass */
		check(attempt(set_cr0, (void *)(cr0 | CR0_NW)), VEC_GP);
	check(attempt(set_cr0, (void *)(cr0 & ~1ull)), VEC_GP); /* PG, no PE */
	check(attempt(set_cr0, (void *)(cr0 & ~CR0_PG)), VEC_GP); /* 64-bit */
	check(attempt(set_cr0, (void *)(cr0 | BIT(32))), VEC_GP);
	check(read_cr0(), cr0);
	write_cr0(cr0 & ~BIT(16)); /* WP */
	check(read_cr0(), cr0 & ~BIT(16));
	write_cr0(cr0);
}

static void test_cr3(void)
{
	u64 cr3 = read_cr3();

	write_cr3(cr3 | 0x18); /* PWT, PCD */
	check(read_cr3(), cr3 | 0x18);
	write_cr3(cr3);
	check(attempt(set_cr3, (void *)BIT(60)), VEC_GP);
	__asm__ volatile("invlpg (%0)" : : "r"(cr3) : "memory");
}

static void test_cr4(void)
{
	u64 cr4 = read_cr4();

	check(cr4 & CR4_VMXE, 0);
	check(attempt(set_cr4, (void *)(cr4 | BIT(31))), VEC_GP);
	check(attempt(set_cr4, (void *)(cr4 | BIT(62))), VEC_GP);
	check(attempt(set_cr4, (void *)(cr4 & ~CR4_PAE)), VEC_GP);
	write_cr4(cr4 | BIT(7)); /* PGE */
	check(read_cr4(), cr4 | BIT(7));
	write_cr4(cr4);
	check(read_cr4(), cr4);
	if (cpuid(1, 0).ecx >> 17 & 1) {
		write_cr4(cr4 | CR4_PCIDE);
		check(read_cr4(), cr4 | CR4_PCIDE);
		write_cr3(read_cr3() | 1);
		check(read_cr3() & 0xfff, 1);
		write_cr3(read_cr3() & ~0xfffull);
		write_cr4(cr4);
		write_cr3(read_cr3() | 8);
		check(attempt(set_cr4, (void *)(cr4 | CR4_PCIDE)), VEC_GP);
		write_cr3(read_cr3() & ~8ull);
	}
}

static void test_cr4_vmxe(void)
{
	check(attempt(set_cr4, (void *)(read_cr4() | CR4_VMXE)), VEC_GP);
}

static void test_cr8(void)
{
	for (u64 n = 0; n < 16; n++) {
		write_cr8(n);
		check(read_cr8(), n);
		check(lapic_read(LAPIC_TPR), n << 4);
	}
	lapic_write(LAPIC_TPR, 0x5f);
	check(read_cr8(), 5);
	check(attempt(set_cr8, (void *)16), VEC_GP);
	check(read_cr8(), 5);
	write_cr8(0);
}

static void moves(u32 count)
{
	for (u32 n = 0; n < count; n++) {
		write_cr8(15);
		check(read_cr8(), 15);
		write_cr8(n & 7);
	}
	write_cr8(0);
}

/* An interrupt waits for it: V_WAITS is of the class that CR8 lets in. */
#define V_WAITS 0x61

static void waits(u32 count)
{
	for (u32 n = 0; n < count; n++) {
		write_cr8(V_WAITS >> 4);
		send_self(V_WAITS);
		sti();
		check(interrupts[V_WAITS], n);
		write_cr8((V_WAITS >> 4) - 1);
		check(interrupts[V_WAITS], n + 1);
		cli();
		write_cr8(0);
	}
}

static void test_cr8_exits(void)
{
	count_exits("cr8", moves, 1000);
	count_exits("cr8 waits", waits, 100);
}

static void do_xsetbv(void *arg)
{
	__asm__ volatile("xsetbv"
			 :
			 : "c"((u32)((u64)arg >> 32)), "a"((u32)(u64)arg),
			   "d"(0));
}

static u64 xcr0(void)
{
	u32 low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (u64)high << 32 | low;
}

static void test_xsetbv(void)
{
	u64 cr4 = read_cr4();
	static const u64 bad[] = {0, 2, 5, 9, 0x8000, BIT(32) | 1};

	check(attempt(do_xsetbv, (void *)3), VEC_UD);
	if (!has_xsave())
		return;
	check(attempt(do_xgetbv, NULL), VEC_UD);
	write_cr4(cr4 | CR4_OSXSAVE);
	check(xcr0(), 1);
	do_xsetbv((void *)7);
	check(xcr0(), 7);
	check(cpuid(0xd, 0).ebx, 0x340); /* x87, SSE, AVX: 832 bytes */
	do_xsetbv((void *)3);
	check(cpuid(0xd, 0).ebx, 0x240);
	for (unsigned i = 0; i < COUNT(bad); i++)
		if (attempt(do_xsetbv, (void *)bad[i]) != VEC_GP)
			check(bad[i], VEC_GP);
	check(xcr0(), 3);
	do_xsetbv((void *)1);
	write_cr4(cr4);
}

/* -- MSRs */

struct msr_value {
	u32 msr;
	u64 value;
};

static void do_rdmsr(void *arg)
{
	rdmsr((u32)(u64)arg);
}

static void do_wrmsr(void *arg)
{
	const struct msr_value *m = arg;

	wrmsr(m->msr, m->value);
}

static int try_wrmsr(u32 msr, u64 value)
{
	struct msr_value m = {msr, value};

	return attempt(do_wrmsr, &m);
}

static void test_msr(void)
{
	u64 pat = rdmsr(MSR_PAT), base, old;

	wrmsr(MSR_PAT, 0x0007010600070106);
	check(rdmsr(MSR_PAT), 0x0007010600070106);
	check(try_wrmsr(MSR_PAT, 0x0007040600070206), VEC_GP);
	check(fault.error, 0);
	check(rdmsr(MSR_PAT), 0x0007010600070106);
	wrmsr(MSR_PAT, pat);
	base = rdmsr(MSR_APIC_BASE);
	check(base & ~0xfffull, LAPIC_PAGE);
	check(base & 0x900, 0x900); /* bootstrap processor, enabled */
	check(try_wrmsr(MSR_APIC_BASE, base | BIT(60)), VEC_GP);
	check(try_wrmsr(MSR_APIC_BASE, base | 1), VEC_GP);
	wrmsr(MSR_LSTAR, 0x1234567890);
	check(rdmsr(MSR_LSTAR), 0x1234567890);
	check(try_wrmsr(MSR_LSTAR, BIT(62)), VEC_GP); /* not canonical */
	old = rdmsr(MSR_TSC);
	check_true(rdtsc() > old);
	check_true(rdmsr(MSR_TSC) > old);
}

static void test_efer(void)
{
	u64 efer = rdmsr(MSR_EFER);

	check(efer & 0x500, 0x500); /* LME, LMA */
	check(try_wrmsr(MSR_EFER, efer ^ BIT(8)), VEC_GP);
	check(try_wrmsr(MSR_EFER, efer | BIT(20)), VEC_GP);
	wrmsr(MSR_EFER, efer | 1);
	check(rdmsr(MSR_EFER), efer | 1);
	wrmsr(MSR_EFER, (efer | BIT(11)) & ~BIT(10)); /* NXE; LMA stays */
	check(rdmsr(MSR_EFER), efer | BIT(11));
	wrmsr(MSR_EFER, efer);
}

static void test_mtrr(void)
{
	u64 def = rdmsr(MSR_MTRR_DEF_TYPE);

	check_true((rdmsr(MSR_MTRRCAP) & 0xff) >= 8);
	check(try_wrmsr(MSR_MTRRCAP, 0), VEC_GP);
	wrmsr(MSR_MTRR_DEF_TYPE, 0xc00);
	check(rdmsr(MSR_MTRR_DEF_TYPE), 0xc00);
	check(try_wrmsr(MSR_MTRR_DEF_TYPE, 2), VEC_GP);
	wrmsr(MSR_MTRR_DEF_TYPE, def);
	wrmsr(0x200, 0xc0000006);
	check(rdmsr(0x200), 0xc0000006);
	wrmsr(0x200, 0);
	check(try_wrmsr(0x250, 0x0202020202020202), VEC_GP);
}

static void test_msr_monocle(void)
{
	static const u32 closed[] = {
		0xc1,  0x186,	   0x38f, /* performance monitoring */
		0x480, 0x48c,	   0x491, /* VMX */
		0x400, 0x410,		  /* machine-check banks */
		0x611, 0x1b0,	   0x1a2, /* power and thermal */
		0x570, 0xc0010000, 0x12345, 0xffffffff,
	};
	u64 tsc;

	for (unsigned i = 0; i < COUNT(closed); i++) {
		if (attempt(do_rdmsr, (void *)(u64)closed[i]) != VEC_GP)
			check(closed[i], VEC_GP);
		if (try_wrmsr(closed[i], 0) != VEC_GP)
			check(closed[i], VEC_GP);
	}
	check(rdmsr(MSR_FEATURE_CONTROL), 1); /* locked, VMX off */
	check(try_wrmsr(MSR_FEATURE_CONTROL, 5), VEC_GP);
	check(try_wrmsr(MSR_XSS, 1), VEC_GP);
	tsc = rdtsc();
	wrmsr(MSR_TSC, 0); /* dropped: the TSC is the host's */
	check_true(rdtsc() > tsc);
}

/* -- single step over an instruction that exits */

static u64 step_rip;

static void on_debug(struct frame *f)
{
	step_rip = f->rip;
	f->rflags &= ~BIT(8);
}

static void test_single_step(void)
{
	u64 behind;

	handlers[VEC_DB] = on_debug;
	__asm__ volatile("pushf; orq $0x100, (%%rsp); popf;"
			 "cpuid; 1: lea 1b(%%rip), %0"
			 : "=r"(behind)
			 :
			 : "rax", "rbx", "rcx", "rdx", "memory");
	check(interrupts[VEC_DB], 1);
	check(step_rip, behind);
}

/* A trap behind a store, and one by INT1; DR6 says which. */
static void test_debug(void)
{
	static volatile u32 watched;
	u64 dr6, behind, none;

	handlers[VEC_DB] = on_debug;
	__asm__ volatile(
		"mov %0, %%dr0; mov %1, %%dr6; mov %2, %%dr7" ::"r"(&watched),
		"r"(0xffff0ff0ull), "r"(0xd0401ull));
	__asm__ volatile("movl $1, %1; 1: lea 1b(%%rip), %0"
			 : "=r"(behind), "=m"(watched));
	__asm__ volatile("mov %%dr6, %0; mov %1, %%dr7"
			 : "=&r"(dr6)
			 : "r"(0x400ull));
	check(interrupts[VEC_DB], 1);
	check(step_rip, behind);
	check(dr6 & 0xf00f, 1);
	__asm__ volatile("mov %2, %%dr6; .byte 0xf1; 1: lea 1b(%%rip), %0;"
			 "mov %%dr6, %1"
			 : "=&r"(behind), "=&r"(none)
			 : "r"(0xffff0ff0ull));
	check(interrupts[VEC_DB], 2);
	check(step_rip, behind);
	check(none & 0xf00f, 0);
}

/* RDPMC for ring 3, a switch without a feature of its own. */
static void test_cr4_pce(void)
{
	u64 old = read_cr4();

	write_cr4(old | BIT(8));
	check(read_cr4(), old | BIT(8));
	write_cr4(old);
}

static void test_rdtscp(void)
{
	u64 before = rdtsc(), now;
	u32 low, high, aux;

	wrmsr(0xc0000103, 0x1234);
	__asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
	now = (u64)high << 32 | low;
	check(aux, 0x1234);
	check_true(now > before && now < rdtsc());
}

const struct test cpu_tests[] = {
	{"cpuid", test_cpuid, false},
	{"cpuid-monocle", test_cpuid_monocle, true},
	{"cpuid-osxsave", test_cpuid_osxsave, false},
	{"undefined", test_undefined, false},
	{"undefined-monocle", test_undefined_monocle, true},
	{"rdpmc", test_rdpmc, true},
	{"cache", test_cache, true},
	{"hypercall", test_hypercall, true},
	{"hypercall-devices", test_hypercall_devices, true},
	{"hypercall-fault", test_hypercall_fault, true},
	{"cr0-ts", test_cr0_ts, false},
	{"cr0", test_cr0, false},
	{"cr3", test_cr3, false},
	{"cr4", test_cr4, false},
	{"cr4-vmxe", test_cr4_vmxe, true},
	{"cr8", test_cr8, false},
	{"cr8-exits", test_cr8_exits, true},
	{"xsetbv", test_xsetbv, false},
	{"msr", test_msr, false},
	{"efer", test_efer, false},
	{"mtrr", test_mtrr, false},
	{"msr-monocle", test_msr_monocle, true},
	{"single-step", test_single_step, false},
	{"debug", test_debug, false},
	{"cr4-pce", test_cr4_pce, false},
	{"rdtscp", test_rdtscp, false},
};
const unsigned cpu_test_count = COUNT(cpu_tests);
