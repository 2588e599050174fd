/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/apic_bus.h"

#include "vmm/devmodel/lapic.h"

/* SDM 10.6.2, and 10.12.10 for x2APIC. */
static bool is_addressed(const struct lapic *l, const struct apic_message *m)
{
	u32 ldr = lapic_get(l, LAPIC_LDR), dest = m->dest, cluster = dest >> 4;

	if (!(__atomic_load_n(&l->base, __ATOMIC_RELAXED) & APIC_BASE_EN))
		return false;
	if (dest == APIC_BROADCAST)
		return true;
	if (!m->logical)
		return dest == l->id;
	if (lapic_is_x2apic(l))
		return dest >> 16 == ldr >> 16 && (dest & ldr & 0xFFFF);
	ldr >>= 24;
	if (lapic_get(l, LAPIC_DFR) >> 28 == 0xF)
		return dest & ldr;
	return (cluster == 0xF || cluster == ldr >> 4) && (dest & ldr & 0xF);
}

/* Its processor priority, while its CPU may be changing it: a hint. */
static u32 busyness(const struct lapic *l)
{
	u32 tpr = lapic_get(l, LAPIC_TPR);

	for (unsigned word = 8; word-- > 0;) {
		u32 bits = lapic_get(l, LAPIC_ISR + word), vector;

		if (!bits)
			continue;
		vector = 32 * word + 31 - (u32)__builtin_clz(bits);
		return MAX(tpr, vector & 0xF0);
	}
	return tpr;
}

/* Of equals, each in its turn. */
static bool send_lowest(struct apic_bus *apics, const struct apic_message *m,
			const struct lapic *except)
{
	unsigned first = __atomic_fetch_add(&apics->turn, 1, __ATOMIC_RELAXED);
	struct lapic *best = NULL;

	for (unsigned i = 0; i < apics->count; i++) {
		struct lapic *l = apics->lapics[(first + i) % apics->count];

		if (l == except || !is_addressed(l, m) || !lapic_is_enabled(l))
			continue;
		if (!best || busyness(l) < busyness(best))
			best = l;
	}
	return best && lapic_accept(best, m);
}

bool apic_bus_send(struct apic_bus *apics, const struct apic_message *m,
		   const struct lapic *except)
{
	bool taken = false;

	if (m->delivery == APIC_LOWEST_PRIORITY)
		return send_lowest(apics, m, except);
	for (unsigned i = 0; i < apics->count; i++) {
		struct lapic *l = apics->lapics[i];

		if (l != except && is_addressed(l, m))
			taken |= lapic_accept(l, m);
	}
	return taken;
}

u32 apic_bus_target(const struct apic_bus *apics, const struct apic_message *m)
{
	for (unsigned i = 0; i < apics->count; i++) {
		const struct lapic *l = apics->lapics[i];

		if (is_addressed(l, m) && lapic_is_enabled(l))
			return l->id;
	}
	return APIC_BROADCAST;
}

/* False: it is no message. */
static bool read_msi(u64 address, u32 data, struct apic_message *m)
{
	*m = (struct apic_message){
		.dest = apic_dest8(address >> 12 & 0xFF, address & BIT(2)),
		.vector = (u8)data,
		.delivery = APIC_DELIVERY(data),
		.logical = address & BIT(2),
		.level = data & BIT(15),
	};

	if (address & BIT(3) && m->delivery == APIC_FIXED)
		m->delivery = APIC_LOWEST_PRIORITY; /* redirection hint */
	return address >> 20 == 0xFEE;
}

void apic_bus_msi(struct apic_bus *apics, u64 address, u32 data)
{
	struct apic_message m;

	if (read_msi(address, data, &m))
		apic_bus_send(apics, &m, NULL);
}

u32 apic_bus_msi_target(const struct apic_bus *apics, u64 address, u32 data)
{
	struct apic_message m;

	return read_msi(address, data, &m) ? apic_bus_target(apics, &m)
					   : APIC_BROADCAST;
}
