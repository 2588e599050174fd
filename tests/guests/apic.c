/* SPDX-License-Identifier: MIT */
#include "guests/guest.h"

#define MSR_X2APIC 0x800

bool x2apic;

u32 lapic_read(unsigned reg)
{
	if (x2apic)
		return (u32)rdmsr(MSR_X2APIC + reg);
	return read32(LAPIC_PAGE + 16 * reg);
}

void lapic_write(unsigned reg, u32 value)
{
	if (x2apic)
		wrmsr(MSR_X2APIC + reg, value);
	else
		write32(LAPIC_PAGE + 16 * reg, value);
}

void send_self(u32 icr)
{
	if (x2apic) {
		wrmsr(MSR_X2APIC + LAPIC_ICR,
		      (u64)lapic_read(LAPIC_ID) << 32 | icr);
		return;
	}
	lapic_write(LAPIC_ICR_HIGH, lapic_read(LAPIC_ID));
	lapic_write(LAPIC_ICR, icr);
}

void lapic_on(void)
{
	lapic_write(LAPIC_SVR, 0x1FF);
	lapic_write(LAPIC_TPR, 0);
	lapic_write(LAPIC_TIMER_DIVIDE, 0xB); /* by 1 */
}

/* 8259A: vectors 0x20-0x2F, all masked. */
void pics_off(void)
{
	outb(0x20, 0x11);
	outb(0xA0, 0x11);
	outb(0x21, 0x20);
	outb(0xA1, 0x28);
	outb(0x21, 4);
	outb(0xA1, 2);
	outb(0x21, 1);
	outb(0xA1, 1);
	outb(0x21, 0xFF);
	outb(0xA1, 0xFF);
}

u32 ioapic_read(u8 reg)
{
	write32(IOAPIC_PAGE, reg);
	return read32(IOAPIC_PAGE + 0x10);
}

void ioapic_write(u8 reg, u32 value)
{
	write32(IOAPIC_PAGE, reg);
	write32(IOAPIC_PAGE + 0x10, value);
}

void ioapic_route(unsigned pin, u32 low)
{
	u32 id = x2apic ? lapic_read(LAPIC_ID) << 24 : lapic_read(LAPIC_ID);

	ioapic_write((u8)(0x11 + 2 * pin), id);
	ioapic_write((u8)(0x10 + 2 * pin), low);
}

void pit_periodic(u16 count)
{
	outb(0x43, count ? 0x34 : 0x30); /* mode 0 waits for its count */
	if (!count)
		return;
	outb(0x40, (u8)count);
	outb(0x40, (u8)(count >> 8));
}
