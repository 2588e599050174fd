/* SPDX-License-Identifier: MIT */
#include "vmm/console.h"

#include "kernel/log_sink.h"
#include "kernel/serial.h"

static void fill_fifo(struct console *c)
{
	u8 burst[SERIAL_FIFO];
	size_t n = 0;

	log_lock(); /* its lines may go there, too, from any CPU */
	if (serial_ready(COM1)) {
		while (n < SERIAL_FIFO && c->tail != c->head)
			burst[n++] = c->ring[c->tail++ % CONSOLE_RING];
		serial_send(COM1, burst, n);
	}
	log_unlock();
}

static void set_sending(struct console *c)
{
	bool sending = c->tail != c->head;

	if (sending != c->sending)
		serial_interrupts(COM1, sending);
	c->sending = sending;
}

void console_put(void *console, const u8 *bytes, size_t n)
{
	struct console *c = console;

	if (!c->present)
		return;
	for (size_t i = 0; i < n; i++) {
		if (c->head - c->tail == CONSOLE_RING) {
			serial_drain(COM1);
			fill_fifo(c);
		}
		if (c->head - c->tail == CONSOLE_RING)
			return; /* the line does not take it: dropped */
		c->ring[c->head++ % CONSOLE_RING] = bytes[i];
	}
	if (!c->sending)
		fill_fifo(c);
	set_sending(c);
}

void console_rts(void *console, bool on)
{
	struct console *c = console;

	if (c->present)
		serial_rts(COM1, on);
}

void console_interrupt(void *console, unsigned vector)
{
	struct console *c = console;
	u8 bytes[SERIAL_FIFO];
	bool is_break;
	size_t n;

	(void)vector;
	/*
	 * Until it asks for nothing more: its line is an edge, which comes from
	 * there only. Bounded: a broken one must not hold us.
	 */
	for (int i = 0; i < 16 && serial_asks(COM1); i++) {
		log_lock();
		n = serial_read(COM1, bytes, sizeof(bytes), &is_break);
		log_unlock();
		uart_receive(c->uart, bytes, n, is_break);
		fill_fifo(c);
		set_sending(c);
	}
}

void console_flush(struct console *c)
{
	if (!c->present)
		return;
	for (unsigned i = 0; c->tail != c->head && i < CONSOLE_RING; i++) {
		serial_drain(COM1);
		fill_fifo(c);
	}
	serial_drain(COM1);
}
