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
	PM_TIMER_HZ = 3579545,
	PM_TIMER_MASK = 0xffffff,
};

/* TSC ticks; 50 ms of up to 40 GHz. Newer firmware stops the PIT's clock. */
#define PATIENCE BIT(31)

/* Intel 8254: OUT rises when the count of mode 0 is over. */
static u64 by_pit(u16 port)
{
	u8 port61 = inb(PORT_61);
	u64 start, ticks;
	bool over;

	(void)port;
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

/* ACPI 6.4, 4.8.3.3: counts 24 bits, or 32, and never stops. */
static u64 by_pm_timer(u16 port)
{
	u32 from = inl(port), counted;
	u64 start = rdtsc(), ticks;

	do {
		counted = (inl(port) - from) & PM_TIMER_MASK;
		ticks = rdtsc() - start;
	} while (counted < PM_TIMER_HZ / 20 && ticks < PATIENCE);
	return counted < PM_TIMER_HZ / 20 ? 0 : ticks * PM_TIMER_HZ / counted;
}

/* The middle one of three: firmware's SMIs make any of them too long. */
static u64 middle(u64 (*measure)(u16 port), u16 port, u64 a)
{
	u64 b = measure(port), c = measure(port);

	return MAX(MIN(a, b), MIN(MAX(a, b), c));
}

static u64 distance(u64 a, u64 b)
{
	return a > b ? a - b : b - a;
}

/*
 * SDM 3B 18.7.3: the crystal of CPUs that state a ratio to it and not its
 * own frequency. Of those that there are, at most one makes a TSC of about
 * so many Hz.
 */
static u64 by_ratio(struct cpuid r, u64 about)
{
	static const u32 crystals[] = {24000000, 19200000, 25000000, 38400000};

	for (unsigned i = 0; i < ARRAY_SIZE(crystals); i++) {
		u64 hz = (u64)crystals[i] * r.ebx / r.eax;

		if (distance(hz, about) < about / 100)
			return hz;
	}
	return 0;
}

/* CPUID 0x16 rounds to the MHz on the package. */
static u64 base_frequency(void)
{
	return cpuid(0, 0).eax < 0x16
		       ? 0
		       : (cpuid(0x16, 0).eax & 0xffff) * 1000000ull;
}

static u64 stated(u64 measured)
{
	struct cpuid r = {0, 0, 0, 0};

	if (cpuid(0, 0).eax >= 0x15)
		r = cpuid(0x15, 0);
	if (!r.eax || !r.ebx)
		return 0;
	return r.ecx ? (u64)r.ecx * r.ebx / r.eax
		     : by_ratio(r, measured ? measured : base_frequency());
}

/* CPUID is exact where it is true; below a hypervisor it need not be. */
u64 tsc_frequency(u16 pm_timer)
{
	u64 (*measure)(u16 port) = by_pit;
	u64 measured = by_pit(0), exact;

	if (!measured && pm_timer) {
		measure = by_pm_timer;
		measured = by_pm_timer(pm_timer);
	}
	exact = stated(measured);
	if (!measured)
		return exact ? exact : base_frequency();
	if (exact && distance(exact, measured) < exact / 50)
		return exact;
	if (exact)
		log_warn("CPUID 0x15 states a TSC of %lu Hz, measured are %lu",
			 exact, measured);
	return middle(measure, pm_timer, measured);
}

void delay_us(u64 tsc_hz, u64 us)
{
	u64 end = rdtsc() + tsc_hz / 1000000 * us;

	while (rdtsc() < end)
		cpu_relax();
}
