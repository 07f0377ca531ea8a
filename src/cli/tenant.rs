//! `linkgate tenant`: the tenants that links can be about, and that partners are at home in.

use clap::{Args, Subcommand};

use super::{
    outcome::{Exit, Failure},
    store_context::{ActorArgs, PageArgs, StoreContext, nothing_to_change},
};
use crate::{
    domain::{ErrorCode, TenantId},
    store::{StoreError, admin::TenantInput},
};

/// Create, list, show and update tenants.
#[derive(Debug, Args)]
pub struct TenantArgs {
    #[command(flatten)]
    actor: ActorArgs,
    #[command(subcommand)]
    command: TenantCommand,
}

#[derive(Debug, Subcommand)]
enum TenantCommand {
    /// Make a tenant known
    ///
    /// Example: linkgate tenant create isp-north --name "North Fibre" --slug north
    Create {
        /// Its id, 1 to 255 characters, compared byte for byte
        id: String,
        #[command(flatten)]
        fields: TenantFields,
    },
    /// List tenants in the order of their ids
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one tenant
    Show {
        /// Its id, as `tenant list` shows it
        id: TenantArg,
    },
    /// Change the given fields; the others stay as they are
    Update {
        /// Its id, as `tenant list` shows it
        id: TenantArg,
        #[command(flatten)]
        fields: TenantFields,
        /// Refuse if it is not at this version
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<i64>,
    },
}

#[derive(Debug, Args)]
struct TenantFields {
    /// Name shown to people [create without it: the id]
    #[arg(long)]
    name: Option<String>,
    /// Short name; empty clears it
    #[arg(long)]
    slug: Option<String>,
    /// Domain; empty clears it
    #[arg(long)]
    domain: Option<String>,
    /// Its own status, such as active or suspended; by itself it ends no access [create without it: active]
    #[arg(long)]
    status: Option<String>,
}

/// A tenant id on the command line.
#[derive(Clone, Debug)]
pub(super) struct TenantArg(pub(super) TenantId);

impl std::str::FromStr for TenantArg {
    type Err = crate::domain::ids::InvalidTenantId;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        TenantId::new(text).map(Self)
    }
}

impl TenantFields {
    fn are_unset(&self) -> bool {
        self.name.is_none() && self.slug.is_none() && self.domain.is_none() && self.status.is_none()
    }

    fn input(self, tenant_id: Option<String>) -> TenantInput {
        TenantInput { tenant_id, name: self.name, slug: self.slug, domain: self.domain, status: self.status }
    }
}

/// A tenant that is there is changed, not created.
fn taken(error: StoreError, id: &str) -> Failure {
    match error {
        StoreError::Refused(refusal) if refusal.code == ErrorCode::Conflict => Failure::new(
            Exit::Conflict,
            format!("the tenant `{id}` exists already: change it with `linkgate tenant update {id}`"),
        ),
        other => other.into(),
    }
}

pub fn run(args: TenantArgs, context: &StoreContext<'_>) -> Result<(), Failure> {
    let actor = args.actor.actor();
    match args.command {
        TenantCommand::Create { id, fields } => {
            let input = fields.input(Some(id.clone()));
            let made = context.with(|admin| async move {
                admin.create_tenant(&actor, &input).await.map_err(|error| taken(error, &id))
            })?;
            context.show(&made.value)
        }
        TenantCommand::List { page } => {
            let found = context.with(|admin| async move { Ok(admin.tenants(page.page()).await?) })?;
            context.console.list(&found, &["tenant", "name", "slug", "domain", "status"], |tenant| {
                vec![
                    tenant.tenant_id.to_string(),
                    tenant.name.clone(),
                    tenant.slug.clone().unwrap_or_default(),
                    tenant.domain.clone().unwrap_or_default(),
                    tenant.status.clone(),
                ]
            })
        }
        TenantCommand::Show { id } => {
            context.show(&context.with(|admin| async move { Ok(admin.tenant(&id.0).await?) })?)
        }
        TenantCommand::Update { id, fields, expect_version } => {
            if fields.are_unset() {
                return Err(nothing_to_change("tenant"));
            }
            let input = fields.input(None);
            let written = context
                .with(|admin| async move { Ok(admin.update_tenant(&actor, &id.0, expect_version, &input).await?) })?;
            context.show(&written.value)
        }
    }
}
