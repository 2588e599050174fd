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

static void forget(struct bus *bus, enum bus_space space)
{
	bus->recent[space] = (struct bus_recent){.first = 1};
	bus->before[space] = bus->recent[space];
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
	forget(bus, space);
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
	forget(bus, space);
	return 0;
}

bool bus_is_free(const struct bus *bus, enum bus_space space, u64 first,
		 u64 last)
{
	unsigned at = first_not_before(bus, space, first);

	return at == bus->count[space] || bus->ranges[space][at].first > last;
}

static bool is_recent(const struct bus_recent *r, u64 addr)
{
	return r->first <= addr && addr <= r->last;
}

static struct bus_recent find(struct bus *bus, enum bus_space space, u64 addr)
{
	const struct bus_range *ranges = bus->ranges[space];
	unsigned at = first_not_before(bus, space, addr);
	struct bus_recent r = {at ? ranges[at - 1].last + 1 : 0, ~0ull, NULL,
			       NULL};

	if (at < bus->count[space]) {
		if (ranges[at].first > addr)
			r.last = ranges[at].first - 1;
		else
			r = (struct bus_recent){
				ranges[at].first, ranges[at].last,
				ranges[at].handler, ranges[at].dev};
	}
	return r;
}

/* Index and data: drivers go to and fro between two. */
static NOINLINE bool search(struct bus *bus, enum bus_space space, u64 addr)
{
	struct bus_recent r = bus->before[space];

	bus->before[space] = bus->recent[space];
	if (!is_recent(&r, addr))
		r = find(bus, space, addr);
	bus->recent[space] = r;
	return r.handler;
}

bool bus_has(struct bus *bus, enum bus_space space, u64 addr)
{
	if (is_recent(&bus->recent[space], addr))
		return bus->recent[space].handler;
	return search(bus, space, addr);
}

/* Apart, each, for what it needs on the stack all accesses would save. */
static NOINLINE int nobody(enum bus_space space, struct bus_access *access)
{
	if (space == BUS_MSR)
		return -EFAULT;
	if (!access->write)
		access->value = bus_all_ones(access->size);
	return 0;
}

static NOINLINE int search_and_dispatch(struct bus *bus, enum bus_space space,
					struct bus_access *access)
{
	search(bus, space, access->addr);
	return bus_dispatch(bus, space, access);
}

int bus_dispatch(struct bus *bus, enum bus_space space,
		 struct bus_access *access)
{
	const struct bus_recent *r = &bus->recent[space];

	if (!is_recent(r, access->addr))
		return search_and_dispatch(bus, space, access);
	if (!r->handler)
		return nobody(space, access);
	/* The handler may move ranges: *r is another's behind this. */
	return r->handler(r->dev, access);
}
