/* SPDX-License-Identifier: MIT */
#include "kernel/log.h"

#include "kernel/log_sink.h"
#include "kernel/string.h"

struct output {
	char *buf;
	size_t size;
	size_t length;
};

static void put(struct output *out, char c)
{
	if (out->length + 1 < out->size)
		out->buf[out->length] = c;
	out->length++;
}

static void pad(struct output *out, char c, int n)
{
	while (n-- > 0)
		put(out, c);
}

struct spec {
	bool left, zero, alternate;
	int width;
	int precision; /* -1: none */
	int size;      /* 0 int, 1 long and longer */
};

static void put_text(struct output *out, const struct spec *s, const char *text)
{
	int n = 0;

	while ((s->precision < 0 || n < s->precision) && text[n])
		n++;
	if (!s->left)
		pad(out, ' ', s->width - n);
	for (int i = 0; i < n; i++)
		put(out, text[i]);
	if (s->left)
		pad(out, ' ', s->width - n);
}

static void put_number(struct output *out, const struct spec *s, u64 value,
		       unsigned base, const char *sign)
{
	char digits[24];
	int n = 0, length;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	length = n + (int)strlen(sign);
	if (!s->left && !s->zero)
		pad(out, ' ', s->width - length);
	while (*sign)
		put(out, *sign++);
	if (!s->left && s->zero)
		pad(out, '0', s->width - length);
	while (n)
		put(out, digits[--n]);
	if (s->left)
		pad(out, ' ', s->width - length);
}

static const char *parse_number(const char *p, int *value, va_list ap)
{
	if (*p == '*') {
		*value = va_arg(ap, int);
		return p + 1;
	}
	for (*value = 0; *p >= '0' && *p <= '9'; p++)
		*value = *value * 10 + (*p - '0');
	return p;
}

static const char *parse_flags(const char *p, struct spec *s)
{
	for (;; p++) {
		if (*p == '-')
			s->left = true;
		else if (*p == '0')
			s->zero = true;
		else if (*p == '#')
			s->alternate = true;
		else
			return p;
	}
}

static void put_signed(struct output *out, const struct spec *s, s64 value)
{
	if (value < 0)
		put_number(out, s, -(u64)value, 10, "-");
	else
		put_number(out, s, (u64)value, 10, "");
}

/* One conversion, p behind its '%'; returns its last character. */
static const char *put_conversion(struct output *out, const char *p, va_list ap)
{
	struct spec s = {.precision = -1};

	p = parse_flags(p, &s);
	p = parse_number(p, &s.width, ap);
	if (*p == '.')
		p = parse_number(p + 1, &s.precision, ap);
	for (; *p == 'l' || *p == 'z'; p++)
		s.size = 1;
	switch (*p) {
	case 'c':
		put(out, (char)va_arg(ap, int));
		break;
	case 's':
		put_text(out, &s, va_arg(ap, const char *));
		break;
	case 'd':
	case 'i':
		put_signed(out, &s, s.size ? va_arg(ap, s64) : va_arg(ap, int));
		break;
	case 'p':
		put_number(out, &s, (u64)va_arg(ap, void *), 16, "0x");
		break;
	case 'u':
	case 'x':
		put_number(out, &s,
			   s.size ? va_arg(ap, u64) : va_arg(ap, unsigned),
			   *p == 'x' ? 16 : 10, s.alternate ? "0x" : "");
		break;
	case '\0':
		return p - 1;
	default:
		put(out, *p);
	}
	return p;
}

int vformat(char *buf, size_t size, const char *fmt, va_list args)
{
	struct output out = {buf, size, 0};
	va_list ap;

	/* A copy, which the functions below advance: it is an array here. */
	va_copy(ap, args);
	for (const char *p = fmt; *p; p++) {
		if (*p == '%')
			p = put_conversion(&out, p + 1, ap);
		else
			put(&out, *p);
	}
	va_end(ap);
	if (size)
		buf[MIN(out.length, size - 1)] = '\0';
	return (int)out.length;
}

int format(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vformat(buf, size, fmt, ap);
	va_end(ap);
	return n;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vwrite(level, fmt, ap);
	va_end(ap);
}

void log_vwrite(enum log_level level, const char *fmt, va_list ap)
{
	static const char prefix[] = "monocle: ";
	static const char *const names[] = {"", "error: ", "warning: ", "", ""};
	char line[LOG_LINE];
	size_t n = sizeof(prefix) - 1;

	memcpy(line, prefix, n);
	n += (size_t)format(line + n, sizeof(line) - n, "%s", names[level]);
	n += (size_t)vformat(line + n, sizeof(line) - n - 1, fmt, ap);
	n = MIN(n, sizeof(line) - 2);
	line[n++] = '\n';
	log_emit(level, line, n);
}
