#!/bin/sh
# Builds the packages of ARCHES (amd64 arm64) into DIST (dist), which it empties.
# The same commit gives the same bytes, wherever and whenever, with the same Go.
# VERSION, and SOURCE_DATE_EPOCH for the times of files, are the commit's.
set -eu
umask 022
cd "$(dirname "$0")/.."
export CGO_ENABLED=0 GOOS=linux GOAMD64=v1 GOARM64=v8.0 GOFLAGS= GOEXPERIMENT= LC_ALL=C TZ=UTC
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
host=$(go env GOHOSTARCH)

# version makes of the last tag what dpkg and rpm order as meant: v0.2.0-rc1 is
# 0.2.0~rc1, before 0.2.0; three commits after it follow as 0.2.0+3.gHASH.
version() {
	if described=$(git describe --tags --long --abbrev=12 --match 'v[0-9]*' 2>/dev/null); then
		hash=${described##*-}
		described=${described%-*}
		count=${described##*-}
		v=$(echo "${described%-*}" | sed 's/^v//; s/-/~/; s/-/./g')
		[ "$count" = 0 ] || v="$v+$count.$hash"
	else
		v="0.0.0~$(git rev-list --count HEAD).g$(git rev-parse --short=12 HEAD)"
	fi
	[ -z "$(git status --porcelain)" ] || v="$v+modified"
	echo "$v"
}
VERSION="${VERSION:-$(version)}"
DIST="${DIST:-dist}"
export VERSION DIST

# stage lays out what is made, or changed on the way, for one architecture.
stage() {
	root=$DIST/stage/$GOARCH
	share=$root/usr/share
	mkdir -p "$root/zsh" "$share/bash-completion/completions" "$share/fish/vendor_completions.d"
	go build -trimpath -buildvcs=true -o "$root/usr/bin/belfry" ./cmd/belfry
	belfry=$root/usr/bin/belfry
	if [ "$GOARCH" != "$host" ]; then # the completions are the same everywhere
		belfry=$DIST/stage/belfry
		GOARCH=$host go build -trimpath -o "$belfry" ./cmd/belfry
	fi
	"$belfry" completion bash >"$share/bash-completion/completions/belfry"
	"$belfry" completion fish >"$share/fish/vendor_completions.d/belfry.fish"
	"$belfry" completion zsh >"$root/zsh/_belfry"

	put() { install -D -m 0644 "$1" "$2"; }
	put packaging/belfry.yaml "$root/etc/belfry/belfry.yaml"
	put packaging/belfry.service "$root/usr/lib/systemd/system/belfry.service"
	put packaging/belfry.sysusers "$root/usr/lib/sysusers.d/belfry.conf"
	put LICENSE "$share/doc/belfry/copyright"
	put THIRD_PARTY_NOTICES "$share/doc/belfry/THIRD_PARTY_NOTICES"
	for page in packaging/man/*.1; do
		put "$page" "$share/man/man1/${page##*/}"
	done
	gzip -9n "$share"/man/man1/*.1
	(cd proto && find . -name '*.proto') | while read -r file; do
		put "proto/$file" "$share/belfry/proto/${file#./}"
	done
	for file in docs/schema/*.json; do
		put "$file" "$share/belfry/schema/${file##*/}"
	done
	find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

rm -rf "$DIST"
for GOARCH in ${ARCHES:-amd64 arm64}; do
	export GOARCH
	stage
	for packager in deb rpm; do
		.bin/nfpm package --config packaging/nfpm.yaml --packager "$packager" --target "$DIST/"
	done
done
rm -r "$DIST/stage"
