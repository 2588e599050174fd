/* SPDX-License-Identifier: MIT */
#include "vmm/core/vclock.h"
#include "arch/x86/errno.h"

void vclock_init(struct vclock *clock, u64 tsc_hz)
{
	*clock = (struct vclock){.tsc_hz = tsc_hz, .next = VCLOCK_NEVER};
}

int vclock_add(struct vclock *clock, struct vtimer *timer,
	       void (*fire)(void *dev, u64 now), void *dev)
{
	if (clock->count == VCLOCK_TIMERS)
		return -ENOSPC;
	*timer = (struct vtimer){
		.deadline = VCLOCK_NEVER,
		.fire = fire,
		.dev = dev,
	};
	clock->timers[clock->count++] = timer;
	return 0;
}

static struct vtimer *nearest(const struct vclock *clock)
{
	struct vtimer *first = NULL;

	for (unsigned i = 0; i < clock->count; i++)
		if (!first || clock->timers[i]->deadline < first->deadline)
			first = clock->timers[i];
	return first;
}

/* Another CPU may be reading it. */
static void set_next(struct vclock *clock, u64 next)
{
	if (next == clock->next)
		return;
	__atomic_store_n(&clock->next, next, __ATOMIC_RELAXED);
	if (clock->changed)
		clock->changed(clock->ctx);
}

void vtimer_set(struct vclock *clock, struct vtimer *timer, u64 deadline)
{
	u64 before = timer->deadline;

	timer->deadline = deadline;
	if (deadline <= clock->next)
		set_next(clock, deadline);
	else if (before == clock->next)
		set_next(clock, nearest(clock)->deadline);
}

/*
 * In the order of the deadlines. A periodic timer that lags behind arms
 * itself in the past again, so the passes are bounded; what is left over
 * stays in clock->next and has the caller come back at once.
 */
void vclock_run(struct vclock *clock, u64 now)
{
	for (unsigned i = 0; i < VCLOCK_TIMERS; i++) {
		struct vtimer *timer;

		if (clock->next > now || clock->next == VCLOCK_NEVER)
			return;
		timer = nearest(clock);
		vtimer_set(clock, timer, VCLOCK_NEVER);
		timer->fire(timer->dev, now);
	}
}
