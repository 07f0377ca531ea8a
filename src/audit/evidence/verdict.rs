//! What a tenant does with an access log that came with proofs: nothing of the gateway is needed but its published keys.
//!
//! It checks that each checkpoint is signed, that each record leads to its checkpoint's root, and that the fields of the
//! log say what the record says. It proves that what is shown stands in the signed chain, under the number that is shown,
//! and is about one tenant only; it does not prove that nothing was left out. That is for an auditor with the journal
//! (`linkgate audit verify --checkpoint`), and for whoever compares logs of the same period.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    checkpoint::Checkpoint,
    note::Keys,
    parts::Kind,
    proof::{LineProof, RecordProof, ShownCheckpoint},
};
use crate::audit::chain::ChainId;

/// Fields of the log that an opening holds as they are.
const AS_OPENED: [&str; 14] = [
    "id",
    "time",
    "partner_id",
    "partner_name",
    "user_id",
    "username",
    "action",
    "method",
    "path",
    "resource_type",
    "resource_id",
    "request_id",
    "client_ip",
    "user_agent",
];

/// An access log as it was saved.
#[derive(Debug, Deserialize)]
struct Saved {
    items: Vec<Map<String, Value>>,
    #[serde(default)]
    checkpoints: Vec<ShownCheckpoint>,
}

/// A record whose proof does not hold, or that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unproven {
    /// Counted from 1.
    pub item: usize,
    pub id: Option<String>,
    pub why: String,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Checkpoints whose signatures hold.
    pub checkpoints: Vec<Checkpoint>,
    pub proven: usize,
    /// Of which tenant the records are.
    pub tenant: Option<String>,
    /// Without a proof, and the log says why: younger than the last checkpoint, say.
    pub pending: Vec<Unproven>,
    pub wrong: Vec<Unproven>,
}

/// The file is no access log that was asked for with `proof=true`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotALog {
    #[error("it is no answer of the access log: {0}")]
    Json(String),
    #[error("its records carry no proofs: ask for `/access-log?proof=true`")]
    WithoutProofs,
    #[error("its checkpoint of chain {chain} cannot be relied on: {why}")]
    Checkpoint { chain: ChainId, why: String },
}

/// Checks a saved answer. `tenant`: whose records they must be; else they must be of one tenant, whichever it is.
pub fn check(saved: &[u8], keys: &Keys, tenant: Option<&str>) -> Result<Verdict, NotALog> {
    let saved: Saved = serde_json::from_slice(saved).map_err(|error| NotALog::Json(error.to_string()))?;
    let mut verdict = Verdict { tenant: tenant.map(str::to_owned), ..Verdict::default() };
    let mut checkpoints = BTreeMap::new();
    for shown in &saved.checkpoints {
        let unreliable = |why: String| NotALog::Checkpoint { chain: shown.chain_id, why };
        let said = Checkpoint::open(&shown.note, keys).map_err(|error| unreliable(error.to_string()))?;
        if said.chain_id != shown.chain_id || checkpoints.insert(said.chain_id.0, said.clone()).is_some() {
            return Err(unreliable("it is that of another chain, or stands twice".to_owned()));
        }
        verdict.checkpoints.push(said);
    }
    let mut ids = BTreeSet::new();
    for (at, item) in saved.items.iter().enumerate() {
        let id = item.get("id").and_then(Value::as_str).map(str::to_owned);
        let told = |why: String| Unproven { item: at + 1, id: id.clone(), why };
        let proof = match item.get("proof") {
            None => return Err(NotALog::WithoutProofs),
            Some(Value::Null) => {
                let why = item.get("proof_reason").and_then(Value::as_str).unwrap_or("no reason is given");
                verdict.pending.push(told(why.to_owned()));
                continue;
            }
            Some(proof) => proof,
        };
        let judged = RecordProof::deserialize(proof).map_err(|error| format!("its proof cannot be read: {error}"));
        let judged = judged.and_then(|proof| {
            let checkpoint = checkpoints.get(&proof.chain_id.0);
            let checkpoint = checkpoint.ok_or_else(|| format!("there is no checkpoint of chain {}", proof.chain_id))?;
            record(item, &proof, checkpoint)
        });
        let judged = judged.and_then(|owner| match &verdict.tenant {
            Some(known) if *known != owner => Err(format!("it is about the tenant `{owner}`, not `{known}`")),
            _ => Ok(owner),
        });
        match judged {
            Ok(_) if !ids.insert(id.clone()) => verdict.wrong.push(told("it is shown twice".to_owned())),
            Ok(owner) => {
                verdict.tenant = Some(owner);
                verdict.proven += 1;
            }
            Err(why) => verdict.wrong.push(told(why)),
        }
    }
    Ok(verdict)
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("a part of the record cannot be read: {error}"))
}

/// Checks one record; gives the tenant that it is about.
fn record(item: &Map<String, Value>, proof: &RecordProof, checkpoint: &Checkpoint) -> Result<String, String> {
    let is_type = |line: &LineProof, wanted: &str| line.line.as_ref().is_none_or(|line| line.line_type == wanted);
    proof.opening.leads_to(checkpoint)?;
    let opening = proof.opening.text(Kind::Whole).or_else(|| proof.opening.text(Kind::Common));
    let opening = object(opening.ok_or("the opening's visible part is missing")?)?;
    let slice = proof.opening.text(Kind::Slice).map(object).transpose()?;
    if !is_type(&proof.opening, "open") || !opening.contains_key("request_id") {
        return Err("what is shown as its opening is none".to_owned());
    }
    let completion = match &proof.completion {
        None => None,
        Some(line) => {
            line.leads_to(checkpoint)?;
            let visible = object(line.text(Kind::Whole).ok_or("the completion's visible part is missing")?)?;
            if !is_type(line, "complete") || visible.get("id") != opening.get("id") || line.seq <= proof.opening.seq {
                return Err("what is shown as its completion belongs to another record".to_owned());
            }
            Some(visible)
        }
    };
    let shown = |name: &str| item.get(name).filter(|value| !value.is_null());
    let differs = |name: &str| Err(format!("`{name}` is not what the record says"));
    for name in AS_OPENED {
        // What may be another tenant's can be missing from the log although the record has it.
        let hidden = slice.is_some() && shown(name).is_none() && matches!(name, "path" | "resource_id");
        if shown(name) != opening.get(name) && !hidden {
            return differs(name);
        }
    }
    let said =
        |name: &str| completion.as_ref().and_then(|completion| completion.get(name)).or_else(|| opening.get(name));
    if shown("status") != completion.as_ref().and_then(|completion| completion.get("status")) {
        return differs("status");
    }
    let named = opening.get("managed_tenant_id");
    let owner = slice.as_ref().and_then(|slice| slice.get("managed_tenant_id"));
    // The record's own decision is about the whole, or about the tenant that it names; else the slice has the word.
    let allowed = said("decision").and_then(Value::as_str) == Some("allow");
    let by = slice.as_ref().filter(|_| allowed && (named.is_none() || named != owner));
    for name in ["decision", "reason"] {
        let wanted = by.map_or_else(|| said(name), |slice| slice.get(name));
        if shown(name) != wanted {
            return differs(name);
        }
    }
    let owner = owner.or(named).and_then(Value::as_str);
    owner.map(str::to_owned).ok_or_else(|| "it does not say which tenant it is about".to_owned())
}
