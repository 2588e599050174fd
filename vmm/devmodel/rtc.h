/* SPDX-License-Identifier: MIT */
/*
 * MC146818 real-time clock and CMOS RAM (Motorola MC146818A data sheet),
 * ports 0x70 and 0x71, interrupt on VIRQ_RTC. It shows the host's time,
 * read from the host's clock once and carried on by the TSC; what the guest
 * sets is an offset of its own. The date and the RAM outlive a reset, as
 * with a battery.
 */
#ifndef VMM_DEVMODEL_RTC_H
#define VMM_DEVMODEL_RTC_H

#include "vmm/core/bus.h"
#include "vmm/core/vclock.h"
#include "vmm/core/virq.h"

#define RTC_CENTURY 0x32 /* its register: FADT.CENTURY */
#define RTC_CMOS_SIZE 128

struct rtc {
	u8 cmos[RTC_CMOS_SIZE]; /* time registers: as last computed or set */
	u8 index;
	bool nmi_masked;  /* bit 7 of port 0x70 */
	u64 base_tsc;	  /* when the time was base_seconds, TSC ticks */
	s64 base_seconds; /* the guest's time, as rtc_seconds() */
	s64 offset;	  /* guest's time minus host's, seconds */
	u64 checked;	  /* up to here events are in register C, TSC ticks */
	struct vtimer timer;
	struct vclock *clock;
	const struct virq *virq;
};

/*
 * cmos: what the RAM holds, RTC_CMOS_SIZE bytes, copied; bytes 0 to 0x0D
 * are ignored. Reads the host's clock. Keeps clock and virq. Returns 0,
 * -ENOSPC or -EEXIST.
 */
int rtc_init(struct rtc *rtc, struct bus *bus, struct vclock *clock,
	     const struct virq *virq, const u8 *cmos);
void rtc_reset(struct rtc *rtc);

/*
 * Writes the guest's memory where firmware keeps it in the CMOS RAM, with the
 * checksum: the address where the piece that begins at 1 MiB ends, and bytes
 * from 4 GiB on.
 */
void rtc_cmos_memory(u8 *cmos, u64 below_4g, u64 above_4g);

/* A date of the Gregorian calendar: month and day from 1, hour from 0. */
struct rtc_date {
	s32 year;
	u8 month, day, hour, minute, second;
	u8 weekday; /* 1: Sunday; ignored by rtc_seconds() */
};

/*
 * Seconds since 0000-03-01 00:00, where the calendar's arithmetic starts.
 * rtc_seconds() takes fields that are out of range; rtc_date() no time
 * before that day.
 */
s64 rtc_seconds(const struct rtc_date *date);
void rtc_date(s64 seconds, struct rtc_date *date);

/*
 * The host's time, as rtc_seconds(). -ENODEV: no clock answers;
 * -ETIMEDOUT: it never stops updating. Waits 0.1 s at most.
 */
int rtc_read_host(const struct vclock *clock, s64 *seconds);

#endif
