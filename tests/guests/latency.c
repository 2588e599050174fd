/* SPDX-License-Identifier: MIT */
/*
 * Ticks of the TSC from what is due to the first line of its handler: a
 * deadline of the local APIC's timer, while the CPU runs and while it sleeps;
 * the line of an e1000, if there is one.
 */
#include "guests/guest.h"

#define EVENTS 1000
#define PATIENCE 100000000ull
#define V_TIMER 0x71
#define LVT_DEADLINE BIT(18)
#define MSR_TSC_DEADLINE 0x6E0

static u64 late[EVENTS], due;
static volatile u32 come;
static bool by_line;

static void stamp(struct frame *f)
{
	u64 now = rdtsc();

	(void)f;
	if (come < EVENTS)
		late[come] = now - due;
	come++;
	if (by_line)
		e1000_lower();
	lapic_write(LAPIC_EOI, 0);
}

static void await(u32 count, bool asleep)
{
	while (come < count) {
		if (rdtsc() - due < BIT(63) && rdtsc() - due > PATIENCE) {
			print("latency: event %u does not come\n", count);
			finish(1);
		}
		if (asleep)
			halt_open();
		else
			open_interrupts();
	}
}

static void sort(void)
{
	for (unsigned i = 1; i < EVENTS; i++) {
		u64 one = late[i];
		unsigned at = i;

		for (; at && late[at - 1] > one; at--)
			late[at] = late[at - 1];
		late[at] = one;
	}
}

static void tell(const char *what)
{
	sort();
	print("bench: %s: median %lu\n", what, late[EVENTS / 2]);
	print("bench: %s: 99 of 100 %lu\n", what, late[EVENTS * 99 / 100]);
	print("bench: %s: most %lu\n", what, late[EVENTS - 1]);
}

/* From 100 µs on at 100 MHz, each of another length. */
static void deadlines(const char *what, bool asleep)
{
	lapic_write(LAPIC_LVT_TIMER, LVT_DEADLINE | V_TIMER);
	come = 0;
	for (u32 n = 0; n < EVENTS; n++) {
		due = rdtsc() + 10000 + 7919ull * n % 40000;
		wrmsr(MSR_TSC_DEADLINE, due);
		await(n + 1, asleep);
	}
	tell(what);
}

static void line(void)
{
	if (!e1000_open(stamp))
		return;
	by_line = true;
	come = 0;
	for (u32 n = 0; n < EVENTS; n++) {
		due = rdtsc();
		e1000_raise();
		await(n + 1, false);
	}
	tell("a device's line");
}

void latency(void)
{
	handlers[V_TIMER] = stamp;
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | BIT(10));
	x2apic = true;
	lapic_on();
	deadlines("timer, running", false);
	deadlines("timer, asleep", true);
	line();
	finish(0);
}
