//! Events of what the gateway did at a service: there is no transaction to commit them with, so they follow the act.

use std::time::Duration;

use super::Granted;
use crate::{
    connector::rows::TicketRow,
    domain::{About, EventType, Millis},
    store::{
        Database, StoreError,
        events::{NewEvent, queue_event},
    },
};

/// How often an event is brought to the database before it is given up.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// Tells the partner's webhooks of a ticket that a service has just opened for it. Call it in a task that goes on when
/// the client leaves. The ticket stands whatever becomes of the event; one that is lost is logged.
pub async fn ticket_created(database: &Database, granted: &Granted, ticket: &TicketRow, user_id: &str) {
    for attempt in 1..=TRIES {
        let queued = match event(granted, ticket, user_id) {
            Ok(event) => queue_event(database, event).await,
            Err(error) => Err(error),
        };
        match queued {
            Ok(_) => return,
            Err(error) if attempt == TRIES => {
                tracing::error!(tenant = %granted.tenant(), ticket = ticket.ticket_id, %error,
                    "a ticket was created, and the event of it is lost");
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Ids and states only: subject and customer stay with the service.
fn event(granted: &Granted, ticket: &TicketRow, user_id: &str) -> Result<NewEvent, StoreError> {
    let link = &granted.link().link;
    let link = (link.partner_id, link.id, &link.tenant_id);
    NewEvent::new(EventType::TicketCreated, About::Tenant, link, Millis::now())
        .with("ticket_id", &ticket.ticket_id)?
        .with("ticket_number", &ticket.ticket_number)?
        .with("status", &ticket.status)?
        .with("priority", &ticket.priority)?
        .with("created_at", &ticket.created_at)?
        .with("created_by", &user_id)
}
