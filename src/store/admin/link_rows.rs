//! Rows of links inside a writing transaction: read, write with history and audit, and the parents above. What stands
//! below is `below`'s.

use std::sync::LazyLock;

use crate::{
    audit::{ChangeRecord, Kind},
    domain::{
        About, Approval, EventType, LinkId, PartnerId, PermissionSet, TenantId,
        link_rules::{MAX_PARENTS, ParentView},
    },
    store::{
        StoreError,
        events::{NewEvent, queue},
        records::{LINK_COLUMNS, LinkJson, LinkRecord, link_values},
        sql::{Value, composed},
    },
};

use super::{Session, Touch};

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let marks: Vec<String> = (1..=LINK_COLUMNS.split(',').count()).map(|n| format!("${n}")).collect();
    format!("INSERT INTO partner_tenant_links ({LINK_COLUMNS}) VALUES ({})", marks.join(", "))
});

/// The id is `$1`; the version that the row must still have comes last.
static UPDATE: LazyLock<String> = LazyLock::new(|| {
    let columns: Vec<&str> = LINK_COLUMNS.split(',').map(str::trim).collect();
    let sets: Vec<String> =
        columns.iter().enumerate().skip(1).map(|(at, column)| format!("{column} = ${}", at + 1)).collect();
    format!("UPDATE partner_tenant_links SET {} WHERE id = $1 AND version = ${}", sets.join(", "), columns.len() + 1)
});

/// What happened to a link, as its history names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEvent {
    Created,
    Updated,
    /// Granted again, or switched on again.
    Reactivated,
    Revoked,
    /// It had ended, and another link of a full role took its place.
    Superseded,
    /// A link above it changed.
    ParentChanged,
}

impl LinkEvent {
    fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Reactivated => "reactivated",
            Self::Revoked => "revoked",
            Self::Superseded => "superseded",
            Self::ParentChanged => "parent_changed",
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Created => "link.create",
            Self::Updated | Self::ParentChanged => "link.update",
            Self::Reactivated => "link.reactivate",
            Self::Revoked => "link.revoke",
            Self::Superseded => "link.supersede",
        }
    }
}

impl Session<'_> {
    pub(super) async fn link(&mut self, id: LinkId) -> Result<LinkRecord, StoreError> {
        let sql = composed(format!("SELECT {LINK_COLUMNS} FROM partner_tenant_links WHERE id = $1"));
        match self.tx.row(sql, &[id.0.into()]).await? {
            Some(row) => LinkRecord::read(&row),
            None => Err(StoreError::not_found("link", id)),
        }
    }

    pub(super) async fn link_of_pair(
        &mut self,
        partner: PartnerId,
        tenant: &TenantId,
    ) -> Result<Option<LinkRecord>, StoreError> {
        let sql = composed(format!(
            "SELECT {LINK_COLUMNS} FROM partner_tenant_links WHERE partner_id = $1 AND managed_tenant_id = $2"
        ));
        let row = self.tx.row(sql, &[partner.0.into(), tenant.as_str().into()]).await?;
        row.as_ref().map(LinkRecord::read).transpose()
    }

    /// Writes a row with its history, its audit record and what it touches. `before` is `None` for a new row.
    pub(super) async fn store_link(
        &mut self,
        event: LinkEvent,
        before: Option<&LinkRecord>,
        after: &LinkRecord,
    ) -> Result<(), StoreError> {
        let json = LinkJson::of(after);
        let mut values = vec![Value::Id(after.id.0)];
        values.extend(link_values(after, &json));
        match before {
            None => {
                self.tx.execute(composed(INSERT.as_str()), &values).await?;
            }
            Some(before) => {
                values.push(Value::Int(before.stamps.version));
                if self.tx.execute(composed(UPDATE.as_str()), &values).await? != 1 {
                    return Err(StoreError::not_found("link", after.id));
                }
            }
        }
        let states = (before.map(LinkRecord::json), after.json());
        self.tx
            .execute(
                "INSERT INTO link_history (link_id, version, seq, change, changed_at, changed_by, before_state, \
                 after_state) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                &[
                    after.id.0.into(),
                    after.stamps.version.into(),
                    self.seq.into(),
                    event.as_str().into(),
                    self.now.0.into(),
                    self.actor.name.as_str().into(),
                    Value::MaybeJson(states.0.as_ref()),
                    Value::Json(&states.1),
                ],
            )
            .await?;
        self.touch(Touch::Partner(after.partner_id));
        self.tell_of_link(event, before, after).await?;
        // The parent's own record tells of the change; the child's history tells which one it was.
        if event == LinkEvent::ParentChanged {
            return Ok(());
        }
        let action = match (event, before.is_some_and(|before| before.terms.approval != after.terms.approval)) {
            (LinkEvent::Updated, true) => match after.terms.approval {
                Approval::Approved => "link.approve",
                Approval::Rejected => "link.reject",
                Approval::Pending => event.action(),
            },
            _ => event.action(),
        };
        let record = ChangeRecord {
            partner_id: Some(after.partner_id),
            partner_tenant_id: Some(after.partner_tenant_id.to_string()),
            resource_type: Some("link".to_owned()),
            resource_id: Some(after.id.to_string()),
            managed_tenant_id: Some(after.managed_tenant_id.to_string()),
            link_id: Some(after.id),
            link_version: Some(after.version()),
            before: states.0,
            after: Some(states.1),
            ..self.record(Kind::Link, action)
        };
        self.enqueue(&record).await
    }

    /// What the partner's webhooks hear of a change of one of its links; committed with it.
    async fn tell_of_link(
        &mut self,
        event: LinkEvent,
        before: Option<&LinkRecord>,
        after: &LinkRecord,
    ) -> Result<(), StoreError> {
        let Some(before) = before else { return Ok(()) };
        let link = (after.partner_id, after.id, &after.managed_tenant_id);
        if event == LinkEvent::Revoked {
            let told = NewEvent::new(EventType::LinkRevoked, About::Link, link, self.now);
            queue(&mut self.tx, told.with("revoked_at", &self.now)?).await?;
            return Ok(());
        }
        let (old, new) = (&before.terms, &after.terms);
        let mut events = Vec::new();
        if event == LinkEvent::Reactivated && old.is_active != new.is_active {
            let states = (&old.is_active, &new.is_active);
            events.push(NewEvent::changed_link(link, self.now, "is_active", states)?);
        }
        if old.approval != new.approval {
            events.push(NewEvent::changed_link(link, self.now, "approval", (&old.approval, &new.approval))?);
        }
        for event in events {
            queue(&mut self.tx, event).await?;
        }
        Ok(())
    }

    /// The parent that a link names, with what it may hand on; `None` where there is no such link.
    pub(super) async fn parent_view(&mut self, parent: LinkId) -> Result<Option<ParentView>, StoreError> {
        let mut chain = Vec::new();
        let mut effective = PermissionSet::ALL;
        let mut origin: Option<(PartnerId, TenantId)> = None;
        let mut next = Some(parent);
        // One more than may stand: the rules then say that it is too deep. A ring written by hand ends here too.
        while let Some(id) = next
            && chain.len() <= MAX_PARENTS + 1
        {
            let link = match self.link(id).await {
                Ok(link) => link,
                Err(StoreError::NotFound { .. }) if chain.is_empty() => return Ok(None),
                Err(error) => return Err(error),
            };
            effective = effective.intersection(link.terms.effective(&self.admin.roles));
            origin.get_or_insert((link.partner_id, link.managed_tenant_id.clone()));
            chain.push(id);
            next = link.terms.parent_link_id;
        }
        Ok(origin.map(|(partner_id, tenant_id)| ParentView { partner_id, tenant_id, chain, effective }))
    }
}
