/* SPDX-License-Identifier: BSD-2-Clause */
/* p9.h - what the file commands of p9 share, besides cli.h. */
#ifndef P9_P9_H
#define P9_P9_H
#include <signal.h>
#include <time.h>
#include "p9/cli.h"
#include "p9/client.h"

#define P9_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- commands: argv[0] is the name ---- */
int p9_cmd_ls(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_stat(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_cat(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_get(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_put(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_mkdir(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_rm(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_mv(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_ln(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_readlink(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_chmod(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_chown(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_truncate(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_cp(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_find(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_du(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_tree(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_touch(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_mkfifo(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_lock(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_df(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_xattr(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_mount(struct p9_cli *cli, int argc, char **argv);
int p9_cmd_umount(struct p9_cli *cli, int argc, char **argv);
/* SOURCE DIR -o OPTIONS, as mount(8) calls us; lenient: through mount.fuse(8). */
int p9_mount_helper(struct p9_cli *cli, int argc, char **argv, bool lenient);

/* ---- cli.c ---- */
/* Connects as the options say. Returns P9_EXIT_OK, or another exit code after having said why. */
int p9_cli_dial(struct p9_cli *cli, struct p9_client **c);
/* "p9: CMD: WHAT: text (ECODE)". For a link that has ended, the link's own text. Returns P9_EXIT_FAILED. */
int p9_cli_fail(const struct p9_cli *cli, const struct p9_client *c, const char *what, int ecode);
/* The same for an errno of this host. */
int p9_cli_fail_errno(const struct p9_cli *cli, const char *what, int host_errno);
/* Says how the command is used. Returns P9_EXIT_USAGE. */
int p9_cli_usage(const struct p9_cli *cli, const char *why);
/* Flushes stdout at the end of a command and turns a failed write into an exit code. */
int p9_cli_close_stdout(const struct p9_cli *cli, int code);
/* A number with a suffix K, M, G, T. False when it is none. */
bool p9_cli_size(const char *text, uint64_t *size);
/* A user or group by name or number. False when there is none. */
bool p9_cli_user(const char *text, uint32_t *uid);
bool p9_cli_group(const char *text, uint32_t *gid);

/* The caller's umask. */
uint32_t p9_umask(void);

/* ---- cmd_rm.c ---- */
/* Removes a directory of the server with all that is below it, as rm -r does; says what could not be removed. */
P9_MUST_USE int p9_rm_tree(struct p9_cli *cli, struct p9_client *c, const char *path);

/* ---- show.c: how things look ---- */
/* Writes a name; on a terminal without the bytes that would command it. Returns the columns it takes. */
int p9_show_name(FILE *f, const char *name, bool tty);
/* Text of a mode, "drwxr-xr-x". buf has 12 bytes. */
void p9_show_mode(char *buf, uint32_t mode);
/* Name of a user or group, or its number. Valid until the next call with the same function. */
const char *p9_show_user(uint32_t uid);
const char *p9_show_group(uint32_t gid);
/* "4.0K". buf has 16 bytes. */
void p9_show_size(char *buf, uint64_t n);
/* Date as ls shows it. buf has 32 bytes. */
void p9_show_date(char *buf, uint64_t sec, time_t now);

/* ---- list.c: a directory's entries with their attributes, many requests in flight ---- */
struct p9_entry {
	char *name;
	uint8_t type;	      /* DT_* */
	int error;	      /* of the attributes: 0 or -P9_Exxx */
	struct p9_attr *attr; /* or NULL */
};
struct p9_attr {
	uint64_t size, blocks, mtime, mtime_nsec, nlink, rdev, qid;
	uint32_t mode, uid, gid;
	char *target; /* of a link, or NULL */
};
struct p9_list {
	struct p9_client *client;
	uint32_t dir; /* a fid, walked and not open */
	bool attrs;
	bool dots; /* entries that begin with a dot, too */
	/* Takes an entry over (name and attr are its own, p9_entry_free). Returns -P9_Exxx to stop. */
	int (*entry)(struct p9_list *l, struct p9_entry *e);
	void *arg;
};
P9_MUST_USE int p9_list_run(struct p9_list *l);
void p9_entry_free(struct p9_entry *e);
/* Attributes from a reply. Returns NULL without memory. */
struct p9_attr *p9_attr_of(const struct p9_rgetattr *r);

/* ---- progress.c ---- */
struct p9_progress {
	bool tty, asked, any;	     /* any: a line was written */
	const char *name;	     /* NULL before it begins and after it ends */
	uint64_t total, done, files; /* total: 0 when it is not known */
	uint64_t before;	     /* done when it was shown last */
	double every, rate;
	struct timespec begin, shown;
};
/* asked: with --progress. */
void p9_progress_begin(struct p9_progress *p, const char *name, uint64_t total, bool asked);
void p9_progress_add(struct p9_progress *p, uint64_t bytes);
void p9_progress_end(struct p9_progress *p);

/* ---- cli.c, again ---- */
/* Last element of a path, in 256 bytes of the caller's; "" when there is none, or false and "" when it is too long. */
bool p9_path_base(const char *path, char *name);
/* DIR/NAME; the caller frees it. NULL without memory. */
char *p9_path_join(const char *dir, const char *name);
/* Becomes 1 at SIGINT or SIGTERM, once p9_catch_signals() was called. A second signal kills. */
extern volatile sig_atomic_t p9_interrupted;
void p9_catch_signals(void);

#endif
