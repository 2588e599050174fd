/* SPDX-License-Identifier: MIT */
/*
 * The thin edge to the hardware: ports, MMIO, time-stamp counter, cache
 * lines. Everything else in Monocle reaches the machine through these, so
 * that a host build (MONOCLE_HOST) can put a fake in their place which
 * records the order of what is done.
 */
#ifndef ARCH_X86_IO_H
#define ARCH_X86_IO_H

#include "arch/x86/types.h"

#ifdef MONOCLE_HOST

u8 inb(u16 port);
u16 inw(u16 port);
u32 inl(u16 port);
void outb(u16 port, u8 value);
void outw(u16 port, u16 value);
void outl(u16 port, u32 value);
u8 mmio_read8(const volatile void *p);
u16 mmio_read16(const volatile void *p);
u32 mmio_read32(const volatile void *p);
u64 mmio_read64(const volatile void *p);
void mmio_write8(volatile void *p, u8 value);
void mmio_write16(volatile void *p, u16 value);
void mmio_write32(volatile void *p, u32 value);
void mmio_write64(volatile void *p, u64 value);
u64 rdtsc(void);
void clflush(const volatile void *p);
void sfence(void);
void mfence(void);
void lfence(void);
void cpu_relax(void);

#else

#define PORT_ACCESSORS(suffix, type)                                      \
	static inline type in##suffix(u16 port)                           \
	{                                                                 \
		type value;                                               \
		__asm__ volatile("in %1, %0" : "=a"(value) : "Nd"(port)); \
		return value;                                             \
	}                                                                 \
	static inline void out##suffix(u16 port, type value)              \
	{                                                                 \
		__asm__ volatile("out %0, %1" ::"a"(value), "Nd"(port));  \
	}

PORT_ACCESSORS(b, u8)
PORT_ACCESSORS(w, u16)
PORT_ACCESSORS(l, u32)
#undef PORT_ACCESSORS

/*
 * The access is one instruction of exactly that width: device registers may
 * not be read in halves, and the compiler must not merge or repeat them.
 */
#define MMIO_ACCESSORS(bits, reg)                                            \
	static inline u##bits mmio_read##bits(const volatile void *p)        \
	{                                                                    \
		u##bits value;                                               \
		__asm__ volatile("mov %1, %0"                                \
				 : "=" reg(value)                            \
				 : "m"(*(const volatile u##bits *)p)         \
				 : "memory");                                \
		return value;                                                \
	}                                                                    \
	static inline void mmio_write##bits(volatile void *p, u##bits value) \
	{                                                                    \
		__asm__ volatile("mov %1, %0"                                \
				 : "=m"(*(volatile u##bits *)p)              \
				 : reg(value)                                \
				 : "memory");                                \
	}

MMIO_ACCESSORS(8, "q")
MMIO_ACCESSORS(16, "r")
MMIO_ACCESSORS(32, "r")
MMIO_ACCESSORS(64, "r")
#undef MMIO_ACCESSORS

static inline u64 rdtsc(void)
{
	u64 lo, hi; /* whose upper halves it clears */

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return hi << 32 | lo;
}

static inline void clflush(const volatile void *p)
{
	__asm__ volatile("clflush %0" ::"m"(*(const volatile u8 *)p)
			 : "memory");
}

static inline void sfence(void)
{
	__asm__ volatile("sfence" ::: "memory");
}

static inline void mfence(void)
{
	__asm__ volatile("mfence" ::: "memory");
}

static inline void lfence(void)
{
	__asm__ volatile("lfence" ::: "memory");
}

static inline void cpu_relax(void)
{
	__asm__ volatile("pause" ::: "memory");
}

#endif

/* size: 1, 2, 4 or 8, as one instruction. */
static inline u64 mmio_read(const volatile void *p, unsigned size)
{
	return size == 1   ? mmio_read8(p)
	       : size == 2 ? mmio_read16(p)
	       : size == 4 ? mmio_read32(p)
			   : mmio_read64(p);
}

static inline void mmio_write(volatile void *p, unsigned size, u64 value)
{
	if (size == 1)
		mmio_write8(p, (u8)value);
	else if (size == 2)
		mmio_write16(p, (u16)value);
	else if (size == 4)
		mmio_write32(p, (u32)value);
	else
		mmio_write64(p, value);
}

/* size: 1, 2 or 4, as one instruction. */
static inline u32 port_read(u16 port, unsigned size)
{
	return size == 1 ? inb(port) : size == 2 ? inw(port) : inl(port);
}

static inline void port_write(u16 port, unsigned size, u32 value)
{
	if (size == 1)
		outb(port, (u8)value);
	else if (size == 2)
		outw(port, (u16)value);
	else
		outl(port, value);
}

#endif
