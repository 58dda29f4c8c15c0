#!/bin/sh
# Installs the Winnow agent on a board that runs Debian, Ubuntu or Raspberry Pi OS, 64 bits: a user, a virtual environment
# with wheels alone, a configuration, a hardened systemd unit. May be run again: what is there already is kept, the
# program is brought up to date. docs/boards.md tells the rest.
#
#   sh install.sh [options]
#
#   --package SPEC     what pip installs (default: winnow-edge[images]); a wheel's file works, too
#   --wheels DIR       install from this folder alone, without a network (scripts/wheelhouse.py makes one)
#   --constraints FILE versions to hold to (constraints.txt, constraints-py310.txt)
#   --onnxruntime SPEC another build of onnxruntime in place of PyPI's: on a Jetson, NVIDIA's wheel of onnxruntime-gpu
#   --python PYTHON    interpreter (default: the newest of 3.13 to 3.10 that is here)
#   --token FILE       enrol with the token in FILE (winnow-server device enrol), as the user of the service
#   --start            start it, too; else it is only enabled, for the next boot
#   --dry-run          say what would be done, do nothing
#   --uninstall        remove program, unit and virtual environment; configuration and data stay
#   --purge            and those, with the user: samples that were not delivered and the device's key are gone
#   --packaged         for the .deb: unit and configuration are the package's

set -eu
umask 022

USER_NAME=winnow
PREFIX=/opt/winnow
ETC=/etc/winnow
STATE=/var/lib/winnow
UNIT=winnow-agent.service
UNITS=/etc/systemd/system
HERE=$(cd "$(dirname "$0")" && pwd)

package='winnow-edge[images]' wheels='' constraints='' onnxruntime='' python='' token=''
start='' dry='' uninstall='' purge='' packaged=''

say() { printf 'winnow: %s\n' "$*"; }

fail() {
    printf 'winnow: %s\n' "$*" >&2
    exit 1
}

run() {
    if [ -n "$dry" ]; then
        say "would run: $*"
    else
        "$@"
    fi
}

write() { # write FILE: standard input becomes its content
    if [ -n "$dry" ]; then
        say "would write $1:"
        sed 's/^/    /'
    else
        cat >"$1"
    fi
}

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --package | --wheels | --constraints | --onnxruntime | --python | --token)
            [ $# -ge 2 ] || fail "$1: expected a value after it"
            case $1 in
            --package) package=$2 ;;
            --wheels) wheels=$2 ;;
            --constraints) constraints=$2 ;;
            --onnxruntime) onnxruntime=$2 ;;
            --python) python=$2 ;;
            --token) token=$2 ;;
            esac
            shift
            ;;
        --start) start=yes ;;
        --dry-run) dry=yes ;;
        --uninstall) uninstall=yes ;;
        --purge) uninstall=yes purge=yes ;;
        --packaged) packaged=yes ;;
        -h | --help)
            sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        *) fail "$1: unknown option; sh install.sh --help names them" ;;
        esac
        shift
    done
}

has_systemd() { [ -d /run/systemd/system ]; }

check_machine() {
    machine=$(uname -m)
    case $machine in
    x86_64 | aarch64 | arm64) ;;
    armv6l | armv7l | armv8l | i386 | i686)
        fail "this system is 32-bit ($machine): onnxruntime has no wheel for it on PyPI. Expected a 64-bit system, on a Raspberry Pi 3 or later: Raspberry Pi OS (64-bit)"
        ;;
    *) fail "machine $machine: onnxruntime has wheels for x86_64 and aarch64 alone" ;;
    esac
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

choose_python() {
    tried=''
    for name in ${python:-python3.13 python3.12 python3.11 python3.10 python3}; do
        command -v "$name" >/dev/null 2>&1 || continue
        version=$(version_of "$name")
        tried="$tried $name (${version:-no Python})"
        case $version in
        3.1[0-3])
            python=$name
            check_python
            return
            ;;
        esac
    done
    fail "Python 3.10 to 3.13 is needed; tried:${tried:- nothing, there is none}. Debian 12, Ubuntu 22.04 and JetPack 6 have one: apt-get install python3 python3-venv"
}

check_python() {
    bits=$("$python" -c 'import struct; print(8 * struct.calcsize("P"))')
    # A 64-bit kernel under a 32-bit system is what Raspberry Pi OS (32-bit) runs on a Pi 4 and 5.
    [ "$bits" = 64 ] || fail "$python is a $bits-bit program under a 64-bit kernel: onnxruntime has no wheel for it on PyPI. Expected a 64-bit system, on a Raspberry Pi: Raspberry Pi OS (64-bit)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python lacks its venv module: apt-get install python3-venv"
}

check_files() {
    [ -z "$wheels" ] || [ -d "$wheels" ] || fail "--wheels $wheels: no such folder"
    [ -z "$constraints" ] || [ -f "$constraints" ] || fail "--constraints $constraints: no such file"
    [ -z "$token" ] || [ -f "$token" ] || fail "--token $token: no such file"
    [ -n "$packaged" ] || [ -f "$HERE/$UNIT" ] || fail "$HERE/$UNIT: not there: install.sh needs the files beside it"
    if [ -z "$packaged" ] && command -v dpkg-query >/dev/null 2>&1 &&
        [ "$(dpkg-query -W -f '${db:Status-Status}' winnow-agent 2>/dev/null)" = installed ]; then
        fail "the package winnow-agent is installed: it is kept up to date by apt, or removed with: apt-get remove winnow-agent"
    fi
}

check_build() { # pip would put PyPI's build over another one
    [ -z "$packaged" ] && [ -z "$onnxruntime" ] || return 0
    for info in "$PREFIX"/venv/lib/python3.*/site-packages/onnxruntime_*.dist-info; do
        [ ! -d "$info" ] || fail "$(basename "$info" .dist-info) is installed, in place of PyPI's onnxruntime: name it again (--onnxruntime FILE), or first remove $PREFIX/venv"
    done
}

make_user() {
    getent passwd $USER_NAME >/dev/null && return
    run useradd --system --user-group --home-dir $STATE --no-create-home --shell /usr/sbin/nologin $USER_NAME
}

make_folders() {
    run install -d -m 0755 $PREFIX $ETC
    run install -d -m 0700 -o $USER_NAME -g $USER_NAME $STATE $STATE/samples
    run install -d -m 0700 $ETC/credentials
}

pip_install() {
    set -- "$PREFIX/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir \
        --only-binary=:all: ${constraints:+--constraint "$constraints"} "$@"
    [ -z "$wheels" ] || set -- "$@" --no-index --find-links "$wheels"
    run "$@"
}

make_venv() {
    if [ "$(version_of $PREFIX/venv/bin/python)" != "$(version_of "$python")" ]; then # none, or of a Python that went
        run "$python" -m venv --clear $PREFIX/venv
    fi
    pip_install --upgrade "$package"
    pip_install --force-reinstall --no-deps "$package" # another build may have the same number
    if [ -n "$onnxruntime" ]; then
        run "$PREFIX/venv/bin/python" -m pip uninstall --quiet --yes onnxruntime
        pip_install --upgrade "$onnxruntime"
        # All builds are of the same files: what went just now were those of one that was here already.
        pip_install --force-reinstall --no-deps "$onnxruntime"
    fi
}

configure() {
    [ -z "$token" ] || enrol
    if [ -z "$packaged" ] && [ ! -e $ETC/agent.toml ]; then
        run install -m 0640 -g $USER_NAME "$HERE/agent.toml" $ETC/agent.toml
    fi
}

enrol() {
    if [ -n "$dry" ]; then
        say "would enrol with the token in $token, as $USER_NAME, into $STATE"
        return
    fi
    runuser -u $USER_NAME -- $PREFIX/venv/bin/winnow-agent enrol - --dir $STATE <"$token"
    # Its paths are meant from where the file lies, and the agent resolves links.
    [ -e $ETC/agent.toml ] || ln -s $STATE/agent.toml $ETC/agent.toml
}

install_unit() {
    [ -n "$packaged" ] || run install -m 0644 "$HERE/$UNIT" $UNITS/$UNIT
    set -- $ETC/credentials/*
    if [ -f "$1" ]; then
        run install -d -m 0755 $UNITS/$UNIT.d
        {
            echo "# By install.sh, of the files in $ETC/credentials: run it again when there are others."
            echo '[Service]'
            for file in "$@"; do echo "LoadCredential=$(basename "$file"):$file"; done
        } | write $UNITS/$UNIT.d/credentials.conf
    elif [ -f $UNITS/$UNIT.d/credentials.conf ]; then # with a line to a file that went, the service would not start
        run rm $UNITS/$UNIT.d/credentials.conf
    fi
    has_systemd || return 0
    run systemctl daemon-reload
    [ -n "$packaged" ] || run systemctl --quiet enable $UNIT
    if [ -n "$start" ]; then
        run systemctl restart $UNIT
    else
        run systemctl try-restart $UNIT
    fi
}

install_all() {
    check_machine
    choose_python
    check_files
    check_build
    [ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "not root: sudo sh $0, or --dry-run to see what it would do"
    make_user
    make_folders
    make_venv
    configure
    install_unit
    [ -z "$dry" ] || return 0
    say "installed with $python in $PREFIX/venv. Next: $ETC/agent.toml; then: winnow-agent check, systemctl start $UNIT"
}

remove_all() {
    [ -n "$dry" ] || [ "$(id -u)" = 0 ] || fail "not root: sudo sh $0 --uninstall"
    if has_systemd; then
        run systemctl --quiet stop $UNIT || true
        [ -n "$packaged" ] || run systemctl --quiet disable $UNIT || true
    fi
    [ -n "$packaged" ] || run rm -f $UNITS/$UNIT
    run rm -rf $PREFIX/venv
    if [ -n "$purge" ]; then
        run rm -rf $UNITS/$UNIT.d $ETC $STATE
        if getent passwd $USER_NAME >/dev/null; then run userdel $USER_NAME; fi
    else
        say "left as they are: $ETC, $STATE and the user $USER_NAME (--purge removes them)"
    fi
    if has_systemd; then run systemctl daemon-reload; fi
    [ -n "$dry" ] || rmdir $PREFIX 2>/dev/null || true
}

read_options "$@"
if [ -n "$uninstall" ]; then remove_all; else install_all; fi
