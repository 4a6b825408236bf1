# Sourced by the other scripts: makes sure that what they need is here, and installs only what is missing.
#
# `need_packages COMMAND:PACKAGE ...` installs Debian packages whose command is absent.
# `need_venv [EXTRA]` makes .venv and brings it up to date with pyproject.toml.
# Both say what they do, cost a few milliseconds when there is nothing to do, and may run twice at once.

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
venv=$root/.venv
export PATH=$PATH:/usr/sbin:/sbin

fail() {
    echo "error: $*" >&2
    exit 1
}

need_packages() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || fail "missing here: ${missing[*]}; install these packages"
    [ "$(id -u)" -eq 0 ] || fail "missing here: ${missing[*]}; run this once as root to install them"
    echo "installing packages: ${missing[*]}" >&2
    local log
    log=$(mktemp)
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install: ${missing[*]}"
    fi
    rm -f "$log"
}

need_venv() {
    local extra=${1:-} stamp=$venv/.installed${1:+-$1}
    [ -e "$stamp" ] && [ ! "$root/pyproject.toml" -nt "$stamp" ] && return
    need_packages python3:python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed"
    # Debian packs venv apart from Python, and only using it tells.
    python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages no-such-command:python3-venv
    exec 9>"$root/.venv.lock"
    flock 9
    if [ ! -e "$stamp" ] || [ "$root/pyproject.toml" -nt "$stamp" ]; then
        echo "installing Python packages into .venv" >&2
        [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
        "$venv/bin/python" -m pip install -qq --disable-pip-version-check --editable "$root${extra:+[$extra]}" ||
            fail "pip could not install netemu's dependencies"
        touch "$venv/.installed" "$stamp"
    fi
    exec 9>&-
}
