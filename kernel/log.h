/* SPDX-License-Identifier: MIT */
/*
 * Monocle's log: one line a call, without the newline, prefixed
 * "monocle: ". It goes to the memory ring always, and to the sinks that the
 * command line names (COM1, port 0xE9, the screen until the guest owns it).
 * Format: a subset of printf: %c %s %d %i %u %x %p %%, with l/ll/z, width,
 * '0', '-', '#' and "%.*s".
 */
#ifndef KERNEL_LOG_H
#define KERNEL_LOG_H

#include <stdarg.h>

#include "arch/x86/types.h"

enum log_level {
	LOG_END,   /* the last line; tools read it */
	LOG_ERROR, /* what the user must mend; shown even with "quiet" */
	LOG_WARN,
	LOG_INFO,
	LOG_DEBUG,
};

void log_write(enum log_level level, const char *fmt, ...) PRINTF(2, 3);
void log_vwrite(enum log_level level, const char *fmt, va_list ap) PRINTF(2, 0);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

/*
 * As snprintf of the subset above: writes at most size bytes with the
 * terminating zero, returns the length that the whole text would have.
 */
int format(char *buf, size_t size, const char *fmt, ...) PRINTF(3, 4);
int vformat(char *buf, size_t size, const char *fmt, va_list ap) PRINTF(3, 0);

#endif
