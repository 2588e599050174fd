/* SPDX-License-Identifier: MIT */
/*
 * monoclectl: asks Monocle from within its guest, by hypercall (the ABI is
 * docs/hypercalls.md). Only the log needs rights, for it has addresses of the
 * host: those to write to the hypercalls' port.
 *
 *   monoclectl version    the ABI's version
 *   monoclectl stats      exits by reason, ticks and share spent in Monocle:
 *                         all CPUs', and of each
 *   monoclectl devices    exits, interrupts and faults of assigned functions
 *   monoclectl log        Monocle's log
 *   monoclectl power      speed, heat and sleep, which the CPU itself tells
 */
#include <cpuid.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>

#include "tools/monoclectl/power.h"
#include "vmm/core/stats.h"
#include "vmm/vcpu/hypercall.h"

#define LEAF 0x40000000u

static uint32_t base;

/* Monocle writes the buffer through our page tables. */
#define HYPERCALL(instruction, rax, rdx, buf, size)                 \
	__asm__ volatile(instruction                                \
			 : "+a"(rax), "+d"(rdx)                     \
			 : "b"(buf), "c"(size), "i"(HYPERCALL_PORT) \
			 : "memory", "cc")

static int64_t hypercall(unsigned number, const void *buf, uint64_t size,
			 uint64_t *rdx)
{
	uint64_t rax = base + number;
	uint64_t d = rdx ? *rdx : 0;

	if (number == HYPERCALL_LOG)
		HYPERCALL("out %%eax, %4", rax, d, buf, size);
	else
		HYPERCALL("vmcall", rax, d, buf, size);
	if (rdx)
		*rdx = d;
	return (int64_t)rax;
}

/* A page that is there: the hypercall's page faults cost a turn each. */
static union {
	struct stats stats;
	char text[HYPERCALL_BUFFER];
} buffer;

static int find(void)
{
	unsigned a, b, c, d;
	char name[13] = {0};

	__cpuid(LEAF, a, b, c, d);
	memcpy(name, &b, 4);
	memcpy(name + 4, &c, 4);
	memcpy(name + 8, &d, 4);
	if (a < LEAF + 1 || strcmp(name, "MonocleVMM")) {
		fprintf(stderr, "monoclectl: this is no guest of Monocle "
				"(CPUID 0x40000000)\n");
		return -1;
	}
	__cpuid(LEAF + 1, a, b, c, d);
	base = b;
	return (int)a;
}

static void print_reason(unsigned reason, const struct exit_count *count)
{
	char name[64] = {0};
	uint64_t size = sizeof(name) - 1;
	uint64_t rax = base + HYPERCALL_REASON_NAME;

	__asm__ volatile("vmcall"
			 : "+a"(rax)
			 : "b"((uint64_t)reason), "c"(name), "d"(size)
			 : "memory", "cc");
	printf("%-24s %10lu %14lu %8lu\n", name, count->count, count->ticks,
	       count->ticks / count->count);
}

static double percent(const struct stats *s)
{
	uint64_t all = (s->now - s->start) * (s->vcpus ? s->vcpus : 1);

	return all ? 100.0 * (double)s->ticks / (double)all : 0;
}

/* Where there are several. */
static void print_vcpus(uint64_t count)
{
	const struct stats *s = &buffer.stats;

	if (count < 2)
		return;
	printf("lock: %lu spins, held for %lu ticks at most\n", s->spins,
	       s->longest_hold);
	for (uint64_t n = 0; n < count; n++) {
		uint64_t id = n;

		if (hypercall(HYPERCALL_VCPU_STATS, &buffer, sizeof(*s), &id) <
		    0)
			return;
		printf("CPU 0x%-4lx %10lu exits %14lu ticks in Monocle "
		       "(%.3f %%)\n",
		       id, s->exits, s->ticks, percent(s));
	}
}

static int print_stats(void)
{
	const struct stats *s = &buffer.stats;

	if (hypercall(HYPERCALL_STATS, &buffer, sizeof(*s), NULL) !=
	    (int64_t)sizeof(*s)) {
		fprintf(stderr, "monoclectl: Monocle's statistics are of "
				"another version\n");
		return 1;
	}
	printf("%lu exits, %lu of %lu ticks in Monocle (%.3f %%), TSC %lu Hz\n",
	       s->exits, s->ticks,
	       (s->now - s->start) * (s->vcpus ? s->vcpus : 1), percent(s),
	       s->tsc_hz);
	printf("%-24s %10s %14s %8s\n", "reason", "exits", "ticks", "each");
	for (unsigned i = 0; i < STATS_REASONS; i++)
		if (s->reasons[i].count)
			print_reason(i, &s->reasons[i]);
	print_vcpus(s->vcpus);
	return 0;
}

static int print_devices(void)
{
	uint64_t record = 0;
	int64_t size =
		hypercall(HYPERCALL_DEVICES, &buffer, sizeof(buffer), &record);

	if (size < 0 || record < sizeof(struct device_stats)) {
		fprintf(stderr, "monoclectl: this Monocle counts nothing of "
				"its devices\n");
		return 1;
	}
	printf("%-8s %10s %10s %10s %10s %10s %10s\n", "function", "config",
	       "MMIO", "ports", "interrupts", "storms", "faults");
	for (uint64_t n = 0; n < (uint64_t)size / record; n++) {
		/* A later Monocle's may be longer. */
		const struct device_stats *d =
			(const void *)(buffer.text + n * record);

		printf("%02x:%02x.%x  %10lu %10lu %10lu %10lu %10lu %10lu\n",
		       d->bdf >> 8u, d->bdf >> 3u & 31u, d->bdf & 7u, d->config,
		       d->mmio, d->ports, d->interrupts, d->storms, d->faults);
	}
	return 0;
}

static int print_log(void)
{
	uint64_t position = 0;
	int64_t n;

	if (ioperm(HYPERCALL_PORT, 4, 1)) {
		fprintf(stderr, "monoclectl: the log is for root\n");
		return 1;
	}
	while ((n = hypercall(HYPERCALL_LOG, &buffer, sizeof(buffer.text),
			      &position)) > 0)
		fwrite(buffer.text, 1, (size_t)n, stdout);
	return n < 0;
}

int main(int argc, char **argv)
{
	int version;

	if (argc == 2 && !strcmp(argv[1], "power"))
		return print_power();
	version = find();
	if (version < 0)
		return 2;
	if (argc == 2 && !strcmp(argv[1], "version")) {
		printf("%d\n", version);
		return 0;
	}
	if (version != HYPERCALL_ABI) {
		fprintf(stderr,
			"monoclectl: Monocle's ABI is version %d, "
			"this program's %d\n",
			version, HYPERCALL_ABI);
		return 2;
	}
	if (argc == 2 && !strcmp(argv[1], "stats"))
		return print_stats();
	if (argc == 2 && !strcmp(argv[1], "devices"))
		return print_devices();
	if (argc == 2 && !strcmp(argv[1], "log"))
		return print_log();
	fprintf(stderr, "usage: monoclectl version|stats|devices|log|power\n");
	return 2;
}
