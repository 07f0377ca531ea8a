//! Small values that are written as text: durations, sizes, quotas and origins.
//!
//! The text types are part of the raw mirror (so that the JSON Schema shows their form); the `parse_*` functions turn
//! them into numbers and say what a right value looks like.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{limit::settings::Quota, upstream::settings::Origin};

/// A duration such as `250ms`, `5s`, `2m`, `12h` or `7d`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct DurationText(pub(super) String);

/// A size such as `1MiB`, `10MB`, `512KiB` or a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum SizeText {
    Bytes(i64),
    Text(String),
}

/// So many requests in a time: `100/min`, `10/h`, `5/10s`; 0 is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum QuotaText {
    Number(i64),
    Text(String),
}

impl DurationText {
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl SizeText {
    pub(super) fn of(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl QuotaText {
    pub(super) fn of(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl JsonSchema for DurationText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"})
    }
}

impl JsonSchema for SizeText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "integer"], "pattern": "^[0-9]+ ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$", "minimum": 0})
    }
}

impl JsonSchema for QuotaText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Quota".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "integer"], "pattern": "^[0-9]+/([0-9]*)(s|m|min|h|d)$", "minimum": 0, "maximum": 0})
    }
}

/// Whole numbers with one unit; no sums, no fractions.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is no duration: write a whole number and ms, s, m, h or d, such as `250ms` or `5s`");
    let (number, unit) = split_number(text).ok_or_else(wrong)?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => return Err(wrong()),
    };
    millis.map(Duration::from_millis).ok_or_else(wrong)
}

/// The shortest exact way to write a duration.
pub(super) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    match [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")]
        .into_iter()
        .find(|(unit, _)| millis.is_multiple_of(*unit))
    {
        Some(_) if millis == 0 => "0s".to_owned(),
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// KiB, MiB, GiB, TiB are powers of 1024; kB, MB, GB, TB powers of 1000.
pub(super) fn parse_size(size: &SizeText) -> Result<u64, String> {
    let text = match size {
        SizeText::Bytes(bytes) => return u64::try_from(*bytes).map_err(|_| format!("`{bytes}` is below zero")),
        SizeText::Text(text) => text,
    };
    let wrong = || format!("`{text}` is no size: write bytes, or a whole number and a unit, such as `1MiB` or `10MB`");
    let (number, unit) = split_number(text).ok_or_else(wrong)?;
    let factor: u64 = match unit.trim_start_matches(' ') {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

pub(super) fn parse_quota(quota: &QuotaText) -> Result<Quota, String> {
    let text = match quota {
        QuotaText::Number(0) => return Ok(Quota { requests: 0, per_seconds: 60 }),
        QuotaText::Number(number) => {
            return Err(format!("`{number}` says no time: write `{number}/min`, or 0 for no limit"));
        }
        QuotaText::Text(text) => text,
    };
    let wrong = || {
        format!("`{text}` is no rate: write requests and a time, such as `100/min`, `10/h` or `5/10s`; 0 is no limit")
    };
    let (requests, per) = text.split_once('/').ok_or_else(wrong)?;
    let requests: u32 = requests.trim().parse().map_err(|_| wrong())?;
    let per = per.trim();
    let (count, unit) = split_number(per).unwrap_or((1, per));
    let seconds = match unit {
        "s" => Some(count),
        "m" | "min" => count.checked_mul(60),
        "h" => count.checked_mul(3_600),
        "d" => count.checked_mul(86_400),
        _ => None,
    };
    let per_seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok()).filter(|s| *s > 0).ok_or_else(wrong)?;
    Ok(Quota { requests, per_seconds })
}

/// `http://host:port` or `https://host:port`, nothing behind it.
pub(super) fn parse_origin(text: &str) -> Result<Origin, String> {
    // A password may stand in it by mistake, so the text itself is not repeated.
    let wrong = |why: &str| format!("this is no origin: {why}; write `http://host:port` or `https://host:port`");
    let (https, authority) = if let Some(rest) = text.strip_prefix("http://") {
        (false, rest)
    } else if let Some(rest) = text.strip_prefix("https://") {
        (true, rest)
    } else {
        return Err(wrong("the scheme is missing"));
    };
    if authority.contains(['/', '?', '#']) {
        return Err(wrong("it takes no path, because the path that is decided is forwarded as it is"));
    }
    if authority.contains('@') {
        return Err(wrong("it takes no user name or password"));
    }
    let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong("host or port is malformed"))?;
    let host = parsed.host();
    let port = authority.strip_prefix(host).unwrap_or_default();
    let number = port.strip_prefix(':');
    if host.is_empty() || !(port.is_empty() || number.is_some_and(|n| n.parse::<u16>().is_ok_and(|n| n > 0))) {
        return Err(wrong("host or port is malformed"));
    }
    Ok(Origin { https, authority: authority.to_ascii_lowercase() })
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in
            [("250ms", 250), ("5s", 5_000), ("2m", 120_000), ("12h", 43_200_000), ("0s", 0), ("1d", 86_400_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "1.5s", "5S", "1m30s", "99999999999999999999s", "9999999999999999999d"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("1MiB", 1 << 20), ("10MB", 10_000_000), ("32KiB", 32 << 10), ("7B", 7), ("1 GiB", 1 << 30)]
        {
            assert_eq!(parse_size(&SizeText::of(text)), Ok(bytes), "{text}");
        }
        assert_eq!(parse_size(&SizeText::Bytes(12)), Ok(12));
        for text in ["", "10", "MiB", "1.5MiB", "1mib", "99999999999TiB"] {
            assert!(parse_size(&SizeText::of(text)).is_err(), "{text}");
        }
        assert!(parse_size(&SizeText::Bytes(-1)).is_err());
    }

    #[test]
    fn quotas() {
        for (text, requests, per_seconds) in
            [("100/min", 100, 60), ("10/h", 10, 3600), ("5/10s", 5, 10), ("0/min", 0, 60), ("1/2m", 1, 120)]
        {
            assert_eq!(parse_quota(&QuotaText::of(text)), Ok(Quota { requests, per_seconds }), "{text}");
        }
        assert_eq!(parse_quota(&QuotaText::Number(0)).unwrap().requests, 0);
        for text in ["", "100", "100/", "100/0s", "-1/min", "x/min", "1/week", "99999999999/s"] {
            assert!(parse_quota(&QuotaText::of(text)).is_err(), "{text}");
        }
        assert!(parse_quota(&QuotaText::Number(100)).is_err());
    }

    #[test]
    fn origins_have_no_path_and_no_credentials() {
        for (text, https, authority) in [
            ("http://127.0.0.1:8000", false, "127.0.0.1:8000"),
            ("https://ISP.example", true, "isp.example"),
            ("http://[::1]:80", false, "[::1]:80"),
        ] {
            assert_eq!(parse_origin(text), Ok(Origin { https, authority: authority.to_owned() }), "{text}");
        }
        for text in [
            "",
            "isp:8000",
            "ftp://x",
            "http://",
            "http://a/",
            "http://a/b",
            "http://u:p@a",
            "http://a:0",
            "http://a:99999",
            "http://a b",
            "http://a:x",
            "http://:80",
            "http://a?x",
        ] {
            assert!(parse_origin(text).is_err(), "{text}");
        }
    }
}
