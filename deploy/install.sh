#!/bin/sh
# Install kws as a service, from this checkout or a wheel; see `deploy/install.sh --help`.
set -eu

usage() {
    cat <<'EOF'
Usage: deploy/install.sh [OPTIONS]

Install kws and start it as a service, on Raspberry Pi OS, Debian or Ubuntu. Run it again to
update kws; the configuration is kept.

  --user          Install for the desktop session of this user, with PipeWire or PulseAudio, in
                  ~/.local/lib/kws and ~/.config/kws; needs no root. The default is a system
                  service, in /opt/kws and /etc/kws.
  --wyoming       Serve Home Assistant and its satellites instead of microphones: the service
                  kws-wyoming, with its options in /etc/kws/wyoming.env. Not with --user.
  --mqtt          Install what [mqtt] in kws.toml needs too, let the system service use the network,
                  and pass it the password in /etc/kws/mqtt-password, if there is that file.
  --ui            Install what [ui] in kws.toml needs too, the page in the browser, and let the
                  system service use the network.
  --wheel FILE    Install this wheel of kws instead of the checkout.
  --no-start      Install only; neither enable nor start the service.
  --uninstall     Stop the service and remove the program; keep configuration and recordings.
  --purge         With --uninstall: also remove configuration and recordings, and list them.
  --dry-run       Print the steps without running them.
  --help          Show this help.

PYTHON=FILE sets the Python to use instead of python3.
EOF
}

main() {
    here=$(cd "$(dirname "$0")" && pwd)
    scope=system action=install wheel='' start=yes purge=no dry=no
    service=kws wyoming=no mqtt=no ui=no
    while [ $# -gt 0 ]; do
        case $1 in
            --user) scope=user ;;
            --wyoming) service=kws-wyoming wyoming=yes ;;
            --mqtt) mqtt=yes ;;
            --ui) ui=yes ;;
            --wheel)
                [ $# -gt 1 ] || fail "--wheel must be followed by a file. Received: nothing."
                wheel=$2
                shift ;;
            --no-start) start=no ;;
            --uninstall) action=uninstall ;;
            --purge) purge=yes ;;
            --dry-run) dry=yes ;;
            --help | -h) usage; exit 0 ;;
            *) fail "Options must be among those of --help. Received: $1." ;;
        esac
        shift
    done
    [ $purge = no ] || [ $action = uninstall ] ||
        fail "--purge needs --uninstall. Received: --purge alone."
    [ $scope = system ] || [ $service = kws ] ||
        fail "--wyoming excludes --user. Received: both. For one user, run 'kws wyoming'."
    [ $mqtt = no ] || [ $service = kws ] ||
        fail "--mqtt excludes --wyoming. Received: both. Install one after the other."
    [ $ui = no ] || [ $service = kws ] ||
        fail "--ui excludes --wyoming. Received: both. Install one after the other."
    case $wyoming$mqtt$ui in
        yes*) extras='[wyoming,zeroconf]' ;;
        noyesyes) extras='[mqtt,ui]' ;;
        noyesno) extras='[mqtt]' ;;
        nonoyes) extras='[ui]' ;;
        *) extras='' ;;
    esac
    choose_places
    $action
}

choose_places() {
    if [ $scope = user ]; then
        [ -n "${HOME:-}" ] || fail "HOME must be set for --user. Received: nothing."
        prefix=$HOME/.local/lib/kws
        former=$HOME/.local/share/kws  # of the program once, and of the voices of kws new
        bin=$HOME/.local/bin
        etc=${XDG_CONFIG_HOME:-$HOME/.config}/kws
        units=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user
        unit=$here/user/kws.service
        runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
        state=''
    else
        prefix=/opt/kws former='' bin=/usr/local/bin etc=/etc/kws units=/etc/systemd/system
        unit=$here/$service.service runtime=/run state=/var/lib/kws
        umask 022 # the service runs as another user, whatever root's umask is
    fi
    python=${PYTHON:-python3}
}

install() {
    check_places
    read_platform
    check_python
    install_packages
    make_environment
    install_kws
    install_files
    if has_former; then remove_program "$former"; fi
    if [ $start = yes ]; then start_service; fi
    finish
}

uninstall() {
    check_places
    for service in kws kws-wyoming; do
        [ -e "$units/$service.service" ] || continue
        if has_manager; then try systemctl_ stop $service.service; fi
        try systemctl_ disable $service.service
        run rm -f "$units/$service.service"
        if has_manager; then try systemctl_ daemon-reload; fi
    done
    if [ -L "$bin/kws" ]; then run rm -f "$bin/kws"; fi
    if [ -e "$prefix" ]; then remove_program "$prefix"; fi
    if has_former; then remove_program "$former"; fi
    if [ $purge = yes ]; then
        remove_listed "$etc" "$units/kws.service.d" "$units/kws-wyoming.service.d" \
            ${state:+"$state" /var/lib/private/kws "$state-wyoming" /var/lib/private/kws-wyoming}
        say "kws is removed, with its configuration and recordings."
    else
        say "kws is removed. Still there: $etc${state:+ and $state}; --purge removes them."
    fi
}

# Remove what this script made in a folder; files of the user stay.
remove_program() {
    for part in bin include lib lib64 share pyvenv.cfg kws.toml.example .gitignore; do
        if [ -e "$1/$part" ] || [ -L "$1/$part" ]; then run rm -rf "$1/$part"; fi
    done
    if [ $dry = yes ]; then return 0; fi
    left=$(cd "$1" && find . -mindepth 1 -maxdepth 1 | sed 's|^..||' | sort | tr '\n' ' ')
    if [ -z "$left" ]; then rmdir "$1"; else say "Kept in $1: $left"; fi
}

# Remove folders, after a list of the files in them.
remove_listed() {
    for place in "$@"; do
        [ -e "$place" ] || continue
        say "Removing $place:"
        find "$place" ! -type d -print | sort | sed 's/^/  /'
        run rm -rf "$place"
    done
}

# Checks before any change.

check_places() {
    [ $scope = user ] || [ $dry = yes ] || [ "$(id -u)" -eq 0 ] ||
        fail "The system service must be installed by root. Received: user $(id -un). Run it with" \
            "sudo, or give --user for a service of your desktop session."
    # Files of a Debian package belong to dpkg, and this script would overwrite them.
    if [ $scope = system ] && dpkg-query -W -f '${Status}' kws 2>/dev/null | grep -q 'ok installed'
    then
        fail "Either the Debian package or this script must own /opt/kws. Received: both. Run" \
            "'apt remove kws' first, or update by apt."
    fi
    if [ -e "$prefix" ] && [ ! -e "$prefix/pyvenv.cfg" ] && [ -n "$(ls -A "$prefix")" ]; then
        fail "$prefix must be an installation of kws or absent. Received: a folder that this" \
            "script did not create. Move it away."
    fi
}

read_platform() {
    [ "$(uname -s)" = Linux ] || fail "The system must be Linux. Received: $(uname -s)."
    os_release=${KWS_OS_RELEASE:-/etc/os-release}
    [ -r "$os_release" ] || fail "$os_release must name the system. Received: no such file."
    # shellcheck source=/dev/null
    family=$(. "$os_release" && echo "${ID:-} ${ID_LIKE:-}")
    # shellcheck source=/dev/null
    system=$(. "$os_release" && echo "${PRETTY_NAME:-$ID}")
    case " $family " in
        *" debian "* | *" raspbian "* | *" ubuntu "*) ;;
        *) fail "The system must be Raspberry Pi OS, Debian or Ubuntu. Received: $system. Install" \
            "the wheel with pip, and see docs/deploy.md for the unit." ;;
    esac
    architecture=$(dpkg --print-architecture)
    case $architecture in
        amd64 | arm64) ;;
        armhf)
            case $(uname -m) in
                armv6*) fail "The processor must be ARMv7 or later. Received: $(uname -m)." \
                    "TensorFlow Lite is not built for the first Raspberry Pi and the first Zero." ;;
            esac ;;
        *) fail "The architecture must be amd64, arm64 or armhf. Received: $architecture." ;;
    esac
    say "System: $system, $architecture."
}

check_python() {
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
        fail "Python must be installed. Received: no $python that works. Run:" \
            "sudo apt-get install python3 python3-venv"
    minor=${version#3.}
    [ "$minor" -ge 11 ] ||
        fail "Python must be 3.11 or later. Received: $version. Use Debian 12, Ubuntu 24.04 or" \
            "later, or set another with PYTHON=FILE."
    [ "$architecture" != armhf ] || [ "$minor" -eq 11 ] ||
        fail "On 32-bit ARM, Python must be 3.11: TensorFlow Lite is built for no later one." \
            "Received: $version. Use the 64-bit system, or Bookworm, or set another with" \
            "PYTHON=FILE."
}

# Steps of the installation.

install_packages() {
    missing=''
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
    command -v arecord >/dev/null || missing="$missing alsa-utils"
    if [ "$architecture" = armhf ]; then
        # PyPI has no numpy for 32-bit ARM, and that of piwheels needs libraries of Debian.
        "$python" -c 'import numpy' 2>/dev/null || missing="$missing python3-numpy"
        if ! has_wheels_of_piwheels; then
            command -v cc >/dev/null || missing="$missing gcc libc6-dev"
            has_headers || missing="$missing python3-dev"
        fi
    fi
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ] && [ $dry = no ]; then
        fail "Debian packages are missing:$missing. Run:" \
            "sudo apt-get install --no-install-recommends$missing"
    fi
    run apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    run env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $missing
}

has_wheels_of_piwheels() {
    "$python" -m pip config list 2>/dev/null | grep -q -e piwheels -e find-links ||
        grep -qs piwheels /etc/pip.conf || [ -n "${PIP_FIND_LINKS:-}" ]
}

has_headers() {
    "$python" -c 'import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

make_environment() {
    # An update of the system may have removed the Python of the environment.
    if [ -x "$prefix/bin/python" ] &&
        "$prefix/bin/python" -c 'import pip, sys; raise SystemExit(
            "%d.%d" % sys.version_info[:2] != sys.argv[1])' "$version" 2>/dev/null; then
        return 0
    fi
    if [ -e "$prefix/pyvenv.cfg" ]; then remove_program "$prefix"; fi
    # 32-bit ARM uses Debian's numpy.
    if [ "$architecture" = armhf ]; then site=--system-site-packages; else site=''; fi
    run mkdir -p "$prefix"
    # shellcheck disable=SC2086  # none or one
    run "$python" -m venv $site "$prefix"
    # Debian 12's pip selects wrong wheels for a 32-bit system under a 64-bit kernel.
    if [ "$architecture" = armhf ]; then pip_ install --upgrade pip; fi
}

install_kws() {
    if [ -n "$wheel" ]; then
        [ -f "$wheel" ] || fail "--wheel must name a file. Received: $wheel."
    else
        [ -f "$here/../pyproject.toml" ] ||
            fail "This script must be in deploy/ of a checkout. Received: $here. Or give --wheel."
        built=$(mktemp -d)
        trap 'rm -rf "$built"' EXIT
        pip_ wheel --no-deps --wheel-dir "$built" "$here/.."
        if [ $dry = yes ]; then wheel="$built/kws.whl"; else wheel=$(ls "$built"/kws-*.whl); fi
    fi
    pip_ install --upgrade "$wheel$extras"
    # pip does not replace an equal version, and the version of a checkout changes seldom.
    pip_ install --force-reinstall --no-deps "$wheel"
    run "$prefix/bin/kws" demo ||
        fail "kws demo failed; see the error above."
}

install_files() {
    run mkdir -p "$bin" "$etc" "$units"
    run ln -sf "$prefix/bin/kws" "$bin/kws"
    run cp "$here/kws.toml" "$prefix/kws.toml.example"
    if [ -e "$etc/kws.toml" ]; then
        say "Keeping $etc/kws.toml; $prefix/kws.toml.example explains new keys."
    else
        run cp "$here/kws.toml" "$etc/kws.toml"
    fi
    if [ $service = kws-wyoming ] && [ ! -e "$etc/wyoming.env" ]; then
        run cp "$here/wyoming.env" "$etc/wyoming.env"
    fi
    if [ $mqtt$ui != nono ] && [ $scope = system ]; then install_dropins; fi
    run cp "$unit" "$units/$service.service"
    if [ $dry = no ]; then chmod 644 "$units/$service.service"; fi
}

# Without the password's file, the service would not start.
install_dropins() {
    run mkdir -p "$units/kws.service.d"
    run cp "$here/dropins/network.conf" "$units/kws.service.d/network.conf"
    [ $mqtt = yes ] || return 0
    if [ -e "$etc/mqtt-password" ]; then
        run cp "$here/dropins/mqtt.conf" "$units/kws.service.d/mqtt.conf"
    else
        say "For a broker with a password, write it to $etc/mqtt-password, and run this again."
    fi
}

start_service() {
    if has_manager; then
        systemctl_ daemon-reload
        systemctl_ enable $service.service
        systemctl_ restart $service.service ||
            fail "The service did not start. See: $(journal)"
    elif [ $scope = system ] && command -v systemctl >/dev/null; then
        systemctl_ enable $service.service
        say "systemd is not running: kws starts with the next boot."
    elif [ $service = kws-wyoming ]; then
        say "systemd is not running: start it with '$bin/kws wyoming'."
    else
        say "systemd is not running: start kws with '$bin/kws daemon --config $etc/kws.toml'."
    fi
}

finish() {
    [ $dry = no ] || { say "Nothing was changed: this was a dry run."; return 0; }
    if [ $service = kws-wyoming ]; then
        say "kws is installed. Its options: $etc/wyoming.env. Watch its log: $(journal) -f"
        return 0
    fi
    say "kws is installed. Configure it: $etc/kws.toml. Watch its log: $(journal) -f"
    if [ $ui = yes ]; then
        say "For the page in the browser, set 'port' in its [ui]; '$bin/kws status' shows the link."
    fi
    if [ $scope = user ]; then
        say "To run it while you are not logged in: sudo loginctl enable-linger $(id -un)"
    fi
}

# Shorthands.

has_former() { [ -n "$former" ] && [ -e "$former/pyvenv.cfg" ]; }

has_manager() { [ -d "$runtime/systemd" ] && command -v systemctl >/dev/null; }

systemctl_() {
    if [ $scope = user ]; then run systemctl --user "$@"; else run systemctl "$@"; fi
}

journal() {
    if [ $scope = user ]; then echo "journalctl --user -u $service"; else echo "journalctl -u $service"; fi
}

pip_() {
    # A 32-bit system under a 64-bit kernel, such as Raspberry Pi OS on a Pi 4, reports a 64-bit
    # machine: pip would look for LiteRT, which has no wheel for it.
    if [ "$architecture" = armhf ] && [ "$(uname -m)" = aarch64 ]; then
        run setarch linux32 "$prefix/bin/python" -m pip --quiet --disable-pip-version-check "$@"
    else
        run "$prefix/bin/python" -m pip --quiet --disable-pip-version-check "$@"
    fi
}

run() {
    if [ $dry = yes ]; then echo "would run: $*"; else "$@"; fi
}

try() {
    "$@" || say "That failed; continuing."
}

say() { echo "$*"; }

fail() {
    echo "Error: $*" >&2
    exit 2
}

main "$@"
