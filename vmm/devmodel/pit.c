/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/pit.h"

#include "arch/x86/io.h"
#include "kernel/string.h"
#include "vmm/devmodel/isa.h"

#define PORT_CHANNEL 0x40
#define PORT_COMMAND 0x43
#define PORT_CONTROL 0x61

/* Port 0x61 (ICH data sheet, NMI_SC) */
#define CONTROL_GATE2 BIT(0)
#define CONTROL_WRITABLE 0x0F
#define CONTROL_REFRESH BIT(4)
#define CONTROL_OUT2 BIT(5)
#define REFRESH_TICKS 18 /* 15 microseconds */

/* Interrupts closer than this would leave the guest no time between two. */
#define MIN_TICKS 12

enum { LATCH_COUNT = BIT(5), LATCH_STATUS = BIT(4) }; /* low: do it */

static u64 pit_now(const struct pit *pit)
{
	return scale_ticks(rdtsc() - pit->epoch, PIT_HZ, pit->clock->tsc_hz);
}

static bool is_periodic(const struct pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Modes 1 and 5 count from the gate's rising edge, whatever comes after. */
static bool is_triggered(const struct pit_channel *c)
{
	return c->mode == 1 || c->mode == 5;
}

/* PIT ticks for which the counter has counted since it was loaded. */
static u64 elapsed(const struct pit_channel *c, u64 now)
{
	if (!c->gate && !is_triggered(c))
		now = c->paused;
	return now > c->start ? now - c->start : 0;
}

static bool is_counting(const struct pit_channel *c)
{
	return c->count && (!is_triggered(c) || c->triggered);
}

/* 8254 data sheet, mode definitions. */
static bool out(const struct pit_channel *c, u64 now)
{
	u64 t = elapsed(c, now), phase;

	if (!is_counting(c))
		return c->mode != 0;
	phase = t % c->count;
	switch (c->mode) {
	case 0:
	case 1:
		return t >= c->count;
	case 2:
		return !c->gate || phase != c->count - 1;
	case 3:
		return !c->gate || phase < (c->count + 1) / 2;
	default: /* 4 and 5: one tick low at the end */
		return t != c->count;
	}
}

static u16 to_bcd(u32 n)
{
	return (u16)(n / 1000 % 10 << 12 | n / 100 % 10 << 8 |
		     n / 10 % 10 << 4 | n % 10);
}

static u32 from_bcd(u16 n)
{
	return (n >> 12) * 1000u + (n >> 8 & 0xF) * 100u +
	       (n >> 4 & 0xF) * 10u + (n & 0xF);
}

static u16 counter(const struct pit_channel *c, u64 now)
{
	u32 modulus = c->bcd ? 10000 : 0x10000;
	u64 t = elapsed(c, now), value = c->count;

	if (is_counting(c) && is_periodic(c)) {
		t %= c->count;
		if (c->mode == 3) { /* by two, once for each half */
			t = 2 * (t % ((c->count + 1) / 2));
			value &= ~1ull;
		}
		value -= t;
	} else if (is_counting(c)) { /* runs on through zero */
		value += modulus - t % modulus;
	}
	value %= modulus;
	return c->bcd ? to_bcd((u32)value) : (u16)value;
}

/* The TSC at which the counter's clock has ticked so often. */
static u64 to_tsc(const struct pit *pit, u64 ticks)
{
	return pit->epoch + scale_ticks(ticks, pit->clock->tsc_hz, PIT_HZ) + 1;
}

/* Channel 0: arms the next rising edge of OUT after now. */
static void arm(struct pit *pit, u64 now)
{
	const struct pit_channel *c = &pit->channels[0];
	u64 t = elapsed(c, now), edge = c->count;

	if (is_periodic(c) && c->count)
		edge *= (t + MIN_TICKS) / c->count + 1;
	else if (c->mode == 4)
		edge++;
	if (!is_counting(c) || edge <= t)
		vtimer_set(pit->clock, &pit->timer, VCLOCK_NEVER);
	else
		vtimer_set(pit->clock, &pit->timer,
			   to_tsc(pit, c->start + edge));
}

static void fire(void *dev, u64 now)
{
	struct pit *pit = dev;

	virq_set_line(pit->virq, VIRQ_PIT, false);
	virq_set_line(pit->virq, VIRQ_PIT, true);
	arm(pit, scale_ticks(now - pit->epoch, PIT_HZ, pit->clock->tsc_hz));
}

static void count_write(struct pit *pit, unsigned n, u16 value)
{
	struct pit_channel *c = &pit->channels[n];
	u32 count = c->bcd ? from_bcd(value) : value;

	if (!count)
		count = c->bcd ? 10000 : 0x10000;
	c->count = count;
	if (!is_triggered(c)) /* else at the next edge of the gate */
		c->start = c->paused = pit_now(pit) + 1; /* the next clock */
	if (n != 0)
		return;
	if (c->mode == 0)
		virq_set_line(pit->virq, VIRQ_PIT, false);
	arm(pit, c->start);
}

static void channel_write(struct pit *pit, unsigned n, u8 value)
{
	struct pit_channel *c = &pit->channels[n];

	if (c->access == 1) {
		count_write(pit, n, value);
	} else if (c->access == 2) {
		count_write(pit, n, (u16)(value << 8));
	} else if (c->write_high) {
		c->write_high = false;
		count_write(pit, n, (u16)(value << 8 | c->low));
	} else {
		c->write_high = true;
		c->low = value;
	}
}

static u8 channel_read(struct pit *pit, unsigned n)
{
	struct pit_channel *c = &pit->channels[n];
	u16 value = c->latched ? c->latch : counter(c, pit_now(pit));
	bool high = c->access == 2 || (c->access == 3 && c->read_high);

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	if (c->access == 3)
		c->read_high = !c->read_high;
	if (c->latched)
		c->latched--;
	return (u8)(high ? value >> 8 : value);
}

static void latch_count(struct pit_channel *c, u64 now)
{
	if (c->latched) /* the first is kept until it is read */
		return;
	c->latch = counter(c, now);
	c->latched = c->access == 3 ? 2 : 1;
}

/* Read-back command: bits 3:1 name channels. */
static void read_back(struct pit *pit, u8 command)
{
	u64 now = pit_now(pit);

	for (unsigned n = 0; n < 3; n++) {
		struct pit_channel *c = &pit->channels[n];

		if (!(command >> (n + 1) & 1))
			continue;
		if (!(command & LATCH_COUNT))
			latch_count(c, now);
		if (command & LATCH_STATUS || c->status_latched)
			continue;
		c->status_latched = true;
		c->status =
			(u8)((out(c, now) ? 0x80 : 0) | (c->count ? 0 : 0x40) |
			     c->access << 4 | c->mode << 1 | (c->bcd ? 1 : 0));
	}
}

static void command_write(struct pit *pit, u8 value)
{
	unsigned n = value >> 6;
	struct pit_channel *c = &pit->channels[n % 3];

	if (n == 3) {
		read_back(pit, value);
		return;
	}
	if (!(value & 0x30)) {
		latch_count(c, pit_now(pit));
		return;
	}
	*c = (struct pit_channel){
		.access = value >> 4 & 3,
		.mode = value >> 1 & (value & 4 ? 3 : 7), /* 6 and 7: 2, 3 */
		.bcd = value & 1,
		.gate = c->gate,
	};
	if (n == 0) {
		virq_set_line(pit->virq, VIRQ_PIT, c->mode != 0);
		arm(pit, 0);
	}
}

static void gate_write(struct pit *pit, struct pit_channel *c, bool gate)
{
	u64 now = pit_now(pit);

	if (gate && !c->gate) {
		if (is_triggered(c) || is_periodic(c))
			c->start = now + 1; /* anew, by the next clock */
		else
			c->start += now - c->paused;
		c->triggered = true;
	} else if (!gate && c->gate) {
		c->paused = now;
	}
	c->gate = gate;
}

static u8 control_read(const struct pit *pit)
{
	u64 now = pit_now(pit);

	return (u8)(pit->control |
		    (now / REFRESH_TICKS & 1 ? CONTROL_REFRESH : 0) |
		    (out(&pit->channels[2], now) ? CONTROL_OUT2 : 0));
}

static u8 pit_read(void *dev, u16 port)
{
	struct pit *pit = dev;

	if (port == PORT_CONTROL)
		return control_read(pit);
	return port == PORT_COMMAND ? 0xFF : channel_read(pit, port & 3);
}

static void pit_write(void *dev, u16 port, u8 value)
{
	struct pit *pit = dev;

	if (port == PORT_COMMAND) {
		command_write(pit, value);
	} else if (port == PORT_CONTROL) {
		pit->control = value & CONTROL_WRITABLE;
		gate_write(pit, &pit->channels[2], value & CONTROL_GATE2);
	} else {
		channel_write(pit, port & 3, value);
	}
}

static int pit_access(void *dev, struct bus_access *a)
{
	return isa_access(a, PORT_COMMAND, dev, pit_read, pit_write);
}

static int control_access(void *dev, struct bus_access *a)
{
	return isa_access(a, PORT_CONTROL, dev, pit_read, pit_write);
}

void pit_reset(struct pit *pit)
{
	memset(pit->channels, 0, sizeof(pit->channels));
	for (unsigned n = 0; n < 3; n++) {
		pit->channels[n].access = 3;
		pit->channels[n].mode = 3;
		pit->channels[n].gate = n != 2;
	}
	/* Memory refresh, as firmware has it. */
	pit->channels[1].mode = 2;
	pit->channels[1].count = REFRESH_TICKS;
	pit->control = 0;
	pit->epoch = rdtsc();
	vtimer_set(pit->clock, &pit->timer, VCLOCK_NEVER);
	virq_set_line(pit->virq, VIRQ_PIT, true); /* as OUT in mode 3 */
}

int pit_init(struct pit *pit, struct bus *bus, struct vclock *clock,
	     const struct virq *virq)
{
	int err;

	memset(pit, 0, sizeof(*pit));
	pit->clock = clock;
	pit->virq = virq;
	err = vclock_add(clock, &pit->timer, fire, pit);
	if (!err)
		err = bus_register(bus, BUS_PORT, PORT_CHANNEL, PORT_COMMAND,
				   pit_access, pit, "pit");
	if (!err)
		err = bus_register(bus, BUS_PORT, PORT_CONTROL, PORT_CONTROL,
				   control_access, pit, "port61");
	if (!err)
		pit_reset(pit);
	return err;
}
