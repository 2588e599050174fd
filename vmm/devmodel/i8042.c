/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/i8042.h"

#include "kernel/string.h"
#include "vmm/devmodel/isa.h"

#define PORT_DATA 0x60
#define PORT_COMMAND I8042_STATUS
#define STATUS_OUTPUT_FULL 0x01
#define COMMAND_WRITE_OUTPUT 0xD1
#define OUTPUT_NOT_RESET 0x01 /* in the output port and in a pulse, 0xFx */

/*
 * Commands that reach the host's controller (IBM PS/2 technical reference,
 * keyboard controller). Not here: its RAM but for the command byte, the
 * password, the output port and its pulses, vendors' commands.
 */
static const u8 allowed[] = {
	0x20, /* read command byte */
	0x60, /* write command byte */
	0xA7, /* disable mouse port */
	0xA8, /* enable mouse port */
	0xA9, /* test mouse port */
	0xAA, /* self-test */
	0xAB, /* test keyboard port */
	0xAD, /* disable keyboard */
	0xAE, /* enable keyboard */
	0xC0, /* read input port */
	0xD0, /* read output port */
	0xD2, /* write keyboard output buffer: drivers' loopback test */
	0xD3, /* write mouse output buffer: drivers' loopback test */
	0xD4, /* write to mouse */
};

static bool is_allowed(u8 command)
{
	for (unsigned i = 0; i < sizeof(allowed); i++)
		if (allowed[i] == command)
			return true;
	return false;
}

/* Of the commands that are not let through, those that take a data byte. */
static bool takes_data(u8 command)
{
	return (command >= 0x61 && command <= 0x7F) || command == 0xA5 ||
	       command == COMMAND_WRITE_OUTPUT;
}

static void command_write(struct i8042 *k, u8 command)
{
	k->command = 0;
	if (is_allowed(command))
		outb(PORT_COMMAND, command);
	else if (takes_data(command))
		k->command = command;
	else if (command >= 0xF0 && !(command & OUTPUT_NOT_RESET))
		k->request_reset(k->ctx);
}

static void data_write(struct i8042 *k, u8 value)
{
	u8 command = k->command;

	k->command = 0;
	if (!command)
		outb(PORT_DATA, value);
	else if (command == COMMAND_WRITE_OUTPUT && !(value & OUTPUT_NOT_RESET))
		k->request_reset(k->ctx);
}

static u8 data_read(struct i8042 *k)
{
	/* Down before the byte is gone: the next byte's edge comes after. */
	virq_set_line(k->virq, VIRQ_KEYBOARD, false);
	virq_set_line(k->virq, VIRQ_MOUSE, false);
	return inb(PORT_DATA);
}

void i8042_host_irq(struct i8042 *k, unsigned line)
{
	if (line != VIRQ_KEYBOARD && line != VIRQ_MOUSE)
		return;
	virq_set_line(k->virq, line, false);
	virq_set_line(k->virq, line, true);
}

static u8 i8042_read(void *dev, u16 port)
{
	return port == PORT_DATA ? data_read(dev) : inb(PORT_COMMAND);
}

static void i8042_write(void *dev, u16 port, u8 value)
{
	if (port == PORT_DATA)
		data_write(dev, value);
	else
		command_write(dev, value);
}

static int i8042_access(void *dev, struct bus_access *a)
{
	u16 port = (u16)a->addr;

	return isa_access(a, port, dev, i8042_read, i8042_write);
}

void i8042_reset(struct i8042 *k)
{
	k->command = 0;
	/* The host's line is an edge: what stays here would be the last. */
	for (int i = 0; i < 16 && inb(PORT_COMMAND) & STATUS_OUTPUT_FULL; i++)
		inb(PORT_DATA);
	virq_set_line(k->virq, VIRQ_KEYBOARD, false);
	virq_set_line(k->virq, VIRQ_MOUSE, false);
}

int i8042_init(struct i8042 *k, struct bus *bus, const struct virq *virq,
	       void (*request_reset)(void *ctx), void *ctx)
{
	int err;

	memset(k, 0, sizeof(*k));
	k->virq = virq;
	k->request_reset = request_reset;
	k->ctx = ctx;
	err = bus_register(bus, BUS_PORT, PORT_DATA, PORT_DATA, i8042_access, k,
			   "i8042");
	if (!err)
		err = bus_register(bus, BUS_PORT, PORT_COMMAND, PORT_COMMAND,
				   i8042_access, k, "i8042");
	return err;
}
