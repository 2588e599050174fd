/* SPDX-License-Identifier: MIT */
/* The handlers that exits.c's switch calls, one file for each kind. */
#ifndef VMM_VCPU_EXITS_H
#define VMM_VCPU_EXITS_H

#include "vmm/vcpu/vcpu.h"

enum exit_action exit_control_register(struct vcpu *v);
enum exit_action exit_xsetbv(struct vcpu *v);
enum exit_action exit_io(struct vcpu *v);
enum exit_action exit_rdmsr(struct vcpu *v);
enum exit_action exit_wrmsr(struct vcpu *v);
enum exit_action exit_ept_violation(struct vcpu *v);
enum exit_action exit_hypercall(struct vcpu *v);

#endif
