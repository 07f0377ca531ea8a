//! What the network side tells: availability by day, breaches of the service level, traffic.

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde_json::{Value, json};

use super::data::{self, Dice};

/// Breaches are kept so long.
const BREACH_DAYS: i64 = 60;
/// Longest question about availability.
const MAX_DAYS: i64 = 90;
const TARGET: f64 = 99.9;
/// First day with traffic: a sum over all that can be asked for is made at once.
const TRAFFIC_SINCE: Date = Date::constant(2010, 1, 1);

/// A moment of the query: with an offset, without one, or a plain day.
pub(super) fn moment(text: &str) -> Option<DateTime> {
    let instant = text.parse::<Timestamp>().map(|at| at.to_zoned(TimeZone::UTC).datetime());
    instant.or_else(|_| text.parse()).ok()
}

fn number(day: Date) -> u64 {
    u64::try_from(day.duration_since(Date::ZERO).as_hours() / 24).unwrap_or(0)
}

/// Minutes without service on that day. A third of all tenants is calm.
fn downtime(tenant: &str, day: Date) -> u64 {
    if data::is_empty(tenant) || Dice::new(tenant, "calm", 0).below(3) == 0 {
        return 0;
    }
    let mut dice = Dice::new(tenant, "downtime", number(day));
    if dice.below(9) == 0 { 2 + dice.below(180) } else { 0 }
}

fn percentage(minutes: u64) -> f64 {
    // Four digits, as the service rounds.
    (data::as_float(1_440 - minutes.min(1_440)) / 1_440.0 * 1_000_000.0).round() / 10_000.0
}

/// Availability by day, of days that have begun. `Err`: more than the service answers at once.
pub(super) fn compliance(
    tenant: &str,
    from: DateTime,
    to: DateTime,
    target: f64,
    whole_last: bool,
) -> Result<Vec<Value>, ()> {
    if from.date().until(to.date()).is_ok_and(|span| i64::from(span.get_days()) > MAX_DAYS) {
        return Err(());
    }
    let mut rows = Vec::new();
    let mut day = from.date();
    let today = data::today();
    while day <= today && (day.at(0, 0, 0, 0) < to || whole_last && day == to.date()) {
        let minutes = downtime(tenant, day);
        rows.push(json!({
            "date": day.to_string(), "compliance_percentage": percentage(minutes), "target_percentage": target,
            "uptime_minutes": 1_440 - minutes, "downtime_minutes": minutes,
            "sla_breaches": u64::from(percentage(minutes) < TARGET),
        }));
        day = day.saturating_add(1.day());
    }
    Ok(rows)
}

/// One breach for each day below the target; those of the last three days go on.
pub(super) fn breaches(tenant: &str, whose: &str) -> Vec<Value> {
    let days = (0..BREACH_DAYS).map(|ago| (ago, data::today().saturating_sub(ago.days())));
    let days = days.filter(|(_, day)| percentage(downtime(tenant, *day)) < TARGET);
    days.map(|(ago, day)| {
        let mut dice = Dice::new(tenant, "breach", number(day));
        let minutes = downtime(tenant, day);
        let resolved = ago >= 3;
        let end = if resolved { Value::from(format!("{day}T20:00:00")) } else { Value::Null };
        json!({
            "id": dice.uuid(), "tenant_id": whose, "sla_instance_id": dice.uuid(), "breach_type": "availability",
            "severity": match minutes { 120.. => "critical", 60.. => "high", 20.. => "medium", _ => "low" },
            "detected_at": format!("{day}T08:30:00"), "breach_end": end, "duration_minutes": minutes,
            "target_value": TARGET, "actual_value": percentage(minutes),
            "deviation_percent": TARGET - percentage(minutes), "alarm_id": null, "ticket_id": null,
            "resolved": resolved, "resolved_at": end, "resolution_notes": null, "credit_amount": 12.5,
            "created_at": format!("{day}T08:31:12.345678"),
        })
    })
    .collect()
}

/// Traffic of all days in the period that have begun, none before the first that was counted.
pub(super) fn traffic(tenant: &str, whose: &str, from: DateTime, to: DateTime) -> Value {
    let mut bytes = 0_u64;
    let mut day = from.date().max(TRAFFIC_SINCE);
    while day <= data::today() && day.at(0, 0, 0, 0) < to {
        if !data::is_empty(tenant) {
            bytes += Dice::new(tenant, "traffic", number(day)).below(4 << 40);
        }
        day = day.saturating_add(1.day());
    }
    let active = data::subscribers(tenant).filter(|row| row.get("status") == Some(&json!("active"))).count();
    let active = if bytes == 0 { 0 } else { active as u64 };
    json!({
        "tenant_id": whose, "start_date": from.to_string(), "end_date": to.to_string(), "total_bandwidth_bytes": bytes,
        "total_bandwidth_gb": data::as_float(bytes) / data::as_float(1 << 30), "total_duration_seconds": active * 86_400,
        "total_duration_hours": active * 24, "session_count": active * 3, "unique_subscribers": active,
    })
}
