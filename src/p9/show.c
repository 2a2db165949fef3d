/* SPDX-License-Identifier: BSD-2-Clause */
/* show.c - names, modes, users, sizes and dates as text.
 *
 * A name comes from a server and may hold any byte but '/' and NUL. On a terminal, control bytes and what is not valid
 * in the locale's encoding are written as \ooo, so that no name can move the cursor or change the title; elsewhere names
 * are written as they are, for scripts.
 */
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <wchar.h>
#include <wctype.h>
#include "p9/p9.h"

/* One printable character at s: its bytes and columns. 0 when it is none. */
static size_t printable(const char *s, size_t left, mbstate_t *state, int *columns)
{
	wchar_t wc;
	size_t n = mbrtowc(&wc, s, left, state);
	if (n == 0 || n == (size_t)-1 || n == (size_t)-2 || !iswprint((wint_t)wc)) {
		memset(state, 0, sizeof(*state));
		return 0;
	}
	*columns = wcwidth(wc) < 0 ? 0 : wcwidth(wc);
	return n;
}

int p9_show_name(FILE *f, const char *name, bool tty)
{
	size_t left = strlen(name);
	mbstate_t state = { 0 };
	int columns = 0;
	if (!tty) {
		if (f) {
			fwrite(name, 1, left, f);
		}
		return (int)left;
	}
	while (left > 0) {
		int width = 4;
		size_t n = printable(name, left, &state, &width);
		if (f && n > 0) {
			fwrite(name, 1, n, f);
		} else if (f) {
			fprintf(f, "\\%03o", (unsigned char)*name);
		}
		n = n ? n : 1;
		columns += width;
		name += n;
		left -= n;
	}
	return columns;
}

static char type_letter(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return 'd';
	case S_IFLNK:
		return 'l';
	case S_IFCHR:
		return 'c';
	case S_IFBLK:
		return 'b';
	case S_IFIFO:
		return 'p';
	case S_IFSOCK:
		return 's';
	default:
		return S_ISREG(mode) ? '-' : '?';
	}
}

void p9_show_mode(char *buf, uint32_t mode)
{
	static const char letters[] = "rwxrwxrwx";
	buf[0] = type_letter(mode);
	for (unsigned i = 0; i < 9; i++) {
		buf[1 + i] = mode & (0400u >> i) ? letters[i] : '-';
	}
	if (mode & S_ISUID) {
		buf[3] = mode & S_IXUSR ? 's' : 'S';
	}
	if (mode & S_ISGID) {
		buf[6] = mode & S_IXGRP ? 's' : 'S';
	}
	if (mode & S_ISVTX) {
		buf[9] = mode & S_IXOTH ? 't' : 'T';
	}
	buf[10] = 0;
}

struct known {
	uint32_t id;
	bool valid;
	char name[36];
};

/* A handful of the last look-ups is enough: a directory has few owners. */
static const char *known_name(struct known table[16], uint32_t id, bool group)
{
	struct known *k = &table[id % 16];
	if (!k->valid || k->id != id) {
		const struct passwd *pw = group ? NULL : getpwuid(id);
		const struct group *gr = group ? getgrgid(id) : NULL;
		const char *name = pw ? pw->pw_name : gr ? gr->gr_name : NULL;
		k->id = id;
		k->valid = true;
		if (name) {
			snprintf(k->name, sizeof(k->name), "%s", name);
		} else {
			snprintf(k->name, sizeof(k->name), "%u", id);
		}
	}
	return k->name;
}

const char *p9_show_user(uint32_t uid)
{
	static struct known table[16];
	return known_name(table, uid, false);
}

const char *p9_show_group(uint32_t gid)
{
	static struct known table[16];
	return known_name(table, gid, true);
}

void p9_show_size(char *buf, uint64_t n)
{
	static const char units[] = "KMGTPE";
	if (n < 1024) {
		snprintf(buf, 16, "%u", (unsigned)n);
		return;
	}
	unsigned u = 0;
	double v = (double)n / 1024;
	while (v >= 1023.5 && u < 5) {
		v /= 1024;
		u++;
	}
	snprintf(buf, 16, v < 9.95 ? "%.1f%c" : "%.0f%c", v, units[u]);
}

void p9_show_date(char *buf, uint64_t sec, time_t now)
{
	time_t t = (time_t)sec;
	struct tm tm;
	bool recent = t <= now && now - t < 15778476; /* half a year, as ls has it */
	if (!localtime_r(&t, &tm) || strftime(buf, 32, recent ? "%b %e %H:%M" : "%b %e  %Y", &tm) == 0) {
		snprintf(buf, 32, "%llu", (unsigned long long)sec);
	}
}
