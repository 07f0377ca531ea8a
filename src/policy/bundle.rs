//! One loaded policy set: valid as a whole, immutable, cut into slices.
//!
//! Loading reads everything, reports every problem at once, and gives a set only if there is none (invariant I6).

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::digest;
use cedar_policy::{Authorizer, Effect};

use super::{
    facts::{Question, Unfit},
    generate::{GENERATOR, gate_id, gate_of, generate},
    lint,
    problem::{PolicyErrors, Problem},
    roles::{self, Roles},
    schema::{self, Vocabulary},
    slices::{self, Slice},
    source::Sources,
    source_file::SourceFile,
    written::{self, Validated, Written},
};
use crate::domain::{
    Approval, Denial, Facts, Gate, Link, LinkFacts, LinkId, LinkRole, LinkVersion, Millis, PartnerId, Permission,
    PermissionSet, RoleTable, TenantId, UserFacts,
};

/// Ids of the policies that determined an answer.
pub(super) type PolicyIds = Arc<[Arc<str>]>;

/// What Cedar said, in our terms; what the memo holds.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) verdict: Result<(), Denial>,
    pub(super) policies: PolicyIds,
}

/// One policy of a set, as people look for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInfo<'a> {
    pub id: &'a str,
    pub forbids: bool,
    /// Made from the role table and the gates, not by hand.
    pub generated: bool,
    /// `file:line:column`.
    pub place: String,
    /// As it stands in its file.
    pub text: &'a str,
}

/// One valid policy set.
pub struct Bundle {
    generation: u64,
    version: String,
    roles: RoleTable,
    generated: String,
    warnings: Vec<String>,
    findings: Vec<Problem>,
    /// Generated ones first, then the hand-written ones by file and line.
    pub(super) policies: Vec<Written>,
    switched_off: Vec<String>,
    files: Vec<String>,
    pub(super) words: Vocabulary,
    pub(super) authorizer: Authorizer,
    /// Everything, uncut.
    pub(super) full: Slice,
    /// By permission, then role.
    slices: Vec<Slice>,
    ids: HashMap<String, Arc<str>>,
    native: Vec<(Gate, PolicyIds)>,
    enforced: bool,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("generation", &self.generation)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Grows with every set that is loaded in this process, so that no two sets can share an entry of a memo.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

impl Bundle {
    /// Loads and validates a folder, or (`None`) the set built into the binary.
    pub fn load(dir: Option<&Path>) -> Result<Self, PolicyErrors> {
        Self::load_with(dir, &[])
    }

    /// The same with rules switched on that stand commented out in `guardrails/`: for tests of what is not in force yet.
    /// An id that is neither on nor off changes nothing; `policies` tells whether it is there.
    pub fn load_with(dir: Option<&Path>, switch_on: &[&str]) -> Result<Self, PolicyErrors> {
        let mut sources = match dir {
            Some(dir) => Sources::read(dir).map_err(PolicyErrors::new)?,
            None => Sources::built_in(),
        };
        switch_on.iter().for_each(|id| sources.switch_on(id));
        Self::assemble(sources).map_err(PolicyErrors::new)
    }

    /// Number of this load; the same inputs loaded twice have two.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// SHA-256 over all inputs and the generated text, in hex: the same inputs have the same version everywhere.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn roles(&self) -> &RoleTable {
        &self.roles
    }

    /// The Cedar text made from the role table and the gates.
    pub fn generated(&self) -> &str {
        &self.generated
    }

    /// What is valid but worth a look: hand-written permits, policies that can never apply, files that are not read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The same set for a rollout that only notes what guardrails and role rules refuse; every other gate stays closed.
    #[must_use]
    pub fn log_only(self) -> Self {
        Self { enforced: false, ..self }
    }

    pub fn enforced(&self) -> bool {
        self.enforced
    }

    /// The warnings with their places.
    pub fn findings(&self) -> &[Problem] {
        &self.findings
    }

    /// Every policy of the set: the generated ones, then the hand-written ones by file and line.
    pub fn policies(&self) -> impl Iterator<Item = PolicyInfo<'_>> {
        self.policies.iter().map(|written| PolicyInfo {
            id: &written.id,
            forbids: written.policy.effect() == Effect::Forbid,
            generated: written.generated,
            place: written.place(),
            text: written.text(),
        })
    }

    /// The files that it was read from, as messages name them.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// Ids of rules that stand commented out in `guardrails/`.
    pub fn switched_off(&self) -> impl Iterator<Item = &str> {
        self.switched_off.iter().map(String::as_str)
    }

    /// The gate that a determining policy of this id states; `Guardrail` for every hand-written one.
    pub fn gate_of(&self, id: &str) -> Gate {
        gate_of(id)
    }

    fn assemble(sources: Sources) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut findings = sources.warnings.clone();
        let mut idle = Vec::new();
        let words = keep(schema::parse(&sources.schema), &mut problems);
        let roles = keep(roles::parse(&sources.roles), &mut problems);
        let files: Vec<_> =
            sources.guardrails.iter().map(|source| (source, written::parse(source, false, &mut problems))).collect();
        problems.extend(written::check_ids(&files));
        let generated = roles.as_ref().map(generate);
        let own = SourceFile {
            name: "generated from roles.toml".to_owned(),
            text: generated.as_deref().unwrap_or_default().into(),
        };
        let own_policies = written::parse(&own, true, &mut problems);
        if let Some((words, more)) = &words {
            findings.extend(more.iter().cloned());
            for (source, policies) in &files {
                let valid = keep(written::validate(&words.schema, source, policies), &mut problems);
                let Validated { warnings, idle: more } = valid.unwrap_or_default();
                findings.extend(warnings);
                idle.extend(more);
            }
            // Its permits are no news; and an edited schema may not fit it.
            let _ = keep(written::validate(&words.schema, &own, &own_policies), &mut problems);
        }
        let (Some((words, _)), Some(roles), Some(generated), true) = (words, roles, generated, problems.is_empty())
        else {
            return Err(problems);
        };
        fits(&words, &roles.table, &sources.schema)?;
        let by_hand: Vec<_> = files.into_iter().flat_map(|(_, policies)| policies).collect();
        findings.extend(lint::look(&words, &own_policies, &by_hand, &idle));
        findings.sort_by(Problem::by_place);
        let version = version(&sources, &generated);
        let switched_off = sources.switched_off().map(str::to_owned).collect();
        let files = [&sources.schema, &sources.roles].into_iter().chain(&sources.guardrails);
        let files = files.map(|file| file.name.clone()).collect();
        Self::cut(words, roles, own_policies, by_hand, version, generated)
            .map(|bundle| Self { switched_off, files, ..bundle.with_findings(findings) })
            .map_err(|error| vec![Problem::of_file("policy set", error.to_string())])
    }

    fn with_findings(mut self, findings: Vec<Problem>) -> Self {
        self.warnings = findings.iter().map(ToString::to_string).collect();
        self.findings = findings;
        self
    }

    fn cut(
        words: Vocabulary,
        roles: Roles,
        own: Vec<Written>,
        by_hand: Vec<Written>,
        version: String,
        generated: String,
    ) -> Result<Self, Box<cedar_policy::PolicySetError>> {
        let everything = || own.iter().chain(&by_hand);
        let (full, slices) = slices::cut(&words, &own, &by_hand)?;
        let ids: HashMap<String, Arc<str>> =
            everything().map(|written| (written.id.clone(), Arc::from(written.id.as_str()))).collect();
        let native = NATIVE.into_iter().filter_map(|gate| {
            let id = gate_id(gate)?;
            Some((gate, PolicyIds::from([ids.get(&id).cloned()?])))
        });
        Ok(Self {
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            version,
            roles: roles.table,
            generated,
            warnings: Vec::new(),
            findings: Vec::new(),
            switched_off: Vec::new(),
            files: Vec::new(),
            words,
            authorizer: Authorizer::new(),
            full,
            slices,
            native: native.collect(),
            ids,
            enforced: true,
            policies: own.into_iter().chain(by_hand).collect(),
        })
    }

    pub(super) fn by_hand(&self) -> impl Iterator<Item = &Written> {
        self.policies.iter().filter(|written| !written.generated)
    }

    pub(super) fn slice(&self, permission: Permission, role: LinkRole) -> Option<&Slice> {
        slices::of(&self.slices, permission, role)
    }

    /// The id of a policy as it is told in answers.
    pub(super) fn id(&self, id: &str) -> Arc<str> {
        self.ids.get(id).cloned().unwrap_or_else(|| id.into())
    }

    /// The generated policy that states a gate which was found closed without asking Cedar.
    pub(super) fn native(&self, gate: Gate) -> PolicyIds {
        let known = self.native.iter().find(|(one, _)| *one == gate);
        known.map_or_else(|| PolicyIds::from([]), |(_, ids)| ids.clone())
    }
}

/// Gates that are tested before Cedar is asked.
const NATIVE: [Gate; 9] = [
    Gate::Link,
    Gate::Suspension,
    Gate::Partner,
    Gate::Approval,
    Gate::Active,
    Gate::Started,
    Gate::Ended,
    Gate::Address,
    Gate::Mfa,
];

fn keep<T>(result: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|more| problems.extend(more)).ok()
}

/// Puts sample facts into the terms of the schema: one that asks for more than linkgate knows would fail every request.
fn fits(words: &Vocabulary, roles: &RoleTable, source: &SourceFile) -> Result<(), Vec<Problem>> {
    let Some((user, link)) = sample() else {
        return Err(vec![Problem::at(source, 0..0, "there are no sample facts to try the schema with")]);
    };
    for link in [Some(&link), None] {
        for permission in Permission::all() {
            let facts = Facts {
                user: &user,
                link,
                permission,
                switch_context: false,
                now: Millis(0),
                ip: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
                mfa: false,
                method: "GET",
                route_class: "read",
            };
            let schema = Some(&words.schema);
            let fits = |error: &Unfit, at: &str, help: &str| {
                let place = source.text.find(at).map_or(0..0, |start| start..start + at.len());
                vec![Problem::at(source, place, error.to_string()).help(help)]
            };
            let question = Question::new(words, roles, &facts, schema)
                .map_err(|error| fits(&error, "entity", "put the shipped entities back; only groups may be added"))?;
            question.request(words, permission, schema).map_err(|error| {
                fits(&error, "type RequestContext", "the context has the shipped attributes, no fewer and no more")
            })?;
        }
    }
    Ok(())
}

fn sample() -> Option<(UserFacts, LinkFacts)> {
    let nil = uuid::Uuid::nil();
    let user = UserFacts {
        issuer: "issuer".into(),
        sub: "sub".into(),
        partner_id: PartnerId(nil),
        holds: PermissionSet::ALL,
        suspended: false,
    };
    let link = Link {
        id: LinkId(nil),
        partner_id: PartnerId(nil),
        tenant_id: TenantId::new("tenant").ok()?,
        role: LinkRole::Delegate,
        granted: PermissionSet::ALL,
        denied: PermissionSet::ALL,
        approval: Approval::Approved,
        is_active: true,
        start: Millis(0),
        end: Some(Millis(1)),
        allowed_cidrs: Box::default(),
        require_mfa: true,
        version: LinkVersion(1),
    };
    let link = LinkFacts {
        link,
        partner_active: true,
        suspended: false,
        tenant_status: "active".into(),
        ancestors: Box::default(),
    };
    Some((user, link))
}

fn version(sources: &Sources, generated: &str) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut add = |text: &str| {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    add(&GENERATOR.to_string());
    add(&sources.schema.text);
    add(&sources.roles.text);
    add(generated);
    for file in &sources.guardrails {
        // The file's own name without its folder: the same set has the same version wherever it is mounted.
        add(file.name.rsplit(['/', '\\']).next().unwrap_or_default());
        add(&file.text);
    }
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
