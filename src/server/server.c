/* SPDX-License-Identifier: BSD-2-Clause */
/* server.c - the server as a whole: shards (one per loop), exports, start and stop. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/fdcount.h"
#include "p9/synth.h"
#include "server/internal.h"

#define LOOPS_MAX 4
#define LANE_MAX 16 /* threads one file system of an export may hold */
#define ADMIN_MAX 4

static void retire(struct p9_thread *t)
{
	p9_cred_put((struct p9_cred *)t->ident);
	t->ident = NULL;
}

static void init_volumes(struct p9_export *ex)
{
	for (unsigned i = 0; i < P9_VOLUMES; i++) {
		ex->volume[i].lane.max = LANE_MAX;
	}
}

static unsigned descriptor_budget(void)
{
	struct rlimit rl;
	if (getrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_cur == RLIM_INFINITY) {
		return 65536;
	}
	return (unsigned)(rl.rlim_cur / 4 * 3);
}

static int init_shards(struct p9_server *srv)
{
	int rc = 0;
	srv->shards = aligned_alloc(64, (srv->nshards * sizeof(*srv->shards) + 63) / 64 * 64);
	srv->loops = calloc(srv->nshards, sizeof(struct p9_loop *));
	if (!srv->shards || !srv->loops) {
		return -P9_ENOMEM;
	}
	memset(srv->shards, 0, srv->nshards * sizeof(*srv->shards));
	for (unsigned i = 0; i < srv->nshards && rc == 0; i++) {
		struct p9_shard *sh = &srv->shards[i];
		sh->srv = srv;
		sh->loop.owner = sh;
		sh->loop.on_stolen = p9_conn_on_stolen;
		sh->flush_timer.fire = p9_flush_timer_fired;
		p9_lock_shard_init(sh);
		rc = p9_loop_init(&sh->loop, &srv->crew, srv->conf.look_us);
		srv->loops[i] = &sh->loop;
	}
	return rc;
}

int p9_server_new(const struct p9_server_config *conf, struct p9_server **out)
{
	struct p9_server *srv = calloc(1, sizeof(*srv));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (!srv) {
		return -P9_ENOMEM;
	}
	srv->conf = *conf;
	srv->nshards = conf->loops ? conf->loops : cpus > LOOPS_MAX ? LOOPS_MAX : cpus > 0 ? (unsigned)cpus : 1;
	atomic_store(&p9_fd_budget, descriptor_budget());
	p9_gate_init(&srv->hold.gate);
	srv->admin.max = ADMIN_MAX;
	srv->copies.max = cpus > 2 ? (unsigned)cpus - 1 : 1; /* a loop copies, too */
	srv->list.srv = srv;
	p9_fid_init();
	init_volumes(&srv->list);
	int rc = p9_crew_init(&srv->crew, conf->workers ? conf->workers : 64);
	srv->crew.retire = retire;
	int made = p9_sources_init(&srv->sources, conf->conns ? conf->conns : P9_CONNS_MAX);
	rc = rc < 0 ? rc : made;
	rc = rc < 0 ? rc : init_shards(srv);
	if (rc < 0) {
		p9_server_free(srv);
		return rc;
	}
	*out = srv;
	return 0;
}

int p9_server_export(struct p9_server *srv, const struct p9_export_config *conf)
{
	struct p9_export *more = realloc(srv->exports, (srv->nexports + 1) * sizeof(*more));
	if (!more) {
		return -P9_ENOMEM;
	}
	srv->exports = more;
	struct p9_export *ex = &more[srv->nexports++];
	memset(ex, 0, sizeof(*ex));
	ex->conf = *conf;
	ex->srv = srv;
	init_volumes(ex);
	return 0;
}

struct p9_loop *p9_server_loop(struct p9_server *srv, unsigned i)
{
	return &srv->shards[i].loop;
}

unsigned p9_server_conns(const struct p9_server *srv)
{
	return atomic_load(&((struct p9_server *)srv)->nconns);
}

/* The directory of exports: a tree of the parts of their names, its leaves portals. One that lies below another, by its
 * name, has no place there and is reached by the aname alone. */
static int make_list(struct p9_server *srv)
{
	int rc = p9_synth_new(&srv->list_tree);
	for (unsigned i = 0; i < srv->nexports && rc == 0; i++) {
		bool below = srv->nexports == 1; /* then nobody gets to see the list */
		for (unsigned k = 0; k < srv->nexports; k++) {
			below |= p9_export_is_below(&srv->exports[i], &srv->exports[k]);
		}
		rc = below ? 0 : p9_synth_portal(srv->list_tree, srv->exports[i].conf.name, &srv->exports[i]);
		rc = rc == -P9_EEXIST ? 0 : rc; /* reached by its name alone, too */
	}
	srv->list.conf =
		(struct p9_export_config){ .name = "", .backend = &p9_synth, .root = srv->list_tree, .ro = true };
	return rc;
}

int p9_server_start(struct p9_server *srv)
{
	int rc = make_list(srv);
	if (rc == 0) {
		rc = p9_crew_start(&srv->crew, srv->loops, srv->nshards);
	}
	srv->tick0 = p9_ticks();
	srv->ns0 = p9_now_ns();
	srv->started = rc == 0;
	return rc;
}

struct newcomer {
	struct p9_job job;
	struct p9_shard *sh;
	p9_link_make *make;
	int in, out;
	struct p9_peer peer;
};

static void turn_away(struct p9_server *srv, int in, int out, const struct p9_peer *counted)
{
	if (counted) {
		p9_sources_leave(&srv->sources, counted);
	}
	atomic_fetch_sub(&srv->nconns, 1);
	close(in);
	if (out != in) {
		close(out);
	}
}

static void adopt(struct p9_job *job, struct p9_thread *self)
{
	struct newcomer *n = (struct newcomer *)job;
	struct p9_server *srv = n->sh->srv;
	(void)self;
	if (atomic_load(&srv->stopping)) {
		turn_away(srv, n->in, n->out, &n->peer);
		free(n);
		return;
	}
	struct p9_link *link = n->make(&n->sh->loop, n->in, n->out, n->peer.make_arg);
	struct p9_conn *c = link ? p9_conn_new(n->sh, link, &n->peer) : NULL;
	if (!c) {
		if (link) {
			link->ops->free(link);
			p9_sources_leave(&srv->sources, &n->peer);
			atomic_fetch_sub(&srv->nconns, 1);
		} else {
			turn_away(srv, n->in, n->out, &n->peer);
		}
		free(n);
		return;
	}
	free(n);
	link->handshake_by = c->shard->loop.now + P9_HANDSHAKE_MS;
	p9_log_some(&srv->comings, P9_LOG_INFO, "%s: connected", c->peer.text);
	int rc = link->ops->start(link);
	if (rc < 0) {
		p9_conn_end(c, rc, "cannot wait for this kind of descriptor");
	}
}

int p9_server_accept(struct p9_server *srv, p9_link_make *make, int in, int out, const struct p9_peer *peer)
{
	struct newcomer *n = calloc(1, sizeof(*n));
	unsigned max = srv->conf.conns ? srv->conf.conns : P9_CONNS_MAX;
	bool over = atomic_fetch_add(&srv->nconns, 1) >= max || atomic_load(&srv->stopping), tell = true;
	bool known = n && !over && p9_sources_enter(&srv->sources, peer, p9_now_ns() / 1000000, &tell);
	if (!known) {
		turn_away(srv, in, out, NULL);
		int rc = !n ? -P9_ENOMEM : over ? -P9_EMFILE : tell ? -P9_EBUSY : -P9_EAGAIN;
		free(n);
		return rc;
	}
	n->sh = &srv->shards[srv->next_shard++ % srv->nshards];
	n->make = make;
	n->in = in;
	n->out = out;
	n->peer = *peer;
	n->job.run = adopt;
	atomic_fetch_add_explicit(&n->sh->accepted, 1, memory_order_relaxed);
	p9_loop_post(&n->sh->loop, &n->job);
	return 0;
}

/* ---- the end ---- */
static void end_all(struct p9_job *job, struct p9_thread *self)
{
	struct p9_shard *sh = (struct p9_shard *)((char *)job - offsetof(struct p9_shard, end_job));
	(void)self;
	for (struct p9_conn *c = sh->conns, *next; c; c = next) {
		next = c->next;
		if (!p9_link_of(c)->broken) {
			p9_link_of(c)->ops->flush(p9_link_of(c));
		}
		p9_conn_end(c, 0, "closed, the server ends");
	}
}

bool p9_server_stop(struct p9_server *srv, unsigned ms)
{
	if (!srv->started) {
		return true;
	}
	atomic_store(&srv->stopping, true);
	for (unsigned i = 0; i < srv->nshards; i++) {
		struct p9_shard *sh = &srv->shards[i];
		sh->end_job.run = end_all;
		p9_loop_post(&sh->loop, &sh->end_job);
	}
	uint64_t now = p9_now_ns(), until = now + ms * 1000000ull;
	for (; now < until && p9_server_conns(srv) > 0; now = p9_now_ns()) {
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	bool quiet = p9_server_conns(srv) == 0;
	return p9_crew_stop(&srv->crew, quiet && now < until ? (unsigned)((until - now) / 1000000) : 10) && quiet;
}

void p9_server_free(struct p9_server *srv)
{
	atomic_store(&srv->stopping, true);
	for (unsigned i = 0; srv->shards && i < srv->nshards; i++) {
		struct p9_shard *sh = &srv->shards[i];
		p9_loop_drain(&sh->loop); /* newcomers that no thread has met are turned away */
		while (sh->free_reqs) {
			struct p9_req *r = sh->free_reqs;
			sh->free_reqs = r->next;
			free(r);
		}
		while (sh->free_fids) {
			struct p9_fid *f = sh->free_fids;
			sh->free_fids = f->next;
			free(f);
		}
		p9_loop_fini(&sh->loop);
	}
	p9_synth_free(srv->list_tree);
	p9_sources_fini(&srv->sources);
	p9_gate_fini(&srv->hold.gate);
	free(srv->shards);
	free(srv->loops);
	free(srv->exports);
	free(srv);
}
