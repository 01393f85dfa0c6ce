#!/bin/sh
# After installation and upgrade. Starts nothing: only an agent that runs is
# restarted, so that it does not stay what it was before the upgrade.
set -e
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers belfry.conf
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart belfry.service || true # its log tells why; the package is installed
fi
