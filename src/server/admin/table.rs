//! Which operations there are, where, and for which roles: the one table that routing, authorisation, records, metrics and
//! the description are made from. Its printed form is held by a test, so that a change of who may do what is seen.

use std::borrow::Cow;

use crate::{
    config::settings::{AdminRole, RouteClass},
    proxy::path,
};

/// Where everything lies.
pub const BASE: &str = "/admin/v1";

/// One thing that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    OpenApi,
    ListTenants,
    CreateTenant,
    ShowTenant,
    UpdateTenant,
    ListPartners,
    CreatePartner,
    ShowPartner,
    UpdatePartner,
    RevokeAll,
    ListUsers,
    CreateUser,
    ShowUser,
    UpdateUser,
    ListLinks,
    CreateLink,
    ListEnding,
    ShowLink,
    UpdateLink,
    LinkHistory,
    LinkAccess,
    ApproveLink,
    RejectLink,
    RevokeLink,
    ListApprovals,
    ListWebhooks,
    CreateWebhook,
    ShowWebhook,
    UpdateWebhook,
    DeleteWebhook,
    RotateWebhook,
    RedeliverDead,
    ListDeliveries,
    Redeliver,
    ShowPolicies,
    ListRecords,
    ShowRecord,
    ListSuspensions,
    ShowSuspension,
    Suspend,
    Restore,
}

/// Whether `If-Match` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMatch {
    No,
    /// The version that was read.
    Version,
    /// The same, or `*`: whatever it became meanwhile, it is closed.
    VersionOrAny,
}

/// One line of the table.
#[derive(Debug)]
pub struct Spec {
    pub operation: Operation,
    pub method: &'static str,
    /// Behind [`BASE`]; `{name}` is a parameter.
    pub path: &'static str,
    pub class: RouteClass,
    pub roles: &'static [AdminRole],
    pub if_match: IfMatch,
    /// What the record calls the resource.
    pub resource: &'static str,
    /// The record's `action`.
    pub action: &'static str,
    pub summary: &'static str,
}

impl Spec {
    pub fn label(&self) -> String {
        format!("{} {BASE}{}", self.method, self.path)
    }

    /// What the record keeps as the path: the pattern. Which object it was stands beside it.
    pub fn pattern(&self) -> String {
        format!("{BASE}{}", self.path)
    }

    pub fn parameter(&self) -> Option<&'static str> {
        self.path.split('/').find_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    pub fn allows(&self, role: AdminRole) -> bool {
        self.roles.contains(&role)
    }

    pub fn has_body(&self) -> bool {
        use Operation as Op;
        matches!(
            self.operation,
            Op::CreateTenant
                | Op::UpdateTenant
                | Op::CreatePartner
                | Op::UpdatePartner
                | Op::CreateUser
                | Op::UpdateUser
                | Op::CreateLink
                | Op::UpdateLink
                | Op::CreateWebhook
                | Op::UpdateWebhook
                | Op::RotateWebhook
                | Op::Suspend
        )
    }
}

const READERS: &[AdminRole] = &[AdminRole::Viewer, AdminRole::Operator, AdminRole::Security];
const WRITERS: &[AdminRole] = &[AdminRole::Operator];
/// Closing is for both.
const CLOSERS: &[AdminRole] = &[AdminRole::Operator, AdminRole::Security];
const GUARDS: &[AdminRole] = &[AdminRole::Security];

const fn read(
    operation: Operation,
    path: &'static str,
    resource: &'static str,
    action: &'static str,
    summary: &'static str,
) -> Spec {
    Spec {
        operation,
        method: "GET",
        path,
        class: RouteClass::Read,
        roles: READERS,
        if_match: IfMatch::No,
        resource,
        action,
        summary,
    }
}

const fn write(
    operation: Operation,
    (method, path): (&'static str, &'static str),
    (roles, if_match): (&'static [AdminRole], IfMatch),
    (resource, action): (&'static str, &'static str),
    summary: &'static str,
) -> Spec {
    Spec { method, class: RouteClass::Write, roles, if_match, ..read(operation, path, resource, action, summary) }
}

use self::{
    IfMatch::{No, Version, VersionOrAny},
    Operation as Op,
};

/// All operations.
pub static TABLE: &[Spec] = &[
    read(Op::OpenApi, "/openapi.json", "openapi", "admin.openapi", "This description"),
    read(Op::ListTenants, "/tenants", "tenant", "admin.tenant.list", "Tenants in the order of their ids"),
    write(Op::CreateTenant, ("POST", "/tenants"), (WRITERS, No), ("tenant", "admin.tenant.create"), "Add a tenant"),
    read(Op::ShowTenant, "/tenants/{tenant_id}", "tenant", "admin.tenant.show", "One tenant"),
    write(
        Op::UpdateTenant,
        ("PATCH", "/tenants/{tenant_id}"),
        (WRITERS, Version),
        ("tenant", "admin.tenant.update"),
        "Change the given fields of a tenant",
    ),
    read(Op::ListPartners, "/partners", "partner", "admin.partner.list", "Partners in the order of their ids"),
    write(
        Op::CreatePartner,
        ("POST", "/partners"),
        (WRITERS, No),
        ("partner", "admin.partner.create"),
        "Add a partner",
    ),
    read(Op::ShowPartner, "/partners/{partner_id}", "partner", "admin.partner.show", "One partner"),
    write(
        Op::UpdatePartner,
        ("PATCH", "/partners/{partner_id}"),
        (WRITERS, Version),
        ("partner", "admin.partner.update"),
        "Change the given fields of a partner",
    ),
    write(
        Op::RevokeAll,
        ("POST", "/partners/{partner_id}/revoke-links"),
        (GUARDS, No),
        ("partner", "admin.partner.revoke_links"),
        "Revoke every active link of a partner",
    ),
    read(Op::ListUsers, "/users", "user", "admin.user.list", "Partner users in the order of their ids"),
    write(Op::CreateUser, ("POST", "/users"), (WRITERS, No), ("user", "admin.user.create"), "Add a partner user"),
    read(Op::ShowUser, "/users/{user_id}", "user", "admin.user.show", "One partner user"),
    write(
        Op::UpdateUser,
        ("PATCH", "/users/{user_id}"),
        (WRITERS, Version),
        ("user", "admin.user.update"),
        "Change the given fields of a partner user",
    ),
    read(Op::ListLinks, "/links", "link", "admin.link.list", "Links in the order of their ids"),
    write(
        Op::CreateLink,
        ("POST", "/links"),
        (WRITERS, No),
        ("link", "admin.link.create"),
        "Grant a link, or delegate one onward (`parent_link_id`)",
    ),
    read(Op::ListEnding, "/links-ending", "link", "admin.link.ending", "Links that end soon, the next to end first"),
    read(Op::ShowLink, "/links/{link_id}", "link", "admin.link.show", "One link"),
    write(
        Op::UpdateLink,
        ("PATCH", "/links/{link_id}"),
        (WRITERS, Version),
        ("link", "admin.link.update"),
        "Change the given fields of a link",
    ),
    read(
        Op::LinkHistory,
        "/links/{link_id}/history",
        "link",
        "admin.link.history",
        "Every change of a link, oldest first",
    ),
    read(
        Op::LinkAccess,
        "/links/{link_id}/access",
        "link",
        "admin.link.access",
        "What a link amounts to now, under the policies in force",
    ),
    write(
        Op::ApproveLink,
        ("POST", "/links/{link_id}/approve"),
        (WRITERS, Version),
        ("link", "admin.link.approve"),
        "Approve a link as it was read",
    ),
    write(
        Op::RejectLink,
        ("POST", "/links/{link_id}/reject"),
        (WRITERS, Version),
        ("link", "admin.link.reject"),
        "Reject a link: it gives no access until it is approved",
    ),
    write(
        Op::RevokeLink,
        ("POST", "/links/{link_id}/revoke"),
        (CLOSERS, VersionOrAny),
        ("link", "admin.link.revoke"),
        "Revoke a link",
    ),
    read(Op::ListApprovals, "/approvals", "link", "admin.approval.list", "Links that wait for approval"),
    read(
        Op::ListWebhooks,
        "/webhooks",
        "webhook",
        "admin.webhook.list",
        "Webhook subscriptions, without their secrets",
    ),
    write(
        Op::CreateWebhook,
        ("POST", "/webhooks"),
        (WRITERS, No),
        ("webhook", "admin.webhook.create"),
        "Subscribe a partner; the secret is answered this once",
    ),
    read(
        Op::ShowWebhook,
        "/webhooks/{webhook_id}",
        "webhook",
        "admin.webhook.show",
        "One subscription, without its secret",
    ),
    write(
        Op::UpdateWebhook,
        ("PATCH", "/webhooks/{webhook_id}"),
        (WRITERS, Version),
        ("webhook", "admin.webhook.update"),
        "Change the given fields of a subscription",
    ),
    write(
        Op::DeleteWebhook,
        ("DELETE", "/webhooks/{webhook_id}"),
        (WRITERS, Version),
        ("webhook", "admin.webhook.delete"),
        "Remove a subscription with all its deliveries",
    ),
    write(
        Op::RotateWebhook,
        ("POST", "/webhooks/{webhook_id}/rotate-secret"),
        (WRITERS, Version),
        ("webhook", "admin.webhook.rotate"),
        "Make a new secret, answered this once; the old one signs too for a while",
    ),
    write(
        Op::RedeliverDead,
        ("POST", "/webhooks/{webhook_id}/redeliver"),
        (WRITERS, No),
        ("webhook", "admin.webhook.redeliver"),
        "Send all dead deliveries of a subscription once more",
    ),
    read(
        Op::ListDeliveries,
        "/deliveries",
        "webhook_delivery",
        "admin.delivery.list",
        "Webhook deliveries, newest first",
    ),
    write(
        Op::Redeliver,
        ("POST", "/deliveries/{delivery_id}/redeliver"),
        (WRITERS, No),
        ("webhook_delivery", "admin.delivery.redeliver"),
        "Send a delivery once more, whatever became of it",
    ),
    read(Op::ShowPolicies, "/policies", "policy", "admin.policy.show", "The policy set in force"),
    read(Op::ListRecords, "/audit/records", "audit_record", "admin.audit.list", "Audit records, newest first"),
    read(Op::ShowRecord, "/audit/records/{record_id}", "audit_record", "admin.audit.show", "One audit record"),
    read(
        Op::ListSuspensions,
        "/suspensions",
        "suspension",
        "admin.suspension.list",
        "Emergency suspensions, oldest first",
    ),
    read(Op::ShowSuspension, "/suspensions/{suspension_id}", "suspension", "admin.suspension.show", "One suspension"),
    write(
        Op::Suspend,
        ("POST", "/suspensions"),
        (GUARDS, No),
        ("suspension", "admin.suspension.begin"),
        "Stop a user, session, token, partner, tenant, link or everything at once",
    ),
    write(
        Op::Restore,
        ("POST", "/suspensions/{suspension_id}/restore"),
        (GUARDS, No),
        ("suspension", "admin.suspension.lift"),
        "Lift one suspension, and nothing else",
    ),
];

/// What a look-up finds.
#[derive(Debug)]
pub enum Found<'p> {
    /// With the path's parameter, decoded once.
    Operation(&'static Spec, Option<Cow<'p, str>>),
    /// Methods for `Allow`.
    OtherMethods(String),
    Nothing,
}

/// `path` was found unambiguous before.
pub fn find<'p>(method: &str, path: &'p str) -> Found<'p> {
    let Some(path) = path.strip_prefix(BASE) else { return Found::Nothing };
    let mut others = Vec::new();
    for spec in TABLE {
        let Some(parameter) = matched(spec.path, path) else { continue };
        if spec.method == method {
            return match parameter.map(path::decode_once) {
                None => Found::Operation(spec, None),
                Some(Some(parameter)) => Found::Operation(spec, Some(parameter)),
                Some(None) => Found::Nothing,
            };
        }
        others.push(spec.method);
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others.join(", ")) }
}

/// The parameter's raw text, if the path fits at all.
#[expect(clippy::option_option, reason = "whether it fits, and whether it has a parameter")]
fn matched<'p>(pattern: &str, path: &'p str) -> Option<Option<&'p str>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut parameter = None;
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(parameter),
            (Some(part), Some(text)) if part.starts_with('{') && !text.is_empty() => parameter = Some(text),
            (Some(part), Some(text)) if part == text => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_only_word_on_who_may_do_what() {
        let lines: Vec<String> = TABLE
            .iter()
            .map(|spec| {
                let roles: Vec<_> =
                    AdminRole::ALL.iter().map(|role| if spec.allows(*role) { role.as_str() } else { "-" }).collect();
                format!(
                    "{:6} {:42} {:9} {:9} {:9} {:?}",
                    spec.method, spec.path, roles[0], roles[1], roles[2], spec.if_match
                )
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn each_line_is_found_by_its_own_path_and_no_other() {
        for spec in TABLE {
            let path = spec.pattern().replace(['{', '}'], "");
            let Found::Operation(found, parameter) = find(spec.method, &path) else { panic!("{path}") };
            assert_eq!(found.operation, spec.operation);
            assert_eq!(parameter.as_deref(), spec.parameter());
            assert!(matches!(find("PUT", &path), Found::OtherMethods(_)));
        }
        for path in
            ["/admin/v1", "/admin/v1/", "/admin/v1/tenants/", "/admin/v1/links/a/b", "/admin/v2/tenants", "/tenants"]
        {
            assert!(matches!(find("GET", path), Found::Nothing), "{path}");
        }
    }
}
