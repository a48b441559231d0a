#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs the command given as arguments with a temporary directory of its own, and afterwards sees to it that nothing is
# left: no process that has that directory in its environment or command line or as its place, no file in it.
#
# Exit status: that of the command; 1 when it succeeded but left something behind.
set -u

place=$(mktemp -d /tmp/octroi-run.XXXXXX) || exit 69
# Servers run as other users (postgres, clamav, postfix) and must be able to pass.
chmod 755 "$place"
root=
[ "$(id -u)" = 0 ] || root=sudo
# Postfix starts as root; better asked for the password now than in the middle.
[ -z "$root" ] || sudo -v || { echo 'octroi: Postfix starts as root: run this as root or as a user with sudo' >&2; exit 77; }

left_running() {
    for process in /proc/[0-9]*; do
        cat "$process/cmdline" "$process/environ" 2>/dev/null | tr '\0' '\n' | grep -qF "$place" ||
            case "$(readlink "$process/cwd" 2>/dev/null)" in "$place"*) ;; *) continue ;; esac
        [ "${process#/proc/}" = $$ ] || echo "${process#/proc/} $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)"
    done
}

TMPDIR=$place "$@"
status=$?

# What was killed a moment ago may need another to be gone.
left=$(left_running)
for _ in 1 2 3 4 5; do
    [ -n "$left" ] || break
    sleep 1
    left=$(left_running)
done
files=$(ls -A "$place")
if [ -n "$left" ]; then
    printf 'octroi: left running:\n%s\n' "$left" >&2
    [ "$status" != 0 ] || status=1
fi
if [ -n "$files" ]; then
    printf 'octroi: left behind in %s (removed now):\n%s\n' "$place" "$files" >&2
    [ "$status" != 0 ] || status=1
fi
$root rm -rf "$place"
exit "$status"
