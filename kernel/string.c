/* SPDX-License-Identifier: MIT */
/*
 * The string instructions do the bulk: their microcode is quick on every CPU
 * of interest, and an emulator counts a repetition for each unit, so that
 * quadwords are an eighth of the time of bytes there.
 */
#include "kernel/string.h"
#include "arch/x86/types.h"

static void copy_up(void *dst, const void *src, size_t n)
{
	size_t quads = n / 8, bytes = n % 8;

	__asm__ volatile("rep movsq\n\tmov %3, %%rcx\n\trep movsb"
			 : "+&D"(dst), "+&S"(src), "+&c"(quads)
			 : "r"(bytes)
			 : "memory");
}

void *memcpy(void *restrict dst, const void *restrict src, size_t n)
{
	copy_up(dst, src, n);
	return dst;
}

/*
 * From the last byte down, for a destination inside the source. No STD: an
 * interrupt must not find the direction flag set. The barrier keeps gcc from
 * making the loop a call of memmove.
 */
static void copy_down(u8 *dst, const u8 *src, size_t n)
{
	while (n--) {
		dst[n] = src[n];
		__asm__ volatile("" ::: "memory");
	}
}

void *memmove(void *dst, const void *src, size_t n)
{
	if ((uintptr_t)dst - (uintptr_t)src >= n)
		copy_up(dst, src, n);
	else
		copy_down(dst, src, n);
	return dst;
}

void *memset(void *dst, int c, size_t n)
{
	void *to = dst;
	size_t quads = n / 8, bytes = n % 8;

	__asm__ volatile("rep stosq\n\tmov %3, %%rcx\n\trep stosb"
			 : "+&D"(to), "+&c"(quads)
			 : "a"((u8)c * 0x0101010101010101ull), "r"(bytes)
			 : "memory");
	return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (size_t i = 0; i < n; i++)
		if (x[i] != y[i])
			return x[i] - y[i];
	return 0;
}

size_t strlen(const char *s)
{
	const char *end = s;

	/* The barrier keeps gcc from making this loop a call of strlen. */
	for (; *end; end++)
		__asm__ volatile("");
	return (size_t)(end - s);
}

int strncmp(const char *a, const char *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (a[i] != b[i] || a[i] == 0)
			return (u8)a[i] - (u8)b[i];
	return 0;
}
