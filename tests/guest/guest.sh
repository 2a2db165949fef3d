#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Runs inside the guest, as its process 1, on the host's root with a tmpfs over
# it: mounts the export under test in several ways and runs the scenarios.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root
work=$1
# shellcheck disable=SC1090
. "$work/$2.env"

for name in /sys/class/virtio-ports/*/name; do
	port=/dev/$(basename "$(dirname "$name")")
	case $(cat "$name") in
	p9.out) out=$port ;;
	p9.relay0) relay0=$port ;;
	p9.relay1) relay1=$port ;;
	esac
done
exec >"$out" 2>&1 </dev/null

off() {
	sync
	sleep 0.2
	busybox poweroff -f
}
trap off EXIT

for dir in /run /dev/shm /mnt; do
	mount -t tmpfs -o mode=1777 tmpfs $dir 2>/dev/null || { mkdir -p $dir && mount -t tmpfs -o mode=1777 tmpfs $dir; }
done
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
busybox ip link set lo up
busybox ip addr add 127.0.0.1/8 dev lo 2>/dev/null
busybox ip link set eth0 up
busybox ip addr add 10.0.2.15/24 dev eth0
hostname guest 2>/dev/null
ulimit -n 4096
echo 60 >/proc/sys/kernel/hung_task_timeout_secs
echo "# $TRANSPORT: Linux $(uname -r), $(cut -d' ' -f1 /proc/uptime) s after power-on"

p9d=1
[ -z "$SERVER_CMD" ] || p9d=0

# --- the export: on the host, or with transport unix in here -----------------
if [ "$TRANSPORT" = unix ] || [ "$TRANSPORT" = local ]; then
	mkdir -p "$DIR"
	mount -t ext4 -o noatime /dev/vda "$DIR" || exit
	rmdir "$DIR/lost+found"
	SERVER=/run/p9.sock
	if [ "$TRANSPORT" = local ]; then
		sleep 9999 &
		mknod -m 600 $SERVER p
	elif [ $p9d = 1 ]; then
		"$P9D" -l unix:$SERVER -e srv="$DIR,checks=server" -e cli="$DIR" >/run/server.log 2>&1 &
	else
		cmd=${SERVER_CMD//\{listen\}/$SERVER}
		# shellcheck disable=SC2086 # a command line
		eval ${cmd//\{dir\}/$DIR} >/run/server.log 2>&1 &
	fi
	server=$!
	/usr/bin/python3 "$work/agent.py" "$DIR" >/run/agent.port &
	for _ in $(seq 100); do
		[ -e $SERVER ] && [ -s /run/agent.port ] && break
		sleep 0.1
	done
	AGENT=127.0.0.1:$(cat /run/agent.port)
fi

# attach MOUNTPOINT ANAME OPTIONS: mounts the export.
attach() {
	local point=$1 aname=$2 options=$3
	[ $p9d = 1 ] || aname=$DIR
	options="version=9p2000.L,aname=$aname,$options"
	mkdir -p "$point"
	case $TRANSPORT in
	tcp) mount -t 9p -o "trans=tcp,port=${SERVER##*:},$options" "${SERVER%:*}" "$point" ;;
	unix) mount -t 9p -o "trans=unix,$options" "$SERVER" "$point" ;;
	qemu | vhost) mount -t 9p -o "trans=virtio,$options" "${point#/mnt/}" "$point" ;;
	local) mount --bind "$DIR" "$point" ;;
	relay)
		port=$relay0
		relay0=$relay1
		# The server drops a connection that says nothing for a while, QEMU makes it again.
		for _ in 1 2 3 4 5; do
			"$work/relay" "$port" "$point" "$options" 2>/run/relay.log && return
			sleep 1
		done
		cat /run/relay.log
		false
		;;
	esac && return
	echo "not ok $TRANSPORT/mount $aname $options: mount failed"
	return 1
}

# checks NAME MOUNTPOINT ARGUMENTS...: runs the scenario there.
checks() {
	local name=$1 point=$2 began=$SECONDS
	shift 2
	mountpoint -q "$point" || return
	/usr/bin/python3 "$work/scenario.py" --mount "$point" --real "$DIR" --agent "$AGENT" \
		--p9d $p9d --label "$TRANSPORT/$name" --only "$ONLY" "$@" ||
		echo "not ok $TRANSPORT/$name: the scenario ended with status $?"
	echo "# $TRANSPORT/$name: $((SECONDS - began)) s"
}

# The first boot ends here, with a share that is mounted and in use: the second one finds the device as it was left.
reboot_once() {
	attach /mnt/none srv msize=262144 || return
	if [ -e /mnt/none/booted ]; then
		rm /mnt/none/booted && echo "ok vhost/reboot: mounted again after a reboot in mid-work"
		umount /mnt/none
		return
	fi
	echo 1 >/mnt/none/booted
	exec 9>/mnt/none/open
	dd if=/dev/zero of=/mnt/none/big bs=1M count=200 2>/dev/null &
	sleep 0.3
	sync /mnt/none/booted
	trap - EXIT
	busybox reboot -f
}

# Work that can be checked, while the monitor stops and continues the guest. Last, for the guest's clock is late then.
pauses() {
	local i sum again bad=0
	attach /mnt/none srv msize=262144 || return
	echo "# vhost/pauses: from now on"
	dd if=/dev/urandom of=/run/random bs=1M count=8 2>/dev/null
	sum=$(md5sum </run/random)
	for i in $(seq 12); do
		cp /run/random "/mnt/none/p$i" && find /mnt/none /mnt/none/p* >/dev/null
		echo 3 >/proc/sys/vm/drop_caches
		again=$(md5sum <"/mnt/none/p$i")
		[ "$sum" = "$again" ] || bad=1
		sleep 0.5
	done
	if [ $bad = 0 ] && umount /mnt/none; then
		echo "ok vhost/pauses: what was written and read meanwhile is right"
	else
		echo "not ok vhost/pauses: what was written and read meanwhile is wrong"
	fi
}

# time_of COMMAND...: how many us it takes, with caches dropped.
time_of() {
	local begin
	sync
	echo 3 >/proc/sys/vm/drop_caches
	begin=$(date +%s%N)
	"$@" >/dev/null 2>&1 || echo "not ok vhost/compare: $* failed" >&2
	echo $((($(date +%s%N) - begin) / 1000))
}
median() {
	printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"
}
list_tree() { ls -lR "$1/tree"; }
find_tree() { find "$1/tree" -type f -size -1; }
small_files() {
	local i line
	for i in $(seq 500); do
		echo "$i" >"$1/small.$i" && read -r line <"$1/small.$i" && [ "$line" = "$i" ] || return
	done
	rm "$1"/small.*
}
read_big() { dd if="$1/big" of=/dev/null bs=1M iflag=direct; }
write_big() { dd if=/dev/zero of="$1/out" bs=1M count=64 oflag=direct conv=notrunc; }

# The same directory over p9d's device and over QEMU's own 9P, at the largest msize, by turns, each first as often as the
# other. Medians; a ratio is taken within a round.
compare() {
	local what ours theirs ratios rounds round own new ratio
	attach /mnt/none srv msize=512000,cache=none || return
	mkdir -p /mnt/own
	mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none own /mnt/own ||
		{ echo "not ok vhost/compare: mount"; return; }
	dd if=/dev/zero of=/mnt/own/big bs=1M count=128 2>/dev/null
	for what in read_big write_big small_files find_tree list_tree; do
		[[ $what == *"$ONLY"* ]] || continue
		case $what in *_big) rounds=15 ;; *) rounds=5 ;; esac
		ours='' theirs='' ratios=''
		time_of $what /mnt/own >/dev/null # what both find warm afterwards
		for round in $(seq $rounds); do
			if [ $((round % 2)) = 0 ]; then
				own=$(time_of $what /mnt/own) new=$(time_of $what /mnt/none)
			else
				new=$(time_of $what /mnt/none) own=$(time_of $what /mnt/own)
			fi
			ours+=" $new" theirs+=" $own" ratios+=" $((own * 100 / (new + 1)))"
		done
		# shellcheck disable=SC2086 # lists of numbers
		ratio=$(median $ratios) ours=$(($(median $ours) / 1000)) theirs=$(($(median $theirs) / 1000))
		echo "# compare $what: p9d $ours ms, QEMU's own $theirs ms: $ratio % of its speed ($rounds rounds)"
		if [ "$ratio" -ge 90 ]; then
			echo "ok vhost/compare: $what is not slower"
		else
			echo "not ok vhost/compare: $what: p9d $ours ms, QEMU's own $theirs ms"
		fi
	done
	umount /mnt/none /mnt/own
}

quick() {
	# In the quick suite, checks that have nothing to do with caching run with
	# cache=none only.
	local short=
	[ "$SUITE" = all ] || short=--short
	case $TRANSPORT in
	relay)
		attach /mnt/none cli msize=1048576
		attach /mnt/mmap cli cache=mmap
		checks none /mnt/none --checks client --other /mnt/mmap $short
		checks mmap /mnt/mmap --checks client --cache mmap --other /mnt/none $short
		umount /mnt/mmap && umount /mnt/none || echo "not ok $TRANSPORT/umount: still in use"
		return
		;;
	esac
	attach /mnt/none srv msize=1048576
	attach /mnt/mmap cli cache=mmap
	attach /mnt/loose cli cache=loose
	attach /mnt/acl cli posixacl
	checks none /mnt/none --checks server --other /mnt/mmap
	checks mmap /mnt/mmap --checks client --cache mmap --other /mnt/none $short
	checks loose /mnt/loose --checks client --cache loose $short
	checks acl /mnt/acl --checks client --acl
	umount /mnt/none && umount /mnt/mmap && umount /mnt/loose && umount /mnt/acl ||
		echo "not ok $TRANSPORT/umount: still in use"
	if [ "$TRANSPORT" = tcp ] && [ $p9d = 1 ]; then
		attach /mnt/squash squash msize=65536 && checks squash /mnt/squash --checks server --squash
		attach /mnt/ro ro msize=65536 && checks ro /mnt/ro --checks server --readonly
		umount /mnt/squash /mnt/ro
	fi
}

[ "$TRANSPORT" != vhost ] || [ "$SUITE" = compare ] || reboot_once
case $SUITE in
quick | all)
	quick
	[ "$TRANSPORT" != vhost ] || pauses
	;;
compare) compare ;;
esac
case $SUITE in
stress | all)
	attach /mnt/none srv msize=1048576
	[ "$TRANSPORT" = relay ] || attach /mnt/mmap cli cache=mmap
	# shellcheck source=/dev/null
	. "$work/stress.sh"
	umount /mnt/none
	[ "$TRANSPORT" = relay ] || umount /mnt/mmap
	;;
esac

if [ "$TRANSPORT" = unix ]; then
	if kill -0 "$server" 2>/dev/null; then
		echo "ok unix/server: alive at the end"
		kill "$server"
		wait "$server"
		status=$?
		if [ $p9d = 1 ] && [ $status != 0 ]; then
			echo "not ok unix/server: ends on SIGTERM: status $status"
		fi
	else
		echo "not ok unix/server: alive at the end: it is gone"
	fi
	sed 's/^/# server: /' /run/server.log | tail -n 30
fi
echo P9-GUEST-DONE
