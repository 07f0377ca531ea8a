//! `linkgate policy show`: what one link, or one role, amounts to: its Cedar text, and a table of what it lets through.

use super::{SetArgs, name_of};
use crate::{
    cli::{
        context::Context,
        outcome::{Exit, Failure},
        tenant::TenantArg,
    },
    domain::{LinkFacts, LinkId, LinkRole, Millis, PartnerId},
    ops::policy::show::Report,
    store::admin::{LinkFilter, Page},
};

/// Show what a link or a role amounts to: its Cedar text and a table of permissions
///
/// For a link, the text is written as if it were generated for that link alone: its ids, its window and its overrides
/// stand in it as they are. The table speaks of a user who holds every permission and shows what is left to decide: MFA,
/// address, time, or a rule of your own.
#[derive(clap::Args, Debug)]
pub struct ShowArgs {
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    of: Of,
    /// With --tenant: the partner whose link is meant
    #[arg(long, value_name = "UUID", requires = "tenant")]
    partner: Option<PartnerId>,
    /// The instant that the table is for [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<Millis>,
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Of {
    /// Of this link, read from the database
    #[arg(long, value_name = "UUID")]
    link: Option<LinkId>,
    /// Of the link to this tenant; needs --partner
    #[arg(long, value_name = "ID", requires = "partner")]
    tenant: Option<TenantArg>,
    /// Of a live link of this role, without limits or overrides of its own
    #[arg(long)]
    role: Option<LinkRole>,
}

fn instant(text: &str) -> Result<Millis, String> {
    Millis::parse(text).map_err(|error| error.to_string())
}

pub fn run(args: &ShowArgs, context: &Context) -> Result<(), Failure> {
    let bundle = args.set.load(context)?;
    let at = args.at.unwrap_or_else(Millis::now);
    let name = name_of(args.set.dir(context).as_deref());
    let report = match args.of.role {
        Some(role) => Report::of_role(&bundle, name, role, at)?,
        None => Report::of_link(&bundle, name, &find(args, context)?, at),
    };
    context.console.show(&report, report.text(&bundle))
}

/// The link with all that its gates read, as a decision would see it now.
fn find(args: &ShowArgs, context: &Context) -> Result<LinkFacts, Failure> {
    let (link, tenant, partner) = (args.of.link, args.of.tenant.as_ref().map(|tenant| tenant.0.clone()), args.partner);
    let mut found = None;
    context.store(|store| {
        found = store.with(|admin| async move {
            let id = match (link, partner, tenant) {
                (Some(id), _, _) => Some(id),
                (None, partner, tenant) => {
                    let filter = LinkFilter { partner, tenant, ..LinkFilter::default() };
                    admin.links(&filter, Page::default()).await?.first().map(|record| record.id)
                }
            };
            match id {
                Some(id) => Ok(Some(admin.standing(id).await?)),
                None => Ok(None),
            }
        })?;
        Ok(())
    })?;
    found.ok_or_else(|| Failure::new(Exit::NotFound, "this partner has no link to this tenant"))
}
