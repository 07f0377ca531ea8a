//! From an answer's bytes to typed rows, or to the pointer at which it does not fit.

use serde_json::value::RawValue;

use super::{
    build::{self, CommentCells},
    cell::{Row, is_nothing},
    fields::TicketField,
    misfit::Misfit,
    pointer::Pointer,
    projection::{Slots, Stop},
    rows::{BreachRow, InvoiceRow, MetricsRow, TenantRow, TicketRow, UptimeDay, UsageRow},
    settings::{LinePlan, Resource, Witness},
};
use crate::domain::TenantId;

/// What a page says beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub rows: u64,
    /// Whether there are further pages, where the service says so.
    pub more: Option<bool>,
    /// Rows on all pages, where that can be trusted.
    pub total: Option<u64>,
    /// Rules of [`super::settings::ResourceDraft::failed_when`] whose own pointers hold, by position.
    pub suspicious: Vec<usize>,
}

/// The kinds of rows, each with its builder.
pub trait Kind: Sized {
    /// What tells a row from another; `None`: rows of this kind have no pages.
    fn id(&self) -> Option<&str> {
        None
    }

    #[doc(hidden)]
    fn build(row: &Cells<'_, '_>) -> Result<Self, Misfit>;
}

/// The cells of one row, for [`Kind`].
pub struct Cells<'r, 'de> {
    row: Row<'r, 'de>,
    lines: Option<&'r LinePlan>,
}

impl std::fmt::Debug for Cells<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cells").finish_non_exhaustive()
    }
}

macro_rules! kinds {
    ($($type:ty = $build:path $(, $id:ident)?;)+) => {$(
        impl Kind for $type {
            $(fn id(&self) -> Option<&str> {
                Some(&self.$id)
            })?
            fn build(cells: &Cells<'_, '_>) -> Result<Self, Misfit> {
                $build(&cells.row)
            }
        }
    )+};
}

kinds! {
    TenantRow = build::tenant;
    MetricsRow = build::metrics;
    TicketRow = build::ticket, ticket_id;
    CommentCells = build::comment;
    UsageRow = build::usage;
    UptimeDay = build::uptime;
    BreachRow = build::breach, breach_id;
}

impl Kind for InvoiceRow {
    fn id(&self) -> Option<&str> {
        Some(&self.invoice_id)
    }

    fn build(cells: &Cells<'_, '_>) -> Result<Self, Misfit> {
        let mut invoice = build::invoice(&cells.row)?;
        let Some(lines) = cells.lines else { return Ok(invoice) };
        let Some(list) = cells.row.slots.get(lines.slot).copied().flatten() else {
            return Err(Misfit::new(&lines.pointer, "there is nothing"));
        };
        let items: Vec<&RawValue> =
            serde_json::from_str(list.get()).map_err(|_| Misfit::new(&lines.pointer, "expected a list"))?;
        let mut slots = Slots::new();
        for (at, item) in (0_u64..).zip(items) {
            let wrong = |misfit: Misfit| misfit.of_row(&lines.pointer, at);
            lines.row.read_value(item.get(), &mut slots).map_err(|_| wrong(Misfit::no_json()))?;
            let row = Row { fields: &lines.fields, slots: &slots, unit: cells.row.unit };
            invoice.line_items.push(build::line_item(&row, invoice.currency).map_err(wrong)?);
        }
        Ok(invoice)
    }
}

impl Resource {
    /// Reads a page and hands out its rows one by one. On an error the rows handed out before count for nothing.
    ///
    /// `lines`: invoices with their lines.
    pub fn read_page<R: Kind>(
        &self,
        body: &[u8],
        tenant: &TenantId,
        lines: bool,
        each: &mut dyn FnMut(R),
    ) -> Result<Page, Misfit> {
        let text = std::str::from_utf8(body).map_err(|_| Misfit::no_json())?;
        let (mut slots, mut cells) = (Slots::new(), Slots::new());
        let mut count = 0_u64;
        let mut misfit = None;
        let found = self.plan.document.read(text, &mut slots, &mut |raw| {
            let row = self.row::<R>(raw, &mut cells, tenant, lines).map_err(|wrong| {
                misfit = Some(wrong.of_row(&self.rows, count));
                Stop
            })?;
            count += 1;
            each(row);
            Ok(())
        });
        if let Some(misfit) = misfit {
            return Err(misfit);
        }
        if !found.map_err(|_| Misfit::no_json())? {
            return Err(Misfit::new(&self.rows, "expected a list"));
        }
        let at = |slot: Option<usize>| slot.and_then(|slot| slots.get(slot).copied().flatten()).map(RawValue::get);
        let more = match (&self.more, at(self.plan.more)) {
            (None, _) => None,
            (Some(_), Some("true")) => Some(true),
            (Some(_), Some("false")) => Some(false),
            (Some(pointer), _) => return Err(Misfit::new(pointer, "expected true or false")),
        };
        let total = match (&self.total, at(self.plan.total)) {
            (None, _) => None,
            (Some(pointer), text) => {
                let number = text.and_then(|text| text.parse().ok());
                Some(number.ok_or_else(|| Misfit::new(pointer, "expected a count"))?)
            }
        };
        Ok(Page { rows: count, more, total, suspicious: self.suspicious(&slots, count) })
    }

    /// The rules that hold for an answer, without its rows being read.
    pub fn judge(&self, body: &[u8]) -> Result<Vec<usize>, Misfit> {
        let text = std::str::from_utf8(body).map_err(|_| Misfit::no_json())?;
        let (mut slots, mut count) = (Slots::new(), 0);
        let read = self.plan.document.read(text, &mut slots, &mut |_| {
            count += 1;
            Ok(())
        });
        read.map_err(|_| Misfit::no_json())?;
        Ok(self.suspicious(&slots, count))
    }

    fn row<'de, R: Kind>(
        &self,
        raw: &'de RawValue,
        cells: &mut Slots<'de>,
        tenant: &TenantId,
        lines: bool,
    ) -> Result<R, Misfit> {
        self.plan.row.read_value(raw.get(), cells).map_err(|_| Misfit::no_json())?;
        self.build(cells, tenant, lines)
    }

    /// Reads an answer that is one row.
    pub fn read_one<R: Kind>(&self, body: &[u8], tenant: &TenantId) -> Result<(R, Vec<usize>), Misfit> {
        let text = std::str::from_utf8(body).map_err(|_| Misfit::no_json())?;
        let mut slots = Slots::new();
        self.plan.document.read_value(text, &mut slots).map_err(|_| Misfit::no_json())?;
        Ok((self.build(&slots, tenant, false)?, self.suspicious(&slots, 0)))
    }

    /// Reads the answer to a question for one ticket; `None` where it is not the ticket of this id.
    ///
    /// Beside its tickets a service has words of its own (`/tickets/stats`), and what it answers to those is no ticket:
    /// it does not tell the id that was asked for. Case does not count, as in a UUID.
    pub fn read_ticket(&self, body: &[u8], tenant: &TenantId, id: &str) -> Result<Option<TicketRow>, Misfit> {
        let text = std::str::from_utf8(body).map_err(|_| Misfit::no_json())?;
        let mut slots = Slots::new();
        self.plan.document.read_value(text, &mut slots).map_err(|_| Misfit::no_json())?;
        let told = Row { fields: &self.plan.fields, slots: &slots, unit: self.unit }.text(TicketField::TicketId);
        if !told.ok().flatten().is_some_and(|told| told.eq_ignore_ascii_case(id)) {
            return Ok(None);
        }
        self.build(&slots, tenant, false).map(Some)
    }

    fn build<R: Kind>(&self, slots: &Slots<'_>, tenant: &TenantId, lines: bool) -> Result<R, Misfit> {
        if let (Some(slot), Some(pointer)) = (self.plan.tenant, &self.tenant) {
            let text = slots.get(slot).copied().flatten().map(RawValue::get);
            let whose: Option<String> = text.and_then(|text| serde_json::from_str(text).ok());
            if whose.as_deref() != Some(tenant.as_str()) {
                return Err(Misfit::new(pointer, "the row is not of the tenant that was asked about"));
            }
        }
        let row = Row { fields: &self.plan.fields, slots, unit: self.unit };
        R::build(&Cells { row, lines: self.plan.line_items.as_ref().filter(|_| lines) })
    }

    fn suspicious(&self, slots: &Slots<'_>, rows: u64) -> Vec<usize> {
        let nothing = |slot: usize| is_nothing(slots.get(slot).copied().flatten());
        let holds = |(zero, nonzero): &(Vec<Option<usize>>, Vec<usize>)| {
            zero.iter().all(|slot| slot.map_or(rows == 0, nothing))
                && (nonzero.is_empty() || nonzero.iter().any(|slot| !nothing(*slot)))
        };
        self.plan.rules.iter().enumerate().filter(|(_, rule)| holds(rule)).map(|(at, _)| at).collect()
    }
}

impl Witness {
    /// The first pointer that leads to something.
    pub fn contradicts(&self, body: &[u8]) -> Result<Option<&Pointer>, Misfit> {
        let text = std::str::from_utf8(body).map_err(|_| Misfit::no_json())?;
        let mut slots = Slots::new();
        self.plan.read_value(text, &mut slots).map_err(|_| Misfit::no_json())?;
        let found = self.slots.iter().zip(&self.nonzero);
        let mut found = found.map(|(slot, pointer)| (slots.get(*slot).copied().flatten(), pointer));
        if let Some((_, pointer)) = found.clone().find(|(raw, _)| raw.is_none()) {
            return Err(Misfit::new(pointer, "there is nothing"));
        }
        Ok(found.find(|(raw, _)| !is_nothing(*raw)).map(|(_, pointer)| pointer))
    }
}
