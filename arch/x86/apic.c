/* SPDX-License-Identifier: MIT */
#include "arch/x86/apic.h"

#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "arch/x86/io.h"

enum {
	APIC_BASE_X2APIC = 1u << 10,
	APIC_BASE_ENABLE = 1u << 11,
	SVR_ENABLE = 1u << 8,
	LVT_MASKED = 1u << 16,
	LVT_DEADLINE = 2u << 17,
	DIVIDE_BY_1 = 0xb,
	ICR_PENDING = 1u << 12,
	IOREGSEL = 0,
	IOWIN = 0x10,
	IOAPIC_VERSION = 1,
	IOAPIC_TABLE = 0x10,
};

static struct {
	volatile u8 *page;
	bool x2apic;
	bool deadline; /* the timer has that mode */
	u64 rate;      /* else: counts for 2^32 ticks of the TSC */
} apic;

static u32 read(enum local_apic_register r)
{
	if (apic.x2apic)
		return (u32)rdmsr(0x800 + (u32)r / 16);
	return mmio_read32(apic.page + r);
}

static void write(enum local_apic_register r, u32 value)
{
	if (apic.x2apic)
		wrmsr(0x800 + (u32)r / 16, value);
	else
		mmio_write32(apic.page + r, value);
}

void local_apic_init(volatile void *page, bool x2apic, u8 spurious_vector)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	apic.page = page;
	apic.x2apic = x2apic || (base & APIC_BASE_X2APIC);
	local_apic_join(spurious_vector);
}

void local_apic_join(u8 spurious_vector)
{
	u64 base = rdmsr(MSR_APIC_BASE);

	if (!(base & APIC_BASE_ENABLE))
		wrmsr(MSR_APIC_BASE, base |= APIC_BASE_ENABLE);
	if (apic.x2apic)
		wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2APIC);
	write(APIC_SVR, SVR_ENABLE | spurious_vector);
	write(APIC_LVT_TIMER, LVT_MASKED);
	write(APIC_LVT_LINT0, LVT_MASKED);
	write(APIC_LVT_LINT1, LVT_MASKED);
	write(APIC_LVT_ERROR, LVT_MASKED);
	write(APIC_TPR, 0);
}

u32 local_apic_id(void)
{
	return apic.x2apic ? read(APIC_ID) : read(APIC_ID) >> 24;
}

void local_apic_eoi(void)
{
	write(APIC_EOI, 0);
}

bool local_apic_is_pending(u8 vector)
{
	u32 word =
		read((enum local_apic_register)(APIC_IRR + vector / 32 * 16));

	return word >> vector % 32 & 1;
}

int local_apic_send(u32 apic_id, u32 low)
{
	if (apic.x2apic) {
		wrmsr(0x800 + APIC_ICR / 16, (u64)apic_id << 32 | low);
		return 0;
	}
	if (apic_id >= 0xff) /* cut to 8 bits it is another CPU's, or all */
		return -EINVAL;
	write(APIC_ICR_HIGH, apic_id << 24);
	write(APIC_ICR, low);
	for (int i = 0; i < 100000; i++) {
		if (!(read(APIC_ICR) & ICR_PENDING))
			return 0;
		cpu_relax();
	}
	return -ETIMEDOUT;
}

/*
 * The TSC's ticks are those around the timer's: the rate comes out too low, by
 * an SMI far too low. So one-shots end early, and are set again, never late.
 */
static int measure_timer(u64 window)
{
	u64 start = rdtsc(), counted;

	write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
	write(APIC_TIMER_INITIAL, ~0u);
	while (rdtsc() - start < window)
		cpu_relax();
	counted = ~0u - read(APIC_TIMER_CURRENT);
	apic.rate = (counted << 32) / (rdtsc() - start);
	write(APIC_TIMER_INITIAL, 0);
	return counted ? 0 : -EIO;
}

int local_apic_timer_init(u8 vector, u64 window, bool deadline)
{
	int err;

	apic.deadline = deadline && cpuid(1, 0).ecx & BIT(24);
	err = apic.deadline ? 0 : measure_timer(window);
	write(APIC_LVT_TIMER, vector | (apic.deadline ? LVT_DEADLINE : 0));
	mfence(); /* SDM 11.5.4.1: before the MSR's first write */
	return err;
}

void local_apic_timer_set(u64 deadline)
{
	u64 now, left;

	if (apic.deadline) {
		wrmsr(MSR_TSC_DEADLINE, deadline == ~0ull ? 0 : deadline);
		return;
	}
	now = rdtsc();
	left = deadline > now ? MIN(deadline - now, BIT(31)) : 0;
	write(APIC_TIMER_INITIAL,
	      deadline == ~0ull ? 0 : (u32)(left * apic.rate >> 32) + 1);
}

static u32 ioapic_read(volatile void *base, u8 index)
{
	mmio_write32((volatile u8 *)base + IOREGSEL, index);
	return mmio_read32((volatile u8 *)base + IOWIN);
}

static void ioapic_write(volatile void *base, u8 index, u32 value)
{
	mmio_write32((volatile u8 *)base + IOREGSEL, index);
	mmio_write32((volatile u8 *)base + IOWIN, value);
}

unsigned ioapic_pins(volatile void *base)
{
	return (ioapic_read(base, IOAPIC_VERSION) >> 16 & 0xff) + 1;
}

void ioapic_set_entry(volatile void *base, unsigned pin, u64 entry)
{
	u8 low = (u8)(IOAPIC_TABLE + 2 * pin);

	ioapic_write(base, low, (u32)(entry | IOAPIC_MASKED));
	ioapic_write(base, (u8)(low + 1), (u32)(entry >> 32));
	ioapic_write(base, low, (u32)entry);
}
