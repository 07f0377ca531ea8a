//! What a forwarded request says of its bearer: the credential, the identity headers and the signed assertion
//! (contract, section 6). Protected headers have been removed before; here they are set.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    active_tenant::ACTIVE_TENANT,
    authorize::Authorized,
    headers::drop_second_credentials,
    identify::presented_token,
    respond::Failure,
    session::{Session, text_header},
    target::Target,
    tenant::Scope,
    trail::Trail,
    worker::Worker,
};
use crate::{
    config::settings::Access,
    domain::{DecisionId, ErrorCode, LinkFacts, Millis, TenantId},
    identity::{
        AssertionClaims, Keyring, LinkClaim, ReplacementClaims, ReplacementShape, RequestBinding, SignedForm,
        SignedKey, SigningError, Source, Subject,
    },
    upstream::{
        Upstream,
        settings::{AssertionForm, Credential, Replacement},
    },
};

const TENANT: HeaderName = HeaderName::from_static("x-tenant-id");
const CROSS: HeaderName = HeaderName::from_static("x-cross-tenant-access");
const USER: HeaderName = HeaderName::from_static("x-user-id");
const PARTNER: HeaderName = HeaderName::from_static("x-partner-id");
const PARTNER_TENANT: HeaderName = HeaderName::from_static("x-partner-tenant-id");
const PARTNER_ROLE: HeaderName = HeaderName::from_static("x-partner-role");
const LINK: HeaderName = HeaderName::from_static("x-link-id");
const ASSERTION: HeaderName = HeaderName::from_static("x-linkgate-assertion");

/// Whom a request is made for.
struct Bearer<'a> {
    session: &'a Session,
    tenant: Option<&'a TenantId>,
    link: Option<&'a LinkFacts>,
    upstream: &'a Upstream,
    upstream_index: u32,
    now: Millis,
}

/// Sets identity headers, assertion and credential on cleaned headers.
pub fn set(
    worker: &Worker,
    trail: &Trail,
    authorized: &Authorized,
    upstream: &Upstream,
    target: &Target,
    headers: &mut HeaderMap,
) -> Result<(), Failure> {
    let (session, tenant, cross) = match &authorized.placed.scope {
        // Log-in, refresh and API-key clients: credentials pass as they came.
        Scope::Public => return Ok(()),
        Scope::Home(session, tenant) => (session, tenant.as_ref(), false),
        Scope::Cross(session, tenant) => (session, tenant.as_ref(), true),
    };
    let index = worker.gateway.upstreams.iter().position(|known| std::ptr::eq(&**known, upstream));
    let bearer = Bearer {
        session,
        tenant,
        link: authorized.link.as_deref(),
        upstream,
        upstream_index: index.and_then(|index| u32::try_from(index).ok()).unwrap_or(u32::MAX),
        now: trail.now,
    };
    identity(&bearer, cross, headers)?;
    if cross {
        drop_second_credentials(headers, &worker.gateway.settings.headers.session_cookies);
        cross_tenant_credential(worker, &bearer, headers)?;
    } else {
        home_credential(worker, authorized.placed.identified.source, headers);
    }
    assertion(worker, trail, &bearer, authorized, target, headers)
}

fn identity(bearer: &Bearer<'_>, cross: bool, headers: &mut HeaderMap) -> Result<(), Failure> {
    let unfit = || Failure::new(ErrorCode::InternalError, "identity_header");
    if let Some(tenant) = bearer.tenant {
        let value = text_header(tenant.as_str()).ok_or_else(unfit)?;
        if cross {
            headers.insert(ACTIVE_TENANT, value.clone());
        }
        headers.insert(TENANT, value);
    }
    headers.insert(CROSS, HeaderValue::from_static(if cross { "true" } else { "false" }));
    headers.insert(USER, bearer.session.user_header.clone().ok_or_else(unfit)?);
    if let Some(partner) = bearer.session.partner() {
        headers.insert(PARTNER, partner.partner_header.clone().ok_or_else(unfit)?);
        headers.insert(PARTNER_TENANT, partner.partner_tenant_header.clone().ok_or_else(unfit)?);
    }
    if let Some(link) = bearer.link {
        headers.insert(PARTNER_ROLE, HeaderValue::from_static(link.link.role.as_str()));
        headers.insert(LINK, super::ids::id_header(link.link.id.0));
    }
    Ok(())
}

/// The verified credential goes on, others beside it are dropped.
fn home_credential(worker: &Worker, source: Option<Source>, headers: &mut HeaderMap) {
    let settings = &worker.gateway.settings;
    let cookie = settings.identity.cookie.as_deref();
    let from_cookie = (source == Some(Source::Cookie)).then(|| presented_token(headers, cookie).map(str::to_owned));
    drop_second_credentials(headers, &settings.headers.session_cookies);
    if let Some(value) = from_cookie.flatten().and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok()) {
        headers.insert(header::AUTHORIZATION, value);
    }
}

fn cross_tenant_credential(worker: &Worker, bearer: &Bearer<'_>, headers: &mut HeaderMap) -> Result<(), Failure> {
    match &bearer.upstream.settings.credential {
        Credential::Pass => Ok(()),
        Credential::Drop => {
            headers.remove(header::AUTHORIZATION);
            Ok(())
        }
        Credential::Replace(replacement) => {
            headers.remove(header::AUTHORIZATION);
            let value = cached(worker, bearer, SignedForm::Replacement, |keyring| {
                replacement_token(worker, keyring, bearer, replacement)
            })?;
            headers.insert(header::AUTHORIZATION, value);
            Ok(())
        }
    }
}

fn replacement_token(
    worker: &Worker,
    keyring: &Keyring,
    bearer: &Bearer<'_>,
    replacement: &Replacement,
) -> Result<crate::identity::Signed, SigningError> {
    let (Some(link), Some(tenant)) = (bearer.link, bearer.tenant) else { return Err(SigningError::Sign) };
    let caller = &bearer.session.caller;
    let bundle = worker.gateway.policies.current();
    let claims = ReplacementClaims {
        subject: Subject::from(&**caller),
        tenant,
        partner: link.link.partner_id,
        role: link.link.role,
        permissions: link.effective(bundle.roles()),
        not_after: not_after(bearer),
        shape: ReplacementShape {
            hs256: replacement.hs256.as_ref(),
            issuer: replacement.issuer.as_deref(),
            audience: Some(&bearer.upstream.settings.audience).filter(|text| !text.is_empty()).map(String::as_str),
            permission_names: &replacement.permission_names,
            role_names: &replacement.role_names,
        },
    };
    keyring.replacement_token(&claims, bearer.now)
}

/// No signature outlives the caller's token or the link.
fn not_after(bearer: &Bearer<'_>) -> Option<Millis> {
    let token = bearer.session.caller.expires_at;
    let link = bearer.link.and_then(|link| link.window().1);
    Some(link.map_or(token, |end| end.min(token)))
}

fn assertion(
    worker: &Worker,
    trail: &Trail,
    bearer: &Bearer<'_>,
    authorized: &Authorized,
    target: &Target,
    headers: &mut HeaderMap,
) -> Result<(), Failure> {
    // Without an effective tenant (a platform admin at home) there is nothing to assert.
    let (Some(keyring), Some(tenant)) = (&worker.gateway.keyring, bearer.tenant) else { return Ok(()) };
    let claims = AssertionClaims {
        subject: Subject::from(&*bearer.session.caller),
        audience: &bearer.upstream.settings.audience,
        tenant,
        cross_tenant: bearer.link.is_some(),
        partner: bearer.session.partner().map(|partner| partner.facts.partner_id),
        link: bearer.link.map(|link| LinkClaim { id: link.link.id, version: link.link.version, role: link.link.role }),
        not_after: not_after(bearer),
    };
    let value = match &bearer.upstream.settings.assertion {
        AssertionForm::Off => return Ok(()),
        AssertionForm::Session => cached(worker, bearer, SignedForm::SessionAssertion, |keyring| {
            keyring.session_assertion(&claims, bearer.now)
        })?,
        AssertionForm::Request { hmac } => {
            let permission = match authorized.placed.identified.routed.route.settings.access {
                Access::Permission(permission) => Some(permission),
                Access::Home | Access::Public | Access::Deny => None,
            };
            let binding = RequestBinding {
                permission,
                method: trail.method.as_str(),
                path: target.path(),
                query: target.query(),
                decision: trail.decision_id.unwrap_or_else(DecisionId::generate),
                hmac: hmac.as_ref(),
            };
            keyring.request_assertion(&claims, &binding, bearer.now).map_err(|error| unsigned(&error))?.value
        }
    };
    headers.insert(ASSERTION, value);
    Ok(())
}

/// A signature made before for the same claims, or a new one.
fn cached(
    worker: &Worker,
    bearer: &Bearer<'_>,
    form: SignedForm,
    sign: impl FnOnce(&Keyring) -> Result<crate::identity::Signed, SigningError>,
) -> Result<HeaderValue, Failure> {
    let missing = || Failure::new(ErrorCode::InternalError, "no_signing_key");
    let keyring = worker.gateway.keyring.as_ref().ok_or_else(missing)?;
    let key = SignedKey {
        form,
        upstream: bearer.upstream_index,
        generation: bearer.session.policies,
        user: bearer.session.caller.user_digest,
        tenant: bearer.tenant.ok_or_else(missing)?.clone(),
        partner: bearer.session.partner().map(|partner| partner.facts.partner_id),
        link: bearer.link.map(|link| (link.link.id, link.link.version)),
    };
    let mut signed = worker.signed.borrow_mut();
    if let Some(value) = signed.get(&key, bearer.now, not_after(bearer)) {
        return Ok(value);
    }
    let fresh = sign(keyring).map_err(|error| unsigned(&error))?;
    let value = fresh.value.clone();
    signed.put(key, fresh);
    Ok(value)
}

fn unsigned(error: &SigningError) -> Failure {
    tracing::error!(%error, "a request is refused because its assertion cannot be signed");
    Failure::new(ErrorCode::InternalError, "signing")
}
