//! A made-up request, to be explained like a recorded one.

use crate::{
    domain::{Case, LinkId},
    ops::{Trouble, plain},
    policy::{Bundle, GateState, WhatIf},
    store::Admin,
};

/// A made-up request to be explained, and what the gate before the policies says of its user.
#[derive(Debug)]
pub struct Asked {
    pub case: Case,
    /// `Unknown` where no user was named.
    pub identity: GateState,
}

impl Asked {
    /// One JSON object as `linkgate decide` reads it.
    pub fn read(bundle: &Bundle, question: &[u8]) -> Result<Self, Trouble> {
        let read = WhatIf::read(bundle, question).map(WhatIf::into_case);
        let case = read.map_err(|error| Trouble::Invalid(format!("the request cannot be decided: {error}")))?;
        Ok(Self { case, identity: GateState::Unknown })
    }

    /// The same through a link as it stands in the database now, by the user with this issuer and `sub`: the very facts
    /// that a request through this link is decided by.
    pub async fn through(mut self, admin: &Admin, id: LinkId, user: Option<(&str, &str)>) -> Result<Self, Trouble> {
        let link = admin.standing(id).await?;
        let partner = link.link.partner_id;
        if let Some((issuer, sub)) = user {
            let row = admin.user_by_subject(issuer, sub).await?;
            if let Some(row) = row.as_ref().filter(|row| row.partner_id != partner) {
                return Err(Trouble::Invalid(format!(
                    "user `{}` works for partner {}, the link is of partner {partner}: no request of theirs goes through it",
                    plain(sub),
                    row.partner_id,
                )));
            }
            // Without a row the token's own claims say who it is.
            let is_active = row.is_none_or(|row| row.is_active);
            self.identity = if is_active { GateState::Open } else { GateState::Closed };
            self.case.user.suspended = admin.is_user_suspended(issuer, sub).await?;
        } else {
            self.case.user.suspended = false;
        }
        self.case.user.partner_id = partner;
        self.case.link = Some(link);
        Ok(self)
    }
}
