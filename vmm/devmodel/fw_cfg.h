/* SPDX-License-Identifier: MIT */
/*
 * QEMU's fw_cfg (docs/specs/fw_cfg.rst there), by ports and without DMA: what
 * firmware in the guest reads of its machine. And port 0x402, by which it says
 * what it does: lines of Monocle's log.
 */
#ifndef VMM_DEVMODEL_FW_CFG_H
#define VMM_DEVMODEL_FW_CFG_H

#include "vmm/core/bus.h"

#define FW_CFG_PORT 0x510 /* the selector, 16 bits; then the data, bytes */
#define FW_CFG_DEBUG_PORT 0x402
#define FW_CFG_FILES 16
#define FW_CFG_NAME 56 /* with the 0 */

struct fw_cfg_file {
	const void *data;
	u32 size; /* bytes */
	/* Called each time before the file is read, or NULL. */
	void (*fill)(void *ctx);
	void *ctx;
};

/* In the directory; big endian. */
struct fw_cfg_entry {
	u32 size;
	u16 key, reserved;
	char name[FW_CFG_NAME];
} PACKED;

struct fw_cfg {
	u16 vcpus; /* at first 1; its owner's to change */
	u16 key;
	u32 at; /* of the item at key */
	unsigned count;
	struct fw_cfg_file files[FW_CFG_FILES];
	struct {
		u32 count; /* big endian */
		struct fw_cfg_entry entries[FW_CFG_FILES];
	} PACKED directory;
	char line[120];
	unsigned length;
};

/* Without files yet. bus_register()'s errors. */
int fw_cfg_init(struct fw_cfg *f, struct bus *bus);
/* Of a file's name, which ends at a blank or a 0. */
size_t fw_cfg_name_length(const char *name);
/*
 * The data stay the caller's. -ENOSPC: there are FW_CFG_FILES already; -EINVAL:
 * the name has FW_CFG_NAME bytes or more.
 */
int fw_cfg_add(struct fw_cfg *f, const char *name, struct fw_cfg_file file);
void fw_cfg_reset(struct fw_cfg *f);

#endif
