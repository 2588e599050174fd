/* SPDX-License-Identifier: MIT */
/*
 * 16550A UART (PC16550D data sheet) as COM1: ports 0x3F8-0x3FF, VIRQ_COM1.
 * A byte that the guest sends is handed to a callback at once, so the
 * transmitter is always empty. Bytes for the guest wait in a ring before
 * the FIFO, so that pasted text is not lost. The modem lines say that the
 * other side is there and ready.
 */
#ifndef VMM_DEVMODEL_UART_H
#define VMM_DEVMODEL_UART_H

#include "vmm/core/bus.h"
#include "vmm/core/virq.h"

#define UART_FIFO 16
#define UART_RING 512 /* bytes; a power of two */

struct uart {
	u8 ier, lcr, mcr, msr, scr, fcr;
	u8 dll, dlm;
	u8 errors; /* LSR's overrun bit, until it is read */
	bool thre; /* the transmitter's interrupt is pending */
	bool irq;  /* the line as last set */
	u8 fifo[UART_FIFO];
	unsigned fifo_first, fifo_count;
	u8 ring[UART_RING];
	unsigned ring_first, ring_count;
	/* Takes the guest's output; must not block without a bound. */
	void (*put)(void *ctx, const u8 *bytes, size_t n);
	void *put_ctx;
	const struct virq *virq;
};

/* put may be NULL: output is dropped. Returns 0, -ENOSPC or -EEXIST. */
int uart_init(struct uart *uart, struct bus *bus, const struct virq *virq,
	      void (*put)(void *ctx, const u8 *bytes, size_t n), void *ctx);

/* Input that waits in the ring stays. */
void uart_reset(struct uart *uart);

/* Input for the guest: returns how many bytes there was room for. */
size_t uart_receive(struct uart *uart, const u8 *bytes, size_t n);

#endif
