//! Which operations there are, where, and for which roles: the one table that routing, authorisation, records, metrics and
//! the description are made from. Its printed form is held by a test, so that a change of who may do what is seen. The
//! lines themselves stand in `operations`; which command of the command line has which of them, and which has none and
//! why, in `cli::parity`.

use std::borrow::Cow;

pub use super::operations::TABLE;
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
    ReviewTenant,
    UnusedOfTenant,
    ListPartners,
    CreatePartner,
    ShowPartner,
    UpdatePartner,
    RevokeAll,
    ReviewPartner,
    UnusedOfPartner,
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
    LinkPolicy,
    UnusedOfLink,
    ListApprovals,
    ImportTenants,
    ImportPartners,
    ImportUsers,
    ImportLinks,
    ListWebhooks,
    CreateWebhook,
    ShowWebhook,
    UpdateWebhook,
    DeleteWebhook,
    RotateWebhook,
    TestWebhook,
    ResealWebhooks,
    RedeliverDead,
    ListDeliveries,
    Redeliver,
    ShowPolicies,
    RolePolicy,
    CheckPolicies,
    TestPolicies,
    ShadowReport,
    Decide,
    Explain,
    ListRecords,
    ShowRecord,
    ExplainRecord,
    ExportRecords,
    VerifyJournal,
    ListCheckpoints,
    ListOutbox,
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

/// What a call costs, and so how many of its kind run at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// As many as there are connections.
    Light,
    /// Many rows, written in batches.
    Import,
    /// Policies asked many times over.
    Ask,
    /// Long reading: journal, policies of many links.
    Walk,
    /// Reading of the audit index, which the indexer and tenants' administrators read too.
    Look,
    /// Waits for a stranger's answer.
    Send,
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
    pub work: Work,
    /// What the record calls the resource.
    pub resource: &'static str,
    /// The record's `action`.
    pub action: &'static str,
    pub summary: &'static str,
}

impl Spec {
    pub(super) const fn of(self, work: Work) -> Self {
        Self { work, ..self }
    }

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

    /// Whether a body may come: JSON, for an import its rows.
    pub fn has_body(&self) -> bool {
        use Operation as Op;
        self.work == Work::Import
            || matches!(
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
                    | Op::Decide
                    | Op::Explain
            )
    }
}

const READERS: &[AdminRole] = &[AdminRole::Viewer, AdminRole::Operator, AdminRole::Security];
pub(super) const WRITERS: &[AdminRole] = &[AdminRole::Operator];
/// Closing is for both.
pub(super) const CLOSERS: &[AdminRole] = &[AdminRole::Operator, AdminRole::Security];
pub(super) const GUARDS: &[AdminRole] = &[AdminRole::Security];

/// One line of the table that reads.
pub(super) const fn read(
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
        work: Work::Light,
        resource,
        action,
        summary,
    }
}

/// And one that changes something.
pub(super) const fn write(
    operation: Operation,
    (method, path): (&'static str, &'static str),
    (roles, if_match): (&'static [AdminRole], IfMatch),
    (resource, action): (&'static str, &'static str),
    summary: &'static str,
) -> Spec {
    Spec { method, class: RouteClass::Write, roles, if_match, ..read(operation, path, resource, action, summary) }
}

/// A question that takes a body: nothing is changed by it.
pub(super) const fn question(
    operation: Operation,
    path: &'static str,
    resource: &'static str,
    action: &'static str,
    summary: &'static str,
) -> Spec {
    Spec { method: "POST", ..read(operation, path, resource, action, summary) }
}

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
                let work = if spec.work == Work::Light { String::new() } else { format!(" {:?}", spec.work) };
                format!(
                    "{:6} {:42} {:9} {:9} {:9} {:?}{work}",
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
