//! What upstreams are told, signed: assertions and replacement tokens (contract, section 6).
//!
//! The session form says who works where under which link and serves many requests; the request form also binds
//! method, path, query and decision. A replacement token stands in for the caller's own towards an upstream that takes
//! the tenant from the token: it holds this link's effective set and this tenant only, and is never a platform admin's.
//! All live 60 s at most, and all are refused by the gateway itself: by its `iss`, and by the claim `linkgate`.

use std::collections::HashMap;

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde::Serialize;

use super::{
    caller::Caller,
    keyring::{ASSERTION_TYP, Keyring, SigningError, encode_header},
};
use crate::domain::{
    DecisionId, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission, PermissionSet, Secret, TenantId,
};

/// The contract's bound.
const LIFE_SECONDS: i64 = 60;

/// The person on whose behalf a request is made.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The issuer of the person's token; empty for the legacy one.
    pub issuer: &'a str,
    pub sub: &'a str,
    pub username: Option<&'a str>,
    pub email: Option<&'a str>,
}

impl<'a> From<&'a Caller> for Subject<'a> {
    fn from(caller: &'a Caller) -> Self {
        Self {
            issuer: &caller.issuer,
            sub: &caller.sub,
            username: caller.username.as_deref(),
            email: caller.email.as_deref(),
        }
    }
}

/// The link that a cross-tenant request works under.
#[derive(Clone, Copy, Debug)]
pub struct LinkClaim {
    pub id: LinkId,
    pub version: LinkVersion,
    pub role: LinkRole,
}

/// What both forms of the assertion say.
#[derive(Clone, Copy, Debug)]
pub struct AssertionClaims<'a> {
    pub subject: Subject<'a>,
    /// The upstream.
    pub audience: &'a str,
    /// The effective tenant.
    pub tenant: &'a TenantId,
    pub cross_tenant: bool,
    pub partner: Option<PartnerId>,
    /// `None` in home requests.
    pub link: Option<LinkClaim>,
    /// No longer than this, beside the 60 s: the end of the caller's token or of the link.
    pub not_after: Option<Millis>,
}

/// What the request form binds beside.
#[derive(Clone, Copy, Debug)]
pub struct RequestBinding<'a> {
    /// `None` on home routes.
    pub permission: Option<Permission>,
    pub method: &'a str,
    /// The path as it is forwarded, byte for byte.
    pub path: &'a str,
    /// The query as it is forwarded, without `?`; empty where there is none.
    pub query: &'a str,
    pub decision: DecisionId,
    /// A key shared with this upstream: HS256 instead of the gateway's own key.
    pub hmac: Option<&'a Secret>,
}

/// How an upstream wants its replacement tokens.
#[derive(Clone, Copy, Debug)]
pub struct ReplacementShape<'a> {
    /// HS256 with the upstream's secret; `None`: the gateway's own key.
    pub hs256: Option<&'a Secret>,
    /// `iss`, where the upstream checks one; the gateway's own otherwise.
    pub issuer: Option<&'a str>,
    /// `aud`; left out where the upstream knows none (its library may refuse a token that carries one).
    pub audience: Option<&'a str>,
    /// Our permission names to the upstream's own; names without an entry go as they are, an empty list drops one.
    pub permission_names: &'a HashMap<String, Vec<String>>,
    /// Link roles likewise.
    pub role_names: &'a HashMap<String, Vec<String>>,
}

/// What a replacement token says.
#[derive(Clone, Copy, Debug)]
pub struct ReplacementClaims<'a> {
    pub subject: Subject<'a>,
    /// The effective tenant: its `tenant_id`, and all of its `managed_tenant_ids`.
    pub tenant: &'a TenantId,
    pub partner: PartnerId,
    pub role: LinkRole,
    /// The link's effective set.
    pub permissions: PermissionSet,
    pub not_after: Option<Millis>,
    pub shape: ReplacementShape<'a>,
}

/// What a token of the gateway's own towards an upstream says: it asks for itself, about one tenant.
#[derive(Clone, Copy, Debug)]
pub struct ServiceClaims<'a> {
    /// `sub`.
    pub subject: &'a str,
    pub tenant: &'a TenantId,
    pub partner: PartnerId,
    /// In the upstream's words; `None`: the link's role and permissions, mapped.
    pub roles: Option<&'a [String]>,
    pub permissions: Option<&'a [String]>,
    pub link_role: LinkRole,
    pub link_permissions: PermissionSet,
    pub not_after: Option<Millis>,
    pub shape: ReplacementShape<'a>,
}

/// A signed token as a header value, and how long it may be used.
#[derive(Clone, Debug)]
pub struct Signed {
    /// For `X-Linkgate-Assertion`: the token. For `Authorization`: `Bearer` and the token.
    pub value: HeaderValue,
    pub issued_at: Millis,
    pub expires_at: Millis,
}

impl Signed {
    fn new(text: String, life: Life, now: Millis) -> Result<Self, SigningError> {
        let mut value = HeaderValue::try_from(text).map_err(|_| SigningError::Sign)?;
        value.set_sensitive(true);
        Ok(Self { value, issued_at: now, expires_at: Millis(life.exp.saturating_mul(1000)) })
    }

    /// The token alone.
    pub fn token(&self) -> &str {
        let text = self.value.to_str().unwrap_or_default();
        text.strip_prefix("Bearer ").unwrap_or(text)
    }
}

#[derive(Clone, Copy, Serialize)]
struct Life {
    iat: i64,
    exp: i64,
}

impl Life {
    fn from(now: Millis, not_after: Option<Millis>) -> Self {
        let iat = now.0.div_euclid(1000);
        let latest = not_after.map_or(i64::MAX, |end| end.0.div_euclid(1000));
        Self { iat, exp: iat.saturating_add(LIFE_SECONDS).min(latest) }
    }
}

#[derive(Serialize)]
struct AssertionBody<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    #[serde(flatten)]
    life: Life,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_iss: &'a str,
    tenant_id: &'a TenantId,
    cross_tenant: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    partner_id: Option<PartnerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_id: Option<LinkId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_version: Option<LinkVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<LinkRole>,
    #[serde(flatten)]
    request: Option<RequestBody<'a>>,
}

#[derive(Serialize)]
struct RequestBody<'a> {
    jti: DecisionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    permission: Option<Permission>,
    method: &'a str,
    path: &'a str,
    query_hash: String,
}

#[derive(Serialize)]
struct ReplacementBody<'a> {
    iss: &'a str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(flatten)]
    life: Life,
    jti: uuid::Uuid,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    tenant_id: &'a TenantId,
    partner_id: PartnerId,
    managed_tenant_ids: [&'a TenantId; 1],
    active_managed_tenant_id: &'a TenantId,
    roles: Vec<&'a str>,
    permissions: Vec<&'a str>,
    linkgate: bool,
}

impl Keyring {
    /// `X-Linkgate-Assertion`, session form: to be cached (`SignedCache`) and sent with many requests.
    pub fn session_assertion(&self, claims: &AssertionClaims<'_>, now: Millis) -> Result<Signed, SigningError> {
        let life = Life::from(now, claims.not_after);
        let text = self.sign(&self.assertion_header, &self.body(claims, life, None))?;
        Signed::new(text, life, now)
    }

    /// `X-Linkgate-Assertion`, request form: for this one request.
    pub fn request_assertion(
        &self,
        claims: &AssertionClaims<'_>,
        binding: &RequestBinding<'_>,
        now: Millis,
    ) -> Result<Signed, SigningError> {
        let life = Life::from(now, claims.not_after);
        let request = RequestBody {
            jti: binding.decision,
            permission: binding.permission,
            method: binding.method,
            path: binding.path,
            query_hash: query_hash(binding.query),
        };
        let body = self.body(claims, life, Some(request));
        let text = match binding.hmac {
            Some(secret) => sign_hs256(&encode_header(ASSERTION_TYP, "HS256", None), &body, secret.expose())?,
            None => self.sign(&self.assertion_header, &body)?,
        };
        Signed::new(text, life, now)
    }

    /// `Authorization` for an upstream that takes the tenant from the token. Cross-tenant requests only.
    pub fn replacement_token(&self, claims: &ReplacementClaims<'_>, now: Millis) -> Result<Signed, SigningError> {
        let shape = &claims.shape;
        let body = ReplacementBody {
            username: claims.subject.username,
            email: claims.subject.email,
            roles: mapped([claims.role.as_str()], shape.role_names),
            permissions: mapped(claims.permissions.iter().map(Permission::name), shape.permission_names),
            ..self.bare(shape, claims.subject.sub, claims.tenant, claims.partner, Life::from(now, claims.not_after))
        };
        self.bearer(shape, &body, now)
    }

    /// `Authorization` of the gateway's own questions about a tenant: fan-out, exports, alerts.
    pub fn service_token(&self, claims: &ServiceClaims<'_>, now: Millis) -> Result<Signed, SigningError> {
        let shape = &claims.shape;
        let body = ReplacementBody {
            roles: match claims.roles {
                Some(names) => names.iter().map(String::as_str).collect(),
                None => mapped([claims.link_role.as_str()], shape.role_names),
            },
            permissions: match claims.permissions {
                Some(names) => names.iter().map(String::as_str).collect(),
                None => mapped(claims.link_permissions.iter().map(Permission::name), shape.permission_names),
            },
            ..self.bare(shape, claims.subject, claims.tenant, claims.partner, Life::from(now, claims.not_after))
        };
        self.bearer(shape, &body, now)
    }

    fn bare<'a>(
        &'a self,
        shape: &ReplacementShape<'a>,
        sub: &'a str,
        tenant: &'a TenantId,
        partner: PartnerId,
        life: Life,
    ) -> ReplacementBody<'a> {
        ReplacementBody {
            iss: shape.issuer.unwrap_or(&self.issuer),
            sub,
            aud: shape.audience,
            life,
            jti: uuid::Uuid::now_v7(),
            r#type: "access",
            username: None,
            email: None,
            tenant_id: tenant,
            partner_id: partner,
            managed_tenant_ids: [tenant],
            active_managed_tenant_id: tenant,
            roles: Vec::new(),
            permissions: Vec::new(),
            linkgate: true,
        }
    }

    fn bearer(
        &self,
        shape: &ReplacementShape<'_>,
        body: &ReplacementBody<'_>,
        now: Millis,
    ) -> Result<Signed, SigningError> {
        let token = match shape.hs256 {
            Some(secret) => sign_hs256(&encode_header("JWT", "HS256", None), body, secret.expose())?,
            None => self.sign(&self.replacement_header, body)?,
        };
        Signed::new(format!("Bearer {token}"), body.life, now)
    }

    fn body<'a>(
        &'a self,
        claims: &AssertionClaims<'a>,
        life: Life,
        request: Option<RequestBody<'a>>,
    ) -> AssertionBody<'a> {
        AssertionBody {
            iss: &self.issuer,
            sub: claims.subject.sub,
            aud: claims.audience,
            life,
            user_iss: claims.subject.issuer,
            tenant_id: claims.tenant,
            cross_tenant: claims.cross_tenant,
            partner_id: claims.partner,
            link_id: claims.link.map(|link| link.id),
            link_version: claims.link.map(|link| link.version),
            role: claims.link.map(|link| link.role),
            request,
        }
    }

    fn sign(&self, header: &str, body: &impl Serialize) -> Result<String, SigningError> {
        assemble(header, body, |message| self.signer.sign(message))
    }
}

pub(super) fn sign_hs256(header: &str, body: &impl Serialize, secret: &[u8]) -> Result<String, SigningError> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    assemble(header, body, |message| Ok(hmac::sign(&key, message).as_ref().to_vec()))
}

/// Header (already encoded, with its dot), body and signature as one compact token.
pub(super) fn assemble(
    header: &str,
    body: &impl Serialize,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, SigningError>,
) -> Result<String, SigningError> {
    let body = serde_json::to_vec(body).map_err(SigningError::Claims)?;
    let mut token = String::with_capacity(header.len() + body.len() * 4 / 3 + 96);
    token.push_str(header);
    URL_SAFE_NO_PAD.encode_string(body, &mut token);
    let signature = sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// SHA-256 of the query's bytes as forwarded, base64url without padding.
fn query_hash(query: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, query.as_bytes()))
}

/// The upstream's names, each once, in order.
fn mapped(names: impl IntoIterator<Item = &'static str>, map: &HashMap<String, Vec<String>>) -> Vec<&str> {
    let mut out: Vec<&str> = Vec::new();
    for name in names {
        match map.get(name) {
            None => out.push(name),
            Some(theirs) => out.extend(theirs.iter().map(String::as_str)),
        }
    }
    let mut seen = std::collections::HashSet::new();
    out.retain(|name| seen.insert(*name));
    out
}
