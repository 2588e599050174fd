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

/* Ticks of the TSC per second; 0: that clock stands still. */
struct measured {
	u64 pit, timer;
};

/*
 * One interval by both. Intel 8254: OUT rises when the count of mode 0 is
 * over; a port that reads all ones shows it at once. ACPI 6.4, 4.8.3.3: the PM
 * timer counts 24 bits, or 32, and never stops.
 */
static struct measured measure(u16 port)
{
	u8 port61 = inb(PORT_61);
	u64 start, since, ticks;
	u32 from, counted = 0;
	bool absent, over;

	outb(PORT_61, (u8)((port61 & ~SPEAKER) | GATE2));
	outb(PIT_COMMAND, MODE0_WORD);
	outb(PIT_CHANNEL2, COUNT & 0xff);
	outb(PIT_CHANNEL2, COUNT >> 8);
	start = rdtsc();
	absent = inb(PORT_61) & OUT2;
	from = port ? inl(port) : 0;
	since = rdtsc();
	do {
		over = !absent && (inb(PORT_61) & OUT2);
		if (port)
			counted = (inl(port) - from) & PM_TIMER_MASK;
		ticks = rdtsc() - since;
	} while (!over && counted < PM_TIMER_HZ / 10 && ticks < PATIENCE);
	outb(PORT_61, port61);
	return (struct measured){
		.pit = over ? (ticks + since - start) * 20 : 0,
		.timer = counted < PM_TIMER_HZ / 50
				 ? 0
				 : ticks * PM_TIMER_HZ / counted,
	};
}

static u64 middle(u64 a, u64 b, u64 c)
{
	return MAX(MIN(a, b), MIN(MAX(a, b), c));
}

/* The middle ones of three: firmware's SMIs make any of them too long. */
static void measure_again(struct measured *m, u16 port)
{
	struct measured b = measure(port), c = measure(port);

	m->pit = middle(m->pit, b.pit, c.pit);
	m->timer = middle(m->timer, b.timer, c.timer);
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

static bool near(u64 a, u64 b)
{
	return distance(a, b) < a / 50;
}

/* Whether the two do not contradict each other. */
static bool agree(const char *one, u64 a, const char *other, u64 b)
{
	bool well = !a || !b || near(a, b);

	if (!well)
		log_warn("%s states a TSC of %lu Hz, %s one of %lu", one, a,
			 other, b);
	return well;
}

/*
 * The PM timer is the finer one. Of two that differ it is that which CPUID
 * states (0: nothing), or the PIT, which Linux takes, too.
 */
static u64 pick(const struct measured *m, u64 said, const char **by)
{
	bool timer = m->timer && (!m->pit || near(m->pit, m->timer) ||
				  near(said, m->timer));

	*by = timer ? "the ACPI timer" : "the PIT";
	return timer ? m->timer : m->pit;
}

/* CPUID is exact where it is true; below a hypervisor it need not be. */
u64 tsc_frequency(u16 *pm_timer, bool *exact)
{
	struct measured m = measure(*pm_timer);
	u64 base = base_frequency(), said, hz;
	const char *by;

	said = stated(pick(&m, 0, &by));
	hz = pick(&m, said, &by);
	if (hz && !near(said, hz))
		measure_again(&m, *pm_timer);
	hz = pick(&m, said, &by);
	*exact = agree("CPUID 0x15", said, by, hz) && said;
	if (!near(m.timer, m.pit) && !near(m.timer, said))
		*pm_timer = 0;
	agree("the PIT", m.pit, "the ACPI timer", m.timer);
	if (*exact || !hz) {
		hz = *exact ? said : base;
		by = *exact ? "CPUID 0x15" : "CPUID 0x16";
	}
	agree("CPUID 0x16", base, by, hz);
	if (hz)
		log_info("tsc: %lu Hz, by %s%s", hz, by,
			 *exact ? "" : "; the guest is to measure it itself");
	return hz;
}

void delay_us(u64 tsc_hz, u64 us)
{
	u64 end = rdtsc() + tsc_hz / 1000000 * us;

	while (rdtsc() < end)
		cpu_relax();
}
