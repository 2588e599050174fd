/* SPDX-License-Identifier: MIT */
#include "kernel/time.h"

#include "arch/x86/cpu.h"
#include "arch/x86/io.h"
#include "kernel/log.h"

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
};

/* TSC ticks; 50 ms of up to 40 GHz. Newer firmware stops the PIT's clock. */
#define PATIENCE BIT(31)

/* Intel 8254: OUT rises when the count of mode 0 is over. */
static u64 measure(void)
{
	u8 port61 = inb(PORT_61);
	u64 start, ticks;
	bool over;

	outb(PORT_61, (u8)((port61 & ~SPEAKER) | GATE2));
	outb(PIT_COMMAND, MODE0_WORD);
	outb(PIT_CHANNEL2, COUNT & 0xff);
	outb(PIT_CHANNEL2, COUNT >> 8);
	start = rdtsc();
	do {
		over = inb(PORT_61) & OUT2;
		ticks = rdtsc() - start;
	} while (!over && ticks < PATIENCE);
	outb(PORT_61, port61);
	/* A port that reads all ones shows OUT2 at once. */
	return !over || ticks < 10000 ? 0 : ticks * 20;
}

/* The middle one of three: firmware's SMIs make any of them too long. */
static u64 middle(u64 a)
{
	u64 b = measure(), c = measure();

	return MAX(MIN(a, b), MIN(MAX(a, b), c));
}

static u64 stated(void)
{
	struct cpuid r = {0, 0, 0, 0};

	if (cpuid(0, 0).eax >= 0x15)
		r = cpuid(0x15, 0);
	return r.eax && r.ebx ? (u64)r.ecx * r.ebx / r.eax : 0;
}

/* CPUID is exact where it is true; below a hypervisor it need not be. */
u64 tsc_frequency(void)
{
	u64 exact = stated(), measured = measure();
	u64 off = exact > measured ? exact - measured : measured - exact;

	if (!measured || (exact && off < exact / 50))
		return exact;
	if (exact)
		log_warn("CPUID 0x15 states a TSC of %lu Hz, measured are %lu",
			 exact, measured);
	return middle(measured);
}

void delay_us(u64 tsc_hz, u64 us)
{
	u64 end = rdtsc() + tsc_hz / 1000000 * us;

	while (rdtsc() < end)
		cpu_relax();
}
