/* SPDX-License-Identifier: BSD-2-Clause */
/* again.c - a client that looks for a server it has lost, one call for each line of its input, for run.py.
 *
 *   again ADDRESS MILLISECONDS
 *
 * Each line (stat NAME, open NAME, read OFFSET N, write OFFSET TEXT, fsync, lock OFFSET N, wait OFFSET N) is
 * answered with one: "ok ..." or "error ...". `wait` is a lock that may wait; it is sent and nothing more, `answer` then waits
 * for what becomes of it. One file is open at a time.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/fs.h"

static struct p9_client *c;
static struct p9_fh *file;
static struct waiting {
	struct p9_call call;
	bool answered;
	int ecode;
	uint8_t status;
} waiting;

static void on_lock(struct p9_call *call, const struct p9_msg *m)
{
	struct waiting *w = (struct waiting *)call;
	w->answered = true;
	w->ecode = m->type == P9_Rlerror ? (int)m->rlerror.ecode : 0;
	w->status = m->type == P9_Rlock ? m->rlock.status : 0;
}

static int begin_to_wait(uint64_t offset, uint64_t n)
{
	struct p9_msg t = { .type = P9_Tlock,
			    .tlock = { .fid = p9_fh_fid(file),
				       .type = P9_LOCK_TYPE_WRLCK,
				       .flags = P9_LOCK_FLAGS_BLOCK,
				       .start = offset,
				       .length = n,
				       .proc_id = 1,
				       .client_id = { "x", 1 } } };
	waiting = (struct waiting){ .call = { .done = on_lock, .patient = true } };
	int rc = p9_client_send(c, &t, NULL, &waiting.call);
	return rc < 0 ? rc : p9_client_work(c);
}

static void say(long long rc, const char *more)
{
	if (rc < 0) {
		printf("error %s\n", p9_client_error(c));
	} else {
		printf("ok %lld%s\n", rc, more);
	}
	fflush(stdout);
}

static void answer(void)
{
	int rc = 0;
	while (!waiting.answered && rc >= 0) {
		rc = p9_client_step(c);
	}
	printf(waiting.ecode ? "error %s\n" : "ok %s\n", waiting.ecode ? p9_error_name((uint32_t)waiting.ecode) : "");
	fflush(stdout);
}

/* A read, also into memory that the server reaches. */
static void read_some(uint64_t offset, size_t n)
{
	char *direct = p9_client_buffer(c, n), *own = malloc(n + 1);
	ssize_t a = p9_pread(file, own, n, offset), b = p9_pread(file, direct, n, offset);
	own[a > 0 ? a : 0] = 0;
	if (a != b || (a > 0 && memcmp(own, direct, (size_t)a) != 0)) {
		printf("error the two readings differ: %zd and %zd bytes\n", a, b);
	} else {
		char text[66] = " ";
		snprintf(text + 1, sizeof(text) - 1, "%.64s", own);
		say(a, text);
	}
	fflush(stdout);
	p9_client_buffer_free(c, direct);
	free(own);
}

static void obey(char *verb, char *what, char *more)
{
	struct p9_rgetattr st;
	uint64_t at = strtoull(what, NULL, 10), n = strtoull(more, NULL, 10);
	struct p9_range range = { at, n, P9_LOCK_TYPE_WRLCK };
	char text[32] = "";
	if (strcmp(verb, "stat") == 0) {
		int rc = p9_stat(c, what, &st);
		say(rc < 0 ? rc : (long long)st.size, "");
	} else if (strcmp(verb, "open") == 0) {
		if (file) {
			(void)!p9_close(file);
		}
		file = NULL;
		say(p9_open(c, what, P9_O_RDWR, &file), "");
	} else if (strcmp(verb, "answer") == 0) {
		answer();
	} else if (!file) {
		printf("error no file is open\n");
	} else if (strcmp(verb, "read") == 0) {
		read_some(at, n);
	} else if (strcmp(verb, "write") == 0) {
		say(p9_pwrite(file, more, strlen(more), at), text);
	} else if (strcmp(verb, "fsync") == 0) {
		say(p9_fsync(file, false), text);
	} else if (strcmp(verb, "lock") == 0) {
		say(p9_range_lock(file, &range), text);
	} else if (strcmp(verb, "wait") == 0) {
		say(begin_to_wait(at, n), text);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct p9_client_opts o = { .uid = geteuid(), .msize = 65536 };
	char line[4096];
	if (argc != 3) {
		return 2;
	}
	o.reconnect_ms = (uint32_t)atoi(argv[2]);
	c = p9_client_new();
	if (!c) {
		return 2;
	}
	say(p9_client_dial(c, argv[1], &o), "");
	while (fgets(line, sizeof(line), stdin)) {
		char *save = NULL;
		char *verb = strtok_r(line, " \n", &save), *what = strtok_r(NULL, " \n", &save),
		     *more = strtok_r(NULL, "\n", &save);
		obey(verb ? verb : "", what ? what : "", more ? more : "");
	}
	if (file) {
		(void)!p9_close(file);
	}
	p9_client_free(c);
	return 0;
}
