//! Secrets: from a file or an environment variable, never from the configuration file, never into a message.

use super::{FieldPath, Resolver, reason};
use crate::{config::errors::Origin, domain::Secret};

/// The three ways to give one secret; at most one may be used.
pub(super) struct SecretWays<'a> {
    /// Path of the table that holds them.
    pub(super) table: &'a FieldPath,
    /// Name of the inline key; `_file` and `_env` are added for the others.
    pub(super) name: &'a str,
    pub(super) file: Option<&'a String>,
    pub(super) env: Option<&'a String>,
    pub(super) inline: Option<&'a String>,
}

impl Resolver<'_> {
    /// The secret, if one is named at all. Trailing line ends of a file are no part of it.
    pub(super) fn secret(&mut self, ways: &SecretWays<'_>, at_least_bytes: usize) -> Option<Secret> {
        let (inline, file, env) = (
            ways.table.key(ways.name),
            ways.table.key(&format!("{}_file", ways.name)),
            ways.table.key(&format!("{}_env", ways.name)),
        );
        let given = [ways.file.map(|_| &file), ways.env.map(|_| &env), ways.inline.map(|_| &inline)];
        let mut given = given.into_iter().flatten();
        let first = given.next()?;
        if let Some(second) = given.next() {
            self.fail(second, format!("stands beside `{first}`: one secret, one place"));
            return None;
        }
        let bytes = match (ways.file, ways.env, ways.inline) {
            (Some(path), _, _) => self.secret_file(&file, path)?,
            (_, Some(name), _) => self.secret_variable(&env, name)?,
            (_, _, Some(text)) => {
                if matches!(self.tree.origin_of(&inline), Origin::Line(_)) {
                    self.fail(
                        &inline,
                        format!("secrets do not stand in the file: use `{}_file` or `{}_env`", ways.name, ways.name),
                    );
                }
                text.clone().into_bytes()
            }
            (None, None, None) => return None,
        };
        if bytes.len() < at_least_bytes {
            self.fail(first, format!("holds {} bytes; at least {at_least_bytes} are needed", bytes.len()));
        }
        Some(Secret::new(bytes))
    }

    fn secret_file(&mut self, field: &FieldPath, text: &str) -> Option<Vec<u8>> {
        let path = self.path(field, text);
        match std::fs::read(&path) {
            Ok(mut bytes) => {
                while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                    bytes.pop();
                }
                self.secret_files.push(path);
                Some(bytes)
            }
            Err(error) => {
                self.fail(field, format!("`{}` cannot be read: {}", path.display(), reason(&error)));
                None
            }
        }
    }

    fn secret_variable(&mut self, field: &FieldPath, name: &str) -> Option<Vec<u8>> {
        let value = self.environment.get(name).map(|value| value.clone().into_bytes());
        if value.is_none() {
            self.fail(field, format!("the environment variable `{name}` is not set (or not UTF-8)"));
        }
        value
    }
}
