# SPDX-License-Identifier: MIT
"""The lock between CPUs, which are threads here."""
import pytest

import harness

FAKES = """
#include <pthread.h>
#include <sched.h>

#include "arch/x86/spinlock.h"

#define CPUS 4
#define ROUNDS 2000

static struct spinlock lock;
static u64 counted;
static volatile u64 inside, taken;

void cpu_relax(void)
{
	sched_yield();
}

static void *cpu(void *try)
{
	for (int i = 0; i < ROUNDS; i++) {
		if (!try)
			spin_lock(&lock);
		else if (!spin_trylock(&lock))
			continue;
		taken++;
		inside++;
		sched_yield();
		counted += inside == 1;
		inside--;
		spin_unlock(&lock);
	}
	return NULL;
}

/* How often more than one had it; -1: not all had it, or nobody waited. */
s64 contend(bool with_tries)
{
	pthread_t threads[CPUS + 1];
	int n = with_tries ? CPUS + 1 : CPUS;

	taken = counted = inside = 0;
	for (int i = 0; i < n; i++)
		pthread_create(&threads[i], NULL, cpu, i == CPUS ? &lock : 0);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	return taken < CPUS * ROUNDS || !lock.spins ? -1
						    : (s64)(taken - counted);
}
"""


@pytest.fixture(scope="module")
def m():
    return harness.build("spinlock", [], headers=["arch/x86/spinlock.h"],
                         fakes=FAKES, cdef="s64 contend(bool with_tries);",
                         exports=["spin_lock", "spin_trylock", "spin_unlock"])


@pytest.mark.parametrize("with_tries", [False, True])
def test_one_at_a_time(m, with_tries):
    assert m.contend(with_tries) == 0


def test_a_try_waits_for_nobody(m):
    lock = m.new("struct spinlock *")
    assert m.spin_trylock(lock) and not m.spin_trylock(lock)
    m.spin_unlock(lock)
    m.spin_lock(lock)
    assert not m.spin_trylock(lock)
    m.spin_unlock(lock)
    assert m.spin_trylock(lock) and lock.spins == 0


def test_tickets_turn_over(m):
    lock = m.new("struct spinlock *", {"next": 2**32 - 1, "owner": 2**32 - 1})
    m.spin_lock(lock)
    m.spin_unlock(lock)
    assert lock.owner == lock.next == 0 and m.spin_trylock(lock)
