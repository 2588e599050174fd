/* SPDX-License-Identifier: MIT */
/*
 * What no guest should do: hostile-ports, -msrs, -memory, -garbage, and
 * "hostile-one NAME". Hardware's answer comes, or Monocle stops the guest.
 */
#include "guests/guest.h"

#define CMOS_STAGE 0x50 /* two bytes of CMOS memory, which a reset keeps */

extern u64 pml4[], pdpt[], page_directories[];
extern const char image_start[];

static u64 random_state;

/* xorshift64* */
static u64 random(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545F4914F6CDD1Dull;
}

u16 cmos_get(void)
{
	u8 low;

	outb(0x70, CMOS_STAGE);
	low = inb(0x71);
	outb(0x70, CMOS_STAGE + 1);
	return (u16)(low | inb(0x71) << 8);
}

void cmos_set(u16 value)
{
	outb(0x70, CMOS_STAGE);
	outb(0x71, (u8)value);
	outb(0x70, CMOS_STAGE + 1);
	outb(0x71, (u8)(value >> 8));
}

/* Prints runs of numbers for which something holds. */
struct runs {
	const char *what;
	u32 first, next;
	bool open;
};

static void runs_add(struct runs *r, u32 n, bool holds)
{
	if (r->open && (!holds || n != r->next)) {
		print("%s: %x-%x\n", r->what, r->first, r->next - 1);
		r->open = false;
	}
	if (!holds)
		return;
	if (!r->open)
		r->first = n;
	r->open = true;
	r->next = n + 1;
}

/* -- ports */

/* What ends the run, by whatever value that the sweep writes. */
static bool port_ends(u32 port)
{
	return port == 0xF4 || port == 0x92 || port == 0xCF9;
}

static void sweep_ports(u32 value)
{
	for (u32 port = 0; port < 0x10000; port++) {
		inb((u16)port);
		inw((u16)port);
		inl((u16)port);
		if (port_ends(port))
			continue;
		outb((u16)port, (u8)value);
		outw((u16)port, (u16)value);
		outl((u16)port, value);
	}
}

static void random_ports(unsigned count)
{
	while (count--) {
		u64 r = random();
		u32 port = (u32)(r >> 16) & (r & 0x8000 ? 0x3FF : 0xFFFF);

		if (port_ends(port) || (port & ~7u) == 0x60 ||
		    (port & ~7u) == 0x600 || (port & ~3u) == 0x3F8)
			continue;
		if (r & 1)
			outb((u16)port, (u8)(r >> 32));
		else if (r & 2)
			outw((u16)port, (u16)(r >> 32));
		else
			outl((u16)port, (u32)(r >> 32));
		inl((u16)port);
	}
}

static void ports(void)
{
	struct runs answered = {.what = "port answers"};

	for (u32 port = 0; port < 0x10000; port++)
		runs_add(&answered, port,
			 inb((u16)port) != 0xff || inb((u16)port) != 0xff ||
				 inl((u16)port) != 0xffffffff);
	runs_add(&answered, 0x10000, false);
	sweep_ports(0);
	sweep_ports(0xffffffff);
	random_state = 0x9E3779B97F4A7C15ull;
	random_ports(50000);
	console_init();
	print("\nhostile: all ports done\n");
	finish(0);
}

/* -- MSRs */

static void get_msr(void *arg)
{
	rdmsr((u32)(u64)arg);
}

static void set_msr(void *arg)
{
	const u64 *a = arg;

	wrmsr((u32)a[0], a[1]);
}

static void one_msr(struct runs *readable, u32 msr)
{
	bool can = attempt(get_msr, (void *)(u64)msr) < 0;
	u64 old = can ? rdmsr(msr) : 0;
	const u64 values[] = {0, ~0ull, 1, 0x8000000000000000ull, old};

	runs_add(readable, msr, can);
	/* The stack's own and the page tables' are needed. */
	for (unsigned i = 0; i < COUNT(values); i++) {
		u64 pair[2] = {msr, values[i]};

		attempt(set_msr, pair);
	}
}

static void msr_range(u32 first, u32 count)
{
	struct runs readable = {.what = "MSR readable"};

	for (u32 i = 0; i < count; i++)
		one_msr(&readable, first + i);
	runs_add(&readable, 0, false);
}

static void msrs(void)
{
	msr_range(0, 0x2000);
	msr_range(0x40000000, 0x300);
	msr_range(0xC0000000, 0x2000);
	msr_range(0xC0010000, 0x300);
	wrmsr(MSR_APIC_BASE, 0xFEE00800);
	wrmsr(MSR_APIC_BASE, 0xFEE00C00);
	x2apic = true;
	msr_range(0x800, 0x100);
	random_state = 0x9E3779B97F4A7C15ull;
	for (unsigned i = 0; i < 20000; i++) {
		u64 pair[2] = {random() & 0xC0001FFF, random()};

		if (pair[0] != MSR_APIC_BASE)
			attempt(set_msr, pair);
	}
	print("hostile: all MSRs done\n");
	finish(0);
}

/* -- memory */

static u32 wrong;

static void touch(u64 at, bool is_nothing)
{
	u64 before = *(volatile u64 *)at;

	*(volatile u8 *)at = 0x12;
	*(volatile u16 *)(at + 1) = 0x3456; /* not aligned */
	*(volatile u32 *)(at + 4) = 0x789abcde;
	*(volatile u64 *)(at + 8) = ~before;
	wrong += is_nothing &&
		 (before != ~0ull || *(volatile u64 *)at != ~0ull ||
		  *(volatile u8 *)(at + 15) != 0xff ||
		  *(volatile u16 *)(at + 7) != 0xffff);
}

static bool is_device(u64 at)
{
	return at >> 24 == 0xC0 || (at & ~0xfffull) == LAPIC_PAGE ||
	       (at & ~0xfffull) == IOAPIC_PAGE || at >> 20 == ecam >> 20;
}

/* Pages of 1 GiB from 4 GiB up to 512 GiB. */
static void map_high(void)
{
	for (u64 i = 4; i < 512; i++)
		pdpt[i] = i << 30 | 0x83;
	write_cr3(read_cr3());
}

static void memory(void)
{
	u64 step = 2 * MIB;
	unsigned bits = cpuid(0x80000008, 0).eax & 0xff;

	map_high();
	for (u64 at = (ram_end + 32 * MIB) & ~(step - 1); at < BIT(32);
	     at += step)
		if (!is_device(at))
			touch(at, true);
	for (u64 at = BIT(32); at < BIT(39) && at < BIT(bits); at += BIT(30))
		touch(at + 8 * MIB, true);
	for (u64 at = 0; at < 0xff0; at += 8)
		touch(IOAPIC_PAGE + at, false);
	for (u64 at = 0; at < 0xff0; at += 8)
		if (at < 0x300 || at >= 0x310) /* not an INIT to itself */
			touch(LAPIC_PAGE + at, false);
	for (u64 at = 0xA0000; at < 0x100000; at += 0x101)
		touch(at, false);
	for (u64 at = 0; ecam && at < MIB - 16; at += 0x3f8)
		touch(ecam + at, false);
	check(wrong, 0);
	print("hostile: all memory done, %u wrong\n", wrong);
	finish(wrong ? 1 : 0);
}

/* -- one of these by name: most end with a dump */

#define HOLE (ram_end + 64 * MIB)

static void jump(u64 to)
{
	__asm__ volatile("jmp *%0" : : "r"(to) : "memory");
}

static void fetch_hole(void)
{
	jump(HOLE);
}

static void fetch_lapic(void)
{
	jump(LAPIC_PAGE);
}

static void fetch_vga(void)
{
	jump(0xA0000);
}

static void stack_hole(void)
{
	__asm__ volatile("mov %0, %%rsp; push %%rax" : : "r"(HOLE) : "memory");
}

static void call_hole(void)
{
	__asm__ volatile("call *(%0)" : : "r"(HOLE) : "memory");
}

static void load_table(const char *which, u64 base)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) p = {0xfff, base};

	if (*which == 'i')
		__asm__ volatile("lidt %0; int3" : : "m"(p) : "memory");
	else
		__asm__ volatile("lgdt %0; mov %1, %%fs"
				 :
				 : "m"(p), "r"(SEL_DATA)
				 : "memory");
}

static void idt_hole(void)
{
	load_table("idt", HOLE);
}

static void gdt_hole(void)
{
	load_table("gdt", HOLE);
}

static void tables_hole(void)
{
	write_cr3(HOLE);
}

static void sse_lapic(void)
{
	__asm__ volatile("movups %%xmm0, (%0)"
			 :
			 : "r"((u64)LAPIC_PAGE)
			 : "memory");
}

/* Its version, by a vector move, PUSH and SCAS as by MOV. */
static void read_lapic(void)
{
	const u64 at = LAPIC_PAGE + 0x30;
	u32 version = *(volatile u32 *)at, words[4] = {0};
	u64 pushed, found = at;

	__asm__ volatile("movups (%1), %%xmm0; movups %%xmm0, %0"
			 : "=m"(words)
			 : "r"(at)
			 : "memory");
	__asm__ volatile("push (%1); pop %0"
			 : "=r"(pushed)
			 : "r"(at)
			 : "memory");
	__asm__ volatile("scasl; je 1f; xor %0, %0; 1:"
			 : "+D"(found)
			 : "a"(version)
			 : "memory", "cc");
	if (version && words[0] == version && !words[1] &&
	    (u32)pushed == version && found == at + 4)
		print("hostile: all read the same\n");
	finish(0);
}

static void cmpxchg_lapic(void)
{
	__asm__ volatile("lock cmpxchg %%ecx, (%0)"
			 :
			 : "r"((u64)LAPIC_PAGE + 0x80), "a"(0), "c"(0x10)
			 : "memory", "cc");
}

static void fxsave_hole(void)
{
	__asm__ volatile("fxsave (%0)" : : "r"(HOLE) : "memory");
}

static void ins_hole(void)
{
	__asm__ volatile("insb" : : "D"(HOLE), "d"(0x21) : "memory");
}

static void init_self(void)
{
	send_self(5u << 8 | 1u << 14);
	for (;;)
		relax();
}

static void sipi_self(void)
{
	send_self(6u << 8 | 0x10);
	for (unsigned i = 0; i < 1000; i++)
		cpuid(0, 0);
	print("hostile: the start-up IPI is ignored\n");
	finish(0);
}

struct deed {
	const char *name;
	void (*run)(void);
};

static void one(const char *name)
{
	static const struct deed deeds[] = {
		{"fetch-hole", fetch_hole},   {"fetch-lapic", fetch_lapic},
		{"fetch-vga", fetch_vga},     {"stack-hole", stack_hole},
		{"call-hole", call_hole},     {"idt-hole", idt_hole},
		{"gdt-hole", gdt_hole},	      {"tables-hole", tables_hole},
		{"sse-lapic", sse_lapic},     {"cmpxchg-lapic", cmpxchg_lapic},
		{"fxsave-hole", fxsave_hole}, {"ins-hole", ins_hole},
		{"init-self", init_self},     {"sipi-self", sipi_self},
		{"read-lapic", read_lapic},
	};

	if (cmos_get() == 0xA55A) {
		print("hostile: reset\n");
		finish(0);
	}
	cmos_set(0xA55A);
	for (unsigned i = 0; i < COUNT(deeds); i++)
		if (!strcmp(name, deeds[i].name))
			deeds[i].run();
	print("hostile: it went on\n");
	finish(0);
}

/* -- each way to reset, one after the other */

static void triple_fault(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) nothing = {0, 0};

	__asm__ volatile("lidt %0; ud2" : : "m"(nothing));
}

static void by_cf9(void)
{
	outb(0xCF9, 0x02);
	outb(0xCF9, 0x06);
}

static void by_keyboard(void)
{
	outb(0x64, 0xFE);
}

static void by_port92(void)
{
	outb(0x92, inb(0x92) | 1);
}

/* The pulse by way of the controller's output port. */
static void by_output_port(void)
{
	outb(0x64, 0xD1);
	outb(0x60, 0xDC);
}

void resets(void)
{
	static const struct deed ways[] = {
		{"triple fault", triple_fault},
		{"port 0xCF9", by_cf9},
		{"keyboard controller", by_keyboard},
		{"port 0x92", by_port92},
		{"keyboard output port", by_output_port},
		{"INIT", init_self},
	};
	static u32 pristine = 42;
	u16 stage = cmos_get();

	if (stage >> 8 != 0x5A)
		stage = 0x5A00;
	check(pristine, 42);
	check(lapic_read(LAPIC_TPR), 0);
	pristine = 0;
	lapic_write(LAPIC_TPR, 0x20);
	cmos_set((u16)(stage + 1));
	stage &= 0xff;
	if (stage == COUNT(ways)) {
		print("resets: %u\n", stage);
		finish(0);
	}
	print("reset by %s\n", ways[stage].name);
	ways[stage].run();
	for (u64 start = rdtsc(); rdtsc() - start < 100000000;)
		relax();
	print("resets: %s does nothing\n", ways[stage].name);
	finish(1);
}

void hostile(const char *what)
{
	if (starts(what, "ports"))
		ports();
	else if (starts(what, "msrs"))
		msrs();
	else if (starts(what, "memory"))
		memory();
	else if (starts(what, "one "))
		one(what + 4);
	else if (starts(what, "garbage"))
		garbage();
}
