//! Import: the rows of a file as the body, read and judged as the command line does it. A row that is refused is told and
//! the others go on; a file whose columns are not understood is refused whole.
//!
//! Nothing that a single operation would ask for is left out: each row goes through the very rules of `POST /tenants`,
//! `/partners`, `/users` or `/links`, under the token's name, four eyes and approval included.

use http::header;

use super::{
    answer::{Answer, store_problem, trouble},
    ask::{Ask, invalid},
    desk::Desk,
    table::Operation,
};
use crate::{
    domain::ErrorCode,
    ops::{
        Trouble, aside,
        import::{Format, What, rows},
    },
    portal::Problem,
    proxy::headers::{Single, single},
    store::admin::{ImportStopped, Stop},
};

/// Most rows of one call; the command line takes any number.
const MOST_ROWS: usize = 10_000;
pub(super) const FORMATS: &[(&str, Format)] = &[("csv", Format::Csv), ("jsonl", Format::Jsonl)];
/// Media types of the two.
pub(super) const TYPES: &[(&str, Format)] =
    &[("text/csv", Format::Csv), ("application/jsonl", Format::Jsonl), ("application/x-ndjson", Format::Jsonl)];

pub(super) async fn run(desk: &Desk, ask: &Ask) -> Result<Answer, Problem> {
    let mut params = ask.params();
    let named = params.word("format", FORMATS);
    params.finish()?;
    let unsaid = || invalid("format", "say what the body is: `format=csv` or `format=jsonl`, or its `Content-Type`");
    let format = named.or_else(|| by_type(ask)).ok_or_else(unsaid)?;
    let what = match ask.spec.operation {
        Operation::ImportTenants => What::Tenants,
        Operation::ImportPartners => What::Partners,
        Operation::ImportUsers => What::Users,
        _ => What::Links,
    };
    if ask.body.is_empty() {
        return Err(Problem::new(ErrorCode::BadRequest, "the rows to import are needed as the body"));
    }
    let counted = ask.body.clone();
    // A body that ends within a quote is refused whole, before anything of it is written.
    let count = aside(move || {
        let mut rows = rows(&*counted, format, what).map_err(Trouble::Invalid)?.take(MOST_ROWS + 1);
        rows.try_fold(0, |count, row| row.map(|_| count + 1)).map_err(|stop| Trouble::Invalid(stop.to_string()))
    });
    if count.await.map_err(|error| trouble(ask, error))? > MOST_ROWS {
        let message = format!("at most {MOST_ROWS} rows are imported at once: cut the file, or use `linkgate import`");
        return Err(Problem::new(ErrorCode::PayloadTooLarge, message));
    }
    // Read once more as they are written: never all of them at a time.
    let rows = rows(&*ask.body, format, what).map_err(|message| trouble(ask, Trouble::Invalid(message)))?;
    let mut changes = Vec::new();
    let done = desk.admin.import(&desk.actor, rows, |_| (), |change| changes.push(change)).await;
    for change in &changes {
        desk.gateway.directory.notice(change).await;
    }
    match done {
        Ok(report) => Answer::ok(&report),
        Err(ImportStopped { report, recorded, error }) => {
            let (problem, what) = match error {
                Stop::Database(error) => (store_problem(ask, error), "the database failed".to_owned()),
                // Looked for above, in the very bytes.
                other => (trouble(ask, Trouble::Internal(other.to_string())), other.to_string()),
            };
            let message = format!(
                "{what} after {} rows had been imported and {} refused; the rest was not looked at: import the \
                 file again, rows that are there are refused then",
                report.imported, report.refused_rows
            );
            let unrecorded = if recorded { "" } else { "; no record of its own says so" };
            desk.partly(format!(
                "import_stopped: {} rows imported, {} refused{unrecorded}",
                report.imported, report.refused_rows
            ));
            Err(Problem { message: message.into(), ..problem })
        }
    }
}

fn by_type(ask: &Ask) -> Option<Format> {
    let Single::One(value) = single(&ask.headers, header::CONTENT_TYPE) else { return None };
    let essence = value.to_str().ok()?.split(';').next()?.trim();
    TYPES.iter().find(|(name, _)| essence.eq_ignore_ascii_case(name)).map(|(_, format)| *format)
}
