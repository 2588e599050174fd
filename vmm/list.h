/* SPDX-License-Identifier: MIT */
#ifndef VMM_LIST_H
#define VMM_LIST_H

#include "vmm/machine.h"

/*
 * Logs every function with what its assignment depends on, the decisions on
 * Intel graphics, and whether this machine will do. BARs are sized; nothing
 * else changes. m->host is set.
 */
void list_machine(struct machine *m);

#endif
