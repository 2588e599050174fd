/* SPDX-License-Identifier: MIT */
/*
 * Writes ACPI Machine Language (ACPI 6.4, 20.2) and resource descriptors
 * (6.4) into a buffer. Running out of room sets overflow and is noticed once,
 * at the end. Names are four characters, padded with underscores.
 */
#ifndef VMM_LOAD_AML_H
#define VMM_LOAD_AML_H

#include "arch/x86/types.h"

struct aml {
	u8 *buf;
	u32 size, length; /* bytes */
	bool overflow;
};

/*
 * An object with a length in front of its content: what aml_end() gets to
 * close it.
 */
typedef u32 aml_mark;

void aml_byte(struct aml *a, u8 value);
void aml_bytes(struct aml *a, const void *data, u32 size);
void aml_integer(struct aml *a, u64 value);
void aml_string(struct aml *a, const char *s);
/* NameOp: the object that is written next gets this name. */
void aml_name(struct aml *a, const char *name);
/* EISA ID as an integer: "PNP0A03". */
void aml_eisa_id(struct aml *a, const char *id);

aml_mark aml_scope(struct aml *a, const char *root_name); /* "\\_SB_" */
aml_mark aml_device(struct aml *a, const char *name);
aml_mark aml_package(struct aml *a, u8 elements);
void aml_end(struct aml *a, aml_mark mark);

/* A buffer of resource descriptors; aml_resources_end() adds the end tag. */
aml_mark aml_resources(struct aml *a);
void aml_resources_end(struct aml *a, aml_mark mark);

enum aml_space { AML_MEMORY = 0, AML_IO = 1, AML_BUS = 2 };

/* 6.4.3.4: a fixed range of memory that the device itself takes. */
void aml_memory32(struct aml *a, u32 base, u32 size);
/* 6.4.2.5, 6.4.2.1: fixed ports and an edge-triggered ISA interrupt. */
void aml_io(struct aml *a, u16 port, u8 count);
void aml_irq(struct aml *a, unsigned line);
/*
 * 6.4.3.5: a range that a bridge passes on, in the descriptor whose fields
 * are width bytes (2, 4 or 8) wide.
 */
void aml_window(struct aml *a, unsigned width, enum aml_space space, u64 base,
		u64 size);

#endif
