/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/lapic.h"

#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/string.h"

#define MSR_APIC_BASE 0x1B
#define MSR_TSC_DEADLINE 0x6E0

#define LVT_PERIODIC BIT(17)
#define LVT_TSC_DEADLINE BIT(18)

/* SDM 10.5.3 */
#define ESR_SEND_VECTOR BIT(5)
#define ESR_REGISTER BIT(7)

/* SDM 10.6.1 */
#define ICR_LOGICAL BIT(11)
#define ICR_ASSERT BIT(14)
#define ICR_SHORTHAND(icr) ((icr) >> 18 & 3)
enum { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

enum { XR = 1, XW = 2, X2R = 4, X2W = 8, R = XR | X2R, W = XW | X2W };

/*
 * SDM tables 10-1 and 10-6. writable: bits that a write sets; read_only:
 * bits that it may name in x2APIC mode without a fault.
 */
static const struct rule {
	u32 writable, read_only;
	u8 access;
} rules[LAPIC_REGISTERS] = {
	[LAPIC_ID] = {.access = R},
	[LAPIC_VERSION] = {.access = R},
	[LAPIC_TPR] = {0xFF, 0, R | W},
	[LAPIC_APR] = {.access = XR},
	[LAPIC_PPR] = {.access = R},
	[LAPIC_EOI] = {.access = XR | W},
	[LAPIC_RRD] = {.access = XR},
	[LAPIC_LDR] = {0xFF000000, 0, R | XW},
	[LAPIC_DFR] = {0xF0000000, 0, XR | XW},
	[LAPIC_SVR] = {0x3FF, 0, R | W},
	[LAPIC_ISR... LAPIC_IRR + 7] = {.access = R},
	[LAPIC_ESR] = {.access = R | W},
	[LAPIC_ICR] = {0xCCFFF, 0x1000, R | W},
	[LAPIC_ICR_HIGH] = {0xFF000000, 0, XR | XW},
	[LAPIC_LVT_TIMER] = {0x700FF, 0x1000, R | W},
	[LAPIC_LVT_THERMAL] = {0x107FF, 0x1000, R | W},
	[LAPIC_LVT_PERF] = {0x107FF, 0x1000, R | W},
	[LAPIC_LVT_LINT0] = {0x1A7FF, 0x5000, R | W},
	[LAPIC_LVT_LINT1] = {0x1A7FF, 0x5000, R | W},
	[LAPIC_LVT_ERROR] = {0x100FF, 0x1000, R | W},
	[LAPIC_TIMER_INITIAL] = {0xFFFFFFFF, 0, R | W},
	[LAPIC_TIMER_CURRENT] = {.access = R},
	[LAPIC_TIMER_DIVIDE] = {0xB, 0, R | W},
	[LAPIC_SELF_IPI] = {0xFF, 0, X2W},
};

/* May an IPI be of this kind? SDM 10.6.1, table 10-3. */
static bool ipi_is_valid(u32 icr)
{
	unsigned to = ICR_SHORTHAND(icr);

	switch (APIC_DELIVERY(icr)) {
	case APIC_FIXED:
		return true;
	case APIC_INIT: /* the de-assert meant something to old buses only */
		if (!(icr & ICR_ASSERT))
			return false;
		break;
	case APIC_EXTINT:
		return false;
	}
	return to == TO_DEST || to == TO_OTHERS;
}

static void send_ipi(struct lapic *l, u32 icr, u32 dest)
{
	unsigned to = ICR_SHORTHAND(icr);
	struct apic_message m = {
		.dest = to == TO_DEST ? dest : APIC_BROADCAST,
		.vector = (u8)icr,
		.delivery = APIC_DELIVERY(icr),
		.logical = to == TO_DEST && icr & ICR_LOGICAL,
	};

	if (!ipi_is_valid(icr))
		return;
	if (m.delivery <= APIC_LOWEST_PRIORITY && m.vector < 16)
		lapic_report_error(l, ESR_SEND_VECTOR);
	else if (to == TO_SELF)
		lapic_accept_own(l, &m);
	else
		apic_bus_send(l->apics, &m, to == TO_OTHERS ? l : NULL);
}

static void icr_write(struct lapic *l, u32 low)
{
	u32 dest = lapic_get(l, LAPIC_ICR_HIGH);

	if (!lapic_is_x2apic(l))
		dest = apic_dest8(dest >> 24, low & ICR_LOGICAL);
	lapic_set(l, LAPIC_ICR, low);
	send_ipi(l, low, dest);
}

/* SDM 10.5.4: bits 3, 1 and 0 are 0 for 2 to 6 for 128, 7 for 1. */
static unsigned divide_shift(const struct lapic *l)
{
	u32 dcr = lapic_get(l, LAPIC_TIMER_DIVIDE);

	return ((dcr & 3) + (dcr >> 1 & 4) + 1) & 7;
}

static u64 timer_period(const struct lapic *l)
{
	return (u64)lapic_get(l, LAPIC_TIMER_INITIAL) << divide_shift(l);
}

static void timer_arm(struct lapic *l, u64 deadline)
{
	l->deadline = deadline;
	vtimer_set(l->clock, &l->timer, deadline ? deadline : VCLOCK_NEVER);
}

static void timer_fire(void *dev, u64 now)
{
	struct lapic *l = dev;
	/* A shorter period would leave the guest no time between two. */
	u64 period = MAX(timer_period(l), l->clock->tsc_hz >> 16);
	u64 due = l->deadline;

	if (lapic_get(l, LAPIC_LVT_TIMER) & LVT_PERIODIC && timer_period(l))
		timer_arm(l, due + ((now - due) / period + 1) * period);
	else
		l->deadline = 0;
	lapic_lvt_deliver(l, LAPIC_LVT_TIMER);
}

static u32 timer_current(const struct lapic *l)
{
	u32 lvt = lapic_get(l, LAPIC_LVT_TIMER);
	u64 now = rdtsc(), left;
	unsigned shift = divide_shift(l);

	if (!l->deadline || lvt & LVT_TSC_DEADLINE)
		return 0;
	if (now < l->deadline)
		left = l->deadline - now;
	else if (lvt & LVT_PERIODIC && timer_period(l)) /* not fired yet */
		left = timer_period(l) - (now - l->deadline) % timer_period(l);
	else
		return 0;
	return (u32)((left + BIT(shift) - 1) >> shift);
}

static void timer_start(struct lapic *l, u32 count)
{
	u64 ticks = (u64)count << divide_shift(l);

	timer_arm(l, count ? rdtsc() + ticks : 0);
}

static void divide_write(struct lapic *l, u32 value)
{
	u32 left = timer_current(l);

	lapic_set(l, LAPIC_TIMER_DIVIDE, value);
	if (left)
		timer_start(l, left);
}

static void lvt_write(struct lapic *l, unsigned reg, u32 value)
{
	u32 changed = lapic_get(l, reg) ^ value;

	if (!lapic_is_enabled(l))
		value |= LAPIC_LVT_MASKED;
	lapic_set(l, reg, value);
	if (reg == LAPIC_LVT_TIMER && changed & LVT_TSC_DEADLINE) {
		lapic_set(l, LAPIC_TIMER_INITIAL, 0);
		timer_arm(l, 0);
	}
}

static void svr_write(struct lapic *l, u32 value)
{
	lapic_set(l, LAPIC_SVR, value);
	if (value & LAPIC_SVR_ENABLE)
		return;
	for (unsigned reg = LAPIC_LVT_TIMER; reg <= LAPIC_LVT_ERROR; reg++)
		lapic_set(l, reg, lapic_get(l, reg) | LAPIC_LVT_MASKED);
}

static u32 reg_read(struct lapic *l, unsigned reg)
{
	lapic_pv_hear(l);
	if (reg == LAPIC_PPR)
		return lapic_priority(l);
	if (reg == LAPIC_TIMER_CURRENT)
		return timer_current(l);
	return lapic_get(l, reg);
}

bool lapic_is_plain(unsigned reg)
{
	return rules[reg].access & X2R && reg != LAPIC_ICR &&
	       reg != LAPIC_TIMER_CURRENT;
}

static void reg_write(struct lapic *l, unsigned reg, u32 value)
{
	value &= rules[reg].writable;
	switch (reg) {
	case LAPIC_EOI:
		lapic_eoi(l);
		break;
	case LAPIC_DFR:
		lapic_set(l, reg, value | 0x0FFFFFFF);
		break;
	case LAPIC_SVR:
		svr_write(l, value);
		break;
	case LAPIC_ESR:
		lapic_set(l, reg, l->errors);
		l->errors = 0;
		break;
	case LAPIC_ICR:
		icr_write(l, value);
		break;
	case LAPIC_LVT_TIMER ... LAPIC_LVT_ERROR:
		lvt_write(l, reg, value);
		break;
	case LAPIC_TIMER_INITIAL:
		if (lapic_get(l, LAPIC_LVT_TIMER) & LVT_TSC_DEADLINE)
			break;
		lapic_set(l, reg, value);
		timer_start(l, value);
		break;
	case LAPIC_TIMER_DIVIDE:
		divide_write(l, value);
		break;
	case LAPIC_SELF_IPI:
		send_ipi(l, (u32)TO_SELF << 18 | value, 0);
		break;
	default:
		lapic_set(l, reg, value);
	}
}

void lapic_written(struct lapic *l, unsigned reg)
{
	if (reg < LAPIC_REGISTERS)
		reg_write(l, reg, lapic_get(l, reg));
}

/*
 * SDM 10.4.1: registers are 32 bits at multiples of 16 and are accessed as
 * such. Of other accesses only a read inside the register gives anything.
 */
static int xapic_access(void *dev, struct bus_access *a)
{
	struct lapic *l = dev;
	unsigned reg = (unsigned)(a->addr & PAGE_MASK) >> 4;
	unsigned byte = (unsigned)a->addr & 0xF;
	u8 access = reg < LAPIC_REGISTERS ? rules[reg].access & (XR | XW) : 0;

	if (!a->write)
		a->value = 0;
	if (!access)
		lapic_report_error(l, ESR_REGISTER);
	else if (!a->write && access & XR && byte < 4)
		a->value =
			reg_read(l, reg) >> (8 * byte) & bus_all_ones(a->size);
	else if (a->write && access & XW && byte == 0 && a->size == 4)
		reg_write(l, reg, (u32)a->value);
	return 0;
}

static int x2apic_write(struct lapic *l, unsigned reg, u64 value)
{
	const struct rule *rule = &rules[reg];

	if (!(rule->access & X2W))
		return -EFAULT;
	if (reg == LAPIC_ICR) {
		if ((u32)value & ~(rule->writable | rule->read_only))
			return -EFAULT;
		lapic_set(l, LAPIC_ICR_HIGH, (u32)(value >> 32));
	} else if (value & ~(u64)(rule->writable | rule->read_only)) {
		return -EFAULT;
	}
	reg_write(l, reg, (u32)value);
	return 0;
}

static int x2apic_access(void *dev, struct bus_access *a)
{
	struct lapic *l = dev;
	unsigned reg = (unsigned)(a->addr - MSR_X2APIC);

	if (!lapic_is_x2apic(l) || reg >= LAPIC_REGISTERS)
		return -EFAULT;
	if (a->write)
		return x2apic_write(l, reg, a->value);
	if (!(rules[reg].access & X2R))
		return -EFAULT;
	a->value = reg_read(l, reg);
	if (reg == LAPIC_ICR)
		a->value |= (u64)lapic_get(l, LAPIC_ICR_HIGH) << 32;
	return 0;
}

static int deadline_access(void *dev, struct bus_access *a)
{
	struct lapic *l = dev;
	bool on = lapic_get(l, LAPIC_LVT_TIMER) & LVT_TSC_DEADLINE;

	if (!a->write)
		a->value = on ? l->deadline : 0;
	else if (on)
		timer_arm(l, a->value);
	return 0;
}

static void registers_reset(struct lapic *l)
{
	for (unsigned reg = 0; reg < LAPIC_REGISTERS; reg++)
		lapic_set(l, reg, 0);
	l->irr_words = l->isr_words = l->errors = 0;
	l->pv_offered = false;
	timer_arm(l, 0);
	lapic_set(l, LAPIC_ID, l->id << 24);
	/* The last LVT register is number 5. */
	lapic_set(l, LAPIC_VERSION, 0x14 | 5 << 16);
	lapic_set(l, LAPIC_DFR, 0xFFFFFFFF);
	lapic_set(l, LAPIC_SVR, 0xFF);
	svr_write(l, 0xFF);
	if (lapic_is_x2apic(l)) { /* SDM 10.12.5.1, 10.12.10.2 */
		lapic_set(l, LAPIC_ID, l->id);
		lapic_set(l, LAPIC_LDR, l->id >> 4 << 16 | 1u << (l->id & 0xF));
	}
}

/* The page answers in xAPIC mode only, at the base. */
static int base_set(struct lapic *l, u64 base)
{
	u64 old_page = l->base & ~PAGE_MASK, page = base & ~PAGE_MASK;
	bool was = (l->base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN;
	bool is = (base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN;
	int err = 0;

	if (is && !(was && page == old_page))
		err = bus_register(l->bus, BUS_MMIO, page, page | PAGE_MASK,
				   xapic_access, l, "lapic");
	if (err)
		return err;
	if (was && !(is && page == old_page))
		bus_unregister(l->bus, BUS_MMIO, old_page);
	__atomic_store_n(&l->base, base, __ATOMIC_RELAXED);
	if (l->attention) /* APICv begins with x2APIC mode, and ends */
		*l->attention = true;
	return 0;
}

/* SDM 10.12.5: the legal ways between disabled, xAPIC and x2APIC. */
static int base_write(struct lapic *l, u64 value)
{
	const u64 x2apic = APIC_BASE_EN | APIC_BASE_EXTD;
	u64 old = l->base & x2apic, new = value &x2apic;

	if (value & l->base_reserved || new == APIC_BASE_EXTD ||
	    (old == x2apic && new == APIC_BASE_EN) ||
	    (old == 0 && new == x2apic))
		return -EFAULT;
	value = (value & ~APIC_BASE_BSP) | (l->base & APIC_BASE_BSP);
	if (base_set(l, value) != 0)
		return -EFAULT; /* over another device */
	if (new == 0 && old != 0)
		registers_reset(l);
	if (new == x2apic) {
		lapic_set(l, LAPIC_ID, l->id);
		lapic_set(l, LAPIC_LDR, l->id >> 4 << 16 | 1u << (l->id & 0xF));
	}
	return 0;
}

static int base_access(void *dev, struct bus_access *a)
{
	struct lapic *l = dev;

	if (a->write)
		return base_write(l, a->value);
	a->value = l->base;
	return 0;
}

void lapic_init_signal(struct lapic *l)
{
	l->init_pending = l->nmi_pending = l->extint_pending = false;
	registers_reset(l);
	l->pv_eoi = NULL;
}

void lapic_reset(struct lapic *l)
{
	u64 bsp = l->apics->lapics[0] == l ? APIC_BASE_BSP : 0;

	/* Cannot fail: the range was free at init and nobody moves there. */
	base_set(l, LAPIC_DEFAULT_BASE | APIC_BASE_EN | bsp);
	memset(l->posted, 0, sizeof(l->posted));
	l->signals = 0;
	l->sipi_pending = false;
	lapic_init_signal(l);
}

void lapic_virtual_wire(struct lapic *l)
{
	reg_write(l, LAPIC_SVR, LAPIC_SVR_ENABLE | 0xFF);
	reg_write(l, LAPIC_LVT_LINT0, APIC_EXTINT << 8);
	reg_write(l, LAPIC_LVT_LINT1, APIC_NMI << 8);
}

int lapic_init(struct lapic *l, struct apic_bus *apics, struct bus *bus,
	       struct vclock *clock, u32 id, unsigned phys_bits)
{
	int err;

	if (apics->count == APIC_BUS_MAX)
		return -ENOSPC;
	memset(l, 0, sizeof(*l));
	l->id = id;
	l->apics = apics;
	l->bus = bus;
	l->clock = clock;
	l->base_reserved = ~(BIT(phys_bits) - 1) | 0x2FF;
	l->base_reserved &= ~APIC_BASE_BSP;
	err = vclock_add(clock, &l->timer, timer_fire, l);
	if (!err)
		err = bus_register(bus, BUS_MSR, MSR_APIC_BASE, MSR_APIC_BASE,
				   base_access, l, "apic-base");
	if (!err)
		err = bus_register(bus, BUS_MSR, MSR_TSC_DEADLINE,
				   MSR_TSC_DEADLINE, deadline_access, l,
				   "tsc-deadline");
	if (!err)
		err = bus_register(bus, BUS_MSR, MSR_X2APIC,
				   MSR_X2APIC + LAPIC_REGISTERS - 1,
				   x2apic_access, l, "x2apic");
	if (!err)
		err = base_set(l, LAPIC_DEFAULT_BASE | APIC_BASE_EN);
	if (err)
		return err;
	apics->lapics[apics->count++] = l;
	lapic_reset(l);
	return 0;
}
