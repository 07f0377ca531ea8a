//! Who calls: a bearer token, compared by its digest in constant time. Nothing else is a credential here, and the listener's
//! own address excuses nobody.

use std::net::IpAddr;

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use http::{HeaderMap, header};

use super::AdminApi;
use crate::{
    config::settings::{AdminRole, AdminSettings, is_strong_admin_token},
    domain::ErrorCode,
    limit::{BucketKey, Moment, QuotaStore},
    proxy::{
        headers::{Single, single},
        respond::Failure,
    },
};

/// A known caller.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    /// As history and audit name them.
    pub(super) name: String,
    pub(super) account: Option<String>,
    pub(super) role: AdminRole,
}

/// The holder of the token that the request shows.
///
/// A good token is taken from an address that has used up its refusals too: whoever guesses at 32 random bytes gains
/// nothing by that, and nobody can lock operators out by guessing.
pub(super) fn authenticate(
    api: &AdminApi,
    settings: &AdminSettings,
    ip: IpAddr,
    headers: &HeaderMap,
) -> Result<Holder, Failure> {
    if let Some(holder) = bearer(headers).and_then(|token| holder(settings, token)) {
        return Ok(holder);
    }
    api.metrics.unauthenticated.inc();
    if settings.unauthenticated.requests > 0 {
        let taken = api.quotas.take(&BucketKey::address(ip), settings.unauthenticated, Moment::now());
        if !taken.allowed {
            let mut failure = Failure::new(ErrorCode::RateLimitExceeded, "unauthenticated");
            failure.retry_after = Some(taken.retry_after_seconds);
            return Err(failure);
        }
    }
    tracing::warn!(client = %ip, "a call of the admin API without a valid token is refused");
    Err(Failure::new(ErrorCode::Unauthorized, "unauthenticated"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let Single::One(value) = single(headers, header::AUTHORIZATION) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Every digest is compared, whichever fits.
fn holder(settings: &AdminSettings, token: &str) -> Option<Holder> {
    if !is_strong_admin_token(token.as_bytes()) {
        return None;
    }
    let shown = digest::digest(&digest::SHA256, token.as_bytes());
    let mut found = None;
    for known in &settings.tokens {
        if verify_slices_are_equal(shown.as_ref(), &known.digest).is_ok() {
            found = Some(known);
        }
    }
    found.map(|known| Holder {
        name: format!("admin:{}", known.name),
        account: known.account.clone(),
        role: known.role,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::settings::AdminToken, limit::settings::Quota};

    const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn settings(token: &str) -> AdminSettings {
        let digest = digest::digest(&digest::SHA256, token.as_bytes()).as_ref().try_into().unwrap();
        let token = AdminToken { name: "ci".into(), role: AdminRole::Viewer, digest, account: None };
        AdminSettings {
            address: "127.0.0.1:0".parse().unwrap(),
            tokens: vec![token],
            unauthenticated: Quota { requests: 0, per_seconds: 1 },
        }
    }

    #[test]
    fn only_the_whole_token_is_one() {
        let settings = settings(TOKEN);
        assert_eq!(holder(&settings, TOKEN).unwrap().name, "admin:ci");
        for bad in ["", &TOKEN.replacen('0', "", 1), &format!("{TOKEN}0"), &TOKEN.to_uppercase()] {
            assert!(holder(&settings, bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_digest_of_a_password_opens_nothing() {
        assert!(holder(&settings("hunter2"), "hunter2").is_none());
    }

    #[test]
    fn a_token_stands_once_and_as_a_bearer() {
        let mut headers = HeaderMap::new();
        assert!(bearer(&headers).is_none());
        headers.insert(header::AUTHORIZATION, format!("Basic {TOKEN}").parse().unwrap());
        assert!(bearer(&headers).is_none());
        headers.insert(header::AUTHORIZATION, format!("bearer {TOKEN}").parse().unwrap());
        assert_eq!(bearer(&headers), Some(TOKEN));
        headers.append(header::AUTHORIZATION, format!("Bearer {TOKEN}").parse().unwrap());
        assert!(bearer(&headers).is_none(), "which one is meant?");
    }
}
