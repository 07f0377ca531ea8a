//! Who approved a link's terms, and whose terms they are (contract, section 5; four eyes).
//!
//! Kept with every link, whatever `[links]` asks for today, so that four eyes can be switched on later. Pure, like the
//! rules beside it: the writer passes who acts.
//!
//! Invariant: with four eyes nobody's terms come into force by their own word. Everyone who created or widened a link
//! since it was last approved is remembered, not only the last one: else whoever asked could wait for somebody else's
//! small change, and then approve their own large one.

use serde::Serialize;

use super::{Approval, Millis, link_rules::Refusal};

/// Most names that may wait for one approval.
const MOST_NAMES: usize = 64;

/// What `[links]` asks for. From a `bool`: whether approval is required, without four eyes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApprovalRules {
    /// New, widened and re-activated links wait for approval.
    pub required: bool,
    /// Who created or widened a link may not approve it.
    pub four_eyes: bool,
}

impl From<bool> for ApprovalRules {
    fn from(required: bool) -> Self {
        Self { required, four_eyes: false }
    }
}

/// Who let a link's present terms in, and who asked for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct SignOff {
    /// Of the terms that are in force; `None` while they wait, or for rows older than this field.
    pub approved_by: Option<String>,
    pub approved_at: Option<Millis>,
    /// Names and accounts of everyone who created or widened it since it was last approved; `None`: not known.
    pub widened_by: Option<Vec<String>>,
}

/// A link as it stood before a change.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    pub sign_off: &'a SignOff,
    pub approval: Approval,
    /// Who created and who last changed the row: whom to suspect where `widened_by` is not known.
    pub writers: [&'a str; 2],
}

impl Standing<'_> {
    fn asked_for(&self) -> Vec<String> {
        match &self.sign_off.widened_by {
            Some(names) => names.clone(),
            None => self.writers.map(str::to_owned).to_vec(),
        }
    }
}

/// A change of a link as far as approval is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// `None`: the link is new, or granted again.
    pub before: Option<Standing<'a>>,
    /// It is new, or lets anyone do anything that it did not.
    pub wider: bool,
    /// What it ends with.
    pub approval: Approval,
    /// All names of who acts; the first is the one that is shown.
    pub names: &'a [&'a str],
    pub now: Millis,
}

impl Step<'_> {
    /// The sign-off after this change.
    pub fn signed(&self, rules: ApprovalRules) -> Result<SignOff, Refusal> {
        let was_approved = self.before.is_some_and(|before| before.approval == Approval::Approved);
        let let_in = self.approval == Approval::Approved && (self.wider || !was_approved);
        if rules.four_eyes && let_in {
            let asked_for = self.before.filter(|_| !self.wider).map(|before| before.asked_for());
            let own = asked_for.is_none_or(|asked| self.names.iter().any(|name| asked.iter().any(|by| by == name)));
            if own {
                return Err(Refusal::field(
                    "link",
                    "approval",
                    "four eyes: whoever created or widened this link may not approve it; somebody else has to, \
                     under a name and an account of their own",
                ));
            }
        }
        let kept = self.before.map(|before| before.sign_off.clone()).unwrap_or_default();
        let (approved_by, approved_at) = match (self.approval == Approval::Approved, let_in) {
            (true, true) => (self.names.first().map(|name| (*name).to_owned()), Some(self.now)),
            (true, false) => (kept.approved_by, kept.approved_at),
            (false, _) => (None, None),
        };
        let widened_by = if self.wider { Some(self.joined(was_approved)?) } else { kept.widened_by };
        Ok(SignOff { approved_by, approved_at, widened_by })
    }

    /// Those who asked before and were not approved yet, and who acts now.
    fn joined(&self, was_approved: bool) -> Result<Vec<String>, Refusal> {
        let waiting = self.before.filter(|_| !was_approved);
        let mut names = waiting.map(|before| before.asked_for()).unwrap_or_default();
        for name in self.names {
            if !names.iter().any(|known| known == name) {
                names.push((*name).to_owned());
            }
        }
        if names.len() > MOST_NAMES {
            return Err(Refusal::conflict(
                "too many people widened this link since it was last approved: decide on it first",
            ));
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: ApprovalRules = ApprovalRules { required: true, four_eyes: true };

    fn step<'a>(before: Option<Standing<'a>>, wider: bool, approval: Approval, names: &'a [&'a str]) -> Step<'a> {
        Step { before, wider, approval, names, now: Millis(7) }
    }

    fn standing(sign_off: &SignOff, approval: Approval) -> Standing<'_> {
        Standing { sign_off, approval, writers: ["old-maker", "old-changer"] }
    }

    #[test]
    fn everyone_who_widened_since_the_last_approval_is_barred() {
        let made = step(None, true, Approval::Pending, &["a", "cli:ann"]).signed(STRICT).unwrap();
        assert_eq!((made.approved_by.as_deref(), made.approved_at), (None, None));
        let more = step(Some(standing(&made, Approval::Pending)), true, Approval::Pending, &["b", "cli:bob"]);
        let more = more.signed(STRICT).unwrap();
        let approves = |names: &[&str]| {
            step(Some(standing(&more, Approval::Pending)), false, Approval::Approved, names).signed(STRICT)
        };
        // Another name does not help who sits at the same account, nor another account who has the same name.
        for own in [["a", "cli:zoe"], ["x", "cli:ann"], ["b", "cli:bob"], ["x", "cli:bob"]] {
            assert!(approves(&own).is_err(), "{own:?}");
        }
        let done = approves(&["c", "cli:cyd"]).unwrap();
        assert_eq!((done.approved_by.as_deref(), done.approved_at), (Some("c"), Some(Millis(7))));
        // Approved: the next to widen it begins a new list.
        let next = step(Some(standing(&done, Approval::Approved)), true, Approval::Pending, &["c"]).signed(STRICT);
        assert_eq!(next.unwrap().widened_by, Some(vec!["c".to_owned()]));
    }

    #[test]
    fn rejecting_and_narrowing_need_nobody_else() {
        let made = step(None, true, Approval::Pending, &["a"]).signed(STRICT).unwrap();
        let rejected = step(Some(standing(&made, Approval::Pending)), false, Approval::Rejected, &["a"]).signed(STRICT);
        assert_eq!(rejected.unwrap().widened_by, made.widened_by, "still nobody else's terms");
        let done = SignOff { approved_by: Some("b".into()), approved_at: Some(Millis(1)), ..made };
        let narrowed = step(Some(standing(&done, Approval::Approved)), false, Approval::Approved, &["a"]);
        assert_eq!(narrowed.signed(STRICT).unwrap(), done);
    }

    #[test]
    fn in_rows_that_do_not_say_their_writers_are_barred() {
        let old = SignOff::default();
        let approves = |name: &'static str| {
            step(Some(standing(&old, Approval::Pending)), false, Approval::Approved, &[name]).signed(STRICT)
        };
        assert!(approves("old-maker").is_err() && approves("old-changer").is_err());
        assert!(approves("somebody-else").is_ok());
        let wider = step(Some(standing(&old, Approval::Pending)), true, Approval::Pending, &["c"]).signed(STRICT);
        assert_eq!(wider.unwrap().widened_by.unwrap(), ["old-maker", "old-changer", "c"]);
    }

    #[test]
    fn without_four_eyes_the_approval_is_whoever_let_the_terms_in() {
        let plain = ApprovalRules::default();
        let made = step(None, true, Approval::Approved, &["a"]).signed(plain).unwrap();
        assert_eq!(made.approved_by.as_deref(), Some("a"));
        let wider = step(Some(standing(&made, Approval::Approved)), true, Approval::Approved, &["b"]).signed(plain);
        assert_eq!(wider.unwrap().approved_by.as_deref(), Some("b"));
        // Four eyes never let new terms in at once, even if nobody were asked to wait.
        let alone = ApprovalRules { required: false, four_eyes: true };
        assert!(step(None, true, Approval::Approved, &["a"]).signed(alone).is_err());
    }
}
