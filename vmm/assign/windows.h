/* SPDX-License-Identifier: MIT */
/*
 * Memory of the assigned graphics that a guest may have to ask for
 * (igd=closed): legacy VGA, OpRegion, stolen memory, RMRRs. A closed window
 * stands in the guest's memory map without rights for the CPU; DMA is as in
 * an open one.
 */
#ifndef VMM_ASSIGN_WINDOWS_H
#define VMM_ASSIGN_WINDOWS_H

#include "vmm/core/vm.h"

/*
 * vm->open_windows. Opens the runs, all or none. -EINVAL: a page of one is in
 * no window, or the run is empty or not page-aligned; -ENOSPC: the windows
 * would be in too many pieces; -ENOMEM.
 */
int windows_open(struct vm *vm, const struct window_run *runs, unsigned count);
/* All are closed on return. */
void windows_close(struct vm *vm);

#endif
