/* SPDX-License-Identifier: BSD-2-Clause */
/* stream.h - one end of a 9P link over a byte stream: sockets, pipes, or memory. See include/p9/transport.h. */
#ifndef P9_TRANSPORT_STREAM_H
#define P9_TRANSPORT_STREAM_H
#include "base/loop.h"
#include "p9/transport.h"

struct p9_seg {
	struct p9_seg *next;
	struct p9_buf *buf;   /* counted; NULL for a file or zeros */
	struct p9_file *file; /* counted; sent by the kernel */
	uint64_t off;	      /* in buf or in the file */
	uint32_t len;
};

struct p9_stream {
	struct p9_link link;
	struct p9_loop *loop;
	struct p9_source in, out; /* the same descriptor, or two (stdio) */
	const struct p9_stream_io *io;
	void *io_arg;
	struct p9_buf *rx; /* bytes that came and are not done with: rx_pos..rx_end */
	uint32_t rx_pos, rx_end;
	bool bulk;     /* the last message was large: the next read looks at its head only */
	bool want_out; /* the socket is full */
	/* reads are edge-triggered, so what is left unread must be remembered: */
	bool hup;	/* the peer has closed its end: read until that shows */
	bool more;	/* the last read took all it asked for, there may be more */
	ssize_t looked; /* what the loop's look has read, for the next read_on() */
	struct p9_seg *head, *tail, *spare;
	struct p9_buf *chunk; /* where the next reply goes: chunk_len.. is free */
	uint32_t chunk_len;
	struct p9_timer timer;
	uint64_t partial_at;  /* when the message that is not complete began; 0 for none */
	uint64_t progress_at; /* when the peer last read something of a full queue */
};

/* How bytes go in and out. Sockets and pipes: p9_stream_fd. */
struct p9_stream_io {
	ssize_t (*read)(struct p9_stream *s, void *buf, size_t n);
	ssize_t (*writev)(struct p9_stream *s, const struct iovec *iov, int n);
	ssize_t (*sendfile)(struct p9_stream *s, int fd, off_t *off, size_t n); /* NULL: files are copied by read */
	void (*done)(struct p9_stream *s); /* the link is being freed; may be NULL */
};
extern const struct p9_stream_io p9_stream_fd;	 /* pipes, TCP */
extern const struct p9_stream_io p9_stream_unix; /* with sendfile */

/* Links for p9_server_accept: a Unix socket (files are sent by the kernel), and anything else. */
p9_link_make p9_stream_unix_make;
p9_link_make p9_stream_fd_make;
/* The same over `io`. */
struct p9_link *p9_stream_make(struct p9_loop *loop, int in, int out, const struct p9_stream_io *io);

/* A stream that another process has packed. */
p9_link_unpack p9_stream_unpack;

/* ---- between the files of this transport ---- */
void p9_seg_drop(struct p9_stream *s);
int p9_stream_reserve(struct p9_link *l, void *ticket, size_t headlen, size_t payload, bool flat, struct p9_room *room);
void p9_stream_commit(struct p9_link *l, const struct p9_room *room, size_t n);
void p9_stream_keep(struct p9_link *l, struct p9_room *room);
void p9_stream_send_room(struct p9_link *l, struct p9_room *room, size_t n);
int p9_stream_send_file(struct p9_link *l, struct p9_file *f, uint64_t off, uint32_t len);
void p9_stream_flush(struct p9_link *l);
void p9_stream_arm(struct p9_stream *s, bool worked);
void p9_stream_end(struct p9_stream *s, int why, const char *text);
void p9_stream_watch(struct p9_stream *s);
bool p9_stream_quiet(const struct p9_link *l, unsigned undone);
void p9_stream_pack(struct p9_link *l, struct p9_pack *p, const struct p9_undone *undone, unsigned n);

#endif
