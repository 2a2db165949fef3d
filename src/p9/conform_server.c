/* SPDX-License-Identifier: BSD-2-Clause */
/* conform_server.c - the server under the kit's hands, between two checks.
 *
 * The kit keeps a connection of its own, which no check ever sees. With it the directory of each check is made before and
 * removed behind it, and after each check it tells whether the server lives: it must still answer there, and take a new
 * connection. A server that does neither has crashed or hangs, and the check before is the one that did it. The kit then
 * waits for it to be started again by whoever does that.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include "base/addr.h"
#include "p9/conform.h"

#define ANSWER_MS 10000 /* the server's own connection may be this slow */
#define BACK_MS 10000	/* how long it may stay away */
#define BACK_STEP_MS 100
#define RESTART_MS 60000

static int dial(struct conform_server *sv)
{
	const struct p9_client_opts o = { .aname = sv->cli->aname,
					  .uid = sv->cli->uid,
					  .msize = sv->cli->msize,
					  .timeout_ms = ANSWER_MS,
					  .uname = "" };
	p9_client_free(sv->client);
	sv->client = p9_client_new();
	return sv->client ? p9_client_dial(sv->client, sv->cli->addr, &o) : -P9_ENOMEM;
}

int p9_conform_connect(struct conform_server *sv)
{
	int rc = dial(sv);
	if (rc >= 0) {
		return P9_EXIT_OK;
	}
	const char *text = sv->client ? p9_client_error(sv->client) : "out of memory";
	bool refused = sv->client && !p9_client_dead(sv->client);
	p9_cli_say(sv->cli, refused ? "%s: attach: %s" : "%.0s%s", sv->cli->addr, text);
	p9_client_free(sv->client);
	sv->client = NULL;
	return P9_EXIT_CONNECT;
}

int p9_conform_begin(struct conform_server *sv)
{
	int rc = -P9_EEXIST;
	for (int i = 0; i < 8 && rc == -P9_EEXIST; i++) {
		uint32_t n = 0;
		if (getrandom(&n, sizeof(n), 0) != (ssize_t)sizeof(n)) {
			n = (uint32_t)getpid() + (uint32_t)i;
		}
		snprintf(sv->top, sizeof(sv->top), "p9-conform-%06x", n & 0xffffffu);
		rc = p9_client_mkdir(sv->client, p9_client_root(sv->client), sv->top, 0755);
	}
	if (rc < 0) {
		sv->top[0] = 0;
	}
	return rc;
}

static int walk_top(struct conform_server *sv, uint32_t *fid)
{
	struct p9_qid qid;
	return p9_client_walk1(sv->client, p9_client_root(sv->client), sv->top, fid, &qid);
}

int p9_conform_mkdir(struct conform_server *sv, const char *id)
{
	uint32_t fid;
	int rc = walk_top(sv, &fid);
	if (rc == -P9_ENOENT && sv->top[0]) { /* the server has forgotten it, coming back */
		rc = p9_client_mkdir(sv->client, p9_client_root(sv->client), sv->top, 0755);
		rc = rc < 0 ? rc : walk_top(sv, &fid);
	}
	if (rc < 0) {
		return rc;
	}
	rc = p9_client_mkdir(sv->client, fid, id, 0755);
	if (!p9_client_dead(sv->client)) {
		p9_client_clunk(sv->client, fid);
	}
	return rc;
}

void p9_conform_rmdir(struct conform_server *sv, const char *id)
{
	char *path = p9_path_join(sv->top, id);
	if (path && sv->client && !p9_client_dead(sv->client)) {
		int rc = p9_rm_tree(sv->cli, sv->client, path);
		(void)rc; /* what is left is told at the end, when the directory of all goes */
	}
	free(path);
}

/* A new connection, with a Tversion and its answer. */
static int try_new(struct conform_server *sv)
{
	const struct p9_client_opts o = {
		.aname = sv->cli->aname, .uid = sv->cli->uid, .timeout_ms = ANSWER_MS, .uname = ""
	};
	struct p9_client *c = p9_client_new();
	int rc = c ? p9_client_dial(c, sv->cli->addr, &o) : -P9_ENOMEM;
	p9_client_free(c);
	return rc;
}

static bool back(struct conform_server *sv)
{
	char out[1024];
	const struct talk_cmd cmd = { NULL, sv->restart, NULL, RESTART_MS };
	int status = sv->restart ? p9_talk_host(&cmd, out, sizeof(out)) : 0;
	if (status != 0) {
		p9_cli_say(sv->cli, "--restart: \"%s\" ended with status %d: %.800s", sv->restart, status, out);
	}
	for (int64_t until = p9_talk_now() + BACK_MS; p9_talk_now() < until && !p9_interrupted;) {
		if (dial(sv) >= 0) {
			return true;
		}
		poll(NULL, 0, BACK_STEP_MS);
	}
	return false;
}

int p9_conform_alive(struct conform_server *sv, char *why, size_t cap)
{
	struct p9_rgetattr st;
	int own = p9_client_getattr(sv->client, p9_client_root(sv->client), P9_GETATTR_MODE, &st);
	bool gone = own < 0 && p9_client_dead(sv->client);
	int fresh = gone || own >= 0 ? try_new(sv) : 0;
	if (!gone && fresh >= 0) {
		return 1;
	}
	const char *text = gone ? p9_client_error(sv->client) : p9_error_text((uint32_t)-fresh);
	bool hung = gone ? own == -P9_ETIMEDOUT : fresh == -P9_ETIMEDOUT;
	int n = snprintf(why, cap, "the server %s after this check; %s: %.300s", hung ? "hangs" : "crashed",
			 gone ? "the kit's own connection" : "a new connection", text);
	bool up = back(sv);
	snprintf(why + n, cap - (size_t)n, "\n%s", up ? "it takes connections again" : "it does not come back");
	if (!up) {
		p9_client_free(sv->client);
		sv->client = NULL;
	}
	return up ? 0 : -1;
}

bool p9_conform_end(struct conform_server *sv)
{
	int rc = 0;
	if (sv->top[0] && (!sv->client || p9_client_dead(sv->client))) {
		rc = dial(sv);
	}
	if (sv->top[0]) {
		rc = rc < 0 ? rc : p9_rm_tree(sv->cli, sv->client, sv->top);
	}
	if (rc < 0) {
		p9_cli_say(sv->cli, "%s is left behind on the server", sv->top);
	}
	p9_client_free(sv->client);
	sv->client = NULL;
	return rc >= 0;
}
