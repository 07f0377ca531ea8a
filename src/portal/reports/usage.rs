//! `GET /reports/usage`: subscribers and traffic of the period.
//!
//! A time series has at most as many pieces as a period may have ([`Step::refusal`]), and asks each tenant once a piece, at
//! most [`MAX_QUESTIONS`] questions in all: a service tells subscribers and traffic of one range, and those of several ranges
//! cannot be told from it. Where `group_by` is not named its pieces are days, or weeks or months where days are too many;
//! where the pieces that were named need too many questions the series holds nulls and the sources say so. Subscribers come
//! from the traffic service, else from the tenant's metrics.
//! The summary's average is that of the tenants' own averages.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use jiff::civil::Date;
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    connector::rows::UsageRow,
    domain::{TenantId, money::Number},
    portal::{
        Call, Granted, Narrow, Portal, Prepared, Problem, Question, Reply,
        fanout::{Kind, Loaded, Part, Reading},
        partial::{Coverage, Source, Status, Wish, worst},
        periods::{Step, pieces},
        query::{Params, Period},
    },
};

/// Questions that one request may ask for its time series.
const MAX_QUESTIONS: usize = 4_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Every(Step),
    /// No series.
    Tenant,
}

const GROUPS: &[(&str, Group)] = &[
    ("day", Group::Every(Step::Day)),
    ("week", Group::Every(Step::Week)),
    ("month", Group::Every(Step::Month)),
    ("tenant", Group::Tenant),
];

struct Usage {
    period: Period,
    /// `None`: the finest that is not too much.
    group: Option<Group>,
    tenants: Option<Vec<TenantId>>,
    wish: Wish,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let period = params.period(question.now);
    let tenants = params.tenant_ids();
    let group = params.word("group_by", GROUPS);
    // Months are the last that would be tried where nothing is named.
    let longer = match group {
        Some(Group::Tenant) => None,
        Some(Group::Every(step @ (Step::Day | Step::Week))) => Some((step, "longer steps (group_by) reach further")),
        Some(Group::Every(Step::Month)) | None => Some((Step::Month, "group_by=tenant makes no series")),
    };
    if let Some((step, way_out)) = longer
        && let Some(fault) = step.refusal(period)
    {
        params.fail("from_date", format!("{fault}; {way_out}"));
    }
    let wish = Wish::read(&mut params);
    params.finish()?;
    Ok(Box::new(Usage { period, group, tenants, wish }))
}

fn traffic(period: Period) -> Part<UsageRow> {
    Part::new(Kind::Usage, &period, move |upstreams, site, until| async move {
        let value = upstreams.usage(&site, period, until).await?;
        Ok(Loaded { value, truncated: false, bytes: 200 })
    })
}

/// Total subscribers, where the traffic service does not say.
fn subscribers() -> Part<Option<i64>> {
    Part::new(Kind::Metrics, &"subscribers", |upstreams, site, until| async move {
        let value = upstreams.metrics(&site, until).await?.total_subscribers;
        Ok(Loaded { value, truncated: false, bytes: 16 })
    })
}

/// The pieces of the series. Counted first: none is made that is not answered with.
fn cut(period: Period, group: Option<Group>, tenants: usize) -> Vec<Period> {
    let fits = |step: &Step| {
        let questions = usize::try_from(step.count(period)).map(|count| count.saturating_mul(tenants));
        step.refusal(period).is_none() && questions.is_ok_and(|questions| questions <= MAX_QUESTIONS)
    };
    let step = match group {
        Some(Group::Every(step)) => Some(step),
        Some(Group::Tenant) => None,
        None => [Step::Day, Step::Week, Step::Month].into_iter().find(fits),
    };
    step.map_or_else(Vec::new, |step| pieces(period, step))
}

/// One tenant's part.
struct Found<'c> {
    granted: &'c Granted,
    usage: Option<UsageRow>,
    /// One for each piece.
    series: Vec<Option<Arc<UsageRow>>>,
    source: Source,
}

/// What is asked of each tenant.
struct Parts {
    whole: Part<UsageRow>,
    subscribers: Part<Option<i64>>,
    series: Vec<Part<UsageRow>>,
}

impl Parts {
    async fn read<'c>(&self, reading: &Reading<'_>, granted: &'c Granted) -> Found<'c> {
        let whole = reading.one(&self.whole, granted);
        let series = futures_util::future::join_all(self.series.iter().map(|piece| reading.one(piece, granted)));
        let (whole, series) = tokio::join!(whole, series);
        let mut ends = vec![whole.source(granted)];
        ends.extend(series.iter().map(|outcome| outcome.source(granted)));
        let mut usage = whole.value.map(|row| (*row).clone());
        if let Some(row) = usage.as_mut().filter(|row| row.subscriber_count.is_none()) {
            let outcome = reading.optional(&self.subscribers, granted).await;
            ends.push(outcome.source(granted));
            row.subscriber_count = outcome.value.and_then(|count| *count);
        }
        let series = series.into_iter().map(|outcome| outcome.value).collect();
        Found { granted, usage, series, source: worst(granted.tenant(), ends) }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageReport")]
pub(in crate::portal) struct Answer<'a> {
    summary: Summary,
    by_tenant: Vec<Tenant<'a>>,
    time_series: Vec<Point>,
    #[serde(flatten)]
    coverage: Coverage,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsageSummary")]
struct Summary {
    total_subscribers: Option<i64>,
    active_subscribers: Option<i64>,
    total_data_gb: Option<Number>,
    avg_data_per_subscriber_gb: Option<Number>,
    period_days: i64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TenantUsage")]
struct Tenant<'a> {
    tenant_id: &'a TenantId,
    tenant_name: Option<&'a str>,
    subscriber_count: Option<i64>,
    active_subscriber_count: Option<i64>,
    total_data_gb: Option<Number>,
    avg_data_per_subscriber_gb: Option<Number>,
    peak_bandwidth_mbps: Option<Number>,
    avg_bandwidth_mbps: Option<Number>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsagePoint")]
struct Point {
    /// The piece's first day.
    date: Date,
    total_data_gb: Option<Number>,
    active_subscribers: Option<i64>,
}

/// The sum of what is known; `None` where nothing is, and zero where nobody was asked.
fn sum<T: std::iter::Sum<T>>(nobody_asked: bool, values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let mut values = values.flatten().peekable();
    (nobody_asked || values.peek().is_some()).then(|| values.sum())
}

fn per_subscriber(row: &UsageRow) -> Option<Decimal> {
    let subscribers = row.subscriber_count.filter(|count| *count > 0)?;
    row.total_data_gb?.checked_div(Decimal::from(subscribers))
}

fn summary(rows: &[&UsageRow], nobody_asked: bool, period: Period) -> Summary {
    let averages: Vec<Decimal> = rows.iter().filter_map(|row| per_subscriber(row)).collect();
    let average = averages.iter().sum::<Decimal>().checked_div(Decimal::from(averages.len()));
    Summary {
        total_subscribers: sum(nobody_asked, rows.iter().map(|row| row.subscriber_count)),
        active_subscribers: sum(nobody_asked, rows.iter().map(|row| row.active_subscriber_count)),
        total_data_gb: sum(nobody_asked, rows.iter().map(|row| row.total_data_gb)).map(Number::ratio),
        avg_data_per_subscriber_gb: average.map(Number::ratio),
        period_days: period.days(),
    }
}

fn point(piece: Period, rows: &[Arc<UsageRow>], nobody_asked: bool) -> Point {
    Point {
        date: piece.first_day(),
        total_data_gb: sum(nobody_asked, rows.iter().map(|row| row.total_data_gb)).map(Number::ratio),
        active_subscribers: sum(nobody_asked, rows.iter().map(|row| row.active_subscriber_count)),
    }
}

impl Prepared for Usage {
    fn narrow(&self) -> Narrow<'_> {
        (&self.tenants).into()
    }

    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let Self { period, group, wish, .. } = *self;
            let managed = portal.managed.of(&call.partner()?.portfolio).await?;
            let cut = cut(period, group, call.granted().count());
            let too_many = call.granted().count().saturating_mul(cut.len()) > MAX_QUESTIONS;
            let series = if too_many { Vec::new() } else { cut.iter().map(|piece| traffic(*piece)).collect() };
            let parts = Parts { whole: traffic(period), subscribers: subscribers(), series };
            let reading = portal.reading(&call);
            let mut found = reading.each(|granted| parts.read(&reading, granted)).await;
            found.sort_unstable_by(|one, other| one.granted.tenant().cmp(other.granted.tenant()));
            let nobody_asked = found.is_empty();
            let rows: Vec<&UsageRow> = found.iter().filter_map(|found| found.usage.as_ref()).collect();
            let summary = summary(&rows, nobody_asked, period);
            let time_series = cut.iter().enumerate().map(|(at, piece)| {
                let rows: Vec<_> = found.iter().filter_map(|found| found.series.get(at)?.clone()).collect();
                point(*piece, &rows, nobody_asked)
            });
            let time_series = time_series.collect();
            let by_tenant = found.iter().filter_map(|found| {
                let row = found.usage.as_ref()?;
                let tenant_id = found.granted.tenant();
                Some(Tenant {
                    tenant_id,
                    tenant_name: managed.get(tenant_id).map(|managed| &*managed.tenant.name),
                    subscriber_count: row.subscriber_count,
                    active_subscriber_count: row.active_subscriber_count,
                    total_data_gb: row.total_data_gb.map(Number::ratio),
                    avg_data_per_subscriber_gb: per_subscriber(row).map(Number::ratio),
                    peak_bandwidth_mbps: row.peak_bandwidth_mbps.map(Number::ratio),
                    avg_bandwidth_mbps: row.avg_bandwidth_mbps.map(Number::ratio),
                })
            });
            let by_tenant = by_tenant.collect();
            let sources = found.iter().map(|found| found.source.clone());
            let sources = sources.map(|source| if too_many { without_series(source, cut.len()) } else { source });
            let (coverage, outcomes) = Coverage::of(&call, wish, sources.collect())?;
            let answer = Answer { summary, by_tenant, time_series, coverage };
            Ok(Reply::json(200, &answer)?.with_slices(outcomes))
        }
        .boxed()
    }
}

/// A source whose part of the series was never asked for.
fn without_series(source: Source, pieces: usize) -> Source {
    if source.status > Status::Truncated {
        return source;
    }
    let error = format!(
        "a time series of {pieces} values for each tenant needs more than {MAX_QUESTIONS} questions: \
         choose longer steps, fewer tenants or group_by=tenant"
    );
    Source { status: Status::Truncated, error: Some(error), ..source }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::domain::Moment;

    fn row(subscribers: Option<i64>, gb: Option<i64>) -> UsageRow {
        UsageRow {
            subscriber_count: subscribers,
            active_subscriber_count: Some(1),
            total_data_gb: gb.map(Decimal::from),
            ..UsageRow::default()
        }
    }

    fn period() -> Period {
        Period { from: "2026-03-01T00:00:00Z".parse().unwrap(), to: "2026-03-31T00:00:00Z".parse().unwrap() }
    }

    #[test]
    fn sums_what_is_known_and_averages_over_tenants() {
        let rows = [row(Some(10), Some(100)), row(Some(2), Some(5)), row(None, Some(7)), row(Some(0), None)];
        let found = summary(&rows.iter().collect::<Vec<_>>(), false, period());
        let json = serde_json::to_string(&found).unwrap();
        // (10 + 2.5) / 2
        assert_eq!(
            json,
            r#"{"total_subscribers":12,"active_subscribers":4,"total_data_gb":112.00,"avg_data_per_subscriber_gb":6.25,"period_days":30}"#
        );
    }

    #[test]
    fn the_series_is_as_fine_as_it_may_be() {
        let pieces = |tenants| cut(period(), None, tenants).len();
        assert_eq!([pieces(0), pieces(133), pieces(134), pieces(1_000), pieces(5_000)], [30, 30, 6, 1, 0]);
        assert_eq!(cut(period(), Some(Group::Every(Step::Day)), 5_000).len(), 30, "what is named is kept");
        assert!(cut(period(), Some(Group::Tenant), 1).is_empty());
    }

    #[test]
    fn no_series_is_made_beyond_its_bounds() {
        let to = Timestamp::MAX;
        for from in ["0001-01-01", "1500-01-01", "1909-01-01", "2000-01-01", "9990-01-01", "9999-11-01"] {
            let period = Period { from: Moment::parse(from).unwrap().start(), to };
            for tenants in [0, 1, 3, 22, 4_000, 5_000] {
                let found = cut(period, None, tenants).len();
                assert!(found <= 1_096 && found * tenants <= MAX_QUESTIONS, "{from}, {tenants} tenants: {found}");
            }
        }
        let years = Period { from: "2000-01-01T00:00:00Z".parse().unwrap(), ..period() };
        assert_eq!([1, 15].map(|tenants| cut(years, None, tenants).len()), [315, 0], "months, or too many of them");
    }

    #[test]
    fn unknown_is_null_and_nobody_asked_is_zero() {
        let unknown = serde_json::to_value(summary(&[], false, period())).unwrap();
        assert!(unknown["total_subscribers"].is_null() && unknown["total_data_gb"].is_null());
        let none = serde_json::to_value(summary(&[], true, period())).unwrap();
        assert_eq!((&none["total_subscribers"], &none["total_data_gb"]), (&0.into(), &0.0.into()));
        assert!(none["avg_data_per_subscriber_gb"].is_null());
    }
}
