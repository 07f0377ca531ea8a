//! One connector: valid by construction, made by `config`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use http::{HeaderName, Method};
use rust_decimal::Decimal;

use super::{
    fields::{FieldSpec, LineItemField, ResourceKind},
    pointer::Pointer,
    projection::Projection,
    template::{Argument, BodyTemplate, PathTemplate, Placeholder},
};
use crate::domain::{Secret, TenantId};

/// How one service, or several of one family, are asked about a tenant.
#[derive(Clone, Debug)]
pub struct ConnectorSettings {
    pub name: String,
    /// Whose data comes through it; `None`: every tenant that no other connector names.
    pub tenants: Option<BTreeSet<TenantId>>,
    /// Kinds of data that its tenants have no source for; a connector for all tenants does not stand in.
    pub without: BTreeSet<ResourceKind>,
    /// Carries the tenant's id.
    pub tenant_header: HeaderName,
    pub credential: Credential,
    /// Longest answer, in bytes.
    pub max_answer_bytes: usize,
    pub resources: Vec<Arc<Resource>>,
}

/// By what the service knows us.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A token for the tenant, signed as the upstream's `replacement` says.
    Token {
        /// `sub` of the token.
        subject: String,
        /// Instead of the link's role.
        roles: Option<Vec<String>>,
        /// Instead of the link's permissions.
        permissions: Option<Vec<String>>,
    },
    /// A header with a secret: the tenant's own, else the shared one, else the tenant cannot be asked about.
    Header {
        name: HeaderName,
        shared: Option<Secret>,
        tenants: HashMap<TenantId, Secret>,
    },
    None,
}

/// How money and numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Exact, in the currency's main unit.
    #[default]
    Major,
    /// Whole smallest units: cents, yen.
    Minor,
    /// A binary fraction of the main unit: rounded to the currency's digits.
    Float,
    /// A decimal in text, in the main unit.
    Text,
    /// How many elements a list has.
    Length,
}

/// One field of a row and where it comes from.
#[derive(Clone, Debug)]
pub struct FieldPlan {
    pub pointer: Pointer,
    /// The value is this less.
    pub minus: Option<(Pointer, usize)>,
    pub divide: Option<Decimal>,
    pub unit: Option<Unit>,
    /// The service's word and ours.
    pub words: Option<Vec<(String, String)>>,
    /// Our word for a word that is not in the list; `None`: such a word is an error.
    pub otherwise: Option<String>,
    /// May be absent; else only null is nothing.
    pub optional: bool,
    pub(super) slot: usize,
}

/// A field as it is configured.
#[derive(Clone, Debug)]
pub struct FieldDraft {
    pub pointer: Pointer,
    pub minus: Option<Pointer>,
    pub divide: Option<Decimal>,
    pub unit: Option<Unit>,
    pub words: Option<Vec<(String, String)>>,
    pub otherwise: Option<String>,
    pub optional: bool,
}

/// What is answered with 200 and yet is a failure.
#[derive(Clone, Debug)]
pub struct FailureRule {
    /// All of these are zero, empty, null or absent, ...
    pub zero: Vec<Pointer>,
    /// ... and one of these in the same answer is not (where any is named), ...
    pub nonzero: Vec<Pointer>,
    /// ... and the witness says otherwise (where one is named).
    pub witness: Option<Witness>,
}

/// Another endpoint that is asked only where an answer is suspicious.
#[derive(Clone, Debug)]
pub struct Witness {
    pub upstream: String,
    pub path: PathTemplate,
    pub query: Vec<(String, Argument)>,
    pub nonzero: Vec<Pointer>,
    pub(super) plan: Projection,
    pub(super) slots: Vec<usize>,
}

impl Witness {
    pub fn new(upstream: String, path: PathTemplate, query: Vec<(String, Argument)>, nonzero: Vec<Pointer>) -> Self {
        let mut plan = Projection::default();
        let slots = nonzero.iter().map(|pointer| plan.keep(pointer)).collect();
        Self { upstream, path, query, nonzero, plan, slots }
    }
}

/// One endpoint of a service.
#[derive(Clone, Debug)]
pub struct Resource {
    pub draft: ResourceDraft,
    pub(super) plan: Plan,
}

impl std::ops::Deref for Resource {
    type Target = ResourceDraft;
    fn deref(&self) -> &ResourceDraft {
        &self.draft
    }
}

/// An endpoint as it is configured.
#[derive(Clone, Debug)]
pub struct ResourceDraft {
    pub kind: ResourceKind,
    pub upstream: String,
    pub method: Method,
    pub path: PathTemplate,
    pub query: Vec<(String, Argument)>,
    pub body: Option<BodyTemplate>,
    /// Our words to the service's, for what is sent; others go as they are.
    pub send_status: HashMap<String, String>,
    pub send_priority: HashMap<String, String>,
    /// Where the rows stand, or the one row.
    pub rows: Pointer,
    /// Most rows of one page.
    pub page_size: u64,
    /// True while there are further pages.
    pub more: Option<Pointer>,
    /// How many rows there are on all pages. A size of the page is no such thing: leave it out.
    pub total: Option<Pointer>,
    /// Most days of one question.
    pub max_days: Option<i64>,
    /// Where a row says whose it is; it must be the tenant that was asked about.
    pub tenant: Option<Pointer>,
    /// Unit of money where a field does not say.
    pub unit: Unit,
    /// By the position in [`ResourceKind::fields`].
    pub fields: Vec<Option<FieldDraft>>,
    /// Invoices: where the lines stand, and their fields.
    pub line_items: Option<(Pointer, Vec<Option<FieldDraft>>)>,
    pub failed_when: Vec<FailureRule>,
}

/// How pages follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// One answer holds all.
    None,
    Offset,
    Page,
}

/// Pointers and slots, ready to read with.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) document: Projection,
    pub(super) row: Projection,
    pub(super) fields: Vec<Option<FieldPlan>>,
    pub(super) tenant: Option<usize>,
    pub(super) line_items: Option<LinePlan>,
    pub(super) more: Option<usize>,
    pub(super) total: Option<usize>,
    /// By rule: slots of `zero` (`None`: the rows themselves) and of `nonzero`.
    pub(super) rules: Vec<(Vec<Option<usize>>, Vec<usize>)>,
}

#[derive(Clone, Debug)]
pub(super) struct LinePlan {
    pub(super) slot: usize,
    pub(super) pointer: Pointer,
    pub(super) row: Projection,
    pub(super) fields: Vec<Option<FieldPlan>>,
}

impl Resource {
    pub fn new(draft: ResourceDraft) -> Self {
        let plan = Plan::of(&draft);
        Self { draft, plan }
    }
}

impl ResourceDraft {
    pub fn paging(&self) -> Paging {
        let has = |wanted| self.query.iter().any(|(_, argument)| *argument == Argument::Place(wanted));
        match (has(Placeholder::Offset), has(Placeholder::Page)) {
            (true, _) => Paging::Offset,
            (_, true) => Paging::Page,
            _ => Paging::None,
        }
    }

    /// The service's words that mean one of ours, by this field's list. `None`: they cannot be told.
    pub fn their_words(&self, field: impl Into<usize>, ours: &[&str]) -> Option<Vec<String>> {
        let plan = self.fields.get(field.into())?.as_ref()?;
        if plan.otherwise.as_deref().is_some_and(|word| ours.contains(&word)) {
            return None;
        }
        Some(match &plan.words {
            Some(words) => {
                words.iter().filter(|(_, our)| ours.contains(&our.as_str())).map(|(word, _)| word.clone()).collect()
            }
            None => ours.iter().map(|word| (*word).to_owned()).collect(),
        })
    }
}

impl Plan {
    fn of(draft: &ResourceDraft) -> Self {
        let (mut document, mut row) = (Projection::default(), Projection::default());
        let is_list = draft.kind.is_list();
        if is_list {
            document.rows_at(&draft.rows);
        }
        // The one row of an answer is read in the same pass as the rest.
        let base = if is_list { None } else { Some(&draft.rows) };
        let of_rows = if is_list { &mut row } else { &mut document };
        let fields = compile(&draft.fields, base, of_rows);
        let below = |pointer: &Pointer| base.map_or_else(|| pointer.clone(), |base| pointer.below(base));
        let tenant = draft.tenant.as_ref().map(|pointer| of_rows.keep(&below(pointer)));
        let line_items = draft.line_items.as_ref().map(|(pointer, drafts)| {
            let mut lines = Projection::default();
            let fields = compile(drafts, None, &mut lines);
            LinePlan { slot: of_rows.keep(&below(pointer)), pointer: pointer.clone(), row: lines, fields }
        });
        let more = draft.more.as_ref().map(|pointer| document.keep(pointer));
        let total = draft.total.as_ref().map(|pointer| document.keep(pointer));
        let rules = draft.failed_when.iter().map(|rule| {
            let zero = rule.zero.iter().map(|pointer| {
                let is_rows = is_list && *pointer == draft.rows;
                (!is_rows).then(|| document.keep(pointer))
            });
            let zero = zero.collect();
            (zero, rule.nonzero.iter().map(|pointer| document.keep(pointer)).collect())
        });
        let rules = rules.collect();
        Self { document, row, fields, tenant, line_items, more, total, rules }
    }
}

fn compile(drafts: &[Option<FieldDraft>], base: Option<&Pointer>, into: &mut Projection) -> Vec<Option<FieldPlan>> {
    let mut keep = |pointer: &Pointer| {
        let pointer = base.map_or_else(|| pointer.clone(), |base| pointer.below(base));
        let slot = into.keep(&pointer);
        (pointer, slot)
    };
    let mut plan = |draft: &FieldDraft| {
        let (pointer, slot) = keep(&draft.pointer);
        FieldPlan {
            pointer,
            slot,
            minus: draft.minus.as_ref().map(&mut keep),
            divide: draft.divide,
            unit: draft.unit,
            words: draft.words.clone(),
            otherwise: draft.otherwise.clone(),
            optional: draft.optional,
        }
    };
    drafts.iter().map(|draft| draft.as_ref().map(&mut plan)).collect()
}

/// The fields of a line of an invoice.
pub const LINE_ITEM_FIELDS: &[FieldSpec] = LineItemField::SPECS;
