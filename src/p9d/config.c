/* SPDX-License-Identifier: BSD-2-Clause */
/* config.c - command line and configuration file into struct p9d_config.
 *
 * Both have the same keys (config.def). Every error names the option, its value and what is wrong with it.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "p9d/p9d.h"

enum opt_type { T_list, T_file, T_number, T_text, T_flag, T_maybe };
enum opt_id {
	OPT_listen,
	OPT_export,
	OPT_config,
	OPT_msize,
	OPT_identity,
	OPT_insecure,
	OPT_socket_mode,
	OPT_loops,
	OPT_workers,
	OPT_connections,
	OPT_poll,
	OPT_lock_wait,
	OPT_log,
	OPT_trace,
	OPT_socket_path,
	OPT_fd,
	OPT_tag,
	OPT_print_capabilities,
	OPT_takeover,
	OPT_control,
	OPT_background,
	OPT_help,
	OPT_version
};
static const struct option_row {
	const char *key;
	char letter;
	enum opt_type type;
	const char *def, *arg, *doc;
} rows[] = {
#define OPT(key, letter, type, def, arg, doc) { #key, letter, T_##type, def, arg, doc },
#include "p9d/config.def"
};
#define NROWS (sizeof(rows) / sizeof(rows[0]))

void p9d_usage(void)
{
	printf("Usage: p9d [OPTION]... [DIR]\n"
	       "Share host directories over 9P2000.L. `p9d DIR` alone shares DIR on the default socket.\n\n");
	for (size_t i = 0; i < NROWS; i++) {
		char left[64];
		snprintf(left, sizeof(left), "%c%c%s --%s%s%s", rows[i].letter ? '-' : ' ',
			 rows[i].letter ? rows[i].letter : ' ', rows[i].letter ? "," : " ", rows[i].key,
			 rows[i].type == T_maybe ? "[="
			 : rows[i].arg[0]	 ? " "
						 : "",
			 rows[i].arg);
		if (rows[i].type == T_maybe) {
			strncat(left, "]", sizeof(left) - strlen(left) - 1);
		}
		printf("  %-26s %s", left, rows[i].doc);
		if (rows[i].def[0] && rows[i].type != T_flag) {
			printf(" (default %s)", rows[i].def);
		}
		printf("\n");
	}
	printf("\nOptions of an export: ro, dev (device nodes may be made), xattr=all (not only user.* and ACLs),\n"
	       "checks=server|client, squash=none|root|all, nosub (not what is mounted below PATH).\n"
	       "Signals: SIGTERM and SIGINT end, SIGUSR1 prints counters. Manual: p9d(8).\n");
}

static int bad(const char *key, const char *value, const char *why)
{
	fprintf(stderr, "p9d: %s %s: %s\n", key, value, why);
	return 2;
}

static int parse_number(const char *key, const char *value, unsigned long min, unsigned long max, unsigned *out)
{
	char *end, why[80];
	errno = 0;
	unsigned long v = strtoul(value, &end, 10);
	if (!isdigit((unsigned char)*value) || *end || errno || v < min || v > max) {
		snprintf(why, sizeof(why), "must be a number from %lu to %lu", min, max);
		return bad(key, value, why);
	}
	*out = (unsigned)v;
	return 0;
}

static int export_option(struct p9d_export *e, const char *key, const char *value, const char *opt)
{
	static const struct {
		const char *name;
		int checks, squash; /* -1: not this one */
	} words[] = {
		{ "checks=server", P9_CHECKS_SERVER, -1 }, { "checks=client", P9_CHECKS_CLIENT, -1 },
		{ "squash=none", -1, P9_SQUASH_NONE },	   { "squash=root", -1, P9_SQUASH_ROOT },
		{ "squash=all", -1, P9_SQUASH_ALL },
	};
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(opt, words[i].name) == 0) {
			e->conf.checks = words[i].checks >= 0 ? (enum p9_checks)words[i].checks : e->conf.checks;
			e->conf.squash = words[i].squash >= 0 ? (enum p9_squash)words[i].squash : e->conf.squash;
			return 0;
		}
	}
	if (strcmp(opt, "ro") == 0) {
		e->local.ro = true;
	} else if (strcmp(opt, "rw") == 0) {
		e->local.ro = false;
	} else if (strcmp(opt, "dev") == 0) {
		e->local.dev = true;
	} else if (strcmp(opt, "nosub") == 0) {
		e->local.submounts = false;
	} else if (strcmp(opt, "xattr=all") == 0) {
		e->local.xattr_all = true;
	} else {
		char why[200];
		snprintf(why, sizeof(why),
			 "unknown export option \"%s\"; known are ro, dev, nosub, xattr=all, "
			 "checks=server|client, squash=none|root|all",
			 opt);
		return bad(key, value, why);
	}
	return 0;
}

/* Slashes at both ends do not matter to who asks for an export. */
static bool same_name(const char *a, const char *b)
{
	a += strspn(a, "/");
	b += strspn(b, "/");
	size_t n = strlen(a), m = strlen(b);
	while (n && a[n - 1] == '/') {
		n--;
	}
	while (m && b[m - 1] == '/') {
		m--;
	}
	return n == m && memcmp(a, b, n) == 0;
}

/* Whether a list of exports can show it: some name is left of it, and none that leads elsewhere. */
static bool can_be_listed(const char *name)
{
	size_t named = 0;
	for (; *name; name += strspn(name, "/")) {
		size_t n = strcspn(name, "/");
		if (n == 2 && memcmp(name, "..", 2) == 0) {
			return false;
		}
		named += n > 0 && !(n == 1 && *name == '.');
		name += n;
	}
	return named > 0;
}

/* [NAME=]PATH[,OPTION]... A path with a comma in it needs a configuration line with NAME=; commas end the path. */
static int add_export(struct p9d_config *c, const char *key, const char *value)
{
	if (c->nexports == P9D_EXPORT_MAX) {
		return bad(key, value, "too many exports");
	}
	struct p9d_export *e = &c->exports[c->nexports];
	/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): it takes an argument, so there is one */
	char *spec = strdup(value);
	if (!spec) {
		return bad(key, value, "out of memory");
	}
	e->spec = spec;
	c->nexports++;
	e->local.submounts = true;
	char *opts = strchr(spec, ',');
	if (opts) {
		*opts++ = 0;
	}
	char *eq = strchr(spec, '=');
	char *slash = strchr(spec, '/');
	bool named = eq && (!slash || eq < slash);
	e->name = spec;
	e->local.path = named ? eq + 1 : spec;
	if (named) {
		*eq = 0;
	}
	if (!*e->local.path || !*e->name) {
		return bad(key, value, "must be [NAME=]PATH[,OPTION]...");
	}
	for (unsigned i = 0; i + 1 < c->nexports; i++) {
		if (same_name(c->exports[i].name, e->name)) {
			return bad(key, value, "this name is exported twice");
		}
	}
	int rc = 0;
	for (char *o = opts; o && rc == 0;) {
		char *next = strchr(o, ',');
		if (next) {
			*next++ = 0;
		}
		rc = export_option(e, key, value, o);
		o = next;
	}
	return rc;
}

static int add_listen(struct p9d_config *c, const char *key, const char *value)
{
	struct p9_addr a;
	char why[256];
	if (p9_addr_parse(&a, value, why, sizeof(why)) < 0) {
		return bad(key, value, why);
	}
	if (c->nlisten == P9D_LISTEN_MAX) {
		return bad(key, value, "too many addresses");
	}
	c->listen[c->nlisten] = strdup(value);
	return c->listen[c->nlisten++] ? 0 : bad(key, value, "out of memory");
}

static int set_log(const char *key, const char *value)
{
	for (unsigned i = 0; i < P9_LOG_LEVELS; i++) {
		if (strcmp(value, p9_log_names[i]) == 0) {
			p9_log_level = (enum p9_log_level)i;
			return 0;
		}
	}
	return bad(key, value, "must be error, warn, info or debug");
}

static int set_identity(struct p9d_config *c, const char *key, const char *value)
{
	if (strcmp(value, "users") != 0 && strcmp(value, "single") != 0) {
		return bad(key, value, "must be users or single");
	}
	free(c->identity);
	c->identity = strdup(value);
	return 0;
}

static int set_mode(struct p9d_config *c, const char *key, const char *value)
{
	char *end;
	unsigned long v = strtoul(value, &end, 8);
	if (!*value || *end || v > 0777) {
		return bad(key, value, "must be an octal mode up to 0777");
	}
	c->socket_mode = (unsigned)v;
	return 0;
}

static int set_text(char **to, const char *key, const char *value)
{
	free(*to);
	*to = strdup(value);
	return *to ? 0 : bad(key, value, "out of memory");
}

static int read_file(struct p9d_config *c, const char *path);

static int set(struct p9d_config *c, size_t row, const char *key, const char *value)
{
	bool yes = !value || strcmp(value, "yes") == 0;
	if (rows[row].type == T_flag && value && !yes && strcmp(value, "no") != 0) {
		return bad(key, value, "must be yes or no");
	}
	if (rows[row].type != T_flag && rows[row].type != T_maybe && !value) {
		return bad(key, "", "a value is missing");
	}
	switch ((enum opt_id)row) {
	case OPT_listen:
		return add_listen(c, key, value ? value : "");
	case OPT_export:
		return add_export(c, key, value);
	case OPT_config:
		return read_file(c, value);
	case OPT_msize:
		return parse_number(key, value, P9_MSIZE_MIN, P9_MSIZE_MAX, &c->server.msize);
	case OPT_identity:
		return set_identity(c, key, value);
	case OPT_insecure:
		c->insecure = yes;
		return 0;
	case OPT_socket_mode:
		return set_mode(c, key, value);
	case OPT_loops:
		return parse_number(key, value, 0, 64, &c->server.loops);
	case OPT_workers:
		return parse_number(key, value, 1, 1024, &c->server.workers);
	case OPT_connections:
		return parse_number(key, value, 1, 65536, &c->server.conns);
	case OPT_poll:
		return parse_number(key, value, 0, 1000, &c->server.look_us);
	case OPT_lock_wait:
		return parse_number(key, value, 0, 86400, &c->server.lock_wait);
	case OPT_log:
		return set_log(key, value);
	case OPT_trace:
		c->server.trace = yes;
		return 0;
	case OPT_socket_path:
		return set_text(&c->socket_path, key, value);
	case OPT_fd:
		return set_text(&c->fd, key, value);
	case OPT_tag:
		return set_text(&c->tag, key, value);
	case OPT_print_capabilities:
		c->capabilities = yes;
		return 0;
	case OPT_takeover:
		return set_text(&c->takeover, key, value ? value : "");
	case OPT_control:
		return set_text(&c->control, key, value);
	case OPT_background:
		c->background = yes;
		return 0;
	case OPT_help:
		c->help = true;
		return 0;
	case OPT_version:
		c->version = true;
		return 0;
	}
	return 2;
}

static int find_row(const char *key, size_t len)
{
	for (size_t i = 0; i < NROWS; i++) {
		if (strlen(rows[i].key) == len && memcmp(rows[i].key, key, len) == 0) {
			return (int)i;
		}
	}
	return -1;
}

static int read_line(struct p9d_config *c, char *line, const char *path, int no)
{
	char where[400];
	char *key = line + strspn(line, " \t");
	size_t len = strcspn(key, " \t=\n");
	if (*key == '#' || *key == '\n' || !*key) {
		return 0;
	}
	char *value = key + len;
	value += strspn(value, " \t");
	value += *value == '=' ? 1 + strspn(value + 1, " \t") : 0;
	value[strcspn(value, "\n")] = 0;
	for (size_t n = strlen(value); n > 0 && isspace((unsigned char)value[n - 1]); n--) {
		value[n - 1] = 0;
	}
	snprintf(where, sizeof(where), "%s:%d: %.*s", path, no, (int)(len > 60 ? 60 : len), key);
	int row = find_row(key, len);
	if (row < 0 || row == OPT_help || row == OPT_version || row == OPT_config || row == OPT_takeover ||
	    row == OPT_print_capabilities) {
		return bad(where, value, "unknown key; see p9d --help");
	}
	if (!*value && rows[row].type != T_flag && rows[row].type != T_maybe) {
		return bad(where, value, "a value is missing");
	}
	return set(c, (size_t)row, where, *value ? value : NULL);
}

static int read_file(struct p9d_config *c, const char *path)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t cap = 0;
	int rc = 0;
	if (!f) {
		return bad("--config", path, strerror(errno));
	}
	for (int no = 1; rc == 0 && getline(&line, &cap, f) >= 0; no++) {
		rc = read_line(c, line, path, no);
	}
	if (rc == 0 && ferror(f)) {
		rc = bad("--config", path, strerror(errno));
	}
	free(line);
	fclose(f);
	return rc;
}

/* One argument: --key value, --key=value, -k value, -kvalue, or DIR. Moves *i over a value taken. */
static int read_arg(struct p9d_config *c, int argc, char **argv, int *i)
{
	char *arg = argv[*i];
	char shown[64];
	const char *value = NULL;
	int row = -1;
	if (arg[0] != '-' || !arg[1]) {
		c->quick = true;
		return add_export(c, "directory", arg);
	}
	if (arg[1] == '-') {
		char *eq = strchr(arg, '=');
		value = eq ? eq + 1 : NULL;
		row = find_row(arg + 2, eq ? (size_t)(eq - arg) - 2 : strlen(arg) - 2);
	} else {
		for (size_t k = 0; k < NROWS; k++) {
			row = rows[k].letter == arg[1] ? (int)k : row;
		}
		value = arg[2] ? arg + 2 : NULL;
	}
	if (row < 0) {
		fprintf(stderr, "p9d: %s: unknown option; see p9d --help\n", arg);
		return 2;
	}
	snprintf(shown, sizeof(shown), "--%s", rows[row].key);
	if (rows[row].type != T_flag && rows[row].type != T_maybe && !value) {
		if (*i + 1 >= argc) {
			return bad(shown, "", "a value is missing");
		}
		value = argv[++*i];
	}
	return set(c, (size_t)row, shown, value);
}

/* --socket-path, --fd and --tag are what managers of VM monitors say (vhost-user.rst, "Backend program conventions"). */
static int add_device(struct p9d_config *c)
{
	char text[600];
	if (c->socket_path && c->fd) {
		fprintf(stderr, "p9d: --socket-path and --fd: only one of them\n");
		return 2;
	}
	if (!c->socket_path && !c->fd) {
		fprintf(stderr, "p9d: --tag: without --socket-path or --fd there is no device that could have it\n");
		return 2;
	}
	const char *key = c->fd ? "--fd" : "--socket-path", *value = c->fd ? c->fd : c->socket_path;
	if (!c->tag) {
		return bad(key, value, "the device needs a --tag for the guest to mount");
	}
	if (strchr(value, ',') || strchr(c->tag, ',')) {
		return bad(key, value, "a comma can be neither in it nor in the tag");
	}
	snprintf(text, sizeof(text), "vhost-user:%s%s,tag=%s", c->fd ? "fd:" : "", value, c->tag);
	return add_listen(c, key, text);
}

static bool asks_for_capabilities(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--print-capabilities") == 0) {
			return true; /* other options are to be ignored, those of others too */
		}
	}
	return false;
}

int p9d_config_read(struct p9d_config *c, int argc, char **argv)
{
	int rc = 0;
	c->server.msize = P9_MSIZE_DEFAULT;
	c->server.workers = 64;
	c->server.conns = P9_CONNS_MAX;
	c->server.lock_wait = 30;
	c->server.look_us = 100;
	c->socket_mode = 0600;
	if (asks_for_capabilities(argc, argv)) {
		c->capabilities = true;
		return 0;
	}
	for (int i = 1; i < argc && rc == 0; i++) {
		rc = read_arg(c, argc, argv, &i);
	}
	if (rc == 0 && !c->help && !c->version && (c->socket_path || c->fd || c->tag)) {
		rc = add_device(c);
	}
	for (unsigned i = 0; rc == 0 && c->nexports > 1 && i < c->nexports; i++) {
		if (!can_be_listed(c->exports[i].name)) {
			rc = bad("--export", c->exports[i].spec, "beside others it needs a name: NAME=PATH");
		}
	}
	if (rc == 0 && !c->help && !c->version && c->nexports == 0) {
		fprintf(stderr, "p9d: nothing to share: give a directory, or --export; see p9d --help\n");
		rc = 2;
	}
	return rc;
}

void p9d_config_free(struct p9d_config *c)
{
	for (unsigned i = 0; i < c->nexports; i++) {
		p9_local_close(c->exports[i].root);
		free(c->exports[i].spec);
	}
	for (unsigned i = 0; i < c->nlisten; i++) {
		free(c->listen[i]);
	}
	free(c->identity);
	free(c->socket_path);
	free(c->fd);
	free(c->tag);
	free(c->takeover);
	free(c->control);
}
