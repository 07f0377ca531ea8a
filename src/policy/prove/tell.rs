//! A counterexample in words, and as the line that `linkgate decide` takes.

use cedar_policy::EntityUid;
use cedar_policy_symcc::Env;
use serde_json::{Map, Value, json};

use super::draft::{LINK, NOW, OWN_PARTNER, TENANT, ordinary_class};
use crate::domain::{Approval, Case, Link, LinkFacts, PermissionSet};

/// What the request is, one subject a line. Of user and link only what is not as it usually is.
pub(super) fn lines(draft: &Case) -> Vec<(&'static str, String)> {
    let user = &draft.user;
    let mut who = format!("holds {}", listed(user.holds));
    if !user.sub.is_empty() || !user.issuer.is_empty() {
        who.push_str(&format!(", `{}` by issuer `{}`", user.sub, user.issuer));
    }
    if user.partner_id != OWN_PARTNER {
        who.push_str(&format!(", of partner {}", user.partner_id));
    }
    if user.suspended {
        who.push_str(", suspended");
    }
    let mut when = format!("{} from {}", draft.now, draft.ip);
    when.push_str(if draft.mfa { ", MFA shown" } else { ", no MFA" });
    if !draft.method.is_empty() {
        when.push_str(&format!(", method `{}`", draft.method));
    }
    if &*draft.route_class != ordinary_class(draft.permission) {
        when.push_str(&format!(", route class `{}`", draft.route_class));
    }
    vec![
        ("action", draft.permission.name().to_owned()),
        ("user", who),
        ("link", draft.link.as_ref().map_or_else(|| "none".to_owned(), |facts| link(draft, facts))),
        ("context", when),
    ]
}

/// A request of which the gateway makes no such facts, in Cedar's own words: the request, and what has attributes.
pub(super) fn entities(env: &Env) -> Vec<(&'static str, String)> {
    let request = &env.request;
    let uid = |uid: Option<&EntityUid>| uid.map(ToString::to_string).unwrap_or_default();
    let mut lines = vec![
        ("action", uid(request.action())),
        ("principal", uid(request.principal())),
        ("resource", uid(request.resource())),
        ("context", request.context().map(ToString::to_string).unwrap_or_default()),
    ];
    let mut attributed: Vec<_> = env
        .entities
        .iter()
        .filter_map(|entity| {
            let attributes: Vec<_> =
                entity.attrs().filter_map(|(name, value)| Some(format!("{name}: {}", value.ok()?))).collect();
            (!attributes.is_empty()).then(|| format!("{} {{{}}}", entity.uid(), attributes.join(", ")))
        })
        .collect();
    attributed.sort();
    lines.extend(attributed.into_iter().map(|entity| ("entity", entity)));
    lines
}

fn link(draft: &Case, facts: &LinkFacts) -> String {
    let link = &facts.link;
    let mut parts = vec![format!("role {}", link.role)];
    let mut part = |told: bool, text: String| {
        if told {
            parts.push(text);
        }
    };
    part(link.partner_id != draft.user.partner_id, format!("of another partner ({})", link.partner_id));
    part(link.tenant_id.as_str() != TENANT, format!("to tenant `{}`", link.tenant_id));
    part(link.id != LINK, format!("id {}", link.id));
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

/// The line for `linkgate decide`, without what it assumes by itself.
pub(super) fn question(draft: &Case) -> Value {
    let user = &draft.user;
    let mut who = Map::new();
    put(&mut who, "issuer", json!(user.issuer), !user.issuer.is_empty());
    put(&mut who, "sub", json!(user.sub), !user.sub.is_empty());
    // Left out it means the link's own partner.
    let of_link = draft.link.as_ref().map_or(OWN_PARTNER, |facts| facts.link.partner_id);
    put(&mut who, "partner_id", json!(user.partner_id.to_string()), user.partner_id != of_link);
    put(&mut who, "permissions", json!(names(user.holds)), true);
    put(&mut who, "suspended", json!(true), user.suspended);
    let mut question = Map::new();
    put(&mut question, "user", Value::Object(who), true);
    if let Some(facts) = &draft.link {
        let parents: Vec<_> = facts
            .ancestors
            .iter()
            .map(|parent| Value::Object(link_json(&parent.link, parent.partner_active, parent.suspended)))
            .collect();
        let mut link = link_json(&facts.link, facts.partner_active, facts.suspended);
        put(&mut link, "tenant_status", json!(facts.tenant_status), !facts.tenant_status.is_empty());
        put(&mut link, "parents", json!(parents), !parents.is_empty());
        put(&mut question, "link", Value::Object(link), true);
    }
    put(&mut question, "permission", json!(draft.permission.name()), true);
    put(&mut question, "now", json!(draft.now.to_string()), true);
    put(&mut question, "ip", json!(draft.ip), true);
    put(&mut question, "mfa", json!(draft.mfa), true);
    put(&mut question, "proxied", json!(false), true);
    put(&mut question, "method", json!(&*draft.method), !draft.method.is_empty());
    let class = &*draft.route_class;
    put(&mut question, "route_class", json!(class), class != ordinary_class(draft.permission));
    Value::Object(question)
}

fn put(into: &mut Map<String, Value>, name: &str, value: Value, told: bool) {
    if told {
        into.insert(name.to_owned(), value);
    }
}

fn link_json(link: &Link, partner_active: bool, suspended: bool) -> Map<String, Value> {
    let granted = names(link.granted).into_iter().map(|name| (name.to_owned(), json!(true)));
    let denied = names(link.denied).into_iter().map(|name| (name.to_owned(), json!(false)));
    // Under one name there is one value: what is both granted and denied is told as denied, which is what counts.
    let overrides: Map<_, _> = granted.chain(denied).collect();
    let cidrs: Vec<_> = link.allowed_cidrs.iter().map(ToString::to_string).collect();
    let mut fields = Map::new();
    put(&mut fields, "id", json!(link.id.to_string()), link.id != LINK);
    put(&mut fields, "partner_id", json!(link.partner_id.to_string()), link.partner_id != OWN_PARTNER);
    put(&mut fields, "managed_tenant_id", json!(link.tenant_id.as_str()), link.tenant_id.as_str() != TENANT);
    put(&mut fields, "access_role", json!(link.role.as_str()), true);
    put(&mut fields, "custom_permissions", json!(overrides), !overrides.is_empty());
    put(&mut fields, "approval", json!(link.approval.as_str()), link.approval != Approval::Approved);
    put(&mut fields, "is_active", json!(false), !link.is_active);
    put(&mut fields, "start_date", json!(link.start.to_string()), true);
    put(&mut fields, "end_date", json!(link.end.map(|end| end.to_string())), link.end.is_some());
    put(&mut fields, "allowed_cidrs", json!(cidrs), !cidrs.is_empty());
    put(&mut fields, "require_mfa", json!(true), link.require_mfa);
    put(&mut fields, "partner_active", json!(false), !partner_active);
    put(&mut fields, "suspended", json!(true), suspended);
    fields
}
