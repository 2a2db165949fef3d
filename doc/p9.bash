# SPDX-License-Identifier: BSD-2-Clause
# bash completion for p9: commands, options, files here and on the server.
# Commands and options are read from p9's own help, so that they are never out of date. Files of the server are asked
# for with the options on the command line (-s, -a, -u); a server that does not answer in two seconds has none.

# Words of the command line without bash's word breaks at ':', which addresses are full of.
_p9_words() {
	_p9_line=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
	if declare -F _get_comp_words_by_ref >/dev/null; then
		_get_comp_words_by_ref -n : -w _p9_all -i _p9_at 2>/dev/null &&
			_p9_line=("${_p9_all[@]:0:_p9_at+1}")
	fi
}

# Names below the directory of $1, from the server.
_p9_remote() {
	local word=$1 dir name reply
	# shellcheck disable=SC2001
	word=$(sed 's/\\\(.\)/\1/g' <<<"$word")
	dir=${word%"${word##*/}"}
	while IFS= read -r name; do
		[[ $name == "${word##*/}"* ]] || continue
		printf -v reply '%q' "${name%/}"
		COMPREPLY+=("$(printf '%q' "$dir")$reply$([[ $name == */ ]] && echo /)")
	done < <(timeout 2 "${_p9_command[@]}" ls -p -a -U "${dir:-/}" 2>/dev/null </dev/null | grep -avx '\.\{1,2\}/')
	compopt -o nospace -o filenames 2>/dev/null
	COMPREPLY=("${COMPREPLY[@]/#\'\'/}")
}

_p9_local() {
	local name
	while IFS= read -r name; do
		COMPREPLY+=("$name")
	done < <(compgen -f -- "$1")
	compopt -o filenames 2>/dev/null
}

# -abc in a synopsis is three options, but for find, whose tests are words.
_p9_options() {
	local word split=1
	[[ $2 == find ]] && split=0
	while IFS= read -r word; do
		COMPREPLY+=("$word")
	done < <(compgen -W "$({ echo --help; "$_p9_program" help "$2" 2>/dev/null | sed 's/ | xargs.*//'; } | grep -oE '(^|[[:space:][(|])--?[a-zA-Z0-9][a-z0-9-]*' |
		sed 's/^[[:space:][(|]*//' | awk -v split_="$split" 'split_ && /^-[a-zA-Z0-9]+$/ && length > 2 \
			{ for (i = 2; i <= length; i++) print "-" substr($0, i, 1); next } { print }' | sort -u)" -- "$1")
}

_p9() {
	local _p9_line _p9_all _p9_at _p9_program _p9_command i verb= operands=0
	COMPREPLY=()
	_p9_words
	_p9_program=${_p9_line[0]}
	_p9_command=("$_p9_program")
	local last=$((${#_p9_line[@]} - 1))
	local word=${_p9_line[last]}
	for ((i = 1; i < last; i++)); do
		case ${_p9_line[i]} in
		-s | -a | -u | -m | -q | --depth)
			[[ $verb ]] || {
				_p9_command+=("${_p9_line[i]}" "${_p9_line[i + 1]}")
				((i++))
			}
			;;
		-*) ;;
		*)
			if [[ $verb ]]; then
				((operands++))
			else
				verb=${_p9_line[i]}
			fi
			;;
		esac
	done
	if [[ ! $verb ]]; then
		case ${_p9_line[last - 1]} in
		-s) mapfile -t COMPREPLY < <(compgen -W "unix: tcp: fd: stdio vhost-user:" -- "$word") && return ;;
		-u) mapfile -t COMPREPLY < <(compgen -u -- "$word") && return ;;
		-a | -m | -q | --depth) return ;;
		esac
		if [[ $word == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "-s -a -u -m -q --depth --help --version" -- "$word")
		else
			mapfile -t COMPREPLY < <(compgen -W "help $("$_p9_program" --help 2>/dev/null |
				sed -n '/^commands/,/^$/s/^  \([a-z]*\) .*/\1/p')" -- "$word")
		fi
		return
	fi
	if [[ $word == -* ]]; then
		_p9_options "$word" "$verb"
		return
	fi
	case $verb in
	help) mapfile -t COMPREPLY < <(compgen -W "$("$_p9_program" --help 2>/dev/null |
		sed -n '/^commands/,/^$/s/^  \([a-z]*\) .*/\1/p')" -- "$word") ;;
	bench)
		if [[ ${_p9_line[last - 1]} == --file ]]; then
			_p9_remote "$word"
		else
			mapfile -t COMPREPLY < <(compgen -W "getattr walk small create read write randread randwrite readdir" -- "$word")
		fi
		;;
	xattr)
		if ((operands == 0)); then
			mapfile -t COMPREPLY < <(compgen -W "ls get set rm" -- "$word")
		else
			_p9_remote "$word"
		fi
		;;
	put)
		_p9_local "$word"
		((operands == 0)) || _p9_remote "$word"
		;;
	get)
		_p9_remote "$word"
		((operands == 0)) || _p9_local "$word"
		;;
	talk | mount | umount | conform) _p9_local "$word" ;;
	lock) if ((operands == 0)); then _p9_remote "$word"; else mapfile -t COMPREPLY < <(compgen -c -- "$word"); fi ;;
	chmod | chown) ((operands == 0)) || _p9_remote "$word" ;;
	*) _p9_remote "$word" ;;
	esac
}
complete -F _p9 p9
