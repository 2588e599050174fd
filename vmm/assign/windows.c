/* SPDX-License-Identifier: MIT */
#include "vmm/assign/windows.h"

#include "arch/x86/errno.h"
#include "arch/x86/vmx/ept.h"

#define ADDRESS_LIMIT BIT(46)

static gpa_t end_of(const struct region *r)
{
	return r->gpa + r->size;
}

/*
 * What of [gpa, end) begins at gpa and lies in one window and one row of the
 * map: that row's part, with the window's rights. Size 0: no window there.
 */
static struct region piece(const struct vm *vm, gpa_t gpa, gpa_t end)
{
	const struct region *w = region_find(&vm->windows, gpa);
	const struct region *r = region_find(&vm->map, gpa);
	struct region part = {0};

	if (!w || !r || !w->cpu || gpa >= end)
		return part;
	part = *r;
	part.gpa = gpa;
	part.hpa += gpa - r->gpa;
	part.size = MIN(end, MIN(end_of(w), end_of(r))) - gpa;
	part.cpu = w->cpu;
	return part;
}

static bool is_closed(const struct vm *vm, gpa_t gpa)
{
	return !region_find(&vm->map, gpa)->cpu;
}

static bool joins(const struct region *a, const struct region *b)
{
	return a && b && end_of(a) == b->gpa && a->hpa + a->size == b->hpa &&
	       a->kind == b->kind && a->memtype == b->memtype &&
	       a->e820 == b->e820 && a->cpu == b->cpu && a->dma == b->dma &&
	       a->name == b->name;
}

/*
 * Replaces a part of a window's row; rows that are alike again become one,
 * but no two windows do, so that closing all of one splits no row.
 */
static void set_row(struct vm *vm, struct region part)
{
	struct region_list *list = &vm->map;
	const struct region *w = region_find(&vm->windows, part.gpa);
	const struct region *left = region_find(list, part.gpa - 1);
	const struct region *right = region_find(list, end_of(&part));

	if (end_of(&part) < end_of(w) && joins(&part, right))
		part.size += right->size;
	if (part.gpa > w->gpa && joins(left, &part)) {
		part.gpa = left->gpa;
		part.hpa = left->hpa;
		part.size += left->size;
	}
	region_remove(list, part.gpa, part.size);
	region_add(list, &part, NULL);
}

/* The rows that the map may get more; or an error. */
static int check(const struct vm *vm, const struct window_run *run)
{
	gpa_t at = run->gpa, end = at + run->pages * PAGE_SIZE;
	int rows = 0;

	if (at & PAGE_MASK || at >= ADDRESS_LIMIT || !run->pages ||
	    run->pages > ADDRESS_LIMIT / PAGE_SIZE)
		return -EINVAL;
	while (at < end) {
		struct region part = piece(vm, at, end);

		if (!part.size)
			return -EINVAL;
		rows += is_closed(vm, at) ? 2 : 0;
		at += part.size;
	}
	return rows;
}

enum pass { MAP, UNMAP, RECORD };

static int pass(struct vm *vm, const struct window_run *run, enum pass what)
{
	gpa_t end = run->gpa + run->pages * PAGE_SIZE;
	struct region part = piece(vm, run->gpa, end);
	int err = 0;

	for (; !err && part.size; part = piece(vm, end_of(&part), end)) {
		if (!is_closed(vm, part.gpa))
			continue;
		if (what == MAP)
			err = ept_map(vm->ept, &part);
		else if (what == UNMAP)
			ept_unmap(vm->ept, part.gpa, part.size);
		else
			set_row(vm, part);
	}
	return err;
}

int windows_open(struct vm *vm, const struct window_run *runs, unsigned count)
{
	unsigned rows = vm->map.count;
	int err = 0;

	for (unsigned i = 0; i < count; i++) {
		int more = check(vm, &runs[i]);

		if (more < 0)
			return more;
		rows += (unsigned)more;
	}
	if (rows > REGION_MAX)
		return -ENOSPC;
	vm_change_begin(vm);
	for (unsigned i = 0; !err && i < count; i++)
		err = pass(vm, &runs[i], MAP);
	/* The map's rows say still what was closed before. */
	for (unsigned i = 0; i < count; i++)
		pass(vm, &runs[i], err ? UNMAP : RECORD);
	vm_change_end(vm);
	return err;
}

void windows_close(struct vm *vm)
{
	for (unsigned i = 0; i < vm->windows.count; i++) {
		struct region r = vm->windows.regions[i];

		r.cpu = 0;
		region_remove(&vm->map, r.gpa, r.size);
		region_add(&vm->map, &r, NULL);
		ept_unmap(vm->ept, r.gpa, r.size);
	}
}
