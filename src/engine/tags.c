/* SPDX-License-Identifier: BSD-2-Clause */
/* tags.c - request slots, whose numbers are the tags, and fids.
 *
 * Called by engine.c and by clients that choose fids. Tags are handed out in the order in which they came back, so that
 * a late second reply to one meets a free slot, and not the request that took its place. Fids come from a bitmap and
 * stay small numbers: servers keep tables by them.
 */
#include "engine/engine.h"

#define FID_WORDS_MIN 16u /* 1024 fids */

struct p9_slot *p9_engine_slot_get(struct p9_engine *e, uint8_t type)
{
	struct p9_slot *s = &e->slots[e->ntags];
	if (type != P9_Tversion) {
		if (e->nfree == 0) {
			return NULL;
		}
		s = &e->slots[e->free_first];
		e->free_first = s->next;
		e->nfree--;
	} else if (s->state != P9_SLOT_FREE) {
		return NULL;
	}
	*s = (struct p9_slot){ .type = type, .state = P9_SLOT_SENT, .fid = P9_NOFID, .oldtag = P9_NOTAG };
	return s;
}

void p9_engine_slot_put(struct p9_engine *e, struct p9_slot *s)
{
	uint16_t tag = (uint16_t)(s - e->slots);
	e->nquiet -= s->quiet;
	s->quiet = false;
	s->state = P9_SLOT_FREE;
	s->user = NULL;
	if (tag == e->ntags) {
		return;
	}
	if (e->nfree == 0) {
		e->free_first = tag;
	} else {
		e->slots[e->free_last].next = tag;
	}
	e->free_last = tag;
	e->nfree++;
}

/* Fids go round in a window at least twice as wide as what is in use: some servers answer a clunk before they have
 * forgotten the fid, and would refuse it if it came back at once. */
int p9_engine_fid_get(struct p9_engine *e, uint32_t *fid)
{
	if (e->nfids_used == e->nfids) {
		return -P9_EMFILE;
	}
	uint32_t all = (e->nfids + 63) / 64;
	uint32_t want = e->nfids_used / 32 + FID_WORDS_MIN;
	uint32_t words = want < all ? want : all;
	uint32_t w = e->fid_next / 64, bit = e->fid_next % 64;
	uint64_t taken = w < words ? e->fids[w] | ((UINT64_C(1) << bit) - 1) : UINT64_MAX;
	while (taken == UINT64_MAX) {
		w = w + 1 < words ? w + 1 : 0;
		taken = e->fids[w];
	}
	bit = (uint32_t)__builtin_ctzll(~taken);
	e->fids[w] |= UINT64_C(1) << bit;
	e->nfids_used++;
	e->fid_next = *fid = w * 64 + bit;
	e->fid_next++;
	return 0;
}

void p9_engine_fid_put(struct p9_engine *e, uint32_t fid)
{
	if (fid >= e->nfids) {
		return;
	}
	uint64_t bit = UINT64_C(1) << (fid % 64);
	if (e->fids[fid / 64] & bit) {
		e->fids[fid / 64] &= ~bit;
		e->nfids_used--;
	}
}

void p9_engine_fid_hold(struct p9_engine *e, uint32_t fid)
{
	if (fid >= e->nfids) {
		return;
	}
	uint64_t bit = UINT64_C(1) << (fid % 64);
	if (!(e->fids[fid / 64] & bit)) {
		e->fids[fid / 64] |= bit;
		e->nfids_used++;
	}
}
