#!/bin/sh
# Before removal, not before an upgrade: dpkg says remove, rpm says how many
# versions remain.
set -e
case "$1" in
remove | 0)
	if [ -d /run/systemd/system ]; then
		systemctl disable --now --quiet belfry.service
	fi
	;;
esac
