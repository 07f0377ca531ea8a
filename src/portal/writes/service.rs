//! What writing needs of the services: the few calls about tickets, so that they can be scripted in tests.

use std::future::Future;

use tokio::time::Instant;

use crate::{
    connector::rows::TicketRow,
    portal::sources::{Comment, NewTicket, Site, SourceError, Sources, StoredComment, TicketChange, WriteError},
};

pub(super) trait TicketService: Send + Sync {
    fn ticket(
        &self,
        site: &Site,
        id: &str,
        until: Instant,
    ) -> impl Future<Output = Result<Option<TicketRow>, SourceError>> + Send;

    fn create_ticket(
        &self,
        site: &Site,
        ticket: &NewTicket,
        until: Instant,
    ) -> impl Future<Output = Result<TicketRow, WriteError>> + Send;

    fn update_ticket(
        &self,
        site: &Site,
        id: &str,
        change: &TicketChange,
        until: Instant,
    ) -> impl Future<Output = Result<TicketRow, WriteError>> + Send;

    fn comment(
        &self,
        site: &Site,
        id: &str,
        comment: &Comment,
        until: Instant,
    ) -> impl Future<Output = Result<StoredComment, WriteError>> + Send;
}

impl TicketService for Sources {
    async fn ticket(&self, site: &Site, id: &str, until: Instant) -> Result<Option<TicketRow>, SourceError> {
        self.ticket(site, id, until).await
    }

    async fn create_ticket(&self, site: &Site, ticket: &NewTicket, until: Instant) -> Result<TicketRow, WriteError> {
        self.create_ticket(site, ticket, until).await
    }

    async fn update_ticket(
        &self,
        site: &Site,
        id: &str,
        change: &TicketChange,
        until: Instant,
    ) -> Result<TicketRow, WriteError> {
        self.update_ticket(site, id, change, until).await
    }

    async fn comment(
        &self,
        site: &Site,
        id: &str,
        comment: &Comment,
        until: Instant,
    ) -> Result<StoredComment, WriteError> {
        self.comment(site, id, comment, until).await
    }
}
