/* SPDX-License-Identifier: BSD-2-Clause */
/* main.c - p9: the options before the command, the list of commands, and help.
 *
 * A command is a row of the table below: name, function, how it is used, what it does. Help and complaints about usage
 * are printed from the same row. Each command connects by itself (p9_cli_dial), after it has read its operands.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/addr.h"
#include "p9/p9.h"

#define DEPTH_MAX 1024

struct command {
	const char *name;
	int (*run)(struct p9_cli *cli, int argc, char **argv);
	const char *usage; /* behind the name */
	const char *brief;
	const char *more; /* options and remarks, or NULL */
};

#define COPY_OPTIONS \
	"  -r  --recursive  directories with all that is below them\n" \
	"  -p  --preserve   owner, time of access and set-id bits, too, where permitted\n" \
	"  -H  --links      hard links among what is copied stay links\n" \
	"  -X  --xattrs     extended attributes, too\n" \
	"  -S  --sparse     holes wherever there are zeros; else where the source has them\n" \
	"  -D  --specials   devices, FIFOs and sockets are made anew\n" \
	"  -a  --archive    -r -p -H -X -D, and links given as operands are not followed\n" \
	"  --continue       go on where an earlier copy ended: what is complete is left out\n" \
	"  --check          read both back and compare; with --continue also what was there before\n" \
	"  --progress       say how far it is also when nobody's terminal shows it\n" \
	"Permission bits and the time of change are always kept.\n"

static const struct command commands[] = {
	{ "ls", p9_cmd_ls, "[-laR1dhnpU] [--json] [PATH...]", "list directories",
	  "  -l  mode, links, owner, group, size, date; where links point to\n"
	  "  -a  entries that begin with a dot, too\n"
	  "  -R  directories below, too\n"
	  "  -1  one entry on a line\n"
	  "  -d  directories themselves, not what is in them\n"
	  "  -h  sizes with a unit     -n  owners as numbers     -p  a slash behind directories\n"
	  "  -U  in the server's order, as it comes: for directories that do not fit in memory\n"
	  "  --json  one array of objects\n" },
	{ "stat", p9_cmd_stat, "[-L] [--json] PATH...", "show all attributes of files",
	  "  -L  follow a symbolic link\n  --json  one array of objects\n" },
	{ "cat", p9_cmd_cat, "PATH...", "write files to standard output", NULL },
	{ "get", p9_cmd_get, "[-rapHXSD] [--continue] [--check] [--progress] REMOTE... [LOCAL]", "copy from the server",
	  COPY_OPTIONS "LOCAL may be a directory, or - for standard output; by default it is the current one.\n" },
	{ "put", p9_cmd_put, "[-rapHXSD] [--continue] [--check] [--progress] LOCAL... [REMOTE]", "copy to the server",
	  COPY_OPTIONS "REMOTE may be a directory; by default it is /.\n" },
	{ "cp", p9_cmd_cp, "[-rapHXSD] [--continue] [--check] [--progress] SOURCE... TARGET", "copy within the server",
	  COPY_OPTIONS },
	{ "mkdir", p9_cmd_mkdir, "[-p] [-m MODE] PATH...", "make directories",
	  "  -p  those on the way, too, and no error when it is there\n"
	  "  -m  permission bits, octal\n" },
	{ "rm", p9_cmd_rm, "[-r] [-f] PATH...", "remove files",
	  "  -r  directories with all that is below them\n"
	  "  -f  no error when a file is not there\n" },
	{ "mv", p9_cmd_mv, "SOURCE... TARGET", "move or rename", NULL },
	{ "ln", p9_cmd_ln, "[-s] TARGET LINK", "make a link", "  -s  a symbolic one; TARGET is stored as it is\n" },
	{ "readlink", p9_cmd_readlink, "PATH...", "print where symbolic links point to", NULL },
	{ "chmod", p9_cmd_chmod, "MODE PATH...", "change permission bits", "MODE is octal, or as in u+x,go-w\n" },
	{ "chown", p9_cmd_chown, "[-h] USER[:GROUP] PATH...", "change owner and group",
	  "  -h  of a symbolic link itself\nUSER and GROUP are names of this machine, or numbers.\n" },
	{ "truncate", p9_cmd_truncate, "-s [+|-]SIZE PATH...", "set the size of files",
	  "SIZE may have a unit K, M, G, T; with + or - it is added or taken away. Files are made when missing.\n" },
	{ "df", p9_cmd_df, "[-h] [--json] [PATH...]", "show space of file systems",
	  "  -h  sizes with a unit\n  --json  one array of objects\n" },
	{ "du", p9_cmd_du, "[-sha] [-d DEPTH] [--apparent-size] [PATH...]", "show the space that files take",
	  "  -s  only the sum for each PATH    -a  files, too    -d  directories down to this depth\n"
	  "  -h  sizes with a unit; else KiB   --apparent-size  sizes of files, not the blocks they take\n"
	  "A file with several links counts once.\n" },
	{ "find", p9_cmd_find, "[PATH...] [[!] TEST...]", "look for files",
	  "  -name, -iname, -path PATTERN    -type fdlpscb    -size [+-]N[cwbkMG]    -empty\n"
	  "  -newer FILE   -mtime [+-]DAYS   -user NAME   -group NAME   -perm [-/]MODE   -links [+-]N\n"
	  "  -maxdepth N, -mindepth N\n"
	  "  -print0  a NUL behind each name: p9 find -print0 | xargs -0 (there is no -exec)\n"
	  "All tests must hold; ! turns the one behind it round.\n" },
	{ "tree", p9_cmd_tree, "[-ad] [-L DEPTH] [PATH...]", "draw a tree of directories",
	  "  -a  entries that begin with a dot, too    -d  directories only    -L  this deep\n" },
	{ "touch", p9_cmd_touch, "[-camh] [-d DATE|-t STAMP|-r FILE] PATH...",
	  "set times of files, which are made when missing",
	  "  -c  make none     -a  time of access only     -m  time of change only     -h  of a link itself\n"
	  "  -d  @SECONDS or YYYY-MM-DD[ HH:MM[:SS[.FRACTION]]][ZONE]\n"
	  "  -t  [[CC]YY]MMDDhhmm[.ss]     -r  the times of FILE, of the server\n" },
	{ "mkfifo", p9_cmd_mkfifo, "[-m MODE] PATH...", "make FIFOs", "  -m  permission bits, octal\n" },
	{ "lock", p9_cmd_lock, "[-x|-s] [-n|-w SECS] [--range OFFSET[:LENGTH]] PATH COMMAND...",
	  "hold a lock while a command runs",
	  "  -x  a lock for writing, which is the default     -s  a shared one\n"
	  "  -n  fail when somebody has it     -w  wait no longer than this\n"
	  "  --range  bytes to lock; without LENGTH to the end; default: the whole file\n"
	  "PATH is made when missing. The exit code is the command's. When the link is lost, so is the lock:\n"
	  "the command gets SIGTERM.\n" },
	{ "xattr", p9_cmd_xattr, "ls PATH... | get PATH NAME | set PATH NAME VALUE | rm PATH NAME",
	  "show and change extended attributes", "VALUE may be - for standard input.\n" },
	{ "mount", p9_cmd_mount, "[-f] [-o OPTIONS] DIR", "make the tree a directory of this machine, by FUSE",
	  "  -f  stay in the foreground\n"
	  "  -o  options, as in p9-mount(8): cache=none|attr|loose, ro, allow_other, timeout=SECONDS, ...\n" },
	{ "umount", p9_cmd_umount, "[-l] DIR...", "end mounts, those too whose program has died",
	  "  -l  even while files are open; it goes when the last is closed\n" },
	{ "talk", p9_cmd_talk, "FILE.9t...", "run a conversation written in the .9t language", NULL },
	{ "conform", p9_cmd_conform, "[--suite NAME] [--tap|--json] [ADDR]", "check a server against the protocol",
	  NULL },
	{ "bench", p9_cmd_bench, "[-c CONNS] [-q DEPTH] [-t SECS] WORKLOAD", "measure a server", NULL },
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < P9_COUNT(commands); i++) {
		if (strcmp(commands[i].name, name) == 0) {
			return &commands[i];
		}
	}
	return NULL;
}

static void print_help(FILE *f)
{
	char addr[160];
	p9_addr_default(addr, sizeof(addr));
	fprintf(f,
		"usage: p9 [-s ADDR] [-a ANAME] [-u UID] [-m MSIZE] [-q DEPTH] COMMAND [ARGUMENT...]\n\n"
		"Uses files of a 9P2000.L server.\n\n"
		"  -s ADDR   server: unix:PATH, tcp:HOST:PORT, tcp:[V6]:PORT, fd:N, fd:IN,OUT or stdio;\n"
		"            default: $P9_SERVER, else %s\n"
		"  -a ANAME  which of its trees; default: the server's own choice\n"
		"  -u UID    act as this user, name or number; default: the caller\n"
		"  -m MSIZE  largest message to agree on; default: 1M\n"
		"  -q DEPTH  requests that may be under way at once; default: 64 (also --depth)\n"
		"  --help, --version\n\ncommands (p9 help COMMAND says more):\n",
		addr);
	for (size_t i = 0; i < P9_COUNT(commands); i++) {
		fprintf(f, "  %-9s %s\n", commands[i].name, commands[i].brief);
	}
	fprintf(f, "\nexit code: 0 fine, 1 the operation failed, 2 wrong usage, 3 no connection to the server\n");
}

static void print_command_help(FILE *f, const struct command *c)
{
	fprintf(f, "usage: p9 [OPTION...] %s %s\n\n%s\n%s", c->name, c->usage, c->brief, c->more ? c->more : "");
}

int p9_cli_usage(const struct p9_cli *cli, const char *why)
{
	const struct command *c = cli->cmd ? find_command(cli->cmd) : NULL;
	if (why) {
		p9_cli_say(cli, "%s", why);
	}
	if (c) {
		fprintf(stderr, "usage: p9 [OPTION...] %s %s\n", c->name, c->usage);
	} else {
		fprintf(stderr, "usage: p9 [-s ADDR] [-a ANAME] [-u UID] [-m MSIZE] [-q DEPTH] COMMAND [ARGUMENT...]\n"
				"p9 --help lists the commands\n");
	}
	return P9_EXIT_USAGE;
}

static bool wants_help(int argc, char **argv)
{
	bool others = strcmp(argv[0], "lock") == 0; /* what stands behind its options is another command */
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0 && !(others && argv[i][0] != '-'); i++) {
		if (strcmp(argv[i], "--help") == 0) {
			return true;
		}
	}
	return false;
}

/* These print their help themselves: their options are not in the table. */
static bool has_own_help(const struct command *c)
{
	return c->run == p9_cmd_talk || c->run == p9_cmd_bench || c->run == p9_cmd_conform;
}

static int own_help(struct p9_cli *cli, const struct command *c)
{
	char name[16];
	snprintf(name, sizeof(name), "%s", c->name);
	cli->cmd = c->name;
	optind = 0;
	return c->run(cli, 2, (char *[]){ name, (char[]){ "-h" }, NULL });
}

static int help(struct p9_cli *cli, int argc, char **argv)
{
	const struct command *c = argc > 1 ? find_command(argv[1]) : NULL;
	if (argc > 1 && !c) {
		p9_cli_say(cli, "no command \"%s\"", argv[1]);
		return p9_cli_usage(cli, NULL);
	}
	if (c && has_own_help(c)) {
		own_help(cli, c);
	} else if (c) {
		print_command_help(stdout, c);
	} else {
		print_help(stdout);
	}
	return p9_cli_close_stdout(cli, P9_EXIT_OK);
}

/* A copy of a deep tree holds a descriptor for each level. */
static void raise_descriptor_limit(void)
{
	struct rlimit r;
	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static int run_command(struct p9_cli *cli, int argc, char **argv)
{
	char self[32];
	if (strcmp(argv[0], "help") == 0) {
		return help(cli, argc, argv);
	}
	const struct command *c = find_command(argv[0]);
	if (!c) {
		p9_cli_say(cli, "no command \"%s\"", argv[0]);
		return p9_cli_usage(cli, NULL);
	}
	cli->cmd = c->name;
	if (wants_help(argc, argv) && has_own_help(c)) {
		return p9_cli_close_stdout(cli, own_help(cli, c));
	}
	if (wants_help(argc, argv)) {
		print_command_help(stdout, c);
		return p9_cli_close_stdout(cli, P9_EXIT_OK);
	}
	raise_descriptor_limit();
	snprintf(self, sizeof(self), "p9: %s", c->name);
	argv[0] = self; /* for the complaints of getopt, which begins anew */
	optind = 0;
	return p9_cli_close_stdout(cli, c->run(cli, argc, argv));
}

static int bad_option(struct p9_cli *cli, const char *option, const char *value, const char *why)
{
	p9_cli_say(cli, "-%s %s: %s", option, value, why);
	return p9_cli_usage(cli, NULL);
}

static int set_msize(struct p9_cli *cli, const char *text)
{
	uint64_t n;
	if (!p9_cli_size(text, &n) || n < P9_MSIZE_MIN || n > P9_MSIZE_MAX) {
		return bad_option(cli, "m", text, "not a size from 4096 to 16M");
	}
	cli->msize = (uint32_t)n;
	return P9_EXIT_OK;
}

static int set_depth(struct p9_cli *cli, const char *text)
{
	uint64_t n;
	if (!p9_cli_size(text, &n) || n < 1 || n > DEPTH_MAX) {
		return bad_option(cli, "q", text, "not a number from 1 to 1024");
	}
	cli->depth = (uint16_t)n;
	return P9_EXIT_OK;
}

/* Options before the command. Returns P9_EXIT_OK to go on, an exit code, or -1 when all is done. */
static int read_options(struct p9_cli *cli, int argc, char **argv)
{
	static const struct option longs[] = { { "help", no_argument, NULL, 'H' },
					       { "version", no_argument, NULL, 'V' },
					       { "depth", required_argument, NULL, 'q' },
					       { 0 } };
	int o, code = P9_EXIT_OK;
	while (code == P9_EXIT_OK && (o = getopt_long(argc, argv, "+s:a:u:m:q:h", longs, NULL)) != -1) {
		switch (o) {
		case 's':
			cli->addr = optarg;
			break;
		case 'a':
			cli->aname = optarg;
			break;
		case 'u':
			code = p9_cli_user(optarg, &cli->uid) ? 0 : bad_option(cli, "u", optarg, "no such user");
			break;
		case 'm':
			code = set_msize(cli, optarg);
			break;
		case 'q':
			code = set_depth(cli, optarg);
			break;
		case 'V':
			puts("p9 " P9_VERSION);
			return -1;
		case 'H':
		case 'h':
			print_help(stdout);
			return -1;
		default:
			code = p9_cli_usage(cli, NULL);
			break;
		}
	}
	return code;
}

/* The default may lie in /tmp, where anybody can make a socket of that name and read what is put there. */
static bool of_another(const char *unix_addr)
{
	struct stat st;
	return lstat(unix_addr + strlen("unix:"), &st) == 0 && st.st_uid != geteuid() && st.st_uid != 0;
}

/* A connection must not become standard output because the caller closed that: what is printed would go to the server.
 * What stands there instead cannot be written, or read, so that it is found out. */
static void fill_standard_fds(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
			(void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY); /* the lowest free one */
		}
	}
}

int main(int argc, char **argv)
{
	static char addr[160];
	struct p9_cli cli = { .aname = "", .uid = geteuid(), .msize = P9_MSIZE_DEFAULT, .depth = 64 };
	fill_standard_fds();
	setlocale(LC_CTYPE, "");
	setlocale(LC_TIME, "");
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* a caller that ignores it would have ours end unseen */
	const char *env = getenv("P9_SERVER");
	p9_addr_default(addr, sizeof(addr));
	cli.addr = env && *env ? env : addr;
	const char *slash = strrchr(argv[0], '/');
	if (strncmp(slash ? slash + 1 : argv[0], "mount.", 6) == 0) {
		return p9_mount_helper(&cli, argc, argv, false);
	}
	if (argc > 2 && argv[1][0] != '-' && strchr(argv[1], ':')) { /* as mount.fuse(8) calls programs */
		return p9_mount_helper(&cli, argc, argv, true);
	}
	int code = read_options(&cli, argc, argv);
	if (code != P9_EXIT_OK) {
		return code < 0 ? p9_cli_close_stdout(&cli, P9_EXIT_OK) : code;
	}
	if (optind == argc) {
		return p9_cli_usage(&cli, "no command");
	}
	if (cli.addr == addr && of_another(addr)) {
		fprintf(stderr, "p9: %s: is another user's; name the server with -s ADDR\n", addr);
		return P9_EXIT_CONNECT;
	}
	return run_command(&cli, argc - optind, argv + optind);
}
