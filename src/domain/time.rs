//! Instants, cut to the millisecond: what links are stored with and what decisions compare.

use std::fmt;

use jiff::Timestamp;

/// Milliseconds since the Unix epoch, UTC. May be negative (before 1970).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub i64);

impl Millis {
    /// The wall clock now, cut (not rounded) to the millisecond.
    pub fn now() -> Self {
        Self(Timestamp::now().as_millisecond())
    }

    /// Cuts a timestamp to the millisecond, downwards, so that an instant before a start stays before it.
    pub fn from_timestamp(at: Timestamp) -> Self {
        let ns = at.as_nanosecond();
        Self(i64::try_from(ns.div_euclid(1_000_000)).unwrap_or(i64::MAX))
    }

    /// `None` when the value lies outside the years -9999 to 9999.
    pub fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.0).ok()
    }

    /// Parses RFC 3339 (`2026-01-31T12:00:00Z`, any offset) or a plain date, which means its midnight in UTC.
    pub fn parse(text: &str) -> Result<Self, InvalidTime> {
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::from_timestamp(at));
        }
        if is_end_of_time(text) {
            return Ok(Self::from_timestamp(Timestamp::MAX));
        }
        text.parse::<jiff::civil::Date>()
            .ok()
            .and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .map(|at| Self::from_timestamp(at.timestamp()))
            .ok_or_else(|| InvalidTime(text.to_owned()))
    }
}

/// The last day of 9999, a usual spelling of "for ever", lies behind what the calendar library holds in UTC.
fn is_end_of_time(text: &str) -> bool {
    jiff::fmt::temporal::Pieces::parse(text).is_ok_and(|pieces| {
        let day = pieces.date();
        day.year() == 9999
            && day.month() == 12
            && day.day() >= 30
            && pieces.time().is_some()
            && pieces.offset().is_some()
    })
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.timestamp() {
            Some(at) => write!(f, "{at:.3}"),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl serde::Serialize for Millis {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Millis {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The text is neither an RFC 3339 time nor a date.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a time: write RFC 3339, such as 2026-01-31T12:00:00Z, or a date, such as 2026-01-31")]
pub struct InvalidTime(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_downwards_and_prints_milliseconds() {
        let at = Millis::parse("2026-01-31T12:00:00.1239999+01:00").unwrap();
        assert_eq!(at.to_string(), "2026-01-31T11:00:00.123Z");
        assert_eq!(Millis::parse("1969-12-31T23:59:59.9999Z").unwrap(), Millis(-1));
        assert_eq!(Millis::parse("2026-02-01").unwrap().to_string(), "2026-02-01T00:00:00.000Z");
        assert!(Millis::parse("yesterday").is_err());
        assert!(Millis::parse("9999-12-31T23:59:59Z").unwrap() > Millis::parse("9999-12-29T00:00:00Z").unwrap());
    }
}
