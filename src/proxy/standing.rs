//! What the records of one caller have in common, remembered from one request to the next.
//!
//! It is kept with the session, and so goes with it whenever keys, policies or rows change. Within a session the link, the
//! set that was asked, what it said and how it was asked may differ from request to request: only the last of them is kept,
//! and written for later use when it comes a second time, so that whoever changes tenants with each request pays little.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use crate::{
    audit::{Opening, Standing},
    domain::LinkFacts,
};

/// How the policies were asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    pub switch_context: bool,
    /// Only whether the user holds the permission at all, before any tenant was looked at.
    pub caller_only: bool,
    /// The route's class.
    pub class: &'static str,
}

/// All that the terms of an allowed request's record are made from beside the session.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub link: Option<&'a Arc<LinkFacts>>,
    /// Those that determined it.
    pub policies: &'a Arc<[Arc<str>]>,
    /// Generation of the set that the record names; each set has its own.
    pub policy_set: u64,
    /// `None`: the policies were not asked.
    pub manner: Option<Manner>,
}

/// The last terms of a session.
#[derive(Debug, Default)]
pub struct LastTerms(RefCell<Option<Held>>);

/// Holds what it was made from, so that no other object can come to stand at the same address; but no policy set, which
/// would stay in memory after a reload for as long as the session of somebody who is gone.
#[derive(Debug)]
struct Held {
    link: Option<Arc<LinkFacts>>,
    policies: Arc<[Arc<str>]>,
    policy_set: u64,
    manner: Option<Manner>,
    standing: Option<Rc<Standing>>,
}

impl LastTerms {
    /// What can be taken over into this record of the session.
    pub fn known(&self, terms: &Terms<'_>, opening: &Opening<'_>) -> Option<Rc<Standing>> {
        let mut last = self.0.borrow_mut();
        match &mut *last {
            Some(held) if held.are(terms) => {
                Some(Rc::clone(held.standing.get_or_insert_with(|| Rc::new(Standing::of(opening)))))
            }
            _ => {
                *last = Some(Held::of(terms));
                None
            }
        }
    }
}

impl Held {
    fn of(terms: &Terms<'_>) -> Self {
        Self {
            link: terms.link.cloned(),
            policies: Arc::clone(terms.policies),
            policy_set: terms.policy_set,
            manner: terms.manner,
            standing: None,
        }
    }

    fn are(&self, terms: &Terms<'_>) -> bool {
        self.link.as_ref().map(Arc::as_ptr) == terms.link.map(Arc::as_ptr)
            && Arc::ptr_eq(&self.policies, terms.policies)
            && self.policy_set == terms.policy_set
            && self.manner == terms.manner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DecisionId, Millis};

    #[test]
    fn what_was_asked_otherwise_is_written_anew() {
        let (last, id) = (LastTerms::default(), DecisionId::generate());
        let opening = Opening::new(id, Millis(0), "GET", "/", "req_1");
        let [one, other]: [Arc<[Arc<str>]>; 2] = [["a".into()].into(), ["a".into()].into()];
        let first = Terms { link: None, policies: &one, policy_set: 1, manner: None };
        let is_known = |terms: &Terms<'_>| last.known(terms, &opening).is_some();
        assert_eq!([&first, &first, &first].map(is_known), [false, true, true]);
        let asked = Some(Manner { class: "read", ..Manner::default() });
        let others = [
            Terms { policies: &other, ..first },
            Terms { policy_set: 2, ..first },
            Terms { manner: asked, ..first },
            Terms { manner: asked.map(|manner| Manner { switch_context: true, ..manner }), ..first },
            Terms { manner: asked.map(|manner| Manner { class: "write", ..manner }), ..first },
        ];
        for terms in &others {
            assert_eq!([terms, terms, &first, &first].map(is_known), [false, true, false, true], "{terms:?}");
        }
    }
}
