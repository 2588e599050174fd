/* SPDX-License-Identifier: MIT */
/*
 * A copy of the log's end in memory that a warm reset leaves alone, for the
 * next start. It is whole after each line, wherever the machine stops.
 */
#ifndef KERNEL_LOG_RAM_H
#define KERNEL_LOG_RAM_H

#include "arch/x86/types.h"

#define LOG_RAM_SIZE 0x21000u /* bytes, of pages that are nobody else's */

/*
 * Copies the end of what an earlier start has left at place, with a zero size
 * bytes at most. Nothing, where memory did not keep it.
 */
void log_ram_last(const void *place, char *to, size_t size);
/* What is written from now on goes to place, and what was there is gone. */
void log_ram_start(void *place);
void log_ram_write(const char *text, size_t length);

#endif
