/* SPDX-License-Identifier: BSD-2-Clause */
/* opts.c - the options behind -o, from the command line or from fstab.
 *
 * Each is a row of the table: those with a value, and those without. What is the kernel's or fusermount3's goes on to
 * libfuse; what only mount(8) understands is left out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/spin.h"
#include "mount/mount.h"

#define TIMEOUT_SECONDS 30u
#define BUSY_POLL_US 100u
#define MAX_FIDS 16384u

enum what {
	OPT_CACHE,
	OPT_ATTR_TIMEOUT,
	OPT_ENTRY_TIMEOUT,
	OPT_NEGATIVE_TIMEOUT,
	OPT_READAHEAD,
	OPT_MAX_READ,
	OPT_TIMEOUT,
	OPT_FIDS,
	OPT_BUSY_POLL,
	OPT_UID,
	OPT_GID,
	OPT_FSNAME,
	OPT_SERVER,
	OPT_ANAME,
	OPT_MSIZE,
	OPT_WRITEBACK,
	OPT_NOWRITEBACK,
	OPT_PERMISSIONS,
	OPT_NO_PERMISSIONS,
	OPT_NOPIPELINE,
	OPT_PASS,   /* to libfuse */
	OPT_HABIT,  /* to libfuse, unless mount.fuse(8) has added it by itself */
	OPT_IGNORE, /* mount(8)'s own */
};

static const struct row {
	const char *name;
	enum what what;
} with_value[] = {
	{ "cache", OPT_CACHE },
	{ "attr_timeout", OPT_ATTR_TIMEOUT },
	{ "entry_timeout", OPT_ENTRY_TIMEOUT },
	{ "negative_timeout", OPT_NEGATIVE_TIMEOUT },
	{ "readahead", OPT_READAHEAD },
	{ "max_read", OPT_MAX_READ },
	{ "timeout", OPT_TIMEOUT },
	{ "fids", OPT_FIDS },
	{ "busy_poll", OPT_BUSY_POLL },
	{ "uid", OPT_UID },
	{ "gid", OPT_GID },
	{ "fsname", OPT_FSNAME },
	{ "server", OPT_SERVER },
	{ "aname", OPT_ANAME },
	{ "msize", OPT_MSIZE },
	{ "context", OPT_PASS },
	{ "x-", OPT_IGNORE },
	{ "comment", OPT_IGNORE },
}, alone[] = {
	{ "writeback", OPT_WRITEBACK },
	{ "nowriteback", OPT_NOWRITEBACK },
	{ "default_permissions", OPT_PERMISSIONS },
	{ "no_default_permissions", OPT_NO_PERMISSIONS },
	{ "nopipeline", OPT_NOPIPELINE },
	{ "allow_other", OPT_PASS },
	{ "allow_root", OPT_PASS },
	{ "ro", OPT_PASS },
	{ "rw", OPT_PASS },
	{ "suid", OPT_HABIT },
	{ "nosuid", OPT_PASS },
	{ "dev", OPT_HABIT },
	{ "nodev", OPT_PASS },
	{ "exec", OPT_PASS },
	{ "noexec", OPT_PASS },
	{ "async", OPT_PASS },
	{ "sync", OPT_PASS },
	{ "dirsync", OPT_PASS },
	{ "atime", OPT_PASS },
	{ "noatime", OPT_PASS },
	{ "diratime", OPT_IGNORE },
	{ "nodiratime", OPT_IGNORE },
	{ "relatime", OPT_IGNORE },
	{ "norelatime", OPT_IGNORE },
	{ "strictatime", OPT_IGNORE },
	{ "nostrictatime", OPT_IGNORE },
	{ "defaults", OPT_IGNORE },
	{ "auto", OPT_IGNORE },
	{ "noauto", OPT_IGNORE },
	{ "user", OPT_IGNORE },
	{ "users", OPT_IGNORE },
	{ "nouser", OPT_IGNORE },
	{ "nousers", OPT_IGNORE },
	{ "owner", OPT_IGNORE },
	{ "group", OPT_IGNORE },
	{ "nofail", OPT_IGNORE },
	{ "_netdev", OPT_IGNORE },
	{ "x-", OPT_IGNORE },
};

void p9_mount_opts_init(struct p9_mount_opts *o)
{
	*o = (struct p9_mount_opts){ .cache = P9_CACHE_ATTR,
				     .attr_timeout = -1,
				     .entry_timeout = -1,
				     .negative_timeout = -1,
				     .timeout = TIMEOUT_SECONDS,
				     .busy_poll = p9_spin_worth() ? BUSY_POLL_US : 0,
				     .max_fids = MAX_FIDS,
				     .permissions = true };
}

void p9_mount_opts_fini(struct p9_mount_opts *o)
{
	free(o->fuse);
	free(o->server);
	free(o->aname);
	free(o->fsname);
	o->fuse = o->server = o->aname = o->fsname = NULL;
}

static bool number(const char *text, uint64_t most, uint64_t *n)
{
	char *end;
	errno = 0;
	*n = strtoull(text, &end, 10);
	unsigned shift = *end == 'K' || *end == 'k' ? 10 : *end == 'M' || *end == 'm' ? 20 : 0;
	end += shift != 0;
	bool fine = text[0] >= '0' && text[0] <= '9' && *end == 0 && !errno && *n <= most >> shift;
	*n <<= shift;
	return fine;
}

static bool whole(const char *text, uint64_t least, uint64_t most, uint32_t *to)
{
	uint64_t n;
	bool fine = number(text, most, &n) && n >= least;
	*to = fine ? (uint32_t)n : *to;
	return fine;
}

static bool seconds(const char *text, double *to)
{
	char *end;
	errno = 0;
	double d = strtod(text, &end);
	bool fine = end != text && *end == 0 && !errno && d >= 0 && d <= 1e9;
	*to = fine ? d : *to;
	return fine;
}

static bool cache(const char *text, struct p9_mount_opts *o)
{
	static const char *const names[] = { "none", "attr", "loose" };
	for (unsigned i = 0; i < 3; i++) {
		if (strcmp(text, names[i]) == 0) {
			o->cache = (enum p9_mount_cache)i;
			o->writeback = o->cache == P9_CACHE_LOOSE;
			return true;
		}
	}
	return false;
}

static bool string(const char *text, char **to)
{
	free(*to);
	*to = strdup(text);
	return *to != NULL;
}

static bool set_value(struct p9_mount_opts *o, enum what what, const char *v)
{
	switch (what) {
	case OPT_CACHE:
		return cache(v, o);
	case OPT_ATTR_TIMEOUT:
		return seconds(v, &o->attr_timeout);
	case OPT_ENTRY_TIMEOUT:
		return seconds(v, &o->entry_timeout);
	case OPT_NEGATIVE_TIMEOUT:
		return seconds(v, &o->negative_timeout);
	case OPT_READAHEAD:
		return whole(v, 0, 1u << 30, &o->readahead);
	case OPT_MAX_READ:
		return whole(v, 4096, 1u << 20, &o->max_read);
	case OPT_TIMEOUT:
		return whole(v, 0, 86400, &o->timeout);
	case OPT_FIDS:
		return whole(v, 128, P9_FIDS_MAX - 1024, &o->max_fids);
	case OPT_BUSY_POLL:
		return whole(v, 0, 1000, &o->busy_poll);
	case OPT_UID:
		return o->set_uid = whole(v, 0, UINT32_MAX - 1, &o->uid);
	case OPT_GID:
		return o->set_gid = whole(v, 0, UINT32_MAX - 1, &o->gid);
	case OPT_FSNAME:
		return string(v, &o->fsname);
	case OPT_SERVER:
		return string(v, &o->server);
	case OPT_ANAME:
		return string(v, &o->aname);
	case OPT_MSIZE:
		return whole(v, P9_MSIZE_MIN, P9_MSIZE_MAX, &o->msize);
	default:
		return true;
	}
}

static bool pass(struct p9_mount_opts *o, const char *text)
{
	char *more;
	if (asprintf(&more, "%s,%s", o->fuse ? o->fuse : "", text) < 0) {
		return false;
	}
	free(o->fuse);
	o->fuse = more;
	return true;
}

static bool set_alone(struct p9_mount_opts *o, enum what what, const char *text, bool lenient)
{
	switch (what) {
	case OPT_WRITEBACK:
	case OPT_NOWRITEBACK:
		o->writeback = what == OPT_WRITEBACK;
		return true;
	case OPT_PERMISSIONS:
	case OPT_NO_PERMISSIONS:
		o->permissions = what == OPT_PERMISSIONS;
		return true;
	case OPT_NOPIPELINE:
		o->nopipeline = true;
		return true;
	case OPT_HABIT:
		return lenient || pass(o, text);
	case OPT_PASS:
		return pass(o, text);
	default:
		return true;
	}
}

static const struct row *find(const struct row *rows, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++) {
		bool family = rows[i].name[strlen(rows[i].name) - 1] == '-';
		if (family ? strncmp(name, rows[i].name, strlen(rows[i].name)) == 0 : strcmp(name, rows[i].name) == 0) {
			return &rows[i];
		}
	}
	return NULL;
}

static bool set(struct p9_mount_opts *o, char *text, bool lenient, char *err, size_t cap)
{
	char *value = strchr(text, '=');
	if (value) {
		*value++ = 0;
	}
	const struct row *r = value ? find(with_value, sizeof(with_value) / sizeof(with_value[0]), text)
				    : find(alone, sizeof(alone) / sizeof(alone[0]), text);
	if (!r) {
		snprintf(err, cap, "no option \"%s%s\"", text, value ? "=" : "");
		return false;
	}
	if (value && r->what == OPT_PASS) {
		value[-1] = '=';
		return pass(o, text);
	}
	bool fine = value ? set_value(o, r->what, value) : set_alone(o, r->what, text, lenient);
	if (!fine) {
		snprintf(err, cap, "%s: \"%s\" is not a value for it", text, value ? value : "");
	}
	return fine;
}

/* Cuts the next option off; its escapes are resolved in place. */
static char *next(char **list)
{
	char *from = *list, *to = *list, *begin = *list;
	while (*from && *from != ',') {
		from += *from == '\\' && from[1];
		*to++ = *from++;
	}
	*list = *from ? from + 1 : from;
	*to = 0;
	return begin;
}

int p9_mount_opts_parse(struct p9_mount_opts *o, const char *list, bool lenient, char *err, size_t cap)
{
	char *copy = strdup(list), *rest = copy;
	bool fine = copy != NULL;
	snprintf(err, cap, "%s", p9_error_text(P9_ENOMEM));
	while (fine && *rest) {
		char *text = next(&rest);
		fine = *text == 0 || set(o, text, lenient, err, cap);
	}
	free(copy);
	return fine ? 0 : -P9_EINVAL;
}
