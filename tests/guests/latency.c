/* SPDX-License-Identifier: MIT */
/*
 * Ticks of the TSC from what is due to the first line of its handler: a
 * deadline of the local APIC's timer, while the CPU runs and while it sleeps;
 * the line of an e1000, if there is one; the message of an edu.
 */
#include "guests/guest.h"

#define EVENTS 1000
#define PATIENCE 100000000ull
#define V_TIMER 0x71
#define LVT_DEADLINE BIT(18)
#define MSR_TSC_DEADLINE 0x6E0

static u64 late[EVENTS], due;
static volatile u32 come;
static u32 in_vain;	    /* interrupts that no device has raised */
static bool (*lower)(void); /* of a device */

static void stamp(struct frame *f)
{
	u64 now = rdtsc();

	(void)f;
	if (lower && !lower())
		in_vain++;
	else if (come++ < EVENTS)
		late[come - 1] = now - due;
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

static void device(const char *what, void (*raise)(void))
{
	come = 0;
	for (u32 n = 0; n < EVENTS; n++) {
		sti();
		due = rdtsc();
		raise();
		await(n + 1, false);
		cli();
	}
	tell(what);
}

/*
 * Of these a few come in vain: Bochs's IOAPIC, which has no Remote IRR, sends a
 * level once more when another pin changes, as that of Monocle's serial line.
 */
static void line(void)
{
	if (!e1000_open(stamp))
		return;
	lower = e1000_lower;
	device("a device's line", e1000_raise);
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

/* A tick is to be an instruction: there is no other clock. */
static u64 ticks_of_a_thousand(void)
{
	u64 least = ~0ull;

	for (unsigned i = 0; i < 10; i++) {
		u64 start = rdtsc(), ticks;
		u32 n = 500;

		__asm__ volatile("1: dec %0; jnz 1b" : "+r"(n));
		ticks = rdtsc() - start;
		if (ticks < least)
			least = ticks;
	}
	return least;
}

void latency_msi(void)
{
	print("latency: 1000 instructions: %lu ticks\n", ticks_of_a_thousand());
	if (!edu_open(stamp)) {
		print("latency: no edu\n");
		finish(1);
	}
	lower = edu_lower;
	device("edu's message", edu_raise);
	/* What of that is the way to the device and back. */
	for (u32 n = 0; n < EVENTS; n++) {
		due = rdtsc();
		edu_touch();
		late[n] = rdtsc() - due;
	}
	tell("the same access without one");
	for (u64 start = rdtsc(); rdtsc() - start < PATIENCE / 10;)
		open_interrupts();
	print("latency: %u messages, %u in vain\n", come, in_vain);
	finish(0);
}
