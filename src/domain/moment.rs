//! What a request may call a time: a date, or an instant with its offset. Every reader of dates from outside reads them
//! here, so that the same text means the same, or is refused for the same reason, wherever it stands.
//!
//! The services behind the gateway begin their calendar with year 1 and end it with year 9999, UTC; what lies outside is
//! refused, after the offset is taken off. The last 26 hours of 9999 lie behind what the calendar library holds; they all
//! are its last instant, so that "for ever" can be written as `9999-12-31`. A leap second is refused: RFC 3339 allows it
//! at some moments only, the list of which grows, and no clock of the services has one.

use std::fmt;

use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date, fmt::temporal::Pieces, tz::TimeZone};

/// The first instant that can be named.
pub const FIRST: Timestamp = Timestamp::constant(-62_135_596_800, 0);
/// Largest offset of RFC 3339, 23:59, in seconds.
const MAX_OFFSET: i32 = 86_340;
/// Characters of a wrong text that are told.
const SHOWN: usize = 64;

/// A date, or an instant with its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    Day(Date),
    Instant(Timestamp),
}

impl Moment {
    pub fn parse(text: &str) -> Result<Self, InvalidTime> {
        read(text).map_err(|fault| InvalidTime { text: text.chars().take(SHOWN).collect(), fault })
    }

    /// As the beginning of a range.
    pub fn start(self) -> Timestamp {
        match self {
            Self::Day(day) => midnight(day),
            Self::Instant(at) => at,
        }
    }

    /// As the end of a range, exclusive: a plain day is part of it, and so is a named instant.
    pub fn end(self) -> Timestamp {
        match self {
            Self::Day(day) => midnight(day.saturating_add(1.day())),
            Self::Instant(at) => at.checked_add(1.nanosecond()).unwrap_or(Timestamp::MAX),
        }
    }
}

/// Midnight UTC at the beginning of the day; the end of the calendar where there is none.
pub fn midnight(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |at| at.timestamp())
}

fn read(text: &str) -> Result<Moment, Fault> {
    // The calendar library takes signed years of six digits, and names of zones that it then ignores.
    if !text.starts_with(|first: char| first.is_ascii_digit()) || text.contains('[') {
        return Err(Fault::Form);
    }
    let pieces = Pieces::parse(text).map_err(|_| Fault::Form)?;
    let day = pieces.date();
    let Some(time) = pieces.time() else {
        // `20260131` and the like are dates too, but not in a form that anybody meant.
        let plain = text.len() == 10;
        return if plain { in_calendar(day).map(Moment::Day) } else { Err(Fault::Form) };
    };
    // A time without its offset says nothing.
    let offset = pieces.to_numeric_offset().ok_or(Fault::Form)?.seconds();
    if offset.abs() > MAX_OFFSET || offset % 60 != 0 {
        return Err(Fault::Offset);
    }
    if is_leap_second(text) {
        return Err(Fault::LeapSecond);
    }
    let offset = SignedDuration::from_secs(offset.into());
    let utc = day.to_datetime(time).checked_sub(offset).map_err(|_| Fault::Year)?;
    in_calendar(utc.date())?;
    Ok(Moment::Instant(utc.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |at| at.timestamp())))
}

/// Negative years are not written with four digits; those above 9999 neither.
fn in_calendar(day: Date) -> Result<Date, Fault> {
    if day.year() >= 1 { Ok(day) } else { Err(Fault::Year) }
}

/// Second 60, which the calendar library takes for second 59.
fn is_leap_second(text: &str) -> bool {
    let clock = text.split_once(['T', 't', ' ']).map_or("", |(_, clock)| clock);
    let digits = clock.chars().take_while(|one| one.is_ascii_digit() || *one == ':').filter(char::is_ascii_digit);
    digits.skip(4).take(2).eq(['6', '0'])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Form,
    Year,
    Offset,
    LeapSecond,
}

/// The text is no time that can be meant here, and why.
#[derive(Debug, Clone)]
pub struct InvalidTime {
    text: String,
    fault: Fault,
}

impl std::error::Error for InvalidTime {}

impl fmt::Display for InvalidTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.text;
        match self.fault {
            Fault::Form => write!(
                f,
                "`{text}` is not a time: write RFC 3339, such as 2026-01-31T12:00:00Z, or a date, such as 2026-01-31"
            ),
            Fault::Year => write!(f, "`{text}` lies outside of the years 0001 to 9999, UTC"),
            Fault::Offset => write!(f, "`{text}` has an offset that is none: -23:59 to +23:59, hours and minutes"),
            Fault::LeapSecond => {
                write!(f, "`{text}` is a leap second, which no service counts: write second 59, or the second after it")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instant(text: &str) -> String {
        match Moment::parse(text) {
            Ok(Moment::Instant(at)) => at.to_string(),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn fault(text: &str) -> Fault {
        Moment::parse(text).unwrap_err().fault
    }

    #[test]
    fn instants_are_taken_with_their_offset_and_days_as_they_are() {
        for (text, at) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31t12:00:00.5z", "2026-01-31T12:00:00.5Z"),
            ("2026-01-31 12:00:00+05:30", "2026-01-31T06:30:00Z"),
            ("2026-01-31T12:00-00:00", "2026-01-31T12:00:00Z"),
            ("2026-01-31T23:59:59+23:59", "2026-01-31T00:00:59Z"),
            ("2026-01-31T00:00:00-23:59", "2026-01-31T23:59:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0001-01-01T14:00:00+14:00", "0001-01-01T00:00:00Z"),
            ("0000-12-31T23:00:00-01:00", "0001-01-01T00:00:00Z"),
            ("9999-12-30T22:00:00Z", "9999-12-30T22:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-30T22:00:00.999999999Z"),
        ] {
            assert_eq!(instant(text), at, "{text}");
        }
        assert_eq!(FIRST.to_string(), "0001-01-01T00:00:00Z");
        for day in ["0001-01-01", "2024-02-29", "9999-12-31"] {
            assert_eq!(Moment::parse(day).unwrap(), Moment::Day(day.parse().unwrap()));
        }
    }

    #[test]
    fn what_the_services_cannot_mean_is_refused_with_its_reason() {
        for (text, why) in [
            ("yesterday", Fault::Form),
            ("", Fault::Form),
            ("2026-02-30", Fault::Form),
            ("20260131", Fault::Form),
            ("2026-01-31T10:00", Fault::Form),
            ("2026-01-31T10:00:00", Fault::Form),
            ("2026-01-31[UTC]", Fault::Form),
            ("2026-01-31T10:00:00Z[Europe/Paris]", Fault::Form),
            ("+002026-01-31T10:00:00Z", Fault::Form),
            ("-000001-01-31T10:00:00Z", Fault::Form),
            ("10000-01-01T00:00:00Z", Fault::Form),
            ("2026-01-31T24:00:00Z", Fault::Form),
            ("0000-01-01", Fault::Year),
            ("0000-12-31", Fault::Year),
            ("0000-12-31T23:59:59Z", Fault::Year),
            ("0001-01-01T00:00:00+14:00", Fault::Year),
            ("0001-01-01T00:00:00+00:01", Fault::Year),
            ("9999-12-31T23:59:59-00:01", Fault::Year),
            ("2026-01-31T10:00:00+24:00", Fault::Offset),
            ("2026-01-31T10:00:00+25:00", Fault::Offset),
            ("2026-01-31T10:00:00-24:30", Fault::Offset),
            ("2026-01-31T10:00:00+01:00:30", Fault::Offset),
            ("2016-12-31T23:59:60Z", Fault::LeapSecond),
            ("2016-12-31T23:59:60.5Z", Fault::LeapSecond),
            ("20161231T235960Z", Fault::LeapSecond),
            ("2017-01-01T00:59:60+01:00", Fault::LeapSecond),
        ] {
            assert_eq!(fault(text), why, "{text}");
        }
        let told = Moment::parse(&"9".repeat(100_000)).unwrap_err().to_string();
        assert!(told.len() < 200, "a long text is not told whole");
    }

    proptest! {
        /// Whatever is taken can be written down in the services' calendar, as the beginning and as the end of a range.
        #[test]
        fn what_is_taken_stays_within_the_calendar(
            year in prop_oneof![0..=2_u16, 9_998..=9_999_u16, 0..=9_999_u16],
            (month, day) in prop_oneof![Just((1, 1)), Just((12, 30)), Just((12, 31)), (1..=12_u8, 1..=31_u8)],
            (hour, minute, second) in (0..=24_u8, 0..=60_u8, 0..=61_u8),
            offset in prop_oneof![
                Just("Z".to_owned()), Just(String::new()),
                (prop_oneof![Just('+'), Just('-')], 0..=26_u8, 0..=60_u8).prop_map(|(sign, h, m)| format!("{sign}{h:02}:{m:02}")),
            ],
            plain: bool,
        ) {
            let mut text = format!("{year:04}-{month:02}-{day:02}");
            if !plain {
                text += &format!("T{hour:02}:{minute:02}:{second:02}{offset}");
            }
            if let Ok(moment) = Moment::parse(&text) {
                prop_assert!(plain || second < 60 && !offset.is_empty());
                for at in [moment.start(), moment.end()] {
                    let written = at.to_string();
                    prop_assert!(("0001".."9999-12-31").contains(&&*written), "{} is {}", text, written);
                }
                prop_assert!(moment.start() <= moment.end());
            }
        }
    }
}
