//! `GET /customers/{tenant_id}`.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};

use super::{
    Customer, compatible,
    parts::{self, Parts},
    view,
};
use crate::{
    domain::{ErrorCode, TenantId},
    portal::{
        Call, Narrow, Portal, Prepared, Problem, Question, Reply, Slice,
        fanout::Kind,
        partial::{Coverage, Wish, worst},
        query::Params,
    },
};

struct Detail {
    tenant: TenantId,
    wish: Wish,
    now: jiff::Timestamp,
    /// In the shape of older clients.
    compatible: bool,
}

pub(in crate::portal) fn prepare(question: &Question<'_>) -> Result<Box<dyn Prepared>, Problem> {
    let mut params = Params::new(question.query);
    let wish = Wish::read(&mut params);
    params.finish()?;
    // An id that no tenant can have names none.
    let tenant = question.param.and_then(|id| TenantId::new(id).ok()).ok_or_else(unknown)?;
    Ok(Box::new(Detail { tenant, wish, now: question.now, compatible: question.compatible }))
}

fn unknown() -> Problem {
    Problem::new(ErrorCode::TenantNotFound, "")
}

impl Prepared for Detail {
    fn narrow(&self) -> Narrow<'_> {
        Narrow::One(&self.tenant)
    }

    fn answer(self: Box<Self>, portal: Arc<Portal>, call: Call) -> BoxFuture<'static, Result<Reply, Problem>> {
        async move {
            let granted = match call.slices.first() {
                Some(Slice::Granted(granted)) => granted,
                Some(Slice::Forbidden { denial, .. }) => {
                    let (_, outcomes) = Coverage::of(&call, self.wish, Vec::new())?;
                    return Err(Problem::from(*denial).with_slices(outcomes));
                }
                Some(Slice::Live(_)) | None => return Err(unknown()),
            };
            let managed = portal.managed.of(&call.partner()?.portfolio).await?;
            let managed = managed.get(granted.tenant()).map(Arc::clone).ok_or_else(unknown)?;
            let reading = portal.reading(&call);
            let (registry, parts) = (parts::registry(), Parts::new(self.now, true));
            let (registry, (figures, mut ends)) =
                tokio::join!(reading.optional(&registry, granted), parts.read(&reading, granted));
            ends.push(parts::told(&registry, granted, Kind::Registry));
            let sources = vec![worst(granted.tenant(), ends)];
            let (coverage, outcomes) = Coverage::of(&call, self.wish, sources)?;
            let customer = Customer { granted, managed, registry: registry.value };
            let reply = if self.compatible {
                Reply::json(200, &compatible::Detail::of(&customer, &figures, coverage))?
            } else {
                Reply::json(200, &view::Detail::of(&customer, &figures, coverage))?
            };
            Ok(reply.with_slices(outcomes))
        }
        .boxed()
    }
}
