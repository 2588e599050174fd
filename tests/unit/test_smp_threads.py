# SPDX-License-Identifier: MIT
"""Monocle's loop on four CPUs at once, which are threads under ThreadSanitizer:
what each sends to each, the kicks, the lock of the devices, changes of the
EPT, INIT and SIPI. Copies with one defect, too: no emulator shows most."""
import subprocess

import pytest

import harness
from mutants import mutated

SOURCES = [
    "vmm/vcpu/vcpu.c", "vmm/vcpu/serve.c", "vmm/vcpu/exits.c",
    "vmm/vcpu/vcpu_state.c", "vmm/vcpu/lend.c", "vmm/vcpu/guest_cpuid.c",
    "vmm/core/vm.c", "vmm/core/bus.c", "vmm/core/vclock.c",
    "vmm/core/stats.c", "vmm/core/guest_mem.c", "vmm/devmodel/lapic.c",
    "vmm/devmodel/lapic_accept.c", "vmm/devmodel/apic_bus.c",
    "vmm/devmodel/pic.c", "kernel/region.c", "kernel/percpu.c",
    "kernel/kick.c", "kernel/park.c", "arch/x86/vmx/probe.c",
    "arch/x86/vmx/ept.c"]
# What is wrong in a copy: (file, what it reads, what it reads then)
MUTANTS = {
    "no kick": ("vmm/core/vm.c", """\
	vm->kick_others(vm);
	wait_for(""", "\twait_for("),
    "no acknowledgement": ("vmm/core/vm.c", "\twait_for(vm, &vm->paused);\n",
                           ""),
    "not stopped": ("vmm/core/vm.c", """\
	__atomic_store_n(&vm->stop, true, __ATOMIC_SEQ_CST);
""", ""),
    "tables freed before": ("vmm/vcpu/lend.c", """\
	vm_change_begin(v->vm);
	/* A table that is not split needs no memory: this cannot fail. */
	while (v->lent_count)
		(void)ept_unmap(v->vm->ept, v->lent[--v->lent_count],
				PAGE_SIZE);
""", """\
	while (v->lent_count)
		(void)ept_unmap(v->vm->ept, v->lent[--v->lent_count],
				PAGE_SIZE);
	vm_change_begin(v->vm);
"""),
    "generation not read": ("vmm/vcpu/vcpu.c", """\
	if (__atomic_load_n(generation, __ATOMIC_ACQUIRE) != v->ept_generation)
		drop""", """\
	if (!generation)
		drop"""),
    "generation not counted": ("arch/x86/vmx/ept.c",
                               "ept->generation + 1,", "ept->generation,"),
    "devices without a lock": ("vmm/core/vm.c", """\
	vm_lock_shared(vm);
	err = bus_dispatch(&vm->bus, space, a);
	vm_unlock_shared(vm);
""", """\
	err = bus_dispatch(&vm->bus, space, a);
"""),
    "who waits for the lock is waited for": (
        "vmm/core/vm.c", "\t\tset(&vm->paused, this_cpu());\n"
        "\t\tspin_lock(", "\t\tspin_lock("),
    "kicked once and for all": (
        "kernel/kick.c", "__atomic_exchange_n(&cpu->kicked, false,",
        "__atomic_exchange_n(&cpu->kicked, true,"),
    "collected first, then heard": ("vmm/vcpu/vcpu.c", """\
	__atomic_store_n(&v->cpu->attention, 0, __ATOMIC_SEQ_CST);
	vm_pause(v->vm);
""", """\
	lapic_collect(v->lapic);
	__atomic_store_n(&v->cpu->attention, 0, __ATOMIC_SEQ_CST);
	vm_pause(v->vm);
	return;
"""),
    "no entry, no event": ("vmm/vcpu/vcpu.c", "\ttake_back(v);\n\tgoes_on",
                           "\tgoes_on"),
    "interrupts are not taken": (
        "vmm/vcpu/serve.c", "\t\t\ttake_interrupts(v->vm);\n", ""),
    "interrupts without a lock": (
        "vmm/vcpu/serve.c", "\tvm_lock(vm);\n\tcpu_take_interrupts();\n"
        "\tvm_unlock(vm);\n", "\tcpu_take_interrupts();\n"),
    "posted without a lock": (
        "vmm/devmodel/lapic_accept.c",
        "__atomic_fetch_or(&l->posted[word], bit, __ATOMIC_SEQ_CST);",
        "l->posted[word] |= bit;"),
    "of two SIPIs a bit of each": (
        "vmm/devmodel/lapic_accept.c", """\
		if (sipi && old & SIGNAL_SIPI)
			return;
""", ""),
}


def build(*changed):
    """changed: (the tree's file, what to build instead) pairs"""
    sources = [dict(changed).get(s, s) for s in SOURCES]
    return harness.program("smp", [*sources, "tests/unit/smp_threads.c"],
                           ["-fsanitize=thread"])


def run(program, seed, patience):
    """What is wrong, or None."""
    done = subprocess.run(
        [program, str(seed), str(patience)], text=True, capture_output=True,
        check=False, env={"TSAN_OPTIONS": "halt_on_error=1"}, timeout=300)
    return done.stderr or done.returncode or None


@pytest.mark.parametrize("seed", [
    *range(1, 4), *(pytest.param(n, marks=pytest.mark.long)
                    for n in range(4, 44))])
def test_nothing_is_lost(seed):
    assert run(build(), seed, 60) is None


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_lose_something(name):
    source, old, new = MUTANTS[name]
    program = build((source, mutated(source, (old, new))))
    assert any(run(program, seed, 3) for seed in range(1, 9))
