//! The endpoints of the consolidated API: paths, permissions, classes (contract, section 8), in one table.

use crate::{
    config::settings::RouteClass,
    domain::{Permission, PermissionSet},
    limit::Class,
};

/// One endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Customers,
    Customer,
    BillingSummary,
    Invoices,
    CreateExport,
    Export,
    DownloadExport,
    Tickets,
    CreateTicket,
    UpdateTicket,
    UsageReport,
    SlaReport,
    SlaAlerts,
    BillingAlerts,
    AcknowledgeSlaAlert,
    AcknowledgeBillingAlert,
    Me,
    TenantLinks,
    ApproveLink,
    AccessLog,
}

/// Whose endpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Users of a partner, over the tenants that it manages.
    Partner,
    /// Administrators of a managed tenant, over their own tenant.
    TenantAdmin,
}

/// What `X-Active-Tenant-Id` means to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantHeader {
    /// Not even looked at, so that a selector can recover from a stale choice.
    Ignored,
    /// Does not narrow the answer, but must name a tenant of the caller's.
    Checked,
    /// Names the tenant that is acted in; together with it `switch_context` is needed.
    Required,
    /// As `Required` where it stands; else the tenant is looked up.
    Optional,
}

/// What stands in the table for one endpoint.
#[derive(Debug)]
pub struct Spec {
    pub endpoint: Endpoint,
    pub method: &'static str,
    /// Behind the base path; `{name}` is a parameter.
    pub path: &'static str,
    /// `None`: any partner user (`/me`), or a tenant's administrator.
    pub permission: Option<&'static str>,
    /// Permissions that are decided beside it and shape the answer instead of refusing it.
    pub also: &'static [&'static str],
    pub audience: Audience,
    pub header: TenantHeader,
    pub limit: Class,
    pub class: RouteClass,
    /// What the audit record calls the resource.
    pub resource: &'static str,
}

impl Spec {
    pub fn permission(&self) -> Option<Permission> {
        self.permission.and_then(Permission::parse)
    }

    /// The label of the metrics: the same under every base path.
    pub fn label(&self) -> String {
        match self.audience {
            Audience::Partner => format!("{} partner:{}", self.method, self.path),
            Audience::TenantAdmin => format!("{} tenant:{}", self.method, self.path),
        }
    }

    /// The word for the record, bounded.
    pub fn action(&self) -> &'static str {
        self.permission.unwrap_or(match self.endpoint {
            Endpoint::Me => "me",
            Endpoint::TenantLinks => "tenant.links.list",
            Endpoint::ApproveLink => "tenant.links.approve",
            Endpoint::AccessLog => "tenant.access_log",
            _ => "partner",
        })
    }
}

const fn read(endpoint: Endpoint, path: &'static str, permission: &'static str, resource: &'static str) -> Spec {
    Spec {
        endpoint,
        method: "GET",
        path,
        permission: Some(permission),
        also: &[],
        audience: Audience::Partner,
        header: TenantHeader::Checked,
        limit: Class::Listing,
        class: RouteClass::Read,
        resource,
    }
}

const fn write(
    endpoint: Endpoint,
    method: &'static str,
    path: &'static str,
    permission: &'static str,
    resource: &'static str,
) -> Spec {
    Spec { method, limit: Class::Write, class: RouteClass::Write, ..read(endpoint, path, permission, resource) }
}

const fn admin(endpoint: Endpoint, method: &'static str, path: &'static str, resource: &'static str) -> Spec {
    Spec { method, permission: None, audience: Audience::TenantAdmin, ..read(endpoint, path, "", resource) }
}

/// What some endpoint with this permission decides beside it. No record tells whether it was used: a report of unused rights
/// keeps it with the other.
pub fn beside(permission: Permission) -> PermissionSet {
    let with = TABLE.iter().filter(|spec| spec.permission() == Some(permission));
    with.flat_map(|spec| spec.also).filter_map(|name| Permission::parse(name)).collect()
}

/// Without it the revenue fields are null.
const REVENUE: &[&str] = &["partner.reports.revenue.read"];

/// All endpoints, in the order of the contract.
pub static TABLE: &[Spec] = &[
    Spec {
        header: TenantHeader::Ignored,
        also: REVENUE,
        ..read(Endpoint::Customers, "/customers", "partner.tenants.list", "customers")
    },
    Spec {
        header: TenantHeader::Ignored,
        limit: Class::Detail,
        also: REVENUE,
        ..read(Endpoint::Customer, "/customers/{tenant_id}", "partner.tenants.list", "customers")
    },
    Spec {
        also: REVENUE,
        ..read(Endpoint::BillingSummary, "/billing/summary", "partner.billing.summary.read", "billing")
    },
    read(Endpoint::Invoices, "/billing/invoices", "partner.billing.invoices.read", "invoices"),
    Spec {
        limit: Class::Export,
        class: RouteClass::Export,
        ..write(
            Endpoint::CreateExport,
            "POST",
            "/billing/invoices/export",
            "partner.billing.invoices.export",
            "exports",
        )
    },
    Spec {
        limit: Class::Detail,
        ..read(Endpoint::Export, "/billing/exports/{export_id}", "partner.billing.invoices.export", "exports")
    },
    Spec {
        limit: Class::Detail,
        class: RouteClass::Export,
        ..read(
            Endpoint::DownloadExport,
            "/billing/exports/{export_id}/download",
            "partner.billing.invoices.export",
            "exports",
        )
    },
    read(Endpoint::Tickets, "/support/tickets", "partner.support.tickets.list", "tickets"),
    Spec {
        header: TenantHeader::Required,
        ..write(Endpoint::CreateTicket, "POST", "/support/tickets", "partner.support.tickets.create", "tickets")
    },
    Spec {
        header: TenantHeader::Optional,
        also: &["partner.support.tickets.comment"],
        ..write(
            Endpoint::UpdateTicket,
            "PATCH",
            "/support/tickets/{ticket_id}",
            "partner.support.tickets.update",
            "tickets",
        )
    },
    read(Endpoint::UsageReport, "/reports/usage", "partner.reports.usage.read", "reports"),
    read(Endpoint::SlaReport, "/reports/sla", "partner.reports.sla.read", "reports"),
    read(Endpoint::SlaAlerts, "/alerts/sla", "partner.alerts.sla.read", "alerts"),
    read(Endpoint::BillingAlerts, "/alerts/billing", "partner.alerts.billing.read", "alerts"),
    write(
        Endpoint::AcknowledgeSlaAlert,
        "POST",
        "/alerts/sla/{alert_id}/acknowledge",
        "partner.alerts.acknowledge",
        "alerts",
    ),
    write(
        Endpoint::AcknowledgeBillingAlert,
        "POST",
        "/alerts/billing/{alert_id}/acknowledge",
        "partner.alerts.acknowledge",
        "alerts",
    ),
    Spec { permission: None, header: TenantHeader::Ignored, ..read(Endpoint::Me, "/me", "", "me") },
    admin(Endpoint::TenantLinks, "GET", "/links", "links"),
    Spec {
        limit: Class::Write,
        class: RouteClass::Write,
        ..admin(Endpoint::ApproveLink, "PATCH", "/links/{link_id}", "links")
    },
    admin(Endpoint::AccessLog, "GET", "/access-log", "access_log"),
];

/// Where a path led.
#[derive(Debug)]
pub enum Found<'p> {
    /// None of this API's paths.
    Nothing,
    /// Under a base path, and no endpoint.
    NotFound,
    /// The path is there, the method is not; upper-case methods for `Allow`.
    MethodNotAllowed(String),
    /// The parameter is as it stands in the path, percent-encoded.
    /// `compatible`: in the shape of older clients.
    Endpoint { spec: &'static Spec, index: usize, param: Option<&'p str>, compatible: bool },
}

/// Where the API is mounted.
#[derive(Clone, Debug)]
pub struct Bases {
    /// Base paths of the partners' endpoints, without a slash at the end.
    pub partner: Vec<String>,
    /// Base paths under which customers are shown as older clients expect them, and nothing else is.
    pub compatible: Vec<String>,
    /// Base path of the tenant administrators' endpoints.
    pub tenant: String,
}

impl Bases {
    /// Finds the endpoint of a raw path that was found unambiguous before.
    pub fn find<'p>(&self, method: &str, path: &'p str) -> Found<'p> {
        let below = |base: &str| path.strip_prefix(base).filter(|rest| rest.starts_with('/'));
        let under = |bases: &[String]| bases.iter().find_map(|base| below(base));
        let found = under(&self.partner).map(|rest| (Audience::Partner, false, rest));
        let found = found.or_else(|| under(&self.compatible).map(|rest| (Audience::Partner, true, rest)));
        let found = found.or_else(|| below(&self.tenant).map(|rest| (Audience::TenantAdmin, false, rest)));
        let Some((audience, compatible, rest)) = found else { return Found::Nothing };
        let mut allowed: Vec<&'static str> = Vec::new();
        let here = |spec: &Spec| {
            spec.audience == audience
                && (!compatible || matches!(spec.endpoint, Endpoint::Customers | Endpoint::Customer))
        };
        for (index, spec) in TABLE.iter().enumerate().filter(|(_, spec)| here(spec)) {
            let Some(param) = matches(spec.path, rest) else { continue };
            // GET stands for HEAD: the answer's body is left out by the server.
            if spec.method == method || (spec.method == "GET" && method == "HEAD") {
                return Found::Endpoint { spec, index, param, compatible };
            }
            allowed.push(spec.method);
            allowed.extend((spec.method == "GET").then_some("HEAD"));
        }
        if allowed.is_empty() { Found::NotFound } else { Found::MethodNotAllowed(allowed.join(", ")) }
    }
}

/// Whether the path fits; `Some(Some(_))` holds the one parameter. `/tenants` is an alias of `/customers`.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<Option<&'p str>> {
    let mut param = None;
    let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (None, None) => return Some(param),
            (Some(wanted), Some(found)) if wanted.starts_with('{') && !found.is_empty() => param = Some(found),
            (Some(wanted), Some(found)) if wanted == found => {}
            (Some("customers"), Some("tenants")) => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases() -> Bases {
        Bases {
            partner: vec!["/api/v1/partner".into(), "/api/isp/v1/partner".into()],
            compatible: vec!["/old/partner".into()],
            tenant: "/api/v1/tenant".into(),
        }
    }

    fn endpoint(method: &str, path: &str) -> Option<(Endpoint, Option<String>)> {
        match bases().find(method, path) {
            Found::Endpoint { spec, param, .. } => Some((spec.endpoint, param.map(str::to_owned))),
            _ => None,
        }
    }

    #[test]
    fn every_endpoint_is_found_under_its_base() {
        assert_eq!(endpoint("GET", "/api/v1/partner/customers"), Some((Endpoint::Customers, None)));
        assert_eq!(endpoint("GET", "/api/isp/v1/partner/tenants"), Some((Endpoint::Customers, None)));
        assert_eq!(
            endpoint("HEAD", "/api/v1/partner/customers/a%20b"),
            Some((Endpoint::Customer, Some("a%20b".into())))
        );
        assert_eq!(endpoint("GET", "/api/v1/partner/tenants/a"), Some((Endpoint::Customer, Some("a".into()))));
        assert_eq!(
            endpoint("POST", "/api/v1/partner/alerts/sla/x/acknowledge"),
            Some((Endpoint::AcknowledgeSlaAlert, Some("x".into())))
        );
        assert_eq!(endpoint("GET", "/api/v1/tenant/access-log"), Some((Endpoint::AccessLog, None)));
    }

    #[test]
    fn what_is_no_endpoint_is_told_apart() {
        assert!(matches!(bases().find("GET", "/api/v1/partners"), Found::Nothing));
        assert!(matches!(bases().find("GET", "/api/v1/partner"), Found::Nothing));
        assert!(matches!(bases().find("GET", "/api/v1/partner/customers/"), Found::NotFound));
        assert!(matches!(bases().find("GET", "/api/v1/partner/links"), Found::NotFound), "a tenant's, not a partner's");
        let Found::MethodNotAllowed(allow) = bases().find("DELETE", "/api/v1/partner/support/tickets") else {
            panic!()
        };
        assert_eq!(allow, "GET, HEAD, POST");
    }

    #[test]
    fn older_clients_find_customers_only() {
        let found = bases();
        for path in ["/old/partner/customers", "/old/partner/customers/a"] {
            assert!(matches!(found.find("GET", path), Found::Endpoint { compatible: true, .. }));
        }
        assert!(matches!(found.find("GET", "/api/v1/partner/customers"), Found::Endpoint { compatible: false, .. }));
        assert!(matches!(found.find("GET", "/old/partner/billing/summary"), Found::NotFound));
    }

    #[test]
    fn every_permission_of_the_table_is_known() {
        for spec in TABLE {
            assert_eq!(spec.permission.is_some(), spec.permission().is_some(), "{:?}", spec.endpoint);
        }
    }
}
