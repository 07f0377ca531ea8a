//! Writes: sent once, and never again once they may have been received.

use std::{collections::HashMap, sync::Arc};

use http::StatusCode;
use tokio::time::Instant;

use super::{Comment, NewTicket, Site, Sources, StoredComment, TicketChange, WriteError, table::Route};
use crate::connector::{
    ResourceKind,
    answer::Kind,
    rows::TicketRow,
    template::{Placeholder, Values},
};

impl Sources {
    /// Never sent twice.
    pub async fn create_ticket(
        &self,
        site: &Site,
        ticket: &NewTicket,
        until: Instant,
    ) -> Result<TicketRow, WriteError> {
        let route = self.table.route(site.tenant(), ResourceKind::CreateTicket).map_err(WriteError::NotSent)?;
        let priority = sent_word(&route.resource.send_priority, ticket.priority.as_str());
        let mut values = Values::default()
            .with(Placeholder::Subject, ticket.subject.as_str())
            .with(Placeholder::Description, ticket.description.as_str())
            .with(Placeholder::Priority, priority)
            .with(Placeholder::Category, ticket.category.clone())
            .with(Placeholder::CustomerId, ticket.customer_id.clone())
            .with(Placeholder::NotifyCustomer, ticket.notify_customer)
            .with(Placeholder::PartnerId, ticket.partner_id.as_str())
            .with(Placeholder::UserId, ticket.user_id.as_str());
        if !ticket.tags.is_empty() {
            values.set(Placeholder::Tags, ticket.tags.clone());
        }
        self.write(site, route, values, until).await
    }

    /// Never sent twice. What the service has no place for is refused before anything is sent.
    pub async fn update_ticket(
        &self,
        site: &Site,
        id: &str,
        change: &TicketChange,
        until: Instant,
    ) -> Result<TicketRow, WriteError> {
        let route = self.table.route(site.tenant(), ResourceKind::UpdateTicket).map_err(WriteError::NotSent)?;
        let status = change.status.map(|word| sent_word(&route.resource.send_status, word.as_str()));
        let priority = change.priority.map(|word| sent_word(&route.resource.send_priority, word.as_str()));
        let values = Values::default()
            .with(Placeholder::Id, id)
            .with(Placeholder::Status, status)
            .with(Placeholder::Priority, priority)
            .with(Placeholder::AssignedTo, change.assigned_to.clone());
        self.write(site, route, values, until).await
    }

    /// Never sent twice. An internal comment is refused where the service would show it to the customer.
    pub async fn comment(
        &self,
        site: &Site,
        id: &str,
        comment: &Comment,
        until: Instant,
    ) -> Result<StoredComment, WriteError> {
        let route = self.table.route(site.tenant(), ResourceKind::Comment).map_err(WriteError::NotSent)?;
        let knows_internal = route.resource.body.as_ref().is_some_and(|body| body.names(Placeholder::IsInternal));
        let mut values = Values::default()
            .with(Placeholder::Id, id)
            .with(Placeholder::Content, comment.content.as_str())
            .with(Placeholder::NotifyCustomer, comment.notify_customer);
        if knows_internal || comment.is_internal {
            values.set(Placeholder::IsInternal, comment.is_internal);
        }
        let (comment_id, updated_at) = self.write(site, route, values, until).await?;
        Ok(StoredComment { comment_id, updated_at })
    }

    async fn write<R: Kind + Send>(
        &self,
        site: &Site,
        route: &Arc<Route>,
        values: Values,
        until: Instant,
    ) -> Result<R, WriteError> {
        placed(site, route, &values)?;
        let values = values.with(Placeholder::TenantId, site.tenant().as_str());
        // An id that cannot stand in a path names nothing.
        let outgoing = route.resource.request(&values).map_err(|_| WriteError::NotFound)?;
        let sent = self.client.exchange(site, route, &route.upstream, &outgoing, until).await;
        let answer = sent.map_err(|unsaid| {
            if unsaid.maybe_received { WriteError::Unknown(unsaid.error) } else { WriteError::NotSent(unsaid.error) }
        })?;
        match answer.status {
            StatusCode::NOT_FOUND if route.resource.kind.has_id() => return Err(WriteError::NotFound),
            status if status.is_client_error() || status.is_redirection() => {
                return Err(WriteError::Refused(status.as_u16()));
            }
            _ => {}
        }
        // Behind a good status an answer that cannot be read does not undo what was done.
        let body = answer.good(site, route).map_err(WriteError::Unknown)?;
        let read = route.resource.read_one(&body, site.tenant());
        read.map(|(row, _)| row).map_err(|misfit| WriteError::Unknown(route.wrong(site.tenant(), misfit)))
    }
}

fn sent_word(words: &HashMap<String, String>, ours: &str) -> String {
    words.get(ours).map_or_else(|| ours.to_owned(), Clone::clone)
}

/// What the caller gave must have a place, or it would be lost silently.
fn placed(site: &Site, route: &Route, values: &Values) -> Result<(), WriteError> {
    let named = |place: Placeholder| {
        route.resource.path.places().any(|known| known == place)
            || route.resource.body.as_ref().is_some_and(|body| body.names(place))
    };
    // Who asked is for the service's history, and how it tells its customers is its own affair.
    let free = [Placeholder::PartnerId, Placeholder::UserId, Placeholder::NotifyCustomer];
    match values.names().find(|place| !free.contains(place) && !named(*place)) {
        None => Ok(()),
        Some(place) => {
            let problem = format!("the service has no place for `{}`", place.as_str());
            Err(WriteError::NotSent(route.wrong(site.tenant(), problem)))
        }
    }
}
