/* SPDX-License-Identifier: MIT */
#ifndef TESTS_UNIT_INSN_ORACLE_H
#define TESTS_UNIT_INSN_ORACLE_H

#include "arch/x86/types.h"

struct oracle_state {
	u64 regs[16]; /* hardware order */
	u64 rflags;
	int signal;  /* that the instruction raised, or 0 */
	u64 back[2]; /* the RSP and RIP that the signal's return loaded */
};

extern struct oracle_state oracle; /* in, and out of oracle_run() */

void *oracle_map(size_t size);
u64 oracle_fs_base(void);
void oracle_set_gs_base(u64 base);
void oracle_run(void *code, const u8 *bytes, unsigned length);

#endif
