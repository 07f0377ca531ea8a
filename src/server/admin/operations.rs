//! Every operation of the admin API, one line each: where it is, for which roles, what its record says.
//!
//! A command of the command line that has no line here is named in `cli::parity`, with the reason.

use super::table::{
    CLOSERS, GUARDS,
    IfMatch::{No, Version, VersionOrAny},
    Operation as Op, Spec, WRITERS, Work, question, read, write,
};

const fn import(operation: Op, path: &'static str, action: &'static str, summary: &'static str) -> Spec {
    write(operation, ("POST", path), (WRITERS, No), ("import", action), summary).of(Work::Import)
}

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
    read(
        Op::ReviewTenant,
        "/tenants/{tenant_id}/access-review",
        "tenant",
        "admin.tenant.access_review",
        "Who could do what in a tenant at a time, by whose approval",
    )
    .of(Work::Walk),
    read(
        Op::UnusedOfTenant,
        "/tenants/{tenant_id}/unused-rights",
        "tenant",
        "admin.tenant.unused_rights",
        "Rights in a tenant that nobody used, with a tighter override for each link",
    )
    .of(Work::Walk),
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
    read(
        Op::ReviewPartner,
        "/partners/{partner_id}/access-review",
        "partner",
        "admin.partner.access_review",
        "What the users of a partner could do at a time, in every tenant",
    )
    .of(Work::Walk),
    read(
        Op::UnusedOfPartner,
        "/partners/{partner_id}/unused-rights",
        "partner",
        "admin.partner.unused_rights",
        "Rights of a partner that nobody used, with a tighter override for each link",
    )
    .of(Work::Walk),
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
    read(
        Op::LinkPolicy,
        "/links/{link_id}/policy",
        "link",
        "admin.link.policy",
        "A link as Cedar text, as if generated for it alone, and what it lets through at a time",
    )
    .of(Work::Ask),
    read(
        Op::UnusedOfLink,
        "/links/{link_id}/unused-rights",
        "link",
        "admin.link.unused_rights",
        "Rights of a link that nobody used, with a tighter override",
    )
    .of(Work::Walk),
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
    import(Op::ImportTenants, "/imports/tenants", "admin.import.tenants", "Add the tenants of a file"),
    import(Op::ImportPartners, "/imports/partners", "admin.import.partners", "Add the partners of a file"),
    import(Op::ImportUsers, "/imports/users", "admin.import.users", "Add the partner users of a file"),
    import(Op::ImportLinks, "/imports/links", "admin.import.links", "Grant the links of a file"),
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
        Op::TestWebhook,
        ("POST", "/webhooks/{webhook_id}/test"),
        (WRITERS, No),
        ("webhook", "admin.webhook.test"),
        "Post a test event now and say what came back",
    )
    .of(Work::Send),
    write(
        Op::ResealWebhooks,
        ("POST", "/webhooks-reseal"),
        (CLOSERS, No),
        ("webhook", "admin.webhook.reseal"),
        "Encrypt every secret with the first key of the configuration",
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
    read(
        Op::RolePolicy,
        "/roles/{role}/policy",
        "role",
        "admin.role.policy",
        "A link role as Cedar text, and what it lets through without limits of a link's own",
    )
    .of(Work::Ask),
    read(
        Op::CheckPolicies,
        "/policies/check",
        "policy",
        "admin.policy.check",
        "Whether the set in the configured folder could be loaded as it lies there now, and what in it is worth a look",
    )
    .of(Work::Walk),
    read(
        Op::TestPolicies,
        "/policies/test",
        "policy",
        "admin.policy.test",
        "The decision tables of the configured folder, and what they cover",
    )
    .of(Work::Walk),
    read(
        Op::ShadowReport,
        "/policies/shadow-report",
        "policy",
        "admin.policy.shadow_report",
        "Where the shadow set said something else, and what was let through because nothing is enforced",
    )
    .of(Work::Walk),
    question(
        Op::Decide,
        "/policies/decide",
        "policy",
        "admin.policy.decide",
        "What-if questions, decided by the set in force",
    )
    .of(Work::Ask),
    question(
        Op::Explain,
        "/policies/explain",
        "policy",
        "admin.policy.explain",
        "A made-up request with every gate and what would have turned it round, if wanted through a stored link",
    )
    .of(Work::Ask),
    read(Op::ListRecords, "/audit/records", "audit_record", "admin.audit.list", "Audit records, newest first")
        .of(Work::Look),
    read(Op::ShowRecord, "/audit/records/{record_id}", "audit_record", "admin.audit.show", "One audit record")
        .of(Work::Look),
    read(
        Op::ExplainRecord,
        "/audit/records/{record_id}/explanation",
        "audit_record",
        "admin.audit.explain",
        "Why a recorded request was allowed or refused, and what would have turned it round",
    )
    .of(Work::Ask),
    Spec {
        roles: GUARDS,
        ..read(
            Op::ExportRecords,
            "/audit/export",
            "audit_record",
            "admin.audit.export",
            "Records straight from the journal, in the order in which they were completed",
        )
    }
    .of(Work::Walk),
    Spec {
        roles: GUARDS,
        ..read(
            Op::VerifyJournal,
            "/audit/verification",
            "audit_journal",
            "admin.audit.verify",
            "Walk the chain of hashes: whether a record was altered, removed, inserted or cut off",
        )
    }
    .of(Work::Walk),
    read(
        Op::ListCheckpoints,
        "/audit/checkpoints",
        "audit_journal",
        "admin.audit.checkpoints",
        "Signed checkpoints of the chain, newest first, to be kept elsewhere",
    )
    .of(Work::Walk),
    read(
        Op::ListOutbox,
        "/audit/outbox",
        "audit_journal",
        "admin.audit.outbox",
        "Changes that wait to be chained, by the chain that claimed them",
    ),
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
