/* SPDX-License-Identifier: MIT */
/*
 * The trap bus: device models register port, MMIO and MSR ranges on it; the
 * vCPU loop sends it what trapped. A device knows the bus and no vCPU loop,
 * the loop knows the bus and no device.
 */
#ifndef VMM_CORE_BUS_H
#define VMM_CORE_BUS_H

#include "arch/x86/types.h"

enum bus_space { BUS_PORT, BUS_MMIO, BUS_MSR, BUS_SPACES };

#define BUS_RANGES 192 /* for each space */

struct bus_access {
	u64 addr;      /* port, guest-physical address, or MSR index */
	unsigned size; /* bytes: 1, 2, 4; MMIO and MSR also 8 */
	bool write;
	u64 value; /* written, or (zero-extended) what the read gives */
};

/*
 * One access to a device. Returns 0; or -EFAULT for what hardware answers
 * with #GP (MSRs only). A port or MMIO handler answers accesses of every
 * size that hits its range; where hardware has no such access, reads give
 * all ones of that size and writes are dropped.
 */
typedef int bus_handler(void *dev, struct bus_access *access);

struct bus_range {
	u64 first, last; /* inclusive */
	bus_handler *handler;
	void *dev;
	const char *name; /* static storage */
};

/* Who answers at the last place, all that an access reads; or a gap. */
struct bus_recent {
	u64 first, last;      /* inclusive; first > last: none */
	bus_handler *handler; /* NULL: nobody */
	void *dev;
};

struct bus {
	struct bus_recent recent[BUS_SPACES]; /* two on a line */
	unsigned count[BUS_SPACES];
	struct bus_range ranges[BUS_SPACES][BUS_RANGES]; /* sorted */
	struct bus_recent before[BUS_SPACES]; /* what was recent before it */
};

/* -EEXIST: overlaps a range that is there; -ENOSPC: no room. */
int bus_register(struct bus *bus, enum bus_space space, u64 first, u64 last,
		 bus_handler *handler, void *dev, const char *name);

/* Removes the range that starts at first; -ENOENT if there is none. */
int bus_unregister(struct bus *bus, enum bus_space space, u64 first);

/* Whether a range holds addr; dispatch is quick then. */
bool bus_has(struct bus *bus, enum bus_space space, u64 addr);

/* No range holds an address of [first, last]. */
bool bus_is_free(const struct bus *bus, enum bus_space space, u64 first,
		 u64 last);

/*
 * Runs the access. Unclaimed: ports and MMIO read all ones and drop writes
 * (returns 0); an MSR returns -EFAULT. An access that starts in a range and
 * runs over its end goes to that range alone.
 */
int bus_dispatch(struct bus *bus, enum bus_space space,
		 struct bus_access *access);

/* All ones of the access's size: what nobody answers. */
static inline u64 bus_all_ones(unsigned size)
{
	return size >= 8 ? ~0ull : BIT(size * 8) - 1;
}

#endif
