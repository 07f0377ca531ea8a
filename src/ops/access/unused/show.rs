//! How `access unused` is shown: as text for people, as a table for auditors.

use std::io::Write;

use super::{LinkRow, Report, Verdict};
use crate::{
    ops::{
        access::{
            scene::Source,
            table::{Table, cell, count, yes},
        },
        plain,
    },
    policy::Answer,
};

impl Report {
    pub fn incomplete(&self, journal: &str) -> String {
        let from = match (self.source, self.knows_from) {
            (Source::Index, None) => "no request is in the index".to_owned(),
            (_, None) => format!("no request is recorded in `{journal}`"),
            (_, Some(from)) => format!("what was recorded begins at {from}"),
        };
        format!(
            "{from}, and {} days back is {}: of what was before nothing is known, and a right that is called unused may have been used then",
            self.days, self.since
        )
    }

    pub fn text(&self) -> String {
        let mut lines = vec![format!(
            "{}, requests since {} ({} days), policies {}",
            count(self.links.len(), "live link"),
            self.since,
            self.days,
            self.policies
        )];
        if self.not_live > 0 {
            lines.push(format!("{} not live and granting nothing now: left out", count(self.not_live, "link")));
        }
        if let Some(until) = self.knows_until {
            lines.push(format!("read from the index, which reaches to {until}"));
        }
        for link in &self.links {
            lines.extend(link.lines(self.days));
        }
        lines.join("\n")
    }

    pub fn csv(&self, out: impl Write) -> Result<(), csv::Error> {
        let mut table = Table::begin(
            out,
            &[
                "since",
                "until",
                "observed_from",
                "complete",
                "tenant_id",
                "tenant_name",
                "partner_id",
                "partner_name",
                "link_id",
                "link_version",
                "link_created_at",
                "link_new",
                "access_role",
                "permission",
                "answer",
                "verdict",
                "uses",
                "last_used_at",
                "permission_new",
                "proposed",
                "policy_version",
            ],
        )?;
        for link in &self.links {
            for right in &link.permissions {
                let denied = link.proposal.as_ref().map(|found| found.denies.contains(right.permission));
                table.row(
                    [
                        self.since.to_string(),
                        self.until.to_string(),
                        cell(link.observed_from),
                        yes(link.complete).to_owned(),
                        link.tenant_id.to_string(),
                        link.tenant_name.clone(),
                        link.partner_id.to_string(),
                        link.partner_name.clone(),
                        link.link_id.to_string(),
                        link.version.to_string(),
                        link.created_at.to_string(),
                        yes(link.new).to_owned(),
                        link.access_role.to_string(),
                        right.permission.name().to_owned(),
                        if right.answer == Answer::Yes { "yes" } else { "depends" }.to_owned(),
                        right.verdict.as_str().to_owned(),
                        right.uses.to_string(),
                        cell(right.last_used_at),
                        yes(right.new).to_owned(),
                        denied.map_or("", |denied| if denied { "deny" } else { "keep" }).to_owned(),
                        self.policy_version.clone(),
                    ]
                    .iter()
                    .map(String::as_str),
                )?;
            }
        }
        table.end()
    }
}

impl LinkRow {
    fn lines(&self, days: u32) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            format!(
                "{} in {}: {}, link {}",
                plain(&self.partner_name),
                plain(&self.tenant_name),
                self.access_role,
                self.link_id
            ),
        ];
        if self.new {
            lines.push(format!(
                "  new       younger than {days} days (created at {}): too early to judge",
                self.created_at
            ));
        }
        if !self.complete {
            let from = self
                .observed_from
                .map_or_else(|| "nothing is recorded".to_owned(), |from| format!("known from {from} on"));
            lines.push(format!("  unsure    {from}: what is unused may have been used before"));
        }
        if self.delegated > 0 {
            lines.push(format!(
                "  below     {} delegated onward; what was used there counts",
                count(self.delegated, "link")
            ));
        }
        let of = |verdict| self.permissions.iter().filter(move |right| right.verdict == verdict);
        for right in of(Verdict::Used) {
            let last = right.last_used_at.map(|at| at.to_string()).unwrap_or_default();
            lines.push(format!("  used      {} ({}, last at {last})", right.permission, count(right.uses, "time")));
        }
        for right in of(Verdict::MaybeUsed) {
            lines.push(format!("  kept      {} (its use leaves no record of its own)", right.permission));
        }
        for right in of(Verdict::Unused) {
            let new = if right.new && !self.new { " (granted since)" } else { "" };
            lines.push(format!("  unused    {}{new}", right.permission));
        }
        match (&self.proposal, &self.no_proposal) {
            (Some(proposal), _) if of(Verdict::Unused).count() == self.permissions.len() => {
                lines.push("  nothing was used: is the link needed at all?".to_owned());
                lines.push(format!(
                    "  revoke    linkgate link revoke {} --expect-version {}",
                    self.link_id, self.version
                ));
                lines.push(format!("  tighten   {}", proposal.command));
            }
            (Some(proposal), _) => lines.push(format!("  tighten   {}", proposal.command)),
            (None, Some(why)) => lines.push(format!("  tighten   not proposed: {why}")),
            (None, None) => {}
        }
        lines
    }
}
