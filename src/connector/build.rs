//! From the cells of a row to the row.

use super::{
    cell::Row,
    fields::{
        BreachField, CommentField, InvoiceField, LineItemField, MetricsField, TenantField, TicketField, UptimeField,
        UsageField,
    },
    misfit::Misfit,
    rows::{
        BreachRow, InvoiceRow, InvoiceStatus, LineItem, MetricsRow, Priority, Severity, TenantRow, TicketRow,
        TicketStatus, UptimeDay, UsageRow,
    },
};
use crate::domain::Currency;

/// A comment as the service stored it.
pub(super) type CommentCells = (Option<String>, Option<jiff::Timestamp>);

pub(super) fn tenant(row: &Row<'_, '_>) -> Result<TenantRow, Misfit> {
    use TenantField as F;
    Ok(TenantRow {
        tenant_id: row.need(F::TenantId, row.text(F::TenantId))?,
        name: row.text(F::Name)?,
        slug: row.text(F::Slug)?,
        domain: row.text(F::Domain)?,
        status: row.text(F::Status)?,
        plan_type: row.text(F::PlanType)?,
        billing_cycle: row.text(F::BillingCycle)?,
        email: row.text(F::Email)?,
        phone: row.text(F::Phone)?,
        billing_email: row.text(F::BillingEmail)?,
        address_line1: row.text(F::AddressLine1)?,
        city: row.text(F::City)?,
        state_province: row.text(F::StateProvince)?,
        postal_code: row.text(F::PostalCode)?,
        country: row.text(F::Country)?,
        current_users: row.integer(F::CurrentUsers)?,
        max_users: row.integer(F::MaxUsers)?,
        trial_ends_at: row.time(F::TrialEndsAt)?,
        subscription_starts_at: row.time(F::SubscriptionStartsAt)?,
        subscription_ends_at: row.time(F::SubscriptionEndsAt)?,
        created_at: row.time(F::CreatedAt)?,
        updated_at: row.time(F::UpdatedAt)?,
    })
}

pub(super) fn metrics(row: &Row<'_, '_>) -> Result<MetricsRow, Misfit> {
    use MetricsField as F;
    let currency = row.currency(F::Currency)?;
    Ok(MetricsRow {
        total_subscribers: row.integer(F::TotalSubscribers)?,
        active_subscribers: row.integer(F::ActiveSubscribers)?,
        suspended_subscribers: row.integer(F::SuspendedSubscribers)?,
        current_mrr: row.money(F::CurrentMrr, currency)?,
        currency,
    })
}

pub(super) fn invoice(row: &Row<'_, '_>) -> Result<InvoiceRow, Misfit> {
    use InvoiceField as F;
    let currency = row.need(F::Currency, row.currency(F::Currency))?;
    let money = |field| row.money(field, Some(currency));
    Ok(InvoiceRow {
        invoice_id: row.need(F::InvoiceId, row.text(F::InvoiceId))?,
        invoice_number: row.text(F::InvoiceNumber)?,
        customer_id: row.text(F::CustomerId)?,
        customer_name: row.text(F::CustomerName)?,
        invoice_date: row.need(F::InvoiceDate, row.time(F::InvoiceDate))?,
        due_date: row.time(F::DueDate)?,
        status: row.need(F::Status, row.word(F::Status, InvoiceStatus::parse))?,
        subtotal: money(F::Subtotal)?,
        tax: money(F::Tax)?,
        total: row.need(F::Total, money(F::Total))?,
        paid_amount: row.need(F::PaidAmount, money(F::PaidAmount))?,
        balance: row.need(F::Balance, money(F::Balance))?,
        currency,
        payment_date: row.time(F::PaymentDate)?,
        created_at: row.time(F::CreatedAt)?,
        line_items: Vec::new(),
    })
}

pub(super) fn line_item(row: &Row<'_, '_>, currency: Currency) -> Result<LineItem, Misfit> {
    use LineItemField as F;
    Ok(LineItem {
        description: row.text(F::Description)?,
        quantity: row.number(F::Quantity)?,
        unit_price: row.money(F::UnitPrice, Some(currency))?,
        total_price: row.money(F::TotalPrice, Some(currency))?,
    })
}

pub(super) fn ticket(row: &Row<'_, '_>) -> Result<TicketRow, Misfit> {
    use TicketField as F;
    Ok(TicketRow {
        ticket_id: row.need(F::TicketId, row.text(F::TicketId))?,
        ticket_number: row.text(F::TicketNumber)?,
        customer_id: row.text(F::CustomerId)?,
        customer_name: row.text(F::CustomerName)?,
        subject: row.text(F::Subject)?,
        status: row.need(F::Status, row.word(F::Status, TicketStatus::parse))?,
        priority: row.word(F::Priority, Priority::parse)?,
        category: row.text(F::Category)?,
        assigned_to: row.text(F::AssignedTo)?,
        assigned_to_name: row.text(F::AssignedToName)?,
        created_at: row.time(F::CreatedAt)?,
        updated_at: row.time(F::UpdatedAt)?,
        sla_breach_at: row.time(F::SlaBreachAt)?,
        is_sla_breached: row.flag(F::IsSlaBreached)?,
        last_response_at: row.time(F::LastResponseAt)?,
        response_count: row.integer(F::ResponseCount)?,
        resolution_minutes: row.number(F::ResolutionMinutes)?,
    })
}

pub(super) fn comment(row: &Row<'_, '_>) -> Result<CommentCells, Misfit> {
    Ok((row.text(CommentField::CommentId)?, row.time(CommentField::UpdatedAt)?))
}

pub(super) fn usage(row: &Row<'_, '_>) -> Result<UsageRow, Misfit> {
    use UsageField as F;
    Ok(UsageRow {
        subscriber_count: row.integer(F::SubscriberCount)?,
        active_subscriber_count: row.integer(F::ActiveSubscriberCount)?,
        total_data_gb: row.number(F::TotalDataGb)?,
        peak_bandwidth_mbps: row.number(F::PeakBandwidthMbps)?,
        avg_bandwidth_mbps: row.number(F::AvgBandwidthMbps)?,
    })
}

pub(super) fn uptime(row: &Row<'_, '_>) -> Result<UptimeDay, Misfit> {
    use UptimeField as F;
    let percentage = row.need(F::UptimePercentage, row.number(F::UptimePercentage))?;
    if percentage.is_sign_negative() && !percentage.is_zero() || percentage > rust_decimal::Decimal::ONE_HUNDRED {
        return Err(row.misfit(F::UptimePercentage, "expected a percentage from 0 to 100"));
    }
    Ok(UptimeDay {
        date: row.need(F::Date, row.date(F::Date))?,
        uptime_percentage: percentage,
        downtime_minutes: row.number(F::DowntimeMinutes)?,
        breaches: row.integer(F::Breaches)?,
    })
}

pub(super) fn breach(row: &Row<'_, '_>) -> Result<BreachRow, Misfit> {
    use BreachField as F;
    Ok(BreachRow {
        breach_id: row.need(F::BreachId, row.text(F::BreachId))?,
        breach_type: row.text(F::BreachType)?,
        severity: row.need(F::Severity, row.word(F::Severity, Severity::parse))?,
        detected_at: row.need(F::DetectedAt, row.time(F::DetectedAt))?,
        ended_at: row.time(F::EndedAt)?,
        resolved: row.need(F::Resolved, row.flag(F::Resolved))?,
        resolved_at: row.time(F::ResolvedAt)?,
        duration_minutes: row.number(F::DurationMinutes)?,
        target_value: row.number(F::TargetValue)?,
        actual_value: row.number(F::ActualValue)?,
    })
}
