#!/usr/bin/env bash
# Lets schemathesis ask the demo's consolidated API whatever its own description allows, and more: no answer may be a
# fault of the server, a status or a body that the description does not know. Needs the built binary; installs
# schemathesis into the folder that is given.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5

# Services, database and tokens are the demo's; the gateway that is asked is another process on the same configuration,
# without the limits that would refuse most of the questions.
target/debug/linkgate demo --json --dir "$dir/demo" >"$dir/demo.json" 2>"$dir/demo.log" &
demo=$!
trap 'kill $demo ${serve:-} 2>/dev/null || true' EXIT
for _ in $(seq 300); do [ -s "$dir/demo.json" ] && break; sleep 0.1; done
read -r config token public health < <(python3 - "$dir/demo.json" <<'PY'
import json, socket, sys
demo = json.loads(open(sys.argv[1]).readline())
user = next(user for user in demo["users"] if user["name"] == "northwind-full")
free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(demo["config_path"], user["token"], *(one.getsockname()[1] for one in free))
PY
)
limits=$(for class in LISTING DETAIL WRITE EXPORT TENANT REFUSAL UNAUTHENTICATED; do echo "LINKGATE__LIMITS__$class=0"; done)
env $limits LINKGATE__LISTEN__ADDRESS="127.0.0.1:$public" LINKGATE__HEALTH__ADDRESS="127.0.0.1:$health" \
    LINKGATE__AUDIT__DIR="$dir/audit" LINKGATE__EXPORTS__QUEUE_PER_PARTNER=100000 \
    target/debug/linkgate --config "$config" serve >"$dir/serve.log" 2>&1 &
serve=$!
for _ in $(seq 300); do curl -fsS "http://127.0.0.1:$health/readyz" >/dev/null 2>&1 && break; sleep 0.1; done

# `strict` makes a partial answer 502, and a service that is away 503 or 504: only 500 is a fault.
cat >"$dir/schemathesis.toml" <<'TOML'
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "502", "503", "504"]
TOML

# Which values go together (a range that runs forward, a tenant that is linked) no schema can say, so that an answer of
# 4xx to a question that fits the schema is no failure.
# From there, because it leaves a cache where it stands.
cd "$dir"
"$dir/venv/bin/schemathesis" --config-file "$dir/schemathesis.toml" run "http://127.0.0.1:$health/openapi.json" --url "http://127.0.0.1:$public" \
    --header "Authorization: Bearer $token" \
    --exclude-checks positive_data_acceptance,ignored_auth,unsupported_method \
    --max-examples "${SCHEMATHESIS_EXAMPLES:-15}" --phases examples,coverage,fuzzing --workers 1 --seed 1 --no-color
