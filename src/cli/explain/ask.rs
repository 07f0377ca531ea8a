//! A made-up request: a JSON object as `linkgate decide` reads it, or flags that make one.

use std::{io::Read, net::IpAddr};

use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    cli::{
        context::Context,
        decide,
        outcome::{Exit, Failure},
    },
    domain::{Case, LinkId, LinkRole, Millis},
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
    /// Through this link of the database, as it stands now
    #[arg(long, value_name = "UUID", requires = "permission")]
    link: Option<LinkId>,
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
    pub(super) fn case(&self, bundle: &Bundle, context: &Context) -> Result<Case, Failure> {
        let text = match self.request.as_deref() {
            Some("-") => {
                let mut text = String::new();
                std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)?;
                text
            }
            Some(text) => text.to_owned(),
            None => self.json(context)?.to_string(),
        };
        decide::case_of(bundle, text.as_bytes())
            .map_err(|error| Failure::new(Exit::Invalid, format_args!("the request cannot be decided: {error}")))
    }

    /// The flags as the object that they stand for.
    fn json(&self, context: &Context) -> Result<Value, Failure> {
        let link = match (self.link, self.link_role) {
            (Some(id), _) => stored(id, context)?,
            (None, Some(role)) => json!({"access_role": role}),
            (None, None) => Value::Null,
        };
        let mut request = Map::from_iter([
            ("user".to_owned(), json!({"roles": self.user_role, "permissions": self.user_permission})),
            ("link".to_owned(), link),
            ("permission".to_owned(), json!(self.permission)),
            ("mfa".to_owned(), json!(self.mfa)),
            ("proxied".to_owned(), json!(!self.consolidated)),
        ]);
        request.extend(self.ip.map(|ip| ("ip".to_owned(), json!(ip))));
        request.extend(self.at.map(|at| ("now".to_owned(), json!(at))));
        Ok(request.into())
    }
}

/// The link's own terms, and those of the links above it, nearest first. Suspensions and the states of partner and
/// tenant are not looked at: the question is what the terms allow.
fn stored(id: LinkId, context: &Context) -> Result<Value, Failure> {
    let mut found = Vec::new();
    context.store(|store| {
        found = store.with(|admin| async move {
            let mut chain = vec![admin.link(id).await?];
            while let Some(parent) = chain.last().and_then(|link| link.terms.parent_link_id) {
                // Longer chains cannot be stored; a damaged table must not be walked for ever.
                if chain.len() > crate::domain::link_rules::MAX_PARENTS {
                    return Err(Failure::failed("the chain of parents of this link is longer than any that is stored"));
                }
                chain.push(admin.link(parent).await?);
            }
            Ok(chain)
        })?;
        Ok(())
    })?;
    let mut links = found.iter().map(|link| serde_json::to_value(link).map_err(Failure::failed));
    let mut own = links.next().transpose()?.unwrap_or_default();
    let parents = links.collect::<Result<Vec<_>, _>>()?;
    if !parents.is_empty() {
        own.as_object_mut().map(|own| own.insert("parents".to_owned(), parents.into()));
    }
    Ok(own)
}
