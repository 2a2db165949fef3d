/* SPDX-License-Identifier: BSD-2-Clause */
/* copy.c - jobs of get and put: making, complaining, going on, ending.
 *
 * A job is one file. Its control requests follow each other by callbacks; its bytes go by a transfer (xfer.c) that the
 * pump lets go on. All transfers share one pool of buffers, so that a copy takes some megabytes whatever it copies.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "p9/copy.h"

int p9_copy_begin(struct p9_copy *copy, struct p9_cli *cli, const struct p9_tree_ops *ops)
{
	int code = p9_cli_dial(cli, &copy->client);
	if (code != P9_EXIT_OK) {
		return code;
	}
	uint32_t chunk = p9_client_iosize(copy->client, 0);
	copy->cli = cli;
	copy->pool = p9_pool_new(chunk < P9_COPY_CHUNK ? chunk : P9_COPY_CHUNK, P9_COPY_BUFFERS);
	copy->tree = (struct p9_tree){ .cli = cli, .client = copy->client, .ops = ops, .arg = copy };
	copy->rootfd = -1;
	if (!copy->pool) {
		p9_client_free(copy->client);
		return p9_cli_fail(cli, NULL, "buffers", P9_ENOMEM);
	}
	p9_catch_signals();
	return P9_EXIT_OK;
}

int p9_copy_end(struct p9_copy *copy)
{
	int rc = p9_tree_run(&copy->tree);
	p9_progress_end(&copy->progress);
	if (rc < 0) {
		p9_cli_fail(copy->cli, copy->client, "", rc);
		for (unsigned i = 0; i < P9_TREE_JOBS; i++) {
			if (copy->jobs[i] && copy->abandon) {
				copy->abandon(copy->jobs[i]);
			}
			p9_job_free(copy->jobs[i]);
		}
	} else if (p9_interrupted) {
		p9_cli_say(copy->cli, "interrupted");
	}
	bool failed = rc < 0 || copy->tree.failed || p9_interrupted;
	p9_tree_fini(&copy->tree);
	p9_pool_free(copy->pool);
	p9_client_free(copy->client);
	free(copy->put_name);
	if (copy->rootfd >= 0) {
		close(copy->rootfd);
	}
	return failed ? P9_EXIT_FAILED : P9_EXIT_OK;
}

struct p9_job *p9_job_new(struct p9_copy *copy, struct p9_dir *dir, char *name)
{
	struct p9_job *j = name ? calloc(1, sizeof(*j)) : NULL;
	if (!j) {
		free(name);
		copy->tree.failed = true;
		p9_cli_fail(copy->cli, NULL, "copying", P9_ENOMEM);
		return NULL;
	}
	j->copy = copy;
	j->dir = dir;
	j->name = name;
	j->fid = P9_NOFID;
	j->localfd = -1;
	for (unsigned i = 0; i < P9_TREE_JOBS; i++) {
		if (!copy->jobs[i]) {
			copy->jobs[i] = j;
			break;
		}
	}
	p9_tree_job_begin(&copy->tree, dir);
	return j;
}

void p9_job_free(struct p9_job *j)
{
	if (!j) {
		return;
	}
	for (unsigned i = 0; i < P9_TREE_JOBS; i++) {
		if (j->copy->jobs[i] == j) {
			j->copy->jobs[i] = NULL;
		}
	}
	if (j->localfd >= 0) {
		close(j->localfd);
	}
	free(j->name);
	free(j);
}

void p9_job_fail(struct p9_job *j, const char *name, int rc)
{
	j->copy->tree.failed = true;
	if (j->error || p9_client_dead(j->copy->client)) {
		return;
	}
	j->error = rc;
	if (name || !j->dir) {
		p9_cli_fail(j->copy->cli, j->copy->client, name ? name : j->name, rc);
	} else {
		p9_tree_say(j->dir, j->name, rc);
	}
}

bool p9_job_send(struct p9_job *j, struct p9_msg *t, void (*done)(struct p9_call *call, const struct p9_msg *r))
{
	j->call.done = done;
	return p9_client_send(j->copy->client, t, NULL, &j->call) >= 0;
}

void p9_copy_pump(struct p9_tree *t)
{
	struct p9_copy *copy = t->arg;
	for (unsigned i = 0; i < P9_TREE_JOBS; i++) {
		struct p9_job *j = copy->jobs[i];
		if (!j || !j->moving || p9_client_room(copy->client) == 0) {
			continue;
		}
		if (t->abort) {
			p9_xfer_stop(&j->xfer, -P9_EINTR);
		}
		p9_xfer_more(&j->xfer);
	}
}
