/* SPDX-License-Identifier: MIT */
/*
 * Monocle's own address space:
 *
 *   0xffffffff80000000  the image: text R-X, rodata R--, data RW-
 *   0xffffffffc0000000  stacks, a page without mapping below each
 *   0xffff800000000000  the direct map of physical memory, RW-, without the
 *                       image (it would be a second, writable way to it)
 *
 * Nothing is executable but the text, nothing writable is executable, and
 * nothing is mapped below the middle: a null pointer traps.
 */
#ifndef KERNEL_HOST_PAGING_H
#define KERNEL_HOST_PAGING_H

#include "kernel/boot_info.h"

#define STACK_PAGES 4

/* Builds the tables and loads CR3, CR0.WP, CR4.SMEP/SMAP/UMIP. -ENOMEM. */
int host_paging_init(const struct boot_info *boot);
/* What each CPU loads: CR4's protections and the tables. */
void host_paging_load(void);
/* A new stack of STACK_PAGES: its top, or NULL. */
void *stack_alloc(void);
/*
 * The direct map's first 4 GiB and all RAM are always there; device memory
 * above is mapped by this (uncached). Returns the pointer, or NULL.
 */
volatile void *mmio_map(hpa_t hpa, u64 size);
/* Maps one low page 1:1, executable, for the AP trampoline; or takes it out. */
int trampoline_map(hpa_t page, bool on);
hpa_t host_cr3(void);

#endif
