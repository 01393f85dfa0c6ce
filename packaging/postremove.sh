#!/bin/sh
# After removal and purge. The state directory stays, with its owner: it holds
# what makes this machine a member of its cluster.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
