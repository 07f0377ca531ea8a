//! Reads `roles.toml`: what each link role and each user role grants.
//!
//! Strict: an unknown role, name or key is an error at its line, with the nearest known name, and all errors are told at
//! once. The entries are kept as written too, because the generated policies repeat them for the reader.

use std::{collections::BTreeMap, ops::Range};

use toml::de::{DeTable, DeValue};

use super::{problem::Problem, source_file::SourceFile};
use crate::domain::{LinkRole, Permission, PermissionSet, RoleTable, permission::wildcards};

/// The role table and the entries that it was made from.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    pub(super) table: RoleTable,
    /// In the order of `LinkRole::ALL`.
    pub(super) link_entries: Vec<(LinkRole, Vec<String>)>,
}

/// What every link role has (contract, section 4).
const EVERY_ROLE: &str = "partner.tenants.*";

pub(super) fn parse(source: &SourceFile) -> Result<Roles, Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    // Only the first: after a syntax error the parser reports its consequences too.
    if let Some(error) = errors.first() {
        return Err(vec![Problem::at(source, error.span().unwrap_or(0..0), error.message())]);
    }
    let mut reader = Reader { source, problems: Vec::new() };
    let mut link = BTreeMap::new();
    let mut user = BTreeMap::new();
    let mut user_table = None;
    for (key, value) in document.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("link_roles", DeValue::Table(table)) => link = reader.link_roles(table, key.span()),
            // Read last: its entries may name link roles, wherever in the file these stand.
            ("user_roles", DeValue::Table(table)) => user_table = Some(table),
            ("link_roles" | "user_roles", _) => reader.report(value.span(), "must be a table", None),
            (other, _) => reader.unknown("table", other, &["link_roles", "user_roles"], key.span()),
        }
    }
    for name in ["link_roles", "user_roles"] {
        if !document.get_ref().keys().any(|key| key.get_ref() == name) {
            reader.report(0..0, &format!("the table `[{name}]` is missing"), None);
        }
    }
    if let Some(table) = user_table {
        user = reader.user_roles(table, &link);
    }
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    let table = RoleTable::new(link.iter().map(|(role, contents)| (*role, contents.set)), user);
    let link_entries = LinkRole::ALL
        .into_iter()
        .map(|role| (role, link.remove(&role).map(|contents| contents.entries).unwrap_or_default()))
        .collect();
    Ok(Roles { table, link_entries })
}

#[derive(Default)]
struct Contents {
    set: PermissionSet,
    entries: Vec<String>,
}

struct Reader<'a> {
    source: &'a SourceFile,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn report(&mut self, span: Range<usize>, message: &str, help: Option<String>) {
        let problem = Problem::at(self.source, span, message);
        self.problems.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    fn unknown(&mut self, what: &str, name: &str, known: &[&str], span: Range<usize>) {
        let nearest = nearest(name, known.iter().copied()).unwrap_or_default();
        let help = format!("the nearest known {what} is `{nearest}`");
        self.report(span, &format!("unknown {what} `{name}`"), Some(help));
    }

    fn link_roles(&mut self, table: &DeTable<'_>, at: Range<usize>) -> BTreeMap<LinkRole, Contents> {
        let mut found = BTreeMap::new();
        for (key, value) in table {
            let Ok(role) = key.get_ref().parse::<LinkRole>() else {
                let known: Vec<_> = LinkRole::ALL.iter().map(|role| role.as_str()).collect();
                self.unknown("link role", key.get_ref(), &known, key.span());
                continue;
            };
            let contents = self.entries(value);
            let is_list = matches!(value.get_ref(), DeValue::Array(_));
            if is_list && !contents.set.contains_all(PermissionSet::from_claim(EVERY_ROLE)) {
                let message = format!("link role `{role}` lacks `{EVERY_ROLE}`");
                self.report(key.span(), &message, Some(format!("every link role has it: add \"{EVERY_ROLE}\"")));
            }
            found.insert(role, contents);
        }
        for role in LinkRole::ALL {
            if !table.keys().any(|key| key.get_ref() == role.as_str()) {
                let message = format!("link role `{role}` is missing");
                self.report(
                    at.clone(),
                    &message,
                    Some(format!("add `{role} = [\"{EVERY_ROLE}\"]` and what it grants")),
                );
            }
        }
        found
    }

    fn user_roles(
        &mut self,
        table: &DeTable<'_>,
        link: &BTreeMap<LinkRole, Contents>,
    ) -> BTreeMap<String, PermissionSet> {
        let mut found = BTreeMap::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            if name.is_empty() || name.chars().any(char::is_control) {
                self.report(key.span(), "a user role needs a name that a token can carry", None);
                continue;
            }
            let set = match value.get_ref() {
                DeValue::String(same_as) => match same_as.parse::<LinkRole>() {
                    Ok(role) => link.get(&role).map(|contents| contents.set).unwrap_or_default(),
                    Err(_) => {
                        let known: Vec<_> = LinkRole::ALL.iter().map(|role| role.as_str()).collect();
                        self.unknown("link role", same_as, &known, value.span());
                        continue;
                    }
                },
                _ => self.entries(value).set,
            };
            found.insert(name, set);
        }
        found
    }

    fn entries(&mut self, value: &toml::Spanned<DeValue<'_>>) -> Contents {
        let mut contents = Contents::default();
        let DeValue::Array(items) = value.get_ref() else {
            self.report(value.span(), "must be a list of permissions, wildcards and scopes", None);
            return contents;
        };
        for item in items.iter() {
            let DeValue::String(name) = item.get_ref() else {
                self.report(item.span(), "must be a name in quotes", None);
                continue;
            };
            match PermissionSet::from_name(name) {
                Ok(_) if contents.entries.iter().any(|known| known == name) => {
                    self.report(item.span(), &format!("`{name}` is listed twice"), None);
                }
                Ok(set) => {
                    contents.set = contents.set.union(set);
                    contents.entries.push(name.to_string());
                }
                Err(unknown) => {
                    let help = format!("the nearest known name is `{}`", unknown.nearest);
                    self.report(item.span(), &format!("unknown permission `{name}`"), Some(help));
                }
            }
        }
        contents
    }
}

/// The known name that looks most like `name`.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.min_by_key(|candidate| strsim::damerau_levenshtein(candidate, name))
}

/// The action groups that an entry of the table means in Cedar: itself, or (an alias) the permission it stands for.
pub(super) fn as_actions(entry: &str) -> Vec<String> {
    let is_group = wildcards().iter().any(|wildcard| wildcard == entry)
        || crate::domain::permission::SCOPES.iter().any(|(scope, _)| *scope == entry);
    if is_group || Permission::parse(entry).is_some() {
        return vec![entry.to_owned()];
    }
    PermissionSet::from_name(entry).unwrap_or_default().iter().map(|leaf| leaf.name().to_owned()).collect()
}
