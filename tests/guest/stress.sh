# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The long suite, read by guest.sh: programs that others wrote to torment file
# systems. Amounts are bounded so that an emulated processor comes to the end.

# Runs a command with a time limit; its output is shown only when it fails.
# 0 is a success, with $2 the statuses that mean "cannot be tried here".
torment() {
	local name=$1 skip=$2 limit=$3 began=$SECONDS status
	shift 3
	case $name in *"$ONLY"*) ;; *) return ;; esac
	timeout -k 5 "$limit" "$@" >/run/torment.log 2>&1
	status=$?
	case " $skip " in
	*" $status "*)
		echo "# $TRANSPORT/$name: not possible here: $(grep -v '^$' /run/torment.log | tail -n 1 | cut -c1-200)"
		return
		;;
	esac
	if [ $status = 0 ]; then
		echo "ok $TRANSPORT/$name # $((SECONDS - began)) s"
	else
		[ $status != 124 ] && [ $status != 137 ] || status="$status, that is no end after $limit seconds"
		echo "not ok $TRANSPORT/$name: status $status: $(grep -iE 'fail|error|verify|bad' /run/torment.log | head -n 3 | tr '\n' '|' | cut -c1-400)"
		sed 's/^/#   /' /run/torment.log | tail -n 12
	fi
}

fio_in() {
	local dir=$1 cache=$2
	mkdir -p "$dir"
	set -- fio --directory="$dir" --fallocate=none --verify=crc32c --verify_fatal=1 --do_verify=1 \
		--randrepeat=1 --minimal
	torment "fio random 4k ($cache)" "" 150 "$@" --name=random4k --rw=randwrite --bs=4k --size=6m --fsync=64
	torment "fio random odd sizes ($cache)" "" 150 "$@" --name=odd --rw=randwrite --bs=13k --size=12m
	torment "fio large sequential ($cache)" "" 150 "$@" --name=large --rw=write --bs=1m --size=64m --end_fsync=1
	torment "fio two jobs reading and writing ($cache)" "" 150 "$@" --name=mixed --rw=randrw --bs=16k --size=8m --numjobs=2
	if [ "$cache" = none ]; then
		torment "fio direct ($cache)" "" 150 "$@" --name=direct --rw=randwrite --bs=64k --size=24m --direct=1
	else
		torment "fio shared mappings ($cache)" "" 150 "$@" --name=mapped --ioengine=mmap --rw=randwrite --bs=4k --size=4m
	fi
	rm -rf "$dir"
}

# stress NAME CACHE DIRECTORY SECONDS OPERATIONS
stress_in() {
	local stressor=$1 cache=$2 dir=$3 seconds=$4 ops=$5
	grep -qw "$stressor" /run/stressors || {
		echo "# stress-ng here has no $stressor"
		return
	}
	torment "stress-ng $stressor ($cache)" "3 4" $((seconds + 150)) \
		stress-ng --temp-path "$dir" --verify "--$stressor" "$workers" "--$stressor-ops" "$ops" --timeout "$seconds" "${@:6}"
}

bonnie_in() {
	local dir=$1 cache=$2
	mkdir -p "$dir"
	chown 65534:65534 "$dir"
	torment "bonnie++ ($cache)" "" 400 bonnie++ -d "$dir" -r 256 "${BONNIE[@]}" -u 65534:65534 -q -m guest
	rm -rf "$dir"
}

stress-ng --stressors >/run/stressors 2>&1
workers=2
BONNIE=(-s 512:64k -n 1 -f)

dir=/mnt/none/stress
mkdir -p $dir

many=(access chmod chown copy-file dentry dir dirdeep dup fallocate fcntl filename flock fstat getdent hdd lockf
	locka lockofd mknod open rename seek sync-file touch unlink utime xattr)
locks=(flock lockf locka lockofd hdd dentry rename)

# The load is shared out: tcp and unix take about as long, side by side.
for name in "${many[@]}"; do
	[ "$TRANSPORT" != unix ] || [[ " ${locks[*]} " = *" $name "* ]] || continue
	[ "$TRANSPORT" != relay ] || continue
	stress_in "$name" none $dir 4 2000
done
fio_in $dir/fio none
case $TRANSPORT in
tcp | local | qemu) bonnie_in $dir/bonnie none ;;
esac
case $TRANSPORT in
unix | local | qemu)
	# These two look for 8,192 names to remove, however few they made.
	workers=1
	stress_in link none $dir 4 200
	stress_in symlink none $dir 4 200
	workers=2
	if [ -z "$ONLY" ] || [[ "directory of 20000" = *"$ONLY"* ]]; then
		checks none /mnt/none --checks server --only "directory of 20000" --long
	fi
	mkdir -p /mnt/mmap/stress-mmap
	fio_in /mnt/mmap/stress-mmap/fio mmap
	for name in mmap msync hdd lockf; do
		stress_in $name mmap /mnt/mmap/stress-mmap 4 500
	done
	rm -rf /mnt/mmap/stress-mmap
	;;
esac
rm -rf $dir
