#!/bin/sh
# packwarden on a Raspberry Pi or another Debian machine.
#
#   sudo ./install.sh [--wheels DIR]     install, or upgrade; --wheels: without a network, from what `make wheels` made
#   sudo ./install.sh back               go back to the version before
#   sudo ./install.sh uninstall [--purge]    --purge: config, records and incidents too
#
# What it does, in this order: a user without rights of its own; a venv under /opt/packwarden; the command `controller`;
# systemd units, udev rules, a CAN interface, on a Raspberry Pi dtparam=strict_gpiod; /etc/packwarden/controller.toml if
# there is none. Nothing is energised:
# the service starts in STANDBY, and only after `controller config check` finds nothing wrong.
set -eu

HOME_DIR=/opt/packwarden
STATE_DIR=/var/lib/packwarden
CONFIG=/etc/packwarden/controller.toml
UNITS="packwarden-control.service packwarden-control@.service packwarden-gateway.service"
here=$(cd "$(dirname "$0")" && pwd)

fail() { echo "install: $*" >&2; exit 2; }

check_machine() {
    [ "$(id -u)" = 0 ] || fail "this needs root: sudo $0 $*"
    case "$(getconf LONG_BIT)-$(uname -m)" in
        64-aarch64 | 64-x86_64) ;;
        *) fail "a 64-bit system is needed; this one is $(getconf LONG_BIT)-bit $(uname -m). Write the 64-bit Raspberry Pi OS to the card" ;;
    esac
    [ -d /run/systemd/system ] || fail "systemd is not running here"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed"
    python3 -c 'import venv, ensurepip' 2>/dev/null || fail "python3-venv is missing: apt install python3-venv"
    command -v openssl >/dev/null || echo "install: openssl is missing; the page needs it for its certificate: apt install openssl" >&2
}

units() { systemctl list-units --all --plain --no-legend 'packwarden-control*'; }  # UNIT LOAD ACTIVE SUB …

socket_of() {  # $1: packwarden-control.service, or packwarden-control@NAME.service
    name=${1#packwarden-control}
    name=${name%.service}
    echo "/run/packwarden${name:+-${name#@}}/control.sock"
}

at_rest() {  # $1: a socket. Says why not, and fails, unless its pack is open and nothing says that a contactor may be welded
    "$HOME_DIR/current/bin/controller" status --json --socket "$1" 2>/dev/null | "$HOME_DIR/current/bin/python" -c '
import json, sys
try:
    now = json.load(sys.stdin)
    held = [f["id"] for f in now["faults"] if f["id"].startswith(("relay-failed", "feedback-mismatch", "weld-"))]
    state, closed = now["state"], now["closed"]
except (ValueError, KeyError):
    sys.exit("does not tell its state")
if closed or held or state not in ("STARTING", "STANDBY", "FAULT", "LOCKED_OUT"):
    sys.exit(", ".join([f"state {state}", *(f"{name} closed" for name in closed), *held]))' 2>&1
}

refuse_while_closed() {  # sets `running`: the units that run, all of them at rest
    running=""
    sockets=" "
    for unit in $(units | awk '{ print $1 "=" $3 "/" $4 }'); do
        at=${unit#*=}
        unit=${unit%%=*}
        case "$at" in
            inactive/*) continue ;;
            active/running) ;;
            *) fail "$unit is $at: systemctl stop $unit; systemctl reset-failed $unit; then again" ;;
        esac
        socket=$(socket_of "$unit")
        why=$(at_rest "$socket") || fail "the pack of $unit may not be open (${why:-no answer}): controller stop, then again"
        running="$running $unit"
        sockets="$sockets$socket "
    done
    # names a controller holds while it runs: drivers/exclusive.py
    for socket in $(sed -n 's/.*@packwarden socket //p' /proc/net/unix | sort -u); do
        case "$sockets" in
            *" $socket "*) ;;
            *) fail "a controller started by hand runs ($socket): end it first" ;;
        esac
    done
}

stop_all() {  # whoever still runs afterwards keeps its files
    systemctl stop packwarden-gateway.service 'packwarden-control*' 2>/dev/null || true
    still=$(units | awk '$3 != "inactive" && $3 != "failed" { print $1 " is " $3 }')
    [ -z "$still" ] || fail "not every service ended: $still"
}

let_go_of_pins() {  # a Raspberry Pi goes on driving the outputs of a program that was killed, unless told not to
    boot=/boot/firmware/config.txt
    [ -e "$boot" ] && grep -q 'Raspberry Pi' /proc/device-tree/model 2>/dev/null || return 0
    ! grep -q '^dtparam=.*strict_gpiod' "$boot" || return 0
    printf '\n# packwarden: relays go off when their program is killed\n[all]\ndtparam=strict_gpiod\n' >>"$boot"
    echo "dtparam=strict_gpiod was added to $boot: restart the Pi once, so that no pin stays on when its program is killed"
}

make_venv() {  # $1: a folder of wheels, or nothing
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/pyproject.toml")
    fresh=$HOME_DIR/$version-$(date -u +%Y%m%d%H%M%S)
    python3 -m venv "$fresh"
    if [ -n "$1" ]; then
        extras=pi
        ! ls "$1"/aiomqtt-* >/dev/null 2>&1 || extras=pi,gateway
        "$fresh/bin/pip" install --quiet --disable-pip-version-check --no-index --find-links "$1" "packwarden[$extras]" \
            || { rm -rf "$fresh"; fail "$1 does not hold every wheel that is needed: make wheels"; }
    else
        "$fresh/bin/pip" install --quiet --disable-pip-version-check "$here[pi,gateway]" \
            || { rm -rf "$fresh"; fail "pip could not install it; what was there before is untouched"; }
    fi
    "$fresh/bin/controller" --version >/dev/null || { rm -rf "$fresh"; fail "the new version does not start"; }
}

switch_to() {  # $1: the venv to use from now on; the one used before is kept
    refuse_while_closed
    stop_all
    sync  # should the power fail from here on, the new version is whole
    before=$(readlink -f "$HOME_DIR/current" 2>/dev/null || true)
    ln -sfn "$1" "$HOME_DIR/current"
    [ -z "$before" ] || [ "$before" = "$1" ] || ln -sfn "$before" "$HOME_DIR/previous"
    for old in "$HOME_DIR"/[0-9]*; do
        [ "$old" = "$(readlink -f "$HOME_DIR/current")" ] || [ "$old" = "$(readlink -f "$HOME_DIR/previous")" ] || rm -rf "$old"
    done
    ln -sf "$HOME_DIR/current/bin/controller" /usr/local/bin/controller
    share=$("$HOME_DIR/current/bin/python" -c 'import controller, os; print(os.path.join(list(controller.__path__)[0], "share"))')
    install -D -m 0644 "$share/packwarden.sysusers.conf" /etc/sysusers.d/packwarden.conf
    systemd-sysusers /etc/sysusers.d/packwarden.conf
    install -d -m 0750 -o packwarden -g packwarden "$STATE_DIR"
    install -d -m 0755 /etc/packwarden
    for unit in $UNITS; do install -m 0644 "$share/$unit" "/etc/systemd/system/$unit"; done
    install -D -m 0644 "$share/60-packwarden.rules" /etc/udev/rules.d/60-packwarden.rules
    [ -e /etc/systemd/network/80-packwarden-can.network ] \
        || install -D -m 0644 "$share/80-packwarden-can.network" /etc/systemd/network/80-packwarden-can.network
    "$HOME_DIR/current/bin/python" -c 'import aiomqtt' 2>/dev/null || rm -f /etc/systemd/system/packwarden-gateway.service
    udevadm control --reload 2>/dev/null || true
    udevadm trigger --settle --subsystem-match=gpio --subsystem-match=tty 2>/dev/null || true  # what is plugged in already
    sync  # a unit that is an empty file after a power cut counts as masked
    systemctl daemon-reload
    let_go_of_pins
}

start() {
    [ -e "$CONFIG" ] || controller config init -o "$CONFIG" >/dev/null
    systemctl enable --quiet packwarden-control.service
    systemctl enable --now --quiet systemd-networkd.service 2>/dev/null || true
    if controller config check --config "$CONFIG"; then
        systemctl start packwarden-control.service \
            || echo "installed, but the service does not start yet: controller doctor says what to mend"
        echo "installed: controller status; controller doctor"
    else
        echo "installed, not started: correct $CONFIG, then: systemctl start packwarden-control"
    fi
    for unit in $running; do  # more packs, which ran before
        [ "$unit" = packwarden-control.service ] || systemctl start "$unit" || echo "$unit does not start: systemctl status $unit"
    done
}

refuse_to_forget() {  # a lock-out and a latched cause end by an inspection, not by losing their record
    find "$STATE_DIR" -name 'record-[ab]' 2>/dev/null | grep -q . || return 0
    why=$("$HOME_DIR/current/bin/python" -c '
import sys
from pathlib import Path
from drivers.record_files import OsDisk, find
for folder in sorted({path.parent for path in Path(sys.argv[1]).rglob("record-[ab]")}):
    found = find(OsDisk(folder))
    record = found.record
    held = [found.lost] if record is None else [*["locked out"] * record.locked_out, *record.latched, *["closed"] * record.closed]
    if held:
        sys.exit("{}: {}".format(folder, ", ".join(held)))' "$STATE_DIR" 2>&1) \
        || fail "not purged, its record holds what nobody has inspected yet. $why. controller acknowledge, controller unlock; or rm the record-* yourself"
}

uninstall() {
    refuse_while_closed
    case "$running" in *@*) fail "more packs run:$running: systemctl disable --now each of them, then again" ;; esac
    [ "${1:-}" != --purge ] || refuse_to_forget
    stop_all
    for link in /etc/systemd/system/*.wants/packwarden-*.service; do
        [ ! -L "$link" ] || systemctl disable --quiet "$(basename "$link")" 2>/dev/null || rm -f "$link"
    done
    for unit in $UNITS; do rm -f "/etc/systemd/system/$unit"; done
    rm -f /usr/local/bin/controller /etc/sysusers.d/packwarden.conf /etc/udev/rules.d/60-packwarden.rules /etc/systemd/network/80-packwarden-can.network
    rm -rf "$HOME_DIR"
    systemctl daemon-reload
    if [ "${1:-}" = --purge ]; then
        rm -rf "$STATE_DIR" /etc/packwarden
        for name in packwarden-gateway packwarden; do userdel "$name" 2>/dev/null || true; done
    else
        echo "kept: $CONFIG, $STATE_DIR (uninstall --purge takes them away)"
    fi
}

check_machine "$@"
case "${1:-install}" in
    install | --wheels)
        wheels=""
        [ "${1:-}" != --wheels ] || wheels=$(realpath "${2:?--wheels needs a folder}")
        refuse_while_closed
        make_venv "$wheels"
        switch_to "$fresh"
        start
        ;;
    back)
        [ -L "$HOME_DIR/previous" ] || fail "there is no version before this one"
        switch_to "$(readlink -f "$HOME_DIR/previous")"
        start
        ;;
    uninstall) uninstall "${2:-}" ;;
    *) fail "unknown: $1" ;;
esac
