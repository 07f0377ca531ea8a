#!/usr/bin/env bash
# A private Postgres for tests: `postgres.sh start DIR` prints the URL of its server, `postgres.sh restart DIR` breaks every
# connection and starts it again at the same address, `postgres.sh stop DIR` ends it.
#
# The data stays below DIR, nothing is made durable (fsync=off), the port is a free one on the loopback address.
# postgres refuses to run as root, so as root the server runs as the user `postgres` (or `nobody`).
set -euo pipefail

usage() {
    echo "usage: $0 start DIR | restart DIR | stop DIR" >&2
    exit 2
}
[ $# -eq 2 ] || usage
dir=$2

find_bin() {
    local candidate
    for candidate in "${PGBIN:-}" /usr/lib/postgresql/*/bin "$(dirname "$(command -v pg_ctl || echo /none/x)")"; do
        if [ -n "$candidate" ] && [ -x "$candidate/initdb" ] && [ -x "$candidate/pg_ctl" ]; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

install() {
    echo "installing postgresql" >&2
    local sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo"
    {
        $sudo apt-get update
        # No cluster of the distribution's own is wanted, only the binaries.
        $sudo mkdir -p /etc/postgresql-common/createcluster.d
        echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.d/linkgate.conf
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y --no-install-recommends postgresql
    } >&2
}

# Runs a command as the server's user.
as_server() {
    if [ "$(id -u)" -ne 0 ]; then
        "$@"
    elif id postgres >/dev/null 2>&1; then
        (cd / && runuser -u postgres -- "$@")
    else
        (cd / && runuser -u nobody -- "$@")
    fi
}

free_port() {
    local port
    for _ in $(seq 200); do
        port=$((20000 + RANDOM % 30000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return 0
        fi
    done
    echo "no free port found" >&2
    return 1
}

case $1 in
start)
    bin=$(find_bin) || { install; bin=$(find_bin); }
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ "$(id -u)" -eq 0 ]; then
        # The server's user must be able to reach the folder, wherever it lies.
        data=$(as_server mktemp -d /tmp/linkgate-pg.XXXXXX)
    else
        data=$(mktemp -d /tmp/linkgate-pg.XXXXXX)
    fi
    echo "$data" >"$dir/data-dir"
    as_server "$bin/initdb" -D "$data/pg" -U linkgate --auth=trust --encoding=UTF8 --locale=C --no-sync \
        >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
    for _ in 1 2 3 4 5; do
        port=$(free_port)
        options="-c port=$port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        options="$options -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c shared_buffers=128MB"
        if as_server "$bin/pg_ctl" -D "$data/pg" -l "$data/log" -w -t 60 -o "$options" start >"$dir/start.log" 2>&1; then
            echo "postgres://linkgate@127.0.0.1:$port/postgres"
            exit 0
        fi
    done
    cat "$dir/start.log" "$data/log" >&2
    exit 1
    ;;
restart)
    bin=$(find_bin)
    data=$(cat "$dir/data-dir")
    as_server "$bin/pg_ctl" -D "$data/pg" -l "$data/log" -m fast -w -t 60 restart >"$dir/restart.log" 2>&1 || {
        cat "$dir/restart.log" "$data/log" >&2
        exit 1
    }
    ;;
stop)
    bin=$(find_bin) || exit 0
    [ -f "$dir/data-dir" ] || exit 0
    data=$(cat "$dir/data-dir")
    as_server "$bin/pg_ctl" -D "$data/pg" -m immediate -w stop >/dev/null 2>&1 || true
    case $data in
    /tmp/linkgate-pg.*) rm -rf -- "$data" ;;
    esac
    rm -f "$dir/data-dir"
    ;;
*) usage ;;
esac
