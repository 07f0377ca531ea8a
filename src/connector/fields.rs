//! What a connector may map: the kinds of data, and the fields of each by name.

use super::rows::{InvoiceStatus, Priority, Severity, TicketStatus, words};

words! {
    /// One kind of data, or one act; a table of a connector each.
    ResourceKind {
        Tenant "tenant", Metrics "metrics", Invoices "invoices", Tickets "tickets", Ticket "ticket",
        CreateTicket "create_ticket", UpdateTicket "update_ticket", Comment "comment", Usage "usage", Uptime "uptime",
        Breaches "breaches",
    }
}

/// How the text of a field is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    Text,
    Integer,
    /// An exact decimal.
    Number,
    /// An exact decimal in the row's currency.
    Money,
    Flag,
    Time,
    Date,
    Currency,
    /// One of these.
    Word(&'static [&'static str]),
}

/// One field of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSpec {
    pub name: &'static str,
    pub kind: FieldKind,
    /// A row without it is none.
    pub required: bool,
}

impl ResourceKind {
    pub fn fields(self) -> &'static [FieldSpec] {
        match self {
            Self::Tenant => TenantField::SPECS,
            Self::Metrics => MetricsField::SPECS,
            Self::Invoices => InvoiceField::SPECS,
            Self::Tickets | Self::Ticket | Self::CreateTicket | Self::UpdateTicket => TicketField::SPECS,
            Self::Comment => CommentField::SPECS,
            Self::Usage => UsageField::SPECS,
            Self::Uptime => UptimeField::SPECS,
            Self::Breaches => BreachField::SPECS,
        }
    }

    /// Answers many rows.
    pub fn is_list(self) -> bool {
        matches!(self, Self::Invoices | Self::Tickets | Self::Uptime | Self::Breaches)
    }

    /// Changes something: sent once, with a body.
    pub fn is_write(self) -> bool {
        matches!(self, Self::CreateTicket | Self::UpdateTicket | Self::Comment)
    }

    /// One object of many, named by `{id}`.
    pub fn has_id(self) -> bool {
        matches!(self, Self::Ticket | Self::UpdateTicket | Self::Comment)
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $set:ident { $($variant:ident $name:literal $kind:expr, $required:literal;)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $set { $($variant),+ }

        impl $set {
            pub const SPECS: &[FieldSpec] =
                &[$(FieldSpec { name: $name, kind: $kind, required: $required }),+];
        }

        impl From<$set> for usize {
            fn from(field: $set) -> Self {
                field as Self
            }
        }
    )+};
}

use FieldKind::{Currency, Date, Flag, Integer, Money, Number, Text, Time, Word};

fields! {
    /// Of a tenant.
    TenantField {
        TenantId "tenant_id" Text, true;
        Name "name" Text, false;
        Slug "slug" Text, false;
        Domain "domain" Text, false;
        Status "status" Text, false;
        PlanType "plan_type" Text, false;
        BillingCycle "billing_cycle" Text, false;
        Email "email" Text, false;
        Phone "phone" Text, false;
        BillingEmail "billing_email" Text, false;
        AddressLine1 "address_line1" Text, false;
        City "city" Text, false;
        StateProvince "state_province" Text, false;
        PostalCode "postal_code" Text, false;
        Country "country" Text, false;
        CurrentUsers "current_users" Integer, false;
        MaxUsers "max_users" Integer, false;
        TrialEndsAt "trial_ends_at" Time, false;
        SubscriptionStartsAt "subscription_starts_at" Time, false;
        SubscriptionEndsAt "subscription_ends_at" Time, false;
        CreatedAt "created_at" Time, false;
        UpdatedAt "updated_at" Time, false;
    }
    /// Of a tenant's figures.
    MetricsField {
        TotalSubscribers "total_subscribers" Integer, false;
        ActiveSubscribers "active_subscribers" Integer, false;
        SuspendedSubscribers "suspended_subscribers" Integer, false;
        CurrentMrr "current_mrr" Money, false;
        Currency "currency" Currency, false;
    }
    /// Of an invoice.
    InvoiceField {
        InvoiceId "invoice_id" Text, true;
        InvoiceNumber "invoice_number" Text, false;
        CustomerId "customer_id" Text, false;
        CustomerName "customer_name" Text, false;
        InvoiceDate "invoice_date" Time, true;
        DueDate "due_date" Time, false;
        Status "status" Word(InvoiceStatus::WORDS), true;
        Subtotal "subtotal" Money, false;
        Tax "tax" Money, false;
        Total "total" Money, true;
        PaidAmount "paid_amount" Money, true;
        Balance "balance" Money, true;
        Currency "currency" Currency, true;
        PaymentDate "payment_date" Time, false;
        CreatedAt "created_at" Time, false;
    }
    /// Of a line of an invoice.
    LineItemField {
        Description "description" Text, false;
        Quantity "quantity" Number, false;
        UnitPrice "unit_price" Money, false;
        TotalPrice "total_price" Money, false;
    }
    /// Of a ticket.
    TicketField {
        TicketId "ticket_id" Text, true;
        TicketNumber "ticket_number" Text, false;
        CustomerId "customer_id" Text, false;
        CustomerName "customer_name" Text, false;
        Subject "subject" Text, false;
        Status "status" Word(TicketStatus::WORDS), true;
        Priority "priority" Word(Priority::WORDS), false;
        Category "category" Text, false;
        AssignedTo "assigned_to" Text, false;
        AssignedToName "assigned_to_name" Text, false;
        CreatedAt "created_at" Time, false;
        UpdatedAt "updated_at" Time, false;
        SlaBreachAt "sla_breach_at" Time, false;
        IsSlaBreached "is_sla_breached" Flag, false;
        LastResponseAt "last_response_at" Time, false;
        ResponseCount "response_count" Integer, false;
        ResolutionMinutes "resolution_minutes" Number, false;
    }
    /// Of a stored comment.
    CommentField {
        CommentId "comment_id" Text, false;
        UpdatedAt "updated_at" Time, false;
    }
    /// Of a tenant's traffic.
    UsageField {
        SubscriberCount "subscriber_count" Integer, false;
        ActiveSubscriberCount "active_subscriber_count" Integer, false;
        TotalDataGb "total_data_gb" Number, false;
        PeakBandwidthMbps "peak_bandwidth_mbps" Number, false;
        AvgBandwidthMbps "avg_bandwidth_mbps" Number, false;
    }
    /// Of one day's availability.
    UptimeField {
        Date "date" Date, true;
        UptimePercentage "uptime_percentage" Number, true;
        DowntimeMinutes "downtime_minutes" Number, false;
        Breaches "breaches" Integer, false;
    }
    /// Of a breach of the service level.
    BreachField {
        BreachId "breach_id" Text, true;
        BreachType "breach_type" Text, false;
        Severity "severity" Word(Severity::WORDS), true;
        DetectedAt "detected_at" Time, true;
        EndedAt "ended_at" Time, false;
        Resolved "resolved" Flag, true;
        ResolvedAt "resolved_at" Time, false;
        DurationMinutes "duration_minutes" Number, false;
        TargetValue "target_value" Number, false;
        ActualValue "actual_value" Number, false;
    }
}
