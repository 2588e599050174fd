/* SPDX-License-Identifier: MIT */
#include "vmm/core/bus.h"
#include "arch/x86/errno.h"
#include "kernel/string.h"

/* The index of the first range that does not end before addr, or count. */
static unsigned first_not_before(const struct bus *bus, enum bus_space space,
				 u64 addr)
{
	unsigned low = 0, high = bus->count[space];

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (bus->ranges[space][middle].last >= addr)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

int bus_register(struct bus *bus, enum bus_space space, u64 first, u64 last,
		 bus_handler *handler, void *dev, const char *name)
{
	struct bus_range *ranges = bus->ranges[space];
	unsigned count = bus->count[space];
	unsigned at = first_not_before(bus, space, first);

	if (last < first)
		return -EINVAL;
	if (at < count && ranges[at].first <= last)
		return -EEXIST;
	if (count == BUS_RANGES)
		return -ENOSPC;
	memmove(&ranges[at + 1], &ranges[at], (count - at) * sizeof(*ranges));
	ranges[at] = (struct bus_range){
		.first = first,
		.last = last,
		.handler = handler,
		.dev = dev,
		.name = name,
	};
	bus->count[space] = count + 1;
	bus->recent[space] = &ranges[at];
	return 0;
}

int bus_unregister(struct bus *bus, enum bus_space space, u64 first)
{
	struct bus_range *ranges = bus->ranges[space];
	unsigned count = bus->count[space];
	unsigned at = first_not_before(bus, space, first);

	if (at == count || ranges[at].first != first)
		return -ENOENT;
	count--;
	memmove(&ranges[at], &ranges[at + 1], (count - at) * sizeof(*ranges));
	bus->count[space] = count;
	bus->recent[space] = NULL;
	return 0;
}

bool bus_is_free(const struct bus *bus, enum bus_space space, u64 first,
		 u64 last)
{
	unsigned at = first_not_before(bus, space, first);

	return at == bus->count[space] || bus->ranges[space][at].first > last;
}

static bool holds(const struct bus_range *range, u64 addr)
{
	return range->first <= addr && addr <= range->last;
}

static struct bus_range *find(struct bus *bus, enum bus_space space, u64 addr)
{
	struct bus_range *range = bus->recent[space];
	unsigned at;

	if (range && holds(range, addr))
		return range;
	at = first_not_before(bus, space, addr);
	range = &bus->ranges[space][at];
	if (at == bus->count[space] || !holds(range, addr))
		return NULL;
	bus->recent[space] = range;
	return range;
}

int bus_dispatch(struct bus *bus, enum bus_space space,
		 struct bus_access *access)
{
	struct bus_range *range = find(bus, space, access->addr);

	if (!range) {
		bus->unclaimed[space]++;
		if (space == BUS_MSR)
			return -EFAULT;
		if (!access->write)
			access->value = bus_all_ones(access->size);
		return 0;
	}
	range->hits++;
	/* The handler may move ranges: range is not valid behind this. */
	return range->handler(range->dev, access);
}
