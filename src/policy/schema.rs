//! Reads the schema and holds it against the catalogue: the same permissions, the same wildcards, the same scopes.
//!
//! The file may be edited, and a group that lost a member would silently narrow a role or blind a guardrail; so a schema
//! whose groups differ from what the domain means by the same name is refused.

use std::{collections::BTreeSet, ops::Range, str::FromStr};

use cedar_policy::{Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema};

use super::{problem::Problem, roles::nearest, source_file::SourceFile};
use crate::domain::{
    LinkRole, Permission, PermissionSet,
    permission::{SCOPES, wildcards},
};

/// Everything about the schema that decisions need ready.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    pub(super) schema: Schema,
    pub(super) user_type: EntityTypeName,
    pub(super) partner_type: EntityTypeName,
    pub(super) tenant_type: EntityTypeName,
    pub(super) link_type: EntityTypeName,
    groups: Entities,
    /// By the permission's index: the action with its groups, and as a member of a set.
    actions: Vec<(Entity, RestrictedExpression)>,
    /// In the order of `LinkRole::ALL`.
    roles: Vec<RestrictedExpression>,
}

impl Vocabulary {
    /// The action's entity, its groups in it: without it in the store `action in` would silently not match.
    pub(super) fn action(&self, permission: Permission) -> Option<&Entity> {
        self.actions.get(permission.index()).map(|(entity, _)| entity)
    }

    /// Whether the permission belongs to this group.
    pub(super) fn is_in(&self, permission: Permission, group: &EntityUid) -> bool {
        self.action(permission).is_some_and(|action| self.groups.is_ancestor_of(group, &action.uid()))
    }

    /// The actions with all their groups.
    pub(super) fn groups(&self) -> &Entities {
        &self.groups
    }

    pub(super) fn role(&self, role: LinkRole) -> Option<&RestrictedExpression> {
        self.roles.get(role as usize)
    }

    /// A set of actions as a Cedar value.
    pub(super) fn set(&self, set: PermissionSet) -> RestrictedExpression {
        let members = set.iter().filter_map(|one| self.actions.get(one.index()).map(|(_, value)| value.clone()));
        RestrictedExpression::new_set(members)
    }
}

pub(super) fn parse(source: &SourceFile) -> Result<(Vocabulary, Vec<Problem>), Vec<Problem>> {
    let (schema, warnings) = match Schema::from_cedarschema_str(&source.text) {
        Ok((schema, warnings)) => {
            let warnings = warnings.map(|warning| Problem::of_file(&source.name, warning.to_string()));
            (schema, warnings.collect::<Vec<_>>())
        }
        Err(error) => return Err(vec![Problem::from_cedar(source, &error, Some(0..0))]),
    };
    let internal = |error: &dyn std::fmt::Display| vec![Problem::at(source, 0..0, error.to_string())];
    let type_name = |name: &str| EntityTypeName::from_str(name).map_err(|error| internal(&error));
    let (action_type, role_type) = (type_name("Action")?, type_name("Role")?);
    let entities = schema.action_entities().map_err(|error| internal(&error))?;
    let problems = compare(source, &schema, &entities, &action_type);
    if !problems.is_empty() {
        return Err(problems);
    }
    let actions = Permission::all()
        .filter_map(|permission| {
            let uid = uid(&action_type, permission.name());
            entities.get(&uid).map(|entity| (entity.clone(), RestrictedExpression::new_entity_uid(uid.clone())))
        })
        .collect();
    let roles = LinkRole::ALL
        .into_iter()
        .map(|role| RestrictedExpression::new_entity_uid(uid(&role_type, role.as_str())))
        .collect();
    let vocabulary = Vocabulary {
        user_type: type_name("PartnerUser")?,
        partner_type: type_name("Partner")?,
        tenant_type: type_name("Tenant")?,
        link_type: type_name("Link")?,
        schema,
        groups: entities,
        actions,
        roles,
    };
    Ok((vocabulary, warnings))
}

pub(super) fn uid(type_name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(type_name.clone(), EntityId::new(id))
}

fn compare(source: &SourceFile, schema: &Schema, entities: &Entities, action_type: &EntityTypeName) -> Vec<Problem> {
    let mut problems = Vec::new();
    let ours: BTreeSet<String> =
        wildcards().into_iter().chain(SCOPES.iter().map(|(name, _)| (*name).to_owned())).collect();
    for permission in Permission::all() {
        if !applies(schema, &uid(action_type, permission.name())) {
            let message = format!("the schema lacks the permission `{permission}`");
            problems.push(
                Problem::at(source, find(source, permission.name()), message)
                    .help("it must be an action that applies to principal PartnerUser and resource [Link, Tenant]"),
            );
        }
    }
    for group in &ours {
        let meant = PermissionSet::from_name(group).unwrap_or_default();
        let target = uid(action_type, group);
        let members: PermissionSet =
            Permission::all().filter(|one| entities.is_ancestor_of(&target, &uid(action_type, one.name()))).collect();
        if members != meant {
            let missing = names(meant.without(members));
            let foreign = names(members.without(meant));
            let message = format!("the group `{group}` differs: missing [{missing}], foreign [{foreign}]");
            problems.push(Problem::at(source, find(source, group), message).help("put the shipped group back"));
        }
    }
    for action in schema.actions() {
        let name: &str = action.id().unescaped();
        if Permission::parse(name).is_none() && applies_to_anything(schema, action) {
            let leaves: Vec<&str> = Permission::all().map(Permission::name).collect();
            let known = ours.iter().map(String::as_str).chain(leaves);
            let near = nearest(name, known).unwrap_or_default();
            let problem = Problem::at(source, find(source, name), format!("unknown permission `{name}`"));
            problems.push(problem.help(format!(
                "no route can ask for it; the nearest known name is `{near}`. Groups (without `appliesTo`) may be added"
            )));
        }
    }
    problems
}

fn applies(schema: &Schema, action: &EntityUid) -> bool {
    let has = |mut types: Box<dyn Iterator<Item = &EntityTypeName> + '_>, name: &str| {
        types.any(|one| one.to_string() == name)
    };
    let resources = |name| schema.resources_for_action(action).is_some_and(|types| has(Box::new(types), name));
    schema.principals_for_action(action).is_some_and(|types| has(Box::new(types), "PartnerUser"))
        && resources("Link")
        && resources("Tenant")
}

fn applies_to_anything(schema: &Schema, action: &EntityUid) -> bool {
    schema.principals_for_action(action).is_some_and(|mut types| types.next().is_some())
}

fn names(set: PermissionSet) -> String {
    set.iter().map(Permission::name).collect::<Vec<_>>().join(", ")
}

/// Where the file names it; its start where it does not.
fn find(source: &SourceFile, name: &str) -> Range<usize> {
    let quoted = format!("\"{name}\"");
    // The declaration, if there is one, rather than a first mention in a list of groups.
    let declared = source.text.find(&format!("action {quoted}")).map(|at| at + "action ".len());
    declared.or_else(|| source.text.find(&quoted)).map_or(0..0, |at| at..at + quoted.len())
}
