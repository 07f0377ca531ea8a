//! Claims of a token whose signature was verified, to a `Caller`.
//!
//! Every claim that is read has one accepted type; another one refuses the token, whether or not the issuer is
//! trusted for it: a claim of the wrong type is a sign that issuer and gateway do not speak of the same thing.
//! Trust is applied here, once.

use std::sync::Arc;

use super::{
    caller::{Caller, sha256, user_digest},
    error::AuthError,
    issuer::Issuer,
    json::{Json, Object},
};
use crate::domain::{Millis, PartnerId, TenantId, has_open_edge};

const MAX_TEXT_CHARS: usize = 255;
/// Email addresses and names are longer than ids.
const MAX_NAME_CHARS: usize = 320;
/// The last second of the year 9999: a larger instant is an error of units, not a date.
const MAX_NUMERIC_DATE: f64 = 253_402_300_799.0;

/// Checks every claim and makes the caller.
pub(super) fn caller(issuer: &Issuer, claims: &Object<'_>, token: &str, now: Millis) -> Result<Caller, AuthError> {
    let names = &issuer.settings.claims;
    let expires_at = lifetime(issuer, claims, now)?;
    let issued_at = instant(claims, "iat", f64::floor)?;
    audience(issuer, claims)?;
    match claims.get(&names.token_type) {
        None => {}
        Some(Json::Text(kind)) if kind == "access" => {}
        Some(_) => return Err(AuthError::TokenType),
    }

    let sub = id(claims, "sub")?.ok_or_else(|| bad("sub"))?;
    let home_tenant = match claims.get(&names.tenant_id) {
        None | Some(Json::Null) => None,
        Some(Json::Text(id)) => Some(TenantId::new(id).map_err(|_| bad(&names.tenant_id))?),
        Some(_) => return Err(bad(&names.tenant_id)),
    };
    if let (Some(home), Some(allowed)) = (&home_tenant, &issuer.settings.home_tenants)
        && !allowed.contains(home)
    {
        return Err(AuthError::HomeTenant { issuer: issuer.name.clone() });
    }
    let username = text(claims, &names.username, MAX_NAME_CHARS)?;
    let email = text(claims, &names.email, MAX_NAME_CHARS)?;
    let trusts = issuer.settings.trusts;
    let roles = texts(claims, &names.roles)?;
    let permissions = texts(claims, &names.permissions)?;
    let partner_id = partner(claims, &names.partner_id)?;
    let is_platform_admin = match claims.get(&names.is_platform_admin) {
        None => false,
        Some(Json::Bool(value)) => *value,
        Some(_) => return Err(bad(&names.is_platform_admin)),
    };
    let user_digest = user_digest(&issuer.iss, &sub, username.as_deref(), email.as_deref());

    Ok(Caller {
        issuer_name: issuer.name.clone(),
        issuer: issuer.iss.clone(),
        sub,
        username,
        email,
        session_id: id(claims, &names.session_id)?,
        jti: id(claims, "jti")?,
        home_tenant,
        roles: if trusts.roles { roles } else { Vec::new() },
        permissions: if trusts.permissions { permissions } else { Vec::new() },
        partner_id: partner_id.filter(|_| trusts.partner_id),
        is_platform_admin: is_platform_admin && trusts.is_platform_admin,
        mfa: mfa(issuer, claims)?,
        issued_at,
        expires_at,
        max_token_age: issuer.settings.max_token_age,
        token_digest: sha256(token.as_bytes()),
        user_digest,
    })
}

fn bad(claim: &str) -> AuthError {
    AuthError::Claim { claim: claim.into() }
}

/// `exp` must lie ahead, `nbf` must not. Returns the first instant at which the token is refused.
fn lifetime(issuer: &Issuer, claims: &Object<'_>, now: Millis) -> Result<Millis, AuthError> {
    let leeway = i64::try_from(issuer.settings.leeway.as_millis()).unwrap_or(0);
    let exp = instant(claims, "exp", f64::floor)?.ok_or_else(|| bad("exp"))?;
    let nbf = instant(claims, "nbf", f64::ceil)?;
    let until = Millis(exp.0.saturating_add(leeway));
    if until <= now {
        return Err(AuthError::Expired);
    }
    if nbf.is_some_and(|from| now.0.saturating_add(leeway) < from.0) {
        return Err(AuthError::NotYetValid);
    }
    Ok(until)
}

/// RFC 7519 NumericDate: a JSON number of seconds, which may have a fraction; rounded to the strict side.
#[expect(clippy::cast_possible_truncation, reason = "bounded to the year 9999 just above")]
fn instant(claims: &Object<'_>, name: &str, round: fn(f64) -> f64) -> Result<Option<Millis>, AuthError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Number(seconds)) if (0.0..=MAX_NUMERIC_DATE).contains(seconds) => {
            Ok(Some(Millis(round(seconds * 1000.0) as i64)))
        }
        Some(_) => Err(bad(name)),
    }
}

/// RFC 7519: a token meant for others must be refused, by an issuer without configured audiences too.
fn audience(issuer: &Issuer, claims: &Object<'_>) -> Result<(), AuthError> {
    let accepted = &issuer.settings.audiences;
    let named = match claims.get("aud") {
        None if accepted.is_empty() => return Ok(()),
        None => return Err(AuthError::Audience),
        Some(Json::Text(one)) => vec![one.as_ref()],
        Some(list) => list.texts().ok_or_else(|| bad("aud"))?,
    };
    if named.iter().any(|name| accepted.iter().any(|known| known == name)) { Ok(()) } else { Err(AuthError::Audience) }
}

/// What somebody or something is known by. A header loses white space at the edges on the way: at the service one id would
/// become another.
fn id(claims: &Object<'_>, name: &str) -> Result<Option<Arc<str>>, AuthError> {
    match text(claims, name, MAX_TEXT_CHARS)? {
        Some(id) if has_open_edge(&id) => Err(bad(name)),
        id => Ok(id),
    }
}

/// A text without controls; absent or null is `None`.
fn text(claims: &Object<'_>, name: &str, max_chars: usize) -> Result<Option<Arc<str>>, AuthError> {
    match claims.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Text(value)) if !value.chars().any(char::is_control) && value.chars().count() <= max_chars => {
            Ok(if value.is_empty() { None } else { Some(value.as_ref().into()) })
        }
        Some(_) => Err(bad(name)),
    }
}

fn texts(claims: &Object<'_>, name: &str) -> Result<Vec<Arc<str>>, AuthError> {
    match claims.get(name) {
        None => Ok(Vec::new()),
        Some(list) => Ok(list.texts().ok_or_else(|| bad(name))?.into_iter().map(Arc::from).collect()),
    }
}

/// A UUID in its hyphenated form; others would be a second spelling of one partner.
fn partner(claims: &Object<'_>, name: &str) -> Result<Option<PartnerId>, AuthError> {
    match claims.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Text(id)) if id.len() == 36 => id.parse().map(Some).map_err(|_| bad(name)),
        Some(_) => Err(bad(name)),
    }
}

fn mfa(issuer: &Issuer, claims: &Object<'_>) -> Result<bool, AuthError> {
    let by_method = match claims.get("amr") {
        None | Some(Json::Null) => false,
        Some(list) => list.texts().ok_or_else(|| bad("amr"))?.contains(&"mfa"),
    };
    let by_class = match claims.get("acr") {
        None | Some(Json::Null) => false,
        Some(Json::Text(class)) => issuer.settings.mfa_acr.iter().any(|known| known == class),
        Some(_) => return Err(bad("acr")),
    };
    Ok(by_method || by_class)
}
