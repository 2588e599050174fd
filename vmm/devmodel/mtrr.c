/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/mtrr.h"

#include "arch/x86/errno.h"
#include "kernel/string.h"

#define MSR_MTRRCAP 0xFE
#define MSR_PHYSBASE0 0x200
#define MSR_FIX64K_00000 0x250
#define MSR_FIX16K_80000 0x258
#define MSR_FIX4K_C0000 0x268
#define MSR_DEF_TYPE 0x2FF

#define CAP_FIXED BIT(8)
#define CAP_WC BIT(10)
#define DEF_FIXED_ENABLE BIT(10)
#define DEF_ENABLE BIT(11)
#define MASK_VALID BIT(11)

enum { UC = 0, WB = 6 };

/* SDM table 11-8: 2 and 3 are reserved. */
static bool is_type(u64 type)
{
	return type < 7 && type != 2 && type != 3;
}

static bool fixed_is_valid(u64 value)
{
	for (unsigned shift = 0; shift < 64; shift += 8)
		if (!is_type(value >> shift & 0xFF))
			return false;
	return true;
}

static bool variable_is_valid(const struct mtrr *m, unsigned i, u64 value)
{
	if (value & m->reserved)
		return false;
	if (i & 1)
		return !(value & (PAGE_MASK & ~MASK_VALID));
	return !(value & 0xF00) && is_type(value & 0xFF);
}

static bool default_is_valid(u64 value)
{
	return !(value & ~(DEF_ENABLE | DEF_FIXED_ENABLE | 0xFF)) &&
	       is_type(value & 0xFF);
}

static int store(u64 *reg, struct bus_access *a, bool is_valid)
{
	if (!a->write)
		a->value = *reg;
	else if (is_valid)
		*reg = a->value;
	else
		return -EFAULT;
	return 0;
}

static int variable_access(void *dev, struct bus_access *a)
{
	struct mtrr *m = dev;
	unsigned i = (unsigned)(a->addr - MSR_PHYSBASE0) % (2 * MTRR_VARIABLE);

	return store(&m->variable[i], a, variable_is_valid(m, i, a->value));
}

/* 0: 64 KiB parts; 1 and 2: 16 KiB parts; 3 to 10: 4 KiB parts. */
static int fixed_access(void *dev, struct bus_access *a)
{
	struct mtrr *m = dev;
	u64 i;

	if (a->addr == MSR_FIX64K_00000)
		i = 0;
	else if (a->addr < MSR_FIX4K_C0000)
		i = 1 + a->addr - MSR_FIX16K_80000;
	else
		i = 3 + a->addr - MSR_FIX4K_C0000;
	if (i >= MTRR_FIXED)
		return -EFAULT;
	return store(&m->fixed[i], a, fixed_is_valid(a->value));
}

static int default_access(void *dev, struct bus_access *a)
{
	struct mtrr *m = dev;

	return store(&m->default_type, a, default_is_valid(a->value));
}

static int cap_access(void *dev, struct bus_access *a)
{
	u64 cap = MTRR_VARIABLE | CAP_FIXED | CAP_WC;

	(void)dev;
	return store(&cap, a, false);
}

void mtrr_reset(struct mtrr *m)
{
	m->default_type = m->cold ? 0 : DEF_ENABLE | DEF_FIXED_ENABLE | WB;
	memcpy(m->variable, m->reset, sizeof(m->variable));
	memset(m->fixed, WB, sizeof(m->fixed));
	m->fixed[2] = UC; /* 0xA0000: legacy VGA */
}

/* Cuts a hole into naturally aligned powers of two, largest first. */
static int add_hole(struct mtrr *m, unsigned *used, struct mtrr_hole hole)
{
	u64 end = hole.base + hole.size;

	if (end < hole.base || (hole.base | end) & PAGE_MASK ||
	    (end - 1) & m->reserved)
		return -EINVAL;
	for (; hole.base < end; ++*used) {
		u64 size = hole.base & -hole.base;
		u64 *range = &m->reset[2ul * *used];

		while (!size || size > end - hole.base)
			size = size ? size / 2 : BIT(62);
		if (*used == MTRR_VARIABLE)
			return -ENOSPC;
		range[0] = hole.base; /* the type, bits 7:0, is UC: 0 */
		range[1] = (~(size - 1) & ~m->reserved) | MASK_VALID;
		hole.base += size;
	}
	return 0;
}

int mtrr_init(struct mtrr *m, struct bus *bus, unsigned phys_bits,
	      const struct mtrr_hole *holes, unsigned count)
{
	static const struct {
		u32 first, last;
		bus_handler *handler;
		const char *name;
	} ranges[] = {
		{MSR_MTRRCAP, MSR_MTRRCAP, cap_access, "mtrr-cap"},
		{MSR_PHYSBASE0, MSR_PHYSBASE0 + 2 * MTRR_VARIABLE - 1,
		 variable_access, "mtrr-variable"},
		{MSR_FIX64K_00000, MSR_FIX64K_00000, fixed_access, "mtrr-64k"},
		{MSR_FIX16K_80000, MSR_FIX16K_80000 + 1, fixed_access,
		 "mtrr-16k"},
		{MSR_FIX4K_C0000, MSR_FIX4K_C0000 + 7, fixed_access, "mtrr-4k"},
		{MSR_DEF_TYPE, MSR_DEF_TYPE, default_access, "mtrr-default"},
	};
	unsigned used = 0;
	int err = 0;

	memset(m, 0, sizeof(*m));
	m->reserved = ~(BIT(phys_bits) - 1);
	for (unsigned i = 0; i < count && !err; i++)
		err = add_hole(m, &used, holes[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(ranges) && !err; i++)
		err = bus_register(bus, BUS_MSR, ranges[i].first,
				   ranges[i].last, ranges[i].handler, m,
				   ranges[i].name);
	mtrr_reset(m);
	return err;
}
