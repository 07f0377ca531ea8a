//! The tokens of the demo's users, and more of the kind for requests that are to fail.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::world::{AUDIENCE, ISSUER, User, World};
use crate::{
    cli::outcome::Failure,
    domain::Millis,
    identity::mint::{DevKey, mint},
};

/// Longer than any run.
const TOKEN_SECONDS: i64 = 30 * 86_400;

/// The users' tokens, and more of the kind for requests that are to fail.
pub(super) struct Tokens<'a> {
    world: &'a World,
    key: &'a DevKey,
    now: i64,
    /// Those as they are, by the user's name.
    pub(super) by_name: BTreeMap<&'static str, String>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(world: &'a World, key: &'a DevKey) -> Result<Self, Failure> {
        let now = Millis::now().0.div_euclid(1000);
        let mut tokens = Self { world, key, now, by_name: BTreeMap::new() };
        for user in &world.users {
            let token = tokens.mint(user, Map::new())?;
            tokens.by_name.insert(user.name, token);
        }
        Ok(tokens)
    }

    pub(super) fn of(&self, name: &str) -> Result<&str, Failure> {
        let token = self.by_name.get(name).map(String::as_str);
        token.ok_or_else(|| Failure::failed(format!("the demo has no user `{name}`")))
    }

    /// A token of this user, some claims changed.
    pub(super) fn mint(&self, user: &User, changes: Map<String, Value>) -> Result<String, Failure> {
        let partner = user.partner.and_then(|at| self.world.partners.get(at));
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": user.sub, "type": "access", "username": user.name,
            "email": format!("{}@example.net", user.name), "tenant_id": user.home, "roles": user.roles,
            "permissions": user.permissions, "session_id": format!("session-{}", user.name),
            "jti": uuid::Uuid::now_v7(), "iat": self.now, "exp": self.now + TOKEN_SECONDS,
        });
        let mut claims = claims.as_object().cloned().unwrap_or_default();
        if let Some(partner) = partner {
            claims.insert("partner_id".into(), json!(partner.id));
        }
        claims.extend(changes);
        mint(self.key, &claims).map_err(Failure::failed)
    }
}
