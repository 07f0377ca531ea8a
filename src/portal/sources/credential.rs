//! What a question of the gateway's own carries: identity headers, assertion, credential (contract, section 6).

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use moka::sync::Cache;

use super::{Site, SourceError, table::Route};
use crate::{
    connector::{request::Outgoing, settings::Credential},
    domain::{DecisionId, LinkId, LinkVersion, Millis, SpanId},
    identity::{
        AssertionClaims, Keyring, LinkClaim, ReplacementShape, RequestBinding, ServiceClaims, SigningError, Subject,
    },
    policy::Policies,
    upstream::{
        Upstream,
        settings::{AssertionForm, Credential as Told, Replacement},
    },
};

const TENANT: HeaderName = HeaderName::from_static("x-tenant-id");
const ACTIVE_TENANT: HeaderName = HeaderName::from_static("x-active-tenant-id");
const CROSS: HeaderName = HeaderName::from_static("x-cross-tenant-access");
const PARTNER: HeaderName = HeaderName::from_static("x-partner-id");
const PARTNER_TENANT: HeaderName = HeaderName::from_static("x-partner-tenant-id");
const PARTNER_ROLE: HeaderName = HeaderName::from_static("x-partner-role");
const LINK: HeaderName = HeaderName::from_static("x-link-id");
const ASSERTION: HeaderName = HeaderName::from_static("x-linkgate-assertion");
const USER: HeaderName = HeaderName::from_static("x-user-id");
const DECISION: HeaderName = HeaderName::from_static("x-decision-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Signatures kept; each is some 1 kB.
const MAX_SIGNED: u64 = 50_000;
/// Half of their life, so that none ends on its way.
const SIGNED_FOR: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Token,
    Assertion,
}

/// A link's version stands in the key: what is signed ends with it. The generation: role table and its contents.
type Key = (Form, u32, Arc<str>, LinkId, LinkVersion, u64);

#[derive(Debug)]
pub(super) struct Credentials {
    keyring: Option<Arc<Keyring>>,
    policies: Arc<Policies>,
    signed: Cache<Key, (HeaderValue, Millis), ahash::RandomState>,
}

impl Credentials {
    pub(super) fn new(keyring: Option<&Arc<Keyring>>, policies: &Arc<Policies>) -> Self {
        let signed = Cache::builder()
            .max_capacity(MAX_SIGNED)
            .time_to_live(SIGNED_FOR)
            .build_with_hasher(ahash::RandomState::new());
        Self { keyring: keyring.map(Arc::clone), policies: Arc::clone(policies), signed }
    }

    /// All headers but `Host` and those of the body. `span`: the question's own.
    pub(super) fn headers(
        &self,
        site: &Site,
        route: &Route,
        upstream: &Upstream,
        outgoing: &Outgoing,
        span: SpanId,
    ) -> Result<HeaderMap, SourceError> {
        let unfit = || route.wrong(site.tenant(), "the tenant's id cannot stand in a header");
        let link = &site.link().link;
        let tenant = HeaderValue::from_str(site.tenant().as_str()).map_err(|_| unfit())?;
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(TENANT, tenant.clone());
        headers.insert(ACTIVE_TENANT, tenant.clone());
        headers.insert(CROSS, HeaderValue::from_static("true"));
        headers.insert(PARTNER, id(link.partner_id.0)?);
        headers.insert(PARTNER_ROLE, HeaderValue::from_static(link.role.as_str()));
        headers.insert(LINK, id(link.id.0)?);
        let untold = |_| route.wrong(site.tenant(), "the request id cannot stand in a header");
        let trace = site.trace();
        headers.insert(REQUEST_ID, HeaderValue::from_str(trace.request_id.as_str()).map_err(untold)?);
        let parent = trace.trace_id.traceparent(span, trace.sampling.flag());
        headers.insert(TRACEPARENT, HeaderValue::from_bytes(&parent).map_err(untold)?);
        if let Some(state) = &trace.state {
            headers.insert(TRACESTATE, HeaderValue::from_str(state.as_str()).map_err(untold)?);
        }
        if let Some(user) = &trace.user {
            let untold = |_| route.wrong(site.tenant(), "the user's id cannot stand in a header");
            headers.insert(USER, HeaderValue::from_bytes(user.as_bytes()).map_err(untold)?);
        }
        if let Some(home) = &trace.partner_tenant {
            headers.insert(PARTNER_TENANT, HeaderValue::from_bytes(home.as_str().as_bytes()).map_err(|_| unfit())?);
        }
        if let Some(decision) = trace.decision_id {
            headers.insert(DECISION, id(decision.0)?);
        }
        headers.insert(route.connector.tenant_header.clone(), tenant);
        self.credential(site, route, upstream, &mut headers)?;
        self.assertion(site, route, upstream, outgoing, &mut headers)?;
        Ok(headers)
    }

    fn credential(
        &self,
        site: &Site,
        route: &Route,
        upstream: &Upstream,
        headers: &mut HeaderMap,
    ) -> Result<(), SourceError> {
        match (&route.connector.credential, &upstream.settings.credential) {
            (Credential::None, _) | (Credential::Token { .. }, Told::Drop | Told::Pass) => Ok(()),
            (Credential::Header { name, shared, tenants }, _) => {
                let secret = tenants.get(site.tenant()).or(shared.as_ref());
                let secret = secret.ok_or_else(|| route.wrong(site.tenant(), "no credential is configured"))?;
                let value = HeaderValue::from_bytes(secret.expose());
                let mut value = value.map_err(|_| route.wrong(site.tenant(), "the credential fits no header"))?;
                value.set_sensitive(true);
                headers.insert(name.clone(), value);
                Ok(())
            }
            (Credential::Token { subject, roles, permissions }, Told::Replace(replacement)) => {
                let own = (subject.as_str(), roles.as_deref(), permissions.as_deref());
                let value = self.signed(Form::Token, site, route, upstream, |keyring, now| {
                    self.token(keyring, site, upstream, replacement, own, now)
                })?;
                headers.insert(header::AUTHORIZATION, value);
                Ok(())
            }
        }
    }

    fn token(
        &self,
        keyring: &Keyring,
        site: &Site,
        upstream: &Upstream,
        replacement: &Replacement,
        (subject, roles, permissions): (&str, Option<&[String]>, Option<&[String]>),
        now: Millis,
    ) -> Result<crate::identity::Signed, SigningError> {
        let link = site.link();
        let bundle = self.policies.current();
        keyring.service_token(
            &ServiceClaims {
                subject,
                tenant: site.tenant(),
                partner: link.link.partner_id,
                roles,
                permissions,
                link_role: link.link.role,
                link_permissions: link.effective(bundle.roles()),
                not_after: link.window().1,
                shape: ReplacementShape {
                    hs256: replacement.hs256.as_ref(),
                    issuer: replacement.issuer.as_deref(),
                    audience: Some(upstream.settings.audience.as_str()).filter(|text| !text.is_empty()),
                    permission_names: &replacement.permission_names,
                    role_names: &replacement.role_names,
                },
            },
            now,
        )
    }

    fn assertion(
        &self,
        site: &Site,
        route: &Route,
        upstream: &Upstream,
        outgoing: &Outgoing,
        headers: &mut HeaderMap,
    ) -> Result<(), SourceError> {
        // Without a key of its own there is nothing to assert with; the configuration has been checked.
        let Some(keyring) = &self.keyring else { return Ok(()) };
        let link = site.link();
        let claims = AssertionClaims {
            subject: Subject { issuer: "", sub: keyring.issuer(), username: None, email: None },
            audience: &upstream.settings.audience,
            tenant: site.tenant(),
            cross_tenant: true,
            partner: Some(link.link.partner_id),
            link: Some(LinkClaim { id: link.link.id, version: link.link.version, role: link.link.role }),
            not_after: link.window().1,
        };
        let value = match &upstream.settings.assertion {
            AssertionForm::Off => return Ok(()),
            AssertionForm::Session => self.signed(Form::Assertion, site, route, upstream, |keyring, now| {
                keyring.session_assertion(&claims, now)
            })?,
            AssertionForm::Request { hmac } => {
                let binding = RequestBinding {
                    permission: None,
                    method: outgoing.method.as_str(),
                    path: &outgoing.path,
                    query: outgoing.query.strip_prefix('?').unwrap_or_default(),
                    // One decision asks many questions; as `jti` its id would make all but the first look replayed. The
                    // header tells the decision.
                    decision: DecisionId::generate(),
                    hmac: hmac.as_ref(),
                };
                keyring.request_assertion(&claims, &binding, Millis::now()).map_err(|error| unsigned(&error))?.value
            }
        };
        headers.insert(ASSERTION, value);
        Ok(())
    }

    /// A signature made before for the same claims, or a new one.
    fn signed(
        &self,
        form: Form,
        site: &Site,
        route: &Route,
        upstream: &Upstream,
        sign: impl FnOnce(&Keyring, Millis) -> Result<crate::identity::Signed, SigningError>,
    ) -> Result<HeaderValue, SourceError> {
        let link = &site.link().link;
        let generation = self.policies.current().generation();
        let key = (form, route.index, Arc::clone(&upstream.name), link.id, link.version, generation);
        let now = Millis::now();
        if let Some((value, expires_at)) = self.signed.get(&key)
            && now < expires_at
        {
            return Ok(value);
        }
        let keyring = self.keyring.as_ref().ok_or_else(|| unsigned(&SigningError::NoKeys))?;
        let fresh = sign(keyring, now).map_err(|error| unsigned(&error))?;
        self.signed.insert(key, (fresh.value.clone(), fresh.expires_at));
        Ok(fresh.value)
    }
}

fn id(id: uuid::Uuid) -> Result<HeaderValue, SourceError> {
    HeaderValue::try_from(id.to_string()).map_err(|_| SourceError::Unasked("an id fits no header".to_owned()))
}

fn unsigned(error: &SigningError) -> SourceError {
    tracing::error!(%error, "a service is not asked because its credential cannot be signed");
    SourceError::Unasked("the credential cannot be signed".to_owned())
}
