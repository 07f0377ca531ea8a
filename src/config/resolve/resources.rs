//! One table of a connector: an endpoint, its parameters and its fields.

use std::collections::BTreeMap;

use http::Method;
use rust_decimal::Decimal;

use super::{
    FieldPath, Resolver,
    connectors::{Reading, kind},
};
use crate::{
    config::{
        errors::nearest,
        raw::connectors::{
            RawFailureRule, RawField, RawFieldTable, RawKind, RawMethod, RawResource, RawUnit, RawWitness,
        },
    },
    connector::{
        Resource, ResourceKind,
        fields::{FieldKind, FieldSpec},
        pointer::Pointer,
        rows::{Priority, TicketStatus},
        settings::{FailureRule, FieldDraft, LINE_ITEM_FIELDS, ResourceDraft, Unit, Witness},
        template::{Argument, BodyTemplate, PathTemplate, Placeholder},
    },
};

type Fields = Vec<Option<FieldDraft>>;

fn unit(raw: RawUnit) -> Unit {
    match raw {
        RawUnit::Major => Unit::Major,
        RawUnit::Minor => Unit::Minor,
        RawUnit::Float => Unit::Float,
        RawUnit::Text => Unit::Text,
        RawUnit::Length => Unit::Length,
    }
}

fn method(kind: ResourceKind, raw: Option<RawMethod>) -> Method {
    match raw {
        Some(RawMethod::Get) => Method::GET,
        Some(RawMethod::Post) => Method::POST,
        Some(RawMethod::Put) => Method::PUT,
        Some(RawMethod::Patch) => Method::PATCH,
        None => match kind {
            ResourceKind::CreateTicket | ResourceKind::Comment => Method::POST,
            ResourceKind::UpdateTicket => Method::PATCH,
            _ => Method::GET,
        },
    }
}

impl Resolver<'_> {
    pub(super) fn resource(&mut self, reading: &Reading<'_>, which: RawKind, raw: &RawResource) -> Option<Resource> {
        let at = reading.at.key(which.as_str());
        let kind = kind(which);
        let upstream = match raw.upstream.as_ref().or(reading.raw.upstream.as_ref()) {
            Some(name) => name.clone(),
            None => {
                self.fail(&at.key("upstream"), "is missing: name the upstream here, or for the whole connector");
                return None;
            }
        };
        if raw.upstream.is_some() {
            self.known_upstream(&at.key("upstream"), &upstream, reading.upstreams);
        }
        let method = method(kind, raw.method);
        if kind.is_write() == (method == Method::GET) {
            self.fail(&at.key("method"), format!("`{method}` does not fit `{}`", which.as_str()));
        }
        let path = self.resource_path(&at, kind, raw.path.as_deref());
        let fields = self.fields(reading, &at, which, raw);
        let draft = ResourceDraft {
            kind,
            query: self.arguments(&at.key("query"), &raw.query),
            body: self.body(&at.key("body"), kind, raw),
            send_status: self.sent_words(&at.key("send_status"), &raw.send_status, TicketStatus::WORDS),
            send_priority: self.sent_words(&at.key("send_priority"), &raw.send_priority, Priority::WORDS),
            rows: self.pointer(&at.key("rows"), &raw.rows)?,
            page_size: u64::try_from(self.at_least_one(&at.key("page_size"), raw.page_size)).unwrap_or(1),
            more: self.optional_pointer(&at.key("more"), raw.more.as_deref()),
            total: self.optional_pointer(&at.key("total"), raw.total.as_deref()),
            max_days: raw
                .max_days
                .map(|days| i64::try_from(self.at_least_one(&at.key("max_days"), days)).unwrap_or(i64::MAX)),
            tenant: self.optional_pointer(&at.key("tenant"), raw.tenant.as_deref()),
            unit: unit(raw.unit),
            line_items: self.line_items(&at, kind, raw),
            failed_when: self.failure_rules(reading, &at, &upstream, &raw.failed_when),
            upstream,
            method,
            path: path?,
            fields: fields?,
        };
        self.paged_alike(&at, &draft);
        Some(Resource::new(draft))
    }

    fn resource_path(&mut self, at: &FieldPath, kind: ResourceKind, text: Option<&str>) -> Option<PathTemplate> {
        let field = at.key("path");
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            self.fail(&field, "is missing");
            return None;
        };
        let path = self.ok(&field, PathTemplate::parse(text).map_err(|error| error.to_string()))?;
        for place in path.places() {
            match place {
                Placeholder::TenantId => {}
                Placeholder::Id if kind.has_id() => {}
                other => self.fail(&field, format!("`{{{}}}` has no place in this path", other.as_str())),
            }
        }
        if kind.has_id() && !path.places().any(|place| place == Placeholder::Id) {
            self.fail(&field, "does not say which one: `{id}` is missing");
        }
        Some(path)
    }

    fn paged_alike(&mut self, at: &FieldPath, draft: &ResourceDraft) {
        let has = |wanted| draft.query.iter().any(|(_, argument)| *argument == Argument::Place(wanted));
        let query = at.key("query");
        if has(Placeholder::Offset) && has(Placeholder::Page) {
            self.fail(&query, "pages either by `{offset}` or by `{page}`");
        }
        let pages = has(Placeholder::Offset) || has(Placeholder::Page);
        if pages && !draft.kind.is_list() {
            self.fail(&query, "only a list has pages");
        }
        if pages && !has(Placeholder::Limit) && draft.more.is_none() && draft.total.is_none() {
            self.fail(&query, "where pages end is not known: send `{limit}`, or name `more` or `total`");
        }
        if !pages && (draft.more.is_some() || draft.total.is_some()) {
            self.fail(&query, "`more` and `total` speak of pages: send `{offset}` or `{page}`");
        }
    }

    fn arguments(&mut self, at: &FieldPath, raw: &BTreeMap<String, String>) -> Vec<(String, Argument)> {
        let parsed = raw.iter().filter_map(|(name, text)| {
            let argument = self.ok(&at.key(name), Argument::parse(text).map_err(|error| error.to_string()))?;
            Some((name.clone(), argument))
        });
        parsed.collect()
    }

    fn body(&mut self, at: &FieldPath, kind: ResourceKind, raw: &RawResource) -> Option<BodyTemplate> {
        match (kind.is_write(), raw.body.is_empty()) {
            (true, true) => {
                self.fail(at, "is missing: a write sends a body");
                None
            }
            (false, false) => {
                self.fail(at, "stands at a question: only writes send a body");
                None
            }
            (false, true) => None,
            (true, false) => {
                if raw.body.contains_key("tenant_id") {
                    self.fail(at, "`tenant_id` in a body overrides the tenant without any check: leave it out");
                }
                let body = raw.body.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect();
                self.ok(at, BodyTemplate::parse(body).map_err(|error| error.to_string()))
            }
        }
    }

    fn sent_words(
        &mut self,
        at: &FieldPath,
        raw: &BTreeMap<String, String>,
        ours: &'static [&'static str],
    ) -> std::collections::HashMap<String, String> {
        for word in raw.keys() {
            self.our_word(&at.key(word), word, ours);
        }
        raw.clone().into_iter().collect()
    }

    fn our_word(&mut self, field: &FieldPath, word: &str, ours: &'static [&'static str]) {
        if !ours.contains(&word) {
            let near = nearest(word, ours.iter().copied());
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            self.fail(field, format!("`{word}` is none of ours{near} (one of {})", ours.join(", ")));
        }
    }

    fn pointer(&mut self, field: &FieldPath, text: &str) -> Option<Pointer> {
        self.ok(field, Pointer::parse(text).map_err(|error| error.to_string()))
    }

    /// Empty text takes back what a preset says.
    fn optional_pointer(&mut self, field: &FieldPath, text: Option<&str>) -> Option<Pointer> {
        text.filter(|text| !text.is_empty()).and_then(|text| self.pointer(field, text))
    }

    /// The fields of the tables that this one begins with, and its own over them. `None`: a required one has no source.
    fn fields(&mut self, reading: &Reading<'_>, at: &FieldPath, which: RawKind, raw: &RawResource) -> Option<Fields> {
        let specs = kind(which).fields();
        let mut layers = vec![(at.clone(), raw)];
        // Longer chains than there are tables go in a circle.
        while let Some(next) = layers.last().and_then(|(_, raw)| raw.fields_of) {
            let field = at.key("fields_of");
            match reading.raw.resource(next) {
                _ if layers.len() > RawKind::ALL.len() => {
                    self.fail(&field, "leads back to this table");
                    return None;
                }
                Some(below) if kind(next).fields() == specs => layers.push((reading.at.key(next.as_str()), below)),
                // Further down the chain the other table tells it.
                _ if layers.len() > 1 => return None,
                Some(_) => {
                    self.fail(&field, format!("`{}` has other fields", next.as_str()));
                    return None;
                }
                None => {
                    self.fail(&field, format!("this connector has no table `{}`", next.as_str()));
                    return None;
                }
            }
        }
        let mut drafts: Fields = vec![None; specs.len()];
        for (at, raw) in layers.iter().rev() {
            self.field_layer(&at.key("fields"), specs, &raw.fields, &mut drafts);
        }
        self.complete(&at.key("fields"), specs, drafts)
    }

    fn complete(&mut self, at: &FieldPath, specs: &'static [FieldSpec], drafts: Fields) -> Option<Fields> {
        let missing: Vec<&str> = specs
            .iter()
            .zip(&drafts)
            .filter(|(spec, draft)| spec.required && draft.is_none())
            .map(|(spec, _)| spec.name)
            .collect();
        for name in &missing {
            self.fail(&at.key(name), "is missing: a row without it is none");
        }
        missing.is_empty().then_some(drafts)
    }

    fn field_layer(
        &mut self,
        at: &FieldPath,
        specs: &'static [FieldSpec],
        raw: &BTreeMap<String, RawField>,
        drafts: &mut Fields,
    ) {
        for (name, field) in raw {
            let found = specs
                .iter()
                .position(|spec| spec.name == name)
                .and_then(|at| Some((specs.get(at)?, drafts.get_mut(at)?)));
            let Some((spec, draft)) = found else {
                let known = || specs.iter().map(|spec| spec.name);
                let message = match nearest(name, known()) {
                    Some(near) => format!("unknown field; did you mean `{near}`?"),
                    None => format!("unknown field (known here: {})", known().collect::<Vec<_>>().join(", ")),
                };
                self.fail(&at.key(name), message);
                continue;
            };
            let table = match field {
                RawField::Pointer(text) => RawFieldTable { pointer: text.clone(), ..RawFieldTable::default() },
                RawField::Table(table) => table.clone(),
            };
            *draft = if table.pointer.is_empty() { None } else { self.field(&at.key(name), spec, &table) };
        }
    }

    fn field(&mut self, at: &FieldPath, spec: &FieldSpec, raw: &RawFieldTable) -> Option<FieldDraft> {
        let is_number = matches!(spec.kind, FieldKind::Number | FieldKind::Money);
        if (raw.minus.is_some() || raw.divide.is_some()) && !is_number {
            self.fail(at, "`minus` and `divide` are for numbers and money");
        }
        if raw.divide == Some(0) {
            self.fail(&at.key("divide"), "is zero");
        }
        let fits = match (raw.unit.map(unit), spec.kind) {
            (None, _) | (Some(Unit::Text), FieldKind::Integer | FieldKind::Number | FieldKind::Money) => true,
            (Some(Unit::Major), FieldKind::Number | FieldKind::Money)
            | (Some(Unit::Minor | Unit::Float), FieldKind::Money)
            | (Some(Unit::Length), FieldKind::Integer) => true,
            (Some(_), _) => false,
        };
        if !fits {
            self.fail(
                &at.key("unit"),
                "does not fit this field: major, text (numbers, money), minor, float (money), length (counts)",
            );
        }
        match spec.kind {
            FieldKind::Word(ours) => {
                for (theirs, word) in raw.words.iter().flatten() {
                    self.our_word(&at.key("words").key(theirs), word, ours);
                }
                if let Some(word) = &raw.otherwise {
                    self.our_word(&at.key("otherwise"), word, ours);
                }
            }
            _ if raw.words.is_some() || raw.otherwise.is_some() => {
                self.fail(at, "`words` and `otherwise` are for status, priority and severity");
            }
            _ => {}
        }
        Some(FieldDraft {
            // A wrong one has been told, and is not missing too.
            pointer: self.pointer(&at.key("pointer"), &raw.pointer).unwrap_or(Pointer::parse("").ok()?),
            minus: self.optional_pointer(&at.key("minus"), raw.minus.as_deref()),
            divide: raw.divide.filter(|by| *by != 0).map(Decimal::from),
            unit: raw.unit.map(unit),
            words: raw.words.clone().map(|words| words.into_iter().collect()),
            otherwise: raw.otherwise.clone(),
            optional: raw.optional,
        })
    }

    fn line_items(&mut self, at: &FieldPath, kind: ResourceKind, raw: &RawResource) -> Option<(Pointer, Fields)> {
        let lines = raw.line_items.as_ref()?;
        let table = at.key("line_items");
        if kind != ResourceKind::Invoices {
            self.fail(&table, "only invoices have lines");
            return None;
        }
        let mut drafts: Fields = vec![None; LINE_ITEM_FIELDS.len()];
        self.field_layer(&table.key("fields"), LINE_ITEM_FIELDS, &lines.fields, &mut drafts);
        Some((self.pointer(&table.key("rows"), &lines.rows)?, drafts))
    }

    fn failure_rules(
        &mut self,
        reading: &Reading<'_>,
        at: &FieldPath,
        upstream: &str,
        raw: &[RawFailureRule],
    ) -> Vec<FailureRule> {
        let mut rules = Vec::new();
        for (index, rule) in raw.iter().enumerate() {
            let table = at.key("failed_when").index(index);
            if rule.zero.is_empty() {
                self.fail(&table.key("zero"), "is empty: name what is zero in such an answer");
            }
            if rule.nonzero.is_empty() && rule.witness.is_none() {
                self.fail(
                    &table,
                    "calls every empty answer a failure: name what contradicts it, in `nonzero` or by a `witness`",
                );
            }
            rules.push(FailureRule {
                zero: self.answer_pointers(&table.key("zero"), &rule.zero),
                nonzero: self.answer_pointers(&table.key("nonzero"), &rule.nonzero),
                witness: rule
                    .witness
                    .as_ref()
                    .and_then(|raw| self.witness(reading, &table.key("witness"), upstream, raw)),
            });
        }
        rules
    }

    fn witness(&mut self, reading: &Reading<'_>, at: &FieldPath, upstream: &str, raw: &RawWitness) -> Option<Witness> {
        let upstream = match &raw.upstream {
            Some(name) => {
                self.known_upstream(&at.key("upstream"), name, reading.upstreams);
                name.clone()
            }
            None => upstream.to_owned(),
        };
        if raw.nonzero.is_empty() {
            self.fail(&at.key("nonzero"), "is empty: name what the witness knows better");
        }
        let path = self.resource_path(at, ResourceKind::Metrics, Some(&raw.path))?;
        let query = self.arguments(&at.key("query"), &raw.query);
        let nonzero = self.answer_pointers(&at.key("nonzero"), &raw.nonzero);
        Some(Witness::new(upstream, path, query, nonzero))
    }

    fn answer_pointers(&mut self, at: &FieldPath, raw: &[String]) -> Vec<Pointer> {
        raw.iter().enumerate().filter_map(|(index, text)| self.pointer(&at.index(index), text)).collect()
    }
}
