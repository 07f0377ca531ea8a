//! Milliseconds since the process began: what atomics can hold and tests can make up.

use std::{sync::LazyLock, time::Instant};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A moment, in milliseconds since the process began; never 0, which stands for "never".
pub(super) fn now() -> u64 {
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}
