//! Facts that are owned: of a made-up request or a recorded one. A decision borrows them as [`Facts`].

use std::{net::IpAddr, sync::Arc};

use super::{Facts, LinkFacts, Millis, Permission, UserFacts};

/// Everything one decision reads; see [`Facts`] for each field.
#[derive(Clone, Debug)]
pub struct Case {
    pub user: UserFacts,
    pub link: Option<LinkFacts>,
    pub permission: Permission,
    pub switch_context: bool,
    pub now: Millis,
    pub ip: IpAddr,
    pub mfa: bool,
    pub method: Arc<str>,
    pub route_class: Arc<str>,
}

impl Case {
    pub fn facts(&self) -> Facts<'_> {
        Facts {
            user: &self.user,
            link: self.link.as_ref(),
            permission: self.permission,
            switch_context: self.switch_context,
            now: self.now,
            ip: self.ip,
            mfa: self.mfa,
            method: &self.method,
            route_class: &self.route_class,
        }
    }
}
