//! One link as Cedar text of its own: what the set says of it, with its ids, its window and its overrides written out.
//!
//! For people, and as a second form of the same meaning: a property test holds the decision of this text equal to that of
//! the set for the same facts. The gateway never reads it: a policy a link would cost a scan of all links a request.

use std::{fmt::Write as _, net::IpAddr};

use cedar_policy::{Decision, PolicySet};
use ipnet::IpNet;

use super::{
    bundle::Bundle,
    decide::Refusal,
    effective::Standing,
    facts::{FIRST, LAST, Question, asked, spelt},
};
use crate::domain::{Approval, Facts, LinkFacts, LinkRole, Millis, PermissionSet};

/// The link's own policies, then the hand-written rules that can match a request through it, as they stand.
pub fn concrete(bundle: &Bundle, facts: &LinkFacts) -> String {
    let link = &facts.link;
    let mut out = format!(
        "// Link {} of partner {} to tenant {}: role {}, version {}.\n// As if generated for this link alone.\n",
        link.id,
        link.partner_id,
        quoted(link.tenant_id.as_str()),
        link.role,
        link.version
    );
    let mut text = Text { out: &mut out, resource: format!("resource == Link::\"{}\"", link.id) };
    grants(&mut text, bundle, facts);
    standing(&mut text, facts);
    window(&mut text, facts);
    for (at, one) in std::iter::once(link).chain(facts.ancestors.iter().map(|parent| &parent.link)).enumerate() {
        if !one.allowed_cidrs.is_empty() {
            let ranges: Vec<_> =
                one.allowed_cidrs.iter().map(|net| format!("context.ip.isInRange({})", range(net))).collect();
            let whose = if at == 0 { String::new() } else { format!(" of parent link {}", one.id) };
            let id = if at == 0 { "link.addresses".to_owned() } else { format!("link.addresses.parent-{at}") };
            text.rule(
                &id,
                &format!("The address list{whose}."),
                "action",
                &format!("unless {{ {} }}", ranges.join(" || ")),
            );
        }
    }
    if facts.requires_mfa() {
        text.rule("link.mfa", "Only with multi-factor authentication.", "action", "unless { context.mfa }");
    }
    limits(&mut text, bundle, facts);
    let standing = Standing::of_link(bundle, facts);
    for written in bundle.by_hand().filter(|written| standing.may_match(written)) {
        let _ = write!(out, "\n// {}\n{}\n", written.place(), written.text());
    }
    out
}

struct Text<'a> {
    out: &'a mut String,
    resource: String,
}

impl Text<'_> {
    /// A `forbid` on this link.
    fn rule(&mut self, id: &str, says: &str, action: &str, condition: &str) {
        let condition = if condition.is_empty() { String::new() } else { format!("\n{condition}") };
        // Writing to a string cannot fail.
        let _ = write!(
            self.out,
            "\n// {says}\n@id(\"{id}\")\nforbid (principal, {action}, {}){condition};\n",
            self.resource
        );
    }
}

fn grants(text: &mut Text<'_>, bundle: &Bundle, facts: &LinkFacts) {
    let link = &facts.link;
    let role = bundle.roles().link_role(link.role);
    let set = if link.role == LinkRole::Delegate { role.union(link.granted) } else { role };
    let partner = format!("Partner::\"{}\"", link.partner_id);
    if !set.is_empty() {
        let _ = write!(
            text.out,
            "\n// What {} to the users of the partner.\n@id(\"link.grant\")\npermit (\n  principal in {partner},\n  {},\n  {}\n);\n",
            if link.role == LinkRole::Delegate { "its overrides grant" } else { "the role grants" },
            actions(set),
            text.resource
        );
    }
    text.rule(
        "link.partner",
        "Nobody else, whatever another rule permits.",
        "action",
        &format!("unless {{ principal in {partner} }}"),
    );
    text.rule(
        "link.user",
        "And to each no more than they hold, while they are not suspended.",
        "action",
        "unless { action in principal.holds && !principal.suspended }",
    );
}

/// Gates that are closed for this link as a whole; open ones need no rule.
fn standing(text: &mut Text<'_>, facts: &LinkFacts) {
    let parents = || facts.ancestors.iter();
    let links = || std::iter::once(&facts.link).chain(parents().map(|parent| &parent.link));
    let closed = [
        ("link.suspended", "An emergency suspension covers it.", facts.suspended || parents().any(|one| one.suspended)),
        (
            "link.partner-inactive",
            "The partner, or one that it was delegated by, is inactive.",
            !facts.partner_active || parents().any(|one| !one.partner_active),
        ),
        (
            "link.approval",
            "It, or a link above it, is not approved.",
            links().any(|one| one.approval != Approval::Approved),
        ),
        ("link.inactive", "It, or a link above it, is revoked.", links().any(|one| !one.is_active)),
    ];
    for (id, says, _) in closed.into_iter().filter(|(_, _, closed)| *closed) {
        text.rule(id, says, "action", "");
    }
}

fn window(text: &mut Text<'_>, facts: &LinkFacts) {
    let (start, end) = facts.window();
    let instant = |at: Millis| format!("datetime(\"{}\")", Millis(at.0.clamp(FIRST, LAST)));
    if start.0 > FIRST {
        let condition = format!("when {{ context.now < {} }}", instant(start));
        text.rule("link.starts", "Not before its first instant.", "action", &condition);
    }
    if let Some(end) = end {
        let condition = format!("when {{ context.now >= {} }}", instant(end));
        text.rule("link.ends", "From its last instant on no more.", "action", &condition);
    }
}

fn limits(text: &mut Text<'_>, bundle: &Bundle, facts: &LinkFacts) {
    let beyond = PermissionSet::ALL.without(facts.ceiling(bundle.roles()));
    if !beyond.is_empty() {
        text.rule("link.ceiling", "No more than the links above it.", &actions(beyond), "");
    }
    if !facts.link.denied.is_empty() {
        text.rule("link.overrides", "What its overrides deny.", &actions(facts.link.denied), "");
    }
}

fn actions(set: PermissionSet) -> String {
    let names: Vec<_> = set.iter().map(|one| format!("Action::\"{one}\"")).collect();
    format!("action in [\n    {}\n  ]", names.join(",\n    "))
}

fn range(net: &IpNet) -> String {
    let address = match net.addr() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => spelt(v6),
    };
    format!("ip(\"{address}/{}\")", net.prefix_len())
}

/// For a comment, on one line whatever the id holds.
fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// What this text alone says of a request: for tests that hold the two forms equal. `Err` where a policy fails.
pub fn decide_by_text(bundle: &Bundle, text: &str, facts: &Facts<'_>) -> Result<bool, Refusal> {
    let schema = Some(&bundle.words.schema);
    let policies: PolicySet = text.parse().map_err(|_| Refusal::Unavailable)?;
    let question = Question::new(&bundle.words, bundle.roles(), facts, schema).map_err(|_| Refusal::Unavailable)?;
    let mut allowed = true;
    for permission in asked(facts).iter() {
        let request = question.request(&bundle.words, permission, schema).map_err(|_| Refusal::Unavailable)?;
        let response = bundle.authorizer.is_authorized(&request, &policies, &question.entities);
        if response.diagnostics().errors().next().is_some() {
            return Err(Refusal::Unavailable);
        }
        allowed &= response.decision() == Decision::Allow;
    }
    Ok(allowed)
}
