/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu/hypercall.h"

#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/log_sink.h"
#include "kernel/string.h"
#include "vmm/vcpu/exits.h"
#include "vmm/vcpu/guest_cpuid.h"

/* Who may write to the port, the CPU has asked: by IOPL and the TSS. */
static bool is_privileged(const struct vcpu *v)
{
	return v->reason == EXIT_IO || vcpu_cpl() == 0;
}

void vcpu_stats_sum(const struct vm *vm, struct stats *sum)
{
	memset(sum, 0, sizeof(*sum));
	for (unsigned n = 0; n < vm->vcpu_count; n++) {
		stats_total(&vm->vcpus[n]->stats);
		stats_add(sum, &vm->vcpus[n]->stats);
	}
	sum->now = rdtsc();
	sum->spins = vm->lock.spins;
	sum->longest_hold = vm->longest_hold;
}

/* Apart: what they need on the stack the shortest call would save. */
static NOINLINE s64 call_stats(struct vcpu *v, gva_t buf, u64 size)
{
	struct stats sum;

	vcpu_stats_sum(v->vm, &sum);
	size = MIN(size, sizeof(sum));
	return vcpu_write_linear(v, buf, &sum, size, 0) ? -EFAULT : (s64)size;
}

static s64 call_vcpu_stats(struct vcpu *v, gva_t buf, u64 size, u64 *n)
{
	struct vcpu *of;

	if (*n >= v->vm->vcpu_count)
		return -EINVAL;
	of = v->vm->vcpus[*n];
	stats_total(&of->stats);
	of->stats.now = rdtsc();
	size = MIN(size, sizeof(of->stats));
	if (vcpu_write_linear(v, buf, &of->stats, size, 0))
		return -EFAULT;
	*n = of->cpuid.apic_id;
	return (s64)size;
}

static NOINLINE s64 call_log(struct vcpu *v, gva_t buf, u64 size, u64 *position)
{
	char part[512];
	u64 from = *position;
	u64 n;

	if (!is_privileged(v))
		return -EPERM;
	n = log_read(&from, part, MIN(size, sizeof(part)));
	if (n && vcpu_write_linear(v, buf, part, n, 0))
		return -EFAULT;
	*position = from;
	return (s64)n;
}

static NOINLINE s64 call_devices(struct vcpu *v, gva_t buf, u64 size,
				 u64 *record)
{
	struct device_stats one;
	u64 done = 0;

	*record = sizeof(one);
	for (unsigned n = 0; done + sizeof(one) <= MIN(size, HYPERCALL_BUFFER);
	     n++) {
		if (!v->vm->device_stats ||
		    !v->vm->device_stats(v->vm->device_ctx, n, &one))
			break;
		if (vcpu_write_linear(v, buf + done, &one, sizeof(one), 0))
			return -EFAULT;
		done += sizeof(one);
	}
	return (s64)done;
}

static NOINLINE s64 call_reason_name(struct vcpu *v, u64 reason, gva_t buf,
				     u64 size)
{
	const char *name;
	u64 n;

	if (reason >= STATS_REASONS)
		return -EINVAL;
	name = exit_reason_name((u32)reason);
	n = MIN(size, strlen(name));
	return vcpu_write_linear(v, buf, name, n, 0) ? -EFAULT : (s64)n;
}

static s64 call_identity_map(struct vcpu *v, gva_t list, u64 count)
{
	struct window_run runs[WINDOWS_RUNS];
	int err;

	if (!is_privileged(v))
		return -EPERM;
	if (!count || count > WINDOWS_RUNS)
		return -EINVAL;
	if (vcpu_read_linear(v, list, runs, count * sizeof(runs[0]),
			     GUEST_READ))
		return -EFAULT;
	vm_lock(v->vm);
	err = v->vm->open_windows(v->vm, runs, (unsigned)count);
	vm_unlock(v->vm);
	return err;
}

enum exit_action exit_hypercall(struct vcpu *v)
{
	u64 *g = v->gpr, size = MIN(g[GPR_RCX], HYPERCALL_BUFFER);
	s64 result;

	switch (g[GPR_RAX] - HYPERCALL_BASE) {
	case HYPERCALL_VERSION:
		result = HYPERCALL_ABI;
		break;
	case HYPERCALL_STATS:
		result = call_stats(v, g[GPR_RBX], size);
		break;
	case HYPERCALL_LOG:
		result = call_log(v, g[GPR_RBX], size, &g[GPR_RDX]);
		break;
	case HYPERCALL_REASON_NAME:
		result = call_reason_name(v, g[GPR_RBX], g[GPR_RCX],
					  MIN(g[GPR_RDX], HYPERCALL_BUFFER));
		break;
	case HYPERCALL_IDENTITY_MAP:
		result = call_identity_map(v, g[GPR_RBX], g[GPR_RCX]);
		break;
	case HYPERCALL_ROM_DONE:
		result = v->vm->rom_runs ? 0 : -ENOSYS;
		if (v->vm->rom_runs)
			vm_request(v->vm, VM_ROM_DONE);
		break;
	case HYPERCALL_DEVICES:
		result = call_devices(v, g[GPR_RBX], g[GPR_RCX], &g[GPR_RDX]);
		break;
	case HYPERCALL_VCPU_STATS:
		result = call_vcpu_stats(v, g[GPR_RBX], size, &g[GPR_RDX]);
		break;
	default:
		result = -ENOSYS;
	}
	/* A page fault is queued: the call is made again after it. */
	if (v->injection.info)
		return EXIT_RESUME;
	g[GPR_RAX] = (u64)result;
	return EXIT_SKIP;
}
