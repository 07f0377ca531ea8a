//! A counterexample in words, and as the line that `linkgate decide` takes.

use serde_json::{Map, Value, json};

use super::draft::{Draft, NOW};
use crate::domain::{Approval, Link, LinkFacts, PermissionSet};

/// What the request is, one subject a line. Of a link only what is not as it should be.
pub(super) fn lines(draft: &Draft) -> Vec<(&'static str, String)> {
    let user = &draft.user;
    let mut who = format!("`{}` of partner {}, holds {}", user.sub, user.partner_id, listed(user.holds));
    if !user.issuer.is_empty() {
        who.push_str(&format!(", by issuer `{}`", user.issuer));
    }
    if user.suspended {
        who.push_str(", suspended");
    }
    let mut when = format!("{} {} at {} from {}", draft.method, draft.route_class, draft.now, draft.ip);
    when.push_str(if draft.mfa { ", MFA shown" } else { ", no MFA" });
    vec![
        ("action", draft.permission.name().to_owned()),
        ("user", who),
        ("link", draft.link.as_ref().map_or_else(|| "none".to_owned(), |facts| link(draft, facts))),
        ("context", when.trim_start().to_owned()),
    ]
}

fn link(draft: &Draft, facts: &LinkFacts) -> String {
    let link = &facts.link;
    let mut parts = vec![format!("role {}", link.role), format!("tenant `{}`", link.tenant_id)];
    let mut part = |told: bool, text: String| {
        if told {
            parts.push(text);
        }
    };
    part(link.partner_id != draft.user.partner_id, format!("of another partner ({})", link.partner_id));
    part(facts.suspended, "suspended".to_owned());
    part(!facts.partner_active, "partner inactive".to_owned());
    part(link.approval != Approval::Approved, link.approval.as_str().to_owned());
    part(!link.is_active, "revoked".to_owned());
    part(draft.now != NOW || link.start > draft.now, format!("starts {}", link.start));
    part(link.end.is_some(), format!("ends {}", link.end.unwrap_or(link.start)));
    part(link.require_mfa, "asks for MFA".to_owned());
    let lists: Vec<_> = link.allowed_cidrs.iter().map(ToString::to_string).collect();
    part(!lists.is_empty(), format!("only from {}", lists.join(", ")));
    part(!link.denied.is_empty(), format!("overrides deny {}", listed(link.denied)));
    part(!link.granted.is_empty(), format!("overrides grant {}", listed(link.granted)));
    part(&*facts.tenant_status != "active", format!("tenant status `{}`", facts.tenant_status));
    for parent in &facts.ancestors {
        part(true, format!("below a link of role {} without {}", parent.link.role, listed(parent.link.denied)));
    }
    parts.join(", ")
}

fn names(set: PermissionSet) -> Vec<&'static str> {
    if set == PermissionSet::ALL { vec!["partner.*"] } else { set.iter().map(|one| one.name()).collect() }
}

/// The shorter of what is in the set and what is missing.
fn listed(set: PermissionSet) -> String {
    let missing = PermissionSet::ALL.without(set);
    if set.is_empty() {
        "nothing".to_owned()
    } else if names(missing).len() < 4 && !missing.is_empty() {
        format!("everything but {}", names(missing).join(", "))
    } else {
        names(set).join(", ")
    }
}

/// The line for `linkgate decide`.
pub(super) fn question(draft: &Draft) -> Value {
    let user = &draft.user;
    let mut question = json!({
        "user": {
            "issuer": user.issuer, "sub": user.sub, "partner_id": user.partner_id.to_string(),
            "permissions": names(user.holds), "suspended": user.suspended,
        },
        "permission": draft.permission.name(),
        "now": draft.now.to_string(), "ip": draft.ip, "mfa": draft.mfa, "proxied": false,
        "method": draft.method, "route_class": draft.route_class,
    });
    if let (Some(facts), Some(into)) = (&draft.link, question.as_object_mut()) {
        let parents: Vec<_> = facts
            .ancestors
            .iter()
            .map(|parent| Value::Object(link_json(&parent.link, parent.partner_active, parent.suspended)))
            .collect();
        let mut link = link_json(&facts.link, facts.partner_active, facts.suspended);
        link.insert("tenant_status".to_owned(), json!(facts.tenant_status));
        if !parents.is_empty() {
            link.insert("parents".to_owned(), Value::Array(parents));
        }
        into.insert("link".to_owned(), Value::Object(link));
    }
    question
}

fn link_json(link: &Link, partner_active: bool, suspended: bool) -> Map<String, Value> {
    let granted = names(link.granted).into_iter().map(|name| (name.to_owned(), json!(true)));
    let denied = names(link.denied).into_iter().map(|name| (name.to_owned(), json!(false)));
    let overrides: Map<_, _> = granted.chain(denied).collect();
    let cidrs: Vec<_> = link.allowed_cidrs.iter().map(ToString::to_string).collect();
    let fields = json!({
        "id": link.id.to_string(), "partner_id": link.partner_id.to_string(), "managed_tenant_id": link.tenant_id.to_string(),
        "access_role": link.role.as_str(), "custom_permissions": overrides, "approval": link.approval.as_str(),
        "is_active": link.is_active, "start_date": link.start.to_string(),
        "end_date": link.end.map(|end| end.to_string()), "allowed_cidrs": cidrs, "require_mfa": link.require_mfa,
        "partner_active": partner_active, "suspended": suspended,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
