# shellcheck shell=bash
# Sourced by the other scripts here: makes the virtual environments that they need, with pip alone.

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# check_python PYTHON: ends the script with the remedy where this Python cannot make environments.
check_python() {
    command -v "$1" >/dev/null || fail "There is no '$1' on this machine: install Python 3.11 or newer," \
        "or name one with PYTHON=/path/to/python3 in front of the command."
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "hpcfut needs Python 3.11 or newer, and" \
        "'$1' is $("$1" -V 2>&1): name another with PYTHON=/path/to/python3 in front of the command."
    # Debian ships Python without ensurepip, and `python -m venv` finds out only half-way through.
    if ! "$1" -c 'import ensurepip, venv; ensurepip.version()' >/dev/null 2>&1; then
        local version sudo=""
        version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        [ "$(id -u)" = 0 ] || sudo="sudo "
        command -v apt-get >/dev/null || fail "The Python '$1' cannot make virtual environments: install its venv" \
            "and ensurepip modules, or name another Python with PYTHON=/path/to/python3 in front of the command."
        printf '%s\n' "The Python '$1' cannot make virtual environments. This line mends it:" >&2
        fail "    ${sudo}apt-get install -y python$version-venv"
    fi
}

# is_made FOLDER STAMP: whether the environment is whole and was made from what the stamp says.
is_made() {
    [ -f "$1/made-from" ] && [ "$(cat "$1/made-from")" = "$2" ] && [ -x "$1/bin/python" ]
}

# make_environment PYTHON FOLDER EXTRAS: hpcfut[EXTRAS], editable, from the checkout in the working
# directory. The stamp is written last and says what the environment was made from, so that one
# that was interrupted, copied or outdated is made anew, and a good one costs nothing.
make_environment() {
    local python=$1 folder=$2 extras=$3 stamp
    stamp="$PWD|$extras|$("$python" -c 'import sys; print(sys.base_prefix, sys.version)')|$(cksum <pyproject.toml)"
    if is_made "$folder" "$stamp"; then
        return
    fi
    if ! mkdir -p "$(dirname "$folder")" 2>/dev/null || [ ! -w "$(dirname "$folder")" ]; then
        fail "You may not write to '$PWD': clone the project into a folder of your own and start there."
    fi
    # A second run at the same time, or the pip of a killed one, must not write into what is made here.
    exec 9>"$folder.lock"
    ! command -v flock >/dev/null || flock 9
    if ! is_made "$folder" "$stamp"; then
        printf '%s\n' "Making the environment $folder with hpcfut[$extras], which takes a minute or two."
        rm -rf "$folder"
        "$python" -m venv "$folder"
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
        printf '%s\n' "$stamp" >"$folder/made-from"
    fi
    exec 9>&-
}
