//! One field of one row: the text that a pointer led to, read as what the field is.
//!
//! Whatever does not fit is an error that names the pointer; nothing becomes zero, and the value itself is never told.

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::value::RawValue;

use super::{
    misfit::Misfit,
    projection::Slots,
    settings::{FieldPlan, Unit},
};
use crate::domain::Currency;

/// Largest number that a field may hold, and largest whole number: far above anything real, and small enough that the
/// sum over all rows of all tenants stays within what a decimal and an `i64` hold.
const MOST: i64 = 1_000_000_000_000_000_000;
const MOST_WHOLE: u64 = 1_000_000_000_000_000;
const OUT_OF_RANGE: &str = "the value is out of range";

/// The fields of one row.
pub(super) struct Row<'r, 'de> {
    pub(super) fields: &'r [Option<FieldPlan>],
    pub(super) slots: &'r Slots<'de>,
    /// Of money, where a field does not say.
    pub(super) unit: Unit,
}

type Cell<T> = Result<Option<T>, Misfit>;

impl<'r, 'de> Row<'r, 'de> {
    fn plan(&self, field: impl Into<usize>) -> Option<&'r FieldPlan> {
        self.fields.get(field.into())?.as_ref()
    }

    /// The value's own text; `None` where the field is not mapped or the value is null.
    fn raw(&self, plan: &FieldPlan, slot: usize, pointer: &super::pointer::Pointer) -> Cell<&'de str> {
        match self.slots.get(slot).copied().flatten().map(RawValue::get) {
            Some("null") => Ok(None),
            Some(text) => Ok(Some(text)),
            None if plan.optional => Ok(None),
            None => Err(Misfit::new(pointer, "there is nothing")),
        }
    }

    fn value<T>(
        &self,
        field: impl Into<usize>,
        read: impl FnOnce(&FieldPlan, &str) -> Result<T, &'static str>,
    ) -> Cell<T> {
        let Some(plan) = self.plan(field) else { return Ok(None) };
        let Some(text) = self.raw(plan, plan.slot, &plan.pointer)? else { return Ok(None) };
        read(plan, text).map(Some).map_err(|wanted| Misfit::new(&plan.pointer, wanted))
    }

    /// A required field: null is nothing.
    pub(super) fn need<T>(&self, field: impl Into<usize> + Copy, cell: Cell<T>) -> Result<T, Misfit> {
        cell?.ok_or_else(|| match self.plan(field) {
            Some(plan) => Misfit::new(&plan.pointer, "there is null where a value is needed"),
            None => Misfit::unmapped(),
        })
    }

    pub(super) fn misfit(&self, field: impl Into<usize>, problem: &'static str) -> Misfit {
        self.plan(field).map_or_else(Misfit::unmapped, |plan| Misfit::new(&plan.pointer, problem))
    }

    pub(super) fn text(&self, field: impl Into<usize>) -> Cell<String> {
        self.value(field, |_, raw| plain_text(raw))
    }

    pub(super) fn flag(&self, field: impl Into<usize>) -> Cell<bool> {
        self.value(field, |_, raw| match raw {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("expected true or false"),
        })
    }

    pub(super) fn integer(&self, field: impl Into<usize>) -> Cell<i64> {
        self.value(field, |plan, raw| {
            if plan.unit == Some(Unit::Length) {
                return length(raw);
            }
            let number = decimal(raw, plan.unit == Some(Unit::Text))?;
            let whole = number.fract().is_zero().then(|| number.trunc().mantissa());
            let whole = whole.and_then(|whole| i64::try_from(whole).ok()).ok_or("expected a whole number")?;
            if whole.unsigned_abs() <= MOST_WHOLE { Ok(whole) } else { Err(OUT_OF_RANGE) }
        })
    }

    /// A number without a currency.
    pub(super) fn number(&self, field: impl Into<usize> + Copy) -> Cell<Decimal> {
        let is_text = |plan: &FieldPlan| plan.unit == Some(Unit::Text);
        self.difference(field, |plan, raw| decimal(raw, is_text(plan)))
    }

    /// An amount; `None` for the currency where the source does not say.
    pub(super) fn money(&self, field: impl Into<usize> + Copy, currency: Option<Currency>) -> Cell<Decimal> {
        self.difference(field, |plan, raw| amount(raw, plan.unit.unwrap_or(self.unit), currency))
    }

    /// The value, less another one where the field is a difference, divided where it is counted in parts.
    fn difference(
        &self,
        field: impl Into<usize> + Copy,
        read: impl Fn(&FieldPlan, &str) -> Result<Decimal, &'static str>,
    ) -> Cell<Decimal> {
        let Some(value) = self.value(field, &read)? else { return Ok(None) };
        let Some(plan) = self.plan(field) else { return Ok(None) };
        let value = match &plan.minus {
            None => value,
            Some((pointer, slot)) => {
                let Some(text) = self.raw(plan, *slot, pointer)? else { return Ok(None) };
                let less = read(plan, text).map_err(|wanted| Misfit::new(pointer, wanted))?;
                value.checked_sub(less).ok_or_else(|| Misfit::new(pointer, "the difference is out of range"))?
            }
        };
        let value = match plan.divide {
            None => Some(value),
            Some(by) => value.checked_div(by),
        };
        let value = value.filter(|value| value.abs() <= Decimal::from(MOST));
        value.map(Some).ok_or_else(|| Misfit::new(&plan.pointer, OUT_OF_RANGE))
    }

    pub(super) fn currency(&self, field: impl Into<usize>) -> Cell<Currency> {
        self.value(field, |_, raw| plain_text(raw)?.parse().map_err(|_| "expected a currency code"))
    }

    pub(super) fn time(&self, field: impl Into<usize>) -> Cell<Timestamp> {
        self.value(field, |_, raw| time(&string(raw)?).ok_or("expected a date or time"))
    }

    pub(super) fn date(&self, field: impl Into<usize>) -> Cell<Date> {
        self.value(field, |_, raw| {
            let at = time(&string(raw)?).ok_or("expected a date")?;
            Ok(at.to_zoned(TimeZone::UTC).date())
        })
    }

    /// A word of ours for a word of the service's.
    pub(super) fn word<T: Copy>(&self, field: impl Into<usize>, parse: impl Fn(&str) -> Option<T>) -> Cell<T> {
        self.value(field, |plan, raw| {
            let theirs = plain_text(raw)?;
            let ours = match &plan.words {
                Some(words) => words.iter().find(|(word, _)| *word == theirs).map(|(_, ours)| ours.as_str()),
                None => Some(theirs.as_str()),
            };
            let ours = ours.and_then(&parse).or_else(|| plan.otherwise.as_deref().and_then(&parse));
            ours.ok_or("the word is not in the connector's list")
        })
    }
}

/// A JSON string.
fn string(raw: &str) -> Result<String, &'static str> {
    serde_json::from_str(raw).map_err(|_| "expected text")
}

/// Text, or what has a plain text of its own: a number or a flag.
fn plain_text(raw: &str) -> Result<String, &'static str> {
    match raw.as_bytes().first() {
        Some(b'"') => string(raw),
        Some(b'{' | b'[') | None => Err("expected text"),
        Some(_) => Ok(raw.to_owned()),
    }
}

fn length(raw: &str) -> Result<i64, &'static str> {
    let list: Vec<serde::de::IgnoredAny> = serde_json::from_str(raw).map_err(|_| "expected a list")?;
    i64::try_from(list.len()).map_err(|_| "expected a list")
}

/// Digit by digit: 0.1 is a tenth.
fn decimal(raw: &str, is_text: bool) -> Result<Decimal, &'static str> {
    let (text, wanted) = match (is_text, raw.as_bytes().first()) {
        (true, Some(b'"')) => (string(raw)?, "expected a decimal in text"),
        (true, _) => return Err("expected a decimal in text"),
        (false, Some(b'-' | b'0'..=b'9')) => (raw.to_owned(), "the number is out of range"),
        (false, _) => return Err("expected a number"),
    };
    let parsed =
        if text.contains(['e', 'E']) { Decimal::from_scientific(&text) } else { Decimal::from_str_exact(&text) };
    // More digits than a decimal holds come from binary fractions alone; their end says nothing.
    parsed.or_else(|_| text.parse()).map_err(|_| wanted)
}

fn amount(raw: &str, unit: Unit, currency: Option<Currency>) -> Result<Decimal, &'static str> {
    match unit {
        Unit::Minor => {
            let units = decimal(raw, false)?;
            let currency = currency.ok_or("the currency of smallest units is not known")?;
            let whole = units.fract().is_zero().then(|| units.trunc().mantissa());
            let whole = whole.and_then(|whole| i64::try_from(whole).ok());
            whole.map(|units| currency.from_minor(units)).ok_or("expected a whole number of the smallest unit")
        }
        Unit::Major => decimal(raw, false),
        Unit::Text => decimal(raw, true),
        // 0.1 + 0.2 comes as 0.30000000000000004: the currency's digits are what was meant.
        Unit::Float => {
            let value = decimal(raw, false)?;
            let digits = currency.map_or(4, |currency| currency.minor_digits());
            Ok(value.round_dp_with_strategy(digits, RoundingStrategy::MidpointNearestEven))
        }
        Unit::Length => Err("an amount is no list"),
    }
}

/// With an offset, without one (then it is UTC), or a plain day (its midnight, UTC).
fn time(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    // An offset that did not parse above must not be dropped silently.
    let (_, clock) = text.split_once(['T', 't', ' ']).unwrap_or((text, ""));
    if clock.contains(['+', '-', 'Z', 'z', '[']) {
        return None;
    }
    let naive = text.parse::<DateTime>().ok()?;
    naive.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

/// Zero, null, empty text, an empty list or object, false, or nothing at all.
pub(super) fn is_nothing(raw: Option<&RawValue>) -> bool {
    let Some(text) = raw.map(RawValue::get) else { return true };
    match text.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => decimal(text, false).is_ok_and(|number| number.is_zero()),
        Some(b'"') => string(text).is_ok_and(|text| {
            text.is_empty() || decimal(&format!("\"{text}\""), true).is_ok_and(|number| number.is_zero())
        }),
        Some(b'[' | b'{') => {
            text.bytes().all(|byte| matches!(byte, b'[' | b']' | b'{' | b'}') || byte.is_ascii_whitespace())
        }
        _ => text != "true",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd() -> Option<Currency> {
        Some(Currency::USD)
    }

    #[test]
    fn amounts_are_exact_in_every_unit() {
        let jpy = "JPY".parse().ok();
        type Case<'t> = (&'t str, Unit, Option<Currency>, Result<&'t str, ()>);
        let cases: [Case<'_>; 16] = [
            ("1234", Unit::Minor, usd(), Ok("12.34")),
            ("1234", Unit::Minor, jpy, Ok("1234")),
            ("-5", Unit::Minor, usd(), Ok("-0.05")),
            ("12.5", Unit::Minor, usd(), Err(())),
            ("\"1234\"", Unit::Minor, usd(), Err(())),
            ("1234", Unit::Minor, None, Err(())),
            ("12.34", Unit::Major, usd(), Ok("12.34")),
            ("90071992547409931.23", Unit::Major, usd(), Ok("90071992547409931.23")),
            ("1e3", Unit::Major, usd(), Ok("1000")),
            ("0.30000000000000004", Unit::Float, usd(), Ok("0.30")),
            ("1039.5", Unit::Float, None, Ok("1039.5")),
            ("\"12.340\"", Unit::Text, usd(), Ok("12.340")),
            ("12.34", Unit::Text, usd(), Err(())),
            ("true", Unit::Major, usd(), Err(())),
            ("\"x\"", Unit::Text, usd(), Err(())),
            ("1e400", Unit::Float, usd(), Err(())),
        ];
        for (raw, unit, currency, expected) in cases {
            let found = amount(raw, unit, currency).map(|value| value.to_string()).map_err(|_| ());
            assert_eq!(found, expected.map(str::to_owned), "{raw} {unit:?}");
        }
    }

    #[test]
    fn times_without_an_offset_are_utc() {
        for (text, expected) in [
            ("2026-01-31T10:00:00", Some("2026-01-31T10:00:00Z")),
            ("2026-01-31T10:00:00.250000", Some("2026-01-31T10:00:00.25Z")),
            ("2026-01-31 10:00:00", Some("2026-01-31T10:00:00Z")),
            ("2026-01-31T10:00:00+01:00", Some("2026-01-31T09:00:00Z")),
            ("2026-01-31T10:00:00Z", Some("2026-01-31T10:00:00Z")),
            ("2026-01-31", Some("2026-01-31T00:00:00Z")),
            ("2026-01-31T10:00:00+99:99", None),
            ("31.01.2026", None),
            ("", None),
        ] {
            assert_eq!(time(text).map(|at| at.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn nothing_has_many_spellings() {
        let is = |text: &str| is_nothing(Some(&RawValue::from_string(text.to_owned()).unwrap()));
        for nothing in ["0", "0.0", "-0", "null", "false", "\"\"", "\"0.00\"", "[]", "{}", "[ ]", "0e5"] {
            assert!(is(nothing), "{nothing}");
        }
        for something in ["1", "0.01", "true", "\"x\"", "[0]", "{\"a\":0}"] {
            assert!(!is(something), "{something}");
        }
        assert!(is_nothing(None));
    }
}
