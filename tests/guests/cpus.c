/* SPDX-License-Identifier: MIT */
/* All CPUs of the machine: which there are, how they start and what they do. */
#include "guests/guest.h"

#define MSR_GS_BASE 0xC0000101
#define MSR_X2APIC_ICR 0x830
#define BASE_X2APIC BIT(10)
#define ICR_PENDING BIT(12)

struct cpu cpus[CPUS_MAX];
unsigned cpu_count;

extern const char cpu_trampoline[], cpu_trampoline_end[];
extern const u64 gdt[], tss64[]; /* start.asm */

void cpu_main(u32 cs, u32 cr0, u32 edx);

/* -- the local APIC, in the mode in which this CPU has it */

u32 apic_get(unsigned reg)
{
	if (this_cpu()->x2apic)
		return (u32)rdmsr(0x800 + reg);
	return read32(LAPIC_PAGE + 16 * reg);
}

void apic_set(unsigned reg, u32 value)
{
	if (this_cpu()->x2apic)
		wrmsr(0x800 + reg, value);
	else
		write32(LAPIC_PAGE + 16 * reg, value);
}

/* A handler that sends one may come in between: SDM 10.6.1. */
void send_ipi(u32 dest, u32 icr)
{
	u64 flags;

	__asm__ volatile("pushfq; pop %0; cli" : "=r"(flags) : : "memory");
	if (this_cpu()->x2apic) {
		wrmsr(MSR_X2APIC_ICR, (u64)dest << 32 | icr);
	} else {
		apic_set(LAPIC_ICR_HIGH, dest << 24);
		apic_set(LAPIC_ICR, icr);
		while (apic_get(LAPIC_ICR) & ICR_PENDING)
			relax();
	}
	if (flags & BIT(9))
		sti();
}

/* A bit for each of eight, or clusters of two (SDM 10.6.2.2). */
u32 logical_id(u32 id, bool flat)
{
	return flat ? 1u << id : id / 2 << 4 | 1u << id % 2;
}

void set_logical(bool flat)
{
	u32 id = this_cpu()->id;

	apic_set(LAPIC_DFR, flat ? 0xffffffff : 0x0fffffff);
	apic_set(LAPIC_LDR, logical_id(id, flat) << 24);
}

void enter_x2apic(void)
{
	u64 base = rdmsr(MSR_APIC_BASE) | BASE_X2APIC;

	wrmsr(MSR_APIC_BASE, base);
	wrmsr(MSR_APIC_BASE, base); /* Bochs 2.7: LDR only now */
	this_cpu()->x2apic = true;
	apic_set(LAPIC_SVR, 0x1FF);
}

static void apic_on(void)
{
	this_cpu()->x2apic = false;
	if (rdmsr(MSR_APIC_BASE) & BASE_X2APIC) {
		enter_x2apic(); /* an INIT leaves the mode: SDM 10.12.5.1 */
		return;
	}
	apic_set(LAPIC_SVR, 0x1FF);
	set_logical(true);
}

/* -- what a CPU has for itself: its NMI's stack, and what GS points to */

static void load_tables(struct cpu *me)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = {sizeof(me->gdt) - 1, (u64)me->gdt};
	u64 base = (u64)me->tss;

	me->self = me;
	memcpy(me->gdt, gdt, 8 * sizeof(*gdt));
	memcpy(me->tss, tss64, sizeof(me->tss));
	memcpy(me->tss + 36, &(u64){(u64)(me->stacks + 2048)}, 8);
	memcpy(me->tss + 44, &(u64){(u64)(me->stacks + 4096)}, 8);
	me->gdt[8] =
		0x0000890000000067 | (base & 0xffffff) << 16 | base >> 24 << 56;
	me->gdt[9] = base >> 32;
	__asm__ volatile("lgdt %0; ltr %w1" : : "m"(pointer), "r"(8 * 8));
	wrmsr(MSR_GS_BASE, (u64)me);
	idt_load();
}

void cpu_main(u32 cs, u32 cr0, u32 edx)
{
	struct cpu *me = &cpus[(cpuid(1, 0).ebx >> 24) % CPUS_MAX];

	load_tables(me);
	apic_on();
	me->task = NULL;
	me->start_cs = cs;
	me->start_cr0 = cr0;
	me->start_edx = edx;
	__atomic_fetch_add(&me->lives, 1, __ATOMIC_SEQ_CST);
	for (sti();; me->beats++) {
		if (me->task) {
			me->task(me);
			me->task = NULL;
		}
		relax();
	}
}

void begin(struct cpu *c, void (*task)(struct cpu *))
{
	__atomic_store_n(&c->task, task, __ATOMIC_SEQ_CST);
}

void rest(u64 ticks)
{
	for (u64 start = rdtsc(); rdtsc() - start < ticks;)
		relax();
}

bool is_soon(const volatile u32 *at, u32 value)
{
	for (u64 start = rdtsc(); *at != value; relax())
		if (rdtsc() - start > IPI_TIME)
			return false;
	return true;
}

void end(const struct cpu *c)
{
	for (u64 start = rdtsc(); c->task; relax())
		if (rdtsc() - start > 4 * IPI_TIME) {
			print("CPU %u does not come to an end\n", c->id);
			finish(1);
		}
}

void end_all(void)
{
	for (unsigned id = 0; id < CPUS_MAX; id++)
		end(&cpus[id]);
}

/* -- which there are: ACPI 6.4, 5.2.5.3, 5.2.12 */

static u64 find_rsdp(u64 from, u64 to)
{
	for (u64 at = from; at < to; at += 16)
		if (starts((const char *)at, "RSD PTR "))
			return at;
	return 0;
}

static u64 find_madt(void)
{
	u64 ebda = (u64) * (volatile u16 *)0x40E << 4;
	u64 rsdp = find_rsdp(ebda, ebda + 1024);
	u64 rsdt;

	if (!rsdp)
		rsdp = find_rsdp(0xE0000, 0x100000);
	if (!rsdp)
		return 0;
	rsdt = read32(rsdp + 16);
	for (u64 at = rsdt + 36; at < rsdt + read32(rsdt + 4); at += 4)
		if (starts((const char *)(u64)read32(at), "APIC"))
			return read32(at);
	return 0;
}

static void found(u32 id)
{
	if (id >= CPUS_MAX) {
		print("APIC ID %u is too large\n", id);
		finish(1);
	}
	cpus[id].is_there = true;
	cpu_count++;
}

static void cpus_find(void)
{
	u64 madt = find_madt(), end = madt ? madt + read32(madt + 4) : 0;

	for (u32 id = 0; id < CPUS_MAX; id++)
		cpus[id].id = id;
	for (u64 at = madt + 44; at < end; at += *(u8 *)(at + 1)) {
		const u8 *row = (const u8 *)at;

		if (row[0] == 0 && row[4] & 1)
			found(row[3]);
		else if (row[0] == 9 && row[8] & 1)
			found(read32(at + 4));
	}
}

/* The first page of low memory, and the next: a SIPI's vector. */
u32 start_vector(unsigned page)
{
	return (u32)(low_page >> 12) + page;
}

void cpus_init(void)
{
	u32 me = cpuid(1, 0).ebx >> 24;

	cpus_find();
	if (!low_page || me >= CPUS_MAX || !cpus[me].is_there) {
		print("this CPU is none of the MADT's\n");
		finish(1);
	}
	for (unsigned page = 0; page < 2; page++)
		memcpy((void *)(low_page + 4096 * page), cpu_trampoline,
		       (size_t)(cpu_trampoline_end - cpu_trampoline));
	load_tables(&cpus[me]);
	apic_on();
}
