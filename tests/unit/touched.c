/* SPDX-License-Identifier: MIT */
/*
 * Which cache lines C code touches: gcc calls these before each access by a
 * pointer, where a module is built with lines=True (harness.py). Not seen: its
 * own stack, global variables by their names, and what assembly does.
 */
#include "arch/x86/types.h"

#define TOUCHED 256
#define STACK 0x10000

u64 touched[TOUCHED]; /* addresses / 64, in order, each once */
bool stored[TOUCHED];
unsigned touched_count;

static void touch(u64 at, u64 size, bool store)
{
	if (at - (u64)(uintptr_t)__builtin_frame_address(0) < STACK)
		return;
	for (u64 line = at / 64; line <= (at + size - 1) / 64; line++) {
		unsigned n = 0;

		while (n < touched_count && touched[n] != line)
			n++;
		if (n == TOUCHED)
			return; /* the count says so */
		stored[n] = store || (n < touched_count && stored[n]);
		touched[n] = line;
		touched_count = MAX(touched_count, n + 1);
	}
}

/* Hidden: the sanitizers' library, which the process has, is first else. */
#define HOOK(name, ...) \
	__attribute__((visibility("hidden"))) void __asan_##name(__VA_ARGS__)
#define HOOK_OF(what, size, store)         \
	HOOK(what##size##_noabort, u64 at) \
	{                                  \
		touch(at, size, store);    \
	}
#define HOOKS(what, store)                      \
	HOOK_OF(what, 1, store)                 \
	HOOK_OF(what, 2, store)                 \
	HOOK_OF(what, 4, store)                 \
	HOOK_OF(what, 8, store)                 \
	HOOK_OF(what, 16, store)                \
	HOOK(what##N_noabort, u64 at, u64 size) \
	{                                       \
		touch(at, size, store);         \
	}
HOOKS(load, false)
HOOKS(store, true)

HOOK(handle_no_return, void)
{
}
