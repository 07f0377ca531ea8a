//! `linkgate token`: mints a development token.
//!
//! Only for an issuer whose configuration names a `development_key`; `serve` keeps such an issuer to loopback
//! listeners. Before it is printed the token is verified by that issuer's own rules, so that what is printed works.

use std::{io::IsTerminal, path::Path};

use serde_json::{Map, Value, json};

use super::outcome::{Console, Exit, Failure, tell};
use crate::{
    config::parse_duration,
    domain::{Millis, PartnerId, TenantId},
    identity::{
        Verifier,
        mint::{DevKey, mint},
        settings::{ClaimNames, IdentitySettings, IssuerSettings, KeySource},
    },
};

const MAX_TTL_SECONDS: u64 = 30 * 24 * 3600;

/// Mint a development token
///
/// The issuer must be marked for development: `development_key` in its section of the configuration.
#[derive(clap::Args, Debug)]
pub struct TokenArgs {
    /// Issuer by its name in the configuration; may be left out where only one is marked for development
    #[arg(long)]
    pub issuer: Option<String>,
    /// Who: the claim `sub`
    #[arg(long)]
    pub sub: String,
    /// Home tenant: the claim `tenant_id`
    #[arg(long, value_parser = parse_tenant)]
    pub tenant: Option<TenantId>,
    /// Partner (UUID): the claim `partner_id`
    #[arg(long)]
    pub partner: Option<PartnerId>,
    /// A role, such as `partner_msp_full`; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// A permission or wildcard, such as `partner.billing.*`; may be repeated
    #[arg(long = "permission", value_name = "PERMISSION")]
    pub permissions: Vec<String>,
    /// Show MFA: `amr` with `mfa`
    #[arg(long)]
    pub mfa: bool,
    /// Until the token expires: seconds, or a duration such as 1h
    #[arg(long, default_value_t = 3600, value_parser = parse_ttl)]
    pub ttl: u64,
    #[arg(long)]
    pub username: Option<String>,
    /// Any other claim as `name=json`; the value is text where it is no JSON; may be repeated
    #[arg(long = "claim", value_name = "NAME=JSON", value_parser = parse_claim)]
    pub claims: Vec<(String, Value)>,
}

fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as name=json")?;
    if name.is_empty() {
        return Err("the name is empty".into());
    }
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

fn parse_tenant(text: &str) -> Result<TenantId, String> {
    TenantId::new(text).map_err(|error| error.to_string())
}

fn parse_ttl(text: &str) -> Result<u64, String> {
    let seconds = match text.parse() {
        Ok(seconds) => seconds,
        Err(_) => parse_duration(text).map_err(|error| format!("{error}, or seconds without a unit"))?.as_secs(),
    };
    if !(1..=MAX_TTL_SECONDS).contains(&seconds) {
        return Err(format!("a token lives from 1 s to {MAX_TTL_SECONDS} s (30 days)"));
    }
    Ok(seconds)
}

/// Prints the token alone, or with `--json` the token with its claims.
pub fn run(args: &TokenArgs, identity: &IdentitySettings, console: &Console) -> Result<(), Failure> {
    let made = make(args, identity, Millis::now())?;
    if !console.json && std::io::stdout().is_terminal() {
        tell(format_args!("issuer `{}`, valid for {} s", made.issuer, args.ttl));
    }
    let shown = json!({"token": made.token, "issuer": made.issuer, "claims": made.claims});
    console.show(&shown, &made.token)
}

/// A minted token.
#[derive(Debug)]
pub struct Made {
    pub token: String,
    /// The issuer's name in the configuration.
    pub issuer: String,
    pub claims: Map<String, Value>,
}

/// The command without its output.
pub fn make(args: &TokenArgs, identity: &IdentitySettings, now: Millis) -> Result<Made, Failure> {
    let (issuer, path) = choose(args.issuer.as_deref(), identity)?;
    let key = DevKey::read(path).map_err(|error| Failure::new(Exit::Invalid, error))?;
    let key = known_to(issuer, key)?;
    let claims = claims(args, issuer, now);
    let token = mint(&key, &claims).map_err(Failure::failed)?;
    check(issuer, &token, now)?;
    Ok(Made { token, issuer: issuer.name.clone(), claims })
}

fn choose<'a>(name: Option<&str>, identity: &'a IdentitySettings) -> Result<(&'a IssuerSettings, &'a Path), Failure> {
    let marked: Vec<(&IssuerSettings, &Path)> =
        identity.issuers.iter().filter_map(|one| Some((one, one.development_key.as_deref()?))).collect();
    let names = || marked.iter().map(|(one, _)| format!("`{}`", one.name)).collect::<Vec<_>>().join(", ");
    match (name, marked.as_slice()) {
        (_, []) => Err(Failure::new(
            Exit::Invalid,
            "no issuer is marked for development: set `development_key` in the section of the issuer to mint for",
        )),
        (None, [only]) => Ok(*only),
        (None, _) => Err(Failure::new(Exit::Usage, format!("name one of the issuers with --issuer: {}", names()))),
        (Some(name), _) => marked.iter().find(|(one, _)| one.name == name).copied().ok_or_else(|| {
            let exit = if identity.issuers.iter().any(|one| one.name == name) { Exit::Invalid } else { Exit::NotFound };
            Failure::new(exit, format!("`{name}` is no issuer marked for development; these are: {}", names()))
        }),
    }
}

/// The key under the name by which the issuer's key set holds it.
fn known_to(issuer: &IssuerSettings, key: DevKey) -> Result<DevKey, Failure> {
    let KeySource::JwksFile(path) = &issuer.keys else { return Ok(key) };
    let document = std::fs::read(path).map_err(|error| {
        Failure::new(
            Exit::Invalid,
            format!("cannot read the key set `{}` of `{}`: {error}", path.display(), issuer.name),
        )
    })?;
    key.named_by(&document).ok_or_else(|| {
        let set = path.display();
        Failure::new(
            Exit::Invalid,
            format!("the key set `{set}` does not hold the development key of `{}`", issuer.name),
        )
    })
}

fn claims(args: &TokenArgs, issuer: &IssuerSettings, now: Millis) -> Map<String, Value> {
    let names: &ClaimNames = &issuer.claims;
    let iat = now.0.div_euclid(1000);
    let mut claims = Map::new();
    if let Some(iss) = &issuer.issuer {
        claims.insert("iss".into(), iss.as_str().into());
    }
    if let Some(audience) = issuer.audiences.first() {
        claims.insert("aud".into(), audience.as_str().into());
    }
    claims.insert("sub".into(), args.sub.as_str().into());
    claims.insert("iat".into(), iat.into());
    claims.insert("exp".into(), iat.saturating_add_unsigned(args.ttl).into());
    claims.insert("jti".into(), uuid::Uuid::now_v7().to_string().into());
    claims.insert(names.token_type.clone(), "access".into());
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    };
    set(&names.username, args.username.as_deref().map(Value::from));
    set(&names.tenant_id, args.tenant.as_ref().map(|id| id.as_str().into()));
    set(&names.partner_id, args.partner.map(|id| id.to_string().into()));
    set(&names.roles, (!args.roles.is_empty()).then(|| args.roles.clone().into()));
    set(&names.permissions, (!args.permissions.is_empty()).then(|| args.permissions.clone().into()));
    set("amr", args.mfa.then(|| json!(["pwd", "mfa"])));
    for (name, value) in &args.claims {
        claims.insert(name.clone(), value.clone());
    }
    claims
}

/// Verifies the token by the issuer's rules where its keys are at hand. `--claim` may have asked for what is refused:
/// that is said, not hidden.
fn check(issuer: &IssuerSettings, token: &str, now: Millis) -> Result<(), Failure> {
    if matches!(issuer.keys, KeySource::JwksUrl { .. }) {
        return Ok(());
    }
    let alone = IdentitySettings { issuers: vec![issuer.clone()], cookie: None, cache_tokens: 1 };
    let verifier = Verifier::new(&alone, None).map_err(|error| Failure::new(Exit::Invalid, error))?;
    match verifier.verify(token, now) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(Exit::Invalid, format!("the gateway would refuse this token: {error}"))),
    }
}
