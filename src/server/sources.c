/* SPDX-License-Identifier: BSD-2-Clause */
/* sources.c - remote addresses and how many of their connections have not attached yet.
 *
 * A stranger costs us a connection and a descriptor before it has said who it is. Each address may have P9_PREAUTH_MAX of
 * those; what is beyond is turned away, and said once per minute, so that one address can neither take all places nor
 * fill the log. An IPv6 source is its /64: a host has the whole of one to choose from. Peers on this machine are not
 * counted.
 * Called by server.c when a connection comes, on the loop that accepts, and by the loop of a connection when it attaches
 * or ends. The table is as large as the number of connections, so a free place is always there.
 */
#include <stdlib.h>
#include <string.h>
#include "server/internal.h"

#define TELL_MS 60000

struct p9_origin {
	uint8_t key[16];
	unsigned pending;
	uint64_t told; /* when it was last said that this one was turned away; 0 for never */
};

static struct p9_origin *find(struct p9_sources *t, const uint8_t key[16])
{
	struct p9_origin *place = NULL;
	for (unsigned i = 0; i < t->max; i++) {
		struct p9_origin *o = &t->all[i];
		if (memcmp(o->key, key, sizeof(o->key)) == 0) {
			return o;
		}
		if (o->pending == 0 && (!place || o->told < place->told)) {
			place = o;
		}
	}
	if (place) { /* the one whose last misdeed is longest ago is forgotten */
		*place = (struct p9_origin){ .pending = 0 };
		memcpy(place->key, key, sizeof(place->key));
	}
	return place;
}

int p9_sources_init(struct p9_sources *t, unsigned max)
{
	p9_lock_init(&t->lock);
	t->max = max;
	t->all = calloc(max, sizeof(*t->all));
	return t->all ? 0 : -P9_ENOMEM;
}

void p9_sources_fini(struct p9_sources *t)
{
	free(t->all);
	p9_lock_fini(&t->lock);
}

bool p9_sources_enter(struct p9_sources *t, const struct p9_peer *peer, uint64_t now, bool *tell)
{
	*tell = true;
	if (!peer->remote) {
		return true;
	}
	p9_lock(&t->lock);
	struct p9_origin *o = find(t, peer->source);
	bool in = o && o->pending < P9_PREAUTH_MAX;
	if (in) {
		o->pending++;
	} else if (o) {
		*tell = o->told == 0 || now - o->told >= TELL_MS;
		o->told = *tell ? now : o->told;
	}
	p9_unlock(&t->lock);
	return in;
}

void p9_sources_leave(struct p9_sources *t, const struct p9_peer *peer)
{
	if (!peer->remote) {
		return;
	}
	p9_lock(&t->lock);
	struct p9_origin *o = find(t, peer->source);
	if (o && o->pending > 0) {
		o->pending--;
	}
	p9_unlock(&t->lock);
}
