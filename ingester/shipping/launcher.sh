#!/bin/sh
# ingester @VERSION@: unpacks itself once, then runs from there. What follows `exec` is a gzip'd tar.
set -eu
for base in "${CACHE_DIRECTORY:-}" "${XDG_CACHE_HOME:-}" "${HOME:+$HOME/.cache}" "${TMPDIR:-/tmp}"; do
    [ -n "$base" ] || continue
    # In a place that others may write to, only a folder of our own will do.
    home=$base/ingester-$(id -u)
    mkdir -p -m 700 "$home" 2>/dev/null || continue
    [ -O "$home" ] && [ ! -L "$home" ] && [ -w "$home" ] || continue
    place=$home/@DIGEST@
    if [ ! -x "$place/ingester" ]; then
        fresh=$(mktemp -d "$home/.new.XXXXXX") || continue
        if ! tail -c +@OFFSET@ "$0" | tar -xzf - -C "$fresh" || [ ! -x "$fresh/ingester" ]; then
            rm -rf "$fresh"
            echo "ingester: cannot unpack into $home (full, or this file is damaged)" >&2
            continue
        fi
        # Another start may have been quicker.
        mv -T "$fresh" "$place" 2>/dev/null || rm -rf "$fresh"
    fi
    _INGESTER_STARTED_AS=$0
    export _INGESTER_STARTED_AS
    exec "$place/ingester" "$@"
done
echo "ingester: no folder to unpack into; set XDG_CACHE_HOME to one" >&2
exit 1
