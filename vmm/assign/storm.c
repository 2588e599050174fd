/* SPDX-License-Identifier: MIT */
#include "vmm/assign/storm.h"

#include "vmm/core/vclock.h"

bool storm_count(struct storm *s, u64 now, u64 tsc_hz)
{
	if (now - s->start >= storm_ticks(tsc_hz)) {
		s->start = now;
		s->count = 0;
	}
	if (++s->count <= STORM_COUNT)
		return false;
	s->rate = scale_ticks(s->count, tsc_hz, MAX(now - s->start, 1ull));
	s->storms++;
	s->count = 0;
	s->start = now;
	return true;
}
