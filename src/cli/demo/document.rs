//! What the demo tells: one JSON document for programs, curl lines for people.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use serde::Serialize;

use super::{
    request::Request,
    requests,
    settings::{Addresses, POLICIES, write_private},
    tokens::Tokens,
    world::World,
};
use crate::{
    cli::outcome::Failure,
    domain::{LinkId, PartnerId},
    identity::mint::DevKey,
};

/// The document of `demo --json`.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    public_url: String,
    health_url: String,
    data_dir: String,
    config_path: String,
    users: Vec<UserLine>,
    tenants: Vec<TenantLine>,
    links: Vec<LinkLine>,
    requests: Vec<Request>,
}

#[derive(Debug, Serialize)]
struct UserLine {
    name: &'static str,
    token: String,
    user_id: String,
    partner_id: Option<PartnerId>,
    home_tenant_id: String,
    roles: &'static [&'static str],
}

#[derive(Debug, Serialize)]
struct TenantLine {
    tenant_id: String,
    name: String,
}

#[derive(Debug, Serialize)]
struct LinkLine {
    link_id: LinkId,
    partner_id: Option<PartnerId>,
    tenant_id: String,
    access_role: &'static str,
    state: &'static str,
    custom_permissions: BTreeMap<&'static str, bool>,
}

/// Builds the document and writes each user's token to a file, for the curl lines.
pub(super) fn build(
    world: &World,
    links: &[LinkId],
    key: &DevKey,
    addresses: &Addresses,
    dir: &Path,
    config_path: &Path,
    ticket: &str,
) -> Result<Document, Failure> {
    let tokens = Tokens::new(world, key)?;
    let folder = dir.join("tokens");
    std::fs::create_dir(&folder)?;
    for (name, token) in &tokens.by_name {
        write_private(&folder.join(name), token)?;
    }
    let partner_id = |at: usize| world.partners.get(at).map(|partner| partner.id);
    let users = world.users.iter().map(|user| {
        Ok(UserLine {
            name: user.name,
            token: tokens.of(user.name)?.to_owned(),
            user_id: user.sub.clone(),
            partner_id: user.partner.and_then(partner_id),
            home_tenant_id: user.home.clone(),
            roles: user.roles,
        })
    });
    let links = world.links.iter().zip(links).map(|(link, id)| LinkLine {
        link_id: *id,
        partner_id: partner_id(link.partner),
        tenant_id: link.tenant.clone(),
        access_role: link.role.as_str(),
        state: link.state.as_str(),
        custom_permissions: link.overrides.iter().copied().collect(),
    });
    let tenants = world.tenants.iter().map(|one| TenantLine { tenant_id: one.id.clone(), name: one.name.clone() });
    Ok(Document {
        public_url: format!("http://{}", addresses.public),
        health_url: format!("http://{}", addresses.health),
        data_dir: dir.display().to_string(),
        config_path: config_path.display().to_string(),
        users: users.collect::<Result<_, Failure>>()?,
        tenants: tenants.collect(),
        links: links.collect(),
        requests: requests::list(world, &tokens, ticket)?,
    })
}

impl Document {
    /// One line, so that a program knows when it has read all of it while the gateway goes on.
    pub(super) fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// For people: where things are, and lines to paste.
    pub(super) fn text(&self, volatile: Option<&str>, shadow: Option<&Path>) -> String {
        let mut text = format!(
            "\nlinkgate demo: {} partners with {} users, {} tenants, {} links\n\n  gateway        {}\n  health         {}/readyz\n  configuration  {}\n  tokens         {}/tokens/\n  policies       {}/{POLICIES}/\n",
            self.users
                .iter()
                .filter_map(|user| user.partner_id.as_ref())
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            self.users.iter().filter(|user| user.partner_id.is_some()).count(),
            self.tenants.len(),
            self.links.len(),
            self.public_url,
            self.health_url,
            self.config_path,
            self.data_dir,
            self.data_dir,
        );
        // Writing to a string cannot fail.
        if let Some(shadow) = shadow {
            let _ = writeln!(text, "  shadow set     {}/ (asked beside it, never enforced)", shadow.display());
        }
        if let Some(kind) = volatile {
            let _ = writeln!(
                text,
                "\n  The folder is on {kind}, which is no stable storage: audit records are kept at level `os`.\n  Name a folder on a disk with --dir to have writes at level `disk`."
            );
        }
        text.push_str("\nTry, in another terminal:\n");
        for request in &self.requests {
            let code = request.expect_code.map(|code| format!(" {code}")).unwrap_or_default();
            let _ =
                write!(text, "\n# {}: expect {}{code}\n{}\n", request.what, request.expect_status, self.curl(request));
        }
        let _ = write!(
            text,
            "\nSee who did what, and revoke a link while you watch:\n\n  linkgate --config {0} audit query\n  linkgate --config {0} link list\n\nStop with Ctrl-C.\n",
            self.config_path
        );
        text
    }

    fn curl(&self, request: &Request) -> String {
        // The path is sent as it is written: curl would otherwise tidy up dot segments.
        let mut line = String::from("curl -sS -i --path-as-is");
        if request.method != "GET" && !(request.method == "POST" && request.body.is_some()) {
            let _ = write!(line, " -X {}", request.method);
        }
        for (name, value) in &request.headers {
            let known = self.users.iter().find(|user| *value == format!("Bearer {}", user.token));
            let _ = match known {
                Some(user) => write!(line, " -H \"{name}: Bearer $(cat {}/tokens/{})\"", self.data_dir, user.name),
                None => write!(line, " -H '{name}: {value}'"),
            };
        }
        if let Some(body) = request.body {
            let _ = write!(line, " -d '{body}'");
        }
        let _ = write!(line, " '{}{}'", self.public_url, request.path);
        line
    }
}
