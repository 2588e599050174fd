/* SPDX-License-Identifier: MIT */
/*
 * After a failed VM entry: the checks of SDM chapter 27 in software, on the
 * current VMCS. Logs one line for each rule that is broken, with the section
 * that states it.
 */
#ifndef ARCH_X86_VMX_VMX_CHECK_H
#define ARCH_X86_VMX_VMX_CHECK_H

#include "arch/x86/vmx/vmx.h"

/* Returns the number of broken rules. */
unsigned vmx_check(const struct vmx_capabilities *cap);

#endif
