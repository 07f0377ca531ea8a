//! The demo's files: keys, secrets, policies and a complete configuration for `serve`.

use std::{
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::world::{AUDIENCE, ISSUER, NEWER, OWN_ADDRESS, city_tenant};
use crate::{cli::outcome::Failure, identity::mint::DevKey, policy};

/// Where the shipped route table begins.
const ROUTES_MARK: &str = "# ---- routes";
const DEPLOYED: &str = include_str!("../../../deploy/linkgate.toml");

/// Folders of policy sets within the demo's: the one in force, and with `--shadow` a copy for what may come next.
pub(super) const POLICIES: &str = "policies";
pub(super) const SHADOW: &str = "policies-next";

/// Beyond the shipped table: endpoints that only the sample services have.
const SAMPLE_ROUTES: &str = r#"
# ---- endpoints of the sample services, to see what arrives behind the gateway ----

[[routes]]
methods = ["POST"]
path = "/api/isp/v1/subscribers/subscribers/{subscriber_id}/activate"
permission = "partner.provisioning.subscribers.activate"
upstream = "isp"
[[routes]]
methods = ["POST"]
path = "/api/isp/v1/subscribers/subscribers/{subscriber_id}/suspend"
permission = "partner.provisioning.subscribers.suspend"
upstream = "isp"
# Shows what arrived: headers, token, body length.
[[routes]]
methods = ["*"]
path = "/api/isp/v1/echo"
permission = "partner.tenants.list"
upstream = "isp"
[[routes]]
methods = ["GET"]
path = "/api/isp/v1/slow"
permission = "partner.tenants.list"
upstream = "isp"
response_timeout = "2s"
# Server-sent events, a WebSocket and long streams: revoke the link and see them cut.
[[routes]]
methods = ["GET"]
path = "/api/isp/v1/events"
permission = "partner.tenants.list"
upstream = "isp"
[[routes]]
methods = ["GET"]
path = "/api/isp/v1/ws"
permission = "partner.tenants.list"
upstream = "isp"
[[routes]]
methods = ["GET"]
path = "/api/isp/v1/stream/download"
permission = "partner.tenants.list"
upstream = "isp"
[[routes]]
methods = ["POST"]
path = "/api/isp/v1/stream/upload"
permission = "partner.tenants.list"
upstream = "isp"
max_body = "8GiB"
"#;

pub(super) struct Keys {
    /// Signs the users' tokens.
    pub(super) issuer: DevKey,
    /// The gateway's own.
    pub(super) signing: DevKey,
}

pub(super) struct Addresses {
    pub(super) public: SocketAddr,
    pub(super) health: SocketAddr,
    pub(super) isp: String,
    pub(super) isp_own: String,
    pub(super) platform: String,
    pub(super) newer: String,
}

/// Writes everything into `dir` and gives the configuration's path.
pub(super) fn write(
    dir: &Path,
    keys: &Keys,
    addresses: &Addresses,
    is_stable: bool,
    shadow: bool,
) -> Result<PathBuf, Failure> {
    let failed = |error| Failure::failed(format!("{error}"));
    keys.issuer.write_pem(&dir.join("issuer-key.pem")).map_err(failed)?;
    keys.issuer.write_jwks(&dir.join("issuer-jwks.json")).map_err(failed)?;
    keys.signing.write_pem(&dir.join("signing-key.pem")).map_err(failed)?;
    write_private(&dir.join("isp-jwt-secret"), &random_secret()?)?;
    for folder in std::iter::once(POLICIES).chain(shadow.then_some(SHADOW)) {
        write_policies(&dir.join(folder))?;
    }
    let path = dir.join("linkgate.toml");
    write_private(&path, &configuration(addresses, is_stable, shadow))?;
    Ok(path)
}

/// The shipped set with its tests and invariants, as files: a running gateway reads it again when it changes.
fn write_policies(folder: &Path) -> Result<(), Failure> {
    for (name, text) in policy::shipped() {
        let path = folder.join(name);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

fn configuration(addresses: &Addresses, is_stable: bool, shadow: bool) -> String {
    let Addresses { public, health, isp, isp_own, platform, newer } = addresses;
    let audit = if is_stable {
        "# Writes are on stable storage before the service is called, reads survive the death of the process.\nwrites = \"disk\"\nreads = \"os\""
    } else {
        "# This folder is on no stable storage, so `disk` would promise what it cannot keep.\nwrites = \"os\"\nreads = \"os\""
    };
    let shadow = if shadow {
        format!("\n# Asked beside the set in force, never enforced; watched in the same way.\nshadow = \"{SHADOW}\"")
    } else {
        String::new()
    };
    let tenant = city_tenant(OWN_ADDRESS);
    let on_newer = NEWER.map(|at| format!("\"{}\"", city_tenant(at))).join(", ");
    let routes = DEPLOYED.find(ROUTES_MARK).and_then(|at| DEPLOYED.get(at..)).unwrap_or_default();
    format!(
        r#"# Written by `linkgate demo`; `linkgate serve --config` takes it as it is, while the sample services run.
# Every setting with its default: `linkgate config print-default`.

[listen]
address = "{public}"

[health]
address = "{health}"
api_docs = true

[database]
sqlite = "linkgate.db"

[audit]
dir = "audit"
{audit}
# Signed by the first key of [signing]; so often because a demo is short.
checkpoint_interval = "1s"

# Change them while the gateway runs: a good set is in force at once, a bad one changes nothing.
[policy]
dir = "{POLICIES}"{shadow}

[log]
filter = "warn"
requests = false

[issuers.demo]
issuer = "{ISSUER}"
audiences = ["{AUDIENCE}"]
algorithms = ["ES256"]
jwks_file = "issuer-jwks.json"
trusts = ["partner_id", "roles", "permissions"]
# `linkgate token` mints with it; only because this listener is a loopback address.
development_key = "issuer-key.pem"

[signing]
issuer = "https://gateway.demo.linkgate.example"
keys = [{{ kid = "demo", file = "signing-key.pem" }}]

# Some of its endpoints take the tenant from the header, some from the token: in cross-tenant requests it gets a token
# for the effective tenant, signed with the one secret that it knows.
[upstreams.isp]
origin = "{isp}"
credential = "replace"
[upstreams.isp.replacement]
hs256_secret_file = "isp-jwt-secret"
[upstreams.isp.replacement.role_names]
msp_full = ["tenant_admin"]
enterprise_hq = ["tenant_admin"]
[upstreams.isp.replacement.permission_names]
"partner.reports.revenue.read" = ["metrics.read"]
# A tenant with an ISP service of its own.
[upstreams.isp.tenants]
"{tenant}" = "{isp_own}"

# Needs no token: it believes the header.
[upstreams.platform]
origin = "{platform}"
credential = "drop"

# The newer generation of the platform: one service, which takes only tokens of the very tenant.
[upstreams.newer]
origin = "{newer}"
[upstreams.newer.replacement]
hs256_secret_file = "isp-jwt-secret"

# How the consolidated API asks them: the shipped connector of their generation (`linkgate config connectors gen1`).
[connectors.gen1]
preset = "gen1"
upstream = "isp"
tenant = {{ upstream = "platform" }}
# Tenants that live on the newer generation already.
[connectors.gen2]
preset = "gen2"
upstream = "newer"
tenants = [{on_newer}]

{routes}{SAMPLE_ROUTES}"#
    )
}

fn random_secret() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::failed("no random bytes could be drawn"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Only the owner reads it.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
