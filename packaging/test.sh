#!/bin/sh
# Tries the packages in a Debian 12 to which nothing else was done, first one
# that does not run, then one whose own systemd runs (inside.sh). Needs root and
# debootstrap; the first time it makes that system in .bin/debian12-dbus.
set -eu
cd "$(dirname "$0")/.."
for need in debootstrap dpkg-deb rpm unshare; do
	command -v "$need" >/dev/null || { echo "needs: $need" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo 'needs: root' >&2; exit 1; }

base=.bin/debian12-dbus
if [ ! -d $base ]; then
	rm -rf $base.new
	debootstrap --variant=minbase --include=systemd,dbus bookworm $base.new >$base.log
	mv $base.new $base
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
arch=$(dpkg --print-architecture)

# Twice the same commit: from this folder, and from another with other times.
mkdir "$work/tree" "$work/tree/.bin"
git ls-files -z | tar -c --null -T - .git | tar -xm -C "$work/tree"
cp .bin/nfpm "$work/tree/.bin/"
ARCHES=$arch VERSION=0.0.2 DIST=$work/new packaging/build.sh >/dev/null
(umask 077 && ARCHES=$arch VERSION=0.0.2 DIST=$work/again "$work/tree/packaging/build.sh" >/dev/null)
for package in "$work"/new/*; do
	cmp "$package" "$work/again/${package##*/}"
done
echo 'ok  the same bytes from two folders'

# The rpm is not installed anywhere, but holds the same as the deb, which is.
mkdir "$work/deb" "$work/rpm"
dpkg-deb --fsys-tarfile "$work"/new/*.deb | tar -x -C "$work/deb"
cat "$work"/new/*.rpm | rpm2archive --nocompression - | tar -x -C "$work/rpm"
mv "$work/rpm/usr/share/zsh/site-functions" "$work/rpm/usr/share/zsh/vendor-completions"
diff -r "$work/deb" "$work/rpm"
for script in postinstall preremove postremove; do
	case $script in
	postinstall) tag=POSTIN ;;
	preremove) tag=PREUN ;;
	postremove) tag=POSTUN ;;
	esac
	rpm --query --package --queryformat "%{$tag}" "$work"/new/*.rpm >"$work/$script"
	diff "packaging/$script.sh" "$work/$script"
done
[ "$(rpm --query --package --configfiles "$work"/new/*.rpm)" = /etc/belfry/belfry.yaml ]
rpm --query --package --queryformat '[%{FILEFLAGS:fflags} %{FILENAMES}\n]' "$work"/new/*.rpm | grep -qx 'cn /etc/belfry/belfry.yaml'
[ "$(rpm --query --package --queryformat '[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]' "$work"/new/*.rpm | sort -u)" = root:root ]
echo 'ok  the rpm holds what the deb holds, with the same scripts'
ARCHES=$arch VERSION=0.0.1 DIST=$work/old packaging/build.sh >/dev/null

root=$work/root
cp -a $base "$root"
cp "$work"/old/*.deb "$root/old.deb"
cp "$work"/new/*.deb "$root/new.deb"
cp packaging/inside.sh "$root/inside.sh"
chroot "$root" sh /inside.sh resting

# A namespace of each kind, so that nothing outlives this. The unit ends
# systemd, with the status of the test.
cat >"$root/etc/systemd/system/inside.service" <<'UNIT'
[Unit]
Requires=basic.target
After=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=sh /inside.sh running
StandardOutput=file:/inside.log
StandardError=inherit
TimeoutStartSec=120
UNIT
status=0
timeout -s KILL 180 unshare --fork --kill-child --pid --mount --uts --ipc --cgroup --net sh -eu -c '
	mount --bind "$1" "$1" # units with a file system of their own want / to be a mount
	cd "$1"
	mount -t proc proc proc
	mount -t sysfs sysfs sys
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	mount -t tmpfs tmpfs run
	mount --rbind /dev dev
	exec env -i container=test PATH=/usr/sbin:/usr/bin chroot . /lib/systemd/systemd --unit=inside.service
' sh "$root" >"$root/boot.log" 2>&1 || status=$?
cat "$root/inside.log" || cat "$root/boot.log"
exit $status
