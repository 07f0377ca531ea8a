//! `linkgate partner`: the organisations that work in other organisations' tenants.

use clap::{Args, Subcommand};

use super::{
    outcome::Failure,
    store_context::{ActorArgs, PageArgs, StoreContext, nothing_to_change, yes},
};
use crate::{domain::PartnerId, store::admin::PartnerInput};

/// Create, list, show and update partners.
#[derive(Debug, Args)]
pub struct PartnerArgs {
    #[command(flatten)]
    actor: ActorArgs,
    #[command(subcommand)]
    command: PartnerCommand,
}

#[derive(Debug, Subcommand)]
enum PartnerCommand {
    /// Make a partner
    ///
    /// Example: linkgate partner create --name "Blue MSP" --home-tenant blue-msp
    Create {
        /// Its id, a uuid [default: a new one]
        #[arg(long, value_name = "UUID")]
        id: Option<PartnerId>,
        /// Name shown to people
        #[arg(long)]
        name: String,
        /// The partner's own tenant; `linkgate tenant create` makes it known
        #[arg(long, value_name = "TENANT")]
        home_tenant: String,
        /// Make it inactive: none of its links gives access yet
        #[arg(long)]
        inactive: bool,
    },
    /// List partners in the order of their ids
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one partner
    Show {
        /// Its id, as `partner list` shows it
        id: PartnerId,
    },
    /// Change the given fields
    Update {
        /// Its id, as `partner list` shows it
        id: PartnerId,
        #[arg(long)]
        name: Option<String>,
        /// Only while the partner has no links
        #[arg(long, value_name = "TENANT")]
        home_tenant: Option<String>,
        /// `false` closes every link of the partner, and every link delegated onward from one, until it is `true` again
        #[arg(long, value_name = "BOOL")]
        active: Option<bool>,
        /// Refuse if it is not at this version
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<i64>,
    },
}

pub fn run(args: PartnerArgs, context: &StoreContext<'_>) -> Result<(), Failure> {
    let actor = args.actor.actor();
    match args.command {
        PartnerCommand::Create { id, name, home_tenant, inactive } => {
            let input = PartnerInput {
                partner_id: id.map(|id| id.to_string()),
                name: Some(name),
                home_tenant_id: Some(home_tenant),
                is_active: Some(!inactive),
            };
            let made = context.with(|admin| async move { Ok(admin.create_partner(&actor, &input).await?) })?;
            context.show(&made.value)
        }
        PartnerCommand::List { page } => {
            let found = context.with(|admin| async move { Ok(admin.partners(page.page()).await?) })?;
            context.console.list(&found, &["partner", "name", "home tenant", "active"], |partner| {
                vec![
                    partner.partner_id.to_string(),
                    partner.name.clone(),
                    partner.home_tenant_id.to_string(),
                    yes(partner.is_active),
                ]
            })
        }
        PartnerCommand::Show { id } => {
            context.show(&context.with(|admin| async move { Ok(admin.partner(id).await?) })?)
        }
        PartnerCommand::Update { id, name, home_tenant, active, expect_version } => {
            if name.is_none() && home_tenant.is_none() && active.is_none() {
                return Err(nothing_to_change("partner"));
            }
            if active == Some(false) {
                context.console.confirm(&format!("deactivates partner {id}: all its users lose all its tenants"))?;
            }
            let input = PartnerInput { partner_id: None, name, home_tenant_id: home_tenant, is_active: active };
            let written = context
                .with(|admin| async move { Ok(admin.update_partner(&actor, id, expect_version, &input).await?) })?;
            context.show(&written.value)
        }
    }
}
