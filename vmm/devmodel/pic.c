/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/pic.h"

#include "kernel/string.h"
#include "vmm/devmodel/isa.h"

#define CASCADE 2 /* the master's input that is the slave's output */
#define SPURIOUS 7

enum { MASTER, SLAVE };

/* ICW1 and OCW3 are told from OCW2 by these bits of the even port. */
#define ICW1 BIT(4)
#define ICW1_IC4 BIT(0)
#define OCW3 BIT(3)
#define OCW3_READ BIT(1)
#define OCW3_READ_ISR BIT(0)
#define OCW3_POLL BIT(2)
#define OCW3_SET_SMM BIT(6)
#define OCW3_SMM BIT(5)
#define ICW4_AEOI BIT(1)
#define ICW4_SFNM BIT(4)

/* The input of highest priority in set, or -1. */
static int highest(const struct i8259 *c, u8 set)
{
	for (unsigned i = 1; set && i <= 8; i++) {
		unsigned input = (c->lowest + i) & 7;

		if (set >> input & 1)
			return (int)input;
	}
	return -1;
}

/* How far below the highest priority an input stands. */
static unsigned rank(const struct i8259 *c, int input)
{
	return input < 0 ? 8 : ((unsigned)input - c->lowest - 1) & 7;
}

/* The input that raises INT, or -1. */
static int request(const struct i8259 *c, bool master)
{
	u8 in_service = c->isr;
	int input = highest(c, c->irr & (u8)~c->imr);

	if (c->special_mask)
		in_service &= (u8)~c->imr;
	if (c->fully_nested && master && input == CASCADE)
		in_service &= (u8)~BIT(CASCADE);
	if (rank(c, input) < rank(c, highest(c, in_service)))
		return input;
	return -1;
}

static void set_input(struct i8259 *c, unsigned input, bool asserted)
{
	u8 bit = (u8)(1u << input);

	if (c->elcr & bit)
		c->irr = asserted ? c->irr | bit : c->irr & (u8)~bit;
	else if (asserted && !(c->lines & bit))
		c->irr |= bit;
	c->lines = asserted ? c->lines | bit : c->lines & (u8)~bit;
}

/* The cascade follows the slave's output as a level, or it would be lost. */
static void update(struct pic *pic)
{
	struct i8259 *master = &pic->chip[MASTER];
	bool slave = request(&pic->chip[SLAVE], false) >= 0;

	master->irr &= (u8)~BIT(CASCADE);
	if (slave)
		master->irr |= BIT(CASCADE);
	pic->intr = request(master, true) >= 0;
	if (pic->intr && pic->attention)
		__atomic_store_n(pic->attention, true, __ATOMIC_RELEASE);
}

void pic_set_line(struct pic *pic, unsigned line, bool asserted)
{
	if (line >= PIC_LINES || line == CASCADE)
		return;
	set_input(&pic->chip[line / 8], line % 8, asserted);
	update(pic);
}

static void acknowledge(struct i8259 *c, unsigned input)
{
	u8 bit = (u8)(1u << input);

	if (!(c->elcr & bit))
		c->irr &= (u8)~bit;
	if (!c->auto_eoi)
		c->isr |= bit;
	else if (c->rotate_on_aeoi)
		c->lowest = (u8)input;
}

/* One chip's part of an acknowledge or a poll: the input, or -1. */
static int take(struct pic *pic, unsigned chip)
{
	int input = request(&pic->chip[chip], chip == MASTER);

	if (input >= 0)
		acknowledge(&pic->chip[chip], (unsigned)input);
	return input;
}

u8 pic_ack(struct pic *pic)
{
	unsigned chip = MASTER;
	int input = take(pic, MASTER);

	if (input == CASCADE) {
		chip = SLAVE;
		input = take(pic, SLAVE);
	}
	update(pic);
	return (u8)(pic->chip[chip].base + (input < 0 ? SPURIOUS : input));
}

static void icw1_write(struct i8259 *c, u8 value)
{
	u8 lines = c->lines, elcr = c->elcr;

	/* An edge must come anew; a level is still there (data sheet p. 11). */
	memset(c, 0, sizeof(*c));
	c->lines = lines;
	c->elcr = elcr;
	c->irr = lines & elcr;
	c->lowest = 7;
	c->next = 2;
	c->icw4 = value & ICW1_IC4;
}

static void icw_write(struct i8259 *c, u8 value)
{
	if (c->next == 2) {
		c->base = value & 0xF8;
		c->next = 3;
	} else if (c->next == 3) {
		c->next = c->icw4 ? 4 : 0; /* the wiring is as it is */
	} else {
		c->auto_eoi = value & ICW4_AEOI;
		c->fully_nested = value & ICW4_SFNM;
		c->next = 0;
	}
}

/* Bit 7: rotate; 6: the input is named; 5: end of interrupt. */
static void ocw2_write(struct i8259 *c, u8 value)
{
	bool rotate = value & BIT(7), named = value & BIT(6);
	bool eoi = value & BIT(5);
	int input = value & 7;

	if (!named && !eoi) {
		c->rotate_on_aeoi = rotate;
		return;
	}
	if (!named)
		input = highest(c, c->special_mask ? c->isr & (u8)~c->imr
						   : c->isr);
	if (input < 0 || (named && !eoi && !rotate))
		return;
	if (eoi)
		c->isr &= (u8) ~(1u << input);
	if (rotate)
		c->lowest = (u8)input;
}

static void ocw3_write(struct i8259 *c, u8 value)
{
	if (value & OCW3_SET_SMM)
		c->special_mask = value & OCW3_SMM;
	c->poll = value & OCW3_POLL;
	if (value & OCW3_READ)
		c->read_isr = value & OCW3_READ_ISR;
}

static void chip_write(struct i8259 *c, bool odd, u8 value)
{
	if (odd && c->next)
		icw_write(c, value);
	else if (odd)
		c->imr = value;
	else if (value & ICW1)
		icw1_write(c, value);
	else if (value & OCW3)
		ocw3_write(c, value);
	else
		ocw2_write(c, value);
}

static u8 chip_read(struct pic *pic, unsigned chip, bool odd)
{
	struct i8259 *c = &pic->chip[chip];

	if (c->poll) { /* the read is the acknowledge */
		int input = take(pic, chip);

		c->poll = false;
		update(pic);
		return input < 0 ? 0 : (u8)(0x80 | input);
	}
	if (odd)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static void pic_write(void *dev, u16 port, u8 value)
{
	struct pic *pic = dev;

	chip_write(&pic->chip[port & 0x80 ? SLAVE : MASTER], port & 1, value);
	update(pic);
}

static u8 pic_read(void *dev, u16 port)
{
	return chip_read(dev, port & 0x80 ? SLAVE : MASTER, port & 1);
}

static void elcr_write(void *dev, u16 port, u8 value)
{
	struct pic *pic = dev;
	struct i8259 *c = &pic->chip[port & 1];
	u8 old = c->elcr;

	/* Timer, keyboard, cascade, RTC and FPU are wired as edges. */
	c->elcr = value & (port & 1 ? 0xDE : 0xF8);
	c->irr = (c->irr & (u8) ~(old ^ c->elcr)) | (c->lines & c->elcr);
	update(pic);
}

static u8 elcr_read(void *dev, u16 port)
{
	struct pic *pic = dev;

	return pic->chip[port & 1].elcr;
}

static int pic_access(void *dev, struct bus_access *a)
{
	return isa_access(a, a->addr & 0x80 ? 0xA1 : 0x21, dev, pic_read,
			  pic_write);
}

static int elcr_access(void *dev, struct bus_access *a)
{
	return isa_access(a, 0x4D1, dev, elcr_read, elcr_write);
}

void pic_reset(struct pic *pic)
{
	for (unsigned i = 0; i < 2; i++) {
		u8 lines = pic->chip[i].lines;

		memset(&pic->chip[i], 0, sizeof(pic->chip[i]));
		pic->chip[i].lines = lines;
		pic->chip[i].lowest = 7;
		pic->chip[i].imr = 0xFF;
	}
	pic->intr = false;
}

int pic_init(struct pic *pic, struct bus *bus)
{
	int err;

	memset(pic, 0, sizeof(*pic));
	pic_reset(pic);
	err = bus_register(bus, BUS_PORT, 0x20, 0x21, pic_access, pic, "pic");
	if (!err)
		err = bus_register(bus, BUS_PORT, 0xA0, 0xA1, pic_access, pic,
				   "pic");
	if (!err)
		err = bus_register(bus, BUS_PORT, 0x4D0, 0x4D1, elcr_access,
				   pic, "elcr");
	return err;
}
