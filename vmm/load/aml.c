/* SPDX-License-Identifier: MIT */
#include "vmm/load/aml.h"

#include "kernel/string.h"

enum {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_NAME = 0x08,
	AML_BYTE_PREFIX = 0x0a,
	AML_WORD_PREFIX = 0x0b,
	AML_DWORD_PREFIX = 0x0c,
	AML_STRING_PREFIX = 0x0d,
	AML_QWORD_PREFIX = 0x0e,
	AML_SCOPE = 0x10,
	AML_BUFFER = 0x11,
	AML_PACKAGE = 0x12,
	AML_EXT_PREFIX = 0x5b,
	AML_DEVICE = 0x82,
};

/*
 * PkgLength in its three-byte form always (20.2.4): it is filled in when the
 * content's length is known.
 */
#define PKG_LENGTH_BYTES 3
#define PKG_LENGTH_MAX 0xfffff
/* A resource buffer's size, as a word constant: prefix and two bytes. */
#define BUFFER_SIZE_BYTES 3

void aml_byte(struct aml *a, u8 value)
{
	if (a->length < a->size)
		a->buf[a->length++] = value;
	else
		a->overflow = true;
}

void aml_bytes(struct aml *a, const void *data, u32 size)
{
	const u8 *p = data;

	for (u32 i = 0; i < size; i++)
		aml_byte(a, p[i]);
}

static void little_endian(struct aml *a, u64 value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		aml_byte(a, (u8)(value >> (8 * i)));
}

void aml_integer(struct aml *a, u64 value)
{
	if (value <= 1) {
		aml_byte(a, value ? AML_ONE : AML_ZERO);
	} else if (value <= 0xff) {
		aml_byte(a, AML_BYTE_PREFIX);
		little_endian(a, value, 1);
	} else if (value <= 0xffff) {
		aml_byte(a, AML_WORD_PREFIX);
		little_endian(a, value, 2);
	} else if (value <= 0xffffffff) {
		aml_byte(a, AML_DWORD_PREFIX);
		little_endian(a, value, 4);
	} else {
		aml_byte(a, AML_QWORD_PREFIX);
		little_endian(a, value, 8);
	}
}

void aml_string(struct aml *a, const char *s)
{
	aml_byte(a, AML_STRING_PREFIX);
	aml_bytes(a, s, (u32)strlen(s) + 1);
}

/* NameSeg, 20.2.2, behind an optional root character. */
static void name_string(struct aml *a, const char *name)
{
	if (*name == '\\')
		aml_byte(a, (u8)*name++);
	for (unsigned i = 0; i < 4; i++)
		aml_byte(a, *name ? (u8)*name++ : '_');
}

void aml_name(struct aml *a, const char *name)
{
	aml_byte(a, AML_NAME);
	name_string(a, name);
}

static u32 hex_digit(char c)
{
	return (u32)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* 19.3.4: three letters of five bits and four digits, big-endian. */
void aml_eisa_id(struct aml *a, const char *id)
{
	u32 value = (u32)(id[0] - '@') << 26 | (u32)(id[1] - '@') << 21 |
		    (u32)(id[2] - '@') << 16;

	for (unsigned i = 0; i < 4; i++)
		value |= hex_digit(id[3 + i]) << (12 - 4 * i);
	aml_integer(a, __builtin_bswap32(value));
}

static aml_mark begin(struct aml *a)
{
	aml_mark mark = a->length;

	little_endian(a, 0, PKG_LENGTH_BYTES);
	return mark;
}

aml_mark aml_scope(struct aml *a, const char *root_name)
{
	aml_mark mark;

	aml_byte(a, AML_SCOPE);
	mark = begin(a);
	name_string(a, root_name);
	return mark;
}

aml_mark aml_device(struct aml *a, const char *name)
{
	aml_mark mark;

	aml_byte(a, AML_EXT_PREFIX);
	aml_byte(a, AML_DEVICE);
	mark = begin(a);
	name_string(a, name);
	return mark;
}

aml_mark aml_package(struct aml *a, u8 elements)
{
	aml_mark mark;

	aml_byte(a, AML_PACKAGE);
	mark = begin(a);
	aml_byte(a, elements);
	return mark;
}

void aml_end(struct aml *a, aml_mark mark)
{
	u32 length = a->length - mark;

	if (a->overflow || length > PKG_LENGTH_MAX) {
		a->overflow = true;
		return;
	}
	a->buf[mark] = (u8)(0x80 | (length & 0xf));
	a->buf[mark + 1] = (u8)(length >> 4);
	a->buf[mark + 2] = (u8)(length >> 12);
}

aml_mark aml_resources(struct aml *a)
{
	aml_mark mark;

	aml_name(a, "_CRS");
	aml_byte(a, AML_BUFFER);
	mark = begin(a);
	little_endian(a, AML_WORD_PREFIX, BUFFER_SIZE_BYTES);
	return mark;
}

void aml_resources_end(struct aml *a, aml_mark mark)
{
	u32 start = mark + PKG_LENGTH_BYTES + BUFFER_SIZE_BYTES;

	/* 6.4.2.9: end tag; a checksum of 0 is taken as right. */
	aml_byte(a, 0x79);
	aml_byte(a, 0);
	if (!a->overflow) {
		a->buf[start - 2] = (u8)(a->length - start);
		a->buf[start - 1] = (u8)((a->length - start) >> 8);
	}
	aml_end(a, mark);
}

void aml_io(struct aml *a, u16 port, u8 count)
{
	aml_byte(a, 0x47); /* small item, type 8, 7 bytes */
	aml_byte(a, 1);	   /* decodes 16 bits */
	little_endian(a, port, 2);
	little_endian(a, port, 2);
	aml_byte(a, 1); /* alignment */
	aml_byte(a, count);
}

void aml_irq(struct aml *a, unsigned line)
{
	aml_byte(a, 0x22); /* small item, type 4, 2 bytes: edge, high */
	little_endian(a, 1u << line, 2);
}

void aml_memory32(struct aml *a, u32 base, u32 size)
{
	aml_byte(a, 0x86);
	little_endian(a, 9, 2);
	aml_byte(a, 1); /* read-write */
	little_endian(a, base, 4);
	little_endian(a, size, 4);
}

void aml_window(struct aml *a, unsigned width, enum aml_space space, u64 base,
		u64 size)
{
	u8 tag = width == 2 ? 0x88 : width == 4 ? 0x87 : 0x8a;
	u64 fields[5] = {0, base, base + size - 1, 0, size};
	u8 specific = space == AML_MEMORY ? 0x01 /* read-write, uncached */
		      : space == AML_IO	  ? 0x03 /* the entire range */
					  : 0x00;

	aml_byte(a, tag);
	little_endian(a, 3 + 5 * width, 2);
	aml_byte(a, (u8)space);
	aml_byte(a, 0x0c); /* minimum and maximum fixed, producer */
	aml_byte(a, specific);
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		little_endian(a, fields[i], width);
}
