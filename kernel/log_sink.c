/* SPDX-License-Identifier: MIT */
#include "kernel/log_sink.h"

#include "arch/x86/io.h"
#include "arch/x86/spinlock.h"
#include "kernel/log_ram.h"
#include "kernel/screen.h"
#include "kernel/string.h"

static struct {
	unsigned sinks;
	enum log_level level;
	u64 end; /* bytes ever written */
	char ring[LOG_RING];
} state;

static struct spinlock lock;
static bool alone; /* a panic: who had the lock has been stopped */

void (*log_page)(void);

void log_lock(void)
{
	if (!alone)
		spin_lock(&lock);
}

void log_unlock(void)
{
	if (!alone)
		spin_unlock(&lock);
}

static void emit_e9(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		outb(0xe9, (u8)text[i]);
}

/* By the order in which they can come. */
static struct {
	enum log_sink sink;
	serial_port port;
} serial[] = {{LOG_COM1, COM1}, {LOG_COM2, COM2}, {LOG_PCI, 0}, {LOG_UART, 0}};

static void emit_to(unsigned sinks, const char *text, size_t length)
{
	if (sinks & LOG_E9)
		emit_e9(text, length);
	for (unsigned i = 0; i < ARRAY_SIZE(serial); i++)
		if (sinks & serial[i].sink)
			serial_write_text(serial[i].port, text, length);
	if (sinks & LOG_SCREEN)
		screen_write(text, length);
}

bool log_goes_to(unsigned sink)
{
	return state.sinks & sink;
}

void log_emit(enum log_level level, const char *line, size_t length)
{
	bool told = state.sinks && level <= state.level;

	/* What it says itself is a line, too. */
	if (told && log_page && log_goes_to(LOG_SCREEN) &&
	    !screen_has_room(length))
		log_page();
	log_lock();
	for (size_t i = 0; i < length; i++)
		state.ring[state.end++ % LOG_RING] = line[i];
	log_ram_write(line, length);
	if (told)
		emit_to(state.sinks, line, length);
	log_unlock();
}

size_t log_read(u64 *from, char *buf, size_t size)
{
	size_t n = 0;

	log_lock();
	if (state.end > LOG_RING && *from < state.end - LOG_RING)
		*from = state.end - LOG_RING;
	while (n < size && *from < state.end)
		buf[n++] = state.ring[(*from)++ % LOG_RING];
	log_unlock();
	return n;
}

/* With what was written before it was there; 0: the copy in memory. */
static void add_sinks(unsigned sinks)
{
	char part[128];
	u64 from = 0;
	size_t n;

	state.sinks |= sinks;
	while ((n = log_read(&from, part, sizeof(part))) > 0)
		if (!sinks)
			log_ram_write(part, n);
		else if (state.level >= LOG_INFO)
			emit_to(sinks, part, n);
}

void log_keep(void *place)
{
	log_ram_start(place);
	add_sinks(0);
}

void log_start(unsigned sinks, enum log_level level,
	       const struct boot_framebuffer *fb)
{
	if ((sinks & LOG_SCREEN) && !screen_init(fb))
		sinks &= ~(unsigned)LOG_SCREEN;
	if ((sinks & LOG_COM1) && !serial_init(COM1))
		sinks &= ~(unsigned)LOG_COM1;
	if ((sinks & LOG_COM2) && !serial_init(COM2))
		sinks &= ~(unsigned)LOG_COM2;
	state.sinks = 0;
	state.level = level;
	add_sinks(sinks & ~(unsigned)(LOG_PCI | LOG_UART));
}

bool log_add_serial(enum log_sink sink, serial_port port)
{
	/* It may be COM1, which has all of it then. */
	for (unsigned i = 0; port && i < ARRAY_SIZE(serial); i++)
		if (log_goes_to(serial[i].sink) && serial[i].port == port)
			return true;
	/* What tables name runs as firmware's own console: at its clock. */
	if (!port || !(sink == LOG_PCI ? serial_init(port) : serial_join(port)))
		return false;
	serial[sink == LOG_PCI ? 2 : 3].port = port;
	add_sinks(sink);
	return true;
}

void log_leave_screen(void)
{
	state.sinks &= ~(unsigned)LOG_SCREEN;
}

void log_take_over(void)
{
	alone = true;
	state.sinks |= LOG_SCREEN;
}

void log_drain(void)
{
	/* COM1 in any case: the guest's console. */
	for (unsigned i = 0; i < ARRAY_SIZE(serial); i++)
		if (!i || (state.sinks & serial[i].sink))
			serial_drain(serial[i].port);
}
