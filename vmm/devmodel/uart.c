/* SPDX-License-Identifier: MIT */
#include "vmm/devmodel/uart.h"

#include "kernel/string.h"
#include "vmm/devmodel/isa.h"

#define PORT_COM1 0x3F8

/* Registers: PC16550D table II. 0 and 1 are DLL and DLM with LCR.DLAB. */
enum { RBR_THR, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCR };

enum {
	IER_RECEIVED = 0x01,
	IER_THRE = 0x02,
	IER_LINE = 0x04,
	IER_MODEM = 0x08,
	IIR_NONE = 0x01,
	IIR_MODEM = 0x00,
	IIR_THRE = 0x02,
	IIR_RECEIVED = 0x04,
	IIR_LINE = 0x06,
	IIR_TIMEOUT = 0x0C,
	IIR_FIFO = 0xC0,
	FCR_ENABLE = 0x01,
	FCR_CLEAR_RECEIVER = 0x02,
	LCR_DLAB = 0x80,
	MCR_DTR = 0x01,
	MCR_RTS = 0x02,
	MCR_OUT1 = 0x04,
	MCR_OUT2 = 0x08,
	MCR_LOOP = 0x10,
	LSR_DATA_READY = 0x01,
	LSR_OVERRUN = 0x02,
	LSR_BREAK = 0x10,
	LSR_EMPTY = 0x60, /* THRE and TEMT */
	MSR_CTS = 0x10,
	MSR_DSR = 0x20,
	MSR_RI = 0x40,
	MSR_DCD = 0x80,
	MSR_TERI = 0x04, /* trailing edge of RI; the other deltas are plain */
};

static unsigned fifo_size(const struct uart *u)
{
	return u->fcr & FCR_ENABLE ? UART_FIFO : 1;
}

static unsigned trigger_level(const struct uart *u)
{
	static const u8 levels[4] = {1, 4, 8, 14};

	return u->fcr & FCR_ENABLE ? levels[u->fcr >> 6] : 1;
}

static void fifo_push(struct uart *u, u16 byte)
{
	if (u->fifo_count >= fifo_size(u)) {
		u->errors |= LSR_OVERRUN;
		return;
	}
	u->fifo[(u->fifo_first + u->fifo_count++) % UART_FIFO] = byte;
}

/* In loopback the line from outside is cut. */
static void refill(struct uart *u)
{
	while (u->ring_count && u->fifo_count < fifo_size(u) &&
	       !(u->mcr & MCR_LOOP)) {
		fifo_push(u, u->ring[u->ring_first]);
		u->ring_first = (u->ring_first + 1) % UART_RING;
		u->ring_count--;
	}
}

/* The byte that is next is one, and LSR has not been read. */
static bool at_break(const struct uart *u)
{
	return u->fifo_count && u->fifo[u->fifo_first] & UART_BREAK;
}

/*
 * Below the trigger level the time-out is due at once: all that the host has
 * is here, so the line is idle.
 */
static u8 identify(const struct uart *u)
{
	if (u->ier & IER_LINE && (u->errors || at_break(u)))
		return IIR_LINE;
	if (u->ier & IER_RECEIVED && u->fifo_count >= trigger_level(u))
		return IIR_RECEIVED;
	if (u->ier & IER_RECEIVED && u->fifo_count)
		return IIR_TIMEOUT;
	if (u->ier & IER_THRE && u->thre)
		return IIR_THRE;
	if (u->ier & IER_MODEM && u->msr & 0xF)
		return IIR_MODEM;
	return IIR_NONE;
}

/*
 * In a PC, OUT2 is the gate between the UART and the interrupt line. RTS is the
 * guest's while the ring has room for what a sender has on its way.
 */
static void update_lines(struct uart *u)
{
	bool irq = identify(u) != IIR_NONE && u->mcr & MCR_OUT2;
	bool rts = (u->mcr & (MCR_LOOP | MCR_RTS)) == MCR_RTS &&
		   u->ring_count < UART_RING / 4 * 3;

	if (rts != u->rts && u->set_rts)
		u->set_rts(u->put_ctx, rts);
	u->rts = rts;
	if (irq == u->irq)
		return;
	u->irq = irq;
	virq_set_line(u->virq, VIRQ_COM1, irq);
}

size_t uart_receive(struct uart *u, const u8 *bytes, size_t n, bool is_break)
{
	size_t taken = MIN(n, UART_RING - u->ring_count);

	for (size_t i = 0; i < taken; i++)
		u->ring[(u->ring_first + u->ring_count++) % UART_RING] =
			bytes[i] | (is_break && i + 1 == n ? UART_BREAK : 0);
	if (taken < n)
		u->errors |= LSR_OVERRUN;
	refill(u);
	update_lines(u);
	return taken;
}

/* The interrupt falls and rises with every byte: its line may be an edge. */
static void transmit(struct uart *u, u8 byte)
{
	u->thre = false;
	update_lines(u);
	if (u->mcr & MCR_LOOP)
		fifo_push(u, byte);
	else if (u->put)
		u->put(u->put_ctx, &byte, 1);
	u->thre = true;
}

static u8 receive(struct uart *u)
{
	u8 byte = (u8)u->fifo[u->fifo_first];

	if (!u->fifo_count)
		return 0;
	u->fifo_first = (u->fifo_first + 1) % UART_FIFO;
	u->fifo_count--;
	refill(u);
	return byte;
}

static u8 modem_lines(u8 mcr)
{
	if (!(mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return (u8)((mcr & MCR_RTS ? MSR_CTS : 0) |
		    (mcr & MCR_DTR ? MSR_DSR : 0) |
		    (mcr & MCR_OUT1 ? MSR_RI : 0) |
		    (mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void mcr_write(struct uart *u, u8 value)
{
	u8 old = u->msr & 0xF0, new;

	u->mcr = value & 0x1F;
	new = modem_lines(u->mcr);
	u->msr = (u8)(new | (u->msr & 0xF) | ((old ^ new) >> 4 & ~MSR_TERI));
	if (old & ~new &MSR_RI)
		u->msr |= MSR_TERI;
	refill(u);
}

static void fcr_write(struct uart *u, u8 value)
{
	if ((value ^ u->fcr) & FCR_ENABLE || value & FCR_CLEAR_RECEIVER)
		u->fifo_count = 0;
	/* Bits 7:6 are only programmed with the FIFOs on. */
	u->fcr = value & FCR_ENABLE ? value & 0xC1 : 0;
	refill(u);
}

static void ier_write(struct uart *u, u8 value)
{
	u->thre |= value & ~u->ier & IER_THRE;
	u->ier = value & 0xF;
}

static void uart_write(void *dev, u16 port, u8 value)
{
	struct uart *u = dev;
	bool dlab = u->lcr & LCR_DLAB;

	switch (port - PORT_COM1) {
	case RBR_THR:
		if (dlab)
			u->dll = value;
		else
			transmit(u, value);
		break;
	case IER:
		if (dlab)
			u->dlm = value;
		else
			ier_write(u, value);
		break;
	case IIR_FCR:
		fcr_write(u, value);
		break;
	case LCR:
		u->lcr = value;
		break;
	case MCR:
		mcr_write(u, value);
		break;
	case SCR:
		u->scr = value;
		break;
	}
	update_lines(u);
}

static u8 iir_read(struct uart *u)
{
	u8 iir = identify(u);

	if (iir == IIR_THRE)
		u->thre = false;
	return iir | (u->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static u8 lsr_read(struct uart *u)
{
	u8 lsr = LSR_EMPTY | u->errors | (u->fifo_count ? LSR_DATA_READY : 0);

	u->errors = 0;
	if (at_break(u)) {
		u->fifo[u->fifo_first] &= 0xff;
		lsr |= LSR_BREAK;
	}
	return lsr;
}

static u8 msr_read(struct uart *u)
{
	u8 msr = u->msr;

	u->msr &= 0xF0;
	return msr;
}

static u8 register_read(struct uart *u, u16 reg)
{
	bool dlab = u->lcr & LCR_DLAB;

	switch (reg) {
	case RBR_THR:
		return dlab ? u->dll : receive(u);
	case IER:
		return dlab ? u->dlm : u->ier;
	case IIR_FCR:
		return iir_read(u);
	case LCR:
		return u->lcr;
	case MCR:
		return u->mcr;
	case LSR:
		return lsr_read(u);
	case MSR:
		return msr_read(u);
	default:
		return u->scr;
	}
}

static u8 uart_read(void *dev, u16 port)
{
	u8 value = register_read(dev, (u16)(port - PORT_COM1));

	update_lines(dev);
	return value;
}

static int uart_access(void *dev, struct bus_access *a)
{
	return isa_access(a, PORT_COM1 + SCR, dev, uart_read, uart_write);
}

void uart_reset(struct uart *u)
{
	u->ier = u->lcr = u->fcr = u->mcr = 0;
	u->dlm = 0;
	u->dll = 12; /* 9600 baud */
	u->errors = 0;
	u->thre = false;
	u->fifo_count = 0;
	u->msr = modem_lines(0);
	refill(u);
	update_lines(u);
}

int uart_init(struct uart *u, struct bus *bus, const struct virq *virq,
	      void (*put)(void *ctx, const u8 *bytes, size_t n),
	      void (*set_rts)(void *ctx, bool on), void *ctx)
{
	memset(u, 0, sizeof(*u));
	u->virq = virq;
	u->put = put;
	u->set_rts = set_rts;
	u->put_ctx = ctx;
	uart_reset(u);
	return bus_register(bus, BUS_PORT, PORT_COM1, PORT_COM1 + SCR,
			    uart_access, u, "com1");
}
