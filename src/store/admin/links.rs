//! Granting, changing and revoking links. The rules are `domain::link_rules`; this file gives them what they look at
//! and finds the conflicts with other rows.

use super::{Actor, Admin, Session, Written, link_rows::LinkEvent, parties::expect_version, unchanged};
use crate::{
    domain::{
        Approval, LinkId, PartnerId, SignOff, TenantId,
        link_rules::{self, FieldError, LinkInput, LinkTerms, Refusal, Surroundings},
        sign_off::{Standing, Step},
    },
    store::{
        StoreError,
        error::FULL_ROLE_TAKEN,
        records::{LINK_COLUMNS, LinkRecord, Stamps},
        sql::composed,
    },
};
use uuid::Uuid;

impl Admin {
    /// Grants a link. A pair that had one which was revoked or has ended gets the same row again, with these terms.
    pub async fn create_link(&self, actor: &Actor, input: &LinkInput) -> Result<Written<LinkRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let record = session.grant(input).await?;
        session.commit(record).await
    }

    /// Changes the given fields of a link; `expected` refuses if someone else changed it meanwhile.
    pub async fn update_link(
        &self,
        actor: &Actor,
        id: LinkId,
        expected: Option<i64>,
        input: &LinkInput,
    ) -> Result<Written<LinkRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let before = session.link(id).await?;
        expect_version(expected, before.stamps.version)?;
        refuse_other_pair(&before, input)?;
        let terms = input.terms_over(before.terms.clone())?;
        let Some(after) = session.change(&before, terms, input.approval.is_some()).await? else {
            return Ok(unchanged(before));
        };
        session.commit(after).await
    }

    /// Revokes a link: `is_active` becomes false, nothing else. A link that is not active is left as it is.
    pub async fn revoke_link(
        &self,
        actor: &Actor,
        id: LinkId,
        expected: Option<i64>,
    ) -> Result<Written<LinkRecord>, StoreError> {
        let mut session = self.session(actor).await?;
        let before = session.link(id).await?;
        expect_version(expected, before.stamps.version)?;
        if !before.terms.is_active {
            return Ok(unchanged(before));
        }
        let after = session.deactivate(&before, LinkEvent::Revoked, None).await?;
        session.commit(after).await
    }

    /// Revokes every active link of a partner, in one transaction, and tells which ones.
    pub async fn revoke_all(&self, actor: &Actor, partner: PartnerId) -> Result<Written<Vec<LinkRecord>>, StoreError> {
        let mut session = self.session(actor).await?;
        session.partner(partner).await?;
        let sql = composed(format!(
            "SELECT {LINK_COLUMNS} FROM partner_tenant_links WHERE partner_id = $1 AND is_active ORDER BY id"
        ));
        let rows = session.tx.rows(sql, &[partner.0.into()]).await?;
        if rows.is_empty() {
            return Ok(unchanged(Vec::new()));
        }
        let mut revoked = Vec::with_capacity(rows.len());
        for row in &rows {
            let before = LinkRecord::read(row)?;
            revoked.push(session.deactivate(&before, LinkEvent::Revoked, None).await?);
        }
        session.commit(revoked).await
    }
}

fn refuse_other_pair(before: &LinkRecord, input: &LinkInput) -> Result<(), Refusal> {
    let differs = [
        ("partner_id", input.partner_id.as_ref().is_some_and(|id| *id != before.partner_id.to_string())),
        (
            "managed_tenant_id",
            input.managed_tenant_id.as_ref().is_some_and(|id| id != before.managed_tenant_id.as_str()),
        ),
    ];
    let fields: Vec<FieldError> = differs
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(field, _)| FieldError { field: field.to_owned(), message: "is fixed: grant another link".to_owned() })
        .collect();
    if fields.is_empty() { Ok(()) } else { Err(Refusal::fields("link", fields)) }
}

/// The pair that a new link is about.
fn pair(input: &LinkInput) -> Result<(PartnerId, TenantId), Refusal> {
    let mut fields = Vec::new();
    let mut fault = |field: &str, message: String| fields.push(FieldError { field: field.to_owned(), message });
    let partner = match input.partner_id.as_deref().map(|text| text.trim().parse::<PartnerId>()) {
        Some(Ok(id)) => Some(id),
        Some(Err(_)) => {
            fault("partner_id", "is not a uuid".to_owned());
            None
        }
        None => {
            fault("partner_id", "is required".to_owned());
            None
        }
    };
    let tenant = match input.managed_tenant_id.as_deref().map(TenantId::new) {
        Some(Ok(id)) => Some(id),
        Some(Err(error)) => {
            fault("managed_tenant_id", error.to_string());
            None
        }
        None => {
            fault("managed_tenant_id", "is required".to_owned());
            None
        }
    };
    match (partner, tenant) {
        (Some(partner), Some(tenant)) => Ok((partner, tenant)),
        _ => Err(Refusal::fields("link", fields)),
    }
}

impl Session<'_> {
    pub(super) async fn grant(&mut self, input: &LinkInput) -> Result<LinkRecord, StoreError> {
        let (partner_id, tenant_id) = pair(input)?;
        let mut terms = input.new_terms(self.now)?;
        let partner = self.partner(partner_id).await?;
        self.tenant(&tenant_id).await?;
        let before = self.link_of_pair(partner_id, &tenant_id).await?;
        if let Some(standing) = &before
            && standing.terms.is_active
            && !standing.terms.ended(self.now)
        {
            let message = format!("the partner already has link `{}` to this tenant: update that one", standing.id);
            return Err(Refusal::conflict(message).into());
        }
        let id = before.as_ref().map(|standing| standing.id);
        self.judge(&terms, id, partner_id, &partner.home_tenant_id, &tenant_id).await?;
        let asked = input.approval.as_ref().map(|_| terms.approval);
        terms.approval = self.approval_after(None, &terms, asked)?;
        let sign_off = self.signed(None, true, terms.approval)?;
        self.clear_full_role(&terms, &tenant_id, id).await?;
        let (event, stamps) = match &before {
            Some(standing) => (LinkEvent::Reactivated, standing.stamps.touched(self.now, &self.actor.name)),
            None => (LinkEvent::Created, Stamps::new(self.now, &self.actor.name)),
        };
        let after = LinkRecord {
            id: id.unwrap_or_else(|| LinkId(Uuid::now_v7())),
            partner_id,
            managed_tenant_id: tenant_id,
            partner_tenant_id: partner.home_tenant_id,
            terms,
            sign_off,
            stamps,
        };
        self.store_link(event, before.as_ref(), &after).await?;
        if let Some(before) = &before {
            self.raise_below(&before.terms, &after, None).await?;
        }
        Ok(after)
    }

    /// Judges and writes new terms over a row; `None` where they are the old ones.
    async fn change(
        &mut self,
        before: &LinkRecord,
        mut terms: LinkTerms,
        approval_given: bool,
    ) -> Result<Option<LinkRecord>, StoreError> {
        if terms == before.terms {
            return Ok(None);
        }
        let tenant = &before.managed_tenant_id;
        self.judge(&terms, Some(before.id), before.partner_id, &before.partner_tenant_id, tenant).await?;
        let asked = approval_given.then_some(terms.approval);
        terms.approval = self.approval_after(Some(&before.terms), &terms, asked)?;
        let wider = link_rules::widens(&before.terms, &terms, &self.admin.roles);
        let sign_off = self.signed(Some(before), wider, terms.approval)?;
        self.clear_full_role(&terms, tenant, Some(before.id)).await?;
        let event = match (before.terms.is_active, terms.is_active) {
            (false, true) => LinkEvent::Reactivated,
            (true, false) => LinkEvent::Revoked,
            _ => LinkEvent::Updated,
        };
        let stamps = before.stamps.touched(self.now, &self.actor.name);
        let after = LinkRecord { terms, sign_off, stamps, ..before.clone() };
        self.store_link(event, Some(before), &after).await?;
        self.raise_below(&before.terms, &after, None).await?;
        Ok(Some(after))
    }

    fn approval_after(
        &self,
        before: Option<&LinkTerms>,
        after: &LinkTerms,
        asked: Option<Approval>,
    ) -> Result<Approval, Refusal> {
        link_rules::approval_after(before, after, asked, &self.admin.roles, self.admin.approvals.required)
    }

    /// Who let the terms in, and whose they are; refuses where four eyes are asked for and two are the same person's.
    fn signed(&self, before: Option<&LinkRecord>, wider: bool, approval: Approval) -> Result<SignOff, Refusal> {
        let before = before.map(|link| Standing {
            sign_off: &link.sign_off,
            approval: link.terms.approval,
            writers: [&link.stamps.created_by, &link.stamps.updated_by],
        });
        let names = self.actor.names();
        Step { before, wider, approval, names: &names, now: self.now }.signed(self.admin.approvals)
    }

    pub(super) async fn deactivate(
        &mut self,
        before: &LinkRecord,
        event: LinkEvent,
        except: Option<LinkId>,
    ) -> Result<LinkRecord, StoreError> {
        let mut after = before.clone();
        after.terms.is_active = false;
        after.stamps = before.stamps.touched(self.now, &self.actor.name);
        self.store_link(event, Some(before), &after).await?;
        self.raise_below(&before.terms, &after, except).await?;
        Ok(after)
    }

    async fn judge(
        &mut self,
        terms: &LinkTerms,
        link_id: Option<LinkId>,
        partner_id: PartnerId,
        partner_home: &TenantId,
        tenant_id: &TenantId,
    ) -> Result<(), StoreError> {
        let parent = match terms.parent_link_id {
            Some(id) => self.parent_view(id).await?,
            None => None,
        };
        let levels_below = match link_id {
            Some(id) => self.links_below(id).await?.iter().map(|(level, _)| *level).max().unwrap_or_default(),
            None => 0,
        };
        let around = Surroundings {
            roles: &self.admin.roles,
            link_id,
            partner_id,
            partner_home,
            tenant_id,
            parent: parent.as_ref(),
            levels_below,
        };
        Ok(link_rules::judge(terms, &around)?)
    }

    /// Makes room for an active link of a full role: one that has ended is deactivated, one that has not refuses.
    async fn clear_full_role(
        &mut self,
        terms: &LinkTerms,
        tenant: &TenantId,
        own: Option<LinkId>,
    ) -> Result<(), StoreError> {
        if !terms.is_active || !terms.access_role.is_full() {
            return Ok(());
        }
        let sql = composed(format!(
            "SELECT {LINK_COLUMNS} FROM partner_tenant_links WHERE managed_tenant_id = $1 AND is_active \
             AND access_role IN ('msp_full', 'enterprise_hq')"
        ));
        for row in self.tx.rows(sql, &[tenant.as_str().into()]).await? {
            let standing = LinkRecord::read(&row)?;
            if own == Some(standing.id) {
                continue;
            }
            if !standing.terms.ended(self.now) {
                return Err(Refusal::conflict(format!("{FULL_ROLE_TAKEN} (link `{}`)", standing.id)).into());
            }
            self.deactivate(&standing, LinkEvent::Superseded, own).await?;
        }
        Ok(())
    }
}
