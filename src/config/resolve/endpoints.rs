//! Upstreams: their endpoints, how their health is known, and how many requests are tried again.

use super::{DAY, FieldPath, Resolver, millis};
use crate::{
    config::{
        raw::upstream::{RawBudget, RawHealthCheck, RawOutlier, RawUpstream},
        scalar,
    },
    upstream::settings::{BudgetSettings, HealthCheck, Origin, OutlierSettings},
};

impl Resolver<'_> {
    /// The shared endpoints: `origin` is the short way to say that there is one.
    pub(super) fn endpoints(&mut self, at: &FieldPath, raw: &RawUpstream) -> Vec<Origin> {
        let (one, many) = (at.key("origin"), at.key("endpoints"));
        if raw.origin.is_none() && raw.endpoints.is_empty() && raw.tenants.is_empty() {
            self.fail(
                &one,
                "is missing: name the service's address, several under `endpoints`, or one for each tenant under `tenants`",
            );
        }
        if raw.origin.is_some() && !raw.endpoints.is_empty() {
            self.fail(&many, "and `origin` both say where the service is: put that address among the `endpoints`");
        }
        let mut found: Vec<Origin> =
            raw.origin.iter().filter_map(|text| self.ok(&one, scalar::parse_origin(text))).collect();
        for (place, text) in raw.endpoints.iter().enumerate() {
            let field = many.index(place);
            let Some(origin) = self.ok(&field, scalar::parse_origin(text)) else { continue };
            let same = |known: &Origin| (known.host(), known.port()) == (origin.host(), origin.port());
            if found.first().is_some_and(|first| first.https != origin.https) {
                self.fail(
                    &field,
                    "has another scheme than the first: a request that fails over must not lose TLS on its way",
                );
            } else if found.iter().any(same) {
                self.fail(&field, "is named twice");
            } else {
                found.push(origin);
            }
        }
        found
    }

    pub(super) fn outlier(&mut self, at: &FieldPath, raw: &RawOutlier) -> OutlierSettings {
        let base = self.duration(&at.key("base_ejection_time"), &raw.base_ejection_time, millis(1)..=DAY);
        let max = self.duration(&at.key("max_ejection_time"), &raw.max_ejection_time, millis(1)..=DAY);
        if max < base {
            self.fail(&at.key("max_ejection_time"), "is shorter than `base_ejection_time`");
        }
        OutlierSettings {
            consecutive_failures: raw.consecutive_failures,
            base_ejection_time: base,
            max_ejection_time: max,
            max_ejection_percent: self.percent(&at.key("max_ejection_percent"), raw.max_ejection_percent),
            panic_threshold: self.percent(&at.key("panic_threshold"), raw.panic_threshold),
        }
    }

    pub(super) fn budget(&mut self, at: &FieldPath, raw: &RawBudget) -> BudgetSettings {
        let ratio_percent = self.percent(&at.key("ratio_percent"), raw.ratio_percent);
        BudgetSettings { ratio_percent, min_per_second: raw.min_per_second }
    }

    fn percent(&mut self, at: &FieldPath, number: u32) -> u32 {
        if number > 100 {
            self.fail(at, format!("{number} is no share in percent: 0 to 100"));
        }
        number
    }

    pub(super) fn health_check(&mut self, at: &FieldPath, raw: &RawHealthCheck) -> Option<HealthCheck> {
        let path = at.key("path");
        let target = raw.path.parse::<http::uri::PathAndQuery>();
        let good = raw.path.starts_with('/') && target.is_ok_and(|target| target.as_str() == raw.path);
        if !good {
            self.fail(&path, "must be a path such as `/healthz`, with a query if need be");
        }
        let interval = self.duration(&at.key("interval"), &raw.interval, millis(100)..=DAY);
        let timeout = self.duration(&at.key("timeout"), &raw.timeout, millis(1)..=DAY);
        if timeout > interval {
            self.fail(
                &at.key("timeout"),
                "is longer than `interval`: a check would still wait when the next one is due",
            );
        }
        for (field, number) in
            [("healthy_threshold", raw.healthy_threshold), ("unhealthy_threshold", raw.unhealthy_threshold)]
        {
            self.at_least_one(&at.key(field), number);
        }
        let statuses = at.key("expected_statuses");
        if raw.expected_statuses.is_empty() {
            self.fail(&statuses, "is empty: no check could ever be good");
        }
        for (place, status) in raw.expected_statuses.iter().enumerate() {
            if !(200..=599).contains(status) {
                self.fail(&statuses.index(place), format!("{status} is no final HTTP status: 200 to 599"));
            }
        }
        good.then(|| HealthCheck {
            path: raw.path.clone(),
            interval,
            timeout,
            healthy_threshold: raw.healthy_threshold,
            unhealthy_threshold: raw.unhealthy_threshold,
            expected_statuses: raw.expected_statuses.clone(),
        })
    }
}
