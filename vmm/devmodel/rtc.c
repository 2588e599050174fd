/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/rtc.h"

#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/string.h"
#include "vmm/devmodel/isa.h"

#define PORT_INDEX 0x70
#define PORT_DATA 0x71

enum {
	SECONDS,
	SECONDS_ALARM,
	MINUTES,
	MINUTES_ALARM,
	HOURS,
	HOURS_ALARM,
	WEEKDAY,
	DAY,
	MONTH,
	YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
	CENTURY = RTC_CENTURY,
};

#define A_UIP 0x80			/* update in progress */
#define A_RESET(a) (((a)&0x60) == 0x60) /* divider held in reset */
#define B_SET 0x80
#define B_24_HOURS 0x02
#define B_BINARY 0x04
#define C_IRQF 0x80
/* The same bits enable in register B and flag in register C. */
#define PERIODIC 0x40
#define ALARM 0x20
#define UPDATE 0x10
#define EVENTS (PERIODIC | ALARM | UPDATE)
#define D_VALID 0x80

#define HOUR_PM 0x80
#define ALARM_ANY 0xC0
#define DAY_SECONDS 86400
#define UIP_HZ 4098 /* UIP rises 244 microseconds before the update */

/* Days from 0000-03-01 to the first of March of year y. */
static s64 march_days(s64 y)
{
	return 365 * y + y / 4 - y / 100 + y / 400;
}

/* Counted from March, a month's first day is a straight line. */
static s64 month_days(s64 m)
{
	return (153 * m + 2) / 5;
}

s64 rtc_seconds(const struct rtc_date *d)
{
	s64 month = (d->month + 9) % 12, year = d->year - (d->month <= 2);
	s64 days = march_days(year) + month_days(month) + d->day - 1;

	return ((days * 24 + d->hour) * 60 + d->minute) * 60 + d->second;
}

void rtc_date(s64 seconds, struct rtc_date *d)
{
	s64 days = seconds / DAY_SECONDS, rest = seconds % DAY_SECONDS;
	s64 year = days * 400 / 146097 + 1, month;

	while (march_days(year) > days)
		year--;
	d->weekday = (u8)((days + 3) % 7 + 1);
	days -= march_days(year);
	month = (5 * days + 2) / 153;
	d->day = (u8)(days - month_days(month) + 1);
	d->month = (u8)((month + 2) % 12 + 1);
	d->year = (s32)(year + (d->month <= 2));
	d->hour = (u8)(rest / 3600);
	d->minute = (u8)(rest / 60 % 60);
	d->second = (u8)(rest % 60);
}

static u8 encode(u8 reg_b, unsigned value)
{
	return (u8)(reg_b & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static u8 decode(u8 reg_b, u8 value)
{
	return reg_b & B_BINARY ? value
				: (u8)((value >> 4) * 10 + (value & 0xF));
}

static u8 encode_hour(u8 reg_b, unsigned hour)
{
	if (reg_b & B_24_HOURS)
		return encode(reg_b, hour);
	return encode(reg_b, (hour + 11) % 12 + 1) | (hour >= 12 ? HOUR_PM : 0);
}

static u8 decode_hour(u8 reg_b, u8 value)
{
	if (reg_b & B_24_HOURS)
		return decode(reg_b, value);
	return (u8)(decode(reg_b, value & 0x7F) % 12 +
		    (value & HOUR_PM ? 12 : 0));
}

static void decode_time(const u8 *cmos, struct rtc_date *d)
{
	u8 b = cmos[REG_B], century = decode(b, cmos[CENTURY]);

	d->second = decode(b, cmos[SECONDS]);
	d->minute = decode(b, cmos[MINUTES]);
	d->hour = decode_hour(b, cmos[HOURS]);
	d->day = decode(b, cmos[DAY]);
	d->month = decode(b, cmos[MONTH]);
	d->year = decode(b, cmos[YEAR]);
	if (century < 19 || century > 29) /* firmware without the register */
		century = d->year < 70 ? 20 : 19;
	d->year += century * 100;
}

static void encode_time(u8 *cmos, s64 seconds)
{
	struct rtc_date d;
	u8 b = cmos[REG_B];

	rtc_date(seconds, &d);
	cmos[SECONDS] = encode(b, d.second);
	cmos[MINUTES] = encode(b, d.minute);
	cmos[HOURS] = encode_hour(b, d.hour);
	cmos[WEEKDAY] = d.weekday;
	cmos[DAY] = encode(b, d.day);
	cmos[MONTH] = encode(b, d.month);
	cmos[YEAR] = encode(b, (unsigned)d.year % 100);
	cmos[CENTURY] = encode(b, (unsigned)d.year / 100);
}

static u8 host_read(u8 reg)
{
	outb(PORT_INDEX, reg);
	return inb(PORT_DATA);
}

static void host_read_all(u8 *cmos)
{
	for (unsigned reg = SECONDS; reg <= YEAR; reg++)
		cmos[reg] = host_read((u8)reg);
	cmos[REG_B] = host_read(REG_B);
	cmos[CENTURY] = host_read(CENTURY);
}

/* Two readings that agree, none of them in an update (data sheet p. 12). */
int rtc_read_host(const struct vclock *clock, s64 *seconds)
{
	u8 first[RTC_CMOS_SIZE], second[RTC_CMOS_SIZE];
	u64 start = rdtsc();
	struct rtc_date date;

	memset(first, 0, sizeof(first));
	memset(second, 0, sizeof(second));
	do {
		if (host_read(REG_D) == 0xFF)
			return -ENODEV;
		if (host_read(REG_A) & A_UIP)
			continue;
		host_read_all(first);
		host_read_all(second);
		if (memcmp(first, second, sizeof(first)) != 0)
			continue;
		decode_time(first, &date);
		*seconds = rtc_seconds(&date);
		return 0;
	} while (rdtsc() - start < clock->tsc_hz / 10);
	return -ETIMEDOUT;
}

static bool is_running(const struct rtc *rtc)
{
	return !(rtc->cmos[REG_B] & B_SET) && !A_RESET(rtc->cmos[REG_A]);
}

static s64 seconds_at(const struct rtc *rtc, u64 tsc)
{
	return rtc->base_seconds +
	       (s64)((tsc - rtc->base_tsc) / rtc->clock->tsc_hz);
}

/* The TSC at which the time becomes so many seconds. */
static u64 tsc_at(const struct rtc *rtc, s64 seconds)
{
	return rtc->base_tsc +
	       (u64)(seconds - rtc->base_seconds) * rtc->clock->tsc_hz;
}

/* Ticks of 32768 Hz between periodic events, or 0 (data sheet table 5). */
static u64 period(const struct rtc *rtc)
{
	unsigned rate = rtc->cmos[REG_A] & 0xF;

	if (!rate)
		return 0;
	return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

static u64 crystal_ticks(const struct rtc *rtc, u64 tsc)
{
	return scale_ticks(tsc - rtc->base_tsc, 32768, rtc->clock->tsc_hz);
}

static bool alarm_matches(u8 alarm, u8 decoded, unsigned value)
{
	return alarm >= ALARM_ANY || decoded == value;
}

/* The first alarm later than t, or -1: the registers name no time. */
static s64 next_alarm(const struct rtc *rtc, s64 t)
{
	const u8 *cmos = rtc->cmos;
	u8 b = cmos[REG_B], hour = decode_hour(b, cmos[HOURS_ALARM]);
	u8 minute = decode(b, cmos[MINUTES_ALARM]);
	u8 second = decode(b, cmos[SECONDS_ALARM]);

	t++;
	/* At most every hour, then every minute, then every second. */
	for (unsigned step = 0; step < 25 + 60 + 60; step++) {
		if (!alarm_matches(cmos[HOURS_ALARM], hour,
				   (unsigned)(t / 3600 % 24)))
			t += 3600 - t % 3600;
		else if (!alarm_matches(cmos[MINUTES_ALARM], minute,
					(unsigned)(t / 60 % 60)))
			t += 60 - t % 60;
		else if (!alarm_matches(cmos[SECONDS_ALARM], second,
					(unsigned)(t % 60)))
			t++;
		else
			return t;
	}
	return -1;
}

static void update_line(struct rtc *rtc)
{
	u8 *c = &rtc->cmos[REG_C];

	*c &= EVENTS;
	if (*c & rtc->cmos[REG_B])
		*c |= C_IRQF;
	virq_set_line(rtc->virq, VIRQ_RTC, *c & C_IRQF);
}

/* Enters into register C what happened since it was last looked at. */
static void collect(struct rtc *rtc, u64 now)
{
	s64 before = seconds_at(rtc, rtc->checked), after;
	s64 alarm = next_alarm(rtc, before);
	u64 ticks = period(rtc);
	u8 events = 0;

	if (!is_running(rtc))
		return;
	after = seconds_at(rtc, now);
	if (after != before)
		events |= UPDATE;
	if (alarm >= 0 && alarm <= after)
		events |= ALARM;
	if (ticks && crystal_ticks(rtc, now) / ticks !=
			     crystal_ticks(rtc, rtc->checked) / ticks)
		events |= PERIODIC;
	rtc->checked = now;
	rtc->cmos[REG_C] |= events;
	update_line(rtc);
}

/* Arms the timer for the next event that may interrupt. */
static void arm(struct rtc *rtc, u64 now)
{
	u8 enabled = rtc->cmos[REG_B] & EVENTS;
	u64 next = VCLOCK_NEVER, ticks = period(rtc);
	s64 seconds = seconds_at(rtc, now);

	if (!is_running(rtc))
		enabled = 0;
	if (enabled & UPDATE)
		next = tsc_at(rtc, seconds + 1);
	if (enabled & ALARM) {
		s64 alarm = next_alarm(rtc, seconds);

		if (alarm >= 0)
			next = MIN(next, tsc_at(rtc, alarm));
	}
	if (enabled & PERIODIC && ticks) {
		ticks *= crystal_ticks(rtc, now) / ticks + 1;
		ticks = scale_ticks(ticks, rtc->clock->tsc_hz, 32768) + 1;
		next = MIN(next, rtc->base_tsc + ticks);
	}
	vtimer_set(rtc->clock, &rtc->timer, next);
}

static void fire(void *dev, u64 now)
{
	collect(dev, now);
	arm(dev, now);
}

static bool is_time(u8 reg)
{
	return reg == CENTURY || (reg <= YEAR && reg != SECONDS_ALARM &&
				  reg != MINUTES_ALARM && reg != HOURS_ALARM);
}

/* The clock goes on from what the registers hold, so far into the second. */
static void resume(struct rtc *rtc, u64 now, u64 phase)
{
	s64 host = seconds_at(rtc, now) - rtc->offset;
	struct rtc_date date;

	decode_time(rtc->cmos, &date);
	rtc->base_seconds = rtc_seconds(&date);
	rtc->offset = rtc->base_seconds - host;
	rtc->base_tsc = now - phase;
	rtc->checked = now;
}

/*
 * A write of a register that the time or its events depend on. A running
 * clock keeps its phase; one that comes out of reset makes its first update
 * after half a second (data sheet, divider bits).
 */
static void register_write(struct rtc *rtc, u8 reg, u8 value)
{
	u64 now = rdtsc(), hz = rtc->clock->tsc_hz, phase = 0;
	bool was_running = is_running(rtc);

	collect(rtc, now);
	if (was_running) {
		phase = (now - rtc->base_tsc) % hz;
		encode_time(rtc->cmos, seconds_at(rtc, now));
	} else if (A_RESET(rtc->cmos[REG_A])) {
		phase = hz / 2;
	}
	if (reg == REG_A)
		value &= (u8)~A_UIP;
	if (reg == REG_B && value & B_SET)
		value &= (u8)~UPDATE;
	rtc->cmos[reg] = value;
	if (is_running(rtc) && (!was_running || is_time(reg)))
		resume(rtc, now, phase);
	update_line(rtc);
	arm(rtc, now);
}

static void data_write(struct rtc *rtc, u8 value)
{
	switch (rtc->index) {
	case SECONDS ... REG_B:
	case CENTURY:
		register_write(rtc, rtc->index, value);
		break;
	case REG_C:
	case REG_D:
		break;
	default:
		rtc->cmos[rtc->index] = value;
	}
}

static u8 reg_a_read(const struct rtc *rtc, u64 now)
{
	u64 hz = rtc->clock->tsc_hz;
	bool update = is_running(rtc) &&
		      hz - (now - rtc->base_tsc) % hz <= hz / UIP_HZ;

	return rtc->cmos[REG_A] | (update ? A_UIP : 0);
}

static u8 reg_c_read(struct rtc *rtc, u64 now)
{
	u8 value;

	collect(rtc, now);
	value = rtc->cmos[REG_C];
	rtc->cmos[REG_C] = 0;
	update_line(rtc);
	return value;
}

static u8 data_read(struct rtc *rtc)
{
	u64 now = rdtsc();

	if (rtc->index == REG_A)
		return reg_a_read(rtc, now);
	if (rtc->index == REG_C)
		return reg_c_read(rtc, now);
	if (is_time(rtc->index) && is_running(rtc))
		encode_time(rtc->cmos, seconds_at(rtc, now));
	return rtc->cmos[rtc->index];
}

static void rtc_write(void *dev, u16 port, u8 value)
{
	struct rtc *rtc = dev;

	if (port == PORT_DATA) {
		data_write(rtc, value);
		return;
	}
	rtc->index = value & 0x7F;
	rtc->nmi_masked = value & 0x80;
}

static u8 rtc_read(void *dev, u16 port)
{
	return port == PORT_DATA ? data_read(dev) : 0xFF;
}

static int rtc_access(void *dev, struct bus_access *a)
{
	return isa_access(a, PORT_DATA, dev, rtc_read, rtc_write);
}

void rtc_reset(struct rtc *rtc)
{
	u64 now = rdtsc();
	s64 host;

	if (rtc_read_host(rtc->clock, &host) == 0)
		rtc->base_seconds = host + rtc->offset;
	else
		rtc->base_seconds = seconds_at(rtc, now);
	rtc->base_tsc = rtc->checked = rdtsc();
	rtc->index = 0;
	rtc->nmi_masked = false;
	rtc->cmos[REG_A] = 0x26; /* 32768 Hz crystal, 1024 Hz */
	rtc->cmos[REG_B] = B_24_HOURS;
	rtc->cmos[REG_C] = 0;
	rtc->cmos[REG_D] = D_VALID;
	update_line(rtc);
	arm(rtc, rtc->checked);
}

void rtc_cmos_memory(u8 *cmos, u64 below_4g, u64 above_4g)
{
	u64 extended = MIN(below_4g > MIB ? (below_4g - MIB) / KIB : 0, 0xFFFF);
	u64 high = below_4g > 16 * MIB ? (below_4g - 16 * MIB) / (64 * KIB) : 0;
	u16 sum = 0;

	cmos[0x15] = 640 & 0xFF;
	cmos[0x16] = 640 >> 8;
	cmos[0x17] = cmos[0x30] = (u8)extended;
	cmos[0x18] = cmos[0x31] = (u8)(extended >> 8);
	cmos[0x34] = (u8)high;
	cmos[0x35] = (u8)(high >> 8);
	for (unsigned i = 0; i < 3; i++)
		cmos[0x5B + i] = (u8)(above_4g / (64 * KIB) >> (8 * i));
	for (unsigned i = 0x10; i < 0x2E; i++)
		sum = (u16)(sum + cmos[i]);
	cmos[0x2E] = (u8)(sum >> 8);
	cmos[0x2F] = (u8)sum;
}

int rtc_init(struct rtc *rtc, struct bus *bus, struct vclock *clock,
	     const struct virq *virq, const u8 *cmos)
{
	int err;

	memset(rtc, 0, sizeof(*rtc));
	memcpy(rtc->cmos, cmos, RTC_CMOS_SIZE);
	rtc->clock = clock;
	rtc->virq = virq;
	rtc->base_tsc = rdtsc();
	rtc->base_seconds = rtc_seconds(&(struct rtc_date){
		.year = 2000,
		.month = 1,
		.day = 1,
	});
	err = vclock_add(clock, &rtc->timer, fire, rtc);
	if (!err)
		err = bus_register(bus, BUS_PORT, PORT_INDEX, PORT_DATA,
				   rtc_access, rtc, "rtc");
	if (!err)
		rtc_reset(rtc);
	return err;
}
