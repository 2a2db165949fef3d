/* SPDX-License-Identifier: BSD-2-Clause */
/* requests.c - requests and their callbacks, the waiting, and the library's thread.
 *
 * Everything that a program does with a server goes through p9_client_send(); the functions that block are the same
 * with a callback of their own. Whoever moves the bytes (step, work, or the thread) runs the callbacks.
 * Must stay true: one callback at a time, never under the lock; each request gets exactly one, by its reply, its
 * deadline, or the link's end. Only the mover touches the engine's input, so what a reply points to holds still while
 * other threads submit.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "base/hosterr.h"
#include "client/recover.h"

#define GRACE_MS 5000 /* how long a server may be silent after a request's deadline before the link counts as lost */
#define PULLS_MAX 8   /* at once, so that a fast server does not keep p9_client_work() for ever */
#define LONG_NS 25000 /* that callbacks may take before what they have sent goes out */

uint64_t p9_client_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000 + 1;
}

void p9_client_enter(struct p9_client *c)
{
	if (c->threaded) {
		pthread_mutex_lock(&c->lock);
	}
}

void p9_client_leave(struct p9_client *c)
{
	if (c->threaded) {
		pthread_mutex_unlock(&c->lock);
	}
}

static bool in_thread(const struct p9_client *c)
{
	return c->threaded && pthread_equal(pthread_self(), c->thread);
}

static void ring(struct p9_client *c)
{
	uint64_t one = 1;
	if (write(c->bell, &one, sizeof(one)) < 0) {
		return; /* full: rung already */
	}
}

/* While a lost link is looked for, there is none. */
static unsigned room(const struct p9_client *c)
{
	return p9_recover_busy(c) ? 0 : p9_engine_room(&c->engine);
}

/* The link has ended for good. */
static bool ended(const struct p9_client *c)
{
	return c->engine.error && !p9_recover_hope(c);
}

/* Requests without an answer. */
static unsigned pending(const struct p9_client *c)
{
	return p9_engine_pending(&c->engine) + (c->recover ? p9_recover_pending(c) : 0);
}

/* Whether there is no link at all, only hope. */
static bool offline(const struct p9_client *c)
{
	return c->recover && (c->recover->state == P9_RECOVER_WAIT || c->recover->state == P9_RECOVER_CONNECT);
}

unsigned p9_client_room(const struct p9_client *cc)
{
	struct p9_client *c = (struct p9_client *)(uintptr_t)cc;
	p9_client_enter(c);
	unsigned n = room(c);
	p9_client_leave(c);
	return n;
}

unsigned p9_client_pending(const struct p9_client *cc)
{
	struct p9_client *c = (struct p9_client *)(uintptr_t)cc;
	p9_client_enter(c);
	unsigned n = c->mem ? pending(c) : 0;
	p9_client_leave(c);
	return n;
}

/* Requests that the handle's timeout counts for. */
static bool impatient(const struct p9_client *c)
{
	return p9_engine_pending(&c->engine) > c->npatient;
}

static int submit(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_call *call)
{
	if (!c->mem) {
		return p9_client_set_error(c, P9_ENOTCONN);
	}
	bool was = impatient(c);
	int rc = c->recover ? p9_recover_submit(c, msg, dst, call) : p9_engine_submit(&c->engine, msg, dst, call);
	if (rc < 0) {
		return ended(c) ? p9_client_link_error(c) : p9_client_set_error(c, rc);
	}
	call->tag = (uint16_t)rc;
	if (rc == P9_NOTAG) {
		return rc; /* answered without the server */
	}
	c->npatient += call->patient;
	if ((!was && c->timeout_ms) || call->timeout_ms) {
		uint64_t now = p9_client_now();
		c->heard = was ? c->heard : now;
		p9_engine_deadline(&c->engine, call->tag, call->timeout_ms ? now + call->timeout_ms : 0);
	}
	return rc;
}

int p9_client_send(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_call *call)
{
	p9_client_enter(c);
	int rc = submit(c, msg, dst, call);
	p9_client_leave(c);
	if (rc >= 0 && c->threaded && !in_thread(c)) {
		ring(c);
	}
	return rc;
}

int p9_client_cancel(struct p9_client *c, struct p9_call *call)
{
	int rc = -P9_EINVAL;
	p9_client_enter(c);
	if (c->mem && call->tag < c->engine.ntags) {
		const struct p9_slot *s = &c->engine.slots[call->tag];
		bool mine = s->state == P9_SLOT_SENT && s->user == call;
		rc = ended(c) ? c->engine.error : mine ? p9_engine_flush(&c->engine, call->tag, NULL) : rc;
	}
	rc = rc == -P9_EINVAL && c->recover && p9_recover_cancel(c, call) ? 0 : rc;
	p9_client_leave(c);
	if (rc >= 0 && c->threaded && !in_thread(c)) {
		ring(c);
	}
	return rc < 0 ? rc : 0;
}

/* p9_engine_next() on a handle that may reconnect: some answers are not the engine's, some replies are not the program's,
 * and a link's end may be none. */
static int take_recovering(struct p9_client *c, struct p9_reply *r)
{
	int rc;
	do {
		if (p9_recover_answer(c, r)) {
			r->msg.tag = P9_NOTAG;
			return 1;
		}
		rc = p9_engine_next(&c->engine, r);
	} while ((rc > 0 && p9_recover_reply(c, r)) || (rc < 0 && p9_recover_lost(c)));
	return rc < 0 && p9_recover_answer(c, r) ? 1 : rc;
}

/* Takes the next reply out, or after the link's end the next request. Returns 1, 0, or the link's error. */
static int take(struct p9_client *c, struct p9_reply *r)
{
	p9_client_enter(c);
	int rc = c->recover ? take_recovering(c, r) : p9_engine_next(&c->engine, r);
	if (rc < 0) {
		if (c->carrier->hang_up) {
			c->carrier->hang_up(c);
		}
		rc = p9_engine_drain(&c->engine, r) ? 1 : rc;
	}
	if (rc > 0 && r->msg.tag != P9_NOTAG) {
		c->npatient -= ((struct p9_call *)r->user)->patient;
	}
	p9_client_leave(c);
	return rc;
}

/* Runs the callbacks of all replies that are there. Returns how many, or the link's error after the last of all. Callbacks
 * that take long, with files of their own to write, shall not keep what they have sent from the server meanwhile. */
static int dispatch(struct p9_client *c)
{
	struct p9_reply r;
	int ran = 0, rc;
	uint64_t sent = 0;
	while ((rc = take(c, &r)) > 0) {
		struct p9_call *call = r.user;
		uint64_t now = p9_spin_clock();
		if (sent && now - sent > LONG_NS && !offline(c)) {
			p9_client_enter(c);
			(void)!p9_client_push(c); /* an error comes with the next reply to be taken */
			p9_client_leave(c);
			sent = now;
		}
		sent = sent ? sent : now;
		call->done(call, &r.msg);
		ran++;
	}
	return rc < 0 ? p9_client_link_error(c) : ran;
}

/* Lets deadlines pass. Returns the milliseconds until the next one, -1 for none. */
static int look_at_deadlines(struct p9_client *c)
{
	bool silence = c->timeout_ms && impatient(c);
	if (c->engine.next_due == UINT64_MAX && !silence) {
		return -1;
	}
	uint64_t now = p9_client_now();
	uint64_t next = p9_engine_expire(&c->engine, now, GRACE_MS);
	if (silence) {
		uint64_t end = c->heard + (uint64_t)c->timeout_ms;
		if (now >= end) {
			char text[80];
			snprintf(text, sizeof(text), "the server did not answer for %d s", c->timeout_ms / 1000);
			p9_engine_fail(&c->engine, P9_ETIMEDOUT, text);
			return 0;
		}
		next = end < next ? end : next;
	}
	if (c->engine.noverdue || c->engine.error) {
		return 0;
	}
	return next == UINT64_MAX ? -1 : next - now < 3600000 ? (int)(next - now) : 3600000;
}

/* The same, and lets the search for a lost link go on. */
static int look_at_clock(struct p9_client *c)
{
	int found = p9_recover_busy(c) ? p9_recover_tick(c) : -1;
	if (found >= 0 && (offline(c) || found == 0)) {
		return found;
	}
	int ms = look_at_deadlines(c);
	return found >= 0 && (ms < 0 || found < ms) ? found : ms;
}

static bool out_waits(const struct p9_client *c)
{
	struct p9_engine_iov v[1];
	return p9_engine_out(&c->engine, v, 1) > 0;
}

static unsigned what_to_poll(struct p9_client *c, struct pollfd v[2], bool out, bool *now)
{
	*now = false;
	if (offline(c)) {
		v[0] = (struct pollfd){ .fd = c->recover->fd, .events = POLLOUT };
		return 1;
	}
	return c->carrier->watch(c, v, out, now);
}

static int note(struct p9_client *c, int got)
{
	if (got > 0 && c->timeout_ms) {
		c->heard = p9_client_now();
	}
	return got;
}

static int pull_and_note(struct p9_client *c)
{
	return note(c, p9_client_pull(c, false));
}

/* Sends and receives what can be now. Returns whether anything came, or the link's error. */
static int move(struct p9_client *c)
{
	if (offline(c)) {
		return 0;
	}
	int sent = p9_client_push(c);
	int got = sent < 0 ? sent : pull_and_note(c);
	if (got == 0 && sent == P9_PUSH_CLOSED) {
		return p9_engine_fail(&c->engine, P9_EPIPE, "the server closed the connection");
	}
	return got;
}

/* Waits for the descriptors or the next deadline. Returns 0 after a signal, else 1. */
static int wait_once(struct p9_client *c, int ms)
{
	struct pollfd v[2];
	bool now;
	if (c->carrier->wait && !offline(c)) {
		return c->carrier->wait(c, ms);
	}
	unsigned n = what_to_poll(c, v, out_waits(c), &now);
	int k = poll(v, n, ms);
	return k >= 0 || errno != EINTR;
}

/* Sends what waits, then receives, waiting for it. Returns 0 after a signal, 1, or the link's error. */
static int exchange(struct p9_client *c)
{
	int sent = offline(c) ? P9_PUSH_ALL : p9_client_push(c);
	int ms = sent < 0 ? 0 : look_at_clock(c);
	if (sent < 0 || ms == 0) {
		return sent < 0 ? sent : 1;
	}
	if (offline(c)) {
		return wait_once(c, ms);
	}
	int got = sent == P9_PUSH_ALL && c->in_socket ? p9_client_look(c) : 0;
	if (got != 0) {
		return note(c, got) < 0 ? got : 1;
	}
	if (sent == P9_PUSH_ALL && ms < 0 && c->in_socket) {
		got = p9_client_pull(c, true);
		p9_spin_slept(&c->spin);
		if (got != 0 || errno == EINTR) {
			return got;
		}
	}
	if (sent != P9_PUSH_CLOSED && !wait_once(c, ms)) {
		return 0;
	}
	p9_spin_slept(&c->spin);
	got = pull_and_note(c);
	if (got == 0 && sent == P9_PUSH_CLOSED) {
		return p9_engine_fail(&c->engine, P9_EPIPE, "the server closed the connection");
	}
	return got < 0 ? got : 1;
}

int p9_client_step(struct p9_client *c)
{
	if (!c->mem || c->threaded) {
		return p9_client_set_error(c, c->mem ? P9_EDEADLK : P9_ENOTCONN);
	}
	for (;;) {
		int ran = dispatch(c);
		if (ran != 0 || (pending(c) == 0 && !p9_recover_busy(c))) {
			return ran;
		}
		if (exchange(c) == 0) {
			return 0;
		}
	}
}

int p9_client_work(struct p9_client *c)
{
	int ran = 0, got = P9_PULL_FULL;
	if (!c->mem) {
		return p9_client_set_error(c, P9_ENOTCONN);
	}
	for (int i = 0; i < PULLS_MAX && got == P9_PULL_FULL; i++) {
		int n = dispatch(c);
		if (n < 0) {
			return n;
		}
		ran += n;
		got = move(c);
		look_at_clock(c);
	}
	int n = dispatch(c);
	if (n > 0 && p9_client_push(c) < 0) { /* what the callbacks have sent */
		n = dispatch(c);
	}
	return n < 0 ? n : ran + n;
}

unsigned p9_client_poll(struct p9_client *c, struct pollfd v[2], int *timeout_ms)
{
	bool now = true;
	if (!c->mem) {
		*timeout_ms = 0;
		v[0] = (struct pollfd){ .fd = -1 };
		return 1;
	}
	int ms = !c->engine.error && !(c->recover && c->recover->answers) ? look_at_clock(c) : 0;
	unsigned n = what_to_poll(c, v, out_waits(c), &now);
	*timeout_ms = now ? 0 : ms;
	return n;
}

/* ---- one request, one reply ---- */
struct sync {
	struct p9_call call;
	struct p9_client *client;
	struct p9_msg *reply;
	char *text; /* with a thread: the string in the reply, which would not live as long as the caller's view of it */
	bool done;
};

static struct p9_str *string_of(struct p9_msg *r)
{
	return r->type == P9_Rreadlink ? &r->rreadlink.target : r->type == P9_Rgetlock ? &r->rgetlock.client_id : NULL;
}

static void sync_done(struct p9_call *call, const struct p9_msg *reply)
{
	struct sync *s = (struct sync *)call;
	p9_client_enter(s->client);
	*s->reply = *reply;
	struct p9_str *str = string_of(s->reply);
	if (str && s->client->threaded) {
		s->text = malloc(str->len + 1u);
		str->len = s->text ? str->len : 0;
		memcpy(s->text ? s->text : (char[1]){ 0 }, str->s, str->len);
		str->s = s->text;
	}
	s->done = true;
	p9_client_leave(s->client);
}

int p9_client_await(struct p9_client *c, const bool *flag)
{
	if (!c->threaded) {
		while (!*flag) {
			int rc = p9_client_step(c);
			if (rc < 0) {
				return rc;
			}
		}
		return 0;
	}
	pthread_mutex_lock(&c->lock);
	while (!*flag && !c->ending) {
		pthread_cond_wait(&c->news, &c->lock);
	}
	bool set = *flag;
	pthread_mutex_unlock(&c->lock);
	return set ? 0 : p9_client_link_error(c);
}

/* The text of the last threaded reply lives until the thread's next. */
static pthread_key_t text_key;
static pthread_once_t text_once = PTHREAD_ONCE_INIT;
static void make_text_key(void)
{
	(void)pthread_key_create(&text_key, free);
}

static void keep_text(char *text)
{
	pthread_once(&text_once, make_text_key);
	free(pthread_getspecific(text_key));
	(void)pthread_setspecific(text_key, text);
}

/* Sends when there is room. */
static int send_waiting(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_call *call)
{
	for (;;) {
		int rc = p9_client_send(c, msg, dst, call);
		if (rc != -P9_EAGAIN) {
			return rc;
		}
		if (!c->threaded) {
			rc = p9_client_step(c);
			if (rc < 0) {
				return rc;
			}
			continue;
		}
		pthread_mutex_lock(&c->lock);
		while (!c->ending && !ended(c) && room(c) == 0) {
			pthread_cond_wait(&c->news, &c->lock);
		}
		pthread_mutex_unlock(&c->lock);
	}
}

int p9_client_call(struct p9_client *c, struct p9_msg *msg, void *dst, struct p9_msg *reply)
{
	struct p9_msg mine;
	struct sync s = { { .done = sync_done }, c, reply ? reply : &mine, NULL, false };
	if (in_thread(c)) {
		return p9_client_set_error(c, P9_EDEADLK);
	}
	int rc = send_waiting(c, msg, dst, &s.call);
	bool sent = rc >= 0;
	rc = rc < 0 ? rc : p9_client_await(c, &s.done);
	if (s.text) {
		keep_text(s.text);
	}
	if (rc < 0 || (sent && s.reply->type == P9_Rlerror && p9_client_dead(c))) {
		return rc < 0 ? rc : p9_client_link_error(c);
	}
	if (s.reply->type == P9_Rlerror && s.reply->tag == P9_NOTAG && s.reply->rlerror.ecode == P9_EIO) {
		snprintf(p9_client_text(c), P9_CLIENT_TEXT,
			 "%s: the link was lost, %s may or may not have been done (EIO)", c->peer,
			 p9_wire_desc(msg->type)->name);
		return -P9_EIO;
	}
	return s.reply->type == P9_Rlerror ? p9_client_set_error(c, (int)s.reply->rlerror.ecode) : 0;
}

/* ---- the thread ---- */
static void thread_wait(struct p9_client *c, int ms, bool out)
{
	struct pollfd v[3];
	bool now;
	unsigned n = what_to_poll(c, v, out, &now);
	ms = now ? 0 : ms;
	v[n] = (struct pollfd){ .fd = c->bell, .events = POLLIN };
	if (ms == 0 || !p9_client_pending(c) || !p9_client_look_at(c, v, n + 1)) {
		poll(v, n + 1, ms);
		p9_spin_slept(&c->spin);
	}
	uint64_t count;
	if ((v[n].revents & POLLIN) && read(c->bell, &count, sizeof(count)) < 0) {
		return; /* somebody rang in vain */
	}
}

static void *thread_main(void *arg)
{
	struct p9_client *c = arg;
	int rc = 0;
	pthread_mutex_lock(&c->lock); /* until c->thread is set */
	pthread_mutex_unlock(&c->lock);
	while (rc >= 0) {
		rc = dispatch(c);
		pthread_mutex_lock(&c->lock);
		if (rc != 0) {
			pthread_cond_broadcast(&c->news);
		}
		if (rc < 0 || c->ending) {
			pthread_mutex_unlock(&c->lock);
			break;
		}
		int got = move(c);
		int ms = got ? 0 : look_at_clock(c);
		bool out = out_waits(c);
		pthread_mutex_unlock(&c->lock);
		if (ms != 0) {
			thread_wait(c, ms, out);
		}
	}
	return NULL;
}

int p9_client_thread(struct p9_client *c)
{
	pthread_mutexattr_t attr;
	if (!c->mem || c->threaded) {
		return p9_client_set_error(c, c->threaded ? P9_EALREADY : P9_ENOTCONN);
	}
	c->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->bell < 0) {
		return p9_client_set_error(c, p9_hosterr(errno));
	}
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&c->lock, &attr);
	pthread_mutexattr_destroy(&attr);
	pthread_cond_init(&c->news, NULL);
	c->threaded = true;
	pthread_mutex_lock(&c->lock);
	int e = pthread_create(&c->thread, NULL, thread_main, c);
	pthread_mutex_unlock(&c->lock);
	if (e != 0) {
		c->threaded = false;
		close(c->bell);
		c->bell = -1;
		return p9_client_set_error(c, p9_hosterr(e));
	}
	return 0;
}

void p9_client_thread_end(struct p9_client *c)
{
	if (!c->threaded) {
		return;
	}
	pthread_mutex_lock(&c->lock);
	c->ending = true;
	pthread_cond_broadcast(&c->news);
	pthread_mutex_unlock(&c->lock);
	ring(c);
	pthread_join(c->thread, NULL);
	pthread_cond_destroy(&c->news);
	pthread_mutex_destroy(&c->lock);
	close(c->bell);
	c->threaded = false;
}
