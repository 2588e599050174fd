/* SPDX-License-Identifier: MIT */
#include "kernel/time.h"

#include "arch/x86/cpu.h"
#include "arch/x86/io.h"

enum {
	PIT_HZ = 1193182,
	PIT_CHANNEL2 = 0x42,
	PIT_COMMAND = 0x43,
	PORT_61 = 0x61,
	GATE2 = 1,
	SPEAKER = 2,
	OUT2 = 0x20,
	MODE0_WORD = 0xb0, /* channel 2, low then high byte, mode 0 */
	COUNT = PIT_HZ / 20,
	PATIENCE = 20000000, /* reads of a port take 0.1 µs and more */
};

/* Intel 8254: OUT rises when the count of mode 0 is over. */
static u64 measure(void)
{
	u8 port61 = inb(PORT_61);
	u64 start, ticks = 0;

	outb(PORT_61, (u8)((port61 & ~SPEAKER) | GATE2));
	outb(PIT_COMMAND, MODE0_WORD);
	outb(PIT_CHANNEL2, COUNT & 0xff);
	outb(PIT_CHANNEL2, COUNT >> 8);
	start = rdtsc();
	for (int i = 0; i < PATIENCE && !ticks; i++)
		if (inb(PORT_61) & OUT2)
			ticks = rdtsc() - start;
	outb(PORT_61, port61);
	/* A port that reads all ones shows OUT2 at once. */
	return ticks < 10000 ? 0 : ticks * 20;
}

u64 tsc_frequency(void)
{
	struct cpuid r = {0, 0, 0, 0};

	if (cpuid(0, 0).eax >= 0x15)
		r = cpuid(0x15, 0);
	if (r.eax && r.ebx && r.ecx)
		return (u64)r.ecx * r.ebx / r.eax;
	return measure();
}

void delay_us(u64 tsc_hz, u64 us)
{
	u64 end = rdtsc() + tsc_hz / 1000000 * us;

	while (rdtsc() < end)
		cpu_relax();
}
