/* SPDX-License-Identifier: BSD-2-Clause */
/* p9d.h - what the files of p9d share. */
#ifndef P9_P9D_H
#define P9_P9D_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/addr.h"
#include "base/loop.h"
#include "p9/local.h"
#include "p9/server.h"
#include "transport/vhost/vhost.h"

#define P9D_LISTEN_MAX 64
#define P9D_EXPORT_MAX 256
#define P9D_TICK_MS 50

struct p9d_export {
	char *spec; /* as given; the strings below point into it */
	const char *name;
	struct p9_local_config local;
	struct p9_export_config conf;
	struct lroot *root;
};

struct p9d_listener {
	struct p9_source source; /* first */
	struct p9_addr addr;
	char text[400]; /* the address, for messages */
	struct p9_server *srv;
	struct p9_listener_timer {
		struct p9_timer timer; /* first */
		struct p9d_listener *listener;
	} again;		/* out of descriptors: accepting goes on when it fires */
	unsigned long dev, ino; /* of the socket file we made */
	int reserve_fd;
	bool unlink_path;    /* unix: we made the file */
	bool passed;	     /* from LISTEN_FDS */
	bool inherited;	     /* from the p9d before us */
	bool file_inherited; /* and so was its file: not ours before the other has gone */
	struct p9_vhost_conf vhost;
	struct p9d_monitor {
		struct p9_job job;
		bool on;	  /* the monitor listens, we connect */
		bool told;	  /* the log says that we wait */
		atomic_bool busy; /* a connection is on its way to loop 0: */
		int fd;
		int watch;	/* the same connection; -1: there is none */
		uint64_t next;	/* ms: the next attempt is not before this, */
		uint64_t since; /* and the last that went well was at this */
		uint32_t wait;	/* ms, after the next failure */
	} monitor;
};

struct p9d_config {
	struct p9_server_config server;
	struct p9d_export exports[P9D_EXPORT_MAX];
	unsigned nexports;
	char *listen[P9D_LISTEN_MAX];
	unsigned nlisten;
	char *identity;
	char *socket_path, *fd, *tag; /* of a device, as managers of monitors say it; NULL when they did not */
	char *takeover; /* NULL: no; "": the only one there is; a pid, or the path of its private socket */
	char *control;	/* path of ours; NULL for the usual one, "none" for none */
	bool insecure, trace, help, version, capabilities, background, quick; /* quick: `p9d DIR` */
	unsigned socket_mode;
};

struct p9d_takeover;
/* A p9d. */
struct p9d {
	struct p9d_config conf;
	struct p9d_listener listeners[P9D_LISTEN_MAX];
	unsigned nlisteners;
	struct p9_server *srv;
	int stop, ends;		   /* signalfds, readable when a signal has come; when one has that ends us */
	struct p9d_takeover *from; /* whom we take over from; NULL for nobody */
	int control;		   /* the private socket where others can take over from us; -1 for none */
	char control_path[108];
	unsigned long control_dev, control_ino; /* of its file */
};

/* config.c: reads argv (and files it names). On error the text is printed; returns 0, or the exit code. */
int p9d_config_read(struct p9d_config *c, int argc, char **argv);
void p9d_config_free(struct p9d_config *c);
void p9d_usage(void);
/* listen.c */
int p9d_listen(struct p9d_listener *l, const struct p9d_config *c, const char *text);
int p9d_listen_passed(struct p9d_listener *l, const struct p9d_config *c, int fd);
/* The socket for this address was another p9d's: opens nothing. fd -1: it has been a connection from the beginning. The
 * socket file is not ours until the caller sets unlink_path, dev and ino. */
int p9d_listen_inherited(struct p9d_listener *l, const struct p9d_config *c, const char *text, int fd);
int p9d_listen_start(struct p9d_listener *l, struct p9_server *srv);
/* Takes a connection, of two descriptors or one socket. On loop 0, or before the server starts. */
P9_MUST_USE int p9d_listen_adopt(struct p9d_listener *l, int in, int out);
void p9d_listen_unlink(struct p9d_listener *l);
void p9d_listen_close(struct p9d_listener *l);
/* notify.c: tells a service manager that we serve, and who we are: sd_notify(3)'s protocol. */
void p9d_notify(void);
/* Goes on in a process of its own; the one that was started waits until p9d_tell_starter() and then ends. Returns 0 there. */
P9_MUST_USE int p9d_background(void);
void p9d_tell_starter(void);
/* monitor.c, for listeners whose monitor listens; all on the main thread. source.fd is a connection to it that another p9d
 * has made, or -1. */
void p9d_monitor_begin(struct p9d_listener *l);
/* Looks whether there is a monitor, or it has gone; to be called every P9D_TICK_MS or so. */
void p9d_monitor_tick(struct p9d_listener *l);
void p9d_monitor_end(struct p9d_listener *l);

#endif
