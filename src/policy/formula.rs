//! A condition as a formula: atoms that are true or false, put together.
//!
//! What the atoms say, and which can stand together, is `logic`'s; here is only how a formula is made small and what it
//! comes to once some of its atoms are known.

/// A condition over numbered atoms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Formula {
    Const(bool),
    Atom(usize),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    /// if, then, else: a form of its own, because spelling it out would double the test at every level.
    If(Box<Self>, Box<Self>, Box<Self>),
}

impl Formula {
    #[must_use]
    pub(super) fn negated(self) -> Self {
        match self {
            Self::Const(value) => Self::Const(!value),
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Const(true), one) | (one, Self::Const(true)) => one,
            (Self::Const(false), _) | (_, Self::Const(false)) => Self::Const(false),
            (left, right) => Self::And(Box::new(left), Box::new(right)),
        }
    }

    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Const(false), one) | (one, Self::Const(false)) => one,
            (Self::Const(true), _) | (_, Self::Const(true)) => Self::Const(true),
            (left, right) => Self::Or(Box::new(left), Box::new(right)),
        }
    }

    #[must_use]
    pub(super) fn choice(test: Self, yes: Self, no: Self) -> Self {
        match test {
            Self::Const(true) => yes,
            Self::Const(false) => no,
            _ if yes == no => yes,
            test => Self::If(Box::new(test), Box::new(yes), Box::new(no)),
        }
    }

    /// `None`: depends on an atom that is not assigned yet, which is the second value.
    pub(super) fn value(&self, known: &[Option<bool>]) -> (Option<bool>, Option<usize>) {
        match self {
            Self::Const(value) => (Some(*value), None),
            Self::Atom(at) => match known.get(*at).copied().flatten() {
                Some(value) => (Some(value), None),
                None => (None, Some(*at)),
            },
            Self::Not(inner) => {
                let (value, open) = inner.value(known);
                (value.map(|value| !value), open)
            }
            Self::And(left, right) => both(left, right, known, false),
            Self::Or(left, right) => both(left, right, known, true),
            Self::If(test, yes, no) => match test.value(known) {
                (Some(true), _) => yes.value(known),
                (Some(false), _) => no.value(known),
                open => open,
            },
        }
    }
}

/// `strong`: the value of one side that decides the whole.
fn both(left: &Formula, right: &Formula, known: &[Option<bool>], strong: bool) -> (Option<bool>, Option<usize>) {
    let (a, open_a) = left.value(known);
    if a == Some(strong) {
        return (a, None);
    }
    let (b, open_b) = right.value(known);
    if b == Some(strong) {
        return (b, None);
    }
    (a.and(b).map(|_| !strong), open_a.or(open_b))
}
