# SPDX-License-Identifier: MIT
"""`monoclectl power`: figures of a CPU whose MSRs are made up, and what it says
where there are none. Half of the time is sleep."""
import subprocess

import pytest

import harness

# A counter: its value before and after.
MSRS = {0x10: (5, 2_000_000_005), 0xe7: (7, 1_000_000_007),
        0xe8: (9, 1_500_000_009), 0x19c: (0, 0x88290001), 0x1a2: (0, 0x640000),
        0x606: (0, 0xa0e03), 0x611: (0xffff0000, 0xffff0000 + 12 * 16384),
        0x3fd: (1, 200_000_001), 0x632: (3, 100_000_003)}
FAKES = """
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int slept;

static int fake_open(const char *path, int flags)
{
	(void)flags;
	return strcmp(path, "/dev/cpu/0/msr") || MISSING ? -1 : 3;
}

static long fake_pread(int fd, void *buf, size_t size, long msr)
{
	static const struct { long msr; unsigned long value[2]; } rows[] = {ROWS};

	(void)fd;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].msr == msr)
			return memcpy(buf, &rows[i].value[slept], size), size;
	return -1;
}

static int fake_time(int clock, struct timespec *now)
{
	(void)clock;
	*now = (struct timespec){slept, 900000000 - slept * 400000000l};
	return 0;
}

static int fake_sleep(const struct timespec *wait, struct timespec *left)
{
	(void)left;
	return slept += (int)wait->tv_sec, 0;
}

#define open fake_open
#define pread fake_pread
#define clock_gettime fake_time
#define nanosleep fake_sleep
#include "tools/monoclectl/power.c"

int main(void)
{
	return print_power();
}
"""


def power(tmp_path, msrs, missing=0):
    """(status, standard output's rows, what went to the other)"""
    source, program = tmp_path / "power.c", tmp_path / "power"
    rows = ",".join("{%d, {%du, %du}}" % (n, *v) for n, v in msrs.items())
    source.write_text(FAKES.replace("ROWS", rows))
    subprocess.run(["gcc", f"-I{harness.ROOT}", f"-DMISSING={missing}",
                    "-o", program, source], check=True)
    done = subprocess.run([program], capture_output=True, text=True,
                          check=False)
    return done.returncode, {line[:13].strip(): line[13:] for line in
                             done.stdout.splitlines()}, done.stderr


def test_figures(tmp_path):
    """Of 0.6 seconds; the counter of energy has turned over meanwhile."""
    assert power(tmp_path, MSRS) == (0, {
        "temperature": "59 C, of 100 at most; it slows down",
        "awake": "50.0 %", "frequency": "5000 MHz while awake",
        "power": "20.00 W of the package", "core C6": "10.0 %",
        "package C10": "5.0 %"}, "")


def test_what_a_cpu_does_not_tell_is_left_out(tmp_path):
    few = {n: MSRS[n] for n in (0x10, 0xe7, 0xe8)}
    assert power(tmp_path, few)[1].keys() == {"awake", "frequency"}


@pytest.mark.parametrize("missing, msrs, said", [
    (1, MSRS, "modprobe msr"), (0, {0x10: (5, 6)}, "APERF")])
def test_where_nobody_tells(tmp_path, missing, msrs, said):
    status, rows, text = power(tmp_path, msrs, missing)
    assert (status, rows) == (1, {}) and said in text
