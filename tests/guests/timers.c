/* SPDX-License-Identifier: MIT */
/*
 * How late timers are: so many deadlines of each, in HLT and in a loop. The
 * PIT's and the RTC's are a period apart that is taken from their first and
 * their last.
 */
#include "guests/guest.h"

#define DEADLINES 600
#define PATIENCE 40000000ull /* ticks for one of them */
#define V_TIMER 0x71
#define V_PIT 0x51
#define V_RTC 0x53
#define PIN_PIT 2
#define PIN_RTC 8
#define LVT_PERIODIC BIT(17)
#define LVT_DEADLINE BIT(18)
#define LVT_MASKED BIT(16)
#define RTE_NMI (4u << 8)
#define RTE_MASKED BIT(16)
#define MSR_TSC_DEADLINE 0x6E0

static u64 times[DEADLINES], due[DEADLINES];
static volatile u32 come;
static bool idle;

static void rtc_write(u8 reg, u8 value)
{
	outb(0x70, reg);
	outb(0x71, value);
}

static void rtc_acknowledge(void)
{
	outb(0x70, 0x0C);
	inb(0x71);
}

static void stamp(struct frame *f)
{
	if (come < DEADLINES)
		times[come] = rdtsc();
	come++;
	if (f->vector == V_RTC)
		rtc_acknowledge();
	lapic_write(LAPIC_EOI, 0);
}

static void await(u32 count)
{
	u64 start = rdtsc();

	while (come < count && rdtsc() - start < PATIENCE) {
		if (idle) {
			halt_open();
			continue;
		}
		sti();
		for (unsigned i = 0; i < 100; i++)
			__asm__ volatile("" : : : "memory");
		cli();
	}
}

static void tell(const char *what)
{
	u64 late = 0, early = 0;

	for (unsigned i = 0; i < come && i < DEADLINES; i++) {
		if (times[i] < due[i] && due[i] - times[i] > early)
			early = due[i] - times[i];
		if (times[i] > due[i] && times[i] - due[i] > late)
			late = times[i] - due[i];
	}
	print("timers: %s %s: %u came, late %lu, early %lu\n", what,
	      idle ? "idle" : "loaded", come, late, early);
}

/* From 100 µs on at 100 MHz, each of another length. */
static u64 length(unsigned i)
{
	return 10000 + 7919ull * i % 40000;
}

static void once(void)
{
	lapic_write(LAPIC_LVT_TIMER, V_TIMER);
	for (come = 0; come < DEADLINES;) {
		u32 n = come;

		due[n] = rdtsc() + length(n);
		lapic_write(LAPIC_TIMER_INITIAL, (u32)length(n));
		await(n + 1);
		if (come != n + 1)
			break;
	}
	tell("one-shot");
}

static void periodic(void)
{
	u64 start;

	come = 0;
	lapic_write(LAPIC_LVT_TIMER, LVT_PERIODIC | V_TIMER);
	start = rdtsc();
	lapic_write(LAPIC_TIMER_INITIAL, 30000);
	for (unsigned i = 0; i < DEADLINES; i++)
		due[i] = start + 30000 * (i + 1);
	await(DEADLINES);
	lapic_write(LAPIC_TIMER_INITIAL, 0);
	tell("periodic");
}

static void deadline(void)
{
	lapic_write(LAPIC_LVT_TIMER, LVT_DEADLINE | V_TIMER);
	for (come = 0; come < DEADLINES;) {
		u32 n = come;

		due[n] = rdtsc() + length(n);
		wrmsr(MSR_TSC_DEADLINE, due[n]);
		await(n + 1);
		if (come != n + 1)
			break;
	}
	lapic_write(LAPIC_LVT_TIMER, LVT_MASKED);
	tell("deadline");
}

static void tell_periods(const char *what)
{
	u64 all = times[DEADLINES - 1] - times[0];

	for (unsigned i = 0; i < DEADLINES; i++)
		due[i] = times[0] + all * i / (DEADLINES - 1);
	tell(what);
	print("timers: %s %s: period %lu\n", what, idle ? "idle" : "loaded",
	      all * 1000 / (DEADLINES - 1));
}

/* The first one need not have its period's phase. */
static void await_periods(void)
{
	come = 0;
	await(1);
	come = 0;
	await(DEADLINES);
}

static void pit(void)
{
	ioapic_route(PIN_PIT, V_PIT);
	pit_periodic(358);
	await_periods();
	ioapic_route(PIN_PIT, RTE_MASKED);
	pit_periodic(0);
	tell_periods("pit");
}

static void rtc(void)
{
	ioapic_route(PIN_RTC, V_RTC);
	rtc_write(0x0A, 0x24); /* 4096 Hz */
	rtc_write(0x0B, 0x42);
	rtc_acknowledge();
	await_periods();
	rtc_write(0x0B, 0x02);
	ioapic_route(PIN_RTC, RTE_MASKED);
	tell_periods("rtc");
}

/* NMIs of the PIT while interrupts are closed. */
static void closed(void)
{
	u64 start = rdtsc();

	interrupts[VEC_NMI] = 0;
	ioapic_route(PIN_PIT, RTE_NMI);
	pit_periodic(1193);
	while (rdtsc() - start < 2000000)
		;
	print("timers: closed: %u came\n", interrupts[VEC_NMI]);
	ioapic_route(PIN_PIT, RTE_MASKED);
	pit_periodic(0);
}

void timers(void)
{
	handlers[V_TIMER] = handlers[V_PIT] = handlers[V_RTC] = stamp;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BIT(10));
	x2apic = true;
	lapic_on();
	closed();
	for (unsigned i = 0; i < 2; i++) {
		idle = !i;
		once();
		periodic();
		deadline();
		pit();
		rtc();
	}
	finish(0);
}
