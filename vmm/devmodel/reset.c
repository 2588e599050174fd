/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/reset.h"

#include "vmm/devmodel/isa.h"

#define PORT92 0x92
#define CONTROL_RST_CPU 0x04
#define CONTROL_BITS 0x0E /* SYS_RST, RST_CPU, FULL_RST */
#define PORT92_INIT_NOW 0x01
#define PORT92_A20 0x02
#define PORT92_BITS 0x03

/* Both registers reset on the rising edge of their bit. */
static void write_edge(struct reset_ports *r, u8 *reg, u8 value, u8 edge)
{
	u8 rising = value & (u8) ~*reg & edge;

	*reg = value;
	if (rising)
		r->request(r->ctx);
}

static void reset_write(void *dev, u16 port, u8 value)
{
	struct reset_ports *r = dev;

	if (port == RESET_PORT)
		write_edge(r, &r->control, value & CONTROL_BITS,
			   CONTROL_RST_CPU);
	else
		write_edge(r, &r->port92, value & PORT92_BITS, PORT92_INIT_NOW);
}

static u8 reset_read(void *dev, u16 port)
{
	const struct reset_ports *r = dev;

	return port == RESET_PORT ? r->control : r->port92;
}

static int reset_access(void *dev, struct bus_access *a)
{
	return isa_access(a, (u16)a->addr, dev, reset_read, reset_write);
}

static int debug_exit_access(void *dev, struct bus_access *a)
{
	struct reset_ports *r = dev;

	if (a->write)
		r->debug_exit(r->ctx, (u32)(a->value & bus_all_ones(a->size)));
	else
		a->value = bus_all_ones(a->size);
	return 0;
}

void reset_ports_reset(struct reset_ports *r)
{
	r->control = 0;
	r->port92 = PORT92_A20; /* there is no A20 gate: it stays open */
}

int reset_ports_init(struct reset_ports *r, struct bus *bus,
		     void (*request)(void *ctx),
		     void (*debug_exit)(void *ctx, u32 value), void *ctx)
{
	int err;

	r->request = request;
	r->debug_exit = debug_exit;
	r->ctx = ctx;
	reset_ports_reset(r);
	err = bus_register(bus, BUS_PORT, RESET_PORT, RESET_PORT, reset_access,
			   r, "reset");
	if (!err)
		err = bus_register(bus, BUS_PORT, PORT92, PORT92, reset_access,
				   r, "port92");
	if (!err)
		err = bus_register(bus, BUS_PORT, DEBUG_EXIT_PORT,
				   DEBUG_EXIT_PORT, debug_exit_access, r,
				   "debug-exit");
	return err;
}
