//! A made-up request: a JSON object as `linkgate decide` reads it, or flags that make one.

use std::{io::Read, net::IpAddr};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        audit::plain,
        context::Context,
        decide,
        outcome::{Exit, Failure},
    },
    domain::{Case, LinkFacts, LinkId, LinkRole, Millis},
    policy::{Bundle, GateState},
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

/// A request to be explained, and what the gate before the policies says of its user.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) case: Case,
    /// `Unknown` where no user was named.
    pub(super) identity: GateState,
}

/// What the database says now, in one reading.
struct Stored {
    link: LinkFacts,
    identity: GateState,
    suspended: bool,
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
        let mut case = decide::case_of(bundle, text.as_bytes())
            .map_err(|error| Failure::new(Exit::Invalid, format_args!("the request cannot be decided: {error}")))?;
        let Some(id) = self.link else { return Ok(Asked { case, identity: GateState::Unknown }) };
        let Stored { link, identity, suspended } = self.stored(id, context)?;
        // The very facts that a request through this link is decided by.
        (case.user.partner_id, case.user.suspended) = (link.link.partner_id, suspended);
        case.link = Some(link);
        Ok(Asked { case, identity })
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

    fn stored(&self, id: LinkId, context: &Context) -> Result<Stored, Failure> {
        let user = self.user.as_deref().zip(self.issuer.as_deref());
        let mut found = None;
        context.store(|store| {
            found = Some(store.with(|admin| async move {
                let link = admin.standing(id).await?;
                let Some((sub, issuer)) = user else {
                    return Ok(Stored { link, identity: GateState::Unknown, suspended: false });
                };
                let row = admin.user_by_subject(issuer, sub).await?;
                if let Some(row) = row.as_ref().filter(|row| row.partner_id != link.link.partner_id) {
                    let message = format!(
                        "user `{}` works for partner {}, the link is of partner {}: no request of theirs goes through it",
                        plain(sub),
                        row.partner_id,
                        link.link.partner_id
                    );
                    return Err(Failure::new(Exit::Invalid, message));
                }
                // Without a row the token's own claims say who it is.
                let is_active = row.is_none_or(|row| row.is_active);
                let identity = if is_active { GateState::Open } else { GateState::Closed };
                Ok(Stored { link, identity, suspended: admin.is_user_suspended(issuer, sub).await? })
            })?);
            Ok(())
        })?;
        found.ok_or_else(|| Failure::failed("the database was not asked"))
    }
}
