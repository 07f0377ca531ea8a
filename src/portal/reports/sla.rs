//! `GET /reports/sla`: availability of each tenant in the period, against its own target.
//!
//! A tenant's uptime is the unweighted average of its days, the summary's that of the tenants. The target is the link's,
//! else the query's. Outages are the breaches of availability that began in the period; their mean time to repair is
//! over those that have ended. A service that answers short ranges only is asked several times, by its connector.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::civil::Date;
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    connector::rows::{BreachRow, UptimeDay},
    domain::{TenantId, money::Number},
    portal::{
        Call, Granted, Narrow, Portal, Prepared, Problem, Question, Reply,
        fanout::{Kind, Loaded, Part},
        merge::Seen,
        partial::{Coverage, Source, Wish, worst},
        periods::Step,
        query::{Params, Period},
    },
};

/// The type of breach that is an outage.
const OUTAGE: &str = "availability";

struct Sla {
    period: Period,
    target: Decimal,
    tenants: Option<Vec<TenantId>>,
    wish: Wish,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let period = params.period(question.now);
    if let Some(fault) = Step::Day.refusal(period) {
        params.fail("from_date", fault);
    }
    let tenants = params.tenant_ids();
    let target = params.decimal("target_percentage").unwrap_or(Decimal::new(999, 1));
    if target < Decimal::ZERO || target > Decimal::ONE_HUNDRED {
        params.fail("target_percentage", "must be from 0 to 100");
    }
    let wish = Wish::read(&mut params);
    params.finish()?;
    Ok(Box::new(Sla { period, target, tenants, wish }))
}

/// What one tenant's days say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::portal) struct Uptime {
    /// Average of the days, unrounded.
    pub(in crate::portal) average: Option<Decimal>,
    downtime_minutes: Option<Decimal>,
    breaches: Option<i64>,
    worst: Option<(Date, Decimal)>,
}

impl Uptime {
    /// Each day counts once.
    fn of(days: impl IntoIterator<Item = UptimeDay>, period: Period) -> Self {
        let (first, last) = (period.first_day(), period.last_day());
        let days: BTreeMap<Date, UptimeDay> =
            days.into_iter().filter(|day| (first..=last).contains(&day.date)).map(|day| (day.date, day)).collect();
        let percentages = || days.values().map(|day| day.uptime_percentage);
        let worst = days.values().min_by_key(|day| (day.uptime_percentage, day.date));
        Self {
            average: percentages().sum::<Decimal>().checked_div(Decimal::from(days.len())),
            downtime_minutes: some(days.values().map(|day| day.downtime_minutes)),
            breaches: some(days.values().map(|day| day.breaches)),
            worst: worst.map(|day| (day.date, day.uptime_percentage)),
        }
    }
}

/// The sum of what is known, `None` where nothing is.
fn some<T: std::iter::Sum<T>>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let mut values = values.flatten().peekable();
    values.peek().is_some().then(|| values.sum())
}

/// The tenant's availability in the period.
pub(in crate::portal) fn uptime(period: Period, target: Decimal) -> Part<Uptime> {
    Part::new(Kind::Uptime, &(period, target), move |upstreams, site, until| async move {
        let days = upstreams.uptime(&site, period, target, until).await?;
        Ok(Loaded { value: Uptime::of(days, period), truncated: false, bytes: 200 })
    })
}

/// Outages of one tenant in a period.
#[derive(Clone, Debug, Default, PartialEq)]
struct Outages {
    count: u64,
    repaired: u64,
    minutes: Decimal,
}

impl Outages {
    fn count(&mut self, row: &BreachRow, period: Period) {
        if row.breach_type.as_deref() != Some(OUTAGE) || !period.holds(row.detected_at) {
            return;
        }
        self.count += 1;
        if let Some(minutes) = row.duration_minutes {
            self.repaired += 1;
            self.minutes += minutes;
        }
    }

    fn mttr(&self) -> Option<Decimal> {
        self.minutes.checked_div(Decimal::from(self.repaired))
    }
}

fn outages(period: Period) -> Part<Outages> {
    Part::new(Kind::Breaches, &period, move |upstreams, site, until| async move {
        let mut outages = Outages::default();
        let mut seen = Seen::default();
        let mut each = |row: BreachRow| {
            if seen.is_new(&row.breach_id) {
                outages.count(&row, period);
            }
        };
        let scanned = upstreams.breaches(&site, until, &mut each).await?;
        Ok(Loaded { value: outages, truncated: scanned.truncated, bytes: 64 })
    })
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SlaReport")]
pub(in crate::portal) struct Answer<'a> {
    summary: Summary,
    by_tenant: Vec<Tenant<'a>>,
    #[serde(flatten)]
    coverage: Coverage,
}

#[derive(Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "SlaSummary")]
struct Summary {
    tenant_count: usize,
    avg_uptime_percentage: Option<Number>,
    tenants_meeting_sla: usize,
    tenants_breaching_sla: usize,
    total_breach_count: Option<i64>,
    total_downtime_minutes: Option<Number>,
    worst_uptime_percentage: Option<Number>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TenantSla")]
struct Tenant<'a> {
    tenant_id: &'a TenantId,
    tenant_name: Option<&'a str>,
    uptime_percentage: Option<Number>,
    downtime_minutes: Option<Number>,
    breach_count: Option<i64>,
    meets_sla: Option<bool>,
    sla_target: Number,
    worst_day: Option<WorstDay>,
    outage_count: Option<u64>,
    mttr_minutes: Option<Number>,
}

#[derive(Serialize, JsonSchema)]
struct WorstDay {
    date: Date,
    uptime_percentage: Number,
}

/// One tenant's part.
struct Found<'c> {
    granted: &'c Granted,
    /// `None`: the source failed, or there is none.
    uptime: Option<Uptime>,
    outages: Option<Outages>,
    target: Decimal,
    source: Source,
}

impl Found<'_> {
    fn meets(&self) -> Option<bool> {
        self.uptime.as_ref()?.average.map(|average| average >= self.target)
    }

    fn view<'a>(&'a self, tenant_name: Option<&'a str>) -> Tenant<'a> {
        let uptime = self.uptime.clone().unwrap_or_default();
        let worst = |(date, percentage)| WorstDay { date, uptime_percentage: Number::ratio(percentage) };
        Tenant {
            tenant_id: self.granted.tenant(),
            tenant_name,
            uptime_percentage: uptime.average.map(Number::ratio),
            downtime_minutes: uptime.downtime_minutes.map(Number::ratio),
            breach_count: uptime.breaches,
            meets_sla: self.meets(),
            sla_target: Number::ratio(self.target),
            worst_day: uptime.worst.map(worst),
            outage_count: self.outages.as_ref().map(|outages| outages.count),
            mttr_minutes: self.outages.as_ref().and_then(Outages::mttr).map(Number::ratio),
        }
    }
}

fn summary(uptimes: &[(Uptime, Option<bool>)], nobody_asked: bool) -> Summary {
    let averages: Vec<Decimal> = uptimes.iter().filter_map(|(uptime, _)| uptime.average).collect();
    let meeting = |wanted| uptimes.iter().filter(|(_, meets)| *meets == Some(wanted)).count();
    let average = averages.iter().sum::<Decimal>().checked_div(Decimal::from(averages.len()));
    let zero = nobody_asked.then_some(0);
    Summary {
        tenant_count: uptimes.len(),
        avg_uptime_percentage: average.map(Number::ratio),
        tenants_meeting_sla: meeting(true),
        tenants_breaching_sla: meeting(false),
        total_breach_count: some(uptimes.iter().map(|(uptime, _)| uptime.breaches)).or(zero),
        total_downtime_minutes: some(uptimes.iter().map(|(uptime, _)| uptime.downtime_minutes))
            .or(zero.map(Decimal::from))
            .map(Number::ratio),
        worst_uptime_percentage: averages.iter().min().copied().map(Number::ratio),
    }
}

impl Prepared for Sla {
    fn narrow(&self) -> Narrow<'_> {
        (&self.tenants).into()
    }

    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let Self { period, target, wish, .. } = *self;
            let managed = portal.managed.of(&call.partner()?.portfolio).await?;
            let (uptime, outages) = (uptime(period, target), outages(period));
            let reading = portal.reading(&call);
            let read = async |granted| {
                let (uptime, outages) =
                    tokio::join!(reading.one(&uptime, granted), reading.optional(&outages, granted));
                let ends = vec![uptime.source(granted), outages.source(granted)];
                let own = managed.get(granted.tenant()).and_then(|managed| managed.link.terms.sla_uptime_target);
                Found {
                    granted,
                    uptime: uptime.value.map(|uptime| (*uptime).clone()),
                    outages: outages.value.map(|outages| (*outages).clone()),
                    target: own.unwrap_or(target),
                    source: worst(granted.tenant(), ends),
                }
            };
            let mut found = reading.each(read).await;
            found.sort_unstable_by(|one, other| one.granted.tenant().cmp(other.granted.tenant()));
            let nobody_asked = found.is_empty();
            let shown: Vec<&Found<'_>> = found.iter().filter(|found| found.source.as_of.is_some()).collect();
            let known = shown.iter().map(|found| (found.uptime.clone().unwrap_or_default(), found.meets()));
            let summary = summary(&known.collect::<Vec<_>>(), nobody_asked);
            let name = |granted: &Granted| managed.get(granted.tenant()).map(|managed| &*managed.tenant.name);
            let by_tenant = shown.iter().map(|found| found.view(name(found.granted))).collect();
            let sources = found.iter().map(|found| found.source.clone()).collect();
            let (coverage, outcomes) = Coverage::of(&call, wish, sources)?;
            let answer = Answer { summary, by_tenant, coverage };
            Ok(Reply::json(200, &answer)?.with_slices(outcomes))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period() -> Period {
        Period { from: "2026-03-01T00:00:00Z".parse().unwrap(), to: "2026-03-04T00:00:00Z".parse().unwrap() }
    }

    fn day(date: &str, hundredths: i64, downtime: Option<i64>) -> UptimeDay {
        UptimeDay {
            date: date.parse().unwrap(),
            uptime_percentage: Decimal::new(hundredths, 2),
            downtime_minutes: downtime.map(Decimal::from),
            breaches: Some(1),
        }
    }

    #[test]
    fn days_count_once_and_only_within_the_period() {
        let days = [
            day("2026-02-28", 0, Some(1_440)),
            day("2026-03-01", 10_000, Some(0)),
            day("2026-03-02", 9_951, Some(7)),
            day("2026-03-02", 9_951, Some(7)),
            day("2026-03-03", 9_951, None),
        ];
        let found = Uptime::of(days, period());
        assert_eq!(found.worst, Some(("2026-03-02".parse().unwrap(), Decimal::new(9_951, 2))), "the earlier one");
        assert_eq!((found.downtime_minutes, found.breaches), (Some(Decimal::from(7)), Some(3)));
        // (100 + 99.51 + 99.51) / 3 = 99.673...
        assert_eq!(Number::ratio(found.average.unwrap()).to_string(), "99.67");
        assert_eq!(Uptime::of([], period()), Uptime::default());
    }

    #[test]
    fn the_summary_averages_over_tenants_half_to_even() {
        let with = |hundredths, meets| {
            (Uptime { average: Some(Decimal::new(hundredths, 2)), breaches: Some(2), ..Uptime::default() }, meets)
        };
        let uptimes = [with(9_990, Some(true)), with(9_987, Some(false)), (Uptime::default(), None)];
        let json = serde_json::to_string(&summary(&uptimes, false)).unwrap();
        // 99.885 to even.
        assert_eq!(
            json,
            r#"{"tenant_count":3,"avg_uptime_percentage":99.88,"tenants_meeting_sla":1,"tenants_breaching_sla":1,"total_breach_count":4,"total_downtime_minutes":null,"worst_uptime_percentage":99.87}"#
        );
    }

    #[test]
    fn outages_are_breaches_of_availability_that_began_in_the_period() {
        let breach = |kind: &str, at: &str, minutes: Option<i64>| BreachRow {
            breach_id: "b".into(),
            breach_type: Some(kind.into()),
            severity: crate::connector::rows::Severity::Warning,
            detected_at: at.parse().unwrap(),
            ended_at: None,
            resolved: false,
            resolved_at: None,
            duration_minutes: minutes.map(Decimal::from),
            target_value: None,
            actual_value: None,
        };
        let mut outages = Outages::default();
        outages.count(&breach(OUTAGE, "2026-03-02T00:00:00Z", Some(30)), period());
        outages.count(&breach(OUTAGE, "2026-03-03T00:00:00Z", Some(45)), period());
        outages.count(&breach(OUTAGE, "2026-03-03T00:00:00Z", None), period());
        outages.count(&breach(OUTAGE, "2026-03-04T00:00:00Z", Some(500)), period());
        outages.count(&breach("latency", "2026-03-02T00:00:00Z", Some(500)), period());
        assert_eq!((outages.count, outages.mttr()), (3, Some(Decimal::new(375, 1))));
    }
}
