/* SPDX-License-Identifier: MIT */
/*
 * The hypercall ABI, version HYPERCALL_ABI: docs/hypercalls.md. VMCALL, or a
 * 32-bit OUT to HYPERCALL_PORT, with RAX = HYPERCALL_BASE + number, arguments in
 * RBX, RCX, RDX; the result in RAX: 0 or more, or a negative errno. Found by
 * CPUID leaf 0x40000000 ("MonocleVMM") and 0x40000001.
 */
#ifndef VMM_VCPU_HYPERCALL_H
#define VMM_VCPU_HYPERCALL_H

#include "arch/x86/types.h"

#define HYPERCALL_ABI 3
#define HYPERCALL_PORT 0xe4 /* whoever may write to it has ring 0's rights */

/* Those that only ask are open to every privilege level, but for the log. */
enum hypercall {
	HYPERCALL_VERSION = 0,
	/* RBX: linear address of a buffer, RCX: its size. A struct stats, the
	 * sum of all vCPUs', as far as it fits; returns the bytes written. */
	HYPERCALL_STATS = 1,
	/* RBX: buffer, RCX: size, RDX: position in the log (0: the oldest
	 * byte kept). Returns the bytes written; RDX: the next position. It
	 * has addresses of the host: ring 0, or the port. */
	HYPERCALL_LOG = 2,
	/* RBX: n-th exit reason, RCX: buffer, RDX: size. Its name. */
	HYPERCALL_REASON_NAME = 3,
	/* RBX: struct window_run[], RCX: how many, 1 to WINDOWS_RUNS. Opens
	 * memory of the graphics (igd=closed), all or none; ring 0 only. */
	HYPERCALL_IDENTITY_MAP = 4,
	/* RBX: buffer, RCX: size. A struct device_stats for each assigned
	 * function, as many as fit; returns the bytes written, RDX: the size
	 * of one. */
	HYPERCALL_DEVICES = 5,
	/* RBX: buffer, RCX: size, RDX: n-th vCPU. As HYPERCALL_STATS, of one;
	 * RDX: its APIC ID. */
	HYPERCALL_VCPU_STATS = 6,
	/* The end of vmm/load/bios_stub.asm's rom_init_stub; no guest's. */
	HYPERCALL_ROM_DONE = 0x100,
};

#define HYPERCALL_BUFFER 4096u /* bytes at most in one call */

#endif
