/* SPDX-License-Identifier: MIT */
#include "vmm/core/vm.h"

#include "arch/x86/io.h"
#include "kernel/panic.h"

#define PATIENCE 10 /* seconds in which a CPU leaves the guest: it takes µs */

static u64 this_cpu(void)
{
	return BIT(percpu()->index);
}

static u64 load(const u64 *mask)
{
	return __atomic_load_n(mask, __ATOMIC_SEQ_CST);
}

static void set(u64 *mask, u64 bits)
{
	__atomic_fetch_or(mask, bits, __ATOMIC_SEQ_CST);
}

static void clear(u64 *mask, u64 bits)
{
	__atomic_fetch_and(mask, ~bits, __ATOMIC_SEQ_CST);
}

static bool is_stopped(const struct vm *vm)
{
	return __atomic_load_n(&vm->stop, __ATOMIC_SEQ_CST);
}

/* Who waits looks at nothing, and whoever stops the others has the lock: so
 * with the lock there is nobody to wait for. */
void vm_lock_shared(struct vm *vm)
{
	if (!spin_trylock(&vm->lock)) {
		set(&vm->paused, this_cpu());
		spin_lock(&vm->lock);
		clear(&vm->paused, this_cpu());
	}
	vm->held_since = rdtsc();
}

void vm_unlock_shared(struct vm *vm)
{
	vm->longest_hold = MAX(vm->longest_hold, rdtsc() - vm->held_since);
	spin_unlock(&vm->lock);
}

int vm_dispatch_shared(struct vm *vm, enum bus_space space,
		       struct bus_access *a)
{
	int err;

	vm_lock_shared(vm);
	err = bus_dispatch(&vm->bus, space, a);
	vm_unlock_shared(vm);
	return err;
}

/* Until no other CPU runs that is not in `paused`. */
static void wait_for(const struct vm *vm, const u64 *paused)
{
	u64 start = rdtsc(), busy;

	while ((busy = load(&vm->running) & ~this_cpu() &
		       ~(paused ? load(paused) : 0))) {
		if (rdtsc() - start > PATIENCE * vm->clock.tsc_hz)
			panic("CPU %u does not come out of the guest",
			      (unsigned)__builtin_ctzll(busy));
		cpu_relax();
	}
}

void vm_change_begin(struct vm *vm)
{
	if (!vm->smp)
		return;
	__atomic_store_n(&vm->stop, true, __ATOMIC_SEQ_CST);
	vm->kick_others(vm);
	wait_for(vm, &vm->paused);
}

void vm_change_end(struct vm *vm)
{
	if (vm->smp)
		__atomic_store_n(&vm->stop, false, __ATOMIC_SEQ_CST);
}

/* Again, for the next one that stops may have seen the bit of this time. */
void vm_pause(struct vm *vm)
{
	while (is_stopped(vm)) {
		set(&vm->paused, this_cpu());
		while (is_stopped(vm))
			cpu_relax();
		clear(&vm->paused, this_cpu());
	}
}

bool vm_enter(struct vm *vm)
{
	if (!vm->smp)
		return vm->request == VM_RUN;
	set(&vm->running, this_cpu());
	if (__atomic_load_n(&vm->request, __ATOMIC_SEQ_CST) != VM_RUN) {
		vm_leave(vm);
		return false;
	}
	vm_pause(vm);
	return true;
}

void vm_leave(struct vm *vm)
{
	if (vm->smp)
		clear(&vm->running, this_cpu());
}

void vm_wait_for_others(struct vm *vm)
{
	if (vm->smp)
		wait_for(vm, NULL);
}

void vm_request(struct vm *vm, enum vm_request what)
{
	enum vm_request run = VM_RUN;

	if (__atomic_compare_exchange_n(&vm->request, &run, what, false,
					__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) &&
	    vm->smp)
		vm->kick_others(vm);
}

/* SDM 25.6.4: two pages, a bit for each port; 0 is open. */
void vm_open_ports(struct vm *vm, u64 first, u64 count, bool open)
{
	u8 *bitmap = vm->io_bitmap;

	for (u64 port = first; port < first + count && port < 0x10000; port++) {
		u8 bit = (u8)(1u << port % 8);

		if (open)
			bitmap[port / 8] &= (u8)~bit;
		else
			bitmap[port / 8] |= bit;
	}
}
