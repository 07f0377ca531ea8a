//! The kinds of data that tenants' services are asked for.

/// What kind of data is asked for: each has breakers and latencies of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::portal) enum Kind {
    Registry,
    Metrics,
    Invoices,
    Tickets,
    Usage,
    Uptime,
    Breaches,
}

impl Kind {
    pub(super) const COUNT: usize = 7;
    pub(in crate::portal) const ALL: [Self; Self::COUNT] =
        [Self::Registry, Self::Metrics, Self::Invoices, Self::Tickets, Self::Usage, Self::Uptime, Self::Breaches];

    /// As messages name it.
    pub(in crate::portal) fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "tenant",
            Self::Metrics => "metrics",
            Self::Invoices => "invoices",
            Self::Tickets => "tickets",
            Self::Usage => "usage",
            Self::Uptime => "uptime",
            Self::Breaches => "breaches",
        }
    }
}
