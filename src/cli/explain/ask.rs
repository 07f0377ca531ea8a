//! A made-up request: a JSON object as `linkgate decide` reads it, or flags that make one.

use std::{io::Read, net::IpAddr};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::{context::Context, outcome::Failure},
    domain::{LinkId, LinkRole, Millis},
    ops::explain::Asked,
    policy::Bundle,
};

/// Longest request on standard input.
const MAX_BYTES: u64 = 1 << 20;

/// What is asked about.
#[derive(Args, Debug)]
pub(super) struct MadeUp {
    /// A made-up request: one JSON object as `linkgate decide` reads it; `-` reads it from standard input
    #[arg(long, value_name = "JSON", conflicts_with = "permission")]
    request: Option<String>,
    /// A made-up request for this permission
    #[arg(long, value_name = "NAME")]
    permission: Option<String>,
    /// Through a link of this role
    #[arg(long, value_name = "ROLE", requires = "permission", conflicts_with = "link")]
    link_role: Option<LinkRole>,
    /// Through this link of the database, as it stands now: suspensions, the states of partner and tenant, and the links
    /// that it hangs on count as in a real request
    #[arg(long, value_name = "UUID", requires = "permission")]
    link: Option<LinkId>,
    /// By the user with this `sub`: their account and suspensions in the database count too
    #[arg(long, value_name = "SUB", requires_all = ["link", "issuer"])]
    user: Option<String>,
    /// The token's `iss` with `--user`; empty for the legacy issuer without one
    #[arg(long, value_name = "ISS", requires = "user")]
    issuer: Option<String>,
    /// A role in the user's token; may be repeated
    #[arg(long, value_name = "NAME", requires = "permission")]
    user_role: Vec<String>,
    /// A permission in the user's token; may be repeated
    #[arg(long, value_name = "NAME", requires = "permission")]
    user_permission: Vec<String>,
    /// The caller's address
    #[arg(long, value_name = "ADDRESS", requires = "permission")]
    ip: Option<IpAddr>,
    /// The token shows MFA
    #[arg(long, requires = "permission")]
    mfa: bool,
    /// At this time instead of now
    #[arg(long, value_name = "TIME", value_parser = Millis::parse, requires = "permission")]
    at: Option<Millis>,
    /// The request names no active tenant, as a consolidated one does: `switch_context` is not asked for
    #[arg(long, requires = "permission")]
    consolidated: bool,
}

impl MadeUp {
    pub(super) fn case(&self, bundle: &Bundle, context: &Context) -> Result<Asked, Failure> {
        let text = match self.request.as_deref() {
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)?;
                text
            }
            Some(text) => text.to_owned(),
            None => self.json().to_string(),
        };
        let asked = Asked::read(bundle, text.as_bytes())?;
        let Some(id) = self.link else { return Ok(asked) };
        let user = self.issuer.as_deref().zip(self.user.as_deref());
        let mut found = None;
        context.store(|store| {
            found = Some(store.with(|admin| async move { Ok(asked.through(&admin, id, user).await?) })?);
            Ok(())
        })?;
        found.ok_or_else(|| Failure::failed("the database was not asked"))
    }

    /// The flags as the object that they stand for; a stored link is put in afterwards.
    fn json(&self) -> Value {
        let link = self.link_role.map_or(Value::Null, |role| json!({"access_role": role}));
        let user = json!({
            "roles": self.user_role, "permissions": self.user_permission, "sub": self.user, "issuer": self.issuer,
        });
        let mut request = Map::from_iter([
            ("user".to_owned(), user),
            ("link".to_owned(), link),
            ("permission".to_owned(), json!(self.permission)),
            ("mfa".to_owned(), json!(self.mfa)),
            ("proxied".to_owned(), json!(!self.consolidated)),
        ]);
        request.extend(self.ip.map(|ip| ("ip".to_owned(), json!(ip))));
        request.extend(self.at.map(|at| ("now".to_owned(), json!(at))));
        request.into()
    }
}
