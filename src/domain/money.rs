//! Exact money: decimals with a currency, never binary fractions, never summed across currencies.

use std::{fmt, str::FromStr};

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// An ISO 4217 code: three capital letters. Ordered by its letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// The text is no currency code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no currency code: three letters, such as USD")]
pub struct UnknownCurrency(pub String);

/// Codes whose smallest unit is not a hundredth (ISO 4217, table A.1).
const OTHER_DIGITS: [(&str, u32); 25] = [
    ("BHD", 3),
    ("BIF", 0),
    ("CLF", 4),
    ("CLP", 0),
    ("DJF", 0),
    ("GNF", 0),
    ("IQD", 3),
    ("ISK", 0),
    ("JOD", 3),
    ("JPY", 0),
    ("KMF", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("LYD", 3),
    ("OMR", 3),
    ("PYG", 0),
    ("RWF", 0),
    ("TND", 3),
    ("UGX", 0),
    ("UYI", 0),
    ("UYW", 4),
    ("VND", 0),
    ("VUV", 0),
    ("XAF", 0),
    ("XOF", 0),
];

impl Currency {
    pub const USD: Self = Self(*b"USD");

    pub fn as_str(&self) -> &str {
        // Only letters are let in.
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }

    /// Digits behind the point of an amount in this currency.
    pub fn minor_digits(&self) -> u32 {
        OTHER_DIGITS.iter().find(|(code, _)| *code == self.as_str()).map_or(2, |(_, digits)| *digits)
    }

    /// An amount counted in the smallest unit: 1234 is 12.34 USD and 1234 JPY.
    pub fn from_minor(&self, units: i64) -> Decimal {
        Decimal::new(units, self.minor_digits())
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.as_bytes() {
            letters @ [_, _, _] if letters.iter().all(u8::is_ascii_alphabetic) => {
                let mut code = [0; 3];
                for (to, from) in code.iter_mut().zip(letters) {
                    *to = from.to_ascii_uppercase();
                }
                Ok(Self(code))
            }
            _ => Err(UnknownCurrency(text.to_owned())),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

/// A decimal on its way into JSON: a number, written digit by digit with exactly this many digits behind the point.
///
/// Half to even. A sum of exact amounts is never rounded by it: it only adds zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub value: Decimal,
    pub digits: u32,
}

impl Number {
    /// An amount of money.
    pub fn money(value: Decimal, currency: Currency) -> Self {
        Self { value, digits: currency.minor_digits() }
    }

    /// Averages and percentages: two digits.
    pub fn ratio(value: Decimal) -> Self {
        Self { value, digits: 2 }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.value.round_dp_with_strategy(self.digits, RoundingStrategy::MidpointNearestEven);
        value.rescale(self.digits);
        // `-0.00` is a zero like any other.
        if value.is_zero() {
            value.set_sign_positive(true);
        }
        value.fmt(f)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(self.to_string()).map_err(serde::ser::Error::custom)?;
        raw.serialize(to)
    }
}

impl schemars::JsonSchema for Number {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Number".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number"})
    }
}

impl schemars::JsonSchema for Currency {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Currency".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[A-Z]{3}$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_numbers_with_the_digits_of_their_currency() {
        let json = |units, code: &str| {
            let currency: Currency = code.parse().unwrap();
            serde_json::to_string(&Number::money(currency.from_minor(units), currency)).unwrap()
        };
        assert_eq!(json(1234, "usd"), "12.34");
        assert_eq!(json(-5, "USD"), "-0.05");
        assert_eq!(json(1234, "JPY"), "1234");
        assert_eq!(json(1234, "KWD"), "1.234");
        assert_eq!(json(9_007_199_254_740_993, "EUR"), "90071992547409.93");
        assert_eq!(serde_json::to_string(&Number::ratio(Decimal::new(99_985, 3))).unwrap(), "99.98", "half to even");
        assert!("US".parse::<Currency>().is_err() && "U1D".parse::<Currency>().is_err());
    }
}
