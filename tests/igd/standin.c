/* SPDX-License-Identifier: MIT */
/*
 * Plays Intel graphics for QEMU's x-pci-proxy-dev (hw/remote/ there): a PCI
 * function whose configuration space and BARs this process answers.
 *
 *	standin CONFIG LOG FD COMMAND...  runs COMMAND with FD open for
 *					  "-device x-pci-proxy-dev,fd=FD"
 *	standin CONFIG LOG FD             serves FD itself
 *
 * It ends when the other side does. CONFIG: see config.py. LOG has a line for
 * each access that reached it, numbers hexadecimal:
 *
 *	cr|cw OFFSET BYTES VALUE	configuration space, read or written
 *	mr|mw OFFSET BYTES VALUE	behind BAR 0, its lower half
 *	ir|iw OFFSET BYTES VALUE	I/O BAR
 *	gw FIRST COUNT OFFSETS FLAGS VALUES	writes to the page table in BAR
 *			0's upper half with nothing between: hashes of their
 *			offsets, of bits 11:0 of the values, of the values
 *	reset, flr			QEMU resets the machine; the guest the
 *					function
 *	hot OFFSET COUNT		a register read too often for lines
 *	cut				no more lines from here on
 *	total KIND COUNT ...		all accesses, with those of no line
 *	end				the last line
 *
 * "x N" behind a line: N times in a row. Behind BAR 2 accesses are counted.
 */
#define _GNU_SOURCE
#include "tests/igd/registers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	CONFIG_SIZE = 4096,
	BARS = 6,
	MOVES = 4,	  /* and "shown" statements */
	INITIAL = 256,	  /* "mmio" statements */
	LINES = 400000,	  /* of the log */
	READ_LINES = 256, /* of one register */
	PAYLOAD = 256,	  /* QEMU's longest has 192 bytes */
	DESCRIPTORS = 16,
	BAR_MOST = 512 << 20,
};

/* hw/remote/mpqemu-link.h */
enum command {
	SYSTEM_MEMORY,
	ANSWER,
	CONFIG_WRITE,
	CONFIG_READ,
	BAR_WRITE,
	BAR_READ,
	IRQFD,
	RESET,
	COMMANDS,
};

struct header {
	int32_t command;
	uint32_t padding;
	uint64_t size;
};

struct config_message {
	uint32_t address, value;
	int32_t size;
};

struct bar_message {
	uint64_t address, value;
	uint32_t size;
	uint8_t memory, padding[3];
};

_Static_assert(sizeof(struct header) == 16, "QEMU's header");
_Static_assert(sizeof(struct config_message) == 12, "QEMU's configuration");
_Static_assert(sizeof(struct bar_message) == 24, "QEMU's BAR access");

static const struct {
	uint64_t size;
	bool answered;
} messages[COMMANDS] = {
	[SYSTEM_MEMORY] = {192, false},
	[CONFIG_WRITE] = {sizeof(struct config_message), true},
	[CONFIG_READ] = {sizeof(struct config_message), true},
	[BAR_WRITE] = {sizeof(struct bar_message), true},
	[BAR_READ] = {sizeof(struct bar_message), true},
	[IRQFD] = {0, false},
	[RESET] = {0, true},
};

struct bar {
	bool io, wide;
	uint64_t size;
	uint8_t *memory;
};

struct initial {
	uint32_t offset, value;
	bool keep, dead;
};

static struct {
	uint8_t config[CONFIG_SIZE], writable[CONFIG_SIZE];
	uint8_t power_on[CONFIG_SIZE];
	struct bar bars[BARS];
	struct initial initial[INITIAL];
	struct pair {
		uint32_t from, to;
	} moves[MOVES], shown[MOVES];
	unsigned initials, move_count, shown_count;
	uint32_t flr; /* offset of the capability that starts it; 0: none */
	long flr_ms;  /* < 0: never over */
	bool after_flr, ran;
	struct timespec flr_end;
} igd = {.flr_ms = 1};

static struct {
	FILE *file;
	char line[96];
	uint64_t times, lines;
	uint32_t *reads;       /* of each dword behind BAR 0 */
	uint64_t total[256];   /* by kind's letters, see count() */
	uint64_t first, burst; /* of the page table's writes */
	uint64_t offsets, flags, values;
} out;

static const char kinds[] = "cmiga";

static _Noreturn void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("standin: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

/* --- log --- */

static void end_line(void)
{
	if (!out.times)
		return;
	if (out.lines < LINES) {
		fputs(out.line, out.file);
		if (out.times > 1)
			fprintf(out.file, " x %" PRIx64, out.times);
		fputc('\n', out.file);
	} else if (out.lines == LINES) {
		fputs("cut\n", out.file);
	}
	out.lines++;
	out.times = 0;
}

static void add_line(const char *line)
{
	if (out.times && !strcmp(line, out.line)) {
		out.times++;
		return;
	}
	end_line();
	snprintf(out.line, sizeof(out.line), "%s", line);
	out.times = 1;
}

static void end_burst(void)
{
	char line[96];

	if (!out.burst)
		return;
	snprintf(line, sizeof(line),
		 "gw %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64 " %" PRIx64,
		 out.first, out.burst, out.offsets, out.flags, out.values);
	out.burst = 0;
	add_line(line);
}

/* A polynomial modulo 2^64: two bursts' hashes can be put together. */
static uint64_t hash(uint64_t before, uint64_t word)
{
	return before * 0x100000001b3 + word;
}

static void log_table_write(uint64_t offset, uint64_t value)
{
	if (!out.burst++) {
		out.first = offset;
		out.offsets = out.flags = out.values = 0;
	}
	out.offsets = hash(out.offsets, offset);
	/* The page's address is where this run's memory lies. */
	out.flags = hash(out.flags, offset & 4 ? 0 : value & 0xfff);
	out.values = hash(out.values, value);
}

static void log_access(char kind, bool write, uint64_t offset, unsigned size,
		       uint64_t value)
{
	char line[96];

	out.total[(unsigned char)kind + (write ? 0 : 128)]++;
	if (kind == 'g' && write)
		log_table_write(offset, value);
	if (kind == 'g' || kind == 'a')
		return;
	if (kind == 'm' && !write && ++out.reads[offset / 4] > READ_LINES)
		return;
	snprintf(line, sizeof(line), "%c%c %" PRIx64 " %x %" PRIx64, kind,
		 write ? 'w' : 'r', offset, size, value);
	end_burst();
	add_line(line);
}

static void log_end(void)
{
	end_burst();
	end_line();
	for (uint64_t i = 0; i < igd.bars[0].size / 4; i++)
		if (out.reads[i] > READ_LINES)
			fprintf(out.file, "hot %" PRIx64 " %x\n", i * 4,
				out.reads[i]);
	fputs("total", out.file);
	for (const char *kind = kinds; *kind; kind++)
		fprintf(out.file, " %cr %" PRIx64 " %cw %" PRIx64, *kind,
			out.total[(unsigned char)*kind + 128], *kind,
			out.total[(unsigned char)*kind]);
	fputs("\nend\n", out.file);
	if (fclose(out.file))
		die("the log cannot be written");
}

/* --- registers behind BAR 0 --- */

static uint64_t get(const uint8_t *from, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, from, size);
	return value;
}

static uint32_t *dword(uint64_t offset)
{
	return (uint32_t *)(igd.bars[0].memory + (offset & ~3ull));
}

static const struct initial *initial(uint64_t offset)
{
	const struct initial *found = NULL;

	for (unsigned i = 0; i < igd.initials; i++)
		if (igd.initial[i].offset == offset)
			found = &igd.initial[i];
	return found;
}

static const struct reg *rule(uint64_t offset)
{
	for (const struct reg *r = registers; r->count; r++)
		if (offset >= r->offset &&
		    offset < r->offset + r->count * r->stride &&
		    (offset - r->offset) % r->stride == 0)
			return r;
	return NULL;
}

static void write_dword(uint64_t offset, uint32_t value)
{
	const struct initial *first = initial(offset);
	const struct reg *r = rule(offset);
	uint32_t *at = dword(offset), high = value >> 16;

	if (first && (first->keep || (first->dead && igd.after_flr)))
		return;
	if (!r || r->kind == PLAIN) {
		*at = value;
		return;
	}
	switch (r->kind) {
	case MASKED:
		*at = (*at & ~high) | (value & high);
		break;
	case CLEARS:
		*at = value & ~r->mask;
		break;
	case WRITE_1_CLEARS:
		*at &= ~value;
		break;
	case FOLLOWS:
		*at = (value & ~(r->mask >> r->shift)) |
		      (value & r->mask) >> r->shift;
		break;
	case ANSWERS:
		*at = value & r->mask ? (value & ~r->mask) | r->value : value;
		break;
	default: /* FIXED, COUNTS */
		return;
	}
	if (r->kind == MASKED && r->mask)
		*at = (*at & ~(r->mask << r->shift)) | (*at & r->mask)
							       << r->shift;
	if (r->mirror && r->mirror < igd.bars[0].size)
		*dword(r->mirror) = *at;
}

static void show_config(void)
{
	for (unsigned i = 0; i < igd.shown_count; i++)
		memcpy(dword(igd.shown[i].to), igd.config + igd.shown[i].from,
		       4);
}

static uint64_t read_register(uint64_t offset, unsigned size)
{
	const struct reg *r = rule(offset & ~3ull);
	uint32_t *at = dword(offset);

	if (r && r->kind == COUNTS)
		*at = (*at & ~r->mask) | ((*at + 1) & r->mask);
	return get(igd.bars[0].memory + offset, size);
}

/* As after power-on, or after a reset of the function. */
static void set_registers(bool flr)
{
	uint64_t registers_size = igd.bars[0].size / 2;

	if (!igd.bars[0].memory)
		return;
	memset(igd.bars[0].memory, 0, registers_size);
	for (const struct reg *r = registers; r->count; r++)
		for (uint32_t i = 0; i < r->count; i++)
			if (r->kind == FIXED &&
			    r->offset + i * r->stride < registers_size)
				*dword(r->offset + i * r->stride) = r->value;
	for (unsigned i = 0; i < igd.initials; i++)
		if (!flr || igd.initial[i].keep)
			*dword(igd.initial[i].offset) = igd.initial[i].value;
	show_config();
}

/* --- configuration space --- */

/* The function does not answer: a reset is under way. */
static bool away(void)
{
	struct timespec now;

	if (!igd.after_flr || !igd.flr_ms)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return igd.flr_ms < 0 || now.tv_sec < igd.flr_end.tv_sec ||
	       (now.tv_sec == igd.flr_end.tv_sec &&
		now.tv_nsec < igd.flr_end.tv_nsec);
}

/* Locked or sticky: stolen memory's base, ASLS. */
static bool survives_flr(unsigned at)
{
	return (at & ~3u) == 0x5c || (at & ~7u) == 0xc0 || at >= 0xfc;
}

static void flr(void)
{
	add_line("flr");
	for (unsigned i = 0; i < CONFIG_SIZE; i++)
		if (!survives_flr(i))
			igd.config[i] = igd.power_on[i];
	set_registers(true);
	igd.after_flr = true;
	clock_gettime(CLOCK_MONOTONIC, &igd.flr_end);
	igd.flr_end.tv_nsec += igd.flr_ms * 1000000 % 1000000000;
	igd.flr_end.tv_sec +=
		igd.flr_ms / 1000 + igd.flr_end.tv_nsec / 1000000000;
	igd.flr_end.tv_nsec %= 1000000000;
}

static uint64_t config_read(uint32_t at, unsigned size)
{
	uint64_t value =
		away() ? ~0ull >> (64 - 8 * size) : get(igd.config + at, size);

	/* QEMU takes the upper half of a BAR's mask for a BAR of its own:
	 * while it looks, before the first reset, there is none. */
	for (unsigned i = 1; !igd.ran && i < BARS; i++)
		if (at == 0x10 + 4 * i && igd.bars[i - 1].wide)
			value = 0;
	log_access('c', false, at, size, value);
	return value;
}

/* PCIe 7.5.3.4, Conventional PCI ECN "Advanced Capabilities" 3. */
static bool starts_flr(uint32_t at, unsigned size, uint64_t value)
{
	unsigned bit = igd.flr && igd.config[igd.flr] == 0x10 ? 15 : 0;
	uint32_t control = igd.flr + (bit ? 8 : 4) + bit / 8;

	return igd.flr && control >= at && control < at + size &&
	       value >> (8 * (control - at) + bit % 8) & 1;
}

static void config_write(uint32_t at, unsigned size, uint64_t value)
{
	uint32_t to = at;

	log_access('c', true, at, size, value);
	if (away())
		return;
	for (unsigned i = 0; i < igd.move_count; i++)
		if (at == igd.moves[i].from)
			to = igd.moves[i].to;
	for (unsigned i = 0; i < size; i++) {
		uint8_t mask = igd.writable[to + i];

		igd.config[to + i] = (uint8_t)((igd.config[to + i] & ~mask) |
					       (value >> 8 * i & mask));
	}
	show_config();
	if (starts_flr(at, size, value))
		flr();
}

/* --- BARs --- */

static uint64_t bar_base(unsigned n)
{
	const struct bar *b = &igd.bars[n];
	uint64_t low = get(igd.config + 0x10 + 4 * n, b->wide ? 8 : 4);

	return low & ~(b->io ? 3ull : 15ull);
}

/* What happens at an offset behind a BAR; `value` is read or written. */
static void bar_access(unsigned n, bool write, uint64_t offset, unsigned size,
		       uint64_t *value)
{
	const struct bar *b = &igd.bars[n];
	char kind = n ? (b->io ? 'i' : 'a') : offset < b->size / 2 ? 'm' : 'g';

	if (!write)
		*value = kind == 'm' ? read_register(offset, size)
				     : get(b->memory + offset, size);
	log_access(kind, write, offset, size, *value);
	if (!write)
		return;
	if (kind != 'm' || size < 4) {
		memcpy(b->memory + offset, value, size);
		return;
	}
	for (unsigned i = 0; i < size; i += 4)
		write_dword(offset + i, (uint32_t)(*value >> 8 * i));
}

static uint64_t bar_message(const struct bar_message *m, bool write)
{
	uint64_t value = write ? m->value : ~0ull;

	if (m->size != 1 && m->size != 2 && m->size != 4 && m->size != 8)
		die("a BAR access of %u bytes", m->size);
	if (away())
		return ~0ull;
	for (unsigned n = 0; n < BARS; n++) {
		uint64_t offset = m->address - bar_base(n);

		if (igd.bars[n].size >= m->size &&
		    offset <= igd.bars[n].size - m->size &&
		    offset % m->size == 0 && igd.bars[n].io == !m->memory) {
			bar_access(n, write, offset, m->size, &value);
			return value;
		}
	}
	return ~0ull;
}

/* --- messages --- */

/* False at the end of the stream. */
static bool receive(int fd, void *to, size_t size)
{
	char *at = to;

	while (size) {
		union {
			char bytes[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
			struct cmsghdr align;
		} control;
		struct iovec vector = {at, size};
		struct msghdr message = {.msg_iov = &vector,
					 .msg_iovlen = 1,
					 .msg_control = &control,
					 .msg_controllen = sizeof(control)};
		ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
		struct cmsghdr *c = got >= 0 ? CMSG_FIRSTHDR(&message) : NULL;

		/* Memory and interrupts of the machine are not used. */
		for (; c; c = CMSG_NXTHDR(&message, c))
			for (size_t i = 0;
			     c->cmsg_type == SCM_RIGHTS &&
			     CMSG_LEN(sizeof(int) * (i + 1)) <= c->cmsg_len;
			     i++)
				close(((int *)CMSG_DATA(c))[i]);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		at += got;
		size -= (size_t)got;
	}
	return true;
}

static uint64_t config_message(const struct config_message *m, bool write)
{
	uint32_t size = (uint32_t)m->size;

	if ((size != 1 && size != 2 && size != 4) ||
	    m->address > CONFIG_SIZE - size || m->address % size)
		die("a configuration access of %d bytes at %#x", m->size,
		    m->address);
	if (!write)
		return config_read(m->address, size);
	config_write(m->address, size, m->value);
	return 0;
}

static uint64_t reset(void)
{
	end_burst();
	add_line("reset");
	igd.after_flr = false;
	igd.ran = true;
	memcpy(igd.config, igd.power_on, CONFIG_SIZE);
	set_registers(false);
	return 0;
}

static uint64_t perform(int command, const void *payload)
{
	switch (command) {
	case CONFIG_WRITE:
	case CONFIG_READ:
		return config_message(payload, command == CONFIG_WRITE);
	case BAR_WRITE:
	case BAR_READ:
		return bar_message(payload, command == BAR_WRITE);
	case RESET:
		return reset();
	default:
		return 0;
	}
}

static void serve(int fd)
{
	struct header h;
	uint64_t payload[PAYLOAD / 8];

	while (receive(fd, &h, sizeof(h))) {
		struct {
			struct header header;
			uint64_t value;
		} answer = {{ANSWER, 0, 8}, 0};

		if (h.command < 0 || h.command >= COMMANDS ||
		    h.command == ANSWER || h.size != messages[h.command].size)
			die("no message: command %d, %" PRIu64 " bytes",
			    h.command, h.size);
		if (!receive(fd, payload, h.size))
			die("half a message");
		answer.value = perform(h.command, payload);
		if (messages[h.command].answered &&
		    send(fd, &answer, sizeof(answer), MSG_NOSIGNAL) !=
			    sizeof(answer))
			break;
	}
}

/* --- the file --- */

static unsigned long number(const char *word, int base, unsigned long most)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = word ? strtoul(word, &end, base) : 0;
	if (!word || *end || end == word || errno || value > most)
		die("%s: not a number, or too large", word ? word : "(none)");
	return value;
}

static void take_register(char **words)
{
	unsigned size = (unsigned)number(words[2], 16, 4);
	unsigned at = (unsigned)number(words[1], 16, CONFIG_SIZE - size);
	uint32_t value = (uint32_t)number(words[3], 16, UINT32_MAX);
	uint32_t mask =
		words[4] ? (uint32_t)number(words[4], 16, UINT32_MAX) : 0;

	memcpy(igd.power_on + at, &value, size);
	memcpy(igd.writable + at, &mask, size);
}

static void take_bar(char **words)
{
	unsigned n = (unsigned)number(words[1], 16, BARS - 1);
	struct bar *b = &igd.bars[n];
	uint32_t kind = 0, mask;
	const char *name = words[2] ? words[2] : "";

	b->io = !strcmp(name, "io");
	b->wide = !strncmp(name, "mem64", 5);
	if ((!b->io && strncmp(name, "mem", 3)) || (b->wide && n == BARS - 1))
		die("bar %u: no such kind: %s", n, name);
	b->size = number(words[3], 16, BAR_MOST);
	if (b->size < 4 || b->size & (b->size - 1))
		die("bar %u: no such size", n);
	kind = b->io ? 1 : (b->wide ? 4 : 0) | (strstr(name, "fetch") ? 8 : 0);
	mask = (uint32_t)-b->size;
	memcpy(igd.power_on + 0x10 + 4 * n, &kind, 4);
	memcpy(igd.writable + 0x10 + 4 * n, &mask, 4);
	if (b->wide)
		memset(igd.writable + 0x14 + 4 * n, 0xff, 4);
	b->memory = mmap(NULL, b->size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (b->memory == MAP_FAILED)
		die("bar %u: no memory", n);
}

static void take_initial(char **words)
{
	struct initial *i = &igd.initial[igd.initials];
	const char *how = words[2] && words[3] ? words[3] : "";

	if (igd.initials == INITIAL)
		die("more than %d registers", INITIAL);
	if (igd.bars[0].size < 8)
		die("mmio before bar 0");
	i->offset = (uint32_t)number(words[1], 16, igd.bars[0].size / 2 - 4);
	i->value = (uint32_t)number(words[2], 16, UINT32_MAX);
	i->keep = !strcmp(how, "keep");
	i->dead = !strcmp(how, "dead");
	igd.initials++;
}

static void take_pair(char **words, struct pair *pairs, unsigned *count,
		      unsigned long most)
{
	if (*count == MOVES)
		die("more than %d of %s", MOVES, words[0]);
	pairs[*count].from = (uint32_t)number(words[1], 16, CONFIG_SIZE - 4);
	pairs[(*count)++].to = (uint32_t)number(words[2], 16, most);
}

static void take_other(char **words)
{
	if (!strcmp(words[0], "flr")) {
		igd.flr = (uint32_t)number(words[1], 16, 0xf0);
		if (words[2])
			igd.flr_ms = strcmp(words[2], "never")
					     ? (long)number(words[2], 10, 60000)
					     : -1;
	} else if (!strcmp(words[0], "moved")) {
		take_pair(words, igd.moves, &igd.move_count, CONFIG_SIZE - 4);
	} else if (!strcmp(words[0], "shown")) {
		if (igd.bars[0].size < 8)
			die("shown before bar 0");
		take_pair(words, igd.shown, &igd.shown_count,
			  igd.bars[0].size / 2 - 4);
	} else if (strcmp(words[0], "expect") && strcmp(words[0], "host") &&
		   strcmp(words[0], "pch")) {
		die("no statement: %s", words[0]);
	}
}

static void read_config(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[256];

	if (!file)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		char *words[8] = {NULL}, *rest = line;

		line[strcspn(line, "#")] = '\0';
		for (int i = 0; i < 7; i++)
			words[i] = strtok_r(i ? NULL : line, " \t\n", &rest);
		if (!words[0])
			continue;
		if (!strcmp(words[0], "igd"))
			take_register(words);
		else if (!strcmp(words[0], "bar"))
			take_bar(words);
		else if (!strcmp(words[0], "mmio"))
			take_initial(words);
		else
			take_other(words);
	}
	fclose(file);
}

/* This process becomes COMMAND, a child of it the device. */
static void start_command(int fd, char **command)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		die("no sockets: %s", strerror(errno));
	switch (fork()) {
	case -1:
		die("no process: %s", strerror(errno));
	case 0:
		close(ends[1]);
		if (ends[0] != fd && dup2(ends[0], fd) < 0)
			die("descriptor %d: %s", fd, strerror(errno));
		return;
	default:
		close(ends[0]);
		if (ends[1] != fd && dup2(ends[1], fd) < 0)
			die("descriptor %d: %s", fd, strerror(errno));
		if (ends[1] != fd)
			close(ends[1]);
		execvp(command[0], command);
		die("%s: %s", command[0], strerror(errno));
	}
}

int main(int argc, char **argv)
{
	int fd;

	if (argc < 4)
		die("CONFIG LOG FD [COMMAND...]");
	fd = (int)number(argv[3], 10, 1000);
	read_config(argv[1]);
	out.file = fopen(argv[2], "we");
	out.reads = calloc(igd.bars[0].size / 4 + 1, sizeof(*out.reads));
	if (!out.file || !out.reads)
		die("%s: %s", argv[2], strerror(errno));
	memcpy(igd.config, igd.power_on, CONFIG_SIZE);
	set_registers(false);
	if (argc > 4)
		start_command(fd, argv + 4);
	serve(fd);
	log_end();
	return 0;
}
