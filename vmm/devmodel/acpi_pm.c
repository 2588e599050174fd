/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/acpi_pm.h"

#include "arch/x86/io.h"
#include "kernel/string.h"
#include "vmm/devmodel/isa.h"

/* ACPI 6.4 tables 4.11 to 4.13 */
#define TMR_STS BIT(0)
#define STS_BITS 0x8731 /* also bus master, global, sleep, RTC, wake */
#define EN_BITS 0x0721
#define SCI_EN BIT(0)
#define SLP_EN BIT(13)
#define SLP_TYP(control) ((control) >> 10 & 7)
#define CNT_BITS 0x1C02 /* BM_RLD and SLP_TYP; SLP_EN reads 0 */

/*
 * The host's counter is right, and has some low bits alone; the TSC, which
 * differs a little from it, tells the others. A timer's now may be from before
 * the guest's last access, which has moved the epoch.
 */
static u64 ticks_at(const struct acpi_pm *pm, u64 tsc)
{
	u64 ticks = scale_ticks(MAX(tsc, pm->epoch) - pm->epoch,
				ACPI_PM_TIMER_HZ, pm->clock->tsc_hz);
	unsigned above = 64u - pm->bits;

	if (!pm->lent)
		return ticks;
	ticks += pm->checked;
	return ticks + (u64)((s64)((inl(pm->port) - ticks) << above) >> above);
}

/* How often its highest bit has changed, which is what TMR_STS tells. */
static u64 changes(const struct acpi_pm *pm, u64 ticks)
{
	return ticks >> (pm->bits - 1);
}

static void update_sci(struct acpi_pm *pm)
{
	virq_set_line(pm->virq, VIRQ_SCI, pm->status & pm->enable & EN_BITS);
}

/* Brings TMR_STS up to now. */
static void check_timer(struct acpi_pm *pm, u64 tsc)
{
	u64 now = ticks_at(pm, tsc);

	if (changes(pm, now) != changes(pm, pm->checked))
		pm->status |= TMR_STS;
	pm->checked = now;
	if (pm->lent)
		pm->epoch = tsc;
}

static void arm(struct acpi_pm *pm)
{
	u64 next = (changes(pm, pm->checked) + 1) << (pm->bits - 1);
	u64 tsc = VCLOCK_NEVER;

	if (pm->enable & TMR_STS)
		tsc = pm->epoch + 1 +
		      scale_ticks(next - (pm->lent ? pm->checked : 0),
				  pm->clock->tsc_hz, ACPI_PM_TIMER_HZ);
	vtimer_set(pm->clock, &pm->timer, tsc);
}

static void fire(void *dev, u64 now)
{
	check_timer(dev, now);
	update_sci(dev);
	arm(dev);
}

static void control_write(struct acpi_pm *pm, u16 value)
{
	pm->control = value & CNT_BITS;
	if (value & SLP_EN && SLP_TYP(value) == ACPI_SLP_TYP_S5)
		pm->power_off(pm->ctx);
}

static void pm_write(void *dev, u16 port, u8 value)
{
	struct acpi_pm *pm = dev;
	unsigned shift = port & 1 ? 8 : 0;
	u16 bits = (u16)(value << shift), kept = (u16)(0xFF00 >> shift);

	check_timer(pm, rdtsc());
	switch ((port & ~1u) - ACPI_PM1A_EVT_BLK) {
	case 0:
		pm->status &= (u16)~bits;
		break;
	case 2:
		pm->enable = ((pm->enable & kept) | bits) & EN_BITS;
		arm(pm);
		break;
	case 4:
		control_write(pm, (pm->control & kept) | bits);
		break;
	}
	update_sci(pm);
}

static u8 pm_read(void *dev, u16 port)
{
	struct acpi_pm *pm = dev;
	u16 value = 0;

	check_timer(pm, rdtsc());
	switch ((port & ~1u) - ACPI_PM1A_EVT_BLK) {
	case 0:
		value = pm->status & STS_BITS;
		break;
	case 2:
		value = pm->enable;
		break;
	case 4:
		value = pm->control | SCI_EN;
		break;
	}
	return (u8)(value >> (port & 1 ? 8 : 0));
}

static int pm1_access(void *dev, struct bus_access *a)
{
	return isa_access(a, ACPI_PM1A_CNT_BLK + 3, dev, pm_read, pm_write);
}

static int timer_access(void *dev, struct bus_access *a)
{
	const struct acpi_pm *pm = dev;
	unsigned byte = (unsigned)a->addr & 3;

	if (!a->write)
		a->value = (ticks_at(pm, rdtsc()) & (BIT(pm->bits) - 1)) >>
				   (8 * byte) &
			   bus_all_ones(a->size);
	return 0;
}

void acpi_pm_reset(struct acpi_pm *pm)
{
	pm->status = pm->enable = pm->control = 0;
	pm->epoch = rdtsc();
	/* Above what its first reading may take off. */
	pm->checked = pm->lent ? BIT(40) : 0;
	pm->checked = ticks_at(pm, pm->epoch);
	update_sci(pm);
	arm(pm);
}

int acpi_pm_lend(struct acpi_pm *pm, struct bus *bus, u16 port, u8 bits)
{
	int err = 0;

	/* On the bus, too: for what else might be put there. */
	if (port != ACPI_PM_TMR_BLK)
		err = bus_register(bus, BUS_PORT, port,
				   port + ACPI_PM_TMR_LEN - 1u, timer_access,
				   pm, "pm-timer-lent");
	if (err)
		return err;
	pm->port = port;
	pm->bits = bits;
	pm->lent = true;
	acpi_pm_reset(pm);
	return 0;
}

int acpi_pm_init(struct acpi_pm *pm, struct bus *bus, struct vclock *clock,
		 const struct virq *virq, void (*power_off)(void *ctx),
		 void *ctx)
{
	int err;

	memset(pm, 0, sizeof(*pm));
	pm->clock = clock;
	pm->virq = virq;
	pm->power_off = power_off;
	pm->ctx = ctx;
	pm->port = ACPI_PM_TMR_BLK;
	pm->bits = 32;
	err = vclock_add(clock, &pm->timer, fire, pm);
	if (!err)
		err = bus_register(bus, BUS_PORT, ACPI_PM1A_EVT_BLK,
				   ACPI_PM1A_CNT_BLK + 3, pm1_access, pm,
				   "acpi-pm1");
	if (!err)
		err = bus_register(bus, BUS_PORT, ACPI_PM_TMR_BLK,
				   ACPI_PM_TMR_BLK + ACPI_PM_TMR_LEN - 1,
				   timer_access, pm, "pm-timer");
	if (!err)
		acpi_pm_reset(pm);
	return err;
}
