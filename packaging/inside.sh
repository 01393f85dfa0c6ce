#!/bin/sh
# The part of test.sh that runs in that Debian, which is thrown away.
#
#	inside.sh resting|running
set -eu
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin
exec </dev/null

ok() { echo "ok  $*"; }
fail() { echo "FAIL  $*" >&2; exit 1; }
is() { [ "$2" = "$3" ] || fail "$1: $2; want $3"; }
none() { for f; do [ ! -e "$f" ] || fail "$f is there"; done; }
quiet() { "$@" >/out 2>&1 || { cat /out >&2; fail "$*"; }; }
soon() { # within 30 s
	for _ in $(seq 300); do
		! sh -c "$1" >/out 2>&1 || return 0
		sleep 0.1
	done
	cat /out >&2
	fail "not in time: $1"
}
unit() { systemctl show --property "$1" --value belfry; }

installed() { # VERSION
	is 'version of the package' "$(dpkg-query -W -f '${Version}' belfry)" "$1-1"
	quiet dpkg --verify belfry
	quiet belfry version
	quiet belfry agent --config /etc/belfry/belfry.yaml --check
	is 'home and shell' "$(getent passwd belfry | cut -d: -f6-)" /var/lib/belfry:/usr/sbin/nologin
	quiet getent group belfry belfry-operator
	is 'settings' "$(stat -c '%a %U' /etc/belfry/belfry.yaml)" '644 root'
	is 'links that start it' "$(find /etc/systemd -name 'belfry*')" ''
	for file in usr/share/man/man1/belfry.1.gz usr/share/bash-completion/completions/belfry \
		usr/share/doc/belfry/THIRD_PARTY_NOTICES usr/share/belfry/proto/belfry/v1/event.proto usr/share/belfry/schema/status.json; do
		[ -s "/$file" ] || fail "/$file is absent or empty"
	done
}

# second is another machine's agent, which joins by a token. It is that machine
# only by its address and its directories.
second() {
	mkdir -p /second
	cat >/second/belfry.yaml <<-'YAML'
		node: {name: second}
		state: /second
		socket: {path: /second/belfry.sock, group: ""}
		web: {listen: ""}
	YAML
	belfry token create >/token 2>/out || { cat /out >&2; fail 'token create'; }
	quiet sh -c 'belfry join - 127.0.0.1 --config /second/belfry.yaml --address 127.0.0.2 </token'
	belfry agent --config /second/belfry.yaml >/second.log 2>&1 &
	other=$!
	soon '[ "$(belfry node list | grep -c " up ")" = 2 ]'
	BELFRY_SOCKET=/second/belfry.sock quiet belfry leave
	wait $other || fail "the second agent: $?; $(cat /second.log)"
	ok 'another machine joins and leaves'
}

# follow has a service killed twice that systemd starts again: two ends of the
# service, by whichever process it is, and its states in between.
follow() {
	cat >/etc/systemd/system/worker.service <<-'UNIT'
		[Service]
		ExecStart=sleep 600
		Restart=always
		RestartSec=200ms
	UNIT
	quiet systemctl daemon-reload
	quiet systemctl start dbus worker
	belfry watch process.exit:unit=worker.service --count 2 --no-snapshot >/exits 2>&1 &
	belfry watch unit.state:worker.service --no-snapshot >/states 2>&1 &
	watching=$!
	soon 'belfry registration list | grep -q "process.exit.* active "'
	soon 'belfry registration list | grep -q "unit.state.* active "'
	for end in 1 2; do
		was=$(systemctl show -P MainPID worker)
		kill -KILL "$was"
		soon "grep -q 'seq $end .*pid=$was ' /exits"
		soon "[ \"\$(systemctl show -P MainPID worker)\" -gt 0 ] && [ \"\$(systemctl show -P MainPID worker)\" != $was ]"
	done
	is 'ends told' "$(wc -l </exits)" 2
	soon 'grep -q "active=activating sub=auto-restart result=signal" /states'
	quiet systemctl stop worker
	soon 'tail -n 1 /states | grep -q "active=inactive"'
	kill $watching
	ok 'a service is followed over restarts, by its main process and by its states'
}

# leave removes and purges; settings go with the second, state with neither.
leave() {
	dpkg -L belfry >/files
	quiet dpkg -r belfry
	[ -s /etc/belfry/belfry.yaml ] || fail 'settings went with remove'
	none /usr/bin/belfry /usr/lib/systemd/system/belfry.service
	quiet dpkg -P belfry
	none /etc/belfry
	grep belfry /files | while read -r file; do none "$file"; done
	is 'state' "$(cat /var/lib/belfry/kept)" kept
	is 'owner of state' "$(stat -c %U /var/lib/belfry)" belfry
}

resting() {
	quiet dpkg -i /old.deb
	installed 0.0.1
	none /var/lib/belfry /run/belfry
	quiet systemd-analyze verify --man=no belfry.service
	is 'complaints about the unit' "$(cat /out)" ''
	ok 'installs where systemd does not run'

	install -d -o belfry -g belfry -m 700 /var/lib/belfry
	echo kept >/var/lib/belfry/kept
	sed -i 's/level: info/level: debug/' /etc/belfry/belfry.yaml
	quiet dpkg -i /new.deb
	is 'version of the package' "$(dpkg-query -W -f '${Version}' belfry)" 0.0.2-1
	grep -q 'level: debug' /etc/belfry/belfry.yaml || fail 'an upgrade took changed settings away'
	ok 'upgrades, changed settings stay'
	leave
	rm -r /var/lib/belfry
	ok 'removes and purges, state stays'
}

running() {
	quiet dpkg -i /old.deb
	installed 0.0.1
	is 'state of the unit' "$(unit ActiveState)" inactive
	ok 'installing starts nothing'

	systemctl start belfry 2>/dev/null && fail 'starts without a cluster'
	is 'status without a cluster' "$(unit ExecMainStatus) $(unit ActiveState)" '4 failed'
	journalctl --unit belfry --no-pager --output cat >/out
	grep -q 'belongs to no cluster; make one with belfry init' /out || { cat /out >&2; fail 'does not say what to do'; }
	ok 'without a cluster it ends, and says what to do'

	# As root, while the directory is already the agent's.
	quiet belfry init --name pack --address 127.0.0.1
	systemctl reset-failed belfry
	echo kept >/var/lib/belfry/kept
	chown belfry: /var/lib/belfry/kept
	quiet systemctl start belfry
	quiet belfry status
	is 'state directory, folder of the socket, socket' \
		"$(stat -c '%a %U:%G' /var/lib/belfry /run/belfry /run/belfry/belfry.sock | tr '\n' ' ')" \
		'700 belfry:belfry 755 belfry:belfry 660 belfry:belfry '
	is 'capabilities' "$(sed -n 's/^Cap...:.//p' "/proc/$(unit MainPID)/status" | sort -u)" 0000000000000000
	ok 'starts after belfry init, without capabilities'
	second
	follow

	sleep 600 & process=$!
	touch /etc/watched
	belfry watch "process.exit:pid=$process" --count 1 --no-snapshot >/exit 2>&1 &
	belfry watch file.modify:/etc/watched --count 1 --no-snapshot >/modify 2>&1 &
	belfry watch filesystem.usage:/ --over 0.1% --count 1 >/usage 2>&1 &
	soon 'belfry registration list | grep -q "process.exit.* active "'
	soon 'belfry registration list | grep -q "file.modify.* active "'
	kill $process
	echo >>/etc/watched
	# Not signal=TERM: whether the kernel tells it depends on its version and on
	# how soon the parent asks.
	soon 'grep "process.exit.* seq 1 " /exit'
	soon 'grep what=write /modify'
	soon 'grep free_bytes /usage'
	ok 'producers work behind the filter of system calls'

	pid=$(unit MainPID)
	sed -i 's/level: info/level: debug/' /etc/belfry/belfry.yaml
	quiet systemctl reload belfry
	sed -i 's/level: debug/level: wrong/' /etc/belfry/belfry.yaml
	quiet systemctl reload belfry
	sed -i 's/level: wrong/level: debug/' /etc/belfry/belfry.yaml
	is 'process after two reloads' "$(unit MainPID) $(unit ActiveState)" "$pid active"
	ok 'reloads, wrong settings do not end it'

	kill -STOP "$pid"
	soon '[ "$(systemctl show -P NRestarts belfry)" = 1 ] && belfry status'
	ok 'the watchdog restarts it'

	pid=$(unit MainPID)
	quiet dpkg -i /new.deb
	is 'state after the upgrade' "$(unit ActiveState)" active
	[ "$(unit MainPID)" != "$pid" ] || fail 'the old program runs on after an upgrade'
	ok 'an upgrade restarts what runs'
	leave
	is 'state of the unit' "$(unit ActiveState)" inactive
	ok 'removing stops it, purging leaves state'
}

"$1"
