/* SPDX-License-Identifier: BSD-2-Clause */
/* fs_lock.c - byte-range locks of an open file.
 *
 * The owner is this process on this host, as the Linux client tells it. A request that waits at the server is a patient
 * one: the handle's own timeout does not count for it. A server that answers "blocked" to one that asked to wait cannot
 * wait; it is asked again, less and less often.
 */
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "client/fs.h"
#include "client/queue.h"

#define AGAIN_FIRST_MS 20
#define AGAIN_LAST_MS 1000

struct owner {
	char host[256];
	struct p9_str id;
};

static void who_am_i(struct owner *o)
{
	if (gethostname(o->host, sizeof(o->host)) < 0 || !o->host[0]) {
		memcpy(o->host, "localhost", sizeof("localhost"));
	}
	o->host[sizeof(o->host) - 1] = 0;
	o->id = (struct p9_str){ o->host, (uint16_t)strlen(o->host) };
}

/* Returns 0, -P9_EAGAIN while somebody else holds it, or another error. */
static int ask(struct p9_fh *f, const struct p9_range *r, uint8_t type, uint32_t flags)
{
	struct owner me;
	struct p9_queue q;
	struct p9_op op = { .call = { .patient = true }, .msg = { .type = P9_Tlock } };
	who_am_i(&me);
	op.msg.tlock = (struct p9_tlock){ .fid = f->fid,
					  .type = type,
					  .flags = flags,
					  .start = r->start,
					  .length = r->length,
					  .proc_id = (uint32_t)getpid(),
					  .client_id = me.id };
	p9_queue_init(&q, f->client);
	p9_queue_send(&q, &op);
	bool answered = p9_queue_next(&q) != NULL;
	p9_queue_fini(&q);
	if (!answered || p9_op_error(&op) < 0) {
		return answered ? p9_op_error(&op) : p9_client_link_error(f->client);
	}
	switch (op.msg.rlock.status) {
	case P9_LOCK_SUCCESS:
		return 0;
	case P9_LOCK_BLOCKED:
	case P9_LOCK_GRACE:
		return -P9_EAGAIN;
	case P9_LOCK_ERROR:
		return -P9_ENOLCK;
	default:
		return -P9_EPROTO;
	}
}

static int result(struct p9_fh *f, int rc)
{
	return rc < 0 && !p9_client_dead(f->client) ? p9_client_set_error(f->client, rc) : rc;
}

int p9_range_lock(struct p9_fh *f, const struct p9_range *r)
{
	long ms = AGAIN_FIRST_MS;
	for (;;) {
		int rc = ask(f, r, r->type, P9_LOCK_FLAGS_BLOCK);
		if (rc != -P9_EAGAIN) {
			return result(f, rc);
		}
		struct timespec t = { ms / 1000, ms % 1000 * 1000000 };
		nanosleep(&t, NULL);
		ms = 2 * ms < AGAIN_LAST_MS ? 2 * ms : AGAIN_LAST_MS;
	}
}

int p9_range_trylock(struct p9_fh *f, const struct p9_range *r)
{
	return result(f, ask(f, r, r->type, 0));
}

int p9_range_unlock(struct p9_fh *f, const struct p9_range *r)
{
	return result(f, ask(f, r, P9_LOCK_TYPE_UNLCK, 0));
}

int p9_range_test(struct p9_fh *f, const struct p9_range *r, struct p9_range *holder)
{
	struct owner me;
	struct p9_rgetlock found;
	who_am_i(&me);
	struct p9_tgetlock t = { .fid = f->fid,
				 .type = r->type,
				 .start = r->start,
				 .length = r->length,
				 .proc_id = (uint32_t)getpid(),
				 .client_id = me.id };
	int rc = p9_client_getlock(f->client, &t, &found);
	if (rc < 0 || found.type == P9_LOCK_TYPE_UNLCK) {
		return rc;
	}
	bool sane = found.type <= P9_LOCK_TYPE_UNLCK && found.start <= INT64_MAX &&
		    found.length <= UINT64_C(0x8000000000000000) - found.start;
	*holder = (struct p9_range){ found.start, found.length, found.type };
	return sane ? 1 : p9_client_set_error(f->client, P9_EPROTO);
}
