/* SPDX-License-Identifier: MIT */
#include "kernel/log_sink.h"

#include "arch/x86/io.h"
#include "kernel/screen.h"
#include "kernel/serial.h"
#include "kernel/string.h"

static struct {
	unsigned sinks;
	enum log_level level;
	u64 end; /* bytes ever written */
	char ring[LOG_RING];
} state;

void (*log_page)(void);

static void emit_e9(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		outb(0xe9, (u8)text[i]);
}

static void emit_to_sinks(const char *text, size_t length)
{
	if (state.sinks & LOG_E9)
		emit_e9(text, length);
	if (state.sinks & LOG_COM1)
		serial_write_text(COM1, text, length);
	if (state.sinks & LOG_COM2)
		serial_write_text(COM2, text, length);
	if (state.sinks & LOG_SCREEN)
		screen_write(text, length);
}

bool log_goes_to(unsigned sink)
{
	return state.sinks & sink;
}

void log_emit(enum log_level level, const char *line, size_t length)
{
	for (size_t i = 0; i < length; i++)
		state.ring[state.end++ % LOG_RING] = line[i];
	if (!state.sinks || level > state.level)
		return;
	if (log_page && log_goes_to(LOG_SCREEN) && !screen_has_room(length))
		log_page();
	emit_to_sinks(line, length);
}

size_t log_read(u64 *from, char *buf, size_t size)
{
	size_t n = 0;

	if (state.end > LOG_RING && *from < state.end - LOG_RING)
		*from = state.end - LOG_RING;
	while (n < size && *from < state.end)
		buf[n++] = state.ring[(*from)++ % LOG_RING];
	return n;
}

void log_start(unsigned sinks, enum log_level level,
	       const struct boot_framebuffer *fb)
{
	char part[128];
	u64 from = 0;
	size_t n;

	if ((sinks & LOG_SCREEN) && !screen_init(fb))
		sinks &= ~(unsigned)LOG_SCREEN;
	if ((sinks & LOG_COM1) && !serial_init(COM1))
		sinks &= ~(unsigned)LOG_COM1;
	if ((sinks & LOG_COM2) && !serial_init(COM2))
		sinks &= ~(unsigned)LOG_COM2;
	state.sinks = sinks;
	state.level = level;
	if (level < LOG_INFO)
		return;
	while ((n = log_read(&from, part, sizeof(part))) > 0)
		emit_to_sinks(part, n);
}

void log_leave_screen(void)
{
	state.sinks &= ~(unsigned)LOG_SCREEN;
}

void log_take_screen(void)
{
	state.sinks |= LOG_SCREEN;
}

void log_drain(void)
{
	if (state.sinks & LOG_COM2)
		serial_drain(COM2);
	serial_drain(COM1);
}
