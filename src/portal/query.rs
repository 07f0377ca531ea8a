//! Query parameters of the consolidated API: every mistake is told, one entry a field, and nothing is ignored.

use std::{borrow::Cow, ops::RangeInclusive, str::FromStr};

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rust_decimal::Decimal;

use super::call::Problem;
use crate::domain::{
    Moment, TenantId,
    link_rules::FieldError,
    moment::{FIRST, midnight},
};

/// Days of a period that the query does not name.
const DEFAULT_DAYS: i64 = 30;
/// Deepest row of a list that can be asked for: `offset + limit`.
pub const MAX_DEPTH: u64 = 10_000;
/// Most values of one multi-value filter.
const MAX_VALUES: usize = 1_000;

/// The parameters of one request. Each is taken once by its reader; what nobody took is an error of its own.
pub struct Params<'q> {
    pairs: Vec<(Cow<'q, str>, Option<Cow<'q, str>>)>,
    errors: Vec<FieldError>,
}

/// Which rows of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Paging {
    /// 1 to 100.
    pub limit: u64,
    pub offset: u64,
}

/// From an instant, inclusive, to another, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Period {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Period {
    /// The last `days` days up to the end of today, UTC.
    pub fn last_days(days: i64, now: Timestamp) -> Self {
        let today = now.to_zoned(TimeZone::UTC).date();
        let start = today.saturating_sub((days - 1).days());
        Self { from: midnight(start), to: midnight(today.saturating_add(1.day())) }
    }

    pub fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }

    /// The UTC day of the first instant.
    pub fn first_day(&self) -> Date {
        self.from.to_zoned(TimeZone::UTC).date()
    }

    /// The UTC day of the last instant.
    pub fn last_day(&self) -> Date {
        let last = self.to.as_nanosecond().saturating_sub(1).max(self.from.as_nanosecond());
        Timestamp::from_nanosecond(last).unwrap_or(self.from).to_zoned(TimeZone::UTC).date()
    }

    /// UTC days that it touches.
    pub fn days(&self) -> i64 {
        i64::from(self.first_day().until(self.last_day()).map_or(0, |span| span.get_days())) + 1
    }
}

impl<'q> Params<'q> {
    /// Reads `a=b&c=d`, percent-decoded, `+` as a space.
    pub fn new(query: &'q str) -> Self {
        let mut pairs: Vec<(Cow<'q, str>, Option<Cow<'q, str>>)> = Vec::new();
        let mut errors = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if pairs.iter().any(|(known, _)| *known == name) {
                errors.push(FieldError { field: name.into_owned(), message: "stands more than once".into() });
            } else {
                pairs.push((name, Some(value)));
            }
        }
        Self { pairs, errors }
    }

    pub fn fail(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError { field: field.to_owned(), message: message.into() });
    }

    /// The value as it is; an empty one is an error.
    pub fn text(&mut self, name: &str) -> Option<Cow<'q, str>> {
        let (_, value) = self.pairs.iter_mut().find(|(known, _)| known == name)?;
        // `take` leaves the name, so that the parameter is known and taken.
        let value = value.take()?;
        if value.is_empty() {
            self.fail(name, "must not be empty");
            return None;
        }
        Some(value)
    }

    /// A search text of 1 to 255 characters.
    pub fn search(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if text.chars().count() > 255 {
            self.fail(name, "must have at most 255 characters");
            return None;
        }
        Some(text.into_owned())
    }

    /// A value that parses; `hint` says what one looks like.
    pub fn parsed<T: FromStr>(&mut self, name: &str, hint: &str) -> Option<T> {
        let text = self.text(name)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.fail(name, format!("`{text}` is not {hint}"));
        }
        parsed
    }

    pub fn integer(&mut self, name: &str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(text) = self.text(name) else { return default };
        // `+5` parses as a number, and is a space and a 5 to others.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().ok().filter(|value| digits && range.contains(value)) {
            Some(value) => value,
            None if *range.end() == u64::MAX => {
                self.fail(name, format!("must be a whole number from {}", range.start()));
                default
            }
            None => {
                self.fail(name, format!("must be a whole number from {} to {}", range.start(), range.end()));
                default
            }
        }
    }

    /// An exact decimal.
    pub fn decimal(&mut self, name: &str) -> Option<Decimal> {
        let text = self.text(name)?;
        let parsed = Decimal::from_str_exact(&text).ok();
        if parsed.is_none() {
            self.fail(name, format!("`{text}` is not a decimal number, such as 12.50"));
        }
        parsed
    }

    pub fn flag(&mut self, name: &str) -> bool {
        let Some(text) = self.text(name) else { return false };
        match &*text {
            "true" => true,
            "false" => false,
            _ => {
                self.fail(name, "must be true or false");
                false
            }
        }
    }

    /// One of some words.
    pub fn word<T: Copy>(&mut self, name: &str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            self.fail(name, unknown(&text, words));
        }
        found
    }

    /// Comma-separated words, each once.
    pub fn words<T: Copy>(&mut self, name: &str, words: &[(&'static str, T)]) -> Option<Vec<T>> {
        let list = self.list(name)?;
        let mut found = Vec::with_capacity(list.len());
        for text in list {
            match words.iter().find(|(word, _)| *word == text) {
                Some((_, value)) => found.push(*value),
                None => self.fail(name, unknown(&text, words)),
            }
        }
        Some(found)
    }

    /// Comma-separated values; an empty one is an error.
    pub fn list(&mut self, name: &str) -> Option<Vec<String>> {
        let text = self.text(name)?;
        let mut values: Vec<String> = text.split(',').map(str::to_owned).collect();
        if values.iter().any(String::is_empty) {
            self.fail(name, "holds an empty value");
            return None;
        }
        if values.iter().any(|value| value.chars().count() > 255) {
            self.fail(name, "holds a value of more than 255 characters");
            return None;
        }
        if values.len() > MAX_VALUES {
            self.fail(name, format!("names more than {MAX_VALUES} values"));
            return None;
        }
        values.sort_unstable();
        values.dedup();
        Some(values)
    }

    /// `tenant_ids`, ascending, each once.
    pub fn tenant_ids(&mut self) -> Option<Vec<TenantId>> {
        let list = self.list("tenant_ids")?;
        let ids: Vec<_> = list.iter().filter_map(|id| TenantId::new(id).ok()).collect();
        if ids.len() < list.len() {
            self.fail("tenant_ids", "a tenant id has 1 to 255 characters");
        }
        Some(ids)
    }

    pub fn paging(&mut self) -> Paging {
        let limit = self.integer("limit", 1..=100, 50);
        let offset = self.integer("offset", 0..=u64::MAX, 0);
        if offset.saturating_add(limit) > MAX_DEPTH {
            self.fail("offset", format!("offset + limit must be at most {MAX_DEPTH}: narrow the filters instead"));
            return Paging { limit, offset: 0 };
        }
        Paging { limit, offset }
    }

    /// A date or an instant with its offset.
    pub fn moment(&mut self, name: &str) -> Option<Moment> {
        let text = self.text(name)?;
        match Moment::parse(&text) {
            Ok(moment) => Some(moment),
            Err(error) => {
                self.fail(name, error.to_string());
                None
            }
        }
    }

    /// `from_date` and `to_date`, the last 30 days where neither is given.
    pub fn period(&mut self, now: Timestamp) -> Period {
        let from = self.moment("from_date");
        let to = self.moment("to_date");
        let period = period(from, to, now);
        if let Some(fault) = disorder(period.from, period.to, "to_date") {
            self.fail("from_date", fault);
        }
        period
    }

    /// `sort_by` and `sort_order`; true means descending.
    pub fn sort<T: Copy>(&mut self, words: &[(&'static str, T)], default: T, descending: bool) -> (T, bool) {
        let by = self.word("sort_by", words).unwrap_or(default);
        let order = self.word("sort_order", &[("asc", false), ("desc", true)]).unwrap_or(descending);
        (by, order)
    }

    /// Nothing may be left over.
    pub fn finish(mut self) -> Result<(), Problem> {
        let left = self.pairs.iter().filter(|(_, value)| value.is_some());
        let unknown: Vec<_> = left.map(|(name, _)| name.clone().into_owned()).collect();
        for name in unknown {
            self.fail(&name, "unknown parameter");
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }
}

/// A range from what was named of it. A single end lies 30 days from the other.
pub fn period(from: Option<Moment>, to: Option<Moment>, now: Timestamp) -> Period {
    let days = (24 * DEFAULT_DAYS).hours();
    let default = Period::last_days(DEFAULT_DAYS, now);
    match (from.map(Moment::start), to.map(Moment::end)) {
        (None, None) => default,
        (Some(from), None) => Period { from, to: default.to.max(from) },
        (None, Some(to)) => Period { from: to.checked_sub(days).unwrap_or(FIRST).max(FIRST), to },
        (Some(from), Some(to)) => Period { from, to },
    }
}

/// Why no instant lies between the two; `end`: the field that the later one should stand in.
pub fn disorder(from: Timestamp, to: Timestamp, end: &str) -> Option<String> {
    if from == Timestamp::MAX {
        return Some("is the end of the calendar: no range begins after 9999-12-30T22:00:00Z".into());
    }
    (from >= to).then(|| format!("must not be after {end}"))
}

fn unknown<T>(text: &str, words: &[(&'static str, T)]) -> String {
    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    format!("`{text}` is not one of {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-15T13:00:00Z".parse().unwrap()
    }

    fn fields(problem: Problem) -> Vec<String> {
        problem.fields.into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn every_mistake_has_its_entry_and_nothing_is_ignored() {
        let mut params =
            Params::new("limit=101&offset=x&from_date=2026-02-30&status=open,shut&colour=red&limit=5&search=");
        params.paging();
        params.period(now());
        params.words("status", &[("open", 1)]);
        params.search("search");
        let found = fields(params.finish().unwrap_err());
        assert_eq!(found, ["limit", "limit", "offset", "from_date", "status", "search", "colour"]);
    }

    #[test]
    fn a_plain_last_day_is_part_of_the_range() {
        let mut params = Params::new("from_date=2026-01-01&to_date=2026-01-31");
        let period = params.period(now());
        params.finish().unwrap();
        assert_eq!(period.to.to_string(), "2026-02-01T00:00:00Z");
        assert_eq!((period.days(), period.last_day().to_string()), (31, "2026-01-31".to_owned()));
        let mut params = Params::new("from_date=2026-01-31T23:00:00%2B01:00&to_date=2026-01-31T22:00:00Z");
        let period = params.period(now());
        params.finish().unwrap();
        assert!(period.holds("2026-01-31T22:00:00Z".parse().unwrap()), "one instant, inclusive");
    }

    #[test]
    fn a_range_runs_forward_and_defaults_to_30_days() {
        let mut params = Params::new("from_date=2026-02-01&to_date=2026-01-31");
        params.period(now());
        assert_eq!(fields(params.finish().unwrap_err()), ["from_date"]);
        let period = Params::new("").period(now());
        assert_eq!((period.first_day().to_string(), period.days()), ("2026-02-14".to_owned(), 30));
        let period = Params::new("to_date=2026-01-31").period(now());
        assert_eq!((period.first_day().to_string(), period.days()), ("2026-01-02".to_owned(), 30));
    }

    #[test]
    fn ranges_at_the_ends_of_the_calendar_stay_within_it_or_say_why_not() {
        let read = |query: &str| {
            let mut params = Params::new(query);
            let period = params.period(now());
            params.finish().map(|()| period).map_err(|problem| problem.fields[0].message.clone())
        };
        let first = read("to_date=0001-01-05").unwrap();
        assert_eq!((first.from.to_string(), first.days()), ("0001-01-01T00:00:00Z".to_owned(), 5));
        assert_eq!(read("from_date=0001-01-01&to_date=9999-12-31").unwrap().days(), 3_652_058);
        assert_eq!(read("from_date=9999-12-30&to_date=9999-12-31").unwrap().days(), 1);
        for last in ["9999-12-31", "9999-12-30T22:00:01Z", "9999-12-31T00:00:00Z"] {
            let told = read(&format!("from_date={last}&to_date=9999-12-31")).unwrap_err();
            assert!(told.contains("end of the calendar"), "{told}");
        }
        let told = read("from_date=9999-12-30&to_date=9999-12-29").unwrap_err();
        assert_eq!(told, "must not be after to_date");
        for wrong in
            ["0000-01-01", "0001-01-01T00:00:00%2B14:00", "2026-01-01T00:00:00%2B25:00", "2016-12-31T23:59:60Z"]
        {
            assert!(read(&format!("from_date={wrong}")).is_err() && read(&format!("to_date={wrong}")).is_err());
        }
    }

    #[test]
    fn depth_is_bounded() {
        let mut params = Params::new("offset=9950&limit=51");
        params.paging();
        assert_eq!(fields(params.finish().unwrap_err()), ["offset"]);
        let mut params = Params::new("offset=9950");
        assert_eq!(params.paging(), Paging { limit: 50, offset: 9950 });
        params.finish().unwrap();
    }
}
