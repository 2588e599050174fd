/* SPDX-License-Identifier: MIT */
/*
 * 16550A UART (PC16550D data sheet) as COM1: ports 0x3F8-0x3FF, VIRQ_COM1.
 * A byte that the guest sends is handed to a callback at once, so the
 * transmitter is always empty. Bytes for the guest wait in a ring before
 * the FIFO, so that pasted text is not lost; RTS asks for a pause when it is
 * nearly full. The modem lines say that the other side is there and ready.
 */
#ifndef VMM_DEVMODEL_UART_H
#define VMM_DEVMODEL_UART_H

#include "vmm/core/bus.h"
#include "vmm/core/virq.h"

#define UART_FIFO 16
#define UART_RING 512 /* bytes; a power of two */
#define UART_BREAK 0x100

struct uart {
	u8 ier, lcr, mcr, msr, scr, fcr;
	u8 dll, dlm;
	u8 errors;	     /* LSR's overrun bit, until it is read */
	bool thre;	     /* the transmitter's interrupt is pending */
	bool irq;	     /* the line as last set */
	bool rts;	     /* likewise */
	u16 fifo[UART_FIFO]; /* bytes; UART_BREAK: one is a BREAK */
	unsigned fifo_first, fifo_count;
	u16 ring[UART_RING]; /* likewise */
	unsigned ring_first, ring_count;
	/* Takes the guest's output; must not block without a bound. */
	void (*put)(void *ctx, const u8 *bytes, size_t n);
	void (*set_rts)(void *ctx, bool on); /* the other side may send */
	void *put_ctx;			     /* of both */
	const struct virq *virq;
};

/*
 * put and set_rts may be NULL: output is dropped. RTS is off at first. Returns
 * 0, -ENOSPC or -EEXIST.
 */
int uart_init(struct uart *uart, struct bus *bus, const struct virq *virq,
	      void (*put)(void *ctx, const u8 *bytes, size_t n),
	      void (*set_rts)(void *ctx, bool on), void *ctx);

/* Input that waits in the ring stays. */
void uart_reset(struct uart *uart);

/*
 * Input for the guest, of which the last byte may be a BREAK: returns how many
 * bytes there was room for. The others are lost, which LSR says.
 */
size_t uart_receive(struct uart *uart, const u8 *bytes, size_t n,
		    bool is_break);

#endif
