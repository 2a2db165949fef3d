/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_stat.c - p9 stat: every attribute that the server says is valid.
 *
 * Looks like stat(1), so that habits work, with the qid in the place of device and inode: that is what identifies a file
 * in 9P. A time that the server does not know (its bit in `valid` is not set) is shown as "-".
 */
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "p9/json.h"
#include "p9/p9.h"

static const char *type_text(uint32_t mode, uint64_t size)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symbolic link";
	case S_IFCHR:
		return "character device";
	case S_IFBLK:
		return "block device";
	case S_IFIFO:
		return "fifo";
	case S_IFSOCK:
		return "socket";
	case S_IFREG:
		return size ? "regular file" : "regular empty file";
	default:
		return "unknown type";
	}
}

/* One line for a time; the number itself when the C library cannot turn it into a date. */
static void print_time(const char *label, uint64_t sec, uint64_t nsec, bool valid)
{
	char date[40], zone[8];
	time_t t = (time_t)sec;
	struct tm tm;
	if (!valid) {
		printf("%s: -\n", label);
	} else if (localtime_r(&t, &tm) && strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm)) {
		strftime(zone, sizeof(zone), "%z", &tm);
		printf("%s: %s.%09llu %s\n", label, date, (unsigned long long)nsec, zone);
	} else {
		printf("%s: %llu.%09llu\n", label, (unsigned long long)sec, (unsigned long long)nsec);
	}
}

static void print_stat(const char *path, const struct p9_rgetattr *r, const char *target, bool tty)
{
	char mode[12];
	fputs("  File: ", stdout);
	p9_show_name(stdout, path, tty);
	if (target) {
		fputs(" -> ", stdout);
		p9_show_name(stdout, target, tty);
	}
	printf("\n  Size: %-15llu Blocks: %-10llu IO Block: %-6llu %s\n", (unsigned long long)r->size,
	       (unsigned long long)r->blocks, (unsigned long long)r->blksize, type_text(r->mode, r->size));
	printf("   Qid: path 0x%llx version %u type 0x%02x  Links: %llu", (unsigned long long)r->qid.path,
	       r->qid.version, r->qid.type, (unsigned long long)r->nlink);
	if (S_ISCHR(r->mode) || S_ISBLK(r->mode)) {
		printf("  Device: %u,%u", major(r->rdev), minor(r->rdev));
	}
	p9_show_mode(mode, r->mode);
	printf("\nAccess: (%04o/%s)  Uid: (%5u/%8s)", r->mode & 07777, mode, r->uid, p9_show_user(r->uid));
	printf("   Gid: (%5u/%8s)\n", r->gid, p9_show_group(r->gid));
	print_time("Access", r->atime_sec, r->atime_nsec, r->valid & P9_GETATTR_ATIME);
	print_time("Modify", r->mtime_sec, r->mtime_nsec, r->valid & P9_GETATTR_MTIME);
	print_time("Change", r->ctime_sec, r->ctime_nsec, r->valid & P9_GETATTR_CTIME);
	print_time(" Birth", r->btime_sec, r->btime_nsec, r->valid & P9_GETATTR_BTIME);
}

static void known_number(struct p9_json *j, const char *key, uint64_t n, bool known)
{
	if (known) {
		p9_json_number(j, key, n);
	} else {
		p9_json_null(j, key);
	}
}

/* The keys are the same for every file; null is what the server does not know. */
static void print_json(struct p9_json *j, const char *path, const struct p9_rgetattr *r, const char *target)
{
	bool device = S_ISCHR(r->mode) || S_ISBLK(r->mode);
	bool type = r->valid & P9_GETATTR_MODE;
	p9_json_open(j);
	p9_json_text(j, "path", path);
	p9_json_text(j, "type", type ? p9_json_type(r->mode) : r->qid.type & P9_QTDIR ? "directory" : "unknown");
	p9_json_text(j, "target", target);
	known_number(j, "mode", r->mode & 07777, type);
	known_number(j, "nlink", r->nlink, r->valid & P9_GETATTR_NLINK);
	known_number(j, "uid", r->uid, r->valid & P9_GETATTR_UID);
	known_number(j, "gid", r->gid, r->valid & P9_GETATTR_GID);
	known_number(j, "size", r->size, r->valid & P9_GETATTR_SIZE);
	known_number(j, "blocks", r->blocks, r->valid & P9_GETATTR_BLOCKS);
	p9_json_number(j, "blksize", r->blksize);
	known_number(j, "major", major(r->rdev), device);
	known_number(j, "minor", minor(r->rdev), device);
	p9_json_time(j, "atime", (uint64_t[]){ r->atime_sec, r->atime_nsec }, r->valid & P9_GETATTR_ATIME);
	p9_json_time(j, "mtime", (uint64_t[]){ r->mtime_sec, r->mtime_nsec }, r->valid & P9_GETATTR_MTIME);
	p9_json_time(j, "ctime", (uint64_t[]){ r->ctime_sec, r->ctime_nsec }, r->valid & P9_GETATTR_CTIME);
	p9_json_time(j, "btime", (uint64_t[]){ r->btime_sec, r->btime_nsec }, r->valid & P9_GETATTR_BTIME);
	p9_json_number(j, "qid_type", r->qid.type);
	p9_json_number(j, "qid_version", r->qid.version);
	p9_json_number(j, "qid_path", r->qid.path);
	p9_json_close(j);
}

/* Walks, asks, prints, clunks. A link's text is shown when it can be read; that it cannot is no failure. */
static int stat_one(struct p9_client *c, const char *path, int follow, struct p9_json *json)
{
	struct p9_rgetattr r;
	char target[P9_TARGETMAX + 1];
	uint32_t fid;
	int rc = p9_client_walk(c, path, follow, &fid);
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_getattr(c, fid, P9_GETATTR_ALL, &r);
	if (rc >= 0) {
		bool link = S_ISLNK(r.mode) && p9_client_readlink(c, fid, target, sizeof(target)) >= 0;
		if (json->on) {
			print_json(json, path, &r, link ? target : NULL);
		} else {
			print_stat(path, &r, link ? target : NULL, isatty(STDOUT_FILENO));
		}
	}
	p9_client_clunk(c, fid);
	return rc;
}

int p9_cmd_stat(struct p9_cli *cli, int argc, char **argv)
{
	static const struct option longs[] = { { "json", no_argument, NULL, 'J' }, { 0 } };
	struct p9_json json = { 0 };
	int o, follow = P9_WALK_NOFOLLOW;
	struct p9_client *c;
	while ((o = getopt_long(argc, argv, "L", longs, NULL)) != -1) {
		if (o != 'L' && o != 'J') {
			return p9_cli_usage(cli, NULL);
		}
		json.on |= o == 'J';
		follow = o == 'L' ? P9_WALK_FOLLOW : follow;
	}
	if (optind == argc) {
		return p9_cli_usage(cli, "which file?");
	}
	int code = p9_cli_dial(cli, &c);
	if (code != P9_EXIT_OK) {
		return code;
	}
	if (json.on) {
		p9_json_begin(&json);
	}
	for (int i = optind; i < argc && !p9_client_dead(c); i++) {
		int rc = stat_one(c, argv[i], follow, &json);
		if (rc < 0) {
			code = p9_cli_fail(cli, c, argv[i], rc);
		}
	}
	if (json.on) {
		p9_json_end(&json);
	}
	p9_client_free(c);
	return code;
}
