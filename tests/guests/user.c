/* SPDX-License-Identifier: MIT */
/* Ring 3: what it may do, and whose memory Monocle touches in its name. */
#include "guests/guest.h"

#define HYPERCALL 0x4d4f0000u
#define USER BIT(2)
#define IOPL3 (3u << 12)
#define SCRATCH 0x3FF
#define WINDOW 0x7f800000u /* the LAPIC's page, for the user */
#define WRITE_BY_USER 7	   /* page-fault error code: present, write, user */

extern u64 pml4[], pdpt[], page_directories[];
static u8 *const kernel_page = (u8 *)0x1200000;
static u64 result;

/* The image is the user's, all other memory is not. */
void user_open_image(void)
{
	pml4[0] |= USER;
	for (unsigned i = 0; i < 4; i++)
		pdpt[i] |= USER;
	page_directories[8] |= USER;
	page_directories[WINDOW >> 21] = (LAPIC_PAGE & ~0x1fffffull) | 0x87;
	write_cr3(read_cr3());
}

void user_close_image(void)
{
	page_directories[8] &= ~USER;
	page_directories[WINDOW >> 21] = 0;
	write_cr3(read_cr3());
}

static void hypercall(u64 number, void *buffer)
{
	u64 rdx = 0;

	__asm__ volatile("vmcall"
			 : "=a"(result), "+d"(rdx)
			 : "a"(HYPERCALL + number), "b"(buffer), "c"(64)
			 : "memory");
}

static void ask_version(void *arg)
{
	(void)arg;
	hypercall(0, NULL);
}

static void ask_stats(void *buffer)
{
	hypercall(1, buffer);
}

static void ask_log(void *buffer)
{
	hypercall(2, buffer);
}

static void ask_log_by_port(void *buffer)
{
	u64 rdx = 0;

	__asm__ volatile("out %%eax, %5"
			 : "=a"(result), "+d"(rdx)
			 : "a"(HYPERCALL + 2), "b"(buffer), "c"(64), "i"(0xe4)
			 : "memory");
}

/* Of ring 0, and of whom it lets write to the port. */
static void test_user_log(void)
{
	static char text[64];

	user_open_image();
	check(attempt_user(ask_log, text, IOPL3), (u64)-1);
	check(result, (u64)-1); /* -EPERM */
	check(attempt_user(ask_log_by_port, text, 0), VEC_GP);
	check(text[0], 0);
	check(attempt_user(ask_log_by_port, text, IOPL3), (u64)-1);
	check(result, 64);
	check_true(starts(text, "monocle: "));
	user_close_image();
	/* Without the base in EAX it is a port that nobody owns. */
	outl(0xe4, 2);
	check(inl(0xe4), 0xffffffff);
}

/* Open to every ring; the buffer must be that ring's own. */
static void test_user_hypercall(void)
{
	static u64 own[8];

	user_open_image();
	check(attempt_user(ask_version, NULL, 0), (u64)-1);
	check(result, 3);
	check(attempt_user(ask_stats, own, 0), (u64)-1);
	check(result, 64);
	check_true(own[0] > 0);
	memset(kernel_page, 0x55, 64);
	check(attempt_user(ask_stats, kernel_page, 0), VEC_PF);
	check(fault.error, WRITE_BY_USER);
	check(fault.address, (u64)kernel_page);
	check(kernel_page[0], 0x55);
	user_close_image();
}

#define INSTRUCTION(name, text)                                               \
	static void name(void *arg)                                           \
	{                                                                     \
		__asm__ volatile(text : : "a"(arg) : "rcx", "rdx", "memory"); \
	}

INSTRUCTION(do_cpuid, "push %%rbx; cpuid; pop %%rbx")
INSTRUCTION(do_rdmsr, "mov $0x1b, %%ecx; rdmsr")
INSTRUCTION(do_wrmsr, "mov $0x277, %%ecx; wrmsr")
INSTRUCTION(do_hlt, "hlt")
INSTRUCTION(do_in, "in $0x21, %%al")
INSTRUCTION(do_out, "out %%al, $0xf4")
INSTRUCTION(do_cr0, "mov %%cr0, %%rax")
INSTRUCTION(do_cr8, "mov %%rax, %%cr8")
INSTRUCTION(do_clts, "clts")
INSTRUCTION(do_lmsw, "lmsw %%ax")
INSTRUCTION(do_invd, "invd")
INSTRUCTION(do_wbinvd, "wbinvd")
INSTRUCTION(do_rdpmc, "xor %%ecx, %%ecx; rdpmc")
INSTRUCTION(do_cli, "cli")
INSTRUCTION(do_vmxon, "vmxon (%%rsp)")
INSTRUCTION(do_vmlaunch, "vmlaunch")
INSTRUCTION(do_xsetbv, "xor %%ecx, %%ecx; xsetbv")

static void test_user_privileged(void)
{
	static void (*const faults[])(void *) = {
		do_rdmsr, do_wrmsr, do_hlt,  do_in,   do_out,
		do_cr0,	  do_cr8,   do_clts, do_lmsw, do_wbinvd,
		do_rdpmc, do_cli,   do_invd,
	};

	user_open_image();
	check(attempt_user(do_cpuid, NULL, 0), (u64)-1);
	for (unsigned i = 0; i < COUNT(faults); i++)
		if (attempt_user(faults[i], NULL, 0) != VEC_GP)
			check(i, VEC_GP);
	check(attempt_user(do_vmxon, NULL, 0), VEC_UD);
	check(attempt_user(do_vmlaunch, NULL, 0), VEC_UD);
	check(attempt_user(do_xsetbv, NULL, 0), VEC_UD);
	if (has_xsave()) {
		write_cr4(read_cr4() | BIT(18));
		check(attempt_user(do_xsetbv, (void *)1, 0), VEC_GP);
		write_cr4(read_cr4() & ~BIT(18));
	}
	user_close_image();
}

static void read_scratch(void *arg)
{
	(void)arg;
	result = inb(SCRATCH);
}

static void ins_to(void *arg)
{
	__asm__ volatile("insb" : : "D"(arg), "d"(SCRATCH) : "memory");
}

static void outs_from(void *arg)
{
	__asm__ volatile("outsb" : : "S"(arg), "d"(SCRATCH) : "memory");
}

/* IOPL lets ring 3 have the ports; the memory stays the kernel's. */
static void test_user_ports(void)
{
	static u8 own[1];

	user_open_image();
	outb(SCRATCH, 0x66);
	check(attempt_user(read_scratch, NULL, IOPL3), (u64)-1);
	check(result, 0x66);
	check(attempt_user(ins_to, own, IOPL3), (u64)-1);
	check(own[0], 0x66);
	kernel_page[0] = 0x55;
	check(attempt_user(ins_to, kernel_page, IOPL3), VEC_PF);
	check(fault.error, WRITE_BY_USER);
	check(kernel_page[0], 0x55);
	check(attempt_user(outs_from, kernel_page, IOPL3), VEC_PF);
	check(fault.error, 5);
	check(inb(SCRATCH), 0x66);
	user_close_image();
}

static void read_there(void *arg)
{
	result = read32((u64)arg);
}

static void copy_to_kernel(void *arg)
{
	u64 from = (u64)arg, to = (u64)kernel_page;

	__asm__ volatile("movsl" : "+S"(from), "+D"(to) : : "memory");
}

/* Device registers through the user's own mapping, and not otherwise. */
static void test_user_mmio(void)
{
	u64 version = WINDOW + (LAPIC_PAGE & 0x1fffff) + 16 * LAPIC_VERSION;

	user_open_image();
	check(attempt_user(read_there, (void *)version, 0), (u64)-1);
	check(result, lapic_read(LAPIC_VERSION));
	check(attempt_user(read_there, (void *)(u64)LAPIC_PAGE, 0), VEC_PF);
	check(fault.error, 5);
	kernel_page[0] = 0x55;
	check(attempt_user(copy_to_kernel, (void *)version, 0), VEC_PF);
	check(fault.error, WRITE_BY_USER);
	check(fault.address, (u64)kernel_page);
	check(kernel_page[0], 0x55);
	user_close_image();
}

static void read_misaligned(void *arg)
{
	u32 value;

	(void)arg;
	__asm__ volatile("push %%rax; movl 1(%%rsp), %0; pop %%rax"
			 : "=r"(value));
	result = value;
}

/* Where CR0.AM and RFLAGS.AC ask for it. */
static void test_user_alignment(void)
{
	u64 old = read_cr0();

	user_open_image();
	write_cr0(old & ~BIT(18));
	check(attempt_user(read_misaligned, NULL, BIT(18)), (u64)-1);
	write_cr0(old | BIT(18));
	check(attempt_user(read_misaligned, NULL, 0), (u64)-1);
	check(attempt_user(read_misaligned, NULL, BIT(18)), VEC_AC);
	check(fault.error, 0);
	write_cr0(old);
	user_close_image();
}

const struct test user_tests[] = {
	{"user-hypercall", test_user_hypercall, true},
	{"user-log", test_user_log, true},
	{"user-privileged", test_user_privileged, false},
	{"user-ports", test_user_ports, false},
	{"user-mmio", test_user_mmio, false},
	{"user-alignment", test_user_alignment, false},
};
const unsigned user_test_count = COUNT(user_tests);
