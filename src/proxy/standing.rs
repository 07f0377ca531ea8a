//! What the records of one caller have in common, remembered from one request to the next.
//!
//! It is kept with the session, and so goes with it whenever keys, policies or rows change. Within a session the link, the
//! set that was asked, what it said and how it was asked may differ from request to request: only the last of them is kept,
//! and written for later use when it comes a second time, so that whoever changes tenants with each request pays little.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use crate::{
    audit::{Opening, Standing},
    domain::LinkFacts,
    policy::Bundle,
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
    /// The set that the record names.
    pub bundle: &'a Arc<Bundle>,
    /// `None`: the policies were not asked.
    pub manner: Option<Manner>,
}

/// The last terms of a session.
#[derive(Debug, Default)]
pub struct LastTerms(RefCell<Option<Held>>);

/// Holds what it was made from, so that no other object can come to stand at the same address.
#[derive(Debug)]
struct Held {
    link: Option<Arc<LinkFacts>>,
    policies: Arc<[Arc<str>]>,
    bundle: Arc<Bundle>,
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
            bundle: Arc::clone(terms.bundle),
            manner: terms.manner,
            standing: None,
        }
    }

    fn are(&self, terms: &Terms<'_>) -> bool {
        self.link.as_ref().map(Arc::as_ptr) == terms.link.map(Arc::as_ptr)
            && Arc::ptr_eq(&self.policies, terms.policies)
            && Arc::ptr_eq(&self.bundle, terms.bundle)
            && self.manner == terms.manner
    }
}
