//! Instants, cut to the millisecond: what links are stored with and what decisions compare.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;

use super::moment::{InvalidTime, Moment};

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

    /// What somebody wrote: RFC 3339 or a plain date, which means its midnight in UTC, within the bounds of [`Moment`].
    pub fn parse(text: &str) -> Result<Self, InvalidTime> {
        Moment::parse(text).map(|moment| Self::from_timestamp(moment.start()))
    }

    /// For fields that somebody wrote, where [`serde::Deserialize`] would read what was stored.
    pub fn written<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Self>, D::Error> {
        let text = <Option<Cow<'de, str>> as serde::Deserialize>::deserialize(from)?;
        text.map(|text| Self::parse(&text).map_err(serde::de::Error::custom)).transpose()
    }
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

/// What was stored: any instant that was taken once, in bounds that may have been wider.
impl<'de> serde::Deserialize<'de> for Millis {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(from)?;
        match text.parse::<Timestamp>() {
            Ok(at) => Ok(Self::from_timestamp(at)),
            Err(_) => Self::parse(&text).map_err(serde::de::Error::custom),
        }
    }
}

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

    #[test]
    fn what_is_written_has_narrower_bounds_than_what_was_stored() {
        #[derive(serde::Deserialize)]
        struct Written {
            #[serde(default, deserialize_with = "Millis::written")]
            at: Option<Millis>,
        }
        let stored = |text: &str| serde_json::from_str::<Millis>(&format!("\"{text}\"")).unwrap();
        let written = |text: &str| serde_json::from_str::<Written>(&format!("{{\"at\": \"{text}\"}}"));
        let day = "2026-02-01T00:00:00.000Z";
        assert_eq!((stored("2026-02-01"), written("2026-02-01").unwrap().at), (stored(day), Some(stored(day))));
        assert_eq!(serde_json::from_str::<Written>("{}").unwrap().at, None);
        for early in ["0000-06-01T00:00:00.000Z", "-000001-06-01T00:00:00.000Z"] {
            let told = written(early).err().unwrap().to_string();
            assert!(stored(early) < stored("0001-01-01") && told.contains(early), "{told}");
        }
    }
}
