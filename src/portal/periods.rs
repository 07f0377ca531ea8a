//! Pieces of a period: calendar days, weeks and months for time series.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

use super::query::{Period, midnight};

/// How a time series is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Day,
    /// From Monday to Sunday.
    Week,
    Month,
}

impl Step {
    /// The first day of the piece that follows the one in which the day lies.
    fn next(self, day: Date) -> Date {
        match self {
            Self::Day => day.saturating_add(1.day()),
            Self::Week => {
                let since_monday = i64::from(day.weekday().to_monday_zero_offset());
                day.saturating_add((7 - since_monday).days())
            }
            Self::Month => day.first_of_month().saturating_add(1.month()),
        }
    }
}

/// The pieces of the period, ascending, without gaps; the first and the last may be shorter than the others.
pub(super) fn pieces(period: Period, step: Step) -> Vec<Period> {
    let mut found = Vec::new();
    let mut from = period.from;
    while from < period.to {
        let next = midnight(step.next(from.to_zoned(TimeZone::UTC).date()));
        let to = if next <= from { period.to } else { next.min(period.to) };
        found.push(Period { from, to });
        from = to;
    }
    found
}

/// The UTC day of an instant.
pub(super) fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

/// Whole days from one day to a later one; negative where it is earlier.
pub(super) fn days_between(from: Date, to: Date) -> i64 {
    from.until(to).map_or(0, |span| i64::from(span.get_days()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(from: &str, to: &str) -> Period {
        Period { from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    fn days(pieces: &[Period]) -> Vec<String> {
        pieces.iter().map(|piece| format!("{}..{}", piece.first_day(), piece.last_day())).collect()
    }

    #[test]
    fn pieces_follow_the_calendar_and_cover_the_period() {
        let whole = period("2026-01-28T00:00:00Z", "2026-02-11T00:00:00Z");
        assert_eq!(pieces(whole, Step::Day).len(), 14);
        // 2026-02-02 is a Monday.
        assert_eq!(
            days(&pieces(whole, Step::Week)),
            ["2026-01-28..2026-02-01", "2026-02-02..2026-02-08", "2026-02-09..2026-02-10"]
        );
        assert_eq!(days(&pieces(whole, Step::Month)), ["2026-01-28..2026-01-31", "2026-02-01..2026-02-10"]);
        for step in [Step::Day, Step::Week, Step::Month] {
            let pieces = pieces(period("2026-01-28T10:30:00Z", "2026-03-01T08:00:00Z"), step);
            assert_eq!(pieces.first().unwrap().from.to_string(), "2026-01-28T10:30:00Z");
            assert_eq!(pieces.last().unwrap().to.to_string(), "2026-03-01T08:00:00Z");
            assert!(pieces.windows(2).all(|pair| pair[0].to == pair[1].from));
        }
    }

    #[test]
    fn days_are_counted_over_months() {
        assert_eq!(days_between("2026-01-31".parse().unwrap(), "2026-03-01".parse().unwrap()), 29);
    }
}
