//! `linkgate user`: the people of partners, by the issuer and subject of their tokens.

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{
    outcome::{Exit, Failure},
    store_context::{ActorArgs, PageArgs, StoreContext, nothing_to_change, yes},
};
use crate::{
    domain::{PartnerId, ids::InvalidId},
    store::admin::UserInput,
};

/// Create, list, show and update partner users.
#[derive(Debug, Args)]
pub struct UserArgs {
    #[command(flatten)]
    actor: ActorArgs,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a person a user of a partner
    ///
    /// Example: linkgate user create --partner <UUID> --issuer https://login.example --sub 4711
    Create {
        #[arg(long, value_name = "UUID")]
        partner: PartnerId,
        /// `iss` of the tokens; left out for the legacy issuer, whose tokens have none
        #[arg(long, default_value = "")]
        issuer: String,
        /// `sub` of the tokens
        #[arg(long)]
        sub: String,
        /// Name shown to people
        #[arg(long)]
        username: Option<String>,
        /// Make it inactive: every request of this user is refused
        #[arg(long)]
        inactive: bool,
    },
    /// List users in the order of their ids
    List {
        /// Only of this partner
        #[arg(long, value_name = "UUID")]
        partner: Option<PartnerId>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one user, by id or by what its tokens say
    Show {
        /// Id of the row
        #[arg(value_parser = user_id, required_unless_present = "sub", conflicts_with_all = ["issuer", "sub"])]
        id: Option<Uuid>,
        /// `iss` of the tokens
        #[arg(long, default_value = "", requires = "sub")]
        issuer: String,
        /// `sub` of the tokens
        #[arg(long)]
        sub: Option<String>,
    },
    /// Change the given fields; issuer, subject and partner are fixed
    Update {
        /// Its id, as `user list` shows it
        #[arg(value_parser = user_id)]
        id: Uuid,
        /// Name shown to people; empty clears it
        #[arg(long)]
        username: Option<String>,
        /// `false` refuses every request of this user, home requests too
        #[arg(long, value_name = "BOOL")]
        active: Option<bool>,
        /// Refuse if it is not at this version
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<i64>,
    },
}

fn user_id(text: &str) -> Result<Uuid, InvalidId> {
    text.parse().map_err(|_| InvalidId { what: "user", list: "user list" })
}

pub fn run(args: UserArgs, context: &StoreContext<'_>) -> Result<(), Failure> {
    let actor = args.actor.actor();
    match args.command {
        UserCommand::Create { partner, issuer, sub, username, inactive } => {
            let input = UserInput {
                issuer: Some(issuer),
                sub: Some(sub),
                partner_id: Some(partner.to_string()),
                username,
                is_active: Some(!inactive),
            };
            let made = context.with(|admin| async move { Ok(admin.create_user(&actor, &input).await?) })?;
            context.show(&made.value)
        }
        UserCommand::List { partner, page } => {
            let found = context.with(|admin| async move { Ok(admin.users(partner, page.page()).await?) })?;
            context.console.list(&found, &["user", "partner", "issuer", "sub", "username", "active"], |user| {
                vec![
                    user.id.to_string(),
                    user.partner_id.to_string(),
                    user.issuer.clone(),
                    user.sub.clone(),
                    user.username.clone().unwrap_or_default(),
                    yes(user.is_active),
                ]
            })
        }
        UserCommand::Show { id, issuer, sub } => {
            let found = context.with(|admin| async move {
                match (id, sub) {
                    (Some(id), _) => Ok(admin.user(id).await?),
                    (None, sub) => {
                        let sub = sub.unwrap_or_default();
                        let unknown = || Failure::new(Exit::NotFound, format!("no user has the subject `{sub}`"));
                        admin.user_by_subject(&issuer, &sub).await?.ok_or_else(unknown)
                    }
                }
            })?;
            context.show(&found)
        }
        UserCommand::Update { id, username, active, expect_version } => {
            if username.is_none() && active.is_none() {
                return Err(nothing_to_change("user"));
            }
            if active == Some(false) {
                context.console.confirm(&format!("deactivates user {id}: all their requests are refused"))?;
            }
            let input = UserInput { username, is_active: active, ..UserInput::default() };
            let written = context
                .with(|admin| async move { Ok(admin.update_user(&actor, id, expect_version, &input).await?) })?;
            context.show(&written.value)
        }
    }
}
