//! Pieces of a period: calendar days, weeks and months for time series.

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};

use super::query::Period;
use crate::domain::moment::midnight;

/// Most pieces of one period that an answer is computed by: three years of days.
pub(super) const MOST_PIECES: i64 = 1_096;

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
            Self::Week => monday(day).saturating_add(7.days()),
            Self::Month => day.first_of_month().saturating_add(1.month()),
        }
    }

    /// How many pieces the period has, without making them.
    pub(super) fn count(self, period: Period) -> i64 {
        let (first, last) = (period.first_day(), period.last_day());
        match self {
            Self::Day => period.days(),
            Self::Week => days_between(monday(first), monday(last)) / 7 + 1,
            Self::Month => {
                let months = |day: Date| i64::from(day.year()) * 12 + i64::from(day.month());
                months(last) - months(first) + 1
            }
        }
    }

    /// Why the period is too long to be answered piece by piece: said of its beginning.
    pub(super) fn refusal(self, period: Period) -> Option<String> {
        let unit = match self {
            Self::Day => "days",
            Self::Week => "weeks",
            Self::Month => "months",
        };
        let count = self.count(period);
        (count > MOST_PIECES)
            .then(|| format!("must lie nearer to to_date: at most {MOST_PIECES} {unit} are answered, not {count}"))
    }
}

/// The Monday of the day's week.
fn monday(day: Date) -> Date {
    day.saturating_sub(i64::from(day.weekday().to_monday_zero_offset()).days())
}

/// The pieces of the period, ascending, without gaps; only for a period that [`Step::refusal`] lets pass. The first and the last may be shorter than the others.
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
    fn a_period_has_as_many_pieces_as_are_counted_and_too_many_are_refused() {
        let day = |number: i32| "2023-12-31".parse::<Date>().unwrap().checked_add(number.days()).unwrap();
        for from in 0..40 {
            for length in [1, 2, 6, 7, 8, 27, 31, 60, 366, 1_095, 1_096, 1_097] {
                for hours in [0, 7] {
                    let period = Period {
                        from: midnight(day(from)) + hours.hours(),
                        to: midnight(day(from + length)) - (3 * hours).hours(),
                    };
                    if period.from >= period.to {
                        continue;
                    }
                    for step in [Step::Day, Step::Week, Step::Month] {
                        let made = pieces(period, step).len();
                        assert_eq!(step.count(period), made as i64, "{step:?} {period:?}");
                        assert_eq!(step.refusal(period).is_some(), made > 1_096, "{step:?} {period:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_longest_period_is_counted_at_once() {
        let all = Period { from: crate::domain::moment::FIRST, to: Timestamp::MAX };
        let counts = [Step::Day, Step::Week, Step::Month].map(|step| step.count(all));
        assert_eq!(counts, [3_652_058, 521_723, 119_988]);
        let told = Step::Day.refusal(all).unwrap();
        assert_eq!(told, "must lie nearer to to_date: at most 1096 days are answered, not 3652058");
    }

    #[test]
    fn days_are_counted_over_months() {
        assert_eq!(days_between("2026-01-31".parse().unwrap(), "2026-03-01".parse().unwrap()), 29);
    }
}
