/* SPDX-License-Identifier: MIT */
#ifndef TOOLS_MONOCLECTL_POWER_H
#define TOOLS_MONOCLECTL_POWER_H

/* Of the first CPU, over a second, to standard output. 1: nobody tells. */
int print_power(void);

#endif
