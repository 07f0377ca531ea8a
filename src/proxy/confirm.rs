//! The stage that decides once more what waited for its body to be read.

use std::rc::Rc;

use super::{
    authorize::decide,
    fields::Checked,
    quota::Admitted,
    respond::Failure,
    said::Said,
    session::{Unresolved, Who},
    tenant::{Placed, Scope},
    trail::Trail,
    worker::Worker,
};
use crate::domain::{Denial, ErrorCode, Millis, Reason};

/// Decides once more, by the facts of now, what waited for its body to be read.
pub async fn again(worker: &Rc<Worker>, trail: &mut Trail, checked: Checked) -> Result<Checked, Failure> {
    let Checked { admitted: Admitted(authorized), read } = checked;
    let Scope::Cross(session, tenant) = &authorized.placed.scope else {
        return Ok(Checked { admitted: Admitted(authorized), read });
    };
    if read.is_none() {
        return Ok(Checked { admitted: Admitted(authorized), read });
    }
    let (session, tenant) = (Rc::clone(session), tenant.clone());
    let refreshed = worker.refreshed(&session).await;
    let session = refreshed.map_err(|Unresolved| Failure::new(ErrorCode::LinksStale, "links_stale"))?;
    trail.now = Millis::now();
    trail.session = Some(Rc::clone(&session));
    trail.said = Said::default();
    match &session.who {
        Who::Refused(denial) => return Err((*denial).into()),
        Who::Plain => return Err(Denial::new(ErrorCode::Forbidden, Reason::NotAPartner).into()),
        Who::Partner(_) if session.suspended => {
            return Err(Denial::new(ErrorCode::TenantAccessDenied, Reason::AccessSuspended).into());
        }
        Who::Partner(_) => {}
    }
    let placed = Placed { scope: Scope::Cross(session, tenant), ..authorized.placed };
    Ok(Checked { admitted: Admitted(decide(worker, trail, placed)?), read })
}
