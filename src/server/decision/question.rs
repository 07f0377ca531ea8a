//! One AuthZEN question, read and checked.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use serde_json::{Map, Value};

use super::original;
use crate::{
    domain::{ErrorCode, Permission, TenantId},
    identity::{
        Attested,
        settings::{IdentitySettings, IssuerSettings},
    },
    proxy::{ids, intake, judgement::Asked, peer::Peer, respond::Failure, trace_context},
};

/// Longest text of a user's, as in tokens.
const MAX_TEXT_CHARS: usize = 255;
/// Most roles, and most permissions, of one user.
const MAX_NAMES: usize = 200;

/// Who, what, where.
#[derive(Debug)]
pub(super) struct Question<'a> {
    issuer: &'a IssuerSettings,
    user: Attested,
    permission: Permission,
    method: Method,
    tenant: TenantId,
    ip: IpAddr,
}

impl<'a> Question<'a> {
    pub(super) fn read(asked: &Value, identity: &'a IdentitySettings) -> Result<Self, Box<Failure>> {
        Self::parse(asked, identity).map_err(|message| Box::new(invalid(&message)))
    }

    fn parse(asked: &Value, identity: &'a IdentitySettings) -> Result<Self, String> {
        let object = |name: &str| {
            asked.get(name).and_then(Value::as_object).ok_or_else(|| format!("`{name}` is missing or no object"))
        };
        let (subject, action, resource) = (object("subject")?, object("action")?, object("resource")?);
        let context = if asked.get("context").is_some() { object("context")?.clone() } else { Map::new() };
        of_type(subject, "subject", "user")?;
        of_type(resource, "resource", "tenant")?;
        let properties = properties(subject, "subject")?;
        let issuer = issuer(identity, text(&properties, "issuer")?.as_deref())?;
        if context.contains_key("time") {
            return Err("`context.time` is not taken: the time is linkgate's own".to_owned());
        }
        // Without it neither a link's addresses nor a policy that reads them could be held.
        let ip = text(&context, "ip")?.ok_or("`context.ip` is missing: the user's address")?;
        let mfa = match context.get("mfa") {
            None => false,
            Some(Value::Bool(mfa)) => *mfa,
            Some(_) => return Err("`context.mfa` must be true or false".to_owned()),
        };
        let name = text(action, "name")?.ok_or("`action.name` is missing")?;
        let permission = Permission::parse(&name).ok_or_else(|| format!("`action.name`: `{name}` is no permission"))?;
        let method = match text(&self::properties(action, "action")?, "method")? {
            Some(method) => {
                let method = Method::from_bytes(method.as_bytes()).ok().filter(intake::is_method);
                method.ok_or("`action.properties.method` is none: methods are spelled in upper-case letters")?
            }
            None if permission.kind() == crate::domain::permission::Kind::Read => Method::GET,
            None => Method::POST,
        };
        let tenant = text(resource, "id")?.ok_or("`resource.id` is missing")?;
        Ok(Self {
            issuer,
            user: Attested {
                sub: text(subject, "id")?.filter(|id| !id.is_empty()).ok_or("`subject.id` is missing")?,
                username: text(&properties, "username")?,
                session_id: text(&properties, "session_id")?,
                jti: text(&properties, "jti")?,
                roles: names(&properties, "roles")?,
                permissions: names(&properties, "permissions")?,
                mfa,
                home_tenant: None,
            },
            permission,
            method,
            tenant: TenantId::new(&tenant).map_err(|_| "`resource.id` can be no tenant's")?,
            ip: original::ip(ip.as_bytes()).ok_or("`context.ip` is no address")?,
        })
    }

    /// As the stages take it. The record names the caller where it otherwise names the client's program.
    pub(super) fn asked(self, connection: &Peer, caller: &str, headers: &HeaderMap, path: &'static str) -> Asked<'a> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static(path);
        if let Some(value) = headers.get(ids::REQUEST_ID) {
            request.headers_mut().insert(ids::REQUEST_ID, value.clone());
        }
        if let Ok(agent) = HeaderValue::try_from(format!("authzen caller {caller}")) {
            request.headers_mut().insert(HeaderName::from_static("user-agent"), agent);
        }
        let forwarded_for = connection.forwarded_for.clone();
        let peer =
            Peer { ip: self.ip.to_canonical(), forwarded_for, switch: connection.switch.clone(), certificate: None };
        Asked {
            request,
            peer,
            issuer: self.issuer,
            user: self.user,
            permission: self.permission,
            method: self.method,
            tenant: self.tenant,
            // Of the service that asks: it has shown its secret, and no client's fields are here.
            parent: trace_context::read(headers),
        }
    }
}

/// A question that is not taken.
pub(super) fn invalid(message: &str) -> Failure {
    Failure::new(ErrorCode::BadRequest, "evaluation").saying(message)
}

fn of_type(entity: &Map<String, Value>, name: &str, expected: &str) -> Result<(), String> {
    match entity.get("type") {
        Some(Value::String(kind)) if kind == expected => Ok(()),
        _ => Err(format!("`{name}.type` must be `{expected}`")),
    }
}

fn properties(entity: &Map<String, Value>, name: &str) -> Result<Map<String, Value>, String> {
    match entity.get("properties") {
        None => Ok(Map::new()),
        Some(Value::Object(properties)) => Ok(properties.clone()),
        Some(_) => Err(format!("`{name}.properties` must be an object")),
    }
}

fn text(from: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match from.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= MAX_TEXT_CHARS => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{name}` must be a text of at most {MAX_TEXT_CHARS} characters")),
    }
}

fn names(from: &Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`{name}` must be a list of at most {MAX_NAMES} names");
    match from.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= MAX_NAMES => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// The issuer that is named, by its `iss` or its name here; or the only one.
fn issuer<'a>(identity: &'a IdentitySettings, named: Option<&str>) -> Result<&'a IssuerSettings, String> {
    match (named, identity.issuers.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err("`subject.properties.issuer` is missing: there are several".to_owned()),
        (Some(named), all) => {
            let same = |issuer: &&IssuerSettings| issuer.issuer.as_deref().unwrap_or(&issuer.name) == named;
            all.iter().find(same).ok_or_else(|| "`subject.properties.issuer` is no known issuer".to_owned())
        }
    }
}
