/* SPDX-License-Identifier: BSD-2-Clause */
/* lock_pack.c - locks as they go from one p9d to the next: with the descriptors that hold them, so that nobody else can have
 * them meanwhile. Called by the server when nothing else is at work. An owner counts for its session afterwards as it did.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "backend/local/locks.h"
#include "base/pack.h"

static void pack_owner(const struct inode *in, const struct owner *o, struct p9_pack *p)
{
	p9_pack_number(p, 1);
	p9_pack_number(p, in->major);
	p9_pack_number(p, in->minor);
	p9_pack_number(p, in->ino);
	p9_pack_thing(p, o->session);
	p9_pack_thing(p, o->held);
	p9_pack_number(p, o->proc_id);
	p9_pack_bytes(p, o->client_id, o->client_len);
	p9_pack_fd(p, o->fd);
	p9_pack_number(p, o->writable);
	for (const struct range *r = o->ranges; r; r = r->next) {
		if (!p9_pack_knows(p, r->fid)) {
			p9_pack_fail(p, "a lock whose fid is gone");
		}
		p9_pack_number(p, 1);
		p9_pack_number(p, r->start);
		p9_pack_number(p, r->end);
		p9_pack_number(p, r->type);
		p9_pack_thing(p, r->fid);
	}
	p9_pack_number(p, 0);
}

/* Owners whose session has ended are left out: their locks end with this process. */
void llocks_pack(void *root, struct p9_pack *p)
{
	struct llocks *l = ((struct lroot *)root)->locks;
	if (pthread_mutex_trylock(&l->mutex) != 0) {
		p9_pack_fail(p, "a lock is being taken, by a call that hangs");
		return;
	}
	for (unsigned i = 0; i < BUCKETS; i++) {
		for (const struct inode *in = l->table[i]; in; in = in->next) {
			for (const struct owner *o = in->owners; o; o = o->next) {
				if (p9_pack_knows(p, o->session)) {
					pack_owner(in, o, p);
				}
			}
		}
	}
	p9_pack_number(p, 0);
	pthread_mutex_unlock(&l->mutex);
}

static void unpack_ranges(struct owner *o, struct p9_unpack *u)
{
	struct range **end = &o->ranges;
	while (p9_unpack_flag(u)) {
		void *fid;
		struct range *r = calloc(1, sizeof(*r));
		if (!r) {
			p9_unpack_fail(u, "out of memory");
			return;
		}
		r->start = p9_unpack_number(u, TO_EOF);
		r->end = p9_unpack_number(u, TO_EOF);
		r->type = (uint8_t)p9_unpack_number(u, P9_LOCK_TYPE_WRLCK);
		if (p9_unpack_thing(u, P9_THING_FID, &fid) || !fid || r->end < r->start) {
			p9_unpack_fail(u, "a lock of no fid, or of nothing");
			free(r);
			return;
		}
		r->fid = fid;
		*end = r;
		end = &r->next;
		atomic_fetch_add(o->held, 1);
	}
}

static void unpack_owner(struct llocks *l, struct p9_unpack *u)
{
	uint32_t major = (uint32_t)p9_unpack_number(u, UINT32_MAX), minor = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	uint64_t ino = p9_unpack_number(u, UINT64_MAX);
	void *session, *held;
	size_t n;
	uint32_t fresh = p9_unpack_thing(u, P9_THING_CONN, &session);
	fresh |= p9_unpack_thing(u, P9_THING_HELD, &held);
	uint32_t proc_id = (uint32_t)p9_unpack_number(u, UINT32_MAX);
	const uint8_t *name = p9_unpack_bytes(u, UINT16_MAX, &n);
	int fd = p9_unpack_fd(u);
	struct inode **pi = llocks_find(l, major, minor, ino);
	struct owner *o = calloc(1, sizeof(*o) + n);
	struct inode *in = *pi ? *pi : calloc(1, sizeof(*in));
	if (!o || !in || fresh || !session || !held || fd < 0) {
		p9_unpack_fail(u, "a lock of nobody, or without memory");
		if (fd >= 0) {
			close(fd);
		}
		if (in != *pi) {
			free(in);
		}
		free(o);
		return;
	}
	*pi = in;
	in->major = major;
	in->minor = minor;
	in->ino = ino;
	o->next = in->owners;
	in->owners = o;
	o->session = session;
	o->held = held;
	o->proc_id = proc_id;
	o->client_len = (uint16_t)n;
	memcpy(o->client_id, name, n);
	o->fd = fd;
	p9_fd_count(1);
	atomic_fetch_add(o->held, o->client_len / NAME_UNIT);
	o->writable = p9_unpack_flag(u);
	unpack_ranges(o, u);
	llocks_tidy(pi);
}

void llocks_unpack(void *root, struct p9_unpack *u)
{
	struct llocks *l = ((struct lroot *)root)->locks;
	pthread_mutex_lock(&l->mutex);
	while (p9_unpack_flag(u)) {
		unpack_owner(l, u);
	}
	pthread_mutex_unlock(&l->mutex);
}
