/* SPDX-License-Identifier: BSD-2-Clause */
/* stats.c - counters and latency histograms, per operation and loop; summed when somebody asks.
 *
 * A request's time runs from the end of the one before it in its batch (one clock reading per request), or, when it
 * left the loop, from its arrival.
 */
#include <string.h>
#include "server/internal.h"

static unsigned bucket(uint64_t ticks)
{
	unsigned b = ticks < 256 ? 0 : 64u - (unsigned)__builtin_clzll(ticks >> 8);
	return b < HIST_BUCKETS ? b : HIST_BUCKETS - 1;
}

static void add(_Atomic uint64_t *v, uint64_t n)
{
	/* one writer, the loop: a plain add that readers may see late */
	atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + n, memory_order_relaxed);
}

void p9_stat_count(struct p9_req *r, int rc)
{
	struct p9_opstat *s = &r->conn->shard->stat[r->type % 128];
	uint64_t now = p9_ticks();
	uint64_t took = now - r->began;
	r->conn->shard->last_tick = now;
	add(&s->count, 1);
	add(&s->ticks, took);
	add(&s->hist[bucket(took)], 1);
	if (rc < 0) {
		add(&s->errors, 1);
	}
}

static void sum(const struct p9_server *srv, unsigned type, struct p9_opstat *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < srv->nshards; i++) {
		struct p9_opstat *s = &srv->shards[i].stat[type];
		out->count += s->count;
		out->errors += s->errors;
		out->ticks += s->ticks;
		for (unsigned b = 0; b < HIST_BUCKETS; b++) {
			out->hist[b] += s->hist[b];
		}
	}
}

static double quantile(const struct p9_opstat *s, double q)
{
	uint64_t want = (uint64_t)((double)s->count * q), seen = 0;
	for (unsigned b = 0; b < HIST_BUCKETS; b++) {
		seen += s->hist[b];
		if (seen > want) {
			return (double)(256ull << b);
		}
	}
	return 0;
}

unsigned p9_server_fids(const struct p9_server *srv)
{
	unsigned n = 0;
	for (unsigned i = 0; i < srv->nshards; i++) {
		n += atomic_load(&srv->shards[i].nfids);
	}
	return n;
}

void p9_server_stats(struct p9_server *srv, FILE *f)
{
	uint64_t accepted = 0;
	/* microseconds per tick, measured over the server's life */
	double us = (double)(p9_now_ns() - srv->ns0) / (double)(p9_ticks() - srv->tick0 + 1) / 1000.0;
	for (unsigned i = 0; i < srv->nshards; i++) {
		accepted += srv->shards[i].accepted;
	}
	fprintf(f, "p9d: %u connections, %llu since the start; %u fids; %u threads\n", p9_server_conns(srv),
		(unsigned long long)accepted, p9_server_fids(srv), atomic_load(&srv->crew.nthreads));
	fprintf(f, "p9d: %-12s %12s %10s %10s %10s %10s %10s\n", "operation", "count", "errors", "mean us", "p50 us<",
		"p99 us<", "p99.9 us<");
	for (unsigned t = 0; t < 128; t++) {
		struct p9_opstat s;
		const struct p9_desc *d = p9_wire_desc(t);
		sum(srv, t, &s);
		if (s.count == 0) {
			continue;
		}
		fprintf(f, "p9d: %-12s %12llu %10llu %10.2f %10.2f %10.2f %10.2f\n", d ? d->name : "(unknown)",
			(unsigned long long)s.count, (unsigned long long)s.errors,
			(double)s.ticks / (double)s.count * us, quantile(&s, 0.5) * us, quantile(&s, 0.99) * us,
			quantile(&s, 0.999) * us);
		fprintf(f, "p9d: %-12s", "  histogram");
		for (unsigned b = 0; b < HIST_BUCKETS; b++) {
			if (s.hist[b]) {
				fprintf(f, " <%.4gus:%llu", (double)(256ull << b) * us, (unsigned long long)s.hist[b]);
			}
		}
		fprintf(f, "\n");
	}
	fflush(f);
}
