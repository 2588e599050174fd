/* SPDX-License-Identifier: MIT */
#ifndef VMM_LIST_H
#define VMM_LIST_H

#include "vmm/machine.h"

/*
 * Logs every function with what its assignment depends on. BARs are sized;
 * nothing else changes. Where no word of the command line says what to assign,
 * m->host->options become those that give the guest all, by the words that are
 * returned.
 */
const char *list_functions(const struct machine *m);
/*
 * Then, of the plan that was made by these options and ended with err, whether
 * this machine will do, and GRUB's line for it: the command line without
 * `list`, and these words.
 */
void list_verdict(const struct machine *m, const char *words, int err);

#endif
