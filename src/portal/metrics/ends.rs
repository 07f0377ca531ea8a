//! How slices, deliveries and exports end: values of labels.

/// How a slice was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::portal) enum SliceFrom {
    /// Memory, and fresh.
    Cache,
    /// Memory, and asked for again in the background.
    Aging,
    /// The service.
    Service,
    /// Memory, because the service failed.
    Stale,
    /// Nowhere: the service failed, and nothing is remembered.
    Nowhere,
}

impl SliceFrom {
    pub(super) const ALL: [Self; 5] = [Self::Cache, Self::Aging, Self::Service, Self::Stale, Self::Nowhere];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Aging => "aging",
            Self::Service => "service",
            Self::Stale => "stale",
            Self::Nowhere => "nowhere",
        }
    }
}

/// How a try of a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::portal) enum DeliveryEnd {
    Delivered,
    Retried,
    Dead,
    Dropped,
    Postponed,
}

impl DeliveryEnd {
    pub(super) const ALL: [Self; 5] = [Self::Delivered, Self::Retried, Self::Dead, Self::Dropped, Self::Postponed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retried => "retried",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
            Self::Postponed => "postponed",
        }
    }
}

/// How the work on an export ended, here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::portal) enum ExportEnd {
    Completed,
    Failed,
    /// Given back at a stop.
    Stopped,
    /// The lease passed to somebody else.
    Lost,
}

impl ExportEnd {
    pub(super) const ALL: [Self; 4] = [Self::Completed, Self::Failed, Self::Stopped, Self::Lost];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        }
    }
}
