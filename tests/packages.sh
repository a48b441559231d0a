#!/bin/sh
# Installs the Debian packages named as arguments that are missing here, and starts none of their services:
# a mail server, a database or a scanner that was not listening before does not listen afterwards,
# neither now nor after the next boot. Packages that are already there are not touched.
#
# Exit status: 0 all there; 69 a package cannot be installed; 77 neither root nor sudo.
set -eu

say() { printf 'octroi: %s\n' "$*" >&2; }

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

command -v dpkg-query >/dev/null 2>&1 || {
    say "this is not a Debian system (no dpkg-query); install by hand what provides: $*"
    exit 69
}

missing=
for package; do
    installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    root=
elif command -v sudo >/dev/null 2>&1; then
    root=sudo
    sudo -v || { say "sudo was refused; as root, run: apt-get install$missing"; exit 77; }
else
    say "not root and no sudo; as root, run: apt-get install$missing"
    exit 77
fi

say "installing$missing"
log=$(mktemp)
guard=/usr/sbin/policy-rc.d
kept=
finish() {
    # Put back the machine's own answer to "may this package start its service?".
    if [ -n "$kept" ]; then $root mv -f "$kept" "$guard"; else $root rm -f "$guard"; fi
    rm -f "$log"
}

apt() { $root env DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -q -y --no-install-recommends "$@"; }

apt update >"$log" 2>&1 || say "apt-get update failed ($(grep -m1 '^E:' "$log" || echo 'no reason given')), trying with the lists at hand"

# Another mail server in Postfix's place would be removed by the package manager. That is not ours to decide.
apt -s install $missing >"$log" 2>&1 || {
    say "cannot install$missing: $(grep -m1 '^E:' "$log" || tail -n1 "$log")"
    rm -f "$log"
    exit 69
}
removed=$(awk '/^Remv / { print $2 }' "$log" | tr '\n' ' ')
if [ -n "$removed" ]; then
    say "installing$missing would remove: $removed- nothing was changed; use a machine without them"
    rm -f "$log"
    exit 69
fi

if [ -e "$guard" ] || [ -L "$guard" ]; then
    kept="$guard.before-octroi"
    $root mv -f "$guard" "$kept"
fi
trap finish EXIT
trap 'exit 130' INT TERM
printf '#!/bin/sh\nexit 101\n' | $root tee "$guard" >/dev/null
$root chmod 755 "$guard"

# Without a main.cf the system's own Postfix cannot start, whatever is done with its unit.
case " $missing " in
*" postfix "*)
    if command -v debconf-set-selections >/dev/null 2>&1; then
        echo 'postfix postfix/main_mailer_type select No configuration' | $root debconf-set-selections
    fi ;;
esac

# The same for the directory: without one of its own, slapd has nothing to serve.
case " $missing " in
*" slapd "*)
    if command -v debconf-set-selections >/dev/null 2>&1; then
        echo 'slapd slapd/no_configuration boolean true' | $root debconf-set-selections
    fi ;;
esac

before=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' | awk '$2 == "installed" { print $1 }' | sort)
apt install $missing >"$log" 2>&1 || {
    say "cannot install$missing: $(grep -m1 '^E:' "$log" || tail -n1 "$log")"
    exit 69
}
after=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' | awk '$2 == "installed" { print $1 }' | sort)

# Units that came with these packages stay off at the next boot as well.
if command -v systemctl >/dev/null 2>&1; then
    for package in $after; do
        case "
$before
" in *"
$package
"*) continue ;; esac
        for unit in $(dpkg -L "$package" 2>/dev/null | sed -n 's|^\(/usr\)\{0,1\}/lib/systemd/system/\([^/@]*\.\(service\|socket\|timer\)\)$|\2|p'); do
            $root systemctl disable "$unit" >/dev/null 2>&1 || :
        done
    done
fi

for package in $missing; do
    installed "$package" || { say "$package did not install"; exit 69; }
done
