/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_touch.c - p9 touch and p9 mkfifo.
 *
 * touch sets times with one Tsetattr: to the server's own clock when no time was given, else to that time, which is
 * read here and in the time zone of here.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "p9/each.h"

/* ---- a time as text ---- */
/* ".5" after the seconds. */
static const char *take_fraction(const char *p, long *nsec)
{
	long unit = 100000000;
	*nsec = 0;
	if (*p != '.' && *p != ',') {
		return p;
	}
	for (p++; *p >= '0' && *p <= '9'; p++) {
		*nsec += (*p - '0') * unit;
		unit /= 10;
	}
	return p;
}

/* "Z", "+02", "+0200", "+02:00" at the end. */
static bool take_zone(const char *p, time_t *sec, struct tm *tm)
{
	int h, m = 0, n = 0;
	int day = tm->tm_mday;
	p += *p == ' ';
	if (*p == 0) {
		tm->tm_isdst = -1;
		*sec = mktime(tm);
		return tm->tm_mday == day;
	}
	*sec = timegm(tm);
	if (tm->tm_mday != day) { /* there is no such day: it was made one of the next month */
		return false;
	}
	if (strcmp(p, "Z") == 0 || strcmp(p, "UTC") == 0) {
		return true;
	}
	bool given = (*p == '+' || *p == '-') &&
		     (sscanf(p + 1, "%2d:%2d%n", &h, &m, &n) == 2 || sscanf(p + 1, "%2d%2d%n", &h, &m, &n) == 2 ||
		      sscanf(p + 1, "%2d%n", &h, &n) == 1);
	if (!given || p[1 + n] != 0) {
		return false;
	}
	*sec -= (*p == '-' ? -1 : 1) * (h * 3600 + m * 60);
	return true;
}

/* @SECONDS, or YYYY-MM-DD[ HH:MM[:SS[.FRACTION]]] with a T in the place of the space and a zone behind it. */
static bool parse_date(const char *text, struct timespec *t)
{
	struct tm tm = { 0 };
	char *end;
	if (*text == '@') {
		errno = 0;
		t->tv_sec = (time_t)strtoll(text + 1, &end, 10);
		const char *p = end != text + 1 ? take_fraction(end, &t->tv_nsec) : text;
		return *p == 0 && errno == 0;
	}
	const char *p = strptime(text, "%Y-%m-%d", &tm);
	if (p && (*p == 'T' || *p == ' ') && p[1]) {
		p = strptime(p + 1, "%H:%M", &tm);
	}
	t->tv_nsec = 0;
	if (p && *p == ':') {
		p = strptime(p + 1, "%S", &tm);
		p = p ? take_fraction(p, &t->tv_nsec) : NULL;
	}
	return p && take_zone(p, &t->tv_sec, &tm);
}

/* [[CC]YY]MMDDhhmm[.ss], as POSIX has it for -t. */
static bool parse_stamp(const char *text, struct timespec *t)
{
	time_t now = time(NULL);
	struct tm tm;
	localtime_r(&now, &tm);
	size_t digits = strspn(text, "0123456789");
	int year = tm.tm_year + 1900, sec = 0, n = 0;
	const char *p = text + digits;
	if ((digits != 8 && digits != 10 && digits != 12) ||
	    (*p && (sscanf(p, ".%2d%n", &sec, &n) != 1 || p[n] || n != 3))) {
		return false;
	}
	if (digits > 8) {
		sscanf(text, digits == 12 ? "%4d" : "%2d", &year);
		year += digits == 12 ? 0 : year < 69 ? 2000 : 1900;
		text += digits - 8;
	}
	tm = (struct tm){ .tm_year = year - 1900, .tm_sec = sec, .tm_isdst = -1 };
	sscanf(text, "%2d%2d%2d%2d", &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min);
	tm.tm_mon--;
	bool fits = tm.tm_mon >= 0 && tm.tm_mon < 12 && tm.tm_mday >= 1 && tm.tm_mday <= 31 && tm.tm_hour < 24 &&
		    tm.tm_min < 60 && sec <= 60;
	int day = tm.tm_mday;
	*t = (struct timespec){ mktime(&tm), 0 };
	return fits && (tm.tm_mday == day || sec == 60); /* else there is no such day */
}

/* ---- touch ---- */
struct touch {
	struct p9_each each;
	const char *reference;
	bool access, change; /* which; both when neither was asked for */
	bool given;	     /* a time was; else the server's now */
	struct timespec atime, mtime;
};

/* Before anything is made or changed. */
static int read_reference(struct p9_each *e)
{
	struct touch *t = (struct touch *)e;
	struct p9_client *c = e->client;
	struct p9_rgetattr st;
	e->path = t->reference;
	uint32_t fid;
	int rc = p9_client_walk(c, t->reference, t->each.follow, &fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_getattr(c, fid, P9_GETATTR_ATIME | P9_GETATTR_MTIME, &st);
	p9_client_clunk(c, fid);
	t->atime = (struct timespec){ (time_t)st.atime_sec, (long)st.atime_nsec };
	t->mtime = (struct timespec){ (time_t)st.mtime_sec, (long)st.mtime_nsec };
	return rc;
}

static int set_times(struct p9_each *e, uint32_t fid)
{
	struct touch *t = (struct touch *)e;
	bool both = t->access == t->change;
	struct p9_tsetattr set = { .fid = fid,
				   .atime_sec = (uint64_t)t->atime.tv_sec,
				   .atime_nsec = (uint64_t)t->atime.tv_nsec,
				   .mtime_sec = (uint64_t)t->mtime.tv_sec,
				   .mtime_nsec = (uint64_t)t->mtime.tv_nsec };
	set.valid |= both || t->access ? P9_SETATTR_ATIME | (t->given ? P9_SETATTR_ATIME_SET : 0) : 0;
	set.valid |= both || t->change ? P9_SETATTR_MTIME | (t->given ? P9_SETATTR_MTIME_SET : 0) : 0;
	return p9_client_setattr(e->client, &set);
}

static int create(struct p9_each *e, const char *path, uint32_t *fid)
{
	char name[256];
	int rc = p9_client_walk_parent(e->client, path, fid, name);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_lcreate(e->client, *fid, name, P9_O_WRONLY | P9_O_CREAT, 0666 & ~p9_umask());
	if (rc < 0) {
		p9_client_clunk(e->client, *fid);
	}
	return rc;
}

/* -c: that it is not there is no failure, and there is nothing to do. */
static int leave_missing(struct p9_each *e, const char *path, uint32_t *fid)
{
	return 1;
}

static bool take_time(struct touch *t, int o)
{
	bool ok = o == 'd' ? parse_date(optarg, &t->mtime) : parse_stamp(optarg, &t->mtime);
	t->atime = t->mtime;
	t->given = true;
	return ok;
}

static bool take_option(struct touch *t, int o)
{
	switch (o) {
	case 'c':
		t->each.missing = leave_missing;
		return true;
	case 'a':
		t->access = true;
		return true;
	case 'm':
		t->change = true;
		return true;
	case 'h':
		t->each.follow = P9_WALK_NOFOLLOW;
		return true;
	case 'r':
		t->reference = optarg;
		t->each.begin = read_reference;
		t->given = true;
		return true;
	case 'd':
	case 't':
		return take_time(t, o);
	default:
		return false;
	}
}

int p9_cmd_touch(struct p9_cli *cli, int argc, char **argv)
{
	struct touch t = { .each = { .act = set_times, .missing = create, .follow = P9_WALK_FOLLOW } };
	int o;
	while ((o = getopt(argc, argv, "camhd:t:r:")) != -1) {
		if (!take_option(&t, o)) {
			return p9_cli_usage(cli, o == 'd'   ? "-d wants YYYY-MM-DD HH:MM:SS or @SECONDS"
						 : o == 't' ? "-t wants [[CC]YY]MMDDhhmm[.ss]"
							    : NULL);
		}
	}
	if (optind == argc) {
		return p9_cli_usage(cli, "which file?");
	}
	return p9_each(cli, &t.each, argc - optind, argv + optind);
}

/* ---- mkfifo ---- */
static int make_fifo(struct p9_client *c, const char *path, uint32_t mode)
{
	char name[256];
	uint32_t dir;
	int rc = p9_client_walk_parent(c, path, &dir, name);
	if (rc >= 0) {
		rc = p9_client_mknod(c, dir, name, S_IFIFO | mode, 0);
		p9_client_clunk(c, dir);
	}
	return rc;
}

int p9_cmd_mkfifo(struct p9_cli *cli, int argc, char **argv)
{
	struct p9_client *c;
	uint32_t mode = 0666 & ~p9_umask();
	char *end;
	int o;
	while ((o = getopt(argc, argv, "m:")) != -1) {
		mode = o == 'm' ? (uint32_t)strtoul(optarg, &end, 8) : 0;
		if (o != 'm' || *end || end == optarg || mode > 0777) {
			return p9_cli_usage(cli, o == 'm' ? "-m wants octal permission bits" : NULL);
		}
	}
	if (optind == argc) {
		return p9_cli_usage(cli, "which file?");
	}
	int code = p9_cli_dial(cli, &c);
	for (int i = optind; c && i < argc && !p9_client_dead(c); i++) {
		int rc = make_fifo(c, argv[i], mode);
		if (rc < 0) {
			code = p9_cli_fail(cli, c, argv[i], rc);
		}
	}
	p9_client_free(c);
	return code;
}
