/* SPDX-License-Identifier: MIT */
/*
 * ACPI fixed hardware (ACPI 6.4 section 4.8.3): the PM1a event and control
 * blocks and the 32-bit PM timer, SCI on VIRQ_SCI. The guest is always in
 * ACPI mode: its FADT has SMI_CMD 0 and SCI_EN reads 1 (section 4.8.2.5).
 * Where the guest reads the host's timer itself, this one and TMR_STS follow
 * that.
 */
#ifndef VMM_DEVMODEL_ACPI_PM_H
#define VMM_DEVMODEL_ACPI_PM_H

#include "vmm/core/bus.h"
#include "vmm/core/vclock.h"
#include "vmm/core/virq.h"

/* For the guest's FADT and for the _S5 package of its DSDT. */
#define ACPI_PM1A_EVT_BLK 0x600
#define ACPI_PM1_EVT_LEN 4
#define ACPI_PM1A_CNT_BLK 0x604
#define ACPI_PM1_CNT_LEN 2
#define ACPI_PM_TMR_BLK 0x608
#define ACPI_PM_TMR_LEN 4
#define ACPI_SMI_CMD 0
/* QEMU's, which OVMF does not ask the tables for (AcpiPmControl()). */
#define ACPI_SLP_TYP_S5 0
#define ACPI_PM_TIMER_HZ 3579545ull

struct acpi_pm {
	u16 status, enable, control;
	u64 epoch;   /* TSC ticks at 0 of the timer; lent: at `checked` */
	u64 checked; /* up to here TMR_STS is right, timer ticks */
	u16 port;    /* of the timer that the guest's FADT names */
	u8 bits;     /* of that timer */
	bool lent;   /* it is the host's */
	struct vtimer timer;
	struct vclock *clock;
	const struct virq *virq;
	void (*power_off)(void *ctx);
	void *ctx;
};

/*
 * power_off is called when the guest enters S5. Keeps clock and virq.
 * Returns 0, -ENOSPC or -EEXIST.
 */
int acpi_pm_init(struct acpi_pm *pm, struct bus *bus, struct vclock *clock,
		 const struct virq *virq, void (*power_off)(void *ctx),
		 void *ctx);
/*
 * The host's timer, of 24 or 32 bits, is to be the guest's. -EEXIST, and
 * nothing has changed: its ports are others'.
 */
int acpi_pm_lend(struct acpi_pm *pm, struct bus *bus, u16 port, u8 bits);
void acpi_pm_reset(struct acpi_pm *pm);

#endif
