/* SPDX-License-Identifier: MIT */
/*
 * Speed, heat and sleep: the guest reads the CPU's own MSRs (docs/power.md), by
 * Linux's module msr. What a CPU has no MSR for is left out.
 */
#define _POSIX_C_SOURCE 200809L

#include "tools/monoclectl/power.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum {
	MSR_TSC = 0x10,
	MSR_MPERF = 0xe7,
	MSR_APERF = 0xe8,
	MSR_THERM_STATUS = 0x19c,
	MSR_TEMPERATURE_TARGET = 0x1a2,
	MSR_RAPL_POWER_UNIT = 0x606,
	MSR_PKG_ENERGY_STATUS = 0x611,
};

/* Tables of SDM volume 4; they count at the TSC's rate. */
static const struct {
	const char *name;
	unsigned msr;
} residencies[] = {
	{"core C1", 0x660},    {"core C3", 0x3fc},     {"core C6", 0x3fd},
	{"core C7", 0x3fe},    {"package C2", 0x60d},  {"package C3", 0x3f8},
	{"package C6", 0x3f9}, {"package C7", 0x3fa},  {"package C8", 0x630},
	{"package C9", 0x631}, {"package C10", 0x632},
};
#define RESIDENCIES (sizeof(residencies) / sizeof(residencies[0]))

struct sample {
	struct timespec at;
	uint64_t tsc, mperf, aperf, energy, asleep[RESIDENCIES];
};

static bool msr(int fd, unsigned number, uint64_t *value)
{
	*value = 0;
	return pread(fd, value, sizeof(*value), number) == sizeof(*value);
}

static bool take(int fd, struct sample *s)
{
	clock_gettime(CLOCK_MONOTONIC, &s->at);
	(void)msr(fd, MSR_PKG_ENERGY_STATUS, &s->energy);
	for (unsigned n = 0; n < RESIDENCIES; n++)
		(void)msr(fd, residencies[n].msr, &s->asleep[n]);
	return msr(fd, MSR_TSC, &s->tsc) && msr(fd, MSR_MPERF, &s->mperf) &&
	       msr(fd, MSR_APERF, &s->aperf);
}

/* SDM 15.8.2: degrees below the temperature at which the CPU slows down. */
static void print_temperature(int fd)
{
	uint64_t status, target;

	if (msr(fd, MSR_THERM_STATUS, &status) && status >> 31 & 1 &&
	    msr(fd, MSR_TEMPERATURE_TARGET, &target))
		printf("temperature  %d C, of %d at most%s\n",
		       (int)(target >> 16 & 0xff) - (int)(status >> 16 & 0x7f),
		       (int)(target >> 16 & 0xff),
		       status & 1 ? "; it slows down" : "");
}

static void print_rates(int fd, const struct sample *a, const struct sample *b)
{
	double ticks = (double)(b->tsc - a->tsc);
	double awake = (double)(b->mperf - a->mperf);
	double seconds = (double)(b->at.tv_sec - a->at.tv_sec) +
			 (double)(b->at.tv_nsec - a->at.tv_nsec) / 1e9;
	uint64_t units;

	printf("awake        %.1f %%\n", 100 * awake / ticks);
	if (awake > 0)
		printf("frequency    %.0f MHz while awake\n",
		       (double)(b->aperf - a->aperf) / awake * ticks / seconds /
			       1e6);
	if (msr(fd, MSR_RAPL_POWER_UNIT, &units))
		printf("power        %.2f W of the package\n",
		       (double)(uint32_t)(b->energy - a->energy) / seconds /
			       (double)(1u << (units >> 8 & 31)));
	for (unsigned n = 0; n < RESIDENCIES; n++)
		if (b->asleep[n])
			printf("%-12s %.1f %%\n", residencies[n].name,
			       100 * (double)(b->asleep[n] - a->asleep[n]) /
				       ticks);
}

int print_power(void)
{
	const struct timespec wait = {.tv_sec = 1};
	struct sample before, after;
	int fd = open("/dev/cpu/0/msr", O_RDONLY);

	if (fd < 0) {
		fprintf(stderr, "monoclectl: /dev/cpu/0/msr cannot be opened: "
				"be root, after `modprobe msr`\n");
		return 1;
	}
	if (!take(fd, &before)) {
		fprintf(stderr, "monoclectl: this CPU does not tell its speed "
				"(APERF, MPERF)\n");
		return 1;
	}
	nanosleep(&wait, NULL);
	(void)take(fd, &after);
	print_temperature(fd);
	print_rates(fd, &before, &after);
	return 0;
}
