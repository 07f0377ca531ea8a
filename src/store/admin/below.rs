//! The family of a link inside a writing transaction: what is delegated onward from it is raised, and its partners told,
//! with every change of it.
//!
//! A link below is bound by every one above (contract, section 5), so its partner's webhooks hear of what becomes of the
//! chain as a whole: revoked where it was active, active again, waiting for approval. Which link above it was, and whose,
//! is not told: that is another partner's affair.

use std::collections::HashMap;

use super::{Session, link_rows::LinkEvent};
use crate::{
    domain::{
        About, Approval, EventType, LinkId, Millis,
        link_rules::{LinkTerms, MAX_PARENTS},
    },
    store::{
        StoreError,
        events::{NewEvent, queue},
        records::{LINK_COLUMNS, LinkRecord},
        sql::composed,
    },
};

/// How a chain stands as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    active: bool,
    approval: Approval,
    /// The window of one of them has ended.
    ended: bool,
}

impl Standing {
    /// Above everything.
    const TOP: Self = Self { active: true, approval: Approval::Approved, ended: false };

    /// With one link more below.
    fn and(self, terms: &LinkTerms, now: Millis) -> Self {
        let approval = match (self.approval, terms.approval) {
            (Approval::Rejected, _) | (_, Approval::Rejected) => Approval::Rejected,
            (Approval::Pending, _) | (_, Approval::Pending) => Approval::Pending,
            (Approval::Approved, Approval::Approved) => Approval::Approved,
        };
        Self { active: self.active && terms.is_active, approval, ended: self.ended || terms.ended(now) }
    }
}

impl Session<'_> {
    /// Every link delegated onward from this one, with how many levels below it stands.
    pub(super) async fn links_below(&mut self, id: LinkId) -> Result<Vec<(usize, LinkRecord)>, StoreError> {
        // UNION drops repeats, and the bound ends a ring that was written by hand.
        let sql = composed(format!(
            "WITH RECURSIVE below (link_id, level) AS (\
                SELECT id, 1 FROM partner_tenant_links WHERE parent_link_id = $1 \
                UNION \
                SELECT child.id, below.level + 1 FROM partner_tenant_links child \
                JOIN below ON child.parent_link_id = below.link_id WHERE below.level < 8\
             ) SELECT {LINK_COLUMNS}, CAST(level AS BIGINT) AS level FROM below \
             JOIN partner_tenant_links ON id = link_id ORDER BY level, id"
        ));
        let rows = self.tx.rows(sql, &[id.0.into()]).await?;
        rows.iter()
            .map(|row| Ok((usize::try_from(row.int("level")?).unwrap_or(usize::MAX), LinkRecord::read(row)?)))
            .collect()
    }

    /// Raises the version of everything delegated onward from a link that changed from `before` to `after`, but for the
    /// row `except`, which this transaction is about to write itself; and tells the partners below.
    pub(super) async fn raise_below(
        &mut self,
        before: &LinkTerms,
        after: &LinkRecord,
        except: Option<LinkId>,
    ) -> Result<(), StoreError> {
        let below = self.links_below(after.id).await?;
        if below.is_empty() {
            return Ok(());
        }
        let was = self.standing(before.parent_link_id).await?.and(before, self.now);
        let is = self.standing(after.terms.parent_link_id).await?.and(&after.terms, self.now);
        // Those above come first, by the order of the rows.
        let mut chains = HashMap::from([(after.id, (was, is))]);
        for (_, child) in below {
            let Some((was, is)) = child.terms.parent_link_id.and_then(|parent| chains.get(&parent)).copied() else {
                return Err(StoreError::Damaged {
                    table: "partner_tenant_links",
                    what: format!("link `{}` stands below one that is not there", child.id),
                });
            };
            let (was, is) = (was.and(&child.terms, self.now), is.and(&child.terms, self.now));
            // A ring that was written by hand comes by again, and opens nothing.
            chains.entry(child.id).or_insert((was, is));
            if except == Some(child.id) {
                continue;
            }
            let mut raised = child.clone();
            raised.stamps = child.stamps.touched(self.now, &self.actor.name);
            self.store_link(LinkEvent::ParentChanged, Some(&child), &raised).await?;
            self.tell_below(&raised, was, is).await?;
        }
        Ok(())
    }

    /// A link with everything above it.
    async fn standing(&mut self, mut next: Option<LinkId>) -> Result<Standing, StoreError> {
        let mut standing = Standing::TOP;
        // One more than may stand: a ring written by hand ends here too.
        for _ in 0..=MAX_PARENTS {
            let Some(id) = next else { break };
            let link = self.link(id).await?;
            standing = standing.and(&link.terms, self.now);
            next = link.terms.parent_link_id;
        }
        Ok(standing)
    }

    /// As `tell_of_link` tells of a link's own change.
    async fn tell_below(&mut self, link: &LinkRecord, was: Standing, is: Standing) -> Result<(), StoreError> {
        // Over before and after: such as a link of a full role that ended and makes room for another.
        if was.ended && is.ended {
            return Ok(());
        }
        let about = (link.partner_id, link.id, &link.managed_tenant_id);
        if was.active && !is.active {
            let told = NewEvent::new(EventType::LinkRevoked, About::Link, about, self.now);
            queue(&mut self.tx, told.with("revoked_at", &self.now)?).await?;
            return Ok(());
        }
        if was.active != is.active {
            let told = NewEvent::changed_link(about, self.now, "is_active", (&was.active, &is.active))?;
            queue(&mut self.tx, told).await?;
        }
        // Of no interest while the link is closed anyway.
        if is.active && was.approval != is.approval {
            let told = NewEvent::changed_link(about, self.now, "approval", (&was.approval, &is.approval))?;
            queue(&mut self.tx, told).await?;
        }
        Ok(())
    }
}
